"""Incidents for other programs: CSV, GeoJSON and CF trajectories."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from data_pipelines.writing import no_nan, write_atomically, written_whole

OBSERVED: dict[str, dict[str, str]] = {
    "latitude": {"standard_name": "latitude", "units": "degrees_north"},
    "longitude": {"standard_name": "longitude", "units": "degrees_east"},
    "probability": {"long_name": "highest probability of an incident", "units": "1"},
    "area_km2": {
        "long_name": "area with at least half of the highest probability", "units": "km2"
    },
    "pressure_hpa": {
        "long_name": "lowest air pressure at mean sea level nearby",
        "standard_name": "air_pressure_at_mean_sea_level",
        "units": "hPa",
    },
    "distance_km": {"long_name": "distance to the incident of the catalogue", "units": "km"},
}  # fmt: skip


def write_incidents(found: pd.DataFrame, folder: Path, source: str, *, areas: bool = False) -> None:
    """Writes `incidents.csv`, `incidents.geojson` and `incidents.nc`.

    Args:
        found: ``time, latitude, longitude, probability, area_km2, track_id``, further columns
            if known.
        folder: where to.
        source: what found them, for the metadata.
        areas: they are whole regions at or above the threshold, not peaks.
    """
    write_atomically(folder / "incidents.csv", found.to_csv(index=False))
    write_atomically(folder / "incidents.geojson", json.dumps(to_geojson(found)) + "\n")
    with written_whole(folder / "incidents.nc") as partial:
        to_trajectories(found, source, areas=areas).to_netcdf(partial, engine="netcdf4")


def read_incidents(path: Path) -> pd.DataFrame:
    """Reads `incidents.csv` or `truth.csv`: names of storms as text, empty where there is none."""
    columns = pd.read_csv(path, nrows=0).columns
    return pd.read_csv(
        path,
        parse_dates=["time"],
        dtype={"storm_id": str},
        keep_default_na=False,  # a storm may be named NA
        na_values={str(c): [""] for c in columns if c != "storm_id"},
    )


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


def to_trajectories(found: pd.DataFrame, source: str, *, areas: bool = False) -> xr.Dataset:
    """Incidents as CF trajectories, a contiguous ragged array: one track after the other.

    Args:
        found: as `write_incidents` takes it.
        source: what found them.
        areas: as of `write_incidents`.

    Source: CF conventions 1.10, H.4.3, contiguous ragged array representation of trajectories.
    """
    ordered = found.sort_values(["track_id", "time"], kind="stable")
    tracks, sizes = np.unique(ordered["track_id"].to_numpy(dtype=np.int64), return_counts=True)
    dataset = xr.Dataset(
        {
            "track_id": (
                "trajectory", tracks, {"cf_role": "trajectory_id", "long_name": "track number"}
            ),
            "rowSize": (
                "trajectory", sizes.astype(np.int32),
                {"sample_dimension": "obs", "long_name": "positions of the track"},
            ),
        }
    )  # fmt: skip
    names = {"latitude": "lat", "longitude": "lon"}  # as other programs expect them
    dataset["time"] = ("obs", ordered["time"].to_numpy("datetime64[ns]"))
    dataset["time"].attrs = {"standard_name": "time", "long_name": "time (UTC)"}
    dataset["time"].encoding = {"units": "seconds since 1970-01-01", "dtype": "int64"}
    for name, described in OBSERVED.items():
        if name in ordered:
            values = ordered[name].to_numpy(dtype=np.float64)
            if areas and name == "area_km2":
                described = described | {"long_name": "area at or above the threshold"}
            dataset[names.get(name, name)] = ("obs", values, described)
    if "matched" in ordered:
        flags = {"flag_values": np.array([0, 1], dtype=np.int8), "flag_meanings": "no yes"}
        matched = ordered["matched"].to_numpy(dtype=np.int8)
        dataset["matched"] = ("obs", matched, {"long_name": "matches the catalogue", **flags})
    dataset = dataset.set_coords(["time", "lat", "lon"])
    dataset.attrs = {
        "Conventions": "CF-1.10",
        "featureType": "trajectory",
        "title": "Rare weather incidents",
        "source": source,
    }
    return dataset
