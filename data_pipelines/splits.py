"""Splits in time blocks with a gap, storms never cut in two, and the target set."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from data_pipelines.errors import InputError
from data_pipelines.periods import interval
from data_pipelines.schema import GROUPS, SPLITS, IntArray

# Whoever evaluates keeps everything; the other side gives way.
PRIORITY = ("train", "validation", "test")
GOLDEN = (np.sqrt(5) - 1) / 2


def split_times(
    times: pd.DatetimeIndex,
    periods: Mapping[str, Sequence[str]],
    gap: pd.Timedelta,
    fractions: Sequence[float] = (0.6, 0.15, 0.25),
) -> IntArray:
    """Assigns each time step to a split.

    Args:
        times: times of the fields, ascending.
        periods: split -> intervals ``FIRST/LAST`` (ISO 8601 dates, both included); if all are
            empty, train, validation and test follow each other with the shares `fractions`.
        gap: steps at most this far from a split of higher priority (test before validation before
            train) are dropped.
        fractions: shares of train, validation and test, when `periods` is empty.

    Returns:
        Index into ``SPLITS`` (0 is dropped), shape (time,).

    Raises:
        InputError: a period is malformed or empty, or two overlap.
    """
    split = np.zeros(len(times), dtype=np.int64)
    if any(periods.get(name) for name in PRIORITY):
        for name in PRIORITY:
            code = SPLITS.index(name)
            for period in periods.get(name, ()):
                first, last = interval(f"splits.{name}", period)
                inside = np.asarray((times >= first) & (times <= last))
                if not np.isin(split[inside], (0, code)).all():
                    raise InputError(
                        f"`splits.{name}` must not overlap another split, got `{period}`. "
                        "Give each date to one split."
                    )
                split[inside] = code
    else:
        if len(fractions) != 3 or min(fractions) <= 0 or sum(fractions) > 1 + 1e-9:
            raise InputError(
                "`splits.fractions` must be three positive shares of train, validation and test "
                f"with a sum of at most 1, got {list(fractions)}."
            )
        edges = np.round(np.cumsum([0.0, *fractions]) * len(times)).astype(int)
        for name, first, last in zip(PRIORITY, edges[:-1], edges[1:], strict=True):
            split[first:last] = SPLITS.index(name)
    clear = split.copy()
    for low, name in enumerate(PRIORITY):
        for other in PRIORITY[low + 1 :]:
            taken = times[split == SPLITS.index(other)]
            clear[(split == SPLITS.index(name)) & _near(times, taken, gap)] = 0
    for name in PRIORITY:
        if not (clear == SPLITS.index(name)).any():
            raise InputError(
                f"`splits.{name}` must hold at least one time step, got none between {times[0]} "
                f"and {times[-1]} with a gap of {gap}. Change the periods or the gap."
            )
    return clear


def _near(times: pd.DatetimeIndex, taken: pd.DatetimeIndex, gap: pd.Timedelta) -> np.ndarray:
    """True for the times at most `gap` away from one of `taken`."""
    if len(taken) == 0:
        return np.zeros(len(times), dtype=bool)
    after = np.clip(np.searchsorted(taken, times), 0, len(taken) - 1)
    before = np.clip(after - 1, 0, None)
    distance = np.minimum(np.abs(taken[after] - times), np.abs(times - taken[before]))
    return np.asarray(distance <= gap)


def separate_storms(labels: pd.DataFrame, split: IntArray) -> IntArray:
    """Split of each labelled patch, so that no storm lies in two splits.

    A storm that reaches into two splits belongs to that of higher priority (test before
    validation before train); its patches elsewhere are dropped.

    Args:
        labels: table with ``step`` and ``storms``.
        split: split of each time step.

    Returns:
        Split of each row of `labels`.
    """
    own = split[labels["step"].to_numpy()]
    rank = {SPLITS.index(name): i for i, name in enumerate(PRIORITY)}
    home: dict[str, int] = {}
    for code, storms in zip(own, labels["storms"], strict=True):
        for storm in storms if code in rank else ():
            if storm not in home or rank[code] > rank[home[storm]]:
                home[storm] = int(code)
    stays = [
        code in rank and all(home[storm] == code for storm in storms)
        for code, storms in zip(own, labels["storms"], strict=True)
    ]
    return np.where(stays, own, 0)


def choose_target(
    samples: pd.DataFrame,
    per_group: int,
    names: Sequence[str] = GROUPS,
    *,
    max_share: float = 0.5,
    seed: int = 0,
    skip: int = 0,
) -> tuple[IntArray, frozenset[str]]:
    """Chooses the target set from the training samples.

    Balanced: `per_group` samples of each group that occurs. Spread: storms (without storms:
    samples) are taken in a low-discrepancy order of time, each storm giving one sample, then a
    second round, until the number is reached; for groups with storms as few storms are touched as
    give `per_group` with at most three samples each. Disjoint: every storm touched leaves train.

    Args:
        samples: training samples, columns ``step, group, storms, incident_id``, ordered by time.
        per_group: samples of each group.
        names: of the groups; the rare ones last.
        max_share: largest share of a group's storms that may leave train.
        seed: shifts the order.
        skip: number of groups at the beginning of `names` that are left out.

    Returns:
        Positions in `samples` of the target set, and the storms that train must give up.

    Raises:
        InputError: a group is too small.
    """
    if per_group < 1:
        raise InputError(f"`splits.target_per_group` must be at least 1, got {per_group}.")
    shift = float(np.random.default_rng(seed).random())
    positions: list[int] = []
    touched: set[str] = set()
    group_of, storms_of = samples["group"].to_numpy(), samples["storms"].to_numpy()
    incident_of = samples["incident_id"].to_numpy()
    stormy = incident_of != ""
    # Incidents first: their storms may give hard negatives too.
    for group in reversed(range(skip, len(names))):
        members = np.flatnonzero(group_of == group)
        if len(members) == 0:
            continue  # such as hard negatives, in a catalogue of incidents alone
        if stormy[members].all():
            chosen = _from_storms(incident_of, members, per_group, shift)
        else:
            chosen = members[_spread(len(members), shift)[:per_group]]
        storms = {s for i in members[stormy[members]] for s in storms_of[i]}
        used = {s for i in chosen for s in storms_of[i]}
        left, room = (len(used), len(storms)) if storms else (len(chosen), len(members))
        if len(chosen) < per_group or left > max_share * room:
            whose = f" of {len(storms)} storms" if storms else ""
            raise InputError(
                f"`splits.target_per_group` must leave train at least half of the "
                f"{'storms' if storms else 'samples'} of group `{names[group]}`, got {per_group} "
                f"with {len(members)} samples{whose} in the training period. "
                "Lower it, divide into fewer `groups`, or train on a longer period."
            )
        positions += list(chosen)
        touched |= used
    return np.array(sorted(positions), dtype=np.int64), frozenset(touched)


def _spread(n: int, shift: float) -> IntArray:
    """0 .. n-1 in an order whose every beginning is spread evenly (golden-ratio sequence)."""
    position = (np.arange(n) * GOLDEN + shift) % 1.0
    return np.argsort(np.argsort(position, kind="stable"), kind="stable").astype(np.int64)


def _from_storms(
    incident_of: npt.NDArray[np.object_], members: IntArray, per_group: int, shift: float
) -> IntArray:
    by_storm: dict[str, list[int]] = {}
    for i in members:
        by_storm.setdefault(str(incident_of[i]), []).append(int(i))
    storms = list(by_storm)  # in order of first appearance, that is, of time
    chosen: list[int] = []
    for k in _spread(len(storms), shift):
        own = by_storm[storms[k]]
        picks = np.unique(np.linspace(0, len(own) - 1, min(3, len(own))).round().astype(int))
        chosen += [own[p] for p in picks]
        if len(chosen) >= per_group:
            break
    return np.array(chosen[:per_group], dtype=np.int64)
