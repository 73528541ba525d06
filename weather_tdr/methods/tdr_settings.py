"""The settings of TDR, checked."""

import math
from dataclasses import dataclass
from typing import Literal

from data_pipelines.errors import InputError, check_kinds
from weather_tdr.methods.hypergradient import Way


@dataclass(frozen=True)
class TdrSettings:
    """How the target set steers the group weights.

    Attributes:
        update: `projected`: w <- Pi(w - alpha h), Pi clips to [0, 100] and divides by the sum (the
            reference implementation); `exponentiated`: w <- w exp(-alpha h / eta), normalised;
            `normalised`: the same with the running mean of h / |h| in place of h / eta, so that
            alpha means the same on every problem and to the end of the training.
        alpha: step of the weights.
        every: steps between two moves of the weights.
        start: share of all steps before the weights move. With steered shares that part is
            ordinary training, on samples as they come.
        floor: no weight falls below this share of 1/groups.
        pull: share of the logits (relative to equal weights) lost at each move, so that weights
            stay away from the corners; not for `projected`.
        average: share of each move that is left out: w <- average w + (1 - average) moved.
        realise: the weights as factors in the `loss`; as sampling `shares` of the groups in each
            batch; or `split` between both: sampled half way to equal shares, the rest in the loss.
        lag: a new weight acts from the next step on, not in the step that found it, which saves a
            backward pass, and the memory for it, in every way but `per_group`.
        hypergradient: `auto`, `per_group`, `forward_mode`, `double_backward`,
            `finite_difference`.
        lookahead: `sgd`, or `optimizer`: with the momentum or moments of the optimiser.
        eta: learning rate of the lookahead, in `fit`: `scheduled`, or `initial`: that before any
            schedule, all the time (the reference implementation).
        target_l2: whether the weight decay enters the target loss as L2.
        finish: share of the last steps in which the target set joins the training batches; the
            weights stand still then.
    """

    update: Literal["projected", "exponentiated", "normalised"] = "projected"
    alpha: float = 0.1
    every: int = 10
    start: float = 0.0
    floor: float = 0.0
    pull: float = 0.0
    average: float = 0.0
    realise: Literal["loss", "shares", "split"] = "loss"
    lag: bool = False
    hypergradient: Way = "auto"
    lookahead: Literal["sgd", "optimizer"] = "sgd"
    eta: Literal["scheduled", "initial"] = "scheduled"
    target_l2: bool = False
    finish: float = 0.0

    def __post_init__(self) -> None:
        """Checks the numbers.

        Raises:
            InputError: an unknown word, or a number out of range.
        """
        check_kinds(self, "tdr.")
        if not 0 < self.alpha < float("inf") or self.every < 1:
            raise InputError(
                f"`tdr.alpha` and `tdr.every` must be positive and finite, got {self.alpha} and "
                f"{self.every}."
            )
        for name in ("start", "floor", "pull", "average", "finish"):
            if not 0 <= getattr(self, name) < 1:
                raise InputError(
                    f"`tdr.{name}` must be at least 0 and below 1, got {getattr(self, name)}."
                )
        if self.start + self.finish >= 1:
            raise InputError(
                "`tdr.start` and `tdr.finish` must leave steps between them in which the weights "
                f"move, got {self.start} and {self.finish}. Lower one of them."
            )
        if self.update == "projected" and self.pull:
            raise InputError(
                "`tdr.pull` acts on logits, which `update: projected` has not. "
                "Use `exponentiated` or `normalised`."
            )

        if self.lookahead == "optimizer" and self.eta == "initial":
            raise InputError(
                "`tdr.eta: initial` is for `lookahead: sgd`; the step of the optimiser has its own "
                "rate. Leave one of them out."
            )

    def moves(self, steps: int) -> bool:
        """Whether the weights move at all in a training of so many steps."""
        first = -(-math.ceil(self.start * steps) // self.every) * self.every
        return first < steps * (1.0 - self.finish)
