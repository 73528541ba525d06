"""From the settings of incidents to the labels of patches: one interface, four rules."""

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

from data_pipelines.areas import label_from_areas
from data_pipelines.catalogues import say_once
from data_pipelines.day_stamps import refuse_late_stamps
from data_pipelines.errors import InputError
from data_pipelines.exceedance import daily_values, exceeding, spells, thresholds
from data_pipelines.fields import open_fields
from data_pipelines.incidents import read_catalogue
from data_pipelines.labels import UNKNOWN, PatchLabels, label_from_catalogue, steps_of
from data_pipelines.limits import select_rows, undecided_rows
from data_pipelines.quality import Finding, findings_of, joined, read_block
from data_pipelines.schema import GROUPS, SPLITS, IntArray, PatchGrid, Rule
from data_pipelines.series import is_text, label_from_series, read_series
from data_pipelines.settings import Fields, Incidents
from data_pipelines.writing import file_aside

# Times of the fields, where patches lie, split of each time -> labels.
Labeller = Callable[[pd.DatetimeIndex, PatchGrid, IntArray], PatchLabels]
TRAIN = SPLITS.index("train")
MANY = 8  # values of a mask that an error names
USED_BY: dict[str, tuple[Rule, ...]] = {  # keys of `Incidents`, by which rules
    "where": ("catalogue", "series"),
    "hard_negatives": ("catalogue", "series"),
    "match_time": ("catalogue", "series", "mask"),
    "distance_km": ("catalogue",),
}


def make_labeller(
    incidents: Incidents, fields: Fields, folder: Path | None, *, progress: bool = False
) -> Labeller:
    """The rule that the settings choose, with its inputs open.

    Args:
        incidents: which rule, and its settings.
        fields: where the variables of `exceedance` and `mask` lie unless they say otherwise.
        folder: for what does not fit into memory, and is deleted afterwards; None keeps it in
            memory and writes nothing.
        progress: shows a progress bar.

    Raises:
        InputError: an input is missing or wrong, or fields to match by day are stamped outside it.
    """
    refuse_unused(incidents)
    by_day = incidents.match_time == "day"
    if incidents.rule == "catalogue":
        if by_day:
            refuse_late_stamps(fields.paths)
        return catalogue_labeller(read_catalogue(incidents.catalogue), incidents)
    if incidents.rule == "series":
        path = incidents.series.path
        if by_day:
            refuse_late_stamps(fields.paths, [] if not path or is_text(Path(path)) else [path])
        return _series_labeller(incidents)
    rule = getattr(incidents, incidents.rule)
    if not rule.variable:
        raise InputError(
            f"`incidents.{incidents.rule}.variable` must name a variable for `incidents.rule: "
            f"{incidents.rule}`, got none."
        )
    if rule.paths and (by_day or incidents.rule == "exceedance"):
        setting = "match_time: day" if by_day else "rule: exceedance"
        refuse_late_stamps(fields.paths, rule.paths, f"`incidents.{setting}`")
    paths = rule.paths or fields.paths
    try:
        field = open_fields(paths, [rule.variable], period=fields.period)
    except InputError as error:
        told = str(error).replace("`fields.variables`", f"`incidents.{incidents.rule}.variable`")
        raise InputError(told) from error
    if incidents.rule == "mask":
        return _mask_labeller(field, incidents)
    return _exceedance_labeller(field, incidents, folder, progress=progress)


def refuse_unused(incidents: Incidents) -> None:
    """Refuses what would change no label; a run of an older release may be opened with it."""
    for name, rules in USED_BY.items():
        if getattr(incidents, name) not in ({}, "exact", 0.0) and incidents.rule not in rules:
            raise InputError(
                f"`incidents.{name}` must be left out with `incidents.rule: {incidents.rule}`, got "
                f"{getattr(incidents, name)!r}. It belongs to `{'` and `'.join(rules)}`."
            )
    rule = incidents.exceedance
    if (rule.percentile > 50.0) is (rule.side == "below") and rule.percentile != 50.0:
        share = rule.percentile if rule.side == "below" else 100.0 - rule.percentile
        raise InputError(
            "`incidents.exceedance.percentile` must have less than half of the days beyond it, got "
            f"{rule.percentile:g} (of 100) with `side: {rule.side}`, as {share:g} % of them are. "
            f"Take {100.0 - rule.percentile:g}, or the other side."
        )
    if (days := rule.window_days) % 2 == 0:
        raise InputError(
            "`incidents.exceedance.window_days` must be odd, the day and as many days before as "
            f"after it, got {days}. Take {days - 1}."
        )


def catalogue_labeller(catalogue: pd.DataFrame, incidents: Incidents) -> Labeller:
    """The rule `catalogue`, of a table that `read_catalogue` gives."""
    kind = kinds_of(catalogue, incidents, others="hard_negative")

    def label(times: pd.DatetimeIndex, grid: PatchGrid, split: IntArray) -> PatchLabels:
        return label_from_catalogue(
            catalogue, kind, times, grid, incidents.match_time, incidents.distance_km
        )

    return label


def kinds_of(table: pd.DataFrame, incidents: Incidents, others: str) -> IntArray:
    """Kind of each row of a catalogue or series: index into ``GROUPS``, or UNKNOWN.

    Args:
        table: the rows.
        incidents: which are incidents and which hard negatives.
        others: kind of the rest when `hard_negatives` is empty.
    """
    chosen = select_rows(table, incidents.where, "incidents.where")
    if incidents.hard_negatives:
        near = select_rows(table, incidents.hard_negatives, "incidents.hard_negatives")
        kind = np.where(near, GROUPS.index("hard_negative"), GROUPS.index("background"))
    else:
        kind = np.full(len(table), GROUPS.index(others))
    kind = np.where(undecided_rows(table, incidents.where), UNKNOWN, kind)
    return np.where(chosen, GROUPS.index("incident"), kind).astype(np.int64)


def _series_labeller(incidents: Incidents) -> Labeller:
    if not incidents.where:
        raise InputError(
            "`incidents.where` must say which values of the series are incidents, got nothing. "
            f"Write for example {{{incidents.series.variable or 'tp'}: {{min: 10}}}}."
        )
    table = read_series(incidents.series)
    kind = kinds_of(table, incidents, others="background")
    known = table[incidents.series.variable].notna().to_numpy()

    def label(times: pd.DatetimeIndex, grid: PatchGrid, split: IntArray) -> PatchLabels:
        return label_from_series(table, kind, known, times, grid, incidents.match_time)

    return label


def _mask_labeller(field: xr.DataArray, incidents: Incidents) -> Labeller:
    # A mask made by comparing a field may still carry its name; the field's limits are not its.
    nameless = {k: ("variable", [""]) for k in ("standard_name", "base_variable")}
    of_files = findings_of(field)
    field = field.assign_coords(nameless)

    def label(times: pd.DatetimeIndex, grid: PatchGrid, split: IntArray) -> PatchLabels:
        _same_grid(field, grid, "incidents.mask.variable")
        of_field = pd.DatetimeIndex(field.indexes["time"])
        steps = steps_of(of_field, times, incidents.match_time, "incidents.mask.variable")
        if pd.Index(steps[steps >= 0]).has_duplicates:
            raise InputError(
                "`incidents.match_time: day` needs at most one mask a day, got several. Reduce "
                "them to days, or use `exact`."
            )
        findings: list[Finding] = []
        seen: set[float] = set()

        def events() -> Iterator[tuple[IntArray, npt.NDArray[np.float32]]]:
            first = 0
            for size in field.chunks[0] if field.chunks else (len(of_field),):
                inside = first + np.flatnonzero(steps[first : first + size] >= 0)
                first += size
                if len(inside):
                    block = field.isel(time=inside)
                    values, found = read_block(block, of_field[inside])
                    findings.extend(found)
                    if len(seen) < MANY:
                        seen.update(np.unique(values[np.isfinite(values)])[:MANY].tolist())
                    yield steps[inside], _marked(values[:, 0], incidents.mask.values)

        labels = label_from_areas(events(), times, grid, incidents.mask.min_share)
        some = ", ".join(f"{v:g}" for v in sorted(seen)[:MANY])
        if not incidents.mask.values and min(seen, default=0.0) < 0.0:
            say_once(
                logging.WARNING,
                f"the mask `{incidents.mask.variable}` has values below 0, such as {min(seen):g}, "
                "which count as no incident. If they mean that nobody knows, make them its "
                "`_FillValue`.",
            )
        told = f" The mask has values such as {some}." if some else " The mask has no values."
        _refuse_none(labels, "mask", incidents.mask.min_share, told)
        return replace(labels, findings=[*of_files, *joined(findings)])

    return label


def _marked(values: npt.NDArray[np.float32], wanted: list[float]) -> npt.NDArray[np.float32]:
    marked = np.isin(values, np.array(wanted, dtype=np.float32)) if wanted else values > 0
    return np.where(np.isnan(values), np.float32(np.nan), marked.astype(np.float32))


def _exceedance_labeller(
    field: xr.DataArray, incidents: Incidents, folder: Path | None, *, progress: bool
) -> Labeller:
    rule = incidents.exceedance

    def label(times: pd.DatetimeIndex, grid: PatchGrid, split: IntArray) -> PatchLabels:
        _same_grid(field, grid, "incidents.exceedance.variable")
        with file_aside(folder, "daily") as path:
            days, values, findings = daily_values(field, rule.daily, path, progress=progress)
            training = days.isin(times[split == TRAIN].floor("D"))
            limits = thresholds(days, values, training, rule, progress=progress)
            beyond = exceeding(values, limits, rule)
            day_of = days.get_indexer(times.floor("D"))
            of_day = pd.Series(np.arange(len(times))).groupby(day_of).indices

            def events() -> Iterator[tuple[IntArray, npt.NDArray[np.float32]]]:
                for first, event in spells(days, beyond, rule):
                    steps = [of_day.get(first + k, np.zeros(0, int)) for k in range(len(event))]
                    repeats = [len(s) for s in steps]
                    yield np.concatenate(steps).astype(np.int64), event.repeat(repeats, axis=0)

            labels = label_from_areas(events(), times, grid, rule.min_share)
            _refuse_none(labels, "exceedance", rule.min_share)
            return replace(labels, findings=[*findings_of(field), *findings])

    return label


def labelled_text(settings: Mapping[str, Any]) -> str:
    """What the label of a patch tells, as the end of "probability of ...".

    Args:
        settings: of the patch store.
    """
    incidents = settings.get("incidents", {})
    rule, reach = incidents.get("rule", "catalogue"), incidents.get("distance_km", 0.0)
    if rule in ("exceedance", "mask"):
        share = incidents[rule]["min_share"]
        return f"incidents over at least {share:.3g} of the area of the patch"
    if rule == "series":
        return "an incident in the region of the series"
    if rule == "catalogue" and reach > 0:
        return f"an incident within {reach:g} km of the centre of the patch"
    return "an incident in the central cell of the patch"


def _refuse_none(labels: PatchLabels, rule: str, min_share: float, more: str = "") -> None:
    """Refuses labels without an incident, before the splits are blamed for it."""
    kinds = labels.table["kind"]
    if not (kinds == GROUPS.index("incident")).any():
        near = int((kinds == GROUPS.index("hard_negative")).sum())
        raise InputError(
            f"`incidents.{rule}.min_share` must be reached by a patch, got {min_share:g}, which "
            f"none does ({near} have half of it). Lower it, or relax what counts.{more}"
        )


def _same_grid(field: xr.DataArray, grid: PatchGrid, name: str) -> None:
    if grid.first != (0, 0):
        raise InputError(
            "`patches.incident_stride` needs incidents at points, got the areas of "
            f"`{name}`. Take 0, or `incidents.rule: catalogue`."
        )
    for axis in ("latitude", "longitude"):
        wanted, got = getattr(grid, axis), field[axis].to_numpy().astype(float)
        if len(got) != len(wanted) or np.abs(got - wanted).max() > 1e-3:
            raise InputError(
                f"`{name}` must have the `{axis}` of the fields, {len(wanted)} points from "
                f"{wanted[0]:g} to {wanted[-1]:g}, got {len(got)} from {got[0]:g} to "
                f"{got[-1]:g}. Regrid one of them."
            )
