from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from data_pipelines.build import build_store
from data_pipelines.errors import InputError
from data_pipelines.fields import open_fields
from data_pipelines.patches import Cutter, overlapping
from data_pipelines.schema import GROUPS, SPLITS, PatchGrid
from data_pipelines.settings import Fields, Incidents, Patches, Splits
from data_pipelines.statistics import block_sums, from_sums
from data_pipelines.store import open_store

LAGS = ["0h", "-24h"]
SPLIT = Splits(target_per_group=6, fractions=[0.5, 0.25, 0.25], gap="1d")


def build(files, path, **changes):
    fields = Fields([str(files[0])], ["msl", "vo850"], LAGS, ["vo850"])
    incidents = Incidents(catalogue=str(files[1]), where={"deepening_bergeron": {"min": 1.0}})
    settings = {"patches": Patches(8, 2, 0.2), "splits": SPLIT} | changes
    return build_store(path, fields, incidents, settings["patches"], settings["splits"])


@pytest.fixture(scope="module")
def store(small_files, tmp_path_factory):
    return open_store(build(small_files, tmp_path_factory.mktemp("store") / "patches.zarr"))


@pytest.fixture(scope="module")
def dense(small_files, tmp_path_factory):
    """The same with incidents of train at every place of the central cell."""
    path = tmp_path_factory.mktemp("dense") / "patches.zarr"
    return open_store(build(small_files, path, patches=Patches(8, 2, 0.2, incident_stride=1)))


@pytest.fixture(scope="module", params=["store", "dense"])
def either(request):
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def fields(small_files):
    return open_fields([small_files[0]], ["msl", "vo850"], lags=LAGS, hemisphere_sign=["vo850"])


def grid_of(fields):
    return PatchGrid(fields["latitude"].values, fields["longitude"].values, 8, 2)


def test_patches_are_the_fields_around_their_centres(either, fields):
    """Oracle: select by coordinates from the eager fields, wrapped by modulo."""
    store, eager = either, fields.compute()
    rng = np.random.default_rng(0)
    crossing = np.flatnonzero((store["longitude"] > 345) | (store["longitude"] < 15))
    for i in [*rng.choice(store.sizes["sample"], 40), *crossing[:20]]:
        one = store.isel(sample=int(i))
        lat = float(one["latitude"]) + 5.0 * (3.5 - np.arange(8))
        lon = (float(one["longitude"]) + 5.0 * (np.arange(8) - 3.5)) % 360
        wanted = eager.sel(time=one["time"].values, latitude=lat).sel(longitude=lon)
        np.testing.assert_array_equal(one["patches"].values, wanted.values)


def test_labels_agree_with_the_catalogue(either, small):
    """Oracle: distance in degrees of every catalogue entry to every centre, sample by sample."""
    _, catalogue = small
    half = 5.0
    by_time = dict(list(catalogue.groupby("time")))
    table = either[["time", "latitude", "longitude", "group"]].compute().to_dataframe()
    checked = 0
    for row in table.sample(1500, random_state=0).itertuples():
        entries = by_time.get(row.time)
        group = 0
        if entries is not None:
            dy = entries["latitude"] - row.latitude
            dx = (entries["longitude"] - row.longitude + 180) % 360 - 180
            inside = (dy > -half + 1e-3) & (dy < half - 1e-3) & (dx.abs() < half - 1e-3)
            edge = (dy.abs() < half + 1e-3) & (dx.abs() < half + 1e-3) & ~inside
            if edge.any():
                continue
            if inside.any():
                group = 2 if (entries["deepening_bergeron"][inside] >= 1).any() else 1
        assert row.group == group
        checked += 1
    assert checked > 1000


def test_natural_prevalence_and_disjoint_splits(store, fields):
    grid = grid_of(fields)
    table = store[["time", "split", "group", "incident_id"]].compute().to_dataframe()
    table["split"] = [SPLITS[s] for s in table["split"]]
    per_step = table[table["split"] == "test"].groupby("time").size()
    assert (per_step == grid.rows * grid.columns).all()  # every position, every test time
    kept = table[table["split"] != "dropped"]
    storms = {s: set(g) - {""} for s, g in kept.groupby("split")["incident_id"]}
    names = list(storms)
    for i, a in enumerate(names):
        for b in names[i + 1 :]:
            assert not storms[a] & storms[b], (a, b)
    counts = table[table["split"] == "target"]["group"].value_counts()
    assert list(counts) == [6, 6, 6]
    train = table[table["split"] == "train"]
    share = (train["group"] == 0).sum() / (train["time"].nunique() * grid.rows * grid.columns)
    assert 0.12 < share < 0.22  # less what overlaps the target set


def test_no_training_sample_holds_a_field_value_of_the_target_set(either):
    """Oracle: the (time, point) pairs of every sample, lags included, as sets."""
    lags = [pd.Timedelta(lag) for lag in LAGS]

    def points(row):
        lat = np.round((90 - row.latitude) / 5 - 3.5).astype(int) + np.arange(8)
        lon = (np.round(row.longitude / 5 - 3.5).astype(int) + np.arange(8)) % 72
        return {(row.time + lag, y, x) for lag in lags for y in lat for x in lon}

    table = either[["time", "latitude", "longitude", "split"]].compute().to_dataframe()
    table["split"] = [SPLITS[s] for s in table["split"]]
    held = set()
    for row in table[table["split"] == "target"].itertuples():
        held |= points(row)
    for row in table[table["split"] == "train"].itertuples():
        assert held.isdisjoint(points(row))


def near(table, entry, degrees):
    east = (table["longitude"] - entry.longitude + 180) % 360 - 180
    return ((table["latitude"] - entry.latitude).abs() <= degrees) & (east.abs() <= degrees)


def test_incidents_of_train_come_at_every_point_of_the_central_cell(store, dense, small):
    """Oracle: the corners of the cells that hold an entry, counted by hand; else all the same."""
    place = ["time", "latitude", "longitude"]
    kept = ["label", "group", "split", "incident_id"]
    before, after = (s[[*place, *kept]].compute().to_dataframe() for s in (store, dense))
    for frame in (before, after):
        frame[["latitude", "longitude"]] = frame[["latitude", "longitude"]].round(3)
    training = [SPLITS.index(name) for name in ("dropped", "train", "target")]
    others = [f[~f["split"].isin(training)].reset_index(drop=True) for f in (before, after)]
    pd.testing.assert_frame_equal(*others)

    entries = small[1]
    times = after.loc[after["split"] == SPLITS.index("train"), "time"]
    elsewhere = set(after.loc[after["split"] > SPLITS.index("target"), "incident_id"])
    incident = GROUPS.index("incident")
    samples = after[after["split"].isin(training) & (after["group"] == incident)]
    few, many = ((f["group"] != incident)[f["split"].isin(training)].sum() for f in (before, after))
    assert few == many  # the others come once
    checked = 0
    strong = entries["time"].isin(times) & (entries["deepening_bergeron"] >= 1)
    for entry in entries[strong & (entries["latitude"].abs() < 60)].itertuples():
        table = entries[entries["time"] == entry.time]
        apart = near(table, entry, 10.0)
        if not set(table["storm_id"][apart]) & elsewhere:
            # Cells are half open: an entry lies in 2 x 2 of those that begin at every point.
            assert near(samples[samples["time"] == entry.time], entry, 5.0).sum() == 4
            checked += 1
    assert checked > 20


def test_whole_fields_a_lag_apart_overlap():
    grid = PatchGrid(np.linspace(60.0, 40, 5), np.arange(0.0, 30, 5), 0, 1, whole=True)
    times = pd.date_range("2001-01-01", periods=6, freq="12h")
    samples = pd.DataFrame({"step": np.arange(6), "corner": 0})
    near = overlapping(samples, np.array([3]), grid, times, [-24.0, 0.0])
    assert near.tolist() == [False, True, False, True, False, True]


def test_times_before_1970(small, tmp_path):
    """The draw of the background knows no year 0; after 1970 it is what it was."""
    fields, catalogue = small
    old = fields.assign_coords(time=fields["time"] - pd.Timedelta(days=365 * 70))
    old.to_netcdf(tmp_path / "old.nc")
    shifted = catalogue.assign(time=pd.to_datetime(catalogue["time"]) - pd.Timedelta(days=365 * 70))
    shifted.to_csv(tmp_path / "old.csv", index=False)
    got = open_store(build((tmp_path / "old.nc", tmp_path / "old.csv"), tmp_path / "o.zarr"))
    assert got["time"].values.max() < np.datetime64("1970-01-01")
    share = float((got["split"] == SPLITS.index("train")).mean())
    assert share > 0.05


def test_statistics_are_those_of_xarray(fields):
    """Block by block, with holes, against the weighted mean and deviation of the whole."""
    eager = fields.isel(time=slice(10, 30)).compute()
    eager[3, 0, 5, 6] = eager[9, 1, :, 2] = np.nan
    sums = [block_sums(part, eager["latitude"].values) for part in np.split(eager.values, [7, 8])]
    mean, std = from_sums(sums)
    weights = np.cos(np.deg2rad(eager["latitude"])).clip(0)
    dims = ("time", "latitude", "longitude")
    whole = eager.astype(float).weighted(weights)
    np.testing.assert_allclose(mean, whole.mean(dims), rtol=1e-9)
    np.testing.assert_allclose(std, whole.std(dims), rtol=1e-6)


def test_statistics_come_from_training_dates_only(store, fields):
    """The training dates are those of training samples, here before the first validation day."""
    times = store["time"].values[store["split"].values == SPLITS.index("train")]
    eager = fields.sel(time=slice(times.min(), times.max())).compute().astype(float)
    weights = np.cos(np.deg2rad(eager["latitude"])).clip(0)
    mean = eager.weighted(weights).mean(("time", "latitude", "longitude"))
    np.testing.assert_allclose(store["mean"], mean, rtol=1e-9)


def test_cutting_is_slicing_of_the_wrapped_fields():
    """Oracle: np.take with wrapped indices, patch by patch; full and thin steps, a region."""
    rng = np.random.default_rng(0)
    for longitude in (np.arange(0.0, 360.0, 30.0), np.arange(10.0, 34.0, 2.0)):
        grid = PatchGrid(np.linspace(40.0, -40.0, 9), longitude, 4, 2)
        values = rng.normal(size=(3, 2, 9, 12)).astype(np.float32)
        row, column = np.indices((grid.rows, grid.columns)).reshape(2, -1)
        left = rng.integers(0, 12 if grid.is_global else 9, 50)
        places = np.r_[2 * row, 0, 0, 2, rng.integers(0, 6, 50)]  # the last lie anywhere
        along = np.r_[2 * column, 0, 6, 8, left]
        step = np.r_[np.zeros(len(row), dtype=int), 2, 2, 2, np.sort(rng.integers(0, 3, 50))]
        out = np.full((len(step), 2, 4, 4), np.nan, dtype=np.float32)
        Cutter(values, grid).cut(step, 12 * places + along, out)
        np.testing.assert_array_equal(grid.corner(row, column), 24 * row + 2 * column)
        for k, (s, y, x) in enumerate(zip(step, places, along, strict=True)):
            y, x = y + np.arange(4), (x + np.arange(4)) % 12
            np.testing.assert_array_equal(out[k], values[s].take(y, 1).take(x, 2))


def test_columns_that_the_stride_leaves_over_are_told(small_files, tmp_path, caplog):
    """72 columns are 4 times 16 and 8; the central cells begin at column 4, 20 E."""
    few = replace(SPLIT, target_per_group=2)
    build(small_files, tmp_path / "patches.zarr", patches=Patches(24, 16, 1.0), splits=few)
    assert "leave 8 of 72 columns of a global grid, 340 to 15 E" in caplog.text
    assert "`patches.stride: 8` would leave none" in caplog.text
    caplog.clear()
    build(small_files, tmp_path / "even.zarr", patches=Patches(24, 8, 1.0), splits=few)
    assert "columns" not in caplog.text


def test_same_inputs_give_the_same_store_and_no_second_build(small_files, tmp_path, store):
    path = build(small_files, tmp_path / "patches.zarr")
    xr.testing.assert_identical(open_store(path).compute(), store.compute())
    before = (path / "zarr.json").stat().st_mtime_ns
    build(small_files, path)
    assert (path / "zarr.json").stat().st_mtime_ns == before
    build(small_files, path, patches=Patches(8, 2, 0.1))
    assert (path / "zarr.json").stat().st_mtime_ns != before


def test_missing_values_drop_their_patches_and_are_counted(small, small_files, tmp_path):
    holed = small[0].copy(deep=True)
    holed["msl"][:, 10, 20] = np.nan
    holed.to_netcdf(tmp_path / "holed.nc")
    got = open_store(build((tmp_path / "holed.nc", small_files[1]), tmp_path / "p.zarr"))
    bad = ~np.isfinite(got["patches"].values).all(axis=(1, 2, 3))
    assert bad.any() and (got["split"].values[bad] == SPLITS.index("dropped")).all()
    assert got.attrs["dropped"]["missing_values"] == bad.sum()
    assert np.isfinite(got["mean"]).all()


def test_unfinished_or_missing_store_is_refused(small_files, tmp_path):
    with pytest.raises(InputError, match="no patch store"):
        open_store(tmp_path / "none.zarr")
    path = build(small_files, tmp_path / "patches.zarr")
    import zarr

    zarr.open_group(path, mode="a").attrs["complete"] = False
    with pytest.raises(InputError, match="unfinished"):
        open_store(path)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"splits": Splits(gap="6h")}, r"`splits.gap` must be at least the largest lag"),
        ({"splits": Splits(gap="long")}, r"`splits.gap` must be a duration"),
        ({"splits": Splits(gap="1d", target_per_group=500)}, "target_per_group"),
        ({"patches": Patches(80, 2)}, r"`patches.size` must be at most"),
        ({"patches": Patches(8, 2, 0.0)}, r"`patches.background_share`"),
        ({"patches": {"incident_stride": 3}}, r"`patches.incident_stride` must divide"),
        ({"patches": {"incident_stride": 1, "whole_field": True}}, r"must be 0 with"),
    ],
)
def test_bad_settings(small_files, tmp_path, changes, words):
    with pytest.raises(InputError, match=words):
        if isinstance(changes.get("patches"), dict):
            changes = {"patches": Patches(**changes["patches"])}
        build(small_files, tmp_path / "p.zarr", **changes)
    assert not list(tmp_path.iterdir())  # nothing half written


def test_groups_have_a_reason(store):
    for group, reason in zip(
        GROUPS, ("background", "catalogue_entry", "selected_entry"), strict=True
    ):
        chosen = store["reason"].values[store["group"].values == GROUPS.index(group)]
        assert set(chosen) == {reason}
