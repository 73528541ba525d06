"""A network of one's own beside the methods of a run: the same scores on the same ground."""

import json
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from torch import nn

from data_pipelines.errors import InputError
from data_pipelines.labelling import labelled_text
from data_pipelines.store import open_store, store_identity
from data_pipelines.writing import alone_in, write_atomically
from weather_tdr.assess import calibrated_predictions, draw_reliability
from weather_tdr.assess_rules import score_incidents, write_scores
from weather_tdr.candidates import apart_km, find_peaks
from weather_tdr.comparison import OWN, forget_maps
from weather_tdr.config import Config
from weather_tdr.evaluate import EVALUATED, evaluate
from weather_tdr.ground import cell_of, judged, refuse_other_incidents, true_incidents
from weather_tdr.incident_files import write_incidents
from weather_tdr.maps import write_map
from weather_tdr.methods.method import check_name
from weather_tdr.predictions import write_predictions
from weather_tdr.rules import RuleScores


def score_network(config: Config, network: nn.Module, name: str, data: str) -> dict[str, Any]:
    """Scores any network on the patches of a run; writes what a method's folder holds.

    Its map has a point a patch: only a fully convolutional network can have one a grid point. So
    its incidents match within half the diagonal of a central cell, if that is more than the radius.

    Args:
        config: of the run; its patch store has been built.
        network: from normalised patches ``(n, variable, y, x)`` to two logits.
        name: of the folder in the run.
        data: what the network has seen, for tables.

    Returns:
        The scores of validation and test.

    Raises:
        InputError: the name is that of a method or no name, or validation holds no incident.
    """
    folder = config.folder / name
    check_name(name)
    if name in config.train.methods or (folder / "model.json").is_file():
        raise InputError(
            f"`name` must not be that of a method of the run, got `{name}`. Choose another."
        )
    store = open_store(config.folder / "patches.zarr")
    refuse_other_incidents(config, store)
    with alone_in(config.folder):
        return _score(config, store, network, name, data)


def _score(
    config: Config, store: xr.Dataset, network: nn.Module, name: str, data: str
) -> dict[str, Any]:
    folder = config.folder / name
    calibration, predictions = calibrated_predictions(network, store)
    threshold, scores = evaluate(predictions, probabilities=True)
    # What this does not make must not stay, and what is stopped counts as none.
    (folder / "scores.json").unlink(missing_ok=True)
    forget_maps(folder)
    write_predictions(predictions, folder / "predictions.nc", store_identity(store.attrs))
    draw_reliability(predictions[predictions["split"] == "test"], folder, scores["test"])
    if config.incidents.rule == "catalogue" and not store.attrs["grid"].get("whole_field"):
        source = f"weather-tdr, {type(network).__name__} called {name}"
        maps = {s: patch_map(predictions[predictions["split"] == s], store) for s in EVALUATED}
        floor = min(calibration.prior, threshold)
        settings = config.maps.reaching(maps["test"])
        apart = settings.separation(cell_of(store)[0])
        peaks = {
            s: RuleScores(
                judged(find_peaks(found, apart, floor), config, store, settings.radius_km),
                np.empty(0),
                found["time"].values,
                apart_km(found),
            )
            for s, found in maps.items()
        }
        truth = {s: true_incidents(config, store, s) for s in EVALUATED}
        found, true, matching = score_incidents(folder, threshold, peaks, truth, settings)
        scores["test"]["incident_matching"] = matching
        write_incidents(found, folder, source)
        write_atomically(folder / "truth.csv", true.to_csv(index=False))
        write_map(maps["test"], folder / "incident_map.nc", source, matching["threshold"])
    write_scores(scores, folder)
    facts = {"data": data, "network": type(network).__name__, "maps": asdict(config.maps)}
    write_atomically(folder / OWN, json.dumps(facts, indent=2) + "\n")
    return scores


def patch_map(predictions: pd.DataFrame, store: xr.Dataset) -> xr.DataArray:
    """The probabilities of patches as a map: a point a patch, missing where one was dropped.

    Args:
        predictions: ``time, latitude, longitude, score`` of one split.
        store: the patch store.
    """
    grid, cell = store.attrs["grid"], cell_of(store)
    stride, margin = grid["stride"], (grid["size"] - 1) / 2
    row, column = (stride * np.arange(grid[k]) + margin for k in ("rows", "columns"))
    east = np.round(grid["dlon"] * column % 360.0, 6)  # of the first point; a globe wraps
    order = np.argsort(east)
    south = (grid["north"] - predictions["latitude"].to_numpy()) / grid["dlat"]
    points = (predictions["longitude"].to_numpy() - grid["west"]) % 360.0 / grid["dlon"]
    beyond = np.rint(points - margin).astype(int) % round(360.0 / grid["dlon"])
    times, step = np.unique(predictions["time"].to_numpy(), return_inverse=True)
    values = np.full((len(times), len(row), len(column)), np.nan, np.float32)
    rows, columns = np.rint(south - margin).astype(int) // stride, beyond // stride
    values[step, rows, np.argsort(order)[columns]] = predictions["score"]
    found = xr.DataArray(
        values,
        dims=("time", "latitude", "longitude"),
        coords={
            "time": times,
            "latitude": np.round(grid["north"] - grid["dlat"] * row, 6),
            "longitude": np.round(east[order] + grid["west"], 6),
        },
        name="incident_probability",
    )
    found["latitude"].attrs = {"standard_name": "latitude", "units": "degrees_north"}
    found["longitude"].attrs = {"standard_name": "longitude", "units": "degrees_east"}
    found.attrs = {
        "long_name": f"probability of {labelled_text(store.attrs['settings'])}",
        "units": "1",
        "cell_latitude": cell[0],
        "cell_longitude": cell[1],
    }
    return found
