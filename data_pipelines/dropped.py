"""What a patch store leaves out: counts, and why."""

import pandas as pd
import xarray as xr

WHY = {
    "background_not_sampled": "training keeps only a share of the background "
    "(patches.background_share)",
    "storm_in_another_split": "the incident reaches into a split of higher priority, and no "
    "incident is cut in two",
    "label_unknown": "whether there is an incident is not known there: values are missing, an "
    "entry lacks its value, or a run is cut short by a gap or the end of the archive",
    "missing_values": "a value is missing or impossible",
    "storm_in_target_set": "the target set holds the same incident, and training must not see it",
    "overlaps_target_set": "the target set holds some of the same field values",
    "incidents_outside_times": "entry of an incident at a time without fields, or between the "
    "usual times of the catalogue",
    "incidents_outside_cells": "entry of an incident where no patch has its centre (poles, edges "
    "of a region, columns that the stride leaves over)",
    "others_outside_times": "entry of another system at a time without fields, or between the "
    "usual times of the catalogue",
    "others_outside_cells": "entry of another system where no patch has its centre",
    "times_without_label": "a time for which the rule has no value: between the steps of a "
    "catalogue, without a mask or a value, or without a percentile",
}


def dropped_table(store: xr.Dataset) -> pd.DataFrame:
    """What was left out of a patch store, the most first.

    Args:
        store: as `open_store` gives it.

    Returns:
        ``count`` (patches, or entries of the catalogue) and ``why``, by ``reason``; reasons that
        left nothing out are not there.
    """
    counts = {k: n for k, n in store.attrs.get("dropped", {}).items() if n}
    rows = [(reason, n, WHY.get(reason, "")) for reason, n in counts.items()]
    table = pd.DataFrame(rows, columns=["reason", "count", "why"]).set_index("reason")
    return table.sort_values("count", ascending=False, kind="stable")
