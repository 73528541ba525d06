"""The patch store (Zarr v3): written whole or not at all; the only door to training."""

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import numpy.typing as npt
import xarray as xr
from dask.diagnostics.progress import ProgressBar

from data_pipelines.errors import InputError
from data_pipelines.schema import (
    GROUPS,
    LABELS,
    PATCH_DIMS,
    SPLITS,
    STORE_VERSION,
    IntArray,
    check_patches,
    check_statistics,
)

MARKER = "complete"
CHUNK_SAMPLES = 2048
VARIABLE_COORDS = ("units", "standard_name", "base_variable", "lag")
CODED: dict[str, Sequence[str]] = {"label": LABELS, "group": GROUPS, "split": SPLITS}


def write_store(
    path: str | Path,
    patches: da.Array,
    coordinates: Mapping[str, np.ndarray],
    variables: xr.Dataset,
    statistics: tuple[da.Array, da.Array],
    attributes: Callable[[npt.NDArray[np.bool_]], tuple[IntArray, dict[str, Any]]],
    *,
    names: Mapping[str, Sequence[str]] | None = None,
    scale_factor: float | None = None,
    progress: bool = False,
) -> Path:
    """Computes and writes the patch store.

    The store is written beside `path` and renamed when it is whole.

    Args:
        path: folder to make; an older store there is replaced.
        patches: shape (sample, variable, y, x), lazy.
        coordinates: a value per sample: ``time, latitude, longitude, label, group, incident_id,
            reason``; the last two text.
        variables: coordinates along ``variable``.
        statistics: lazy mean and standard deviation, shape (variable,).
        attributes: gives, from whether each sample is free of missing values, the split of each
            sample and what the store says about itself (JSON values).
        names: of the labels and groups, where they are not those of incidents.
        scale_factor: where the patches are given as integers: what these are multiplied by.
        progress: shows a progress bar.
    """
    path = Path(path)
    partial = path.with_name(path.name + ".partial")
    if partial.exists():
        shutil.rmtree(partial)
    partial.parent.mkdir(parents=True, exist_ok=True)
    patches = patches.rechunk({0: CHUNK_SAMPLES, 1: -1, 2: -1, 3: -1})
    finite = da.isfinite(patches).all(axis=(1, 2, 3))
    about = {"long_name": "patches of the fields"}
    packing = {} if scale_factor is None else {"scale_factor": scale_factor}
    store = xr.Dataset(
        {
            "patches": (PATCH_DIMS, patches, about | packing),
            "finite": (("sample",), finite),
            "mean": (("variable",), statistics[0], {"long_name": "mean over training dates"}),
            "std": (
                ("variable",),
                statistics[1],
                {"long_name": "standard deviation over training dates"},
            ),
        }
    )
    with ProgressBar(dt=0.5) if progress else nullcontext():
        store.to_zarr(partial, zarr_format=3, mode="w", consolidated=False)
    written = xr.open_zarr(partial, consolidated=False)
    try:
        check_statistics(
            [str(v) for v in variables["variable"].values], written["mean"], written["std"]
        )
        split, facts = attributes(written["finite"].to_numpy())
    except InputError:
        shutil.rmtree(partial)
        raise
    table = _table({**coordinates, "split": split}, CODED | dict(names or {}))
    # Text along `variable` lies in the attributes: Zarr v3 has no stable type for it yet.
    described = {k: [str(v) for v in variables[k].values] for k in ("variable", *VARIABLE_COORDS)}
    table.attrs = {
        **facts, "variables": described, "store_version": STORE_VERSION, MARKER: True
    }  # fmt: skip
    encoding = {name: {"chunks": (len(split),)} for name in table.data_vars if len(split)}
    table.to_zarr(partial, mode="a", consolidated=False, encoding=encoding)
    if path.exists():  # only now: until here the older store was whole
        shutil.rmtree(path)
    partial.rename(path)
    return path


def _table(coordinates: Mapping[str, np.ndarray], coded: Mapping[str, Sequence[str]]) -> xr.Dataset:
    """Per-sample values; text as codes with CF flag meanings, or with a list of values."""
    table = xr.Dataset()
    for name, values in coordinates.items():
        attributes: dict[str, Any] = {"long_name": f"{name} of the sample"}
        if name in coded:
            meanings = coded[name]
            attributes |= {"flag_values": list(range(len(meanings)))}
            attributes |= {"flag_meanings": " ".join(meanings)}
            values = np.asarray(values, dtype=np.int8)
        elif name in ("incident_id", "reason"):
            unique, codes = np.unique(np.asarray(values, dtype=str), return_inverse=True)
            attributes |= {"values": [str(u) for u in unique]}
            values = codes.astype(np.int32)
        elif name == "latitude":
            attributes |= {"standard_name": "latitude", "units": "degrees_north"}
        elif name == "longitude":
            attributes |= {"standard_name": "longitude", "units": "degrees_east"}
        elif name == "time":
            attributes |= {"standard_name": "time"}
        table[name] = (("sample",), values, attributes)
    return table


def open_store(path: str | Path) -> xr.Dataset:
    """Opens a finished patch store lazily.

    Returns:
        Dataset as of the contract; ``incident_id`` and ``reason`` as text.

    Raises:
        InputError: there is no store, it is unfinished, or it breaks the contract.
    """
    path = Path(path)
    if not path.is_dir():
        raise InputError(f"no patch store at {path}. Run `weather-tdr build CONFIG` first.")
    try:
        store: xr.Dataset = xr.open_zarr(path, consolidated=False, chunks={})
    except (ValueError, OSError, KeyError) as error:
        raise InputError(f"{path} is no patch store. Run `weather-tdr build CONFIG`.") from error
    if not store.attrs.get(MARKER) or store.attrs.get("store_version") != STORE_VERSION:
        raise InputError(
            f"the patch store {path} is unfinished or of another version. Delete it and run "
            "`weather-tdr build CONFIG` again."
        )
    described = store.attrs["variables"]
    coords = {k: ("variable", described[k]) for k in VARIABLE_COORDS}
    store = store.assign_coords({"variable": described["variable"], **coords})
    for name in ("incident_id", "reason"):
        values = np.array(store[name].attrs["values"], dtype=object)
        store[name] = (("sample",), values[store[name].to_numpy()])
    check_patches(store)
    # Packed integers are read as float64, since JSON does not tell the type of a scale factor.
    store["patches"] = store["patches"].astype(np.float32)
    return store


def meanings(store: xr.Dataset, name: str) -> tuple[str, ...]:
    """Names of the labels (`label`) or groups (`group`) of a store."""
    return tuple(str(store[name].attrs["flag_meanings"]).split())


def fingerprint(paths: Sequence[str | Path]) -> dict[str, str]:
    """SHA-256 of each input, by its position and name.

    Of a file: over its content, beyond 64 MiB over its size, time of change, beginning and end;
    of a Zarr store: over names and sizes.
    """
    prints = {}
    for number, path in enumerate(Path(p).expanduser() for p in paths):
        digest = hashlib.sha256()
        if path.is_dir():
            for file in sorted(p for p in path.rglob("*") if p.is_file()):
                digest.update(f"{file.relative_to(path)} {file.stat().st_size}\n".encode())
                if file.suffix == ".json":
                    digest.update(file.read_bytes())
        else:
            facts = path.stat()
            with path.open("rb") as handle:
                if facts.st_size <= 2**26:
                    digest.update(handle.read())
                else:
                    digest.update(f"{facts.st_size} {facts.st_mtime_ns}".encode())
                    digest.update(handle.read(2**20))
                    handle.seek(-(2**20), 2)
                    digest.update(handle.read())
        prints[f"{number} {path.name}"] = digest.hexdigest()
    return prints


def same_build(path: str | Path, attributes: Mapping[str, Any]) -> bool:
    """True when a finished store at `path` came from the same inputs and settings."""
    try:
        store = xr.open_zarr(Path(path), consolidated=False, chunks={})
    except (ValueError, OSError, KeyError):
        return False
    return bool(
        store.attrs.get(MARKER)
        and store.attrs.get("store_version") == STORE_VERSION
        and store_identity(store.attrs) == store_identity(attributes)
    )


def store_identity(attributes: Mapping[str, Any]) -> str:
    """A short hash of the inputs and settings that a store comes from."""
    facts = json.dumps({k: attributes.get(k) for k in ("settings", "fingerprints")}, sort_keys=True)
    return hashlib.sha256(facts.encode()).hexdigest()[:16]
