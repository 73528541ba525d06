"""Mean and standard deviation of each variable over the training dates only, weighted by area."""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from data_pipelines.schema import FloatArray


def block_sums(block: npt.NDArray[np.float32], latitude: FloatArray) -> list[list[float]]:
    """Sums of area weights, of values and of squares of a block of fields.

    In float64 the squares of 1e5 Pa lose 1e-12 of the variance. A missing value is left out.

    Args:
        block: shape (time, variable, latitude, longitude).
        latitude: degrees north.

    Returns:
        Three lists, a value a variable.
    """
    area = np.clip(np.cos(np.deg2rad(np.asarray(latitude, dtype=np.float64))), 0.0, None)
    sums = np.zeros((3, block.shape[1]))
    for step in block:  # one at a time: a block in float64 would be twice its size
        values = step.astype(np.float64)
        known = np.isfinite(values)
        if known.all():
            number = np.full(values.shape[:2], float(values.shape[2]))
        else:
            number = known.sum(axis=2, dtype=np.float64)
            values[~known] = 0.0
        rows = number, values.sum(axis=2), np.einsum("vyx,vyx->vy", values, values)
        sums += np.stack([row @ area for row in rows])
    return [[float(v) for v in row] for row in sums]


def from_sums(sums: Iterable[list[list[float]]]) -> tuple[FloatArray, FloatArray]:
    """Mean and standard deviation, each shape (variable,), of the sums of all blocks."""
    weight, value, square = np.sum([np.asarray(s) for s in sums], axis=0)
    total = np.maximum(weight, 1e-300)  # all missing: 0, refused as constant
    mean = value / total
    return mean, np.sqrt(np.maximum(square / total - mean**2, 0.0))
