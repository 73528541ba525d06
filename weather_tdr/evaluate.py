"""From probabilities to a threshold and scores with intervals, a row a patch."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
import xarray as xr
from torch import Tensor, nn

from data_pipelines.errors import InputError
from weather_tdr import ranks
from weather_tdr.data import StoredSamples, in_parts, positions
from weather_tdr.intervals import bootstrap_average_precision, count_intervals, storm_blocks
from weather_tdr.models import log_odds
from weather_tdr.scores import Counts, choose_threshold, ranking_scores

PREDICT_SAMPLES = 1024
EVALUATED = ("validation", "test")


def _logits(
    model: nn.Module, store: xr.Dataset, split: str
) -> tuple[Tensor, npt.NDArray[np.int64]]:
    """Of every sample once: each rank computes its part, and gets those of the others."""
    floating = (p for p in model.parameters() if p.is_floating_point())
    like: Tensor = next(floating, torch.zeros(()))
    model.eval()
    index = positions(store, split)
    own = ranks.own_part(index)
    parts = []
    with torch.inference_mode():
        for batch in in_parts(StoredSamples(store, index[own])):
            for patches in torch.split(batch.patches, PREDICT_SAMPLES):
                parts.append(model(patches.to(like)).cpu().double())
        mine = torch.cat(parts)
        if mine.ndim != 2:
            raise InputError(
                f"the network must give logits of shape (n, classes), got {tuple(mine.shape)}. "
                "Give it an output a class, also for two classes."
            )
        logits = mine.new_zeros(len(index), mine.shape[1])
        logits[own] = mine
    labels = store["label"].to_numpy()[index].astype(np.int64)
    return ranks.sum_over_ranks([logits])[0], labels


def class_probabilities(
    model: nn.Module, store: xr.Dataset, split: str
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Probability of each class for every sample of a split, shape (n, classes), and its label."""
    logits, labels = _logits(model, store, split)
    return torch.softmax(logits, dim=1).numpy(), labels


def predict(model: nn.Module, store: xr.Dataset, split: str) -> npt.NDArray[np.float64]:
    """Log-odds of an incident of every sample of a split, uncalibrated, shape (n,)."""
    logits, _ = _logits(model, store, split)
    if logits.shape[1] != 2:
        raise InputError(
            f"the network must give two logits, of normal and incident, got {logits.shape[1]}. "
            "Give it two outputs."
        )
    return np.ascontiguousarray(log_odds(logits).numpy())


def blocks_of(table: pd.DataFrame) -> npt.NDArray[np.int64]:
    """Block of time of each sample, for bootstrap and cross-validation.

    Args:
        table: ``time``, ``label`` and ``incident_id`` of the samples.
    """
    storm = table["incident_id"].astype(str).where(table["label"] == 1, "")
    return storm_blocks(table["time"].to_numpy(), storm.to_numpy(dtype=object))


def score_split(
    score: npt.NDArray[np.float64],
    table: pd.DataFrame,
    threshold: float,
    prior: float,
    *,
    probabilities: bool,
) -> dict[str, Any]:
    """Every score of one split.

    Args:
        score: probability, or the score of a rule, shape (n,).
        table: as `predictions_table` gives it, of this split.
        threshold: chosen on validation.
        prior: share of incidents in validation: the forecast that the Brier skill is against.
        probabilities: whether `score` is a probability, so that it has a Brier score.
    """
    label = table["label"].to_numpy()
    block = blocks_of(table)
    said, is_so = score >= threshold, label == 1
    counts = Counts.of(said, is_so)
    found = {
        "samples": len(label),
        "incidents": int(label.sum()),
        "base_rate": float(label.mean()),
        **ranking_scores(score, label),
        "average_precision_interval": bootstrap_average_precision(score, label, block),
        "threshold": threshold,
        **vars(counts),
        **counts.scores(),
        **count_intervals(block, said & is_so, said & ~is_so, ~said & is_so),
    }
    columns = {"brier": score if probabilities else None}
    columns["brier_uncalibrated"] = (
        table["uncalibrated"].to_numpy() if "uncalibrated" in table else None
    )
    climate = _brier(np.full(len(label), prior), label)
    for name, values in columns.items():
        found[name] = math.nan if values is None else _brier(values, label)
        skill = name.replace("brier", "brier_skill")
        found[skill] = 1.0 - found[name] / climate if climate > 0 else math.nan
    return found


def _brier(probability: npt.NDArray[np.float64], label: npt.NDArray[np.integer]) -> float:
    from scores.probability import brier_score

    return float(brier_score(xr.DataArray(probability), xr.DataArray(label.astype(float))))


def evaluate(predictions: pd.DataFrame, *, probabilities: bool) -> tuple[float, dict[str, Any]]:
    """Threshold from validation, then the scores of validation and test.

    Args:
        predictions: columns ``split, time, label, incident_id, score``, as `predictions_table`
            gives them; ``uncalibrated`` too if that is to be scored.
        probabilities: whether the scores are probabilities.

    Returns:
        The threshold and the scores of each split.

    Raises:
        InputError: validation holds no incident.
    """
    of_split = {name: predictions[predictions["split"] == name] for name in EVALUATED}
    validation = of_split["validation"]
    threshold = choose_threshold(validation["score"].to_numpy(), validation["label"].to_numpy())
    if math.isnan(threshold):
        raise InputError(
            "`splits.validation` must hold an incident to choose a threshold, got none that has "
            "no missing values. Take a longer validation period."
        )
    prior = float(validation["label"].mean())
    return threshold, {
        name: score_split(
            table["score"].to_numpy(), table, threshold, prior, probabilities=probabilities
        )
        for name, table in of_split.items()
    }
