"""One patch a time, the whole field, labelled from a series: from files to scores and a map."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr

from data_pipelines.fields import open_fields
from data_pipelines.schema import PatchGrid
from data_pipelines.store import open_store
from weather_tdr.candidates import labelled_incidents
from weather_tdr.cli import main
from weather_tdr.maps import incident_map
from weather_tdr.matching import match_incidents
from weather_tdr.model_files import load_detector
from weather_tdr.models import PatchNet

LATITUDE, LONGITUDE = np.linspace(50.0, 36.0, 15), np.linspace(-5.0, 11.0, 17)
CONFIG = """
name: rain
output: {folder}
fields: {{paths: [{folder}/fields.nc], variables: [msl]}}
incidents:
  rule: series
  series: {{path: {folder}/rain.csv, variable: tp}}
  where: {{tp: {{min: 10}}}}
  hard_negatives: {{tp: {{min: 1}}}}
  match_time: day
patches: {{whole_field: true, background_share: 1.0}}
splits: {{target_per_group: 4}}
train: {{methods: [uniform], steps: 150, batch: 32, width: 8, schedule: constant}}
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """It rains where a low lies over the islands, in the middle of the region."""
    folder = tmp_path_factory.mktemp("rain")
    rng = np.random.default_rng(0)
    times = pd.date_range("2001-01-01 12:00", periods=300)
    depth = np.where(rng.random(300) < 0.25, rng.uniform(150, 2000, 300), 0.0)
    low = np.exp(-(((LATITUDE[:, None] - 43) / 3) ** 2 + ((LONGITUDE - 3) / 3) ** 2))
    msl = 101500 + 60 * rng.standard_normal((300, 15, 17)) - depth[:, None, None] * low
    xr.Dataset(
        {"msl": (("time", "latitude", "longitude"), msl.astype("f4"), {"units": "Pa"})},
        {"time": times, "latitude": LATITUDE, "longitude": LONGITUDE},
    ).to_netcdf(folder / "fields.nc")
    rain = pd.DataFrame({"time": times.strftime("%Y-%m-%d"), "tp": depth / 100})
    rain.to_csv(folder / "rain.csv", index=False)
    (folder / "rain.yaml").write_text(CONFIG.format(folder=folder))
    main(["run", str(folder / "rain.yaml"), "--quiet"])
    return folder, msl, rain


def test_patches_are_the_fields(run):
    folder, msl, rain = run
    store = open_store(folder / "rain" / "patches.zarr")
    at = pd.DatetimeIndex(store["time"].values).day_of_year - 1
    np.testing.assert_array_equal(store["patches"].values[:, 0], msl.astype("f4")[at])
    assert (store["label"].values == (rain["tp"].to_numpy()[at] >= 10)).all()
    assert set(store["latitude"].values) == {43.0} and set(store["longitude"].values) == {3.0}


def test_it_learns_and_tells_when(run):
    folder, _, rain = run
    scores = json.loads((folder / "rain" / "uniform" / "scores.json").read_text())["test"]
    assert scores["average_precision"] > 0.8
    assert scores["incident_matching"]["hits"] == scores["hits"]
    assert scores["incident_matching"]["misses"] == scores["misses"]
    found = pd.read_csv(folder / "rain" / "uniform" / "incidents.csv", parse_dates=["time"])
    days = pd.DatetimeIndex(rain["time"][rain["tp"] >= 10])
    assert (found["time"].dt.floor("D").isin(days) == found["matched"]).all()
    assert (folder / "rain" / "uniform" / "figures" / "probability.png").is_file()


def test_new_fields_and_another_region(run, tmp_path, capsys):
    folder, _, _ = run
    detector = load_detector(folder / "rain" / "uniform")
    fields = open_fields([folder / "fields.nc"], ["msl"])
    got = incident_map(detector, fields)
    assert got.shape == (300, 1, 1)
    with torch.inference_mode():
        logits = detector.model(detector.normalise(fields.to_numpy()))
    wanted = detector.calibration.probability(logits[:, 1] - logits[:, 0])
    np.testing.assert_allclose(got.values[:, 0, 0], wanted, atol=1e-6)
    with xr.open_dataset(folder / "fields.nc") as data:
        data.isel(time=[7]).to_netcdf(tmp_path / "one.nc")
        main(["map", str(folder / "rain" / "uniform"), str(tmp_path / "one.nc"), "--quiet"])
        drawn = folder / "rain" / "uniform" / "maps" / "one" / "figures" / "probability.png"
        assert drawn.is_file()
        data.isel(latitude=slice(1, None)).to_netcdf(tmp_path / "other.nc")
    with pytest.raises(SystemExit) as stop:
        main(["map", str(folder / "rain" / "uniform"), str(tmp_path / "other.nc"), "--quiet"])
    assert stop.value.code == 2
    assert "15 x 17 points from 50 north, 355 east on, got 14 x 17" in capsys.readouterr().err


def test_a_catalogue_of_positions_is_judged_by_time(run, tmp_path):
    """The lows lie far from the middle of the field, which is where its one incident is said."""
    folder, _, rain = run
    heavy = rain[rain["tp"] >= 10]
    days = pd.DatetimeIndex(heavy["time"]) + pd.Timedelta("12h")
    names = [f"low {k}" for k in range(len(days))]
    table = pd.DataFrame({"time": days, "latitude": 49.0, "longitude": 10.0, "storm_id": names})
    second = table[::3].assign(latitude=37.0, longitude=-4.0)  # two at a time
    second["storm_id"] += " too"
    pd.concat([table, second]).sort_values("time").to_csv(tmp_path / "lows.csv", index=False)
    config = CONFIG.format(folder=tmp_path).replace(f"{tmp_path}/fields.nc", f"{folder}/fields.nc")
    rule, rest = config.index("incidents:"), config.index("patches:")
    where = f"incidents: {{rule: catalogue, catalogue: {tmp_path}/lows.csv}}\n"
    (tmp_path / "lows.yaml").write_text(config[:rule] + where + config[rest:])
    main(["run", str(tmp_path / "lows.yaml"), "--quiet"])
    for name in ("uniform", "closed_contour_rule"):
        scores = json.loads((tmp_path / "rain" / name / "scores.json").read_text())["test"]
        matched = scores["incident_matching"]
        of_times = scores["hits"] + scores["misses"]
        assert matched["hits"] + matched["misses"] == of_times > 3
        assert matched["hits"] > 0.7 * of_times


def test_a_period_without_fields_is_named_as_it_was_given(run, capsys):
    folder, _, _ = run
    with pytest.raises(SystemExit):
        main(["map", str(folder / "rain" / "uniform"), str(folder / "fields.nc"),
              "--period", "1990-01-01/1990-12-31", "--quiet"])  # fmt: skip
    assert "`period` must overlap the fields, got 1990" in capsys.readouterr().err


def test_networks_for_patches_that_are_no_squares():
    for size in ((15, 17), (21, 24), (16, 40)):
        model = PatchNet(2, size, 4, width=4).eval()
        assert model(torch.zeros(3, 2, *size)).shape == (3, 2)
        assert model.maps(torch.zeros(1, 2, size[0] + 4, size[1] + 8)).shape == (1, 2, 2, 3)


def test_cells_of_a_whole_field():
    grid = PatchGrid(LATITUDE, LONGITUDE + 10, 16, 4, whole=True)
    row, column = grid.cells(np.array([43.0, 60.0, 36.0, 43.0]), np.array([10.0, 10.0, 21.0, 0.0]))
    assert list(row) == list(column) == [0, -1, 0, -1]


def test_labelled_incidents_are_the_connected_patches():
    rows, columns = np.indices((4, 6)).reshape(2, -1)
    table = pd.DataFrame(
        {
            "time": np.repeat(pd.date_range("2001-01-01", periods=2), 24),
            "latitude": np.tile(50.0 - 5 * rows, 2),
            "longitude": np.tile(10.0 + 5 * columns, 2),
            "label": 0,
            "incident_id": "",
        }
    )
    table.loc[[24, 25, 47], "label"] = 1
    table.loc[[24, 25, 47], "incident_id"] = ["wide", "wide", "small"]
    got = labelled_incidents(table.sample(frac=1, random_state=0), (5.0, 5.0))
    assert got["area_km2"][0] / got["area_km2"][1] == pytest.approx(2 * 0.643 / 0.819, rel=1e-3)
    assert list(got["time"]) == [pd.Timestamp("2001-01-02")] * 2
    np.testing.assert_allclose(got[["latitude", "longitude"]].iloc[1], [35.0, 35.0])
    assert abs(got["longitude"][0] - 12.5) < 1e-9
    assert list(got["storm_id"]) == ["wide", "small"]


def test_regions_on_both_sides_of_what_has_no_patch_do_not_touch():
    """A column at 15 and a row at 40 that no patch ever has, as of land in sea temperatures."""
    rows, columns = np.indices((4, 7)).reshape(2, -1)
    table = pd.DataFrame(
        {
            "time": pd.Timestamp("2001-01-01"),
            "latitude": 50.0 - 5 * rows,
            "longitude": 5.0 * columns,
            "label": 0,
            "incident_id": "",
        }
    )
    for name, north, east in (("A", 50, 10), ("B", 50, 20), ("C", 35, 10)):
        here = (table["latitude"] == north) & (table["longitude"] == east)
        table.loc[here, ["label", "incident_id"]] = [1, name]
    table.loc[(table["latitude"] == 45) & (table["longitude"] == 10), ["label", "incident_id"]] = [
        1, "A",
    ]  # fmt: skip
    table = table[(table["longitude"] != 15) & (table["latitude"] != 40)]
    got = labelled_incidents(table, (5.0, 5.0)).set_index("storm_id")
    assert sorted(got.index) == ["A", "B", "C"]
    assert got["longitude"].to_dict() == pytest.approx({"A": 10.0, "B": 20.0, "C": 10.0})
    cell = 6371.0**2 * np.deg2rad(5) * np.diff(np.sin(np.deg2rad([32.5, 37.5])))[0]
    assert got.loc["C", "area_km2"] == pytest.approx(cell, rel=1e-3)


def test_a_single_row_of_patches_has_the_height_of_its_cells():
    samples = pd.DataFrame({
        "time": pd.Timestamp("2001-01-01"), "latitude": 50.0, "longitude": [10.0, 15.0, 20.0],
        "label": [0, 1, 1], "incident_id": ["", "a", "a"],
    })  # fmt: skip
    got = labelled_incidents(samples, (5.0, 5.0))
    assert got["extent"][0].tolist() == [[50.0, 15.0, 2.5, 2.5], [50.0, 20.0, 2.5, 2.5]]
    beside = got.assign(extent=[np.array([[51.5, 15.0, 1.25, 1.25]])])
    assert match_incidents(beside, got, 1.0).found.tolist() == [0]


def test_labelled_incidents_of_a_region_across_greenwich():
    """Neighbours on both sides of 0 are one incident."""
    table = pd.DataFrame(
        {
            "time": pd.Timestamp("2001-01-01"),
            "latitude": 50.0,
            "longitude": [340.0, 345.0, 350.0, 355.0, 0.0, 5.0],
            "label": [1, 0, 0, 1, 1, 0],
            "incident_id": "",
        }
    )
    got = labelled_incidents(table, (5.0, 5.0))
    assert sorted(got["longitude"]) == pytest.approx([340.0, 357.5])
