import dask
import numpy as np
import pytest
import xarray as xr
from conftest import make_field
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines.errors import InputError
from data_pipelines.fields import canonical_coordinates, lag_hours, open_fields

LAT = np.arange(90, -91, -10.0)
LON = np.arange(0, 360, 10.0)


@settings(max_examples=30, deadline=None)
@given(roll=st.integers(0, 35), west=st.sampled_from([0.0, 360.0]), flip=st.booleans())
def test_any_global_order_gives_the_same_fields(roll, west, flip):
    canonical = make_field(LAT, LON)
    other = canonical.roll(longitude=roll, roll_coords=True)
    if flip:
        other = other.isel(latitude=slice(None, None, -1))
    other = other.assign_coords(
        longitude=np.where(
            other.longitude >= 180, other.longitude - 360, other.longitude - 360 + west
        )
    )
    got = canonical_coordinates(other)
    np.testing.assert_array_equal(got["msl"].values, canonical["msl"].values)
    np.testing.assert_array_equal(got["longitude"].values, LON)


def test_region_across_greenwich_stays_in_one_piece():
    region = make_field(np.arange(30, 71, 5.0), np.arange(-70, 11, 5.0))
    got = canonical_coordinates(region)
    np.testing.assert_allclose(got["longitude"].values, np.arange(290, 371, 5.0))
    np.testing.assert_array_equal(got["msl"].values, region["msl"].values[:, ::-1])
    wrapped = region.assign_coords(longitude=region.longitude % 360).sortby("longitude")
    again = canonical_coordinates(wrapped)
    np.testing.assert_array_equal(again["msl"].values, got["msl"].values)


def test_cyclic_point_is_dropped():
    field = make_field(LAT, LON)
    cyclic = xr.concat(
        [field, field.isel(longitude=[0]).assign_coords(longitude=[360.0])], "longitude"
    )
    np.testing.assert_array_equal(canonical_coordinates(cyclic)["msl"].values, field["msl"].values)


def test_usual_names_units_and_file_formats_agree(tmp_path):
    field = make_field(LAT, LON, steps=6)
    field["msl"].attrs["standard_name"] = "air_pressure_at_mean_sea_level"
    field.to_netcdf(tmp_path / "a.nc")
    other = field.rename(time="valid_time", latitude="lat", longitude="lon", msl="slp").copy()
    other["slp"] = (other["slp"].astype("f8") / 100).assign_attrs(
        units="hPa", standard_name="air_pressure_at_mean_sea_level"
    )
    other.isel(valid_time=slice(0, 3)).to_netcdf(tmp_path / "b1.nc")
    other.isel(valid_time=slice(3, 6)).to_netcdf(tmp_path / "b2.nc")
    field.to_zarr(tmp_path / "c.zarr", zarr_format=3, consolidated=False)
    first = open_fields([tmp_path / "a.nc"], ["msl"])
    split = open_fields(
        [tmp_path / "b2.nc", tmp_path / "b1.nc"], ["air_pressure_at_mean_sea_level"]
    )
    zarr = open_fields([tmp_path / "c.zarr"], ["msl"])
    np.testing.assert_allclose(split.values, first.values, rtol=1e-6)
    np.testing.assert_array_equal(zarr.values, first.values)
    assert list(split["units"].values) == ["Pa"]


def test_lags_are_the_earlier_fields(tmp_path):
    field = make_field(LAT, LON, steps=9)
    field.to_netcdf(tmp_path / "a.nc")
    got = open_fields([tmp_path / "a.nc"], ["msl"], lags=["0h", "-24h"])
    assert list(got["variable"].values) == ["msl", "msl-24h"]
    assert got.sizes["time"] == 5
    np.testing.assert_array_equal(got.isel(variable=0).values, field["msl"].values[4:])
    np.testing.assert_array_equal(got.isel(variable=1).values, field["msl"].values[:-4])
    assert got["time"].values[0] == field["time"].values[4]


def test_half_precision_does_not_overflow_in_pascals(tmp_path):
    field = make_field(LAT, LON)
    half = (field["msl"] / 100).astype(np.float16).assign_attrs(units="hPa")
    wanted = half.astype(np.float64).values * 100
    store = tmp_path / "half.zarr"
    half.to_dataset(name="msl").to_zarr(store, consolidated=False)
    got = open_fields([store], ["msl"])
    np.testing.assert_array_equal(got.values[:, 0], wanted)


def test_lags_over_a_hole_in_time(tmp_path):
    field = make_field(LAT, LON, steps=9).isel(time=[0, 1, 3, 4, 5, 8])
    field.to_netcdf(tmp_path / "a.nc")
    got = open_fields([tmp_path / "a.nc"], ["msl"], lags=["0h", "-6h"])
    wanted = [1, 3, 4]  # positions whose step before is there
    np.testing.assert_array_equal(got.isel(variable=0).values, field["msl"].values[wanted])
    np.testing.assert_array_equal(got.isel(variable=1).values, field["msl"].values[[0, 2, 3]])


def test_hemisphere_sign(tmp_path):
    field = make_field(LAT, LON)
    field.to_netcdf(tmp_path / "a.nc")
    got = open_fields([tmp_path / "a.nc"], ["msl"], hemisphere_sign=["msl"])
    sign = np.where(LAT < 0, -1, 1)[None, :, None]
    np.testing.assert_array_equal(got.isel(variable=0).values, field["msl"].values * sign)


def test_opening_computes_nothing(small_files):
    def refuse(*_, **__):
        raise AssertionError("computed too early")

    with dask.config.set(scheduler=refuse):
        fields = open_fields([small_files[0]], ["msl", "vo850"], lags=["0h", "-24h"])
    assert fields.shape == (92, 4, 37, 72)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda f: f.assign_coords(latitude=np.r_[LAT[:-1], -89.0]), "`latitude` must be regular"),
        (lambda f: f.isel(longitude=[0, 1, 2, 4, 5]), "`longitude` must be regular"),
        (lambda f: f.rename(msl="mslp"), "`msl` is unknown. Did you mean `mslp`"),
        (lambda f: f.rename(longitude="east"), "coordinate `longitude` is unknown"),
        (lambda f: xr.concat([f, f + 1], "time"), "`time` must not repeat"),
        (lambda f: f.expand_dims(level=[1, 2]), "got also `level` of 2"),
    ],
)
def test_bad_files_say_what_is_wrong(tmp_path, change, words):
    change(make_field(LAT, LON)).to_netcdf(tmp_path / "bad.nc")
    with pytest.raises(InputError, match=words):
        open_fields([tmp_path / "bad.nc"], ["msl"])


def test_patterns_and_folders(tmp_path):
    whole = make_field(LAT, LON, steps=6)
    for k in range(3):
        whole.isel(time=slice(2 * k, 2 * k + 2)).to_netcdf(tmp_path / f"part_{k}.nc")
    got = open_fields([f"{tmp_path}/part_*.nc"], ["msl"])
    whole.to_netcdf(tmp_path / "whole.nc")
    xr.testing.assert_identical(
        got.compute(), open_fields([tmp_path / "whole.nc"], ["msl"]).compute()
    )
    whole.to_netcdf(tmp_path / "odd[1].nc")  # a name that looks like a pattern
    assert open_fields([tmp_path / "odd[1].nc"], ["msl"]).sizes["time"] == 6
    with pytest.raises(InputError, match=r"no file meets the pattern .*\*\.grb"):
        open_fields([tmp_path / "*.grb"], ["msl"])
    with pytest.raises(InputError, match=r"is a folder, and no Zarr store. Write .*/\*\.nc"):
        open_fields([tmp_path], ["msl"])


def test_missing_and_foreign_files(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        open_fields([tmp_path / "none.nc"], ["msl"])
    (tmp_path / "text.nc").write_text("no NetCDF")
    with pytest.raises(InputError, match="cannot open"):
        open_fields([tmp_path / "text.nc"], ["msl"])


@pytest.mark.parametrize("lag", ["6h", "soon", "-1y", ""])
def test_bad_lags(lag):
    with pytest.raises(InputError, match="zero or negative"):
        lag_hours(lag)


def test_a_period_and_an_address(small_files):
    """The times of the period with those that lags need; a store by its address is the same."""
    whole = open_fields([small_files[0]], ["msl"], lags=["0h", "-24h"])
    times = whole.indexes["time"]
    day = f"{times[20]:%Y-%m-%d}"
    part = open_fields([small_files[0]], ["msl"], lags=["0h", "-24h"], period=f"{day}/{day}")
    xr.testing.assert_identical(part.compute(), whole.sel(time=day).compute())
    assert part.sizes["time"] == 4
    with pytest.raises(InputError, match=r"`fields.period` must overlap"):
        open_fields([small_files[0]], ["msl"], period="1950-01-01/1950-12-31")
    with pytest.raises(InputError, match=r"`fields.period` must be intervals"):
        open_fields([small_files[0]], ["msl"], period="1950")
    with xr.open_dataset(small_files[0]) as dataset:
        dataset.to_zarr("memory://archive.zarr", zarr_format=2, consolidated=True)
    remote = open_fields(["memory://archive.zarr"], ["msl"], lags=["0h", "-24h"])
    np.testing.assert_array_equal(remote.values, whole.values)
    with pytest.raises(InputError, match=r"`fields.paths`: .*nowhere"):
        open_fields(["memory://nowhere.zarr"], ["msl"])


def in_units(path, values, units, first, **attrs):
    time = np.datetime64("2001-01-01", "ns") + np.arange(first, first + 2) * np.timedelta64(6, "h")
    xr.Dataset(
        {"t2m": (("time", "latitude", "longitude"), np.full((2, 3, 4), values, "f4"),
                 {"units": units, **attrs})},
        {"time": time, "latitude": [10.0, 0, -10], "longitude": [0.0, 10, 20, 30]},
    ).to_netcdf(path)  # fmt: skip
    return path


def test_units_of_each_file_count(tmp_path):
    kelvin = in_units(tmp_path / "a.nc", 280.0, "K", 0)
    celsius = in_units(tmp_path / "b.nc", 7.0, "degC", 2)
    for paths in ([kelvin, celsius], [celsius, kelvin]):
        got = open_fields(paths, ["t2m"])
        assert got["units"].values.tolist() == ["K"]
        np.testing.assert_allclose(got.values[:2], 280.0)
        np.testing.assert_allclose(got.values[2:], 280.15, rtol=1e-6)
    other = in_units(tmp_path / "c.nc", 7.0, "degF", 2)
    with pytest.raises(
        InputError, match=r"`t2m` must have the same units in all files, got K, deg"
    ):
        open_fields([kelvin, other], ["t2m"])


def test_a_standard_name_of_several_variables_is_refused(tmp_path):
    path = in_units(tmp_path / "a.nc", 280.0, "K", 0, standard_name="air_temperature")
    with xr.open_dataset(path) as data:
        data.assign(t500=data["t2m"] - 30).to_netcdf(tmp_path / "two.nc")
    with pytest.raises(InputError, match="standard name `air_temperature`, got t2m, t500"):
        open_fields([tmp_path / "two.nc"], ["air_temperature"])
    with pytest.raises(InputError, match="rename it to `t700`"):
        open_fields([tmp_path / "two.nc"], ["t700"], standard_names=["air_temperature"])
    assert float(open_fields([tmp_path / "two.nc"], ["t500"]).max()) == 250.0


@pytest.mark.parametrize("written", ["s-1", "s**-1", "s^-1", " s**-1"])
def test_units_are_the_same_however_they_are_written(written, tmp_path):
    field = make_field([10.0, 0.0, -10.0], [0.0, 10.0, 20.0])
    field["msl"].attrs["units"] = written
    field.to_netcdf(tmp_path / "a.nc")
    field["msl"].attrs["units"] = "s-1"
    field.assign_coords(time=field["time"] + np.timedelta64(2, "D")).to_netcdf(tmp_path / "b.nc")
    opened = open_fields([tmp_path / "a.nc", tmp_path / "b.nc"], ["msl"])
    assert opened["units"].item() == "s-1" and opened.sizes["time"] == 6
