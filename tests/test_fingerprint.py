"""A checkpoint is taken up by the network, loss and settings that made it, and by no others."""

import pytest
import torch
from test_any_network import Pair
from test_fit_inputs import few
from test_methods import plain_loss
from torch import nn

from data_pipelines.errors import InputError
from weather_tdr.methods.tdr import Tdr
from weather_tdr.train import Train, fit


@pytest.mark.parametrize("kind", ["captured", "counter", "printed"])
def test_what_moves_in_training_does_not_hinder_a_resume(tmp_path, kind):
    class Counting(nn.Module):
        calls = 0

        def forward(self, logits, labels):
            self.calls += 1
            return plain_loss(logits, labels)

        def get_extra_state(self):
            return {"calls": self.calls}

        def set_extra_state(self, state):
            self.calls = state["calls"]

    class Printed(Pair):
        def extra_repr(self):
            return f"b={float(self.head.bias[0].detach()):.6f}"

    def trained(resume):
        model = Printed() if kind == "printed" else Pair()
        losses = {
            "captured": lambda a, b: plain_loss(a, b) + 1e-4 * model.head.weight.abs().sum(),
            "counter": Counting(),
            "printed": plain_loss,
        }
        calls = []

        def stop(_):
            calls.append(0)
            if not resume and len(calls) == 2:
                raise KeyboardInterrupt
            return 0.0

        fit(model, few(50, 0), few(6, 1), Tdr(loss=losses[kind]),
            Train(steps=6, checkpoint_every=2), folder=tmp_path, resume=resume, validate=stop,
        )  # fmt: skip

    with pytest.raises(KeyboardInterrupt):
        trained(False)
    trained(True)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"loss": nn.CrossEntropyLoss(reduction="none")},
         {"loss": nn.CrossEntropyLoss(reduction="none", label_smoothing=0.5)}),
        ({"loss": lambda a, b: plain_loss(a, b)}, {"loss": lambda a, b: 10 * plain_loss(a, b)}),
        ({"layer": nn.ReLU()}, {"layer": nn.Tanh()}),
        ({"frozen": False}, {"frozen": True}),
    ],
)  # fmt: skip
def test_a_checkpoint_of_another_network_or_loss_is_refused(tmp_path, first, second):
    def trained(steps, resume, loss=plain_loss, layer=None, frozen=False):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(32, 8), layer or nn.ReLU(), nn.Linear(8, 2))
        model[1].requires_grad_(not frozen)

        def stop(_):
            if not resume:
                raise KeyboardInterrupt
            return 0.0

        fit(model, few(50, 0), few(6, 1), Tdr(loss=loss), Train(steps=6, checkpoint_every=2),
            folder=tmp_path, resume=resume, validate=stop if steps else None)  # fmt: skip

    trained(0, False, **first)
    trained(0, True, **first)
    with pytest.raises(InputError, match="made with other settings or data"):
        trained(0, True, **second)
