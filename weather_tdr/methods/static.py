"""Fixed group weights."""

import torch
from torch import Tensor

from data_pipelines.errors import InputError


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
    if (counts == 0).any():
        raise InputError(
            f"`inverse_frequency` needs samples of every group, got counts {counts.tolist()}."
        )
    return (counts.sum() / (len(counts) * counts)).float()
