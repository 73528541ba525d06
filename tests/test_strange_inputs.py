"""What people give by mistake: refused with words, or taken for what it is."""

import logging

import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from data_pipelines.errors import InputError
from weather_tdr.benchmark_settings import Benchmark
from weather_tdr.data import Batch
from weather_tdr.imbalance import draw_imbalanced
from weather_tdr.methods.method import Method, load_method
from weather_tdr.methods.tdr import Tdr, TdrSettings
from weather_tdr.settings import read_yaml
from weather_tdr.train import Train, fit

X, Y = torch.randn(40, 4, generator=torch.Generator().manual_seed(0)), torch.arange(40) % 2
TARGET = (torch.randn(6, 4, generator=torch.Generator().manual_seed(1)), torch.arange(6) % 2)


def trained(data, method="uniform", steps=5, **kw):
    """The history of a small training."""
    torch.manual_seed(0)
    return fit(nn.Linear(4, 2), data, TARGET, method, Train(steps=steps, batch=8), **kw)


@pytest.mark.parametrize(
    ("inputs", "labels", "groups", "words"),
    [
        (X, Y, Y[:, None], "groups one a sample, .*int64 of shapes .* \\(40, 1\\)"),
        (X, Y, Y[:1], "of one length, got \\(40, 4\\), \\(40,\\), \\(1,\\)"),
        (X, Y[:20], Y[:20], "of one length"),
        (X, Y, torch.tensor(1), "of one length"),
        (X, Y, Y == 1, "must be int64, .* and torch.bool"),
        (X, Y, Y.short(), "must be int64, .* and torch.int16"),
        (X, Y.int(), Y, "must be int64, .* torch.int32 and torch.int64"),
        (X, Y.numpy(), Y, "must have three tensors, got Tensor, ndarray, Tensor"),
    ],
)
def test_batches_whose_parts_do_not_fit(inputs, labels, groups, words):
    """A column of groups would multiply the gradient by the size of the batch."""
    with pytest.raises(InputError, match=words):
        Batch(inputs, labels, groups)


def test_masked_values_are_refused_and_masks_of_nothing_are_not():
    masked = np.ma.masked_less(X.numpy(), -1.0)
    assert masked.mask.any()
    with pytest.raises(InputError, match=f"no masked values, got {masked.mask.sum()} of 160"):
        trained((masked, Y))
    with pytest.raises(InputError, match="no masked values, got 1 of 40"):
        Batch.of((X, np.ma.array(Y.numpy(), mask=np.arange(40) == 3)))
    whole = Batch.of((np.ma.array(X.numpy(), mask=False), Y))
    assert torch.equal(whole.patches, X)


@pytest.mark.parametrize(
    "change",
    [
        lambda a: a[:, ::-1],
        lambda a: a.astype(">f4"),
        lambda a: a.astype(np.longdouble),
        lambda a: xr.DataArray(a[::-1, ::-1], dims=("sample", "latitude"))[::-1],
        lambda a: np.broadcast_to(a[:1], a.shape),
    ],
)
def test_flipped_axes_and_other_orders_of_bytes(change):
    """They are the values that numpy shows."""
    given = change(X.numpy())
    taken = Batch.of((given, Y)).patches
    np.testing.assert_array_equal(taken.numpy(), np.asarray(given).astype(taken.numpy().dtype))
    trained((given, Y))


@pytest.mark.parametrize("inputs", [xr.Dataset({"a": ("n", [1.0])}), [[1.0, 2.0], [3.0]], 3.0])
def test_what_is_no_array(inputs):
    with pytest.raises(InputError, match="samples must be arrays of numbers, got "):
        trained((inputs, Y))


def test_names_are_those_of_what_the_weights_belong_to():
    groups = (X, Y, torch.arange(40) % 3)
    target = (*TARGET, torch.arange(6) % 3)
    names = ("background", "hard_negative", "incident")

    def history(method, names):
        return fit(nn.Linear(4, 2), groups, target, method, Train(steps=5, batch=8), names=names)

    assert "weight_incident" in history("tdr", names)
    with pytest.raises(InputError, match=r"must name the 2 classes, .* `tdr_faithful` belong"):
        history("tdr_faithful", names)
    assert "weight_rare" in history("tdr_faithful", np.array(["normal", "rare"]))
    more = ("normal", "rare", "rarer", "rarest")  # of a network with more outputs
    assert "weight_rare" in history("inverse_frequency", more)


def test_other_names_do_not_go_on_with_a_history(tmp_path):
    trained((X, Y), folder=tmp_path, names=("a", "b"))
    with pytest.raises(InputError, match="made with other settings"):
        trained((X, Y), folder=tmp_path, names=("b", "a"), resume=True)
    assert "weight_a" in trained((X, Y), folder=tmp_path, names=("a", "b"), resume=True)


@pytest.mark.parametrize("name", ["", "..", "../out", "a/b", "patches.zarr", "figures", " "])
def test_names_of_methods_are_those_of_folders(name):
    with pytest.raises(InputError, match="`name` of a method or network must be letters"):
        Method(name)
    assert Method("mine-2 + more").name == "mine-2 + more"


@settings(max_examples=200, deadline=None)
@given(
    steps=st.integers(1, 300),
    every=st.integers(1, 60),
    start=st.floats(0, 0.9),
    finish=st.floats(0, 0.09),
)
def test_whether_weights_move_is_what_the_steps_say(steps, every, start, finish):
    rule = Tdr(2, 0.1, TdrSettings(every=every, start=start, finish=finish), steps_in_all=steps)
    turns = []
    for rule.steps in range(steps):
        turns.append(rule.turn)
    assert rule.settings.moves(steps) == any(turns)


@pytest.mark.parametrize(("steps", "warns"), [(35, True), (40, False)])
def test_a_training_too_short_to_steer_says_so(caplog, steps, warns):
    """At 35 steps there is no multiple of 10 from 21 to 27."""
    with caplog.at_level(logging.WARNING):
        history = trained((X, Y), "tdr", steps)
    assert ("the weights of TDR never move" in caplog.text) is warns
    assert (set(history.weight_0) == {0.5}) is warns


def test_a_folder_that_is_none_is_refused_before_the_training(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("mine")
    seen = []
    with pytest.raises(InputError, match=r"`folder` must be a folder to write into, got .*file"):
        trained((X, Y), folder=tmp_path / "file", augment=lambda x, g: seen.append(1) or x)
    assert not seen and (tmp_path / "file").read_text() == "mine"
    monkeypatch.setenv("HOME", str(tmp_path))
    trained((X, Y), folder="~/runs")
    assert (tmp_path / "runs" / "history.csv").is_file()


@pytest.mark.parametrize("key", ["output", "imbalances", "methods", "network", "learning_rates"])
def test_a_key_without_a_value_is_named(tmp_path, key):
    path = tmp_path / "mine.yaml"
    path.write_text(f"name: mine\n{key}:\n")
    with pytest.raises(InputError, match=f"`{key}` must have a value, got none"):
        read_yaml(Benchmark, path)


@pytest.mark.parametrize("key", ["name", "loss"])
def test_a_key_of_a_method_without_a_value_is_named(tmp_path, key):
    (tmp_path / "mine.yaml").write_text(f"{key}:\n")
    with pytest.raises(InputError, match=f"`{key}` must have a value, got none"):
        load_method(str(tmp_path / "mine.yaml"))


def test_a_set_without_validation_is_not_sent_to_a_run(tmp_path):
    drawn = {"output": str(tmp_path), "train_size": 60, "target_size": 4}
    _, told = draw_imbalanced(name="without", validation_size=0, **drawn)
    assert "Next: weather-tdr run" not in told and "has none" in told
    _, told = draw_imbalanced(name="with", **drawn)
    assert "Next: weather-tdr run" in told


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Tdr(settings={"every": 5}), "must have `TdrSettings` .* got dict"),
        (lambda: Tdr(loss="focal"), "must have .* got TdrSettings and str"),
        (lambda: TdrSettings(alpha=float("inf")), "positive and finite, got inf"),
        (lambda: Train(epochs=float("inf")), "`train.epochs` must be finite"),
        (lambda: Train(seed=2**70), "`train.seed` below 2"),
    ],
)
def test_settings_at_their_edges(make, words):
    with pytest.raises(InputError, match=words):
        make()
