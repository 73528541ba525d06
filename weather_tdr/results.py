"""A run folder as xarray datasets and pandas tables."""

from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import xarray as xr

from data_pipelines.dropped import dropped_table
from data_pipelines.errors import InputError, unknown_name
from data_pipelines.fields import open_fields
from data_pipelines.incidents import at_times, read_catalogue
from data_pipelines.labelling import kinds_of
from data_pipelines.schema import GROUPS, SPLITS
from data_pipelines.store import meanings, open_store
from weather_tdr.comparison import own_networks, performances, test_curves
from weather_tdr.config import Config
from weather_tdr.data import Batch, load_split
from weather_tdr.incident_files import read_incidents
from weather_tdr.methods.method import load_method
from weather_tdr.plots.scene import Scene, strongest
from weather_tdr.plots.scores import Performance
from weather_tdr.rules import pressure_lags

SCORES = {
    "patches": ("", ["samples", "incidents", "base_rate", "average_precision", "roc_auc", "pod",
                     "far", "csi", "brier_skill", "threshold"]),
    "incidents": ("incident_", ["hits", "misses", "false_alarms", "pod", "far", "csi",
                                "mean_distance_km", "threshold"]),
    "storms": ("track_", ["hits", "misses", "false_alarms", "pod", "far", "csi"]),
}  # fmt: skip
Judged = Literal["patches", "incidents", "storms"]


class Results:
    """What a run folder holds. Everything is read when it is asked for; nothing is changed.

    Args:
        config: of the run.
    """

    def __init__(self, config: Config) -> None:
        self.config = config

    @property
    def folder(self) -> Path:
        """The run folder."""
        return self.config.folder

    @property
    def methods(self) -> list[str]:
        """Methods that have been trained, then networks of one's own."""
        of_run = [load_method(name).name for name in self.config.train.methods]
        found = [n for n in of_run if (self.folder / n / "model.json").is_file()]
        return [*found, *own_networks(self.folder)]

    def fields(self) -> xr.DataArray:
        """The fields, lazy: dims ``(time, variable, latitude, longitude)``, SI units."""
        return open_fields(**self.config.fields.arguments())

    def catalogue(self, at_fields: bool = False) -> pd.DataFrame:
        """The catalogue, with ``kind``: incident, hard_negative, background (not used), or unknown.

        Args:
            at_fields: only the entries that belong to a time of the fields, under that time.

        Raises:
            InputError: the incidents of the run come from no catalogue.
        """
        incidents = self.config.incidents
        if incidents.rule != "catalogue":
            raise InputError(
                f"`incidents.rule` must be `catalogue` to have a catalogue, got {incidents.rule}."
            )
        table = read_catalogue(incidents.catalogue)
        kinds = kinds_of(table, incidents, others="hard_negative")
        table = table.assign(kind=np.array([*GROUPS, "unknown"])[kinds])  # UNKNOWN is the last
        if not at_fields:
            return table
        times = pd.DatetimeIndex(self.fields()["time"].to_numpy())
        return at_times(table, times, incidents.match_time)

    @property
    def patches(self) -> xr.Dataset:
        """The patch store, lazy: ``patches (sample, variable, y, x)`` and values of each sample."""
        return open_store(self.folder / "patches.zarr")

    def samples(self, split: str = "") -> pd.DataFrame:
        """``time, latitude, longitude, split, group, label, incident_id``, a row a patch.

        Args:
            split: `train`, `target`, `validation` or `test`; all of them by default.

        Raises:
            InputError: there is no such split.
        """
        if split and split not in SPLITS[1:]:
            raise unknown_name("split", split, SPLITS[1:])
        store = self.patches
        names = np.array(meanings(store, "group"))
        table = pd.DataFrame({
            "time": store["time"].to_numpy(),
            "latitude": store["latitude"].to_numpy(),
            "longitude": store["longitude"].to_numpy(),
            "split": np.array(SPLITS)[store["split"].to_numpy()],
            "group": names[store["group"].to_numpy()],
            "label": store["label"].to_numpy(),
            "incident_id": store["incident_id"].to_numpy(),
        })  # fmt: skip
        kept = table["split"] == split if split else table["split"] != SPLITS[0]
        return table[kept].reset_index(drop=True)

    def counts(self) -> pd.DataFrame:
        """Number of patches: a row a split, a column a group."""
        table = pd.DataFrame(self.patches.attrs["counts"]).T.fillna(0).astype(int)
        return table.rename_axis(index="split", columns="group")

    def dropped(self) -> pd.DataFrame:
        """What was left out of the patch store, and why."""
        return dropped_table(self.patches)

    def examples(self, per_group: int = 6, split: str = "train") -> xr.Dataset:
        """Some patches of each group, in memory, spread over the period of a split.

        Args:
            per_group: how many of each.
            split: of which split.
        """
        store = self.patches
        names = np.array(meanings(store, "group"))
        in_split = store["split"].to_numpy() == SPLITS.index(split)
        chosen: list[int] = []
        for number in range(len(names)):
            own = np.flatnonzero(in_split & (store["group"].to_numpy() == number))
            places = np.linspace(0, len(own) - 1, min(per_group, len(own))).round().astype(int)
            chosen += own[places].tolist()
        examples = store.isel(sample=chosen).load()
        return examples.assign_coords(group_name=("sample", names[examples["group"].to_numpy()]))

    def split(self, name: str) -> Batch:
        """The normalised patches, labels and groups of a split, for `fit`."""
        return load_split(self.patches, name)

    @cached_property
    def groups(self) -> tuple[str, ...]:
        """Names of the groups, for `fit`."""
        return meanings(self.patches, "group")

    def history(self, method: str) -> pd.DataFrame:
        """The training: a row a logged step, losses and group weights."""
        return pd.read_csv(self._file(method, "history.csv", "train"))

    def histories(self) -> dict[str, pd.DataFrame]:
        """The history of each trained method."""
        kept = [m for m in self.methods if (self.folder / m / "history.csv").is_file()]
        return {method: self.history(method) for method in kept}

    def scores(self, of: Judged = "patches") -> pd.DataFrame:
        """Scores on test, a row a method or rule; thresholds come from validation.

        Args:
            of: `patches`; `incidents`, matched one to one; or `storms`, over all their times.

        Raises:
            InputError: no method has been evaluated.
        """
        if of not in SCORES:
            raise unknown_name("`of`:", of, SCORES)
        table = self._compared()
        prefix, names = SCORES[of]
        shown = {n: table[f"{prefix}{n}"] for n in names if f"{prefix}{n}" in table}
        counted = {"samples", "incidents", "hits", "misses", "false_alarms"}
        whole = {n: v.astype("Int64") for n, v in shown.items() if n in counted}
        return pd.DataFrame({"data": table["data"], **shown, **whole})

    def _comparison(self) -> pd.DataFrame:
        """The table of what has been evaluated; not of a network that was trained anew since."""
        path = self.folder / "comparison.csv"
        if not path.is_file():
            return pd.DataFrame()
        table = pd.read_csv(path, dtype={"commit": str}).set_index("method")
        return table[[(self.folder / m / "scores.json").is_file() for m in table.index]]

    def _compared(self) -> pd.DataFrame:
        """The same, of one method at least.

        Raises:
            InputError: there is none.
        """
        if (table := self._comparison()).empty:
            raise InputError(
                f"the run {self.folder} must have been evaluated, got no scores of any method. "
                "Call `run.evaluate()` first."
            )
        return table

    def performance(self) -> dict[str, dict[str, Performance]]:
        """Where methods and rules stand in the performance diagram, for `performance_figure`."""
        methods = list(self._compared().index)
        return performances(self.folder, methods, test_curves(self.folder, methods))

    def reliability(self, method: str) -> dict[str, pd.DataFrame]:
        """Observed frequency by probability on test, before and after calibration."""
        table = pd.read_csv(self._file(method, "reliability.csv", "evaluate"))
        groups = table.groupby("probabilities", sort=False)  # in the order of the diagram's colours
        return {str(k): t.drop(columns="probabilities") for k, t in groups}

    def incident_map(self, method: str) -> xr.Dataset:
        """``incident_probability (time, latitude, longitude)`` of the test period."""
        with xr.open_dataset(self._file(method, "incident_map.nc", "evaluate")) as found:
            return found.load()

    def incidents(self, method: str) -> pd.DataFrame:
        """The incidents found in the test period, a row each, with what they match."""
        return read_incidents(self._file(method, "incidents.csv", "evaluate"))

    def truth(self, method: str) -> pd.DataFrame:
        """The incidents that there are in the test period, and whether each is a ``hit``."""
        return read_incidents(self._file(method, "truth.csv", "evaluate"))

    def matching(self, method: str) -> pd.DataFrame:
        """Every hit, miss and false alarm of the test period in order of time, with its storm."""
        found, truth = self.incidents(method), self.truth(method)
        found = found.assign(outcome=np.where(found["matched"], "hit", "false alarm"))
        missed = truth[~truth["hit"].astype(bool)].assign(outcome="miss")
        columns = [
            "outcome", "time", "latitude", "longitude", "probability", "distance_km", "storm_id",
        ]  # fmt: skip
        parts = [part.reindex(columns=columns) for part in (found, missed) if len(part)]
        table = pd.concat(parts) if parts else pd.DataFrame(columns=columns)
        return table.sort_values(["time", "outcome"], ignore_index=True)

    def scene(self, method: str, time: Any = None) -> Scene:
        """One time of the incident map, with what was found and what there is.

        Args:
            method: whose.
            time: which; by default that of the strongest incident.
        """
        found, field = self.incidents(method), self.incident_map(method)["incident_probability"]
        if time is None:
            highest = field.max(["latitude", "longitude"]).idxmax("time").item()
            time = strongest(found)["time"] if len(found) else pd.Timestamp(highest)
        lags = pressure_lags(self.fields())
        pressure = None if lags is None else lags[0]
        return Scene.at(pd.Timestamp(time), field, found, pressure, self.truth(method))

    def _file(self, method: str, name: str, stage: str) -> Path:
        """A file of a method.

        Raises:
            InputError: there is no such method, or the file has not been made.
        """
        if not (self.folder / method).is_dir() or not method:
            raise unknown_name("method", method, self.methods)
        path = self.folder / method / name
        if not path.is_file() and method not in self.methods:
            raise InputError(f"`{method}` is a rule, which has no {name}. Ask for a method.")
        if not path.is_file():
            raise InputError(
                f"`{method}` must have {name}, got none in {path.parent}. "
                f"Call `run.{stage}()` first."
            )
        return path
