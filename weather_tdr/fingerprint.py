"""All that decides a training and can be told, so that a checkpoint is not taken for another."""

import hashlib
import json
from dataclasses import asdict, fields, is_dataclass
from functools import partial
from inspect import getattr_static, getclosurevars
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
from torch import Tensor, nn

from weather_tdr.checkpoints import digest_of
from weather_tdr.methods.method import Method
from weather_tdr.train_settings import Train

DEEPEST = 4  # of functions that hold functions
METHODS = 3  # raised where a method, schedule or augmentation comes to mean something else
INDIFFERENT = (
    "device",
    "compile",
    "cuda_graph",
    "keep_checkpoints",
)  # settings that a resumed run may change


def fingerprint(
    settings: Train,
    recipe: Method,
    data: str,
    model: nn.Module,
    loss: object,
    augment: object,
    names: tuple[str, ...] = (),
) -> str:
    """JSON text of settings, method, data, network, loss, augmentation and names.

    Args:
        settings: how to train.
        recipe: the method.
        data: identity of the data.
        model: the network; the classes of its layers, the settings of those of torch, the shapes
            of its parameters and which of them are trained are told.
        loss: of one's own, or "".
        augment: of the inputs, or None.
        names: of the groups, which are columns of the history.
    """
    decides: dict[str, object] = {k: v for k, v in asdict(settings).items() if k not in INDIFFERENT}
    decides |= {"methods": asdict(recipe), "version": METHODS, "data": data}
    decides["names"] = names
    decides["network"] = {k: list(p.shape) for k, p in model.named_parameters()}
    decides["model"] = _layers(model)
    decides["trained"] = [k for k, p in model.named_parameters() if p.requires_grad]
    own = frozenset(id(t) for t in (*model.parameters(), *model.buffers()))
    return json.dumps(decides | {"loss": _told(loss, own), "augment": _told(augment, own)})


def _layers(model: nn.Module) -> list[Any]:
    """Name and class of each layer, and of those of torch their settings, which do not move."""
    told = []
    for name, layer in model.named_modules():
        settings = {
            k: v
            for k, v in sorted(vars(layer).items())
            if type(layer).__module__.startswith("torch.nn")
            and k not in ("training", "_is_full_backward_hook")
            and isinstance(v, str | int | float | tuple)
        }
        told.append([name, type(layer).__qualname__, repr(settings)])
    return told


def _code(code: CodeType) -> str:
    """A hash of what a function does, wherever it stands in its file."""
    constants = [
        _code(c)
        if isinstance(c, CodeType)
        else repr(sorted(map(repr, c)) if isinstance(c, frozenset) else c)  # whose order is chance
        for c in code.co_consts
    ]
    facts = repr((code.co_code, constants, code.co_names)).encode()
    return hashlib.sha256(facts).hexdigest()[:16]


def _told(part: Any, own: frozenset[int], depth: int = DEEPEST) -> Any:
    """What a function or object is, and the numbers and texts that it holds.

    Args:
        part: of a loss or an augmentation.
        own: ids of the tensors of the network that is trained, which move.
        depth: how far to follow what it holds.
    """
    if part is None or isinstance(part, str | int | float):
        return part
    if isinstance(part, Tensor):
        return digest_of({} if id(part) in own else {"": part})
    if isinstance(part, np.ndarray | np.generic):
        return [str(part.dtype), part.shape, hashlib.sha256(part.tobytes()).hexdigest()]
    name = getattr(part, "__qualname__", type(part).__qualname__)
    if depth == 0:  # a function may hold itself
        return name
    held: list[Any] = []
    if isinstance(part, tuple | list):
        held = list(part)
    elif isinstance(part, dict):
        held = [*part, *part.values()]
    elif isinstance(part, partial):
        held = [part.func, part.args, list(part.keywords.items())]
    elif is_dataclass(part) and not isinstance(part, type):
        held = [getattr(part, f.name) for f in fields(part)]
    elif isinstance(part, nn.Module):
        tensors = {**dict(part.named_parameters()), **dict(part.named_buffers())}
        held = [json.dumps(_layers(part))]
        held += [digest_of({k: t for k, t in tensors.items() if id(t) not in own})]
        held += [value for layer in part.modules() for value in _public(layer)]
        held += [type(part).forward] if not type(part).__module__.startswith("torch.") else []
    elif isinstance(part, MethodType):
        held = [part.__func__, part.__self__]
    elif isinstance(part, FunctionType):
        held = [_code(part.__code__), *getclosurevars(part).nonlocals.values(), part.__defaults__]
        held += list((part.__kwdefaults__ or {}).items())
    elif not isinstance(part, type | ModuleType) and hasattr(part, "__dict__"):
        held = [getattr_static(type(part), "__call__", None), *_public(part)]
        depth = min(depth, 2)  # not through all that a program holds
    return [name, *(_told(p, own, depth - 1) for p in held)]


def _public(part: Any) -> list[Any]:
    """Names and values of the attributes that do not begin with an underscore."""
    held = {k: v for k, v in sorted(vars(part).items()) if k[0] != "_" and k != "training"}
    return [*held, *held.values()]
