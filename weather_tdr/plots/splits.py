"""The split on a time axis, and what was left out."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from weather_tdr.plots.canvas import KIND_COLOURS, Picture, colour_of

ROWS = ("train", "target", "validation", "test")


def split_figure(samples: pd.DataFrame, title: str = "") -> Figure:
    """Which times belong to which split, and when their incidents are.

    A bar is one or more times of a split that follow each other; a tick is a time with an
    incident. Between the splits lies the gap.

    Args:
        samples: ``time, split, label`` of all samples, as `Run.samples` gives them.
        title: of the figure.
    """
    rows = [name for name in ROWS if (samples["split"] == name).any()]
    figure = Picture(figsize=(9.5, 0.62 * len(rows) + 1.5), layout="constrained")
    axes = figure.subplots()
    # The target set is chosen from the times of train: it has ticks but no bar of its own.
    step = _step(samples["time"])
    for place, name in enumerate(rows):
        some = samples[samples["split"] == name]
        times = pd.DatetimeIndex(np.unique(some["time"].to_numpy()))
        if name != "target":
            for first, last in _stretches(times, step):
                axes.fill_betweenx(
                    [place - 0.3, place + 0.3], first.to_datetime64(),
                    (last + step).to_datetime64(), color=colour_of(place), alpha=0.25,
                )  # fmt: skip
        else:
            axes.plot(times, np.full(len(times), place), "|", color="0.35", markersize=9)
        incident = np.unique(some.loc[some["label"] == 1, "time"].to_numpy())
        axes.plot(
            incident, np.full(len(incident), place), "|", color=KIND_COLOURS["incident"],
            markersize=16, markeredgewidth=1.1,
        )  # fmt: skip
        count = int((some["label"] == 1).sum())
        axes.annotate(
            f"{len(some):,} patches, {count:,} incidents ({count / len(some):.2%})",
            (1.01, place), xycoords=("axes fraction", "data"), va="center", fontsize=9,
        )  # fmt: skip
    axes.set_yticks(range(len(rows)), rows)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set(
        xlabel="time (UTC)",
        title=title
        or "Splits; blue: times with an incident, grey: other samples of the target set",
    )
    axes.tick_params(axis="x", rotation=20)
    return figure


def _step(times: "pd.Series[pd.Timestamp]") -> pd.Timedelta:
    different = np.unique(times.to_numpy())
    return pd.Timedelta(np.diff(different).min()) if len(different) > 1 else pd.Timedelta(hours=1)


def _stretches(
    times: pd.DatetimeIndex, step: pd.Timedelta
) -> list[tuple[pd.Timestamp, pd.Timestamp]]:
    """First and last of times that follow each other, holes of a day and less bridged."""
    ends = np.flatnonzero(
        np.diff(times.to_numpy()) > max(step, pd.Timedelta(days=1)).to_timedelta64()
    )
    first, last = np.r_[0, ends + 1], np.r_[ends, len(times) - 1]
    return [(times[a], times[b]) for a, b in zip(first, last, strict=True)]


def dropped_figure(dropped: pd.DataFrame, title: str = "") -> Figure:
    """How much was left out, and why.

    Args:
        dropped: ``count`` and ``why``, as `dropped_table` gives it.
        title: of the figure.
    """
    figure = Picture(figsize=(9.5, 0.62 * len(dropped) + 1.3), layout="constrained")
    axes = figure.subplots()
    axes.barh(range(len(dropped)), dropped["count"], color=colour_of(0), height=0.35)
    for place, row in enumerate(dropped.to_dict("records")):
        axes.annotate(
            f"{row['count']:,}: {row['why']}", (0.0, place), xycoords=("axes fraction", "data"),
            xytext=(3, 15), textcoords="offset points", fontsize=8, va="center",
        )  # fmt: skip
    axes.set_yticks(range(len(dropped)), [str(r).replace("_", " ") for r in dropped.index])
    axes.set_ylim(len(dropped) - 0.5, -0.7)
    axes.set(
        xscale="log", xlim=(0.8, None), xlabel="patches or catalogue entries (log scale)",
        title=title or "Left out of the patch store",
    )  # fmt: skip
    return figure
