"""A data set of images in memory, and what may be in it."""

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from data_pipelines.errors import InputError

Pixels = npt.NDArray[np.uint8]  # (n, channel, y, x)
Labels = npt.NDArray[np.int64]  # (n,)


@dataclass(frozen=True)
class ImageData:
    """A data set as published: its own split into train and test.

    Attributes:
        train: images (n, channel, y, x) uint8, and the class of each (n,).
        test: likewise.
        classes: name of each class.
        brightest: value of a pixel that means 1.
    """

    train: tuple[Pixels, Labels]
    test: tuple[Pixels, Labels]
    classes: tuple[str, ...]
    brightest: int = 255

    @cached_property
    def digest(self) -> str:
        """A hash of all images and labels."""
        found = hashlib.sha256()
        for array in (*self.train, *self.test):
            found.update(f"{array.shape} {array.dtype}".encode())
            found.update(np.ascontiguousarray(array).data)
        return found.hexdigest()[:16]


def check_images(dataset: str, data: ImageData) -> None:
    """Refuses what the files of a data set cannot hold.

    Raises:
        InputError: another number of classes, labels beyond them, or images of other sizes.
    """
    number = 100 if dataset == "cifar100" else 10
    if len(data.classes) != number:
        raise InputError(
            f"the files of {dataset} must name {number} classes, got {len(data.classes)}. "
            "Fetch them again."
        )
    for split in ("train", "test"):
        images, labels = getattr(data, split)
        wrong = labels[(labels < 0) | (labels >= number)]
        if len(wrong) or not len(labels):
            got = f"{len(wrong)} others, such as {wrong[0]}" if len(wrong) else "none"
            raise InputError(
                f"the {split} labels of {dataset} must be 0 to {number - 1}, got {got}. "
                "Fetch its files again, or set `images.folder` to those of this data set."
            )
        if images.shape[2] != images.shape[3] or images.shape[1:] != data.train[0].shape[1:]:
            raise InputError(
                f"the images of {dataset} must be square, and as large in test as in train, got "
                f"{split} images of {images.shape[2]} x {images.shape[3]} points. Fetch them again."
            )
