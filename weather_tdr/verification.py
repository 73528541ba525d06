"""Incidents against truth: the threshold from validation, hits and false alarms, intervals."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from data_pipelines.following import HOUR, follow
from weather_tdr.intervals import count_intervals, storm_blocks
from weather_tdr.maps import Maps
from weather_tdr.matching import Matching, match_incidents
from weather_tdr.scores import Counts, table_scores

CURVE_POINTS = 60
CURVE_INCIDENTS = 50  # peaks looked at for each true incident: below that FAR is 98 %
ROUNDS = 1000  # of the bootstrap that chooses the threshold


def incident_curve(peaks: pd.DataFrame, truth: pd.DataFrame, maps: Maps) -> pd.DataFrame:
    """Hits, misses and false alarms of the incidents at or above each of some thresholds.

    Args:
        peaks: ``time, latitude, longitude, probability``, without a threshold.
        truth: ``time, latitude, longitude``.
        maps: radius and tolerance of the matching.

    Returns:
        ``threshold, hits, misses, false_alarms, pod, far, csi``, the highest threshold first.
    """
    rows = [
        {"threshold": threshold, **_three(_counts(matching))}
        for threshold, _, matching in _at_thresholds(peaks, truth, maps)
    ]
    curve = pd.DataFrame(rows, columns=["threshold", "hits", "misses", "false_alarms"])
    rates = table_scores(curve["hits"], curve["false_alarms"], curve["misses"], 0)
    return curve.assign(**{k: rates[k] for k in ("pod", "far", "csi")})


def _at_thresholds(
    peaks: pd.DataFrame, truth: pd.DataFrame, maps: Maps
) -> Iterator[tuple[float, npt.NDArray[np.bool_], Matching]]:
    """Thresholds that let through 1, 2, ... peaks, evenly on a logarithmic scale of their number.

    Yields:
        The threshold, which peaks are at or above it, and their matching.
    """
    heights = np.sort(peaks["probability"].to_numpy())[::-1]
    most = min(len(heights), CURVE_INCIDENTS * max(len(truth), 1))
    ranks = np.unique(np.geomspace(1, max(most, 1), CURVE_POINTS).astype(int))[: len(heights)]
    for rank in ranks:
        below = heights[rank] if rank < len(heights) else heights[rank - 1]
        threshold = float((heights[rank - 1] + below) / 2)  # rounding does not decide
        found = (peaks["probability"] >= threshold).to_numpy()
        matching = match_incidents(peaks[found], truth, maps.radius_km, maps.tolerance_hours)
        yield threshold, found, matching


def choose_incident_threshold(
    peaks: pd.DataFrame, truth: pd.DataFrame, maps: Maps, *, seed: int = 0
) -> float:
    """The threshold for the best CSI of incidents, steadied by a bootstrap over blocks of time.

    The best CSI of a few incidents is a matter of luck: one strong false alarm more or less moves
    the threshold by a factor. So the best threshold is sought in each of 1,000 resamples, and the
    mean taken over them: of the logarithm of how many peaks it lets through, so that the scale of
    the probabilities does not matter (bagging, Breiman 1996).

    Args:
        peaks: of the validation period: ``time, probability, latitude, longitude``, without a
            threshold.
        truth: ``time, latitude, longitude``, and ``storm_id`` where there is one.
        maps: radius and tolerance of the matching.
        seed: of the bootstrap.

    Returns:
        One of the thresholds of `incident_curve`; NaN where none has a hit.
    """
    of_truth = storm_blocks(truth["time"].to_numpy(), _storms(truth))
    none = np.full(len(peaks), "", dtype=object)
    of_peaks = storm_blocks(peaks["time"].to_numpy(), none)
    names = np.unique(np.r_[of_truth, of_peaks])
    place = np.searchsorted(names, of_truth)
    thresholds, let_through, hits, false_alarms = [], [], [], []
    for threshold, found, matching in _at_thresholds(peaks, truth, maps):
        thresholds.append(threshold)
        let_through.append(int(found.sum()))
        hits.append(np.bincount(place, weights=matching.hit, minlength=len(names)))
        wrong = np.searchsorted(names, of_peaks[found][matching.found < 0])
        false_alarms.append(np.bincount(wrong, minlength=len(names)))
    if not np.any(hits):
        return math.nan
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=ROUNDS)
    true = drawn @ np.bincount(place, minlength=len(names))
    found_of, false_of = drawn @ np.array(hits).T, drawn @ np.array(false_alarms).T
    with np.errstate(invalid="ignore", divide="ignore"):
        csi = found_of / (true[:, None] + false_of)
    csi = csi[found_of.any(axis=1)]  # a resample without a hit tells nothing
    number = np.log(let_through)
    wanted = number[csi.argmax(axis=1)].mean()
    return thresholds[int(np.abs(number - wanted).argmin())]


def with_tracks(
    found: pd.DataFrame, times: npt.NDArray[np.datetime64], maps: Maps, apart_km: float = 0.0
) -> pd.DataFrame:
    """The table with ``track_id``, from 1 on.

    Args:
        found: sorted by time.
        times: all time steps of the map.
        maps: highest speed and missed steps of a track. It ends where the steps are further apart
            than usual, as between two winters.
        apart_km: of two neighbouring positions: a track may always go to the next.
    """
    gaps = np.diff(times) / HOUR
    longest = 1.01 * (maps.missed_steps + 1) * float(np.median(gaps)) if len(gaps) else np.inf
    number = follow(found, times, maps.speed_km_h, maps.missed_steps, longest, apart_km)
    return found.assign(track_id=number)


def verify(
    found: pd.DataFrame,
    truth: pd.DataFrame,
    times: npt.NDArray[np.datetime64],
    maps: Maps,
) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, Any]]:
    """Matches found with true incidents and tracks with storms.

    Args:
        found: with ``track_id``.
        truth: ``time, latitude, longitude``, and ``storm_id`` where there is one.
        times: all time steps of the map.
        maps: radius and tolerance of the matching.

    Returns:
        `found` with ``matched``, ``distance_km`` and ``storm_id`` of its true incident; `truth`
        with ``hit``; and the scores of incidents, with those of storms under ``tracks``: a storm
        is a hit when any of its positions is, a track a false alarm when none of its positions is
        matched. Without storms there are no ``tracks``.
    """
    storm = _storms(truth)
    matching = match_incidents(found, truth, maps.radius_km, maps.tolerance_hours)
    false = matching.found < 0
    names = np.append(storm, "")
    found = found.assign(
        matched=~false, distance_km=matching.distance_km, storm_id=names[matching.found]
    )
    truth = truth.assign(hit=matching.hit)
    all_blocks = storm_blocks(times, np.full(len(times), "", dtype=object))
    block = np.r_[
        storm_blocks(truth["time"].to_numpy(), storm),
        storm_blocks(found["time"].to_numpy(), found["track_id"].to_numpy(dtype=object))[false],
    ]
    is_hit = np.r_[matching.hit, np.zeros(false.sum(), bool)]
    is_false = np.r_[np.zeros(len(truth), bool), np.ones(false.sum(), bool)]
    scores = _scores(block, is_hit, is_false, all_blocks)
    hits = scores["hits"]
    scores["mean_distance_km"] = float(np.nanmean(matching.distance_km)) if hits else math.nan
    if "storm_id" in truth:
        scores["tracks"] = _track_scores(found, truth, storm, all_blocks)
    shapes = ["extent", "places"]
    found, truth = (table.drop(columns=shapes, errors="ignore") for table in (found, truth))
    return found, truth, scores


def _storms(truth: pd.DataFrame) -> npt.NDArray[np.object_]:
    """The name of the storm of each entry, empty for none."""
    names = truth.get("storm_id", pd.Series("", index=truth.index)).astype(object)
    return names.fillna("").astype(str).to_numpy(dtype=object)


def _track_scores(
    found: pd.DataFrame,
    truth: pd.DataFrame,
    storm: npt.NDArray[np.object_],
    all_blocks: npt.NDArray[np.int64],
) -> dict[str, Any]:
    """The same, a row a storm or a track; an entry without a name is a storm of its own."""
    own = np.array([f"{s}" if s else f"#{k}" for k, s in enumerate(storm)], dtype=object)
    of_storm = (
        truth.assign(storm=own).groupby("storm").agg(hit=("hit", "any"), time=("time", "min"))
    )
    of_track = found.groupby("track_id").agg(matched=("matched", "any"), time=("time", "min"))
    alone = of_track[~of_track["matched"]]
    time = np.r_[of_storm["time"].to_numpy(), alone["time"].to_numpy()].astype("datetime64[ns]")
    block = storm_blocks(time, np.full(len(time), "", dtype=object))
    is_hit = np.r_[of_storm["hit"].to_numpy(bool), np.zeros(len(alone), bool)]
    is_false = np.r_[np.zeros(len(of_storm), bool), np.ones(len(alone), bool)]
    return _scores(block, is_hit, is_false, all_blocks)


def _scores(
    block: npt.NDArray[np.int64],
    is_hit: npt.NDArray[np.bool_],
    is_false: npt.NDArray[np.bool_],
    all_blocks: npt.NDArray[np.int64],
) -> dict[str, Any]:
    missed = ~is_hit & ~is_false
    counts = Counts(int(is_hit.sum()), int(is_false.sum()), int(missed.sum()))
    scores = counts.scores()
    return {
        **_three(counts),
        **{k: scores[k] for k in ("pod", "far", "csi")},
        **count_intervals(block, is_hit, is_false, missed, blocks=all_blocks),
    }


def _counts(matching: Matching) -> Counts:
    hits = int(matching.hit.sum())
    return Counts(hits, int((matching.found < 0).sum()), matching.truths - hits)


def _three(counts: Counts) -> dict[str, int]:
    return {k: getattr(counts, k) for k in ("hits", "misses", "false_alarms")}
