"""Figures of training sets and of training."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from weather_tdr.plots.canvas import COLOURS, KIND_COLOURS, Picture, colour_of
from weather_tdr.tables import by_score, lacking

STYLES = ("-", "--", "-.", ":")  # weights may be the same
LOSSES = {"loss": "train", "target_loss": "target set"}


def weight_history(histories: Mapping[str, pd.DataFrame], title: str = "") -> Figure:
    """Losses, group weights with the shares drawn, and hypergradients below; a column a method.

    Hypergradients are drawn as their direction h / |h|, as their size falls by decades.

    Args:
        histories: method -> its history, as in `history.csv`.
        title: of the figure.
    """
    steered = any(_columns(h, "hypergradient_") for h in histories.values())
    figure = Picture(
        figsize=(max(6.4, 3.9 * len(histories)), 7.2 if steered else 5.4), layout="constrained"
    )
    panels = figure.subplots(2 + steered, len(histories), squeeze=False, sharex=True)
    for axes in panels[0, 1:]:  # the losses; weights differ a hundredfold between methods
        axes.sharey(panels[0, 0])
    groups = list(dict.fromkeys(g for h in histories.values() for g in _columns(h, "weight_")))

    def style(group: str) -> dict[str, Any]:
        number = groups.index(group)
        colour = KIND_COLOURS.get(group, colour_of(number))
        return {"color": colour, "linestyle": STYLES[number % 4]}

    for column, (method, history) in zip(panels.T, histories.items(), strict=True):
        above, below = column[:2]
        for number, (name, label) in enumerate(LOSSES.items()):
            if name in history:
                some = history.loc[_moved(history, [name]), ["step", name]].dropna()
                colour = COLOURS[-2] if number else "0.55"
                above.plot(some["step"], some[name], color=colour, label=label)
        own = _columns(history, "weight_")
        for group in own:
            weight, share = history[f"weight_{group}"], history.get(f"share_{group}")
            below.plot(history["step"], weight, label=group.replace("_", " "), **style(group))
            if share is not None:
                below.plot(history["step"], share, ".", color=style(group)["color"], markersize=4)
        if any(f"share_{group}" in history for group in own):
            below.plot([], [], ".", color="0.4", markersize=4, label="share drawn")
        moved = history["step"][history.get("target_loss", history["step"] * np.nan).notna()]
        if len(moved) and moved.index[0] > 0:  # until then training is ordinary
            below.vlines(
                moved.iloc[0], 0, 1, colors="0.6", linestyles="dotted", label="steering begins",
                transform=below.get_xaxis_transform(),
            )  # fmt: skip
        if steered:
            _draw_directions(column[2], history, style)
        above.set_title(method)
        above.set_yscale("log")
        above.legend(fontsize=8)
        column[-1].set_xlabel("step")
        below.set_ylim(0, 1.5 * below.get_ylim()[1])  # room for the legend
        below.legend(fontsize=8, loc="upper left", ncols=2)
        for axes in column:
            axes.grid(color="0.92")
    panels[0, 0].set_ylabel("loss (nats)")
    panels[1, 0].set_ylabel("group weight, share (1)")
    if steered:
        panels[2, 0].set_ylabel("hypergradient: h / |h| (1)")
    if title:
        figure.suptitle(title)
    return figure


def _columns(history: pd.DataFrame, prefix: str) -> list[str]:
    """The groups or classes that have a column of that kind."""
    return [str(c).removeprefix(prefix) for c in history if str(c).startswith(prefix)]


def _moved(history: pd.DataFrame, columns: list[str]) -> pd.Series:
    """Rows that do not repeat the one before, as those after the last move of the weights do."""
    return history[columns].ne(history[columns].shift()).any(axis=1)


def _draw_directions(
    axes: Axes, history: pd.DataFrame, style: Callable[[str], dict[str, Any]]
) -> None:
    """The hypergradients, each row divided by its norm; tells where a method has none."""
    names = _columns(history, "hypergradient_")
    axes.set_ylim(-1.05, 1.05)
    if not names:
        axes.text(0.5, 0.5, "none logged", transform=axes.transAxes, ha="center", color="0.4")
        return
    columns = [f"hypergradient_{n}" for n in names]
    history = history[_moved(history, columns)]
    values = history[columns]
    norm = np.sqrt((values**2).sum(axis=1, skipna=False))
    for name in names:
        line = values[f"hypergradient_{name}"] / norm.where(norm > 0)
        axes.plot(history["step"], line, **style(name))
    axes.axhline(0, color="0.6", linewidth=0.8)


def methods_figure(results: pd.DataFrame, scores: str | Sequence[str], title: str) -> Figure:
    """Each method's scores: every seed, mean and standard deviation; best above.

    Args:
        results: a row a method, imbalance and seed; a colour an imbalance.
        scores: columns to show, a panel each; the first one orders the methods.
        title: of the figure.
    """
    scores = [scores] if isinstance(scores, str) else list(scores)
    settings = list(dict.fromkeys(results["imbalance"]))
    methods = by_score(results, scores[0])[::-1]
    row = max(0.34, 0.13 * len(settings))
    figure = Picture(
        figsize=(6.7 + 1.8 * len(scores), 1.8 + row * len(methods)), layout="constrained"
    )
    widths = [3.0] + [1.0] * (len(scores) - 1)
    panels = figure.subplots(1, len(scores), sharey=True, squeeze=False, width_ratios=widths)[0]
    for axes, score in zip(panels, scores, strict=True):
        for place, method in enumerate(methods):
            for number, setting in enumerate(settings):
                # Beside each other within the row, the least imbalanced above.
                height = place + ((len(settings) - 1) / 2 - number) * 0.8 / len(settings)
                chosen = (results["method"] == method) & (results["imbalance"] == setting)
                part = results[chosen]
                values = part[score].to_numpy(dtype=float)
                colour = COLOURS[1] if method.startswith("tdr") else COLOURS[0]
                if len(settings) > 1:
                    colour = colour_of(number)
                axes.plot(values, np.full(len(values), height), ".", color=colour, alpha=0.5)
                if lost := lacking(part, score):
                    where = axes.get_yaxis_transform()
                    style: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 7}
                    axes.text(0.5, height, lost, transform=where, color=colour, **style)
                    continue
                axes.errorbar(
                    values.mean(), height, xerr=values.std(ddof=1) if len(values) > 1 else None,
                    fmt="D", color=colour, markersize=5 if len(settings) == 1 else 3, capsize=3,
                )  # fmt: skip
        unit = "s" if score == "seconds" else "1"
        axes.set_xlabel(f"{score.replace('_', ' ')} ({unit})")
        axes.grid(axis="x", color="0.85")
        for place in range(len(methods) - 1):
            axes.axhline(place + 0.5, color="0.93", linewidth=0.8)
    panels[0].set_yticks(range(len(methods)), methods)
    panels[0].set_ylim(-0.6, len(methods) - 0.4)
    if len(settings) > 1:
        keys = [Line2D([], [], marker="D", color=colour_of(k)) for k in range(len(settings))]
        names = [f"{v:.4g}" for v in settings]
        figure.legend(
            keys, names, title="imbalance", loc="outside right upper", fontsize=8, frameon=False
        )
    else:
        title += f"; imbalance {settings[0]:.4g}"
    figure.suptitle(f"{title}. On test: seeds, mean, standard deviation", fontsize=11)
    return figure


def histogram_figure(counts: dict[str, dict[str, int]], title: str) -> Figure:
    """Samples of each class in each split.

    Args:
        counts: split -> class -> samples.
        title: of the figure.
    """
    classes = list(next(iter(counts.values())))
    figure = Picture(figsize=(max(6.4, 0.22 * len(classes)), 4), layout="constrained")
    axes = figure.subplots()
    place = np.arange(len(classes))
    shown = [name for name, of_class in counts.items() if sum(of_class.values())]
    width = 0.8 / len(shown)
    for number, name in enumerate(shown):
        values = [counts[name][c] for c in classes]
        where = place + (number - (len(shown) - 1) / 2) * width
        axes.bar(where, values, width, label=name, color=COLOURS[number])
    axes.set_yscale("log")
    axes.set_xticks(place, classes, rotation=90 if len(classes) > 5 else 0)
    axes.set(xlabel="class", ylabel="samples (log scale)", title=title)
    figure.legend(loc="outside lower center", ncols=len(shown))
    return figure
