"""Keeps the two copies of PROJ that pip brings from crashing the process at its exit.

The wheels of pyproj (for cartopy) and of eccodes (for cfgrib) each hold a PROJ of their own. When
that of eccodes comes first, which xarray loads to learn which formats there are, and pyproj after
it, the process ends with a segmentation fault; the other way round it ends well. Seen with eccodes
2.50 and pyproj 3.7. Packages of conda-forge share one PROJ.
"""

import importlib.util


def load_proj_first() -> None:
    """Loads pyproj now, where both are installed; to be called before xarray opens a file."""
    if importlib.util.find_spec("eccodes") and importlib.util.find_spec("pyproj"):
        import pyproj  # noqa: F401
