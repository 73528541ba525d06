import contextlib
import hashlib
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines.errors import InputError
from data_pipelines.image_files import read_images
from data_pipelines.image_sources import PUBLISHED, Published, find
from data_pipelines.image_store import write_image_store
from data_pipelines.images import Images, class_sizes, make_image_sets, spare_images
from data_pipelines.schema import SPLITS
from data_pipelines.store import meanings, open_store
from weather_tdr.cli import main
from weather_tdr.imbalance import draw_imbalanced


def test_files_of_the_other_data_set_of_the_same_names_are_not_taken(mnist, monkeypatch):
    """As where both are kept in one folder: the hash tells whose the file is."""
    name = "t10k-images-idx3-ubyte.gz"
    md5 = hashlib.md5((mnist / name).read_bytes()).hexdigest()
    known = {"mnist": md5, "fashion_mnist": "0" * 32}
    for dataset, digest in known.items():
        monkeypatch.setitem(PUBLISHED, dataset, Published("", {name: digest}, ()))
    assert find("mnist", [name], str(mnist)) == mnist / name
    with pytest.raises(InputError, match="gz is that of `mnist`"):
        find("fashion_mnist", [name], str(mnist))
    (mnist / name.removesuffix(".gz")).touch()  # torchvision leaves it beside the other
    with pytest.raises(InputError, match="is that of `mnist`"):
        find("fashion_mnist", [name.removesuffix(".gz"), name], str(mnist))
    (mnist / "fashion_mnist").mkdir()
    (mnist / "fashion_mnist" / name).write_bytes(b"other")  # its own folder comes first
    assert find("fashion_mnist", [name], str(mnist)) == mnist / "fashion_mnist" / name


def test_sizes_of_the_reference_implementation():
    """n_majority = train / (M + m (1 - ratio)); n_minority = n_majority (1 - ratio)."""
    plenty = [6000] * 10
    sizes = class_sizes(Images(ratio=0.995, train_size=5000), plenty)
    assert (sizes[9], sizes[4], sum(sizes)) == (4975, 25, 5000)
    sizes = class_sizes(Images(ratio=0.9, train_size=5000), plenty)
    assert (sizes[9], sizes[4]) == (4545, 455)
    several = Images(minority=[1], majority=[2, 3], ratio=0.9, train_size=2100)
    assert class_sizes(several, plenty)[1:4] == [100, 1000, 1000]


def test_sizes_of_the_long_tailed_literature():
    """Cao et al. 2019: CIFAR-10-LT at 100 has 12,406 images, CIFAR-100-LT has 10,847."""
    ten = Images(imbalance="long_tailed", factor=100, train_size=5000)
    sizes = class_sizes(ten, [5000] * 10)
    assert sum(sizes) == 12_406 and (sizes[0], sizes[-1]) == (5000, 50)
    hundred = Images(imbalance="long_tailed", factor=100, train_size=500)
    assert sum(class_sizes(hundred, [500] * 100)) == 10_847
    step = Images(imbalance="step", factor=100, train_size=5000)
    assert class_sizes(step, [5000] * 10) == [5000] * 5 + [50] * 5
    all_left = Images(imbalance="long_tailed", factor=10, train_size=0)
    assert class_sizes(all_left, [110, 100, 120])[0] == 100


@settings(deadline=None)  # the first call reads the data set
@given(
    ratio=st.floats(0, 0.9),
    target=st.integers(2, 12),
    train=st.integers(20, 60),
    held=st.integers(0, 20),
    seed=st.integers(0, 9),
)
def test_sets_are_disjoint_balanced_and_of_the_right_size(ratio, target, train, held, seed):
    images = Images(
        "digits", minority=[3], majority=[8], ratio=ratio, train_size=train, target_size=target,
        validation_size=held,
    )  # fmt: skip
    sets = make_image_sets(images, seed)
    majority = train / (2.0 - ratio)
    counts = np.bincount(sets.train[1], minlength=2)
    np.testing.assert_allclose(counts, [majority, majority * (1 - ratio)], atol=0.51)
    for part, n in ((sets.target, target), (sets.validation, held)):
        assert np.bincount(part[1], minlength=2).tolist() == [-(-n // 2)] * 2
    again = make_image_sets(images, seed)
    np.testing.assert_array_equal(sets.train[0], again.train[0])
    names = ("train", "target", "validation", "test")
    rows = {k: {x.tobytes() for x in getattr(sets, k)[0]} for k in names}
    for a in names:
        for b in names[names.index(a) + 1 :]:
            assert not rows[a] & rows[b]


def test_several_classes_a_side_and_a_smaller_test_set():
    images = Images(
        "digits", minority=[1, 2], majority=[7, 8, 9], ratio=0.5, train_size=80, target_size=12,
        test_size=50,
    )  # fmt: skip
    sets = make_image_sets(images, 1)
    assert np.bincount(sets.train[1]).tolist() == [60, 20]
    assert np.bincount(sets.target[1]).tolist() == [6, 6]
    uneven = make_image_sets(replace(images, target_size=20), 1)  # ten of three classes: 4, 3, 3
    assert np.bincount(uneven.target[1]).tolist() == [10, 10]
    assert len(sets.test[1]) == 50 and set(sets.test[1]) == {0, 1}


def test_the_largest_class_takes_all_that_target_and_validation_leave():
    images = Images(
        imbalance="long_tailed", factor=4, train_size=0, target_size=20, validation_size=50
    )
    sets = make_image_sets(images, 0)
    classes = np.bincount(read_images("digits").train[1])
    assert np.bincount(sets.train[1])[0] == classes.min() - 2 - 5


def test_store_holds_the_set(tmp_path):
    images = Images("digits", imbalance="long_tailed", factor=5, train_size=60, target_size=20)
    path = write_image_store(tmp_path / "a.zarr", images, 3)
    store, sets = open_store(path), make_image_sets(images, 3)
    assert store["patches"].dtype == np.float32 and store["patches"].attrs["long_name"]
    assert meanings(store, "label") == tuple("0123456789") == meanings(store, "group")
    for name in ("train", "target", "test"):
        here = store["split"].to_numpy() == SPLITS.index(name)
        np.testing.assert_allclose(
            store["patches"].to_numpy()[here], getattr(sets, name)[0] / 16, rtol=1e-6
        )
        np.testing.assert_array_equal(store["label"].to_numpy()[here], getattr(sets, name)[1])
    train = sets.train[0] / 16
    np.testing.assert_allclose(store["mean"], [train.mean()], rtol=1e-6)
    np.testing.assert_allclose(store["std"], [train.std()], rtol=1e-6)
    assert sum(store.attrs["counts"]["train"].values()) == len(sets.train[1])
    made = (path / "patches" / "zarr.json").stat().st_mtime_ns
    write_image_store(path, images, 3)
    assert (path / "patches" / "zarr.json").stat().st_mtime_ns == made
    chunk = next((path / "patches").glob("c.*"))
    chunk.write_bytes(chunk.read_bytes()[:-5])  # cut short: drawn and written anew
    write_image_store(path, images, 3)
    np.testing.assert_array_equal(open_store(path)["patches"], store["patches"])
    write_image_store(path, images, 4)
    assert open_store(path).attrs["settings"]["seed"] == 4


def test_the_defaults_need_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    main(["imbalance", "--quiet"])
    assert "minority      9 " in capsys.readouterr().out
    counts = open_store("runs/images/patches.zarr").attrs["counts"]
    assert counts["train"]["majority"] == 91
    main(["imbalance", "--imbalance", "long_tailed", "--factor", "10", "--name", "lt", "--quiet"])
    tail = open_store("runs/lt/patches.zarr").attrs["counts"]["train"]
    most = np.bincount(read_images("digits").train[1]).min() - 1  # all that the target leaves
    assert tail["0"] == most and tail["9"] == most // 10
    assert counts["validation"] == {"majority": 10, "minority": 10}  # a fifth of the 100 of train


def test_a_set_goes_through_the_whole_product(tmp_path, capsys, caplog):
    main(
        ["imbalance", "--ratio", "0.8", "--train-size", "90", "--minority", "3", "--majority", "8",
         "--output", str(tmp_path), "--name", "d", "--quiet"]
    )  # fmt: skip
    folder, out = tmp_path / "d", capsys.readouterr().out
    assert "minority     15 " in out and f"Next: weather-tdr run {folder / 'config.yaml'}" in out
    assert (folder / "figures" / "histogram.png").stat().st_size > 5000
    main(
        ["run", str(folder / "config.yaml"), "--train.steps=40", "--train.methods=[uniform,tdr]",
         "--quiet"]
    )  # fmt: skip
    assert "tdr" in capsys.readouterr().out
    assert (folder / "tdr" / "scores.json").is_file()
    for command, words in (
        (["map", str(folder / "tdr"), "x.nc"], "trained on images"),
        (["imbalance", "--imbalance", "long_tailed", "--factor", "5", "--train-size", "50",
          "--output", str(tmp_path), "--name", "lt"], ""),
        (["train", str(tmp_path / "lt" / "config.yaml")], "must be binary for a detector"),
    ):  # fmt: skip
        if not words:
            main([*command, "--quiet"])
            continue
        with pytest.raises(SystemExit) as stop:
            main([*command, "--quiet"])
        assert stop.value.code == 2 and words in capsys.readouterr().err
    # Scores are those of a network: another one has none.
    main(["train", str(folder / "config.yaml"), "--train.steps=10", "--train.methods=[tdr]",
          "--quiet"])  # fmt: skip
    main(["inspect", str(folder)])
    out = capsys.readouterr().out
    assert "tdr: trained, not evaluated" in out and "weather-tdr evaluate" in out
    for subject in (["inspect", str(folder / "tdr")], ["report", str(folder / "tdr")]):
        with contextlib.suppress(SystemExit):
            main(subject)
        said = capsys.readouterr()
        assert "weather-tdr evaluate" in said.out + said.err and "scores, test" not in said.out
    # Another set under the same name: what was scored on the older one is told of.
    main(["build", str(folder / "config.yaml"), "--quiet"])
    assert "on another store" not in caplog.text
    draw_imbalanced(name="d", output=str(tmp_path), ratio=0.7, train_size=90)
    assert "tdr, uniform in" in caplog.text and "on another store" in caplog.text


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Images(ratio=1.0), r"`images.ratio`"),
        (lambda: Images(factor=0.5), r"`images.factor`"),
        (lambda: Images(test_size=-1), r"`images.test_size`"),
        (lambda: Images(target_size=0), r"`images.target_size`"),
        (lambda: Images(dataset="mnits"), "Did you mean `mnist`"),
        (lambda: Images(minority=[4], majority=[4]), "must be different classes"),
        (
            lambda: make_image_sets(Images(train_size=40, ratio=0.5, test_size=1), 0),
            "got none of m.*jority with `images.test_size: 1`",
        ),
        (lambda: draw_imbalanced(imbalance="step", ratio=0.9), "`ratio` must be left out"),
        (lambda: draw_imbalanced(factor=9.0), "`factor` must be left out where .* `binary`"),
        (lambda: draw_imbalanced(imbalance="typo", ratio=0.1), "typo"),
        (lambda: draw_imbalanced(train_size="many"), "train_size"),
        (lambda: draw_imbalanced(dataset="none"), "`none` is unknown"),
        (lambda: make_image_sets(Images(minority=[12]), 0), "classes 0 to 9 of digits, got 12"),
        (
            lambda: make_image_sets(Images(train_size=40, ratio=0.5, test_size=500), 0),
            "at most the",
        ),
        (
            lambda: make_image_sets(Images(train_size=5000, ratio=0.5), 0),
            "must give 1667 .* got 123",
        ),
    ],
)
def test_bad_settings(make, words):
    with pytest.raises(InputError, match=words):
        make()


@pytest.mark.parametrize("values", [{"train_size": 60}, {"imbalance": "step", "factor": 3}])
def test_spare_images_are_all_that_validation_can_have(values):
    images = Images(**values)
    spare, classes = spare_images(images), 2 if images.imbalance == "binary" else 10
    assert spare > 0
    assert len(make_image_sets(replace(images, validation_size=spare), 0).validation[1]) == spare
    with pytest.raises(InputError, match="must give"):
        make_image_sets(replace(images, validation_size=spare + classes), 0)
