"""What `inspect` tells of files, stores, runs and methods."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from conftest import make_field
from test_end_to_end import fails

from data_pipelines.store import open_store
from weather_tdr.arguments import make_parser
from weather_tdr.cli import main
from weather_tdr.inspect.path import inspect_path


def told(path) -> str:
    """All that is said of a path, in one line."""
    return " ".join(inspect_path(str(path)).text().split())


def test_fields(tmp_path):
    field = make_field(np.linspace(-10, 30, 9), np.linspace(-30, 10, 17), steps=5)
    field["msl"][2, :, :] = np.nan
    field["hpa"] = (field["msl"] / 100).assign_attrs(units="hPa")
    field["levels"] = field["msl"].expand_dims(level=[500, 850])
    field.to_netcdf(tmp_path / "one.nc")
    text = told(tmp_path / "one.nc")
    assert "5, 2001-01-01 to 2001-01-02, every 6 hours" in text
    assert "9 x 17 points, 30 N to 10 S, 30 W to 10 E, 5 x 2.5 degrees apart" in text
    assert "latitude from south to north, longitude from the west" in text
    assert "20.00% missing at 5 of 5 times" in text and "hPa, read as Pa" in text
    low = f"{float(field['msl'].min()):g}"
    assert f"Pa; {low} to" in text and "cannot be used: variable `levels`" in text


def test_zarr_fields_and_files_that_are_no_fields(tmp_path):
    field = make_field(np.linspace(30, 20, 11), np.linspace(0, 10, 11))
    field.to_zarr(tmp_path / "one.zarr")
    assert "every 6 hours" in told(tmp_path / "one.zarr")
    points = xr.Dataset(
        {"p": ("obs", [1.0, 2.0])},
        coords={k: ("obs", [1.0, 2.0]) for k in ("lat", "lon")}
        | {"time": ("obs", pd.date_range("2001", periods=2))},
    )
    points.to_netcdf(tmp_path / "points.nc")
    text = told(tmp_path / "points.nc")
    assert "dimensions obs 2" in text and "points or tracks, not fields" in text


def test_catalogue(small, small_files, tmp_path):
    table = small[1]
    text = told(small_files[1])
    assert f"{len(table)} of {table['storm_id'].nunique()} systems" in text
    known = table["deepening_bergeron"].notna().mean()
    assert f"known for {known:.0%}" in text and "at 00, 06, 12, 18 UTC" in text
    again = pd.DataFrame(
        {"date": ["2001-01-01", "2002-01-01"], "lat": 50.0, "lon": [359.0, 3.0], "sid": "1"}
    )
    again.to_csv(tmp_path / "again.csv", index=False)
    text = told(tmp_path / "again.csv")
    assert "1 W to 3 E" in text and "date as time" in text and "longer than 60 days" in text


def test_store(tiny_run):
    store = open_store(tiny_run / "patches.zarr")
    text = told(tiny_run / "patches.zarr")
    for split, counts in store.attrs["counts"].items():
        assert f"{split} " + ", ".join(f"{n} {g}" for g, n in counts.items()) in text
    test = store.isel(sample=np.flatnonzero(store["split"].to_numpy() == 4))
    names = test["incident_id"].to_numpy()[test["label"].to_numpy() == 1]
    assert f"incidents of {len(set(names))} systems" in text.split(" test ")[1]
    assert f"mean {float(store['mean'][0]):.4g}" in text
    assert f"{store.attrs['dropped']['overlaps_target_set']} samples overlap" in text


def test_run_and_what_is_missing(tiny_run, tmp_path, capsys):
    run = tmp_path / "tiny"
    shutil.copytree(tiny_run, run)
    text = told(run)
    ap = json.loads((run / "uniform" / "scores.json").read_text())["test"]["average_precision"]
    assert f"uniform: AP {ap:.3f}" in text and "closed_contour_rule: AP" in text
    # The command that is told makes what is missing.
    command = f"weather-tdr report {run}/tdr"
    assert command in text
    main([*command.split()[1:], "--quiet"])
    assert (run / "tdr" / "report.html").is_file() and command not in told(run)
    shutil.rmtree(run / "inverse_frequency")
    (run / "uniform" / "scores.json").unlink()
    text = told(run)
    assert "inverse_frequency: not trained" in text
    assert "uniform: trained, not evaluated" in text
    commands = [f"train {run}/config.yaml --resume", f"evaluate {run}/uniform"]
    for command in commands:
        assert f"weather-tdr {command}" in text
        assert make_parser().parse_args(command.split()).command == command.split()[0]
    shutil.rmtree(run / "patches.zarr")
    assert f"weather-tdr build {run}/config.yaml" in told(run)
    assert "tiny" in told(tmp_path) and "holds 1 runs" in told(tmp_path)
    capsys.readouterr()


def test_a_set_of_many_classes_is_not_sent_to_train(tmp_path, capsys):
    arguments = "imbalance --imbalance step --factor 5 --train-size 60 --name many --output"
    main([*arguments.split(), str(tmp_path), "--quiet"])
    text = told(tmp_path / "many")
    assert "train 60 0, 60 1" in text and "weather-tdr benchmark" in text
    assert "weather-tdr train" not in text
    capsys.readouterr()


def test_method_map_and_incidents(tiny_run):
    folder = tiny_run / "uniform"
    text, model = told(folder), json.loads((folder / "model.json").read_text())
    assert f"patches {model['threshold']:.3g}" in text and "60 steps" in text
    assert model["calibration"]["kind"] in text
    scores = json.loads((folder / "scores.json").read_text())["test"]
    matching = scores["incident_matching"]
    assert f"{scores['incidents']} of {scores['samples']} patches are incidents" in text
    assert f"{matching['hits']} hits, {matching['misses']} misses" in text
    with xr.open_dataarray(folder / "incident_map.nc") as opened:
        found = opened.load()
    text = told(folder / "incident_map.nc")
    assert f"highest {float(found.max()):.3g}" in text and f"times {found.sizes['time']}," in text
    table = pd.read_csv(folder / "incidents.csv")
    assert f"{len(table)} incidents" in told(folder / "incidents.csv")
    assert told(tiny_run / "closed_contour_rule").startswith("rule closed_contour_rule")


def test_paths_that_hold_nothing_known(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "my.yaml").write_text("name: my\n")
    (tmp_path / "noise.bin").write_bytes(np.random.default_rng(0).bytes(5000))
    (tmp_path / "table.csv").write_text("a,b\n1,2\n")
    assert "my.yaml" in fails(capsys, "inspect", tmp_path / "mine.yaml")
    assert "without any of them" in fails(capsys, "inspect", tmp_path / "empty")
    assert "weather-tdr check" in fails(capsys, "inspect", tmp_path / "my.yaml")
    assert len(fails(capsys, "inspect", tmp_path / "noise.bin")) < 1000
    assert "`time` is unknown" in fails(capsys, "inspect", tmp_path / "table.csv")
    (tmp_path / "empty.nc").write_bytes(b"")
    assert "empty.nc, which is empty" in fails(capsys, "inspect", tmp_path / "empty.nc")


def test_times_that_have_no_dates_are_said_in_a_line(tmp_path, capsys):
    field = make_field(np.linspace(0, 30, 4), np.linspace(0, 30, 4), steps=3)
    field = field.assign_coords(time=("time", [0, 1, 2], {"units": "months since 1850-01-01"}))
    field.to_netcdf(tmp_path / "climatology.nc")
    text = fails(capsys, "inspect", tmp_path / "climatology.nc")
    assert "climatology.nc" in text and "time" in text and len(text.splitlines()) == 1


def test_a_file_of_a_run_points_to_its_folder(tiny_run, capsys):
    for name in ("model.json", "model.safetensors", "history.csv", "figures/reliability.png"):
        (path,) = (tiny_run / "uniform").glob(name)
        assert f"Use `weather-tdr inspect {tiny_run / 'uniform'}`" in fails(capsys, "inspect", path)
    assert f"inspect {tiny_run}`" in fails(capsys, "inspect", tiny_run / "comparison.csv")


@pytest.mark.parametrize("command", ["init", "check", "inspect", "run", "map", "benchmark"])
def test_help_names_what_is_asked_for(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert "usage: weather-tdr " + command in text and "config on" not in text


def test_a_reader_that_has_read_enough_is_no_error(tmp_path):
    make_field(np.linspace(0, 30, 4), np.linspace(0, 30, 4), steps=3).to_netcdf(tmp_path / "one.nc")
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "weather_tdr", "inspect", str(tmp_path / "one.nc")]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, b"")
