import gzip
import struct

import numpy as np
import pytest
from conftest import SHARED
from hypothesis import given
from hypothesis import strategies as st

from data_pipelines.errors import InputError
from data_pipelines.images import Images, class_sizes, make_image_sets, read_idx, read_images


def write_idx(path, values, zipped):
    data = struct.pack(">HBB", 0, 8, values.ndim) + struct.pack(f">{values.ndim}I", *values.shape)
    data += values.astype(np.uint8).tobytes()
    if zipped:
        path.with_name(path.name + ".gz").write_bytes(gzip.compress(data))
    else:
        path.write_bytes(data)


@pytest.fixture
def mnist(tmp_path):
    """Small files in MNIST's format: 60 images of each of 10 classes, every image unlike."""
    rng = np.random.default_rng(0)
    for zipped, (prefix, n) in enumerate((("train", 600), ("t10k", 100))):
        images = rng.integers(0, 256, (n, 28, 28))
        write_idx(tmp_path / f"{prefix}-images-idx3-ubyte", images, bool(zipped))
        write_idx(tmp_path / f"{prefix}-labels-idx1-ubyte", np.arange(n) % 10, bool(zipped))
    return tmp_path


def test_idx_files_gzipped_or_not(mnist):
    data = read_images(Images("mnist", str(mnist)))
    assert data["train"][0].shape == (600, 1, 28, 28) and data["test"][0].shape == (100, 1, 28, 28)
    assert data["train"][0].min() >= 0 and data["train"][0].max() <= 1
    np.testing.assert_array_equal(data["train"][1], np.arange(600) % 10)


def test_sizes_of_the_reference_implementation():
    """n_majority = train / (M + m (1 - ratio)); n_minority = n_majority (1 - ratio)."""
    assert class_sizes(Images(ratio=0.995, train_size=5000)) == (4975, 25)
    assert class_sizes(Images(ratio=0.9, train_size=5000)) == (4545, 455)
    several = Images(minority=[1], majority=[2, 3], ratio=0.9, train_size=2100)
    assert class_sizes(several) == (1000, 100)


@given(
    ratio=st.floats(0, 0.9),
    target=st.integers(2, 12),
    train=st.integers(20, 60),
    seed=st.integers(0, 9),
)
def test_sets_are_disjoint_balanced_and_of_the_right_size(ratio, target, train, seed):
    images = Images(
        "digits", minority=[3], majority=[8], ratio=ratio, train_size=train, target_size=target
    )
    sets = make_image_sets(images, seed)
    n_major, n_minor = class_sizes(images)
    assert np.bincount(sets.train[1], minlength=2).tolist() == [n_major, n_minor]
    half = -(-target // 2)
    assert np.bincount(sets.target[1], minlength=2).tolist() == [half, half]
    again = make_image_sets(images, seed)
    np.testing.assert_array_equal(sets.train[0], again.train[0])
    rows = {k: {x.tobytes() for x in getattr(sets, k)[0]} for k in ("train", "target", "test")}
    assert not rows["train"] & rows["target"]
    assert not (rows["train"] | rows["target"]) & rows["test"]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Images(ratio=1.0), r"`images.ratio`"),
        (lambda: Images(minority=[4], majority=[4]), "must be different classes"),
        (
            lambda: make_image_sets(Images(train_size=5000, ratio=0.5), 0),
            "must give 3333 .* got 120",
        ),
        (lambda: read_images(Images("mnist", "/none")), "must hold train-images-idx3-ubyte"),
    ],
)
def test_bad_settings(make, words):
    with pytest.raises(InputError, match=words):
        make()


def test_damaged_file(mnist):
    path = mnist / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(InputError, match="no IDX file"):
        read_idx(path)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the MNIST files are not at hand")
def test_the_real_files():
    data = read_images(Images("mnist", str(SHARED / "mnist")))
    assert data["train"][0].shape == (60000, 1, 28, 28)
    counts = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]  # LeCun's page
    assert np.bincount(data["test"][1]).tolist() == counts
