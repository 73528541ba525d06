import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines.schema import EARTH_RADIUS_KM, great_circle_km
from weather_tdr.candidates import find_peaks, find_regions
from weather_tdr.products import inside_map


def globe(values, spacing=5.0):
    values = np.asarray(values, dtype=float)
    return xr.DataArray(
        values,
        dims=("time", "latitude", "longitude"),
        coords={
            "time": pd.date_range("2001-01-01", periods=len(values), freq="6h"),
            "latitude": 60.0 - spacing * np.arange(values.shape[1]),
            "longitude": spacing * np.arange(values.shape[2]),
        },
    )


def bump(latitude, longitude, height, width_km, spacing=2.0):
    lat = np.arange(80.0, -80.1, -spacing)
    lon = np.arange(0, 360, spacing)
    km = great_circle_km(latitude, longitude, lat[:, None], lon[None])
    return lat, lon, height * np.exp(-0.5 * (km / width_km) ** 2)


@settings(max_examples=60, deadline=None)
@given(latitude=st.floats(-60, 60), longitude=st.floats(0, 359.9), height=st.floats(0.1, 1.0))
def test_a_smooth_bump_is_one_incident_at_its_centre(latitude, longitude, height):
    lat, lon, values = bump(latitude, longitude, height, 500.0)
    field = xr.DataArray(
        values[None],
        coords={"time": [np.datetime64("2001-01-01", "ns")], "latitude": lat, "longitude": lon},
        dims=("time", "latitude", "longitude"),
    )
    found = find_peaks(field, 1200.0, 0.05)
    assert len(found) == 1
    km = great_circle_km(found["latitude"][0], found["longitude"][0], latitude, longitude)
    assert km < 60.0  # a quarter of the spacing
    assert 0.9 * height < found["probability"][0] <= height
    # Half of the height is reached at sqrt(2 ln 2) widths: the area of that cap.
    half = 500.0 * np.sqrt(2 * np.log(2)) / EARTH_RADIUS_KM
    cap = 2 * np.pi * EARTH_RADIUS_KM**2 * (1 - np.cos(half))
    assert found["area_km2"][0] == pytest.approx(cap, rel=0.25)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10_000), separation=st.floats(100, 5000))
def test_peaks_are_apart_and_every_maximum_is_near_one(seed, separation):
    rng = np.random.default_rng(seed)
    values = rng.random((1, 13, 72))
    values[rng.random(values.shape) < 0.1] = np.nan
    field = globe(values)
    found = find_peaks(field, separation, 0.0)
    assert (np.diff(found["probability"]) <= 0).all()

    def unregioned(values, latitude, longitude, peak, *_):
        return np.array([peak[0]]), np.array([peak[1]])

    with pytest.MonkeyPatch.context() as patch:  # positions of the peaks themselves
        patch.setattr("weather_tdr.candidates._around", unregioned)
        at = find_peaks(field, separation, 0.0)
    km = great_circle_km(
        at["latitude"].to_numpy()[:, None], at["longitude"].to_numpy()[:, None],
        at["latitude"].to_numpy()[None], at["longitude"].to_numpy()[None],
    )  # fmt: skip
    assert (km[~np.eye(len(km), dtype=bool)] >= separation).all()
    # Every local maximum is a peak, or lies within reach of one at least as high.
    latitude, longitude = field["latitude"].values, field["longitude"].values
    filled = np.where(np.isnan(values[0]), -1.0, values[0])
    for y, x in np.argwhere(filled >= 0):
        around = filled[max(y - 1, 0) : y + 2][:, [(x - 1) % 72, x, (x + 1) % 72]]
        if filled[y, x] == around.max():
            km = great_circle_km(latitude[y], longitude[x], at["latitude"], at["longitude"])
            assert (km < max(separation, 1e-3))[at["probability"] >= filled[y, x]].any()
    highest = np.unravel_index(np.nanargmax(values[0]), values.shape[1:])
    assert found["probability"].iloc[0] == values[0][highest]
    # Filtering by a threshold is the same as looking only above it.
    for threshold in (0.5, 0.9):
        some = find_peaks(field, separation, threshold)
        kept = found[found["probability"] >= threshold].reset_index(drop=True)
        pd.testing.assert_frame_equal(some, kept)


def test_a_plateau_is_one_incident_in_its_middle():
    values = np.zeros((1, 13, 72))
    values[0, 4:8, 70:72] = values[0, 4:8, 0:2] = 0.7  # 4 x 4 points across the prime meridian
    found = find_peaks(globe(values), 2500.0, 0.1)
    assert len(found) == 1
    assert found["latitude"][0] == pytest.approx(32.5, abs=0.7)
    assert (found["longitude"][0] + 180) % 360 - 180 == pytest.approx(-2.5, abs=1e-6)


def test_a_point_belongs_to_its_nearest_peak():
    """A ridge between two peaks is shared out, so that no area counts twice."""
    values = np.zeros((1, 13, 72))
    values[0, 6, 10:22] = 0.8
    values[0, 6, 10], values[0, 6, 21] = 0.9, 0.89
    one = find_peaks(globe(values), 6000.0, 0.1)
    two = find_peaks(globe(values), 3000.0, 0.1)
    assert len(one) == 1 and len(two) == 2
    edges = np.sin(np.deg2rad([27.5, 32.5]))
    assert two["area_km2"].sum() == pytest.approx(
        12 * EARTH_RADIUS_KM**2 * np.deg2rad(5) * np.diff(edges)[0]
    )
    assert np.diff(np.sort(two["longitude"]))[0] == pytest.approx(30.0, abs=0.6)


def test_edges_of_a_region_do_not_touch():
    values = np.zeros((1, 13, 10))
    values[0, 6, 0], values[0, 6, 9] = 0.9, 0.8
    assert len(find_peaks(globe(values), 500.0, 0.1)) == 2


def test_regions_join_across_the_date_line_of_the_map():
    values = np.zeros((1, 5, 36))
    values[0, 2, [34, 35, 0, 1]] = 0.9
    values[0, 4, 10] = 0.7
    values[0, 0, 20] = np.nan
    field = globe(values, 10.0).assign_coords(latitude=[20.0, 10, 0, -10, -20])
    found = find_regions(field, 0.5)
    cell = EARTH_RADIUS_KM**2 * np.deg2rad(10) * 2 * np.sin(np.deg2rad(5))
    assert found["area_km2"][0] == pytest.approx(4 * cell)
    assert found["longitude"][0] == pytest.approx(355.0)
    assert found["latitude"][0] == pytest.approx(0.0)
    regional = find_regions(field.assign_coords(longitude=np.arange(0, 36.0)), 0.5)
    np.testing.assert_allclose(regional["area_km2"][:2] * 10 / cell, 2.0)
    assert len(regional) == 3


def test_a_ring_has_a_position_of_its_own():
    """All around the globe at 60 south: its centre is the pole, where nothing was found."""
    values = np.zeros((1, 13, 72))
    values[0, 2] = 0.9
    values[0, 2, 40] = 0.95
    field = globe(values)
    south = float(field["latitude"][2])
    found = find_regions(field, 0.5)
    assert len(found) == 1 and found["latitude"][0] == south
    assert found["longitude"][0] == float(field["longitude"][40]) % 360.0
    extent = found["extent"][0]
    assert len(extent) == 72 and (extent[:, 0] == south).all() and (extent[:, 2:] == 2.5).all()


@pytest.mark.parametrize("hole", [1, 3])
def test_an_area_counts_where_any_of_it_is_on_the_map(hole):
    """A block with a hole, which the map lacks too: its position is a point of it; it counts."""
    values = np.zeros((1, 13, 72))
    values[0, 4:9, 10:15] = 0.9
    edge = (5 - hole) // 2
    middle = (0, slice(4 + edge, 9 - edge), slice(10 + edge, 15 - edge))
    values[middle] = np.nan
    field = globe(values).assign_attrs(cell_latitude=5.0, cell_longitude=5.0)
    found = find_regions(field, 0.5)
    position = {k: float(found[k][0]) for k in ("latitude", "longitude")}
    assert float(field.sel(position, method="nearest")[0]) == 0.9
    assert len(inside_map(found, field)) == 1
    everywhere = field.where(field < 0.5)  # the map lacks all of the area
    assert len(inside_map(found, everywhere)) == 0


def test_nothing_above_the_floor_is_an_empty_table():
    found = find_peaks(globe(np.zeros((2, 13, 72))), 500.0, 0.1)
    assert found.empty and found["time"].dtype == "datetime64[ns]"
