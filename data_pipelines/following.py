"""Positions followed in time: which belong to one system."""

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.optimize import linear_sum_assignment

from data_pipelines.schema import FloatArray, IntArray, great_circle_km

HOUR = np.timedelta64(1, "h")


def best_pairs(cost: FloatArray) -> list[tuple[int, int]]:
    """Most pairs of a row and a column each, and among those the least sum of costs.

    Args:
        cost: at least 0; infinity where there can be no pair.
    """
    possible = np.isfinite(cost)
    if not possible.any():
        return []
    # What cannot be costs more than any set of pairs that can: as many of those as possible.
    never = cost[possible].max() * (min(cost.shape) + 1) + 1.0
    pairs = zip(*linear_sum_assignment(np.where(possible, cost, never)), strict=True)
    return [(int(i), int(j)) for i, j in pairs if possible[i, j]]


def follow(
    found: pd.DataFrame,
    times: npt.NDArray[np.datetime64],
    speed_km_h: float,
    missed_steps: int,
    longest_hours: float = np.inf,
    least_km: float = 0.0,
) -> IntArray:
    """Number of the track of each position, from 1 on in order of time.

    Step by step, positions go on the tracks seen before, by the assignment with the most pairs and
    then the least distance.

    Args:
        found: ``time, latitude, longitude``, sorted by time.
        times: all time steps, ascending.
        speed_km_h: no track is faster.
        missed_steps: a track may be missing at so many steps in a row.
        longest_hours: a track that is missing for longer has ended.
        least_km: a track may go so far at any speed, such as to the next position of a map.
    """
    track = np.zeros(len(found), dtype=np.int64)
    latitude, longitude = (found[k].to_numpy() for k in ("latitude", "longitude"))
    step = np.searchsorted(times, found["time"].to_numpy())
    last: IntArray = np.empty(0, dtype=np.int64)  # the latest position of each open track
    number = 0
    for now in np.unique(step):
        here = np.flatnonzero(step == now)
        last = last[now - step[last] <= missed_steps + 1]
        km = great_circle_km(
            latitude[last][:, None], longitude[last][:, None], latitude[here], longitude[here]
        )
        hours = (times[now] - times[step[last]]) / HOUR
        reach = np.maximum(speed_km_h * hours, least_km)[:, None]
        km[(km > reach) | (hours[:, None] > longest_hours)] = np.inf
        pairs = best_pairs(km)
        for i, j in pairs:
            track[here[j]] = track[last[i]]
        for k in here[track[here] == 0]:
            number += 1
            track[k] = number
        gone = [i for i, _ in pairs]
        last = np.concatenate([np.delete(last, gone), here])
    return track
