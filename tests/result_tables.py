"""The tables of README and pages, from the committed results: ``python tests/result_tables.py``."""

import math
import re
from collections.abc import Hashable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from weather_tdr.named_benchmarks import measured
from weather_tdr.tables import (
    by_score,
    made,
    main_score,
    markdown,
    overview,
    overview_markdown,
    published_markdown,
)

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / "README.md", ROOT / "docs" / "results.md", ROOT / "docs" / "training.md")
OURS = ("tdr", "tdr_faithful")


def _table(head: str, rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table.

    Args:
        head: names of the columns, with ``|`` between them.
        rows: cells.
    """
    lines = [f"| {head} |", "|---" * (head.count("|") + 1) + "|"]
    return "\n".join([*lines, *(f"| {' | '.join(cells)} |" for cells in rows)]) + "\n"


def summary_markdown(*benchmarks: pd.DataFrame) -> str:
    """Ordinary training, the best other method above it and TDR, where a benchmark is hardest.

    Args:
        benchmarks: a row a method, imbalance and seed.
    """
    rows = []
    for results in benchmarks:
        hardest = results[results["imbalance"] == results["imbalance"].max()]
        score = main_score(hardest)
        cells = overview(hardest, score).iloc[:, -1]
        order = by_score(hardest, score)
        first_ones = order[: order.index("uniform")] if "uniform" in order else order
        best = next((m for m in first_ones if m not in OURS), None)
        name, dataset, imbalance = hardest[["benchmark", "dataset", "imbalance"]].iloc[0]
        first = [
            f"`{name}`",
            dataset.replace("_", " "),
            f"{imbalance:.4g}",
            score.replace("_", " "),
            cells.get("uniform", "-"),
            f"`{best}` {cells[best]}" if best else "-",
        ]
        rows.append([*first, *(cells.get(name, "-") for name in reversed(OURS))])
    head = "benchmark | data set | imbalance | score | ordinary training | best other method | "
    return _table(head + "`tdr_faithful` | `tdr`", rows)


def run_markdown(comparison: pd.DataFrame) -> str:
    """A run's `comparison.csv`, as two tables: scores of patches, and of incidents and storms.

    Args:
        comparison: a row a method; with the columns `date` and `commit`.
    """
    rows = comparison.to_dict("records")
    tracks = "track_hits" in comparison
    patches = [
        "| patches | data | average precision | x base rate | ROC AUC | POD | FAR | CSI | "
        "Brier skill (before calibration) |",
        "|---" * 9 + "|",
    ]
    incidents = [
        "| incidents | hits / misses / false alarms | POD | FAR | CSI | mean distance | "
        + ("storms: hits / misses / false tracks | CSI of storms |" if tracks else ""),
        "|---" * (8 if tracks else 6) + "|",
    ]
    for row in rows:
        skill = "-" if pd.isna(row["brier_skill"]) else (
            f"{row['brier_skill']:.3f} ({row['brier_skill_uncalibrated']:.3f})"
        )  # fmt: skip
        rates = " | ".join(_interval(row, name) for name in ("pod", "far", "csi"))
        patches.append(
            f"| `{row['method']}` | {row['data']} | {_interval(row, 'average_precision')} | "
            f"{row['average_precision_over_base_rate']:.0f} | {row['roc_auc']:.3f} | {rates} | "
            f"{skill} |"
        )
        if pd.isna(row.get("incident_hits", math.nan)):
            continue
        rates = " | ".join(_interval(row, f"incident_{name}") for name in ("pod", "far", "csi"))
        km = row["incident_mean_distance_km"]
        distance = "-" if pd.isna(km) else f"{km:.0f} km"
        incidents.append(
            f"| `{row['method']}` | {_three(row, 'incident_')} | {rates} | {distance} | "
            + (f"{_three(row, 'track_')} | {_interval(row, 'track_csi')} |" if tracks else "")
        )
    return "\n".join([*patches, "", *incidents, "", made(comparison)]) + "\n"


def _interval(row: Mapping[Hashable, Any], name: str) -> str:
    """A score and its 95 % interval."""
    if pd.isna(row[name]):
        return "-"
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    return f"{row[name]:.2f}" + ("" if pd.isna(low) else f" ({low:.2f} to {high:.2f})")


def _three(row: Mapping[Hashable, Any], prefix: str) -> str:
    """Hits, misses and false alarms."""
    return " / ".join(f"{row[f'{prefix}{k}']:.0f}" for k in ("hits", "misses", "false_alarms"))


def cost_markdown(cost: pd.DataFrame) -> str:
    """`cost.csv` as a table: a row a network and way, time and memory beside each other.

    Args:
        cost: with the columns `date` and `commit`.
    """
    rows = []
    keys = ["network", "batch", "method", "hypergradient"]
    for key, part in cost[cost["method"] != "uniform"].groupby(keys, sort=False):
        at = part.set_index("every")
        times = [f"{at['time_ratio'][e]:.2f}" if e in at.index else "-" for e in (1, 10)]
        names = [f"`{k}`" if i > 1 else str(k) for i, k in enumerate(key)]
        rows.append([*names, *times, f"{at['memory_ratio'].max():.2f}"])
    head = "network | batch | method | hypergradient | time, every step | time, every 10 | memory"
    return f"{_table(head, rows)}\n{made(cost)}\n"


def pipelines_markdown(table: pd.DataFrame) -> str:
    """`pipelines.csv` as a table.

    Args:
        table: a row a measure and way; with the columns `date` and `commit`.
    """
    rows = (
        [row["measure"], row["way"], f"{row['value']:,.0f} {row['unit']}", f"{row['ratio']:.3g}"]
        for row in table.to_dict("records")
    )
    return f"{_table('measure | way | value | ratio to the first', rows)}\n{made(table)}\n"


def maps_markdown(table: pd.DataFrame) -> str:
    """`maps.csv` as a table.

    Args:
        table: a row a globe, way and density of positions; with the columns `date` and `commit`.
    """
    rows = []
    for row in table.to_dict("records"):
        peak = "-" if pd.isna(row["peak_gib"]) else f"{row['peak_gib']:.2f} GiB"
        numbers = [f"{row['seconds']:.3g}", f"{row['ratio']:.3g}", peak]
        rows.append([row["globe"], row["positions"], row["way"], *numbers])
    head = "globe | positions | way | seconds | ratio | peak memory"
    return f"{_table(head, rows)}\n{made(table)}\n"


def training_markdown(table: pd.DataFrame) -> str:
    """`training.csv` as a table.

    Args:
        table: a row a network and way; with the columns `date` and `commit`.
    """
    rows = []
    for row in table.to_dict("records"):
        shares = (row[f"{name}_share"] for name in ("data", "inner", "hypergradient"))
        speed = [f"{row['samples_per_second']:,.0f}", f"{row['speed_ratio']:.2f}"]
        told = ["-" if pd.isna(s) else f"{s:.1%}" for s in shares]
        rows.append([row["network"], str(row["batch"]), row["way"], *speed, *told])
    head = "network | batch | way | samples/s | of the bare loop | drawing and gathering | "
    return f"{_table(head + 'inner step | hypergradient', rows)}\n{made(table)}\n"


def hardest_markdown(results: pd.DataFrame) -> str:
    """All scores at the largest imbalance.

    Args:
        results: a row a method, imbalance and seed.
    """
    largest = results["imbalance"].max()
    part = results[results["imbalance"] == largest]
    return f"All scores at {largest:g}:\n\n{markdown(part)}"


KINDS = {
    "run": run_markdown,
    "results": markdown,
    "overview": overview_markdown,
    "hardest": hardest_markdown,
    "published": published_markdown,
    "summary": summary_markdown,
    "cost": cost_markdown,
    "maps": maps_markdown,
    "pipelines": pipelines_markdown,
    "training": training_markdown,
}
TABLE = re.compile(rf"<!-- ({'|'.join(KINDS)}): (\S+) -->\n(.*?)<!-- end -->", re.S)


def filled(text: str) -> str:
    """The text with every table made anew."""

    def table(found: re.Match[str]) -> str:
        kind, names, _ = found.groups()
        made_of = KINDS[kind](*map(measured, names.split(",")))
        return f"<!-- {kind}: {names} -->\n{made_of}<!-- end -->"

    return TABLE.sub(table, text)


if __name__ == "__main__":
    for path in PAGES:
        path.write_text(filled(path.read_text()))
