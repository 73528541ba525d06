"""Benchmarks from Python: run one by name, or read the results that come with the package."""

from pathlib import Path
from typing import Any

import pandas as pd

from data_pipelines.errors import unknown_name
from weather_tdr import configs_folder
from weather_tdr.benchmark_settings import read_benchmark
from weather_tdr.benchmarks import run_benchmark
from weather_tdr.settings import named


def benchmark(source: str | Path, *, progress: bool = False, **changes: Any) -> pd.DataFrame:
    """Runs the cells of a benchmark that are not finished.

    Args:
        source: a name in `configs/benchmarks/`, such as `digits_imbalance`, or a YAML file.
        progress: shows a progress bar.
        changes: keys in place of those of the file: ``seeds=2, train={"steps": 100}``.

    Returns:
        A row a method, imbalance and seed.

    Raises:
        InputError: no such benchmark, an unknown key, or a cell failed.
    """
    path = named(source, configs_folder() / "benchmarks")
    return run_benchmark(read_benchmark(path, changes=changes), progress=progress)


def measured(name: str) -> pd.DataFrame:
    """The results of a benchmark that come with the package, with date and commit.

    Args:
        name: such as `mnist_49`.

    Raises:
        InputError: there are none of that name.
    """
    folder = configs_folder() / "benchmarks" / "results"
    if not (folder / f"{name}.csv").is_file():
        raise unknown_name("results", name, (p.stem for p in folder.glob("*.csv")))
    return pd.read_csv(folder / f"{name}.csv", dtype={"commit": str})  # 8069e32 is no number
