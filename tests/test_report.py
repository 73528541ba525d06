"""The page of a run: whole in itself, and alive in a browser."""

import json
import re
import shutil
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from test_end_to_end import fails

from weather_tdr.cli import main
from weather_tdr.plots.interactive import LEVELS, _marks, incident_map_view
from weather_tdr.report_parts import html_table

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver")


@pytest.fixture(scope="module")
def page(tiny_run):
    main(["report", str(tiny_run / "tdr"), "--quiet"])
    return tiny_run / "tdr" / "report.html"


class Links(HTMLParser):
    """Everything that a browser would fetch, and all headings."""

    def __init__(self):
        super().__init__()
        self.fetched, self.headings, self.inside = [], [], False

    def handle_starttag(self, tag, attrs):
        self.inside = tag == "h2"
        for name, value in attrs:
            if name == "src" or (tag == "link" and name == "href"):
                self.fetched.append(value)

    def handle_data(self, data):
        if self.inside:
            self.headings.append(data)
            self.inside = False


def test_the_page_is_whole_and_needs_nothing(page, tiny_run):
    text = page.read_text()
    links = Links()
    links.feed(text)
    assert links.headings == [
        "What was run", "Data", "Training", "Scores", "Diagrams", "Incident map", "Incidents",
    ]  # fmt: skip
    assert len(links.fetched) >= 4  # icon and pictures
    assert all(link.startswith("data:") for link in links.fetched)
    scores = json.loads((page.parent / "scores.json").read_text())["test"]
    assert f"{scores['samples']:,} patches" in text
    for method in pd.read_csv(tiny_run / "comparison.csv")["method"]:
        assert f"<td>{method}</td>" in text


def test_tables_escape_what_they_show():
    table = pd.DataFrame({"storm_id": ["<b>A</b>", None], "area_km2": [1234.5, np.nan]})
    text = html_table(table)
    assert "<b>" not in text and "&lt;b&gt;A&lt;/b&gt;" in text
    assert "area (km²)" in text and "1,234" in text and "–" in text


def test_storms_and_tracks_are_named_as_they_are():
    times = pd.DatetimeIndex(["2001-01-01", "2001-01-02"])
    table = pd.DataFrame(
        {
            "time": times, "latitude": 50.0, "longitude": [350.0, 20.0], "probability": 0.5,
            "track_id": [12345, 2], "storm_id": ["2026001", ""],
        }
    )  # fmt: skip
    marks = _marks(table, times, -20.0)
    assert marks["text"][1:] == [
        "50.0 N, 350.0 E; probability 0.5; track 12345; storm 2026001",
        "50.0 N, 20.0 E; probability 0.5; track 2",
    ]
    assert marks["x"][1:] == [-10.0, 20.0] and marks["step"] == [-1, 0, 1]
    assert ">12345<" in html_table(table) and ">2026001<" in html_table(table)


def test_report_of_what_is_no_run(capsys, tiny_run, tmp_path):
    assert "There is: " in fails(capsys, "report", tiny_run)
    shutil.copytree(tiny_run, tmp_path / "tiny")
    (tmp_path / "tiny" / "uniform" / "scores.json").unlink()
    assert "weather-tdr evaluate" in fails(capsys, "report", tmp_path / "tiny" / "uniform")


def test_large_maps_show_the_highest_of_neighbouring_points(monkeypatch):
    monkeypatch.setattr("weather_tdr.plots.interactive.MOST_VALUES", 2 * 9 * 12)
    values = np.zeros((2, 18, 24))
    values[1, 5, 7] = 0.95
    values[0, :2, :2] = np.nan
    field = xr.DataArray(
        values,
        dims=("time", "latitude", "longitude"),
        coords={
            "time": pd.date_range("2001-01-01", periods=2),
            "latitude": np.arange(45.0, -45, -5), "longitude": np.arange(0, 360.0, 15),
        },
    )  # fmt: skip
    found = pd.DataFrame({"time": field["time"].values[[1]], "latitude": 20.0, "longitude": 105.0,
                          "probability": 0.95})  # fmt: skip
    view, factor = incident_map_view(field, found, None)
    assert factor == 2
    (image,) = view.select_one({"name": "map"}).renderers[0].data_source.data["image"]
    assert image.shape == (9, 12)
    assert image.max() == len(LEVELS) - 1 and (image > 0).sum() == 1
    assert image[8 - 2, 3] == image.max()  # south first
    drawn = view.select_one({"name": "map"})
    assert (drawn.x_range.start, drawn.x_range.end) == (-7.5, 352.5)


@pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="chromium and its driver are not installed")
def test_the_page_lives_in_a_browser(page):
    """No error in the console, no request to the network, and the slider moves the map."""
    webdriver = pytest.importorskip("selenium.webdriver")
    from selenium.webdriver.support.ui import WebDriverWait

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1200,900"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    service = webdriver.ChromeService(executable_path=DRIVER)
    browser = webdriver.Chrome(options=options, service=service)
    try:
        browser.get(page.as_uri())
        wait = WebDriverWait(browser, 60)
        find = "return (window.Bokeh?.documents ?? []).map(d => d.get_model_by_name('{}'))" \
               ".find(m => m)"  # fmt: skip
        wait.until(lambda b: b.execute_script(find.format("map") + "?.title.text"))

        def shown():
            return browser.execute_script(
                f"const map = (() => {{ {find.format('map')} }})();"
                "const found = map.renderers.find(r => r.glyph.type === 'Scatter').data_source;"
                "return [map.title.text, Array.from(map.renderers[0].data_source.data.image[0]),"
                "        Array.from(found.data.y).slice(1)]"
            )

        with xr.open_dataarray(page.parent / "incident_map.nc") as field:
            times = pd.DatetimeIndex(field["time"].values)
            values = field.sortby("latitude").values
        incidents = pd.read_csv(page.parent / "incidents.csv", parse_dates=["time"])
        canvas = browser.find_element("css selector", "#part5")
        pictures = {}
        busiest = times.get_indexer(incidents["time"].value_counts().index[:1])
        for step in dict.fromkeys((0, len(times) - 1, *map(int, busiest))):
            browser.execute_script(f"(() => {{ {find.format('time')} }})().value = {step}")
            text = f"{times[step]:%Y-%m-%d %H:%M} UTC"
            wait.until(lambda b, text=text: shown()[0] == text)
            # What the browser shows is the map of that time, to the level.
            levels = np.searchsorted(LEVELS[:-1], np.nan_to_num(values[step]), side="right")
            assert (np.array(shown()[1]) == levels.ravel()).all()
            here = incidents[incidents["time"] == times[step]]
            assert shown()[2] == pytest.approx(here["latitude"].tolist())
            pictures[step] = canvas.screenshot_as_base64
        assert len(set(pictures.values())) == len(pictures) >= 2
        severe = [e for e in browser.get_log("browser") if e["level"] in ("SEVERE", "WARNING")]
        assert severe == []
        events = [json.loads(e["message"])["message"] for e in browser.get_log("performance")]
        asked = [e["params"]["request"]["url"] for e in events
                 if e["method"] == "Network.requestWillBeSent"]  # fmt: skip
        assert page.as_uri() in asked
        assert [u for u in asked if not re.match(r"file://|data:|blob:", u)] == []
    finally:
        browser.quit()
