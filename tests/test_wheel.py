"""The wheel by itself: installed outside the repository, run from an empty folder."""

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).parents[1]
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
OUTSIDE = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}


def run(*command: str | Path, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=folder, env=OUTSIDE, capture_output=True, text=True)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    built = run(*PIP, "wheel", "--no-deps", "--wheel-dir", folder, ROOT, folder=folder)
    if "hatchling" in built.stderr and "No matching distribution" in built.stderr:
        pytest.skip("hatchling, which builds the wheel, cannot be fetched")
    assert built.returncode == 0, built.stderr
    (found,) = folder.glob("weather_tdr-*.whl")
    return found


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory) -> Path:
    """The wheel alone in an environment that sees the packages of this one.

    A .pth file adds the folder with those packages, and the .pth file in there, which leads to the
    repository, is not read.
    """
    folder = tmp_path_factory.mktemp("outside")
    assert run(sys.executable, "-m", "venv", "--without-pip", "env", folder=folder).returncode == 0
    python = folder / "env" / "bin" / "python"
    site = next((folder / "env").glob("lib/python*/site-packages"))
    done = run(*PIP, "--python", python, "install", "--no-deps", wheel, folder=folder)
    assert done.returncode == 0, done.stderr
    (site / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    return folder / "env"


def test_what_the_wheel_holds(wheel):
    with zipfile.ZipFile(wheel) as opened:
        names = set(opened.namelist())
    configs = {f"weather_tdr/{p.relative_to(ROOT)}" for p in (ROOT / "configs").rglob("*.yaml")}
    code = {
        str(p.relative_to(ROOT))
        for package in ("weather_tdr", "data_pipelines")
        for p in (ROOT / package).rglob("*.py")
    }
    wanted = configs | code | {"weather_tdr/py.typed", "data_pipelines/py.typed"}
    assert not wanted - names
    assert {n.split("/")[0].split("-")[0] for n in names} == {"weather_tdr", "data_pipelines"}


def test_an_installation_outside_the_repository(environment, tmp_path):
    code = (
        "import weather_tdr, data_pipelines\n"
        "from weather_tdr.methods.method import names\n"
        "print(weather_tdr.__file__, data_pipelines.__file__)\n"
        "print(weather_tdr.configs_folder() / 'benchmarks' / 'digits_imbalance.yaml')\n"
        "print(len(names()))"
    )
    told = run(environment / "bin" / "python", "-c", code, folder=tmp_path)
    assert told.returncode == 0, told.stderr
    modules, config, methods = told.stdout.splitlines()
    for file in (*modules.split(), config):
        assert Path(file).is_relative_to(environment) and Path(file).is_file()
    assert int(methods) == len(list((ROOT / "configs" / "methods").glob("*.yaml")))


def test_the_demo_from_an_empty_folder(environment, tmp_path):
    program = environment / "bin" / "weather-tdr"
    told = run(program, "--version", folder=tmp_path)
    assert told.returncode == 0 and told.stdout.strip() == "0.1.0"
    done = run(
        program, "demo", "--quiet", "--synthetic.days", "24", "--synthetic.spacing", "5",
        "--synthetic.explosive_per_day", "2", "--patches.size", "8", "--patches.stride", "2",
        "--splits.target_per_group", "6", "--train.steps", "20", "--train.width", "6",
        "--train.methods", "[tdr]", "--fields.variables", "[vo850]",
        "--maps.figures", "1", "--maps.resolution", "stride",
        folder=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["runs"]
    folder = tmp_path / "runs" / "demo"
    assert "tdr" in list(pd.read_csv(folder / "comparison.csv")["method"])
    for name in ("incident_map.nc", "incidents.csv", "figures/incident_1.png"):
        assert (folder / "tdr" / name).is_file()
