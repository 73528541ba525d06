"""What `check` foretells is what `build` makes, and nothing is written."""

import shutil
import socket
from types import SimpleNamespace

import numpy as np
import pandas as pd
import psutil
import pytest

from data_pipelines.fields import open_fields
from data_pipelines.groups import Grouping, Groups
from data_pipelines.labelling import make_labeller
from data_pipelines.planning import plan_store
from data_pipelines.schema import GROUPS, SPLITS
from data_pipelines.settings import Exceedance, Fields, Incidents, Patches, Splits
from data_pipelines.store import open_store
from tests.conftest import make_field
from weather_tdr import configs_folder
from weather_tdr.check.machine import check_disk
from weather_tdr.check.run import check_config
from weather_tdr.cli import main
from weather_tdr.config import read_config
from weather_tdr.facts import Facts, bytes_text, duration_text


def snapshot(folder) -> dict:
    """Every file below a folder with its content and time of change."""
    return {
        p: (p.stat().st_mtime_ns, p.read_bytes() if p.is_file() else b"")
        for p in sorted(folder.rglob("*"))
    }


def rows_of(text: str) -> dict[str, list[int]]:
    """The numbers of the table of samples, by split."""
    found = {}
    for line in text.splitlines():
        words = line.replace("samples", " ").split()
        if words and words[0] in SPLITS and all(w.isdigit() for w in words[1:]):
            found[words[0]] = [int(w) for w in words[1:]]
    return found


def test_the_numbers_are_those_of_the_store(config_file, tmp_path, capsys):
    """Oracle: the store that `build` makes, counted sample by sample."""
    main(["check", str(config_file)])
    told = rows_of(capsys.readouterr().out)
    facts = check_config(read_config(config_file))
    main(["build", str(config_file), "--quiet"])
    path = tmp_path / "runs" / "tiny" / "patches.zarr"
    store = open_store(path)
    split, group = store["split"].to_numpy(), store["group"].to_numpy()
    label, names = store["label"].to_numpy(), store["incident_id"].to_numpy()
    times = store["time"].to_numpy()
    assert set(told) == set(SPLITS[1:])
    for name, numbers in told.items():
        here = split == SPLITS.index(name)
        positive = here & (label == 1)
        wanted = [here.sum(), *np.bincount(group[here], minlength=len(GROUPS))]
        wanted += [len(set(names[positive])), len(set(times[positive]))]
        assert numbers == wanted, name
    written = sum(f.stat().st_size for f in (path / "patches").glob("c.*"))
    rows = dict(facts.rows)
    assert rows["disk"].startswith(f"{bytes_text(written + 40 * store.sizes['sample'])} for")
    learned = np.isin(split, [SPLITS.index("train"), SPLITS.index("target")]).sum()
    patch = store["patches"][0].size * 4
    assert rows["memory"].startswith(f"{bytes_text(patch * learned)} for")
    dropped = store.attrs["dropped"]
    said = " ".join(text for _, text in facts.rows)
    for name in ("storm_in_another_split", "storm_in_target_set", "overlaps_target_set"):
        assert f"{dropped[name]} samples that" in said
    assert dict(check_config(read_config(config_file)).rows)["store"].endswith("up to date")
    changed = read_config(config_file, ["--seed", "7"])
    assert "replaces it" in dict(check_config(changed).rows)["store"]


def test_bytes_of_the_store_are_those_on_disk(config_file, tmp_path):
    config = read_config(config_file)
    fields = open_fields(config.fields.paths, config.fields.variables, lags=config.fields.lags)
    labeller = make_labeller(config.incidents, config.fields, None)
    plan = plan_store(fields, labeller, config.patches, config.splits, grouping=Grouping(Groups()))
    main(["build", str(config_file), "--quiet"])
    path = tmp_path / "runs" / "tiny" / "patches.zarr"
    assert plan.patch_bytes(path) == sum(f.stat().st_size for f in path.glob("patches/c.*"))


def test_nothing_is_written(config_file, tmp_path, small_files, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = snapshot(tmp_path), snapshot(small_files[0].parent)
    main(["check", str(config_file), "--quiet"])
    config = read_config(config_file)
    for rule in ("exceedance", "mask"):
        config.incidents.rule = rule
        getattr(config.incidents, rule).variable = "vo850"
        check_config(config)
    assert (snapshot(tmp_path), snapshot(small_files[0].parent)) == before


def test_spells_are_counted_without_a_file(config_file, tmp_path):
    """The rule `exceedance` keeps its days in memory; the labels are those of the build."""
    daily = make_field(np.linspace(60, 38, 12), np.linspace(0, 22, 12), steps=4 * 365)
    daily = daily.assign_coords(time=pd.date_range("2001-01-01", periods=4 * 365))
    daily.to_netcdf(tmp_path / "daily.nc")
    rule = Exceedance("msl", percentile=70.0, min_days=1, window_days=31)
    incidents, fields = Incidents("exceedance", exceedance=rule), Fields([f"{tmp_path}/daily.nc"])
    before = snapshot(tmp_path)

    def labels(folder):
        labeller = make_labeller(incidents, fields, folder)
        settings = Patches(4, 2), Splits(fractions=[0.8, 0.1, 0.1])
        read = open_fields(**fields.arguments())
        return plan_store(read, labeller, *settings, grouping=Grouping(Groups())).labels.table

    in_memory = labels(None)
    assert snapshot(tmp_path) == before and len(in_memory) > 0
    assert in_memory.equals(labels(tmp_path / "aside"))


def test_all_errors_at_once(config_file, tmp_path, capsys):
    overrides = [
        f"--fields.paths=[{tmp_path / 'a.nc'},{tmp_path / 'b.nc'}]",
        f"--incidents.catalogue={tmp_path / 'c.csv'}",
    ]
    with pytest.raises(SystemExit) as stop:
        main(["check", str(config_file), *overrides])
    assert stop.value.code == 2
    said = capsys.readouterr().err
    assert all(f"error: no such file: {tmp_path / f}" in said for f in ("a.nc", "b.nc", "c.csv"))
    with pytest.raises(SystemExit) as stop:
        main(["check", str(config_file), "--patches.stride=3", "--splits.gap=0h"])
    lines = capsys.readouterr().err.strip().splitlines()
    assert stop.value.code == 2 and len(lines) == 2
    assert "patches.size" in lines[0] and "splits.gap" in lines[1]


@pytest.mark.parametrize(
    "override, said",
    [
        ("--fields.variables=[mls]", "Did you mean `msl`?"),
        ("--incidents.where={deepening: {min: 1}}", "`deepening` is unknown"),
        ("--splits.target_per_group=4000", "splits.target_per_group"),
        ("--patches.size=80", "patches.size"),
        ("--fields.period=1990-01-01/1991-01-01", "must overlap the fields"),
    ],
)
def test_what_the_build_would_refuse_is_refused(config_file, override, said):
    facts = check_config(read_config(config_file, [override]))
    assert any(said in error for error in facts.errors), facts.errors


def test_missing_and_constant_values(config_file, small, tmp_path):
    """Oracle: which patches of 8 x 8 points, every 2 points, hold the missing corner."""
    fields = small[0][["msl", "vo850"]].copy(deep=True)
    fields["msl"][:, 10:14, 20:25] = np.nan
    fields["vo850"][:] = 0.0
    fields.to_netcdf(tmp_path / "holes.nc")
    facts = check_config(read_config(config_file, [f"--fields.paths=[{tmp_path / 'holes.nc'}]"]))
    lost = sum(
        any(row <= y < row + 8 for y in range(10, 14))
        and any((x - 2 * column) % 72 < 8 for x in range(20, 25))
        for row in range(0, 30, 2)
        for column in range(36)
    )
    assert any(w.startswith(f"{lost / (15 * 36):.0%} of the patches") for w in facts.warnings)
    assert any(w.startswith("vo850 is the same everywhere") for w in facts.warnings)
    nothing = fields.assign(msl=fields["msl"] * np.nan)
    nothing.to_netcdf(tmp_path / "none.nc")
    facts = check_config(read_config(config_file, [f"--fields.paths=[{tmp_path / 'none.nc'}]"]))
    assert any("every patch" in error for error in facts.errors)


def test_disk_memory_and_workers(config_file, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=1000))
    facts = check_config(read_config(config_file))
    assert any("room for the patch store" in error for error in facts.errors)
    assert "read from the patch store as training goes" in dict(facts.rows)["memory"]
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        there = check_config(read_config(config_file, [f"--cluster.where=tcp://127.0.0.1:{port}"]))
        assert not any("does not answer" in error for error in there.errors)
    gone = check_config(read_config(config_file, [f"--cluster.where=tcp://127.0.0.1:{port}"]))
    assert any("does not answer" in error for error in gone.errors)
    monkeypatch.setenv("PATH", str(tmp_path))
    queue = check_config(read_config(config_file, ["--cluster.where=slurm"]))
    assert any("sbatch" in error for error in queue.errors)


def test_the_disk_of_a_folder_that_is_not_there(tmp_path):
    facts = Facts()
    check_disk(tmp_path / "not" / "yet", 10, 1, facts)
    assert not facts.errors and not (tmp_path / "not").exists()


def test_images(tmp_path, capsys):
    path = tmp_path / "digits.yaml"
    path.write_text(f"output: {tmp_path}\nimages: {{dataset: digits, validation_size: 20}}\n")
    before = snapshot(tmp_path)
    main(["check", str(path), "--images.train_size=110", "--images.ratio=0.9"])
    told = capsys.readouterr().out
    # 110 = n (1 + 0.1), and the target set of 10 is balanced.
    assert "100 majority, 10 minority" in told and "5 majority, 5 minority" in told
    assert snapshot(tmp_path) == before
    facts = check_config(read_config(path, ["--images.imbalance=step", "--images.factor=2"]))
    assert any("must be binary" in error for error in facts.errors)
    missing = ["--images.dataset=mnist", f"--images.folder={tmp_path}"]
    assert check_config(read_config(path, missing)).errors
    fetched = check_config(read_config(path, [*missing, "--images.download=true"]))
    assert not fetched.errors and "will try to fetch" in fetched.warnings[0]
    assert snapshot(tmp_path) == before


def test_times_outside_the_catalogue(config_file, small, tmp_path):
    table = small[1]
    table[table["time"] < "2001-01-18"].to_csv(tmp_path / "short.csv", index=False)
    override = [f"--incidents.catalogue={tmp_path / 'short.csv'}"]
    facts = check_config(read_config(config_file, override))
    assert any("fields.period: 2001-01-01/2001-01-17" in w for w in facts.warnings)


def test_synthetic_fields_that_are_not_made_yet(tmp_path, capsys):
    main(["check", str(configs_folder() / "demo.yaml"), "--output", str(tmp_path / "runs")])
    assert "not made yet" in capsys.readouterr().out and not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    "number, text",
    [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (10.2 * 2**20, "10 MiB"),
     (99.7 * 2**30, "100 GiB"), (2**50, "1024 TiB")],
)  # fmt: skip
def test_bytes_for_people(number, text):
    assert bytes_text(number) == text


def test_durations_for_people():
    assert [duration_text(s) for s in (0.2, 90, 600, 7300, 200000)] == [
        "1 seconds", "90 seconds", "10 minutes", "2 hours", "2 days",
    ]  # fmt: skip


def test_configurations_of_the_package_go_by_name(capsys):
    main(["check", "demo"])
    assert "weather-tdr run demo" in capsys.readouterr().out
    with pytest.raises(SystemExit) as stop:
        main(["check", "dmo"])
    assert stop.value.code == 2
    assert "Did you mean `demo`?" in capsys.readouterr().err


def test_configurations_of_something_else_are_named(capsys):
    for path, word in (("benchmarks/mnist_49.yaml", "benchmark"), ("methods/tdr.yaml", "method")):
        with pytest.raises(SystemExit):
            main(["check", str(configs_folder() / path)])
        assert f"is the configuration of a {word}: " in capsys.readouterr().err
    for command, name in (("benchmark", "demo"), ("run", "mnist_49"), ("run", "tdr")):
        with pytest.raises(SystemExit):
            main([command, name])
        assert f"{name}.yaml is the configuration of a" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("--train.steps=many", "`train.steps` must be a whole number, got many"),
        ("--fields.variables=msl", "`fields.variables` must be a list, got msl. Write [msl]; "),
        ("--train.compile=maybe", "`train.compile` must be true or false, got maybe"),
        ("--train.choose=bst", "`train.choose`: choice `bst` is unknown. Did you mean `best`?"),
        ("--incidents.where=5", "`incidents.where` must be keys and values, got 5"),
        ("--train.steps", "`--train.steps` needs a value, got none. Write --train.steps=VALUE."),
        ("steps=5", "`steps=5` is no override. Write --KEY=VALUE"),
    ],
)
def test_values_of_the_wrong_kind(given, said, capsys, tmp_path):
    with pytest.raises(SystemExit):
        main(["check", "demo", given])
    assert said in capsys.readouterr().err
    if given.startswith("--") and "=" in given:  # the same in a file
        key, value = given[2:].split("=")
        section, name = key.split(".")
        (tmp_path / "own.yaml").write_text(f"{section}: {{{name}: {value}}}")
        with pytest.raises(SystemExit):
            main(["check", str(tmp_path / "own.yaml")])
        assert said in capsys.readouterr().err


def test_a_key_that_stands_twice_is_refused(tmp_path, capsys):
    path = tmp_path / "twice.yaml"
    path.write_text("name: a\ntrain:\n  steps: 3000\n  width: 8\n  steps: 10\n")
    with pytest.raises(SystemExit):
        main(["check", str(path)])
    assert f"{path}: key `steps` must stand once in its block, got it again in line 5" in (
        capsys.readouterr().err
    )
