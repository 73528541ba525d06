"""All that decides a training and can be told, so that a checkpoint is not taken for another."""

import json
from dataclasses import asdict, fields, is_dataclass
from functools import partial
from inspect import getclosurevars
from types import FunctionType
from typing import Any

from torch import Tensor, nn

from weather_tdr.checkpoints import digest_of
from weather_tdr.methods.method import Method
from weather_tdr.train_settings import Train

DEEPEST = 4  # of functions that hold functions
INDIFFERENT = ("device", "compile", "keep_checkpoints")  # settings that a resumed run may change


def fingerprint(
    settings: Train, recipe: Method, data: str, model: nn.Module, loss: object, augment: object
) -> str:
    """JSON text of settings, method, data, network, loss and augmentation.

    Args:
        settings: how to train.
        recipe: the method.
        data: identity of the data.
        model: the network; its class and the shapes of its parameters are told.
        loss: of one's own, or "".
        augment: of the inputs, or None.
    """
    decides: dict[str, object] = {k: v for k, v in asdict(settings).items() if k not in INDIFFERENT}
    decides |= {"methods": asdict(recipe), "data": data}
    decides["network"] = {k: list(p.shape) for k, p in model.named_parameters()}
    decides["model"] = type(model).__qualname__
    return json.dumps(decides | {"loss": _told(loss), "augment": _told(augment)})


def _told(part: Any, depth: int = DEEPEST) -> Any:
    """What a function or object is, and the numbers and texts that it holds."""
    if part is None or isinstance(part, str | int | float):
        return part
    if isinstance(part, Tensor):
        return digest_of({"": part})
    name = getattr(part, "__qualname__", type(part).__qualname__)
    if depth == 0:  # a function may hold itself
        return name
    held: list[Any] = []
    if isinstance(part, tuple | list):
        held = list(part)
    elif isinstance(part, partial):
        held = [part.func, part.args, list(part.keywords.items())]
    elif is_dataclass(part) and not isinstance(part, type):
        held = [getattr(part, f.name) for f in fields(part)]
    elif isinstance(part, FunctionType):
        held = [*getclosurevars(part).nonlocals.values(), part.__defaults__]
        held += list((part.__kwdefaults__ or {}).items())
    return [name, *(_told(p, depth - 1) for p in held)]
