import numpy as np
import pandas as pd
import pytest
import xarray as xr

from data_pipelines.errors import InputError
from data_pipelines.exceedance import daily_values, spells, thresholds
from data_pipelines.fields import open_fields
from data_pipelines.settings import Exceedance
from tests.conftest import make_field

DAYS = pd.date_range("2001-01-01", "2003-12-31")
ALL = np.ones(len(DAYS), dtype=bool)


def near(when, day, reach):
    """Whether a date is near the day of any year; no leap year here."""
    others = [pd.Timestamp(year, 1, 1) + pd.Timedelta(days=day - 1) for year in range(2000, 2005)]
    return any(abs((when - other).days) <= reach for other in others)


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


def test_thresholds_are_quantiles_of_the_window_around_the_day_of_the_year():
    """Oracle: a plain loop over the training days, and numpy's own estimator."""
    values = noise()
    training = DAYS.year < 2003
    settings = Exceedance("t", percentile=90, window_days=11)
    got = thresholds(DAYS, values, training, settings)
    for day in (1, 3, 59, 200, 365):
        members = [
            v
            for when, v, use in zip(DAYS, values, training, strict=True)
            if use and near(when, day, 5)
        ]
        wanted = np.quantile(np.stack(members), 0.9, axis=0, method="median_unbiased")
        np.testing.assert_allclose(got[day - 1], wanted, rtol=1e-6)
    assert np.isnan(got[365]).all()  # no leap year: nobody asks for day 366


def test_missing_training_days_and_points_leave_the_percentile_of_the_others():
    """Oracle: a plain loop over the training days that have a value at the point."""
    values = noise()
    values[40] = np.nan  # a whole day
    values[100:110, 0, 0] = np.nan
    values[200:, 1, 1] = np.nan  # fewer days than a sample needs, later in the year
    settings = Exceedance("t", percentile=90, window_days=11)
    got = thresholds(DAYS, values, ALL, settings)
    assert not np.isnan(got[:365, 0, 0]).any()
    for day in (34, 41, 46, 95, 104, 300):
        members = np.stack([v for when, v in zip(DAYS, values, strict=True) if near(when, day, 5)])
        for y, x in np.ndindex(values.shape[1:]):
            sample = members[:, y, x]
            sample = sample[~np.isnan(sample)]
            wanted = (
                np.quantile(sample, 0.9, method="median_unbiased") if len(sample) > 9 else np.nan
            )
            assert got[day - 1, y, x] == pytest.approx(wanted, rel=1e-6, nan_ok=True)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_thresholds_agree_with_xclim():
    xclim = pytest.importorskip("xclim.core.calendar")
    days = pd.date_range("2001-01-01", "2003-12-31")  # without a leap day: the same windows
    values = noise(days)
    array = xr.DataArray(
        values, dims=("time", "latitude", "longitude"), coords={"time": days}, attrs={"units": "K"}
    )
    wanted = xclim.percentile_doy(array, window=15, per=95).isel(percentiles=0)
    got = thresholds(days, values, ALL, Exceedance("t", percentile=95, window_days=15))
    # Near the new year ours also takes the first and last days of the whole series, which xclim
    # leaves out for want of the year before and after.
    inner = slice(7, 358)
    wanted = wanted.transpose("dayofyear", ...).values
    np.testing.assert_allclose(got[:365][inner], wanted[inner], rtol=1e-6)


def test_thresholds_see_training_days_only():
    values = noise()
    training = DAYS.year < 2003
    other = values.copy()
    other[~training] = 99.0
    settings = Exceedance("t", percentile=90, window_days=11)
    np.testing.assert_array_equal(
        thresholds(DAYS, values, training, settings), thresholds(DAYS, other, training, settings)
    )
    with pytest.raises(
        InputError, match="at least 100 training days with values for percentile 99, got"
    ):
        thresholds(DAYS, values, training, Exceedance("t", percentile=99, window_days=11))


@pytest.mark.parametrize("side", ["above", "below"])
@pytest.mark.parametrize("min_days", [1, 3, 5])
def test_spells_are_long_enough_runs(side, min_days):
    """Oracle: runs found point by point in text."""
    days = DAYS[:200].delete([50, 120])
    values = noise(days, (2, 3), seed=1)
    values[30, 0, 0] = np.nan
    limits = np.zeros((366, 2, 3), dtype=np.float32)
    settings = Exceedance("t", side=side, min_days=min_days)
    got = np.concatenate([part for _, part in spells(days, values, limits, settings)])
    for y, x in np.ndindex(2, 3):
        of_point = values[:, y, x]
        beyond = of_point > 0 if side == "above" else of_point < 0
        wanted = np.zeros(len(days))
        run: list[int] = []
        for k in range(len(days) + 1):
            broken = k == len(days) or (k and (days[k] - days[k - 1]).days != 1)
            if broken or not beyond[k]:
                if len(run) >= min_days:
                    wanted[run] = 1
                run = []
            if k < len(days) and beyond[k]:
                run.append(k)
        wanted[np.isnan(of_point)] = np.nan
        np.testing.assert_array_equal(got[:, y, x], wanted)


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
