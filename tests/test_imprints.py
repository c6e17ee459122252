"""Imprints of coarse fields, their borders segment by segment, straight lines, and the cosmetic."""

import warnings
from itertools import product

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from smgrid import YANCO, Grid, coarse, seams, to_grid
from smgrid.borders import source_of

GRID = Grid(1, 11469, 31406, 84, 75)  # the size of Yanco, started inside a 9-km cell: phases 3 and 5
SMALL = Grid(1, 11467, 31404, 40, 44)


def on(grid, values, **attrs):
    return xr.DataArray(values, grid.coords(), ("y", "x"), attrs=attrs)


def land(rng, grid=GRID, pad=48):
    """Synthetic truth with a margin: two textures and white noise."""
    shape = (grid.ny + 2 * pad, grid.nx + 2 * pad)
    white = rng.normal(size=(2, *shape))
    parts = [
        sd * 2 * np.sqrt(np.pi) * s * gaussian_filter(w, s, mode="wrap")
        for w, s, sd in zip(white, (8, 3), (0.05, 0.015))
    ]
    return 0.25 + sum(parts) + rng.normal(0, 0.01, shape)


def smap_of(wide, grid=GRID, blur=0, pad=48):
    """Block means of a synthetic truth, as the footprint blurs it, on the 9-km cells."""
    cells = grid.coarsen(9)
    fine = cells.refine(9)
    seen = gaussian_filter(wide, blur) if blur else wide
    r, c = pad + fine.row - grid.row, pad + fine.col - grid.col
    blocks = seen[r : r + fine.ny, c : c + fine.nx].reshape(cells.ny, 9, cells.nx, 9)
    return xr.DataArray(blocks.mean((1, 3)), cells.coords(), ("y", "x"), "smap", {"units": "m3 m-3"})


def scene(seed=0, grid=GRID, blur=0):
    wide = land(np.random.default_rng(seed), grid)
    return on(grid, wide[48:-48, 48:-48], units="m3 m-3"), smap_of(wide, grid, blur)


def era5(rng, grid=GRID, margin=0.3):
    """A synthetic field on 0.1-degree cells that cover the grid."""
    lon, lat = grid.lonlat()
    lats = np.round(np.arange(np.ceil(10 * (lat[0] + margin)), 10 * (lat[-1] - margin), -1.0) / 10, 1)
    lons = np.round(np.arange(np.floor(10 * (lon[0] - margin)), 10 * (lon[-1] + margin)) / 10, 1)
    values = rng.normal(0, 1, (lats.size, lons.size))
    return xr.DataArray(values, {"latitude": lats, "longitude": lons}, ("latitude", "longitude"), "era5")


# ---- the share that is copied


@pytest.mark.parametrize("blur", [0, 9])
@pytest.mark.parametrize("share", [0, 0.1, 0.3, 0.6, 1])
def test_beta_is_the_share_that_is_copied(share, blur):
    found = []
    for seed in range(12):
        truth, smap = scene(seed, blur=blur)
        found.append(seams.imprint((1 - share) * truth + share * coarse.blocks(smap, GRID), smap))
    beta, error = (np.array([f[name] for f in found]) for name in ("beta", "standard_error"))
    # a landscape that SMAP sees gives some .01 (1 - share) by itself
    assert beta.mean() == pytest.approx(share + 0.01 * (1 - share), abs=0.01 + 3 * error.mean() / np.sqrt(12))
    if share < 1:
        assert 0.5 < error.mean() / beta.std(ddof=1) < 2
    p = np.array([f.p_value for f in found])
    if share == 0:
        assert (p < 0.05).sum() <= 3
    if share >= 0.3:
        assert (p < 0.001).all()


def test_a_smooth_spread_leaves_no_imprint():
    for seed in range(4):
        truth, smap = scene(seed)
        mixed = 0.4 * truth + 0.6 * coarse.smooth(smap, GRID)
        found = seams.imprint(mixed, smap)
        assert abs(found.beta) < 0.05
        assert seams.detect(mixed).ratio == pytest.approx(1, abs=0.1)


def test_the_raw_step_would_be_fooled():
    """Why the jump is measured by local lines: real gradients go with the coarse field's steps."""
    truth, smap = scene(0)
    spread = coarse.blocks(smap, GRID)
    raw = [
        a.diff("x").values[:, np.flatnonzero((a.x.values[1:] * 0 + np.arange(1, 75) + GRID.col) % 9 == 0)]
        for a in (truth, spread)
    ]
    assert (raw[0] * raw[1]).sum() / (raw[1] ** 2).sum() > 0.1
    assert abs(seams.imprint(truth, smap).beta) < 0.07


def test_against_a_plain_loop():
    truth, smap = scene(3)
    field = 0.5 * truth + 0.5 * coarse.blocks(smap, GRID)
    z = np.where(np.random.default_rng(0).random(GRID.shape) < 0.05, np.nan, field.values)
    found = seams.imprint(on(GRID, z), smap)
    s, smooth = (spread(smap, GRID).values for spread in (coarse.blocks, coarse.smooth))
    weights, strips = np.array([-0.35, 0.05, 0.45, 0.85]), []
    for w, *others, first in ((z, s, smooth, GRID.col), (z.T, s.T, smooth.T, GRID.row)):
        for line in range(4, w.shape[1] - 3):
            if (line + first) % 9 == 0:
                pairs = [
                    [
                        weights[::-1] @ row[line : line + 4] - weights @ row[line - 4 : line]
                        for row in (a[r] for a in (w, *others))
                    ]
                    for r in range(w.shape[0])
                ]
                strips.append(np.array([pair for pair in pairs if np.isfinite(pair).all()]))
    top = sum((a[:, 0] * a[:, 1]).sum() for a in strips)
    bottom = sum((a[:, 1] ** 2).sum() for a in strips)
    assert found.slope.item() == pytest.approx(top / bottom, rel=1e-10)

    def fit(parts):
        rows = np.concatenate(parts)
        return np.linalg.lstsq(rows[:, 1:], rows[:, 0], rcond=None)[0][0]

    g = len(strips)
    assert found.beta.item() == pytest.approx(fit(strips), rel=1e-8)
    left_out = [fit(strips[:k] + strips[k + 1 :]) for k in range(g)]
    error = np.sqrt((1 - 1 / g) * np.sum(np.square(np.subtract(left_out, fit(strips)))))
    assert found.standard_error.item() == pytest.approx(error, rel=1e-7)
    assert (found.n, found.strips) == (sum(map(len, strips)), g)
    assert found.step.item() == pytest.approx(np.sqrt(bottom / found.n.item()), rel=1e-10)


def test_an_exact_copy():
    _, smap = scene(0)
    field = 0.1 + 0.7 * coarse.blocks(smap, GRID)
    found = seams.imprint(field, smap)
    assert found.beta.item() == pytest.approx(0.7, rel=1e-12)
    np.testing.assert_allclose(found.profile / 0.7, [0, -0.35, -0.3, 0.15, 1, 0.15, -0.3, -0.35, 0], atol=0.02)
    np.testing.assert_allclose(found.placebo, 0, atol=1e-12)


def test_several_sources_are_told_apart():
    rng = np.random.default_rng(0)
    truth, smap = scene(1)
    warm, wet = era5(rng), era5(rng).rename("wet")
    field = truth + 0.4 * coarse.blocks(smap, GRID) + 0.01 * coarse.blocks(warm, GRID)
    found = seams.imprint(field, {"smap": smap, "warm": warm, "wet": wet})
    assert found.source.values.tolist() == ["smap", "warm", "wet"]
    beta = found.beta.values
    assert beta[0] == pytest.approx(0.44, abs=0.05) and beta[1] == pytest.approx(0.01, abs=0.002)
    assert abs(beta[2]) < 0.002 and (found.p_value.values < 0.001).tolist() == [True, True, False]
    as_dataset = seams.imprint(field, xr.Dataset({"warm": warm, "wet": wet}))
    assert as_dataset.beta.dims == ("source",)


def test_exact_copies_of_several_sources():
    rng = np.random.default_rng(0)
    _, smap = scene(1)
    warm = era5(rng)
    field = 0.4 * coarse.blocks(smap, GRID) + 0.01 * coarse.blocks(warm, GRID)
    found = seams.imprint(field, {"smap": smap, "warm": warm})
    np.testing.assert_allclose(found.beta, [0.4, 0.01], rtol=1e-9)


def test_a_source_carried_over_by_area():
    rng = np.random.default_rng(2)
    warm = era5(rng)
    field = on(GRID, 0.2 + rng.normal(0, 0.003, GRID.shape)) + 0.02 * to_grid(warm, GRID)
    by_mean = seams.imprint(field, warm, how="mean")
    assert by_mean.beta.item() == pytest.approx(0.02, rel=0.03)
    assert seams.imprint(field, warm).beta.item() < 0.85 * by_mean.beta.item()  # the step is split over two lines
    assert (source_of(warm, GRID, "era5", "mean").x.wide == 1).all()
    exact = seams.imprint(0.02 * to_grid(warm, GRID), warm, how="mean")
    assert exact.beta.item() == pytest.approx(0.02, rel=1e-6)


def test_borders_of_tenths_of_a_degree():
    """At Yanco 9 or 10 columns and 10 or 11 rows apart."""
    source = source_of(era5(np.random.default_rng(0), YANCO), YANCO, "era5", "blocks")
    assert set(np.diff(source.x.line)) == {9, 10} and set(np.diff(source.y.line)) == {10, 11}
    values = source.spread.values
    for borders, z in ((source.x, values), (source.y, values.T)):
        changes = np.flatnonzero((z[:, 1:] != z[:, :-1]).any(0)) + 1
        assert borders.line.tolist() == changes.tolist()


def test_a_field_spread_over_the_maps_cells_tells_its_borders_itself():
    truth, smap = scene(0)
    field = 0.7 * truth + 0.3 * coarse.blocks(smap, GRID)
    one, other = seams.imprint(field, smap), seams.imprint(field, coarse.blocks(smap, GRID))
    xr.testing.assert_allclose(one, other, rtol=1e-12)
    warm = era5(np.random.default_rng(0))
    by_area = source_of(to_grid(warm, GRID), GRID, "era5", "blocks")
    known = source_of(warm, GRID, "era5", "mean")
    assert by_area.x.line.tolist() == known.x.line.tolist() and by_area.y.wide.tolist() == known.y.wide.tolist()


def test_days_are_matched_and_judged_one_by_one():
    (a, smap), (b, other) = scene(0), scene(1)
    days = np.array(["2015-05-05", "2015-05-17"], "M8[ns]")
    both = xr.concat([smap, other.assign_coords(smap.coords)], "time").assign_coords(time=days)
    maps = xr.concat([a, b], "time").assign_coords(time=days) * 0.5 + 0.5 * coarse.blocks(both, GRID)
    found = seams.imprint(maps, both.isel(time=[1, 0]))
    for day in range(2):
        alone = seams.imprint(maps.isel(time=day), both.isel(time=day))
        assert found.beta[day].item() == pytest.approx(alone.beta.item(), rel=1e-12)
        assert seams.imprint(maps.isel(time=day), both).beta == alone.beta
    with pytest.raises(ValueError, match="'smap' lacks 1 of the map's time, 2015-05-17"):
        seams.imprint(maps, both.isel(time=[0]))
    with pytest.raises(ValueError, match="'smap' has a dim 'time', the map has none"):
        seams.imprint(maps.isel(time=0, drop=True), both)


def test_a_wrong_place_is_said():
    truth, smap = scene(0)
    moved = Grid(9, smap_grid(smap).row, smap_grid(smap).col, *smap.shape).refine(9)
    shifted = Grid(1, moved.row + 4, moved.col + 3, *moved.shape)
    steps = on(shifted, coarse.blocks(smap, moved).values).reindex_like(truth, method="nearest", tolerance=10)
    field = 0.5 * truth + 0.5 * steps
    with pytest.warns(UserWarning, match="beside its borders"):
        found = seams.imprint(field, smap)
    assert "'smap'" in found.wrong_place


def smap_grid(smap):
    return Grid.of(smap)


@settings(max_examples=4)
@given(y=st.integers(5, 40), x=st.integers(5, 44))
def test_chunks_do_not_matter(y, x):
    truth, smap = scene(5, SMALL)
    maps = xr.concat([truth, truth**2 + 0.5 * coarse.blocks(smap, SMALL)], "time")
    lazy = maps.chunk(time=1, y=y, x=x)
    sources = {"smap": smap, "era5": era5(np.random.default_rng(0), SMALL)}
    xr.testing.assert_allclose(seams.imprint(lazy, sources), seams.imprint(maps, sources), rtol=1e-12, atol=1e-14)
    xr.testing.assert_allclose(seams.edges(lazy, smap), seams.edges(maps, smap), rtol=1e-9, atol=1e-14)
    area = seams.edges(lazy, sources["era5"], how="mean")
    xr.testing.assert_allclose(area, seams.edges(maps, sources["era5"], how="mean"), rtol=1e-9, atol=1e-14)
    xr.testing.assert_allclose(seams.correct(lazy, smap).compute(), seams.correct(maps, smap), rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda s: coarse.smooth(s, GRID), "spread smoothly"),
        (lambda s: coarse.smooth(s, GRID).assign_attrs(spreading=""), "not spread as blocks"),
        (lambda s: coarse.blocks(s, GRID).isel(x=slice(1, None)), "cut both to the same window"),
        (lambda s: s.drop_vars("spatial_ref"), "no CRS"),
        (
            lambda s: xr.DataArray(np.ones((2, 2)), Grid(36, 318, 872, 2, 2).coords(), ("y", "x")),
            "holds no border|no two",
        ),
    ],
)
def test_what_is_no_source_says_why(spoil, message):
    truth, smap = scene(0)
    with pytest.raises(ValueError, match=message):
        seams.imprint(truth.isel(y=slice(0, 5), x=slice(0, 3)) if "border" in message else truth, spoil(smap))


def test_wrong_arguments():
    truth, smap = scene(0)
    with pytest.raises(TypeError, match="a mapping of names to DataArrays, not ndarray"):
        seams.imprint(truth, smap.values)
    with pytest.raises(ValueError, match="how is 'blocks' or 'mean'"):
        seams.imprint(truth, smap, how="nearest")


# ---- edges of any cells, found without the coarse field's values


@pytest.mark.parametrize("stamped", [*product((False, True), repeat=2)])
def test_two_sources_are_separable(stamped):
    """Rejections in 20 synthetic scenes; steps of .01 as in the measured table (1.33 and 1.34; .98 and .99 without)."""
    found = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        field = on(GRID, land(rng)[48:-48, 48:-48])
        cells = GRID.coarsen(9)
        smap = xr.DataArray(rng.normal(0, 0.01, cells.shape), cells.coords(), ("y", "x"))
        warm = 0.01 * era5(rng)
        field = field + stamped[0] * coarse.blocks(smap, GRID) + stamped[1] * coarse.blocks(warm, GRID)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            nine = seams.detect(field, permutations=199)
        found.append([nine.ratio, nine.p_value, *(seams.detect(field, coarse=warm)[k] for k in ("ratio", "p_value"))])
    nine, p_nine, tenth, p_tenth = np.array(found).T
    for there, ratio, p in ((stamped[0], nine, p_nine), (stamped[1], tenth, p_tenth)):
        assert (np.median(ratio) > 1.15) == there
        assert (p <= 0.05).sum() == 20 if there else (p <= 0.05).sum() <= 4


def test_edges_of_nine_kilometres_by_either_way():
    truth, smap = scene(0)
    field = truth + 0.5 * coarse.blocks(smap, GRID)
    by_phase, by_source = seams.detect(field), seams.detect(field, coarse=smap)
    np.testing.assert_allclose(by_source.ratio_by_direction, by_phase.ratio_by_direction, rtol=1e-12)
    assert by_source.ratio.item() == pytest.approx(by_phase.ratio.item(), rel=1e-12)
    np.testing.assert_allclose(by_source.tau2, by_phase.tau2, rtol=1e-9)
    assert by_source.p_value == by_phase.shift_p_value == pytest.approx(1 / 81)
    assert by_source.profile.sel(offset=0).values.tolist() == pytest.approx(
        by_phase.profile.sel(phase=0).values.tolist()
    )


def test_split_steps_are_found_on_both_lines():
    warm = era5(np.random.default_rng(0))
    field = on(GRID, land(np.random.default_rng(1))[48:-48, 48:-48]) + 0.015 * to_grid(warm, GRID)
    assert seams.detect(field, coarse=warm, how="mean").p_value <= 2 / 81


# ---- segment by segment


def test_every_segment_has_its_place():
    truth, smap = scene(0)
    found = seams.edges(truth + coarse.blocks(smap, GRID), smap)
    table = found.to_dataframe()
    x, y = (table[table.direction == d] for d in "xy")
    assert ((x.col % 9) == 0).all() and ((y.row % 9) == 0).all()
    assert x.groupby("col").length.sum().eq(GRID.ny).all() and y.groupby("row").length.sum().eq(GRID.nx).all()
    assert set(zip(x.row % 9, x.length)) <= {(0, 9), (3, 6), (0, 6)}
    lon, lat = GRID.lonlat()
    some = x[x.length == 9].iloc[0]
    assert some.latitude == pytest.approx(lat[some.row + 4 - GRID.row], abs=1e-9)
    assert lon[some.col - 1 - GRID.col] < some.longitude < lon[some.col - GRID.col]


def test_segments_against_a_plain_loop():
    truth, smap = scene(2)
    z = np.where(np.random.default_rng(0).random(GRID.shape) < 0.03, np.nan, (truth + coarse.blocks(smap, GRID)).values)
    found = seams.edges(on(GRID, z), smap)
    s, weights = coarse.blocks(smap, GRID).values, np.array([0.85, 0.45, 0.05, -0.35])
    for segment in range(0, found.sizes["segment"], 7):
        one = found.isel(segment=segment)
        w, v = (z, s) if one.direction == "x" else (z.T, s.T)
        row, col = int(one.row) - GRID.row, int(one.col) - GRID.col
        part, line = (row, col) if one.direction == "x" else (col, row)
        rows = slice(part, part + int(one.length))
        if not 8 <= line < w.shape[1] - 8:
            continue
        jump = np.array([weights @ r[line : line + 4] - weights @ r[line - 4 : line][::-1] for r in w[rows]])
        known = np.isfinite(jump)
        assert one.n == known.sum()
        assert one.jump.item() == pytest.approx(jump[known].mean(), rel=1e-9)
        assert one.step.item() == pytest.approx((v[rows][known, line] - v[rows][known, line - 1]).mean(), abs=1e-12)
        d = np.abs(np.diff(w[rows], axis=1, prepend=np.nan))
        m = np.array([np.nanmean(d[:, line + o]) for o in range(-4, 5)])
        land_step = np.nanmean(d[:, [line + o for o in (-4, -3, -2, 2, 3, 4)]])
        assert one.excess.item() == pytest.approx(m[4] - land_step, rel=1e-9)
        others = np.delete(m, 4)
        assert one.z_score.item() == pytest.approx(
            (m[4] - others.mean()) / others.std(ddof=1) / np.sqrt(9 / 8), rel=1e-8
        )


@pytest.mark.parametrize("sd, low, high", [(0, 0, 0.01), (0.02, 0.4, 0.9), (0.05, 0.75, 1)])
def test_the_significant_share_of_the_borders(sd, low, high):
    fractions = []
    for seed in range(10):
        rng = np.random.default_rng(seed)
        cells = GRID.coarsen(9)
        smap = xr.DataArray(rng.normal(0, sd, cells.shape), cells.coords(), ("y", "x"))
        fractions.append(seams.edges(on(GRID, land(rng)[48:-48, 48:-48]) + coarse.blocks(smap, GRID)).fraction.item())
    assert low <= np.mean(fractions) <= high


def test_a_single_border_is_found_where_it_is_and_drawn_there():
    truth, _ = scene(4)
    row, col = 27 - GRID.row % 9, 36 - GRID.col % 9
    bump = truth.copy()
    bump[row : row + 9, col : col + 9] += 0.06
    found = seams.edges(bump)
    sure = found.isel(segment=(found.q_value < 0.05).values)
    places = set(zip(sure.direction.values, sure.row.values - GRID.row, sure.col.values - GRID.col))
    assert places == {("x", row, col), ("x", row, col + 9), ("y", row, col), ("y", row + 9, col)}
    drawn = seams.raster(found, bump)
    assert drawn.shape == GRID.shape and drawn.dtype == "f4"
    assert drawn[row, col] == pytest.approx(np.abs(sure.jump).max().item(), abs=0.03)
    assert drawn.notnull().sum() == 9 * 4 - 1  # they meet in one corner


def test_edges_by_date_and_raster():
    truth, smap = scene(0)
    maps = xr.concat([truth, truth + coarse.blocks(smap, GRID) * 2], "time")
    found = seams.edges(maps, smap)
    assert found.jump.dims == ("time", "segment") and found.fraction.dims == ("time",)
    assert found.fraction[0] < 0.05 < found.fraction[1]
    drawn = seams.raster(found, GRID)
    assert drawn.dims == ("time", "y", "x") and drawn[1].notnull().sum() > drawn[0].notnull().sum()
    xr.testing.assert_allclose(found.isel(time=1), seams.edges(maps.isel(time=1), smap))


def test_nothing_to_judge():
    found = seams.edges(on(SMALL, np.full(SMALL.shape, np.nan)))
    assert found.q_value.isnull().all() and np.isnan(found.fraction) and (found.n == 0).all()
    assert seams.imprint(
        on(SMALL, np.full(SMALL.shape, np.nan)), smap_of(land(np.random.default_rng(0), SMALL), SMALL)
    ).beta.isnull()


# ---- straight lines


def test_straight_lines_of_trees_are_listed():
    for seed in range(5):
        truth, smap = scene(seed)
        field = truth + 0.3 * coarse.blocks(smap, GRID)
        assert len(seams.straight_lines(field)) <= 1
        stepped = field + 0.02 * (field.x > field.x[42]) - 0.025 * (field.y < field.y[60])
        found = seams.straight_lines(stepped)
        assert {("x", GRID.col + 43), ("y", GRID.row + 61)} <= set(zip(found.direction, found["index"]))
        assert len(found) <= 4
        x = found[found["index"] == GRID.col + 43].iloc[0]
        assert x.jump == pytest.approx((stepped[:, 43] - stepped[:, 42]).mean().item(), rel=1e-9)
        lon, _ = GRID.lonlat()
        assert lon[42] < x.degrees < lon[43] and x.phase_9km == (GRID.col + 43) % 9


def test_straight_lines_by_date():
    truth, _ = scene(0)
    maps = xr.concat([truth, truth + 0.03 * (truth.x > truth.x[20])], "time").assign_coords(time=[10, 20])
    found = seams.straight_lines(maps.chunk(y=20))
    assert found.query("time == 20")["index"].tolist() == [GRID.col + 21]
    assert found.columns.tolist()[:3] == ["time", "direction", "index"]
    assert seams.straight_lines(truth * np.nan).empty


# ---- the cosmetic


@pytest.mark.parametrize("share", [0.3, 0.8])
def test_the_cosmetic_takes_the_borders_and_keeps_the_means(share):
    truth, smap = scene(0, YANCO)
    field = (1 - share) * truth + share * coarse.blocks(smap, YANCO)
    mended = seams.correct(field, smap)
    assert seams.detect(mended).ratio == pytest.approx(1, abs=0.07) and seams.detect(field).ratio > 1.3
    assert abs(seams.imprint(mended, smap).beta) < 0.03
    whole = {"y": slice(0, 81), "x": slice(0, 72)}
    means = [f.isel(whole).coarsen(y=9, x=9).mean() for f in (mended, field)]
    np.testing.assert_allclose(*means, atol=1e-7)
    assert "smoothed out after mapping" in mended.cosmetic and mended.units == "m3 m-3"


def test_the_cosmetic_says_so_on_maps_and_stays_lazy(no_compute):
    truth, smap = scene(0)
    maps = truth.astype("f4").chunk(y=20).to_dataset(name="soil_moisture").assign(status=truth.astype("u1") * 0)
    maps.attrs["title"] = "Soil moisture"
    mended = seams.correct(maps, smap, beta=0.5)
    assert mended.title == "Soil moisture (cosmetic: borders smoothed out)" and mended.soil_moisture.dtype == "f4"
    assert mended.soil_moisture.chunks is not None and "status" in mended


def test_the_cosmetic_refuses_a_spread_field():
    truth, smap = scene(0)
    with pytest.raises(ValueError, match="on its own cells"):
        seams.correct(truth, coarse.blocks(smap, GRID))
    with pytest.raises(ValueError, match="one number a date"):
        seams.correct(truth, smap, beta=smap)


# ---- maps whose place was lost


def test_a_map_clipped_to_its_own_corner_is_caught():
    rng = np.random.default_rng(0)
    cells = YANCO.coarsen(9)
    steps = xr.DataArray(rng.normal(0, 0.03, cells.shape), cells.coords(), ("y", "x"))
    whole = on(YANCO, land(rng, YANCO)[48:-48, 48:-48]) + coarse.blocks(steps, YANCO)
    part = whole.isel(y=slice(5, None), x=slice(2, None))
    corner = Grid(1, 7308, 17352, *part.shape)  # axes that start from its own corner: 0 N, 0 E
    lost = on(corner, part.values)
    with pytest.warns(UserWarning) as caught:
        seams.detect(lost)
    said = " ".join(str(w.message) for w in caught)
    assert "a corner of the map lies at 0 N, 0 E exactly" in said
    assert "its first column then lies 2 cells into a coarse cell and its first row then lies 5 cells" in said
    numbered = part.assign_coords(x=np.arange(part.x.size) + 0.5, y=-np.arange(part.y.size) - 0.5)
    with pytest.raises(ValueError, match="count pixels from the map's own corner"):
        seams.detect(numbered)
    with pytest.warns(UserWarning, match="first column then lies 2 cells"):
        seams.detect(part.values)
    assert seams.detect(part).peak_phase.values.tolist() == [0, 0]


def test_bands_of_a_large_map_add_up(monkeypatch):
    """What is done in one go, and block row by block row, is the same."""
    rng = np.random.default_rng(0)
    cells = YANCO.coarsen(9)
    smap = xr.DataArray(rng.normal(0.2, 0.03, (2, *cells.shape)), cells.coords(), ("time", "y", "x"), "smap")
    field = (coarse.blocks(smap, YANCO) + rng.normal(0, 0.01, (2, *YANCO.shape))).chunk(time=1, y=20, x=30)
    whole = seams.imprint(field, smap)
    for band in (1, 75 * 2 * 45):
        monkeypatch.setattr("smgrid.steps.BAND", band)
        xr.testing.assert_allclose(seams.imprint(field, smap), whole, rtol=1e-12)


STEPPED = on(SMALL, np.random.default_rng(0).normal(0.2, 0.01, SMALL.shape))
CELLS = SMALL.coarsen(9)
FIELD = xr.DataArray(np.random.default_rng(1).normal(0.2, 0.03, CELLS.shape), CELLS.coords(), ("y", "x"), "smap")


@pytest.mark.parametrize(
    "ask, error, message",
    [
        (lambda: seams.edges(STEPPED, FIELD.to_dataset().assign(t=FIELD)), TypeError, r"a Dataset of \['smap', 't'\]"),
        (lambda: seams.correct(STEPPED, "smap.nc"), TypeError, "coarse is one field, a DataArray, not str"),
        (lambda: seams.detect(STEPPED, coarse=[1]), TypeError, "coarse is one field, a DataArray, not list"),
        (
            lambda: seams.imprint(STEPPED[:5], FIELD),
            ValueError,
            "the map has 5 x 44 cells; .*at least 8 x 8: give a la",
        ),
        (lambda: seams.edges(STEPPED[:, :3], FIELD), ValueError, "no two cells|the map has 40 x 3 cells"),
        (lambda: seams.correct(STEPPED, FIELD, beta=np.nan), ValueError, "beta is NaN: give a number"),
        (lambda: seams.detect(STEPPED, coarse_km="9"), ValueError, "a number of km such as 9 or 36, not '9'"),
        (lambda: seams.detect(STEPPED, coarse_km=np.nan), ValueError, "such as 9 or 36, not nan"),
        (lambda: seams.detect(STEPPED, permutations=1.5), ValueError, "a whole number of them, not 1.5"),
    ],
)
def test_what_cannot_be_asked_says_what_can(ask, error, message):
    with pytest.raises(error, match=message):
        ask()


def test_the_only_field_of_a_dataset_is_meant():
    xr.testing.assert_identical(seams.edges(STEPPED, FIELD.to_dataset()), seams.edges(STEPPED, FIELD))


def test_packed_maps_are_corrected_in_numbers_that_have_room():
    packed = (1000 * STEPPED + 400 * coarse.blocks(FIELD, SMALL)).astype("i2")
    mended = seams.correct(packed, FIELD, beta=400)
    assert mended.dtype == "f4" and abs(float((mended - packed).mean())) < 5
