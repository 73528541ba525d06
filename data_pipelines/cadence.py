"""At which times of day a catalogue has looked: what lies between its steps is not known."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from data_pipelines.schema import MatchTime

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
    """True for the times of fields between the steps of a catalogue.

    Args:
        catalogue: ``time`` and ``storm_id``.
        times: times of the fields.
        match_time: with ``day``, a field stands for its whole day, and none is.
    """
    cadence = cadence_of(catalogue) if match_time == "exact" else None
    return cadence.between(times) if cadence else np.zeros(len(times), dtype=bool)


def _ns(times: pd.DatetimeIndex) -> npt.NDArray[np.int64]:
    return times.to_numpy("datetime64[ns]").astype(np.int64)
