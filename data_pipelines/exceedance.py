"""Spells beyond a percentile of the climatology of the day of the year, at each grid point.

The values of all days lie once on disk, beside the store, so that memory does not grow with the
archive: written day by day, read grid row by grid row for the percentiles.
"""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr
from tqdm import tqdm

from data_pipelines.errors import InputError
from data_pipelines.quality import Finding, joined, read_block
from data_pipelines.settings import Exceedance

DAYS_AT_ONCE = 64
DAYS_OF_YEAR = 366
Days = npt.NDArray[np.float32]  # (day, latitude, longitude)


def daily_values(
    field: xr.DataArray, how: str, path: Path | None, *, progress: bool = False
) -> tuple[pd.DatetimeIndex, Days, list[Finding]]:
    """Mean, maximum or minimum of each day (UTC), in memory or in a file mapped into it.

    Args:
        field: canonical fields of one variable, lazy.
        how: ``mean``, ``max`` or ``min``. A missing or impossible value makes its day missing, and
            so does a time step less than a day usually has.
        path: of the file; None for memory.
        progress: shows a progress bar.

    Returns:
        The days that occur, their values, and what is wrong with the field.
    """
    times = pd.DatetimeIndex(field.indexes["time"])
    day_of = times.floor("D")
    days = day_of.unique()
    number = days.get_indexer(day_of)
    shape = (len(days), *field.shape[2:])
    values: Days = (
        np.empty(shape, dtype=np.float32)
        if path is None
        else np.memmap(path, dtype=np.float32, mode="w+", shape=shape)
    )
    combine = {"mean": np.add, "max": np.maximum, "min": np.minimum}[how]
    chunks = field.chunks[0] if field.chunks else (len(times),)
    begun, current = -1, np.zeros(field.shape[2:])
    findings: list[Finding] = []
    first = 0
    for size in tqdm(chunks, desc="daily values", disable=not progress, mininterval=1.0):
        here = slice(first, first + size)
        block, found = read_block(field.isel(time=here), times[here])
        findings += found
        for k, value in zip(number[here], block[:, 0], strict=True):
            current = combine(current, value) if k == begun else value.astype(np.float64)
            begun = int(k)
            values[k] = current
        first += size
    counts = np.bincount(number)
    if how == "mean":
        for begin in range(0, len(days), DAYS_AT_ONCE):
            part = slice(begin, begin + DAYS_AT_ONCE)
            values[part] /= counts[part, None, None]
    short = np.flatnonzero(counts < np.median(counts))
    for day in short:
        values[day] = np.nan
    if len(short):
        ends = days[short[0]].isoformat(), days[short[-1]].isoformat()
        lost = int((np.median(counts) - counts[short]).sum())
        findings.append(Finding("time", "missing", lost, *ends))
    return days, values, joined(findings)


def thresholds(
    days: pd.DatetimeIndex, values: Days, training: npt.NDArray[np.bool_], settings: Exceedance
) -> Days:
    """The percentile of each day of the year and grid point, from training days only.

    Args:
        days: of the values.
        values: shape (day, latitude, longitude).
        training: True for training days.
        settings: percentile and window.

    Returns:
        Shape (366, latitude, longitude), day of the year 1 first; NaN where fewer days with a value
        lie in the window than a sample needs to have such a percentile: 1 / min(p, 1 - p).

    Raises:
        InputError: that is so for every day.

    Source:
        Quantiles without bias of the median (Hyndman and Fan 1996, method 8), windows of days of
        the year as the ETCCDI indices take them (Zhang et al. 2005).
    """
    share = settings.percentile / 100.0
    needed = math.ceil(1.0 / min(share, 1.0 - share) - 1e-9)
    day_of_year = days.day_of_year.to_numpy()
    wanted = np.unique(day_of_year)
    # The wanted day lies in the day's own year, in the next one, or in the one before.
    ends, before = (365 + _is_leap(days.year.to_numpy() + y) for y in (0, -1))
    ahead = wanted[:, None] - day_of_year[None]
    apart = np.minimum.reduce([np.abs(ahead), np.abs(ends + ahead), np.abs(ahead - before)])
    known = np.array([not np.isnan(day).all() for day in values])  # one at a time: it is on disk
    inside = (apart <= settings.window_days // 2) & (training & known)[None]
    enough = inside.sum(axis=1) >= needed
    if not enough.any():
        raise InputError(
            f"`incidents.exceedance.window_days` must hold at least {needed} training days with "
            f"values for percentile {settings.percentile:g}, got at most "
            f"{int(inside.sum(axis=1).max())} in {settings.window_days} days. Widen it, or train "
            "on a longer period."
        )
    found: Days = np.full((DAYS_OF_YEAR, *values.shape[1:]), np.nan, dtype=np.float32)
    for row in range(values.shape[1]):
        of_row = np.asarray(values[:, row])
        for day, members in zip(wanted[enough], inside[enough], strict=True):
            found[day - 1, row] = _percentile(of_row[members], share, needed)
    return found


def _percentile(sample: Days, share: float, needed: int) -> Days:
    """That of each point, shape (longitude,), of its days with a value: (day, longitude)."""
    number = len(sample) - np.isnan(sample).sum(axis=0)
    whole, holed = number == len(sample), (number < len(sample)) & (number >= needed)
    found: Days = np.full(sample.shape[1:], np.nan, dtype=np.float32)
    for points, quantile in ((whole, np.quantile), (holed, np.nanquantile)):
        if points.any():
            found[points] = quantile(sample[:, points], share, axis=0, method="median_unbiased")
    return found


def _is_leap(year: npt.NDArray[np.integer]) -> npt.NDArray[np.bool_]:
    return np.asarray((year % 4 == 0) & ((year % 100 != 0) | (year % 400 == 0)))


def spells(
    days: pd.DatetimeIndex, values: Days, limits: Days, settings: Exceedance
) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
    """Where the limits are exceeded for long enough, some days at a time.

    Args:
        days: of the values, ascending.
        values: shape (day, latitude, longitude).
        limits: as `thresholds` gives them.
        settings: side and shortest spell.

    Yields:
        Number of the first day, and for it and the following ones 1, 0, or NaN where a value or
        limit is missing; shape (n, latitude, longitude). A missing value ends a spell.
    """
    reach = settings.min_days - 1
    follows = np.r_[False, np.diff(days.to_numpy()) == np.timedelta64(1, "D")]
    day_of_year = days.day_of_year.to_numpy()
    for begin in range(0, len(days), DAYS_AT_ONCE):
        end = min(begin + DAYS_AT_ONCE, len(days))
        first, last = max(begin - reach, 0), min(end + reach, len(days))
        value, limit = values[first:last], limits[day_of_year[first:last] - 1]
        with np.errstate(invalid="ignore"):
            beyond = value > limit if settings.side == "above" else value < limit
        joined = follows[first:last]
        before = _run_lengths(beyond, joined)
        after = _run_lengths(beyond[::-1], np.r_[False, joined[:0:-1]])[::-1]
        event = (beyond & (before + after > settings.min_days)).astype(np.float32)
        event[np.isnan(value) | np.isnan(limit)] = np.nan
        yield begin, event[begin - first : end - first]


def _run_lengths(
    true: npt.NDArray[np.bool_], follows: npt.NDArray[np.bool_]
) -> npt.NDArray[np.int32]:
    """How many values in a row are true up to each one, along axis 0."""
    length = np.zeros(true.shape, dtype=np.int32)
    for k in range(len(true)):
        length[k] = true[k]
        if k and follows[k]:
            length[k] += length[k - 1] * true[k]
    return length
