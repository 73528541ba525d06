import itertools

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching

from data_pipelines.following import best_pairs, follow
from data_pipelines.incidents import at_times, once_a_day
from data_pipelines.schema import great_circle_km
from weather_tdr.candidates import AXES, find_regions
from weather_tdr.maps import Maps
from weather_tdr.matching import match_incidents
from weather_tdr.verification import verify

HOUR = pd.Timedelta(hours=1)


def points(n, rng, steps=1):
    return pd.DataFrame(
        {
            "time": pd.Timestamp("2001-01-01") + 6 * HOUR * rng.integers(0, steps, n),
            "latitude": 50 + 4 * rng.random(n),
            "longitude": (358 + 6 * rng.random(n)) % 360,
        }
    )


def brute_force(cost):
    """Most finite pairs, then the least sum, over all assignments."""
    rows, columns = cost.shape
    best = (0, 0.0)
    for size in range(min(rows, columns) + 1):
        for some in itertools.combinations(range(rows), size):
            for others in itertools.permutations(range(columns), size):
                values = cost[list(some), list(others)]
                if np.isfinite(values).all():
                    best = max(best, (size, -float(values.sum())))
    return best


@settings(max_examples=60, deadline=None)
@given(a=st.integers(1, 4), b=st.integers(1, 4), seed=st.integers(0, 10_000), late=st.booleans())
def test_best_assignment_by_brute_force(a, b, seed, late):
    rng = np.random.default_rng(seed)
    found, truth = points(a, rng, 3), points(b, rng, 3)
    tolerance = 6.0 if late else 0.0
    km = great_circle_km(
        found["latitude"].to_numpy()[:, None],
        found["longitude"].to_numpy()[:, None],
        truth["latitude"].to_numpy()[None],
        truth["longitude"].to_numpy()[None],
    )
    hours = np.abs(found["time"].to_numpy()[:, None] - truth["time"].to_numpy()[None]) / HOUR
    cost = km + (hours / tolerance * 200.0 if late else 0.0)
    cost[(km > 200.0) | (hours > tolerance)] = np.inf
    pairs, total = brute_force(cost)
    got = match_incidents(found, truth, 200.0, tolerance)
    hit = got.found >= 0
    assert hit.sum() == got.hit.sum() == pairs
    chosen = cost[np.flatnonzero(hit), got.found[hit]]
    assert chosen.sum() == pytest.approx(-total)
    np.testing.assert_allclose(got.distance_km[hit], km[np.flatnonzero(hit), got.found[hit]])
    assert np.isnan(got.distance_km[~hit]).all()
    assert len(set(got.found[hit])) == pairs


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), rows=st.integers(1, 4), columns=st.integers(1, 4))
def test_pairs_by_brute_force(seed, rows, columns):
    rng = np.random.default_rng(seed)
    cost = rng.random((rows, columns)) * 100
    cost[rng.random(cost.shape) < 0.4] = np.inf
    pairs = best_pairs(cost)
    assert (len(pairs), -sum(cost[p] for p in pairs)) == pytest.approx(brute_force(cost))


def test_times_are_kept_apart_unless_they_may_differ():
    rng = np.random.default_rng(0)
    found, truth = points(1, rng), points(1, rng)
    truth["time"] += 6 * HOUR
    assert match_incidents(found, truth, 1e5).hit.sum() == 0
    assert match_incidents(found, truth, 1e5, 5.9).hit.sum() == 0
    assert match_incidents(found, truth, 1e5, 6.0).hit.sum() == 1
    assert np.isnan(match_incidents(found, truth).distance_km).all()


def test_nothing_found_or_nothing_true():
    rng = np.random.default_rng(0)
    some, none = points(3, rng), points(0, rng)
    assert match_incidents(none, some).hit.tolist() == [False] * 3
    assert match_incidents(some, none).found.tolist() == [-1] * 3


def moving(starts, speed_km_h, steps, hours=6):
    """Systems that move east along their latitudes, in any order within a time."""
    rows = []
    for name, (latitude, longitude) in enumerate(starts):
        per_degree = 111.195 * np.cos(np.deg2rad(latitude))
        for step in range(steps):
            east = longitude + speed_km_h * hours * step / per_degree
            rows.append((step, latitude, east % 360.0, name))
    table = pd.DataFrame(rows, columns=["step", "latitude", "longitude", "name"])
    table["time"] = pd.Timestamp("2001-01-01") + hours * HOUR * table["step"]
    return table.sample(frac=1, random_state=0).sort_values("time", ignore_index=True)


def times_of(steps, hours=6):
    return pd.date_range("2001-01-01", periods=steps, freq=f"{hours}h").to_numpy("datetime64[ns]")


def same_partition(a, b):
    pairs = set(zip(a, b, strict=True))
    return len(pairs) == len({x for x, _ in pairs}) == len({y for _, y in pairs})


def test_systems_keep_their_tracks_across_the_date_line():
    table = moving([(50, 340), (20, 355), (-40, 100)], 70.0, 12)
    tracks = follow(table, times_of(12), 120.0, 0)
    assert same_partition(tracks, table["name"])
    assert set(tracks) == {1, 2, 3}


def test_no_track_is_faster_than_the_limit():
    table = moving([(50, 340)], 70.0, 5)
    assert follow(table, times_of(5), 69.0, 0).tolist() == [1, 2, 3, 4, 5]
    assert follow(table, times_of(5), 71.0, 0).tolist() == [1] * 5


@pytest.mark.parametrize(("missed", "tracks"), [(0, 2), (1, 2), (2, 1)])
def test_a_track_survives_only_so_many_missed_steps(missed, tracks):
    table = moving([(50, 340)], 70.0, 8)
    table = table[~table["step"].isin([3, 4])].reset_index(drop=True)
    assert follow(table, times_of(8), 120.0, missed).max() == tracks


def test_gaps_in_the_fields_are_no_missed_steps_but_take_time():
    """Two days without fields: one step on, but too far for the speed only if it moved too fast."""
    times = times_of(8)[[0, 1, 2, 7]]
    table = moving([(50, 340)], 70.0, 8)
    table = table[table["time"].isin(times)].reset_index(drop=True)
    assert follow(table, times, 120.0, 0).tolist() == [1] * 4


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 1000))
def test_tracks_of_noise_keep_the_rules(seed):
    rng = np.random.default_rng(seed)
    table = points(25, rng, 8).sort_values("time", ignore_index=True)
    table["track"] = follow(table, times_of(8), 20.0, 1)
    assert set(table["track"]) == set(range(1, table["track"].max() + 1))
    for _, track in table.groupby("track"):
        hours = track["time"].diff().dropna() / HOUR
        assert (hours > 0).all() and (hours <= 12).all()
        km = great_circle_km(
            *(track[k].to_numpy()[:-1] for k in ("latitude", "longitude")),
            *(track[k].to_numpy()[1:] for k in ("latitude", "longitude")),
        )
        assert (km <= 20.0 * hours.to_numpy() + 1e-9).all()


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_areas_match_where_they_overlap(seed):
    """Oracle: both painted on a fine raster, the map's positions half as far apart as the truth's.

    Centres of large areas may lie far apart: how far does not matter.
    """
    rng = np.random.default_rng(seed)
    fine, coarse = np.zeros((1, 12, 24)), np.zeros((1, 6, 12))
    for field in (fine, coarse):
        for _ in range(3):
            y, x = rng.integers(0, field.shape[1]), rng.integers(0, field.shape[2])
            field[0, y : y + rng.integers(1, 5), x : x + rng.integers(1, 9)] = 1.0
    time = [pd.Timestamp("2001-01-01")]
    axes = [
        (time, 11.0 - 2.0 * np.arange(12), 341.0 + 2.0 * np.arange(24)),
        (time, 10.0 - 4.0 * np.arange(6), 342.0 + 4.0 * np.arange(12)),
    ]
    found, truth = (
        find_regions(xr.DataArray(field, coords=dict(zip(AXES, at, strict=True)), dims=AXES), 0.5)
        for field, at in zip((fine, coarse), axes, strict=True)
    )
    painted = [
        [
            {(int(y), int(x)) for lat, lon, dy, dx in extent
             for y in np.arange(lat - dy, lat + dy) for x in np.arange(lon - dx, lon + dx)}
            for extent in table["extent"]
        ]
        for table in (found, truth)
    ]  # fmt: skip
    shared = np.array([[bool(a & b) for b in painted[1]] for a in painted[0]])
    matching = match_incidents(found, truth, radius_km=1.0)
    pairs = [(i, j) for i, j in enumerate(matching.found) if j >= 0]
    assert all(shared[i, j] for i, j in pairs)
    most = maximum_bipartite_matching(csr_array(shared), perm_type="column")
    assert len(pairs) == int((most >= 0).sum())
    _, _, scores = verify(found.assign(track_id=1), truth, np.array(time, "M8[ns]"), Maps())
    assert scores["hits"] == len(pairs)


def test_a_storm_of_a_day_is_where_any_of_its_entries_is():
    """Daily fields: a peak at the morning's place is a hit as one at the evening's is."""
    day = pd.Timestamp("2001-01-02")
    hours = pd.to_timedelta([0, 6, 12, 18], "h")
    entries = pd.DataFrame(
        {
            "time": [*(day + hours), day + hours[0], day - HOUR],
            "latitude": 50.0,
            "longitude": [0.0, 10.0, 20.0, 30.0, 100.0, 0.0],
            "storm_id": [*"aaaab", "a"],
        }
    ).sort_values("time", ignore_index=True)
    here = at_times(entries, pd.DatetimeIndex([day + 12 * HOUR]), "day")
    truth = once_a_day(here)
    assert (truth["time"] == day + 12 * HOUR).all()
    assert sorted(zip(truth["storm_id"], truth["longitude"], strict=True)) == [
        ("a", 20.0), ("b", 100.0),
    ]  # fmt: skip
    for east, hit in ((1.0, "a"), (29.0, "a"), (99.0, "b"), (45.0, None)):
        found = pd.DataFrame({"time": [day + 12 * HOUR], "latitude": 50.0, "longitude": [east]})
        matching = match_incidents(found, truth, 150.0)
        assert truth["storm_id"][matching.hit].tolist() == ([hit] if hit else [])
    both = pd.DataFrame({"time": day + 12 * HOUR, "latitude": 50.0, "longitude": [1.0, 29.0]})
    matching = match_incidents(both, truth, 150.0)  # one to one: the other is a false alarm
    assert matching.hit.sum() == 1 and (matching.found < 0).sum() == 1
    km = great_circle_km(50.0, 1.0, 50.0, 0.0)
    assert np.nanmin(matching.distance_km) == pytest.approx(km)
