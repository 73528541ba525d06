"""Maps of the fields themselves, one panel a variable, with the entries of a catalogue."""

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke

from weather_tdr.plots.canvas import KIND_COLOURS, Picture
from weather_tdr.plots.maps import draw_coastlines
from weather_tdr.plots.scene import Window

SIGNED, UNSIGNED = "RdBu_r", "cividis"  # both can be told apart by colour-blind eyes
MARKS = {"incident": "D", "hard_negative": "o"}


def fields_figure(
    fields: xr.DataArray, catalogue: pd.DataFrame | None = None, title: str = ""
) -> Figure:
    """The fields of one time, a panel a variable.

    Args:
        fields: canonical, as `open_fields` gives them, at one time: dims ``(variable, latitude,
            longitude)``.
        catalogue: ``time, latitude, longitude, kind``; those of this time are marked.
        title: of the figure, before its time.
    """
    time = pd.Timestamp(fields["time"].item())
    columns = min(2, fields.sizes["variable"])
    rows = -(-fields.sizes["variable"] // columns)
    figure = Picture(figsize=(5.6 * columns, 2.9 * rows + 0.7), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    window = Window.of(fields)
    here = None if catalogue is None else catalogue[catalogue["time"] == time]
    for axes, name in zip(panels.flat, fields["variable"].to_numpy(), strict=False):
        field = window.cut(fields.sel(variable=name).compute())
        values, units, signed = shown_values(field)
        limit = float(np.nanmax(np.abs(values))) if signed else None
        mesh = axes.pcolormesh(
            field["longitude"], field["latitude"], np.ma.masked_invalid(values),
            cmap=SIGNED if signed else UNSIGNED, vmin=None if limit is None else -limit,
            vmax=limit, shading="nearest",
        )  # fmt: skip
        figure.colorbar(mesh, ax=axes, label=units, shrink=0.9)
        draw_coastlines(axes, window)
        if here is not None:
            _marks(axes, here, window)
        axes.set(xlim=(window.west, window.east), ylim=(window.south, window.north), title=name)
    for axes in panels.flat[fields.sizes["variable"] :]:
        axes.set_axis_off()
    for axes in panels[-1]:
        axes.set_xlabel("longitude (degrees east)")
    for axes in panels[:, 0]:
        axes.set_ylabel("latitude (degrees north)")
    if here is not None:
        _legend(figure)
    figure.suptitle(f"{title or 'Fields'}, {time:%Y-%m-%d %H:%M} UTC")
    return figure


def shown_values(field: xr.DataArray) -> tuple[np.ndarray, str, bool]:
    """Values as people read them, their units, and whether zero lies in their middle.

    Args:
        field: of one variable, with the coordinate ``units``.
    """
    values, units = field.to_numpy().astype(float), str(field["units"].item())
    if units == "Pa":
        return values / 100.0, "hPa", False
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    signed = low < 0 < high
    size = max(abs(low), abs(high))
    power = int(np.floor(np.log10(size))) if size > 0 else 0
    if -3 < power < 5:
        return values, units, signed
    return values / 10.0**power, f"$10^{{{power}}}$ {units}", signed


def _marks(axes: Axes, entries: pd.DataFrame, window: Window) -> None:
    for kind, marker in MARKS.items():
        some = entries[entries["kind"] == kind]
        axes.scatter(
            window.longitudes(some["longitude"]), some["latitude"], marker=marker, s=55,
            facecolors="none", edgecolors=KIND_COLOURS[kind], linewidths=1.6, zorder=5,
            path_effects=[withStroke(linewidth=3.2, foreground="white")],
        )  # fmt: skip


def _legend(figure: Figure) -> None:
    handles = [
        Line2D(
            [], [], marker=marker, linestyle="none", markersize=8, markerfacecolor="none",
            markeredgecolor=KIND_COLOURS[kind], label=f"catalogue: {kind.replace('_', ' ')}",
        )
        for kind, marker in MARKS.items()
    ]  # fmt: skip
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)
