"""The whole line, one call a stage: build, train, evaluate with maps, compare."""

import json
import logging
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import xarray as xr
import yaml
from sklearn.metrics import average_precision_score, precision_recall_curve

from data_pipelines.build import Fields, Incidents, Patches, Splits, build_store
from data_pipelines.errors import InputError, unknown_name
from data_pipelines.fields import open_fields
from data_pipelines.incidents import read_catalogue, select_incidents
from data_pipelines.store import open_store
from data_pipelines.synthetic import Synthetic, write_synthetic
from weather_tdr import __version__
from weather_tdr.checkpoints import write_atomically
from weather_tdr.data import load_split, sample_table
from weather_tdr.evaluate import PRESSURE, PRESSURE_NAMES, evaluate, predict, rules
from weather_tdr.maps import Maps, incident_map, write_map
from weather_tdr.matching import find_incidents, match_incidents
from weather_tdr.model_files import (
    Detector,
    detector_from_store,
    load_detector,
    no_nan,
    save_detector,
    save_facts,
)
from weather_tdr.models import PatchNet
from weather_tdr.plots import incident_figure, precision_recall_figure, weight_history_figure
from weather_tdr.train import Train, train

log = logging.getLogger(__name__)


@dataclass
class Config:
    """A run.

    Attributes:
        name: the run folder is OUTPUT/NAME.
        output: folder of all runs.
        seed: of background, target set and synthetic fields.
        synthetic: with `days` above 0, makes synthetic fields and catalogue and uses them.
        fields: which fields.
        incidents: which incidents.
        patches: how to cut.
        splits: how to split.
        train: how to train.
        maps: how to draw and match maps.
    """

    name: str = "run"
    output: str = "runs"
    seed: int = 0
    synthetic: Synthetic = field(default_factory=lambda: Synthetic(days=0))
    fields: Fields = field(default_factory=Fields)
    incidents: Incidents = field(default_factory=Incidents)
    patches: Patches = field(default_factory=Patches)
    splits: Splits = field(default_factory=Splits)
    train: Train = field(default_factory=Train)
    maps: Maps = field(default_factory=Maps)

    @property
    def folder(self) -> Path:
        """The run folder."""
        return Path(self.output).expanduser() / self.name


def save_config(config: Config) -> None:
    """Writes the resolved configuration into the run folder."""
    config.folder.mkdir(parents=True, exist_ok=True)
    text = yaml.safe_dump(asdict(config), sort_keys=False)
    write_atomically(config.folder / "config.yaml", text)


def build(config: Config, *, progress: bool = True) -> Path:
    """Builds the patch store of a run; returns its path."""
    if config.synthetic.days > 0:
        folder = config.folder / "synthetic"
        settings = folder / "settings.yaml"
        wanted = yaml.safe_dump(asdict(config.synthetic))
        if not (settings.is_file() and settings.read_text() == wanted):
            log.info("making %d days of synthetic reanalysis", config.synthetic.days)
            write_synthetic(config.synthetic, folder)
            write_atomically(settings, wanted)
        config.fields.paths = [str(folder / "fields.nc")]
        config.incidents.catalogue = str(folder / "catalogue.csv")
    path = build_store(
        config.folder / "patches.zarr",
        config.fields,
        config.incidents,
        config.patches,
        config.splits,
        seed=config.seed,
        progress=progress,
    )
    save_config(config)
    return path


def train_all(config: Config, *, resume: bool = False, progress: bool = True) -> list[Path]:
    """Trains every method of a run on its patch store; returns their folders."""
    store = open_store(config.folder / "patches.zarr")
    train_set, target_set = load_split(store, "train"), load_split(store, "target")
    validation = sample_table(store, "validation")["label"].to_numpy()
    folders = []
    for method in config.train.methods:
        folder = config.folder / method
        torch.manual_seed(config.train.seed)
        architecture = {
            "variables": store.sizes["variable"],
            "size": store.attrs["grid"]["size"],
            "stride": store.attrs["grid"]["stride"],
            "width": config.train.width,
            "dropout": config.train.dropout,
        }
        model = PatchNet(**architecture)
        if torch.cuda.is_available():
            model = model.cuda()

        def validate(network: torch.nn.Module) -> float:
            assert isinstance(network, PatchNet)
            return float(average_precision_score(validation, predict(network, store, "validation")))

        history = train(
            model,
            train_set,
            target_set,
            method,
            config.train,
            folder,
            validate,
            resume=resume,
            progress=progress,
        )
        detector = detector_from_store(model, architecture, store, method)
        detector.facts = {"version": __version__, "commit": commit()}
        save_detector(detector, folder)
        _save_figure(
            weight_history_figure(history, f"Group weights of {method}"),
            folder / "figures" / "weights.png",
        )
        folders.append(folder)
    return folders


def evaluate_method(
    config: Config, folder: Path, store: xr.Dataset, *, progress: bool = True
) -> dict[str, Any]:
    """Threshold, scores, and the incident map of the test period of one trained method."""
    detector = load_detector(folder)
    scores_of = {s: predict(detector.model, store, s) for s in ("validation", "test")}
    threshold, scores = evaluate(scores_of, store, probabilities=True)
    detector.threshold = threshold
    fields_ = open_fields(config.fields.paths, **detector.open_arguments())
    test_times = np.unique(sample_table(store, "test")["time"].to_numpy())
    fields_ = fields_.sel(time=test_times)
    truth = _truth(config, pd.DatetimeIndex(test_times))
    summary = draw_maps(detector, fields_, folder, config.maps, truth=truth, progress=progress)
    scores["test"]["incident_matching"] = summary
    write_atomically(folder / "scores.json", json.dumps(no_nan(scores), indent=2) + "\n")
    detector.facts["scores"] = scores
    save_facts(detector, folder)
    return {"scores": scores, "curve": _curve(scores_of["test"], store)}


def evaluate_all(
    config: Config, *, folders: Sequence[Path] | None = None, progress: bool = True
) -> pd.DataFrame:
    """Scores every method and the rules; writes `comparison.csv` and its figure."""
    store = open_store(config.folder / "patches.zarr")
    results: dict[str, dict[str, Any]] = {}
    for folder in folders or [config.folder / m for m in config.train.methods]:
        results[folder.name] = evaluate_method(config, folder, store, progress=progress)
    of_rules = {split: rules(store, split) for split in ("validation", "test")}
    for name in of_rules["test"]:
        scores_of = {split: of_rules[split][name] for split in of_rules}
        _, scores = evaluate(scores_of, store, probabilities=False)
        folder = config.folder / name
        folder.mkdir(exist_ok=True)
        write_atomically(folder / "scores.json", json.dumps(no_nan(scores), indent=2) + "\n")
        results[name] = {"scores": scores, "curve": _curve(scores_of["test"], store)}
    table = comparison({k: v["scores"]["test"] for k, v in results.items()})
    write_atomically(config.folder / "comparison.csv", table.to_csv(index=False))
    base_rate = next(iter(results.values()))["scores"]["test"]["base_rate"]
    figure = precision_recall_figure({k: v["curve"] for k, v in results.items()}, base_rate)
    _save_figure(figure, config.folder / "figures" / "precision_recall.png")
    return table


def comparison(scores: dict[str, dict[str, Any]]) -> pd.DataFrame:
    """One row a method, from the scores of the test period."""
    rows = []
    for method, values in scores.items():
        low, high = values["average_precision_interval"]
        flat = {k: v for k, v in values.items() if not isinstance(v, list | dict)}
        rows.append(
            {
                "method": method,
                **flat,
                "average_precision_low": low,
                "average_precision_high": high,
                "average_precision_over_base_rate": values["average_precision"]
                / values["base_rate"],
                **{f"incident_{k}": v for k, v in values.get("incident_matching", {}).items()},
            }
        )
    return pd.DataFrame(rows)


def draw_maps(
    detector: Detector,
    fields_: xr.DataArray,
    folder: Path,
    maps: Maps,
    *,
    truth: pd.DataFrame | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Incident map, table and figures of any fields.

    Args:
        detector: trained and evaluated.
        fields_: as `open_fields` gives them.
        folder: for `incident_map.nc`, `incidents.csv`, `incidents.geojson`, `figures/`.
        maps: resolution, matching radius, number of figures.
        truth: incidents of the catalogue at these times.
        progress: shows a progress bar.

    Returns:
        Hits, misses, false alarms and mean distance; empty without `truth`.
    """
    found_map = incident_map(detector, fields_, resolution=maps.resolution, progress=progress)
    write_map(found_map, folder / "incident_map.nc", detector)
    found = find_incidents(found_map, detector.threshold)
    summary: dict[str, Any] = {}
    if truth is not None:
        truth = _covered(truth, found_map)
        matching = match_incidents(found, truth, maps.radius_km)
        found["matched"] = matching.found >= 0
        found["distance_km"] = matching.distance_km
        summary = matching.summary()
    write_atomically(folder / "incidents.csv", found.to_csv(index=False))
    write_atomically(folder / "incidents.geojson", json.dumps(to_geojson(found)) + "\n")
    pressure = _pressure(fields_)
    strongest = found.sort_values("probability", ascending=False).drop_duplicates("time")
    for old in (folder / "figures").glob("incident_*.png"):
        old.unlink()
    for rank, time in enumerate(strongest["time"].head(maps.figures), start=1):
        figure = incident_figure(
            found_map.sel(time=time),
            found[found["time"] == time],
            pressure=None if pressure is None else pressure.sel(time=time).compute(),
            truth=None if truth is None else truth[truth["time"] == time],
            title=f"Incidents found by {detector.method}, {time:%Y-%m-%d %H} UTC "
            f"(threshold {detector.threshold:.2f})",
        )
        _save_figure(figure, folder / "figures" / f"incident_{rank}.png")
    return summary


def to_geojson(found: pd.DataFrame) -> dict[str, Any]:
    """Incidents as GeoJSON points, longitudes in [-180, 180) (RFC 7946)."""
    features = []
    for row in found.to_dict("records"):
        longitude = (row.pop("longitude") + 180.0) % 360.0 - 180.0
        latitude = row.pop("latitude")
        row["time"] = pd.Timestamp(row["time"]).isoformat() + "Z"
        features.append(
            {
                "type": "Feature",
                "geometry": {"type": "Point", "coordinates": [longitude, latitude]},
                "properties": no_nan(row),
            }
        )
    return {"type": "FeatureCollection", "features": features}


def run(config: Config, *, resume: bool = False, progress: bool = True) -> pd.DataFrame:
    """Build, train, evaluate and map; returns the comparison."""
    build(config, progress=progress)
    train_all(config, resume=resume, progress=progress)
    return evaluate_all(config, progress=progress)


def map_fields(
    folder: Path,
    paths: Sequence[str],
    output: Path | None = None,
    maps: Maps | None = None,
    *,
    progress: bool = True,
) -> Path:
    """Incident map of new fields with a trained method; returns the folder with the results.

    Raises:
        InputError: the method has not been evaluated, so that it has no threshold.
    """
    detector = load_detector(folder)
    if np.isnan(detector.threshold):
        raise InputError(
            f"RUN must have a threshold, got {folder} before evaluation. "
            f"Run `weather-tdr evaluate {folder}` first."
        )
    fields_ = open_fields(list(paths), **detector.open_arguments())
    output = output or folder / "maps" / Path(paths[0]).stem
    draw_maps(detector, fields_, output, maps or Maps(), progress=progress)
    return output


def load_config(folder: Path) -> Config:
    """The configuration of the run that a method's folder belongs to."""
    path = folder.parent / "config.yaml"
    if not path.is_file():
        raise InputError(
            f"RUN must lie in a run folder with config.yaml, got {folder}. "
            "Give runs/NAME/METHOD."
        )
    return config_from(yaml.safe_load(path.read_text()))


def config_from(values: dict[str, Any]) -> Config:
    """A configuration from plain values that have been checked before."""
    kinds = {
        "synthetic": Synthetic,
        "fields": Fields,
        "incidents": Incidents,
        "patches": Patches,
        "splits": Splits,
        "train": Train,
        "maps": Maps,
    }
    known = {f.name for f in fields(Config)}
    for key in values:
        if key not in known:
            raise unknown_name("key", key, known)
    return Config(
        **{
            k: kinds[k](**v) if k in kinds else v
            for k, v in values.items()
        }
    )


def commit() -> str:
    """The commit of the code, or an empty text outside a repository."""
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--dirty"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return found.stdout.strip()


def _truth(config: Config, times: pd.DatetimeIndex) -> pd.DataFrame:
    """Selected entries of the catalogue, at the times of the fields."""
    catalogue = read_catalogue(config.incidents.catalogue)
    chosen = catalogue[select_incidents(catalogue, config.incidents.where)].copy()
    if config.incidents.match_time == "day":
        # One entry a storm and day: the one in the middle of its day.
        chosen["time"] = chosen["time"].dt.floor("D")
        middle = chosen.groupby(["storm_id", "time"]).cumcount()
        size = chosen.groupby(["storm_id", "time"])["time"].transform("size")
        chosen = chosen[middle == size // 2]
    return chosen[chosen["time"].isin(times)].reset_index(drop=True)


def _covered(truth: pd.DataFrame, found_map: xr.DataArray) -> pd.DataFrame:
    """The true incidents inside the central cells that the map has."""
    half = [
        found_map.attrs["cell_points"] / 2 * abs(float(found_map[a][1] - found_map[a][0]))
        for a in ("latitude", "longitude")
    ]
    latitude, longitude = found_map["latitude"].to_numpy(), found_map["longitude"].to_numpy()
    inside = truth["latitude"].between(latitude.min() - half[0], latitude.max() + half[0])
    east = (truth["longitude"] - longitude[0] + half[1]) % 360.0
    inside &= east <= longitude[-1] - longitude[0] + 2 * half[1]
    return truth[inside].reset_index(drop=True)


def _pressure(fields_: xr.DataArray) -> xr.DataArray | None:
    for i, name in enumerate(fields_["variable"].values):
        standard = str(fields_["standard_name"].values[i])
        if str(fields_["lag"].values[i]) == "0h" and (
            standard == PRESSURE or str(name) in PRESSURE_NAMES
        ):
            return fields_.isel(variable=i)
    return None


def _curve(score: np.ndarray, store: xr.Dataset) -> dict[str, Any]:
    label = sample_table(store, "test")["label"].to_numpy()
    precision, recall, _ = precision_recall_curve(label, score)
    area = float(average_precision_score(label, score))
    return {"precision": precision, "recall": recall, "average_precision": area}


def _save_figure(figure: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
