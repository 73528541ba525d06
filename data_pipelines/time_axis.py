"""What is wrong along time: missing and repeated steps, preliminary analyses."""

import logging
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

from data_pipelines.errors import InputError
from data_pipelines.quality import READ_ERRORS, Finding

log = logging.getLogger(__name__)
COMPARED = 50  # repeated times that are compared even where they are most
COMPARED_BYTES = 2**30  # of the fields of others; beyond it, times spread over them
BLOCK_BYTES = 2**26  # of them in memory at once


def time_findings(
    dataset: xr.Dataset, variables: Sequence[str] = ()
) -> tuple[xr.Dataset, list[Finding]]:
    """What is wrong along time: missing and repeated steps, preliminary analyses.

    Args:
        dataset: with an ascending coordinate ``time``.
        variables: that count where copies of a time are compared; by default all.

    Returns:
        The dataset with the final version of a repeated time where ERA5 and ERA5T overlap, and
        with one copy where all are equal, as where files overlap; else without any, since nothing
        tells which is right; and the findings. A step is missing where the usual step fits in
        between.

    Raises:
        InputError: more than half of the times are repeated with other values.
    """
    dataset, found = without_copies(dataset, variables)
    times = pd.DatetimeIndex(dataset.indexes["time"])
    if len(times) > 2:
        steps = np.diff(times.to_numpy())
        usual = np.median(steps.astype(np.int64)).astype(steps.dtype)
        before = np.flatnonzero(steps >= 2 * usual)
        if len(before):
            lacking = int((steps[before] // usual - 1).sum())
            ends = times[before[0]] + usual, times[before[-1] + 1] - usual
            found.append(Finding("time", "missing", lacking, *(t.isoformat() for t in ends)))
    if "expver" in dataset.coords and dataset["expver"].dims == ("time",):
        if (preliminary := ~_is_final(dataset)).any():
            found.append(_of_times("expver", "preliminary", times[preliminary]))
    elif dataset.sizes.get("expver", 1) > 1:
        found.append(_of_times("expver", "mixed", times))
    return dataset, found


def without_copies(
    dataset: xr.Dataset, variables: Sequence[str] = (), *, even_most: bool = False
) -> tuple[xr.Dataset, list[Finding]]:
    """The part of `time_findings` that is about repeated times.

    Args:
        dataset: with an ascending coordinate ``time``.
        variables: that count where copies are compared; by default all.
        even_most: copies are compared also where most times have some.

    Raises:
        InputError: more than half of the times are repeated with other values.
    """
    found = []
    dataset, superseded = _final(dataset)
    if len(superseded):
        found.append(_of_times("expver", "mixed", superseded))
    dataset = _without_equal_copies(dataset, variables, even_most)
    times = pd.DatetimeIndex(dataset.indexes["time"])
    repeated = times.duplicated(keep=False)
    if repeated.sum() > len(times) / 2:
        raise InputError(
            f"`time` must not repeat, got {times[repeated][0]} and {int(repeated.sum()) - 1} more "
            "of more than half of all. Give each file once."
        )
    if repeated.any():
        found.append(_of_times("time", "repeated", times[repeated]))
        dataset = dataset.isel(time=np.flatnonzero(~repeated))
    return dataset, found


def joint_version(
    versions: Sequence[xr.DataArray], times: pd.DatetimeIndex
) -> npt.NDArray[np.str_]:
    """The version of ERA5 of all variables together: preliminary where one of them is.

    Args:
        versions: ``expver`` of each variable along its times.
        times: of all.
    """
    preliminary = np.zeros(len(times), dtype=bool)
    for version in versions:
        early = version.to_dataset(name="version").assign_coords(expver=version)
        preliminary |= times.isin(version.indexes["time"][~_is_final(early)])
    return np.where(preliminary, "0005", "0001")


def _is_final(dataset: xr.Dataset) -> npt.NDArray[np.bool_]:
    """Which times are of ERA5's final version 1; others are of ERA5T."""
    version = pd.to_numeric(pd.Series(dataset["expver"].astype(str).values), errors="coerce")
    return (version == 1).to_numpy()


def _final(dataset: xr.Dataset) -> tuple[xr.Dataset, pd.DatetimeIndex]:
    """Of copies of a time those of the final version, and the times of the others."""
    times = pd.DatetimeIndex(dataset.indexes["time"])
    if "expver" not in dataset.coords or dataset["expver"].dims != ("time",):
        return dataset, times[:0]
    final = _is_final(dataset)
    superseded = ~final & times.isin(times[final])
    if not superseded.any():
        return dataset, times[:0]
    return dataset.isel(time=np.flatnonzero(~superseded)), times[superseded]


def _without_equal_copies(
    dataset: xr.Dataset, variables: Sequence[str], even_most: bool
) -> xr.Dataset:
    """Leaves one of the copies of a time that are equal, unless most of all times are repeated."""
    times = pd.DatetimeIndex(dataset.indexes["time"])
    later = np.flatnonzero(times.duplicated())
    most = times.duplicated(keep=False).sum() > len(times) / 2
    if not len(later) or (most and len(later) > COMPARED and not even_most):
        return dataset
    first = times.searchsorted(times[later])
    part = dataset[list(variables)] if variables else dataset
    number = max(COMPARED, int(COMPARED_BYTES * len(times) / max(2 * part.nbytes, 1)))
    looked = np.arange(len(later))
    if len(later) > number:
        looked = np.linspace(0, len(later) - 1, number).round().astype(int)
    log.info("comparing %d of %d times that are repeated", len(looked), len(later))
    equal = np.zeros(len(later), dtype=bool)
    equal[looked] = _equal(part, first[looked], later[looked])
    if equal[looked].all():
        equal[:] = True  # so are those in between
    surplus = later[equal & ~np.isin(first, first[~equal])]  # all copies of the time are equal
    if len(surplus):
        log.info("%d times stand in the fields several times, with equal values", len(surplus))
    return dataset.isel(time=np.setdiff1d(np.arange(len(times)), surplus))


def _equal(
    dataset: xr.Dataset, ours: npt.NDArray[np.integer], theirs: npt.NDArray[np.integer]
) -> npt.NDArray[np.bool_]:
    """Which steps have the same values, NaN included; one that cannot be read has not."""
    most = max(1, BLOCK_BYTES * dataset.sizes["time"] // max(dataset.nbytes, 1))
    if len(ours) > most:
        parts = [slice(k, k + most) for k in range(0, len(ours), most)]
        return np.concatenate([_equal(dataset, ours[p], theirs[p]) for p in parts])
    try:
        mine, other = (dataset.isel(time=k).load() for k in (ours, theirs))
    except READ_ERRORS:
        if len(ours) == 1:
            return np.zeros(1, dtype=bool)
        return np.concatenate(
            [_equal(dataset, ours[k : k + 1], theirs[k : k + 1]) for k in range(len(ours))]
        )
    same = np.ones(len(ours), dtype=bool)
    for name, values in mine.reset_coords().variables.items():
        if "time" in values.dims and name != "time":
            a, b = (v.transpose("time", ...).to_numpy() for v in (values, other.variables[name]))
            alike = (a == b) | (pd.isna(a) & pd.isna(b))
            same &= alike.reshape(len(ours), -1).all(axis=1)
    return same


def _of_times(variable: str, problem: str, times: pd.DatetimeIndex) -> Finding:
    return Finding(variable, problem, len(times), times[0].isoformat(), times[-1].isoformat())
