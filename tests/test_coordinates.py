"""Which variables are the axes; the oracle is the latitudes that the file was made with."""

import numpy as np
import pytest
from conftest import make_field

from data_pipelines.coordinates import canonical_coordinates
from data_pipelines.errors import InputError

LAT = np.arange(60, 19, -10.0)
LON = np.arange(0, 60, 10.0)
NORTH = {"units": "degrees_north"}
EAST = {"units": "degrees_east"}


def indexed(latitude, longitude, name="lat"):
    """A field along indices y and x, with its places beside them."""
    field = make_field(LAT, LON).rename(latitude="y", longitude="x")
    place = {name: latitude, name.replace("lat", "lon").replace("LAT", "LONG"): longitude}
    axes = {"y": np.arange(len(LAT)), "x": np.arange(len(LON))}
    return field.assign_coords(**axes, **place)


def test_degrees_are_taken_before_indices():
    got = canonical_coordinates(indexed(("y", LAT, NORTH), ("x", LON, EAST), "place_lat"))
    np.testing.assert_array_equal(got["latitude"].values, LAT)
    np.testing.assert_array_equal(got["longitude"].values, LON)


def test_a_track_beside_the_fields_is_no_axis():
    field = make_field(LAT, LON)
    along = ("time", np.full(field.sizes["time"], 5.0), NORTH)
    field = field.assign(storm=along)
    np.testing.assert_array_equal(canonical_coordinates(field)["latitude"].values, LAT)


@pytest.mark.parametrize("attributes", [NORTH, {"standard_name": "latitude"}])
def test_curvilinear_grids_are_refused_whatever_their_names(attributes):
    north, east = np.meshgrid(LAT, LON, indexing="ij")
    field = indexed((("y", "x"), north, attributes), (("y", "x"), east, EAST), "TLAT")
    with pytest.raises(InputError, match="`latitude` must be one-dimensional, got `TLAT`"):
        canonical_coordinates(field)


@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        ({"units": "km"}, "in degrees, got `y` with units `km`"),
        ({"standard_name": "projection_y_coordinate", "units": "m"}, "`projection_y_coordinate`"),
        ({"standard_name": "grid_latitude", "units": "degrees"}, "standard_name `grid_latitude`"),
    ],
)
def test_projected_and_rotated_axes_are_refused(attributes, words):
    field = make_field(LAT, LON).rename(latitude="y", longitude="x")
    field["y"].attrs = attributes
    with pytest.raises(InputError, match=words):
        canonical_coordinates(field)


def test_radians_are_refused():
    field = make_field(LAT, LON)
    field = field.assign_coords(latitude=("latitude", np.deg2rad(LAT), {"units": "radians"}))
    with pytest.raises(InputError, match="in degrees, got `latitude` with units `radians`"):
        canonical_coordinates(field)


@pytest.mark.parametrize("units", ["", "degrees", "degrees_north", "degree_N", "degrees north"])
def test_bare_names_stay_good(units):
    field = make_field(LAT, LON).rename(latitude="y", longitude="x")
    field["y"].attrs = {"units": units} if units else {}
    np.testing.assert_array_equal(canonical_coordinates(field)["latitude"].values, LAT)


@pytest.mark.parametrize("units", ["", "1", "degrees", "deg N"])
def test_units_that_say_nothing_leave_the_name(units):
    field = make_field(LAT, LON).rename(latitude="lat", longitude="lon")
    field["lat"].attrs = {"units": units}
    np.testing.assert_array_equal(canonical_coordinates(field)["latitude"].values, LAT)
