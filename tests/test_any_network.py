"""Networks, losses and settings as people have them: trained rightly, or refused with words."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from test_fit_inputs import few
from test_hypergradient import problem
from test_methods import ETA, plain_loss
from torch import nn
from torch.nn.functional import cross_entropy

from data_pipelines.errors import InputError
from data_pipelines.images import Images
from weather_tdr.data import Batch
from weather_tdr.layers import last_layer
from weather_tdr.methods.hypergradient import hypergradient
from weather_tdr.methods.lookahead import decay_by_name, look_ahead
from weather_tdr.methods.method import Method
from weather_tdr.methods.tdr import Tdr, TdrSettings
from weather_tdr.train import Train, fit

EVERY_STEP = Tdr(settings=TdrSettings(every=1, update="normalised"))


class Fourier(nn.Module):
    """One layer of a Fourier neural operator: complex parameters."""

    def __init__(self):
        super().__init__()
        self.factors = nn.Parameter(torch.randn(2, 4, 3, dtype=torch.complex128) / 4)
        self.head = nn.Linear(32, 2).double()

    def forward(self, x):
        return self.head(torch.fft.irfft2(torch.fft.rfft2(x) * self.factors).flatten(1))


def test_complex_parameters_against_differences():
    torch.manual_seed(0)
    model, (x, y), (tx, ty) = Fourier(), few(12, 0), few(6, 1)
    batch, target = Batch.of((x.double(), y)), Batch.of((tx.double(), ty))
    weights = torch.tensor([0.3, 0.7]).double()

    def target_loss(w):
        inner = (w[y] * plain_loss(model(batch.patches), y)).mean()
        pairs = zip(model.parameters(), torch.autograd.grad(inner, model.parameters()), strict=True)
        ahead = [(p - ETA * g).detach() for p, g in pairs]
        old = [p.detach().clone() for p in model.parameters()]
        with torch.no_grad():
            for p, q in zip(model.parameters(), ahead, strict=True):
                p.copy_(q)
            value = plain_loss(model(target.patches), ty).mean() + 0.005 * sum(
                float(p.abs().square().sum()) for p in model.parameters()
            )
            for p, q in zip(model.parameters(), old, strict=True):
                p.copy_(q)
        return float(value)

    steps = 1e-4 * torch.eye(2).double()
    wanted = [(target_loss(weights + e) - target_loss(weights - e)) / 2e-4 for e in steps]
    for way in ("per_group", "forward_mode", "double_backward"):
        found = hypergradient(
            model, batch, target, weights, loss=plain_loss, learning_rate=ETA, target_l2=0.01,
            way=way,
        )  # fmt: skip
        assert found.value.tolist() == pytest.approx(wanted, rel=1e-5)
    fit(model, (x.double(), y), (tx.double(), ty), EVERY_STEP, Train(steps=3))
    with pytest.raises(InputError, match="Adam for real parameters only, got `factors`"):
        params = {"factors": model.factors}
        look_ahead(params, params, ETA, {"factors": 0.0}, torch.optim.Adam([model.factors]))


def test_a_block_used_twice_learns_with_every_method():
    for method in ("uniform", EVERY_STEP, "tdr_faithful", "learning_to_reweight"):
        torch.manual_seed(0)
        block = nn.Sequential(nn.Linear(32, 32), nn.Tanh())
        before = block[0].weight.detach().clone()
        model = nn.Sequential(nn.Flatten(), block, block, nn.Linear(32, 2))
        fit(model, few(50, 0), few(6, 1), method, Train(steps=30))
        assert isinstance(block[0].weight, nn.Parameter)
        assert float((block[0].weight - before).norm()) > 0.05


def test_weights_of_a_network_in_half_precision_move():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(32, 2)).bfloat16()
    batch, target = (Batch(b.patches.bfloat16(), b.labels, b.groups)
                     for b in (Batch.of(few(20, 0)), Batch.of(few(6, 1))))  # fmt: skip
    for way in ("per_group", "forward_mode"):
        rule = Tdr(2, ETA, TdrSettings(every=1, hypergradient=way))
        rule.step(model, batch, target)
        assert rule.weights.dtype == torch.float32 and rule.weights[0] != 0.5


@pytest.mark.parametrize(
    ("loss", "shape"),
    [
        (cross_entropy, r"\(\)"),
        (nn.CrossEntropyLoss(), r"\(\)"),
        (lambda logits, labels: plain_loss(logits, labels)[:, None], r"\(\d+, 1\)"),
    ],
)
def test_a_loss_that_is_not_per_sample_is_refused(loss, shape):
    model = nn.Sequential(nn.Flatten(), nn.Linear(32, 2))
    words = rf"`loss` must give one value a sample, shape \(\d+,\), got shape {shape}"
    for settings in (TdrSettings(), TdrSettings(start=0.6, realise="shares")):
        with pytest.raises(InputError, match=words):
            fit(model, few(50, 0), few(6, 1), Tdr(settings=settings, loss=loss), Train(steps=5))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            lambda: TdrSettings(hypergradient="forward"),
            "`tdr.hypergradient`: `forward`",
        ),
        (lambda: TdrSettings(realise="share"), "Did you mean `shares`"),
        (lambda: TdrSettings(update="normalized"), "Did you mean `normalised`"),
        (lambda: TdrSettings(lookahead="adam"), "There is: optimizer, sgd"),
        (lambda: TdrSettings(every=2.5), "`tdr.every` must be a whole number, got 2.5"),
        (lambda: TdrSettings(lag="no"), "`tdr.lag` must be true or false, got 'no'"),
        (lambda: Train(precision="fp32"), "`train.precision`: `fp32` is unknown"),
        (lambda: Train(decay_on="everything"), "There is: all, weights"),
        (lambda: Train(choose="Best"), "Did you mean `best`"),
        (lambda: Train(steps="10"), "`train.steps` must be a whole number, got '10'"),
        (lambda: Train(steps=10.5), "`train.steps` must be a whole number, got 10.5"),
        (lambda: Train(batch=True), "`train.batch` must be a whole number, got True"),
        (
            lambda: Train(weight_decay=float("nan")),
            "`train.weight_decay` must be a number",
        ),
        (lambda: Method("m", target="merged"), "m: target`: `merged`.*Did you mean `merge`"),
        (lambda: Method("m", sampling="balance"), "Did you mean `balanced`"),
        (lambda: Method("m", weighting="tdrr"), "Did you mean `tdr`"),
        (lambda: Images(imbalance="longtailed"), "Did you mean `long_tailed`"),
    ],
)
def test_words_and_kinds_of_settings_from_python(make, words):
    with pytest.raises(InputError, match=words):
        make()


def test_numbers_of_numpy_become_plain():
    settings = Train(steps=np.int64(5), learning_rate=np.float32(0.25), compile=np.False_)
    assert json.dumps([settings.steps, settings.learning_rate, settings.compile])
    assert isinstance(TdrSettings(every=np.int32(3)).every, int)


def test_labels_of_one_s_own_kind_have_losses_of_samples():
    """In a loop of one's own labels may be distributions."""
    model, (x, y) = nn.Sequential(nn.Flatten(), nn.Linear(32, 2)), few(20, 0)
    soft = torch.nn.functional.one_hot(y, 2).float() * 0.8 + 0.1
    batch, target = Batch(x, soft, y), Batch(*(v[:6] for v in (x, soft, y)))
    rule = Tdr(2, ETA, TdrSettings(every=1), loss=plain_loss)
    assert torch.isfinite(rule.step(model, batch, target)) and rule.weights[0] != 0.5


class Remembering(nn.Module):
    """Makes its running mean in the first pass."""

    def __init__(self):
        super().__init__()
        self.out = nn.Linear(32, 2)
        self.register_buffer("mean", None)

    def forward(self, x):
        if self.training:
            now = x.detach().mean()
            self.mean = 0.1 * now if self.mean is None else 0.9 * self.mean + 0.1 * now
        return self.out(x.flatten(1))


def test_a_buffer_made_in_the_first_pass_moves_once():
    (x, y), target = few(20, 0), Batch.of(few(6, 1))
    for way in ("per_group", "forward_mode", "finite_difference", "double_backward"):
        model = Remembering().double()
        batch = Batch.of((x.double() + 1, y))
        hypergradient(
            model, batch, Batch(target.patches.double(), target.labels, target.groups),
            torch.ones(2).double() / 2, loss=plain_loss, learning_rate=ETA, way=way,
        )  # fmt: skip
        assert float(model.mean) == pytest.approx(0.1 * float(batch.patches.mean())), way


class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(32, 2)  # made first, run last
        self.body = nn.Linear(32, 32)

    def forward(self, x):
        return self.head(torch.tanh(self.body(x.flatten(1))))


class Twice(Pair):
    def forward(self, x):
        return super().forward(x), x


def test_what_fit_refuses_with_words_of_its_own(tmp_path):
    def fails(words, model=None, train=None, method="tdr", **kw):
        with pytest.raises(InputError, match=words):
            fit(model or Pair(), train or few(50, 0), few(6, 1), method, **kw)

    fails("`settings` must be `Train\\(...\\)`, got dict", settings={"steps": 5})
    fails("`method` must be a name, a path, a `Method` or `Tdr`, got int", method=3)
    fails("a tensor of logits, got tuple", model=Twice())
    fails(r"must take inputs of shape \(2, 2, 4, 4\).*which it refuses", model=nn.Sequential(
        nn.Flatten(), nn.Linear(7, 2)))  # fmt: skip
    fails("must name each of the 2 groups, got a", names=("a",))
    wide = tuple((v * 50).to(torch.uint8) if v.ndim > 1 else v for v in few(50, 0))
    with pytest.raises(InputError, match=r"torch.uint8, which it refuses.*floating-point"):
        fit(Pair(), wide, tuple((v * 50).to(torch.uint8) if v.ndim > 1 else v for v in few(6, 1)))
    path = tmp_path / "mine.yaml"
    path.write_text("weighting: inverse_frequency\n")
    assert "weight_0" in fit(Pair(), few(50, 0), few(6, 1), Path(path), Train(steps=2))
    flat = torch.randn(50), torch.arange(50) % 2  # a number a sample

    class Line(nn.Linear):
        def forward(self, x):
            return super().forward(x[:, None])

    fit(Line(1, 2), flat, (torch.randn(6), torch.arange(6) % 2), EVERY_STEP, Train(steps=2))


def test_what_a_step_of_tdr_refuses():
    model, batch, target, _ = problem("linear")
    for weights in ([-1.0, 1.0, 1.0], [float("nan"), 0.5, 0.5], [0.5, 0.5], [1.0, 1.0, 1.0]):
        with pytest.raises(InputError, match="must be 3 numbers of at least 0 with sum 1"):
            Tdr(3, ETA, weights=torch.tensor(weights)).step(model, batch, target)
    with pytest.raises(InputError, match=r"the batch must be a `Batch`, got tuple"):
        Tdr(3, ETA).step(model, (batch.patches, batch.labels), target)
    with pytest.raises(InputError, match=r"got none of `1\.bias`"):
        decay_by_name({"1.weight": 0.1}, dict(model.named_parameters()))
    rule = Tdr(3, ETA, TdrSettings(every=1, lookahead="optimizer"),
               optimizer=torch.optim.SGD([model[1].weight], lr=ETA))  # fmt: skip
    with pytest.raises(InputError, match=r"got one without `1\.bias`"):
        rule.step(model, batch, target)


def test_the_last_layer_is_the_one_that_runs_last():
    model = Pair()
    assert last_layer(model, torch.zeros(2, 2, 4, 4)) is model.head
    trained = []

    def look(network):
        trained.append([k for k, p in network.named_parameters() if p.requires_grad])
        return 0.0

    settings = Train(steps=20, checkpoint_every=10)
    fit(model, few(50, 0), few(6, 1), "fine_tune_last_layer", settings, validate=look)
    both = ["head.weight", "head.bias"], ["head.weight", "head.bias", "body.weight", "body.bias"]
    assert trained == [both[1], both[0]] and all(p.requires_grad for p in model.parameters())


class ByFunction(Pair):
    """The weights of its head are taken by a function."""

    def forward(self, x):
        inner = torch.tanh(self.body(nn.functional.dropout(x.flatten(1), 0.5)))
        return nn.functional.linear(inner, self.head.weight, self.head.bias)


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Linear(32, 2)
        self.mixed = nn.MultiheadAttention(2, 1)

    def forward(self, x):
        inner = self.body(x.flatten(1))
        return self.mixed(inner, inner, inner)[0]


def test_the_last_layer_where_the_order_of_a_pass_is_not_told():
    inputs = torch.zeros(2, 2, 4, 4)
    state = torch.get_rng_state()
    by_function = ByFunction()  # whose last layer by the order of making is the body
    torch.set_rng_state(state)
    assert last_layer(by_function, inputs) is by_function.body
    assert torch.equal(torch.get_rng_state(), state)  # dropout of a function drew and was put back
    model = Attention()
    assert last_layer(model, inputs) is model.mixed.out_proj
    plain = nn.Sequential(nn.Flatten(), nn.Linear(32, 8), nn.Linear(8, 2))
    scripted = torch.jit.script(plain)
    for network, last in ((torch.compile(plain, backend="eager"), plain[2]),
                          (scripted, list(scripted.children())[2])):  # fmt: skip
        assert last_layer(network, inputs) is last
