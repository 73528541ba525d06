"""Coastlines for plain latitude-longitude axes, when cartopy and its data are at hand."""

import logging
import warnings
from functools import lru_cache

import numpy as np

log = logging.getLogger(__name__)


@lru_cache(maxsize=1)
def coastlines() -> list[np.ndarray]:
    """Natural Earth 1:110m coastlines as arrays of (longitude, latitude) in degrees.

    Empty without cartopy (the extra `maps`), or without its data and a network to fetch them;
    ``CARTOPY_DATA_DIR`` names a folder that has them.
    """
    try:
        from cartopy.io import shapereader
    except ImportError:
        log.info("maps have no coastlines: install the extra `maps` (cartopy)")
        return []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # cartopy warns that it downloads
            path = shapereader.natural_earth("110m", "physical", "coastline")
    except OSError as error:
        log.info("maps have no coastlines: cartopy cannot fetch them (%s)", error)
        return []
    return [np.asarray(line.coords)[:, :2] for line in shapereader.Reader(path).geometries()]


def unrolled(line: np.ndarray, west: float) -> np.ndarray:
    """The line on axes that begin at longitude `west`, broken where it leaves them."""
    longitude = (line[:, 0] - west) % 360.0 + west
    jumps = np.flatnonzero(np.abs(np.diff(longitude)) > 180.0) + 1
    return np.insert(np.column_stack([longitude, line[:, 1]]), jumps, np.nan, axis=0)
