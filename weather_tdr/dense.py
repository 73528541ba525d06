"""PatchNet at every grid point of a field, without computing anything twice.

A network with poolings gives one position every `stride` points. The positions in between are
those of the field shifted by less than the stride. Shifting the field itself would repeat every
layer for each of the stride x stride shifts; shifting what comes before each 2 x 2 pooling by 0 and
1 point in both directions repeats only the layers after it, and gives the same numbers.

Source: Giusti et al. (2013), Fast image scanning with deep max-pooling convolutional neural
networks, ICIP.
"""

from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor, nn

from weather_tdr.models import PatchNet, log_odds

TILE_BYTES = 2**28  # of the largest intermediate result


def dense_log_odds(model: PatchNet, fields: Tensor, step: int) -> Tensor:
    """Log-odds of an incident at positions `step` points apart.

    Args:
        model: in evaluation mode.
        fields: normalised, shape (n, variable, height, width), wrapped already where they wrap.
        step: 1, or the model's stride.

    Returns:
        Shape (n, rows, columns): the patch of row r and column c begins at point r * step,
        c * step. Tall fields go through the network in bands that overlap, so that no intermediate
        result is much larger than TILE_BYTES.
    """
    high, wide = model.size
    rows = (fields.shape[2] - high) // step + 1
    columns = (fields.shape[3] - wide) // step + 1
    out = fields.new_empty(len(fields), rows, columns)
    with torch.inference_mode():
        for first, last in _bands(model, fields, rows, step):
            band = fields[:, :, first * step : (last - 1) * step + high]
            at_stride = step == model.stride
            logits = model.maps(band) if at_stride else _everywhere(model, band)
            out[:, first:last] = log_odds(logits)[:, : last - first, :columns]
    return out


def _bands(model: PatchNet, fields: Tensor, rows: int, step: int) -> Iterator[tuple[int, int]]:
    """First and last + 1 row of positions of each band."""
    widest = max(m.out_channels for m in model.modules() if isinstance(m, nn.Conv2d))
    first = next(m.out_channels for m in model.modules() if isinstance(m, nn.Conv2d))
    # At every point the head is the widest; at the stride the first layers are, on all points.
    channels = widest if step == 1 else first
    bytes_of_row = channels * fields.shape[0] * fields.shape[3] * fields.element_size() * step
    room = max(1, TILE_BYTES // bytes_of_row)
    bands = -(-rows // room)
    edges = [round(k * rows / bands) for k in range(bands + 1)]
    yield from pairwise(edges)


def _everywhere(model: PatchNet, fields: Tensor) -> Tensor:
    """Logits at every point: (n, variable, h, w) -> (n, classes, h - size + 1, w - size + 1)."""
    high, wide = model.size
    rows, columns = fields.shape[2] - high + 1, fields.shape[3] - wide + 1
    number, step = len(fields), 1
    values: Tensor = fields
    for layer in model.body:
        if isinstance(layer, nn.MaxPool2d):
            values = _pooled_four_times(values)
            step *= 2
        elif isinstance(layer, nn.ReLU):
            values = torch.relu_(values)  # what the layer before has just made
        else:
            values = layer(values)
    values = model.head(values)
    out = values.new_empty(number, values.shape[1], rows, columns)
    for shift, part in enumerate(torch.split(values, number)):
        y, x = _offset(shift, step)
        place = out[:, :, y::step, x::step]
        place.copy_(part[:, :, : place.shape[2], : place.shape[3]])
    return out


def _pooled_four_times(values: Tensor) -> Tensor:
    """2 x 2 maxima from each of the points 0 and 1 in both directions on.

    The four become samples of the batch, the newest shift slowest; all are as large as the one
    without a shift, filled up at the far edges with what no position needs.
    """
    of_two = torch.maximum(values[:, :, :-1], values[:, :, 1:])
    of_four = torch.maximum(of_two[..., :-1], of_two[..., 1:])
    height, width = values.shape[2] // 2, values.shape[3] // 2
    number, channels = values.shape[:2]
    out = values.new_empty(4 * number, height, width, channels).permute(0, 3, 1, 2)
    for k, part in enumerate(torch.split(out, number)):
        some = of_four[:, :, k // 2 :: 2, k % 2 :: 2]
        part[:, :, : some.shape[2], : some.shape[3]] = some
        part[:, :, some.shape[2] :] = 0.0
        part[:, :, :, some.shape[3] :] = 0.0
    return out


def _offset(shift: int, step: int) -> tuple[int, int]:
    """The point at which the positions of a shift begin, from its number in the batch.

    The newest pooling's shift is the slowest digit in base 4, and moves by the most points.
    """
    y = x = 0
    weight = 1
    while weight < step:
        y += weight * (shift // 2 % 2)
        x += weight * (shift % 2)
        shift //= 4
        weight *= 2
    return y, x
