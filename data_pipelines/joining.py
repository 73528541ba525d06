"""Joins the data sets of several files: along time, as tiles of a grid, and by variables."""

from collections.abc import Hashable, Sequence

import pandas as pd
import xarray as xr

from data_pipelines.coordinates import canonical_part, time_dim
from data_pipelines.errors import InputError
from data_pipelines.grids import AXES, check_same_grid, check_tiles, on_shared_grids
from data_pipelines.levels import TOLD, level_of
from data_pipelines.quality import Finding
from data_pipelines.time_axis import joint_version, without_copies

FLAT = ("time", *AXES, "expver")  # dims that fields keep, however short


def joined_files(parts: list[xr.Dataset], files: list[str]) -> tuple[xr.Dataset, list[Finding]]:
    """Files side by side along time, as tiles and by variables, on one grid.

    Each variable is joined over the files that have it, then all are put beside each other: nothing
    is computed for it, but where copies of a time are compared.
    """
    parts = _versioned(on_shared_grids([canonical_part(part) for part in parts]))
    parts = _at_one_level(parts, files)
    holders: dict[Hashable, tuple[int, ...]] = {}
    for k, part in enumerate(parts):
        for name in part.data_vars:
            holders[name] = (*holders.get(name, ()), k)
    groups: dict[tuple[int, ...], list[Hashable]] = {}
    for name, members in holders.items():
        groups.setdefault(members, []).append(name)
    joined = []
    for members, variables in groups.items():
        some = [parts[k][variables] for k in members]
        check_tiles(some, [files[k] for k in members])
        joined.append(_side_by_side(some))
    if len(joined) == 1:
        return joined[0], []
    # Tiles may begin elsewhere than whole fields do.
    joined = on_shared_grids([canonical_part(part) for part in joined])
    check_same_grid(joined, [files[members[0]] for members in groups])
    return _beside(joined)


def _beside(joined: list[xr.Dataset]) -> tuple[xr.Dataset, list[Finding]]:
    """Data sets of different variables as one; a time that one of them repeats is there once."""
    found: list[Finding] = []
    once, versions = [], []
    for part in joined:
        if "time" in part.dims and part.indexes["time"].has_duplicates:
            part, repeated = without_copies(part.sortby("time"))
            found += [finding for finding in repeated if finding not in found]
        if "expver" in part.coords and part["expver"].dims == ("time",):
            versions.append(part["expver"])
            part = part.drop_vars("expver")
        once.append(part)
    merged = xr.merge(once, compat="no_conflicts", join="outer", combine_attrs="override")
    if versions:
        version = joint_version(versions, pd.DatetimeIndex(merged.indexes["time"]))
        merged = merged.assign_coords(expver=("time", version))
    return merged, found


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


def _at_one_level(parts: Sequence[xr.Dataset], files: Sequence[str]) -> list[xr.Dataset]:
    """Drops what has one value in each file, such as its level, and other values in others.

    The level stays as an attribute of the variable, where `levels.level_of` finds it.

    Raises:
        InputError: a variable has another level in another file.
    """
    known: dict[tuple[Hashable, Hashable], tuple[str, str]] = {}
    flat = []
    for part, file in zip(parts, files, strict=True):
        single = [d for d in part.dims if d not in FLAT and part.sizes[d] == 1]
        told = {}
        for name, field in part.data_vars.items():
            level = level_of(field)
            told[name] = field.assign_attrs({TOLD: level})
            values = {d: str(field[d].values[0]) for d in single if d in field.dims}
            for key, value in {**values, "level": level}.items():
                before = known.setdefault((name, key), (value, file)) if value else (value, file)
                if before[0] != value:
                    raise InputError(
                        f"`fields.paths`: variable `{name}` must have one `{key}` in all files, "
                        f"got {before[0]} in {before[1]} and {value} in {file}. Give those of one, "
                        "or rename the variable in the others."
                    )
        version = part.coords.get("expver")
        part = part.assign(told).isel(dict.fromkeys(single, 0), drop=True).reset_coords(drop=True)
        if version is not None and version.dims == ("time",):
            part = part.assign_coords(expver=version)
        flat.append(part)
    return flat


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
