"""The physics of the synthetic reanalysis: mean state, waves, vortices, and their balanced winds.

Each time step depends on the tables of vortices and wave amplitudes and its own time only.
"""

import numpy as np
import numpy.typing as npt

from data_pipelines.schema import EARTH_RADIUS_KM, FloatArray, great_circle_km

RADIUS = 1000.0 * EARTH_RADIUS_KM  # m
OMEGA = 7.2921e-5  # s-1
DENSITY = 1.15  # kg m-3
SURFACE_WIND = 0.7  # 10 m wind over balanced wind
TAPER = 1.5e6  # m, e-folding distance of the vortex's Gaussian taper
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


def wave_amplitudes(n: int, seed: int) -> npt.NDArray[np.complex128]:
    """Red-noise amplitudes times phase of `n` 6-hourly steps.

    Returns:
        Pa, shape (n, hemisphere, wavenumber, mode).
    """
    rng = np.random.default_rng([seed, 1])
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


def large_scale(
    lat: FloatArray, lon: FloatArray, amplitudes: npt.NDArray[np.complex128]
) -> FloatArray:
    """Mean state and waves of one step, Pa, at any points (`lat` and `lon` broadcast)."""
    pressure = mean_pressure(lat) + np.zeros(np.broadcast(lat, lon).shape)
    modes = np.exp(1j * np.deg2rad(lon)[..., None] * WAVENUMBERS)
    for hemisphere, sign in enumerate((1.0, -1.0)):
        for mode, (centre, width) in enumerate(((42.0, 13.0), (60.0, 12.0))):
            envelope = np.exp(-(((sign * lat - centre) / width) ** 2))
            wave = (modes @ amplitudes[hemisphere, :, mode]).real
            pressure = pressure + envelope * wave
    return np.asarray(pressure)


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


def central_pressure(
    latitude: FloatArray,
    longitude: FloatArray,
    vortices: FloatArray,
    amplitudes: npt.NDArray[np.complex128],
) -> FloatArray:
    """Sea-level pressure at points, such as the centres of vortices, of one step.

    Args:
        latitude: degrees north, shape (n,).
        longitude: degrees east, shape (n,).
        vortices: all that are there, a row each, as in `balanced_fields`.
        amplitudes: of this step, shape (hemisphere, wavenumber, mode), Pa.

    Returns:
        Pa, shape (n,).
    """
    pressure = large_scale(latitude, longitude, amplitudes)
    for centre_lat, centre_lon, depth, radius, shape in vortices:
        distance = 1000.0 * great_circle_km(centre_lat, centre_lon, latitude, longitude)
        pressure = pressure - holland_deficit(distance, depth, radius, shape)[0]
    return pressure


def gradient_wind(gradient: FloatArray, distance: FloatArray, coriolis: FloatArray) -> FloatArray:
    """Speed of the cyclonic gradient wind, m s-1: V^2/r + |f| V = (1/rho) dp/dr."""
    r = np.maximum(distance, 1.0)
    half = r * np.abs(coriolis) / 2
    return np.asarray(np.sqrt(half**2 + r * gradient / DENSITY) - half)


def balanced_fields(
    latitude: FloatArray,
    longitude: FloatArray,
    vortices: FloatArray,
    amplitudes: npt.NDArray[np.complex128],
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """The fields of one step.

    Args:
        latitude: degrees north, descending, regular.
        longitude: degrees east, ascending, with the same spacing.
        vortices: a row each: latitude, longitude (degrees), depth (Pa), radius (m), shape.
        amplitudes: of this step, shape (hemisphere, wavenumber, mode), Pa.

    Returns:
        msl (Pa), u10 and v10 (m s-1), vo850 (s-1), each shape (latitude, longitude).
    """
    # A rim of one point closes the differences at the edges (longitudes wrap by themselves).
    spacing = latitude[0] - latitude[1]
    lat = np.r_[latitude[0] + spacing, latitude, latitude[-1] - spacing]
    lon = np.r_[longitude[0] - spacing, longitude, longitude[-1] + spacing]
    phi = np.deg2rad(np.clip(lat, -89.5, 89.5))[:, None]
    inside = np.clip(lat, -90, 90)[:, None]
    coriolis = 2 * OMEGA * np.sin(phi)
    pressure = large_scale(inside, lon[None, :], amplitudes)
    dx = RADIUS * np.cos(phi) * np.deg2rad(spacing)
    dy = RADIUS * np.deg2rad(spacing)
    # f / (f^2 + f0^2) instead of 1 / f: geostrophic outside the tropics, calm at the equator.
    inverse_f = coriolis / (coriolis**2 + (2 * OMEGA * np.sin(np.deg2rad(12))) ** 2)
    u = inverse_f / DENSITY * np.gradient(pressure, axis=0) / dy
    v = inverse_f / DENSITY * np.gradient(pressure, axis=1) / dx
    v = np.where(np.abs(lat[:, None]) > 88, 0.0, v)
    for centre_lat, centre_lon, depth, radius, shape in vortices:
        distance = 1000.0 * great_circle_km(centre_lat, centre_lon, inside, lon[None, :])
        deficit, gradient = holland_deficit(distance, depth, radius, shape)
        pressure = pressure - deficit
        speed = gradient_wind(gradient, distance, coriolis)
        turn = np.sign(centre_lat)
        # Bearing from each point towards the centre gives the tangential direction.
        dlon = np.deg2rad(centre_lon - lon[None, :])
        phi_c = np.deg2rad(centre_lat)
        east = np.sin(dlon) * np.cos(phi_c)
        north = np.cos(phi) * np.sin(phi_c) - np.sin(phi) * np.cos(phi_c) * np.cos(dlon)
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
