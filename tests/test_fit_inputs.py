"""What `fit` takes, and what it refuses with words of its own."""

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from test_train import run
from torch import nn

from data_pipelines.errors import InputError
from weather_tdr.methods.method import load_method
from weather_tdr.methods.tdr import Tdr
from weather_tdr.train import Train, fit


def test_arrays_of_any_library_and_what_does_not_fit():
    """numpy's float64 and xarray give what torch gives; errors name what is wrong."""
    rng = np.random.default_rng(0)
    inputs, labels = rng.standard_normal((60, 1, 4, 4)), np.arange(60) % 2
    target = rng.standard_normal((6, 1, 4, 4)), np.arange(6) % 2
    results = []
    for kind in (lambda v: v, xr.DataArray, torch.from_numpy):
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 2))
        given = [tuple(map(kind, pair)) for pair in ((inputs, labels), target)]
        fit(model, *given, "tdr", Train(steps=5))
        results.append(model[1].weight.detach())
    assert torch.equal(results[0], results[1]) and torch.equal(results[0], results[2])

    def fails(words, train=(inputs, labels), target=target, classes=2):
        model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, classes))
        with pytest.raises(InputError, match=words):
            fit(model, train, target, "uniform", Train(steps=2))

    fails("`target` must be a tuple of inputs and labels, got NoneType", target=None)
    fails("labels of `train` must be 0 to 1, .* got 1 to 2", train=(inputs, labels + 1))
    fails("labels of `train` must be 0 to 0, .* got 0 to 1", classes=1)
    fails("arrays of numbers, got one of <U", train=(inputs, labels.astype(str)))
    fails("labels must be whole numbers, .* such as 0.5", train=(inputs, labels + 0.5))
    fails(r"labels must be whole numbers, .* shape \(60, 2\)", train=(inputs, np.eye(2)[labels]))
    fails(r"shape of `train`, \(1, 4, 4\) a sample, got \(1, 8, 2\)",
          target=(target[0].reshape(6, 1, 8, 2), target[1]))  # fmt: skip


def few(n, seed, shape=(2, 4, 4)):
    """Noise of two classes."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, *shape, generator=generator), torch.arange(n) % 2


def test_names_of_groups_and_epochs_of_small_sets():
    model = nn.Sequential(nn.Flatten(), nn.Linear(32, 2))
    with pytest.raises(InputError, match="`names` of the groups must differ, got x, x"):
        fit(model, few(50, 0), few(6, 1), "tdr", Train(steps=5), names=("x", "x"))
    below = (*few(50, 0), few(50, 0)[1] - 1)
    with pytest.raises(InputError, match="groups must be numbered from 0, got -1"):
        fit(model, below, few(6, 1), "tdr", Train(steps=5))
    far = [(*few(n, n), few(n, n)[1] + 10**9) for n in (50, 6)]  # numbers of many digits are names
    assert "weight_1000000001" in fit(model, *far, "tdr", Train(steps=5))
    history = fit(model, few(50, 0), few(6, 1), "uniform", Train(epochs=10, batch=128, log_every=1))
    assert len(history) == 10


def test_no_parameter_is_trained():
    frozen = nn.Sequential(nn.Flatten(), nn.Linear(32, 2)).requires_grad_(False)
    for model in (frozen, nn.Flatten()):
        with pytest.raises(InputError, match="must have parameters to train"):
            fit(model, few(50, 0), few(6, 1), "tdr", Train(steps=5))


def test_a_mask_of_infinities_is_no_divergence():
    class Masked(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("mask", torch.full((4, 4), -torch.inf).triu(1))
            self.out = nn.Linear(32, 2)

        def forward(self, x):
            return self.out((x * self.mask.exp()).flatten(1))

    assert len(fit(Masked(), few(50, 0), few(6, 1), "tdr", Train(steps=5))) == 1


def test_a_layer_put_into_evaluation_mode_stays_there():
    """Frozen BatchNorm, also through validation."""
    model = nn.Sequential(nn.BatchNorm2d(2), nn.Flatten(), nn.BatchNorm1d(32), nn.Linear(32, 2))
    model[0].eval()
    settings = Train(steps=6, checkpoint_every=2)
    fit(model, few(50, 0), few(6, 1), "tdr", settings, validate=lambda m: float(m.eval().training))
    assert (model[0].running_mean == 0).all() and not (model[2].running_mean == 0).any()
    model.eval()  # as a whole, as a network just loaded is: it is trained
    fit(model, few(50, 0), few(6, 1), "uniform", Train(steps=2))
    assert not (model[0].running_mean == 0).any()


def test_a_parameter_that_is_not_used_decays_alike_with_every_method():
    ends = []
    for method in ("uniform", "tdr_faithful", "learning_to_reweight"):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(32, 2))
        model.register_parameter("unused", nn.Parameter(torch.ones(3, 3)))
        fit(model, few(50, 0), few(6, 1), method, Train(steps=20, weight_decay=0.5))
        ends.append(model.unused.detach())
    assert ends[0].max() < 1.0 and torch.equal(ends[0], ends[1]) and torch.equal(ends[0], ends[2])


def test_tdr_as_a_method_of_its_own():
    """The settings of `tdr` without its name; a loss of one's own; a wrong number of groups."""
    seen = []

    def noted(logits, labels):
        seen.append(len(labels))
        return torch.nn.functional.cross_entropy(logits, labels, reduction="none")

    wanted, history = run(None, "tdr")
    rule = Tdr(settings=load_method("tdr").tdr, loss=noted)
    model, again = run(None, rule)
    for name, value in wanted.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name
    pd.testing.assert_frame_equal(history, again)
    assert len(seen) >= 60 and rule.groups == 0  # what is given stays as it is
    with pytest.raises(InputError, match="must have only `settings` and `loss` in `fit`, got also "
                       "learning_rate, weights"):  # fmt: skip
        run(None, Tdr(learning_rate=0.1, weights=torch.tensor([0.2, 0.3, 0.5])))
    with pytest.raises(InputError, match=r"`Tdr\.groups` must be the number .* got 2 for 3"):
        run(None, Tdr(2, settings=load_method("tdr").tdr))
