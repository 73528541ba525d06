import numpy as np
import pytest
import xarray as xr
from sklearn.metrics import average_precision_score

from data_pipelines.atmosphere import DENSITY, gradient_wind, holland_deficit
from data_pipelines.errors import InputError
from data_pipelines.synthetic import Synthetic, make_synthetic, write_synthetic


def test_same_seed_same_bytes(tmp_path):
    settings = Synthetic(days=3, spacing=10.0, seed=7)
    a, b = write_synthetic(settings, tmp_path / "a"), write_synthetic(settings, tmp_path / "b")
    assert a[1].read_bytes() == b[1].read_bytes()
    with xr.open_dataset(a[0]) as first, xr.open_dataset(b[0]) as second:
        for name in first.data_vars:
            assert first[name].values.tobytes() == second[name].values.tobytes()
    other, _ = make_synthetic(Synthetic(days=3, spacing=10.0, seed=8))
    with xr.open_dataset(a[0]) as first:
        assert not np.array_equal(first["msl"].values, other["msl"].values)


def test_holland_profile_and_its_gradient():
    r = np.linspace(1e4, 2.5e6, 4000)
    deficit, gradient = holland_deficit(r, 3000.0, 4e5, 1.4)
    numeric = -np.gradient(deficit, r)
    np.testing.assert_allclose(gradient[1:-1], numeric[1:-1], rtol=2e-3, atol=1e-7)
    assert (gradient >= 0).all()
    # At the radius R the untapered deficit has fallen by exp(-1) (Holland 1980).
    at_r, _ = holland_deficit(np.array([4e5]), 3000.0, 4e5, 1.4)
    taper = np.exp(-((4e5 / 1.5e6) ** 2))
    assert at_r[0] == pytest.approx(3000.0 * (1 - np.exp(-1)) * taper)


def test_gradient_wind_solves_its_equation():
    r = np.linspace(1e5, 1e6, 50)
    f = np.full(50, -1e-4)
    slope = np.linspace(1e-3, 8e-3, 50)
    speed = gradient_wind(slope, r, f)
    np.testing.assert_allclose(speed**2 / r + np.abs(f) * speed, slope / DENSITY, rtol=1e-10)


def test_catalogue_agrees_with_the_fields():
    """On a fine grid the point next to a centre has the catalogue's pressure, everywhere."""
    fields, catalogue = make_synthetic(
        Synthetic(days=3, spacing=0.5, latitudes=[30.0, 70.0], longitudes=[-70.0, 10.0], seed=3)
    )
    here = fields["msl"].sel(
        time=catalogue["time"].to_xarray(),
        latitude=catalogue["latitude"].to_xarray(),
        longitude=((catalogue["longitude"] + 70) % 360 - 70).to_xarray(),
        method="nearest",
    )
    difference = here.values / 100 - catalogue["pressure_hpa"].to_numpy()
    assert len(difference) > 30
    assert np.abs(difference).max() < 1.5 and abs(np.median(difference)) < 0.1


def test_deepening_follows_from_the_catalogue_itself(small):
    _, catalogue = small
    storm = catalogue.groupby("storm_id").get_group(
        catalogue.loc[catalogue["deepening_bergeron"].idxmax(), "storm_id"]
    )
    fall = storm["pressure_hpa"].to_numpy()[:-4] - storm["pressure_hpa"].to_numpy()[4:]
    bergeron = 24 * np.sin(np.deg2rad(storm["latitude"].abs())) / np.sin(np.deg2rad(60))
    np.testing.assert_allclose(
        storm["deepening_bergeron"].to_numpy()[4:], fall / bergeron.to_numpy()[4:], rtol=1e-12
    )


def test_cyclonic_vorticity_has_the_hemispheres_sign_and_storms_cross_the_date_line():
    fields, catalogue = make_synthetic(Synthetic(days=20, spacing=5.0))
    deep = catalogue[catalogue["pressure_hpa"] < 970]
    spin = fields["vo850"].sel(
        time=deep["time"].to_xarray(),
        latitude=deep["latitude"].to_xarray(),
        longitude=deep["longitude"].to_xarray(),
        method="nearest",
    )
    cyclonic = spin.values * np.sign(deep["latitude"].to_numpy())
    assert (cyclonic > 0).mean() > 0.95
    assert {1.0, -1.0} == set(np.sign(catalogue["latitude"]))
    jumps = catalogue.groupby("storm_id")["longitude"].agg(
        lambda x: np.abs(np.diff(x)).max(initial=0)
    )
    assert (jumps > 180).any()
    assert catalogue["latitude"].abs().max() > 70


def test_depth_alone_does_not_tell_explosive_cyclones(small):
    _, catalogue = small
    known = catalogue.dropna(subset="deepening_bergeron")
    explosive = known["deepening_bergeron"] >= 1
    assert 0.02 < explosive.mean() < 0.4
    assert average_precision_score(explosive, -known["pressure_hpa"]) < 0.7


def test_region_and_bad_limits():
    fields, catalogue = make_synthetic(
        Synthetic(days=4, latitudes=[30.0, 70.0], longitudes=[-70.0, 10.0])
    )
    assert fields["msl"].shape == (16, 17, 33)
    assert catalogue["latitude"].between(30, 70).all()
    assert (((catalogue["longitude"] + 70) % 360) <= 80).all()
    with pytest.raises(InputError, match=r"synthetic\.latitudes"):
        Synthetic(latitudes=[50.0, 20.0])
