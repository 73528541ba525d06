"""A run from Python: makes it stage by stage, and gives its results."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pandas as pd
import xarray as xr
from torch import nn

from data_pipelines.errors import InputError
from data_pipelines.store import store_identity
from weather_tdr.assess import evaluate_all
from weather_tdr.comparison import compare, is_scored
from weather_tdr.config import Config, config_of_run, configure, save_config
from weather_tdr.methods.method import load_method
from weather_tdr.model_files import load_detector
from weather_tdr.own_network import score_network
from weather_tdr.plots.maps import animate
from weather_tdr.plots.scene import strongest
from weather_tdr.results import Results
from weather_tdr.run import build, map_fields, prepare, train_all, training_facts


class Run(Results):
    """A run: each stage makes what is not there yet, and gives its result.

    Args:
        source: a configuration, or a name or file of one, as `configure` takes it.
        changes: keys in place of those of the configuration, as `configure` takes them.
        progress: shows progress bars.
    """

    def __init__(
        self, source: str | Path | Config = "", *, progress: bool = False, **changes: Any
    ) -> None:
        super().__init__(source if isinstance(source, Config) else configure(source, **changes))
        self.progress = progress

    def fields(self) -> xr.DataArray:
        """The fields, lazy; synthetic ones are made first."""
        prepare(self.config)
        return super().fields()

    def catalogue(self, at_fields: bool = False) -> pd.DataFrame:
        """As `Results.catalogue`; a synthetic one is made first."""
        prepare(self.config)
        return super().catalogue(at_fields)

    def build(self) -> xr.Dataset:
        """Cuts the fields into the patch store, unless it is there; returns it."""
        build(self.config, progress=self.progress)
        return self.patches

    def train(self) -> pd.DataFrame:
        """Trains the methods that have not been trained yet, each from its last checkpoint.

        Returns:
            The last row of each method's history.
        """
        config = self.config
        identity = store_identity(self.build().attrs)
        todo = [m for m in config.train.methods if not self._is_trained(m, identity)]
        if todo:
            part = replace(config, train=replace(config.train, methods=todo))
            try:
                train_all(part, resume=True, or_anew=True, progress=self.progress)
            finally:  # of all methods, also where training is stopped
                save_config(config)
        last = {method: history.iloc[-1] for method, history in self.histories().items()}
        return pd.DataFrame(last).T.rename_axis("method").convert_dtypes()

    def _is_trained(self, method: str, identity: str) -> bool:
        recipe = load_method(method)
        path = self.folder / recipe.name / "model.json"
        if not path.is_file():
            return False
        facts = json.loads(path.read_text())["facts"]
        wanted = json.loads(json.dumps(training_facts(self.config, recipe)))
        return bool(facts.get("store") == identity and facts.get("training") == wanted)

    def _is_evaluated(self, method: str) -> bool:
        """Whether what is there was evaluated with these settings of maps."""
        facts = load_detector(self.folder / method).facts
        wanted = json.loads(json.dumps(asdict(self.config.maps)))
        return "scores" in facts and bool(facts.get("maps") == wanted)

    def evaluate(self) -> pd.DataFrame:
        """Calibrates, scores and maps the methods that need it; returns the scores of patches."""
        self.train()
        identity = store_identity(self.patches.attrs)
        names = [load_method(m).name for m in self.config.train.methods]
        todo = [
            n
            for n in names
            if not is_scored(self.folder / n, identity) or not self._is_evaluated(n)
        ]
        if todo or not set(self._comparison().index) >= set(names):
            evaluate_all(self.config, methods=todo, progress=self.progress)
        return self.scores()

    def score(self, network: nn.Module, name: str, data: str = "own") -> pd.DataFrame:
        """Puts any network beside the methods and rules of the run.

        Args:
            network: from normalised patches ``(n, variable, y, x)`` to two logits, as `fit`
                trains it on `split("train")`.
            name: what to call it.
            data: what it has seen, for the table.

        Returns:
            The scores of patches, with a row for the network.
        """
        identity = store_identity(self.build().attrs)
        score_network(self.config, network, name, data)
        names = dict.fromkeys([*self._comparison().index, name])
        compare(self.folder, [n for n in names if is_scored(self.folder / n, identity)])
        return self.scores()

    def map(
        self,
        paths: list[str],
        method: str,
        threshold: float | None = None,
        *,
        period: str = "",
        output: str | Path | None = None,
    ) -> xr.Dataset:
        """The incident map of other fields; its incidents lie beside it as files.

        Args:
            paths: NetCDF files or a Zarr store.
            method: whose network.
            threshold: probability from which on a peak (or region) is an incident; by default that
                which evaluation chose on validation.
            period: FIRST/LAST: the only times to map.
            output: folder for the files, by default one of the method's.
        """
        folder = map_fields(
            self.folder / method, paths, None if output is None else Path(output),
            period=period, threshold=threshold, progress=self.progress,
        )  # fmt: skip
        with xr.open_dataset(folder / "incident_map.nc") as found:
            return found.load()

    def animate(self, method: str, steps: int = 10, dpi: int = 50) -> Path:
        """A GIF of the times around the strongest incident; returns its path.

        Args:
            method: whose map.
            steps: number of times.
            dpi: pixels an inch; a frame is 11 inches wide.
        """
        times = pd.DatetimeIndex(self.incident_map(method)["time"].to_numpy())
        found = self.incidents(method)
        middle = len(times) // 2
        if len(found):
            middle = int(times.searchsorted(strongest(found)["time"]))
        first = min(max(middle - steps // 2, 0), max(len(times) - steps, 0))
        scenes = [self.scene(method, time) for time in times[first : first + steps]]
        path = self.folder / method / "figures" / "strongest.gif"
        animate(
            lambda k: scenes[k], len(scenes), path, f"Incidents found by {method}", dpi=dpi,
            progress=self.progress,
        )  # fmt: skip
        return path

    def __repr__(self) -> str:
        lines = [f"Run {self.folder}"]
        if (self.folder / "patches.zarr").is_dir():
            counts = self.counts()
            for split, row in counts.iterrows():
                groups = ", ".join(f"{n:,} {g}" for g, n in row.items() if n)
                lines.append(f"  {split:12} {groups}")
        else:
            lines.append("  no patch store yet: run.build()")
        width = max([12, *map(len, self.methods)])
        for method in self.methods:
            scored = (self.folder / method / "scores.json").is_file()
            lines.append(f"  {method:{width}} {'trained and evaluated' if scored else 'trained'}")
        return "\n".join(lines)


def open_run(folder: str | Path) -> Run:
    """A run that has been made, by its folder.

    Args:
        folder: such as ``runs/demo``.

    Raises:
        InputError: the folder is no run.
    """
    path = Path(folder).expanduser()
    if not (path / "config.yaml").is_file():
        if (path.parent / "config.yaml").is_file():
            raise InputError(
                f"`folder` must be a run folder, got {path}, a method in it. "
                f"Use open_run({str(path.parent)!r})."
            )
        above = path.parent if path.parent.is_dir() else Path("runs")
        known = sorted(str(p.parent) for p in above.glob("*/config.yaml"))
        raise InputError(
            f"`folder` must be a run folder such as runs/demo, got {path} without config.yaml. "
            f"There is: {', '.join(known) or 'none'}."
        )
    return Run(config_of_run(path))
