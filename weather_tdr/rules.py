"""The rules that people use in place of a network, on the same fields."""

import heapq
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr
from scipy.ndimage import minimum_filter
from tqdm import tqdm

from data_pipelines.quality import loaded
from data_pipelines.schema import (
    EARTH_RADIUS_KM,
    FloatArray,
    is_global,
    is_pressure,
)
from weather_tdr.candidates import AXES, apart_km, find_peaks

RADII_KM = (300.0, 600.0, 900.0, 1200.0)  # of the closed contour; one is chosen on validation
POLE = 1e-6  # degrees from it
FLOOR_HPA = 0.1  # of an incident, below any threshold
STEPS_AT_ONCE = 32


@dataclass(frozen=True)
class RuleScores:
    """What a rule says of some times.

    Attributes:
        peaks: its incidents: ``time, latitude, longitude, probability, area_km2``; the score, in
            hPa, stands where a network's have their probability.
        samples: score of each patch, hPa, shape (n,): the highest in its central cell.
        times: all time steps.
        apart_km: of two neighbouring positions.
    """

    peaks: pd.DataFrame
    samples: FloatArray
    times: npt.NDArray[np.datetime64]
    apart_km: float = 0.0


def pressure_lags(fields: xr.DataArray) -> tuple[xr.DataArray, xr.DataArray | None] | None:
    """Sea-level pressure now and at the longest lag, if it is among the fields.

    Args:
        fields: as `open_fields` gives them.
    """
    standard, base = (fields[k].to_numpy() for k in ("standard_name", "base_variable"))
    units = fields["units"].to_numpy() if "units" in fields.coords else np.full(len(base), "Pa")
    found = [k for k, facts in enumerate(zip(standard, base, units, strict=True)) if _in_pa(*facts)]
    hours = np.array([float(str(v).removesuffix("h")) for v in fields["lag"].to_numpy()])
    now = [k for k in found if hours[k] == 0]
    if not now:
        return None
    before = min(found, key=lambda k: hours[k])
    earlier = fields.isel(variable=before) if hours[before] < 0 else None
    return fields.isel(variable=now[0]), earlier


def _in_pa(standard_name: str, name: str, units: str) -> bool:
    """Whether it is sea-level pressure in Pa, or in no units, as a file without any is read."""
    return is_pressure(str(standard_name), str(name)) and str(units) in ("Pa", "1", "")


def apply_rule(
    scores_of: Callable[..., xr.DataArray],
    fields: Sequence[xr.DataArray],
    samples: pd.DataFrame,
    cell: tuple[float, float],
    separation_km: float,
    *,
    whole: bool = False,
    title: str = "",
    progress: bool = False,
) -> RuleScores:
    """A rule on fields and on the patches cut from them, some time steps at once.

    Args:
        scores_of: the rule: fields of some times -> score at each grid point, hPa.
        fields: what it takes, of the same times; dims ``(time, latitude, longitude)``.
        samples: ``time, latitude, longitude`` of the centres of the patches.
        cell: degrees of latitude and of longitude of a central cell.
        separation_km: least distance of two incidents.
        whole: patches are whole fields: there is one incident a time, in the middle.
        title: of the progress bar.
        progress: shows a progress bar.
    """
    times = fields[0]["time"].to_numpy()
    step = pd.Index(times).get_indexer(pd.DatetimeIndex(samples["time"]))
    score = np.full(len(samples), np.nan)
    peaks = []
    with tqdm(total=len(times), desc=title, disable=not progress) as bar:
        for first in range(0, len(times), STEPS_AT_ONCE):
            block = slice(first, first + STEPS_AT_ONCE)
            scores = scores_of(*(loaded(field.isel(time=block)) for field in fields))
            found = find_peaks(scores, separation_km, FLOOR_HPA)
            peaks.append(one_a_time(found, scores) if whole else found)
            here = (step >= first) & (step < first + STEPS_AT_ONCE)
            score[here] = cell_scores(scores, samples[here], cell)
            bar.update(scores.sizes["time"])
    return RuleScores(pd.concat(peaks, ignore_index=True), score, times, apart_km(fields[0]))


def deepening(now: xr.DataArray, earlier: xr.DataArray) -> xr.DataArray:
    """How far pressure has fallen at a point since the longest lag, hPa.

    The definition of an explosive cyclone, but at a fixed point instead of along its track.

    Args:
        now: sea-level pressure, Pa; dims ``(time, latitude, longitude)``.
        earlier: the same at the longest lag.
    """
    return (earlier - now) / 100.0


def closed_contours(pressure: xr.DataArray, radius_km: float) -> xr.DataArray:
    """Depth of the closed pressure contour around each minimum, hPa; 0 elsewhere.

    A minimum of depth d is enclosed, within `radius_km`, by pressure higher by d: every path from
    it to `radius_km` away rises by at least d. Edges of a region and missing values count as
    away: what lies there is not known. On a global grid paths go over a pole.

    Args:
        pressure: at sea level, Pa; dims ``(time, latitude, longitude)``.
        radius_km: of the largest contour.

    Source:
        The closed contour criterion of TempestExtremes, Ullrich and Zarzycki (2017), Geosci. Model
        Dev. 10, 1069-1090; here the depth is the score, and its threshold is chosen as every
        method's.
    """
    latitude, longitude = (pressure[axis].to_numpy().astype(float) for axis in AXES[1:])
    wraps = is_global(longitude)
    every = pressure.transpose(*AXES).to_numpy().astype(np.float64) / 100.0
    depths = np.zeros(every.shape)
    for t, values in enumerate(every):
        around = np.pad(values, ((0, 0), (1, 1)), mode="wrap") if wraps else values
        lowest = minimum_filter(np.where(np.isnan(around), np.inf, around), 3, mode="nearest")
        lowest = lowest[:, 1:-1] if wraps else lowest
        at_pole: dict[tuple[int, float], float] = {}  # where all columns are one place
        for y, x in np.argwhere(values == lowest):
            place = int(y), float(values[y, x])
            if place not in at_pole:
                depth = contour_depth(values, latitude, longitude, (y, x), radius_km, wraps)
                if abs(latitude[y]) > 90.0 - POLE:
                    at_pole[place] = depth
                depths[t, y, x] = depth
            else:
                depths[t, y, x] = at_pole[place]
    return xr.DataArray(depths, dims=AXES, coords={axis: pressure[axis] for axis in AXES})


def contour_depth(
    values: FloatArray,
    latitude: FloatArray,
    longitude: FloatArray,
    minimum: tuple[int, int],
    radius_km: float,
    wraps: bool,
) -> float:
    """Least rise on any path from a minimum to `radius_km` away: water that fills a basin.

    Args:
        values: pressure, hPa, shape (latitude, longitude).
        latitude: degrees north, shape (latitude,).
        longitude: degrees east, shape (longitude,).
        minimum: row and column of the minimum.
        radius_km: how far away.
        wraps: whether the first column follows the last.
    """
    height, width = values.shape
    over = np.zeros(2, dtype=bool)  # whether the globe goes on beyond the first, the last row
    if wraps and height > 1:
        over = np.abs(latitude[[0, -1]]) > 90.0 - np.abs(np.diff(latitude)).max()
    y0, x0 = int(minimum[0]), int(minimum[1])
    start = float(values[y0, x0])
    cosines, east = np.cos(np.deg2rad(latitude)), np.deg2rad(longitude - longitude[x0])
    limit = math.cos(radius_km / EARTH_RADIUS_KM)
    sines = np.sin(np.deg2rad(latitude))
    level, heap, seen = start, [(start, y0, x0)], {(y0, x0)}
    while heap:
        value, y, x = heapq.heappop(heap)
        level = max(level, value)
        if sines[y0] * sines[y] + cosines[y0] * cosines[y] * math.cos(east[x]) < limit:
            return level - start  # so far away
        for row in (y - 1, y, y + 1):
            beyond = 0 if row < 0 else 1 if row == height else None
            across = beyond is not None and bool(over[beyond])
            i = y if across else row
            for k in (x - 1, x, x + 1):
                column = (k + width // 2 * across) % width if wraps else k
                if (i, column) in seen:
                    continue
                if not (0 <= i < height and 0 <= column < width) or np.isnan(values[i, column]):
                    return level - start  # the edge of what is known
                seen.add((i, column))
                heapq.heappush(heap, (float(values[i, column]), i, column))
    return level - start


def cell_scores(
    scores: xr.DataArray, samples: pd.DataFrame, cell: tuple[float, float]
) -> FloatArray:
    """The highest score in the central cell of each patch.

    Args:
        scores: at each grid point; dims ``(time, latitude, longitude)``.
        samples: ``time, latitude, longitude`` of the centres.
        cell: degrees of latitude and of longitude of a central cell.
    """
    latitude, longitude = (scores[axis].to_numpy().astype(float) for axis in AXES[1:])
    points = []
    for axis, values, size in (("latitude", latitude, cell[0]), ("longitude", longitude, cell[1])):
        spacing = abs(values[-1] - values[0]) / (len(values) - 1)
        count = round(size / spacing)
        centre = samples[axis].to_numpy()
        if axis == "latitude":
            first = np.round((values[0] - centre) / spacing - (count - 1) / 2).astype(int)
        else:
            first = np.round((centre - values[0]) % 360.0 / spacing - (count - 1) / 2).astype(int)
        points.append(first[:, None] + np.arange(count))
    step = pd.Index(scores["time"].to_numpy()).get_indexer(samples["time"])
    columns = points[1] % len(longitude)
    found = np.empty(len(samples))
    data = scores.to_numpy()
    for begin in range(0, len(samples), 100_000):
        part = slice(begin, begin + 100_000)
        cells = data[step[part, None, None], points[0][part, :, None], columns[part, None, :]]
        found[part] = cells.max(axis=(1, 2))
    return found


def one_a_time(peaks: pd.DataFrame, scores: xr.DataArray) -> pd.DataFrame:
    """The highest peak of each time, placed in the middle: what there is of whole fields."""
    best = peaks.sort_values("probability", ascending=False).drop_duplicates("time")
    middle = {
        axis: float((scores[axis][0] + scores[axis][-1]) / 2) for axis in ("latitude", "longitude")
    }
    return best.assign(**middle).sort_values("time", ignore_index=True)
