"""Methods and rules on validation and test: calibration, thresholds, scores, incident maps."""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
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
from data_pipelines.writing import alone_in, no_nan, write_atomically
from weather_tdr.calibration import Calibration, calibrate
from weather_tdr.comparison import compare, forget_maps, is_scored, maps_of_own, own_networks
from weather_tdr.config import Config
from weather_tdr.data import sample_table
from weather_tdr.evaluate import EVALUATED, blocks_of, evaluate, predict
from weather_tdr.ground import (
    cell_of,
    judged,
    refuse_other_incidents,
    times_of,
    true_incidents,
)
from weather_tdr.maps import Maps, incident_map_on
from weather_tdr.methods.method import load_method
from weather_tdr.model_files import Detector, load_detector, save_facts
from weather_tdr.plots.canvas import save_figure
from weather_tdr.plots.scores import reliability_figure
from weather_tdr.predictions import predictions_table, write_predictions
from weather_tdr.products import draw_maps, peaks_of
from weather_tdr.rules import (
    RADII_KM,
    RuleScores,
    apply_rule,
    closed_contours,
    deepening,
    pressure_lags,
)
from weather_tdr.scores import reliability_table
from weather_tdr.verification import choose_incident_threshold, incident_curve, verify, with_tracks

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


def evaluate_rules(config: Config, store: xr.Dataset, *, progress: bool = True) -> list[str]:
    """Scores of the rules that people use; returns their names, none without pressure."""
    if config.of_images or config.incidents.rule in ("exceedance", "mask"):
        return []
    settings = config.fields
    fields = open_fields(
        settings.paths, settings.variables, lags=settings.lags, period=settings.period
    )
    lags = pressure_lags(fields)
    if lags is None:
        return []
    now, earlier = lags
    cell, whole = cell_of(store), bool(store.attrs["grid"].get("whole_field"))
    maps = config.maps if whole else config.maps.reaching(now)
    truth = {s: true_incidents(config, store, s) for s in EVALUATED}
    log.info("evaluating the rules on pressure")

    def apply(
        rule: Callable[..., xr.DataArray], fields: Sequence[xr.DataArray], split: str, title: str
    ) -> RuleScores:
        at = times_of(store, split)
        found = apply_rule(
            rule, [field.sel(time=at) for field in fields], sample_table(store, split), cell,
            maps.separation(cell[0]), whole=whole, title=title, progress=progress,
        )  # fmt: skip
        if whole:
            return found
        return replace(found, peaks=judged(found.peaks, config, store, maps.radius_km))

    def contours(split: str, radius: float) -> RuleScores:
        rule = partial(closed_contours, radius_km=radius)
        return apply(rule, [now], split, f"closed contours within {radius:g} km, {split}")

    # The radius of the contour is chosen on validation, by the best CSI at any depth.
    tried = {radius: contours("validation", radius) for radius in RADII_KM}
    csi = {
        radius: incident_curve(found.peaks, truth["validation"], maps)["csi"].max()
        for radius, found in tried.items()
    }
    radius = max(csi, key=lambda r: np.nan_to_num(csi[r], nan=-1.0))
    rules = {"closed_contour_rule": {"validation": tried[radius], "test": contours("test", radius)}}
    if earlier is not None:
        rules["deepening_rule"] = {
            s: apply(deepening, [now, earlier], s, f"deepening, {s}") for s in EVALUATED
        }
    for name, found in rules.items():
        parameters = {"radius_km": radius} if name == "closed_contour_rule" else {}
        _score_rule(config.folder / name, store, maps, found, truth, parameters)
    return list(rules)


def _score_rule(
    folder: Path,
    store: xr.Dataset,
    maps: Maps,
    rule: dict[str, RuleScores],
    truth: dict[str, pd.DataFrame],
    parameters: dict[str, float],
) -> None:
    """Patch scores and incident scores of one rule, as those of a network."""
    predictions = predictions_table(store, {s: rule[s].samples for s in EVALUATED})
    identity = store_identity(store.attrs)
    write_predictions(predictions, folder / "predictions.nc", identity, of_rule=True)
    threshold, scores = evaluate(predictions, probabilities=False)
    whole = bool(store.attrs["grid"].get("whole_field"))  # there an incident is a patch
    found, _, matching = score_incidents(folder, threshold, rule, truth, maps, choose=not whole)
    scores["test"] |= {"incident_matching": matching, "parameters": parameters}
    table = found.rename(columns={"probability": "score_hpa"})
    write_atomically(folder / "incidents.csv", table.to_csv(index=False))
    write_scores(scores, folder)


def score_incidents(
    folder: Path,
    threshold: float,
    of_split: Mapping[str, RuleScores],
    truth: Mapping[str, pd.DataFrame],
    maps: Maps,
    *,
    choose: bool = True,
) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, Any]]:
    """Incidents of test against the catalogue, from peaks of a rule or of scores of patches.

    Args:
        folder: takes `incident_curve.csv`.
        threshold: of patches; taken where validation finds no incident at any.
        of_split: peaks and times of validation and test.
        truth: true incidents of the same.
        maps: how to match.
        choose: whether incidents have a threshold of their own, chosen on validation.

    Returns:
        The incidents found, the true ones with ``hit``, and the scores with their threshold.
    """
    if choose:
        chosen = choose_incident_threshold(of_split["validation"].peaks, truth["validation"], maps)
        threshold = threshold if np.isnan(chosen) else chosen
    peaks, times = of_split["test"].peaks, of_split["test"].times
    found = peaks[peaks["probability"] >= threshold].reset_index(drop=True)
    found = with_tracks(found, times, maps, of_split["test"].apart_km)
    found, true, matched = verify(found, truth["test"], times, maps)
    curve = incident_curve(peaks, truth["test"], maps)
    write_atomically(folder / "incident_curve.csv", curve.to_csv(index=False))
    return found, true, {"threshold": threshold, "radius_km": maps.radius_km, **matched}


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


def write_scores(scores: dict[str, Any], folder: Path) -> None:
    """Writes `scores.json`."""
    write_atomically(folder / "scores.json", json.dumps(no_nan(scores), indent=2) + "\n")
