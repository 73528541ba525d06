"""A benchmark that is run again, stopped, killed, or run twice at once."""

import multiprocessing
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import psutil
import pytest
import torch
from conftest import write_idx
from test_benchmarks import CONFIG

from data_pipelines.image_files import read_images
from data_pipelines.writing import alone_in
from weather_tdr.cells import run_cells
from weather_tdr.cli import main
from weather_tdr.cost_benchmark import CostBenchmark, run_cost
from weather_tdr.tables import made, published, published_markdown
from weather_tdr.train import fit
from weather_tdr.train_settings import Train

CIFAR10_LONGTAIL = {  # accuracy, %, of ResNet-32 at a factor of 100, as the literature tells it
    "cross-entropy": 70.36, "learning to reweight": 74.16, "class-balanced": 74.57,
    "Meta-Weight-Net": 75.21, "LDAM-DRW": 77.03, "balanced softmax": 77.54,
    "logit adjustment": 77.89, "MetaSAug with LDAM": 80.66, "VS with ADRW and TLA": 80.81,
}  # fmt: skip
L2RW_4_VS_9 = {0.9: 97.9, 0.95: 98.6, 0.98: 96.6, 0.99: 97.5, 0.995: 95.5}


@pytest.mark.parametrize("dataset", ["cifar10", "cifar10_jpeg"])
def test_published_numbers_stand_beside_their_own_set_and_network(dataset):
    rows = {"dataset": [f"{dataset} long-tailed"], "network": ["resnet32"], "imbalance": [100]}
    known = published(pd.DataFrame(rows))
    percent = (100 * known.set_index("method")["value"]).round(2)
    assert percent.reindex(CIFAR10_LONGTAIL).to_dict() == CIFAR10_LONGTAIL
    assert (known["reported_in"] != "").all() and known["reported_in"].notna().all()
    text = published_markdown(pd.DataFrame(rows))
    assert ("lossless images" in text) is ("jpeg" in dataset)
    assert "| 100 | Meta-Weight-Net | accuracy 0.752 |" in text
    for key, other in (("network", "convnet"), ("imbalance", 50), ("dataset", "cifar100")):
        assert published_markdown(pd.DataFrame(rows | {key: [other]})) == ""


def test_published_numbers_of_mnist():
    rows = {"dataset": "mnist 4 against 9", "network": "lenet5", "imbalance": list(L2RW_4_VS_9)}
    known = published(pd.DataFrame(rows)).set_index("imbalance")["value"]
    assert (100 * known).round(1).to_dict() == L2RW_4_VS_9


def test_what_is_not_run_again_is_what_is_there(tmp_path, capsys):
    """Rows keep the command that made them; a damaged one is made anew; two runs do not mix."""
    config = tmp_path / "tiny.yaml"
    config.write_text(CONFIG.format(output=tmp_path).replace("[uniform, tdr]", "[uniform]"))
    folder = tmp_path / "tiny"
    main(["benchmark", str(config), "--quiet", "--seeds=1"])
    first = pd.read_csv(folder / "results.csv")
    main(["benchmark", str(config), "--quiet"])
    both = pd.read_csv(folder / "results.csv")
    assert both["command"].str.contains("seeds=1").tolist() == [True, False]
    assert both.columns[-1] == "command"
    cell = next((folder / "cells").glob("uniform-0.8-0-*.json"))
    cell.write_text(cell.read_text()[:40])
    chunk = next((folder / "sets" / "0.8-0.zarr" / "patches").glob("c.*"))
    chunk.unlink()
    main(["benchmark", str(config), "--quiet"])
    again = pd.read_csv(folder / "results.csv")
    assert again["accuracy"].tolist() == both["accuracy"].tolist()
    assert again["accuracy"][0] == first["accuracy"][0]
    capsys.readouterr()
    with alone_in(folder), pytest.raises(SystemExit) as stop:
        main(["benchmark", str(config), "--quiet"])
    assert stop.value.code == 2 and "another process holds" in capsys.readouterr().err
    main(["benchmark", str(config), "--quiet"])  # it is free again


def test_tables_of_an_installation_without_git_name_no_commit():
    table = pd.DataFrame({"date": ["2001-01-02", "2001-01-01"], "commit": ["", np.nan]})
    assert made(table) == "Measured 2001-01-01 to 2001-01-02."
    assert made(table.assign(commit=["", "abc"])).endswith("2001-01-02, commit abc.")


def test_a_script_without_the_guard_is_told(tmp_path):
    """Each worker imports the script, and would run it again."""
    config = tmp_path / "tiny.yaml"
    config.write_text(CONFIG.format(output=tmp_path))
    call = f"weather_tdr.benchmark({str(config)!r}, workers=2, seeds=1)\n"
    script = tmp_path / "script.py"
    script.write_text("import weather_tdr\n" + call)
    got = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    assert got.returncode != 0 and "another process holds" not in got.stderr
    for words in ("must not be started by its own workers", "a process ended before its cell did"):
        assert f"InputError: {words}" in got.stderr or f"{words}." in got.stderr
    assert 'under `if __name__ == "__main__":`' in got.stderr.splitlines()[-1]


def test_cells_belong_to_the_images_that_they_saw(tmp_path, mnist):
    config = tmp_path / "tiny.yaml"
    config.write_text(CONFIG.format(output=tmp_path).replace("[uniform, tdr]", "[uniform]"))
    command = ["benchmark", str(config), "--quiet", "--seeds=1", "--images.dataset=mnist",
               f"--images.folder={mnist}"]  # fmt: skip
    for labels, cells in ((None, 1), (None, 1), ((np.arange(600) + 1) % 10, 2)):
        if labels is not None:
            write_idx(mnist / "train-labels-idx1-ubyte", labels, False)
        read_images.cache_clear()
        main(command)
        assert len(list((tmp_path / "tiny" / "cells").glob("*.json"))) == cells


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("--name=../elsewhere", "name of a folder"),
        ("--threads=0", "must be positive"),
        ("--network=lenet5", "error: `network: lenet5` needs larger images, got 8 x 8"),
        ("--train.choose=best", "the last step counts"),
        ("--train.patience=3", "the last step counts"),
        ("--imbalances=[0.5,0.50000001]", "each degree once"),
        ("--run=none_such.yaml", "`run` must be a name in configs/ or a YAML file"),
        ("--run=demmo", "Did you mean `demo`"),
    ],
)
def test_benchmarks_that_cannot_be(tmp_path, capsys, override, words):
    config = tmp_path / "tiny.yaml"
    config.write_text(CONFIG.format(output=tmp_path))
    with pytest.raises(SystemExit) as stop:
        main(["benchmark", str(config), "--quiet", override])
    assert stop.value.code == 2 and words in capsys.readouterr().err


def test_rates_are_not_chosen_on_a_store_without_validation(tmp_path, capsys):
    main(
        ["imbalance", "--dataset=digits", "--validation-size=0", f"--output={tmp_path}", "--quiet"]
    )
    config = tmp_path / "tiny.yaml"
    text = CONFIG.format(output=tmp_path).replace("images:", "#").replace("network: convnet", "")
    config.write_text(f"{text}\nrun: {tmp_path}/images/config.yaml\nlearning_rates: [0.1, 0.05]\n")
    with pytest.raises(SystemExit) as stop:
        main(["benchmark", str(config), "--quiet"])
    assert stop.value.code == 2
    assert "`learning_rates` are compared on validation, got none in" in capsys.readouterr().err
    assert not list(tmp_path.rglob("cells/*"))


def test_a_run_of_cells_that_is_left_ends_its_own_workers_only(tmp_path):
    own = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(60,))
    cells = [(tmp_path / "none.zarr", "", Train(), "uniform", k, {}, tmp_path / f"{k}.json")
             for k in range(2)]  # fmt: skip
    running = run_cells(cells, 2)
    number, error = next(running)
    assert number in (0, 1) and "no patch store" in str(error)
    own.start()
    workers = set(multiprocessing.active_children()) - {own}
    running.close()
    assert workers and not any(worker.is_alive() for worker in workers)
    assert own.is_alive()
    own.terminate()
    own.join()


def test_a_cell_trains_on_its_threads(tmp_path, monkeypatch):
    config = tmp_path / "tiny.yaml"
    config.write_text(CONFIG.format(output=tmp_path).replace("[uniform, tdr]", "[uniform]"))
    seen = []

    def watched(*arguments, **named):
        seen.append(torch.get_num_threads())
        return fit(*arguments, **named)

    monkeypatch.setattr("weather_tdr.cells.fit", watched)
    for threads, seeds in ((2, 1), (1, 2)):  # a finished cell is not run again with other threads
        main(["benchmark", str(config), "--quiet", f"--seeds={seeds}", f"--threads={threads}"])
    assert seen == [2, 1] and torch.get_num_threads() == 1


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize("name", ["SIGINT", "SIGKILL"])  # by default SIGTERM is as SIGKILL
def test_no_worker_outlives_the_benchmark(tmp_path, name):
    """Long cells, two at once: stopped or killed, the benchmark ends, and its workers with it."""
    config = tmp_path / "tiny.yaml"
    config.write_text(CONFIG.format(output=tmp_path))
    command = [sys.executable, "-m", "weather_tdr", "benchmark", str(config), "--workers=2",
               "--train.steps=1000000"]  # fmt: skip

    def heed() -> None:  # where the tests run in the background of a script, it is ignored
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=heed)
    try:
        begun = time.monotonic()
        while len(list((tmp_path / "tiny").glob("cells/*/checkpoints/*"))) < 2:
            assert process.poll() is None and time.monotonic() - begun < 180
            time.sleep(0.2)
        workers = psutil.Process(process.pid).children(recursive=True)
        assert len(workers) >= 2
        process.send_signal(getattr(signal, name))
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
    assert not psutil.wait_procs(workers, timeout=60)[1]
    if name == "SIGINT":
        assert process.returncode == 1 and "interrupted; the same command goes on" in said
        assert "Traceback" not in said


def test_the_cost_of_a_network_is_kept_when_the_next_is_interrupted(tmp_path, monkeypatch):
    def measured(networks, rounds, progress):
        if networks == ("patchnet",):
            raise KeyboardInterrupt
        return pd.DataFrame({"network": networks, "time_ratio": [1.5]})

    monkeypatch.setattr("weather_tdr.cost_benchmark.measure_cost", measured)
    with pytest.raises(KeyboardInterrupt):
        run_cost(CostBenchmark(output=str(tmp_path), networks=["lenet5", "patchnet"]))
    kept = pd.read_csv(tmp_path / "cost" / "cost.csv")
    assert kept["network"].tolist() == ["lenet5"] and kept["time_ratio"].tolist() == [1.5]
    assert kept["rounds"].tolist() == [15]
