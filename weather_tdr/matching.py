"""Incidents in a probability map, and their one-to-one matching with the catalogue."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from scipy.ndimage import label as connected
from scipy.optimize import linear_sum_assignment

from data_pipelines.schema import FloatArray, great_circle_km, is_global

RADIUS_KM = 300.0
AXES = ("time", "latitude", "longitude")


def find_incidents(probability: xr.DataArray, threshold: float) -> pd.DataFrame:
    """Connected regions at or above the threshold, one row each.

    Args:
        probability: dims ``(time, latitude, longitude)``; NaN where there is no patch.
        threshold: lowest probability of an incident.

    Returns:
        ``time, latitude, longitude, probability, points``, the most probable first at each time.
        The position is the region's centre, weighted with probability; the probability is the
        highest in it. Regions touch across the date line when the map is global.
    """
    latitude = probability["latitude"].to_numpy()
    longitude = probability["longitude"].to_numpy()
    wraps = is_global(longitude)
    rows = []
    for time in probability["time"].to_numpy():
        values = probability.sel(time=time).to_numpy()
        regions, count = connected(values >= threshold, structure=np.ones((3, 3)))
        if wraps and count:
            _join_edges(regions)
        for region in np.unique(regions[regions > 0]):
            y, x = np.nonzero(regions == region)
            inside = values[y, x]
            rows.append((time, *_centre(latitude[y], longitude[x], inside), inside.max(), len(y)))
    table = pd.DataFrame(rows, columns=["time", "latitude", "longitude", "probability", "points"])
    table["time"] = table["time"].astype("datetime64[ns]")
    return table.sort_values(["time", "probability"], ascending=[True, False], ignore_index=True)


def labelled_incidents(samples: pd.DataFrame) -> pd.DataFrame:
    """Connected regions of incident patches: the truth where no catalogue has positions.

    Args:
        samples: ``time, latitude, longitude, label`` of every patch position of some times.

    Returns:
        As `find_incidents`.
    """
    east = np.unique(samples["longitude"])
    if len(east) > 1 and not is_global(east):
        # A region across Greenwich begins after the widest gap, so that neighbours stay so.
        gaps = np.diff(np.r_[east, east[0] + 360.0])
        west = east[(int(np.argmax(gaps)) + 1) % len(east)]
        around = (samples["longitude"] - west) % 360.0 + west
        samples = samples.assign(longitude=np.round(around, 6))
    axes = [np.unique(samples[k])[:: -1 if k == "latitude" else 1] for k in AXES[1:]]
    some = samples[samples["time"].isin(samples.loc[samples["label"] == 1, "time"])]
    times = np.unique(some["time"])
    labels = xr.DataArray(
        np.zeros((len(times), len(axes[0]), len(axes[1]))), coords=[times, *axes], dims=AXES
    )
    at = [pd.Index(labels[k].to_numpy()).get_indexer(some[k]) for k in AXES]
    labels.values[tuple(at)] = some["label"]
    return find_incidents(labels, 0.5)


def _centre(latitude: FloatArray, longitude: FloatArray, weight: FloatArray) -> tuple[float, float]:
    """Weighted mean of points on the sphere: latitude, and longitude in [0, 360)."""
    lat, lon = np.deg2rad(latitude), np.deg2rad(longitude)
    x = float((weight * np.cos(lat) * np.cos(lon)).sum())
    y = float((weight * np.cos(lat) * np.sin(lon)).sum())
    z = float((weight * np.sin(lat)).sum())
    return (
        float(np.rad2deg(np.arctan2(z, np.hypot(x, y)))),
        float(np.rad2deg(np.arctan2(y, x)) % 360.0),
    )


def _join_edges(regions: np.ndarray) -> None:
    """Gives regions that touch across the first and last column one number."""
    height = len(regions)
    for y in np.flatnonzero(regions[:, 0]).tolist():
        for other in range(max(y - 1, 0), min(y + 2, height)):
            if regions[other, -1] and regions[other, -1] != regions[y, 0]:
                regions[regions == regions[other, -1]] = regions[y, 0]


@dataclass(frozen=True)
class Matching:
    """Found against true incidents.

    Attributes:
        found: index of the true incident of each found one, -1 for a false alarm.
        distance_km: to it, NaN for a false alarm.
        truths: number of true incidents.
    """

    found: np.ndarray
    distance_km: np.ndarray
    truths: int

    def summary(self) -> dict[str, Any]:
        """Hits, misses, false alarms, and the mean distance of the hits in km."""
        hits = int((self.found >= 0).sum())
        return {
            "hits": hits,
            "misses": self.truths - hits,
            "false_alarms": int((self.found < 0).sum()),
            "mean_distance_km": float(np.nanmean(self.distance_km)) if hits else np.nan,
        }


def match_incidents(
    found: pd.DataFrame, truth: pd.DataFrame, radius_km: float = RADIUS_KM
) -> Matching:
    """Matches found and true incidents of the same time, one to one.

    The assignment has the most pairs within `radius_km`, and among those the least distance.

    Args:
        found: ``time, latitude, longitude``.
        truth: the same.
        radius_km: largest distance of a pair.
    """
    partner = np.full(len(found), -1)
    distance = np.full(len(found), np.nan)
    truth_of = truth.groupby("time").indices
    for time, here in found.groupby("time").indices.items():
        if time not in truth_of:
            continue
        there = truth_of[time]
        a, b = found.iloc[here], truth.iloc[there]
        km = great_circle_km(
            a["latitude"].to_numpy()[:, None],
            a["longitude"].to_numpy()[:, None],
            b["latitude"].to_numpy()[None],
            b["longitude"].to_numpy()[None],
        )
        # A pair too far costs more than any set of near pairs: as many near pairs as possible.
        cost = np.where(km <= radius_km, km, radius_km * (min(km.shape) + 1))
        for i, j in zip(*linear_sum_assignment(cost), strict=True):
            if km[i, j] <= radius_km:
                partner[here[i]], distance[here[i]] = there[j], km[i, j]
    return Matching(partner, distance, len(truth))
