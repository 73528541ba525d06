import json

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from data_pipelines.day_stamps import refuse_late_stamps
from data_pipelines.errors import InputError
from data_pipelines.labelling import make_labeller
from data_pipelines.settings import Exceedance, Fields, Incidents, Mask, Series
from weather_tdr.cli import main
from weather_tdr.first.configuration import write_first_config


@pytest.fixture(scope="module")
def daily(small_files, tmp_path_factory):
    """Daily means of the small fields, stamped at hour 0, 12 and 24 of their day, with bounds."""
    folder = tmp_path_factory.mktemp("daily")
    with xr.open_dataset(small_files[0]) as opened:
        means = opened.resample(time="1D").mean().load()
    begin = means["time"].to_numpy()
    bounds = np.stack([begin, begin + np.timedelta64(24, "h")], axis=1)
    for hour in (0, 12, 24):
        made = means.assign_coords(time=("time", begin + np.timedelta64(hour, "h")))
        made["time"].attrs["bounds"] = "time_bnds"
        made["time_bnds"] = (("time", "bnds"), bounds)
        for name in opened.data_vars:
            made[name].attrs = opened[name].attrs | {"cell_methods": "area: time: mean"}
        made.to_netcdf(folder / f"{hour}.nc")
        made.drop_vars("time_bnds").to_netcdf(folder / f"{hour}_bare.nc")
    return folder


@pytest.mark.parametrize("name", ["0.nc", "12.nc", "0_bare.nc", "12_bare.nc", "24_bare.nc"])
def test_stamps_within_the_day_or_without_bounds_are_taken(daily, name):
    refuse_late_stamps([daily / name])


def test_stamps_at_the_end_of_the_day_are_refused(daily, small_files, tmp_path):
    said = r"got (\S+)T00 for the mean of .*np.timedelta64\(12, 'h'\)"
    for rule in ({"catalogue": str(small_files[1])}, {"rule": "series"}):
        with pytest.raises(InputError, match=said):
            make_labeller(
                Incidents(match_time="day", **rule), Fields(paths=[str(daily / "24.nc")]), None
            )
    exact = Incidents(catalogue=str(small_files[1]))
    make_labeller(exact, Fields(paths=[str(daily / "24.nc")]), None)
    with pytest.raises(InputError, match=said):
        write_first_config(
            tmp_path / "f.yaml", [str(daily / "24.nc")], catalogue=str(small_files[1])
        )


def test_each_file_that_is_matched_by_day_is_looked_at(daily, small_files, tmp_path):
    """A later file of the fields; the mask; the series; the files of `exceedance`."""
    fine, late = str(daily / "12.nc"), str(daily / "24.nc")
    catalogue = {"catalogue": str(small_files[1]), "match_time": "day"}
    mask = {"rule": "mask", "mask": Mask("msl", [late]), "match_time": "day"}
    series = {"rule": "series", "series": Series(late, "msl"), "match_time": "day"}
    exceedance = {"rule": "exceedance", "exceedance": Exceedance("msl", [late])}
    where = {"where": {"msl": {"min": 1}}}
    for given, paths, said in (
        (catalogue, [fine, late], "match_time: day"),
        (mask, [fine], "match_time: day"),
        (series | where, [fine], "match_time: day"),
        (exceedance, [fine], "rule: exceedance"),
    ):
        with pytest.raises(InputError, match=rf"`incidents.{said}` needs days stamped within"):
            make_labeller(Incidents(**given), Fields(paths=paths, variables=["msl"]), None)
    with pytest.raises(InputError, match="rule: exceedance` needs days stamped within"):
        right = exceedance | {"exceedance": Exceedance("msl", [fine])}
        make_labeller(Incidents(**right), Fields(paths=[late], variables=["msl"]), None)
    for both in (mask, exceedance, {"rule": "exceedance", "exceedance": Exceedance("msl")}):
        make_labeller(Incidents(**both), Fields(paths=[late], variables=["msl"]), None)  # alike
    copies = [tmp_path / f"{k:03}.nc" for k in range(50)]
    for k, path in enumerate(copies):
        path.symlink_to(daily / ("24.nc" if k == 49 else "12.nc"))
    with pytest.raises(InputError, match=r"bounds of time in .*049.nc"):
        refuse_late_stamps(copies)


def test_the_fix_that_is_told_puts_them_right(daily, tmp_path):
    with xr.open_dataset(daily / "24.nc") as dataset:
        moved = dataset.assign_coords(time=dataset["time"] - np.timedelta64(12, "h"))
        moved["time"].attrs["bounds"] = "time_bnds"
        moved.to_netcdf(tmp_path / "moved.nc")
        with xr.open_dataset(daily / "12.nc") as middle:
            assert (moved["time"].to_numpy() == middle["time"].to_numpy()).all()
    refuse_late_stamps([tmp_path / "moved.nc"])


def test_check_warns_of_days_matched_as_hours(daily, small_files, config_file, capsys):
    files = ["--fields.paths", json.dumps([str(daily / "12.nc")])]
    main(["check", str(config_file), *files])
    told = " ".join(capsys.readouterr().out.split())
    times = pd.to_datetime(pd.read_csv(small_files[1]).query("deepening_bergeron >= 1")["time"])
    with xr.open_dataset(daily / "12.nc") as dataset:
        days = dataset.indexes["time"].floor("D")[1:]  # the lag of a day takes the first
    inside = times[times.dt.floor("D").isin(days)]
    lost = int((inside.dt.hour != 12).sum())
    assert 0 < lost < len(inside)
    assert f"one field a day, and {lost} of {len(inside)} incident entries" in told
    main(["check", str(config_file), *files, "--incidents.match_time", "day"])
    assert "one field a day" not in capsys.readouterr().out
    late = ["--fields.paths", json.dumps([str(daily / "24.nc")])]
    with pytest.raises(SystemExit, match="2"):
        main(["check", str(config_file), *late, "--incidents.match_time", "day"])
    out = capsys.readouterr()
    assert "days stamped within themselves" in " ".join((out.out + out.err).split())
