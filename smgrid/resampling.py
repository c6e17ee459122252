"""Draws folds and intervals with the station, or the block, as the unit.

Rows of one station resemble each other: a model that has seen some of them knows the others, and a thousand of them are
no thousand witnesses. So folds hold whole stations, and an interval comes from drawing whole stations with replacement.
All that a measure needs of a station is a handful of sums, so a thousand draws cost one matrix product.

References
----------
Efron & Tibshirani (1993), An Introduction to the Bootstrap, doi:10.1007/978-1-4899-4541-9 (percentile interval)
Roberts et al. (2017), Ecography 40, 913-929, doi:10.1111/ecog.02881 (why groups, not rows)
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from smgrid.shapes import as_field

LEVEL = 0.95  # of every interval
Measure = Callable[[xr.DataArray, xr.DataArray], Any]


def stream(*key: int | float | str) -> np.random.Generator:
    """Random numbers that belong to a key: the same wherever and in whatever order they are drawn.

    Examples
    --------
    >>> stream(0, "spatial", 57).integers(999).item() == stream(0, "spatial", 57).integers(999).item()
    True
    """
    words = np.frombuffer(hashlib.sha256("\x1f".join(map(str, key)).encode()).digest(), "<u4")
    return np.random.default_rng(np.random.SeedSequence(words.tolist()))


# ---- stations


def station_of(samples: Any) -> NDArray[np.str_]:
    """Name of the station each row belongs to: what folds, intervals and calibration take as their unit.

    Parameters
    ----------
    samples : Dataset (dim sample) or DataFrame
        With `row` and `col` (stations in one cell are one unit, for they share every predictor), else with `station`
        (and `network`, as names recur in other networks), else with `latitude` and `longitude`.

    Returns
    -------
    array (n,) of str
        "network/station" as far as known, else "row,col" or "latitude,longitude".

    Raises
    ------
    ValueError
        None of these is there, or one is missing in a row.

    Examples
    --------
    >>> import pandas as pd
    >>> station_of(pd.DataFrame({"network": ["A", "B"], "station": ["S1", "S1"]})).tolist()
    ['A/S1', 'B/S1']
    """
    import pandas as pd

    columns = samples.columns if hasattr(samples, "columns") else samples.variables
    there = [
        pair for pair in (("row", "col"), ("network", "station"), ("latitude", "longitude")) if {*pair} <= {*columns}
    ]
    if "station" in columns and ("network", "station") not in there:
        there.append(("station",))  # type: ignore[arg-type]
    if not there:
        raise ValueError(
            "the samples do not say which station a row belongs to: give a column 'station' (and 'network'), "
            f"'row' and 'col', or 'latitude' and 'longitude'; they have {sorted(map(str, columns))}"
        )
    table = pd.DataFrame({name: np.asarray(samples[name].values) for pair in there for name in pair})
    unit = [*there[0]]
    if table[unit].isna().to_numpy().any():
        raise ValueError(f"{int(table[unit].isna().any(axis=1).sum())} rows have no {' or '.join(unit)}")
    code = table.groupby(unit, sort=True).ngroup().to_numpy()
    first = table.groupby(code).first()
    named = [name for name in ("network", "station") if name in table]
    plain = first[unit].astype(str).agg(",".join, axis=1)
    if unit == ["row", "col"] and "station" in named and not first[named].isna().to_numpy().any():
        labels = first[named].astype(str).agg("/".join, axis=1)
        labels = labels.where(~labels.duplicated(keep=False), labels + "@" + plain)
    else:
        labels = first[unit].astype(str).agg("/".join, axis=1) if "station" in unit else plain
    return labels.to_numpy().astype(str)[code]


def station_folds(
    station: ArrayLike, folds: int = 5, *, seed: int = 0
) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Folds that hold whole stations, usable as a scikit-learn `cv`.

    Stations are taken in random order, each into the fold that has the fewest rows so far.

    Parameters
    ----------
    station : array (n,)
        Which station each row belongs to; see `station_of`.
    folds : int
        At most as many as there are stations.
    seed : int
        The folds follow from it and from the names, whatever the order of the rows.

    Returns
    -------
    list of (train, test)
        Row numbers.

    Examples
    --------
    >>> [test.tolist() for _, test in station_folds(["a", "b", "a", "c"], 3)]
    [[3], [0, 2], [1]]
    """
    names, code, size = np.unique(np.asarray(station), return_inverse=True, return_counts=True)
    if not 2 <= folds <= names.size:
        raise ValueError(
            f"{folds} folds of {names.size} stations: folds hold whole stations, 2 to {names.size} of them"
        )
    home, load = np.empty(names.size, "i8"), np.zeros(folds, "i8")
    for one in np.random.default_rng(seed).permutation(names.size):
        home[one] = load.argmin()
        load[home[one]] += size[one]
    fold = home[code]
    return [(np.flatnonzero(fold != k), np.flatnonzero(fold == k)) for k in range(folds)]


# ---- sums by station


@dataclass(frozen=True, eq=False)
class StationSums:
    """What measures need of each group: arrays (groups,), or (draws,) once stations are drawn.

    Predictions and references are counted from their means, so that squares lose no digits.
    """

    n: NDArray[np.float64]
    error: NDArray[np.float64]
    squares: NDArray[np.float64]  # of errors
    between: NDArray[np.float64]  # (sum of a group's errors)^2 / n
    p: NDArray[np.float64]
    o: NDArray[np.float64]
    pp: NDArray[np.float64]
    oo: NDArray[np.float64]
    po: NDArray[np.float64]

    @classmethod
    def of(cls, prediction: NDArray[Any], reference: NDArray[Any], code: NDArray[np.int64], groups: int) -> StationSums:
        """Sums of rows (n,) by the number of their group."""
        p, o = np.asarray(prediction, "f8"), np.asarray(reference, "f8")
        e = p - o
        p, o = p - p.mean(), o - o.mean()
        n, error, squares, *rest = (
            np.bincount(code, weights, groups).astype("f8") for weights in (None, e, e * e, p, o, p * p, o * o, p * o)
        )
        return cls(n, error, squares, error**2 / np.maximum(n, 1), *rest)

    @classmethod
    def of_errors(cls, n: NDArray[Any], mean: NDArray[Any], mse: NDArray[Any]) -> StationSums:
        """Sums from what results keep of each station: enough for every measure but the correlation."""
        n, mean, mse = (np.asarray(np.where(n > 0, values, 0), "f8") for values in (n, mean, mse))
        void = np.full(n.shape, np.nan)
        return cls(n, n * mean, n * mse, n * mean**2, void, void, void, void, void)

    def drawn(self, counts: NDArray[Any]) -> StationSums:
        """Sums over groups that were drawn `counts` (draws, groups) times each."""
        table = np.stack([getattr(self, name) for name in self.__dataclass_fields__], axis=1)
        return StationSums(*(counts.astype("f8") @ table).T)


def _ratio(over: NDArray[Any], under: NDArray[Any]) -> NDArray[np.float64]:
    return np.divide(over, under, out=np.full(np.shape(over), np.nan), where=under > 0)


def _pearson(s: StationSums) -> NDArray[np.float64]:
    spread = np.sqrt(np.maximum(s.pp - _ratio(s.p**2, s.n), 0) * np.maximum(s.oo - _ratio(s.o**2, s.n), 0))
    return np.clip(_ratio(s.po - _ratio(s.p * s.o, s.n), spread), -1, 1)


FORMULAS: Mapping[str, Callable[[StationSums], NDArray[np.float64]]] = {
    "bias": lambda s: _ratio(s.error, s.n),
    "mse": lambda s: _ratio(s.squares, s.n),
    "rmse": lambda s: np.sqrt(_ratio(s.squares, s.n)),
    "ubrmse": lambda s: np.sqrt(np.maximum(_ratio(s.squares, s.n) - _ratio(s.error, s.n) ** 2, 0)),
    "pearson_r": _pearson,
    "level": lambda s: _ratio(s.between, s.n),
    "dynamics": lambda s: np.maximum(_ratio(s.squares - s.between, s.n), 0),
}
"""Measures that follow from sums by station."""


def draw_counts(groups: int, draws: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """How often each of the groups comes in each bootstrap draw: (draws, groups)."""
    return rng.multinomial(groups, np.full(groups, 1 / groups), size=draws)


def bounds(values: NDArray[np.float64], axis: int = 0) -> NDArray[np.float64]:
    """Lower and upper bound of the interval that the draws give; NaN where a draw is not defined."""
    tail = (1 - LEVEL) / 2
    return np.quantile(values, [tail, 1 - tail], axis=axis)


# ---- scorecard entries


def level_dynamics(prediction: Any, reference: Any, station: Any) -> xr.Dataset:
    """Split the mean square error exactly into level and dynamics.

    Level is the error of the stations' means, weighted by their numbers of rows; dynamics is the rest, the error in
    how each station differs from its own mean. Unseen places fail in level first.

    Parameters
    ----------
    prediction, reference : DataArray or array, m3 m-3
        Cells missing in either are left out.
    station : DataArray or array of labels
        Which station each value belongs to; its dims are among those of the fields.

    Returns
    -------
    Dataset
        `mse`, `level`, `dynamics`, in squared units, level + dynamics = mse; `level_share` = level / mse.

    References
    ----------
    Gupta et al. (2009), J. Hydrol. 377, 80-91, doi:10.1016/j.jhydrol.2009.08.003 (such splits of the MSE)

    Examples
    --------
    >>> parts = level_dynamics(np.array([0.2, 0.4, 0.1]), np.array([0.1, 0.3, 0.1]), np.array(["a", "a", "b"]))
    >>> parts.level.round(6).item(), parts.dynamics.round(6).item()
    (0.006667, 0.0)
    """
    (p,), o, code, names = _rows(prediction, reference, groups=station)
    e, n = p - o, np.bincount(code)
    mean = np.bincount(code, e) / n
    level, dynamics = float(n @ mean**2) / e.size, float(((e - mean[code]) ** 2).mean())
    parts = {
        "mse": (level + dynamics, "mean square error", "mean((p - o)^2)"),
        "level": (level, "square error of station means", "sum_s n_s mean_s(p - o)^2 / n"),
        "dynamics": (dynamics, "square error of departures from station means", "mean((p - o - mean_s(p - o))^2)"),
        "level_share": (level / (level + dynamics) if level + dynamics else np.nan, "share of level", "level / mse"),
    }
    entries = {name: ((), value, {"long_name": said, "formula": how}) for name, (value, said, how) in parts.items()}
    return xr.Dataset(entries, attrs={"stations": names.size, "n": int(e.size)})


def bootstrap(
    measure: Measure | str,
    prediction: Any,
    reference: Any,
    *,
    groups: Any,
    versus: Any = None,
    draws: int = 1000,
    seed: int = 0,
) -> xr.Dataset:
    """A measure with its 95 % interval, from drawing whole groups with replacement.

    Parameters
    ----------
    measure : function of (prediction, reference), or str
        One of `smgrid.scores`, any other that gives one number, or "mse", "level", "dynamics".
    prediction, reference : DataArray, maps or array
        Cells missing in either are left out.
    groups : DataArray or array of labels
        The unit: the station (`station_of`), or the 9-km block on a map; its dims are among those of the fields.
    versus : DataArray, maps or array, optional
        Another prediction. The answer is then the difference, `prediction` less `versus`, on the same cells and with
        the same groups drawn for both: much surer than two intervals side by side.
    draws, seed : int

    Returns
    -------
    Dataset
        `estimate`, `lower`, `upper`; the number of groups in attrs.

    Raises
    ------
    ValueError
        Fewer than two groups: one station says nothing about others.

    References
    ----------
    Efron & Tibshirani (1993), An Introduction to the Bootstrap, doi:10.1007/978-1-4899-4541-9, chapter 13.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> station = np.repeat(np.arange(20), 50)
    >>> truth = rng.normal(0.2, 0.05, 1000)
    >>> found = bootstrap("bias", truth + rng.normal(0.01, 0.03, 20)[station], truth, groups=station)
    >>> bool(found.lower < 0.01 < found.upper)
    True
    """
    predictions = (prediction,) if versus is None else (prediction, versus)
    ps, o, code, names = _rows(*predictions, reference, groups=groups)
    if names.size < 2:
        raise ValueError(f"an interval needs at least 2 groups, not {names.size}: one station says nothing of others")
    counts = draw_counts(names.size, draws, np.random.default_rng(seed))
    name = measure if isinstance(measure, str) else getattr(measure, "__name__", "measure")
    ours = isinstance(measure, str) or getattr(measure, "__module__", "") == "smgrid.scores"
    if isinstance(measure, str) and name not in FORMULAS:
        raise ValueError(f"no measure is called {name!r}; there are {sorted(FORMULAS)}, or give a function")
    if ours and name in FORMULAS:
        sums = [StationSums.of(p, o, code, names.size) for p in ps]
        whole = np.ones((1, names.size))
        point = [FORMULAS[name](s.drawn(whole))[0] for s in sums]
        drawn = [FORMULAS[name](s.drawn(counts)) for s in sums]
    else:
        rows = [np.flatnonzero(code == k) for k in range(names.size)]
        picks = [np.concatenate([rows[k] for k in np.repeat(np.arange(names.size), times)]) for times in counts]
        point = [_number(measure, p, o) for p in ps]
        drawn = [np.array([_number(measure, p[pick], o[pick]) for pick in picks]) for p in ps]
    estimate, values = (point[0], drawn[0]) if versus is None else (point[0] - point[1], drawn[0] - drawn[1])
    lower, upper = bounds(values)
    attrs = {"measure": name, "interval": f"{LEVEL:.0%} percentile", "groups": int(names.size), "draws": draws}
    return xr.Dataset({"estimate": estimate, "lower": lower, "upper": upper}, attrs=attrs)


def _number(measure: Any, p: NDArray[Any], o: NDArray[Any]) -> float:
    return float(measure(xr.DataArray(p, dims="sample"), xr.DataArray(o, dims="sample")))


def _rows(*fields: Any, groups: Any) -> tuple[list[NDArray[Any]], NDArray[Any], NDArray[np.int64], NDArray[Any]]:
    """Predictions, reference, group number of the cells that all fields have, and the groups' labels."""
    given: list[Any] = [as_field(f) if isinstance(f, xr.DataArray | xr.Dataset) else np.asarray(f) for f in fields]
    if all(isinstance(a, xr.DataArray) for a in given):
        labels = groups if isinstance(groups, xr.DataArray) else xr.DataArray(groups, dims=given[0].dims)
        *given, labels = xr.broadcast(*xr.align(*given, labels, join="exact"))
        groups = labels.values
    arrays = [np.asarray(a, "f8") for a in given]
    label = np.asarray(groups)
    if len({label.shape, *(a.shape for a in arrays)}) > 1:
        raise ValueError(f"the groups have the shape {label.shape}, the fields {[a.shape for a in arrays]}")
    known = np.isfinite(np.stack(arrays)).all(axis=0)
    if not known.any():
        raise ValueError("the fields have no cell in common")
    names, code = np.unique(label[known], return_inverse=True)
    *predictions, reference = (a[known] for a in arrays)
    return predictions, reference, code.astype(np.int64), names
