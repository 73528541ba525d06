"""Learning rates over the steps, as factors on `train.learning_rate`."""

import math
from collections.abc import Callable

import torch


def cosine(step: int, steps: int) -> float:
    """100 steps of warm-up (a tenth of a short training), times half a cosine to zero."""
    warm = min(1.0, (step + 1) / max(min(100.0, 0.1 * steps), 1.0))
    half = 0.5 * (1.0 + float(torch.cos(torch.tensor(torch.pi * step / steps))))
    return warm * half


def stepped(step: int, steps: int) -> float:
    """Divided by 10 after 45.5, 68 and 91 % of the steps.

    Source: the reference implementation of TDR: epochs 91, 136 and 182 of 200.
    """
    falls = (math.ceil(share * steps - 1e-6) for share in (0.455, 0.68, 0.91))
    return float(0.1 ** sum(step >= fall for fall in falls))


def long_tail(step: int, steps: int) -> float:
    """2.5 % of warm-up, divided by 100 after 80 % of the steps and again after 90 %.

    Source: Cao et al. (2019): 5 epochs of warm-up, steps after 160 and 180 of 200 epochs.
    """
    warm = min(1.0, (step + 1) / max(0.025 * steps, 1.0))
    return float(warm * 0.01 ** sum(step >= share * steps for share in (0.8, 0.9)))


SCHEDULES: dict[str, Callable[[int, int], float]] = {
    "cosine": cosine,
    "step": stepped,
    "long_tail": long_tail,
    "constant": lambda step, steps: 1.0,
}
