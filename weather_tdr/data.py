"""From the patch store to tensors and batches."""

import copy
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import psutil
import torch
import xarray as xr
from torch import Tensor

from data_pipelines.errors import InputError
from data_pipelines.parts import crc32c
from data_pipelines.reader import PatchReader
from data_pipelines.schema import SPLITS
from weather_tdr import ranks
from weather_tdr.devices import fits

log = logging.getLogger(__name__)
READ_SAMPLES = 8192
SHOWN = 8  # samples that an error names
CPU = torch.device("cpu")
FREE_SHARE = 0.3  # of the free memory that samples may take; there are moments with two copies


@dataclass(frozen=True)
class Batch:
    """Samples in memory: normalised patches, labels and groups.

    Raises:
        InputError: not three tensors of one length, or labels or groups of another kind or shape;
            `Batch.of` takes more kinds.
    """

    patches: Tensor  # (n, variable, y, x) float32, zero mean and unit variance over training dates
    labels: Tensor  # (n,) int64; floating-point numbers of any shape for a loss of one's own
    groups: Tensor  # (n,) int64

    def __post_init__(self) -> None:
        """Looks at kinds and shapes, which costs nothing, not at values."""
        given = self._tensors()
        if not all(isinstance(t, Tensor) for t in given):
            told = ", ".join(type(t).__name__ for t in given)
            raise InputError(f"`Batch` must have three tensors, got {told}. Use `Batch.of`.")
        shapes = ", ".join(str(tuple(t.shape)) for t in given)
        if len({len(t) if t.ndim else -1 for t in given}) > 1:
            raise InputError(f"inputs, labels and groups must be of one length, got {shapes}.")
        labels, groups = self.labels.dtype, self.groups.dtype
        known = labels == torch.int64 or labels.is_floating_point
        if not known or groups != torch.int64 or self.groups.ndim != 1:
            raise InputError(
                f"labels and groups must be int64, and groups one a sample, got {labels} and "
                f"{groups} of shapes {shapes}. Use `Batch.of`, or `.long()`."
            )

    @classmethod
    def of(cls, data: tuple[Any, ...]) -> "Batch":
        """From a tuple of inputs, labels and, if they are not the labels, groups.

        Args:
            data: arrays of torch, numpy, xarray or pandas.

        Raises:
            InputError: not two or three arrays of numbers of one length, masked values, or labels
                or groups that are no whole numbers.
        """
        data = tuple(map(tensor_of, data))
        if len(data) not in (2, 3) or len({len(t) for t in data}) != 1 or len(data[0]) == 0:
            raise InputError(
                "samples must be a tuple of inputs, labels and (if wanted) groups of one length, "
                f"got {len(data)} of lengths {[len(t) for t in data]}."
            )
        labels = _whole_numbers("labels", data[1])
        groups = _whole_numbers("groups", data[2]) if len(data) == 3 else labels
        return cls(data[0], labels, groups)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: Tensor) -> "Batch":
        return Batch(self.patches[index], self.labels[index], self.groups[index])

    def with_groups(self, groups: Tensor) -> "Batch":
        """The same samples in other groups."""
        return Batch(self.patches, self.labels, groups)

    def and_then(self, other: "Samples") -> "Batch":
        """These samples, and others after them.

        Raises:
            InputError: the others are not in memory.
        """
        if not isinstance(other, Batch):
            raise InputError(
                "train and target must both be in memory or both in a store, got only train in "
                "memory. Load both, or neither."
            )
        pairs = zip(self._tensors(), other._tensors(), strict=True)
        return Batch(*(torch.cat(pair) for pair in pairs))

    def _tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.patches, self.labels, self.groups

    def to(self, device: torch.device) -> "Batch":
        """The same on another device."""
        return Batch(self.patches.to(device), self.labels.to(device), self.groups.to(device))


def tensor_of(values: Any) -> Tensor:
    """A tensor of an array of any library.

    Raises:
        InputError: no array of numbers, or one with masked values.
    """
    if isinstance(values, Tensor) and values.ndim:
        return values
    if np.ma.is_masked(values):
        raise InputError(
            f"samples must have no masked values, got {int(np.ma.getmaskarray(values).sum())} of "
            f"{values.size}. Leave out the samples that have some, or give values by `.filled()`."
        )
    try:
        array = np.asarray(values)
    except (TypeError, ValueError):  # ragged, or no array at all
        array = np.asarray(None)
    kind = array.dtype.newbyteorder("=")
    if kind.kind not in "biufc" or array.ndim == 0:
        told = f"one of {kind}" if array.ndim else f"`{type(values).__name__}`"
        raise InputError(f"samples must be arrays of numbers, got {told}. Number them.")
    if kind in (np.longdouble, np.clongdouble):
        kind = np.dtype(np.float64 if kind.kind == "f" else np.complex128)
    # Flipped axes, other orders of bytes and read-only views, which torch does not take.
    return torch.from_numpy(np.require(array, kind, ["C", "W"]))


def _whole_numbers(name: str, values: Tensor) -> Tensor:
    whole = values.long()
    if values.ndim != 1 or not torch.equal(whole.to(values.dtype), values):
        raise InputError(
            f"{name} must be whole numbers, one a sample, got {values.dtype} of shape "
            f"{tuple(values.shape)}, such as {values.flatten()[0].item()}. Number them from 0."
        )
    return whole


class StoredSamples:
    """Samples that stay in the patch store until a batch asks for them.

    Any index gives a whole `Batch`; as a data set of `torch.utils.data.DataLoader` it gives whole
    batches too, with ``collate_fn=lambda batch: batch``.

    Args:
        store: as `open_store` gives it.
        index: positions along ``sample``, shape (n,).
    """

    def __init__(self, store: xr.Dataset, index: npt.NDArray[np.int64]) -> None:
        self.store = store
        self.reader = PatchReader(store.encoding["source"])
        self.index = index
        self.labels = torch.from_numpy(store["label"].to_numpy()[index].astype(np.int64))
        self.groups = torch.from_numpy(store["group"].to_numpy()[index].astype(np.int64))
        shape = (1, -1, 1, 1)
        self.mean = torch.from_numpy(store["mean"].to_numpy().astype(np.float32).reshape(shape))
        self.std = torch.from_numpy(store["std"].to_numpy().astype(np.float32).reshape(shape))

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, index: Tensor) -> Batch:
        patches = torch.from_numpy(self.reader.read(self.index[index.numpy()]))
        patches = patches.sub_(self.mean).div_(self.std)
        return Batch(patches, self.labels[index], self.groups[index])

    def with_groups(self, groups: Tensor) -> "StoredSamples":
        """The same samples in other groups."""
        made = copy.copy(self)
        made.groups = groups
        return made

    def and_then(self, other: "Samples") -> "StoredSamples":
        """These samples, and others of the same store after them.

        Raises:
            InputError: the others are not of this store.
        """
        if not isinstance(other, StoredSamples) or other.store is not self.store:
            raise InputError(
                "train and target must both be in memory or both in one store, got only train in "
                "the store. Load both, or neither."
            )
        made = StoredSamples(self.store, np.concatenate([self.index, other.index]))
        return made.with_groups(torch.cat([self.groups, other.groups]))

    def __getitems__(self, index: list[int]) -> Batch:
        return self[torch.as_tensor(index)]


Samples = Batch | StoredSamples


def in_parts(samples: Samples) -> Iterator[Batch]:
    """All samples in their order, at most READ_SAMPLES at once."""
    for begin in range(0, len(samples), READ_SAMPLES):
        yield samples[torch.arange(begin, min(begin + READ_SAMPLES, len(samples)))]


def positions(store: xr.Dataset, split: str) -> npt.NDArray[np.int64]:
    """Index of the samples of a split along ``sample``.

    Raises:
        InputError: the split is empty.
    """
    index = np.flatnonzero(store["split"].to_numpy() == SPLITS.index(split))
    if len(index) == 0:
        raise InputError(
            f"split `{split}` must hold samples, got none. "
            "Build with other periods, or with `images.validation_size`."
        )
    return index


def digest(samples: Samples) -> str:
    """Checksum of samples that have no name."""
    found = 0
    for part in in_parts(samples):
        for values in (part.patches, part.labels, part.groups):
            raw = values.cpu().contiguous().flatten().view(torch.uint8)
            found = crc32c(raw.numpy().data, found)
    return f"{found:08x}"


def not_finite(batch: Batch) -> Tensor:
    """Which samples have inputs that are not finite, shape (n,)."""
    return ~torch.isfinite(batch.patches.flatten(1)).all(1).cpu()


def named_samples(pool: Samples, index: Tensor, of_train: int) -> str:
    """Samples of a batch, for an error; those first whose values are not finite.

    Args:
        pool: train, then the target set.
        index: positions in the pool.
        of_train: number of samples of train.
    """
    bad = not_finite(pool[index])
    order = index[torch.argsort((~bad).int(), stable=True)].tolist()
    names = [f"train {i}" if i < of_train else f"target {i - of_train}" for i in order[:SHOWN]]
    if isinstance(pool, StoredSamples):
        names = [f"{n} ({pool.index[i]} of the store)" for n, i in zip(names, order, strict=False)]
    text = f"samples {', '.join(names)}{' ...' if len(order) > SHOWN else ''}"
    return text + (f", {int(bad.sum())} of them not finite" if bad.any() else "")


def stored_split(store: xr.Dataset, split: str) -> StoredSamples:
    """A whole split, left in the store."""
    return StoredSamples(store, positions(store, split))


def load_split(store: xr.Dataset, split: str, device: torch.device = CPU) -> Batch:
    """A whole split in memory, the patches on a device."""
    stored = stored_split(store, split)
    patches = torch.empty(len(stored), *store["patches"].shape[1:], device=device)
    begin = 0
    for part in in_parts(stored):
        patches[begin : begin + len(part)] = part.patches.to(device)
        begin += len(part)
    return Batch(patches, stored.labels, stored.groups)


def samples_to_train(store: xr.Dataset, device: torch.device = CPU) -> tuple[Samples, Samples]:
    """Train and target: in memory where they take little of it, else on the GPU or in the store.

    Args:
        store: as `open_store` gives it.
        device: that training runs on.
    """
    of_train, of_target = (stored_split(store, name) for name in ("train", "target"))
    size = 4 * int(np.prod(store["patches"].shape[1:])) * (len(of_train) + len(of_target))
    free = psutil.virtual_memory().available / ranks.on_this_machine()
    if size <= FREE_SHARE * free:
        return load_split(store, "train"), load_split(store, "target")
    if device != CPU and fits(2 * size, device):  # `fit` puts the two together
        return load_split(store, "train", device), load_split(store, "target", device)
    log.info("training reads its %.3g GiB of patches from the store as it goes", size / 2**30)
    return of_train, of_target


def sample_table(store: xr.Dataset, split: str) -> pd.DataFrame:
    """Per-sample values of a split: time, latitude, longitude, label, group, incident_id."""
    index = positions(store, split)
    names = ("time", "latitude", "longitude", "label", "group", "incident_id")
    return pd.DataFrame({n: store[n].to_numpy()[index] for n in names})
