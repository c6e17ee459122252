"""Weighs coarse pixels of an askew raster: each is a polygon, cut at the borders of the cells.

A pixel's sides are taken as straight between its projected corners, and given that, areas are exact. The sides nearly
are straight (one of length s bends away from its chord by some s**2 / 8R: 1 mm at 250 m, 2 m at 10 km), and since
neighbours share corners nothing is counted twice or lost. Pixels within one cell cost one area; the others are cut at
columns, then at rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from smgrid.mesh import Mesh, Window, near

AT_ONCE = 2**15  # polygons that are worked on together
_CORNERS = ((0, 0), (0, 1), (1, 1), (1, 0))  # row and column, once round a pixel
_Pieces = tuple[NDArray[np.intp], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]


class Clip:
    """The area that each cell of a window shares with each pixel.

    Parameters
    ----------
    mesh : Mesh
    window : Window
    """

    def __init__(self, mesh: Mesh, window: Window) -> None:
        self.mesh, self.window, self.shape = mesh, window, window.shape
        areas, cells, pixels = [], [], []
        for pixel, row, col, area in self._pieces():
            row = row - (mesh.grid.row + window.down.start)
            col = (col - (mesh.grid.col + window.along.start)) % mesh.period
            here = (row >= 0) & (row < self.shape[0]) & (col < self.shape[1]) & (area > 0)
            areas.append(area[here])
            cells.append((row * self.shape[1] + col)[here].astype("i4"))
            pixels.append(pixel[here].astype("i4"))
        found = (np.concatenate(areas), (np.concatenate(cells), np.concatenate(pixels)))
        self.weights = csr_array(found, (self.shape[0] * self.shape[1], window.pixels))

    def sums(self, image: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Value times area, and known area, summed over each cell, in cells and float64."""
        there = (image == image).ravel()
        total = self.weights @ np.where(there, image.ravel(), np.float64(0))
        return total.reshape(self.shape), (self.weights @ there.astype("f8")).reshape(self.shape)

    def _pieces(self) -> Iterator[_Pieces]:
        """Number of the pixel in the window, row and column of the globe's grid, and area of each piece, in strips."""
        _, _, rows, cols = self.window
        width, unbroken = cols.stop - cols.start, self.mesh.unbroken(rows, cols)
        n = max(1, int(AT_ONCE / (width * max(1.0, self.mesh.side**2))))
        for first in range(rows.start, rows.stop, n):
            row = np.arange(first, min(first + n, rows.stop) + 1)[:, None]
            col = np.arange(cols.start, cols.stop + 1)[None]
            v, u = self.mesh.forth(row, col)
            good = _corners(np.ones(v.shape, bool) if unbroken else self.mesh.counts(row, col, v, u))
            v, u = _corners(v), _corners(u)
            number = (first - rows.start) * width
            whole = good.all(axis=0)
            for pixel, *rest in self._cut(v[:, whole], u[:, whole]):
                yield number + np.flatnonzero(whole)[pixel], *rest
            torn = np.flatnonzero(good.any(axis=0) & ~whole)
            if torn.size:
                ends = self._to_the_tear(first + torn // width, cols.start + torn % width, good[:, torn])
                for pixel, *rest in self._cut(*ends):
                    yield number + torn[pixel], *rest

    def _cut(self, v: NDArray[np.float64], u: NDArray[np.float64]) -> Iterator[_Pieces]:
        return cut(v, near(u, u[0], self.mesh.period))

    def _to_the_tear(
        self, row: NDArray[np.intp], col: NDArray[np.intp], good: NDArray[np.bool_]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Pixels of which some corners do not count, as far as they do: (8, pixels), sides cut where the map tears."""
        place = np.array([[row + r, col + c] for r, c in _CORNERS], "f8")
        points = []
        for a, b in ((0, 1), (1, 2), (2, 3), (3, 0)):
            start, stop = (np.where(good[a], *two) for two in ((place[a], place[b]), (place[b], place[a])))
            low, high = np.zeros(row.size), np.where(good[a] & good[b], 2.0, 1.0)
            for _ in range(45):
                middle = (low + high) / 2
                at = start + middle * (stop - start)
                counts = self.mesh.counts(at[0], at[1], *self.mesh.forth(at[0], at[1])) | (high > 1)
                low, high = np.where(counts, middle, low), np.where(counts, high, middle)
            low = np.where(good[a] & good[b], 1.0, low)
            end = np.where(good[a] | good[b], start + low * (stop - start), np.nan)
            start = np.where(good[a] | good[b], start, np.nan)
            points += [np.where(good[a], start, end), np.where(good[a], end, start)]
        for k in range(16):  # sides beyond the tear shrink to the point before
            points[k % 8] = np.where(np.isnan(points[k % 8]), points[k % 8 - 1], points[k % 8])
        found = np.array(points)
        return self.mesh.forth(found[:, 0], found[:, 1])


def _corners(z: NDArray[Any]) -> NDArray[Any]:
    """Of the corners of a window, those of each pixel, once round: (4, pixels)."""
    return np.stack([z[:-1, :-1], z[:-1, 1:], z[1:, 1:], z[1:, :-1]]).reshape(4, -1)


def cut(v: NDArray[np.float64], u: NDArray[np.float64]) -> Iterator[_Pieces]:
    """Cut polygons at whole numbers.

    Parameters
    ----------
    v, u : array (corners, polygons)

    Yields
    ------
    polygon, row, column, area : arrays (pieces,)
        Pieces without area may be among them.
    """
    origin = np.floor(v[0]), np.floor(u[0])
    v, u = v - origin[0], u - origin[1]  # small numbers have the finer areas
    (top, down), (left, across) = _span(v), _span(u)
    area = _area(v, u)
    for more_v, more_u, a, b in ((0, 0, v, u), (1, 0, v, u), (0, 1, u, v)):
        some = np.flatnonzero((down == more_v) & (across == more_u))
        if not some.size:
            continue
        row, col, rest = (top + origin[0])[some], (left + origin[1])[some], area[some]
        if more_v or more_u:
            part = below(a[:, some], b[:, some], (top if more_v else left)[some] + 1)
            yield some, row, col, part
            rest = rest - part
        yield some, row + more_v, col + more_u, rest
    some = np.flatnonzero((down > 1) | (across > 1) | (down & across > 0))
    if some.size:
        for polygon, row, col, part in _cut_both(v[:, some], u[:, some]):
            yield some[polygon], row + origin[0][some[polygon]], col + origin[1][some[polygon]], part


def below(a: NDArray[np.float64], b: NDArray[np.float64], line: NDArray[np.float64]) -> NDArray[np.float64]:
    """Area of what polygons (corners, polygons) have where a < line.

    Green's theorem with a - line for the height: what lies beyond has none, and of a side that crosses, as much of its
    width counts as of its height is left.
    """
    height = [np.minimum(corner - line, 0) for corner in a]
    twice = np.zeros(a.shape[1])
    for i, j in _sides(a):
        rise = a[j] - a[i]
        share = np.divide(height[j] - height[i], rise, out=np.ones_like(rise), where=rise != 0)
        twice += (height[i] + height[j]) * share * (b[j] - b[i])
    return np.abs(twice) / 2


def _cut_both(v: NDArray[np.float64], u: NDArray[np.float64]) -> Iterator[_Pieces]:
    """Any polygons: to columns as polygons of thrice the corners, these to rows."""
    left, across = _span(u)
    polygon, col = _each_of(left, across)
    for some in np.array_split(np.arange(polygon.size), -(-polygon.size * 4 // AT_ONCE)):
        at, c = polygon[some], col[some]
        sv, su = _between(v[:, at], u[:, at], c)
        top, down = _span(sv)
        strip, row = _each_of(top, down)
        sv, su = sv[:, strip], su[:, strip]
        area = below(sv, su, row + 1) - below(sv, su, row)
        yield at[strip], row, c[strip], np.maximum(area, 0)


def _between(
    v: NDArray[np.float64], u: NDArray[np.float64], col: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Polygons within col <= u <= col + 1: sides broken at both lines, what lies beyond pressed flat onto them."""
    run, rise = _next(u) - u, _next(v) - v
    still = run == 0
    at = [np.clip(np.divide(col + k - u, run, out=np.zeros_like(u), where=~still), 0, 1) for k in (0, 1)]
    first, second = np.minimum(*at), np.maximum(*at)
    corners = (3 * len(u), u.shape[1])
    su = np.stack([u, u + first * run, u + second * run], axis=1).reshape(corners)
    return np.stack([v, v + first * rise, v + second * rise], axis=1).reshape(corners), np.clip(su, col, col + 1)


def _span(z: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """First whole unit that polygons reach into, and how many more."""
    first = np.floor(reduce(np.minimum, z))
    return first, np.maximum(np.ceil(reduce(np.maximum, z)) - 1 - first, 0).astype("intp")


def _each_of(first: NDArray[np.float64], more: NDArray[np.intp]) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Which polygon, and which unit of those that it reaches into."""
    which = np.repeat(np.arange(more.size), more + 1)
    start = np.cumsum(more + 1) - (more + 1)
    return which, first[which] + (np.arange(which.size) - start[which])


def _sides(z: NDArray[Any]) -> list[tuple[int, int]]:
    """First and second corner of each side."""
    return [(k - 1, k) for k in range(len(z))]


def _next(z: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.roll(z, -1, axis=0)


def _area(v: NDArray[np.float64], u: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.abs(sum((v[i] * u[j] - v[j] * u[i] for i, j in _sides(v)), np.zeros(v.shape[1]))) / 2
