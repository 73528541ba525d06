"""Speed of training against a bare loop on tensors in memory, and where the time goes.

Every way takes its turn in each round, so that a machine's moods hit all of them; a ratio is the
median over rounds of the ratio within a round.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from time import perf_counter

import pandas as pd
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from tqdm import tqdm

from data_pipelines.errors import InputError, unknown_name
from data_pipelines.writing import write_atomically
from weather_tdr.data import Batch
from weather_tdr.devices import Device, pick_device
from weather_tdr.image_models import make_network
from weather_tdr.model_files import commit
from weather_tdr.models import PatchNet
from weather_tdr.sampling import Batches
from weather_tdr.settings import check_folder_name
from weather_tdr.train import fit
from weather_tdr.train_settings import Train

SAMPLES, TARGET, RATE, MOMENTUM, DECAY = 4096, 20, 0.01, 0.9, 5e-4
NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "patchnet": (lambda: PatchNet(4, 16, 4), (4, 16, 16)),
    "resnet32": (lambda: make_network("resnet32", 3, 32, 2), (3, 32, 32)),
}


@dataclass
class TrainingBenchmark:
    """Speed of training.

    Attributes:
        name: the results go to OUTPUT/NAME.
        output: folder of all benchmarks.
        networks: `patchnet`, `resnet32`.
        batch: samples a step.
        steps: of a turn.
        rounds: turns of every way.
        device: `auto`, `cpu`, `cuda`, `mps`.
    """

    name: str = "training"
    output: str = "runs/benchmarks"
    networks: list[str] = field(default_factory=lambda: list(NETWORKS))
    batch: int = 128
    steps: int = 20
    rounds: int = 5
    device: Device = "auto"

    def __post_init__(self) -> None:
        """Checks names and numbers.

        Raises:
            InputError: an unknown network, or a number out of range.
        """
        check_folder_name(self.name)
        for network in self.networks:
            if network not in NETWORKS:
                raise unknown_name("network", network, NETWORKS)
        for name in ("batch", "steps", "rounds"):
            if getattr(self, name) < 1:
                raise InputError(f"`{name}` must be positive, got {getattr(self, name)}.")

    @property
    def folder(self) -> Path:
        """Where the results go."""
        return Path(self.output).expanduser() / self.name


def run_training(benchmark: TrainingBenchmark, *, progress: bool = True) -> pd.DataFrame:
    """Measures, and writes `training.csv`.

    Returns:
        A row a network and way: ``samples_per_second`` and ``speed_ratio`` to the bare loop;
        of our ways also the shares of the time that go to drawing and gathering (``data_share``),
        to the ``inner_share`` and to the ``hypergradient_share``.
    """
    device = pick_device(benchmark.device)
    rows = [
        row
        for network in benchmark.networks
        for row in _measure(benchmark, network, device, progress)
    ]
    benchmark.folder.mkdir(parents=True, exist_ok=True)
    about = {"date": f"{datetime.now(UTC):%Y-%m-%d}", "commit": commit(), "device": str(device)}
    table = pd.DataFrame(rows).assign(**about)
    write_atomically(benchmark.folder / "training.csv", table.to_csv(index=False))
    return table


def _measure(
    benchmark: TrainingBenchmark, network: str, device: torch.device, progress: bool
) -> list[dict[str, object]]:
    """The rows of one network."""
    make, shape = NETWORKS[network]
    generator = torch.Generator().manual_seed(0)
    label = torch.arange(SAMPLES) % 2
    train = Batch(torch.randn(SAMPLES, *shape, generator=generator), label, label)
    few = torch.arange(TARGET) % 2
    target = Batch(torch.randn(TARGET, *shape, generator=generator), few, few)
    on_device = train.to(device)
    batches = Batches(label, 2, benchmark.batch, generator)

    def bare() -> float:
        model = make().to(device).train()
        optimizer = torch.optim.SGD(
            model.parameters(), lr=RATE, momentum=MOMENTUM, weight_decay=DECAY
        )
        begun = perf_counter()
        for _ in range(benchmark.steps):
            index = torch.randint(SAMPLES, (benchmark.batch,), generator=generator).to(device)
            optimizer.zero_grad(set_to_none=True)
            loss = cross_entropy(model(on_device.patches[index]), on_device.labels[index])
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        float(loss.detach())  # waits for the device
        return perf_counter() - begun

    def data() -> float:
        begun = perf_counter()
        for _ in range(benchmark.steps):
            last = on_device[batches.draw(torch.tensor([0.5, 0.5]))].patches
        float(last.sum())
        return perf_counter() - begun

    def ours(method: str) -> float:
        settings = Train(
            steps=benchmark.steps,
            batch=benchmark.batch,
            learning_rate=RATE,
            schedule="constant",
            momentum=MOMENTUM,
            weight_decay=DECAY,
            clip=0.0,
            log_every=benchmark.steps,
        )
        history = fit(make().to(device), train, target, method, settings)
        return float(history.attrs["seconds"])

    ways = {
        "bare loop": bare,
        "drawing and gathering": data,
        "uniform": lambda: ours("uniform"),
        "tdr": lambda: ours("tdr"),
        "tdr_faithful": lambda: ours("tdr_faithful"),  # steers from the first step on
    }
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for turn in tqdm(range(benchmark.rounds + 1), desc=network, disable=not progress, leave=False):
        for way, work in ways.items():
            took = work()  # type: ignore[no-untyped-call]
            if turn:  # the first is to warm up
                seconds[way].append(took)

    def ratio(first: str, second: str) -> float:
        return median(a / b for a, b in zip(seconds[first], seconds[second], strict=True))

    rows: list[dict[str, object]] = []
    for way in ("bare loop", "uniform", "tdr", "tdr_faithful"):
        row: dict[str, object] = {
            "network": network,
            "batch": benchmark.batch,
            "way": way,
            "samples_per_second": benchmark.batch * benchmark.steps / median(seconds[way]),
            "speed_ratio": ratio("bare loop", way),
        }
        if way != "bare loop":
            of_data, steered = ratio("drawing and gathering", way), 1.0 - ratio("uniform", way)
            row |= {
                "data_share": of_data,
                "inner_share": 1.0 - of_data - steered,
                "hypergradient_share": steered,
            }
        rows.append(row)
    return rows
