"""Work in processes that can be killed, forked by a process of its own without other threads."""

import os
import subprocess
import sys
import traceback
from pathlib import Path


def in_a_child(work) -> int:
    """Number of a process that does it."""
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    return child


def in_a_process(code: str) -> None:
    """Runs Python code that imports the tests' modules, in a process that may fork."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    environment["PYTHONPATH"] += os.pathsep + str(Path(__file__).parents[1])
    subprocess.run([sys.executable, "-c", code], check=True, env=environment, timeout=250)
