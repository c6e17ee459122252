"""Runs one trial of a scenario: one size, one repeat, one regressor or baseline, all its draws.

A trial knows the table, its own key and nothing else: every random number in it follows from that key, so it gives the
same result in any process, in any order, and after any interruption.
"""

from __future__ import annotations

import base64
import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smgrid.columns import sample_columns
from smgrid.features import PAPER, Predictor, contract, day_of_year, encode
from smgrid.regressors import make_regressor, one_thread, search_space
from smgrid.resampling import FORMULAS, StationSums, bounds, draw_counts, station_folds, station_of, stream
from smgrid.splits import Splits
from smgrid.tuning import Params, draw_params, predict_draws

log = logging.getLogger("smgrid")

KINDS = ("mlp", "svr", "rf", "xgb")
SCORES = ("bias", "pearson_r", "rmse", "level", "dynamics")
INNER = 3  # folds, by station, of the honest choice
BOOTSTRAP = 1000
LAYOUT = 1  # of what a trial gives; another number makes old trials be run anew


# ---- the table


@dataclass(frozen=True, eq=False)
class Table:
    """Complete rows of samples as plain arrays."""

    predictors: Mapping[str, Predictor]
    columns: list[NDArray[np.float64]]
    target: NDArray[np.float64]
    names: NDArray[np.str_]  # of stations
    code: NDArray[np.int64]  # station of each row
    days: NDArray[np.datetime64] | None
    smap: NDArray[np.float64] | None
    kept: NDArray[np.bool_]  # rows of the samples that are complete
    digest: str

    @classmethod
    def of(cls, samples: Any, features: Sequence[str] | Mapping[str, Predictor]) -> Table:
        """The rows that have every predictor and soil moisture."""
        predictors = contract(features)
        columns = sample_columns(samples, predictors, None)
        names = samples.columns if hasattr(samples, "columns") else samples.variables
        if "soil_moisture" not in names:
            raise ValueError(f"the samples have no 'soil_moisture' (m3 m-3); they have {sorted(map(str, names))}")
        moisture = {"soil_moisture": Predictor("m3 m-3", 0, 1)}
        (target,) = sample_columns(samples[["soil_moisture"]], moisture, None)
        kept = np.asarray(np.isfinite(np.stack([*columns, target])).all(axis=0))
        if not kept.any():
            named = zip([*predictors, "soil_moisture"], [*columns, target])
            empty = [name for name, c in named if not np.isfinite(c).any()]
            raise ValueError(f"no row has all of {list(predictors)} and soil_moisture; always missing: {empty}")
        if not kept.all():
            log.info("scenario: %d of %d rows left out for a missing value", kept.size - kept.sum(), kept.size)
        stations, code = np.unique(station_of(samples)[kept], return_inverse=True)
        days = np.asarray(samples["time"].values, "M8[D]")[kept] if "time" in names else None
        columns, target = [np.ascontiguousarray(c[kept]) for c in columns], target[kept]
        smap = _smap(samples, kept) if "smap" in names else None
        digest = hashlib.sha256(repr((list(predictors.items()), stations.tolist())).encode())
        for array in (*columns, target, code.astype("<i8"), *([] if days is None else [days.astype("<i8")])):
            digest.update(np.ascontiguousarray(array).tobytes())
        digest.update(b"" if smap is None else smap.tobytes())
        return cls(predictors, columns, target, stations, code.astype("i8"), days, smap, kept, digest.hexdigest())

    def inputs(self, train: NDArray[np.int64], test: NDArray[np.int64]) -> list[NDArray[np.float64]]:
        """Model inputs of training and test rows; a predictor outside the paper's table is scaled by training rows."""
        scaled = []
        for p, column in zip(self.predictors.values(), self.columns):
            if p.period is None and p.min is None:
                low, high = float(column[train].min()), float(column[train].max())
                p = replace(p, min=low, max=high if high > low else low + 1)
            scaled.append(p)
        return [encode([column[rows] for column in self.columns], scaled) for rows in (train, test)]


def _smap(samples: Any, kept: NDArray[np.bool_]) -> NDArray[np.float64] | None:
    """SMAP of the rows, for the baseline; None where some rows lack it, for then it would be judged on others."""
    (smap,) = sample_columns(samples[["smap"]], {"smap": PAPER["smap"]}, None)
    missing = int((~np.isfinite(smap[kept])).sum())
    if missing:
        log.warning(
            "'SMAP alone' is left out: smap is missing in %d of %d rows that the models use", missing, kept.sum()
        )
        return None
    return smap[kept]


# ---- baselines


Baseline = Callable[[Table, NDArray[np.int64], NDArray[np.int64]], NDArray[np.float64] | None]


def training_mean(table: Table, train: NDArray[np.int64], test: NDArray[np.int64]) -> NDArray[np.float64]:
    """The mean of the training rows."""
    return np.full(test.size, table.target[train].mean())


def smap_alone(table: Table, train: NDArray[np.int64], test: NDArray[np.int64]) -> NDArray[np.float64] | None:
    """A straight line on SMAP, fitted to the training rows."""
    if table.smap is None:
        return None
    x, y = table.smap[train], table.target[train]
    spread = float(((x - x.mean()) ** 2).sum())
    slope = float((x - x.mean()) @ y) / spread if spread > 0 else 0.0
    return y.mean() + slope * (table.smap[test] - x.mean())


def station_climatology(table: Table, train: NDArray[np.int64], test: NDArray[np.int64]) -> NDArray[np.float64] | None:
    """A station's own training mean and one season (sine and cosine) for all; None where no test station trains."""
    size = table.names.size
    n = np.bincount(table.code[train], minlength=size)
    if not n[table.code[test]].any():
        return None
    y = table.target[train]
    mean = np.where(n > 0, np.bincount(table.code[train], y, size) / np.maximum(n, 1), y.mean())
    if table.days is None:
        return mean[table.code[test]]
    phase = day_of_year(table.days) * (2 * np.pi / 365.25)
    waves = np.stack([np.sin(phase), np.cos(phase)], axis=1)
    # seasons are fitted to departures from station means, on both sides, so that no station's level enters them
    centre = np.stack([np.bincount(table.code[train], w[train], size) for w in waves.T], 1) / np.maximum(n, 1)[:, None]
    within = waves[train] - centre[table.code[train]]
    season = np.linalg.lstsq(within, y - mean[table.code[train]], rcond=None)[0]
    return mean[table.code[test]] + (waves[test] - centre[table.code[test]]) @ season


BASELINES: Mapping[str, Baseline] = {
    "training mean": training_mean,
    "SMAP alone": smap_alone,
    "station climatology": station_climatology,
}


# ---- one trial


@dataclass(frozen=True, eq=False)
class Contender:
    """A regressor and what is drawn for it, or a baseline (no estimator)."""

    name: str
    estimator: Any = None
    space: Mapping[str, Any] | None = None

    def signature(self) -> str:
        """What decides its trials: class, own parameters, search space."""
        if self.estimator is None:
            return self.name
        kind = type(self.estimator)
        own = self.estimator.get_params() if hasattr(self.estimator, "get_params") else vars(self.estimator)
        space = {
            key: value if hasattr(value, "__len__") else _frozen(value) for key, value in (self.space or {}).items()
        }
        return f"{kind.__module__}.{kind.__qualname__} {sorted(own.items())!r} {sorted(space.items())!r}"


def _frozen(distribution: Any) -> Any:
    """A distribution by its arguments: its own repr names an address."""
    return type(distribution).__name__, getattr(distribution, "args", None), getattr(distribution, "kwds", None)


def contenders(regressors: Sequence[str] | Mapping[str, Any]) -> list[Contender]:
    """The regressors asked for, then the baselines."""
    if isinstance(regressors, str):
        regressors = (regressors,)
    if not isinstance(regressors, Mapping):
        regressors = {kind: (make_regressor(kind), search_space(kind)) for kind in regressors}
    found = []
    for name, given in regressors.items():
        estimator, space = given if isinstance(given, tuple) else (given, {})
        if not (hasattr(estimator, "fit") and hasattr(estimator, "predict")):
            raise TypeError(f"{name!r} is an estimator or (estimator, search_space), not {type(given).__name__}")
        if name in BASELINES:
            raise ValueError(f"{name!r} is the name of a baseline: call the regressor otherwise")
        found.append(Contender(name, estimator, space))
    return [*found, *(Contender(name) for name in BASELINES)]


@dataclass(frozen=True, eq=False)
class Plan:
    """What all trials of a run have in common."""

    splits: Splits
    contenders: Sequence[Contender]
    repeats: int
    draws: int
    tuning: str
    seed: int

    def trials(self) -> Iterator[Trial]:
        """All trials, repeat by repeat, so that what is done first is the whole experiment in small."""
        for repeat in range(self.repeats):
            for size in self.splits.sizes:
                for contender in self.contenders:
                    yield Trial(replace(self, contenders=()), contender, size, repeat)


@dataclass(frozen=True, eq=False)
class Trial:
    """One size, one repeat, one contender."""

    plan: Plan
    contender: Contender
    size: float
    repeat: int

    def key(self, digest: str) -> str:
        """What decides the result; the same key, the same result."""
        plan, splits = self.plan, self.plan.splits
        said = {
            "layout": LAYOUT,
            "table": digest,
            "scenario": [splits.scenario, splits.options(), splits.seed, float(self.size), self.repeat],
            "contender": [self.contender.name, self.contender.signature()],
            "draws": plan.draws,
            "tuning": plan.tuning,
            "seed": plan.seed,
        }
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()

    def stream(self, what: str, *who: str) -> np.random.Generator:
        """Random numbers of this split, and of whom they are for."""
        return stream(self.plan.seed, what, self.plan.splits.scenario, float(self.size), self.repeat, *who)

    def integer(self, what: str) -> int:
        """One seed of this trial."""
        return int(self.stream(what, self.contender.name).integers(2**31))


def attempt(table: Table, trial: Trial) -> dict[str, Any]:
    """The result of a trial as plain data: scores with intervals, the choice made, sums by station."""
    train, test = trial.plan.splits.draw(trial.size, trial.repeat)
    result: dict[str, Any] = {
        "n_train": int(train.size),
        "n_test": int(test.size),
        "stations_train": int(np.unique(table.code[train]).size),
        "stations_test": int(np.unique(table.code[test]).size),
    }
    if trial.contender.estimator is None:
        prediction = BASELINES[trial.contender.name](table, train, test)
        return result if prediction is None else result | _scored(table, trial, test, prediction)
    with one_thread():
        chosen, prediction = _search(table, trial, train, test)
    return result | chosen | _scored(table, trial, test, prediction)


def _search(
    table: Table, trial: Trial, train: NDArray[np.int64], test: NDArray[np.int64]
) -> tuple[dict[str, Any], NDArray[np.float64]]:
    """Try all draws; keep the one that the tuning picks, and its prediction of the test rows."""
    draws = draw_params(trial.contender.space or {}, trial.plan.draws, trial.stream("draws", trial.contender.name))
    estimator = _seeded(trial.contender.estimator, trial.integer("model"))
    rows, unseen = table.inputs(train, test)
    target, truth = table.target[train], table.target[test]
    picked = None
    if trial.plan.tuning == "honest":
        inner = _inner_rmse(estimator, draws, rows, target, list(_inner_folds(table, trial, train)))
        picked = int(np.argmin(inner))
    rmse, capped, kept = np.full(len(draws), np.inf), 0, np.empty(0)
    best = (np.inf, len(draws))
    for one in predict_draws(estimator, draws, rows, target, unseen, alike=table.code[test]):
        found = np.sqrt(np.mean((one.values - truth) ** 2))
        rmse[list(one.draws)] = found if np.isfinite(found) else np.inf
        capped += one.capped * len(one.draws)
        rank = rmse[one.draws[0]], one.draws[0]
        if (picked is None and (rank < best or not kept.size)) or picked in one.draws:
            best, kept = min(rank, best), one.values
    oracle = int(np.argmin(rmse))
    picked = oracle if picked is None else picked
    return {
        "params": json.dumps(draws[picked], default=repr),
        "rmse_of_draws": [float(value) for value in rmse],
        "capped": int(capped),
        "optimism": float(rmse[picked] - rmse[oracle]) if trial.plan.tuning == "honest" else np.nan,
    }, kept


def _seeded(estimator: Any, seed: int) -> Any:
    """A copy whose random choices follow from the trial, on one thread."""
    if not hasattr(estimator, "get_params"):
        return estimator
    from sklearn.base import clone

    own = estimator.get_params()
    said = {name: seed for name in own if name.split("__")[-1] == "random_state"}
    said |= {name: 1 for name in own if name.split("__")[-1] == "n_jobs"}
    return clone(estimator).set_params(**said)


def _inner_folds(
    table: Table, trial: Trial, train: NDArray[np.int64]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Folds of the training rows: whole stations; a single station's rows in stretches of time."""
    code = table.code[train]
    stations = np.unique(code).size
    if stations > 1:
        yield from station_folds(code, min(INNER, stations), seed=trial.integer("folds"))
    elif train.size > 1:
        order = np.arange(train.size) if table.days is None else np.argsort(table.days[train], kind="stable")
        for part in np.array_split(order, min(INNER, train.size)):
            yield np.setdiff1d(order, part), np.sort(part)


def _inner_rmse(
    estimator: Any,
    draws: list[Params],
    rows: NDArray[np.float64],
    target: NDArray[np.float64],
    folds: list[tuple[NDArray[np.int64], NDArray[np.int64]]],
) -> NDArray[np.float64]:
    """RMSE of every draw over the inner folds; all equal (the first draw wins) where one row alone trains."""
    squares = np.zeros(len(draws))
    for fit, held in folds:
        for one in predict_draws(estimator, draws, rows[fit], target[fit], rows[held]):
            squares[list(one.draws)] += float(np.sum((one.values - target[held]) ** 2))
    return np.sqrt(np.where(np.isfinite(squares), squares, np.inf) / target.size)


def _scored(table: Table, trial: Trial, test: NDArray[np.int64], prediction: NDArray[np.float64]) -> dict[str, Any]:
    """Scores with their station-bootstrap intervals, and what each station's errors add up to."""
    there, code = np.unique(table.code[test], return_inverse=True)
    sums = StationSums.of(prediction, table.target[test], code, there.size)
    whole = sums.drawn(np.ones((1, there.size)))
    counts = draw_counts(there.size, BOOTSTRAP, trial.stream("bootstrap"))  # the same for every contender of a split
    drawn = sums.drawn(counts) if there.size > 1 else None
    scores = {}
    for name in SCORES:
        interval = [np.nan, np.nan] if drawn is None else bounds(FORMULAS[name](drawn)).tolist()
        scores[name] = [float(FORMULAS[name](whole)[0]), *interval]
    by_station = {"count": sums.n.astype("<i4"), "bias": sums.error / sums.n, "mse": sums.squares / sums.n}
    packed = {}
    for name, values in by_station.items():
        full = np.zeros(table.names.size, "<i4" if name == "count" else "<f4")
        full[there] = values
        packed[name] = base64.b64encode(full.tobytes()).decode()
    return {"scores": scores, "stations": packed}


def unpack(packed: Mapping[str, str]) -> dict[str, NDArray[Any]]:
    """Arrays (stations,) of count, bias and mean square error."""
    kinds = {"count": "<i4", "bias": "<f4", "mse": "<f4"}
    return {name: np.frombuffer(base64.b64decode(packed[name]), kind) for name, kind in kinds.items()}
