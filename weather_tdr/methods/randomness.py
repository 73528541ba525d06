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
        gpu = None
        if device.type == "cuda":
            gpu = torch.cuda.get_rng_state(device)
        elif device.type == "mps":
            gpu = torch.mps.get_rng_state()
        return cls(torch.get_rng_state(), gpu, device)

    def restore(self) -> None:
        """Puts it back."""
        torch.set_rng_state(self.cpu)
        if self.gpu is None:
            return
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(self.gpu, self.device)
        elif self.device.type == "mps":
            torch.mps.set_rng_state(self.gpu)

    @contextmanager
    def again(self, model: nn.Module) -> Iterator[None]:
        """Draws what was drawn after `of`, and leaves the generators as they were."""
        now = Randomness.of(model)
        self.restore()
        try:
            yield
        finally:
            now.restore()
