"""What `check` says of the machine, and of a build that would be refused."""

import os
import shutil
from types import SimpleNamespace

import pandas as pd
import pytest
import xarray as xr
from conftest import write_config

from data_pipelines.cluster import Cluster
from weather_tdr.check.machine import check_workers
from weather_tdr.cli import main
from weather_tdr.facts import Facts, bytes_text


def test_cores_are_counted_on_systems_without_affinity(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    facts = Facts()
    check_workers(Cluster("processes", 2), facts)
    assert f"2 processes, {os.cpu_count()} cores here" in facts.text() and not facts.errors


def test_a_batch_queue_needs_the_memory_of_a_job():
    pytest.importorskip("dask_jobqueue")
    for queue, told in (({"memory": "4GB"}, False), ({"mem": "4GB"}, True), ({}, True)):
        facts = Facts()
        check_workers(Cluster("slurm", 1, queue), facts)
        assert any("must hold the `memory` of a job" in error for error in facts.errors) == told


def test_daily_values_need_their_disk(small_files, tmp_path, capsys, monkeypatch):
    """Looked at before anything else of the labels, which a large archive is not read for."""
    config = write_config(tmp_path, tmp_path / "runs", small_files)
    text = config.read_text().replace("  where: {deepening_bergeron: {min: 1.0}}\n", "")
    text = text.replace(
        f"  catalogue: {small_files[1]}\n", "  rule: exceedance\n  exceedance: {variable: msl}\n"
    )
    config.write_text(text)
    monkeypatch.setattr("weather_tdr.check.plan.READ_AT_MOST", 10)
    main(["check", str(config)])
    days, points = 23, 37 * 72  # with a lag of a day
    assert f"{bytes_text(4 * days * points)} on disk while labels" in capsys.readouterr().out
    free = 4 * days * points - 1
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    with pytest.raises(SystemExit):
        main(["check", str(config)])
    told = capsys.readouterr()
    assert "room for daily values" in told.out + told.err


def test_what_strict_refuses_check_refuses_too(small_files, tmp_path, capsys):
    """As of a season alone, whose gaps are missing steps."""
    fields = xr.open_dataset(small_files[0])
    days = pd.DatetimeIndex(fields["time"].values).day
    fields.isel(time=days != 9).to_netcdf(tmp_path / "gap.nc")
    config = write_config(tmp_path, tmp_path / "runs", (tmp_path / "gap.nc", small_files[1]))
    main(["check", str(config)])
    assert "It will run" in capsys.readouterr().out
    strict = ["--quality.strict", "true"]
    for command in (["check"], ["build", "--quiet"]):
        with pytest.raises(SystemExit):
            main([command[0], str(config), *command[1:], *strict])
        told = capsys.readouterr()
        assert "`quality.strict` allows no finding" in told.out + told.err
    assert not (tmp_path / "runs" / "tiny" / "patches.zarr").exists()
