"""The settings of each stage of the preprocessing line."""

import json
from dataclasses import asdict, dataclass, field
from dataclasses import fields as dataclass_fields
from typing import Any, Literal

from data_pipelines.errors import InputError
from data_pipelines.groups import Groups
from data_pipelines.schema import MatchTime, Rule

Limits = dict[str, dict[str, float]]  # column -> {min, max}


@dataclass
class Fields:
    """Which fields to read.

    Attributes:
        paths: NetCDF or GRIB files, also by patterns such as `era5_*.nc`, or one Zarr store; the
            store may be an address such as `gs://BUCKET/STORE.zarr`.
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
        names = self.variables
        if not names or len(set(names)) < len(names):
            raise InputError(f"`fields.variables` must name each variable once, got {names}.")

    def arguments(self) -> dict[str, Any]:
        """What `open_fields` takes."""
        return {f.name: getattr(self, f.name) for f in dataclass_fields(self)}


@dataclass
class Exceedance:
    """Rule `exceedance`: far from the climatology of the day of the year, by grid point and day.

    Attributes:
        variable: name or CF standard name.
        paths: files that hold it; empty for those of the fields.
        daily: what of the day counts: its mean, maximum or minimum (UTC).
        percentile: of the training days of other years whose day of the year lies in the window.
        side: beyond it on which side.
        window_days: width of the window around the day of the year, odd.
        min_days: shortest spell of such days at a grid point.
        min_share: smallest share of the patch's area in such a spell.
    """

    variable: str = ""
    paths: list[str] = field(default_factory=list)
    daily: Literal["mean", "max", "min"] = "mean"
    percentile: float = 95.0
    side: Literal["above", "below"] = "above"
    window_days: int = 15
    min_days: int = 3
    min_share: float = 0.5

    def __post_init__(self) -> None:
        """Checks the numbers.

        Raises:
            InputError: a number out of range.
        """
        if not 0 < (given := self.percentile) < 100:
            raise InputError(
                f"`incidents.exceedance.percentile` must be above 0 and below 100, got {given}."
            )
        for name in ("window_days", "min_days"):
            if not 1 <= (days := getattr(self, name)) <= 366:
                raise InputError(
                    f"`incidents.exceedance.{name}` must be 1 to 366 days, got {days}."
                )
        _check_share("exceedance", self.min_share)


@dataclass
class Mask:
    """Rule `mask`: a variable that marks incidents point by point, such as experts' outlines.

    Attributes:
        variable: name or CF standard name.
        paths: files that hold it; empty for those of the fields.
        values: that mark an incident; empty for every value above 0.
        min_share: smallest share of the patch's area that is marked.
    """

    variable: str = ""
    paths: list[str] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    min_share: float = 0.1

    def __post_init__(self) -> None:
        """Checks the share.

        Raises:
            InputError: it is out of range.
        """
        _check_share("mask", self.min_share)


@dataclass
class Series:
    """Rule `series`: one value a time for the whole region, such as the rain on an island.

    Attributes:
        path: CSV with `time` and the variable, or NetCDF.
        variable: column of it; `where` and `hard_negatives` select by it.
        reduce: what becomes of further dimensions of NetCDF (a mean weighs by area where one of
            them is latitude); cells that are always missing (sea) do not count.
    """

    path: str = ""
    variable: str = ""
    reduce: Literal["mean", "max", "min"] = "mean"


@dataclass
class Incidents:
    """Which incidents to look for.

    Attributes:
        rule: what says where they are: a `catalogue` of positions, an `exceedance` of the
            climatology, a `mask`, or a `series` for the whole region.
        catalogue: CSV with time, latitude, longitude, storm_id and further columns; or IBTrACS
            CSV, HURDAT2, or GeoJSON points; any of them may be gzipped.
        where: column -> {min, max}: the rows that are incidents.
        hard_negatives: column -> {min, max}: the other rows that are hard negatives; empty for
            all of a catalogue, and none of a series.
        match_time: `exact`, or `day` for daily means.
        distance_km: a catalogue's entry labels the patches whose centre is this near; 0: the one
            whose central cell holds it.
        exceedance: for the rule of that name.
        mask: the same.
        series: the same.
    """

    rule: Rule = "catalogue"
    catalogue: str = ""
    where: Limits = field(default_factory=dict)
    hard_negatives: Limits = field(default_factory=dict)
    match_time: MatchTime = "exact"
    distance_km: float = 0.0
    exceedance: Exceedance = field(default_factory=Exceedance)
    mask: Mask = field(default_factory=Mask)
    series: Series = field(default_factory=Series)

    def __post_init__(self) -> None:
        """Checks that only the chosen rule is given.

        Raises:
            InputError: what another rule needs is given too, or a number is out of range.
        """
        given = {
            "catalogue": self.catalogue,
            "exceedance": self.exceedance.variable,
            "mask": self.mask.variable,
            "series": self.series.path,
        }
        others = [name for name, value in given.items() if value and name != self.rule]
        if others:
            raise InputError(
                f"`incidents.rule` must be the rule that is given, got `{self.rule}` beside "
                f"`incidents.{others[0]}`. Set `incidents.rule: {others[0]}`, or take it out."
            )
        if not self.distance_km >= 0:
            raise InputError(
                f"`incidents.distance_km` must not be negative, got {self.distance_km}."
            )

    def inputs(self) -> list[str]:
        """The files that the labels come from, besides those of the fields."""
        return [*self.tables(), *self.exceedance.paths, *self.mask.paths]

    def tables(self) -> list[str]:
        """Those of them that are no gridded fields."""
        return [p for p in (self.catalogue, self.series.path) if p]


def _check_share(rule: str, share: float) -> None:
    if not 0 < share <= 1:
        raise InputError(
            f"`incidents.{rule}.min_share` must be above 0 and at most 1, got {share}."
        )


@dataclass
class Patches:
    """How to cut patches.

    Attributes:
        size: grid points a side.
        stride: grid points from one patch to the next.
        background_share: share of the background that training keeps.
        incident_stride: grid points from one incident patch of train to the next: a divisor of
            `stride` shows each incident at several places of the central cell, which makes more
            of few (rule `catalogue`); 0 is `stride`.
        whole_field: one patch a time, the whole field; then `stride` is only the network's.
    """

    size: int = 16
    stride: int = 4
    background_share: float = 0.25
    incident_stride: int = 0
    whole_field: bool = False

    def __post_init__(self) -> None:
        """Checks `incident_stride`.

        Raises:
            InputError: it does not divide the stride, or there is but one patch.
        """
        given = self.incident_stride
        if given < 0 or (given and self.stride % given):
            raise InputError(
                f"`patches.incident_stride` must divide `patches.stride` ({self.stride}), got "
                f"{given}. Take 0 to leave it out."
            )
        if given and self.whole_field:
            raise InputError(
                f"`patches.incident_stride` must be 0 with `patches.whole_field`, got {given}: "
                "there is one patch a time."
            )


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


def store_settings(
    fields: Fields,
    incidents: Incidents,
    patches: Patches,
    splits: Splits,
    groups: Groups,
    seed: int,
) -> dict[str, Any]:
    """All that decides a store besides the content of its inputs; JSON values."""
    settings: dict[str, Any] = {
        "fields": asdict(fields),
        "incidents": asdict(incidents),
        "patches": asdict(patches),
        "splits": asdict(splits),
        "groups": asdict(groups),
        "seed": seed,
    }
    for place in (settings["fields"], *(settings["incidents"][r] for r in ("exceedance", "mask"))):
        del place["paths"]
    del settings["incidents"]["catalogue"], settings["incidents"]["series"]["path"]
    return dict(json.loads(json.dumps(settings)))
