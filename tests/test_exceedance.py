import numpy as np
import pandas as pd
import pytest
import xarray as xr

from data_pipelines.errors import InputError
from data_pipelines.exceedance import daily_values, exceeding, spells, thresholds
from data_pipelines.fields import open_fields
from data_pipelines.settings import Exceedance
from tests.conftest import make_field

DAYS = pd.date_range("2001-01-01", "2003-12-31")
ALL = np.ones(len(DAYS), dtype=bool)


def noise(days=DAYS, shape=(3, 4), seed=0):
    return np.random.default_rng(seed).normal(size=(len(days), *shape)).astype(np.float32)


def test_daily_values_are_those_of_resample(tmp_path):
    """Oracle: xarray's resample of the eager field; days straddle the chunks."""
    data = make_field(np.arange(40.0, 0.0, -5.0), np.arange(0.0, 40.0, 5.0), steps=24)
    data["msl"][7, 2, 3] = np.nan
    data.to_netcdf(tmp_path / "f.nc")
    field = open_fields([tmp_path / "f.nc"], ["msl"]).chunk(time=3)
    for how in ("mean", "max", "min"):
        days, got, findings = daily_values(field, how, tmp_path / how)
        wanted = getattr(data["msl"].astype(float).resample(time="1D"), how)(skipna=False)
        np.testing.assert_allclose(got, wanted.values, rtol=1e-6)
        assert list(days) == list(wanted.indexes["time"])
        assert [f.problem for f in findings] == ["missing"]


@pytest.mark.parametrize("how", ["mean", "max", "min"])
def test_days_that_lack_a_step_or_cannot_be_read_are_missing(tmp_path, monkeypatch, how):
    data = make_field(np.linspace(20.0, 0, 5), np.arange(0.0, 30, 5), steps=40)
    data.isel(time=np.delete(np.arange(40), 13)).to_netcdf(tmp_path / "f.nc")
    field = open_fields([tmp_path / "f.nc"], ["msl"]).chunk(time=8)
    whole = data["msl"].resample(time="1D")
    read = xr.DataArray.to_numpy

    def broken(self):
        if self.sizes.get("time") == 8 and self["time"].values[0] == field["time"].values[24]:
            raise RuntimeError("NetCDF: HDF error")
        return read(self)

    monkeypatch.setattr(xr.DataArray, "to_numpy", broken)
    _, values, findings = daily_values(field, how, tmp_path / "values")
    monkeypatch.undo()
    missing = np.isnan(values).all(axis=(1, 2))
    # Day 3 lacks a step; the chunk from step 24 (06 UTC of day 6, as one is gone) is unreadable.
    assert np.flatnonzero(missing).tolist() == [3, 6, 7, 8]
    wanted = getattr(whole, how)().values
    np.testing.assert_allclose(np.asarray(values)[~missing], wanted[~missing], rtol=1e-6)
    assert {(f.variable, f.problem) for f in findings} == {
        ("msl", "unreadable"), ("time", "missing"),
    }  # fmt: skip


def limits(days, values, training, settings):
    """Of each day, shape (day, latitude, longitude)."""
    return np.stack(list(thresholds(days, values, training, settings)), axis=1)


def members(day, days, training, reach):
    """Plainly: training days near the day of the year in any year but its own."""
    others = [
        pd.Timestamp(year, 1, 1) + pd.Timedelta(days=day.day_of_year - 1)
        for year in range(1999, 2006)
        if year != day.year
    ]
    return [
        k
        for k, when in enumerate(days)
        if training[k] and any(abs((when - other).days) <= reach for other in others)
    ]


@pytest.mark.parametrize("percentile", [90, 10, 50])
def test_thresholds_are_quantiles_of_the_same_days_of_other_years(percentile):
    """Oracle: a plain loop over the training days, and numpy's own estimator."""
    values = noise()
    training = DAYS.year < 2003
    settings = Exceedance("t", percentile=percentile, window_days=11)
    got = limits(DAYS, values, training, settings)
    for k in (0, 3, 58, 199, 364, 365, 367, 600, 729, 730, 734, 1000, 1094):
        own = members(DAYS[k], DAYS, training, 5)
        wanted = np.quantile(values[own], percentile / 100, axis=0, method="median_unbiased")
        np.testing.assert_allclose(got[k], wanted, rtol=1e-5, atol=1e-6)


def test_the_29_of_february_is_day_60_and_the_last_of_december_of_a_leap_year_day_366():
    """Oracle: the quantile of the days of the year that the text names, of the other year."""
    days = pd.date_range("2003-01-01", "2004-12-31")
    values = noise(days)
    got = limits(days, values, days.year < 2005, Exceedance("t", percentile=60, window_days=3))
    day_of_year = days.day_of_year
    for day, year, wanted in (
        ("2004-02-29", 2003, (59, 60, 61)), ("2003-03-01", 2004, (59, 60, 61)),
    ):  # fmt: skip
        own = (days.year == year) & np.isin(day_of_year, wanted)
        quantile = np.quantile(values[own], 0.6, axis=0, method="median_unbiased")
        np.testing.assert_allclose(got[days.get_loc(day)], quantile, rtol=1e-5)
    # Day 366 of 2003 is the first of January of 2004, and that of 2002 the first of 2003.
    own = days.isin(
        pd.to_datetime(["2003-01-01", "2003-01-02", "2003-12-31", "2004-01-01", "2004-01-02"])
    )
    wanted = np.quantile(values[own], 0.6, axis=0, method="median_unbiased")
    np.testing.assert_allclose(got[-1], wanted, rtol=1e-5)


def test_missing_training_days_and_points_leave_the_percentile_of_the_others():
    """Oracle: a plain loop over the training days that have a value at the point."""
    values = noise()
    values[40] = np.nan  # a whole day
    values[100:110, 0, 0] = np.nan
    values[200:, 1, 1] = np.nan  # fewer days than a sample needs, later in the year
    settings = Exceedance("t", percentile=90, window_days=11)
    got = limits(DAYS, values, ALL, settings)
    assert not np.isnan(got[:, 0, 0]).any()
    for k in (33, 40, 45, 94, 103, 299, 405, 470, 664, 1029):
        sample = values[members(DAYS[k], DAYS, ALL, 5)]
        for y, x in np.ndindex(values.shape[1:]):
            of_point = sample[:, y, x]
            of_point = of_point[~np.isnan(of_point)]
            wanted = np.nan
            if len(of_point) > 9:
                wanted = np.quantile(of_point, 0.9, method="median_unbiased")
            assert got[k, y, x] == pytest.approx(wanted, rel=1e-5, nan_ok=True)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("year", [2001, 2003, 2005])
def test_thresholds_agree_with_xclim_on_the_other_years(year):
    """2001 to 2003 train, 2005 does not; in leap years xclim moves the days of the year."""
    xclim = pytest.importorskip("xclim.core.calendar")
    days = pd.date_range("2001-01-01", "2003-12-31").append(
        pd.date_range("2005-01-01", periods=365)
    )
    values = noise(days)
    training = days.year < 2004
    settings = Exceedance("t", percentile=95, window_days=15)
    got = limits(days, values, training, settings)[days.year == year]
    kept = training & (days.year != year)
    assert kept.sum() == 365 * (2 if year < 2004 else 3)
    array = xr.DataArray(
        values[kept],
        dims=("time", "latitude", "longitude"),
        coords={"time": pd.date_range("2001-01-01", periods=kept.sum())},  # one after the other
        attrs={"units": "K"},
    )
    wanted = xclim.percentile_doy(array, window=15, per=95).isel(percentiles=0)
    # Near the new year ours knows which days follow each other.
    inner = slice(7, 358)
    wanted = wanted.transpose("dayofyear", ...).values
    np.testing.assert_allclose(got[inner], wanted[inner], rtol=1e-5)


def test_training_days_are_exceeding_as_often_as_those_of_other_years():
    """Of independent values, each percentile is exceeded as its share says, training or not."""
    days = pd.date_range("2001-01-01", "2008-12-31")
    training = days.year < 2005
    rule = Exceedance("t", percentile=90, window_days=15)
    values = noise(days, (5, 40))
    beyond = exceeding(values, thresholds(days, values, training, rule), rule)
    shares = beyond.mean(axis=(1, 2))
    # The percentile of 45 or 60 of them is exceeded by a tenth to within 1 / (3 n) of them.
    assert shares[training].mean() == pytest.approx(0.1, abs=0.008)
    assert shares[~training].mean() == pytest.approx(0.1, abs=0.008)
    assert shares[training].mean() == pytest.approx(shares[~training].mean(), abs=0.005)


def test_a_training_day_has_no_say_in_its_own_threshold():
    values = noise()
    settings = Exceedance("t", percentile=90, window_days=11)
    before = limits(DAYS, values, ALL, settings)
    values[500] = 99.0
    after = limits(DAYS, values, ALL, settings)
    near = np.abs(np.arange(len(DAYS)) - 500) <= 5
    np.testing.assert_array_equal(after[near], before[near])
    year_before = np.roll(near, -365)
    assert (after[year_before] >= before[year_before]).all()
    assert (after[year_before] > before[year_before]).mean() > 0.5


def test_thresholds_see_training_days_only():
    values = noise()
    training = DAYS.year < 2003
    other = values.copy()
    other[~training] = 99.0
    settings = Exceedance("t", percentile=90, window_days=11)
    np.testing.assert_array_equal(
        limits(DAYS, values, training, settings), limits(DAYS, other, training, settings)
    )


@pytest.mark.parametrize(("last_year", "percentile", "got"), [(2002, 99, 11), (2001, 90, 0)])
def test_too_few_training_days_of_other_years(last_year, percentile, got):
    """Of most: near the new year of the first and the last year there are a few more."""
    rule = Exceedance("t", percentile=percentile, window_days=11)
    with pytest.raises(InputError, match=f"days of other years with values.*got {got} in 11"):
        limits(DAYS, noise(), DAYS.year <= last_year, rule)


@pytest.mark.parametrize("side", ["above", "below"])
def test_beyond_is_one_zero_or_unknown(side):
    values = noise()
    values[30, 0, 0] = np.nan
    rule = Exceedance("t", percentile=90, side=side, window_days=11)
    training = DAYS.year < 2003
    limit = limits(DAYS, values, training, rule)
    wanted = (values > limit if side == "above" else values < limit).astype(float)
    wanted[30, 0, 0] = np.nan
    got = exceeding(values, thresholds(DAYS, values, training, rule), rule)
    np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("min_days", [1, 3, 5, 70])
def test_spells_are_long_enough_runs(min_days):
    """Oracle: what every way of filling the unknown days would give."""
    days = DAYS[:200].delete([50, 51, 120])
    beyond = np.random.default_rng(1).choice([0.0, 1.0], (len(days), 2, 3), p=[0.4, 0.6])
    beyond[30, 0, 0] = beyond[90:93, 1, 1] = np.nan
    if min_days == 70:
        beyond[100:180, 0, 1] = 1.0
    settings = Exceedance("t", min_days=min_days)
    found = [part for _, part in spells(days, beyond.astype(np.float32), settings)]
    got = np.concatenate(found)
    number = (days - days[0]).days + min_days  # and as many unknown days at both ends
    for y, x in np.ndindex(2, 3):
        all_days = np.full(number[-1] + min_days + 1, np.nan)
        all_days[number] = beyond[:, y, x]
        ways = []
        for filled in (0.0, 1.0):  # a longer run cannot be less of a spell: the two ends suffice
            state = np.where(np.isnan(all_days), filled, all_days)
            spell, first = np.zeros(len(state)), 0
            for k in range(len(state) + 1):
                if k == len(state) or not state[k]:
                    if k - first >= min_days:
                        spell[first:k] = 1.0
                    first = k + 1
            ways.append(spell[number])
        wanted = np.where(ways[0] == ways[1], ways[0], np.nan)
        wanted[np.isnan(beyond[:, y, x])] = np.nan
        np.testing.assert_array_equal(got[:, y, x], wanted)
    if min_days in (3, 5):
        assert np.isnan(got[0]).any() and np.isnan(got[50]).any()  # the day after the first gap


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"percentile": 100}, "percentile` must be above 0"),
        ({"min_days": 0}, "min_days` must be 1 to 366"),
        ({"min_share": 0.0}, "min_share` must be above 0"),
    ],
)
def test_bad_settings(change, words):
    with pytest.raises(InputError, match=words):
        Exceedance("t", **change)
