"""Groups of samples: the class, or the class times a stratum of place or season."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from data_pipelines.errors import InputError
from data_pipelines.schema import GROUPS, LABELS, FloatArray, IntArray

Stratum = Literal["hard_negative", "hemisphere", "latitude_band", "season", "region"]
SEASONS = ("djf", "mam", "jja", "son")


@dataclass
class Groups:
    """What a weight may belong to besides the class; each name multiplies the groups.

    Attributes:
        by: any of `hard_negative`, `hemisphere`, `latitude_band`, `season` (djf, mam, jja, son),
            `region`; empty for the class alone.
        latitude_bands: edges between bands of distance from the equator, degrees.
        regions: name -> {south, north, west, east}, degrees; the first that holds the centre of
            the patch counts, others are `elsewhere`. A box may cross the date line.
    """

    by: list[Stratum] = field(default_factory=lambda: ["hard_negative"])
    latitude_bands: list[float] = field(default_factory=lambda: [30.0, 60.0])
    regions: dict[str, dict[str, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Checks bands and boxes.

        Raises:
            InputError: a stratum twice, edges out of order, or a box that is none.
        """
        if len(set(self.by)) < len(self.by):
            raise InputError(f"`groups.by` must name each stratum once, got {self.by}.")
        edges = [0.0, *self.latitude_bands, 90.0]
        if any(a >= b for a, b in pairwise(edges)):
            raise InputError(
                "`groups.latitude_bands` must ascend between 0 and 90 degrees, got "
                f"{self.latitude_bands}."
            )
        if ("region" in self.by) != bool(self.regions):
            raise InputError(
                "`groups.regions` must be given if, and only if, `groups.by` holds `region`, got "
                f"{self.regions} with {self.by}. Write for example "
                "regions: {north_atlantic: {south: 30, north: 70, west: 280, east: 10}}."
            )
        for name, box in self.regions.items():
            _check_box(name, box)


@dataclass(frozen=True)
class Grouping:
    """Numbers and names of the groups: kind of sample first, then stratum.

    Attributes:
        settings: what they are by.
    """

    settings: Groups

    @property
    def kinds(self) -> tuple[str, ...]:
        """Background, hard negative and incident; or normal and incident."""
        return GROUPS if "hard_negative" in self.settings.by else LABELS

    @property
    def strata(self) -> tuple[str, ...]:
        """Names of the strata; one empty name when there are none."""
        names = [""]
        for axis in self._axes():
            names = [f"{a}_{b}".strip("_") for a in names for b in self._parts(axis)]
        return tuple(names)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all groups, by number."""
        return tuple(f"{kind}_{s}".strip("_") for kind in self.kinds for s in self.strata)

    def code(
        self,
        kind: npt.NDArray[np.integer],
        times: pd.DatetimeIndex,
        latitude: FloatArray,
        longitude: FloatArray,
    ) -> IntArray:
        """Group of samples.

        Args:
            kind: index into ``schema.GROUPS`` of each, shape (n,).
            times: of each.
            latitude: of their centres, degrees north.
            longitude: of their centres, degrees east, any range.
        """
        if self.kinds is LABELS:
            kind = (np.asarray(kind) == GROUPS.index("incident")).astype(np.int64)
        stratum = np.zeros(len(kind), dtype=np.int64)
        for axis in self._axes():
            stratum *= len(self._parts(axis))
            if axis == "hemisphere":
                stratum += latitude < 0
            elif axis == "latitude_band":
                edges = self.settings.latitude_bands
                stratum += np.searchsorted(edges, np.abs(latitude), side="right")
            elif axis == "season":
                stratum += times.month.to_numpy() % 12 // 3
            else:
                stratum += _region(self.settings.regions, latitude, longitude)
        return np.asarray(kind, dtype=np.int64) * len(self.strata) + stratum

    def _axes(self) -> list[str]:
        return [axis for axis in self.settings.by if axis != "hard_negative"]

    def _parts(self, axis: str) -> tuple[str, ...]:
        if axis == "hemisphere":
            return ("north", "south")
        if axis == "latitude_band":
            edges = [0.0, *self.settings.latitude_bands, 90.0]
            return tuple(f"{a:g}to{b:g}" for a, b in pairwise(edges))
        if axis == "season":
            return SEASONS
        return (*self.settings.regions, "elsewhere")


def _region(
    regions: Mapping[str, Mapping[str, float]], latitude: FloatArray, longitude: FloatArray
) -> IntArray:
    number = np.full(len(latitude), len(regions), dtype=np.int64)
    for k, box in reversed(list(enumerate(regions.values()))):
        width = (box["east"] - box["west"]) % 360.0 or 360.0
        inside = (latitude >= box["south"]) & (latitude <= box["north"])
        number[inside & ((longitude - box["west"]) % 360.0 <= width)] = k
    return number


def _check_box(name: str, box: Any) -> None:
    sides = ("south", "north", "west", "east")
    if not isinstance(box, Mapping) or set(box) != set(sides):
        raise InputError(
            f"`groups.regions.{name}` must have the sides {', '.join(sides)} in degrees, "
            f"got {box!r}."
        )
    if not -90 <= box["south"] < box["north"] <= 90:
        raise InputError(
            f"`groups.regions.{name}` must lie between -90 and 90 degrees with south below "
            f"north, got {dict(box)}."
        )
    if name == "elsewhere":
        raise InputError(
            "`groups.regions` must not name a region `elsewhere`, which is what no region holds. "
            "Give it another name."
        )
    if not name.replace("_", "").isalnum():
        raise InputError(
            f"`groups.regions` must have names of letters, digits and underscores, got `{name}`."
        )
