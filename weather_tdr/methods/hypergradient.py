"""The derivative of the target loss with respect to group weights, exact, three ways.

With per-sample losses l_i, groups g_i and weights w, a batch of b samples and L2 factor c:

    inner loss      L(p, w) = (1/b) sum_i w[g_i] l_i(p) + c/2 |p|^2
    lookahead       q(w)    = p - eta grad_p L(p, w)
    target loss     T(q)    = (1/m) sum_j l_j(q) + c/2 |q|^2
    hypergradient   dT/dw_k = -(eta/b) sum_{i: g_i = k} <grad l_i(p), v>,   v = grad T(q)

Only v needs the lookahead, and v is a constant for w: no second-order graph is needed.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import functional_call, jvp

from weather_tdr.data import Batch

Loss = Callable[[Tensor, Tensor], Tensor]  # (logits, labels) -> loss of each sample, shape (n,)
Params = dict[str, Tensor]


def trainable(model: nn.Module) -> Params:
    """The parameters that are trained, by name."""
    return {k: p for k, p in model.named_parameters() if p.requires_grad}


def dot(first: Params, second: Params) -> Tensor:
    """Inner product over all parameters."""
    return torch.stack([(first[k] * second[k]).sum() for k in first]).sum()


def _frozen_buffers(model: nn.Module) -> Params:
    """Copies of the buffers: an extra pass must not move BatchNorm's running statistics."""
    return {k: b.clone() for k, b in model.named_buffers()}


def gradient(params: Params, loss: Callable[[Params], Tensor]) -> Params:
    """Gradient of a scalar function of the parameters."""
    leaves = {k: p.detach().requires_grad_() for k, p in params.items()}
    grads = torch.autograd.grad(loss(leaves), list(leaves.values()), allow_unused=True)
    return {
        k: torch.zeros_like(leaves[k]) if g is None else g
        for k, g in zip(leaves, grads, strict=True)
    }


def target_gradient(
    model: nn.Module, lookahead: Params, target: Batch, loss: Loss, l2: float
) -> tuple[Params, Tensor]:
    """Gradient v of T at the lookahead and T itself; BatchNorm and dropout in evaluation mode."""
    training = model.training
    model.eval()
    buffers = _frozen_buffers(model)
    value = torch.zeros(())

    def total(params: Params) -> Tensor:
        nonlocal value
        logits = functional_call(model, {**params, **buffers}, (target.patches,))
        value = loss(logits, target.labels).mean() + l2 / 2 * dot(params, params)
        return value

    grads = gradient(lookahead, total)
    model.train(training)
    return grads, value.detach()


def look_ahead(params: Params, inner: Params, learning_rate: float, l2: float) -> Params:
    """Q = p - eta (inner + c p), detached."""
    return {k: (p - learning_rate * (inner[k] + l2 * p)).detach() for k, p in params.items()}


def group_gradients(
    model: nn.Module, batch: Batch, group: Tensor, groups: int, loss: Loss
) -> tuple[list[Params | None], Tensor]:
    """Gradient of (1/b) sum of each group's losses, by one forward and backward of its part.

    Exact for layers that treat samples one by one (no BatchNorm in training mode).

    Returns:
        A gradient for each group, None where the batch has none of it; and the per-sample losses.
    """
    params = trainable(model)
    losses = torch.zeros(len(batch), dtype=next(iter(params.values())).dtype)
    losses = losses.to(batch.patches.device)
    grads: list[Params | None] = []
    for k in range(groups):
        index = torch.nonzero(group == k).flatten()
        if len(index) == 0:
            grads.append(None)
            continue
        part = loss(model(batch.patches[index]), batch.labels[index])
        losses[index] = part.detach()
        flat = torch.autograd.grad(part.sum() / len(batch), list(params.values()))
        grads.append(dict(zip(params, flat, strict=True)))
    return grads, losses


def combine(grads: list[Params | None], weights: Tensor, like: Params) -> Params:
    """sum_k w_k G_k."""
    total = {k: torch.zeros_like(p) for k, p in like.items()}
    for weight, grad in zip(weights, grads, strict=True):
        for k in total if grad is not None else ():
            total[k] += weight * grad[k]  # type: ignore[index]
    return total


def forward_mode(
    model: nn.Module, batch: Batch, group: Tensor, groups: int, loss: Loss, v: Params
) -> Tensor:
    """<grad l_i, v> summed over each group and divided by b: one forward-mode pass.

    The Jacobian-vector product of the vector of per-sample losses along v; exact with BatchNorm
    in training mode, too.
    """

    def losses(params: Params) -> Tensor:
        # Copied inside: forward mode may not write to tensors from outside.
        state = {**params, **_frozen_buffers(model)}
        logits = functional_call(model, state, (batch.patches,))
        return loss(logits, batch.labels)

    params = {k: p.detach() for k, p in trainable(model).items()}
    tangents = jvp(losses, (params,), (v,))[1]
    sums = torch.zeros(groups, dtype=tangents.dtype, device=tangents.device)
    return sums.index_add(0, group, tangents) / len(batch)


def has_batch_coupling(model: nn.Module) -> bool:
    """True when a layer mixes the samples of a batch (BatchNorm in training mode)."""
    return any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in model.modules())


def double_backward(
    model: nn.Module,
    batch: Batch,
    group: Tensor,
    weights: Tensor,
    target: Batch,
    loss: Loss,
    learning_rate: float,
    l2: float = 0.0,
) -> Tensor:
    """The hypergradient by differentiating through the lookahead: slow; the oracle.

    Returns:
        dT/dw, shape (groups,).
    """
    params = trainable(model)
    w = weights.detach().clone().requires_grad_()
    training = model.training
    state = {**params, **_frozen_buffers(model)}
    losses = loss(functional_call(model, state, (batch.patches,)), batch.labels)
    inner = (w[group] * losses).mean() + l2 / 2 * dot(params, params)
    grads = torch.autograd.grad(inner, list(params.values()), create_graph=True)
    ahead = {k: p - learning_rate * g for (k, p), g in zip(params.items(), grads, strict=True)}
    model.eval()
    logits = functional_call(model, {**ahead, **_frozen_buffers(model)}, (target.patches,))
    outer = loss(logits, target.labels).mean() + l2 / 2 * dot(ahead, ahead)
    model.train(training)
    return torch.autograd.grad(outer, w)[0]
