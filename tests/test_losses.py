import numpy as np
import pytest
import torch
from test_hypergradient import problem
from torch.nn.functional import cross_entropy

from data_pipelines.errors import InputError
from weather_tdr.methods.losses import (
    balanced_softmax,
    focal,
    ldam,
    logit_adjustment,
    make_loss,
    margin_scale,
    with_cosine_layer,
)
from weather_tdr.methods.losses import cross_entropy as plain_loss
from weather_tdr.methods.static import Static, class_balanced, inverse_frequency, uniform
from weather_tdr.train import Train, fit

ETA, L2 = 0.05, 2e-3


# --- losses ----------------------------------------------------------------------------------


def logits_and_labels(n=40, classes=3):
    torch.manual_seed(0)
    return torch.randn(n, classes).double(), torch.randint(0, classes, (n,))


def test_focal_is_the_formula_and_gamma_0_is_cross_entropy():
    z, y = logits_and_labels()
    p = torch.softmax(z, 1)[torch.arange(len(y)), y]
    torch.testing.assert_close(focal(2.0)(z, y), -((1 - p) ** 2) * torch.log(p))
    torch.testing.assert_close(focal(0.0)(z, y), plain_loss(z, y))


def test_ldam_margins():
    z, y = logits_and_labels()
    counts = torch.tensor([1000, 100, 10])
    margin = 0.5 * (counts.double() / 10) ** -0.25  # C / n^(1/4), the largest 0.5
    shifted = z.clone()
    shifted[torch.arange(len(y)), y] -= margin[y]
    torch.testing.assert_close(ldam(counts)(z, y), cross_entropy(shifted, y, reduction="none"))


def test_ldam_on_a_cosine_layer_is_the_formula_of_the_paper():
    """-log of e^(s (cos_y - D_y)) over itself + sum over j != y of e^(s cos_j), s = 30."""
    torch.manual_seed(1)
    body = torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.Linear(7, 3)).double()
    model = with_cosine_layer(torch.nn.Sequential(body, torch.nn.Identity()))
    x, (_, y) = torch.randn(40, 5).double(), logits_and_labels()
    features, vectors = body[0](x), body[1].weight
    cos = features @ vectors.T / (features.norm(dim=1)[:, None] * vectors.norm(dim=1))
    torch.testing.assert_close(model(x), 30 * cos)
    margin = 0.5 * torch.tensor([100.0, 10.0, 1.0]).double() ** -0.25
    own = torch.exp(30 * (cos[torch.arange(40), y] - margin[y]))
    others = torch.exp(30 * cos).scatter(1, y[:, None], 0.0).sum(1)
    loss = make_loss("ldam", torch.tensor([1000, 100, 10]), margin_scale(model))
    torch.testing.assert_close(loss(model(x), y), -torch.log(own / (own + others)))
    assert margin_scale(body[0]) == 1.0


def test_balanced_softmax_is_its_formula_and_logit_adjustment_with_tau_1():
    z, y = logits_and_labels()
    counts = torch.tensor([1000, 100, 10])
    weighted = counts.double() * torch.exp(z)
    wanted = -torch.log(weighted[torch.arange(len(y)), y] / weighted.sum(1))
    torch.testing.assert_close(balanced_softmax(counts)(z, y), wanted)
    torch.testing.assert_close(logit_adjustment(counts)(z, y), wanted)
    torch.testing.assert_close(logit_adjustment(counts, 0.0)(z, y), plain_loss(z, y))


def test_losses_that_need_every_class():
    for name in ("ldam", "balanced_softmax", "logit_adjustment"):
        with pytest.raises(InputError, match="samples of every class"):
            make_loss(name, torch.tensor([5, 0]))
    with pytest.raises(InputError, match="Did you mean `focal`"):
        make_loss("focl", torch.tensor([5, 5]))


def test_an_output_without_samples():
    """The network has three outputs, train two classes: no prior is known of the third."""
    sets = [(torch.randn(n, 4), torch.arange(n) % 2) for n in (20, 6)]
    for name in ("balanced_softmax", "logit_adjustment"):
        with pytest.raises(InputError, match="2 classes in train and 3 outputs"):
            fit(torch.nn.Linear(4, 3), *sets, name, Train(steps=2, batch=4))


# --- static weights --------------------------------------------------------------------------


def test_static_weights():
    counts = torch.tensor([900, 90, 10])
    weights = inverse_frequency(counts)
    torch.testing.assert_close(weights * counts, torch.full((3,), 1000 / 3))
    assert torch.equal(uniform(counts), torch.ones(3))
    for beta in (0.9, 0.999, 0.9999):
        got = class_balanced(counts, beta)
        assert float((got * counts).sum() / counts.sum()) == pytest.approx(1.0)
        effective = (1 - beta ** counts.double().numpy()) / (1 - beta)  # Cui et al., eq. 2
        product = got.numpy() * effective
        np.testing.assert_allclose(product, product[0], rtol=1e-5)
    torch.testing.assert_close(class_balanced(counts, 0.0), torch.ones(3))
    for rule in (inverse_frequency, class_balanced):
        with pytest.raises(InputError, match="every group"):
            rule(torch.tensor([5, 0]))


def test_deferred_weights_come_in_at_their_step():
    model, batch, _, _ = problem("linear")
    rule = Static(torch.tensor([0.5, 1.0, 4.0]).double(), plain_loss, start=2)
    losses = plain_loss(model(batch.patches), batch.labels).detach()
    for step in range(4):
        model.zero_grad()
        value = rule.step(model, batch)
        wanted = losses.mean() if step < 2 else (rule.weights[batch.groups] * losses).mean()
        torch.testing.assert_close(value, wanted)


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_focal_loss_has_a_gradient_where_the_label_is_certain(gamma):
    logits = torch.tensor([[40.0, 0.0], [0.0, 0.0]], requires_grad=True)
    focal(gamma)(logits, torch.tensor([0, 0])).sum().backward()
    assert torch.isfinite(logits.grad).all() and (logits.grad[0].abs() < 1e-20).all()
    # At even odds: d/dz of (1 - p)^g (-log p), p = 1/2 and dp/dz = 1/4.
    slope = -gamma * 0.5 ** (gamma - 1) * np.log(2) * 0.25 - 0.5**gamma / 0.5 * 0.25
    assert float(logits.grad[1, 0]) == pytest.approx(slope)
