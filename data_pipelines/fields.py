"""Opens gridded fields lazily and makes them canonical.

Canonical means: dims ``(time, variable, latitude, longitude)``; time ascending without
duplicates; latitude descending; longitude ascending from the first value in [0, 360), going on
beyond 360 where a region crosses the Greenwich meridian; SI units; time lags as variables.
"""

import functools
import json
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from data_pipelines.coordinates import TIME_NAMES, canonical_coordinates
from data_pipelines.errors import InputError, unknown_name
from data_pipelines.periods import interval
from data_pipelines.quality import UNREADABLE, Finding, time_findings
from data_pipelines.schema import FIELD_DIMS, duration_hours

# unit -> (SI unit, factor, offset)
SI_UNITS = {
    "hpa": ("Pa", 100.0, 0.0),
    "mb": ("Pa", 100.0, 0.0),
    "mbar": ("Pa", 100.0, 0.0),
    "millibar": ("Pa", 100.0, 0.0),
    "millibars": ("Pa", 100.0, 0.0),
    "pascals": ("Pa", 1.0, 0.0),
    "degc": ("K", 1.0, 273.15),
    "celsius": ("K", 1.0, 273.15),
    "degree_celsius": ("K", 1.0, 273.15),
    "degrees_celsius": ("K", 1.0, 273.15),
}
CHUNK_BYTES = 64 * 2**20


def open_fields(
    paths: Sequence[str | Path],
    variables: Sequence[str],
    *,
    lags: Sequence[str] = ("0h",),
    hemisphere_sign: Sequence[str] = (),
    standard_names: Sequence[str] = (),
    period: str = "",
) -> xr.DataArray:
    """Opens NetCDF files or a Zarr store as one lazy array of canonical fields.

    Of several files those that cannot be opened are left out and reported.

    Args:
        paths: NetCDF files (joined along time and variables) or one Zarr store, on disk or by
            its address (``gs://``, ``s3://``, ``https://``).
        variables: names, or CF standard names, of the variables.
        lags: offsets in time that become further variables, such as ``["0h", "-24h"]``.
        hemisphere_sign: variables that are multiplied by -1 south of the equator (vorticity-like).
        standard_names: CF standard name of each of `variables`, to look them up by when the file
            has no such name.
        period: FIRST/LAST: the only times to look at, with those that lags reach back to.

    Returns:
        float32, dims ``(time, variable, latitude, longitude)``, dask-backed; what is wrong
        with files and times is in the attribute ``findings`` (JSON). ``variable`` holds
        ``msl``, ``msl-24h``, ...; along it lie the coordinates ``units``, ``standard_name``,
        ``base_variable`` and ``lag``.

    Raises:
        InputError: a file or variable is missing, no file can be opened, or the grid is not
            regular.
    """
    opened, unread = _open(paths)
    dataset = canonical_coordinates(opened)
    if period:
        dataset = _within(dataset, period, lags)
    dataset, findings = time_findings(dataset)
    findings = unread + findings
    fields = []
    for i, name in enumerate(variables):
        fallback = standard_names[i] if i < len(standard_names) else ""
        try:
            fields.append(_select(dataset, name, fallback, sign=name in hemisphere_sign))
        except InputError as error:
            if not unread:
                raise
            raise InputError(f"{error} Not all files can be opened: {unread[0].line()}") from error
    for name in hemisphere_sign:
        if name not in variables:
            raise unknown_name("`fields.hemisphere_sign`: variable", name, variables)
    parts = _with_lags(fields, lags)
    names = [str(p.attrs["variable"]) for p in parts]
    stacked = xr.concat(parts, dim="variable", coords="minimal", compat="override", join="exact")
    stacked = stacked.transpose(*FIELD_DIMS).chunk(variable=-1)
    stacked.attrs = {"findings": json.dumps([asdict(f) for f in findings])} if findings else {}
    stacked.name = "fields"
    described = {
        key: ("variable", [str(p.attrs[key]) for p in parts])
        for key in ("units", "standard_name", "base_variable", "lag")
    }
    return stacked.assign_coords({"variable": names, **described})


def _within(dataset: xr.Dataset, period: str, lags: Sequence[str]) -> xr.Dataset:
    first, last = interval("fields.period", period)
    reach = pd.Timedelta(hours=min(lag_hours(lag) for lag in lags))
    inside = dataset.sel(time=slice(first + reach, last))
    if inside.sizes["time"] == 0:
        times = dataset.indexes["time"]
        raise InputError(
            f"`fields.period` must overlap the fields, got {period} for {times[0]} to {times[-1]}."
        )
    return inside


def _open(paths: Sequence[str | Path]) -> tuple[xr.Dataset, list[Finding]]:
    files = [str(p) if is_url(p) else Path(p).expanduser() for p in paths]
    if not files:
        raise InputError("`fields.paths` must name at least one NetCDF file or Zarr store, got [].")
    for file in files:
        if isinstance(file, Path) and not file.exists():
            raise InputError(f"`fields.paths`: no such file: {file}. Check the path.")
    parts, unread = [], []
    for file in files:
        try:
            parts.append(_open_one(file))
        except (ValueError, OSError, KeyError) as error:
            if isinstance(error, InputError):
                raise
            reason = _first_line(error)
            unread.append(Finding(str(file), UNREADABLE, 0, reason, reason))
    if not parts:
        raise InputError(
            f"`fields.paths`: cannot open {', '.join(map(str, files[:3]))} as NetCDF or Zarr: "
            f"{unread[0].first}"
        )
    if len(parts) == 1:
        return parts[0], unread
    try:
        joined = xr.combine_by_coords(parts, combine_attrs="override")
    except (ValueError, KeyError) as error:
        raise InputError(
            f"`fields.paths`: cannot join {', '.join(map(str, files[:3]))}: {_first_line(error)}"
        ) from error
    assert isinstance(joined, xr.Dataset)
    return joined, unread


def _first_line(error: Exception) -> str:
    """What a library says, in one line."""
    first = str(error).splitlines()[0] if str(error) else type(error).__name__
    if "did not find a match" in first:
        return "no known format"
    if "monotonic global indexes" in first:
        return "they overlap in time. Give each time once."
    return first


def is_url(path: str | Path) -> bool:
    """True for an address such as ``gs://bucket/store.zarr``."""
    return "://" in str(path)


def _open_one(file: str | Path) -> xr.Dataset:
    if isinstance(file, str) or file.is_dir():
        return _open_zarr(file)
    dataset = xr.open_dataset(file, chunks={})
    # A chunk is a run of whole fields of about CHUNK_BYTES: what is read, is used whole.
    step = sum(v.nbytes // max(v.shape[0], 1) for v in dataset.data_vars.values() if v.ndim >= 3)
    time = next((d for d in dataset.dims if str(d).lower() in TIME_NAMES), None)
    if time is not None and step:
        dataset = dataset.chunk({time: max(1, CHUNK_BYTES // step)})
    return dataset


def _open_zarr(store: str | Path) -> xr.Dataset:
    """A store on disk, or by its address on object storage, read without a login."""
    options: dict[str, Any] | None = (
        {"token": "anon"} if str(store).startswith(("gs://", "gcs://")) else None
    )
    if str(store).startswith("s3://"):
        options = {"anon": True}
    with warnings.catch_warnings():
        # Zarr v3 stores often come without consolidated metadata; that is no fault.
        warnings.filterwarnings("ignore", message="Failed to open Zarr store with consolidated")
        try:
            opened: xr.Dataset = xr.open_zarr(store, chunks={}, storage_options=options)
        except ImportError as error:
            raise InputError(
                f"`fields.paths`: {store} needs a package that is not installed: {error}"
            ) from error
        return opened


def _select(dataset: xr.Dataset, name: str, fallback: str, *, sign: bool) -> xr.DataArray:
    by_standard_name = {
        str(v.attrs["standard_name"]): str(k)
        for k, v in dataset.data_vars.items()
        if "standard_name" in v.attrs
    }
    if name in dataset.data_vars:
        key = name
    elif name in by_standard_name:
        key = by_standard_name[name]
    elif fallback in by_standard_name:
        key = by_standard_name[fallback]
    else:
        raise unknown_name("`fields.variables`: variable", name, map(str, dataset.data_vars))
    field = dataset[key]
    if "expver" in field.dims:  # ERA5 where it is final, else ERA5T; one of them is missing
        versions = [field.isel(expver=k, drop=True) for k in range(field.sizes["expver"])]
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
    si, factor, offset = SI_UNITS.get(units.lower(), (units, 1.0, 0.0))
    attributes = {
        "units": si,
        "standard_name": str(field.attrs.get("standard_name", "")),
        "base_variable": name,
    }
    field = field.reset_coords(drop=True)
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
            "of the time step."
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
