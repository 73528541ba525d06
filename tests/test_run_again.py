"""A run made again with something changed: nothing of before passes for what is now."""

import shutil

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from matplotlib.figure import Figure
from torch import nn

import weather_tdr as wt
from data_pipelines.catalogues import say_once
from data_pipelines.errors import InputError
from data_pipelines.labelling import labelled_text
from data_pipelines.schema import PatchGrid
from data_pipelines.writing import alone_in
from weather_tdr import run as stages
from weather_tdr.assess import evaluate_all
from weather_tdr.comparison import forget_evaluation
from weather_tdr.config import config_of_run, save_config
from weather_tdr.own_network import patch_map, score_network
from weather_tdr.plots.canvas import save_figure


@pytest.fixture
def again(tiny_run, tmp_path):
    """A copy of a whole run that may be changed."""
    return shutil.copytree(tiny_run, tmp_path / "tiny")


def test_changed_maps_are_evaluated_anew(again):
    run = wt.open_run(again)
    before = run.scores("incidents")
    wider = wt.Run(run.config)
    wider.config.maps.radius_km = 1500.0
    wider.evaluate()
    after = wider.scores("incidents")
    assert (after["hits"] >= before["hits"]).all() and (after["hits"] > before["hits"]).any()
    matched = wider.incidents("uniform").query("matched")["distance_km"]
    assert 300.0 < matched.max() <= 1500.0
    made = (again / "uniform" / "scores.json").stat().st_mtime_ns
    wider.evaluate()  # nothing has changed
    assert (again / "uniform" / "scores.json").stat().st_mtime_ns == made


def test_a_retrained_method_has_no_scores_of_the_network_before(again):
    config = config_of_run(again)
    config.train.methods, config.train.steps = ["uniform"], 40
    stages.train_all(config, progress=False)
    left = {str(p.relative_to(again / "uniform")) for p in (again / "uniform").rglob("*.*")}
    of_training = {"model.json", "model.safetensors", "history.csv", "figures/weights.png"}
    assert of_training <= left
    assert all(p in of_training or p.split("/")[0] in ("checkpoints", "tensorboard") for p in left)
    run = wt.open_run(again)
    assert "uniform" not in run.scores().index and "tdr" in run.scores().index
    with pytest.raises(InputError, match=r"must have incidents.csv.*run.evaluate\(\)"):
        run.incidents("uniform")
    for method in run.scores().index:
        forget_evaluation(again / method)
    with pytest.raises(InputError, match=r"must have been evaluated.*run.evaluate\(\)"):
        run.scores()
    run.config.train.methods = ["uniform"]
    assert "uniform" in run.evaluate().index  # which asks for no scores before it


def test_an_evaluation_that_cannot_begin_leaves_the_one_before(again, tmp_path):
    config = config_of_run(again)
    before = {p: p.read_bytes() for p in (again / "uniform").rglob("*.*") if p.is_file()}
    config.fields.paths = [str(tmp_path / "moved.nc")]
    with pytest.raises(InputError, match=r"moved\.nc"):
        evaluate_all(config, methods=["uniform"], progress=False)
    with pytest.raises(InputError, match="two logits"):
        score_network(config_of_run(again), nn.Flatten(), "own", "none")
    assert {p: p.read_bytes() for p in (again / "uniform").rglob("*.*") if p.is_file()} == before
    assert not (again / "own").exists()


def test_own_networks_scored_with_other_maps_are_left_out_and_named(again, caplog):
    run = wt.open_run(again)
    points = int(run.patches["patches"][0].size)
    assert "own" in run.score(nn.Sequential(nn.Flatten(), nn.Linear(points, 2)), "own").index
    evaluate_all(run.config, methods=[], progress=False)
    assert "own" in run.scores().index
    run.config.maps.radius_km = 500.0
    run.evaluate()
    assert "own were scored with other `maps`" in caplog.text
    assert "own" not in run.scores().index and "tdr" in run.scores().index


def test_a_stopped_training_goes_on_in_the_next_call(again, monkeypatch):
    shutil.rmtree(again / "tdr")
    run = wt.open_run(again)
    real = stages.fit

    def stopped(*given, validate, **kw):
        def check(model):
            if (again / "tdr" / "checkpoints" / "step_000000020.safetensors").exists():
                raise KeyboardInterrupt
            return validate(model)

        return real(*given, validate=check, **kw)

    monkeypatch.setattr(stages, "fit", stopped)
    with pytest.raises(KeyboardInterrupt):
        run.train()
    begun = []
    monkeypatch.setattr(
        stages, "fit", lambda *given, **kw: begun.append(kw["resume"]) or real(*given, **kw)
    )
    run.train()
    assert begun == [True] and run.history("tdr")["step"].tolist() == [20, 40, 60]
    # A checkpoint of other settings is no reason to stop, nor to begin another method anew.
    own = again / "own.yaml"
    own.write_text("weighting: uniform\n")
    run.config.train.methods = [str(own), "tdr"]
    run.train()
    own.write_text("weighting: inverse_frequency\n")
    (again / "tdr" / "model.json").unlink()
    begun.clear()
    run.train()
    assert begun == [True, False, True] and run.history("own")["weight_incident"].iloc[-1] > 1


def test_truth_and_labels_come_from_the_same_incidents(again, tmp_path, caplog):
    config = config_of_run(again)
    config.incidents.where = {"deepening_bergeron": {"min": 0.5}}
    with pytest.raises(InputError, match=r"`incidents.where` must be that by which .*1.0.*0.5"):
        evaluate_all(config, methods=[], progress=False)
    with pytest.raises(InputError, match=r"`incidents.where` must be that by which"):
        score_network(config, nn.Flatten(), "own", "none")
    config = config_of_run(again)
    table = pd.read_csv(config.incidents.catalogue)
    config.incidents.catalogue = str(tmp_path / "catalogue.csv")
    table.to_csv(config.incidents.catalogue, index=False, lineterminator="\r\n")
    say_once.cache_clear()
    evaluate_all(config, methods=[], progress=False)
    told = f"{tmp_path / 'catalogue.csv'} has changed since the patches were labelled"
    assert told in caplog.text


def test_two_evaluations_at_once_are_one_too_many(again):
    config = config_of_run(again)
    with alone_in(again), pytest.raises(InputError, match="which another process holds"):
        evaluate_all(config, methods=["uniform"], progress=False)


def test_pictures_of_an_evaluation_before_do_not_stay(again):
    config = config_of_run(again)
    figures = again / "uniform" / "figures"
    (figures / "probability.png").write_bytes(b"of a whole field")
    (again / "uniform" / "incidents.gif").write_bytes(b"of another run")
    config.maps.figures = 0
    save_config(config)
    evaluate_all(config, methods=["uniform"], progress=False)
    assert sorted(p.name for p in figures.glob("*.png")) == ["reliability.png", "weights.png"]
    assert not (again / "uniform" / "incidents.gif").exists()
    assert (again / "uniform" / "incident_curve.csv").is_file()


def test_a_figure_that_cannot_be_drawn_leaves_the_one_before(tmp_path, monkeypatch):
    path = tmp_path / "figures" / "a.png"
    save_figure(Figure(), path)
    whole = path.read_bytes()
    assert whole.startswith(b"\x89PNG")

    def broken(self, place, **kw):
        place.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Figure, "savefig", broken)
    with pytest.raises(OSError, match="No space"):
        save_figure(Figure(), path)
    assert path.read_bytes() == whole and list(path.parent.iterdir()) == [path]


def test_the_map_of_an_own_network_has_no_holes_in_its_axes(again):
    """Where a column of patches is missing everywhere, as over land, the map is missing."""
    run = wt.open_run(again)
    store, table = run.patches, run.samples("test").assign(score=0.5)
    east = np.unique(table["longitude"])
    gone = table[~table["longitude"].isin(east[[3, 4]])]
    whole, found = patch_map(table, store), patch_map(gone, store)
    np.testing.assert_allclose(found["longitude"], whole["longitude"])
    np.testing.assert_allclose(found["latitude"], whole["latitude"])
    missing = found.isnull().all(["time", "latitude"])
    assert set(np.round(found["longitude"][missing].values % 360, 6)) == set(east[[3, 4]])
    both = found.notnull()
    assert both.sum() == len(gone) and (found.where(both) == whole.where(both)).sum() == len(gone)


@pytest.mark.parametrize(
    ("west", "number", "spacing"), [(0.0, 90, 4.0), (349.9, 52, 0.1), (20.3, 80, 0.11)]
)
def test_the_map_of_an_own_network_has_every_column(west, number, spacing):
    """Also where the last column of a globe lies half a stride before the first."""
    east = west + spacing * np.arange(number)
    grid = PatchGrid(60.0 - spacing * np.arange(40), east, 16, 4)
    row, column = np.divmod(np.arange(grid.rows * grid.columns), grid.columns)
    table = pd.DataFrame(
        {
            "time": pd.Timestamp("2001-01-01"),
            "latitude": grid.centre_latitude()[row],
            "longitude": grid.centre_longitude()[column],
            "score": np.arange(len(row)) / len(row),
        }
    )
    attributes = {
        "size": 16, "stride": 4, "north": 60.0, "west": west, "dlat": grid.dlat, "dlon": grid.dlon,
        "rows": grid.rows, "columns": grid.columns,
    }  # fmt: skip
    store = xr.Dataset(attrs={"grid": attributes, "settings": {}})
    whole = patch_map(table, store)
    assert whole.shape == (1, grid.rows, grid.columns) and bool(whole.notnull().all())
    assert (np.diff(whole["longitude"]) > 0).all() and (np.diff(whole["latitude"]) < 0).all()
    some = table.sample(50, random_state=0)
    for part in (some, table[table["latitude"] < table["latitude"].max()]):
        found = patch_map(part, store)
        assert found.notnull().sum() == len(part) and found.shape == whole.shape
        for one in part.itertuples():
            around = (one.longitude - west) % 360 + west
            at = found.sel(latitude=one.latitude, longitude=around, method="nearest")
            assert at.item() == pytest.approx(one.score)
            assert at["longitude"].item() % 360 == pytest.approx(one.longitude, abs=1e-5)


def test_entries_at_the_times_of_the_fields(again):
    run = wt.open_run(again)
    every, here = run.catalogue(), run.catalogue(at_fields=True)
    times = set(run.fields()["time"].values)
    assert set(here["time"].values) <= times and len(here) == every["time"].isin(times).sum() > 0


def test_what_is_mapped_is_told(again):
    text = wt.open_run(again).incident_map("tdr")["incident_probability"].attrs["long_name"]
    assert text == "probability of an incident in the central cell of the patch"
    cell = "an incident in the central cell of the patch"
    areas = "incidents over at least 0.3 of the area of the patch"
    for incidents, told in (
        ({}, cell),
        ({"rule": "catalogue", "distance_km": 0.0}, cell),
        ({"rule": "series"}, "an incident in the region of the series"),
        ({"distance_km": 250.0}, "an incident within 250 km of the centre of the patch"),
        ({"rule": "mask", "mask": {"min_share": 0.3}}, areas),
        ({"rule": "exceedance", "exceedance": {"min_share": 0.3}, "distance_km": 9.0}, areas),
    ):
        assert labelled_text({"incidents": incidents}) == told
