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
    roc_auc_score,
)

from data_pipelines.errors import InputError
from weather_tdr.augment import crop_flip
from weather_tdr.cells import folder_of
from weather_tdr.checkpoints import Checkpoints
from weather_tdr.class_scores import class_scores, rare_classes
from weather_tdr.cli import main
from weather_tdr.cost import CASES, measure_cost
from weather_tdr.image_models import SMALLEST, make_network
from weather_tdr.methods.tdr import Tdr
from weather_tdr.schedules import SCHEDULES
from weather_tdr.scores import Counts
from weather_tdr.tables import by_score, overview_markdown

CONFIG = """
name: tiny
output: {output}
images: {{minority: [3], majority: [8], ratio: 0.8, train_size: 60, target_size: 6}}
network: convnet
methods: [uniform, tdr]
seeds: 2
workers: 1
train: {{steps: 20, batch: 20, learning_rate: 0.05, checkpoint_every: 8}}
"""


def saved_and_stopped(self, *arguments, save=Checkpoints.save):
    save(self, *arguments)
    raise KeyboardInterrupt


def refused(self):
    raise InputError("this machine will not do")


def test_results_resume_and_other_settings(tmp_path, capsys, monkeypatch):
    config = tmp_path / "tiny.yaml"
    config.write_text(CONFIG.format(output=tmp_path))
    main(["benchmark", str(config), "--quiet", "--workers=2"])  # others in this process, one by one
    folder = tmp_path / "tiny"
    results = pd.read_csv(folder / "results.csv")
    assert len(results) == 4 and set(results["data"]) == {
        "train",
        "train, target steers, then joins",
    }
    assert "| `tdr` |" in capsys.readouterr().out
    assert (folder / "methods.png").stat().st_size > 5000
    # A finished cell is never run again: a changed one stays; a missing one comes back the same.
    cell, other = (
        next((folder / "cells").glob(f"{n}-*.json")) for n in ("tdr-0.8-1", "uniform-0.8-0")
    )
    changed = json.loads(other.read_text()) | {"accuracy": 0.123}
    other.write_text(json.dumps(changed))
    cell.unlink()
    main(["benchmark", str(config), "--quiet"])
    again = pd.read_csv(folder / "results.csv")
    assert again["accuracy"].iloc[0] == 0.123
    drop = ["seconds", "accuracy", "date", "commit", "command"]
    pd.testing.assert_frame_equal(again.drop(columns=drop), results.drop(columns=drop))
    # Stopped, a cell goes on to the same result; anew where its checkpoint is damaged or older.
    begun = folder_of(cell)
    for left, spoil in ((12, None), (20, "checkpoints/step_000000008.safetensors"),
                        (20, "made_with.txt")):  # fmt: skip
        cell.unlink()
        with monkeypatch.context() as stopped, pytest.raises(SystemExit):
            stopped.setattr(Checkpoints, "save", saved_and_stopped)
            main(["benchmark", str(config), "--quiet"])
        assert [p.name for p in (begun / "checkpoints").iterdir()] == ["step_000000008.safetensors"]
        if spoil:
            (begun / spoil).write_text("something else")
        steps, step = [], Tdr.step
        with monkeypatch.context() as counted:
            counted.setattr(Tdr, "step", lambda *these: steps.append(0) or step(*these))  # noqa: B023
            main(["benchmark", str(config), "--quiet"])
        assert len(steps) == left and not begun.exists()
        again = pd.read_csv(folder / "results.csv")
        pd.testing.assert_frame_equal(again.drop(columns=drop), results.drop(columns=drop))
    # What fails for another reason keeps its checkpoint.
    cell.unlink()
    for part, broken in (("save", saved_and_stopped), ("latest", refused)):
        with monkeypatch.context() as stopped, pytest.raises(SystemExit):
            stopped.setattr(Checkpoints, part, broken)
            main(["benchmark", str(config), "--quiet"])
        assert len(list((begun / "checkpoints").iterdir())) == 1
    main(["benchmark", str(config), "--quiet"])
    # Other settings have cells of their own; so has another method under the same name.
    main(["benchmark", str(config), "--quiet", "--train.steps", "10", "--methods=[uniform]"])
    assert set(pd.read_csv(folder / "results.csv")["steps"]) == {10}
    assert len(list((folder / "cells").iterdir())) == 6
    own = tmp_path / "uniform.yaml"
    own.write_text("loss: focal")
    main(["benchmark", str(config), "--quiet", f"--methods=[{own}]", "--seeds=1"])
    assert pd.read_csv(folder / "results.csv")["data"].tolist() == ["train + target"]
    # A cell that fails leaves the others, and says why.
    with pytest.raises(SystemExit) as stop:
        main(["benchmark", str(config), "--quiet", "--methods=[balanced_sampling,merge_target]",
              "--seeds=1", "--train.batch=1"])  # fmt: skip
    assert stop.value.code == 2
    err = capsys.readouterr().err
    assert "1 of 2 cells failed, the first is balanced_sampling" in err and "train.batch" in err
    with pytest.raises(SystemExit):
        main(["benchmark", str(config), "--network", "lenet"])
    assert "Did you mean `lenet5`" in capsys.readouterr().err


def test_several_imbalances_share_a_table_and_a_figure(tmp_path, capsys):
    config = tmp_path / "tiny.yaml"
    config.write_text(CONFIG.format(output=tmp_path).replace("seeds: 2", "seeds: 1"))
    main(["benchmark", str(config), "--quiet", "--imbalances=[0.9,0.5]"])
    results = pd.read_csv(tmp_path / "tiny" / "results.csv")
    assert results["imbalance"].tolist() == [0.5, 0.5, 0.9, 0.9]
    out = capsys.readouterr().out
    assert "| method | data | 0.5 | 0.9 |" in out and "Imbalance 0.9:" in out and "one seed," in out
    # The cells of a single imbalance are the same cells.
    main(["benchmark", str(config), "--quiet", "--images.ratio=0.9"])
    assert len(list((tmp_path / "tiny" / "cells").iterdir())) == 4
    with pytest.raises(SystemExit):
        main(["benchmark", str(config), "--imbalances=[0.9,0.9]"])
    assert "each degree once" in capsys.readouterr().err


def test_learning_rates_are_chosen_on_validation_over_other_draws(tmp_path, capsys):
    config = tmp_path / "tiny.yaml"
    config.write_text(CONFIG.format(output=tmp_path))
    rates = "--learning_rates=[1e-9,0.05,1e30]"  # learns nothing; learns; diverges
    with pytest.raises(SystemExit):
        main(["benchmark", str(config), "--quiet", rates])
    assert "validation_size" in capsys.readouterr().err
    held = [
        "--images.validation_size=40",
        "--methods=[inverse_frequency,balanced_sampling]",
        "--train.steps=40",
    ]
    main(["benchmark", str(config), "--quiet", rates, *held])
    results = pd.read_csv(tmp_path / "tiny" / "results.csv")
    assert set(results["learning_rate"]) == {0.05} and set(results["seed"]) == {0, 1}
    assert results["validation_score"].between(0.5, 1).all()
    assert results["command"].str.contains("learning_rates").all()
    assert results["versions"].str.contains(f"torch {torch.__version__}", regex=False).all()
    # The cells are those of the same rate given by hand.
    cells = set((tmp_path / "tiny" / "cells").iterdir())
    main(["benchmark", str(config), "--quiet", "--train.learning_rate=0.05", *held])
    assert set((tmp_path / "tiny" / "cells").iterdir()) == cells


def test_a_run_that_diverges_is_a_result_without_scores(tmp_path, capsys):
    config = tmp_path / "tiny.yaml"
    config.write_text(CONFIG.format(output=tmp_path))
    main(["benchmark", str(config), "--quiet", "--train.learning_rate=1e30"])
    results = pd.read_csv(tmp_path / "tiny" / "results.csv")
    assert results["diverged"].all() and results["balanced_accuracy"].isna().all()
    assert results["steps"].isna().all() and len(results) == 4
    assert "2 of 2 diverged" in capsys.readouterr().out
    rows = pd.read_csv(tmp_path / "tiny" / "results.csv").assign(
        balanced_accuracy=[0.6, 0.99, 0.7, np.nan], diverged=[False, False, False, True]
    )
    assert rows["method"].tolist() == ["uniform", "tdr"] * 2
    assert by_score(rows, "balanced_accuracy") == ["uniform", "tdr"]
    text = overview_markdown(rows)
    assert "0.650 ± 0.071" in text and "1 of 2 diverged" in text and "0.99" not in text
    unknown = rows.assign(diverged=pd.Series([None, None, False, True], dtype=object))
    assert overview_markdown(unknown) == text  # cells of a release that did not say


def test_long_tailed_with_epochs_and_augmentation(tmp_path):
    config = tmp_path / "tiny.yaml"
    config.write_text(
        CONFIG.format(output=tmp_path)
        + "images: {imbalance: long_tailed, factor: 5, train_size: 40, target_size: 20}\n"
        + "train: {epochs: 1.5, batch: 20, schedule: long_tail, augment: crop_flip}\n"
    )
    text = [x for x in config.read_text().splitlines() if "ratio" not in x and "steps" not in x]
    config.write_text("\n".join(text))
    main(["benchmark", str(config), "--quiet", "--seeds=1"])
    results = pd.read_csv(tmp_path / "tiny" / "results.csv")
    sizes = [int(40 * 5 ** (-k / 9)) for k in range(10)]
    assert set(results["steps"]) == {-(-3 * sum(sizes) // 40)}
    assert set(results["dataset"]) == {"digits long-tailed"} and results["accuracy"].notna().all()


def test_two_classes_have_the_scores_of_scikit_learn():
    rng = np.random.default_rng(0)
    label = (rng.random(300) < 0.3).astype(int)
    score = (rng.random(300) + 0.3 * label) / 1.3
    said = (score >= 0.45).astype(int)
    got = class_scores(np.stack([1 - score, score], 1), said, label, np.array([1]))
    assert got["accuracy"] == pytest.approx(accuracy_score(label, said))
    assert got["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(label, said))
    assert got["minority_recall"] == pytest.approx(recall_score(label, said))
    assert got["minority_precision"] == pytest.approx(precision_score(label, said))
    assert got["minority_f1"] == pytest.approx(f1_score(label, said))
    recalls = [recall_score(label, said, pos_label=k) for k in (0, 1)]
    assert got["g_mean"] == pytest.approx(np.sqrt(recalls[0] * recalls[1]))
    assert got["roc_auc"] == pytest.approx(roc_auc_score(label, score))
    counts = Counts.of(said == 1, label == 1).scores()
    assert got["csi"] == pytest.approx(counts["csi"])
    assert got["minority_recall"] == pytest.approx(counts["pod"])


def test_many_classes_by_hand():
    """Recalls 1, 1/2, 0 and 1; classes 2 and 3 are rare; class 2 is never said."""
    label = np.array([0, 0, 1, 1, 2, 3])
    said = np.array([0, 0, 1, 0, 3, 3])
    got = class_scores(np.eye(4)[said], said, label, np.array([2, 3]))
    assert got["accuracy"] == pytest.approx(4 / 6)
    assert got["balanced_accuracy"] == pytest.approx(2.5 / 4)
    assert got["minority_recall"] == 0.5 and got["g_mean"] == 0.0
    assert np.isnan(got["minority_precision"])  # undefined for class 2
    assert got["minority_f1"] == pytest.approx((0 + 2 / 3) / 2)
    assert got["csi"] == pytest.approx((0 + 1 / 2) / 2)
    assert rare_classes(np.array([50, 40, 3, 20, 5, 60])).tolist() == [2, 4]
    assert rare_classes(np.array([50, 50, 5, 5])).tolist() == [2, 3]
    assert [rare_classes(np.array(n))[0] for n in ([99, 1], [5, 5], [4, 6])] == [1, 1, 1]


def test_numbers_of_parameters():
    """LeCun et al. 1998: 61,706 and 266,610; He et al. 2016a, table 6; 2016b: 1.7 million."""

    def count(name, *shape):
        return sum(p.numel() for p in make_network(name, *shape).parameters())

    assert count("lenet5", 1, 28, 10) == count("lenet5", 1, 32, 10) == 61_706
    assert count("mlp", 1, 28, 10) == 266_610
    # Of the reference implementation, layer by layer: filters x (inputs + 1).
    lenet = 6 * 26 + 16 * 151 + 120 * 257 + 84 * 121 + 10 * 85
    assert count("lenet5_reference", 1, 28, 10) == lenet == 44_426
    convnet = 32 * 28 + 64 * 289 + 128 * 577 + 128 * 1153 + 1024 * 513 + 2 * 1025
    assert count("convnet_reference", 3, 32, 2) == convnet == 768_194
    millions = {20: 0.27, 32: 0.46, 44: 0.66, 56: 0.85, 110: 1.7}
    for depth, published in millions.items():
        digits = 1 if depth == 110 else 2
        assert round(count(f"resnet{depth}") / 1e6, digits) == published
        # The two versions differ in the normalisations only.
        assert abs(count(f"resnet{depth}_v2") - count(f"resnet{depth}")) < 200
    assert round(count("resnet164_v2_bottleneck") / 1e6, 1) == 1.7
    assert round(count("resnet110_v2") / 1e6, 1) == 1.7
    for name in (*SMALLEST, "resnet20", "resnet20_v2", "resnet29_v2_bottleneck"):
        assert make_network(name, 3, 32, 7)(torch.zeros(2, 3, 32, 32)).shape == (2, 7)


@pytest.mark.parametrize(
    ("name", "words"),
    [("resnet21", "6n \\+ 2, got 21"), ("resnet29_bottleneck", "version 1"), ("lenet", "`lenet5`")],
)
def test_unknown_networks(name, words):
    with pytest.raises(InputError, match=words):
        make_network(name)


def test_crops_and_mirrors_by_hand():
    """Every result is one of the 9 x 9 x 2 that slicing a padded image gives; all occur."""
    image = torch.arange(1.0, 1 + 2 * 4 * 4).reshape(1, 2, 4, 4)
    wide = torch.zeros(2, 12, 12)
    wide[:, 4:8, 4:8] = image[0]
    possible = {
        part.numpy().tobytes()
        for y in range(9)
        for x in range(9)
        for crop in [wide[:, y : y + 4, x : x + 4]]
        for part in (crop, crop.flip(2))
    }
    made = crop_flip(image.expand(3000, 2, 4, 4), torch.Generator().manual_seed(0))
    assert {m.numpy().tobytes() for m in made} == possible


def test_long_tail_schedule():
    """Cao et al. 2019, 200 epochs: warm-up over 5, then 1, 0.01 after 160, 0.0001 after 180."""
    rate = SCHEDULES["long_tail"]
    at = {epoch: rate(epoch * 100, 20_000) for epoch in (0, 2, 5, 159, 160, 179, 180, 199)}
    assert at[0] == pytest.approx(1 / 500) and at[2] == pytest.approx(201 / 500)
    assert (at[5], at[159]) == (1.0, 1.0)
    assert at[160] == at[179] == pytest.approx(0.01)
    assert at[180] == at[199] == pytest.approx(0.0001)


def test_cost_measures_every_way():
    table = measure_cost(("lenet5",), rounds=1)
    assert list(table.columns) == [
        "network", "batch", "method", "hypergradient", "every", "time_ratio", "memory_ratio",
    ]  # fmt: skip
    ways = set(table["hypergradient"])
    assert {"none", "double_backward", "finite_difference", *CASES["lenet5"].ways} <= ways
    assert (table["time_ratio"] > 0).all()
    assert {"tdr", "tdr, lag"} == set(table.query("hypergradient == 'forward_mode'")["method"])
    memory = table.query("method == 'tdr'").set_index(["hypergradient", "every"])["memory_ratio"]
    assert memory["double_backward", 1] > 1.5 > memory["per_group", 1]
