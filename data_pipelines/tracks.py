"""What follows from a track: how much a system has deepened, or its wind has risen, in a day."""

import logging

import numpy as np
import pandas as pd

from data_pipelines.catalogues import as_numbers
from data_pipelines.schema import FloatArray

log = logging.getLogger(__name__)

DAY = pd.Timedelta(hours=24)
DERIVED = {"deepening_bergeron": "pressure_hpa", "wind_change_24h": "wind_kt"}  # column: needs
BERGERON_LATITUDES = (20.0, 75.0)  # degrees, poleward or equatorward of which it means little
POSSIBLE = {"pressure_hpa": (800.0, 1100.0), "wind_kt": (0.0, 300.0)}


def add_changes(table: pd.DataFrame) -> pd.DataFrame:
    """Adds `deepening_bergeron` and `wind_change_24h` where the table allows and lacks them.

    A column that is there is kept as it is.

    Args:
        table: ``time, storm_id, latitude`` and, as far as known, ``pressure_hpa``, ``wind_kt``
            (with ``pressure_agency``, ``wind_agency``, ``wind_averaging_minutes``).

    Returns:
        The table with the further columns; ``attrs["derived"]`` names them.
    """
    derived = [c for c, needs in DERIVED.items() if c not in table and needs in table]
    made = {
        column: (deepening_bergeron if column == "deepening_bergeron" else wind_change_24h)(table)
        for column in derived
    }
    attrs = table.attrs | {"derived": derived}
    table = pd.concat([table, pd.DataFrame(made, index=table.index)], axis=1)
    table.attrs = attrs
    return table


def deepening_bergeron(table: pd.DataFrame) -> pd.Series:
    """Fall of the central pressure over exactly the preceding 24 hours, in Bergeron.

        deepening = (p(t - 24 h) - p(t)) / (24 hPa x sin|latitude(t)| / sin 60)

    1 Bergeron or more is explosive. Not to be confused with the tendency at an instant, or with
    the deepest fall of a whole track.

    Args:
        table: ``time, storm_id, latitude`` (degrees north), ``pressure_hpa`` and, if known,
            ``pressure_agency``.

    Returns:
        Bergeron, positive where the system deepens, shape (rows,); NaN without a pressure of the
        same system exactly 24 hours earlier, by the same agency, and where the latitude is not 20
        to 75 degrees.

    Source: F. Sanders and J. R. Gyakum (1980), Mon. Wea. Rev. 108, 1589-1606.
    """
    pressure = possible(table, "pressure_hpa")
    latitude = table["latitude"].abs()
    fall = day_before(table, pressure) - pressure
    if "pressure_agency" in table:
        agency = table["pressure_agency"]
        fall = fall.where(agency == day_before(table, agency))
    return (fall / bergeron(latitude.to_numpy(dtype=float))).where(
        latitude.between(*BERGERON_LATITUDES)
    )


def bergeron(latitude: FloatArray) -> FloatArray:
    """Fall of pressure in 24 hours that is 1 Bergeron, hPa, at latitudes in degrees."""
    return np.asarray(24.0 * np.sin(np.deg2rad(np.abs(latitude))) / np.sin(np.deg2rad(60.0)))


def wind_change_24h(table: pd.DataFrame) -> pd.Series:
    """Rise of the maximum sustained wind over exactly the preceding 24 hours, in knots.

    30 kt or more is rapid intensification. The source dates it by its beginning; here the row at
    its end has it, so that fields of the row's time and earlier show it. Winds of different
    averaging periods are not compared.

    Args:
        table: ``time, storm_id, wind_kt`` and, as far as known, ``wind_averaging_minutes`` and
            ``wind_agency``.

    Returns:
        Knots, positive where the wind rises, shape (rows,); NaN without a wind of the same system
        exactly 24 hours earlier, averaged over as long.

    Source: J. Kaplan and M. DeMaria (2003), Wea. Forecasting 18, 1093-1108.
    """
    wind = possible(table, "wind_kt")
    change = wind - day_before(table, wind)
    if "wind_averaging_minutes" in table:
        minutes = table["wind_averaging_minutes"]
        alike = minutes == day_before(table, minutes)
        if "wind_agency" in table:  # of an unknown period, but still one agency's
            alike |= table["wind_agency"] == day_before(table, table["wind_agency"])
        change = change.where(alike)
    return change


def day_before(table: pd.DataFrame, values: pd.Series) -> pd.Series:
    """What the same system had exactly 24 hours earlier.

    Args:
        table: ``time`` and ``storm_id``.
        values: a value a row of the table.

    Returns:
        A value a row; missing where there is no such entry, or more than one.
    """
    entries = pd.MultiIndex.from_arrays([table["storm_id"], table["time"]])
    earlier = pd.Series(values.to_numpy(), index=entries)[~entries.duplicated(keep=False)]
    wanted = pd.MultiIndex.from_arrays([table["storm_id"], table["time"] - DAY])
    return pd.Series(earlier.reindex(wanted).to_numpy(), index=table.index)


def possible(table: pd.DataFrame, column: str) -> pd.Series:
    """The column as numbers; what it cannot be, such as -999, is missing."""
    low, high = POSSIBLE[column]
    values = as_numbers(table[column])
    wrong = values.notna() & ~values.between(low, high)
    if wrong.any():
        log.warning(
            "`%s` must lie within %g to %g, got `%g` and %d such values in all; they count as "
            "missing",
            column,
            low,
            high,
            values[wrong].iloc[0],
            int(wrong.sum()),
        )
    return values.mask(wrong)
