"""Watches a training: for the best score, and for the ways in which steering fails."""

import logging
import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

log = logging.getLogger(__name__)
VANISHED = 1e-3  # share of an equal weight
PATIENCE = 5  # logged rows in a row
WORSE = 4  # validations in a row; with three, noise would do for one in six


@dataclass
class Best:
    """The best score on validation until now; the first of equal ones.

    Attributes:
        step: after so many steps.
        score: the score; NaN before the first.
        waited: validations since.
        network: its tensors, where they are wanted.
    """

    step: int = 0
    score: float = math.nan
    waited: int = 0
    network: dict[str, Tensor] | None = None

    def look(self, step: int, score: float) -> bool:
        """Whether a new score is the best."""
        if not math.isnan(score) and not score <= self.score:
            self.step, self.score, self.waited = step, score, 0
            return True
        self.waited += 1
        return False

    def patience_is_over(self, patience: int) -> bool:
        """Whether so many validations in a row were no better; never with 0."""
        return 0 < patience <= self.waited

    def state(self) -> dict[str, float]:
        """JSON values for a checkpoint."""
        return {"step": self.step, "score": self.score, "waited": self.waited}


class Watch:
    """Counts what is drawn, and warns of vanished weights, dead hypergradients, overfitting.

    Args:
        names: of the groups.
        every: steps between two logged rows.
    """

    def __init__(self, names: tuple[str, ...], every: int) -> None:
        self.names, self.every = names, every
        self.drawn = torch.zeros(len(names), dtype=torch.int64)
        self.zeros = [0] * len(names)  # moves in a row that found no slope, by group
        self.found: list[float | None] = []
        self.scores: list[tuple[float, float]] = []  # target loss, validation score
        self.said: list[str] = []

    def count(self, groups: Tensor) -> None:
        """Counts the groups of a batch."""
        self.drawn += torch.bincount(groups.cpu(), minlength=len(self.names))

    def shares(self) -> dict[str, float]:
        """Share of each group among the samples drawn since the last call."""
        total = max(int(self.drawn.sum()), 1)
        shares = {f"share_{n}": int(c) / total for n, c in zip(self.names, self.drawn, strict=True)}
        self.drawn.zero_()
        return shares

    def look(self, row: dict[str, float]) -> None:
        """Looks at a row of the history."""
        for name in self.names:
            weight = row.get(f"weight_{name}", 1.0)
            if f"hypergradient_{name}" in row and weight < VANISHED / len(self.names):
                self._say(
                    f"vanished {name}",
                    f"the weight of group `{name}` has vanished ({weight:.1e} at step "
                    f"{row['step']}): it hardly trains any more. Set `tdr.floor` or `tdr.pull`.",
                )
        slopes = [row.get(f"hypergradient_{n}") for n in self.names]
        found = [row.get("target_loss"), *slopes]
        # Between two moves of the weights rows repeat the last one.
        fresh, self.found = found != self.found, found
        if fresh and None not in slopes and not math.isnan(row["target_loss"]):
            self.zeros = [0 if s else n + 1 for n, s in zip(self.zeros, slopes, strict=True)]
            if dead := [n for n, k in zip(self.names, self.zeros, strict=True) if k >= PATIENCE]:
                self._say(
                    "zero",
                    f"the hypergradient of {', '.join(dead)} has been zero in {PATIENCE} logged "
                    "moves in a row: batches rarely hold such a sample. Raise `train.batch`, or "
                    "set `tdr.realise: shares`.",
                )

    def validated(self, target_loss: float, score: float) -> None:
        """Looks at the loss of the target set and the score on validation, after a validation."""
        self.scores.append((target_loss, score))
        last = self.scores[-WORSE:]
        falls = all(a[0] > b[0] for a, b in pairwise(last))
        worse = all(a[1] > b[1] for a, b in pairwise(last))
        if len(last) == WORSE and falls and worse:
            self._say(
                "overfit",
                "the target loss has fallen and the validation score worsened over "
                f"{WORSE} validations in a row: the training overfits the target set. Enlarge "
                "`splits.target_per_group`, train for fewer steps, or lower what the method has of "
                "`tdr.alpha`, `tdr.finish` and `fine_tune_share`.",
            )

    def _say(self, key: str, text: str) -> None:
        if key not in self.said:
            self.said.append(key)
            log.warning("warning: %s", text)

    def state(self) -> dict[str, Any]:
        """JSON values for a checkpoint."""
        return {
            "drawn": self.drawn.tolist(),
            "zeros": self.zeros,
            "found": self.found,
            "scores": self.scores,
            "said": self.said,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Puts back what `state` gave."""
        self.drawn = torch.tensor(state["drawn"])
        self.zeros, self.said, self.found = (state[k] for k in ("zeros", "said", "found"))
        self.scores = [(a, b) for a, b in state["scores"]]
