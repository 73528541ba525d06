"""The errors that a user can mend: bad input or configuration."""

import difflib
from collections.abc import Iterable
from numbers import Integral, Real
from typing import Any, Literal, get_args, get_origin, get_type_hints


class InputError(ValueError):
    """Bad input or configuration. One line: the thing, what is wrong, the value, the fix."""


class RankLost(RuntimeError):
    """Of several processes that work together, another one has died."""


class NotResumable(InputError):
    """The checkpoints of a training are damaged, or of another one."""


class Diverged(InputError):
    """A loss is no longer finite."""


def check_kinds(settings: Any, prefix: str = "") -> None:
    """Refuses values that are none of what the fields of a dataclass say; numpy's become plain.

    Args:
        settings: the dataclass; fields of numbers, truth values and of given words are looked at.
        prefix: of the fields' names in errors, such as ``train.``.

    Raises:
        InputError: names the field, its value and what there is.
    """
    for name, kind in get_type_hints(type(settings)).items():
        value = getattr(settings, name)
        if type(value).__module__ == "numpy" and getattr(value, "ndim", 1) == 0:
            value = value.item()  # the plain number, which can be written as JSON
            object.__setattr__(settings, name, value)
        if get_origin(kind) is Literal:
            if value not in get_args(kind):
                raise unknown_name(f"`{prefix}{name}`:", str(value), get_args(kind))
        elif kind in NUMBERS:
            wanted, words = NUMBERS[kind]
            mixed = isinstance(value, bool) is not (kind is bool)
            if mixed or not isinstance(value, wanted) or value != value:
                raise InputError(f"`{prefix}{name}` must be {words}, got {value!r}.")


NUMBERS: dict[Any, tuple[type, str]] = {
    int: (Integral, "a whole number"),
    float: (Real, "a number"),
    bool: (bool, "true or false"),
}


def unknown_name(what: str, name: str, valid: Iterable[str], fix: str = "") -> InputError:
    """An error for `name` that is not among `valid`, with near names first.

    Args:
        what: the kind of thing, such as ``variable`` or ``key``.
        name: what was asked for.
        valid: what there is.
        fix: a further hint.
    """
    names = sorted(str(v) for v in valid)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.6)
    hint = f" Did you mean {' or '.join(f'`{n}`' for n in near)}?" if near else ""
    return InputError(
        f"{what} `{name}` is unknown.{hint} There is: {', '.join(names) or 'nothing'}.{fix}"
    )
