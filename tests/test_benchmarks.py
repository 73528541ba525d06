import json

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    f1_score,
    precision_score,
    recall_score,
)

from weather_tdr.benchmarks import test_scores as scores_of_a_test
from weather_tdr.cli import main
from weather_tdr.cost import CASES, measure_cost
from weather_tdr.image_models import ConvNet, LeNet5
from weather_tdr.resnets import ResNet

CONFIG = """
name: tiny
output: {output}
images: {{minority: [3], majority: [8], ratio: 0.8, train_size: 60, target_size: 6}}
network: convnet
methods: [uniform, tdr]
seeds: 2
workers: 1
train: {{steps: 20, batch: 20, learning_rate: 0.05}}
"""


def test_results_resume_and_other_settings(tmp_path, capsys):
    config = tmp_path / "tiny.yaml"
    config.write_text(CONFIG.format(output=tmp_path))
    main(["benchmark", str(config), "--quiet"])
    folder = tmp_path / "tiny"
    results = pd.read_csv(folder / "results.csv")
    assert len(results) == 4 and set(results["data"]) == {
        "train",
        "train, target steers, then joins",
    }
    assert "| `tdr` |" in capsys.readouterr().out
    assert (folder / "methods.png").stat().st_size > 5000
    # A finished cell is never run again: a changed one stays; a missing one comes back the same.
    cell, other = (next((folder / "cells").glob(f"{n}-*.json")) for n in ("tdr-1", "uniform-0"))
    changed = json.loads(other.read_text()) | {"accuracy": 0.123}
    other.write_text(json.dumps(changed))
    cell.unlink()
    main(["benchmark", str(config), "--quiet"])
    again = pd.read_csv(folder / "results.csv")
    assert again["accuracy"].iloc[0] == 0.123
    drop = ["seconds", "accuracy", "date", "commit"]
    pd.testing.assert_frame_equal(again.drop(columns=drop), results.drop(columns=drop))
    # Other settings have cells of their own; so has another method under the same name.
    main(["benchmark", str(config), "--quiet", "--train.steps", "10", "--methods=[uniform]"])
    assert set(pd.read_csv(folder / "results.csv")["steps"]) == {10}
    assert len(list((folder / "cells").iterdir())) == 6
    own = tmp_path / "uniform.yaml"
    own.write_text("loss: focal")
    main(["benchmark", str(config), "--quiet", f"--methods=[{own}]", "--seeds=1"])
    assert pd.read_csv(folder / "results.csv")["data"].tolist() == ["train + target"]
    # A cell that fails leaves the others, and says why.
    own.write_text("weighting: inverse_frequency")
    with pytest.raises(SystemExit) as stop:
        main(["benchmark", str(config), "--quiet", f"--methods=[{own},merge_target]",
              "--seeds=1", "--train.learning_rate=1e30"])  # fmt: skip
    assert stop.value.code == 2
    assert "2 of 2 cells failed" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["benchmark", str(config), "--network", "lenet"])
    assert "Did you mean `lenet5`" in capsys.readouterr().err


def test_scores_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    label = (rng.random(300) < 0.3).astype(int)
    score = rng.random(300) + 0.3 * label
    said = (score >= 0.6).astype(int)
    got = scores_of_a_test(score, label, 0.6)
    assert got["accuracy"] == pytest.approx(accuracy_score(label, said))
    assert got["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(label, said))
    assert got["minority_recall"] == pytest.approx(recall_score(label, said))
    assert got["minority_precision"] == pytest.approx(precision_score(label, said))
    assert got["minority_f1"] == pytest.approx(f1_score(label, said))
    recalls = [recall_score(label, said, pos_label=k) for k in (0, 1)]
    assert got["g_mean"] == pytest.approx(np.sqrt(recalls[0] * recalls[1]))


def test_numbers_of_parameters():
    """LeCun et al. 1998: 61,706; He et al. 2016, table 6: 0.27 and 0.46 million."""

    def count(model):
        return sum(p.numel() for p in model.parameters())

    assert count(LeNet5(1, 28, 10)) == count(LeNet5(1, 32, 10)) == 61_706
    assert round(count(ResNet(20)) / 1e6, 2) == 0.27
    assert round(count(ResNet(32)) / 1e6, 2) == 0.46
    assert LeNet5(1, 28, 2)(torch.zeros(3, 1, 28, 28)).shape == (3, 2)
    assert ResNet(20)(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
    assert ConvNet(3, 32)(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


def test_cost_measures_every_way():
    table = measure_cost(("lenet5",), rounds=1)
    assert list(table.columns) == [
        "network", "batch", "method", "hypergradient", "every", "time_ratio", "memory_ratio",
    ]  # fmt: skip
    ways = set(table["hypergradient"])
    assert {"none", "double_backward", "finite_difference", *CASES["lenet5"].ways} <= ways
    assert (table["time_ratio"] > 0).all()
    memory = table.set_index(["hypergradient", "every"])["memory_ratio"]
    assert memory["double_backward", 1] > 1.5 > memory["per_group", 1]
