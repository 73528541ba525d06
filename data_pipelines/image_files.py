"""Image data sets as they are published: MNIST, Fashion-MNIST, CIFAR-10, CIFAR-100, digits.

Files are looked for in the given folder and in the usual places; nothing in them is executed.
"""

import codecs
import gzip
import io
import lzma
import pickle
import struct
import tarfile
import zlib
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from data_pipelines.errors import InputError, unknown_name
from data_pipelines.image_data import ImageData, Labels, Pixels, check_images
from data_pipelines.image_sources import PUBLISHED, find

DATASETS = ("mnist", "fashion_mnist", "cifar10", "cifar10_jpeg", "cifar100", "digits")

IDX_FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
JPEG_ARCHIVE = "cifar-10-jpeg.tar.xz"


@lru_cache(maxsize=1)
def read_images(dataset: str, folder: str = "", download: bool = False) -> ImageData:
    """Reads a whole data set. The last one read is kept in memory.

    Args:
        dataset: its name.
        folder: where its files lie, and nowhere else; empty for the usual places:
            `WEATHER_TDR_DATA`, `./data`, `../shared/data`, and the cache folder of this user.
        download: fetches what is missing into `folder`, or the cache folder.

    Raises:
        InputError: an unknown name, no such files, damaged files, or no network.
    """
    if dataset not in DATASETS:
        raise unknown_name("`images.dataset`:", dataset, DATASETS)
    if dataset == "digits":
        data = _digits()
    elif dataset in ("mnist", "fashion_mnist"):
        data = _read_idx_set(dataset, folder, download)
    elif dataset == "cifar10_jpeg":
        data = _read_jpeg_archive(find(dataset, (JPEG_ARCHIVE,), folder))
    else:
        data = _read_cifar(dataset, folder, download)
    check_images(dataset, data)
    return data


def _digits() -> ImageData:
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = digits.images.astype(np.uint8)[:, None]
    labels = digits.target.astype(np.int64)
    # The data set has no split of its own: every third image is for testing.
    test = np.arange(len(labels)) % 3 == 2
    names = tuple(map(str, range(10)))
    return ImageData((pixels[~test], labels[~test]), (pixels[test], labels[test]), names, 16)


def read_idx(path: Path) -> npt.NDArray[np.uint8]:
    """Reads an IDX file of unsigned bytes, gzipped or not.

    Raises:
        InputError: not of that format.

    Source: the format's description on the MNIST page of Y. LeCun.
    """
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        zero, kind, dims = struct.unpack(">HBB", data[:4])
        shape = struct.unpack(f">{dims}I", data[4 : 4 + 4 * dims])
        if zero != 0 or kind != 8:
            raise ValueError("not unsigned bytes")
        return np.frombuffer(data, np.uint8, offset=4 + 4 * dims).reshape(shape)
    except (ValueError, struct.error, OSError, EOFError, zlib.error) as error:
        raise InputError(
            f"{path} is no IDX file of images or labels: {str(error).rstrip('.')}. If it is "
            "damaged, delete it and fetch it again (`--download`)."
        ) from error


FASHION = (
    "T-shirt/top", "trouser", "pullover", "dress", "coat",
    "sandal", "shirt", "sneaker", "bag", "ankle boot",
)  # fmt: skip


# The first labels of the files that have the same names, as published.
FIRST_LABELS = {
    "mnist": {"train": "5041921314", "test": "7210414959"},
    "fashion_mnist": {"train": "9003027255", "test": "9211614657"},
}


def _read_idx_set(dataset: str, folder: str, download: bool) -> ImageData:
    parts = {}
    for split, files in IDX_FILES.items():
        images, labels = (
            read_idx(find(dataset, (file, file + ".gz"), folder, download)) for file in files
        )
        if images.ndim != 3 or labels.shape != images.shape[:1]:
            raise InputError(
                f"the {split} files of {dataset} must hold as many labels as images, got shapes "
                f"{labels.shape} and {images.shape}. Fetch them again."
            )
        first = "".join(map(str, labels[:10]))
        for other, known in FIRST_LABELS.items():
            if other != dataset and first == known[split]:
                raise InputError(
                    f"`images.dataset: {dataset}` must have files of its own, got labels of "
                    f"{split} that are those of `{other}`. Set `images.folder` to where the files "
                    f"of {dataset} lie."
                )
        parts[split] = images[:, None], labels.astype(np.int64)
    names = FASHION if dataset == "fashion_mnist" else tuple(map(str, range(10)))
    return ImageData(parts["train"], parts["test"], names)


class _PlainUnpickler(pickle.Unpickler):
    """Reads arrays, numbers, text and lists; refuses everything else a pickle can ask for."""

    ALLOWED = frozenset({
        ("numpy.core.multiarray", "_reconstruct"), ("numpy._core.multiarray", "_reconstruct"),
        ("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode"),
    })  # fmt: skip

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is no data")
        if module == "_codecs":
            return codecs.encode
        if name == "_reconstruct":
            return np.empty(0).__reduce__()[0]
        return getattr(np, name)


def _unpickle(data: bytes, path: Path, name: str) -> dict[Any, Any]:
    try:
        values = _PlainUnpickler(io.BytesIO(data), encoding="bytes").load()
    except Exception as error:  # a damaged pickle can raise anything
        raise InputError(f"{name} in {path} cannot be read: {error}. Fetch it again.") from error
    if not isinstance(values, dict):
        raise InputError(f"{name} in {path} must hold a table of arrays. Fetch it again.")
    return values


CIFAR = {  # folder, train files, test file, file of names, key of labels, key of names
    "cifar10": (
        "cifar-10-batches-py", tuple(f"data_batch_{i}" for i in range(1, 6)), "test_batch",
        "batches.meta", b"labels", b"label_names",
    ),
    "cifar100": (
        "cifar-100-python", ("train",), "test", "meta", b"fine_labels", b"fine_label_names",
    ),
}  # fmt: skip


def _read_cifar(dataset: str, folder: str, download: bool) -> ImageData:
    inside, train, test, meta, label_key, name_key = CIFAR[dataset]
    archive = next(iter(PUBLISHED[dataset].files))
    wanted = {*train, test, meta}

    def lacking(found: Path) -> str:
        absent = sorted(n for n in wanted if found.is_dir() and not (found / n).is_file())
        return f"lacks {', '.join(absent)}" if absent else ""

    path = find(dataset, (inside, archive), folder, download, lacking)
    files = _members(path, inside, wanted)
    if absent := sorted(wanted - set(files)):
        raise InputError(f"{path} lacks {', '.join(absent)}. Delete it, and fetch {archive} again.")

    def rows(names: Iterable[str]) -> tuple[Pixels, Labels]:
        images, labels = [], []
        for name in names:
            values = _unpickle(files[name], path, name)
            data, label = values.get(b"data"), values.get(label_key)
            if (
                not isinstance(data, np.ndarray)
                or data.dtype != np.uint8
                or data.ndim != 2
                or data.shape[1] != 3072
                or (label := _integers(label)) is None
                or label.shape != data.shape[:1]
            ):
                raise InputError(
                    f"{name} in {path} must hold `data` (n, 3072) uint8 and n labels. "
                    f"Fetch {archive} again."
                )
            images.append(data)
            labels.append(label)
        # A row is red, green, blue, each 32 x 32.
        return np.concatenate(images).reshape(-1, 3, 32, 32), np.concatenate(labels)

    names = _unpickle(files[meta], path, meta).get(name_key)
    if not isinstance(names, list) or not all(isinstance(n, bytes | str) for n in names):
        raise InputError(
            f"{meta} in {path} must hold a list of names, `{name_key.decode()}`. "
            f"Fetch {archive} again."
        )
    classes = tuple(n.decode(errors="replace") if isinstance(n, bytes) else n for n in names)
    return ImageData(rows(train), rows((test,)), classes)


def _integers(values: Any) -> Labels | None:
    """Labels as an array; None where they are none."""
    try:
        return np.asarray(values, dtype=np.int64)
    except (TypeError, ValueError, OverflowError):
        return None


def _members(path: Path, inside: str, wanted: set[str]) -> dict[str, bytes]:
    """Content of the wanted files of a folder, or of a tar archive that holds such a folder."""
    if path.is_dir():
        return {n: (path / n).read_bytes() for n in wanted if (path / n).is_file()}
    found = {}
    for name, data in _archive(path):
        if name.startswith(inside + "/") and name.removeprefix(inside + "/") in wanted:
            found[name.removeprefix(inside + "/")] = data
    return found


def _archive(path: Path) -> Iterable[tuple[str, bytes]]:
    """Names and contents of the plain files of a tar archive; nothing is unpacked on disk."""
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                handle = archive.extractfile(member) if member.isfile() else None
                if handle is not None:
                    yield member.name.removeprefix("./"), handle.read()
            while archive.fileobj is not None and archive.fileobj.read(1 << 20):
                pass  # the checksum of the compressed file stands at its end
    except (tarfile.TarError, OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path} is no complete archive: {reason}. Fetch it again.") from error


def _read_jpeg_archive(path: Path) -> ImageData:
    """CIFAR-10 as JPEG files in the published order: FOLDER/train/00000.jpg, train_labels.txt."""
    from PIL import Image, UnidentifiedImageError

    images: dict[str, dict[int, Pixels]] = {"train": {}, "test": {}}
    texts: dict[str, list[str]] = {}
    for name, data in _archive(path):
        *folders, file = name.split("/")
        if file.endswith(".jpg") and folders and folders[-1] in images:
            try:
                pixels = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
                number = int(file.removesuffix(".jpg"))
                if pixels.shape != (32, 32, 3):
                    raise ValueError(f"its shape is {pixels.shape}")
            except (UnidentifiedImageError, OSError, ValueError) as error:
                raise InputError(
                    f"{name} in {path} must be a JPEG image of 32 x 32 points with a number as its "
                    f"name: {error}. Fetch it again."
                ) from error
            images[folders[-1]][number] = pixels.transpose(2, 0, 1)
        elif file in ("train_labels.txt", "test_labels.txt", "batches.meta.txt"):
            texts[file] = data.decode(errors="replace").split()
    parts = {}
    for split, found in images.items():
        try:
            labels = np.array([int(n) for n in texts.get(f"{split}_labels.txt", [])], np.int64)
        except (ValueError, OverflowError) as error:
            raise InputError(
                f"{split}_labels.txt in {path} must hold numbers: {error}. Fetch it again."
            ) from error
        if not found or sorted(found) != list(range(len(labels))):
            raise InputError(
                f"{path} must hold as many {split} images as {split}_labels.txt has lines, got "
                f"{len(found)} for {len(labels)}. Fetch it again."
            )
        parts[split] = np.stack([found[i] for i in range(len(labels))]), labels
    names = tuple(texts.get("batches.meta.txt", map(str, range(10))))
    return ImageData(parts["train"], parts["test"], names)
