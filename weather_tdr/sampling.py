"""Which samples make a batch: as they come, or with a given share of each group."""

import torch
from torch import Tensor


class Shuffled:
    """Endless draws: every sample once an epoch, in a new order each epoch.

    Its state is the rest of the epoch (and the generator's), so that training resumes exactly.
    """

    def __init__(self, n: int, generator: torch.Generator) -> None:
        self.n, self.generator = n, generator
        self.rest = torch.empty(0, dtype=torch.int64)

    def draw(self, count: int) -> Tensor:
        """Index of the next `count` samples, shape (count,)."""
        while len(self.rest) < count:
            fresh = torch.randperm(self.n, generator=self.generator)
            self.rest = torch.cat([self.rest, fresh])
        index, self.rest = self.rest[:count], self.rest[count:]
        return index


class Batches:
    """Index batches of samples, with given shares of the groups or as they come.

    Args:
        groups: group of each sample, shape (n,).
        number: number of groups.
        batch: samples a batch.
        generator: source of the order.
    """

    def __init__(self, groups: Tensor, number: int, batch: int, generator: torch.Generator) -> None:
        self.batch = min(batch, len(groups))
        self.all = Shuffled(len(groups), generator)
        self.members = [torch.nonzero(groups == k).flatten() for k in range(number)]
        self.parts = [Shuffled(len(m), generator) for m in self.members]

    def draw(self, shares: Tensor | None = None) -> Tensor:
        """Index of the next batch, shape (batch,).

        Args:
            shares: of the groups, sum 1, shape (number,); a group that has samples gets at least
                one. None takes the samples as they come.
        """
        if shares is None:
            return self.all.draw(self.batch)
        counts = split_batch(self.batch, shares, [len(m) > 0 for m in self.members])
        drawn = [
            m[p.draw(c)] for m, p, c in zip(self.members, self.parts, counts, strict=True) if c
        ]
        return torch.cat(drawn)

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint needs beside the generator's state."""
        rests = {f"part{k}": p.rest for k, p in enumerate(self.parts)}
        return {"all": self.all.rest, **rests}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Puts back what `state` gave."""
        self.all.rest = state["all"]
        for k, part in enumerate(self.parts):
            part.rest = state[f"part{k}"]


def split_batch(batch: int, shares: Tensor, present: list[bool]) -> list[int]:
    """Whole numbers with the sum `batch`, near batch x shares (largest remainders), >= 1 each."""
    mask = torch.tensor(present, dtype=torch.float64)
    wanted = shares.detach().cpu().double().clamp(min=0.0) * mask
    wanted = wanted / wanted.sum() if wanted.sum() > 0 else mask / mask.sum()
    exact = wanted * (batch - int(mask.sum())) + mask
    counts = exact.floor()
    missing = batch - int(counts.sum())
    order = torch.argsort(exact - counts, descending=True, stable=True)
    counts[order[:missing]] += 1
    return [int(c) for c in counts]
