"""What the pipelines are measured on: a file of noise, and archives that are made lazily."""

import resource
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

from data_pipelines.build import build_from
from data_pipelines.cluster import Cluster
from data_pipelines.fields import open_fields
from data_pipelines.labelling import catalogue_labeller
from data_pipelines.schema import PatchGrid
from data_pipelines.settings import Incidents, Patches, Splits

STRIDE = 16
VARIABLES = ("u850", "v850", "t850", "z500")
UNIT = 2**20 if sys.platform == "darwin" else 2**10  # of the peak memory, in MiB


def seconds(work: Callable[[], Any]) -> float:
    """Wall-clock time of a call."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def build_archive(gigabytes: float, path: str) -> tuple[float, float]:
    """Builds a store from an archive that is never stored: peak of memory in MiB, and seconds."""
    latitude, longitude = np.linspace(90.0, -90.0, 721), np.arange(1440) * 0.25
    steps = int(gigabytes * 2**30 / (2 * latitude.size * longitude.size * 4))
    shape = (steps, 2, latitude.size, longitude.size)
    values = da.map_blocks(
        _lazy_block, chunks=da.core.normalize_chunks((8, -1, -1, -1), shape), dtype=np.float32
    )
    array = _as_fields(values, ("a", "b"), latitude, longitude)
    taken = seconds(
        lambda: _build_array(array, Path(path), 32, 32, 1, share=0.05, fractions=[0.9, 0.05, 0.05])
    )
    return _peak(), taken


def _peak() -> float:
    """Peak of the memory of this process in MiB."""
    status = Path("/proc/self/status")
    if status.is_file():  # on Linux the other count begins with the peak of the parent process
        line = next(x for x in status.read_text().splitlines() if x.startswith("VmHWM"))
        return float(line.split()[1]) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / UNIT


def _lazy_block(block_info: dict[Any, Any]) -> npt.NDArray[np.float32]:
    location = block_info[None]
    shape = location["chunk-shape"]
    rows = np.sin(np.arange(shape[2], dtype=np.float32) / 50 + location["chunk-location"][0])
    return np.broadcast_to(rows[:, None], shape) + np.ones(shape, dtype=np.float32)


def write_fields(file: Path, days: int) -> None:
    """Noise on a grid of one degree, 6-hourly; contiguous, which is the fastest to read."""
    rng = np.random.default_rng(0)
    latitude, longitude = np.linspace(90.0, -90.0, 181), np.arange(360.0)
    times = pd.date_range("2000-01-01", periods=4 * days, freq="6h")
    dims = ("time", "latitude", "longitude")
    shape = (len(times), latitude.size, longitude.size)
    xr.Dataset(
        {name: (dims, rng.normal(size=shape).astype(np.float32)) for name in VARIABLES},
        {"time": times, "latitude": latitude, "longitude": longitude},
    ).to_netcdf(file)


def grid_of(file: Path, size: int) -> PatchGrid:
    """Where patches lie on the fields of a file."""
    with xr.open_dataset(file) as opened:
        return PatchGrid(opened["latitude"].values, opened["longitude"].values, size, STRIDE)


def build_file(file: Path, folder: Path, size: int, threads: int) -> float:
    """Seconds of a whole build from the file, every position kept."""
    path = folder / "store.zarr"
    shutil.rmtree(path, ignore_errors=True)
    return seconds(
        lambda: _build_array(open_fields([file], VARIABLES), path, size, STRIDE, threads)
    )


def _as_fields(
    values: da.Array, names: tuple[str, ...], latitude: Any, longitude: Any
) -> xr.DataArray:
    """Canonical fields around a lazy array, 6-hourly."""
    along = {
        "units": ["1"] * len(names),
        "standard_name": [""] * len(names),
        "base_variable": list(names),
        "lag": ["0h"] * len(names),
    }
    return xr.DataArray(
        values,
        dims=("time", "variable", "latitude", "longitude"),
        coords={
            "time": pd.date_range("2000-01-01", periods=values.shape[0], freq="6h"),
            "variable": list(names),
            "latitude": latitude,
            "longitude": longitude,
            **{k: ("variable", v) for k, v in along.items()},
        },
        name="fields",
    )


def _build_array(
    array: xr.DataArray,
    path: Path,
    size: int,
    stride: int,
    threads: int,
    *,
    share: float = 1.0,
    fractions: list[float] | None = None,
) -> None:
    """A store with two catalogue entries a step, one of them an incident."""
    times = pd.DatetimeIndex(array.indexes["time"]).repeat(2)
    rng = np.random.default_rng(1)
    catalogue = pd.DataFrame(
        {
            "time": times,
            "latitude": rng.uniform(-60.0, 60.0, len(times)),
            "longitude": rng.uniform(0.0, 360.0, len(times)),
            "storm_id": [f"s{i // 2}" for i in range(len(times))],
            "incident": np.arange(len(times)) % 2,
        }
    )
    splits = Splits(gap="0h", target_per_group=4)
    if fractions:
        splits.fractions = fractions
    build_from(
        path,
        array,
        catalogue_labeller(catalogue, Incidents(where={"incident": {"min": 1.0}})),
        Patches(size, stride, share),
        splits,
        attributes={"settings": {}, "fingerprints": {}},
        cluster=Cluster("threads", threads),
    )
