"""A trained detector takes no other level, and says what it reads in place of a name."""

import json

import numpy as np
import pytest
import xarray as xr
from conftest import make_field
from test_build import LAGS, SPLIT
from test_maps import detector

from data_pipelines.build import build_store
from data_pipelines.errors import InputError
from data_pipelines.fields import open_fields
from data_pipelines.levels import level_of
from data_pipelines.settings import Fields, Incidents, Patches
from data_pipelines.store import open_store
from weather_tdr.model_files import detector_from_store, load_detector, save_detector
from weather_tdr.models import PatchNet

PRESSURE = {"units": "Pa", "positive": "down", "axis": "Z", "standard_name": "air_pressure"}
HEIGHT = {"units": "m", "positive": "up", "standard_name": "height"}


def temperature(path, name, level, *, dim=False):
    """A file of air temperature with a coordinate (name, value, attributes), or none."""
    data = make_field([10.0, 0.0, -10.0], [0.0, 10.0, 20.0, 30.0]).rename(msl=name)
    data[name].values[:] = 280.0
    data[name].attrs = {"units": "K", "standard_name": "air_temperature"}
    if level is not None:
        axis, value, attributes = level
        data = data.assign_coords({axis: ((), value, attributes)})
        if dim:
            data = data.expand_dims(axis)
    data.to_netcdf(path)
    return path


@pytest.mark.parametrize("dim", [True, False])
@pytest.mark.parametrize(
    ("axis", "value", "attributes", "wanted"),
    [
        ("plev", 85_000.0, PRESSURE, "85000 Pa"),
        ("pressure_level", 850.0, {"units": "hPa", "long_name": "pressure"}, "85000 Pa"),
        ("level", np.int32(850), {"units": "millibars"}, "85000 Pa"),
        ("height", 2.0, HEIGHT, "2 m"),
        ("zlev", np.float32(0.0), {"units": "meters", "positive": "down"}, "0 m"),
        ("hybrid", 60, {"units": "1", "positive": "down"}, "60 1"),
        ("level", 850, {}, ""),  # of what units?
        ("surface", 0.0, {"units": "1"}, ""),
        ("number", 0, {"units": "1", "standard_name": "realization"}, ""),
    ],
)
def test_level_of_files(axis, value, attributes, wanted, dim, tmp_path):
    path = temperature(tmp_path / "a.nc", "ta", (axis, value, attributes), dim=dim)
    fields = open_fields([path], ["ta"], lags=["0h", "-6h"])
    assert fields["level"].values.tolist() == [wanted, wanted]
    assert axis == "level" or axis not in fields.coords


def test_the_level_of_another_variable_is_not_its():
    data = make_field([10.0, 0.0], [0.0, 10.0]).assign_coords(height=((), 2.0, HEIGHT))
    assert level_of(data["msl"]) == "2 m"
    data["msl"].encoding["coordinates"] = "number"
    assert level_of(data["msl"]) == ""


def reads_temperature(level):
    """A detector of `ta`, trained at a level, None before levels were kept."""
    trained = detector(8, 2, 10.0)
    trained.variables = {
        "variable": ["ta"], "units": ["K"], "standard_name": ["air_temperature"],
        "base_variable": ["ta"], "lag": ["0h"],
    } | ({} if level is None else {"level": [level]})  # fmt: skip
    trained.hemisphere_sign = []
    return trained


@pytest.mark.parametrize(
    ("trained", "given", "fits"),
    [
        ("85000 Pa", ("plev", 85_000.0, PRESSURE), True),
        ("85000 Pa", ("level", 850.0, {"units": "millibar"}), True),
        ("85000 Pa", ("plev", 50_000.0, PRESSURE), False),
        ("85000 Pa", ("height", 2.0, HEIGHT), False),
        ("85000 Pa", None, True),  # not known
        ("", ("plev", 50_000.0, PRESSURE), True),
        (None, ("plev", 50_000.0, PRESSURE), True),
    ],
)
def test_another_level_is_refused_where_both_are_known(trained, given, fits, tmp_path):
    path = temperature(tmp_path / "a.nc", "tas", given)
    model = reads_temperature(trained)
    fields = open_fields([path], **model.open_arguments())
    if fits:
        model.check_fields(fields)
        return
    with pytest.raises(InputError, match=r"`ta` must have the level `85000 Pa` as in training"):
        model.check_fields(fields)


def test_a_variable_of_the_same_standard_name_is_told_of(tmp_path, caplog):
    path = temperature(tmp_path / "a.nc", "tas", None)
    caplog.set_level("INFO")
    open_fields([path], ["tas"])
    assert "is read from" not in caplog.text
    open_fields([path], ["ta"], standard_names=["air_temperature"])
    assert "`ta` is read from `tas`" in caplog.text


def test_the_level_is_kept_in_store_and_model(small, small_files, tmp_path):
    """From the file over the store to the model; without the record all go on as before."""
    plev = xr.Variable((), 85_000.0, PRESSURE)
    small[0][["vo850"]].assign_coords(plev=plev).to_netcdf(tmp_path / "vo.nc")
    settings = Fields([str(tmp_path / "vo.nc")], ["vo850"], lags=LAGS)
    incidents = Incidents(catalogue=str(small_files[1]), where={"deepening_bergeron": {"min": 1.0}})
    build_store(tmp_path / "patches.zarr", settings, incidents, Patches(8, 2), SPLIT)
    store = open_store(tmp_path / "patches.zarr")
    assert store["level"].values.tolist() == ["85000 Pa"] * len(LAGS)
    made = {"variables": len(LAGS), "size": 8, "stride": 2, "width": 6}
    save_detector(detector_from_store(PatchNet(**made), made, store, "uniform"), tmp_path)
    levels = json.loads((tmp_path / "model.json").read_text())["variables"]["level"]
    assert levels == ["85000 Pa"] * len(LAGS)
    fields = open_fields(settings.paths, ["vo850"], lags=LAGS)
    load_detector(tmp_path).check_fields(fields)
    higher = fields.assign_coords(level=("variable", ["50000 Pa"] * len(LAGS)))
    with pytest.raises(InputError, match=r"got `50000 Pa`\. Select that level"):
        load_detector(tmp_path).check_fields(higher)
