"""Pieces of the report that move: curves of training, and the map with a time slider (Bokeh)."""

import base64
import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr
from bokeh.layouts import column, row
from bokeh.models import (
    Button,
    ColorBar,
    ColumnDataSource,
    CustomJS,
    FixedTicker,
    HoverTool,
    LinearColorMapper,
    Range1d,
    Slider,
    UIElement,
)
from bokeh.plotting import figure
from matplotlib import colormaps
from matplotlib.colors import to_hex

from weather_tdr.coastlines import coastlines, unrolled
from weather_tdr.plots.canvas import COLOURS, colour_of
from weather_tdr.plots.maps import COLOURS as PROBABILITY_COLOURS
from weather_tdr.plots.maps import LEVELS
from weather_tdr.plots.scene import origin, strongest

MOST_VALUES = 25_000_000  # of all frames together, one byte each
PLAY_MS = 350
HOVER = {
    "probability": "probability {:.3g}",
    "pressure_hpa": "pressure {:.0f} hPa",
    "track_id": "track {:.0f}",
    "storm_id": "storm {}",
}


def training_curves(history: pd.DataFrame) -> UIElement:
    """The losses and the group weights over the steps.

    Args:
        history: as in `history.csv`.
    """
    losses = [c for c in ("loss", "target_loss") if c in history]
    weights = [str(c) for c in history if str(c).startswith("weight_")]
    loss = _lines(history, losses, "loss (nats)", "log")
    weight = _lines(history, weights, "group weight (1)", "linear")
    weight.x_range = loss.x_range
    return row(loss, weight, sizing_mode="stretch_width")


def _lines(history: pd.DataFrame, columns: Sequence[str], label: str, scale: str) -> figure:
    shown = figure(
        height=300, y_axis_type=scale, x_axis_label="step", y_axis_label=label,
        sizing_mode="stretch_width", tools="pan,wheel_zoom,box_zoom,reset",
    )  # fmt: skip
    for number, name in enumerate(columns):
        some = history[["step", name]].dropna()
        source = ColumnDataSource({"step": some["step"], "value": some[name]})
        line = shown.line(
            "step", "value", source=source, color=colour_of(number), line_width=2,
            legend_label=name.removeprefix("weight_").replace("_", " "),
        )  # fmt: skip
        tips = [("step", "@step"), (name.replace("_", " "), "@value{0.0000}")]
        shown.add_tools(HoverTool(renderers=[line], tooltips=tips))
    shown.toolbar.logo = None
    if columns:
        shown.legend.click_policy = "hide"
    return shown


def incident_map_view(
    probability: xr.DataArray, found: pd.DataFrame, truth: pd.DataFrame | None
) -> tuple[UIElement, int]:
    """The map of one time at a time, with a slider and a button that plays all.

    Args:
        probability: dims ``(time, latitude, longitude)``, at least two points each way.
        found: incidents found.
        truth: incidents of the catalogue with ``hit``, where known.

    Returns:
        What to embed, and how many points each way share a pixel (their highest is shown).
    """
    factor = max(1, int(np.ceil(np.sqrt(probability.size / MOST_VALUES))))
    if factor > 1:
        blocks = {"latitude": factor, "longitude": factor}
        regular = {
            axis: float(probability[axis][0])
            + float(probability[axis][1] - probability[axis][0])
            * ((factor - 1) / 2 + factor * np.arange(-(-probability.sizes[axis] // factor)))
            for axis in blocks
        }  # the last block may be cut short
        probability = probability.coarsen(blocks, boundary="pad").max().assign_coords(regular)
    probability = probability.sortby("latitude")
    times = pd.DatetimeIndex(probability["time"].to_numpy())
    west, south, width, height = _extent(probability)
    frames = _levels(probability.to_numpy())
    first = 0
    if len(found):
        first = int(times.get_indexer(pd.DatetimeIndex([strongest(found)["time"]]))[0])
    shape = frames.shape[1:]
    source = ColumnDataSource({"image": [frames[first]]})
    shown = figure(
        x_range=Range1d(start=west, end=west + width, bounds="auto"),
        y_range=Range1d(start=south, end=south + height, bounds="auto"),
        height=520, sizing_mode="stretch_width", title=f"{times[first]:%Y-%m-%d %H:%M} UTC",
        x_axis_label="longitude (degrees east)", y_axis_label="latitude (degrees north)",
        tools="pan,wheel_zoom,box_zoom,reset", active_scroll="wheel_zoom", name="map",
    )  # fmt: skip
    shown.toolbar.logo = None
    colours = colormaps[PROBABILITY_COLOURS](np.linspace(0.05, 1, len(LEVELS) - 1))
    palette = ["#ffffff", *(to_hex(c) for c in colours), "#bbbbbb"]
    mapper = LinearColorMapper(palette=palette, low=-0.5, high=len(LEVELS) + 0.5)
    shown.image("image", source=source, x=west, y=south, dw=width, dh=height, color_mapper=mapper)
    lines = [unrolled(line, west) for line in coastlines()]
    if lines:
        shown.multi_line(
            [line[:, 0].tolist() for line in lines], [line[:, 1].tolist() for line in lines],
            color="#888888", line_width=0.8,
        )  # fmt: skip
    everything = {"found": _marks(found, times, west)}
    of = "" if truth is None else origin(truth)
    if truth is not None:
        everything["hit"] = _marks(truth[truth["hit"].astype(bool)], times, west)
        everything["missed"] = _marks(truth[~truth["hit"].astype(bool)], times, west)
    looks = {
        "found": ("diamond", COLOURS[0], "found"),
        "hit": ("circle", "#000000", f"{of}, found"),
        "missed": ("x", "#000000", f"{of}, missed"),
    }
    here = {}
    for name, marks in everything.items():
        marker, colour, label = looks[name]
        shown_now = [k for k, t in enumerate(marks["step"]) if t in (-1, first)]
        now = {k: [values[n] for n in shown_now] for k, values in marks.items()}
        here[name] = ColumnDataSource(now)
        drawn = shown.scatter(
            "x", "y", source=here[name], marker=marker, size=14, line_color=colour,
            fill_color=None, line_width=2, legend_label=label,
        )  # fmt: skip
        shown.add_tools(HoverTool(renderers=[drawn], tooltips="@text"))
    shown.legend.click_policy = "hide"
    shown.legend.orientation = "horizontal"
    shown.legend.location = "center"
    shown.add_layout(shown.legend[0], "below")
    ticks = FixedTicker(ticks=[k + 0.5 for k in range(len(LEVELS))])
    names = {k + 0.5: f"{v:g}" for k, v in enumerate(LEVELS)}
    bar = ColorBar(
        color_mapper=LinearColorMapper(palette=palette[1:-1], low=0.5, high=len(LEVELS) - 0.5),
        ticker=ticks, major_label_overrides=names, title="probability (1)",
    )  # fmt: skip
    shown.add_layout(bar, "right")
    slider = Slider(
        start=0, end=max(len(times) - 1, 1), value=first, step=1, title="time step", name="time",
        sizing_mode="stretch_width",
    )  # fmt: skip
    packed = base64.b64encode(frames.tobytes()).decode()
    arguments = {
        "source": source, "shown": shown, "packed": packed, "rows": shape[0], "columns": shape[1],
        "times": [f"{t:%Y-%m-%d %H:%M} UTC" for t in times], "all": everything, "here": here,
    }  # fmt: skip
    slider.js_on_change("value", CustomJS(args=arguments, code=MOVE))
    play = Button(label="▶ play", width=90, name="play")
    play.js_on_event(
        "button_click",
        CustomJS(args={"slider": slider, "button": play, "wait": PLAY_MS}, code=PLAY),
    )
    controls = row(play, slider, sizing_mode="stretch_width")
    return column(controls, shown, sizing_mode="stretch_width"), factor


MOVE = """
if (!window.weather_tdr_frames) {
  const text = atob(packed);
  window.weather_tdr_frames = Uint8Array.from(text, (c) => c.charCodeAt(0));
}
const step = Math.min(cb_obj.value, times.length - 1);
const size = rows * columns;
const frame = window.weather_tdr_frames.slice(step * size, (step + 1) * size);
const image = source.data.image[0];
image.set(frame);
source.change.emit();
shown.title.text = times[step];
for (const name of Object.keys(here)) {
  const marks = all[name];
  const now = {};
  for (const key of Object.keys(marks)) {
    now[key] = marks[key].filter((_, k) => k === 0 || marks.step[k] === step);
  }
  here[name].data = now;
}
"""

PLAY = """
if (button.timer) {
  clearInterval(button.timer);
  button.timer = null;
  button.label = "▶ play";
} else {
  button.label = "❚❚ pause";
  button.timer = setInterval(() => {
    slider.value = slider.value >= slider.end ? slider.start : slider.value + 1;
  }, wait);
}
"""


def _levels(values: npt.NDArray[np.floating]) -> npt.NDArray[np.uint8]:
    """Number of the level that each probability reaches, one more for missing ones."""
    level = np.searchsorted(LEVELS[:-1], np.nan_to_num(values), side="right").astype(np.uint8)
    level[np.isnan(values)] = len(LEVELS)
    return np.asarray(level, dtype=np.uint8)


def _extent(field: xr.DataArray) -> tuple[float, float, float, float]:
    """West, south, width and height of all pixels, degrees."""
    edges = []
    for axis in ("longitude", "latitude"):
        values = field[axis].to_numpy().astype(float)
        spacing = (values[-1] - values[0]) / (len(values) - 1)
        edges.append((values[0] - spacing / 2, spacing * len(values)))
    (west, width), (south, height) = edges
    return west, south, width, height


def _marks(table: pd.DataFrame, times: pd.DatetimeIndex, west: float) -> dict[str, list[object]]:
    """Where the incidents lie on the map, when, and what they say."""
    texts = []
    for entry in table.to_dict("records"):
        parts = [f"{entry['latitude']:.1f} N, {entry['longitude']:.1f} E"]
        for key, form in HOVER.items():
            if key in entry and entry[key] != "" and pd.notna(entry[key]):
                parts.append(form.format(entry[key]))
        texts.append("; ".join(parts))
    steps = times.get_indexer(pd.DatetimeIndex(table["time"]))
    # The first lies nowhere: the legend draws its mark from it.
    return {
        "step": [-1, *map(int, steps)],
        "x": [math.nan, *((table["longitude"] - west) % 360.0 + west)],
        "y": [math.nan, *table["latitude"]],
        "text": ["", *texts],
    }
