"""Incidents in a map: its peaks, far enough from each other, or its connected regions."""

from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr
from scipy.ndimage import label as connected
from scipy.ndimage import maximum_filter

from data_pipelines.schema import EARTH_RADIUS_KM, FloatArray, great_circle_km, is_global

AXES = ("time", "latitude", "longitude")
KM_PER_DEGREE = EARTH_RADIUS_KM * np.pi / 180.0
COLUMNS = [*AXES, "probability", "area_km2"]


def find_peaks(field: xr.DataArray, separation_km: float, floor: float) -> pd.DataFrame:
    """Local maxima at or above `floor`, the highest first, none within reach of a higher one.

    No threshold enters: to keep the peaks above one is to filter the table.

    Args:
        field: probability or any score that is at least 0 where it counts; dims ``(time,
            latitude, longitude)``; NaN where it is missing.
        separation_km: least distance of two peaks.
        floor: lowest peak.

    Returns:
        ``time, latitude, longitude, probability, area_km2``, the highest first at each time. The
        probability (or score) is that of the peak. Position and area are those of the connected
        region around it with at least half of its height, within `separation_km` and nearer to it
        than to any other peak of at least half of its height: its centre, weighted with the field
        on the sphere, and its area. Maps that go around the globe have no edge in longitude.
    """
    latitude, longitude = (field[axis].to_numpy().astype(float) for axis in AXES[1:])
    areas = _cell_areas(field, latitude)
    wraps = is_global(longitude)
    rows = []
    for time, values in zip(field["time"].to_numpy(), _steps(field), strict=True):
        values = np.where(np.isnan(values), -np.inf, values)
        around = np.pad(values, ((0, 0), (1, 1)), mode="wrap") if wraps else values
        highest = maximum_filter(around, size=3, mode="constant", cval=-np.inf)
        highest = highest[:, 1:-1] if wraps else highest
        # Those down to half the floor share out the points; no result depends on the floor.
        y, x = np.nonzero((values == highest) & (values >= floor / 2))
        order = np.argsort(-values[y, x], kind="stable")
        y, x = y[order], x[order]
        kept = _apart(latitude[y], longitude[x], separation_km)
        peaks = np.stack([latitude[y[kept]], longitude[x[kept]], values[y[kept], x[kept]]])
        for k in kept:
            if values[y[k], x[k]] < floor:
                break
            region = _around(values, latitude, longitude, (y[k], x[k]), separation_km, wraps, peaks)
            centre = _centre(latitude[region[0]], longitude[region[1]], values[region])
            rows.append((time, *centre, values[y[k], x[k]], areas[region[0]].sum()))
    table = pd.DataFrame(rows, columns=COLUMNS)
    table["time"] = table["time"].astype("datetime64[ns]")
    return table


def apart_km(field: xr.DataArray) -> float:
    """Widest diagonal between neighbouring positions of a map, km; 0 of a single position."""
    if field["latitude"].size * field["longitude"].size < 2:
        return 0.0
    north, east = _spacing(field)
    widest = float(np.cos(np.deg2rad(np.abs(field["latitude"]).min())))
    return float(np.hypot(north, east * widest)) * KM_PER_DEGREE


def _spacing(field: xr.DataArray) -> tuple[float, float]:
    """From one position to the next, degrees: north and east; a cell where there is one only."""
    north, east = (
        float(np.abs(np.diff(field[axis])).min())
        if field[axis].size > 1
        else float(field.attrs.get(f"cell_{axis}", 0.0))
        for axis in AXES[1:]
    )
    return north, east


def _steps(field: xr.DataArray) -> npt.NDArray[np.float64]:
    return np.asarray(field.transpose(*AXES).to_numpy(), dtype=np.float64)


def _cell_areas(field: xr.DataArray, latitude: FloatArray) -> FloatArray:
    """Area of one point of each row, km2."""
    spacing = []
    for axis in AXES[1:]:
        values = field[axis].to_numpy().astype(float)
        whole = abs(values[-1] - values[0]) / (len(values) - 1) if len(values) > 1 else 0.0
        spacing.append(whole or float(field.attrs.get(f"cell_{axis}", 0.0)))
    north, south = (
        np.sin(np.deg2rad(np.clip(latitude + s * spacing[0] / 2, -90, 90))) for s in (1, -1)
    )
    return np.asarray(EARTH_RADIUS_KM**2 * np.deg2rad(spacing[1]) * (north - south))


def _apart(latitude: FloatArray, longitude: FloatArray, separation_km: float) -> list[int]:
    """Which points to keep, in order, so that none lies within reach of one before it."""
    kept: list[int] = []
    for k in range(len(latitude)):
        before = np.array(kept, dtype=int)
        km = great_circle_km(latitude[k], longitude[k], latitude[before], longitude[before])
        if not (km < separation_km).any():
            kept.append(k)
    return kept


def _around(
    values: FloatArray,
    latitude: FloatArray,
    longitude: FloatArray,
    peak: tuple[int, int],
    reach_km: float,
    wraps: bool,
    peaks: FloatArray,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Rows and columns of the connected region of half the peak's height within reach.

    A point belongs to the nearest of `peaks` (latitudes, longitudes, heights) that have at least
    half of this one's height.
    """
    y0, x0 = peak
    rows = np.flatnonzero(np.abs(latitude - latitude[y0]) * KM_PER_DEGREE <= reach_km)
    east = (longitude - longitude[x0] + 180.0) % 360.0 - 180.0
    widest = np.abs(latitude[rows]).max()
    squeeze = max(np.cos(np.deg2rad(min(widest, 89.9))), 1e-3)
    columns = np.flatnonzero(np.abs(east) * KM_PER_DEGREE * squeeze <= reach_km)
    if wraps:
        columns = columns[np.argsort(east[columns], kind="stable")]
    near = values[np.ix_(rows, columns)]
    km = great_circle_km(
        latitude[y0], longitude[x0], latitude[rows][:, None], longitude[columns][None]
    )
    high = (near >= 0.5 * values[y0, x0]) & (km <= reach_km)
    apart = great_circle_km(latitude[y0], longitude[x0], peaks[0], peaks[1])
    rival = (apart > 0) & (apart < 2 * reach_km) & (peaks[2] >= 0.5 * values[y0, x0])
    for other in np.flatnonzero(rival):
        high &= km <= great_circle_km(
            peaks[0][other], peaks[1][other], latitude[rows][:, None], longitude[columns][None]
        )
    regions, _ = connected(high, structure=np.ones((3, 3)))
    if wraps and len(columns) == len(longitude):
        _join_edges(regions)
    own = regions[np.searchsorted(rows, y0), int(np.flatnonzero(columns == x0)[0])]
    y, x = np.nonzero(regions == own)
    return rows[y], columns[x]


def find_regions(
    field: xr.DataArray, threshold: float, names: npt.NDArray[np.object_] | None = None
) -> pd.DataFrame:
    """Connected regions at or above the threshold: incidents that are areas, such as heat waves.

    Args:
        field: probability; dims ``(time, latitude, longitude)``; NaN where it is missing.
        threshold: lowest probability of an incident.
        names: of what each point belongs to, of the shape of the field.

    Returns:
        As `find_peaks`; the position is the centre of the whole region, or its most probable point
        where the centre lies outside, as of a ring or a crescent. ``extent`` has the
        positions of each, shape (n, 4): latitude, longitude, and half of the cell around either,
        degrees. Regions touch across the date line when the map is global. With `names` also
        ``storm_id``.
    """
    latitude, longitude = (field[axis].to_numpy().astype(float) for axis in AXES[1:])
    areas = _cell_areas(field, latitude)
    wraps = is_global(longitude)
    half = [step / 2.0 for step in _spacing(field)]
    rows = []
    for step, (time, values) in enumerate(
        zip(field["time"].to_numpy(), _steps(field), strict=True)
    ):
        regions, count = connected(values >= threshold, structure=np.ones((3, 3)))
        if wraps and count:
            _join_edges(regions)
        for region in np.unique(regions[regions > 0]):
            y, x = np.nonzero(regions == region)
            inside = values[y, x]
            centre = _centre(latitude[y], longitude[x], inside)
            away = np.abs(latitude[y] - centre[0]), longitude[x] - centre[1]
            away = away[0], np.abs((away[1] + 180.0) % 360.0 - 180.0)
            if not ((away[0] <= half[0]) & (away[1] <= half[1])).any():
                north, east = (np.full(1, v) for v in centre)
                km = great_circle_km(north, east, latitude[y], longitude[x])
                at = int(np.lexsort((km, -inside))[0])
                centre = float(latitude[y[at]]), float(longitude[x[at]] % 360.0)
            extent = np.column_stack([latitude[y], longitude[x], *np.full((len(y), 2), half).T])
            of = () if names is None else (names[step, y[0], x[0]],)
            rows.append((time, *centre, inside.max(), areas[y].sum(), extent, *of))
    columns = [*COLUMNS, "extent"] if names is None else [*COLUMNS, "extent", "storm_id"]
    table = pd.DataFrame(rows, columns=columns)
    table["time"] = table["time"].astype("datetime64[ns]")
    return table.sort_values(["time", "probability"], ascending=[True, False], ignore_index=True)


def labelled_incidents(samples: pd.DataFrame, cell: tuple[float, float]) -> pd.DataFrame:
    """Connected regions of incident patches: the truth where no catalogue has positions.

    Args:
        samples: ``time, latitude, longitude, label, incident_id`` of every patch position of some
            times.
        cell: degrees of latitude and of longitude of a central cell: where it has no patch, such as
            over land, two regions do not touch.

    Returns:
        As `find_regions`; ``storm_id`` is the incident that the patches belong to over all times.
    """
    east = np.unique(samples["longitude"])
    if len(east) > 1 and not is_global(east):
        # A region across Greenwich begins after the widest gap, so that neighbours stay so.
        gaps = np.diff(np.r_[east, east[0] + 360.0])
        west = east[(int(np.argmax(gaps)) + 1) % len(east)]
        around = (samples["longitude"] - west) % 360.0 + west
        samples = samples.assign(longitude=np.round(around, 6))
    axes = [_without_gaps(np.unique(samples[k]), c) for k, c in zip(AXES[1:], cell, strict=True)]
    axes[0] = axes[0][::-1]
    some = samples[samples["time"].isin(samples.loc[samples["label"] == 1, "time"])]
    times = np.unique(some["time"])
    labels = xr.DataArray(
        np.zeros((len(times), len(axes[0]), len(axes[1]))), coords=[times, *axes], dims=AXES,
        attrs={"cell_latitude": cell[0], "cell_longitude": cell[1]},
    )  # fmt: skip
    at = [pd.Index(labels[k].to_numpy()).get_indexer(some[k]) for k in AXES]
    labels.values[tuple(at)] = some["label"]
    names = np.full(labels.shape, "", dtype=object)
    names[tuple(at)] = some["incident_id"]
    return find_regions(labels, 0.5, names)


def _without_gaps(values: FloatArray, spacing: float) -> FloatArray:
    """Ascending positions, and those between them that have none.

    Where the last column of a globe meets the first, a gap may be no multiple of the spacing.
    """
    parts: list[FloatArray] = [values[:1]]
    for before, after in pairwise(values):
        absent = max(int((after - before) / spacing + 1e-6) - 1, 0)
        between = before + (after - before) * np.arange(1, absent + 1) / (absent + 1)
        parts += [np.round(between, 6), np.array([after])]
    return np.concatenate(parts)


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
