"""Several processes (ranks) that train one network together, as `torchrun` starts them.

Each takes its share of every batch, and what each has is summed over all of them, so that N ranks
take the step that one would take. Without a process group there is one rank, and nothing is sent.

Sums of `torch.distributed` stand here in place of DistributedDataParallel: that acts on
``loss.backward()`` alone, while the lookahead needs the gradient of the whole batch from
``autograd.grad``, and the target gradient and the hypergradient are summed too.
"""

import hashlib
import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import reduce

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from torch import Tensor, nn

from data_pipelines.errors import InputError, RankLost

LONGEST_SILENCE = timedelta(minutes=30)


def number() -> int:
    """Number of ranks."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Number of this process, from 0 on; rank 0 is the one that writes."""
    return dist.get_rank() if number() > 1 else 0


def place() -> int:
    """Number of this process among those of its machine."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def on_this_machine() -> int:
    """Number of processes on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def wanted() -> tuple[int, int]:
    """Number of this process and of all that `torchrun` has started, before they are together."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


@contextmanager
def together(device: torch.device) -> Iterator[None]:
    """The process group of a program started by `torchrun`; nothing without it.

    Args:
        device: that the network is on; GPUs talk by NCCL, all else by Gloo.

    Raises:
        InputError: devices that cannot work together.
    """
    if wanted()[1] == 1:
        yield
        return
    if device.type == "mps":
        raise InputError(
            "`train.device` must be cpu or cuda with several processes, got mps. "
            "Start without torchrun, or set `train.device: cpu`."
        )
    if device.type == "cuda":
        if on_this_machine() > torch.cuda.device_count():
            raise InputError(
                "`--nproc-per-node` must be at most the number of GPUs, got "
                f"{on_this_machine()} for {torch.cuda.device_count()}. Start fewer."
            )
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=LONGEST_SILENCE)
    signal.signal(signal.SIGTERM, _ended)
    yield
    dist.destroy_process_group()  # not after an error: it would wait for those that have died


def _ended(*_: object) -> None:
    """`torchrun` ends the other processes when one has died."""
    raise _lost("it was told to end")


def _lost(reason: str) -> RankLost:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # one message is enough
    return RankLost(
        f"rank {rank()} of {number()} cannot go on ({reason}): another process has died, or all "
        "were ended. The same command goes on from the last checkpoint with `--resume`, with any "
        "number of processes."
    )


@contextmanager
def _reaching_all() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, RankLost):
            raise
        raise _lost((str(error).splitlines() or [""])[0]) from error


def share(index: Tensor) -> Tensor:
    """This rank's part of a batch: every N-th sample, so that each group is shared out evenly."""
    return index[rank() :: number()]


def sum_over_ranks(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The sum of each tensor over all ranks, all of them sent at once.

    Raises:
        RankLost: another rank has died.
    """
    if number() == 1:
        return list(tensors)
    # Complex numbers as pairs, and all in a type that holds each of them.
    real = [torch.view_as_real(t) if t.is_complex() else t for t in (t.detach() for t in tensors)]
    like = reduce(torch.promote_types, [r.dtype for r in real])
    flat = torch.cat([r.reshape(-1).to(like) for r in real]).to(_device())
    with _reaching_all():
        dist.all_reduce(flat)
    parts = torch.split(flat, [r.numel() for r in real])
    summed = [p.reshape(r.shape).to(r) for p, r in zip(parts, real, strict=True)]
    return [
        torch.complex(s[..., 0], s[..., 1]) if t.is_complex() else s
        for s, t in zip(summed, tensors, strict=True)
    ]


def agree(model: nn.Module) -> None:
    """Gives every rank the parameters and buffers of rank 0."""
    if number() == 1:
        return
    for tensor in [*model.parameters(), *model.buffers()]:
        sent = tensor.detach().to(_device())
        with _reaching_all():
            dist.broadcast(sent, 0)
        tensor.detach().copy_(sent)


def _device() -> str:
    """Where tensors must lie to be sent."""
    return "cuda" if dist.get_backend() == "nccl" else "cpu"


def total(count: int) -> int:
    """Sum of a number over all ranks."""
    if number() == 1:
        return count
    return int(sum_over_ranks([torch.tensor(count)])[0])


def of_first(value: float) -> float:
    """The value that rank 0 has."""
    mine = torch.tensor(0.0 if rank() else value, dtype=torch.float64)
    return float(sum_over_ranks([mine])[0])


def average_buffers(model: nn.Module) -> None:
    """Gives every rank the mean of the running statistics (of BatchNorm) of all of them."""
    if number() == 1:
        return
    buffers = [b for b in model.buffers() if b.is_floating_point() or b.is_complex()]
    if buffers:
        for mine, summed in zip(buffers, sum_over_ranks(buffers), strict=True):
            mine.copy_(summed / number())


def own_part(index: npt.NDArray[np.int64]) -> slice:
    """The part of a long index that this rank evaluates: each position falls to one rank.

    Raises:
        InputError: there are more ranks than positions.
    """
    if len(index) < number():
        raise InputError(
            f"a split must hold a sample for each process, got {len(index)} for {number()}. "
            "Start fewer."
        )
    edges = np.linspace(0, len(index), number() + 1).astype(int)
    return slice(int(edges[rank()]), int(edges[rank() + 1]))


def seed_step(seed: int, step: int) -> None:
    """Seeds dropout for one step: each rank its own, whatever happened before.

    One rank alone goes on with the generator as it is.
    """
    if number() > 1:
        mixed = hashlib.sha256(f"{seed} {step} {rank()}".encode()).digest()
        torch.manual_seed(int.from_bytes(mixed[:8]) >> 1)
