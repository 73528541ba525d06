"""docs/configuration.md, made from the dataclasses: ``python tests/configuration_reference.py``."""

import dataclasses
import itertools
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import yaml
from docstring_parser import parse

from weather_tdr import configs_folder
from weather_tdr.benchmark_settings import Benchmark
from weather_tdr.config import Config
from weather_tdr.cost_benchmark import CostBenchmark
from weather_tdr.map_benchmark import MapBenchmark
from weather_tdr.methods.method import Method, load_method, names
from weather_tdr.pipeline_benchmark import PipelineBenchmark
from weather_tdr.training_benchmark import TrainingBenchmark

PAGE = Path(__file__).parents[1] / "docs" / "configuration.md"
START = """# Configuration reference

<!-- Made from the code by `make reference`; do not edit. -->

A configuration is a YAML file. What it leaves out has its default; an unknown key is an error that
names the near ones. Each key can be given on the command line too, with its path:
`--train.steps 500`. Durations are texts such as `6h` or `2d`, intervals of time
`2001-01-01/2005-12-31`, both days included.
"""
PARTS: dict[str, tuple[str, Any]] = {
    "A run": (
        "For `weather-tdr build`, `train`, `run` and, with the defaults of `configs/demo.yaml`, "
        "`demo`.",
        Config(),
    ),
    "A benchmark": (
        "For `weather-tdr benchmark CONFIG`; `configs/benchmarks/` has examples.",
        Benchmark(),
    ),
    "A method": (
        "A file of its own, `configs/methods/NAME.yaml` or one of yours, that `train.methods` "
        "or `methods` names.",
        Method("NAME"),
    ),
    "Speed: cost": ("For `weather-tdr benchmark cost`, as overrides.", CostBenchmark()),
    "Speed: pipelines": (
        "For `weather-tdr benchmark pipelines`, as overrides.",
        PipelineBenchmark(),
    ),
    "Speed: training": ("For `weather-tdr benchmark training`, as overrides.", TrainingBenchmark()),
    "Speed: maps": ("For `weather-tdr benchmark maps`, as overrides.", MapBenchmark()),
}


@dataclasses.dataclass
class Section:
    """A dataclass that has a table of its own.

    Attributes:
        path: of its keys in a configuration.
        settings: with the defaults told there.
    """

    path: str
    settings: Any


def page() -> str:
    """The whole page."""
    lines: list[str] = [START]
    sections: dict[type, Section] = {}
    for title, (text, settings) in PARTS.items():
        nested = dict(_nested(settings))
        new = {p: inner for p, inner in nested.items() if type(inner) not in sections}
        sections |= {type(inner): Section(p, inner) for p, inner in new.items()}
        lines += [f"## {title}", "", text, "", *_table(settings, sections), ""]
        for path, inner in new.items():
            about = parse(type(inner).__doc__ or "").short_description
            lines += [f"### `{path}`", "", str(about), "", *_table(inner, sections), ""]
        if isinstance(settings, Method):
            lines += [*_shipped(), ""]
    return "\n".join(lines).rstrip() + "\n"


def _nested(settings: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Sections with their paths, each before those inside it."""
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if dataclasses.is_dataclass(value):
            path = f"{prefix}{field.name}"
            yield path, value
            yield from _nested(value, f"{path}.")


def _table(settings: Any, sections: dict[type, Section]) -> list[str]:
    kind = type(settings)
    hints = typing.get_type_hints(kind)
    texts = {p.arg_name: " ".join(str(p.description).split()) for p in parse(kind.__doc__).params}
    rows = ["| key | type | default | meaning |", "|---|---|---|---|"]
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if dataclasses.is_dataclass(value):
            default = _link(value, sections[type(value)])
        else:
            default = f"`{_yaml(value)}`"
        cells = (f"`{field.name}`", _type(hints[field.name]), default, texts[field.name])
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return rows


def _link(value: Any, section: Section) -> str:
    """Where the keys are told, and the defaults that differ from those told there."""
    link = f"[`{section.path}`](#{section.path.replace('.', '')})"
    told = dataclasses.asdict(section.settings)
    other = {k: v for k, v in dataclasses.asdict(value).items() if told[k] != v}
    return f"{link}, with `{_yaml(other)}`" if other else link


def _shipped() -> list[str]:
    """The methods that come with the package, in the words of their files."""
    rows = ["### Methods that come with the package", ""]
    rows += ["| method | data | what it is |", "|---|---|---|"]
    for name in names():
        text = (configs_folder() / "methods" / f"{name}.yaml").read_text()
        said = itertools.takewhile(lambda line: line.startswith("# "), text.splitlines())
        about = " ".join(line[2:] for line in said)
        rows.append(f"| `{name}` | {load_method(name).data} | {about} |")
    return rows


def _yaml(value: Any) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, width=1000)
    return text.removesuffix("...\n").strip().replace("''", '""')


def _type(hint: Any) -> str:
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return ", ".join(f"`{choice}`" for choice in inner)
    if dataclasses.is_dataclass(hint):
        return "section"
    if origin is list:
        return f"list of {_type(inner[0])}"
    if origin is dict:
        return f"name -> {_type(inner[1])}"
    names = {str: "text", int: "integer", float: "number", bool: "`true`, `false`", Any: "value"}
    return names[hint]


if __name__ == "__main__":
    PAGE.write_text(page())
