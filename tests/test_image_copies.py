"""Data sets that hold an image several times."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from data_pipelines.errors import InputError
from data_pipelines.image_data import ImageData
from data_pipelines.image_files import read_images
from data_pipelines.images import Images, make_image_sets
from weather_tdr.cli import main


def made_images(copies):
    """Two classes of 40; the first `copies` images of class 0 are there again in each class."""
    pixels = np.random.default_rng(0).integers(0, 256, (80, 1, 8, 8)).astype(np.uint8)
    labels = np.repeat([0, 1], 40)
    pixels[20 : 20 + copies] = pixels[40 : 40 + copies] = pixels[:copies]
    return ImageData((pixels, labels), (pixels[::-1].copy(), labels[::-1].copy()), ("a", "b"))


def reference(data, images, sizes, seed):
    """Indices by the draw by place alone: of each class target, train, validation in one order."""
    rng = np.random.default_rng([seed, 7])
    kept = [k for k, size in enumerate(sizes) if size]
    target = -(-images.target_size // len(kept))
    held = -(-images.validation_size // len(kept))
    found = {"train": [], "target": [], "validation": []}
    for k in kept:
        order = rng.permutation(np.flatnonzero(data.train[1] == k))
        found["target"].append(order[:target])
        found["train"].append(order[target : target + sizes[k]])
        found["validation"].append(order[target + sizes[k] : target + sizes[k] + held])
    return {name: rng.permutation(np.concatenate(parts)) for name, parts in found.items()}


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    ("made", "kind", "sizes"),
    [
        (True, {"minority": [1], "majority": [0], "ratio": 0.5, "train_size": 30}, [20, 10]),
        (True, {"imbalance": "step", "factor": 3, "train_size": 0}, [32, 10]),
        (False, {"ratio": 0.5, "train_size": 60}, [0, 0, 0, 0, 20, 0, 0, 0, 0, 40]),
        (False, {"imbalance": "step", "factor": 3, "train_size": 60}, [60] * 5 + [20] * 5),
    ],
)
def test_without_copies_the_draw_is_by_place(monkeypatch, made, kind, sizes, seed):
    data = made_images(0) if made else read_images("digits")
    monkeypatch.setattr("data_pipelines.images.read_images", lambda *_: data)
    images = Images(target_size=10, validation_size=6, **kind)
    sets = make_image_sets(images, seed)
    for name, index in reference(data, images, sizes, seed).items():
        np.testing.assert_array_equal(getattr(sets, name)[0], data.train[0][index])


@pytest.mark.parametrize("seed", range(6))
def test_copies_of_target_images_are_in_no_other_set(monkeypatch, seed):
    data = made_images(12)
    monkeypatch.setattr("data_pipelines.images.read_images", lambda *_: data)
    images = Images(
        minority=[1], majority=[0], ratio=0.5, train_size=24, target_size=16, validation_size=6
    )
    sets = make_image_sets(images, seed)
    held = {x.tobytes() for x in sets.target[0]}
    for part, counts in ((sets.train, [16, 8]), (sets.validation, [3, 3]), (sets.target, [8, 8])):
        assert np.bincount(part[1]).tolist() == counts  # others are drawn in their place
        assert part is sets.target or not held & {x.tobytes() for x in part[0]}
    order = reference(data, images, [16, 8], seed)
    np.testing.assert_array_equal(  # the target set is that of the draw by place
        sorted(x.tobytes() for x in sets.target[0]),
        sorted(data.train[0][i].tobytes() for i in order["target"]),
    )
    # All that is left is what is left without the copies; more than that is refused.
    tail = replace(images, imbalance="step", factor=2, train_size=0, validation_size=0)
    sets = make_image_sets(tail, seed)
    held = {x.tobytes() for x in sets.target[0]}
    others = [sum(x.tobytes() not in held for x in data.train[0][i : i + 40]) for i in (0, 40)]
    assert np.bincount(sets.train[1])[0] == min(others) < 32
    assert not held & {x.tobytes() for x in sets.train[0]}
    with pytest.raises(InputError, match=r"got 40 images, .* copies of target images"):
        make_image_sets(replace(tail, train_size=32), seed)


def test_a_benchmark_on_images_with_copies_is_finished(tmp_path, monkeypatch):
    data = made_images(12)
    for module in ("data_pipelines.images", "weather_tdr.benchmarks"):
        monkeypatch.setattr(f"{module}.read_images", lambda *_: data)
    config = tmp_path / "copies.yaml"
    config.write_text(
        f"{{name: copies, output: {tmp_path}, network: mlp, methods: [uniform, tdr], seeds: 3,\n"
        "images: {minority: [1], majority: [0], train_size: 30, target_size: 16, ratio: 0.5},\n"
        "workers: 1, train: {steps: 3, batch: 8}}"
    )
    main(["benchmark", str(config), "--quiet"])
    assert len(pd.read_csv(tmp_path / "copies" / "results.csv")) == 6
