import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import label as connected

from data_pipelines.areas import holed_patches, join_patches, label_from_areas, patch_shares
from data_pipelines.build import store_attributes
from data_pipelines.groups import Groups
from data_pipelines.labels import UNKNOWN
from data_pipelines.schema import GROUPS, PatchGrid
from data_pipelines.settings import Fields, Incidents, Mask, Patches, Splits

LATITUDE = np.linspace(40.0, -40.0, 9)
DAY = pd.date_range("2001-01-01", periods=1)
GRIDS = {
    "globe": PatchGrid(LATITUDE, np.arange(0.0, 360.0, 30.0), 4, 2),
    "region": PatchGrid(LATITUDE, np.arange(10.0, 34.0, 2.0), 4, 2),
    "whole": PatchGrid(LATITUDE, np.arange(10.0, 34.0, 2.0), 4, 2, whole=True),
}


@pytest.mark.parametrize("name", GRIDS)
def test_shares_are_the_weighted_means_of_each_patch(name):
    """Oracle: numpy's weighted average of the points of every patch, taken one by one, with all
    points that nobody knows counted as free, or as covered."""
    grid = GRIDS[name]
    rng = np.random.default_rng(0)
    event = (rng.random((3, 9, 12)) < 0.3).astype(np.float32)
    event[1, 4, 5] = event[2, :2] = np.nan
    least, most = patch_shares(event, grid)
    holed = holed_patches(np.isnan(event), grid)
    height, width = grid.shape
    assert least.shape == most.shape == holed.shape == (3, grid.rows, grid.columns)
    for k, row, column in np.ndindex(least.shape):
        y, x = 2 * row + np.arange(height), (2 * column + np.arange(width)) % 12
        weights = np.cos(np.deg2rad(LATITUDE[y]))[:, None] * np.ones(width)
        points = event[k][np.ix_(y, x)]
        for got, fill in ((least, 0.0), (most, 1.0)):
            wanted = np.average(np.where(np.isnan(points), fill, points), weights=weights)
            np.testing.assert_allclose(got[k, row, column], wanted, atol=1e-6)
        assert holed[k, row, column] == np.isnan(points).any()


def test_a_covered_patch_has_share_one_and_an_empty_one_zero():
    grid = PatchGrid(np.arange(90, -91, -2.5), np.arange(0, 360, 2.5), 16, 4)
    for shares in patch_shares(np.ones((1, 73, 144), dtype=np.float32), grid):
        np.testing.assert_allclose(shares, 1.0, atol=1e-12)
    for shares in patch_shares(np.zeros((1, 73, 144), dtype=np.float32), grid):
        assert (shares == 0).all()
    pole = np.zeros((1, 73, 144), dtype=bool)
    pole[0, 0] = True  # without area
    assert holed_patches(pole, grid).sum() == grid.columns


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), share=st.sampled_from([0.05, 0.3, 0.6, 1.0]))
def test_a_patch_is_unknown_only_if_its_kind_hangs_on_what_nobody_knows(seed, share):
    """Oracle: the labels of the fields with all unknown points free, and with all covered."""
    rng = np.random.default_rng(seed)
    grid = GRIDS["globe"]
    event = rng.choice([0.0, 1.0, np.nan], (2, 9, 12), p=[0.5, 0.35, 0.15]).astype(np.float32)
    steps, times = np.arange(2), pd.date_range("2001-01-01", periods=2)
    kinds = []
    for fill in (0.0, 1.0, np.nan):
        filled = np.where(np.isnan(event), np.float32(fill), event)
        table = label_from_areas([(steps, filled)], times, grid, share).table
        kind = np.zeros((2, grid.rows, grid.columns), dtype=int)
        kind[table["step"], table["row"], table["column"]] = table["kind"]
        kinds.append(kind)
    low, high, got = kinds
    blank = (low != high).all(axis=(1, 2), keepdims=True)  # such a time has no label at all
    np.testing.assert_array_equal(got, np.where(blank, 0, np.where(low == high, low, UNKNOWN)))


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), density=st.floats(0.02, 0.5))
def test_incidents_are_the_connected_regions(seed, density):
    """Oracle: scipy's labelling of the dense array of time, row and column, in a region."""
    grid = PatchGrid(np.linspace(40.0, -40.0, 15), np.arange(0.0, 30.0, 2.0), 4, 2)
    times = pd.date_range("2001-01-01", periods=6, freq="6h")
    dense = np.random.default_rng(seed).random((6, grid.rows, grid.columns)) < density
    step, row, column = np.nonzero(dense)
    table = pd.DataFrame({"step": step, "row": row, "column": column})
    got = join_patches(table, times, grid)
    wanted, count = connected(dense, structure=np.ones((3, 3, 3)))
    pairs = set(zip(got, wanted[dense], strict=True))
    assert len(pairs) == count == len({g for g, _ in pairs})


def test_incidents_join_across_the_date_line_but_not_across_a_gap_in_time():
    grid = GRIDS["globe"]
    times = pd.DatetimeIndex(["2001-01-01", "2001-01-02", "2001-01-09", "2001-01-10"])
    table = pd.DataFrame({"step": [0, 1, 2], "row": [1, 1, 1], "column": [0, grid.columns - 1, 0]})
    first, second, third = join_patches(table, times, grid)
    assert first == second != third
    assert first.startswith("20010101")


def test_a_missing_file_does_not_cut_an_incident_in_two():
    """Two days are gone, less than the gap between splits: both halves keep one name."""
    times = pd.DatetimeIndex(["2001-01-01", "2001-01-02", "2001-01-05", "2001-01-06"])
    table = pd.DataFrame({"step": [1, 2], "row": [1, 1], "column": [1, 1]})
    first, second = join_patches(table, times, GRIDS["region"])
    assert first == second
    six_hourly = pd.date_range("2001-01-01", periods=8, freq="6h").delete([3, 4])
    first, second = join_patches(table.assign(step=[2, 3]), six_hourly, GRIDS["region"])
    assert first == second


def test_kinds_and_what_is_not_known():
    grid = GRIDS["region"]
    times = pd.date_range("2001-01-01", periods=4)
    event = np.zeros((3, 9, 12), dtype=np.float32)
    event[0, :4, :4] = 1.0  # all of the first patch
    event[1, :3, :4] = np.nan  # three quarters of the first patch, half of that of its neighbour
    event[2] = np.nan
    got = label_from_areas([(np.array([0, 1, 2]), event)], times, grid, 0.6)
    kinds = got.table.set_index(["step", "row", "column"])["kind"]
    assert kinds[0, 0, 0] == GROUPS.index("incident")
    assert kinds[0, 0, 1] == GROUPS.index("hard_negative")  # half of it, and 0.3 are enough
    assert (0, 2, 2) not in kinds.index
    assert kinds[1, 0, 0] == UNKNOWN
    assert list(got.unlabelled) == [False, False, True, True]  # all missing; never came
    assert got.unused == {"times_without_label": 2, "patches_without_label": 2}
    storms = got.table["storms"][got.table["kind"] == GROUPS.index("incident")]
    assert len(set(storms)) == 1 and len(next(iter(storms))) == 1


def test_masks_coarser_than_the_fields_and_blank_steps_do_not_cut_an_incident():
    """Masks every 12 hours, one of them blank, fields every 6: one spell stays one incident."""
    grid = GRIDS["region"]
    times = pd.date_range("2001-01-01", periods=12, freq="6h")
    event = np.zeros((6, 9, 12), dtype=np.float32)
    event[:, :4, :4] = 1.0
    event[3] = np.nan
    table = label_from_areas([(np.arange(0, 12, 2), event)], times, grid, 0.6).table
    incident = table[table["kind"] == GROUPS.index("incident")]
    assert sorted(incident["step"].unique()) == [0, 2, 4, 8, 10]
    assert set(incident["incident_id"]) == {"20010101T00_0"}


@pytest.mark.parametrize("latitude", [np.linspace(51.3, 11.3, 9), np.linspace(89.7, -88.1, 9)])
def test_a_patch_of_exactly_the_least_share_is_an_incident(latitude):
    """Half of the columns of each patch covered, and all of them: shares of exactly 0.5 and 1."""
    grid = PatchGrid(latitude, np.arange(0.0, 360.0, 30.0), 4, 2)
    half = np.zeros((1, 9, 12), dtype=np.float32)
    half[:, :, ::2] = 1.0
    patches = grid.rows * grid.columns
    for event, share, kind in (
        (half, 0.5, "incident"),
        (np.ones_like(half), 1.0, "incident"),
        (half, 1.0, "hard_negative"),
    ):
        table = label_from_areas([(np.array([0]), event)], DAY, grid, share).table
        assert (table["kind"] == GROUPS.index(kind)).sum() == patches


def test_a_file_of_masks_is_no_file_of_fields(tmp_path):
    """The same files, divided otherwise: not the same store."""
    (tmp_path / "a.nc").write_bytes(b"a")
    (tmp_path / "b.nc").write_bytes(b"b")

    def identity(fields, mask):
        places = [[str(tmp_path / name) for name in names] for names in (fields, mask)]
        incidents = Incidents(rule="mask", mask=Mask("labels", places[1]))
        fields, splits = Fields(places[0], ["msl"]), Splits(fractions=[0.5, 0.25, 0.25])
        array = xr.DataArray()
        return store_attributes(fields, incidents, Patches(8, 2), splits, Groups(), 0, array)

    assert identity(["a.nc", "b.nc"], []) != identity(["a.nc"], ["b.nc"])
    assert identity(["a.nc"], ["b.nc"]) == identity(["a.nc"], ["[b].nc"])
    (tmp_path / "c.nc").write_bytes(b"c")
    assert identity(["a.nc"], ["[bc].nc"]) == identity(["a.nc"], ["b.nc", "c.nc"])
    assert identity(["a.nc"], ["[bc].nc"]) != identity(["a.nc", "b.nc"], ["c.nc"])
