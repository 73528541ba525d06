"""The state of the random generators that a network draws its dropout from."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Randomness:
    """State of the CPU's generator and, for a network on a GPU, of that GPU's."""

    cpu: Tensor
    gpu: Tensor | None
    device: torch.device

    @classmethod
    def of(cls, model: nn.Module) -> "Randomness":
        """As it is now."""
        device = next(model.parameters()).device
        gpu = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
        return cls(torch.get_rng_state(), gpu, device)

    @contextmanager
    def again(self) -> Iterator[None]:
        """Draws what was drawn after `of`, and leaves the generators as they were."""
        with torch.random.fork_rng([] if self.gpu is None else [self.device]):
            torch.set_rng_state(self.cpu)
            if self.gpu is not None:
                torch.cuda.set_rng_state(self.gpu, self.device)
            yield
