"""Changes of images that leave their class as it is."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, conv2d, grid_sample, pad

from data_pipelines.errors import InputError

BORDER = 4
GREY = (0.299, 0.587, 0.114)  # of red, green and blue, ITU-R BT.601
LEVELS = 256
SMALLEST = 4  # points a side
SHIFT = 14  # an image is shifted by up to a part in this of its side
Change = Callable[[Tensor, Tensor], Tensor]


def crop_flip(images: Tensor, generator: torch.Generator) -> Tensor:
    """Each image shifted by up to 4 points in both directions, and mirrored left to right or not.

    What comes in from outside is 0, the mean of normalised images. For photographs: mirrored
    digits are no digits, and mirrored winds no winds.

    Args:
        images: shape (n, channel, y, x).
        generator: of the draws, on the CPU.

    Source: the augmentation of CIFAR images in He et al. (2016), section 4.2.
    """
    n, _, height, width = images.shape
    shift = torch.randint(0, 2 * BORDER + 1, (2, n), generator=generator)
    flip = torch.rand(n, generator=generator) < 0.5
    along = torch.arange(width).expand(n, width)
    columns = torch.where(flip[:, None], width - 1 - along, along)
    wide = pad(images, (BORDER,) * 4)
    return _picked(wide, shift[0][:, None] + torch.arange(height), shift[1][:, None] + columns)


def shift(images: Tensor, generator: torch.Generator) -> Tensor:
    """Each image shifted in both directions by up to a fourteenth of its side, at least a point.

    What comes in from outside repeats the edge, so that a background stays one.

    Args:
        images: shape (n, channel, y, x).
        generator: of the draws, on the CPU.
    """
    n, _, height, width = images.shape
    up, left = max(1, height // SHIFT), max(1, width // SHIFT)
    rows = torch.randint(-up, up + 1, (n, 1), generator=generator) + torch.arange(height)
    columns = torch.randint(-left, left + 1, (n, 1), generator=generator) + torch.arange(width)
    return _picked(images, rows.clamp(0, height - 1), columns.clamp(0, width - 1))


def _picked(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """The given rows and columns of each image, shapes (n, y) and (n, x)."""
    n, channels = images.shape[:2]
    rows, columns = rows.to(images.device), columns.to(images.device)
    sample = torch.arange(n, device=images.device)[:, None, None, None]
    channel = torch.arange(channels, device=images.device)[None, :, None, None]
    return images[sample, channel, rows[:, None, :, None], columns[:, None, None, :]]


def _moved(entries: Callable[[Tensor], dict[tuple[int, int], Tensor]]) -> Change:
    """A change of place; what comes in from outside is middle grey.

    Args:
        entries: those of the affine map from new to old places (in half sides from the centre,
            shape (n, 2, 3)) that differ from the identity, given the strength of shape (n,).
    """

    def change(pixels: Tensor, strength: Tensor) -> Tensor:
        n, _, height, width = pixels.shape
        theta = torch.eye(2, 3, device=pixels.device, dtype=pixels.dtype).repeat(n, 1, 1)
        for (row, column), value in entries(strength.flatten()).items():
            theta[:, row, column] = value
        theta[:, 0, 1] *= height / width  # half sides are not alike
        theta[:, 1, 0] *= width / height
        grid = affine_grid(theta, list(pixels.shape), align_corners=False)
        return grid_sample(pixels - 0.5, grid, align_corners=False) + 0.5

    return change


def _turn(strength: Tensor) -> dict[tuple[int, int], Tensor]:
    angle = strength * math.radians(30.0)
    c, s = angle.cos(), angle.sin()
    return {(0, 0): c, (0, 1): -s, (1, 0): s, (1, 1): c}


def _blend(plainer: Callable[[Tensor], Tensor]) -> Change:
    """Towards something plainer than the photograph (strength below 0), or away from it."""

    def change(pixels: Tensor, strength: Tensor) -> Tensor:
        plain = plainer(pixels)
        return (plain + (1.0 + 0.9 * strength) * (pixels - plain)).clamp(0.0, 1.0)

    return change


def _grey(pixels: Tensor) -> Tensor:
    if pixels.shape[1] != len(GREY):
        return pixels.mean(1, keepdim=True)
    return (pixels * pixels.new_tensor(GREY)[:, None, None]).sum(1, keepdim=True)


def _smooth(pixels: Tensor) -> Tensor:
    """The mean over 3 x 3 points with weight 5 in the centre; the border as it is."""
    kernel = torch.ones(3, 3, device=pixels.device, dtype=pixels.dtype)
    kernel[1, 1] = 5.0
    channels = pixels.shape[1]
    kernels = (kernel / kernel.sum()).expand(channels, 1, 3, 3)
    made = pixels.clone()
    made[:, :, 1:-1, 1:-1] = conv2d(pixels, kernels, groups=channels)
    return made


def _posterize(pixels: Tensor, strength: Tensor) -> Tensor:
    """The last 0 to 4 of 8 bits are 0."""
    step = 2.0 ** (4.0 * strength.abs()).round()
    return ((LEVELS - 1) * pixels / step).add(1e-4).floor() * step / (LEVELS - 1)


def _solarize(pixels: Tensor, strength: Tensor) -> Tensor:
    """The negative of what is as bright as level 256 (1 - strength) or brighter."""
    bright = (LEVELS - 1) * pixels + 1e-4 >= LEVELS * (1.0 - strength.abs())
    return torch.where(bright, 1.0 - pixels, pixels)


def _autocontrast(pixels: Tensor, strength: Tensor) -> Tensor:
    """Each channel from 0 to 1."""
    low, high = pixels.amin((2, 3), keepdim=True), pixels.amax((2, 3), keepdim=True)
    return torch.where(high > low, (pixels - low) / (high - low).clamp(min=1e-6), pixels)


def _equalize(pixels: Tensor, strength: Tensor) -> Tensor:
    """Each level of a channel becomes the share of the points that are darker."""
    level = ((LEVELS - 1) * pixels).round().long().flatten(2)
    count = torch.zeros(*level.shape[:2], LEVELS, device=pixels.device)
    count.scatter_add_(2, level, torch.ones_like(level, dtype=count.dtype))
    darker = count.cumsum(2) - count
    brightest = level.amax(2, keepdim=True)
    span = darker.gather(2, brightest)
    share = darker.gather(2, level) / span.clamp(min=1.0)
    made = torch.where(span > 0, share, pixels.flatten(2))
    return made.reshape(pixels.shape).to(pixels.dtype)


# Of pixels in [0, 1], shape (n, channel, y, x), with a strength in [-1, 1], shape (n, 1, 1, 1).
CHANGES: dict[str, Change] = {
    "none": lambda pixels, strength: pixels,
    "shear_x": _moved(lambda strength: {(0, 1): 0.3 * strength}),
    "shear_y": _moved(lambda strength: {(1, 0): 0.3 * strength}),
    "shift_x": _moved(lambda strength: {(0, 2): 0.625 * strength}),
    "shift_y": _moved(lambda strength: {(1, 2): 0.625 * strength}),
    "rotate": _moved(_turn),
    "brightness": _blend(torch.zeros_like),
    "colour": _blend(_grey),
    "contrast": _blend(lambda pixels: _grey(pixels).mean((2, 3), keepdim=True)),
    "sharpness": _blend(_smooth),
    "posterize": _posterize,
    "solarize": _solarize,
    "autocontrast": _autocontrast,
    "equalize": _equalize,
}


def squares(n: int, height: int, width: int, generator: torch.Generator) -> Tensor:
    """Squares of about half a side around any point, shape (n, y, x); a part may lie outside.

    Source: DeVries and Taylor (2017).
    """
    centre = torch.rand(2, n, 1, generator=generator)
    rows, columns = (
        (torch.arange(size) - (c * size).floor()).add(0.5).abs() < size // 4
        for c, size in zip(centre, (height, width), strict=True)
    )
    return torch.logical_and(rows[:, :, None], columns[:, None, :])


@dataclass(frozen=True)
class Strong:
    """Photographs shifted and mirrored, then one change of `CHANGES`, then a square cut out.

    For each image a change is drawn, each with equal probability, and its strength. The square is
    0, the mean of normalised images.

    Attributes:
        mean: of each channel, in brightness from 0 to 1, shape (channel,).
        std: standard deviation, likewise.

    Source: after Müller and Hutter (2021), with the ranges of their default set for 32 x 32 points
    (shifts of at most 10). Here the change comes after the crop, strengths are continuous, and
    places are interpolated, with middle grey outside.
    """

    mean: Tensor
    std: Tensor

    def __post_init__(self) -> None:
        """Checks the statistics.

        Raises:
            InputError: they are not one finite mean and positive deviation a channel.
        """
        mean, std = self.mean, self.std
        sound = mean.ndim == 1 and mean.shape == std.shape and torch.isfinite(mean).all()
        if not (sound and (std > 0).all() and torch.isfinite(std).all()):
            raise InputError(
                "`Strong` needs the mean and the positive standard deviation of each channel, got "
                f"{mean.tolist()} and {std.tolist()}."
            )

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Normalised images of shape (n, channel, y, x), each changed.

        Raises:
            InputError: other channels than there are statistics, or less than 4 points a side.
        """
        n, channels, height, width = images.shape
        if channels != len(self.mean) or min(height, width) < SMALLEST:
            raise InputError(
                f"`train.augment: strong` takes images of {len(self.mean)} channels and at least "
                f"{SMALLEST} points a side, got {channels} of {height} x {width}. Use `none`."
            )
        mean, std = (t.to(images).reshape(1, -1, 1, 1) for t in (self.mean, self.std))
        pixels = (crop_flip(images, generator) * std + mean).clamp(0.0, 1.0)
        which = torch.randint(0, len(CHANGES), (n,), generator=generator)
        strength = (2.0 * torch.rand(n, 1, 1, 1, generator=generator) - 1.0).to(images)
        for number, change in enumerate(CHANGES.values()):
            chosen = torch.nonzero(which == number)[:, 0].to(images.device)
            if len(chosen):
                pixels[chosen] = change(pixels[chosen], strength[chosen])
        hole = squares(n, height, width, generator).to(images.device)[:, None]
        return ((pixels - mean) / std).masked_fill(hole, 0.0)
