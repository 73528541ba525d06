import logging

import numpy as np
import pandas as pd
import pytest
from conftest import SHARED
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines.errors import InputError
from data_pipelines.incidents import read_catalogue
from data_pipelines.limits import select_rows
from data_pipelines.tracks import add_changes, bergeron, day_before


def track(hours, storm_id="a", latitude=60.0, **columns):
    n = len(hours)
    times = pd.Timestamp("2001-01-01") + pd.to_timedelta(hours, unit="h")
    base = {"time": times, "storm_id": [storm_id] * n, "latitude": np.broadcast_to(latitude, n)}
    return pd.DataFrame(base | columns)


def test_a_bergeron_by_hand():
    # Sanders and Gyakum: 24 hPa at 60 degrees; sin 30 / sin 60 of that at 30; the pole needs 27.7.
    np.testing.assert_allclose(bergeron(np.array([60.0, -60.0])), 24.0)
    assert bergeron(np.array([30.0]))[0] == pytest.approx(13.8564, abs=1e-4)
    assert bergeron(np.array([-90.0]))[0] == pytest.approx(27.7128, abs=1e-4)


def test_deepening_by_hand():
    table = track(
        [0, 6, 24, 30, 54],
        latitude=[40.0, 60.0, -60.0, 30.0, 30.0],
        pressure_hpa=[1000, 990, 976, 970, 984],
    )
    got = add_changes(table)["deepening_bergeron"]
    np.testing.assert_allclose(got, [np.nan, np.nan, 1.0, 20 / 13.8564, -14 / 13.8564], rtol=1e-5)


def test_exactly_a_day_before_of_the_same_system():
    table = pd.concat(
        [
            track([0, 23, 25], pressure_hpa=[1000.0, 1000, 960]),
            track([24], "b", pressure_hpa=[960.0]),  # another system a day after the first
            track([0, 24], "c", pressure_hpa=[np.nan, 960]),
            track([0, 0, 24], "d", pressure_hpa=[1000.0, 990, 960]),  # two answers are none
        ],
        ignore_index=True,
    )
    assert add_changes(table)["deepening_bergeron"].isna().all()


@pytest.mark.parametrize(
    ("latitude", "known"), [(19.9, False), (20, True), (-75, True), (75.1, False)]
)
def test_deepening_only_between_20_and_75_degrees(latitude, known):
    table = track([0, 24], latitude=latitude, pressure_hpa=[1000.0, 990])
    assert add_changes(table)["deepening_bergeron"].notna()[1] == known


def test_rapid_intensification_is_a_filter():
    table = track([0, 6, 24, 30], latitude=15.0, wind_kt=[35.0, 40, 65, 65])
    got = add_changes(table)
    np.testing.assert_array_equal(got["wind_change_24h"], [np.nan, np.nan, 30, 25])
    rapid = select_rows(got, {"wind_change_24h": {"min": 30}})
    assert list(rapid) == [False, False, True, False]
    assert "deepening_bergeron" not in got and got.attrs["derived"] == ["wind_change_24h"]
    with pytest.raises(InputError, match="`deepening_bergeron` is made where there is `pressure_"):
        select_rows(got, {"deepening_bergeron": {"min": 1}})


def test_winds_of_different_averaging_periods_are_not_compared():
    table = track([0, 24, 48, 72, 96], wind_kt=[50.0, 80, 100, 100, 90]).assign(
        wind_averaging_minutes=[10.0, 1, 1, np.nan, np.nan],
        wind_agency=["tokyo", "jtwc_wp", "hurdat_epa", "other", "other"],
    )
    got = add_changes(table)["wind_change_24h"]
    np.testing.assert_array_equal(got, [np.nan, np.nan, 20, np.nan, -10])


def test_what_is_there_is_kept():
    table = track([0, 24], pressure_hpa=[1000.0, 976], deepening_bergeron=[7.0, 8.0])
    got = add_changes(table)
    assert list(got["deepening_bergeron"]) == [7.0, 8.0] and got.attrs["derived"] == []


def test_impossible_pressures_are_missing_and_reported(caplog):
    table = track([0, 24, 48], pressure_hpa=["-999", "976", "calm"])
    with caplog.at_level(logging.WARNING):
        assert add_changes(table)["deepening_bergeron"].isna().all()
    assert "`pressure_hpa` must lie within 800 to 1100, got `-999` and 1 such" in caplog.text


entries = st.lists(
    st.tuples(st.integers(0, 12), st.sampled_from("abc"), st.integers(0, 100)), max_size=40
)


@settings(max_examples=100, deadline=None)
@given(entries)
def test_day_before_against_a_plain_search(rows):
    table = pd.DataFrame(rows, columns=["step", "storm_id", "value"]).astype({"value": float})
    table["time"] = pd.Timestamp("2001-01-01") + pd.to_timedelta(12 * table["step"], unit="h")
    wanted = []
    for step, storm, _ in rows:
        found = [v for s, name, v in rows if s == step - 2 and name == storm]
        wanted.append(found[0] if len(found) == 1 else np.nan)
    np.testing.assert_array_equal(day_before(table, table["value"]), np.array(wanted, dtype=float))


def test_deepening_of_the_north_atlantic(tmp_path):
    path = SHARED / "weather" / "cyclones_natl_2001_2008.csv"
    if not path.is_file():
        pytest.skip("needs the shared data")
    published = pd.read_csv(path)
    kept = read_catalogue(path)
    assert kept.attrs["derived"] == []
    in_order = published.sort_values("time", kind="stable")["deepening_bergeron"]
    np.testing.assert_array_equal(kept["deepening_bergeron"], in_order)
    fall = day_before(kept, kept["pressure_hpa"]) - kept["pressure_hpa"]
    explosive = fall >= bergeron(kept["latitude"].to_numpy())
    assert explosive.sum() == 690 and kept["storm_id"][explosive].nunique() == 329
    published.drop(columns="deepening_bergeron").to_csv(tmp_path / "c.csv", index=False)
    made = read_catalogue(tmp_path / "c.csv")
    assert made.attrs["derived"] == ["deepening_bergeron"]
    inside = made["latitude"].between(20, 75).to_numpy()
    assert made["deepening_bergeron"][~inside].isna().all()
    difference = made["deepening_bergeron"] - kept["deepening_bergeron"]
    # The file has three decimals, and no limits of latitude.
    assert np.nanmax(np.abs(difference[inside])) <= 0.0005 + 1e-9
    np.testing.assert_array_equal(
        made["deepening_bergeron"][inside].isna(), kept["deepening_bergeron"][inside].isna()
    )


def test_repeated_entries_change_nothing_and_contradictions_are_said(tmp_path, caplog):
    text = "time,latitude,longitude,storm_id,pressure_hpa\n"
    first, last = "2001-01-01 00:00,50,10,A,1000\n", "2001-01-02 00:00,50,12,A,960\n"
    (tmp_path / "once.csv").write_text(text + first + last)
    (tmp_path / "twice.csv").write_text(text + first + first + last)
    once, twice = (read_catalogue(tmp_path / f"{n}.csv") for n in ("once", "twice"))
    pd.testing.assert_frame_equal(once, twice)
    assert once["deepening_bergeron"].iloc[1] > 1
    assert "1 entries of" in caplog.text and "repeat others" in caplog.text
    (tmp_path / "unlike.csv").write_text(text + first + first.replace("1000", "990") + last)
    unlike = read_catalogue(tmp_path / "unlike.csv")
    assert unlike["deepening_bergeron"].isna().all() and "contradict others" in caplog.text


def test_impossible_values_are_missing_for_every_filter(tmp_path, caplog):
    (tmp_path / "c.csv").write_text(
        "time,latitude,longitude,storm_id,pressure_hpa\n"
        "2001-01-01,50,10,A,-999\n2001-01-02,50,10,A,965\n"
    )
    table = read_catalogue(tmp_path / "c.csv")
    assert select_rows(table, {"pressure_hpa": {"max": 970}}).tolist() == [False, True]
    assert "must lie within 800 to 1100, got `-999`" in caplog.text
