"""Settings of a benchmark: methods x degrees of imbalance x seeds on one data set."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from operator import attrgetter
from pathlib import Path
from typing import Any

from data_pipelines.errors import InputError, unknown_name
from data_pipelines.images import Images
from weather_tdr.fingerprint import INDIFFERENT, METHODS
from weather_tdr.image_models import make_network
from weather_tdr.methods.method import load_method, names
from weather_tdr.settings import check_folder_name, read_changed, read_yaml
from weather_tdr.train_settings import Train


@dataclass
class Benchmark:
    """Methods x settings x seeds.

    Attributes:
        name: the results go to OUTPUT/NAME.
        output: folder of all benchmarks.
        images: which images, and how imbalanced; not used when `run` is given.
        run: configuration of a run on fields, whose patch store is used: a name in `configs/`, or
            a YAML file.
        imbalances: degrees of imbalance to run, each in place of `images.ratio` or
            `images.factor`; none for that of `images`.
        network: for images: `lenet5`, `convnet`, `mlp`, `resnet32`, `resnet56_v2_bottleneck`, ...
        methods: names of `configs/methods/`, or paths.
        seeds: number of seeds, each with its own imbalanced set (images), start and order.
        learning_rates: rates to try for each method, on draws that the table does not use, at the
            largest imbalance; the best on validation is the method's. None: `train.learning_rate`.
        tuning_seeds: number of draws that a rate is tried on.
        chosen_rates: learning rate of each method by its name, such as `learning_rates` chose
            before; a method that is not named has `train.learning_rate`.
        workers: processes, one cell each; 0 is as many as the cores serve, which on GPUs may be
            more than their memory holds: name two or three a GPU there.
        threads: cores that a cell trains on. More help a large network when cells are fewer than
            cores; the results differ by rounding.
        train: how to train; `methods` and `seed` there are not used.
    """

    name: str = "benchmark"
    output: str = "runs/benchmarks"
    images: Images = field(default_factory=Images)
    run: str = ""
    imbalances: list[float] = field(default_factory=list)
    network: str = "convnet"
    methods: list[str] = field(default_factory=lambda: ["uniform", "tdr"])
    seeds: int = 5
    learning_rates: list[float] = field(default_factory=list)
    tuning_seeds: int = 2
    chosen_rates: dict[str, float] = field(default_factory=dict)
    workers: int = 0
    threads: int = 1
    train: Train = field(default_factory=Train)

    def __post_init__(self) -> None:
        """Checks the names and numbers.

        Raises:
            InputError: an unknown network or method, no seed, or a training that no cell can do.
        """
        check_folder_name(self.name)
        make_network(self.network)  # refuses an unknown name
        if self.imbalances and self.run:
            raise InputError(
                f"`imbalances` is for images, got {self.imbalances} with `run: {self.run}`. "
                "Leave one out."
            )
        try:
            settings = self.settings()
        except InputError as error:
            raise InputError(
                f"`imbalances` must be degrees of imbalance, got {self.imbalances}: {error} "
                "Change `imbalances`."
            ) from error
        if len({images.place for images in settings}) < len(self.imbalances):
            raise InputError(f"`imbalances` must name each degree once, got {self.imbalances}.")
        if min(self.seeds, self.threads) < 1 or self.workers < 0:
            raise InputError(
                "`seeds` and `threads` must be positive and `workers` not negative, got "
                f"{self.seeds}, {self.threads} and {self.workers}."
            )
        if self.learning_rates and not (self.run or self.images.validation_size):
            raise InputError(
                "`learning_rates` are compared on validation, got `images.validation_size: 0`. "
                "Give it some images, or leave `learning_rates` out."
            )
        if min([1.0, *self.learning_rates]) <= 0 or self.tuning_seeds < 1:
            raise InputError(
                "`learning_rates` and `tuning_seeds` must be positive, got "
                f"{self.learning_rates} and {self.tuning_seeds}."
            )
        if min([1.0, *self.chosen_rates.values()]) <= 0:
            raise InputError(f"`chosen_rates` must be positive, got {self.chosen_rates}.")
        made = [load_method(method).name for method in self.methods]
        known = sorted({*names(), *made})
        if odd := [name for name in self.chosen_rates if name not in known]:
            raise unknown_name("method in `chosen_rates`", odd[0], known)
        if self.train.choose != "last" or self.train.patience:
            raise InputError(
                "`train.choose` must be `last` and `train.patience` 0 in a benchmark, where the "
                f"last step counts, got {self.train.choose} and {self.train.patience}. Leave them "
                "out."
            )
        if not made or len(set(made)) < len(made):
            raise InputError(f"`methods` must name each method once, got {self.methods}.")

    def rate_of(self, method: str) -> float:
        """Learning rate of a method, name or path, where none is chosen in the benchmark."""
        return self.chosen_rates.get(load_method(method).name, self.train.learning_rate)

    @property
    def folder(self) -> Path:
        """Where the results go."""
        return Path(self.output).expanduser() / self.name

    def settings(self) -> list[Images]:
        """The images of each setting, the least imbalanced first."""
        degrees = sorted(self.imbalances or [self.images.degree])
        if self.images.imbalance == "binary":
            return [replace(self.images, ratio=v) for v in degrees]
        return [replace(self.images, factor=v) for v in degrees]


def read_benchmark(
    path: Path, overrides: Sequence[str] = (), changes: Mapping[str, Any] | None = None
) -> Benchmark:
    """Reads a benchmark; refuses what is put in place of keys that do not act.

    Args:
        path: YAML file, which may hold such keys.
        overrides: of the command line, such as ``["--seeds=2"]``; not with `changes`.
        changes: keys in place of those of the file, nested as there.

    Raises:
        InputError: as `read_yaml`, or a key that another one replaces is changed.
    """
    if changes is None:
        made = read_yaml(Benchmark, path, overrides)
        _refuse_idle(made, [k[2:].split("=")[0] for k in overrides if k.startswith("--")])
    else:
        made = read_changed(Benchmark, path, changes)
        _refuse_idle(made, _keys(changes))
    return made


def identity(benchmark: Benchmark, method: str, data: str) -> str:
    """A short hash of all that decides a cell but its seed.

    Args:
        benchmark: with the images and the learning rate of the cell.
        method: name or path.
        data: identity of the data.
    """
    values = asdict(benchmark)
    for key in (
        "name", "output", "imbalances", "methods", "seeds", "learning_rates", "tuning_seeds",
        "chosen_rates", "workers", "threads", "run",
    ):  # fmt: skip
        del values[key]
    for key in ("log_every", "checkpoint_every", "keep_checkpoints"):
        del values["train"][key]
    usual = asdict(Train())
    values["train"] |= {key: usual[key] for key in INDIFFERENT if key in values["train"]}
    for key in ("folder", "download"):
        del values["images"][key]
    for key in _idle(replace(benchmark, imbalances=[], learning_rates=[], chosen_rates={})):
        part, _, name = key.partition(".")
        del (values[part] if name else values)[name or part]
    if benchmark.run:
        del values["images"]
    facts = json.dumps([values, asdict(load_method(method)), data, METHODS], sort_keys=True)
    return hashlib.sha256(facts.encode()).hexdigest()[:8]


def _idle(benchmark: Benchmark) -> dict[str, str]:
    """Keys that do not act -> the key that acts in their place."""
    binary, train = benchmark.images.imbalance == "binary", benchmark.train
    idle = {"train.seed": "seeds", "train.methods": "methods"}
    if train.epochs:
        idle["train.steps"] = "train.epochs"
    if benchmark.learning_rates:
        idle |= dict.fromkeys(("train.learning_rate", "chosen_rates"), "learning_rates")
    elif {load_method(method).name for method in benchmark.methods} <= set(benchmark.chosen_rates):
        idle["train.learning_rate"] = "chosen_rates"
    if benchmark.run:
        return idle | {"network": "run"}
    for key in ("factor",) if binary else ("ratio", "minority", "majority"):
        idle[f"images.{key}"] = "images.ratio" if binary else "images.factor"
    if benchmark.imbalances:
        idle |= dict.fromkeys(("images.ratio", "images.factor"), "imbalances")
    return idle | {"train.width": "network", "train.dropout": "network"}


def _refuse_idle(benchmark: Benchmark, changed: Iterable[str]) -> None:
    """Refuses changes of keys that do not act.

    Raises:
        InputError: names the first one, and the key that acts.
    """
    idle = _idle(benchmark)
    for key in changed:
        acts = "run" if benchmark.run and key.startswith("images.") else idle.get(key)
        if acts:
            raise InputError(
                f"`{key}` must be left out where `{acts}` acts in its place, got "
                f"{attrgetter(key)(benchmark)} beside `{acts}: {attrgetter(acts)(benchmark)}`. "
                f"Change `{acts}`."
            )


def _keys(changes: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """The dotted keys of nested changes; of settings that were made, those that are not default."""
    for key, value in changes.items():
        if is_dataclass(value) and not isinstance(value, type):
            usual = type(value)()
            own = [f.name for f in fields(value)]
            value = {k: v for k in own if (v := getattr(value, k)) != getattr(usual, k)}
        if isinstance(value, Mapping):
            yield from _keys(value, f"{prefix}{key}.")
        else:
            yield prefix + key
