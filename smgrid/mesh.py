"""Says where the pixels of a raster lie whose axes run askew to the grid's: UTM, sinusoidal, Homolosine and the rest.

Positions are pixels of the raster (edges are whole numbers, in the raster's own order) and cells of the whole globe's
grid, never of a window: what is computed for a pixel then is the same to the last bit, whatever window asks for it.

Not all of a map is the Earth. A point counts where the projection brings it back to where it was; it does not outside
the lobes of an interrupted projection, beyond the limb of a sinusoidal one, or where a lobe repeats a neighbour's land.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from smgrid.grid import Grid
from smgrid.overlap import OutsideError, centres, degree_edges, degrees, edges, spatial_dims

if TYPE_CHECKING:
    from pyproj import CRS

FINE = 1 / 20  # of a cell's side: pixels up to here (50 m on 1 km) are weighed by lines, coarser ones are clipped
KNOTS = 16  # pixels between points that are projected for lines, at most
BLOCK = 256  # pixels over which lines sum without a break
_STRAY = 1e-2  # pixels that a point may come back aside and still be the same point
_STRETCH = 40  # times that a cell may reach over more of a raster than its area would have it; beyond, a map is torn
_LATTICE = 17  # points along a side of the lattice that is laid over a raster or over some cells


class Window(NamedTuple):
    """Cells of the window of a grid, and the pixels that hold all that touches them."""

    down: slice
    along: slice
    rows: slice
    cols: slice

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of cells."""
        return self.down.stop - self.down.start, self.along.stop - self.along.start

    @property
    def pixels(self) -> int:
        """How many there are."""
        return (self.rows.stop - self.rows.start) * (self.cols.stop - self.cols.start)


@dataclass(frozen=True)
class Mesh:
    """The corners of a raster's pixels, seen from the grid.

    Parameters
    ----------
    dims : (hashable, hashable)
        The raster's names of its axes.
    y, x : array, pixels + 1
        Edges of the rows and of the columns, in units of the CRS, in their own order.
    crs : str
        The raster's CRS as WKT.
    grid : Grid
    """

    dims: tuple[Hashable, Hashable]
    y: NDArray[np.float64]
    x: NDArray[np.float64]
    crs: str
    grid: Grid

    @classmethod
    def of(cls, field: xr.DataArray | xr.Dataset, crs: CRS, grid: Grid) -> Mesh:
        """The mesh of a raster.

        Raises
        ------
        ValueError
            Axes that are no axes; a CRS that does not reach the coordinates; a grid wholly outside the raster.
        """
        ydim, xdim = spatial_dims(field)
        y, x = centres(field, ydim), centres(field, xdim)
        y, x = degree_edges(y, x, ydim, xdim) if crs.is_geographic else (edges(y, ydim), edges(x, xdim))
        mesh = cls((ydim, xdim), y, x, crs.to_wkt(), grid)
        if np.isnan(mesh._strides).all():
            raise ValueError(
                f"the CRS {crs.name!r} does not reach the coordinates: {xdim!r} spans {x[0]:.8g} to {x[-1]:.8g}, "
                f"{ydim!r} {y[0]:.8g} to {y[-1]:.8g}. One of the two is another raster's; write the right CRS: "
                "obj = obj.rio.write_crs('EPSG:...')"
            )
        if not mesh._reach(slice(0, grid.ny), slice(0, grid.nx)):
            raise OutsideError(
                f"the grid lies outside the field: the field spans {mesh._box()}, the grid "
                f"{degrees(np.r_[0, grid.ny], np.r_[0, grid.nx], grid)} (west, south, east, north in degrees)"
            )
        return mesh

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of pixels."""
        return self.y.size - 1, self.x.size - 1

    @property
    def period(self) -> int:
        """Cells once round the globe."""
        return _globe(self.grid.km)[2]

    # ---- there and back

    def forth(self, row: Any, col: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Rows and columns of the globe's grid at positions in the raster; NaN where the projection has no answer."""
        x, y = np.interp(col, np.arange(self.x.size), self.x), np.interp(row, np.arange(self.y.size), self.y)
        east, north = _project(self.crs, x, y)
        west, top, _ = _globe(self.grid.km)
        return (top - north) / self.grid.cell, (east - west) / self.grid.cell

    def back(self, v: Any, u: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Positions in the raster at rows and columns of the globe's grid; they go on beyond its rim."""
        west, top, period = _globe(self.grid.km)
        east, north = west + np.mod(u, period) * self.grid.cell, top - np.asarray(v) * self.grid.cell
        x, y = _project(self.crs, east, north, inverse=True)
        if self._is_geographic:  # on the turn that puts the raster's middle half a globe from either end
            x = np.mod(x - (self.x[0] + self.x[-1]) / 2 + 180, 360) + (self.x[0] + self.x[-1]) / 2 - 180
        return _place(y, self.y), _place(x, self.x)

    def counts(self, row: Any, col: Any, v: Any, u: Any) -> NDArray[np.bool_]:
        """Whether the projection brings points, and where it put them, back to where they were."""
        if self._is_geographic:
            return np.isfinite(np.add(v, u))
        r, c = self.back(v, u)
        return (np.abs(r - row) < _STRAY) & (np.abs(c - col) < _STRAY)

    def unbroken(self, rows: slice, cols: slice) -> bool:
        """Whether all of a window counts, as its rim says: what breaks a map runs through it from rim to rim."""
        step = self.every if self.is_fine else 1
        r, c = _rim(*(np.append(np.arange(part.start, part.stop, step), part.stop) for part in (rows, cols)))
        return bool(self.counts(r, c, *self.forth(r, c)).all())

    @cached_property
    def _is_geographic(self) -> bool:
        return _crs(self.crs).is_geographic

    # ---- how large the pixels are

    @cached_property
    def side(self) -> float:
        """Side of a pixel in cells, going by the axes: the same all over the raster."""
        return float(abs(np.diff(self.y).mean() * np.diff(self.x).mean()) ** 0.5 * _metres(self.crs) / self.grid.cell)

    @cached_property
    def is_fine(self) -> bool:
        """Whether lines do: small pixels of one size."""
        even = [np.abs(np.linspace(z[0], z[-1], z.size) - z).max() < 1e-2 * abs(z[1] - z[0]) for z in (self.y, self.x)]
        return self.side <= FINE * 1.001 and self.every > 1 and all(even)

    @cached_property
    def every(self) -> int:
        """Pixels between knots, so few that a cell's border is crossed at most once from one to the next."""
        most = min(KNOTS, 0.9 / float(np.nanmax(self._strides)))
        return int(2 ** np.floor(np.log2(max(most, 1))))

    @cached_property
    def _strides(self) -> NDArray[np.float64]:
        """Rows or columns of the grid, the more, that a pixel's sides run over, on a lattice over the raster."""
        row, col = (_thin(np.arange(n)) for n in self.shape)
        row, col = row[:, None], col[None]
        v, u = self.forth(row, col)
        strides = []
        for corner in ((row + 1, col), (row, col + 1)):
            v1, u1 = self.forth(*corner)
            strides += [np.abs(v1 - v), np.abs(near(u1, u, self.period) - u)]
        return np.where(self.counts(row, col, v, u), np.max(strides, axis=0), np.nan)

    @cached_property
    def middle(self) -> float:
        """A column of the globe's grid amid the raster; within half a turn from it no column comes twice."""
        row, col = (_thin(np.arange(n)) for n in self.shape)
        _, u = self.forth(row[:, None], col[None])
        known = u[np.isfinite(self._strides)]
        return float(known[known.size // 2])

    def _box(self) -> tuple[float, ...]:
        row, col = (np.linspace(0, n, 4 * _LATTICE) for n in self.shape)
        v, u = self.forth(row[:, None], col[None])
        down, along = (np.array([np.nanmin(z), np.nanmax(z)]) for z in (v - self.grid.row, u - self.grid.col))
        return degrees(down, along, self.grid)

    # ---- the pixels that some cells need

    def windows(self, down: slice, along: slice, most: int) -> Any:
        """Some cells with the pixels they need, halved until no part needs more than `most`, or many in vain.

        Returns
        -------
        Window, or nested lists of them: [[west, east]] or [[north], [south]]
        """
        window = self.window(down, along)
        cells = window.shape[0] * window.shape[1]
        tight = window.pixels * self.side**2 < 1.4 * cells or max(window.shape) <= 64
        if (window.pixels <= most and tight) or cells == 1:
            return window
        ways = [[[(down, half) for half in _halves(along)]], [[(half, along)] for half in _halves(down)]]
        ways = [way for way, parts in zip(ways, window.shape[::-1]) if parts > 1]
        best = min(ways, key=lambda way: sum(self.window(*part).pixels for row in way for part in row))
        return [[self.windows(*part, most) for part in row] for row in best]

    def window(self, down: slice, along: slice) -> Window:
        """Some cells with the pixels they need."""
        return Window(down, along, *(self._reach(down, along) or [slice(0, 0)] * 2))

    def _reach(self, down: slice, along: slice) -> list[slice]:
        """The pixels among which the projection puts the rim and the inside of some cells; none: no pixels."""
        v, u = self.grid.row + np.r_[down.start : down.stop + 1], self.grid.col + np.r_[along.start : along.stop + 1]
        v, u = _thin(v), _thin(u)
        step = max(np.diff(v).max(), np.diff(u).max())
        lattice = np.array(self.back(v[:, None], u[None]))
        low, high = _boxes(lattice, step * self.grid.cell / 6.4e6, _STRETCH * step / self.side)
        size = np.array(self.shape)[:, None]
        there = ((high > 0) & (low < size)).all(axis=0)
        if not there.any():
            return []
        unit = (self.every, BLOCK) if self.is_fine else (1, 1)
        ends = zip(low[:, there].min(axis=1), high[:, there].max(axis=1), unit, self.shape)
        return [slice(int(max(a, 0) // n * n), int(min(-(-b // n) * n, size))) for a, b, n, size in ends]

    # ---- the centres and the corners of the cells

    def covered(self, window: Window) -> NDArray[np.bool_]:
        """Whether the raster reaches over the whole of each cell: its corners all lie in it."""
        row, col = self.at(window, 0)
        inside = (row >= 0) & (row <= self.shape[0]) & (col >= 0) & (col <= self.shape[1])
        return inside[:-1, :-1] & inside[:-1, 1:] & inside[1:, :-1] & inside[1:, 1:]

    def at(self, window: Window, shift: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Positions of the cells' centres (0.5) or of their corners (0), one more each way."""
        v, u = (np.arange(part.start, part.stop + (shift == 0)) + shift for part in window[:2])
        return self.back(self.grid.row + v[:, None], self.grid.col + u[None])


class Holders:
    """The pixels that hold the centres of the cells of a window."""

    def __init__(self, mesh: Mesh, window: Window) -> None:
        self.shape, self.held = window.shape, np.ones(window.shape, bool)
        place = [z - part.start for z, part in zip(mesh.at(window, 0.5), window[2:])]
        for z, part in zip(place, window[2:]):
            self.held &= (z >= 0) & (z < part.stop - part.start)
        self.row, self.col = (np.where(self.held, z, 0).astype("intp") for z in place)

    def at_centres(self, image: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """The value at each cell's centre, and whether there is one."""
        return image[self.row, self.col], self.held


def near(u: NDArray[np.float64], there: Any, period: float) -> NDArray[np.float64]:
    """Columns on the turn round the globe that brings them nearest to others."""
    return u - period * np.round((u - there) / period)


def _project(
    crs: str, x: NDArray[np.float64], y: NDArray[np.float64], inverse: bool = False
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    x, y = np.broadcast_arrays(x, y)
    found = _transformer(crs).transform(x, y, direction="INVERSE" if inverse else "FORWARD")
    x, y = (np.where(np.isfinite(z), z, np.nan) for z in found)
    return x, y


@lru_cache(maxsize=8)
def _crs(crs: str) -> CRS:
    from pyproj import CRS

    return CRS.from_wkt(crs)


@lru_cache(maxsize=8)
def _transformer(crs: str) -> Any:
    from pyproj import Transformer

    return Transformer.from_crs(_crs(crs), 6933, always_xy=True)


@lru_cache(maxsize=8)
def _globe(km: float) -> tuple[float, float, int]:
    """West and north edge (m) of the whole globe's grid, and its columns."""
    whole = Grid.whole(km)
    return whole.bounds[0], whole.bounds[3], whole.nx


def _metres(crs: str) -> float:
    """Metres in a unit of the axes."""
    unit = float(_crs(crs).axis_info[0].unit_conversion_factor or 1)  # metres, or radians
    return unit * 6371007.2 if _crs(crs).is_geographic else unit


def _place(z: NDArray[np.float64], edges: NDArray[np.float64]) -> NDArray[np.float64]:
    """Fractional numbers of pixels; the outermost pixels go on for ever."""
    n = edges.size - 1
    if edges[-1] < edges[0]:
        return n - _place(z, edges[::-1])
    first, last = edges[1] - edges[0], edges[-1] - edges[-2]
    beyond = np.minimum(z - edges[0], 0) / first + np.maximum(z - edges[-1], 0) / last
    return np.interp(z, edges, np.arange(n + 1.0)) + beyond


def _rim(v: NDArray[Any], u: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """All points of two axes where one of the two is at its end, once round."""
    ends = [np.broadcast_arrays(v[0], u), np.broadcast_arrays(v, u[-1])]
    ends += [np.broadcast_arrays(v[-1], u[::-1]), np.broadcast_arrays(v[::-1], u[0])]
    return np.concatenate([end[0] for end in ends]), np.concatenate([end[1] for end in ends])


def _thin(z: NDArray[Any]) -> NDArray[Any]:
    """Some of the points of an axis, with both its ends."""
    return z[np.unique(np.linspace(0, z.size - 1, _LATTICE).astype(int))]


def _boxes(place: NDArray[np.float64], bend: float, most: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Lower and upper ends (2, boxes) of boxes that hold a lattice of places (2, rows, columns) and what lies between.

    Four neighbours span a box, with a margin of `bend` of the usual step for what is not straight. Where the map is
    torn among them, that is where a step is far from usual or more than `most`, each has a box of its own.
    """
    whole, usual = np.ones((place.shape[1] - 1, place.shape[2] - 1), bool), np.zeros((2, 1))
    for axis in (1, 2):
        step = np.abs(np.diff(place, axis=axis))
        known = np.isfinite(step).all(axis=0)
        middle = np.median(step[:, known], axis=1) if known.any() else np.full(2, most)
        middle = np.minimum(middle, most)[:, None]
        fair = known & (step <= 4 * middle[..., None] + 2).all(axis=0)
        whole &= fair[:, 1:] & fair[:, :-1] if axis == 1 else fair[1:] & fair[:-1]
        usual = np.maximum(usual, middle)
    corners = np.stack([place[:, :-1, :-1], place[:, :-1, 1:], place[:, 1:, :-1], place[:, 1:, 1:]])
    span, apart = corners[:, :, whole], corners[:, :, ~whole].transpose(1, 0, 2).reshape(2, -1)
    margin = 2 + bend * usual
    low = np.concatenate([span.min(axis=0) - margin, apart - 2 * usual - margin], axis=1)
    high = np.concatenate([span.max(axis=0) + margin, apart + 2 * usual + margin], axis=1)
    known = np.isfinite(low).all(axis=0)
    return low[:, known], high[:, known]


def _halves(part: slice) -> list[slice]:
    middle = (part.start + part.stop) // 2
    return [slice(part.start, middle), slice(middle, part.stop)]
