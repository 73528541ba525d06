"""Best tracks of tropical cyclones: IBTrACS (CSV, v04r00 and v04r01) and HURDAT2 (text)."""

import csv
import logging
import math
import re
from datetime import datetime
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import pandas as pd

from data_pipelines.errors import InputError

log = logging.getLogger(__name__)

IBTRACS_COLUMNS = ("SID", "ISO_TIME", "LAT", "LON")  # no other catalogue has all of them
RENAMED = {
    "SID": "storm_id",
    "ISO_TIME": "time",
    "LAT": "latitude",
    "LON": "longitude",
    "BASIN": "basin",
    "NAME": "name",
    "USA_STATUS": "status",
}
TEXT = (  # columns of text, so that neither `NA` nor a number changes in them
    "SID", "BASIN", "SUBBASIN", "NAME", "ISO_TIME", "NATURE", "WMO_AGENCY", "TRACK_TYPE", "IFLAG",
    "USA_AGENCY", "USA_ATCF_ID", "USA_RECORD", "USA_STATUS",
)  # fmt: skip

# Minutes over which each agency averages its sustained wind; see `read_ibtracs` for the source.
AVERAGING_MINUTES = {
    **dict.fromkeys(("hurdat_atl", "hurdat_epa", "atcf", "cphc", "tcvitals", "usa"), 1.0),
    **dict.fromkeys(("jtwc_wp", "jtwc_io", "jtwc_ep", "jtwc_cp", "jtwc_sh"), 1.0),
    **dict.fromkeys(("tokyo", "reunion", "bom", "nadi", "wellington", "hko"), 10.0),
    "cma": 2.0,
    "newdelhi": 3.0,
}

HEADER = re.compile(r"\s*([A-Z]{2})(\d{6})\s*,\s*([^,]*?)\s*,\s*(\d+)\s*,?\s*")
ENTRY = re.compile(r"\s*\d{8}\s*,\s*\d{4}\s*,([^,]*,){2}\s*[\d.]+\s*[NS]\s*,\s*[\d.]+\s*[EW]\s*,")
ENTRY_START = re.compile(r"\s*\d{6,8}\s*,")
QUADRANTS = ("ne", "se", "sw", "nw")
RADII = [f"r{knots}_{q}_nmile" for knots in (34, 50, 64) for q in QUADRANTS] + ["rmw_nmile"]
FIELDS = (8, 20, 21)  # of an entry: without radii, with them, and with the radius of maximum wind
SHOWN = 5  # skipped lines that the warning names


def read_ibtracs(text: TextIO, head: str) -> pd.DataFrame:
    """Reads an IBTrACS CSV file; columns are found by their names, in any order and number.

    The second row, of units, is no entry. Main and provisional tracks are kept; spur tracks,
    alternative or interacting positions of a system that has a main track, are left out. Central
    pressure and wind are those of the agency responsible for the basin (``WMO_...``), and before
    its first value of a storm and after its last those of the US agency; in between, what it does
    not give is missing. Winds are not converted: ``wind_agency`` and ``wind_averaging_minutes``
    tell whose wind a row has and over how long it is a mean, ``pressure_agency`` whose pressure.
    All other columns keep their names and values.

    Args:
        text: the file.
        head: its first lines.

    Returns:
        Table with ``time, latitude, longitude, storm_id, basin, name, status, pressure_hpa,
        pressure_agency, wind_kt, wind_agency, wind_averaging_minutes`` as far as the file has them;
        ``attrs`` add ``spur_entries`` and ``provisional_entries`` (rows left out and kept) and
        ``wind_averaging_minutes`` (agency -> minutes; None where unknown).

    Raises:
        InputError: only spur tracks.

    Source: column documentation of IBTrACS v04 (K. R. Knapp et al. 2010, Bull. Amer. Meteor. Soc.
    91, 363-376): track types; WMO_WIND is not adjusted, United States 1 minute, New Delhi 3,
    Tokyo, La Reunion, Australia, Nadi and Wellington 10, CMA 2.
    """
    lines = [line for line in head.splitlines() if line.strip()][:2]
    names, *second = csv.reader(lines, skipinitialspace=True)
    names = [name.strip() for name in names]
    time = second[0][names.index("ISO_TIME")] if second and len(second[0]) >= len(names) else ""
    units = bool(second) and not time.strip()[:4].isdigit()
    table = pd.read_csv(
        text,
        header=0,
        names=names,
        index_col=False,
        skiprows=[1] if units else None,
        dtype=dict.fromkeys([n for n in TEXT if n in names], str),
        keep_default_na=False,  # the basin `NA` is the North Atlantic
        na_values=["", " "],
        skipinitialspace=True,
        low_memory=False,
    )
    first = 3 if units else 2
    table.index = pd.RangeIndex(first, first + len(table))
    track = table["TRACK_TYPE"] if "TRACK_TYPE" in table else pd.Series("main", index=table.index)
    track = track.fillna("main").str.lower()
    spur = track.str.contains("spur")
    if len(table) and spur.all():
        raise InputError(
            f"`incidents.catalogue` must hold main tracks, got {len(table)} entries of spur tracks "
            "only. Give a file of whole storms."
        )
    provisional = int((track.str.contains("provisional") & ~spur).sum())
    table = table[~spur].rename(columns=RENAMED)
    if spur.any():
        log.info("%d entries of spur tracks are left out", int(spur.sum()))
    pressure, pressure_agency = _official(table, "PRES")
    wind, agency = _official(table, "WIND")
    minutes = agency.map(AVERAGING_MINUTES).astype(float)
    made = {"pressure_hpa": pressure, "pressure_agency": pressure_agency}
    made |= {"wind_kt": wind, "wind_agency": agency}
    table = pd.concat([table, pd.DataFrame(made | {"wind_averaging_minutes": minutes})], axis=1)
    agencies = sorted(agency.dropna().unique())
    table.attrs = {
        "format": "ibtracs",
        "skipped": 0,
        "spur_entries": int(spur.sum()),
        "provisional_entries": provisional,
        "wind_averaging_minutes": {str(a): AVERAGING_MINUTES.get(str(a)) for a in agencies},
    }
    return table


def _official(table: pd.DataFrame, quantity: str) -> tuple[pd.Series, pd.Series]:
    """Value of the responsible agency, else of the US agency, and the agency in lower case."""
    value = pd.Series(np.nan, index=table.index)
    agency = pd.Series(None, index=table.index, dtype=object)
    taken = pd.Series(False, index=table.index)
    for source in ("WMO", "USA"):
        if f"{source}_{quantity}" not in table:
            continue
        theirs = pd.to_numeric(table[f"{source}_{quantity}"], errors="coerce").astype(float)
        name = pd.Series(source.lower(), index=table.index, dtype=object)
        if f"{source}_AGENCY" in table:
            known = table[f"{source}_AGENCY"].str.strip().str.lower().astype(object)
            name = known.where(known.notna(), name)
        here = theirs.notna() & ~taken
        value, agency = value.mask(here, theirs), agency.mask(here, name)
        # From its first to its last value an agency has the storm to itself: two that take turns
        # every three hours, one of them with shorter means of the wind, would make it flicker.
        order = table.sort_values("time", kind="stable").index
        given, storm = theirs.notna().astype(int)[order], table["storm_id"][order]
        begun = given.groupby(storm, dropna=False).cummax()
        goes_on = given[::-1].groupby(storm[::-1], dropna=False).cummax()
        taken |= (begun & goes_on).astype(bool)
    return value, agency


def read_hurdat2(text: TextIO, path: Path) -> pd.DataFrame:
    """Reads HURDAT2 in its original text format: a header line a system, then its entries.

    A line that cannot be read is skipped, counted and named in a warning; an entry without a
    readable header above it belongs to no system and is skipped too. -99, -999 and blank are
    missing. A header that announces another number of entries than follow is reported.

    Args:
        text: the file.
        path: its name, for what is reported.

    Returns:
        Table with ``time, latitude, longitude, storm_id`` (such as AL092021), ``name, basin`` (the
        two letters of the identifier), ``record, status, pressure_hpa, wind_kt``, the radii of 34,
        50 and 64 kt by quadrant and of the maximum wind (nautical miles); ``attrs`` add
        ``miscounted`` (headers with a wrong number of entries) and ``wind_averaging_minutes``.

    Raises:
        InputError: no line can be read.

    Source: C. W. Landsea and J. L. Franklin (2013), Mon. Wea. Rev. 141, 3576-3592; the National
    Hurricane Center's description of the format (sustained winds are 1-minute means).
    """
    rows: dict[int, dict[str, Any]] = {}
    skipped: list[str] = []
    counts: list[list[int]] = []  # of each header: its line, entries announced, entries found
    system: dict[str, str] | None = None
    for number, line in enumerate(text, start=1):
        if not line.strip():
            continue
        header = HEADER.fullmatch(line)
        if header:
            system = {"storm_id": header[1] + header[2], "name": header[3], "basin": header[1]}
            counts.append([number, int(header[4]), 0])
            continue
        problem = "it is neither a header nor an entry"
        if ENTRY_START.match(line):
            try:
                if system is None:
                    raise ValueError("no readable header above it")
                counts[-1][2] += 1
                rows[number] = system | _entry(line)
                continue
            except ValueError as error:
                problem = str(error)
        else:
            system = None  # a header, but unreadable: what follows is not of the system before
        skipped.append(f"line {number} ({problem})")
    if not rows:
        raise InputError(
            f"`incidents.catalogue` must hold lines of HURDAT2 that can be read, got none in "
            f"{path}: {', '.join(skipped[:SHOWN])}. Give the original text file."
        )
    if skipped:
        more = ", ..." if len(skipped) > SHOWN else ""
        log.warning(
            "%d lines of %s skipped: %s%s", len(skipped), path, ", ".join(skipped[:SHOWN]), more
        )
    wrong = [c for c in counts if c[1] != c[2]]
    for number, announced, found in wrong[:SHOWN]:
        log.warning("line %d of %s announces %d entries, got %d", number, path, announced, found)
    table = pd.DataFrame(list(rows.values()), index=pd.Index(list(rows)))
    table.attrs = {
        "format": "hurdat2",
        "skipped": len(skipped),
        "miscounted": len(wrong),
        "wind_averaging_minutes": {"hurdat2": 1.0},
    }
    return table


def _entry(line: str) -> dict[str, Any]:
    """One entry of HURDAT2; ValueError says what is wrong with it."""
    cells = [cell.strip() for cell in line.strip().removesuffix(",").split(",")]
    if len(cells) not in FIELDS:
        raise ValueError(f"{len(cells)} fields, not {' or '.join(map(str, FIELDS))}")
    day, hour, record, status, latitude, longitude, wind, pressure = cells[:8]
    try:
        time = datetime.strptime(f"{day} {hour}", "%Y%m%d %H%M")
    except ValueError:
        time = None
    if time is None or len(day) + len(hour) < 12:  # strptime takes 2021828 for a date
        raise ValueError(f"no date: `{day}, {hour}`")
    return {
        "time": time,
        "latitude": _degrees(latitude, "N", "S", 90.0),
        "longitude": _degrees(longitude, "E", "W", 360.0),
        "record": record or None,
        "status": status or None,
        "wind_kt": _number(wind, 0.0, 300.0),
        "pressure_hpa": _number(pressure, 800.0, 1100.0),
        **dict.fromkeys(RADII, math.nan),
        **{name: _number(cell, 0.0, 2000.0) for name, cell in zip(RADII, cells[8:], strict=False)},
    }


def _degrees(cell: str, positive: str, negative: str, limit: float) -> float:
    match = re.fullmatch(rf"(\d+(?:\.\d*)?)\s*([{positive}{negative}])", cell)
    if not match or float(match[1]) > limit:
        raise ValueError(f"no position: `{cell}`")
    return float(match[1]) * (1.0 if match[2] == positive else -1.0)


def _number(cell: str, low: float, high: float) -> float:
    if cell in ("", "-99", "-999"):
        return math.nan
    value = float(cell) if re.fullmatch(r"-?\d+(\.\d*)?", cell) else math.nan
    if not low <= value <= high:
        raise ValueError(f"no number from {low:g} to {high:g}: `{cell}`")
    return value
