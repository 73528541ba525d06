"""The README's tables, made from the committed results: ``python tests/readme_tables.py``."""

import re
from pathlib import Path

import pandas as pd

from weather_tdr.tables import (
    cost_markdown,
    maps_markdown,
    markdown,
    overview_markdown,
    pipelines_markdown,
    run_markdown,
)

ROOT = Path(__file__).parents[1]
KINDS = {
    "run": run_markdown,
    "results": markdown,
    "overview": overview_markdown,
    "cost": cost_markdown,
    "maps": maps_markdown,
    "pipelines": pipelines_markdown,
}
TABLE = re.compile(rf"<!-- ({'|'.join(KINDS)}): (\S+) -->\n(.*?)<!-- end -->", re.S)


def filled(text: str) -> str:
    """The text with every table made anew."""

    def made(found: re.Match[str]) -> str:
        kind, path, _ = found.groups()
        return f"<!-- {kind}: {path} -->\n{KINDS[kind](pd.read_csv(ROOT / path))}<!-- end -->"

    return TABLE.sub(made, text)


if __name__ == "__main__":
    readme = ROOT / "README.md"
    readme.write_text(filled(readme.read_text()))
