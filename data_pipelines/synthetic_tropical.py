"""Tropical cyclones of the synthetic reanalysis, and their catalogue as an IBTrACS file.

Small, intense vortices are born over the tropics of the hemisphere that has its warm season, drift
west and poleward, recurve, grow and fade. Some intensify rapidly (30 kt in 24 h; Kaplan and
DeMaria 2003), others become as strong slowly, so that strength alone does not tell the two apart.
Nothing here is an observation: the agency of the catalogue is called `synthetic`.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from data_pipelines.atmosphere import (
    OMEGA,
    RADIUS,
    SURFACE_WIND,
    central_pressure,
    gradient_wind,
    holland_deficit,
)
from data_pipelines.schema import FloatArray

KNOT = 1852.0 / 3600.0  # m s-1
FIRST_DEPTH = 600.0  # Pa, of a disturbance that is to become a cyclone
LAST_DEPTH = 300.0  # Pa, of the last entry of a cyclone
LEAD = 12.0  # days before the first time in which cyclones may be born

# Columns of an IBTrACS file, v04r01, and what its row of units says of them.
UNITS = {
    "SID": "", "SEASON": "Year", "NUMBER": "", "BASIN": "", "SUBBASIN": "", "NAME": "",
    "ISO_TIME": "", "NATURE": "", "LAT": "degrees_north", "LON": "degrees_east", "WMO_WIND": "kts",
    "WMO_PRES": "mb", "WMO_AGENCY": "", "TRACK_TYPE": "", "DIST2LAND": "km", "LANDFALL": "km",
    "IFLAG": "", "USA_AGENCY": "", "USA_ATCF_ID": "", "USA_LAT": "degrees_north",
    "USA_LON": "degrees_east", "USA_RECORD": "", "USA_STATUS": "", "USA_WIND": "kts",
    "USA_PRES": "mb", "USA_SSHS": "1",
}  # fmt: skip
CYCLONE = (
    "birth", "latitude", "longitude", "west", "turn", "pole", "depth", "wait", "grow", "decay",
    "radius", "shape",
)  # fmt: skip
# Basins of each hemisphere by the longitude at which they end going east, degrees.
NORTHERN = {100.0: "NI", 180.0: "WP", 260.0: "EP", 360.0: "NA"}
SOUTHERN = {10.0: "SA", 135.0: "SI", 290.0: "SP", 360.0: "SA"}


def make_cyclones(times: pd.DatetimeIndex, per_day: float, seed: int) -> pd.DataFrame:
    """One row a cyclone: birth, track, strength, growth.

    Args:
        times: of the fields, 6-hourly.
        per_day: rate of cyclones on the globe.
        seed: decides everything.

    Returns:
        Table by birth (hours after the first time, from `LEAD` days before it on), with the
        columns that `tropical_vortices` reads and ``storm_id``, made like an IBTrACS identifier.
    """
    rng = np.random.default_rng([seed, 3])
    days = len(times) / 4
    rows = []
    for _ in range(rng.poisson(per_day * (days + LEAD))):
        rapid = rng.random() < 0.4
        birth = rng.uniform(-LEAD * 24, days * 24)
        month = (times[0] + pd.Timedelta(hours=birth)).month
        rows.append(
            {
                "birth": birth,
                "latitude": rng.uniform(8, 18) * (1 if 5 <= month <= 11 else -1),
                "longitude": rng.uniform(0, 360),
                "west": rng.uniform(3, 7),  # m s-1, at first
                "turn": rng.uniform(0.3, 1.1),  # m s-1 a day, towards the east
                "pole": rng.uniform(0.8, 2.6),  # m s-1
                "depth": rng.uniform(4500, 10000) if rapid else rng.uniform(1200, 8000),
                "wait": rng.uniform(12, 60),  # hours before it grows
                "grow": rng.uniform(36, 60) if rapid else rng.uniform(96, 168),
                "decay": rng.uniform(60, 120),
                "radius": rng.uniform(0.8e5, 1.5e5),
                "shape": rng.uniform(1.2, 1.8),
            }
        )
    cyclones = pd.DataFrame(rows, columns=list(CYCLONE), dtype=float).sort_values(
        "birth", ignore_index=True
    )
    taken: dict[str, None] = {}
    columns = (cyclones[name].tolist() for name in ("birth", "latitude", "longitude"))
    for birth, latitude, longitude in zip(*columns, strict=True):
        day = times[0] + pd.Timedelta(hours=birth)
        north = f"{day:%Y%j}{'N' if latitude > 0 else 'S'}{abs(latitude):02.0f}"
        east = round(longitude) % 360
        while f"{north}{east:03d}" in taken:  # two born close to each other
            east = (east + 1) % 360
        taken[f"{north}{east:03d}"] = None
    cyclones["storm_id"] = list(taken)
    return cyclones


def tropical_vortices(step: int, cyclones: pd.DataFrame) -> pd.DataFrame:
    """The cyclones alive at a step: as in `make_cyclones`, with position and depth (Pa) of now."""
    age = step * 6.0 - cyclones["birth"]
    end = cyclones["wait"] + cyclones["grow"] + cyclones["decay"]
    alive = cyclones[(age >= 0) & (age <= end)]
    age = age[alive.index]
    grown = np.clip((age - alive["wait"]) / alive["grow"], 0.0, 1.0)
    faded = np.clip((age - alive["wait"] - alive["grow"]) / alive["decay"], 0.0, 1.0)
    peak = FIRST_DEPTH + (alive["depth"] - FIRST_DEPTH) * 0.5 * (1 - np.cos(np.pi * grown))
    seconds = age * 3600.0
    north = np.sign(alive["latitude"])
    latitude = alive["latitude"] + north * np.rad2deg(alive["pole"] * seconds / RADIUS)
    mean_latitude = np.deg2rad((alive["latitude"] + latitude) / 2)
    east = -alive["west"] * seconds + alive["turn"] / 86400.0 * seconds**2 / 2
    longitude = alive["longitude"] + np.rad2deg(east / (RADIUS * np.cos(mean_latitude)))
    return alive.assign(
        latitude=latitude,
        longitude=longitude % 360.0,
        depth=peak * 0.5 * (1 + np.cos(np.pi * faded)),
    )


def highest_wind(latitude: float, depth: float, radius: float, shape: float) -> float:
    """Highest 10 m wind of a vortex at rest, m s-1: that of `balanced_fields` on a fine grid."""
    distance = radius * np.linspace(0.5, 3.0, 126)
    _, gradient = holland_deficit(distance, depth, radius, shape)
    coriolis = np.full(len(distance), 2 * OMEGA * np.sin(np.deg2rad(latitude)))
    return SURFACE_WIND * float(gradient_wind(gradient, distance, coriolis).max())


def ibtracs_entries(
    times: pd.DatetimeIndex,
    cyclones: Sequence[pd.DataFrame],
    vortices: Sequence[FloatArray],
    amplitudes: npt.NDArray[np.complex128],
) -> pd.DataFrame:
    """Every tropical cyclone at every step until it has faded, in IBTrACS' columns and rounding.

    Args:
        times: of the steps.
        cyclones: of each step, as `tropical_vortices` gives them.
        vortices: of each step, all that are there, as in `balanced_fields`.
        amplitudes: shape (step, hemisphere, wavenumber, mode), Pa.

    Returns:
        Table by storm and time, with the columns of `UNITS` (positions in tenths of a degree,
        winds in multiples of 5 kt, pressures in hPa; blank: not known), and further ``latitude``
        and ``longitude``, unrounded, degrees.
    """
    frames = []
    for time, alive, there, waves in zip(times, cyclones, vortices, amplitudes, strict=True):
        alive = alive[alive["depth"] > LAST_DEPTH]
        lat, lon = alive["latitude"].to_numpy(), alive["longitude"].to_numpy()
        vortex = alive[["latitude", "depth", "radius", "shape"]].to_numpy().tolist()
        winds = np.array([highest_wind(*row) for row in vortex])
        frames.append(
            alive[["latitude", "longitude", "storm_id"]].assign(
                time=time,
                wind=(5 * np.round(winds / KNOT / 5)).astype(int),
                pressure=np.round(central_pressure(lat, lon, there, waves) / 100.0).astype(int),
            )
        )
    table = pd.concat(frames).sort_values(["storm_id", "time"], ignore_index=True)
    number, _ = pd.factorize(table["storm_id"])
    basins = [_basin(*p) for p in zip(table["latitude"], table["longitude"], strict=True)]
    known = {
        "SID": table["storm_id"],
        "SEASON": table["storm_id"].str[:4],
        "NUMBER": number + 1,
        "BASIN": basins,
        "SUBBASIN": "MM",
        "NAME": "UNNAMED",
        "ISO_TIME": table["time"].dt.strftime("%Y-%m-%d %H:%M:%S"),
        "NATURE": "TS",
        "LAT": table["latitude"].round(1),
        "LON": ((table["longitude"] + 180.0) % 360.0 - 180.0).round(1),
        "WMO_WIND": table["wind"],
        "WMO_PRES": table["pressure"],
        "WMO_AGENCY": "synthetic",
        "TRACK_TYPE": "main",
    }
    columns = {name: known.get(name, " ") for name in UNITS}
    return pd.DataFrame(
        columns | {"latitude": table["latitude"], "longitude": table["longitude"]},
        index=table.index,
    )


def _basin(latitude: float, longitude: float) -> str:
    """IBTrACS' code, roughly: the border between the two oceans at America is a meridian here."""
    basins = NORTHERN if latitude > 0 else SOUTHERN
    return next(name for end, name in basins.items() if longitude < end)


def write_ibtracs(entries: pd.DataFrame, path: Path) -> None:
    """Writes entries as an IBTrACS CSV file: names, units, then a row an entry."""
    units = pd.DataFrame([{name: unit or " " for name, unit in UNITS.items()}])
    text = units.to_csv(index=False) + entries[list(UNITS)].to_csv(index=False, header=False)
    path.write_text(text)
