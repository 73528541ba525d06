import hashlib
import io
import pickle
import tarfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from conftest import SHARED, write_idx
from PIL import Image

from data_pipelines.errors import InputError
from data_pipelines.image_files import read_idx, read_images
from data_pipelines.image_sources import PUBLISHED, Published


@pytest.fixture(autouse=True)
def _fresh(monkeypatch, tmp_path):
    read_images.cache_clear()
    monkeypatch.delenv("WEATHER_TDR_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("data_pipelines.image_sources.cache_folder", lambda: tmp_path / "cache")


def test_idx_files_gzipped_or_not(mnist):
    data = read_images("mnist", str(mnist))
    assert data.train[0].shape == (600, 1, 28, 28) and data.test[0].shape == (100, 1, 28, 28)
    np.testing.assert_array_equal(data.train[1], np.arange(600) % 10)
    fashion = read_images("fashion_mnist", str(mnist))
    assert fashion.classes[7] == "sneaker"


def test_damaged_and_missing_files(mnist):
    path = mnist / "train-images-idx3-ubyte"
    whole = path.read_bytes()
    path.write_bytes(whole[:-7])
    with pytest.raises(InputError, match=r"no IDX file.*delete it and fetch it again"):
        read_idx(path)
    write_idx(path, np.zeros((5, 28, 28)), False)
    with pytest.raises(InputError, match="as many labels as images"):
        read_images("mnist", str(mnist))
    with pytest.raises(InputError, match=r"train-images-idx3-ubyte.*found none in /none"):
        read_images("mnist", "/none")
    with pytest.raises(InputError, match="Did you mean `mnist`"):
        read_images("mnits")


def overwrite(path):
    """Other bytes in the middle of a file."""
    whole = bytearray(path.read_bytes())
    half = len(whole) // 2
    whole[half : half + 200] = bytes(255 - b for b in whole[half : half + 200])
    path.write_bytes(whole)


def test_damage_within_compressed_files(mnist, tmp_path):
    images = mnist / "t10k-images-idx3-ubyte.gz"
    overwrite(images)
    with pytest.raises(InputError, match="no IDX file"):
        read_idx(images)
    rng = np.random.default_rng(0)
    for dataset, name, mode in (("cifar10", "cifar-10-python.tar.gz", "w:gz"),
                                ("cifar10_jpeg", "cifar-10-jpeg.tar.xz", "w:xz")):  # fmt: skip
        with tarfile.open(tmp_path / name, mode) as archive:
            for k in range(3):
                add(archive, f"noise{k}", rng.bytes(200_000))
        overwrite(tmp_path / name)
        with pytest.raises(InputError, match="no complete archive"):
            read_images(dataset, str(tmp_path))


def test_usual_places_are_searched(mnist, tmp_path, monkeypatch):
    place = tmp_path / "elsewhere" / "MNIST" / "raw"
    place.mkdir(parents=True)
    for path in mnist.glob("*ubyte*"):
        path.rename(place / path.name)
    with pytest.raises(InputError, match="data/mnist"):
        read_images("mnist")
    monkeypatch.setenv("WEATHER_TDR_DATA", str(tmp_path / "elsewhere"))
    assert len(read_images("mnist").train[1]) == 600
    monkeypatch.delenv("WEATHER_TDR_DATA")
    (tmp_path / "project").mkdir()
    (tmp_path / "shared").mkdir()
    place.parents[1].rename(tmp_path / "shared" / "data")
    monkeypatch.chdir(tmp_path / "project")
    read_images.cache_clear()
    assert len(read_images("mnist").train[1]) == 600


def add(archive, name, data):
    info = tarfile.TarInfo(name)
    info.size = len(data)
    archive.addfile(info, io.BytesIO(data))


NAMES = {"cifar10": [b"a", *b"bcdefghij".decode()], "cifar100": [f"class {i}" for i in range(100)]}


def cifar(path, dataset, images, labels, **changed):
    """An archive in the published layout: n images in each batch."""
    folder, batches, key = {
        "cifar10": (
            "cifar-10-batches-py",
            [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"],
            b"labels",
        ),
        "cifar100": ("cifar-100-python", ["train", "test"], b"fine_labels"),
    }[dataset]
    meta, names = (
        ("batches.meta", b"label_names") if dataset == "cifar10" else ("meta", b"fine_label_names")
    )
    with tarfile.open(path, "w:gz") as archive:
        for i, name in enumerate(batches):
            data = {b"data": (images + i).reshape(len(images), -1), key: labels}
            add(archive, f"{folder}/{name}", changed.get(name, pickle.dumps(data, 2)))
        add(
            archive,
            f"{folder}/{meta}",
            pickle.dumps({names: changed.get("names", NAMES[dataset])}, 2),
        )


@pytest.mark.parametrize("dataset", ["cifar10", "cifar100"])
def test_cifar_archives_keep_order_and_channels(tmp_path, dataset):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 200, (4, 3, 32, 32)).astype(np.uint8)
    cifar(tmp_path / f"{dataset[:5]}-{dataset[5:]}-python.tar.gz", dataset, images, [0, 1, 0, 1])
    data = read_images(dataset, str(tmp_path))
    batches = 5 if dataset == "cifar10" else 1
    np.testing.assert_array_equal(
        data.train[0], np.concatenate([images + i for i in range(batches)])
    )
    np.testing.assert_array_equal(data.test[0], images + batches)
    assert data.train[1].tolist() == [0, 1, 0, 1] * batches
    assert data.classes[:2] == (("a", "b") if batches == 5 else ("class 0", "class 1"))


@pytest.mark.parametrize(
    ("labels", "names", "words"),
    [
        ([0, 17], NAMES["cifar10"], "train labels of cifar10 must be 0 to 9, got 5 others, .* 17"),
        ([-1, 0], NAMES["cifar10"], "must be 0 to 9, got 5 others, such as -1"),
        (3, NAMES["cifar10"], "data_batch_1 in .* n labels"),
        (["a", "b"], NAMES["cifar10"], "data_batch_1 in .* n labels"),
        ([0, 1], [b"a", b"b"], "must name 10 classes, got 2"),
        ([0, 1], 5, "batches.meta in .* must hold a list of names, `label_names`"),
    ],
)
def test_labels_and_names_that_cannot_be(tmp_path, labels, names, words):
    images = np.zeros((2, 3, 32, 32), np.uint8)
    cifar(tmp_path / "cifar-10-python.tar.gz", "cifar10", images, labels, names=names)
    with pytest.raises(InputError, match=words):
        read_images("cifar10", str(tmp_path))


@pytest.mark.parametrize(
    ("file", "values", "words"),
    [
        ("train-labels-idx1-ubyte", np.full(600, 200), "train labels of mnist must be 0 to 9"),
        ("train-labels-idx1-ubyte", np.arange(600) % 27, "folder` to those of this data set"),
        ("train-images-idx3-ubyte", np.zeros((600, 28, 14)), "must be square.*28 x 14"),
        ("train-images-idx3-ubyte", np.zeros((600, 14, 14)), "as large in test as in train"),
        ("train-images-idx3-ubyte", np.zeros((0, 28, 28)), "as many labels"),
    ],
)
def test_files_of_another_data_set(mnist, file, values, words):
    write_idx(mnist / file, values, False)
    with pytest.raises(InputError, match=words):
        read_images("mnist", str(mnist))


def test_the_digest_tells_data_sets_apart(mnist):
    before = read_images("mnist", str(mnist)).digest
    read_images.cache_clear()
    assert read_images("mnist", str(mnist)).digest == before
    read_images.cache_clear()
    write_idx(mnist / "train-labels-idx1-ubyte", (np.arange(600) + 1) % 10, False)
    assert read_images("mnist", str(mnist)).digest != before


class Evil:
    def __reduce__(self):
        return (exec, ("raise SystemExit('executed')",))


def test_nothing_in_a_pickle_is_executed(tmp_path):
    images = np.zeros((2, 3, 32, 32), np.uint8)
    path = tmp_path / "cifar-10-python.tar.gz"
    cifar(path, "cifar10", images, [0, 1], data_batch_3=pickle.dumps(Evil(), 2))
    with pytest.raises(InputError, match=r"data_batch_3.*asks for .*exec"):
        read_images("cifar10", str(tmp_path))
    cifar(path, "cifar10", images, [0, 1], test_batch=pickle.dumps({b"data": [1]}, 2))
    with pytest.raises(InputError, match=r"test_batch.*must hold `data`"):
        read_images("cifar10", str(tmp_path))
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(InputError, match="no complete archive"):
        read_images("cifar10", str(tmp_path))


def test_without_network_the_error_says_what_to_put_where(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise ConnectionError("Network is unreachable")

    monkeypatch.setattr("pooch.retrieve", refuse)
    with pytest.raises(InputError, match=r"Put cifar-100-python.tar.gz into .*by hand"):
        read_images("cifar100", str(tmp_path), True)


def test_downloads_are_checked_by_their_hash(tmp_path, monkeypatch):
    """From a server of this machine: the real code fetches, and refuses what has changed."""
    name = "cifar-10-python.tar.gz"
    (tmp_path / "served").mkdir()
    cifar(tmp_path / "served" / name, "cifar10", np.zeros((2, 3, 32, 32), np.uint8), [0, 1])
    served = partial(SimpleHTTPRequestHandler, directory=str(tmp_path / "served"))
    with ThreadingHTTPServer(("127.0.0.1", 0), served) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/"
        digest = hashlib.md5((tmp_path / "served" / name).read_bytes()).hexdigest()
        for known, words in (("0" * 32, "could not be fetched"), (digest, "")):
            monkeypatch.setitem(PUBLISHED, "cifar10", Published(url, {name: known}, ("x",)))
            if words:
                with pytest.raises(InputError, match=words):
                    read_images("cifar10", str(tmp_path / "here"), True)
                assert not list((tmp_path / "here").rglob(name))
            else:
                assert len(read_images("cifar10", str(tmp_path / "here"), True).train[1]) == 10
        server.shutdown()


NAMES_OF_CIFAR10 = ("plane", "car", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def test_jpeg_archive(tmp_path):
    """Uniform colours survive JPEG: order, labels and channels can be checked."""
    path = tmp_path / "cifar-10-jpeg.tar.xz"
    colours = {"train": [(250, 10, 10), (10, 250, 10), (10, 10, 250)], "test": [(240, 240, 5)]}
    with tarfile.open(path, "w:xz") as archive:
        for split, values in colours.items():
            for i in reversed(range(len(values))):
                out = io.BytesIO()
                Image.new("RGB", (32, 32), values[i]).save(out, "JPEG")
                add(archive, f"cifar-10-jpeg/{split}/{i:05d}.jpg", out.getvalue())
            text = "\n".join(str(i % 2) for i in range(len(values)))
            add(archive, f"cifar-10-jpeg/{split}_labels.txt", text.encode())
        add(archive, "cifar-10-jpeg/batches.meta.txt", "\n".join(NAMES_OF_CIFAR10).encode())
        add(archive, "cifar-10-jpeg/notes.txt", b"\xff\xfe")  # no label file: not read
    data = read_images("cifar10_jpeg", str(tmp_path))
    assert data.train[0].shape == (3, 3, 32, 32) and data.train[1].tolist() == [0, 1, 0]
    mean = data.train[0].mean(axis=(2, 3))
    np.testing.assert_allclose(mean, colours["train"], atol=6)
    assert data.classes == NAMES_OF_CIFAR10


@pytest.mark.parametrize(
    ("name", "size", "labels", "words"),
    [
        ("00000", 32, "x", "must hold numbers"),
        ("00000", 32, "\u00b2", "must hold numbers"),
        ("00000", 32, "17", "train labels of cifar10_jpeg must be 0 to 9"),
        ("00000", 16, "0", r"its shape is \(16, 16, 3\)"),
        ("one", 32, "0", "a number as its name"),
        ("00001", 32, "0", "got 1 for 1"),
    ],
)
def test_bad_jpeg_archives(tmp_path, name, size, labels, words):
    with tarfile.open(tmp_path / "cifar-10-jpeg.tar.xz", "w:xz") as archive:
        out = io.BytesIO()
        Image.new("RGB", (size, size)).save(out, "JPEG")
        for split in ("train", "test"):
            add(archive, f"cifar-10-jpeg/{split}/{name}.jpg", out.getvalue())
            add(archive, f"cifar-10-jpeg/{split}_labels.txt", labels.encode())
    with pytest.raises(InputError, match=words):
        read_images("cifar10_jpeg", str(tmp_path))


@pytest.mark.skipif(not SHARED.is_dir(), reason="the real files are not at hand")
def test_the_real_files():
    data = read_images("mnist", str(SHARED / "mnist"))
    assert data.train[0].shape == (60000, 1, 28, 28)
    counts = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]  # LeCun's page
    assert np.bincount(data.test[1]).tolist() == counts


@pytest.mark.skipif(not SHARED.is_dir(), reason="the real files are not at hand")
def test_the_real_cifar_against_its_lossless_part():
    """The first 1,000 lossless images agree with the JPEG ones: same order, labels, channels."""
    from data_pipelines.image_files import _members, _unpickle

    path = SHARED / "cifar10" / "cifar-10-python-first1000-lossless.tar.gz"
    batch = _members(path, "cifar-10-batches-py", {"data_batch_1"})["data_batch_1"]
    values = _unpickle(batch, path, "data_batch_1")
    exact = values[b"data"].reshape(-1, 3, 32, 32).astype(float)
    data = read_images("cifar10_jpeg", str(SHARED / "cifar10"))
    assert np.bincount(data.train[1]).tolist() == [5000] * 10 and len(data.test[1]) == 10_000
    assert data.train[1][:1000].tolist() == list(values[b"labels"])
    assert np.abs(data.train[0][:1000] - exact).mean() < 8  # of 255; 5.8 over 4,000 images
