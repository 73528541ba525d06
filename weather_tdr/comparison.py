"""All methods of a run beside each other: one table and two figures."""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from data_pipelines.writing import write_atomically
from weather_tdr.model_files import commit
from weather_tdr.plots.canvas import save_figure
from weather_tdr.plots.scores import Performance, performance_figure, precision_recall_figure
from weather_tdr.predictions import read_predictions, stored_on
from weather_tdr.scores import Curve

OWN = "network.json"  # in the folder of a network of one's own
CURVE_FROM = 3  # hits, below which the curve of the performance diagram only jumps about


def is_scored(folder: Path, identity: str) -> bool:
    """True when a method has been evaluated on the store as it is now."""
    path = folder / "predictions.nc"
    return (folder / "scores.json").is_file() and path.is_file() and stored_on(path) == identity


def maps_of_own(folder: Path) -> dict[str, Any] | None:
    """Settings of maps with which a network of one's own was scored; None in older releases."""
    maps: dict[str, Any] | None = json.loads((folder / OWN).read_text()).get("maps")
    return maps


def forget_evaluation(folder: Path) -> None:
    """Removes what an evaluation has made in the folder of a method."""
    kept = [folder / "figures" / "weights.png"]
    for name in ("scores.json", "predictions.nc", "reliability.csv", "report.html"):
        (folder / name).unlink(missing_ok=True)
    forget_maps(folder)
    for figure in [*(folder / "figures").glob("*.png"), *(folder / "figures").glob("*.gif")]:
        if figure not in kept:
            figure.unlink()


def forget_maps(folder: Path) -> None:
    """Removes the incident map of a folder and what was made of it."""
    names = ["incident_map.nc", "incident_curve.csv", "truth.csv"]
    names += [f"incidents.{kind}" for kind in ("csv", "geojson", "nc", "gif")]
    names += [f"figures/{name}" for name in ("sequence.png", "probability.png")]
    for path in [*(folder / name for name in names), *(folder / "figures").glob("incident_*.png")]:
        path.unlink(missing_ok=True)


def made_on_another(folder: Path, identity: str) -> list[str]:
    """Methods of a run trained or evaluated on another store than the one of `identity`."""
    made = {p.parent.name: stored_on(p) for p in folder.glob("*/predictions.nc")}
    scored = {name for name, store in made.items() if store != identity}
    trained = {
        path.parent.name
        for path in folder.glob("*/model.json")
        if json.loads(path.read_text()).get("facts", {}).get("store", identity) != identity
    }
    return sorted(scored | trained)


def own_networks(folder: Path) -> list[str]:
    """Networks of one's own that have been scored beside the methods of a run."""
    return sorted(path.parent.name for path in folder.glob(f"*/{OWN}"))


def compare(folder: Path, methods: Sequence[str]) -> pd.DataFrame:
    """Writes `comparison.csv` and the figures of a run from what its methods' folders hold."""
    rows, base_rate = [], float("nan")
    for method in methods:
        scores = _test_scores(folder / method)
        base_rate = scores["base_rate"]
        matching = scores.get("incident_matching", {})
        rows.append(
            {
                "method": method,
                "data": _data(folder / method),
                **_flat(scores),
                "average_precision_over_base_rate": (
                    None
                    if scores["average_precision"] is None
                    else scores["average_precision"] / base_rate
                ),
                **{f"incident_{k}": v for k, v in _flat(matching).items()},
                **{f"track_{k}": v for k, v in _flat(matching.get("tracks", {})).items()},
            }
        )
    table = pd.DataFrame(rows)
    table["date"], table["commit"] = f"{datetime.now(UTC):%Y-%m-%d}", commit()
    write_atomically(folder / "comparison.csv", table.to_csv(index=False))
    figures, curves = folder / "figures", test_curves(folder, methods)
    save_figure(precision_recall_figure(curves, base_rate), figures / "precision_recall.png")
    panels = performances(folder, methods, curves)
    save_figure(performance_figure(panels), figures / "performance.png")
    return table


def test_curves(folder: Path, methods: Sequence[str]) -> dict[str, Curve]:
    """Precision and recall of the patches of test, of each method of a run."""
    curves = {}
    for method in methods:
        predictions = read_predictions(folder / method / "predictions.nc")
        test = predictions[predictions["split"] == "test"]
        curves[method] = Curve.of(test["score"].to_numpy(), test["label"].to_numpy())
    return curves


def performances(
    folder: Path, methods: Sequence[str], curves: Mapping[str, Curve]
) -> dict[str, dict[str, Performance]]:
    """Where each method of a run stands in the performance diagram, of patches and incidents.

    Args:
        folder: of the run.
        methods: those to show.
        curves: of each of them, as `test_curves` gives them.

    Returns:
        Title of the panel -> method -> its performance.
    """
    patches: dict[str, Performance] = {}
    incidents: dict[str, Performance] = {}
    for method in methods:
        scores = _test_scores(folder / method)
        patches[method] = _performance(
            curves[method].precision, curves[method].recall, scores, scores["incidents"]
        )
        path, matching = folder / method / "incident_curve.csv", scores.get("incident_matching")
        if path.is_file() and matching:
            curve = pd.read_csv(path)
            incidents[method] = _performance(
                1.0 - curve["far"].to_numpy(),
                curve["pod"].to_numpy(),
                matching,
                matching["hits"] + matching["misses"],
            )
    return {"Patches": patches} | ({"Incidents, one to one": incidents} if incidents else {})


def _test_scores(folder: Path) -> dict[str, Any]:
    scores: dict[str, Any] = json.loads((folder / "scores.json").read_text())["test"]
    return scores


def _flat(scores: dict[str, Any]) -> dict[str, Any]:
    """Numbers as they are, intervals as two columns; nothing that is nested."""
    flat: dict[str, Any] = {}
    for name, value in scores.items():
        if name.endswith("_interval"):
            flat[name.replace("_interval", "_low")], flat[name.replace("_interval", "_high")] = (
                value
            )
        elif not isinstance(value, list | dict):
            flat[name] = value
    return flat


def _performance(
    success_ratio: np.ndarray, pod: np.ndarray, scores: dict[str, Any], incidents: int
) -> Performance:
    """Where a method stands in the performance diagram."""
    enough = pod * incidents >= CURVE_FROM - 0.5
    number = {k: np.nan if scores[k] is None else scores[k] for k in ("pod", "far")}
    low, high = (np.nan if v is None else v for v in scores["far_interval"])
    pod_low, pod_high = (np.nan if v is None else v for v in scores["pod_interval"])
    return Performance(
        success_ratio[enough],
        pod[enough],
        (1.0 - number["far"], number["pod"]),
        (1.0 - high, 1.0 - low),
        (pod_low, pod_high),
    )


def _data(folder: Path) -> str:
    """What data a method saw; a rule sees none but validation, for its threshold."""
    if (folder / OWN).is_file():
        return str(json.loads((folder / OWN).read_text())["data"])
    path = folder / "model.json"
    if not path.is_file():
        return "threshold only"
    return str(json.loads(path.read_text())["facts"].get("data", ""))
