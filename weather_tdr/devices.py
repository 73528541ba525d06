"""Where a network trains, in which precision, compiled or not."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Literal

import torch
from torch import nn

from data_pipelines.errors import InputError

Device = Literal["auto", "cpu", "cuda", "mps"]
Precision = Literal["float32", "bfloat16"]
ROOM = 0.5  # of a GPU's free memory that samples may take


def pick_device(name: Device = "auto", turn: int = 0) -> torch.device:
    """The device of a process.

    Args:
        name: `auto` takes a GPU where there is one.
        turn: number of the process on this machine; processes take turns on its GPUs.

    Raises:
        InputError: it is not there.
    """
    there = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if name == "auto":
        name = "cuda" if there["cuda"] else "mps" if there["mps"] else "cpu"
    if not there[name]:
        found = ", ".join(k for k, is_there in there.items() if is_there)
        raise InputError(
            f"`train.device` must be a device of this machine ({found}), got {name}. "
            "Set `train.device: auto`, or install a torch for that device."
        )
    if name == "cuda":
        return torch.device("cuda", turn % torch.cuda.device_count())
    return torch.device(name)


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[None]:
    """Convolutions and products in bfloat16 where that is asked for; all else as it is.

    Without a cache of converted parameters: a step has several passes, at several parameters.
    """
    if precision == "float32":
        return nullcontext()
    return torch.autocast(device.type, torch.bfloat16, cache_enabled=False)


def fits(size: int, device: torch.device) -> bool:
    """Whether so many bytes of samples may stay on a device during training."""
    if device.type != "cuda":
        return device.type == "cpu"
    free, _ = torch.cuda.mem_get_info(device)
    return size <= ROOM * free


@contextmanager
def compiled(model: nn.Module, wanted: bool) -> Iterator[None]:
    """The network's forward pass compiled within the context."""
    if not wanted:
        yield
        return
    model.compile()
    try:
        yield
    finally:
        model._compiled_call_impl = None


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode; afterwards each layer has the mode that it had."""
    training = [m for m in model.modules() if m.training]
    model.eval()
    try:
        yield
    finally:
        for module in model.modules():
            module.training = False
        for module in training:
            module.training = True


@contextmanager
def eager(model: nn.Module) -> Iterator[None]:
    """Passes that are not compiled: at other parameters, or of batches of changing size."""
    if model._compiled_call_impl is None:
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield
