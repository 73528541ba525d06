"""The page of the report and its tables, as HTML."""

import base64
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import Any

import pandas as pd

TENTHS = ("latitude", "longitude", "pressure_hpa")
PAGE = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<link rel="icon" href="data:,">
<style>
body { font: 15px/1.5 system-ui, sans-serif; color: #222; margin: 0 auto; max-width: 1200px;
       padding: 0 1.5rem 3rem; }
h1 { font-size: 1.6rem; margin: 1.5rem 0 0.2rem; }
h2 { font-size: 1.25rem; margin: 2.2rem 0 0.6rem; border-bottom: 1px solid #ddd; }
h3 { font-size: 1rem; margin: 1.2rem 0 0.4rem; }
nav a { margin-right: 1rem; color: #0072B2; text-decoration: none; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: 0.25rem 0.7rem; text-align: left; border-bottom: 1px solid #eee;
         white-space: nowrap; vertical-align: top; }
td.number, th.number { text-align: right; }
th { background: #f6f6f6; position: sticky; top: 0; }
.facts td { white-space: normal; overflow-wrap: anywhere; }
.facts td:first-child { color: #666; white-space: nowrap; }
.wide { overflow-x: auto; }
.scroll { max-height: 420px; overflow: auto; }
figure { margin: 1rem 0; }
figure img { max-width: 100%; height: auto; }
figcaption, .note, footer { color: #666; font-size: 0.9rem; }
</style>
$resources
</head>
<body>
<h1>$title</h1>
<nav>$links</nav>
$body
<footer>$made</footer>
$script
</body>
</html>
""")


def fact_table(facts: Mapping[str, Any]) -> str:
    """Names and values, a row each."""
    rows = "\n".join(
        f"<tr><td>{escape(str(k))}</td><td>{escape(str(v))}</td></tr>" for k, v in facts.items()
    )
    return f'<table class="facts">\n{rows}\n</table>'


def html_table(table: pd.DataFrame, *, scroll: bool = False) -> str:
    """A table; numbers stand on the right, missing values are dashes."""
    numeric = [pd.api.types.is_numeric_dtype(table[c]) for c in table]
    kinds = [' class="number"' if n else "" for n in numeric]
    names = [_name(str(c)) for c in table]
    head = "".join(
        f"<th{kind}>{escape(name)}</th>" for name, kind in zip(names, kinds, strict=True)
    )
    rows = []
    for values in table.itertuples(index=False):
        cells = "".join(
            f"<td{kind}>{escape(_cell(column, value))}</td>"
            for value, kind, column in zip(values, kinds, map(str, table), strict=True)
        )
        rows.append(f"<tr>{cells}</tr>")
    kind = "scroll" if scroll else "wide"
    body = "\n".join(rows)
    return (
        f'<div class="{kind}"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody>\n'
        "</table></div>"
    )


def _cell(column: str, value: Any) -> str:
    """A value as people read it: names as they are, places and pressure to a tenth."""
    if column.endswith("_id"):
        return str(value)
    if column in TENTHS and isinstance(value, float) and not pd.isna(value):
        return f"{value:.1f}"
    return _text(value)


def _name(column: str) -> str:
    """A column as people read it: units in brackets, scores in capitals."""
    if column in ("pod", "far", "csi"):
        return column.upper()
    for end, unit in (("_km2", "km²"), ("_km", "km"), ("_hpa", "hPa")):
        if column.endswith(end):
            column = f"{column.removesuffix(end)} ({unit})"
    return column.replace("_", " ")


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None or (not isinstance(value, str) and pd.isna(value)):
        return "–"
    if isinstance(value, pd.Timestamp):
        return f"{value:%Y-%m-%d %H:%M}"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def score_table(
    comparison: pd.DataFrame,
    prefix: str,
    with_interval: Sequence[str],
    *plain: Sequence[str],
) -> str:
    """Scores of all methods, some with their intervals.

    Args:
        comparison: as in `comparison.csv`.
        prefix: of the columns.
        with_interval: scores that have ``_low`` and ``_high`` beside them.
        plain: groups of scores without.
    """
    shown = pd.DataFrame({"method": comparison["method"]})
    for name in [n for group in plain for n in group if f"{prefix}{n}" in comparison]:
        values = comparison[f"{prefix}{name}"]
        shown[name] = [_text(float(v)) for v in values]
    for name in with_interval:
        if f"{prefix}{name}" not in comparison:
            continue
        shown[name] = [
            "–" if pd.isna(value) else f"{value:.2f} ({_limit(low)} to {_limit(high)})"
            for value, low, high in zip(
                *(comparison[f"{prefix}{name}{end}"] for end in ("", "_low", "_high")), strict=True
            )
        ]
    return html_table(shown)


def _limit(value: float) -> str:
    return "–" if pd.isna(value) else f"{value:.2f}"


def figure_tag(path: Path, caption: str) -> str:
    """A picture inside the page."""
    data = base64.b64encode(path.read_bytes()).decode()
    text = escape(caption)
    return (
        f'<figure><img alt="{text}" src="data:image/png;base64,{data}">'
        f"<figcaption>{text}</figcaption></figure>"
    )
