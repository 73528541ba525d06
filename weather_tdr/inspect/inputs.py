"""What fields, catalogues and incident maps hold, in a few lines."""

from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from data_pipelines.errors import InputError
from data_pipelines.opening import engine_of, open_files
from data_pipelines.survey import CatalogueSurvey, FieldsSurvey, Variable, survey_fields
from weather_tdr.facts import (
    Facts,
    bytes_text,
    latitude_text,
    longitude_text,
    period_text,
    region_text,
    some,
    step_text,
    time_text,
)
from weather_tdr.incident_files import read_incidents

TEXTS = 6  # values of a column of text that are shown
MOST_COLUMNS = 8
AROUND = 30.0  # degrees; what has no wider gap goes around the globe


def inspect_fields(path: str) -> Facts:
    """Variables, grid, times and missing values of gridded fields.

    Args:
        path: NetCDF or GRIB file, or Zarr store.

    Raises:
        InputError: it cannot be opened.
    """
    try:
        survey = survey_fields([path])
    except InputError as error:
        return _as_it_is(path, error)
    facts = Facts()
    facts.add("fields", f"{path}, {bytes_text(survey.bytes)}")
    every = f", every {step_text(survey.step_hours)}" if len(survey.times) > 1 else ""
    facts.add(
        "times", f"{len(survey.times)}, {period_text(survey.times[0], survey.times[-1])}{every}"
    )
    facts.add("grid", f"{region_text(survey.latitude, survey.longitude)}, "
              f"{survey.spacing[0]:.4g} x {survey.spacing[1]:.4g} degrees apart")  # fmt: skip
    south, west = survey.stored[0] < survey.stored[1], survey.stored[2] < 0
    if south or west:
        odd = ["latitude from south to north"] * south + ["longitude from the west"] * west
        facts.add("", f"stored with {', '.join(odd)}; put right when it is read")
    for variable in survey.variables:
        facts.add(variable.name, _variable_text(variable, survey))
    for found in survey.findings:
        facts.warn(f"{found.line()}.")
    return facts


def _variable_text(variable: Variable, survey: FieldsSurvey) -> str:
    about = [variable.stored_units or "no units"]
    if variable.units not in (variable.stored_units, "1"):
        about[0] += f", read as {variable.units}"
    about += [t for t in (variable.standard_name, variable.long_name) if t]
    if variable.problem:
        return f"{', '.join(about)}; cannot be used: {variable.problem}"
    missing = f"{variable.share_missing:.2%} missing" if variable.share_missing else "none missing"
    return (
        f"{', '.join(about)}; {variable.low:g} to {variable.high:g}, {missing} "
        f"at {survey.sampled} of {len(survey.times)} times"
    )


def _as_it_is(path: str, reason: InputError) -> Facts:
    """Dimensions and variables of a file that cannot be used as fields."""
    dataset, _ = open_files([path])
    facts = Facts()
    sizes = ", ".join(f"{name} {n}" for name, n in dataset.sizes.items())
    facts.add("file", f"{path}: dimensions {sizes or 'none'}")
    for name, variable in dataset.variables.items():
        units = variable.attrs.get("units", "no units")
        facts.add(str(name), f"{', '.join(map(str, variable.dims)) or 'a single value'}; {units}")
    facts.warn(f"this cannot be used as fields: {reason}")
    return facts


def inspect_catalogue(survey: CatalogueSurvey) -> Facts:
    """Entries, systems, period, region and columns of a catalogue."""
    facts, table = Facts(), survey.table
    facts.add("catalogue", f"{survey.path}, format {table.attrs['format']}")
    facts.add("entries", f"{len(table)} of {survey.storms} systems, {period_text(*survey.period)}")
    hours = sorted({f"{h:02d}" for h in table["time"].dt.hour})
    facts.add("", f"at {', '.join(hours)} UTC" if len(hours) <= 8 else "at all hours of the day")
    north, south = (latitude_text(v) for v in (table["latitude"].max(), table["latitude"].min()))
    facts.add("region", f"{south} to {north}, {_longitudes(table['longitude'])}")
    derived, numbers = table.attrs.get("derived", []), survey.numbers()
    ordered = sorted(numbers, key=lambda name: name not in derived)
    for name in ordered[:MOST_COLUMNS]:
        low, high, known = numbers[name]
        made = ", made from the track" if name in derived else ""
        facts.add(name, f"{low:g} to {high:g}, known for {known / len(table):.0%}{made}")
    if more := ordered[MOST_COLUMNS:]:
        facts.add("further", ", ".join(more))
    for column in table:
        if column in numbers or column in ("time", "latitude", "longitude", "storm_id"):
            continue
        values = [str(v) for v in table[column].dropna().unique()]
        if values:
            facts.add(str(column), some(values, TEXTS))
    if renamed := table.attrs.get("renamed"):
        names = ", ".join(f"{old} as {new}" for old, new in renamed.items())
        facts.add("read under", f"other names: {names}")
    if skipped := table.attrs.get("skipped"):
        facts.warn(f"{skipped} lines or features cannot be read and are left out.")
    if overlong := survey.overlong():
        facts.warn(
            f"{some(overlong)} last longer than 60 days; is their storm_id used again, such as "
            "every year?"
        )
    return facts


def _longitudes(values: pd.Series) -> str:
    """The narrowest range that holds all longitudes: it begins after the widest gap."""
    east = np.unique(values.to_numpy(dtype=float))
    gaps = np.diff(np.r_[east, east[0] + 360.0])
    if gaps.max() < AROUND:
        return "all longitudes"
    begin = (int(np.argmax(gaps)) + 1) % len(east)
    return f"{longitude_text(float(east[begin]))} to {longitude_text(float(east[begin - 1]))}"


def inspect_map(path: Path) -> Facts:
    """Times, grid, largest probability and threshold of an incident map."""
    with xr.open_dataset(path, engine=engine_of(path)) as opened:
        found, threshold = opened["incident_probability"].load(), opened.attrs.get("threshold")
        source = str(opened.attrs.get("source", ""))
    facts = Facts()
    facts.add("incident map", f"{path}, {bytes_text(path.stat().st_size)}; {source}")
    times = pd.DatetimeIndex(found["time"].to_numpy())
    facts.add("times", f"{len(times)}, {period_text(times[0], times[-1])}" if len(times) else "0")
    latitude, longitude = (found[a].to_numpy().astype(float) for a in ("latitude", "longitude"))
    facts.add("grid", region_text(latitude, longitude))
    values = found.to_numpy()
    if not np.isfinite(values).any():
        facts.warn("all probabilities are missing.")
        return facts
    at, row, column = map(int, np.unravel_index(int(np.nanargmax(values)), values.shape))
    facts.add(
        "probability",
        f"highest {values[at, row, column]:.3g} on {time_text(times[at])} at "
        f"{latitude_text(latitude[row])}, {longitude_text(longitude[column])}; mean "
        f"{np.nanmean(values):.3g}; {np.isnan(values).mean():.1%} missing",
    )
    if threshold is not None and np.isfinite(threshold):
        above = int((np.nanmax(values, axis=(1, 2), initial=-1.0) >= threshold).sum())
        facts.add("threshold", f"{float(threshold):.3g}, reached at {above} of {len(times)} times")
    return facts


def inspect_incidents(path: Path) -> Facts:
    """Number, tracks and strongest entry of an incident table that `map` or `evaluate` wrote."""
    table, facts = read_incidents(path), Facts()
    facts.add("incident table", f"{path}: {len(table)} incidents")
    if table.empty:
        return facts
    facts.add("times", period_text(table["time"].min(), table["time"].max()))
    facts.add("tracks", str(table["track_id"].nunique()))
    best = table.iloc[int(table["probability"].to_numpy().argmax())]
    place = f"{latitude_text(best['latitude'])}, {longitude_text(best['longitude'])}"
    facts.add("strongest", f"{best['probability']:.3g} on {time_text(best['time'])} at {place}")
    if "matched" in table:
        facts.add("matched", f"{int(table['matched'].sum())} are true")
    return facts
