import numpy as np
import pytest
import torch
import xarray as xr

from data_pipelines.cluster import Cluster
from data_pipelines.errors import InputError
from data_pipelines.fields import open_fields
from data_pipelines.patches import Cutter
from data_pipelines.quality import findings_of
from data_pipelines.schema import PatchGrid
from weather_tdr import maps
from weather_tdr.calibration import Calibration
from weather_tdr.dense import dense_log_odds
from weather_tdr.maps import incident_map, incident_map_on, write_map
from weather_tdr.model_files import Detector
from weather_tdr.models import PatchNet, log_odds

LAGS = ["0h", "-24h"]


def detector(size, stride, spacing=5.0, seed=0):
    torch.manual_seed(seed)
    architecture = {"variables": 4, "size": size, "stride": stride, "width": 6}
    names = ["msl", "msl-24h", "vo850", "vo850-24h"]
    return Detector(
        model=PatchNet(**architecture).eval(),
        architecture=architecture,
        variables={
            "variable": names,
            "units": ["Pa", "Pa", "s-1", "s-1"],
            "standard_name": ["air_pressure_at_mean_sea_level"] * 2
            + ["atmosphere_relative_vorticity"] * 2,
            "base_variable": ["msl", "msl", "vo850", "vo850"],
            "lag": ["0h", "-24h"] * 2,
        },
        hemisphere_sign=["vo850"],
        grid={"size": size, "stride": stride, "dlat": spacing, "dlon": spacing},
        mean=[101000.0, 101000.0, 0.0, 0.0],
        std=[1200.0, 1200.0, 3e-5, 3e-5],
        method="uniform",
        threshold=0.5,
    )


def patch_by_patch(found, fields, model):
    """Every position of the map on its own: cut by coordinates, then the network on one patch."""
    size = model.grid["size"]
    lat, lon = fields["latitude"].values, fields["longitude"].values
    values = fields.values
    step_lat, step_lon = lat[0] - lat[1], lon[1] - lon[0]
    out = np.empty(found.shape)
    for y, north in enumerate(found["latitude"].values):
        for x, east in enumerate(found["longitude"].values):
            i = round((lat[0] - north) / step_lat - (size - 1) / 2)
            j = round(((east - lon[0]) % 360) / step_lon - (size - 1) / 2)
            columns = (j + np.arange(size)) % len(lon)
            patch = values[:, :, i : i + size][..., columns]
            with torch.no_grad():
                out[:, y, x] = torch.sigmoid(log_odds(model.model(model.normalise(patch)))).numpy()
    return out


@pytest.mark.parametrize("resolution", ["grid", "stride"])
@pytest.mark.parametrize(("size", "stride"), [(8, 2), (16, 4), (9, 1), (12, 4)])
def test_dense_map_equals_patch_by_patch(small_files, resolution, size, stride):
    fields = open_fields(
        [small_files[0]], ["msl", "vo850"], lags=LAGS, hemisphere_sign=["vo850"]
    ).isel(time=slice(0, 2))
    model = detector(size, stride)
    found = incident_map(model, fields, resolution=resolution)
    step = 1 if resolution == "grid" else stride
    assert found.sizes["longitude"] == 72 // step
    assert found.sizes["latitude"] == (37 - size) // step + 1
    wanted = patch_by_patch(found, fields.compute(), model)
    np.testing.assert_allclose(found.values, wanted, atol=2e-6)
    assert found.values.std() > 1e-4


@pytest.mark.parametrize("step", [1, 4])
def test_bands_and_batches_change_nothing(monkeypatch, step):
    """Two fields at once and one by one, in bands of a row, give what the whole field gives."""
    model = detector(16, 4).model
    fields = torch.randn(3, 4, 43, 50, generator=torch.Generator().manual_seed(1))
    whole = dense_log_odds(model, fields, step)
    assert whole.shape == ((3, 28, 35) if step == 1 else (3, 7, 9))
    monkeypatch.setattr("weather_tdr.dense.TILE_BYTES", 1)
    for k in range(3):
        part = dense_log_odds(model, fields[k : k + 1], step)
        torch.testing.assert_close(part[0], whole[k], atol=1e-6, rtol=0)


def test_stride_map_lies_on_the_training_patches(small_files):
    fields = open_fields([small_files[0]], ["msl", "vo850"], lags=LAGS).isel(time=[5])
    model = detector(8, 2)
    found = incident_map(model, fields, resolution="stride")
    grid = PatchGrid(fields["latitude"].values, fields["longitude"].values, 8, 2)
    row, column = (a.ravel() for a in np.mgrid[: grid.rows, : grid.columns])
    patches = np.empty((len(row), fields.sizes["variable"], grid.size, grid.size), np.float32)
    Cutter(fields.values, grid).cut(np.zeros(len(row), int), grid.corner(row, column), patches)
    with torch.no_grad():
        wanted = torch.sigmoid(log_odds(model.model(model.normalise(patches)))).numpy()
    got = found.sel(
        latitude=xr.DataArray(grid.centre_latitude()[row]),
        longitude=xr.DataArray(grid.centre_longitude()[column]),
        method="nearest",
    )
    np.testing.assert_allclose(got.values[0], wanted, atol=2e-6)


def test_the_same_map_from_a_file_with_other_conventions(small, small_files, tmp_path):
    fields, _ = small
    other = fields.rename(time="valid_time", latitude="lat", longitude="lon", msl="prmsl")
    other = other.assign_coords(lon=(other["lon"] + 180) % 360 - 180).sortby("lon").sortby("lat")
    other["prmsl"] = (other["prmsl"].astype("f8") / 100).assign_attrs(
        units="hPa", standard_name="air_pressure_at_mean_sea_level"
    )
    other.to_netcdf(tmp_path / "other.nc")
    model = detector(8, 2)
    arguments = model.open_arguments()
    first = incident_map(model, open_fields([small_files[0]], **arguments))
    second = incident_map(model, open_fields([tmp_path / "other.nc"], **arguments))
    xr.testing.assert_allclose(first, second, atol=1e-4)
    np.testing.assert_array_equal(first["longitude"], second["longitude"])


@pytest.mark.parametrize("value", [np.nan, np.inf, -32767.0])
def test_missing_and_impossible_values_are_missing_and_local(small, tmp_path, value):
    holed = small[0].isel(time=slice(0, 6)).copy(deep=True)
    holed["msl"][4, 18, 0] = value
    holed.to_netcdf(tmp_path / "holed.nc")
    model = detector(8, 2)
    found = incident_map(model, open_fields([tmp_path / "holed.nc"], **model.open_arguments()))
    missing = np.isnan(found.isel(time=0).values)
    assert missing.sum() == 8 * 8  # the positions whose patch holds the point, no others
    assert not np.isnan(found.isel(time=1).values).any()
    told = findings_of(found)  # what is missing, the map itself shows
    assert [(f.variable, f.values) for f in told] == ([] if np.isnan(value) else [("msl", 1)])


def test_regional_map_ends_where_no_full_patch_fits(small, tmp_path):
    region = small[0].sel(latitude=slice(70, 20), longitude=slice(200, 300))
    region.to_netcdf(tmp_path / "region.nc")
    model = detector(8, 2)
    found = incident_map(model, open_fields([tmp_path / "region.nc"], **model.open_arguments()))
    assert found["longitude"].values[[0, -1]].tolist() == [217.5, 282.5]
    assert found["latitude"].values[[0, -1]].tolist() == [52.5, 37.5]


def test_regional_map_across_greenwich_has_ascending_longitudes_below_360(
    small, small_files, tmp_path
):
    region = small[0].assign_coords(longitude=(small[0]["longitude"] + 180) % 360 - 180)
    region = region.sortby("longitude").sel(latitude=slice(70, 20), longitude=slice(-60, 45))
    region.to_netcdf(tmp_path / "region.nc")
    model = detector(8, 2)
    fields = open_fields([tmp_path / "region.nc"], **model.open_arguments())
    found = incident_map(model, fields)
    longitude = found["longitude"].values
    assert longitude[0] == -42.5 and longitude[-1] == 27.5 and (np.diff(longitude) > 0).all()
    globe = incident_map(model, open_fields([small_files[0]], **model.open_arguments()))
    same = globe.sel(longitude=longitude % 360, latitude=found["latitude"])
    np.testing.assert_allclose(found.values, same.values, atol=1e-6)


def test_calibration_moves_every_probability_and_no_order(small_files):
    model = detector(8, 2)
    fields = open_fields([small_files[0]], **model.open_arguments()).isel(time=[4])
    plain = incident_map(model, fields).values.astype(np.float64)
    model.calibration = Calibration("platt", [-50.0, 50.0], [-103.0, 97.0])  # 2 z - 3
    moved = incident_map(model, fields).values.astype(np.float64)
    odds = np.log(plain / (1 - plain))
    np.testing.assert_allclose(moved, 1 / (1 + np.exp(3 - 2 * odds)), rtol=2e-4)


def one_by_one(work, shared, numbers, cluster, **_):
    assert len(numbers) == cluster.number
    for number in numbers:
        work(shared, number)


@pytest.mark.parametrize("chunk", [2, 100])
def test_the_same_map_from_processes(small_files, tmp_path, chunk, monkeypatch, caplog):
    """Chunks are the parts; where there are fewer than workers, time is divided evenly."""
    if chunk == 100:
        monkeypatch.setattr(maps, "compute", one_by_one)
    model = detector(8, 2)
    fields = open_fields([small_files[0]], **model.open_arguments()).isel(time=slice(0, 5))
    spoilt = fields["time"].isin(fields["time"][[0, 4]]) & (fields["latitude"] == 0.0)
    fields = fields.where(~spoilt, -32767.0).chunk(time=chunk)
    here = incident_map(model, fields)
    assert [f.values for f in findings_of(here)] == [2 * 72] * fields.sizes["variable"]
    there = incident_map_on(Cluster("processes", 2), model, fields, tmp_path)
    np.testing.assert_allclose(there.values, here.values, atol=1e-6)
    xr.testing.assert_equal(there.coords.to_dataset(), here.coords.to_dataset())
    assert caplog.text.count("the map is missing there") == fields.sizes["variable"]
    assert there.attrs == here.attrs and list(tmp_path.iterdir()) == []


def test_other_grids_and_units_are_refused(small, small_files, tmp_path):
    model = detector(8, 2, spacing=2.5)
    with pytest.raises(InputError, match=r"spacing of 2.5 degrees as in training, got 5"):
        incident_map(model, open_fields([small_files[0]], **model.open_arguments()))
    other = small[0].copy()
    other["msl"] = other["msl"].assign_attrs(units="m")
    other.to_netcdf(tmp_path / "other.nc")
    model = detector(8, 2)
    with pytest.raises(InputError, match="must have the units `Pa` as in training, got `m`"):
        incident_map(model, open_fields([tmp_path / "other.nc"], **model.open_arguments()))
    other["msl"] = small[0]["msl"].assign_attrs(standard_name="air_temperature")
    other.to_netcdf(tmp_path / "named.nc")
    with pytest.raises(InputError, match=r"standard_name `air_p.*` as in training, got `air_temp"):
        incident_map(model, open_fields([tmp_path / "named.nc"], **model.open_arguments()))


def test_other_variables_and_lags_are_refused_and_the_error_says_how(small_files):
    model = detector(8, 2)
    arguments = model.open_arguments()
    for changed, how in (
        (
            {"lags": ["0h", "-12h"]},
            "without msl-24h, vo850-24h and with msl-12h",
        ),
        ({"lags": ["0h"]}, "without msl-24h, vo850-24h"),
        ({"variables": ["vo850", "msl"], "standard_names": []}, "in another order"),
    ):
        fields = open_fields([small_files[0]], **(arguments | changed))
        with pytest.raises(InputError, match=f"got them {how}"):
            incident_map(model, fields)


def test_written_map_is_cf(small_files, tmp_path):
    model = detector(8, 2)
    fields = open_fields([small_files[0]], **model.open_arguments()).isel(time=slice(0, 3))
    found = incident_map(model, fields)
    write_map(found, tmp_path / "map.nc", "a network", 0.5)
    with xr.open_dataset(tmp_path / "map.nc") as back:
        assert back.attrs["Conventions"].startswith("CF-")
        assert back["incident_probability"].attrs["units"] == "1"
        for axis in ("latitude", "longitude", "time"):
            assert back[axis].attrs["standard_name"] == axis
        np.testing.assert_array_equal(back["incident_probability"].values, found.values)
    with xr.open_dataset(tmp_path / "map.nc", decode_cf=False) as raw:
        for axis in ("latitude", "longitude", "time"):  # CF 2.5.1: coordinates miss nothing
            assert "_FillValue" not in raw[axis].attrs
        limits = [raw["incident_probability"].attrs[k] for k in ("valid_min", "valid_max")]
        assert [k.dtype for k in limits] == [raw["incident_probability"].dtype] * 2


def noise(model, west, points, spacing, rows):
    """One time of fields for a detector."""
    values = np.random.default_rng(0).standard_normal((1, 4, rows, points))
    return xr.DataArray(
        values.astype("f4"),
        dims=("time", "variable", "latitude", "longitude"),
        coords={
            "time": [np.datetime64("2001-01-01", "ns")],
            "latitude": 75.0 - spacing * np.arange(rows),
            "longitude": west + spacing * np.arange(points),
            **{k: ("variable", v) for k, v in model.variables.items()},
        },
    )


def test_positions_around_the_globe_have_no_gap():
    """90 columns do not divide by 4: positions 16 degrees apart would leave one gap of 24."""
    model = detector(16, 4, spacing=4.0)
    fields = noise(model, 0.0, 90, 4.0, 20)
    found = incident_map(model, fields, resolution="stride")
    xr.testing.assert_identical(found, incident_map(model, fields, resolution="grid"))
    assert found.sizes["longitude"] == 90


@pytest.mark.parametrize(
    ("west", "points", "first"), [(120, 54, 120), (300, 30, -60), (0, 40, 0), (-180, 60, -180)]
)
def test_longitudes_of_regions(west, points, first):
    """5 degrees apart: ascending, from the western edge on, and not below -180."""
    model = detector(5, 1)
    east = incident_map(model, noise(model, west, points, 5.0, 8))["longitude"].to_numpy()
    np.testing.assert_allclose(east, first + 10.0 + 5.0 * np.arange(points - 4))


def test_first_block_may_have_as_many_channels_as_there_are_variables():
    assert PatchNet(4, 8, 2, width=4)(torch.zeros(3, 4, 8, 8)).shape == (3, 2)
    with pytest.raises(InputError, match="too small"):
        PatchNet(4, 3, 4, width=4)
