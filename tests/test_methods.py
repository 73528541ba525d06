import copy

import pytest
import torch
from test_hypergradient import problem
from torch import nn

from data_pipelines.errors import InputError
from weather_tdr.data import Batch
from weather_tdr.methods.hypergradient import hypergradient
from weather_tdr.methods.losses import cross_entropy as plain_loss
from weather_tdr.methods.method import Method, load_method, names
from weather_tdr.methods.per_sample import LearningToReweight, MetaWeightNet
from weather_tdr.methods.tdr import Tdr, TdrSettings

ETA, L2 = 0.05, 2e-3


def tdr(weights, **settings):
    return Tdr(3, ETA, TdrSettings(**settings), plain_loss, L2, weights=weights)


@pytest.mark.parametrize("lag", [False, True])
@pytest.mark.parametrize("name", ["linear", "patchnet", "lenet", "resnet20"])
def test_a_step_moves_weights_and_params_as_the_equations_say(name, lag):
    model, batch, target, _ = problem(name)
    before = torch.tensor([0.2, 0.5, 0.3]).double()
    rule = tdr(before.clone(), alpha=5.0, every=1, target_l2=True, lag=lag)
    found = hypergradient(
        copy.deepcopy(model), batch, target, before, loss=plain_loss, learning_rate=ETA, l2=L2,
        target_l2=L2, way="double_backward",
    )  # fmt: skip
    wanted = (before - 5.0 * found.value).clamp(0, 100)
    wanted = wanted / wanted.sum()
    plain = copy.deepcopy(model)
    value = rule.step(model, batch, target)
    torch.testing.assert_close(rule.weights, wanted, rtol=1e-12, atol=0)
    used = before if lag else wanted
    inner = (used[batch.groups] * plain_loss(plain(batch.patches), batch.labels)).mean()
    torch.testing.assert_close(value, inner.detach())
    flat = torch.autograd.grad(inner, list(plain.parameters()))
    for (k, p), g in zip(model.named_parameters(), flat, strict=True):
        torch.testing.assert_close(p.grad, g, rtol=1e-11, atol=1e-12, msg=k)


def test_exponentiated_and_normalised_updates_by_hand():
    for update in ("exponentiated", "normalised"):
        model, batch, target, _ = problem("linear")
        before = torch.tensor([0.2, 0.5, 0.3]).double()
        rule = tdr(before, update=update, alpha=0.3, every=1, floor=0.1, average=0.25)
        found = hypergradient(
            copy.deepcopy(model), batch, target, before, loss=plain_loss, learning_rate=ETA, l2=L2
        )
        slope = found.value / ETA
        if update == "normalised":  # the first step: the mean is the slope itself
            slope = slope / slope.norm()
        moved = before * torch.exp(-0.3 * slope)
        moved = moved / moved.sum()  # the floor of 0.1 / 3 does not bind
        rule.step(model, batch, target)
        torch.testing.assert_close(rule.weights, 0.25 * before + 0.75 * moved, rtol=1e-6, atol=0)


def test_the_floor_binds_only_below_it_and_nothing_runs_away_beneath_it():
    """From equal weights: 200 moves one way end at the floor, and a few moves back leave it."""
    rule = tdr(torch.full((3,), 1 / 3).double(), update="exponentiated", alpha=0.1, floor=0.03)
    free = rule._floored(torch.tensor([0.2, 0.5, 0.3]).double())
    torch.testing.assert_close(free, torch.tensor([0.2, 0.5, 0.3]).double())
    away = torch.tensor([1.0, 0.0, -1.0]).double() * ETA
    for _ in range(200):
        rule.weights = rule._floored(rule._exponentiated(away))
        assert float(rule.weights.sum()) == pytest.approx(1.0)
    assert rule.weights.min() == pytest.approx(0.01)
    for _ in range(5):
        rule.weights = rule._floored(rule._exponentiated(-away))
    assert rule.weights[0] > 0.015


def test_pull_brings_weights_back_when_nothing_steers():
    rule = tdr(torch.tensor([0.98, 0.01, 0.01]).double(), update="normalised", pull=0.1)
    rule.moves = 1
    for _ in range(200):
        rule.weights = rule._normalised(torch.zeros(3).double())
    torch.testing.assert_close(rule.weights, torch.full((3,), 1 / 3).double(), rtol=1e-3, atol=0)


@pytest.mark.parametrize("update", ["projected", "exponentiated", "normalised"])
@pytest.mark.parametrize("alpha", [1.0, 1e6])
def test_weights_stay_on_the_simplex_and_move_only_in_their_turn(update, alpha):
    model, batch, target, _ = problem("linear")
    rule = Tdr(3, ETA, TdrSettings(update=update, alpha=alpha, every=4, floor=0.06))
    seen = []
    for _ in range(9):
        model.zero_grad()
        rule.step(model, batch, target)
        assert rule.weights.min() >= 0.02 - 1e-6
        assert float(rule.weights.sum()) == pytest.approx(1.0)
        seen.append(rule.weights.clone())
    for step in range(1, 9):
        assert step % 4 == 0 or torch.equal(seen[step], seen[step - 1])
    assert alpha > 1 or len({tuple(s.tolist()) for s in seen}) > 1


def test_start_keeps_the_weights_equal_until_its_step():
    model, batch, target, _ = problem("linear")
    rule = Tdr(3, ETA, TdrSettings(every=1, start=0.5), steps_in_all=8)
    for step in range(8):
        model.zero_grad()
        rule.step(model, batch, target)
        assert (len(set(rule.weights.tolist())) == 1) == (step < 4)


def test_steering_finds_the_group_that_the_target_is_like():
    """Two groups with opposite labels; the target agrees with the second: it gets the weight."""
    torch.manual_seed(0)
    for realise in ("loss", "shares", "split"):
        x = torch.randn(400, 5)
        group = torch.arange(400) % 2
        label = ((x[:, 0] > 0).long() + (group == 0)) % 2
        target_x = torch.randn(20, 5)
        target = Batch(target_x, (target_x[:, 0] > 0).long(), torch.arange(20) % 2)
        model = nn.Linear(5, 2)
        rule = Tdr(2, 0.5, TdrSettings(update="normalised", every=1, realise=realise, alpha=0.1))
        for step in range(60):
            index = torch.arange(400)[step % 5 :: 5]
            model.zero_grad()
            rule.step(model, Batch(x[index], label[index], group[index]), target)
            with torch.no_grad():
                for p in model.parameters():
                    p -= 0.5 * p.grad
        assert rule.weights[1] > 0.8


def test_state_of_tdr_is_all_of_it():
    model, batch, target, _ = problem("linear")
    model = model.float()
    batch, target = (Batch(b.patches.float(), b.labels, b.groups) for b in (batch, target))
    settings = TdrSettings(update="normalised", every=1, alpha=0.2, pull=0.01, average=0.5)
    one = Tdr(3, ETA, settings)
    for _ in range(5):
        one.step(model, batch, target)
    two = Tdr(3, ETA, settings)
    two.restore(one.state())
    for rule in (one, two):
        for _ in range(3):
            model.zero_grad()
            rule.step(model, batch, target)
    assert torch.equal(one.weights, two.weights)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"alpha": 0.0}, "must be positive"),
        ({"floor": 1.0}, "`tdr.floor`"),
        ({"pull": 0.1}, "acts on logits"),
        ({"finish": -0.1}, "`tdr.finish`"),
    ],
)
def test_bad_tdr_settings(settings, words):
    with pytest.raises(InputError, match=words):
        TdrSettings(**settings)


def test_bad_tdr_input():
    with pytest.raises(InputError, match="at least two groups"):
        Tdr(1, ETA)
    model, batch, target, _ = problem("linear")
    with pytest.raises(InputError, match="at least two groups"):
        Tdr().step(model, batch, target)
    with pytest.raises(InputError, match="`learning_rate` must be positive"):
        Tdr(3).step(model, batch, target)
    with pytest.raises(InputError, match="must be given the optimiser"):
        Tdr(3, ETA, TdrSettings(lookahead="optimizer")).step(model, batch, target)
    with pytest.raises(InputError, match="`steps_in_all` must be positive"):
        Tdr(3, ETA, TdrSettings(start=0.5)).step(model, batch, target)
    broken = Batch(target.patches * float("nan"), target.labels, target.groups)
    for rule in (Tdr(3, ETA), LearningToReweight(), MetaWeightNet(ETA)):
        with pytest.raises(InputError, match="target loss must be finite"):
            rule.step(model, batch, broken)
    with pytest.raises(InputError, match="groups of the batch must be 0 to 1, got 0 to 2"):
        Tdr(2, ETA).step(model, batch, target)
    shifted = Batch(target.patches, target.labels, target.groups - 1)
    with pytest.raises(InputError, match="groups of the target must be 0 to 2, got -1 to -1"):
        Tdr(3, ETA).step(model, batch, shifted)


# --- a weight a sample -------------------------------------------------------------------------


def test_learning_to_reweight_against_its_algorithm_by_double_backpropagation():
    """Algorithm 1: weights of zero, one virtual step, minus the derivative, rectified, summed."""
    for name in ("lenet", "resnet20"):
        model, batch, target, _ = problem(name)
        other = copy.deepcopy(model)
        params = dict(other.named_parameters())
        eps = torch.zeros(14, dtype=torch.float64, requires_grad=True)
        losses = plain_loss(other(batch.patches), batch.labels)
        grads = torch.autograd.grad((eps * losses).sum(), list(params.values()), create_graph=True)
        ahead = {k: p - ETA * g for (k, p), g in zip(params.items(), grads, strict=True)}
        other.eval()
        outer = plain_loss(
            torch.func.functional_call(other, ahead, (target.patches,)), target.labels
        ).mean()
        weights = (-torch.autograd.grad(outer, eps)[0]).clamp(min=0)
        weights = weights / weights.sum()
        rule = LearningToReweight()
        value = rule.step(model, batch, target)
        torch.testing.assert_close(rule.last[0] / 14, weights, rtol=1e-12, atol=1e-15)
        torch.testing.assert_close(value, (weights * losses).sum().detach())


def test_meta_weight_net_moves_theta_as_double_backpropagation_says():
    model, batch, target, _ = problem("lenet")
    rule = MetaWeightNet(ETA, l2=L2)
    rule.net.double()
    net = copy.deepcopy(rule.net)
    params = dict(model.named_parameters())
    losses = plain_loss(model(batch.patches), batch.labels)
    values = net(losses.detach()[:, None])[:, 0]
    inner = (values / values.sum() * losses).sum()
    inner = inner + L2 / 2 * sum((p**2).sum() for p in params.values())
    grads = torch.autograd.grad(inner, list(params.values()), create_graph=True)
    ahead = {k: p - ETA * g for (k, p), g in zip(params.items(), grads, strict=True)}
    model.eval()
    outer = plain_loss(
        torch.func.functional_call(model, ahead, (target.patches,)), target.labels
    ).mean()
    model.train()
    wanted = torch.autograd.grad(outer, list(net.parameters()))
    rule.step(model, batch, target)
    for p, g in zip(rule.net.parameters(), wanted, strict=True):
        torch.testing.assert_close(p.grad, g, rtol=1e-11, atol=1e-16)


# --- methods -------------------------------------------------------------------------------------


def test_every_shipped_method_loads():
    wanted = """uniform inverse_frequency class_balanced balanced_sampling deferred_reweighting
        focal ldam_drw logit_adjustment balanced_softmax merge_target fine_tune_target
        fine_tune_last_layer learning_to_reweight meta_weight_net tdr tdr_faithful"""
    assert set(wanted.split()) <= set(names())
    for name in names():
        method = load_method(name)
        assert method.name == name and method.data
    faithful = load_method("tdr_faithful").tdr
    assert (faithful.update, faithful.alpha, faithful.every) == ("projected", 0.1, 10)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"weighting": "tdr"}, "steers nothing unless"),
        ({"target": "steer"}, "needs a weighting that it steers"),
        ({"sampling": "balanced", "weighting": "inverse_frequency"}, "correct twice"),
        ({"loss": "balanced_softmax", "sampling": "balanced"}, "correct twice"),
        ({"loss": "logit_adjustment", "weighting": "class_balanced"}, "correct twice"),
        ({"deferred": 0.5}, "nothing to defer"),
        (
            {"weighting": "class_balanced", "target": "fine_tune", "deferred": 0.8},
            "never act",
        ),
        ({"target": "fine_tune", "fine_tune_share": 0.0}, "`fine_tune_share` above 0"),
        ({"fine_tune_layers": "last"}, "act only with `target: fine_tune`"),
        ({"tdr": TdrSettings(alpha=0.5)}, "act only with `weighting: tdr`"),
        (
            {"weighting": "tdr", "target": "steer", "sampling": "balanced",
             "tdr": TdrSettings(realise="shares")},
            "fixes the shares",
        ),
    ],
)  # fmt: skip
def test_contradictions_are_refused_with_the_reason(values, reason):
    with pytest.raises(InputError, match=f"contradicts itself.*{reason}"):
        Method("mine", **values)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("weightin: tdr", "Did you mean `weighting`"),
        ("weighting: tdrr", "weighting.*tdrr"),
        ("weighting: tdr\ntarget: steer\ntdr: {alpa: 1.0}", "Did you mean `tdr.alpha`"),
        ("weighting: tdr\ntarget: steer\ntdr: {every: often}", "tdr.every"),
        (
            "weighting: tdr\ntarget: steer\ntdr: {start: 0.6, finish: 0.4}",
            "must leave steps between",
        ),
        ("deferred: true", "deferred"),
        ("- a", "must hold keys and values"),
        ("a: [", "is no YAML"),
    ],
)
def test_bad_method_files(tmp_path, text, words):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=words):
        load_method(str(path))
    with pytest.raises(InputError, match="no such file"):
        load_method(str(tmp_path / "none.yaml"))
