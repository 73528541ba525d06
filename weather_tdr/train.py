"""The training loop: one method, one network; history, checkpoints, resume."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from tqdm import tqdm

from data_pipelines.errors import InputError, unknown_name
from data_pipelines.schema import GROUPS, LABELS
from weather_tdr.checkpoints import (
    load_checkpoint,
    restore_training,
    save_checkpoint,
    training_state,
    write_atomically,
)
from weather_tdr.data import Batch, Shuffled, concatenate
from weather_tdr.methods.static import inverse_frequency, uniform
from weather_tdr.methods.tdr import Tdr

METHODS = ("uniform", "inverse_frequency", "tdr_faithful")


@dataclass
class Train:
    """How to train.

    Attributes:
        methods: one or several of `uniform`, `inverse_frequency`, `tdr_faithful`.
        weights_per: what a weight belongs to: `class`, or `group` (background, hard negative,
            incident).
        steps: optimiser steps.
        batch: samples a step.
        target_batch: samples of the target set a step; 0 is all of it.
        learning_rate: of SGD with momentum; falls to zero along a cosine.
        momentum: of SGD.
        weight_decay: L2 on the parameters.
        clip: largest norm of the gradient; 0 is none.
        every: steps between two moves of the TDR weights.
        alpha: step of the TDR weights.
        log_every: steps between two rows of the history.
        checkpoint_every: steps between two checkpoints and validations.
        width: channels of PatchNet's first block.
        dropout: share of PatchNet's last features that is dropped.
        seed: of initialisation and batches.
    """

    methods: list[str] = field(
        default_factory=lambda: ["uniform", "inverse_frequency", "tdr_faithful"]
    )
    weights_per: str = "class"
    steps: int = 3000
    batch: int = 128
    target_batch: int = 0
    learning_rate: float = 0.05
    momentum: float = 0.9
    weight_decay: float = 5e-4
    clip: float = 1.0
    every: int = 10
    alpha: float = 0.1
    log_every: int = 50
    checkpoint_every: int = 500
    width: int = 24
    dropout: float = 0.3
    seed: int = 0

    def __post_init__(self) -> None:
        """Checks the settings.

        Raises:
            InputError: an unknown method, or a number out of range.
        """
        for method in self.methods:
            if method not in METHODS:
                raise unknown_name("`train.methods`: method", method, METHODS)
        if not self.methods or len(set(self.methods)) < len(self.methods):
            raise InputError(f"`train.methods` must name each method once, got {self.methods}.")
        if self.weights_per not in ("class", "group"):
            raise unknown_name("`train.weights_per`:", self.weights_per, ("class", "group"))
        for name in ("steps", "batch", "learning_rate", "every", "log_every", "checkpoint_every"):
            if not getattr(self, name) > 0:
                raise InputError(f"`train.{name}` must be positive, got {getattr(self, name)}.")


def sample_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of each sample, shape (n,)."""
    return cross_entropy(logits, labels, reduction="none")


def train(
    model: nn.Module,
    train_set: Batch,
    target_set: Batch,
    method: str,
    settings: Train,
    folder: Path,
    validate: Callable[[nn.Module], float],
    *,
    resume: bool = False,
    progress: bool = True,
) -> pd.DataFrame:
    """Trains `model` in place.

    Baselines train on train and target together, so that every method has seen the same samples.

    Args:
        model: from patches to logits.
        train_set: training samples.
        target_set: the target set.
        method: one of METHODS.
        settings: how to train.
        folder: where `history.csv` and `checkpoints/` go.
        validate: average precision on validation, at natural prevalence.
        resume: goes on from the checkpoint in `folder`, if there is one.
        progress: shows a progress bar.

    Returns:
        The history: a row a logged step.

    Raises:
        InputError: the loss is not finite, or the checkpoint belongs to other settings.
    """
    names = LABELS if settings.weights_per == "class" else GROUPS
    steered = method == "tdr_faithful"
    data = train_set if steered else concatenate(train_set, target_set)
    groups_of = _group_getter(settings.weights_per)
    if steered:
        absent = set(range(len(names))) - set(groups_of(target_set).tolist())
        if absent:
            raise InputError(
                f"the target set must hold every group, got none of "
                f"{[names[k] for k in sorted(absent)]}. Raise `splits.target_per_group`."
            )
    counts = torch.bincount(groups_of(data), minlength=len(names))
    rule = Tdr(
        len(names), settings.learning_rate, settings.alpha, settings.every, settings.weight_decay
    )
    weights = (inverse_frequency if method == "inverse_frequency" else uniform)(counts)

    optimizer = torch.optim.SGD(
        model.parameters(),
        lr=settings.learning_rate,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
    )
    generator = torch.Generator().manual_seed(settings.seed + 1)
    batches = Shuffled(len(data), settings.batch, generator)
    targets = Shuffled(len(target_set), settings.target_batch or len(target_set), generator)
    history: list[dict[str, float]] = []
    first = 0
    checkpoint = folder / "checkpoints" / "last.safetensors"
    fingerprint = json.dumps({"method": method, **asdict(settings), "methods": None})
    if resume and checkpoint.is_file():
        state, facts = load_checkpoint(checkpoint)
        if facts["settings"] != fingerprint:
            raise InputError(
                f"{checkpoint} was made with other settings. Train without --resume, or restore "
                "the settings."
            )
        restore_training(state, model, optimizer)
        generator.set_state(state["random.batches"])
        batches.rest, targets.rest = state["batches.rest"], state["targets.rest"]
        rule.weights = state["tdr.weights"]
        first, history = facts["step"], facts["history"]

    device = next(model.parameters()).device
    model.train()
    bar = tqdm(
        range(first, settings.steps),
        initial=first,
        total=settings.steps,
        desc=f"{method:>18}",
        disable=not progress,
        unit="step",
        mininterval=1.0,
    )
    for step in bar:
        batch = data[batches.draw()].to(device)
        group = groups_of(batch)
        for settings_group in optimizer.param_groups:
            settings_group["lr"] = cosine(settings.learning_rate, step, settings.steps)
        optimizer.zero_grad(set_to_none=True)
        if steered:
            rule.learning_rate = optimizer.param_groups[0]["lr"]
            target = target_set[targets.draw()].to(device)
            value = rule.step(model, batch, group, target, sample_loss, step)
        else:
            losses = sample_loss(model(batch.patches), batch.labels)
            loss = (weights.to(losses)[group] * losses).mean()
            loss.backward()  # type: ignore[no-untyped-call]
            value = loss.detach()
        if not torch.isfinite(value):
            raise InputError(
                f"the loss must be finite, got {float(value)} at step {step} of `{method}`. "
                f"Lower `train.learning_rate` (now {settings.learning_rate}); the last good "
                f"checkpoint is {checkpoint}."
            )
        if settings.clip:
            nn.utils.clip_grad_norm_(model.parameters(), settings.clip)
        optimizer.step()

        done = step + 1
        if done % settings.log_every == 0 or done == settings.steps:
            row: dict[str, float] = {
                "step": done,
                "loss": float(value),
                "learning_rate": optimizer.param_groups[0]["lr"],
            }
            now = rule.weights if steered else weights
            row |= {f"weight_{n}": float(w) for n, w in zip(names, now, strict=True)}
            if steered:
                row["target_loss"] = rule.target_loss
                row |= {
                    f"hypergradient_{n}": float(h)
                    for n, h in zip(names, rule.hypergradient, strict=True)
                }
            history.append(row)
            bar.set_postfix(loss=f"{float(value):.3f}")
        if done % settings.checkpoint_every == 0 or done == settings.steps:
            score = validate(model)
            history[-1] |= {"validation_average_precision": score}
            model.train()
            state = training_state(model, optimizer)
            state |= {
                "random.batches": generator.get_state(),
                "batches.rest": batches.rest,
                "targets.rest": targets.rest,
                "tdr.weights": rule.weights,
            }
            facts = {"step": done, "history": history, "settings": fingerprint}
            save_checkpoint(checkpoint, state, facts)
            write_atomically(folder / "history.csv", pd.DataFrame(history).to_csv(index=False))
    model.eval()
    return pd.DataFrame(history)


def cosine(peak: float, step: int, steps: int) -> float:
    """Learning rate at a step: 100 steps of warm-up, then half a cosine to zero."""
    warm = min(1.0, (step + 1) / min(100, steps))
    half = 0.5 * (1.0 + float(torch.cos(torch.tensor(torch.pi * step / steps))))
    return peak * warm * half


def _group_getter(weights_per: str) -> Callable[[Batch], Tensor]:
    return (lambda b: b.labels) if weights_per == "class" else (lambda b: b.groups)
