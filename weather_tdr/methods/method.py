"""A method: a weighting, a loss, a sampling and a use of the target set, put together.

Each is a small YAML file, `configs/methods/NAME.yaml` or one of the user's own.
"""

import re
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Literal

from data_pipelines.errors import InputError, check_kinds, unknown_name
from weather_tdr import configs_folder
from weather_tdr.methods.losses import NAMES as LOSSES
from weather_tdr.methods.losses import PRIOR_AWARE
from weather_tdr.methods.tdr import Tdr, TdrSettings
from weather_tdr.settings import read_yaml

Weighting = Literal[
    "uniform",
    "inverse_frequency",
    "class_balanced",
    "tdr",
    "learning_to_reweight",
    "meta_weight_net",
]
TUNING = ("fine_tune_share", "fine_tune_rate", "fine_tune_layers")
TAKEN = ("figures", "synthetic")  # folders of a run
STEERED = ("tdr", "learning_to_reweight", "meta_weight_net")


@dataclass(frozen=True)
class Method:
    """What a method does.

    Attributes:
        name: of the file.
        weighting: of the groups or samples in the loss.
        loss: per-sample loss.
        sampling: `natural`: as the samples come; `balanced`: every group the same share.
        target: `unused`; `merge`: added to train; `steer`: steers the weights, kept out of the
            training batches; `fine_tune`: ordinary training on train, then on the target set.
        weights_per: what a weight belongs to: `class`, or `group` (class x stratum).
        deferred: share of the steps before weights or balanced sampling come in (DRW).
        fine_tune_share: share of the steps that go to the target set alone.
        fine_tune_rate: factor on the learning rate there.
        fine_tune_layers: `all` or `last`.
        tdr: settings of TDR.
    """

    name: str
    weighting: Weighting = "uniform"
    loss: str = "cross_entropy"
    sampling: Literal["natural", "balanced"] = "natural"
    target: Literal["unused", "merge", "steer", "fine_tune"] = "merge"
    weights_per: Literal["class", "group"] = "class"
    deferred: float = 0.0
    fine_tune_share: float = 0.5
    fine_tune_rate: float = 1.0
    fine_tune_layers: Literal["all", "last"] = "all"
    tdr: TdrSettings = field(default_factory=TdrSettings)

    def __post_init__(self) -> None:
        """Refuses what contradicts itself.

        Raises:
            InputError: with the reason.
        """
        check_kinds(self, f"{self.name}: ")
        check_name(self.name)
        if not self.fine_tune_rate > 0:
            raise InputError(
                f"{self.name}: `fine_tune_rate` must be positive, got {self.fine_tune_rate}."
            )
        if self.loss not in LOSSES:
            raise unknown_name(f"{self.name}: loss", self.loss, LOSSES)
        for key in ("deferred", "fine_tune_share"):
            if not 0 <= getattr(self, key) < 1:
                raise InputError(
                    f"{self.name}: `{key}` must be at least 0 and below 1, "
                    f"got {getattr(self, key)}."
                )
        steered = self.weighting in STEERED
        prior = self.loss in PRIOR_AWARE
        tunes = self.target == "fine_tune"
        reasons = {
            "the target set steers nothing unless `target: steer`": steered
            and self.target != "steer",
            f"`target: steer` needs a weighting that it steers ({', '.join(STEERED)})": not steered
            and self.target == "steer",
            "balanced sampling and balancing weights correct twice for the same imbalance": (
                self.sampling == "balanced"
                and self.weighting in ("inverse_frequency", "class_balanced")
            ),
            f"`loss: {self.loss}` and balanced sampling or weights correct twice for the same "
            "imbalance": prior and (self.sampling == "balanced" or self.weighting != "uniform"),
            "balanced sampling fixes the shares that TDR is to move": self.sampling == "balanced"
            and self.weighting == "tdr"
            and self.tdr.realise != "loss",
            "there is nothing to defer with uniform weights and natural sampling": (
                self.deferred > 0 and self.weighting == "uniform" and self.sampling == "natural"
            ),
            "weights or sampling that are deferred into the fine-tuning never act": (
                tunes and self.deferred >= 1.0 - self.fine_tune_share
            ),
            "`target: fine_tune` needs a `fine_tune_share` above 0": tunes
            and self.fine_tune_share == 0,
            "`fine_tune_share`, `fine_tune_rate` and `fine_tune_layers` act only with "
            "`target: fine_tune`": not tunes
            and any(getattr(self, key) != getattr(Method, key) for key in TUNING),
            "the settings under `tdr` act only with `weighting: tdr`": self.weighting != "tdr"
            and self.tdr != TdrSettings(),
            "a steered weighting starts with `tdr.start`, not with `deferred`": steered
            and self.deferred > 0,
        }
        for reason, holds in reasons.items():
            if holds:
                raise InputError(f"method `{self.name}` contradicts itself: {reason}.")

    @property
    def data(self) -> str:
        """What data the method sees, for tables."""
        joins = self.weighting == "tdr" and self.tdr.finish > 0
        return {
            "unused": "train",
            "merge": "train + target",
            "steer": "train, target steers" + (", then joins" if joins else ""),
            "fine_tune": "train, then target",
        }[self.target]


def check_name(name: str) -> None:
    """Refuses a name of a method, or of a network beside them, that no folder of a run can have.

    Raises:
        InputError: it is none.
    """
    if not re.fullmatch(r"\w[\w +-]*", name) or name in TAKEN:
        raise InputError(
            "`name` of a method or network must be letters, digits, `_`, `-` and `+`, since it "
            f"names a folder of the run, and not {' or '.join(TAKEN)}, got `{name}`. Choose "
            "another."
        )


def names() -> list[str]:
    """Names of the methods that come with the package."""
    return sorted(p.stem for p in (configs_folder() / "methods").glob("*.yaml"))


def load_method(name: str) -> Method:
    """The method of that name, or of a YAML file of that path.

    Raises:
        InputError: there is none, or a key or value is wrong.
    """
    own = name.endswith((".yaml", ".yml"))
    path = Path(name).expanduser() if own else configs_folder() / "methods" / f"{name}.yaml"
    if not path.is_file():
        if own:
            raise InputError(f"method `{name}`: no such file. Check the path.")
        raise unknown_name("method", name, names(), " Or give the path of a YAML file.")
    return _read(path.resolve(), path.stat().st_mtime_ns)


def method_of(given: str | Path | Method | Tdr) -> Method:
    """The method that a name, a path or `Tdr` stands for.

    Raises:
        InputError: as `load_method`.
    """
    if isinstance(given, Tdr):
        return Method(
            "tdr", weighting="tdr", target="steer", weights_per="group", tdr=given.settings
        )
    if isinstance(given, Method):
        return given
    if not isinstance(given, str | Path):
        raise InputError(
            "`method` must be a name, a path, a `Method` or `Tdr`, got "
            f"{type(given).__name__}. There is: {', '.join(names())}."
        )
    return load_method(str(given))


@lru_cache
def _read(path: Path, changed_ns: int) -> Method:
    """The method of a file, read once for as long as the file does not change."""
    return read_yaml(Method, path, name=path.stem)
