"""Found against true incidents, one to one."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import KDTree

from data_pipelines.following import HOUR, best_pairs
from data_pipelines.schema import FloatArray, great_circle_km

RADIUS_KM = 300.0
TOUCH = 1e-6  # of the cells; those that only touch do not overlap
Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Matching:
    """Found against true incidents.

    Attributes:
        found: index of the true incident of each found one, -1 for a false alarm.
        distance_km: to it, NaN for a false alarm.
        truths: number of true incidents.
    """

    found: Indices
    distance_km: FloatArray
    truths: int

    @property
    def hit(self) -> npt.NDArray[np.bool_]:
        """Whether each true incident has been found, shape (truths,)."""
        hit = np.zeros(self.truths, dtype=bool)
        hit[self.found[self.found >= 0]] = True
        return hit


def match_incidents(
    found: pd.DataFrame,
    truth: pd.DataFrame,
    radius_km: float = RADIUS_KM,
    tolerance_hours: float = 0.0,
) -> Matching:
    """Matches found and true incidents near each other in space and time, one to one.

    The assignment has the most pairs within `radius_km` and `tolerance_hours`, and among those the
    least sum of distances, where `tolerance_hours` apart counts as much as `radius_km` apart. Areas
    (both with ``extent``, see `candidates.find_regions`) are near where they overlap.

    Args:
        found: ``time, latitude, longitude``.
        truth: the same; with ``places`` (latitudes and longitudes, shape (n, 2) a row) it is at
            any of them, as a storm is in the course of a day.
        radius_km: largest distance of a pair of positions.
        tolerance_hours: largest difference in time of a pair.
    """
    partner = np.full(len(found), -1)
    distance = np.full(len(found), np.nan)
    a, b, km, cost = _feasible(found, truth, radius_km, tolerance_hours)
    # Pairs that share neither a found nor a true incident with others can be decided apart.
    n = len(found) + len(truth)
    joined = coo_array((np.ones(len(a)), (a, len(found) + b)), shape=(n, n))
    part = connected_components(joined, directed=False)[1][a]
    ends = np.flatnonzero(np.diff(np.sort(part))) + 1
    for of_part in np.split(np.argsort(part, kind="stable"), ends):
        rows, i = np.unique(a[of_part], return_inverse=True)
        columns, j = np.unique(b[of_part], return_inverse=True)
        costs = np.full((len(rows), len(columns)), np.inf)
        kms = np.full(costs.shape, np.nan)
        costs[i, j], kms[i, j] = cost[of_part], km[of_part]
        for r, c in best_pairs(costs):
            partner[rows[r]], distance[rows[r]] = columns[c], kms[r, c]
    return Matching(partner, distance, len(truth))


def _feasible(
    found: pd.DataFrame, truth: pd.DataFrame, radius_km: float, tolerance_hours: float
) -> tuple[Indices, Indices, FloatArray, FloatArray]:
    """Pairs near enough: index of found, of truth, distance in km, cost."""
    order = np.argsort(truth["time"].to_numpy(), kind="stable")
    times = truth["time"].to_numpy()[order]
    positions = {k: (found[k].to_numpy(), truth[k].to_numpy()) for k in ("latitude", "longitude")}
    tolerance = np.timedelta64(round(tolerance_hours * 3600e9), "ns")
    parts = []
    moments = found["time"].to_numpy("datetime64[ns]")
    every = np.unique(moments)
    firsts = np.searchsorted(times, every - tolerance, side="left")
    lasts = np.searchsorted(times, every + tolerance, side="right")
    near = firsts < lasts  # at most moments there is no true incident
    for at, first, last in zip(every[near], firsts[near], lasts[near], strict=True):
        here = np.flatnonzero(moments == at)
        there = order[first:last]
        lat, lon = ((p[0][here][:, None], p[1][there][None]) for p in positions.values())
        km = great_circle_km(lat[0], lon[0], lat[1], lon[1])
        if "places" in truth:
            each = truth["places"].iloc[there]
            km = np.stack([great_circle_km(lat[0], lon[0], *p.T).min(axis=1) for p in each], axis=1)
        close = km <= radius_km
        if "extent" in found and "extent" in truth:
            close = _overlap(found["extent"].iloc[here], truth["extent"].iloc[there])
        i, j = np.nonzero(close)
        apart = np.abs(times[first:last] - at)[j] / HOUR
        late = apart / tolerance_hours * radius_km if tolerance_hours else np.zeros(len(j))
        parts.append((here[i], there[j], km[i, j], km[i, j] + late))
    if not parts:
        return np.empty(0, int), np.empty(0, int), np.empty(0), np.empty(0)
    a, b, km, cost = (np.concatenate(column) for column in zip(*parts, strict=True))
    return a, b, km, cost


def _overlap(found: pd.Series, truth: pd.Series) -> npt.NDArray[np.bool_]:
    """Which areas share some of their cells, shape (found, truth)."""
    shared = np.zeros((len(found), len(truth)), dtype=bool)
    if not shared.size:
        return shared
    half = found.iloc[0][0, 2:] + truth.iloc[0][0, 2:]  # all cells of a field are alike
    around = np.array([0.0, 360.0]) / half  # longitude goes around, latitude does not
    scaled = [
        [
            np.column_stack([area[:, 0] / half[0], (area[:, 1] / half[1]) % around[1]])
            for area in areas
        ]
        for areas in (found, truth)
    ]
    ends = [
        [(area[:, 0].min() - 1.0, area[:, 0].max() + 1.0) for area in areas] for areas in scaled
    ]
    for j, area in enumerate(scaled[1]):
        tree = KDTree(area, boxsize=around)
        for i, other in enumerate(scaled[0]):
            if ends[0][i][1] > ends[1][j][0] and ends[1][j][1] > ends[0][i][0]:
                near = tree.query(other, p=np.inf, distance_upper_bound=1.0 - TOUCH)[0]
                shared[i, j] = bool(np.isfinite(near).any())
    return shared
