"""Labels patches from a catalogue: incident, hard negative, background."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from data_pipelines.errors import InputError
from data_pipelines.schema import GROUPS, MatchTime, PatchGrid


@dataclass(frozen=True)
class CatalogueLabels:
    """The patches whose central cell holds a catalogue entry; all others are background.

    Attributes:
        table: one row a patch, columns ``step`` (index into the times), ``row``, ``column``,
            ``group`` (index into ``GROUPS``), ``incident_id`` (the storm, of the incident if
            there is one), ``storms`` (frozenset of every storm in the cell).
        unused: entries that label nothing, and why.
    """

    table: pd.DataFrame
    unused: dict[str, int]


def label_from_catalogue(
    catalogue: pd.DataFrame,
    selected: pd.Series,
    times: pd.DatetimeIndex,
    grid: PatchGrid,
    match_time: MatchTime = "exact",
) -> CatalogueLabels:
    """Labels the patches of a grid at the given times.

    A patch is an *incident* when a selected entry of its time lies in its central cell, a *hard
    negative* when only other entries do.

    Args:
        catalogue: table with ``time, latitude, longitude, storm_id``.
        selected: True for incidents.
        times: times of the fields.
        grid: where patches lie.
        match_time: ``exact``: the entry's time is the field's; ``day``: the same day (UTC), for
            daily means.

    Raises:
        InputError: no entry shares its time with the fields.
    """
    entry_times = pd.DatetimeIndex(catalogue["time"])
    keys = times.floor("D") if match_time == "day" else times
    if not keys.is_unique:
        raise InputError(
            "`incidents.match_time: day` needs at most one field a day, got several. Use `exact`."
        )
    steps = keys.get_indexer(entry_times.floor("D") if match_time == "day" else entry_times)
    if not (steps >= 0).any():
        raise InputError(
            f"`incidents.catalogue` must overlap the fields in time, got entries from "
            f"{entry_times.min()} to {entry_times.max()} and fields from {times[0]} to "
            f"{times[-1]}. Give the catalogue of that period"
            + ("." if match_time == "day" else ", or `incidents.match_time: day` for daily fields.")
        )
    row, column = grid.cells(
        catalogue["latitude"].to_numpy(dtype=float), catalogue["longitude"].to_numpy(dtype=float)
    )
    inside = (steps >= 0) & (row >= 0)
    entries = pd.DataFrame(
        {
            "step": steps,
            "row": row,
            "column": column,
            "group": np.where(selected, GROUPS.index("incident"), GROUPS.index("hard_negative")),
            "incident_id": catalogue["storm_id"].to_numpy(),
        }
    )[inside]
    # The incident comes first in its cell and names it.
    cells = entries.sort_values("group", ascending=False, kind="stable").groupby(
        ["step", "row", "column"], sort=True
    )
    table = cells.agg(
        group=("group", "first"),
        incident_id=("incident_id", "first"),
        storms=("incident_id", frozenset),
    ).reset_index()
    in_time = steps >= 0
    chosen = selected.to_numpy()
    unused = {
        "incidents_outside_times": int((chosen & ~in_time).sum()),
        "incidents_outside_cells": int((chosen & in_time & (row < 0)).sum()),
        "others_outside_times": int((~chosen & ~in_time).sum()),
        "others_outside_cells": int((~chosen & in_time & (row < 0)).sum()),
    }
    return CatalogueLabels(table, unused)
