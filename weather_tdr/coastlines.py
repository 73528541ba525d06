"""Coastlines for plain latitude-longitude axes, when cartopy and its data are at hand."""

import logging
from functools import lru_cache
from pathlib import Path

import numpy as np

log = logging.getLogger(__name__)
COASTLINE = {"resolution": "110m", "category": "physical", "name": "coastline"}


@lru_cache(maxsize=1)
def coastlines() -> list[np.ndarray]:
    """Natural Earth 1:110m coastlines as arrays of (longitude, latitude) in degrees.

    Empty without cartopy (the extra `maps`) or its data; nothing is downloaded here.
    ``CARTOPY_DATA_DIR`` names a folder that has them; ``cartopy_feature_download physical`` fetches
    them once.
    """
    try:
        from cartopy import config
        from cartopy.io import Downloader, shapereader
    except ImportError:
        log.info("maps have no coastlines: install the extra `maps` (cartopy)")
        return []
    files = Downloader.from_config(("shapefiles", "natural_earth", *COASTLINE.values()))
    wanted = {"config": config, **COASTLINE}
    for path in (files.pre_downloaded_path(wanted), files.target_path(wanted)):
        if path and Path(path).is_file():
            lines = shapereader.Reader(path).geometries()
            return [np.asarray(line.coords)[:, :2] for line in lines]
    log.info(
        "maps have no coastlines: cartopy has no data at hand; `cartopy_feature_download physical` "
        "fetches them, or set CARTOPY_DATA_DIR"
    )
    return []


def unrolled(line: np.ndarray, west: float) -> np.ndarray:
    """The line on axes that begin at longitude `west`, broken where it leaves them."""
    longitude = (line[:, 0] - west) % 360.0 + west
    jumps = np.flatnonzero(np.abs(np.diff(longitude)) > 180.0) + 1
    return np.insert(np.column_stack([longitude, line[:, 1]]), jumps, np.nan, axis=0)
