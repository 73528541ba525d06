"""Parts of a patch store: what a run writes, finishes and checks one at a time.

A part is a run of samples. Its patches fill whole chunks of the Zarr array, so that no two parts
write to one file; its other values lie, with checksums, in a record that is written last.
"""

import json
import zipfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import numpy.typing as npt

from data_pipelines.schema import Columns, IntArray
from data_pipelines.writing import written_whole

CHUNK_BYTES = 4 * 2**20
PIECE = 2**16


@dataclass(frozen=True)
class Layout:
    """Where the samples of each part lie in the store.

    Attributes:
        sizes: samples of each part.
        chunk: samples of a chunk; every part begins at a chunk.
    """

    sizes: tuple[int, ...]
    chunk: int

    @cached_property
    def offsets(self) -> IntArray:
        """Position of the first sample of each part."""
        chunks = -(-np.asarray(self.sizes, dtype=np.int64) // self.chunk)
        return np.asarray(np.r_[0, np.cumsum(chunks)[:-1]] * self.chunk, dtype=np.int64)

    @property
    def total(self) -> int:
        """Samples of the store, with those that fill up the last chunks of parts."""
        return int(self.offsets[-1]) + self.sizes[-1]


def chunk_samples(patch_bytes: int) -> int:
    """Samples of a chunk of about CHUNK_BYTES: a power of two."""
    return int(2 ** max(4, round(np.log2(CHUNK_BYTES / patch_bytes))))


def chunk_file(chunk: int) -> str:
    """File of a chunk of the patches, in the store."""
    return f"patches/c.{chunk}.0.0.0"


class PartWriter:
    """Writes the patches of a part, chunk by chunk through one buffer, then its record.

    A file holds the bytes of a chunk as Zarr wants them without compression: values in C order,
    little-endian, filled up to a whole chunk.

    Args:
        folder: of the unfinished store.
        number: of the part.
        layout: of the store.
        shape: of a patch.
        dtype: of the patches.
    """

    def __init__(
        self, folder: Path, number: int, layout: Layout, shape: Sequence[int], dtype: str
    ) -> None:
        self.folder, self.number = folder, number
        self.chunk = int(layout.offsets[number]) // layout.chunk
        self.buffer = np.empty((layout.chunk, *shape), dtype=np.dtype(dtype).newbyteorder("<"))
        self.filled = 0
        self.files: dict[str, list[int]] = {}

    def room(self, most: int) -> npt.NDArray[Any]:
        """Free places for patches: at least one, at most so many; see `taken`."""
        return self.buffer[self.filled : self.filled + most]

    def taken(self, count: int) -> None:
        """Takes over what was put into the first places of `room`."""
        self.filled += count
        if self.filled == len(self.buffer):
            self._flush()

    def _flush(self) -> None:
        self.buffer[self.filled :] = fill_value(self.buffer.dtype)
        name = chunk_file(self.chunk)
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        data = self.buffer.data.cast("B")
        with path.open("wb") as handle:
            handle.write(data)
        facts = path.stat()
        self.files[name] = [
            crc32c(data), facts.st_size, facts.st_mtime_ns
        ]  # fmt: skip
        self.chunk += 1
        self.filled = 0

    def finish(self, columns: Columns, facts: Mapping[str, Any]) -> None:
        """Writes the rest and the record.

        Args:
            columns: further values of the samples, each of shape (n,).
            facts: what else the part has to say; JSON values.
        """
        if self.filled:
            self._flush()
        about = np.array(json.dumps({**facts, "files": self.files}))
        with (
            written_whole(_record(self.folder, self.number)) as partial,
            partial.open("wb") as handle,
        ):
            np.savez(handle, **{**columns, "about": about})  # type: ignore[arg-type]


def fill_value(dtype: np.dtype[Any]) -> float:
    """What fills chunks up."""
    return float("nan") if dtype.kind == "f" else 0


def read_record(folder: Path, number: int) -> tuple[Columns, dict[str, Any]]:
    """The further values of a part, and what else it says."""
    with np.load(_record(folder, number), allow_pickle=False) as record:
        columns = {name: record[name] for name in record.files if name != "about"}
        facts: dict[str, Any] = json.loads(str(record["about"]))
    return columns, facts


def is_whole(folder: Path, number: int) -> bool:
    """True when the record of a part is there, all was read, and its files are as it tells."""
    try:
        _, facts = read_record(folder, number)
        if facts.get("unreadable"):
            return False  # perhaps it can be read now
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        return False  # none, or damaged
    return altered(folder, facts["files"]) is None


def altered(folder: Path, files: Mapping[str, list[int]], *, verify: bool = False) -> str | None:
    """The first file that is not what it was when it was written; None if all are.

    A file of the same size and time of change is taken as unchanged; of any other the checksum
    (CRC-32C) decides.

    Args:
        folder: of the store.
        files: name -> checksum, size in bytes, time of change in ns.
        verify: takes nothing as unchanged: what a disk has lost keeps its time.
    """
    for name, (checksum, size, changed) in files.items():
        try:
            facts = (folder / name).stat()
        except OSError:
            return name
        if facts.st_size != size:
            return name
        unsure = verify or facts.st_mtime_ns != changed
        if unsure and _checksum(folder / name) != checksum:
            return name
    return None


def print_files(folder: Path, names: Iterable[str]) -> dict[str, list[int]]:
    """Checksum, size in bytes and time of change in ns of each file."""
    found = {}
    for name in names:
        facts = (folder / name).stat()
        found[name] = [_checksum(folder / name), facts.st_size, facts.st_mtime_ns]
    return found


def crc32c(data: memoryview, begun: int = 0) -> int:
    """CRC-32C of bytes, a piece at a time, since the library wants copies.

    Args:
        data: the bytes.
        begun: the checksum of the bytes before them.
    """
    value = begun
    for begin in range(0, len(data), PIECE):
        value = google_crc32c.extend(value, bytes(data[begin : begin + PIECE]))
    return int(value)


def _checksum(path: Path) -> int:
    return crc32c(memoryview(path.read_bytes()))


def records_of(folder: Path) -> Path:
    """Where the records of an unfinished store lie: beside it, since Zarr lists what is in it."""
    return folder.with_suffix(".parts")


def _record(folder: Path, number: int) -> Path:
    return records_of(folder) / f"{number:06d}.npz"
