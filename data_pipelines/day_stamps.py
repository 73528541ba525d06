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
    fields: Sequence[str | Path],
    labels: Sequence[str | Path] = (),
    by_day: str = "`incidents.match_time: day`",
) -> None:
    """Refuses fields and labels that would be matched a day apart.

    Args:
        fields: their files.
        labels: gridded ones; none for a catalogue or text, which has the days as they are.
        by_day: the setting that matches them by day, for the error.

    Raises:
        InputError: the bounds of time say that either are means of days stamped outside of these,
            and the others are not.
    """
    late, of_labels = _first_late(fields), _first_late(labels)
    if (late is None) == (of_labels is None):
        return
    told = late or of_labels
    assert told is not None
    file, stamp, begin, end, hours = told
    raise InputError(
        f"{by_day} needs days stamped within themselves, got {stamp} for the mean of {begin} to "
        f"{end} (the bounds of time in {file}): fields and labels would be a day apart. Put the "
        f"times right in the files, `dataset['time'] = dataset['time'] - np.timedelta64({hours}, "
        "'h')`" + (", or take `exact` if both are stamped so." if "match_time" in by_day else ".")
    )


def _first_late(paths: Sequence[str | Path]) -> tuple[Path | str, str, str, str, int] | None:
    """The first file with late stamps, with what `_late` tells; of many, some are looked at."""
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
            if late := _late(dataset):
                return file, *late
    return None


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
