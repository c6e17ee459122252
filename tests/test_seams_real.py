"""Seams on real retrievals and real textures, with imprints added."""

import ast
import csv
import sys
from functools import lru_cache
from itertools import product

import numpy as np
import pytest
import rasterio
import xarray as xr

from smgrid import Grid, coarse, seams, sources


@pytest.fixture
def smap(shared):
    """SPL3SMP_E over Western Australia, nine days with swaths of their own."""
    return retrievals(shared / "smap_l3_enhanced_9km_points" / "western_australia")


@lru_cache
def retrievals(folder):
    return sources.smap.open(sorted(folder.glob("*.nc"))[:9])["smap"].load()


def texture(rng, grid, sd=0.005):
    return xr.DataArray(rng.normal(0, sd, grid.shape), grid.coords(), ("y", "x"))


def test_real_retrievals_spread_as_blocks_are_found(smap):
    grid = Grid.of(smap).refine(9)
    field = coarse.blocks(smap, grid) + texture(np.random.default_rng(0), grid)
    found = seams.imprint(field, smap)
    covered = (found.n > 20_000).values
    assert covered.sum() >= 4
    np.testing.assert_allclose(found.beta[covered], 1, atol=0.02)
    assert (found.p_value[covered] < 1e-3).all()
    assert (seams.detect(field[covered], permutations=199).p_value == 0.005).all()
    edges = seams.edges(field[covered], smap)
    table = edges[["jump", "step"]].to_dataframe()[["jump", "step"]].dropna()
    assert edges.fraction.min() > 0.05 and table.corr().jump.step > 0.9


def test_real_retrievals_spread_smoothly_pass(smap):
    grid = Grid.of(smap).refine(9)
    field = coarse.smooth(smap, grid) + texture(np.random.default_rng(0), grid)
    found = seams.imprint(field, smap)
    covered = (found.n > 20_000).values
    assert np.abs(found.beta[covered]).max() < 0.05 and (found.p_value[covered] > 0.01).all()
    # without the smooth spread beside it, the slope is fooled: neighbouring retrievals differ almost like noise
    assert found.slope[covered].max() > 0.2
    detected = seams.detect(field[covered], permutations=199)
    assert detected.ratio.median() < 1.06 and detected.ratio.max() < 1.15
    assert seams.edges(field[covered], smap).fraction.max() < 0.02


def test_the_cosmetic_on_real_retrievals(smap):
    grid = Grid.of(smap).refine(9)
    field = 0.6 * coarse.blocks(smap, grid) + texture(np.random.default_rng(0), grid)
    covered = (seams.imprint(field, smap).n > 20_000).values
    field = field[covered]
    mended = seams.correct(field, smap)
    assert np.abs(seams.imprint(mended, smap).beta).max() < 0.03
    assert (seams.detect(mended, permutations=9).ratio < seams.detect(field, permutations=9).ratio - 0.15).all()
    means = [f.coarsen(y=9, x=9).mean() for f in (field, mended)]
    np.testing.assert_allclose(*means, atol=1e-6)


@pytest.fixture
def terrain(shared):
    """Real heights, pixels taken as 1-km cells: the texture is real, the place is not."""
    with rasterio.open(shared / "dem" / "dem.tif") as file:
        z = file.read(1, masked=True).astype("f8").filled(np.nan)
    grid = Grid(1, 11469, 31406, *z.shape)
    return xr.DataArray(z / np.nanstd(np.diff(z)) * 0.01, grid.coords(), ("y", "x"))


def test_real_terrain_has_no_seams_and_shows_those_added(terrain):
    corners = product(range(0, 270, 84), range(0, 290, 75))
    windows = [terrain.isel(y=slice(r, r + 84), x=slice(c, c + 75)) for r, c in corners]
    rng = np.random.default_rng(0)
    cells = Grid.of(terrain).coarsen(9)
    steps = xr.DataArray(rng.normal(0, 0.01, cells.shape), cells.coords(), ("y", "x"))
    plain = [seams.detect(w, permutations=199).p_value.item() for w in windows]
    marked = [seams.detect(w + coarse.blocks(steps, Grid.of(w)), permutations=199).p_value.item() for w in windows]
    assert np.sum(np.array(plain) <= 0.05) <= 3 and np.mean(np.array(marked) <= 0.05) > 0.9
    found = [seams.imprint(w + coarse.blocks(steps, Grid.of(w)), steps).beta.item() for w in windows]
    assert np.mean(found) == pytest.approx(1, abs=0.15)


def test_real_patches_of_radar_and_reflectance(shared):
    """7 x 7 patches laid at random with gaps between them: many phases, few pairs each."""
    csv.field_size_limit(sys.maxsize)
    with open(shared / "samples_us_10day_s1_s2_smap" / "region_cubes_7x7" / "Region3Samples.csv") as file:
        rows = list(csv.DictReader(file))
    rng = np.random.default_rng(0)
    grid = Grid(1, 11469, 31406, 90, 90)
    for band in ("VV", "B8", "B11"):
        patches = [np.array(ast.literal_eval(row[band]), "f8") for row in rows if row[band]]
        patches = [np.where(p < -9000, np.nan, p) for p in patches if p.shape == (7, 7)]
        ratios, marked = [], []
        for _ in range(5):
            z = np.full(grid.shape, np.nan)
            for r in range(0, 81, 9):
                for c in range(0, 81, 9):
                    y, x = r + rng.integers(3), c + rng.integers(3)
                    z[y : y + 7, x : x + 7] = patches[rng.integers(len(patches))]
            off = rng.integers(0, 9, 2)
            place = Grid(1, 11466 + off[0], 31401 + off[1], *grid.shape)
            field = xr.DataArray(z, place.coords(), ("y", "x"))
            roughness = np.nanmean(np.abs(np.diff(z)))
            own = place.coarsen(9)
            steps = xr.DataArray(rng.normal(0, 1.5 * roughness, own.shape), own.coords(), ("y", "x"))
            ratios.append(seams.detect(field, permutations=99).ratio.item())
            marked.append(seams.detect(field + coarse.blocks(steps, place), permutations=99).p_value.item())
        assert np.median(ratios) == pytest.approx(1, abs=0.15)
        assert np.max(marked) <= 0.05
