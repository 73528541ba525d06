import io
import sys

import pytest
from test_train import Killed, run

from weather_tdr.train_log import TrainLog


class Terminal(io.StringIO):
    def isatty(self):
        return True


def shown(monkeypatch, stream, *, progress):
    monkeypatch.setattr(sys, "stderr", stream)
    log = TrainLog("tdr", 3, 10, progress=progress)
    for step in log.steps(0):
        log.add({"step": step + 1, "loss": 0.25, "weight_a": 0.125, "weight_b": 0.875})
    log.close()
    return stream.getvalue()


def test_the_bar_tells_loss_weights_and_speed_on_a_terminal_only(monkeypatch):
    text = shown(monkeypatch, Terminal(), progress=True)
    assert "loss 0.250" in text and "weights 0.12 0.88" in text and "samples/s" in text
    assert "3/3" in text
    assert shown(monkeypatch, io.StringIO(), progress=True) == ""
    assert shown(monkeypatch, Terminal(), progress=False) == ""


def test_tensorboard_has_every_row_once_also_after_a_kill(tmp_path):
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")

    def kill(_):
        if (tmp_path / "checkpoints" / "step_000000040.safetensors").is_file():
            raise Killed
        return 0.5

    with pytest.raises(Killed):
        run(tmp_path, "tdr", validate=kill, s={"log_every": 5})
    _, history = run(tmp_path, "tdr", resume=True, s={"log_every": 5})
    found = events.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    for tag, column in (
        ("loss", "loss"), ("weight/incident", "weight_incident"),
        ("hypergradient/hard_negative", "hypergradient_hard_negative"),
        ("share/background", "share_background"), ("validation_score", "validation_score"),
    ):  # fmt: skip
        wanted = history[["step", column]].dropna()
        assert [e.step for e in found.Scalars(tag)] == list(wanted["step"]), tag
        assert [e.value for e in found.Scalars(tag)] == pytest.approx(list(wanted[column]), 1e-6)
    # Another training in the same folder begins anew.
    run(tmp_path, "tdr", s={"log_every": 20, "steps": 20})
    found = events.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [e.step for e in found.Scalars("loss")] == [20]
