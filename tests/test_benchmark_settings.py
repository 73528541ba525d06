"""What a benchmark refuses to have changed, and what makes a cell another cell."""

import json
import logging
from dataclasses import replace

import pandas as pd
import pytest

import weather_tdr
from data_pipelines.errors import InputError
from data_pipelines.images import Images, make_image_sets
from weather_tdr import configs_folder
from weather_tdr.benchmark_settings import Benchmark, identity, read_benchmark
from weather_tdr.cli import main
from weather_tdr.plots import imbalance_figure, methods_figure
from weather_tdr.tables import published
from weather_tdr.train_settings import Train

BINARY = """
name: tiny
images: {minority: [3], majority: [8], ratio: 0.8, factor: 7, train_size: 60, target_size: 6,
  validation_size: 10}
imbalances: [0.5, 0.8]
network: convnet
methods: [uniform, tdr]
learning_rates: [0.01, 0.02]
train: {steps: 20, epochs: 1.0, learning_rate: 0.05, seed: 3, methods: [tdr], width: 8}
"""


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text(BINARY + f"output: {tmp_path}\n")
    return path


@pytest.mark.parametrize(
    ("override", "acts"),
    [
        ("images.ratio=0.3", "imbalances: [0.5, 0.8]"),
        ("images.factor=5.0", "imbalances: [0.5, 0.8]"),
        ("images.ratio=0.8", "imbalances: [0.5, 0.8]"),  # as in the file: it does not act either
        ("train.steps=7", "train.epochs: 1.0"),
        ("train.learning_rate=0.3", "learning_rates: [0.01, 0.02]"),
        ("train.seed=4", "seeds: 5"),
        ("train.methods=['uniform']", "methods: ['uniform', 'tdr']"),
        ("train.width=9", "network: convnet"),
        ("train.dropout=0.4", "network: convnet"),
    ],
)
def test_overrides_that_do_nothing_are_refused(config, capsys, override, acts):
    key, value = override.split("=")
    with pytest.raises(SystemExit):
        main(["benchmark", str(config), "--quiet", f"--{key}", value])
    err = capsys.readouterr().err
    assert f"`{key}` must" in err and f"got {value} beside `{acts}`" in err
    assert f"Change `{acts.split(':')[0]}`" in err
    part, _, name = key.partition(".")
    with pytest.raises(InputError, match="beside"):
        weather_tdr.benchmark(config, **{part: {name: json.loads(value.replace("'", '"'))}})


def test_overrides_of_what_acts_are_taken(config):
    assert read_benchmark(config).train.seed == 3  # files may hold keys that do not act
    changed = read_benchmark(config, ["--imbalances=[]", "--images.ratio=0.3"])
    assert [i.degree for i in changed.settings()] == [0.3]
    changed = read_benchmark(config, ["--learning_rates=[]", "--train.learning_rate", "0.3"])
    assert changed.train.learning_rate == 0.3
    changed = read_benchmark(config, ["--train.epochs=0", "--train.steps=7"])
    assert changed.train.steps == 7
    whole = read_benchmark(config, changes={"train": Train(epochs=2.0), "imbalances": []})
    assert whole.train == Train(epochs=2.0)
    with pytest.raises(InputError, match=r"`train.steps` must"):
        read_benchmark(config, changes={"train": Train(epochs=2.0, steps=5)})
    for path in (configs_folder() / "benchmarks").glob("*.yaml"):
        read_benchmark(path)


def test_chosen_rates_are_those_of_their_methods(config):
    alone = ["--learning_rates=[]"]
    made = read_benchmark(config, [*alone, "--chosen_rates={tdr: 0.3}"])
    assert made.rate_of("tdr") == 0.3 and made.rate_of("uniform") == 0.05
    # Nothing but the rate itself makes a cell another one.
    plain = read_benchmark(config, alone)
    assert identity(made, "uniform", "") == identity(plain, "uniform", "")
    rates = {"chosen_rates": {"tdr": 0.3}, "learning_rates": [], "train": {"learning_rate": 0.1}}
    others = read_benchmark(config, changes=rates)  # the rate of those that are not named
    assert others.rate_of("tdr") == 0.3 and others.rate_of("uniform") == 0.1
    with pytest.raises(InputError, match=r"`train.learning_rate` must .* Change `chosen_rates`"):
        read_benchmark(config, changes={**rates, "methods": ["tdr"]})
    with pytest.raises(InputError, match=r"`chosen_rates` must .* Change `learning_rates`"):
        read_benchmark(config, ["--chosen_rates={tdr: 0.3}"])
    with pytest.raises(InputError, match="Did you mean `focal`"):
        read_benchmark(config, [*alone, "--chosen_rates={focl: 0.3}"])
    with pytest.raises(InputError, match="`chosen_rates` must be positive"):
        read_benchmark(config, [*alone, "--chosen_rates={tdr: 0}"])
    few = [*alone, "--imbalances=[]", "--seeds=1", "--quiet"]
    main(["benchmark", str(config), *few])
    folder = read_benchmark(config).folder
    cells = set((folder / "cells").iterdir())
    main(["benchmark", str(config), *few, "--chosen_rates={tdr: 0.3}"])
    rows = pd.read_csv(folder / "results.csv").set_index("method")["learning_rate"]
    assert rows.to_dict() == {"uniform": 0.05, "tdr": 0.3}
    assert len(set((folder / "cells").iterdir()) - cells) == 1  # of `uniform` none


def test_of_each_kind_of_imbalance_the_other_keys_are_refused(config):
    few = ["--imbalances=[]", "--images.factor=9"]
    with pytest.raises(InputError, match=r"`images.factor` .* beside `images.ratio: 0.8`"):
        read_benchmark(config, few)
    long = ["--imbalances=[]", "--images.imbalance=long_tailed"]
    assert read_benchmark(config, [*long, "--images.factor=9"]).images.degree == 9
    for key in ("ratio=0.3", "minority=[1]", "majority=[2]"):
        with pytest.raises(InputError, match=r"beside `images.factor: 7.0`"):
            read_benchmark(config, [*long, f"--images.{key}"])
    fields = ["--run=demo", "--imbalances=[]"]
    for key in ("network=lenet5", "images.test_size=5"):
        with pytest.raises(InputError, match="beside `run: demo`"):
            read_benchmark(config, [*fields, f"--{key}"])
    assert read_benchmark(config, [*fields, "--train.width=9"]).train.width == 9


def test_errors_name_imbalances_where_they_set_the_degree():
    with pytest.raises(InputError, match=r"`imbalances` must be degrees .*1.5.*Change"):
        Benchmark(imbalances=[0.5, 1.5])
    with pytest.raises(InputError, match=r"`images.ratio` \(in a benchmark that has it `imbal"):
        make_image_sets(Images(train_size=5000, ratio=0.5), 0)


def test_only_what_acts_makes_another_cell(monkeypatch):
    def cell(benchmark):
        return identity(benchmark, "tdr", "data")

    plain = Benchmark(methods=["tdr"])
    by_epochs = replace(plain, train=Train(epochs=2.0))
    tail = replace(plain, images=Images(imbalance="long_tailed"))
    same = [
        (plain, replace(plain, images=Images(factor=7.0))),
        (plain, replace(plain, train=Train(width=9, dropout=0.1, seed=4, methods=["tdr"]))),
        (by_epochs, replace(plain, train=Train(epochs=2.0, steps=5))),
        (tail, replace(plain, images=Images(imbalance="long_tailed", ratio=0.3, minority=[1]))),
        (plain, replace(plain, imbalances=[0.1, 0.9], seeds=9)),
        (plain, replace(plain, train=Train(device="cpu", cuda_graph=True))),
    ]
    for one, other in same:
        assert cell(one) == cell(other)
    others = [
        plain,
        by_epochs,
        tail,
        replace(plain, images=Images(ratio=0.3)),
        replace(plain, images=Images(minority=[1])),
        replace(plain, images=Images(imbalance="long_tailed", factor=7.0)),
        replace(plain, train=Train(steps=5)),
        replace(plain, train=Train(learning_rate=0.3)),
        replace(plain, network="lenet5"),
        replace(plain, run="demo"),
        replace(plain, run="demo", train=Train(width=9)),
    ]
    assert len({cell(other) for other in others}) == len(others)
    before = cell(plain)
    monkeypatch.setattr("weather_tdr.benchmark_settings.METHODS", 99)
    assert cell(plain) != before


def test_rows_of_different_versions_are_told(config, caplog):
    command = [
        "benchmark", str(config), "--quiet", "--learning_rates=[]", "--imbalances=[]", "--seeds=1",
        "--train.epochs=0", "--train.steps=5", "--workers=1",
    ]  # fmt: skip
    with caplog.at_level(logging.WARNING):
        main(command)
    assert "different versions" not in caplog.text
    cell = next((config.parent / "tiny" / "cells").glob("tdr-*.json"))
    cell.write_text(json.dumps(json.loads(cell.read_text()) | {"versions": "python 2.7"}))
    with caplog.at_level(logging.WARNING):
        main(command)
    told = [r.getMessage() for r in caplog.records if "different versions" in r.getMessage()]
    versions = set(pd.read_csv(config.parent / "tiny" / "results.csv")["versions"])
    assert len(told) == 1 and len(versions) == 2 and all(v in told[0] for v in versions)


def test_no_two_methods_are_drawn_alike():
    results = pd.DataFrame({"method": [f"m{k}" for k in range(16)], "imbalance": 10.0,
                            "score": 0.5, "dataset": "x"})  # fmt: skip
    (axes,) = imbalance_figure(results, "score").axes
    lines = [c.lines[0] for c in axes.containers]
    looks = {(line.get_color(), line.get_marker(), line.get_linestyle()) for line in lines}
    assert len(lines) == len(looks) == 16


def test_a_mean_of_the_seeds_that_did_not_diverge_is_not_drawn():
    rows = [("a", 10.0, 0.6), ("a", 10.0, 0.8), ("a", 20.0, 0.5), ("a", 20.0, float("nan")),
            ("b", 10.0, 0.4), ("b", 10.0, 0.5), ("b", 20.0, 0.3), ("b", 20.0, 0.5)]  # fmt: skip
    results = pd.DataFrame(rows, columns=["method", "imbalance", "score"]).assign(dataset="x")
    for told, diverged in (
        ("1 of 4 undefined", False),
        ("1 of 4 diverged", results["score"].isna()),
    ):
        (axes,) = imbalance_figure(results.assign(diverged=diverged), "score").axes
        drawn = {c.get_label(): c.lines[0].get_ydata() for c in axes.containers}
        assert set(drawn) == {f"a ({told})", "b"}
        assert drawn[f"a ({told})"][0] == pytest.approx(0.7)
        assert pd.isna(drawn[f"a ({told})"][1]) and drawn["b"][1] == pytest.approx(0.4)


def test_published_numbers_are_drawn_at_the_settings_of_the_results_only():
    known = published()
    rows = [{"method": "m", "imbalance": v, "accuracy": 0.9} for v in (0.9, 0.995)]
    results = pd.DataFrame(rows).assign(dataset="mnist 4 against 9", network="lenet5")
    (axes,) = imbalance_figure(results, "accuracy", known).axes
    (drawn,) = [line for line in axes.get_lines() if line.get_label().startswith("published")]
    assert drawn.get_xdata().tolist() == [0, 1]
    assert drawn.get_ydata().tolist() == [0.979, 0.955]  # Ren et al. 2018, as collected
    (axes,) = imbalance_figure(results.assign(dataset="mnist 2 against 3"), "accuracy", known).axes
    assert not [line for line in axes.get_lines() if line.get_label().startswith("published")]


def test_every_score_has_its_panel_and_what_is_missing_is_told():
    rows = [
        {"method": method, "imbalance": imbalance, "seed": seed, "first": 0.5 + 0.1 * seed,
         "second": float("nan") if method == "b" and seed else 0.25, "seconds": 3.0 + seed}
        for method in ("a", "b") for imbalance in (0.9, 0.99) for seed in (0, 1)
    ]  # fmt: skip
    figure = methods_figure(pd.DataFrame(rows), ["first", "second", "seconds"], "title")
    alone = methods_figure(pd.DataFrame(rows), "first", "title")
    assert [axes.get_xlabel() for axes in alone.axes] == ["first (1)"]
    labels = [axes.get_xlabel() for axes in figure.axes]
    assert labels == ["first (1)", "second (1)", "seconds (s)"]
    for axes, mean, told in zip(figure.axes, (0.55, 0.25, 3.5), (0, 2, 0), strict=True):
        assert [t.get_text() for t in axes.texts] == ["1 of 2 undefined"] * told
        means = [c.lines[0].get_xdata()[0] for c in axes.containers]
        assert means == pytest.approx([mean] * (4 - told))
        heights = [c.lines[0].get_ydata()[0] for c in axes.containers]
        assert len(set(heights)) == len(heights) and all(-0.5 < h < 1.5 for h in heights)
