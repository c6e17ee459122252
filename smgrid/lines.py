"""Weighs small pixels of an askew raster by line integrals, near exact at the price of one running sum.

A line runs through the middle of each row of pixels. It is cut where it crosses the border of a cell, wherever in a
pixel that is; a piece's sum is the difference of two running sums, its weight its length times the area of a pixel
there. Where a border runs along the row rather than across it, several lines share the row. Only every 16th corner is
projected, in between the map is taken as bilinear (within 1 mm for 10-m pixels).

Lines end and running sums start anew at fixed pixels of the raster, so that no window changes a bit.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from smgrid.mesh import BLOCK, Mesh, Window, near

SPACING, MOST = 1 / 800, 16  # of a cell, between lines that share a row; and how many do at most
STRIP = 128  # rows that are worked on together
GROUP = 8  # pixels that running sums step over; a cut sums the few of its own group
_STEP = 2.0**-24  # of a pixel: places are rounded, so that line numbers can be added to them without further rounding


class _Lines(NamedTuple):
    """Lines of a strip of rows, each within one block."""

    row: NDArray[np.intp]
    block: NDArray[np.intp]
    shift: NDArray[np.float64]  # of the row's height, from its upper edge
    first: NDArray[np.intp]  # (rows, blocks): number of the first line there
    number: NDArray[np.intp]  # (rows, blocks): how many there are


class _Strip(NamedTuple):
    """The pieces of a strip's lines."""

    rows: slice
    group: NDArray[np.intp]  # of each cut, the group of pixels that it lies in
    at: NDArray[np.intp]  # where the running sum up to there is
    part: NDArray[np.float64]  # pixels of the group before the cut
    piece: NDArray[np.intp]  # pieces run from these cuts, each to the next
    cell: NDArray[np.intp]
    weight: NDArray[np.float64]  # area of a pixel's length of the line, in cells
    area: NDArray[np.float64]  # of the piece


class Lines:
    """The lengths of lines that each cell of a window holds.

    Parameters
    ----------
    mesh : Mesh
        Of small pixels (`Mesh.is_fine`).
    window : Window
        Where the projection is whole (`Mesh.unbroken`).
    """

    def __init__(self, mesh: Mesh, window: Window) -> None:
        self.mesh, self.window, self.shape = mesh, window, window.shape
        _, _, rows, cols = window
        self.blocks = -(-(cols.stop - cols.start) // BLOCK)
        self.rows, self.cols = (np.append(np.arange(z.start, z.stop, mesh.every), z.stop) for z in (rows, cols))
        v, u = mesh.forth(self.rows[:, None], self.cols[None])
        self.places = v, near(u, mesh.middle, mesh.period)
        self.areas = self._areas()
        starts = range(rows.start // STRIP * STRIP, rows.stop, STRIP)
        self.strips = [self._cut(max(start, rows.start), min(start + STRIP, rows.stop)) for start in starts]
        self.cells = np.concatenate([strip.cell for strip in self.strips])
        self.scale = np.ones(self.shape)
        whole = self._gather([strip.area for strip in self.strips])
        inside = mesh.covered(window) & (whole > 0)
        self.scale[inside] = 1 / whole[inside]  # the lines of a cell add up to its area but for some 1e-4

    # ---- the geometry

    def _areas(self) -> NDArray[np.float64]:
        """Mean area of a pixel between knots, in cells: half the product of the diagonals."""
        (v1, u1), (v2, u2) = ([f(z) for z in self.places] for f in (_falling, _rising))
        return np.abs(v1 * u2 - v2 * u1) / 2 / np.outer(np.diff(self.rows), np.diff(self.cols))

    def _cut(self, start: int, stop: int) -> _Strip:
        """Cut the lines of some rows at the borders of cells."""
        every, offset = self.mesh.every, int(self.cols[0])
        above = (start - int(self.rows[0])) // every
        rows = self.rows[above : -(-(stop - int(self.rows[0])) // every) + 1] - start
        v, u = (z[above : above + rows.size] for z in self.places)
        met = [self._met(z, rows) for z in (v, u)]
        lines = self._lines(met, stop - start)
        width = np.minimum(BLOCK, self.cols[-1] - offset - BLOCK * np.arange(self.blocks))[lines.block]
        number = np.arange(lines.row.size)
        cuts = [
            (number, np.zeros(number.size)),
            (number, width),
            *(self._crossings(z, rows, lines, *m) for z, m in zip((v, u), met)),
        ]
        # One number for a line and a place on it: sorted, the cuts lie in the order of the lines.
        keys = np.sort(np.concatenate([line * (2.0 * BLOCK) + place for line, place in cuts]))
        line = (keys / (2 * BLOCK)).astype("intp")
        place = keys - line * (2.0 * BLOCK)
        piece = np.flatnonzero((line[1:] == line[:-1]) & (place[1:] > place[:-1]))
        # The middle of a piece says which cell it lies in.
        on, middle = line[piece], (place[piece] + place[piece + 1]) / 2
        middle += BLOCK * lines.block[on]
        left = np.minimum(middle.astype("intp") // every, self.cols.size - 2)
        along = (middle - (self.cols[left] - offset)) / (self.cols[left + 1] - self.cols[left])
        top, down = self._way(lines.row[on], lines.shift[on], rows)
        row, col = (np.floor(_bilinear(z, top, left, down, along)).astype("intp") for z in (v, u))
        row -= self.mesh.grid.row + self.window.down.start
        col = (col - (self.mesh.grid.col + self.window.along.start)) % self.mesh.period
        here = np.flatnonzero((row >= 0) & (row < self.shape[0]) & (col < self.shape[1]))
        piece, on = piece[here], on[here]
        weight = self.areas[above + top[here], left[here]] / lines.number[lines.row[on], lines.block[on]]
        # Running sums have one number more in each block than there are groups.
        block = (lines.row * self.blocks + lines.block)[line]
        group = np.minimum(place.astype("intp") // GROUP, BLOCK // GROUP - 1)
        return _Strip(
            slice(start - int(self.rows[0]), stop - int(self.rows[0])),
            block * (BLOCK // GROUP) + group,
            block * (BLOCK // GROUP + 1) + group,
            place - GROUP * group,
            piece,
            (row * self.shape[1] + col)[here],
            weight,
            weight * (place[piece + 1] - place[piece]),
        )

    def _met(
        self, z: NDArray[np.float64], rows: NDArray[np.intp]
    ) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.bool_]]:
        """Rows of pixels between four knots that a border passes, the knots' column, and whether it passes along."""
        low = np.floor(z)
        corners = np.stack([low[:-1, :-1], low[:-1, 1:], low[1:, :-1], low[1:, 1:]])
        top, left = np.nonzero(corners.min(axis=0) != corners.max(axis=0))
        edge = rows[top, None] + np.arange(self.mesh.every + 1)
        way = (edge - rows[top, None]) / np.diff(rows)[top, None]
        sides = np.floor([z[top, k, None] + way * np.diff(z, axis=0)[top, k, None] for k in (left, left + 1)])
        low, high = sides.min(axis=0), sides.max(axis=0)
        passes = np.minimum(low[:, 1:], low[:, :-1]) != np.maximum(high[:, 1:], high[:, :-1])
        patch, row = np.nonzero(passes & (way[:, :-1] < 1))
        top, left = top[patch], left[patch]
        fall = np.abs(z[top + 1, left] - z[top, left]) / np.diff(rows)[top]
        run = np.abs(z[top, left + 1] - z[top, left]) / np.diff(self.cols)[left]
        return rows[top] + row, left, fall > run

    def _lines(self, met: list[Any], rows: int) -> _Lines:
        """One line to a row, but several in those blocks of it that a border runs along."""
        count = np.ones((rows, self.blocks), "intp")
        for row, left, passes_along in met:
            count[row[passes_along], left[passes_along] * self.mesh.every // BLOCK] = min(
                MOST, np.ceil(self.mesh.side / SPACING)
            )
        last = np.cumsum(count).reshape(count.shape)
        at = np.repeat(np.arange(count.size), count.ravel())
        row, block = at // self.blocks, at % self.blocks
        place = np.arange(at.size) - (last - count)[row, block]
        return _Lines(row, block, (place + 0.5) / count[row, block], last - count, count)

    def _crossings(
        self,
        z: NDArray[np.float64],
        rows: NDArray[np.intp],
        lines: _Lines,
        row: NDArray[np.intp],
        left: NDArray[np.intp],
        _: NDArray[np.bool_],
    ) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
        """Lines, and places on them from their block's start, where rows (or columns) of cells change."""
        block = left * self.mesh.every // BLOCK
        count = lines.number[row, block]
        each = np.repeat(np.arange(row.size), count)
        line = lines.first[row, block][each] + np.arange(each.size) - (np.cumsum(count) - count)[each]
        top, down = self._way(lines.row[line], lines.shift[line], rows)
        one, two = (z[top, k] + down * (z[top + 1, k] - z[top, k]) for k in (left[each], left[each] + 1))
        border = np.maximum(np.floor(one), np.floor(two))
        cut = np.flatnonzero(np.floor(one) != np.floor(two))
        share = (border[cut] - one[cut]) / (two[cut] - one[cut])
        left = left[each[cut]]
        place = self.cols[left] - self.cols[0] - BLOCK * block[each[cut]] + share * np.diff(self.cols)[left]
        return line[cut], np.round(place / _STEP) * _STEP

    def _way(
        self, row: NDArray[np.intp], shift: NDArray[np.float64], rows: NDArray[np.intp]
    ) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
        """The knots above places in rows, and the share of the way down to the next."""
        top = row // self.mesh.every
        return top, ((row - rows[top]) + shift) / np.diff(rows)[top]

    # ---- the sums

    def sums(self, image: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Value times area, and known area, summed over each cell, in cells and float64."""
        shape = (min(STRIP, len(image)), self.blocks * BLOCK)
        values, missing = np.zeros(shape), np.zeros(shape, "u1")
        totals, areas = [], []
        for strip in self.strips:
            part = image[strip.rows]
            here = np.s_[: part.shape[0], : part.shape[1]]
            gaps = part != part
            areas.append(strip.area)
            if gaps.any():
                part = np.fmax(part, 0) + np.fmin(part, 0)  # NaN becomes 0, four times as fast as np.where
                missing[here] = gaps
                areas[-1] = strip.area - self._pieces(strip, missing)
            values[here] = part
            totals.append(self._finite(strip, values))
        return self._gather(totals), self._gather(areas)

    def _finite(self, strip: _Strip, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Sums of which infinite values spoil none but their own pieces."""
        with np.errstate(invalid="ignore"):
            found = self._pieces(strip, values)
        if np.isfinite(found).all():
            return found
        found = self._pieces(strip, np.where(np.isinf(values), 0, values))
        for value in (np.inf, -np.inf):
            touched = self._pieces(strip, (values == value).view("u1")) > 1e-6 * strip.weight
            with np.errstate(invalid="ignore"):
                found[touched] += value
        return found

    def _pieces(self, strip: _Strip, values: NDArray[Any]) -> NDArray[np.float64]:
        """Sum over each piece, times its weight, of values in float64 or of ones and noughts in a byte."""
        sums = values = values[: strip.rows.stop - strip.rows.start]
        while sums.shape[1] > values.shape[1] // GROUP:
            sums = sums[:, ::2] + sums[:, 1::2]
        running = np.zeros((len(values), self.blocks, BLOCK // GROUP + 1))
        np.cumsum(sums.reshape(len(values), self.blocks, -1), 2, running.dtype, running[..., 1:])
        until = running.reshape(-1)[strip.at]
        for k in range(GROUP):
            until += values.reshape(-1, GROUP)[strip.group, k] * np.clip(strip.part - k, 0, 1)
        return (until[strip.piece + 1] - until[strip.piece]) * strip.weight

    def _gather(self, pieces: list[NDArray[np.float64]]) -> NDArray[np.float64]:
        """Sums of pieces over their cells."""
        size = self.shape[0] * self.shape[1]
        return np.bincount(self.cells, np.concatenate(pieces), size).reshape(self.shape) * self.scale


def _falling(z: NDArray[np.float64]) -> NDArray[np.float64]:
    return z[1:, 1:] - z[:-1, :-1]


def _rising(z: NDArray[np.float64]) -> NDArray[np.float64]:
    return z[1:, :-1] - z[:-1, 1:]


def _bilinear(z: NDArray[np.float64], row: Any, col: Any, down: Any, along: Any) -> NDArray[np.float64]:
    left, right = (z[row, k] + down * (z[row + 1, k] - z[row, k]) for k in (col, col + 1))
    return left + along * (right - left)
