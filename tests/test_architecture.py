"""Imports go one way, without cycles; files stay short."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("data_pipelines", "weather_tdr")
LONGEST = 300  # lines
# Who knows the order of the stages. Nobody else imports one of these.
TOPS = {
    "data_pipelines.build",
    "weather_tdr.__main__",
    "weather_tdr.assess",
    "weather_tdr.benchmarks",
    "weather_tdr.cli",
    "weather_tdr.cost_benchmark",
    "weather_tdr.imbalance",
    "weather_tdr.map_benchmark",
    "weather_tdr.pipeline_benchmark",
    "weather_tdr.pipeline_cases",
    "weather_tdr.report",
    "weather_tdr.check.run",
    "weather_tdr.first.configuration",
    "weather_tdr.inspect.path",
    "weather_tdr.named_benchmarks",
    "weather_tdr.own_network",
    "weather_tdr.run",
    "weather_tdr.runs",
    "weather_tdr.training_benchmark",
}
DRAWING = {"matplotlib", "bokeh", "cartopy", "PIL"}


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(p): p for package in PACKAGES for p in (ROOT / package).rglob("*.py")}


def imported(source: str, modules=frozenset(MODULES)) -> set[str]:
    """Modules that a file imports, anywhere in it; of ours those that the names lie in.

    What only the types need is no import.
    """
    found = set()
    tree = ast.parse(source)
    typing = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and ast.unparse(block.test).endswith("TYPE_CHECKING")
        for node in ast.walk(block)
    }
    for node in ast.walk(tree):
        if id(node) in typing:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found.add(inner if inner in modules else str(node.module))
    return found


IMPORTS = {name: imported(path.read_text()) for name, path in MODULES.items()}
OURS = {name: wanted & set(MODULES) for name, wanted in IMPORTS.items()}


def outside(name: str) -> set[str]:
    return {wanted.split(".")[0] for wanted in IMPORTS[name]}


def test_the_check_sees_imports():
    source = (
        "import a.b\ndef f():\n    from weather_tdr import run, __version__\n"
        "if TYPE_CHECKING:\n    import c\n"
    )
    assert imported(source) == {"a.b", "weather_tdr.run", "weather_tdr"}
    assert len(MODULES) > 80 and "weather_tdr.methods.tdr" in OURS["weather_tdr.methods.method"]


@pytest.mark.parametrize("name", [n for n in MODULES if n.startswith("data_pipelines")])
def test_pipelines_know_neither_torch_nor_the_networks(name):
    assert not outside(name) & {"torch", "weather_tdr"}


def test_there_are_no_cycles():
    try:
        TopologicalSorter(OURS).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_only_tops_import_tops():
    assert set(MODULES) >= TOPS
    stray = {n: wanted & TOPS for n, wanted in OURS.items() if n not in TOPS and wanted & TOPS}
    assert not stray


def test_drawing_has_its_own_place():
    """Computation does not draw; images as data are read by `image_files`."""
    places = ("weather_tdr.plots", "weather_tdr.coastlines", "weather_tdr.report")
    drawing = {n for n in MODULES if outside(n) & DRAWING and not n.startswith(places)}
    assert drawing == {"data_pipelines.image_files"}


def test_files_are_short():
    files = [*MODULES.values(), *(ROOT / "tests").glob("*.py")]
    long = {str(p): n for p in files if (n := len(p.read_text().splitlines())) > LONGEST}
    assert not long
