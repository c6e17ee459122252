"""Sums up the steps between neighbouring cells of a map, line by line, whatever its size.

A *line* lies between two neighbouring columns (for steps along x) or rows (along y) and is named after the right or
lower of them. What is said about seams follows from a few sums over each line. Blocks of a lazy map give them piece by
piece and they add up, so that chunks do not matter and memory stays bounded.
"""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import dask.array as da
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from smgrid.grid import Grid, find_crs
from smgrid.shapes import as_field

logger = logging.getLogger("smgrid")

DIRECTIONS = ("x", "y")
SLAB = 2**20  # cells taken to float64 at a time
BAND = 3 * 2**25  # cells of blocks that are folded in one go


def open_field(field: Any) -> tuple[xr.DataArray, Grid]:
    """The field with y and x last, and its window of the grid, which gives the phase.

    Raises
    ------
    ValueError
        The field has no y and x, or they are off the EASE-Grid 2.0, or they count pixels.

    Warns
    -----
    UserWarning
        The window starts at 0 N, 0 E to the cell: more likely a clipped map whose axes start from its own corner.
    """
    if isinstance(field, np.ndarray | da.Array):
        field = xr.DataArray(field, dims=[*(f"dim_{i}" for i in range(field.ndim - 2)), "y", "x"][-field.ndim :])
    values = as_field(field)
    if not {"y", "x"} <= set(values.dims):
        raise ValueError(
            f"the field has the dims {values.dims}, without 'y' and 'x': field = field.rename(latitude='y', "
            "longitude='x') or whatever they are called"
        )
    values = values.transpose(..., "y", "x")
    if values.chunks is None and values.size > 16 * SLAB:  # a large file is read, and a large array judged, by blocks
        values = values.chunk({dim: 2048 if dim in ("y", "x") else 1 for dim in values.dims})
    if not is_placed(field, values):
        logger.warning(
            "the field has no coordinates: the phase is assumed, its cells taken as 1 km and the first one as the "
            "corner of a coarse cell"
        )
        return values, Grid(1, 0, 0, values.sizes["y"], values.sizes["x"])
    grid = Grid.of(field)
    if grid.km < 0.01:
        raise ValueError(
            f"the axes say cells of {grid.cell:.3g} m, x from {grid.x[0]:g} to {grid.x[-1]:g}: they likely count pixels "
            "from the map's own corner, so where coarse cells begin is lost. Place the map: field = "
            "field.assign_coords(smgrid.Grid(km, row, col, ny, nx).coords())"
        )
    whole = Grid.whole(grid.km)
    if grid.col == whole.nx // 2 and whole.ny // 2 in (grid.row, grid.row + grid.ny):
        warnings.warn(
            "a corner of the map lies at 0 N, 0 E exactly: if its axes start from its own corner, where coarse cells "
            "begin is lost. Place it: field = field.assign_coords(smgrid.Grid(km, row, col, ny, nx).coords())",
            UserWarning,
            stacklevel=3,
        )
    return values, grid


def is_placed(field: Any, values: xr.DataArray) -> bool:
    """Whether a field says where it lies: a CRS, or coordinates on y or x."""
    return any({"y", "x"} & set(coord.dims) for coord in values.coords.values()) or (
        not isinstance(field, np.ndarray | da.Array) and find_crs(field) is not None
    )


def step_sums(z: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sums of |step|, step^2, counts and steps over all lines, for steps along x (..., 4, nx) and along y (..., 4, ny)."""
    if not isinstance(z, da.Array):
        return _sums(z), _sums(z.swapaxes(-1, -2))
    # Each block gets the last row and column of those above and to the left, so every pair is seen once.
    halo = da.overlap.overlap(z, depth={z.ndim - 2: (1, 0), z.ndim - 1: (1, 0)}, boundary="none")
    found = []
    for turned, chunks in ((halo, z.chunks), (halo.swapaxes(-1, -2), (*z.chunks[:-2], z.chunks[-1], z.chunks[-2]))):
        lines = (1,) * len(chunks[-2])
        parts = da.map_blocks(
            _block_sums,
            turned,
            new_axis=z.ndim - 2,
            chunks=(*chunks[:-2], (4,), lines, chunks[-1]),
            meta=np.empty((0,) * (z.ndim + 1)),
        )
        found.append(parts.sum(-2))
    x, y = da.compute(*found)
    return x, y


def _block_sums(z: NDArray[Any], block_id: tuple[int, ...]) -> NDArray[np.float64]:
    """`_sums` of one block with its halo, as one line of blocks: (..., 4, 1, n)."""
    top, left = (int(i > 0) for i in block_id[-2:])
    return _sums(z[..., top:, :])[..., None, left:]


def _sums(z: NDArray[Any]) -> NDArray[np.float64]:
    """Sums over axis -2 of |step|, step^2, counts and steps along axis -1; a pair belongs to its second cell."""
    out = np.zeros((*z.shape[:-2], 4, z.shape[-1]))
    for lead, rows in slabs(z.shape):
        with np.errstate(invalid="ignore"):  # infinite less infinite
            step = np.diff(z[lead][rows].astype("f8"), axis=-1)
        known = np.isfinite(step)
        step[~known] = 0
        out[lead][1:, 1:] += np.einsum("ij,ij->j", step, step), known.sum(0), step.sum(0)
        out[lead][0, 1:] += np.abs(step, out=step).sum(0)
    return out


def slabs(shape: tuple[int, ...]) -> Iterator[tuple[tuple[int, ...], slice]]:
    """Pieces of an array (..., rows, cells) of some `SLAB` cells: leading index, and rows."""
    rows = max(1, SLAB // max(1, shape[-1]))
    for lead in np.ndindex(*shape[:-2]):
        for start in range(0, shape[-2], rows):
            yield lead, slice(start, start + rows)


Fold = Callable[..., NDArray[np.float64]]


def fold_lines(
    arrays: Sequence[Any], folds: Sequence[Fold], size: int, depth: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Fold arrays (..., y, x) over the rows along each line, for steps along x (..., size, nx) and along y (..., size, ny).

    Parameters
    ----------
    arrays : numpy or Dask arrays of one shape and chunking, or `Made`; the first is an array
    folds : two functions, for steps along x and along y
        Each gets (blocks of the arrays (..., rows, depth + cells + depth), first cell of the block) with NaN beyond the
        rim, and gives (..., size, cells), which add up over the rows.
    size : int
        Sums a line.
    depth : int
        Cells that a line looks to either side.
    """
    padded, chunks = with_halo(arrays, depth)
    starts = [np.cumsum([0, *sizes]) for sizes in chunks]
    # Dask may hold all blocks of a compute at once: a large map is done in bands of rows, the rows beside read again
    cells = np.array(chunks[0]) * int(starts[1][-1]) * math.prod(padded[0].shape[:-2])
    band = np.cumsum(cells) // BAND
    x: Any = 0.0
    y: list[NDArray[np.float64]] = []
    for rows in np.split(np.arange(band.size), np.flatnonzero(np.diff(band)) + 1):
        here = slice(int(rows[0]), int(rows[-1]) + 1)
        blocks = [a.blocks[(..., here, slice(None))] for a in padded]
        sums = _fold_band(blocks, folds, [starts[0][here], starts[1]], (chunks[0][here], chunks[1]), size, depth)
        x, y = x + sums[0], [*y, sums[1]]
    return x, np.concatenate(y, -1)


def _fold_band(
    blocks: list[da.Array],
    folds: Sequence[Fold],
    starts: Sequence[NDArray[np.intp]],
    chunks: tuple[tuple[int, ...], ...],
    size: int,
    depth: int,
) -> list[NDArray[np.float64]]:
    """Sums along x and along y of some rows of blocks."""
    lead = blocks[0].chunks[:-2]
    both = da.map_blocks(
        _fold_both,
        *blocks,
        folds=folds,
        starts=starts,
        depth=depth,
        chunks=(*lead, *((1,) * len(sizes) for sizes in chunks)),
        meta=np.empty((0,) * blocks[0].ndim, object),
    )
    found = []
    for k, pairs, sizes in ((0, both, chunks), (1, both.swapaxes(-1, -2), chunks[::-1])):
        parts = da.map_blocks(
            _one_of_both,
            pairs,
            which=k,
            new_axis=pairs.ndim - 2,
            chunks=(*lead, (size,), (1,) * len(sizes[0]), sizes[1]),
            meta=np.empty((0,) * (pairs.ndim + 1)),
        )
        found.append(parts.sum(-2))
    return list(da.compute(*found))


class Window:
    """A block that is made when it is read: until its turn comes it weighs nothing."""

    def __init__(self, make: Callable[[], NDArray[np.float64]]) -> None:
        self.make = make

    def swapaxes(self, a: int, b: int) -> Window:
        """The same with two axes swapped."""
        return Window(lambda: self.make().swapaxes(a, b))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """What it is read as."""
        return np.asarray(self.make(), dtype)


class Made(NamedTuple):
    """A field that is made where it is looked at: `make(cells, rows, columns)` gives a window of it, (..., y, x)."""

    cells: da.Array  # (..., coarse y, coarse x), chunked along its leading dims only
    make: Callable[[NDArray[Any], slice, slice], NDArray[Any]]

    def with_halo(self, chunks: tuple[tuple[int, ...], ...], depth: int) -> da.Array:
        """A `Window` for every block, with so many cells of its neighbours all round, NaN beyond the rim."""
        ends = [[(b - n - depth, b + depth) for n, b in zip(sizes, np.cumsum(sizes).tolist())] for sizes in chunks]
        lead, many = self.cells.ndim - 2, [len(sizes) for sizes in chunks]
        which = da.from_array(np.arange(many[0] * many[1]).reshape((*(1,) * lead, *many)), chunks=1)
        axes = tuple(range(self.cells.ndim))
        return da.blockwise(
            self._block,
            axes,
            which,
            axes,
            self.cells,
            axes,
            ends=ends,
            depth=depth,
            adjust_chunks={lead + k: tuple(n + 2 * depth for n in sizes) for k, sizes in enumerate(chunks)},
            align_arrays=False,
            meta=np.empty((0,) * self.cells.ndim),
        )

    def _block(self, which: Any, cells: Any, ends: list[list[tuple[int, int]]], depth: int) -> Window:
        return Window(partial(self._values, which, cells, ends, depth))

    def _values(self, which: Any, cells: Any, ends: list[list[tuple[int, int]]], depth: int) -> NDArray[np.float64]:
        at = divmod(int(which.ravel()[0]), len(ends[1]))
        here = [one[k] for one, k in zip(ends, at)]
        inside = [slice(max(start, 0), min(stop, one[-1][1] - depth)) for (start, stop), one in zip(here, ends)]
        out = np.full((*cells.shape[:-2], *(stop - start for start, stop in here)), np.nan)
        rows, cols = (slice(i.start - start, i.stop - start) for i, (start, _) in zip(inside, here))
        out[..., rows, cols] = self.make(cells, *inside)
        return out


def with_halo(
    arrays: Sequence[Any], depth: int, cuts: tuple[tuple[int, ...], ...] | None = None
) -> tuple[list[da.Array], tuple[tuple[int, ...], ...]]:
    """Arrays (..., y, x), each block with `depth` cells of its neighbours all round, NaN beyond the rim.

    One halo serves both directions, so that a block is done with once it and its neighbours are there. Also gives the
    chunks along y and x without it: `cuts`, or those that the arrays have, made larger where they are thinner than it.
    """
    lazy = [a if isinstance(a, da.Array) else da.from_array(a, chunks=-1) for a in arrays if not isinstance(a, Made)]
    lazy = [a if a.dtype.kind == "f" else a.astype("f8") for a in lazy]  # NaN must have room
    if cuts is not None:
        lazy = [a.rechunk((*a.chunks[:-2], *cuts)) for a in lazy]
    sides = (lazy[0].ndim - 2, lazy[0].ndim - 1)
    if min(lazy[0].shape[-2:]) < depth:
        raise ValueError(
            f"the map has {lazy[0].shape[-2]} x {lazy[0].shape[-1]} cells; jumps are measured by lines over the cells on "
            f"both sides of a border, which needs at least {depth} x {depth}: give a larger window"
        )
    padded = [da.overlap.overlap(a, dict.fromkeys(sides, depth), dict.fromkeys(sides, np.nan)) for a in lazy]
    chunks = tuple(tuple(n - 2 * depth for n in sizes) for sizes in padded[0].chunks[-2:])
    given = iter(padded)
    return [a.with_halo(chunks, depth) if isinstance(a, Made) else next(given) for a in arrays], chunks


def turned(arrays: Sequence[da.Array]) -> tuple[list[da.Array], list[da.Array]]:
    """The arrays as they are, for steps along x, and with y last, for steps along y."""
    return list(arrays), [a.swapaxes(-1, -2) for a in arrays]


def _fold_both(
    *blocks: Any, folds: Sequence[Fold], starts: Sequence[NDArray[np.intp]], depth: int, block_id: tuple[int, ...]
) -> NDArray[np.object_]:
    """Sums along x and along y of one block, in one task: once it is done, nothing holds the block any more."""
    whole = [np.asarray(block).astype("f8", copy=False) for block in blocks]
    turns = whole, [a.swapaxes(-1, -2) for a in whole]
    firsts = starts[1][block_id[-1]], starts[0][block_id[-2]]
    sums = [
        fold([a[..., depth:-depth, :] for a in turn], int(first)) for fold, turn, first in zip(folds, turns, firsts)
    ]
    out = np.empty((*whole[0].shape[:-2], 1, 1), object)
    for at in np.ndindex(out.shape[:-2]):
        out[(*at, 0, 0)] = tuple(each[at] for each in sums)
    return out


def _one_of_both(blocks: NDArray[np.object_], which: int) -> NDArray[np.float64]:
    lead = blocks.shape[:-2]
    parts = [blocks[(*at, 0, 0)][which] for at in np.ndindex(lead)]
    return np.stack(parts).reshape(*lead, *parts[0].shape)[..., None, :]
