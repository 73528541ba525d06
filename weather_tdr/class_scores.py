"""Scores of a test with two or more classes, some of them rare."""

import numpy as np
import numpy.typing as npt

from weather_tdr.scores import ranking_scores

Labels = npt.NDArray[np.int64]


def class_scores(
    probability: npt.NDArray[np.float64],
    said: Labels,
    label: Labels,
    minority: Labels,
) -> dict[str, float]:
    """Accuracy over all classes, and what the rare ones got, as means over them.

    Args:
        probability: of each class, shape (n, classes).
        said: class that each sample is called, shape (n,).
        label: its class, shape (n,).
        minority: the rare classes.

    Returns:
        ``accuracy``, ``balanced_accuracy`` (mean recall over classes), ``g_mean`` (geometric mean
        of the recalls), all 0 to 1; ``minority_recall`` (POD), ``minority_precision`` (1 - FAR),
        ``minority_f1``, ``csi``, ``average_precision``, ``roc_auc``: each minority class against
        the rest, mean over them. NaN where it is undefined.
    """
    from sklearn.metrics import accuracy_score, precision_recall_fscore_support

    classes = np.arange(probability.shape[1])
    precision, recall, f1, _ = precision_recall_fscore_support(
        label, said, labels=classes, zero_division=np.nan
    )
    rare = np.asarray(minority, dtype=int)
    f1 = np.where(np.isnan(f1) & ~np.isnan(recall), 0.0, f1)  # no hit and no alarm: 0, not unknown
    ranking = [ranking_scores(probability[:, k], (label == k).astype(np.int64)) for k in rare]
    return {
        "accuracy": float(accuracy_score(label, said)),
        "balanced_accuracy": balanced_accuracy(said, label),
        "minority_recall": float(recall[rare].mean()),
        "minority_precision": float(precision[rare].mean()),
        "minority_f1": float(f1[rare].mean()),
        # G-mean is 0 where a class is never found, and undefined where one is not tested.
        "g_mean": float(np.prod(recall) ** (1.0 / len(recall))),
        "csi": float((f1[rare] / (2.0 - f1[rare])).mean()),
        **{k: float(np.mean([r[k] for r in ranking])) for k in ("average_precision", "roc_auc")},
    }


def balanced_accuracy(said: Labels, label: Labels) -> float:
    """Mean recall over the classes that occur, 0 to 1."""
    from sklearn.metrics import balanced_accuracy_score

    return float(balanced_accuracy_score(label, said))


def rare_classes(counts: Labels) -> Labels:
    """The rarest third of the classes, at least one, with all that are as rare.

    Of two it is the second, which incidents and the `minority` of binary images are, also where
    training holds as many of them, or more.

    Args:
        counts: training samples of each class, shape (classes,).
    """
    if len(counts) == 2:
        return np.array([1])
    limit = np.sort(counts)[max(len(counts) // 3, 1) - 1]
    return np.flatnonzero(counts <= limit)
