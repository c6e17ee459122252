"""Spreads a coarse field to the fine grid, as blocks or smoothly with its block means kept.

Blocks put their edges into every map that is made with them. The smooth spread has none, and yet the mean over each
coarse cell is what it was (Tobler's pycnophylactic property), so nothing is invented on the coarse scale.

Along one axis the surface is a quintic in each block. Two neighbours share its value and its slope at their edge, which
are fixed weights of three blocks on either side; the mean is the block's own. That is the piecewise quartic of White &
Adcroft (2008) with one more term, and other weights: theirs make the surface flat in the middle of a block and steep
beside it, Tobler's own iteration makes it steepest at the edges, and `seams.detect` finds either rhythm. The weights
here reproduce cubics; what freedom that leaves was fitted on synthetic textures, and with an eye to real 9-km
retrievals, so that a step between cells is about as large at every place in a block: within 2 % for smooth textures,
within 14 % for blocks that differ like white noise.

Taken along y and then along x, this keeps the means exactly, in one pass, and depends on seven by seven blocks only.
Tobler's iteration depends on the whole field and on when it is stopped.
"""

from __future__ import annotations

import math
from itertools import product
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from smgrid.grid import CELL_36, Grid, find_crs, is_ease2
from smgrid.overlap import Side, locate
from smgrid.regrid import carry

if TYPE_CHECKING:
    import xarray as xr

REACH = 3  # blocks on either side that a cell depends on, once missing ones are filled
HALO = 3 * REACH  # and as given: each of as many rounds of filling reaches two blocks further
# Weights of the blocks, in their order. Cubics are reproduced with them.
VALUE = np.array([9, -52, 193, 193, -52, 9]) / 300  # at an edge, of three blocks on either side
SLOPE = np.array([-6, 55, -435, 435, -55, 6]) / 300  # there, per block
BEND = np.array([1, -4, 5, 0, -5, 4, -1])  # of the quintic's last term, which is 0 at the edges and in the mean
TILE, STACK = 1024, 2**23  # cells along a side of an output chunk, and in all, at most


def blocks(field: xr.DataArray | xr.Dataset, grid: Grid) -> xr.DataArray | xr.Dataset:
    """Spread a coarse field to a fine grid as blocks.

    Each cell takes the value of the coarse cell that holds its centre. This is what the area-weighted mean of a nested
    coarse field comes to, and what puts its edges into a map.

    Parameters
    ----------
    field : DataArray or Dataset, dims (..., y, x), (..., lat, lon) or (..., latitude, longitude)
        On a coarser EASE-Grid 2.0 (SMAP at 9 or 36 km), in EPSG:6933, or on latitudes and longitudes (ERA5-Land).
    grid : Grid
        The fine grid.

    Returns
    -------
    DataArray or Dataset, dims (..., y, x), units of the field
        Lazy where the field is; NaN where the field is missing or does not reach. `spreading` in the attrs says
        "blocks", `coarse_km` the nominal side of the coarse cells where they are of the EASE-Grid family.

    Raises
    ------
    ValueError
        The field's cells are finer than the grid's, or of the EASE-Grid family but off it (by half a cell, say); and
        whatever `to_grid` refuses.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> coarse = Grid(9, 1274, 3489, 2, 2)
    >>> smap = xr.DataArray(np.arange(4.0).reshape(2, 2), coords=coarse.coords(), dims=("y", "x"))
    >>> fine = blocks(smap, coarse.refine(9))
    >>> fine.shape, fine[8:10, 8:10].values.tolist(), fine.attrs["coarse_km"]
    ((18, 18), [[0.0, 1.0], [2.0, 3.0]], 9)
    """
    sides = _sides(field, grid)
    out = carry(field, grid, sides, how="nearest")
    said = {"spreading": "blocks"} | _coarse_km(field)
    for array in out.data_vars.values() if hasattr(out, "data_vars") else [out]:
        del array.attrs["aggregation"]
        array.attrs.update(said)
    return out


def smooth(field: xr.DataArray | xr.Dataset, grid: Grid) -> xr.DataArray | xr.Dataset:
    """Spread a coarse field to a fine grid smoothly, with the mean over each coarse cell kept.

    Value and slope are continuous across the edges of the coarse cells. The mean over the fine cells whose centres lie
    in a coarse cell is that cell's value, to rounding; at the rim of the grid this holds for the whole coarse cell, of
    which the grid shows a part. Use the same spread in training and in mapping.

    Parameters
    ----------
    field : DataArray or Dataset, dims (..., y, x), (..., lat, lon) or (..., latitude, longitude)
        As for `blocks`. Missing coarse cells stay missing; towards them, and towards the rim of the field, the surface
        runs on as its known neighbours do (a straight line; between two known cells their mean). A field that reaches
        9 coarse cells beyond the grid (3 where none are missing) gives the same values in every window.
        `valid_range`, `valid_min` or `valid_max` in the attrs, where given, are kept: in a coarse cell where the
        surface would leave them, its departures from the mean are scaled down until it does not. Without them it may
        leave the range of its neighbours.
    grid : Grid
        The fine grid.

    Returns
    -------
    DataArray or Dataset, dims (..., y, x), units of the field
        As for `blocks`; `spreading` in the attrs says "smooth".

    Raises
    ------
    ValueError
        As for `blocks`.

    Notes
    -----
    The task is Tobler's (1979), the surface a variant of the piecewise quartic of White & Adcroft (2008): quintic, with
    weights fitted so that steps are as large at every place in a coarse cell (see the head of this room). Of a pure
    smooth spread, without the texture that other predictors bring into a map, `seams.detect` then finds a ratio within
    a few per cent of 1 and no phase that stands out; only where coarse cells differ like white noise do other phases,
    weakly. Tobler's iteration, run on synthetic fields until nothing moved by more than 1e-5, left ratios of 1.1 to 2.

    References
    ----------
    Tobler (1979), J. Am. Stat. Assoc. 74, 519-530, doi:10.1080/01621459.1979.10481647
    White & Adcroft (2008), J. Comput. Phys. 227, 7394-7422, doi:10.1016/j.jcp.2008.04.026
    Zhang & Shu (2010), J. Comput. Phys. 229, 3091-3120, doi:10.1016/j.jcp.2009.12.030, for keeping the valid range

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> coarse = Grid(9, 1274, 3489, 3, 3)
    >>> smap = xr.DataArray(np.linspace(0.1, 0.3, 9).reshape(3, 3), coords=coarse.coords(), dims=("y", "x"))
    >>> fine = smooth(smap, coarse.refine(9))
    >>> means = fine.coarsen(y=9, x=9).mean()
    >>> bool(abs(means.values - smap.values).max() < 1e-6), fine[4, ::9].values.round(3).tolist(), fine.spreading
    (True, [0.089, 0.114, 0.139], 'smooth')
    """
    sides = _sides(field, grid)
    lines = _lay_out(sides[0]), _lay_out(sides[1])
    template = blocks(field.chunk(), grid)  # never computed: it says what the result looks like
    for name in template.data_vars if hasattr(template, "data_vars") else [...]:
        source, out = (field, template) if name is ... else (field[name], template[name])
        stack = source.variable.transpose(..., *(side.dim for side in sides))
        out.data = _spread(stack, lines, _limits(source.attrs), out.dtype)
        out.attrs["spreading"] = "smooth"
    return template


def _sides(field: xr.DataArray | xr.Dataset, grid: Grid) -> tuple[Side, Side]:
    sides = locate(field, grid)
    finest = min(side.width for side in sides)
    if finest < 1 - 1e-6:
        raise ValueError(
            f"the field's cells are finer than the grid's ({finest:.3g} of a cell of {grid.km:g} km), so there is "
            "nothing to spread: use smgrid.to_grid(obj, grid)"
        )
    crs = find_crs(field)
    per_36 = CELL_36 / (sides[1].width * grid.cell)
    if crs is not None and is_ease2(crs) and abs(per_36 - round(per_36)) < 1e-5:
        Grid.of(field)  # cells of the family that lie off it would put every block in the wrong place
    return sides


def _coarse_km(field: xr.DataArray | xr.Dataset) -> dict[str, float]:
    try:
        return {"coarse_km": Grid.of(field).km}
    except ValueError:
        return {}


def _limits(attrs: dict[str, Any]) -> tuple[float, float]:
    low, high = attrs.get("valid_range", (-math.inf, math.inf))
    return float(attrs.get("valid_min", low)), float(attrs.get("valid_max", high))


# ---- one axis: which cells a block has, and what a cell takes from the blocks around it


class _Line(NamedTuple):
    """The blocks along an axis, from `HALO` before the window to `HALO` after it, in the order of the cells."""

    bounds: NDArray[np.int64]  # first cell of each block, and the end of the last
    pixels: NDArray[np.int64]  # index of each block in the source; -1 where the source has none
    weights: csr_array  # (cells from bounds[0], blocks)
    cells: int  # of the window

    def tiles(self) -> list[tuple[slice, slice, slice, slice]]:
        """For each tile: its cells in the window, its blocks with halo, the cells of those without halo, the crop."""
        found = []
        for start in range(0, self.cells, TILE):
            stop = min(start + TILE, self.cells)
            first, last = np.searchsorted(self.bounds, [start, stop - 1], "right") - 1
            whole = slice(int(self.bounds[first] - self.bounds[0]), int(self.bounds[last + 1] - self.bounds[0]))
            shown = slice(int(start - self.bounds[first]), int(stop - self.bounds[first]))
            found.append((slice(start, stop), slice(int(first) - HALO, int(last) + 1 + HALO), whole, shown))
        return found


def _lay_out(side: Side) -> _Line:
    """Cut an axis into blocks of whole cells: a cell belongs to the pixel that holds its centre."""
    usual = max(1, round(side.width))
    far = (HALO + 1) * max(usual, math.ceil(np.abs(np.diff(side.edges)).max()))
    pixels = np.arange(side.edges.size - 1)
    if side.edges[-1] < side.edges[0]:
        pixels = pixels[::-1]
    bounds, owners = np.zeros(0, "i8"), np.zeros(0, "i8")
    for turn in Side(side.dim, side.edges + far, side.cells + 2 * far, side.period).turns():
        cuts = np.ceil(turn - far - 0.5).astype("i8")
        near = np.flatnonzero((cuts[1:] > -far) & (cuts[:-1] < side.cells + far))
        cuts, own = cuts[near[0] : near[-1] + 2], pixels[near]
        if (np.diff(cuts) < 1).any():
            raise ValueError(
                f"some cells of the field are narrower than the grid's along {side.dim!r}, so there is nothing to "
                "spread there: use smgrid.to_grid(obj, grid)"
            )
        ghosts = _ghosts(bounds[-1], cuts[0], usual) if bounds.size else cuts[:1]
        bounds = np.concatenate([bounds, ghosts[bounds.size > 0 :], cuts[1:]])
        owners = np.concatenate([owners, np.full(ghosts.size - 1, -1), own])
    before = _ghosts(min(bounds[0], 0) - far - 2 * HALO * usual, bounds[0], usual)
    after = _ghosts(bounds[-1], max(bounds[-1], side.cells) + far + 2 * HALO * usual, usual)
    bounds = np.concatenate([before[:-1], bounds, after[1:]])
    owners = np.concatenate([np.full(before.size - 1, -1), owners, np.full(after.size - 1, -1)])
    return _Line(bounds, owners, _weights(bounds), side.cells)


def _ghosts(start: int, stop: int, usual: int) -> NDArray[np.int64]:
    """Bounds of blocks that the source lacks; next to those it has they are of the usual size."""
    rim = usual * np.arange(HALO + 1)
    if stop - start > 2 * rim[-1]:
        return np.concatenate([start + rim, stop - rim[::-1]])
    return np.unique(np.linspace(start, stop, max(1, round((stop - start) / usual)) + 1).round().astype("i8"))


def _weights(bounds: NDArray[np.int64]) -> csr_array:
    """What each cell takes from each block, (cells, blocks); nothing in the outermost blocks."""
    size = np.diff(bounds)
    block = np.repeat(np.arange(size.size), size)
    place = np.arange(bounds[0], bounds[-1]) - bounds[block]
    n = size[block][:, None]
    shares = (_integral((place + 1) / size[block]) - _integral(place / size[block])) * n
    around = block[:, None] + np.arange(-REACH, REACH + 1)
    shares[((around < 0) | (around >= size.size)).any(1)] = 0
    rows = np.broadcast_to(np.arange(place.size)[:, None], around.shape)
    around = np.clip(around, 0, size.size - 1)
    return csr_array((shares.ravel(), (rows.ravel(), around.ravel())), (place.size, size.size))


def _integral(u: NDArray[np.float64]) -> NDArray[np.float64]:
    """Integral of the surface from the near edge of a block, 0, to u, as weights of the blocks around it: (u, blocks).

    Hermite's quintic has the block's mean as its rise, and value and slope of the surface at its ends; the last term
    comes from u^2 (1 - u)^2 (1/2 - u), which leaves all of them as they are.
    """
    u = u[:, None]
    a, b, c = u**3, u**4, u**5
    out = BEND * (u * (1 - u)) ** 3 / 6
    out[:, REACH : REACH + 1] += 10 * a - 15 * b + 6 * c
    out[:, :-1] += VALUE * (u - 6 * a + 8 * b - 3 * c) + SLOPE * (u**2 - 3 * a + 3 * b - c) / 2
    out[:, 1:] += VALUE * (-4 * a + 7 * b - 3 * c) + SLOPE * (a - 2 * b + c) / 2
    return out


# ---- the surface


def _spread(stack: xr.Variable, lines: tuple[_Line, _Line], limits: tuple[float, float], dtype: np.dtype[Any]) -> Any:
    """All maps of a stack (..., blocks, blocks) on the cells of the window."""
    down, along = lines
    stack = stack.isel({dim: np.maximum(line.pixels, 0) for dim, line in zip(stack.dims[-2:], lines)})
    there = (down.pixels >= 0)[:, None] & (along.pixels >= 0)
    if stack.chunks is None:
        out = np.empty((*stack.shape[:-2], down.cells, along.cells), dtype)
        for row, col in product(down.tiles(), along.tiles()):
            window = stack[..., row[1], col[1]].values
            out[..., row[0], col[0]] = _tile(window, *_parts(lines, there, row, col), limits, dtype)
        return out

    import dask.array

    da: Any = dask.array  # which has no types
    lead, room = [], max(1, STACK // (min(TILE, down.cells) * min(TILE, along.cells)))
    for sizes in stack.chunks[:-2]:
        lead.append(tuple(min(room, size - k) for size in sizes for k in range(0, size, room)))
        room = max(1, room // max(lead[-1]))

    def block(row: Any, col: Any) -> Any:
        window: Any = stack[..., row[1], col[1]].data
        cells = row[0].stop - row[0].start, col[0].stop - col[0].start
        return da.map_blocks(
            _tile,
            window.rechunk((*lead, *window.shape[-2:])),
            *_parts(lines, there, row, col),
            limits,
            dtype,
            dtype=dtype,
            chunks=(*lead, *((n,) for n in cells)),
            meta=np.empty((0,) * stack.ndim, dtype),
        )

    return da.block([[block(row, col) for col in along.tiles()] for row in down.tiles()])


def _parts(lines: tuple[_Line, _Line], there: NDArray[np.bool_], row: Any, col: Any) -> tuple[Any, Any, Any, Any]:
    """What `_tile` needs to know of the tile where `row` and `col` meet."""
    weights = [line.weights[tile[2], tile[1]] for line, tile in zip(lines, (row, col))]
    starts = [line.bounds[tile[1]][HALO:-HALO] - line.bounds[tile[1]][HALO] for line, tile in zip(lines, (row, col))]
    return there[row[1], col[1]], weights, starts, (row[3], col[3])


def _tile(
    window: NDArray[Any],
    there: NDArray[np.bool_],
    weights: list[csr_array],
    starts: list[NDArray[np.int64]],
    shown: tuple[slice, slice],
    limits: tuple[float, float],
    dtype: np.dtype[Any],
) -> NDArray[Any]:
    """Spread every map of a stack over the whole blocks of a tile, then show the tile's cells."""
    sizes = [shown[k].stop - shown[k].start for k in (0, 1)]
    out = np.full((*window.shape[:-2], *sizes), np.nan, dtype)
    counts = [np.diff(start, append=weight.shape[0]) for start, weight in zip(starts, weights)]
    inner = slice(HALO, -HALO)
    for at in np.ndindex(window.shape[:-2]):
        means = np.where(there & np.isfinite(window[at]), window[at], np.nan).astype("f8")
        own = means[inner, inner]
        if np.isnan(own).all():
            continue
        filled = np.nan_to_num(_fill(means))  # what is still missing counts for no known block
        fine = (weights[1] @ (weights[0] @ filled).T).T
        if np.isfinite(limits).any():
            fine = _limit(fine, own, starts, counts, limits)
        fine[np.isnan(own).repeat(counts[0], 0).repeat(counts[1], 1)] = np.nan
        out[at] = fine[shown]
    return out


def _fill(means: NDArray[np.float64]) -> NDArray[np.float64]:
    """Run on into missing blocks, as far as `REACH`: between two known ones the mean, else straight on, else as beside.

    What is put there bends the surface in the known blocks next to it; their means are kept whatever it is.
    """
    for _ in range(REACH):
        if not np.isnan(means).any():
            break
        wide = np.pad(means, 2, constant_values=np.nan)
        at = {step: _shift(wide, *step) for step in product((-2, -1, 0, 1, 2), repeat=2)}
        for guesses in (
            [(at[y, x] + at[-y, -x]) / 2 for y, x in _AROUND[:4]],
            [2 * at[y, x] - at[2 * y, 2 * x] for y, x in _AROUND],
            [at[y, x] for y, x in _AROUND],
        ):
            number = sum(np.isfinite(guess).astype("f8") for guess in guesses)
            with np.errstate(invalid="ignore"):
                mean = sum(np.nan_to_num(guess) for guess in guesses) / number
            means = np.where(np.isnan(means), mean, means)
    return means


_AROUND = ((0, 1), (1, 0), (1, 1), (1, -1), (0, -1), (-1, 0), (-1, -1), (-1, 1))


def _shift(wide: NDArray[np.float64], y: int, x: int) -> NDArray[np.float64]:
    return wide[2 + y : wide.shape[0] - 2 + y, 2 + x : wide.shape[1] - 2 + x]


def _limit(
    fine: NDArray[np.float64],
    own: NDArray[np.float64],
    starts: list[NDArray[np.int64]],
    counts: list[NDArray[np.int64]],
    limits: tuple[float, float],
) -> NDArray[np.float64]:
    """Scale the departures from a block's mean until they stay within the limits; the mean stays (Zhang & Shu 2010)."""

    def extreme(of: Any) -> NDArray[np.float64]:
        return of.reduceat(of.reduceat(fine, starts[0], axis=0), starts[1], axis=1)

    with np.errstate(invalid="ignore", divide="ignore"):
        down = (own - limits[0]) / (own - extreme(np.minimum))
        up = (limits[1] - own) / (extreme(np.maximum) - own)
        share = np.clip(np.nan_to_num(np.minimum(down, up), nan=1.0, posinf=1.0, neginf=0.0), 0, 1)
    if (share == 1).all():
        return fine
    cells = [a.repeat(counts[0], 0).repeat(counts[1], 1) for a in (own, share)]
    scaled = cells[0] + cells[1] * (fine - cells[0])
    # rounding alone may still pass a limit by 1e-17
    scaled = np.clip(scaled, np.minimum(limits[0], cells[0]), np.maximum(limits[1], cells[0]))
    return np.where(cells[1] < 1, scaled, fine)
