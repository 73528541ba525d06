"""Counts that add up, and the scores that follow from them.

Statistics are summed first and divided once, so that chunks, regions and years combine exactly.
The formulas are those of the package `scores` (Bureau of Meteorology) and of scikit-learn.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

# scikit-learn and scores take a second to import: each function that scores does so itself.

Values = npt.NDArray[np.floating]
Labels = npt.NDArray[np.integer]


@dataclass(frozen=True)
class Counts:
    """A 2 x 2 contingency table.

    Attributes:
        hits: TP.
        false_alarms: FP.
        misses: FN.
        correct_negatives: TN.
    """

    hits: int = 0
    false_alarms: int = 0
    misses: int = 0
    correct_negatives: int = 0

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(
            self.hits + other.hits,
            self.false_alarms + other.false_alarms,
            self.misses + other.misses,
            self.correct_negatives + other.correct_negatives,
        )

    @classmethod
    def of(cls, predicted: npt.NDArray[np.bool_], observed: npt.NDArray[np.bool_]) -> "Counts":
        """Counts of yes/no predictions against yes/no observations of the same shape."""
        predicted, observed = np.asarray(predicted, bool), np.asarray(observed, bool)
        return cls(
            int((predicted & observed).sum()),
            int((predicted & ~observed).sum()),
            int((~predicted & observed).sum()),
            int((~predicted & ~observed).sum()),
        )

    def scores(self) -> dict[str, float]:
        """POD, FAR, POFD, CSI, HSS, SEDI and balanced accuracy; see `table_scores`."""
        table = np.array([self.hits, self.false_alarms, self.misses, self.correct_negatives])
        return {k: float(v) for k, v in table_scores(*table).items()}


def table_scores(
    hits: npt.ArrayLike,
    false_alarms: npt.ArrayLike,
    misses: npt.ArrayLike,
    correct_negatives: npt.ArrayLike,
) -> dict[str, Values]:
    """Scores of many 2 x 2 contingency tables at once; NaN where undefined.

    POD: 0 to 1, perfect 1. FAR: the false alarm *ratio* FP / (TP + FP), 0 to 1, perfect 0; not
    POFD, the false alarm rate FP / (FP + TN). CSI: 0 to 1, perfect 1. HSS: -1 to 1, no skill 0.
    SEDI: -1 to 1, for rare events. Balanced accuracy: mean of POD and 1 - POFD.

    Args:
        hits: of each table, shape (n,), or one number.
        false_alarms: the same.
        misses: the same.
        correct_negatives: the same.

    Source: Jolliffe and Stephenson, Forecast Verification, 2nd ed.; SEDI: Ferro and Stephenson
    (2011), Wea. Forecasting 26, 699-713.
    """
    from scores.categorical import BasicContingencyManager

    given = np.broadcast_arrays(hits, false_alarms, misses, correct_negatives)
    counts = dict(zip(("tp", "fp", "fn", "tn"), given, strict=True))
    dims = ("table",) if given[0].ndim else ()
    cells = {f"{k}_count": xr.DataArray(v.astype(float), dims=dims) for k, v in counts.items()}
    cells["total_count"] = xr.DataArray(sum(v.astype(float) for v in given), dims=dims)
    manager = BasicContingencyManager(cells)
    with np.errstate(all="ignore"):
        values = {
            "pod": manager.probability_of_detection(),
            "far": manager.false_alarm_ratio(),
            "pofd": manager.probability_of_false_detection(),
            "csi": manager.critical_success_index(),
            "hss": manager.heidke_skill_score(),
            "sedi": manager.symmetric_extremal_dependence_index(),
        }
    scores = {k: np.where(np.isfinite(v), v, np.nan) for k, v in values.items()}
    scores["balanced_accuracy"] = 0.5 * (scores["pod"] + 1.0 - scores["pofd"])
    return scores


def choose_threshold(score: Values, label: Labels) -> float:
    """The threshold (score >= threshold) with the best CSI; for validation data only.

    Args:
        score: any score that rises with the incident's likelihood, shape (n,).
        label: 0 or 1, shape (n,).

    Returns:
        The threshold; NaN when there is no incident.

    Notes:
        Among neighbouring scores the midpoint is taken, so that rounding does not decide.
    """
    from sklearn.metrics import precision_recall_curve

    if not label.any():
        return math.nan
    precision, recall, thresholds = precision_recall_curve(label, score)
    precision, recall = precision[:-1], recall[:-1]
    with np.errstate(divide="ignore", invalid="ignore"):
        csi = 1.0 / (1.0 / precision + 1.0 / recall - 1.0)
    best = int(np.nanargmax(np.where(recall > 0, csi, -1.0)))
    below = thresholds[best - 1] if best else thresholds[best]
    return float((thresholds[best] + below) / 2)


def ranking_scores(score: Values, label: Labels) -> dict[str, float]:
    """Average precision and ROC AUC; NaN when one class is absent.

    Average precision: base rate (no skill) to 1. ROC AUC: 0.5 (no skill) to 1.
    """
    from sklearn.metrics import average_precision_score, roc_auc_score

    if label.min() == label.max():
        return {"average_precision": math.nan, "roc_auc": math.nan}
    return {
        "average_precision": float(average_precision_score(label, score)),
        "roc_auc": float(roc_auc_score(label, score)),
    }


@dataclass(frozen=True)
class Curve:
    """Precision against recall, from recall 1 down to 0, and the area under it.

    Attributes:
        precision: 1 - FAR, shape (n,).
        recall: POD, shape (n,).
        average_precision: area.
    """

    precision: Values
    recall: Values
    average_precision: float

    @classmethod
    def of(cls, score: Values, label: Labels) -> "Curve":
        """Of scores that rise with the incident's likelihood, and labels 0 or 1.

        Without samples of one of the two classes it has no points, and its area is NaN.
        """
        from sklearn.metrics import average_precision_score, precision_recall_curve

        if label.min() == label.max():
            return cls(np.empty(0), np.empty(0), math.nan)
        precision, recall, _ = precision_recall_curve(label, score)
        return cls(precision, recall, float(average_precision_score(label, score)))


def reliability_table(probability: Values, label: Labels) -> pd.DataFrame:
    """How often there was an incident where a probability was given.

    Args:
        probability: 0 to 1, shape (n,).
        label: 0 or 1, shape (n,).

    Returns:
        A row a bin that is not empty, two bins a power of ten and from 0.1 on a bin a tenth, the
        lowest with all below it: ``from, to, samples, incidents, probability`` (mean),
        ``frequency``, and its Wilson interval of 95 %, ``low, high``. The interval takes samples to
        be independent.
    """
    edges = np.r_[10.0 ** np.arange(-6, -1, 0.5), np.arange(1, 11) / 10]
    place = np.clip(np.searchsorted(edges, probability, side="right") - 1, 0, len(edges) - 2)
    rows = []
    for k in np.unique(place):
        inside = place == k
        n, hits = int(inside.sum()), int(label[inside].sum())
        low, high = wilson_interval(hits, n)
        rows.append(
            (edges[k], edges[k + 1], n, hits, probability[inside].mean(), hits / n, low, high)
        )
    columns = ["from", "to", "samples", "incidents", "probability", "frequency", "low", "high"]
    return pd.DataFrame(rows, columns=columns)


def wilson_interval(hits: float, samples: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a proportion.

    Source: Wilson (1927), Journal of the American Statistical Association 22, 209-212.
    """
    z = 1.959963984540054
    rate, share = hits / samples, z**2 / samples
    centre = (rate + share / 2) / (1 + share)
    half = z / (1 + share) * math.sqrt(rate * (1 - rate) / samples + share / (4 * samples))
    return min(max(centre - half, 0.0), rate), max(min(centre + half, 1.0), rate)
