"""Says where the cells of a coarse field meet on a fine grid.

A border is a line (see `steps`) across which the coarse cell changes. SMAP's lie 9 cells apart; those of 0.1-degree
cells 9 or 10 columns and 10 or 11 rows. Where a coarse field was carried over by area, a cell that two coarse cells
share takes a mean of both, so the step is split over two lines and the border is *wide*: one mixed cell lies in it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import dask.array as da
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from smgrid import coarse as spreads
from smgrid.grid import Grid
from smgrid.overlap import Side, locate
from smgrid.regrid import to_grid
from smgrid.shapes import as_field
from smgrid.steps import step_sums

CLEAN = 1e-3  # of a cell: a border this close to a line of the fine grid splits no cell


class Borders(NamedTuple):
    """Borders along one axis of a window.

    Attributes
    ----------
    line : array of int
        The first line of each border, ascending: the first cell beyond the last that is all of the coarse cell before.
    wide : array of int
        Mixed cells in it: 0 or 1.
    """

    line: NDArray[np.int64]
    wide: NDArray[np.int64]

    def __or__(self, other: Borders) -> Borders:
        """Those of both; where one starts on the other's line, the wider."""
        line = np.union1d(self.line, other.line)
        wide = np.zeros_like(line)
        for one in (self, other):
            at = np.searchsorted(line, one.line)
            wide[at] = np.maximum(wide[at], one.wide)
        return Borders(line, wide)


class Source(NamedTuple):
    """A coarse field on the fine grid, as a map that copies it would show it, and its borders along x and along y."""

    name: str
    spread: xr.DataArray
    x: Borders
    y: Borders
    coarse: xr.DataArray | None  # on its own cells; None where the field came spread over the grid's
    onto: Callable[[Any, Grid], Any]  # spreads `coarse` over any window


def regular(grid: Grid, coarse_km: float) -> tuple[Borders, Borders]:
    """Borders along x and y of the cells of the EASE-Grid family with this side.

    Raises
    ------
    ValueError
        The side is not a whole number (2 or more) of the grid's cells.
    """
    f = cells_across(grid, coarse_km)
    found = []
    for first, n in ((grid.col, grid.nx), (grid.row, grid.ny)):
        line = np.arange(1, n)
        line = line[(line + first) % f == 0]
        found.append(Borders(line, np.zeros_like(line)))
    return found[0], found[1]


def cells_across(grid: Grid, coarse_km: float) -> int:
    """Fine cells along the side of a coarse one."""
    grid.phase(coarse_km)  # raises where it is no whole number
    f = round(coarse_km / grid.km)
    if f < 2:
        raise ValueError(
            f"a coarse cell of {coarse_km} km holds no step between {grid.km}-km cells: coarse_km is larger"
        )
    return f


def source_of(field: xr.DataArray, grid: Grid, name: str, how: str) -> Source:
    """Lay a coarse field over a fine grid and find its borders.

    Parameters
    ----------
    field : DataArray
        On its own cells, or spread as blocks on the grid's (then borders are the lines where it changes).
    grid : Grid
    name : str
    how : {"blocks", "mean"}
        How it came to the fine cells: each took the coarse cell that holds its centre, or the mean by area.

    Raises
    ------
    ValueError
        `how` is neither; the field has no borders within the grid, or is spread smoothly; whatever `locate` refuses.
    """
    if how not in ("blocks", "mean"):
        raise ValueError(f"how is 'blocks' or 'mean' (by area, as smgrid.to_grid does), not {how!r}")
    if field.attrs.get("spreading") == "smooth":
        raise ValueError(f"{name!r} is spread smoothly, so it has no borders: give the coarse field itself")
    down, along = locate(field, grid)
    own_cells = max(down.width, along.width) >= 1.5
    onto = to_grid if how == "mean" else spreads.blocks
    if not own_cells:
        spread, (x, y) = _spread_already(field, grid, name)
    else:
        side = _mixed if how == "mean" else _centred
        x, y = side(along), side(down)
        lazy = field.chunk()  # so that no more of a large grid is spread at once than is looked at
        spread = as_field(onto(lazy, grid))
    if not x.line.size + y.line.size:
        raise ValueError(f"no two cells of {name!r} meet within the grid: {grid} holds no border to look at")
    return Source(name, spread.transpose(..., "y", "x"), x, y, field if own_cells else None, onto)


def smoothly(source: Source, grid: Grid) -> Source | None:
    """The source with its smooth spread in place of the blocks; None where its own cells are not known."""
    field = source.coarse if source.coarse is not None else _gathered(source, grid)
    if field is None:
        return None
    try:
        spread = as_field(spreads.smooth(field.chunk(), grid))
    except ValueError:  # towards the poles cells of a tenth of a degree are too narrow to be spread
        return None
    return source._replace(spread=spread.transpose(..., "y", "x"), coarse=field, onto=spreads.smooth)


def _gathered(source: Source, grid: Grid) -> xr.DataArray | None:
    """One cell of each block of a field that was spread over the grid, if its blocks are of the EASE-Grid family."""
    apart = np.concatenate([np.diff(source.x.line), np.diff(source.y.line)])
    f = int(apart.min()) if apart.size else 0
    if f < 2 or (36 / grid.km) % f:
        return None
    blocks = grid.coarsen(f)
    picks = {}
    for dim, borders, first, n in (("x", source.x, grid.col, blocks.nx), ("y", source.y, grid.row, blocks.ny)):
        if ((borders.line + first) % f).any():
            return None
        start = f * (blocks.col if dim == "x" else blocks.row) - first
        picks[dim] = np.clip(start + f * np.arange(n) + f // 2, 0, (grid.nx if dim == "x" else grid.ny) - 1)
    return (
        source.spread.isel(picks).drop_vars(["x", "y", "spatial_ref"], errors="ignore").assign_coords(blocks.coords())
    )


def _centred(side: Side) -> Borders:
    """Where the pixel that holds the centre changes."""
    holders = side.holders()
    pixel = np.where(np.diff(holders.indptr) > 0, -1, -2)
    pixel[pixel == -1] = holders.indices
    line = np.flatnonzero((pixel[1:] != pixel[:-1]) & (pixel[1:] >= 0) & (pixel[:-1] >= 0)) + 1
    return Borders(line, np.zeros_like(line))


def _mixed(side: Side) -> Borders:
    """Where the pixels' edges lie; an edge within a cell mixes it."""
    found: dict[int, int] = {}
    for turn in side.turns():
        for edge in turn[1:-1]:
            near = round(float(edge))
            mixed = abs(edge - near) > CLEAN
            line = int(np.floor(edge)) if mixed else near
            if line >= 1 and line + mixed < side.cells:
                found[line] = max(found.get(line, 0), int(mixed))
    lines = sorted(found)
    return Borders(np.array(lines, "i8"), np.array([found[k] for k in lines], "i8"))


def _spread_already(field: xr.DataArray, grid: Grid, name: str) -> tuple[xr.DataArray, tuple[Borders, Borders]]:
    """The field itself, if it lies on the fine cells, and the lines where it changes; two in a row are one border."""
    if Grid.of(field) != grid:
        raise ValueError(
            f"{name!r} lies on {Grid.of(field)}, the map on {grid}: cut both to the same window, or give the coarse "
            "field on its own cells"
        )
    values = field.transpose(..., "y", "x")
    borders = []
    for sums in step_sums(values.data if isinstance(values.data, da.Array) else values.values):
        line = np.flatnonzero(sums[..., 0, :].reshape(-1, sums.shape[-1]).any(0))
        if line.size > 0.5 * sums.shape[-1]:
            raise ValueError(
                f"{name!r} changes across {line.size} of {sums.shape[-1] - 1} lines: it is not spread as blocks. Give "
                "the coarse field itself, on its own cells"
            )
        second = np.isin(line, line + 1)
        second &= ~np.r_[False, second[:-1]] if line.size else second
        wide = np.isin(line + 1, line[second]).astype("i8")
        borders.append(Borders(line[~second], wide[~second]))
    return values, (borders[0], borders[1])


def one_field(coarse: Any) -> xr.DataArray:
    """A coarse field, or the only one of a Dataset.

    Raises
    ------
    TypeError
        It is neither.
    """
    if isinstance(coarse, xr.DataArray):
        return coarse
    names = [name for name in coarse.data_vars if coarse[name].ndim] if isinstance(coarse, xr.Dataset) else []
    if len(names) != 1:
        what = f"a Dataset of {sorted(map(str, names))}" if isinstance(coarse, xr.Dataset) else type(coarse).__name__
        raise TypeError(f"coarse is one field, a DataArray, not {what}: coarse = dataset['smap'], or another of them")
    return coarse[names[0]]


def sources_of(coarse: Any, grid: Grid, how: str) -> list[Source]:
    """Every coarse field of a DataArray, a Dataset, or a mapping of names to DataArrays.

    Raises
    ------
    TypeError
        It is none of these.
    """
    if isinstance(coarse, xr.DataArray):
        return [source_of(coarse, grid, str(coarse.name or "coarse"), how)]
    if isinstance(coarse, xr.Dataset):
        coarse = {str(name): coarse[name] for name in coarse.data_vars if coarse[name].ndim}
    try:
        items = dict(coarse).items()
    except (TypeError, ValueError):
        items = {}.items()
    if not items or not all(isinstance(field, xr.DataArray) for _, field in items):
        raise TypeError(
            "coarse is a DataArray, a Dataset, or a mapping of names to DataArrays, not "
            f"{type(coarse).__name__}{'' if items else ' without any'}"
        )
    return [source_of(field, grid, str(name), how) for name, field in items]
