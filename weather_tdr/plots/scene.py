"""What a picture of an incident map shows, and which part of the globe."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from data_pipelines.quality import loaded
from data_pipelines.schema import is_global

HALF_WIDTH, HALF_HEIGHT = 40.0, 22.0  # degrees, of the map around an incident


def strongest(found: pd.DataFrame) -> "pd.Series[Any]":
    """The row of the most probable incident, the first of equal ones."""
    return found.iloc[int(found["probability"].to_numpy().argmax())]


@dataclass(frozen=True)
class Scene:
    """One time of an incident map.

    Attributes:
        probability: dims ``(latitude, longitude)``.
        found: incidents found at this time.
        pressure: sea-level pressure, Pa, for the contours.
        truth: incidents of the catalogue at this time, with ``hit`` where known.
        trail: positions of the followed track up to now: ``latitude, longitude``.
    """

    probability: xr.DataArray
    found: pd.DataFrame
    pressure: xr.DataArray | None = None
    truth: pd.DataFrame | None = None
    trail: pd.DataFrame | None = None

    @classmethod
    def at(
        cls,
        time: Any,
        probability: xr.DataArray,
        found: pd.DataFrame,
        pressure: xr.DataArray | None = None,
        truth: pd.DataFrame | None = None,
        trail: pd.DataFrame | None = None,
    ) -> "Scene":
        """One time of what there is of many.

        Args:
            time: which.
            probability: dims ``(time, latitude, longitude)``.
            found: incidents found.
            pressure: sea-level pressure, Pa; dims ``(time, latitude, longitude)``.
            truth: incidents of the catalogue, with ``hit`` where known.
            trail: positions of the followed track up to now.
        """
        return cls(
            probability.sel(time=time),
            found[found["time"] == time],
            pressure=None if pressure is None else loaded(pressure.sel(time=time)),
            truth=None if truth is None else truth[truth["time"] == time],
            trail=trail,
        )

    @property
    def time(self) -> pd.Timestamp:
        """Time of the map, UTC."""
        return pd.Timestamp(self.probability["time"].item())

    @property
    def field(self) -> xr.DataArray:
        """What covers the whole domain: pressure, or the map itself."""
        return self.probability if self.pressure is None else self.pressure

    def centre(self) -> tuple[float, float]:
        """Longitude and latitude of the strongest incident, or of the highest probability."""
        if len(self.found):
            best = strongest(self.found)
            return float(best["longitude"]), float(best["latitude"])
        peak = self.probability.fillna(0.0).argmax(["latitude", "longitude"])
        point = self.probability.isel(peak)
        return float(point["longitude"]), float(point["latitude"])


@dataclass(frozen=True)
class Window:
    """West, east, south and north of a map, degrees; longitudes ascend."""

    west: float
    east: float
    south: float
    north: float

    @classmethod
    def whole(cls, scene: Scene) -> "Window":
        """All of the domain."""
        return cls.of(scene.field)

    @classmethod
    def of(cls, field: xr.DataArray) -> "Window":
        """All that a field covers."""
        longitude, latitude = field["longitude"], field["latitude"]
        west, east = float(longitude.min()), float(longitude.max())
        turn = 360.0 if west >= 180.0 and east > 360.0 else 0.0
        if is_global(longitude.to_numpy()):
            half = (east - west) / (2 * (longitude.size - 1))
            west, east = west - half, east + half
        return cls(west - turn, east - turn, float(latitude.min()), float(latitude.max()))

    @classmethod
    def around(cls, scene: Scene, centre: tuple[float, float]) -> "Window":
        """Around a point, kept inside the domain."""
        all_of = cls.whole(scene)
        half_x = min(HALF_WIDTH, (all_of.east - all_of.west) / 2)
        half_y = min(HALF_HEIGHT, (all_of.north - all_of.south) / 2)
        x = centre[0]
        if not is_global(scene.field["longitude"].to_numpy()):
            x = (x - all_of.west) % 360.0 + all_of.west
            x = float(np.clip(x, all_of.west + half_x, all_of.east - half_x))
        y = float(np.clip(centre[1], all_of.south + half_y, all_of.north - half_y))
        return cls(x - half_x, x + half_x, y - half_y, y + half_y)

    def cut(self, field: xr.DataArray) -> xr.DataArray:
        """The part of a field in the window and two points around, turned so that it ascends."""
        longitude, latitude = (field[k].to_numpy() for k in ("longitude", "latitude"))
        middle = (self.west + self.east) / 2
        if is_global(longitude):
            longitude = (longitude - middle + 180.0) % 360.0 + middle - 180.0
        else:  # a region across Greenwich may be written in two ways
            longitude = longitude + 360.0 * round((middle - float(longitude.mean())) / 360.0)
        whole_turn = is_global(field["longitude"].to_numpy())
        field = field.assign_coords(longitude=longitude).sortby("longitude")
        if whole_turn:  # so that nothing is open between the last column and the first
            first, last = field.isel(longitude=[0]), field.isel(longitude=[-1])
            before = last.assign_coords(longitude=last["longitude"] - 360.0)
            after = first.assign_coords(longitude=first["longitude"] + 360.0)
            field = xr.concat([before, field, after], dim="longitude")
        longitude = field["longitude"].to_numpy()
        margin = [2 * float(np.abs(np.diff(v)).max()) if len(v) > 1 else 1.0
                  for v in (longitude, latitude)]  # fmt: skip
        x = (longitude >= self.west - margin[0]) & (longitude <= self.east + margin[0])
        y = (latitude >= self.south - margin[1]) & (latitude <= self.north + margin[1])
        return field.isel(longitude=x, latitude=y)

    def longitudes(self, values: "pd.Series[float]") -> "pd.Series[float]":
        """Longitudes as they lie on this map, or on the nearer side beyond its edges."""
        middle = (self.west + self.east) / 2
        return (values - middle + 180.0) % 360.0 + middle - 180.0


def origin(truth: pd.DataFrame) -> str:
    """Whence true incidents are: areas come from labels, positions from a catalogue."""
    return "label" if "area_km2" in truth else "catalogue"
