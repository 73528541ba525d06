"""A synthetic reanalysis with cyclones, and its catalogue: the embedded default.

Sea-level pressure is a meridional mean state, plus travelling Rossby-like waves whose complex
amplitudes are red noise, plus vortices on tracks. A vortex has Holland's profile (1980, Mon. Wea.
Rev. 108, 1212-1218) with a Gaussian taper; its wind follows from gradient balance, that of the
large scale from geostrophic balance (damped towards the equator), both with the hemisphere's
sign. Vorticity is the curl of that wind on the sphere. Explosive cyclones deepen by more than one
Bergeron (24 hPa x sin|latitude| / sin 60 in 24 h; Sanders and Gyakum 1980); ordinary lows may
become as deep, but slowly, so that depth alone does not tell the two apart.

Each time step depends on the seed and its own time only, given the tables of storms and wave
amplitudes, so that an archive of any length can be made lazily.
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from data_pipelines.errors import InputError
from data_pipelines.schema import FloatArray, great_circle_km

RADIUS = 6.371e6  # m
OMEGA = 7.2921e-5  # s-1
DENSITY = 1.15  # kg m-3
SURFACE_WIND = 0.7  # 10 m wind over balanced wind
STEP = pd.Timedelta(hours=6)
TAPER = 1.5e6  # m, e-folding distance of the vortex's Gaussian taper

ATTRIBUTES = {
    "msl": ("air_pressure_at_mean_sea_level", "Mean sea level pressure", "Pa"),
    "u10": ("eastward_wind", "10 m eastward wind", "m s-1"),
    "v10": ("northward_wind", "10 m northward wind", "m s-1"),
    "vo850": ("atmosphere_relative_vorticity", "Relative vorticity at 850 hPa", "s-1"),
}


@dataclass(frozen=True)
class Synthetic:
    """What the synthetic reanalysis holds.

    Attributes:
        start: first time, UTC.
        days: length in days, 6-hourly; a configuration with 0 makes nothing.
        spacing: grid spacing, degrees.
        latitudes: southern and northern limit, degrees north.
        longitudes: western and eastern limit, degrees east; [0, 360] is the globe.
        explosive_per_day: rate of explosive cyclones on the globe.
        ordinary_per_day: rate of ordinary lows on the globe.
        seed: decides everything.
    """

    start: str = "2001-01-01"
    days: int = 60
    spacing: float = 2.5
    latitudes: list[float] = field(default_factory=lambda: [-90.0, 90.0])
    longitudes: list[float] = field(default_factory=lambda: [0.0, 360.0])
    explosive_per_day: float = 0.8
    ordinary_per_day: float = 7.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Checks the limits.

        Raises:
            InputError: an empty period, region or spacing.
        """
        if self.days < 0 or self.spacing <= 0:
            raise InputError(
                f"`synthetic.days` and `synthetic.spacing` must not be negative, got {self.days} and "
                f"{self.spacing}."
            )
        south, north = self.latitudes
        west, east = self.longitudes
        if not (-90 <= south < north <= 90) or not (west < east <= west + 360):
            raise InputError(
                "`synthetic.latitudes` must rise within -90 to 90 and `synthetic.longitudes` rise "
                f"by at most 360, got {self.latitudes} and {self.longitudes}."
            )

    def times(self) -> pd.DatetimeIndex:
        """The time steps."""
        return pd.date_range(self.start, periods=4 * self.days, freq=STEP, name="time")

    def grid(self) -> tuple[FloatArray, FloatArray]:
        """Latitude (descending) and longitude (ascending), degrees."""
        south, north = self.latitudes
        west, east = self.longitudes
        latitude = np.arange(round((north - south) / self.spacing), -1, -1) * self.spacing + south
        n = round((east - west) / self.spacing)
        longitude = west + np.arange(n if east - west >= 360 else n + 1) * self.spacing
        return latitude, longitude


def write_synthetic(settings: Synthetic, folder: str | Path) -> tuple[Path, Path]:
    """Writes `fields.nc` (CF) and `catalogue.csv`; returns their paths."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    fields, catalogue = make_synthetic(settings)
    fields_path, catalogue_path = folder / "fields.nc", folder / "catalogue.csv"
    encoding = {name: {"zlib": True, "complevel": 1} for name in fields.data_vars}
    partial = folder / "fields.nc.partial"
    fields.to_netcdf(partial, encoding=encoding, engine="netcdf4")
    partial.replace(fields_path)
    catalogue.to_csv(catalogue_path, index=False, float_format="%.4f")
    return fields_path, catalogue_path


def make_synthetic(settings: Synthetic) -> tuple[xr.Dataset, pd.DataFrame]:
    """Makes the fields and the catalogue in memory.

    Returns:
        Dataset of `msl` (Pa), `u10`, `v10` (m s-1), `vo850` (s-1), float32, dims
        ``(time, latitude, longitude)``; and the catalogue with the columns ``time, latitude,
        longitude, storm_id, pressure_hpa, deepening_bergeron``, every cyclone every 6 hours.
    """
    if settings.days == 0:
        raise InputError("`synthetic.days` must be at least 1 to make fields, got 0.")
    times = settings.times()
    latitude, longitude = settings.grid()
    storms = _storms(settings)
    amplitudes = _wave_amplitudes(settings)
    steps = [_fields_at(i, latitude, longitude, storms, amplitudes) for i in range(len(times))]
    dims = ("time", "latitude", "longitude")
    variables = {}
    for k, (name, (standard, long, units)) in enumerate(ATTRIBUTES.items()):
        values = np.stack([s[k] for s in steps]).astype(np.float32)
        variables[name] = (
            dims,
            values,
            {"standard_name": standard, "long_name": long, "units": units},
        )
    dataset = xr.Dataset(
        variables,
        coords={
            "time": ("time", times, {"standard_name": "time", "long_name": "time"}),
            "latitude": (
                "latitude",
                latitude,
                {"standard_name": "latitude", "units": "degrees_north"},
            ),
            "longitude": (
                "longitude",
                longitude,
                {"standard_name": "longitude", "units": "degrees_east"},
            ),
        },
        attrs={
            "Conventions": "CF-1.10",
            "title": "Synthetic reanalysis with cyclones (not an observation of the atmosphere)",
            "source": f"weather-tdr synthetic, {settings}",
        },
    )
    return dataset, _catalogue(settings, storms, amplitudes)


# --- mean state and waves ------------------------------------------------------------------

WAVENUMBERS = np.arange(3, 15)


def mean_pressure(latitude: FloatArray) -> FloatArray:
    """Meridional mean state, Pa: subtropical highs, subpolar lows, equatorial trough."""

    def hump(centre: float, width: float) -> FloatArray:
        return np.asarray(np.exp(-(((np.abs(latitude) - centre) / width) ** 2)))

    south = np.where(latitude < 0, 1.0, 0.0)
    return np.asarray(
        101300.0
        + 900 * hump(32, 14)
        - (1100 + 900 * south) * hump(62, 13)
        - 250 * np.exp(-((latitude / 12) ** 2))
    )


def _wave_amplitudes(settings: Synthetic) -> FloatArray:
    """Red-noise amplitudes times phase, Pa, shape (time, hemisphere, wavenumber, mode), complex."""
    rng = np.random.default_rng([settings.seed, 1])
    n = 4 * settings.days
    memory = np.exp(-6.0 / np.clip(120.0 - 6.0 * WAVENUMBERS, 24.0, None))  # e-folding in hours
    scale = 330.0 * (6.0 / (WAVENUMBERS + 3.0)) ** 0.7
    shape = (n, 2, len(WAVENUMBERS), 2)
    noise = (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)) / np.sqrt(2)
    series = np.empty(shape, dtype=complex)
    series[0] = noise[0]
    for i in range(1, n):
        series[i] = memory[:, None] * series[i - 1] + np.sqrt(1 - memory[:, None] ** 2) * noise[i]
    # Westerly phase speed: short waves travel east, the longest hardly move.
    degrees_per_step = 2.5 * (1 - (4.0 / (WAVENUMBERS + 1.0)) ** 2)
    phase = np.deg2rad(WAVENUMBERS * degrees_per_step)[None, :] * np.arange(n)[:, None]
    return np.asarray(series * (scale * np.exp(-1j * phase))[:, None, :, None])


def _large_scale(step: int, lat: FloatArray, lon: FloatArray, amplitudes: FloatArray) -> FloatArray:
    """Mean state and waves, Pa, at any points (`lat` and `lon` broadcast)."""
    pressure = mean_pressure(lat) + np.zeros(np.broadcast(lat, lon).shape)
    modes = np.exp(1j * np.deg2rad(lon)[..., None] * WAVENUMBERS)
    for hemisphere, sign in enumerate((1.0, -1.0)):
        for mode, (centre, width) in enumerate(((42.0, 13.0), (60.0, 12.0))):
            envelope = np.exp(-(((sign * lat - centre) / width) ** 2))
            wave = (modes @ amplitudes[step, hemisphere, :, mode]).real
            pressure = pressure + envelope * wave
    return np.asarray(pressure)


# --- cyclones ------------------------------------------------------------------------------


def _storms(settings: Synthetic) -> pd.DataFrame:
    """One row a cyclone: birth, track, depth, growth. Storms born before the start are included."""
    rng = np.random.default_rng([settings.seed, 2])
    rows = []
    lead = 6.0
    for kind, rate in (
        ("explosive", settings.explosive_per_day),
        ("ordinary", settings.ordinary_per_day),
    ):
        for _ in range(rng.poisson(rate * (settings.days + lead))):
            explosive = kind == "explosive"
            latitude = rng.normal(40 if explosive else 44, 6) * rng.choice([1, -1])
            bergeron = 24.0 * np.sin(np.deg2rad(abs(latitude) + 6)) / np.sin(np.deg2rad(60))
            fall = (rng.uniform(1.35, 2.1) if explosive else rng.uniform(0.1, 0.62)) * bergeron
            grow = rng.uniform(36, 54) if explosive else rng.uniform(60, 120)  # hours
            # Depth grows as a cosine ramp: its steepest 24 h take the share sin(pi/2 24/grow).
            depth = 100.0 * fall / np.sin(np.pi / 2 * min(1.0, 24.0 / grow))
            rows.append(
                {
                    "birth": rng.uniform(-lead * 24, settings.days * 24),
                    "latitude": latitude,
                    "longitude": rng.uniform(0, 360),
                    "east": rng.uniform(8, 17),  # m s-1
                    "pole": rng.uniform(1.0, 4.5),  # m s-1
                    "depth": depth,
                    "grow": grow,
                    "decay": rng.uniform(48, 96),
                    "radius": rng.uniform(3.2e5, 6.0e5) * (1.0 if explosive else 1.1),
                    "shape": rng.uniform(1.1, 1.6),
                }
            )
    storms = pd.DataFrame(rows).sort_values("birth", ignore_index=True)
    storms["storm_id"] = [f"SYN-{i + 1}" for i in range(len(storms))]
    return storms


def _vortices(step: int, storms: pd.DataFrame) -> pd.DataFrame:
    """The cyclones alive at a step: latitude, longitude, depth (Pa), radius (m), shape."""
    age = step * 6.0 - storms["birth"]
    alive = storms[(age >= 0) & (age <= storms["grow"] + storms["decay"])]
    age = age[alive.index]
    grown = np.minimum(age / alive["grow"], 1.0)
    faded = np.clip((age - alive["grow"]) / alive["decay"], 0.0, 1.0)
    life = 0.5 * (1 - np.cos(np.pi * grown)) * 0.5 * (1 + np.cos(np.pi * faded))
    north = np.sign(alive["latitude"])
    metres = age * 3600.0
    latitude = alive["latitude"] + north * np.rad2deg(alive["pole"] * metres / RADIUS)
    latitude = north * np.minimum(np.abs(latitude), 78.0)
    mean_latitude = np.deg2rad((alive["latitude"] + latitude) / 2)
    longitude = alive["longitude"] + np.rad2deg(
        alive["east"] * metres / (RADIUS * np.cos(mean_latitude))
    )
    return alive.assign(
        latitude=latitude, longitude=longitude % 360.0, depth=alive["depth"] * life, age=age
    )


def holland_deficit(
    distance: FloatArray, depth: float, radius: float, shape: float
) -> tuple[FloatArray, FloatArray]:
    """Pressure deficit of a tapered Holland vortex and its gradient.

    Args:
        distance: from the centre, m.
        depth: deficit at the centre, Pa.
        radius: radius of the steepest gradient, m.
        shape: Holland's B.

    Returns:
        Deficit (Pa, `depth` at the centre, falling outwards) and radial gradient of pressure
        (Pa m-1, >= 0).

    Source: Holland (1980), p = p_c + (p_n - p_c) exp(-(R/r)^B); the taper is ours.
    """
    r = np.maximum(distance, 1.0)
    core = np.exp(-((radius / r) ** shape))
    taper = np.exp(-((r / TAPER) ** 2))
    deficit = depth * (1 - core) * taper
    slope = shape / r * (radius / r) ** shape * core
    gradient = depth * taper * (slope + (1 - core) * 2 * r / TAPER**2)
    return np.asarray(deficit), np.asarray(gradient)


def gradient_wind(gradient: FloatArray, distance: FloatArray, coriolis: FloatArray) -> FloatArray:
    """Speed of the cyclonic gradient wind, m s-1: V^2/r + |f| V = (1/rho) dp/dr."""
    r = np.maximum(distance, 1.0)
    half = r * np.abs(coriolis) / 2
    return np.asarray(np.sqrt(half**2 + r * gradient / DENSITY) - half)


def _fields_at(
    step: int,
    latitude: FloatArray,
    longitude: FloatArray,
    storms: pd.DataFrame,
    amplitudes: FloatArray,
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """msl, u10, v10, vo850 of one step, each shape (latitude, longitude)."""
    # A rim of one point closes the differences at the edges (longitudes wrap by themselves).
    spacing = latitude[0] - latitude[1]
    lat = np.r_[latitude[0] + spacing, latitude, latitude[-1] - spacing]
    lon = np.r_[longitude[0] - spacing, longitude, longitude[-1] + spacing]
    phi = np.deg2rad(np.clip(lat, -89.5, 89.5))[:, None]
    inside = np.clip(lat, -90, 90)[:, None]
    coriolis = 2 * OMEGA * np.sin(phi)
    pressure = _large_scale(step, inside, lon[None, :], amplitudes)
    dx = RADIUS * np.cos(phi) * np.deg2rad(spacing)
    dy = RADIUS * np.deg2rad(spacing)
    # f / (f^2 + f0^2) instead of 1 / f: geostrophic outside the tropics, calm at the equator.
    inverse_f = coriolis / (coriolis**2 + (2 * OMEGA * np.sin(np.deg2rad(12))) ** 2)
    u = inverse_f / DENSITY * np.gradient(pressure, axis=0) / dy
    v = inverse_f / DENSITY * np.gradient(pressure, axis=1) / dx
    v = np.where(np.abs(lat[:, None]) > 88, 0.0, v)
    for storm in _vortices(step, storms).itertuples():
        distance = 1000.0 * great_circle_km(
            np.array(storm.latitude), np.array(storm.longitude), inside, lon[None, :]
        )
        deficit, gradient = holland_deficit(distance, storm.depth, storm.radius, storm.shape)
        pressure = pressure - deficit
        speed = gradient_wind(gradient, distance, coriolis)
        turn = np.sign(storm.latitude)
        # Bearing from each point towards the centre gives the tangential direction.
        dlon = np.deg2rad(storm.longitude - lon[None, :])
        target = np.deg2rad(storm.latitude)
        east = np.sin(dlon) * np.cos(target)
        north = np.cos(phi) * np.sin(target) - np.sin(phi) * np.cos(target) * np.cos(dlon)
        length = np.maximum(np.hypot(east, north), 1e-9)
        u = u + turn * speed * north / length
        v = v - turn * speed * east / length
    curl = np.gradient(v, axis=1) / dx + np.gradient(u * np.cos(phi), axis=0) / (dy * np.cos(phi))
    msl, u, v, curl = (a[1:-1, 1:-1] for a in (pressure, u, v, curl))
    pole = np.abs(latitude) > 90 - spacing / 2
    if pole.any():  # the curl of a pole is that of its neighbours' ring
        for row in np.flatnonzero(pole):
            curl[row] = curl[1 if row == 0 else -2].mean()
    return msl, SURFACE_WIND * u, SURFACE_WIND * v, curl


def _catalogue(settings: Synthetic, storms: pd.DataFrame, amplitudes: FloatArray) -> pd.DataFrame:
    """Every cyclone at every step inside the domain, with its deepening over exactly 24 hours."""
    frames = []
    for step, time in enumerate(settings.times()):
        alive = _vortices(step, storms)
        alive = alive[alive["depth"] > 300.0]
        lat, lon = alive["latitude"].to_numpy(), alive["longitude"].to_numpy()
        pressure = _large_scale(step, lat, lon, amplitudes)
        for storm in alive.itertuples():
            distance = 1000.0 * great_circle_km(
                np.array(storm.latitude), np.array(storm.longitude), lat, lon
            )
            pressure -= holland_deficit(distance, storm.depth, storm.radius, storm.shape)[0]
        frames.append(
            alive[["latitude", "longitude", "storm_id"]].assign(
                step=step, time=time, pressure_hpa=pressure / 100.0
            )
        )
    table = pd.concat(frames, ignore_index=True)
    before = table[["step", "storm_id", "pressure_hpa"]].assign(step=table["step"] + 4)
    table = table.merge(before, on=["step", "storm_id"], how="left", suffixes=("", "_before"))
    bergeron = 24.0 * np.sin(np.deg2rad(table["latitude"].abs())) / np.sin(np.deg2rad(60.0))
    table["deepening_bergeron"] = (table["pressure_hpa_before"] - table["pressure_hpa"]) / bergeron
    south, north = settings.latitudes
    west, east = settings.longitudes
    here = table["latitude"].between(south, north)
    here &= ((table["longitude"] - west) % 360.0) <= east - west
    columns = [
        "time", "latitude", "longitude", "storm_id", "pressure_hpa", "deepening_bergeron",
    ]  # fmt: skip
    return table.loc[here, columns].reset_index(drop=True)
