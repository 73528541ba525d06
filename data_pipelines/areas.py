"""Labels patches by the share of their area that an incident covers; joins them to incidents."""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from data_pipelines.labels import UNKNOWN, PatchLabels, storm_sets
from data_pipelines.schema import GROUPS, FloatArray, IntArray, PatchGrid

BRIDGE = pd.Timedelta(days=3)  # steps apart within which an incident goes on over a hole
NEAR_MISS = 0.5  # a hard negative has at least this part of the share of an incident
TRACE = 1e-9  # shares are exact to rounding only: at least means within this
Events = Iterable[tuple[IntArray, npt.NDArray[np.float32]]]


def patch_shares(event: npt.NDArray[np.float32], grid: PatchGrid) -> tuple[FloatArray, FloatArray]:
    """Share of the area of each patch that an incident covers, at least and at most.

    Args:
        event: 1 where it is, 0 where not, NaN where nobody knows; shape (n, latitude, longitude).
        grid: where patches lie.

    Returns:
        Each shape (n, rows, columns): without any of the points that nobody knows, and with all.
    """
    area = np.cos(np.deg2rad(grid.latitude)).clip(0.0)[:, None]
    unknown = np.isnan(event)
    whole = _box_sums(np.broadcast_to(area, (1, *event.shape[1:])), grid)[..., :1]
    least = _box_sums(np.where(unknown, 0.0, event) * area, grid) / whole
    more = _box_sums(unknown * area, grid) / whole
    for shares in (least, more):
        shares[np.abs(shares) < TRACE] = 0.0
    return np.minimum(least, 1.0), np.minimum(least + more, 1.0)


def holed_patches(missing: npt.NDArray[np.bool_], grid: PatchGrid) -> npt.NDArray[np.bool_]:
    """Which patches hold a point that is missing, shape (n, rows, columns).

    Args:
        missing: shape (n, latitude, longitude).
        grid: where patches lie.
    """
    return _box_sums(missing, grid) > 0.5


def _box_sums(values: npt.NDArray[np.generic], grid: PatchGrid) -> FloatArray:
    """Sum over each patch, shape (n, rows, columns or as many as there are whole)."""
    height, width = grid.shape
    if grid.columns * grid.stride + width - grid.stride > values.shape[-1]:  # patches wrap
        values = np.concatenate([values, values[..., : width - 1]], axis=-1)
    sums = np.pad(values.astype(float), ((0, 0), (1, 0), (1, 0))).cumsum(1).cumsum(2)
    step = grid.stride
    top, left = sums[:, : sums.shape[1] - height : step], slice(0, sums.shape[2] - width, step)
    down = sums[:, height::step]
    right = slice(width, None, step)
    found = down[..., right] - down[..., left] - top[..., right] + top[..., left]
    return np.asarray(found[:, : grid.rows, : grid.columns])


def label_from_areas(
    events: Events, times: pd.DatetimeIndex, grid: PatchGrid, min_share: float
) -> PatchLabels:
    """Labels the patches of a grid at the given times.

    A patch is an *incident* when at least `min_share` of its area is covered, a *hard negative*
    from NEAR_MISS of that on, and unknown where that depends on points that nobody knows. Incident
    patches that touch each other, in space or from one labelled time step to the next, belong to
    one incident, which no split may cut.

    Args:
        events: runs of steps, and where incidents are at each: shape (n, latitude, longitude);
            1, 0 or NaN as in `patch_shares`. Steps that do not come are unlabelled.
        times: times of the fields.
        grid: where patches lie.
        min_share: smallest share of an incident.
    """
    parts = []
    limits = np.array([NEAR_MISS * min_share, min_share]) - TRACE  # of GROUPS, from the second on
    unlabelled = np.ones(len(times), dtype=bool)
    for steps, event in events:
        least, most = (
            np.searchsorted(limits, shares, side="right") for shares in patch_shares(event, grid)
        )
        kinds = np.where(least == most, least, UNKNOWN)
        blank = (kinds == UNKNOWN).all(axis=(1, 2))
        unlabelled[steps[~blank]] = False
        kinds[blank] = GROUPS.index("background")
        at, row, column = np.nonzero(kinds)
        kind = kinds[at, row, column]
        parts.append(pd.DataFrame({"step": steps[at], "row": row, "column": column, "kind": kind}))
    columns = ["step", "row", "column", "kind"]
    table = pd.concat(parts) if parts else pd.DataFrame(columns=columns, dtype=np.int64)
    table = table.sort_values(columns[:3], ignore_index=True)
    table["incident_id"] = ""
    incident = table["kind"] == GROUPS.index("incident")
    # Neighbours in time are neighbours among the labelled steps: masks may be coarser than fields.
    labelled = np.flatnonzero(~unlabelled)
    among = table[incident].assign(step=np.searchsorted(labelled, table["step"][incident]))
    table.loc[incident, "incident_id"] = join_patches(among, times[labelled], grid)
    table["storms"] = storm_sets(table["incident_id"])
    unused = {
        "times_without_label": int(unlabelled.sum()),
        "patches_without_label": int((table["kind"] == UNKNOWN).sum()),
    }
    return PatchLabels(table, unused, unlabelled)


def join_patches(table: pd.DataFrame, times: pd.DatetimeIndex, grid: PatchGrid) -> list[str]:
    """Name of the incident that each patch belongs to: those that touch belong together.

    Args:
        table: ``step, row, column`` of patches, each once.
        times: of the steps, those with labels. Steps further apart than usual, and than BRIDGE, do
            not touch: a file that is missing must not cut an incident in two, one half for each
            split.
        grid: where patches lie.
    """
    if table.empty:
        return []
    gaps = np.diff(times.to_numpy("datetime64[ns]")).astype(np.int64)
    reach = max(1.5 * float(np.median(gaps)), BRIDGE.value) if len(gaps) else 0.0
    follows = np.r_[gaps <= reach, False]
    step, row, column = (table[k].to_numpy(dtype=np.int64) for k in ("step", "row", "column"))
    key = (step * grid.rows + row) * grid.columns + column
    order = np.argsort(key)
    ordered = key[order]
    wraps = grid.is_global and not grid.whole
    first, second = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for later in (0, 1):
        for down in (-1, 0, 1):
            for east in (-1, 0, 1):
                r, c = row + down, column + east
                there = (r >= 0) & (r < grid.rows) & (follows[step] | (later == 0))
                if wraps:
                    c = c % grid.columns
                there &= (c >= 0) & (c < grid.columns)
                wanted = ((step + later) * grid.rows + r) * grid.columns + c
                at = np.searchsorted(ordered, wanted).clip(max=len(key) - 1)
                there &= ordered[at] == wanted
                first.append(np.flatnonzero(there))
                second.append(order[at[there]])
    i, j = np.concatenate(first), np.concatenate(second)
    _, number = connected_components(
        coo_array((np.ones(len(i), dtype=bool), (i, j)), shape=(len(key), len(key))), directed=False
    )
    begins = pd.Series(step).groupby(number).min()
    names = [f"{times[s]:%Y%m%dT%H}_{n}" for n, s in begins.items()]
    return [names[n] for n in number]
