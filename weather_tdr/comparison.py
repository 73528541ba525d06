"""All methods of a run beside each other: one table and one figure."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd

from weather_tdr.checkpoints import write_atomically
from weather_tdr.evaluate import read_predictions, stored_on
from weather_tdr.model_files import commit
from weather_tdr.plots import precision_recall_figure, save_figure
from weather_tdr.scores import Curve


def is_scored(folder: Path, identity: str) -> bool:
    """True when a method has been evaluated on the store as it is now."""
    path = folder / "predictions.nc"
    return (folder / "scores.json").is_file() and path.is_file() and stored_on(path) == identity


def compare(folder: Path, methods: Sequence[str]) -> pd.DataFrame:
    """Writes `comparison.csv` and the figure of a run from what its methods' folders hold."""
    rows, curves, base_rate = [], {}, float("nan")
    for method in methods:
        scores = json.loads((folder / method / "scores.json").read_text())["test"]
        base_rate = scores["base_rate"]
        low, high = scores["average_precision_interval"]
        rows.append(
            {
                "method": method,
                "data": _data(folder / method),
                **{k: v for k, v in scores.items() if not isinstance(v, list | dict)},
                "average_precision_low": low,
                "average_precision_high": high,
                "average_precision_over_base_rate": (
                    None
                    if scores["average_precision"] is None
                    else scores["average_precision"] / base_rate
                ),
                **{f"incident_{k}": v for k, v in scores.get("incident_matching", {}).items()},
            }
        )
        predictions = read_predictions(folder / method / "predictions.nc")
        test = predictions[predictions["split"] == "test"]
        curves[method] = Curve.of(test["score"].to_numpy(), test["label"].to_numpy())
    table = pd.DataFrame(rows)
    table["date"], table["commit"] = f"{datetime.now(UTC):%Y-%m-%d}", commit()
    write_atomically(folder / "comparison.csv", table.to_csv(index=False))
    figure = precision_recall_figure(curves, base_rate)
    save_figure(figure, folder / "figures" / "precision_recall.png")
    return table


def _data(folder: Path) -> str:
    """What data a method saw; a rule sees none but validation, for its threshold."""
    path = folder / "model.json"
    if not path.is_file():
        return "threshold only"
    return str(json.loads(path.read_text())["facts"].get("data", ""))
