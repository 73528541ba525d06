"""The errors that a user can mend: bad input or configuration."""

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Bad input or configuration. One line: the thing, what is wrong, the value, the fix."""


class RankLost(RuntimeError):
    """Of several processes that work together, another one has died."""


class Diverged(InputError):
    """A loss is no longer finite."""


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
