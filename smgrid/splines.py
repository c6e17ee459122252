"""Puts a curve through each cell's own observations.

The observations that a cell has differ from cell to cell where there were clouds, or where each pixel of a composite
has its own day. So all cells of a slab are sorted and solved at once, step by step along time: as fast where every cell
has its own days as where all share them. No cell's arithmetic knows of its neighbours, so chunks cannot change a bit.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

SLAB = 4096  # cells worked on at once, so that a series of some fifty observations stays in cache
ROUNDING = 8  # decimals of a day (a millisecond), so that one instant is one number however it was counted


def interpolate_cells(
    values: NDArray[Any],
    lag: NDArray[Any] | None = None,
    *,
    at: NDArray[np.float64],
    wanted: NDArray[np.float64],
    how: str,
    max_gap: float,
) -> NDArray[np.float32]:
    """Interpolate a block of cells, each between the observations that it has.

    Parameters
    ----------
    values : array (time, ...)
        Missing is NaN.
    lag : array, shape of `values`, optional
        Days from `at` to the day a value was really observed; values without are passed over.
    at : array (time,)
        Days of the steps, in any order; values of one instant are averaged.
    wanted : array (days,)
        Days to interpolate to.
    how : {"spline", "pchip", "linear"}
        See `temporal.interpolate`.
    max_gap : float
        Days between the two observations around a wanted day, at most.

    Returns
    -------
    array (days, ...), float32
        NaN outside a cell's observations and in longer gaps.

    Examples
    --------
    >>> rain_gauge = np.array([0.0, 1.0, np.nan, 27.0])  # t^3 where t = 0, 1, 3
    >>> interpolate_cells(rain_gauge, at=np.arange(4.0), wanted=np.array([2.0, 4.0]), how="linear", max_gap=5)
    array([14., nan], dtype=float32)
    """
    flat = values.reshape(len(values), -1)
    at, wanted = at.round(ROUNDING), wanted.round(ROUNDING)
    lags = None if lag is None else lag.reshape(flat.shape)
    out = np.empty((wanted.size, flat.shape[1]), "f4")
    for left in range(0, flat.shape[1], SLAB):
        part = slice(left, left + SLAB)
        x = np.broadcast_to(at[:, None], flat[:, part].shape)
        if lags is not None:
            x = (x + lags[:, part]).round(ROUNDING)
        x, y = _own(x, flat[:, part].astype("f8"))
        out[:, part] = _evaluate(x, y, wanted, how, max_gap)
    return out.reshape(wanted.size, *values.shape[1:])


def _own(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Each cell's valid observations by day, those of one instant averaged; after the last, day infinity and 0."""
    known = np.isfinite(x) & np.isfinite(y)
    ascending = (x[1:] > x[:-1]).all()
    x, y = np.where(known, x, np.inf), np.where(known, y, 0)
    if not (ascending and known.all()):
        # Days that ascend close ranks; others are sorted, by value too, so that no order of the input changes a sum.
        order = np.argsort(~known, axis=0, kind="stable") if ascending else np.lexsort((y, x), axis=0)
        x, y = np.take_along_axis(x, order, 0), np.take_along_axis(y, order, 0)
    with np.errstate(invalid="ignore"):
        again = (x[1:] == x[:-1]) & np.isfinite(x[1:])
    if again.any():
        rank = np.concatenate([np.zeros((1, x.shape[1]), "i8"), (~again).cumsum(0)])
        place = (rank * x.shape[1] + np.arange(x.shape[1])).ravel()
        number = np.bincount(place, minlength=x.size).reshape(x.shape)
        y = np.bincount(place, y.ravel(), x.size).reshape(x.shape) / np.maximum(number, 1)
        days = np.full(x.size, np.inf)
        days[place] = x.ravel()
        x = days.reshape(x.shape)
    return x, y


def _evaluate(
    x: NDArray[np.float64], y: NDArray[np.float64], wanted: NDArray[np.float64], how: str, max_gap: float
) -> NDArray[np.float64]:
    """Interpolate cells (time, cells) of which each has its own days, as `_own` gives them: (wanted, cells)."""
    number = np.isfinite(x).sum(0)
    slopes = None if how == "linear" else _slopes(x, y, number, how)
    out = np.full((wanted.size, x.shape[1]), np.nan)
    for k, day in enumerate(wanted):
        before = (x <= day).sum(0) - 1
        cell = np.flatnonzero(before >= 0)
        left = before[cell]
        right = np.minimum(left + 1, number[cell] - 1)
        x0, x1, y0, y1 = x[left, cell], x[right, cell], y[left, cell], y[right, cell]
        u, h = day - x0, np.where(right > left, x1 - x0, 1)
        rise = (y1 - y0) / h
        if slopes is None:
            value = y0 + u * rise
        else:
            s0, s1 = slopes[left, cell], slopes[right, cell]
            value = y0 + u * (s0 + u * ((3 * rise - 2 * s0 - s1) / h + u * (s0 + s1 - 2 * rise) / h**2))
        inside = (u == 0) | ((right > left) & (h <= max_gap))
        out[k, cell] = np.where(inside, np.where(u == 0, y0, value), np.nan)
    return out


def _slopes(x: NDArray[np.float64], y: NDArray[np.float64], number: NDArray[np.int64], how: str) -> NDArray[np.float64]:
    """Slope of the curve at each observation; anything after a cell's last."""
    fewest = 4 - len(x)
    if fewest > 0:
        x, y = np.pad(x, ((0, fewest), (0, 0)), constant_values=np.inf), np.pad(y, ((0, fewest), (0, 0)))
    h = np.ones((len(x) - 1, x.shape[1]))  # after the last observation steps of 1 day, so that nothing is infinite
    np.subtract(x[1:], x[:-1], out=h, where=np.isfinite(x[1:]))
    m = np.diff(y, axis=0) / h
    return (_spline_slopes if how == "spline" else _pchip_slopes)(h, m, number)


def _spline_slopes(h: NDArray[np.float64], m: NDArray[np.float64], number: NDArray[np.int64]) -> NDArray[np.float64]:
    """Slopes of the cubic spline with not-a-knot ends: a tridiagonal system per cell, all cells at once.

    `h` are the steps and `m` the rises between observations. Cells with three observations have a parabola, with two
    a line; what does not belong to a cell's system is the identity, so that it is solved along.
    """
    size, cells = len(h) + 1, np.arange(h.shape[1])
    low, high, right = np.zeros((3, size, h.shape[1]))
    mid = np.ones((size, h.shape[1]))
    many = number >= 4
    inner = (np.arange(1, size - 1)[:, None] < number - 1) & many
    a, b = h[:-1], h[1:]
    low[1:-1], high[1:-1] = np.where(inner, b, 0), np.where(inner, a, 0)
    mid[1:-1] = np.where(inner, 2 * (a + b), 1)
    right[1:-1] = np.where(inner, 3 * (b * m[:-1] + a * m[1:]), 0)
    last = np.maximum(number - 1, 3)
    for end, off, at, first, second in (
        (high, cells, np.zeros_like(last), 0, 1),
        (low, cells, last, last - 1, last - 2),
    ):
        h0, h1, m0, m1 = (np.broadcast_to(v[k, off], number.shape) for v in (h, m) for k in (first, second))
        d = h0 + h1
        end[at, cells] = np.where(many, d, 0)
        mid[at, cells] = np.where(many, h1, 1)
        right[at, cells] = np.where(many, ((h0 + 2 * d) * h1 * m0 + h0**2 * m1) / d, 0)
    for k in range(1, size):
        factor = low[k] / mid[k - 1]
        mid[k] -= factor * high[k - 1]
        right[k] -= factor * right[k - 1]
    right[-1] /= mid[-1]
    for k in range(size - 2, -1, -1):
        right[k] = (right[k] - high[k] * right[k + 1]) / mid[k]
    bend = np.where(number == 3, (m[1] - m[0]) / (h[0] + h[1]), 0)
    few = np.stack([m[0] - h[0] * bend, m[0] + h[0] * bend, m[1] + h[1] * bend])
    right[:3] = np.where(many, right[:3], few)
    return right


def _pchip_slopes(h: NDArray[np.float64], m: NDArray[np.float64], number: NDArray[np.int64]) -> NDArray[np.float64]:
    """Slopes of the monotone cubic: harmonic means, zero at turning points, three-point ends that keep the shape."""
    slopes = np.zeros((len(h) + 1, h.shape[1]))
    a, b = 2 * h[1:] + h[:-1], h[1:] + 2 * h[:-1]
    same = m[:-1] * m[1:] > 0
    with np.errstate(divide="ignore", invalid="ignore"):
        slopes[1:-1] = np.where(same, (a + b) / (a / m[:-1] + b / m[1:]), 0)
    cells, last = np.arange(h.shape[1]), np.maximum(number - 1, 2)
    for at, first, second in ((np.zeros_like(last), 0, 1), (last, last - 1, last - 2)):
        h0, h1, m0, m1 = (np.broadcast_to(v[k, cells], number.shape) for v in (h, m) for k in (first, second))
        end = ((2 * h0 + h1) * m0 - h0 * m1) / (h0 + h1)
        end = np.where(np.sign(end) != np.sign(m0), 0, end)
        end = np.where((np.sign(m0) != np.sign(m1)) & (np.abs(end) > 3 * np.abs(m0)), 3 * m0, end)
        slopes[at, cells] = end
    slopes[:2] = np.where(number <= 2, m[0], slopes[:2])
    return slopes
