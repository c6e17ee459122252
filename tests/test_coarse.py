import dask.array
import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from smgrid import seams
from smgrid.coarse import HALO, blocks, smooth
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


# ---- smooth


def block_means(fine, f=9):
    """Means over whole blocks of `f` cells, in float64."""
    values = np.asarray(fine, "f8")
    return values.reshape(values.shape[0] // f, f, values.shape[1] // f, f).mean((1, 3))


@given(
    km=st.sampled_from([(36, 9), (9, 1), (9, 3), (1, 0.05), (1, 1)]),
    row=st.integers(3, 300),
    col=st.integers(3, 900),
    ny=st.integers(2, 9),
    nx=st.integers(2, 9),
    missing=st.sampled_from([0, 0.1, 0.5, 0.9]),
)
def test_a_smooth_spread_keeps_the_block_means(km, row, col, ny, nx, missing):
    whole, f = Grid.whole(km[0]), round(km[0] / km[1])
    field = coarse(Grid(km[0], row * whole.ny // 406, col * whole.nx // 964, ny, nx), missing, seed=row)
    fine = smooth(field, Grid.of(field).refine(f))
    np.testing.assert_allclose(block_means(fine, f), field, atol=1e-7)
    assert (np.isnan(fine.values) == np.kron(np.isnan(field), np.ones((f, f), bool))).all()
    again = to_grid(fine, Grid.of(field))
    np.testing.assert_allclose(again, field, atol=1e-7)


@pytest.mark.parametrize("holes", [[], [(3, 4)], [(0, 0), (2, 3), (2, 7), (6, 5)]])
def test_planes_stay_planes(holes):
    """Constants and slopes are reproduced, past single missing blocks and out to the rim too."""
    grid = Grid(9, 1270, 3480, 8, 9)
    rows, cols = np.mgrid[:8, :9]
    fine_rows, fine_cols = (np.mgrid[:72, :81] - 4) / 9
    for a, b in ((0, 0), (0.02, 0), (-0.01, 0.03)):
        field = xr.DataArray(0.2 + a * rows + b * cols, grid.coords(), ("y", "x"))
        for hole in holes:
            field[hole] = np.nan
        error = np.abs(smooth(field, grid.refine(9)).values - (0.2 + a * fine_rows + b * fine_cols))
        assert np.nanmax(error) < 1e-12 and np.isnan(error).sum() == 81 * len(holes)


def test_the_surface_follows_the_truth_it_was_averaged_from():
    """Cells of an eighth of the wave: an error of 1 % of its height; it falls with the fourth power of their size."""
    errors = []
    for f in (18, 9):
        grid = Grid(36 / 2, 600, 1700, 20, 20) if f == 18 else Grid(9, 1200, 3400, 40, 40)
        fine = grid.refine(f)
        y, x = ((axis - axis[0]) / fine.cell for axis in (fine.y, fine.x))
        truth = np.sin(x / 144 * np.pi * 2 + 0.3) * np.cos(y[:, None] / 180 * np.pi * 2)
        means = truth.reshape(grid.ny, f, grid.nx, f).mean((1, 3))
        found = smooth(xr.DataArray(means, grid.coords(), ("y", "x")), fine)
        errors.append(np.abs(found - truth)[54:-54, 54:-54].max().item())
    assert errors[0] < 0.01 and errors[1] < errors[0] / 12


def test_a_block_is_felt_three_blocks_away():
    field = coarse(Grid(9, 1270, 3480, 15, 15), missing=0).astype("f8")
    other = field.copy(data=field.values.copy())
    other[7, 7] += 0.1
    changed = (smooth(other, Grid.of(field).refine(9)) != smooth(field, Grid.of(field).refine(9))).values
    blocks_changed = changed.reshape(15, 9, 15, 9).any((1, 3))
    assert np.argwhere(blocks_changed).min() == 4 and np.argwhere(blocks_changed).max() == 10


@pytest.mark.parametrize("missing", [0, 0.15, 0.6])
@given(row=st.integers(0, 60), col=st.integers(0, 60), ny=st.integers(1, 40), nx=st.integers(1, 40))
def test_a_window_of_the_spread_is_the_spread_of_the_window(missing, row, col, ny, nx):
    """Whatever the window, on whole blocks or not, as long as the field reaches `HALO` blocks beyond it."""
    own = Grid(9, 1270, 3480, 12 + 2 * HALO, 12 + 2 * HALO)
    field = coarse(own, missing, seed=5)
    start = own.refine(9)
    whole = smooth(field, start)
    window = Grid(1, start.row + 9 * HALO + row, start.col + 9 * HALO + col, ny, nx)
    near = window.coarsen(9)
    rows, cols = near.row - own.row, near.col - own.col
    tight = field[rows - HALO : rows + near.ny + HALO, cols - HALO : cols + near.nx + HALO]
    expected = whole[9 * HALO + row :, 9 * HALO + col :][:ny, :nx]
    for source in (field, tight):
        xr.testing.assert_equal(smooth(source, window).drop_vars("spatial_ref"), expected.drop_vars("spatial_ref"))


@pytest.mark.parametrize("tile", [1024, 40])
def test_chunks_do_not_matter_to_a_smooth_spread(no_compute, monkeypatch, tile):
    monkeypatch.setattr("smgrid.coarse.STACK", 3 * tile**2)
    field = coarse(YANCO.coarsen(9), lead=(5, 2))
    whole = smooth(field, YANCO)
    assert whole.dims == ("lead0", "lead1", "y", "x") and whole.dtype == "f4"
    monkeypatch.setattr("smgrid.coarse.TILE", tile)
    xr.testing.assert_identical(smooth(field, YANCO), whole)
    for chunks in ({}, {"lead0": 2, "y": (1, 9), "x": 3}):
        out = smooth(field.chunk(chunks), YANCO)
        assert isinstance(out.data, dask.array.Array)
        assert max(map(np.prod, np.broadcast(*np.ix_(*out.chunks)))) <= 3 * tile**2
        xr.testing.assert_identical(out.copy(data=out.data.compute(scheduler="synchronous")), whole)


def wide_footprint(seed, noise):
    """Synthetic 9-km retrievals around Yanco: 30-km footprints and 6 % that are each cell's own."""
    from scipy.ndimage import gaussian_filter

    own = Grid(9, YANCO.row // 9 - HALO, YANCO.col // 9 - HALO, 10 + 2 * HALO, 9 + 2 * HALO)
    rng = np.random.default_rng(seed)
    truth = gaussian_filter(rng.normal(size=(own.ny * 9, own.nx * 9)), 12.5)
    means = (truth / truth.std()).reshape(own.ny, 9, own.nx, 9).mean((1, 3))
    values = (0.2 + 0.05 * means) * (1 + noise * rng.normal(size=own.shape))
    return xr.DataArray(values.astype("f4"), own.coords(), ("y", "x"))


@pytest.mark.parametrize("noise", [0, 0.06])
def test_a_smooth_spread_has_no_seams(noise):
    """Asked: a ratio below 1.05, and p above 0.05 on most seeds; of the bare spread, with nothing to hide a seam in."""
    fields = [wide_footprint(seed, noise) for seed in range(10)]
    found = [seams.detect(smooth(field, YANCO), permutations=199) for field in fields]
    assert sum(seam.ratio < 1.05 and seam.p_value > 0.05 for seam in found) >= 9
    assert 0.95 < np.median([seam.ratio for seam in found]) < 1.02
    marked = [seams.detect(blocks(field, YANCO), permutations=199) for field in fields[:3]]
    assert all(np.isinf(seam.ratio) and seam.p_value == 0.005 for seam in marked)


@pytest.mark.parametrize("low, high", [(0.05, 0.35), (0.05, np.inf), (-np.inf, 0.35)])
def test_a_valid_range_is_kept_and_the_means_too(low, high):
    field = coarse(Grid(9, 1270, 3480, 12, 12), seed=2)
    field = field.clip(low, high).astype("f8")
    grid = Grid(1, 11433, 31324, 95, 97)
    free = smooth(field, grid)
    assert free.min() < low or free.max() > high
    said = {"valid_range": (low, high)} if np.isfinite([low, high]).all() else {"valid_min": low, "valid_max": high}
    kept = smooth(field.assign_attrs(said), grid)
    assert kept.min() >= low - 1e-12 and kept.max() <= high + 1e-12
    whole = smooth(field.assign_attrs(said), Grid.of(field).refine(9))
    np.testing.assert_allclose(block_means(whole), field, atol=1e-12)
    inside = (grid.row - 9 * 1270, grid.col - 9 * 3480)  # blocks that the window cuts are limited as a whole
    cut = whole.values[inside[0] :, inside[1] :][: grid.ny, : grid.nx]
    np.testing.assert_array_equal(kept, cut)
    untouched = np.kron(
        [[free_block.min() >= low and free_block.max() <= high for free_block in row] for row in by_block(field)],
        np.ones((9, 9)),
    ).astype(bool)
    unlimited = smooth(field, Grid.of(field).refine(9)).values
    np.testing.assert_array_equal(whole.values[untouched], unlimited[untouched])


def by_block(field):
    fine = smooth(field, Grid.of(field).refine(9)).values
    ny, nx = field.shape
    return fine.reshape(ny, 9, nx, 9).swapaxes(1, 2)


def test_a_mean_outside_the_valid_range_stays_a_flat_block():
    field = xr.DataArray(np.full((3, 3), 0.2), Grid(9, 1270, 3480, 3, 3).coords(), ("y", "x"), attrs={"valid_max": 0.6})
    field[1, 1] = 0.7
    fine = smooth(field, Grid.of(field).refine(9))
    assert (fine[9:18, 9:18] == 0.7).all()
    np.testing.assert_allclose(block_means(fine), field, atol=1e-12)


def era5(lat, lon, seed=0):
    values = np.random.default_rng(seed).random((lat.size, lon.size))
    return xr.DataArray(values, coords={"latitude": lat, "longitude": lon}, dims=("latitude", "longitude"))


@pytest.mark.parametrize("turned", [False, True])
def test_era5_land_keeps_the_means_of_the_cells_it_holds(turned):
    """Blocks of 9 or 10 columns and 10 or 11 rows: a cell belongs to the one that holds its centre."""
    field = era5(np.arange(-33.4, -36.71, -0.1), np.arange(144.5, 147.81, 0.1))
    out = smooth(field[::-1] if turned else field, YANCO)
    number = field.copy(data=np.arange(field.size, dtype="f8").reshape(field.shape))
    big = Grid(1, YANCO.row - 20, YANCO.col - 20, YANCO.ny + 40, YANCO.nx + 40)
    owner = blocks(number, big).values.astype(int).ravel()
    total, count = (np.bincount(owner, w) for w in (smooth(field, big).values.ravel(), np.ones(owner.size)))
    full = np.unique(blocks(number, YANCO)).astype(int)  # all of their cells are in the larger window
    assert full.size > 60 and set(np.unique(count[full])) <= {90, 99, 100, 110}
    np.testing.assert_allclose(total[full] / count[full], field.values.ravel()[full], atol=1e-9)
    np.testing.assert_array_equal(out, smooth(field, big)[20:-20, 20:-20])
    assert out.attrs == {"spreading": "smooth"}


def test_longitudes_close_round_the_globe():
    """0..360 and -180..180 are the same field, on either side of Greenwich."""
    lon = np.arange(0, 360, 0.25)
    field = era5(np.arange(52, 47.9, -0.25), lon)
    grid = Grid.around((-1.3, 49.2, 1.1, 50.4))
    turned = field.roll(longitude=720, roll_coords=True)
    turned = turned.assign_coords(longitude=np.where(turned.longitude >= 180, turned.longitude - 360, turned.longitude))
    found = smooth(field, grid)
    assert np.isfinite(found).all()
    np.testing.assert_array_equal(found, smooth(turned, grid))
    np.testing.assert_array_equal(found, smooth(field.chunk(longitude=77), grid))
    for at in (0.0, 0.6):  # the window may also begin beside the place where the file's ends meet
        beside = Grid.around((at, 49.2, 1.1, 50.4))
        np.testing.assert_array_equal(smooth(field, beside), found[:, -beside.nx :])


def test_outside_the_field_a_smooth_spread_is_missing():
    field = coarse(Grid(9, 1275, 3490, 2, 2), missing=0)
    for source in (field, field.chunk(y=1)):
        out = smooth(source, YANCO)
        assert (np.isfinite(out.values) == np.isfinite(blocks(source, YANCO).values)).all()
        np.testing.assert_allclose(block_means(out[9:27, 9:27]), field, atol=1e-7)


def test_attributes_say_that_the_spread_is_smooth():
    field = coarse(YANCO.coarsen(9), lead=(2,)).assign_attrs(long_name="SMAP soil moisture").assign_coords(lead0=[3, 4])
    out, like = smooth(field, YANCO), blocks(field, YANCO)
    assert out.attrs == {**like.attrs, "spreading": "smooth"} and like.attrs["coarse_km"] == 9
    assert out.name == "smap" and out.dtype == like.dtype and Grid.of(out) == YANCO
    xr.testing.assert_equal(out.coords.to_dataset(), like.coords.to_dataset())
    pair = smooth(xr.Dataset({"smap": field, "other": 2 * field}), YANCO)
    xr.testing.assert_identical(pair.smap, out)
    assert smooth(coarse(YANCO.coarsen(9)).astype("f8"), YANCO).dtype == "f8"
    assert smooth((100 * coarse(YANCO.coarsen(9), missing=0)).astype("i2"), YANCO).dtype == "f4"


def test_what_is_not_coarse_is_not_smoothed():
    with pytest.raises(ValueError, match=r"finer than the grid's \(0.111 of a cell of 9 km\).*to_grid\(obj, grid\)"):
        smooth(coarse(YANCO), YANCO.coarsen(9))
    polar = era5(np.arange(84.9, -60, -0.05), np.arange(10, 12, 0.1))
    assert np.isfinite(smooth(polar, Grid.around((10.5, 40, 11, 41)))).all()
    with pytest.raises(ValueError, match=r"narrower than the grid's along 'latitude'.*to_grid\(obj, grid\)"):
        smooth(polar, Grid.around((10.5, 83, 11, 84)))


def test_real_retrievals_lose_their_seams(shared):
    """SPL3SMP_E over Western Australia: blocks are found at once, the smooth spread is not, and it keeps the means."""
    frames = []
    for path in sorted((shared / "smap_l3_enhanced_9km_points" / "western_australia").glob("*.nc"))[:9]:
        with xr.open_dataset(path) as points:
            frames.append(points[["latitude", "longitude", "soil_moisture"]].to_dataframe().dropna().astype("f8"))
    lon, lat = (np.concatenate([frame[name] for frame in frames]) for name in ("longitude", "latitude"))
    grid = Grid.around((lon.min() - 0.1, lat.min() - 0.1, lon.max() + 0.1, lat.max() + 0.1), km=9)
    texture = np.random.default_rng(0).normal(0, 1e-4, (grid.ny * 9, grid.nx * 9))  # else steps in blocks are all zero
    ratios, p_values = [], []
    for frame in frames:
        at = tuple(
            index - first for index, first in zip(grid.index(frame.longitude, frame.latitude), (grid.row, grid.col))
        )
        total, number = np.zeros((2, *grid.shape))
        np.add.at(total, at, frame.soil_moisture)
        np.add.at(number, at, 1)
        values = np.where(number > 0, total / np.maximum(number, 1), np.nan).astype("f4")
        field = xr.DataArray(values, grid.coords(), ("y", "x"))
        fine = smooth(field, grid.refine(9))
        known = np.isfinite(values)
        np.testing.assert_allclose(block_means(fine)[known], values[known], atol=1e-6)
        assert (np.isfinite(fine.values) == np.kron(known, np.ones((9, 9), bool))).all()
        found = seams.detect(fine, permutations=199)
        ratios.append(found.ratio.item())
        p_values.append(found.p_value.item())
        marked = seams.detect(blocks(field, grid.refine(9)) + texture, permutations=199)
        assert marked.ratio > 3 and marked.p_value == 0.005
    assert np.median(ratios) < 1.02 and min(p_values) > 0.05


@pytest.mark.parametrize("spread", [blocks, smooth])
def test_a_coarse_field_half_a_cell_off_is_refused(spread):
    field = coarse(YANCO.coarsen(9))
    with pytest.raises(ValueError, match=r"'x' axis lies -0.5 columns off the grid \(half a cell.*obj.x \+ 4504"):
        spread(field.assign_coords(x=field.x - 4504.0276), YANCO)
