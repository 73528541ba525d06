"""What a method means for one training: what is drawn, and what each step does with it."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor, nn

from data_pipelines.errors import InputError
from weather_tdr import ranks
from weather_tdr.data import Batch, Samples
from weather_tdr.devices import eager, evaluating
from weather_tdr.fit_inputs import check_groups, check_overlap, refuse_own
from weather_tdr.layers import last_layer
from weather_tdr.methods.losses import Loss, cross_entropy, losses_of, make_loss, margin_scale
from weather_tdr.methods.method import STEERED, Method
from weather_tdr.methods.per_sample import LearningToReweight, MetaWeightNet
from weather_tdr.methods.static import Static, class_balanced, inverse_frequency, uniform
from weather_tdr.methods.tdr import Tdr
from weather_tdr.optimizers import decay_of
from weather_tdr.sampling import Batches, Shuffled

PART = 256  # samples of a pass over the target set
WEIGHTS = {
    "uniform": uniform,
    "inverse_frequency": inverse_frequency,
    "class_balanced": class_balanced,
}


class Stepper(Protocol):
    """What every weighting offers."""

    @property
    def loss(self) -> Loss:
        """Per-sample loss."""

    def step(self, model: nn.Module, batch: Batch, target: Batch) -> Tensor:
        """Leaves the gradient in ``.grad``; returns the inner loss."""

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint needs."""

    def restore(self, state: dict[str, Tensor]) -> None:
        """Puts back what `state` gave."""

    def row(self, names: tuple[str, ...]) -> dict[str, float]:
        """Columns of the history."""


@dataclass
class Plan:
    """One training of a method.

    Attributes:
        method: the method.
        model: the network.
        optimizer: SGD on all of its parameters.
        names: of the groups.
        stepper: the weighting.
        batches: draws from train, or from train and target where the method merges them.
        joined: draws from train and target, for the end of TDR.
        targets: draws from the target set.
        offset: position of the first target sample in train + target.
        target_batch: samples of the target set a step.
        steps: of the whole training.
        tuned_from: first step of fine-tuning on the target set.
    """

    method: Method
    model: nn.Module
    optimizer: torch.optim.Optimizer
    names: tuple[str, ...]
    stepper: Stepper
    batches: Batches
    joined: Batches
    targets: Shuffled
    offset: int
    target_batch: int
    steps: int
    tuned_from: int
    tuner: Static = field(init=False)

    def __post_init__(self) -> None:
        """Makes the step of fine-tuning."""
        self.tuner = Static(torch.ones(len(self.names)), cross_entropy)
        self.frozen: list[nn.Parameter] = []

    def draw(self, step: int) -> tuple[Tensor, Tensor]:
        """Positions in train + target: of the batch, and of the target batch."""
        target = self.targets.draw(self.target_batch) + self.offset
        if step >= self.tuned_from:
            return target, target
        batches, shares = self.batches, None
        if isinstance(self.stepper, Tdr):
            shares = self.stepper.shares()
            if self.stepper.finishing:
                batches = self.joined
        if self.method.sampling == "balanced" and step >= self.method.deferred * self.steps:
            shares = torch.full((len(self.names),), 1.0 / len(self.names))
        return batches.draw(shares), target

    def uses_target(self, step: int) -> bool:
        """Whether a step looks at its target batch."""
        if step >= self.tuned_from or isinstance(self.stepper, Static):
            return False  # in tuning the target set is the batch
        return not isinstance(self.stepper, Tdr) or self.stepper.turn

    def step(self, step: int, rate: float, batch: Batch, target: Batch) -> Tensor:
        """One step: learning rate, gradient in ``.grad``; returns the inner loss."""
        tuning = step >= self.tuned_from
        if tuning:
            rate *= self.method.fine_tune_rate
            if self.method.fine_tune_layers == "last" and not self.frozen:
                self._freeze(batch.patches[:2])
            for module in self.model.modules():  # a few target samples must not move BatchNorm
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        steady = isinstance(self.stepper, Tdr) and self.stepper.settings.eta == "initial"
        if isinstance(self.stepper, Tdr | MetaWeightNet) and not steady:
            self.stepper.learning_rate = rate
        return (self.tuner if tuning else self.stepper).step(self.model, batch, target)

    def _freeze(self, inputs: Tensor) -> None:
        kept = {id(p) for p in last_layer(self.model, inputs).parameters(recurse=False)}
        for p in self.model.parameters():
            if p.requires_grad and id(p) not in kept:
                p.requires_grad_(False)
                self.frozen.append(p)

    @property
    def learning_rate(self) -> float:
        """That of the last step, with the factor of fine-tuning."""
        return float(self.optimizer.param_groups[0]["lr"])

    def finish(self) -> None:
        """Frees the layers that fine-tuning froze."""
        for p in self.frozen:
            p.requires_grad_(True)
        self.frozen = []

    @property
    def acts_from(self) -> int:
        """First step of all of the method: of steering, fine-tuning, or what is deferred.

        The last one where there is none, as in very short trainings.
        """
        start = self.method.tdr.start if isinstance(self.stepper, Tdr) else self.method.deferred
        tunes = self.method.target == "fine_tune"
        first = self.tuned_from if tunes else math.ceil(start * self.steps)
        return min(first, self.steps - 1)

    def steers(self, step: int) -> bool:
        """Whether the target set has begun to act on the training, by steering or fine-tuning."""
        return self.method.target in ("steer", "fine_tune") and step >= self.acts_from

    def target_loss(self, take: Callable[[Tensor], Batch], index: Tensor) -> float:
        """Mean loss of the target set as the network is now, in evaluation mode.

        Args:
            take: from positions to this rank's part of them.
            index: positions of the whole set; taken in parts.
        """
        loss = (self.stepper if self.method.target == "steer" else self.tuner).loss
        device = next(self.model.parameters()).device
        total = torch.zeros((), dtype=torch.float64)
        with torch.no_grad(), eager(self.model), evaluating(self.model):
            for part in map(take, torch.split(index, PART)):
                if len(part):  # a rank may have no share
                    losses = losses_of(loss, self.model(part.patches), part.labels)
                    total += losses.cpu().double().sum()  # some devices lack float64
        return float(ranks.sum_over_ranks([total.float().to(device)])[0]) / len(index)

    def row(self, step: int) -> dict[str, float]:
        """Columns of the history."""
        return (self.tuner if step >= self.tuned_from else self.stepper).row(self.names)

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint needs beside model, optimiser and generator."""
        state = {f"stepper.{k}": t for k, t in self.stepper.state().items()}
        for name in ("batches", "joined"):
            state |= {f"{name}.{k}": t for k, t in getattr(self, name).state().items()}
        return state | {"targets.rest": self.targets.rest}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Puts back what `state` gave."""
        for name in ("stepper", "batches", "joined"):
            own = {k.split(".", 1)[1]: t for k, t in state.items() if k.startswith(name + ".")}
            getattr(self, name).restore(own)
        self.targets.rest = state["targets.rest"]


def check_batch(method: Method, batch: int, number: int) -> None:
    """Refuses batches that cannot hold every group where a method draws them by groups.

    Args:
        method: the method.
        batch: samples a step.
        number: of groups.

    Raises:
        InputError: too few.
    """
    steered_shares = method.weighting == "tdr" and method.tdr.realise != "loss"
    if (steered_shares or method.sampling == "balanced") and batch < number:
        raise InputError(
            f"`train.batch` must be at least the number of groups, got {batch} for {number}, "
            f"with method `{method.name}`. Enlarge it."
        )


def make_plan(
    method: Method,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    train: Samples,
    target: Samples,
    generator: torch.Generator,
    *,
    steps: int,
    batch: int,
    target_batch: int = 0,
    names: tuple[str, ...],
    rule: Tdr | None = None,
) -> Plan:
    """Puts a method together for one network and data set.

    Args:
        method: the method.
        model: the network.
        optimizer: of its parameters.
        train: training samples.
        target: the target set.
        generator: of all draws.
        steps: of the whole training.
        batch: samples a step.
        target_batch: samples of the target set a step; 0 is all of it.
        names: of the groups.
        rule: gives its loss, in place of the method's.

    Raises:
        InputError: the target set lacks a group or shares samples with train.
    """
    of_train, of_target = train.groups, target.groups
    number = len(names)
    if method.weighting in STEERED:
        check_groups(train, target, names)
    if method.target != "unused":
        check_overlap(train, target)
    check_batch(method, batch, number)
    merged = torch.cat([of_train, of_target])
    drawn = merged if method.target == "merge" else of_train
    counts = torch.bincount(drawn, minlength=number)
    if rule is None:
        both = torch.cat([train.labels, target.labels])
        seen = both if method.target == "merge" else train.labels
        classes = torch.bincount(seen, minlength=int(both.max()) + 1)
        loss = make_loss(method.loss, classes, margin_scale(model))
    else:
        refuse_own(rule, number)
        loss = rule.loss
    rate, decay = float(optimizer.param_groups[0]["lr"]), decay_of(model, optimizer)
    stepper: Stepper
    if method.weighting == "tdr":
        stepper = Tdr(number, rate, method.tdr, loss, decay, steps, optimizer)
    elif method.weighting == "learning_to_reweight":
        stepper = LearningToReweight(loss)
    elif method.weighting == "meta_weight_net":
        stepper = MetaWeightNet(rate, loss, decay)
        ranks.agree(stepper.net)
    else:
        start = round(method.deferred * steps)
        stepper = Static(WEIGHTS[method.weighting](counts), loss, start)
    tuning = method.target == "fine_tune"
    return Plan(
        method=method,
        model=model,
        optimizer=optimizer,
        names=names,
        stepper=stepper,
        batches=Batches(drawn, number, batch, generator),
        joined=Batches(merged, number, batch, generator),
        targets=Shuffled(len(target), generator),
        offset=len(train),
        target_batch=min(target_batch or len(target), len(target)),
        steps=steps,
        tuned_from=round(steps * (1 - method.fine_tune_share)) if tuning else steps,
    )
