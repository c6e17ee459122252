import zipfile

import dask
import numpy as np
import pytest
import xarray as xr
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import Geod
from rasters import PLACE, plain, truncate, write

from smgrid.sources import dem

EIGHT = [(slope, bearing) for slope in (2.0, 30.0) for bearing in range(0, 360, 45)]


def tilted(slope, bearing, east, north):
    """A plane that falls towards a bearing (degrees clockwise from north); east and north in metres."""
    fall = np.tan(np.radians(slope))
    return 1000 - fall * (east * np.sin(np.radians(bearing)) + north * np.cos(np.radians(bearing)))


def hgt(path, values):
    path.write_bytes(np.asarray(values, ">i2").tobytes())
    return path


# ---- planes, whose slope and aspect are known


@pytest.mark.parametrize("slope, bearing", EIGHT)
def test_a_plane_in_metres(tmp_path, slope, bearing):
    north, east = np.mgrid[0:-12:-1, 0:15:1] * 10.0
    path = write(tmp_path / "plane.tif", tilted(slope, bearing, east, north))
    found = dem.open(path)
    np.testing.assert_allclose(found.slope, slope, rtol=1e-6)
    np.testing.assert_allclose(found.aspect_sin, np.sin(np.radians(bearing)), atol=1e-6)
    np.testing.assert_allclose(found.aspect_cos, np.cos(np.radians(bearing)), atol=1e-6)


@pytest.mark.parametrize("slope, bearing", EIGHT)
@pytest.mark.parametrize("latitude", [-34.5, 0.0, 65.0])
def test_a_plane_in_degrees(tmp_path, slope, bearing, latitude):
    size, geod = 1 / 3600, Geod(ellps="WGS84")
    rows, cols = np.mgrid[0:12, 0:15].astype("f8")
    middle = latitude - 6 * size
    east = geod.inv(146, middle, 146 + 1e-3, middle)[2] / 1e-3 * size
    north = geod.inv(146, middle - 5e-4, 146, middle + 5e-4)[2] / 1e-3 * size
    path = write(
        tmp_path / "plane.tif", tilted(slope, bearing, cols * east, -rows * north), "EPSG:4326",
        corner=(146, latitude), size=size,
    )  # fmt: skip
    found = dem.open(path)
    np.testing.assert_allclose(found.slope, slope, rtol=1e-4)  # the width of a pixel changes a little over 12 rows
    np.testing.assert_allclose(found.aspect_sin, np.sin(np.radians(bearing)), atol=1e-4)
    np.testing.assert_allclose(found.aspect_cos, np.cos(np.radians(bearing)), atol=1e-4)


@pytest.mark.parametrize("crs", ["EPSG:3857", "EPSG:6933", "+proj=sinu +R=6371007.181 +units=m", "EPSG:3577"])
def test_metres_that_are_none_are_made_true(tmp_path, crs):
    """The same hillside, drawn in another projection, has the same slopes and the same north."""
    from pyproj import CRS, Transformer

    geographic = CRS.from_user_input(crs).geodetic_crs
    forth = Transformer.from_crs(geographic, crs, always_xy=True)
    left, top = forth.transform(146.1, -34.6)
    north, east = np.mgrid[0:-140:-1, 0:150:1] * 30.0
    lon, lat = forth.transform(left + east, top + north, direction="INVERSE")
    sphere = geographic.ellipsoid
    metres = np.radians(sphere.semi_major_metre)  # a degree, near enough to compare within 0.5 %
    z = tilted(5, 60, (lon - 146.1) * metres * np.cos(np.radians(lat[70, 75])), (lat + 34.6) * metres)
    found = dem.open(write(tmp_path / "hill.tif", z, crs, corner=(left - 15, top + 15), size=30.0))
    middle = found.isel(y=slice(60, 80), x=slice(65, 85))
    np.testing.assert_allclose(middle.slope, 5, rtol=5e-3)
    np.testing.assert_allclose(middle.aspect_sin, np.sin(np.radians(60)), atol=5e-3)
    np.testing.assert_allclose(middle.aspect_cos, np.cos(np.radians(60)), atol=5e-3)


# ---- real and written files


def test_the_real_file_against_plain_numpy(shared, no_compute):
    path = shared / "dem" / "dem.tif"
    found = dem.open(path)
    assert found.elevation.attrs["native_resolution"] == "0.000833333 degree"
    z = plain(path)[0]
    with dask.config.set(scheduler="sync"):
        np.testing.assert_array_equal(found.elevation, z.astype("f4"))
        lat = np.radians(found.y.values)[:, None]
        a, e2 = 6378137.0, 0.00669437999014
        w = np.sqrt(1 - e2 * np.sin(lat) ** 2)
        size = np.radians(0.0008333333333333)
        east = np.gradient(z, axis=1) / (a / w * np.cos(lat) * size)  # uphill; one-sided at the edges
        north = -np.gradient(z, axis=0) / (a * (1 - e2) / w**3 * size)
        slope = np.degrees(np.arctan(np.hypot(east, north)))
        np.testing.assert_allclose(found.slope, slope, atol=1e-5)
        bearing = np.degrees(np.arctan2(-east, -north))
        flat = slope == 0
        assert flat.sum() > 1000  # whole metres make steps
        np.testing.assert_array_equal(np.isnan(found.aspect_sin), flat)
        ours = np.degrees(np.arctan2(found.aspect_sin, found.aspect_cos).values)
        assert np.abs((ours - bearing + 180) % 360 - 180)[~flat].max() < 1e-4


@pytest.mark.parametrize("name, n", [("S35E146.hgt", 1201), ("N34W120.SRTMGL1.hgt", 3601)])
def test_srtm_tiles(tmp_path, name, n):
    rows, cols = np.mgrid[0:n, 0:n]
    z = (rows + 2 * cols) % 1000
    z[3, 5] = -32768
    found = dem.open(hgt(tmp_path / name, z)).isel(y=slice(0, 40), x=slice(0, 40))
    south, west = (-35, 146) if n == 1201 else (34, -120)
    assert found.y.values[0] == pytest.approx(south + 1, abs=1e-12)  # the first sample lies on the corner
    assert found.x.values[0] == pytest.approx(west, abs=1e-12)
    assert np.isnan(found.elevation[3, 5]) and found.elevation.attrs["product"] == "SRTM"
    expected = np.where(z == -32768, np.nan, z)[:40, :40]
    np.testing.assert_array_equal(found.elevation, expected.astype("f4"))


def test_a_zipped_tile(tmp_path):
    hgt(tmp_path / "S35E146.hgt", np.full((1201, 1201), 130))
    with zipfile.ZipFile(tmp_path / "S35E146.SRTMGL3.hgt.zip", "w", zipfile.ZIP_DEFLATED) as out:
        out.write(tmp_path / "S35E146.hgt", "S35E146.hgt")
    found = dem.open(tmp_path / "S35E146.SRTMGL3.hgt.zip")
    assert (found.elevation[590:, 600] == 130).all() and found.x.values[0] == pytest.approx(146)


def test_no_seam_between_tiles(tmp_path):
    """Two tiles share a row of samples; slopes are those of the whole."""
    rng = np.random.default_rng(0)
    z = rng.normal(200, 5, (20, 31)).astype("f4")
    left, top, size = PLACE["EPSG:32755"]
    whole = dem.open(write(tmp_path / "whole.tif", z)).compute()
    parts = [
        write(tmp_path / "a.tif", z[:, :16]),
        write(tmp_path / "b.tif", z[:, 15:], corner=(left + 15 * size, top)),
    ]
    for order in (parts, parts[::-1]):
        xr.testing.assert_allclose(dem.open(order).drop_attrs(), whole.drop_attrs(), rtol=0, atol=0)
    assert dem.open(parts).slope.attrs["source_files"] == "a.tif,b.tif"


# ---- laws


@settings(max_examples=10)
@given(rows=st.integers(3, 20), cols=st.integers(5, 30), seed=st.integers(0, 9), crs=st.sampled_from(sorted(PLACE)))
def test_chunks_do_not_matter(tmp_path_factory, rows, cols, seed, crs):
    rng = np.random.default_rng(seed)
    z = rng.normal(300, 20, (20, 30)).astype("f4")
    z[rng.random(z.shape) < 0.2] = np.nan
    path = write(tmp_path_factory.mktemp("dem") / "dem.tif", z, crs, nodata=np.nan)
    whole, real = dem.open(path).compute(), dem.open_raster
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dem, "open_raster", lambda *a, **k: real(*a, **k).chunk(y=rows, x=cols))
        xr.testing.assert_identical(dem.open(path).compute(), whole)


def test_voids_cost_no_more_than_themselves(tmp_path):
    north, east = np.mgrid[0:-9:-1, 0:9:1] * 10.0
    z = tilted(10, 200, east, north)
    z[4, 4], z[0, 0], z[6, 2] = np.nan, -9999, 32767  # declared and not
    found = dem.open(write(tmp_path / "holes.tif", z, nodata=np.nan)).compute()
    missing = np.zeros((9, 9), bool)
    missing[4, 4] = missing[0, 0] = missing[6, 2] = True
    sin, cos = np.sin(np.radians(200)), np.cos(np.radians(200))
    for name, value in [("slope", 10), ("aspect_sin", sin), ("aspect_cos", cos)]:
        np.testing.assert_array_equal(np.isnan(found[name]), missing)
        np.testing.assert_allclose(found[name].values[~missing], value, rtol=1e-6)


def test_flat_land_has_a_slope_but_no_aspect(tmp_path):
    found = dem.open(write(tmp_path / "flat.tif", np.full((5, 5), 120, "i2")))
    assert (found.slope == 0).all() and np.isnan(found.aspect_sin).all() and np.isnan(found.aspect_cos).all()


def test_means_of_unit_vectors_meet_across_north(tmp_path):
    """Half falls towards 359, half towards 1 degree: the mean direction is north, not south."""
    north, east = np.mgrid[0:-6:-1, 0:6:1] * 10.0
    means = [dem.open(write(tmp_path / f"{b}.tif", tilted(5, b, east, north))).mean() for b in (359, 1)]
    sin, cos = (sum(float(m[name]) for m in means) / 2 for name in ("aspect_sin", "aspect_cos"))
    assert np.degrees(np.arctan2(sin, cos)) == pytest.approx(0, abs=1e-3) and cos > 0.99


def test_rows_from_the_south_are_turned(tmp_path):
    north, east = np.mgrid[0:-9:-1, 0:9:1] * 10.0
    z = tilted(10, 200, east, north)
    up = dem.open(write(tmp_path / "up.tif", z)).compute()
    left, top, size = PLACE["EPSG:32755"]
    path = write(tmp_path / "down.tif", z[::-1], transform=Affine(size, 0, left, 0, size, top - 9 * size))
    for name in up:
        np.testing.assert_allclose(dem.open(path)[name], up[name], rtol=1e-6)


def test_feet_are_no_metres(tmp_path):
    import rasterio

    path = write(tmp_path / "feet.tif", np.full((4, 4), 300.0))
    with rasterio.open(path, "r+") as out:
        out.units = ["ft"]
    with pytest.raises(ValueError, match=r"feet.tif: elevation is in 'ft'"):
        dem.open(path)


def test_what_is_wrong_is_said(tmp_path):
    short = tmp_path / "S35E146.hgt"
    short.write_bytes(b"\0" * 1000)
    with pytest.raises(ValueError, match=r"S35E146.hgt is damaged: it has 1000 bytes, an SRTM tile has 2884802"):
        dem.open(short)
    with pytest.raises(ValueError, match=r"the name of an SRTM tile says where it lies"):
        dem.open(hgt(tmp_path / "tile.hgt", np.zeros((1201, 1201))))
    two = write(tmp_path / "two.tif", np.zeros((2, 4, 4)), names=["a", "b"])
    with pytest.raises(ValueError, match=r"two.tif has 2 bands \['a', 'b'\], and not one"):
        dem.open(two)
    bare = write(tmp_path / "bare.tif", np.zeros((4, 4)), None)
    with pytest.raises(ValueError, match=r"bare.tif has no CRS"):
        dem.open(bare)
    assert dem.open(bare, crs="EPSG:32755").slope.max() == 0
    cut = truncate(write(tmp_path / "cut.tif", np.random.default_rng(0).normal(size=(300, 300))), 0.5)
    with pytest.raises(ValueError, match=r"cut.tif"):
        dem.open(cut).compute()


def test_one_band_among_many_is_found_by_name(tmp_path):
    path = write(tmp_path / "stack.tif", np.stack([np.full((4, 4), 7.0), np.full((4, 4), 150.0)]), names=["TWI", "DEM"])
    assert (dem.open(path).elevation == 150).all()
