"""Figures over time, for networks that look at whole fields."""

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.figure import Figure

from weather_tdr.plots.canvas import COLOURS, Picture


def probability_series(
    probability: xr.DataArray, threshold: float, truth: pd.DataFrame | None, method: str
) -> Figure:
    """The probability of an incident over time, for networks that look at whole fields.

    Args:
        probability: dims ``(time, latitude, longitude)``, one position.
        threshold: probability from which on it says incident.
        truth: ``time`` of the true incidents, when known.
        method: how the network was trained.
    """
    figure = Picture(figsize=(11, 3.6), layout="constrained")
    axes = figure.subplots()
    times = pd.DatetimeIndex(probability["time"].to_numpy())
    values = probability.to_numpy().reshape(len(times))
    axes.vlines(times, 0, values, color="0.45", linewidth=0.7, label="probability")
    axes.axhline(threshold, color=COLOURS[1], linestyle="--", label=f"threshold {threshold:.2g}")
    if truth is not None:
        at = times.isin(truth["time"])
        axes.plot(times[at], values[at], "o", color=COLOURS[0], markersize=4, label="true incident")
    axes.set(
        ylabel="probability (1)",
        ylim=(0, min(1.02, 1.08 * float(np.nanmax([threshold, *values])))),
        title=f"Probability of an incident in the region, network trained with {method}",
    )
    axes.set_xlabel("time (UTC)")
    axes.margins(x=0.01)
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    return figure
