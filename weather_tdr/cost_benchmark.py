"""The cost benchmark as a command: its settings, and its file."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import torch

from data_pipelines.errors import InputError, unknown_name
from data_pipelines.writing import write_atomically
from weather_tdr.cost import CASES, measure_cost
from weather_tdr.model_files import commit
from weather_tdr.settings import check_folder_name


@dataclass
class CostBenchmark:
    """What steering costs.

    Attributes:
        name: the results go to OUTPUT/NAME.
        output: folder of all benchmarks.
        networks: `convnet`, `lenet5`, `resnet20`, `patchnet`.
        rounds: turns of every variant.
        threads: of torch.
    """

    name: str = "cost"
    output: str = "runs/benchmarks"
    networks: list[str] = field(default_factory=lambda: list(CASES))
    rounds: int = 15
    threads: int = 1

    def __post_init__(self) -> None:
        """Checks the names and numbers.

        Raises:
            InputError: an unknown network or none, or no round.
        """
        check_folder_name(self.name)
        if not self.networks:
            raise InputError(f"`networks` must name some of {', '.join(CASES)}, got none.")
        for network in self.networks:
            if network not in CASES:
                raise unknown_name("`networks`: network", network, CASES)
        if self.rounds < 1 or self.threads < 1:
            raise InputError(
                f"`rounds` and `threads` must be positive, got {self.rounds} and {self.threads}."
            )

    @property
    def folder(self) -> Path:
        """Where the results go."""
        return Path(self.output).expanduser() / self.name


def run_cost(cost: CostBenchmark, *, progress: bool = True) -> pd.DataFrame:
    """Measures the cost of a step and writes `cost.csv`, anew after each network."""
    torch.set_num_threads(cost.threads)
    cost.folder.mkdir(parents=True, exist_ok=True)
    facts: dict[str, int | str] = {"threads": cost.threads, "rounds": cost.rounds}
    facts |= {"date": f"{datetime.now(UTC):%Y-%m-%d}", "commit": commit()}
    tables: list[pd.DataFrame] = []
    for network in cost.networks:
        tables.append(measure_cost((network,), cost.rounds, progress=progress))
        text = pd.concat(tables).assign(**facts).to_csv(index=False, float_format="%.3f")
        write_atomically(cost.folder / "cost.csv", text)
    return pd.concat(tables, ignore_index=True).round(3)
