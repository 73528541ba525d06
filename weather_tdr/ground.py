"""Where and when incidents are judged: the same ground for networks, rules and the truth."""

import logging
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

from data_pipelines.catalogues import say_once
from data_pipelines.errors import InputError
from data_pipelines.incidents import at_times, once_a_day, read_catalogue
from data_pipelines.labelling import kinds_of
from data_pipelines.labels import UNKNOWN
from data_pipelines.limits import select_rows
from data_pipelines.schema import GROUPS, great_circle_km
from data_pipelines.store import WHOLE, fingerprint
from weather_tdr.candidates import labelled_incidents
from weather_tdr.config import Config, settings_of_store
from weather_tdr.data import sample_table
from weather_tdr.evaluate import EVALUATED

log = logging.getLogger(__name__)
ROUNDING = 1e-6  # degrees


def refuse_other_incidents(config: Config, store: xr.Dataset) -> None:
    """Refuses settings of incidents other than those that the patches were labelled by.

    Says so where a file of incidents has changed since.

    Raises:
        InputError: names the first key that differs.
    """
    if config.of_images:
        return
    labelled = store.attrs["settings"].get("incidents", {})
    labelled = {k: _without_paths(v) for k, v in labelled.items()}
    given = settings_of_store(config)["incidents"]
    of_others = {"exceedance", "mask", "series"} - {config.incidents.rule}
    for key in sorted(labelled.keys() & given.keys() - of_others):
        if labelled[key] != given[key]:
            raise InputError(
                f"`incidents.{key}` must be that by which the patches were labelled, "
                f"{labelled[key]}, got {given[key]}. Restore it, or run "
                "`weather-tdr run CONFIG` again."
            )
    if config.incidents.rule != "catalogue" or store.attrs["grid"].get("whole_field"):
        return  # the truth comes from the labels
    path = Path(config.incidents.catalogue).expanduser()
    known = set(store.attrs.get("fingerprints", {}).values())
    if (
        path.is_file()
        and path.stat().st_size <= WHOLE
        and known.isdisjoint(fingerprint([path]).values())
    ):
        say_once(
            logging.WARNING,
            f"{path} has changed since the patches were labelled: their scores follow it as it "
            "was, those of incidents as it is. Run `weather-tdr run CONFIG` again.",
        )


def _without_paths(value: Any) -> Any:
    """Settings of a rule without places of files, which stores of some releases hold."""
    return {k: v for k, v in value.items() if k != "paths"} if isinstance(value, dict) else value


def times_of(store: xr.Dataset, split: str) -> pd.DatetimeIndex:
    """The times of a split."""
    return pd.DatetimeIndex(np.unique(sample_table(store, split)["time"].to_numpy()))


def true_incidents(config: Config, store: xr.Dataset, split: str) -> pd.DataFrame:
    """The incidents that there are at the times of a split, where it has patches.

    Args:
        config: the run.
        store: its patch store.
        split: `validation` or `test`.

    Returns:
        ``time, latitude, longitude``, and ``storm_id`` from a catalogue; by day one a storm and
        day, with all of its ``places``. Of whole fields, whose map
        is a number a time, one a time at most, in the middle.
    """
    if config.incidents.rule != "catalogue" or store.attrs["grid"].get("whole_field"):
        return labelled_incidents(sample_table(store, split), cell_of(store))
    catalogue = _catalogue(config.incidents.catalogue)
    incidents = catalogue[select_rows(catalogue, config.incidents.where)]
    by_day = config.incidents.match_time == "day"
    here = covered(at_times(incidents, times_of(store, split), config.incidents.match_time), store)
    return once_a_day(here) if by_day else here


def _catalogue(path: str) -> pd.DataFrame:
    """A catalogue, read once: an evaluation asks for it for each method and rule."""
    return _read(path, Path(path).expanduser().stat().st_mtime_ns)


@lru_cache(maxsize=1)
def _read(path: str, changed: int) -> pd.DataFrame:
    return read_catalogue(path)


def cell_of(store: xr.Dataset) -> tuple[float, float]:
    """Degrees of latitude and of longitude of a central cell."""
    grid = store.attrs["grid"]
    points = grid["size"] if grid.get("whole_field") else (grid["stride"], grid["stride"])
    return points[0] * grid["dlat"], points[1] * grid["dlon"]


def covered(table: pd.DataFrame, store: xr.Dataset) -> pd.DataFrame:
    """The rows that lie in the central cell of a patch of validation or test, and within its map.

    Truth, networks and rules are judged there; not where patches were dropped for missing values or
    for a storm of another split, nor at the edge of a region, beyond the outermost centres of
    patches: a map ends there. An area (``extent``) counts where any of its positions does.

    Args:
        table: ``time, latitude, longitude``.
        store: the patch store.
    """
    if "extent" in table and len(table):
        sizes = [len(area) for area in table["extent"]]
        north, east = np.concatenate(table["extent"].to_list())[:, :2].T
        owner = np.repeat(np.arange(len(table)), sizes)
        times = table["time"].to_numpy()[owner]
        parts = pd.DataFrame(
            {"time": times, "latitude": north, "longitude": east % 360.0, "owner": owner}
        )
        return table.iloc[np.unique(covered(parts, store)["owner"])].reset_index(drop=True)
    cell = cell_of(store)
    samples = pd.concat([sample_table(store, s) for s in EVALUATED])
    table = table[_within_map(table, samples, store)]
    sampled = samples.groupby("time").indices
    keep = np.zeros(len(table), dtype=bool)
    for time, here in table.groupby("time").indices.items():
        if time not in sampled:
            continue
        part, rows = samples.iloc[sampled[time]], table.iloc[here]
        north = np.abs(rows["latitude"].to_numpy()[:, None] - part["latitude"].to_numpy()[None])
        east = rows["longitude"].to_numpy()[:, None] - part["longitude"].to_numpy()[None]
        east = np.abs((east + 180.0) % 360.0 - 180.0)
        keep[here] = ((north <= cell[0] / 2) & (east <= cell[1] / 2)).any(axis=1)
    return table[keep].reset_index(drop=True)


def judged(
    found: pd.DataFrame, config: Config, store: xr.Dataset, radius_km: float
) -> pd.DataFrame:
    """The found incidents that count: on covered ground, and not beside one that may be true.

    What lies within reach of an entry of the catalogue that lacks a value, and of no true incident,
    is neither a hit nor a false alarm.

    Args:
        found: ``time, latitude, longitude``.
        config: the run.
        store: its patch store.
        radius_km: within which found and true incidents match.
    """
    found = covered(found, store)
    if config.incidents.rule != "catalogue" or store.attrs["grid"].get("whole_field"):
        return found
    catalogue = _catalogue(config.incidents.catalogue)
    kind = kinds_of(catalogue, config.incidents, others="hard_negative")
    if not (kind == UNKNOWN).any():
        return found
    by_day = config.incidents.match_time == "day"
    moment = catalogue["time"].dt.floor("D") if by_day else catalogue["time"]
    decided = pd.Series(kind != UNKNOWN, index=catalogue.index)
    unknown = ~decided.groupby([catalogue["storm_id"], moment]).transform("any")
    times = pd.DatetimeIndex(found["time"].unique()).sort_values()
    near = [
        _beside(found, at_times(catalogue[which], times, config.incidents.match_time), radius_km)
        for which in (unknown, kind == GROUPS.index("incident"))
    ]
    return found[~near[0] | near[1]].reset_index(drop=True)


def _beside(found: pd.DataFrame, entries: pd.DataFrame, radius_km: float) -> npt.NDArray[np.bool_]:
    """Which rows lie within a radius of an entry of their time."""
    near = np.zeros(len(found), dtype=bool)
    at = entries.groupby("time").indices
    for time, rows in found.groupby("time").indices.items():
        if time in at:
            here, there = found.iloc[rows], entries.iloc[at[time]]
            km = great_circle_km(
                here["latitude"].to_numpy()[:, None], here["longitude"].to_numpy()[:, None],
                there["latitude"].to_numpy(), there["longitude"].to_numpy(),
            )  # fmt: skip
            near[rows] = (km <= radius_km).any(axis=1)
    return near


def _within_map(
    table: pd.DataFrame, samples: pd.DataFrame, store: xr.Dataset
) -> npt.NDArray[np.bool_]:
    """Which rows lie at most half a grid step beyond the outermost centres of patches."""
    grid = store.attrs["grid"]
    keep = np.ones(len(table), dtype=bool)
    if grid.get("whole_field"):
        return keep
    edge = grid["dlat"] / 2 + ROUNDING
    centres = samples["latitude"]
    keep &= table["latitude"].between(centres.min() - edge, centres.max() + edge).to_numpy()
    if not grid["is_global"]:
        edge = grid["dlon"] / 2 + ROUNDING
        west = grid["west"]
        centres = (samples["longitude"] - west) % 360.0
        east = (table["longitude"] - west) % 360.0
        keep &= east.between(centres.min() - edge, centres.max() + edge).to_numpy()
    return keep
