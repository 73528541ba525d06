"""What training will refuse is refused by `check`, and before anything is built or written."""

import logging
import shutil

import pandas as pd
import pytest
import torch

from data_pipelines.errors import InputError
from data_pipelines.store import meanings, open_store
from weather_tdr.augment import augmentation
from weather_tdr.check.run import check_config
from weather_tdr.check.training import training_errors
from weather_tdr.cli import main
from weather_tdr.config import Config, configure, read_config
from weather_tdr.data import samples_to_train
from weather_tdr.imbalance import draw_imbalanced
from weather_tdr.methods.method import load_method
from weather_tdr.models import PatchNet
from weather_tdr.run import train_all
from weather_tdr.train import fit


def refused(argv: list[str], capsys) -> str:
    """What a command says that must stop for bad input."""
    with pytest.raises(SystemExit) as stop:
        main([*argv, "--quiet"])
    assert stop.value.code == 2
    return capsys.readouterr().err


def said_by_training(config: Config, store) -> set[str]:
    """What training says on the store that was built for it, a method at a time."""
    said = set()
    for method in map(load_method, config.train.methods):
        try:
            fit(
                PatchNet(store.sizes["variable"], store.attrs["grid"]["size"], 2, 8),
                *samples_to_train(store, torch.device("cpu")),
                method,
                config.train,
                augment=augmentation(config.train.augment, store),
                names=meanings(store, "label" if method.weights_per == "class" else "group"),
                progress=False,
            )
        except InputError as error:
            said.add(str(error))
    return said


@pytest.mark.parametrize(
    "train",
    [{"augment": name} for name in ("none", "shift", "crop_flip", "strong", "mirror")]
    + [{"batch": batch} for batch in (1, 2, 3)],
    ids=str,
)
def test_the_configuration_tells_what_training_says(config_file, tiny_store, train):
    methods = ["uniform", "balanced_sampling", "balanced_groups", "tdr"]
    config = configure(config_file, train={"methods": methods, "steps": 1} | train)
    told = {str(error) for error in training_errors(config)}
    assert told == said_by_training(config, open_store(tiny_store))
    assert bool(told) == (train not in ({"augment": "none"}, {"augment": "mirror"}, {"batch": 3}))


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("--train.augment=shift", "`train.augment` must not be shift for fields"),
        ("--train.batch=2", "`train.batch` must be at least the number of groups, got 2 for 3"),
    ],
)
def test_fields_are_refused_before_the_build(config_file, tmp_path, capsys, override, words):
    for command in ("check", "build", "run"):
        if command == "check":
            facts = check_config(read_config(config_file, [override]))
            assert len(facts.errors) == 1 and words in facts.errors[0]
            assert "training" in dict(facts.rows)  # an error hides nothing
        else:
            assert words in refused([command, str(config_file), override], capsys)
        assert not (tmp_path / "runs").exists()
    demo = check_config(configure("demo", output=str(tmp_path / "runs"), train={"batch": 2}))
    assert any("got 2 for" in error for error in demo.errors)  # fields that are not made yet


def test_a_whole_field_and_images_have_no_mirror(config_file, tmp_path):
    whole = configure(config_file, patches={"whole_field": True}, train={"augment": "mirror"})
    assert ["the whole field" in str(e) for e in training_errors(whole)] == [True]
    images = configure(images={"dataset": "digits"}, train={"augment": "mirror"})
    assert any("got images" in error for error in check_config(images).errors)
    for name in ("shift", "crop_flip", "strong"):
        assert not training_errors(
            configure(images={"dataset": "digits"}, train={"augment": name, "batch": 2})
        )


def test_what_is_refused_is_not_written(tmp_path, capsys, caplog):
    folder, _ = draw_imbalanced(name="st", output=str(tmp_path), train_size=60, target_size=4)
    config = folder / "config.yaml"
    before = config.read_bytes()
    overrides = ["--train.augment=mirror", "--train.batch=1"]
    if not torch.cuda.is_available():
        overrides.append("--train.device=cuda")
    for override in overrides:
        for command in ("run", "train"):
            assert "`train." in refused([command, str(config), override], capsys)
            assert config.read_bytes() == before
    caplog.set_level(logging.INFO)
    main(["train", str(config), "--train.steps=2", "--quiet"])
    assert f"{config}, which tells what was run, now holds --train.steps=2" in caplog.text
    assert read_config(config).train.steps == 2


def test_images_do_not_replace_a_run_on_fields(tiny_run, tmp_path, capsys):
    config, store = tiny_run / "config.yaml", tiny_run / "patches.zarr"
    draw = ["imbalance", "--train-size", "60", "--target-size", "4", "--output"]
    before = {p: p.read_bytes() for p in (config, store / "zarr.json")}
    said = refused([*draw, str(tiny_run.parent), "--name", "tiny"], capsys)
    assert f"{tiny_run} must not hold a run on fields" in said and "another `--name`" in said
    assert {p: p.read_bytes() for p in before} == before
    # The store alone, such as of a run whose configuration was moved away.
    shutil.copytree(store, tmp_path / "alone" / "patches.zarr")
    assert "run on fields" in refused([*draw, str(tmp_path), "--name", "alone"], capsys)
    assert open_store(tmp_path / "alone" / "patches.zarr").attrs["grid"]["dlat"] == 5.0


def test_networks_of_another_set_are_told_of(tmp_path, caplog):
    """A network that has been trained and not evaluated is as old as one that has."""
    drawn = {"name": "st", "output": str(tmp_path), "train_size": 60, "target_size": 4}
    folder, _ = draw_imbalanced(**drawn)
    main(["train", str(folder / "config.yaml"), "--train.steps=2", "--train.methods=[uniform]",
          "--quiet"])  # fmt: skip
    draw_imbalanced(**drawn)
    assert "another store" not in caplog.text
    assert f"`train` in {folder / 'config.yaml'} is replaced by the defaults" in caplog.text
    caplog.clear()
    draw_imbalanced(**drawn | {"ratio": 0.5})
    assert f"uniform in {folder} was made on another store" in caplog.text
    assert "replaced" not in caplog.text


@pytest.mark.parametrize(("epochs", "batch"), [(1.5, 16), (2.0, 7), (3.0, 500)])
def test_the_steps_of_epochs_are_told_as_they_are_made(tmp_path, caplog, epochs, batch):
    """Oracle: the last step of the history that training leaves."""
    drawn = {"name": "st", "output": str(tmp_path), "train_size": 60, "target_size": 4}
    folder, _ = draw_imbalanced(**drawn)
    train = {"epochs": epochs, "batch": batch, "methods": ["uniform"], "width": 4}
    config = configure(folder / "config.yaml", train=train)
    foretold = dict(check_config(config).rows)["training"]
    caplog.set_level(logging.INFO)
    train_all(config, progress=False)
    made = pd.read_csv(folder / "uniform" / "history.csv")["step"].iloc[-1]
    assert f"training `uniform` for {made} steps on" in caplog.text
    assert f"; {made} steps of {batch}" in foretold
