"""One page that tells a run: `report.html`, which opens from disk and needs no network."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd
import xarray as xr
from bokeh.embed import components
from bokeh.resources import INLINE

from data_pipelines.errors import InputError
from data_pipelines.store import open_store
from data_pipelines.writing import write_atomically
from weather_tdr import __version__
from weather_tdr.config import Config, load_config
from weather_tdr.data import sample_table
from weather_tdr.facts import incidents_text
from weather_tdr.incident_files import read_incidents
from weather_tdr.model_files import Detector, load_detector
from weather_tdr.plots.interactive import incident_map_view, training_curves
from weather_tdr.report_parts import PAGE, fact_table, figure_tag, html_table, score_table

MOST_ROWS = 500  # of the table of incidents, the most probable ones
RATES = ["pod", "far", "csi"]


def write_report(folder: Path) -> Path:
    """Writes `report.html` of one trained and evaluated method; returns its path.

    Args:
        folder: of the method, ``runs/NAME/METHOD``.

    Raises:
        InputError: the folder holds no method, or one that has not been evaluated.
    """
    detector = load_detector(folder)
    config = load_config(folder)
    comparison = folder.resolve().parent / "comparison.csv"
    if not (folder / "scores.json").is_file() or not comparison.is_file():
        raise InputError(
            f"RUN must have scores for a report, got {folder} before evaluation. "
            f"Run `weather-tdr evaluate {folder}` first."
        )
    scores = json.loads((folder / "scores.json").read_text())
    store = open_store(folder.resolve().parent / "patches.zarr")
    views = {"training": training_curves(pd.read_csv(folder / "history.csv"))}
    note = ""
    if (folder / "incident_map.nc").is_file():
        with xr.open_dataarray(folder / "incident_map.nc") as opened:
            found_map = opened.load()
        if min(found_map.shape[1:]) > 1:  # one row or column is no map
            views["map"], note = _map(folder, found_map)
    script, divs = components(views)
    name = f"{folder.resolve().parent.name}: {folder.resolve().name}"
    sections = {
        "What was run": _run_facts(detector, config, store),
        "Data": _data(store),
        "Training": divs["training"],
        "Scores": _scores(pd.read_csv(comparison), scores, of_fields=not config.of_images),
        "Diagrams": _diagrams(folder),
        **({"Incident map": divs["map"] + note} if "map" in divs else {}),
        "Incidents": _incidents(folder),
    }
    body = "\n".join(
        f'<section id="part{k}"><h2>{escape(title)}</h2>\n{text}\n</section>'
        for k, (title, text) in enumerate(sections.items())
    )
    links = " ".join(f'<a href="#part{k}">{escape(t)}</a>' for k, t in enumerate(sections))
    page = PAGE.substitute(
        title=escape(name),
        resources=INLINE.render(),
        script=script,
        links=links,
        body=body,
        made=f"weather-tdr {__version__}, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
    )
    write_atomically(folder / "report.html", page)
    return folder / "report.html"


def _run_facts(detector: Detector, config: Config, store: xr.Dataset) -> str:
    grid = store.attrs["grid"]
    steps, commit = (detector.facts.get(k, "an unknown") for k in ("step", "commit"))
    facts: dict[str, Any] = {
        "method": f"{detector.method} ({detector.facts.get('data', '')})",
        "trained": f"{steps} steps, seed {config.train.seed}, commit {commit or 'unknown'}",
        "variables": ", ".join(
            f"{v} ({u})"
            for v, u in zip(
                detector.variables["variable"], detector.variables["units"], strict=True
            )
        ),
    }
    if config.of_images:
        facts["images"] = config.images.dataset
    else:
        facts["fields"] = ", ".join(config.fields.paths)
        facts["incidents"] = incidents_text(config.incidents)
        facts["patch"] = (
            f"{grid['size']} points of {grid['dlat']:g} x {grid['dlon']:g} degrees, "
            f"every {grid['stride']}"
        )
    calibration = detector.calibration
    facts["calibration"] = f"{calibration.kind}, fitted on validation, where " + (
        f"{calibration.prior:.3%} of the patches hold an incident"
    )
    facts["threshold"] = f"{detector.threshold:.3g} of a patch"
    if not config.of_images:
        facts["threshold"] += f", {detector.incident_threshold:.3g} of an incident in the map"
    return fact_table(facts)


def _data(store: xr.Dataset) -> str:
    """Samples of each group in each split, and what was left out."""
    counts = pd.DataFrame(store.attrs["counts"]).T.fillna(0).astype(int)
    counts.insert(0, "period", [_period(store, str(split)) for split in counts.index])
    kept = html_table(counts.rename_axis("split").reset_index())
    dropped = {
        k.replace("_", " "): f"{v:,}" for k, v in store.attrs.get("dropped", {}).items() if v
    }
    return kept + (f"<h3>Left out</h3>{fact_table(dropped)}" if dropped else "")


def _period(store: xr.Dataset, split: str) -> str:
    times = sample_table(store, split)["time"].dropna()
    return f"{times.min():%Y-%m-%d} to {times.max():%Y-%m-%d}" if len(times) else ""


def _scores(comparison: pd.DataFrame, scores: Mapping[str, Any], *, of_fields: bool) -> str:
    test = scores["test"]
    blocks = "blocks of two days that never cut a storm" if of_fields else "samples"
    text = (
        f"<p>Test, {test['samples']:,} patches of which {test['incidents']:,} hold an "
        f"incident ({test['base_rate']:.3%}). Thresholds and calibration are chosen on validation; "
        f"intervals are 95 %, from a bootstrap over {blocks}.</p>"
        "<h3>Patches</h3>"
        + score_table(comparison, "", ["average_precision", *RATES], ["brier_skill"])
    )
    counts = ["hits", "misses", "false_alarms"]
    if "incident_hits" in comparison:
        text += "<h3>Incidents, matched one to one</h3>" + score_table(
            comparison, "incident_", RATES, counts, ["mean_distance_km"]
        )
    if "track_hits" in comparison:
        text += "<h3>Storms and tracks</h3>" + score_table(comparison, "track_", RATES, counts)
    return text


def _diagrams(folder: Path) -> str:
    run = folder.resolve().parent / "figures"
    figures = {
        run / "performance.png": "Performance diagram of all methods and rules",
        run / "precision_recall.png": "Precision and recall of every patch",
        folder / "figures" / "reliability.png": "Reliability on test, before and after calibration",
        folder / "figures" / "sequence.png": "The strongest track",
        folder / "figures" / "probability.png": "Probability over time",
    }
    return "\n".join(figure_tag(p, text) for p, text in figures.items() if p.is_file())


def _map(folder: Path, found_map: xr.DataArray) -> tuple[Any, str]:
    """The interactive map, and what must be said of it."""
    found = read_incidents(folder / "incidents.csv")
    path = folder / "truth.csv"
    truth = read_incidents(path) if path.is_file() else None
    view, factor = incident_map_view(found_map, found, truth)
    text = "Wheel and drag to look closer; the legend switches marks off; grey is missing."
    if factor > 1:
        text += f" A pixel shows the highest of {factor} x {factor} points."
    return view, f'<p class="note">{text}</p>'


def _incidents(folder: Path) -> str:
    if not (folder / "incidents.csv").is_file():
        return "<p>Images have no map.</p>"
    found = read_incidents(folder / "incidents.csv")
    shown = found.sort_values("probability", ascending=False).head(MOST_ROWS)
    text = f"<p>{len(found):,} found"
    if len(shown) < len(found):
        text += f"; the {len(shown)} most probable are shown, all are in incidents.csv"
    return f"{text}.</p>" + html_table(shown, scroll=True)
