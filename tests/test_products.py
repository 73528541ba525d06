"""What is made of a map: tables, pictures, an animation; and that nothing is fetched for it."""

import json
import socket
import urllib.request

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from conftest import SHARED
from PIL import Image

from data_pipelines.errors import InputError
from data_pipelines.fields import open_fields
from data_pipelines.schema import great_circle_km
from weather_tdr import coastlines as coast
from weather_tdr.calibration import Calibration
from weather_tdr.maps import Maps
from weather_tdr.model_files import load_detector
from weather_tdr.plots.maps import _east, incident_figure
from weather_tdr.plots.scene import Scene, Window
from weather_tdr.products import draw_maps, inside_map, lowest_pressure


@pytest.fixture
def detector(tiny_run):
    """One that finds something: the threshold is that of the tenth highest probability."""
    return load_detector(tiny_run / "uniform")


@pytest.fixture
def fields(detector, small_files):
    return open_fields([small_files[0]], **detector.open_arguments()).isel(time=slice(30, 36))


def test_everything_is_drawn_for_a_period(detector, fields, tmp_path):
    detector.incident_threshold = detector.calibration.prior
    maps = Maps(animation=True, figures=2)
    assert draw_maps(detector, fields, tmp_path, maps, progress=False) == {}
    assert {p.name for p in (tmp_path / "figures").iterdir()} == {
        "incident_1.png", "incident_2.png", "sequence.png",
    }  # fmt: skip
    for path in (tmp_path / "figures").iterdir():
        with Image.open(path) as picture:
            colours = picture.convert("RGB").resize((200, 200)).getcolors(40_000)
            assert len(colours) > 50 and picture.size[0] > 600
    with Image.open(tmp_path / "incidents.gif") as animation:
        assert animation.n_frames == fields.sizes["time"]
    found = pd.read_csv(tmp_path / "incidents.csv")
    assert list(found) == [
        "time", "latitude", "longitude", "probability", "area_km2", "track_id", "pressure_hpa",
    ]  # fmt: skip
    assert (found["probability"] >= detector.incident_threshold).all() and len(found) > 3
    assert found["pressure_hpa"].between(880, 1080).all()
    # What is left of another run goes.
    draw_maps(detector, fields, tmp_path, Maps(figures=1), progress=False)
    assert not (tmp_path / "figures" / "incident_2.png").exists()


def test_a_region_across_greenwich_is_drawn_in_one_piece(detector, small, tmp_path):
    region = small[0].isel(time=slice(30, 36))
    region = region.assign_coords(longitude=(region["longitude"] + 180) % 360 - 180)
    region = region.sortby("longitude").sel(longitude=slice(-60, 60))
    region.to_netcdf(tmp_path / "region.nc")
    fields = open_fields([tmp_path / "region.nc"], **detector.open_arguments())
    detector.calibration = Calibration("platt", [-50.0, 50.0], [-44.0, 56.0])  # bold
    detector.incident_threshold = 0.1
    draw_maps(detector, fields, tmp_path / "out", Maps(figures=1), progress=False)
    found = pd.read_csv(tmp_path / "out" / "incidents.csv")
    assert len(found) and ((found["longitude"] >= 300) | (found["longitude"] <= 60)).all()
    with Image.open(tmp_path / "out" / "figures" / "incident_1.png") as picture:
        pixels = np.asarray(picture.convert("RGB"), dtype=int)[:600, 80:1000]
    # Shading (red far above blue) lies on the upper map too.
    assert (pixels[..., 0] - pixels[..., 2] > 60).sum() > 50


def test_nothing_found_is_said_and_shown(detector, fields, tmp_path):
    detector.incident_threshold = 1.1
    truth = pd.DataFrame(
        {"time": fields["time"].values[:1], "latitude": 0.0, "longitude": 0.0, "storm_id": "A"}
    )
    scores = draw_maps(detector, fields, tmp_path, Maps(figures=1), truth=truth, progress=False)
    assert (scores["hits"], scores["misses"], scores["far"]) == (
        0,
        1,
        pytest.approx(np.nan, nan_ok=True),
    )
    assert (tmp_path / "figures" / "incident_1.png").is_file()
    assert not (tmp_path / "figures" / "sequence.png").exists()
    assert json.loads((tmp_path / "incidents.geojson").read_text())["features"] == []
    assert pd.read_csv(tmp_path / "truth.csv")["hit"].tolist() == [False]


def test_incidents_are_judged_on_the_given_ground(detector, fields, tmp_path):
    detector.incident_threshold = detector.calibration.prior
    draw_maps(detector, fields, tmp_path / "a", Maps(figures=0), progress=False)
    everywhere = pd.read_csv(tmp_path / "a" / "incidents.csv")

    def north(table):
        return table[table["latitude"] > 0].reset_index(drop=True)

    truth = pd.DataFrame({"time": fields["time"].values[:1], "latitude": 40.0, "longitude": 0.0})
    scores = draw_maps(
        detector, fields, tmp_path / "b", Maps(figures=0), truth=truth, ground=north, progress=False
    )
    kept = pd.read_csv(tmp_path / "b" / "incidents.csv")
    assert 0 < len(kept) == (everywhere["latitude"] > 0).sum() < len(everywhere)
    assert scores["hits"] + scores["false_alarms"] == len(kept)


def test_longitudes_beyond_the_edge_stay_on_their_side():
    window = Window(160.0, 240.0, -60.0, -16.0)
    got = window.longitudes(pd.Series([158.0, 161.0, 241.0, -119.0]))
    assert got.tolist() == [158.0, 161.0, 241.0, 241.0]


def test_lowest_pressure_is_that_within_the_radius():
    rng = np.random.default_rng(0)
    latitude, longitude = np.arange(80.0, -81, -5), np.arange(0, 360.0, 5)
    pressure = xr.DataArray(
        rng.normal(100_000, 2000, (2, len(latitude), len(longitude))),
        dims=("time", "latitude", "longitude"),
        coords={
            "time": pd.date_range("2001-01-01", periods=2), "latitude": latitude,
            "longitude": longitude,
        },
    )  # fmt: skip
    pressure[0, 3, 4] = np.nan
    flawed = pressure.copy(deep=True)
    flawed[0, 3, 4] = -32767.0
    n = 40
    found = pd.DataFrame(
        {
            "time": pressure["time"].values[rng.integers(0, 2, n)],
            "latitude": rng.uniform(-78, 78, n), "longitude": rng.uniform(0, 360, n),
        }
    )  # fmt: skip
    got = lowest_pressure(found, pressure, 900.0)
    for k, row in found.iterrows():
        km = great_circle_km(row["latitude"], row["longitude"], latitude[:, None], longitude[None])
        inside = pressure.sel(time=row["time"]).values[km <= 900.0]
        assert got[k] == pytest.approx(np.nanmin(inside) / 100)
    np.testing.assert_array_equal(lowest_pressure(found, flawed, 900.0), got)
    nearest = lowest_pressure(found, pressure, 1.0)
    assert np.isfinite(nearest).sum() >= n - 1


def test_true_incidents_outside_the_map_do_not_count(detector, fields):
    from weather_tdr.maps import incident_map

    found_map = incident_map(detector, fields)
    north = float(found_map["latitude"].max()) + found_map.attrs["cell_latitude"] / 2
    truth = pd.DataFrame(
        {
            "time": fields["time"].values[0],
            "latitude": [north - 0.1, north + 0.1, 0.0], "longitude": [10.0, 10.0, 359.9],
        }
    )  # fmt: skip
    assert inside_map(truth, found_map)["latitude"].tolist() == [north - 0.1, 0.0]


def test_wrong_settings_are_refused():
    for wrong, words in (
        ({"tolerance": "soon"}, "maps.tolerance"),
        ({"tolerance": "-6h"}, "maps.tolerance"),
        ({"speed_km_h": 0.0}, "maps.speed_km_h"),
        ({"radius_km": 0.0}, "maps.radius_km"),
        ({"missed_steps": -1}, "maps.missed_steps"),
    ):
        with pytest.raises(InputError, match=words):
            Maps(**wrong)


@pytest.mark.parametrize(
    ("columns", "names"),
    [
        ({"hit": [True]}, {"catalogue, found", "catalogue, missed"}),
        ({}, {"catalogue"}),
        ({"hit": [True], "area_km2": [1e5]}, {"label, found", "label, missed"}),
    ],
)
def test_the_legend_says_whence_true_incidents_are(columns, names):
    time = pd.Timestamp("2001-01-01")
    field = xr.DataArray(
        np.full((1, 9, 12), 0.3), dims=("time", "latitude", "longitude"),
        coords=[[time], np.linspace(60.0, 40.0, 9), np.linspace(0.0, 27.5, 12)],
        attrs={"cell_latitude": 2.5, "cell_longitude": 2.5},
    )  # fmt: skip
    position = {"time": [time], "latitude": [50.0], "longitude": [10.0]}
    found = pd.DataFrame(position | {"probability": [0.3], "track_id": [1]})
    scene = Scene.at(time, field, found, None, pd.DataFrame(position | columns))
    (legend,) = incident_figure(scene).legends
    told = {text.get_text() for text in legend.get_texts()}
    assert told == names | {"found", "no map"}


def test_coastlines_are_never_fetched(monkeypatch, tmp_path):
    """Without data at hand there are none, and nobody asks the network."""
    pytest.importorskip("shapefile")

    def refuse(*_, **__):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    for name in ("CARTOPY_DATA_DIR", "XDG_DATA_HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    coast.coastlines.cache_clear()
    try:
        assert coast.coastlines() == []
        if SHARED.is_dir():
            monkeypatch.setenv("CARTOPY_DATA_DIR", str(SHARED / "naturalearth"))
            coast.coastlines.cache_clear()
            lines = coast.coastlines()
            assert len(lines) > 100
            longitude, latitude = np.concatenate(lines).T
            assert -180 <= longitude.min() < -170 and 83 < latitude.max() < 84  # Greenland
    finally:
        coast.coastlines.cache_clear()


@pytest.mark.parametrize(
    ("west", "columns", "wanted"),
    [
        (0.0, 36, (-5.0, 355.0)),
        (8.75, 36, (3.75, 363.75)),
        (-180.0, 36, (-185.0, 175.0)),
        (300.0, 8, (-60.0, 10.0)),  # a region across Greenwich
        (120.0, 28, (120.0, 390.0)),  # one that is wider than half the globe
    ],
)
def test_the_window_of_a_field(west, columns, wanted):
    field = xr.DataArray(
        np.zeros((3, columns)), dims=("latitude", "longitude"),
        coords={"latitude": [50.0, 40.0, 30.0], "longitude": west + 10.0 * np.arange(columns)},
    )  # fmt: skip
    window = Window.of(field)
    assert (window.west, window.east) == wanted and (window.south, window.north) == (30.0, 50.0)


def test_longitudes_beside_an_axis():
    told = [_east(degrees, None) for degrees in (-190.0, -180.0, -37.5, 0.0, 350.0, 360.0, 390.0)]
    minus = "\N{MINUS SIGN}"
    assert told == ["170", f"{minus}180", f"{minus}37.5", "0", "350", "360", "30"]


@pytest.mark.parametrize("first", [0.0, 5.0, 8.75])
def test_a_map_of_the_globe_has_no_open_edge(first):
    """Also one with a point a patch, whose cells begin within the window."""
    longitude = np.arange(first, first + 360.0, 10.0)
    field = xr.DataArray(
        np.broadcast_to(longitude, (3, 36)).copy(), dims=("latitude", "longitude"),
        coords={"latitude": [50.0, 40.0, 30.0], "longitude": longitude},
    )  # fmt: skip
    window = Window(-1.25, 358.75, 30.0, 50.0)
    cut = window.cut(field)
    east = cut["longitude"].to_numpy()
    assert (np.diff(east) == 10.0).all()
    assert east[0] - 5.0 <= window.west and east[-1] + 5.0 >= window.east
    np.testing.assert_allclose(cut.isel(latitude=0) % 360.0, east % 360.0)
