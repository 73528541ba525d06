"""Weights of groups that do not move, and the step that uses them."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from data_pipelines.errors import InputError
from weather_tdr import ranks
from weather_tdr.data import Batch
from weather_tdr.methods.lookahead import leave_gradient
from weather_tdr.methods.losses import Loss, losses_of


def uniform(counts: Tensor) -> Tensor:
    """Every sample counts the same: weight 1 for each group, shape (groups,)."""
    return torch.ones(len(counts), dtype=torch.float32)


def inverse_frequency(counts: Tensor) -> Tensor:
    """Every group counts the same: n / (K n_k), so that the mean weight over samples is 1.

    Args:
        counts: samples of each group in train, shape (groups,).

    Raises:
        InputError: a group is empty.
    """
    _refuse_empty("inverse_frequency", counts)
    return (counts.sum() / (len(counts) * counts)).float()


def class_balanced(counts: Tensor, beta: float = 0.9999) -> Tensor:
    """Inverse effective number (1 - beta) / (1 - beta^n_k), scaled to a mean over samples of 1.

    Args:
        counts: samples of each group in train, shape (groups,).
        beta: 0 gives uniform weights, 1 in the limit inverse frequency.

    Raises:
        InputError: a group is empty.

    Source: Cui et al. (2019), Class-Balanced Loss Based on Effective Number of Samples. (There
    the weights are scaled to a mean over classes of 1; the mean over samples keeps the learning
    rate comparable.)
    """
    _refuse_empty("class_balanced", counts)
    weights = (1.0 - beta) / (1.0 - beta ** counts.double())
    return (weights * counts.sum() / (weights * counts).sum()).float()


def _refuse_empty(name: str, counts: Tensor) -> None:
    if (counts == 0).any():
        raise InputError(
            f"`{name}` needs samples of every group in train, got counts {counts.tolist()}. "
            "Use `uniform`, or add samples."
        )


@dataclass
class Static:
    """Fixed group weights, from some step on.

    Attributes:
        weights: shape (groups,).
        loss: per-sample loss.
        start: first step at which the weights count; uniform before (deferred reweighting, DRW:
            Cao et al. 2019).
        steps: steps done.
    """

    weights: Tensor
    loss: Loss
    start: int = 0
    steps: int = 0

    def step(self, model: nn.Module, batch: Batch, target: Batch | None = None) -> Tensor:
        """Leaves the gradient of the weighted mean loss in ``.grad``; returns that loss."""
        losses = losses_of(self.loss, model(batch.patches), batch.labels)
        weights = self.now().to(losses)
        self.steps += 1
        value = (weights[batch.groups] * losses).sum() / ranks.total(len(batch))
        return leave_gradient(model, value)

    def now(self) -> Tensor:
        """The weights that count at this step."""
        return self.weights if self.steps >= self.start else torch.ones_like(self.weights)

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint needs."""
        return {"steps": torch.tensor(self.steps)}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Puts back what `state` gave."""
        self.steps = int(state["steps"])

    def row(self, names: tuple[str, ...]) -> dict[str, float]:
        """Columns of the history."""
        return {f"weight_{n}": float(w) for n, w in zip(names, self.now(), strict=True)}
