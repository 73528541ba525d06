import json
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from weather_tdr.incident_files import (
    read_incidents,
    to_geojson,
    to_trajectories,
    write_incidents,
)


def table(n=7):
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "time": pd.date_range("2001-01-01", periods=n, freq="6h"),
            "latitude": rng.uniform(-60, 60, n),
            "longitude": rng.uniform(0, 360, n),
            "probability": rng.random(n),
            "area_km2": rng.random(n) * 1e6,
            "track_id": [1, 2, 1, 2, 3, 1, 3][:n],
            "pressure_hpa": np.where(np.arange(n) == 2, np.nan, 980.0),
            "matched": np.arange(n) % 2 == 0,
            "distance_km": np.where(np.arange(n) % 2 == 0, 50.0, np.nan),
            "storm_id": ["A", ""] * (n // 2) + [""] * (n % 2),
        }
    )


def test_trajectories_follow_cf_and_hold_the_table(tmp_path):
    write_incidents(table(), tmp_path, "a test")
    with xr.open_dataset(tmp_path / "incidents.nc") as back:
        assert back.attrs["featureType"] == "trajectory"
        assert back["track_id"].attrs["cf_role"] == "trajectory_id"
        assert back["rowSize"].attrs["sample_dimension"] == "obs"
        assert back["rowSize"].values.sum() == back.sizes["obs"] == 7
        for name, standard in (("lat", "latitude"), ("lon", "longitude"), ("time", "time")):
            assert back[name].attrs["standard_name"] == standard
        assert "lat" in back["probability"].coords
        of_obs = np.repeat(back["track_id"].values, back["rowSize"].values)
        wanted = table().sort_values(["track_id", "time"])
        np.testing.assert_array_equal(of_obs, wanted["track_id"])
        np.testing.assert_array_equal(back["time"].values, wanted["time"])
        np.testing.assert_array_equal(back["pressure_hpa"].values, wanted["pressure_hpa"])


def test_trajectories_open_in_huracanpy(tmp_path):
    if find_spec("huracanpy") is None:
        pytest.skip("huracanpy is not installed")
    write_incidents(table(), tmp_path, "a test")
    # In a process of its own: it and xclim cannot share a registry of units.
    code = (
        "import huracanpy; tracks = huracanpy.load('incidents.nc');"
        "tracks[['track_id', 'lat', 'lon', 'time']].to_dataframe().to_csv('back.csv', index=False)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    tracks = pd.read_csv(tmp_path / "back.csv", parse_dates=["time"])
    wanted = table().sort_values(["track_id", "time"])
    np.testing.assert_array_equal(tracks["track_id"], wanted["track_id"])
    np.testing.assert_array_equal(tracks["time"], wanted["time"])
    np.testing.assert_allclose(tracks["lat"], wanted["latitude"])
    np.testing.assert_allclose(tracks["lon"], wanted["longitude"])


def test_geojson_is_rfc_7946(tmp_path):
    write_incidents(table(), tmp_path, "a test")
    text = (tmp_path / "incidents.geojson").read_text()
    assert "NaN" not in text
    features = json.loads(text)["features"]
    assert features == json.loads(json.dumps(to_geojson(table())))["features"]
    for feature, row in zip(features, table().to_dict("records"), strict=True):
        east, north = feature["geometry"]["coordinates"]
        assert -180 <= east < 180
        assert round((east - row["longitude"]) / 360, 9) in (-1, 0)
        assert north == row["latitude"]
        assert feature["properties"]["time"].endswith("Z")
    assert features[2]["properties"]["pressure_hpa"] is None


def test_an_empty_table_makes_files_that_open(tmp_path):
    write_incidents(table()[:0], tmp_path, "a test")
    with xr.open_dataset(tmp_path / "incidents.nc") as back:
        assert back.sizes["obs"] == 0 and back.attrs["featureType"] == "trajectory"
    assert pd.read_csv(tmp_path / "incidents.csv").columns[0] == "time"
    assert to_trajectories(table()[:0], "x").sizes["trajectory"] == 0


@pytest.mark.parametrize(("areas", "what"), [(False, "half of the highest"), (True, "threshold")])
def test_what_an_area_is(tmp_path, areas, what):
    write_incidents(table(), tmp_path, "a test", areas=areas)
    with xr.open_dataset(tmp_path / "incidents.nc") as back:
        assert what in back["area_km2"].attrs["long_name"]


@pytest.mark.parametrize("names", [["2026001", ""], ["0012", "0013"], ["2026E12", "NA"], ["", ""]])
def test_names_of_storms_come_back_as_they_were(tmp_path, names):
    written = table(2).assign(storm_id=names)
    write_incidents(written, tmp_path, "a test")
    back = read_incidents(tmp_path / "incidents.csv")
    assert back["storm_id"].tolist() == names
    assert back["time"].tolist() == written["time"].tolist()
