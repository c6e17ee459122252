"""Fits many draws of one regressor's parameters and predicts with each, sharing what draws have in common.

The paper's protocol is 580 000 fits; much of it is the same work again, and is done once here with the same result:

- *equal draws* are one draw;
- *boosting*: with the other parameters equal, fewer trees are the first trees of more. One fit, predicted piece by
  piece, each piece going on from the margin of the last;
- *forests*: the trees of one `random_state` are a prefix too, and a tree that never reached its depth limit is the tree
  of every larger limit. Test rows that look alike are put side by side, for neighbours then take the same branches;
- *support vectors*: all draws of a kernel share the matrix between test rows and training rows: one product a tile
  instead of a walk over the support vectors for each row;
- *perceptrons* share no fits; their test rows go in tiles that stay in cache, in float32 (RMSE to 1e-6).

The third-degree kernel takes some n^4 steps to converge on n rows, hours at 10 000: its steps are capped at `POLY_CAP`,
for the shared way and the plain one alike, and each fit that met a cap is reported.
"""

from __future__ import annotations

import json
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from smgrid.densekernels import Perceptron, SupportVectors
from smgrid.regressors import class_of

POLY_CAP = 100_000  # steps of the solver; fits on 1000 rows rarely need them
Params = dict[str, Any]
_Answer = Iterator[tuple[int, NDArray[Any], bool]]
_Alike = NDArray[np.int64] | None


class Predicted(NamedTuple):
    """What one distinct draw says of the test rows."""

    draws: tuple[int, ...]  # which draws it stands for
    values: NDArray[np.float64]
    capped: bool  # the solver met its cap on steps


def draw_params(space: Mapping[str, Any], draws: int, rng: np.random.Generator) -> list[Params]:
    """Random draws from a search space, each parameter by itself; the first k of many are the k of few.

    Parameters
    ----------
    space : mapping of str to sequence, or to a distribution with `rvs`
    draws : int
    rng : Generator

    Examples
    --------
    >>> draw_params({"C": [1, 3], "kernel": ["rbf"]}, 2, np.random.default_rng(0))
    [{'C': 3, 'kernel': 'rbf'}, {'C': 3, 'kernel': 'rbf'}]
    """
    if not space:
        return [{}]

    def one(values: Any) -> Any:
        return values.rvs(random_state=rng) if hasattr(values, "rvs") else values[int(rng.integers(len(values)))]

    return [{name: one(values) for name, values in space.items()} for _ in range(draws)]


def predict_draws(
    estimator: Any,
    draws: Sequence[Params],
    rows: NDArray[np.float64],
    target: NDArray[np.float64],
    test: NDArray[np.float64],
    *,
    alike: NDArray[np.int64] | None = None,
    share: bool = True,
) -> Iterator[Predicted]:
    """Fit every distinct draw on the rows, predict the test rows; in any order of draws.

    Parameters
    ----------
    estimator : estimator
        Unfitted; draws are set on copies.
    draws : sequence of dict
        Parameters of each draw.
    rows, target : array (n, k), array (n,)
    test : array (m, k)
    alike : array (m,) of int, optional
        Test rows with the same number are alike (of one station); only speed depends on it.
    share : bool
        False fits and predicts draw by draw: what the shared ways are checked against.

    Yields
    ------
    Predicted
        Values are NaN where a solver diverged.
    """
    distinct: dict[str, list[int]] = defaultdict(list)
    for i, params in enumerate(draws):
        distinct[json.dumps(params, sort_keys=True, default=repr)].append(i)
    groups = [tuple(members) for members in distinct.values()]
    models = [configured(estimator, draws[members[0]]) for members in groups]
    way: Callable[..., _Answer] = _one_by_one
    if share and models:
        way = next((shared for fits, shared in _WAYS if all(fits(model) for model in models)), _one_by_one)
    with _quiet():
        for i, values, capped in way(models, rows, target, test, alike):
            yield Predicted(groups[i], np.asarray(values, "f8"), capped)


def configured(estimator: Any, params: Params) -> Any:
    """A copy of the estimator with a draw's parameters, and a cap on the steps of a polynomial kernel."""
    from copy import deepcopy

    if not hasattr(estimator, "get_params"):
        if params:
            raise TypeError(f"{type(estimator).__name__} has no set_params: its parameters cannot be searched")
        return deepcopy(estimator)
    from sklearn.base import clone

    model = clone(estimator).set_params(**params)
    if class_of(model) == ("sklearn", "SVR") and model.kernel == "poly" and model.max_iter == -1:
        model.set_params(max_iter=POLY_CAP)
    return model


@contextmanager
def _quiet() -> Iterator[None]:
    """Caps and overflows are counted and scored, not warned of draw by draw."""
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings(), np.errstate(over="ignore", invalid="ignore"):
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.filterwarnings("ignore", category=RuntimeWarning, message="(overflow|invalid value)")
        yield


def _fit(model: Any, rows: NDArray[Any], target: NDArray[Any]) -> Any | None:
    """The fitted model; None where its solver diverged."""
    try:
        return model.fit(rows, target)
    except ValueError as error:
        if "non-finite" in str(error):
            return None
        raise


def _capped(model: Any) -> bool:
    steps, cap = getattr(model, "n_iter_", 0), getattr(model, "max_iter", -1)
    return bool(isinstance(cap, int) and cap > 0 and np.max(steps) >= cap)


def _one_by_one(models: list[Any], rows: NDArray[Any], target: NDArray[Any], test: NDArray[Any], _: _Alike) -> _Answer:
    for i, model in enumerate(models):
        fitted = _fit(model, rows, target)
        yield (i, np.full(len(test), np.nan), True) if fitted is None else (i, fitted.predict(test), _capped(fitted))


def _by(models: list[Any], *free: str) -> Iterator[list[int]]:
    """Numbers of the models that differ in the `free` parameters only."""
    groups: dict[str, list[int]] = defaultdict(list)
    for i, model in enumerate(models):
        fixed = {name: value for name, value in model.get_params().items() if name not in free}
        groups[repr(sorted(fixed.items()))].append(i)
    yield from groups.values()


# ---- boosting


def _is_boosting(model: Any) -> bool:
    params = model.get_params() if class_of(model) == ("xgboost", "XGBRegressor") else {}
    plain = ("base_score", "early_stopping_rounds", "callbacks")
    return (
        params.get("n_estimators") is not None
        and params.get("objective") == "reg:squarederror"
        and params.get("booster") in (None, "gbtree")
        and all(params.get(name) is None for name in plain)
    )


def _boosting(models: list[Any], rows: NDArray[Any], target: NDArray[Any], test: NDArray[Any], _: _Alike) -> _Answer:
    single = np.ascontiguousarray(test, "f4")  # what XGBoost makes of any rows
    for members in _by(models, "n_estimators"):
        members = sorted(members, key=lambda i: models[i].n_estimators)
        booster = models[members[-1]].fit(rows, target).get_booster()
        margin, done = None, 0
        for i in members:
            most = models[i].n_estimators
            if most > done:
                margin = booster.inplace_predict(
                    single, iteration_range=(done, most), predict_type="margin", base_margin=margin
                )
                done = most
            yield i, np.asarray(margin), False


# ---- forests


def _is_forest(model: Any) -> bool:
    if class_of(model) != ("sklearn", "RandomForestRegressor"):
        return False
    return (
        isinstance(model.random_state, int)
        and model.max_leaf_nodes is None  # such trees grow best first: a limit changes more than the depth
        and not (model.oob_score or model.warm_start)
    )


def _forest(models: list[Any], rows: NDArray[Any], target: NDArray[Any], test: NDArray[Any], alike: _Alike) -> _Answer:
    from sklearn.tree import DecisionTreeRegressor

    rows, test = np.ascontiguousarray(rows, "f4"), np.ascontiguousarray(test, "f4")
    leaf = DecisionTreeRegressor(random_state=0).fit(rows, target).tree_.apply(test)
    order = np.lexsort((leaf,) if alike is None else (leaf, alike))
    back, test = np.argsort(order), test[order]
    for drawing in _by(models, *(set(models[0].get_params()) - {"random_state", "bootstrap", "max_samples"})):
        most = max(models[i].n_estimators for i in drawing)
        seeds = _seeds(models[drawing[0]], most, rows, target)
        for members in _by([models[i] for i in drawing], "n_estimators", "max_depth"):
            group = [drawing[k] for k in members]
            for i, total in _grow({i: models[i] for i in group}, seeds, rows, target, test):
                yield i, total[back], False


_Seeds = Sequence[tuple[int, NDArray[np.float64] | None]]


def _grow(
    forests: Mapping[int, Any], seeds: _Seeds, rows: NDArray[Any], target: NDArray[Any], test: NDArray[Any]
) -> Iterator[tuple[int, NDArray[np.float64]]]:
    """Means over the first trees, for every depth limit at once; a tree is grown anew only where its limit bites."""
    from sklearn.tree import DecisionTreeRegressor

    limits: dict[float, list[int]] = defaultdict(list)
    for i, forest in forests.items():
        limits[np.inf if forest.max_depth is None else forest.max_depth].append(i)
    most = {limit: max(forests[i].n_estimators for i in members) for limit, members in limits.items()}
    total = {limit: np.zeros(len(test)) for limit in limits}
    forest = next(iter(forests.values()))
    plain = {name: getattr(forest, name) for name in forest.estimator_params}
    for t, (seed, weight) in enumerate(seeds[: max(most.values())], start=1):
        grown, values = None, np.empty(0)
        for limit in sorted(limits, reverse=True):
            if t > most[limit]:
                continue
            if grown is None or grown.max_depth > limit:
                own = plain | {"random_state": seed, "max_depth": None if limit == np.inf else limit}
                tree = DecisionTreeRegressor(**own).fit(rows, target, sample_weight=weight, check_input=False)
                grown, values = tree.tree_, tree.tree_.predict(test).reshape(-1)
            total[limit] += values
            yield from ((i, total[limit] / t) for i in limits[limit] if forests[i].n_estimators == t)


def _seeds(forest: Any, count: int, rows: NDArray[Any], target: NDArray[Any]) -> _Seeds:
    """Seed and row weights of each tree of a forest: one of stumps draws the same, at next to no cost."""
    from sklearn.base import clone

    stumps = clone(forest).set_params(n_estimators=count, max_depth=1, max_features=1).fit(rows, target)
    drawn = stumps.estimators_samples_ if forest.bootstrap else [None] * count
    weights = (None if one is None else np.bincount(one, minlength=len(rows)).astype("f8") for one in drawn)
    return [(stump.random_state, weight) for stump, weight in zip(stumps.estimators_, weights)]


# ---- support vectors


def _is_svr(model: Any) -> bool:
    return class_of(model) == ("sklearn", "SVR") and model.kernel in ("linear", "rbf", "poly", "sigmoid")


def _svr(models: list[Any], rows: NDArray[Any], target: NDArray[Any], test: NDArray[Any], _: _Alike) -> _Answer:
    tile = np.ascontiguousarray(test.T)
    for members in _by(models, "C", "epsilon", "max_iter", "tol", "shrinking", "cache_size"):
        fitted = [models[i].fit(rows, target) for i in members]
        weights = np.zeros((len(members), len(rows)))
        for weight, one in zip(weights, fitted):
            weight[one.support_] = one.dual_coef_[0]
        used = np.flatnonzero(np.abs(weights).sum(axis=0))
        intercepts = np.array([one.intercept_[0] for one in fitted])
        out = SupportVectors(fitted[0], rows[used], weights[:, used], intercepts).sums(tile)
        for i, one, values in zip(members, fitted, out):
            yield i, values, _capped(one)


# ---- perceptrons


def _is_mlp(model: Any) -> bool:
    return class_of(model) == ("sklearn", "MLPRegressor") and model.activation in ("relu", "tanh")


def _mlp(models: list[Any], rows: NDArray[Any], target: NDArray[Any], test: NDArray[Any], _: _Alike) -> _Answer:
    tile = np.ascontiguousarray(test.T, "f4")
    for i, model in enumerate(models):
        fitted = _fit(model, rows, target)
        if fitted is None:
            yield i, np.full(len(test), np.nan), True
        else:
            yield i, Perceptron(fitted, "f4").sums(tile)[0], _capped(fitted)


_WAYS = ((_is_boosting, _boosting), (_is_forest, _forest), (_is_svr, _svr), (_is_mlp, _mlp))
