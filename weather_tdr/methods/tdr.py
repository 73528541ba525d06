"""Targeted data-driven regularization: the target set steers the group weights."""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from data_pipelines.errors import InputError
from weather_tdr.data import Batch
from weather_tdr.methods.hypergradient import (
    Loss,
    combine,
    forward_mode,
    group_gradients,
    has_batch_coupling,
    look_ahead,
    target_gradient,
    trainable,
)


@dataclass
class Tdr:
    """TDR in the setting of the reference implementation (`tdr_faithful`).

    The equation above the loop:

        w <- Pi(w - alpha dT/dw),   Pi clips to [0, 100] and divides by the sum

    Attributes:
        groups: number of groups.
        learning_rate: eta of the lookahead, plain SGD.
        alpha: step of the weights.
        every: steps between two moves of the weights.
        l2: factor c of c/2 |p|^2 in the inner and the target loss; in the inner step itself it
            is the optimiser's weight decay.
        weights: starts at 1/groups; shape (groups,).
        hypergradient: the last one, shape (groups,).
        target_loss: the last one at the lookahead.

    Source: Kamani et al., Targeted Data-driven Regularization for Out-of-Distribution
    Generalization, KDD 2020.
    """

    groups: int
    learning_rate: float
    alpha: float = 0.1
    every: int = 10
    l2: float = 2e-3
    weights: Tensor = field(default_factory=lambda: torch.empty(0))
    hypergradient: Tensor = field(default_factory=lambda: torch.empty(0))
    target_loss: float = float("nan")

    def __post_init__(self) -> None:
        """Checks the settings and sets the first weights.

        Raises:
            InputError: fewer than two groups.
        """
        if self.groups < 2:
            raise InputError(
                f"TDR needs at least two groups to weigh, got {self.groups}. "
                "Use `uniform`, or label more groups."
            )
        if len(self.weights) == 0:
            self.weights = torch.full((self.groups,), 1.0 / self.groups)
            self.hypergradient = torch.zeros(self.groups)

    def step(
        self, model: nn.Module, batch: Batch, group: Tensor, target: Batch, loss: Loss, step: int
    ) -> Tensor:
        """Moves the weights when it is their turn, and leaves the inner gradient in ``.grad``.

        Args:
            model: any module from patches to logits; in training mode.
            batch: of train.
            group: group of each sample of the batch, shape (b,).
            target: target batch.
            loss: per-sample loss.
            step: number of this step, from 0.

        The target pass runs in evaluation mode, with the running statistics after this batch.

        Returns:
            The inner loss with the new weights (without the L2 term).

        Raises:
            InputError: the target loss is not finite.
        """
        params = trainable(model)
        self.weights = self.weights.to(batch.patches)
        if has_batch_coupling(model):
            # The samples of a batch depend on each other: one graph, forward mode along v.
            losses = loss(model(batch.patches), batch.labels)
            if step % self.every == 0:
                inner = torch.autograd.grad(
                    (self.weights[group] * losses).mean(), list(params.values()), retain_graph=True
                )
                named = dict(zip(params, inner, strict=True))
                self._move(self._slope_forward(model, batch, group, target, loss, named))
            value = (self.weights[group] * losses).mean()
            grads = torch.autograd.grad(value, list(params.values()))
            total = dict(zip(params, grads, strict=True))
            value = value.detach()
        else:
            parts, sample_losses = group_gradients(model, batch, group, self.groups, loss)
            if step % self.every == 0:
                inner_grad = combine(parts, self.weights, params)
                v = self._target(model, target, loss, inner_grad)
                slopes = [
                    torch.zeros((), device=group.device)
                    if g is None
                    else torch.stack([(g[k] * v[k]).sum() for k in v]).sum()
                    for g in parts
                ]
                self._move(-self.learning_rate * torch.stack(slopes))
            total = combine(parts, self.weights, params)
            value = (self.weights[group] * sample_losses).mean()
        for k, p in params.items():
            p.grad = total[k]
        return value

    def _target(
        self, model: nn.Module, target: Batch, loss: Loss, inner: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        ahead = look_ahead(trainable(model), inner, self.learning_rate, self.l2)
        v, value = target_gradient(model, ahead, target, loss, self.l2)
        self.target_loss = float(value)
        if not torch.isfinite(value):
            raise InputError(
                f"the target loss must be finite, got {float(value)}. Lower "
                "`train.learning_rate`, or look for missing values in the target set."
            )
        return v

    def _slope_forward(
        self,
        model: nn.Module,
        batch: Batch,
        group: Tensor,
        target: Batch,
        loss: Loss,
        inner: dict[str, Tensor],
    ) -> Tensor:
        v = self._target(model, target, loss, inner)
        return -self.learning_rate * forward_mode(model, batch, group, self.groups, loss, v)

    def _move(self, hypergradient: Tensor) -> None:
        self.hypergradient = hypergradient.detach()
        moved = (self.weights - self.alpha * self.hypergradient).clamp(0.0, 100.0)
        if moved.sum() > 0:  # otherwise every weight would vanish: stay
            self.weights = moved / moved.sum()
