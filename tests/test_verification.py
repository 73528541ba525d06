import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from weather_tdr.candidates import apart_km
from weather_tdr.intervals import BLOCK_DAYS, count_intervals, storm_blocks
from weather_tdr.maps import Maps
from weather_tdr.scores import wilson_interval
from weather_tdr.verification import (
    choose_incident_threshold,
    incident_curve,
    verify,
    with_tracks,
)

TIMES = pd.date_range("2001-01-01", periods=40, freq="6h").to_numpy("datetime64[ns]")


def truth():
    """Storm A at steps 0 to 3, storm B at 10 and 11."""
    return pd.DataFrame(
        {
            "time": TIMES[[0, 1, 2, 3, 10, 11]],
            "latitude": [50.0] * 4 + [-40.0] * 2,
            "longitude": [0.0, 2, 4, 6, 100, 103],
            "storm_id": list("AAAABB"),
        }
    )


def found(rows):
    columns = ["step", "latitude", "longitude", "probability", "track_id"]
    table = pd.DataFrame(rows, columns=columns)
    return table.assign(time=TIMES[table["step"]])


def test_incidents_and_storms_are_counted_each_for_itself():
    table = found(
        [
            (1, 50.5, 2.0, 0.9, 1),  # storm A
            (2, 50.5, 4.0, 0.8, 1),  # storm A
            (3, 20.0, 6.0, 0.7, 1),  # too far south, but on the track of a hit
            (5, 10.0, 10.0, 0.6, 2),  # a false alarm, and a false track
        ]
    )
    table, of_truth, scores = verify(table, truth(), TIMES, Maps())
    assert [scores[k] for k in ("hits", "misses", "false_alarms")] == [2, 4, 2]
    assert scores["pod"] == pytest.approx(2 / 6) and scores["far"] == pytest.approx(0.5)
    assert scores["csi"] == pytest.approx(2 / 8)
    assert scores["mean_distance_km"] == pytest.approx(0.5 * 111.195, rel=1e-3)
    tracks = scores["tracks"]
    assert [tracks[k] for k in ("hits", "misses", "false_alarms")] == [1, 1, 1]
    assert table["storm_id"].tolist() == ["A", "A", "", ""]
    assert table["matched"].tolist() == [True, True, False, False]
    assert of_truth["hit"].tolist() == [False, True, True, False, False, False]


def test_nothing_found_and_nothing_true():
    none = found([])
    _, _, scores = verify(none, truth(), TIMES, Maps())
    assert scores["pod"] == 0 and np.isnan(scores["far"]) and scores["tracks"]["misses"] == 2
    assert np.isnan(scores["far_interval"]).all() and np.isnan(scores["mean_distance_km"])
    some = found([(1, 50.5, 2.0, 0.9, 1)])
    _, _, scores = verify(some, truth()[:0], TIMES, Maps())
    assert np.isnan(scores["pod"]) and scores["far"] == 1


def test_an_entry_without_a_name_is_its_own_storm_and_without_storms_there_are_no_tracks():
    some = found([(1, 50.5, 2.0, 0.9, 1)])
    _, _, scores = verify(
        some, truth().assign(storm_id=["", None, "", "", "B", "B"]), TIMES, Maps()
    )
    assert scores["tracks"]["misses"] == 4 and scores["tracks"]["hits"] == 1
    _, _, scores = verify(some, truth().drop(columns="storm_id"), TIMES, Maps())
    assert "tracks" not in scores and scores["hits"] == 1


def test_the_curve_counts_what_a_threshold_lets_through():
    rng = np.random.default_rng(0)
    rows = [(int(s), 50.0, float(2 * s), 0.5 + 0.1 * s, 1) for s in range(4)]
    draws = (rng.integers(0, 40, 60).tolist(), rng.uniform(0, 360, 60), rng.random(60))
    noise = [(step, 0.0, east, high, 2) for step, east, high in zip(*draws, strict=True)]
    table = found(rows + noise)
    curve = incident_curve(table, truth(), Maps())
    assert curve["threshold"].is_monotonic_decreasing
    for row in curve.to_dict("records"):
        kept = table[table["probability"] >= row["threshold"]].reset_index(drop=True)
        _, _, scores = verify(kept, truth(), TIMES, Maps())
        for name in ("hits", "misses", "false_alarms", "pod", "far", "csi"):
            assert row[name] == pytest.approx(scores[name], nan_ok=True)
    assert choose_incident_threshold(table, truth(), Maps()) in set(curve["threshold"])
    misses = table[table["latitude"] == 0]
    assert np.isnan(choose_incident_threshold(misses, truth(), Maps()))
    assert np.isnan(choose_incident_threshold(table[:0], truth(), Maps()))
    assert incident_curve(table[:0], truth(), Maps()).empty


def drawn(incidents, rng):
    """A period of four time steps a day with chances of incidents far apart: peaks and truth.

    Log-odds of incidents are 3.5 higher than those of the 100 times as many other peaks.
    """
    n = 101 * incidents
    is_true = np.arange(n) < incidents
    times = np.datetime64("2001-01-01", "ns") + np.timedelta64(6, "h") * np.arange(n)
    table = pd.DataFrame(
        {
            "time": rng.permutation(times),
            "latitude": 0.0,
            "longitude": 0.0,
            "probability": 1 / (1 + np.exp(6 - rng.normal(size=n) - 3.5 * is_true)),
        }
    )
    return table, table[is_true].drop(columns="probability")


def test_the_threshold_from_few_incidents_is_better_than_that_of_the_best_csi():
    """Judged by the CSI that each gives over a long period, at nine incidents to choose by."""
    rng = np.random.default_rng(0)
    long, true = drawn(3000, rng)
    heights, own = long["probability"].to_numpy(), np.arange(len(long)) < len(true)

    def csi(threshold):
        said = heights >= threshold
        return (said & own).sum() / (said | own).sum()

    steady, best = [], []
    for _ in range(60):
        peaks, truth_of = drawn(9, rng)
        curve = incident_curve(peaks, truth_of, Maps())
        best.append(csi(curve["threshold"][curve["csi"].idxmax()]))
        steady.append(csi(choose_incident_threshold(peaks, truth_of, Maps())))
    gain = np.subtract(steady, best)
    assert gain.mean() > 2 * gain.std() / np.sqrt(len(gain))


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000))
def test_the_threshold_does_not_depend_on_the_scale_of_the_probabilities(seed):
    peaks, truth_of = drawn(6, np.random.default_rng(seed))
    chosen = choose_incident_threshold(peaks, truth_of, Maps())
    other = peaks.assign(probability=np.log(peaks["probability"]))
    again = choose_incident_threshold(other, truth_of, Maps())
    number = (peaks["probability"] >= chosen).sum()
    assert (other["probability"] >= again).sum() == number
    # All in one block of time: nothing to resample, so that it is the best CSI.
    at = peaks["time"].min() + (peaks["time"] - peaks["time"].min()) / 1000
    short = peaks.assign(time=at.dt.floor("ns"))
    those = truth_of.assign(time=short["time"][truth_of.index])
    curve = incident_curve(short, those, Maps())
    assert len(set(storm_blocks(at.to_numpy(), np.full(len(at), "", dtype=object)))) == 1
    best = curve["threshold"][curve["csi"].idxmax()]
    assert choose_incident_threshold(short, those, Maps()) == best


def test_a_storm_belongs_wholly_to_the_block_of_its_first_time():
    time = pd.to_datetime(["2001-01-01", "2001-01-05", "2001-01-05", "NaT", "NaT"]).to_numpy()
    block = storm_blocks(time, np.array(["A", "A", "", "", ""], dtype=object))
    assert block[0] == block[1] != block[2]
    assert len(set(block)) == 4
    later = storm_blocks(time[:3], np.array(["A", "", "A"], dtype=object))
    assert later[0] == later[2] != later[1]
    day = np.datetime64("2001-01-01", "ns") + np.arange(6) * np.timedelta64(1, "D")
    alone = storm_blocks(day, np.full(6, "", dtype=object))
    assert len(set(alone)) <= 6 // BLOCK_DAYS + 1


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), blocks=st.integers(1, 40))
def test_intervals_are_within_their_range_and_wide_from_a_single_block(seed, blocks):
    rng = np.random.default_rng(seed)
    kind = rng.integers(0, 3, 200)
    block = rng.integers(0, blocks, 200)
    found = count_intervals(block, kind == 0, kind == 1, kind == 2)
    hits, false, missed = ((kind == k).sum() for k in range(3))
    scores = {
        "pod": hits / (hits + missed),
        "far": false / (hits + false),
        "csi": hits / (hits + false + missed),
    }
    for name, value in scores.items():
        low, high = found[f"{name}_interval"]
        assert 0 <= low <= high <= 1
        if blocks == 1:  # one trial tells little
            assert (low, high) == pytest.approx(wilson_interval(value, 1))


def test_the_interval_of_independent_samples_is_the_binomial_one():
    """A block a sample: the bootstrap of POD is a binomial, of known spread."""
    hits = np.arange(400) < 120
    none = np.zeros(400, bool)
    low, high = count_intervals(np.arange(400), hits, none, ~hits)["pod_interval"]
    spread = 1.96 * np.sqrt(0.3 * 0.7 / 400)
    assert low == pytest.approx(0.3 - spread, abs=0.008)
    assert high == pytest.approx(0.3 + spread, abs=0.008)


def test_quiet_blocks_count_as_blocks():
    """Blocks in which nothing happens do not make two storms more certain."""
    block = np.array([0, 0, 0, 1, 1])
    hit = np.array([True, True, False, True, False])
    false = np.zeros(5, bool)
    alone = count_intervals(block, hit, false, ~hit)
    quiet = count_intervals(block, hit, false, ~hit, blocks=np.arange(50))
    assert alone["pod_interval"] == quiet["pod_interval"] == pytest.approx([0.5, 2 / 3])
    lonely = count_intervals(block[:3], hit[:3], false[:3], ~hit[:3], blocks=np.arange(50))
    assert lonely["pod_interval"] == pytest.approx(wilson_interval(2 / 3, 1))


def test_a_track_ends_with_its_winter():
    """Two test periods nine months apart: any speed would reach from one to the other."""
    times = np.r_[
        pd.date_range("2008-02-01", "2008-02-29", freq="D"),
        pd.date_range("2008-12-01", "2008-12-31", freq="D"),
    ].astype("datetime64[ns]")
    days = ["2008-02-27", "2008-02-29", "2008-12-01", "2008-12-02"]
    found = pd.DataFrame(
        {"time": pd.to_datetime(days), "latitude": 60.0, "longitude": [330.0, 331.0, 332.0, 333.0]}
    )
    assert list(with_tracks(found, times, Maps())["track_id"]) == [1, 1, 2, 2]
    assert list(with_tracks(found, times, Maps(missed_steps=0))["track_id"]) == [1, 2, 3, 3]
    assert list(with_tracks(found[:1], found["time"].to_numpy()[:1], Maps())["track_id"]) == [1]


def test_a_track_may_always_go_to_the_next_position_of_a_coarse_map():
    """50 km/h on positions 5 degrees apart, each hour at the nearest."""
    times = pd.date_range("2001-01-01", periods=48, freq="h")
    east = 5.0 * np.round((300 + 0.45 * np.arange(48)) / 5)
    found = pd.DataFrame({"time": times, "latitude": 0.0, "longitude": east})
    alone = with_tracks(found, times.to_numpy(), Maps())
    assert alone["track_id"].nunique() == len(np.unique(east)) > 3
    coarse = xr.DataArray(
        np.zeros((3, 5)), coords={"latitude": [5.0, 0.0, -5.0], "longitude": 5.0 * np.arange(5)},
        dims=("latitude", "longitude"),
    )  # fmt: skip
    apart = apart_km(coarse)
    assert apart == pytest.approx(np.hypot(5, 5) * 111.2, rel=1e-3)
    assert with_tracks(found, times.to_numpy(), Maps(), apart)["track_id"].nunique() == 1
    # But not to one beyond it.
    jump = found[:2].assign(longitude=[300.0, 310.0])
    assert with_tracks(jump, times.to_numpy(), Maps(), apart)["track_id"].nunique() == 2


@pytest.mark.parametrize("blocks", [1, 5, 40])
def test_no_hit_or_no_miss_is_as_uncertain_as_so_many_blocks(blocks):
    """A resample of zeros is zero; Wilson's interval of 0 of n is [0, z2 / (n + z2)]."""
    high = 1.959963984540054**2 / (blocks + 1.959963984540054**2)
    block = np.repeat(np.arange(blocks), 3)
    every, none = np.ones(len(block), bool), np.zeros(len(block), bool)
    found = count_intervals(block, none, none, every, blocks=np.arange(100))
    assert found["pod_interval"] == pytest.approx([0.0, high])
    assert found["csi_interval"] == pytest.approx([0.0, high])
    assert np.isnan(found["far_interval"]).all()
    found = count_intervals(block, every, none, none, blocks=np.arange(100))
    assert found["pod_interval"] == found["csi_interval"] == pytest.approx([1 - high, 1.0])
    assert found["far_interval"] == pytest.approx([0.0, high])
    assert wilson_interval(0, blocks)[1] == pytest.approx(high)
    alone = count_intervals(np.zeros(4, int), np.arange(4) < 2, np.zeros(4, bool), np.arange(4) > 1)
    assert alone["pod_interval"] == pytest.approx(wilson_interval(0.5, 1))  # 2 of 4, one storm


def test_a_long_spell_is_one_block():
    """Ten days that are found as one must not count as five blocks that agree by chance."""
    times = pd.date_range("2001-01-01", periods=20, freq="10D")
    spell = pd.DataFrame(
        {
            "time": np.concatenate([pd.date_range(t, periods=8) for t in times]),
            "latitude": 40.0,
            "longitude": 10.0,
        }
    )
    spell["storm_id"] = np.repeat([f"spell {k}" for k in range(20)], 8)
    found = with_tracks(spell[(np.arange(160) // 8) % 2 == 0], spell["time"].to_numpy(), Maps())
    every = spell["time"].to_numpy()
    widths = []
    for truth in (spell, spell.drop(columns="storm_id")):
        low, high = verify(found.drop(columns="storm_id"), truth, every, Maps())[2]["pod_interval"]
        widths.append(high - low)
    # 20 spells, half found: 2 x 1.96 x sqrt(0.25 / 20); as 80 blocks half of that.
    assert widths[0] == pytest.approx(0.438, abs=0.06)
    assert widths[1] < 0.6 * widths[0]
