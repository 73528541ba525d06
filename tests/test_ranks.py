"""Three processes take the steps that one takes; one of two that dies ends the run."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest
import ranks_program
import torch

from data_pipelines.errors import InputError
from weather_tdr import ranks
from weather_tdr.checkpoints import load_checkpoint
from weather_tdr.cli import main
from weather_tdr.methods.hypergradient import hypergradient
from weather_tdr.model_files import load_detector

HERE = Path(__file__).parent
ATOL = 1e-3  # float32 over hundreds of steps, summed in another order


def torchrun(number, *arguments, **kw) -> subprocess.Popen:
    """So many processes of a program on this machine."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command.append(f"--nproc-per-node={number}")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{HERE}:{HERE.parent}"}
    return subprocess.Popen(
        [*command, *map(str, arguments)], env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **kw,
    )  # fmt: skip


@pytest.fixture(scope="module")
def one(tmp_path_factory, tiny_store):
    """What one process does."""
    folder = tmp_path_factory.mktemp("one")
    ranks_program.run(folder, tiny_store)
    return folder


@pytest.fixture(scope="module")
def several(tmp_path_factory, tiny_store):
    """What three processes, whose shares are unlike, do, and their numbers."""
    folder = tmp_path_factory.mktemp("several")
    started = torchrun(3, HERE / "ranks_program.py", folder, tiny_store)
    output, _ = started.communicate(timeout=250)
    assert started.returncode == 0, output
    return folder, range(3)


def read(folder, case, rank):
    state, history = json.loads((folder / f"{case}-{rank}.json").read_text())
    return {k: np.array(v) for k, v in state.items()}, pd.DataFrame(history)


@pytest.mark.parametrize("case", [c for c in ranks_program.CASES if not c.startswith("batch_norm")])
def test_several_ranks_take_the_steps_of_one(one, several, case):
    exact = {"rtol": 1e-10, "atol": 1e-12}
    (state, history), first = read(one, case, 0), read(several[0], case, 0)
    for name, value in state.items():
        np.testing.assert_allclose(first[0][name], value, **exact, err_msg=name)
    pd.testing.assert_frame_equal(first[1], history, **exact)
    steered = history.filter(like="weight_").iloc[-1].nunique() > 1
    assert steered == (case not in ("uniform", "last_layer"))


@pytest.mark.parametrize("case", list(ranks_program.CASES))
def test_the_ranks_end_with_the_same_network(several, case):
    """With BatchNorm too, whose statistics are those of a rank's share, then averaged."""
    folder, numbers = several
    states = [read(folder, case, rank)[0] for rank in numbers]
    for name, value in states[0].items():
        for other in states[1:]:
            np.testing.assert_array_equal(other[name], value, err_msg=name)
    on_disk, _ = load_checkpoint(folder / case / "checkpoints" / "step_000000012.safetensors")
    part = "average" if case in ("average", "complex") else "model"
    for name, value in states[0].items():
        kept = ranks_program.real(on_disk[f"{part}.{name}"])
        np.testing.assert_array_equal(kept.numpy(), value, err_msg=name)


def test_both_exact_ways_with_batch_norm_train_the_same_network(several):
    folder, numbers = several
    for rank in numbers:
        by_pass, by_group = (read(folder, f"batch_norm{c}", rank) for c in ("", "_per_group"))
        for name, value in by_pass[0].items():
            np.testing.assert_allclose(by_group[0][name], value, rtol=1e-7, atol=1e-9, err_msg=name)
        pd.testing.assert_frame_equal(by_group[1], by_pass[1], rtol=1e-7)


def test_every_sample_is_evaluated_once(one, several):
    (folder, numbers), read_json = several, lambda p: np.array(json.loads(p.read_text()))
    wanted = read_json(one / "said-0.json")
    for rank in numbers:
        np.testing.assert_allclose(read_json(folder / f"said-{rank}.json"), wanted, rtol=1e-5)


def test_shares_and_parts_hold_each_once(monkeypatch):
    for number in (1, 2, 3, 7):
        monkeypatch.setattr(ranks, "number", lambda n=number: n)
        shares, parts = [], []
        for rank in range(number):
            monkeypatch.setattr(ranks, "rank", lambda r=rank: r)
            shares += ranks.share(torch.arange(20)).tolist()
            parts += np.arange(20)[ranks.own_part(np.arange(20))].tolist()
        assert sorted(shares) == list(range(20)) and parts == list(range(20))
    with pytest.raises(InputError, match="got 3 for 7"):
        ranks.own_part(np.arange(3))


def test_a_dead_rank_ends_the_run_which_goes_on_alone(config_file, caplog):
    """With a message, from the last checkpoint, to what an uninterrupted run gives."""
    folder = config_file.parent / "runs" / "tiny"
    settings = [
        "--train.methods=[tdr]", "--train.dropout=0", "--train.steps=400", "--train.width=6",
        "--train.checkpoint_every=100", "--train.learning_rate=0.002", "--quiet",
    ]  # fmt: skip
    main(["build", str(config_file), "--quiet"])
    started = torchrun(2, "-m", "weather_tdr", "train", config_file, *settings)
    checkpoints = folder / "tdr" / "checkpoints"
    for _ in range(1200):
        if any(checkpoints.glob("step_*.safetensors")) or started.poll() is not None:
            break
        time.sleep(0.1)
    children = psutil.Process(started.pid).children()
    (second,) = [p for p in children if p.environ().get("RANK") == "1"]
    second.kill()
    output, _ = started.communicate(timeout=60)
    assert started.returncode == 1
    assert "error: rank 0 of 2 cannot go on (" in output and "--resume" in output
    assert output.count("error: ") == 1 and "SIGKILL" in output
    _, facts = load_checkpoint(max(checkpoints.glob("step_*.safetensors")))
    assert 0 < facts["step"] < 400
    with caplog.at_level("INFO", "weather_tdr.train"):
        main(["train", str(config_file), *settings, "--resume"])
    assert f"going on from step {facts['step']} of" in caplog.text
    resumed = load_detector(folder / "tdr").model.state_dict()
    assert len(pd.read_csv(folder / "tdr" / "history.csv")) == 20
    main(["train", str(config_file), *settings])
    for name, value in load_detector(folder / "tdr").model.state_dict().items():
        torch.testing.assert_close(resumed[name], value, rtol=0.0, atol=ATOL, msg=name)


def test_other_commands_are_refused(config_file, monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(SystemExit) as stop:
        main(["run", str(config_file)])
    assert stop.value.code == 2
    assert "must be `train` with several processes, got `run`" in capsys.readouterr().err


def test_double_backward_is_for_one_process(monkeypatch):
    monkeypatch.setattr(ranks, "number", lambda: 2)
    batch = ranks_program.samples(8, 0, 0.5, 1, 8)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(128, 2)).double()
    with pytest.raises(InputError, match="for one process, got 2"):
        hypergradient(
            model, batch, batch, torch.ones(3).double() / 3, loss=lambda o, y: o.sum(1),
            learning_rate=0.1, scale=torch.ones(8).double(), way="double_backward",
        )  # fmt: skip
