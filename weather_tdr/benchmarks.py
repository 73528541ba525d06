"""Methods x settings x seeds on one data set: one tidy table, one Markdown table, one figure.

A finished cell (method, setting, seed) is a file and is never run again.
"""

import hashlib
import json
import logging
import math
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm import tqdm

from data_pipelines.cluster import cores
from data_pipelines.errors import InputError
from data_pipelines.image_store import write_image_store
from data_pipelines.images import Images
from data_pipelines.store import open_store, store_identity
from data_pipelines.writing import write_atomically
from weather_tdr.cells import folder_of, run_cells
from weather_tdr.config import read_config
from weather_tdr.image_models import make_network
from weather_tdr.methods.method import load_method
from weather_tdr.plots.canvas import save_figure
from weather_tdr.plots.training import methods_figure
from weather_tdr.run import build
from weather_tdr.tables import benchmark_markdown, main_score
from weather_tdr.train_settings import Train

log = logging.getLogger(__name__)


@dataclass
class Benchmark:
    """Methods x settings x seeds.

    Attributes:
        name: the results go to OUTPUT/NAME.
        output: folder of all benchmarks.
        images: which images, and how imbalanced; not used when `run` is given.
        run: configuration of a run on fields, whose patch store is used.
        imbalances: degrees of imbalance to run, each in place of `images.ratio` or
            `images.factor`; none for that of `images`.
        network: for images: `lenet5`, `convnet`, `mlp`, `resnet32`, `resnet56_v2_bottleneck`, ...
        methods: names of `configs/methods/`, or paths.
        seeds: number of seeds, each with its own imbalanced set (images), start and order.
        learning_rates: rates to try for each method, on draws that the table does not use, at the
            largest imbalance; the best on validation is the method's. None: `train.learning_rate`.
        tuning_seeds: number of draws that a rate is tried on.
        workers: processes, one thread each; 0 is one a core.
        train: how to train; `methods` and `seed` there are not used.
    """

    name: str = "benchmark"
    output: str = "runs/benchmarks"
    images: Images = field(default_factory=Images)
    run: str = ""
    imbalances: list[float] = field(default_factory=list)
    network: str = "convnet"
    methods: list[str] = field(default_factory=lambda: ["uniform", "tdr"])
    seeds: int = 5
    learning_rates: list[float] = field(default_factory=list)
    tuning_seeds: int = 2
    workers: int = 0
    train: Train = field(default_factory=Train)

    def __post_init__(self) -> None:
        """Checks the names and numbers.

        Raises:
            InputError: an unknown network or method, or no seed.
        """
        make_network(self.network)  # refuses an unknown name
        if self.imbalances and self.run:
            raise InputError(
                f"`imbalances` is for images, got {self.imbalances} with `run: {self.run}`. "
                "Leave one out."
            )
        if len({images.degree for images in self.settings()}) < len(self.imbalances):
            raise InputError(f"`imbalances` must name each degree once, got {self.imbalances}.")
        if self.seeds < 1 or self.workers < 0:
            raise InputError(
                "`seeds` must be positive and `workers` not negative, got "
                f"{self.seeds} and {self.workers}."
            )
        if self.learning_rates and not (self.run or self.images.validation_size):
            raise InputError(
                "`learning_rates` are compared on validation, got `images.validation_size: 0`. "
                "Give it some images, or leave `learning_rates` out."
            )
        if min([1.0, *self.learning_rates]) <= 0 or self.tuning_seeds < 1:
            raise InputError(
                "`learning_rates` and `tuning_seeds` must be positive, got "
                f"{self.learning_rates} and {self.tuning_seeds}."
            )
        made = [load_method(method).name for method in self.methods]
        if not made or len(set(made)) < len(made):
            raise InputError(f"`methods` must name each method once, got {self.methods}.")

    @property
    def folder(self) -> Path:
        """Where the results go."""
        return Path(self.output).expanduser() / self.name

    def settings(self) -> list[Images]:
        """The images of each setting, the least imbalanced first."""
        degrees = sorted(self.imbalances or [self.images.degree])
        if self.images.imbalance == "binary":
            return [replace(self.images, ratio=v) for v in degrees]
        return [replace(self.images, factor=v) for v in degrees]


@dataclass
class Cell:
    """One method with one seed on one store.

    Attributes:
        method: name or path.
        seed: of set, start and order.
        images: the images of the setting; None for a run on fields.
        store: its patch store.
        train: how to train.
        path: of its result.
        row: what the table says about it besides scores.
    """

    method: str
    seed: int
    images: Images | None
    store: Path
    train: Train
    path: Path
    row: dict[str, Any]

    def result(self) -> dict[str, Any]:
        """What the finished cell wrote."""
        values: dict[str, Any] = json.loads(self.path.read_text())
        return values


def run_benchmark(
    benchmark: Benchmark, *, command: str = "", progress: bool = True
) -> pd.DataFrame:
    """Runs every cell that is not finished; writes `results.csv`, `table.md`, `methods.png`.

    Args:
        benchmark: what to run.
        command: what started it, for the results.
        progress: shows a progress bar.

    Returns:
        The results: a row a method, setting and seed.

    Raises:
        InputError: a cell failed; the others are kept.
    """
    folder = benchmark.folder
    (folder / "cells").mkdir(parents=True, exist_ok=True)
    data = _fields(benchmark, progress) if benchmark.run else None
    rates = dict.fromkeys(benchmark.methods, benchmark.train.learning_rate)
    if benchmark.learning_rates:
        rates = _choose_rates(benchmark, data, progress)
    wanted = [
        cell
        for images in benchmark.settings()
        for seed in range(benchmark.seeds)
        for cell in _cells(benchmark, data, images, seed, rates)
    ]
    _run(benchmark, wanted, benchmark.name, progress)
    results = pd.DataFrame([cell.result() for cell in wanted]).assign(command=command)
    score = main_score(results)
    if score not in results:  # all diverged
        results[score] = math.nan
    write_atomically(folder / "results.csv", results.to_csv(index=False, float_format="%.6g"))
    write_atomically(folder / "table.md", benchmark_markdown(results))
    figure = methods_figure(results, score, benchmark.name)
    save_figure(figure, folder / "methods.png")
    return results


def _run(benchmark: Benchmark, wanted: list[Cell], title: str, progress: bool) -> None:
    """Runs what is not finished.

    Raises:
        InputError: a cell failed; the others are kept.
    """
    todo = [cell for cell in wanted if not cell.path.is_file()]
    for cell in wanted:
        if cell.path.is_file():  # stopped after its row, before its checkpoints were gone
            shutil.rmtree(folder_of(cell.path), ignore_errors=True)
    for cell in {cell.store: cell for cell in todo}.values():
        if cell.images is not None:
            write_image_store(cell.store, cell.images, cell.seed)
    network = "" if benchmark.run else benchmark.network
    failed: dict[str, str] = {}
    workers = min(benchmark.workers or cores(), max(len(todo), 1))
    log.info("%s: %d of %d cells to run, %d at once", title, len(todo), len(wanted), workers)
    cells = [(c.store, network, c.train, c.method, c.seed, c.row, c.path) for c in todo]
    bar = tqdm(total=len(todo), desc=title, disable=not progress, unit="cell")
    for number, error in run_cells(cells, workers):
        if error is not None:
            failed[todo[number].path.stem] = str(error)
        bar.update()
    bar.close()
    if failed:
        name, reason = next(iter(failed.items()))
        raise InputError(
            f"{len(failed)} of {len(wanted)} cells failed, the first is {name}: {reason} "
            "Finished cells are kept; the same command goes on with the rest."
        )


def _choose_rates(
    benchmark: Benchmark, data: tuple[Path, str] | None, progress: bool
) -> dict[str, float]:
    """The learning rate of each method: the best mean score on validation over other draws."""
    images = benchmark.settings()[-1]
    tried = {
        rate: [
            cell
            for seed in range(benchmark.seeds, benchmark.seeds + benchmark.tuning_seeds)
            for cell in _cells(
                benchmark, data, images, seed, dict.fromkeys(benchmark.methods, rate)
            )
        ]
        for rate in benchmark.learning_rates
    }
    cells = [cell for of_rate in tried.values() for cell in of_rate]
    _run(benchmark, cells, f"{benchmark.name}, learning rates", progress)
    chosen = {}
    for method in benchmark.methods:
        scores = {}
        for rate, of_rate in tried.items():
            own = [c.result() for c in of_rate if c.method == method]
            scores[rate] = -math.inf  # the worst, if it diverges
            if not any(r.get("diverged") for r in own):
                scores[rate] = sum(r["validation_score"] for r in own) / len(own)
        chosen[method] = max(scores, key=lambda rate: scores[rate])
        log.info("learning rate of %s: %g of %s", method, chosen[method], scores)
    return chosen


def _fields(benchmark: Benchmark, progress: bool) -> tuple[Path, str]:
    """The patch store of a run on fields, and its identity."""
    config = read_config(Path(benchmark.run))
    config.output, config.name = str(benchmark.folder), "run"
    store = build(config, progress=progress)
    return store, store_identity(open_store(store).attrs)


def _cells(
    benchmark: Benchmark,
    data: tuple[Path, str] | None,
    images: Images,
    seed: int,
    rates: dict[str, float],
) -> Iterator[Cell]:
    """One cell a method: at one setting, with one seed."""
    folder = benchmark.folder
    row: dict[str, Any] = {"benchmark": benchmark.name}
    if data is not None:
        row |= {"dataset": Path(benchmark.run).stem, "network": "patchnet"}
        store, place = data[0], f"{seed}"
    else:
        row |= {"dataset": images.title, "imbalance": images.degree, "network": benchmark.network}
        place = f"{images.degree:g}-{seed}"
        store = folder / "sets" / f"{place}.zarr"
    for method in benchmark.methods:
        train = replace(benchmark.train, learning_rate=rates[method])
        changed = replace(benchmark, images=images, train=train)
        identity = _identity(changed, method, "" if data is None else data[1])
        path = folder / "cells" / f"{load_method(method).name}-{place}-{identity}.json"
        yield Cell(method, seed, None if data else images, store, train, path, dict(row))


def _identity(benchmark: Benchmark, method: str, data: str) -> str:
    """A short hash of all that decides a cell but its seed."""
    values = asdict(benchmark)
    for key in (
        "name", "output", "imbalances", "methods", "seeds", "learning_rates", "tuning_seeds",
        "workers", "run",
    ):  # fmt: skip
        del values[key]
    for key in ("methods", "seed", "log_every", "checkpoint_every", "keep_checkpoints"):
        del values["train"][key]
    for key in ("folder", "download"):
        del values["images"][key]
    if benchmark.run:
        del values["images"], values["network"]
    facts = json.dumps([values, asdict(load_method(method)), data], sort_keys=True)
    return hashlib.sha256(facts.encode()).hexdigest()[:8]
