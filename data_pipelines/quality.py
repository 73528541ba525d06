"""Quality control of fields: what is missing, infinite or impossible; and the report of it."""

import json
import logging
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

from data_pipelines.errors import InputError
from data_pipelines.schema import PRESSURE, is_pressure

# CF standard name -> units, and what no analysis of the lower atmosphere goes beyond in them.
# Pressure: the records at sea level are 870 and 1084 hPa (WMO archive of extremes); a margin on
# both sides. `1` is what files without units are read in; rain in mm would pass for m there.
LIMITS = {
    PRESSURE: (("Pa", "1"), 80_000.0, 112_000.0),
    "air_temperature": (("K", "1"), 120.0, 345.0),
    "sea_surface_temperature": (("K", "1"), 250.0, 320.0),
    "eastward_wind": (("m s-1", "1"), -250.0, 250.0),
    "northward_wind": (("m s-1", "1"), -250.0, 250.0),
    "wind_speed": (("m s-1", "1"), 0.0, 250.0),
    "atmosphere_relative_vorticity": (("s-1", "1"), -0.1, 0.1),
    "relative_humidity": (("%", "1"), -50.0, 200.0),
    "specific_humidity": (("kg kg-1", "1"), -0.005, 0.1),
    "geopotential": (("m2 s-2", "J kg-1", "1"), -8_000.0, 600_000.0),
    "geopotential_height": (("m", "1"), -800.0, 60_000.0),
    "precipitation_flux": (("kg m-2 s-1",), -1e-3, 1.0),
    "precipitation_amount": (("kg m-2",), -1.0, 3_000.0),
    "lwe_thickness_of_precipitation_amount": (("m",), -1e-3, 3.0),
}
log = logging.getLogger(__name__)
FINITE = float(np.finfo(np.float32).max)
PROBLEMS = ("missing", "infinite", "impossible")
UNREADABLE = "unreadable"
READ_ERRORS = (OSError, RuntimeError, ValueError)  # of netCDF, HDF5, Zarr and its codecs


@dataclass
class Quality:
    """How to treat what quality control finds.

    Attributes:
        strict: any finding is an error; otherwise the affected samples are dropped and counted.
    """

    strict: bool = False


@dataclass(frozen=True)
class Finding:
    """Values of one variable that cannot be used, or times that are not as they should be.

    Attributes:
        variable: its name; ``time``; ``expver`` for the version of ERA5; ``fields`` for all of a
            chunk; or a file.
        problem: one of PROBLEMS; UNREADABLE; ``undated`` of steps without a time; of times
            ``missing``, ``repeated``, ``preliminary`` (ERA5T) or ``mixed`` (ERA5 and ERA5T side
            by side; the final one is taken).
        values: how many; 0 of a file that cannot be opened, of which nothing is known.
        first: first time at which it occurs, ISO 8601.
        last: last time.
    """

    variable: str
    problem: str
    values: int
    first: str
    last: str

    def line(self) -> str:
        """One line for people."""
        if not self.values:
            return f"{self.variable}: {self.problem}: {self.first}"
        when = self.first if self.first == self.last else f"{self.first} to {self.last}"
        return f"{self.variable}: {self.values} {self.problem} values, {when}"


def limits(standard_name: str, name: str, units: str) -> tuple[float, float]:
    """Lowest and highest possible value of a variable; the finite ones where none is known."""
    known = LIMITS.get(_limited(standard_name, name))
    if known is None or (units or "1") not in known[0]:
        return -FINITE, FINITE
    return known[1:]


def limits_of(fields: xr.DataArray) -> list[tuple[float, float]]:
    """The same of each variable of canonical fields."""
    return [limits(*facts) for facts in _described(fields)]


def unchecked(fields: xr.DataArray) -> list[str]:
    """A line for each variable whose limits are known, but not in the units of the fields."""
    lines = []
    for standard, name, units in dict.fromkeys(_described(fields)):
        known = LIMITS.get(_limited(standard, name))
        if known is not None and (units or "1") not in known[0]:
            lines.append(
                f"`{name}`: limits of possible values are known in {known[0][0]}, got the units "
                f"`{units}` (`1` where the file gives none): only missing and infinite values are "
                f"found. Write the right units into the file, or convert it to {known[0][0]}."
            )
    return lines


def _limited(standard_name: str, name: str) -> str:
    return PRESSURE if is_pressure(standard_name, name) else standard_name


def _described(fields: xr.DataArray) -> list[tuple[str, str, str]]:
    """Standard name, own name and units of each variable of canonical fields."""
    keys = ("standard_name", "base_variable", "units")
    return list(zip(*([str(v) for v in fields[k].values] for k in keys), strict=True))


def check_block(
    block: npt.NDArray[np.float32], fields: xr.DataArray, times: pd.DatetimeIndex
) -> tuple[npt.NDArray[np.float32], list[Finding]]:
    """Finds values that cannot be used.

    Args:
        block: fields in memory, shape (time, variable, latitude, longitude).
        fields: what the block is of, for the names of the variables.
        times: of the block.

    Returns:
        The block with NaN where a value is infinite or impossible, and the findings.
    """
    findings = []
    clean = block
    names = [str(v) for v in fields["variable"].values]
    for k, (name, (low, high)) in enumerate(zip(names, limits_of(fields), strict=True)):
        values = block[:, k]
        # The comparisons are false for NaN: one pass tells that nothing is wrong.
        with np.errstate(invalid="ignore"):
            fine = (values >= low) & (values <= high)
        if fine.all():
            continue
        if clean is block:
            clean = block.copy()
        clean[:, k][~fine] = np.nan
        missing, infinite = np.isnan(values), np.isinf(values)
        wrong = (missing, infinite, ~fine & ~missing & ~infinite)
        for problem, where in zip(PROBLEMS, wrong, strict=True):
            if where.any():
                steps = np.flatnonzero(where.any(axis=(1, 2)))
                first, last = (times[s].isoformat() for s in (steps[0], steps[-1]))
                findings.append(Finding(name, problem, int(where.sum()), first, last))
    return clean, findings


def read_block(
    fields: xr.DataArray, times: pd.DatetimeIndex
) -> tuple[npt.NDArray[np.float32], list[Finding]]:
    """Reads a block of lazy fields and finds what cannot be used; see `check_block`.

    A block that cannot be read is missing, and found.

    Args:
        fields: shape (time, variable, latitude, longitude).
        times: of the block.
    """
    try:
        values = fields.to_numpy()
    except READ_ERRORS:
        name = ", ".join(map(str, fields["variable"].values))
        ends = times[0].isoformat(), times[-1].isoformat()
        missing = np.full(fields.shape, np.nan, dtype=np.float32)
        return missing, [Finding(name, UNREADABLE, fields.size, *ends)]
    return check_block(values, fields, times)


def loaded(fields: xr.DataArray) -> xr.DataArray:
    """Lazy fields in memory, as of one time or of some; the times that cannot be read are missing.

    Args:
        fields: any dims; with ``time``, the times are read one by one where reading them fails.
    """
    try:
        return fields.compute()
    except READ_ERRORS:
        if fields.sizes.get("time", 1) > 1:
            one_by_one = [loaded(fields.isel(time=[k])) for k in range(fields.sizes["time"])]
            return xr.concat(one_by_one, dim="time")
        return fields.copy(data=np.full(fields.shape, np.nan, dtype=np.float32))


def findings_of(fields: xr.DataArray) -> list[Finding]:
    """What opening found: the attribute ``findings`` of canonical fields."""
    return [Finding(**found) for found in json.loads(fields.attrs.get("findings", "[]"))]


def joined(findings: Iterable[Finding]) -> list[Finding]:
    """One finding a variable and problem, of those of all blocks in the order of time."""
    together: dict[tuple[str, str], Finding] = {}
    for found in findings:
        key = found.variable, found.problem
        if key in together:
            old = together[key]
            found = Finding(*key, old.values + found.values, old.first, found.last)
        together[key] = found
    return list(together.values())


def write_report(
    path: Path, findings: Sequence[Finding], facts: dict[str, Any], quality: Quality
) -> None:
    """Writes ``quality.json``.

    Raises:
        InputError: there are findings, and `quality` is strict.
    """
    report = {**facts, "findings": [asdict(f) for f in findings]}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=2) + "\n")
    if quality.strict:
        _refuse(findings, path)


def refuse_reported(path: Path) -> None:
    """Refuses the findings that a finished build has reported.

    Raises:
        InputError: there are some, or the report is gone, so that nothing is known.
    """
    try:
        findings = [Finding(**found) for found in json.loads(path.read_text())["findings"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"`quality.strict` needs the report of the build, got none that can be read at {path}. "
            "Delete the patch store beside it and build again."
        ) from error
    _refuse(findings, path)


def _refuse(findings: Sequence[Finding], path: Path) -> None:
    if findings:
        raise InputError(
            f"`quality.strict` allows no finding, got {len(findings)}, the first: "
            f"{findings[0].line()}. See {path}; mend the fields, or leave `quality.strict` out."
        )
