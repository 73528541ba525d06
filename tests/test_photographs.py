"""The changes of photographs are those of Pillow, and of plane geometry."""

import math

import numpy as np
import pytest
import torch
import xarray as xr
from PIL import Image, ImageEnhance, ImageOps

from data_pipelines.errors import InputError
from weather_tdr.augment import augmentation
from weather_tdr.photographs import CHANGES, Strong, squares

SIZE = 32


def photographs(n=6, seed=0, size=SIZE):
    """Smooth coloured images as bytes, each of shape (y, x, channel)."""
    rng = np.random.default_rng(seed)
    rough = rng.integers(20, 230, (n, 5, 5, 3)).astype(np.uint8)
    return [np.asarray(Image.fromarray(one).resize((size, size))) for one in rough]


def changed(name, images, strength):
    pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).double() / 255
    made = CHANGES[name](pixels, torch.full((len(images), 1, 1, 1), strength, dtype=torch.double))
    return (255 * made).permute(0, 2, 3, 1).numpy()


@pytest.mark.parametrize("strength", [-0.8, 0.0, 0.5, 1.0])
@pytest.mark.parametrize(
    ("name", "pillow"),
    [
        ("none", lambda image, s: image),
        ("brightness", lambda image, s: ImageEnhance.Brightness(image).enhance(1 + 0.9 * s)),
        ("colour", lambda image, s: ImageEnhance.Color(image).enhance(1 + 0.9 * s)),
        ("contrast", lambda image, s: ImageEnhance.Contrast(image).enhance(1 + 0.9 * s)),
        ("sharpness", lambda image, s: ImageEnhance.Sharpness(image).enhance(1 + 0.9 * s)),
        ("posterize", lambda image, s: ImageOps.posterize(image, 8 - round(4 * abs(s)))),
        ("solarize", lambda image, s: ImageOps.solarize(image, math.ceil(255 * (1 - abs(s))))),
        ("autocontrast", lambda image, s: ImageOps.autocontrast(image)),
    ],
)
def test_colours_change_as_in_pillow(name, pillow, strength):
    images = photographs()
    got = changed(name, images, strength)
    wanted = [np.asarray(pillow(Image.fromarray(one), strength), float) for one in images]
    assert np.abs(got - np.stack(wanted)).max() <= 2.0  # Pillow rounds between two steps


def test_equalised_channels_are_those_of_pillow():
    images = photographs(
        size=300
    )  # Pillow counts in steps of n // 255 points, coarse if n is small
    got = changed("equalize", images, 0.3)
    wanted = np.stack(
        [np.asarray(ImageOps.equalize(Image.fromarray(one)), float) for one in images]
    )
    assert np.abs(got - wanted).max() <= 2.0


@pytest.mark.parametrize("name", ["autocontrast", "equalize"])
def test_an_image_of_one_colour_stays_as_it_is(name):
    plain = [np.full((SIZE, SIZE, 3), 77, np.uint8)]
    np.testing.assert_allclose(changed(name, plain, 1.0), 77.0)


@pytest.mark.parametrize("strength", [-1.0, -0.3, 0.4, 1.0])
@pytest.mark.parametrize(
    ("name", "place"),  # from a new place to the old one, in points from the centre
    [
        ("shear_x", lambda y, x, s: (y, x + 0.3 * s * y)),
        ("shear_y", lambda y, x, s: (y + 0.3 * s * x, x)),
        ("shift_x", lambda y, x, s: (y, x + 10 * s)),
        ("shift_y", lambda y, x, s: (y + 10 * s, x)),
        (
            "rotate",
            lambda y, x, s: (
                x * math.sin(s * math.pi / 6) + y * math.cos(s * math.pi / 6),
                x * math.cos(s * math.pi / 6) - y * math.sin(s * math.pi / 6),
            ),
        ),
    ],
)
def test_places_change_as_plane_geometry_says(name, place, strength):
    def slope(y, x):
        return 0.5 + 0.011 * y - 0.007 * x

    y, x = np.meshgrid(*[np.arange(SIZE) - (SIZE - 1) / 2] * 2, indexing="ij")
    pixels = torch.from_numpy(slope(y, x)[None, None])
    made = CHANGES[name](pixels, torch.full((1, 1, 1, 1), strength, dtype=torch.double))[0, 0]
    old_y, old_x = place(y, x, strength)
    edge = (SIZE - 1) / 2
    inside = (np.abs(old_y) <= edge) & (np.abs(old_x) <= edge)
    outside = (np.abs(old_y) >= edge + 1) | (np.abs(old_x) >= edge + 1)
    np.testing.assert_allclose(made.numpy()[inside], slope(old_y, old_x)[inside], atol=1e-9)
    np.testing.assert_allclose(made.numpy()[outside], 0.5, atol=1e-9)
    assert inside.sum() > SIZE * SIZE / 2


def test_squares_have_half_a_side_and_lie_anywhere():
    made = squares(3000, SIZE, SIZE, torch.Generator().manual_seed(3))
    rows, columns = made.any(2).sum(1), made.any(1).sum(1)
    assert torch.equal(made.sum((1, 2)), rows * columns)  # whole rectangles
    for side in (rows, columns):
        assert (int(side.min()), int(side.max())) == (SIZE // 4, SIZE // 2)
    # a centre at c leaves min(c + 8, 32) - max(c - 8, 0) points
    side = np.mean([min(c + 8, SIZE) - max(c - 8, 0) for c in range(SIZE)])
    assert float(made.float().mean()) == pytest.approx((side / SIZE) ** 2, rel=0.03)


def test_strong_images_keep_type_and_range_and_have_their_squares():
    mean, std = torch.tensor([0.5, 0.4, 0.3]), torch.tensor([0.2, 0.25, 0.3])
    images = torch.randn(200, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    made = Strong(mean, std)(images, torch.Generator().manual_seed(3))
    assert made.dtype == torch.float32
    pixels = made * std[:, None, None] + mean[:, None, None]
    assert pixels.min() > -1e-6
    assert pixels.max() < 1 + 1e-6
    assert int((made == 0).all(1).sum((1, 2)).min()) >= (SIZE // 4) ** 2


def test_the_same_generator_gives_the_same_images():
    images = torch.randn(20, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    strong = Strong(torch.full((3,), 0.5), torch.full((3,), 0.25))
    one, two, other = (strong(images, torch.Generator().manual_seed(k)) for k in (1, 1, 2))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)


def test_each_change_is_drawn_and_grey_images_are_taken():
    images = torch.rand(500, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    made = Strong(torch.zeros(1), torch.ones(1))(images, torch.Generator().manual_seed(0))
    assert torch.isfinite(made).all()
    assert made.std() > 0.1


def test_strong_is_for_photographs_alone():
    fields = xr.Dataset(
        {k: ("variable", np.ones(3)) for k in ("mean", "std")}, attrs={"grid": {"dlat": 2.5}}
    )
    with pytest.raises(InputError, match="must not be strong for fields"):
        augmentation("strong", fields)
    photos = fields.assign_attrs(grid={"size": 32, "stride": 4})
    made = augmentation("strong", photos)
    assert isinstance(made, Strong)
    assert made.mean.tolist() == [1.0, 1.0, 1.0]
