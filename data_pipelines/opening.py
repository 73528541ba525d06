"""Opens the files of gridded fields, lazily, as one data set."""

import glob
import importlib.util
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import xarray as xr
from xarray.backends import NetCDF4BackendEntrypoint

from data_pipelines.coordinates import time_dim, without_undated
from data_pipelines.errors import InputError
from data_pipelines.joining import Wanted, joined_files
from data_pipelines.proj import load_proj_first
from data_pipelines.quality import UNREADABLE, Finding
from data_pipelines.units import si_units

CHUNK_BYTES = 64 * 2**20
ZARR = ("zarr.json", ".zgroup", ".zmetadata", ".zattrs")  # one of them lies in a store
NETCDF = (b"CDF", b"\x89HDF")  # how such files begin


def files_of(paths: Sequence[str | Path]) -> list[str | Path]:
    """The files, stores and addresses that paths name: patterns such as ``era5_*.nc`` are met.

    Raises:
        InputError: a pattern that no file meets.
    """
    found: list[str | Path] = []
    for path in paths:
        if is_url(path):
            found.append(str(path))
            continue
        place = Path(path).expanduser()
        if place.exists() or not glob.has_magic(str(place)):
            found.append(place)
            continue
        met = sorted(map(Path, glob.glob(str(place), recursive=True)))  # noqa: PTH207
        if not met:
            raise InputError(f"`fields.paths`: no file meets the pattern {path}. Check the path.")
        found += met
    return found


def open_files(
    paths: Sequence[str | Path], wanted: Wanted | None = None
) -> tuple[xr.Dataset, list[Finding]]:
    """Opens files lazily and joins them; those that cannot be opened are left out and reported.

    Args:
        paths: NetCDF or GRIB files, also by patterns, or one Zarr store, on disk or by its
            address.
        wanted: what will be asked for of several files, by default all: other copies of a time
            are not compared.

    Returns:
        All variables, in the same units, and the findings. Of one file the coordinates are as
        they are in it, of several canonical.

    Raises:
        InputError: no such file, none can be opened, or they cannot be joined.
    """
    files = files_of(paths)
    if not files:
        raise InputError("`fields.paths` must name at least one NetCDF file or Zarr store, got [].")
    for file in files:
        if isinstance(file, Path) and not file.exists():
            raise InputError(f"`fields.paths`: no such file: {file}. Check the path.")
    parts, unread, names = [], [], []
    for file in files:
        try:
            part, undated = without_undated(_open_one(file))
            if undated:
                unread.append(Finding(str(file), "undated", undated, "no time", "no time"))
            if len(files) > 1 and part.sizes.get(time_dim(part) or "", 1) == 0:
                unread.append(Finding(str(file), UNREADABLE, 0, "no time", "no time"))
                continue
            parts.append(part)
            names.append(str(file))
        except (ValueError, OSError, KeyError) as error:
            if isinstance(error, InputError):
                raise
            reason = _first_line(error)
            unread.append(Finding(str(file), UNREADABLE, 0, reason, reason))
    if not parts:
        raise InputError(
            f"`fields.paths`: cannot open {', '.join(map(str, files[:3]))} as NetCDF or Zarr: "
            f"{unread[0].first}"
        )
    if len(parts) == 1:
        return parts[0], unread
    _same_units(parts)
    try:
        joined, repeated = joined_files(parts, names, wanted or Wanted())
    except InputError:
        raise
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"`fields.paths`: cannot join {', '.join(map(str, files[:3]))}: {_first_line(error)}"
        ) from error
    return joined, unread + repeated


def _same_units(parts: list[xr.Dataset]) -> None:
    """Gives variables of several files the same units, in place.

    Raises:
        InputError: the units of a variable differ, and they cannot be converted.
    """
    for name in {str(k) for part in parts for k in part.data_vars}:
        holders = [k for k, part in enumerate(parts) if name in part.data_vars]
        units = [str(parts[k][name].attrs.get("units", "1")) for k in holders]
        if len(set(units)) == 1:
            continue
        found = [si_units(u) for u in units]
        if len({si for si, _, _ in found}) > 1:
            raise InputError(
                f"`fields.paths`: variable `{name}` must have the same units in all files, got "
                f"{', '.join(sorted(set(units)))}. Convert one of them first."
            )
        for k, (si, factor, offset) in zip(holders, found, strict=True):
            attributes = {**parts[k][name].attrs, "units": si}
            parts[k] = parts[k].assign({name: widened(parts[k][name]) * factor + offset})
            parts[k][name].attrs = attributes


def widened(field: xr.DataArray) -> xr.DataArray:
    """At least float32: 1,013 hPa in Pa is beyond float16."""
    return field.astype(np.result_type(field.dtype, np.float32), copy=False)


def _first_line(error: Exception) -> str:
    """What a library says, in one line."""
    first = str(error).splitlines()[0] if str(error) else type(error).__name__
    if "did not find a match" in first:
        return "no known format"
    if "monotonic global indexes" in first:
        return "they overlap in time. Give each time once."
    return first


def is_url(path: str | Path) -> bool:
    """True for an address such as ``gs://bucket/store.zarr``."""
    return "://" in str(path)


def _open_one(file: str | Path) -> xr.Dataset:
    if isinstance(file, Path) and file.is_dir() and not any((file / n).exists() for n in ZARR):
        raise InputError(
            f"`fields.paths`: {file} is a folder, and no Zarr store. Write {file}/*.nc for the "
            "files in it."
        )
    if isinstance(file, str) or file.is_dir():
        return _open_zarr(file)
    engine = engine_of(file)
    # cfgrib would leave an index file in the archive.
    extra = {"indexpath": ""} if engine == "cfgrib" else None
    dataset = xr.open_dataset(file, chunks={}, engine=engine, backend_kwargs=extra)
    # A chunk is a run of whole fields of about CHUNK_BYTES: what is read, is used whole.
    step = sum(v.nbytes // max(v.shape[0], 1) for v in dataset.data_vars.values() if v.ndim >= 3)
    time = time_dim(dataset)
    if time is not None and step:
        dataset = dataset.chunk({time: max(1, CHUNK_BYTES // step)})
    return dataset


def engine_of(file: Path) -> Literal["cfgrib"] | type[xr.backends.BackendEntrypoint] | None:
    """What reads a file, None for a guess; to guess, xarray imports all plugins, a long time.

    Raises:
        InputError: it is GRIB, and cfgrib is not installed.
    """
    with file.open("rb") as opened:
        begins = opened.read(4)
    if begins.startswith(NETCDF):
        return NetCDF4BackendEntrypoint
    if begins != b"GRIB":
        return None
    if importlib.util.find_spec("cfgrib") is None:
        raise InputError(
            f"`fields.paths`: {file} is GRIB and needs cfgrib, got an installation without it. "
            "Install the extra `grib`."
        )
    load_proj_first()
    return "cfgrib"


def _open_zarr(store: str | Path) -> xr.Dataset:
    """A store on disk, or by its address on object storage, read without a login."""
    options: dict[str, Any] | None = (
        {"token": "anon"} if str(store).startswith(("gs://", "gcs://")) else None
    )
    if str(store).startswith("s3://"):
        options = {"anon": True}
    with warnings.catch_warnings():
        # Zarr v3 stores often come without consolidated metadata; that is no fault.
        warnings.filterwarnings("ignore", message="Failed to open Zarr store with consolidated")
        try:
            opened: xr.Dataset = xr.open_zarr(store, chunks={}, storage_options=options)
        except ImportError as error:
            raise InputError(
                f"`fields.paths`: {store} needs a package that is not installed: {error}"
            ) from error
        return opened
