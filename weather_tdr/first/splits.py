"""Chooses periods, size of the target set and steps for a first configuration, and says why."""

from collections.abc import Callable

import numpy as np
import pandas as pd

from data_pipelines.errors import InputError
from data_pipelines.planning import StorePlan
from data_pipelines.schema import GROUPS, SPLITS
from data_pipelines.settings import Splits
from data_pipelines.target_set import refuse_early
from weather_tdr.first.commented_yaml import Key

Planner = Callable[[Splits], StorePlan]
SHARES = ((0.6, 0.75), (0.5, 0.75), (0.4, 0.7))  # where validation and test begin
TARGETS = (12, 10, 8, 6, 5, 4, 3, 2, 1)
ENOUGH = 5  # incidents of a split above which more do not matter for the choice
PASSES = 20  # over the training samples
BATCH = 128
STEPS = (500, 3000)
INCIDENT_PATCHES = 20_000  # of training, that are enough; and no more than there are others


def choose_splits(
    times: pd.DatetimeIndex, incident_times: pd.DatetimeIndex, gap_hours: float, planner: Planner
) -> tuple[StorePlan, Splits]:
    """Periods of train, validation and test with incidents in each, and the target set.

    Args:
        times: of the fields, after lags.
        incident_times: of the incidents, if they are known before anything is labelled.
        gap_hours: at least so much lies between two splits.
        planner: what the store would hold with given splits.

    Returns:
        The plan with the splits that were chosen, and these.

    Raises:
        InputError: no division of the time axis works.
    """
    gap = f"{gap_hours / 24:g}d"
    best: tuple[tuple[int, int], Splits, StorePlan] | None = None
    refused: InputError | None = None
    for train_end, validation_end in _cuts(times, incident_times):
        splits = _periods(times, train_end, validation_end, gap)
        try:
            plan = planner(splits)
            target, codes = _largest_target(plan)
        except InputError as error:
            refused = refused or error
            continue
        incidents = plan.incidents(codes)
        fewest = min(ENOUGH, *(incidents[s] for s in ("train", "validation", "test")))
        if best is None or (target, fewest) > best[0]:
            splits.target_per_group = target
            best = (target, fewest), splits, plan
        if (target, fewest) == (TARGETS[0], ENOUGH):
            break
    if best is None and refused is None:
        raise InputError(
            "`--fields` must be long enough for training, validation and test with "
            f"{gap_hours:g} hours between them, got {times[0]} to {times[-1]}. Give more files."
        )
    if best is None:
        raise InputError(
            "no division of the time axis into train, validation and test works with these "
            f"fields and incidents: {refused}"
        )
    _, splits, plan = best
    return plan, splits


def _cuts(
    times: pd.DatetimeIndex, incident_times: pd.DatetimeIndex
) -> list[tuple[pd.Timestamp, pd.Timestamp]]:
    """First days of validation and of test: by shares of the time, then of the incidents."""
    years = (times[-1] - times[0]) / pd.Timedelta(days=365.25)
    found = []
    for axis in (times, incident_times.sort_values()):
        for shares in SHARES if len(axis) else ():
            begins = [axis[int(share * (len(axis) - 1))].floor("D") for share in shares]
            if years >= 3:  # whole months are easier to speak of
                begins = [b.replace(day=1) for b in begins]
            if times[0] < begins[0] < begins[1] < times[-1]:
                found.append((begins[0], begins[1]))
    return list(dict.fromkeys(found))


def _periods(
    times: pd.DatetimeIndex, validation: pd.Timestamp, test: pd.Timestamp, gap: str
) -> Splits:
    day = pd.Timedelta(days=1)
    ends = [(times[0], validation - day), (validation, test - day), (test, times[-1])]
    train, held, tested = ([f"{a:%Y-%m-%d}/{b:%Y-%m-%d}"] for a, b in ends)
    return Splits(train, held, tested, gap=gap)


def _largest_target(plan: StorePlan) -> tuple[int, np.ndarray]:
    refused: InputError | None = None
    for target in TARGETS:
        try:
            refuse_early(plan.listing, target)
            return target, plan.assigned(target)[0]
        except InputError as error:
            refused = error
    assert refused is not None
    raise refused


def splits_keys(splits: Splits, incidents: dict[str, int]) -> list[Key]:
    """The keys of splits.

    Args:
        splits: that were chosen.
        incidents: number of each split.
    """

    def told(split: str) -> str:
        return f"incidents of {incidents[split]} systems"

    return [
        Key(
            "splits.train",
            splits.train,
            "Periods, both days included; none of their incidents reaches into another split. "
            f"Training has {told('train')} (and {told('target')} are in the target set).",
        ),
        Key(
            "splits.validation",
            splits.validation,
            f"Thresholds and calibration are chosen here: {told('validation')}.",
        ),
        Key("splits.test", splits.test, f"Scores and maps are made here: {told('test')}."),
        Key(
            "splits.gap",
            splits.gap,
            "So much time around validation and test belongs to nobody, so that the same weather "
            "is not on both sides; at least the largest lag.",
        ),
        Key(
            "splits.target_per_group",
            splits.target_per_group,
            "Size of the target set that steers training: so many samples of each group "
            "(background, hard negatives, incidents), taken out of the training period. "
            "It may take at most half of the incidents away from training.",
        ),
    ]


def choose_incident_stride(plan: StorePlan, codes: np.ndarray) -> int:
    """Points between the places of the central cell at which training sees an incident; 0: at one.

    Args:
        plan: of the store, with each incident once.
        codes: split of each of its samples.
    """
    stride = plan.listing.grid.stride
    here = (codes == SPLITS.index("train")) & (plan.samples["kind"] == GROUPS.index("incident"))
    once = int(here.sum())
    most = min(INCIDENT_PATCHES, int((codes == SPLITS.index("train")).sum()) - once)
    steps = [2**k for k in range(stride.bit_length()) if stride % 2**k == 0]
    step = next((s for s in steps if once * (stride // s) ** 2 <= most), stride)
    return 0 if step == stride else step


def incident_stride_key(step: int, plan: StorePlan, codes: np.ndarray) -> Key:
    """The key of what `choose_incident_stride` chose.

    Args:
        step: that was chosen.
        plan: of the store with it.
        codes: split of each of its samples.
    """
    places = (plan.listing.grid.stride // step) ** 2
    incident = (codes == SPLITS.index("train")) & (plan.samples["kind"] == GROUPS.index("incident"))
    return Key(
        "patches.incident_stride",
        step,
        f"Training sees each incident at up to {places} places of the central cell, cut from the "
        f"fields themselves: {int(incident.sum()):,} patches.",
    )


def choose_training(codes: np.ndarray) -> list[Key]:
    """Methods and steps.

    Args:
        codes: split of each sample of the store.
    """
    samples = int((codes == SPLITS.index("train")).sum())
    low, high = STEPS
    steps = int(np.clip(round(PASSES * samples / BATCH, -2), low, high))
    return [
        Key(
            "train.methods",
            ["merge_target", "tdr"],
            "Ordinary training on train and target set, and the training that the target set "
            "steers. More in configs/methods/: uniform, inverse_frequency, focal, ...",
        ),
        Key(
            "train.steps",
            steps,
            f"Steps of {BATCH} samples: {steps * BATCH / max(samples, 1):.0f} passes over the "
            f"{samples:,} training samples.",
        ),
    ]
