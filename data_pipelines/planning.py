"""What a patch store will hold, decided before any field is read: labels, splits, listing."""

import logging
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

from data_pipelines.blocks import Job, plan_job
from data_pipelines.errors import InputError
from data_pipelines.fields import lag_hours
from data_pipelines.groups import Grouping
from data_pipelines.labelling import Labeller
from data_pipelines.labels import PatchLabels
from data_pipelines.patches import Listing
from data_pipelines.schema import GROUPS, SPLITS, Columns, IntArray, PatchGrid, duration_hours
from data_pipelines.settings import Patches, Splits
from data_pipelines.splits import separate_storms, split_times
from data_pipelines.target_set import assign_splits
from data_pipelines.writing import unfinished

log = logging.getLogger(__name__)
STEPS_AT_ONCE = 4096
INCIDENT = GROUPS.index("incident")


@dataclass(frozen=True)
class StorePlan:
    """A patch store that could be built.

    Attributes:
        fields: canonical fields, lazy.
        labels: of the patches.
        listing: which patches are kept.
    """

    fields: xr.DataArray
    labels: PatchLabels
    listing: Listing

    @property
    def lags(self) -> list[float]:
        """Lags of the fields, hours, ascending."""
        return sorted({lag_hours(str(lag)) for lag in self.fields["lag"].values})

    def job(self, path: Path) -> Job:
        """The work that builds it, for the store `path`."""
        return plan_job(self.fields, self.listing, unfinished(path))

    def patch_bytes(self, path: Path) -> int:
        """Bytes on disk of the patches of the store `path`: whole chunks."""
        job = self.job(path)
        layout, shape = job.layout, job.shape
        chunks = sum(-(-size // layout.chunk) for size in layout.sizes)
        return chunks * layout.chunk * int(np.prod(shape)) * 4

    @cached_property
    def samples(self) -> Columns:
        """All patches that are kept, as `Listing.of_steps` gives them."""
        runs = [
            self.listing.of_steps(first, min(first + STEPS_AT_ONCE, len(self.listing.times)))[0]
            for first in range(0, len(self.listing.times), STEPS_AT_ONCE)
        ]
        return {name: np.concatenate([run[name] for run in runs]) for name in runs[0]}

    def assigned(self, target_per_group: int) -> tuple[npt.NDArray[np.int8], dict[str, int]]:
        """Split of each of `samples`, if no value of the fields is missing; see `assign_splits`.

        Raises:
            InputError: a split is left without incidents, or the target set cannot be filled.
        """
        usable = np.ones(len(self.samples["step"]), dtype=bool)
        columns = self.samples | {"usable": usable}

        def gather(name: str, fill: int | bool) -> npt.NDArray[Any]:
            return columns[name]

        return assign_splits(gather, self.listing, target_per_group, self.lags)

    def counts(self, codes: npt.NDArray[np.int8]) -> dict[str, dict[str, int]]:
        """Samples of each group in each split that has some, by names."""
        return counts_of(codes, self.samples["group"], self.listing.grouping.names)

    def incidents(self, codes: npt.NDArray[np.int8]) -> dict[str, int]:
        """Number of different incidents in each split, by its name."""
        return {split: len(set(ids)) for split, (ids, _) in self._incident_samples(codes).items()}

    def incident_times(self, codes: npt.NDArray[np.int8]) -> dict[str, int]:
        """Number of times with an incident in each split, by its name."""
        return {
            split: len(set(steps.tolist()))
            for split, (_, steps) in self._incident_samples(codes).items()
        }

    def _incident_samples(
        self, codes: npt.NDArray[np.int8]
    ) -> dict[str, tuple[npt.NDArray[np.object_], IntArray]]:
        kind, source = self.samples["kind"], self.samples["source"]
        names = self.listing.labels["incident_id"].to_numpy(dtype=object)
        found = {}
        for code, split in enumerate(SPLITS):
            here = (codes == code) & (kind == INCIDENT)
            if code:
                found[split] = names[source[here]], self.samples["step"][here]
        return found


def plan_store(
    fields: xr.DataArray,
    labeller: Labeller,
    patches: Patches,
    splits: Splits,
    *,
    grouping: Grouping,
    seed: int = 0,
) -> StorePlan:
    """Labels the patches and lists those that are kept; reads no field but for some rules.

    Args:
        fields: canonical fields, as `open_fields` gives them.
        labeller: labels the patches, as `make_labeller` gives it.
        patches: how to cut.
        splits: how to split.
        grouping: numbers the groups.
        seed: of the background that is kept and of the target set.

    Raises:
        InputError: the patches do not fit, times do not overlap, or a split is empty.
    """
    times = pd.DatetimeIndex(fields.indexes["time"])
    grid = grid_of(fields, patches)
    _say_what_is_left_over(grid)
    split = time_split(times, splits, [str(lag) for lag in fields["lag"].values])
    between = [
        _with_corner(labeller(times, moved, split).table, moved)
        for moved in _grids_between(grid, patches)
    ]
    labels = labeller(times, grid, split)
    if labels.unlabelled.any():
        split = np.where(labels.unlabelled, 0, split)
    training = split == SPLITS.index("train")
    between = [
        table[training[table["step"].to_numpy()] & (table["kind"] == INCIDENT).to_numpy()]
        for table in between
    ]
    table = pd.concat([_with_corner(labels.table, grid), *between], ignore_index=True)
    listing = Listing(
        table,
        separate_storms(table, split),
        times,
        split,
        grid,
        grouping,
        patches.background_share,
        seed,
    )
    return StorePlan(fields, labels, listing)


def grid_of(fields: xr.DataArray, patches: Patches) -> PatchGrid:
    """Where patches lie on canonical fields.

    Raises:
        InputError: they do not fit.
    """
    return PatchGrid(
        fields["latitude"].to_numpy().astype(float),
        fields["longitude"].to_numpy().astype(float),
        patches.size,
        patches.stride,
        patches.whole_field,
    )


def _say_what_is_left_over(grid: PatchGrid) -> None:
    """Warns where patches do not go evenly around the globe."""
    around = len(grid.longitude)
    left = 0 if grid.whole or not grid.is_global else around % grid.stride
    if not left:
        return
    fits = int(np.gcd(around, 2 ** int(np.log2(grid.stride))))  # networks pool by powers of two
    first, last = grid.longitude[0] + grid.dlon * (grid.margin + np.array([-left, -1.0]))
    log.warning(
        "patches every %d points leave %d of %d columns of a global grid, %.4g to %.4g E, in no "
        "central cell: incidents there count for nobody. %s would leave none.",
        grid.stride, left, around, first % 360.0, last % 360.0,
        f"A `patches.stride` that divides {around}, with another size,"
        if (grid.size - fits) % 2 else f"`patches.stride: {fits}`",
    )  # fmt: skip


def _with_corner(table: pd.DataFrame, grid: PatchGrid) -> pd.DataFrame:
    corner = grid.corner(table["row"].to_numpy(), table["column"].to_numpy())
    return table.drop(columns=["row", "column"]).assign(corner=corner)


def _grids_between(grid: PatchGrid, patches: Patches) -> list[PatchGrid]:
    """The same grid begun at every other multiple of `incident_stride` below the stride."""
    if grid.whole or not patches.incident_stride:
        return []
    starts = range(0, patches.stride, patches.incident_stride)
    moved = [replace(grid, first=(south, east)) for south in starts for east in starts]
    return [g for g in moved[1:] if g.rows > 0 and g.columns > 0]


def counts_of(
    codes: npt.NDArray[np.integer], group: npt.NDArray[np.integer], names: tuple[str, ...]
) -> dict[str, dict[str, int]]:
    """Samples of each group in each split that has some, by names.

    Args:
        codes: split of each sample, index into ``SPLITS``.
        group: of each sample.
        names: of the groups.
    """
    return {
        split: {name: int(((codes == code) & (group == k)).sum()) for k, name in enumerate(names)}
        for code, split in enumerate(SPLITS)
        if code and (codes == code).any()
    }


def time_split(times: pd.DatetimeIndex, splits: Splits, lags: list[str]) -> IntArray:
    """Split of each time step; refuses a gap that lets lagged inputs reach across it."""
    hours = duration_hours(splits.gap)
    if not hours >= 0:
        raise InputError(f"`splits.gap` must be a duration such as 2d or 36h, got `{splits.gap}`.")
    gap = pd.Timedelta(hours=hours)
    reach = pd.Timedelta(hours=-min(lag_hours(lag) for lag in lags))
    if gap < reach:
        raise InputError(
            f"`splits.gap` must be at least the largest lag, got {splits.gap} for lags "
            f"{', '.join(dict.fromkeys(lags))}. "
            "Otherwise one split sees the fields of another."
        )
    periods = {"train": splits.train, "validation": splits.validation, "test": splits.test}
    return split_times(times, periods, gap, splits.fractions)
