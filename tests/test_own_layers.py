"""Layers that a user brings: compiled, checkpointed, complex, drawing in evaluation mode too."""

import pytest
import torch
from test_any_network import Fourier, Remembering
from test_fit_inputs import few
from test_hypergradient import losses
from test_methods import ETA, plain_loss
from torch import nn
from torch.utils.checkpoint import checkpoint

from data_pipelines.errors import InputError
from data_pipelines.store import open_store
from weather_tdr.checkpoints import load_checkpoint
from weather_tdr.data import Batch
from weather_tdr.devices import eager
from weather_tdr.evaluate import predict
from weather_tdr.methods.hypergradient import hypergradient
from weather_tdr.methods.lookahead import trainable
from weather_tdr.methods.randomness import Randomness
from weather_tdr.methods.sample_slopes import frozen_buffers, sample_slopes
from weather_tdr.methods.tdr import Tdr, TdrSettings
from weather_tdr.optimizers import Average
from weather_tdr.train import Train, fit

EVERY_STEP = Tdr(settings=TdrSettings(every=1, update="normalised"))


def plain() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(32, 16), nn.Tanh(), nn.Linear(16, 2))


class Inside(nn.Module):
    """A network in which a function was compiled by its maker."""

    def __init__(self, network):
        super().__init__()
        self.network = network
        self.through = torch.compile(lambda x: self.network(x), backend="eager")

    def forward(self, x):
        return self.through(x)


@pytest.mark.parametrize("compiled", ["network", "layer", "function"])
def test_extra_passes_are_not_compiled_whoever_compiled_the_network(compiled):
    """A compiler that loses the tangents of forward mode, as torch's own does."""
    calls = []

    def losing(graph, _):
        def run(*inputs):
            calls.append(1)
            return tuple(out.detach() + 0 for out in graph(*inputs))

        return run

    plainly, (x, y) = plain(), few(6, 0)
    v = {k: torch.ones_like(p) for k, p in trainable(plainly).items()}

    def slopes(model, v):
        batch = Batch.of((x, y))
        return sample_slopes(model, batch, losses, v, Randomness.of(model), frozen_buffers(model))

    wanted = slopes(plainly, v)
    if compiled == "network":
        model = torch.compile(plainly, backend=losing)
        v = {f"_orig_mod.{k}": t for k, t in v.items()}
    elif compiled == "layer":
        plainly[1] = torch.compile(plainly[1], backend=losing)
        model, v = plainly, {k.replace("1.", "1._orig_mod."): t for k, t in v.items()}
    else:
        model = Inside(plainly)
        model.through = torch.compile(lambda z: plainly(z), backend=losing)
        v = {f"network.{k}": t for k, t in v.items()}
    with torch.no_grad():
        model(x)
    assert calls  # it is compiled
    assert float(wanted.abs().min()) > 0
    torch.testing.assert_close(slopes(model, v), wanted)
    with eager(model), torch.no_grad():
        before = len(calls)
        model(x)
        assert len(calls) == before


class Checkpointed(nn.Module):
    """Layers whose values are computed anew in the backward pass."""

    def __init__(self, inner, reentrant=False):
        super().__init__()
        self.inner, self.reentrant = inner, reentrant

    def forward(self, x):
        return checkpoint(self.inner, x, use_reentrant=self.reentrant)


def test_activation_checkpointing_changes_no_hypergradient():
    def found(model, way):
        (x, y), (tx, ty) = few(12, 0), few(6, 1)
        return hypergradient(
            model.double(), Batch.of((x.double(), y)), Batch.of((tx.double(), ty)),
            torch.tensor([0.3, 0.7]).double(), loss=plain_loss, learning_rate=0.5, way=way,
        ).value  # fmt: skip

    def network(wrap):
        torch.manual_seed(0)
        parts = nn.Sequential(nn.Linear(32, 16), nn.LayerNorm(16), nn.Tanh(), nn.Dropout(0.2))
        return nn.Sequential(nn.Flatten(), wrap(parts), nn.Linear(16, 2))

    for way in ("per_group", "forward_mode"):
        values = []
        for wrap in (lambda m: m, Checkpointed):
            model = network(wrap)
            torch.manual_seed(1)
            values.append(found(model, way))
        torch.testing.assert_close(values[1], values[0], rtol=1e-10, atol=1e-14)
    last = Checkpointed(nn.Linear(16, 2), reentrant=True)
    model = nn.Sequential(nn.Flatten(), nn.Linear(32, 16), last)
    with pytest.raises(InputError, match="`use_reentrant=False`, got the other"):
        found(model, "per_group")


class Noisy(nn.Module):
    """Draws dropout in evaluation mode too."""

    def __init__(self):
        super().__init__()
        self.out = nn.Linear(32, 2)

    def forward(self, x):
        return self.out(nn.functional.dropout(x.flatten(1), 0.3))


class Stopped(Exception):
    """Ends a training on the way."""


@pytest.mark.parametrize("network", [Noisy, Remembering, Fourier])
def test_any_network_resumes_to_what_it_would_have_been(network, tmp_path):
    """Bit for bit; with the average of its steps, and complex numbers in its checkpoints."""

    def trained(folder, stop=False, resume=False):
        torch.manual_seed(0)
        model = network().double()
        (x, y), (tx, ty) = few(40, 0), few(6, 1)

        def validate(_):
            if stop and (folder / "checkpoints" / "step_000000006.safetensors").exists():
                raise Stopped
            return 0.5

        fit(
            model, (x.double(), y), (tx.double(), ty), EVERY_STEP,
            Train(steps=12, batch=8, checkpoint_every=3, average=0.9),
            folder=folder, validate=validate, resume=resume,
        )  # fmt: skip
        return model.state_dict()

    whole = trained(tmp_path / "whole")
    with pytest.raises(Stopped):
        trained(tmp_path / "stopped", stop=True)
    resumed = trained(tmp_path / "stopped", resume=True)
    assert whole.keys() == resumed.keys()
    for name, value in whole.items():
        assert torch.equal(resumed[name], value), name
    last = [
        tmp_path / k / "checkpoints" / "step_000000012.safetensors" for k in ("whole", "stopped")
    ]
    kept, again = (load_checkpoint(path)[0] for path in last)
    assert all(torch.equal(again[k], v) for k, v in kept.items())


@pytest.mark.parametrize("kind", [torch.complex64, torch.complex128, torch.bfloat16])
def test_complex_and_half_precision_parameters_are_averaged(kind):
    model = nn.Module()
    model.weight = nn.Parameter(torch.ones(3, dtype=kind))
    average, decay = Average(model, 0.999), 0.999
    wanted = torch.ones(3, dtype=torch.complex128)
    for step in range(60):
        value = torch.full((3,), 1.0 + step / 64)  # exact in each of them
        factor = 1 + 0.5j if kind.is_complex else 1
        with torch.no_grad():
            model.weight.copy_((value * factor).to(kind))
        average.update(step)
        keep = min(decay, (step + 1) / (step + 10))
        wanted = keep * wanted + (1 - keep) * model.weight.detach().to(wanted)
    found = average.tensors["weight"].to(wanted)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=0)
    with average.shown():
        torch.testing.assert_close(model.weight.detach().to(wanted), wanted, rtol=5e-3, atol=0)


def test_a_network_of_another_type_is_scored_and_one_of_other_outputs_refused(tiny_store):
    store = open_store(tiny_store)
    points = int(store["patches"][0].size)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(points, 2))
    single = predict(model, store, "test")
    assert single == pytest.approx(predict(model.double(), store, "test"), abs=1e-4)
    for outputs, words in ((1, "two logits, of normal and incident, got 1"), (3, "got 3")):
        with pytest.raises(InputError, match=words):
            predict(nn.Sequential(nn.Flatten(), nn.Linear(points, outputs)), store, "test")
    flat = nn.Sequential(nn.Flatten(), nn.Linear(points, 1), nn.Flatten(0))
    with pytest.raises(InputError, match=r"shape \(n, classes\), got \(\d+,\)"):
        predict(flat, store, "test")


def test_the_decay_of_the_target_loss_is_not_left_out_in_silence():
    (x, y), (tx, ty) = few(12, 0), few(6, 1)
    settings = TdrSettings(every=1, target_l2=True)
    with pytest.raises(InputError, match="`target_l2` needs the weight decay as `l2`"):
        Tdr(2, ETA, settings).step(plain(), Batch.of((x, y)), Batch.of((tx, ty)))
    Tdr(2, ETA, settings, l2=0.01).step(plain(), Batch.of((x, y)), Batch.of((tx, ty)))
