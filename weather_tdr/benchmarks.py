"""Methods x settings x seeds on one data set: one tidy table, one Markdown table, one figure.

A finished cell (method, setting, seed) is a file and is never run again.
"""

import json
import logging
import math
import shutil
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm import tqdm

from data_pipelines.cluster import cores
from data_pipelines.errors import InputError
from data_pipelines.image_files import read_images
from data_pipelines.image_store import write_image_store
from data_pipelines.images import Images
from data_pipelines.schema import SPLITS
from data_pipelines.store import open_store, store_identity
from data_pipelines.writing import alone_in, write_atomically
from weather_tdr import configs_folder
from weather_tdr.benchmark_settings import Benchmark, identity
from weather_tdr.cells import folder_of, refuse_in_imported_main, run_cells
from weather_tdr.config import read_config
from weather_tdr.image_models import make_network
from weather_tdr.methods.method import load_method
from weather_tdr.plots.canvas import save_figure
from weather_tdr.plots.training import methods_figure
from weather_tdr.run import build
from weather_tdr.settings import named
from weather_tdr.tables import benchmark_markdown, main_score, score_columns
from weather_tdr.train_settings import Train

log = logging.getLogger(__name__)


@dataclass
class Cell:
    """One method with one seed on one store.

    Attributes:
        method: name or path.
        seed: of set, start and order.
        images: the images of the setting; None for a run on fields.
        store: its patch store.
        train: how to train.
        path: of its result, a JSON file.
        row: what the table says about it besides scores.
    """

    method: str
    seed: int
    images: Images | None
    store: Path
    train: Train
    path: Path
    row: dict[str, Any]

    def result(self) -> dict[str, Any] | None:
        """What the finished cell wrote; None where it is not finished, or was damaged since."""
        try:
            values = json.loads(self.path.read_text())
        except (FileNotFoundError, ValueError):
            return None
        return values if isinstance(values, dict) else None


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
        InputError: a cell failed; the others are kept. Or another process runs this benchmark.
    """
    refuse_in_imported_main()
    folder = benchmark.folder
    (folder / "cells").mkdir(parents=True, exist_ok=True)
    with alone_in(folder):
        results = _all_cells(benchmark, command, progress)
        _warn_of_versions(results)
        score = main_score(results)
        for column in {score, *score_columns(results)} - {*results}:  # all diverged
            results[column] = math.nan
        write_atomically(folder / "results.csv", results.to_csv(index=False, float_format="%.6g"))
        write_atomically(folder / "table.md", benchmark_markdown(results))
        title = f"{benchmark.name}: {', '.join(results['dataset'].unique())}, {benchmark.network}"
        scores = dict.fromkeys([score, *score_columns(results), "seconds"])
        figure = methods_figure(results, list(scores), title)
        save_figure(figure, folder / "methods.png")
    return results


def _warn_of_versions(results: pd.DataFrame) -> None:
    """Says so when rows come from different versions of Python and the packages, or devices."""
    for column in [c for c in ("versions", "device") if c in results]:
        counts = results[column].fillna("unknown").value_counts(sort=False)
        if len(counts) > 1:
            told = "; ".join(f"{value} ({n} rows)" for value, n in counts.items())
            log.warning("warning: the table has rows of different %s: %s. Delete the files in "
                        "`cells/` of some to run these again.",
                        column if column == "versions" else "devices", told)  # fmt: skip


def _all_cells(benchmark: Benchmark, command: str, progress: bool) -> pd.DataFrame:
    """The rows of all cells; those that are not finished are run."""
    if benchmark.run:
        data = _fields(benchmark, progress)
    else:
        images = benchmark.images
        read = read_images(images.dataset, images.folder, images.download)
        make_network(benchmark.network, size=read.train[0].shape[-1])  # refuses what is too small
        data = _Data(read.digest)
    rates = {method: benchmark.rate_of(method) for method in benchmark.methods}
    if benchmark.learning_rates:
        rates = _choose_rates(benchmark, data, command, progress)
    wanted = [
        cell
        for images in benchmark.settings()
        for seed in range(benchmark.seeds)
        for cell in _cells(benchmark, data, images, seed, rates)
    ]
    rows = _run(benchmark, wanted, benchmark.name, command, progress)
    told = [row.pop("command", command) for row in rows]
    return pd.DataFrame(rows).assign(command=told)


def _run(
    benchmark: Benchmark, wanted: list[Cell], title: str, command: str, progress: bool
) -> list[dict[str, Any]]:
    """The results of cells; runs what is not finished.

    Raises:
        InputError: a cell failed; the others are kept.
    """
    todo = [cell for cell in wanted if cell.result() is None]
    for cell in wanted:
        if cell not in todo:  # stopped after its row, before its checkpoints were gone
            shutil.rmtree(folder_of(cell.path), ignore_errors=True)
    for cell in {cell.store: cell for cell in todo}.values():
        if cell.images is not None:
            write_image_store(cell.store, cell.images, cell.seed)
    network = "" if benchmark.run else benchmark.network
    failed: dict[str, str] = {}
    workers = min(benchmark.workers or max(cores() // benchmark.threads, 1), max(len(todo), 1))
    log.info("%s: %d of %d cells to run, %d at once", title, len(todo), len(wanted), workers)
    cells = [
        (
            c.store,
            network,
            c.train,
            c.method,
            c.seed,
            {**c.row, "command": command},
            c.path,
            benchmark.threads,
        )
        for c in todo
    ]
    with (
        tqdm(total=len(todo), desc=title, disable=not progress, unit="cell") as bar,
        closing(run_cells(cells, workers)) as done,
    ):
        for number, error in done:
            if error is not None:
                failed[todo[number].path.stem] = str(error)
            bar.update()
    if failed:
        name, reason = next(iter(failed.items()))
        raise InputError(
            f"{len(failed)} of {len(wanted)} cells failed, the first is {name}: {reason} "
            "Finished cells are kept; the same command goes on with the rest."
        )
    return [result for cell in wanted if (result := cell.result()) is not None]


def _choose_rates(
    benchmark: Benchmark, data: "_Data", command: str, progress: bool
) -> dict[str, float]:
    """The learning rate of each method: the best mean score on validation over other draws."""
    if data.store is not None:
        split = open_store(data.store)["split"].to_numpy()
        if not (split == SPLITS.index("validation")).any():
            raise InputError(
                f"`learning_rates` are compared on validation, got none in {data.store}. Build it "
                "with a validation split, or leave `learning_rates` out."
            )
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
    rows = _run(benchmark, cells, f"{benchmark.name}, learning rates", command, progress)
    result_of = {cell.path: row for cell, row in zip(cells, rows, strict=True)}
    chosen = {}
    for method in benchmark.methods:
        scores = {}
        for rate, of_rate in tried.items():
            own = [result_of[c.path] for c in of_rate if c.method == method]
            scores[rate] = -math.inf  # the worst, if it diverges
            if not any(r.get("diverged") for r in own):
                scores[rate] = sum(r["validation_score"] for r in own) / len(own)
        chosen[method] = max(scores, key=lambda rate: scores[rate])
        log.info("learning rate of %s: %g of %s", method, chosen[method], scores)
    return chosen


@dataclass
class _Data:
    """What the cells of a benchmark are about.

    Attributes:
        identity: a hash of the data.
        store: patch store of a run on fields; None for images, which are drawn for each cell.
    """

    identity: str
    store: Path | None = None


def _fields(benchmark: Benchmark, progress: bool) -> _Data:
    """The patch store of a run on fields."""
    path = named(benchmark.run, configs_folder())
    if not path.is_file():
        raise InputError(
            f"`run` must be a name in configs/ or a YAML file, got {benchmark.run}, which does not "
            f"exist in {Path.cwd()}. Give the whole path."
        )
    config = read_config(path)
    config.output, config.name = str(benchmark.folder), "run"
    store = build(config, progress=progress)
    return _Data(store_identity(open_store(store).attrs), store)


def _cells(
    benchmark: Benchmark,
    data: _Data,
    images: Images,
    seed: int,
    rates: dict[str, float],
) -> Iterator[Cell]:
    """One cell a method: at one setting, with one seed."""
    folder = benchmark.folder
    row: dict[str, Any] = {"benchmark": benchmark.name}
    if data.store:
        row |= {"dataset": Path(benchmark.run).stem, "network": "patchnet"}
        store, place = data.store, f"{seed}"
    else:
        row |= {"dataset": images.title, "imbalance": images.degree, "network": benchmark.network}
        place = f"{images.place}-{seed}"
        store = folder / "sets" / f"{place}.zarr"
    for method in benchmark.methods:
        train = replace(benchmark.train, learning_rate=rates[method])
        changed = replace(benchmark, images=images, train=train)
        own = identity(changed, method, data.identity)
        path = folder / "cells" / f"{load_method(method).name}-{place}-{own}.json"
        drawn = None if data.store else images
        yield Cell(method, seed, drawn, store, train, path, dict(row))
