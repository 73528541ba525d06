"""Weather TDR: finds rare, critical weather incidents in gridded reanalysis."""

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from weather_tdr.config import configure as configure
    from weather_tdr.named_benchmarks import benchmark as benchmark
    from weather_tdr.named_benchmarks import measured as measured
    from weather_tdr.runs import Run as Run
    from weather_tdr.runs import open_run as open_run
    from weather_tdr.tables import overview as overview
    from weather_tdr.tables import published as published
    from weather_tdr.train import Train as Train
    from weather_tdr.train import fit as fit

__version__ = "0.1.0"
# Name -> the module that has it. Nothing heavy is imported before it is asked for.
PUBLIC = {
    "Run": "runs",
    "Train": "train",
    "benchmark": "named_benchmarks",
    "configure": "config",
    "fit": "train",
    "measured": "named_benchmarks",
    "open_run": "runs",
    "overview": "tables",
    "published": "tables",
}


def __getattr__(name: str) -> Any:
    if name not in PUBLIC:
        raise AttributeError(f"module `weather_tdr` has no attribute `{name}`")
    return getattr(importlib.import_module(f"weather_tdr.{PUBLIC[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *PUBLIC])


def configs_folder() -> Path:
    """The configurations that come with the package, in a checkout or an installation."""
    package = Path(__file__).parent
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"
