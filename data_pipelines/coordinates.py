"""Finds time, latitude and longitude under their usual names and makes them canonical."""

from collections.abc import Hashable

import numpy as np
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
    names = {axis: _find(dataset, axis) for axis in COORDINATES}
    dims = [dataset[name].dims[0] for name in names.values() if dataset[name].ndim == 1]
    if len(set(dims)) < len(dims):
        raise InputError(
            f"time, latitude and longitude must be dimensions of their own, got {names['time']}, "
            f"{names['latitude']} and {names['longitude']} along "
            f"{', '.join(map(str, dict.fromkeys(dims)))}: these are points or tracks, not fields."
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
    for axis in COORDINATES:
        if dataset[axis].ndim == 0:
            dataset = dataset.expand_dims(axis)
        if dataset[axis].ndim != 1:
            raise InputError(
                f"`{axis}` must be one-dimensional, got dims {dataset[axis].dims}. "
                "Regrid to a regular latitude-longitude grid first."
            )
        if dataset[axis].dims != (axis,):
            dataset = dataset.swap_dims({dataset[axis].dims[0]: axis})
    if not np.issubdtype(dataset["time"].dtype, np.datetime64):
        raise InputError(
            "`time` must decode to dates of the standard calendar, got "
            f"{_calendar(dataset['time'])}. Give it CF units such as "
            "`hours since 1970-01-01`, or convert it (`xarray.Dataset.convert_calendar`)."
        )
    times = dataset.indexes["time"]
    if not times.is_monotonic_increasing:
        dataset = dataset.sortby("time")
    _check_range(dataset)
    latitude = np.asarray(dataset["latitude"].values, dtype=float)
    if len(latitude) > 1 and latitude[0] < latitude[-1]:
        dataset = dataset.isel(latitude=slice(None, None, -1))
    dataset = _canonical_longitude(dataset)
    for axis in ("latitude", "longitude"):
        _check_regular(axis, np.asarray(dataset[axis].values, dtype=float))
    return dataset


def _check_range(dataset: xr.Dataset) -> None:
    for axis, low, high in (("latitude", -90.0, 90.0), ("longitude", -360.0, 720.0)):
        values = np.asarray(dataset[axis].values, dtype=float)
        if not (values.min() >= low - 1e-3 and values.max() <= high + 1e-3):
            raise InputError(
                f"`{axis}` must lie within {low:g} to {high:g} degrees, got {values.min():.6g} "
                f"to {values.max():.6g}. Regrid to a latitude-longitude grid in degrees."
            )


def _find(dataset: xr.Dataset, axis: str) -> str:
    names = [str(n) for n in dataset.variables]
    for name in names if axis != "time" else ():
        if name.lower() in COORDINATES[axis] and dataset[name].ndim > 1:
            raise InputError(
                f"`{axis}` must be one-dimensional, got `{name}` with dims {dataset[name].dims}. "
                "Regrid to a regular latitude-longitude grid first."
            )
    for name in names:
        attributes = dataset[name].attrs
        if attributes.get("standard_name") == axis and dataset[name].ndim <= 1:
            return name
    for name in names:
        if name.lower() in COORDINATES[axis] and dataset[name].ndim <= 1:
            return name
    for name in names:
        if str(dataset[name].attrs.get("units", "")).lower() in AXIS_UNITS.get(axis, ()):
            return name
    raise unknown_name(
        "coordinate", axis, names, f" Name it `{axis}` or give it that CF standard_name."
    )


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
