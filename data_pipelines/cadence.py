"""At which times of day a catalogue has looked: what lies between its steps is not known."""

import logging
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from data_pipelines.catalogues import say_once
from data_pipelines.schema import MatchTime

FEW = 5  # entries, all of them at 00 UTC, that have no hours rather than this one by chance
FEWEST = 20  # steps between entries of the same systems that tell the usual one
ON_IT = 0.9  # share of the entries that must lie on it; landfalls, say, lie beside
DAY = 24 * 3_600_000_000_000  # nanoseconds


@dataclass(frozen=True)
class Cadence:
    """The times at which a catalogue has entries.

    Attributes:
        step: from one to the next, nanoseconds; divides the day.
        first: of a day, nanoseconds after 00 UTC.
    """

    step: int
    first: int

    @property
    def hours(self) -> float:
        """The step, hours."""
        return 24 * self.step / DAY

    def between(self, times: pd.DatetimeIndex) -> npt.NDArray[np.bool_]:
        """True for the times between the steps."""
        return np.asarray(_ns(times) % self.step != self.first)


def cadence_of(catalogue: pd.DataFrame) -> Cadence | None:
    """The usual step of a catalogue's systems, where nearly all entries lie on it.

    A catalogue of single entries, or of few, does not tell at which times somebody looked, nor
    does one whose systems have unlike steps.

    Args:
        catalogue: ``time`` and ``storm_id``.
    """
    table = catalogue[["storm_id", "time"]].sort_values("time", kind="stable")
    times = _ns(pd.DatetimeIndex(table["time"]))
    apart = table.groupby("storm_id", sort=False)["time"].diff().dropna()
    steps = np.sort(apart.to_numpy("timedelta64[ns]").astype(np.int64))
    steps = steps[steps > 0]
    if len(steps) < FEWEST:
        return None
    step = int(steps[len(steps) // 2])
    if DAY % step:
        return None
    phases, number = np.unique(times % step, return_counts=True)
    if number.max() < ON_IT * len(times):
        return None
    return Cadence(step, int(phases[number.argmax()]))


def never_looked_at(
    catalogue: pd.DataFrame, times: pd.DatetimeIndex, match_time: MatchTime
) -> npt.NDArray[np.bool_]:
    """True for the times of fields at which a catalogue has not looked: between its steps.

    Where it has no steps, but its entries no hours either, those are all other times of the days
    that it names: at which of them the incident was is not known.

    Args:
        catalogue: ``time`` and ``storm_id``.
        times: times of the fields.
        match_time: with ``day``, a field stands for its whole day, and none is.
    """
    if match_time == "day":
        return np.zeros(len(times), dtype=bool)
    if cadence := cadence_of(catalogue):
        return cadence.between(times)
    days = pd.DatetimeIndex(catalogue["time"])
    if len(days) < FEW or (days != days.floor("D")).any():
        return np.zeros(len(times), dtype=bool)
    others = np.asarray(times.floor("D").isin(days) & (times != times.floor("D")))
    if others.any():
        say_once(
            logging.WARNING,
            "no time of the catalogue has an hour: the other times of its days have no label. With "
            "a column `hour`, or `incidents.match_time: day` and daily fields, they have.",
        )
    return others


def _ns(times: pd.DatetimeIndex) -> npt.NDArray[np.int64]:
    return times.to_numpy("datetime64[ns]").astype(np.int64)
