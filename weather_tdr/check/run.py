"""Whether a run will work, told in seconds, before anything is computed; nothing is written."""

import dataclasses

import numpy as np

from data_pipelines.build import store_attributes
from data_pipelines.errors import InputError
from data_pipelines.image_store import counts_of_sets, stride_of
from data_pipelines.images import make_image_sets
from data_pipelines.schema import SPLITS
from data_pipelines.store import same_build
from weather_tdr.check.machine import check_disk, check_memory, check_training, check_workers
from weather_tdr.check.plan import check_plan
from weather_tdr.check.training import training_errors
from weather_tdr.config import Config
from weather_tdr.facts import Facts
from weather_tdr.models import PatchNet

LEARNED = [SPLITS.index("train"), SPLITS.index("target")]


def check_config(config: Config) -> Facts:
    """Checks a run without computing or writing anything.

    Args:
        config: as `read_config` gives it.

    Returns:
        What the run will hold and take, in rows; warnings; and errors, any of which would stop
        it. Errors that depend on each other are found one after the other.
    """
    facts = Facts()
    _check_run(config, facts)
    for error in training_errors(config):
        facts.fail(error)
    return facts


def _check_run(config: Config, facts: Facts) -> None:
    """Adds what the inputs of a run foretell, up to an error that hides the rest."""
    exists = " (exists)" if config.folder.is_dir() else ""
    facts.add("run folder", f"{config.folder}{exists}")
    if config.of_images:
        _check_images(config, facts)
        return
    if config.synthetic.days > 0:
        config = dataclasses.replace(config, fields=dataclasses.replace(config.fields),
                                     incidents=dataclasses.replace(config.incidents))  # fmt: skip
        config.use_synthetic()
        if not (config.folder / "synthetic" / "settings.yaml").is_file():
            facts.add("fields", f"synthetic, {config.synthetic.days} days, made by the build")
            facts.warn(
                "the synthetic fields are not made yet, so that nothing about them is checked."
            )
            check_workers(config.cluster, facts)
            return
    planned = check_plan(config, facts)
    check_workers(config.cluster, facts)
    if planned is None:
        return
    plan, codes = planned
    store = config.folder / "patches.zarr"
    job = plan.job(store)
    check_disk(config.folder, plan.patch_bytes(store), len(codes), facts)
    learned = int(np.isin(codes, LEARNED).sum())
    check_memory(learned * int(np.prod(job.shape)) * 4, facts)
    if store.is_dir():
        attributes = store_attributes(
            config.fields,
            config.incidents,
            config.patches,
            config.splits,
            config.groups,
            config.seed,
            plan.fields,
        )
        same = same_build(store, attributes)
        facts.add("store", "is there, up to date" if same else
                  "is there, of other settings or inputs; the build replaces it")  # fmt: skip
    model = PatchNet(
        job.shape[0], job.shape[1:], config.patches.stride, config.train.width, config.train.dropout
    )
    train = int((codes == LEARNED[0]).sum())
    check_training(model, job.shape, config.train, train, facts)


def _check_images(config: Config, facts: Facts) -> None:
    images = config.images
    try:
        sets = make_image_sets(dataclasses.replace(images, download=False), config.seed)
    except InputError as error:
        if images.download:
            facts.warn(f"{error} The build will try to fetch what is missing.")
        else:
            facts.fail(error)
        return
    facts.add("images", f"{images.title}, imbalance {images.degree:g}")
    counts = counts_of_sets(sets)
    for split, of_classes in counts.items():
        told = ", ".join(f"{n} {name}" for name, n in of_classes.items())
        facts.add("samples" if split == "train" else "", f"{split:10}  {told}")
    if len(sets.classes) > 2:
        facts.fail(
            f"`images.imbalance` must be binary for a detector, got {images.imbalance}. "
            "Sets of more classes are for `weather-tdr benchmark`."
        )
    for split, of_classes in counts.items():
        if not sum(of_classes.values()):
            facts.fail(f"split `{split}` must hold samples, got none. Set `images.{split}_size`.")
    pixels = sets.train[0]
    shape = pixels.shape[1:]
    samples = sum(sum(c.values()) for c in counts.values())
    learned = sum(sum(counts[s].values()) for s in ("train", "target"))
    check_disk(config.folder, samples * int(np.prod(shape)) * pixels.itemsize, samples, facts)
    check_memory(learned * int(np.prod(shape)) * 4, facts)
    if not facts.errors:
        model = PatchNet(
            shape[0], shape[1], stride_of(shape[1]), config.train.width, config.train.dropout
        )
        check_training(model, shape, config.train, len(sets.train[1]), facts)
