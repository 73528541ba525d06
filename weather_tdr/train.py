"""The training loop: one method, one network, on one or several processes; resume."""

import logging
import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor, nn

from data_pipelines.errors import Diverged, InputError, NotResumable
from weather_tdr import ranks
from weather_tdr.augment import Augment
from weather_tdr.checkpoints import Checkpoints, restore_training, training_state
from weather_tdr.data import Batch, Samples, digest, named_samples, not_finite
from weather_tdr.devices import autocast, eager, evaluating, faster, fits
from weather_tdr.fingerprint import fingerprint
from weather_tdr.fit_inputs import by_weight, folder_made, ready, settings_met, settings_of
from weather_tdr.methods.method import Method, method_of
from weather_tdr.methods.tdr import Tdr
from weather_tdr.optimizers import Average, make_optimizer
from weather_tdr.plan import make_plan
from weather_tdr.schedules import SCHEDULES
from weather_tdr.train_log import TrainLog
from weather_tdr.train_settings import Train
from weather_tdr.watch import Best, Watch

__all__ = ["Train", "fit"]
say = logging.getLogger(__name__)


def fit(
    model: nn.Module,
    train: Samples | tuple[Tensor, ...],
    target: Samples | tuple[Tensor, ...],
    method: str | Path | Method | Tdr = "tdr",
    settings: Train | None = None,
    *,
    folder: str | Path | None = None,
    augment: Augment | None = None,
    validate: Callable[[nn.Module], float] | None = None,
    names: tuple[str, ...] = (),
    identity: str = "",
    resume: bool = False,
    progress: bool = False,
) -> pd.DataFrame:
    """Trains any network in place, on the device that it is on.

    In a process group of `torch.distributed` every rank calls it with the same arguments; each
    takes its share of every batch, rank 0 writes, and all end with the same network.

    Args:
        model: from inputs to logits, shape (n, classes).
        train: training samples: a `Batch`, `StoredSamples`, or a tuple of arrays: inputs, labels
            and (if they are not the labels) groups.
        target: the target set, likewise: small, balanced, no sample of it in `train`.
        method: a name of `configs/methods/`, a path, a `Method`, or `Tdr` for its settings and
            loss with a weight a group.
        settings: how to train.
        folder: where `history.csv`, `checkpoints/` and `tensorboard/` go; None keeps nothing on
            disk.
        augment: changes inputs of a batch, given a generator; needed for what `settings.augment`
            names, but for `shift` and `crop_flip`: `augmentation(name, store)`,
            `Strong(mean, std)`.
        validate: score on validation, higher is better, at each checkpoint; on every rank. The
            best network and `patience` are looked for once steering, fine-tuning or what a method
            defers has begun.
        names: of the groups, for the history; numbers by default.
        identity: of the data, so that a checkpoint of other data is refused; by default their
            checksum.
        resume: goes on from the checkpoint in `folder`, if there is one.
        progress: shows a progress bar, if the output is a terminal.

    Returns:
        The history: a row a logged step; columns ``step, loss, learning_rate, weight_GROUP``, and
        by method ``target_loss, hypergradient_GROUP``; ``share_GROUP``: of the samples drawn.
        ``attrs["step"]`` is the step of the network that training ends with.

    Raises:
        Diverged: the loss is not finite.
        InputError: the target set lacks a group, shares samples with train or has no finite loss,
            or the checkpoint belongs to other settings.
        RankLost: another process has died.
    """
    settings = settings_of(settings)
    recipe = method_of(method)
    augment = settings_met(settings, augment, validate)
    train_set, target_set, names = by_weight(*ready(model, train, target), recipe, names)
    steps = settings.steps_of(len(train_set))
    ranks.agree(model)
    device = next(model.parameters()).device
    generator = torch.Generator().manual_seed(settings.seed + 1)
    optimizer = make_optimizer(
        model,
        settings.learning_rate,
        settings.momentum,
        settings.weight_decay,
        decay_all=settings.decay_on == "all",
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
        rule=method if isinstance(method, Tdr) else None,
    )
    pool = train_set.and_then(target_set)
    groups = pool.groups
    if folder is not None and not identity:
        identity = f"{len(train_set)} samples of train, {digest(pool)}"
    if isinstance(pool, Batch) and fits(pool.patches.nbytes, device):
        pool = pool.to(device)
    if not model.training:  # else some layers may be meant to stay in evaluation mode
        model.train()
    sound = {name for name, _ in _numbers(model)} - _not_finite(model)
    average = Average(model, settings.average) if settings.average else None
    watch = Watch(plan.names, settings.log_every)
    best = Best()
    first, seconds = 0, 0.0
    folder = folder_made(folder)
    writes = folder is not None and ranks.rank() == 0
    shown = progress and ranks.rank() == 0
    log = TrainLog(recipe.name, steps, settings.batch, folder if writes else None, progress=shown)
    checkpoints = Checkpoints(
        None if folder is None else folder / "checkpoints", settings.keep_checkpoints
    )
    loss = getattr(method, "loss", "")
    known = fingerprint(settings, recipe, identity, model, loss, augment, names)
    if resume and (found := checkpoints.latest()) is not None:
        state, facts = found
        if facts["settings"] != known:
            raise NotResumable(
                f"{checkpoints} was made with other settings or data, or by another version. Train "
                "without --resume, or restore the settings."
            )
        restore_training(state, model, optimizer)
        plan.restore(_part(state, "plan."))
        generator.set_state(state["random.batches"])
        if average is not None:
            average.restore(_part(state, "average."))
        first, log.rows, seconds = facts["step"], facts["history"], facts["seconds"]
        watch.restore(facts["watch"])
        best = Best(**facts["best"])
        if settings.choose == "best" and best.step:
            best.network = _part(state, "best.")
        say.info("going on from step %d of %s", first, checkpoints)
    if ranks.total(first) != first * ranks.number():
        raise InputError(
            f"every process must see the same checkpoints, got step {first} on rank "
            f"{ranks.rank()}. Put `output` on a file system that all of them share."
        )

    def take(index: Tensor, augment: Augment | None) -> Batch:
        """This rank's part of the samples."""
        if augment is None:
            return pool[ranks.share(index)].to(device)
        whole = pool[index]  # augmented whole, so that any number of ranks draws the same
        changed = replace(whole, patches=augment(whole.patches, generator))
        return changed[ranks.share(torch.arange(len(index)))].to(device)

    def score_network(done: int) -> float:
        """The score on validation; keeps the network if it is the best."""
        assert validate is not None
        with eager(model), evaluating(model):
            score = ranks.of_first(float(validate(model)))
        if math.isnan(score) and (settings.choose == "best" or settings.patience):
            raise InputError(
                "`train.choose: best` and `train.patience` need a score on validation, got one "
                "that is not defined, as without an incident there. Set them to `last` and 0, or "
                "take a longer validation period."
            )
        if done > plan.acts_from and best.look(done, score):
            if writes:
                checkpoints.save_best(model, {"step": done, "score": score})
            if settings.choose == "best":
                best.network = {k: t.clone() for k, t in model.state_dict().items()}
        return score

    of_target = torch.arange(len(train_set), len(pool))

    def loss_of_target() -> float:
        return plan.target_loss(lambda index: take(index, None), of_target)

    # Not when going on: a network that draws in evaluation mode too would draw otherwise after it.
    unsound = recipe.target != "unused" and not first and not math.isfinite(loss_of_target())
    if unsound and not_finite(pool[of_target]).any():  # else the start of a very deep network
        named = named_samples(pool, of_target, len(train_set))
        told = f"the target loss must be finite before the first step, got {named}"
        raise InputError(f"{told}. Fill their missing values, or take them out.")
    if plan.acts_from and (settings.choose == "best" or settings.patience):
        say.info("validation counts from step %d of `%s` on", plan.acts_from, recipe.name)
    begun = time.perf_counter() - seconds
    try:
        like = take(torch.zeros(plan.batches.batch).long(), None).patches
        with faster(model, like, settings.precision, settings.compile, settings.cuda_graph):
            for step in log.steps(first):
                if best.patience_is_over(settings.patience):
                    break
                ranks.seed_step(settings.seed, step)
                rate = settings.learning_rate * SCHEDULES[settings.schedule](step, steps)
                index, target_index = plan.draw(step)
                used = target_index if plan.uses_target(step) else target_index[:0]
                batch, target_batch = take(index, augment), take(used, None)
                optimizer.zero_grad(set_to_none=True)
                try:
                    with autocast(device, settings.precision):
                        value = plan.step(step, rate, batch, target_batch)
                    slopes = [p.grad for p in model.parameters() if p.grad is not None]
                    norm = nn.utils.get_total_norm(slopes)
                    if not torch.isfinite(value + norm):  # a GPU is waited for once
                        raise Diverged(
                            "loss and gradient must be finite, got a loss of "
                            f"{float(value)} and a norm of {float(norm)}."
                        )
                    if settings.clip:
                        nn.utils.clip_grads_with_norm_(model.parameters(), settings.clip, norm)
                    optimizer.step()
                    ranks.average_buffers(model)
                    done = step + 1
                    check = done % settings.checkpoint_every == 0 or done == steps
                    if check and (spoilt := sorted(sound & _not_finite(model))):
                        which = ", ".join(f"`{name}`" for name in spoilt)
                        raise Diverged(f"the network must be finite, got {which} after the step.")
                except Diverged as error:
                    drawn = named_samples(pool, torch.cat([index, used]), len(train_set))
                    raise Diverged(
                        f"{error} It was step {step} of `{recipe.name}`, with {drawn}. Lower "
                        f"`train.learning_rate` (now {settings.learning_rate:g}); the last good "
                        f"checkpoint is {checkpoints}."
                    ) from None
                if average is not None:
                    average.update(step)
                watch.count(groups[index])

                if check or done % settings.log_every == 0:
                    row = {"step": done, "loss": float(value), "learning_rate": plan.learning_rate}
                    row |= plan.row(step) | watch.shares()
                    if check and validate is not None:
                        with average.shown() if average else nullcontext():
                            row["validation_score"] = score = score_network(done)
                            if plan.steers(step):
                                watch.validated(loss_of_target(), score)
                    log.add(row)
                    watch.look(row)
                if check and writes:
                    state = training_state(model, optimizer)
                    state["random.batches"] = generator.get_state()
                    state |= {f"plan.{k}": t for k, t in plan.state().items()}
                    if average is not None:
                        state |= {f"average.{k}": t for k, t in average.state().items()}
                    state |= {f"best.{k}": t for k, t in (best.network or {}).items()}
                    facts = {
                        "step": done,
                        "history": log.rows,
                        "settings": known,
                        "seconds": time.perf_counter() - begun,
                        "watch": watch.state(),
                        "best": best.state(),
                    }
                    checkpoints.save(done, state, facts)
                    log.save()
    finally:
        plan.finish()
        log.close()
    if writes:  # also where the process died between the last checkpoint and the history
        log.save()
    if settings.choose == "best":
        assert best.network is not None
        model.load_state_dict(best.network)
    elif average is not None:
        model.load_state_dict(average.state())
    model.eval()
    table = log.table()
    table.attrs["seconds"] = time.perf_counter() - begun
    table.attrs["step"] = best.step if settings.choose == "best" else int(table["step"].iloc[-1])
    return table


def _numbers(model: nn.Module) -> list[tuple[str, Tensor]]:
    """Parameters and buffers by name."""
    return [*model.named_parameters(), *model.named_buffers()]


def _not_finite(model: nn.Module) -> set[str]:
    """Names of the parameters and buffers that are not finite, such as a mask of infinities."""
    return {name for name, tensor in _numbers(model) if not torch.isfinite(tensor).all()}


def _part(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): t for k, t in state.items() if k.startswith(prefix)}
