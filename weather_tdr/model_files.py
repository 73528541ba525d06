"""A trained detector on disk: `model.safetensors` for the network, `model.json` for the rest."""

import json
import math
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from data_pipelines.errors import InputError
from data_pipelines.schema import canonical_name
from data_pipelines.units import si_units
from data_pipelines.writing import no_nan, write_atomically
from weather_tdr.calibration import Calibration
from weather_tdr.checkpoints import digest_of, load_checkpoint, save_checkpoint
from weather_tdr.models import PatchNet


@dataclass
class Detector:
    """A network and all that it needs to read fields.

    Attributes:
        model: the network.
        architecture: arguments of PatchNet.
        variables: ``variable, units, standard_name, base_variable, lag``, a list each; ``level``
            too, but in older models.
        hemisphere_sign: variables multiplied by the sign of latitude.
        grid: ``size, stride, dlat, dlon``; of images only the first two; of whole fields also
            ``whole_field, north, west``.
        mean: of each variable over the training dates, in its units.
        std: the same.
        method: how it was trained.
        threshold: calibrated probability from which on a patch is an incident; NaN before
            evaluation.
        incident_threshold: of the incidents in a map, the same.
        calibration: from log-odds of the network to probability, fitted on validation.
        areas: incidents are areas (heat waves), not points of a catalogue.
        facts: scores, version and the like.
    """

    model: PatchNet
    architecture: dict[str, Any]
    variables: dict[str, list[str]]
    hemisphere_sign: list[str]
    grid: dict[str, Any]
    mean: list[float]
    std: list[float]
    method: str
    threshold: float = math.nan
    incident_threshold: float = math.nan
    calibration: Calibration = field(default_factory=Calibration)
    areas: bool = False
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def whole_field(self) -> bool:
        """Whether the network looks at whole fields, of one region."""
        return bool(self.grid.get("whole_field"))

    def normalise(self, values: np.ndarray) -> Tensor:
        """(x - mean) / std along axis 1."""
        shape = (1, -1, 1, 1)
        scaled = (values - np.reshape(self.mean, shape)) / np.reshape(self.std, shape)
        return torch.from_numpy(scaled.astype(np.float32))

    def open_arguments(self) -> dict[str, Any]:
        """What `open_fields` needs to read the same variables from another file."""
        base = self.variables["base_variable"]
        order = list(dict.fromkeys(base))
        standard = dict(zip(base, self.variables["standard_name"], strict=True))
        lags = list(dict.fromkeys(self.variables["lag"]))
        return {
            "variables": order,
            "lags": lags,
            "hemisphere_sign": self.hemisphere_sign,
            "standard_names": [standard[v] for v in order],
        }

    def check_fields(self, fields: xr.DataArray) -> None:
        """Refuses fields that differ from those of training.

        Raises:
            InputError: variables, lags, units, standard names, levels or grid spacing differ.
        """
        names, held = self.variables["variable"], [str(v) for v in fields["variable"].values]
        if names != held:
            lacks = [n for n in names if n not in held]
            more = [n for n in held if n not in names]
            how = [f"without {', '.join(lacks)}"] if lacks else []
            how += [f"with {', '.join(more)} besides"] if more else []
            raise InputError(
                f"the fields must hold the variables and lags of training, {', '.join(names)}, got "
                f"them {' and '.join(how) or 'in another order'}. Open them by "
                "`open_fields(paths, **detector.open_arguments())`."
            )
        self._check_variables(fields)
        for axis, key in (("latitude", "dlat"), ("longitude", "dlon")):
            values = fields[axis].to_numpy().astype(float)
            spacing = abs(values[-1] - values[0]) / (len(values) - 1)
            if abs(spacing - self.grid[key]) > 0.01 * self.grid[key]:
                raise InputError(
                    f"`{axis}` must have a spacing of {self.grid[key]:g} degrees as in training, "
                    f"got {spacing:g}. Regrid the fields first."
                )
        if self.whole_field:
            region = [fields[axis].to_numpy() for axis in ("latitude", "longitude")]
            trained = (*self.grid["size"], self.grid["north"], self.grid["west"])
            given = (*map(len, region), *(float(axis[0]) for axis in region))
            if not np.allclose(trained, given, atol=1e-3):
                text = "{} x {} points from {:g} north, {:g} east on"
                raise InputError(
                    f"the fields must cover the region of training, {text.format(*trained)}, got "
                    f"{text.format(*given)}. Select that region first."
                )

    def _check_variables(self, fields: xr.DataArray) -> None:
        """Units, standard names and levels; the last two only where both are known."""
        names = self.variables["variable"]
        for key, fix in (
            ("units", "Convert it first"),
            ("standard_name", "Rename or select it"),
            ("level", "Select that level; if both mean the same, drop the coordinate of the level"),
        ):
            if key == "level" and (key not in self.variables or key not in fields.coords):
                continue
            pairs = zip(names, self.variables[key], fields[key].values, strict=True)
            for name, wanted, got in pairs:
                if key == "units":
                    si, *change = si_units(wanted)
                    if si == got and change != [1.0, 0.0]:
                        raise InputError(
                            f"variable `{name}` must have the units `{wanted}` as in training, by "
                            f"an older release, got `{got}`, in which they are read now. Build "
                            "the patch store again and train again."
                        )
                    same = si == got
                else:
                    same = not (wanted and got) or canonical_name(wanted) == canonical_name(got)
                if not same:
                    raise InputError(
                        f"variable `{name}` must have the {key} `{wanted}` as in training, got "
                        f"`{got}`. {fix}."
                    )


def save_detector(detector: Detector, folder: Path) -> None:
    """Writes `model.safetensors` and `model.json`."""
    save_checkpoint(folder / "model.safetensors", dict(detector.model.state_dict()), {})
    save_facts(detector, folder)


def save_facts(detector: Detector, folder: Path) -> None:
    """Writes `model.json` only, with the checksum of the network that it tells of."""
    facts = {k: v for k, v in vars(detector).items() if k != "model"}
    facts["network"] = digest_of(dict(detector.model.state_dict()))
    facts["calibration"] = vars(detector.calibration)
    write_atomically(folder / "model.json", json.dumps(no_nan(facts), indent=2) + "\n")


def load_detector(folder: str | Path) -> Detector:
    """Reads a trained detector.

    Raises:
        InputError: the folder holds none.
    """
    folder = Path(folder)
    path = folder / "model.json"
    if not path.is_file():
        raise InputError(
            f"RUN must be the folder of a trained method such as runs/NAME/uniform, got {folder} "
            f"without model.json.{_nearby(folder)}"
        )
    try:
        facts = json.loads(path.read_text())
        model = PatchNet(**facts["architecture"])
        tensors, _ = load_checkpoint(folder / "model.safetensors")
        if facts.pop("network", None) not in (None, digest_of(tensors)):  # None in older releases
            raise InputError(
                f"model.json in {folder} is of another network than model.safetensors, as where "
                "training was stopped between the two. Train with --resume."
            )
        model.load_state_dict(tensors)
        model.eval()
        if facts["threshold"] is None:
            facts["threshold"] = math.nan
        if facts.get("incident_threshold") is None:  # not evaluated, or by an older release
            facts["incident_threshold"] = math.nan
        facts["calibration"] = Calibration.from_facts(facts.get("calibration"))
        return Detector(model=model, **facts)
    except (ValueError, KeyError, TypeError, RuntimeError) as error:
        if isinstance(error, InputError):
            raise
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"the model in {folder} is damaged ({first}). Train again.") from error


def _nearby(folder: Path) -> str:
    inside = sorted(str(p.parent) for p in folder.glob("*/model.json")) if folder.is_dir() else []
    return f" There is: {', '.join(inside)}." if inside else ""


def detector_from_store(
    model: PatchNet, architecture: dict[str, Any], store: xr.Dataset, method: str
) -> Detector:
    """The detector of a network trained on a patch store."""
    return Detector(
        model=model,
        architecture=architecture,
        variables=dict(store.attrs["variables"]),
        hemisphere_sign=list(store.attrs["settings"].get("fields", {}).get("hemisphere_sign", [])),
        grid={
            k: store.attrs["grid"][k]
            for k in ("size", "stride", "dlat", "dlon", "whole_field", "north", "west")
            if k in store.attrs["grid"]
        },
        mean=[float(v) for v in store["mean"].to_numpy()],
        std=[float(v) for v in store["std"].to_numpy()],
        method=method,
    )


def commit() -> str:
    """The commit of the code, or an empty text outside its own repository."""
    ours = Path(__file__).resolve().parents[1]

    def git(*arguments: str) -> str:
        found = subprocess.run(
            ["git", *arguments], cwd=ours, capture_output=True, text=True, timeout=10, check=True
        )
        return found.stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")) != ours:  # it is installed inside another one
            return ""
        return git("describe", "--always", "--dirty")
    except (OSError, subprocess.SubprocessError):
        return ""
