"""Chooses what an incident is for a first configuration, and says why."""

from typing import Any

import numpy as np
import pandas as pd

from data_pipelines.cadence import cadence_of
from data_pipelines.day_stamps import refuse_late_stamps
from data_pipelines.errors import InputError
from data_pipelines.limits import select_rows, undecided_rows
from data_pipelines.settings import Limits
from data_pipelines.survey import CatalogueSurvey, FieldsSurvey
from weather_tdr.facts import period_text, region_text, some, step_text
from weather_tdr.first.commented_yaml import Key

FEWEST = 3  # systems, one for each split
ENOUGH = 6  # systems that a choice of incidents must leave
OUTSIDE = 0.05  # share of the times of the fields that may lie outside the catalogue
BEST_TRACKS = ("ibtracs", "hurdat2")
# Limits to try, and what they mean, the best first.
CYCLONES: tuple[tuple[Limits, str], ...] = (
    ({"deepening_bergeron": {"min": 1.0}}, "explosive deepening, at least 1 Bergeron in 24 hours"),
)
TROPICAL: tuple[tuple[Limits, str], ...] = (
    ({"wind_kt": {"min": 64.0}}, "winds of at least 64 kt, a hurricane"),
    ({"wind_kt": {"min": 34.0}}, "winds of at least 34 kt, a tropical storm"),
)


def inside_fields(catalogue: CatalogueSurvey, survey: FieldsSurvey, by_day: bool) -> pd.DataFrame:
    """The entries at times and places of the fields.

    Args:
        catalogue: all entries.
        survey: of the fields.
        by_day: whether an entry belongs to the field of its day.

    Raises:
        InputError: there are none; says both periods or both regions.
    """
    table = catalogue.table
    periods = (
        f"got entries from {period_text(*catalogue.period)} and fields from "
        f"{period_text(survey.times[0], survey.times[-1])}"
    )
    entries, times = pd.DatetimeIndex(table["time"]), survey.times
    if by_day:
        entries, times = entries.floor("D"), times.floor("D")
    in_time = entries.isin(times)
    if not in_time.any():
        overlap = catalogue.period[0] <= survey.times[-1] and catalogue.period[1] >= survey.times[0]
        why = (
            f" None of the entries has the time of a field: the first are {entries[0]} and "
            f"{survey.times[0]}. Shift or round one of them."
            if overlap
            else " Give the catalogue of that period."
        )
        raise InputError(f"`--catalogue` must overlap the fields in time, {periods}.{why}")
    latitude, longitude = (table[k].to_numpy(dtype=float) for k in ("latitude", "longitude"))
    in_region = survey.inside(latitude, longitude)
    if not (in_time & in_region).any():
        raise InputError(
            "`--catalogue` must have entries in the region of the fields, got none within "
            f"{region_text(survey.latitude, survey.longitude)}, but latitudes from "
            f"{latitude.min():g} to {latitude.max():g} and longitudes from {longitude.min():g} to "
            f"{longitude.max():g}. Give the catalogue of that region"
            + (
                ", or change its columns: latitude and longitude seem to be swapped."
                if survey.inside(longitude, latitude).mean() > 0.5
                else "."
            )
        )
    here = table[in_time & in_region]
    if here["storm_id"].nunique() < FEWEST:
        raise InputError(
            f"`--catalogue` must have at least {FEWEST} systems at times and places of the fields, "
            "one for each of training, validation and test, got "
            f"{here['storm_id'].nunique()} in {len(here)} entries. Give a longer one."
        )
    return here


def matches_by_day(survey: FieldsSurvey) -> bool:
    """Whether there is one field a day, so that it stands for the whole day."""
    return survey.step_hours == 24.0 and survey.times.floor("D").is_unique


def choose_period(catalogue: CatalogueSurvey, survey: FieldsSurvey) -> list[Key]:
    """The period of the catalogue, where the fields are longer."""
    first, last = catalogue.period
    outside = (survey.times < first.floor("D")) | (
        survey.times >= last.floor("D") + pd.Timedelta(days=1)
    )
    if outside.mean() <= OUTSIDE:
        return []
    why = (
        f"The catalogue has entries from {period_text(first, last)}; the fields reach further, "
        f"{period_text(survey.times[0], survey.times[-1])}. What nobody has looked at must not "
        "count as times without incident: only this period is used. Widen it if the catalogue is "
        "complete beyond."
    )
    return [Key("fields.period", f"{first:%Y-%m-%d}/{last:%Y-%m-%d}", why)]


def choose_incidents(
    catalogue: CatalogueSurvey, survey: FieldsSurvey
) -> tuple[pd.DataFrame, list[Key]]:
    """Which entries are incidents, and the keys that say so.

    Returns:
        The incident entries at times and places of the fields, and the keys.
    """
    by_day = matches_by_day(survey)
    here = inside_fields(catalogue, survey, by_day)
    where, meaning, chosen = _where(catalogue, here)
    systems, kind = here["storm_id"].nunique(), catalogue.table.attrs["format"]
    found = (
        f"Positions and times of incidents and of ordinary systems ({kind}): {len(here)} of "
        f"{len(catalogue.table)} entries, {systems} systems, lie at times and places of the fields."
    )
    if renamed := catalogue.table.attrs.get("renamed"):
        names = ", ".join(f"{new} from {old}" for old, new in renamed.items())
        found += f" Its columns have other names: {names}."
    if catalogue.table.attrs.get("followed"):
        found += " It names no systems: entries that follow each other closely count as one."
    if overlong := catalogue.overlong():
        found += (
            f" Beware: {some(overlong)} last longer than 60 days. A storm_id that is used again, "
            "such as every year, joins storms that have nothing to do with each other: put the "
            "year into it."
        )
    cadence = None if by_day else cadence_of(catalogue.table)
    if cadence and (between := int(cadence.between(survey.times).sum())):
        found += (
            f" Beware: fields every {step_text(survey.step_hours)}, catalogue every "
            f"{step_text(cadence.hours)}: {between} of {len(survey.times)} times lie between, "
            "where nobody has looked, and are left out."
        )
    if where:
        open_rows = int(undecided_rows(catalogue.table, where)[here.index].sum())
        why = (
            f"These rows are incidents: {meaning}; {len(chosen)} entries of "
            f"{chosen['storm_id'].nunique()} systems here. All other rows are hard negatives: "
            "what looks alike and is none"
            + (
                f", but for {open_rows} that lack a value, which are left out."
                if open_rows
                else "."
            )
        )
    else:
        why = "Every entry is an incident: no column that is known tells how strong or rare one is."
    columns = catalogue.numbers()
    told = [f"{name} ({low:g} to {high:g})" for name, (low, high, _) in columns.items()]
    if told:
        why += f" Columns to choose by, with min and max: {some(told, 8)}."
    keys = [Key("incidents.catalogue", catalogue.path, found), Key("incidents.where", where, why)]
    if by_day:
        refuse_late_stamps(survey.paths)
        why = "There is one field a day: entries of any hour belong to the field of their day. "
        why += (
            "Its files say that it is the mean of the day."
            if survey.daily_means
            else "`exact` if it is the analysis of one hour and only entries of that hour count."
        )
        keys.append(Key("incidents.match_time", "day", why))
    return chosen, keys


def _where(catalogue: CatalogueSurvey, here: pd.DataFrame) -> tuple[Limits, str, pd.DataFrame]:
    best_track = catalogue.table.attrs["format"] in BEST_TRACKS
    tried = [*TROPICAL, *CYCLONES] if best_track else [*CYCLONES, *TROPICAL]
    if "pressure_hpa" in here and here["pressure_hpa"].notna().any():
        low = float(np.floor(here["pressure_hpa"].quantile(0.05) / 5) * 5)
        tried.append(
            ({"pressure_hpa": {"max": low}}, f"central pressure of at most {low:g} hPa, the lowest")
        )
    for where, meaning in tried:
        if not set(where) <= set(here.columns):
            continue
        try:
            chosen = here[select_rows(here, where)]
        except InputError:  # nothing is left
            continue
        if chosen["storm_id"].nunique() >= ENOUGH and len(chosen) < len(here):
            return where, meaning, chosen
    return {}, "", here


def exceedance_keys(survey: FieldsSurvey, variable: str, side: str) -> list[Key]:
    """Incidents as spells of a variable beyond a percentile of its climatology.

    Args:
        survey: of the fields.
        variable: its name.
        side: ``above`` or ``below``.

    Raises:
        InputError: no such variable, or the fields are too short or too coarse in time.
    """
    names = [v.name for v in survey.variables if not v.problem]
    if variable not in names:
        raise InputError(
            f"`--exceedance` must name a variable of the fields, got `{variable}`. There is: "
            f"{', '.join(names) or 'none that can be used'}."
        )
    years = (survey.times[-1] - survey.times[0]) / pd.Timedelta(days=365.25)
    if survey.step_hours > 24 or years * 0.6 < 2.0:
        raise InputError(
            "`--exceedance` needs a climatology: fields of at least 40 months, daily or more "
            f"often, got {period_text(survey.times[0], survey.times[-1])} every "
            f"{survey.step_hours:g} hours. Give more files, or `--catalogue`."
        )
    percentile, training = (10.0 if side == "below" else 90.0), years * 0.6
    window = 15 if training >= 3.0 else 31
    rule: dict[str, Any] = {
        "variable": variable,
        "percentile": percentile,
        "side": side,
        "window_days": window,
        "min_days": 3,
        "min_share": 0.5,
    }
    why = (
        f"A patch is an incident when {variable} is {side} the {percentile:g}th percentile of its "
        "day of the year for min_days in a row over min_share of the patch; a hard negative from "
        "half of that share on. The percentile comes from training days of other years in a window "
        f"of {window} days with the day of the year in the middle. "
        "For rarer incidents take a percentile nearer to the end."
    )
    return [
        Key("incidents.rule", "exceedance", "Incidents are far from the climatology, day by day."),
        Key("incidents.exceedance", rule, why),
    ]
