"""The patch store (Zarr v3), opened and checked: the only door to training."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr

from data_pipelines.errors import InputError
from data_pipelines.parts import altered, chunk_file
from data_pipelines.schema import STORE_VERSION, check_patches

MARKER = "complete"
FILES = "files"
CHECKSUM = "attributes_sha256"
CHUNK_FACTS = ("chunk_part", "chunk_checksum", "chunk_bytes", "chunk_changed")
VARIABLE_COORDS = ("units", "standard_name", "base_variable", "lag")
LEVEL = "level"  # one more, in stores of fields since it is kept


def open_store(path: str | Path, *, verify: bool = False) -> xr.Dataset:
    """Opens a finished patch store lazily.

    Args:
        path: of the store.
        verify: reads every file once and compares checksums; else only those of files whose time
            of change differs, such as after a copy.

    Returns:
        Dataset as of the contract; ``incident_id`` and ``reason`` as text.

    Raises:
        InputError: there is no store, it is unfinished or altered, or it breaks the contract.
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
    _refuse_altered(path, store, verify=verify)
    del store.attrs[FILES], store.attrs[CHECKSUM]
    store = store.drop_vars(CHUNK_FACTS)
    described = store.attrs["variables"]
    coords = {k: ("variable", described[k]) for k in (*VARIABLE_COORDS, LEVEL) if k in described}
    store = store.assign_coords({"variable": described["variable"], **coords})
    for name in ("incident_id", "reason"):
        values = np.array(store[name].attrs["values"], dtype=object)
        store[name] = (("sample",), values[store[name].to_numpy()])
    check_patches(store)
    # Packed integers are read as float64, since JSON does not tell the type of a scale factor.
    store["patches"] = store["patches"].astype(np.float32)
    return store


def _refuse_altered(path: Path, store: xr.Dataset, *, verify: bool) -> None:
    """Every file, and every attribute of the store, must be what it was when it was written."""
    attributes = zarr.open_group(path, mode="r").attrs.asdict()
    if attributes.get(CHECKSUM) != attributes_checksum(attributes):
        raise InputError(
            f"the patch store {path} must be as it was written, got changed attributes in "
            "zarr.json. Delete the store and run `weather-tdr build CONFIG` again."
        )
    manifest = {"the values of the samples": store.attrs[FILES]}
    if altered(path, store.attrs[FILES], verify=verify) is None:
        facts = np.stack([store[k].to_numpy() for k in CHUNK_FACTS], axis=1)
        for chunk, (part, *of_file) in enumerate(facts.tolist()):
            manifest.setdefault(f"part {part}", {})[chunk_file(chunk)] = of_file
    for part, files in manifest.items():
        if (name := altered(path, files, verify=verify)) is not None:
            raise InputError(
                f"the patch store {path} must be as it was written, got {name} of {part} changed "
                "or missing. Delete the store and run `weather-tdr build CONFIG` again."
            )


WHOLE = 2**26  # bytes up to which the whole content of a file is looked at


def attributes_checksum(attributes: Mapping[str, Any]) -> str:
    """SHA-256 of all attributes of a store but the marker and the checksum itself."""
    rest = {k: v for k, v in attributes.items() if k not in (MARKER, CHECKSUM)}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def meanings(store: xr.Dataset, name: str) -> tuple[str, ...]:
    """Names of the labels (`label`) or groups (`group`) of a store."""
    return tuple(str(store[name].attrs["flag_meanings"]).split())


def fingerprint(paths: Sequence[str | Path]) -> dict[str, str]:
    """SHA-256 of each input, by its position and name.

    Of a file: over its content, beyond 64 MiB over its size, time of change, beginning and end;
    of a Zarr store: over names, sizes and times of change; of an address on object storage: the
    address alone.
    """
    prints = {}
    for number, given in enumerate(paths):
        path = Path(given).expanduser()
        digest = hashlib.sha256()
        if "://" in str(given):
            digest.update(str(given).encode())
        elif path.is_dir():
            for file in sorted(p for p in path.rglob("*") if p.is_file()):
                facts = file.stat()
                line = f"{file.relative_to(path)} {facts.st_size} {facts.st_mtime_ns}\n"
                digest.update(line.encode())
                if file.suffix == ".json":
                    digest.update(file.read_bytes())
        else:
            facts = path.stat()
            with path.open("rb") as handle:
                if facts.st_size <= WHOLE:
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
