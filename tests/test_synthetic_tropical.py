import numpy as np
import pandas as pd
import pytest
from scipy.optimize import brentq
from sklearn.metrics import average_precision_score

from data_pipelines.atmosphere import DENSITY, OMEGA, SURFACE_WIND, balanced_fields, holland_deficit
from data_pipelines.errors import InputError
from data_pipelines.incidents import read_catalogue
from data_pipelines.store import open_store
from data_pipelines.synthetic import Synthetic, make_synthetic, write_synthetic
from data_pipelines.synthetic_tropical import highest_wind, make_cyclones, tropical_vortices
from weather_tdr import configs_folder
from weather_tdr.config import read_config
from weather_tdr.run import build

TROPICS = Synthetic(
    start="2001-08-01", days=12, spacing=2.0, latitudes=[0.0, 40.0], longitudes=[260.0, 340.0],
    explosive_per_day=0.05, ordinary_per_day=0.2, tropical_per_day=4.0, seed=5,
)  # fmt: skip


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return write_synthetic(TROPICS, tmp_path_factory.mktemp("tropical"))


def test_the_file_is_an_ibtracs_file(files):
    lines = files[1].read_text().splitlines()
    assert lines[0].startswith("SID,SEASON,NUMBER,BASIN,SUBBASIN,NAME,ISO_TIME,NATURE,LAT,LON,WMO")
    assert lines[1].startswith(" ,Year, , , , , , ,degrees_north,degrees_east,kts,mb, , ,km,km,")
    got = read_catalogue(files[1])
    assert got.attrs["format"] == "ibtracs" and len(got) == len(lines) - 2
    assert got.attrs["wind_averaging_minutes"] == {"synthetic": None}
    assert set(got["basin"]) == {"NA"}  # the North Atlantic, not a missing value
    assert got["storm_id"].str.fullmatch(r"2001\d{3}N\d{5}").all()
    assert not got.duplicated(["storm_id", "time"]).any()
    assert got["latitude"].between(0, 40).all() and got["longitude"].between(260, 340).all()
    assert (got["wind_kt"] % 5 == 0).all()
    rise = got["wind_change_24h"].dropna()
    assert (rise >= 30).any() and (rise < 30).mean() > 0.8


def test_same_seed_same_file(files, tmp_path):
    again = write_synthetic(TROPICS, tmp_path)
    assert files[1].read_bytes() == again[1].read_bytes()


def test_catalogue_agrees_with_the_fields():
    """On a fine grid the point next to a centre has the catalogue's pressure."""
    settings = Synthetic(
        start="2001-08-01", days=4, spacing=0.25, latitudes=[4.0, 30.0], longitudes=[280.0, 320.0],
        explosive_per_day=0.01, ordinary_per_day=0.01, tropical_per_day=4.0, seed=2,
    )  # fmt: skip
    fields, entries = make_synthetic(settings)
    assert len(entries) > 20
    here = fields["msl"].sel(
        time=pd.to_datetime(entries["ISO_TIME"]).to_xarray(),
        latitude=entries["latitude"].to_xarray(),
        longitude=(entries["longitude"] % 360).to_xarray(),
        method="nearest",
    )
    difference = here.values / 100 - entries["WMO_PRES"].to_numpy()
    assert np.abs(difference).max() < 1.5 and abs(np.median(difference)) < 0.3


def test_highest_wind_is_that_of_the_fields():
    latitude, longitude = np.arange(24.0, 15.9, -0.1), np.arange(300.0, 308.1, 0.1)
    calm = np.zeros((2, 12, 2), dtype=complex)
    vortex = np.array([[20.0, 304.0, 6000.0, 1e5, 1.5]])
    with_it = balanced_fields(latitude, longitude, vortex, calm)
    without = balanced_fields(latitude, longitude, vortex[:0], calm)
    wind = np.hypot(with_it[1] - without[1], with_it[2] - without[2]).max()
    assert highest_wind(20.0, 6000.0, 1e5, 1.5) == pytest.approx(wind, rel=0.02)


def test_highest_wind_solves_the_balance_where_it_is_highest():
    depth, radius, shape, latitude = 6000.0, 1e5, 1.5, 20.0
    coriolis = 2 * OMEGA * np.sin(np.deg2rad(latitude))

    def wind(r):
        push = holland_deficit(np.array([r]), depth, radius, shape)[1][0] / DENSITY
        return brentq(lambda v: v**2 / r + coriolis * v - push, 0, 300)

    best = max(wind(r) for r in np.linspace(3e4, 4e5, 300))
    assert highest_wind(latitude, depth, radius, shape) == pytest.approx(SURFACE_WIND * best, 1e-3)


def test_cyclones_live_in_the_warm_hemisphere():
    for start, sign in (("2001-07-15", 1), ("2001-01-15", -1)):
        times = pd.date_range(start, periods=80, freq="6h")
        cyclones = make_cyclones(times, 3.0, seed=1)
        assert (np.sign(cyclones["latitude"]) == sign).all()
        assert cyclones["storm_id"].is_unique
        for step in (0, 40, 79):
            now = tropical_vortices(step, cyclones)
            assert (np.abs(now["latitude"]) >= 8).all() and now["longitude"].between(0, 360).all()
            assert (now["depth"] <= cyclones["depth"][now.index]).all()


def test_close_births_get_different_names():
    times = pd.date_range("2001-07-15", periods=8, freq="6h")
    many = make_cyclones(times, 3000.0, seed=1)
    assert len(many) > 30000 and many["storm_id"].is_unique


def test_strength_alone_does_not_tell_rapid_intensification():
    _, entries = make_synthetic(
        Synthetic(start="2001-06-01", days=60, spacing=11.25, tropical_per_day=2.0)
    )
    table = entries.assign(time=pd.to_datetime(entries["ISO_TIME"]))
    before = table.assign(time=table["time"] + pd.Timedelta("24h"))
    both = table.merge(before, on=["SID", "time"], suffixes=("", "_before"))
    rapid = both["WMO_WIND"] - both["WMO_WIND_before"] >= 30
    assert 0.01 < rapid.mean() < 0.2
    assert average_precision_score(rapid, both["WMO_WIND"]) < 0.5


def test_the_configuration_builds_a_store(tmp_path):
    path = configs_folder() / "tropical_cyclones_synthetic.yaml"
    small = ["--output", str(tmp_path), "--synthetic.days", "80", "--synthetic.spacing", "2"]
    small += ["--synthetic.tropical_per_day", "6", "--splits.target_per_group", "2"]
    small += ["--splits.fractions", "[0.5, 0.25, 0.25]"]
    store = open_store(build(read_config(path, small), progress=False))
    rapid = read_catalogue(tmp_path / path.stem / "synthetic" / "catalogue.csv")
    rapid = rapid[rapid["wind_change_24h"] >= 30]
    found = store["incident_id"].values[store["label"].values == 1]
    assert len(found) > 20 and set(found) <= set(rapid["storm_id"])


def test_bad_rate():
    with pytest.raises(InputError, match=r"`synthetic.tropical_per_day` must not be negative"):
        Synthetic(tropical_per_day=-1.0)
