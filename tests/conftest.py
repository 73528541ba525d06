"""Small synthetic fields and a small run, made once."""

import gzip
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from filelock import FileLock

from data_pipelines.proj import load_proj_first
from data_pipelines.synthetic import Synthetic, make_synthetic, write_synthetic

load_proj_first()
matplotlib.use("Agg")
torch.set_num_threads(1)

SMALL = Synthetic(days=24, spacing=5.0, explosive_per_day=2.0, ordinary_per_day=4.0, seed=3)
SHARED = Path(__file__).parents[2] / "shared" / "data"

CONFIG = """
name: tiny
output: {output}
fields:
  paths: [{fields}]
  variables: [msl, vo850]
  lags: [0h, -24h]
  hemisphere_sign: [vo850]
incidents:
  catalogue: {catalogue}
  where: {{deepening_bergeron: {{min: 1.0}}}}
patches: {{size: 8, stride: 2, background_share: 0.2}}
splits: {{target_per_group: 6, fractions: [0.5, 0.25, 0.25], gap: 1d}}
train: {{steps: 60, batch: 64, width: 8, log_every: 20, checkpoint_every: 20}}
maps: {{figures: 1}}
"""


@pytest.fixture(scope="session")
def small() -> tuple[xr.Dataset, pd.DataFrame]:
    """Fields and catalogue in memory."""
    return make_synthetic(SMALL)


@pytest.fixture(scope="session")
def made_once(tmp_path_factory):
    """Makes a folder once for all processes that run tests side by side."""
    base = tmp_path_factory.getbasetemp()
    together = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def made(name: str, make: Callable[[Path], object]) -> Path:
        with FileLock(together / f"{name}.lock"):
            if not (together / f"{name}.made").exists():
                (together / name).mkdir(exist_ok=True)
                make(together / name)
                (together / f"{name}.made").touch()
        return together / name

    return made


@pytest.fixture(scope="session")
def small_files(made_once) -> tuple[Path, Path]:
    """Fields and catalogue as files, which no test changes."""
    folder = made_once("synthetic", lambda folder: write_synthetic(SMALL, folder))
    return folder / "fields.nc", folder / "catalogue.csv"


def write_config(folder: Path, output: Path, files: tuple[Path, Path]) -> Path:
    """A configuration on the small files."""
    path = folder / "tiny.yaml"
    path.write_text(CONFIG.format(output=output, fields=files[0], catalogue=files[1]))
    return path


@pytest.fixture
def config_file(tmp_path, small_files) -> Path:
    """A configuration on the small files, with its own output folder."""
    return write_config(tmp_path, tmp_path / "runs", small_files)


@pytest.fixture(scope="session")
def tiny_store(made_once, small_files) -> Path:
    """The patches of the small files, which no test changes."""
    from weather_tdr.cli import main

    def build(folder: Path) -> None:
        main(["build", str(write_config(folder, folder, small_files)), "--quiet"])

    return made_once("store", build) / "tiny" / "patches.zarr"


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory, made_once, small_files) -> Path:
    """A whole run on the small files: the run folder, a copy of this process's own."""
    from weather_tdr.cli import main

    def run(folder: Path) -> None:
        main(["run", str(write_config(folder, folder, small_files)), "--quiet"])

    made, own = made_once("run", run), tmp_path_factory.mktemp("run")
    shutil.copytree(made / "tiny", own / "tiny")
    config = own / "tiny" / "config.yaml"
    config.write_text(config.read_text().replace(f"output: {made}", f"output: {own}"))
    return own / "tiny"


def make_field(latitude, longitude, steps=3, seed=0) -> xr.Dataset:
    """Noise with CF coordinates, named `msl`, in Pa."""
    rng = np.random.default_rng(seed)
    values = 101000 + 500 * rng.standard_normal((steps, len(latitude), len(longitude)))
    return xr.Dataset(
        {"msl": (("time", "latitude", "longitude"), values.astype("f4"), {"units": "Pa"})},
        coords={
            "time": pd.date_range("2001-01-01", periods=steps, freq="6h"),
            "latitude": np.asarray(latitude, float),
            "longitude": np.asarray(longitude, float),
        },
    )


def write_idx(path, values, zipped):
    data = struct.pack(">HBB", 0, 8, values.ndim) + struct.pack(f">{values.ndim}I", *values.shape)
    data += values.astype(np.uint8).tobytes()
    if zipped:
        path.with_name(path.name + ".gz").write_bytes(gzip.compress(data))
    else:
        path.write_bytes(data)


@pytest.fixture
def mnist(tmp_path):
    """Small files in MNIST's format: 60 images of each of 10 classes, every image unlike."""
    rng = np.random.default_rng(0)
    for zipped, (prefix, n) in enumerate((("train", 600), ("t10k", 100))):
        images = rng.integers(0, 256, (n, 28, 28))
        write_idx(tmp_path / f"{prefix}-images-idx3-ubyte", images, bool(zipped))
        write_idx(tmp_path / f"{prefix}-labels-idx1-ubyte", np.arange(n) % 10, bool(zipped))
    return tmp_path
