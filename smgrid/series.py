"""Carries the numbers of a series to days, in memory or lazily.

A way is what is done to the series of each cell by itself: a curve through it, or one number of the steps before each
day. It knows the steps and the days by number; `temporal` knows their dates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smgrid.splines import interpolate_cells

BLOCK = 2**24  # values (64 MiB of float32) that one task reads, at most
SLAB = 2**16  # cells whose values are sorted at once


@dataclass(frozen=True)
class Curves:
    """A curve through each cell's observations."""

    at: NDArray[np.float64]  # days of the steps
    wanted: NDArray[np.float64]  # days asked for
    how: str
    max_gap: float

    def __len__(self) -> int:
        return len(self.wanted)

    def __call__(self, values: NDArray[Any], lag: NDArray[Any] | None = None) -> NDArray[np.float32]:
        """Carry (time, ...) to (days, ...); `lag` in days after `at`."""
        options = {"how": self.how, "max_gap": self.max_gap}
        return interpolate_cells(values, lag, at=self.at, wanted=self.wanted, **options)  # type: ignore[arg-type]

    def some(self, days: slice) -> Curves:
        """The same for some of the days."""
        return replace(self, wanted=self.wanted[days])

    def lazily(self, data: Any, lag: Any) -> Any:
        """All days of a cell in one task, which reads its whole series."""
        import dask.array

        da: Any = dask.array  # which has no types
        data = _bounded(da.asarray(data), max(len(data), len(self)))
        arrays = [data.rechunk({0: -1})]
        arrays += [] if lag is None else [da.asarray(lag).rechunk(arrays[0].chunks)]
        meta = np.empty((0,) * data.ndim, "f4")
        return da.map_blocks(self, *arrays, dtype="f4", chunks=((len(self),), *data.chunks[1:]), meta=meta)


@dataclass(frozen=True)
class Windows:
    """One number of the steps before each day."""

    windows: Sequence[NDArray[np.intp]]  # a day each
    kernel: Callable[[NDArray[Any]], NDArray[np.float32]]

    def __len__(self) -> int:
        return len(self.windows)

    def __call__(self, values: NDArray[Any], lag: None = None) -> NDArray[np.float32]:
        """Carry (time, ...) to (days, ...)."""
        return np.stack([self.kernel(values[window]) for window in self.windows])

    def some(self, days: slice) -> Windows:
        """The same for some of the days."""
        return replace(self, windows=self.windows[days])

    def lazily(self, data: Any, lag: None) -> Any:
        """Each day a task of its own, which knows nothing of the others: a series may grow by a day."""
        import dask.array

        da: Any = dask.array
        data = _bounded(data, max(1, *map(len, self.windows)))
        meta, rest = np.empty((0,) * data.ndim, "f4"), data.chunks[1:]
        empty = da.full((1, *data.shape[1:]), np.nan, dtype="f4", chunks=((1,), *rest))
        steps = [
            da.map_blocks(
                replace(self, windows=[np.arange(len(window))]),
                data[window].rechunk({0: -1}),
                dtype="f4",
                chunks=((1,), *rest),
                meta=meta,
            )
            if len(window)
            else empty
            for window in self.windows
        ]
        return da.concatenate(steps)


Way = Curves | Windows


def carried(way: Way, data: Any, lag: Any) -> Any:
    """The numbers of the days, lazy where those of the series are."""
    if all(isinstance(part, np.ndarray | None) for part in (data, lag)):
        return way(np.asarray(data), lag)
    return way.lazily(data, lag)


def _bounded(data: Any, steps: int) -> Any:
    """Cut the chunks along the first axis of space until `steps` of them stay within `BLOCK` values."""
    if data.ndim == 1:
        return data
    largest = int(np.prod([max(sizes) for sizes in data.chunks[1:]]))
    pieces = -(-largest * steps // BLOCK)
    cut = [len(part) for size in data.chunks[1] for part in np.array_split(range(size), min(pieces, size))]
    return data.rechunk({1: tuple(cut)}) if pieces > 1 else data


def mean(values: NDArray[Any], *, least: int) -> NDArray[np.float32]:
    """Mean over the first axis of what is known, one step after the other: its order never depends on the chunks."""
    total, number = np.zeros(values.shape[1:]), np.zeros(values.shape[1:], "i4")
    for step in values:
        known = np.isfinite(step)
        total += np.where(known, step, 0)
        number += known
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(number >= least, total / number, np.nan).astype("f4")


def median(values: NDArray[Any]) -> NDArray[np.float32]:
    """Median over the first axis of what is known."""
    flat = values.reshape(len(values), int(np.prod(values.shape[1:])))
    out = np.full(flat.shape[1], np.nan, "f4")
    for left in range(0, flat.shape[1] if len(flat) else 0, SLAB):
        part = flat[:, left : left + SLAB].astype("f8")
        part[~np.isfinite(part)] = np.nan
        part.sort(axis=0)  # missing last
        number = np.isfinite(part).sum(0)
        low, high = (np.take_along_axis(part, np.maximum(k, 0)[None], 0)[0] for k in ((number - 1) // 2, number // 2))
        out[left : left + SLAB] = np.where(number, (low + high) / 2, np.nan)
    return out.reshape(values.shape[1:])
