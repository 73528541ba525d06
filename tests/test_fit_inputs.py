"""What `fit` takes, and what it refuses with words of its own."""

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from test_train import run

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
    fails(r"shape of `train`, \(1, 4, 4\) a sample, got \(1, 8, 2\)",
          target=(target[0].reshape(6, 1, 8, 2), target[1]))  # fmt: skip


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
