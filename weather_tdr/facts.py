"""Facts for people: a short aligned table, warnings and errors; and how numbers are written."""

import json
import textwrap
from dataclasses import dataclass, field

import pandas as pd

from data_pipelines.schema import FloatArray, is_global
from data_pipelines.settings import Incidents

WIDTH = 100


@dataclass
class Facts:
    """What a command has found out.

    Attributes:
        rows: name and text; a row without a name goes on with the one before.
        warnings: what works and may not be meant.
        errors: what will not work; one line each.
    """

    rows: list[tuple[str, str]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def add(self, name: str, *texts: str) -> None:
        """Adds a row, or several under one name."""
        self.rows += [(name if k == 0 else "", text) for k, text in enumerate(texts)]

    def warn(self, text: str) -> None:
        """Adds a warning, once."""
        if text not in self.warnings:
            self.warnings.append(text)

    def fail(self, error: Exception | str) -> None:
        """Adds an error, once."""
        if str(error) not in self.errors:
            self.errors.append(str(error))

    def text(self) -> str:
        """The table, then the warnings; errors are for the caller."""
        width = max([len(name) for name, _ in self.rows], default=0) + 2
        lines = [
            line
            for name, text in self.rows
            for line in _wrapped(text, f"{name:{width}}", " " * width)
        ]
        if self.warnings:
            lines.append("")
        for text in self.warnings:
            lines += _wrapped(text, "warning: ", "  ")
        return "\n".join(lines)


def _wrapped(text: str, first: str, rest: str) -> list[str]:
    return textwrap.wrap(
        text, WIDTH, initial_indent=first, subsequent_indent=rest, break_long_words=False,
        break_on_hyphens=False,
    ) or [first.rstrip()]  # fmt: skip


def incidents_text(incidents: Incidents) -> str:
    """What the incidents of a run are, in one line."""
    chosen = json.dumps(incidents.where).replace('"', "")
    where = f", where {chosen}" if incidents.where else ""
    if incidents.rule == "catalogue":
        return f"catalogue {incidents.catalogue}{where}"
    if incidents.rule == "series":
        return f"series {incidents.series.variable} of {incidents.series.path}{where}"
    if incidents.rule == "mask":
        mask = incidents.mask
        marked = ", ".join(f"{v:g}" for v in mask.values) or "above 0"
        return f"mask {mask.variable}, {marked}, over {mask.min_share:.3g} of a patch or more"
    rule = incidents.exceedance
    return (
        f"exceedance: {rule.variable} ({rule.daily} of the day) {rule.side} percentile "
        f"{rule.percentile:g} of its day of the year (window {rule.window_days} days) for "
        f"{rule.min_days} days or more, over {rule.min_share:.3g} of a patch or more"
    )


def bytes_text(number: float) -> str:
    """Such as 1.4 MiB."""
    unit = "B"
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if number < 1024 or unit == "TiB":
            break
        number /= 1024
    return f"{number:.0f} {unit}" if unit == "B" or number >= 9.95 else f"{number:.1f} {unit}"


def time_text(time: pd.Timestamp) -> str:
    """A date, with the time of day unless it is midnight."""
    return f"{time:%Y-%m-%d}" if time == time.normalize() else f"{time:%Y-%m-%d %H:%M}"


def period_text(first: pd.Timestamp, last: pd.Timestamp) -> str:
    """Both ends, written alike."""
    if first == first.normalize() and last == last.normalize():
        return f"{first:%Y-%m-%d} to {last:%Y-%m-%d}"
    return f"{first:%Y-%m-%d %H:%M} to {last:%Y-%m-%d %H:%M}"


def step_text(hours: float) -> str:
    """A time step, in days where it is whole days."""
    if hours % 24 == 0:
        return "day" if hours == 24 else f"{hours / 24:g} days"
    return "hour" if hours == 1 else f"{hours:g} hours"


def duration_text(seconds: float) -> str:
    """About how long: two digits are not known."""
    for name, size in (("days", 86400.0), ("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {name}"
    return f"{max(seconds, 1):.0f} seconds"


def latitude_text(degrees: float) -> str:
    """Such as 30 S."""
    return f"{abs(degrees):g} {'S' if degrees < 0 else 'N'}" if degrees else "0"


def longitude_text(degrees: float) -> str:
    """Such as 70 W, from -180 to 180."""
    east = (degrees + 180.0) % 360.0 - 180.0
    return f"{abs(east):g} {'W' if east < 0 else 'E'}" if east else "0"


def region_text(latitude: FloatArray, longitude: FloatArray) -> str:
    """Points and limits of a grid.

    Args:
        latitude: degrees north, descending.
        longitude: degrees east, ascending.
    """
    north, south = (latitude_text(float(v)) for v in (latitude[0], latitude[-1]))
    west, east = (longitude_text(float(v)) for v in (longitude[0], longitude[-1]))
    around = "all longitudes" if is_global(longitude) else f"{west} to {east}"
    return f"{len(latitude)} x {len(longitude)} points, {north} to {south}, {around}"


def some(names: list[str], most: int = 6) -> str:
    """The names, or the first few and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
