"""Adds up what measures of a pair of maps are made of: moments by unit, the order of values.

Everything is counted from means that are known beforehand, so sums of products are central moments that lose no
digits, and sums of units, tiles and bootstrap draws simply add.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from smgrid.pairs import WHOLE, Basics, Sheet, Tile, divide
from smgrid.resampling import bounds, draw_counts

Table: TypeAlias = Mapping[str, NDArray[np.float64]]

DRAWS = 1000  # of the bootstrap
CLASSES = 2**16  # into which values are sorted where they are too many to be sorted
BATCH = 2**22  # numbers of drawn counts and sums held at a time

# ---- moments


def moment_sums(
    tile: Tile, a: NDArray[Any], b: NDArray[Any], mean_a: float, mean_b: float, where: NDArray[np.bool_] | None = None
) -> dict[str, NDArray[np.float64]]:
    """Sums by unit of two core arrays: n, a, b, e = a - b, and their products, counted from the means."""
    known = tile.known if where is None else where
    e = np.where(known, (a - b) - (mean_a - mean_b), 0.0)
    a, b = np.where(known, a - mean_a, 0.0), np.where(known, b - mean_b, 0.0)
    parts = {"n": known, "a": a, "b": b, "e": e, "aa": a * a, "bb": b * b, "ab": a * b, "ee": e * e}
    return {name: tile.by_unit(part) for name, part in parts.items()}


def moments(s: Table, mean_a: Any, mean_b: Any) -> dict[str, NDArray[np.float64]]:
    """Measures that follow from `moment_sums`, of sums in any shape."""
    n = s["n"]
    mean_e, shift_a, shift_b = divide(s["e"], n), divide(s["a"], n), divide(s["b"], n)
    var_a = np.maximum(divide(s["aa"], n) - shift_a**2, 0)
    var_b = np.maximum(divide(s["bb"], n) - shift_b**2, 0)
    var_e = np.maximum(divide(s["ee"], n) - mean_e**2, 0)
    cov = divide(s["ab"], n) - shift_a * shift_b
    bias = mean_e + (mean_a - mean_b)
    sd_a, sd_b = np.sqrt(var_a), np.sqrt(var_b)
    r = np.clip(divide(cov, sd_a * sd_b), -1, 1)
    mse = var_e + bias**2
    slope = divide(cov, var_b)
    return {
        "n": n,
        "mean_a": mean_a + shift_a,
        "mean_b": mean_b + shift_b,
        "sd_a": sd_a,
        "sd_b": sd_b,
        "bias": bias,
        "rmse": np.sqrt(mse),
        "ubrmse": np.sqrt(var_e),
        "pearson_r": r,
        "slope": slope,
        "intercept": mean_a + shift_a - slope * (mean_b + shift_b),
        "variance_ratio": divide(sd_a, sd_b),
        "mse": mse,
        "mse_bias": bias**2,
        "mse_variance": (sd_a - sd_b) ** 2,
        # 2 sd_a sd_b (1 - r), written so that it is defined, and the parts sum up, where a field is constant too
        "mse_correlation": var_e - (sd_a - sd_b) ** 2,
    }


# ---- intervals


def intervals(
    table: Table, measure: Callable[[Table], Mapping[str, NDArray[np.float64]]], seed: int
) -> dict[str, NDArray[np.float64]]:
    """95 % intervals of measures of sums, from drawing units with replacement: (..., 2); NaN with fewer than 3 units.

    The draws follow from the seed and the number of units with common cells alone, so that two predictions on the same
    cells are drawn alike.
    """
    drawn = draws_of(table, measure, seed)
    return {name: np.moveaxis(bounds(values), 0, -1) for name, values in drawn.items()}


def draws_of(
    table: Table, measure: Callable[[Table], Mapping[str, NDArray[np.float64]]], seed: int
) -> dict[str, NDArray[np.float64]]:
    """Measures in each draw: (draws, ...)."""
    there = table["n"] > 0
    full = {name: a[there] for name, a in table.items() if not name.startswith("whole_")}
    units = int(there.sum())
    if units < 3:
        return {name: np.full((1, *value.shape), np.nan) for name, value in measure(total(table)).items()}
    flat = np.concatenate([a.reshape(units, -1) for a in full.values()], axis=1)
    rng = np.random.default_rng(seed)
    step = max(1, BATCH // max(units, flat.shape[1]))
    sums = np.concatenate(
        [
            draw_counts(units, min(step, DRAWS - start), rng).astype("f8") @ flat  # a thousand draws, a few products
            for start in range(0, DRAWS, step)
        ]
    )
    widths = np.cumsum([a[0].size for a in full.values()])[:-1]
    split = np.split(sums, widths, axis=1)
    return dict(measure({name: part.reshape(-1, *full[name].shape[1:]) for name, part in zip(full, split)}))


def total(table: Table) -> dict[str, NDArray[np.float64]]:
    """Sums over all units."""
    return {name: a if name.startswith("whole_") else a.sum(axis=0) for name, a in table.items()}


# ---- order


@dataclass(frozen=True, eq=False)
class Order:
    """Which values a field has, in order, and how many cells have each.

    Exact where a date is small enough to be held; else by classes, 2^16 of equal width between the extremes.
    """

    values: NDArray[np.float64]  # distinct, ascending; or the upper edges of the classes
    count: NDArray[np.int64]
    low: float | None  # lower edge of the first class; None where values are exact

    def rank(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Mean ranks of values, ties sharing theirs: 1 for the lowest; NaN stays."""
        ranks = np.cumsum(self.count) - (self.count - 1) / 2
        known = np.isfinite(values)
        return np.where(known, ranks[self._class(np.where(known, values, self.values[0]))], np.nan)

    def quantile(self, q: float) -> float:
        """The value below which the share `q` lies, interpolated."""
        place = q * (self.count.sum() - 1)
        below, above = (np.searchsorted(np.cumsum(self.count), f(place), side="right") for f in (np.floor, np.ceil))
        low, high = self.values[below], self.values[above]
        return float(low + (high - low) * (place - np.floor(place)))

    def above(self, threshold: float) -> int:
        """How many cells exceed a value; a class counts whole where its upper edge does."""
        return int(self.count[self.values > threshold].sum())

    def exceeded_by(self, cells: int) -> float:
        """The lowest value that no more than so many cells exceed; -inf where all of them may."""
        over = self.count.sum() - np.cumsum(self.count)
        fit = over <= cells
        return -np.inf if cells >= self.count.sum() else float(self.values[fit.argmax()])

    def _class(self, values: NDArray[np.float64]) -> NDArray[np.int64]:
        if self.low is None:
            return np.minimum(np.searchsorted(self.values, values), self.values.size - 1)
        width = (self.values[-1] - self.low) / CLASSES
        place = (values - self.low) / width if width else np.zeros_like(values)
        return np.clip(place.astype("i8"), 0, CLASSES - 1)


def orders(sheet: Sheet, found: Basics) -> tuple[Order, Order]:
    """The orders of prediction and reference."""
    if sheet.fields[0].size <= WHOLE:
        pieces = np.concatenate([*sheet.tiles(lambda tile: tile.fields[:2, tile.known])], axis=1)
        p, o = (Order(*np.unique(piece, return_counts=True), None) for piece in pieces)
        return p, o
    empty = [
        Order(np.linspace(low, high, CLASSES + 1)[1:], np.zeros(CLASSES, "i8"), float(low))
        for low, high in zip(found.low[:2], found.high[:2])
    ]

    def look(tile: Tile) -> NDArray[np.int64]:
        values = tile.fields[:2, tile.known]
        return np.stack([np.bincount(one._class(v), minlength=CLASSES) for one, v in zip(empty, values)])

    counts = sum(sheet.tiles(look), start=np.zeros((2, CLASSES), "i8"))
    p, o = (Order(one.values, count, one.low) for one, count in zip(empty, counts))
    return p, o
