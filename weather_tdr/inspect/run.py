"""What a run and a trained method hold, what is missing, and which command makes it."""

import json
from pathlib import Path
from typing import Any

import pandas as pd

from data_pipelines.errors import InputError
from data_pipelines.store import open_store, store_identity
from weather_tdr.comparison import is_scored
from weather_tdr.config import Config, read_config
from weather_tdr.facts import Facts, bytes_text, incidents_text, some
from weather_tdr.inspect.store import sample_rows, size_rows
from weather_tdr.methods.method import load_method
from weather_tdr.model_files import load_detector

SHOWN = {"average_precision": "AP", "roc_auc": "ROC AUC", "pod": "POD", "far": "FAR", "csi": "CSI"}


def inspect_run(folder: Path) -> Facts:
    """The store of a run, its methods with their scores, and the commands for what is missing.

    Args:
        folder: ``runs/NAME``, with `config.yaml`.

    Raises:
        InputError: its configuration cannot be read.
    """
    path = folder / "config.yaml"
    config, facts = read_config(path), Facts()
    what = config.images.title if config.of_images else f"fields {some(config.fields.variables)}"
    facts.add("run", f"{folder}; {what}")
    if not config.of_images:
        facts.add("incidents", incidents_text(config.incidents))
    todo: list[str] = []
    identity = _store_rows(folder, path, facts, todo)
    many = config.of_images and config.images.imbalance != "binary"
    if many:
        facts.add("use", "no detector, which takes binary sets only: for `weather-tdr benchmark`, "
                  "or for `fit`")  # fmt: skip
    methods = [] if many else [load_method(m).name for m in config.train.methods]
    others = sorted(
        p.parent.name for p in folder.glob("*/scores.json") if p.parent.name not in methods
    )
    for k, name in enumerate([*methods, *others]):
        facts.add("" if k else "methods", f"{name}: {_method_row(folder / name, identity)}")
    todo += _missing(folder, path, config, methods, identity) if identity else []
    if (folder / "comparison.csv").is_file():
        facts.add("comparison", f"{folder / 'comparison.csv'}, figures in {folder / 'figures'}")
    if todo:
        facts.add("to do", *dict.fromkeys(todo))
    return facts


def _store_rows(folder: Path, path: Path, facts: Facts, todo: list[str]) -> str:
    """Rows of the store; its identity, empty without a store."""
    store = folder / "patches.zarr"
    if not store.exists():
        partial = store.with_name(store.name + ".partial").exists()
        facts.add("patch store", "unfinished" if partial else "none yet")
        todo.append(f"patch store: weather-tdr build {path}")
        return ""
    try:
        opened = open_store(store)
        size_rows(store, opened, facts)
        sample_rows(opened, facts)
        return store_identity(opened.attrs)
    except InputError as error:
        facts.warn(str(error))
        todo.append(f"patch store: weather-tdr build {path}")
        return ""


def _method_row(folder: Path, identity: str) -> str:
    if not (folder / "model.json").is_file() and not (folder / "scores.json").is_file():
        steps = sorted((folder / "checkpoints").glob("step_*.safetensors"))
        return f"training was stopped after step {_step(steps[-1])}" if steps else "not trained"
    if not is_scored(folder, identity):
        return "trained, not evaluated on this patch store"
    return _score_text(json.loads((folder / "scores.json").read_text())["test"])


def _step(checkpoint: Path) -> int:
    return int(checkpoint.stem.removeprefix("step_"))


def _missing(
    folder: Path, path: Path, config: Config, methods: list[str], identity: str
) -> list[str]:
    """What a run lacks, with the command that makes it."""
    todo = []
    for name in methods:
        method = folder / name
        if not (method / "model.json").is_file():
            todo.append(f"network of {name}: weather-tdr train {path} --resume")
        elif not is_scored(method, identity):
            stale = load_detector(method).facts.get("store") != identity
            todo.append(
                f"network of {name}, trained on another store: weather-tdr train {path}"
                if stale
                else f"scores of {name}: weather-tdr evaluate {method}"
            )
        elif not config.of_images and not (method / "report.html").is_file():
            todo.append(f"page of {name}: weather-tdr report {method}")
    return todo


def inspect_method(folder: Path) -> Facts:
    """Network, calibration, thresholds, scores and files of a trained method, or of a rule.

    Args:
        folder: ``runs/NAME/METHOD``.

    Raises:
        InputError: the model is damaged.
    """
    facts = Facts()
    if (folder / "model.json").is_file():
        detector = load_detector(folder)
        parameters = sum(p.numel() for p in detector.model.parameters())
        facts.add("method", f"{detector.method}, {folder}; data: {detector.facts.get('data', '?')}")
        details = ", ".join(f"{k} {v}" for k, v in detector.architecture.items())
        facts.add("network", f"PatchNet of {parameters} parameters: {details}")
        units = zip(detector.variables["variable"], detector.variables["units"], strict=True)
        facts.add("variables", ", ".join(f"{name} ({unit})" for name, unit in units))
        facts.add("training", f"{detector.facts.get('step', '?')} steps, "
                  f"version {detector.facts.get('version', '?')}, "
                  f"commit {detector.facts.get('commit') or '?'}")  # fmt: skip
        facts.add("calibration", detector.calibration.kind)
        told = [
            f"{name} {value:.3g}" if value == value else f"{name} not known before evaluation"
            for name, value in (
                ("patches", detector.threshold),
                ("incidents of the map", detector.incident_threshold),
            )
        ]
        facts.add("threshold", "; ".join(told))
    else:
        facts.add("rule", f"{folder.name}, {folder}")
    if (folder / "scores.json").is_file():
        _score_rows(json.loads((folder / "scores.json").read_text()), facts)
    else:
        facts.add("to do", f"scores: weather-tdr evaluate {folder}")
    files = [f for f in sorted(folder.iterdir()) if f.is_file() and not f.name.startswith(".")]
    facts.add("files", ", ".join(f"{f.name} ({bytes_text(f.stat().st_size)})" for f in files))
    return facts


def _score_rows(scores: dict[str, Any], facts: Facts) -> None:
    for split, values in scores.items():
        facts.add(
            f"scores, {split}",
            f"{_score_text(values)}; {values['incidents']} of {values['samples']} patches are "
            "incidents",
        )
        if matching := values.get("incident_matching"):
            facts.add("", f"incidents of the map: {matching['hits']} hits, {matching['misses']} "
                      f"misses, {matching['false_alarms']} false alarms")  # fmt: skip


def _score_text(scores: dict[str, Any]) -> str:
    return ", ".join(
        f"{short} {'-' if scores.get(name) is None else format(scores[name], '.3f')}"
        for name, short in SHOWN.items()
    )


def inspect_runs(folder: Path, inside: list[Path]) -> Facts:
    """The runs in a folder, a line each."""
    facts = Facts()
    facts.add("folder", f"{folder} holds {len(inside)} runs; inspect one of them")
    for run in inside:
        table = run / "comparison.csv"
        methods = ", ".join(pd.read_csv(table)["method"]) if table.is_file() else "not evaluated"
        facts.add(run.name, methods)
    return facts
