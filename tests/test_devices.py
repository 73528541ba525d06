import copy
from contextlib import contextmanager, nullcontext
from dataclasses import replace

import pytest
import torch
from test_hypergradient import losses, problem, relative
from test_train import run, toy
from torch import nn

from data_pipelines.errors import InputError
from weather_tdr import data, devices
from weather_tdr import train as train_module
from weather_tdr.data import StoredSamples, load_split, positions, samples_to_train
from weather_tdr.devices import autocast, fits, pick_device
from weather_tdr.methods.hypergradient import hypergradient
from weather_tdr.methods.method import load_method
from weather_tdr.methods.per_sample import MetaWeightNet
from weather_tdr.methods.tdr import Tdr
from weather_tdr.models import PatchNet
from weather_tdr.train import Train, fit


def test_auto_takes_a_gpu_where_there_is_one(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device("auto") == pick_device("cpu") == torch.device("cpu")
    with pytest.raises(InputError, match=r"of this machine \(cpu\), got cuda"):
        pick_device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [pick_device("auto", turn).index for turn in range(3)] == [0, 1, 0]
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1000, 4000))
    assert fits(500, torch.device("cuda", 0)) and not fits(501, torch.device("cuda", 0))


BOUND = 0.05  # of the hypergradient's length, in bfloat16


@pytest.mark.parametrize("way", ["per_group", "forward_mode"])
@pytest.mark.parametrize("name", ["patchnet", "lenet", "convnet", "resnet20"])
def test_accuracy_in_bfloat16(name, way):
    """Against double backpropagation in float64."""
    model, batch, target, weights = problem(name)
    other = copy.deepcopy(model).float()
    arguments = {"loss": losses, "learning_rate": 0.05}
    wanted = hypergradient(model, batch, target, weights, way="double_backward", **arguments)
    batch, target = (data.Batch(b.patches.float(), b.labels, b.groups) for b in (batch, target))
    with autocast(torch.device("cpu"), "bfloat16"):
        got = hypergradient(other, batch, target, weights.float(), way=way, **arguments)
    assert 1e-5 < relative(got.value.double(), wanted.value) < BOUND


@pytest.mark.parametrize("method", ["tdr", "learning_to_reweight"])
def test_training_in_bfloat16_learns(method):
    model, _ = run(None, method, s={"steps": 300, "precision": "bfloat16"})
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    test = toy(500, 9)
    right = (model(test.patches).argmax(1) == test.labels).double()
    assert min(float(right[test.labels == k].mean()) for k in (0, 1)) > 0.7


AT_ONCE = Tdr(settings=replace(load_method("tdr").tdr, start=0.0, finish=0.3))


# Of 21 steps, two move the weights where they move from the first. Where a forward-mode pass
# follows, the batch's own must draw the same dropout, and is not compiled either.
@pytest.mark.parametrize(
    ("method", "count"),
    [("uniform", 21), (AT_ONCE, 19), ("learning_to_reweight", 0), ("meta_weight_net", 0)],
)
def test_ordinary_passes_are_compiled_and_extra_ones_are_not(monkeypatch, method, count):
    passes = {"compiled": 0}

    def backend(graph, _):
        def forward(*arguments):
            passes["compiled"] += 1
            return graph.forward(*arguments)

        return forward

    monkeypatch.setattr(
        nn.Module, "compile", lambda self: nn.Module_compile(self, backend=backend), raising=True
    )
    results = {}
    for wanted in (False, True):
        torch.manual_seed(0)
        model = PatchNet(2, 8, 2, width=4, dropout=0.0)
        settings = Train(steps=21, batch=32, compile=wanted, checkpoint_every=10)
        fit(model, toy(200, 0), toy(12, 1, 0.5), method, settings, validate=lambda m: 0.5)
        results[wanted] = model.state_dict()
        assert model._compiled_call_impl is None
    assert passes["compiled"] == count
    for name, value in results[False].items():
        torch.testing.assert_close(results[True][name], value)


nn.Module_compile = nn.Module.compile


@pytest.mark.parametrize(
    ("method", "count"),
    [("uniform", 21), (AT_ONCE, 19), ("learning_to_reweight", 0), ("fine_tune_target", 10)],
)
def test_ordinary_passes_are_replayed_and_extra_ones_are_not(monkeypatch, method, count):
    """A graph that is none: it counts. Fine-tuning has batches of another size."""
    passes = []

    @contextmanager
    def replayed(model, example, precision):
        plain = model.forward
        assert example.shape == (32, 2, 8, 8)

        def recorded(inputs):
            passes.append(len(inputs))
            return plain(inputs)

        model.forward = devices.Replay(plain, recorded, model, example)
        yield
        del model.forward

    def faster(model, example, precision, compiles, replays):
        return replayed(model, example, precision) if replays else nullcontext()

    monkeypatch.setattr(train_module, "faster", faster)
    results = {}
    for wanted in (False, True):
        torch.manual_seed(0)
        model = PatchNet(2, 8, 2, width=4, dropout=0.0)
        settings = Train(steps=21, batch=32, cuda_graph=wanted, checkpoint_every=10)
        fit(model, toy(200, 0), toy(12, 1, 0.5), method, settings, validate=lambda m: 0.5)
        results[wanted] = model.state_dict()
    assert passes == [32] * count
    for name, value in results[False].items():
        assert torch.equal(results[True][name], value), name


WAYS = ("per_group", "forward_mode", "double_backward", "finite_difference")
STEERED = {way: Tdr(settings=replace(AT_ONCE.settings, hypergradient=way)) for way in WAYS}


def stand_in(monkeypatch, passes, during=lambda model: None):
    """Recording without a GPU: passes must see the network's own parameters and buffers."""

    def record(model, arguments, allow_unused_input):
        plain = model.forward
        own = [id(t) for t in (*model.parameters(), *model.buffers())]
        plain(*arguments)  # torch warms up, which moves running statistics
        during(model)

        def recorded(inputs):
            assert own == [id(t) for t in (*model.parameters(), *model.buffers())]
            passes.append(len(inputs))
            return plain(inputs)

        model.forward = recorded

    def faster(model, example, precision, compiles, replays):
        return devices.replayed(model, example, precision) if replays else nullcontext()

    monkeypatch.setattr(torch.cuda, "make_graphed_callables", record)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: None)
    monkeypatch.setattr(train_module, "faster", faster)


@pytest.mark.parametrize(
    ("method", "count"),
    [("uniform", 21), *((STEERED[way], 19) for way in WAYS), ("meta_weight_net", 0)],
)
def test_no_extra_pass_goes_through_the_graph(monkeypatch, method, count):
    """Target and batch have the size that was recorded; with BatchNorm and dropout."""
    passes, found = [], {}
    stand_in(monkeypatch, passes)
    for wanted in (False, True):
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Tanh(), nn.Flatten(), nn.Dropout(0.2),
            nn.Linear(144, 2),
        )  # fmt: skip
        settings = Train(steps=21, batch=32, cuda_graph=wanted, checkpoint_every=10)
        fit(model, toy(200, 0), toy(32, 1, 0.5), method, settings, validate=lambda m: 0.5)
        assert "forward" not in vars(model)
        found[wanted] = model.state_dict()
    assert passes == [32] * count
    for name, value in found[False].items():
        assert torch.equal(found[True][name], value), name


@pytest.mark.parametrize("error", [RuntimeError("no capture\nof this"), AssertionError()])
def test_what_cannot_be_recorded_is_told(monkeypatch, error):
    def fail(model):
        raise error

    stand_in(monkeypatch, [], fail)
    settings = Train(steps=5, batch=32, cuda_graph=True)
    told = "no capture" if str(error) else "AssertionError"
    with pytest.raises(InputError, match=rf"cannot be recorded \({told}\)"):
        fit(PatchNet(2, 8, 2, width=4), toy(200, 0), toy(12, 1, 0.5), "uniform", settings)

    def anew(model):
        model.register_buffer("mean", torch.zeros(3))

    stand_in(monkeypatch, [], anew)
    with pytest.raises(InputError, match="makes buffers anew"):
        fit(PatchNet(2, 8, 2, width=4), toy(200, 0), toy(12, 1, 0.5), "uniform", settings)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    with pytest.raises(InputError, match="for a network on the current GPU"):
        fit(PatchNet(2, 8, 2, width=4), toy(200, 0), toy(12, 1, 0.5), "uniform", settings)


def test_a_graph_is_for_one_shape_type_and_mode_of_every_layer():
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4))
    like = torch.zeros(8, 2, 5, 5)
    forward = devices.Replay(lambda _: "plain", lambda _: "recorded", model, like)
    assert forward(like + 1.0) == "recorded"
    assert forward(like[:7]) == forward(like.double()) == "plain"
    with torch.no_grad():
        assert forward(like) == "plain"
    with devices.evaluating(model):
        assert forward(like) == "plain"
    model[1].eval()
    assert forward(like) == "plain"
    model[1].train()
    model.forward = forward
    with devices.eager(model):
        assert forward(like) == "plain"
    assert forward(like) == "recorded"


def test_without_a_gpu_a_graph_changes_nothing_and_with_a_compiler_it_is_refused():
    settings = {"steps": 5, "batch": 32}
    networks = []
    for wanted in (False, True):
        torch.manual_seed(0)
        model = PatchNet(2, 8, 2, width=4)
        fit(model, toy(200, 0), toy(12, 1, 0.5), "tdr", Train(**settings, cuda_graph=wanted))
        networks.append(model.state_dict())
    assert all(torch.equal(value, networks[1][name]) for name, value in networks[0].items())
    with pytest.raises(InputError, match="must not both be true"):
        Train(compile=True, cuda_graph=True)


def test_samples_that_do_not_fit_stay_in_the_store_and_give_the_same_network(
    tiny_store, monkeypatch
):
    from data_pipelines.store import open_store

    store = open_store(tiny_store)
    networks = {}
    for free in (2**40, 10**6):
        monkeypatch.setattr(
            data.psutil, "virtual_memory", lambda f=free: type("M", (), {"available": f})
        )
        train, target = samples_to_train(store)
        assert isinstance(train, StoredSamples) == (free < 2**40)
        torch.manual_seed(0)
        model = PatchNet(store.sizes["variable"], 8, 2, width=6, dropout=0.0)
        fit(model, train, target, "tdr", Train(steps=30, batch=32))
        networks[free] = model.state_dict()
    for name, value in networks[2**40].items():
        assert torch.equal(networks[10**6][name], value), name
    with pytest.raises(InputError, match="both be in memory"):
        fit(model, train, target[torch.arange(len(target))], "tdr", Train(steps=3))
    assert len(train) == len(positions(store, "train"))


def test_what_memory_cannot_hold_goes_to_a_gpu_that_can(tiny_store, monkeypatch):
    """The device "meta" stands for a GPU: shapes without values."""
    from data_pipelines.store import open_store

    store = open_store(tiny_store)
    monkeypatch.setattr(data, "FREE_SHARE", 0.0)
    gpu = torch.device("meta")
    asked = []
    monkeypatch.setattr(
        data, "fits", lambda size, device: bool(asked.append(size)) or len(asked) < 2
    )
    train, target = samples_to_train(store, gpu)
    both = [load_split(store, name) for name in ("train", "target")]
    assert asked == [2 * sum(b.patches.nbytes for b in both)]
    for got, wanted in zip((train, target), both, strict=True):
        assert got.patches.is_meta and got.patches.shape == wanted.patches.shape
        assert torch.equal(got.labels, wanted.labels) and torch.equal(got.groups, wanted.groups)
    assert isinstance(samples_to_train(store, gpu)[0], StoredSamples)  # too small


def test_meta_weight_net_weighs_in_full_precision():
    rule = MetaWeightNet(0.1)
    losses = torch.rand(500)
    with autocast(torch.device("cpu"), "bfloat16"):
        weights = rule._values(losses)
    assert torch.equal(weights, rule.net(losses[:, None])[:, 0])
