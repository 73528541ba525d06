"""The derivative of the target loss with respect to group weights: three exact ways, one function.

With per-sample losses l_i, groups g_i, group weights w, factors c_i (1/b, or one over the number
of the group's samples in the batch), an L2 factor r and a batch of b samples:

    inner loss      L(p, w) = sum_i w[g_i] c_i l_i(p) + r/2 |p|^2
    lookahead       q(w)    = p - eta grad_p L(p, w)
    target loss     T(q)    = (1/m) sum_j l_j(q) + r'/2 |q|^2
    hypergradient   dT/dw_k = -eta sum_{i: g_i = k} c_i <grad l_i(p), v>,   v = grad T(q)

Only v needs the lookahead, and v is a constant for w: no second-order graph is needed.

- ``per_group``: backpropagate each group's part of the batch. With the per-group gradients G_k
  the training gradient is sum_k w_k G_k for any w, and dT/dw_k = -eta <G_k, v>. Where layers treat
  samples one by one, the parts together cost one pass; with BatchNorm, one forward pass of the
  whole batch and a backward pass a group.
- ``forward_mode``: one Jacobian-vector product of the per-sample losses along v. With BatchNorm
  too; its cost does not depend on the number of groups.
- ``double_backward``: backpropagation through the lookahead: the oracle.
- ``finite_difference``: (l_i(p + e v) - l_i(p - e v)) / 2e in place of the Jacobian-vector
  product; e = 0.01 / |v| as in DARTS (Liu et al. 2019). Where the loss is smooth between the two
  points its error is e^2/6 times the third derivative along v; where rectified units or poolings
  switch between them it is larger, whatever the precision. On small networks up to 12 % of the
  result was measured.

The optimiser may enter the lookahead: q = p - eta u(grad L) with its update u, whose derivative
is diagonal, so that v becomes u' v.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from data_pipelines.errors import InputError
from weather_tdr import ranks
from weather_tdr.data import Batch
from weather_tdr.devices import eager, evaluating
from weather_tdr.methods.double_backward import double_backward
from weather_tdr.methods.lookahead import (
    Decay,
    Params,
    at,
    decay_by_name,
    dot,
    gradients,
    l2_term,
    look_ahead,
    total,
    trainable,
)
from weather_tdr.methods.losses import Loss, losses_of
from weather_tdr.methods.randomness import Randomness
from weather_tdr.methods.sample_slopes import (
    frozen_buffers,
    plain_attention,
    sample_differences,
    sample_slopes,
)

Way = Literal["auto", "per_group", "forward_mode", "double_backward", "finite_difference"]
# One forward-mode pass is cheaper than more parts than the first, unless on a CPU a part has the
# second many samples (and then at most the third); and with BatchNorm than more backward passes.
MOST_PARTS, LEAST_SAMPLES, MOST_LARGE_PARTS, MOST_PASSES = 4, 8, 16, 2


@dataclass(frozen=True)
class Hypergradient:
    """The hypergradient, and what the inner step can use of the work.

    Attributes:
        value: dT/dw, shape (groups,).
        target_loss: T at the lookahead.
        losses: of the batch's samples (on this rank), shape (b,), detached.
        gradient: the training gradient (without the L2 term) by parameter: for the weights that
            were given; if they were to be kept, also for others, once.
    """

    value: Tensor
    target_loss: Tensor
    losses: Tensor
    gradient: Callable[[Tensor], Params]


def hypergradient(
    model: nn.Module,
    batch: Batch,
    target: Batch,
    weights: Tensor,
    *,
    loss: Loss,
    learning_rate: float,
    scale: Tensor | None = None,
    l2: Decay = 0.0,
    target_l2: Decay = 0.0,
    optimizer: torch.optim.Optimizer | None = None,
    way: Way = "auto",
    keep: bool = True,
) -> Hypergradient:
    """The hypergradient of the group weights.

    On several ranks, each gives its part of the batch and of the target set, and gets the
    hypergradient of the whole.

    Args:
        model: any module from inputs to logits; in training mode. The batch's own forward pass
            moves BatchNorm's running statistics once; no extra pass does.
        batch: of train, with its groups.
        target: of the target set; passes in evaluation mode.
        weights: w, shape (groups,).
        loss: per-sample loss.
        learning_rate: eta.
        scale: c_i, shape (b,); by default 1/b, b over all ranks.
        l2: r of the inner loss, of all parameters or by name.
        target_l2: r' of the target loss, likewise.
        optimizer: for a lookahead with its momentum or Adam's moments; by default plain SGD.
        way: how; ``auto`` picks by model, number of groups and batch.
        keep: whether `gradient` will be asked for other weights than `weights`.

    Raises:
        InputError: ``double_backward`` on several ranks.
    """
    if scale is None:
        scale = torch.full_like(batch.groups, 1.0 / ranks.total(len(batch)), dtype=weights.dtype)
    way = pick(model, len(weights), len(batch)) if way == "auto" else way
    params = trainable(model)
    decay, target_decay = (decay_by_name(r, params) for r in (l2, target_l2))

    def ahead_of(inner: Params) -> tuple[Params, Params | None]:
        return look_ahead(params, inner, learning_rate, decay, optimizer)

    if way == "per_group":
        parts, losses = group_gradients(model, batch, scale, len(weights), loss)
        ahead, slope = ahead_of(total(combine(parts, weights, params)))
        v, value = target_gradient(model, ahead, target, loss, target_decay, slope)
        zero = weights.new_zeros(())
        slopes = torch.stack([zero if g is None else dot(g, v).to(zero) for g in parts])
        return Hypergradient(
            -learning_rate * ranks.sum_over_ranks([slopes])[0],
            value,
            losses,
            lambda w: total(combine(parts, w, params)),
        )

    random = Randomness.of(model)
    if way == "double_backward" and ranks.number() > 1:
        raise InputError(
            f"`hypergradient: double_backward` is for one process, got {ranks.number()}. "
            "Use `auto`."
        )
    before = frozen_buffers(model)
    # The passes to come must draw the same dropout, and keep the graph.
    with eager(model), plain_attention(batch.patches):
        losses = losses_of(loss, model(batch.patches), batch.labels)

    def gradient(w: Tensor, *, retain: bool = keep) -> Params:
        return total(gradients((w[batch.groups] * scale * losses).sum(), params, retain=retain))

    inner = gradient(weights)
    if way == "double_backward":
        result, value = double_backward(
            model, batch, weights, scale, target, loss, learning_rate, decay, target_decay,
            optimizer, before, random,
        )  # fmt: skip
    else:
        ahead, slope = ahead_of(inner)
        v, value = target_gradient(model, ahead, target, loss, target_decay, slope)
        along = sample_slopes if way == "forward_mode" else sample_differences
        slopes = (scale * along(model, batch, loss, v, random, before)).to(weights)
        slopes = weights.new_zeros(len(weights)).index_add(0, batch.groups, slopes)
        result = -learning_rate * ranks.sum_over_ranks([slopes])[0]
    known = weights.clone()
    return Hypergradient(
        result,
        value,
        losses.detach(),
        lambda w: inner if torch.equal(w, known) else gradient(w, retain=False),
    )


def pick(model: nn.Module, groups: int, samples: int) -> Way:
    """The cheapest exact way, the same on every rank.

    Args:
        model: the network.
        groups: their number.
        samples: of this rank's part of the batch.
    """
    most = MOST_PARTS
    if needs_one_pass(model):
        most = MOST_PASSES
    elif next(model.parameters()).device.type == "cpu":
        each = ranks.total(samples) // ranks.number()
        most = max(most, min(each // LEAST_SAMPLES, MOST_LARGE_PARTS))
    return "per_group" if groups <= most else "forward_mode"


def needs_one_pass(model: nn.Module) -> bool:
    """True when a batch in parts gives something else than the whole.

    A layer mixes the samples of a batch (BatchNorm that takes the batch's statistics), or holds
    buffers that a pass in training mode may move (running statistics, a power iteration, a
    counter). Layers of one's own that mix samples and hold no buffers are not known.
    """
    for module in model.modules():
        if module.training and module._buffers:
            return True
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is None:
            return True
    return False


def target_gradient(
    model: nn.Module,
    ahead: Params,
    target: Batch,
    loss: Loss,
    decay: dict[str, float],
    slope: Params | None,
) -> tuple[Params, Tensor]:
    """Gradient v of T at the lookahead (times the update's derivative `slope`), and T itself.

    BatchNorm and dropout are in evaluation mode.
    """
    leaves = {k: p.requires_grad_() for k, p in ahead.items()}

    def of_logits(logits: Tensor) -> tuple[Params, Tensor]:
        mean = losses_of(loss, logits, target.labels).sum() / ranks.total(len(target))
        return gradients(mean, leaves), mean

    with eager(model), evaluating(model):
        own, mean = at(model, leaves, target.patches, of_logits)
    v = total(own)
    value = ranks.sum_over_ranks([mean.detach()])[0]
    if any(decay.values()):
        v = {k: g + decay[k] * leaves[k].detach() for k, g in v.items()}
        value = value + l2_term(ahead, decay).detach()
    return v if slope is None else {k: slope[k] * v[k] for k in v}, value


def group_gradients(
    model: nn.Module, batch: Batch, scale: Tensor, groups: int, loss: Loss
) -> tuple[list[Params | None], Tensor]:
    """Gradient G_k of the sum of c_i l_i over each group.

    By one pass over the group's part; where the parts would give something else than the whole,
    by one forward pass of all and a backward pass a group.

    Returns:
        A gradient for each group, None where the batch has none of it; and the per-sample losses.
    """
    params = trainable(model)
    if needs_one_pass(model):
        with eager(model):  # the graph is used more than once
            losses = losses_of(loss, model(batch.patches), batch.labels)
        counts = torch.bincount(batch.groups, minlength=groups)
        # Of all ranks, as a backward pass may wait for theirs (SyncBatchNorm).
        present = torch.nonzero(ranks.sum_over_ranks([counts])[0]).flatten().tolist()
        found = {
            k: gradients((scale * losses)[batch.groups == k].sum(), params, retain=k != present[-1])
            for k in present
        }
        return [found.get(k) for k in range(groups)], losses.detach()
    losses = torch.zeros_like(scale)
    grads: list[Params | None] = []
    for k in range(groups):
        index = torch.nonzero(batch.groups == k).flatten()
        if len(index) == 0:
            grads.append(None)
            continue
        with eager(model):
            part = losses_of(loss, model(batch.patches[index]), batch.labels[index])
        losses[index] = part.detach().to(losses)
        grads.append(gradients((scale[index] * part).sum(), params))
    return grads, losses


def combine(grads: list[Params | None], weights: Tensor, like: Params) -> Params:
    """sum_k w_k G_k, for the parameters `like`."""
    total: list[Tensor] = []
    for w, g in zip(weights, grads, strict=True):
        if g is not None:
            part = torch._foreach_mul([g[k] for k in like], w)
            if total:
                torch._foreach_add_(total, part)
            else:
                total = list(part)
    if not total:  # a rank without a share of a small batch
        return {k: torch.zeros_like(p) for k, p in like.items()}
    return dict(zip(like, total, strict=True))
