"""Which patches to cut, and cutting them: lazily, and across the date line."""

from itertools import pairwise

import dask.array as da
import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr
from dask.delayed import delayed

from data_pipelines.errors import InputError
from data_pipelines.schema import GROUPS, SPLITS, FloatArray, IntArray, PatchGrid


def list_samples(
    labels: pd.DataFrame,
    label_split: IntArray,
    times: pd.DatetimeIndex,
    split: IntArray,
    grid: PatchGrid,
    *,
    background_share: float,
    seed: int,
) -> tuple[pd.DataFrame, dict[str, int]]:
    """Lists the patches to keep, time by time.

    Training keeps every incident and hard negative and the share `background_share` of the
    background; validation and test keep every position. Labelled patches whose `label_split` is
    0 (their storm belongs to another split) are left out.

    Args:
        labels: table of labelled patches.
        label_split: split of each of its rows.
        times: times of the fields.
        split: split of each time.
        grid: where patches lie.
        background_share: in (0, 1].
        seed: with the time, decides the background that is kept.

    Returns:
        Table with ``step, row, column, group, incident_id, storms, split`` ordered by step, and
        counts of what was left out, by reason.
    """
    if not 0 < background_share <= 1:
        raise InputError(
            f"`patches.background_share` must be above 0 and at most 1, got {background_share}."
        )
    dropped = {"background_not_sampled": 0, "storm_in_another_split": 0}
    by_step = labels.groupby("step").indices
    train = SPLITS.index("train")
    n = grid.rows * grid.columns
    row, column = labels["row"].to_numpy(), labels["column"].to_numpy()
    flat = row * grid.columns + column
    seconds = times.to_numpy().astype("datetime64[s]").astype(np.int64)
    parts = []
    for step in np.flatnonzero(split > 0):
        here = by_step.get(int(step), np.array([], dtype=np.int64))
        source = np.full(n, -1)
        source[flat[here]] = here
        keep = np.ones(n, dtype=bool)
        if split[step] == train:
            key = int(seconds[step])
            keep = np.random.default_rng([seed, key]).random(n) < background_share
            keep[flat[here]] = True
        foreign = here[label_split[here] == 0]
        dropped["background_not_sampled"] += int(n - keep.sum())
        dropped["storm_in_another_split"] += len(foreign)
        keep[flat[foreign]] = False
        kept = np.flatnonzero(keep)
        parts.append(pd.DataFrame({"step": step, "cell": kept, "source": source[kept]}))
    samples = pd.concat(parts, ignore_index=True)
    samples["row"], samples["column"] = np.divmod(samples.pop("cell"), grid.columns)
    samples["split"] = split[samples["step"]]
    labelled = samples["source"] >= 0
    picked = labels.iloc[samples.loc[labelled, "source"]]
    samples["group"] = GROUPS.index("background")
    samples["incident_id"] = ""
    samples.loc[labelled, "group"] = picked["group"].to_numpy()
    samples.loc[labelled, "incident_id"] = picked["incident_id"].to_numpy()
    storms = np.full(len(samples), frozenset(), dtype=object)
    storms[labelled.to_numpy()] = picked["storms"].to_numpy()
    samples["storms"] = storms
    return samples.drop(columns="source"), dropped


def overlapping(samples: pd.DataFrame, chosen: IntArray, grid: PatchGrid) -> npt.NDArray[np.bool_]:
    """True for the samples that share a grid point and time with one of the `chosen` ones."""
    near = np.zeros(len(samples), dtype=bool)
    step, row, column = (samples[k].to_numpy() for k in ("step", "row", "column"))
    around = grid.columns if grid.is_global else 0
    for i in chosen:
        first, last = np.searchsorted(step, [step[i], step[i] + 1])
        down = np.abs(row[first:last] - row[i]) * grid.stride
        east = np.abs(column[first:last] - column[i])
        if around:
            east = np.minimum(east, around - east)
        near[first:last] |= (down < grid.size) & (east * grid.stride < grid.size)
    return near


def cut(
    fields: npt.NDArray[np.float32],
    row: IntArray,
    column: IntArray,
    step: IntArray,
    grid: PatchGrid,
) -> npt.NDArray[np.float32]:
    """Cuts patches from fields in memory.

    Args:
        fields: shape (time, variable, latitude, longitude).
        row: row of each patch, shape (n,).
        column: column of each patch.
        step: index into the first axis of `fields`.
        grid: where patches lie.

    Returns:
        float32, shape (n, variable, size, size), row 0 in the north.
    """
    offsets = np.arange(grid.size)
    y = row[:, None] * grid.stride + offsets
    x = (column[:, None] * grid.stride + offsets) % fields.shape[-1]
    picked = fields[step[:, None, None], :, y[:, :, None], x[:, None, :]]
    return np.ascontiguousarray(np.moveaxis(picked, -1, 1), dtype=np.float32)


def cut_patches(fields: xr.DataArray, samples: pd.DataFrame, grid: PatchGrid) -> da.Array:
    """Cuts the listed patches lazily: each chunk of fields is read once.

    Args:
        fields: dims ``(time, variable, latitude, longitude)``, dask-backed.
        samples: ordered by ``step``.
        grid: where patches lie.

    Returns:
        float32, shape (samples, variable, size, size); its shape is known before anything is
        computed, and its chunks follow those of `fields` along time.
    """
    array = fields.data
    if array.numblocks[1:] != (1, 1, 1):
        array = array.rechunk({1: -1, 2: -1, 3: -1})
    steps = samples["step"].to_numpy()
    rows, columns = samples["row"].to_numpy(), samples["column"].to_numpy()
    edges = np.r_[0, np.cumsum(array.chunks[0])]
    shape = (fields.sizes["variable"], grid.size, grid.size)
    meta = np.empty((0, *shape), dtype=np.float32)
    parts: list[da.Array] = []
    for first, last in pairwise(edges):
        a, b = np.searchsorted(steps, [first, last])
        if a == b:
            continue
        block = array[first:last].to_delayed().ravel()[0]
        piece = delayed(cut, pure=True)(block, rows[a:b], columns[a:b], steps[a:b] - first, grid)
        parts.append(da.from_delayed(piece, (b - a, *shape), np.float32, meta=meta))
    joined: da.Array = da.concatenate(parts, axis=0)
    return joined


def sample_coordinates(
    samples: pd.DataFrame, times: pd.DatetimeIndex, grid: PatchGrid
) -> dict[str, FloatArray | npt.NDArray[np.datetime64]]:
    """Time and centre of each sample: ``time``, ``latitude`` and ``longitude``."""
    return {
        "time": times.to_numpy()[samples["step"]],
        "latitude": grid.centre_latitude()[samples["row"]],
        "longitude": grid.centre_longitude()[samples["column"]],
    }


def count_groups(samples: pd.DataFrame) -> dict[str, dict[str, int]]:
    """Number of samples of each group in each split."""
    counts = {}
    for code, name in enumerate(SPLITS):
        groups = samples.loc[samples["split"] == code, "group"]
        if len(groups):
            counts[name] = {group: int((groups == k).sum()) for k, group in enumerate(GROUPS)}
    return counts
