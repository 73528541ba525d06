"""Pictures of incident maps: one time, a sequence, a whole period that moves."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.animation import FuncAnimation, PillowWriter
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.colors import BoundaryNorm, Colormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.patheffects import withStroke
from tqdm import tqdm

from data_pipelines.writing import written_whole
from weather_tdr.coastlines import coastlines, unrolled
from weather_tdr.plots.canvas import Picture
from weather_tdr.plots.scene import Scene, Window, origin

# Rare incidents have small probabilities that matter; white below the first level.
LEVELS = (0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.6, 0.8, 1.0)
COLOURS, NO_MAP = "YlOrRd", "0.92"
FOUND, TRUE, MISSED = "#0072B2", "#000000", "#000000"
PANELS = 6
FRAMES_A_SECOND = 4
MOST_LABELS = 16
EDGE = 0.04  # of a panel, where no label of a contour has room


def incident_figure(scene: Scene, title: str = "") -> Figure:
    """The map of one time: whole domain above, around the strongest incident below.

    Args:
        scene: the time.
        title: of the figure.
    """
    figure = Picture(figsize=(11, 10), layout="constrained")
    above, below = figure.subplots(2, 1, height_ratios=[1, 1.1])
    close = Window.around(scene, scene.centre())
    draw_scene(above, scene, Window.whole(scene))
    mesh = draw_scene(below, scene, close, labels=True)
    for turn in (-360.0, 0.0, 360.0):  # the box may leave on one side and come in on the other
        above.add_patch(
            Rectangle(
                (close.west + turn, close.south),
                close.east - close.west,
                close.north - close.south,
                fill=False,
                edgecolor=FOUND,
            )
        )
    what = (
        "the strongest incident found"
        if len(scene.found)
        else "the highest probability (none found)"
    )
    below.set_title(f"around {what}", fontsize=10)
    below.set_xlabel("longitude (degrees east)")
    _colorbar(figure, mesh, [above, below])
    _legend(figure, [scene])
    figure.suptitle(title)
    return figure


def sequence_figure(scenes: Sequence[Scene], centre: tuple[float, float], title: str) -> Figure:
    """Panels of consecutive times around one place.

    Args:
        scenes: up to six times.
        centre: longitude and latitude of the middle.
        title: of the page.
    """
    columns = min(2, len(scenes))
    rows = -(-len(scenes) // columns)
    figure = Picture(figsize=(6.4 * columns + 0.6, 3.6 * rows + 1.0), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    window = Window.around(scenes[0], centre)
    mesh = None
    for axes, scene in zip(panels.flat, scenes, strict=False):
        mesh = draw_scene(axes, scene, window, labels=True)
        axes.set_title(f"{scene.time:%Y-%m-%d %H:%M} UTC", fontsize=10)
        axes.label_outer()
    for axes in panels.flat[len(scenes) :]:
        axes.set_axis_off()
    for axes in panels[-1]:
        axes.set_xlabel("longitude (degrees east)")
    assert mesh is not None
    _colorbar(figure, mesh, list(panels.flat))
    _legend(figure, scenes)
    figure.suptitle(title)
    return figure


def animate(
    scene: Callable[[int], Scene],
    steps: int,
    path: Path,
    title: str,
    *,
    dpi: int = 80,
    progress: bool = False,
) -> None:
    """A GIF of the whole domain over time.

    Args:
        scene: number of the time step -> what there is.
        steps: time steps.
        path: of the file to make.
        title: of every frame, before its time.
        dpi: pixels an inch; a frame is 11 inches wide.
        progress: shows a progress bar.
    """
    figure = Picture(figsize=(11, 6), layout="constrained")
    axes = figure.subplots()
    first = scene(0)
    window = Window.whole(first)
    _colorbar(figure, draw_scene(axes, first, window), [axes])
    _legend(figure, [first])

    def frame(number: int) -> list[QuadMesh]:
        now = scene(number)
        axes.clear()
        mesh = draw_scene(axes, now, window)
        axes.set_xlabel("longitude (degrees east)")
        axes.set_title(f"{title}, {now.time:%Y-%m-%d %H:%M} UTC")
        return [mesh]

    bar = tqdm(total=steps, desc=path.name, disable=not progress)
    with bar, written_whole(path, ".partial.gif") as partial:
        FuncAnimation(figure, frame, frames=steps, blit=False).save(
            partial,
            writer=PillowWriter(fps=FRAMES_A_SECOND),
            dpi=dpi,
            progress_callback=lambda *_: bar.update(),
        )


def draw_scene(axes: Axes, scene: Scene, window: Window, *, labels: bool = False) -> QuadMesh:
    """Probability, coastlines, pressure and incidents of one time on one pair of axes.

    Args:
        axes: to draw on.
        scene: the time.
        window: of the map.
        labels: whether pressure contours are labelled, every 5 hPa, or plain, every 10 hPa.
    """
    probability = window.cut(scene.probability)
    mesh = axes.pcolormesh(
        probability["longitude"],
        probability["latitude"],
        np.ma.masked_invalid(probability.to_numpy()),
        cmap=_colours(),
        norm=BoundaryNorm(LEVELS, _colours().N),
        shading="nearest",
    )
    axes.set_facecolor(NO_MAP)  # where there is no probability
    axes.set(xlim=(window.west, window.east), ylim=(window.south, window.north))
    axes.xaxis.set_major_formatter(_east)
    draw_coastlines(axes, window)
    if scene.pressure is not None:
        _contours(axes, window.cut(scene.pressure), labels=labels)
    if scene.trail is not None and len(scene.trail) > 1:
        x = window.longitudes(scene.trail["longitude"])
        axes.plot(x, scene.trail["latitude"], color=FOUND, linewidth=1.4, zorder=4)
    _marks(axes, scene.found, window, "D", FOUND, 80)
    if scene.truth is not None:
        hit = scene.truth.get("hit", pd.Series(True, index=scene.truth.index)).astype(bool)
        _marks(axes, scene.truth[hit], window, "o", TRUE, 110)
        _marks(axes, scene.truth[~hit], window, "X", MISSED, 70)
    axes.set_ylabel("latitude (degrees north)")
    axes.set_aspect("auto")
    axes.grid(color="0.9", linewidth=0.5)
    return mesh


def _east(degrees: float, _: object) -> str:
    """A longitude beside an axis, from -180 to 360 also on a map that goes beyond."""
    turned = degrees + 360.0 if degrees < -180.0 else degrees - 360.0 * (degrees > 360.0)
    return f"{turned:g}".replace("-", "\N{MINUS SIGN}")


def draw_coastlines(axes: Axes, window: Window) -> None:
    """Coastlines, where they are at hand."""
    for line in coastlines():
        axes.plot(*unrolled(line, window.west).T, color="0.55", linewidth=0.7)


def _colours() -> Colormap:
    from matplotlib import colormaps

    return colormaps[COLOURS].with_extremes(under="white", bad=NO_MAP)


def _contours(axes: Axes, pressure: xr.DataArray, *, labels: bool) -> None:
    if min(pressure.shape) < 2:
        return
    lines = axes.contour(
        pressure["longitude"],
        pressure["latitude"],
        pressure.to_numpy() / 100.0,
        levels=np.arange(880, 1090, 5 if labels else 10),
        colors="0.35",
        linewidths=0.6,
    )
    if labels:
        seen = np.asarray(lines.levels)
        low, high = float(pressure.min()) / 100.0, float(pressure.max()) / 100.0
        seen = seen[(seen >= low) & (seen <= high)]
        every = 2 if len(seen) <= MOST_LABELS else 4  # deep lows have close contours
        axes.clabel(lines, levels=seen[::every], fontsize=7, fmt="%d", inline_spacing=2)
        for text in lines.labelTexts[:]:  # one at the edge would be cut
            x, y = axes.transAxes.inverted().transform(
                axes.transData.transform(text.get_position())
            )
            if not (EDGE < x < 1 - EDGE and EDGE < y < 1 - EDGE):
                text.remove()


def _marks(
    axes: Axes, table: pd.DataFrame, window: Window, marker: str, colour: str, size: int
) -> None:
    filled = marker == "X"
    axes.scatter(
        window.longitudes(table["longitude"]),
        table["latitude"],
        marker=marker,
        s=size,
        facecolors=colour if filled else "none",
        edgecolors="white" if filled else colour,
        linewidths=0.8 if filled else 1.6,
        zorder=5,
        path_effects=[] if filled else [withStroke(linewidth=3.2, foreground="white")],
    )


def _colorbar(figure: Figure, mesh: QuadMesh, axes: list[Axes]) -> None:
    bar = figure.colorbar(mesh, ax=axes, label="probability of an incident (1)", shrink=0.8)
    bar.set_ticks(list(LEVELS), labels=[f"{v:g}" for v in LEVELS])


def _legend(figure: Figure, scenes: Sequence[Scene]) -> None:
    """What the marks mean, whether or not there is one of each at this time."""

    def mark(marker: str, colour: str, label: str) -> Line2D:
        filled = marker == "X"
        return Line2D(
            [], [], marker=marker, color=colour, label=label, linestyle="none", markersize=8,
            markerfacecolor=colour if filled else "none",
            markeredgecolor="white" if filled else colour,
        )  # fmt: skip

    handles: list[Artist] = [mark("D", FOUND, "found")]
    if any(s.trail is not None for s in scenes):
        handles.append(Line2D([], [], color=FOUND, label="track so far"))
    if any(s.truth is not None for s in scenes):
        truths = [s.truth for s in scenes if s.truth is not None]
        known, of = any("hit" in truth for truth in truths), origin(truths[0])
        handles.append(mark("o", TRUE, f"{of}, found" if known else of))
        if known:
            handles.append(mark("X", MISSED, f"{of}, missed"))
    if any(s.pressure is not None for s in scenes):
        handles.append(
            Line2D([], [], color="0.35", linewidth=0.8, label="sea-level pressure (hPa)")
        )
    handles.append(Patch(color=NO_MAP, label="no map"))
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)
