"""What is within limits, what is not, and what nobody knows."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines.catalogues import say_once
from data_pipelines.errors import InputError
from data_pipelines.labelling import kinds_of
from data_pipelines.labels import UNKNOWN, label_from_catalogue
from data_pipelines.limits import FILLS, numbers, select_rows, undecided_rows
from data_pipelines.schema import GROUPS, PatchGrid
from data_pipelines.settings import Incidents

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


@pytest.mark.parametrize("fill", FILLS)
def test_fill_values_are_missing(fill, caplog):
    say_once.cache_clear()
    values = pd.Series([1.0, -3.5, fill, 12.0, fill, np.nan], name=f"rain {fill}")
    assert numbers(values).isna().tolist() == [False, False, True, False, True, True]
    assert f"2 values of `rain {fill}` count as missing: {fill:g}" in caplog.text
    assert numbers(pd.Series([fill, fill])).isna().all()
    near = pd.Series([1.0, fill * 0.7, fill])
    pd.testing.assert_series_equal(numbers(near), near)  # such values there are


def test_several_fill_values_at_once():
    values = pd.Series([-9999.0, -999.0, -99.0, 1.0, 999.0, 1012.0])
    assert numbers(values).tolist()[3:] == [1.0, 999.0, 1012.0]
    assert numbers(values).isna().tolist() == [True, False, False, False, False, False]
    assert numbers(values[:4]).isna().tolist() == [True, True, True, False]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-45.0, 45.0), min_size=1, max_size=20))
def test_usual_values_stay(values):
    column = pd.Series(values)
    pd.testing.assert_series_equal(numbers(column), column.astype(float))
