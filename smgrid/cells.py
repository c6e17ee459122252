"""Judges the cells of a block, and walks those that have every predictor.

Predictors come as they are stored: of fewer dims than the block where they are static, of any strides. They are never
blown up to the block, nor stacked: known cells are read out of them, encoded on the way, straight into the band-first
tile that a kernel takes. The compiled half and numpy give the same bits.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smgrid.features import LARGEST, Predictor, encode, is_finite
from smgrid.native import native
from smgrid.shapes import INVALID, MISSING, OUTSIDE, PREDICTED

Range = tuple[float, float]
NATIVE_DIMS = 16  # of a block, that the compiled half can walk


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
    if fast is None or ready is None or ends is None or status.ndim > NATIVE_DIMS:
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
    bad = missing | ~((value >= low) & (value <= high)) if low > -np.inf else ~is_finite(value)
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
    most = float(np.finfo("f8").max) if dtype.kind != "f" else min(LARGEST, float(np.finfo(dtype).max))
    return -most, most


def _exactly(ends: Sequence[float], dtype: np.dtype[Any]) -> list[float] | None:
    """Ends as numpy compares them with an array: plain numbers in its type; None where it would widen the array."""
    with np.errstate(over="ignore"):
        own = [float(dtype.type(end)) for end in ends]
    strong = any(isinstance(end, np.generic) and float(end) != mine for end, mine in zip(ends, own))
    return None if strong else own


# ---- known cells


class Known(ABC):
    """The cells of a block that have every predictor, in the block's order.

    Parameters
    ----------
    status : array of the block, uint8
    values : sequence of arrays that broadcast to the block
    predictors : sequence of Predictor, or None
        How values are encoded (see `features.encode`, in float64, then rounded once); None takes them as they are.

    Examples
    --------
    >>> status = np.array([[0, 2, 1], [0, 0, 3]], "u1")
    >>> sand = np.array([[10, 20, 30.0]], "f4")
    >>> known = Known.of(status, [sand], [Predictor("%", 0, 100)])
    >>> known.count, known.tile(0, 4, "f4").round(2).tolist()
    (4, [[0.1..., 0.3..., 0.1..., 0.2...]])
    """

    count: int

    def __init__(
        self,
        status: NDArray[np.uint8],
        values: Sequence[NDArray[Any]],
        predictors: Sequence[Predictor] | None,
    ):
        self.shape, self.values, self.predictors = status.shape, values, predictors

    @staticmethod
    def of(
        status: NDArray[np.uint8],
        values: Sequence[NDArray[Any]],
        predictors: Sequence[Predictor] | None,
    ) -> Known:
        """The cells whose status says that they can be predicted."""
        return (_Places if native() is None or status.ndim > NATIVE_DIMS else _Runs)(status, values, predictors)

    @abstractmethod
    def tile(self, start: int, stop: int, dtype: str) -> NDArray[Any]:
        """Model inputs of the known cells from number `start` to `stop`: (inputs, stop - start), C-contiguous."""

    @abstractmethod
    def put(self, found: NDArray[Any], start: int, layer: NDArray[Any]) -> None:
        """Lay what was found for known cells, from number `start` on, into a layer of the block."""


class _Places(Known):
    """By numpy's index arrays."""

    def __init__(self, status: NDArray[np.uint8], *given: Any):
        super().__init__(status, *given)
        self.cells = np.flatnonzero(status.ravel() <= OUTSIDE)
        self.count = self.cells.size

    def tile(self, start: int, stop: int, dtype: str) -> NDArray[Any]:
        cells = self.cells[start:stop]
        place = np.unravel_index(cells, self.shape)
        columns = [
            v.reshape(-1)[cells]
            if v.shape == self.shape
            else v[tuple(p if n > 1 else 0 for p, n in zip(place, v.shape))]
            if v.size > 1
            else np.full(cells.size, v.reshape(()))
            for v in self.values
        ]
        if self.predictors is None:
            return np.stack([np.asarray(c, "f8") for c in columns]).astype(dtype, copy=False)
        tile = np.empty((sum(p.inputs for p in self.predictors), cells.size), dtype)
        at = 0
        for column, p in zip(columns, self.predictors):
            tile[at : at + p.inputs] = encode([column], [p]).T
            at += p.inputs
        return tile

    def put(self, found: NDArray[Any], start: int, layer: NDArray[Any]) -> None:
        layer.reshape(-1)[self.cells[start : start + found.size]] = found


class _Runs(Known):
    """By runs of known cells, in C."""

    def __init__(self, status: NDArray[np.uint8], *given: Any):
        super().__init__(status, *given)
        fast: Any = native()
        self.fast = fast
        self.runs = np.empty((fast.runs(status, None) + 1, 2), "i8")
        fast.runs(status, self.runs)
        self.count = int(self.runs[-1, 1])
        self.cyclic: list[tuple[int, Predictor]] = []  # rows that are worked out of what was gathered
        rows = list(self._rows()) if self.count else []
        self.fields = tuple(np.broadcast_to(_as_floats(field), self.shape) for field, _ in rows)
        self.scales = np.array([scale for _, scale in rows], "f8").reshape(-1, 2)

    def _rows(self) -> Iterator[tuple[NDArray[Any], Range]]:
        """The field behind each row of a tile, and its scale."""
        at = 0
        given: Sequence[Predictor | None] = self.predictors or [None] * len(self.values)
        for value, p in zip(self.values, given):
            if p is None or p.period is None:
                yield value, _scale(p)
            elif value.size < self.count:  # cheaper before it is spread over the block
                for part in encode([value.reshape(-1)], [p]).T:
                    yield np.ascontiguousarray(part).reshape(value.shape), PLAIN
            else:
                self.cyclic.append((at, p))
                yield value, PLAIN
                yield np.zeros((1,) * value.ndim), PLAIN
            at += 1 if p is None else p.inputs

    def tile(self, start: int, stop: int, dtype: str) -> NDArray[Any]:
        tile = np.empty((len(self.fields), stop - start), dtype)
        cells = int(self.runs[-1, 0])
        self.fast.gather(self.fields, self.scales, self.runs, cells, start, tile)
        for at, p in self.cyclic:
            raw = np.empty((1, stop - start))
            self.fast.gather((self.fields[at],), np.zeros((1, 2)), self.runs, cells, start, raw)
            tile[at : at + 2] = encode(list(raw), [p]).T
        return tile

    def put(self, found: NDArray[Any], start: int, layer: NDArray[Any]) -> None:
        self.fast.scatter(np.ascontiguousarray(found, layer.dtype), self.runs, start, layer)


def _as_floats(value: NDArray[Any]) -> NDArray[Any]:
    ready = _as_native(value)
    return value.astype("f8") if ready is None else ready


PLAIN = (0.0, 0.0)


def _scale(p: Predictor | None) -> Range:
    """What is taken off and what the rest is divided by; nothing where values enter as they are."""
    if p is None or (p.min, p.max) in ((-1, 1), (0, 1)) or p.min is None or p.max is None:
        return PLAIN
    return float(p.min), float(p.max - p.min)
