"""Packs forests and boosted trees for the compiled kernels, so that they give their libraries' bits.

scikit-learn compares a float32 value with a float64 threshold, which decides as its float32 floor would; it adds its
trees in float64, divides by their number and rounds once. XGBoost compares and adds in float32, from the base score,
tree by tree. Missing values take the way that each split names. What is not written here is left to the libraries:
several targets, categories, dart, linear boosters, outputs that are transformed.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smgrid.native import native
from smgrid.regressors import class_of

_FORESTS = ("RandomForestRegressor", "ExtraTreesRegressor")
_TREES = ("DecisionTreeRegressor", "ExtraTreeRegressor")
_BOOSTED = ("XGBRegressor", "XGBRFRegressor", "Booster")
_AS_SUMMED = {  # objectives whose predictions are the sums themselves
    "reg:squarederror",
    "reg:squaredlogerror",
    "reg:pseudohubererror",
    "reg:absoluteerror",
    "reg:quantileerror",
}


class Deep:
    """Trees of any depth: a mean in float64 (forests), or a sum in float32 (boosted)."""

    dtype = "f4"
    cells = 1 << 16  # a call worth its while: trees are fetched into cache once a call

    def __init__(self, packed: Any, base: float, trial: NDArray[np.float32]) -> None:
        self.packed, self.base, self.trial = packed, base, trial

    def __call__(self, tile: NDArray[Any]) -> NDArray[np.float32]:
        """Predict cells; see `smgrid.kernels.Kernel`."""
        out = np.empty(np.shape(tile)[1:], "f4")
        _compiled().deep_predict(self.packed, tile, out, self.base)
        return out


class Forest(Deep):
    """Trees grown apart, whose mean is the prediction."""

    def spread(self, tile: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Mean and standard deviation over trees, as `smgrid.spread.mean_and_spread` defines them, bit for bit."""
        mean, spread = np.empty(np.shape(tile)[1:], "f4"), np.empty(np.shape(tile)[1:], "f4")
        _compiled().deep_spread(self.packed, tile, mean, spread)
        return mean, spread


class Shallow:
    """Boosted trees of at most six levels, each filled up to the same depth."""

    dtype = "f4"
    cells = 1 << 12

    def __init__(self, packed: Any, trial: NDArray[np.float32]) -> None:
        self.packed, self.trial = packed, trial

    def __call__(self, tile: NDArray[Any]) -> NDArray[np.float32]:
        """Predict cells; see `smgrid.kernels.Kernel`."""
        out = np.empty(np.shape(tile)[1:], "f4")
        _compiled().shallow_predict(self.packed, tile, out)
        return out


def tree_kernel(regressor: Any) -> Deep | Shallow | None:
    """The compiled kernel of an ensemble of trees, or None where there is none for it.

    Parameters
    ----------
    regressor : fitted estimator

    Raises
    ------
    ValueError
        Its nodes point outside their tree, or in a circle.
    """
    package, name = class_of(regressor)
    if native() is None:
        return None
    if package == "sklearn" and name in (*_FORESTS, *_TREES) and getattr(regressor, "n_outputs_", 0) == 1:
        return _forest(regressor, [regressor] if name in _TREES else regressor.estimators_)
    if package == "xgboost" and name in _BOOSTED:
        return _boosted(regressor)
    return None


def _compiled() -> Any:
    """The module that packed the trees."""
    return native()


# ---- forests


def _forest(regressor: Any, members: Sequence[Any]) -> Deep | None:
    trees = [member.tree_ for member in members]
    value = np.concatenate([tree.value.ravel() for tree in trees])
    if not _bounded(value, len(trees)):
        return None
    left, right, feature = (
        np.concatenate([getattr(tree, name) for tree in trees]).astype("i8", copy=False)
        for name in ("children_left", "children_right", "feature")
    )
    threshold = np.concatenate([tree.threshold for tree in trees])
    missing_left = np.concatenate([tree.missing_go_to_left for tree in trees]).astype("u1", copy=False)
    start = np.cumsum([0, *(tree.node_count for tree in trees)], dtype="i8")
    inputs = regressor.n_features_in_
    routes = bool(members[0]._support_missing_values(np.zeros((1, inputs), "f4")))
    trial = _trial(feature, threshold, inputs, routes)
    used, feature = _used(feature, left != -1, inputs)
    packed = _compiled().deep_pack(
        left,
        right,
        feature,
        threshold,
        missing_left,
        value,
        start,
        used,
        inputs,
        False,
        routes,
        False,
    )
    if members[0] is regressor:
        return Deep(packed, -0.0, trial)  # a lone tree's value is not added to anything
    return Forest(packed, 0.0, trial)


def _used(
    feature: NDArray[np.int64], split: NDArray[np.bool_], inputs: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Which inputs the splits look at, and each split's number among them; unknown inputs become -1."""
    known = split & (feature >= 0) & (feature < inputs)
    looked_at = np.zeros(inputs + 1, bool)
    looked_at[np.where(known, feature, inputs)] = True
    used = np.flatnonzero(looked_at[:-1])
    number = np.full(inputs + 1, -1)
    number[used] = np.arange(len(used))
    return used, number[np.where(known, feature, inputs)]


def _trial(feature: NDArray[Any], threshold: NDArray[Any], inputs: int, routes: bool) -> NDArray[np.float32]:
    """A few cells that lie on thresholds and beside them, some of them with missing values: (inputs, 64)."""
    rng = np.random.default_rng(0)
    trial = np.zeros((inputs, 64), "f4")
    drawn = rng.integers(len(feature), size=64 * inputs)
    drawn = drawn[(feature[drawn] >= 0) & (feature[drawn] < inputs) & (np.abs(threshold[drawn]) < 1e37)]
    value = threshold[drawn].astype("f4")
    beside = np.nextafter(value, rng.choice(np.array([-np.inf, np.inf], "f4"), len(value)))
    trial[feature[drawn], rng.integers(64, size=len(drawn))] = np.where(rng.random(len(value)) < 0.5, value, beside)
    if routes:
        trial[:, 32:][rng.random((inputs, 32)) < 0.1] = np.nan
    return trial


def _bounded(values: NDArray[Any], trees: int) -> bool:
    """Whether no sum of trees can leave the range of float32: the libraries' predictions must be finite."""
    with np.errstate(over="ignore"):
        return bool(np.isfinite(values).all() and trees * np.abs(values, dtype="f8").max(initial=0) < 1e38)


# ---- boosted


def _boosted(model: Any) -> Deep | Shallow | None:
    missing = getattr(model, "missing", np.nan)
    if not (isinstance(missing, float) and np.isnan(missing)):
        return None  # a number stands for what is missing
    booster = model.get_booster() if hasattr(model, "get_booster") else model
    learner = json.loads(booster.save_raw("json"))["learner"]
    trees = _trees(learner, model is not booster)
    param = learner["learner_model_param"]
    base = np.array(param["base_score"].strip("[]").split(","), "f4")
    if not trees or base.shape != (1,) or not np.isfinite(base).all():
        return None
    columns = [_column(trees, name, dtype) for name, dtype in _COLUMNS.items()]
    if not _bounded(columns[3], len(trees) + 1) or abs(base[0]) > 1e37:
        return None
    inputs = int(param["num_feature"])
    left, _, feature, condition, _ = columns
    trial = _trial(feature, condition, inputs, True)
    used, columns[2] = _used(feature, left != -1, inputs)
    start = np.cumsum([0, *(len(tree["left_children"]) for tree in trees)], dtype="i8")
    if len(used):
        deep = _compiled().deep_pack(  # checks the nodes, whichever kernel is taken
            *columns[:3],
            condition.astype("f8"),
            columns[4],
            condition.astype("f8"),
            start,
            used,
            inputs,
            True,
            True,
            True,
        )
        shallow = _shallow(columns, start, used, inputs, float(base[0]))
        return Deep(deep, float(base[0]), trial) if shallow is None else Shallow(shallow, trial)
    return None  # a constant


_COLUMNS = {
    "left_children": "i8",
    "right_children": "i8",
    "split_indices": "i8",
    "split_conditions": "f4",
    "default_left": "u1",
}


def _column(trees: list[dict[str, Any]], name: str, dtype: str) -> NDArray[Any]:
    with np.errstate(over="ignore"):  # what is too large is refused as infinite
        return np.concatenate([np.array(tree[name], dtype) for tree in trees]) if trees else np.empty(0, dtype)


def _trees(learner: dict[str, Any], best: bool) -> list[dict[str, Any]] | None:
    """The trees that `predict` sums up, where this is all that it does."""
    param, part = learner["learner_model_param"], learner["gradient_booster"]
    if part["name"] != "gbtree" or learner["objective"]["name"] not in _AS_SUMMED:
        return None
    if int(param.get("num_class", 0)) or int(param.get("num_target", 1)) != 1:
        return None
    model = part["model"]
    trees: list[dict[str, Any]] = model["trees"]
    last = learner["attributes"].get("best_iteration") if best else None  # a Booster's own predict takes all
    if last is not None:
        rounds = model.get("iteration_indptr")
        if rounds is None or not 0 <= int(last) < len(rounds) - 1:
            return None
        trees = trees[: rounds[int(last) + 1]]
    for tree in trees:
        if any(tree.get("split_type", ())) or tree.get("categories") or int(tree["tree_param"]["size_leaf_vector"]) > 1:
            return None
    return trees if not any(model.get("tree_info", ())) else None


def _shallow(
    columns: list[NDArray[Any]], start: NDArray[np.int64], used: NDArray[np.int64], inputs: int, base: float
) -> Any:
    """Trees filled up to one depth, where that is at most six and their thresholds are few enough to be ranked."""
    left, right, feature, condition, missing_left = columns
    levels = _levels(left, right, start)
    if levels is None:
        return None
    at = np.concatenate(levels[:-1], axis=1)
    split = left[at] != -1
    feature = np.where(split, feature[at], 0)
    threshold = np.where(split, condition[at], np.float32(np.inf)).astype("f4")
    cuts = [np.unique(threshold[split & (feature == f)]) for f in range(len(used))]
    depth, count = len(levels) - 1, np.array([len(cut) for cut in cuts], "i8")
    ranked = depth > 3 and bool(count.max(initial=0) <= 254)
    if not ranked and depth > 4:
        return None
    rank = np.full(split.shape, 255, "u1")
    table = np.full((len(used), 256), np.nan, "f4")
    for f, cut in enumerate(cuts) if ranked else ():
        here = split & (feature == f)
        rank[here] = np.searchsorted(cut, threshold[here])
        table[f, : len(cut)] = cut
    return _compiled().shallow_pack(
        feature, threshold, missing_left[at], rank, condition[levels[-1]], used, count, table, inputs, base, ranked
    )


def _levels(left: NDArray[np.int64], right: NDArray[np.int64], start: NDArray[np.int64]) -> list[NDArray[Any]] | None:
    """Nodes of each level of all trees, (trees, 2 ** level), a leaf for a missing subtree; None: too deep."""
    levels = [start[:-1, None]]
    while len(levels) == 1 or (left[levels[-1]] != -1).any():
        if len(levels) == 7:
            return None
        at = levels[-1]
        tree = start[:-1, None]
        leaf = left[at] == -1
        pair = [np.where(leaf, at, child[at] + tree) for child in (left, right)]
        levels.append(np.stack(pair, axis=2).reshape(len(at), -1))
    return levels
