"""Weather TDR: finds rare, critical weather incidents in gridded reanalysis."""

from pathlib import Path

__version__ = "0.1.0"


def configs_folder() -> Path:
    """The configurations that come with the package, in a checkout or an installation."""
    package = Path(__file__).parent
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"
