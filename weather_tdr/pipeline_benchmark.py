"""Speed and memory of the pipelines, as ratios to other ways in the same run."""

import importlib.util
import multiprocessing
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
import xarray as xr
import zarr
from numpy.lib.stride_tricks import sliding_window_view

from data_pipelines.errors import InputError
from data_pipelines.store import open_store
from data_pipelines.writing import write_atomically
from weather_tdr.data import StoredSamples
from weather_tdr.model_files import commit
from weather_tdr.pipeline_cases import (
    STRIDE,
    build_archive,
    build_file,
    grid_of,
    seconds,
    write_fields,
)
from weather_tdr.settings import check_folder_name

BATCH = 256


@dataclass
class PipelineBenchmark:
    """Speed and memory of the pipelines.

    Attributes:
        name: the results go to OUTPUT/NAME.
        output: folder of all benchmarks, and of the files that are read (a few GiB).
        days: of the file that is cut: 6-hourly, one degree, four variables.
        size: grid points a side of a patch.
        rounds: turns of every way.
        archives: sizes in GiB of synthetic archives, made lazily, for the peak memory.
        workers: for the speed with several.
    """

    name: str = "pipelines"
    output: str = "runs/benchmarks"
    days: int = 60
    size: int = 32
    rounds: int = 3
    archives: list[float] = field(default_factory=lambda: [2.0, 8.0, 32.0])
    workers: int = 2

    def __post_init__(self) -> None:
        """Checks the numbers.

        Raises:
            InputError: a number out of range.
        """
        check_folder_name(self.name)
        if self.days < 10 or min(self.rounds, self.workers) < 1 or min(self.archives) < 0.5:
            raise InputError(
                "`days` must be at least 10, `rounds` and `workers` positive, `archives` at least "
                f"0.5, got {self.days}, {self.rounds}, {self.workers} and {self.archives}."
            )

    @property
    def folder(self) -> Path:
        """Where the results go."""
        return Path(self.output).expanduser() / self.name


def run_pipelines(benchmark: PipelineBenchmark) -> pd.DataFrame:
    """Measures building, reading and memory; writes `pipelines.csv`."""
    torch.set_num_threads(1)
    benchmark.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=benchmark.folder) as folder:
        rows = [
            *_building(benchmark, Path(folder)),
            *_reading(benchmark, Path(folder)),
            *_memory(benchmark, Path(folder)),
        ]
    table = pd.DataFrame(rows, columns=["measure", "way", "value", "unit", "ratio"])
    table["date"], table["commit"] = f"{datetime.now(UTC):%Y-%m-%d}", commit()
    text = table.to_csv(index=False, float_format="%.4g")
    write_atomically(benchmark.folder / "pipelines.csv", text)
    return table


Row = tuple[str, str, float, str, float]


def _rows(measure: str, unit: str, rates: dict[str, list[float]]) -> Iterator[Row]:
    """The median of each way, and its ratio to that of the first."""
    first = median(next(iter(rates.values())))
    for way, values in rates.items():
        yield measure, way, median(values), unit, median(values) / first


def _building(benchmark: PipelineBenchmark, folder: Path) -> Iterator[Row]:
    """Patches a second: from a NetCDF file to a store, against copies in memory and xbatcher."""
    file = folder / "fields.nc"
    write_fields(file, benchmark.days)
    grid, size = grid_of(file, benchmark.size), benchmark.size
    positions = grid.rows * grid.columns
    steps = benchmark.days * 4
    with xr.open_dataset(file) as opened:
        loaded = opened.to_dataarray().transpose("time", ...).to_numpy()[:40]
    # The plain bound: one strided copy of all patches, the fields wrapped beforehand.
    wrapped = np.concatenate([loaded, loaded[..., : size - 1]], axis=-1)
    windows = sliding_window_view(wrapped, (size, size), axis=(2, 3))[:, :, ::STRIDE, ::STRIDE]
    every = windows[:, :, : grid.rows, : grid.columns].transpose(0, 2, 3, 1, 4, 5)
    out = np.zeros(every.shape, dtype=np.float32)
    copied = positions * len(loaded)

    def copy() -> None:
        np.copyto(out, every)

    def copy_and_write() -> None:
        copy()
        (folder / "raw").write_bytes(out.data)
        (folder / "raw").unlink()

    ways: dict[str, Callable[[], float]] = {
        "ours, one thread": lambda: positions * steps / build_file(file, folder, size, 1),
        f"ours, {benchmark.workers} threads": lambda: (
            positions * steps / build_file(file, folder, size, benchmark.workers)
        ),
        "numpy: copy in memory": lambda: copied / seconds(copy),
        "numpy: copy in memory, write the bytes": lambda: copied / seconds(copy_and_write),
    }
    if importlib.util.find_spec("xbatcher"):
        ways["xbatcher"] = lambda: _xbatcher(file, size)
    rates: dict[str, list[float]] = {way: [] for way in ways}
    copy()  # touches the memory
    for _ in range(benchmark.rounds):
        for way, measure in ways.items():
            os.sync()  # what others wrote is on the disk by now
            rates[way].append(measure())
    yield from _rows("building", "patches/s", rates)


def _xbatcher(file: Path, size: int, most: int = 400) -> float:
    """Patches a second of xbatcher, in memory only."""
    xbatcher: Any = importlib.import_module("xbatcher")
    with xr.open_dataset(file, chunks={}) as opened:
        made = xbatcher.BatchGenerator(
            opened,
            input_dims={"latitude": size, "longitude": size, "time": 1},
            input_overlap={"latitude": size - STRIDE, "longitude": size - STRIDE},
        )

        def take() -> None:
            for number, batch in enumerate(made):
                batch.to_dataarray().to_numpy()
                if number == most:
                    break

        return most / seconds(take)


def _reading(benchmark: PipelineBenchmark, folder: Path) -> Iterator[Row]:
    """Patches a second in shuffled batches, from the page cache, against other ways."""
    store = open_store(folder / "store.zarr")
    samples = StoredSamples(store, np.arange(store.sizes["sample"]))
    reader = samples.reader
    rng = np.random.default_rng(0)
    most = min(len(reader), 40_000)
    loaded = reader.read(np.arange(most))
    array = zarr.open_array(folder / "store.zarr" / "patches", mode="r")

    def rate(take: Callable[[npt.NDArray[np.int64]], Any], batches: int, among: int) -> float:
        index = rng.integers(0, among, (batches, BATCH))
        return batches * BATCH / seconds(lambda: [take(i) for i in index])

    ways: dict[str, Callable[[], float]] = {
        "ours, as stored": lambda: rate(reader.read, 150, len(reader)),
        "ours, normalised tensors": lambda: rate(
            lambda i: samples[torch.from_numpy(i)], 150, len(reader)
        ),
        "numpy: fancy index in memory": lambda: rate(lambda i: loaded[i], 150, most),
        "zarr: orthogonal index": lambda: rate(lambda i: array.oindex[np.sort(i)], 1, len(reader)),
    }
    rates: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(benchmark.rounds + 1):
        for way, measure in ways.items():
            rates[way].append(measure())
    warm = {way: values[1:] for way, values in rates.items()}  # the first round fills the cache
    yield from _rows("reading", "patches/s", warm)


def _memory(benchmark: PipelineBenchmark, folder: Path) -> Iterator[Row]:
    """Peak memory and speed with archives that are made lazily, each in a process of its own."""
    peaks: dict[str, list[float]] = {}
    rates: dict[str, list[float]] = {}
    context = multiprocessing.get_context("spawn")
    for gigabytes in benchmark.archives:
        path = str(folder / "lazy.zarr")
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            peak, taken = pool.submit(build_archive, gigabytes, path).result()
        way = f"archive of {gigabytes:g} GiB"
        peaks[way], rates[way] = [peak], [1024 * gigabytes / taken]
        shutil.rmtree(path)
    yield from _rows("peak memory", "MiB", peaks)
    yield from _rows("building from lazy fields, one thread", "MiB/s", rates)
