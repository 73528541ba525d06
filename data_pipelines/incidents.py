"""Reads catalogues of incidents into one table."""

import logging
from pathlib import Path

import numpy as np
import pandas as pd

from data_pipelines.catalogue_times import days_alone, refuse, times_of
from data_pipelines.catalogues import (
    USUAL_NAMES,
    as_numbers,
    read_table,
    say_once,
    with_usual_names,
)
from data_pipelines.errors import InputError, unknown_name
from data_pipelines.following import follow
from data_pipelines.schema import MatchTime
from data_pipelines.tracks import POSSIBLE, add_changes, possible

log = logging.getLogger(__name__)
REQUIRED = ("time", "latitude", "longitude")
SPEED_KM_H, LONGEST_HOURS = 100, 24  # of systems that no one has named
MANY, FEWER = 20, 0.8  # entries from which on names are doubted; share of systems that says so


def read_catalogue(path: str | Path) -> pd.DataFrame:
    """Reads a catalogue: a row per position of an incident or ordinary system.

    The format is recognised from the content, and any of them may be gzipped:

    - CSV with at least the columns ``time`` (UTC), ``latitude`` (degrees north), ``longitude``
      (degrees east, any range) and ``storm_id``, or usual names of them such as ``lat`` and
      ``track_id`` (see `catalogues.USUAL_NAMES`); ``pressure_hpa`` and ``wind_kt`` if known; dates
      without an hour have that of a column ``hour`` (6, 0600 or 06:00; 24 is the next day's 0), if
      there is one;
    - IBTrACS CSV, v04r00 or v04r01: see `best_tracks.read_ibtracs`;
    - HURDAT2, the original text: see `best_tracks.read_hurdat2`;
    - GeoJSON, a FeatureCollection of points with the properties ``time`` and ``storm_id`` (or an
      ``id`` each).

    Where there are pressures or winds, `deepening_bergeron` and `wind_change_24h` are added unless
    they are there: see `tracks`.

    Args:
        path: the file.

    Returns:
        The table, sorted by time; longitudes in [0, 360); further columns unchanged. ``attrs``
        holds ``format``, ``skipped``, ``renamed``, ``derived``, ``followed`` (where no column
        names the systems) and what the format adds, as JSON values.

    Raises:
        InputError: no such file, a column is missing, or a value is no date, hour or position.
    """
    path = Path(path).expanduser()
    table = with_usual_names(read_table(path), path)
    attrs = table.attrs
    renamed = {new: old for old, new in attrs.get("renamed", {}).items()}
    for column in REQUIRED:
        if column not in table:
            hint = f" It may be called {', '.join(USUAL_NAMES[column][1:])} too."
            parts = [c for c in table if str(c).lower() in ("year", "month", "day", "hour")]
            if column == "time" and len(parts) >= 3:
                hint += f" Join its parts: `table['time'] = pd.to_datetime(table[{parts}])`."
            if len(table.columns) == 1 or str(table.columns[0]).startswith("#"):
                hint += " Part columns by comma, semicolon or tab, without lines of comments above."
            there = [renamed.get(c, c) for c in table.columns]
            raise unknown_name("`incidents.catalogue`: column", column, there, hint)
    if table.empty:
        raise InputError(f"`incidents.catalogue` must hold entries, got none in {path}.")
    table["time"] = times_of(table, path)
    for column, low, high in (("latitude", -90, 90), ("longitude", -360, 360)):
        values = as_numbers(table[column], tell=False)
        refuse(path, table, ~values.between(low, high), column, f"lie within {low} to {high}")
        table[column] = values
    if named := "storm_id" in table:
        refuse(path, table, table["storm_id"].isna(), "storm_id", "name a system")
    east = table["longitude"] % 360.0
    table["longitude"] = east.where(east < 360.0, 0.0)  # the remainder of -1e-20 is 360
    table = table.sort_values("time", kind="stable", ignore_index=True)
    table = _once(table, path)
    if not named:
        table["storm_id"] = _systems(table)
        say_once(
            logging.WARNING,
            f"{path} names no systems (`storm_id`): its {len(table)} entries are taken as "
            f"{table['storm_id'].nunique()}: those that follow each other within "
            f"{LONGEST_HOURS} hours and {SPEED_KM_H} km/h are one. No change over 24 hours is "
            "known from them."
            + (
                f" If its column `{names[0]}` names the systems, call it `storm_id`."
                if (names := [c for c in table if str(c).strip().lower() in ("name", "id")])
                else ""
            ),
        )
    elif (
        len(table) >= MANY
        and table["storm_id"].is_unique
        and _systems(table).nunique() < FEWER * len(table)
    ):
        say_once(
            logging.WARNING,
            f"each entry of {path} has a `storm_id` of its own, yet many follow each other. If "
            "they are storms, leave the column out, so that no storm comes into two splits.",
        )
    _doubt(table, path)
    for column in POSSIBLE:
        if column in table:
            table[column] = possible(table, column)
    table.attrs = attrs if named else attrs | {"followed": True}
    return add_changes(table) if named else table


def _systems(table: pd.DataFrame) -> pd.Series:
    """Which entries, sorted by time, follow each other closely enough to be one system."""
    times = np.unique(table["time"].to_numpy())
    numbers = follow(table, times, SPEED_KM_H, 1, LONGEST_HOURS)
    return pd.Series(numbers, index=table.index).map("system {}".format)


def _once(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    """The table without entries that repeat another one wholly."""
    again = table.astype(str).duplicated()
    if again.any():
        log.warning("%d entries of %s repeat others and are left out", again.sum(), path)
        table = table[~again].reset_index(drop=True)
    return table


def _doubt(table: pd.DataFrame, path: Path) -> None:
    """Says which entries contradict others."""
    unlike = table.duplicated(["storm_id", "time"], keep=False)
    if unlike.any():
        first = table[unlike].iloc[0]
        log.warning(
            "%d entries of %s contradict others of the same system and time (first: %s, %s); no "
            "change over 24 hours is known from them%s",
            unlike.sum(),
            path,
            first["storm_id"],
            first["time"],
            "; no time of the file has an hour" if days_alone(table["time"]) else "",
        )


def at_times(
    incidents: pd.DataFrame, times: pd.DatetimeIndex, match_time: MatchTime
) -> pd.DataFrame:
    """The entries that belong to the given times of fields.

    Args:
        incidents: table with ``time`` and ``storm_id``.
        times: times of the fields.
        match_time: ``exact``; or ``day``: all of its day, under the field's time.
    """
    if match_time == "exact":
        return incidents[incidents["time"].isin(times)].reset_index(drop=True)
    of_day = pd.Series(times, index=times.floor("D"))
    chosen = incidents.assign(time=incidents["time"].dt.floor("D").map(of_day))
    return chosen.dropna(subset="time").reset_index(drop=True)


def once_a_day(entries: pd.DataFrame) -> pd.DataFrame:
    """One row a storm and day: the entry in the middle, with ``places`` of all of them.

    Args:
        entries: as `at_times` gives them by day.

    Returns:
        The rows; ``places`` holds latitudes and longitudes, an array of shape (n, 2) a row.
    """
    middles, places = [], []
    for _, part in entries.groupby(["storm_id", "time"], sort=False):
        middles.append(part.index[len(part) // 2])
        places.append(part[["latitude", "longitude"]].to_numpy(dtype=float))
    table = entries.loc[middles]
    table["places"] = pd.Series(places, index=table.index, dtype=object)
    return table.sort_values("time", kind="stable", ignore_index=True)
