import numpy as np
import pandas as pd
import pytest

from data_pipelines.errors import InputError
from data_pipelines.incidents import read_catalogue
from data_pipelines.labels import label_from_catalogue
from data_pipelines.schema import GROUPS, PatchGrid, great_circle_km

GRID = PatchGrid(np.arange(90, -91, -2.5), np.arange(0, 360, 2.5), 16, 4)
TIMES = pd.date_range("2001-01-01", periods=8, freq="6h")


def table(**columns):
    n = len(columns["time"])
    base = {"latitude": [50.0] * n, "longitude": [180.0] * n, "storm_id": ["a"] * n}
    return pd.DataFrame(base | columns).assign(
        time=lambda t: pd.to_datetime(t["time"], format="ISO8601")
    )


def test_incident_beats_hard_negative_in_one_cell():
    entries = table(
        time=["2001-01-01", "2001-01-01", "2001-01-01 06:00"], storm_id=["low", "bomb", "low"]
    )
    labels = label_from_catalogue(entries, np.array([1, 2, 1]), TIMES, GRID)
    got = labels.table
    assert list(got["step"]) == [0, 1]
    assert [GROUPS[g] for g in got["kind"]] == ["incident", "hard_negative"]
    assert got["incident_id"][0] == "bomb"
    assert got["storms"][0] == {"low", "bomb"}


def test_every_cell_has_the_storms_that_lie_in_it():
    rng = np.random.default_rng(0)
    n = 400
    entries = pd.DataFrame(
        {
            "time": rng.choice(TIMES, n),
            "latitude": rng.uniform(0.0, 60.0, n),
            "longitude": rng.uniform(0.0, 90.0, n),
            "storm_id": [f"storm {k}" for k in rng.integers(0, 30, n)],
        }
    )
    kind = rng.integers(0, 3, n)
    wanted: dict = {}  # in the order of the entries
    rows, columns = GRID.cells(entries["latitude"].to_numpy(), entries["longitude"].to_numpy())
    for step, row, column, k, storm in zip(
        TIMES.get_indexer(entries["time"]), rows, columns, kind, entries["storm_id"], strict=True
    ):
        if k > 0 and row >= 0:
            wanted.setdefault((step, row, column), []).append((k, storm))
    got = label_from_catalogue(entries, kind, TIMES, GRID).table
    cells = list(zip(got["step"], got["row"], got["column"], strict=True))
    assert cells == sorted(wanted) and max(map(len, wanted.values())) > 2
    for cell, label in zip(cells, got.to_dict("records"), strict=True):
        first = max(wanted[cell], key=lambda entry: entry[0])  # of equal ones the first
        assert (label["kind"], label["incident_id"]) == first
        assert label["storms"] == {storm for _, storm in wanted[cell]}


def test_unused_entries_are_counted():
    entries = table(time=["2001-01-01", "2001-01-01", "2005-01-01"], latitude=[50.0, 89.0, 50.0])
    labels = label_from_catalogue(entries, np.array([2, 2, 1]), TIMES, GRID)
    assert len(labels.table) == 1
    assert labels.unused == {
        "incidents_outside_times": 0,
        "incidents_outside_cells": 1,
        "others_outside_times": 1,
        "others_outside_cells": 0,
        "times_without_label": 0,
        "patches_without_label": 0,
    }


def test_daily_means_take_every_entry_of_their_day():
    days = pd.date_range("2001-01-01", periods=3)
    entries = table(time=["2001-01-02 06:00", "2001-01-02 18:00"], longitude=[180.0, 195.0])
    chosen = np.array([2, 2])
    labels = label_from_catalogue(entries, chosen, days, GRID, "day")
    assert list(labels.table["step"]) == [1, 1]
    with pytest.raises(InputError, match="None of the entries has the time of a field: shift"):
        label_from_catalogue(entries, chosen, days, GRID, "exact")
    with pytest.raises(InputError, match=r"overlap the fields in time.* Give that period"):
        label_from_catalogue(entries, chosen, days + pd.Timedelta("900D"), GRID, "day")
    with pytest.raises(InputError, match="one field a day"):
        label_from_catalogue(entries, chosen, TIMES, GRID, "day")


@pytest.mark.parametrize(
    ("column", "values", "taken"),
    [
        ("hour", ["06", "12", "0"], [6, 12, 0]),
        ("HH", [18, 18, 18], [18, 18, 18]),
        ("hour", [0, 0, 0], [0, 0, 0]),
        ("hour", ["0600", "1200", "0000"], [6, 12, 0]),
        ("UTC", ["06:00", "6:00", "18:00:00"], [6, 6, 18]),
        ("hour", ["06 UTC", "12Z", "0"], [6, 12, 0]),
        ("hour", ["", "", ""], [0, 0, 0]),
        ("hours_since_genesis", [6, 12, 18], [0, 0, 0]),
    ],
)
def test_hours_beside_dates(tmp_path, column, values, taken):
    rows = [f"2001-01-0{k + 1},{v},{k},{k}" for k, v in enumerate(values)]
    (tmp_path / "c.csv").write_text("\n".join([f"date,{column},lat,lon", *rows]) + "\n")
    got = read_catalogue(tmp_path / "c.csv")
    assert got["time"].dt.hour.tolist() == taken and got["time"].dt.day.tolist() == [1, 2, 3]
    timed = [row.replace(",", " 03:00,", 1) for row in rows]
    (tmp_path / "t.csv").write_text("\n".join([f"date,{column},lat,lon", *timed]) + "\n")
    assert read_catalogue(tmp_path / "t.csv")["time"].dt.hour.tolist() == [3, 3, 3]


@pytest.mark.parametrize(
    ("column", "values"), [("hour", ["18", "24", "6"]), ("hour", ["1800", "2400", "0600"])]
)
def test_hour_24_is_the_next_days_0(tmp_path, column, values):
    rows = [f"2001-12-31,{v},1,{k}" for k, v in enumerate(values)]
    (tmp_path / "c.csv").write_text("\n".join([f"date,{column},lat,lon", *rows]) + "\n")
    got = read_catalogue(tmp_path / "c.csv").sort_values("longitude")["time"]
    assert got.tolist() == [
        pd.Timestamp(2001, 12, 31, 18),
        pd.Timestamp(2002, 1, 1),
        pd.Timestamp(2001, 12, 31, 6),
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("time,lat\n2001-01-01,1\n", "column `longitude` is unknown.*There is: lat, time"),
        ("latitude,longitude,year,month,day\n1,2,2001,1,1\n", "column `time` is .*'month', 'day'"),
        ("date,lat,lon\n31.12.2001 06:00,1,2\n1/12/2001,1,2\n", "where the day comes first"),
        ("time,latitude,longitude,storm_id\nsoon,1,2,a\n", "`time` must be a date.* line 2"),
        (
            "date,lat,lon\n2001-01-01,1,2\n9999-12-31,1,2\n",
            "years 1678 to 2261, got `9999-12-31` in line 3",
        ),
        ("date,lat,lon\n2001.05,1,2\n2001.55,1,2\n", "got `2001.05` in line 2 .*decimal year"),
        (
            "date,hour,lat,lon\n2001-01-01,6,1,2\n2001-01-01,25,1,2\n",
            "`hour` must .*`25.*` in line 3",
        ),
        ("date,hour,lat,lon\n2001-01-01,6,1,2\n2001-01-01,x,1,2\n", "`hour` must .*`x` in line 3"),
        ("date,hour,lat,lon\n2001-01-01,6,1,2\n2001-01-01,,1,2\n", "`hour` must .*`nan` in line 3"),
        ("date,hour,lat,lon\n2001-01-01,600,1,2\n2001-01-01,606,1,2\n", "`hour` must .*`600`"),
        (
            "date,time,lat,lon\n2001-01-01,06:00,1,2\n2001-01-01,,1,2\n",
            "`time` must be an hour.*`nan`",
        ),
        (
            "date,time,lat,lon\n2001-01-01,6 AM,1,2\n2001-01-01,12:00,1,2\n",
            "`time` must be an hour.*`6 AM`",
        ),
        ("time,latitude,longitude,storm_id\n2001-01-01,95,2,a\n", "`latitude` must lie within"),
        ("time,latitude,longitude,storm_id\n2001-01-01,5,,a\n", "`longitude` must lie within"),
    ],
)
def test_bad_catalogues(tmp_path, text, words):
    (tmp_path / "c.csv").write_text(text)
    with pytest.raises(InputError, match=words):
        read_catalogue(tmp_path / "c.csv")


def test_systems_without_names_are_followed(tmp_path, caplog):
    """Two storms that move, and an entry two days later; a row that repeats another is none."""
    times = pd.date_range("2001-01-01", periods=30, freq="6h")
    east = pd.DataFrame({"time": times, "lat": 50.0, "lon": np.linspace(350, 400, 30) % 360})
    west = pd.DataFrame({"time": times, "lat": -40.0, "lon": np.linspace(200, 220, 30)})
    late = pd.DataFrame({"time": [times[-1] + pd.Timedelta("2D")], "lat": [-40.0], "lon": [220.0]})
    table = pd.concat([east, west, late, west[:1]]).assign(pressure_hpa=990.0)
    table.to_csv(tmp_path / "c.csv", index=False)
    got = read_catalogue(tmp_path / "c.csv")
    assert "its 61 entries are taken as 3" in caplog.text
    assert got.groupby("storm_id").size().tolist() == [30, 30, 1]
    assert got.groupby("storm_id")["latitude"].nunique().max() == 1
    assert "deepening_bergeron" not in got  # the tracks are a guess
    table.assign(storm_id=range(len(table))).to_csv(tmp_path / "numbered.csv", index=False)
    read_catalogue(tmp_path / "numbered.csv")
    assert "each entry of" in caplog.text and "leave the column out" in caplog.text


def test_catalogue_is_read_sorted_with_longitudes_from_0(tmp_path):
    (tmp_path / "c.csv").write_text(
        "time,latitude,longitude,storm_id\n2001-01-02T00:00Z,1,-10,7\n2001-01-01,1,350,7\n"
    )
    got = read_catalogue(tmp_path / "c.csv")
    assert list(got["longitude"]) == [350.0, 350.0]
    assert list(got["time"].dt.day) == [1, 2]
    assert got["storm_id"][0] == "7"


def test_distance_in_km():
    """Oracle: the great-circle distance of every entry to every centre, by the formula."""
    grid = PatchGrid(np.arange(90, -91, -2.5), np.arange(0, 360, 2.5), 16, 4)
    times = pd.date_range("2001-01-01", periods=3, freq="6h")
    rng = np.random.default_rng(0)
    entries = pd.DataFrame(
        {
            "time": rng.choice(times, 30),
            "latitude": np.r_[rng.uniform(-90, 90, 28), 70.0, 0.0],
            "longitude": np.r_[rng.uniform(0, 360, 28), 359.9, 0.1],
            "storm_id": [f"s{i}" for i in range(30)],
        }
    )
    kind = rng.integers(1, 3, 30)
    got = label_from_catalogue(entries, kind, times, grid, distance_km=1500.0).table
    lat, lon = np.meshgrid(grid.centre_latitude(), grid.centre_longitude(), indexing="ij")
    wanted: dict[tuple[int, int, int], int] = {}
    for k, entry in enumerate(entries.itertuples()):
        km = great_circle_km(lat, lon, entry.latitude, entry.longitude)
        for row, column in np.argwhere(km <= 1500.0):
            key = (times.get_loc(entry.time), row, column)
            wanted[key] = max(wanted.get(key, 0), kind[k])
    found = got.set_index(["step", "row", "column"])["kind"].to_dict()
    assert found == wanted and len(found) > 100
