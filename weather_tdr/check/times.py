"""Checks how the times of fields and of catalogue go together."""

import numpy as np
import pandas as pd

from data_pipelines.cadence import cadence_of
from data_pipelines.catalogue_times import days_alone
from data_pipelines.settings import Incidents
from weather_tdr.facts import Facts, step_text


def tell_cadence(
    incidents: Incidents, table: pd.DataFrame, times: pd.DatetimeIndex, facts: Facts
) -> None:
    """Says how many times lie between the steps of the catalogue.

    Args:
        incidents: how they are matched.
        table: the catalogue.
        times: of the fields.
        facts: takes the row.
    """
    daily = usual_hours(times) == 24.0
    if days_alone(table["time"]) and incidents.match_time == "exact" and not daily:
        facts.warn(
            "no entry of the catalogue has an hour: each counts at 00 UTC, where its position may "
            "be most of a day off. Give it a column `hour`, or daily fields with "
            "`incidents.match_time: day`."
        )
    cadence = cadence_of(table)
    if cadence is None or incidents.match_time != "exact" or len(times) < 2:
        return
    if between := int(cadence.between(times).sum()):
        facts.add(
            "",
            f"fields every {step_text(usual_hours(times))}, catalogue every "
            f"{step_text(cadence.hours)}: {between} of {len(times)} times lie between and are "
            "left out",
        )


def tell_days(
    incidents: Incidents, entries: pd.DataFrame, times: pd.DatetimeIndex, facts: Facts
) -> None:
    """Warns where fields of days are matched as those of hours.

    Args:
        incidents: how they are matched.
        entries: of the catalogue, the incidents.
        times: of the fields.
        facts: takes the warning.
    """
    if incidents.match_time != "exact" or usual_hours(times) != 24.0:
        return
    of_days = entries["time"][entries["time"].dt.floor("D").isin(times.floor("D"))]
    if lost := int((~of_days.isin(times)).sum()):
        facts.warn(
            f"there is one field a day, and {lost} of {len(of_days)} incident entries of these "
            "days are at other hours and label nothing. If the fields are daily means, set "
            "`incidents.match_time: day`."
        )


def usual_hours(times: pd.DatetimeIndex) -> float:
    """The usual step, hours; NaN of a single time."""
    steps = np.diff(times.to_numpy()) / np.timedelta64(1, "h")
    return float(np.median(steps)) if len(steps) else float("nan")
