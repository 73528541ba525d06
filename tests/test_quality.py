"""What cannot be right is found, reported, and never reaches training."""

import json

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from test_build import LAGS, SPLIT, build

from data_pipelines.build import build_store
from data_pipelines.errors import InputError
from data_pipelines.fields import open_fields
from data_pipelines.quality import Finding, Quality, check_block, joined
from data_pipelines.schema import SPLITS
from data_pipelines.settings import Fields, Incidents, Patches
from data_pipelines.store import open_store


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


def test_findings_along_time(small, tmp_path):
    """Two steps missing, one given twice, the last three preliminary."""
    fields = small[0].isel(time=slice(0, 30))
    times = pd.DatetimeIndex(fields["time"].values)
    kept = np.r_[0:10, 12:20, 19, 20:30]
    version = np.where(kept >= 27, "0005", "0001")
    broken = fields.isel(time=kept).assign_coords(expver=("time", version))
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


def open_fields_of(dataset, folder):
    dataset.to_netcdf(folder / "whole.nc")
    return open_fields([folder / "whole.nc"], ["msl"]).values


def test_era5_and_era5t_side_by_side(small, tmp_path):
    """The older layout: a dim `expver`, each version missing where the other has values."""
    fields = small[0].isel(time=slice(0, 12))
    final, preliminary = fields.copy(deep=True), fields.copy(deep=True) + 1.0
    final["msl"][8:] = np.nan
    preliminary["msl"][:8] = np.nan
    both = xr.concat([final, preliminary], pd.Index([1, 5], name="expver"))
    both.to_netcdf(tmp_path / "both.nc")
    got = open_fields([tmp_path / "both.nc"], ["msl"])
    wanted = open_fields_of(fields, tmp_path)
    np.testing.assert_array_equal(got.values[:8], wanted[:8])
    np.testing.assert_allclose(got.values[8:], wanted[8:] + 1.0, rtol=1e-6)
    (found,) = json.loads(got.attrs["findings"])
    assert (found["variable"], found["problem"], found["values"]) == ("expver", "mixed", 12)
