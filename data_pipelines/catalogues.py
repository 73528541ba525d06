"""Reads a catalogue in any of its formats: CSV, IBTrACS, HURDAT2, GeoJSON; gzipped or not.

The content tells the format, not the name of the file. Every reader gives a table whose index is
the number of the line (or feature) in the file, so that an error can name it, and whose ``attrs``
hold facts that JSON can hold: ``format``, ``skipped`` (lines or features that could not be read).
"""

import csv
import gzip
import io
import json
import logging
import re
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, TextIO

import pandas as pd

from data_pipelines.best_tracks import ENTRY, HEADER, IBTRACS_COLUMNS, read_hurdat2, read_ibtracs
from data_pipelines.errors import InputError

log = logging.getLogger(__name__)

Format = Literal["csv", "ibtracs", "hurdat2", "geojson"]
HEAD = 65536  # characters that tell the format
GZIP = b"\x1f\x8b"
# Required column -> names that others give it, in lower case and without blanks, `_` and `-`; taken
# where there is only one.
USUAL_NAMES = {
    "time": ("time", "datetime", "date", "validtime", "isotime"),
    "latitude": ("latitude", "lat"),
    "longitude": ("longitude", "lon", "long"),
    "storm_id": ("stormid", "trackid", "cycloneid", "eventid", "sid"),
}
MISSING = (  # what a cell of a CSV file says that holds nothing
    "", "NA", "N/A", "n/a", "#N/A", "#NA", "NaN", "nan", "-NaN", "-nan", "NULL", "null", "None",
    "none", "<NA>", "-", "--",
)  # fmt: skip


def read_table(path: Path) -> pd.DataFrame:
    """Reads a catalogue as its format has it, positions and times unchecked.

    Args:
        path: the file.

    Returns:
        The table; index: line or feature; ``attrs``: ``format``, ``skipped`` and what the format
        adds.

    Raises:
        InputError: no such file, or nothing in it can be read.
    """
    if not path.is_file():
        raise InputError(f"`incidents.catalogue`: no such file: {path}. Check the path.")
    kind: Format = "csv"
    names = {"csv": "CSV", "ibtracs": "CSV", "hurdat2": "HURDAT2", "geojson": "JSON"}
    try:
        with _opened(path) as text:
            head = text.read(HEAD)
        kind = recognise(head)
        with _opened(path) as text:
            if kind == "ibtracs":
                return read_ibtracs(text, head)
            if kind == "hurdat2":
                return read_hurdat2(text, path)
            return _read_geojson(text, path) if kind == "geojson" else _read_csv(text, head)
    except InputError:
        raise
    except (ValueError, EOFError, OSError, zlib.error) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"`incidents.catalogue`: {path} is no readable {names[kind]}: {first}. "
            "Give a text file (or its .gz) as CSV, IBTrACS CSV, HURDAT2 or GeoJSON."
        ) from error


def recognise(head: str) -> Format:
    """The format of a catalogue, from the beginning of its text."""
    if head.lstrip().startswith(("{", "[")):
        return "geojson"
    lines = [line for line in head.splitlines() if line.strip()]
    if lines and {name.strip(' "') for name in lines[0].split(",")} >= set(IBTRACS_COLUMNS):
        return "ibtracs"
    if any(HEADER.fullmatch(line) or ENTRY.match(line) for line in lines):
        return "hurdat2"
    return "csv"


@lru_cache
def say_once(level: int, text: str) -> None:
    """Logs a text at its first time: a command reads its catalogue several times."""
    log.log(level, "%s", text)


def _plain(column: object) -> str:
    """A name of a column as `USUAL_NAMES` has it."""
    return re.sub(r"[\s_-]", "", str(column)).lower()


def with_usual_names(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    """The table with the required columns, where it has them under another usual name only.

    Args:
        table: as `read_table` gives it.
        path: of the file, for what is said.

    Returns:
        The table; ``attrs["renamed"]``, if any are: name in the file -> required column.
    """
    renamed = {}
    for column, names in USUAL_NAMES.items():
        found = [c for c in table.columns if _plain(c) in names]
        if column == "time" and sorted(map(_plain, found)) == ["date", "time"]:
            found = [c for c in found if _plain(c) == "time"]  # its hours: see `times_of`
        if column not in table and len(found) == 1:
            renamed[str(found[0])] = column
    if not renamed:
        return table
    said = ", ".join(f"`{old}` as `{new}`" for old, new in renamed.items())
    say_once(logging.INFO, f"columns of {path} are read under other names: {said}")
    attrs = table.attrs | {"renamed": renamed}
    table = table.rename(columns=renamed)
    table.attrs = attrs
    return table


@contextmanager
def _opened(path: Path) -> Iterator[TextIO]:
    with path.open("rb") as raw:
        zipped = raw.read(len(GZIP)) == GZIP
        raw.seek(0)
        content: Any = gzip.GzipFile(fileobj=raw) if zipped else raw
        yield io.TextIOWrapper(content, encoding="utf-8-sig", newline="")


def _read_csv(text: TextIO, head: str) -> pd.DataFrame:
    """One row a line. The basin `NA` is the North Atlantic, not a missing value."""
    first = next((line for line in head.splitlines() if line.strip()), "")
    separator, decimal = dialect(head)
    names = next(csv.reader([first], delimiter=separator, skipinitialspace=True), [])
    storms = [n for n in names if _plain(n) in USUAL_NAMES["storm_id"]]
    basins = [n for n in names if n.strip().lower() in ("basin", "subbasin")]
    table = pd.read_csv(
        text,
        sep=separator,
        decimal=decimal,
        dtype=dict.fromkeys([*storms, *basins], str),
        skipinitialspace=True,
        keep_default_na=False,
        na_values={n: [""] if n in basins else list(MISSING) for n in names},
    )
    table = with_points(whole_rows(table, names, "the catalogue"), decimal)
    table.columns = table.columns.str.strip()
    table.index = pd.RangeIndex(2, 2 + len(table))
    table.attrs = {"format": "csv", "skipped": 0}
    return table


def whole_rows(table: pd.DataFrame, names: Sequence[str], path: Path | str) -> pd.DataFrame:
    """The table, unless its lines have more cells than the header, which would move the columns.

    Raises:
        InputError: they have.
    """
    if table.index.equals(pd.RangeIndex(len(table))) or len(names) == 1:
        return table
    raise InputError(
        f"lines of {path} must have as many cells as the header ({len(names)}), got "
        f"{len(names) + table.index.nlevels}. Put numbers with a decimal comma into quotes, or "
        "part columns by semicolons; delete a comma at the end of each line."
    )


def with_points(table: pd.DataFrame, decimal: str) -> pd.DataFrame:
    """The table with decimal points, where it has commas and pandas has left columns as text.

    One cell that is no number is enough for that.

    Args:
        table: as pandas reads it.
        decimal: mark of the file, as `dialect` gives it.
    """
    if decimal != ",":
        return table
    texts = table.select_dtypes(exclude=["number", "bool", "datetime"]).columns
    points = {
        c: table[c].replace({r"^(\s*[-+]?\d+),(\d+\s*)$": r"\1.\2"}, regex=True) for c in texts
    }
    return table.assign(**points)


def as_numbers(column: pd.Series, *, tell: bool = True) -> pd.Series:
    """A column as numbers, decimal commas too; NaN for what is none.

    Commas are decimal unless all of them may part thousands (1,250).

    Args:
        column: numbers or text.
        tell: warns of cells that are no numbers.
    """
    values = pd.to_numeric(column, errors="coerce").astype(float)
    if column.dtype.kind in "fiub":
        return values
    text = column.where(column.notna(), "").map(str).str.strip()
    commas = text.str.fullmatch(r"[-+]?\d+,\d+")
    if not text[commas].str.fullmatch(r"[-+]?[1-9]\d{0,2},\d{3}").all():
        values = values.fillna(pd.to_numeric(text[commas].str.replace(",", "."), errors="coerce"))
    lost = values.isna() & (text != "") & ~text.isin(MISSING)
    if tell and lost.any():
        say_once(
            logging.WARNING,
            f"{int(lost.sum())} cells of `{column.name}` are no numbers and count as missing, such "
            f"as `{text[lost].iloc[0]}`",
        )
    return values


def dialect(head: str) -> tuple[str, str]:
    """Separator and decimal mark of a CSV file: also semicolons or tabs, then also commas."""
    first, *lines = [line for line in head.splitlines() if line.strip()] or [""]
    separator = max((",", ";", "\t"), key=first.count)
    commas = separator != "," and any(re.search(r"\d,\d", line) for line in lines)
    return separator, "," if commas else "."


def _read_geojson(text: TextIO, path: Path) -> pd.DataFrame:
    """One row a point: its position, and its properties as columns.

    Features that are no points are left out and counted. The geometry, not a property, gives the
    position; a feature without the property ``storm_id`` is known by its ``id``.
    """
    content = json.load(text)
    features = content.get("features") if isinstance(content, dict) else None
    if not isinstance(features, list) or content.get("type") != "FeatureCollection":
        kind = content.get("type") if isinstance(content, dict) else type(content).__name__
        raise InputError(
            f"`incidents.catalogue` must be a GeoJSON FeatureCollection, got `{kind}` in {path}. "
            "Put the points as features into one."
        )
    rows, others = {}, []
    for number, feature in enumerate(features, start=1):
        point = _point(feature)
        if point is None:
            others.append(number)
            continue
        named = {"storm_id": feature["id"]} if feature.get("id") is not None else {}
        properties = feature.get("properties")
        rows[number] = named | (properties if isinstance(properties, dict) else {}) | point
    if others:
        log.warning(
            "%d of %d features of %s are no points with a position and are left out, the first "
            "is feature %d",
            len(others),
            len(features),
            path,
            others[0],
        )
    if not rows:
        raise InputError(
            f"`incidents.catalogue` must hold features that are points, got none of "
            f"{len(features)} in {path}. Give positions, not tracks or areas."
        )
    table = pd.DataFrame(list(rows.values()), index=pd.Index(list(rows)))
    if "storm_id" in table:
        known = table["storm_id"].notna()
        table["storm_id"] = table["storm_id"].where(~known, table["storm_id"].map(str))
    table.attrs = {"format": "geojson", "skipped": len(others)}
    return table


def _point(feature: Any) -> dict[str, float] | None:
    """Position of a point feature, degrees; None where it has none."""
    geometry = feature.get("geometry") if isinstance(feature, dict) else None
    if not isinstance(geometry, dict) or geometry.get("type") != "Point":
        return None
    try:
        longitude, latitude = (float(v) for v in geometry["coordinates"][:2])
    except (KeyError, TypeError, ValueError):
        return None
    return {"latitude": latitude, "longitude": longitude}
