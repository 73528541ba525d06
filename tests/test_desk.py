"""What happens at a desk: two commands at once, empty files, odd columns, wrong units."""

import contextlib

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from conftest import make_field, write_config
from test_end_to_end import fails

from data_pipelines.catalogues import say_once
from data_pipelines.errors import InputError
from data_pipelines.fields import open_fields
from data_pipelines.incidents import read_catalogue
from data_pipelines.parts import _record, is_whole
from data_pipelines.quality import findings_of
from data_pipelines.writing import alone_in
from weather_tdr.cli import main


def test_two_commands_do_not_work_in_one_run(config_file, tmp_path, capsys):
    runs = tmp_path / "runs" / "tiny"
    runs.mkdir(parents=True)
    with alone_in(runs, ".patches.zarr.lock"):  # one that builds there for the first time
        assert "another process holds" in fails(capsys, "build", config_file)
    assert not [p for p in runs.iterdir() if "patches.zarr" in p.name and p.suffix != ".lock"]
    with alone_in(runs):  # one that builds or trains
        assert "another process holds" in fails(capsys, "build", config_file)


def test_training_holds_its_run(tiny_run, tmp_path, small_files, capsys):
    with alone_in(tiny_run):
        config = write_config(tmp_path, tiny_run.parent, small_files)
        assert "another process holds" in fails(capsys, "train", config)


@pytest.mark.parametrize("damaged", [b"", b"PK\x03\x04 and no more", b"noise"])
def test_a_damaged_record_of_a_part_is_none(tmp_path, damaged):
    record = _record(tmp_path, 0)
    record.parent.mkdir(parents=True, exist_ok=True)
    record.write_bytes(damaged)
    assert not is_whole(tmp_path, 0)


def test_files_without_a_time(tmp_path, capsys):
    field = make_field(np.linspace(60, 0, 13), np.arange(0, 90, 5.0), steps=8)
    field.isel(time=slice(0, 0)).to_netcdf(tmp_path / "none.nc", unlimited_dims="time")
    for first in (0, 4):
        field.isel(time=slice(first, first + 4)).to_netcdf(tmp_path / f"part{first}.nc")
    main(["inspect", str(tmp_path / "none.nc")])
    assert "cannot be used as fields: `fields.paths` must hold at" in capsys.readouterr().out
    with pytest.raises(InputError, match="must hold at least one time"):
        open_fields([tmp_path / "none.nc"], ["msl"], period="2001-01-01/2001-01-02")
    got = open_fields([tmp_path / n for n in ("part0.nc", "none.nc", "part4.nc")], ["msl"])
    np.testing.assert_array_equal(got.isel(variable=0), field["msl"])
    (found,) = findings_of(got)
    assert found.variable.endswith("none.nc") and found.first == "no time"


def test_wrong_units_are_said_before_all_is_read(small_files, tmp_path, capsys, monkeypatch):
    with xr.open_dataset(small_files[0]) as data:
        wrong = data.load()
    wrong["msl"] = (wrong["msl"] / 100).assign_attrs(wrong["msl"].attrs)  # hPa that say Pa
    wrong.to_netcdf(tmp_path / "wrong.nc")
    config = write_config(tmp_path, tmp_path, (tmp_path / "wrong.nc", small_files[1]))
    monkeypatch.setattr("data_pipelines.build.plan_store", None)
    text = fails(capsys, "build", config)
    assert "`msl` must lie within 80000 to 112000 Pa" in text and "Correct the units" in text


@pytest.mark.parametrize("name", ["TrackID", "Storm ID", "cyclone-id", "storm_id", "SID"])
def test_names_of_systems_by_other_spellings(tmp_path, name):
    times = pd.date_range("2001-01-01", periods=3)
    table = pd.DataFrame({"Time": times, "Lat": 50.0, "Long": 10.0, name: ["007", "007", "8"]})
    table.to_csv(tmp_path / "mine.csv", index=False)
    assert read_catalogue(tmp_path / "mine.csv")["storm_id"].tolist() == ["007", "007", "8"]


@pytest.mark.parametrize(
    ("names", "hours", "wanted"),
    [
        (("date", "time"), ["1800", "0600"], ["18:00", "06:00"]),
        (("Date", "Time"), ["18:00", "06:30"], ["18:00", "06:30"]),
        (("Date", "Time"), ["1815", "0030"], ["18:15", "00:30"]),
        (("time", "Date"), ["2001-02-03 03:00", "2001-02-04 09:00"], ["03:00", "09:00"]),
    ],
)
def test_the_hour_may_be_called_time_beside_a_date(tmp_path, names, hours, wanted):
    days = ["2001-02-03", "2001-02-04"]
    first, second = (hours, days) if names[0] == "time" else (days, hours)
    table = pd.DataFrame({names[0]: first, names[1]: second, "lat": 1.0, "lon": 2.0, "sid": "a"})
    table.to_csv(tmp_path / "mine.csv", index=False)
    wanted = [pd.Timestamp(f"{day} {hour}") for day, hour in zip(days, wanted, strict=True)]
    assert read_catalogue(tmp_path / "mine.csv")["time"].tolist() == wanted


def test_a_row_of_ibtracs_without_its_storm_is_named(tmp_path):
    path = tmp_path / "ibtracs.csv"
    path.write_text("SID,ISO_TIME,LAT,LON,WMO_WIND\na,2001-01-01,1,2,30\n,2001-01-02,1,2,40\n")
    with pytest.raises(InputError, match="`storm_id` must name a system, got `nan` in line 3"):
        read_catalogue(path)


@pytest.mark.parametrize("alone", ["2001", "1800", "2001.5"])
def test_a_year_alone_is_no_time(tmp_path, alone):
    path = tmp_path / "mine.csv"
    path.write_text(f"time,latitude,longitude\n2001-01-01,1,2\n{alone},1,2\n")
    with pytest.raises(InputError, match=rf"`time` must be a date.* got `{alone}` in line 3.*year"):
        read_catalogue(path)


@pytest.mark.parametrize(
    "first", ["time latitude longitude", "# my tracks\ntime,latitude,longitude"]
)
def test_tables_that_are_no_csv(tmp_path, first):
    (tmp_path / "mine.csv").write_text(first + "\n2001-01-01 50.0 10.0\n")
    with pytest.raises(InputError, match="comma, semicolon or tab, without lines of comments"):
        read_catalogue(tmp_path / "mine.csv")


def test_what_patterns_name_is_labelled(config_file, small_files, tmp_path, capsys):
    """A mask that marks nothing, by a pattern; a series by one, which is no file."""
    with xr.open_dataset(small_files[0]) as fields:
        nothing = (fields[["msl"]] * 0).rename(msl="outline")
        nothing.to_netcdf(tmp_path / "mask_0.nc")
    text = config_file.read_text()
    head, tail = text[: text.index("incidents:")], text[text.index("patches:") :]
    for incidents, said in (
        (
            f"{{rule: mask, mask: {{variable: outline, paths: ['{tmp_path}/mask_*.nc']}}}}",
            "must be reached by a patch",
        ),
        (
            f"{{rule: series, series: {{path: '{tmp_path}/m*.nc', variable: a}}}}",
            "must be one file",
        ),
        (
            f"{{rule: mask, mask: {{variable: outline, paths: ['{tmp_path}/none*.nc']}}}}",
            "no such file",
        ),
    ):
        config_file.write_text(f"{head}incidents: {incidents}\n{tail}")
        with pytest.raises(SystemExit, match="2"):
            main(["check", str(config_file)])
        out = capsys.readouterr()
        assert said in out.err and "It will run" not in out.out


def test_what_may_not_be_meant_is_said(config_file, small_files, tmp_path, capsys, caplog):
    """A catalogue of days for fields of hours; names in a column that is not looked for; the answer
    among the inputs."""
    table = pd.read_csv(small_files[1])
    table["time"] = pd.to_datetime(table["time"]).dt.strftime("%Y-%m-%d")
    table = table.rename(columns={"storm_id": "Name"}).drop(columns="deepening_bergeron")
    table.to_csv(tmp_path / "days.csv", index=False)
    say_once.cache_clear()
    text = config_file.read_text()
    head, tail = text[: text.index("incidents:")], text[text.index("patches:") :]
    config_file.write_text(f"{head}incidents: {{catalogue: '{tmp_path}/days.csv'}}\n{tail}")
    with contextlib.suppress(SystemExit):
        main(["check", str(config_file)])
    out = capsys.readouterr()
    told = " ".join((out.out + out.err).split())
    assert "no entry of the catalogue has an hour: each counts at 00 UTC" in told
    assert "If its column `Name` names the systems, call it `storm_id`" in caplog.text
    rule = "{rule: mask, mask: {variable: vo850, min_share: 0.5}}"
    config_file.write_text(f"{head}incidents: {rule}\n{tail}")
    with contextlib.suppress(SystemExit):
        main(["check", str(config_file)])
    told = " ".join(capsys.readouterr().out.split())
    assert "`fields.variables` has `vo850`, by which the incidents are defined" in told
    assert "incidents mask vo850, above 0, over 0.5 of a patch or more" in told
