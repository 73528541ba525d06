"""Checkpoints without pickle: safetensors for numbers, JSON for the rest, renamed when whole."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from data_pipelines.errors import InputError


def write_atomically(path: Path, text: str) -> None:
    """Writes a text file beside its place and renames it."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text)
    partial.replace(path)


def save_checkpoint(path: Path, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
    """Saves tensors and JSON facts in one file.

    Args:
        path: of the file to make; replaced if it exists.
        tensors: any names.
        facts: JSON values.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    contiguous = {k: t.detach().cpu().contiguous().clone() for k, t in tensors.items()}
    save_file(contiguous, partial, metadata={"facts": json.dumps(facts)})
    partial.replace(path)


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
            facts = json.loads((file.metadata() or {}).get("facts", "{}"))
    except SafetensorError as error:
        raise InputError(f"{path} is damaged ({error}). Delete it and train again.") from error
    return tensors, facts


def training_state(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Model, optimiser and random state as named tensors."""
    state = {f"model.{k}": t for k, t in model.state_dict().items()}
    for index, values in optimizer.state_dict()["state"].items():
        for name, value in values.items():
            if isinstance(value, Tensor):
                state[f"optimizer.{index}.{name}"] = value
    state["random.torch"] = torch.get_rng_state()
    return state


def restore_training(
    state: dict[str, Tensor], model: nn.Module, optimizer: torch.optim.Optimizer
) -> None:
    """Puts back what `training_state` gave."""
    model.load_state_dict(
        {k.removeprefix("model."): t for k, t in state.items() if k.startswith("model.")}
    )
    full = optimizer.state_dict()
    for key, value in state.items():
        if key.startswith("optimizer."):
            _, index, name = key.split(".", 2)
            full["state"].setdefault(int(index), {})[name] = value
    optimizer.load_state_dict(full)
    torch.set_rng_state(state["random.torch"])
