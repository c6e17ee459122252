"""Says which samples train and which test: dependent, temporal, spatial, regional.

Within a repeat the training sets of all sizes are nested: one random order is drawn, and each size takes the first of
it, as the paper's progressive training does. What a split is follows from the seed, the scenario, the repeat and the
table alone: no split depends on which others are drawn.

References
----------
Zhu et al. (2025), IEEE TGRS 63, doi:10.1109/TGRS.2025.3533927, section III.B.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from smgrid.resampling import station_of, stream

log = logging.getLogger("smgrid")

Rows = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Splits(ABC):
    """Splits of one scenario; iterating gives `(size, train_index, test_index)`, repeat by repeat.

    Has what scikit-learn asks of a `cv`: `split` and `get_n_splits`, one split a size and repeat.

    Attributes
    ----------
    station : array (n,) of int
        Number of the station each row belongs to, in the order of their names.
    sizes : tuple of float
        See the maker for what they count.
    seed, repeats : int
    """

    scenario: ClassVar[str]
    unit: ClassVar[str]  # what sizes count

    station: NDArray[np.int64]
    sizes: tuple[float, ...]
    seed: int
    repeats: int

    def __iter__(self) -> Iterator[tuple[float, Rows, Rows]]:
        for repeat in range(self.repeats):
            for size in self.sizes:
                yield size, *self.draw(size, repeat)

    def __len__(self) -> int:
        return self.repeats * len(self.sizes)

    def split(self, X: Any = None, y: Any = None, groups: Any = None) -> Iterator[tuple[Rows, Rows]]:
        """The splits as scikit-learn takes them; the arguments are not used."""
        for _, train, test in self:
            yield train, test

    def get_n_splits(self, X: Any = None, y: Any = None, groups: Any = None) -> int:
        """How many splits there are."""
        return len(self)

    def draw(self, size: float, repeat: int = 0) -> tuple[Rows, Rows]:
        """Row numbers that train, and that test, at one size of one repeat; both sorted."""
        train, test = self._draw(size, stream(self.seed, self.scenario, repeat))
        return np.sort(train), np.sort(test)

    @abstractmethod
    def _draw(self, size: float, rng: np.random.Generator) -> tuple[Rows, Rows]: ...

    @abstractmethod
    def largest(self) -> float:
        """The largest size that the table can give."""

    def options(self) -> dict[str, Any]:
        """What else than table, sizes and seed decides the splits."""
        return {}

    def on(self, rows: NDArray[np.bool_]) -> Self:
        """The same scenario on some rows of the table; sizes they cannot give are left out, and that is logged."""
        kept = self._kept(rows)
        return replace(kept, sizes=_within(self.sizes, kept, strict=False))

    def _kept(self, rows: NDArray[np.bool_]) -> Self:
        return replace(self, station=self.station[rows])


def _within(sizes: Sequence[float], splits: Splits, *, strict: bool) -> tuple[float, ...]:
    """The sizes that the table can give."""
    most = splits.largest()
    good = tuple(size for size in sizes if 0 < size <= most)
    if len(good) < len(sizes) and (strict or not good):
        raise ValueError(
            f"sizes of the {splits.scenario} scenario count {splits.unit}; this table gives more than 0 and at most "
            f"{most:g}, not {[size for size in sizes if size not in good]}"
        )
    if len(good) < len(sizes):
        log.warning(
            "%s: the table gives at most %g %s, sizes %s are left out",
            *(splits.scenario, most, splits.unit, [size for size in sizes if size not in good]),
        )
    return good


def _numbers(samples: Any) -> NDArray[np.int64]:
    return np.unique(station_of(samples), return_inverse=True)[1].astype(np.int64)


def _made(splits: Splits, sizes: Sequence[float] | None, default: Sequence[float]) -> Any:
    wanted = tuple(float(size) for size in (default if sizes is None else sizes))
    return replace(splits, sizes=_within(wanted, splits, strict=sizes is not None))


# ---- dependent


@dataclass(frozen=True, eq=False)
class _Dependent(Splits):
    scenario: ClassVar[str] = "dependent"
    unit: ClassVar[str] = "% of the samples"

    def largest(self) -> float:
        return 99.0

    def _draw(self, size: float, rng: np.random.Generator) -> tuple[Rows, Rows]:
        order = rng.permutation(self.station.size)
        count = max(1, round(self.station.size * size / 100))
        return order[:count], order[count:]


def dependent(samples: Any, *, sizes: Sequence[float] | None = None, seed: int = 0, repeats: int = 1) -> Splits:
    """Random samples train, all others test: no shift between the two, the easiest case.

    Parameters
    ----------
    samples : Dataset (dim sample) or DataFrame
    sizes : sequence of float, optional
        Percent of the samples that train; 0.5 to 5 by 0.5.
    seed, repeats : int

    Returns
    -------
    Splits
        Iterable of `(size, train_index, test_index)`; also a scikit-learn `cv`.

    Examples
    --------
    >>> import pandas as pd
    >>> table = pd.DataFrame({"station": ["a", "b"] * 500})
    >>> [(size, train.size, test.size) for size, train, test in dependent(table, sizes=[0.5, 5])]
    [(0.5, 5, 995), (5.0, 50, 950)]
    """
    return _made(_Dependent(_numbers(samples), (), seed, repeats), sizes, [k / 2 for k in range(1, 11)])


# ---- temporal


@dataclass(frozen=True, eq=False)
class _Temporal(Splits):
    scenario: ClassVar[str] = "temporal"
    unit: ClassVar[str] = "samples per cell"

    years: NDArray[np.int64]
    year: int
    least: int

    def eligible(self) -> NDArray[np.bool_]:
        """Rows of cells with more than `least` samples in the year, and some in others."""
        inside = np.bincount(self.station, self.years == self.year)
        return ((inside > self.least) & (np.bincount(self.station) > inside))[self.station]

    def largest(self) -> float:
        if not self.eligible().any():
            counts = {
                int(year): np.unique(self.station[replace(self, year=int(year)).eligible()]).size
                for year in np.unique(self.years)
            }
            raise ValueError(
                f"no cell has more than {self.least} samples in {self.year} and some in other years; such cells by "
                f"year: {counts}. Give another year=, or a smaller least="
            )
        return float(self.least)

    def options(self) -> dict[str, Any]:
        return {"year": self.year, "least": self.least}

    def _kept(self, rows: NDArray[np.bool_]) -> Self:
        return replace(self, station=self.station[rows], years=self.years[rows])

    def _draw(self, size: float, rng: np.random.Generator) -> tuple[Rows, Rows]:
        good = self.eligible()
        now = np.flatnonzero(good & (self.years == self.year))
        now = now[rng.permutation(now.size)]
        now = now[np.argsort(self.station[now], kind="stable")]  # cell by cell, each in random order
        _, first, counts = np.unique(self.station[now], return_index=True, return_counts=True)
        place = np.arange(now.size) - np.repeat(first, counts)
        return now[place < size], np.flatnonzero(good & (self.years != self.year))


def temporal(
    samples: Any,
    *,
    sizes: Sequence[float] | None = None,
    year: int | None = None,
    least: int = 21,
    seed: int = 0,
    repeats: int = 1,
) -> Splits:
    """Some samples of each cell from one year train, the same cells in all other years test.

    Parameters
    ----------
    samples : Dataset (dim sample) or DataFrame
        With `time`.
    sizes : sequence of int, optional
        Training samples per cell; 1 to 21 by 2.
    year : int, optional
        The year that trains; the last one by default.
    least : int
        Cells with more than so many samples in that year take part.
    seed, repeats : int

    Returns
    -------
    Splits
        As of `dependent`.
    """
    years = _years(samples)
    made = _Temporal(_numbers(samples), (), seed, repeats, years, int(years.max()) if year is None else year, least)
    return _made(made, sizes, range(1, least + 1, 2))


def _years(samples: Any) -> NDArray[np.int64]:
    columns = samples.columns if hasattr(samples, "columns") else samples.variables
    if "time" not in columns:
        raise ValueError(f"the temporal scenario needs 'time'; the samples have {sorted(map(str, columns))}")
    return np.asarray(samples["time"].values, "M8[Y]").astype("i8") + 1970


# ---- spatial


@dataclass(frozen=True, eq=False)
class _Spatial(Splits):
    scenario: ClassVar[str] = "spatial"
    unit: ClassVar[str] = "cells"

    def largest(self) -> float:
        return float(np.unique(self.station).size - 1)

    def _draw(self, size: float, rng: np.random.Generator) -> tuple[Rows, Rows]:
        names = np.unique(self.station)
        train = np.isin(self.station, rng.permutation(names)[: int(size)])
        return np.flatnonzero(train), np.flatnonzero(~train)


def spatial(samples: Any, *, sizes: Sequence[float] | None = None, seed: int = 0, repeats: int = 1) -> Splits:
    """All samples of a few cells train, all other cells test: what a map does away from stations.

    Parameters
    ----------
    samples : Dataset (dim sample) or DataFrame
    sizes : sequence of int, optional
        Cells that train; 1 to 57 by 8.
    seed, repeats : int

    Returns
    -------
    Splits
        As of `dependent`.
    """
    return _made(_Spatial(_numbers(samples), (), seed, repeats), sizes, range(1, 58, 8))


# ---- regional


@dataclass(frozen=True, eq=False)
class _Regional(Splits):
    scenario: ClassVar[str] = "regional"
    unit: ClassVar[str] = "training cells"

    held: NDArray[np.bool_]

    def largest(self) -> float:
        return float(np.unique(self.station[~self.held]).size)

    def options(self) -> dict[str, Any]:
        return {"held": int(self.held.sum())}

    def _kept(self, rows: NDArray[np.bool_]) -> Self:
        return replace(self, station=self.station[rows], held=self.held[rows])

    def _draw(self, size: float, rng: np.random.Generator) -> tuple[Rows, Rows]:
        names = rng.permutation(np.unique(self.station[~self.held]))[: int(size)]
        return np.flatnonzero(~self.held & np.isin(self.station, names)), np.flatnonzero(self.held)


def regional(
    samples: Any,
    campaigns: str | Sequence[str] | ArrayLike,
    *,
    sizes: Sequence[float] | None = None,
    seed: int = 0,
    repeats: int = 1,
) -> Splits:
    """The stations of a region train, its campaigns test: is a sparse network enough for its surroundings?

    Parameters
    ----------
    samples : Dataset (dim sample) or DataFrame
        Stations and campaigns in one table.
    campaigns : str, sequence of str, or array (n,) of bool
        Names of the networks that are campaigns, or which rows are theirs.
    sizes : sequence of int, optional
        Training cells; all by default.
    seed, repeats : int

    Returns
    -------
    Splits
        As of `dependent`.
    """
    station = _numbers(samples)
    held = np.asarray(campaigns)
    if held.dtype != bool:
        columns = samples.columns if hasattr(samples, "columns") else samples.variables
        networks = (
            np.asarray(samples["network"].values).astype(str) if "network" in columns else np.full(station.size, "")
        )
        absent = sorted({*np.atleast_1d(held).astype(str).tolist()} - {*networks.tolist()})
        if absent:
            raise ValueError(f"the samples have no network {absent}; they have {sorted({*networks.tolist()})}")
        held = np.isin(networks, np.atleast_1d(held).astype(str))
    if held.shape != station.shape or held.all() or not held.any():
        raise ValueError(
            f"campaigns mark {int(held.sum())} of {held.size} rows, the samples have {station.size}: "
            "some rows must be stations that train, some campaigns that test"
        )
    made = _Regional(station, (), seed, repeats, held)
    return _made(made, sizes, [made.largest()])


MAKERS: Mapping[str, Any] = {"dependent": dependent, "temporal": temporal, "spatial": spatial}
"""The scenarios that a table alone decides."""
