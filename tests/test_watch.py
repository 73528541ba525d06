"""What training warns of."""

import pytest
import torch
from test_train import run, toy

from weather_tdr.data import Batch
from weather_tdr.methods.method import Method
from weather_tdr.methods.tdr import TdrSettings
from weather_tdr.models import PatchNet
from weather_tdr.train import Train, fit
from weather_tdr.watch import Watch


def test_warnings_of_vanished_weights_and_dead_hypergradients(tmp_path, caplog):
    method = Method("strong", weighting="tdr", target="steer", tdr=TdrSettings(alpha=1e4, every=1))
    run(tmp_path, method, s={"log_every": 1})
    assert "has vanished" in caplog.text
    caplog.clear()
    few = toy(300, 0)
    few = Batch(few.patches, (torch.arange(300) == 0).long(), (torch.arange(300) == 0).long())
    fit(PatchNet(2, 8, 2, width=6), few, toy(12, 1, 0.5), "tdr_faithful",
        Train(steps=120, batch=8, log_every=5))  # fmt: skip
    assert "hypergradient of 1 has been zero" in caplog.text


def test_a_hypergradient_that_stands_in_several_rows_counts_once(caplog):
    watch, row = Watch(("a", "b"), 1), {"hypergradient_a": 0.0, "hypergradient_b": -0.1}
    for step in range(60):
        watch.look(row | {"step": step, "target_loss": 1.0 - 0.01 * (step // 15)})
        assert "has been zero" not in caplog.text  # four moves
    watch.look(row | {"step": 60, "target_loss": 0.5})
    assert "hypergradient of a has been zero in 5 logged moves" in caplog.text


def test_warning_of_an_overfitted_target_set(caplog):
    watch = Watch(("a", "b"), 10)
    for k in range(4):
        watch.validated(1.0 - 0.1 * k, 0.9 - 0.1 * k)
        assert ("overfit" in caplog.text) == (k == 3)


def test_only_a_group_that_stays_without_slope_is_named(caplog):
    watch = Watch(("a", "b", "c"), 1)
    for k in range(12):  # another one at each move
        slopes = {f"hypergradient_{n}": 0.1 * (i != k % 3) for i, n in enumerate("abc")}
        watch.look(slopes | {"step": k, "target_loss": 1.0 / (k + 1)})
    assert "has been zero" not in caplog.text


@pytest.mark.parametrize("method", ["tdr", "tdr_faithful", "fine_tune_target", "uniform"])
def test_training_warns_of_an_overfitted_target_set(method, caplog):
    """A score that worsens at each validation while the target set is learned, in any phase."""
    torch.manual_seed(0)
    x, y = torch.randn(200, 1, 4, 4), torch.arange(200) % 2
    target = torch.randn(10, 1, 4, 4) + y[:10, None, None, None], y[:10]
    begins = {"tdr": 36, "fine_tune_target": 30}.get(method, 0)  # of 60 steps
    scores = iter(range(0, -100, -1))

    def validate(_):
        score = next(scores)
        # Said after the fourth validation since the target set acts, and not before.
        assert "overfits" not in caplog.text or -5 * score > begins + 15
        return score

    settings = Train(steps=60, batch=20, checkpoint_every=5, learning_rate=0.1)
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 2))
    fit(
        network, (x + y[:, None, None, None], y), target, method, settings,
        validate=validate,
    )  # fmt: skip
    assert ("overfits the target set" in caplog.text) == (method != "uniform")
