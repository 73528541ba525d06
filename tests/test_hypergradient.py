"""Every way against double backpropagation in float64, and against closed forms."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, mse_loss

from weather_tdr.data import Batch
from weather_tdr.image_models import ConvNet, LeNet5
from weather_tdr.methods.hypergradient import hypergradient, pick
from weather_tdr.methods.lookahead import trainable
from weather_tdr.models import PatchNet
from weather_tdr.resnets import ResNet

ETA, L2 = 0.05, 2e-3


def losses(logits, labels):
    return cross_entropy(logits, labels, reduction="none")


class FixedDropout(nn.Module):
    """Dropout with one mask of the features: the same in every pass in training mode.

    The mask is no buffer, so that batches in parts are tried with it too.
    """

    def __init__(self, features):
        super().__init__()
        self.mask = (torch.rand(features) > 0.5).double() * 2

    def forward(self, x):
        return x * self.mask if self.training else x


class Shared(nn.Module):
    """One block under two names, used twice, and one weight in two layers."""

    def __init__(self):
        super().__init__()
        self.start = nn.Linear(192, 12)
        self.block = nn.Sequential(nn.Linear(12, 12), nn.Tanh())
        self.again = self.block
        self.tied = nn.Linear(12, 12)
        self.tied.weight = self.start_of_tied = nn.Parameter(torch.randn(12, 12) / 4)
        self.head = nn.Linear(12, 2)

    def forward(self, x):
        x = torch.tanh(self.start(x.flatten(1)) @ self.start_of_tied)
        return self.head(self.tied(self.again(self.block(x))))


MODELS = {
    "linear": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 2)), (3, 8, 8)),
    "patchnet": (lambda: PatchNet(3, 8, 2, width=4, dropout=0.0), (3, 8, 8)),
    "lenet": (lambda: LeNet5(1, 28), (1, 28, 28)),
    "convnet": (lambda: ConvNet(3, 16, 3), (3, 16, 16)),
    "resnet20": (lambda: ResNet(20, 3, 2), (3, 8, 8)),
    "dropout": (
        lambda: nn.Sequential(
            nn.Flatten(), nn.Linear(192, 20), nn.Tanh(), FixedDropout(20), nn.Linear(20, 2)
        ),
        (3, 8, 8),
    ),
    "normalised_dropout": (
        lambda: nn.Sequential(
            nn.Flatten(),
            nn.Linear(192, 20),
            nn.BatchNorm1d(20),
            nn.Tanh(),
            nn.Dropout(0.5),
            nn.Linear(20, 2),
        ),
        (3, 8, 8),
    ),
    "random_dropout": (
        lambda: nn.Sequential(
            nn.Flatten(), nn.Linear(192, 20), nn.Tanh(), nn.Dropout(0.5), nn.Linear(20, 2)
        ),
        (3, 8, 8),
    ),
}
MODELS |= {
    "shared": (lambda: Shared(), (3, 8, 8)),
    "channels_last_dropout": (
        lambda: nn.Sequential(
            nn.Conv2d(3, 4, 1), nn.Tanh(), nn.Dropout(0.5), nn.Conv2d(4, 4, 3), nn.Dropout2d(0.5),
            nn.Flatten(), nn.Linear(144, 2),
        ).to(memory_format=torch.channels_last),
        (3, 8, 8),
    ),
    "running_instances": (
        lambda: nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.InstanceNorm2d(4, affine=True, track_running_stats=True),
            nn.Tanh(), nn.Flatten(), nn.Linear(144, 2),
        ),
        (3, 8, 8),
    ),
    "spectral_norm": (
        lambda: nn.Sequential(
            nn.utils.spectral_norm(nn.Conv2d(3, 4, 3)), nn.Tanh(), nn.Flatten(), nn.Linear(144, 2)
        ),
        (3, 8, 8),
    ),
}  # fmt: skip
OWN_DRAWS = ("random_dropout", "channels_last_dropout")  # each part draws dropout of its own
PER_GROUP = [m for m in MODELS if m not in OWN_DRAWS]


def problem(name, groups=3, kind="groups", seed=0):
    """`kind`: groups that are not the classes, one of them `empty` in the batch, or the classes."""
    torch.manual_seed(seed)
    make, shape = MODELS[name]
    model = make().double().train()
    n = 14
    group = torch.arange(n) % groups
    if kind == "empty":
        group[group == 1] = 2
    patches, labels = torch.randn(n, *shape).double(), torch.randint(0, 2, (n,))
    batch = Batch(patches, labels, labels if kind == "classes" else group)
    target = Batch(
        torch.randn(6, *shape).double(), torch.randint(0, 2, (6,)), torch.zeros(6).long()
    )
    weights = torch.rand(2 if kind == "classes" else groups).double()
    return model, batch, target, weights / weights.sum()


def oracle_inner(model, batch, weights, scale):
    """The training gradient by one plain backward pass of a copy."""
    other = copy.deepcopy(model)
    total = (weights[batch.groups] * scale * losses(other(batch.patches), batch.labels)).sum()
    flat = torch.autograd.grad(total, list(other.parameters()))
    return dict(zip(trainable(model), flat, strict=True))


def relative(got, wanted):
    scale = wanted.abs().max()
    assert scale > 1e-9
    return float((got - wanted).abs().max() / scale)


@pytest.mark.parametrize("kind", ["groups", "empty", "classes"])
@pytest.mark.parametrize("shares", [False, True])
@pytest.mark.parametrize(
    ("name", "way"),
    [(n, "forward_mode") for n in MODELS] + [(n, "per_group") for n in PER_GROUP],
)
def test_exact_against_double_backpropagation(name, way, kind, shares):
    """With `shares`, samples count as in steered batches, and only weights decay, not biases."""
    model, batch, target, weights = problem(name, kind=kind)
    counts = torch.bincount(batch.groups, minlength=3)
    scale = 1.0 / counts[batch.groups].double() if shares else None
    by_name = {k: L2 if p.ndim > 1 else 0.0 for k, p in model.named_parameters()}
    arguments = {
        "loss": losses,
        "learning_rate": ETA,
        "l2": by_name if shares else L2,
        "target_l2": by_name if shares else L2,
        "scale": scale,
        "keep": True,
    }
    found = {}
    for each in (way, "double_backward"):
        other = copy.deepcopy(model)
        torch.manual_seed(5)  # the same dropout
        found[each] = hypergradient(other, batch, target, weights, way=each, **arguments)
    got, wanted = found[way], found["double_backward"]
    assert relative(got.value, wanted.value) < 1e-12
    held = [p for m in other.modules() for p in m._parameters.values()]
    assert all(p is None or isinstance(p, nn.Parameter) for p in held)
    torch.testing.assert_close(got.target_loss, wanted.target_loss, rtol=1e-12, atol=0)
    torch.testing.assert_close(got.losses, wanted.losses, rtol=1e-12, atol=1e-12)
    if kind == "empty":
        assert got.value[1] == 0
    if not name.endswith(("_dropout", "_norm")):  # the training gradient for any weights
        other = torch.tensor([0.1, 0.7, 0.2]).double()[: len(weights)]
        ones = torch.full((14,), 1 / 14, dtype=torch.float64) if scale is None else scale
        plain = oracle_inner(model, batch, other, ones)
        gradient = got.gradient(other)
        largest = max(g.abs().max() for g in plain.values())
        for k in plain:
            assert (gradient[k] - plain[k]).abs().max() <= 1e-12 * largest


def test_finite_difference_is_near_in_float32():
    """To a tenth or so; in autocast too, as the differences are taken in full precision."""
    arguments = {"loss": losses, "learning_rate": ETA}
    for name in ("linear", "lenet", "patchnet"):
        for seed in range(5):
            model, batch, target, weights = problem(name, seed=seed)
            model, weights = model.float(), weights.float()
            batch, target = (Batch(b.patches.float(), b.labels, b.groups) for b in (batch, target))
            wanted = hypergradient(model, batch, target, weights, way="per_group", **arguments)
            for precise in (True, False):
                with torch.autocast("cpu", torch.bfloat16, enabled=not precise):
                    got = hypergradient(
                        model, batch, target, weights, way="finite_difference", **arguments
                    )
                off = relative(got.value, wanted.value)
                assert off < 0.2, (name, seed, precise, off)


def test_running_statistics_move_once():
    for way in ("per_group", "forward_mode", "double_backward", "finite_difference"):
        model, batch, target, weights = problem("resnet20")
        alone = copy.deepcopy(model)
        alone(batch.patches)
        hypergradient(model, batch, target, weights, loss=losses, learning_rate=ETA, way=way)
        assert all(m.training for m in model.modules())
        for (name, got), wanted in zip(model.named_buffers(), alone.buffers(), strict=True):
            torch.testing.assert_close(got, wanted, msg=f"{way} {name}")


def test_frozen_normalisation_needs_no_forward_mode():
    model, batch, target, weights = problem("resnet20")
    model(batch.patches)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    assert pick(model, 2, 14) == "per_group"
    arguments = {"loss": losses, "learning_rate": ETA}
    got = hypergradient(model, batch, target, weights, way="per_group", **arguments)
    assert not model.body[1].training  # as it was
    wanted = hypergradient(model, batch, target, weights, way="double_backward", **arguments)
    assert relative(got.value, wanted.value) < 1e-12


def test_normalisation_by_the_batch_in_evaluation_too():
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4, track_running_stats=False)).eval()
    assert pick(model, 3, 500) == "forward_mode"


def test_auto():
    assert pick(LeNet5(), 6, 50) == "per_group"
    assert pick(LeNet5(), 7, 50) == "forward_mode"
    assert pick(LeNet5(), 4, 5) == "per_group"
    assert pick(LeNet5(), 16, 5000) == "per_group"
    assert pick(LeNet5(), 17, 5000) == "forward_mode"
    assert pick(LeNet5().to("meta"), 5, 5000) == "forward_mode"  # not on a CPU
    assert pick(ResNet(20).train(), 2, 100) == "per_group"
    assert pick(ResNet(20).train(), 3, 100) == "forward_mode"
    assert pick(ResNet(20).eval(), 3, 100) == "per_group"


@pytest.mark.parametrize("way", ["per_group", "forward_mode", "double_backward"])
def test_closed_form_of_a_quadratic_problem(way):
    """Scalar p, l_i = (p - a_i)^2, target (p - t)^2 + r/2 p^2: everything by hand."""
    a, t, p0 = torch.tensor([1.0, 3.0]).double(), 2.5, 0.5
    model = nn.Linear(1, 1, bias=False).double()
    nn.init.constant_(model.weight, p0)
    w = torch.tensor([0.3, 0.7]).double()

    def square(outputs, labels):
        return mse_loss(outputs[:, 0], labels, reduction="none")

    one = torch.ones(2, 1).double()
    batch = Batch(one, a, torch.tensor([0, 1]))
    target = Batch(one[:1], torch.tensor([t]).double(), torch.tensor([0]))
    slopes = 2 * (p0 - a)
    ahead = p0 - ETA * ((w * slopes).sum() / 2 + L2 * p0)
    wanted = -ETA / 2 * slopes * (2 * (ahead - t) + L2 * ahead)
    found = hypergradient(
        model, batch, target, w, loss=square, learning_rate=ETA, l2=L2, target_l2=L2, way=way
    )
    torch.testing.assert_close(found.value, wanted, rtol=1e-14, atol=0)
    assert float(found.target_loss) == pytest.approx(
        float((ahead - t) ** 2 + L2 / 2 * ahead**2), rel=1e-14
    )
