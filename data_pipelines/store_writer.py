"""Writes a patch store: part by part beside its place, resumable, renamed when it is whole."""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import numpy.typing as npt
import xarray as xr
import zarr

from data_pipelines.parts import (
    Layout,
    PartWriter,
    fill_value,
    is_whole,
    print_files,
    read_record,
    records_of,
)
from data_pipelines.schema import (
    GROUPS,
    LABELS,
    PATCH_DIMS,
    SPLITS,
    STORE_VERSION,
    Columns,
    check_statistics,
)
from data_pipelines.store import (
    CHECKSUM,
    CHUNK_FACTS,
    FILES,
    LEVEL,
    MARKER,
    VARIABLE_COORDS,
    attributes_checksum,
)
from data_pipelines.writing import unfinished

CODED: dict[str, Sequence[str]] = {"label": LABELS, "group": GROUPS, "split": SPLITS}
TEXT = ("incident_id", "reason")
BLOCK = 2**18  # samples of a chunk of what is not patches


@dataclass
class StoreWriter:
    """A patch store that is being written.

    Attributes:
        path: folder to make; an older store there is replaced at the end.
        layout: where the samples of each part lie.
        shape: of a patch: variables, size, size.
        dtype: of the patches.
        identity: of the inputs and settings; what another identity left unfinished is thrown away.
        scale_factor: where patches are written as integers: what these are multiplied by.
    """

    path: Path
    layout: Layout
    shape: tuple[int, int, int]
    dtype: str
    identity: str
    scale_factor: float | None = None

    @property
    def folder(self) -> Path:
        """Where the parts are written."""
        return unfinished(self.path)

    def begin(self) -> list[int]:
        """Makes the folder, or takes up the one that an interrupted run left.

        Returns:
            Numbers of the parts that are not written yet.
        """
        plan = {
            "version": STORE_VERSION,
            "identity": self.identity,
            "sizes": list(self.layout.sizes),
            "chunk": self.layout.chunk,
            "shape": list(self.shape),
            "dtype": self.dtype,
        }
        records = records_of(self.folder)
        known = records / "plan.json"
        begun = known.is_file() and (self.folder / "patches" / "zarr.json").is_file()
        if not (begun and _read_plan(known) == plan):
            for left in (records, self.folder):
                if left.exists():
                    shutil.rmtree(left)
            records.mkdir(parents=True)
            zarr.open_group(self.folder, mode="a", zarr_format=3)
            attributes: dict[str, Any] = {"long_name": "patches of the fields"}
            if self.scale_factor is not None:
                attributes["scale_factor"] = self.scale_factor
            zarr.create_array(
                self.folder,
                name="patches",
                shape=(self.layout.total, *self.shape),
                chunks=(self.layout.chunk, *self.shape),
                dtype=self.dtype,
                # One folder for all chunks: to make one for each takes a fifth of the time.
                chunk_key_encoding={"name": "default", "separator": "."},
                compressors=None,  # so that readers can map the files into memory
                fill_value=fill_value(np.dtype(self.dtype)),
                dimension_names=PATCH_DIMS,
                attributes=attributes,
            )
            known.write_text(json.dumps(plan))
        return [k for k in range(len(self.layout.sizes)) if not is_whole(self.folder, k)]

    def part(self, number: int) -> PartWriter:
        """What writes one part."""
        return PartWriter(self.folder, number, self.layout, self.shape, self.dtype)

    def gather(self, name: str, fill: int | bool) -> npt.NDArray[Any]:
        """One value of every sample of the store, as the records hold it, shape (total,)."""
        values: npt.NDArray[Any] | None = None
        for number, offset in enumerate(self.layout.offsets):
            part = self.record(number)[0][name]
            if values is None:
                values = np.full(self.layout.total, fill, dtype=part.dtype)
            values[offset : offset + len(part)] = part
        assert values is not None
        return values

    def record(self, number: int) -> tuple[Columns, dict[str, Any]]:
        """The values of the samples of a part, and what else the part says."""
        return read_record(self.folder, number)

    def facts(self) -> list[dict[str, Any]]:
        """What the record of each part says besides."""
        return [self.record(number)[1] for number in range(len(self.layout.sizes))]

    def finish(
        self,
        columns: Callable[[int], Columns],
        variables: xr.Dataset,
        statistics: tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]],
        attributes: Mapping[str, Any],
        *,
        names: Mapping[str, Sequence[str]] | None = None,
        texts: Mapping[str, Sequence[str]],
    ) -> Path:
        """Writes what belongs to samples and store, the manifest, the marker; renames the folder.

        Args:
            columns: gives, for a part, the values of its samples: ``time, latitude, longitude,
                label, group, split, incident_id, reason``; the last two as index into `texts`.
            variables: coordinates along ``variable``.
            statistics: mean and standard deviation, each shape (variable,).
            attributes: what the store says about itself; JSON values.
            names: of the labels and groups, where they are not those of incidents.
            texts: the values of ``incident_id`` and ``reason``.

        Returns:
            The path of the store.
        """
        check_statistics(
            [str(v) for v in variables["variable"].values], *map(xr.DataArray, statistics)
        )
        coded = CODED | dict(names or {})
        for left in self.folder.iterdir():  # by a run that was interrupted here
            if left.is_dir() and left.name != "patches":
                shutil.rmtree(left)
        self._write_columns(columns, coded, texts)
        described = {
            k: [str(v) for v in variables[k].values]
            for k in (*VARIABLE_COORDS, LEVEL)
            if k != LEVEL or k in variables.coords
        }
        # Text along `variable` lies in the attributes: Zarr v3 has no stable type for it yet.
        described["variable"] = [str(v) for v in variables["variable"].values]
        kinds = ("mean", "standard deviation")
        about = xr.Dataset(
            {
                key: (("variable",), values, {"long_name": f"{kind} over training dates"})
                for key, values, kind in zip(("mean", "std"), statistics, kinds, strict=True)
            }
        )
        about.attrs = {**attributes, "variables": described, "store_version": STORE_VERSION}
        about.merge(self._chunks()).to_zarr(self.folder, mode="a", consolidated=False)
        inside = {str(f.relative_to(self.folder)) for f in self.folder.rglob("*") if f.is_file()}
        rest = sorted(f for f in inside if not f.startswith("patches/c.") and f != "zarr.json")
        group = zarr.open_group(self.folder, mode="a")
        group.attrs.update({FILES: print_files(self.folder, rest)})
        group.attrs.update({CHECKSUM: attributes_checksum(group.attrs.asdict()), MARKER: True})
        if self.path.exists():  # only now: until here the older store was whole
            shutil.rmtree(self.path)
        self.folder.rename(self.path)
        shutil.rmtree(records_of(self.folder))
        return self.path

    def _chunks(self) -> xr.Dataset:
        """Part, checksum, size and time of change of the file of each chunk of patches."""
        rows = [
            (number, *values)
            for number, facts in enumerate(self.facts())
            for values in facts["files"].values()
        ]
        columns = np.array(rows, dtype=np.int64).reshape(-1, len(CHUNK_FACTS)).T
        return xr.Dataset(
            {
                name: (("chunk",), values, {"long_name": f"{name.replace('_', ' ')} of patches"})
                for name, values in zip(CHUNK_FACTS, columns, strict=True)
            }
        )

    def _write_columns(
        self,
        columns: Callable[[int], Columns],
        coded: Mapping[str, Sequence[str]],
        texts: Mapping[str, Sequence[str]],
    ) -> None:
        """Block by block, so that memory does not grow with the number of samples."""
        total = self.layout.total
        first = columns(0)
        template = xr.Dataset()
        for name, values in first.items():
            zeros = da.zeros(total, chunks=BLOCK, dtype=values.dtype)
            template[name] = (("sample",), zeros, _attributes(name, coded, texts))
        encoding: dict[str, Any] = {name: {"chunks": (min(BLOCK, total),)} for name in first}
        encoding["time"] |= {"units": "seconds since 1970-01-01", "dtype": "int64"}
        template.to_zarr(
            self.folder, mode="a", consolidated=False, compute=False, encoding=encoding
        )
        block = {name: _empty(BLOCK, values.dtype) for name, values in first.items()}
        begun = 0
        for number, offset in enumerate(self.layout.offsets):
            part = first if number == 0 else columns(number)
            done, size = 0, self.layout.sizes[number]
            while done < size:
                at = int(offset) + done - begun
                if at >= BLOCK:
                    self._write_block(block, begun, BLOCK)
                    block = {n: _empty(BLOCK, v.dtype) for n, v in first.items()}
                    begun += BLOCK
                    continue
                count = min(size - done, BLOCK - at)
                for name, values in part.items():
                    block[name][at : at + count] = values[done : done + count]
                done += count
        self._write_block(block, begun, total - begun)

    def _write_block(self, block: Columns, begun: int, count: int) -> None:
        part = xr.Dataset({name: (("sample",), v[:count]) for name, v in block.items()})
        region = {"sample": slice(begun, begun + count)}
        part.to_zarr(self.folder, region=region, consolidated=False)


def _empty(count: int, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Values of samples that only fill up a chunk."""
    if dtype.kind == "M":
        return np.full(count, np.datetime64("NaT"), dtype=dtype)
    return np.full(count, np.nan if dtype.kind == "f" else 0, dtype=dtype)


def _attributes(
    name: str, coded: Mapping[str, Sequence[str]], texts: Mapping[str, Sequence[str]]
) -> dict[str, Any]:
    """CF attributes: flag meanings of codes, the values of text, units of positions."""
    attributes: dict[str, Any] = {"long_name": f"{name} of the sample"}
    if name in coded:
        attributes |= {"flag_values": list(range(len(coded[name])))}
        attributes |= {"flag_meanings": " ".join(coded[name])}
    elif name in TEXT:
        attributes |= {"values": [str(v) for v in texts[name]]}
    elif name == "latitude":
        attributes |= {"standard_name": "latitude", "units": "degrees_north"}
    elif name == "longitude":
        attributes |= {"standard_name": "longitude", "units": "degrees_east"}
    elif name == "time":
        attributes |= {"standard_name": "time"}
    return attributes


def _read_plan(path: Path) -> Any:
    """What an interrupted run wrote; None where it is damaged."""
    try:
        return json.loads(path.read_text())
    except ValueError:
        return None
