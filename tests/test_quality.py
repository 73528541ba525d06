"""What cannot be right is found, reported, and never reaches training."""

import json

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from test_build import LAGS, SPLIT, build

from data_pipelines import time_axis
from data_pipelines.build import build_store
from data_pipelines.errors import InputError
from data_pipelines.fields import open_fields
from data_pipelines.quality import Finding, Quality, check_block, findings_of, joined
from data_pipelines.schema import SPLITS
from data_pipelines.settings import Fields, Incidents, Patches, Splits
from data_pipelines.store import open_store
from data_pipelines.time_axis import time_findings


@pytest.fixture(scope="module")
def broken(small, small_files, tmp_path_factory):
    """A pressure of 0 Pa at one point and time, an infinite vorticity, a hole over a day."""
    fields = small[0].copy(deep=True)
    fields["msl"][40, 10, 20] = 0.0
    fields["vo850"][41, 12, 30] = np.inf
    fields["msl"][44:48, 20, 50] = np.nan
    path = tmp_path_factory.mktemp("broken") / "broken.nc"
    fields.to_netcdf(path)
    return path, small_files[1]


def test_findings_by_hand(broken):
    fields = open_fields([broken[0]], ["msl", "vo850"])
    times = pd.DatetimeIndex(fields.indexes["time"])
    values = fields.values
    before = values.copy()
    clean, found = check_block(values, fields, times)
    np.testing.assert_array_equal(values, before)  # the fields themselves stay
    at = [t.isoformat() for t in times]
    assert found == [
        Finding("msl", "missing", 4, at[44], at[47]),
        Finding("msl", "impossible", 1, at[40], at[40]),
        Finding("vo850", "infinite", 1, at[41], at[41]),
    ]
    wrong = ~np.isfinite(clean)
    assert wrong.sum() == 6
    np.testing.assert_array_equal(clean[~wrong], before[~wrong])
    assert joined([found[0], found[1], Finding("msl", "missing", 2, at[50], at[51])]) == [
        Finding("msl", "missing", 6, at[44], at[51]),
        found[1],
    ]
    part = clean[:40]
    whole, none = check_block(part, fields, times[:40])
    assert none == [] and whole is part  # nothing is copied where nothing is wrong


def test_affected_samples_are_dropped_counted_and_reported(broken, tmp_path, caplog):
    """Oracle: the patches that hold such a point, from the eager fields of the file."""
    path = build(broken, tmp_path / "patches.zarr")
    store = open_store(path)
    real = ~np.isnat(store["time"].values)
    with xr.open_dataset(broken[0]) as raw:
        wrong = ~(raw["msl"] > 80_000) | ~np.isfinite(raw["vo850"])
    affected = np.zeros(store.sizes["sample"], dtype=bool)
    wrong = wrong.transpose("time", "latitude", "longitude")
    for place in np.argwhere(wrong.values):
        time, lat, lon = (wrong[d].values[i] for d, i in zip(wrong.dims, place, strict=True))
        dy = np.abs(store["latitude"].values - lat) < 20.0
        dx = np.abs((store["longitude"].values - lon + 180) % 360 - 180) < 20.0
        for lag in (0, 24):
            then = store["time"].values == time + np.timedelta64(lag, "h")
            affected |= dy & dx & then
    unusable = store["usable"].values == 0
    np.testing.assert_array_equal(unusable[real], affected[real])
    assert (store["split"].values[unusable] == SPLITS.index("dropped")).all()
    assert store.attrs["dropped"]["missing_values"] == affected[real].sum() > 10
    report = json.loads((tmp_path / "quality.json").read_text())
    assert report["samples_dropped"] == affected[real].sum()
    problems = {(f["variable"], f["problem"]) for f in report["findings"]}
    assert {("msl", "impossible"), ("vo850", "infinite"), ("msl-24h", "missing")} <= problems
    assert "msl: 1 impossible values" in caplog.text


def test_strict_makes_a_finding_an_error_and_leaves_the_parts(broken, tmp_path):
    fields = Fields([str(broken[0])], ["msl", "vo850"], LAGS, ["vo850"])
    incidents = Incidents(catalogue=str(broken[1]), where={"deepening_bergeron": {"min": 1.0}})
    where = tmp_path / "patches.zarr"
    with pytest.raises(InputError, match=r"`quality\.strict` allows no finding, got"):
        build_store(where, fields, incidents, Patches(8, 2, 0.2), SPLIT, quality=Quality(True))
    assert not where.exists() and (tmp_path / "quality.json").is_file()
    # Without it, only the end is done again.
    build_store(where, fields, incidents, Patches(8, 2, 0.2), SPLIT)
    assert open_store(where).sizes["sample"] > 100
    # A store that is there already is no excuse.
    with pytest.raises(InputError, match=r"`quality\.strict` allows no finding, got"):
        build_store(where, fields, incidents, Patches(8, 2, 0.2), SPLIT, quality=Quality(True))
    (tmp_path / "quality.json").unlink()
    with pytest.raises(InputError, match="needs the report of the build"):
        build_store(where, fields, incidents, Patches(8, 2, 0.2), SPLIT, quality=Quality(True))


def test_findings_along_time(small, tmp_path):
    """Two steps missing, one given twice with other values, the last three preliminary."""
    fields = small[0].isel(time=slice(0, 30))
    times = pd.DatetimeIndex(fields["time"].values)
    kept = np.r_[0:10, 12:20, 19, 20:30]
    version = np.where(kept >= 27, "0005", "0001")
    broken = fields.isel(time=kept).assign_coords(expver=("time", version)).copy(deep=True)
    broken["msl"][18] += 1.0
    broken.to_netcdf(tmp_path / "times.nc")
    got = open_fields([tmp_path / "times.nc"], ["msl"])
    assert times[19] not in got.indexes["time"]
    assert got.sizes["time"] == 27
    found = {(f["variable"], f["problem"]): f for f in json.loads(got.attrs["findings"])}
    at = [t.isoformat() for t in times]
    assert found["time", "repeated"]["values"] == 2
    assert found["time", "repeated"]["first"] == at[19]
    # 10, 11 and 19, which was taken out.
    missing = found["time", "missing"]
    assert (missing["values"], missing["first"], missing["last"]) == (3, at[10], at[19])
    assert found["expver", "preliminary"]["values"] == 3
    assert found["expver", "preliminary"]["first"] == at[27]
    np.testing.assert_array_equal(got.values[:10, 0], open_fields_of(fields, tmp_path)[:10, 0])
    assert "findings" not in open_fields([tmp_path / "whole.nc"], ["msl"]).attrs


def test_equal_copies_of_a_time_cost_nothing(small, tmp_path, monkeypatch):
    """As where files overlap; also with missing values; not where most would be compared."""
    fields = small[0].isel(time=slice(0, 12)).copy(deep=True)
    fields["msl"][5, 3, :4] = np.nan
    fields.isel(time=slice(0, 7)).to_netcdf(tmp_path / "a.nc")
    fields.isel(time=slice(4, 12)).to_netcdf(tmp_path / "b.nc")
    files = [tmp_path / "a.nc", tmp_path / "b.nc"]
    got = open_fields(files, ["msl"])
    np.testing.assert_array_equal(got.values, open_fields_of(fields, tmp_path))
    assert "findings" not in got.attrs
    monkeypatch.setattr(time_axis, "COMPARED", 2)
    monkeypatch.setattr(time_axis, "BLOCK_BYTES", 2 * small[0].isel(time=0).nbytes)
    got = open_fields(files, ["msl"])
    np.testing.assert_array_equal(got.values, open_fields_of(fields, tmp_path))
    fields["msl"][6, 2, 2] += 1.0
    fields.isel(time=slice(4, 12)).to_netcdf(tmp_path / "c.nc")  # step 6 is not what it is in `a`
    got = open_fields([tmp_path / "a.nc", tmp_path / "c.nc"], ["msl"])
    assert got.sizes["time"] == 11 and fields["time"].values[6] not in got["time"].values
    monkeypatch.setattr(time_axis, "COMPARED_BYTES", 0)  # so that 4 and 6 tell for 5, or do not
    assert open_fields(files, ["msl"]).sizes["time"] == 12
    got = open_fields([tmp_path / "a.nc", tmp_path / "c.nc"], ["msl"])
    assert set(fields["time"].values) - set(got["time"].values) == set(fields["time"].values[5:7])
    fields.isel(time=slice(1, 12)).to_netcdf(tmp_path / "d.nc")
    with pytest.raises(InputError, match=r"more than half of all\. Give each file once"):
        open_fields([tmp_path / "a.nc", tmp_path / "d.nc"], ["msl"])


def read_or_fail(values, bad):
    if bad in values["time"].values:
        raise OSError("truncated")
    return values


def test_a_copy_that_cannot_be_read_equals_none(small):
    """Of three times that are given twice the copies of the second cannot be read."""
    few = small[0].isel(time=[0, 1, 1, 2, 2, 3, 3, 4, 5, 6, 7])
    bad = few["time"].values[3]
    lazy = few.chunk(time=1)
    lazy["msl"] = lazy["msl"].map_blocks(lambda v: read_or_fail(v, bad), template=lazy["msl"])
    kept, found = time_findings(lazy)
    assert bad not in kept["time"].values and kept.sizes["time"] == 7
    assert [(f.problem, f.values) for f in found] == [("repeated", 2), ("missing", 1)]


def open_fields_of(dataset, folder):
    dataset.to_netcdf(folder / "whole.nc")
    return open_fields([folder / "whole.nc"], ["msl"]).values


@pytest.mark.parametrize("order", [[1, 5], [5, 1]])
def test_era5_and_era5t_side_by_side(small, tmp_path, order):
    """The older layout: a dim `expver`, each version missing where the other has values."""
    fields = small[0].isel(time=slice(0, 12))
    final, preliminary = fields.copy(deep=True), fields.copy(deep=True) + 1.0
    final["msl"][8:] = np.nan
    preliminary["msl"][:8] = np.nan
    preliminary["msl"][3] = 0.0  # both have it: the final one counts
    parts = {1: final, 5: preliminary}
    both = xr.concat([parts[k] for k in order], pd.Index(order, name="expver"))
    both.to_netcdf(tmp_path / "both.nc")
    got = open_fields([tmp_path / "both.nc"], ["msl"])
    wanted = open_fields_of(fields, tmp_path)
    np.testing.assert_array_equal(got.values[:8], wanted[:8])
    np.testing.assert_allclose(got.values[8:], wanted[8:] + 1.0, rtol=1e-6)
    (found,) = json.loads(got.attrs["findings"])
    assert (found["variable"], found["problem"], found["values"]) == ("expver", "mixed", 12)


def monthly(data, folder, months=3):
    """The fields in several files."""
    edges = np.linspace(0, data.sizes["time"], months + 1).astype(int)
    paths = []
    for k in range(months):
        paths.append(folder / f"part{k}.nc")
        data.isel(time=slice(edges[k], edges[k + 1])).to_netcdf(paths[-1])
    return paths


def test_a_file_that_cannot_be_opened_is_left_out_and_reported(small, small_files, tmp_path):
    paths = monthly(small[0], tmp_path, 6)
    times = open_fields(paths, ["msl"]).indexes["time"]
    paths[2].write_text("no longer a file of fields")
    with xr.open_dataset(paths[3]) as after, xr.open_dataset(paths[1]) as before:
        gap = (times < after["time"].values[0]) & (times > before["time"].values[-1])
    array = open_fields(paths, ["msl"])
    assert list(array.indexes["time"]) == list(times[~gap])
    unreadable, missing = findings_of(array)
    assert unreadable.variable == str(paths[2]) and unreadable.problem == "unreadable"
    assert "no known format" in unreadable.line()
    assert (missing.problem, missing.values) == ("missing", gap.sum())
    fields = Fields([str(p) for p in paths], ["msl"])
    incidents = Incidents(catalogue=str(small_files[1]), where={"deepening_bergeron": {"min": 1.0}})
    rest = (incidents, Patches(8, 2, 0.2), Splits(target_per_group=2, gap="0h"))
    with pytest.raises(InputError, match=r"strict` allows no finding, got 2, .*part2.nc"):
        build_store(tmp_path / "p.zarr", fields, *rest, quality=Quality(strict=True))
    assert not list(tmp_path.glob("p.zarr*"))  # nothing was computed
    store = open_store(build_store(tmp_path / "p.zarr", fields, *rest))
    assert not np.isin(store["time"].values, times[gap]).any()
    for path in paths:
        path.write_text("nothing")
    with pytest.raises(InputError, match=r"cannot open .*part0.nc"):
        open_fields(paths, ["msl"])


def test_a_variable_in_a_file_that_cannot_be_opened(small, tmp_path):
    small[0][["msl"]].to_netcdf(tmp_path / "msl.nc")
    (tmp_path / "vo.nc").write_text("nothing")
    with pytest.raises(InputError, match=r"`vo850` is unknown.*vo.nc: unreadable"):
        open_fields([tmp_path / "msl.nc", tmp_path / "vo.nc"], ["msl", "vo850"])


@pytest.mark.parametrize("kind", ["nc", "zarr"])
def test_a_chunk_that_cannot_be_read_loses_its_samples_only(
    small, small_files, tmp_path, kind, monkeypatch
):
    """Oracle: the store of the same fields, whole; and again when the chunk has come back."""
    data = small[0][["msl"]]
    path = tmp_path / f"fields.{kind}"
    if kind == "nc":
        encoding = {"zlib": True, "chunksizes": (8, 37, 72)}
        data.to_netcdf(path, encoding={"msl": encoding})
    else:
        data.chunk(time=8).to_zarr(path, consolidated=False)
    fields = Fields([str(path)], ["msl"])
    incidents = Incidents(catalogue=str(small_files[1]), where={"deepening_bergeron": {"min": 1.0}})
    rest = (incidents, Patches(8, 2, 0.2), Splits(target_per_group=2, gap="0h"))
    monkeypatch.setattr("data_pipelines.opening.CHUNK_BYTES", 8 * 37 * 72 * 4)
    whole = open_store(build_store(tmp_path / "whole.zarr", fields, *rest)).compute()
    if kind == "nc":
        bytes_of, at = path.read_bytes(), None
        for at in range(len(bytes_of) // 2, len(bytes_of)):
            if bytes_of[at : at + 2] == b"\x78\x5e":  # the head of a deflated chunk
                break
        path.write_bytes(bytes_of[: at + 40] + b"\xff" * 64 + bytes_of[at + 104 :])
    else:
        chunk = path / "msl" / "c" / "5" / "0" / "0"
        fine = chunk.read_bytes()
        chunk.write_bytes(b"x" * len(fine))  # the size is in the fingerprint
    got = open_store(build_store(tmp_path / "holed.zarr", fields, *rest)).compute()
    report = json.loads((tmp_path / "quality.json").read_text())
    (found,) = report["findings"]
    assert (found["variable"], found["problem"]) == ("fields", "unreadable")
    first, last = np.datetime64(found["first"]), np.datetime64(found["last"])
    lost = (got["time"].values >= first) & (got["time"].values <= last)
    assert 0 < lost.sum() < lost.size / 3
    assert (got["split"].values[lost] == 0).all() and got.attrs["dropped"]["missing_values"] > 0
    np.testing.assert_array_equal(got["patches"].values[~lost], whole["patches"].values[~lost])
    assert np.isnan(got["patches"].values[lost]).all()
    if kind == "zarr":
        strict = {"quality": Quality(strict=True)}
        with pytest.raises(InputError, match=r"got 1, the first: fields: .* unreadable"):
            build_store(tmp_path / "again.zarr", fields, *rest, **strict)
        chunk.write_bytes(fine)
        again = open_store(build_store(tmp_path / "again.zarr", fields, *rest, **strict))
        np.testing.assert_array_equal(again["patches"].values, whole["patches"].values)
