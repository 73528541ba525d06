"""The configuration of a run: read from YAML, checked key by key, overridden, written resolved."""

import dataclasses
import typing
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

import yaml
from jsonargparse import ArgumentParser

from data_pipelines.build import Fields, Incidents, Patches, Splits
from data_pipelines.errors import InputError, unknown_name
from data_pipelines.synthetic import Synthetic
from weather_tdr.checkpoints import write_atomically
from weather_tdr.maps import Maps
from weather_tdr.train import Train


class _Dataclass(Protocol):
    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[Any]]]


Kind = TypeVar("Kind", bound=_Dataclass)


@dataclass
class Config:
    """A run.

    Attributes:
        name: the run folder is OUTPUT/NAME.
        output: folder of all runs.
        seed: of background, target set and synthetic fields.
        synthetic: with `days` above 0, makes synthetic fields and catalogue and uses them.
        fields: which fields.
        incidents: which incidents.
        patches: how to cut.
        splits: how to split.
        train: how to train.
        maps: how to draw and match maps.
    """

    name: str = "run"
    output: str = "runs"
    seed: int = 0
    synthetic: Synthetic = field(default_factory=lambda: Synthetic(days=0))
    fields: Fields = field(default_factory=Fields)
    incidents: Incidents = field(default_factory=Incidents)
    patches: Patches = field(default_factory=Patches)
    splits: Splits = field(default_factory=Splits)
    train: Train = field(default_factory=Train)
    maps: Maps = field(default_factory=Maps)

    def __post_init__(self) -> None:
        """Checks the name.

        Raises:
            InputError: the name is no name of a folder.
        """
        if Path(self.name).name != self.name or self.name in ("", ".", ".."):
            raise InputError(
                f"`name` must be the name of a folder to make in `output`, got `{self.name}`. "
                "Put the path into `output`."
            )
        if self.seed < 0:
            raise InputError(f"`seed` must not be negative, got {self.seed}.")

    @property
    def folder(self) -> Path:
        """The run folder."""
        return Path(self.output).expanduser() / self.name

    def use_synthetic(self) -> None:
        """Points `fields` and `incidents` at the synthetic files of the run, if it has any."""
        if self.synthetic.days > 0:
            folder = self.folder / "synthetic"
            self.fields.paths = [str(folder / "fields.nc")]
            self.incidents.catalogue = str(folder / "catalogue.csv")


def save_config(config: Config) -> None:
    """Writes the resolved configuration, with absolute paths, into the run folder."""
    config.folder.mkdir(parents=True, exist_ok=True)
    values = asdict(config)
    values["fields"]["paths"] = [_absolute(p) for p in config.fields.paths]
    values["incidents"]["catalogue"] = _absolute(config.incidents.catalogue)
    text = yaml.safe_dump(values, sort_keys=False)
    write_atomically(config.folder / "config.yaml", text)


def _absolute(path: str) -> str:
    return str(Path(path).expanduser().resolve()) if path else path


def load_config(folder: Path) -> Config:
    """The configuration of the run that a method's folder belongs to.

    The run is where it is found, so that a run folder can be moved.

    Raises:
        InputError: the folder does not lie in a run folder.
    """
    folder = folder.resolve()
    path = folder.parent / "config.yaml"
    if not path.is_file():
        inside = sorted(str(p.parent) for p in folder.glob("*/model.json"))
        hint = f" There is: {', '.join(inside)}." if inside else ""
        raise InputError(
            f"RUN must be the folder of a method in a run, runs/NAME/METHOD, got {folder} "
            f"without config.yaml above it.{hint}"
        )
    run = path.parent
    config = dataclasses.replace(read_config(path), name=run.name, output=str(run.parent))
    config.use_synthetic()
    return config


def read_config(path: Path, overrides: Sequence[str] = ()) -> Config:
    """Reads the configuration of a run; see `read_yaml`."""
    return read_yaml(Config, path, overrides)


def read_yaml(kind: type[Kind], path: Path | None, overrides: Sequence[str] = ()) -> Kind:
    """Reads a configuration, checks its keys and types, and applies overrides.

    Args:
        kind: dataclass of the configuration.
        path: YAML file; None for the defaults.
        overrides: such as ``["--train.steps", "500"]``.

    Raises:
        InputError: no such file, no YAML, an unknown key or a value of the wrong type.
    """
    values = {} if path is None else _load(path)
    check_keys(values, kind)
    for key in overrides:
        if key.startswith("--"):
            _check_override(kind, key[2:].split("=")[0])
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(kind, None)
    try:
        given = parser.parse_args(list(overrides), namespace=parser.parse_object(values))
        made = parser.instantiate(given)
        return kind(**{f.name: getattr(made, f.name) for f in dataclasses.fields(kind)})
    except InputError:
        raise
    except Exception as error:
        # The parser wraps what our own checks say; theirs is the better text.
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, InputError):
            cause = cause.__cause__ or cause.__context__
        if cause is not None:
            raise cause from None
        where = " ".join(map(str, [path or "", *overrides])).strip()
        raise InputError(f"{where}: {' '.join(str(error).split())}") from error


def _load(path: Path) -> dict[str, Any]:
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise InputError(f"CONFIG must be a YAML file, got {path}, which {what}.")
    try:
        values = yaml.safe_load(path.read_text()) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is no YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise InputError(f"{path} must hold keys and values, got {type(values).__name__}.")
    return values


def _check_override(kind: Any, key: str) -> None:
    """Refuses an override of a key that does not exist, with the near ones."""
    done = ""
    for part in key.split("."):
        hints = typing.get_type_hints(kind) if dataclasses.is_dataclass(kind) else {}
        if part not in hints:
            raise unknown_name("key", key, [done + v for v in hints])
        kind, done = hints[part], f"{done}{part}."
    if dataclasses.is_dataclass(kind):
        inside = ", ".join(f.name for f in dataclasses.fields(kind))
        raise InputError(f"`{key}` must be overridden key by key. There is: {inside}.")


def check_keys(values: dict[str, Any], kind: type, prefix: str = "") -> None:
    """Refuses keys that the dataclass does not have, with the near ones."""
    hints = typing.get_type_hints(kind)
    valid = {f.name: hints[f.name] for f in dataclasses.fields(kind)}
    for key, value in values.items():
        if key not in valid:
            raise unknown_name("key", f"{prefix}{key}", [f"{prefix}{v}" for v in valid])
        inner = valid[key]
        if dataclasses.is_dataclass(inner):
            if not isinstance(value, dict):
                raise InputError(
                    f"`{prefix}{key}` must hold keys and values, got {value!r}. There is: "
                    f"{', '.join(f.name for f in dataclasses.fields(inner))}."
                )
            check_keys(value, typing.cast(type, inner), f"{prefix}{key}.")
