"""From probabilities to a threshold, scores with intervals, and the rule to compare with."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
import xarray as xr
from scores.probability import brier_score
from torch import nn

from data_pipelines.errors import InputError
from data_pipelines.schema import PRESSURE, PRESSURE_NAMES, SPLITS
from weather_tdr.data import iterate, positions, sample_table
from weather_tdr.scores import (
    Counts,
    bootstrap_average_precision,
    choose_threshold,
    ranking_scores,
)

BLOCK_DAYS = 2
PREDICT_SAMPLES = 1024
EVALUATED = ("validation", "test")


def class_probabilities(
    model: nn.Module, store: xr.Dataset, split: str
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Probability of each class for every sample of a split, shape (n, classes), and its label."""
    device = next(model.parameters()).device
    model.eval()
    parts, labels = [], []
    with torch.inference_mode():
        for batch in iterate(store, positions(store, split)):
            for patches in torch.split(batch.patches, PREDICT_SAMPLES):
                parts.append(torch.softmax(model(patches.to(device)), dim=1).double().cpu())
            labels.append(batch.labels)
    return torch.cat(parts).numpy(), torch.cat(labels).numpy()


def predict(model: nn.Module, store: xr.Dataset, split: str) -> npt.NDArray[np.float64]:
    """Probability of an incident of every sample of a split, shape (n,)."""
    return np.ascontiguousarray(class_probabilities(model, store, split)[0][:, 1])


def rules(store: xr.Dataset, split: str) -> dict[str, npt.NDArray[np.float64]]:
    """Scores of the rules that people use, in Pa; empty when there is no sea-level pressure.

    ``pressure_rule``: the lowest pressure in the central cell, with the sign changed; of whole
    fields that of all points;
    ``deepening_rule``: the largest fall of pressure at a point there over the longest lag, when
    the store holds lagged pressure.

    Returns:
        Name of the rule -> score that rises with the incident's likelihood, shape (n,).
    """
    base = store["base_variable"].to_numpy()
    standard = store["standard_name"].to_numpy()
    is_pressure = np.flatnonzero((standard == PRESSURE) | np.isin(base, PRESSURE_NAMES))
    if len(is_pressure) == 0:
        return {}
    hours = np.array([float(str(v).removesuffix("h")) for v in store["lag"].to_numpy()])
    now = int(is_pressure[np.argmax(hours[is_pressure])])
    before = int(is_pressure[np.argmin(hours[is_pressure])])
    patches = store["patches"]
    if not store.attrs["grid"].get("whole_field"):
        size, stride = store.attrs["grid"]["size"], store.attrs["grid"]["stride"]
        begin = (size - stride) // 2
        cell = slice(begin, begin + stride)
        patches = patches.isel(y=cell, x=cell)
    index = positions(store, split)
    current = patches.isel(variable=now).to_numpy()[index].astype(np.float64)
    found = {"pressure_rule": -current.min(axis=(1, 2))}
    if hours[before] < hours[now]:
        earlier = patches.isel(variable=before).to_numpy()[index].astype(np.float64)
        found["deepening_rule"] = (earlier - current).max(axis=(1, 2))
    return found


def score_split(
    score: npt.NDArray[np.float64], table: pd.DataFrame, threshold: float, *, probabilities: bool
) -> dict[str, Any]:
    """Every score of one split.

    Args:
        score: probability, or the score of a rule, shape (n,).
        table: ``time`` and ``label`` of the samples.
        threshold: chosen on validation.
        probabilities: whether `score` is a probability, so that it has a Brier score.
    """
    label = table["label"].to_numpy()
    time = table["time"].to_numpy()
    # Samples without a time, such as images, are independent.
    day = time.astype("datetime64[D]").astype(np.int64) // BLOCK_DAYS
    block = np.where(np.isnat(time), np.arange(len(time)), day)
    counts = Counts.of(score >= threshold, label == 1)
    brier = (
        float(brier_score(xr.DataArray(score), xr.DataArray(label.astype(float))))
        if probabilities
        else math.nan
    )
    return {
        "samples": len(label),
        "incidents": int(label.sum()),
        "base_rate": float(label.mean()),
        **ranking_scores(score, label),
        "average_precision_interval": bootstrap_average_precision(score, label, block),
        "threshold": threshold,
        **vars(counts),
        **counts.scores(),
        "brier": brier,
    }


def evaluate(predictions: pd.DataFrame, *, probabilities: bool) -> tuple[float, dict[str, Any]]:
    """Threshold from validation, then the scores of validation and test.

    Args:
        predictions: columns ``split, time, label, score``, as `predictions_table` gives them.
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
    return threshold, {
        name: score_split(table["score"].to_numpy(), table, threshold, probabilities=probabilities)
        for name, table in of_split.items()
    }


def predictions_table(
    store: xr.Dataset, scores: dict[str, npt.NDArray[np.float64]]
) -> pd.DataFrame:
    """Scores beside the samples that they belong to.

    Args:
        store: the patch store.
        scores: split -> score of each of its samples.

    Returns:
        Columns ``split, time, latitude, longitude, label, group, incident_id, score``.
    """
    parts = [sample_table(store, name).assign(split=name, score=s) for name, s in scores.items()]
    return pd.concat(parts, ignore_index=True)


def write_predictions(predictions: pd.DataFrame, path: Path, identity: str = "") -> None:
    """Writes a table of predictions as NetCDF with CF attributes, along ``sample``.

    Args:
        predictions: as `predictions_table` gives them.
        path: of the file to make.
        identity: of the patch store that they belong to.
    """
    table = predictions.assign(split=predictions["split"].map(SPLITS.index).astype(np.int8))
    dataset = xr.Dataset({k: ("sample", table[k].to_numpy()) for k in table})
    dataset["split"].attrs = {
        "flag_values": np.arange(len(SPLITS), dtype=np.int8), "flag_meanings": " ".join(SPLITS)
    }  # fmt: skip
    dataset["score"].attrs = {
        "long_name": "probability of an incident, or the score of a rule", "units": "1"
    }  # fmt: skip
    dataset["latitude"].attrs = {"standard_name": "latitude", "units": "degrees_north"}
    dataset["longitude"].attrs = {"standard_name": "longitude", "units": "degrees_east"}
    dataset.attrs = {"Conventions": "CF-1.10", "store": identity}
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    dataset.to_netcdf(partial, engine="netcdf4")
    partial.replace(path)


def read_predictions(path: Path) -> pd.DataFrame:
    """Reads what `write_predictions` wrote."""
    with xr.open_dataset(path) as dataset:
        table = dataset.load().to_dataframe().reset_index(drop=True)
    return table.assign(split=[SPLITS[int(code)] for code in table["split"]])


def stored_on(path: Path) -> str:
    """Identity of the patch store that predictions belong to."""
    with xr.open_dataset(path) as dataset:
        return str(dataset.attrs.get("store", ""))
