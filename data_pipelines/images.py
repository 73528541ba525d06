"""Imbalanced sets of images: binary, long-tailed and step imbalance, drawn by a seed.

Binary, as in the reference implementation of TDR: with M majority and m minority classes

    n_majority = train / (M + m (1 - ratio)),   n_minority = n_majority (1 - ratio)

samples a class. Long-tailed (Cui et al. 2019): class i of K has n_i = n_0 IF^(-i / (K - 1)). Step
(Cao et al. 2019): the first half of the classes has n_0, the rest n_0 / IF. The target set shares
no sample with train or validation: copies of its images are left out of these, and others drawn.
"""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from data_pipelines.errors import InputError, check_kinds, unknown_name
from data_pipelines.image_data import ImageData, Labels, Pixels
from data_pipelines.image_files import DATASETS, read_images
from data_pipelines.schema import IntArray

Part = tuple[Pixels, Labels]


@dataclass
class Images:
    """Which images, and how imbalanced.

    Attributes:
        dataset: `mnist`, `fashion_mnist`, `cifar10`, `cifar10_jpeg`, `cifar100`, or `digits`
            (needs no file); `none` for a run on fields.
        folder: where its files lie; empty for the usual places.
        download: fetches files that are missing.
        imbalance: `binary`: some classes against others; `long_tailed` or `step`: all classes.
        minority: binary: classes that become the rare class (label 1).
        majority: binary: classes that become the frequent class (label 0).
        ratio: binary: 1 - n_minority / n_majority, in [0, 1).
        factor: long-tailed and step: largest over smallest class (IF), at least 1.
        train_size: binary: training samples; otherwise those of the largest class, 0 for all that
            target set and validation leave of the class with the fewest images.
        target_size: samples of the target set, the same number of each class (binary: side);
            rounded up where it does not divide.
        validation_size: training images that neither train nor target holds, the same number of
            each class.
        test_size: test images of these classes, drawn at random; 0 is all.
    """

    dataset: str = "digits"
    folder: str = ""
    download: bool = False
    imbalance: Literal["binary", "long_tailed", "step"] = "binary"
    minority: list[int] = field(default_factory=lambda: [4])
    majority: list[int] = field(default_factory=lambda: [9])
    ratio: float = 0.9
    factor: float = 100.0
    train_size: int = 100
    target_size: int = 10
    validation_size: int = 0
    test_size: int = 0

    def __post_init__(self) -> None:
        """Checks the numbers.

        Raises:
            InputError: an unknown name, a number out of range, or a class on both sides.
        """
        check_kinds(self, "images.")
        if self.dataset not in (*DATASETS, "none"):
            raise unknown_name("`images.dataset`:", self.dataset, DATASETS)
        if not 0 <= self.ratio < 1:
            raise InputError(f"`images.ratio` must be at least 0 and below 1, got {self.ratio}.")
        if not self.factor >= 1:
            raise InputError(f"`images.factor` must be at least 1, got {self.factor}.")
        for name in ("train_size", "validation_size", "test_size"):
            if getattr(self, name) < 0:
                raise InputError(
                    f"`images.{name}` must not be negative, got {getattr(self, name)}."
                )
        if self.target_size < 1:
            raise InputError(f"`images.target_size` must be positive, got {self.target_size}.")
        sides = [*self.minority, *self.majority]
        if len(set(sides)) < len(sides) or not self.minority or not self.majority:
            raise InputError(
                "`images.minority` and `images.majority` must be different classes, got "
                f"{self.minority} and {self.majority}."
            )

    @property
    def degree(self) -> float:
        """How imbalanced: the ratio, or the imbalance factor."""
        return self.ratio if self.imbalance == "binary" else self.factor

    @property
    def place(self) -> str:
        """The degree in names of files."""
        return f"{self.degree:g}"

    @property
    def title(self) -> str:
        """Data set and kind of imbalance, for tables."""
        if self.imbalance == "binary":
            sides = [",".join(map(str, side)) for side in (self.minority, self.majority)]
            return f"{self.dataset} {sides[0]} against {sides[1]}"
        return f"{self.dataset} {self.imbalance.replace('_', '-')}"


@dataclass(frozen=True)
class ImageSets:
    """Images (n, channel, y, x) uint8 with their labels (n,), for each split.

    Attributes:
        train: imbalanced.
        target: balanced, disjoint from train.
        validation: other training images; may be empty.
        test: test images.
        classes: name of each label.
        brightest: value of a pixel that means 1.
    """

    train: Part
    target: Part
    validation: Part
    test: Part
    classes: tuple[str, ...]
    brightest: int


def class_sizes(images: Images, available: list[int]) -> list[int]:
    """Training samples of each class of the data set.

    Args:
        images: the settings.
        available: training images of each class that target set and validation leave.
    """
    number = len(available)
    if images.imbalance == "binary":
        rest = 1.0 - images.ratio
        majority = images.train_size / (len(images.majority) + len(images.minority) * rest)
        sizes = dict.fromkeys(images.majority, round(majority))
        sizes |= dict.fromkeys(images.minority, round(majority * rest))
        return [sizes.get(k, 0) for k in range(number)]
    largest = images.train_size or min(available)
    if images.imbalance == "step":
        few = int(largest / images.factor)
        return [largest if k < number - number // 2 else few for k in range(number)]
    return [int(largest * images.factor ** (-k / (number - 1))) for k in range(number)]


def spare_images(images: Images) -> int:
    """Training images, balanced over the classes, that train and target set leave; at least 0."""
    data = read_images(images.dataset, images.folder, images.download)
    labels, _ = _labels(images, data)
    kept = [int(k) for k in np.flatnonzero(labels >= 0)]
    per_class = _target_sizes(images, kept)
    left = np.bincount(data.train[1], minlength=len(labels))
    for k in kept:
        left[k] -= per_class[k]
    left -= class_sizes(images, left.tolist())
    return max(int(left[kept].min()), 0) * len(kept)


def make_image_sets(images: Images, seed: int) -> ImageSets:
    """The imbalanced training set, the balanced target set, validation and test of a seed.

    Raises:
        InputError: a class that is not there, or too few images of one.
    """
    if images.dataset == "none":
        raise InputError("`images.dataset` must name a data set, got `none`.")
    data = read_images(images.dataset, images.folder, images.download)
    labels, names = _labels(images, data)
    rng = np.random.default_rng([seed, 7])
    classes = data.train[1]
    kept = [int(k) for k in np.flatnonzero(labels >= 0)]
    per_class = _target_sizes(images, kept)
    held = -(-images.validation_size // len(kept))
    orders = {k: rng.permutation(np.flatnonzero(classes == k)) for k in kept}
    targets = {k: order[: per_class[k]] for k, order in orders.items()}
    rests = _no_copies(data, targets, {k: order[per_class[k] :] for k, order in orders.items()})
    sizes = class_sizes(images, [len(rests.get(k, ())) - held for k in range(len(labels))])
    changes = "ratio" if images.imbalance == "binary" else "factor"
    parts: dict[str, list[IntArray]] = {"train": [], "target": [], "validation": []}
    for k in kept:
        size, rest = sizes[k], rests[k]
        if size < 1 or len(rest) < size + held:
            copies = len(orders[k]) - len(targets[k]) - len(rest)
            also = f", {copies} of them copies of target images" if copies else ""
            raise InputError(
                f"class {k} of {images.dataset} must give {size} training (at least 1), "
                f"{per_class[k]} target and {held} validation images, got {len(orders[k])} "
                f"images{also}. Change `images.train_size`, `images.{changes}` (in a benchmark "
                "that has it `imbalances`), `images.target_size` or `images.validation_size`."
            )
        parts["target"].append(targets[k])
        parts["train"].append(rest[:size])
        parts["validation"].append(rest[size : size + held])
    shuffled = {name: rng.permutation(np.concatenate(found)) for name, found in parts.items()}
    test = rng.permutation(np.flatnonzero(np.isin(data.test[1], kept)))
    if len(test) < images.test_size:
        raise InputError(
            f"`images.test_size` must be at most the {len(test)} test images of these classes, "
            f"got {images.test_size}. 0 is all."
        )

    drawn = np.sort(test[: images.test_size or None])
    lacks = sorted(set(labels[kept].tolist()) - set(labels[data.test[1][drawn]].tolist()))
    if lacks:
        raise InputError(
            f"the test set must hold every class, got none of {', '.join(names[k] for k in lacks)} "
            f"with `images.test_size: {images.test_size}`. Raise it, or leave it out for all."
        )

    def pick(part: Part, index: IntArray) -> Part:
        return part[0][index], labels[part[1][index]]

    return ImageSets(
        train=pick(data.train, shuffled["train"]),
        target=pick(data.train, shuffled["target"]),
        validation=pick(data.train, shuffled["validation"]),
        test=pick(data.test, drawn),
        classes=names,
        brightest=data.brightest,
    )


def _no_copies(
    data: ImageData, targets: dict[int, IntArray], rests: dict[int, IntArray]
) -> dict[int, IntArray]:
    """The other images of each class, in their order, but for copies of those of the target set."""
    pixels = data.train[0]
    known = {pixels[i].tobytes() for target in targets.values() for i in target}
    return {
        k: rest[np.array([pixels[i].tobytes() not in known for i in rest], dtype=bool)]
        for k, rest in rests.items()
    }


def _labels(images: Images, data: ImageData) -> tuple[IntArray, tuple[str, ...]]:
    """Label of each class of the data set (-1: left out), and the name of each label."""
    number = len(data.classes)
    if images.imbalance != "binary":
        return np.arange(number), data.classes
    labels = np.full(number, -1)
    for label, side in enumerate((images.majority, images.minority)):
        for k in side:
            if not 0 <= k < number:
                raise InputError(
                    f"`images.minority` and `images.majority` must be classes 0 to {number - 1} of "
                    f"{images.dataset}, got {k}."
                )
            labels[k] = label
    return labels, ("majority", "minority")


def _target_sizes(images: Images, kept: list[int]) -> dict[int, int]:
    """Target samples of each class: sides (binary) or classes alike, rounded up.

    Where a side's number does not divide by its classes, the first ones give one more.
    """
    if images.imbalance != "binary":
        return dict.fromkeys(kept, -(-images.target_size // len(kept)))
    a_side = -(-images.target_size // 2)
    sizes = {}
    for side in (images.minority, images.majority):
        for place, k in enumerate(sorted(side)):
            sizes[k] = a_side // len(side) + (place < a_side % len(side))
    return sizes
