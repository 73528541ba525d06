"""What stops a training, and what a resumed one may change."""

from functools import partial

import numpy
import pytest
import torch
from test_train import toy

from data_pipelines.errors import InputError
from weather_tdr.data import Batch
from weather_tdr.fingerprint import fingerprint
from weather_tdr.methods.losses import focal
from weather_tdr.methods.method import Method, load_method
from weather_tdr.methods.tdr import Tdr, TdrSettings
from weather_tdr.models import PatchNet
from weather_tdr.train import Train, fit


def test_a_non_finite_gradient_stops_before_it_spoils_the_network(tmp_path):
    class Root(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = torch.nn.Parameter(torch.zeros(1))
            self.out = torch.nn.Linear(128, 2)

        def forward(self, x):
            return self.out(x.flatten(1)) * (1 + self.scale.sqrt())  # slope infinite at zero

    model = Root()
    settings = Train(steps=5, batch=32, checkpoint_every=1, clip=0.0)
    with pytest.raises(InputError, match=r"gradient must be finite.* step 0 .*checkpoint is none"):
        fit(model, toy(300, 0), toy(12, 1, 0.5), "uniform", settings, folder=tmp_path)
    assert all(torch.isfinite(p).all() for p in model.parameters())


def test_a_step_beyond_all_numbers_leaves_no_checkpoint(tmp_path):
    """Loss and gradient are finite, what the step makes of the network is not."""

    class Huge(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.huge = torch.nn.Parameter(torch.full((1,), 3e38))
            self.out = torch.nn.Linear(128, 2)

        def forward(self, x):
            return self.out(x.flatten(1)) + 0 * self.huge

    settings = Train(
        steps=5, batch=32, checkpoint_every=1, learning_rate=2.0, weight_decay=2.0, decay_on="all"
    )
    with pytest.raises(InputError, match=r"network must be finite, got `huge` .*step 0 of"):
        fit(Huge(), toy(300, 0), toy(12, 1, 0.5), "uniform", settings, folder=tmp_path)
    assert not list(tmp_path.rglob("*.safetensors"))


def test_the_error_names_the_samples_that_are_not_finite():
    train, target = toy(300, 0), toy(12, 1, 0.5)
    target.patches[3, 0, 0, 0] = torch.nan
    with pytest.raises(InputError, match=r"first step, got samples target 3, .*1 of them"):
        fit(PatchNet(2, 8, 2, width=4), train, target, "tdr", Train(steps=5, batch=32))
    target.patches[3] = 0.0
    train.patches[17] = torch.inf
    with pytest.raises(InputError, match="with samples train 17, "):
        fit(PatchNet(2, 8, 2, width=4), train, target, "uniform", Train(steps=20, batch=32))


def test_an_undefined_score_cannot_choose():
    for setting in ({"choose": "best"}, {"patience": 2}):
        settings = Train(steps=9, batch=32, checkpoint_every=3, **setting)
        with pytest.raises(InputError, match="got one that is not defined"):
            fit(
                PatchNet(2, 8, 2, width=4), toy(300, 0), toy(12, 1, 0.5), "uniform", settings,
                validate=lambda m: float("nan"),
            )  # fmt: skip


def fingerprint_of_itself() -> str:
    """Of a loss that holds itself, a tensor and another function."""
    weights = torch.tensor([1.0, 3.0])

    def loss(logits, labels, again=True):
        return (
            loss(logits, labels, False) if again else weights[labels] * focal(2.0)(logits, labels)
        )

    recipe = load_method("uniform")
    return fingerprint(Train(), recipe, "", torch.nn.Linear(2, 2), partial(loss, again=True), None)


def test_what_a_resumed_training_may_change_and_what_not(tmp_path):
    train, target = toy(300, 0), toy(12, 1, 0.5)

    def go_on(data=train, width=6, **changes):
        settings = Train(**({"steps": 20, "batch": 32, "checkpoint_every": 10} | changes))
        model = PatchNet(2, 8, 2, width=width)
        return fit(model, data, target, "uniform", settings, folder=tmp_path, resume=True)

    def focused(gamma):
        def loss(logits, labels):
            return focal(gamma)(logits, labels)

        return loss

    go_on()
    go_on(keep_checkpoints=5, device="cpu")
    other = Batch(2 * train.patches, train.labels, train.groups)
    for changed in ({"data": other}, {"width": 8}, {"steps": 30}):
        with pytest.raises(InputError, match="other settings or data"):
            go_on(**changed)
    assert fingerprint_of_itself() == fingerprint_of_itself()
    own = [Tdr(loss=focused(gamma)) for gamma in (2.0, 2.0, 5.0)]
    go = partial(fit, train=train, target=target, settings=Train(steps=4), folder=tmp_path / "own")
    for method in own[:2]:
        go(PatchNet(2, 8, 2, width=4), method=method, resume=True)
    with pytest.raises(InputError, match="other settings or data"):
        go(PatchNet(2, 8, 2, width=4), method=own[2], resume=True)


class Scaled(torch.nn.Module):
    """A loss with a number and a tensor of its own."""

    def __init__(self, gamma, weights=(1.0, 1.0)):
        super().__init__()
        self.gamma = gamma
        self.register_buffer("weights", torch.tensor(weights))

    def forward(self, logits, labels):
        return self.weights[labels] * focal(self.gamma)(logits, labels)


class Plain:
    """The same as an object, and as its method."""

    def __init__(self, gamma):
        self.gamma = [gamma]

    def __call__(self, logits, labels):
        return focal(self.gamma[0])(logits, labels)

    def method(self, logits, labels):
        return self(logits, labels)


class Other(Plain):
    def __call__(self, logits, labels):
        return 2 * focal(self.gamma[0])(logits, labels)


def test_a_loss_is_told_by_what_it_holds_and_does():
    model = torch.nn.Linear(2, 2)

    def told(loss):
        return fingerprint(Train(), load_method("uniform"), "", model, loss, None)

    for make in (
        Scaled,
        Plain,
        lambda gamma: Plain(gamma).method,
        lambda gamma: partial(Plain(gamma)),
        lambda gamma: Plain(torch.tensor([gamma])),
        lambda gamma: Plain(numpy.array([[[gamma]]])),
    ):
        assert told(make(2.0)) == told(make(2.0)) != told(make(5.0))
    assert told(Scaled(2.0)) != told(Scaled(2.0, (1.0, 3.0)))
    assert told(Plain(2.0)) != told(Other(2.0))
    # A loss that knows the network: what moves in training does not make it another.
    holds = [Plain(model), torch.nn.Sequential(model), partial(Plain(2.0), model.weight)]
    before = [told(loss) for loss in holds]
    with torch.no_grad():
        model.weight += 1.0
    assert [told(loss) for loss in holds] == before


def test_train_and_target_divided_in_another_way_are_other_data(tmp_path):
    whole = toy(300, 0)

    def go(cut):
        parts = (Batch(*(t[s] for t in (whole.patches, whole.labels, whole.groups)))
                 for s in (slice(cut), slice(cut, None)))  # fmt: skip
        settings = Train(steps=4, batch=32)
        return fit(PatchNet(2, 8, 2, width=4), *parts, "tdr_faithful", settings,
                   folder=tmp_path, resume=True)  # fmt: skip

    go(200)
    go(200)
    with pytest.raises(InputError, match="other settings or data"):
        go(100)


@pytest.mark.parametrize(
    ("method", "begins"),
    [
        ("uniform", 0),
        ("tdr_faithful", 0),
        ("tdr", 60),
        ("fine_tune_last_layer", 50),
        ("deferred_reweighting", 80),
    ],
)
def test_validation_counts_once_the_method_acts(method, begins):
    """Scores fall all the time: without this, each would end with the network of step 10."""
    falling = iter(range(1000, 0, -1))
    settings = Train(steps=100, batch=32, checkpoint_every=10, choose="best", patience=2)
    history = fit(
        PatchNet(2, 8, 2, width=4), toy(300, 0), toy(12, 1, 0.5), method, settings,
        validate=lambda m: float(next(falling)),
    )  # fmt: skip
    assert load_method(method).deferred in (0.0, 0.8)
    assert history.attrs["step"] == begins + 10
    assert history["step"].iloc[-1] == min(begins + 30, 100)
    assert history["validation_score"].notna().any()


@pytest.mark.parametrize(
    "method",
    [
        Method("late", weighting="tdr", target="steer", tdr=TdrSettings(start=0.99)),
        Method("short", target="fine_tune", fine_tune_share=0.05),
        Method("drw", weighting="inverse_frequency", deferred=0.99),
    ],
)
def test_the_last_validation_counts_where_a_method_never_acts(method):
    settings = Train(steps=5, batch=32, checkpoint_every=2, choose="best")
    history = fit(
        PatchNet(2, 8, 2, width=4), toy(300, 0), toy(12, 1, 0.5), method, settings,
        validate=lambda m: 0.5,
    )  # fmt: skip
    assert history.attrs["step"] == 5


def test_losses_of_the_target_set_are_off_the_device_before_they_are_float64(monkeypatch):
    """Apple's GPUs have no float64."""
    doubled, off, shapes = torch.Tensor.double, torch.Tensor.cpu, []

    def double(tensor):
        shapes.append(("float64", tensor.shape))
        return doubled(tensor)

    def cpu(tensor):
        shapes.append(("cpu", tensor.shape))
        return off(tensor)

    monkeypatch.setattr(torch.Tensor, "double", double)
    monkeypatch.setattr(torch.Tensor, "cpu", cpu)
    fit(PatchNet(2, 8, 2, width=4), toy(300, 0), toy(12, 1, 0.5), "tdr", Train(steps=1, batch=32))
    losses = torch.Size([12])
    assert shapes[shapes.index(("float64", losses)) - 1] == ("cpu", losses)
