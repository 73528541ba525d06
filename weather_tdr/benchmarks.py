"""Methods x seeds on one data set: one tidy table, one Markdown table, one figure.

A finished cell (method, seed) is a file and is never run again.
"""

import hashlib
import json
import logging
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn
from tqdm import tqdm

from data_pipelines.errors import InputError, unknown_name
from data_pipelines.images import Images, make_image_sets
from data_pipelines.schema import GROUPS, LABELS
from data_pipelines.store import open_store, store_identity
from weather_tdr.checkpoints import write_atomically
from weather_tdr.config import Config, read_config
from weather_tdr.data import Batch, load_split
from weather_tdr.evaluate import EVALUATED, predict, predictions_table
from weather_tdr.image_models import ConvNet, LeNet5, ResNet
from weather_tdr.methods.method import load_method
from weather_tdr.model_files import commit, no_nan
from weather_tdr.models import PatchNet, probability
from weather_tdr.plots import methods_figure, save_figure
from weather_tdr.run import build
from weather_tdr.scores import Counts, choose_threshold, ranking_scores
from weather_tdr.tables import main_score, markdown
from weather_tdr.train import Train, fit

log = logging.getLogger(__name__)
NETWORKS = ("lenet5", "convnet", "resnet20", "resnet32")


@dataclass
class Benchmark:
    """Methods x seeds.

    Attributes:
        name: the results go to OUTPUT/NAME.
        output: folder of all benchmarks.
        images: which images, and how imbalanced; not used when `run` is given.
        run: configuration of a run on fields, whose patch store is used.
        network: for images: `lenet5`, `convnet`, `resnet20`, `resnet32`.
        methods: names of `configs/methods/`, or paths.
        seeds: number of seeds, each with its own imbalanced set (images), start and order.
        workers: processes, one thread each; 0 is one a core.
        train: how to train; `methods` and `seed` there are not used.
    """

    name: str = "benchmark"
    output: str = "runs/benchmarks"
    images: Images = field(default_factory=Images)
    run: str = ""
    network: str = "convnet"
    methods: list[str] = field(default_factory=lambda: ["uniform", "tdr"])
    seeds: int = 5
    workers: int = 0
    train: Train = field(default_factory=Train)

    def __post_init__(self) -> None:
        """Checks the names and numbers.

        Raises:
            InputError: an unknown network or method, or no seed.
        """
        if self.network not in NETWORKS:
            raise unknown_name("`network`:", self.network, NETWORKS)
        if self.seeds < 1 or self.workers < 0:
            raise InputError(
                "`seeds` must be positive and `workers` not negative, got "
                f"{self.seeds} and {self.workers}."
            )
        made = [load_method(method).name for method in self.methods]
        if not made or len(set(made)) < len(made):
            raise InputError(f"`methods` must name each method once, got {self.methods}.")

    @property
    def folder(self) -> Path:
        """Where the results go."""
        return Path(self.output).expanduser() / self.name


def run_benchmark(benchmark: Benchmark, *, progress: bool = True) -> pd.DataFrame:
    """Runs every cell that is not finished; writes `results.csv`, `table.md`, `methods.png`.

    Returns:
        The results: a row a method and seed.

    Raises:
        InputError: a cell failed; the others are kept.
    """
    folder = benchmark.folder
    cells = folder / "cells"
    cells.mkdir(parents=True, exist_ok=True)
    config = read_config(Path(benchmark.run)) if benchmark.run else None
    data = ""
    if config is not None:
        config.output, config.name = str(folder), "run"
        data = store_identity(open_store(build(config, progress=progress)).attrs)
    wanted = {
        cells / f"{load_method(m).name}-{s}-{_identity(benchmark, m, data)}.json": (m, s)
        for s in range(benchmark.seeds)
        for m in benchmark.methods
    }
    todo = [path for path in wanted if not path.is_file()]
    failed: dict[str, str] = {}
    workers = min(benchmark.workers or len(os.sched_getaffinity(0)), max(len(todo), 1))
    log.info("%d of %d cells to run, %d at once", len(todo), len(wanted), workers)
    # Started afresh, not forked: forking after threads have started deadlocks.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        jobs = {pool.submit(run_cell, benchmark, config, *wanted[p], p): p for p in todo}
        bar = tqdm(total=len(todo), desc=benchmark.name, disable=not progress, unit="cell")
        for job in as_completed(jobs):
            if error := job.exception():
                failed[jobs[job].stem] = str(error)
            bar.update()
        bar.close()
    if failed:
        name, reason = next(iter(failed.items()))
        raise InputError(
            f"{len(failed)} of {len(wanted)} cells failed, the first is {name}: {reason} "
            "Finished cells are kept; the same command goes on with the rest."
        )
    results = pd.DataFrame([json.loads(path.read_text()) for path in wanted])
    write_atomically(folder / "results.csv", results.to_csv(index=False, float_format="%.6g"))
    write_atomically(folder / "table.md", markdown(results))
    score = main_score(results)
    save_figure(methods_figure(results, score, benchmark.name), folder / "methods.png")
    return results


def _identity(benchmark: Benchmark, method: str, data: str) -> str:
    """A short hash of all that decides a cell but its seed."""
    values = asdict(benchmark)
    for key in ("name", "output", "methods", "seeds", "workers", "run"):
        del values[key]
    for key in ("methods", "seed"):
        del values["train"][key]
    if benchmark.run:
        del values["images"], values["network"]
    facts = json.dumps([values, asdict(load_method(method)), data], sort_keys=True)
    return hashlib.sha256(facts.encode()).hexdigest()[:8]


def run_cell(
    benchmark: Benchmark, config: Config | None, method: str, seed: int, path: Path
) -> None:
    """Trains and tests one method with one seed; writes its row to `path`."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    recipe = load_method(method)
    settings = replace(benchmark.train, seed=seed)
    row: dict[str, Any] = {
        "benchmark": benchmark.name,
        "method": recipe.name,
        "data": recipe.data,
        "seed": seed,
        "steps": settings.steps,
    }
    if config is None:
        images = benchmark.images
        sets = make_image_sets(images, seed)
        parts = {
            k: Batch.of((torch.from_numpy(v[0]), torch.from_numpy(v[1])))
            for k, v in vars(sets).items()
        }
        model = make_network(benchmark.network, parts["train"].patches.shape)
        history = fit(model, parts["train"], parts["target"], recipe, settings, names=LABELS)
        with torch.inference_mode():
            test = parts["test"]
            score = torch.cat(
                [probability(model(x)) for x in torch.split(test.patches, 1000)]
            ).numpy()
        scores = test_scores(score.astype(np.float64), test.labels.numpy(), 0.5)
        names = [",".join(map(str, side)) for side in (images.minority, images.majority)]
        row |= {"dataset": f"{images.dataset} {names[0]} against {names[1]}"}
        row |= {"imbalance": images.ratio}
    else:
        store = open_store(config.folder / "patches.zarr")
        grid = store.attrs["grid"]
        model = PatchNet(
            store.sizes["variable"], grid["size"], grid["stride"], settings.width, settings.dropout
        )
        history = fit(
            model,
            load_split(store, "train"),
            load_split(store, "target"),
            recipe,
            settings,
            names=LABELS if recipe.weights_per == "class" else GROUPS,
        )
        table = predictions_table(store, {s: predict(model, store, s) for s in EVALUATED})
        of = {s: table[table["split"] == s] for s in EVALUATED}
        threshold = choose_threshold(
            of["validation"]["score"].to_numpy(), of["validation"]["label"].to_numpy()
        )
        label = of["test"]["label"].to_numpy()
        scores = test_scores(of["test"]["score"].to_numpy(), label, threshold)
        row |= {"dataset": Path(benchmark.run).stem, "imbalance": 1.0 - float(label.mean())}
    row |= scores | {
        "seconds": history.attrs["seconds"],
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "commit": commit(),
    }
    write_atomically(path, json.dumps(no_nan(row)) + "\n")


def make_network(name: str, shape: torch.Size) -> nn.Module:
    """A network for images of shape (n, channels, size, size) and two classes.

    Raises:
        InputError: the images are too small for it.
    """
    channels, size = shape[1], shape[-1]
    if size < {"lenet5": 12, "convnet": 8}.get(name, 1):
        raise InputError(
            f"`network: {name}` needs larger images, got {size} x {size}. Use `convnet`."
        )
    if name == "lenet5":
        return LeNet5(channels, size, 2)
    if name == "convnet":
        return ConvNet(channels, size, 2)
    return ResNet(int(name.removeprefix("resnet")), channels, 2)


def test_scores(score: np.ndarray, label: np.ndarray, threshold: float) -> dict[str, float]:
    """Scores of a binary test; the minority (incident) is label 1.

    Args:
        score: probability of label 1, shape (n,).
        label: 0 or 1, shape (n,).
        threshold: from which on it counts as label 1.
    """
    counts = Counts.of(score >= threshold, label == 1)
    s = counts.scores()
    recall, precision, specificity = s["pod"], 1.0 - s["far"], 1.0 - s["pofd"]
    below = 2 * counts.hits + counts.false_alarms + counts.misses
    return {
        "accuracy": (counts.hits + counts.correct_negatives) / len(label),
        "balanced_accuracy": s["balanced_accuracy"],
        "minority_recall": recall,
        "minority_precision": precision,
        "minority_f1": 2 * counts.hits / below if below else float("nan"),
        "g_mean": float(np.sqrt(recall * specificity)),
        "csi": s["csi"],
        **ranking_scores(score, label),
    }


test_scores.__test__ = False  # type: ignore[attr-defined]  # no test of pytest's
