"""Finds time, latitude and longitude under their usual names and makes them canonical."""

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from data_pipelines.errors import InputError, unknown_name
from data_pipelines.schema import FloatArray, is_global

TIME_NAMES = ("time", "valid_time", "date", "datetime", "t")
COORDINATES = {
    "time": TIME_NAMES,
    "latitude": ("latitude", "lat", "nav_lat", "y", "g0_lat_1"),
    "longitude": ("longitude", "lon", "long", "nav_lon", "x", "g0_lon_2"),
}
AXIS_UNITS = {
    "latitude": {"degrees_north", "degree_north", "degrees_n", "degree_n"},
    "longitude": {"degrees_east", "degree_east", "degrees_e", "degree_e"},
}
TELLING = ("units", "standard_name")  # attributes that say what an axis is
NO_UNITS = ("", "1", "-", "none", "unknown")
BY_NAME = 2  # rank of what only its name tells


def time_dim(data: xr.Dataset | xr.DataArray) -> Hashable | None:
    """The dimension that has one of time's usual names, if there is one."""
    return next((d for d in data.dims if str(d).lower() in TIME_NAMES), None)


def is_latitude(axis: xr.DataArray) -> bool:
    """Whether an axis is latitude in degrees, by units, standard name or name."""
    units = str(axis.attrs.get("units", "")).lower()
    if units in AXIS_UNITS["latitude"] or axis.attrs.get("standard_name") == "latitude":
        return True
    named = str(axis.name).lower() in ("latitude", "lat", "nav_lat")
    return named and units in ("", "degrees", "degree")


def canonical_coordinates(dataset: xr.Dataset) -> xr.Dataset:
    """Renames and reorders time, latitude and longitude; checks that they are regular."""
    dataset = _named(dataset, {axis: _find(dataset, axis) for axis in COORDINATES})
    if not np.issubdtype(dataset["time"].dtype, np.datetime64):
        raise InputError(
            "`time` must decode to dates of the standard calendar, got "
            f"{_calendar(dataset['time'])}. Give it CF units such as "
            "`hours since 1970-01-01`, or convert it (`xarray.Dataset.convert_calendar`)."
        )
    times = dataset.indexes["time"]
    if len(times) == 0:
        raise InputError("`fields.paths` must hold at least one time, got none. Check the files.")
    if not times.is_monotonic_increasing:
        dataset = dataset.sortby("time")
    dataset = _ordered(dataset)
    for axis in ("latitude", "longitude"):
        _check_regular(axis, np.asarray(dataset[axis].values, dtype=float))
    return dataset


def canonical_part(dataset: xr.Dataset) -> xr.Dataset:
    """The names and the order of `canonical_coordinates`, of one of several files.

    It may be a tile of a single row, and a file without latitude and longitude is left as it is.
    """
    names = {}
    for axis in COORDINATES:
        if (found := _search(dataset, axis)) is not None:
            names[axis] = found
        elif axis != "time":
            return dataset
    return _ordered(_named(dataset, names))


def _named(dataset: xr.Dataset, names: dict[str, str]) -> xr.Dataset:
    """Gives the axes their names, each as a dimension of its own."""
    dims = [dataset[name].dims[0] for name in names.values() if dataset[name].ndim == 1]
    if len(set(dims)) < len(dims):
        raise InputError(
            "time, latitude and longitude must be dimensions of their own, got "
            f"{', '.join(names.values())} along {', '.join(map(str, dict.fromkeys(dims)))}: "
            "these are points or tracks, not fields."
        )
    for axis, found in names.items():
        if found != axis:
            # GRIB files keep the time of the analysis as `time` beside `valid_time`.
            dataset = dataset.drop_vars(axis, errors="ignore")
            own, values, attrs = dataset[found].dims, dataset[found].values, dataset[found].attrs
            dataset = dataset.drop_vars(found)
            if own == (found,):
                dataset, own = dataset.rename_dims({found: axis}), (axis,)
            dataset = dataset.assign_coords({axis: (own, values, attrs)})
    for axis in names:
        if dataset[axis].ndim == 0:
            dataset = dataset.expand_dims(axis)
        if dataset[axis].ndim != 1:
            raise InputError(
                f"`{axis}` must be one-dimensional, got dims {dataset[axis].dims}. "
                "Regrid to a regular latitude-longitude grid first."
            )
        if dataset[axis].dims != (axis,):
            dataset = dataset.swap_dims({dataset[axis].dims[0]: axis})
    return _to_seconds(dataset)


def without_undated(dataset: xr.Dataset) -> tuple[xr.Dataset, int]:
    """Drops steps whose time is missing, and says how many they are; of any other file none."""
    name = _search(dataset, "time")
    if name is None or dataset[name].ndim != 1 or dataset[name].dtype.kind != "M":
        return dataset, 0
    undated = np.isnat(dataset[name].values)
    if not undated.any() or undated.all():
        return dataset, 0
    kept = dataset.isel({dataset[name].dims[0]: np.flatnonzero(~undated)})
    return kept, int(undated.sum())


def _to_seconds(dataset: xr.Dataset) -> xr.Dataset:
    """Rounds times to seconds: as inexact floats, such as hours in days, they would never match."""
    if "time" not in dataset.coords or not np.issubdtype(dataset["time"].dtype, np.datetime64):
        return dataset
    times = pd.DatetimeIndex(dataset["time"].values)
    rounded = times.round("s")
    if rounded.equals(times):
        return dataset
    return dataset.assign_coords(time=("time", rounded, dataset["time"].attrs))


def _ordered(dataset: xr.Dataset) -> xr.Dataset:
    """From north to south, and from west to east within [0, 360) or across Greenwich."""
    _check_range(dataset)
    latitude = np.asarray(dataset["latitude"].values, dtype=float)
    if len(latitude) > 1 and latitude[0] < latitude[-1]:
        dataset = dataset.isel(latitude=slice(None, None, -1))
    return _canonical_longitude(dataset)


def _check_range(dataset: xr.Dataset) -> None:
    for axis, low, high in (("latitude", -90.0, 90.0), ("longitude", -360.0, 720.0)):
        values = np.asarray(dataset[axis].values, dtype=float)
        if not (values.min() >= low - 1e-3 and values.max() <= high + 1e-3):
            raise InputError(
                f"`{axis}` must lie within {low:g} to {high:g} degrees, got {values.min():.6g} "
                f"to {values.max():.6g}. Regrid to a latitude-longitude grid in degrees."
            )


def _find(dataset: xr.Dataset, axis: str) -> str:
    """The variable that is an axis.

    Raises:
        InputError: there is none, it has two dimensions, or its units are no degrees.
    """
    name = _search(dataset, axis)
    if name is not None:
        return name
    names = [str(n) for n in dataset.variables]
    for name in names if axis != "time" else ():
        if name.lower() in COORDINATES[axis] and dataset[name].ndim <= 1:
            found = [f"{k} `{v}`" for k in TELLING if (v := dataset[name].attrs.get(k))]
            raise InputError(
                f"`{axis}` must be in degrees, got `{name}` with {' and '.join(found)}. "
                "Regrid to a regular latitude-longitude grid in degrees."
            )
    raise unknown_name(
        "coordinate", axis, names, f" Name it `{axis}` or give it that CF standard_name."
    )


def _search(dataset: xr.Dataset, axis: str) -> str | None:
    """By standard name, then by units in degrees, then by name; an axis along time comes last."""
    time = time_dim(dataset)
    ranks: dict[str, tuple[bool, float]] = {}
    for name, variable in dataset.variables.items():
        rank = _rank(str(name), variable.attrs, axis)
        if rank is None:
            continue
        if variable.ndim <= 1:
            ranks[str(name)] = (axis != "time" and variable.dims == (time,), rank)
        elif axis != "time":
            ranks[str(name)] = (False, min(rank, BY_NAME) + 0.5)
    if not ranks:
        return None
    best = min(ranks, key=lambda k: ranks[k])
    if dataset[best].ndim > 1:
        raise InputError(
            f"`{axis}` must be one-dimensional, got `{best}` with dims {dataset[best].dims}. "
            "Regrid to a regular latitude-longitude grid first."
        )
    return best


def _rank(name: str, attributes: Mapping[str, Any], axis: str) -> int | None:
    """How well a variable's name and attributes say that it is an axis, 0 best, None if not."""
    standard_name = str(attributes.get("standard_name", ""))
    units = str(attributes.get("units", "")).strip().lower().replace(" ", "_")
    if axis != "time" and units not in NO_UNITS and not units.startswith(("deg", "°")):
        return None
    if standard_name.startswith(("projection_", "grid_")):
        return None
    if standard_name == axis:
        return 0
    if units in AXIS_UNITS.get(axis, ()):
        return 1
    if name.lower() in COORDINATES[axis]:
        return BY_NAME + (name.lower() in ("x", "y"))
    return None


def _calendar(time: xr.DataArray) -> str:
    first = time.values.ravel()[0] if time.size else None
    calendar = getattr(first, "calendar", "")
    return f"calendar `{calendar}`" if calendar else f"type {time.dtype}"


def _canonical_longitude(dataset: xr.Dataset) -> xr.Dataset:
    raw = np.asarray(dataset["longitude"].values, dtype=float)
    wrapped = np.round(raw % 360.0, 6) % 360.0
    order = np.argsort(wrapped, kind="stable")
    order = order[np.r_[True, np.diff(wrapped[order]) > 0]]  # a cyclic point (0 and 360) once
    east = wrapped[order]
    if len(east) > 1 and not is_global(east):
        # A region: begin after the widest gap, so that it stays in one piece.
        gaps = np.diff(np.r_[east, east[0] + 360.0])
        begin = (int(np.argmax(gaps)) + 1) % len(east)
        order, east = np.roll(order, -begin), np.roll(east, -begin)
        east = np.where(east < east[0], east + 360.0, east)
    if not np.array_equal(order, np.arange(len(raw))):
        dataset = _take_runs(dataset, order)
    return dataset.assign_coords(longitude=("longitude", east, {"standard_name": "longitude"}))


def _take_runs(dataset: xr.Dataset, order: np.ndarray) -> xr.Dataset:
    """Reorders longitude as a concatenation of slices, which stays cheap in dask."""
    breaks = np.flatnonzero(np.diff(order) != 1) + 1
    if len(breaks) > 8:
        return dataset.isel(longitude=order)
    runs = [dataset.isel(longitude=slice(r[0], r[-1] + 1)) for r in np.split(order, breaks)]
    joined = xr.concat(runs, dim="longitude", data_vars="minimal", join="outer")
    return joined.chunk(longitude=-1)


def _check_regular(axis: str, values: FloatArray) -> None:
    if len(values) < 2:
        raise InputError(f"`{axis}` must have at least 2 points, got {len(values)}.")
    steps = np.diff(values)
    typical = float(np.median(steps))
    worst = int(np.argmax(np.abs(steps - typical)))
    if abs(steps[worst] - typical) > 0.005 * abs(typical) + 1e-4:
        raise InputError(
            f"`{axis}` must be regular, got a step of {steps[worst]:.4g} degrees between "
            f"{values[worst]:.4g} and {values[worst + 1]:.4g} where {typical:.4g} is usual. "
            "Regrid to a regular latitude-longitude grid (for example `cdo remapbil,r144x73`)."
        )
