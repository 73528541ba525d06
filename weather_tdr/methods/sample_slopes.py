"""The slope of each sample's loss along a direction of the parameters: <grad l_i(p), v>."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel

from data_pipelines.errors import InputError
from weather_tdr.data import Batch
from weather_tdr.devices import eager
from weather_tdr.methods.lookahead import Params, dot, gradients, logits_at, trainable
from weather_tdr.methods.losses import Loss, losses_of
from weather_tdr.methods.randomness import Randomness


def frozen_buffers(model: nn.Module) -> Params:
    """Copies of the buffers: an extra pass must not move BatchNorm's running statistics."""
    return _copied(dict(model.named_buffers()))


def _copied(buffers: Params) -> Params:
    return {k: b.clone() for k, b in buffers.items()}


def frozen_again(model: nn.Module, before: Params) -> Params:
    """Copies of the buffers as they were, and of those that the first pass made since."""
    return _copied({**dict(model.named_buffers()), **before})


def plain_attention(inputs: Tensor) -> AbstractContextManager[None]:
    """Attention by its plain form on a GPU, whose others draw dropout in another way."""
    return sdpa_kernel(SDPBackend.MATH) if inputs.is_cuda else nullcontext()


def sample_slopes(
    model: nn.Module, batch: Batch, loss: Loss, v: Params, random: Randomness, buffers: Params
) -> Tensor:
    """<grad l_i, v> of every sample: one forward-mode pass, shape (b,).

    Args:
        model: in training mode.
        batch: the samples.
        loss: per-sample loss.
        v: direction, by parameter.
        random: state of the generators at the batch's own pass, so that dropout is the same.
        buffers: those before that pass, as `frozen_buffers` gives them.
    """
    params = {k: p.detach() for k, p in trainable(model).items()}

    def losses(inner: Params) -> Tensor:
        state = {**inner, **frozen_again(model, buffers)}
        return losses_of(loss, logits_at(model, state, batch.patches), batch.labels)

    # In full precision: forward mode knows no autocast, and of attention only the plain form.
    whole = torch.autocast(batch.patches.device.type, enabled=False)
    with eager(model), whole, sdpa_kernel(SDPBackend.MATH):
        try:
            # Not `torch.func.jvp`, which draws another dropout where strides are unusual.
            with torch.no_grad(), random.again(model), forward_ad.dual_level():
                dual = {k: _dual(p, v[k]) for k, p in params.items()}
                found = losses(dual)
                slopes = _tangent(found)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError:  # a layer of the network knows no forward mode
            with torch.enable_grad(), random.again(model):
                slopes = _by_two_backward_passes(losses, params, v)
    return slopes


def _dual(value: Tensor, tangent: Tensor) -> Tensor:
    dual: Tensor = forward_ad.make_dual(value, tangent)  # type: ignore[no-untyped-call]
    return dual


def _tangent(dual: Tensor) -> Tensor:
    """Zero where nothing depends on what was made dual."""
    value, tangent = forward_ad.unpack_dual(dual)  # type: ignore[no-untyped-call]
    return torch.zeros_like(value) if tangent is None else tangent


def _by_two_backward_passes(
    losses: Callable[[Params], Tensor], params: Params, v: Params
) -> Tensor:
    """d/du of <d/dp (sum_i u_i l_i), v>, which is linear in u: exact too, and slower.

    Raises:
        InputError: a layer of the network has no second derivative either.
    """
    leaves = {k: p.detach().requires_grad_() for k, p in params.items()}
    found = losses(leaves)
    u = torch.ones_like(found, requires_grad=True)
    try:
        along = gradients((u * found).sum(), leaves, graph=True)
        # Through all of the graph: `autograd.grad` for u alone would pass by a layer that is marked
        # as differentiable once, and give a slope without it.
        dot(along, v).backward()  # type: ignore[no-untyped-call]
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise InputError(
            "a layer of the network has neither forward-mode nor second derivatives "
            f"({str(error).splitlines()[0]}). Use a method that needs none, such as `tdr` with "
            "`hypergradient: per_group` or `finite_difference`."
        ) from error
    assert u.grad is not None
    return u.grad


def sample_differences(
    model: nn.Module, batch: Batch, loss: Loss, v: Params, random: Randomness, buffers: Params
) -> Tensor:
    """As `sample_slopes`, by a central difference."""
    step = 0.01 / float(dot(v, v).sqrt().clamp(min=1e-12))
    values = []
    for sign in (1.0, -1.0):
        # Added in place, so that strides stay: dropout goes by them.
        moved = {
            k: p.detach().clone().add_(v[k], alpha=sign * step) for k, p in trainable(model).items()
        }
        whole = torch.autocast(batch.patches.device.type, enabled=False)
        same = plain_attention(batch.patches)
        with torch.no_grad(), random.again(model), eager(model), whole, same:
            state = {**moved, **frozen_again(model, buffers)}
            values.append(losses_of(loss, logits_at(model, state, batch.patches), batch.labels))
    return (values[0] - values[1]) / (2 * step)
