"""Checks fields, incidents and splits of a run: what the patch store would hold."""

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

from data_pipelines.day_stamps import refuse_late_stamps
from data_pipelines.errors import InputError
from data_pipelines.fields import open_fields
from data_pipelines.groups import Grouping
from data_pipelines.labelling import Labeller, catalogue_labeller, make_labeller, refuse_unused
from data_pipelines.limits import select_rows
from data_pipelines.opening import files_of, is_url
from data_pipelines.planning import StorePlan, grid_of, plan_store, time_split
from data_pipelines.quality import Finding, findings_of, unchecked
from data_pipelines.survey import CatalogueSurvey, survey_catalogue
from weather_tdr.check.machine import check_daily_values
from weather_tdr.check.times import tell_cadence, tell_days, usual_hours
from weather_tdr.check.values import check_values
from weather_tdr.config import Config
from weather_tdr.facts import (
    Facts,
    bytes_text,
    incidents_text,
    period_text,
    region_text,
    some,
    step_text,
)
from weather_tdr.models import PatchNet

READ_AT_MOST = 2**30  # bytes of fields that rules on fields may read
FEW = 5  # incidents of a split below which its scores say little
MUCH = 0.05
Codes = npt.NDArray[np.int8]
UNUSED = {
    "incidents_outside_times": "incident entries at no time of the fields, which label nothing",
    "incidents_outside_cells": "incident entries in no central cell of a patch (elsewhere, "
    "edges of the region, poles), which label nothing",
    "times_without_label": "times without a label, which are left out",
    "patches_without_label": "patches without a label, which are left out",
}


def check_plan(config: Config, facts: Facts) -> tuple[StorePlan, Codes] | None:
    """Says what the patch store of a run on fields would hold.

    Args:
        config: the run.
        facts: takes rows, warnings and errors.

    Returns:
        The plan, and the split of each of its samples; None where there are errors.
    """
    _check_files(config, facts)
    fields = _open(config, facts)
    if fields is not None:
        _refuse_strictly(config, findings_of(fields), facts)
        if config.incidents.rule == "exceedance":  # a value a point and day
            days = pd.DatetimeIndex(fields.indexes["time"]).floor("D").nunique()
            points = fields.sizes["latitude"] * fields.sizes["longitude"]
            check_daily_values(config.folder, 4 * days * points, facts)
    labeller = _labeller(config, fields, facts)
    if fields is None:
        return None
    fits = _check_patches(config, fields, facts)
    if labeller is None or not fits:
        return None
    try:
        plan = plan_store(
            fields,
            labeller,
            config.patches,
            config.splits,
            grouping=Grouping(config.groups),
            seed=config.seed,
        )
    except InputError as error:
        facts.fail(error)
        return None
    for found in plan.labels.findings:
        facts.warn(f"{found.line()}.")
    for reason, text in UNUSED.items():
        if plan.labels.unused.get(reason):
            facts.warn(f"{text}: {plan.labels.unused[reason]}.")
    try:
        codes, dropped = plan.assigned(config.splits.target_per_group)
    except InputError as error:
        facts.fail(error)
        codes, dropped = plan.samples["split"].astype(np.int8), {}
    _tell_splits(plan, codes, dropped, facts)
    _refuse_strictly(config, [*plan.labels.findings, *check_values(plan, facts)], facts)
    return None if facts.errors else (plan, codes)


def _refuse_strictly(config: Config, wrong: list[Finding], facts: Facts) -> None:
    if config.quality.strict and wrong:
        facts.fail(
            f"`quality.strict` allows no finding, got {len(wrong)}, the first: {wrong[0].line()}. "
            "Mend the fields, or leave it out."
        )


def _check_files(config: Config, facts: Facts) -> None:
    """All files that are missing, not only the first."""
    for path in _lacking([*config.fields.paths, *config.incidents.inputs()]):
        facts.fail(f"no such file: {path}. Check the path.")
    for path in config.incidents.tables():
        if not (is_url(path) or Path(path).expanduser().is_file() or _lacking([path])):
            facts.fail(
                f"`incidents`: {path} must be one file, got a pattern or a folder. Name one."
            )
    if config.incidents.rule == "catalogue" and not config.incidents.catalogue:
        facts.fail(
            "`incidents.catalogue` must name a file for `incidents.rule: catalogue`, got none."
        )


def _lacking(paths: list[str]) -> list[str]:
    lacking = []
    for path in paths:
        try:
            if not all(is_url(p) or Path(p).exists() for p in files_of([path])):
                lacking.append(path)
        except InputError:  # a pattern that no file meets
            lacking.append(path)
    return lacking


def _open(config: Config, facts: Facts) -> xr.DataArray | None:
    if _lacking(config.fields.paths):
        return None
    try:
        fields = open_fields(**config.fields.arguments())
    except InputError as error:
        facts.fail(error)
        return None
    for found in findings_of(fields):
        facts.warn(f"{found.line()}.")
    for line in unchecked(fields):
        facts.warn(line)
    times = pd.DatetimeIndex(fields.indexes["time"])
    latitude, longitude = (fields[a].to_numpy() for a in ("latitude", "longitude"))
    facts.add(
        "fields",
        f"{len(times)} times with all lags, {period_text(times[0], times[-1])}, every "
        f"{step_text(usual_hours(times))}",
        region_text(latitude, longitude),
    )
    bare = fields["base_variable"].values[fields["units"].values == "1"]
    if len(bare):
        facts.warn(
            f"{', '.join(dict.fromkeys(map(str, bare)))}: units are 1. If the files give none, add "
            "them there: rules on pressure and the limits of possible values depend on units."
        )
    named = zip(fields["variable"].values, fields["units"].values, strict=True)
    facts.add("variables", ", ".join(f"{name} ({units})" for name, units in named))
    return fields


def _labeller(config: Config, fields: xr.DataArray | None, facts: Facts) -> Labeller | None:
    rule = config.incidents.rule
    if _lacking(config.incidents.inputs()) or (
        rule == "catalogue" and not config.incidents.catalogue
    ):
        return None  # which `_check_files` has told
    try:
        refuse_unused(config.incidents)
    except InputError as error:
        facts.fail(error)
        return None
    if rule != "catalogue":
        facts.add("incidents", incidents_text(config.incidents))
    if rule in ("exceedance", "mask"):
        if (answer := getattr(config.incidents, rule).variable) in config.fields.variables:
            facts.warn(
                f"`fields.variables` has `{answer}`, by which the incidents are defined: the "
                "network sees the answer. Leave it out, unless lags alone are to tell it."
            )
        if fields is None:
            return None
        size = fields.nbytes // fields.sizes["variable"]
        if size > READ_AT_MOST:
            facts.warn(
                f"incidents by {rule} are not counted: that reads {bytes_text(size)} of fields. "
                "Give a shorter `fields.period` to see some."
            )
            return None
    try:
        if rule != "catalogue":
            return make_labeller(config.incidents, config.fields, None)
        survey = survey_catalogue(config.incidents.catalogue)
        _tell_catalogue(config, survey, fields, facts)
        if config.incidents.match_time == "day":
            refuse_late_stamps(config.fields.paths)
        return catalogue_labeller(survey.table, config.incidents)
    except InputError as error:
        facts.fail(error)
        return None


def _tell_catalogue(
    config: Config, survey: CatalogueSurvey, fields: xr.DataArray | None, facts: Facts
) -> None:
    table, (first, last) = survey.table, survey.period
    facts.add(
        "catalogue",
        f"{table.attrs['format']}, {len(table)} entries of {survey.storms} systems, "
        f"{period_text(first, last)}",
    )
    chosen = select_rows(table, config.incidents.where)
    where = json.dumps(config.incidents.where).replace('"', "")
    of_systems = table["storm_id"][chosen].nunique()
    facts.add(
        "", f"{int(chosen.sum())} entries of {of_systems} systems are incidents, where {where}"
    )
    if overlong := survey.overlong():
        facts.warn(
            f"`storm_id` {some(overlong)} of the catalogue last longer than 60 days. Names that "
            "are used again, such as every year, join storms that have nothing to do with each "
            "other into one incident, which stays in one split. Put the year into the name."
        )
    if fields is None:
        return
    times = pd.DatetimeIndex(fields.indexes["time"])
    tell_cadence(config.incidents, table, times, facts)
    tell_days(config.incidents, table[chosen], times, facts)
    outside = float(((times < first.floor("D")) | (times > last.ceil("D"))).mean())
    if MUCH < outside < 1.0:
        facts.warn(
            f"{outside:.0%} of the times of the fields lie before or after the catalogue, and "
            "count as times without incident. If nobody looked there, set `fields.period: "
            f"{first:%Y-%m-%d}/{last:%Y-%m-%d}`."
        )


def _check_patches(config: Config, fields: xr.DataArray, facts: Facts) -> bool:
    """Whether patches, network and splits fit; each error by itself."""
    patches, fine = config.patches, True
    try:
        grid = grid_of(fields, patches)
        south, east = (n * d for n, d in zip(grid.shape, (grid.dlat, grid.dlon), strict=True))
        step = 1 if config.maps.resolution == "grid" else patches.stride
        facts.add(
            "patches",
            f"{grid.shape[0]} x {grid.shape[1]} points, {south:g} x {east:g} degrees; "
            f"{grid.rows} x {grid.columns} = {grid.rows * grid.columns} positions a time",
            f"maps have {region_text(*grid.positions(step))}",
        )
        PatchNet(fields.sizes["variable"], grid.shape, patches.stride)
    except InputError as error:
        facts.fail(error)
        fine = False
    try:
        times = pd.DatetimeIndex(fields.indexes["time"])
        time_split(times, config.splits, [str(lag) for lag in fields["lag"].values])
    except InputError as error:
        facts.fail(error)
        fine = False
    return fine


def _tell_splits(plan: StorePlan, codes: Codes, dropped: dict[str, int], facts: Facts) -> None:
    counts, incidents = plan.counts(codes), plan.incidents(codes)
    moments = plan.incident_times(codes)
    names = plan.listing.grouping.names
    groups = [n for n in names if any(of_split.get(n) for of_split in counts.values())]
    table = [["split", "samples", *groups, "storms", "times with an incident"]]
    for split, numbers in counts.items():
        of_split = [sum(numbers.values()), *(numbers[g] for g in groups)]
        table.append([split, *map(str, [*of_split, incidents[split], moments[split]])])
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for k, (name, *cells) in enumerate(table):
        right = (f"{cell:>{w}}" for cell, w in zip(cells, widths[1:], strict=True))
        facts.add("" if k else "samples", "  ".join([f"{name:<{widths[0]}}", *right]))
    for split in ("validation", "test"):
        if 0 < incidents[split] < FEW:
            facts.warn(
                f"incidents of only {incidents[split]} systems in {split}: its scores will say "
                "little. Take a longer period, or other splits."
            )
    inside = plan.listing.split[plan.listing.labels["step"].to_numpy()] > 0
    reasons = {
        "belong to an incident or system that reaches into another split": int(
            (inside & (plan.listing.label_split == 0)).sum()
        ),
        "share a system with the target set": dropped.get("storm_in_target_set", 0),
        "overlap the target set": dropped.get("overlaps_target_set", 0),
    }
    texts = [f"{number} samples that {reason}" for reason, number in reasons.items() if number]
    facts.add("left out", *texts)
