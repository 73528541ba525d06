"""Settings of a benchmark: methods x degrees of imbalance x seeds on one data set."""

from dataclasses import dataclass, field, replace
from pathlib import Path

from data_pipelines.errors import InputError
from data_pipelines.images import Images
from weather_tdr.image_models import make_network
from weather_tdr.methods.method import load_method
from weather_tdr.settings import check_folder_name
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
        workers: processes, one cell each; 0 is as many as the cores serve.
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
        if len({images.place for images in self.settings()}) < len(self.imbalances):
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
        if self.train.choose != "last" or self.train.patience:
            raise InputError(
                "`train.choose` must be `last` and `train.patience` 0 in a benchmark, where the "
                f"last step counts, got {self.train.choose} and {self.train.patience}. Leave them "
                "out."
            )
        made = [load_method(method).name for method in self.methods]
        if not made or len(set(made)) < len(made):
            raise InputError(f"`methods` must name each method once, got {self.methods}.")

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
