import gzip
import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_best_tracks import HURDAT2, V04R01, ibtracs_text, written

from data_pipelines.catalogues import recognise
from data_pipelines.errors import InputError
from data_pipelines.incidents import read_catalogue


def collection(*features):
    return json.dumps({"type": "FeatureCollection", "features": list(features)})


def point(x, y, **properties):
    geometry = {"type": "Point", "coordinates": [x, y]}
    return {"type": "Feature", "geometry": geometry, "properties": properties}


def test_geojson(tmp_path, caplog):
    track = {"type": "LineString", "coordinates": [[0, 0], [1, 1]]}
    text = collection(
        point(-10.5, 50, time="2001-01-02T00:00Z", storm_id=7, hail_cm=3.5, longitude=999),
        {"type": "Feature", "geometry": track, "properties": {}},
        point(10, -50, time="2001-01-01T06:00:00+06:00", kind="hail") | {"id": "report 8"},
        {"type": "Feature", "geometry": None, "properties": None},
    )
    got = read_catalogue(written(tmp_path, text))
    assert list(got["storm_id"]) == ["report 8", "7"]
    assert list(got["time"]) == [pd.Timestamp("2001-01-01"), pd.Timestamp("2001-01-02")]
    assert list(got["longitude"]) == [10.0, 349.5] and list(got["latitude"]) == [-50.0, 50.0]
    assert list(got["hail_cm"])[1] == 3.5 and got["kind"][0] == "hail"
    assert got.attrs == {"format": "geojson", "skipped": 2, "derived": []}
    assert "2 of 4 features" in caplog.text and "first is feature 2" in caplog.text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"type": "Feature"}', "must be a GeoJSON FeatureCollection, got `Feature`"),
        ("[1, 2]", "must be a GeoJSON FeatureCollection, got `list`"),
        ('{"type": ', "is no readable JSON"),
        (collection(), "must hold features that are points, got none of 0"),
        (collection(point(1, 2, storm_id="a")), "column `time` is unknown"),
        (collection(point(1, 2) | {"properties": ["a"]}), "column `time` is unknown"),
        (
            collection(
                point(1, 2, time="2001-01-01", storm_id="a"), point(1, 95, time=1, storm_id="a")
            ),
            "`time` must be a date .* got `1` in feature 2",
        ),
    ],
)
def test_bad_geojson(tmp_path, text, words):
    with pytest.raises(InputError, match=words):
        read_catalogue(written(tmp_path, text))


coordinates = st.tuples(st.floats(-180, 180), st.floats(-90, 90), st.integers(0, 10**6))


@settings(max_examples=40, deadline=None)
@given(st.lists(coordinates, min_size=1, max_size=6))
def test_geojson_and_csv_agree(tmp_path_factory, points):
    folder = tmp_path_factory.mktemp("formats")
    rows = [
        (longitude, latitude, pd.Timestamp("1970-01-01") + pd.Timedelta(minutes=minute))
        for longitude, latitude, minute in points
    ]
    features = [point(x, y, time=t.isoformat(), storm_id=i) for i, (x, y, t) in enumerate(rows)]
    lines = [f"{t},{y!r},{x!r},{i}" for i, (x, y, t) in enumerate(rows)]
    csv = "time,latitude,longitude,storm_id\n" + "\n".join(lines)
    a = read_catalogue(written(folder, collection(*features), "a"))
    b = read_catalogue(written(folder, csv, "b"))
    assert (a["longitude"] < 360).all() and (a["longitude"] >= 0).all()
    for column in ("time", "latitude", "longitude"):
        np.testing.assert_array_equal(a[column], b[column])
    assert list(a["storm_id"]) == list(b["storm_id"])


CSV = (
    "time,latitude,longitude,storm_id,basin,depth\n"
    "2001-01-02,1,-10,7,NA,NA\n2001-01-01,1,350,7,,3\n"
)


def test_csv_keeps_the_north_atlantic(tmp_path):
    got = read_catalogue(written(tmp_path, CSV))
    assert got["basin"].isna().tolist() == [True, False] and got["basin"][1] == "NA"
    np.testing.assert_array_equal(got["depth"], [3, np.nan])
    assert got.attrs == {"format": "csv", "skipped": 0, "derived": []}


@pytest.mark.parametrize(
    "text",
    [CSV, ibtracs_text(V04R01), HURDAT2, collection(point(1, 2, time="2001-01-01", storm_id="a"))],
)
def test_content_not_name_tells_format_and_compression(tmp_path, text):
    plain = read_catalogue(written(tmp_path, text, "catalogue.gz"))
    (tmp_path / "catalogue.csv").write_bytes(gzip.compress(text.encode()))
    zipped = read_catalogue(tmp_path / "catalogue.csv")
    pd.testing.assert_frame_equal(plain, zipped)
    assert plain.attrs == zipped.attrs
    assert plain.attrs["format"] == recognise(text)


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("decimal", [".", ","])
def test_separators_and_decimal_marks(tmp_path, separator, decimal):
    """As spreadsheets write them; a decimal comma never stands beside commas as separators."""
    if separator == decimal:
        return
    table = pd.DataFrame(
        {
            "time": ["2001-01-01 06:00", "2001-01-02"],
            "latitude": [50.25, -10.0],
            "longitude": [10.5, -20.25],
            "storm_id": ["a", "b"],
            "name": ["one; two", "x"],
        }
    )
    table.to_csv(tmp_path / "c.csv", sep=separator, decimal=decimal, index=False)
    got = read_catalogue(tmp_path / "c.csv")
    assert list(got["latitude"]) == [50.25, -10.0] and list(got["longitude"]) == [10.5, 339.75]
    assert list(got["name"]) == ["one; two", "x"]


def test_a_storm_named_like_hurdat2_is_still_csv():
    assert recognise("storm_id,time,latitude,longitude\nAL092021,2021-08-26,1,2\n") == "csv"


@pytest.mark.parametrize(
    "content",
    [b"", b"\x89HDF\r\n\x1a\n\xff\xfe", gzip.compress(b"a,b")[:-9]],
    ids=["empty", "netcdf", "cut"],
)
def test_no_text(tmp_path, content):
    (tmp_path / "c.csv").write_bytes(content)
    with pytest.raises(InputError, match=r"is no readable CSV: .*Give a text file \(or its \.gz\)"):
        read_catalogue(tmp_path / "c.csv")
    with pytest.raises(InputError, match="no such file"):
        read_catalogue(tmp_path)
