"""Speed and memory of dense incident maps, against one patch at a time, in the same run."""

import multiprocessing
import resource
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from numpy.lib.stride_tricks import sliding_window_view

from data_pipelines.errors import InputError
from data_pipelines.writing import write_atomically
from weather_tdr.dense import dense_log_odds
from weather_tdr.evaluate import PREDICT_SAMPLES
from weather_tdr.model_files import commit
from weather_tdr.models import PatchNet, log_odds
from weather_tdr.settings import check_folder_name

SIZE, STRIDE, VARIABLES = 16, 4, 4
SMALL, LARGE = 2.5, 0.25  # degrees: what patch by patch can do in seconds, and ERA5's own grid


@dataclass
class MapBenchmark:
    """Speed and memory of incident maps.

    Attributes:
        name: the results go to OUTPUT/NAME.
        output: folder of all benchmarks.
        rounds: turns of every way.
        threads: of torch; 0 is one a core.
    """

    name: str = "maps"
    output: str = "runs/benchmarks"
    rounds: int = 3
    threads: int = 0

    def __post_init__(self) -> None:
        """Checks the numbers.

        Raises:
            InputError: a number out of range.
        """
        check_folder_name(self.name)
        if self.rounds < 1 or self.threads < 0:
            raise InputError(
                "`rounds` must be positive and `threads` not negative, got "
                f"{self.rounds} and {self.threads}."
            )

    @property
    def folder(self) -> Path:
        """Where the results go."""
        return Path(self.output).expanduser() / self.name


def run_maps(benchmark: MapBenchmark) -> pd.DataFrame:
    """Measures both ways on the same fields and positions; writes `maps.csv`."""
    if benchmark.threads:
        torch.set_num_threads(benchmark.threads)
    rows = []
    for step, positions in ((STRIDE, "every stride"), (1, "every grid point")):
        taken: dict[str, list[float]] = {"dense": [], "patch by patch": []}
        for _ in range(benchmark.rounds):
            for way, measure in (("dense", _dense), ("patch by patch", _patch_by_patch)):
                taken[way].append(measure(SMALL, step))
        first = median(taken["dense"])
        for way, values in taken.items():
            ratio = median(values) / first
            rows.append((positions, f"{SMALL:g} degrees", way, median(values), ratio, np.nan))
    context = multiprocessing.get_context("spawn")
    for step, positions in ((STRIDE, "every stride"), (1, "every grid point")):
        with ProcessPoolExecutor(1, mp_context=context) as pool:  # a peak of its own
            values, peak = pool.submit(_large, step, benchmark.rounds, benchmark.threads).result()
        rows.append((positions, f"{LARGE:g} degrees", "dense", median(values), 1.0, peak))
    columns = ["positions", "globe", "way", "seconds", "ratio", "peak_gib"]
    table = pd.DataFrame(rows, columns=columns)
    table["threads"] = torch.get_num_threads()
    table["date"], table["commit"] = f"{datetime.now(UTC):%Y-%m-%d}", commit()
    benchmark.folder.mkdir(parents=True, exist_ok=True)
    text = table.to_csv(index=False, float_format="%.4g")
    write_atomically(benchmark.folder / "maps.csv", text)
    return table.drop(columns=["date", "commit"])


def _network() -> PatchNet:
    torch.manual_seed(0)
    return PatchNet(VARIABLES, SIZE, STRIDE).eval()


def _globe(spacing: float) -> npt.NDArray[np.float32]:
    shape = (1, VARIABLES, round(180 / spacing) + 1, round(360 / spacing))
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def _wrapped(spacing: float) -> npt.NDArray[np.float32]:
    """A globe that goes around once and the width of a patch further."""
    fields = _globe(spacing)
    return np.concatenate([fields, fields[..., : SIZE - 1]], axis=-1)


def _dense(spacing: float, step: int) -> float:
    """Seconds for one globe."""
    model, fields = _network(), _wrapped(spacing)
    begun = perf_counter()
    dense_log_odds(model, torch.from_numpy(fields), step)
    return perf_counter() - begun


def _patch_by_patch(spacing: float, step: int) -> float:
    """Seconds for the same positions, cut and given to the network in large batches."""
    model, fields = _network(), _wrapped(spacing)
    begun = perf_counter()
    windows = sliding_window_view(fields[0], (SIZE, SIZE), axis=(1, 2))[:, ::step, ::step]
    windows = windows.transpose(1, 2, 0, 3, 4)
    rows = max(1, PREDICT_SAMPLES // windows.shape[1])
    with torch.inference_mode():
        for first in range(0, len(windows), rows):
            patches = windows[first : first + rows].reshape(-1, VARIABLES, SIZE, SIZE)
            log_odds(model(torch.from_numpy(patches)))
    return perf_counter() - begun


def _large(step: int, rounds: int, threads: int) -> tuple[list[float], float]:
    """Seconds for a globe of ERA5's resolution, and the peak of the process in GiB."""
    if threads:
        torch.set_num_threads(threads)
    taken = [_dense(LARGE, step) for _ in range(rounds)]
    return taken, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
