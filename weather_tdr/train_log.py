"""What a training says while it runs: history, TensorBoard's event files, progress bar."""

import importlib.util
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm import tqdm

from data_pipelines.writing import write_atomically

Row = dict[str, float]


class TrainLog:
    """Rows of the history, on disk in `history.csv`, and in `tensorboard/` where it is installed.

    Args:
        name: of the method, for the bar.
        steps: of the whole training.
        batch: samples a step.
        folder: for the files; None keeps nothing on disk.
        progress: shows a bar, if the output is a terminal.
    """

    def __init__(
        self,
        name: str,
        steps: int,
        batch: int,
        folder: Path | None = None,
        *,
        progress: bool = False,
    ) -> None:
        self.name, self.all, self.batch, self.folder = name, steps, batch, folder
        self.silent = not (progress and sys.stderr.isatty())
        self.rows: list[Row] = []
        self.writer: Any = None  # imported here: its second is none of the training's
        if folder is not None and importlib.util.find_spec("tensorboard"):
            from torch.utils.tensorboard import SummaryWriter

            self.writer = SummaryWriter
        self.events: Any = None
        self.bar: Any = None

    def steps(self, first: int) -> Iterator[int]:
        """The steps to do, counted by the bar."""
        if self.writer is not None and self.folder is not None:
            events = self.folder / "tensorboard"
            if not first:
                shutil.rmtree(events, ignore_errors=True)
            # Rows after the checkpoint are shown once, though they were written twice.
            self.events = self.writer(events, purge_step=first + 1)
        self.bar = tqdm(
            range(first, self.all),
            initial=first,
            total=self.all,
            desc=f"{self.name:>20}",
            disable=self.silent,
            unit="step",
            mininterval=1.0,
        )
        yield from self.bar

    def add(self, row: Row) -> None:
        """A row of the history: its step, and any values."""
        self.rows.append(row)
        if self.events is not None:
            for name, value in row.items():
                if name != "step":
                    group, _, rest = name.partition("_")
                    grouped = group in ("weight", "share", "hypergradient")
                    tag = f"{group}/{rest}" if grouped else name
                    self.events.add_scalar(tag, value, int(row["step"]))
        if not self.silent:
            weights = [v for k, v in row.items() if k.startswith("weight_")]
            self.bar.set_postfix_str(
                f"loss {row['loss']:.3f}, weights {' '.join(f'{w:.2f}' for w in weights[:6])}, "
                f"{self.batch * (self.bar.format_dict['rate'] or 0.0):.0f} samples/s"
            )

    def save(self) -> None:
        """Puts on disk what has been added."""
        if self.folder is not None:
            write_atomically(self.folder / "history.csv", self.table().to_csv(index=False))
        if self.events is not None:
            self.events.flush()

    def close(self) -> None:
        """Ends bar and event file."""
        if self.bar is not None:
            self.bar.close()
        if self.events is not None:
            self.events.close()

    def table(self) -> pd.DataFrame:
        """The history, a row a logged step."""
        return pd.DataFrame(self.rows)
