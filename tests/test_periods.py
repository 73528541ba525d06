"""Evaluation and maps look at the times they are asked for, and at no others."""

import json
import shutil

import numpy as np
import pytest
import xarray as xr
import yaml
from test_end_to_end import fails

from weather_tdr.cli import main
from weather_tdr.run import map_fields


def test_evaluation_sees_no_times_outside_the_period(tiny_run, small, small_files, tmp_path):
    """Earlier fields that would be refused, since their times stand there twice, unlike."""
    folder = tmp_path / "tiny"
    shutil.copytree(tiny_run, folder)
    earlier = small[0].isel(time=slice(0, 80))
    earlier = earlier.assign_coords(time=earlier["time"] - np.timedelta64(100, "D"))
    xr.concat([earlier, earlier + 1], "time").sortby("time").to_netcdf(tmp_path / "earlier.nc")
    times = small[0].indexes["time"]
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config["output"] = str(tmp_path)
    config["fields"]["paths"].append(str(tmp_path / "earlier.nc"))
    config["fields"]["period"] = f"{times[0].date()}/{times[-1].date()}"
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    before = json.loads((folder / "uniform" / "scores.json").read_text())
    (folder / "uniform" / "scores.json").unlink()
    main(["evaluate", str(folder / "uniform"), "--quiet"])
    assert json.loads((folder / "uniform" / "scores.json").read_text()) == before


def test_a_period_of_a_file_and_files_of_one_name(tiny_run, small, tmp_path, capsys):
    fields = small[0].isel(time=slice(0, 24))
    day = fields.indexes["time"][8].date()
    fields.to_netcdf(tmp_path / "long.nc")
    command = ["map", str(tiny_run / "uniform"), str(tmp_path / "long.nc"), "--quiet"]
    main([*command, f"--period={day}/{day}"])
    part = tiny_run / "uniform" / "maps" / f"long_{day}_{day}"
    with xr.open_dataset(part / "incident_map.nc") as opened:
        got = opened.load()
    assert [t.date() for t in got.indexes["time"]] == [day] * 4
    main(command)
    with xr.open_dataset(tiny_run / "uniform/maps/long/incident_map.nc") as whole:
        same = whole["incident_probability"].sel(time=got["time"])
        xr.testing.assert_allclose(got["incident_probability"], same, atol=1e-6)
    (tmp_path / "other").mkdir()
    fields.to_netcdf(tmp_path / "other" / "long.nc")
    line = fails(capsys, *command[:2], tmp_path / "other" / "long.nc", "--quiet")
    assert f"maps/long holds the map of {tmp_path}/long.nc" in line and "`--output`" in line
    small[0].isel(time=slice(0, 28)).to_netcdf(tmp_path / "long.nc")
    main(command)  # the same file, which has grown
    with xr.open_dataset(tiny_run / "uniform" / "maps" / "long" / "incident_map.nc") as grown:
        assert grown.sizes["time"] == whole.sizes["time"] + 4


def test_a_map_that_fails_keeps_no_other_out(tiny_run, tmp_path, small, monkeypatch):
    def fail(*_, **__):
        raise OSError("no space left")

    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        small[0].isel(time=slice(0, 12)).to_netcdf(tmp_path / name / "failed.nc")
    with monkeypatch.context() as patch:
        patch.setattr("weather_tdr.run.draw_maps", fail)
        with pytest.raises(OSError, match="no space"):
            map_fields(tiny_run / "uniform", [str(tmp_path / "one" / "failed.nc")])
    made = map_fields(tiny_run / "uniform", [str(tmp_path / "two" / "failed.nc")])
    assert (made / "incident_map.nc").is_file()
