"""What stops a training, and what a resumed one may change."""

from functools import partial

import pytest
import torch
from test_train import toy

from data_pipelines.errors import InputError
from weather_tdr.data import Batch
from weather_tdr.fingerprint import fingerprint
from weather_tdr.methods.losses import focal
from weather_tdr.methods.method import load_method
from weather_tdr.methods.tdr import Tdr
from weather_tdr.models import PatchNet
from weather_tdr.train import Train, fit


def test_a_non_finite_gradient_stops_before_it_spoils_the_network(tmp_path):
    class Root(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = torch.nn.Parameter(torch.zeros(1))
            self.out = torch.nn.Linear(128, 2)

        def forward(self, x):
            return self.out(x.flatten(1)) * (1 + self.scale.sqrt())  # slope infinite at zero

    model = Root()
    settings = Train(steps=5, batch=32, checkpoint_every=1, clip=0.0)
    with pytest.raises(InputError, match=r"gradient must be finite.* step 0 .*checkpoint is none"):
        fit(model, toy(300, 0), toy(12, 1, 0.5), "uniform", settings, folder=tmp_path)
    assert all(torch.isfinite(p).all() for p in model.parameters())


def test_a_step_beyond_all_numbers_leaves_no_checkpoint(tmp_path):
    """Loss and gradient are finite, what the step makes of the network is not."""

    class Huge(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.huge = torch.nn.Parameter(torch.full((1,), 3e38))
            self.out = torch.nn.Linear(128, 2)

        def forward(self, x):
            return self.out(x.flatten(1)) + 0 * self.huge

    settings = Train(
        steps=5, batch=32, checkpoint_every=1, learning_rate=2.0, weight_decay=2.0, decay_on="all"
    )
    with pytest.raises(InputError, match=r"network must be finite, got `huge` .*step 0 of"):
        fit(Huge(), toy(300, 0), toy(12, 1, 0.5), "uniform", settings, folder=tmp_path)
    assert not list(tmp_path.rglob("*.safetensors"))


def test_the_error_names_the_samples_that_are_not_finite():
    train, target = toy(300, 0), toy(12, 1, 0.5)
    target.patches[3, 0, 0, 0] = torch.nan
    with pytest.raises(InputError, match=r"first step, got samples target 3, .*1 of them"):
        fit(PatchNet(2, 8, 2, width=4), train, target, "tdr", Train(steps=5, batch=32))
    target.patches[3] = 0.0
    train.patches[17] = torch.inf
    with pytest.raises(InputError, match="with samples train 17, "):
        fit(PatchNet(2, 8, 2, width=4), train, target, "uniform", Train(steps=20, batch=32))


def test_an_undefined_score_cannot_choose():
    for setting in ({"choose": "best"}, {"patience": 2}):
        settings = Train(steps=9, batch=32, checkpoint_every=3, **setting)
        with pytest.raises(InputError, match="got one that is not defined"):
            fit(
                PatchNet(2, 8, 2, width=4), toy(300, 0), toy(12, 1, 0.5), "uniform", settings,
                validate=lambda m: float("nan"),
            )  # fmt: skip


def fingerprint_of_itself() -> str:
    """Of a loss that holds itself, a tensor and another function."""
    weights = torch.tensor([1.0, 3.0])

    def loss(logits, labels, again=True):
        return (
            loss(logits, labels, False) if again else weights[labels] * focal(2.0)(logits, labels)
        )

    recipe = load_method("uniform")
    return fingerprint(Train(), recipe, "", torch.nn.Linear(2, 2), partial(loss, again=True), None)


def test_what_a_resumed_training_may_change_and_what_not(tmp_path):
    train, target = toy(300, 0), toy(12, 1, 0.5)

    def go_on(data=train, width=6, **changes):
        settings = Train(**({"steps": 20, "batch": 32, "checkpoint_every": 10} | changes))
        model = PatchNet(2, 8, 2, width=width)
        return fit(model, data, target, "uniform", settings, folder=tmp_path, resume=True)

    def focused(gamma):
        def loss(logits, labels):
            return focal(gamma)(logits, labels)

        return loss

    go_on()
    go_on(keep_checkpoints=5, device="cpu")
    other = Batch(2 * train.patches, train.labels, train.groups)
    for changed in ({"data": other}, {"width": 8}, {"steps": 30}):
        with pytest.raises(InputError, match="other settings or data"):
            go_on(**changed)
    assert fingerprint_of_itself() == fingerprint_of_itself()
    own = [Tdr(loss=focused(gamma)) for gamma in (2.0, 2.0, 5.0)]
    go = partial(fit, train=train, target=target, settings=Train(steps=4), folder=tmp_path / "own")
    for method in own[:2]:
        go(PatchNet(2, 8, 2, width=4), method=method, resume=True)
    with pytest.raises(InputError, match="other settings or data"):
        go(PatchNet(2, 8, 2, width=4), method=own[2], resume=True)
