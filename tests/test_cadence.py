import json

import numpy as np
import pandas as pd
import pytest
import xarray as xr
import yaml

from data_pipelines import labels as labels_module
from data_pipelines.build import store_attributes
from data_pipelines.cadence import cadence_of
from data_pipelines.catalogues import say_once
from data_pipelines.errors import InputError
from data_pipelines.fields import open_fields
from data_pipelines.groups import Groups
from data_pipelines.labels import label_from_catalogue
from data_pipelines.schema import PatchGrid
from data_pipelines.settings import Fields, Incidents, Patches, Splits
from weather_tdr.cli import main
from weather_tdr.first.configuration import write_first_config

GRID = PatchGrid(np.arange(90, -91, -2.5), np.arange(0, 360, 2.5), 16, 4)


def tracks(systems=4, entries=8, hours=6, first="2001-01-01"):
    """Systems that move to the east, one after the other."""
    rows = [
        (pd.Timestamp(first) + pd.Timedelta(hours=hours * (k * entries + n)), 40.0, 5.0 * n, str(k))
        for k in range(systems)
        for n in range(entries)
    ]
    return pd.DataFrame(rows, columns=["time", "latitude", "longitude", "storm_id"])


@pytest.mark.parametrize("hours", [1, 3, 6, 12])
def test_what_lies_between_the_steps_is_not_background(hours):
    table = tracks(hours=hours)
    times = pd.date_range("2001-01-01", table["time"].max(), freq="1h")
    got = label_from_catalogue(table, np.full(len(table), 2), times, GRID)
    between = [time.hour % hours != 0 for time in times]
    assert list(np.broadcast_to(got.unlabelled, len(times))) == between
    assert got.unused.get("times_without_label", 0) == sum(between)
    assert len(got.table) == len(table)


@pytest.mark.parametrize("freq", ["6h", "12h", "24h"])
def test_labels_are_the_same_where_the_steps_agree(freq, monkeypatch):
    table = tracks()
    times = pd.date_range("2001-01-01", table["time"].max(), freq=freq)
    kind = np.arange(len(table)) % 3
    got = label_from_catalogue(table, kind, times, GRID)
    nothing = np.zeros(len(times), dtype=bool)
    monkeypatch.setattr(labels_module, "never_looked_at", lambda *_: nothing)
    old = label_from_catalogue(table, kind, times, GRID)
    pd.testing.assert_frame_equal(got.table, old.table)
    assert got.unused == old.unused and not got.unlabelled.any()


@pytest.mark.parametrize(("entries", "known"), [(6, False), (4, True)])
def test_days_without_hours_say_nothing_of_the_hours(entries, known, caplog):
    """Single entries, a week apart, at 00 UTC each; four of them may be so by chance."""
    say_once.cache_clear()
    days = pd.date_range("2001-01-01", periods=entries, freq="7D")
    table = pd.DataFrame({"time": days, "latitude": 40.0, "longitude": 35.0})
    table["storm_id"] = [f"s{k}" for k in range(entries)]
    times = pd.date_range("2001-01-01", days[-1] + pd.Timedelta("2D"), freq="6h")
    got = label_from_catalogue(table, np.full(entries, 2), times, GRID)
    wanted = times.floor("D").isin(days) & (times.hour > 0) & (not known)
    np.testing.assert_array_equal(np.broadcast_to(got.unlabelled, len(times)), wanted)
    assert got.table["step"].tolist() == times.get_indexer(days).tolist()
    assert ("no time of the catalogue has an hour" in caplog.text) is not known
    shifted = table.assign(time=table["time"] + pd.Timedelta("6h"))
    assert not label_from_catalogue(shifted, np.full(entries, 2), times, GRID).unlabelled.any()


def test_an_entry_beside_the_steps_tells_nothing_of_its_time():
    landfall = pd.DataFrame(
        {"time": [pd.Timestamp("2001-01-02 15:00")], "latitude": 40.0, "longitude": 35.0}
    ).assign(storm_id="0")
    table = pd.concat([tracks(), landfall], ignore_index=True)
    times = pd.date_range("2001-01-01", periods=48, freq="1h")
    got = label_from_catalogue(table, np.full(len(table), 2), times, GRID)
    assert got.unlabelled[39] and 39 not in got.table["step"].to_numpy()
    assert got.unused["incidents_outside_times"] == 1 + int((tracks()["time"] > times[-1]).sum())
    with pytest.raises(InputError, match="all between its steps"):
        label_from_catalogue(table, np.full(len(table), 2), times[[15, 39]], GRID)


def test_catalogues_that_do_not_tell_when_they_looked():
    """Few entries, single ones, mixed steps and steps that do not divide the day."""
    mixed = pd.concat(
        [tracks(3, 9, 6), tracks(3, 9, 4).assign(storm_id="x" + tracks(3, 9)["storm_id"])]
    )
    single = tracks(40, 1, 30)
    assert [cadence_of(t) for t in (tracks(2, 9), single, mixed, tracks(hours=5))] == [None] * 4
    assert cadence_of(tracks(first="2001-01-01 03:00")).between(
        pd.DatetimeIndex(["2001-01-01 09:00", "2001-01-01 06:00"])
    ).tolist() == [False, True]
    times = pd.date_range("2001-01-01", periods=72, freq="1h")
    assert not label_from_catalogue(tracks(2, 9), np.full(18, 2), times, GRID).unlabelled.any()


def test_daily_means_stand_for_the_whole_day():
    table = tracks()
    days = pd.date_range("2001-01-01 12:00", periods=8, freq="1D") + pd.Timedelta("30min")
    assert not label_from_catalogue(table, np.full(32, 2), days, GRID, "day").unlabelled.any()


@pytest.fixture(scope="module")
def hourly(small_files, tmp_path_factory):
    """Fields at three hours of every six, interpolated, of a catalogue every six."""
    fields, catalogue = small_files
    path = tmp_path_factory.mktemp("hourly") / "fields.nc"
    with xr.open_dataset(fields) as opened:
        times = pd.date_range(opened.time.values[0], opened.time.values[-1], freq="2h")
        opened.interp(time=times).astype("float32").to_netcdf(path)
    return path, catalogue, len(times), opened.sizes["time"]


def test_check_and_init_say_it(hourly, config_file, tmp_path, capsys):
    path, catalogue, all_times, labelled = hourly
    said = f"fields every 2 hours, catalogue every 6 hours: {all_times - labelled} of {all_times}"
    main(["check", str(config_file), "--fields.paths", json.dumps([str(path)])])
    told = " ".join(capsys.readouterr().out.split())
    # Lags reach a day back; the first times have none.
    lost = 24 // 2 - 24 // 6
    assert f"{all_times - labelled - lost} of {all_times - 12} times lie between" in told
    written = write_first_config(tmp_path / "f.yaml", [str(path)], catalogue=str(catalogue))
    text = " ".join(written.read_text().replace("#", " ").split())
    assert said in text
    assert yaml.safe_load(written.read_text())["patches"]["background_share"] > 0


def test_a_store_from_before_is_built_anew_where_labels_differ(hourly, small_files):
    """Only there: the identity of a store of fields with the catalogue's steps stays."""
    catalogue = hourly[1]
    told = []
    for path in (hourly[0], small_files[0]):
        fields, incidents = Fields([str(path)], ["msl"]), Incidents(catalogue=str(catalogue))
        array = open_fields(fields.paths, fields.variables)
        attributes = store_attributes(
            fields, incidents, Patches(), Splits(fractions=[0.5, 0.25, 0.25]), Groups(), 0, array
        )
        told.append(attributes["fingerprints"].get("times without a label"))
    assert told == [str(hourly[2] - hourly[3]), None]
