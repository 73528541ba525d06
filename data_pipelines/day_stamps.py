"""Daily fields stamped at the end of their day, which would have the entries of the next."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import xarray as xr

from data_pipelines.coordinates import time_dim
from data_pipelines.errors import InputError
from data_pipelines.opening import files_of, open_files

AT_MOST = 20  # files looked at
DAY = np.timedelta64(24, "h")


def refuse_late_stamps(
    paths: Sequence[str | Path], by_day: str = "`incidents.match_time: day`"
) -> None:
    """Refuses what would be matched with the wrong day.

    Args:
        paths: files of fields or of labels; of many, the bounds of time of some are looked at.
        by_day: the setting that matches them by day, for the error.

    Raises:
        InputError: they are means of days stamped outside of these.
    """
    files = files_of(paths)
    some = np.unique(np.linspace(0, len(files) - 1, min(len(files), AT_MOST)).round().astype(int))
    for file in (files[k] for k in some):
        if isinstance(file, Path) and not file.exists():
            continue
        try:
            dataset, _ = open_files([file])
        except InputError:  # left out and reported where all files are opened
            continue
        with dataset:
            late = _late(dataset)
        if late is not None:
            stamp, begin, end, hours = late
            raise InputError(
                f"{by_day} needs days stamped within themselves, got {stamp} for the mean of "
                f"{begin} to {end} (the bounds of time in {file}): fields and labels would be a "
                "day apart. Put the times right in the files, `dataset['time'] = dataset['time'] - "
                f"np.timedelta64({hours}, 'h')`"
                + (", or take `exact` if both are stamped so." if "match_time" in by_day else ".")
            )


def _late(dataset: xr.Dataset) -> tuple[str, str, str, int] | None:
    """First stamp, its bounds, and the hours from the middle to it, if that is another day."""
    time = time_dim(dataset)
    if time is None or time not in dataset.coords:
        return None
    bounds = dataset.variables.get(dataset[time].attrs.get("bounds", ""))
    if bounds is None or bounds.ndim != 2 or bounds.dims[0] != time or bounds.shape[1] != 2:
        return None
    stamps, (begin, end) = dataset[time].to_numpy(), bounds.to_numpy().T
    if any(v.dtype.kind != "M" for v in (stamps, begin)) or np.median(end - begin) != DAY:
        return None
    middle = begin + (end - begin) / 2
    if (stamps.astype("M8[D]") == middle.astype("M8[D]")).mean() > 0.5:
        return None
    shown = [np.datetime_as_string(v[0], unit="h") for v in (stamps, begin, end)]
    return shown[0], shown[1], shown[2], int((stamps[0] - middle[0]) / np.timedelta64(1, "h"))
