"""Weighs small pixels of an askew raster by line integrals, near exact at the price of one running sum.

Each row of pixels is cut into some lines. A line is cut where it crosses a cell's border, wherever in a pixel that is;
a piece's sum is the difference of two running sums, its weight its length times the area of a pixel there. Only every
16th corner is projected, in between the map is taken as bilinear (within 1 mm for 10-m pixels). What is not exact is
what lies between two lines: 2.5 m apart on a 1-km cell, they miss the mean by some 1e-4 of the spread between cells.

Running sums start anew at fixed pixels of the raster, so that no window changes a bit.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from smgrid.mesh import BLOCK, Mesh, Window, near

SPACING = 1 / 400  # of a cell, between lines
STRIP = 256  # rows that are worked on together
_Pairs = tuple[NDArray[np.intp], NDArray[np.intp]]


class _Strip(NamedTuple):
    """The lines of some rows of a window, cut to pieces."""

    rows: slice
    at: NDArray[np.intp]  # where in the running sums the cuts are
    part: NDArray[np.float64]  # of the pixel there that lies before the cut
    piece: NDArray[np.intp]  # pieces run from these cuts, each to the next
    hops: list[_Pairs]  # pieces that run on into the next block, and the block they leave
    cell: NDArray[np.intp]
    weight: NDArray[np.float64]  # area of a pixel's length of the line, in cells


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
        self.count = int(np.clip(np.ceil(mesh.side / SPACING), 4, 16))  # lines to a row
        self.blocks = -(-(cols.stop - cols.start) // BLOCK)
        self.knots = [np.append(np.arange(z.start, z.stop, mesh.every), z.stop) for z in (rows, cols)]
        v, u = mesh.forth(self.knots[0][:, None], self.knots[1][None])
        self.places = v, near(u, mesh.middle, mesh.period)
        self.area = self._areas()
        starts = range(rows.start // STRIP * STRIP, rows.stop, STRIP)
        self.strips = [self._cut(max(start, rows.start), min(start + STRIP, rows.stop)) for start in starts]
        self.cells = np.concatenate([strip.cell for strip in self.strips])
        self.scale = np.ones(self.shape)
        self.full = [self._pieces(strip, self._ones(strip)) for strip in self.strips]
        whole = self._gather(self.full)
        full = mesh.covered(window) & (whole > 0)
        self.scale[full] = 1 / whole[full]  # the lines of a cell add up to its area but for some 1e-4

    # ---- the geometry

    def _areas(self) -> NDArray[np.float64]:
        """Mean area of a pixel between knots, in cells: half the product of the diagonals."""
        (v, u), (rows, cols) = self.places, self.knots
        (v1, u1), (v2, u2) = ((z[1:, 1:] - z[:-1, :-1] for z in (v, u)), (z[1:, :-1] - z[:-1, 1:] for z in (v, u)))
        return np.abs(v1 * u2 - v2 * u1) / 2 / np.outer(np.diff(rows), np.diff(cols))

    def _cut(self, start: int, stop: int) -> _Strip:
        """Cut the lines of some rows at the borders of cells."""
        (rows, cols), count = self.knots, self.count
        line = np.arange((stop - start) * count)
        row = (start + line // count) + (line % count + 0.5) / count
        above = (row.astype("intp") - rows[0]) // self.mesh.every
        share = ((row - rows[above]) / (rows[above + 1] - rows[above]))[:, None]
        v, u = (z[above] + share * np.diff(z, axis=0)[above] for z in self.places)
        # One number for a line and a place on it: sorted, the cuts lie in the order of the lines.
        size = 2.0 ** int(self.mesh.shape[1]).bit_length()
        before = start % STRIP * count  # lines are counted from a fixed row of the raster too
        ends = [(line, np.full(line.size, float(end))) for end in (cols[0], cols[-1])]
        cuts = [(a + before) * size + b for a, b in (*ends, *(self._crossings(z) for z in (v, u)))]
        keys = np.sort(np.concatenate(cuts))
        on = np.floor(keys / size)
        place = keys - on * size
        on = on.astype("intp") - before
        piece = np.flatnonzero((on[1:] == on[:-1]) & (place[1:] > place[:-1]))
        # The middle of a piece says which cell it lies in.
        at, middle = on[piece], (place[piece] + place[piece + 1]) / 2
        left = np.minimum((middle - cols[0]).astype("intp") // self.mesh.every, cols.size - 2)
        way = (middle - cols[left]) / (cols[left + 1] - cols[left])
        down, along = (np.floor(z[at, left] + way * (z[at, left + 1] - z[at, left])).astype("intp") for z in (v, u))
        down -= self.mesh.grid.row + self.window.down.start
        along = (along - (self.mesh.grid.col + self.window.along.start)) % self.mesh.period
        here = (down >= 0) & (down < self.shape[0]) & (along < self.shape[1])
        piece, at, left = piece[here], at[here], left[here]
        # A pixel's number among the running sums, which have one more in each block.
        whole = np.minimum(np.floor(place), cols[-1] - 1)
        pixel = whole.astype("intp") - cols[0]
        block = on // count * self.blocks + pixel // BLOCK
        return _Strip(
            slice(start - int(rows[0]), stop - int(rows[0])),
            block * (BLOCK + 1) + pixel % BLOCK,
            place - whole,
            piece,
            _hops(block[piece], block[piece + 1]),
            (down * self.shape[1] + along)[here],
            self.area[above[at], left] / count,
        )

    def _crossings(self, z: NDArray[np.float64]) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
        """Lines, and places on them, where rows (or columns) of cells change."""
        cols, low = self.knots[1], np.floor(z)
        line, left = np.nonzero(low[:, 1:] != low[:, :-1])
        border = np.maximum(low[line, left], low[line, left + 1])
        share = (border - z[line, left]) / (z[line, left + 1] - z[line, left])
        return line, cols[left] + share * (cols[left + 1] - cols[left])

    # ---- the sums

    def sums(self, image: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Value times area, and known area, summed over each cell, in cells and float64."""
        rows = min(STRIP, len(image))
        running = np.zeros((rows, self.blocks, BLOCK + 1), "f8" if image.dtype.kind == "f" else "i8")
        counts = np.zeros(running.shape, "i4")
        total, known = [], []
        for strip, full in zip(self.strips, self.full):
            part = image[strip.rows]
            there = part == part
            if there.all():
                known.append(full)
            else:
                known.append(self._pieces(strip, _run(there, counts)))
                part = np.fmax(part, 0) + np.fmin(part, 0)  # NaN becomes 0, four times as fast as np.where
            total.append(self._totals(strip, part, running))
        return self._gather(total), self._gather(known)

    def _totals(self, strip: _Strip, part: NDArray[Any], running: NDArray[Any]) -> NDArray[np.float64]:
        with np.errstate(invalid="ignore"):
            found = self._pieces(strip, _run(part, running))
        if np.isfinite(found).all():
            return found
        infinite = np.isinf(part)  # of infinite values only their own pieces may know
        found = self._pieces(strip, _run(np.where(infinite, 0, part), running))
        for value in (np.inf, -np.inf):
            touched = self._pieces(strip, _run(part == value, running)) > 1e-6 * strip.weight
            with np.errstate(invalid="ignore"):
                found[touched] += value
        return found

    def _ones(self, strip: _Strip) -> NDArray[np.int32]:
        """The running sums of a strip of which every pixel is known."""
        shape = (strip.rows.stop - strip.rows.start, self.blocks, BLOCK + 1)
        return np.broadcast_to(np.arange(BLOCK + 1, dtype="i4"), shape)

    def _pieces(self, strip: _Strip, running: NDArray[Any]) -> NDArray[np.float64]:
        """Sum over each piece, times its weight."""
        flat = running.reshape(-1)
        until = (1 - strip.part) * flat[strip.at] + strip.part * flat[strip.at + 1]
        found = until[strip.piece + 1] - until[strip.piece]
        for piece, block in strip.hops:
            found[piece] += flat[block * (BLOCK + 1) + BLOCK]
        return found * strip.weight

    def _gather(self, pieces: Iterable[NDArray[np.float64]]) -> NDArray[np.float64]:
        """Sums of pieces over their cells."""
        size = self.shape[0] * self.shape[1]
        return np.bincount(self.cells, np.concatenate([*pieces]), size).reshape(self.shape) * self.scale


def _run(part: NDArray[Any], out: NDArray[Any]) -> NDArray[Any]:
    """Running sums along rows, from 0, anew in each block."""
    rows, width = part.shape
    whole = width // BLOCK
    out, rest = out[:rows], slice(whole * BLOCK, None)
    np.cumsum(part[:, : whole * BLOCK].reshape(rows, whole, BLOCK), 2, out.dtype, out[:, :whole, 1:])
    if width % BLOCK:
        np.cumsum(part[:, rest], 1, out.dtype, out[:, whole, 1 : 1 + width % BLOCK])
    return out


def _hops(first: NDArray[np.intp], last: NDArray[np.intp]) -> list[_Pairs]:
    """Pieces that run over the end of a block, and that block; then those that run over the next end, ..."""
    hops = []
    for more in range(int((last - first).max(initial=0))):
        piece = np.flatnonzero(last - first > more)
        hops.append((piece, first[piece] + more))
    return hops
