"""Reads catalogues of incidents into one table and selects the rare ones."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from data_pipelines.errors import InputError, unknown_name
from data_pipelines.schema import MatchTime

REQUIRED = ("time", "latitude", "longitude", "storm_id")


def read_catalogue(path: str | Path) -> pd.DataFrame:
    """Reads a CSV catalogue: a row per position of an incident or ordinary system.

    Args:
        path: CSV with at least the columns ``time`` (UTC), ``latitude`` (degrees north),
            ``longitude`` (degrees east, any range) and ``storm_id``.

    Returns:
        The table, sorted by time; longitudes in [0, 360); further columns unchanged.

    Raises:
        InputError: no such file, a column is missing, or a value is no date or position.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise InputError(f"`incidents.catalogue`: no such file: {path}. Check the path.")
    try:
        table = pd.read_csv(path, dtype={"storm_id": str}, skipinitialspace=True)
    except (ValueError, UnicodeDecodeError) as error:
        first = str(error).splitlines()[0]
        raise InputError(f"`incidents.catalogue`: {path} is no readable CSV: {first}") from error
    table.columns = table.columns.str.strip()
    for column in REQUIRED:
        if column not in table:
            hint = " Separate the columns with commas." if ";" in str(table.columns[0]) else ""
            raise unknown_name("`incidents.catalogue`: column", column, table.columns, hint)
    if table.empty:
        raise InputError(f"`incidents.catalogue` must hold entries, got none in {path}.")
    times = pd.to_datetime(
        table["time"], format="ISO8601", errors="coerce", utc=True
    ).dt.tz_localize(None)
    _refuse(path, table, times.isna(), "time", "be a date such as 2001-01-31 06:00")
    table["time"] = times.astype("datetime64[ns]")
    for column, low, high in (("latitude", -90, 90), ("longitude", -360, 360)):
        values = pd.to_numeric(table[column], errors="coerce")
        _refuse(path, table, ~values.between(low, high), column, f"lie within {low} to {high}")
        table[column] = values
    _refuse(path, table, table["storm_id"].isna(), "storm_id", "name a system")
    table["longitude"] = table["longitude"] % 360.0
    return table.sort_values("time", kind="stable", ignore_index=True)


def _refuse(path: Path, table: pd.DataFrame, bad: pd.Series, column: str, must: str) -> None:
    if bad.any():
        row = int(bad.to_numpy().argmax())
        raise InputError(
            f"`{column}` must {must}, got `{table[column].iloc[row]}` in line {row + 2} of {path} "
            f"({int(bad.sum())} such lines). Correct or delete them."
        )


def select_incidents(
    catalogue: pd.DataFrame, where: Mapping[str, Mapping[str, float]]
) -> pd.Series:
    """True for the rows of the catalogue that are incidents.

    Args:
        catalogue: the table.
        where: column -> limits, such as ``{"deepening_bergeron": {"min": 1.0}}``; limits are
            inclusive and all must hold; empty cells never pass. No column selects every row.

    Raises:
        InputError: an unknown column or limit, or nothing is left.
    """
    chosen = pd.Series(True, index=catalogue.index)
    if not isinstance(where, Mapping) or not all(isinstance(v, Mapping) for v in where.values()):
        raise InputError(
            "`incidents.where` must be columns with limits such as "
            f"{{deepening_bergeron: {{min: 1.0}}}}, got {where!r}."
        )
    for column, limits in where.items():
        if column not in catalogue:
            raise unknown_name("`incidents.where`: column", column, catalogue.columns)
        values = pd.to_numeric(catalogue[column], errors="coerce")
        for limit, value in limits.items():
            if limit not in ("min", "max"):
                raise unknown_name(f"`incidents.where.{column}`: limit", limit, ("min", "max"))
            chosen &= values >= value if limit == "min" else values <= value
    if not chosen.any():
        raise InputError(
            f"`incidents.where` must leave at least one of {len(catalogue)} rows, got none for "
            f"{dict(where)}. Relax the limits."
        )
    return chosen


def at_times(
    incidents: pd.DataFrame, times: pd.DatetimeIndex, match_time: MatchTime
) -> pd.DataFrame:
    """The entries that belong to the given times of fields.

    Args:
        incidents: table with ``time`` and ``storm_id``.
        times: times of the fields.
        match_time: ``exact``; or ``day``, where a storm counts once a day, at the entry in the
            middle of its day, under the field's time.
    """
    if match_time == "exact":
        return incidents[incidents["time"].isin(times)].reset_index(drop=True)
    day = incidents["time"].dt.floor("D")
    rank = incidents.groupby(["storm_id", day]).cumcount()
    size = incidents.groupby(["storm_id", day])["time"].transform("size")
    of_day = pd.Series(times, index=times.floor("D"))
    chosen = incidents.assign(time=day.map(of_day))[rank == size // 2]
    return chosen.dropna(subset="time").reset_index(drop=True)
