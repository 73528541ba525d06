"""A weight a sample, steered by the target set: learning to reweight, and Meta-Weight-Net.

Both need <grad l_i(p), v> of every sample of the batch, v the target gradient at the lookahead:
one forward-mode pass, in place of the second-order graph of their reference implementations.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from data_pipelines.errors import Diverged
from weather_tdr import ranks
from weather_tdr.data import Batch
from weather_tdr.devices import eager
from weather_tdr.methods.hypergradient import target_gradient
from weather_tdr.methods.lookahead import (
    Decay,
    decay_by_name,
    gradients,
    leave_gradient,
    look_ahead,
    total,
    trainable,
)
from weather_tdr.methods.losses import Loss, cross_entropy, losses_of
from weather_tdr.methods.randomness import Randomness
from weather_tdr.methods.sample_slopes import frozen_buffers, plain_attention, sample_slopes


def _check(value: Tensor) -> float:
    if not torch.isfinite(value):
        raise Diverged(
            f"the target loss must be finite, got {float(value)}. Lower `train.learning_rate`, "
            "or look for missing values in the target set."
        )
    return float(value)


def _group_means(weights: Tensor, batch: Batch, names: tuple[str, ...]) -> dict[str, float]:
    sums = weights.new_zeros(len(names)).index_add(0, batch.groups, weights)
    counts = torch.bincount(batch.groups, minlength=len(names))
    sums, counts = ranks.sum_over_ranks([sums, counts])
    return {f"weight_{n}": float(mean) for n, mean in zip(names, sums / counts, strict=True)}


@dataclass
class LearningToReweight:
    """Weights w_i = max(0, <grad l_i(p), v>), divided by their sum; v = grad T(p).

    The paper's derivative at weights of zero, where the lookahead is p itself; where every weight
    vanishes, the batch has no gradient (momentum and weight decay still act). The pass of the
    target batch has BatchNorm and dropout in evaluation mode, as TDR's; implementations of others
    commonly leave it in training mode.

    Attributes:
        loss: per-sample loss.

    Source: Ren et al. (2018), Learning to Reweight Examples for Robust Deep Learning, algorithm 1.
    """

    loss: Loss = cross_entropy
    target_loss: float = float("nan")
    last: tuple[Tensor, Batch] | None = None

    def step(self, model: nn.Module, batch: Batch, target: Batch) -> Tensor:
        """Leaves the inner gradient in ``.grad`` and returns the inner loss."""
        random, before = Randomness.of(model), frozen_buffers(model)
        # The forward-mode pass must draw the same dropout.
        with eager(model), plain_attention(batch.patches):
            losses = losses_of(self.loss, model(batch.patches), batch.labels)
        here = {k: p.detach().clone() for k, p in trainable(model).items()}
        v, value = target_gradient(model, here, target, self.loss, {}, None)
        self.target_loss = _check(value)
        slopes = sample_slopes(model, batch, self.loss, v, random, before).clamp(min=0.0)
        whole = ranks.sum_over_ranks([slopes.sum()])[0]
        weights = slopes / whole if whole > 0 else slopes
        self.last = weights * ranks.total(len(batch)), batch
        return leave_gradient(model, (weights * losses).sum())

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint needs."""
        return {"target_loss": torch.tensor(self.target_loss, dtype=torch.float64)}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Puts back what `state` gave."""
        self.target_loss = float(state["target_loss"])

    def row(self, names: tuple[str, ...]) -> dict[str, float]:
        """Columns of the history; a group's weight is the mean over its samples in the batch."""
        row = {} if self.last is None else _group_means(*self.last, names)
        return row | {"target_loss": self.target_loss}


@dataclass
class MetaWeightNet:
    """Weights V(l_i; Theta) of a small network of the loss, trained on the target loss.

        inner loss  L(p, Theta) = sum_i w_i l_i(p),   w_i = V_i / S,   S = sum_j V_j
        dT/dTheta = sum_i (dT/dV_i) dV_i/dTheta,   dT/dV_i = -(eta/S) (s_i - sum_j w_j s_j)

    with V_i = V(l_i; Theta) and the slopes s_i = <grad l_i(p), v>. V is one hidden layer of 100
    rectified units and a sigmoid; the loss that goes into it is cut off from the graph. Theta
    moves, then weighs the batch. Weights with the sum 1 are those of the authors' code for
    imbalance (the paper's equation has V/b, with which V can take the whole loss away); Theta
    moves with Adam at 1e-3, as in their code for noisy labels (in that for imbalance with SGD at
    1e-5, with which it hardly moves in a few thousand steps). The pass of the target batch is in
    evaluation mode, as in `LearningToReweight`.

    Attributes:
        learning_rate: eta of the lookahead.
        loss: per-sample loss.
        every: steps between two moves of Theta.
        net_rate: learning rate of Theta.

    Source: Shu et al. (2019), Meta-Weight-Net: Learning an Explicit Mapping For Sample Weighting.
    """

    learning_rate: float
    loss: Loss = cross_entropy
    l2: Decay = 0.0
    every: int = 1
    net_rate: float = 1e-3
    steps: int = 0
    target_loss: float = float("nan")
    net: nn.Module = field(default_factory=lambda: _weight_net())
    last: tuple[Tensor, Batch] | None = None

    def __post_init__(self) -> None:
        """Makes the optimiser of Theta."""
        self.optimizer = torch.optim.Adam(
            self.net.parameters(), lr=self.net_rate, weight_decay=1e-4
        )

    def step(self, model: nn.Module, batch: Batch, target: Batch) -> Tensor:
        """Moves Theta, leaves the inner gradient in ``.grad`` and returns the inner loss."""
        params = trainable(model)
        self._move_to(next(iter(params.values())))
        random, before = Randomness.of(model), frozen_buffers(model)
        # The forward-mode pass must draw the same dropout.
        with eager(model), plain_attention(batch.patches):
            losses = losses_of(self.loss, model(batch.patches), batch.labels)
        if self.steps % self.every == 0:
            values = self._values(losses)
            weights, whole = _divided(values.detach())
            inner = (weights * losses).sum()
            ahead, _ = look_ahead(
                params,
                total(gradients(inner, params, retain=True)),
                self.learning_rate,
                decay_by_name(self.l2, params),
            )
            v, outer = target_gradient(model, ahead, target, self.loss, {}, None)
            self.target_loss = _check(outer)
            slopes = sample_slopes(model, batch, self.loss, v, random, before)
            mean = ranks.sum_over_ranks([(weights * slopes).sum()])[0]
            self.optimizer.zero_grad()
            values.backward(-self.learning_rate / whole * (slopes - mean))  # type: ignore[no-untyped-call]
            own = [p.grad for p in self.net.parameters() if p.grad is not None]
            for gradient, summed in zip(own, ranks.sum_over_ranks(own), strict=True):
                gradient.copy_(summed)
            self.optimizer.step()
        self.steps += 1
        with torch.no_grad():
            weights, _ = _divided(self._values(losses))
        self.last = weights * ranks.total(len(batch)), batch
        return leave_gradient(model, (weights * losses).sum())

    def _values(self, losses: Tensor) -> Tensor:
        """V of each loss, in the precision of Theta also where the network has less."""
        like = next(self.net.parameters())
        with torch.autocast(like.device.type, enabled=False):
            values: Tensor = self.net(losses.detach().to(like.dtype)[:, None])[:, 0]
        return values

    def _move_to(self, like: Tensor) -> None:
        """Brings Theta and its moments to the network's device and type, of 32 bits at least."""
        # Not in half precision, in which small steps of Theta would be none.
        kind = torch.promote_types(torch.float32, like.dtype.to_real())
        if (p := next(self.net.parameters())).device == like.device and p.dtype == kind:
            return
        self.net.to(like.device, kind)
        for values in self.optimizer.state.values():
            for key in ("exp_avg", "exp_avg_sq"):
                values[key] = values[key].to(like.device, kind)

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint needs."""
        state = {f"net.{k}": t for k, t in self.net.state_dict().items()}
        for index, values in self.optimizer.state_dict()["state"].items():
            state |= {f"adam.{index}.{k}": torch.as_tensor(v) for k, v in values.items()}
        return state | {"steps": torch.tensor(self.steps)}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Puts back what `state` gave."""
        net = {k.removeprefix("net."): t for k, t in state.items() if k.startswith("net.")}
        self.net.to(net["0.weight"])
        self.net.load_state_dict(net)
        full = self.optimizer.state_dict()
        for key, value in state.items():
            if key.startswith("adam."):
                _, index, name = key.split(".", 2)
                full["state"].setdefault(int(index), {})[name] = value
        self.optimizer.load_state_dict(full)
        self.steps = int(state["steps"])

    def row(self, names: tuple[str, ...]) -> dict[str, float]:
        """Columns of the history; a group's weight is the mean over its samples in the batch."""
        row = {} if self.last is None else _group_means(*self.last, names)
        return row | {"target_loss": self.target_loss}


def _divided(values: Tensor) -> tuple[Tensor, Tensor]:
    """Values divided by their sum over all ranks, and the sum (never below 1e-12)."""
    whole = ranks.sum_over_ranks([values.sum()])[0].clamp(min=1e-12)
    return values / whole, whole


def _weight_net() -> nn.Module:
    return nn.Sequential(nn.Linear(1, 100), nn.ReLU(), nn.Linear(100, 1), nn.Sigmoid())
