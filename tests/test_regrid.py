import dask.array
import numpy as np
import pytest
import shapely
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from pyproj import CRS, Transformer

import smgrid
import smgrid.regrid
from smgrid.grid import Grid, x_of_longitude, y_of_latitude
from smgrid.overlap import locate
from smgrid.regrid import carry, to_grid

pytestmark = pytest.mark.filterwarnings("ignore:Use `@` matmul:PendingDeprecationWarning")  # rioxarray, of affine


def scene(ny, nx, missing=0.3, seed=0):
    """A synthetic field with blobs, texture and gaps."""
    rng = np.random.default_rng(seed)
    blobs = np.kron(rng.random((-(-ny // 9), -(-nx // 9))), np.ones((9, 9)))[:ny, :nx]
    image = (300 + 50 * blobs + 20 * rng.random((ny, nx))).astype("f4")
    image[rng.random((ny, nx)) < missing] = np.nan
    return image


def raster(lat, lon, image=None, dims=("lat", "lon"), **kwargs):
    image = scene(len(lat), len(lon), **kwargs) if image is None else image
    return xr.DataArray(image, coords={dims[0]: lat, dims[1]: lon}, dims=dims, name="z", attrs={"units": "K"})


def degrees(west, north, step, ny, nx, **kwargs):
    return raster(north - step * (np.arange(ny) + 0.5), west + step * (np.arange(nx) + 0.5), **kwargs)


def midway(centres):
    middle = (centres[1:] + centres[:-1]) / 2
    return np.r_[2 * centres[0] - middle[0], middle, 2 * centres[-1] - middle[-1]]


def polygons(y_edges, x_edges, grid):
    """Area that pixels and cells share, from polygons: (pixels, cells), in cells.

    Metres count from the window's corner: from the globe's, their float64 rounding alone would be 1e-10 of a pixel.
    """
    west, _, _, north = grid.bounds
    x, y = (x_edges - west) / grid.cell, (y_edges - north) / grid.cell
    pixels = shapely.box(x[None, :-1], y[1:, None], x[None, 1:], y[:-1, None]).ravel()
    row, col = np.mgrid[: grid.ny, : grid.nx]
    cells = shapely.box(col, -row - 1, col + 1, -row).ravel()
    return np.array([shapely.area(shapely.intersection(pixels, cell)) for cell in cells]).T


def polygon_mean(values, area, least=0.5):
    known = np.isfinite(values.ravel())
    total = np.where(known, values.ravel(), 0).astype("f8") @ area
    share = known.astype("f8") @ area
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(share >= least, total / share, np.nan)


def in_double(field, grid, **kwargs):
    """The arithmetic before it is rounded to float32."""
    return carry(field, grid, locate(field, grid), dtype="float64", **{"how": "mean", "min_coverage": 0.5} | kwargs)


GAUSSIAN = np.degrees(np.arcsin(np.polynomial.legendre.leggauss(640)[0]))
ERA5 = {"dims": ("latitude", "longitude"), "seed": 4}
RASTERS = {
    "1 arc-second, Australia": degrees(146.0, -34.5, 1 / 3600, 130, 130),
    "10 m": degrees(100.0, 45.0, 8.983152841195215e-05, 270, 250, dims=("y", "x")).assign_coords(
        spatial_ref=((), 0, CRS.from_epsg(4326).to_cf())
    ),
    "0.01 degree, far north": degrees(10.3, 71.2, 0.01, 12, 14),
    "0.1 degree, equator": degrees(-0.2, 0.2, 0.1, 4, 4, missing=0.1),
    "ascending latitudes": degrees(146.0, -34.5, 0.004, 16, 20).isel(lat=slice(None, None, -1)),
    "descending longitudes": degrees(146.0, -34.5, 0.004, 16, 20).isel(lon=slice(None, None, -1)),
    "0..360, western half": degrees(251.0, 31.0, 0.004, 16, 20),
    "irregular latitudes": raster(GAUSSIAN[330:336], np.arange(10.0, 11.2, 0.3), missing=0),
    "any cells in EPSG:6933": raster(
        4e6 - 333.3 * np.arange(20), 1e6 + 271.8 * np.arange(25), dims=("y", "x")
    ).assign_coords(spatial_ref=Grid.whole(36).coords()["spatial_ref"]),
}


def window_of(field, km=1.0, most=8):
    """A window of a few cells in the raster's north-west, whatever its axes are."""
    _, y, x = field.transpose().dims and (0, *field.dims)
    y, x = np.sort(midway(field[y].values)), np.sort(midway(field[x].values))
    if np.abs(y).max() <= 90:
        y, x = y_of_latitude(y), x_of_longitude(np.where(x > 180, x - 360, x))
    whole = Grid.whole(km).crop((x[0], y[0], x[-1], y[-1]))
    return Grid(km, whole.row, whole.col, min(whole.ny, most), min(whole.nx, most))


@pytest.mark.parametrize("name", RASTERS)
def test_mean_is_that_of_the_polygons(name):
    field = RASTERS[name]
    grid = window_of(field)
    y, x = (midway(field[dim].values) for dim in field.dims)
    if "6933" not in name:
        y, x = y_of_latitude(y), x_of_longitude(np.where(x > 180, x - 360, x))
    area = polygons(np.sort(y)[::-1], np.sort(x), grid)
    north_up = field.values[:: 1 if y[0] > y[-1] else -1, :: 1 if x[0] < x[-1] else -1]
    for least in (0.2, 0.5):
        expected = polygon_mean(north_up, area, least).reshape(grid.shape)
        found = in_double(field, grid, min_coverage=least).values
        assert np.isfinite(expected).any()
        np.testing.assert_allclose(found, expected, rtol=1e-12)
    np.testing.assert_array_equal(to_grid(field, grid).values, in_double(field, grid).astype("f4").values)


@pytest.mark.parametrize("step", [0.0007, 0.003, 0.02, 0.1])
def test_the_integral_is_conserved(step):
    """All that is not zero lies inside the grid, so nothing may be lost or made."""
    grid = Grid.around((146.0, -35.0, 146.3, -34.8))
    field = degrees(145.8, -34.6, step, round(0.6 / step), round(0.7 / step))
    lon, lat = field.lon.values, field.lat.values
    far = (np.abs(lat + 34.9) < 0.1 - step)[:, None] & (np.abs(lon - 146.15) < 0.15 - step)
    field = field.where(xr.DataArray(far, dims=field.dims), 0.0)
    known = field.notnull()
    share = in_double(known, grid)
    mean = in_double(field, grid, min_coverage=0)
    area = -np.diff(y_of_latitude(midway(lat)))[:, None] * np.diff(x_of_longitude(midway(lon)))
    inside = (field.fillna(0).values.astype("f8") * area).sum() / grid.cell**2
    assert (mean * share).sum().item() == pytest.approx(inside, rel=1e-12)


@pytest.mark.parametrize("fine, coarse", [(0.05, 1), (1, 3), (1, 9), (3, 9), (3, 36), (9, 36)])
def test_nested_grids_are_the_mean_of_their_cells(fine, coarse):
    f = round(coarse / fine)
    grid = Grid(coarse, 318, 872, 4, 3)
    cells = grid.refine(f)
    values = np.random.default_rng(1).integers(0, 1000, cells.shape).astype("f4")
    field = xr.DataArray(values, coords=cells.coords(), dims=("y", "x"))
    expected = field.coarsen(y=f, x=f).mean()
    np.testing.assert_array_equal(to_grid(field, grid), expected)
    with_gaps = field.where(field > 300)
    enough = with_gaps.notnull().coarsen(y=f, x=f).mean() >= 0.7
    expected = with_gaps.astype("f8").coarsen(y=f, x=f).mean().where(enough)
    np.testing.assert_allclose(in_double(with_gaps, grid, min_coverage=0.7), expected, rtol=1e-14)
    xr.testing.assert_equal(to_grid(with_gaps, cells), with_gaps)


def test_ease_rasters_may_ascend_or_be_one_row():
    cells = Grid(1, 11466, 31401, 18, 27)
    field = xr.DataArray(scene(18, 27), coords=cells.coords(), dims=("y", "x"))
    grid = cells.coarsen(9)
    expected = to_grid(field, grid)
    np.testing.assert_array_equal(to_grid(field[::-1], grid), expected)
    np.testing.assert_array_equal(to_grid(field[:, ::-1], grid), expected)
    np.testing.assert_array_equal(to_grid(field[:1], cells)[0], field[0])
    np.testing.assert_array_equal(to_grid(field[:1, :1], cells)[0, 0], field[0, 0])  # its transform tells its size
    lonely = field[:1, :1].assign_coords(spatial_ref=0)
    with pytest.raises(ValueError, match="CRS"):
        to_grid(lonely, cells)


@given(
    step=st.floats(0.0008, 0.3),
    west=st.floats(-180, 300),
    north=st.floats(-60, 80),
    value=st.floats(-1e6, 1e6, width=32),
)
def test_a_constant_stays_constant(step, west, north, value):
    image = np.where(np.isnan(scene(12, 14)), np.nan, np.float32(value))
    field = degrees(west, north, step, 12, 14, image=image)
    lon = west + step * 7
    lon = lon - 360 if lon > 180 else lon
    grid = Grid.around((min(lon, 179.9), north - 6 * step, min(lon, 179.9) + 0.04, north - 6 * step + 0.03))
    out = to_grid(field, grid, min_coverage=0).values
    assert (out[np.isfinite(out)] == np.float32(value)).all()


@pytest.mark.parametrize("how", ["mean", "mode", "nearest"])
def test_neither_chunks_nor_tiles_matter(how, no_compute, monkeypatch):
    lat, lon = -34.5 - 0.003 * np.arange(40), 146 + 0.003 * np.arange(50)
    images = np.stack([scene(40, 50, seed=k) for k in range(6)]).reshape(3, 2, 40, 50).round(-1)
    field = xr.DataArray(images, coords={"lat": lat, "lon": lon}, dims=("time", "band", "lat", "lon"))
    grid = Grid.around((145.98, -34.6, 146.1, -34.45))
    whole = to_grid(field, grid, how=how)
    assert 0.2 < np.isfinite(whole).mean() < 1

    def lazily(**chunks):
        out = to_grid(field.chunk(chunks), grid, how=how)
        assert isinstance(out.data, dask.array.Array) and out.dtype == "float32"
        return out.data.compute(scheduler="synchronous")

    for chunks in ({}, {"lat": 7, "lon": 11}, {"lat": (1, 38, 1), "time": 2}, {"lon": 1, "band": 1}):
        np.testing.assert_array_equal(lazily(**chunks), whole)
    for window, strip in ((4000, 5), (100, 1024)):
        monkeypatch.setattr(smgrid.regrid, "WINDOW", window)
        monkeypatch.setattr(smgrid.regrid, "STRIP", strip)
        monkeypatch.setattr(smgrid.regrid, "ROWS", strip)
        np.testing.assert_array_equal(to_grid(field, grid, how=how), whole)
        np.testing.assert_array_equal(lazily(lat=9, time=2), whole)


def test_windows_and_chunks_are_bounded(no_compute, monkeypatch):
    windows, window = [], smgrid.regrid._window

    def noting(*args):
        found = window(*args)
        windows.append(found.size)
        return found

    monkeypatch.setattr(smgrid.regrid, "_window", noting)
    step = 1e-4  # some 10 m; 13 GiB
    pixels = dask.array.zeros((60_000, 60_000), dtype="f4", chunks=4096)
    field = raster(-33 - step * np.arange(60_000), 143 + step * np.arange(60_000), image=pixels)
    out = to_grid(field, Grid.around((143.1, -38, 148.5, -33.5)))
    assert max(windows) < 1.1 * 2**23 and sum(windows) < 1.1 * pixels.size
    assert [len(sizes) for sizes in out.chunks] == [1, 1]
    era5 = xr.DataArray(
        dask.array.zeros((48, 1801, 3600), dtype="f4", chunks=(48, 1801, 3600)),
        coords={"latitude": np.linspace(90, -90, 1801), "longitude": np.arange(3600) / 10},
        dims=("time", "latitude", "longitude"),
    )
    chunks = to_grid(era5, Grid.whole()).chunks
    assert max(map(max, chunks)) <= 1024 and set(chunks[0]) == {8}


class Reads(xr.backends.BackendArray):
    """An array in a file that notes what is read of it."""

    def __init__(self, values):
        self.values, self.shape, self.dtype, self.read = values, values.shape, values.dtype, []

    def __getitem__(self, key):
        return xr.core.indexing.explicit_indexing_adapter(
            key, self.shape, xr.core.indexing.IndexingSupport.BASIC, self._get
        )

    def _get(self, key):
        self.read.append(self.values[key].shape)
        return self.values[key]


def test_of_a_file_only_the_window_is_read():
    like = degrees(146.0, -34.5, 0.001, 500, 600)
    source = Reads(np.stack([like.values] * 2))
    lazily = xr.core.indexing.LazilyIndexedArray(source)
    field = xr.DataArray(xr.Variable(("time", *like.dims), lazily), coords=like.coords)
    grid = Grid.around((146.2, -34.7, 146.25, -34.66))
    out = to_grid(field, grid)
    np.testing.assert_array_equal(out, to_grid(like, grid).expand_dims(time=2))
    west, south, east, north = grid.bounds
    y, x = y_of_latitude(midway(like.lat.values)), x_of_longitude(midway(like.lon.values))
    touched = ((y[:-1] > south) & (y[1:] < north)).sum(), ((x[1:] > west) & (x[:-1] < east)).sum()
    assert source.read == [(2, *touched)]


# ---- round the globe


def globe(first, ny=180, nx=360):
    lon = first + np.arange(nx) * 360 / nx
    image = np.sin(np.radians(lon)) + 0.01 * np.arange(ny)[:, None]
    return raster(np.linspace(89.5, -89.5, ny), np.where(lon > 360, lon - 360, lon), image=image.astype("f4"))


@pytest.mark.parametrize("first", [0.0, 0.5, -180.0, -179.5, 100.25])
@pytest.mark.parametrize("km", [36, 9])
def test_the_globe_may_be_cut_anywhere(first, km):
    grid = Grid.whole(km)
    grid = Grid(km, grid.ny // 2, 0, 4, grid.nx)
    out = to_grid(globe(first), grid)
    assert np.isfinite(out).all()
    step = np.abs(np.diff(np.r_[out[0], out[0, 0]]))
    assert step.max() < 0.035  # no seam: neighbours differ by a degree's worth at most, the two ends too
    expected = np.sin(np.radians(grid.lonlat()[0]))
    assert np.abs(out[0] - out[0].mean() - expected).max() < 0.03


def test_the_seam_may_run_through_a_raster():
    lat = -17 - 0.01 * np.arange(40)
    lon = 179.8 + 0.01 * (np.arange(40) + 0.5)
    image = scene(40, 40)
    east, west = Grid.around((179.85, -17.3, 180, -17.1)), Grid.around((-180, -17.3, -179.85, -17.1))
    for grid in (east, west, Grid(1, east.row, 0, east.ny, Grid.whole().nx)):
        ahead = to_grid(raster(lat, lon, image=image), grid)
        wrapped = to_grid(raster(lat, np.where(lon > 180, lon - 360, lon), image=image), grid)
        lazily = to_grid(raster(lat, lon, image=image).chunk(lat=9, lon=13), grid)
        np.testing.assert_array_equal(ahead, wrapped)
        np.testing.assert_array_equal(ahead, lazily)
    both = np.r_[ahead[3, -15:], ahead[3, :15]]
    np.testing.assert_array_equal(both[:15], to_grid(raster(lat, lon, image=image), east)[3, -15:])
    np.testing.assert_array_equal(both[15:], to_grid(raster(lat, lon, image=image), west)[3, :15])
    assert np.isnan(ahead[:, 100:-100]).all()


def test_direction_does_not_matter():
    field = degrees(146.0, -34.5, 0.002, 60, 70)
    grid = Grid.around((146.02, -34.6, 146.1, -34.52))
    plain = to_grid(field, grid)
    for turned in (field[::-1], field[:, ::-1], field.T, field.assign_coords(lon=field.lon - 360)):
        np.testing.assert_allclose(to_grid(turned, grid), plain, rtol=3e-7)
    assert to_grid(field.T, grid).dims == ("y", "x")


def test_axes_stored_as_float32_are_straightened():
    lat, lon = -34.5 - 0.0005 * np.arange(300), 146 + 0.0005 * np.arange(300)
    single = raster(lat.astype("f4"), lon.astype("f4"))
    grid = Grid.around((146.02, -34.6, 146.1, -34.52))
    np.testing.assert_allclose(to_grid(single, grid), to_grid(raster(lat, lon), grid), rtol=1e-3)
    widths = np.diff(locate(single, grid)[1].edges)
    assert np.ptp(widths) < 1e-9 * widths.mean()


# ---- what is known


def test_coverage_is_a_share_of_the_cell():
    grid = Grid(1, 11470, 31410, 1, 1)
    fine = grid.refine(20)
    for known in (0, 1, 199, 200, 201, 399, 400):
        image = np.full(400, np.nan, "f4")
        image[:known] = 5
        field = xr.DataArray(image.reshape(20, 20), coords=fine.coords(), dims=("y", "x"))
        for least in (0, 0.5, 1):
            finite = np.isfinite(to_grid(field, grid, min_coverage=least).item())
            assert finite == (known > 0 and known >= 400 * least)


def test_outside_the_raster_is_missing():
    field = degrees(146.0, -34.5, 0.001, 100, 100, missing=0)
    grid = Grid.around((145.9, -34.7, 146.2, -34.4))
    for out in (to_grid(field, grid), to_grid(field.chunk(lat=30), grid)):
        rows, cols = grid.index([146.05, 145.95, 146.15], [-34.55, -34.55, -34.45])
        assert np.isfinite(out.values[rows - grid.row, cols - grid.col]).tolist() == [True, False, False]
    assert to_grid(field.chunk(lat=30), Grid.whole()).data.npartitions < 2000


def test_mode_is_the_largest_area():
    lat, lon = -34.5 - 0.0013 * np.arange(40), 146 + 0.0017 * np.arange(40)
    image = np.random.default_rng(2).integers(1, 5, (40, 40)).astype("u1")
    grid = Grid.around((146.005, -34.54, 146.05, -34.51))
    area = polygons(y_of_latitude(midway(lat)), x_of_longitude(midway(lon)), grid)
    by_class = np.stack([(image.ravel() == c) @ area for c in range(1, 5)])
    clear = np.diff(np.sort(by_class, axis=0), axis=0)[-1] > 1e-6
    out = to_grid(raster(lat, lon, image=image), grid, how="mode")
    assert out.dtype == "float32" and clear.sum() > 10
    np.testing.assert_array_equal(out.values.ravel()[clear], 1 + by_class.argmax(axis=0)[clear])
    assert out.attrs["aggregation"] == "class with the largest overlap area"


def test_of_equal_areas_the_smaller_class_wins():
    grid = Grid(1, 11470, 31410, 1, 2)
    values = [[7, 3, 2, 2], [3, 7, np.nan, np.nan]]
    field = xr.DataArray(values, coords=grid.refine(2).coords(), dims=("y", "x"))
    assert to_grid(field, grid, how="mode").values.tolist() == [[3, 2]]
    assert np.isnan(to_grid(field, grid, how="mode", min_coverage=0.6)[0, 1])
    many = xr.DataArray(
        np.linspace(0, 1, 4000).reshape(40, 100), coords=Grid(1, 0, 0, 40, 100).coords(), dims="y x".split()
    )
    with pytest.raises(ValueError, match=r"'mode' is for classes: at most 1000 .* there are 1296 .*Use how='mean'"):
        to_grid(many, Grid(36, 0, 0, 1, 1), how="mode")


def test_nearest_is_the_pixel_at_the_centre():
    field = degrees(146.0, -34.5, 0.0037, 40, 40)
    grid = Grid.around((146.02, -34.6, 146.1, -34.52))
    lon, lat = grid.lonlat()
    expected = field.sel(lat=lat, lon=lon, method="nearest")
    np.testing.assert_array_equal(to_grid(field, grid, how="nearest"), expected)


def test_integers_and_truth_values_are_averaged():
    grid = Grid(9, 1274, 3489, 2, 2)
    values = np.random.default_rng(0).integers(-50, 900, (18, 18)).astype("i2")
    field = xr.DataArray(values, coords=grid.refine(9).coords(), dims=("y", "x"))
    np.testing.assert_allclose(to_grid(field, grid), field.coarsen(y=9, x=9).mean(), rtol=1e-6)
    np.testing.assert_allclose(to_grid(field > 0, grid), (field > 0).coarsen(y=9, x=9).mean(), rtol=1e-6)


# ---- what travels along


def test_names_units_and_leading_coordinates_stay():
    import rioxarray  # noqa: F401

    days = np.array(["2015-05-05", "2015-05-17"], "M8[ns]")
    field = degrees(146.0, -34.5, 0.01, 20, 20, missing=0).expand_dims(time=days, band=["vv", "vh"])
    field.attrs |= {"long_name": "backscatter", "AREA_OR_POINT": "Area", "scale_factor": 1.0, "_FillValue": np.nan}
    field = field.assign_coords(orbit=("time", [4, 9]), shade=(("lat", "lon"), field[0, 0].data), crs=0)
    field.crs.attrs.update(CRS.from_epsg(4326).to_cf())
    grid = Grid.around((146.02, -34.6, 146.1, -34.52))
    out = to_grid(field, grid)
    assert out.dims == ("time", "band", "y", "x") and out.name == "z" and out.dtype == "float32"
    assert out.attrs == {"units": "K", "long_name": "backscatter", "aggregation": "area-weighted mean"}
    assert set(out.coords) == {"time", "band", "orbit", "y", "x", "spatial_ref"}
    xr.testing.assert_identical(out.time.drop_vars(["orbit", "spatial_ref"]), field.time.drop_vars(["orbit", "crs"]))
    assert Grid.of(out) == grid
    assert out.rio.crs.to_epsg() == 6933


def test_a_dataset_is_carried_variable_by_variable():
    a, b = degrees(146.0, -34.5, 0.01, 20, 20), degrees(146.0, -34.5, 0.01, 20, 20, seed=1).expand_dims(time=3)
    ds = xr.Dataset({"a": a, "b": b.transpose("lat", "time", "lon"), "bounds": ("n", [1, 2])}, attrs={"title": "t"})
    grid = Grid.around((146.02, -34.6, 146.1, -34.52))
    out = to_grid(ds, grid)
    assert set(out.data_vars) == {"a", "b"} and out.attrs == {"title": "t"} and Grid.of(out) == grid
    xr.testing.assert_identical(out.a, to_grid(a, grid).rename("a"))
    xr.testing.assert_identical(out.b, to_grid(b, grid).rename("b"))
    with pytest.raises(ValueError, match=r"no variable has the axes \['lat', 'lon'\]: the Dataset has \['bounds'\]"):
        to_grid(ds[["bounds"]].assign_coords(lat=a.lat, lon=a.lon), grid)


# ---- errors


PLAIN = degrees(146.0, -34.5, 0.01, 20, 20)
HERE = Grid.around((146.02, -34.6, 146.1, -34.52))


def with_crs(field, code):
    return field.rename(lat="y", lon="x").assign_coords(spatial_ref=((), 0, CRS.from_user_input(code).to_cf()))


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda f: f.rename(lat="y", lon="x"), r"no CRS, and the axes 'y', 'x' are not in degrees.*write_crs"),
        (lambda f: with_crs(f, 4326).assign_coords(y=f.lat.values * 1e5), r"reaches 3.4695e\+06 .*not degrees"),
        (lambda f: f.rename(lat="rlat"), r"no pair of axes.*dims are \('rlat', 'lon'\).*Rename"),
        (lambda f: f.drop_vars("lat"), r"'lat' axis has no coordinates"),
        (lambda f: f.isel(lat=[3]), r"'lat' axis has a single pixel"),
        (lambda f: f.assign_coords(lat=np.where(np.arange(20) == 4, np.nan, f.lat)), r"'lat' axis has missing"),
        (lambda f: f.isel(lat=[0, 2, 1]), r"'lat' axis neither ascends nor descends.*sortby\('lat'\)"),
        (lambda f: f.isel(lon=[0, 1, 2, 4, 5]), r"'lon' axis has steps of 0.01 and 0.02.*146.025.*missing"),
        (
            lambda f: globe(0.0, nx=360).pad(lon=(0, 1), mode="wrap").assign_coords(lon=np.arange(361.0)),
            r"1 degrees more.*slice\(None, 360\)",
        ),
        (lambda f: f.assign_coords(lon=f.lon + 3), r"outside the field: the field spans \(149.0, .*the grid \(146"),
        (lambda f: f.assign_coords(lat=f.lat + 3), r"outside the field"),
        (
            lambda f: f.round().astype("i2").assign_attrs(_FillValue=-9999),
            r"int16 with an undecoded _FillValue of -9999.*masked=True",
        ),
        (lambda f: f.assign_attrs(nodata=-9999.0), r"obj holds float32 with an undecoded nodata of -9999.0"),
        (
            lambda f: f.to_dataset().assign(z=f.assign_attrs(missing_value=-1)),
            r"obj\['z'\] holds .* missing_value of -1",
        ),
        (lambda f: f.assign_attrs(scale_factor=0.0001), r"scale_factor 0.0001, add_offset 0.*mask_and_scale=True"),
    ],
)
@pytest.mark.filterwarnings("ignore:invalid value encountered in cast")
def test_what_cannot_be_carried_says_why(spoil, message):
    with pytest.raises(ValueError, match=message):
        to_grid(spoil(PLAIN), HERE)


def test_other_mistakes():
    with pytest.raises(ValueError, match=r"how is one of .*not 'bilinear'"):
        to_grid(PLAIN, HERE, how="bilinear")
    with pytest.raises(ValueError, match=r"min_coverage is a share .* not 50"):
        to_grid(PLAIN, HERE, min_coverage=50)
    with pytest.raises(TypeError, match=r"datetime64.*not numbers"):
        to_grid(PLAIN.fillna(0).astype("i8").astype("M8[ns]"), HERE)
    filled = PLAIN.fillna(-1).astype("i2")
    filled.encoding["_FillValue"] = -1
    with pytest.raises(ValueError, match="int16 with an undecoded _FillValue of -1"):
        to_grid(filled, HERE)


@pytest.mark.parametrize("dtype", ["i2", "f4"])
def test_the_line_in_the_message_mends_it(dtype):
    obj = PLAIN.fillna(-9999).astype(dtype).assign_attrs(_FillValue=np.dtype(dtype).type(-9999))
    with pytest.raises(ValueError) as caught:
        to_grid(obj, HERE)
    scope = {"obj": obj}
    exec(str(caught.value).split("or mend it: ")[1], scope)
    expected = to_grid(PLAIN.fillna(-9999).astype(dtype).where(PLAIN.notnull()), HERE)
    np.testing.assert_array_equal(to_grid(scope["obj"], HERE), expected)


def test_degrees_are_known_by_name_or_units():
    plain = to_grid(PLAIN, HERE)
    for field in (
        PLAIN.rename(lat="latitude", lon="longitude"),
        with_crs(PLAIN, 4326),
        with_crs(PLAIN, "OGC:CRS84"),
        PLAIN.rename(lat="y", lon="x").assign_coords(
            y=("y", PLAIN.lat.data, {"units": "degrees_north"}), x=("x", PLAIN.lon.data, {"units": "degrees_east"})
        ),
    ):
        np.testing.assert_array_equal(to_grid(field, HERE), plain)


# ---- others' programs, others' files


def test_gdal_agrees_within_its_error():
    rasterio = pytest.importorskip("rasterio")
    from rasterio.warp import Resampling, reproject

    field = degrees(146.0, -34.5, 1 / 3600, 400, 400)
    grid = Grid.around((146.02, -34.59, 146.09, -34.52))
    out = np.full(grid.shape, np.nan, "f4")
    reproject(
        field.values,
        out,
        src_transform=rasterio.transform.from_origin(146.0, -34.5, 1 / 3600, 1 / 3600),
        src_crs="EPSG:4326",
        src_nodata=np.nan,
        dst_transform=grid.transform,
        dst_crs="EPSG:6933",
        dst_nodata=np.nan,
        resampling=Resampling.average,
        tolerance=0,
    )
    assert np.abs(out - to_grid(field, grid)).max() < 5e-3  # of values with a spread of 20


def file_oracle(array, grid, cells):
    """Means from the file's own transform, PROJ and polygons."""
    transform = array.rio.transform()
    lon = transform.c + transform.a * np.arange(array.sizes["x"] + 1)
    lat = transform.f + transform.e * np.arange(array.sizes["y"] + 1)
    to_metres = Transformer.from_crs(4326, 6933, always_xy=True).transform
    x, y = to_metres(lon, np.zeros(lon.size))[0], to_metres(np.zeros(lat.size), lat)[1]
    for r, c in cells:
        cell = Grid(grid.km, grid.row + r, grid.col + c, 1, 1)
        yield polygon_mean(array.values, polygons(y, x, cell))[0]


@pytest.mark.parametrize("km, cells", [(0.05, [(3, 4), (10, 20), (20, 2), (15, 11)]), (1, [(0, 0), (1, 1), (1, 0)])])
@pytest.mark.parametrize("chunks", [None, {"band": 1, "y": 50, "x": 60}])
def test_an_earth_engine_export(shared, km, cells, chunks):
    import rioxarray

    path = shared / "sentinel1_gee_export" / "FrankFort_Lexington_MultiBand_2024.tif"
    with rioxarray.open_rasterio(path, chunks=chunks) as scene:
        grid = Grid.around(scene.rio.bounds(), km=km)
        out = to_grid(scene, grid)
        assert (out.chunks is None) == (chunks is None)
        assert out.shape == (5, *grid.shape) and tuple(out.attrs["long_name"][:2]) == ("VV", "VH")
        for band in (0, 2):
            expected = list(file_oracle(scene[band].load(), grid, cells))
            found = [out.values[band][cell] for cell in cells]
            np.testing.assert_allclose(found, expected, rtol=1e-6)
        assert np.isfinite(found).any()


def test_an_elevation_file(shared):
    import rioxarray

    path = shared / "dem" / "dem.tif"
    with rioxarray.open_rasterio(path) as raw, pytest.raises(ValueError, match=r"int16 .* _FillValue of -32768"):
        to_grid(raw, Grid.around(raw.rio.bounds()))
    with rioxarray.open_rasterio(path, masked=True, chunks={"y": 100, "x": 100}) as dem:
        dem = dem.squeeze("band", drop=True)
        grid = Grid.around(dem.rio.bounds())
        cells = [(5, 5), (12, 20), (30, 3)]
        out = to_grid(dem, grid, min_coverage=0.9)
        expected = list(file_oracle(dem.load(), grid, cells))
        np.testing.assert_allclose([out.values[cell] for cell in cells], expected, rtol=1e-6)
        assert np.isfinite(expected).all()
