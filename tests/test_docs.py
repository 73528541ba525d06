"""What the pages show runs, is valid and leads somewhere; what is made from code is up to date."""

import contextlib
import dataclasses
import io
import re
import shlex
import tomllib
from pathlib import Path

import numpy as np
import pytest
import yaml
from configuration_reference import PAGE, page

from data_pipelines.schema import PatchGrid
from weather_tdr.arguments import CONFIG_COMMANDS, WITH_OVERRIDES, make_parser
from weather_tdr.benchmark_settings import Benchmark
from weather_tdr.config import Config, read_config
from weather_tdr.cost_benchmark import CostBenchmark
from weather_tdr.map_benchmark import MapBenchmark
from weather_tdr.methods.method import Method, load_method
from weather_tdr.pipeline_benchmark import PipelineBenchmark
from weather_tdr.settings import read_yaml
from weather_tdr.training_benchmark import TrainingBenchmark

ROOT = Path(__file__).parents[1]
FILES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES = {str(path.relative_to(ROOT)): path.read_text() for path in FILES}
MAKEFILE = (ROOT / "Makefile").read_text()
SPEED = {
    "cost": CostBenchmark,
    "training": TrainingBenchmark,
    "pipelines": PipelineBenchmark,
    "maps": MapBenchmark,
}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.S | re.M)


def with_blocks(language: str) -> list[str]:
    return [name for name, text in PAGES.items() if blocks(text, language)]


@pytest.mark.parametrize("name", with_blocks("python"))
def test_python_runs_and_prints_what_is_shown(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    shown = re.findall(
        r"^```python\n(.*?)^```(?:\n\n```text\n(.*?)^```)?", PAGES[name], re.S | re.M
    )
    for code, output in shown:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(code, name, "exec"), names)
        if output:
            assert printed.getvalue() == output
    if name == "README.md":
        assert float(names["tdr"].weights.sum()) == pytest.approx(1.0)


def kind_of(values: dict) -> type:
    """Which configuration a block is, by its keys."""
    for kind in (Config, Method, Benchmark):
        if set(values) <= {field.name for field in dataclasses.fields(kind)}:
            return kind
    raise AssertionError(f"no configuration has the keys {list(values)}")


@pytest.mark.parametrize("name", with_blocks("yaml"))
def test_configurations_are_valid(name, tmp_path):
    for text in blocks(PAGES[name], "yaml"):
        path = tmp_path / "shown.yaml"
        path.write_text(text)
        kind = kind_of(yaml.safe_load(text))
        if kind is Method:
            load_method(str(path))
        else:
            read_yaml(kind, path)


def check_command(words: list[str], config: Path) -> None:
    """Refuses a `weather-tdr` command that the program would refuse before it starts."""
    given, overrides = make_parser().parse_known_args(words)
    assert not overrides or given.command in WITH_OVERRIDES, words
    if given.command == "benchmark" and given.config in SPEED:
        read_yaml(SPEED[given.config], None, overrides)
    elif given.command in (*CONFIG_COMMANDS, "benchmark"):
        own = given.config.startswith("configs/")
        kind = Benchmark if given.command == "benchmark" else Config
        read_yaml(kind, ROOT / given.config if own else config, overrides)
    elif given.command == "demo":
        read_config(ROOT / "configs" / "demo.yaml", overrides)
    else:
        assert not overrides, overrides


@pytest.mark.parametrize("name", with_blocks("sh"))
def test_commands_are_valid(name, tmp_path, monkeypatch):
    own = [*blocks(PAGES[name], "yaml"), *blocks(PAGES["README.md"], "yaml")]
    runs = [text for text in own if kind_of(yaml.safe_load(text)) is Config]
    methods = [text for text in own if kind_of(yaml.safe_load(text)) is Method]
    (tmp_path / "run.yaml").write_text(runs[0])
    monkeypatch.chdir(tmp_path)
    for line in "".join(blocks(PAGES[name], "sh")).splitlines():
        program, *words = shlex.split(line, comments=True)
        if program == "weather-tdr":
            for method in re.findall(r"\w+\.yaml(?=[\],])", line):
                Path(method).write_text(methods[0])
            check_command(words, tmp_path / "run.yaml")
        elif program == "make":
            assert all(f"\n{target}:" in MAKEFILE for target in words), line
        else:
            assert program in ("pip", "torchrun", "tensorboard"), line
            if program == "torchrun":
                started = words[words.index("-m") :]
                assert started[:2] == ["-m", "weather_tdr"], line
                check_command(started[2:], tmp_path / "run.yaml")
            for extras in re.findall(r"\.\[([\w,]+)\]", line):
                assert set(extras.split(",")) <= set(PROJECT["optional-dependencies"]), line
            for file in re.findall(r"-c (\S+)", line):
                assert (ROOT / file).is_file(), line


def anchors(text: str) -> set[str]:
    """Anchors of the headings, as the site and the usual hosts of repositories make them."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```", "", text, flags=re.S | re.M), re.M)
    plain = (re.sub(r"[^\w\s-]", "", heading).strip().lower() for heading in headings)
    return {re.sub(r"\s", "-", heading) for heading in plain}


@pytest.mark.parametrize("name", [*PAGES, "CHANGELOG.md"])
def test_links_and_named_files_exist(name):
    text = (ROOT / name).read_text()
    for link in re.findall(r"\]\((?!\w+:)([^)]+)\)", text):
        path, _, anchor = link.partition("#")
        target = ((ROOT / name).parent / path).resolve() if path else ROOT / name
        assert target.exists(), link
        assert not anchor or anchor in anchors(target.read_text()), link
    for file in re.findall(r"\b(?:configs|docs|tests|weather_tdr|data_pipelines)/[\w/.]+\w", text):
        wanted = ROOT / file
        assert wanted.exists() or "NAME" in file, file


def test_every_configuration_of_the_package_is_valid():
    for path in (ROOT / "configs" / "benchmarks").glob("*.yaml"):
        assert read_yaml(Benchmark, path).name == path.stem


def test_the_reference_is_that_of_the_code():
    assert PAGE.read_text() == page()  # else `make reference`


def test_the_reference_has_every_key():
    def keys(settings):
        for field in dataclasses.fields(settings):
            yield field.name
            value = getattr(settings, field.name)
            if dataclasses.is_dataclass(value):
                yield from keys(value)

    for name in {*keys(Config()), *keys(Benchmark()), *keys(Method("x"))}:
        assert re.search(rf"^\| `{name}` \|", PAGES["docs/configuration.md"], re.M), name


def test_extras_are_told():
    table = PAGES["docs/install.md"].split("## Extras")[1]
    assert set(re.findall(r"^\| `(\w+)` ", table, re.M)) == set(PROJECT["optional-dependencies"])


def test_where_things_go_is_there():
    """CONTRIBUTING: a row names a file and what is in it."""
    rows = re.findall(r"^\| `([\w/.]+)` \| (.*) \|$", PAGES["CONTRIBUTING.md"], re.M)
    assert len(rows) > 15
    for file, text in rows:
        inside = (ROOT / file).read_text()
        for name in re.findall(r"`([A-Za-z_][\w.]*)`", text):
            assert re.search(rf"\b{name.split('.')[-1]}\b", inside), f"{name} in {file}"


def test_the_numbers_for_an_archive_are_those_of_its_configuration(tmp_path):
    text = PAGES["docs/scaling.md"]
    path = tmp_path / "arco.yaml"
    path.write_text(blocks(text, "yaml")[0])
    config = read_config(path)
    grid = PatchGrid(
        np.linspace(90, -90, 721), np.arange(1440) * 0.25,
        config.patches.size, config.patches.stride,
    )  # fmt: skip
    assert f"{grid.rows} x {grid.columns} = {grid.rows * grid.columns:,}" in text


def test_every_rule_is_shown():
    shown = [yaml.safe_load(text) for text in blocks(PAGES["docs/labels.md"], "yaml")]
    rules = {block["incidents"].get("rule", "catalogue") for block in shown if "incidents" in block}
    assert rules == {"catalogue", "exceedance", "mask", "series"}
