"""The command line: `weather-tdr COMMAND ...`. Exit codes: 0 done, 2 bad input, 1 anything else."""

import argparse
import dataclasses
import logging
import sys
import typing
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from data_pipelines.errors import InputError, unknown_name

CONFIG_COMMANDS = {
    "build": "cut the fields of CONFIG into the patch store",
    "train": "train the methods of CONFIG on its patch store",
    "run": "build, train, evaluate and map: the whole line",
}
FLAGS = ("--resume", "--quiet")


def main(argv: Sequence[str] | None = None) -> None:
    """Runs one command and exits."""
    try:
        _dispatch(list(sys.argv[1:] if argv is None else argv))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted; `--resume` goes on from the last checkpoint", file=sys.stderr)
        sys.exit(1)


def _dispatch(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="weather-tdr",
        description="Finds rare, critical weather incidents in gridded reanalysis.",
    )
    parser.add_argument("--version", action="version", version=version("weather-tdr"))
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, text in CONFIG_COMMANDS.items():
        sub = commands.add_parser(name, help=text, description=f"{text.capitalize()}.")
        sub.add_argument("config", metavar="CONFIG", help="YAML file; see configs/")
        _common(sub, resume=name != "build")
        sub.epilog = "Any key of CONFIG can be overridden: --train.steps 500 --name other"
    sub = commands.add_parser("demo", help="the whole line on synthetic fields, in minutes")
    _common(sub, resume=False)
    sub.epilog = "Any key of configs/demo.yaml can be overridden: --output elsewhere"
    sub = commands.add_parser("evaluate", help="threshold, scores and maps of a trained method")
    sub.add_argument("run", metavar="RUN", help="folder of the method: runs/NAME/METHOD")
    _common(sub, resume=False)
    sub = commands.add_parser("map", help="incident map of new fields")
    sub.add_argument("run", metavar="RUN", help="folder of the method: runs/NAME/METHOD")
    sub.add_argument("fields", metavar="FIELDS", nargs="+", help="NetCDF files or a Zarr store")
    sub.add_argument("--output", type=Path, help="folder for the results; default RUN/maps/FILE")
    sub.add_argument("--resolution", choices=("grid", "stride"), default="grid")
    _common(sub, resume=False)
    arguments, overrides = parser.parse_known_args(argv)
    takes_overrides = arguments.command in (*CONFIG_COMMANDS, "demo")
    if overrides and not takes_overrides:
        parser.error(f"unrecognized arguments: {' '.join(overrides)}")
    logging.basicConfig(
        level=logging.WARNING if arguments.quiet else logging.INFO, format="%(message)s"
    )
    # Everything heavy is imported only now: --help and typing errors answer at once.
    from weather_tdr import run

    progress = not arguments.quiet and sys.stderr.isatty()
    if arguments.command == "map":
        folder = run.map_fields(
            Path(arguments.run),
            arguments.fields,
            arguments.output,
            run.Maps(resolution=arguments.resolution),
            progress=progress,
        )
        _tell(folder)
    elif arguments.command == "evaluate":
        folder = Path(arguments.run)
        table = run.evaluate_all(run.load_config(folder), folders=[folder], progress=progress)
        print(_show(table))
        _tell(folder)
    else:
        path = demo_config() if arguments.command == "demo" else Path(arguments.config)
        config = read_config(path, overrides)
        if arguments.command == "build":
            run.build(config, progress=progress)
        elif arguments.command == "train":
            run.train_all(config, resume=arguments.resume, progress=progress)
        else:
            resume = getattr(arguments, "resume", False)
            print(_show(run.run(config, resume=resume, progress=progress)))
        _tell(config.folder)


def _common(parser: argparse.ArgumentParser, *, resume: bool) -> None:
    if resume:
        parser.add_argument(
            "--resume", action="store_true", help="go on from the last checkpoints"
        )
    parser.add_argument("--quiet", action="store_true", help="print results and errors only")


def _show(table: Any) -> str:
    columns = {
        "method": "method",
        "average_precision": "AP",
        "average_precision_low": "AP low",
        "average_precision_high": "AP high",
        "average_precision_over_base_rate": "AP / base rate",
        "roc_auc": "ROC AUC",
        "pod": "POD",
        "far": "FAR",
        "csi": "CSI",
    }
    shown = table[list(columns)].rename(columns=columns)
    return str(shown.to_string(index=False, float_format=lambda v: f"{v:.3f}"))


def _tell(folder: Path) -> None:
    """Says what lies where; pictures last."""
    notes = {
        "patches.zarr": "patches",
        "comparison.csv": "scores of all methods",
        "scores.json": "scores",
        "incident_map.nc": "incident map",
        "incidents.csv": "incident table",
        "figures/precision_recall.png": "precision and recall",
    }
    for pattern in ("", "*/"):
        for name, note in notes.items():
            for path in sorted(folder.glob(pattern + name)):
                print(f"{note:22} {path}")
    for path in sorted(folder.glob("**/incident_1.png")):
        print(f"{'incident map, picture':22} {path}")


def demo_config() -> Path:
    """configs/demo.yaml, in a checkout or in an installed package."""
    here = Path(__file__).parent
    for folder in (here / "configs", here.parent / "configs"):
        if (folder / "demo.yaml").is_file():
            return folder / "demo.yaml"
    raise FileNotFoundError("configs/demo.yaml is missing from the installation")


def read_config(path: Path, overrides: Sequence[str] = ()) -> Any:
    """Reads a configuration, checks its keys and types, and applies overrides.

    Args:
        path: YAML file.
        overrides: such as ``["--train.steps", "500"]``.

    Returns:
        `weather_tdr.run.Config`.

    Raises:
        InputError: no such file, no YAML, an unknown key or a value of the wrong type.
    """
    from jsonargparse import ArgumentParser

    from weather_tdr.run import Config

    if not path.is_file():
        raise InputError(f"CONFIG must be a YAML file, got {path}, which does not exist.")
    try:
        values = yaml.safe_load(path.read_text()) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is no YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise InputError(f"{path} must hold keys and values, got {type(values).__name__}.")
    check_keys(values, Config, "")
    for key in overrides:
        if key.startswith("--"):
            check_keys(_nested(key[2:].split("=")[0]), Config, "")
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(Config, None)
    try:
        given = parser.parse_args(list(overrides), namespace=parser.parse_object(values))
        config = parser.instantiate_classes(given)
    except InputError:
        raise
    except Exception as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, InputError):
            cause = cause.__cause__ or cause.__context__
        if cause is not None:
            raise cause from None
        raise InputError(f"{path}: {' '.join(str(error).split())}") from error
    return Config(**{f.name: getattr(config, f.name) for f in dataclasses.fields(Config)})


def _nested(key: str) -> dict[str, Any]:
    head, _, rest = key.partition(".")
    return {head: _nested(rest) if rest else None}


def check_keys(values: dict[str, Any], kind: type, prefix: str) -> None:
    """Refuses keys that the dataclass does not have, with the near ones."""
    hints = typing.get_type_hints(kind)
    valid = {f.name: hints[f.name] for f in dataclasses.fields(kind)}
    for key, value in values.items():
        if key not in valid:
            raise unknown_name("key", f"{prefix}{key}", [f"{prefix}{v}" for v in valid])
        inner = valid[key]
        if dataclasses.is_dataclass(inner) and isinstance(value, dict):
            check_keys(value, typing.cast(type, inner), f"{prefix}{key}.")
