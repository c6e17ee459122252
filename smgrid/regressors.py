"""Names the regressors and their search spaces, and predicts rows with any of them.

A regressor here is anything with `predict(rows)`: the four kinds of the paper ("rf", "xgb", "svr", "mlp"), any other
scikit-learn estimator or pipeline, an XGBoost booster. `predict_rows` gives a row the same float32 whatever rows stand
beside it, however many they are, and on any number of threads.

References
----------
Zhu et al. (2025), IEEE TGRS 63, doi:10.1109/TGRS.2025.3533927, Table III for the search spaces.
"""

from __future__ import annotations

import copy
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from importlib import import_module
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

TILE = 1024  # rows a call for estimators whose arithmetic may depend on the number of rows (matrix products)

_OURS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "rf": (
        "sklearn.ensemble",
        "RandomForestRegressor",
        # the trees' seeds are drawn before the jobs start: the forest is the same on any number of cores
        {"n_estimators": 100, "min_samples_leaf": 8, "max_features": "sqrt", "n_jobs": -1},
    ),
    "xgb": (
        "xgboost",
        "XGBRegressor",
        # one thread: sums of gradients are taken in the same order everywhere
        {"n_estimators": 300, "max_depth": 3, "learning_rate": 0.03, "tree_method": "hist", "n_jobs": 1},
    ),
    "svr": ("sklearn.svm", "SVR", {"kernel": "rbf", "C": 0.1, "epsilon": 0.03}),
    "mlp": (
        "sklearn.neural_network",
        "MLPRegressor",
        {"hidden_layer_sizes": (64, 64), "alpha": 0.001, "learning_rate_init": 0.001, "max_iter": 200},
    ),
}

_ROW_WISE = {  # each row is summed alone, in one order: no tiles needed
    ("sklearn", name)
    for name in (
        *("DecisionTreeRegressor", "ExtraTreeRegressor", "RandomForestRegressor", "ExtraTreesRegressor"),
        *("GradientBoostingRegressor", "HistGradientBoostingRegressor", "SVR", "NuSVR"),
    )
} | {("xgboost", name) for name in ("XGBRegressor", "XGBRFRegressor", "Booster")}


def class_of(estimator: Any) -> tuple[str, str]:
    """Package and class of an estimator, without importing either."""
    return type(estimator).__module__.split(".")[0], type(estimator).__name__


# ---- making


def make_regressor(kind: str, *, seed: int = 0, **params: Any) -> Any:
    """Make an unfitted regressor of one of the paper's four kinds.

    Parameters
    ----------
    kind : {"rf", "xgb", "svr", "mlp"}
        Random forest, gradient-boosted trees, support vectors, multilayer perceptron.
    seed : int
        Of every random choice in training (support vectors make none).
    **params
        The estimator's own parameters, in place of the defaults: RF 100 trees, leaves of 8, sqrt of the predictors a
        split; XGB 300 trees of depth 3, rate 0.03; SVR rbf, C 0.1, epsilon 0.03; MLP (64, 64), alpha 0.001,
        rate 0.001.

    Returns
    -------
    RandomForestRegressor, XGBRegressor, SVR or MLPRegressor
        Any of them trains to the same model on any number of cores.

    Raises
    ------
    ValueError
        Another kind.
    TypeError
        A parameter the estimator does not have.

    Examples
    --------
    >>> make_regressor("svr", C=3)
    SVR(C=3, epsilon=0.03)
    """
    module, name, fixed = _OURS[_known(kind)]
    cls = getattr(import_module(module), name)
    valid = cls().get_params()
    for param in params:
        if param not in valid:
            near = get_close_matches(param, valid, n=3, cutoff=0.5)
            hint = f"did you mean {' or '.join(near)}?" if near else f"it has {sorted(valid)}"
            raise TypeError(f"{name} has no parameter {param!r}: {hint}")
    seeded = {"random_state": seed} if "random_state" in valid else {}
    return cls(**{**fixed, **seeded, **params})


def search_space(kind: str) -> dict[str, Sequence[Any]]:
    """Candidates of the paper's Table III, by the estimator's parameter names.

    Parameters
    ----------
    kind : {"rf", "xgb", "svr", "mlp"}

    Returns
    -------
    dict of str to sequence
        For scikit-learn's `ParameterSampler`, `RandomizedSearchCV` or `ParameterGrid`. U(a, b) is a `range` that
        includes b; 'Auto' depth is None; all 25 features are 1.0; an MLP has one width for all its layers.

    References
    ----------
    Zhu et al. (2025), IEEE TGRS 63, doi:10.1109/TGRS.2025.3533927, Table III.

    Examples
    --------
    >>> search_space("xgb")["n_estimators"]
    range(100, 301)
    """
    widths, depths = (16, 32, 64, 128, 256), (1, 2, 3, 4, 5)
    spaces: dict[str, dict[str, Sequence[Any]]] = {
        "mlp": {
            "hidden_layer_sizes": [(width,) * depth for depth in depths for width in widths],
            "activation": ["relu", "tanh"],
            "alpha": [0.0001, 0.001, 0.01],
            "learning_rate_init": [0.001, 0.01, 0.1],
        },
        "svr": {
            "C": [0.1, 0.3, 1, 3, 10],
            "epsilon": [0.01, 0.03, 0.1, 0.2, 0.3, 0.5],
            "kernel": ["linear", "rbf", "poly", "sigmoid"],
        },
        "rf": {
            "n_estimators": range(10, 101),
            "max_depth": [None, 10, 20, 30],
            "min_samples_split": [2],
            "min_samples_leaf": [1, 2, 4, 8],
            "max_features": ["sqrt", "log2", 1.0],
        },
        "xgb": {
            "n_estimators": range(100, 301),
            "max_depth": [3, 4, 5],
            "learning_rate": [0.3, 0.1, 0.03, 0.01, 0.003, 0.001],
        },
    }
    return spaces[_known(kind)]


def _known(kind: str) -> str:
    if kind not in _OURS:
        raise ValueError(f"kind is one of 'rf', 'xgb', 'svr', 'mlp', not {kind!r}")
    return kind


def is_fitted(estimator: Any) -> bool:
    """Whether an estimator can predict: scikit-learn's own check; anything else that has `predict` counts as fitted."""
    if isinstance(estimator, type) or not hasattr(estimator, "predict"):
        return False
    if not hasattr(estimator, "fit"):
        return True
    from sklearn.base import BaseEstimator
    from sklearn.exceptions import NotFittedError
    from sklearn.utils.validation import check_is_fitted

    if not isinstance(estimator, BaseEstimator):
        return True
    try:
        check_is_fitted(estimator)
    except NotFittedError:
        return False
    return True


# ---- threads


def on_one_thread(estimator: Any) -> Any:
    """Copy a fitted estimator so that it predicts on one thread; the caller's is unchanged.

    Only what carries a number of threads is copied, arrays and trees are shared: parts of pipelines, searches and
    ensembles get `n_jobs=1`, boosters `nthread=1`. BLAS and OpenMP have no setting of the estimator: predict inside
    `one_thread()`, as `predict_rows` does.

    Parameters
    ----------
    estimator : fitted scikit-learn estimator or pipeline, XGBRegressor, Booster, anything
        What is none of them is returned as it is.
    """
    with one_thread():  # a booster's copy would leave a thread of OpenMP behind
        return _single(estimator, {})


def _single(part: Any, seen: dict[int, Any]) -> Any:
    if id(part) in seen:
        return seen[id(part)]
    new: Any = part
    if class_of(part) == ("xgboost", "Booster"):
        new = part.copy()
        new.set_param({"nthread": 1})
    elif isinstance(part, dict):
        values = {key: _single(value, seen) for key, value in part.items()}
        if any(values[key] is not part[key] for key in part):
            new = copy.copy(part)
            new.update(values)
    elif type(part) in (list, tuple):
        items = [_single(item, seen) for item in part]
        if any(a is not b for a, b in zip(items, part)):
            new = type(part)(items)
    elif hasattr(part, "get_params") and hasattr(part, "__dict__") and not isinstance(part, type):
        new = seen[id(part)] = copy.copy(part)
        for name, value in vars(part).items():
            new.__dict__[name] = 1 if name == "n_jobs" else _single(value, seen)
    seen[id(part)] = new
    return new


class _Pools:
    """Native thread pools held at one thread while anybody is inside `one_thread`.

    OpenMP and MKL keep the limit for each calling thread: it is set and put back by each. OpenBLAS has one pool for the
    process: the first to enter saves its size and the last to leave restores it, whichever threads these are.
    """

    def __init__(self) -> None:
        self.lock = Lock()
        self.inside = 0
        self.saved: dict[str, tuple[Any, int]] = {}
        self.found: list[Any] = []
        self.modules = -1

    def enter(self) -> list[tuple[Any, int]]:
        with self.lock:
            mine = []
            for pool in self._pools():
                if pool.internal_api in ("openmp", "mkl") or getattr(pool, "threading_layer", "") == "openmp":
                    mine.append((pool, pool.num_threads))
                    pool.set_num_threads(1)
                elif pool.filepath not in self.saved:
                    self.saved[pool.filepath] = (pool, pool.num_threads)
                    self._resize(pool, 1)
            self.inside += 1
            return mine

    def leave(self, mine: list[tuple[Any, int]]) -> None:
        for pool, size in mine:
            pool.set_num_threads(size)
        with self.lock:
            self.inside -= 1
            if not self.inside:
                for pool, size in self.saved.values():
                    self._resize(pool, size)
                self.saved.clear()

    def _pools(self) -> list[Any]:
        """Pools of the loaded libraries; looked up again (some ms) only when modules were imported since."""
        if self.modules != len(sys.modules):
            from threadpoolctl import ThreadpoolController

            self.found = [pool for pool in ThreadpoolController().lib_controllers if pool.num_threads is not None]
            self.modules = len(sys.modules)
        return self.found

    @staticmethod
    def _resize(pool: Any, size: int) -> None:
        # threadpoolctl 3.8 heeds one thread at a time only, and silently; the lock above already orders ours
        release: Callable[..., None] = getattr(pool, "clear_controlling_thread", lambda **_: None)
        release(force=True)
        pool.set_num_threads(size)
        release(force=True)


_POOLS = _Pools()


def _unlock() -> None:
    _POOLS.lock = Lock()


if hasattr(os, "register_at_fork"):  # the thread that held it does not live on in a forked process
    os.register_at_fork(after_in_child=_unlock)


@contextmanager
def one_thread() -> Iterator[None]:
    """Hold BLAS, OpenMP and joblib at one thread inside a `with` block.

    Blocks may nest and overlap in any threads of the process (Dask's workers): sizes are back when the last has left.
    Entering and leaving cost some 0.02 ms, 0.005 ms inside another block; 3 ms where modules were imported since.
    """
    from joblib import parallel_config

    mine = _POOLS.enter()
    try:
        with parallel_config(backend="sequential"):
            yield
    finally:
        _POOLS.leave(mine)


# ---- predicting


def predict_rows(estimator: Any, rows: Any, columns: Sequence[str] | None = None) -> NDArray[np.float32]:
    """Predict rows so that a row's result never depends on its neighbours, on their number or on threads.

    Trees and support vectors treat rows one by one; all else (matrix products, unknown estimators) is given tiles of
    1024 rows, the last filled up with its last row, so that every product has one shape. Rounded once, to float32.

    Parameters
    ----------
    estimator : fitted estimator
    rows : array (n, k), float64
        In the order of the estimator's own columns.
    columns : sequence of k str, optional
        The names it was fitted with; rows are then handed over as a DataFrame (a Booster gets a named DMatrix).

    Returns
    -------
    array (n,), float32

    Raises
    ------
    ValueError
        The estimator returned something else than n finite numbers of one target.

    Examples
    --------
    >>> from sklearn.linear_model import LinearRegression
    >>> predict_rows(LinearRegression().fit([[0.0], [1.0]], [0.0, 2.0]), [[3.0], [0.5]]).round(3).tolist()
    [6.0, 1.0]
    """
    rows = np.ascontiguousarray(rows, "f8")
    if rows.ndim != 2 or (columns is not None and len(columns) != rows.shape[1]):
        wanted = "(n, k)" if columns is None else f"(n, {len(columns)}), one column a name,"
        raise ValueError(f"rows have the shape {wanted} not {rows.shape}")
    n = len(rows)
    out = np.empty(n, "f4")
    if not n:
        return out
    predict = _predictor(estimator, columns)
    with one_thread():
        if class_of(estimator) in _ROW_WISE:
            out[:] = _numbers(estimator, predict(rows), n)
        else:
            for start in range(0, n, TILE):
                tile = rows[start : start + TILE]
                known = len(tile)
                if known < TILE:
                    tile = np.concatenate([tile, np.repeat(tile[-1:], TILE - known, axis=0)])
                out[start : start + known] = _numbers(estimator, predict(tile), TILE)[:known]
    return out


def _predictor(estimator: Any, columns: Sequence[str] | None) -> Callable[[NDArray[Any]], Any]:
    """`predict` on plain rows, with names put to them where the estimator wants names."""
    if class_of(estimator) == ("xgboost", "Booster"):
        from xgboost import DMatrix

        names = estimator.feature_names and list(columns or estimator.feature_names)
        return lambda rows: estimator.predict(DMatrix(rows, feature_names=names, nthread=1))
    own = getattr(estimator, "feature_names_in_", None)
    if columns is None or (own is None and hasattr(estimator, "n_features_in_")):
        return estimator.predict  # type: ignore[no-any-return]
    import pandas as pd

    return lambda rows: estimator.predict(pd.DataFrame(rows, columns=list(columns)))


def _numbers(estimator: Any, answer: Any, n: int) -> NDArray[Any]:
    name = type(estimator).__name__
    values = np.asarray(answer)
    if values.shape == (n, 1):
        values = values[:, 0]
    if values.shape != (n,) or values.dtype.kind not in "fiu":
        raise ValueError(
            f"{name}.predict must give one number a row, {n} in all; "
            f"it gave {values.dtype} of shape {values.shape}: a map needs a regressor with one target"
        )
    wrong = int(np.count_nonzero(~np.isfinite(values)))
    if wrong:
        raise ValueError(f"{name}.predict gave {wrong} values of {n} that are not finite, from finite predictors")
    return values
