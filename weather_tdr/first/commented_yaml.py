"""A configuration as commented YAML: each key with its value and the reason for it."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import yaml

WIDTH = 96
ON_ONE_LINE = 3  # a longer list of files is written one a line


@dataclass(frozen=True)
class Key:
    """A key of a configuration.

    Attributes:
        name: such as ``fields.paths``.
        value: what YAML can hold.
        why: what it means, what was found, why this value.
    """

    name: str
    value: Any
    why: str


def commented_yaml(head: str, keys: Sequence[Key]) -> str:
    """The text of a configuration.

    Args:
        head: comment at the beginning; its line breaks are kept.
        keys: keys of one section together, in order.
    """
    lines = [f"# {line}".rstrip() for line in head.splitlines()]
    section = ""
    for key in keys:
        place, _, name = key.name.rpartition(".")
        if place != section or not place:
            lines.append("")
            if place:
                lines.append(f"{place}:")
        section = place
        indent = "  " if place else ""
        lines += [f"{indent}# {line}" for line in textwrap.wrap(key.why, WIDTH - len(indent))]
        if isinstance(key.value, list) and len(key.value) > ON_ONE_LINE and name == "paths":
            lines.append(f"{indent}{name}:")
            lines += [f"{indent}  - {_flow(value)}" for value in key.value]
        else:
            lines.append(f"{indent}{name}: {_flow(key.value)}")
    return "\n".join(lines) + "\n"


def _flow(value: Any) -> str:
    text = yaml.safe_dump(
        value, default_flow_style=True, width=float("inf"), allow_unicode=True, sort_keys=False
    )
    return text.removesuffix("\n").removesuffix("\n...")
