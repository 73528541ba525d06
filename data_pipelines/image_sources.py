"""Where image data sets come from and where they lie; downloads with hashes."""

import hashlib
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from data_pipelines.errors import InputError


@dataclass(frozen=True)
class Published:
    """Where a data set comes from.

    Attributes:
        url: of the folder of its files.
        files: name -> MD5 of its content.
        places: folders, relative to a folder of data sets, in which other tools keep it.
    """

    url: str
    files: dict[str, str]
    places: tuple[str, ...]


# Addresses and hashes as published on the pages of the data sets (A. Krizhevsky; Zalando Research)
# and, for MNIST, on the mirror of the PyTorch project.
PUBLISHED = {
    "mnist": Published(
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        {
            "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
            "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
            "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
            "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
        },
        ("mnist", "MNIST/raw"),
    ),
    "fashion_mnist": Published(
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        {
            "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
            "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
            "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
            "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
        },
        ("fashion_mnist", "FashionMNIST/raw"),
    ),
    "cifar10": Published(
        "https://www.cs.toronto.edu/~kriz/",
        {"cifar-10-python.tar.gz": "c58f30108f718f92721af3b95e74349a"},
        ("cifar10", "."),
    ),
    "cifar100": Published(
        "https://www.cs.toronto.edu/~kriz/",
        {"cifar-100-python.tar.gz": "eb9058c3a382ffc7106e4002c42a8d85"},
        ("cifar100", "."),
    ),
}


def places(dataset: str, folder: str) -> list[Path]:
    """Folders to look into, the best first."""
    inside = PUBLISHED[dataset].places if dataset in PUBLISHED else (dataset, "cifar10", ".")
    if folder:
        within = dict.fromkeys((dataset, *inside, "."))
        return [Path(folder).expanduser() / place for place in within]
    beside = ("data", "../shared/data")  # where the configurations of weather look too
    named = os.environ.get("WEATHER_TDR_DATA", "")
    roots = [Path(p).expanduser() for p in (named, *beside) if p]
    return [root / place for root in [*roots, cache_folder()] for place in inside]


def cache_folder() -> Path:
    """Where downloads go by default."""
    import pooch

    return Path(pooch.os_cache("weather-tdr"))


def find(
    dataset: str,
    names: Iterable[str],
    folder: str,
    download: bool = False,
    unfit: Callable[[Path], str] = lambda _: "",
) -> Path:
    """The first of the named files that is there; fetched if it is not, and may be.

    Args:
        dataset: its name.
        names: of the file, the best first.
        folder: where to look; empty for the usual places.
        download: whether it may be fetched, into a folder named after the data set in `folder`, or
            in the cache folder.
        unfit: why something of that name cannot be taken; "" where it can.

    Raises:
        InputError: there is none, or it could not be fetched.
    """
    names = tuple(names)
    where = places(dataset, folder)
    others = ""
    for place in where:
        for name in names:
            if not (place / name).exists():
                continue
            reason = _owner_of(place / name, dataset) or unfit(place / name)
            if not reason:
                return place / name
            others += f" {place / name} {reason}."
    published = PUBLISHED.get(dataset)
    fetchable = [] if published is None else [n for n in names if n in published.files]
    if download and published is not None and fetchable:
        into = Path(folder).expanduser() if folder else cache_folder()
        return _fetch(published, fetchable[0], into / dataset)
    looked = ", ".join(str(p) for p in where)
    fetch = " Or let `--images.download true` fetch it." if fetchable else ""
    raise InputError(
        f"`images.dataset: {dataset}` needs the file {' or '.join(names)}, found none in {looked}."
        f"{others} Put it there, or set `images.folder` to where it lies.{fetch}"
        f" (In `weather-tdr imbalance` it is `--folder`{' and `--download`' if fetchable else ''}.)"
    )


def _owner_of(path: Path, dataset: str) -> str:
    """Says whose file this is, if not its own: MNIST and Fashion-MNIST have the same names."""
    zipped = path.with_name(path.name.removesuffix(".gz") + ".gz")  # torchvision keeps both
    path = zipped if zipped.exists() else path
    hashes = {
        other: published.files[path.name]
        for other, published in PUBLISHED.items()
        if path.name in published.files
    }
    if len(hashes) < 2:
        return ""
    md5 = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
    others = (k for k, known in hashes.items() if md5 == known and k != dataset)
    return next((f"is that of `{other}`" for other in others), "")


def _fetch(published: Published, name: str, folder: Path) -> Path:
    import pooch

    try:
        return Path(
            pooch.retrieve(
                published.url + name,
                f"md5:{published.files[name]}",
                fname=name,
                path=folder,
                progressbar=False,
            )
        )
    except (OSError, ValueError) as error:  # requests' errors are OSErrors; a wrong hash is a value
        reason = " ".join(str(error).split())[:300]
        raise InputError(
            f"{published.url}{name} could not be fetched: {reason}. "
            f"Put {name} into {folder} by hand, or try again with a network."
        ) from error
