"""Where a network trains, in which precision, compiled or not."""

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Literal

import torch
from torch import Tensor, nn

from data_pipelines.errors import InputError
from weather_tdr.methods.randomness import Randomness

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


def faster(
    model: nn.Module, example: Tensor, precision: Precision, compiles: bool, replays: bool
) -> AbstractContextManager[None]:
    """The network's passes in ordinary steps compiled, on a GPU replayed, or as they are."""
    if replays and example.is_cuda:
        return replayed(model, example, precision)
    return compiled(model) if compiles else nullcontext()


@contextmanager
def compiled(model: nn.Module) -> Iterator[None]:
    """The network's forward pass compiled within the context."""
    model.compile()
    try:
        yield
    finally:
        model._compiled_call_impl = None


class Replay:
    """Stands for `forward` of a network: as a CUDA graph what it was recorded for, else as it was.

    Args:
        plain: the network's own `forward`.
        recorded: the network's pass with the graph of `example`.
        model: the network, in the modes that the graph is for.
        example: inputs of the shape that the graph is for.
    """

    def __init__(
        self,
        plain: Callable[..., Tensor],
        recorded: Callable[[Tensor], Tensor],
        model: nn.Module,
        example: Tensor,
    ) -> None:
        self.plain, self.recorded, self.example = plain, recorded, example
        self.modes = [(module, module.training) for module in model.modules()]
        self.asleep = False

    def __call__(self, inputs: Tensor) -> Tensor:
        """Logits of the inputs."""
        known = inputs.shape == self.example.shape and inputs.dtype == self.example.dtype
        # In fine-tuning BatchNorm alone is in evaluation mode.
        same = all(module.training == mode for module, mode in self.modes)
        if self.asleep or not known or not same or not torch.is_grad_enabled():
            return self.plain(inputs)
        return self.recorded(inputs)


def _not_recorded(reason: str) -> InputError:
    return InputError(
        f"`train.cuda_graph` must be false for this network, which cannot be recorded ({reason})."
    )


@contextmanager
def replayed(model: nn.Module, example: Tensor, precision: Precision) -> Iterator[None]:
    """The passes of ordinary steps replayed as one CUDA graph within the context.

    A small network on a GPU waits for Python, which starts its kernels one by one; a graph starts
    them all at once.

    Args:
        model: on a GPU, in training mode.
        example: inputs like those of each step.
        precision: of the passes.

    Raises:
        InputError: the network cannot be recorded, or is on another GPU than the current one.
    """
    if example.device.index != torch.cuda.current_device():  # else the graph would be empty
        raise InputError(
            "`train.cuda_graph` is for a network on the current GPU, got one on "
            f"{example.device}. Call `torch.cuda.set_device({example.device.index})` before."
        )
    plain, random = model.forward, Randomness.of(model)
    held = dict(model.named_buffers())
    before = {k: b.clone() for k, b in held.items()}
    own = vars(model).get("forward")
    try:
        with autocast(example.device, precision):
            torch.cuda.make_graphed_callables(model, (example,), allow_unused_input=True)
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, AssertionError) as error:
        raise _not_recorded((str(error).splitlines() or [type(error).__name__])[0]) from error
    now = dict(model.named_buffers())
    if now.keys() != held.keys() or any(now[k] is not b for k, b in held.items()):
        raise _not_recorded("a pass makes buffers anew")
    with torch.no_grad():
        for name, buffer in held.items():
            buffer.copy_(before[name])
    random.restore()
    model.forward = Replay(plain, model.forward, model, example)
    try:
        yield
    finally:
        del model.forward
        if own is not None:
            model.forward = own


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
    """Passes neither compiled nor replayed: at other parameters, or of batches of any size.

    Also where the network, a layer or a function in it was compiled by its maker: compiled code may
    lose the tangents of forward mode without a word.
    """
    replay = vars(model).get("forward")
    compiled = "torch._dynamo" in sys.modules  # else nothing has been compiled
    stance = torch.compiler.set_stance("force_eager") if compiled else nullcontext()
    if not isinstance(replay, Replay):
        with stance:
            yield
        return
    before, replay.asleep = replay.asleep, True
    try:
        with stance:
            yield
    finally:
        replay.asleep = before
