"""Chunks of a file that cannot be read: missing to the end, not only while patches are cut."""

import logging

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from conftest import write_config
from test_maps import detector

from data_pipelines.fields import open_fields
from data_pipelines.quality import READ_ERRORS, loaded
from weather_tdr.cli import main
from weather_tdr.maps import incident_map
from weather_tdr.products import lowest_pressure
from weather_tdr.rules import apply_rule, deepening

STEPS = 8  # of a file


def damage(source, folder, lost):
    """The fields in files with checksums, of which one cannot be read; and its times."""
    with xr.open_dataset(source) as data:
        data = data.load()
    for first in range(0, data.sizes["time"], STEPS):
        part = data.isel(time=slice(first, first + STEPS))
        checked = {
            name: {"fletcher32": True, "chunksizes": values.shape, "dtype": "float32"}
            for name, values in part.data_vars.items()
        }
        part.to_netcdf(folder / f"part_{first:04}.nc", encoding=checked, engine="netcdf4")
    path = folder / f"part_{lost * STEPS:04}.nc"
    raw = bytearray(path.read_bytes())
    times = data["time"].to_numpy()[lost * STEPS : (lost + 1) * STEPS]
    at = raw.find(data["msl"].sel(time=times[0]).to_numpy().astype("<f4").tobytes())
    assert at > 0
    raw[at + 40] ^= 0xFF
    path.write_bytes(raw)
    return times


def test_what_cannot_be_read_is_missing_in_maps_and_rules(small_files, tmp_path):
    lost = damage(small_files[0], tmp_path, 1)
    open_as = {"lags": ["0h", "-24h"], "hemisphere_sign": ["vo850"]}
    good, bad = (
        open_fields([path], ["msl", "vo850"], **open_as).isel(time=slice(0, 4 * STEPS))
        for path in (small_files[0], tmp_path / "part_*.nc")
    )
    with pytest.raises(READ_ERRORS):
        bad.compute()
    times = good["time"].to_numpy()
    day = np.timedelta64(24, "h")
    missing = np.isin(times, lost) | np.isin(times - day, lost)
    assert STEPS < missing.sum() < len(times)
    # Chunks of a variable and its lag are lost as one, so that some more may be.
    near = (times >= lost[0]) & (times <= lost[-1] + day + STEPS * (times[1] - times[0]))
    assert near.sum() < len(times) - STEPS

    def check(gone):
        assert (gone >= missing).all() and (gone <= near).all()

    got = loaded(bad)
    gone = np.isnan(got).any(["variable", "latitude", "longitude"]).to_numpy()
    check(gone)
    np.testing.assert_array_equal(got[~gone], good[~gone])
    assert np.isnan(loaded(bad.isel(time=int(np.flatnonzero(gone)[0])))).all()
    # So it is in a map,
    model = detector(16, 4)
    wanted, found = incident_map(model, good), incident_map(model, bad)
    gone = found.isnull().any(["latitude", "longitude"]).to_numpy()
    check(gone)
    np.testing.assert_array_equal(found[~gone], wanted[~gone])
    assert "unreadable" in found.attrs["findings"]
    # and for the rules and the lowest pressure nearby.
    now, before = (bad.isel(variable=k, drop=True) for k in (0, 1))
    samples = pd.DataFrame({"time": times, "latitude": 40.0, "longitude": 100.0})
    scores = apply_rule(deepening, [now, before], samples, (20.0, 20.0), 500.0)
    gone = np.isnan(scores.samples)
    check(gone)
    assert not np.isin(scores.peaks["time"], times[gone]).any()
    gone = np.isnan(lowest_pressure(samples, now, 300.0))
    assert (gone >= np.isin(times, lost)).all() and (gone <= near).all()


def test_a_run_on_damaged_files_comes_to_its_end(small_files, tmp_path, caplog):
    """A file of test is lost: all else has its scores, maps and pictures."""
    with xr.open_dataset(small_files[0]) as data:
        last = data.sizes["time"] // STEPS - 1
    lost = damage(small_files[0], tmp_path, last - 1)
    config = write_config(tmp_path, tmp_path, (tmp_path / "part_*.nc", small_files[1]))
    with caplog.at_level(logging.WARNING):
        main(["run", str(config), "--train.steps", "10", "--train.methods", "[uniform]"])
    assert "unreadable" in caplog.text
    folder = tmp_path / "tiny" / "uniform"
    with xr.open_dataset(folder / "incident_map.nc") as drawn:
        there = drawn["incident_probability"].notnull().any(["latitude", "longitude"])
        assert there.any() and not np.isin(drawn["time"][there], lost).any()
    assert (folder / "figures" / "incident_1.png").is_file()
    assert (tmp_path / "tiny" / "deepening_rule" / "scores.json").is_file()
    main(["map", str(folder), str(tmp_path / "part_*.nc"), "--quiet"])
    assert len(list((folder / "maps").glob("*/incident_map.nc"))) == 1
