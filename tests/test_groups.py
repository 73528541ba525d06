import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipelines.errors import InputError
from data_pipelines.groups import Grouping, Groups
from data_pipelines.schema import GROUPS

BOX = {"south": -10, "north": 40, "west": 170, "east": 200}


def one(settings, kind="incident", time="2001-01-15", latitude=50.0, longitude=10.0):
    grouping = Grouping(settings)
    code = grouping.code(
        np.array([GROUPS.index(kind)]),
        pd.DatetimeIndex([time]),
        np.array([latitude]),
        np.array([longitude]),
    )
    return grouping.names[int(code[0])]


def test_without_strata_groups_are_the_kinds():
    assert Grouping(Groups()).names == GROUPS
    assert one(Groups(), "hard_negative") == "hard_negative"
    assert Grouping(Groups(by=[])).names == ("normal", "incident")
    assert one(Groups(by=[]), "hard_negative") == one(Groups(by=[]), "background") == "normal"


@pytest.mark.parametrize(
    ("time", "season"),
    [("2000-02-29", "djf"), ("2001-03-01", "mam"), ("2001-08-31", "jja"), ("2001-11-30", "son"),
     ("2001-12-01", "djf")],
)  # fmt: skip
def test_seasons_are_the_meteorological_ones(time, season):
    assert one(Groups(by=["season"]), time=time) == f"incident_{season}"


def test_places():
    bands = Groups(by=["latitude_band"])
    assert [one(bands, latitude=v) for v in (0.0, -29.9, 30.0, -60.0, 90.0)] == [
        "incident_0to30", "incident_0to30", "incident_30to60", "incident_60to90", "incident_60to90"
    ]  # fmt: skip
    assert one(Groups(by=["hard_negative", "hemisphere"]), "background", latitude=-1.0) == (
        "background_south"
    )
    region = Groups(by=["region"], regions={"dateline": BOX})
    places = [(0.0, 169.0), (0.0, 170.0), (0.0, 180.0), (0.0, -170.0), (0.0, 201.0), (41.0, 180.0)]
    got = [one(region, latitude=a, longitude=b).removeprefix("incident_") for a, b in places]
    assert got == ["elsewhere", "dateline", "dateline", "dateline", "elsewhere", "elsewhere"]
    both = {"first": BOX, "second": BOX}
    assert one(Groups(by=["region"], regions=both), latitude=0.0, longitude=180.0) == (
        "incident_first"
    )


@given(
    by=st.lists(st.sampled_from(["hard_negative", "hemisphere", "latitude_band", "season"]),
                unique=True),
    kind=st.sampled_from(GROUPS),
    month=st.integers(1, 12),
    latitude=st.floats(-90, 90),
)  # fmt: skip
def test_every_sample_has_a_group_that_names_each_stratum(by, kind, month, latitude):
    name = one(Groups(by=by), kind, f"2001-{month:02}-01", latitude)
    plain = kind if "hard_negative" in by else ("incident" if kind == "incident" else "normal")
    assert name.startswith(plain)
    parts = name.removeprefix(plain).strip("_").split("_")
    assert len([p for p in parts if p]) == len([b for b in by if b != "hard_negative"])
    if "hemisphere" in by:
        assert ("south" in parts) == (latitude < 0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"by": ["season", "season"]}, "each stratum once"),
        ({"latitude_bands": [60.0, 30.0]}, "`groups.latitude_bands` must ascend"),
        ({"by": ["region"]}, "`groups.regions` must be given"),
        ({"regions": {"a": BOX}}, "only if"),
        ({"by": ["region"], "regions": {"a": {"south": 1}}}, "must have the sides"),
        ({"by": ["region"], "regions": {"a": BOX | {"south": 50}}}, "south below north"),
        ({"by": ["region"], "regions": {"a b": BOX}}, "names of letters"),
        ({"by": ["region"], "regions": {"elsewhere": BOX}}, "must not name a region `elsewhere`"),
    ],
)
def test_bad_groups(change, words):
    with pytest.raises(InputError, match=words):
        Groups(**change)
