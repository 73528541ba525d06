"""The virtual inner step: plain SGD, or with the state of the optimiser."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from data_pipelines.errors import InputError
from weather_tdr import ranks

Params = dict[str, Tensor]
Decay = float | Mapping[str, float]  # L2, of all parameters or of each by its name
Update = Callable[[Tensor, Tensor, dict[str, Any], dict[str, Tensor]], tuple[Tensor, Tensor]]


def trainable(model: nn.Module) -> Params:
    """The parameters that are trained, by name."""
    return {k: p for k, p in model.named_parameters() if p.requires_grad}


def logits_at(model: nn.Module, values: Params, inputs: Tensor) -> Tensor:
    """The network's logits with other parameters and buffers than its own."""
    logits: Tensor = at(model, values, inputs, lambda logits: logits)
    return logits


class _Then(nn.Module):
    """A network, and what is made of its logits."""

    def __init__(self, network: nn.Module, then: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.network, self.then = network, then

    def forward(self, inputs: Tensor) -> Any:
        return self.then(self.network(inputs))


def at(model: nn.Module, values: Params, inputs: Tensor, then: Callable[[Tensor], Any]) -> Any:
    """What is made of the network's logits while it holds other parameters and buffers.

    Activation checkpointing computes layers anew in the backward pass, with what they hold then.

    A layer that the network has under two names is exchanged once: `functional_call` alone
    exchanges it twice, and leaves in it what it held in between.

    Args:
        model: the network.
        values: of parameters and buffers, by name; those left out keep theirs.
        inputs: of the network.
        then: what to make of the logits, such as a gradient.
    """
    own = [*model.named_parameters(), *model.named_buffers()]
    new = {id(t): values[name] for name, t in own if name in values}
    every = {
        f"network.{path}.{name}" if path else f"network.{name}": new[id(t)]
        for path, module in model.named_modules()
        for name, t in [*module._parameters.items(), *module._buffers.items()]
        if id(t) in new
    }
    return functional_call(_Then(model, then), every, (inputs,), tie_weights=False)


def gradients(
    value: Tensor, params: Params, *, retain: bool = False, graph: bool = False
) -> Params:
    """Gradient of a scalar; zeros for parameters that it does not depend on."""
    try:
        found = torch.autograd.grad(
            value, list(params.values()), retain_graph=retain or graph, create_graph=graph,
            allow_unused=True,
        )  # fmt: skip
    except RuntimeError as error:
        if "use_reentrant" not in str(error):
            raise
        raise InputError(
            "activation checkpointing must be that with `use_reentrant=False`, got the other, "
            "through which no hypergradient can be taken. Set it in the network."
        ) from error
    return {
        k: torch.zeros_like(p) if g is None else g
        for (k, p), g in zip(params.items(), found, strict=True)
    }


def total(params: Params) -> Params:
    """Sum over all ranks."""
    return dict(zip(params, ranks.sum_over_ranks(list(params.values())), strict=True))


def leave_gradient(model: nn.Module, value: Tensor) -> Tensor:
    """Leaves the gradient of a sum over all ranks in ``.grad``, and returns that sum.

    It is zero for a parameter that the sum does not depend on, on one rank and on several.

    Args:
        model: the network.
        value: this rank's part of the sum, a scalar.
    """
    if ranks.number() == 1:
        value.backward()  # type: ignore[no-untyped-call]
        for p in trainable(model).values():
            if p.grad is None:
                p.grad = torch.zeros_like(p)
        return value.detach()
    add_gradient(model, total(gradients(value, trainable(model))))
    return ranks.sum_over_ranks([value])[0]


def add_gradient(model: nn.Module, gradient: Params) -> None:
    """Adds a gradient to ``.grad``."""
    for name, p in trainable(model).items():
        p.grad = gradient[name] if p.grad is None else p.grad + gradient[name]


def decay_by_name(decay: Decay, params: Params) -> dict[str, float]:
    """The L2 factor of each parameter."""
    if isinstance(decay, Mapping):
        if absent := [k for k in params if k not in decay]:
            raise InputError(
                f"L2 by name must tell that of every parameter, got none of `{absent[0]}`. Add it, "
                "0 for none."
            )
        return {k: decay[k] for k in params}
    return dict.fromkeys(params, decay)


def l2_term(params: Params, decay: dict[str, float]) -> Tensor:
    """Half the sum of r_k |p_k|^2."""
    return 0.5 * torch.stack([r * _real(params[k]).square().sum() for k, r in decay.items()]).sum()


def dot(first: Params, second: Params) -> Tensor:
    """Inner product over all parameters, of complex ones as of pairs of real numbers."""
    pairs = [_real(t) for t in first.values()], [_real(second[k]) for k in first]
    products = torch._foreach_mul(*pairs)
    return torch.stack([p.sum() for p in products]).sum()


def _real(values: Tensor) -> Tensor:
    """Complex numbers as pairs; those of half precision in one that sums can be taken in."""
    if values.is_complex():
        return torch.view_as_real(values)
    return values.float() if values.dtype in (torch.bfloat16, torch.float16) else values


def look_ahead(
    params: Params,
    inner: Params,
    learning_rate: float,
    decay: dict[str, float],
    optimizer: torch.optim.Optimizer | None = None,
    *,
    detach: bool = True,
) -> tuple[Params, Params | None]:
    """The lookahead q = p - eta u(inner + r p).

    Args:
        params: p, by name.
        inner: gradient of the weighted losses.
        learning_rate: eta.
        decay: r by name; with an optimiser its own weight decay takes its place, and the learning
            rates of its groups that of eta.
        optimizer: SGD (momentum, Nesterov), Adam or AdamW that holds `params`; None is u(g) = g.
        detach: whether q is cut off from the graph.

    Returns:
        q, and the diagonal of -dq/dg / eta (None where it is 1 everywhere).

    Clipping of the gradient is not part of it.

    Raises:
        InputError: an optimiser without a known update, or without one of the parameters.
    """
    if optimizer is None:
        old = [p.detach() if detach else p for p in params.values()]
        # p (1 - eta r) - eta g, over all parameters at once
        moved = torch._foreach_add(
            torch._foreach_mul(old, [1.0 - learning_rate * decay[k] for k in params]),
            [inner[k] for k in params],
            alpha=-learning_rate,
        )
        return dict(zip(params, moved, strict=True)), None
    known: dict[type, Update] = {
        torch.optim.SGD: _sgd,
        torch.optim.Adam: _adam,
        torch.optim.AdamW: _adam,
    }
    update = known.get(type(optimizer))
    if update is None:
        raise InputError(
            "`lookahead: optimizer` must be used with SGD, Adam or AdamW, got "
            f"{type(optimizer).__name__}. Use `lookahead: sgd`."
        )
    for option in ("amsgrad", "maximize"):
        if any(g.get(option) for g in optimizer.param_groups):
            raise InputError(
                f"`lookahead: optimizer` does not know `{option}`. Use `lookahead: sgd`."
            )
    group_of = {id(p): g for g in optimizer.param_groups for p in g["params"]}
    ahead, slopes = {}, {}
    for name, p in params.items():
        group = group_of.get(id(p))
        if group is None:
            raise InputError(
                f"`lookahead: optimizer` needs an optimiser of all parameters, got one without "
                f"`{name}`. Add it, or set its `requires_grad` to False."
            )
        if p.is_complex() and update is _adam:
            raise InputError(
                f"`lookahead: optimizer` knows Adam for real parameters only, got `{name}` of "
                f"{p.dtype}. Use `lookahead: sgd`."
            )
        u, slope = update(p, inner[name], group, optimizer.state.get(p, {}))
        rate = float(group["lr"])
        slopes[name] = slope * (rate / learning_rate if rate != learning_rate else 1.0)
        shrink = group["weight_decay"] if _is_decoupled(optimizer, group) else 0.0
        ahead[name] = p * (1 - rate * shrink) - rate * u
        if detach:
            ahead[name], slopes[name] = ahead[name].detach(), slopes[name].detach()
    return ahead, slopes


def _is_decoupled(optimizer: torch.optim.Optimizer, group: dict[str, Any]) -> bool:
    return isinstance(optimizer, torch.optim.AdamW) or bool(group.get("decoupled_weight_decay"))


def _sgd(
    p: Tensor, gradient: Tensor, group: dict[str, Any], state: dict[str, Tensor]
) -> tuple[Tensor, Tensor]:
    """Update and its derivative of SGD with momentum, as in `torch.optim.SGD`."""
    d = gradient + group["weight_decay"] * p
    one = torch.ones_like(p)
    momentum = group["momentum"]
    if not momentum:
        return d, one
    buffer = state.get("momentum_buffer")
    fresh = 1.0 if buffer is None else 1.0 - group["dampening"]
    velocity = d if buffer is None else momentum * buffer + fresh * d
    if group["nesterov"]:
        return d + momentum * velocity, (1.0 + momentum * fresh) * one
    return velocity, fresh * one


def _adam(
    p: Tensor, gradient: Tensor, group: dict[str, Any], state: dict[str, Tensor]
) -> tuple[Tensor, Tensor]:
    """Update and its derivative of Adam, as in `torch.optim.Adam` (without AMSGrad)."""
    beta1, beta2 = group["betas"]
    eps, decay = float(group["eps"]), float(group["weight_decay"])
    decoupled = bool(group.get("decoupled_weight_decay"))
    g = gradient if decoupled else gradient + decay * p
    first = state.get("exp_avg", torch.zeros_like(p))
    second = state.get("exp_avg_sq", torch.zeros_like(p))
    step = float(state.get("step", torch.zeros(()))) + 1
    m = (beta1 * first + (1 - beta1) * g) / (1 - beta1**step)
    s = (beta2 * second + (1 - beta2) * g * g) / (1 - beta2**step)
    # No slope at 0, where that of the root is infinite: a gradient that is zero stays so.
    root = torch.where(s > 0, s, torch.ones_like(s)).sqrt() * (s > 0)
    below = root + eps
    # d root / dg = (1 - beta2) g / (c2 root)
    dm = (1 - beta1) / (1 - beta1**step)
    droot = (1 - beta2) * g / ((1 - beta2**step) * root.clamp(min=torch.finfo(p.dtype).tiny))
    return m / below, dm / below - m * droot / below**2
