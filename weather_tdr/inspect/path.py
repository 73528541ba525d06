"""Tells what a file or folder is, and what it holds."""

import json
from pathlib import Path

import xarray as xr

from data_pipelines.catalogues import read_table
from data_pipelines.errors import InputError
from data_pipelines.opening import engine_of, is_url
from data_pipelines.survey import survey_catalogue
from weather_tdr.facts import Facts
from weather_tdr.inspect.inputs import (
    inspect_catalogue,
    inspect_fields,
    inspect_incidents,
    inspect_map,
)
from weather_tdr.inspect.run import inspect_method, inspect_run, inspect_runs
from weather_tdr.inspect.store import inspect_store

MOST_TEXT = 300  # of a reason; a file that is no text makes long ones
READABLE = (
    "fields (NetCDF, Zarr), a catalogue (CSV, IBTrACS, HURDAT2, GeoJSON), a patch store, a "
    "run folder, the folder of a method, or an incident map"
)


def inspect_path(path: str) -> Facts:
    """What a path holds, recognised from its content.

    Args:
        path: of a file or folder, or the address of a Zarr store.

    Raises:
        InputError: there is nothing, or nothing that is known.
    """
    if is_url(path):
        return inspect_fields(path)
    place = Path(path).expanduser()
    if not place.exists():
        near = sorted(p.name for p in place.parent.glob("*")) if place.parent.is_dir() else []
        there = f" In {place.parent} there is: {', '.join(near[:10]) or 'nothing'}."
        raise InputError(f"PATH must exist, got {path}.{there if place.parent.is_dir() else ''}")
    return _inspect_folder(place) if place.is_dir() else _inspect_file(place)


def _inspect_folder(folder: Path) -> Facts:
    if (folder / "zarr.json").is_file() or (folder / ".zgroup").is_file():
        return inspect_store(folder) if _is_store(folder) else inspect_fields(str(folder))
    if (folder / "model.json").is_file() or (folder / "scores.json").is_file():
        return inspect_method(folder)
    if (folder / "config.yaml").is_file():
        return inspect_run(folder)
    if inside := sorted(p.parent for p in folder.glob("*/config.yaml")):
        return inspect_runs(folder, inside)
    raise InputError(f"PATH must hold {READABLE}, got the folder {folder} without any of them.")


def _folder_of_run(path: Path) -> Path | None:
    """The run, or folder of a method, that a file lies in."""
    signs = ("model.json", "scores.json", "config.yaml")
    inside = list(path.resolve().parents)[:2]
    return next((p for p in inside if any((p / sign).is_file() for sign in signs)), None)


def _is_store(folder: Path) -> bool:
    """Whether a Zarr group says of itself that it is a patch store."""
    try:
        about = json.loads((folder / "zarr.json").read_text())
    except (OSError, ValueError):
        return False
    return "store_version" in about.get("attributes", {}) or (folder / "patches").is_dir()


def _is_map(path: Path) -> bool:
    """Whether a NetCDF file is an incident map; no map where it cannot be read."""
    try:
        with xr.open_dataset(path, engine=engine_of(path), decode_times=False) as opened:
            return "incident_probability" in opened
    except (OSError, RuntimeError, ValueError):
        return False  # opening fields says why


def _inspect_file(path: Path) -> Facts:
    if path.stat().st_size == 0:
        raise InputError(f"PATH must hold {READABLE}, got {path}, which is empty.")
    if path.suffix in (".yaml", ".yml"):
        raise InputError(
            f"{path} is a configuration. Use `weather-tdr check {path}` to see what it would do."
        )
    with path.open("rb") as opened_file:
        if opened_file.read(4) == b"GRIB":  # which xarray would leave an index beside
            return inspect_fields(str(path))
    if engine_of(path) is not None:
        return inspect_map(path) if _is_map(path) else inspect_fields(str(path))
    try:
        table = path.with_suffix(".csv")  # GeoJSON of incidents has the table beside it
        if {"probability", "track_id"} <= set(read_table(path).columns) and table.is_file():
            return inspect_incidents(table)
        return inspect_catalogue(survey_catalogue(path))
    except InputError as error:
        if folder := _folder_of_run(path):
            raise InputError(
                f"{path} is one of the files of {folder}. Use `weather-tdr inspect {folder}`."
            ) from error
        reason = "".join(c for c in str(error) if c.isprintable())[:MOST_TEXT]
        raise InputError(f"PATH must hold {READABLE}, got {path}: {reason}") from error
