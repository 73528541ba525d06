"""What the README shows runs, and its tables are those of the committed results."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import write_idx
from result_tables import KINDS, PAGES, TABLE, filled
from test_end_to_end import fails

from data_pipelines.image_files import read_images
from weather_tdr.benchmark_settings import Benchmark
from weather_tdr.cli import main
from weather_tdr.config import read_config
from weather_tdr.named_benchmarks import measured
from weather_tdr.settings import read_yaml

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.S)


def test_the_configuration_and_commands_run(tmp_path, small_files, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    values = yaml.safe_load(blocks("yaml")[0])
    assert fails(capsys, "run", "none.yaml")
    Path("my_fields.nc").write_bytes(small_files[0].read_bytes())
    Path("new_fields.nc").write_bytes(small_files[0].read_bytes())
    Path("my_catalogue.csv").write_bytes(small_files[1].read_bytes())
    Path("my_storms.yaml").write_text(blocks("yaml")[0])
    assert read_config(Path("my_storms.yaml")).name == values["name"]
    small = [
        "--train.steps=20", "--patches.size=8", "--patches.stride=2", "--train.width=6",
        "--splits.target_per_group=5", "--splits.fractions=[0.5,0.25,0.25]", "--quiet",
        "--maps.figures=1", "--train.methods=[uniform,tdr]",
    ]  # fmt: skip
    run, changed, mapped, told = [
        shlex.split(x, comments=True)[1:] for x in blocks("sh")[1].splitlines()
    ]
    main([*run, *small])
    main([*mapped, "--quiet"])
    assert Path("runs/my_storms/tdr/maps/new_fields/incident_map.nc").is_file()
    main(told)
    assert Path("runs/my_storms/tdr/report.html").is_file()
    assert changed[:2] == run and changed[2] == "--train.steps"


def test_image_commands_are_valid(tmp_path, monkeypatch, capsys):
    *benchmarks, imbalance = [
        shlex.split(x, comments=True)[1:] for x in blocks("sh")[2].splitlines()
    ]
    for command, config, *overrides in benchmarks:
        assert command == "benchmark"
        assert read_yaml(Benchmark, ROOT / config, overrides).seeds >= 3
    # The draw itself, from small files in MNIST's format where the download would put them.
    folder = tmp_path / "data" / "mnist"
    folder.mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    for prefix in ("train", "t10k"):
        images = np.arange(12_000 * 784, dtype=np.int64).reshape(12_000, 28, 28)
        write_idx(folder / f"{prefix}-images-idx3-ubyte", images % 251, True)
        write_idx(folder / f"{prefix}-labels-idx1-ubyte", np.arange(12_000) % 2 + 2, True)
    read_images.cache_clear()
    main([*imbalance, "--quiet"])
    assert "minority     25 " in capsys.readouterr().out
    read_images.cache_clear()


@pytest.mark.parametrize("path", PAGES, ids=lambda p: p.name)
def test_tables_are_those_of_the_committed_results(path):
    text = path.read_text()
    assert filled(text) == text
    # The check sees a changed figure.
    changed = re.sub(r"(\n\| .*?)\d\.\d\d", r"\g<1>9.99", text, count=1)
    assert changed != text and filled(changed) == text


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda p: p.stem)
def test_configurations_are_valid(path):
    assert read_config(path).name == path.stem


def test_there_are_tables():
    found = {kind for path in PAGES for kind, _, _ in TABLE.findall(path.read_text())}
    assert found == set(KINDS)


@pytest.mark.parametrize("path", sorted((ROOT / "configs/benchmarks/results").glob("*.csv")))
def test_commits_of_results_are_hashes(path):
    """Also those that look like numbers, such as 8069e32."""
    for commit in measured(path.stem)["commit"]:
        assert re.fullmatch(r"[0-9a-f]{7,}(-dirty)?", commit)
