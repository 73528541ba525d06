"""Which layer of a network is its last."""

import torch
from torch import Tensor, nn

from weather_tdr.devices import evaluating
from weather_tdr.methods.lookahead import logits_at
from weather_tdr.methods.randomness import Randomness
from weather_tdr.methods.sample_slopes import frozen_buffers


def last_layer(model: nn.Module, inputs: Tensor) -> nn.Module:
    """The layer with parameters to train that comes last in a pass, whatever the order of making.

    Where a layer is not called as one (its weights are taken by a function, or it is compiled to a
    script) the order of a pass is not known, and the layer is the one that was made last.

    Args:
        model: the network.
        inputs: some samples.
    """
    layers = [
        module
        for module in model.modules()
        if any(p.requires_grad for p in module.parameters(recurse=False))
    ]
    if any(isinstance(module, torch.jit.ScriptModule) for module in model.modules()):
        return layers[-1]
    run: list[nn.Module] = []
    hooks = [layer.register_forward_pre_hook(lambda m, _: run.append(m)) for layer in layers]
    random = Randomness.of(model)
    try:
        stance = torch.compiler.set_stance("force_eager")
        with torch.no_grad(), stance, evaluating(model):
            logits_at(model, frozen_buffers(model), inputs)
    finally:
        random.restore()
        for hook in hooks:
            hook.remove()
    called = {id(layer) for layer in run}
    return run[-1] if all(id(layer) in called for layer in layers) else layers[-1]
