"""Opens gridded fields lazily and makes them canonical.

Canonical means: dims ``(time, variable, latitude, longitude)``; time ascending without
duplicates; latitude descending; longitude ascending from the first value in [0, 360), going on
beyond 360 where a region crosses the Greenwich meridian; SI units; time lags as variables.
"""

import functools
import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from data_pipelines.coordinates import canonical_coordinates
from data_pipelines.errors import InputError, unknown_name
from data_pipelines.joining import Wanted, refused
from data_pipelines.levels import level_of
from data_pipelines.opening import open_files, widened
from data_pipelines.periods import interval
from data_pipelines.quality import UNREADABLE
from data_pipelines.schema import FIELD_DIMS, canonical_name, duration_hours
from data_pipelines.time_axis import time_findings
from data_pipelines.units import newly_converted, si_units

log = logging.getLogger(__name__)
DESCRIBED = ("units", "standard_name", "base_variable", "lag", "level")


def open_fields(
    paths: Sequence[str | Path],
    variables: Sequence[str],
    *,
    lags: Sequence[str] = ("0h",),
    hemisphere_sign: Sequence[str] = (),
    standard_names: Sequence[str] = (),
    period: str = "",
    name_of_period: str = "fields.period",
) -> xr.DataArray:
    """Opens NetCDF or GRIB files or a Zarr store as one lazy array of canonical fields.

    Of several files those that cannot be opened are left out and reported.

    Args:
        paths: NetCDF or GRIB files, also by patterns (joined along time and variables), or one
            Zarr store, on disk or by its address (``gs://``, ``s3://``, ``https://``).
        variables: names, or CF standard names, of the variables.
        lags: offsets in time that become further variables, such as ``["0h", "-24h"]``.
        hemisphere_sign: variables that are multiplied by -1 south of the equator (vorticity-like).
        standard_names: CF standard name of each of `variables`, to look them up by when the file
            has no such name.
        period: FIRST/LAST: the only times to look at, with those that lags reach back to.
        name_of_period: for errors.

    Returns:
        float32, dims ``(time, variable, latitude, longitude)``, dask-backed; what is wrong
        with files and times is in the attribute ``findings`` (JSON). ``variable`` holds
        ``msl``, ``msl-24h``, ...; along it lie the coordinates ``units``, ``standard_name``,
        ``base_variable``, ``lag`` and ``level`` (where the file says it, such as ``85000 Pa``).
        The attribute ``converted`` (JSON) holds units of files that older releases left as they
        were.

    Raises:
        InputError: a file or variable is missing, no file can be opened, or the grid is not
            regular.
    """
    named = {*variables, *map(canonical_name, (*variables, *standard_names))} - {""}
    wanted = Wanted(frozenset(named))
    if period:
        first, last = interval(name_of_period, period)
        first += pd.Timedelta(hours=min(lag_hours(lag) for lag in lags))
        wanted = replace(wanted, period=(first, last))
    opened, unread = open_files(paths, wanted)
    dataset = canonical_coordinates(opened)
    if wanted.period:
        dataset = _within(dataset, wanted.period, period, name_of_period)
    dataset, findings = time_findings(dataset, wanted.of(dataset))
    findings = unread + findings
    fields = []
    for i, name in enumerate(variables):
        fallback = standard_names[i] if i < len(standard_names) else ""
        try:
            fields.append(select_variable(dataset, name, fallback, sign=name in hemisphere_sign))
        except InputError as error:
            lost = [found for found in unread if found.problem == UNREADABLE]
            if not lost:
                raise
            raise InputError(f"{error} Not all files can be opened: {lost[0].line()}") from error
    for name in hemisphere_sign:
        if name not in variables:
            raise unknown_name("`fields.hemisphere_sign`: variable", name, variables)
    parts = _with_lags(fields, lags)
    names = [str(p.attrs["variable"]) for p in parts]
    stacked = xr.concat(parts, dim="variable", coords="minimal", compat="override", join="exact")
    stacked = stacked.transpose(*FIELD_DIMS).chunk(variable=-1)
    stacked.attrs = {"findings": json.dumps([asdict(f) for f in findings])} if findings else {}
    converted = {str(f.name): f.attrs["stored"] for f in fields if f.attrs["stored"]}
    if converted:
        stacked.attrs["converted"] = json.dumps(converted)
    stacked.name = "fields"
    described = {key: ("variable", [str(p.attrs[key]) for p in parts]) for key in DESCRIBED}
    return stacked.assign_coords({"variable": names, **described})


def _within(
    dataset: xr.Dataset, ends: tuple[pd.Timestamp, pd.Timestamp], period: str, name: str
) -> xr.Dataset:
    inside = dataset.sel(time=slice(*ends))
    if inside.sizes["time"] == 0:
        times = dataset.indexes["time"]
        raise InputError(
            f"`{name}` must overlap the fields, got {period} for {times[0]} to {times[-1]}."
        )
    return inside


def select_variable(
    dataset: xr.Dataset, name: str, fallback: str = "", *, sign: bool = False
) -> xr.DataArray:
    """One variable of a dataset with canonical coordinates, in SI units.

    Args:
        dataset: as `canonical_coordinates` gives it.
        name: of the variable, or its CF standard name.
        fallback: standard name to look it up by when the file has no such name.
        sign: multiplies by -1 south of the equator.

    Returns:
        float32, dims ``(time, latitude, longitude)``, lazy; attributes ``units,
        standard_name, base_variable, level, stored``; the last is how the file writes units that
        older releases did not convert, else empty.

    Raises:
        InputError: there is none, or it has other dimensions.
    """
    by_standard_name: dict[str, list[str]] = {}
    for k, v in dataset.data_vars.items():
        standard = canonical_name(str(v.attrs.get("standard_name", "")))
        by_standard_name.setdefault(standard, []).append(str(k))
    wanted = canonical_name(name)
    if wanted not in by_standard_name:
        wanted = canonical_name(fallback)
    if name in dataset.data_vars:
        key = name
    elif reason := refused(dataset, name, canonical_name(name), canonical_name(fallback)):
        raise InputError(reason)
    elif wanted and wanted in by_standard_name:
        key, *others = by_standard_name[wanted]
        if others:
            raise InputError(
                f"`fields.variables`: one variable must have the standard name `{wanted}`, got "
                f"{', '.join([key, *others])}. Name the variable itself, or rename it to `{name}`."
            )
        if wanted != canonical_name(name):
            log.info("`%s` is read from `%s`, which has its standard name", name, key)
    else:
        raise unknown_name("`fields.variables`: variable", name, map(str, dataset.data_vars))
    field = dataset[key]
    level = level_of(field)
    if "expver" in field.dims:  # ERA5 where it is final, else ERA5T; one of them is missing
        # 1 is final, 5 preliminary; files hold them in any order.
        order = np.argsort(field["expver"].to_numpy().astype(int), kind="stable")
        versions = [field.isel(expver=int(k), drop=True) for k in order]
        field = functools.reduce(lambda a, b: a.where(a.notnull(), b), versions)
        field.attrs = dataset[key].attrs
    for dim in field.dims:
        if dim not in FIELD_DIMS:
            if field.sizes[dim] > 1:
                raise InputError(
                    f"variable `{name}` must have dims time, latitude, longitude, got also "
                    f"`{dim}` of {field.sizes[dim]}. Select one {dim} first."
                )
            field = field.isel({dim: 0}, drop=True)
    for dim in ("time", "latitude", "longitude"):
        if dim not in field.dims:
            raise InputError(f"variable `{name}` must have dim `{dim}`, got {field.dims}.")
    units = str(field.attrs.get("units", "1"))
    si, factor, offset = si_units(units)
    attributes = {
        "units": si,
        "standard_name": canonical_name(str(field.attrs.get("standard_name", ""))),
        "base_variable": name,
        "level": level,
        "stored": units.strip() if newly_converted(units) else "",
    }
    field = widened(field.reset_coords(drop=True))
    if factor != 1.0 or offset != 0.0:
        field = field * factor + offset
    if sign:
        field = field * xr.where(field["latitude"] < 0, -1.0, 1.0)
    field = field.astype(np.float32).transpose("time", "latitude", "longitude")
    field.attrs = attributes
    return field.rename(name)


def lag_hours(lag: str) -> float:
    """Hours of a lag such as ``-24h`` or ``-1d``.

    Raises:
        InputError: the text is no duration, or lies in the future.
    """
    hours = duration_hours(lag)
    if not hours <= 0:
        raise InputError(
            f"`fields.lags` must be durations that are zero or negative, got `{lag}`. "
            "Write for example [0h, -24h]."
        )
    return hours


def _with_lags(fields: list[xr.DataArray], lags: Sequence[str]) -> list[xr.DataArray]:
    """Shifts each field by each lag; keeps the steps that have every lag."""
    times = pd.DatetimeIndex(fields[0].indexes["time"])
    hours = [lag_hours(lag) for lag in lags]
    if not hours or len(set(hours)) != len(hours):
        raise InputError(f"`fields.lags` must name each lag once, got {list(lags)}.")
    sources = [times.get_indexer(times + pd.Timedelta(hours=h)) for h in hours]
    keep = np.all([s >= 0 for s in sources], axis=0)
    if not keep.any():
        raise InputError(
            f"`fields.lags` must leave at least one time step, got {list(lags)} for "
            f"{len(times)} steps from {times[0]} to {times[-1]}. Use lags that are multiples "
            "of the time step, and give the fields of the earlier times too."
        )
    parts = []
    for field in fields:
        for hour, source in zip(hours, sources, strict=True):
            index = source[keep]
            contiguous = bool(np.all(np.diff(index) == 1))
            picked = field.isel(time=slice(index[0], index[-1] + 1) if contiguous else index)
            name = str(field.name) if hour == 0 else f"{field.name}{hour:+g}h"
            part = picked.assign_coords(time=times[keep])
            part.attrs |= {"variable": name, "lag": f"{hour:g}h"}
            parts.append(part.rename("fields"))
    if len(lags) > 1:  # shifted chunks differ; bring them to the first part's
        chunks = parts[0].chunks
        assert chunks is not None
        parts = [p.chunk(dict(zip(p.dims, chunks, strict=True))) for p in parts]
    return parts
