"""How to train: the settings, checked."""

import math
from dataclasses import dataclass, field
from typing import Literal

from data_pipelines.errors import InputError, check_kinds
from weather_tdr.augment import Augmentation
from weather_tdr.devices import Device, Precision
from weather_tdr.methods.method import load_method
from weather_tdr.schedules import SCHEDULES


@dataclass
class Train:
    """How to train.

    Attributes:
        methods: names of `configs/methods/`, or paths of YAML files of one's own.
        steps: optimiser steps.
        epochs: passes over train, in place of `steps`; 0 for `steps`.
        batch: samples a step.
        target_batch: samples of the target set a step; 0 is all of it.
        learning_rate: of SGD with momentum.
        schedule: `cosine`: 100 steps of warm-up, then half a cosine to zero; `constant`; `step`:
            divided by 10 after 45.5, 68 and 91 % of the steps; `long_tail`: 2.5 % of warm-up,
            divided by 100 after 80 % and again after 90 %.
        augment: of the training samples: `none`; `shift`: images shifted by up to a fourteenth
            of their side, at least a point; `crop_flip`: photographs shifted by up to 4 points, and
            mirrored left to right; `strong`: as `crop_flip`, then one of 13 changes of place or
            colour or none, and a square cut out; `mirror`: patches of fields as they would be in
            the other hemisphere.
        momentum: of SGD.
        weight_decay: L2 on the parameters.
        decay_on: `weights`: not on biases and the factors of BatchNorm; `all`.
        clip: largest norm of the gradient; 0 is none.
        average: share kept in a step of the exponential moving average of the network, which is
            then what is validated and what training ends with; 0 is none.
        device: `auto`, `cpu`, `cuda`, `mps`; `auto` takes a GPU where there is one.
        precision: `float32`, or `bfloat16` in convolutions and products (autocast).
        compile: compiles the network's passes in ordinary steps by `torch.compile`.
        cuda_graph: replays the network's passes in ordinary steps as one CUDA graph, which makes
            small networks faster. What a pass decides in Python or on the CPU stays as it was when
            it was recorded. Without CUDA it changes nothing.
        log_every: steps between two rows of the history.
        checkpoint_every: steps between two checkpoints and validations.
        keep_checkpoints: how many of the last ones stay.
        choose: which network training ends with: `last`, or `best` on validation.
        patience: validations in a row without a better score after which training ends; 0 is
            never.
        width: channels of PatchNet's first block.
        dropout: share of PatchNet's last features that is dropped.
        seed: of batches and augmentation; `run` and `benchmark` start the network with it too (in
            `fit` that, dropout and the start of Meta-Weight-Net are torch's own).
    """

    methods: list[str] = field(default_factory=lambda: ["uniform", "inverse_frequency", "tdr"])
    steps: int = 3000
    epochs: float = 0.0
    batch: int = 128
    target_batch: int = 0
    learning_rate: float = 0.05
    schedule: str = "cosine"
    augment: Augmentation = "none"
    momentum: float = 0.9
    weight_decay: float = 5e-4
    decay_on: Literal["weights", "all"] = "weights"
    clip: float = 1.0
    average: float = 0.0
    device: Device = "auto"
    precision: Precision = "float32"
    compile: bool = False
    cuda_graph: bool = False
    log_every: int = 50
    checkpoint_every: int = 500
    keep_checkpoints: int = 2
    choose: Literal["last", "best"] = "last"
    patience: int = 0
    width: int = 24
    dropout: float = 0.3
    seed: int = 0

    def __post_init__(self) -> None:
        """Checks the settings.

        Raises:
            InputError: an unknown method or word, or a number out of range.
        """
        check_kinds(self, "train.")
        made = [load_method(method).name for method in self.methods]
        if not made or len(set(made)) < len(made):
            raise InputError(f"`train.methods` must name each method once, got {self.methods}.")
        positive = ("steps", "batch", "learning_rate", "log_every", "checkpoint_every", "width")
        for name in (*positive, "keep_checkpoints"):
            if not getattr(self, name) > 0:
                raise InputError(f"`train.{name}` must be positive, got {getattr(self, name)}.")
        for name in ("momentum", "dropout", "average"):
            if not 0 <= getattr(self, name) < 1:
                raise InputError(
                    f"`train.{name}` must be at least 0 and below 1, got {getattr(self, name)}."
                )
        for name in ("epochs", "weight_decay", "clip", "target_batch", "patience", "seed"):
            if getattr(self, name) < 0:
                raise InputError(f"`train.{name}` must not be negative, got {getattr(self, name)}.")
        if self.epochs == float("inf") or self.seed >= 2**63:
            raise InputError(
                "`train.epochs` must be finite and `train.seed` below 2**63, got "
                f"{self.epochs} and {self.seed}."
            )
        if self.compile and self.cuda_graph:
            raise InputError(
                "`train.compile` and `train.cuda_graph` must not both be true. Choose one."
            )
        if self.schedule not in SCHEDULES:
            raise InputError(
                f"`train.schedule` must be one of {', '.join(SCHEDULES)}, got `{self.schedule}`."
            )

    def steps_of(self, samples: int) -> int:
        """Optimiser steps of a training on so many samples."""
        if not self.epochs:
            return self.steps
        return math.ceil(self.epochs * max(samples / self.batch, 1.0))
