import itertools

import numpy as np
import pandas as pd
import pytest
import torch

from data_pipelines.errors import InputError
from weather_tdr.checkpoints import load_checkpoint, save_checkpoint
from weather_tdr.data import Batch, Shuffled
from weather_tdr.methods.static import inverse_frequency, uniform
from weather_tdr.models import PatchNet
from weather_tdr.train import METHODS, Train, cosine, train


def toy(n, seed, incidents=0.2):
    """Incidents have a bump in the middle."""
    rng = np.random.default_rng(seed)
    label = (rng.random(n) < incidents).astype(np.int64)
    patches = rng.standard_normal((n, 2, 8, 8)).astype(np.float32)
    patches[:, 0, 3:5, 3:5] += 2.0 * label[:, None, None]
    group = np.where(label == 1, 2, rng.integers(0, 2, n))
    return Batch(torch.from_numpy(patches), torch.from_numpy(label), torch.from_numpy(group))


def fit(folder, method, **kw):
    torch.manual_seed(0)
    model = PatchNet(2, 8, 2, width=6)
    arguments = {"steps": 60, "batch": 32, "log_every": 10, "checkpoint_every": 20} | kw.pop(
        "s", {}
    )
    history = train(
        model,
        toy(300, 0),
        toy(12, 1, 0.5),
        method,
        Train(**arguments),
        folder,
        kw.pop("validate", lambda _: 0.5),
        progress=False,
        **kw,
    )
    return model, history


@pytest.mark.parametrize("method", METHODS)
def test_every_method_learns(tmp_path, method):
    # Weights of sum 1 make the faithful steps half as long: it gets twice the number.
    model, history = fit(tmp_path, method, s={"steps": 300 if method == "tdr_faithful" else 150})
    test = toy(500, 9)
    with torch.no_grad():
        right = (model(test.patches).argmax(1) == test.labels).double()
    recall = [float(right[test.labels == k].mean()) for k in (0, 1)]
    assert min(recall) > 0.8
    on_disk = pd.read_csv(tmp_path / "history.csv")
    assert list(on_disk["step"]) == list(history["step"])
    assert {"weight_normal", "weight_incident", "loss"} <= set(on_disk)


class Killed(Exception):
    pass


@pytest.mark.parametrize("method", METHODS)
def test_killed_and_resumed_is_bit_for_bit_the_uninterrupted_run(tmp_path, method):
    whole, history = fit(tmp_path / "whole", method)
    calls = []

    def kill(_):
        calls.append(1)
        if len(calls) == 2:
            raise Killed
        return 0.5

    with pytest.raises(Killed):
        fit(tmp_path / "killed", method, validate=kill)
    _, facts = load_checkpoint(tmp_path / "killed" / "checkpoints" / "last.safetensors")
    assert facts["step"] == 20
    resumed, again = fit(tmp_path / "killed", method, resume=True)
    for (name, a), b in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    pd.testing.assert_frame_equal(history, again)


def test_resume_with_other_settings_or_a_damaged_checkpoint_is_refused(tmp_path):
    fit(tmp_path, "uniform")
    with pytest.raises(InputError, match="other settings"):
        fit(tmp_path, "uniform", resume=True, s={"learning_rate": 0.01})
    path = tmp_path / "checkpoints" / "last.safetensors"
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(InputError, match="damaged"):
        fit(tmp_path, "uniform", resume=True)


def test_non_finite_loss_stops_the_run(tmp_path):
    with pytest.raises(InputError, match=r"loss must be finite.*train\.learning_rate"):
        fit(tmp_path, "uniform", s={"learning_rate": 1e12, "clip": 0.0})


def test_static_weights():
    counts = torch.tensor([900, 90, 10])
    weights = inverse_frequency(counts)
    torch.testing.assert_close(weights * counts, torch.full((3,), 1000 / 3))
    assert float((weights * counts).sum() / counts.sum()) == pytest.approx(1.0)
    assert torch.equal(uniform(counts), torch.ones(3))
    with pytest.raises(InputError, match="every group"):
        inverse_frequency(torch.tensor([5, 0]))


def test_every_sample_once_an_epoch():
    draw = Shuffled(10, 4, torch.Generator().manual_seed(0))
    seen = torch.cat([draw.draw() for _ in range(5)])  # two epochs
    assert sorted(seen[:10].tolist()) == list(range(10))
    assert sorted(seen[10:].tolist()) == list(range(10))


def test_learning_rate_warms_up_and_falls_to_zero():
    rates = [cosine(0.1, s, 1000) for s in range(1000)]
    assert rates[0] < 0.002 and max(rates) == pytest.approx(0.1, rel=0.05)
    assert rates[-1] < 1e-6
    assert all(a >= b for a, b in itertools.pairwise(rates[100:]))


@pytest.mark.parametrize(
    "bad", [{"methods": ["tdrr"]}, {"methods": []}, {"steps": 0}, {"weights_per": "x"}]
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
    with pytest.raises(InputError, match="power of two"):
        PatchNet(2, 9, 3)
    with pytest.raises(InputError, match="too small"):
        PatchNet(2, 4, 4)
