"""The optimiser of a training, and the average of the network over its steps."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


def make_optimizer(
    model: nn.Module, learning_rate: float, momentum: float, weight_decay: float, *, decay_all: bool
) -> torch.optim.SGD:
    """SGD whose weight decay leaves out biases and the factors of BatchNorm.

    Args:
        model: the network.
        learning_rate: of all parameters.
        momentum: of all parameters.
        weight_decay: L2 on the parameters of more than one dimension.
        decay_all: on all parameters.
    """
    params = list(model.parameters())
    decayed = [p for p in params if decay_all or p.ndim > 1]
    free = [p for p in params if not decay_all and p.ndim <= 1]
    groups: list[dict[str, Any]] = [{"params": decayed}, {"params": free, "weight_decay": 0.0}]
    return torch.optim.SGD(
        [g for g in groups if g["params"]],
        lr=learning_rate,
        momentum=momentum,
        weight_decay=weight_decay,
    )


def decay_of(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, float]:
    """Weight decay of each parameter, by its name in the network."""
    known = {id(p): float(g["weight_decay"]) for g in optimizer.param_groups for p in g["params"]}
    return {name: known[id(p)] for name, p in model.named_parameters()}


class Average:
    """Exponential moving average of a network over the steps of its training.

    Running statistics are averaged too; counters are as in the last step. In the first steps it
    forgets faster: what is kept is min(decay, (step + 1) / (step + 10)).

    Args:
        model: the network.
        decay: share that is kept in a step.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model, self.decay = model, decay
        self.tensors = {k: _exact(t) for k, t in model.state_dict().items()}

    def update(self, step: int) -> None:
        """Takes in the network as it is after a step."""
        keep = min(self.decay, (step + 1) / (step + 10))
        for name, value in self.model.state_dict().items():
            if name not in self.tensors:  # a buffer that the first pass has made
                self.tensors[name] = _exact(value)
            mean = self.tensors[name]
            if mean.is_floating_point() or mean.is_complex():
                mean.lerp_(value.detach().to(mean), 1.0 - keep)
            else:
                mean.copy_(value)

    @contextmanager
    def shown(self) -> Iterator[None]:
        """The network is the average within the context."""
        now = {k: t.detach().clone() for k, t in self.model.state_dict().items()}
        self.model.load_state_dict(self.tensors)
        try:
            yield
        finally:
            self.model.load_state_dict(now)

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint needs."""
        return self.tensors

    def restore(self, state: dict[str, Tensor]) -> None:
        """Puts back what `state` gave."""
        like = next(self.model.parameters())
        for name, value in state.items():
            if name in self.tensors:
                self.tensors[name].copy_(value)
            else:
                self.tensors[name] = value.to(like.device)


def _exact(value: Tensor) -> Tensor:
    """A copy, of half precision in single, in which small steps of the mean are not lost."""
    half = value.dtype in (torch.float16, torch.bfloat16)
    return value.detach().clone().to(torch.float32 if half else value.dtype)
