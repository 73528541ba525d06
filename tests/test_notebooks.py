"""Every notebook runs whole on tiny data, and is committed with the outputs of its cells."""

import ast
import json
import re

import nbformat
import pytest
from execute_notebooks import NOTEBOOKS, execute, source_hash
from jupyter_client.manager import AsyncKernelManager
from nbclient.util import run_sync

TINY = """
settings = {
    "synthetic": {"days": 16, "spacing": 5.0, "latitudes": [0, 90], "explosive_per_day": 4.0,
                  "ordinary_per_day": 4.0},
    "patches": {"size": 8, "stride": 2},
    "splits": {"fractions": [0.5, 0.2, 0.3], "gap": "1d", "target_per_group": 4},
"""
TRAINING = """
    "train": {"methods": ["uniform", "inverse_frequency", "tdr"], "steps": 20, "width": 4,
              "log_every": 10},
    "maps": {"figures": 0},
"""
CHANGES = {
    "01_fields_to_patches": TINY + "}",
    "02_train_a_detector": TINY + TRAINING + "}",
    "03_incident_maps": TINY + TRAINING + "}",
    "04_imbalance_benchmarks": 'settings = {"methods": ["uniform", "tdr"], "imbalances": [0.9], '
    '"seeds": 2, "train": {"steps": 10}, "workers": 1}',
    "05_your_own_data": "days, spacing, size, stride = 16, 5.0, 8, 2; target_per_group = steps = 4",
}
# What the variables of each notebook must hold, from the files that they come from.
CHECKS = {
    "01_fields_to_patches": """
import zarr
stored = zarr.open_group("runs/patches/patches.zarr", mode="r")
split, label = stored["split"][:], stored["label"][:]
assert run.counts().to_numpy().sum() == (split > 0).sum() == len(run.samples())
assert run.counts()["incident"].sum() == label[split > 0].sum() > 0
assert list(run.counts().loc["target"]) == [4, 4, 4]
assert len(run.samples("test")) == (split == 4).sum()
assert run.examples(3)["group_name"].to_series().value_counts().tolist() == [3, 3, 3]
assert run.dropped()["count"].to_dict() == {k: n for k, n in stored.attrs["dropped"].items() if n}
entries = pd.read_csv("runs/patches/synthetic/catalogue.csv")
assert (catalogue["kind"] == "incident").sum() == (entries["deepening_bergeron"] >= 1).sum()
assert fields.dims == ("time", "variable", "latitude", "longitude")
""",
    "02_train_a_detector": """
import json
from pathlib import Path
assert list(scores.index[:3]) == list(trained.index) == ["uniform", "inverse_frequency", "tdr"]
assert list(scores.index[3:]) == ["closed_contour_rule", "deepening_rule"]
for method, row in scores.iterrows():
    test = json.loads(Path(f"runs/storms/{method}/scores.json").read_text())["test"]
    assert abs(row["average_precision"] - test["average_precision"]) < 1e-12
    assert row["incidents"] == test["hits"] + test["misses"]
assert (trained["step"] == 20).all() and len(run.histories()) == 3
before = Path("runs/storms/tdr/model.json").stat().st_mtime_ns
assert run.evaluate().equals(scores) and wt.open_run("runs/storms").scores().equals(scores)
assert Path("runs/storms/tdr/model.json").stat().st_mtime_ns == before
""",
    "03_incident_maps": """
row, outcome = run.scores("incidents").loc[method], matching["outcome"].value_counts()
hits, misses = (int(outcome.get(k, 0)) for k in ("hit", "miss"))
assert (hits, misses) == (row["hits"], row["misses"])
assert outcome.get("false alarm", 0) == row["false_alarms"]
assert abs(row["pod"] - hits / (hits + misses)) < 1e-12 and hits + misses > 0
assert len(incidents) == len(matching) - misses
values = found_map["incident_probability"]
assert values.dims == ("time", "latitude", "longitude") and 0 <= values.min() <= values.max() <= 1
assert reliability["calibrated"]["incidents"].sum() == run.scores().loc[method, "incidents"]
assert reliability["calibrated"]["samples"].sum() == run.scores().loc[method, "samples"]
""",
    "04_imbalance_benchmarks": """
assert len(results) == 4 and set(results["method"]) == {"uniform", "tdr"}
mean = mnist[(mnist["method"] == "tdr") & (mnist["imbalance"] == 0.99)]["accuracy"].mean()
assert wt.overview(mnist, "accuracy").loc["tdr", "0.99"].startswith(f"{mean:.3f}")
assert set(published["imbalance"]) == {0.9, 0.95, 0.98, 0.99, 0.995}
""",
    "05_your_own_data": """
stored = run.patches
assert list(stored["variable"].values) == ["slp", "slp-24h", "vort", "vort-24h"]
assert (stored["longitude"] >= 0).all() and len(train) == (stored["split"] == 1).sum()
row, incidents = run.scores().loc["my_network"], run.scores("incidents").loc["my_network"]
assert row["data"].startswith("train, target") and 0 <= row["average_precision"] <= 1
outcome = run.matching("my_network")["outcome"]
assert (outcome == "hit").sum() == incidents["hits"]
assert (outcome == "miss").sum() == incidents["misses"]
assert incidents["hits"] + incidents["misses"] > 0
here = run.samples("test")
found = run.incident_map("my_network")["incident_probability"].sel(
    {k: xr.DataArray(here[k]) for k in ("time", "latitude", "longitude")}, method="nearest"
)
with torch.inference_mode():
    said = torch.softmax(network(run.split("test").patches), dim=1)[:, 1]
order = found.to_series().groupby(said.numpy().round(5)).mean()
assert found.notnull().all() and order.is_monotonic_increasing  # calibration keeps the order
""",
}
PLACES = re.compile(r"/home/|/root\b|/tmp/|/work/|/Users/|site-packages|[A-Z]:\\\\")


def kinds(cell) -> list[tuple[str, ...]]:
    """What a cell shows: kinds of outputs, without what an installation may say on stderr."""
    shown = [o for o in cell.outputs if o.get("name") != "stderr"]
    return [(o.output_type, *sorted(o.get("data", {}))) for o in shown]


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where all run: the third goes on with what the second has trained."""
    return tmp_path_factory.mktemp("notebooks")


@pytest.fixture(scope="module")
def kernel():
    """One for all, since torch takes seconds to import; its variables are cleared in between."""
    manager = AsyncKernelManager(kernel_name="python3")
    yield manager
    run_sync(manager.shutdown_kernel)(now=True)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_runs_whole_and_shows_what_is_committed(path, folder, kernel):
    done = execute(path, folder, CHANGES[path.stem], CHECKS[path.stem], kernel=kernel)
    committed = nbformat.read(path, as_version=4)
    for cell, before in zip(code_cells(done), code_cells(committed), strict=True):
        assert kinds(cell) == kinds(before), cell.source


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_committed_outputs_are_those_of_the_cells(path):
    notebook = nbformat.read(path, as_version=4)
    assert notebook.metadata["executed_source"] == source_hash(notebook), "run `make notebooks`"
    cells = code_cells(notebook)
    assert [c.execution_count for c in cells] == list(range(1, len(cells) + 1))
    figures = 0
    for cell in cells:
        assert all(o.output_type in ("execute_result", "display_data") for o in cell.outputs)
        last = ast.unparse(ast.parse(cell.source).body[-1])
        assert len(cell.outputs) <= 1, cell.source
        if last.startswith("plots."):
            assert "image/png" in cell.outputs[0].data, cell.source
            figures += 1
    assert figures >= 2
    assert not PLACES.search(json.dumps([c.outputs for c in cells]))
    assert path.stat().st_size < 700_000


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_defines_nothing_and_says_how_to_use_real_data(path):
    notebook = nbformat.read(path, as_version=4)
    for cell in code_cells(notebook):
        for node in ast.walk(ast.parse(cell.source)):
            assert not isinstance(
                node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda
            )
    text = "\n".join(c.source for c in notebook.cells if c.cell_type == "markdown")
    assert re.search(r"\*\*(Your own data or ERA5|Real data|MNIST and others)[.:]\*\*", text)


def test_there_are_five():
    assert [p.stem for p in NOTEBOOKS] == list(CHANGES) == list(CHECKS)
