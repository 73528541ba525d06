import json
import logging

import numpy as np
import pandas as pd
import pytest
from conftest import SHARED
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines.errors import InputError
from data_pipelines.incidents import read_catalogue
from data_pipelines.limits import select_rows

# The order of the first columns of each version; v04r01 has Korea before New Delhi.
V04R00 = [
    "SID", "SEASON", "NUMBER", "BASIN", "SUBBASIN", "NAME", "ISO_TIME", "NATURE", "LAT", "LON",
    "WMO_WIND", "WMO_PRES", "WMO_AGENCY", "TRACK_TYPE", "DIST2LAND", "LANDFALL", "IFLAG",
    "USA_AGENCY", "USA_ATCF_ID", "USA_LAT", "USA_LON", "USA_RECORD", "USA_STATUS", "USA_WIND",
    "USA_PRES", "USA_SSHS", "HKO_WIND", "NEWDELHI_WIND", "STORM_SPEED", "STORM_DIR",
]  # fmt: skip
V04R01 = [
    *V04R00[: V04R00.index("NEWDELHI_WIND")],
    *("KMA_LAT", "KMA_LON", "KMA_WIND", "NEWDELHI_WIND", "USA_GUST", "STORM_SPEED", "STORM_DIR"),
]
UNITS = {"SEASON": "Year", "LAT": "degrees_north", "LON": "degrees_east", "WMO_WIND": "kts"}

TROPICAL = [
    {"SID": "2021239N17281", "BASIN": "NA", "SUBBASIN": "NA", "NAME": "IDA", "SEASON": "2021",
     "ISO_TIME": "2021-08-28 12:00:00", "LAT": "24.5", "LON": "-86.0", "WMO_WIND": "70",
     "WMO_PRES": "986", "WMO_AGENCY": "hurdat_atl", "TRACK_TYPE": "main", "USA_STATUS": "HU",
     "USA_AGENCY": "hurdat_atl", "USA_WIND": "70", "USA_PRES": "986"},
    {"SID": "2021239N17281", "BASIN": "NA", "SUBBASIN": "GM", "NAME": "IDA", "SEASON": "2021",
     "ISO_TIME": "2021-08-29 12:00:00", "LAT": "28.5", "LON": "-89.6", "WMO_WIND": "130",
     "WMO_PRES": "930", "WMO_AGENCY": "hurdat_atl", "TRACK_TYPE": "main", "USA_STATUS": "HU",
     "USA_AGENCY": "hurdat_atl", "USA_WIND": "130", "USA_PRES": "930"},
    {"SID": "2021239N17281", "BASIN": "NA", "NAME": "IDA", "ISO_TIME": "2021-08-29 15:00:00",
     "LAT": "28.8", "LON": "-89.9", "TRACK_TYPE": "spur-merge", "WMO_WIND": "125"},
    {"SID": "2024300N12140", "BASIN": "WP", "SUBBASIN": "MM", "NAME": "NAN", "SEASON": "2024",
     "ISO_TIME": "2024-10-27 00:00:00", "LAT": "14.0", "LON": "181.5", "WMO_WIND": "55",
     "WMO_PRES": "980", "WMO_AGENCY": "tokyo", "TRACK_TYPE": "PROVISIONAL",
     "USA_AGENCY": "jtwc_wp", "USA_WIND": "70", "USA_PRES": "975"},
    {"SID": "2024300N12140", "BASIN": "WP", "SUBBASIN": "MM", "NAME": "NAN", "SEASON": "2024",
     "ISO_TIME": "2024-10-27 03:00:00", "LAT": "14.2", "LON": "181.0",
     "TRACK_TYPE": "US-PROVISIONAL", "USA_AGENCY": "jtwc_wp", "USA_WIND": "75", "USA_PRES": "972"},
    {"SID": "2024300N12140", "BASIN": "WP", "ISO_TIME": "2024-10-27 06:00:00", "LAT": "14.0",
     "LON": "180.0", "TRACK_TYPE": "US-PROVISIONAL_spur"},
    {"SID": "2024301N10060", "BASIN": "NI", "SUBBASIN": "AS", "NAME": "UNNAMED", "SEASON": "2024",
     "ISO_TIME": "2024-10-28 00:00:00", "LAT": "12.0", "LON": "60.0", "WMO_WIND": "35",
     "WMO_AGENCY": "newdelhi", "TRACK_TYPE": "main", "USA_AGENCY": "jtwc_io", "USA_WIND": "45",
     "USA_PRES": "1000"},
    {"SID": "2024302S10090", "BASIN": "SI", "NAME": "UNNAMED", "ISO_TIME": "2024-10-29 00:00:00",
     "LAT": "-12.0", "LON": "90.0", "WMO_WIND": "40", "WMO_AGENCY": "atlantis",
     "TRACK_TYPE": "main"},
]  # fmt: skip


def ibtracs_text(columns, entries=TROPICAL, units=True):
    rows = [columns, [UNITS.get(c, " ") for c in columns]] if units else [columns]
    rows += [[entry.get(c, " ") for c in columns] for entry in entries]
    return "\n".join(",".join(row) for row in rows) + "\n"


def written(tmp_path, text, name="catalogue.txt"):
    path = tmp_path / name
    path.write_text(text)
    return path


@pytest.mark.parametrize("columns", [V04R00, V04R01, V04R01[::-1]])
def test_ibtracs_by_column_name(tmp_path, columns):
    got = read_catalogue(written(tmp_path, ibtracs_text(columns)))
    assert list(got["storm_id"]) == [
        *(["2021239N17281"] * 2), *(["2024300N12140"] * 2), "2024301N10060", "2024302S10090",
    ]  # fmt: skip
    assert list(got["basin"]) == ["NA", "NA", "WP", "WP", "NI", "SI"]
    assert list(got["SUBBASIN"])[:2] == ["NA", "GM"]
    assert list(got["name"])[2:4] == ["NAN", "NAN"]
    np.testing.assert_allclose(got["longitude"], [274.0, 270.4, 181.5, 181.0, 60.0, 90.0])
    assert list(got["wind_kt"]) == [70, 130, 55, 75, 35, 40]
    assert list(got["wind_agency"]) == [
        "hurdat_atl", "hurdat_atl", "tokyo", "jtwc_wp", "newdelhi", "atlantis",
    ]  # fmt: skip
    np.testing.assert_array_equal(got["wind_averaging_minutes"], [1, 1, 10, 1, 3, np.nan])
    np.testing.assert_array_equal(got["pressure_hpa"], [986, 930, 980, 972, 1000, np.nan])
    np.testing.assert_array_equal(got["USA_WIND"], [70, 130, 70, 75, 45, np.nan])
    assert list(got["status"])[:2] == ["HU", "HU"] and got["status"][2:].isna().all()
    assert got["time"][1] == pd.Timestamp("2021-08-29 12:00")
    assert json.loads(json.dumps(got.attrs)) == {
        "format": "ibtracs",
        "skipped": 0,
        "spur_entries": 2,
        "provisional_entries": 2,
        "wind_averaging_minutes": {
            "atlantis": None, "hurdat_atl": 1.0, "jtwc_wp": 1.0, "newdelhi": 3.0, "tokyo": 10.0,
        },
        "derived": ["deepening_bergeron", "wind_change_24h"],
    }  # fmt: skip
    # Ida gained 60 kt in the 24 hours before landfall, by the numbers above.
    assert list(select_rows(got, {"wind_change_24h": {"min": 30}})) == [False, True] + 4 * [False]
    assert got["wind_change_24h"][1] == 60


def test_agencies_do_not_take_turns_within_a_storm(tmp_path):
    """Tokyo every six hours from 12 to 36 UTC, the US agency every three: by hand, hour by hour."""
    start, entries = pd.Timestamp("2020-08-01"), []
    for hour in np.random.default_rng(0).permutation(range(0, 49, 3)):  # in any order
        entry = {
            "SID": "2020214N15130", "LAT": "25.0", "LON": "130.0", "TRACK_TYPE": "main",
            "ISO_TIME": str(start + pd.Timedelta(hours=int(hour))), "USA_AGENCY": "jtwc_wp",
            "USA_WIND": str(60 + hour), "USA_PRES": str(990 - hour),
        }  # fmt: skip
        if 12 <= hour <= 36 and hour % 6 == 0:
            entry |= {"WMO_WIND": "50", "WMO_AGENCY": "tokyo"}
            entry["WMO_PRES"] = "995" if hour < 30 else ""
        entries.append(entry)
    other = [entry | {"SID": "2020215N10150"} for entry in entries if "WMO_WIND" not in entry]
    got = read_catalogue(written(tmp_path, ibtracs_text(V04R01, entries + other)))
    tokyo, us = (got[got["storm_id"] == s] for s in ("2020214N15130", "2020215N10150"))
    assert set(us["wind_agency"]) == set(us["pressure_agency"]) == {"jtwc_wp"}
    hours = ((tokyo["time"] - start) / pd.Timedelta(hours=1)).astype(int)
    for hour, row in zip(hours, tokyo.to_dict("records"), strict=True):
        for agency, value, last, theirs, ours in (
            ("wind_agency", "wind_kt", 36, 50, 60 + hour),
            ("pressure_agency", "pressure_hpa", 24, 995, 990 - hour),
        ):
            within, found = 12 <= hour <= last, [row[agency], row[value]]
            wanted = ["tokyo", theirs] if within else ["jtwc_wp", ours]
            assert pd.isna(found).all() if within and hour % 6 else found == wanted
    assert list(hours[tokyo["deepening_bergeron"].notna()]) == [27, 30, 33]  # from 3, 6 and 9
    assert list(hours[tokyo["wind_change_24h"].notna()]) == [36]  # from 12, both Tokyo's
    falls = us["deepening_bergeron"].dropna()
    np.testing.assert_allclose(falls, np.sqrt(0.75) / np.sin(5 * np.pi / 36))


def test_ibtracs_without_units_row_keeps_its_first_entry(tmp_path):
    with_units = read_catalogue(written(tmp_path, ibtracs_text(V04R01)))
    without = read_catalogue(written(tmp_path, ibtracs_text(V04R01, units=False)))
    pd.testing.assert_frame_equal(with_units, without)


def test_bad_ibtracs(tmp_path):
    spurs = [entry | {"TRACK_TYPE": "spur-other"} for entry in TROPICAL]
    with pytest.raises(InputError, match="must hold main tracks, got 8 entries of spur tracks"):
        read_catalogue(written(tmp_path, ibtracs_text(V04R00, spurs)))
    north = [*TROPICAL, TROPICAL[0] | {"LAT": "95"}]
    with pytest.raises(InputError, match=r"`latitude` must lie within .* got `95.0` in line 11"):
        read_catalogue(written(tmp_path, ibtracs_text(V04R01, north)))
    with pytest.raises(InputError, match="must hold entries, got none"):
        read_catalogue(written(tmp_path, ibtracs_text(V04R01, [])))


HURDAT2 = """\
AL092021,                IDA,      4,
20210828, 1200,  , HU, 24.5N,  86.0W,  70,  986,  120,   90,   60,   90, 0, 0, 0, 0, 0, 0, 0, 0,
20210829, 1200,  , HU, 28.5N,  89.6W, 130,  929, -999, -999, -999, -999, -999, -999, -999, -999, \
-999, -999, -999, -999,   10
20210829, 1655, L, HU, 29.1N,  90.2W, 130, -999
20210830, 1200,  , TS, 32.0N,  90.5W, -99,  996, , , , , , , , , , , , ,
CP012018,            UNNAMED,      1
20180103, 0000,  , LO,  5.0S, 179.5E,  25, 1004
"""


def test_hurdat2(tmp_path):
    got = read_catalogue(written(tmp_path, HURDAT2))
    assert list(got["storm_id"]) == ["CP012018"] + 4 * ["AL092021"]
    assert list(got["basin"]) == ["CP"] + 4 * ["AL"]
    assert list(got["name"]) == ["UNNAMED"] + 4 * ["IDA"]
    np.testing.assert_allclose(got["latitude"], [-5.0, 24.5, 28.5, 29.1, 32.0])
    np.testing.assert_allclose(got["longitude"], [179.5, 274.0, 270.4, 269.8, 269.5])
    np.testing.assert_array_equal(got["wind_kt"], [25, 70, 130, 130, np.nan])
    np.testing.assert_array_equal(got["pressure_hpa"], [1004, 986, 929, np.nan, 996])
    np.testing.assert_array_equal(got["r34_ne_nmile"], [np.nan, 120, np.nan, np.nan, np.nan])
    np.testing.assert_array_equal(got["rmw_nmile"], [np.nan, np.nan, 10, np.nan, np.nan])
    assert list(got["status"]) == ["LO", "HU", "HU", "HU", "TS"]
    assert got["record"][3] == "L" and got["record"].notna().sum() == 1
    assert got["time"][3] == pd.Timestamp("2021-08-29 16:55")
    assert json.loads(json.dumps(got.attrs)) == {
        "format": "hurdat2",
        "skipped": 0,
        "miscounted": 0,
        "wind_averaging_minutes": {"hurdat2": 1.0},
        "derived": ["deepening_bergeron", "wind_change_24h"],
    }


def test_malformed_lines_of_hurdat2_are_named_and_counted(tmp_path, caplog):
    text = """\
<pre>
20210101, 0000,  , TS, 24.5N,  86.0W,  40, 1000
AL092021,                IDA,      7,
20210828, 1200,  , HU, 24.5N,  86.0W,  70,  986, -999-999, -999
20210828, 1800,  , HU, 24.5N,  86.0W,  70,  986
20210829, 0000,  , HU, 24.5 ,  86.0W,  70,  986
20210829, 0660,  , HU, 24.5N,  86.0W,  70,  986
20210829, 1200,  , HU, 124.5N,  86.0W,  70,  986
20210829, 1800,  , HU, 24.5N,  86.0W,  7O,  986
2021830, 1800,  , HU, 24.5N,  86.0W,  70,  986

 -999, -999, -999,
AL10-2021,             JULIAN,     1,
20210830, 1200,  , TS, 22.0N,  40.5W,  40,  996
AL112021,               KATE,      2,
20210831, 1200,  , TS, 22.0N,  50.5W,  40,  996
"""
    with caplog.at_level(logging.WARNING):
        got = read_catalogue(written(tmp_path, "\ufeff" + text.replace("\n", "\r\n")))
    assert list(got["storm_id"]) == ["AL092021", "AL112021"]
    assert list(got["time"].dt.hour) == [18, 12]
    assert got.attrs["skipped"] == 11 and got.attrs["miscounted"] == 1
    said = caplog.text
    assert "11 lines of" in said
    assert "line 1 (it is neither a header nor an entry)" in said
    assert "line 2 (no readable header above it)" in said
    assert "line 4 (10 fields, not 8 or 20 or 21)" in said
    assert "line 6 (no position: `24.5`), line 7 (no date: `20210829, 0660`), ..." in said
    assert "line 15 of" in said and "announces 2 entries, got 1" in said


@pytest.mark.parametrize("header", ["0L022021,  TWO,  2,", "-L022021, TWO, 2,", "??"])
def test_entries_below_a_garbled_header_are_of_no_system(tmp_path, header):
    text = f"""\
AL012021,                ANA,      1,
20210828, 1200,  , TS, 24.5N,  86.0W,  40,  996
{header}
20210829, 1200,  , HU, 10.0N,  46.0W,  90,  960
20210829, 1800,  , HU, 10.5N,  47.0W,  90,  960
"""
    got = read_catalogue(written(tmp_path, text))
    assert list(got["storm_id"]) == ["AL012021"] and got["wind_change_24h"].isna().all()
    assert got.attrs["skipped"] == 3


def test_unreadable_hurdat2(tmp_path):
    text = "AL092021,      IDA,     1,\n20210829, 0660,  , HU, 24.5N,  86.0W,  70,  986\n"
    with pytest.raises(InputError, match=r"got none in .*: line 2 \(no date"):
        read_catalogue(written(tmp_path, text))


hurdat2_entries = st.lists(
    st.tuples(
        st.integers(0, 20000),
        st.integers(-900, 900),
        st.integers(-1800, 1800),
        st.one_of(st.none(), st.integers(0, 38)),
        st.one_of(st.none(), st.integers(870, 1050)),
    ),
    min_size=1,
    max_size=8,
    unique_by=lambda entry: entry[0],
)


@settings(max_examples=40, deadline=None)
@given(hurdat2_entries, st.booleans())
def test_hurdat2_round_trip(tmp_path_factory, entries, radii):
    start = pd.Timestamp("1990-01-01")
    lines = [f"EP012003, ANY, {len(entries)},"]
    for step, lat, lon, wind, pressure in entries:
        lines.append(
            f"{start + step * pd.Timedelta('3h'):%Y%m%d, %H%M},  , TS, "
            f"{abs(lat) / 10:4.1f}{'S' if lat < 0 else 'N'}, "
            f"{abs(lon) / 10:5.1f}{'W' if lon < 0 else 'E'}, "
            f"{-99 if wind is None else 5 * wind:3d}, "
            f"{-999 if pressure is None else pressure:4d}, " + ("-999, " * 12 if radii else "")
        )
    path = tmp_path_factory.mktemp("hurdat2") / "round.txt"
    got = read_catalogue(written(path.parent, "\n".join(lines), path.name))
    want = sorted(entries)
    assert list(got["time"]) == [start + e[0] * pd.Timedelta("3h") for e in want]
    assert got.attrs["skipped"] == got.attrs["miscounted"] == 0
    np.testing.assert_allclose(got["latitude"], [e[1] / 10 for e in want])
    assert got["longitude"].between(0, 360, inclusive="left").all()
    turn = np.abs(got["longitude"] - np.array([e[2] / 10 for e in want]))
    assert np.minimum(turn, np.abs(turn - 360)).max() < 1e-9
    for column, place, factor in (("wind_kt", 3, 5.0), ("pressure_hpa", 4, 1.0)):
        values = [np.nan if e[place] is None else factor * e[place] for e in want]
        np.testing.assert_array_equal(got[column], values)


def test_hurdat2_of_the_atlantic():
    path = SHARED / "weather" / "hurdat2_atlantic_2001_2008.txt"
    if not path.is_file():
        pytest.skip("needs the shared data")
    got = read_catalogue(path)
    assert got["storm_id"].nunique() == 143
    assert got.attrs["skipped"] == got.attrs["miscounted"] == 0
    storms = got[
        got["latitude"].between(30, 70)
        & ((got["longitude"] >= 290) | (got["longitude"] <= 10))
        & got["status"].isin(["TS", "HU", "SS"])
    ]
    assert len(storms) == 556 and storms["storm_id"].nunique() == 52
    assert storms["time"].dt.floor("D").nunique() == 171
    assert (storms["status"] == "HU").sum() == 260
    # Wilma's fall to 882 hPa, with 160 kt 24 hours after 65 kt, is the record of the basin.
    wilma = got[got["name"] == "WILMA"]
    assert wilma["wind_change_24h"].max() == got["wind_change_24h"].max() == 95
    assert wilma["pressure_hpa"].min() == got["pressure_hpa"].min() == 882
