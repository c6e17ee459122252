"""Rasters askew to the grid, against polygons and against GDAL; laws that must hold for them too."""

import dask.array
import numpy as np
import pytest
import shapely
import xarray as xr
from pyproj import CRS, Transformer

import smgrid.coarse
import smgrid.regrid
from smgrid.grid import Grid
from smgrid.identity import block_identities
from smgrid.mesh import Mesh
from smgrid.overlap import askew
from smgrid.regrid import carry, to_grid

pytestmark = pytest.mark.filterwarnings("ignore:Use `@` matmul:PendingDeprecationWarning")  # rioxarray, of affine

SINUSOIDAL = "+proj=sinu +R=6371007.181"  # MODIS
HOMOLOSINE = "+proj=igh +ellps=WGS84"  # SoilGrids
UTM55 = 32755  # its axis is 147 E


def scene(ny, nx, missing=0.3, seed=0):
    """A synthetic field of blobs small and large, with gaps."""
    rng = np.random.default_rng(seed)
    image = 300 + 20 * rng.random((ny, nx))
    for size, height in ((9, 30), (64, 60)):
        image += height * np.kron(rng.random((-(-ny // size), -(-nx // size))), np.ones((size, size)))[:ny, :nx]
    image[rng.random((ny, nx)) < missing] = np.nan
    return image.astype("f4")


def raster(crs, lon, lat, step, ny, nx, image=None, **kwargs):
    """A raster whose middle is at a place, to the nearest pixel."""
    crs = CRS.from_user_input(crs)
    x0, y0 = Transformer.from_crs(4326, crs, always_xy=True).transform(lon, lat)
    y = (round(y0 / step) + ny // 2 - np.arange(ny) - 0.5) * step
    x = (round(x0 / step) - nx // 2 + np.arange(nx) + 0.5) * step
    image = scene(ny, nx, **kwargs) if image is None else image
    return xr.DataArray(image, coords={"y": y, "x": x, "spatial_ref": ((), 0, crs.to_cf())}, dims=("y", "x"), name="z")


def around(lon, lat, ny=5, nx=5, km=1):
    row, col = (int(i) for i in Grid.whole(km).index(lon, lat))
    return Grid(km, row - ny // 2, col - nx // 2, ny, nx)


def midway(centres):
    middle = (centres[1:] + centres[:-1]) / 2
    return np.r_[2 * centres[0] - middle[0], middle, 2 * centres[-1] - middle[-1]]


def polygons(field, grid):
    """For each cell: numbers of the pixels that touch it, and the areas (in cells) that they share with it."""
    crs = CRS.from_wkt(field.spatial_ref.attrs["crs_wkt"])
    x, y = np.meshgrid(midway(field.x.values), midway(field.y.values))
    x, y = Transformer.from_crs(crs, 6933, always_xy=True).transform(x, y)
    west, _, _, north = grid.bounds
    u, v = (x - west) / grid.cell, (north - y) / grid.cell
    corners = (np.s_[:-1, :-1], np.s_[:-1, 1:], np.s_[1:, 1:], np.s_[1:, :-1])
    pixels = shapely.polygons(np.stack([[u[k], v[k]] for k in corners]).transpose(2, 3, 0, 1).reshape(-1, 4, 2))
    tree = shapely.STRtree(pixels)
    for row, col in np.ndindex(grid.shape):
        cell = shapely.box(col, row, col + 1, row + 1)
        at = np.sort(tree.query(cell))
        yield at, shapely.area(shapely.intersection(pixels[at], cell))


def polygon_mean(field, grid, least=0.5):
    out = []
    for at, area in polygons(field, grid):
        value = field.values.ravel()[at].astype("f8")
        known = np.isfinite(value)
        enough = area[known].sum() >= least
        out.append((area[known] * value[known]).sum() / area[known].sum() if enough else np.nan)
    return np.reshape(out, grid.shape)


def in_double(field, grid, how="mean", min_coverage=0.5):
    """The arithmetic before it is rounded to float32."""
    mesh = Mesh.of(field, askew(field), grid)
    return carry(field, grid, mesh, how=how, min_coverage=min_coverage, dtype="float64")


def gdal_mean(field, grid):
    from rasterio.transform import Affine
    from rasterio.warp import Resampling, reproject

    out = np.full(grid.shape, np.nan, "f4")
    x, y = midway(field.x.values), midway(field.y.values)
    reproject(
        field.values,
        out,
        src_transform=Affine(x[1] - x[0], 0, x[0], 0, y[1] - y[0], y[0]),
        src_crs=field.spatial_ref.attrs["crs_wkt"],
        src_nodata=np.nan,
        dst_transform=grid.transform,
        dst_crs="EPSG:6933",
        dst_nodata=np.nan,
        resampling=Resampling.average,
    )
    return out


# ---- coarse pixels: exact

COARSE = {
    "MODIS, 250 m": (SINUSOIDAL, 146, -34.7, 231.65635826385406, 40, 40),
    "MODIS, 500 m": (SINUSOIDAL, -120, 61, 463.3127165277081, 24, 24),
    "SoilGrids, 250 m": (HOMOLOSINE, 146, -34.7, 250, 40, 40),
    "UTM, 100 m": (UTM55, 144, -60, 100, 120, 90),
    "UTM, 1 km": (UTM55, 148, -34.7, 1000, 12, 12),
    "Lambert conformal, 5 km": ("+proj=lcc +lat_1=30 +lat_2=50 +lat_0=40 +lon_0=-97", -92, 43, 5000, 8, 8),
    "polar stereographic, 25 km": (3413, 20, 70, 25000, 4, 4),
    "New Zealand, 200 m": (2193, 172, -43, 200, 60, 60),
    "degrees on NAD 27": (4267, -100, 40, 0.002, 40, 40),
}


@pytest.mark.parametrize("name", COARSE)
def test_coarse_pixels_are_weighed_as_polygons(name):
    field = raster(*COARSE[name], missing=0.1 if COARSE[name][3] > 900 else 0.3)
    grid = around(*COARSE[name][1:3])
    for turned in (field, field[::-1, ::-1]):
        expected = polygon_mean(turned, grid)
        found = in_double(turned, grid)
        assert np.isfinite(expected).sum() > 12
        np.testing.assert_allclose(found, expected, rtol=1e-9)
    assert to_grid(field, grid).dtype == "float32"
    np.testing.assert_array_equal(to_grid(field, grid), in_double(field, grid).astype("f4"))


def test_the_integral_is_conserved():
    """All that is not zero lies inside the grid, so nothing may be lost or made."""
    for step, n, rtol in ((250.0, 80, 1e-11), (20.0, 900, 2e-5)):
        field = raster(UTM55, 144, -34.7, step, n, n)
        rim = np.zeros((n, n), bool)
        rim[n // 4 : -n // 4, n // 4 : -n // 4] = True
        field = field.where(rim, 0.0)
        grid = around(144, -34.7, 20, 20)
        mean, share = in_double(field, grid, min_coverage=0), in_double(field.notnull(), grid)
        mesh = Mesh.of(field, askew(field), grid)
        v, u = mesh.forth(np.arange(n + 1)[:, None], np.arange(n + 1)[None])
        (v1, u1), (v2, u2) = ((z[1:, 1:] - z[:-1, :-1] for z in (v, u)), (z[1:, :-1] - z[:-1, 1:] for z in (v, u)))
        inside = (field.fillna(0).values * np.abs(v1 * u2 - v2 * u1) / 2).sum()
        assert (mean * share).sum().item() == pytest.approx(inside, rel=rtol)


# ---- small pixels: near exact


PLACES = [(147, -34.7), (146, -34.7), (144, -60), (144, -5), (149.9, -79)]


@pytest.mark.parametrize("lon, lat, step", [*((*place, 10) for place in PLACES), (147, -34.7, 20), (147, -34.7, 50)])
def test_small_pixels_are_near_their_polygons(lon, lat, step):
    grid = around(lon, lat, 3, 3)
    field = raster(UTM55, lon, lat, step, (9000 if abs(lat) > 50 else 4500) // step, 4500 // step)
    assert Mesh.of(field, askew(field), grid).is_fine
    expected, found = polygon_mean(field, grid, 0.1), in_double(field, grid, min_coverage=0.1).values
    assert np.isfinite(expected).sum() >= 3
    error = np.sqrt(np.nanmean((found - expected) ** 2))
    assert error <= 1e-3 * 20  # the spread between cells of a real scene is 13 to 27 of these units
    if lon != 147 and abs(lat) > 30 and step < 50:
        theirs = gdal_mean(field, grid)
        assert np.sqrt(np.nanmean((theirs - expected) ** 2)) >= 10 * error


def test_a_whole_cell_is_whole():
    """Lines add up to a cell's area but for some 1e-4, which coverage must not feel."""
    field = raster(UTM55, 146, -34.7, 20, 400, 400, missing=0)
    grid = around(146, -34.7, 3, 3)
    assert np.isfinite(to_grid(field, grid, min_coverage=1)).all()
    one = field.where((field.x != field.x[200]) | (field.y != field.y[200]))
    assert np.isnan(to_grid(one, grid, min_coverage=1)).sum() == 1
    assert (in_double(field.notnull(), grid) == 1).all()
    np.testing.assert_allclose(in_double(one.notnull(), grid).min(), 1 - (20 / 1000.9) ** 2, atol=1e-5)


@pytest.mark.parametrize("step", [20, 250])
@pytest.mark.parametrize("value", [np.inf, -np.inf])
def test_infinite_values_spoil_none_but_their_own_cells(step, value):
    n = 6000 // step
    field = raster(UTM55, 146, -34.7, step, n, n)
    grid = around(146, -34.7, 3, 3)
    spoiled = field.copy()
    spoiled[n // 2, n // 2] = value
    plain, found = to_grid(field, grid).values, to_grid(spoiled, grid).values
    hit = np.isinf(found)
    assert 1 <= hit.sum() <= 4 and (found[hit] == value).all()
    np.testing.assert_allclose(found[~hit], plain[~hit], rtol=1e-6)


def test_irregular_axes_are_clipped():
    field = raster(UTM55, 146, -34.7, 20, 300, 300)
    field["x"] = field.x + 4 * np.sin(np.arange(300))
    grid = around(146, -34.7, 3, 3)
    assert not Mesh.of(field, askew(field), grid).is_fine
    np.testing.assert_allclose(in_double(field, grid), polygon_mean(field, grid), rtol=1e-9)


# ---- laws


@pytest.mark.parametrize("how", ["mean", "mode", "nearest"])
@pytest.mark.parametrize("step", [40, 250])
def test_neither_chunks_nor_tiles_nor_windows_matter(how, step, no_compute, monkeypatch):
    n = 16000 // step
    images = np.stack([scene(n, n, seed=k).round(-2 if how == "mode" else 0) for k in range(2)]).reshape(2, 1, n, n)
    field = raster(UTM55, 145, -34.7, step, n, n).expand_dims(time=2, band=1).copy(data=images)
    grid = around(145, -34.7, 18, 20)
    whole = to_grid(field, grid, how=how)
    assert 0.2 < np.isfinite(whole).mean() < 1

    def lazily(**chunks):
        out = to_grid(field.chunk(chunks), grid, how=how)
        assert isinstance(out.data, dask.array.Array) and out.dtype == "float32"
        return out.data.compute(scheduler="synchronous")

    for chunks in ({}, {"y": 27, "x": 31}, {"y": (1, n - 2, 1), "time": 1}):
        np.testing.assert_array_equal(lazily(**chunks), whole)
    part = Grid(1, grid.row + 4, grid.col + 3, 7, 9)
    np.testing.assert_array_equal(to_grid(field, part, how=how), whole[..., 4:11, 3:12])
    for window in (60_000, 6000):
        monkeypatch.setattr(smgrid.regrid, "WINDOW", window * (8 if step == 250 else 1))
        np.testing.assert_array_equal(to_grid(field, grid, how=how), whole)
        np.testing.assert_array_equal(lazily(y=50, time=1), whole)


def test_windows_are_bounded(no_compute, monkeypatch):
    windows, window = [], smgrid.regrid._window

    def noting(*args):
        found = window(*args)
        windows.append(found.size)
        return found

    monkeypatch.setattr(smgrid.regrid, "_window", noting)
    for step, n, most, waste in ((10, 9000, 2**23, 1.6), (250, 4000, 2**20, 1.4)):
        windows.clear()
        pixels = dask.array.zeros((n, n), dtype="f4", chunks=4096)
        field = raster(UTM55 if step == 10 else SINUSOIDAL, 147, -34.7, step, n, n, image=pixels)
        out = to_grid(field, Grid.whole())
        assert max(windows) <= most and pixels.size <= sum(windows) < waste * pixels.size
        assert max(map(max, out.chunks)) <= 1024


@pytest.mark.parametrize("crs, step", [(UTM55, 25), (UTM55, 250), (4326, 0.002)])
def test_a_stopped_run_can_know_its_blocks_again(crs, step):
    field, grid = raster(crs, 146, -34.7, step, 90, 90), around(146, -34.7)
    (first,), (again,), (other,) = (
        block_identities(to_grid(f.chunk(x=40), grid).data).values() for f in (field, field.copy(), field + 1)
    )
    assert first == again != other


def test_a_dataset_and_its_attributes_are_carried():
    field = raster(UTM55, 146, -34.7, 100, 60, 60).assign_attrs(units="K", nodata=np.nan)
    grid = around(146, -34.7)
    ds = xr.Dataset({"a": field, "n": ("n", [1.0])}, attrs={"title": "t"})
    out = to_grid(ds, grid)
    assert set(out) == {"a"} and out.attrs == {"title": "t"} and Grid.of(out) == grid
    assert out.a.attrs == {"units": "K", "aggregation": "area-weighted mean"}
    xr.testing.assert_identical(out.a, to_grid(field, grid).rename("a"))
    xr.testing.assert_identical(to_grid(field.T, grid), to_grid(field, grid))


# ---- classes, and the nearest


@pytest.mark.parametrize("step, doubt", [(250, 1e-9), (20, 2e-3)])
def test_mode_is_the_largest_area(step, doubt):
    n = 8000 // step
    image = np.kron(np.random.default_rng(2).integers(1, 5, (n // 4, n // 4)), np.ones((4, 4))).astype("u1")
    field = raster(UTM55, 146, -34.7, step, n, n, image=image)
    grid = around(146, -34.7)
    out = to_grid(field, grid, how="mode").values.ravel()
    areas = np.array([[area[image.ravel()[at] == c].sum() for c in range(1, 5)] for at, area in polygons(field, grid)])
    clear = np.diff(np.sort(areas, axis=1), axis=1)[:, -1] > doubt
    assert clear.sum() > 15
    np.testing.assert_array_equal(out[clear], 1 + areas.argmax(axis=1)[clear])


@pytest.mark.parametrize("crs, step", [(UTM55, 20), (UTM55, 250), (SINUSOIDAL, 250), (HOMOLOSINE, 250)])
def test_nearest_is_the_pixel_at_the_centre(crs, step):
    n = 5000 // step
    field = raster(crs, 146, -34.7, step, n, n)
    grid = around(146, -34.7, 7, 7)
    x, y = Transformer.from_crs(6933, field.spatial_ref.attrs["crs_wkt"], always_xy=True).transform(
        *np.meshgrid(grid.x, grid.y)
    )
    x, y = (xr.DataArray(z, dims=("row", "col")) for z in (x, y))
    expected = field.sel(x=x, y=y, method="nearest")
    inside = (abs(x - field.x.mean()) < n * step / 2) & (abs(y - field.y.mean()) < n * step / 2)
    assert 0 < inside.sum() < 49
    np.testing.assert_array_equal(to_grid(field, grid, how="nearest"), expected.where(inside))


# ---- maps that are torn, and the seam of the globe


def test_across_an_interruption_each_place_counts_once():
    """The lobes meet at 20 W, here with 1200 km of nothing between them."""
    ny, nx, step = 30, 1200, 2500.0
    field = raster(HOMOLOSINE, -21, -30, step, ny, nx)
    x, y = np.meshgrid(field.x, field.y)
    lon, _ = Transformer.from_crs(HOMOLOSINE, 4326, always_xy=True).transform(x, y)
    there = np.isfinite(lon)
    assert 0.2 < there.mean() < 0.7
    field.values[:] = np.where(there, lon, np.nan)
    for step_aside in (1, -1):
        field = field.fillna(field.shift(x=step_aside))
    field = field.fillna(-999)  # what lies on no lobe holds rubbish
    grid = around(-20, -30, 20, 60)
    share = in_double(field * 0 + 1, grid, min_coverage=0)
    assert (share == 1).all()
    for how in ("mean", "nearest"):
        out = to_grid(field, grid, how=how, min_coverage=0.999)
        np.testing.assert_allclose(out, np.broadcast_to(grid.lonlat()[0], grid.shape), atol=0.03)  # a pixel
    mesh = Mesh.of(field, askew(field), grid)
    window = mesh.windows(slice(0, 20), slice(0, 60), 10**9)
    ones = np.ones((window.rows.stop - window.rows.start, window.cols.stop - window.cols.start))
    known = smgrid.regrid._weigh(mesh, window).sums(ones)[1]
    assert not mesh.unbroken(window.rows, window.cols)
    np.testing.assert_allclose(known, 1, atol=2e-6)


def test_where_a_lobe_repeats_a_neighbours_land_it_does_not_count():
    """The western lobe goes on over Greenland, which the eastern one has too."""
    to_map = Transformer.from_crs(4326, HOMOLOSINE, always_xy=True).transform
    (west, y), (east, _) = to_map(-41, 70), to_map(-39, 70)
    step = 2000.0
    x = np.arange(west - 150e3, east + 150e3, step)
    y = y + step * (15.5 - np.arange(32))
    image = np.ones((32, x.size), "f4")
    image[:, (x > west + 60e3) & (x < east - 60e3)] = 999  # the repeated land, with something else on it
    field = xr.DataArray(image, coords={"y": y, "x": x}, dims=("y", "x"))
    field["spatial_ref"] = ((), 0, CRS.from_user_input(HOMOLOSINE).to_cf())
    assert (to_grid(field, around(-40, 70, 6, 40), min_coverage=0.999) == 1).all()


def test_beyond_the_limb_of_a_sinusoidal_map_is_nothing():
    step = 463.3127165277081
    field = raster(SINUSOIDAL, 179.9, 60, step, 60, 200)
    cx, cy = np.meshgrid(field.x, field.y)
    limb = Transformer.from_crs(4326, SINUSOIDAL, always_xy=True).transform(np.full(cy.shape, 180.0), cy / 111194.93)[0]
    field.values[:] = np.where(cx - 3 * step > limb, 999, 7)  # the limb runs over 2.7 pixels in a row
    whole = Grid.whole()
    row = around(179, 60).row
    east, west = Grid(1, row, whole.nx - 20, 5, 20), Grid(1, row, 0, 5, 20)
    assert (to_grid(field, east, min_coverage=0.999) == 7).all()
    with pytest.raises(ValueError, match="outside the field"):
        to_grid(field, west)


@pytest.mark.parametrize("step", [20, 250])
def test_the_seam_of_the_globe_may_run_through_a_raster(step):
    n = 12000 // step
    field = raster(32701, -180, -17, step, n, n, missing=0)  # zone 1: its western edge is the seam
    whole = Grid.whole()
    row = around(0, -17).row
    all_round = to_grid(field, Grid(1, row, 0, 5, whole.nx)).values
    assert np.isfinite(all_round).sum() == np.isfinite(all_round[:, :8]).sum() + np.isfinite(all_round[:, -8:]).sum()
    assert np.isfinite(all_round[:, [0, -1]]).all()
    np.testing.assert_array_equal(to_grid(field, Grid(1, row, 0, 5, 8)), all_round[:, :8])
    np.testing.assert_array_equal(to_grid(field, Grid(1, row, whole.nx - 8, 5, 8)), all_round[:, -8:])
    constant = to_grid(field * 0 + 3, Grid(1, row, 0, 5, whole.nx), min_coverage=0.999).values
    assert (constant[:, [0, 1, -2, -1]] == 3).all()


# ---- degrees on other datums


def test_degrees_on_a_like_datum_are_the_grids_own():
    plain = raster(4326, 146, -34.7, 0.002, 40, 40)
    grid = around(146, -34.7)
    for code in (4283, 7844, 4258):  # GDA94, GDA2020, ETRS89
        field = plain.assign_coords(spatial_ref=((), 0, CRS.from_epsg(code).to_cf()))
        assert askew(field) is None
        np.testing.assert_array_equal(to_grid(field, grid), to_grid(plain, grid))
    shifted = plain.assign_coords(spatial_ref=((), 0, CRS.from_epsg(4202).to_cf()))  # AGD66, some 200 m off
    assert askew(shifted) is not None
    assert np.nanmax(np.abs(to_grid(shifted, grid) - to_grid(plain, grid))) > 1


# ---- errors


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda f: f.assign_coords(x=f.x + 3e5), r"outside the field: the field spans \(149\.\d.*the grid \(145.9"),
        (
            lambda f: f.assign_coords(y=f.y * 1e9),
            r"UTM zone 55S' does not reach the coordinates: 'x' spans .*write_crs",
        ),
        (lambda f: f.isel(x=[3]), "'x' axis has a single pixel"),
        (lambda f: f.isel(x=[0, 1, 3]), "'x' axis has steps of 100 and 200"),
        (lambda f: f.drop_vars("y"), "'y' axis has no coordinates"),
        (lambda f: f.assign_attrs(_FillValue=-1), "undecoded _FillValue of -1"),
    ],
)
def test_what_cannot_be_carried_says_why(spoil, message):
    field = raster(UTM55, 146, -34.7, 100, 60, 60)
    with pytest.raises(ValueError, match=message):
        to_grid(spoil(field), around(146, -34.7))


def test_a_coarse_field_to_be_spread_is_told_to_come_another_way():
    field = raster(UTM55, 146, -34.7, 9000, 4, 4)
    with pytest.raises(ValueError, match=r"UTM zone 55S', whose rows and columns are not the grid's.*smgrid.to_grid"):
        smgrid.coarse.blocks(field, around(146, -34.7))


# ---- real files


@pytest.mark.parametrize("km, cells", [(1, [(0, 0), (1, 1), (0, 2)]), (0.18, [(2, 3), (4, 4)])])
def test_a_sentinel_2_clip(shared, km, cells):
    import rioxarray

    with rioxarray.open_rasterio(shared / "sentinel2_clip" / "leipzig_raster.tif", masked=True) as scene:
        grid = Grid.around(scene.rio.transform_bounds(4326), km=km)
        out = to_grid(scene, grid, min_coverage=0.2)
        lazily = to_grid(scene.chunk(band=3, y=50, x=60), grid, min_coverage=0.2)
        np.testing.assert_array_equal(out, lazily.data.compute(scheduler="synchronous"))
        for cell in cells:
            window = Grid(km, grid.row + cell[0], grid.col + cell[1], 1, 1)
            for band in (0, 7):
                expected = polygon_mean(scene[band].load(), window, 0.2).item()
                np.testing.assert_allclose(out.values[band][cell], expected, rtol=2e-4 if km == 1 else 1e-6)
        assert np.isfinite(out).any()


def test_a_modis_clip(shared):
    import rioxarray

    path = shared / "modis_ndvi" / "mod13q1_250m" / "TERRA_MODIS_012010_NDVI_2013-09-14.jp2"
    with rioxarray.open_rasterio(path) as raw:
        ndvi = raw[0].astype("f4").where((raw[0] >= -2000) & (raw[0] <= 10000))
        whole = Grid.around(raw.rio.transform_bounds(4326))
        out = to_grid(ndvi, whole)
        assert np.isfinite(out).mean() > 0.5
        for row, col in ((10, 20), (20, 40), (30, 15)):
            grid = Grid(1, whole.row + row, whole.col + col, 2, 2)
            expected = polygon_mean(ndvi.load(), grid)
            assert np.isfinite(expected).all()
            np.testing.assert_allclose(in_double(ndvi, grid), expected, rtol=1e-9)
            np.testing.assert_array_equal(to_grid(ndvi, grid), out[row : row + 2, col : col + 2])
