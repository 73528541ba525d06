"""Every fast path against double backpropagation in float64, and against a closed form."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, mse_loss

from data_pipelines.errors import InputError
from weather_tdr.data import Batch
from weather_tdr.methods.hypergradient import (
    combine,
    double_backward,
    forward_mode,
    group_gradients,
    look_ahead,
    target_gradient,
    trainable,
)
from weather_tdr.methods.tdr import Tdr
from weather_tdr.models import PatchNet

ETA, L2 = 0.05, 2e-3


def losses(logits, labels):
    return cross_entropy(logits, labels, reduction="none")


def convolutional(norm: bool) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 4, 3),
        nn.BatchNorm2d(4) if norm else nn.Identity(),
        nn.Tanh(),
        nn.Flatten(),
        nn.Linear(4 * 36, 2),
    )


MODELS = {
    "linear": lambda: nn.Sequential(nn.Flatten(), nn.Linear(2 * 64, 2)),
    "patchnet": lambda: PatchNet(2, 8, 2, width=4, dropout=0.0),
    "convolutional": lambda: convolutional(False),
    "batchnorm": lambda: convolutional(True),
}


def problem(name, groups=3, empty=None, seed=0):
    torch.manual_seed(seed)
    model = MODELS[name]().double().train()
    n = 14
    group = torch.arange(n) % groups
    if empty is not None:
        group[group == empty] = (empty + 1) % groups
    batch = Batch(torch.randn(n, 2, 8, 8).double(), torch.randint(0, 2, (n,)), group)
    target = Batch(torch.randn(6, 2, 8, 8).double(), torch.randint(0, 2, (6,)), torch.zeros(6))
    weights = torch.rand(groups).double()
    return model, batch, target, weights / weights.sum()


def fast(model, batch, target, weights, way):
    """The hypergradient by one of the fast paths, put together from their parts."""
    if way == "per_group":
        parts, _ = group_gradients(model, batch, batch.groups, len(weights), losses)
        inner = combine(parts, weights, trainable(model))
    else:
        other = copy.deepcopy(model)  # a plain forward would move the running statistics
        value = (weights[batch.groups] * losses(other(batch.patches), batch.labels)).mean()
        flat = torch.autograd.grad(value, list(other.parameters()))
        inner = dict(zip(trainable(model), flat, strict=True))
    ahead = look_ahead(trainable(model), inner, ETA, L2)
    v, _ = target_gradient(model, ahead, target, losses, L2)
    if way == "forward_mode":
        return -ETA * forward_mode(model, batch, batch.groups, len(weights), losses, v)
    slopes = [
        sum(((g[k] * v[k]).sum() for k in v), torch.zeros(())) if g else torch.zeros(())
        for g in parts
    ]
    return -ETA * torch.stack(slopes)


@pytest.mark.parametrize("empty", [None, 1])
@pytest.mark.parametrize(
    ("name", "way"),
    [(n, "forward_mode") for n in MODELS] + [(n, "per_group") for n in MODELS if n != "batchnorm"],
)
def test_exact_against_double_backpropagation(name, way, empty):
    model, batch, target, weights = problem(name, empty=empty)
    if name == "batchnorm":
        model(batch.patches)  # so that evaluation mode differs from training mode
    wanted = double_backward(model, batch, batch.groups, weights, target, losses, ETA, L2)
    got = fast(model, batch, target, weights, way)
    scale = wanted.abs().max()
    assert scale > 1e-8
    assert (got - wanted).abs().max() / scale < 1e-12
    if empty is not None:
        assert got[empty] == 0


@pytest.mark.parametrize("name", list(MODELS))
def test_a_step_of_tdr_moves_weights_and_params_as_the_equations_say(name):
    model, batch, target, _ = problem(name)
    rule = Tdr(3, ETA, alpha=5.0, every=1, l2=L2, weights=torch.tensor([0.2, 0.5, 0.3]).double())
    before = rule.weights.clone()
    state = {k: t.clone() for k, t in model.state_dict().items()}
    # The target pass sees the running statistics after this batch's forward pass.
    after = copy.deepcopy(model)
    after(batch.patches)
    slope = double_backward(after, batch, batch.groups, before, target, losses, ETA, L2)
    wanted = (before - 5.0 * slope).clamp(0, 100)
    wanted = wanted / wanted.sum()
    value = rule.step(model, batch, batch.groups, target, losses, 0)
    torch.testing.assert_close(rule.weights, wanted, rtol=1e-10, atol=0)
    grads = {k: p.grad.clone() for k, p in model.named_parameters()}
    model.load_state_dict(state)
    plain = (wanted[batch.groups] * losses(model(batch.patches), batch.labels)).mean()
    torch.testing.assert_close(value, plain.detach())
    for (k, _p), g in zip(
        model.named_parameters(), torch.autograd.grad(plain, list(model.parameters())), strict=True
    ):
        torch.testing.assert_close(grads[k], g, msg=k)


def test_running_statistics_move_once_a_step():
    model, batch, target, _ = problem("batchnorm")
    alone = convolutional(True).double().train()
    alone.load_state_dict(model.state_dict())
    Tdr(3, ETA, every=1).step(model, batch, batch.groups, target, losses, 0)
    alone(batch.patches)
    for name, buffer in alone.named_buffers():
        torch.testing.assert_close(dict(model.named_buffers())[name], buffer)


def test_closed_form_of_a_quadratic_problem():
    """Scalar p, l_i = (p - a_i)^2, target (p - t)^2: everything by hand."""
    a, t, p0 = torch.tensor([1.0, 3.0]).double(), 2.5, 0.5
    model = nn.Linear(1, 1, bias=False).double()
    nn.init.constant_(model.weight, p0)
    w = torch.tensor([0.3, 0.7]).double()

    def square(outputs, labels):
        return mse_loss(outputs[:, 0], labels, reduction="none")

    one = torch.ones(2, 1).double()
    batch = Batch(one, a, torch.tensor([0, 1]))
    target = Batch(one[:1], torch.tensor([t]).double(), torch.zeros(1))
    slopes = 2 * (p0 - a)
    ahead = p0 - ETA * (w * slopes).sum() / 2
    wanted = -ETA / 2 * slopes * 2 * (ahead - t)
    got = double_backward(model, batch, batch.groups, w, target, square, ETA)
    torch.testing.assert_close(got, wanted, rtol=1e-14, atol=0)
    rule = Tdr(2, ETA, alpha=0.1, every=1, l2=0.0, weights=w)
    rule.step(model, batch, batch.groups, target, square, 0)
    torch.testing.assert_close(rule.hypergradient, wanted, rtol=1e-14, atol=0)


def test_weights_stay_on_the_simplex_and_move_only_in_their_turn():
    model, batch, target, _ = problem("linear")
    rule = Tdr(3, ETA, alpha=1.0, every=4)
    seen = []
    for step in range(9):
        rule.step(model, batch, batch.groups, target, losses, step)
        assert rule.weights.min() > 0
        assert rule.weights.sum() == pytest.approx(1.0)
        seen.append(rule.weights.clone())
    for step in range(1, 9):
        assert torch.equal(seen[step], seen[step - 1]) == (step % 4 != 0)


def test_a_huge_step_ends_on_the_simplex():
    model, batch, target, _ = problem("linear")
    rule = Tdr(3, ETA, alpha=1e6, every=1)
    for step in range(5):
        rule.step(model, batch, batch.groups, target, losses, step)
        assert rule.weights.min() >= 0
        assert rule.weights.sum() == pytest.approx(1.0)


def test_bad_input():
    with pytest.raises(InputError, match="at least two groups"):
        Tdr(1, ETA)
    model, batch, target, _ = problem("linear")
    broken = Batch(target.patches * float("nan"), target.labels, target.groups)
    with pytest.raises(InputError, match="target loss must be finite"):
        Tdr(3, ETA).step(model, batch, batch.groups, broken, losses, 0)
