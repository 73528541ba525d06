"""Scores of image benchmarks over the imbalance, with published numbers."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from weather_tdr.plots.canvas import Picture, colour_of
from weather_tdr.tables import beside, by_score, lacking

MARKERS = "osD^vP*X"


def imbalance_figure(
    results: pd.DataFrame, score: str, published: pd.DataFrame | None = None, title: str = ""
) -> Figure:
    """Each method's mean score and standard deviation over seeds, against the imbalance.

    Args:
        results: a row a method, imbalance and seed.
        score: column to show.
        published: as `tables.published` gives it; those of this score on the same data and
            network are shown.
        title: of the figure; the data set by default.
    """
    figure = Picture(figsize=(8.6, 4.6), layout="constrained")
    axes = figure.subplots()
    settings = sorted(results["imbalance"].unique())
    place = {v: k for k, v in enumerate(settings)}
    methods = by_score(results, score)
    for number, method in enumerate(methods):
        of_method = results[results["method"] == method].groupby("imbalance")[score]
        lost = lacking(results[results["method"] == method], score)
        whole = of_method.count() == of_method.size()  # no seed lacks it
        mean, spread = of_method.mean().where(whole), of_method.std(ddof=1).where(whole)
        # Beside each other: most methods are closer than their spread.
        shift = (number - (len(methods) - 1) / 2) * 0.5 / len(methods)
        axes.errorbar(
            [place[v] + shift for v in mean.index], mean, yerr=np.nan_to_num(spread),
            # Colours come again after as many methods as there are markers: with the next marker.
            marker=MARKERS[(number + number // len(MARKERS)) % len(MARKERS)], markersize=5,
            linestyle="--" if number // len(MARKERS) % 2 else "-", color=colour_of(number),
            linewidth=0.9, capsize=2, label=f"{method} ({lost})" if lost else method,
        )  # fmt: skip
    if published is not None:
        known = beside(published[published["score"] == score], results)
        for number, (paper, part) in enumerate(known.groupby("method", sort=False)):
            axes.plot(
                [place[v] for v in part["imbalance"]], part["value"], linestyle="none",
                marker=MARKERS[(number + 6) % len(MARKERS)], markersize=11, color="black",
                markerfacecolor="none", label=f"published: {paper}", zorder=5,
            )  # fmt: skip
    axes.set_xticks(range(len(settings)), [f"{v:g}" for v in settings])
    axes.set(
        xlabel="imbalance of the training set",
        ylabel=f"{score.replace('_', ' ')} on test (1)",
    )
    axes.set_title(title or str(results["dataset"].iloc[0]), fontsize=10)
    axes.grid(axis="y", color="0.9")
    figure.legend(loc="outside right upper", fontsize=8, frameon=False)
    return figure
