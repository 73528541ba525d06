"""The changes of photographs are those of Pillow, and of plane geometry."""

import math

import numpy as np
import pytest
import torch
import xarray as xr
from PIL import Image, ImageEnhance, ImageOps

from data_pipelines.errors import InputError
from weather_tdr import photographs
from weather_tdr.augment import augmentation
from weather_tdr.photographs import CHANGES, Strong, crop_flip, squares
from weather_tdr.train import Train, fit

SIZE = 32


def smooth(n=6, seed=0, size=SIZE):
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
        ("solarize", lambda image, s: ImageOps.solarize(image, math.ceil(256 * (1 - abs(s))))),
        ("autocontrast", lambda image, s: ImageOps.autocontrast(image)),
    ],
)
def test_colours_change_as_in_pillow(name, pillow, strength):
    images = smooth()
    got = changed(name, images, strength)
    wanted = [np.asarray(pillow(Image.fromarray(one), strength), float) for one in images]
    assert np.abs(got - np.stack(wanted)).max() <= 2.0  # Pillow rounds between two steps


def test_equalised_channels_are_those_of_pillow():
    images = smooth(size=300)  # Pillow counts in steps of n // 255 points, coarse if n is small
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
        ("shift_x", lambda y, x, s: (y, x + 10 / 32 * s * x.shape[1])),
        ("shift_y", lambda y, x, s: (y + 10 / 32 * s * y.shape[0], x)),
        (
            "rotate",
            lambda y, x, s: (
                x * math.sin(s * math.pi / 6) + y * math.cos(s * math.pi / 6),
                x * math.cos(s * math.pi / 6) - y * math.sin(s * math.pi / 6),
            ),
        ),
    ],
)
@pytest.mark.parametrize("shape", [(SIZE, SIZE), (SIZE, 48)])
def test_places_change_as_plane_geometry_says(name, place, strength, shape):
    def slope(y, x):
        return 0.5 + 0.011 * y - 0.007 * x

    y, x = np.meshgrid(*[np.arange(n) - (n - 1) / 2 for n in shape], indexing="ij")
    pixels = torch.from_numpy(slope(y, x)[None, None])
    made = CHANGES[name](pixels, torch.full((1, 1, 1, 1), strength, dtype=torch.double))[0, 0]
    old_y, old_x = place(y, x, strength)
    high, wide = ((n - 1) / 2 for n in shape)
    inside = (np.abs(old_y) <= high) & (np.abs(old_x) <= wide)
    outside = (np.abs(old_y) >= high + 1) | (np.abs(old_x) >= wide + 1)
    np.testing.assert_allclose(made.numpy()[inside], slope(old_y, old_x)[inside], atol=1e-9)
    np.testing.assert_allclose(made.numpy()[outside], 0.5, atol=1e-9)
    assert inside.sum() > pixels.numel() / 3


def test_squares_have_half_a_side_and_lie_anywhere():
    made = squares(3000, SIZE, SIZE, torch.Generator().manual_seed(3))
    rows, columns = made.any(2).sum(1), made.any(1).sum(1)
    assert torch.equal(made.sum((1, 2)), rows * columns)  # whole rectangles
    for side in (rows, columns):
        assert (int(side.min()), int(side.max())) == (SIZE // 4, SIZE // 2)
    # a centre at c leaves min(c + 8, 32) - max(c - 8, 0) points
    side = np.mean([min(c + 8, SIZE) - max(c - 8, 0) for c in range(SIZE)])
    assert float(made.float().mean()) == pytest.approx((side / SIZE) ** 2, rel=0.03)


MEAN, STD = torch.tensor([0.5, 0.4, 0.3]), torch.tensor([0.2, 0.25, 0.3])


def rough(n=300, size=SIZE, seed=1):
    """Images within [0, 1], normalised."""
    pixels = torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(seed))
    return (pixels - MEAN[:, None, None]) / STD[:, None, None]


def strong(images, seed=3):
    return Strong(MEAN, STD)(images, torch.Generator().manual_seed(seed))


def test_without_a_change_strong_is_crop_flip_with_squares_cut_out(monkeypatch):
    monkeypatch.setattr(photographs, "CHANGES", {"none": CHANGES["none"]})
    images = rough()
    before = images.clone()
    made = strong(images)
    assert torch.equal(images, before)
    wanted = crop_flip(images, torch.Generator().manual_seed(3))
    cut = ((made == 0) & (wanted != 0)).any(1)
    torch.testing.assert_close(made, wanted.masked_fill(cut[:, None], 0.0), atol=1e-5, rtol=0)
    sizes = cut.sum((1, 2))
    assert (SIZE // 4 - 4) ** 2 <= int(sizes.min()) < int(sizes.max()) == (SIZE // 2) ** 2
    assert len({tuple(torch.nonzero(one)[0].tolist()) for one in cut}) > 100  # all over the place


def test_every_change_gets_its_share_of_pixels_with_strengths_of_both_signs(monkeypatch):
    seen = {name: [] for name in CHANGES}

    def recorder(name):
        def change(pixels, strength):
            assert pixels.min() >= 0
            assert pixels.max() <= 1
            seen[name].append((pixels, strength))
            return CHANGES[name](pixels, strength)

        return change

    monkeypatch.setattr(photographs, "CHANGES", {name: recorder(name) for name in CHANGES})
    images = rough(1400)
    made = strong(images)
    counts = {name: sum(len(p) for p, _ in calls) for name, calls in seen.items()}
    assert sum(counts.values()) == 1400
    assert 60 < min(counts.values()) <= max(counts.values()) < 150  # 100 +- 9.6 each
    strengths = torch.cat([s for calls in seen.values() for _, s in calls]).flatten()
    assert len(strengths.unique()) > 1390
    assert float(strengths.min()) == pytest.approx(-1, abs=0.01)
    assert float(strengths.max()) == pytest.approx(1, abs=0.01)
    assert abs(float(strengths.mean())) < 0.06
    # the pixels are those of the images, and what is made of them is what comes out
    plain = crop_flip(images, torch.Generator().manual_seed(3)) * STD[:, None, None]
    plain = (plain + MEAN[:, None, None]).clamp(0, 1)
    places = {one.numpy().tobytes(): k for k, one in enumerate(plain)}
    for name, calls in seen.items():
        for pixels, strength in calls:
            for one, changed_one in zip(pixels, CHANGES[name](pixels, strength), strict=True):
                got = made[places[one.numpy().tobytes()]]
                wanted = (changed_one - MEAN[:, None, None]) / STD[:, None, None]
                kept = got != 0
                torch.testing.assert_close(got[kept], wanted[kept], atol=1e-5, rtol=0)


def test_the_same_generator_gives_the_same_images():
    images = rough(20)
    assert torch.equal(strong(images, 1), strong(images, 1))
    assert not torch.equal(strong(images, 1), strong(images, 2))


@pytest.mark.parametrize("kind", [torch.float64, torch.bfloat16])
def test_images_keep_their_type(kind):
    made = strong(rough(100).to(kind))
    assert made.dtype == kind
    assert torch.isfinite(made).all()


def test_one_channel_has_its_own_grey():
    pixels = torch.rand(3, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    strength = torch.full((3, 1, 1, 1), 0.5)
    assert torch.equal(CHANGES["colour"](pixels, strength), pixels)  # nothing is more colourful
    mean = pixels.mean((1, 2, 3), keepdim=True)
    wanted = (mean + 1.45 * (pixels - mean)).clamp(0, 1)
    torch.testing.assert_close(CHANGES["contrast"](pixels, strength), wanted)
    generator = torch.Generator().manual_seed(0)
    assert torch.isfinite(Strong(torch.zeros(1), torch.ones(1))(pixels, generator)).all()


@pytest.mark.parametrize("shape", [(1, 8, 8), (4, 8, 8), (3, 3, 8), (3, 8, 3)])
def test_images_that_do_not_fit_are_refused(shape):
    with pytest.raises(InputError, match=r"3 channels and at least 4 points.*got \d of \d x \d"):
        strong(torch.zeros(2, *shape))


@pytest.mark.parametrize(
    ("mean", "std"), [([0.5], [0.0]), ([0.5, 0.5], [1.0]), ([float("nan")], [1.0]), (0.5, 1.0)]
)
def test_statistics_that_are_none_are_refused(mean, std):
    with pytest.raises(InputError, match="positive standard deviation of each channel"):
        Strong(torch.tensor(mean), torch.tensor(std))


def test_strong_takes_the_statistics_of_a_store_and_is_for_photographs_alone():
    fields = xr.Dataset(
        {"mean": ("variable", [0.5, 0.4, 0.3]), "std": ("variable", [0.2, 0.25, 0.35])},
        attrs={"grid": {"dlat": 2.5}},
    )
    with pytest.raises(InputError, match="must not be strong for fields"):
        augmentation("strong", fields)
    made = augmentation("strong", fields.assign_attrs(grid={"size": 32, "stride": 4}))
    assert isinstance(made, Strong)
    assert (made.mean.tolist(), made.std.tolist()) == ([0.5, 0.4, 0.3], [0.2, 0.25, 0.35])


def test_fit_says_what_it_needs_for_strong_images_and_takes_it():
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 64, 2))
    label = torch.arange(40) % 2
    train, target = (rough(40, 8), label), (rough(10, 8, seed=2), label[:10])
    settings = Train(steps=3, batch=8, augment="strong")
    with pytest.raises(InputError, match=r"deviation of each channel.*augment=Strong\(mean, std\)"):
        fit(network, train, target, "uniform", settings)
    history = fit(network, train, target, "uniform", settings, augment=Strong(MEAN, STD))
    assert np.isfinite(history["loss"]).all()
