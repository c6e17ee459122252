"""GeoTIFF: what is read back is what was written, the bytes are the same, and a failure leaves nothing behind."""

import hashlib
import logging
import subprocess
import sys
import textwrap
import warnings
from types import SimpleNamespace

import dask
import dask.array as da
import numpy as np
import pytest
import rasterio
import rioxarray
import xarray as xr
from pyproj import CRS

import smgrid
from smgrid import geotiff
from smgrid.grid import Grid

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from rio_cogeo import cog_validate

BIG = Grid(1, 5003, 9001, 1024, 1536)  # two levels of overviews, sizes that halve without remainder
DATES = np.array(["2015-05-05", "2015-05-17", "2015-09-08"], "M8[ns]")
VALUES = {"units": "m3 m-3", "long_name": "soil moisture, 0-5 cm & <more>", "standard_name": "a_name"}
FLAGS = {"flag_values": np.arange(5, dtype="u1"), "flag_meanings": "predicted outside missing invalid masked"}


def make_maps(grid=smgrid.YANCO, times=None, seed=0):
    rng = np.random.default_rng(seed)
    dims, shape = ("y", "x"), grid.shape
    coords = dict(grid.coords())
    if times is not None:
        dims, shape, coords = ("time", *dims), (len(times), *shape), coords | {"time": times}
    soil = rng.random(shape, "f4")
    soil[rng.random(shape) < 0.3] = np.nan
    status = np.where(np.isnan(soil), 2, rng.integers(0, 2, shape)).astype("u1")
    layers = {"soil_moisture": (dims, soil, VALUES), "status": (dims, status, FLAGS)}
    layers["culprit"] = (dims, rng.integers(0, 24, shape).astype("u1"), {"long_name": "first predictor at fault"})
    return xr.Dataset(layers, coords, {"source": "synthetic", "model_digest": "4f1c", "title": "a synthetic map"})


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def halves(field, how):
    """One level of overviews by hand: `how` over the four cells of each pixel."""
    ny, nx = field.shape[0] // 2, field.shape[1] // 2
    return how(field.reshape(ny, 2, nx, 2).swapaxes(1, 2).reshape(ny, nx, 4))


def mean(cells):
    count = np.isfinite(cells).sum(-1)
    with np.errstate(invalid="ignore"):
        return np.nansum(cells.astype("f8"), -1) / np.where(count, count, np.nan)


def votes(cells):
    return np.stack([(cells == flag).sum(-1) for flag in range(24)], -1)


# ---- what is written is read back


@pytest.mark.filterwarnings("ignore:Use `@` matmul:PendingDeprecationWarning")  # rioxarray 0.19 with affine 3
@pytest.mark.parametrize("chunks", [None, {"y": 30, "x": 41}])
def test_round_trip(tmp_path, chunks):
    maps = make_maps()
    path = smgrid.write_geotiff(maps.chunk(chunks) if chunks else maps, tmp_path / "yanco.tif")
    assert path == tmp_path / "yanco.tif"
    with rioxarray.open_rasterio(path) as back:
        assert back.dtype == "float32" and back.attrs["long_name"] == ("soil_moisture", "status", "culprit")
        for band, layer in zip(back.values, maps.data_vars.values()):
            np.testing.assert_array_equal(band, layer.values)
        assert back.rio.crs.to_epsg() == 6933
        assert np.abs(np.subtract(back.rio.transform(), smgrid.YANCO.transform)).max() < 1e-6
        assert Grid.of(back) == smgrid.YANCO
        assert np.isnan(back.rio.nodata)


def test_what_the_file_says_of_itself(tmp_path):
    maps = make_maps(times=DATES).isel(time=1)
    with rasterio.open(smgrid.write_geotiff(maps, tmp_path / "yanco.tif")) as raster:
        assert raster.crs == rasterio.CRS.from_epsg(6933)
        assert raster.transform == smgrid.YANCO.transform
        assert raster.descriptions == ("soil_moisture", "status", "culprit")
        assert raster.units == ("m3 m-3", None, None)
        assert raster.compression.name == "deflate" and raster.tags(ns="IMAGE_STRUCTURE")["PREDICTOR"] == "3"
        tags = raster.tags()
        assert tags.pop("AREA_OR_POINT") == "Area"
        assert tags == {
            "source": "synthetic",
            "model_digest": "4f1c",
            "title": "a synthetic map",
            "time": "2015-05-17",
            "TIFFTAG_DATETIME": "2015:05:17 00:00:00",
            "TIFFTAG_SOFTWARE": f"smgrid {smgrid.__version__}",
            "TIFFTAG_IMAGEDESCRIPTION": "a synthetic map",
        }
        assert raster.tags(1) == VALUES
        assert raster.tags(2) == {"flag_values": "0 1 2 3 4", "flag_meanings": FLAGS["flag_meanings"]}


def test_one_layer_and_flags_alone(tmp_path):
    maps = make_maps()
    with rasterio.open(smgrid.write_geotiff(maps.soil_moisture, tmp_path / "soil.tif")) as raster:
        assert raster.count == 1 and raster.descriptions == ("soil_moisture",)
    with rasterio.open(smgrid.write_geotiff(maps[["status", "culprit"]], tmp_path / "flags.TIFF")) as raster:
        assert raster.dtypes == ("uint8", "uint8") and raster.nodata is None
        np.testing.assert_array_equal(raster.read(1), maps.status)


@pytest.mark.parametrize("dtype", ["bool", "i2", ">i2", "u4", "i8", "f2", ">f4", "f8"])
def test_no_number_is_bent(tmp_path, dtype):
    dtype = np.dtype(dtype)
    extremes = np.iinfo(dtype) if dtype.kind in "iu" else np.finfo(dtype) if dtype.kind == "f" else None
    choice = [extremes.min, 0, 1, extremes.max] if extremes else [False, True]
    field = np.random.default_rng(3).choice(np.array(choice, dtype), smgrid.YANCO.shape).astype(dtype)
    coords = smgrid.YANCO.coords()
    with rasterio.open(smgrid.write_geotiff(xr.DataArray(field, coords, ("y", "x")), tmp_path / "a.tif")) as raster:
        np.testing.assert_array_equal(raster.read(1).astype(dtype), field)


def test_another_grid(tmp_path):
    field = xr.DataArray(
        np.arange(12.0, dtype="f4").reshape(3, 4),
        {"y": -34.5 - 0.25 * np.arange(3), "x": 145.0 + 0.5 * np.arange(4), "spatial_ref": ((), 0, CRS(4326).to_cf())},
        ("y", "x"),
        "soil_moisture",
    )
    with rasterio.open(smgrid.write_geotiff(field, tmp_path / "degrees.tif")) as raster:
        assert raster.crs.to_epsg() == 4326
        assert raster.bounds == pytest.approx((144.75, -35.125, 146.75, -34.375), abs=1e-12)
        np.testing.assert_array_equal(raster.read(1), field)


# ---- overviews


@pytest.fixture(scope="module")
def big(tmp_path_factory):
    maps = make_maps(BIG).chunk(y=400, x=700)
    return maps.compute(), smgrid.write_geotiff(maps, tmp_path_factory.mktemp("big") / "big.tif")


def test_it_is_a_valid_cog(big):
    assert cog_validate(big[1], strict=True) == (True, [], [])
    with rasterio.open(big[1]) as raster:
        assert raster.block_shapes == [(512, 512)] * 3
        assert [raster.overviews(band) for band in (1, 2, 3)] == [[2, 4]] * 3


def test_values_are_averaged_without_the_missing(big):
    expected = big[0].soil_moisture.values
    for level in range(2):
        expected = halves(expected, mean).astype("f4")
        with rasterio.open(big[1], overview_level=level) as raster:
            np.testing.assert_allclose(raster.read(1), expected, rtol=3e-7)


@pytest.mark.parametrize("band, name", [(2, "status"), (3, "culprit")])
def test_flags_are_the_most_frequent(big, band, name):
    below = big[0][name].values
    for level in range(2):
        with rasterio.open(big[1], overview_level=level) as raster:
            found = raster.read(band).astype("u1")
        count = halves(below, votes)
        np.testing.assert_array_equal(
            np.take_along_axis(count, found[..., None].astype("i8"), -1)[..., 0], count.max(-1)
        )
        below = found


def test_any_size_has_overviews(tmp_path):
    maps = make_maps(Grid(1, 5003, 9001, 517, 1101))
    path = smgrid.write_geotiff(maps, tmp_path / "odd.tif")
    assert cog_validate(path, strict=True) == (True, [], [])
    with rasterio.open(path, overview_level=1) as raster:
        assert raster.shape == (130, 276)
        assert set(np.unique(raster.read(2))) <= {0, 1, 2}
        assert np.nanmax(raster.read(1)) < 1


# ---- the same work, the same bytes; each block once


@pytest.mark.parametrize("chunks", [{"y": (500, 24, 500)}, {"y": 333, "x": 1000}, {"y": 512, "x": 512}])
def test_bytes_do_not_depend_on_chunks(big, tmp_path, chunks):
    path = smgrid.write_geotiff(big[0].chunk(chunks), tmp_path / "again.tif")
    assert sha256(path) == sha256(big[1])


@pytest.mark.parametrize("scheduler", ["synchronous", "threads"])
def test_bytes_do_not_depend_on_threads(big, tmp_path, scheduler):
    with dask.config.set(scheduler=scheduler, num_workers=3):
        path = smgrid.write_geotiff(big[0].chunk(y=400), tmp_path / "again.tif")
    assert sha256(path) == sha256(big[1])


def test_each_block_is_computed_once(tmp_path):
    maps = make_maps(times=DATES)
    seen = []

    def count(block, block_info=None):
        seen.append(tuple(map(tuple, block_info[None]["array-location"])))
        return block

    soil = maps.soil_moisture.chunk(time=2, y=30, x=40)
    counted = da.map_blocks(count, soil.data, dtype="f4", meta=np.empty((0, 0, 0), "f4"))
    soil = soil.copy(data=counted)
    both = xr.Dataset({"soil_moisture": soil, "status": soil.isnull().astype("u1")})
    smgrid.write_geotiff(both, tmp_path / "yanco.tif")
    assert len(seen) == len(set(seen)) == 2 * 3 * 2


def test_a_map_larger_than_the_bound_on_memory(tmp_path):
    code = f"""
        import resource, dask, dask.array as da, numpy as np, rasterio, rioxarray, xarray as xr, smgrid
        grid = smgrid.Grid(1, 2000, 9000, 6000, 6000)
        def make(ones, block_info=None):
            (r0, r1), (c0, c1) = block_info[None]["array-location"]
            return np.add(*np.ogrid[r0:r1, c0:c1]).astype("f4")
        ones = da.ones(grid.shape, chunks=(500, 750), dtype="u1")
        field = da.map_blocks(make, ones, dtype="f4", meta=np.empty((0, 0), "f4"))
        maps = xr.Dataset({{"soil_moisture": (("y", "x"), field)}}, grid.coords())
        smgrid.write_geotiff(maps.isel(y=slice(0, 600), x=slice(0, 600)), r"{tmp_path}/warm.tif")
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with dask.config.set(num_workers=2):
            smgrid.write_geotiff(maps, r"{tmp_path}/big.tif")
        print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 100  # MB; the map has 144, the scratch raster as much again
    with rasterio.open(tmp_path / "big.tif") as raster:
        corner = raster.read(1, window=((5900, 6000), (5900, 6000)))
    np.testing.assert_array_equal(corner, np.add(*np.ogrid[5900:6000, 5900:6000]))


# ---- several files


def test_a_file_for_every_date(tmp_path):
    maps = make_maps(times=DATES)
    paths = smgrid.write_geotiff(maps.chunk(time=2, y=50), tmp_path / "yanco.tif")
    assert [p.name for p in paths] == ["yanco_20150505.tif", "yanco_20150517.tif", "yanco_20150908.tif"]
    assert sorted(tmp_path.iterdir()) == paths
    for i, path in enumerate(paths):
        alone = smgrid.write_geotiff(maps.isel(time=i), tmp_path / "alone.tif")
        assert sha256(alone) == sha256(path)
    assert smgrid.write_geotiff(maps.isel(time=[0]), tmp_path / "one.tif") == tmp_path / "one.tif"


def test_other_dims_are_named(tmp_path):
    maps = make_maps(times=DATES[:2])
    members = xr.concat([maps, maps + 0], xr.Variable("member", ["a/b", "c"]), join="exact").transpose(
        "time", "member", ...
    )
    paths = smgrid.write_geotiff(members, tmp_path / "m.tif")
    days = ("20150505", "20150517")
    assert [p.name for p in paths] == [f"m_{day}_member-{name}.tif" for day in days for name in ("a-b", "c")]
    with rasterio.open(paths[2]) as raster:
        assert raster.tags()["member"] == "a/b"
        np.testing.assert_array_equal(raster.read(1), maps.soil_moisture[1])


def test_a_static_layer_goes_into_every_file(tmp_path):
    maps = make_maps(times=DATES[:2])
    maps["forest"] = maps.status[0] == 1
    for path in smgrid.write_geotiff(maps, tmp_path / "m.tif"):
        with rasterio.open(path) as raster:
            np.testing.assert_array_equal(raster.read(4), maps.forest)


# ---- failures


def failing_at(maps, row, error):
    def fail(block, block_info=None):
        if block_info[None]["array-location"][-2][0] == row:
            raise error
        return block

    soil = maps.soil_moisture.chunk(y=20)
    broken = da.map_blocks(fail, soil.data, dtype="f4", meta=np.empty((0,) * soil.ndim, "f4"))
    return maps.assign(soil_moisture=soil.copy(data=broken))


@pytest.mark.parametrize("error", [RuntimeError("no luck"), KeyboardInterrupt()])
@pytest.mark.parametrize("times", [None, DATES])
def test_a_failing_block_leaves_the_old_files(tmp_path, error, times):
    maps = make_maps(times=times)
    old = smgrid.write_geotiff(maps, tmp_path / "yanco.tif")
    before = {path: sha256(path) for path in tmp_path.iterdir()}
    with dask.config.set(scheduler="synchronous"), pytest.raises(type(error)):
        smgrid.write_geotiff(failing_at(maps + 1, 60, error), tmp_path / "yanco.tif")
    assert {path: sha256(path) for path in tmp_path.iterdir()} == before
    assert old


def test_a_failure_at_the_last_date_leaves_the_old_files(tmp_path, monkeypatch):
    maps = make_maps(times=DATES)
    smgrid.write_geotiff(maps, tmp_path / "yanco.tif")
    before = {path: sha256(path) for path in tmp_path.iterdir()}
    copies = []

    def copy(stack, target, frame, real=geotiff._copy):
        copies.append(target)
        if len(copies) == 3:
            raise rasterio.errors.RasterioIOError("Write error at scanline 0")
        real(stack, target, frame)

    monkeypatch.setattr(geotiff, "_copy", copy)
    with pytest.raises(OSError, match=r"could not be written \(Write error.*MB are free; old files are kept"):
        smgrid.write_geotiff(make_maps(times=DATES, seed=1), tmp_path / "yanco.tif")
    assert {path: sha256(path) for path in tmp_path.iterdir()} == before


def test_wrong_values_on_disk_are_found(tmp_path, monkeypatch):
    def spoil(maps, frame, scratch, real=geotiff._add_overviews):
        real(maps, frame, scratch)
        with rasterio.open(scratch / "0.tif", "r+") as raster:
            raster.write(np.zeros((1, 1), "f4"), 1, window=((40, 41), (7, 8)))

    monkeypatch.setattr(geotiff, "_add_overviews", spoil)
    with pytest.raises(OSError, match=r"not what was written \(other values in rows \(30, 60\), columns \(0, 75\)"):
        smgrid.write_geotiff(make_maps().chunk(y=30), tmp_path / "yanco.tif")
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_said_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setattr(geotiff.shutil, "disk_usage", lambda _: SimpleNamespace(free=10_000))
    with pytest.raises(OSError, match=r"5e-05 GB are needed for the work and 1e-05 GB are free"):
        smgrid.write_geotiff(failing_at(make_maps(), 0, AssertionError("work")), tmp_path / "yanco.tif")


@pytest.mark.parametrize(
    "name, error, message",
    [
        ("yanco.nc", ValueError, r"ends in .tif or .tiff, not 'yanco.nc': 'yanco.tif'\?"),
        ("yanco", ValueError, r"'yanco.tif'\?"),
        ("s3://bucket/yanco.tif", ValueError, r"'s3://bucket/yanco.tif' is not on a local file system.*copy it there"),
        ("/vsis3/bucket/yanco.tif", ValueError, "not on a local file system"),
        ("nowhere/yanco.tif", FileNotFoundError, "the folder does not exist, make it first: 'nowhere'"),
        ("folder.tif", IsADirectoryError, "a folder has the name"),
    ],
)
def test_a_bad_path_is_refused(tmp_path, monkeypatch, name, error, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.tif").mkdir()
    with pytest.raises(error, match=message):
        smgrid.write_geotiff(make_maps(), name)


@pytest.mark.parametrize(
    "spoil, error, message",
    [
        (lambda m: m.values, TypeError, "Dataset or DataArray, not"),
        (lambda m: m[[]], ValueError, "no layers"),
        (lambda m: m.assign(level=0.9), ValueError, r"\['level'\] have no dims y and x.*drop_vars\(\['level'\]\)"),
        (lambda m: m.assign(status=m.status.astype(str)), ValueError, "'status' is <U3, which a GeoTIFF cannot hold"),
        (lambda m: m.isel(x=slice(0)), ValueError, r"nothing to write: the dims \['x'\]"),
        (lambda m: m.drop_vars("spatial_ref"), ValueError, r"no CRS.*write_crs\('EPSG:6933'\)"),
        (lambda m: m.assign_coords(x=m.x + 500.4), ValueError, "columns off the grid"),
        (
            lambda m: m.assign_coords(spatial_ref=((), 0, CRS(32755).to_cf())).isel(y=[0, 1, 3]),
            ValueError,
            "not regular",
        ),
        (lambda m: m.assign_coords(spatial_ref=((), 0, CRS(32755).to_cf())).isel(y=[0]), ValueError, "at least two"),
        (
            lambda m: m.assign_coords(spatial_ref=((), 0, CRS(32755).to_cf())).isel(y=slice(None, None, -1)),
            ValueError,
            r"y ascends.*obj.sortby\('y', ascending=False\)",
        ),
        (lambda m: m.expand_dims(time=DATES[[0, 0]]), ValueError, r"several maps would go to 'yanco_20150505.tif'"),
        (lambda m: m.expand_dims(time=np.array(["NaT"] * 2, "M8[ns]")), ValueError, "no date at position 0"),
    ],
)
def test_bad_maps_are_refused(tmp_path, spoil, error, message):
    with pytest.raises(error, match=message):
        smgrid.write_geotiff(spoil(make_maps()), tmp_path / "yanco.tif")
    assert not list(tmp_path.iterdir())


def test_maps_are_left_as_they_were(tmp_path, caplog):
    maps = make_maps(times=DATES).chunk(y=30).reset_coords("spatial_ref")
    before = maps.copy(deep=True)
    with caplog.at_level(logging.INFO, "smgrid"):
        smgrid.write_geotiff(maps, tmp_path / "yanco.tif")
    xr.testing.assert_identical(maps, before)
    assert list(maps.data_vars) == list(before.data_vars) and maps.chunksizes == before.chunksizes
    assert "wrote 3 GeoTIFF of 84 x 75 cells, 3 layers" in caplog.text


def test_hostile_names_and_attributes(tmp_path):
    maps = make_maps().rename(status='</VRT>"&\x00').assign_attrs({"a=b": "x\x07=<&>é", "nested": {"k": [1, 2]}})
    with rasterio.open(smgrid.write_geotiff(maps, tmp_path / "yanco.tif")) as raster:
        assert raster.descriptions[1] == '</VRT>"&'
        assert raster.tags()["a_b"] == "x=<&>é" and raster.tags()["nested"] == '{"k": [1, 2]}'


@pytest.mark.parametrize(
    "shape, levels", [((100, 1100), []), ((254, 1100), []), ((1100, 255), [2]), ((600, 1100), [2, 4])]
)
def test_long_maps_have_the_overviews_that_they_are_wide_enough_for(tmp_path, shape, levels):
    grid = Grid(1, 2000, 2000, *shape)
    values = np.random.default_rng(0).random(shape).astype("f4")
    maps = xr.Dataset({"soil_moisture": (("y", "x"), values)}, coords=grid.coords())
    with rasterio.open(geotiff.write_geotiff(maps, tmp_path / "long.tif")) as raster:
        assert raster.overviews(1) == levels
        np.testing.assert_array_equal(raster.read(1), values)
