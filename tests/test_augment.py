"""The mirror gives what the same weather in the other hemisphere would give."""

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr

from data_pipelines.errors import InputError
from data_pipelines.fields import open_fields
from weather_tdr.augment import augmentation, crop_flip, is_odd, shift
from weather_tdr.train import Train, fit

NAMES = {
    "msl": "air_pressure_at_mean_sea_level",
    "v850": "northward_wind",
    "vo850": "atmosphere_relative_vorticity",
    "u850": "eastward_wind",
}


def planet(seed=0):
    rng = np.random.default_rng(seed)
    shape = (2, 37, 72)
    return xr.Dataset(
        {
            name: (("time", "latitude", "longitude"), rng.normal(5, 2, shape).astype("f4"),
                   {"standard_name": standard, "units": "1"})
            for name, standard in NAMES.items()
        },
        coords={
            "time": pd.date_range("2001-01-01", periods=2),
            "latitude": np.linspace(90, -90, 37), "longitude": np.arange(0, 360, 5.0),
        },
    )  # fmt: skip


def other_hemisphere(fields):
    """The same weather on the other side of the equator."""
    turned = fields.assign_coords(latitude=-fields["latitude"]).sortby("latitude", ascending=False)
    for name in ("v850", "vo850"):
        turned[name] = (-turned[name]).assign_attrs(fields[name].attrs)
    return turned


def store_of(fields, sign, **grid):
    return xr.Dataset(
        {
            "mean": ("variable", np.array([4.0, 1.0, -2.0, 3.0])),
            "std": ("variable", np.array([2.0, 3.0, 0.5, 1.0])),
        },
        coords={k: ("variable", fields[k].values) for k in ("base_variable", "standard_name")},
        attrs={"grid": grid, "settings": {"fields": {"hemisphere_sign": sign}}},
    )


@pytest.mark.parametrize("sign", [[], ["vo850"]])
@pytest.mark.parametrize("named", [True, False])
def test_mirrored_patches_are_those_of_the_mirrored_planet(tmp_path, sign, named):
    planets = planet(), other_hemisphere(planet())
    opened = []
    for k, one in enumerate(planets):
        if not named:
            for name in NAMES:
                del one[name].attrs["standard_name"]
        one.to_netcdf(tmp_path / f"{k}.nc")
        opened.append(open_fields([tmp_path / f"{k}.nc"], list(NAMES), hemisphere_sign=sign))
    store = store_of(opened[0], sign, dlat=5.0)
    mirror = augmentation("mirror", store)
    mean, std = (store[k].values[None, :, None, None] for k in ("mean", "std"))
    north, south = (torch.from_numpy((f.values - mean) / std) for f in opened)
    rows = slice(3, 11), slice(37 - 11, 37 - 3)
    patches, wanted = north[:, :, rows[0], 10:18], south[:, :, rows[1], 10:18]
    seen = {False: 0, True: 0}
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        for got, as_is, turned in zip(mirror(patches, generator), patches, wanted, strict=True):
            same = torch.equal(got, as_is)
            seen[same] += 1
            if not same:
                torch.testing.assert_close(got, turned, atol=1e-5, rtol=0)
    assert min(seen.values()) > 8
    twice = mirror(mirror(patches, always()), always())
    torch.testing.assert_close(twice, patches, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "name",
    ["v", "V", "v10", "V850", "v_850", "VO", "vo850", "10m_v_component_of_wind", "vwnd", "10v",
     "relative_vorticity", "meridional_wind", "v_component_of_wind", "VORT_500hPa", "pv"],
)  # fmt: skip
def test_names_that_change_their_sign(name):
    assert is_odd(name, "") and is_odd(name, "unknown")
    assert not is_odd(name, "air_temperature") and is_odd("x", "northward_wind")


@pytest.mark.parametrize(
    "name",
    ["u10", "msl", "vis", "vpd", "tcwv", "velocity_potential", "2m_temperature", "wind", "va2"],
)
def test_names_that_do_not(name):
    assert is_odd(name, "") == (name == "va2")


def always():
    """A generator whose first two draws are below 1/2."""
    for seed in range(100):
        generator = torch.Generator().manual_seed(seed)
        if (torch.rand(2, generator=generator) < 0.5).all():
            return torch.Generator().manual_seed(seed)
    raise AssertionError


def test_what_would_change_the_class_is_refused(caplog):
    fields = xr.Dataset(
        coords={"base_variable": ("variable", ["msl"] * 4), "standard_name": ("variable", [""] * 4)}
    )
    with pytest.raises(InputError, match="must not be crop_flip for fields"):
        augmentation("crop_flip", store_of(fields, [], dlat=5.0))
    with pytest.raises(InputError, match="whole field of one region"):
        augmentation("mirror", store_of(fields, [], dlat=5.0, whole_field=True))
    with pytest.raises(InputError, match="got images"):
        augmentation("mirror", store_of(fields, []))
    assert augmentation("none", store_of(fields, [])) is None
    digits = store_of(fields, [])
    digits.attrs["settings"] = {"images": {"dataset": "mnist"}}
    with pytest.raises(InputError, match=r"must not be shift for fields.*in the central cell"):
        augmentation("shift", store_of(fields, [], dlat=5.0))
    assert augmentation("shift", digits) is shift and not caplog.text
    assert augmentation("crop_flip", digits) is crop_flip
    assert "`train.augment: crop_flip` mirrors images" in caplog.text
    x, y = torch.randn(40, 1, 8, 8), torch.arange(40) % 2
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 2))
    target = torch.randn(4, 1, 8, 8), torch.arange(4) % 2
    with pytest.raises(InputError, match="needs to know the variables"):
        fit(model, (x, y), target, "uniform", Train(steps=5, augment="mirror"))


@pytest.mark.parametrize(
    ("height", "width", "up", "left"), [(28, 28, 2, 2), (8, 30, 1, 2), (1, 5, 1, 1)]
)
def test_shift_draws_every_shift_within_a_fourteenth(height, width, up, left):
    """Every result is one that slicing an image with repeated edges gives; all occur."""
    image = np.random.default_rng(0).normal(size=(2, height, width)).astype(np.float32)
    wide = np.pad(image, ((0, 0), (up, up), (left, left)), mode="edge")
    possible = {
        wide[:, y : y + height, x : x + width].tobytes()
        for y in range(2 * up + 1)
        for x in range(2 * left + 1)
    }
    images = torch.from_numpy(image).expand(600, -1, -1, -1)
    made = shift(images, torch.Generator().manual_seed(0))
    assert {one.numpy().tobytes() for one in made} == possible
    again = shift(images, torch.Generator().manual_seed(0))
    assert torch.equal(made, again)


def test_fit_shifts_when_told_to():
    """With the settings' name alone, as if the function itself had been passed."""
    x, y = torch.randn(40, 1, 28, 28), torch.arange(40) % 2
    target = torch.randn(4, 1, 28, 28), torch.arange(4) % 2
    slopes = []
    for name, passed in (("shift", None), ("none", shift), ("none", None)):
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, 2))
        settings = Train(steps=3, batch=10, augment=name)
        fit(model, (x, y), target, "uniform", settings, augment=passed)
        slopes.append(model[1].weight.detach())
    assert torch.equal(slopes[0], slopes[1]) and not torch.equal(slopes[0], slopes[2])
