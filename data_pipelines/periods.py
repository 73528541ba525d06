"""Intervals of time as people write them: FIRST/LAST, both included."""

import re

import pandas as pd

from data_pipelines.errors import InputError

ISO = re.compile(
    r"\d{4}(-\d{2}(-\d{2}([T ]\d{2}(:\d{2}(:\d{2}(\.\d+)?)?)?(Z|[+-]\d{2}:?\d{2})?)?)?)?"
)


def interval(key: str, period: str) -> tuple[pd.Timestamp, pd.Timestamp]:
    """First and last moment of an interval such as ``2001-01-01/2001-12-31``.

    Args:
        key: of the configuration, for the error.
        period: two ISO 8601 dates; a year, month or day stands for all of it.

    Raises:
        InputError: it is no interval, or ends before it begins.
    """
    try:
        begin, end = str(period).split("/")
        first, last = _moment(begin), _moment(end, last=True)
    except ValueError as error:
        raise InputError(
            f"`{key}` must be intervals such as 2001-01-01/2001-12-31, got `{period}`. "
            "Write dates as YEAR-MONTH-DAY."
        ) from error
    if not first <= last:
        raise InputError(f"`{key}` must begin before it ends, got `{period}`.")
    return first, last


def _moment(text: str, *, last: bool = False) -> pd.Timestamp:
    """A date and time (UTC); of a year, month or day its first or last moment."""
    text = text.strip()
    if not ISO.fullmatch(text):  # others would be guessed: 01.02. may be in January or February
        raise ValueError(text)
    if last and re.fullmatch(r"\d{4}(-\d{2}){0,2}", text):
        return pd.Period(text).end_time
    moment = pd.Timestamp(text)
    return moment if moment.tz is None else moment.tz_convert(None)
