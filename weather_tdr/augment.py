"""Changes of the training samples that leave their class as it is."""

import torch
from torch import Tensor
from torch.nn.functional import pad

BORDER = 4


def crop_flip(images: Tensor, generator: torch.Generator) -> Tensor:
    """Each image shifted by up to 4 points in both directions, and mirrored left to right or not.

    What comes in from outside is 0, the mean of normalised images. For photographs: mirrored
    digits are no digits, and mirrored winds no winds.

    Args:
        images: shape (n, channel, y, x).
        generator: of the draws, on the CPU.

    Source: the augmentation of CIFAR images in He et al. (2016), section 4.2.
    """
    n, channels, height, width = images.shape
    shift = torch.randint(0, 2 * BORDER + 1, (2, n), generator=generator)
    flip = torch.rand(n, generator=generator) < 0.5
    rows = shift[0][:, None] + torch.arange(height)
    along = torch.arange(width).expand(n, width)
    columns = shift[1][:, None] + torch.where(flip[:, None], width - 1 - along, along)
    rows, columns = rows.to(images.device), columns.to(images.device)
    wide = pad(images, (BORDER,) * 4)
    sample = torch.arange(n, device=images.device)[:, None, None, None]
    channel = torch.arange(channels, device=images.device)[None, :, None, None]
    return wide[sample, channel, rows[:, None, :, None], columns[:, None, None, :]]
