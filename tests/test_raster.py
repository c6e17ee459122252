"""The generic room, and the shared ways into files that all product rooms use."""

import pickle

import dask
import numpy as np
import pandas as pd
import pytest
import rasterio
import xarray as xr
from affine import Affine

from smgrid import Grid, files, sources
from smgrid.grid import find_crs

RNG = np.random.default_rng(3)
LAT, LON = np.arange(10, 5, -0.5), np.arange(20, 26, 0.5)
FIELD = RNG.uniform(0, 1, (LAT.size, LON.size)).astype("f4")


def tiff(path, values, *, transform=None, crs="EPSG:32755", nodata=None, names=(), scales=None, units=(), **profile):
    values = np.asarray(values)
    count, height, width = values.shape
    transform = transform or Affine(10, 0, 300000, 0, -10, 6200000)
    with rasterio.open(
        path, "w", driver="GTiff", count=count, height=height, width=width, dtype=values.dtype, crs=crs,
        transform=transform, nodata=nodata, **profile,
    ) as dst:  # fmt: skip
        dst.write(values)
        for k, name in enumerate(names, 1):
            dst.set_band_description(k, name)
        if scales:
            dst.scales, dst.offsets = scales
        if units:
            dst.units = units
    return path


def cf(values=FIELD, *, y=LAT, x=LON, dims=("lat", "lon"), name="ndvi", units="1", **attrs):
    degrees = {"units": "degrees_north"}, {"units": "degrees_east"}
    coords = {dim: (dim, axis, a) for dim, axis, a in zip(dims, (y, x), degrees)}
    return xr.Dataset({name: (dims, values, {"units": units, **attrs})}, coords)


def store(data, folder, kind, **options):
    path = folder / f"field.{kind}"
    if kind == "zarr":
        data.to_zarr(path, consolidated=options.pop("consolidated", False), **options)
    else:
        data.to_netcdf(path, engine="netcdf4", **options)
    return path


# ---- one field, however it is stored


@pytest.mark.parametrize("kind", ["nc", "zarr"])
@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("dims", [("lat", "lon"), ("latitude", "longitude"), ("y", "x"), ("rows", "cols")])
def test_axes_come_out_alike(tmp_path, kind, flip, dims, no_compute):
    data = cf(dims=dims)
    if dims == ("rows", "cols"):
        data["rows"].attrs["standard_name"], data["cols"].attrs["standard_name"] = "latitude", "longitude"
    data = data.isel({dims[0]: slice(None, None, -1)}) if flip else data
    found = sources.raster.open(store(data, tmp_path, kind)).ndvi
    assert found.dims == ("y", "x") and find_crs(found).to_epsg() == 4326
    np.testing.assert_array_equal(found.y.values, LAT)
    np.testing.assert_array_equal(found.x.values, LON)
    with dask.config.set(scheduler="sync"):
        np.testing.assert_array_equal(found.values, FIELD)


def test_a_geotiff_equals_its_netcdf(tmp_path):
    west, north = LON[0] - 0.25, LAT[0] + 0.25
    up = tiff(tmp_path / "up.tif", FIELD[None], transform=Affine(0.5, 0, west, 0, -0.5, north), crs="EPSG:4326")
    south = LAT[-1] - 0.25
    down = tiff(
        tmp_path / "down.tif", FIELD[None, ::-1], transform=Affine(0.5, 0, west, 0, 0.5, south), crs="EPSG:4326"
    )
    plain = sources.raster.open(store(cf(), tmp_path, "nc")).ndvi
    for path in (up, down):
        found = sources.raster.open(path, name="ndvi", units="1").ndvi
        np.testing.assert_array_equal(found.values, plain.values)
        np.testing.assert_allclose(found.y.values, LAT, rtol=0, atol=1e-12)
        assert found.attrs["units"] == "1" and found.attrs["source_files"] == path.name


def test_longitudes_0_to_360_are_turned(tmp_path):
    lon = np.arange(0, 360, 30.0)
    values = RNG.random((LAT.size, lon.size)).astype("f4")
    found = sources.raster.open(store(cf(values, x=lon), tmp_path, "nc")).ndvi
    assert found.x.values.tolist() == [*range(-180, 180, 30)]
    np.testing.assert_array_equal(found.sel(x=-30).values, values[:, 11])
    np.testing.assert_array_equal(found.sel(x=0).values, values[:, 0])


@pytest.mark.parametrize("shift, snaps", [(3.0, True), (250.0, False)])
def test_the_ease_grid_is_snapped_where_it_is_meant(tmp_path, shift, snaps):
    grid = Grid(1, 11466, 31401, 9, 8)
    data = xr.Dataset({"ndvi": (("y", "x"), np.zeros(grid.shape, "f4"), {"units": "1"})}, grid.coords())
    data = data.assign_coords(x=(grid.x + shift).astype("f8"))
    data["ndvi"].encoding["grid_mapping"] = "spatial_ref"
    found = sources.raster.open(store(data, tmp_path, "nc"))
    assert np.array_equal(found.x.values, grid.x) == snaps
    if snaps:
        assert Grid.of(found) == grid


@pytest.mark.parametrize("kind", ["nc", "tif"])
def test_packed_values_are_unpacked(tmp_path, kind):
    stored = RNG.integers(-2000, 10000, (6, 7)).astype("i2")
    stored[2, 3] = -3000
    if kind == "nc":
        data = cf(stored, y=LAT[:6], x=LON[:7])
        data["ndvi"].attrs |= {"scale_factor": 1e-4, "_FillValue": np.int16(-3000)}
        path = store(data, tmp_path, kind)
    else:
        path = tiff(tmp_path / "a.tif", stored[None], nodata=-3000, scales=([1e-4], [0.0]), units=["1"])
    found = sources.raster.open(path, name="ndvi").ndvi
    expected = np.where(stored == -3000, np.nan, stored * 1e-4)
    assert found.dtype == "float32"
    np.testing.assert_allclose(found.values, expected, rtol=2e-7)


def test_instants_become_utc_days(tmp_path):
    times = pd.to_datetime(["2015-05-05T19:30", "2015-05-17T19:31"])
    data = cf().expand_dims(time=times)
    found = sources.raster.open(store(data, tmp_path, "nc"))
    assert list(found.time.values) == list(times.floor("D")) and list(found.acquired.values) == list(times)
    twice = cf().expand_dims(time=pd.to_datetime(["2015-05-05T06:00", "2015-05-05T18:00"]))
    with pytest.raises(ValueError, match=r"'time' has 2 instants on 1 days.*resample"):
        sources.raster.open(store(twice, tmp_path, "zarr"))


# ---- names and units


def test_names_are_ours(tmp_path):
    path = tiff(tmp_path / "s2.tif", RNG.integers(0, 9999, (3, 5, 5)).astype("u2"), names=("B02", "B03", "SCL"))
    found = sources.raster.open(path, name={"B02": "b2", "B03": "b3"}, units={"b2": "0.0001", "b3": "0.0001"})
    assert list(found.data_vars) == ["b2", "b3"] and found.b2.attrs["rule"] == "0.0001 to 1"
    with rasterio.open(path) as src:
        np.testing.assert_allclose(found.b3.values, src.read(2) * 1e-4, rtol=2e-7)
    with pytest.raises(ValueError, match=r"holds \['B02', 'B03', 'SCL'\], so say which: name="):
        sources.raster.open(path, name="b2")
    with pytest.raises(ValueError, match="a variable cannot be named 'x': that is an axis"):
        sources.raster.open(path, name={"B02": "x"})
    with pytest.raises(ValueError, match=r"s2.tif holds no \['B2'\]; it has \['B02'"):
        sources.raster.open(path, name={"B2": "b2"})


@pytest.mark.parametrize(
    "name, units, stored, wanted",
    [
        ("air_temperature", "K", 293.15, 20.0),
        ("smap", "%", 23.0, 0.23),
        ("bulk_density", "cg/cm3", 134.0, 1.34),
        ("clay", "g/kg", 321.0, 32.1),
        ("precipitation", "mm/day", 8.0, 0.008),
        ("elevation", "m", 131.0, 131.0),
        ("roughness", "furlong", 3.0, 3.0),
    ],
)
def test_units_convert_or_pass(tmp_path, name, units, stored, wanted):
    path = store(cf(np.full(FIELD.shape, stored, "f4"), name=name, units=units), tmp_path, "nc")
    assert sources.raster.open(path)[name].values == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize(
    "name, units, stored, says",
    [
        ("ndvi", "1", 6543.0, r"'ndvi', in '1' .*holds 6543 .*units='0.0001'"),
        ("b8", "1", 3210.0, r"'b8', in '1'.*scale that was not applied"),
        ("smap", "m3 m-3", 23.5, r"'smap', in 'm3 m-3'.*holds 23.5"),
        ("air_temperature", "degC", 293.0, r"'air_temperature', in 'degC'"),
        ("elevation", "m", -32768.0, r"'elevation'.*a fill taken for a value"),
        ("air_temperature", "m", 20.0, r"'air_temperature' is in 'm', which does not convert to 'degC'; known are"),
        ("vv", None, -12.0, r"'vv' carries no units; known are \['dB', '1'.*units=\{'vv': ...\}"),
    ],
)
def test_values_that_are_no_such_quantity_are_refused(tmp_path, name, units, stored, says):
    data = cf(np.full(FIELD.shape, stored, "f4"), name=name)
    data[name].attrs = {"units": units} if units else {}
    with pytest.raises(ValueError, match=rf"field.nc: {says}"):
        sources.raster.open(store(data, tmp_path, "nc")).load()


@pytest.mark.parametrize("kind", ["nc", "tif"])
@pytest.mark.parametrize(
    "fill, units, scale", [(-9999, "1", None), (-9999, "0.0001", None), (-9999, "1", 1e-4), (32767, "0.0001", None)]
)
def test_a_fill_that_is_not_declared_is_missing_and_told(tmp_path, caplog, kind, fill, units, scale):
    true = RNG.random((1, 10, 12))
    values = true if units == "1" and not scale else np.round(true * 1e4)
    values[0, 2:4, :5] = fill
    if kind == "nc":
        data = cf(values[0].astype("f4" if units == "1" and not scale else "i2"), name="ndvi", units=units)
        data["ndvi"].attrs |= {"scale_factor": scale} if scale else {}
        path = store(data, tmp_path, kind)
    else:
        options = {"scales": ([scale], [0.0])} if scale else {}
        path = tiff(tmp_path / "a.tif", values.astype("f4"), **options)
    found = sources.raster.open(path, name="ndvi", units=units).ndvi
    np.testing.assert_array_equal(np.isnan(found.values), values[0] == fill)
    np.testing.assert_allclose(found.values[5:], true[0, 5:], atol=6e-5)
    code = f"{fill * (scale or 1):g}"
    assert f"{code}, an undeclared fill, is missing (" in found.attrs["rule"] and "values looked at)" in found.rule
    assert f"'ndvi' holds {code}, a fill that the file does not declare" in caplog.text


def test_few_impossible_values_are_missing_and_many_are_refused(tmp_path, caplog):
    values = RNG.random((1, 20, 20)).astype("f4")
    values[0, 0, :20] = 77
    path = tiff(tmp_path / "a.tif", values)
    found = sources.raster.open(path, name="ndvi", units="1").ndvi
    assert np.isnan(found.values[0]).all() and np.isfinite(found.values[1:]).all()
    assert "a.tif: 'ndvi': 20 of 400 values of one block are impossible, such as 77" in caplog.text
    values[0, :5] = 77
    many = tiff(tmp_path / "b.tif", values)
    with pytest.raises(ValueError, match=r"b.tif: 'ndvi', in '1' .*holds 77 and the like in 100 of 400 values"):
        sources.raster.open(many, name="ndvi", units="1").load()


def test_linear_power_called_decibels_is_refused(tmp_path):
    path = tiff(tmp_path / "a.tif", RNG.uniform(0.02, 0.3, (1, 20, 20)).astype("f4"))
    with pytest.raises(ValueError, match=r"'vv' is in 'dB' .*none of 400 values lies below 0: linear power"):
        sources.raster.open(path, name="vv", units="dB").load()
    power = sources.raster.open(path, name="vv", units="1").vv
    assert float(power.max()) < 0 and power.attrs["units"] == "dB"


# ---- places that cannot be known


def test_units_of_a_variable_that_is_not_there_are_refused(tmp_path):
    path = tiff(tmp_path / "a.tif", np.full((1, 4, 5), 300, "i2"))
    with pytest.raises(ValueError, match=r"units are given for \['lts'\], but the variables are \['lst'\]"):
        sources.raster.open(path, name="lst", units={"lts": "0.02"})


def test_a_missing_crs_is_an_error_and_can_be_said(tmp_path):
    data = xr.Dataset({"ndvi": (("y", "x"), FIELD)}, {"y": np.arange(10.0)[::-1] * 10, "x": np.arange(12.0) * 10})
    data["ndvi"].attrs["units"] = "1"
    path = store(data, tmp_path, "nc")
    with pytest.raises(ValueError, match=r"field.nc: the axes 'y', 'x' are not in degrees and .* no CRS .*crs='EPSG"):
        sources.raster.open(path)
    assert find_crs(sources.raster.open(path, crs="EPSG:32755")).to_epsg() == 32755
    bare = tiff(tmp_path / "bare.tif", FIELD[None], crs=None)
    with pytest.raises(ValueError, match=r"bare.tif has no CRS: give it with crs='EPSG:...'"):
        sources.raster.open(bare, name="z")
    assert find_crs(sources.raster.open(bare, name="z", crs=32755)).to_epsg() == 32755


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")  # of writing, not of ours
def test_rasters_without_a_place_or_turned_are_refused(tmp_path):
    nowhere = tiff(tmp_path / "a.tif", FIELD[None], transform=Affine.identity())
    with pytest.raises(ValueError, match=r"a.tif has no position"):
        files.open_raster(nowhere)
    turned = tiff(tmp_path / "b.tif", FIELD[None], transform=Affine(9, 1, 0, 1, -9, 0))
    with pytest.raises(ValueError, match=r"b.tif: the raster is rotated"):
        files.open_raster(turned)


@pytest.mark.parametrize(
    "change, says",
    [
        (lambda d: d.assign_coords(lat=np.r_[LAT[:-1], 1.0]), "'lat' is not a regular axis"),
        (lambda d: d.assign_coords(lat=LAT * 1000), "is in degrees, but the axes reach"),
        (lambda d: d.rename(lat="a", lon="b").drop_vars(["a", "b"]), r"has no 'y' axis with coordinates"),
        (lambda d: d.assign_coords(lon=(LON + 155)), "the window crosses 180 degrees"),
        (lambda d: d.isel(lat=0), "holds no field: no variable of numbers in two dimensions"),
    ],
)
def test_axes_that_are_wrong_are_named(tmp_path, change, says):
    with pytest.raises(ValueError, match=rf"field.nc.*{says}"):
        sources.raster.open(store(change(cf()), tmp_path, "nc"))


# ---- files.open_raster


@pytest.mark.parametrize("tiled", [False, True])
@pytest.mark.parametrize("dtype, nodata", [("i2", -32768), ("u1", None), ("f4", -9999), ("f8", np.nan), ("i4", -1)])
def test_a_raster_is_what_rasterio_reads(tmp_path, tiled, dtype, nodata, monkeypatch):
    monkeypatch.setattr(files, "CHUNK", 32)
    values = RNG.integers(0, 200, (2, 70, 90)).astype(dtype)
    if nodata is not None:
        values[:, 3:9, 4:70] = nodata
    blocks = {"tiled": True, "blockxsize": 16, "blockysize": 16} if tiled else {}
    path = tiff(tmp_path / "a.tif", values, nodata=nodata, names=("one",), **blocks)
    raster = files.open_raster(path)
    assert raster.dtype == ("f8" if dtype in ("f8", "i4") else "f4")
    assert raster.band.values.tolist() == ["one", "band_2"] and raster.data.npartitions >= 4
    truth = values.astype("f8")
    truth = truth if nodata is None else np.where(values == nodata, np.nan, truth)
    np.testing.assert_array_equal(raster.values, truth)
    np.testing.assert_array_equal(raster[1, 5:60:3, ::-7].values, truth[1, 5:60:3, ::-7])
    np.testing.assert_array_equal(raster[:, [1, 44, 3]].values, truth[:, [1, 44, 3]])
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(raster))[0, 4].values, truth[0, 4])


def test_bands_are_named_by_the_file_or_the_caller(tmp_path):
    path = tiff(tmp_path / "a.tif", RNG.random((2, 4, 4)).astype("f4"))
    assert files.open_raster(path, bands=("vv", "vh")).band.values.tolist() == ["vv", "vh"]
    for bands in (("vv",), "vv", ("vv", "vh", "angle")):
        with pytest.raises(ValueError, match=r"a.tif has 2 bands \['band_1', 'band_2'\], but bands="):
            files.open_raster(path, bands=bands)
    named = tiff(tmp_path / "b.tif", RNG.random((2, 4, 4)).astype("f4"), names=("vv", "vh"))
    with pytest.raises(ValueError, match=r"b.tif names its bands \['vv', 'vh'\], .* in another order"):
        files.open_raster(named, bands=("vh", "vv"))


@pytest.mark.parametrize("name", ["dem/dem.tif", "sentinel2_clip/leipzig_raster.tif", "modis_ndvi/mod13q1_250m/*"])
def test_real_rasters_equal_a_plain_read(shared, name):
    paths = [p for p in sorted(shared.glob(name)) if p.suffix in (".tif", ".jp2")]
    assert paths
    for path in paths:
        raster = files.open_raster(path)
        with rasterio.open(path) as src:
            plain = src.read(masked=True).astype("f8").filled(np.nan)
            x, y = src.xy(0, 0)
        np.testing.assert_array_equal(raster.values, plain.astype("f4"))
        assert (raster.x.values[0], raster.y.values[0]) == pytest.approx((x, y), rel=1e-14)


def test_real_mask_equals_a_plain_read(shared):
    path = shared / "era5_netcdf_grib" / "era5_land_mask" / "landmask_0.1_0.1.nc"
    found = sources.raster.open(path).land
    plain = xr.open_dataset(path).land
    for lat, lon in ((51.5, 10.0), (-34.9, 146.1), (0.0, 359.9), (89.9, 180.0)):
        here = found.sel(y=lat, x=lon - 360 if lon >= 180 else lon, method="nearest").values
        np.testing.assert_array_equal(here, plain.sel(latitude=lat, longitude=lon, method="nearest").values)
    assert float(found.sum(dtype="f8")) == float(plain.sum(dtype="f8"))


# ---- damage


@pytest.mark.parametrize("content", [b"", b"II*\x00 nothing", b"<html>", bytes(2000)])
@pytest.mark.parametrize("suffix", ["tif", "nc"])
def test_files_of_another_kind_are_named(tmp_path, content, suffix):
    path = tmp_path / f"x.{suffix}"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"x.{suffix} cannot be opened"):
        sources.raster.open(path, name="x")
    with pytest.raises(FileNotFoundError, match=r"there is no raster at .*y.tif"):
        sources.raster.open(tmp_path / "y.tif")


@pytest.mark.parametrize("compress", [None, "deflate"])
def test_a_damaged_tiff_raises_and_names_the_file(tmp_path, compress):
    values = RNG.integers(0, 200, (1, 300, 200)).astype("i2")
    options = {"compress": compress} if compress else {}
    path = tiff(tmp_path / "a.tif", values, tiled=True, blockxsize=64, blockysize=64, **options)
    whole, opened = path.read_bytes(), 0
    for k in range(1, 20):
        bad = tmp_path / f"cut{k}.tif"
        bad.write_bytes(whole[: len(whole) * k // 20])
        try:
            files.open_raster(bad).load(scheduler="sync")
        except ValueError as error:
            assert bad.name in str(error)
            opened += "cannot be read, the file is damaged" in str(error)
        else:
            pytest.fail(f"a file cut at {k}/20 was read")
    assert opened, "some cuts are found only on reading"


def test_a_store_without_a_chunk_file_of_its_own_kind_is_named(tmp_path):
    path = store(cf(), tmp_path, "zarr")
    for file in (path / "ndvi").rglob("*"):
        if file.is_file() and file.name != "zarr.json":
            file.write_bytes(b"no chunk")
    with pytest.raises(ValueError, match=r"field.zarr: 'ndvi' cannot be read, the file is damaged"):
        sources.raster.open(path).load()
    (path / "zarr.json").write_text("{")
    with pytest.raises(ValueError, match=r"field.zarr cannot be opened"):
        sources.raster.open(path)


# ---- stacks of many images, as Earth Engine's toBands makes them


def test_a_stack_of_images_is_a_series(tmp_path):
    bands = RNG.integers(2000, 8000, (4, 6, 7)).astype("i2")
    labels = ["2015_05_09_NDVI", "2015_05_09_EVI", "2015_04_23_NDVI", "2015_04_23_EVI"]
    path = tiff(tmp_path / "stack.tif", bands, names=labels)
    found = sources.raster.open(path, name={"NDVI": "ndvi"}, units="0.0001").ndvi
    assert found.dims == ("time", "y", "x")
    assert found.time.values.astype("M8[D]").astype(str).tolist() == ["2015-04-23", "2015-05-09"]
    np.testing.assert_allclose(found.values, bands[[2, 0]] / 1e4, rtol=2e-7)
    with pytest.raises(ValueError, match=r"so say which: .* by the name without the date for all images"):
        sources.raster.open(path, name="ndvi", units="0.0001")
    path = tiff(tmp_path / "less.tif", bands[:3], names=labels[:3])
    with pytest.raises(ValueError, match=r"less.tif: 'EVI' is missing in the image '2015_04_23'"):
        sources.raster.open(path, name={"NDVI": "ndvi", "EVI": "evi"}, units={"ndvi": "0.0001"})
