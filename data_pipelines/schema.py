"""The one contract between the pipelines and everything that reads them: names, grid, checks."""

import math
import re
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import xarray as xr

from data_pipelines.errors import InputError

FIELD_DIMS = ("time", "variable", "latitude", "longitude")
PATCH_DIMS = ("sample", "variable", "y", "x")
SPLITS = ("dropped", "train", "target", "validation", "test")
GROUPS = ("background", "hard_negative", "incident")
LABELS = ("normal", "incident")
STORE_VERSION = 4

EARTH_RADIUS_KM = 6371.0
# Sea-level pressure, by CF standard name and its aliases or, where files lack one, by its usual
# short names in lower case.
PRESSURE = "air_pressure_at_mean_sea_level"
PRESSURE_ALIASES = ("air_pressure_at_sea_level", "sea_level_pressure")
PRESSURE_NAMES = ("msl", "psl", "slp", "prmsl", "mslp", "mslet")

FloatArray = npt.NDArray[np.float64]
MatchTime = Literal["exact", "day"]  # an entry's time is the field's, or lies in its day
Rule = Literal["catalogue", "exceedance", "mask", "series"]
IntArray = npt.NDArray[np.int64]
Columns = dict[str, npt.NDArray[Any]]  # name -> a value a sample


@dataclass(frozen=True)
class PatchGrid:
    """Where patches lie on a regular latitude-longitude grid.

    A patch covers `size` x `size` grid points; patches start every `stride` points, from the
    first (northernmost, westernmost) point on. On a global grid they wrap in longitude. The
    central cell of a patch is the `stride` x `stride` points in its middle, so that the central
    cells tile the domain and no two share a point. (Where the stride does not divide the columns of
    a global grid, the last columns before the first cell are in none.)

    Attributes:
        latitude: degrees north, descending, shape (rows of the grid,).
        longitude: degrees east, ascending, first in [0, 360), shape (columns of the grid,).
        size: points a side of a patch.
        stride: points from one patch to the next.
        whole: there is one patch a time step, the whole field, and its central cell is all of it;
            `size` and `stride` do not count.
        first: points south and east of the first grid point at which the first patch begins.
    """

    latitude: FloatArray
    longitude: FloatArray
    size: int
    stride: int
    whole: bool = False
    first: tuple[int, int] = (0, 0)

    def __post_init__(self) -> None:
        """Refuses what cannot be cut.

        Raises:
            InputError: the patch does not fit the grid, or has no central cell.
        """
        if self.whole:
            return
        if self.stride < 1 or self.size < self.stride or (self.size - self.stride) % 2:
            raise InputError(
                f"`patches.size` - `patches.stride` must be even and not negative, got size "
                f"{self.size}, stride {self.stride}. Only then has a patch a central cell."
            )
        for name, n in (("latitude", len(self.latitude)), ("longitude", len(self.longitude))):
            if self.size > n:
                raise InputError(
                    f"`patches.size` must be at most the number of grid points, got {self.size} "
                    f"for {n} points of {name}. Choose a smaller patch or a larger region."
                )

    @property
    def shape(self) -> tuple[int, int]:
        """Points of a patch from north to south and from west to east."""
        return (len(self.latitude), len(self.longitude)) if self.whole else (self.size, self.size)

    @property
    def dlat(self) -> float:
        """Spacing in latitude, degrees, positive."""
        return float(self.latitude[0] - self.latitude[-1]) / (len(self.latitude) - 1)

    @property
    def dlon(self) -> float:
        """Spacing in longitude, degrees, positive."""
        return float(self.longitude[-1] - self.longitude[0]) / (len(self.longitude) - 1)

    @property
    def is_global(self) -> bool:
        """True when the longitudes go once around the globe."""
        return is_global(self.longitude)

    @property
    def rows(self) -> int:
        """Number of patches from north to south."""
        if self.whole:
            return 1
        return (len(self.latitude) - self.first[0] - self.size) // self.stride + 1

    @property
    def columns(self) -> int:
        """Number of patches from west to east."""
        n = len(self.longitude)
        if self.whole:
            return 1
        if self.is_global:
            return n // self.stride
        return (n - self.first[1] - self.size) // self.stride + 1

    @property
    def margin(self) -> int:
        """Points between the edge of a patch and its central cell."""
        return (self.size - self.stride) // 2

    def positions(self, step: int) -> tuple[FloatArray, FloatArray]:
        """Latitude and longitude of the centres of patches that begin every `step` points.

        From the first point on; longitudes ascend, past 360 where the patches wrap.
        """
        rows = (len(self.latitude) - self.shape[0]) // step + 1
        columns = (len(self.longitude) - self.shape[1]) // step + 1
        if self.is_global and not self.whole:
            columns = len(self.longitude) // step
        south = np.arange(rows) * step + (self.shape[0] - 1) / 2
        east = np.arange(columns) * step + (self.shape[1] - 1) / 2
        return self.latitude[0] - self.dlat * south, self.longitude[0] + self.dlon * east

    def centre_latitude(self) -> FloatArray:
        """Latitude of the centre of each row of patches, degrees north, shape (rows,)."""
        top = self.first[0] + np.arange(self.rows) * self.stride
        return self._centre_latitude(top)

    def centre_longitude(self) -> FloatArray:
        """Longitude of the centre of each column, degrees east in [0, 360), shape (columns,)."""
        left = self.first[1] + np.arange(self.columns) * self.stride
        return self._centre_longitude(left)

    def _centre_latitude(self, top: npt.NDArray[np.integer]) -> FloatArray:
        return np.asarray(self.latitude[0] - self.dlat * (top + (self.shape[0] - 1) / 2))

    def _centre_longitude(self, left: npt.NDArray[np.integer]) -> FloatArray:
        middle = left + (self.shape[1] - 1) / 2
        return np.asarray((self.longitude[0] + self.dlon * middle) % 360.0)

    def corner(self, row: npt.NDArray[np.integer], column: npt.NDArray[np.integer]) -> IntArray:
        """The grid point, counted row by row, in the north-western corner of patches."""
        top = self.first[0] + np.asarray(row, dtype=np.int64) * self.stride
        left = self.first[1] + np.asarray(column, dtype=np.int64) * self.stride
        return np.asarray(top * len(self.longitude) + left % len(self.longitude))

    def top_left(self, corner: npt.NDArray[np.integer]) -> tuple[IntArray, IntArray]:
        """Points south and east of the first grid point at which patches of a corner begin."""
        return np.divmod(np.asarray(corner, dtype=np.int64), len(self.longitude))

    def centre(self, corner: npt.NDArray[np.integer]) -> tuple[FloatArray, FloatArray]:
        """Latitude and longitude of the centres of patches of a corner; degrees, [0, 360)."""
        top, left = self.top_left(corner)
        return self._centre_latitude(top), self._centre_longitude(left)

    def cells(self, latitude: FloatArray, longitude: FloatArray) -> tuple[IntArray, IntArray]:
        """The patch in whose central cell each point lies.

        Args:
            latitude: degrees north, shape (n,).
            longitude: degrees east, any range, shape (n,).

        Returns:
            Row and column of the patch, each shape (n,); -1, -1 where no central cell holds
            the point (poles, edges of a region).
        """
        y = np.floor((self.latitude[0] - latitude) / self.dlat + 0.5).astype(np.int64)
        west = self.longitude[0] - self.dlon / 2  # the first point's cell begins there
        x = np.floor((np.asarray(longitude, dtype=float) - west) % 360.0 / self.dlon)
        x = x.astype(np.int64)
        if self.whole:
            inside = (y >= 0) & (y < self.shape[0]) & (self.is_global | (x < self.shape[1]))
            return np.where(inside, 0, -1), np.where(inside, 0, -1)
        if self.is_global:
            x = (x - self.first[1] - self.margin) % len(self.longitude)
            column = x // self.stride
        else:
            # A point west of the first cell comes out near 360 and is outside as it should.
            column = np.floor_divide(x - self.first[1] - self.margin, self.stride)
        row = np.floor_divide(y - self.first[0] - self.margin, self.stride)
        inside = (row >= 0) & (row < self.rows) & (column >= 0) & (column < self.columns)
        return np.where(inside, row, -1), np.where(inside, column, -1)


def canonical_name(standard_name: str) -> str:
    """A CF standard name, for its aliases too."""
    return PRESSURE if standard_name in PRESSURE_ALIASES else standard_name


def is_pressure(standard_name: str, name: str) -> bool:
    """Whether a variable is sea-level pressure, by its standard name or its own."""
    known = PRESSURE in (canonical_name(standard_name), canonical_name(name))
    return known or name.lower() in PRESSURE_NAMES


def is_global(longitude: FloatArray) -> bool:
    """True when longitudes, regular and ascending, go once around the globe."""
    if len(longitude) < 2:
        return False
    spacing = (longitude[-1] - longitude[0]) / (len(longitude) - 1)
    return bool(abs(spacing * len(longitude) - 360.0) < 0.01 * spacing)


def duration_hours(text: str) -> float:
    """Hours of a duration such as ``-24h`` or ``2d``; NaN when it is none."""
    match = re.fullmatch(r"\s*([+-]?\d+(?:\.\d+)?)\s*([hHdD])\s*", str(text))
    return float(match[1]) * (24.0 if match[2] in "dD" else 1.0) if match else math.nan


def great_circle_km(
    latitude_a: FloatArray, longitude_a: FloatArray, latitude_b: FloatArray, longitude_b: FloatArray
) -> FloatArray:
    """Great-circle distance in km of points in degrees (haversine formula; shapes broadcast)."""
    lat_a, lon_a, lat_b, lon_b = (
        np.deg2rad(np.asarray(v, dtype=float))
        for v in (latitude_a, longitude_a, latitude_b, longitude_b)
    )
    h = (
        np.sin((lat_b - lat_a) / 2) ** 2
        + np.cos(lat_a) * np.cos(lat_b) * np.sin((lon_b - lon_a) / 2) ** 2
    )
    return np.asarray(2 * EARTH_RADIUS_KM * np.arcsin(np.sqrt(np.clip(h, 0.0, 1.0))))


def check_patches(store: xr.Dataset) -> None:
    """Checks that a dataset keeps the contract of the patch store.

    Raises:
        InputError: what is missing or has the wrong shape.
    """
    if "patches" not in store or store["patches"].dims != PATCH_DIMS:
        dims = store["patches"].dims if "patches" in store else None
        raise InputError(f"`patches` must have dims {PATCH_DIMS}, got {dims}. Build the store.")
    wanted = ("time", "latitude", "longitude", "label", "group", "split", "incident_id", "reason")
    missing = [n for n in wanted if n not in store or store[n].dims != ("sample",)]
    if missing:
        raise InputError(f"the patch store lacks {missing} (a value per sample). Build it again.")
    for name in ("mean", "std"):
        if name not in store or store[name].dims != ("variable",):
            raise InputError(f"the patch store lacks `{name}` per variable. Build it again.")
    check_statistics(list(map(str, store["variable"].values)), store["mean"], store["std"])


def check_statistics(variables: list[str], mean: xr.DataArray, std: xr.DataArray) -> None:
    """Refuses variables that are constant or missing over the training dates.

    Raises:
        InputError: names the first one.
    """
    for name, m, s in zip(variables, mean.values, std.values, strict=True):
        if not (np.isfinite(m) and s > 1e-6 * abs(m) and s > 0):
            raise InputError(
                f"variable `{name}` must vary over the training dates, got mean {m:.6g} and "
                f"standard deviation {s:.3g}. Choose other variables or dates."
            )
