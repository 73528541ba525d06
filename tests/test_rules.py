"""The closed contour by brute force, and the rules on fields whose answer is known."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import label as connected

from data_pipelines.schema import great_circle_km
from weather_tdr.candidates import find_peaks
from weather_tdr.rules import (
    apply_rule,
    cell_scores,
    closed_contours,
    contour_depth,
    deepening,
    one_a_time,
)

LATITUDE, LONGITUDE = np.arange(60.0, 19.9, -4.0), np.arange(0, 360, 6.0)


def field(values, latitude=LATITUDE, longitude=LONGITUDE):
    return xr.DataArray(
        np.asarray(values, float),
        dims=("time", "latitude", "longitude"),
        coords={
            "time": pd.date_range("2001-01-01", periods=len(values), freq="6h"),
            "latitude": latitude,
            "longitude": longitude,
        },
    )


def by_flooding(values, minimum, radius_km, wraps):
    """The lowest level at which water from the minimum reaches what is away, by trying all."""
    y, x = minimum
    km = great_circle_km(LATITUDE[y], LONGITUDE[x], LATITUDE[:, None], LONGITUDE[None])
    away = km > radius_km
    away[[0, -1]] = True  # the edge of what is known
    if not wraps:
        away[:, [0, -1]] = True
    for level in np.sort(np.unique(values)):
        parts, _ = connected(values <= level, structure=np.ones((3, 3)))
        if wraps:  # joined through a second globe beside the first
            twice, _ = connected(np.tile(values <= level, 3), structure=np.ones((3, 3)))
            n = values.shape[1]
            own = (twice == twice[y, x + n]).reshape(len(values), 3, n).any(axis=1)
        else:
            own = parts == parts[y, x]
        if values[y, x] <= level and (own & away).any():
            return level - values[y, x]
    raise AssertionError


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), radius=st.floats(300, 4000), wraps=st.booleans())
def test_depth_is_the_level_of_the_flood(seed, radius, wraps):
    rng = np.random.default_rng(seed)
    values = rng.normal(1000, 10, (len(LATITUDE), len(LONGITUDE)))
    inner = values[2:-2, 2:-2]
    y, x = np.unravel_index(inner.argmin(), inner.shape)
    minimum = (int(y) + 2, int(x) + 2)
    got = contour_depth(values, LATITUDE, LONGITUDE, minimum, radius, wraps)
    assert got == pytest.approx(by_flooding(values, minimum, radius, wraps))


def test_a_round_low_is_as_deep_as_its_rim():
    km = great_circle_km(40.0, 0.0, LATITUDE[:, None], LONGITUDE[None])
    low = 101_000 - 3000 * np.exp(-0.5 * (km / 700) ** 2)  # across the edge of the map
    depths = closed_contours(field([low, np.full_like(low, 101_000)]), 1200.0)
    peaks = find_peaks(depths, 600.0, 0.1)
    deepest = peaks.iloc[0]
    assert deepest["time"] == pd.Timestamp("2001-01-01")
    assert great_circle_km(deepest["latitude"], deepest["longitude"], 40.0, 0.0) < 1.0
    beyond = 30 * (1 - np.exp(-0.5 * (km[km > 1200].min() / 700) ** 2))
    assert deepest["probability"] == pytest.approx(beyond, rel=0.05)
    assert len(peaks) == 1


def test_an_open_trough_is_no_closed_low():
    trough = 101_000 + 100.0 * np.abs(np.arange(len(LATITUDE)) - 5)[:, None] + np.zeros(60)
    trough[5] -= 10.0 * np.arange(60)  # falls all the way along the trough
    depths = closed_contours(field([trough], longitude=np.arange(0, 300, 5.0)), 900.0)
    assert (depths.values[0, 5, :59] == 0).all()


def test_missing_values_are_the_edge_of_what_is_known():
    km = great_circle_km(40.0, 180.0, LATITUDE[:, None], LONGITUDE[None])
    low = 101_000 - 3000 * np.exp(-0.5 * (km / 700) ** 2)
    low[5, 31] = np.nan
    depths = closed_contours(field([low]), 1200.0)
    assert depths.sel(latitude=40.0, longitude=180.0).item() < 5.0


def test_deepening_is_the_fall_in_hectopascals():
    before = np.full((1, len(LATITUDE), len(LONGITUDE)), 101_000.0)
    now = before.copy()
    now[0, 5, 10] -= 2500.0
    fall = deepening(field(now), field(before))
    (row,) = find_peaks(fall, 500.0, 0.1).to_dict("records")
    assert (row["latitude"], row["longitude"]) == pytest.approx((40.0, 60.0))
    assert row["probability"] == pytest.approx(25.0)


def test_cell_scores_are_the_highest_inside_the_cell():
    rng = np.random.default_rng(0)
    scores = field(rng.random((2, len(LATITUDE), len(LONGITUDE))))
    samples = pd.DataFrame(
        {
            "time": scores["time"].values[[1, 0]],
            "latitude": [(LATITUDE[4] + LATITUDE[5]) / 2, (LATITUDE[2] + LATITUDE[3]) / 2],
            "longitude": [(LONGITUDE[59] + 360.0) / 2, (LONGITUDE[7] + LONGITUDE[8]) / 2],
        }
    )
    got = cell_scores(scores, samples, (8.0, 12.0))
    values = scores.values
    assert got[0] == values[1, 4:6][:, [59, 0]].max()
    assert got[1] == values[0, 2:4, 7:9].max()


@pytest.mark.parametrize("whole", [False, True])
def test_some_steps_at_once_give_what_all_give(monkeypatch, whole):
    rng = np.random.default_rng(0)
    now, before = (
        field(rng.normal(101_000, 900, (7, len(LATITUDE), len(LONGITUDE)))) for _ in range(2)
    )
    samples = pd.DataFrame(
        {
            "time": now["time"].values[rng.integers(0, 7, 30)],
            "latitude": (LATITUDE[4] + LATITUDE[5]) / 2, "longitude": LONGITUDE[7] + 3.0,
        }
    )  # fmt: skip
    cell = (44.0, 360.0) if whole else (8.0, 12.0)
    if whole:
        samples = samples.assign(latitude=40.0, longitude=177.0)
    given = (deepening, [now.chunk(time=3), before], samples, cell, 900.0)
    monkeypatch.setattr("weather_tdr.rules.STEPS_AT_ONCE", 100)
    once = apply_rule(*given, whole=whole)
    monkeypatch.setattr("weather_tdr.rules.STEPS_AT_ONCE", 2)
    parts = apply_rule(*given, whole=whole)
    pd.testing.assert_frame_equal(once.peaks, parts.peaks)
    np.testing.assert_array_equal(once.samples, parts.samples)
    fall = (before - now) / 100
    step = pd.Index(now["time"].values).get_indexer(samples["time"])
    if whole:
        assert len(once.peaks) == 7
        np.testing.assert_allclose(once.samples, fall.values.max(axis=(1, 2))[step])
    else:
        np.testing.assert_allclose(once.samples, fall.values[step, 4:6, 7:9].max(axis=(1, 2)))


def test_a_whole_field_has_one_peak_a_time():
    peaks = pd.DataFrame(
        {
            "time": pd.to_datetime(["2001-01-01", "2001-01-01", "2001-01-02"]),
            "latitude": 40.0, "longitude": 20.0, "probability": [3.0, 5.0, 1.0], "area_km2": 1.0,
        }
    )  # fmt: skip
    scores = field(np.zeros((2, len(LATITUDE), len(LONGITUDE))))
    one = one_a_time(peaks, scores)
    assert one["probability"].tolist() == [5.0, 1.0]
    assert one["latitude"].tolist() == [40.0, 40.0] and one["longitude"].tolist() == [177.0] * 2


def round_low(latitude, longitude, north, east):
    """Pressure that rises with the distance from a point, 10 hPa in 1,000 km; Pa."""
    km = great_circle_km(north, east, latitude[:, None], longitude[None])
    return xr.DataArray(
        101_000.0 + km[None],
        dims=("time", "latitude", "longitude"),
        coords={"time": [pd.Timestamp("2001-01-01")], "latitude": latitude, "longitude": longitude},
    )


@pytest.mark.parametrize("south", [False, True])
@pytest.mark.parametrize("edge", [90.0, 89.0])  # rows at the poles, or half a row from them
def test_paths_go_over_the_poles_of_a_globe(edge, south):
    """A low near a pole is as deep as the same low anywhere else."""
    latitude = np.arange(edge, -edge - 1.0, -2.0)
    longitude = np.arange(0.0, 360.0, 2.0)
    north = float(latitude[3])  # 84 or 83 degrees
    if south:
        north = -north
    low = round_low(latitude, longitude, north, 120.0)
    depth = closed_contours(low, 1200.0).sel(latitude=north, longitude=120.0).item()
    assert depth == pytest.approx(12.0, abs=2.3)  # a step of the grid more, at most
    assert depth >= 12.0
    # A region ends there: what lies beyond its edge is not known.
    region = low.isel(longitude=slice(0, 100))
    assert closed_contours(region, 1200.0).sel(latitude=north, longitude=120.0).item() < 8.0


def test_a_low_at_the_pole_is_one_place(monkeypatch):
    """The row at a pole is flooded once, whichever of its columns is asked for."""
    latitude, longitude = np.arange(90.0, 59.0, -2.0), np.arange(0.0, 360.0, 4.0)
    low = round_low(latitude, longitude, 90.0, 0.0)
    low[:, 0] = low[0, 0, 0]  # the distance from the pole has rounding in it
    calls = []
    monkeypatch.setattr(
        "weather_tdr.rules.contour_depth",
        lambda *given: calls.append(1) or contour_depth(*given),
    )
    depths = closed_contours(low, 1200.0)
    assert len(calls) == 1
    assert depths.sel(latitude=90.0).values == pytest.approx(12.0, abs=2.3)
    assert (depths.sel(latitude=slice(88.0, None)) == 0).all()
