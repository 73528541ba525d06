"""An imbalanced set of images as a run folder: patch store, configuration, histogram."""

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

from data_pipelines.errors import InputError, unknown_name
from data_pipelines.image_files import DATASETS
from data_pipelines.images import Images, spare_images
from data_pipelines.store import open_store
from weather_tdr.config import Config, config_of_run
from weather_tdr.plots.canvas import save_figure
from weather_tdr.plots.training import histogram_figure
from weather_tdr.run import build
from weather_tdr.settings import read_yaml

log = logging.getLogger(__name__)
BAR = 40
VALIDATION = 5  # training samples for each of validation


def keep_apart(config: Config) -> None:
    """Keeps an imbalanced set out of the folder of a run on fields; tells what it replaces.

    Raises:
        InputError: the folder holds the configuration or the patch store of such a run.
    """
    path, store = config.folder / "config.yaml", config.folder / "patches.zarr" / "zarr.json"
    held = config_of_run(config.folder) if path.is_file() else config
    kept = json.loads(store.read_text()).get("attributes", {}) if store.is_file() else {}
    if not held.of_images or "dlat" in kept.get("grid", {}):
        raise InputError(
            f"{config.folder} must not hold a run on fields, got one, which the images would "
            "replace. Choose another `--name` or `--output`, or delete the folder."
        )
    if held.train != config.train:
        log.warning("warning: `train` in %s is replaced by the defaults", path)


def draw_imbalanced(
    *, name: str = "images", output: str = "runs", seed: int = 0, **images: Any
) -> tuple[Path, str]:
    """Writes OUTPUT/NAME with `patches.zarr`, `config.yaml` and `figures/histogram.png`.

    Args:
        name: of the run folder.
        output: folder of all runs.
        seed: of the draw.
        images: keys of `Images`; those left out keep their defaults, but for `validation_size`,
            which is a fifth of `train_size` in a binary set (or what is left, if less), and
            `train_size`, which is all that there is in the others.

    Returns:
        The folder, and the histogram of the training set as text.

    Raises:
        InputError: unknown or wrong settings, files that are not there, or a folder that holds a
            run on fields.
    """
    if images.get("dataset") == "none":
        raise unknown_name("`images.dataset`:", "none", DATASETS)
    overrides = [f"--{key}={value}" for key, value in images.items()]
    wanted = read_yaml(Images, None, overrides)
    binary = wanted.imbalance == "binary"
    for key in ("factor",) if binary else ("ratio", "minority", "majority"):
        if key in images:
            raise InputError(
                f"`{key}` must be left out where `imbalance` is `{wanted.imbalance}`, got "
                f"{images[key]}. "
                f"It is for {'`long_tailed` and `step`' if binary else '`binary`'}."
            )
    if binary and "validation_size" not in images:  # a detector chooses its threshold there
        fifth = -(-wanted.train_size // VALIDATION)
        size = min(fifth, spare_images(wanted) or fifth)  # where nothing is left, the draw says so
        wanted = replace(wanted, validation_size=size)
    if not binary and "train_size" not in images:
        wanted = replace(wanted, train_size=0)  # as the literature has it
    config = Config(name=name, output=output, seed=seed, images=wanted)
    keep_apart(config)
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
    if binary and not wanted.validation_size:
        lines.append("A detector chooses its threshold on validation, of which this set has none; "
                     "it is for `fit`.")  # fmt: skip
    elif binary:
        lines.append(f"Next: weather-tdr run {config.folder / 'config.yaml'}")
    else:
        lines.append("A detector takes binary sets only; sets of more classes are for "
                     "`weather-tdr benchmark`, or for `fit`.")  # fmt: skip
    return config.folder, "\n".join(lines)
