"""An imbalanced set of images as a run folder: patch store, configuration, histogram."""

from pathlib import Path
from typing import Any

from data_pipelines.images import Images
from data_pipelines.store import open_store
from weather_tdr.config import Config
from weather_tdr.plots.canvas import save_figure
from weather_tdr.plots.training import histogram_figure
from weather_tdr.run import build
from weather_tdr.settings import read_yaml

BAR = 40


def draw_imbalanced(
    *, name: str = "images", output: str = "runs", seed: int = 0, **images: Any
) -> tuple[Path, str]:
    """Writes OUTPUT/NAME with `patches.zarr`, `config.yaml` and `figures/histogram.png`.

    Args:
        name: of the run folder.
        output: folder of all runs.
        seed: of the draw.
        images: keys of `Images`; those left out keep their defaults.

    Returns:
        The folder, and the histogram of the training set as text.

    Raises:
        InputError: unknown or wrong settings, or files that are not there.
    """
    overrides = [f"--{key}={value}" for key, value in images.items()]
    config = Config(name=name, output=output, seed=seed, images=read_yaml(Images, None, overrides))
    store = open_store(build(config))
    counts = store.attrs["counts"]
    save_figure(
        histogram_figure(counts, store.attrs["title"]), config.folder / "figures" / "histogram.png"
    )
    largest = max(counts["train"].values())
    width = max(map(len, counts["train"]))
    lines = [store.attrs["title"]]
    for label, n in counts["train"].items():
        bar = "#" * max(round(BAR * n / largest), 1)
        rest = ", ".join(f"{counts[s][label]} {s}" for s in counts if s != "train")
        lines.append(f"{label:>{width}} {n:6} {bar:{BAR}} ({rest})")
    return config.folder, "\n".join(lines)
