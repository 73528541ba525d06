"""Mean and standard deviation of each variable over the training dates only."""

import dask.array as da
import numpy as np
import xarray as xr

from data_pipelines.schema import SPLITS, IntArray


def training_statistics(fields: xr.DataArray, split: IntArray) -> tuple[da.Array, da.Array]:
    """Lazy mean and standard deviation, weighted by area.

    Args:
        fields: dims ``(time, variable, latitude, longitude)``.
        split: split of each time.

    Returns:
        Mean and standard deviation, each shape (variable,), in the variable's units. A missing
        value is left out of both.
    """
    array = fields.data[np.flatnonzero(split == SPLITS.index("train"))].astype(np.float64)
    area = np.cos(np.deg2rad(fields["latitude"].to_numpy().astype(np.float64)))[:, None]
    weights = da.where(da.isfinite(array), np.clip(area, 0.0, None), 0.0)
    values = da.where(da.isfinite(array), array, 0.0)
    axes = (0, 2, 3)
    # One pass, so that no chunk has to wait in memory for the mean. In float64 the squares of
    # 1e5 Pa lose 1e-12 of the variance.
    total = da.maximum(weights.sum(axis=axes), 1e-300)  # all missing: 0, refused as constant
    mean = (weights * values).sum(axis=axes) / total
    square = (weights * values**2).sum(axis=axes) / total
    return mean, da.sqrt(da.maximum(square - mean**2, 0.0))
