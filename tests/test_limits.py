"""What is within limits, what is not, and what nobody knows."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines.build import store_attributes
from data_pipelines.catalogues import as_numbers, say_once
from data_pipelines.errors import InputError
from data_pipelines.fields import open_fields
from data_pipelines.groups import Groups
from data_pipelines.labelling import kinds_of
from data_pipelines.labels import UNKNOWN, label_from_catalogue
from data_pipelines.limits import FILLS, numbers, select_rows, undecided_rows
from data_pipelines.schema import GROUPS, PatchGrid
from data_pipelines.settings import Fields, Incidents, Patches, Splits

GRID = PatchGrid(np.arange(90, -91, -2.5), np.arange(0, 360, 2.5), 16, 4)
DAY = pd.Timestamp("2001-01-01")


def test_filters():
    entries = pd.DataFrame({"deepening": [np.nan, 1.0, 2.5]})
    assert list(select_rows(entries, {"deepening": {"min": 1.0}})) == [False, True, True]
    assert list(select_rows(entries, {"deepening": {"min": 1, "max": 2}})) == [
        False,
        True,
        False,
    ]
    with pytest.raises(InputError, match="Did you mean `deepening`"):
        select_rows(entries, {"deepning": {"min": 1}})
    with pytest.raises(InputError, match="limit `minimum` is unknown"):
        select_rows(entries, {"deepening": {"minimum": 1}})
    with pytest.raises(InputError, match="got none"):
        select_rows(entries, {"deepening": {"min": 9}})


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_undecided_is_what_the_missing_values_could_turn(seed):
    """Oracle: every way of filling them with a value inside or outside of the limits."""
    rng = np.random.default_rng(seed)
    table = pd.DataFrame({k: rng.choice([0.0, 5.0, np.nan], 12) for k in ("a", "b")})
    table.iloc[0] = 5.0  # so that something is left
    where = {"a": {"min": 3}, "b": {"min": 3, "max": 6}}
    ways = [
        select_rows(table.fillna({"a": a, "b": b}), where) for a in (0.0, 5.0) for b in (0.0, 5.0)
    ]
    turned = np.any(ways, axis=0) & ~np.all(ways, axis=0)
    assert list(undecided_rows(table, where)) == list(turned)


def test_a_change_over_24_hours_is_not_missing_before_the_system_is_a_day_old():
    table = pd.DataFrame({
        "storm_id": ["a"] * 6 + ["b"],
        "time": [*pd.date_range(DAY, periods=6, freq="12h"), DAY],
        "latitude": [40.0, 40.0, 40.0, 40.0, 10.0, 80.0, 40.0],
        "deepening_bergeron": [np.nan, np.nan, np.nan, 1.5, np.nan, np.nan, np.nan],
    })  # fmt: skip
    table["wind_change_24h"] = table["deepening_bergeron"]
    undecided = undecided_rows(table, {"deepening_bergeron": {"min": 1}})
    # After 24 hours at 40 degrees north; near the equator and the pole it has no meaning.
    assert np.flatnonzero(undecided).tolist() == [2]
    undecided = undecided_rows(table, {"wind_change_24h": {"min": 30}})
    assert np.flatnonzero(undecided).tolist() == [2, 4, 5]


@pytest.mark.parametrize("hard_negatives", [{}, {"wind_kt": {"min": 34}}])
def test_an_entry_of_which_nobody_knows_is_neither_incident_nor_normal(hard_negatives):
    table = pd.DataFrame({
        "time": [DAY] * 4 + [DAY + pd.Timedelta("6h")],
        "latitude": [50.0, 50.0, -20.0, 20.0, 50.0],
        "longitude": [180.0, 180.0, 90.0, 10.0, 180.0],
        "storm_id": list("abcde"),
        "wind_kt": [np.nan, 40.0, np.nan, 70.0, np.nan],
    })  # fmt: skip
    incidents = Incidents(where={"wind_kt": {"min": 64}}, hard_negatives=hard_negatives)
    kind = kinds_of(table, incidents, others="hard_negative")
    assert kind.tolist() == [UNKNOWN, 1, UNKNOWN, 2, UNKNOWN]
    times = pd.date_range(DAY, periods=2, freq="6h")
    labels = label_from_catalogue(table, kind, times, GRID)
    found = sorted(zip(labels.table["step"], labels.table["kind"], strict=True))
    # The tropical storm of 40 kt shares the cell of one that may be a hurricane.
    assert found == [(0, UNKNOWN), (0, UNKNOWN), (0, GROUPS.index("incident")), (1, UNKNOWN)]
    assert labels.unused["patches_without_label"] == 3
    beside = table.assign(wind_kt=[np.nan, 70.0, np.nan, 70.0, np.nan])
    labels = label_from_catalogue(beside, kinds_of(beside, incidents, "background"), times, GRID)
    assert (labels.table["kind"] == GROUPS.index("incident")).sum() == 2


def test_a_store_whose_labels_change_is_built_anew(small_files, tmp_path):
    """And only such a one: what tells them apart is empty for a catalogue without such values."""

    def told(*winds, patches=None, region=False, west=9.0):
        table = pd.DataFrame({"rain_mm": [*winds, 5.0, 50.0, 70.0]})
        table = table.assign(time="2001-01-02", latitude=0.0, longitude=west, storm_id=table.index)
        table.to_csv(tmp_path / "c.csv", index=False)
        incidents = Incidents(catalogue=str(tmp_path / "c.csv"))
        incidents.where, incidents.hard_negatives = (
            {"rain_mm": {"min": 64}},
            {"rain_mm": {"max": 9}},
        )
        array = open_fields([small_files[0]], ["msl"])
        array = array.isel(longitude=slice(0, 20)) if region else array
        settings = patches or Patches(), Splits(fractions=[0.5, 0.25, 0.25]), Groups(), 0
        made = store_attributes(Fields([str(small_files[0])]), incidents, *settings, array)
        return {k: v for k, v in made["fingerprints"].items() if len(v) < 32}

    assert told(3.0) == told(3.0, region=True) == {}
    assert told(np.nan) == {"entries that are unknown": "1"}
    assert told(-999.0) == {"entries that are unknown": "1", "values read otherwise": "1"}
    for patches in (Patches(4, 4), Patches(whole_field=True)):
        beyond = told(3.0, patches=patches, region=True, west=358.0)
        assert beyond == {"entries half a grid step west": "4"}
        assert told(3.0, patches=patches, region=True) == {}
    assert told(3.0, patches=Patches(4, 4), west=358.0) == {}


@pytest.mark.parametrize("match_time", ["day", "exact"])
def test_hours_without_a_value_say_nothing_beside_those_of_the_same_storm_with_one(match_time):
    """Winds every six hours, entries every three: daily fields lose no hard negative by it."""
    times = pd.date_range(DAY, periods=8, freq="3h")
    table = pd.DataFrame({"time": times, "latitude": 20.0, "longitude": 180.0, "storm_id": "a"})
    table["wind_kt"] = np.where(times.hour % 6 == 0, 50.0, np.nan)
    other = table.assign(storm_id="b", longitude=90.0, wind_kt=np.nan)
    both = pd.concat([table, other], ignore_index=True)
    incidents = Incidents(where={"wind_kt": {"min": 45}})
    kind = kinds_of(both, incidents, others="hard_negative")
    fields = times[:1] if match_time == "day" else times
    labels = label_from_catalogue(both, kind, fields, GRID, match_time).table
    by_storm = labels.groupby("incident_id")["kind"].value_counts().to_dict()
    incident = GROUPS.index("incident")
    if match_time == "day":
        assert by_storm == {("a", incident): 1, ("b", UNKNOWN): 1}
    else:
        assert by_storm == {("a", incident): 4, ("a", UNKNOWN): 4, ("b", UNKNOWN): 8}


@pytest.mark.parametrize("fill", FILLS)
def test_fill_values_are_missing(fill, caplog):
    say_once.cache_clear()
    values = pd.Series([1.0, -3.5, fill, 12.0, fill, np.nan], name=f"rain {fill}")
    assert numbers(values).isna().tolist() == [False, False, True, False, True, True]
    assert f"2 values of `rain {fill}` count as missing: {fill:g}" in caplog.text
    assert numbers(pd.Series([fill, fill])).isna().all()
    near = pd.Series([-1.0, fill * 0.7, fill])
    pd.testing.assert_series_equal(numbers(near), near)  # such values there are


def test_commas_that_may_part_thousands_are_not_decimal():
    assert as_numbers(pd.Series(["1,250", "12,000"])).isna().all()
    assert as_numbers(pd.Series(["1,250", "12,5"])).tolist() == [1.25, 12.5]
    assert as_numbers(pd.Series(["0,125", "x"])).tolist()[0] == 0.125


def test_several_fill_values_at_once():
    for values, missing in (
        ([-9999.0, 9999.0, -999.0, 3.0], [True, True, True, False]),
        ([-999.0, -999.9, -2.0, 3.0], [True, True, False, False]),
        ([float(np.float32(-99.9)), -99.9, 1.0], [True, True, False]),
        ([-99.0, 35.0, 60.0, 100.0], [True, False, False, False]),  # knots are not below 0
        ([-99.0, 35.0, -60.0, 100.0], [False] * 4),
        ([-9999.0, -99.0, -60.0, 999.0, 1012.0], [True, False, False, False, False]),
    ):
        assert numbers(pd.Series(values)).isna().tolist() == missing


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-45.0, 45.0), min_size=1, max_size=20))
def test_usual_values_stay(values):
    column = pd.Series(values)
    pd.testing.assert_series_equal(numbers(column), column.astype(float))
