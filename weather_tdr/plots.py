"""Figures from data already computed. Each function returns a matplotlib figure."""

from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from data_pipelines.schema import is_global
from weather_tdr.coastlines import coastlines, unrolled
from weather_tdr.scores import Curve
from weather_tdr.tables import by_score

PROBABILITY_COLOURS = "YlOrRd"


def incident_figure(
    probability: xr.DataArray,
    found: pd.DataFrame,
    *,
    pressure: xr.DataArray | None = None,
    truth: pd.DataFrame | None = None,
    title: str = "",
) -> Figure:
    """The incident map of one time: whole domain above, around the strongest incident below.

    Args:
        probability: dims ``(latitude, longitude)``.
        found: incidents found at this time.
        pressure: sea-level pressure in Pa, for the contours.
        truth: incidents of the catalogue at this time.
        title: of the figure.
    """
    figure = Figure(figsize=(11, 9.2), layout="constrained")
    whole, close = figure.subplots(2, 1, height_ratios=[1, 1.15])
    field = probability if pressure is None else pressure
    if len(found):
        best = found.sort_values("probability").iloc[-1]
        centre = float(best["longitude"]), float(best["latitude"])
    else:
        peak = probability.fillna(0.0).argmax(["latitude", "longitude"])
        best_point = probability.isel(peak)
        centre = float(best_point["longitude"]), float(best_point["latitude"])
    _draw(whole, probability, pressure, found, truth, label=False)
    turned = None if pressure is None else _turned(pressure, centre[0])
    mesh = _draw(close, _turned(probability, centre[0]), turned, found, truth, label=True)
    west, east = float(field["longitude"].min()), float(field["longitude"].max())
    south, north = float(field["latitude"].min()), float(field["latitude"].max())
    whole.set(xlim=(west, east), ylim=(south, north))
    half_x, half_y = min(40.0, (east - west) / 2), min(22.0, (north - south) / 2)
    x = (centre[0] - west) % 360.0 + west
    if not is_global(field["longitude"].to_numpy()):
        x = float(np.clip(x, west + half_x, east - half_x))
    else:
        x = centre[0]
    y = float(np.clip(centre[1], south + half_y, north - half_y))
    close.set(xlim=(x - half_x, x + half_x), ylim=(y - half_y, y + half_y))
    for turn in (-360.0, 0.0, 360.0):  # the box may leave on one side and come in on the other
        corner = (x + turn - half_x, y - half_y)
        whole.add_patch(Rectangle(corner, 2 * half_x, 2 * half_y, fill=False, edgecolor="tab:blue"))
    what = "the strongest incident found" if len(found) else "the highest probability (none found)"
    close.set_title(f"around {what}", fontsize=10)
    close.set_xlabel("longitude (degrees east)")
    close.legend(loc="lower left", framealpha=0.9)
    figure.colorbar(mesh, ax=[whole, close], label="probability of an incident (1)", shrink=0.7)
    figure.suptitle(title)
    return figure


def _turned(field: xr.DataArray, centre: float) -> xr.DataArray:
    """A global field turned so that `centre` lies in its middle; another field as it is."""
    longitude = field["longitude"].to_numpy()
    if not is_global(longitude):
        return field
    turned = (longitude - centre + 180.0) % 360.0 + centre - 180.0
    return field.assign_coords(longitude=turned).sortby("longitude")


def _draw(
    axes: Axes,
    probability: xr.DataArray,
    pressure: xr.DataArray | None,
    found: pd.DataFrame,
    truth: pd.DataFrame | None,
    *,
    label: bool,
) -> QuadMesh:
    """Probability, coastlines, pressure and incidents on one pair of axes."""
    west = float((probability if pressure is None else pressure)["longitude"].min())
    mesh = axes.pcolormesh(
        probability["longitude"],
        probability["latitude"],
        # White below 10 %: what the network rules out does not veil the map.
        probability.where(probability >= 0.1),
        cmap=PROBABILITY_COLOURS,
        vmin=0,
        vmax=1,
        shading="nearest",
    )
    for line in coastlines():
        axes.plot(*unrolled(line, west).T, color="tab:green", linewidth=0.6)
    if pressure is not None:
        _contours(axes, pressure, label=label)
    _marks(axes, found, "D", "tab:blue", "found", west)
    if truth is not None:
        _marks(axes, truth, "o", "black", "true incident", west)
    axes.set_ylabel("latitude (degrees north)")
    axes.set_aspect("auto")
    axes.grid(color="0.85", linewidth=0.5)
    return mesh


def save_figure(figure: Figure, path: Path) -> None:
    """Writes a figure as PNG, with its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def _contours(axes: Axes, pressure: xr.DataArray, *, label: bool) -> None:
    levels = np.arange(900, 1080, 5 if label else 10)
    lines = axes.contour(
        pressure["longitude"],
        pressure["latitude"],
        pressure / 100.0,
        levels=levels,
        colors="0.35",
        linewidths=0.6,
    )
    if label:
        axes.clabel(lines, fontsize=7, fmt="%d hPa")


def _marks(
    axes: Axes, table: pd.DataFrame, marker: str, colour: str, name: str, west: float
) -> None:
    axes.scatter(
        (table["longitude"] - west) % 360.0 + west,
        table["latitude"],
        marker=marker,
        s=90,
        facecolors="none",
        edgecolors=colour,
        linewidths=1.6,
        label=name,
        zorder=5,
    )


def precision_recall_figure(curves: dict[str, Curve], base_rate: float) -> Figure:
    """Precision against recall of every method, with the chance line.

    Args:
        curves: method -> its curve.
        base_rate: share of incidents.
    """
    figure = Figure(figsize=(6.4, 5), layout="constrained")
    axes = figure.subplots()
    for name, curve in curves.items():
        axes.step(
            curve.recall,
            curve.precision,
            where="post",
            label=f"{name}: AP {curve.average_precision:.3f}",
            linestyle="--" if name.endswith("_rule") else "-",
        )
    axes.axhline(base_rate, color="0.5", linewidth=1, linestyle=":")
    axes.annotate(f"chance {base_rate:.2%}", (0.01, base_rate), va="bottom", fontsize=8)
    axes.set(
        xlabel="recall (POD, 1)",
        ylabel="precision (1 - FAR, 1)",
        xlim=(0, 1),
        ylim=(0, 1.02),
        title="Every patch of the test period, at natural prevalence",
    )
    axes.legend()
    return figure


def weight_history(history: pd.DataFrame, title: str) -> Figure:
    """The group weights over the steps.

    Args:
        history: as in `history.csv`.
        title: of the figure.
    """
    figure = Figure(figsize=(6.4, 4), layout="constrained")
    axes = figure.subplots()
    for column in [c for c in history if str(c).startswith("weight_")]:
        axes.plot(history["step"], history[column], label=str(column).removeprefix("weight_"))
    axes.set(xlabel="step", ylabel="group weight (1)", title=title)
    axes.set_ylim(bottom=0)
    axes.legend()
    return figure


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
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    axes = figure.subplots()
    times = pd.DatetimeIndex(probability["time"].to_numpy())
    values = probability.to_numpy().reshape(len(times))
    axes.vlines(times, 0, values, color="0.45", linewidth=0.7, label="probability")
    axes.axhline(threshold, color="tab:red", linestyle="--", label=f"threshold {threshold:.2f}")
    if truth is not None:
        at = times.isin(truth["time"])
        axes.plot(times[at], values[at], "o", color="tab:blue", markersize=4, label="true incident")
    axes.set(
        ylabel="probability (1)",
        ylim=(0, min(1.02, 1.08 * float(np.nanmax([threshold, *values])))),
        title=f"Probability of an incident in the region, network trained with {method}",
    )
    axes.set_xlabel("time (UTC)")
    axes.margins(x=0.01)
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    return figure


def methods_figure(results: pd.DataFrame, score: str, title: str) -> Figure:
    """Each method's score on every seed, its mean and standard deviation, best above.

    Args:
        results: a row a method, imbalance and seed; a panel an imbalance.
        score: column to show.
        title: of the figure.
    """
    settings = list(dict.fromkeys(results["imbalance"]))
    methods = by_score(results, score)[::-1]
    figure = Figure(
        figsize=(3.5 + max(4.0, 2.6 * len(settings)), 1.6 + 0.34 * len(methods)),
        layout="constrained",
    )
    panels = figure.subplots(1, len(settings), sharey=True, squeeze=False)[0]
    for axes, setting in zip(panels, settings, strict=True):
        for place, method in enumerate(methods):
            chosen = (results["method"] == method) & (results["imbalance"] == setting)
            values = results.loc[chosen, score].to_numpy(dtype=float)
            colour = "tab:red" if method.startswith("tdr") else "tab:blue"
            axes.plot(values, np.full(len(values), place), ".", color=colour, alpha=0.5)
            axes.errorbar(
                values.mean(), place, xerr=values.std(ddof=1) if len(values) > 1 else None,
                fmt="D", color=colour, markersize=5, capsize=3,
            )  # fmt: skip
        axes.set_title(f"imbalance {setting:.4g}", fontsize=10)
        axes.grid(axis="x", color="0.85")
    panels[0].set_yticks(range(len(methods)), methods)
    figure.supxlabel(f"{score.replace('_', ' ')} (1) on test: seeds, mean, standard deviation")
    figure.suptitle(title)
    return figure


def histogram_figure(counts: dict[str, dict[str, int]], title: str) -> Figure:
    """Samples of each class in each split.

    Args:
        counts: split -> class -> samples.
        title: of the figure.
    """
    classes = list(next(iter(counts.values())))
    figure = Figure(figsize=(max(6.4, 0.22 * len(classes)), 4), layout="constrained")
    axes = figure.subplots()
    place = np.arange(len(classes))
    shown = [name for name, of_class in counts.items() if sum(of_class.values())]
    width = 0.8 / len(shown)
    for number, name in enumerate(shown):
        values = [counts[name][c] for c in classes]
        axes.bar(place + (number - (len(shown) - 1) / 2) * width, values, width, label=name)
    axes.set_yscale("log")
    axes.set_xticks(place, classes, rotation=90 if len(classes) > 5 else 0)
    axes.set(xlabel="class", ylabel="samples (log scale)", title=title)
    figure.legend(loc="outside lower center", ncols=len(shown))
    return figure
