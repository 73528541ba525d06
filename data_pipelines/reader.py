"""Reads patches at random from a store that may be larger than memory: maps its files."""

import mmap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr

from data_pipelines.parts import chunk_file

LEAST_MAPS, MOST_MAPS = 256, 2**14
SHARE = 8  # of the handles, a reader takes one part: there are several at a time


def most_maps() -> int:
    """Files that may be mapped at once: each holds a handle, of which systems give few."""
    try:
        import resource
    except ImportError:  # Windows
        return LEAST_MAPS
    handles = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if handles == resource.RLIM_INFINITY:
        return MOST_MAPS
    return min(max(handles // SHARE, 1), MOST_MAPS)


class PatchReader:
    """Patches of a store by position, in any order.

    The files of the store are mapped into memory when they are first read, so that only what is
    asked for is read, and what has been read stays in the page cache of the system. Each process
    that gets a reader maps the files itself; of many only the last ones stay mapped.

    Args:
        path: of a finished store; `open_store` checks it.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        array = zarr.open_array(self.path / "patches", mode="r")
        assert array.compressors == () and array.chunks[1:] == array.shape[1:]  # by StoreWriter
        self.shape: tuple[int, ...] = tuple(array.shape)
        self.dtype = np.dtype(array.dtype).newbyteorder("<")
        self.scale = np.float32(array.attrs.get("scale_factor", 1.0))
        self.chunk = int(array.chunks[0])
        self._maps: dict[int, npt.NDArray[Any]] = {}
        self.most = most_maps()

    def __len__(self) -> int:
        return self.shape[0]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_maps": {}}

    def read(self, index: npt.NDArray[np.integer] | Sequence[int]) -> npt.NDArray[np.float32]:
        """The patches at these positions, in physical units.

        Args:
            index: positions, shape (n,).

        Returns:
            float32, shape (n, variable, y, x).
        """
        out = np.empty((len(index), *self.shape[1:]), dtype=self.dtype)
        positions = np.asarray(index, dtype=np.int64)
        chunks, rows = np.divmod(positions, self.chunk)
        maps = self._maps
        for i, (chunk, row) in enumerate(zip(chunks.tolist(), rows.tolist(), strict=True)):
            try:
                out[i] = maps[chunk][row]
            except KeyError:
                out[i] = self._map(chunk)[row]
        if self.dtype == np.float32:
            return out
        return out.astype(np.float32) * self.scale

    def _map(self, chunk: int) -> npt.NDArray[Any]:
        if len(self._maps) >= self.most:
            del self._maps[next(iter(self._maps))]  # the oldest; its file is closed
        self._maps[chunk] = found = self._file(chunk)
        return found

    def _file(self, chunk: int) -> npt.NDArray[Any]:
        with (self.path / chunk_file(chunk)).open("rb") as handle:
            mapped = mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ)
        return np.frombuffer(mapped, dtype=self.dtype).reshape(self.chunk, *self.shape[1:])
