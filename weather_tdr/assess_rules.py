"""Rules on validation and test, and the incidents of anything that has peaks."""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from data_pipelines.fields import open_fields
from data_pipelines.store import store_identity
from data_pipelines.writing import no_nan, write_atomically
from weather_tdr.config import Config
from weather_tdr.data import sample_table
from weather_tdr.evaluate import EVALUATED, evaluate
from weather_tdr.ground import cell_of, judged, times_of, true_incidents
from weather_tdr.maps import Maps
from weather_tdr.predictions import predictions_table, write_predictions
from weather_tdr.rules import (
    RADII_KM,
    RuleScores,
    apply_rule,
    closed_contours,
    deepening,
    pressure_lags,
)
from weather_tdr.verification import choose_incident_threshold, incident_curve, verify, with_tracks

log = logging.getLogger(__name__)


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


def write_scores(scores: dict[str, Any], folder: Path) -> None:
    """Writes `scores.json`."""
    write_atomically(folder / "scores.json", json.dumps(no_nan(scores), indent=2) + "\n")
