"""The training loop: one method, one network; history, checkpoints, resume."""

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal

import pandas as pd
import torch
from torch import Tensor, nn
from tqdm import tqdm

from data_pipelines.errors import Diverged, InputError
from weather_tdr.augment import Augment, Augmentation, crop_flip
from weather_tdr.checkpoints import (
    Checkpoints,
    restore_training,
    training_state,
    write_atomically,
)
from weather_tdr.data import Batch, concatenate
from weather_tdr.methods.method import Method, load_method
from weather_tdr.plan import by_weight, make_plan
from weather_tdr.schedules import SCHEDULES
from weather_tdr.watch import Best, Watch


@dataclass
class Train:
    """How to train.

    Attributes:
        methods: names of `configs/methods/`, or paths of YAML files of one's own.
        steps: optimiser steps.
        epochs: passes over train, in place of `steps`; 0 for `steps`.
        batch: samples a step.
        target_batch: samples of the target set a step; 0 is all of it.
        learning_rate: of SGD with momentum.
        schedule: `cosine`: 100 steps of warm-up, then half a cosine to zero; `constant`; `step`:
            divided by 10 after 1/2, 3/4 and 7/8 of the steps; `long_tail`: 2.5 % of warm-up,
            divided by 100 after 80 % and again after 90 %.
        augment: of the training samples: `none`; `crop_flip`: photographs shifted, and mirrored
            left to right; `mirror`: patches of fields as they would be in the other hemisphere.
        momentum: of SGD.
        weight_decay: L2 on the parameters.
        clip: largest norm of the gradient; 0 is none.
        log_every: steps between two rows of the history.
        checkpoint_every: steps between two checkpoints and validations.
        keep_checkpoints: how many of the last ones stay.
        choose: which network training ends with: `last`, or `best` on validation.
        patience: validations in a row without a better score after which training ends; 0 is
            never.
        width: channels of PatchNet's first block.
        dropout: share of PatchNet's last features that is dropped.
        seed: of initialisation and batches.
    """

    methods: list[str] = field(
        default_factory=lambda: ["uniform", "inverse_frequency", "tdr_faithful"]
    )
    steps: int = 3000
    epochs: float = 0.0
    batch: int = 128
    target_batch: int = 0
    learning_rate: float = 0.05
    schedule: str = "cosine"
    augment: Augmentation = "none"
    momentum: float = 0.9
    weight_decay: float = 5e-4
    clip: float = 1.0
    log_every: int = 50
    checkpoint_every: int = 500
    keep_checkpoints: int = 2
    choose: Literal["last", "best"] = "last"
    patience: int = 0
    width: int = 24
    dropout: float = 0.3
    seed: int = 0

    def __post_init__(self) -> None:
        """Checks the settings.

        Raises:
            InputError: an unknown method, or a number out of range.
        """
        made = [load_method(method).name for method in self.methods]
        if not made or len(set(made)) < len(made):
            raise InputError(f"`train.methods` must name each method once, got {self.methods}.")
        positive = ("steps", "batch", "learning_rate", "log_every", "checkpoint_every", "width")
        for name in (*positive, "keep_checkpoints"):
            if not getattr(self, name) > 0:
                raise InputError(f"`train.{name}` must be positive, got {getattr(self, name)}.")
        for name in ("momentum", "dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise InputError(
                    f"`train.{name}` must be at least 0 and below 1, got {getattr(self, name)}."
                )
        for name in ("epochs", "weight_decay", "clip", "target_batch", "patience", "seed"):
            if getattr(self, name) < 0:
                raise InputError(f"`train.{name}` must not be negative, got {getattr(self, name)}.")
        if self.schedule not in SCHEDULES:
            raise InputError(
                f"`train.schedule` must be one of {', '.join(SCHEDULES)}, got `{self.schedule}`."
            )


def fit(
    model: nn.Module,
    train: Batch | tuple[Tensor, ...],
    target: Batch | tuple[Tensor, ...],
    method: str | Method = "tdr",
    settings: Train | None = None,
    *,
    folder: Path | None = None,
    augment: Augment | None = None,
    validate: Callable[[nn.Module], float] | None = None,
    names: tuple[str, ...] = (),
    identity: str = "",
    resume: bool = False,
    progress: bool = False,
) -> pd.DataFrame:
    """Trains any network in place.

    Args:
        model: from inputs to logits, shape (n, classes).
        train: training samples: a `Batch`, or a tuple of inputs, labels and (if they are not the
            labels) groups.
        target: the target set, likewise: small, balanced, no sample of it in `train`.
        method: a name of `configs/methods/`, a path, or a `Method`.
        settings: how to train.
        folder: where `history.csv` and `checkpoints/` go; None keeps nothing on disk.
        augment: changes inputs of a batch, given a generator, as `settings.augment` says for the
            patches of a store; by default only `crop_flip` does.
        validate: score on validation, higher is better, at each checkpoint.
        names: of the groups, for the history; numbers by default.
        identity: of the data, so that a checkpoint of other data is refused.
        resume: goes on from the checkpoint in `folder`, if there is one.
        progress: shows a progress bar.

    Returns:
        The history: a row a logged step; columns ``step, loss, learning_rate, weight_GROUP``, and
        by method ``target_loss, hypergradient_GROUP``; ``share_GROUP``: of the samples drawn.
        ``attrs["step"]`` is the step of the network that training ends with.

    Raises:
        Diverged: the loss is not finite.
        InputError: the target set lacks a group or shares samples with train, or the checkpoint
            belongs to other settings.
    """
    settings = settings or Train()
    recipe = load_method(method) if isinstance(method, str) else method
    if validate is None and (settings.choose == "best" or settings.patience):
        raise InputError(
            "`train.choose: best` and `train.patience` need a score on validation, got none. "
            "Pass `validate`, or set them to `last` and 0."
        )
    if augment is None and settings.augment != "none":
        if settings.augment != "crop_flip":
            raise InputError(
                f"`train.augment: {settings.augment}` needs to know the variables, got only "
                "samples. Pass `augment=augmentation(name, store)`."
            )
        augment = crop_flip
    train_set, target_set, names = by_weight(Batch.of(train), Batch.of(target), recipe, names)
    steps = settings.steps
    if settings.epochs:
        steps = math.ceil(settings.epochs * len(train_set) / settings.batch)
    generator = torch.Generator().manual_seed(settings.seed + 1)
    optimizer = torch.optim.SGD(
        model.parameters(),
        lr=settings.learning_rate,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
    )
    plan = make_plan(
        recipe,
        model,
        optimizer,
        train_set,
        target_set,
        generator,
        steps=steps,
        batch=settings.batch,
        target_batch=settings.target_batch,
        names=names,
    )
    pool = concatenate(train_set, target_set)
    watch = Watch(plan.names, settings.log_every)
    history: list[dict[str, float]] = []
    first, seconds = 0, 0.0
    best = Best()
    checkpoints = Checkpoints(
        None if folder is None else folder / "checkpoints", settings.keep_checkpoints
    )
    fingerprint = json.dumps({**asdict(settings), "methods": asdict(recipe), "data": identity})
    if resume and (found := checkpoints.latest()) is not None:
        state, facts = found
        if facts["settings"] != fingerprint:
            raise InputError(
                f"{checkpoints} was made with other settings or data. Train without --resume, or "
                "restore the settings."
            )
        restore_training(state, model, optimizer)
        plan.restore({k.removeprefix("plan."): t for k, t in state.items() if k[:5] == "plan."})
        generator.set_state(state["random.batches"])
        first, history, seconds = facts["step"], facts["history"], facts["seconds"]
        watch.restore(facts["watch"])
        best = Best(**facts["best"])

    device = next(model.parameters()).device
    begun = time.perf_counter() - seconds
    model.train()
    bar = tqdm(
        range(first, steps),
        initial=first,
        total=steps,
        desc=f"{recipe.name:>20}",
        disable=not progress,
        unit="step",
        mininterval=1.0,
    )
    try:
        for step in bar:
            if best.patience_is_over(settings.patience):
                break
            rate = settings.learning_rate * SCHEDULES[settings.schedule](step, steps)
            index, target_index = plan.draw(step)
            batch = pool[index].to(device)
            target_batch = pool[target_index].to(device)
            if augment is not None:
                batch, target_batch = (
                    replace(b, patches=augment(b.patches, generator)) for b in (batch, target_batch)
                )
            optimizer.zero_grad(set_to_none=True)
            value = plan.step(step, rate, batch, target_batch)
            if not torch.isfinite(value):
                raise Diverged(
                    f"the loss must be finite, got {float(value)} at step {step} of "
                    f"`{recipe.name}` (samples {index[:8].tolist()} ...). Lower "
                    f"`train.learning_rate` (now {settings.learning_rate}); the last good "
                    f"checkpoint is {checkpoints}."
                )
            if settings.clip:
                nn.utils.clip_grad_norm_(model.parameters(), settings.clip)
            optimizer.step()
            watch.count(batch.groups)

            done = step + 1
            check = done % settings.checkpoint_every == 0 or done == steps
            if check or done % settings.log_every == 0:
                row = {"step": done, "loss": float(value), "learning_rate": rate}
                row |= plan.row(step) | watch.shares()
                if check and validate is not None:
                    row["validation_score"] = validate(model)
                    if best.look(done, row["validation_score"]):
                        checkpoints.save_best(model, {"step": done, "score": best.score})
                        if settings.choose == "best":
                            best.network = {k: t.clone() for k, t in model.state_dict().items()}
                    model.train()
                history.append(row)
                watch.look(row)
                bar.set_postfix(loss=f"{float(value):.3f}")
            if check and folder is not None:
                state = training_state(model, optimizer) | {"random.batches": generator.get_state()}
                state |= {f"plan.{k}": t for k, t in plan.state().items()}
                facts = {
                    "step": done,
                    "history": history,
                    "settings": fingerprint,
                    "seconds": time.perf_counter() - begun,
                    "watch": watch.state(),
                    "best": best.state(),
                }
                checkpoints.save(done, state, facts)
                text = pd.DataFrame(history).to_csv(index=False)
                write_atomically(folder / "history.csv", text)
    finally:
        plan.finish()
    if settings.choose == "best":
        if best.network is None:  # it was found before the training was resumed
            best.network = checkpoints.best_network()
        model.load_state_dict(best.network)
    model.eval()
    table = pd.DataFrame(history)
    table.attrs["seconds"] = time.perf_counter() - begun
    table.attrs["step"] = best.step if settings.choose == "best" else int(table["step"].iloc[-1])
    return table
