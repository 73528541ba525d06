"""Files that are whole or not there: written beside their place, on disk, then renamed."""

import math
import os
import platform
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from data_pipelines.errors import InputError

PARTIAL = ".partial"
LOCK = ".lock"


def unfinished(path: Path) -> Path:
    """Where a file or store is written before it takes its place."""
    return path.with_name(path.name + PARTIAL)


@contextmanager
def written_whole(path: Path, ending: str = PARTIAL) -> Iterator[Path]:
    """Gives a path to write to; what is there takes the place of `path` when all went well.

    Args:
        path: of the file to make; one that exists is replaced. Its folder is made.
        ending: of the name to write to, for writers that look at it.

    Raises:
        OSError: it cannot be written, such as on a full disk; what was there before stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ending)
    try:
        yield partial
        with partial.open("rb+") as file:  # some systems sync only what may be written
            os.fsync(file.fileno())
        partial.replace(path)
        _keep(path.parent)
    except BaseException as error:
        partial.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:  # as on a full disk
            error.filename = str(path)
        raise


def _keep(folder: Path) -> None:
    """Puts the names in a folder on disk, where the system can."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        except OSError:  # some network file systems cannot
            pass
        finally:
            os.close(handle)


def write_atomically(path: Path, content: str | bytes) -> None:
    """Writes a file of text (UTF-8) or bytes, whole or not at all."""
    with written_whole(path) as partial:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)


@contextmanager
def alone_in(folder: Path, name: str = LOCK) -> Iterator[None]:
    """Holds a folder, or a part of it, for this process, until the block ends or the process dies.

    Args:
        folder: that exists.
        name: of the file that stands for what is held.

    Raises:
        InputError: another process holds it.
    """
    if sys.platform == "win32":
        yield
        return
    import fcntl

    # Read only, so that others who may write to the folder can hold it too.
    path, held = folder / name, False
    handle = os.open(path, os.O_RDONLY | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            held = os.path.samestat(os.fstat(handle), path.stat())
        except BlockingIOError:
            raise InputError(
                f"`output` must be a folder in which nothing else works, got {folder}, which "
                "another process holds. Wait for it to end, or give another `output`."
            ) from None
        except OSError:  # some network file systems have no locks
            pass
        yield
    finally:
        if held and name != LOCK:  # nothing is left beside a store
            path.unlink(missing_ok=True)
        os.close(handle)


@contextmanager
def file_aside(folder: Path | None, name: str) -> Iterator[Path | None]:
    """A file in `folder` that is deleted afterwards; none without a folder.

    What a process of this machine left that was killed goes too.

    Args:
        folder: where; it is made.
        name: what it holds.
    """
    if folder is None:
        yield None
        return
    folder.mkdir(parents=True, exist_ok=True)
    of_host = f".{name}-{platform.node()}-"
    for old in folder.glob(f".{name}-*"):
        number = re.fullmatch(rf"{re.escape(of_host)}(\d+)-[^-]+", old.name)
        if number is not None and not psutil.pid_exists(int(number[1])):
            shutil.rmtree(old, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=f"{of_host}{os.getpid()}-") as aside:
        yield Path(aside) / "values"


def no_nan(value: Any) -> Any:
    """NaN and infinity become None: JSON has neither, and undefined is null."""
    if isinstance(value, dict):
        return {k: no_nan(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [no_nan(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
