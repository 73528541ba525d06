"""What every rule of labelling gives, and the rule that takes it from a catalogue."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.spatial import KDTree

from data_pipelines.cadence import never_looked_at
from data_pipelines.errors import InputError
from data_pipelines.quality import Finding
from data_pipelines.schema import (
    EARTH_RADIUS_KM,
    GROUPS,
    FloatArray,
    IntArray,
    MatchTime,
    PatchGrid,
)

UNKNOWN = -1  # a patch that cannot be labelled


@dataclass(frozen=True)
class PatchLabels:
    """Patches that are not background.

    Attributes:
        table: one row a patch, columns ``step`` (index into the times), ``row``, ``column``,
            ``kind`` (index into ``GROUPS``, or UNKNOWN), ``incident_id`` (the storm, of the
            incident if there is one), ``storms`` (frozenset of all that must stay in one split).
        unused: what labels nothing, and why.
        unlabelled: True for the times of which nothing is known; empty for none.
        findings: values that the labels come from and that cannot be used.
    """

    table: pd.DataFrame
    unused: dict[str, int]
    unlabelled: npt.NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, dtype=bool))
    findings: list[Finding] = field(default_factory=list)


def storm_sets(names: Iterable[str]) -> npt.NDArray[np.object_]:
    """A set of one name for each, or none for an empty name."""
    sets = [frozenset([str(name)]) if name else frozenset() for name in names]
    found = np.empty(len(sets), dtype=object)
    found[:] = sets
    return found


def steps_of(
    entries: pd.DatetimeIndex, times: pd.DatetimeIndex, match_time: MatchTime, what: str
) -> IntArray:
    """The time step that each entry belongs to, or -1.

    Args:
        entries: times of the entries.
        times: times of the fields.
        match_time: ``exact``: the entry's time is the field's; ``day``: the same day (UTC), for
            daily means.
        what: names the entries in errors.

    Raises:
        InputError: no entry shares its time with the fields, or a day has several fields.
    """
    keys = times.floor("D") if match_time == "day" else times
    if not keys.is_unique:
        raise InputError(
            "`incidents.match_time: day` needs at most one field a day, got several. Use `exact`."
        )
    steps = keys.get_indexer(entries.floor("D") if match_time == "day" else entries)
    if not (steps >= 0).any():
        got = (
            f"got entries from {entries.min()} to {entries.max()} and fields from {times[0]} to "
            f"{times[-1]}. "
        )
        if entries.min() <= times[-1] and entries.max() >= times[0]:
            raise InputError(
                f"`{what}` must have times of the fields, {got}None of the entries has the time of "
                "a field: shift or round one of them"
                + (
                    "."
                    if match_time == "day"
                    else ", or `incidents.match_time: day` for daily fields."
                )
            )
        raise InputError(f"`{what}` must overlap the fields in time, {got}Give that period.")
    return np.asarray(steps, dtype=np.int64)


def label_from_catalogue(
    catalogue: pd.DataFrame,
    kind: npt.NDArray[np.integer],
    times: pd.DatetimeIndex,
    grid: PatchGrid,
    match_time: MatchTime = "exact",
    distance_km: float = 0.0,
) -> PatchLabels:
    """Labels the patches of a grid at the given times.

    An entry belongs to the patch whose central cell holds it, or to all whose centre is near.
    A patch is an *incident* when an incident of its time belongs to it, else unknown when an entry
    does of which nobody knows, else a *hard negative* when one does. Times at which the catalogue
    has not looked are unlabelled: a storm would count as background (see `cadence`).

    Args:
        catalogue: table with ``time, latitude, longitude, storm_id``.
        kind: of each entry, index into ``GROUPS``, or UNKNOWN; background labels nothing.
        times: times of the fields.
        grid: where patches lie.
        match_time: see `steps_of`.
        distance_km: how near is near; 0 for the central cell.

    Raises:
        InputError: no entry shares its time with the fields, or all fields lie between its steps.
    """
    steps = steps_of(pd.DatetimeIndex(catalogue["time"]), times, match_time, "incidents.catalogue")
    unlabelled = never_looked_at(catalogue, times, match_time)
    if unlabelled.all():
        raise InputError(
            "`incidents.catalogue` must have the systems at the times of the fields, got fields "
            f"such as {times[0]}, all between its steps. Give fields of its times."
        )
    steps = np.where(unlabelled[steps], -1, steps)
    latitude, longitude = (catalogue[k].to_numpy(dtype=float) for k in ("latitude", "longitude"))
    if distance_km > 0:
        entry, row, column = _near(grid, latitude, longitude, distance_km)
    else:
        row, column = grid.cells(latitude, longitude)
        entry = np.flatnonzero(row >= 0)
        row, column = row[entry], column[entry]
    reached = np.zeros(len(catalogue), dtype=bool)
    reached[entry] = True
    entries = pd.DataFrame(
        {
            "step": steps[entry],
            "row": row,
            "column": column,
            "kind": np.asarray(kind)[entry],
            "incident_id": catalogue["storm_id"].to_numpy()[entry],
        }
    )
    # Where a storm has a value at one hour, its entries without one say nothing more.
    decided = entries["kind"] != UNKNOWN
    same = [entries[k] for k in ("step", "row", "column", "incident_id")]
    entries = entries[decided | ~decided.groupby(same).transform("any")]
    entries = entries[(entries["step"] >= 0) & (entries["kind"] != GROUPS.index("background"))]
    # The incident comes first in its cell and names it, then what may be one.
    order = {GROUPS.index("incident"): 0, UNKNOWN: 1, GROUPS.index("hard_negative"): 2}
    entries = entries.assign(order=entries["kind"].map(order))
    entries = entries.sort_values(["step", "row", "column", "order"], kind="stable")
    entries = entries.drop(columns="order").reset_index(drop=True)
    first = ~entries.duplicated(["step", "row", "column"])
    table = entries[first].reset_index(drop=True)
    ids, bounds = entries["incident_id"].tolist(), [*np.flatnonzero(first), len(entries)]
    storms = [frozenset(ids[a:b]) for a, b in pairwise(bounds)]
    table["storms"] = pd.Series(storms, dtype=object)
    in_time = steps >= 0
    chosen = np.asarray(kind) == GROUPS.index("incident")
    unused = {
        "incidents_outside_times": int((chosen & ~in_time).sum()),
        "incidents_outside_cells": int((chosen & in_time & ~reached).sum()),
        "others_outside_times": int((~chosen & ~in_time).sum()),
        "others_outside_cells": int((~chosen & in_time & ~reached).sum()),
    }
    unused["times_without_label"] = int(unlabelled.sum())
    unused["patches_without_label"] = int((table["kind"] == UNKNOWN).sum())
    return PatchLabels(table, unused, unlabelled)


def _near(
    grid: PatchGrid, latitude: FloatArray, longitude: FloatArray, distance_km: float
) -> tuple[IntArray, IntArray, IntArray]:
    """Entry, row and column of each pair of an entry and a patch whose centre is near."""
    rows, columns = np.indices((grid.rows, grid.columns)).reshape(2, -1)
    centres = _on_sphere(grid.centre_latitude()[rows], grid.centre_longitude()[columns])
    chord = 2.0 * np.sin(min(distance_km / (2.0 * EARTH_RADIUS_KM), np.pi / 2))
    found = KDTree(centres).query_ball_point(_on_sphere(latitude, longitude), chord)
    entry = np.repeat(np.arange(len(latitude)), [len(f) for f in found])
    cell = np.concatenate([np.zeros(0), *found]).astype(np.int64)
    return entry, rows[cell], columns[cell]


def _on_sphere(latitude: FloatArray, longitude: FloatArray) -> FloatArray:
    lat, lon = np.deg2rad(latitude), np.deg2rad(longitude)
    return np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=1)
