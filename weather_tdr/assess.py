"""Methods and rules on validation and test: calibration, thresholds, scores, incident maps."""

import logging
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from torch import nn

from data_pipelines.errors import InputError
from data_pipelines.fields import open_fields
from data_pipelines.labelling import labelled_text
from data_pipelines.store import open_store, store_identity
from data_pipelines.writing import alone_in, write_atomically
from weather_tdr.assess_rules import evaluate_rules, write_scores
from weather_tdr.calibration import Calibration, calibrate
from weather_tdr.comparison import compare, forget_maps, is_scored, maps_of_own, own_networks
from weather_tdr.config import Config
from weather_tdr.data import sample_table
from weather_tdr.evaluate import EVALUATED, blocks_of, evaluate, predict
from weather_tdr.ground import (
    judged,
    refuse_other_incidents,
    times_of,
    true_incidents,
)
from weather_tdr.maps import incident_map_on
from weather_tdr.methods.method import load_method
from weather_tdr.model_files import Detector, load_detector, save_facts
from weather_tdr.plots.canvas import save_figure
from weather_tdr.plots.scores import reliability_figure
from weather_tdr.predictions import predictions_table, write_predictions
from weather_tdr.products import draw_maps, peaks_of
from weather_tdr.scores import reliability_table
from weather_tdr.verification import choose_incident_threshold

log = logging.getLogger(__name__)


def evaluate_method(
    config: Config, folder: Path, store: xr.Dataset, *, progress: bool = True
) -> dict[str, Any]:
    """Calibration, thresholds, scores, and the incident map of the test period of one method."""
    detector = load_detector(folder)
    identity = store_identity(store.attrs)
    if detector.facts.get("store") != identity:
        raise InputError(
            f"{folder} must have been trained on the patch store beside it, which has been built "
            "anew since. Run `weather-tdr train CONFIG` again."
        )
    log.info("evaluating `%s`", folder.name)
    fields = None  # opened before anything of an evaluation before is gone
    if not config.of_images:
        settings = config.fields
        fields = open_fields(settings.paths, **detector.open_arguments(), period=settings.period)
    detector.calibration, predictions = calibrated_predictions(detector.model, store)
    detector.threshold, scores = evaluate(predictions, probabilities=True)
    detector.incident_threshold = detector.threshold
    detector.areas = config.incidents.rule in ("exceedance", "mask")
    # What this evaluation does not make must not stay, and one that is stopped counts as none.
    (folder / "scores.json").unlink(missing_ok=True)
    forget_maps(folder)
    write_predictions(predictions, folder / "predictions.nc", identity)
    draw_reliability(predictions[predictions["split"] == "test"], folder, scores["test"])
    if fields is not None:
        detector.facts.setdefault("label", labelled_text(store.attrs["settings"]))
        scores["test"]["incident_matching"] = _map_periods(
            config, detector, store, fields, folder, progress=progress
        )
    write_scores(scores, folder)
    detector.facts |= {"scores": scores, "maps": asdict(config.maps)}
    save_facts(detector, folder)
    return scores


def calibrated_predictions(
    network: nn.Module, store: xr.Dataset
) -> tuple[Calibration, pd.DataFrame]:
    """What a network says of validation and test, calibrated on validation.

    Args:
        network: from normalised patches to two logits.
        store: the patch store.

    Returns:
        The calibration, and the table of predictions with those before calibration.
    """
    raw = {s: predict(network, store, s) for s in EVALUATED}
    validation = sample_table(store, "validation")
    label = validation["label"].to_numpy()
    calibration = calibrate(raw["validation"], label, blocks_of(validation))
    return calibration, predictions_table(
        store,
        {s: calibration.probability(v) for s, v in raw.items()},
        {s: Calibration().probability(v) for s, v in raw.items()},
    )


def draw_reliability(test: pd.DataFrame, folder: Path, scores: dict[str, Any]) -> None:
    """Writes `reliability.csv` and its diagram, of predictions of test."""
    label = test["label"].to_numpy()
    tables = {
        name: reliability_table(test[column].to_numpy(), label)
        for name, column in (("calibrated", "score"), ("as trained", "uncalibrated"))
    }
    table = pd.concat([t.assign(probabilities=name) for name, t in tables.items()])
    write_atomically(folder / "reliability.csv", table.to_csv(index=False))
    skill = "Brier skill {brier_skill:.3f}, before calibration {brier_skill_uncalibrated:.3f}"
    title = f"Reliability of {folder.name} on test\n{skill.format(**scores)}"
    figure = reliability_figure(tables, scores["base_rate"], title)
    save_figure(figure, folder / "figures" / "reliability.png")


def _map_periods(
    config: Config,
    detector: Detector,
    store: xr.Dataset,
    fields: xr.DataArray,
    folder: Path,
    *,
    progress: bool,
) -> dict[str, Any]:
    """The threshold of incidents from the map of validation, then the maps of test."""
    radius = config.maps.radius_km
    if not detector.areas and not detector.whole_field:  # there an incident is a patch
        found_map = incident_map_on(
            config.cluster, detector, fields.sel(time=times_of(store, "validation")), folder,
            resolution=config.maps.resolution, progress=progress,
        )  # fmt: skip
        truth = true_incidents(config, store, "validation")
        maps = config.maps.reaching(found_map)
        radius = maps.radius_km
        peaks = judged(peaks_of(found_map, detector, maps), config, store, radius)
        chosen = choose_incident_threshold(peaks, truth, maps)
        if not np.isnan(chosen):  # else no incident of validation is found at any threshold
            detector.incident_threshold = chosen
    return draw_maps(
        detector,
        fields.sel(time=times_of(store, "test")),
        folder,
        config.maps,
        truth=true_incidents(config, store, "test"),
        ground=partial(judged, config=config, store=store, radius_km=radius),
        cluster=config.cluster,
        progress=progress,
    )


def evaluate_all(
    config: Config, *, methods: Sequence[str] | None = None, progress: bool = True
) -> pd.DataFrame:
    """Scores methods and the rules; writes `comparison.csv` and its figures.

    Args:
        config: the run.
        methods: to score now, by default all of the run. Others that have been scored before
            keep their rows.
        progress: shows a progress bar.

    Raises:
        InputError: another process works on this run, or `incidents` are not those of the patch
            store.
    """
    store = open_store(config.folder / "patches.zarr")
    refuse_other_incidents(config, store)
    with alone_in(config.folder):
        return _evaluate_all(config, store, methods, progress)


def _evaluate_all(
    config: Config, store: xr.Dataset, methods: Sequence[str] | None, progress: bool
) -> pd.DataFrame:
    of_run = [load_method(name).name for name in config.train.methods]
    methods = of_run if methods is None else methods
    for method in methods:
        evaluate_method(config, config.folder / method, store, progress=progress)
    identity = store_identity(store.attrs)
    of_rules = evaluate_rules(config, store, progress=progress)
    names = dict.fromkeys([*of_run, *methods, *_own_networks(config), *of_rules])
    return compare(config.folder, [n for n in names if is_scored(config.folder / n, identity)])


def _own_networks(config: Config) -> list[str]:
    """Networks of one's own that were scored with these settings of maps; tells of others."""
    own = own_networks(config.folder)
    others = [n for n in own if maps_of_own(config.folder / n) not in (None, asdict(config.maps))]
    if others:
        log.warning("warning: %s were scored with other `maps`, and are left out of the comparison "
                    "until they are scored again", ", ".join(others))  # fmt: skip
    return [n for n in own if n not in others]
