"""Checkpoints without pickle: safetensors for numbers, JSON for the rest, renamed when whole."""

import hashlib
import json
import logging
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from data_pipelines.errors import InputError, NotResumable
from data_pipelines.writing import write_atomically
from weather_tdr.methods.randomness import Randomness

log = logging.getLogger(__name__)


def save_checkpoint(path: Path, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
    """Saves tensors and JSON facts in one file with a checksum, on disk before it has its name.

    Args:
        path: of the file to make; replaced if it exists.
        tensors: any names.
        facts: JSON values.

    Raises:
        OSError: it cannot be written, such as on a full disk; what was there before stays.
    """
    # Pairs in place of complex numbers of a type that safetensors does not know.
    pairs = [k for k, t in tensors.items() if t.is_complex() and t.dtype != torch.complex64]
    real = {k: torch.view_as_real(t.detach()) if k in pairs else t for k, t in tensors.items()}
    contiguous = {k: t.detach().cpu().contiguous().clone() for k, t in real.items()}
    text = json.dumps(facts)
    # One key, as safetensors writes several in any order: the same state, the same bytes.
    about = json.dumps([digest_of(contiguous, text), text, pairs])
    write_atomically(path, save(contiguous, metadata={"checked": about}))


def load_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Loads what `save_checkpoint` wrote.

    Raises:
        InputError: no such file, or it is damaged.
    """
    if not path.is_file():
        raise InputError(f"no such model or checkpoint: {path}. Run `weather-tdr train` first.")
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
            metadata = file.metadata() or {}
        if "checked" in metadata:
            checksum, text, *more = json.loads(metadata["checked"])
        else:  # models of older releases have no checksum
            checksum, text, more = None, metadata["facts"], []
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is damaged ({error}). Delete it and train again.") from error
    if checksum is not None and checksum != digest_of(tensors, text):
        raise InputError(f"{path} is damaged (its checksum differs). Delete it and train again.")
    for name in more[0] if more else []:
        tensors[name] = torch.view_as_complex(tensors[name])
    return tensors, json.loads(text)


def digest_of(tensors: dict[str, Tensor], text: str = "") -> str:
    """Checksum of named tensors and a text."""
    found = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu()
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        found.update(tensor.contiguous().flatten().view(torch.uint8).numpy().data)
    return found.hexdigest()


class Checkpoints:
    """The checkpoints of one training: the last few, and the best network.

    Args:
        folder: where they go; None keeps nothing.
        keep: how many of the last ones stay.
    """

    def __init__(self, folder: Path | None, keep: int) -> None:
        self.folder, self.keep = folder, keep
        self.others = True  # those that lie there belong to another training
        self.good: Path | None = None  # the last one that this training wrote or goes on from

    def _all(self) -> list[Path]:
        """Oldest first."""
        return [] if self.folder is None else sorted(self.folder.glob("step_*.safetensors"))

    def _begin(self) -> None:
        """Forgets another training in the same folder, once there is something to keep."""
        if self.folder is not None and self.others:
            for path in [*self._all(), *self.folder.glob("best.safetensors")]:
                path.unlink()
        self.others = False

    def save(self, step: int, state: dict[str, Tensor], facts: dict[str, Any]) -> None:
        """Saves everything that training needs to go on after `step` steps; drops the oldest."""
        if self.folder is None:
            return
        self._begin()
        path = self.folder / f"step_{step:09d}.safetensors"
        save_checkpoint(path, state, facts)
        self.good = path
        for old in self._all()[: -self.keep]:
            old.unlink()

    def latest(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """The last one that is whole, or None where there is none.

        Raises:
            NotResumable: there are some, and all are damaged.
        """
        every = self._all()
        for path in reversed(every):
            try:
                found = load_checkpoint(path)
                self.others, self.good = False, path
                return found
            except InputError as error:
                log.warning("warning: %s The checkpoint before it is used.", error)
        if every:
            raise NotResumable(
                f"all checkpoints in {self.folder} are damaged. Train without --resume."
            )
        return None

    def save_best(self, model: nn.Module, facts: dict[str, Any]) -> None:
        """Saves the network that is the best until now."""
        if self.folder is not None:
            self._begin()
            save_checkpoint(self.folder / "best.safetensors", dict(model.state_dict()), facts)

    def __str__(self) -> str:
        return str(self.good or "none")


def training_state(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Model, optimiser and random state as named tensors."""
    state = {f"model.{k}": t for k, t in model.state_dict().items()}
    for index, values in optimizer.state_dict()["state"].items():
        for name, value in values.items():
            if isinstance(value, Tensor):
                state[f"optimizer.{index}.{name}"] = value
    random = Randomness.of(model)
    state["random.torch"] = random.cpu
    if random.gpu is not None:
        state[f"random.{random.device.type}"] = random.gpu
    return state


def restore_training(
    state: dict[str, Tensor], model: nn.Module, optimizer: torch.optim.Optimizer
) -> None:
    """Puts back what `training_state` gave."""
    own = {k.removeprefix("model."): t for k, t in state.items() if k.startswith("model.")}
    device = next(model.parameters()).device
    for path, module in model.named_modules():
        for name, buffer in module._buffers.items():  # those that the first pass makes
            key = f"{path}.{name}" if path else name
            if buffer is None and key in own:
                setattr(module, name, own[key].to(device))
    model.load_state_dict(own)
    full = optimizer.state_dict()
    for key, value in state.items():
        if key.startswith("optimizer."):
            _, index, name = key.split(".", 2)
            full["state"].setdefault(int(index), {})[name] = value
    optimizer.load_state_dict(full)
    Randomness(state["random.torch"], state.get(f"random.{device.type}"), device).restore()
