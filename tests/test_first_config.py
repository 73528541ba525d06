"""A first configuration from a user's own files: what it chooses, and that it runs."""

import re
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import xarray as xr
import yaml
from conftest import SHARED, make_field
from test_end_to_end import fails

from data_pipelines.errors import InputError
from data_pipelines.survey import survey_fields
from weather_tdr.cli import main
from weather_tdr.config import read_config
from weather_tdr.first import splits
from weather_tdr.first.commented_yaml import Key, commented_yaml
from weather_tdr.first.configuration import write_first_config
from weather_tdr.first.fields import choose_patches, choose_variables


@pytest.fixture(scope="module")
def odd_files(small, tmp_path_factory):
    """From south to north, from -180 east on, hPa, other names; a field over the sea alone."""
    folder = tmp_path_factory.mktemp("odd")
    fields, catalogue = small
    odd = fields[["msl", "vo850"]].rename(time="valid_time", latitude="lat", longitude="lon")
    odd = odd.assign_coords(lon=(odd["lon"] + 180) % 360 - 180).sortby("lon").sortby("lat")
    attributes = odd["msl"].attrs
    odd["msl"] = (odd["msl"] / 100).assign_attrs(attributes | {"units": "hPa"})
    odd["sst"] = (odd["vo850"] + 300).where((odd["lat"] + odd["lon"]) % 20 > 0)
    odd["sst"].attrs = {"units": "K"}
    odd["mask"] = (("lat", "lon"), np.ones((odd.sizes["lat"], odd.sizes["lon"])))
    odd["flat"] = xr.zeros_like(odd["vo850"])
    odd.to_netcdf(folder / "odd.nc")
    names = {"latitude": "Lat", "longitude": "Lon", "storm_id": "track_id"}
    table = catalogue.rename(columns=names)
    table["Lon"] = (table["Lon"] + 180) % 360 - 180
    table.to_csv(folder / "odd.csv", index=False)
    return folder / "odd.nc", folder / "odd.csv"


def first(tmp_path, fields, **given) -> dict:
    """The values of a first configuration."""
    path = write_first_config(tmp_path / "first.yaml", [str(fields)], **given)
    return yaml.safe_load(path.read_text())


def test_what_defines_the_incidents_may_be_a_field_that_cannot_be_used(odd_files):
    """Marine heat waves, from a file with sea surface temperature and pressure."""
    survey = survey_fields([str(odd_files[0])])
    key = choose_variables(survey, without="sst")
    assert "sst" not in key.value and "msl" in key.value
    assert "Without sst, which defines the incidents" in key.why


def test_it_runs_as_it_is(odd_files, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    fields, catalogue = odd_files
    main(["init", "mine.yaml", "--fields", str(fields), "--catalogue", str(catalogue)])
    assert "mine.yaml" in capsys.readouterr().out
    main(["check", "mine.yaml", "--train.steps=5", "--name", "two words"])
    command = "weather-tdr run mine.yaml --train.steps=5 --name 'two words'"
    assert re.search(rf"It will run( \(warnings: \d+\))?: {command}\n", capsys.readouterr().out)
    tiny = ["--train.methods=[tdr]", "--train.steps=5", "--train.width=6", "--maps.figures=0"]
    # Without pressure no rules on pressure are evaluated, which take most of the time.
    main(["run", "mine.yaml", "--quiet", "--fields.variables=[vo850]", *tiny])
    assert (tmp_path / "runs" / "mine" / "tdr" / "incident_map.nc").is_file()


def test_what_is_chosen(odd_files, small, tmp_path):
    fields, catalogue = odd_files
    values = first(tmp_path, fields, catalogue=str(catalogue))
    assert values["fields"]["variables"] == ["msl", "vo850"]
    assert values["fields"]["lags"] == ["0h", "-24h"]
    assert values["fields"]["hemisphere_sign"] == ["vo850"]
    assert values["incidents"]["where"] == {"deepening_bergeron": {"min": 1.0}}
    assert (values["patches"]["size"], values["patches"]["stride"]) == (8, 2)  # 40 degrees
    assert values["patches"]["incident_stride"] == 1
    # Oracle: storms of the catalogue that are explosive between the days of a split.
    table = small[1][small[1]["deepening_bergeron"] >= 1]
    for split in ("train", "validation", "test"):
        begin, end = values["splits"][split][0].split("/")
        inside = table["time"].between(begin, pd.Timestamp(end) + pd.Timedelta("18h"))
        assert table["storm_id"][inside].nunique() >= 3, split
    text = (tmp_path / "first.yaml").read_text()
    for said in (
        "from south to north",
        "from -180 east",
        "latitude from Lat",
        "sst (missing",
        "flat (it is 0 everywhere",
        "mask (variable `mask` must have dim `time`",
    ):
        assert said in " ".join(text.replace("#", " ").split()), said


def test_every_key_has_a_comment_and_is_valid(odd_files, tmp_path):
    fields, catalogue = odd_files
    path = write_first_config(tmp_path / "first.yaml", [str(fields)], catalogue=str(catalogue))
    assert read_config(path).name == "first"
    lines = path.read_text().splitlines()[3:]  # the head names a path of any length
    assert all(len(line) <= 100 for line in lines if "#" in line)
    for before, line in pairwise(lines):
        key = line.strip()
        if ":" in key and not key.startswith(("#", "-")) and not key.endswith(":"):
            assert before.strip().startswith("#"), line


def test_nothing_is_overwritten(odd_files, tmp_path, capsys):
    fields, catalogue = odd_files
    path = tmp_path / "mine.yaml"
    path.write_text("name: mine\n")
    command = ["init", path, "--fields", fields, "--catalogue", catalogue]
    assert "exists. Use --force." in fails(capsys, *command)
    assert path.read_text() == "name: mine\n"
    main([*map(str, command), "--force"])
    assert read_config(path).incidents.catalogue == str(catalogue)


def test_a_catalogue_of_points_alone(odd_files, tmp_path):
    fields, catalogue = odd_files
    points = pd.read_csv(catalogue)[["time", "Lat", "Lon", "track_id"]]
    points.to_csv(tmp_path / "points.csv", index=False)
    values = first(tmp_path, fields, catalogue=str(tmp_path / "points.csv"))
    assert values["incidents"]["where"] == {}


def test_only_the_period_of_the_catalogue_is_used(odd_files, tmp_path):
    fields, catalogue = odd_files
    table = pd.read_csv(catalogue, parse_dates=["time"])
    table[table["time"].between("2001-01-03", "2001-01-20")].to_csv(tmp_path / "part.csv")
    values = first(tmp_path, fields, catalogue=str(tmp_path / "part.csv"))
    assert values["fields"]["period"] == "2001-01-03/2001-01-20"


def test_a_catalogue_too_short_or_with_swapped_columns(odd_files, tmp_path):
    fields, catalogue = odd_files
    table = pd.read_csv(catalogue)
    two = table[table["track_id"].isin(table["track_id"].unique()[:2])]
    two.to_csv(tmp_path / "two.csv", index=False)
    with pytest.raises(InputError, match=r"must have at least 3 systems .*, got 2 in"):
        first(tmp_path, fields, catalogue=str(tmp_path / "two.csv"))
    region = make_field(np.linspace(30, 20, 11), np.linspace(-80, -60, 21), steps=400)
    region.to_netcdf(tmp_path / "region.nc")
    times = pd.to_datetime(region["time"].values[:200:10])
    swapped = pd.DataFrame({"time": times, "latitude": -70.0, "longitude": 25.0})
    swapped["storm_id"] = np.arange(20)
    swapped.to_csv(tmp_path / "swapped.csv", index=False)
    with pytest.raises(InputError, match="latitude and longitude seem to be swapped"):
        first(tmp_path, tmp_path / "region.nc", catalogue=str(tmp_path / "swapped.csv"))


def test_many_incidents_come_once(odd_files, tmp_path, monkeypatch):
    monkeypatch.setattr(splits, "INCIDENT_PATCHES", 10)
    fields, catalogue = odd_files
    assert "incident_stride" not in first(tmp_path, fields, catalogue=str(catalogue))["patches"]


def test_inputs_that_do_not_fit(odd_files, tmp_path):
    fields, catalogue = odd_files
    table = pd.read_csv(catalogue, parse_dates=["time"])
    wrong = {
        "late": table.assign(time=table["time"] + pd.Timedelta(days=3650)),
        "shifted": table.assign(time=table["time"] + pd.Timedelta(minutes=10)),
    }
    for name, changed in wrong.items():
        changed.to_csv(tmp_path / f"{name}.csv", index=False)

    def error(**given) -> str:
        with pytest.raises(InputError) as found:
            first(tmp_path, fields, **given)
        assert not (tmp_path / "first.yaml").exists()
        return str(found.value)

    late = error(catalogue=str(tmp_path / "late.csv"))
    assert "entries from 2010-12-30" in late and "fields from 2001-01-01" in late
    assert "Shift or round" in error(catalogue=str(tmp_path / "shifted.csv"))
    assert "neither" in error() and "msl, vo850" in error()
    assert "both" in error(catalogue=str(catalogue), exceedance="msl")
    assert "at least 40 months" in error(exceedance="msl")
    assert "no such file" in error(catalogue=str(tmp_path / "none.csv"))
    region = make_field(np.linspace(30, 20, 11), np.linspace(10, 20, 11), steps=40)
    region.to_netcdf(tmp_path / "region.nc")
    south = table.assign(Lat=-50.0)
    south.to_csv(tmp_path / "south.csv", index=False)
    with pytest.raises(InputError, match="region of the fields"):
        first(tmp_path, tmp_path / "region.nc", catalogue=str(tmp_path / "south.csv"))


def test_spells_of_a_variable(tmp_path):
    """Four years of daily noise with warm weeks over half of the region."""
    latitude, longitude = np.linspace(60, 38, 12), np.linspace(0, 22, 12)
    field = make_field(latitude, longitude, steps=4 * 365).rename(msl="t850")
    field = field.assign_coords(time=pd.date_range("2001-01-01", periods=4 * 365, freq="D"))
    warm = (np.arange(4 * 365) % 73 < 3)[:, None, None] & (longitude < 16)
    field["t850"] = (280 + (field["t850"] - 101000) / 5000 + 5 * warm).assign_attrs(units="K")
    field["z500"] = field["t850"] * 0 + make_field(latitude, longitude, 4 * 365, 1)["msl"].values
    field["z500"].attrs = {"units": "m2 s-2"}
    field.to_netcdf(tmp_path / "warm.nc")
    values = first(tmp_path, tmp_path / "warm.nc", exceedance="t850")
    assert values["fields"]["variables"] == ["z500"]  # not what defines the incidents
    assert values["incidents"]["exceedance"]["variable"] == "t850"
    config = read_config(tmp_path / "first.yaml", ["--output", str(tmp_path)])
    main(["check", str(tmp_path / "first.yaml"), "--output", str(tmp_path)])
    assert config.incidents.rule == "exceedance" and config.fields.lags == ["0h"]


@pytest.mark.parametrize("points", [(5, 5), (12, 40), (37, 72), (73, 144), (181, 360), (721, 1440)])
def test_patches_fit_the_grid_and_the_network(points, tmp_path):
    """Property: of any grid, what PatchNet and the grid of patches ask for."""
    rows, columns = points
    spacing = min(180 / (rows - 1), 5.0)
    field = make_field(
        90 - spacing * np.arange(rows), spacing * np.arange(columns), steps=1
    )  # fmt: skip
    field.to_netcdf(tmp_path / "one.nc")
    survey = survey_fields([tmp_path / "one.nc"])
    size, stride, keys = choose_patches(survey, np.array([60.0]), np.array([2 * spacing]))
    assert stride & (stride - 1) == 0 and size >= 4 * stride and (size - stride) % 2 == 0
    assert size <= min(points)
    assert [key.value for key in keys] == [size, stride]


def test_commented_yaml_gives_the_values_back():
    values = {
        "name": "yes",
        "fields.paths": ["a: b.nc", "ö.nc", "# c.nc", "d.nc"],
        "fields.period": "2001",
        "incidents.where": {"wind_kt": {"min": 64.0}},
        "patches.size": 8,
    }
    text = commented_yaml("head\n\nmore", [Key(k, v, "why " * 60) for k, v in values.items()])
    loaded = yaml.safe_load(text)
    for name, value in values.items():
        section, _, key = name.rpartition(".")
        assert (loaded[section] if section else loaded)[key] == value


@pytest.mark.skipif(not SHARED.is_dir(), reason="the real fields are not at hand")
def test_real_daily_means(tmp_path):
    weather = SHARED / "weather"
    values = first(
        tmp_path,
        weather / "ncep_slp_natl_2001_2008.nc",
        catalogue=str(weather / "cyclones_natl_2001_2008.csv"),
    )
    assert values["incidents"]["match_time"] == "day"
    assert values["fields"]["variables"] == ["slp"] and values["splits"]["target_per_group"] == 12


def test_what_cannot_be_written_or_divided_is_refused(tmp_path, small_files, capsys):
    given = ["--fields", small_files[0], "--catalogue", small_files[1]]
    (tmp_path / "folder").mkdir()
    assert "Name a file" in fails(capsys, "init", tmp_path / "folder", *given, "--force")
    assert not list(tmp_path.glob("*.partial"))
    with xr.open_dataset(small_files[0]) as fields:
        fields.isel(time=slice(0, 8)).to_netcdf(tmp_path / "short.nc")
    error = fails(
        capsys, "init", tmp_path / "a.yaml", "--fields", tmp_path / "short.nc", *given[2:]
    )
    assert "must be long enough for training, validation and test" in error
    assert not (tmp_path / "a.yaml").exists()
