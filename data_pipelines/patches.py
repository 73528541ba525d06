"""Which patches to keep, and cutting them, also across the date line."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pandas as pd
from numpy.lib.stride_tricks import sliding_window_view

from data_pipelines.errors import InputError
from data_pipelines.groups import Grouping
from data_pipelines.labels import UNKNOWN
from data_pipelines.schema import GROUPS, SPLITS, Columns, FloatArray, IntArray, PatchGrid

DROPPED = ("background_not_sampled", "storm_in_another_split", "label_unknown")


@dataclass(frozen=True)
class Listing:
    """The patches to keep, listed for any run of time steps.

    Training keeps every incident and hard negative and the share `background_share` of the
    background; validation and test keep every position. Labelled patches whose `label_split` is
    0 (their storm belongs to another split) are left out.

    Attributes:
        labels: table of labelled patches: ``step, row, column, kind, incident_id, storms``.
        label_split: split of each of its rows.
        times: times of the fields.
        split: split of each time.
        grid: where patches lie.
        grouping: numbers the groups.
        background_share: in (0, 1].
        seed: with the time, decides the background that is kept.
    """

    labels: pd.DataFrame
    label_split: IntArray
    times: pd.DatetimeIndex
    split: IntArray
    grid: PatchGrid
    grouping: Grouping
    background_share: float
    seed: int

    def __post_init__(self) -> None:
        """Checks the share.

        Raises:
            InputError: the share is out of range.
        """
        if not 0 < self.background_share <= 1:
            raise InputError(
                "`patches.background_share` must be above 0 and at most 1, "
                f"got {self.background_share}."
            )

    @cached_property
    def _by_step(self) -> dict[int, IntArray]:
        order = np.argsort(self.labels["step"].to_numpy(), kind="stable")
        steps, begins = np.unique(self.labels["step"].to_numpy()[order], return_index=True)
        return dict(zip(map(int, steps), np.split(order, begins[1:]), strict=False))

    @cached_property
    def _kind(self) -> IntArray:
        return self.labels["kind"].to_numpy(dtype=np.int64)

    @cached_property
    def _cell(self) -> IntArray:
        row, column = (self.labels[k].to_numpy() for k in ("row", "column"))
        return np.asarray(row * self.grid.columns + column, dtype=np.int64)

    @property
    def label_group(self) -> IntArray:
        """Group of each row of `labels`."""
        kind = self.labels["kind"].to_numpy()
        return self._group(kind, self.labels["step"].to_numpy(), self._cell)

    def _group(self, kind: IntArray, step: IntArray, cell: IntArray) -> IntArray:
        row, column = np.divmod(cell, self.grid.columns)
        return self.grouping.code(
            kind,
            self.times[step],
            self.grid.centre_latitude()[row],
            self.grid.centre_longitude()[column],
        )

    def keep(self, step: int) -> tuple[npt.NDArray[np.bool_], IntArray, dict[str, int]]:
        """What is kept of one time step.

        Returns:
            Whether each cell is kept, row by row; the row of `labels` that it comes from, or -1;
            and counts of what was left out, by reason.
        """
        cells = self.grid.rows * self.grid.columns
        here = self._by_step.get(step, np.array([], dtype=np.int64))
        source = np.full(cells, -1)
        source[self._cell[here]] = here
        kept = np.ones(cells, dtype=bool)
        if self.split[step] == SPLITS.index("train"):
            key = int(self.times[step].timestamp()) % 2**63  # before 1970 it is negative
            kept = np.random.default_rng([self.seed, key]).random(cells) < self.background_share
            kept[self._cell[here]] = True
        unknown = self._kind[here] == UNKNOWN
        foreign = here[(self.label_split[here] == 0) & ~unknown]
        dropped = {
            "background_not_sampled": int(cells - kept.sum()),
            "storm_in_another_split": len(foreign),
            "label_unknown": int(unknown.sum()),
        }
        kept[self._cell[foreign]] = False
        kept[self._cell[here[unknown]]] = False
        return kept, source, dropped

    def count(self, step: int) -> int:
        """Number of patches that are kept of one time step."""
        return int(self.keep(step)[0].sum()) if self.split[step] > 0 else 0

    def of_steps(self, first: int, last: int) -> tuple[Columns, dict[str, int]]:
        """Lists the patches of the steps from `first` up to and without `last`.

        Returns:
            ``step``, ``cell`` (row * columns + column), ``source`` (row of `labels`, -1 for
            background), ``kind``, ``group`` and ``split`` of each patch, ordered by step and
            cell; and counts of what was left out, by reason.
        """
        found: dict[str, list[IntArray]] = {k: [] for k in ("step", "cell", "source")}
        dropped = dict.fromkeys(DROPPED, 0)
        for step in first + np.flatnonzero(self.split[first:last] > 0):
            kept, source, left = self.keep(int(step))
            cells = np.flatnonzero(kept)
            found["step"].append(np.full(len(cells), step))
            found["cell"].append(cells)
            found["source"].append(source[cells])
            dropped = {k: n + left[k] for k, n in dropped.items()}
        none = np.array([], dtype=np.int64)
        columns: Columns = {
            k: np.concatenate([none, *v]).astype(np.int32) for k, v in found.items()
        }
        kind = np.full(len(columns["step"]), GROUPS.index("background"), dtype=np.int8)
        labelled = columns["source"] >= 0
        kind[labelled] = self._kind[columns["source"][labelled]]
        group = self._group(kind.astype(np.int64), columns["step"], columns["cell"])
        columns |= {
            "kind": kind,
            "group": group.astype(np.int16),
            "split": self.split[columns["step"]].astype(np.int8),
        }
        return columns, dropped


def overlapping(
    samples: pd.DataFrame,
    chosen: IntArray,
    grid: PatchGrid,
    times: pd.DatetimeIndex,
    lags: Sequence[float] = (0.0,),
) -> npt.NDArray[np.bool_]:
    """True for the samples that hold a field value that one of the `chosen` ones holds.

    With lags a sample holds the fields of several times: two samples a lag apart share some.

    Args:
        samples: ``step, row, column``, ordered by step.
        chosen: positions of some of them.
        grid: where patches lie.
        times: times of the steps.
        lags: hours, zero or negative.
    """
    near = np.zeros(len(samples), dtype=bool)
    step, row, column = (samples[k].to_numpy() for k in ("step", "row", "column"))
    around = grid.columns if grid.is_global else 0
    apart = pd.to_timedelta(sorted({a - b for a in lags for b in lags}), unit="h")
    for i in chosen:
        for other in times.get_indexer(times[step[i]] + apart):
            if other < 0:
                continue
            first, last = np.searchsorted(step, [other, other + 1])
            if grid.whole:
                near[first:last] = True
                continue
            down = np.abs(row[first:last] - row[i]) * grid.stride
            east = np.abs(column[first:last] - column[i])
            if around:
                east = np.minimum(east, around - east)
            near[first:last] |= (down < grid.size) & (east * grid.stride < grid.size)
    return near


class Cutter:
    """Cuts patches from fields in memory, also across the date line.

    Args:
        fields: shape (time, variable, latitude, longitude).
        grid: where patches lie.
    """

    def __init__(self, fields: npt.NDArray[np.float32], grid: PatchGrid) -> None:
        self.grid = grid
        shape, stride = grid.shape, grid.stride
        self.whole = (fields.shape[-1] - shape[1]) // stride + 1  # columns that do not wrap
        self.windows = _windows(fields, shape, stride)
        if self.whole < grid.columns:
            ends = fields[..., self.whole * stride :], fields[..., : shape[1] - 1]
            self.wrapped = _windows(np.concatenate(ends, axis=-1), shape, stride)

    def cut(
        self,
        step: npt.NDArray[np.integer],
        cell: npt.NDArray[np.integer],
        out: npt.NDArray[np.float32],
    ) -> None:
        """Cuts patches.

        Args:
            step: of each patch, index into the time axis, shape (n,).
            cell: row * columns + column of each patch; neighbours in a row are cut together.
            out: takes the patches, shape (n, variable, height, width), row 0 in the north.
        """
        columns = self.grid.columns
        place = step.astype(np.int64) * (self.grid.rows * columns) + cell
        column = cell % columns
        new = np.diff(place, prepend=-2) != 1
        new |= (column == 0) | (column == self.whole)
        begins = np.flatnonzero(new)
        ends = np.append(begins, len(place))[1:]
        runs = (
            np.stack([begins, ends, step[begins], cell[begins]]).T.tolist() if len(begins) else []
        )
        for begin, end, at, first in runs:
            row, left = divmod(first, columns)
            windows = self.windows
            if left >= self.whole:
                windows, left = self.wrapped, left - self.whole
            some = windows[at, :, row, left : left + end - begin]
            out[begin:end] = some.transpose(1, 0, 2, 3)


def _windows(
    fields: npt.NDArray[np.float32], shape: tuple[int, int], stride: int
) -> npt.NDArray[np.float32]:
    return sliding_window_view(fields, shape, axis=(2, 3))[:, :, ::stride, ::stride]


def sample_coordinates(
    step: npt.NDArray[np.integer],
    cell: npt.NDArray[np.integer],
    times: pd.DatetimeIndex,
    grid: PatchGrid,
) -> dict[str, FloatArray | npt.NDArray[np.datetime64]]:
    """Time and centre of each sample: ``time``, ``latitude`` and ``longitude``."""
    rows, columns = np.divmod(cell, grid.columns)
    return {
        "time": times.to_numpy()[step],
        "latitude": grid.centre_latitude()[rows],
        "longitude": grid.centre_longitude()[columns],
    }
