"""The store is written part by part: interrupted, resumed, on several workers, checked."""

import json
import os
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from forks import in_a_child, in_a_process
from hypothesis import given
from hypothesis import strategies as st
from test_build import LAGS, SPLIT

import data_pipelines.blocks
import data_pipelines.opening
import data_pipelines.parts
from data_pipelines.blocks import build_part
from data_pipelines.build import build_store
from data_pipelines.cluster import Cluster
from data_pipelines.errors import InputError
from data_pipelines.parts import Layout, chunk_samples
from data_pipelines.settings import Fields, Incidents, Patches
from data_pipelines.store import open_store
from data_pipelines.store_writer import StoreWriter


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    """Chunks so small that the small files make many parts."""
    shrink(monkeypatch)


def shrink(patch):
    patch.setattr(data_pipelines.opening, "CHUNK_BYTES", 60_000)
    patch.setattr(data_pipelines.parts, "CHUNK_BYTES", 2**17)
    patch.setattr(data_pipelines.blocks, "PART_CHUNKS", 4)


def build(files, path, **more):
    fields = Fields([str(files[0])], ["msl", "vo850"], LAGS, ["vo850"])
    incidents = Incidents(catalogue=str(files[1]), where={"deepening_bergeron": {"min": 1.0}})
    return build_store(path, fields, incidents, Patches(8, 2, 0.2), SPLIT, **more)


def content(path):
    """Bytes of every file but the checked times of change, and the values."""
    files = {
        str(f.relative_to(path)): f.read_bytes()
        for f in sorted(Path(path).rglob("*"))
        if f.is_file() and "chunk_changed" not in str(f) and f != path / "zarr.json"
    }
    return files, open_store(path).compute()


def same(path, other):
    (files, store), (others, again) = content(path), content(other)
    assert files == others
    xr.testing.assert_identical(store, again)


@pytest.fixture(scope="module")
def reference(small_files, tmp_path_factory):
    """Built at one go, on one thread."""
    with pytest.MonkeyPatch.context() as patch:
        shrink(patch)
        folder = tmp_path_factory.mktemp("reference")
        return build(small_files, folder / "patches.zarr", cluster=Cluster("threads", 1))


def test_many_parts_hold_what_one_part_holds(reference, small_files, tmp_path, monkeypatch):
    store = open_store(reference)
    assert len(np.unique(xr.open_zarr(reference, consolidated=False)["chunk_part"])) > 3
    monkeypatch.setattr(data_pipelines.opening, "CHUNK_BYTES", 2**26)
    monkeypatch.setattr(data_pipelines.parts, "CHUNK_BYTES", 2**22)
    whole = open_store(build(small_files, tmp_path / "whole.zarr"))
    kept = store.isel(sample=~np.isnat(store["time"].values))  # without what fills chunks up
    assert kept.sizes["sample"] < store.sizes["sample"]
    np.testing.assert_allclose(kept["mean"], whole["mean"], rtol=1e-12)
    drop = ["mean", "std"]
    xr.testing.assert_equal(kept.drop_vars(drop).compute(), whole.drop_vars(drop).compute())


def test_threads_and_processes_write_the_same_bytes(reference, small_files, tmp_path):
    same(reference, build(small_files, tmp_path / "a.zarr", cluster=Cluster("threads", 3)))
    same(reference, build(small_files, tmp_path / "b.zarr", cluster=Cluster("processes", 2)))


def die_once(job, number):
    """Kills its own worker at part 2, the first time."""
    flag = job.folder.with_name("died")
    if number == 2 and not flag.exists():
        flag.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    build_part(job, number)


def test_a_worker_killed_in_the_middle_changes_nothing(
    reference, small_files, tmp_path, monkeypatch
):
    monkeypatch.setattr(data_pipelines.build, "build_part", die_once)
    path = build(small_files, tmp_path / "c.zarr", cluster=Cluster("processes", 2))
    assert (tmp_path / "died").exists()
    same(reference, path)


def test_a_scheduler_by_address(reference, small_files, tmp_path):
    from distributed import LocalCluster

    # Its worker is a thread of this process, so that nothing has to start up.
    with LocalCluster(
        n_workers=1, processes=False, protocol="tcp", dashboard_address=None
    ) as running:
        cluster = Cluster(running.scheduler_address)
        same(reference, build(small_files, tmp_path / "d.zarr", cluster=cluster))


@pytest.mark.parametrize("when", ["_write_columns", "_chunks", "rename", "rmtree"])
def test_interrupted_while_it_is_finished(reference, small_files, tmp_path, monkeypatch, when):
    """At each of its last steps; then also with the finished store deleted by hand."""
    path = tmp_path / "f.zarr"

    def stop(*_, **__):
        raise KeyboardInterrupt

    where = {"rename": Path, "rmtree": shutil}.get(when, StoreWriter)
    with monkeypatch.context() as patch:
        patch.setattr(where, when, stop)
        with pytest.raises(KeyboardInterrupt):
            build(small_files, path)
    assert path.exists() == (when == "rmtree")
    if when == "rmtree":
        shutil.rmtree(path)  # its records are still there
    build(small_files, path)
    same(reference, path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["f.zarr", "quality.json"]


def kill_five_times(files, path) -> None:
    """Builds in processes that are killed at random moments, each after one more part."""
    shrink(pytest.MonkeyPatch())
    rng = np.random.default_rng(0)

    def parts():
        return len(list(path.with_name("killed.zarr.parts").glob("*.npz")))

    for _ in range(5):
        before = parts()
        child = in_a_child(lambda: build(files, path, cluster=Cluster("threads", 1)))
        while parts() == before:
            assert os.waitpid(child, os.WNOHANG) == (0, 0)
            time.sleep(0.002)
        time.sleep(float(rng.random()) * 0.05)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        with pytest.raises(InputError, match="no patch store"):
            open_store(path)


def test_killed_at_random_moments_it_goes_on_to_the_same_store(reference, small_files, tmp_path):
    path = tmp_path / "killed.zarr"
    in_a_process(
        "from pathlib import Path; from test_parts import kill_five_times;"
        f"kill_five_times({[str(f) for f in small_files]!r}, Path({str(path)!r}))"
    )
    assert len(list((tmp_path / "killed.zarr.parts").glob("*.npz"))) >= 5
    build(small_files, path)
    same(reference, path)


def test_an_error_in_a_part_leaves_the_others_and_the_older_store(
    reference, small_files, tmp_path, monkeypatch
):
    path = build(small_files, tmp_path / "e.zarr")

    def fail(job, number):
        if number == 3:
            raise InputError("`fields.paths`: cannot read the disk.")
        build_part(job, number)

    monkeypatch.setattr(data_pipelines.build, "build_part", fail)
    with pytest.raises(InputError, match="cannot read the disk"):
        build(small_files, path, seed=1, cluster=Cluster("threads", 1))
    same(reference, path)
    there = {int(p.stem) for p in (tmp_path / "e.zarr.parts").glob("*.npz")}
    assert there >= {0, 1, 2} and 3 not in there
    done: list[int] = []
    monkeypatch.setattr(
        data_pipelines.build, "build_part", lambda job, n: (done.append(n), build_part(job, n))
    )
    build(small_files, path, seed=1)
    assert 3 in done and not there & set(done)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["e.zarr", "quality.json"]


def test_an_altered_store_is_refused_by_part(reference, tmp_path):
    path = tmp_path / "p.zarr"
    shutil.copytree(reference, path)  # has other times of change
    open_store(path)
    parts = {
        "patches/c.2.0.0.0": "part 0",
        "label/c/0": "the values of the samples",
        "patches/c.5.0.0.0": "part 1",
        "chunk_checksum/c/0": "the values of the samples",
    }
    for file, part in parts.items():
        data = (path / file).read_bytes()
        flipped = bytearray(data)
        flipped[len(data) // 2] ^= 1
        for wrong in (bytes(flipped), data[:-1], None):
            if wrong is None:
                (path / file).unlink()
            else:
                (path / file).write_bytes(wrong)
            with pytest.raises(InputError, match=f"{file} of {part} changed"):
                open_store(path)
        (path / file).write_bytes(data)
    open_store(path)
    # What a disk loses keeps its time of change: only reading it shows.
    file, facts = path / "patches" / "c.2.0.0.0", (path / "patches" / "c.2.0.0.0").stat()
    data = file.read_bytes()
    shutil.copytree(path, tmp_path / "rotten.zarr", copy_function=shutil.copy2)
    stored = open_store(reference).encoding["source"]
    original = Path(stored) / "patches" / "c.2.0.0.0"
    rotten = tmp_path / "rotten.zarr" / "patches" / "c.2.0.0.0"
    rotten.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    os.utime(rotten, ns=(facts.st_atime_ns, original.stat().st_mtime_ns))
    open_store(tmp_path / "rotten.zarr")
    with pytest.raises(InputError, match=r"c\.2\.0\.0\.0 of part 0 changed"):
        open_store(tmp_path / "rotten.zarr", verify=True)
    open_store(path, verify=True)
    attributes = json.loads((path / "zarr.json").read_text())
    for change in ({"variables": None}, {"grid": {"stride": 3}}, {"more": 1}):
        changed = {**attributes, "attributes": {**attributes["attributes"], **change}}
        (path / "zarr.json").write_text(json.dumps(changed))
        with pytest.raises(InputError, match="changed attributes in zarr"):
            open_store(path)
    (path / "zarr.json").write_text(json.dumps(attributes))
    open_store(path)


@given(st.lists(st.integers(0, 100), min_size=1, max_size=20), st.sampled_from([1, 4, 16]))
def test_parts_begin_at_chunks_and_never_overlap(sizes, chunk):
    layout = Layout(tuple(sizes), chunk)
    end = 0
    for offset, size in zip(layout.offsets, sizes, strict=True):
        assert offset % chunk == 0 and end <= offset < end + chunk + (size == 0)
        end = offset + size
    assert layout.total == end


def test_chunks_are_powers_of_two(monkeypatch):
    monkeypatch.undo()
    assert chunk_samples(32 * 32 * 4 * 4) == 256 and chunk_samples(10**9) == 16
