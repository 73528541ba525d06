"""Patches of each group beside each other."""

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.figure import Figure

from weather_tdr.plots.canvas import Picture
from weather_tdr.plots.fields import SIGNED, UNSIGNED, shown_values


def patches_figure(examples: xr.Dataset, variable: str = "", title: str = "") -> Figure:
    """Some patches, a row a group, all on one colour scale.

    Args:
        examples: some samples of a patch store, as `Run.examples` gives them: ``patches (sample,
            variable, y, x)``, ``time``, ``latitude``, ``longitude`` and the text ``group_name``.
        variable: which one to show; the first by default.
        title: of the figure.
    """
    variable = variable or str(examples["variable"].values[0])
    values, units, signed = shown_values(examples["patches"].sel(variable=variable))
    names = list(dict.fromkeys(map(str, examples["group_name"].to_numpy())))
    of_group = {n: np.flatnonzero(examples["group_name"].to_numpy() == n) for n in names}
    columns = max(map(len, of_group.values()))
    figure = Picture(figsize=(1.55 * columns + 1.6, 1.85 * len(names) + 0.6), layout="constrained")
    panels = figure.subplots(len(names), columns, squeeze=False)
    high = float(np.nanpercentile(np.abs(values) if signed else values, 99.5))
    low = -high if signed else float(np.nanpercentile(values, 0.5))
    mesh = None
    for row, name in zip(panels, names, strict=True):
        for axes in row:
            axes.set_xticks([])
            axes.set_yticks([])
            axes.set_visible(False)
        for axes, k in zip(row, of_group[name], strict=False):
            axes.set_visible(True)
            mesh = axes.imshow(values[k], cmap=SIGNED if signed else UNSIGNED, vmin=low, vmax=high)
            axes.set_title(_where(examples.isel(sample=k)), fontsize=7)
        row[0].set_ylabel(name.replace("_", " "), fontsize=10)
    if mesh is not None:
        figure.colorbar(mesh, ax=list(panels.flat), label=units, shrink=0.7, extend="both")
    figure.suptitle(title or f"{variable}: patches of each group, north above")
    return figure


def _where(sample: xr.Dataset) -> str:
    time = pd.Timestamp(sample["time"].item())
    if pd.isna(time):
        return ""
    latitude, longitude = (float(sample[k]) for k in ("latitude", "longitude"))
    side = "N" if latitude >= 0 else "S"
    return f"{time:%Y-%m-%d %H} UTC\n{abs(latitude):.0f} {side}, {longitude:.0f} E"
