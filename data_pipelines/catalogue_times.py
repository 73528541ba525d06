"""Dates and hours of a catalogue's entries, and the error that names a bad value's line."""

import logging
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from data_pipelines.catalogues import say_once
from data_pipelines.errors import InputError

HOUR_NAMES = ("hour", "hh", "hr", "hour_utc", "utc")  # a column that belongs to the date
YEARS = (1678, 2261)  # that nanoseconds since 1970 reach
CLOCK = r"(\d{1,2})(?::(\d{2})(?::00)?)?\s*(?:Z|UTC)?"  # 6, 06:30, 06Z
DAY_FIRST = r"\s*\d{1,2}[./-]\d{1,2}[./-]\d{4}\b.*"
NO_DATE = (
    r"\s*(\d{1,4}|\d{1,2}(:\d{2}){1,2}|\d{1,4}\.0)?\s*(Z|UTC|AM|PM|nan)?\s*"  # an hour, or none
)
QUARTERS = (0, 15, 30, 45)  # minutes of hours without a colon; others may be hours since a start
YEAR_ALONE = r"\s*\d{4}(\.\d*)?\s*"


def times_of(table: pd.DataFrame, path: Path) -> pd.Series:
    """The times of entries, UTC, with the hours of a column of their own where dates have none.

    Args:
        table: ``time``, and maybe one of HOUR_NAMES; or ``date`` and the hour in ``time``. Index:
            line of the file.
        path: of the file.

    Raises:
        InputError: a value is no date, or no hour.
    """
    column, hours = "time", [c for c in table if str(c).strip().lower() in HOUR_NAMES]
    dates = [str(c) for c in table if str(c).strip().lower() == "date"]
    times = table["time"]
    if not pd.api.types.is_datetime64_dtype(times):
        if dates and times.map(str).str.fullmatch(NO_DATE).mean() > 0.5:
            column, hours = dates[0], [*hours, "time"]
        text = table[column].map(str)
        _refuse_years_alone(path, table, text.str.fullmatch(YEAR_ALONE), column)
        times = pd.to_datetime(text, format="ISO8601", errors="coerce", utc=True)
        times = times.dt.tz_localize(None)
    refuse(path, table, times.isna(), column, "be a date such as 2001-01-31 06:00")
    far = ~times.dt.year.between(*YEARS)
    refuse(path, table, far, column, f"lie in the years {YEARS[0]} to {YEARS[1]}")
    return _with_hours(times.astype("datetime64[ns]"), table, path, hours)


def days_alone(times: pd.Series) -> bool:
    """Whether no time has an hour."""
    return bool((times == times.dt.floor("D")).all())


def refuse(path: Path, table: pd.DataFrame, bad: pd.Series, column: str, must: str) -> None:
    """Refuses bad values of a column.

    Raises:
        InputError: there are some; names the first, its line and their number.
    """
    if bad.any():
        raise InputError(_told(path, table, bad, column, must) + _mending(table[column], bad))


def _told(path: Path, table: pd.DataFrame, bad: pd.Series, column: str, must: str) -> str:
    row = int(bad.to_numpy().argmax())
    unit = {"geojson": "feature", "netcdf": "step"}.get(table.attrs["format"], "line")
    return (
        f"`{column}` must {must}, got `{table[column].iloc[row]}` in {unit} "
        f"{table.index[row]} of {path} ({int(bad.sum())} such {unit}s). "
    )


def _mending(values: pd.Series, bad: pd.Series) -> str:
    """What to do about bad values of a column."""
    if not bad.all():
        return "Correct or delete them."
    day_first = values.astype(str).str.fullmatch(DAY_FIRST).mean() > 0.9
    return (
        "Write it as year-month-day; where the day comes first, "
        "`pd.to_datetime(..., dayfirst=True)` reads it."
        if day_first
        else "Write the whole column anew."
    )


def _refuse_years_alone(path: Path, table: pd.DataFrame, bad: pd.Series, column: str) -> None:
    if bad.any():
        raise InputError(
            _told(path, table, bad, column, "be a date such as 2001-01-31 06:00")
            + "A year alone, a decimal year, a month after a point, or an hour without its date: "
            "write it as year-month-day."
        )


def _with_hours(
    times: pd.Series, table: pd.DataFrame, path: Path, names: Sequence[object]
) -> pd.Series:
    """Dates with the hours of a column of their own, if there is one that holds any."""
    names = [name for name in names if table[name].notna().any()]
    if not names or not days_alone(times):
        return times
    hours = _hours(table[names[0]])
    if hours.isna().any():
        raise InputError(
            _told(
                path,
                table,
                hours.isna(),
                str(names[0]),
                "be an hour (UTC) such as 6, 0600 or 06:00",
            )
            + "The dates have no hours of their own. Correct it, or rename the column if it holds "
            "something else."
        )
    if not hours.any():
        return times
    said = f"the dates of {path} are read with the hours of its column `{names[0]}`, as UTC"
    say_once(logging.INFO, said)
    return times + pd.to_timedelta(hours * 60, unit="min").dt.round("min")


def _hours(values: pd.Series) -> pd.Series:
    """Hours of the day, 24 being the next day's 0; NaN for what is none."""
    numbers = pd.to_numeric(values, errors="coerce")
    if numbers.max() >= 100 and (numbers % 100).dropna().isin(QUARTERS).all():  # such as 0630
        return (numbers // 100 + numbers % 100 / 60).where(numbers.between(0, 2400))
    parts = values.astype(str).str.strip().str.removesuffix(".0").str.extract(f"^{CLOCK}$")
    hours, minutes = pd.to_numeric(parts[0]), pd.to_numeric(parts[1]).fillna(0)
    hours += minutes / 60
    return hours.where((hours <= 24) & (minutes < 60))
