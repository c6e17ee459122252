"""Judges the cells of a block, and walks those that have every predictor.

Predictors come as they are stored: of fewer dims than the block where they are static, of any strides. They are never
blown up to the block, nor stacked: known cells are read out of them, encoded on the way, straight into the band-first
tile that a kernel takes. The compiled half and numpy give the same bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smgrid.features import Predictor, encode
from smgrid.native import native
from smgrid.shapes import INVALID, MISSING, OUTSIDE, PREDICTED

Range = tuple[float, float]


# ---- judging


def judge(
    value: NDArray[Any],
    status: NDArray[np.uint8],
    culprit: NDArray[np.uint8],
    number: int,
    plausible: Range,
    trained: Range | None,
) -> int:
    """Mark cells where a predictor is missing, invalid or outside its training range; the first that fails is named.

    Parameters
    ----------
    value : array that broadcasts to the block
    status, culprit : array of the block, uint8, C-contiguous
        Changed in place.
    number : int
        What `culprit` calls the predictor.
    plausible, trained : (least, greatest)
        Values outside the first are invalid; where it has no ends, infinite ones are. None: nobody asks.

    Returns
    -------
    int
        How many cells may still be predicted.
    """
    fast, ready = native(), _as_native(value)
    low, high = plausible if plausible[0] > -np.inf else _finite(value.dtype)
    ends = None if ready is None else _exactly([low, high, *(trained or (0.0, 0.0))], ready.dtype)
    if fast is None or ready is None or ends is None:
        return judge_by_numpy(value, status, culprit, number, plausible, trained)
    whole = np.broadcast_to(ready, status.shape)
    return int(fast.judge(whole, status, culprit, number, *ends, trained is not None))


def judge_by_numpy(
    value: NDArray[Any],
    status: NDArray[np.uint8],
    culprit: NDArray[np.uint8],
    number: int,
    plausible: Range,
    trained: Range | None,
) -> int:
    """What `judge` does, without the compiled half."""
    missing = np.isnan(value)
    low, high = plausible
    bad = missing | ~((value >= low) & (value <= high)) if low > -np.inf else ~np.isfinite(value)
    if bad.any():
        first = bad & (status < MISSING)
        culprit[first] = number
        status[first] = np.where(np.broadcast_to(missing, status.shape)[first], MISSING, INVALID)
    if trained is not None:
        low, high = trained
        out = ((value < low) | (value > high)) & (status == PREDICTED)
        if out.any():
            culprit[out] = number
            status[out] = OUTSIDE
    return int((status < MISSING).sum())


def _as_native(value: NDArray[Any]) -> NDArray[Any] | None:
    """The same numbers as aligned float32 or float64; None for types that compare in a way of their own."""
    if value.dtype in (np.float32, np.float64) and value.dtype.isnative:
        return value if value.flags.aligned else value.copy()
    return value.astype("f8") if value.dtype.kind in "bui" else None


def _finite(dtype: np.dtype[Any]) -> Range:
    most = float(np.finfo(dtype if dtype.kind == "f" else "f8").max)
    return -most, most


def _exactly(ends: Sequence[float], dtype: np.dtype[Any]) -> list[float] | None:
    """Ends as numpy compares them with an array: plain numbers in its type; None where it would widen the array."""
    with np.errstate(over="ignore"):
        own = [float(dtype.type(end)) for end in ends]
    strong = any(isinstance(end, np.generic) and float(end) != mine for end, mine in zip(ends, own))
    return None if strong else own


# ---- known cells


class Known:
    """The cells of a block that have every predictor, in the block's order.

    Examples
    --------
    >>> status = np.array([[0, 2, 1], [0, 0, 3]], "u1")
    >>> known = Known.of(status)
    >>> sand = np.array([[10, 20, 30.0]], "f4")
    >>> known.count, known.tile([sand], [Predictor("%", 0, 100)], 0, 4, "f4").round(2).tolist()
    (4, [[0.1..., 0.3..., 0.1..., 0.2...]])
    """

    def __init__(self, count: int, shape: tuple[int, ...]):
        self.count, self.shape = count, shape

    @staticmethod
    def of(status: NDArray[np.uint8]) -> Known:
        """The cells whose status says that they can be predicted."""
        fast = native()
        return _Places(status) if fast is None or status.ndim > 16 else _Runs(status, fast)

    def tile(
        self,
        values: Sequence[NDArray[Any]],
        predictors: Sequence[Predictor] | None,
        start: int,
        stop: int,
        dtype: str,
    ) -> NDArray[Any]:
        """Model inputs of known cells, band first.

        Parameters
        ----------
        values : sequence of arrays that broadcast to the block
        predictors : sequence of Predictor, or None
            How values are encoded (see `features.encode`, in float64, then rounded once); None takes them as they are.
        start, stop : int
            Which known cells, by their number.
        dtype : {"f4", "f8"}

        Returns
        -------
        array (inputs, stop - start), C-contiguous
        """
        raise NotImplementedError

    def put(self, found: NDArray[Any], start: int, layer: NDArray[Any]) -> None:
        """Lay what was found for known cells, from number `start` on, into a layer of the block."""
        raise NotImplementedError


class _Places(Known):
    """By numpy's index arrays."""

    def __init__(self, status: NDArray[np.uint8]):
        self.cells = np.flatnonzero(status.ravel() <= OUTSIDE)
        super().__init__(self.cells.size, status.shape)

    def tile(
        self,
        values: Sequence[NDArray[Any]],
        predictors: Sequence[Predictor] | None,
        start: int,
        stop: int,
        dtype: str,
    ) -> NDArray[Any]:
        cells = self.cells[start:stop]
        place = np.unravel_index(cells, self.shape)
        columns = [
            v.reshape(-1)[cells]
            if v.shape == self.shape
            else v[tuple(p if n > 1 else 0 for p, n in zip(place, v.shape))]
            if v.size > 1
            else np.full(cells.size, v.reshape(()))
            for v in values
        ]
        if predictors is None:
            return np.stack([np.asarray(c, "f8") for c in columns]).astype(dtype, copy=False)
        tile = np.empty((sum(p.inputs for p in predictors), cells.size), dtype)
        at = 0
        for column, p in zip(columns, predictors):
            tile[at : at + p.inputs] = encode([column], [p]).T
            at += p.inputs
        return tile

    def put(self, found: NDArray[Any], start: int, layer: NDArray[Any]) -> None:
        layer.reshape(-1)[self.cells[start : start + found.size]] = found


class _Runs(Known):
    """By runs of known cells, in C."""

    def __init__(self, status: NDArray[np.uint8], fast: Any):
        self.fast = fast
        self.runs = np.empty((fast.runs(status, None) + 1, 2), "i8")
        fast.runs(status, self.runs)
        super().__init__(int(self.runs[-1, 1]), status.shape)

    def tile(
        self,
        values: Sequence[NDArray[Any]],
        predictors: Sequence[Predictor] | None,
        start: int,
        stop: int,
        dtype: str,
    ) -> NDArray[Any]:
        inputs = len(values) if predictors is None else sum(p.inputs for p in predictors)
        tile = np.empty((inputs, stop - start), dtype)
        rows = iter(tile)
        for value, p in zip(values, [None] * len(values) if predictors is None else predictors):
            if p is None or p.period is None:
                self._gather(value, start, next(rows), _scale(p))
            elif value.size < min(self._cells(), stop - start):  # cheaper before it is spread over the block
                for part in encode([value.reshape(-1)], [p]).T:
                    self._gather(np.ascontiguousarray(part).reshape(value.shape), start, next(rows), None)
            else:
                column = np.empty(stop - start, "f8")
                self._gather(value, start, column, None)
                for part in encode([column], [p]).T:
                    next(rows)[:] = part
        return tile

    def _cells(self) -> int:
        return int(self.runs[-1, 0])

    def _gather(self, value: NDArray[Any], start: int, row: NDArray[Any], scale: Range | None) -> None:
        ready = _as_native(value)
        whole = np.broadcast_to(value.astype("f8") if ready is None else ready, self.shape)
        self.fast.gather(whole, self.runs, start, row, *(scale or (0.0, 1.0)), scale is not None)

    def put(self, found: NDArray[Any], start: int, layer: NDArray[Any]) -> None:
        self.fast.scatter(np.ascontiguousarray(found, layer.dtype), self.runs, start, layer)


def _scale(p: Predictor | None) -> Range | None:
    """What is taken off and what the rest is divided by; None where values enter as they are."""
    if p is None or (p.min, p.max) == (-1, 1) or p.min is None or p.max is None:
        return None
    return None if (p.min, p.max) == (0, 1) else (float(p.min), float(p.max - p.min))
