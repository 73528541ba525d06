"""Coastlines for plain latitude-longitude axes, when cartopy and its data are at hand."""

import importlib.util
import logging
import os
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import numpy as np

log = logging.getLogger(__name__)
COASTLINE = Path("shapefiles", "natural_earth", "physical", "ne_110m_coastline.shp")


@lru_cache(maxsize=1)
def coastlines() -> list[np.ndarray]:
    """Natural Earth 1:110m coastlines as arrays of (longitude, latitude) in degrees.

    Empty without cartopy (the extra `maps`) or its data; nothing is downloaded here.
    ``CARTOPY_DATA_DIR`` names a folder that has them; ``cartopy_feature_download physical`` fetches
    them once.

    The file is read without importing cartopy: its PROJ library beside the one of ecCodes, which
    reads GRIB, can end Python with a segmentation fault (pyproj 3.7 with eccodes 2.50).
    """
    found = importlib.util.find_spec("cartopy")
    if found is None or found.origin is None:
        log.info("maps have no coastlines: install the extra `maps` (cartopy)")
        return []
    for folder in _data_folders(Path(found.origin).parent):
        if (folder / COASTLINE).is_file():
            return _read(folder / COASTLINE)
    log.info(
        "maps have no coastlines: cartopy has no data at hand; `cartopy_feature_download physical` "
        "fetches them, or set CARTOPY_DATA_DIR"
    )
    return []


def _data_folders(package: Path) -> list[Path]:
    """Where cartopy keeps and looks for its data, as its documentation says."""
    given = os.environ.get("CARTOPY_DATA_DIR")
    home = Path(os.environ.get("XDG_DATA_HOME", Path.home() / ".local" / "share"))
    return [*([Path(given)] if given else []), home / "cartopy", package / "data"]


def _read(path: Path) -> list[np.ndarray]:
    import shapefile  # pyshp, which comes with cartopy

    lines = []
    with shapefile.Reader(str(path)) as reader:
        for shape in reader.iterShapes():
            points = np.asarray(shape.points, dtype=float)[:, :2]
            lines += [points[a:b] for a, b in pairwise([*shape.parts, len(points)])]
    return lines


def unrolled(line: np.ndarray, west: float) -> np.ndarray:
    """The line on axes that begin at longitude `west`, broken where it leaves them."""
    longitude = (line[:, 0] - west) % 360.0 + west
    jumps = np.flatnonzero(np.abs(np.diff(longitude)) > 180.0) + 1
    return np.insert(np.column_stack([longitude, line[:, 1]]), jumps, np.nan, axis=0)
