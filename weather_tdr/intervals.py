"""95 % intervals from a bootstrap over blocks of time that never cut a storm in two.

Samples of one storm follow each other; to resample single samples would pretend that they are
independent, and to cut a storm at midnight would too.
"""

import math

import numpy as np
import numpy.typing as npt
import pandas as pd

from weather_tdr.scores import wilson_interval

BLOCK_DAYS = 2
ROUNDS = 1000
INTERVAL = [0.025, 0.975]
COUNTED = ("pod", "far", "csi")


def storm_blocks(
    time: npt.NDArray[np.datetime64], storm: npt.NDArray[np.object_]
) -> npt.NDArray[np.int64]:
    """Number of the block of each sample or incident.

    Args:
        time: shape (n,); what has no time, such as images, is a block of its own.
        storm: name of the storm that it belongs to, shape (n,); empty for none. All of a storm
            belongs to the block of its first time here.
    """
    first = pd.Series(np.asarray(time, dtype="datetime64[ns]"))
    names = pd.Series(np.asarray(storm, dtype=object)).fillna("").astype(str)
    of_storm = first.groupby(names).transform("min")
    first = first.where(names == "", of_storm)
    day = first.to_numpy().astype("datetime64[D]").astype(np.int64) // BLOCK_DAYS
    # Days since 1970 are far from the numbers of those without a time.
    alone = np.iinfo(np.int64).min + 1 + np.arange(len(first))
    return np.where(first.isna(), alone, day)


def count_intervals(
    block: npt.NDArray[np.int64],
    hits: npt.NDArray[np.bool_],
    false_alarms: npt.NDArray[np.bool_],
    misses: npt.NDArray[np.bool_],
    *,
    blocks: npt.NDArray[np.int64] | None = None,
    seed: int = 0,
) -> dict[str, list[float]]:
    """Intervals of POD, FAR and CSI.

    Args:
        block: number of the block of each sample or incident, shape (n,).
        hits: which are hits, shape (n,).
        false_alarms: the same.
        misses: the same.
        blocks: all blocks of the period, with those in which there is nothing; by default those
            that `block` names.
        seed: of the bootstrap.

    Returns:
        ``pod_interval``, ``far_interval``, ``csi_interval``: lower and upper limit; NaN where
        the score is undefined. That of a score of 0 or 1, or from a single block, is Wilson's
        for as many trials as there are blocks with something to count.
    """
    names = np.unique(block if blocks is None else np.r_[block, blocks])
    if len(names) == 0:
        return {f"{name}_interval": [math.nan, math.nan] for name in COUNTED}
    place = np.searchsorted(names, block)
    counts = np.stack(
        [np.bincount(place, weights=v, minlength=len(names)) for v in (hits, false_alarms, misses)],
        axis=1,
    )
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=ROUNDS)
    tp, fp, fn = (drawn @ counts).T
    with np.errstate(invalid="ignore", divide="ignore"):
        scores = {"pod": tp / (tp + fn), "far": fp / (tp + fp), "csi": tp / (tp + fp + fn)}
    parts = {"pod": (0, 0, 2), "far": (1, 0, 1), "csi": (0, 0, 1, 2)}
    found = {}
    for name, values in scores.items():
        part, *whole = parts[name]
        limits = _limits(values)
        total = counts.sum(axis=0)
        n, of = total[whole].sum(), int(counts[:, whole].any(axis=1).sum())
        if n and (of == 1 or total[part] in (0, n)):
            # Resamples do not differ: Wilson's, with a trial a block.
            limits = list(wilson_interval(of * total[part] / n, of))
        found[f"{name}_interval"] = limits
    return found


def bootstrap_average_precision(
    score: npt.NDArray[np.floating],
    label: npt.NDArray[np.integer],
    block: npt.NDArray[np.integer],
    *,
    rounds: int = 300,
    seed: int = 0,
) -> list[float]:
    """95 % interval of the average precision.

    Args:
        score: shape (n,).
        label: shape (n,).
        block: number of the block of each sample, shape (n,).
        rounds: of the bootstrap.
        seed: of the bootstrap.

    Returns:
        Lower and upper limit; NaN when a resample never holds an incident.
    """
    rng = np.random.default_rng(seed)
    order = np.argsort(-score, kind="stable")
    ranked, blocks = label[order].astype(float), np.unique(block, return_inverse=True)[1][order]
    n = int(blocks.max()) + 1
    # Ties share a place: precision is read at the last of equal scores.
    last = np.r_[np.flatnonzero(np.diff(score[order])), len(score) - 1]
    values = []
    for _ in range(rounds):
        weight = np.bincount(rng.integers(0, n, n), minlength=n)[blocks]
        true = np.cumsum(weight * ranked)[last]
        seen = np.cumsum(weight)[last]
        if true[-1] > 0:
            gained = np.diff(np.r_[0.0, true])
            values.append(float((gained * true / np.maximum(seen, 1)).sum() / true[-1]))
    return _limits(np.array(values))


def _limits(values: npt.NDArray[np.float64]) -> list[float]:
    values = values[np.isfinite(values)]
    return [float(v) for v in np.quantile(values, INTERVAL)] if len(values) else [math.nan] * 2
