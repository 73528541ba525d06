"""Files that cannot be those of a data set are not taken for it."""

import numpy as np
import pytest
from conftest import write_idx
from test_image_files import _fresh, cifar  # noqa: F401

from data_pipelines.errors import InputError
from data_pipelines.image_files import read_images


@pytest.mark.parametrize("split", ["train", "t10k"])
def test_files_of_mnist_are_not_those_of_fashion_mnist(mnist, split):
    """Also where they are not the published ones byte by byte, as when zipped anew."""
    first = {"train": [5, 0, 4, 1, 9, 2, 1, 3, 1, 4], "t10k": [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]}
    n = {"train": 600, "t10k": 100}[split]
    labels = np.r_[first[split], np.arange(n - 10) % 10]
    for path in mnist.glob(f"{split}-labels*"):
        write_idx(path.with_suffix("") if path.suffix else path, labels, path.suffix == ".gz")
    assert read_images("mnist", str(mnist)).classes[0] == "0"
    with pytest.raises(InputError, match=r"are those of `mnist`\. Set `images.folder`"):
        read_images("fashion_mnist", str(mnist))


@pytest.mark.parametrize("place", ["mnist", "MNIST/raw", "."])
@pytest.mark.parametrize("home", [False, True])
def test_a_folder_is_searched_as_the_usual_places_are(mnist, tmp_path, monkeypatch, place, home):
    """As other tools keep a data set; named in the call, or by the environment from `~` on."""
    there = tmp_path / "sets" / place
    there.mkdir(parents=True, exist_ok=True)
    for path in mnist.iterdir():
        (there / path.name).symlink_to(path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    if home and place != ".":
        monkeypatch.setenv("WEATHER_TDR_DATA", "~/sets")
    read = read_images("mnist", "" if home and place != "." else str(tmp_path / "sets"))
    assert len(read.train[1]) == 600


def test_a_folder_of_cifar_that_is_not_whole_is_passed_over(tmp_path):
    folder = tmp_path / "cifar10" / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    (folder / "data_batch_1").write_bytes(b"")
    with pytest.raises(InputError, match=r"cifar-10-batches-py lacks batches.meta, data_batch_2"):
        read_images("cifar10", str(tmp_path))
    images = (
        np.zeros((20, 3, 32, 32), np.uint8) + np.arange(20, dtype=np.uint8)[:, None, None, None]
    )
    archive = tmp_path / "cifar10" / "cifar-10-python.tar.gz"
    cifar(archive, "cifar10", images, (np.arange(20) % 10).tolist())
    assert len(read_images("cifar10", str(tmp_path)).train[1]) == 100
