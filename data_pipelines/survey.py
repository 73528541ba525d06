"""What files of fields and catalogues hold, at a glance: metadata, and a few time steps."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

from data_pipelines.catalogues import as_numbers
from data_pipelines.coordinates import canonical_coordinates
from data_pipelines.errors import InputError
from data_pipelines.fields import select_variable
from data_pipelines.incidents import REQUIRED, read_catalogue
from data_pipelines.limits import numbers
from data_pipelines.opening import is_url, open_files
from data_pipelines.quality import Finding, limits, limits_of, loaded
from data_pipelines.schema import FloatArray, IntArray, is_global
from data_pipelines.time_axis import time_findings

IMPOSSIBLE = 0.5  # share of impossible values from which on the units must be wrong
SAMPLED = 5  # time steps that are looked at
LONG = pd.Timedelta(days=60)  # longer than any storm lives


@dataclass(frozen=True)
class Variable:
    """A variable of the files.

    Attributes:
        name: in the file.
        stored_units: in the file.
        units: in which it is read.
        standard_name: of CF; may be empty.
        long_name: may be empty.
        problem: why it cannot be used; empty if it can.
        low: smallest value of the sampled time steps, in `units`; NaN without any.
        high: largest one.
        missing: True for the points that are missing at any of them; shape (latitude, longitude).
        share_missing: of their values.
    """

    name: str
    stored_units: str
    units: str
    standard_name: str
    long_name: str
    problem: str
    low: float
    high: float
    missing: npt.NDArray[np.bool_]
    share_missing: float

    @property
    def constant(self) -> bool:
        """Whether the sampled values are all the same, so that nothing can be learned."""
        return not self.problem and self.low == self.high


@dataclass(frozen=True)
class FieldsSurvey:
    """What files of fields hold.

    Attributes:
        paths: the files.
        bytes: on disk; 0 for an address.
        times: ascending, each once.
        latitude: degrees north, descending.
        longitude: degrees east, ascending, first in [0, 360).
        stored: first and last latitude, and first and last longitude, as the files have them.
        variables: of at least two dimensions.
        sampled: time steps that were read.
        findings: what is wrong with files and times.
        daily_means: whether a variable says that it is a mean over its time.
    """

    paths: tuple[str, ...]
    bytes: int
    times: pd.DatetimeIndex
    latitude: FloatArray
    longitude: FloatArray
    stored: tuple[float, float, float, float]
    variables: tuple[Variable, ...]
    sampled: int
    findings: tuple[Finding, ...]
    daily_means: bool

    @property
    def step_hours(self) -> float:
        """The usual time step, hours; NaN of a single time."""
        if len(self.times) < 2:
            return float("nan")
        return float(np.median(np.diff(self.times.to_numpy()) / np.timedelta64(1, "h")))

    @property
    def spacing(self) -> tuple[float, float]:
        """Of latitude and longitude, degrees."""
        return (
            float(abs(self.latitude[-1] - self.latitude[0])) / (len(self.latitude) - 1),
            float(self.longitude[-1] - self.longitude[0]) / (len(self.longitude) - 1),
        )

    @property
    def is_global(self) -> bool:
        """Whether the longitudes go once around the globe."""
        return is_global(self.longitude)

    def inside(self, latitude: FloatArray, longitude: FloatArray) -> npt.NDArray[np.bool_]:
        """True for the points, degrees, that lie in the region of the fields."""
        half = [s / 2 for s in self.spacing]
        north = latitude <= self.latitude[0] + half[0]
        south = latitude >= self.latitude[-1] - half[0]
        east = (longitude - self.longitude[0] + half[1]) % 360.0
        width = self.longitude[-1] - self.longitude[0] + 2 * half[1]
        return np.asarray(north & south & (self.is_global | (east <= width)))


def survey_fields(paths: Sequence[str | Path]) -> FieldsSurvey:
    """Looks at files of fields: reads coordinates, attributes and a few time steps.

    Raises:
        InputError: no such file, none can be opened, or the grid or the times cannot be used.
    """
    opened, unread = open_files(paths)
    dataset = canonical_coordinates(opened)
    stored = _stored(opened, dataset)
    dataset, findings = time_findings(dataset)
    times = pd.DatetimeIndex(dataset.indexes["time"])
    steps = sampled_steps(np.arange(len(times)))
    names = [str(n) for n, v in dataset.data_vars.items() if v.ndim >= 2]
    methods = [str(dataset[n].attrs.get("cell_methods", "")) for n in names]
    return FieldsSurvey(
        paths=tuple(map(str, paths)),
        bytes=sum(_size(p) for p in paths),
        times=times,
        latitude=dataset["latitude"].to_numpy().astype(float),
        longitude=dataset["longitude"].to_numpy().astype(float),
        stored=stored,
        variables=tuple(_variable(dataset, name, steps) for name in names),
        sampled=len(steps),
        findings=(*unread, *findings),
        daily_means=any("time: mean" in m.replace("time:mean", "time: mean") for m in methods),
    )


def sampled_steps(steps: IntArray) -> IntArray:
    """A few of the steps, spread evenly."""
    few = np.linspace(0, len(steps) - 1, min(SAMPLED, len(steps))).round().astype(int)
    return np.asarray(steps[few], dtype=np.int64)


def _variable(dataset: xr.Dataset, name: str, steps: IntArray) -> Variable:
    attributes = dataset[name].attrs
    units = str(attributes.get("units", ""))
    shape = (dataset.sizes["latitude"], dataset.sizes["longitude"])
    problem, si, values = "", units, np.zeros((0, *shape), dtype=np.float32)
    if dataset[name].dtype.kind not in "fiu":
        problem = f"it holds no numbers but {dataset[name].dtype}"
    else:
        try:
            field = select_variable(dataset, name)
            si = str(field.attrs["units"])
            values = field.isel(time=steps).to_numpy()
        except InputError as error:
            problem = str(error)
        except (OSError, RuntimeError, ValueError) as error:
            problem = f"it cannot be read: {error}"
    known = values[np.isfinite(values)]
    low, high = limits(str(attributes.get("standard_name", "")), name, si)
    if not problem and not len(known):
        problem = f"all of it is missing at {len(steps)} times that were looked at"
    elif not problem and ((known < low) | (known > high)).mean() > IMPOSSIBLE:
        values_text = f"its values, {known.min():g} to {known.max():g}"
        problem = (
            f"{values_text} {si}, are not possible, which is {low:g} to {high:g}; does the file "
            f"say the right units (`{units}`)?"
        )
        if not units:
            hundred = ((100 * known >= low) & (100 * known <= high)).mean() > 1 - IMPOSSIBLE
            problem = (
                f"the file gives no units, and {values_text}, are not possible in SI units "
                f"({low:g} to {high:g}). Write them into the file: "
                f"`dataset['{name}'].attrs['units'] = '{'hPa' if hundred else '...'}'`"
            )
    return Variable(
        name=name,
        stored_units=units,
        units=si,
        standard_name=str(attributes.get("standard_name", "")),
        long_name=str(attributes.get("long_name", "")),
        problem=problem,
        low=float(known.min()) if len(known) else float("nan"),
        high=float(known.max()) if len(known) else float("nan"),
        missing=np.asarray((~np.isfinite(values)).any(axis=0)),
        share_missing=float((~np.isfinite(values)).mean()) if values.size else 0.0,
    )


def refuse_impossible(fields: xr.DataArray) -> None:
    """Looks at a few time steps of canonical fields before a network does.

    Raises:
        InputError: most values of a variable are impossible, so that its units must be wrong.
    """
    few = loaded(fields.isel(time=sampled_steps(np.arange(fields.sizes["time"])))).to_numpy()
    for k, (low, high) in enumerate(limits_of(fields)):
        known = few[:, k][np.isfinite(few[:, k])]
        if len(known) and ((known < low) | (known > high)).mean() > IMPOSSIBLE:
            name, units = (str(fields[c].values[k]) for c in ("variable", "units"))
            raise InputError(
                f"`{name}` must lie within {low:g} to {high:g} {units}, got {known.min():g} to "
                f"{known.max():g}. Correct the units that the file gives."
            )


def _stored(opened: xr.Dataset, canonical: xr.Dataset) -> tuple[float, float, float, float]:
    """The ends of latitude and longitude before they were made canonical."""
    ends: list[float] = []
    for axis in ("latitude", "longitude"):
        wanted = len(canonical[axis])
        values = canonical[axis].to_numpy()
        for name, variable in opened.variables.items():
            found = np.asarray(variable.values) if variable.dims == (name,) else np.zeros(0)
            if found.dtype.kind == "f" and len(found) >= wanted and _same_points(found, values):
                values = found
                break
        ends += [float(values[0]), float(values[-1])]
    return ends[0], ends[1], ends[2], ends[3]


def _same_points(values: FloatArray, canonical: FloatArray) -> bool:
    return {*np.round(values % 360.0, 4)} == {*np.round(canonical.astype(float) % 360.0, 4)}


def _size(path: str | Path) -> int:
    if is_url(path):
        return 0
    path = Path(path).expanduser()
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(f.stat().st_size for f in files if f.is_file())


@dataclass(frozen=True)
class CatalogueSurvey:
    """What a catalogue holds.

    Attributes:
        path: of the file.
        table: as `read_catalogue` gives it.
    """

    path: str
    table: pd.DataFrame

    @property
    def period(self) -> tuple[pd.Timestamp, pd.Timestamp]:
        """Times of the first and last entry."""
        return self.table["time"].iloc[0], self.table["time"].iloc[-1]

    @property
    def storms(self) -> int:
        """Number of systems."""
        return int(self.table["storm_id"].nunique())

    def numbers(self) -> dict[str, tuple[float, float, int]]:
        """Smallest and largest value, and number of values, of each column one can select by."""
        found = {}
        for name in self.table:
            if name in (*REQUIRED, "storm_id"):
                continue
            known = self.table[name].notna()
            if not as_numbers(self.table[name][known], tell=False).notna().mean() > 0.5:
                continue  # text, such as names of which one is a number
            values = numbers(self.table[name]).dropna()
            if len(values):
                found[str(name)] = float(values.min()), float(values.max()), len(values)
        return found

    def overlong(self) -> list[str]:
        """Systems that live too long to be one: names that are used again, such as every year."""
        times = self.table.groupby("storm_id")["time"].agg(["min", "max"])
        return [str(s) for s in times.index[times["max"] - times["min"] > LONG]]


def survey_catalogue(path: str | Path) -> CatalogueSurvey:
    """Reads a catalogue in any of its formats.

    Raises:
        InputError: as `read_catalogue`.
    """
    return CatalogueSurvey(str(path), read_catalogue(path))
