"""What runs on a GPU against the same on the CPU; skipped where there is no GPU."""

import copy

import numpy as np
import pandas as pd
import pytest
import torch
from test_hypergradient import losses, problem, relative
from test_train import Killed, run, toy

from weather_tdr.data import Batch
from weather_tdr.devices import autocast, replayed
from weather_tdr.evaluate import class_probabilities
from weather_tdr.image_models import make_network
from weather_tdr.methods.hypergradient import hypergradient
from weather_tdr.methods.method import load_method, names
from weather_tdr.models import PatchNet
from weather_tdr.photographs import Strong, crop_flip, shift
from weather_tdr.train import Train, fit

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
GPU = torch.device("cuda", 0)
WAYS = ["per_group", "forward_mode", "double_backward"]


@pytest.fixture(autouse=True)
def whole_precision(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["patchnet", "lenet", "convnet", "resnet20"])
def test_hypergradient_is_that_of_double_backpropagation_on_the_cpu(name, way):
    model, batch, target, weights = problem(name)
    arguments = {"loss": losses, "learning_rate": 0.05, "l2": 2e-3}
    other = copy.deepcopy(model)
    wanted = hypergradient(other, batch, target, weights, way="double_backward", **arguments)
    got = hypergradient(
        model.to(GPU), batch.to(GPU), target.to(GPU), weights.to(GPU), way=way, **arguments
    )
    assert got.value.device == got.target_loss.device == GPU
    assert relative(got.value.cpu(), wanted.value) < 1e-10
    slopes, expected = got.gradient(weights.to(GPU)), wanted.gradient(weights)
    assert max(relative(slopes[k].cpu(), expected[k]) for k in expected if expected[k].any()) < 1e-8


@pytest.mark.parametrize("way", WAYS[:2])
@pytest.mark.parametrize("name", ["convnet", "resnet20"])
def test_accuracy_in_bfloat16(name, way):
    model, batch, target, weights = problem(name)
    arguments = {"loss": losses, "learning_rate": 0.05}
    single = [Batch(b.patches.float(), b.labels, b.groups).to(GPU) for b in (batch, target)]
    other = copy.deepcopy(model).float().to(GPU)
    wanted = hypergradient(model, batch, target, weights, way="double_backward", **arguments)
    with autocast(GPU, "bfloat16"):
        got = hypergradient(other, *single, weights.float().to(GPU), way=way, **arguments)
    assert 1e-5 < relative(got.value.double().cpu(), wanted.value) < 0.05


def small():
    torch.manual_seed(0)
    return PatchNet(2, 8, 2, width=6, dropout=0.0)


@pytest.mark.parametrize("method", names())
def test_every_method_trains_as_on_the_cpu(method):
    """Twenty steps; rounding alone differs."""
    found = {}
    for device in ("cpu", GPU):
        model, history = run(
            None, method, small().to(device), s={"steps": 20, "learning_rate": 0.02}
        )
        assert {p.device.type for p in model.parameters()} == {torch.device(device).type}
        found[device] = model.cpu().state_dict(), history
    for name, value in found["cpu"][0].items():
        torch.testing.assert_close(found[GPU][0][name], value, rtol=1e-3, atol=1e-4, msg=name)
    pd.testing.assert_frame_equal(found[GPU][1], found["cpu"][1], rtol=1e-2, atol=1e-4)


@pytest.mark.parametrize("method", ["uniform", "tdr", "tdr_faithful", "meta_weight_net"])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_killed_and_resumed_is_the_uninterrupted_run(tmp_path, method, dropout):
    def fresh():
        torch.manual_seed(0)
        return PatchNet(2, 8, 2, width=6, dropout=dropout).to(GPU)

    whole, _ = run(tmp_path / "whole", method, fresh())
    calls = []

    def kill(_):
        calls.append(1)
        if len(calls) == 2:
            raise Killed
        return 0.5

    with pytest.raises(Killed):
        run(tmp_path / "killed", method, fresh(), validate=kill)
    resumed, _ = run(tmp_path / "killed", method, fresh(), resume=True)
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(
            resumed.state_dict()[name], value, rtol=1e-3, atol=1e-4, msg=name
        )


@pytest.mark.parametrize("augment", ["shift", "crop_flip", "strong"])
def test_images_are_changed_as_on_the_cpu(augment):
    images = torch.randn(64, 3, 32, 32, generator=torch.Generator().manual_seed(1)).clamp(-2, 2)
    change = shift if augment == "shift" else crop_flip
    if augment == "strong":
        change = Strong(torch.full((3,), 0.5), torch.full((3,), 0.25))
    wanted = change(images, torch.Generator().manual_seed(2))
    got = change(images.to(GPU), torch.Generator().manual_seed(2))
    assert got.device == GPU
    # Where a level is cut off, rounding can move a point by a whole level.
    far = (got.cpu() - wanted).abs() > 1e-3
    assert float(far.double().mean()) < 0.01


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("method", ["uniform", "tdr", "learning_to_reweight"])
def test_a_residual_network_learns(method, precision):
    torch.manual_seed(0)
    model = make_network("resnet20", 2, 8, 2).to(GPU)
    settings = Train(steps=300, batch=64, precision=precision, log_every=100)
    with_classes = [Batch(b.patches, b.labels, b.labels) for b in (toy(600, 0), toy(12, 1, 0.5))]
    fit(model, *with_classes, method, settings)
    test = toy(500, 9)
    with torch.no_grad():
        right = (model(test.patches.to(GPU)).argmax(1).cpu() == test.labels).double()
    assert min(float(right[test.labels == k].mean()) for k in (0, 1)) > 0.7


def test_compiled_passes_give_the_same_network():
    found = {}
    for wanted in (False, True):
        model = small().to(GPU)
        settings = Train(steps=30, batch=32, compile=wanted, learning_rate=0.02)
        fit(model, toy(200, 0), toy(12, 1, 0.5), load_method("uniform"), settings)
        found[wanted] = model.cpu().state_dict()
    for name, value in found[False].items():
        torch.testing.assert_close(found[True][name], value, rtol=1e-3, atol=1e-4, msg=name)


NETWORKS = {
    "patchnet": lambda dropout: PatchNet(2, 8, 2, width=6, dropout=dropout),
    "resnet20": lambda _: make_network("resnet20", 2, 8, 2),
}


@pytest.mark.parametrize("method", ["uniform", "tdr", "tdr_faithful", "fine_tune_last_layer"])
@pytest.mark.parametrize("network", NETWORKS)
def test_replayed_passes_give_the_same_network(method, network):
    found = {}
    for wanted in (False, True):
        torch.manual_seed(0)
        model = NETWORKS[network](0.0).to(GPU)
        settings = {"steps": 30, "learning_rate": 0.01, "cuda_graph": wanted}
        run(None, method, model, s=settings)
        assert "forward" not in vars(model)
        found[wanted] = model.cpu().state_dict()
    for name, value in found[False].items():
        torch.testing.assert_close(found[True][name], value, rtol=1e-2, atol=1e-3, msg=name)


def test_replayed_passes_draw_a_new_dropout_each_time_and_resume(tmp_path):
    def fresh():
        torch.manual_seed(0)
        return NETWORKS["patchnet"](0.5).to(GPU)

    model, like = fresh(), torch.ones(16, 2, 8, 8, device=GPU)
    with replayed(model, like, "float32"):
        first, second = model(like).clone(), model(like).clone()
    assert not torch.allclose(first, second)
    graph = {"cuda_graph": True, "precision": "bfloat16"}
    whole, _ = run(tmp_path / "whole", "tdr", fresh(), s=graph)
    folder = tmp_path / "parts"
    run(folder, "tdr", fresh(), s=graph)
    (folder / "checkpoints" / "step_000000060.safetensors").unlink()
    resumed, _ = run(folder, "tdr", fresh(), resume=True, s=graph)
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(
            resumed.state_dict()[name], value, rtol=1e-2, atol=1e-3, msg=name
        )


def test_probabilities_are_those_of_the_cpu(tiny_store):
    from data_pipelines.store import open_store

    store = open_store(tiny_store)
    torch.manual_seed(0)
    model = PatchNet(store.sizes["variable"], 8, 2, width=6)
    wanted, labels = class_probabilities(model, store, "test")
    got, same = class_probabilities(model.to(GPU), store, "test")
    np.testing.assert_array_equal(same, labels)
    np.testing.assert_allclose(got, wanted, atol=1e-5)
