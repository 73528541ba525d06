"""Details of a training that no table of results would show if they were wrong."""

import json

import pytest
import torch
from test_fit_inputs import few
from test_hypergradient import problem
from test_methods import ETA, L2, plain_loss, tdr
from torch import nn

from data_pipelines.errors import InputError
from data_pipelines.image_store import write_image_store
from data_pipelines.images import Images
from weather_tdr.cells import run_cell
from weather_tdr.data import Batch
from weather_tdr.methods.lookahead import look_ahead, trainable
from weather_tdr.methods.method import Method
from weather_tdr.methods.per_sample import MetaWeightNet
from weather_tdr.methods.randomness import Randomness
from weather_tdr.methods.sample_slopes import frozen_buffers, sample_slopes
from weather_tdr.methods.tdr import Tdr, TdrSettings
from weather_tdr.train import Train, fit


def linear():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(32, 2))


def test_three_normalised_moves_by_hand():
    """w <- w exp(-alpha m), m the running mean of h / |h| with memory 0.9, corrected."""
    rule = tdr(torch.tensor([0.2, 0.5, 0.3]).double(), update="normalised", alpha=0.3)
    weights, mean = rule.weights.clone(), torch.zeros(3).double()
    for move in range(1, 4):
        slope = torch.tensor([1.0, -2.0, 0.5 * move]).double()
        mean = 0.9 * mean + 0.1 * slope / slope.norm()
        weights = weights * torch.exp(-0.3 * mean / (1 - 0.9**move))
        weights = weights / weights.sum()
        rule.moves = move
        rule.weights = rule._normalised(slope)
        torch.testing.assert_close(rule.weights, weights, rtol=1e-12, atol=0)


def test_the_projection_of_the_reference_implementation_clips_at_100():
    rule = tdr(torch.tensor([0.2, 0.5, 0.3]).double(), alpha=1.0)
    got = rule._projected(torch.tensor([-1e6, 0.0, 1e6]).double())
    torch.testing.assert_close(got, torch.tensor([100.0, 0.5, 0.0]).double() / 100.5)


def test_split_samples_half_way_and_leaves_the_rest_to_the_loss():
    weights = torch.tensor([0.1, 0.6, 0.3]).double()
    rule = tdr(weights, realise="split")
    half = 0.5 * (weights + 1 / 3)
    torch.testing.assert_close(rule.shares(), half)
    assert tdr(weights, realise="loss").shares() is None
    assert torch.equal(tdr(weights, realise="shares").shares(), weights)


def test_clipping_bounds_the_step():
    """Without momentum and decay a step is the rate times the gradient, at most `clip` long."""
    for clip, longest in ((0.0, None), (0.5, 0.5), (1e9, None)):
        model = linear()
        before = {k: p.detach().clone() for k, p in model.named_parameters()}
        x, y = few(50, 0)
        settings = Train(
            steps=1, batch=50, momentum=0.0, weight_decay=0.0, clip=clip, schedule="constant"
        )
        loss = Tdr(settings=TdrSettings(every=100), loss=lambda a, b: 40 * plain_loss(a, b))
        fit(model, (x, y), few(6, 1), loss, settings)
        moved = [(p.detach() - before[k]).flatten() for k, p in model.named_parameters()]
        length = float(torch.cat(moved).norm()) / settings.learning_rate
        assert length > 2.0 if longest is None else length == pytest.approx(longest, rel=1e-4)


@pytest.mark.parametrize(("wanted", "got"), [(0, 6), (4, 4), (100, 6)])
def test_a_step_sees_so_many_target_samples_as_they_are(monkeypatch, wanted, got):
    """And augmentation changes samples of train only."""
    x, y = few(50, 0)
    target = few(6, 1)
    seen, step = [], Tdr.step

    def noted(self, model, batch, of_target):
        if self.turn:
            seen.append(len(of_target))
            assert all(any(torch.equal(row, t) for t in target[0]) for row in of_target.patches)
            assert not any(torch.equal(row, t) for row in batch.patches for t in x)
        return step(self, model, batch, of_target)

    monkeypatch.setattr(Tdr, "step", noted)
    rule = Tdr(settings=TdrSettings(every=2))
    settings = Train(steps=6, batch=10, target_batch=wanted)
    fit(linear(), (x, y), target, rule, settings, augment=lambda rows, _: rows + 7.0)
    assert seen == [got] * 3


def test_meta_weight_net_looks_ahead_with_weight_decay():
    """The derivative of Theta with L2 in the lookahead is that of double backpropagation."""
    model, batch, target, _ = problem("linear")
    found = []
    for decay in (0.0, 50 * L2):
        torch.manual_seed(1)
        rule = MetaWeightNet(ETA, plain_loss, decay)
        rule.net.double()
        with torch.no_grad():
            weights = rule.net(plain_loss(model(batch.patches), batch.labels)[:, None])[:, 0]
            weights = weights / weights.sum()
        params = trainable(model)
        inner = (weights * plain_loss(model(batch.patches), batch.labels)).sum()
        slopes = torch.autograd.grad(inner, list(params.values()))
        ahead = {k: p - ETA * (g + decay * p) for (k, p), g in zip(params.items(), slopes,
                                                                    strict=True)}  # fmt: skip
        logits = torch.func.functional_call(model, ahead, (target.patches,))
        rule.step(model, batch, target)
        wanted = float(plain_loss(logits, target.labels).mean())
        assert rule.target_loss == pytest.approx(wanted, rel=1e-12)
        found.append(wanted)
    assert found[0] != found[1]


def test_seeds_of_cells_are_other_starts_and_orders(tmp_path):
    """On one and the same set."""
    store = write_image_store(tmp_path / "set.zarr", Images(train_size=60, target_size=6), 0)
    rows = []
    for seed in (0, 1, 1):
        path = tmp_path / f"{len(rows)}.json"
        settings = Train(steps=20, batch=20, learning_rate=0.05)
        run_cell(store, "convnet", settings, "uniform", seed, {}, path)
        rows.append(json.loads(path.read_text()))
    assert rows[1]["roc_auc"] == rows[2]["roc_auc"] != rows[0]["roc_auc"]


def test_forward_mode_is_in_full_precision_under_autocast():
    model, batch, _, _ = problem("lenet")
    model, batch = model.float(), type(batch)(batch.patches.float(), batch.labels, batch.groups)
    v = {k: torch.randn_like(p) for k, p in trainable(model).items()}
    given = (model, batch, plain_loss, v, Randomness.of(model), frozen_buffers(model))
    plain = sample_slopes(*given)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(sample_slopes(*given), plain)


@pytest.mark.parametrize("method", ["tdr", "merge_target", "fine_tune_target"])
def test_a_target_set_with_missing_values_is_refused_before_the_first_step(method):
    x, y = torch.randn(60, 1, 4, 4), torch.arange(60) % 2
    few = torch.randn(6, 1, 4, 4)
    few[3, 0, 1, 1] = float("nan")
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 2))
    start = {k: t.clone() for k, t in network.state_dict().items()}
    with pytest.raises(InputError, match=r"target loss must be finite before.* target 3,.*1 of"):
        fit(network, (x, y), (few, y[:6]), method, Train(steps=20, batch=10))
    assert all(torch.equal(t, start[k]) for k, t in network.state_dict().items())


@pytest.mark.parametrize("size", [1.0, 1e-16, 1e-24, 1e-37])
def test_a_normalised_move_knows_no_size(size):
    slope = torch.tensor([1.0, -0.5, 0.2])
    moved = []
    for factor in (1.0, size):
        rule = tdr(torch.full((3,), 1 / 3), update="normalised")
        rule.moves = 1
        moved.append(rule._normalised(factor * slope))
        torch.testing.assert_close(rule.moment, 0.1 * slope / slope.norm())
    torch.testing.assert_close(*moved)
    rule.moves = 2
    rule._normalised(torch.zeros(3))
    torch.testing.assert_close(rule.moment, 0.09 * slope / slope.norm())


def test_the_history_tells_the_rate_of_fine_tuning():
    recipe = Method("slower", target="fine_tune", fine_tune_rate=0.1)
    settings = Train(steps=6, batch=10, schedule="constant", learning_rate=0.05, log_every=1)
    history = fit(linear(), few(50, 0), few(6, 1), recipe, settings)
    assert history["learning_rate"].tolist() == pytest.approx([0.05] * 3 + [0.005] * 3)


def test_a_loss_of_ones_own_takes_targets_that_are_no_classes():
    x, y = few(50, 0)
    groups = y.clone()
    train = Batch(x, y.float(), groups)
    target = Batch(x[:6] + 1, y[:6].float(), torch.arange(6) % 2)
    bce = nn.functional.binary_cross_entropy_with_logits
    rule = Tdr(loss=lambda logits, labels: bce(logits[:, 1], labels, reduction="none"))
    history = fit(linear(), train, target, rule, Train(steps=20, batch=20))
    assert history["loss"].notna().all()


def test_the_optimisers_lookahead_at_a_rate_of_zero():
    model = linear()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    params = trainable(model)
    slopes = {k: torch.ones_like(p) for k, p in params.items()}
    ahead, factors = look_ahead(params, slopes, 0.0, 0.0, optimizer)
    assert all(torch.equal(ahead[k], p) for k, p in params.items())
    assert factors is not None and all(
        (f == 1).all() for f in map(torch.as_tensor, factors.values())
    )


def test_meta_weight_net_of_a_network_in_half_precision_moves():
    model = linear().bfloat16()
    batch, target = (Batch(b.patches.bfloat16(), b.labels, b.groups)
                     for b in (Batch.of(few(20, 0)), Batch.of(few(6, 1))))  # fmt: skip
    rule = MetaWeightNet(ETA)
    before = [p.detach().clone() for p in rule.net.parameters()]
    rule.step(model, batch, target)
    assert all(p.dtype == torch.float32 for p in rule.net.parameters())
    assert not torch.equal(before[-1], list(rule.net.parameters())[-1])
