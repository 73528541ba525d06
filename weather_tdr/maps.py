"""Dense incident maps: the network once over whole fields instead of patch by patch."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import xarray as xr
from tqdm import tqdm

from data_pipelines.errors import InputError
from data_pipelines.schema import PatchGrid
from weather_tdr.dense import dense_probability
from weather_tdr.model_files import Detector

Resolution = Literal["grid", "stride"]
STEPS_AT_ONCE = 8


@dataclass
class Maps:
    """How to draw and match incident maps.

    Attributes:
        resolution: `grid`: a probability for every grid point; `stride`: for every patch. A
            network for whole fields gives one a time.
        radius_km: largest distance at which a found incident matches a true one.
        figures: number of figures of the strongest incidents.
    """

    resolution: Resolution = "grid"
    radius_km: float = 300.0
    figures: int = 3

    def __post_init__(self) -> None:
        """Checks the numbers.

        Raises:
            InputError: a number out of range.
        """
        if not self.radius_km > 0 or self.figures < 0:
            raise InputError(
                "`maps.radius_km` must be positive and `maps.figures` not negative, got "
                f"{self.radius_km} and {self.figures}."
            )


def incident_map(
    detector: Detector,
    fields: xr.DataArray,
    *,
    resolution: Resolution = "grid",
    progress: bool = False,
) -> xr.DataArray:
    """Probability of an incident in the central cell of the patch around each position.

    Equal to cutting every patch and running the network on it. Positions are the centres of the
    patches; on a global grid they go around the globe, elsewhere and towards the poles the map
    ends where no full patch fits. A patch with a missing value has a missing probability.

    Args:
        detector: trained network.
        fields: canonical, as `open_fields` gives them.
        resolution: `stride` gives the positions of the training patches; `grid` shifts them by
            every offset below the stride, so that there is one position a grid point.
        progress: shows a progress bar.

    Returns:
        ``incident_probability (time, latitude, longitude)``, float32, units 1.

    Raises:
        InputError: the fields differ from those of training.
    """
    detector.check_fields(fields)
    latitude, longitude = (
        fields[axis].to_numpy().astype(float) for axis in ("latitude", "longitude")
    )
    stride, whole = detector.grid["stride"], detector.whole_field
    size = 0 if whole else detector.grid["size"]
    grid = PatchGrid(latitude, longitude, size, stride, whole)
    step = stride if whole or resolution == "stride" else 1
    height, width = grid.shape
    wraps = grid.is_global and not whole
    rows = (len(latitude) - height) // step + 1
    columns = (len(longitude) - width) // step + 1
    if wraps:
        columns = grid.columns if step > 1 else len(longitude)
    device = next(detector.model.parameters()).device
    parts = []
    # A chunk of fields is computed once, and goes through the network a few steps at a time.
    chunks = fields.chunks[0] if fields.chunks else (fields.sizes["time"],)
    ends = np.cumsum(chunks)
    bar = tqdm(total=int(ends[-1]), desc="incident map", disable=not progress, mininterval=1.0)
    for first, last in zip(ends - chunks, ends, strict=True):
        block = fields.isel(time=slice(first, last)).to_numpy()
        for begin in range(0, len(block), STEPS_AT_ONCE):
            values = block[begin : begin + STEPS_AT_ONCE]
            if wraps:
                values = np.concatenate([values, values[..., : width - 1]], axis=-1)
            scaled = detector.normalise(values).to(device)
            found_here = dense_probability(detector.model, scaled, step)
            parts.append(found_here[:, :rows, :columns].cpu().numpy())
            bar.update(len(values))
    bar.close()
    north = latitude[0] - grid.dlat * (np.arange(rows) * step + (height - 1) / 2)
    east = longitude[0] + grid.dlon * (np.arange(columns) * step + (width - 1) / 2)
    cell = grid.shape if whole else (stride, stride)
    found = xr.DataArray(
        np.concatenate(parts),
        dims=("time", "latitude", "longitude"),
        coords={
            "time": fields["time"].to_numpy(),
            "latitude": ("latitude", north, _axis("latitude", "degrees_north", "Y")),
            "longitude": ("longitude", east, _axis("longitude", "degrees_east", "X")),
        },
        name="incident_probability",
        attrs={
            "long_name": "probability of an incident in the central cell of the patch",
            "units": "1",
            "valid_min": 0.0,
            "valid_max": 1.0,
            "cell_latitude": cell[0] * grid.dlat,
            "cell_longitude": cell[1] * grid.dlon,
            "comment": "missing where no full patch fits or a field value is missing",
        },
    )
    found["time"].attrs = {"standard_name": "time", "axis": "T"}
    if wraps:
        found = found.assign_coords(
            longitude=("longitude", np.round(east % 360.0, 6), found["longitude"].attrs)
        ).sortby("longitude")
    return found


def _axis(name: str, units: str, axis: str) -> dict[str, str]:
    return {"standard_name": name, "units": units, "axis": axis}


def write_map(
    found: xr.DataArray, path: Path, detector: Detector, attributes: dict[str, str] | None = None
) -> None:
    """Writes the map as CF NetCDF, beside its place first."""
    dataset = found.to_dataset()
    dataset.attrs = {
        "Conventions": "CF-1.10",
        "title": "Probability of rare weather incidents",
        "source": f"weather-tdr, PatchNet trained with {detector.method}",
        "threshold": detector.threshold,
        **(attributes or {}),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    encoding = {
        found.name: {"zlib": True, "complevel": 4, "dtype": "float32", "_FillValue": np.nan}
    }
    dataset.to_netcdf(partial, encoding=encoding, engine="netcdf4")
    partial.replace(path)
