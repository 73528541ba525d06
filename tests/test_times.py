"""Times that overlap in two versions, and times that are inexact."""

import json

import numpy as np
import pandas as pd
from conftest import make_field

from data_pipelines.fields import open_fields
from data_pipelines.survey import survey_fields

LAT = np.arange(60, 19, -10.0)
LON = np.arange(0, 60, 10.0)


def test_the_final_version_of_a_time_counts(tmp_path):
    """Of ERA5 and ERA5T that overlap in two of six times; the files in any order."""
    field = make_field(LAT, LON, steps=6)
    final = field.isel(time=slice(0, 4))
    early = field.isel(time=slice(2, 6)) + 1
    final.assign_coords(expver=("time", ["0001"] * 4)).to_netcdf(tmp_path / "a.nc")
    early.assign_coords(expver=("time", ["0005"] * 4)).to_netcdf(tmp_path / "b.nc")
    wanted = np.concatenate([final["msl"].values, early["msl"].values[2:]])
    for names in ("ab", "ba"):
        got = open_fields([tmp_path / f"{n}.nc" for n in names], ["msl"])
        np.testing.assert_array_equal(got.values[:, 0], wanted)
        found = [(f["problem"], f["values"]) for f in json.loads(got.attrs["findings"])]
        assert found == [("mixed", 2), ("preliminary", 2)]


def test_hours_in_inexact_days_are_whole_hours(tmp_path):
    hours = pd.date_range("2001-01-01", periods=12, freq="h")
    days = (hours - pd.Timestamp("1900-01-01")) / pd.Timedelta(days=1)
    field = make_field(LAT, LON, steps=12)
    units = {"units": "days since 1900-01-01"}
    field.assign_coords(time=("time", np.asarray(days) + 1e-11, units)).to_netcdf(tmp_path / "a.nc")
    got = open_fields([tmp_path / "a.nc"], ["msl"], lags=["0h", "-3h"])
    np.testing.assert_array_equal(got["time"].values, hours[3:])


def test_steps_without_a_time_are_dropped_and_counted(tmp_path):
    field = make_field(LAT, LON, steps=6)
    times = field["time"].values.astype("datetime64[ns]").copy()
    times[2] = np.datetime64("NaT")
    field.assign_coords(time=times).to_netcdf(tmp_path / "a.nc")
    got = open_fields([tmp_path / "a.nc"], ["msl"])
    np.testing.assert_array_equal(got.values[:, 0], field["msl"].values[[0, 1, 3, 4, 5]])
    found = {f["problem"]: f["values"] for f in json.loads(got.attrs["findings"])}
    assert found == {"undated": 1, "missing": 1}
    assert not survey_fields([str(tmp_path / "a.nc")]).times.isna().any()
