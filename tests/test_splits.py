import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines.errors import InputError
from data_pipelines.periods import interval
from data_pipelines.schema import GROUPS, SPLITS
from data_pipelines.splits import choose_target, separate_storms, split_times

TIMES = pd.date_range("2001-01-01", "2001-03-01", freq="6h", inclusive="left")
PERIODS = {
    "train": ["2001-01-01/2001-01-31"],
    "validation": ["2001-02-01/2001-02-10"],
    "test": ["2001-02-11/2001-02-28"],
}


@settings(max_examples=40, deadline=None)
@given(
    gap=st.integers(1, 15),
    cut=st.integers(5, 25),
    length=st.integers(5, 20),
)
def test_no_two_splits_come_closer_than_the_gap(gap, cut, length):
    day = pd.date_range("2001-01-01", periods=60)
    periods = {
        "train": [f"{day[0].date()}/{day[cut - 1].date()}"],
        "test": [f"{day[cut].date()}/{day[cut + length - 1].date()}"],
        "validation": [f"{day[cut + length].date()}/2001-03-30"],
    }
    gap_ = pd.Timedelta(days=gap)
    try:
        split = split_times(TIMES, periods, gap_)
    except InputError:
        return  # the gap eats a whole split
    for a in range(1, 5):
        for b in range(a + 1, 5):
            one, two = TIMES[split == a].to_numpy(), TIMES[split == b].to_numpy()
            if len(one) and len(two):
                assert np.abs(one[:, None] - two[None]).min() >= gap_.to_timedelta64()
    wanted = TIMES[(day[cut] <= TIMES) & (day[cut + length] > TIMES)]
    assert list(TIMES[split == SPLITS.index("test")]) == list(wanted)  # test keeps everything


def test_fractions_follow_each_other():
    split = split_times(TIMES, {}, pd.Timedelta(days=1), [0.5, 0.25, 0.25])
    kept = [SPLITS[s] for s in split[split > 0]]
    assert kept == sorted(kept, key=["train", "validation", "test"].index)
    assert kept.count("test") == round(0.25 * len(TIMES))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"train": ["2001-01-01"]}, "must be intervals"),
        ({"train": ["2001-01-20/2001-01-10"]}, "must begin before it ends"),
        ({"validation": ["2001-01-20/2001-02-05"]}, "must not overlap"),
        ({"test": ["2010-01-01/2010-02-01"]}, r"`splits.test` must hold at least one time step"),
    ],
)
def test_bad_periods(change, words):
    with pytest.raises(InputError, match=words):
        split_times(TIMES, PERIODS | change, pd.Timedelta(days=1))


def test_a_storm_in_two_splits_stays_in_the_one_that_evaluates():
    split = split_times(TIMES, PERIODS, pd.Timedelta(days=1))
    at = {name: int(np.flatnonzero(split == SPLITS.index(name))[0]) for name in PERIODS}
    labels = pd.DataFrame(
        {
            "step": [at["train"], at["train"], at["validation"], at["test"]],
            "storms": [frozenset("a"), frozenset("ab"), frozenset("a"), frozenset("b")],
        }
    )
    got = [SPLITS[s] for s in separate_storms(labels, split)]
    assert got == ["dropped", "dropped", "validation", "test"]


def samples(storms=20, each=3, background=500, seed=0):
    rng = np.random.default_rng(seed)
    rows = [
        (int(rng.integers(0, 200)), GROUPS.index(group), f"{group}{s}")
        for group in ("hard_negative", "incident")
        for s in range(storms)
        for _ in range(each)
    ]
    rows += [(int(rng.integers(0, 200)), 0, "") for _ in range(background)]
    table = pd.DataFrame(rows, columns=["step", "group", "incident_id"]).sort_values("step")
    table["storms"] = [frozenset([i]) if i else frozenset() for i in table["incident_id"]]
    return table.reset_index(drop=True)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), per_group=st.integers(1, 20))
def test_target_is_balanced_spread_and_disjoint_by_storm(seed, per_group):
    table = samples(seed=seed)
    chosen, storms = choose_target(table, per_group, seed=seed)
    target = table.iloc[chosen]
    assert list(target["group"].value_counts().sort_index()) == [per_group] * 3
    rest = table.drop(index=chosen)
    kept = rest[[storms.isdisjoint(s) for s in rest["storms"]]]
    assert not set(kept["incident_id"]) & set(target["incident_id"]) - {""}
    if per_group >= 8:  # spread: background reaches into every quarter of the time
        quarters = target.loc[target["group"] == 0, "step"] // 50
        assert set(quarters) == {0, 1, 2, 3}


def test_too_few_incidents_for_the_target_set():
    with pytest.raises(InputError, match=r"`splits.target_per_group` .* got 31"):
        choose_target(samples(), 31)
    with pytest.raises(InputError, match="at least 1"):
        choose_target(samples(), 0)


@pytest.mark.parametrize("text", ["01.02.2001/03.04.2001", "1/2/2001/3/4/2001", "now/2030-01-01",
                                  "20010101/20010105", "2001-13-01/2002-01-01"])  # fmt: skip
def test_dates_that_would_be_guessed_are_refused(text):
    with pytest.raises(InputError, match="such as 2001-01-01/2001-12-31"):
        interval("splits.train", text)


def test_years_months_days_and_times_are_read():
    for text, last in (
        ("2001/2002", "2002-12-31 23:59:59.999999"),
        ("2001-02/2001-03", "2001-03-31 23:59:59.999999"),
        ("2001-02-03 06:00/2001-02-03T18", "2001-02-03 18:00"),
        ("2001-02-03T00:00Z/2001-02-04T01:00+01:00", "2001-02-04 00:00"),
    ):
        assert interval("k", text)[1].floor("us") == pd.Timestamp(last)


def test_intervals_of_one_split_may_overlap_and_those_of_two_may_not():
    overlapping = {**PERIODS, "train": ["2001-01-01/2001-01-20", "2001-01-15/2001-01-31"]}
    gap = pd.Timedelta(days=1)
    np.testing.assert_array_equal(
        split_times(TIMES, overlapping, gap), split_times(TIMES, PERIODS, gap)
    )
    with pytest.raises(InputError, match=r"must not overlap another split, got `2001-01-25"):
        split_times(TIMES, {**PERIODS, "validation": ["2001-01-25/2001-02-10"]}, gap)
