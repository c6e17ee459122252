"""Lays two maps on the same cells and hands them out tile by tile.

All that compares patterns goes through here: the common mask, the phase of the coarse grid, the size of cells on the
ground, and sums by unit (9-km block) that add. Tiles are cut by the global grid and not by chunks, so the chunks of the
input change nothing, not even the last digit, and memory follows the tile and not the map.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, TypeAlias, TypeVar

import dask.array as da
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from smgrid.grid import Grid, find_crs, ground_size
from smgrid.scores import _on_axes_of, _units
from smgrid.shapes import as_field, undecoded

logger = logging.getLogger("smgrid")

Field: TypeAlias = xr.DataArray | xr.Dataset
Array: TypeAlias = NDArray[Any]
T = TypeVar("T")

TILE = 576  # cells, at most, along the side of a tile
WHOLE = 2**24  # cells of a date that may be looked at as a whole: in memory, some 130 MB a field
UNITS = 2**14  # of the bootstrap, at most: beyond it, blocks are taken 2 x 2, 4 x 4 ... to a unit
MIN_SHARE = 0.5  # of a window, or of a block, that must be known for it to count
MIN_N = 3  # common cells below which every measure is NaN


# ---- tiles


@dataclass(frozen=True, eq=False)
class Tile:
    """A piece of a sheet in float64, with a margin; NaN where not all fields are known, and off the map."""

    values: NDArray[np.float64]  # (fields, rows, columns)
    extras: NDArray[np.float64]  # (extras, rows, columns), as they are
    rows: NDArray[np.int64]  # in the global grid, margin included
    cols: NDArray[np.int64]
    halo: int
    f: int  # cells along the side of a block
    unit: int  # cells along the side of a unit of the bootstrap
    given: NDArray[np.int64]  # number of cells of the core that each field has, common or not

    def core(self, a: Array) -> Array:
        """An array (..., rows, columns) without the margin."""
        h = self.halo
        return a[..., h : a.shape[-2] - h, h : a.shape[-1] - h]

    def trim(self, halo: int) -> Tile:
        """The same tile with a smaller margin."""
        k = self.halo - halo
        cut = [slice(k, n - k) for n in self.values.shape[-2:]]
        values, extras = (a[:, cut[0], cut[1]] for a in (self.values, self.extras))
        return Tile(values, extras, self.rows[cut[0]], self.cols[cut[1]], halo, self.f, self.unit, self.given)

    @cached_property
    def fields(self) -> NDArray[np.float64]:
        """The values without the margin."""
        return self.core(self.values)

    @cached_property
    def known(self) -> NDArray[np.bool_]:
        """Common cells of the core."""
        return np.isfinite(self.fields[0])

    def by_block(self, a: Array) -> Array:
        """Sums over the blocks of a core array (..., rows, columns)."""
        return _fold(a, np.arange(0, a.shape[-2], self.f), np.arange(0, a.shape[-1], self.f))

    def spread(self, a: Array) -> Array:
        """Values of blocks on their cells."""
        return a.repeat(self.f, -2).repeat(self.f, -1)

    def by_unit(self, a: Array) -> Array:
        """Sums over the units of the bootstrap of an array over the core's cells, or over its blocks."""
        side = self.fields.shape[-1] // a.shape[-1]
        rows, cols = self.core_rows[::side] // self.unit, self.core_cols[::side] // self.unit
        return _fold(a, *(np.flatnonzero(np.diff(k, prepend=-1)) for k in (rows, cols)))

    def on_map(self, grid: Grid, side: int) -> NDArray[np.bool_]:
        """Which cells of the core have a window of so many cells that lies on the map as a whole."""
        ends = ((self.core_rows, grid.row, grid.ny), (self.core_cols, grid.col, grid.nx))
        rows, cols = ((k - side // 2 >= a) & (k - side // 2 + side <= a + n) for k, a, n in ends)
        return rows[:, None] & cols

    @property
    def core_rows(self) -> NDArray[np.int64]:
        """Global rows of the core."""
        return self.rows[self.halo : self.rows.size - self.halo]

    @property
    def core_cols(self) -> NDArray[np.int64]:
        """Global columns of the core."""
        return self.cols[self.halo : self.cols.size - self.halo]


def _fold(a: Array, rows: Array, cols: Array) -> Array:
    return np.add.reduceat(np.add.reduceat(np.asarray(a, "f8"), rows, axis=-2), cols, axis=-1)


# ---- sheets


@dataclass(frozen=True, eq=False)
class Sheet:
    """One date of a pair: fields of which only the cells count that all of them have, and extras beside them."""

    fields: tuple[Any, ...]  # (y, x), numpy or Dask: prediction, reference, and what else narrows the mask
    extras: tuple[Any, ...]
    place: Place

    def tiles(self, look: Callable[[Tile], T], halo: int = 0) -> Iterator[T]:
        """What `look` makes of each tile, in order; several at a time where there are several."""
        place, f = self.place, self.place.f
        side = max(1, TILE // f) * f
        grid = place.grid
        top, left, bottom, right = grid.row // f * f, grid.col // f * f, grid.row + grid.ny, grid.col + grid.nx
        corners = [(r, c) for r in range(top, bottom, side) for c in range(left, right, side)]

        def one(corner: tuple[int, int]) -> T:
            ends = (min(k + side, -(-end // f) * f) for k, end in zip(corner, (bottom, right)))
            spans = [np.arange(k - halo, end + halo) for k, end in zip(corner, ends)]
            return look(self._cut(spans[0], spans[1], halo))

        if len(corners) == 1:
            yield one(corners[0])
            return
        with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
            yield from pool.map(one, corners)

    def tally(self, look: Callable[[Tile], Mapping[str, Array]], halo: int = 0) -> dict[str, NDArray[np.float64]]:
        """Sums by unit: what `look` gives of each tile, (..., rows and columns of units), added up: (units, ...).

        What it calls "whole_..." is one sum for the whole map.
        """
        grid, unit = self.place.grid, self.place.unit
        row, col = grid.row // unit, grid.col // unit
        shape = -(-(grid.row + grid.ny) // unit) - row, -(-(grid.col + grid.nx) // unit) - col
        out: dict[str, NDArray[np.float64]] = {}

        def placed(tile: Tile) -> tuple[int, int, Mapping[str, Array]]:
            return int(tile.core_rows[0]) // unit - row, int(tile.core_cols[0]) // unit - col, look(tile)

        for r, c, found in self.tiles(placed, halo):
            for name, a in found.items():
                if name.startswith("whole_"):
                    out[name] = out.get(name, 0) + a
                    continue
                table = out.setdefault(name, np.zeros((*a.shape[:-2], *shape)))
                table[..., r : r + a.shape[-2], c : c + a.shape[-1]] += a
        return {
            name: a if name.startswith("whole_") else np.moveaxis(a.reshape(*a.shape[:-2], -1), -1, 0)
            for name, a in out.items()
        }

    def whole(self) -> tuple[NDArray[np.float64], ...]:
        """The fields as they are, in memory."""
        found = da.compute(*self.fields)
        return tuple(np.where(np.isfinite(a), a, np.nan).astype("f8") for a in found)

    def held(self) -> Sheet:
        """The same with its arrays in memory where it is small, so that they are read once."""
        if self.fields[0].size > WHOLE:
            return self
        n = len(self.fields)
        found = da.compute(*self.fields, *self.extras)
        return Sheet(tuple(map(np.asarray, found[:n])), tuple(map(np.asarray, found[n:])), self.place)

    def turned(self, order: tuple[int, ...]) -> Sheet:
        """The same sheet with its fields in another order: the common cells stay what they are."""
        return Sheet(tuple(self.fields[k] for k in order), self.extras, self.place)

    def _cut(self, rows: NDArray[np.int64], cols: NDArray[np.int64], halo: int) -> Tile:
        grid = self.place.grid
        r, c = rows - grid.row, cols - grid.col
        inside = [(a >= 0) & (a < n) for a, n in ((r, grid.ny), (c, grid.nx))]
        there = np.ix_(*inside)
        window = tuple(slice(a[k][0], a[k][-1] + 1) for a, k in zip((r, c), inside))
        pieces = da.compute(*(a[window] for a in (*self.fields, *self.extras)))
        stack = np.full((len(pieces), rows.size, cols.size), np.nan)
        for layer, piece in zip(stack, pieces):
            layer[there] = piece
        values, extras = stack[: len(self.fields)], stack[len(self.fields) :]
        known = np.isfinite(values)
        inner = [slice(halo, n - halo) for n in known.shape[-2:]]
        given = known[:, inner[0], inner[1]].sum((1, 2))
        values[:, ~known.all(axis=0)] = np.nan
        return Tile(values, extras, rows, cols, halo, self.place.f, self.place.unit, given)


@dataclass(frozen=True)
class Place:
    """Where the cells of a pair lie."""

    grid: Grid
    placed: bool  # False where the fields had no coordinates: cells are then taken as square
    f: int  # cells along the side of a coarse cell

    @cached_property
    def unit(self) -> int:
        """Cells along the side of a unit of the bootstrap: the coarse cell, or 2, 4, 8 ... of them."""
        side, grid = self.f, self.grid
        while -(-grid.ny // side) * -(-grid.nx // side) > UNITS:
            side *= 2
        return side

    def ground(self, rows: NDArray[np.int64] | None = None) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """East-west and north-south size of cells on the ground, m, in the given global rows (all by default)."""
        grid = self.grid
        rows = np.arange(grid.row, grid.row + grid.ny) if rows is None else rows
        if not self.placed:
            return np.full(rows.size, grid.cell), np.full(rows.size, grid.cell)
        last = Grid.whole(grid.km).ny - 1
        return ground_size(grid.km, np.clip(rows, 0, last))

    def mean_ground(self) -> tuple[float, float]:
        """East-west and north-south size of a cell on the ground, m, in the middle row."""
        dx, dy = self.ground(np.array([self.grid.row + self.grid.ny // 2]))
        return float(dx[0]), float(dy[0])


# ---- pairs


class Pair(NamedTuple):
    """Two or more fields on the same cells and dates, opened."""

    fields: tuple[xr.DataArray, ...]  # prediction, reference, others; (..., y, x)
    extras: tuple[xr.DataArray, ...]
    place: Place
    units: str | None

    @property
    def lead(self) -> tuple[Any, ...]:
        """Dims other than y and x."""
        return self.fields[0].dims[:-2]

    @property
    def lead_shape(self) -> tuple[int, ...]:
        """Their sizes."""
        return self.fields[0].shape[:-2]

    def sheet(self, at: tuple[int, ...]) -> Sheet:
        """One date."""
        return Sheet(tuple(a.data[at] for a in self.fields), tuple(a.data[at] for a in self.extras), self.place)

    def coords(self) -> dict[Any, xr.DataArray]:
        """The coordinates that are left once y and x are reduced."""
        first = self.fields[0]
        return {
            name: coord for name, coord in first.coords.items() if not {"y", "x"} & {*coord.dims} and name not in _GONE
        }


_GONE = ("spatial_ref", "crs")


def open_pair(
    prediction: Any, reference: Any, *others: Any, coarse_km: float = 9, extras: tuple[Any, ...] = ()
) -> Pair:
    """Lay fields on the cells of the first one.

    Parameters
    ----------
    prediction, reference, others : DataArray, maps or array, dims (..., y, x)
        Cells count that all of them have. Without coordinates the cells are taken as 1 km and square, and the first one
        as the corner of a coarse cell, which is logged.
    coarse_km : float
        Side of the coarse cells: a whole number of the fields' cells.
    extras : fields
        Laid beside, on the same axes, without narrowing what counts.

    Raises
    ------
    ValueError
        Axes, units or packing are not what they should be.
    """
    fields = [_named(a) for a in (prediction, reference, *others, *extras)]
    first = fields[0]
    units = _units(first, fields[1])
    for name, field in zip(("prediction", "reference"), fields):
        fault = undecoded(name, field)
        if fault is not None:
            raise ValueError(fault)
        if not {"y", "x"} <= set(field.dims):
            raise ValueError(
                f"the {name} has the dims {field.dims}, without 'y' and 'x': a pattern needs both; rename them if they "
                "are called otherwise, field = field.rename(latitude='y', longitude='x') or the like"
            )
    matched = [first, *(_on_axes_of(first, other) for other in fields[1:])]
    days = [field["time"].values for field in fields[:2] if "time" in field.coords and not field["time"].dims]
    if len(days) == 2 and days[0] != days[1]:
        logger.warning("the prediction is of %s, the reference of %s: they are compared as they are", *days)
    if any(field.chunks is not None for field in matched):  # before broadcasting: Dask would copy what was broadcast
        matched = [field if field.chunks is not None else field.chunk() for field in matched]
    flat = [field.transpose(..., "y", "x") for field in xr.broadcast(*matched)]
    placed = any({"y", "x"} & {*coord.dims} for coord in first.coords.values()) or find_crs(first) is not None
    if placed:
        grid = Grid.of(first)
    else:
        grid = Grid(1, 0, 0, flat[0].sizes["y"], flat[0].sizes["x"])
        logger.warning(
            "the fields have no coordinates: their cells are taken as 1 km and square, and the first one as the "
            "corner of a coarse cell"
        )
    grid.phase(coarse_km)  # refuses what is no whole number of cells
    n = 2 + len(others)
    return Pair(tuple(flat[:n]), tuple(flat[n:]), Place(grid, placed, round(coarse_km / grid.km)), units)


def _named(field: Any) -> xr.DataArray:
    """A field with dims; arrays end in y and x."""
    if isinstance(field, np.ndarray | da.Array):
        return xr.DataArray(field, dims=[*(f"dim_{i}" for i in range(field.ndim - 2)), "y", "x"][-field.ndim :])
    return as_field(field)


# ---- what is first asked of a sheet


class Basics(NamedTuple):
    """Number of common cells, and mean, standard deviation (ddof 0) and range of each field over them."""

    n: int
    given: NDArray[np.int64]  # number of cells that each field has, common or not
    mean: NDArray[np.float64]
    sd: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


def basics(sheet: Sheet) -> Basics:
    """Moments of each field over the common cells, merged from those of the tiles (Chan et al. 1983)."""

    def look(tile: Tile) -> tuple[Array, int, Array, Array, Array, Array]:
        values = tile.fields[:, tile.known]
        if not values.size:
            void = np.zeros(len(values))
            return tile.given, 0, void, void, void + np.inf, void - np.inf
        pilot = values[:, :1]
        shifted = values - pilot  # so that a constant has a variance of exactly 0
        mean = shifted.mean(axis=1)
        squares = ((shifted - mean[:, None]) ** 2).sum(axis=1)
        return tile.given, values.shape[1], pilot[:, 0] + mean, squares, values.min(axis=1), values.max(axis=1)

    n, k = 0, len(sheet.fields)
    given = np.zeros(k, "i8")
    mean, squares, low, high = np.zeros(k), np.zeros(k), np.full(k, np.inf), np.full(k, -np.inf)
    for given_b, m, mean_b, squares_b, low_b, high_b in sheet.tiles(look):
        given = given + given_b
        if m:
            step = mean_b - mean if n else mean_b * 0
            mean = mean + step * (m / (n + m)) if n else mean_b
            squares = squares + squares_b + step**2 * (n * m / (n + m))
            low, high, n = np.minimum(low, low_b), np.maximum(high, high_b), n + m
    if not n:
        void = np.full(k, np.nan)
        return Basics(0, given, void, void, void, void)
    return Basics(n, given, mean, np.sqrt(squares / n), low, high)


# ---- scorecards

Spec: TypeAlias = Mapping[str, tuple[tuple[str, ...], str, str | None, str, str]]
"""Entry: its own dims, long name, units ("field" and "field2" stand for those of the fields), formula, source."""


def scorecard(
    pair: Pair, judge: Callable[[Sheet], Mapping[str, Any]], spec: Spec, coords: Mapping[str, Any]
) -> xr.Dataset:
    """Judge every date and lay the findings out as a Dataset that explains itself."""
    found = [judge(pair.sheet(at).held()) for at in np.ndindex(pair.lead_shape)]
    variables = {}
    for name in found[0]:
        values = np.stack([np.asarray(one[name]) for one in found])
        key = name.removesuffix("_interval").removesuffix("_difference").removesuffix("_versus")
        dims, long_name, units, formula, source = spec[key]
        for suffix, words in (
            ("_versus", " of the other prediction"),
            ("_difference", ", prediction less the other"),
            ("_interval", ", 95 % interval"),
        ):
            if suffix in name.removeprefix(key):
                long_name += words
        if name.endswith("_interval"):
            dims = (*dims, "bound")
        attrs = {"long_name": long_name, "units": _spelt(units, pair.units), "formula": formula, "source": source}
        attrs = {key: value for key, value in attrs.items() if value}
        variables[name] = ((*pair.lead, *dims), values.reshape((*pair.lead_shape, *values.shape[1:])), attrs)
    used = {dim for dims, _, _ in variables.values() for dim in dims}
    kept = {name: value for name, value in coords.items() if name in used}
    if "bound" in used:
        kept["bound"] = ["lower", "upper"]
    return xr.Dataset(variables, coords={**pair.coords(), **kept})


def _spelt(units: str | None, own: str | None) -> str | None:
    if units == "field":
        return own
    if units == "field2":
        return None if own is None else "1" if own == "1" else f"({own})^2"
    return units


def divide(a: Any, b: Any) -> Any:
    """Quotient, NaN where the divisor is 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(np.asarray(b) != 0, np.asarray(a, "f8") / np.where(np.asarray(b) != 0, b, 1), np.nan)
