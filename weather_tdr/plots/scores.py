"""Figures of scores: precision and recall, the performance diagram, reliability."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from weather_tdr.plots.canvas import Picture, colour_of
from weather_tdr.scores import Curve

BIASES = (0.25, 0.5, 1.0, 2.0, 4.0)
CSIS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
LEAST = 1e-6  # probability at the left of the reliability diagram


@dataclass(frozen=True)
class Performance:
    """A method in the performance diagram.

    Attributes:
        success_ratio: 1 - FAR at each threshold.
        pod: at each threshold.
        point: success ratio and POD at the threshold chosen on validation.
        success_interval: 95 % interval of the success ratio there.
        pod_interval: of POD.
    """

    success_ratio: np.ndarray
    pod: np.ndarray
    point: tuple[float, float]
    success_interval: tuple[float, float]
    pod_interval: tuple[float, float]


def precision_recall_figure(curves: Mapping[str, Curve], base_rate: float) -> Figure:
    """Precision against recall of every method, with the chance line.

    Args:
        curves: method -> its curve.
        base_rate: share of incidents.
    """
    figure = Picture(figsize=(7.2, 5.6), layout="constrained")
    axes = figure.subplots()
    for number, (name, curve) in enumerate(curves.items()):
        axes.step(
            curve.recall,
            curve.precision,
            where="post",
            label=f"{name}: " + _area(curve),
            color=colour_of(number),
            linestyle="--" if name.endswith("_rule") else "-",
        )
    axes.axhline(
        base_rate, color="0.4", linewidth=1, linestyle=":", label=f"chance {100 * base_rate:.2g}%"
    )
    axes.set(
        xlabel="recall (POD, 1)",
        ylabel="precision (1 - FAR, 1)",
        xlim=(0, 1),
        ylim=(0, 1.02),
        title="Every patch of the test period, at natural prevalence",
    )
    axes.legend(fontsize=9)
    return figure


def _area(curve: Curve) -> str:
    """What the legend says of a curve."""
    area = curve.average_precision
    return "undefined without incidents" if np.isnan(area) else f"AP {area:.3f}"


def performance_figure(panels: Mapping[str, Mapping[str, Performance]]) -> Figure:
    """Performance diagrams beside each other: POD against success ratio, with CSI and bias.

    Args:
        panels: title of the panel -> method -> its performance.

    Source: Roebber (2009), Weather and Forecasting 24, 601-608.
    """
    figure = Picture(figsize=(6.1 * len(panels), 6.8), layout=ConstrainedLayoutEngine(h_pad=0.12))
    everywhere = figure.subplots(1, len(panels), squeeze=False)[0]
    names = list(dict.fromkeys(name for methods in panels.values() for name in methods))
    handles = {}
    for axes, (title, methods) in zip(everywhere, panels.items(), strict=True):
        _roebber(axes)
        for name, shown in methods.items():
            colour = colour_of(names.index(name))
            style = "--" if name.endswith("_rule") else "-"
            axes.plot(shown.success_ratio, shown.pod, style, color=colour, linewidth=0.9, alpha=0.7)
            x, y = shown.point
            if np.isnan(x) or np.isnan(y):
                continue
            handles[name] = axes.errorbar(
                x, y,
                xerr=_error(x, shown.success_interval), yerr=_error(y, shown.pod_interval),
                fmt="s" if name.endswith("_rule") else "o", color=colour, markersize=7, capsize=3,
                elinewidth=1.2, clip_on=False,  # a mark on the edge is whole
            )  # fmt: skip
        axes.set_title(title, fontsize=11, pad=18)
    figure.legend(
        handles.values(), handles.keys(), loc="outside lower center",
        ncols=min(3, max(1, len(handles))), frameon=False,
    )  # fmt: skip
    figure.suptitle("Test period, threshold from validation; bars are 95 % intervals")
    return figure


def _error(value: float, interval: tuple[float, float]) -> list[list[float]] | None:
    low, high = interval
    if np.isnan(low) or np.isnan(high):
        return None
    return [[max(value - low, 0.0)], [max(high - value, 0.0)]]


def _roebber(axes: Axes) -> None:
    """Lines of equal CSI, labelled on the right, and of equal bias, labelled at their ends."""
    ratio = np.linspace(1e-3, 1, 400)
    for csi in CSIS:
        with np.errstate(divide="ignore"):
            pod = 1.0 / (1.0 / csi + 1.0 - 1.0 / ratio)
        keep = (pod > 0) & (pod <= 1)
        axes.plot(ratio[keep], pod[keep], color="0.85", linewidth=0.8, zorder=0)
        axes.annotate(f"{csi:g}", (1.0, csi), xytext=(3, 0), textcoords="offset points",
                      va="center", fontsize=8, color="0.5")  # fmt: skip
    axes.annotate("CSI", (1.0, 1.0), xytext=(3, -2), textcoords="offset points", va="center",
                  fontsize=8, color="0.5")  # fmt: skip
    for bias in BIASES:
        end = (min(1.0, 1.0 / bias), min(1.0, bias))
        axes.plot([0, end[0]], [0, end[1]], ":", color="0.6", linewidth=0.8, zorder=0)
        on_top = end[1] == 1.0
        axes.annotate(
            f"bias {bias:g}", end, xytext=(0, 3) if on_top else (-4, 3),
            textcoords="offset points", ha="center" if on_top else "right",
            fontsize=8, color="0.5",
        )  # fmt: skip
    axes.set(
        xlabel="success ratio (1 - FAR, 1)", ylabel="POD (1)", xlim=(0, 1), ylim=(0, 1),
        aspect="equal",
    )  # fmt: skip


def reliability_figure(tables: Mapping[str, pd.DataFrame], base_rate: float, title: str) -> Figure:
    """Observed frequency against forecast probability, with the number of forecasts below.

    Args:
        tables: such as ``calibrated`` -> table of `reliability_table`.
        base_rate: share of incidents.
        title: of the figure.
    """
    figure = Picture(figsize=(7.2, 7.4), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[2.4, 1])
    floor = LEAST
    upper.plot([floor, 1], [floor, 1], color="0.6", linewidth=1, label="perfect")
    upper.axhline(
        base_rate,
        color="0.4",
        linestyle=":",
        linewidth=1,
        label=f"climatology {100 * base_rate:.2g}%",
    )
    for number, (name, table) in enumerate(tables.items()):
        colour = colour_of(number)
        seen = table[table["incidents"] > 0]
        none = table[table["incidents"] == 0]
        errors = np.abs(
            seen[["low", "high"]].to_numpy().T - seen["frequency"].to_numpy()[None]
        )  # never below 0, as the interval holds the frequency
        upper.errorbar(
            seen["probability"], seen["frequency"], yerr=errors, fmt="o-", color=colour,
            capsize=3, markersize=5, label=name,
        )  # fmt: skip
        upper.plot(none["probability"], np.full(len(none), 1.5 * floor), "v", color=colour,
                   markerfacecolor="none", markersize=5)  # fmt: skip
        for row in table.to_dict("records"):  # an empty bin has no line
            lower.hlines(row["samples"], row["from"], row["to"], color=colour, linewidth=2)
    upper.plot([], [], "v", color="0.4", markerfacecolor="none", label="no incident in the bin")
    upper.set(xscale="log", yscale="log", ylim=(floor, 1.3), title=title,
              ylabel="observed frequency (1)")  # fmt: skip
    lower.set(yscale="log", xlim=(floor, 1), xlabel="forecast probability (1)",
              ylabel="number of patches")  # fmt: skip
    upper.legend(fontsize=9, loc="upper left")
    for axes in (upper, lower):
        axes.grid(color="0.92")
        axes.xaxis.minorticks_off()  # decades are enough; each tick takes time to lay out
    upper.yaxis.minorticks_off()
    return figure
