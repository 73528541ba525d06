import numpy as np
import pandas as pd
import pytest
import xarray as xr

from data_pipelines.catalogues import say_once
from data_pipelines.errors import InputError
from data_pipelines.labelling import kinds_of
from data_pipelines.schema import GROUPS, PatchGrid
from data_pipelines.series import label_from_series, read_series
from data_pipelines.settings import Incidents, Series

GRID = PatchGrid(np.linspace(60.0, 30.0, 21), np.linspace(-20.0, 14.5, 24), 16, 4, whole=True)
RAIN = [0.0, 12.0, 30.0, 0.5, 2.0, np.nan, 11.0, 1.0]


def island(path, rain=RAIN):
    """A file of 3 x 4 cells, the first row of them sea, whose mean of the others is `rain`."""
    rain = np.array(rain, dtype=float)
    cells = rain[:, None, None] + np.linspace(-0.4, 0.4, 12).reshape(3, 4)
    cells[:, 1:] += rain[:, None, None] - cells[:, 1:].mean(axis=(1, 2), keepdims=True)
    cells[:, 0] = np.nan
    times = pd.date_range("2001-01-01", periods=len(rain))
    xr.Dataset({"tp": (("time", "y", "x"), cells)}, {"time": times}).to_netcdf(path)
    return path


def test_mean_over_cells_that_are_ever_known(tmp_path):
    got = read_series(Series(str(island(tmp_path / "r.nc")), "tp"))
    np.testing.assert_allclose(got["tp"], RAIN, atol=1e-12)
    with xr.open_dataset(tmp_path / "r.nc") as data:
        holed = data.load()
    holed["tp"][3, 2, 2] = np.nan  # one land cell missing: the mean of that day is not known
    holed.to_netcdf(tmp_path / "holed.nc")
    got = read_series(Series(str(tmp_path / "holed.nc"), "tp"))
    assert list(np.flatnonzero(np.isnan(got["tp"]))) == [3, 5]
    largest = read_series(Series(str(tmp_path / "r.nc"), "tp", "max"))
    np.testing.assert_allclose(largest["tp"], holed["tp"][:, 1:].max(("y", "x"), skipna=False)
                               .where(np.arange(8) != 3, largest["tp"][3]))  # fmt: skip


def test_mean_over_latitudes_counts_areas(tmp_path):
    """Oracle: the integral of cos over cells that touch each other, from 30 S to 30 N."""
    south = np.arange(-30.0, 30.0, 0.5) + 0.25
    cells = np.broadcast_to(np.abs(np.sin(np.deg2rad(south)))[None, :, None], (3, 120, 2))
    dims = ("time", "lat", "lon")
    times = pd.date_range("2001-01-01", periods=3)
    data = xr.Dataset({"tp": (dims, cells)}, {"time": times, "lat": south, "lon": [0.0, 1.0]})
    data.to_netcdf(tmp_path / "r.nc")
    got = read_series(Series(str(tmp_path / "r.nc"), "tp"))["tp"]
    np.testing.assert_allclose(got, 0.25, rtol=1e-4)  # of sin cos to 30 degrees, over sin 30
    assert np.isclose(cells[0].mean(), 0.256, atol=1e-3)  # that of all cells alike
    largest = read_series(Series(str(tmp_path / "r.nc"), "tp", "max"))["tp"]
    np.testing.assert_allclose(largest, cells.max())
    projected = data.rename(lat="y", lon="x").assign_coords(y=south * 5000.0)
    projected.to_netcdf(tmp_path / "p.nc")  # cells of equal area
    got = read_series(Series(str(tmp_path / "p.nc"), "tp"))["tp"]
    np.testing.assert_allclose(got, cells[0].mean())


def test_csv_in_any_order(tmp_path):
    (tmp_path / "r.csv").write_text("time,tp\n2001-01-02,3\n2001-01-01T12:00Z,\n")
    got = read_series(Series(str(tmp_path / "r.csv"), "tp"))
    assert list(got["time"]) == [pd.Timestamp("2001-01-01 12:00"), pd.Timestamp("2001-01-02")]
    assert np.isnan(got["tp"][0]) and got["tp"][1] == 3
    (tmp_path / "s.csv").write_text("time;tp\n2001-01-02;3,5\n2001-01-03;0,25\n")
    assert read_series(Series(str(tmp_path / "s.csv"), "tp"))["tp"].tolist() == [3.5, 0.25]


def label(path, times, match_time="day", grid=GRID, **limits):
    table = read_series(Series(str(path), "tp"))
    incidents = Incidents(
        rule="series", where={"tp": {"min": 10.0}}, hard_negatives={"tp": {"min": 1.0}}
    )
    kind = kinds_of(table, incidents, others="background")
    known = table["tp"].notna().to_numpy()
    return label_from_series(table, kind, known, times, grid, match_time)


def test_kinds_spells_and_days_without_a_value(tmp_path):
    noon = pd.date_range("2000-12-31 12:00", periods=9, freq="D")
    got = label(island(tmp_path / "r.nc"), noon)
    kind = got.table.set_index("step")["kind"].map(lambda k: GROUPS[k]).to_dict()
    assert kind == {2: "incident", 3: "incident", 5: "hard_negative", 7: "incident",
                    8: "hard_negative"}  # fmt: skip
    names = got.table.set_index("step")["incident_id"]
    assert names[2] == names[3] == "20010102T00" != names[7]
    assert names[5] == "" and got.table["storms"].iloc[0] == {names[2]}
    assert list(np.flatnonzero(got.unlabelled)) == [0, 6]  # before the series; missing
    assert got.unused == {"incidents_outside_times": 0, "times_without_label": 2}


def test_infinite_values_are_not_known(tmp_path, caplog):
    say_once.cache_clear()
    (tmp_path / "r.csv").write_text("time,tp\n2001-01-01,3\n2001-01-02,inf\n2001-01-03,12\n")
    table = read_series(Series(str(tmp_path / "r.csv"), "tp"))
    assert table["tp"].isna().tolist() == [False, True, False]
    assert "1 values of `tp` count as missing: inf" in caplog.text


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("ragged.csv", b"time,tp\n2001-01-01,3\n2001-01-02,4,5,6\n"),
        ("latin.csv", "time,tp,Stra\u00dfe\n2001-01-01,3,M\u00fcnchen\n".encode("latin-1")),
        ("empty.csv", b""),
        ("cut.csv.gz", b"\x1f\x8b\x08\x00\x00"),
        ("plain.gz", b"time,tp\n2001-01-01,3\n"),
    ],
)
def test_a_series_that_cannot_be_read_is_named(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=rf"{name}.* is no readable CSV.*UTF-8"):
        read_series(Series(str(tmp_path / name), "tp"))


def test_decimal_commas(tmp_path, caplog):
    """In quotes or between semicolons, also beside cells that are no numbers, which are told."""
    say_once.cache_clear()
    lines = [
        "time;tp",
        "2001-01-01;0,1",
        "2001-01-02;5",
        "2001-01-03;Tr",
        "2001-01-04;-8,25",
        "2001-01-05;-",
    ]
    quoted = [
        "time,tp",
        '2001-01-01,"0,1"',
        "2001-01-02,5",
        "2001-01-03,Tr",
        '2001-01-04,"-8,25"',
        "2001-01-05,-",
    ]
    for text in (lines, quoted):
        (tmp_path / "r.csv").write_text("\n".join(text) + "\n")
        values = read_series(Series(str(tmp_path / "r.csv"), "tp"))["tp"].tolist()
        assert (
            values[:2] == [0.1, 5.0]
            and values[3] == -8.25
            and np.isnan([values[2], values[4]]).all()
        )
    assert "1 cells of `tp` are no numbers and count as missing, such as `Tr`" in caplog.text
    (tmp_path / "r.csv").write_text("time,tp\n2001-01-01,0,1\n2001-01-02,-99,9\n")
    with pytest.raises(InputError, match=r"as many cells as the header \(2\), got 3"):
        read_series(Series(str(tmp_path / "r.csv"), "tp"))


@pytest.mark.parametrize(
    ("cells", "wanted"),
    [
        (["0,125", "n/v", "0,250"], [0.125, np.nan, 0.25]),
        (["1,125", "n/v", "2,250"], [1.125, np.nan, 2.25]),
    ],
)
def test_three_decimals_are_no_thousands_between_semicolons(tmp_path, cells, wanted):
    lines = [f"2001-01-0{day};{cell}" for day, cell in enumerate(cells, 1)]
    (tmp_path / "r.csv").write_text("\n".join(["time;tp", *lines]) + "\n")
    got = read_series(Series(str(tmp_path / "r.csv"), "tp"))["tp"]
    np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("column", ["hr", "hour"])
def test_a_column_of_hours_belongs_to_a_series_only_where_its_dates_repeat(tmp_path, column):
    """Relative humidity and hours of sunshine have such names too."""
    (tmp_path / "r.csv").write_text(f"time,{column},tp\n2001-01-01,7,1\n2001-01-02,12,2\n")
    for variable in (column, "tp"):
        times = read_series(Series(str(tmp_path / "r.csv"), variable))["time"]
        assert times.tolist() == [pd.Timestamp("2001-01-01"), pd.Timestamp("2001-01-02")]
    (tmp_path / "r.csv").write_text(f"time,{column},tp\n2001-01-01,6,1\n2001-01-01,12,2\n")
    times = read_series(Series(str(tmp_path / "r.csv"), "tp"))["time"]
    assert times.dt.hour.tolist() == [6, 12]


def test_text_is_no_series(tmp_path):
    path = tmp_path / "words.nc"
    days = pd.date_range("2001-01-01", periods=3)
    xr.Dataset({"tp": ("time", ["a", "b", "c"])}, {"time": days}).to_netcdf(path)
    with pytest.raises(InputError, match="must be numbers, got `tp` of type"):
        read_series(Series(str(path), "tp"))


def test_fill_values_are_not_known(tmp_path):
    days = pd.date_range("2001-01-01", periods=8)
    rain = [0, 20, -99.9, -99.9, 0, 20, 0, 20]
    pd.DataFrame({"time": days, "tp": rain}).to_csv(tmp_path / "r.csv", index=False)
    got = label(tmp_path / "r.csv", days)
    assert np.flatnonzero(got.unlabelled).tolist() == [2, 3]


def test_a_day_without_a_value_does_not_cut_an_incident_in_two(tmp_path):
    days = pd.date_range("2001-01-01", periods=8)
    rain = [0, 20, np.nan, 20, 0, 20, 0, 20]
    pd.DataFrame({"time": days, "tp": rain}).to_csv(tmp_path / "r.csv", index=False)
    names = label(tmp_path / "r.csv", days).table.set_index("step")["incident_id"]
    assert names[1] == names[3] != names[5] != names[7]


def test_bad_series(tmp_path):
    path = island(tmp_path / "r.nc")
    days = pd.date_range("2001-01-01", periods=8)
    with pytest.raises(InputError, match="whole_field` must be true"):
        label(path, days, grid=PatchGrid(GRID.latitude, GRID.longitude, 16, 4))
    with pytest.raises(InputError, match="must overlap the fields in time"):
        label(path, days + pd.Timedelta("900D"))
    with pytest.raises(InputError, match="Did you mean `tp`"):
        read_series(Series(str(path), "tpp"))
    with pytest.raises(InputError, match="no such file"):
        read_series(Series(str(tmp_path / "none.nc"), "tp"))
    (tmp_path / "bad.csv").write_text("time,tp\nsoon,3\n")
    with pytest.raises(InputError, match=r"`time` must be a date.*got `soon` in line 2"):
        read_series(Series(str(tmp_path / "bad.csv"), "tp"))
    (tmp_path / "bad.csv").write_text("time,tp\n2001-01-01,3\n2001-01-02,4\n2001-01-01,5\n")
    with pytest.raises(InputError, match=r"must hold each date once.* in line 4"):
        read_series(Series(str(tmp_path / "bad.csv"), "tp"))
    (tmp_path / "bad.csv").write_text("time,tp\n01.02.2003,3\n02.02.2003,4\n")
    with pytest.raises(InputError, match=r"got `01.02.2003` in line 2.*dayfirst=True"):
        read_series(Series(str(tmp_path / "bad.csv"), "tp"))
    (tmp_path / "bad.nc").write_text("no file of fields")
    with pytest.raises(InputError, match="cannot open"):
        read_series(Series(str(tmp_path / "bad.nc"), "tp"))


def test_times_that_another_column_leaves_undecided_are_unknown(tmp_path):
    """Not normal: nobody knows whether they are incidents."""
    days = pd.date_range("2001-01-01", periods=4)
    (tmp_path / "r.csv").write_text(
        "time,tp,wind\n2001-01-01,12,9\n2001-01-02,12,\n2001-01-03,2,\n2001-01-04,12,1\n"
    )
    table = read_series(Series(str(tmp_path / "r.csv"), "tp"))
    where = {"tp": {"min": 10.0}, "wind": {"min": 5.0}}
    kind = kinds_of(table, Incidents(rule="series", where=where), others="background")
    got = label_from_series(table, kind, table["tp"].notna().to_numpy(), days, GRID, "day")
    assert got.table["step"].tolist() == [0]
    assert np.flatnonzero(got.unlabelled).tolist() == [1]  # 2001-01-03 is none, whatever the wind
