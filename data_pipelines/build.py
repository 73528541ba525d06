"""The whole preprocessing line, one call a stage, and the settings of each stage."""

import json
import logging
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

from data_pipelines.errors import InputError
from data_pipelines.fields import lag_hours, open_fields
from data_pipelines.incidents import read_catalogue, select_incidents
from data_pipelines.labels import label_from_catalogue
from data_pipelines.patches import (
    count_groups,
    cut_patches,
    list_samples,
    overlapping,
    sample_coordinates,
)
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

    def __post_init__(self) -> None:
        """Checks the names.

        Raises:
            InputError: no variable, or one twice.
        """
        if not self.variables or len(set(self.variables)) < len(self.variables):
            raise InputError(
                f"`fields.variables` must name each variable once, got {self.variables}."
            )


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
        "settings": store_settings(fields, incidents, patches, splits, seed),
        "fingerprints": fingerprint([*fields.paths, incidents.catalogue]),
    }
    if same_build(path, attributes):
        log.info("patch store %s is up to date", path)
        return Path(path)
    times = pd.DatetimeIndex(array.indexes["time"])
    split = time_split(times, splits, fields.lags)
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
    dropped |= labels.unused

    def finish(finite: npt.NDArray[np.bool_]) -> tuple[IntArray, dict[str, Any]]:
        codes, left_out = assign_splits(samples, finite, grid, splits.target_per_group, seed)
        facts = attributes | {
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
            "counts": count_groups(samples.assign(split=codes)),
            "dropped": dropped | left_out,
        }
        return codes, facts

    # Before anything is computed: would it do if no value were missing?
    _, facts = finish(np.ones(len(samples), dtype=bool))
    for name, counts in facts["counts"].items():
        log.info("%-10s %s", name, ", ".join(f"{n} {k}" for k, n in counts.items()))
    coordinates = sample_coordinates(samples, times, grid) | {
        "label": (samples["group"] == GROUPS.index("incident")).to_numpy(dtype=np.int8),
        "group": samples["group"].to_numpy(),
        "incident_id": samples["incident_id"].to_numpy(),
        "reason": np.array(("background", "catalogue_entry", "selected_entry"))[samples["group"]],
    }
    return write_store(
        path,
        cut_patches(array, samples, grid),
        coordinates,
        xr.Dataset(coords=array["variable"].coords),
        training_statistics(array, split),
        finish,
        progress=progress,
    )


def store_settings(
    fields: Fields, incidents: Incidents, patches: Patches, splits: Splits, seed: int
) -> dict[str, Any]:
    """All that decides a store besides the content of its inputs; JSON values."""
    settings = {
        "fields": {k: v for k, v in asdict(fields).items() if k != "paths"},
        "incidents": {k: v for k, v in asdict(incidents).items() if k != "catalogue"},
        "patches": asdict(patches),
        "splits": asdict(splits),
        "seed": seed,
    }
    plain: dict[str, Any] = json.loads(json.dumps(settings))
    return plain


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


def assign_splits(
    samples: pd.DataFrame,
    finite: npt.NDArray[np.bool_],
    grid: PatchGrid,
    target_per_group: int,
    seed: int,
) -> tuple[IntArray, dict[str, int]]:
    """Split of each sample, with the target set chosen among the training samples.

    Dropped are samples with a missing value; and of the training samples those whose storm, or
    whose grid points, the target set holds.

    Args:
        samples: as `list_samples` gives them.
        finite: whether each is free of missing values, shape (n,).
        grid: where patches lie.
        target_per_group: samples of each group in the target set.
        seed: of the choice.

    Returns:
        Index into ``SPLITS``, shape (n,), and counts of what was dropped, by reason.

    Raises:
        InputError: a split is left without incidents, or the target set cannot be filled.
    """
    train, target = SPLITS.index("train"), SPLITS.index("target")
    codes = np.where(finite, samples["split"].to_numpy(), SPLITS.index("dropped"))
    dropped = {"missing_values": int((~finite).sum())}
    incident = (samples["group"] == GROUPS.index("incident")).to_numpy()
    _refuse_empty(codes, incident, dropped["missing_values"])
    candidates = np.flatnonzero(codes == train)
    chosen, storms = choose_target(samples.iloc[candidates], target_per_group, seed=seed)
    codes[candidates[chosen]] = target
    shared = np.array([not storms.isdisjoint(s) for s in samples["storms"]]) & (codes == train)
    codes[shared] = SPLITS.index("dropped")
    dropped["storm_in_target_set"] = int(shared.sum())
    near = overlapping(samples, np.flatnonzero(codes == target), grid) & (codes == train)
    codes[near] = SPLITS.index("dropped")
    dropped["overlaps_target_set"] = int(near.sum())
    _refuse_empty(codes, incident, dropped["missing_values"])
    return codes, dropped


def _refuse_empty(codes: IntArray, incident: npt.NDArray[np.bool_], missing: int) -> None:
    for name in ("train", "validation", "test"):
        inside = codes == SPLITS.index(name)
        if not (inside & incident).any():
            hint = f" {missing} samples have missing values (NaN)." if missing else ""
            raise InputError(
                f"`splits.{name}` must hold at least one incident, got none among "
                f"{int(inside.sum())} samples.{hint} Change the periods, the region or the "
                "variables, or relax `incidents.where`."
            )
