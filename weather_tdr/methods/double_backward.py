"""The oracle: the hypergradient by backpropagation through the lookahead."""

import torch
from torch import Tensor, nn

from weather_tdr.data import Batch
from weather_tdr.devices import eager, evaluating
from weather_tdr.methods.lookahead import (
    Params,
    gradients,
    l2_term,
    logits_at,
    look_ahead,
    trainable,
)
from weather_tdr.methods.losses import Loss, losses_of
from weather_tdr.methods.randomness import Randomness
from weather_tdr.methods.sample_slopes import frozen_again, plain_attention


def double_backward(
    model: nn.Module,
    batch: Batch,
    weights: Tensor,
    scale: Tensor,
    target: Batch,
    loss: Loss,
    learning_rate: float,
    decay: dict[str, float],
    target_decay: dict[str, float],
    optimizer: torch.optim.Optimizer | None,
    buffers: Params,
    random: Randomness,
) -> tuple[Tensor, Tensor]:
    """The hypergradient by differentiating through the lookahead: slow; the oracle.

    Not for layers marked as differentiable once (`once_differentiable`): torch leaves them out
    without an error. Nor for activation checkpointing, which computes the lookahead's layers anew
    with the network's own parameters.

    Returns:
        dT/dw, shape (groups,), and T.
    """
    params = trainable(model)
    w = weights.detach().clone().requires_grad_()
    with eager(model), random.again(model), plain_attention(batch.patches):
        state = {**params, **frozen_again(model, buffers)}
        losses = losses_of(loss, logits_at(model, state, batch.patches), batch.labels)
    total = (w[batch.groups] * scale * losses).sum()
    inner = gradients(total, params, graph=True)
    ahead, _ = look_ahead(params, inner, learning_rate, decay, optimizer, detach=False)
    with eager(model), evaluating(model):
        logits = logits_at(model, ahead, target.patches)
    outer = losses_of(loss, logits, target.labels).mean() + l2_term(ahead, target_decay)
    return torch.autograd.grad(outer, w)[0], outer.detach()
