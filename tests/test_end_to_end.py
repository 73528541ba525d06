"""The whole line on small synthetic fields, as a user runs it."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from conftest import SHARED
from sklearn.metrics import average_precision_score

from data_pipelines.errors import InputError
from data_pipelines.store import open_store
from weather_tdr.cli import main
from weather_tdr.data import sample_table
from weather_tdr.evaluate import predict
from weather_tdr.model_files import load_detector
from weather_tdr.run import map_fields

SCORES = {
    "base_rate", "samples", "incidents", "average_precision", "average_precision_interval",
    "roc_auc", "threshold", "pod", "far", "pofd", "csi", "hss", "sedi", "brier", "brier_skill",
    "brier_uncalibrated", "brier_skill_uncalibrated", "balanced_accuracy", "pod_interval",
    "far_interval", "csi_interval",
}  # fmt: skip
COUNTED = {
    "hits", "misses", "false_alarms", "pod", "far", "csi", "pod_interval", "far_interval",
    "csi_interval",
}  # fmt: skip


def fails(capsys, *arguments) -> str:
    """The one line that a command prints with exit code 2."""
    with pytest.raises(SystemExit) as stop:
        main([str(a) for a in arguments])
    assert stop.value.code == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: "), lines
    return lines[0]


def test_run_folder(tiny_run):
    for method in ("uniform", "inverse_frequency", "tdr"):
        folder = tiny_run / method
        for name in (
            "checkpoints/step_000000060.safetensors", "checkpoints/best.safetensors",
            "history.csv", "model.safetensors", "model.json",
            "scores.json", "incident_map.nc", "incidents.csv", "incidents.geojson",
            "incidents.nc", "incident_curve.csv", "reliability.csv", "figures/weights.png",
            "figures/reliability.png",
        ):  # fmt: skip
            assert (folder / name).is_file(), name
        scores = json.loads((folder / "scores.json").read_text())
        assert set(scores) == {"validation", "test"}
        assert set(scores["test"]) >= SCORES
        matching = scores["test"]["incident_matching"]
        assert set(matching) == COUNTED | {"threshold", "radius_km", "mean_distance_km", "tracks"}
        assert set(matching["tracks"]) == COUNTED
        found = pd.read_csv(folder / "incidents.csv")
        assert found["matched"].sum() == matching["hits"]
        assert (~found["matched"]).sum() == matching["false_alarms"]
    table = pd.read_csv(tiny_run / "comparison.csv")
    assert list(table["method"]) == [
        "uniform", "inverse_frequency", "tdr", "closed_contour_rule", "deepening_rule",
    ]  # fmt: skip
    assert (tiny_run / "config.yaml").is_file()
    for name in ("precision_recall", "performance"):
        assert (tiny_run / "figures" / f"{name}.png").is_file()


def test_scores_are_those_of_the_test_period_and_the_validation_threshold(tiny_run):
    store = open_store(tiny_run / "patches.zarr")
    detector = load_detector(tiny_run / "uniform")
    scores = json.loads((tiny_run / "uniform" / "scores.json").read_text())
    probability = detector.calibration.probability(predict(detector.model, store, "test"))
    label = sample_table(store, "test")["label"].to_numpy()
    assert scores["test"]["average_precision"] == pytest.approx(
        average_precision_score(label, probability)
    )
    assert scores["test"]["threshold"] == scores["validation"]["threshold"] == detector.threshold
    hits = int(((probability >= detector.threshold) & (label == 1)).sum())
    assert scores["test"]["pod"] == pytest.approx(hits / label.sum())


def test_map_agrees_with_the_patches_of_the_store(tiny_run, small_files, tmp_path):
    out = map_fields(tiny_run / "uniform", [str(small_files[0])], tmp_path / "m", progress=False)
    with xr.open_dataset(out / "incident_map.nc") as found:
        store = open_store(tiny_run / "patches.zarr")
        table = sample_table(store, "test")
        detector = load_detector(tiny_run / "uniform")
        wanted = detector.calibration.probability(predict(detector.model, store, "test"))
        got = found["incident_probability"].sel(
            time=xr.DataArray(table["time"].to_numpy()),
            latitude=xr.DataArray(table["latitude"].to_numpy()),
            longitude=xr.DataArray(table["longitude"].to_numpy()),
            method="nearest",
        )
        np.testing.assert_allclose(got.values, wanted, atol=5e-6)


def test_map_command_on_a_file_with_other_conventions(tiny_run, small, tmp_path, capsys):
    fields, _ = small
    other = fields.isel(time=slice(0, 12)).rename(
        time="valid_time", latitude="lat", longitude="lon"
    )
    other = other.assign_coords(lon=(other["lon"] + 180) % 360 - 180).sortby("lon").sortby("lat")
    fields.isel(time=slice(0, 12)).to_netcdf(tmp_path / "one.nc")
    other.to_netcdf(tmp_path / "two.nc")
    for name in ("one", "two"):
        main(
            ["map", str(tiny_run / "uniform"), str(tmp_path / f"{name}.nc"), "--quiet",
             "--output", str(tmp_path / name)]
        )  # fmt: skip
    assert "incident_map.nc" in capsys.readouterr().out
    with (
        xr.open_dataset(tmp_path / "one" / "incident_map.nc") as one,
        xr.open_dataset(tmp_path / "two" / "incident_map.nc") as two,
    ):
        xr.testing.assert_allclose(one, two, atol=1e-6)
        assert one.sizes["time"] == 8
    a, b = (pd.read_csv(tmp_path / n / "incidents.csv") for n in ("one", "two"))
    pd.testing.assert_frame_equal(a, b, rtol=1e-4)
    # Another threshold finds what is at or above it, and the map says which it was.
    low, high = (float(np.quantile(one["incident_probability"], q)) for q in (0.9, 0.999))
    number = {}
    for threshold in (low, high):
        main(
            ["map", str(tiny_run / "uniform"), str(tmp_path / "one.nc"), "--quiet",
             "--output", str(tmp_path / "own"), f"--threshold={threshold}"]
        )  # fmt: skip
        own = pd.read_csv(tmp_path / "own" / "incidents.csv")
        number[threshold] = len(own)
        assert (own["probability"] >= threshold).all()
        with xr.open_dataset(tmp_path / "own" / "incident_map.nc") as found:
            assert found.attrs["threshold"] == threshold
    assert number[low] > number[high] > 0
    assert "`threshold` must be a probability" in fails(
        capsys, "map", tiny_run / "uniform", tmp_path / "one.nc", "--threshold=15"
    )


def test_train_twice_gives_the_same_model(config_file, tmp_path):
    overrides = ["--train.methods=[tdr]", "--train.steps", "20", "--quiet"]
    main(["build", str(config_file), "--quiet"])
    main(["train", str(config_file), *overrides])
    model = tmp_path / "runs" / "tiny" / "tdr" / "model.safetensors"
    first = model.read_bytes()
    main(["train", str(config_file), *overrides])
    assert model.read_bytes() == first


def test_evaluate_again_gives_the_same_scores(tiny_run, tmp_path, capsys):
    shutil.copytree(tiny_run, tmp_path / "tiny")
    config = (tiny_run / "config.yaml").read_text()
    (tmp_path / "tiny" / "config.yaml").write_text(
        config.replace(f"output: {tiny_run.parent}", f"output: {tmp_path}")
    )
    main(["evaluate", str(tmp_path / "tiny" / "uniform"), "--quiet"])
    assert (tmp_path / "tiny" / "uniform" / "scores.json").read_text() == (
        tiny_run / "uniform" / "scores.json"
    ).read_text()
    methods = pd.read_csv(tmp_path / "tiny" / "comparison.csv")["method"]
    assert "inverse_frequency" in set(methods)  # the other rows stay


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["--fields.paths=[none.nc]"], "no such file: none.nc"),
        (["--incidents.catalogue", "none.csv"], "no such file: none.csv"),
        (["--fields.variables=[msl, vo85]"], "Did you mean `vo850`"),
        (["--train.lerning_rate", "0.1"], "Did you mean `train.learning_rate`"),
        (["--learning_rate", "0.1"], "Or is it `train.learning_rate`"),
        (["--patches.size", "80"], "`patches.size` must be at most"),
        (["--splits.target_per_group", "900"], "`splits.target_per_group`"),
        (["--train.steps", "many"], "train.steps"),
        (["--incidents.where", "{deepening: {min: 1}}"], "Did you mean `deepening_bergeron`"),
        (["--patches.stride", "3"], "`patches.stride` must be a power of two"),
        (["--patches.size", "9"], "`patches.size` - `patches.stride` must be even"),
        (["--train", "null"], "`train` must be overridden key by key"),
        (["--fields.variables", "[]"], "`fields.variables` must name each variable once"),
        (["--incidents.where", "{deepening_bergeron: 1}"], "incidents.where"),
        (["--splits.gap", "soon"], "`splits.gap` must be a duration"),
        (["--synthetic.days", "3", "--synthetic.spacing", "7"], "`synthetic.spacing` must divide"),
        (["--train.methods=[tdrr]"], "Did you mean `tdr"),
        (["--name", ".."], "`name` must be the name of a folder"),
    ],
)
def test_wrong_input_gets_one_line_and_exit_code_2(capsys, config_file, overrides, words):
    assert words in fails(capsys, "build", config_file, "--quiet", *overrides)


def test_wrong_configuration_files(capsys, tmp_path, config_file, small_files):
    assert "does not exist" in fails(capsys, "run", tmp_path / "none.yaml")
    typo = tmp_path / "typo.yaml"
    typo.write_text(config_file.read_text().replace("lags:", "lag:"))
    assert "`fields.lag` is unknown. Did you mean `fields.lags`" in fails(capsys, "run", typo)
    (tmp_path / "broken.yaml").write_text("fields: [")
    assert "is no YAML" in fails(capsys, "run", tmp_path / "broken.yaml")
    catalogue = pd.read_csv(small_files[1])
    catalogue["time"] = pd.to_datetime(catalogue["time"]) + pd.Timedelta(days=4000)
    catalogue.to_csv(tmp_path / "late.csv", index=False)
    line = fails(capsys, "build", config_file, "--incidents.catalogue", tmp_path / "late.csv")
    assert "must overlap the fields in time" in line
    with xr.open_dataset(small_files[0]) as fields:
        fields.isel(latitude=np.r_[0:10, 11:37]).to_netcdf(tmp_path / "irregular.nc")
    line = fails(capsys, "build", config_file, f"--fields.paths=[{tmp_path}/irregular.nc]")
    assert "`latitude` must be regular" in line


def test_networks_and_rules_are_judged_on_the_same_ground(tiny_run):
    """Every incident, true or found, lies in the central cell of a patch of test."""
    test = sample_table(open_store(tiny_run / "patches.zarr"), "test")
    truths = set()
    for folder in (tiny_run / "uniform", tiny_run / "closed_contour_rule"):
        scores = json.loads((folder / "scores.json").read_text())["test"]["incident_matching"]
        truths.add(scores["hits"] + scores["misses"])
        for row in pd.read_csv(folder / "incidents.csv", parse_dates=["time"]).itertuples():
            here = test[test["time"] == row.time]
            north = (here["latitude"] - row.latitude).abs() <= 5.0
            east = ((here["longitude"] - row.longitude + 180) % 360 - 180).abs() <= 5.0
            assert (north & east).any()
    assert len(truths) == 1


def test_wrong_runs(capsys, tiny_run, tmp_path, config_file):
    assert "There is: " in fails(capsys, "evaluate", tiny_run)
    assert "no patch store" in fails(capsys, "train", config_file)
    assert "no such file" in fails(capsys, "map", tiny_run / "uniform", tmp_path / "none.nc")


def test_help_and_version():
    for arguments in (["--help"], ["run", "--help"], ["--version"]):
        done = subprocess.run(
            [sys.executable, "-m", "weather_tdr", *arguments], capture_output=True, text=True
        )
        assert done.returncode == 0 and done.stdout


@pytest.mark.skipif(not SHARED.is_dir(), reason="the real fields are not at hand")
@pytest.mark.parametrize("name", ["explosive_cyclones_era5", "explosive_cyclones_ncep"])
def test_real_configurations_build(name, tmp_path):
    config = __file__.replace("tests/test_end_to_end.py", f"configs/{name}.yaml")
    weather = SHARED / "weather"
    files = {
        "explosive_cyclones_era5": (
            "era5_global_dec2025_jan2026.nc",
            "cyclones_global_dec2025_jan2026.csv",
        ),
        "explosive_cyclones_ncep": (
            "ncep_slp_natl_2001_2008.nc",
            "cyclones_natl_2001_2008.csv",
        ),
    }[name]
    main(
        ["build", config, "--quiet", "--output", str(tmp_path),
         f"--fields.paths=[{weather / files[0]}]", f"--incidents.catalogue={weather / files[1]}"]
    )  # fmt: skip
    store = open_store(tmp_path / name / "patches.zarr")
    rate = float(sample_table(store, "test")["label"].mean())
    assert 0.0003 < rate < 0.03


def test_a_network_with_the_facts_of_another_is_refused(tiny_run, tmp_path):
    """As where a new training is killed between its two files."""
    shutil.copytree(tiny_run / "uniform", tmp_path / "uniform")
    load_detector(tmp_path / "uniform")
    shutil.copy(tiny_run / "tdr" / "model.safetensors", tmp_path / "uniform")
    with pytest.raises(InputError, match="is of another network than"):
        load_detector(tmp_path / "uniform")
