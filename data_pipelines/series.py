"""Labels whole fields from one value a time, such as the rain on an island."""

import gzip
import zlib
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

from data_pipelines.areas import BRIDGE
from data_pipelines.catalogue_times import refuse, times_of
from data_pipelines.catalogues import dialect, whole_rows, with_points
from data_pipelines.coordinates import is_latitude, time_dim
from data_pipelines.errors import InputError, unknown_name
from data_pipelines.labels import UNKNOWN, PatchLabels, steps_of, storm_sets
from data_pipelines.limits import numbers
from data_pipelines.opening import engine_of
from data_pipelines.schema import GROUPS, MatchTime, PatchGrid
from data_pipelines.settings import Series


def read_series(series: Series) -> pd.DataFrame:
    """Reads the series.

    Args:
        series: where it lies, its variable, and how to reduce further dimensions. Cells of these
            that are always missing, such as the sea around an island, do not count; a time at
            which any other cell is missing has no value.

    Returns:
        ``time`` and the variable, ascending; the value is NaN where it is not known.

    Raises:
        InputError: no such file, no such variable, no times, or a time twice.
    """
    path = Path(series.path).expanduser()
    if not path.is_file():
        raise InputError(f"`incidents.series.path`: no such file: {path}. Check the path.")
    try:
        table = _read_csv(path, series) if is_text(path) else _read_netcdf(path, series)
    except InputError:
        raise
    except (ValueError, OSError, EOFError, zlib.error) as error:
        why = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        raise InputError(
            f"`incidents.series.path`: {path} is no readable CSV: {why}. Give a text file in UTF-8 "
            "(or its .gz) with a header and as many cells in each line, or NetCDF."
            if is_text(path)
            else f"`incidents.series.path`: cannot open {path} as NetCDF. Check the file; CSV is "
            "called .csv, .txt or .gz."
        ) from error
    clock = (
        table.drop(columns=series.variable) if table["time"].duplicated().any() else table[["time"]]
    )
    table["time"] = times_of(clock, path)
    refuse(path, table, table["time"].duplicated(), "time", "hold each date once")
    table[series.variable] = numbers(table[series.variable])
    return table.sort_values("time", ignore_index=True)


def is_text(path: Path) -> bool:
    """Whether a series is read as CSV, by the name of its file."""
    return path.suffix.lower() in (".csv", ".txt", ".gz")


def _read_csv(path: Path, series: Series) -> pd.DataFrame:
    opener = gzip.open if path.suffix.lower() == ".gz" else open
    with opener(path, "rt", encoding="utf-8-sig") as text:
        separator, decimal = dialect("".join(islice(text, 20)))
    table = pd.read_csv(path, sep=separator, decimal=decimal)
    table = with_points(whole_rows(table, list(table.columns), path), decimal)
    for column in ("time", series.variable):
        if column not in table:
            raise unknown_name("`incidents.series`: column", column, table.columns)
    table.index = pd.RangeIndex(2, 2 + len(table))
    table.attrs = {"format": "csv"}
    return table


def _read_netcdf(path: Path, series: Series) -> pd.DataFrame:
    with xr.open_dataset(path, engine=engine_of(path)) as dataset:
        if series.variable not in dataset:
            raise unknown_name(
                "`incidents.series.variable`", series.variable, map(str, dataset.data_vars)
            )
        values = dataset[series.variable]
        if values.dtype.kind not in "fiub":
            raise InputError(
                f"`incidents.series.variable` must be numbers, got `{series.variable}` of type "
                f"{values.dtype} in {path}. Name another one."
            )
        time = time_dim(values)
        if time is None or time not in dataset.coords:
            raise InputError(
                f"`incidents.series.variable` must have a time axis, got `{series.variable}` with "
                f"dims {values.dims} in {path}. Name it `time` and give it CF units."
            )
        others = [d for d in values.dims if d != time]
        if others:
            known = values.notnull()
            ever = known.any(str(time))
            counted: Any = values.where(ever)
            north = [values[d] for d in others if d in values.coords and is_latitude(values[d])]
            if series.reduce == "mean" and north:
                counted = counted.weighted(np.cos(np.deg2rad(north[0].fillna(90.0))))
            reduced = getattr(counted, series.reduce)(others, skipna=True)
            values = reduced.where((known | ~ever).all(others))
        table = pd.DataFrame({"time": dataset[time].to_numpy(), series.variable: values.to_numpy()})
        table.attrs = {"format": "netcdf"}
        return table


def label_from_series(
    table: pd.DataFrame,
    kind: npt.NDArray[np.integer],
    known: npt.NDArray[np.bool_],
    times: pd.DatetimeIndex,
    grid: PatchGrid,
    match_time: MatchTime = "exact",
) -> PatchLabels:
    """Labels the one patch of each time: the whole field.

    Incidents at consecutive times of the series are one incident, which no split may cut.

    Args:
        table: ``time``, ascending.
        kind: of each row, index into ``GROUPS``.
        known: whether the row has a value.
        times: times of the fields.
        grid: of whole fields.
        match_time: see `labels.steps_of`.

    Raises:
        InputError: the patch is not the whole field, or the times do not overlap.
    """
    if not grid.whole:
        raise InputError(
            "`patches.whole_field` must be true for `incidents.rule: series`, whose truth is for "
            "the whole region, got false. Set it."
        )
    entries = pd.DatetimeIndex(table["time"])
    known = known & (np.asarray(kind) != UNKNOWN)  # as where another column has no value
    steps = steps_of(entries, times, match_time, "incidents.series")
    incident = np.asarray(kind) == GROUPS.index("incident")
    # Over a day without a value an incident goes on, as over one that is missing.
    given = np.flatnonzero(known)
    apart = np.diff(entries[given].to_numpy("datetime64[ns]")).astype(np.int64)
    reach = max(1.5 * float(np.median(apart)), BRIDGE.value) if len(apart) else 0.0
    joined = np.r_[False, (apart <= reach) & incident[given][1:] & incident[given][:-1]]
    begun = np.maximum.accumulate(np.where(joined, 0, np.arange(len(given))))
    names = np.full(len(entries), "", dtype=object)
    names[given] = np.where(incident[given], entries[given[begun]].strftime("%Y%m%dT%H"), "")
    labelled = known & (steps >= 0) & (np.asarray(kind) > 0)
    unlabelled = np.ones(len(times), dtype=bool)
    unlabelled[steps[known & (steps >= 0)]] = False
    found = pd.DataFrame(
        {
            "step": steps[labelled],
            "row": 0,
            "column": 0,
            "kind": np.asarray(kind)[labelled],
            "incident_id": names[labelled],
            "storms": storm_sets(names[labelled]),
        }
    )
    if found["step"].duplicated().any():
        raise InputError(
            "`incidents.match_time: day` needs one value a day in the series, got several. "
            "Reduce it to days, or use `exact`."
        )
    unused = {
        "incidents_outside_times": int((incident & (steps < 0)).sum()),
        "times_without_label": int(unlabelled.sum()),
    }
    return PatchLabels(found.sort_values("step", ignore_index=True), unused, unlabelled)
