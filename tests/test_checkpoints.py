"""Killed, out of room, or damaged: training goes on to the same network."""

import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pandas as pd
import pytest
import torch
from forks import in_a_child, in_a_process
from hypothesis import given, settings
from hypothesis import strategies as st
from test_train import Killed, run

from data_pipelines.errors import InputError
from weather_tdr.checkpoints import Checkpoints, load_checkpoint, save_checkpoint
from weather_tdr.methods.method import load_method
from weather_tdr.methods.tdr import Tdr
from weather_tdr.train import Train, fit
from weather_tdr.train_log import TrainLog
from weather_tdr.watch import Best

FEW = {"steps": 60, "checkpoint_every": 5, "log_every": 5, "choose": "best"}


def score(network):
    """Deterministic, and neither rising nor falling."""
    return float(torch.sin(1e4 * next(network.parameters()).detach().double().sum()))


def train(folder, resume):
    return run(folder, "tdr", s=FEW, validate=score, resume=resume)


def everything(folder):
    """All that a training leaves, but the seconds that it took."""
    kept = {}
    for path in sorted((folder / "checkpoints").iterdir()):
        tensors, facts = load_checkpoint(path)
        facts.pop("seconds", None)
        kept[path.name] = ({k: t.tolist() for k, t in tensors.items()}, repr(facts))
    return kept, (folder / "history.csv").read_text()


def kill_again_and_again(folder) -> None:
    """Trains in processes that are killed at random moments, until one comes to the end."""
    rng, kills, longest = random.Random(0), 0, 0.4
    while True:
        child = in_a_child(lambda: train(folder, resume=True))
        if kills < 12:
            time.sleep(rng.uniform(0.0, longest))
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            kills += 1
        elif os.WEXITSTATUS(status):
            sys.exit(1)
        elif kills >= 12:
            return
        else:  # it was done before it could be killed: begin anew, and kill earlier
            subprocess.run(["rm", "-r", str(folder)], check=True)
            longest /= 2


def test_killed_at_random_moments_it_goes_on_to_the_same_network(tmp_path):
    """In a process of its own that has no other threads, as it forks."""
    code = (
        "import torch; torch.set_num_threads(1); from pathlib import Path;"
        "from test_checkpoints import kill_again_and_again, train;"
        f"train(Path({str(tmp_path / 'whole')!r}), False);"
        f"kill_again_and_again(Path({str(tmp_path / 'killed')!r}))"
    )
    in_a_process(code)
    assert everything(tmp_path / "killed") == everything(tmp_path / "whole")


@pytest.fixture
def small_disk(tmp_path):
    """A file system with room for little more than the network."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", place], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("a small file system cannot be mounted here")
    yield place
    subprocess.run(["umount", place], check=True)


def test_a_full_disk_loses_nothing(small_disk, tmp_path):
    train(tmp_path / "whole", False)

    def fill(network):
        found = score(network)
        if (small_disk / "run" / "checkpoints" / "step_000000015.safetensors").is_file():
            (small_disk / "filler").write_bytes(b"")
            with (small_disk / "filler").open("ab", buffering=0) as filler:
                try:
                    while True:
                        filler.write(bytes(1024))
                except OSError:
                    pass
        return found

    with pytest.raises(OSError, match=r"No space left.*checkpoints"):  # and says where
        run(small_disk / "run", "tdr", s=FEW, validate=fill)
    names = sorted(p.name for p in (small_disk / "run" / "checkpoints").iterdir())
    assert [n for n in names if n.startswith("step")][-1] == "step_000000015.safetensors"
    assert not [n for n in names if "partial" in n]
    (small_disk / "filler").unlink()
    train(small_disk / "run", True)
    assert everything(small_disk / "run") == everything(tmp_path / "whole")


def test_a_damaged_checkpoint_is_passed_over_with_a_warning(tmp_path, caplog):
    train(tmp_path / "whole", False)

    def kill(network):
        if (tmp_path / "run" / "checkpoints" / "step_000000025.safetensors").is_file():
            raise Killed
        return score(network)

    with pytest.raises(Killed):
        run(tmp_path / "run", "tdr", s=FEW, validate=kill)
    path = tmp_path / "run" / "checkpoints" / "step_000000025.safetensors"
    content = bytearray(path.read_bytes())
    content[-3] ^= 1  # one bit of one number
    path.write_bytes(bytes(content))
    train(tmp_path / "run", True)
    assert "checksum differs" in caplog.text and "before it is used" in caplog.text
    assert everything(tmp_path / "run") == everything(tmp_path / "whole")


def test_training_anew_forgets_the_old_only_when_there_is_something_new(tmp_path):
    train(tmp_path, False)
    before = sorted(p.name for p in (tmp_path / "checkpoints").iterdir())

    def stop(network):
        raise Killed

    with pytest.raises(Killed):
        run(tmp_path, "uniform", validate=stop)
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == before
    run(tmp_path, "uniform", s={"steps": 40, "keep_checkpoints": 1}, validate=score)
    left = sorted(p.name for p in (tmp_path / "checkpoints").iterdir())
    assert left == ["best.safetensors", "step_000000040.safetensors"]


def test_the_best_network_is_the_one_with_the_best_score(tmp_path):
    seen = {}

    def remember(network):
        found = score(network)
        seen[found] = {k: t.clone() for k, t in network.state_dict().items()}
        return found

    model, history = run(tmp_path, "tdr", s=FEW, validate=remember)
    best = max(list(seen)[7:])  # after 40 steps, the first validation with steered weights
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, seen[best][name])
    steered = history[history["step"] > 36]  # `tdr.start` of 60 steps
    best = steered.loc[steered["validation_score"].idxmax(), "step"]
    assert history.attrs["step"] == best


def test_patience_ends_training_and_resuming_does_not_begin_it_again(tmp_path):
    scores = iter([0.1, 0.3, 0.3, 0.2, 0.9])
    arguments = {"steps": 200, "checkpoint_every": 10, "patience": 2}
    model, history = run(tmp_path, "uniform", s=arguments, validate=lambda _: next(scores))
    assert history["step"].iloc[-1] == 40
    again, same = run(tmp_path, "uniform", s=arguments, validate=lambda _: 1.0, resume=True)
    pd.testing.assert_frame_equal(history, same)
    for a, b in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)


@given(scores=st.lists(st.sampled_from([float("nan"), 0.1, 0.2, 0.3]), max_size=12))
def test_best_is_the_first_of_the_highest(scores):
    best = Best()
    for step, value in enumerate(scores):
        best.look(step, value)
    known = [s for s in scores if s == s]
    if known:
        assert best.score == max(known) and scores.index(best.score) == best.step
        assert best.waited == len(scores) - 1 - best.step
    else:
        assert best.score != best.score and best.waited == len(scores)


def test_choosing_needs_a_score():
    x, y = torch.randn(40, 1, 8, 8), torch.arange(40) % 2
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 2))
    target = torch.randn(4, 1, 8, 8), torch.arange(4) % 2
    for wrong in ({"choose": "best"}, {"patience": 3}):
        with pytest.raises(InputError, match="need a score on validation"):
            fit(model, (x, y), target, "uniform", Train(steps=5, **wrong))


@settings(max_examples=25, deadline=None)
@given(byte=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_a_flipped_bit_anywhere_is_seen(tmp_path_factory, byte, bit):
    folder = tmp_path_factory.mktemp("c")
    tensors = {
        "a": torch.arange(30.0), "b": torch.tensor(3), "c": torch.zeros(0),
        "d": torch.tensor([True, False]), "e": torch.ones(2, dtype=torch.bfloat16),
    }  # fmt: skip
    save_checkpoint(folder / "x.safetensors", tensors, {"step": 3})
    content = bytearray((folder / "x.safetensors").read_bytes())
    content[byte % len(content)] ^= 1 << bit
    (folder / "x.safetensors").write_bytes(bytes(content))
    try:
        back, facts = load_checkpoint(folder / "x.safetensors")
    except InputError:
        return
    # Only padding may change without anything else.
    assert facts == {"step": 3}
    assert all(torch.equal(tensors[k], back[k]) for k in tensors)


def test_the_same_state_gives_the_same_bytes(tmp_path):
    tensors = {k: torch.arange(3.0) for k in "abcdef"}
    for k in range(8):
        save_checkpoint(tmp_path / f"{k}.safetensors", tensors, {"step": 3, "x": [None, 1.5]})
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1


def test_without_a_folder_nothing_is_kept():
    nothing = Checkpoints(None, 2)
    nothing.save(3, {}, {})
    assert nothing.latest() is None and str(nothing) == "none"


def test_killed_between_the_last_checkpoint_and_the_history(tmp_path, monkeypatch):
    """In float64, to the last digit of what is on disk."""

    def double(folder, resume):
        s = {**FEW, "log_every": 3}
        method = Tdr(settings=replace(load_method("tdr").tdr, every=7, start=0.0))
        model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(128, 2)).double()
        return run(folder, method, model, s=s, validate=score, resume=resume)[1]

    torch.manual_seed(0)
    whole = double(tmp_path / "whole", False)
    saves = []

    def die(self):
        saves.append(1)
        if len(saves) == 12:
            raise Killed

    torch.manual_seed(0)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(TrainLog, "save", die)
        double(tmp_path / "run", False)
    again = double(tmp_path / "run", True)
    pd.testing.assert_frame_equal(again, whole, check_exact=True)
    names = [tmp_path / n / "history.csv" for n in ("run", "whole")]
    assert names[0].read_text() == names[1].read_text()


def test_another_loss_is_another_training_and_the_good_checkpoint_is_ones_own(tmp_path):
    def harder(logits, labels):
        return 10 * torch.nn.functional.cross_entropy(logits, labels, reduction="none")

    run(tmp_path, Tdr(settings=load_method("tdr").tdr), s=FEW, validate=score)
    with pytest.raises(InputError, match="made with other settings or data"):
        run(tmp_path, Tdr(settings=load_method("tdr").tdr, loss=harder), s=FEW, validate=score,
            resume=True)  # fmt: skip
    with pytest.raises(InputError, match="the last good checkpoint is none"):
        run(tmp_path, "uniform", s={**FEW, "learning_rate": 1e30, "clip": 0.0}, validate=score)
