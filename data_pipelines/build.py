"""The whole preprocessing line, one call a stage, and the settings of each stage."""

import logging
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from data_pipelines.errors import InputError
from data_pipelines.fields import lag_hours, open_fields
from data_pipelines.incidents import read_catalogue, select_incidents
from data_pipelines.labels import label_from_catalogue
from data_pipelines.patches import count_groups, cut_patches, list_samples, sample_coordinates
from data_pipelines.schema import GROUPS, SPLITS, IntArray, MatchTime, PatchGrid, duration_hours
from data_pipelines.splits import choose_target, separate_storms, split_times
from data_pipelines.statistics import training_statistics
from data_pipelines.store import fingerprint, same_build, write_store

log = logging.getLogger(__name__)


@dataclass
class Fields:
    """Which fields to read.

    Attributes:
        paths: NetCDF files or one Zarr store.
        variables: names or CF standard names.
        lags: offsets in time that become further variables.
        hemisphere_sign: variables multiplied by the sign of latitude.
    """

    paths: list[str] = field(default_factory=list)
    variables: list[str] = field(default_factory=lambda: ["msl"])
    lags: list[str] = field(default_factory=lambda: ["0h"])
    hemisphere_sign: list[str] = field(default_factory=list)


@dataclass
class Incidents:
    """Which incidents to look for.

    Attributes:
        catalogue: CSV with time, latitude, longitude, storm_id and further columns.
        where: column -> {min, max}: the rows that are incidents; others are hard negatives.
        match_time: `exact`, or `day` for daily means.
    """

    catalogue: str = ""
    where: dict[str, dict[str, float]] = field(default_factory=dict)
    match_time: MatchTime = "exact"


@dataclass
class Patches:
    """How to cut patches.

    Attributes:
        size: grid points a side.
        stride: grid points from one patch to the next.
        background_share: share of the background that training keeps.
    """

    size: int = 16
    stride: int = 4
    background_share: float = 0.25


@dataclass
class Splits:
    """How to split the time axis and choose the target set.

    Attributes:
        train: intervals FIRST/LAST (dates, both included).
        validation: the same.
        test: the same.
        fractions: shares of train, validation, test, if no interval is given.
        gap: distance in time between splits; at least the largest lag.
        target_per_group: samples of each group in the target set.
    """

    train: list[str] = field(default_factory=list)
    validation: list[str] = field(default_factory=list)
    test: list[str] = field(default_factory=list)
    fractions: list[float] = field(default_factory=lambda: [0.6, 0.15, 0.25])
    gap: str = "2d"
    target_per_group: int = 12


def build_store(
    path: str | Path,
    fields: Fields,
    incidents: Incidents,
    patches: Patches,
    splits: Splits,
    *,
    seed: int = 0,
    progress: bool = False,
) -> Path:
    """Builds the patch store, or keeps the one that the same inputs and settings have made.

    Args:
        path: where the store goes.
        fields: which fields.
        incidents: which incidents.
        patches: how to cut.
        splits: how to split.
        seed: of the background that is kept and of the target set.
        progress: shows a progress bar.

    Returns:
        The path of the store.

    Raises:
        InputError: bad input or settings.
    """
    array = open_fields(
        fields.paths, fields.variables, lags=fields.lags, hemisphere_sign=fields.hemisphere_sign
    )
    grid = PatchGrid(
        array["latitude"].to_numpy().astype(float),
        array["longitude"].to_numpy().astype(float),
        patches.size,
        patches.stride,
    )
    catalogue = read_catalogue(incidents.catalogue)
    attributes: dict[str, Any] = {
        "settings": {
            "fields": {k: v for k, v in asdict(fields).items() if k != "paths"},
            "incidents": {k: v for k, v in asdict(incidents).items() if k != "catalogue"},
            "patches": asdict(patches),
            "splits": asdict(splits),
            "seed": seed,
        },
        "fingerprints": fingerprint([*fields.paths, incidents.catalogue]),
    }
    if same_build(path, attributes):
        log.info("patch store %s is up to date", path)
        return Path(path)
    times = pd.DatetimeIndex(array.indexes["time"])
    split = time_split(times, splits, fields.lags)
    samples, dropped = plan_samples(
        times, split, catalogue, grid, incidents, patches, splits.target_per_group, seed
    )
    attributes |= {
        "title": "Patches labelled incident or normal",
        "grid": {
            "size": grid.size,
            "stride": grid.stride,
            "dlat": grid.dlat,
            "dlon": grid.dlon,
            "is_global": grid.is_global,
            "rows": grid.rows,
            "columns": grid.columns,
        },
        "counts": count_groups(samples),
        "dropped": dropped,
    }
    coordinates = sample_coordinates(samples, times, grid) | {
        "label": (samples["group"] == GROUPS.index("incident")).to_numpy(dtype=np.int8),
        "group": samples["group"].to_numpy(),
        "split": samples["split"].to_numpy(),
        "incident_id": samples["incident_id"].to_numpy(),
        "reason": np.array(("background", "catalogue_entry", "selected_entry"))[samples["group"]],
    }
    for name, counts in attributes["counts"].items():
        log.info("%-10s %s", name, ", ".join(f"{n} {k}" for k, n in counts.items()))
    variables = xr.Dataset(coords=array["variable"].coords)
    return write_store(
        path,
        cut_patches(array, samples, grid),
        coordinates,
        variables,
        training_statistics(array, split),
        attributes,
        progress=progress,
    )


def time_split(times: pd.DatetimeIndex, splits: Splits, lags: list[str]) -> IntArray:
    """Split of each time step; refuses a gap that lets lagged inputs reach across it."""
    hours = duration_hours(splits.gap)
    if not hours >= 0:
        raise InputError(f"`splits.gap` must be a duration such as 2d or 36h, got `{splits.gap}`.")
    gap = pd.Timedelta(hours=hours)
    reach = pd.Timedelta(hours=-min(lag_hours(lag) for lag in lags))
    if gap < reach:
        raise InputError(
            f"`splits.gap` must be at least the largest lag, got {splits.gap} for lags {lags}. "
            "Otherwise one split sees the fields of another."
        )
    periods = {"train": splits.train, "validation": splits.validation, "test": splits.test}
    return split_times(times, periods, gap, splits.fractions)


def plan_samples(
    times: pd.DatetimeIndex,
    split: IntArray,
    catalogue: pd.DataFrame,
    grid: PatchGrid,
    incidents: Incidents,
    patches: Patches,
    target_per_group: int,
    seed: int,
) -> tuple[pd.DataFrame, dict[str, int]]:
    """Every sample of the store with its label, group and split, and counts of what is left out.

    Nothing of the fields is read: the plan follows from times, grid and catalogue alone.
    """
    selected = select_incidents(catalogue, incidents.where)
    labels = label_from_catalogue(catalogue, selected, times, grid, incidents.match_time)
    samples, dropped = list_samples(
        labels.table,
        separate_storms(labels.table, split),
        times,
        split,
        grid,
        background_share=patches.background_share,
        seed=seed,
    )
    train = np.flatnonzero(samples["split"] == SPLITS.index("train"))
    chosen, storms = choose_target(samples.iloc[train], target_per_group, seed=seed)
    codes = samples["split"].to_numpy().copy()
    codes[train[chosen]] = SPLITS.index("target")
    shared = np.array([not storms.isdisjoint(s) for s in samples["storms"]])
    shared &= codes == SPLITS.index("train")
    samples["split"] = codes
    dropped["storm_in_target_set"] = int(shared.sum())
    samples = samples[~shared].reset_index(drop=True)
    for name in ("train", "validation", "test"):
        part = samples[samples["split"] == SPLITS.index(name)]
        if not (part["group"] == GROUPS.index("incident")).any():
            raise InputError(
                f"`splits.{name}` must hold at least one incident, got none among {len(part)} "
                "samples. Change the periods, or relax `incidents.where`."
            )
    return samples, dropped | labels.unused
