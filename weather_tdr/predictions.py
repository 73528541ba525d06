"""The score of every patch of a split, beside what it belongs to; on disk as NetCDF."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

from data_pipelines.schema import SPLITS
from data_pipelines.writing import written_whole
from weather_tdr.data import sample_table

Scores = dict[str, npt.NDArray[np.float64]]  # split -> score of each of its samples


def predictions_table(
    store: xr.Dataset, scores: Scores, uncalibrated: Scores | None = None
) -> pd.DataFrame:
    """Scores beside the samples that they belong to.

    Args:
        store: the patch store.
        scores: probabilities, or the scores of a rule.
        uncalibrated: probabilities before calibration.

    Returns:
        Columns ``split, time, latitude, longitude, label, group, incident_id, score``, and
        ``uncalibrated`` if it is given.
    """
    parts = [sample_table(store, name).assign(split=name, score=s) for name, s in scores.items()]
    table = pd.concat(parts, ignore_index=True)
    if uncalibrated is not None:
        table["uncalibrated"] = np.concatenate([uncalibrated[name] for name in scores])
    return table


def write_predictions(
    predictions: pd.DataFrame, path: Path, identity: str = "", *, of_rule: bool = False
) -> None:
    """Writes a table of predictions as NetCDF with CF attributes, along ``sample``.

    Args:
        predictions: as `predictions_table` gives them.
        path: of the file to make.
        identity: of the patch store that they belong to.
        of_rule: the scores are hPa of a rule on pressure, not probabilities.
    """
    table = predictions.assign(split=predictions["split"].map(SPLITS.index).astype(np.int8))
    dataset = xr.Dataset({k: ("sample", table[k].to_numpy()) for k in table})
    described: dict[str, dict[str, Any]] = {
        "split": {
            "flag_values": np.arange(len(SPLITS), dtype=np.int8),
            "flag_meanings": " ".join(SPLITS),
        },
        "score": {"long_name": "score of the rule", "units": "hPa"}
        if of_rule
        else {"long_name": "probability of an incident", "units": "1"},
        "uncalibrated": {"long_name": "probability before calibration", "units": "1"},
        "time": {"standard_name": "time", "long_name": "time (UTC)"},
        "label": {"long_name": "1 where the patch is labelled incident, else 0"},
        "group": {"long_name": "class x stratum, as numbered in the patch store"},
        "incident_id": {"long_name": "incident that the patch holds, as in the patch store"},
        "latitude": {"standard_name": "latitude", "units": "degrees_north"},
        "longitude": {"standard_name": "longitude", "units": "degrees_east"},
    }
    for name in described.keys() & set(dataset):
        dataset[name].attrs = described[name]
    dataset.attrs = {"Conventions": "CF-1.10", "store": identity}
    with written_whole(path) as partial:
        dataset.to_netcdf(partial, engine="netcdf4")


def read_predictions(path: Path) -> pd.DataFrame:
    """Reads what `write_predictions` wrote."""
    with xr.open_dataset(path) as dataset:
        table = dataset.load().to_dataframe().reset_index(drop=True)
    return table.assign(split=[SPLITS[int(code)] for code in table["split"]])


def stored_on(path: Path) -> str:
    """Identity of the patch store that predictions belong to."""
    with xr.open_dataset(path) as dataset:
        return str(dataset.attrs.get("store", ""))
