"""The settings of each stage of the preprocessing line."""

from dataclasses import dataclass, field

from data_pipelines.errors import InputError
from data_pipelines.schema import MatchTime


@dataclass
class Fields:
    """Which fields to read.

    Attributes:
        paths: NetCDF files or one Zarr store; the store may be an address such as
            `gs://BUCKET/STORE.zarr`.
        variables: names or CF standard names.
        lags: offsets in time that become further variables.
        hemisphere_sign: variables multiplied by the sign of latitude.
        period: FIRST/LAST (dates, both included): the only times to look at; empty for all.
    """

    paths: list[str] = field(default_factory=list)
    variables: list[str] = field(default_factory=lambda: ["msl"])
    lags: list[str] = field(default_factory=lambda: ["0h"])
    hemisphere_sign: list[str] = field(default_factory=list)
    period: str = ""

    def __post_init__(self) -> None:
        """Checks the names.

        Raises:
            InputError: no variable, or one twice.
        """
        if not self.variables or len(set(self.variables)) < len(self.variables):
            raise InputError(
                f"`fields.variables` must name each variable once, got {self.variables}."
            )


@dataclass
class Incidents:
    """Which incidents to look for.

    Attributes:
        catalogue: CSV with time, latitude, longitude, storm_id and further columns; or IBTrACS
            CSV, HURDAT2, or GeoJSON points; any of them may be gzipped.
        where: column -> {min, max}: the rows that are incidents; others are hard negatives.
        match_time: `exact`, or `day` for daily means.
    """

    catalogue: str = ""
    where: dict[str, dict[str, float]] = field(default_factory=dict)
    match_time: MatchTime = "exact"


@dataclass
class Patches:
    """How to cut patches.

    Attributes:
        size: grid points a side.
        stride: grid points from one patch to the next.
        background_share: share of the background that training keeps.
    """

    size: int = 16
    stride: int = 4
    background_share: float = 0.25


@dataclass
class Splits:
    """How to split the time axis and choose the target set.

    Attributes:
        train: intervals FIRST/LAST (dates, both included).
        validation: the same.
        test: the same.
        fractions: shares of train, validation, test, if no interval is given.
        gap: distance in time between splits; at least the largest lag.
        target_per_group: samples of each group in the target set.
    """

    train: list[str] = field(default_factory=list)
    validation: list[str] = field(default_factory=list)
    test: list[str] = field(default_factory=list)
    fractions: list[float] = field(default_factory=lambda: [0.6, 0.15, 0.25])
    gap: str = "2d"
    target_per_group: int = 12
