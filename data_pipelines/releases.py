"""What tells a patch store from one that an older release made of the same files by other rules."""

import numpy as np
import pandas as pd
import xarray as xr

from data_pipelines.cadence import never_looked_at
from data_pipelines.incidents import read_catalogue
from data_pipelines.labelling import kinds_of
from data_pipelines.labels import UNKNOWN
from data_pipelines.limits import numbers
from data_pipelines.planning import grid_of
from data_pipelines.settings import Incidents, Patches

# Of a rule, or of a format of catalogue: one more, and stores of it are built anew.
RELEASES = {"exceedance": "2", "mask": "2", "series": "2", "ibtracs": "2"}


def changes(incidents: Incidents, patches: Patches, array: xr.DataArray) -> dict[str, str | None]:
    """What else decides a store than its settings and files; nothing where releases agree.

    Older releases left units as they were, took times between the steps of a catalogue for normal
    ones, and fill values for values.

    Args:
        incidents: which to look for.
        patches: how to cut.
        array: canonical fields, lazy.
    """
    changed = {"converted to SI": array.attrs.get("converted")}
    changed["release of the rule"] = RELEASES.get(incidents.rule)
    if incidents.rule != "catalogue":
        return changed
    catalogue, times = read_catalogue(incidents.catalogue), array.indexes["time"]
    changed["release of the rule"] = RELEASES.get(catalogue.attrs["format"])
    kinds = kinds_of(catalogue, incidents, others="hard_negative")
    columns = [catalogue[c] for c in incidents.where | incidents.hard_negatives]
    other = [~_alike(numbers(c), pd.to_numeric(c, errors="coerce")) for c in columns]
    for what, number in (
        ("times without a label", never_looked_at(
            catalogue, pd.DatetimeIndex(times), incidents.match_time).sum()),
        ("entries that are unknown", (kinds == UNKNOWN).sum()),
        ("values read otherwise", np.sum(other)),
    ):  # fmt: skip
        changed[what] = str(int(number)) if number else None
    grid = grid_of(array, patches)
    west = (catalogue["longitude"] - grid.longitude[0]) % 360.0 >= 360.0 - grid.dlon / 2
    if west.any() and not grid.is_global and (grid.whole or not grid.margin):
        changed["entries half a grid step west"] = str(int(west.sum()))
    return changed


def _alike(one: pd.Series, other: pd.Series) -> pd.Series:
    """Where two columns have the same number, or none."""
    return (one == other) | (one.isna() & other.isna())
