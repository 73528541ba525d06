"""Spells beyond a percentile of the climatology of the day of the year, at each grid point.

The values of all days lie once on disk, beside the store, so that memory does not grow with the
archive: written day by day, read grid row by grid row for the percentiles, and then overwritten by
what exceeds them.
"""

import math
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr
from tqdm import tqdm

from data_pipelines.errors import InputError
from data_pipelines.quality import Finding, joined, read_block
from data_pipelines.schema import IntArray
from data_pipelines.settings import Exceedance

DAYS_AT_ONCE = 64
ZEROS = 2**24  # bytes written at once
Days = npt.NDArray[np.float32]  # (day, latitude, longitude)


def _mapped(path: Path, shape: tuple[int, ...]) -> Days:
    """A file of zeros, mapped into memory; its disk is taken first.

    Raises:
        OSError: there is no room. To write into a hole of a mapped file ends the process.
    """
    with path.open("wb") as file:
        size = 4 * math.prod(shape)
        try:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)
            else:
                for begin in range(0, size, ZEROS):
                    file.write(bytes(min(ZEROS, size - begin)))
        except OSError as error:
            error.filename = str(path)
            raise
    return np.memmap(path, dtype=np.float32, mode="r+", shape=shape)


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
    values: Days = np.empty(shape, dtype=np.float32) if path is None else _mapped(path, shape)
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
    days: pd.DatetimeIndex,
    values: Days,
    training: npt.NDArray[np.bool_],
    settings: Exceedance,
    *,
    progress: bool = False,
) -> Iterator[Days]:
    """The percentile that each day and grid point is held against, from training days of others.

    A day's own window around it does not count: the days of training would be held against a
    percentile that they have helped to set, and exceed it less often than those of other years do.

    Args:
        days: of the values, ascending.
        values: shape (day, latitude, longitude).
        training: True for training days.
        settings: percentile and window.
        progress: shows a progress bar.

    Yields:
        For each latitude, shape (day, longitude); NaN where fewer days with a value are left than
        a sample needs to have such a percentile: 1 / min(p, 1 - p).

    Raises:
        InputError: that is so for most training days.

    Source:
        Quantiles without bias of the median (Hyndman and Fan 1996, method 8), windows of days of
        the year as the ETCCDI indices take them. That the rate of exceedance jumps at the end of
        the base period: Zhang et al. (2005), J. Climate 18, 1641-1651.
    """
    share = settings.percentile / 100.0
    needed = math.ceil(1.0 / min(share, 1.0 - share) - 1e-9)
    known = np.array([not np.isnan(day).all() for day in values])  # one at a time: it is on disk
    base = np.flatnonzero(training & known)
    windows, counts = [], []
    for day in np.unique(days.day_of_year):
        apart, of_year = _anniversary(days[base], int(day))
        inside = apart <= settings.window_days // 2
        wanted = np.flatnonzero(days.day_of_year == day)
        own = days.year.to_numpy()[wanted]
        left = inside.sum() - (of_year[inside] == own[:, None]).sum(axis=1)
        counts.append(left[training[wanted]])
        windows.append((wanted[left >= needed], base[inside], of_year[inside]))
    # Of most days of training: those near the new year of its first and last year have more.
    usual = float(np.median(np.concatenate(counts))) if training.any() else 0.0
    if usual < needed:
        fix = (
            "Widen it, or train on more years."
            if usual
            else "A day is held against other years of training: train on two or more."
        )
        raise InputError(
            f"`incidents.exceedance.window_days` must hold at least {needed} training days of "
            f"other years with values for percentile {settings.percentile:g}, got {usual:g} in "
            f"{settings.window_days} days. {fix}"
        )
    for row in tqdm(
        range(values.shape[1]), desc="percentiles", disable=not progress, mininterval=1.0
    ):
        of_row = np.asarray(values[:, row])
        found: Days = np.full(of_row.shape, np.nan, dtype=np.float32)
        for wanted, members, of_year in windows:
            own = days.year.to_numpy()[wanted]
            if len(own):
                found[wanted] = _percentiles(of_row[members], of_year, own, share, needed)
        yield found


def exceeding(values: Days, limits: Iterable[Days], settings: Exceedance) -> Days:
    """Where the values are beyond the percentile of their day of the year.

    Args:
        values: shape (day, latitude, longitude). They are overwritten: an archive may have room on
            disk for one such array only.
        limits: for each latitude, as `thresholds` gives them of these values.
        settings: side.

    Returns:
        `values`, now 1 or 0; NaN where the value or the percentile is missing.
    """
    for row, limit in enumerate(limits):
        value = np.asarray(values[:, row])
        beyond = value > limit if settings.side == "above" else value < limit
        values[:, row] = np.where(np.isnan(value) | np.isnan(limit), np.nan, beyond)
    return values


def _anniversary(days: pd.DatetimeIndex, day: int) -> tuple[IntArray, IntArray]:
    """How many days each one is from the next such day of a year, and the year of that."""
    day_of_year, year = days.day_of_year.to_numpy(), days.year.to_numpy()
    ends, before = (365 + _is_leap(year + y) for y in (0, -1))
    ahead = day - day_of_year
    # That day lies in the day's own year, in the next one, or in the one before.
    apart = np.abs([ahead, ends + ahead, ahead - before])
    return apart.min(axis=0), year + np.array([0, 1, -1])[apart.argmin(axis=0)]


def _percentiles(
    sample: Days, of_year: IntArray, years: IntArray, share: float, needed: int
) -> Days:
    """Those of a sample without each of the years.

    Args:
        sample: shape (member, longitude).
        of_year: of each member.
        years: to leave out, one at a time.
        share: of the percentile, 0 to 1.
        needed: fewer members with a value have none.

    Returns:
        Shape (year, longitude).
    """
    if share < 0.5:  # counted from the nearer end, so that few members need to be sorted
        return -_percentiles(-sample, of_year, years, 1.0 - share, needed)
    known = ~np.isnan(sample)
    out = np.array([known[of_year == year].sum(axis=0) for year in years])
    number = known.sum(axis=0) - out
    at = np.clip((number + 1.0 / 3.0) * (1.0 - share) + 1.0 / 3.0, 1.0, number.clip(1))
    first = at.astype(np.int64)
    second = np.minimum(first + 1, number.clip(1))
    deep = min(int((second + out).max()), len(sample))
    falling = np.where(known, -sample, np.inf)
    order = np.argpartition(falling, deep - 1, axis=0)[:deep]
    order = np.take_along_axis(order, np.take_along_axis(falling, order, 0).argsort(0), 0)
    top, owner = -np.take_along_axis(falling, order, 0), of_year[order]
    found: Days = np.full(number.shape, np.nan, dtype=np.float32)
    for k, year in enumerate(years):
        enough = number[k] >= needed
        rank = (owner != year).cumsum(axis=0, dtype=np.int32)
        larger, smaller = (
            np.take_along_axis(top, (rank >= wanted[k]).argmax(axis=0)[None], 0)[0][enough]
            for wanted in (first, second)
        )
        found[k, enough] = larger + (at - first)[k][enough] * (smaller - larger)
    return found


def _is_leap(year: npt.NDArray[np.integer]) -> npt.NDArray[np.bool_]:
    return np.asarray((year % 4 == 0) & ((year % 100 != 0) | (year % 400 == 0)))


def spells(
    days: pd.DatetimeIndex, beyond: Days, settings: Exceedance
) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
    """Where the percentile is exceeded for long enough, some days at a time.

    Args:
        days: of the values, ascending.
        beyond: as `exceeding` gives it, shape (day, latitude, longitude).
        settings: shortest spell.

    Yields:
        Number of the first day, and for it and the following ones 1, 0, or NaN where nobody knows;
        shape (n, latitude, longitude). A missing day, and an end of the archive, ends no spell that
        is long enough before it; of a shorter one it is not known whether it is one.
    """
    reach = settings.min_days - 1
    absent = np.diff(days.to_numpy("datetime64[D]")).astype(np.int64) - 1
    absent = np.r_[reach, absent.clip(max=reach), reach]  # before each day, and after the last
    for begin in range(0, len(days), DAYS_AT_ONCE):
        end = min(begin + DAYS_AT_ONCE, len(days))
        first, last = max(begin - reach, 0), min(end + reach, len(days))
        here = np.asarray(beyond[first:last])
        surely = _longest_runs(here == 1.0, absent[first : last + 1], over=False)
        maybe = _longest_runs(here != 0.0, absent[first : last + 1], over=True)
        event = (surely >= settings.min_days).astype(np.float32)
        event[(event == 0.0) & (maybe >= settings.min_days)] = np.nan
        event[np.isnan(here)] = np.nan
        yield begin, event[begin - first : end - first]


def _longest_runs(
    true: npt.NDArray[np.bool_], absent: npt.NDArray[np.int64], *, over: bool
) -> npt.NDArray[np.int32]:
    """How long the run is that holds each value, along axis 0; 0 where it is not true.

    Args:
        true: the values.
        absent: how many are missing before each, and after the last.
        over: whether runs go on over these, as if they were true.
    """
    before = _run_lengths(true, absent[:-1], over=over)
    after = _run_lengths(true[::-1], absent[:0:-1], over=over)[::-1]
    return np.asarray((before + after - 1).clip(min=0))


def _run_lengths(
    true: npt.NDArray[np.bool_], absent: npt.NDArray[np.int64], *, over: bool
) -> npt.NDArray[np.int32]:
    """How many values in a row are true up to each one."""
    length = np.zeros(true.shape, dtype=np.int32)
    earlier = np.zeros(true.shape[1:], dtype=np.int32)
    for k, missing in enumerate(absent):
        if missing:
            earlier = earlier + np.int32(missing) if over else np.zeros_like(earlier)
        length[k] = earlier = np.where(true[k], earlier + 1, 0)
    return length
