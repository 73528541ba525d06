"""What a patch store holds, in a few lines."""

import json
from pathlib import Path

import pandas as pd
import xarray as xr

from data_pipelines.schema import SPLITS
from data_pipelines.store import open_store
from weather_tdr.facts import Facts, bytes_text, period_text

# Why something is not in the store, in the words of people; see the attribute `dropped`.
DROPPED = {
    "background_not_sampled": "background patches of training were not kept "
    "(patches.background_share)",
    "storm_in_another_split": "patches belong to an incident that reaches into another split",
    "label_unknown": "patches have no label: values missing, or an entry without its value",
    "incidents_outside_times": "incident entries are at no time of the fields",
    "incidents_outside_cells": "incident entries are in no central cell of a patch",
    "others_outside_times": "other entries are at no time of the fields",
    "others_outside_cells": "other entries are in no central cell of a patch",
    "times_without_label": "times have no label",
    "missing_values": "samples hold missing or impossible values",
    "storm_in_target_set": "samples share an incident or system with the target set",
    "overlaps_target_set": "samples overlap the target set",
}


def inspect_store(path: Path) -> Facts:
    """Samples and incidents by split, variables, what was dropped and why, sizes.

    Args:
        path: of the store.

    Raises:
        InputError: it is no finished store, or altered.
    """
    store, facts = open_store(path), Facts()
    size_rows(path, store, facts)
    for name, units, mean, std in zip(
        store["variable"].values, store["units"].values, store["mean"].values,
        store["std"].values, strict=True,
    ):  # fmt: skip
        facts.add(str(name), f"{units}; mean {mean:.4g}, standard deviation {std:.3g}")
    sample_rows(store, facts)
    dropped = {k: n for k, n in store.attrs["dropped"].items() if n}
    facts.add("left out", *(f"{n} {DROPPED.get(k, k)}" for k, n in dropped.items()))
    _quality(path.with_name("quality.json"), facts)
    return facts


def size_rows(path: Path, store: xr.Dataset, facts: Facts) -> None:
    """Size on disk, and of a patch."""
    size = sum(f.stat().st_size for f in path.rglob("*") if f.is_file())
    facts.add("patch store", f"{path}, {bytes_text(size)}")
    _, variables, height, width = store["patches"].shape
    grid = store.attrs["grid"]
    degrees = (
        f", {height * grid['dlat']:g} x {width * grid['dlon']:g} degrees" if "dlat" in grid else ""
    )
    facts.add("patches", f"{height} x {width} points{degrees}; {variables} variables")


def sample_rows(store: xr.Dataset, facts: Facts) -> None:
    """Samples of each group, incidents and period, a row a split."""
    split, label = store["split"].to_numpy(), store["label"].to_numpy()
    names, times = store["incident_id"].to_numpy(), store["time"].to_numpy()
    for name, counts in store.attrs["counts"].items():
        told = ", ".join(f"{n} {group}" for group, n in counts.items())
        here = split == SPLITS.index(name)
        if here.any() and "dlat" in store.attrs["grid"]:
            incidents = len(set(names[here & (label == 1)]))
            ends = (pd.Timestamp(times[here].min()), pd.Timestamp(times[here].max()))
            told += f"; incidents of {incidents} systems, {period_text(*ends)}"
        facts.add(name, told)


def _quality(path: Path, facts: Facts) -> None:
    try:
        findings = json.loads(path.read_text())["findings"]
    except (OSError, ValueError, KeyError):
        return
    for found in findings:
        facts.warn(f"{found['variable']}: {found['values']} {found['problem']} values, "
                   f"{found['first']} to {found['last']}.")  # fmt: skip
