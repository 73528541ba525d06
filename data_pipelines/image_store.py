"""Imbalanced images as a patch store, so that all that reads patches reads them."""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from data_pipelines.errors import InputError
from data_pipelines.images import Images, ImageSets, make_image_sets
from data_pipelines.parts import Layout, chunk_samples
from data_pipelines.schema import SPLITS
from data_pipelines.store import open_store, same_build, store_identity
from data_pipelines.store_writer import StoreWriter

CHANNELS = {1: ("brightness",), 3: ("red", "green", "blue")}
STRIDE = 4  # for PatchNet, which reads images too
HELD = ("train", "target", "validation", "test")


def write_image_store(path: str | Path, images: Images, seed: int) -> Path:
    """Draws an imbalanced set and writes it, or keeps the one that the same settings have made.

    Args:
        path: where the store goes.
        images: which images, and how imbalanced.
        seed: of the draw.

    Returns:
        The path of the store. Its patches are the brightness of each channel in [0, 1]; label and
        group are the class.

    Raises:
        InputError: files or settings are wrong.
    """
    sets = make_image_sets(images, seed)
    attributes = {
        "settings": image_settings(images, seed),
        "fingerprints": {"images": _digest(sets)},
    }
    if same_build(path, attributes) and _readable(path):
        return Path(path)
    pixels = np.concatenate([getattr(sets, name)[0] for name in HELD])
    labels = np.concatenate([getattr(sets, name)[1] for name in HELD])
    split = np.repeat(
        [SPLITS.index(name) for name in HELD], [len(getattr(sets, name)[1]) for name in HELD]
    )
    n, channels, size, _ = pixels.shape
    scale = np.float32(1.0 / sets.brightest)
    train = sets.train[0].astype(np.float32) * scale
    names = CHANNELS[channels]

    facts = attributes | {
        "title": f"Images: {images.title}, imbalance {images.degree:g}",
        "grid": {"size": size, "stride": stride_of(size)},
        "counts": counts_of_sets(sets),
        "dropped": {},
    }
    described = {
        "variable": ("variable", np.array(names)),
        "units": ("variable", np.array(["1"] * channels)),
        "standard_name": ("variable", np.array([""] * channels)),
        "base_variable": ("variable", np.array(names)),
        "lag": ("variable", np.array(["0h"] * channels)),
    }
    columns = {
        "time": np.full(n, np.datetime64("NaT", "ns")),
        "latitude": np.full(n, np.nan),
        "longitude": np.full(n, np.nan),
        "label": labels.astype(np.int8),
        "group": labels.astype(np.int8),
        "split": split.astype(np.int8),
        "incident_id": np.zeros(n, dtype=np.int32),
        "reason": np.zeros(n, dtype=np.int32),
    }
    layout = Layout((n,), chunk_samples(pixels[0].nbytes))
    writer = StoreWriter(
        Path(path),
        layout,
        (channels, size, size),
        str(pixels.dtype),  # kept as the bytes that they came as
        store_identity(attributes),
        float(scale),
    )
    for number in writer.begin():
        part = writer.part(number)
        for begin in range(0, n, layout.chunk):
            some = pixels[begin : begin + layout.chunk]
            part.room(len(some))[...] = some
            part.taken(len(some))
        part.finish({}, {})
    return writer.finish(
        lambda number: columns,
        xr.Dataset(coords=described),
        (train.mean((0, 2, 3)).astype(np.float64), train.std((0, 2, 3)).astype(np.float64)),
        facts,
        names={"label": _plain(sets.classes), "group": _plain(sets.classes)},
        texts={"incident_id": [""], "reason": ["image"]},
    )


def _readable(path: str | Path) -> bool:
    """Whether a store is whole."""
    try:
        open_store(path)
    except InputError:
        return False
    return True


def stride_of(size: int) -> int:
    """Stride of PatchNet on images of so many pixels a side."""
    return STRIDE if size >= 4 * STRIDE else 2


def counts_of_sets(sets: ImageSets) -> dict[str, dict[str, int]]:
    """Images of each class in each split, by names."""
    return {
        name: {c: int((getattr(sets, name)[1] == k).sum()) for k, c in enumerate(sets.classes)}
        for name in HELD
    }


def image_settings(images: Images, seed: int) -> dict[str, Any]:
    """All that decides a set besides its files; JSON values."""
    kept = {k: v for k, v in asdict(images).items() if k not in ("folder", "download")}
    plain: dict[str, Any] = json.loads(json.dumps({"images": kept, "seed": seed}))
    return plain


def _digest(sets: ImageSets) -> str:
    digest = hashlib.sha256()
    for name in HELD:
        for array in getattr(sets, name):
            digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _plain(classes: tuple[str, ...]) -> tuple[str, ...]:
    """Names without blanks, which part the flag meanings of CF."""
    return tuple("_".join(c.split()) for c in classes)
