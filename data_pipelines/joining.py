"""Joins the data sets of several files: along time, as tiles of a grid, and by variables."""

import json
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

from data_pipelines.coordinates import canonical_part, time_dim
from data_pipelines.errors import InputError
from data_pipelines.grids import AXES, check_same_grid, check_tiles, on_shared_grids
from data_pipelines.levels import TOLD, is_vertical, level_of
from data_pipelines.quality import Finding
from data_pipelines.schema import canonical_name
from data_pipelines.time_axis import joint_version, without_copies

REFUSED = "_refused"  # attribute: variable -> why it was left out, as JSON
PLACED = {"time", *AXES}  # dims of a field
FLAT = ("time", *AXES, "expver")  # dims that fields keep, however short


@dataclass(frozen=True)
class Wanted:
    """What will be asked for of files that are joined.

    Attributes:
        names: of variables, or their standard names; none: all of them.
        period: first and last time; None: all times.
    """

    names: frozenset[str] = frozenset()
    period: tuple[pd.Timestamp, pd.Timestamp] | None = None

    def of(self, dataset: xr.Dataset) -> list[str]:
        """The variables of a data set that will be asked for."""
        return [
            str(name)
            for name, field in dataset.data_vars.items()
            if not self.names
            or name in self.names
            or canonical_name(str(field.attrs.get("standard_name", ""))) in self.names
        ]

    def inside(self, times: pd.DatetimeIndex) -> npt.NDArray[np.bool_]:
        """Which of these times will be asked for."""
        if self.period is None:
            return np.ones(len(times), dtype=bool)
        return np.asarray((times >= self.period[0]) & (times <= self.period[1]))


def joined_files(
    parts: list[xr.Dataset], files: list[str], wanted: Wanted
) -> tuple[xr.Dataset, list[Finding]]:
    """Files side by side along time, as tiles and by variables, on one grid.

    Each field is joined over the files that have it, then all are put beside each other: nothing
    is computed for it, but where copies of a time are compared. What has no time is taken from the
    first file that has it; what has a time and no place, such as bounds of time, is left out. A
    field of several levels is left out, and told by `refused` when it is asked for.

    Raises:
        InputError: they are on several grids, or there is no other field.
    """
    parts = _versioned(on_shared_grids([canonical_part(part) for part in parts]))
    parts, reasons = _at_one_level([_fields_of(part) for part in parts], files)
    holders: dict[Hashable, tuple[int, ...]] = {}
    others: dict[Hashable, xr.DataArray] = {}
    for k, part in enumerate(parts):
        for name, field in part.data_vars.items():
            if set(field.dims) >= PLACED:
                holders[name] = (*holders.get(name, ()), k)
            else:
                others.setdefault(name, field)
    groups: dict[tuple[int, ...], list[Hashable]] = {}
    for name, members in holders.items():
        groups.setdefault(members, []).append(name)
    joined = []
    for members, variables in groups.items():
        some = [parts[k][variables] for k in members]
        check_tiles(some, [files[k] for k in members])
        joined.append(_side_by_side(some))
    if not joined and reasons:
        raise InputError(next(iter(reasons.values()))[0])
    found: list[Finding] = []
    if not joined:  # what uses it says what is missing
        return xr.merge([others], compat="override", join="outer"), found
    if len(joined) > 1:
        # Tiles may begin elsewhere than whole fields do.
        joined = on_shared_grids([canonical_part(part) for part in joined])
        check_same_grid(joined, [files[members[0]] for members in groups])
        whole, found = _beside(joined, wanted)
    else:
        whole = joined[0]
    static = {name: field for name, field in others.items() if name not in whole}
    if static:
        whole = whole.merge(static, compat="override", join="left")
    return whole.assign_attrs({REFUSED: json.dumps(reasons)} if reasons else {}), found


def refused(dataset: xr.Dataset, *names: str) -> str:
    """Why a variable of one of these names, or standard names, could not be joined; else empty."""
    for name, (reason, standard) in json.loads(dataset.attrs.get(REFUSED, "{}")).items():
        if name in names or (standard and standard in names):
            return str(reason)
    return ""


def _fields_of(part: xr.Dataset) -> xr.Dataset:
    """A file without what has a time and no place; all of it where nothing has a place."""
    if not any(set(field.dims) >= PLACED for field in part.data_vars.values()):
        return part
    loose = [
        name
        for name, field in part.data_vars.items()
        if "time" in field.dims and not set(AXES) <= set(field.dims)
    ]
    return part.drop_vars(loose)


def _beside(joined: list[xr.Dataset], wanted: Wanted) -> tuple[xr.Dataset, list[Finding]]:
    """Data sets of different variables as one; a time that one of them repeats is there once."""
    found: list[Finding] = []
    once, versions = [], []
    for part in joined:
        times = part.indexes.get("time")
        if isinstance(times, pd.DatetimeIndex) and times.has_duplicates:
            part, repeated = _once(part.sortby("time"), wanted)
            found += [finding for finding in repeated if finding not in found]
        if "expver" in part.coords and part["expver"].dims == ("time",):
            versions += [part["expver"]] if wanted.of(part) else []
            part = part.drop_vars("expver")
        once.append(part)
    merged = xr.merge(once, compat="no_conflicts", join="outer", combine_attrs="override")
    if versions and isinstance(merged.indexes["time"], pd.DatetimeIndex):
        version = joint_version(versions, merged.indexes["time"])
        merged = merged.assign_coords(expver=("time", version))
    return merged, found


def _once(part: xr.Dataset, wanted: Wanted) -> tuple[xr.Dataset, list[Finding]]:
    """Each time once; what nobody will ask for is not compared."""
    times = pd.DatetimeIndex(part.indexes["time"])
    names = wanted.of(part)
    looked = wanted.inside(times) if names else np.zeros(len(times), dtype=bool)
    part = part.isel(time=np.flatnonzero(looked | ~times.duplicated()))
    return without_copies(part, names, even_most=True) if names else (part, [])


def _versioned(parts: Sequence[xr.Dataset]) -> list[xr.Dataset]:
    """Gives each file ERA5's version along time, if one has it; of others it is the final one."""
    known = [part["expver"] for part in parts if "expver" in part.coords]
    if not any(version.dims in ((), ("time",)) for version in known):
        return list(parts)
    versioned = []
    for part in parts:
        own = part.coords.get("expver")
        if "time" in part.dims and "expver" not in part.dims and (own is None or not own.ndim):
            version = "0001" if own is None else str(own.item())
            part = part.assign_coords(expver=("time", [version] * part.sizes["time"]))
        versioned.append(part)
    return versioned


def _at_one_level(
    parts: Sequence[xr.Dataset], files: Sequence[str]
) -> tuple[list[xr.Dataset], dict[str, tuple[str, str]]]:
    """Drops what has one value in each file, such as its level, and other values in others.

    The level stays as an attribute of the variable, where `levels.level_of` finds it. A variable
    with another level in another file is left out.

    Returns:
        The files, and why a variable was left out, with its standard name.
    """
    known: dict[tuple[Hashable, str], tuple[str, str]] = {}
    reasons: dict[str, tuple[str, str]] = {}
    for part, file in zip(parts, files, strict=True):
        for name, field in part.data_vars.items():
            if not set(field.dims) >= PLACED:
                continue
            values = {"level": level_of(field)}
            more = [f"`{d}`" for d in field.dims if d not in FLAT and field.sizes[d] > 1]
            values["set of dims"] = " and ".join(["time, latitude, longitude", *more])
            for d in field.dims:
                if d not in FLAT and field.sizes[d] == 1 and not is_vertical(field[d]):
                    values[f"`{d}`"] = _plain(field[d])
            for key, value in values.items():
                if not value:
                    continue
                before, first = known.setdefault((name, key), (value, file))
                if before != value:
                    told = (
                        f"`fields.paths`: variable `{name}` must have one {key} in all files, got "
                        f"{before} in {first} and {value} in {file}. Give those of one, or rename "
                        "the variable in the others."
                    )
                    standard = canonical_name(str(field.attrs.get("standard_name", "")))
                    reasons.setdefault(str(name), (told, standard))
    flat = []
    for part in parts:
        levelled = {
            name: field.assign_attrs({TOLD: known.get((name, "level"), ("", ""))[0]})
            for name, field in part.data_vars.items()
            if name not in reasons
        }
        version = part.coords.get("expver")
        single = [d for d in part.dims if d not in FLAT and part.sizes[d] == 1]
        part = part.drop_vars([name for name in reasons if name in part]).assign(levelled)
        part = part.isel({d: 0 for d in single if d in part.dims}, drop=True)
        part = part.reset_coords(drop=True)
        if version is not None and version.dims == ("time",):
            part = part.assign_coords(expver=version.reset_coords(drop=True))
        flat.append(part)
    return flat, reasons


def _plain(axis: xr.DataArray) -> str:
    """The one value of an axis, such as 500 and 500.0, which are one."""
    value = axis.to_numpy().ravel()[0]
    return f"{float(value):g}" if axis.dtype.kind in "fiu" else str(value)


def _side_by_side(parts: list[xr.Dataset]) -> xr.Dataset:
    """Files of the same variables, which may overlap in time."""
    time = time_dim(parts[0])
    begins = {
        tuple(part[axis].values[0] for axis in ("time", *AXES) if axis in part.dims)
        for part in parts
    }
    if time is not None and len(begins) < len(parts):  # of which xarray would keep the last
        return _one_after_another(parts, time)
    try:
        joined = xr.combine_by_coords(
            parts, combine_attrs="override", join="outer", compat="no_conflicts",
            data_vars="all", coords="different",
        )  # fmt: skip
        assert isinstance(joined, xr.Dataset)
        return joined
    except ValueError as error:
        if "monotonic" not in str(error) or time is None:
            raise
    return _one_after_another(parts, time)


def _one_after_another(parts: list[xr.Dataset], time: Hashable) -> xr.Dataset:
    return xr.concat(
        parts, dim=time, data_vars="minimal", coords="minimal", compat="override", join="exact",
        combine_attrs="override",
    )  # fmt: skip
