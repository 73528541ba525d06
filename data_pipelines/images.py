"""Images with imbalanced classes: MNIST and Fashion-MNIST (IDX files), scikit-learn's digits.

Binary imbalance as in the reference implementation of TDR: with M majority and m minority classes

    n_majority = train / (M + m (1 - ratio)),   n_minority = n_majority (1 - ratio)

samples a class. Unlike there, the target set shares no sample with train, and the seed decides
everything.
"""

import gzip
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from data_pipelines.errors import InputError
from data_pipelines.schema import IntArray

Split = tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]
MNIST_FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}


@dataclass
class Images:
    """Which images, and how imbalanced.

    Attributes:
        dataset: `mnist` (also Fashion-MNIST: the same files), or `digits` (needs no file).
        folder: of the MNIST files, gzipped or not.
        minority: classes that become the rare class (label 1).
        majority: classes that become the frequent class (label 0).
        ratio: 1 - n_minority / n_majority, in [0, 1).
        train_size: training samples.
        target_size: samples of the target set, the same number of each class.
    """

    dataset: Literal["mnist", "digits"] = "digits"
    folder: str = ""
    minority: list[int] = field(default_factory=lambda: [4])
    majority: list[int] = field(default_factory=lambda: [9])
    ratio: float = 0.995
    train_size: int = 5000
    target_size: int = 10

    def __post_init__(self) -> None:
        """Checks the numbers.

        Raises:
            InputError: a ratio out of range, or a class on both sides.
        """
        if not 0 <= self.ratio < 1:
            raise InputError(f"`images.ratio` must be at least 0 and below 1, got {self.ratio}.")
        both = set(self.minority) & set(self.majority)
        if both or not self.minority or not self.majority:
            raise InputError(
                "`images.minority` and `images.majority` must be different classes, got "
                f"{self.minority} and {self.majority}."
            )


@dataclass(frozen=True)
class ImageSets:
    """Binary image sets: images (n, channel, y, x) in [0, 1] float32, labels 0 (majority) or 1.

    Attributes:
        train: imbalanced.
        target: balanced, disjoint from train.
        test: every test image of the classes.
    """

    train: Split
    target: Split
    test: Split


def read_idx(path: Path) -> npt.NDArray[np.uint8]:
    """Reads an IDX file of unsigned bytes, gzipped or not.

    Raises:
        InputError: no such file, or not of that format.

    Source: the format's description on the MNIST page of Y. LeCun.
    """
    found = next((p for p in (path, path.with_name(path.name + ".gz")) if p.is_file()), None)
    if found is None:
        raise InputError(f"`images.folder` must hold {path.name} or {path.name}.gz, got {path}.")
    try:
        data = gzip.decompress(found.read_bytes()) if found.suffix == ".gz" else found.read_bytes()
        zero, kind, dims = struct.unpack(">HBB", data[:4])
        shape = struct.unpack(f">{dims}I", data[4 : 4 + 4 * dims])
        if zero != 0 or kind != 8:
            raise ValueError("not unsigned bytes")
        return np.frombuffer(data, np.uint8, offset=4 + 4 * dims).reshape(shape)
    except (ValueError, struct.error, OSError, EOFError) as error:
        raise InputError(f"{found} is no IDX file of images or labels: {error}.") from error


def read_images(images: Images) -> dict[str, Split]:
    """Train and test images of the data set, all classes."""
    if images.dataset == "digits":
        from sklearn.datasets import load_digits

        digits = load_digits()
        pixels = (digits.images / 16.0).astype(np.float32)[:, None]
        labels = digits.target.astype(np.int64)
        # The data set has no split of its own: every third image is for testing.
        test = np.arange(len(labels)) % 3 == 2
        return {"train": (pixels[~test], labels[~test]), "test": (pixels[test], labels[test])}
    folder = Path(images.folder).expanduser()
    return {
        split: (
            read_idx(folder / files[0]).astype(np.float32)[:, None] / np.float32(255.0),
            read_idx(folder / files[1]).astype(np.int64),
        )
        for split, files in MNIST_FILES.items()
    }


def class_sizes(images: Images) -> tuple[int, int]:
    """Training samples of each majority and of each minority class."""
    rest = 1.0 - images.ratio
    majority = images.train_size / (len(images.majority) + len(images.minority) * rest)
    return round(majority), round(majority * rest)


def make_image_sets(images: Images, seed: int) -> ImageSets:
    """The imbalanced training set, the balanced target set and the test set of a seed.

    Raises:
        InputError: too few images of a class.
    """
    data = read_images(images)
    rng = np.random.default_rng([seed, 7])
    classes = data["train"][1]
    sizes = class_sizes(images)
    parts: dict[str, list[IntArray]] = {"train": [], "target": []}
    for side, size in ((images.majority, sizes[0]), (images.minority, sizes[1])):
        target = -(-images.target_size // (2 * len(side)))
        for name in side:
            order = rng.permutation(np.flatnonzero(classes == name))
            if size < 1 or target < 1 or len(order) < size + target:
                raise InputError(
                    f"class {name} of {images.dataset} must give {size} training and {target} "
                    f"target images, got {len(order)} images. Change `images.train_size`, "
                    "`images.ratio` or `images.target_size`."
                )
            parts["target"].append(order[:target])
            parts["train"].append(order[target : target + size])

    def pick(split: Split, index: IntArray) -> Split:
        return split[0][index], _binary(split[1][index], images.minority)

    kept = np.flatnonzero(np.isin(data["test"][1], [*images.minority, *images.majority]))
    return ImageSets(
        train=pick(data["train"], rng.permutation(np.concatenate(parts["train"]))),
        target=pick(data["train"], np.concatenate(parts["target"])),
        test=pick(data["test"], kept),
    )


def _binary(classes: npt.NDArray[np.int64], minority: Sequence[int]) -> npt.NDArray[np.int64]:
    return np.isin(classes, minority).astype(np.int64)
