"""Networks, rules and truth are judged where a map can say something."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines.schema import SPLITS, PatchGrid, great_circle_km
from data_pipelines.settings import Incidents
from weather_tdr.ground import covered, judged
from weather_tdr.maps import Maps
from weather_tdr.matching import match_incidents

TIME = pd.Timestamp("2001-01-01")


def store_on(grid, times):
    """What `covered` reads of a store with every patch of some times, and of one of validation."""
    rows, columns = np.divmod(np.arange(grid.rows * grid.columns), grid.columns)
    every = [TIME - pd.Timedelta("1d"), *times]
    n, of_test = len(rows), np.arange(len(every)) > 0
    split = np.where(of_test, SPLITS.index("test"), SPLITS.index("validation"))
    of_sample = {
        "time": np.repeat(pd.DatetimeIndex(every).to_numpy("datetime64[ns]"), n),
        "latitude": np.tile(grid.centre_latitude()[rows], len(every)),
        "longitude": np.tile(grid.centre_longitude()[columns], len(every)),
        "label": np.zeros(n * len(every), np.int8),
        "group": np.zeros(n * len(every), np.int8),
        "split": np.repeat(split.astype(np.int8), n),
        "incident_id": np.full(n * len(every), ""),
    }
    return xr.Dataset(
        {name: ("sample", values) for name, values in of_sample.items()},
        attrs={
            "grid": {
                "stride": grid.stride, "dlat": grid.dlat, "dlon": grid.dlon,
                "west": float(grid.longitude[0]), "is_global": grid.is_global,
            }
        },
    )  # fmt: skip


GRIDS = st.builds(
    lambda west, columns, rows, stride, north: PatchGrid(
        north - 2.5 * np.arange(rows), west + 2.5 * np.arange(columns), 2 * stride, stride
    ),
    st.sampled_from([0.0, 10.0, 270.0, 350.0]),
    st.sampled_from([16, 30, 144]),
    st.integers(16, 25),
    st.sampled_from([2, 4]),
    st.sampled_from([75.0, 60.0, 25.0]),
)


@settings(max_examples=40, deadline=None)
@given(GRIDS, st.integers(0, 10**6))
def test_every_incident_that_counts_is_within_reach_of_a_position(grid, seed):
    """And none that lies deeper within the map is left out."""
    rng = np.random.default_rng(seed)
    points = pd.DataFrame(
        {
            "time": TIME,
            "latitude": rng.uniform(grid.latitude[-1], grid.latitude[0], 200),
            "longitude": (rng.uniform(0, 2.5 * len(grid.longitude), 200) + grid.longitude[0]) % 360,
        }
    )
    kept = covered(points, store_on(grid, [TIME]))
    north, east = (axis.ravel() for axis in np.meshgrid(*grid.positions(1), indexing="ij"))
    km = great_circle_km(
        kept["latitude"].to_numpy()[:, None], kept["longitude"].to_numpy()[:, None], north, east
    )
    half_diagonal = 0.5 * np.hypot(2.5, 2.5) * 111.2
    assert len(kept) == 0 or km.min(axis=1).max() <= half_diagonal
    rest = points.merge(kept, how="left", indicator=True).query("_merge == 'left_only'")
    centres = grid.centre_latitude()
    inside = rest["latitude"].between(centres[-1], centres[0])
    if not grid.is_global:
        east = (rest["longitude"] - grid.longitude[0]) % 360
        centres = (grid.centre_longitude() - grid.longitude[0]) % 360
        inside &= east.between(centres[0], centres[-1])
        assert not inside.any()


def test_what_is_found_beside_an_entry_that_lacks_its_value_is_not_judged(tmp_path):
    """But where a true incident is as near, and where the storm has a value at that time."""
    grid = PatchGrid(60.0 - 2.5 * np.arange(24), 2.5 * np.arange(144), 12, 4)
    entries = [  # storm, longitude, wind
        ("unknown", 20.0, np.nan), ("hurricane", 81.0, 70.0), ("unknown too", 80.0, np.nan),
        ("weak", 140.0, 40.0), ("weak", 140.0, np.nan), ("other time", 200.0, np.nan),
    ]  # fmt: skip
    table = pd.DataFrame(entries, columns=["storm_id", "longitude", "wind_kt"])
    late = np.where(table["storm_id"] == "other time", pd.Timedelta("6h"), pd.Timedelta(0))
    table = table.assign(time=TIME + pd.to_timedelta(late), latitude=40.0)
    table.to_csv(tmp_path / "c.csv", index=False)
    incidents = Incidents(catalogue=str(tmp_path / "c.csv"), where={"wind_kt": {"min": 64}})
    found = pd.DataFrame({"longitude": [20.0, 22.0, 25.0, 80.0, 140.0, 200.0, 300.0]})
    found = found.assign(time=TIME, latitude=40.0)
    config = SimpleNamespace(incidents=incidents)
    kept = judged(found, config, store_on(grid, [TIME]), 300.0)
    # At 40 degrees north 300 km are 3.5 degrees of longitude.
    assert kept["longitude"].tolist() == [25.0, 80.0, 140.0, 200.0, 300.0]
    assert len(judged(found, config, store_on(grid, [TIME]), 600.0)) == 4


def test_an_area_counts_where_any_of_it_lies_in_a_patch():
    """Patches of half of the globe are dropped, as for labels that are not known."""
    grid = PatchGrid(60.0 - 2.5 * np.arange(24), 2.5 * np.arange(144), 12, 4)
    store = store_on(grid, [TIME])
    store = store.isel(sample=np.flatnonzero(store["longitude"].values < 180.0))
    areas = [
        [(40.0, 20.0), (40.0, 22.5)],  # within
        [(40.0, 200.0), (40.0, 202.5), (40.0, 170.0)],  # mostly beyond
        [(40.0, 200.0), (40.0, 202.5)],
        [(-85.0, 20.0)],  # beyond the map
    ]
    extent = [np.array([(*position, 1.25, 1.25) for position in area]) for area in areas]
    found = pd.DataFrame({"time": TIME, "latitude": 40.0, "longitude": 210.0, "name": list("abcd")})
    found["extent"] = extent
    assert covered(found, store)["name"].tolist() == ["a", "b"]


@pytest.mark.parametrize("step", [1, 4])
def test_the_right_cell_is_a_hit_at_any_resolution_of_the_map(step):
    """A map that is 1 at the position nearest to each incident, and nothing else."""
    grid = PatchGrid(60.0 - 2.5 * np.arange(24), 300.0 + 2.5 * np.arange(30), 12, 4)
    rng = np.random.default_rng(0)
    points = pd.DataFrame(
        {
            "time": TIME + pd.to_timedelta(np.arange(300), "h"),
            "latitude": rng.uniform(15, 45, 300),
            "longitude": rng.uniform(315, 358, 300),
        }
    )
    truth = covered(points, store_on(grid, points["time"]))
    assert len(truth) > 200
    north, east = grid.positions(step)
    near = [np.abs(axis[:, None] - truth[name].to_numpy()).argmin(axis=0)
            for axis, name in ((north, "latitude"), (east, "longitude"))]  # fmt: skip
    found = truth.assign(latitude=north[near[0]], longitude=east[near[1]])
    a_map = xr.DataArray(
        np.zeros((len(north), len(east))), coords={"latitude": north, "longitude": east},
        dims=("latitude", "longitude"),
    )  # fmt: skip
    maps = Maps().reaching(a_map)
    assert maps.radius_km == (300.0 if step == 1 else pytest.approx(786, abs=25))
    matching = match_incidents(found, truth, maps.radius_km)
    assert matching.hit.all() and (matching.found >= 0).all()
    alone = a_map.isel(latitude=[0], longitude=[0])
    assert Maps().reaching(alone).radius_km == 300.0  # the whole field of one region
