"""The target set: chosen among the training samples once it is known which can be used."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from data_pipelines.errors import InputError
from data_pipelines.patches import Listing, overlapping
from data_pipelines.schema import GROUPS, SPLITS, IntArray
from data_pipelines.splits import choose_target

TRAIN, TARGET = SPLITS.index("train"), SPLITS.index("target")
INCIDENT = GROUPS.index("incident")
# Name of a value and what stands where there is no sample -> that value of every sample.
Gather = Callable[[str, int | bool], npt.NDArray[Any]]
NONE = np.zeros(0, dtype=np.int64)


def refuse_early(listing: Listing, target_per_group: int) -> None:
    """Before anything is computed: would the samples do if no value were missing?

    Raises:
        InputError: a split is left without incidents, or the target set cannot be filled.
    """
    labels = listing.labels.assign(split=listing.label_split, group=listing.label_group)
    incidents = labels[labels["kind"] == INCIDENT]
    cut = listing.split[incidents["step"].to_numpy()][(incidents["split"] == 0).to_numpy()]
    _refuse_empty(incidents["split"].to_numpy(), 0, cut)
    grouping = listing.grouping
    choose_target(
        labels[labels["split"] == TRAIN],
        target_per_group,
        grouping.names,
        seed=listing.seed,
        skip=len(grouping.strata),
    )


def assign_splits(
    gather: Gather, listing: Listing, target_per_group: int, lags: Sequence[float] = (0.0,)
) -> tuple[npt.NDArray[np.int8], dict[str, int]]:
    """Split of each sample, with the target set chosen among training samples.

    Dropped are samples with a value that cannot be used; and of the training samples those whose
    storm, or whose field values (with lags, those of other times too), the target set holds.

    Args:
        gather: gives ``split, kind, usable, source, corner, step, group`` of all samples.
        listing: of the samples.
        target_per_group: samples of each group in the target set.
        lags: of the fields, hours.

    Returns:
        Index into ``SPLITS``, shape (samples,), and counts of what was dropped, by reason.

    Raises:
        InputError: a split is left without incidents, or the target set cannot be filled.
    """
    planned, kind = gather("split", 0), gather("kind", 0)
    codes = np.where(gather("usable", False), planned, 0).astype(np.int8)
    dropped = {"missing_values": int(((planned > 0) & (codes == 0)).sum())}
    _refuse_empty(codes[kind == INCIDENT], dropped["missing_values"])
    train = _training_samples(gather, listing, np.flatnonzero(codes == TRAIN))
    chosen, storms = choose_target(
        train, target_per_group, listing.grouping.names, seed=listing.seed
    )
    codes[train["position"].to_numpy()[chosen]] = TARGET
    rest = np.ones(len(train), dtype=bool)
    rest[chosen] = False
    shared = np.array([not storms.isdisjoint(s) for s in train["storms"]]) & rest
    near = overlapping(train, chosen, listing.grid, listing.times, lags) & rest & ~shared
    dropped["storm_in_target_set"] = int(shared.sum())
    dropped["overlaps_target_set"] = int(near.sum())
    codes[train["position"].to_numpy()[shared | near]] = 0
    _refuse_empty(codes[kind == INCIDENT], dropped["missing_values"])
    return codes, dropped


def _training_samples(gather: Gather, listing: Listing, positions: IntArray) -> pd.DataFrame:
    """``position, step, corner, group, storms, incident_id`` of training samples."""
    source = gather("source", -1)[positions]
    labelled = source >= 0
    table = pd.DataFrame(
        {
            "position": positions,
            "step": gather("step", 0)[positions],
            "corner": gather("corner", 0)[positions],
            "group": gather("group", 0)[positions],
        }
    )
    for name, none in (("storms", frozenset()), ("incident_id", "")):
        values = np.full(len(table), none, dtype=object)
        values[labelled] = listing.labels[name].to_numpy()[source[labelled]]
        table[name] = values
    return table


def _refuse_empty(
    split_of_incidents: npt.NDArray[np.integer], missing: int, cut: IntArray = NONE
) -> None:
    """Refuses a split without incidents.

    Args:
        split_of_incidents: of each incident patch.
        missing: number of samples that cannot be used.
        cut: where the patches lie whose incident belongs to another split.
    """
    for name in ("train", "validation", "test"):
        if not (split_of_incidents == SPLITS.index(name)).any():
            hint = f" {missing} samples have missing or impossible values." if missing else ""
            if lost := int((cut == SPLITS.index(name)).sum()):
                hint += (
                    f" {lost} incident patches there belong to incidents that reach into another "
                    "split: narrower rules or a smaller region make shorter incidents."
                )
            raise InputError(
                f"`splits.{name}` must hold at least one incident, got none.{hint} Change the "
                "periods, the region or the variables, or relax what `incidents` asks for."
            )
