from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipelines.errors import InputError
from data_pipelines.schema import PatchGrid, great_circle_km

GLOBE = PatchGrid(np.arange(90, -91, -2.5), np.arange(0, 360, 2.5), 16, 4)
REGION = PatchGrid(np.arange(70, 29, -2.5), np.arange(290, 371, 2.5), 12, 4)


@pytest.mark.parametrize(
    "grid",
    [
        GLOBE,
        REGION,
        PatchGrid(GLOBE.latitude, GLOBE.longitude, 9, 3),
        replace(GLOBE, first=(3, 2)),
        replace(REGION, first=(1, 3)),
    ],
)
def test_central_cells_tile_the_domain(grid):
    """Brute force: each grid point lies in the cell of the patches that hold it, at most one."""
    owner = np.full((len(grid.latitude), len(grid.longitude)), -1)
    for row in range(grid.rows):
        for column in range(grid.columns):
            corner = grid.corner(np.array([row]), np.array([column]))
            top, left = (int(v[0]) for v in grid.top_left(corner))
            assert top == grid.first[0] + row * grid.stride
            assert left == (grid.first[1] + column * grid.stride) % len(grid.longitude)
            y = top + grid.margin + np.arange(grid.stride)
            x = (left + grid.margin + np.arange(grid.stride)) % len(grid.longitude)
            latitude, longitude = grid.centre(corner)
            assert latitude == grid.centre_latitude()[row]
            assert (longitude - grid.centre_longitude()[column]) % 360 == pytest.approx(0)
            cell = owner[np.ix_(y, x)]
            assert (cell == -1).all()
            owner[np.ix_(y, x)] = row * grid.columns + column
    if grid.is_global:  # all the way around, but for what the stride leaves over
        of_row = (owner != -1).sum(axis=1)
        around = len(grid.longitude) // grid.stride * grid.stride
        assert set(of_row) == {0, around} and (of_row > 0).sum() == grid.rows * grid.stride
    lat, lon = np.meshgrid(grid.latitude, grid.longitude, indexing="ij")
    row, column = grid.cells(lat.ravel(), lon.ravel() - 360.0)
    flat = np.where(row < 0, -1, row * grid.columns + column)
    np.testing.assert_array_equal(flat.reshape(lat.shape), owner)
    if grid.first == (0, 0):
        south, east = grid.positions(grid.stride)
        np.testing.assert_array_equal(south, grid.centre_latitude())
        np.testing.assert_array_equal(east % 360.0, grid.centre_longitude())
        assert len(grid.positions(1)[0]) == len(grid.latitude) - grid.size + 1


@pytest.mark.parametrize("whole", [False, True])
def test_the_cells_of_a_region_reach_as_far_west_as_east_and_as_far_north_as_south(whole):
    """Patches without a margin, and the whole field: half a grid step beyond each edge."""
    grid = PatchGrid(np.linspace(50.0, 40.0, 5), np.arange(350.0, 361.0, 2.5), 4, 4, whole=whole)
    if not whole:
        grid = PatchGrid(np.linspace(50.0, 42.5, 4), np.arange(350.0, 358.0, 2.5), 4, 4)
    east, south = grid.longitude[-1], grid.latitude[-1]
    for beyond, wanted in ((1.2, 0), (1.3, -1)):
        latitude = np.array([45.0, 45.0, 50.0 + beyond, south - beyond])
        longitude = np.array([350.0 - beyond, (east + beyond) % 360.0, 352.0, 352.0])
        row, column = grid.cells(latitude, longitude)
        assert row.tolist() == column.tolist() == [wanted] * 4


@given(lat=st.floats(-90, 90), lon=st.floats(-180, 360))
def test_point_is_near_the_centre_of_its_patch(lat, lon):
    row, column = (int(v[0]) for v in GLOBE.cells(np.array([lat]), np.array([lon])))
    if row >= 0:
        half = GLOBE.stride * GLOBE.dlat / 2
        assert abs(GLOBE.centre_latitude()[row] - lat) <= half + 1e-6
        east = (GLOBE.centre_longitude()[column] - lon + 180) % 360 - 180
        assert abs(east) <= half + 1e-6


def test_patch_counts_of_the_globe():
    assert GLOBE.is_global
    assert (GLOBE.rows, GLOBE.columns) == (15, 36)
    assert not REGION.is_global


@pytest.mark.parametrize(("size", "stride"), [(80, 4), (16, 3), (4, 8), (16, 0)])
def test_patches_that_cannot_be_cut(size, stride):
    with pytest.raises(InputError, match=r"patches\.size"):
        PatchGrid(GLOBE.latitude, GLOBE.longitude, size, stride)


def test_great_circle():
    quarter = great_circle_km(np.array(0.0), np.array(0.0), np.array(0.0), np.array(90.0))
    assert quarter == pytest.approx(np.pi / 2 * 6371.0)
    assert great_circle_km(np.array(80.0), np.array(179.0), np.array(80.0), np.array(-179.0)) < 40
