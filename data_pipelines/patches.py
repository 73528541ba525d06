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
        labels: table of labelled patches: ``step, corner, kind, incident_id, storms``; those that
            lie between the positions of the grid come beside them.
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
    def _corner(self) -> IntArray:
        return self.labels["corner"].to_numpy(dtype=np.int64)

    @cached_property
    def _positions(self) -> IntArray:
        """Corner of each patch of the grid, ascending."""
        row, column = np.indices((self.grid.rows, self.grid.columns)).reshape(2, -1)
        return self.grid.corner(row, column)

    @cached_property
    def _position(self) -> IntArray:
        """Which of `_positions` each row of `labels` is, or -1."""
        at = np.searchsorted(self._positions, self._corner).clip(max=len(self._positions) - 1)
        return np.where(self._positions[at] == self._corner, at, -1)

    @property
    def label_group(self) -> IntArray:
        """Group of each row of `labels`."""
        kind = self.labels["kind"].to_numpy()
        return self._group(kind, self.labels["step"].to_numpy(), self._corner)

    def _group(self, kind: IntArray, step: IntArray, corner: IntArray) -> IntArray:
        return self.grouping.code(kind, self.times[step], *self.grid.centre(corner))

    def keep(self, step: int) -> tuple[IntArray, IntArray, dict[str, int]]:
        """What is kept of one time step.

        Returns:
            Corner of each patch that is kept: those of the grid row by row, then those between;
            the row of `labels` that it comes from, or -1; and counts of what was left out, by
            reason.
        """
        here = self._by_step.get(step, np.array([], dtype=np.int64))
        unknown = self._kind[here] == UNKNOWN
        foreign = (self.label_split[here] == 0) & ~unknown
        on_grid = self._position[here] >= 0
        source = np.full(len(self._positions), -1)
        source[self._position[here[on_grid]]] = here[on_grid]
        kept = np.ones(len(source), dtype=bool)
        if self.split[step] == SPLITS.index("train"):
            key = int(self.times[step].timestamp()) % 2**63  # before 1970 it is negative
            draws = np.random.default_rng([self.seed, key]).random(len(source))
            kept = (draws < self.background_share) | (source >= 0)
        dropped = {
            "background_not_sampled": int(len(kept) - kept.sum()),
            "storm_in_another_split": int(foreign.sum()),
            "label_unknown": int(unknown.sum()),
        }
        kept[self._position[here[on_grid & (foreign | unknown)]]] = False
        between = here[~on_grid & ~foreign & ~unknown]
        corners = np.concatenate([self._positions[kept], self._corner[between]])
        return corners, np.concatenate([source[kept], between]), dropped

    def count(self, step: int) -> int:
        """Number of patches that are kept of one time step."""
        return len(self.keep(step)[0]) if self.split[step] > 0 else 0

    def of_steps(self, first: int, last: int) -> tuple[Columns, dict[str, int]]:
        """Lists the patches of the steps from `first` up to and without `last`.

        Returns:
            ``step``, ``corner``, ``source`` (row of `labels`, -1 for background), ``kind``,
            ``group`` and ``split`` of each patch, ordered by step and as `keep` gives them; and
            counts of what was left out, by reason.
        """
        found: dict[str, list[IntArray]] = {k: [] for k in ("step", "corner", "source")}
        dropped = dict.fromkeys(DROPPED, 0)
        for step in first + np.flatnonzero(self.split[first:last] > 0):
            corners, source, left = self.keep(int(step))
            found["step"].append(np.full(len(corners), step))
            found["corner"].append(corners)
            found["source"].append(source)
            dropped = {k: n + left[k] for k, n in dropped.items()}
        none = np.array([], dtype=np.int64)
        columns: Columns = {
            k: np.concatenate([none, *v]).astype(np.int32) for k, v in found.items()
        }
        kind = np.full(len(columns["step"]), GROUPS.index("background"), dtype=np.int8)
        labelled = columns["source"] >= 0
        kind[labelled] = self._kind[columns["source"][labelled]]
        group = self._group(kind.astype(np.int64), columns["step"], columns["corner"])
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
        samples: ``step, corner``, ordered by step.
        chosen: positions of some of them.
        grid: where patches lie.
        times: times of the steps.
        lags: hours, zero or negative.
    """
    near = np.zeros(len(samples), dtype=bool)
    step = samples["step"].to_numpy()
    top, left = grid.top_left(samples["corner"].to_numpy())
    apart = pd.to_timedelta(sorted({a - b for a in lags for b in lags}), unit="h")
    for i in chosen:
        for other in times.get_indexer(times[step[i]] + apart):
            if other < 0:
                continue
            first, last = np.searchsorted(step, [other, other + 1])
            if grid.whole:
                near[first:last] = True
                continue
            down = np.abs(top[first:last] - top[i])
            east = np.abs(left[first:last] - left[i])
            if grid.is_global:
                east = np.minimum(east, len(grid.longitude) - east)
            near[first:last] |= (down < grid.size) & (east < grid.size)
    return near


class Cutter:
    """Cuts patches from fields in memory, also across the date line.

    Args:
        fields: shape (time, variable, latitude, longitude).
        grid: where patches lie.
    """

    def __init__(self, fields: npt.NDArray[np.float32], grid: PatchGrid) -> None:
        self.grid = grid
        width = grid.shape[1]
        self.whole = fields.shape[-1] - width + 1  # from there on they wrap
        self.windows = sliding_window_view(fields, grid.shape, axis=(2, 3))
        if grid.is_global and not grid.whole:
            ends = np.concatenate([fields[..., self.whole :], fields[..., : width - 1]], axis=-1)
            self.wrapped = sliding_window_view(ends, grid.shape, axis=(2, 3))

    def cut(
        self,
        step: npt.NDArray[np.integer],
        corner: npt.NDArray[np.integer],
        out: npt.NDArray[np.float32],
    ) -> None:
        """Cuts patches.

        Args:
            step: of each patch, index into the time axis, shape (n,).
            corner: of each patch; neighbours in a row are cut together.
            out: takes the patches, shape (n, variable, height, width), row 0 in the north.
        """
        if len(step) == 0:
            return
        stride = self.grid.stride
        top, left = self.grid.top_left(corner)
        wraps = left >= self.whole
        new = np.ones(len(step), dtype=bool)
        new[1:] = np.diff(left) != stride
        for same in (step, top, wraps):
            new[1:] |= same[1:] != same[:-1]
        begins = np.flatnonzero(new)
        ends = np.append(begins, len(step))[1:]
        runs = np.stack([begins, ends, step[begins], top[begins], left[begins]]).T.tolist()
        for begin, end, at, row, first in runs:
            windows = self.windows
            if first >= self.whole:
                windows, first = self.wrapped, first - self.whole
            some = windows[at, :, row, first : first + (end - begin - 1) * stride + 1 : stride]
            out[begin:end] = some.transpose(1, 0, 2, 3)


def sample_coordinates(
    step: npt.NDArray[np.integer],
    corner: npt.NDArray[np.integer],
    times: pd.DatetimeIndex,
    grid: PatchGrid,
) -> dict[str, FloatArray | npt.NDArray[np.datetime64]]:
    """Time and centre of each sample: ``time``, ``latitude`` and ``longitude``."""
    latitude, longitude = grid.centre(corner)
    return {"time": times.to_numpy()[step], "latitude": latitude, "longitude": longitude}
