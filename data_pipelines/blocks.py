"""One part of a patch store from fields: read once, checked, summed, cut, written."""

import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import numpy.typing as npt
import xarray as xr
from dask.base import compute
from dask.delayed import delayed

from data_pipelines.parts import Layout, PartWriter, chunk_samples
from data_pipelines.patches import Cutter, Listing
from data_pipelines.quality import READ_ERRORS, UNREADABLE, Finding, check_block
from data_pipelines.schema import SPLITS, Columns
from data_pipelines.statistics import block_sums

log = logging.getLogger(__name__)
Take = Callable[..., dict[str, Any]]
Wanted = list[tuple[int, int]]  # number of a chunk, and its first time step
Work = Callable[[Take, da.Array, Wanted], list[dict[str, Any]]]
PART_CHUNKS = 16  # a part fills about as many chunks of samples, so that little is filled up


@dataclass(frozen=True)
class Job:
    """All that is needed to build any part.

    Attributes:
        fields: canonical fields, lazy.
        listing: which patches to keep.
        folder: of the unfinished store.
        bounds: first and last + 1 step of each part: whole chunks of the fields.
        layout: where the samples of each part lie.
    """

    fields: xr.DataArray
    listing: Listing
    folder: Path
    bounds: list[tuple[int, int]]
    layout: Layout

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of a patch: variables, points from north to south, points from west to east."""
        return self.fields.sizes["variable"], *self.listing.grid.shape


def plan_job(fields: xr.DataArray, listing: Listing, folder: Path) -> Job:
    """Divides the work into parts of about PART_CHUNKS chunks of samples.

    Args:
        fields: canonical fields, lazy.
        listing: which patches to keep.
        folder: of the unfinished store.
    """
    chunk = chunk_samples(fields.sizes["variable"] * int(np.prod(listing.grid.shape)) * 4)
    bounds: list[tuple[int, int]] = []
    sizes: list[int] = []
    begun = last = samples = 0
    for steps in fields.chunksizes["time"]:
        samples += sum(listing.count(step) for step in range(last, last + steps))
        last += steps
        if samples >= PART_CHUNKS * chunk or last == fields.sizes["time"]:
            bounds.append((begun, last))
            sizes.append(samples)
            begun, samples = last, 0
    return Job(fields, listing, folder, bounds, Layout(tuple(sizes), chunk))


def build_part(job: Job, number: int) -> None:
    """Builds and writes one part of the store: its fields are read once.

    Where reading fails, the chunks of the part are read again one by one, and what fails then too
    is reported, its samples cannot be used, and a later run tries the part again.
    """
    try:
        _build_part(job, number, _all_at_once)
    except READ_ERRORS as error:
        log.warning("part %d: %s: %s; reading it again", number, type(error).__name__, error)
        _build_part(job, number, _one_by_one)


def _build_part(job: Job, number: int, work: Work) -> None:
    first, last = job.bounds[number]
    columns, dropped = job.listing.of_steps(first, last)
    columns["usable"] = np.ones(len(columns["step"]), dtype=bool)
    part = PartWriter(job.folder, number, job.layout, job.shape, "float32")
    data = job.fields.isel(time=slice(first, last)).data
    if data.numblocks[1:] != (1, 1, 1):
        data = data.rechunk({1: -1, 2: -1, 3: -1})
    edges = first + np.r_[0, np.cumsum(data.chunks[0])]
    # Outside all splits a chunk is not even read.
    wanted = [
        (k, int(a))
        for k, (a, b) in enumerate(pairwise(edges))
        if (job.listing.split[a:b] > 0).any()
    ]
    blocks = work(partial(_take_block, job, part, columns), data, wanted)
    unreadable = any(f["problem"] == UNREADABLE for b in blocks for f in b["findings"])
    part.finish(columns, {"dropped": dropped, "blocks": blocks, "unreadable": unreadable})


def _all_at_once(take: Take, data: da.Array, wanted: Wanted) -> list[dict[str, Any]]:
    """In one graph, so that what lags share is read once."""
    # Bound, not given: Dask would look through its arguments and compute all fields of the job.
    bound = delayed(take, pure=False)
    # Each waits for the one before, so that samples come in order and blocks do not pile up.
    tasks: list[Any] = []
    chunks = data.to_delayed().ravel()
    for k, begun in wanted:
        tasks.append(bound(begun, chunks[k], tasks[-1] if tasks else None))
    # In this thread: the parts are what runs side by side.
    return list(compute(*tasks, scheduler="synchronous"))


def _one_by_one(take: Take, data: da.Array, wanted: Wanted) -> list[dict[str, Any]]:
    """Each by itself; what cannot be read is missing."""
    taken = []
    for k, begun in wanted:
        readable, block = True, data.blocks[k]
        try:
            values = block.compute(scheduler="synchronous")
        except READ_ERRORS:
            readable, values = False, np.full(block.shape, np.nan, dtype=np.float32)
        taken.append(take(begun, values, None, readable=readable))
    return taken


def _take_block(
    job: Job,
    part: PartWriter,
    columns: Columns,
    begun: int,
    block: npt.NDArray[np.float32],
    before: dict[str, Any] | None,
    *,
    readable: bool = True,
) -> dict[str, Any]:
    """Checks and sums a chunk of fields, and cuts its patches into the part."""
    last = begun + len(block)
    a, b = np.searchsorted(columns["step"], [begun, last])
    times = job.listing.times[begun:last]
    if readable:
        block, findings = check_block(block, job.fields, times)
    else:
        ends = times[0].isoformat(), times[-1].isoformat()
        findings = [Finding("fields", UNREADABLE, block.size, *ends)]
    cutter = Cutter(block, job.listing.grid)
    while a < b:
        room = part.room(b - a)
        n = len(room)
        cutter.cut(columns["step"][a : a + n] - begun, columns["corner"][a : a + n], room)
        if findings:
            columns["usable"][a : a + n] = np.isfinite(room).all(axis=(1, 2, 3))
        part.taken(n)
        a += n
    training = job.listing.split[begun:last] == SPLITS.index("train")
    sums = block_sums(block[training], job.fields["latitude"].to_numpy())
    return {"sums": sums, "findings": [asdict(f) for f in findings]}
