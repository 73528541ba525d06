"""What `fit` is given, made ready: arrays as tensors of the network's type, and checked."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from data_pipelines.errors import InputError
from weather_tdr import ranks
from weather_tdr.augment import Augment
from weather_tdr.data import Batch, Samples, StoredSamples, in_parts
from weather_tdr.devices import eager, evaluating
from weather_tdr.methods.method import Method
from weather_tdr.methods.tdr import Tdr
from weather_tdr.photographs import crop_flip, shift
from weather_tdr.train_settings import Train


def ready(model: nn.Module, train: Any, target: Any) -> tuple[Samples, Samples]:
    """Train and target as samples that the network takes.

    Args:
        model: the network.
        train: samples, or a tuple of arrays: inputs, labels and (if they are not the labels)
            groups; of torch, numpy or xarray.
        target: likewise.

    Raises:
        InputError: they are no samples, or do not fit each other or the network.
    """
    if not any(p.requires_grad for p in model.parameters()):
        raise InputError(
            "the network must have parameters to train, got none with `requires_grad`. Set it."
        )
    both = {"train": _samples("train", train), "target": _samples("target", target)}
    like = next((p for p in model.parameters() if p.is_floating_point()), None)
    for name, samples in both.items():
        if isinstance(samples, Batch):
            patches = samples.patches
            if patches.is_floating_point() and like is not None:
                patches = patches.to(like.dtype)
            if isinstance(both["train"], Batch):  # may lie on a GPU
                patches = patches.to(both["train"].patches.device)
            both[name] = Batch(patches, samples.labels.cpu(), samples.groups.cpu())
    first = {name: samples[torch.arange(min(2, len(samples)))] for name, samples in both.items()}
    shapes = {name: tuple(few.patches.shape[1:]) for name, few in first.items()}
    if len(set(shapes.values())) > 1:
        raise InputError(
            f"`target` must have inputs of the shape of `train`, {shapes['train']} a sample, got "
            f"{shapes['target']}."
        )
    _check_labels(model, first["train"], both)
    return both["train"], both["target"]


def folder_made(folder: Path | str | None) -> Path | None:
    """The folder, which then exists.

    Raises:
        InputError: it cannot be made.
    """
    if folder is None:
        return None
    path = Path(folder).expanduser()
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"`folder` must be a folder to write into, got {path} ({error.strerror}). Choose "
            "another."
        ) from error
    return path


def _samples(name: str, data: Any) -> Samples:
    if isinstance(data, Batch | StoredSamples):
        return data
    if not isinstance(data, tuple | list):
        raise InputError(
            f"`{name}` must be a tuple of inputs and labels, got {type(data).__name__}. Give every "
            "method a small, balanced target set; those that do not use it leave it alone."
        )
    return Batch.of(tuple(data))


def _check_labels(model: nn.Module, few: Batch, both: dict[str, Samples]) -> None:
    """Refuses labels that are no numbers of the network's outputs."""
    device = next(model.parameters()).device
    with torch.no_grad(), eager(model), evaluating(model):
        try:
            logits = model(few.patches.to(device))
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            raise InputError(
                f"the network must take inputs of shape {tuple(few.patches.shape)} and type "
                f"{few.patches.dtype}, which it refuses: {' '.join(str(error).split())}. Give "
                "inputs of the shape that it is made for, integers as floating-point numbers."
            ) from error
    if not isinstance(logits, Tensor):
        raise InputError(
            f"the network must give a tensor of logits, got {type(logits).__name__}. Wrap it in a "
            "module that gives the logits alone."
        )
    shape = tuple(logits.shape)
    if len(shape) != 2 or shape[0] != len(few):
        raise InputError(
            f"the network must give logits of shape (n, classes), got {shape} for {len(few)} "
            "samples. Give it an output a class, also for two classes."
        )
    for name, samples in both.items():
        low, high = (int(v) for v in samples.labels.aminmax())
        if low < 0 or high >= shape[1]:
            raise InputError(
                f"labels of `{name}` must be 0 to {shape[1] - 1}, as the network has {shape[1]} "
                f"outputs, got {low} to {high}. Number the classes from 0, or give it more outputs."
            )


def refuse_own(rule: Tdr, number: int) -> None:
    """Refuses what `fit` decides.

    Raises:
        InputError: names it.
    """
    if rule.groups not in (0, number):
        raise InputError(
            f"`Tdr.groups` must be the number of groups of the samples, got {rule.groups} for "
            f"{number}. Leave it out."
        )
    given = {
        "learning_rate": rule.learning_rate,
        "l2": rule.l2,
        "steps_in_all": rule.steps_in_all,
        "optimizer": rule.optimizer is not None,
        "weights": (rule.groups == 0 and len(rule.weights) > 0) or rule.steps > 0,
    }
    if own := [name for name, value in given.items() if value]:
        raise InputError(
            f"`Tdr` must have only `settings` and `loss` in `fit`, got also {', '.join(own)}, "
            "which `fit` takes from its own settings. Leave them out."
        )


def by_weight(
    train: Samples, target: Samples, method: Method, names: tuple[str, ...] = ()
) -> tuple[Samples, Samples, tuple[str, ...]]:
    """The samples with the groups that weights belong to: classes, or the groups that occur.

    Args:
        train: training samples.
        target: the target set.
        method: decides by `weights_per`.
        names: of all groups; by default numbers.

    Returns:
        Train and target with groups 0, 1, ... that all occur, and the names of these.

    Raises:
        InputError: a negative group, a name twice, or names of groups in place of classes.
    """
    names = tuple(map(str, names))
    if method.weights_per == "class":
        groups, classes = (
            1 + max(int(getattr(b, what).max()) for b in (train, target))
            for what in ("groups", "labels")
        )
        if len(names) == groups > classes:
            raise InputError(
                f"`names` must name the {classes} classes, to which the weights of "
                f"`{method.name}` belong, got {', '.join(names)}, as many as there are groups. "
                "Name the classes."
            )
        train, target = (b.with_groups(b.labels) for b in (train, target))
    present = torch.unique(torch.cat([train.groups, target.groups]))
    if int(present.min()) < 0:
        raise InputError(
            f"groups must be numbered from 0, got {int(present.min())}. Number them anew."
        )
    if names and int(present.max()) >= len(names):
        raise InputError(
            f"`names` must name each of the {int(present.max()) + 1} groups, got "
            f"{', '.join(names)}. Add the others, or leave `names` out."
        )
    known = bool(names)
    told = tuple(names[int(k)] if known else str(int(k)) for k in present)
    if len(set(told)) < len(told):
        raise InputError(f"`names` of the groups must differ, got {', '.join(told)}. Rename some.")
    train, target = (b.with_groups(torch.searchsorted(present, b.groups)) for b in (train, target))
    return train, target, told


def check_groups(train: Samples, target: Samples, names: tuple[str, ...]) -> None:
    """Refuses a target set that cannot steer.

    Raises:
        InputError: one group only, or a group that the target set or train lacks.
    """
    if len(names) < 2:
        raise InputError(
            f"steering needs at least two groups, got one (`{names[0]}`). "
            "Use `uniform`, or label more groups."
        )
    for what, batch in (("the target set", target), ("train", train)):
        absent = [n for k, n in enumerate(names) if not (batch.groups == k).any()]
        if absent:
            raise InputError(
                f"{what} must hold every group, got none of {', '.join(absent)}. "
                "Add some: raise `splits.target_per_group`, or use a longer period."
            )


def check_overlap(train: Samples, target: Samples) -> None:
    """Refuses a target set that shares samples with train.

    Raises:
        InputError: names the first such sample.
    """
    held = {values: j for j, values in enumerate(_values(target))}
    for i, values in enumerate(_values(train)):
        if values in held:
            raise InputError(
                "the target set must share no sample with train, got sample "
                f"{held[values]} of it that is sample {i} of train. Take it out of one of them."
            )


def _values(samples: Samples) -> Iterator[bytes]:
    """The inputs of each sample, as the bytes of its numbers."""
    for part in in_parts(samples):
        flat = part.patches.cpu().reshape(len(part), -1)
        zero = torch.zeros((), dtype=flat.dtype)  # -0 + 0 is 0
        for row in (flat + zero).view(torch.uint8).numpy():
            yield row.tobytes()


def settings_of(given: Any) -> Train:
    """The settings, by default those of `Train`.

    Raises:
        InputError: something else was given.
    """
    if given is not None and not isinstance(given, Train):
        raise InputError(
            f"`settings` must be `Train(...)`, got {type(given).__name__}. Write "
            "`Train(steps=1000, batch=64)`, or leave it out."
        )
    return given or Train()


def settings_met(
    settings: Train, augment: Augment | None, validate: Callable[[nn.Module], float] | None
) -> Augment | None:
    """The augmentation, when the settings can be met with what was given.

    Raises:
        InputError: they cannot.
    """
    if validate is None and (settings.choose == "best" or settings.patience):
        raise InputError(
            "`train.choose: best` and `train.patience` need a score on validation, got none. "
            "Pass `validate`, or set them to `last` and 0."
        )
    if settings.batch < ranks.number():
        raise InputError(
            f"`train.batch` must hold a sample for each process, got {settings.batch} for "
            f"{ranks.number()}. Start fewer."
        )
    if augment is None and settings.augment != "none":
        needed = {
            "mirror": ("the variables", "`augment=augmentation('mirror', store)`"),
            "strong": ("mean and deviation of each channel", "`augment=Strong(mean, std)`"),
        }
        if settings.augment in needed:
            what, how = needed[settings.augment]
            where = "augment" if settings.augment == "mirror" else "photographs"
            raise InputError(
                f"`train.augment: {settings.augment}` needs to know {what}, got only samples. Pass "
                f"{how} of `weather_tdr.{where}`."
            )
        return crop_flip if settings.augment == "crop_flip" else shift
    return augment
