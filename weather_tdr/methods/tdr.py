"""Targeted data-driven regularization: the target set steers the group weights."""

import logging
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from data_pipelines.errors import Diverged, InputError
from weather_tdr import ranks
from weather_tdr.data import Batch
from weather_tdr.methods.hypergradient import Hypergradient, hypergradient
from weather_tdr.methods.lookahead import Decay, add_gradient, leave_gradient
from weather_tdr.methods.losses import Loss, cross_entropy, losses_of
from weather_tdr.methods.tdr_settings import TdrSettings

__all__ = ["Tdr", "TdrSettings"]

log = logging.getLogger(__name__)
MEMORY = 0.9  # of the running mean of normalised hypergradients
TINY = 1e-15  # length of a hypergradient whose squares float32 does not hold exactly
HIGHEST = 100.0  # upper limit of a weight in the projection of the reference implementation


@dataclass
class Tdr:
    """TDR for one's own loop: `step` stands where `loss.backward()` stood.

    In `fit` it is a method; there only `settings` and `loss` are asked for. `fit` also refuses a
    target set that lacks a group or shares samples with train; a loop of one's own can ask
    `check_groups` and `check_overlap` of `weather_tdr.fit_inputs`.

    Attributes:
        groups: number of groups; `fit` knows it.
        learning_rate: eta of the lookahead; set it as the optimiser's changes.
        settings: how the weights move.
        loss: per-sample loss of train.
        l2: weight decay in the lookahead, of all or by name; in the step it is the optimiser's.
        steps_in_all: of the whole training, for `settings.start`.
        optimizer: for `lookahead: optimizer`.
        weights: on the simplex, start at 1/groups; shape (groups,).

    Source: Kamani et al., Targeted Data-driven Regularization for Out-of-Distribution
    Generalization, KDD 2020.
    """

    groups: int = 0
    learning_rate: float = 0.0
    settings: TdrSettings = field(default_factory=TdrSettings)
    loss: Loss = cross_entropy
    l2: Decay = 0.0
    steps_in_all: int = 0
    optimizer: torch.optim.Optimizer | None = None
    weights: Tensor = field(default_factory=lambda: torch.empty(0))

    def __post_init__(self) -> None:
        """Sets the first weights.

        Raises:
            InputError: one group, or settings or a loss that are none.
        """
        if not isinstance(self.settings, TdrSettings) or not callable(self.loss):
            raise InputError(
                "`Tdr` must have `TdrSettings` and a function as loss, got "
                f"{type(self.settings).__name__} and {type(self.loss).__name__}. Write "
                "`Tdr(settings=TdrSettings(every=5))`; a loss by its name is one of a method."
            )
        if self.groups:
            self._refuse_one_group()
        if len(self.weights) == 0 and self.groups:
            self.weights = torch.full((self.groups,), 1.0 / self.groups)
        self.steps = 0
        self.moment = torch.zeros(self.groups)
        self.moves = 0
        self.hypergradient = torch.zeros(self.groups)
        self.target_loss = float("nan")

    def _refuse_one_group(self) -> None:
        if self.groups < 2:
            raise InputError(
                f"TDR needs at least two groups to weigh, got {self.groups}. Label more groups."
            )

    def _check(self, batch: Batch, target: Batch) -> None:
        """Refuses to begin with what it lacks.

        Raises:
            InputError: names it.
        """
        self._refuse_one_group()
        if not self.learning_rate > 0:
            raise InputError(
                f"`learning_rate` must be positive, got {self.learning_rate}. Give that of the "
                "optimiser."
            )
        if self.settings.lookahead == "optimizer" and self.optimizer is None:
            raise InputError("`lookahead: optimizer` must be given the optimiser, got none.")
        if self.settings.target_l2 and isinstance(self.l2, int | float) and not self.l2:
            raise InputError("`target_l2` needs the weight decay as `l2` of `Tdr`, got 0. Give it.")
        if (self.settings.start or self.settings.finish) and not self.steps_in_all:
            raise InputError(
                "`steps_in_all` must be positive for `tdr.start` or `tdr.finish`, got "
                f"{self.steps_in_all}. Give the number of steps of the whole training."
            )
        if self.steps_in_all and ranks.rank() == 0 and not self.settings.moves(self.steps_in_all):
            log.warning(
                "the weights of TDR never move: between `tdr.start` and `tdr.finish` of %d steps "
                "lies no multiple of `tdr.every` (%d). Train for longer, or lower it.",
                self.steps_in_all,
                self.settings.every,
            )
        w = self.weights
        if w.shape != (self.groups,) or not ((w >= 0).all() and abs(float(w.sum()) - 1.0) < 1e-3):
            raise InputError(
                f"`weights` must be {self.groups} numbers of at least 0 with sum 1, got "
                f"{w.tolist()}. Leave them out for equal ones."
            )
        for what, samples in (("batch", batch), ("target", target)):
            if not isinstance(samples, Batch):
                raise InputError(
                    f"the {what} must be a `Batch`, got {type(samples).__name__}. Make it one by "
                    "`Batch.of((inputs, labels))`."
                )
            # A rank may have no share of a small target set.
            low, high = (int(v) for v in samples.groups.aminmax()) if len(samples) else (0, 0)
            if low < 0 or high >= self.groups:
                raise InputError(
                    f"groups of the {what} must be 0 to {self.groups - 1}, got {low} to {high}. "
                    "Give `Tdr` their number, or number them from 0."
                )

    def step(self, model: nn.Module, batch: Batch, target: Batch) -> Tensor:
        """Moves the weights when it is their turn, and leaves the inner gradient in ``.grad``.

        In a process group each rank gives its part of both, and gets the gradient of the whole.

        Args:
            model: any module from inputs to logits; in training mode.
            batch: of train.
            target: of the target set; its pass runs in evaluation mode, with BatchNorm's running
                statistics after this batch.

        Returns:
            The inner loss (without the L2 term).

        Raises:
            Diverged: the target loss is not finite.
            InputError: it lacks something, or a group number is out of range (looked at in the
                first step).
        """
        if self.steps == 0:
            self._check(batch, target)
        like = next(model.parameters())
        # Not in half precision, in which small steps of the weights would be none.
        kind = torch.promote_types(torch.float32, like.dtype.to_real())
        if self.weights.dtype != kind or self.weights.device != like.device:
            for name in ("weights", "moment"):
                setattr(self, name, getattr(self, name).detach().to(like.device, kind))
        scale = self.scale(batch)
        turn, natural = self.turn, self.natural
        self.steps += 1
        if not turn:
            losses = losses_of(self.loss, model(batch.patches), batch.labels)
            factor = scale if natural else self.weights[batch.groups] * scale
            return leave_gradient(model, (factor * losses).sum())
        old, lag = self.weights, self.settings.lag
        found = hypergradient(
            model,
            batch,
            target,
            old,
            loss=self.loss,
            learning_rate=self.learning_rate,
            scale=scale,
            l2=self.l2,
            target_l2=self.l2 if self.settings.target_l2 else 0.0,
            optimizer=self.optimizer if self.settings.lookahead == "optimizer" else None,
            way=self.settings.hypergradient,
            keep=not lag,
        )
        self._take(found)
        weights = old if lag else self.weights
        add_gradient(model, found.gradient(weights))
        value = (weights[batch.groups] * scale * found.losses).sum()
        return ranks.sum_over_ranks([value])[0]

    @property
    def turn(self) -> bool:
        """True when the weights move in the next step, for which it needs the target set."""
        return (
            self.steps % self.settings.every == 0
            and self.steps >= self.settings.start * self.steps_in_all
            and not self.finishing
        )

    @property
    def natural(self) -> bool:
        """True while samples come and count as in ordinary training, before sampling is steered."""
        early = self.steps < self.settings.start * self.steps_in_all
        return early and self.settings.realise != "loss"

    @property
    def finishing(self) -> bool:
        """True in the last steps: the target set may join, and the weights stand still."""
        share = self.settings.finish
        return share > 0 and self.steps >= self.steps_in_all * (1.0 - share)

    def scale(self, batch: Batch) -> Tensor:
        """Factor c_i of each sample: 1/b; with steered shares one over its group's number.

        Both are numbers over all ranks.
        """
        ones = torch.ones(len(batch), dtype=self.weights.dtype, device=self.weights.device)
        if self.settings.realise == "loss" or self.natural:
            return ones / ranks.total(len(batch))
        counts = torch.bincount(batch.groups, minlength=self.groups)
        return ones / ranks.sum_over_ranks([counts])[0][batch.groups]

    def shares(self) -> Tensor | None:
        """Share of each group in the batches to draw; None draws as the samples come."""
        if self.settings.realise == "loss" or self.natural:
            return None
        if self.settings.realise == "shares":
            return self.weights
        return 0.5 * (self.weights + 1.0 / self.groups)

    def _take(self, found: Hypergradient) -> None:
        self.target_loss = float(found.target_loss)
        if not torch.isfinite(found.target_loss) or not torch.isfinite(found.value).all():
            told = f"target loss must be finite, got {self.target_loss}"
            if torch.isfinite(found.target_loss):
                told = f"hypergradient must be finite, got {found.value.tolist()}"
            raise Diverged(
                f"the {told}. Lower `train.learning_rate`, or look for missing values in train "
                "and target set."
            )
        self.hypergradient = found.value.detach()
        move = {
            "projected": self._projected,
            "exponentiated": self._exponentiated,
            "normalised": self._normalised,
        }[self.settings.update]
        self.moves += 1
        moved = self._floored(move(self.hypergradient))
        old = self.settings.average
        self.weights = old * self.weights + (1.0 - old) * moved

    def _floored(self, weights: Tensor) -> Tensor:
        """Lifts what lies below the floor and takes it off the others; else changes nothing."""
        low = self.settings.floor / self.groups
        above = (weights - low).clamp(min=0.0)
        return low + (1.0 - self.settings.floor) * above / above.sum()

    def _projected(self, slope: Tensor) -> Tensor:
        moved = (self.weights - self.settings.alpha * slope).clamp(0.0, HIGHEST)
        # If every weight would vanish, stay.
        return moved / moved.sum() if moved.sum() > 0 else self.weights

    def _exponentiated(self, slope: Tensor) -> Tensor:
        return self._softmax(self.settings.alpha * slope / max(self.learning_rate, 1e-12))

    def _normalised(self, slope: Tensor) -> Tensor:
        norm = slope.norm()
        if norm < TINY:  # whose square has vanished
            slope = slope / slope.abs().max().clamp(min=torch.finfo(slope.dtype).tiny)
            norm = slope.norm()
        self.moment = MEMORY * self.moment + (1 - MEMORY) * slope / norm.clamp(min=1e-30)
        return self._softmax(self.settings.alpha * self.moment / (1 - MEMORY**self.moves))

    def _softmax(self, step: Tensor) -> Tensor:
        # Logits from the weights themselves, so that they do not run away below the floor.
        logits = torch.log(self.weights.clamp(min=1e-12))
        return torch.softmax((1.0 - self.settings.pull) * (logits - logits.mean()) - step, 0)

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint needs."""
        counts = torch.tensor([self.steps, self.moves])
        return {
            "weights": self.weights,
            "moment": self.moment,
            "counts": counts,
            "hypergradient": self.hypergradient,
            "target_loss": torch.tensor(self.target_loss, dtype=torch.float64),
        }

    def restore(self, state: dict[str, Tensor]) -> None:
        """Puts back what `state` gave."""
        for name in ("weights", "moment", "hypergradient"):
            setattr(self, name, state[name])
        self.steps, self.moves = (int(v) for v in state["counts"])
        self.target_loss = float(state["target_loss"])

    def row(self, names: tuple[str, ...]) -> dict[str, Any]:
        """Columns of the history."""
        row = {f"weight_{n}": float(w) for n, w in zip(names, self.weights, strict=True)}
        row["target_loss"] = self.target_loss
        for n, h in zip(names, self.hypergradient, strict=True):
            row[f"hypergradient_{n}"] = float(h)
        return row
