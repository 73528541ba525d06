import itertools

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines.schema import great_circle_km
from weather_tdr.matching import find_incidents, match_incidents


def points(n, rng):
    return pd.DataFrame(
        {
            "time": pd.to_datetime(["2001-01-01"] * n),
            "latitude": 50 + 4 * rng.random(n),
            "longitude": (358 + 6 * rng.random(n)) % 360,
        }
    )


@settings(max_examples=60, deadline=None)
@given(a=st.integers(1, 4), b=st.integers(1, 4), seed=st.integers(0, 10_000))
def test_best_assignment_by_brute_force(a, b, seed):
    rng = np.random.default_rng(seed)
    found, truth = points(a, rng), points(b, rng)
    km = great_circle_km(
        found["latitude"].to_numpy()[:, None],
        found["longitude"].to_numpy()[:, None],
        truth["latitude"].to_numpy()[None],
        truth["longitude"].to_numpy()[None],
    )
    best = (0, 0.0)
    for size in range(min(a, b) + 1):
        for rows in itertools.combinations(range(a), size):
            for columns in itertools.permutations(range(b), size):
                d = km[list(rows), list(columns)]
                if (d <= 200).all():
                    best = max(best, (size, -float(d.sum())))
    got = match_incidents(found, truth, 200.0)
    summary = got.summary()
    assert summary["hits"] == best[0]
    assert np.nansum(got.distance_km) == pytest.approx(-best[1])
    assert summary["hits"] + summary["misses"] == b
    assert summary["hits"] + summary["false_alarms"] == a
    used = got.found[got.found >= 0]
    assert len(set(used)) == len(used)


def test_times_are_kept_apart():
    rng = np.random.default_rng(0)
    found, truth = points(1, rng), points(1, rng)
    truth["time"] += pd.Timedelta(hours=6)
    assert match_incidents(found, truth, 1e5).summary()["hits"] == 0
    assert np.isnan(match_incidents(found, truth).summary()["mean_distance_km"])


def test_regions_join_across_the_date_line_of_the_map():
    values = np.zeros((1, 5, 36))
    values[0, 2, [34, 35, 0, 1]] = 0.9
    values[0, 4, 10] = 0.7
    values[0, 0, 20] = np.nan
    field = xr.DataArray(
        values,
        dims=("time", "latitude", "longitude"),
        coords={
            "time": pd.to_datetime(["2001-01-01"]),
            "latitude": [20.0, 10, 0, -10, -20],
            "longitude": np.arange(0, 360, 10.0),
        },
    )
    found = find_incidents(field, 0.5)
    assert list(found["points"]) == [4, 1]
    assert found["longitude"][0] == pytest.approx(355.0)
    assert found["latitude"][0] == pytest.approx(0.0)
    regional = find_incidents(
        field.isel(longitude=slice(0, 36, 1)).assign_coords(longitude=np.arange(0, 36.0)), 0.5
    )
    assert list(regional["points"]) == [2, 2, 1]
