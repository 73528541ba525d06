"""Files whose coordinates differ in form, joined; the oracle is the field that was cut up."""

import json

import dask
import numpy as np
import pytest
from conftest import make_field

from data_pipelines.errors import InputError
from data_pipelines.fields import open_fields

LAT = np.arange(90, -91, -10.0)
LON = np.arange(0, 360, 10.0)


def west(field):
    """The same field from -180 to 180."""
    shifted = (field["longitude"].values + 180) % 360 - 180
    return field.assign_coords(longitude=shifted).sortby("longitude")


SECOND = {
    "west": west,
    "south to north": lambda f: f.isel(latitude=slice(None, None, -1)),
    "short names": lambda f: f.rename(latitude="lat", longitude="lon"),
    "new time": lambda f: f.rename(time="valid_time"),
}


@pytest.mark.parametrize("form", SECOND)
@pytest.mark.filterwarnings("error::FutureWarning")
def test_the_form_of_coordinates_may_differ_between_files(tmp_path, form):
    field = make_field(LAT, LON, steps=6)
    field.isel(time=slice(0, 3)).to_netcdf(tmp_path / "a.nc")
    SECOND[form](field.isel(time=slice(3, 6))).to_netcdf(tmp_path / "b.nc")
    SECOND[form](field.rename(msl="vo") + 1).to_netcdf(tmp_path / "vo.nc")
    field.to_netcdf(tmp_path / "whole.nc")
    got = open_fields([tmp_path / "a.nc", tmp_path / "b.nc"], ["msl"])
    np.testing.assert_array_equal(got.values[:, 0], field["msl"].values)
    both = open_fields([tmp_path / "whole.nc", tmp_path / "vo.nc"], ["msl", "vo"])
    np.testing.assert_array_equal(both.values[:, 0], field["msl"].values)
    np.testing.assert_array_equal(both.values[:, 1], field["msl"].values + 1)


def test_single_and_double_precision_are_the_same_grid(tmp_path):
    field = make_field(LAT[::2] / 3, LON / 3, steps=6)
    field.isel(time=slice(0, 3)).to_netcdf(tmp_path / "a.nc")
    second = field.isel(time=slice(3, 6))
    second.assign_coords(
        latitude=second["latitude"].astype("f4"), longitude=second["longitude"].astype("f4")
    ).to_netcdf(tmp_path / "b.nc")
    got = open_fields([tmp_path / "a.nc", tmp_path / "b.nc"], ["msl"])
    np.testing.assert_array_equal(got.values[:, 0], field["msl"].values)


def test_a_single_time_in_each_file(tmp_path):
    field = make_field(LAT, LON, steps=3)
    for k in range(3):
        field.isel(time=k).to_netcdf(tmp_path / f"{k}.nc")
    got = open_fields([f"{tmp_path}/*.nc"], ["msl"])
    np.testing.assert_array_equal(got.values[:, 0], field["msl"].values)
    assert (got["time"].values == field["time"].values).all()


@pytest.mark.parametrize("shift", [0.0, 130.0])
def test_tiles_make_the_larger_grid(tmp_path, shift):
    """Four tiles, also across Greenwich, beside another variable on the whole grid."""
    field = make_field(LAT, LON, steps=3)
    turned = field.roll(longitude=round(shift / 10), roll_coords=True)
    for i, rows in enumerate((slice(0, 9), slice(9, 19))):
        for j, columns in enumerate((slice(0, 18), slice(18, 36))):
            tile = turned.isel(latitude=rows, longitude=columns)
            tile.to_netcdf(tmp_path / f"tile_{i}{j}.nc")
    (west(field).rename(msl="vo") + 1).to_netcdf(tmp_path / "vo.nc")
    got = open_fields([f"{tmp_path}/tile*.nc", tmp_path / "vo.nc"], ["msl", "vo"])
    np.testing.assert_array_equal(got.values[:, 0], field["msl"].values)
    np.testing.assert_array_equal(got.values[:, 1], field["msl"].values + 1)


@pytest.mark.parametrize("name", ["msl", "vo"])
@pytest.mark.parametrize(("step", "begin"), [(5.0, 0.0), (10.0, 5.0)])
def test_another_grid_is_refused(tmp_path, name, step, begin):
    field = make_field(LAT, LON, steps=3)
    field.to_netcdf(tmp_path / "a.nc")
    other = make_field(LAT, np.arange(begin, 360, step), steps=3)
    other = other.assign_coords(time=other["time"] + np.timedelta64(30, "D")).rename(msl=name)
    other.to_netcdf(tmp_path / "b.nc")
    with pytest.raises(InputError, match=r"must be on one grid, got .*\.nc \(.* and .*\.nc \("):
        open_fields([tmp_path / "a.nc", tmp_path / "b.nc"], sorted({"msl", name}))


def test_joining_computes_nothing(tmp_path):
    def refuse(*_, **__):
        raise AssertionError("computed too early")

    field = make_field(LAT, LON, steps=6)
    field.isel(time=slice(0, 3)).to_netcdf(tmp_path / "a.nc")
    west(field.isel(time=slice(3, 6))).to_netcdf(tmp_path / "b.nc")
    with dask.config.set(scheduler=refuse):
        assert open_fields([f"{tmp_path}/*.nc"], ["msl"]).sizes["time"] == 6


def without_computing(paths, variables):
    """Opened fields; what is computed on the way fails."""

    def refuse(*_, **__):
        raise AssertionError("computed too early")

    with dask.config.set(scheduler=refuse):
        return open_fields(paths, variables)


@pytest.mark.parametrize("last", ["cut", "whole"])
def test_a_cut_of_the_same_beginning_takes_nothing_away(tmp_path, last):
    """Whichever name comes last: both begin at the same time, at the same corner."""
    field = make_field(LAT, LON, steps=8)
    names = {"cut": "b" if last == "cut" else "a", "whole": "a" if last == "cut" else "b"}
    field.isel(time=slice(0, 2)).to_netcdf(tmp_path / f"{names['cut']}.nc")
    field.to_netcdf(tmp_path / f"{names['whole']}.nc")
    got = open_fields([f"{tmp_path}/*.nc"], ["msl"])
    np.testing.assert_array_equal(got.values[:, 0], field["msl"].values)
    assert (got["time"].values == field["time"].values).all() and "findings" not in got.attrs
    wrong = field.isel(time=slice(0, 2)) + 1  # nothing tells which is right
    (tmp_path / f"{names['cut']}.nc").unlink()
    wrong.to_netcdf(tmp_path / f"{names['cut']}0.nc")
    left = open_fields([f"{tmp_path}/*.nc"], ["msl"])
    np.testing.assert_array_equal(left.values[:, 0], field["msl"].values[2:])
    (finding,) = json.loads(left.attrs["findings"])
    assert (finding["problem"], finding["values"]) == ("repeated", 4)


def test_preliminary_months_beside_final_ones_of_the_same_beginning(tmp_path):
    field = make_field(LAT, LON, steps=8)
    early = field.isel(time=slice(0, 4)) + 7
    early.assign_coords(expver=("time", ["0005"] * 4)).to_netcdf(tmp_path / "b.nc")
    final = field.isel(time=slice(0, 3))
    final.assign_coords(expver=("time", ["0001"] * 3)).to_netcdf(tmp_path / "a.nc")
    got = open_fields([f"{tmp_path}/*.nc"], ["msl"])
    np.testing.assert_array_equal(got.values[:3, 0], final["msl"].values)
    np.testing.assert_array_equal(got.values[3, 0], early["msl"].values[3])


def test_old_and_new_files_of_era5(tmp_path):
    """New ones have `number` and `expver`; of two variables one may be preliminary for longer."""
    field = make_field(LAT, LON, steps=9)
    for k, name in enumerate(("msl", "t2m")):
        own = field.rename(msl=name) + k
        own.isel(time=slice(0, 3)).to_netcdf(tmp_path / f"{name}_0.nc")
        for part in (1, 2):
            version = ["0005" if part == 2 and k else "0001"] * 3
            new = own.isel(time=slice(3 * part, 3 * part + 3)).assign_coords(
                number=0, expver=("time", version)
            )
            new.rename(time="valid_time").to_netcdf(tmp_path / f"{name}_{part}.nc")
    got = open_fields([f"{tmp_path}/*.nc"], ["msl", "t2m"])
    for k in range(2):
        np.testing.assert_array_equal(got.values[:, k], field["msl"].values + k)
    (finding,) = json.loads(got.attrs["findings"])
    assert (finding["problem"], finding["values"]) == ("preliminary", 3)
    assert finding["first"] == str(field["time"].values[6])[:19]
