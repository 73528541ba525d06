"""Whole builds with each rule, and what the rules refuse."""

import time

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from data_pipelines.build import build_store
from data_pipelines.errors import InputError
from data_pipelines.groups import Groups
from data_pipelines.quality import Quality
from data_pipelines.schema import GROUPS, SPLITS, PatchGrid
from data_pipelines.settings import Exceedance, Fields, Incidents, Mask, Patches, Series, Splits
from data_pipelines.store import meanings, open_store

DAYS = 800
LATITUDE, LONGITUDE = np.linspace(60.0, 35.0, 11), np.linspace(0.0, 35.0, 15)
SPLIT = Splits(target_per_group=3, fractions=[0.5, 0.25, 0.25], gap="1d")
TWO_YEARS = Splits(target_per_group=3, fractions=[0.8, 0.1, 0.1], gap="1d")  # nearly, of training
PATCHES = Patches(4, 2, 0.5)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A warm blob of 8 x 8 points for four days every sixteenth day, and its outline."""
    rng = np.random.default_rng(0)
    warm = rng.normal(280.0, 1.0, (DAYS, 11, 15))
    outline = np.zeros((DAYS, 11, 15))
    for first in range(4, DAYS, 16):
        y, x = rng.integers(0, 4), rng.integers(0, 8)
        warm[first : first + 4, y : y + 8, x : x + 8] += 15.0
        outline[first : first + 4, y : y + 8, x : x + 8] = 1.0 + first % 32 // 16
    axes = {
        "time": pd.date_range("2001-01-01", periods=DAYS),
        "latitude": LATITUDE,
        "longitude": LONGITUDE,
    }
    names = ("time", "latitude", "longitude")
    data = xr.Dataset(
        {
            "t2m": (names, warm.astype("f4"), {"units": "K", "standard_name": "air_temperature"}),
            # As a mask made from a temperature may be: its name says what it is not.
            "outline": (names, outline.astype("f4"), {"standard_name": "air_temperature"}),
        },
        axes,
    )
    path = tmp_path_factory.mktemp("areas") / "fields.nc"
    data.to_netcdf(path)
    return path, data


def build(files, path, incidents, **changes):
    given = {"patches": PATCHES, "splits": SPLIT, "fields": Fields([str(files[0])], ["t2m"])}
    given |= changes
    return build_store(
        path, given.pop("fields"), incidents, given.pop("patches"), given.pop("splits"), **given
    )


def covered(data, one, values=None):
    """Share of a sample's patch that the outline covers, straight from the file."""
    at = data["outline"].sel(time=one["time"].values)
    half = 1.5 * 2.5 + 0.1
    lat, lon = float(one["latitude"]), float(one["longitude"])
    box = at.sel(latitude=slice(lat + half, lat - half), longitude=slice(lon - half, lon + half))
    assert box.shape == (4, 4)
    marked = box > 0 if values is None else box.isin(values)
    return float(marked.weighted(np.cos(np.deg2rad(box["latitude"]))).mean())


@pytest.mark.parametrize("values", [None, [2.0]])
def test_mask(files, tmp_path, values):
    """Oracle: the share of each patch selected by coordinates from the file."""
    rule = Incidents(rule="mask", mask=Mask("outline", values=values or [], min_share=0.6))
    store = open_store(build(files, tmp_path / "p.zarr", rule))
    rng = np.random.default_rng(1)
    for i in rng.choice(store.sizes["sample"], 150):
        one = store.isel(sample=int(i))
        share = covered(files[1], one, values)
        if abs(share - 0.6) < 1e-6 or abs(share - 0.3) < 1e-6:
            continue
        kind = "incident" if share > 0.6 else "hard_negative" if share > 0.3 else "background"
        assert GROUPS[int(one["group"])] == kind
    table = store[["label", "split", "incident_id"]].compute().to_dataframe().query("label == 1")
    assert table["incident_id"].nunique() > 10 and "" not in set(table["incident_id"])
    kept = table[table["split"] > 0]
    assert (kept.groupby("incident_id")["split"].nunique() == 1).all()


def test_warm_spells_are_found_where_they_were_put(files, tmp_path):
    rule = Incidents(
        rule="exceedance",
        exceedance=Exceedance("t2m", percentile=70, window_days=31, min_days=3, min_share=0.9),
    )
    store = open_store(build(files, tmp_path / "p.zarr", rule, splits=TWO_YEARS))
    incidents = np.flatnonzero(store["label"].values == 1)
    shares = [covered(files[1], store.isel(sample=int(i))) for i in incidents[::7]]
    assert min(shares) > 0.85  # nearly all of the patch warm for three days: never by chance
    everywhere = np.flatnonzero(store["group"].values == 0)[::101]
    assert max(covered(files[1], store.isel(sample=int(i))) for i in everywhere) < 0.9
    assert not list(tmp_path.glob(".daily-*"))
    assert set(store["reason"].values) == {"background", "smaller_exceedance", "exceedance"}


def test_unknown_labels_are_dropped_and_counted(files, tmp_path):
    data = files[1]
    holed = data.copy(deep=True)
    holed["outline"][20:30] = np.nan
    holed["outline"][700] = holed["outline"][710] = 0.0
    holed["outline"][700, 2:6, 2:6] = np.nan  # all of one patch, half of those beside it
    holed["outline"][710, 4, 5] = np.inf  # a sixteenth of four patches, which is too little
    holed.to_netcdf(tmp_path / "f.nc")
    rule = Incidents(rule="mask", mask=Mask("outline", min_share=0.6))
    store = open_store(build((tmp_path / "f.nc", None), tmp_path / "p.zarr", rule))
    times = store["time"].values
    assert not np.isin(data["time"].values[20:30], times).any()
    assert store.attrs["dropped"]["times_without_label"] == 10
    grid = PatchGrid(LATITUDE, LONGITUDE, 4, 2)
    per_step = pd.Series(times).value_counts()
    for step, lacking in ((700, 5), (710, 0)):
        assert per_step[data["time"].values[step]] == grid.rows * grid.columns - lacking
    report = (tmp_path / "quality.json").read_text()
    assert '"outline"' in report and '"infinite"' in report


def test_values_below_0_of_a_mask_are_told(files, tmp_path, caplog):
    data = files[1].copy(deep=True)
    data["outline"][30:40] = -1.0
    data.to_netcdf(tmp_path / "f.nc")
    build(
        (tmp_path / "f.nc", None), tmp_path / "p.zarr", Incidents(rule="mask", mask=Mask("outline"))
    )
    assert "values below 0, such as -1, which count as no incident" in caplog.text


def test_groups_by_place_and_season(files, tmp_path):
    """Oracle: xarray's own season, and the latitude of the centre."""
    groups = Groups(by=["latitude_band", "season"], latitude_bands=[47.0])
    rule = Incidents(rule="mask", mask=Mask("outline", min_share=0.6))
    split = Splits(target_per_group=2, fractions=[0.7, 0.1, 0.2], gap="1d")
    path = build(files, tmp_path / "p.zarr", rule, groups=groups, splits=split)
    store = open_store(path)
    names = np.array(meanings(store, "group"))
    assert len(names) == 2 * 2 * 4
    band = np.where(store["latitude"] < 47.0, "0to47", "47to90")
    season = np.char.lower(store["time"].dt.season.values.astype(str))
    label = np.where(store["label"] == 1, "incident", "normal")
    wanted = [f"{a}_{b}_{c}" for a, b, c in zip(label, band, season, strict=True)]
    assert list(names[store["group"].values]) == wanted
    target = store["group"].values[store["split"].values == SPLITS.index("target")]
    train = store["group"].values[store["split"].values == SPLITS.index("train")]
    assert (np.bincount(target, minlength=16)[np.unique(train)] == 2).all()


@pytest.mark.parametrize(
    ("incidents", "words"),
    [
        (lambda: Incidents(rule="mask"), "mask.variable` must name a variable"),
        (
            lambda: Incidents(rule="mask", mask=Mask("outline", values=[7])),
            "got 0.1, which none does .0 have half of it.*has values such as 0, 1, 2",
        ),
        (lambda: Incidents(rule="mask", mask=Mask("outlin")), "Did you mean `outline`"),
        (lambda: Incidents(rule="mask", catalogue="c.csv"), "`incidents.rule` must be the rule"),
        (
            lambda: Incidents(rule="mask", mask=Mask("outline"), where={"a": {"min": 1}}),
            "`incidents.where` must be left out with .*: mask`.*`catalogue` and `series`",
        ),
        (
            lambda: Incidents(rule="exceedance", exceedance=Exceedance("t2m", window_days=30)),
            "window_days` must be odd.*got 30. Take 29",
        ),
        (
            lambda: Incidents(rule="exceedance", exceedance=Exceedance("t2m", side="below")),
            "got 95 .of 100. with `side: below`, as 95 % of them are. Take 5",
        ),
        (
            lambda: Incidents(rule="exceedance", exceedance=Exceedance("t2m", percentile=0.95)),
            "got 0.95 .of 100. with `side: above`, as 99.05 % of them are. Take 99.05",
        ),
        (
            lambda: Incidents(rule="exceedance", exceedance=Exceedance("t2n")),
            "`incidents.exceedance.variable`: variable `t2n` is unknown",
        ),
        (
            lambda: Incidents(rule="exceedance", match_time="day"),
            "`incidents.match_time` must be left out with `incidents.rule: exceedance`",
        ),
        (
            lambda: Incidents(rule="series", distance_km=300.0),
            "`incidents.distance_km` must be left out.*It belongs to `catalogue`",
        ),
        (lambda: Incidents(distance_km=-1.0), "distance_km` must not be negative"),
        (lambda: Incidents(rule="series", series=Series("r.csv", "tp")), "which values"),
        (
            lambda: Incidents(
                rule="series", series=Series("r.csv", "tp"), where={"tp": {"min": 1}}
            ),
            "no such file",
        ),
        (
            lambda: Incidents(rule="exceedance", exceedance=Exceedance("t2m", percentile=99.9)),
            "at least 1000 training days",
        ),
    ],
)
def test_bad_rules(files, tmp_path, incidents, words):
    with pytest.raises(InputError, match=words):
        build(files, tmp_path / "p.zarr", incidents())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "rule",
    [
        Incidents(rule="mask", mask=Mask("outline")),
        Incidents(rule="exceedance", exceedance=Exceedance("t2m")),
    ],
)
def test_areas_have_no_place_between_the_patches(files, tmp_path, rule):
    with pytest.raises(InputError, match="incident_stride` needs incidents at points"):
        build(files, tmp_path / "p.zarr", rule, patches=Patches(4, 2, incident_stride=1))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("rule", ["mask", "exceedance"])
def test_what_is_wrong_with_the_files_of_a_rule_is_found(files, tmp_path, rule):
    (tmp_path / "junk.nc").write_text("no file of fields")
    paths = [str(files[0]), str(tmp_path / "junk.nc")]
    rules = {
        "mask": {"mask": Mask(variable="outline", paths=paths)},
        "exceedance": {
            "exceedance": Exceedance("t2m", paths, percentile=90.0, min_days=2, window_days=31)
        },
    }
    incidents = Incidents(rule=rule, **rules[rule])
    strict = Quality(strict=True)
    with pytest.raises(InputError, match=r"allows no finding.*junk.nc"):
        build(files, tmp_path / "p.zarr", incidents, quality=strict, splits=TWO_YEARS)


def test_a_changed_zarr_store_is_another_input(files, tmp_path):
    from data_pipelines.store import fingerprint

    files[1].to_zarr(tmp_path / "in.zarr", encoding={"t2m": {"compressors": None}})
    before = fingerprint([tmp_path / "in.zarr"])
    assert fingerprint([tmp_path / "in.zarr"]) == before
    time.sleep(0.01)
    chunk = next(p for p in (tmp_path / "in.zarr" / "t2m" / "c").rglob("*") if p.is_file())
    chunk.write_bytes(bytes(chunk.stat().st_size))
    assert fingerprint([tmp_path / "in.zarr"]) != before


def test_another_grid_is_refused(files, tmp_path):
    files[1].isel(longitude=slice(0, 12)).to_netcdf(tmp_path / "other.nc")
    rule = Incidents(rule="mask", mask=Mask("outline", [str(tmp_path / "other.nc")]))
    with pytest.raises(InputError, match=r"must have the `longitude` of the fields, 15 points"):
        build(files, tmp_path / "p.zarr", rule)


def test_several_masks_a_day_are_refused(files, tmp_path):
    twice = files[1][["outline"]]
    twice = xr.concat([twice, twice.assign_coords(time=twice["time"] + np.timedelta64(6, "h"))],
                      dim="time").sortby("time")  # fmt: skip
    twice.to_netcdf(tmp_path / "twice.nc")
    mask = Mask("outline", [str(tmp_path / "twice.nc")])
    with pytest.raises(InputError, match="at most one mask a day"):
        build(files, tmp_path / "p.zarr", Incidents(rule="mask", mask=mask, match_time="day"))


def test_an_incident_that_never_ends_belongs_to_one_split(files, tmp_path):
    """All of the region marked at all times: one incident, which the test period takes."""
    data = files[1].copy(deep=True)
    data["outline"][:] = 1.0
    data.to_netcdf(tmp_path / "f.nc")
    rule = Incidents(rule="mask", mask=Mask("outline", min_share=0.6))
    words = r"`splits.train` must hold .* got none. \d+ incident patches there belong to incidents"
    with pytest.raises(InputError, match=words):
        build((tmp_path / "f.nc", None), tmp_path / "p.zarr", rule)
