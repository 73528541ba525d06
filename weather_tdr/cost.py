"""What steering costs: time and memory of a step, as ratios to ordinary training in one run.

Variants take turns, so that a machine's moods hit all of them; a ratio is the median over rounds
of the ratio within a round. Memory is the highest sum of what the CPU allocator gave out, network
and batch included, during three steps.
"""

import importlib
import importlib.util
import logging
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile
from tqdm import tqdm

from weather_tdr.data import Batch
from weather_tdr.image_models import make_network
from weather_tdr.methods.hypergradient import Way
from weather_tdr.methods.losses import cross_entropy
from weather_tdr.methods.static import Static
from weather_tdr.methods.tdr import Tdr, TdrSettings
from weather_tdr.models import PatchNet

Step = Callable[[], object]
ETA = 0.01


@dataclass(frozen=True)
class Case:
    """A network with its batch."""

    make: Callable[[], nn.Module]
    shape: tuple[int, ...]
    batch: int
    target: int = 10
    ways: tuple[Way, ...] = ("per_group", "forward_mode")


CASES = {
    "convnet": Case(lambda: make_network("convnet", 3, 32, 2), (3, 32, 32), 100),
    "lenet5": Case(lambda: make_network("lenet5", 1, 28, 2), (1, 28, 28), 50),
    "resnet20": Case(lambda: make_network("resnet20", 3, 32, 2), (3, 32, 32), 100),
    "patchnet": Case(lambda: PatchNet(4, 16, 4), (4, 16, 16), 128),
}


def measure_cost(
    networks: tuple[str, ...] = tuple(CASES), rounds: int = 15, *, progress: bool = False
) -> pd.DataFrame:
    """Times a step of every way on every network.

    Args:
        networks: names of CASES.
        rounds: turns of every variant; each turn is 10 steps.
        progress: shows a progress bar.

    Returns:
        ``network, batch, method, hypergradient, every, time_ratio, memory_ratio``.
    """
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler's own talk
    rows = []
    for network in networks:
        case = CASES[network]
        makers = _variants(case)
        seconds: dict[tuple[str, str, int], list[float]] = {key: [] for key in makers}
        steps = {key: make() for key, make in makers.items()}
        for step in steps.values():  # warm-up
            for _ in range(3):
                step()
        bar = tqdm(range(rounds), desc=f"cost of {network}", disable=not progress, leave=False)
        for _ in bar:
            for key, step in steps.items():
                begun = time.perf_counter()
                for _ in range(10):
                    step()
                seconds[key].append(time.perf_counter() - begun)
        plain = ("uniform", "none", 0)
        memory = {key: _peak(make) for key, make in makers.items()}
        for (method, way, every), values in seconds.items():
            ratios = [a / b for a, b in zip(values, seconds[plain], strict=True)]
            key = (method, way, every)
            rows.append(
                {
                    "network": network,
                    "batch": case.batch,
                    "method": method,
                    "hypergradient": way,
                    "every": every,
                    "time_ratio": statistics.median(ratios),
                    "memory_ratio": memory[key] / memory[plain],
                }
            )
    return pd.DataFrame(rows)


def _data(case: Case) -> tuple[Batch, Batch]:
    generator = torch.Generator().manual_seed(0)
    label = torch.arange(case.batch) % 2
    batch = Batch(torch.randn(case.batch, *case.shape, generator=generator), label, label)
    few = torch.arange(case.target) % 2
    target = Batch(torch.randn(case.target, *case.shape, generator=generator), few, few)
    return batch, target


def _variants(case: Case) -> dict[tuple[str, str, int], Callable[[], Step]]:
    """(method, hypergradient, every) -> a maker of a step with network, optimiser and data."""
    found: dict[tuple[str, str, int], Callable[[], Step]] = {
        ("uniform", "none", 0): lambda: _ordinary(case)
    }
    for every in (1, 10):
        for way in case.ways:
            found["tdr", way, every] = lambda w=way, e=every: _tdr(case, w, e)  # type: ignore[misc]
        found["tdr, lag", "forward_mode", every] = lambda e=every: _tdr(  # type: ignore[misc]
            case, "forward_mode", e, lag=True
        )
        found["tdr", "double_backward", every] = lambda e=every: _tdr(  # type: ignore[misc]
            case, "double_backward", e
        )
    found["tdr", "finite_difference", 1] = lambda: _tdr(case, "finite_difference", 1)
    if importlib.util.find_spec("higher"):
        found["higher", "unrolled", 1] = lambda: _higher(case)
    if importlib.util.find_spec("torchopt"):
        found["torchopt", "unrolled", 1] = lambda: _torchopt(case)
    if importlib.util.find_spec("betty"):
        found["betty", "finite_difference", 1] = lambda: _betty(case)
    return found


def _optimizer(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=ETA, momentum=0.9, weight_decay=5e-4)


def _ordinary(case: Case) -> Step:
    model = case.make().train()
    optimizer = _optimizer(model)
    batch, target = _data(case)
    rule = Static(torch.ones(2), cross_entropy)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        rule.step(model, batch, target)
        optimizer.step()

    return step


def _tdr(case: Case, way: Way, every: int, *, lag: bool = False) -> Step:
    model = case.make().train()
    optimizer = _optimizer(model)
    batch, target = _data(case)
    rule = Tdr(2, ETA, TdrSettings(every=every, hypergradient=way, lag=lag))

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        rule.step(model, batch, target)
        optimizer.step()

    return step


def _move(weights: torch.Tensor, slope: torch.Tensor) -> torch.Tensor:
    moved = (weights - 0.1 * slope).clamp(0.0, 100.0)
    return moved / moved.sum()


def _higher(case: Case) -> Step:
    """The same step with `higher`: an unrolled inner step, then the weighted step."""
    higher = importlib.import_module("higher")
    model = case.make().train()
    optimizer = _optimizer(model)
    virtual = torch.optim.SGD(model.parameters(), lr=ETA)
    batch, target = _data(case)
    weights = torch.full((2,), 0.5)

    def step() -> None:
        nonlocal weights
        w = weights.clone().requires_grad_()
        with higher.innerloop_ctx(model, virtual) as (inner, ahead):
            losses = cross_entropy(inner(batch.patches), batch.labels)
            ahead.step((w[batch.groups] * losses).mean())
            outer = cross_entropy(inner(target.patches), target.labels).mean()
            weights = _move(weights, torch.autograd.grad(outer, w)[0])
        optimizer.zero_grad(set_to_none=True)
        losses = cross_entropy(model(batch.patches), batch.labels)
        (weights[batch.groups] * losses).mean().backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return step


def _torchopt(case: Case) -> Step:
    """The same step with TorchOpt's differentiable MetaSGD."""
    torchopt = importlib.import_module("torchopt")
    model = case.make().train()
    optimizer = _optimizer(model)
    batch, target = _data(case)
    weights = torch.full((2,), 0.5)

    def step() -> None:
        nonlocal weights
        w = weights.clone().requires_grad_()
        virtual = torchopt.MetaSGD(model, lr=ETA)
        before = torchopt.extract_state_dict(model, by="reference", detach_buffers=True)
        losses = cross_entropy(model(batch.patches), batch.labels)
        virtual.step((w[batch.groups] * losses).mean())
        outer = cross_entropy(model(target.patches), target.labels).mean()
        weights = _move(weights, torch.autograd.grad(outer, w)[0])
        torchopt.recover_state_dict(model, before)
        optimizer.zero_grad(set_to_none=True)
        losses = cross_entropy(model(batch.patches), batch.labels)
        (weights[batch.groups] * losses).mean().backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return step


def _betty(case: Case) -> Step:
    """The same problem with Betty's DARTS: an approximate hypergradient each step."""
    logging.getLogger("betty").setLevel(logging.WARNING)  # it tells of every start
    problems, configs, engine = (
        importlib.import_module(f"betty.{name}") for name in ("problems", "configs", "engine")
    )
    batch, target = _data(case)

    class Inner(problems.ImplicitProblem):  # type: ignore[misc, name-defined]
        def training_step(self, _: object) -> torch.Tensor:
            losses = cross_entropy(self(batch.patches), batch.labels)
            value: torch.Tensor = (self.outer()[batch.groups] * losses).mean()
            return value

    class Outer(problems.ImplicitProblem):  # type: ignore[misc, name-defined]
        def training_step(self, _: object) -> torch.Tensor:
            return cross_entropy(self.inner(target.patches), target.labels).mean()

    class Weights(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weights = nn.Parameter(torch.full((2,), 0.5))

        def forward(self) -> torch.Tensor:
            return self.weights

    model, weights = case.make().train(), Weights()
    settings = configs.Config(type="darts", unroll_steps=1)
    inner = Inner(
        "inner", settings, model, _optimizer(model), train_data_loader=[(torch.zeros(1),)]
    )
    rule = torch.optim.SGD(weights.parameters(), lr=0.1)
    outer = Outer("outer", settings, weights, rule, train_data_loader=[(torch.zeros(1),)])
    made = engine.Engine(
        config=configs.EngineConfig(),
        problems=[outer, inner],
        dependencies={"u2l": {outer: [inner]}, "l2u": {inner: [outer]}},
    )

    def step() -> None:
        made.global_step += 1
        made.train_step()

    return step


def _peak(make: Callable[[], Step]) -> float:
    """Highest number of bytes allocated at once while a step is made and runs three times."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step = make()
        for _ in range(3):
            step()
    found = profiler.profiler.kineto_results.events()
    events = [e for e in found if e.name() == "[memory]"]
    events.sort(key=lambda e: e.start_ns())
    now = highest = 0
    for event in events:
        now += event.nbytes()
        highest = max(highest, now)
    return float(highest)
