"""GRIB files give the same fields as NetCDF, and leave nothing beside them."""

import importlib.util
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from data_pipelines.errors import InputError
from data_pipelines.fields import open_fields

eccodes = pytest.importorskip("eccodes", reason="needs the extra `grib`")
LEVEL = {"vo": 850}


def write_grib(path, fields: xr.Dataset, names: dict[str, str]) -> None:
    """One message a variable and time; `names`: of the variables -> GRIB short names."""
    lat, lon = fields["latitude"].to_numpy(), fields["longitude"].to_numpy()
    with path.open("wb") as file:
        for name, short in names.items():
            for values in fields[name]:
                kind = "pl" if short in LEVEL else "sfc"
                message = eccodes.codes_grib_new_from_samples(f"regular_ll_{kind}_grib2")
                time = pd.Timestamp(values["time"].item())
                keys = {
                    "Ni": len(lon), "Nj": len(lat),
                    "latitudeOfFirstGridPointInDegrees": lat[0],
                    "latitudeOfLastGridPointInDegrees": lat[-1],
                    "longitudeOfFirstGridPointInDegrees": lon[0],
                    "longitudeOfLastGridPointInDegrees": lon[-1],
                    "iDirectionIncrementInDegrees": lon[1] - lon[0],
                    "jDirectionIncrementInDegrees": lat[0] - lat[1],
                    "dataDate": int(f"{time:%Y%m%d}"), "dataTime": time.hour * 100,
                    "shortName": short, "bitsPerValue": 24,
                }  # fmt: skip
                if short in LEVEL:
                    keys["level"] = LEVEL[short]
                for key, value in keys.items():
                    eccodes.codes_set(message, key, value)
                eccodes.codes_set_values(message, values.to_numpy().astype(float).ravel())
                eccodes.codes_write(message, file)
                eccodes.codes_release(message)


@pytest.fixture(scope="module")
def archive(tmp_path_factory, small):
    folder = tmp_path_factory.mktemp("grib")
    fields = small[0].isel(time=slice(0, 12))
    fields.to_netcdf(folder / "all.nc")
    write_grib(folder / "all.grib", fields, {"msl": "msl", "vo850": "vo"})
    write_grib(folder / "a.grb2", fields.isel(time=slice(0, 5)), {"msl": "msl"})
    write_grib(folder / "b.grb2", fields.isel(time=slice(5, None)), {"msl": "msl"})
    return folder


def test_the_same_fields_as_netcdf(archive):
    before = sorted(archive.iterdir())
    got = open_fields(
        [archive / "all.grib"], ["msl", "atmosphere_relative_vorticity"],
        lags=["0h", "-24h"], hemisphere_sign=["atmosphere_relative_vorticity"],
    )  # fmt: skip
    wanted = open_fields(
        [archive / "all.nc"], ["msl", "vo850"], lags=["0h", "-24h"], hemisphere_sign=["vo850"]
    )
    assert list(got["variable"].values[:2]) == ["msl", "msl-24h"]
    for axis in ("time", "latitude", "longitude"):
        np.testing.assert_array_equal(got[axis].values, wanted[axis].values)
    # GRIB packs values into 24 bits of the range of each field.
    for k, scale in enumerate((1e5, 1e5, 1e-4, 1e-4)):
        np.testing.assert_allclose(got[:, k].values, wanted[:, k].values, atol=1e-6 * scale)
    assert sorted(archive.iterdir()) == before  # no index file


def test_files_are_joined_along_time(archive):
    got = open_fields([archive / "b.grb2", archive / "a.grb2"], ["msl"])
    wanted = open_fields([archive / "all.nc"], ["msl"])
    np.testing.assert_allclose(got.values, wanted.values, atol=0.1)


def test_without_cfgrib_the_extra_is_named(archive, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "cfgrib" else find(name)
    )
    with pytest.raises(InputError, match="extra `grib`"):
        open_fields([archive / "all.grib"], ["msl"])


@pytest.mark.parametrize("first", ["the pipelines", "the command line"])
def test_a_process_that_draws_after_reading_ends_well(archive, first):
    pytest.importorskip("pyproj")
    code = {
        "the pipelines": "from data_pipelines.fields import open_fields\n"
        "print(float(open_fields([sys.argv[1]], ['msl']).mean()))\n",
        "the command line": "from weather_tdr.cli import main\n"
        "try: main(['--version'])\nexcept SystemExit: pass\n"
        "import xarray\nprint(float(xarray.open_dataset(sys.argv[1])['msl'].mean()))\n",
    }[first]
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\n{code}import pyproj", archive / "a.grb2"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert 9e4 < float(done.stdout.split()[-1]) < 1.1e5
