"""From the patch store to tensors and batches."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
import xarray as xr
from torch import Tensor

from data_pipelines.errors import InputError
from data_pipelines.reader import PatchReader
from data_pipelines.schema import SPLITS

READ_SAMPLES = 8192


@dataclass(frozen=True)
class Batch:
    """Samples in memory: normalised patches, labels and groups."""

    patches: Tensor  # (n, variable, y, x) float32, zero mean and unit variance over training dates
    labels: Tensor  # (n,) int64
    groups: Tensor  # (n,) int64

    @classmethod
    def of(cls, data: "Batch | tuple[Tensor, ...]") -> "Batch":
        """From a tuple of inputs, labels and, if they are not the labels, groups.

        Raises:
            InputError: not two or three tensors of one length.
        """
        if isinstance(data, Batch):
            return data
        if len(data) not in (2, 3) or len({len(t) for t in data}) != 1 or len(data[0]) == 0:
            raise InputError(
                "samples must be a tuple of inputs, labels and (if wanted) groups of one length, "
                f"got {len(data)} of lengths {[len(t) for t in data]}."
            )
        inputs, labels = torch.as_tensor(data[0]), torch.as_tensor(data[1]).long()
        return cls(inputs, labels, torch.as_tensor(data[2]).long() if len(data) == 3 else labels)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: Tensor) -> "Batch":
        return Batch(self.patches[index], self.labels[index], self.groups[index])

    def to(self, device: torch.device) -> "Batch":
        """The same on another device."""
        return Batch(self.patches.to(device), self.labels.to(device), self.groups.to(device))


class StoredSamples:
    """Samples that stay in the patch store until a batch asks for them.

    Any index gives a whole `Batch`; as a data set of `torch.utils.data.DataLoader` it gives whole
    batches too, with ``collate_fn=lambda batch: batch``.

    Args:
        store: as `open_store` gives it.
        index: positions along ``sample``, shape (n,).
    """

    def __init__(self, store: xr.Dataset, index: npt.NDArray[np.int64]) -> None:
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

    def __getitems__(self, index: list[int]) -> Batch:
        return self[torch.as_tensor(index)]


def concatenate(first: Batch, second: Batch) -> Batch:
    """Both, one after the other."""
    return Batch(
        torch.cat([first.patches, second.patches]),
        torch.cat([first.labels, second.labels]),
        torch.cat([first.groups, second.groups]),
    )


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


def normalise(values: npt.NDArray[np.float32], store_or_model: xr.Dataset) -> Tensor:
    """(x - mean) / std for each variable along axis 1."""
    shape = (1, -1, 1, 1)
    mean = store_or_model["mean"].to_numpy().reshape(shape)
    std = store_or_model["std"].to_numpy().reshape(shape)
    return torch.from_numpy(((values - mean) / std).astype(np.float32))


def iterate(store: xr.Dataset, index: npt.NDArray[np.int64]) -> Iterator[Batch]:
    """Batches of at most READ_SAMPLES samples, in the order of `index`."""
    samples = StoredSamples(store, index)
    for begin in range(0, len(index), READ_SAMPLES):
        yield samples[torch.arange(begin, min(begin + READ_SAMPLES, len(index)))]


def load_split(store: xr.Dataset, split: str) -> Batch:
    """A whole split in memory."""
    parts = list(iterate(store, positions(store, split)))
    return Batch(
        torch.cat([p.patches for p in parts]),
        torch.cat([p.labels for p in parts]),
        torch.cat([p.groups for p in parts]),
    )


def sample_table(store: xr.Dataset, split: str) -> pd.DataFrame:
    """Per-sample values of a split: time, latitude, longitude, label, group, incident_id."""
    index = positions(store, split)
    names = ("time", "latitude", "longitude", "label", "group", "incident_id")
    return pd.DataFrame({n: store[n].to_numpy()[index] for n in names})
