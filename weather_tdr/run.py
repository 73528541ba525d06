"""The whole line, one call a stage: build, train, evaluate with maps, compare."""

import json
import logging
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import xarray as xr
import yaml

from data_pipelines.build import build_store
from data_pipelines.cluster import Cluster
from data_pipelines.errors import InputError, NotResumable
from data_pipelines.fields import open_fields
from data_pipelines.image_store import image_settings, write_image_store
from data_pipelines.labelling import labelled_text
from data_pipelines.opening import files_of, is_url
from data_pipelines.quality import findings_of, unchecked
from data_pipelines.store import meanings, open_store, store_identity
from data_pipelines.survey import refuse_impossible
from data_pipelines.synthetic import write_synthetic
from data_pipelines.writing import alone_in, write_atomically
from weather_tdr import __version__, ranks
from weather_tdr.assess import evaluate_all
from weather_tdr.augment import augmentation
from weather_tdr.check.training import refuse_training
from weather_tdr.comparison import forget_evaluation, made_on_another
from weather_tdr.config import Config, load_config, save_config, settings_of_store
from weather_tdr.data import sample_table, samples_to_train
from weather_tdr.devices import pick_device
from weather_tdr.evaluate import predict
from weather_tdr.maps import Maps
from weather_tdr.methods.method import Method, load_method
from weather_tdr.model_files import commit, detector_from_store, load_detector, save_detector
from weather_tdr.models import PatchNet
from weather_tdr.plots.canvas import save_figure
from weather_tdr.plots.training import weight_history
from weather_tdr.products import draw_maps
from weather_tdr.scores import ranking_scores
from weather_tdr.train import fit

log = logging.getLogger(__name__)


def prepare(config: Config) -> None:
    """Makes the synthetic fields and catalogue of a run that has them, and points it at them."""
    config.use_synthetic()
    if config.synthetic.days == 0:
        return
    folder = config.folder / "synthetic"
    settings = folder / "settings.yaml"
    wanted = yaml.safe_dump(asdict(config.synthetic))
    if not (settings.is_file() and settings.read_text() == wanted):
        log.info("making %d days of synthetic reanalysis", config.synthetic.days)
        write_synthetic(config.synthetic, folder)
        write_atomically(settings, wanted)


def build(config: Config, *, progress: bool = True) -> Path:
    """Builds the patch store of a run; returns its path. Warns of networks of an older store.

    Raises:
        InputError: bad input or settings, those of a training that would be refused among them.
    """
    refuse_training(config)
    with alone_in(config.folder) if config.folder.is_dir() else nullcontext():
        return _build(config, progress)


def _build(config: Config, progress: bool) -> Path:
    path = config.folder / "patches.zarr"
    if config.of_images:
        write_image_store(path, config.images, config.seed)
    else:
        if not config.patches.whole_field:
            PatchNet(1, config.patches.size, config.patches.stride)  # refuses what it cannot take
        prepare(config)
        build_store(
            path,
            config.fields,
            config.incidents,
            config.patches,
            config.splits,
            groups=config.groups,
            seed=config.seed,
            quality=config.quality,
            cluster=config.cluster,
            progress=progress,
        )
    save_config(config)
    if older := made_on_another(config.folder, store_identity(open_store(path).attrs)):
        log.warning(
            "warning: %s in %s was made on another store: train again, or give this "
            "one another `name`.", ", ".join(older), config.folder,
        )  # fmt: skip
    return path


def train_all(
    config: Config, *, resume: bool = False, or_anew: bool = False, progress: bool = True
) -> list[Path]:
    """Trains every method of a run on its patch store; returns their folders.

    `resume` goes on from checkpoints, with `or_anew` anew where one is of other settings.
    In a process group of `torch.distributed` all ranks call it, and rank 0 writes.
    """
    refuse_training(config)
    writes = ranks.rank() == 0
    device = pick_device(config.train.device, ranks.place())
    store = open_store(config.folder / "patches.zarr", verify=True)  # training reads it all anyway
    if config.of_images:
        wanted = image_settings(config.images, config.seed)
    else:
        wanted = settings_of_store(config)
    if store.attrs["settings"] != wanted:
        raise InputError(
            f"the patch store of {config.folder} was built with other settings. "
            "Run `weather-tdr build CONFIG` first, or restore the settings."
        )
    if len(meanings(store, "label")) > 2:
        raise InputError(
            f"`images.imbalance` must be binary for a detector, got {config.images.imbalance}. "
            "Sets of more classes are for `weather-tdr benchmark`."
        )
    with alone_in(config.folder) if writes else nullcontext():
        if writes:
            save_config(config)
        return _train_all(config, store, device, resume=resume, or_anew=or_anew, progress=progress)


def _train_all(
    config: Config, store: xr.Dataset, device: torch.device,
    *, resume: bool, or_anew: bool, progress: bool,
) -> list[Path]:  # fmt: skip
    identity = store_identity(store.attrs)
    train_set, target_set = samples_to_train(store, device)
    validation = sample_table(store, "validation")["label"].to_numpy()

    def validate(network: torch.nn.Module) -> float:
        score = ranking_scores(predict(network, store, "validation"), validation)
        return score["average_precision"]

    folders = []
    for method in map(load_method, config.train.methods):
        folder = config.folder / method.name
        architecture = {
            "variables": store.sizes["variable"],
            "size": store.attrs["grid"]["size"],
            "stride": store.attrs["grid"]["stride"],
            "width": config.train.width,
            "dropout": config.train.dropout,
        }
        steps = config.train.steps_of(len(train_set))
        log.info("training `%s` for %d steps on %s", method.name, steps, device)
        for goes_on in (True, False) if resume and or_anew else (resume,):
            torch.manual_seed(config.train.seed)
            model = PatchNet(**architecture).to(device)
            with suppress(NotResumable) if goes_on and or_anew else nullcontext():
                history = fit(
                    model,
                    train_set,
                    target_set,
                    method,
                    config.train,
                    folder=folder,
                    augment=augmentation(config.train.augment, store),
                    validate=validate,
                    names=meanings(store, "label" if method.weights_per == "class" else "group"),
                    identity=identity,
                    resume=goes_on,
                    progress=progress,
                )
                break
        folders.append(folder)
        if ranks.rank() > 0:
            continue
        detector = detector_from_store(model, architecture, store, method.name)
        detector.facts = {
            "version": __version__,
            "commit": commit(),
            "store": identity,
            "data": method.data,
            "label": labelled_text(store.attrs["settings"]),
            "step": history.attrs["step"],
            "training": training_facts(config, method),
        }
        forget_evaluation(folder)  # of the network that was there before
        save_detector(detector, folder)
        figure = weight_history({method.name: history}, f"Training of {config.name}")
        save_figure(figure, folder / "figures" / "weights.png")
    return folders


def training_facts(config: Config, method: Method) -> dict[str, Any]:
    """All that decides a training on one patch store; JSON values."""
    return {**asdict(config.train), "methods": asdict(method)}


def run(config: Config, *, resume: bool = False, progress: bool = True) -> pd.DataFrame:
    """Build, train, evaluate and map; returns the comparison."""
    pick_device(config.train.device, ranks.place())  # refuses what is not there before the build
    build(config, progress=progress)
    train_all(config, resume=resume, progress=progress)
    return evaluate_all(config, progress=progress)


def maps_of(folder: Path) -> Maps:
    """The settings of maps of the run that a method belongs to, or the defaults without a run."""
    has_run = (folder.resolve().parent / "config.yaml").is_file()
    return load_config(folder).maps if has_run else Maps()


def _keep_apart(folder: Path, first: str | Path) -> str:
    """Keeps other files of the same name out of a default folder, and gives the note of its map.

    Raises:
        InputError: it holds the map of another file, such as 2020/msl.nc where 2021/msl.nc comes.
    """
    note, source = folder / "map.json", str(first if is_url(first) else Path(first).resolve())
    held = json.loads(note.read_text())["fields"] if note.is_file() else source
    if held != source:
        raise InputError(
            f"{folder} holds the map of {held}, got {source}. Name another folder as `output` "
            "(`--output`), or delete it."
        )
    return json.dumps({"fields": source}, indent=2) + "\n"


def map_fields(
    folder: Path,
    paths: Sequence[str],
    output: Path | None = None,
    *,
    period: str = "",
    maps: Maps | None = None,
    threshold: float | None = None,
    cluster: Cluster | None = None,
    progress: bool = True,
) -> Path:
    """Incident map of new fields with a trained method; returns the folder with the results.

    Args:
        folder: of the method, ``runs/NAME/METHOD``.
        paths: NetCDF files or a Zarr store.
        output: for the results, by default ``RUN/maps/FILE``, or ``RUN/maps/FILE_FIRST_LAST``.
        period: FIRST/LAST: the only times to map.
        maps: how; by default as in the run.
        threshold: probability from which on a peak (or region) is an incident; by default that
            which evaluation chose on validation.
        cluster: where; by default here.
        progress: shows a progress bar.

    Raises:
        InputError: the method has not been evaluated, so that it has no threshold, or that given
            is no probability. Or the default folder holds the map of another file.
    """
    if threshold is not None and not 0 < threshold < 1:
        raise InputError(
            f"`threshold` must be a probability, above 0 and below 1, got {threshold}. Leave it "
            "out for that of the evaluation."
        )
    detector = load_detector(folder)
    if np.isnan(detector.incident_threshold):
        raise InputError(
            f"RUN must have a threshold, got {folder} before evaluation by this release. "
            f"Run `weather-tdr evaluate {folder}` first."
        )
    if "dlat" not in detector.grid:
        raise InputError(
            f"RUN must have been trained on fields, got {folder}, trained on images. "
            "Images have no map."
        )
    if threshold is not None:
        detector.incident_threshold = threshold
    fields = open_fields(
        list(paths), **detector.open_arguments(), period=period, name_of_period="period"
    )
    for found in findings_of(fields):
        log.warning("%s", found.line())
    for line in unchecked(fields):
        log.warning("%s", line)
    refuse_impossible(fields)
    note = ""
    if output is None:
        name = "_".join([Path(files_of(paths)[0]).stem, *period.replace(":", "").split("/")])
        output = folder / "maps" / name.rstrip("_")
        note = _keep_apart(output, files_of(paths)[0])
    maps = maps or maps_of(folder)
    draw_maps(detector, fields, output, maps, cluster=cluster, progress=progress)
    if note:
        write_atomically(output / "map.json", note)
    return output
