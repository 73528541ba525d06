"""The whole line, one call a stage: build, train, evaluate with maps, compare."""

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import xarray as xr
import yaml

from data_pipelines.build import build_store
from data_pipelines.errors import InputError
from data_pipelines.fields import open_fields
from data_pipelines.image_store import image_settings, write_image_store
from data_pipelines.incidents import at_times, read_catalogue, select_rows
from data_pipelines.quality import findings_of
from data_pipelines.settings import store_settings
from data_pipelines.store import meanings, open_store, store_identity
from data_pipelines.synthetic import write_synthetic
from weather_tdr import __version__
from weather_tdr.checkpoints import write_atomically
from weather_tdr.comparison import compare, is_scored
from weather_tdr.config import Config, save_config
from weather_tdr.data import load_split, sample_table
from weather_tdr.evaluate import (
    EVALUATED,
    evaluate,
    predict,
    predictions_table,
    rules,
    write_predictions,
)
from weather_tdr.maps import Maps
from weather_tdr.matching import labelled_incidents
from weather_tdr.methods.method import load_method
from weather_tdr.model_files import (
    Detector,
    commit,
    detector_from_store,
    load_detector,
    no_nan,
    save_detector,
    save_facts,
)
from weather_tdr.models import PatchNet
from weather_tdr.plots import save_figure, weight_history
from weather_tdr.products import draw_maps
from weather_tdr.scores import ranking_scores
from weather_tdr.train import fit

log = logging.getLogger(__name__)


def build(config: Config, *, progress: bool = True) -> Path:
    """Builds the patch store of a run; returns its path."""
    if config.of_images:
        path = write_image_store(config.folder / "patches.zarr", config.images, config.seed)
        save_config(config)
        return path
    config.use_synthetic()
    if not config.patches.whole_field:
        PatchNet(1, config.patches.size, config.patches.stride)  # refuses what it cannot take
    if config.synthetic.days > 0:
        folder = config.folder / "synthetic"
        settings = folder / "settings.yaml"
        wanted = yaml.safe_dump(asdict(config.synthetic))
        if not (settings.is_file() and settings.read_text() == wanted):
            log.info("making %d days of synthetic reanalysis", config.synthetic.days)
            write_synthetic(config.synthetic, folder)
            write_atomically(settings, wanted)
    path = build_store(
        config.folder / "patches.zarr",
        config.fields,
        config.incidents,
        config.patches,
        config.splits,
        groups=config.groups,
        seed=config.seed,
        quality=config.quality,
        cluster=config.cluster,
        progress=progress,
    )
    save_config(config)
    return path


def train_all(config: Config, *, resume: bool = False, progress: bool = True) -> list[Path]:
    """Trains every method of a run on its patch store; returns their folders."""
    store = open_store(config.folder / "patches.zarr")
    if config.of_images:
        wanted = image_settings(config.images, config.seed)
    else:
        wanted = store_settings(
            config.fields,
            config.incidents,
            config.patches,
            config.splits,
            config.groups,
            config.seed,
        )
    if store.attrs["settings"] != wanted:
        raise InputError(
            f"the patch store of {config.folder} was built with other settings. "
            "Run `weather-tdr build CONFIG` first, or restore the settings."
        )
    if len(meanings(store, "label")) > 2:
        raise InputError(
            f"`images.imbalance` must be binary for a detector, got {config.images.imbalance}. "
            "Sets of more classes are for `weather-tdr benchmark`."
        )
    save_config(config)
    identity = store_identity(store.attrs)
    train_set, target_set = load_split(store, "train"), load_split(store, "target")
    validation = sample_table(store, "validation")["label"].to_numpy()

    def validate(network: torch.nn.Module) -> float:
        score = ranking_scores(predict(network, store, "validation"), validation)
        return score["average_precision"]

    folders = []
    for method in map(load_method, config.train.methods):
        folder = config.folder / method.name
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
        log.info("training `%s` for %d steps", method.name, config.train.steps)
        history = fit(
            model,
            train_set,
            target_set,
            method,
            config.train,
            folder=folder,
            validate=validate,
            names=meanings(store, "label" if method.weights_per == "class" else "group"),
            identity=identity,
            resume=resume,
            progress=progress,
        )
        detector = detector_from_store(model, architecture, store, method.name)
        detector.facts = {
            "version": __version__,
            "commit": commit(),
            "store": identity,
            "data": method.data,
        }
        save_detector(detector, folder)
        figure = weight_history(history, f"Group weights of {method.name}")
        save_figure(figure, folder / "figures" / "weights.png")
        folders.append(folder)
    return folders


def evaluate_method(
    config: Config, folder: Path, store: xr.Dataset, *, progress: bool = True
) -> dict[str, Any]:
    """Threshold, scores, and the incident map of the test period of one trained method."""
    detector = load_detector(folder)
    identity = store_identity(store.attrs)
    if detector.facts.get("store") != identity:
        raise InputError(
            f"{folder} must have been trained on the patch store beside it, which has been built "
            "anew since. Run `weather-tdr train CONFIG` again."
        )
    log.info("evaluating `%s`", folder.name)
    scores_of = {s: predict(detector.model, store, s) for s in EVALUATED}
    predictions = predictions_table(store, scores_of)
    detector.threshold, scores = evaluate(predictions, probabilities=True)
    write_predictions(predictions, folder / "predictions.nc", identity)
    if not config.of_images:
        scores["test"]["incident_matching"] = _map_test_period(
            config, detector, store, folder, progress=progress
        )
    _write_scores(scores, folder)
    detector.facts["scores"] = scores
    save_facts(detector, folder)
    return scores


def _map_test_period(
    config: Config, detector: Detector, store: xr.Dataset, folder: Path, *, progress: bool
) -> dict[str, Any]:
    fields = open_fields(config.fields.paths, **detector.open_arguments())
    times = pd.DatetimeIndex(np.unique(sample_table(store, "test")["time"].to_numpy()))
    if config.incidents.rule == "catalogue":
        catalogue = read_catalogue(config.incidents.catalogue)
        incidents = catalogue[select_rows(catalogue, config.incidents.where)]
        truth = at_times(incidents, times, config.incidents.match_time)
    else:
        truth = labelled_incidents(sample_table(store, "test"))
    return draw_maps(
        detector,
        fields.sel(time=times),
        folder,
        config.maps,
        truth=truth,
        progress=progress,
    )


def evaluate_all(
    config: Config, *, methods: Sequence[str] | None = None, progress: bool = True
) -> pd.DataFrame:
    """Scores methods and the rules; writes `comparison.csv` and its figure.

    Args:
        config: the run.
        methods: to score now, by default all of the run. Others that have been scored before
            keep their rows.
        progress: shows a progress bar.
    """
    store = open_store(config.folder / "patches.zarr")
    of_run = [load_method(name).name for name in config.train.methods]
    methods = of_run if methods is None else methods
    for method in methods:
        evaluate_method(config, config.folder / method, store, progress=progress)
    identity = store_identity(store.attrs)
    of_rules = {split: rules(store, split) for split in EVALUATED}
    for name in of_rules["test"]:
        predictions = predictions_table(store, {s: of_rules[s][name] for s in EVALUATED})
        write_predictions(predictions, config.folder / name / "predictions.nc", identity)
        _, scores = evaluate(predictions, probabilities=False)
        _write_scores(scores, config.folder / name)
    names = dict.fromkeys([*of_run, *methods, *of_rules["test"]])
    return compare(config.folder, [n for n in names if is_scored(config.folder / n, identity)])


def _write_scores(scores: dict[str, Any], folder: Path) -> None:
    write_atomically(folder / "scores.json", json.dumps(no_nan(scores), indent=2) + "\n")


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
    if "dlat" not in detector.grid:
        raise InputError(
            f"RUN must have been trained on fields, got {folder}, trained on images. "
            "Images have no map."
        )
    fields = open_fields(list(paths), **detector.open_arguments())
    for found in findings_of(fields):
        log.warning("%s", found.line())
    output = output or folder / "maps" / Path(paths[0]).stem
    draw_maps(detector, fields, output, maps or Maps(), progress=progress)
    return output
