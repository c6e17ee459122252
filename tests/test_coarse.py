import dask.array
import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from smgrid.coarse import blocks
from smgrid.grid import YANCO, Grid
from smgrid.regrid import to_grid


def coarse(grid, missing=0.2, seed=0, lead=()):
    """A synthetic coarse soil-moisture field, m3 m-3."""
    rng = np.random.default_rng(seed)
    values = rng.uniform(0.02, 0.5, (*lead, *grid.shape)).astype("f4")
    values[rng.random(values.shape) < missing] = np.nan
    dims = (*[f"lead{k}" for k in range(len(lead))], "y", "x")
    return xr.DataArray(values, coords=grid.coords(), dims=dims, name="smap", attrs={"units": "m3 m-3"})


@given(
    km=st.sampled_from([(36, 9), (9, 1), (9, 3), (36, 1), (1, 0.05)]),
    row=st.integers(3, 300),
    col=st.integers(3, 900),
    ny=st.integers(2, 5),
    nx=st.integers(2, 5),
)
def test_blocks_hold_the_value_of_their_cell_and_return_to_it(km, row, col, ny, nx):
    whole, f = Grid.whole(km[0]), round(km[0] / km[1])
    field = coarse(Grid(km[0], row * whole.ny // 406, col * whole.nx // 964, ny, nx))
    fine = blocks(field, Grid.of(field).refine(f))
    np.testing.assert_array_equal(fine, np.kron(field, np.ones((f, f))))
    mean = fine.coarsen(y=f, x=f).reduce(lambda block, axis: np.mean(block, axis=axis, dtype="f8"))
    np.testing.assert_array_equal(mean.astype("f4"), field)
    np.testing.assert_array_equal(to_grid(fine, Grid.of(field)), field)


def test_a_window_need_not_begin_with_a_block():
    field = coarse(YANCO.coarsen(9), missing=0)
    grid = Grid(1, YANCO.row + 4, YANCO.col + 7, 31, 40)
    out = blocks(field, grid)
    assert Grid.of(out) == grid
    rows, cols = np.mgrid[grid.row : grid.row + 31, grid.col : grid.col + 40] // 9
    own = Grid.of(field)
    np.testing.assert_array_equal(out, field.values[rows - own.row, cols - own.col])
    edges = np.flatnonzero(np.abs(np.diff(out, axis=0)).max(axis=1)) + 1
    assert ((edges + grid.row) % 9 == 0).all() and len(edges) == 3


def test_outside_the_coarse_field_is_missing():
    field = coarse(Grid(9, 1275, 3490, 2, 2), missing=0)
    for source in (field, field.chunk(y=1)):
        out = blocks(source, YANCO)
        assert np.isfinite(out).sum() == 4 * 81
        np.testing.assert_array_equal(out.values[9:27, 9:27], np.kron(field, np.ones((9, 9))))


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_values_are_not_computed_but_copied(dtype):
    field = coarse(YANCO.coarsen(9)).astype(dtype) / 3
    out = blocks(field, YANCO)
    assert out.dtype == dtype
    assert set(np.unique(out.values[np.isfinite(out)])) <= set(np.unique(field))


def test_chunks_do_not_matter(no_compute):
    field = coarse(YANCO.coarsen(9), lead=(5, 2))
    whole = blocks(field, YANCO)
    assert whole.dims == ("lead0", "lead1", "y", "x")
    for chunks in ({}, {"y": 3, "x": 2}, {"lead0": 2, "y": (1, 9)}):
        out = blocks(field.chunk(chunks), YANCO)
        assert isinstance(out.data, dask.array.Array)
        xr.testing.assert_identical(out.copy(data=out.data.compute(scheduler="synchronous")), whole)


def test_attributes_say_what_was_done():
    field = coarse(YANCO.coarsen(9)).assign_attrs(long_name="SMAP soil moisture")
    said = {"units": "m3 m-3", "long_name": "SMAP soil moisture", "spreading": "blocks", "coarse_km": 9}
    assert blocks(field, YANCO).attrs == said
    assert blocks(field.to_dataset(), YANCO).smap.attrs == said
    assert blocks(coarse(YANCO.coarsen(36)), YANCO).attrs["coarse_km"] == 36


def test_era5_land_is_spread_by_the_cell_that_holds_the_centre():
    lat, lon = np.arange(-34.4, -35.71, -0.1), np.arange(145.5, 146.81, 0.1)
    values = np.random.default_rng(0).random((lat.size, lon.size)).astype("f4")
    era5 = xr.DataArray(values, coords={"latitude": lat, "longitude": lon}, dims=("latitude", "longitude"))
    out = blocks(era5, YANCO)
    columns, rows = YANCO.lonlat()
    expected = era5.sel(latitude=rows, longitude=columns, method="nearest")
    np.testing.assert_array_equal(out, expected)
    assert out.attrs == {"spreading": "blocks"}
    np.testing.assert_array_equal(blocks(era5.assign_coords(longitude=lon - 360), YANCO), out)
    np.testing.assert_array_equal(blocks(era5[::-1], YANCO), out)


def test_a_finer_field_is_refused():
    with pytest.raises(ValueError, match=r"finer than the grid's \(0.111 of a cell of 9 km\).*to_grid\(obj, grid\)"):
        blocks(coarse(YANCO), YANCO.coarsen(9))
    xr.testing.assert_equal(blocks(coarse(YANCO), YANCO), coarse(YANCO))


def test_real_retrievals_keep_their_place(shared):
    """Point lists of SPL3SMP_E, put on the 9-km grid, are found again in the 1-km cells around their coordinates."""
    path = sorted((shared / "smap_l3_enhanced_9km_points").rglob("*.nc"))[0]
    with xr.open_dataset(path) as points:
        frame = points[["latitude", "longitude", "soil_moisture"]].to_dataframe().dropna().astype("f8")
    grid = Grid.around(
        (
            frame.longitude.min() - 0.1,
            frame.latitude.min() - 0.1,
            frame.longitude.max() + 0.1,
            frame.latitude.max() + 0.1,
        ),
        km=9,
    )
    rows, cols = grid.index(frame.longitude, frame.latitude)
    mean = frame.soil_moisture.groupby([rows - grid.row, cols - grid.col]).mean()
    values = np.full(grid.shape, np.nan, "f4")
    values[tuple(np.array(list(mean.index)).T)] = mean
    fine = blocks(xr.DataArray(values, coords=grid.coords(), dims=("y", "x")), grid.refine(9))
    assert np.isfinite(fine).sum() == 81 * len(mean)
    part = frame.sample(200, random_state=0)
    for east, south in ((0, 0), (0.03, 0.03), (-0.03, 0.02)):  # within half a 9-km cell
        rows, cols = Grid.of(fine).index(part.longitude + east, part.latitude - south)
        found = fine.values[rows - 9 * grid.row, cols - 9 * grid.col]
        at = zip(*grid.index(part.longitude, part.latitude), strict=True)
        expected = [mean[r - grid.row, c - grid.col] for r, c in at]
        np.testing.assert_allclose(found, expected, rtol=1e-6)
