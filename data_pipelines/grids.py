"""The grids of several files: whether they are one, or tiles of one."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import xarray as xr

from data_pipelines.errors import InputError
from data_pipelines.schema import FloatArray

AXES = ("latitude", "longitude")
SAME = 1e-3  # degrees; float32 longitudes differ by less from those of float64


def on_shared_grids(parts: Sequence[xr.Dataset]) -> list[xr.Dataset]:
    """Gives axes that agree to SAME the values of the first of them, so that they join exactly."""
    known: dict[str, list[FloatArray]] = {axis: [] for axis in AXES}
    shared = []
    for part in parts:
        for axis in AXES:
            if axis not in part.dims:
                continue
            values = _values(part, axis)
            first = next((v for v in known[axis] if _agree(v, values)), None)
            if first is None:
                known[axis].append(values)
                first = values
            part = part.assign_coords({axis: (axis, first, part[axis].attrs)})
        shared.append(part)
    return shared


def check_tiles(parts: Sequence[xr.Dataset], files: Sequence[str]) -> None:
    """Refuses files of the same variables whose grids are neither the same nor apart.

    Raises:
        InputError: names two files and their grids.
    """
    for axis in AXES:
        seen: dict[tuple[float, ...], int] = {}
        for k, part in enumerate(parts):
            if axis in part.dims:
                seen.setdefault(tuple(_values(part, axis)), k)
        tiles = sorted((min(values), max(values), k) for values, k in seen.items())
        for (_, end, first), (begin, _, second) in pairwise(tiles):
            if begin < end:
                _refuse(parts, files, first, second)


def check_same_grid(parts: Sequence[xr.Dataset], files: Sequence[str]) -> None:
    """Refuses files of different variables that are not on the same grid.

    Raises:
        InputError: names two files and their grids.
    """
    placed = [k for k, part in enumerate(parts) if all(axis in part.dims for axis in AXES)]
    for k in placed:
        if not all(parts[k][axis].equals(parts[placed[0]][axis]) for axis in AXES):
            _refuse(parts, files, placed[0], k)


def _refuse(parts: Sequence[xr.Dataset], files: Sequence[str], first: int, second: int) -> None:
    raise InputError(
        f"`fields.paths` must be on one grid, got {files[first]} ({_text(parts[first])}) and "
        f"{files[second]} ({_text(parts[second])}). Regrid one of them to the grid of the other."
    )


def _values(part: xr.Dataset, axis: str) -> FloatArray:
    return np.asarray(part[axis].values, dtype=float)


def _agree(one: FloatArray, other: FloatArray) -> bool:
    return one.shape == other.shape and bool((np.abs(one - other) < SAME).all())


def _text(part: xr.Dataset) -> str:
    return ", ".join(
        f"{axis} {values[0]:g} to {values[-1]:g}, {len(values)} points"
        for axis in AXES
        if len(values := _values(part, axis))
    )
