"""Files of different variables and levels, joined; the oracle is the field that was cut up."""

import json

import numpy as np
import pytest
import xarray as xr
from conftest import make_field
from test_joining import LAT, LON, without_computing

from data_pipelines.errors import InputError
from data_pipelines.fields import open_fields


def on_level(field, name, hpa, dim="pressure_level"):
    axis = {dim: ((dim,), [float(hpa)], {"units": "hPa", "standard_name": "air_pressure"})}
    return field.rename(msl=name).expand_dims({dim: 1}, axis=1).assign_coords(axis)


@pytest.mark.parametrize("form", ["dim", "scalar"])
def test_variables_on_levels_of_their_own(tmp_path, form):
    field = make_field(LAT, LON, steps=4)
    for name, hpa in (("z", 500), ("vo", 850)):
        levelled = on_level(field + hpa, name, hpa)
        if form == "scalar":
            levelled = levelled.isel(pressure_level=0)
        for part in range(2):
            chosen = levelled.isel(time=slice(2 * part, 2 * part + 2))
            chosen.to_netcdf(tmp_path / f"{name}_{part}.nc")
    got = without_computing([f"{tmp_path}/*.nc"], ["z", "vo"])
    for k, hpa in enumerate((500, 850)):
        np.testing.assert_array_equal(got.values[:, k], (field["msl"] + hpa).values)
    assert got["level"].values.tolist() == ["50000 Pa", "85000 Pa"]
    other = on_level(field + 9, "z", 850).assign_coords(
        time=field["time"] + np.timedelta64(30, "D")
    )
    other.to_netcdf(tmp_path / "z_2.nc")
    with pytest.raises(InputError, match=r"`z` must have one .* in all files, got 50.* 85"):
        open_fields([f"{tmp_path}/z*.nc"], ["z"])


def test_heights_of_two_and_ten_metres(tmp_path):
    field = make_field(LAT, LON, steps=4)
    for name, metres in (("tas", 2.0), ("uas", 10.0)):
        own = field.rename(msl=name).assign_coords(height=metres)
        own["height"].attrs = {"units": "m", "standard_name": "height", "positive": "up"}
        own.to_netcdf(tmp_path / f"{name}.nc")
    got = without_computing([f"{tmp_path}/*.nc"], ["tas", "uas"])
    assert got["level"].values.tolist() == ["2 m", "10 m"]


def test_files_may_hold_different_variables(tmp_path):
    """Nothing is computed to put them together, and a shared step at the end of a file is once."""
    field = make_field(LAT, LON, steps=9)
    both = field.assign(u10=field["msl"] * 2, time_bnds=("time", np.arange(9.0)))
    both.isel(time=slice(0, 3)).to_netcdf(tmp_path / "0.nc")
    field.isel(time=slice(3, 6)).to_netcdf(tmp_path / "1.nc")
    field.isel(time=slice(6, 9)).to_netcdf(tmp_path / "2.nc")
    both[["u10"]].isel(time=slice(3, 9)).to_netcdf(tmp_path / "3.nc")
    got = without_computing([f"{tmp_path}/*.nc"], ["msl", "u10"])
    np.testing.assert_array_equal(got.values[:, 0], field["msl"].values)
    np.testing.assert_array_equal(got.values[:, 1], field["msl"].values * 2)
    field.isel(time=slice(2, 4)).to_netcdf(tmp_path / "4.nc")
    again = open_fields([f"{tmp_path}/*.nc"], ["msl", "u10"])
    np.testing.assert_array_equal(again.values, got.values)
    assert "findings" not in again.attrs


def cmor(field, name, metres):
    """A file as CMIP6 has them: bounds, a mapping, a mask, the height as a scalar."""
    time = field["time"].values
    bounds = np.stack([time - np.timedelta64(3, "h"), time + np.timedelta64(3, "h")], axis=1)
    made = field.rename(msl=name).assign(
        time_bnds=(("time", "bnds"), bounds),
        lat_bnds=(("latitude", "bnds"), np.stack([LAT + 5, LAT - 5], axis=1)),
        crs=((), np.int32(0), {"grid_mapping_name": "latitude_longitude"}),
        lsm=(("latitude", "longitude"), np.ones((len(LAT), len(LON)))),
    )
    made["time"].attrs["bounds"] = "time_bnds"
    attributes = {"units": "m", "standard_name": "height", "positive": "up"}
    made = made.assign_coords(height=((), metres, attributes))
    made[name].encoding["coordinates"] = "height"
    return made


@pytest.mark.parametrize("parts", [1, 3])
def test_bounds_mappings_and_masks_stand_in_every_file(tmp_path, parts):
    field = make_field(LAT, LON, steps=120)
    for name, metres in (("tas", 2.0), ("uas", 10.0)):
        own = cmor(field, name, metres)
        for k in range(parts):
            part = own.isel(time=slice(120 // parts * k, 120 // parts * (k + 1)))
            part = part.drop_vars("crs") if k == 1 else part  # not in all of them
            part.to_netcdf(tmp_path / f"{name}_{k}.nc")
    got = open_fields([f"{tmp_path}/*.nc"], ["tas", "uas"])
    for k in range(2):
        np.testing.assert_array_equal(got.values[:, k], field["msl"].values)
    assert got["level"].values.tolist() == ["2 m", "10 m"] and "findings" not in got.attrs
    with pytest.raises(InputError, match="`lsm` must have dim `time`"):
        open_fields([f"{tmp_path}/*.nc"], ["lsm"])


def test_calendars_of_models_are_told_as_of_one_file(tmp_path):
    for name in ("tas", "pr"):
        field = make_field(LAT, LON, steps=4).rename(msl=name)
        field["time"] = ("time", np.arange(4.0) + 57, {"units": "days since 2001-01-01",
                                                       "calendar": "noleap"})  # fmt: skip
        field.to_netcdf(tmp_path / f"{name}.nc")
    with pytest.raises(InputError, match="standard calendar, got calendar `noleap`"):
        open_fields([f"{tmp_path}/*.nc"], ["tas", "pr"])


@pytest.mark.parametrize("same", [True, False])
def test_a_field_that_two_sets_of_files_have(tmp_path, same):
    """Equal at all of many times, it is one field; else nothing tells which is right."""
    field = make_field(LAT, LON, steps=120)
    field.assign(t2m=field["msl"] + 1).to_netcdf(tmp_path / "a.nc")
    other = field if same else field + 1
    other.assign(u10=field["msl"] + 2).to_netcdf(tmp_path / "b.nc")
    if same:
        got = open_fields([f"{tmp_path}/*.nc"], ["msl", "t2m", "u10"])
        for k in range(3):
            np.testing.assert_array_equal(got.values[:, k], field["msl"].values + k)
    else:
        with pytest.raises(InputError, match="`time` must not repeat"):
            open_fields([f"{tmp_path}/*.nc"], ["msl", "t2m"])
    only = open_fields([f"{tmp_path}/*.nc"], ["t2m", "u10"])  # msl is not asked for
    np.testing.assert_array_equal(only.values[:, 1], field["msl"].values + 2)


def test_repeats_outside_the_period_are_not_looked_at(tmp_path):
    field = make_field(LAT, LON, steps=12)
    field.isel(time=slice(0, 8)).to_netcdf(tmp_path / "msl_a.nc")
    wrong = field.isel(time=slice(6, 12)) + 1
    wrong.to_netcdf(tmp_path / "msl_b.nc")
    field.rename(msl="vo").to_netcdf(tmp_path / "vo.nc")
    times = field["time"].values.astype("datetime64[s]").astype(str)
    early = open_fields([f"{tmp_path}/*.nc"], ["msl", "vo"], period=f"{times[0]}/{times[5]}")
    assert "findings" not in early.attrs and early.sizes["time"] == 6
    (finding,) = json.loads(open_fields([f"{tmp_path}/*.nc"], ["msl", "vo"]).attrs["findings"])
    assert (finding["problem"], finding["values"]) == ("repeated", 4)


@pytest.mark.parametrize("units", ["hPa", ""])
def test_levels_of_what_nobody_asks_for_stop_nothing(tmp_path, units):
    field = make_field(LAT, LON, steps=4)
    field.to_netcdf(tmp_path / "sfc.nc")
    for hpa in (500, 850):
        own = on_level(field, "z", hpa, "level")
        own["level"].attrs = {"units": units} if units else {}
        own.assign_coords(time=own["time"] + np.timedelta64(hpa, "D")).to_netcdf(
            tmp_path / f"z_{hpa}.nc"
        )
    got = open_fields([f"{tmp_path}/*.nc"], ["msl"])
    np.testing.assert_array_equal(got.values[:4, 0], field["msl"].values)
    with pytest.raises(InputError, match=r"`z` must have one .*level.* got 500.* and 850.*"):
        open_fields([f"{tmp_path}/*.nc"], ["z"])


def test_one_level_may_be_written_in_many_ways(tmp_path):
    """And be told by some of the files only."""
    field = make_field(LAT, LON, steps=8)
    forms = (
        None,
        ("level", [500.0], {"units": "hPa"}),
        ("level", np.array([500]), {"units": "millibars"}),
        ("plev", [50_000.0], {"units": "Pa"}),
    )
    for k, form in enumerate(forms):
        part = field.isel(time=slice(2 * k, 2 * k + 2)).rename(msl="z")
        if form is not None:
            part = part.expand_dims({form[0]: 1}, axis=1).assign_coords(
                {form[0]: ((form[0],), *form[1:])}
            )
        part.to_netcdf(tmp_path / f"{k}.nc")
    got = open_fields([f"{tmp_path}/*.nc"], ["z"])
    np.testing.assert_array_equal(got.values[:, 0], field["msl"].values)
    assert got["level"].values.tolist() == ["50000 Pa"]


def test_a_level_that_was_refused_is_not_replaced_by_another_variable(tmp_path):
    """Of the same standard name: asked for by that name, or by the name of the refused one."""
    field = make_field(LAT, LON, steps=4)
    standard = {"standard_name": "air_temperature", "units": "K"}
    near = field.rename(msl="t2m")
    near["t2m"].attrs = standard
    near.to_netcdf(tmp_path / "t2m.nc")
    for k, hpa in enumerate((500, 850)):
        own = on_level(field, "t", hpa)
        own["t"].attrs = standard
        own = own.assign_coords(time=own["time"] + k * np.timedelta64(5, "D"))
        own.to_netcdf(tmp_path / f"t_{hpa}.nc")
    paths = [f"{tmp_path}/*.nc"]
    for name in ("t", "air_temperature"):
        with pytest.raises(InputError, match="`t` must have one level in all files, got 50000 Pa"):
            open_fields(paths, [name], standard_names=["air_temperature"])
    assert open_fields(paths, ["t2m"])["base_variable"].values.tolist() == ["t2m"]


def test_several_levels_in_one_file_and_one_in_another(tmp_path):
    field = make_field(LAT, LON, steps=4)
    field.to_netcdf(tmp_path / "msl.nc")
    both = xr.concat([on_level(field, "z", hpa) for hpa in (500, 850)], "pressure_level")
    both.isel(time=slice(0, 2)).to_netcdf(tmp_path / "z_0.nc")
    both.isel(time=slice(2, 4), pressure_level=[0]).to_netcdf(tmp_path / "z_1.nc")
    np.testing.assert_array_equal(
        open_fields([f"{tmp_path}/*.nc"], ["msl"]).values[:, 0], field["msl"].values
    )
    with pytest.raises(InputError, match=r"`z` must have one set of dims .* and `pressure_level`"):
        open_fields([f"{tmp_path}/*.nc"], ["z"])


def test_cuts_of_new_files_at_levels_of_their_own(tmp_path):
    """`expver` along time, the level as a scalar; what is preliminary may not be asked for."""
    field = make_field(LAT, LON, steps=4)
    for name, hpa in (("z", 500), ("vo", 850)):
        own = on_level(field + hpa, name, hpa).isel(pressure_level=0)
        version = ["0001"] * 3 + ["0005" if name == "vo" else "0001"]
        own.assign_coords(expver=("time", version), number=hpa).to_netcdf(tmp_path / f"{name}.nc")
    got = open_fields([f"{tmp_path}/*.nc"], ["z", "vo"])
    assert got["level"].values.tolist() == ["50000 Pa", "85000 Pa"]
    (finding,) = json.loads(got.attrs["findings"])
    assert (finding["problem"], finding["values"]) == ("preliminary", 1)
    assert "findings" not in open_fields([f"{tmp_path}/*.nc"], ["z"]).attrs


def test_masks_in_files_of_their_own(tmp_path):
    field = make_field(LAT, LON, steps=4)
    field.to_netcdf(tmp_path / "msl.nc")
    for name in ("orog", "sftlf"):
        mask = xr.Dataset(
            {name: (("latitude", "longitude"), np.ones((len(LAT), len(LON)))), "crs": ((), 0)},
            coords={"latitude": LAT, "longitude": LON},
        )
        mask.to_netcdf(tmp_path / f"{name}.nc")
    got = open_fields([f"{tmp_path}/*.nc"], ["msl"])
    np.testing.assert_array_equal(got.values[:, 0], field["msl"].values)
    with pytest.raises(InputError, match="`orog` must have dim `time`"):
        open_fields([f"{tmp_path}/*.nc"], ["orog"])
    with pytest.raises(InputError, match="time"):
        open_fields([tmp_path / "orog.nc", tmp_path / "sftlf.nc"], ["orog"])
