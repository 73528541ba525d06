"""A synthetic reanalysis with cyclones, and its catalogue: the embedded default.

Sea-level pressure is a meridional mean state, plus travelling Rossby-like waves whose complex
amplitudes are red noise, plus vortices on tracks. A vortex has Holland's profile (1980, Mon. Wea.
Rev. 108, 1212-1218) with a Gaussian taper; its wind follows from gradient balance, that of the
large scale from geostrophic balance (damped towards the equator), both with the hemisphere's
sign. Vorticity is the curl of that wind on the sphere. Explosive cyclones deepen by more than one
Bergeron (24 hPa x sin|latitude| / sin 60 in 24 h; Sanders and Gyakum 1980); ordinary lows may
become as deep, but slowly, so that depth alone does not tell the two apart. Tropical cyclones, if
there are any, are those of `synthetic_tropical`.

Each time step depends on the seed and its own time only, given the tables of storms and wave
amplitudes, so that an archive of any length can be made lazily.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

from data_pipelines.atmosphere import (
    RADIUS,
    balanced_fields,
    central_pressure,
    wave_amplitudes,
)
from data_pipelines.errors import InputError
from data_pipelines.schema import FloatArray
from data_pipelines.synthetic_tropical import (
    ibtracs_entries,
    make_cyclones,
    tropical_vortices,
    write_ibtracs,
)
from data_pipelines.tracks import bergeron
from data_pipelines.writing import written_whole

STEP = pd.Timedelta(hours=6)
VORTEX = ["latitude", "longitude", "depth", "radius", "shape"]
LOW = ("birth", *VORTEX[:3], "radius", "shape", "east", "pole", "grow", "decay")

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
        tropical_per_day: rate of tropical cyclones on the globe, in the hemisphere that has its
            warm season; above 0 the catalogue is theirs, an IBTrACS file, and lists no lows.
        seed: decides everything.
    """

    start: str = "2001-01-01"
    days: int = 60
    spacing: float = 2.5
    latitudes: list[float] = field(default_factory=lambda: [-90.0, 90.0])
    longitudes: list[float] = field(default_factory=lambda: [0.0, 360.0])
    explosive_per_day: float = 0.8
    ordinary_per_day: float = 7.0
    tropical_per_day: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Checks the limits.

        Raises:
            InputError: an empty period, region or spacing.
        """
        if self.days < 0 or self.spacing <= 0:
            raise InputError(
                "`synthetic.days` must not be negative and `synthetic.spacing` positive, got "
                f"{self.days} and {self.spacing}."
            )
        for name in ("latitudes", "longitudes"):
            if len(getattr(self, name)) != 2:
                raise InputError(
                    f"`synthetic.{name}` must be two limits, got {getattr(self, name)}."
                )
        for name in ("explosive_per_day", "ordinary_per_day"):
            if not getattr(self, name) > 0:
                raise InputError(f"`synthetic.{name}` must be positive, got {getattr(self, name)}.")
        if not self.tropical_per_day >= 0:
            raise InputError(
                f"`synthetic.tropical_per_day` must not be negative, got {self.tropical_per_day}."
            )
        try:
            pd.Timestamp(self.start)
        except ValueError as error:
            raise InputError(f"`synthetic.start` must be a date, got `{self.start}`.") from error
        south, north = self.latitudes
        west, east = self.longitudes
        for span in (north - south, east - west):
            if abs(span / self.spacing - round(span / self.spacing)) > 1e-6:
                raise InputError(
                    f"`synthetic.spacing` must divide the ranges of latitude and longitude, got "
                    f"{self.spacing} for {span:g} degrees."
                )
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
        return np.asarray(latitude), np.asarray(longitude)


def write_synthetic(settings: Synthetic, folder: str | Path) -> tuple[Path, Path]:
    """Writes `fields.nc` (CF) and `catalogue.csv`; returns their paths."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    fields, catalogue = make_synthetic(settings)
    fields_path, catalogue_path = folder / "fields.nc", folder / "catalogue.csv"
    encoding = {name: {"zlib": True, "complevel": 1} for name in fields.data_vars}
    with written_whole(fields_path) as partial:
        fields.to_netcdf(partial, encoding=encoding, engine="netcdf4")
    if settings.tropical_per_day > 0:
        write_ibtracs(catalogue, catalogue_path)
    else:
        catalogue.to_csv(catalogue_path, index=False, float_format="%.4f")
    return fields_path, catalogue_path


def make_synthetic(settings: Synthetic) -> tuple[xr.Dataset, pd.DataFrame]:
    """Makes the fields and the catalogue in memory.

    Returns:
        Dataset of `msl` (Pa), `u10`, `v10` (m s-1), `vo850` (s-1), float32, dims
        ``(time, latitude, longitude)``; and the catalogue with the columns ``time, latitude,
        longitude, storm_id, pressure_hpa, deepening_bergeron``, every cyclone every 6 hours; or
        that of the tropical cyclones with the columns of IBTrACS.
    """
    if settings.days == 0:
        raise InputError("`synthetic.days` must be at least 1 to make fields, got 0.")
    times = settings.times()
    latitude, longitude = settings.grid()
    storms = _storms(settings)
    amplitudes = wave_amplitudes(len(times), settings.seed)
    vortices = [_vortices(i, storms)[VORTEX].to_numpy() for i in range(len(times))]
    if settings.tropical_per_day > 0:
        cyclones = make_cyclones(times, settings.tropical_per_day, settings.seed)
        tropical = [tropical_vortices(i, cyclones) for i in range(len(times))]
        vortices = [
            np.vstack([v, t[VORTEX].to_numpy()]) for v, t in zip(vortices, tropical, strict=True)
        ]
        catalogue = _inside(settings, ibtracs_entries(times, tropical, vortices, amplitudes))
    else:
        catalogue = _catalogue(settings, storms, amplitudes)
    steps = [
        balanced_fields(latitude, longitude, v, waves)
        for v, waves in zip(vortices, amplitudes, strict=True)
    ]
    dims = ("time", "latitude", "longitude")
    variables = {}
    for k, (name, (standard, long, units)) in enumerate(ATTRIBUTES.items()):
        values = np.stack([s[k] for s in steps]).astype(np.float32)
        variables[name] = (
            dims,
            values,
            {"standard_name": standard, "long_name": long, "units": units},
        )
    coords: dict[str, Any] = {
        "time": ("time", times, {"standard_name": "time", "long_name": "time"})
    }
    for axis, points, way in zip(dims[1:], (latitude, longitude), ("north", "east"), strict=True):
        coords[axis] = (axis, points, {"standard_name": axis, "units": f"degrees_{way}"})
    dataset = xr.Dataset(
        variables,
        coords=coords,
        attrs={
            "Conventions": "CF-1.10",
            "title": "Synthetic reanalysis with cyclones (not an observation of the atmosphere)",
            "source": f"weather-tdr synthetic, {settings}",
        },
    )
    return dataset, catalogue


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
    storms = pd.DataFrame(rows, columns=list(LOW), dtype=float).sort_values(
        "birth", ignore_index=True
    )
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


def _catalogue(
    settings: Synthetic, storms: pd.DataFrame, amplitudes: npt.NDArray[np.complex128]
) -> pd.DataFrame:
    """Every cyclone at every step inside the domain, with its deepening over exactly 24 hours."""
    frames = []
    for step, time in enumerate(settings.times()):
        alive = _vortices(step, storms)
        alive = alive[alive["depth"] > 300.0]
        lat, lon = alive["latitude"].to_numpy(), alive["longitude"].to_numpy()
        pressure = central_pressure(lat, lon, alive[VORTEX].to_numpy(), amplitudes[step])
        frames.append(
            alive[["latitude", "longitude", "storm_id"]].assign(
                step=step, time=time, pressure_hpa=pressure / 100.0
            )
        )
    table = pd.concat(frames, ignore_index=True)
    before = table[["step", "storm_id", "pressure_hpa"]].assign(step=table["step"] + 4)
    table = table.merge(before, on=["step", "storm_id"], how="left", suffixes=("", "_before"))
    fall = table["pressure_hpa_before"] - table["pressure_hpa"]
    table["deepening_bergeron"] = fall / bergeron(table["latitude"].to_numpy())
    columns = [
        "time", "latitude", "longitude", "storm_id", "pressure_hpa", "deepening_bergeron",
    ]  # fmt: skip
    return _inside(settings, table)[columns]


def _inside(settings: Synthetic, table: pd.DataFrame) -> pd.DataFrame:
    """The entries inside the domain."""
    south, north = settings.latitudes
    west, east = settings.longitudes
    here = table["latitude"].between(south, north)
    here &= ((table["longitude"] - west) % 360.0) <= east - west
    return table[here].reset_index(drop=True)
