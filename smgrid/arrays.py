"""Turns a trained regressor into plain arrays and back, and names it by its content.

`to_arrays` and `from_arrays` carry the paper's four kinds as plain numbers: nothing is executed on the way back, every
node number is checked, and predictions come back bit for bit. `fingerprint` names what a regressor predicts, not how it
was trained, by which version, or on how many threads.
"""

from __future__ import annotations

import copyreg
import hashlib
import json
import types
from collections.abc import Callable, Mapping
from importlib import import_module
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smgrid.regressors import class_of, is_fitted, one_thread

Arrays = dict[str, NDArray[Any]]

_CLASSES = {  # what to_arrays takes: package, class -> kind
    ("sklearn", "RandomForestRegressor"): "rf",
    ("sklearn", "ExtraTreesRegressor"): "rf",
    ("sklearn", "SVR"): "svr",
    ("sklearn", "MLPRegressor"): "mlp",
    ("xgboost", "XGBRegressor"): "xgb",
    ("xgboost", "Booster"): "xgb",
}


# ---- identity


def fingerprint(estimator: Any) -> str:
    """SHA-256 of what a fitted regressor predicts.

    The same before and after saving, in any process, and whatever `n_jobs` is; for our four kinds it is taken from
    nodes, weights and support vectors alone.

    Parameters
    ----------
    estimator : fitted estimator

    Raises
    ------
    TypeError
        A part of the estimator shows no content (it cannot be pickled either).
    """
    sha = hashlib.sha256()
    with one_thread():  # a booster that is written out would leave a thread of OpenMP behind
        _feed(sha.update, estimator, ())
    return sha.hexdigest()


_ASIDE = {"n_jobs", "verbose", "_sklearn_version"}


def _feed(put: Callable[[bytes], None], part: Any, above: tuple[int, ...]) -> None:
    """Feed the content of anything to a hash: as pickle would walk it, but without identities and memory layouts."""
    put(f"<{type(part).__module__}.{type(part).__qualname__} ".encode())
    if id(part) in above:
        put(b"cycle")
    elif part is None or isinstance(part, (bool, int, float, complex, str, bytes, np.dtype)):
        put(repr(part).encode())
    elif isinstance(part, (np.ndarray, np.generic)) and part.dtype.kind not in "OV":
        values = np.ascontiguousarray(part)
        put(f"{values.dtype.str}{np.shape(part)}".encode())
        put(values.tobytes())
    else:
        for piece in _pieces(part):
            _feed(put, piece, (*above, id(part)))
    put(b">")


def _pieces(part: Any) -> Any:
    """What an object is made of, in an order that does not depend on the process."""
    if kind_of(part) and is_fitted(part):
        return _content(part)
    if isinstance(part, np.ndarray):
        names = part.dtype.names  # field by field: the padding between fields is arbitrary
        return [part[name] for name in names] if names else [part.shape, part.tolist()]
    if isinstance(part, dict):
        return [(k, part[k]) for k in sorted(part, key=repr) if k not in _ASIDE]
    if isinstance(part, (list, tuple)):
        return part
    if isinstance(part, (set, frozenset)):
        return sorted(part, key=repr)
    if isinstance(part, type):
        return [part.__module__, part.__qualname__]
    if isinstance(part, types.CodeType):
        return [part.co_code, part.co_consts, part.co_names]
    try:
        if isinstance(part, types.FunctionType):  # lambdas share a name, and numbers in them are no code
            closed = [cell.cell_contents for cell in part.__closure__ or ()]
            return [part.__module__, part.__qualname__, part.__code__, part.__defaults__, part.__kwdefaults__, closed]
        reducer = copyreg.dispatch_table.get(type(part))  # of numpy's ufuncs, such as a target's log1p
        reduced: Any = reducer(part) if reducer else part.__reduce_ex__(4)
    except Exception as error:
        raise TypeError(f"{type(part).__name__} shows no content to be identified by: {error}") from error
    if isinstance(reduced, str):
        return [reduced]
    return [reduced[0].__qualname__, *(list(r) if hasattr(r, "__next__") else r for r in reduced[1:])]


def _content(estimator: Any) -> Any:
    """What decides the predictions of one of our kinds, free of versions and of training."""
    header, arrays = to_arrays(estimator)
    if header["kind"] == "xgb":
        return [header["class"], header["state"], *_booster_content(json.loads(arrays["json"].tobytes()))]
    return [header["class"], header["state"], arrays]


# ---- arrays


def kind_of(estimator: Any) -> str | None:
    """Which kind `to_arrays` takes an estimator for: "rf", "xgb", "svr", "mlp", or None."""
    kind = _CLASSES.get(class_of(estimator))
    if kind in ("rf", "mlp") and getattr(estimator, "n_outputs_", 1) != 1:
        return None
    if kind == "svr" and (
        getattr(estimator, "_sparse", False) or estimator.kernel not in ("linear", "poly", "rbf", "sigmoid")
    ):
        return None
    return kind


def to_arrays(estimator: Any) -> tuple[dict[str, Any], Arrays]:
    """Turn a fitted regressor of our kinds into plain data.

    Parameters
    ----------
    estimator : fitted RandomForestRegressor, ExtraTreesRegressor, SVR, MLPRegressor, XGBRegressor or Booster
        One target; dense.

    Returns
    -------
    header : dict
        JSON-able: kind, class, params (those that are not the class's defaults and are plain values), state, versions.
    arrays : dict of str to array
        Trees one array a field, all trees in a row; XGBoost its JSON text as bytes.

    Raises
    ------
    ValueError
        Another estimator, or not fitted.
    """
    kind = kind_of(estimator)
    if kind is None:
        raise ValueError(
            f"{type(estimator).__name__} cannot be turned into plain arrays: that takes a random forest, extra trees, "
            "SVR (dense, a named kernel), MLP or XGBoost regressor of one target"
        )
    if not is_fitted(estimator):
        raise ValueError(f"{type(estimator).__name__} is not fitted")
    state, arrays = _TO[kind](estimator)
    names = getattr(estimator, "feature_names_in_", None) if kind != "xgb" else None  # a booster keeps its own
    if names is not None:
        state["names"] = [str(name) for name in names]
    packages = ("numpy", "scikit-learn", "xgboost") if kind == "xgb" else ("numpy", "scikit-learn")
    modules = {"scikit-learn": "sklearn"}
    versions = {package: import_module(modules.get(package, package)).__version__ for package in packages}
    header = {"kind": kind, "class": type(estimator).__name__, "params": _params(estimator), "state": state}
    return {**header, "versions": versions}, arrays


def from_arrays(header: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> Any:
    """Rebuild the regressor that `to_arrays` turned into plain data; nothing is executed.

    Parameters
    ----------
    header, arrays : as `to_arrays` gave them

    Raises
    ------
    ValueError
        Something is missing, of another type or shape, or points outside the model.
    """
    try:
        kind, name = header["kind"], header["class"]
        module = next(m for (m, n), k in _CLASSES.items() if n == name and k == kind)
        where = {"rf": "sklearn.ensemble", "svr": "sklearn.svm", "mlp": "sklearn.neural_network"}.get(kind, module)
        cls = getattr(import_module(where), name)
        estimator = cls()
        if name != "Booster":
            valid = estimator.get_params(deep=False)  # a later version may know parameters that this one does not
            estimator = cls(**{k: _revived(v) for k, v in header["params"].items() if k in valid})
        _FROM[kind](estimator, header["state"], arrays)
        if "names" in header["state"]:
            estimator.feature_names_in_ = np.array(header["state"]["names"], object)
    except (KeyError, TypeError, AttributeError, StopIteration, OverflowError) as error:
        raise ValueError(f"the saved regressor is not whole: {type(error).__name__} {error}") from error
    return estimator


def _params(estimator: Any) -> dict[str, Any]:
    if not hasattr(estimator, "get_params"):
        return {}
    default = type(estimator)().get_params(deep=False)
    params = {name: _plain(value) for name, value in estimator.get_params(deep=False).items()}
    return {k: v for k, v in params.items() if v is not _FORGOTTEN and v != _plain(default.get(k, _FORGOTTEN))}


_FORGOTTEN = object()  # functions, random generators: of use in training only


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not np.isfinite(value):
        return {"float": repr(value)}
    if isinstance(value, (list, tuple)):
        items = [_plain(item) for item in value]
        return _FORGOTTEN if any(item is _FORGOTTEN for item in items) else items
    return value if value is None or isinstance(value, (bool, int, float, str)) else _FORGOTTEN


def _revived(value: Any) -> Any:
    if isinstance(value, dict):
        return float(value["float"])
    return tuple(_revived(item) for item in value) if isinstance(value, list) else value


def _array(arrays: Mapping[str, NDArray[Any]], name: str, kind: str, ndim: int, finite: bool = True) -> NDArray[Any]:
    a = np.asarray(arrays[name])
    if a.dtype.kind != kind or a.ndim != ndim:
        raise ValueError(f"the array {name!r} of the saved regressor is {a.dtype} with {a.ndim} dimensions")
    if kind == "f" and finite and not np.isfinite(a).all():
        raise ValueError(f"the array {name!r} of the saved regressor holds values that are not finite")
    return a


def _width(state: Mapping[str, Any]) -> int:
    """Number of columns of a saved regressor."""
    k = state["n_features"]
    if type(k) is not int or k < 1 or len(state.get("names", range(k))) != k:
        raise ValueError(f"the saved regressor has {k!r} columns and the names {state.get('names')}")
    return k


def _check_trees(
    left: NDArray[Any], right: NDArray[Any], feature: NDArray[Any], roots: NDArray[Any], k: int
) -> NDArray[np.int32]:
    """Depth of each node (-1: not reached), once every path is known to end in a leaf of its own tree.

    Node numbers are global; -1 in both children makes a leaf. `roots` has one more entry than trees.
    """
    n = len(left)
    tree = np.searchsorted(roots, np.arange(n), side="right")
    split = left != -1
    wrong = (right != -1) != split
    wrong |= split & ((feature < 0) | (feature >= k))
    for child in (left, right):
        inside = (child >= 0) & (child < n)
        wrong |= split & (~inside | (tree[np.where(inside, child, 0)] != tree))
    depth = np.full(n, -1, "i4")
    front, level = np.unique(roots[:-1]), 0
    while len(front) and not wrong.any():
        depth[front] = level
        front = front[split[front]]
        front = np.concatenate([left[front], right[front]])
        wrong[front] |= depth[front] >= 0
        wrong[front] |= np.bincount(front, minlength=n)[front] > 1
        level += 1
    if wrong.any():
        node = int(np.flatnonzero(wrong)[0])
        raise ValueError(f"node {node} of the saved trees points outside its tree, to an unknown column or in a circle")
    return depth


def _forest_arrays(forest: Any) -> tuple[dict[str, Any], Arrays]:
    states = [tree.tree_.__getstate__() for tree in forest.estimators_]
    nodes = np.concatenate([state["nodes"] for state in states])
    fields = {f"node_{name}": nodes[name] for name in nodes.dtype.names or ()}
    arrays = {k: v.astype("i4") if v.dtype.kind == "i" and np.abs(v).max() < 2**31 else v for k, v in fields.items()}
    arrays["value"] = np.concatenate([state["values"].ravel() for state in states])
    arrays["offset"] = np.cumsum([0, *(len(state["nodes"]) for state in states)], dtype="i8")
    return {"n_features": int(forest.n_features_in_)}, arrays


def _forest(forest: Any, state: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> None:
    from sklearn.tree._tree import NODE_DTYPE, Tree

    k = _width(state)
    fields = {name.removeprefix("node_") for name in arrays if name.startswith("node_")}
    if fields != set(NODE_DTYPE.names):
        raise ValueError(
            f"the saved trees have the node fields {sorted(fields)}, this scikit-learn's {sorted(NODE_DTYPE.names)}: "
            "install the version named in the file"
        )
    value, offset = _array(arrays, "value", "f", 1), _array(arrays, "offset", "i", 1)
    rising = len(offset) > 1 and offset[0] == 0 and offset[-1] == len(value)
    rising = rising and bool(((offset >= 0) & (offset <= len(value))).all() and (np.diff(offset) > 0).all())
    if not rising:
        raise ValueError("the offsets of the saved trees do not rise from 0 to the number of nodes")
    nodes = np.zeros(len(value), NODE_DTYPE)
    for name in NODE_DTYPE.names:
        kind = NODE_DTYPE[name].kind
        nodes[name] = _array(arrays, f"node_{name}", kind, 1, finite=name != "threshold")
    left, right, split = nodes["left_child"], nodes["right_child"], nodes["left_child"] != -1
    start = np.repeat(offset[:-1], np.diff(offset))
    whole_left, whole_right = (np.where(child >= 0, child + start, child) for child in (left, right))
    depth = _check_trees(whole_left, whole_right, nodes["feature"], offset, k)
    here = np.arange(len(nodes))
    if np.isnan(nodes["threshold"]).any() or (split & ((whole_left <= here) | (whole_right <= here))).any():
        raise ValueError("a node of the saved trees has no threshold, or a child before itself")
    options = {name: getattr(forest, name) for name in forest.estimator_params}
    forest.n_features_in_, forest.n_outputs_, forest.estimator_ = k, 1, forest.estimator
    forest.estimators_ = []
    for a, b in pairwise(offset.tolist()):
        tree = Tree(k, np.array([1], np.intp), 1)
        tree.__setstate__(
            {
                "max_depth": int(depth[a:b].max()),
                "node_count": b - a,
                "nodes": nodes[a:b].copy(),
                "values": np.ascontiguousarray(value[a:b], "f8").reshape(-1, 1, 1),
            }
        )
        member = type(forest.estimator)(**options)
        member.n_features_in_, member.n_outputs_, member.max_features_, member.tree_ = k, 1, k, tree
        forest.estimators_.append(member)


def _svr_arrays(svr: Any) -> tuple[dict[str, Any], Arrays]:
    state = {
        "n_features": int(svr.n_features_in_),
        "rows": int(svr.shape_fit_[0]),
        "kernel": svr.kernel,
        "degree": int(svr.degree),
        "coef0": float(svr.coef0),
        "gamma": float(svr._gamma),
    }
    names = {"support": "support_", "vectors": "support_vectors_", "n_support": "_n_support"}
    arrays = {name: np.asarray(getattr(svr, attribute)) for name, attribute in names.items()}
    return state, {**arrays, "dual": np.asarray(svr._dual_coef_), "intercept": np.asarray(svr._intercept_)}


def _svr(svr: Any, state: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> None:
    k = _width(state)
    vectors, dual = _array(arrays, "vectors", "f", 2), _array(arrays, "dual", "f", 2)
    support, intercept = _array(arrays, "support", "i", 1), _array(arrays, "intercept", "f", 1)
    n_support, n, rows = _array(arrays, "n_support", "i", 1), len(vectors), state["rows"]
    gamma, coef0, degree = float(state["gamma"]), float(state["coef0"]), state["degree"]
    whole = vectors.shape == (n, k) and dual.shape == (1, n) and support.shape == (n,) and intercept.shape == (1,)
    # libsvm counts the vectors of two classes even in regression; all of them are in the first
    whole &= n_support.shape == (2,) and n_support.min() >= 0 and n_support[0] == n
    whole &= type(rows) is int and type(degree) is int and 0 <= degree <= 64
    whole &= state["kernel"] in ("linear", "poly", "rbf", "sigmoid") and bool(np.isfinite([gamma, coef0]).all())
    if not whole or (n and (support.min() < 0 or support.max() >= rows)):
        raise ValueError("the support vectors, weights and kernel of the saved SVR do not fit together")
    svr.kernel, svr.degree, svr.coef0 = state["kernel"], degree, coef0
    svr._sparse, svr._gamma, svr.fit_status_, svr.shape_fit_ = False, gamma, 0, (rows, k)
    svr._effective_probability = False
    svr.n_features_in_, svr.support_, svr.support_vectors_ = k, support.astype("i4"), vectors.astype("f8", order="C")
    svr._n_support, svr.class_weight_ = n_support.astype("i4"), np.empty(0)
    svr._dual_coef_, svr._intercept_ = dual.astype("f8", order="C"), intercept.astype("f8")
    svr.dual_coef_, svr.intercept_ = svr._dual_coef_.copy(), svr._intercept_.copy()
    svr._probA, svr._probB = np.empty(0), np.empty(0)


def _mlp_arrays(mlp: Any) -> tuple[dict[str, Any], Arrays]:
    state = {
        "n_features": int(mlp.n_features_in_),
        "layers": len(mlp.coefs_),
        "activation": mlp.activation,
        "out_activation": mlp.out_activation_,
    }
    arrays = {f"coef_{i}": coef for i, coef in enumerate(mlp.coefs_)}
    return state, {**arrays, **{f"intercept_{i}": intercept for i, intercept in enumerate(mlp.intercepts_)}}


def _mlp(mlp: Any, state: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> None:
    from sklearn.neural_network._base import ACTIVATIONS

    width, layers = _width(state), state["layers"]
    if type(layers) is not int or not 1 <= layers <= len(arrays):
        raise ValueError(f"the saved MLP has {layers!r} layers and {len(arrays)} arrays")
    if not {state["activation"], state["out_activation"]} <= set(ACTIVATIONS):
        raise ValueError(f"this scikit-learn has no activation {state['activation']!r} or {state['out_activation']!r}")
    coefs = [_array(arrays, f"coef_{i}", "f", 2) for i in range(layers)]
    intercepts = [_array(arrays, f"intercept_{i}", "f", 1) for i in range(layers)]
    for i, (coef, intercept) in enumerate(zip(coefs, intercepts)):
        if coef.shape[0] != width or coef.shape[1:] != intercept.shape:
            raise ValueError(f"layer {i} of the saved MLP has the shape {coef.shape} after {width} inputs")
        width = coef.shape[1]
    if width != 1:
        raise ValueError(f"the saved MLP has {width} targets, not one")
    mlp.coefs_, mlp.intercepts_ = [c.copy() for c in coefs], [i.copy() for i in intercepts]
    mlp.activation, mlp.out_activation_ = state["activation"], state["out_activation"]
    mlp.n_features_in_, mlp.n_outputs_, mlp.n_layers_ = state["n_features"], 1, layers + 1


def _booster_arrays(model: Any) -> tuple[dict[str, Any], Arrays]:
    booster = model.get_booster() if hasattr(model, "get_booster") else model
    text = bytes(booster.save_raw("json"))
    _checked_booster(text)
    missing = {"missing": _plain(float(model.missing))} if hasattr(model, "missing") else {}
    return missing, {"json": np.frombuffer(text, "u1")}


def _booster(model: Any, state: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> None:
    from xgboost import Booster

    said = _checked_booster(_array(arrays, "json", "u", 1).astype("u1").tobytes())
    param = said["learner"]["learner_model_param"]
    param["base_score"] = param["base_score"].strip("[]")  # XGBoost before 3.1 silently misreads the list of later ones
    booster = model
    if not isinstance(model, Booster):
        model.missing = _revived(state["missing"])
        booster = model._Booster = Booster({"nthread": model.n_jobs or 0})
    booster.load_model(bytearray(json.dumps(said).encode()))  # what was checked, not what was found


def _checked_booster(text: bytes) -> dict[str, Any]:
    """Refuse XGBoost JSON whose numbers lead outside the model: XGBoost itself would follow them."""

    def refuse(constant: str) -> None:
        raise ValueError(f"the number {constant}")

    try:
        said: dict[str, Any] = json.loads(text.decode("utf-8"), parse_constant=refuse)
        learner = said["learner"]
        param, k = learner["learner_model_param"], int(learner["learner_model_param"]["num_feature"])
        one = int(param.get("num_class", 0)) == 0 and int(param.get("num_target", 1)) == 1
        scores = np.array(param["base_score"].strip("[]").split(","), "f8")
        part = learner["gradient_booster"]
        if not (one and scores.shape == (1,) and np.isfinite(scores).all()):
            raise ValueError("more than one target, or no base score")
        if part["name"] == "gblinear":
            weights = np.array(part["model"]["weights"], "f8")
            if weights.shape != (k + 1,) or not np.isfinite(weights).all():
                raise ValueError(f"weights of shape {weights.shape} for {k} columns")
            return said
        model = (part["gbtree"] if part["name"] == "dart" else part)["model"]
        trees = model["trees"]
        n = len(trees)
        rounds = np.array(model.get("iteration_indptr", [0, n]), "i8")
        whole = int(model["gbtree_model_param"]["num_trees"]) == n and model["tree_info"] == [0] * n
        whole &= [tree["id"] for tree in trees] == [*range(n)] and rounds[0] == 0 and rounds[-1] == n
        whole &= bool((np.diff(rounds) >= 0).all()) and part["name"] in ("gbtree", "dart")
        whole &= 1 <= int(model["gbtree_model_param"]["num_parallel_tree"]) <= max(n, 1) and not _categories(model)
        whole &= part["name"] != "dart" or np.isfinite(np.array(part["weight_drop"], "f8")).sum() == n
        if not whole:
            raise ValueError("trees and rounds do not add up")
        _check_boosted(trees, k)
        return said
    except RecursionError as error:
        raise ValueError("the saved XGBoost model is nested too deeply") from error
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, IndexError) as error:
        raise ValueError(f"the saved XGBoost model is not whole: {type(error).__name__} {error}") from error


def _categories(model: dict[str, Any]) -> bool:
    return any(part for part in model.get("cats", {}).values())


def _check_boosted(trees: list[dict[str, Any]], k: int) -> None:
    sizes = [int(tree["tree_param"]["num_nodes"]) for tree in trees]
    for tree, size in zip(trees, sizes):
        lengths = {len(tree[name]) for name in (*_BOOSTED, "base_weights", "parents", "split_type")}
        if lengths != {size} or size < 1 or int(tree["tree_param"]["num_feature"]) != k:
            raise ValueError(f"tree {tree['id']} does not have {size} nodes")
        if any(tree["split_type"]) or tree["categories"] or int(tree["tree_param"]["size_leaf_vector"]) > 1:
            raise ValueError(f"tree {tree['id']} splits categories or has several targets, which maps have no use for")
    if not trees:
        return
    left, right, feature, condition, _ = _boosted_columns(trees)
    if not np.isfinite(condition).all():
        raise ValueError("a threshold or leaf that is not finite")
    start = np.repeat(np.cumsum([0, *sizes[:-1]]), sizes)
    whole_left, whole_right = (np.where(child >= 0, child + start, child) for child in (left, right))
    _check_trees(whole_left, whole_right, feature, np.cumsum([0, *sizes]), k)


_BOOSTED = {
    "left_children": "i8",
    "right_children": "i8",
    "split_indices": "i8",
    "split_conditions": "f4",
    "default_left": "u1",
}


def _boosted_columns(trees: list[dict[str, Any]]) -> list[NDArray[Any]]:
    """Children, columns, thresholds and directions of all trees in a row."""
    return [np.concatenate([np.array(tree[name], dtype) for tree in trees]) for name, dtype in _BOOSTED.items()]


def _booster_content(said: dict[str, Any]) -> list[Any]:
    """What decides an XGBoost model's predictions; its text changes from version to version, this does not."""
    learner = said["learner"]
    part, param = learner["gradient_booster"], learner["learner_model_param"]
    base = np.float32(param["base_score"].strip("[]"))
    best = learner["attributes"].get("best_iteration")
    whole = [part["name"], base, learner["objective"]["name"], learner["feature_names"], param["num_feature"], best]
    if part["name"] == "gblinear":
        return [*whole, np.array(part["model"]["weights"], "f4")]
    model = (part["gbtree"] if part["name"] == "dart" else part)["model"]
    drop = np.array(part.get("weight_drop", []), "f4")
    rounds = model.get("iteration_indptr")
    return [*whole, drop, rounds, *(_boosted_columns(model["trees"]) if model["trees"] else [])]


_TO = {"rf": _forest_arrays, "svr": _svr_arrays, "mlp": _mlp_arrays, "xgb": _booster_arrays}
_FROM = {"rf": _forest, "svr": _svr, "mlp": _mlp, "xgb": _booster}
