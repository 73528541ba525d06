"""One cell of a benchmark: one method, one seed, one patch store -> one row."""

import json
import logging
import math
import multiprocessing
import os
import platform
import shutil
import signal
import threading
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import nn

from data_pipelines.errors import Diverged, InputError, NotResumable
from data_pipelines.schema import SPLITS
from data_pipelines.store import meanings, open_store
from data_pipelines.writing import no_nan, write_atomically
from weather_tdr import __version__
from weather_tdr.augment import augmentation
from weather_tdr.class_scores import balanced_accuracy, class_scores, rare_classes
from weather_tdr.data import Batch, load_split
from weather_tdr.devices import pick_device
from weather_tdr.evaluate import class_probabilities
from weather_tdr.image_models import make_network
from weather_tdr.methods.losses import with_cosine_layer
from weather_tdr.methods.method import load_method
from weather_tdr.model_files import commit
from weather_tdr.models import PatchNet
from weather_tdr.scores import choose_threshold, ranking_scores
from weather_tdr.train import fit
from weather_tdr.train_settings import Train

log = logging.getLogger(__name__)
VERSIONS = (
    f"python {platform.python_version()}, torch {torch.__version__}, numpy {np.__version__}, "
    f"weather-tdr {__version__}"
)
GUARD = (
    'Put the call in a script under `if __name__ == "__main__":`, since workers import the '
    "script, or set `workers` to 1."
)
WHY_ENDED = f"It was killed, as for want of memory, or could not start. {GUARD}"


def run_cells(
    cells: Sequence[tuple[Any, ...]], workers: int
) -> Generator[tuple[int, BaseException | None]]:
    """Runs cells, several at once; one worker is this process.

    Workers end at once when the caller stops reading, and when this process dies.

    Args:
        cells: arguments of `run_cell`.
        workers: how many at once.

    Yields:
        Number of each cell that is done, and its error if it has failed.
    """
    if workers == 1:
        for number, arguments in enumerate(cells):
            try:
                run_cell(*arguments)
            except Exception as error:
                yield number, error
            else:
                yield number, None
        return
    # Started afresh, not forked: forking after threads have started deadlocks.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_end_with_parent)
    try:
        with _interrupts_ignored():  # by the workers, who inherit it
            jobs = {pool.submit(run_cell, *arguments): k for k, arguments in enumerate(cells)}
        for job in as_completed(jobs):
            failure = job.exception()
            if isinstance(failure, BrokenProcessPool):
                failure = InputError(f"a process ended before its cell did. {WHY_ENDED}")
            yield jobs[job], failure
    except BaseException:
        for worker in list((pool._processes or {}).values()):
            worker.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def refuse_in_imported_main() -> None:
    """Refuses a benchmark in a process that is about to become a worker of the same benchmark.

    Raises:
        InputError: a worker imports the script that started it, and that runs all of it again.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise InputError(f"a benchmark must not be started by its own workers. {GUARD}")


def _end_with_parent() -> None:
    """A worker whose main process has died ends too, in whatever it is."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    gone = parent.sentinel

    def watch() -> None:
        wait([gone])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """Ctrl-C does nothing to this process, nor ever to those that it starts meanwhile."""
    if threading.current_thread() is not threading.main_thread():  # which cannot set it
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _threads(number: int) -> Iterator[None]:
    """Torch works on so many threads within the context."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def run_cell(
    store_path: Path, network: str, train: Train, method: str, seed: int, row: dict[str, Any],
    path: Path, threads: int = 1,
) -> None:  # fmt: skip
    """Trains and tests one method with one seed; writes its row to `path`.

    A cell that is stopped goes on from its last checkpoint, which lies in `folder_of(path)` until
    the row is there; one that another version of this package has begun starts anew.

    Args:
        store_path: patch store of the cell.
        network: name of a network for images; empty for PatchNet on fields.
        train: how to train; its seed is replaced.
        method: name or path.
        seed: of start and order.
        row: what the table says about the cell besides.
        path: JSON file to write.
        threads: cores to train and test on.
    """
    torch.manual_seed(seed)
    recipe = load_method(method)
    settings = replace(train, seed=seed)
    store = open_store(store_path)
    model = make_model(store, network, settings)
    if network and recipe.loss == "ldam":
        model = with_cosine_layer(model)
    device = pick_device(train.device, own_turn())
    if device.type == "cuda":
        torch.cuda.set_device(device)  # on which a CUDA graph is recorded
    model = model.to(device)
    train_set = load_split(store, "train")
    row |= {
        "method": recipe.name,
        "data": recipe.data,
        "seed": seed,
        "learning_rate": train.learning_rate,
        "diverged": False,
        "steps": None,
        "seconds": None,
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "commit": commit(),
        "versions": VERSIONS,
        "device": f"{device.type}, {settings.precision}",
    }
    if not network:
        of_test = store["label"].to_numpy()[store["split"].to_numpy() == SPLITS.index("test")]
        row |= {"imbalance": 1.0 - float(of_test.mean())}
    kept, made_with = folder_of(path), f"{commit()}\n{VERSIONS}\n"
    note = kept / "made_with.txt"
    if kept.exists() and (not note.is_file() or note.read_text() != made_with):
        log.warning("warning: %s starts anew: another version has begun it", path.stem)
        shutil.rmtree(kept)
    kept.mkdir(exist_ok=True)
    write_atomically(note, made_with)
    try:
        with _threads(threads):
            history = fit(
                model,
                train_set,
                load_split(store, "target"),
                recipe,
                settings,
                folder=kept,
                resume=True,
                augment=augmentation(settings.augment, store),
                names=meanings(store, "label" if recipe.weights_per == "class" else "group"),
            )
            row |= _scores(model, store, network, train_set)
        row |= {"steps": int(history["step"].iloc[-1]), "seconds": history.attrs["seconds"]}
    except Diverged:
        row |= {"diverged": True}  # a result too: it has no scores
    except NotResumable as error:
        log.warning("warning: %s starts anew: %s", path.stem, error)
        shutil.rmtree(kept)
        run_cell(store_path, network, train, method, seed, row, path, threads)
        return
    write_atomically(path, json.dumps(no_nan(row)) + "\n")
    shutil.rmtree(kept, ignore_errors=True)


def folder_of(path: Path) -> Path:
    """Where a cell whose row goes to `path` keeps its checkpoints until it is finished."""
    return path.with_suffix("")


def _scores(model: nn.Module, store: xr.Dataset, network: str, train: Batch) -> dict[str, Any]:
    """Scores on the test split, and the score on validation."""
    probability, label = class_probabilities(model, store, "test")
    # Networks for images are tested as they are; a detector has a threshold, from validation.
    said = probability.argmax(axis=1)
    validation = math.nan
    if (store["split"] == SPLITS.index("validation")).any():
        known, truth = class_probabilities(model, store, "validation")
        if network:
            validation = balanced_accuracy(known.argmax(axis=1), truth)
        else:
            said = (probability[:, 1] >= choose_threshold(known[:, 1], truth)).astype(np.int64)
            validation = ranking_scores(known[:, 1], truth)["average_precision"]
    counts = np.bincount(train.labels.numpy(), minlength=probability.shape[1])
    scores = class_scores(probability, said, label, rare_classes(counts))
    return {**scores, "validation_score": validation}


def own_turn() -> int:
    """Number of this process among those of the benchmark, from 0 on."""
    return int((*multiprocessing.current_process()._identity, 1)[0]) - 1


def make_model(store: xr.Dataset, network: str, settings: Train) -> nn.Module:
    """The network of a cell, untrained."""
    channels, size = store.sizes["variable"], (store.sizes["y"], store.sizes["x"])
    if network:
        return make_network(network, channels, size[0], len(meanings(store, "label")))
    stride = store.attrs["grid"]["stride"]
    return PatchNet(channels, size, stride, settings.width, settings.dropout)
