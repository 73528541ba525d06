"""Reads settings from YAML into dataclasses: keys and types checked, near names offered."""

import dataclasses
import re
import typing
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

import yaml
from jsonargparse import ArgumentParser

from data_pipelines.errors import InputError, unknown_name


class _Dataclass(Protocol):
    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[Any]]]


Kind = TypeVar("Kind", bound=_Dataclass)
# Keys that only the configurations of one kind have, and what to do with those.
OWN = (
    dict.fromkeys(("imbalances", "methods", "network", "run", "seeds"), "a benchmark: "
    "use `weather-tdr benchmark`")
    | dict.fromkeys(("fields", "incidents", "patches", "splits", "synthetic"), "a run: use "
    "`weather-tdr run`")
    | {"weighting": "a method: name it in `methods`"}
)  # fmt: skip
KINDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "text",
    "list": "a list",
    "dict": "keys and values",
}


def read_yaml(
    kind: type[Kind], path: Path | None, overrides: Sequence[str] = (), **given: str
) -> Kind:
    """Reads a configuration, checks its keys and types, and applies overrides.

    Args:
        kind: dataclass of the configuration.
        path: YAML file; None for the defaults.
        overrides: such as ``["--train.steps", "500"]``.
        given: values of keys that the file leaves out.

    Raises:
        InputError: no such file, no YAML, an unknown key or a value of the wrong type.
    """
    values = {} if path is None else _load(path)
    _refuse_other_kinds(values, kind, path)
    return _parsed(kind, given | values, path, overrides)


def read_changed(kind: type[Kind], path: Path | None, changes: Mapping[str, Any]) -> Kind:
    """Reads a configuration and puts values in place of its own, nested as in the file.

    Args:
        kind: dataclass of the configuration.
        path: YAML file; None for the defaults.
        changes: key -> value; a key that holds keys takes a mapping of those to change.

    Raises:
        InputError: as `read_yaml`.
    """
    values = {} if path is None else _load(path)
    _refuse_other_kinds(values, kind, path)
    check_keys(values, kind)
    return _parsed(kind, _merged(values, changes, kind), path)


def check_folder_name(name: str) -> None:
    """Refuses a `name` that would lead out of `output`, or be `output` itself.

    Raises:
        InputError: it is no name of a folder.
    """
    if Path(name).name != name or name in ("", ".", ".."):
        raise InputError(
            f"`name` must be the name of a folder to make in `output`, got `{name}`. "
            "Put the path into `output`."
        )


def named(source: str | Path, folder: Path) -> Path:
    """A configuration by its path, or by its name in a folder.

    Raises:
        InputError: there is neither.
    """
    path = Path(source).expanduser()
    if path.suffix in (".yaml", ".yml") or path.is_file():
        return path
    if not (folder / f"{source}.yaml").is_file():
        known = [p.stem for p in folder.glob("*.yaml")]
        others = (folder.parent, folder / "benchmarks", folder / "methods")
        if place := next((f for f in others if (f / f"{source}.yaml").is_file()), None):
            _refuse_other_kinds(_load(place / f"{source}.yaml"), None, place / f"{source}.yaml")
        raise unknown_name("configuration", str(source), known, " Or give the path of a YAML file.")
    return folder / f"{source}.yaml"


def _refuse_other_kinds(values: Mapping[str, Any], kind: Any, path: Path | None) -> None:
    """Refuses the configuration of something else, and says of what."""
    hints = typing.get_type_hints(kind) if kind is not None else {}
    for key in values:
        if key in OWN and key not in hints:
            raise InputError(f"{path} is the configuration of {OWN[key]}.")


def _merged(values: Mapping[str, Any], changes: Mapping[str, Any], kind: Any) -> dict[str, Any]:
    """The values with the changes; only keys that hold keys are merged."""
    hints = typing.get_type_hints(kind)
    merged = dict(values)
    for key, value in changes.items():
        inner = hints.get(key)
        if dataclasses.is_dataclass(inner) and isinstance(value, Mapping):
            merged[key] = _merged(merged.get(key) or {}, value, inner)
        elif dataclasses.is_dataclass(value) and not isinstance(value, type):
            merged[key] = dataclasses.asdict(value)
        else:
            merged[key] = _plain(value)
    return merged


def _plain(value: Any) -> Any:
    """What YAML could have said: paths are texts, tuples are lists."""
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value


def _parsed(
    kind: type[Kind], values: dict[str, Any], path: Path | None, overrides: Sequence[str] = ()
) -> Kind:
    check_keys(values, kind)
    for key in overrides:
        if key.startswith("--"):
            _check_override(kind, key[2:].split("=")[0])
    parser = _parser(kind)
    try:
        parsed = parser.parse_object(values)
        if overrides:
            parsed = parser.parse_args(list(overrides), namespace=parsed)
        made = parser.instantiate(parsed)
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
        raise InputError(f"{where}: {_in_our_words(error)}") from error


@cache
def _parser(kind: type[_Dataclass]) -> ArgumentParser:
    """Checks types and reads overrides; to make it takes as long as to use it."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(kind, None)
    return parser


def _in_our_words(error: Exception) -> str:
    """What the parser says, with the names that people know."""
    text = " ".join(str(error).split())
    if wrong := re.search(r'key "([^"]+)": Expected an? (.+?)\. Got value: (.*)$', text):
        key, kind, value = wrong.groups()
        if choices := re.search(r"Literal\[(.*)\]", kind):
            known = [c.strip(" '") for c in choices[1].split(",")]
            return f"`{key}`: {unknown_name('choice', value, known)}"
        plain = re.sub(r"<class '(\w+)'>", r"\1", kind)
        fix = (
            f" Write [{value}]; several as [{value},...]."
            if plain == "list" and "[" not in value
            else ""
        )
        return f"`{key}` must be {KINDS.get(plain, plain)}, got {value or 'nothing'}.{fix}"
    if lacks := re.search(r"argument (--\S+): expected one argument", text):
        return f"`{lacks[1]}` needs a value, got none. Write {lacks[1]}=VALUE."
    if odd := re.search(r"unrecognized arguments: (.*)$", text):
        return f"`{odd[1]}` is no override. Write --KEY=VALUE, such as --train.steps=500."
    return text


class _NoRepeats(yaml.SafeLoader):
    """Safe, and refuses a key that stands twice, where YAML would take the last one."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Keys and values of a block."""
        seen: set[str] = set()
        for key, _ in node.value:
            if str(key.value) in seen:
                raise InputError(
                    f"{node.start_mark.name}: key `{key.value}` must stand once in its block, got "
                    f"it again in line {key.start_mark.line + 1}. Delete one of them."
                )
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)


def _load(path: Path) -> dict[str, Any]:
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise InputError(f"CONFIG must be a YAML file, got {path}, which {what}.")
    try:
        with path.open() as text:
            values = yaml.load(text, _NoRepeats) or {}
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
            inner = [
                f"`{done}{k}.{part}`"
                for k, v in hints.items()
                if dataclasses.is_dataclass(v) and part in typing.get_type_hints(v)
            ]
            fix = f" Or is it {' or '.join(inner)}?" if inner else ""
            raise unknown_name("key", key, [done + v for v in hints], fix)
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
        optional = type(None) in typing.get_args(inner) or dataclasses.is_dataclass(inner)
        if value is None and not optional:
            raise InputError(
                f"`{prefix}{key}` must have a value, got none. Give one, or delete the line for "
                "the default."
            )
        if dataclasses.is_dataclass(inner):
            if not isinstance(value, dict):
                raise InputError(
                    f"`{prefix}{key}` must hold keys and values, got {value!r}. There is: "
                    f"{', '.join(f.name for f in dataclasses.fields(inner))}."
                )
            check_keys(value, typing.cast(type, inner), f"{prefix}{key}.")
