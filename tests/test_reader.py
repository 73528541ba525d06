"""Patches read at random from the files are those of the store."""

import pickle

import numpy as np
import pytest
import torch
import xarray as xr
from test_build import build

from data_pipelines.errors import InputError
from data_pipelines.image_store import write_image_store
from data_pipelines.images import Images
from data_pipelines.reader import MOST_MAPS, PatchReader, most_maps
from data_pipelines.store import open_store
from weather_tdr.data import StoredSamples, load_split, positions
from weather_tdr.pipeline_benchmark import PipelineBenchmark, run_pipelines


@pytest.fixture(scope="module")
def store(small_files, tmp_path_factory):
    return open_store(build(small_files, tmp_path_factory.mktemp("read") / "patches.zarr"))


def test_any_order_gives_what_zarr_gives(store):
    reader = PatchReader(store.encoding["source"])
    index = np.random.default_rng(0).integers(0, len(reader), 300)
    index[:2] = 0, len(reader) - 1
    plain = xr.open_zarr(store.encoding["source"], consolidated=False)["patches"].values
    np.testing.assert_array_equal(reader.read(index), plain[index])
    again = pickle.loads(pickle.dumps(reader))  # a worker maps the files itself
    np.testing.assert_array_equal(again.read(index[:5]), plain[index[:5]])
    assert reader.read([]).shape == (0, 4, 8, 8)


@pytest.mark.parametrize("most", [1, 3])
def test_few_files_are_mapped_at_once(store, most):
    """Handles of files are scarce: a store of many chunks is read with those that there are."""
    reader = PatchReader(store.encoding["source"])
    reader.chunk = 5  # as of a store cut finer: what is mapped is another part of the file
    index = np.random.default_rng(0).integers(0, len(reader), 300)
    wanted = PatchReader(store.encoding["source"])
    mapped = []

    def cut(chunk):
        mapped.append(chunk)
        return wanted.read(np.arange(5 * chunk, min(5 * chunk + 5, len(reader))))

    reader.most, reader._file = most, cut
    np.testing.assert_array_equal(reader.read(index), wanted.read(index))
    assert len(reader._maps) == most < len(set(mapped))
    assert 1 <= most_maps() <= MOST_MAPS


def test_packed_images(tmp_path):
    images = Images(train_size=60, target_size=6)
    store = open_store(write_image_store(tmp_path / "i.zarr", images, 0))
    values = PatchReader(tmp_path / "i.zarr").read(np.arange(20))
    np.testing.assert_allclose(values, store["patches"].values[:20], atol=1e-7)
    assert 0.9 < values.max() <= 1.0


def test_stored_samples_are_the_loaded_split(store):
    """Also through a DataLoader with a worker, which is started afresh."""
    index = positions(store, "train")
    loaded, samples = load_split(store, "train"), StoredSamples(store, index)
    loader = torch.utils.data.DataLoader(
        samples,
        batch_sampler=torch.utils.data.BatchSampler(
            torch.utils.data.RandomSampler(samples), 64, drop_last=False
        ),
        collate_fn=_whole,
        num_workers=1,
        multiprocessing_context="spawn",
    )
    seen = list(loader)
    patches = torch.cat([b.patches for b in seen])
    assert len(patches) == len(loaded) == len(samples)
    torch.testing.assert_close(
        patches.double().sum((0, 2, 3)), loaded.patches.double().sum((0, 2, 3))
    )
    mean, std = (store[k].values.reshape(1, -1, 1, 1) for k in ("mean", "std"))
    wanted = (store["patches"].values[index] - mean) / std
    np.testing.assert_allclose(loaded.patches, wanted, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(loaded.groups, store["group"].values[index])


def _whole(batch):
    return batch


def test_the_benchmark_measures_every_way(tmp_path):
    settings = PipelineBenchmark(output=str(tmp_path), days=10, size=32, rounds=1, archives=[0.5])
    table = run_pipelines(settings)
    lazy = "building from lazy fields, one thread"
    assert {"building", "reading", "peak memory", lazy} == set(table["measure"])
    assert (table["value"] > 0).all()
    assert (table.groupby("measure")["ratio"].first() == 1.0).all()
    assert [p.name for p in (tmp_path / "pipelines").iterdir()] == ["pipelines.csv"]
    with pytest.raises(InputError, match=r"`archives` at least 0\.5"):
        PipelineBenchmark(archives=[0.1])
