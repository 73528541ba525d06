"""A glance at fields and catalogues, and opening them without a guess."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from conftest import make_field

from data_pipelines.catalogues import USUAL_NAMES
from data_pipelines.errors import InputError
from data_pipelines.fields import open_fields
from data_pipelines.incidents import read_catalogue
from data_pipelines.opening import open_files
from data_pipelines.survey import refuse_impossible, sampled_steps, survey_catalogue, survey_fields


def test_a_region_across_greenwich(tmp_path):
    """Oracle: longitudes from -180 to 180, half a grid spacing around the region."""
    make_field(np.linspace(60, 40, 9), np.linspace(-20, 10, 13)).to_netcdf(tmp_path / "one.nc")
    survey = survey_fields([tmp_path / "one.nc"])
    rng = np.random.default_rng(0)
    latitude, longitude = rng.uniform(30, 70, 500), rng.uniform(-180, 180, 500)
    inside = (latitude >= 38.75) & (latitude <= 61.25) & (np.abs(longitude + 5) <= 16.25)
    np.testing.assert_array_equal(survey.inside(latitude, longitude), inside)
    np.testing.assert_array_equal(survey.inside(latitude, longitude % 360), inside)
    assert survey.stored == (60.0, 40.0, -20.0, 10.0) and survey.step_hours == 6.0
    assert survey.spacing == pytest.approx((2.5, 2.5)) and not survey.is_global


def test_values_that_the_units_make_impossible(tmp_path):
    """hPa that the file calls Pa; a few impossible values are a matter of quality control."""
    fields = make_field(np.linspace(60, 40, 9), np.linspace(-20, 10, 13))
    (fields / 100).assign(msl=(fields["msl"] / 100).assign_attrs(units="Pa")).to_netcdf(
        tmp_path / "wrong.nc"
    )
    (found,) = survey_fields([tmp_path / "wrong.nc"]).variables
    assert "are not possible, which is 80000 to 112000" in found.problem
    assert "right units (`Pa`)" in found.problem
    fields["msl"][0, 0] = 5.0
    fields.to_netcdf(tmp_path / "few.nc")
    (found,) = survey_fields([tmp_path / "few.nc"]).variables
    assert found.problem == ""


def test_a_map_is_not_drawn_of_impossible_fields(tmp_path):
    fields = make_field(np.linspace(60, 40, 9), np.linspace(-20, 10, 13))
    fields.to_netcdf(tmp_path / "right.nc")
    refuse_impossible(open_fields([tmp_path / "right.nc"], ["msl"]))
    wrong = (fields["msl"] / 100).assign_attrs(units="Pa")
    fields.assign(msl=wrong).to_netcdf(tmp_path / "wrong.nc")
    with pytest.raises(InputError, match="`msl` must lie within 80000 to 112000 Pa, got 9"):
        refuse_impossible(open_fields([tmp_path / "wrong.nc"], ["msl"]))


def test_a_few_steps_are_looked_at():
    assert sampled_steps(np.arange(101)).tolist() == [0, 25, 50, 75, 100]
    assert sampled_steps(np.array([4, 9])).tolist() == [4, 9]


def test_netcdf_is_opened_without_looking_at_plugins(tmp_path, monkeypatch):
    make_field(np.linspace(60, 40, 9), np.linspace(0, 10, 5)).to_netcdf(tmp_path / "one.nc")

    def refuse(*arguments):
        raise AssertionError("plugins were imported")

    monkeypatch.setattr(xr.backends.plugins, "list_engines", refuse)
    dataset, findings = open_files([tmp_path / "one.nc"])
    assert dataset.sizes["time"] == 3 and not findings


@pytest.mark.parametrize("column", USUAL_NAMES)
def test_usual_names_of_columns(column, tmp_path):
    row = {"time": ["2001-01-01"], "latitude": [50.0], "longitude": [-3.0], "storm_id": ["007"]}
    plain = pd.DataFrame(row)
    for name in USUAL_NAMES[column][1:]:
        for written in (name, name.upper()):
            plain.rename(columns={column: written}).to_csv(tmp_path / "c.csv", index=False)
            table = read_catalogue(tmp_path / "c.csv")
            assert table["storm_id"].tolist() == ["007"] and table["longitude"].tolist() == [357.0]
            assert table.attrs["renamed"] == {written: column}
    # The own name counts where it is there; two others do not tell which.
    plain.assign(lat=0.0, lon=0.0).to_csv(tmp_path / "both.csv", index=False)
    assert read_catalogue(tmp_path / "both.csv")["latitude"].tolist() == [50.0]
    two = plain.rename(columns={"longitude": "lon"}).assign(long=0.0)
    two.to_csv(tmp_path / "two.csv", index=False)
    with pytest.raises(InputError, match="`longitude` is unknown"):
        read_catalogue(tmp_path / "two.csv")


def test_names_that_are_used_again(tmp_path):
    table = pd.DataFrame(
        {
            "time": ["2001-01-01", "2001-02-01", "2001-01-01", "2001-06-01"],
            "latitude": 50.0, "longitude": 3.0, "storm_id": ["a", "a", "b", "b"],
            "kind": ["low", "low", "", "low"], "depth": [1, 2, None, 4],
        }
    )  # fmt: skip
    table.to_csv(tmp_path / "c.csv", index=False)
    survey = survey_catalogue(tmp_path / "c.csv")
    assert survey.overlong() == ["b"] and survey.storms == 2
    assert survey.numbers() == {"depth": (1.0, 4.0, 3)}
