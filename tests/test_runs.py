"""A run from Python: configurations by keys, results as tables, a network of one's own."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import weather_tdr as wt
from data_pipelines.dropped import WHY
from data_pipelines.errors import InputError
from data_pipelines.patches import DROPPED
from data_pipelines.store import open_store
from weather_tdr import plots
from weather_tdr.config import Config, configure, read_config
from weather_tdr.plots.canvas import NOTEBOOK_DPI
from weather_tdr.run import build
from weather_tdr.scores import Counts, table_scores


def test_nothing_heavy_is_imported_before_it_is_asked_for():
    code = (
        "import sys, weather_tdr; print(sorted({'torch', 'xarray', 'pandas'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert {"Run", "configure", "fit"} <= set(dir(wt))
    with pytest.raises(AttributeError, match="`Runn`"):
        _ = wt.Runn


def test_configure_changes_only_what_it_is_told(tmp_path):
    config = configure(
        "demo", output=tmp_path, train={"steps": 7}, splits={"fractions": (0.5, 0.2, 0.3)}
    )
    demo = read_config(wt.configs_folder() / "demo.yaml")
    assert (config.train.steps, config.output) == (7, str(tmp_path))
    assert config.splits.fractions == [0.5, 0.2, 0.3]
    assert config.splits.target_per_group == demo.splits.target_per_group == 12
    assert config.fields == demo.fields and config.incidents.where == demo.incidents.where
    # Limits are values, not settings: they are replaced as a whole.
    changed = configure("demo", incidents={"where": {"pressure_hpa": {"max": 960}}})
    assert changed.incidents.where == {"pressure_hpa": {"max": 960}}
    assert configure(name="mine") == Config(name="mine")
    changed.train.methods.append("none")  # nor does what is changed later reach another reading
    assert read_config(wt.configs_folder() / "demo.yaml") == demo
    (tmp_path / "own.yaml").write_text("name: own\n")
    assert configure(tmp_path / "own.yaml", seed=3) == Config(name="own", seed=3)


@pytest.mark.parametrize(
    ("source", "changes", "words"),
    [
        ("demoo", {}, "Did you mean `demo`"),
        ("none.yaml", {}, "does not exist"),
        ("demo", {"trian": {}}, "Did you mean `train`"),
        ("demo", {"train": {"step": 3}}, "Did you mean `train.steps`"),
        ("demo", {"train": {"steps": "many"}}, "steps"),
        ("demo", {"train": 3}, "`train` must hold keys and values"),
    ],
)
def test_wrong_configurations(source, changes, words):
    with pytest.raises(InputError, match=words):
        configure(source, **changes)


@pytest.fixture
def run(tiny_run):
    return wt.open_run(tiny_run)


def test_an_opened_run_gives_what_its_files_hold(run, tiny_run):
    store = open_store(tiny_run / "patches.zarr")
    split = store["split"].to_numpy()
    assert run.methods == ["uniform", "inverse_frequency", "tdr"]
    assert run.counts().to_numpy().sum() == (split > 0).sum() == len(run.samples())
    assert len(run.samples("target")) == 18 and (run.samples("test")["split"] == "test").all()
    assert set(run.samples()["group"]) == set(run.groups)
    examples = run.examples(2, "target")
    assert examples["group_name"].values.tolist() == [g for g in run.groups for _ in range(2)]
    scores, incidents = run.scores(), run.scores("incidents")
    for method in run.methods:
        matching = run.matching(method)["outcome"].value_counts()
        assert matching.get("hit", 0) == incidents.loc[method, "hits"]
        assert matching.get("miss", 0) == incidents.loc[method, "misses"]
        assert matching.get("false alarm", 0) == incidents.loc[method, "false_alarms"]
        reliability = run.reliability(method)
        assert list(reliability) == ["calibrated", "as trained"]  # the order of `reliability.png`
        table = reliability["as trained"]
        assert table["samples"].sum() == scores.loc[method, "samples"]
    assert "tdr" in repr(run) and "trained and evaluated" in repr(run)


def test_wrong_names_get_near_ones(run, tmp_path):
    for call in (lambda: run.history("uniforn"), lambda: run.incident_map("uniforn")):
        with pytest.raises(InputError, match="Did you mean `uniform`"):
            call()
    with pytest.raises(InputError, match="Did you mean `test`"):
        run.samples("tset")
    with pytest.raises(InputError, match="Did you mean `storms`"):
        run.scores("storm")
    with pytest.raises(InputError, match=r"without config\.yaml"):
        wt.open_run(tmp_path / "none")
    with pytest.raises(InputError, match="must not be that of a method"):
        run.score(nn.Flatten(), "uniform")
    for name in ("patches.zarr", "", ".", "../x", "a/b", "figures", "synthetic"):
        with pytest.raises(InputError, match="`name` of a method or network must be letters"):
            run.score(nn.Flatten(), name)


def test_figures_show_themselves(run):
    time = run.fields()["time"][8]
    drawn = [
        plots.fields_figure(run.fields().sel(time=time), run.catalogue()),
        plots.patches_figure(run.examples(2)),
        plots.split_figure(run.samples()),
        plots.dropped_figure(run.dropped()),
        plots.weight_history(run.histories()),
        plots.performance_figure(run.performance()),
    ]
    for figure in drawn:
        data = figure._repr_png_()
        assert data.startswith(b"\x89PNG")
        width = int.from_bytes(data[16:20], "big")
        assert width == int(figure.get_size_inches()[0] * NOTEBOOK_DPI)
        assert all(axes.get_title() or figure.get_suptitle() for axes in figure.axes[:1])
    for axes in drawn[4].axes:  # nothing lies beyond its axes
        low, high = axes.get_ylim()
        for line in axes.get_lines():
            known = pd.Series(line.get_ydata()).dropna()  # no hypergradient before steering
            assert known.between(low, high).all()
    # Losses, weights and shares, directions, whose squares add up to 1.
    for _, _, axes in np.reshape(drawn[4].axes, (3, -1)).T:
        lines = [line.get_ydata() for line in axes.get_lines()[:-1]]
        if lines:
            norm = (pd.DataFrame(lines) ** 2).sum(skipna=False).dropna()
            np.testing.assert_allclose(norm, 1.0, rtol=1e-12)
    panels = drawn[0].axes[:4]
    assert [axes.get_title() for axes in panels] == ["msl", "msl-24h", "vo850", "vo850-24h"]


def test_a_network_of_ones_own_is_judged_as_the_others(small_files, tmp_path):
    fields, catalogue = small_files
    run = wt.Run(
        output=tmp_path, name="own",
        fields={"paths": [fields], "variables": ["msl", "vo850"]},
        incidents={"catalogue": catalogue, "where": {"deepening_bergeron": {"min": 1.0}}},
        patches={"size": 8, "stride": 2, "background_share": 0.2},
        splits={"fractions": [0.5, 0.25, 0.25], "target_per_group": 6, "gap": "1d"},
    )  # fmt: skip
    assert "no patch store yet" in repr(run)
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(2 * 8 * 8, 2))
    run.build()
    wt.fit(network, run.split("train"), run.split("target"), "uniform", wt.Train(steps=30))
    row = run.score(network, "line", data="train").loc["line"]
    test, label = run.split("test"), run.samples("test")["label"].to_numpy()
    with torch.inference_mode():
        logits = network(test.patches)
    said = (logits[:, 1] - logits[:, 0]).numpy()
    # Average precision, by its definition, from the log-odds: calibration keeps their order.
    hits = label[np.argsort(-said, kind="stable")]
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    assert row["average_precision"] == pytest.approx(precision[hits == 1].mean(), abs=2e-3)
    assert row["data"] == "train" and row["samples"] == len(label)
    field = run.incident_map("line")["incident_probability"]
    assert field.notnull().sum() == len(label)
    assert (np.diff(field["longitude"]) > 0).all() and (np.diff(field["latitude"]) < 0).all()
    count = run.scores("incidents").loc["line"]
    assert count["hits"] + count["misses"] == len(run.truth("line")) > 0
    assert run.methods == ["line"]
    with pytest.raises(InputError, match=r"must have history.csv.*run.train\(\)"):
        run.history("line")


def test_every_reason_to_leave_out_is_explained(small_files, tmp_path):
    fields, catalogue = small_files
    base = {
        "output": tmp_path,
        "patches": {"size": 8, "stride": 2},
        "splits": {"target_per_group": 4},
    }
    by_catalogue = configure(
        name="a", fields={"paths": [fields]}, **base,
        incidents={"catalogue": catalogue, "where": {"deepening_bergeron": {"min": 1.0}}},
    )  # fmt: skip
    reasons = set(open_store(build(by_catalogue, progress=False)).attrs["dropped"])
    assert reasons >= set(DROPPED) and reasons <= set(WHY)


def test_scores_of_many_tables_are_those_of_each():
    rng = np.random.default_rng(0)
    tables = rng.integers(0, 30, (4, 40)) * (rng.random((4, 40)) > 0.2)  # some undefined
    many = table_scores(*tables)
    for k, column in enumerate(tables.T):
        for name, value in Counts(*map(int, column)).scores().items():
            np.testing.assert_allclose(many[name][k], value, rtol=1e-12)
    assert np.isnan(many["pod"]).any() and set(many) >= {"pod", "far", "csi", "hss", "sedi"}
