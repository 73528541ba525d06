"""Daily fields stamped at the end of their day, which would have the entries of the next."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import xarray as xr

from data_pipelines.coordinates import time_dim
from data_pipelines.errors import InputError
from data_pipelines.opening import files_of, open_files

DAY = np.timedelta64(24, "h")


def refuse_late_stamps(paths: Sequence[str | Path]) -> None:
    """Refuses fields that `match_time: day` would match with the wrong day.

    Args:
        paths: files of fields; the bounds of time of the first one are looked at.

    Raises:
        InputError: they are means of days stamped outside of these.
    """
    files = files_of(paths)[:1]
    if not files or (isinstance(files[0], Path) and not files[0].exists()):
        return
    try:
        dataset, _ = open_files(files)
    except InputError:  # left out and reported where all files are opened
        return
    with dataset:
        late = _late(dataset)
    if late is None:
        return
    stamp, begin, end, hours = late
    raise InputError(
        "`incidents.match_time: day` needs fields stamped within their day, got "
        f"{stamp} for the mean of {begin} to {end} (the bounds of time in {files[0]}): entries "
        "would label the fields of the day before theirs. Put the times right in the files, "
        f"`dataset['time'] = dataset['time'] - np.timedelta64({hours}, 'h')`, or take `exact` if "
        "the entries have the same stamps."
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
