"""Which rows of a catalogue or series lie within limits, and of which nobody knows."""

import logging
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pandas as pd

from data_pipelines.catalogues import as_numbers, say_once
from data_pipelines.errors import InputError, unknown_name
from data_pipelines.tracks import BERGERON_LATITUDES, DAY, DERIVED

Limits = Mapping[str, Mapping[str, float]]
# What stands for a missing value in tables, where nothing else comes near it.
FILLS = (
    *(-99.0, -99.9, -99.99, -999.0, -999.9, -999.99, -9999.0, -9999.9, -32767.0, -32768.0),
    *(999.9, 9999.0, 9999.9, 99999.0),
)  # fmt: skip


def select_rows(table: pd.DataFrame, where: Limits, name: str = "incidents.where") -> pd.Series:
    """True for the rows of a catalogue or series within limits.

    Args:
        table: the rows.
        where: column -> limits, such as ``{"deepening_bergeron": {"min": 1.0}}``; limits are
            inclusive and all must hold; missing values never pass. No column selects every row.
        name: of the setting, for errors.

    Raises:
        InputError: an unknown column or limit, or nothing is left.
    """
    chosen = pd.Series(True, index=table.index)
    if not isinstance(where, Mapping) or not all(isinstance(v, Mapping) for v in where.values()):
        raise InputError(
            f"`{name}` must be columns with limits such as "
            f"{{deepening_bergeron: {{min: 1.0}}}}, got {where!r}."
        )
    for column, limits in where.items():
        if column not in table:
            needs = DERIVED.get(column)
            fix = f" `{column}` is made where there is `{needs}`." if needs else ""
            raise unknown_name(f"`{name}`: column", column, table.columns, fix)
        for limit in limits:
            if limit not in ("min", "max"):
                raise unknown_name(f"`{name}.{column}`: limit", limit, ("min", "max"))
        chosen &= _within(numbers(table[column]), limits)
    if not chosen.any():
        raise InputError(
            f"`{name}` must leave at least one of {len(table)} rows, got none for "
            f"{ {column: dict(limits) for column, limits in where.items()} }. Relax the limits."
        )
    return chosen


def undecided_rows(table: pd.DataFrame, where: Limits) -> pd.Series:
    """True for the rows that lack a value which decides whether they are within the limits.

    What is derived from the day before lacks nothing where it has no meaning: in the first 24 hours
    of a system, and for a deepening in Bergeron also towards the equator and the poles.

    Args:
        table: ``time, storm_id, latitude`` where a column is derived.
        where: as `select_rows` takes it.
    """
    possible, lacking = (pd.Series(value, index=table.index) for value in (True, False))
    for column, limits in where.items():
        values = numbers(table[column])
        missing = values.isna()
        if column in DERIVED and {"storm_id", "time"} <= set(table.columns):
            missing &= table["time"] - table.groupby("storm_id")["time"].transform("min") >= DAY
        if column == "deepening_bergeron" and "latitude" in table:
            missing &= table["latitude"].abs().between(*BERGERON_LATITUDES)
        possible &= _within(values, limits) | missing
        lacking |= missing
    return possible & lacking


def _within(values: pd.Series, limits: Mapping[str, float]) -> pd.Series:
    least, most = limits.get("min", -np.inf), limits.get("max", np.inf)
    return (values >= least) & (values <= most)


def numbers(column: pd.Series) -> pd.Series:
    """A column as numbers; what is none, is infinite or stands for a missing value is NaN.

    The latter is one of FILLS that is twice as far from 0 as all values that are none of them, or
    below 0 where all of these are not.
    """
    values = as_numbers(column)
    wrong = pd.Series(np.isinf(values.to_numpy()) | _fills(values.to_numpy()), index=column.index)
    if wrong.any():
        shown = ", ".join(f"{v:g}" for v in sorted(set(values[wrong])))
        say_once(
            logging.WARNING,
            f"{int(wrong.sum())} values of `{column.name}` count as missing: {shown}",
        )
    return values.mask(wrong)


def _fills(values: npt.NDArray[np.floating]) -> npt.NDArray[np.bool_]:
    """Which values stand for a missing one."""
    like = np.isclose(values[:, None], np.array(FILLS), rtol=1e-6, atol=0.0).any(axis=1)
    others = values[~like & np.isfinite(values)]
    far = np.abs(values) > 2.0 * np.abs(others).max(initial=0.0)
    return np.asarray(like & (far | (values < 0.0) & (others.min(initial=np.inf) >= 0.0)))
