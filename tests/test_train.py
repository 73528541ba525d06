import itertools
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from data_pipelines.errors import InputError
from data_pipelines.schema import GROUPS
from weather_tdr.checkpoints import load_checkpoint, save_checkpoint
from weather_tdr.data import Batch
from weather_tdr.fit_inputs import check_overlap
from weather_tdr.image_models import make_network
from weather_tdr.methods.method import load_method, method_of, names
from weather_tdr.methods.tdr import Tdr, TdrSettings
from weather_tdr.models import PatchNet
from weather_tdr.schedules import cosine, stepped
from weather_tdr.train import Train, fit


def toy(n, seed, incidents=0.2):
    """Incidents have a bump in the middle."""
    rng = np.random.default_rng(seed)
    label = (rng.random(n) < incidents).astype(np.int64)
    patches = rng.standard_normal((n, 2, 8, 8)).astype(np.float32)
    patches[:, 0, 3:5, 3:5] += 2.0 * label[:, None, None]
    group = np.where(label == 1, 2, rng.integers(0, 2, n))
    return Batch(torch.from_numpy(patches), torch.from_numpy(label), torch.from_numpy(group))


def run(folder, method, model=None, target=None, **kw):
    torch.manual_seed(0)
    model = model or PatchNet(2, 8, 2, width=6)
    arguments = {
        "steps": 60,
        "batch": 32,
        "log_every": 10,
        "checkpoint_every": 20,
    } | kw.pop("s", {})
    validate = kw.pop("validate", lambda _: 0.5)
    target = target or toy(12, 1, 0.5)
    history = fit(
        model, toy(300, 0), target, method, Train(**arguments), folder=folder,
        validate=validate, names=("background", "hard_negative", "incident")
        if method_of(method).weights_per == "group"
        else ("normal", "incident"), **kw,
    )  # fmt: skip
    return model, history


SLOW = ("tdr_faithful", "meta_weight_net", "learning_to_reweight", "focal")  # small steps


@pytest.mark.parametrize("method", names())
def test_every_method_learns(tmp_path, method):
    model, history = run(tmp_path, method, s={"steps": 400 if method in SLOW else 150})
    test = toy(500, 9)
    with torch.no_grad():
        right = (model(test.patches).argmax(1) == test.labels).double()
    recall = [float(right[test.labels == k].mean()) for k in (0, 1)]
    assert min(recall) > 0.75
    on_disk = pd.read_csv(tmp_path / "history.csv")
    assert list(on_disk["step"]) == list(history["step"])
    per_group = load_method(method).weights_per == "group"
    last = "hard_negative" if per_group else "normal"
    assert {f"weight_{last}", "weight_incident", f"share_{last}", "loss"} <= set(on_disk)
    shares = on_disk[[c for c in on_disk if c.startswith("share_")]].sum(axis=1)
    np.testing.assert_allclose(shares, 1.0)
    assert all(p.requires_grad for p in model.parameters())


def test_before_its_start_steered_sampling_is_ordinary_training():
    """The losses of `uniform` up to the step at which the shares begin, others from then on."""
    settings = TdrSettings(update="normalised", realise="shares", start=0.5, every=1)
    s = {"log_every": 1, "steps": 40}
    steered = run(None, Tdr(settings=settings), s=s)[1]
    ordinary = run(None, replace(load_method("uniform"), weights_per="group"), s=s)[1]
    np.testing.assert_allclose(steered["loss"][:20], ordinary["loss"][:20], rtol=1e-5)
    shares = [[c for c in h if c.startswith("share_")] for h in (steered, ordinary)]
    assert shares[0] == shares[1]
    pd.testing.assert_frame_equal(steered[shares[0]][:20], ordinary[shares[0]][:20])
    assert ((steered[shares[0]].iloc[20] - 1 / 3).abs() < 0.05).all()  # equal, then steered
    assert (steered["loss"] != ordinary["loss"])[20:].all()
    weights = steered.filter(like="weight_")
    assert weights[:20].nunique(axis=1).eq(1).all() and weights.iloc[-1].nunique() == 3


@pytest.mark.parametrize("method", ["tdr", "tdr_faithful", "uniform", "meta_weight_net"])
def test_any_module_trains(method):
    """Integer inputs, a parameter that nothing uses, float64."""

    class Odd(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.table = torch.nn.Embedding(10, 4)
            self.out = torch.nn.Linear(4, 2)
            self.unused = torch.nn.Parameter(torch.zeros(3))

        def forward(self, x):
            return self.out(self.table(x).mean(1))

    torch.manual_seed(0)
    x = torch.randint(0, 10, (200, 5))
    label = (x[:, 0] > 6).long()
    target = torch.cat([x[label == 1][:6], x[label == 0][:6]]), torch.arange(12) // 6
    keep = torch.ones(200, dtype=torch.bool)
    for k in range(12):
        keep &= ~(x == target[0][k]).all(1)
    model = Odd().double()
    history = fit(model, (x[keep], label[keep]), target, method, Train(steps=30, batch=32))
    weights = history[[c for c in history if c.startswith("weight_")]].to_numpy()
    assert np.isfinite(weights).all() and (weights >= 0).all() and weights.max() > 0


def test_fine_tuning_of_the_last_layer_leaves_the_others(tmp_path):
    calls = []

    def collect(network):
        calls.append({k: t.clone() for k, t in network.state_dict().items()})
        return 0.5

    run(tmp_path / "c", "fine_tune_last_layer", s={"steps": 100}, validate=collect)
    at_80, at_100 = calls[3], calls[4]
    changed = [k for k in at_80 if not torch.equal(at_80[k], at_100[k])]
    assert changed == ["head.3.weight", "head.3.bias"]


class Killed(Exception):
    pass


@pytest.mark.parametrize("at", [2, 3])  # before and after the phases of fine-tuning, joining, DRW
@pytest.mark.parametrize("method", names())
def test_killed_and_resumed_is_bit_for_bit_the_uninterrupted_run(tmp_path, method, at):
    whole, history = run(tmp_path / "whole", method)
    calls = []

    def kill(_):
        calls.append(1)
        if len(calls) == at:
            raise Killed
        return 0.5

    with pytest.raises(Killed):
        run(tmp_path / "killed", method, validate=kill)
    last = tmp_path / "killed" / "checkpoints" / f"step_{20 * (at - 1):09d}.safetensors"
    assert load_checkpoint(last)[1]["step"] == 20 * (at - 1)
    resumed, again = run(tmp_path / "killed", method, resume=True)
    for (name, a), b in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    pd.testing.assert_frame_equal(history, again)


def test_resume_with_other_settings_or_a_damaged_checkpoint_is_refused(tmp_path):
    run(tmp_path, "uniform")
    with pytest.raises(InputError, match="other settings"):
        run(tmp_path, "uniform", resume=True, s={"learning_rate": 0.01})
    for path in (tmp_path / "checkpoints").glob("step_*"):
        path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(InputError, match=r"all checkpoints in .* are damaged"):
        run(tmp_path, "uniform", resume=True)


def test_non_finite_loss_stops_the_run(tmp_path):
    with pytest.raises(InputError, match=r"(loss|gradient) must be finite.*train\.learning_rate"):
        run(tmp_path, "uniform", s={"learning_rate": 1e12, "clip": 0.0})


def test_learning_rate_warms_up_and_falls():
    rates = [cosine(s, 1000) for s in range(1000)]
    assert rates[0] < 0.02 and max(rates) == pytest.approx(1.0, rel=0.05)
    assert rates[-1] < 1e-5
    assert all(a >= b for a, b in itertools.pairwise(rates[100:]))


def test_stepped_rate_falls_at_the_epochs_of_the_reference_implementation():
    epochs = [stepped(100 * e + s, 20_000) for e in (90, 135, 181) for s in (0, 99, 100)]
    assert epochs == pytest.approx([1, 1, 0.1, 0.1, 0.1, 0.01, 0.01, 0.01, 0.001])


def relabelled(batch, label):
    return Batch(batch.patches, torch.full_like(batch.labels, label), batch.groups)


def joined(batch, other):
    return Batch(*(torch.cat([getattr(b, n) for b in (batch, other)]) for n in FIELDS))


FIELDS = ("patches", "labels", "groups")
BAD_SETS = {
    "target set must hold every group": lambda a, t: (a, relabelled(t, 0)),
    "train must hold every group": lambda a, t: (relabelled(a, 0), t),
    "sample 12 of it that is sample 7 of train": lambda a, t: (a, joined(t, a[torch.tensor([7])])),
    "at least two groups": lambda a, t: (relabelled(a, 0), relabelled(t, 0)),
    "target loss must be finite": lambda a, t: (
        a,
        Batch(t.patches * float("inf"), t.labels, t.groups),
    ),
    "of one length": lambda a, t: (a, (t.patches, t.labels[:3])),
}


@pytest.mark.parametrize("words", list(BAD_SETS))
def test_bad_target_sets(words):
    train, target = BAD_SETS[words](toy(300, 0), toy(12, 1, 0.5))
    with pytest.raises(InputError, match=words):
        fit(PatchNet(2, 8, 2, width=4), train, target, "tdr_faithful", Train(steps=5))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.uint8])
def test_every_shared_sample_is_found(dtype):
    """Also large ones, whose sums depend on the order of adding."""
    values = torch.randn(6, 3, 150, 150, dtype=torch.float64).mul(50).to(dtype)
    values[0] = 0
    labels = torch.arange(6) % 2
    train = Batch(values, labels, labels)
    for k in range(6):
        shared = values[k : k + 1].clone()
        if k == 0 and dtype.is_floating_point:
            shared = -shared  # a negative zero is the same
        with pytest.raises(InputError, match=f"sample 0 of it that is sample {k} of train"):
            check_overlap(train, Batch(shared, labels[:1], labels[:1]))
    check_overlap(train, Batch(values[:2] + 1, labels[:2], labels[:2]))


def test_arrays_of_any_shape_and_groups_that_are_absent():
    """A catalogue of incidents alone has no hard negatives: groups 0 and 2 only."""
    train, target = toy(300, 0), toy(12, 1, 0.5)
    pairs = [(b.patches.flatten(1), b.labels, 2 * b.labels) for b in (train, target)]
    model = torch.nn.Linear(128, 2)
    history = fit(model, *pairs, "tdr", Train(steps=20, log_every=10), names=GROUPS)
    assert {"weight_background", "weight_incident"} <= set(history)
    assert "weight_hard_negative" not in history


@pytest.mark.parametrize(
    "bad", [{"methods": []}, {"steps": 0}, {"schedule": "x"}, {"momentum": 1.0}, {"width": 0}]
)
def test_bad_settings(bad):
    with pytest.raises(InputError, match=r"`train\."):
        Train(**bad)


def test_checkpoint_round_trip(tmp_path):
    tensors = {"a": torch.randn(3), "b": torch.arange(4)}
    save_checkpoint(tmp_path / "c.safetensors", tensors, {"step": 3, "x": [1.5, None]})
    back, facts = load_checkpoint(tmp_path / "c.safetensors")
    assert facts == {"step": 3, "x": [1.5, None]}
    assert all(torch.equal(tensors[k], back[k]) for k in tensors)


def test_patchnet_refuses_what_it_cannot_cut():
    PatchNet(4, 8, 2, width=4)  # as many channels as variables
    with pytest.raises(InputError, match="power of two"):
        PatchNet(2, 9, 3)
    with pytest.raises(InputError, match="too small"):
        PatchNet(2, 4, 4)


def test_an_error_while_the_last_layer_is_tuned_frees_the_others():
    torch.manual_seed(0)
    x, y = torch.randn(60, 1, 8, 8), torch.arange(60) % 2
    target = torch.randn(6, 1, 8, 8), torch.arange(6) % 2
    model = make_network("mlp", 1, 8, 2)

    def stop(network):
        assert [p.requires_grad for p in network.parameters()] == [False] * 4 + [True] * 2
        raise KeyboardInterrupt

    settings = Train(steps=40, batch=10, checkpoint_every=39)  # in the tuning half
    with pytest.raises(KeyboardInterrupt):
        fit(model, (x, y), target, "fine_tune_last_layer", settings, validate=stop)
    assert all(p.requires_grad for p in model.parameters())
