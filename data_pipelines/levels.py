"""The level of a variable that has only one: what files say of it in one-long coordinates."""

import numpy as np
import xarray as xr

from data_pipelines.units import si_units

# of vertical coordinates; others are told by `axis`, `positive` or units of pressure
STANDARD_NAMES = ("air_pressure", "height", "altitude", "depth", "model_level_number")


TOLD = "_level"  # attribute of a variable that was read from one of several files


def level_of(field: xr.DataArray) -> str:
    """Level of a variable, such as ``85000 Pa`` or ``2 m``; empty where none with units is given.

    Args:
        field: a variable as the file has it.
    """
    if TOLD in field.attrs:
        return str(field.attrs[TOLD])
    listed = field.encoding.get("coordinates")  # of NetCDF; else of one file all share them
    found = []
    for name, axis in sorted(field.coords.items(), key=lambda item: str(item[0])):
        belongs = name in field.dims or listed is None or str(name) in str(listed).split()
        if belongs and axis.size == 1 and axis.dtype.kind in "fiu" and is_vertical(axis):
            si, factor, offset = si_units(str(axis.attrs["units"]))
            value = float(np.asarray(axis.to_numpy()).ravel()[0]) * factor + offset
            if np.isfinite(value):
                found.append(f"{value:.6g} {si}")
    return ", ".join(dict.fromkeys(found))


def is_vertical(axis: xr.DataArray) -> bool:
    """Whether an axis says that it is vertical, and in which units."""
    told = axis.attrs
    if not told.get("units"):
        return False
    return bool(
        str(told.get("axis", "")).upper() == "Z"
        or "positive" in told
        or str(told.get("standard_name", "")) in STANDARD_NAMES
        or si_units(str(told["units"]))[0] == "Pa"
    )
