"""Dense incident maps: the network once over whole fields instead of patch by patch."""

import json
import logging
import math
import shutil
from collections.abc import Hashable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
import xarray as xr
from tqdm import tqdm

from data_pipelines.cluster import Cluster, compute
from data_pipelines.errors import InputError
from data_pipelines.labelling import labelled_text
from data_pipelines.quality import Finding, findings_of, joined, read_block
from data_pipelines.schema import PatchGrid, duration_hours
from data_pipelines.writing import written_whole
from weather_tdr.candidates import AXES, KM_PER_DEGREE, apart_km
from weather_tdr.dense import dense_log_odds
from weather_tdr.model_files import Detector

Resolution = Literal["grid", "stride"]
STEPS_AT_ONCE = 8
log = logging.getLogger(__name__)


@dataclass
class Maps:
    """How to draw incident maps, find incidents in them, follow and match them.

    Attributes:
        resolution: `grid`: a probability for every grid point; `stride`: for every patch. A
            network for whole fields gives one a time.
        radius_km: largest distance at which a found incident matches a true one; at least half the
            diagonal between positions of the map.
        tolerance: largest difference in time of the two, such as 6h.
        separation_km: least distance of two incidents of one time; 0 is the height of a central
            cell, in which a network cannot tell two apart, or `radius_km` if that is more.
        speed_km_h: no track is faster, but that it may go to a neighbouring position of the map.
        missed_steps: a track may be missing at so many time steps in a row.
        figures: number of figures of the strongest incidents.
        animation: whether to make `incidents.gif` of the whole period.
    """

    resolution: Resolution = "grid"
    radius_km: float = 300.0
    tolerance: str = "0h"
    separation_km: float = 0.0
    speed_km_h: float = 120.0
    missed_steps: int = 1
    figures: int = 3
    animation: bool = False

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
        if not self.tolerance_hours >= 0:
            raise InputError(
                "`maps.tolerance` must be a duration such as 6h, not negative, got "
                f"`{self.tolerance}`."
            )
        if not self.speed_km_h > 0 or self.separation_km < 0 or self.missed_steps < 0:
            raise InputError(
                "`maps.speed_km_h` must be positive, `maps.separation_km` and `maps.missed_steps` "
                f"not negative, got {self.speed_km_h}, {self.separation_km} and "
                f"{self.missed_steps}."
            )

    @property
    def tolerance_hours(self) -> float:
        """Largest difference in time of a found and a true incident, hours."""
        return duration_hours(self.tolerance)

    def reaching(self, found_map: xr.DataArray) -> "Maps":
        """The same with a radius of at least half the diagonal between positions of a map.

        A map with a point a patch cannot say better than that where an incident is.
        """
        reach = math.ceil(0.5 * apart_km(found_map))
        if reach <= self.radius_km:
            return self
        log.info("incidents match within %d km: the map has no nearer positions", reach)
        return replace(self, radius_km=float(reach))

    def separation(self, cell_latitude: float) -> float:
        """Least distance of two incidents in km, for central cells so many degrees high."""
        return self.separation_km or max(self.radius_km, cell_latitude * KM_PER_DEGREE)


def incident_map(
    detector: Detector,
    fields: xr.DataArray,
    *,
    resolution: Resolution = "grid",
    progress: bool = False,
) -> xr.DataArray:
    """Calibrated probability that the patch around each position is an incident patch.

    What makes it one, by default an incident in its central cell, the `long_name` tells.

    Before calibration equal to cutting every patch and running the network on it. Positions are the
    centres of the patches; on a global grid they go around the globe, elsewhere and towards the
    poles the map ends where no full patch fits. A patch with a value that is missing,
    infinite or impossible (`quality.LIMITS`) has a missing probability.

    Args:
        detector: trained network.
        fields: canonical, as `open_fields` gives them.
        resolution: `stride` gives the positions of the training patches; `grid` shifts them by
            every offset below the stride, so that there is one position a grid point, as on
            a globe with columns that do not divide by the stride.
        progress: shows a progress bar.

    Returns:
        ``incident_probability (time, latitude, longitude)``, float32, units 1; longitudes ascend
        from [-180, 360) on, and stay below 360 where they can. The attribute ``findings`` (JSON),
        if there, tells which values were infinite, impossible or unreadable.

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
    wraps = grid.is_global and not whole
    step = stride if whole or resolution == "stride" else 1
    if wraps and len(longitude) % step:
        log.info("the map has each grid point: %d do not divide by %d", len(longitude), step)
        step = 1
    north, east = grid.positions(step)
    rows, columns = len(north), len(east)
    device = next(detector.model.parameters()).device
    parts, findings = [], []
    # A chunk of fields is computed once, and goes through the network a few steps at a time.
    chunks = fields.chunks[0] if fields.chunks else (fields.sizes["time"],)
    ends = np.cumsum(chunks)
    bar = tqdm(total=int(ends[-1]), desc="incident map", disable=not progress, mininterval=1.0)
    for first, last in zip(ends - chunks, ends, strict=True):
        here = fields.isel(time=slice(first, last))
        block, wrong = read_block(here, pd.DatetimeIndex(here.indexes["time"]))
        findings += [found for found in wrong if found.problem != "missing"]
        for begin in range(0, len(block), STEPS_AT_ONCE):
            values = block[begin : begin + STEPS_AT_ONCE]
            if wraps:
                values = np.concatenate([values, values[..., : grid.shape[1] - 1]], axis=-1)
            scaled = detector.normalise(values).to(device)
            found_here = dense_log_odds(detector.model, scaled, step)[:, :rows, :columns]
            calibrated = detector.calibration.probability(found_here.cpu().numpy())
            parts.append(calibrated.astype(np.float32))
            bar.update(len(values))
    bar.close()
    if not wraps and east[-1] >= 360.0 and east[0] >= 180.0:  # across Greenwich, from west of it
        east -= 360.0
    cell = grid.shape if whole else (stride, stride)
    found = xr.DataArray(
        np.concatenate(parts) if parts else np.empty((0, rows, columns), np.float32),
        dims=("time", "latitude", "longitude"),
        coords={
            "time": fields["time"].to_numpy(),
            "latitude": ("latitude", north, _axis("latitude", "degrees_north", "Y")),
            "longitude": ("longitude", east, _axis("longitude", "degrees_east", "X")),
        },
        name="incident_probability",
        attrs={
            "long_name": f"probability of {detector.facts.get('label', labelled_text({}))}",
            "units": "1",
            "valid_min": np.float32(0.0),
            "valid_max": np.float32(1.0),
            "cell_latitude": cell[0] * grid.dlat,
            "cell_longitude": cell[1] * grid.dlon,
            "calibration": detector.calibration.kind,
            "comment": "missing where no full patch fits or a field value is missing",
        },
    )
    if findings:
        found.attrs["findings"] = json.dumps([asdict(f) for f in joined(findings)])
    found["time"].attrs = {"standard_name": "time", "axis": "T"}
    if wraps:
        found = found.assign_coords(
            longitude=("longitude", np.round(east % 360.0, 6), found["longitude"].attrs)
        ).sortby("longitude")
    return found


def incident_map_on(
    cluster: Cluster,
    detector: Detector,
    fields: xr.DataArray,
    folder: Path,
    *,
    resolution: Resolution = "grid",
    progress: bool = False,
) -> xr.DataArray:
    """The same as `incident_map`, its time steps divided over the workers of a cluster.

    Args:
        cluster: where; `threads` is this process.
        detector: trained network.
        fields: canonical, lazy, on files that all workers can read.
        folder: that all workers can write to; holds the parts until they are joined.
        resolution: as of `incident_map`.
        progress: shows a progress bar.
    """
    if cluster.where == "threads" or fields.sizes["time"] < 2:
        found = incident_map(detector, fields, resolution=resolution, progress=progress)
        _say(findings_of(found))
        return found
    chunks = fields.chunks[0] if fields.chunks else (fields.sizes["time"],)
    ends = np.cumsum(chunks)
    if len(chunks) < cluster.number:  # a chunk is read once, unless workers would stay idle
        ends = np.unique(np.linspace(0, ends[-1], cluster.number + 1).round().astype(int))[1:]
        chunks = tuple(np.diff(np.r_[0, ends]).tolist())
    parts = folder / "incident_map.parts"
    shutil.rmtree(parts, ignore_errors=True)
    parts.mkdir(parents=True)
    slices = [slice(int(b - n), int(b)) for b, n in zip(ends, chunks, strict=True)]
    log.info("mapping %d time steps in %d parts", ends[-1], len(slices))
    shared = (detector, fields, resolution, slices, parts.resolve())
    compute(_map_part, shared, range(len(slices)), cluster, title="incident map", progress=progress)
    loaded = []
    for number in range(len(slices)):
        with xr.open_dataarray(parts / f"{number}.nc") as part:
            loaded.append(part.load())
    shutil.rmtree(parts)
    whole = xr.concat(loaded, dim="time")
    whole["time"].attrs = loaded[0]["time"].attrs
    findings = joined(found for part in loaded for found in findings_of(part))
    _say(findings)
    if findings:
        whole.attrs["findings"] = json.dumps([asdict(f) for f in findings])
    return whole


def _say(findings: list[Finding]) -> None:
    for found in findings:
        log.warning("%s; the map is missing there", found.line())


def _map_part(
    shared: tuple[Detector, xr.DataArray, Resolution, list[slice], Path], number: int
) -> None:
    detector, fields, resolution, slices, parts = shared
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # a worker is a core
    try:
        found = incident_map(detector, fields.isel(time=slices[number]), resolution=resolution)
    finally:
        torch.set_num_threads(threads)
    with written_whole(parts / f"{number}.nc") as partial:
        found.to_netcdf(partial, engine="netcdf4")


def _axis(name: str, units: str, axis: str) -> dict[str, str]:
    return {"standard_name": name, "units": units, "axis": axis}


def write_map(found: xr.DataArray, path: Path, source: str, threshold: float) -> None:
    """Writes the map as CF NetCDF, beside its place first.

    Args:
        found: as `incident_map` gives it.
        path: of the file to make.
        source: what made it, for the metadata.
        threshold: probability from which on a peak is an incident.
    """
    dataset = found.to_dataset()
    dataset.attrs = {
        "Conventions": "CF-1.10",
        "title": "Probability of rare weather incidents",
        "source": source,
        "threshold": threshold,
    }
    encoding: dict[Hashable, dict[str, Any]] = {axis: {"_FillValue": None} for axis in AXES[1:]}
    encoding[found.name] = {
        "zlib": True, "complevel": 4, "dtype": "float32", "_FillValue": np.nan
    }  # fmt: skip
    with written_whole(path) as partial:
        dataset.to_netcdf(partial, encoding=encoding, engine="netcdf4")
