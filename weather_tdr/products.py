"""What a map becomes for people: NetCDF, incidents, tracks, scores and pictures."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

from data_pipelines.cluster import Cluster
from data_pipelines.quality import limits, loaded
from data_pipelines.schema import PRESSURE, great_circle_km
from data_pipelines.writing import write_atomically
from weather_tdr.candidates import KM_PER_DEGREE, apart_km, find_peaks, find_regions
from weather_tdr.incident_files import write_incidents
from weather_tdr.maps import Maps, incident_map_on, write_map
from weather_tdr.model_files import Detector
from weather_tdr.plots.canvas import save_figure
from weather_tdr.plots.maps import PANELS, animate, incident_figure, sequence_figure
from weather_tdr.plots.scene import Scene, strongest
from weather_tdr.plots.series import probability_series
from weather_tdr.rules import pressure_lags
from weather_tdr.verification import incident_curve, verify, with_tracks

log = logging.getLogger(__name__)
COLUMNS = [
    "time", "latitude", "longitude", "probability", "area_km2", "track_id", "pressure_hpa",
    "matched", "distance_km", "storm_id",
]  # fmt: skip


def peaks_of(found_map: xr.DataArray, detector: Detector, maps: Maps) -> pd.DataFrame:
    """The peaks of a map, far below any threshold: those above climatology.

    Args:
        found_map: as `incident_map` gives it.
        detector: whose map it is.
        maps: separation of two incidents.
    """
    prior = detector.calibration.prior
    floor = 0.0 if np.isnan(prior) else prior
    if not np.isnan(detector.incident_threshold):
        floor = min(floor, detector.incident_threshold)
    return find_peaks(found_map, maps.separation(found_map.attrs["cell_latitude"]), floor)


def draw_maps(
    detector: Detector,
    fields: xr.DataArray,
    folder: Path,
    maps: Maps,
    *,
    truth: pd.DataFrame | None = None,
    ground: Callable[[pd.DataFrame], pd.DataFrame] | None = None,
    cluster: Cluster | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Incident map, table, tracks and figures of any fields.

    Args:
        detector: trained and evaluated.
        fields: as `open_fields` gives them.
        folder: for `incident_map.nc`, `incidents.csv`, `incidents.geojson`, `incidents.nc`,
            `figures/`; with `truth` `truth.csv`; with `maps.animation` `incidents.gif`.
        maps: resolution, matching, tracks, number of figures.
        truth: incidents that there are at these times: ``time, latitude, longitude``, and
            ``storm_id`` where known.
        ground: keeps the rows that lie where incidents are judged, as those of `truth` do; by
            default all, and those of `truth` that the map has.
        cluster: where to compute; by default here.
        progress: shows a progress bar.

    Returns:
        Scores of incidents and tracks; empty without `truth`.
    """
    found_map = incident_map_on(
        cluster or Cluster(),
        detector,
        fields,
        folder,
        resolution=maps.resolution,
        progress=progress,
    )
    source = f"weather-tdr, PatchNet trained with {detector.method}"
    write_map(found_map, folder / "incident_map.nc", source, detector.incident_threshold)
    times, maps = found_map["time"].to_numpy(), maps.reaching(found_map)
    threshold = detector.incident_threshold
    if detector.areas:
        found = peaks = find_regions(found_map, threshold)
        found = found if ground is None else ground(found)
    else:
        peaks = peaks_of(found_map, detector, maps)
        peaks = peaks if ground is None else ground(peaks)
        found = peaks[peaks["probability"] >= threshold].reset_index(drop=True)
    found = with_tracks(found, times, maps, apart_km(found_map))
    lags = pressure_lags(fields)
    pressure = None if lags is None else lags[0]
    if pressure is not None and not detector.whole_field:
        found["pressure_hpa"] = lowest_pressure(found, pressure, maps.radius_km)
    summary: dict[str, Any] = {}
    if truth is not None:
        if ground is None:  # else truth lies there already, as what is found
            truth = inside_map(truth, found_map)
        found, truth, scores = verify(found, truth, times, maps)
        summary = {"threshold": threshold, "radius_km": maps.radius_km, **scores}
        write_atomically(folder / "truth.csv", truth.to_csv(index=False))
        if not detector.areas:
            curve = incident_curve(peaks, truth, maps)
            write_atomically(folder / "incident_curve.csv", curve.to_csv(index=False))
    found = found[[c for c in COLUMNS if c in found]]
    by = f"weather-tdr, network trained with {detector.method}"
    write_incidents(found, folder, by, areas=detector.areas)
    figures = folder / "figures"
    drawn = [*figures.glob("incident_*.png"), figures / "sequence.png", figures / "probability.png"]
    for old in [*drawn, folder / "incidents.gif"]:
        old.unlink(missing_ok=True)
    if detector.whole_field:
        figure = probability_series(found_map, threshold, truth, detector.method)
        save_figure(figure, folder / "figures" / "probability.png")
        return summary
    _draw(detector, found_map, found, pressure, truth, folder, maps, progress=progress)
    return summary


def _draw(
    detector: Detector,
    found_map: xr.DataArray,
    found: pd.DataFrame,
    pressure: xr.DataArray | None,
    truth: pd.DataFrame | None,
    folder: Path,
    maps: Maps,
    *,
    progress: bool,
) -> None:
    """Figures of the strongest incidents, the page of the strongest track, the animation."""

    def scene(time: Any, trail: pd.DataFrame | None = None) -> Scene:
        return Scene.at(time, found_map, found, pressure, truth, trail)

    ranked = found.sort_values("probability", ascending=False).drop_duplicates("time")
    times = list(ranked["time"].head(maps.figures))
    if not times and maps.figures and bool(found_map.notnull().any()):
        # Nothing found: show where the network was least sure of that.
        times = [pd.Timestamp(found_map.max(["latitude", "longitude"]).idxmax("time").item())]
    by = f"Incidents found by {detector.method}"
    for rank, time in enumerate(times, start=1):
        title = f"{by}, {time:%Y-%m-%d %H:%M} UTC (threshold {detector.incident_threshold:.2g})"
        save_figure(
            incident_figure(scene(time), title), folder / "figures" / f"incident_{rank}.png"
        )
    page = folder / "figures" / "sequence.png"
    if len(found) and maps.figures:
        track = found[found["track_id"] == strongest(found)["track_id"]]
        at = _around_track(found_map["time"].to_numpy(), track)
        scenes = [scene(t, track[track["time"] <= t]) for t in at]
        middle = strongest(track)
        centre = (float(middle["longitude"]), float(middle["latitude"]))
        title = f"{by}: the strongest track, number {middle['track_id']}"
        save_figure(sequence_figure(scenes, centre, title), page)
    if maps.animation:
        all_times = found_map["time"].to_numpy()
        log.info("drawing %d frames", len(all_times))
        animate(
            lambda step: scene(all_times[step]), len(all_times), folder / "incidents.gif", by,
            progress=progress,
        )  # fmt: skip


def _around_track(
    times: npt.NDArray[np.datetime64], track: pd.DataFrame
) -> npt.NDArray[np.datetime64]:
    """Up to six consecutive times, the most probable position in the middle of them."""
    peak = np.searchsorted(times, strongest(track)["time"].to_datetime64())
    first = int(np.clip(peak - PANELS // 2, 0, max(len(times) - PANELS, 0)))
    return times[first : first + PANELS]


def lowest_pressure(
    found: pd.DataFrame, pressure: xr.DataArray, radius_km: float
) -> npt.NDArray[np.float64]:
    """Lowest sea-level pressure within a distance of each incident, hPa.

    Args:
        found: ``time, latitude, longitude``.
        pressure: Pa; dims ``(time, latitude, longitude)``.
        radius_km: the distance; the nearest grid point always counts.
    """
    latitude, longitude = (pressure[k].to_numpy() for k in ("latitude", "longitude"))
    spacing = abs(float(latitude[1] - latitude[0]))
    lowest = np.full(len(found), np.nan)
    low, high = limits(PRESSURE, "", "Pa")
    for time, here in found.groupby("time").indices.items():
        field = loaded(pressure.sel(time=time)).transpose("latitude", "longitude")
        values = field.where((field >= low) & (field <= high)).to_numpy() / 100.0
        for k in here:
            row = found.iloc[k]
            band = np.abs(latitude - row["latitude"]) <= radius_km / KM_PER_DEGREE + spacing
            km = great_circle_km(
                row["latitude"], row["longitude"], latitude[band][:, None], longitude[None]
            )
            near = values[band][km <= max(radius_km, km.min())]
            lowest[k] = np.nan if np.isnan(near).all() else np.nanmin(near)
    return lowest


def inside_map(truth: pd.DataFrame, found_map: xr.DataArray) -> pd.DataFrame:
    """The true incidents inside the central cells that the map has, where it is not missing.

    Of an area (``extent``) any part may lie there.
    """
    half = [found_map.attrs[f"cell_{axis}"] / 2 for axis in ("latitude", "longitude")]
    latitude, longitude = found_map["latitude"].to_numpy(), found_map["longitude"].to_numpy()
    if "extent" in truth and len(truth):
        owner = np.repeat(np.arange(len(truth)), [len(area) for area in truth["extent"]])
        north, east = np.concatenate(truth["extent"].to_list())[:, :2].T
    else:
        owner = np.arange(len(truth))
        north, east = (truth[axis].to_numpy(dtype=float) for axis in ("latitude", "longitude"))
    inside = (north >= latitude.min() - half[0]) & (north <= latitude.max() + half[0])
    east = (east - longitude[0] + half[1]) % 360.0
    inside &= east <= longitude[-1] - longitude[0] + 2 * half[1]
    at = {
        "time": truth["time"].to_numpy()[owner[inside]],
        "latitude": north[inside],
        "longitude": east[inside] + longitude[0] - half[1],
    }
    keep = np.zeros(len(truth), dtype=bool)
    if inside.any():
        points = {axis: xr.DataArray(values) for axis, values in at.items()}
        known = found_map.sel(points, method="nearest").notnull().to_numpy()
        keep[owner[inside][known]] = True
    return truth[keep].reset_index(drop=True)
