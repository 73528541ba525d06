"""What a map becomes for people: NetCDF, incident table, GeoJSON, figures, matching with truth."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import xarray as xr

from data_pipelines.schema import PRESSURE, PRESSURE_NAMES
from weather_tdr.checkpoints import write_atomically
from weather_tdr.maps import Maps, incident_map, write_map
from weather_tdr.matching import find_incidents, match_incidents
from weather_tdr.model_files import Detector, no_nan
from weather_tdr.plots import incident_figure, probability_series, save_figure


def draw_maps(
    detector: Detector,
    fields: xr.DataArray,
    folder: Path,
    maps: Maps,
    *,
    truth: pd.DataFrame | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Incident map, table and figures of any fields.

    Args:
        detector: trained and evaluated.
        fields: as `open_fields` gives them.
        folder: for `incident_map.nc`, `incidents.csv`, `incidents.geojson`, `figures/`.
        maps: resolution, matching radius, number of figures.
        truth: incidents that there are at these times: ``time, latitude, longitude``.
        progress: shows a progress bar.

    Returns:
        Hits, misses, false alarms and mean distance; empty without `truth`.
    """
    found_map = incident_map(detector, fields, resolution=maps.resolution, progress=progress)
    write_map(found_map, folder / "incident_map.nc", detector)
    found = find_incidents(found_map, detector.threshold)
    summary: dict[str, Any] = {}
    if truth is not None:
        truth = inside_map(truth, found_map)
        matching = match_incidents(found, truth, maps.radius_km)
        found["matched"] = matching.found >= 0
        found["distance_km"] = matching.distance_km
        summary = matching.summary()
    write_atomically(folder / "incidents.csv", found.to_csv(index=False))
    write_atomically(folder / "incidents.geojson", json.dumps(to_geojson(found)) + "\n")
    for old in (folder / "figures").glob("incident_*.png"):
        old.unlink()
    if detector.whole_field:
        figure = probability_series(found_map, detector.threshold, truth, detector.method)
        save_figure(figure, folder / "figures" / "probability.png")
        return summary
    pressure = pressure_now(fields)
    strongest = found.sort_values("probability", ascending=False).drop_duplicates("time")
    times = list(strongest["time"].head(maps.figures))
    if not times and maps.figures and bool(found_map.notnull().any()):
        # Nothing found: show where the network was least sure of that.
        times = [pd.Timestamp(found_map.max(["latitude", "longitude"]).idxmax("time").item())]
    for rank, time in enumerate(times, start=1):
        figure = incident_figure(
            found_map.sel(time=time),
            found[found["time"] == time],
            pressure=None if pressure is None else pressure.sel(time=time).compute(),
            truth=None if truth is None else truth[truth["time"] == time],
            title=f"Incidents found by {detector.method}, {time:%Y-%m-%d %H} UTC "
            f"(threshold {detector.threshold:.2f})",
        )
        save_figure(figure, folder / "figures" / f"incident_{rank}.png")
    return summary


def to_geojson(found: pd.DataFrame) -> dict[str, Any]:
    """Incidents as GeoJSON points, longitudes in [-180, 180) (RFC 7946)."""
    features = []
    for row in found.to_dict("records"):
        longitude = (row.pop("longitude") + 180.0) % 360.0 - 180.0
        latitude = row.pop("latitude")
        row["time"] = pd.Timestamp(row["time"]).isoformat() + "Z"
        features.append(
            {
                "type": "Feature",
                "geometry": {"type": "Point", "coordinates": [longitude, latitude]},
                "properties": no_nan(row),
            }
        )
    return {"type": "FeatureCollection", "features": features}


def inside_map(truth: pd.DataFrame, found_map: xr.DataArray) -> pd.DataFrame:
    """The true incidents inside the central cells that the map has, where it is not missing."""
    half = [found_map.attrs[f"cell_{axis}"] / 2 for axis in ("latitude", "longitude")]
    latitude, longitude = found_map["latitude"].to_numpy(), found_map["longitude"].to_numpy()
    inside = truth["latitude"].between(latitude.min() - half[0], latitude.max() + half[0])
    east = (truth["longitude"] - longitude[0] + half[1]) % 360.0
    inside &= east <= longitude[-1] - longitude[0] + 2 * half[1]
    chosen: pd.DataFrame = truth[inside].reset_index(drop=True)
    if chosen.empty:
        return chosen
    at = {axis: xr.DataArray(chosen[axis].to_numpy()) for axis in ("time", "latitude")}
    at["longitude"] = xr.DataArray(
        (chosen["longitude"].to_numpy() - longitude[0] + half[1]) % 360.0 + longitude[0] - half[1]
    )
    there = found_map.sel(at, method="nearest").notnull().to_numpy()
    return chosen[there].reset_index(drop=True)


def pressure_now(fields: xr.DataArray) -> xr.DataArray | None:
    """Sea-level pressure without lag, Pa, if it is among the fields."""
    for i, name in enumerate(fields["variable"].values):
        standard = str(fields["standard_name"].values[i])
        if str(fields["lag"].values[i]) == "0h" and (
            standard == PRESSURE or str(name) in PRESSURE_NAMES
        ):
            return fields.isel(variable=i)
    return None
