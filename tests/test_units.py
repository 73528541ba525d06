"""Units of files become SI units, and limits of values hold in their own units only."""

import numpy as np
import pandas as pd
import pytest
from conftest import make_field
from test_build import LAGS, SPLIT
from test_maps import detector

from data_pipelines.build import build_store
from data_pipelines.errors import InputError
from data_pipelines.fields import open_fields
from data_pipelines.quality import check_block, limits_of, unchecked
from data_pipelines.settings import Fields, Incidents, Patches
from data_pipelines.store import open_store, store_identity
from data_pipelines.survey import refuse_impossible, survey_fields
from data_pipelines.units import si_units
from weather_tdr.rules import pressure_lags

SPELLED = {  # by files -> as the oracle spells it
    "mm": "mm", "mm/day": "mm / day", "mm d-1": "mm / day", "mm hr-1": "mm / hour",
    "kg m-2 day-1": "kg / m^2 / day", "kg m**-2 s**-1": "kg / m^2 / s", "kg/m2/day": "kg/m^2/day",
    "g kg-1": "gram / kilogram * kg / kg", "g/kg": "gram / kilogram * kg / kg",
    "C": "degC", "°C": "degC", "deg_C": "degC", "degree_C": "degC", "degrees_Celsius": "degC",
    "degK": "K", "kelvin": "K", "Kelvin": "K", "kPa": "kPa", "hectopascal": "hPa", "hPa": "hPa",
    "mbars": "mbar", "millibar": "mbar", "millibars": "mbar", "pascal": "Pa", "Pascals": "Pa",
    "km/h": "km / hour", "km h-1": "km / hour", "knots": "knot", "kt": "knot", "dam": "decameter",
    "m s**-1": "m / s", "Pa/s": "Pa / s", "hours": "hour",
}  # fmt: skip


@pytest.mark.parametrize("written", SPELLED)
def test_a_library_of_units_agrees(written):
    units = pytest.importorskip("cf_xarray.units").units
    si, factor, offset = si_units(written)
    for value in (0.0, 7.25, -30.0):
        there = units.Quantity(value, units.Unit(SPELLED[written]))
        wanted = there.to(units.Unit("" if si == "kg kg-1" else si))
        assert value * factor + offset == pytest.approx(wanted.magnitude, rel=1e-12, abs=1e-15)
    assert si_units(si) == (si, 1.0, 0.0)


@pytest.mark.parametrize(
    "units", ["degF", "mm month-1", "dPa", "S m-1", "ms-1", "1e-5 s-1", "%", "1", "", "(0 - 1)"]
)
def test_what_is_not_known_stays(units):
    assert si_units(units) == (units, 1.0, 0.0)


def test_no_time_is_invented_and_water_is_no_mass():
    kinds = [si_units(u)[0] for u in ("mm", "mm/day", "kg m-2", "kg m-2 day-1")]
    assert kinds == ["m", "m s-1", "kg m-2", "kg m-2 s-1"]


def fields_of(path, name, standard, units, values, steps=4):
    """Opened again from a file that says these things of these values."""
    data = make_field([10.0, 0.0, -10.0], [0.0, 10.0, 20.0, 30.0], steps)
    data = data.rename(msl=name)
    data[name].values[:] = np.resize(values, data[name].shape)
    data[name].attrs = {"standard_name": standard} | ({"units": units} if units else {})
    data.to_netcdf(path)
    return open_fields([path], [name])


@pytest.mark.parametrize("units", ["1/s", "1 / s", "1 s-1", "s**-1", "s^-1"])
def test_one_over_a_unit_is_its_inverse(units):
    assert si_units(units) == ("s-1", 1.0, 0.0)
    assert si_units("1") == ("1", 1.0, 0.0) and si_units("1/hPa") == ("Pa-1", 0.01, 0.0)


@pytest.mark.parametrize(
    ("standard", "units", "values", "factor"),
    [
        ("lwe_thickness_of_precipitation_amount", "mm", (0.0, 2.0, 180.0), 1e-3),
        ("precipitation_flux", "kg m-2 day-1", (0.0, 2.0, 180.0), 1 / 86_400),
        ("precipitation_flux", "mm/day", (0.0, 2.0, 180.0), 1e-3 / 86_400),
        ("precipitation_flux", "kg m-2 month-1", (0.0, 2.0, 180.0), 1.0),
        ("lwe_thickness_of_precipitation_amount", "", (0.0, 2.0, 180.0), 1.0),
        ("specific_humidity", "g kg-1", (0.01, 4.0, 20.0), 1e-3),
        ("eastward_wind", "km/h", (-300.0, 10.0, 260.0), 1 / 3.6),
        ("eastward_wind", "furlong fortnight-1", (-90_000.0, 10.0, 90_000.0), 1.0),
    ],
)
def test_possible_values_are_kept_in_any_units(standard, units, values, factor, tmp_path):
    fields = fields_of(tmp_path / "a.nc", "w", standard, units, values)
    clean, found = check_block(fields.values, fields, pd.DatetimeIndex(fields.time.values))
    assert found == []
    np.testing.assert_allclose(clean.ravel()[:3], np.array(values) * factor, rtol=1e-6)
    refuse_impossible(fields)
    lines = unchecked(fields)
    assert len(lines) == (factor == 1.0 or units == "mm/day")
    assert not lines or (units or "`1`") in lines[0] or "m s-1" in lines[0]


@pytest.mark.parametrize(
    ("standard", "units", "value"),
    [
        ("air_temperature", "C", 200.0),
        ("air_temperature", "", 2.0),
        ("precipitation_flux", "kg m-2 day-1", 200_000.0),
        ("lwe_thickness_of_precipitation_amount", "mm", 5_000.0),
        ("specific_humidity", "1", 3.0),
    ],
)
def test_impossible_values_are_found_in_units_that_are_known(standard, units, value, tmp_path):
    fields = fields_of(tmp_path / "a.nc", "w", standard, units, value)
    times = pd.DatetimeIndex(fields.time.values)
    clean, (found,) = check_block(fields.values, fields, times)
    assert found.problem == "impossible" and np.isnan(clean).all() and unchecked(fields) == []
    assert survey_fields([tmp_path / "a.nc"]).variables[0].problem
    with pytest.raises(InputError, match="`w` must lie within"):
        refuse_impossible(fields)


@pytest.mark.parametrize("units", ["C", "°C", "deg_C", "degree_C"])
def test_celsius_is_read_in_kelvin(units, tmp_path):
    fields = fields_of(tmp_path / "a.nc", "tas", "air_temperature", units, 10.0)
    np.testing.assert_allclose(fields.values, 283.15, rtol=1e-6)
    assert fields["units"].item() == "K"


def test_pascal_joins_pa(tmp_path):
    first = make_field([10.0, 0.0, -10.0], [0.0, 10.0, 20.0])
    later = first.assign_coords(time=first["time"] + np.timedelta64(2, "D"))
    first["msl"].attrs["units"] = "pascal"
    first.to_netcdf(tmp_path / "a.nc")
    later.to_netcdf(tmp_path / "b.nc")
    joined = open_fields([tmp_path / "a.nc", tmp_path / "b.nc"], ["msl"])
    assert joined["units"].item() == "Pa"
    np.testing.assert_array_equal(joined.values[:3, 0], first["msl"].values)


@pytest.mark.parametrize(
    ("name", "standard"),
    [
        ("psl", "air_pressure_at_sea_level"), ("SLP", "sea_level_pressure"), ("psl", ""),
        ("slp", ""), ("PRMSL", ""), ("mslp", ""), ("p", "air_pressure_at_mean_sea_level"),
        ("p", "sea_level_pressure"),
    ],
)  # fmt: skip
def test_sea_level_pressure_by_its_names(name, standard, tmp_path):
    fields = fields_of(tmp_path / "a.nc", name, standard, "hPa", (990.0, 1010.0))
    assert limits_of(fields) == [(80_000.0, 112_000.0)]
    now, earlier = pressure_lags(fields)
    assert earlier is None and float(now[0, 0, 0]) == 99_000.0
    again = open_fields([tmp_path / "a.nc"], [standard or name])
    np.testing.assert_array_equal(again.values, fields.values)


def test_pressure_in_unknown_units_is_for_no_rule(tmp_path):
    fields = fields_of(tmp_path / "a.nc", "psl", "air_pressure_at_sea_level", "dPa", 9.9e4)
    assert pressure_lags(fields) is None and "`psl`" in unchecked(fields)[0]


def test_another_pressure_is_none_at_sea_level(tmp_path):
    assert (
        pressure_lags(fields_of(tmp_path / "a.nc", "sp", "surface_air_pressure", "Pa", 6e4)) is None
    )


def describing(units, standard=""):
    """A detector of one variable `w`."""
    trained = detector(8, 2, 10.0)
    trained.variables = {
        "variable": ["w"], "units": [units], "standard_name": [standard], "base_variable": ["w"],
        "lag": ["0h"],
    }  # fmt: skip
    return trained


@pytest.mark.parametrize("written", ["air_pressure_at_sea_level", "air_pressure_at_mean_sea_level"])
@pytest.mark.parametrize("trained", ["air_pressure_at_sea_level", "air_pressure_at_mean_sea_level"])
def test_a_detector_of_pressure_takes_the_alias(trained, written, tmp_path):
    fields_of(tmp_path / "a.nc", "psl", written, "Pa", 99_000.0)
    fields = open_fields([tmp_path / "a.nc"], ["w"], standard_names=[trained])
    describing("Pa", trained).check_fields(fields)
    assert (fields.values == 99_000.0).all()


def test_a_store_in_units_that_are_now_converted_is_built_again(small, small_files, tmp_path):
    """An older release kept °C: neither its store nor its network is taken for one in K."""
    fields = small[0][["msl", "vo850"]].copy(deep=True)
    fields["tas"] = (fields["msl"] / 5000.0 - 10.0).assign_attrs(units="C")
    fields.to_netcdf(tmp_path / "in_c.nc")
    fields["tas"].attrs["units"] = "degC"
    fields.to_netcdf(tmp_path / "in_degc.nc")
    stores = {}
    for name in ("in_c", "in_degc"):
        settings = Fields([str(tmp_path / f"{name}.nc")], ["msl", "tas"], lags=LAGS)
        path = tmp_path / name / "patches.zarr"
        where = {"deepening_bergeron": {"min": 1.0}}
        incidents = Incidents(catalogue=str(small_files[1]), where=where)
        build_store(path, settings, incidents, Patches(8, 2), SPLIT)
        stores[name] = open_store(path)
    prints = [set(s.attrs["fingerprints"]) for s in stores.values()]
    assert [any("SI" in k for k in p) for p in prints] == [True, False]
    attributes = dict(stores["in_c"].attrs)
    attributes["fingerprints"] = {
        k: v for k, v in attributes["fingerprints"].items() if "SI" not in k
    }  # as the older release wrote it
    assert store_identity(attributes) != store_identity(stores["in_c"].attrs)


def test_a_detector_in_units_that_are_now_converted_is_refused(tmp_path):
    """Its mean and standard deviation are in the units of the file."""
    celsius = fields_of(tmp_path / "c.nc", "w", "", "C", 3.0)
    with pytest.raises(InputError, match="units `C` as in training, by an older release, got `K`"):
        describing("C").check_fields(celsius)
    describing("K").check_fields(celsius)
    pressure = fields_of(tmp_path / "p.nc", "w", "", "pascal", 3.0)
    for same in ("Pa", "pascal"):  # the same values, however an older release wrote it
        describing(same).check_fields(pressure)
    with pytest.raises(InputError, match=r"units `Pa` as in training, got `K`\. Convert it first"):
        describing("Pa").check_fields(celsius)
