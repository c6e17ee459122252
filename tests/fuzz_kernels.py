"""Throws broken models at the compiled kernels: each is refused with an exception, or walked without leaving its memory.

Run by `make sanitize`, where AddressSanitizer stops at the first wrong access; takes the number of rounds.
"""

import json
import sys
from collections import Counter

import numpy as np
from sklearn.ensemble import RandomForestRegressor
from xgboost import XGBRegressor

from smgrid.native import native
from smgrid.treekernels import tree_kernel

ODD = [0, -1, 1, 2, 3, 7, 254, 255, 256, 1 << 24, 1 << 31, -(1 << 31), 1 << 32, (1 << 63) - 1, -(1 << 63), 40, 24, 25]
ODD_FLOATS = [0.0, -0.0, np.nan, np.inf, -np.inf, 1e38, -3e38, 1e-45, 1e300]
rng = np.random.default_rng(int(sys.argv[2]) if len(sys.argv) > 2 else 0)


def tile(inputs):
    n = int(rng.integers(0, 700))
    values = rng.normal(size=(inputs, n)).astype("f4")
    odd = rng.random(values.shape) < rng.choice([0, 0.1])
    values[odd] = rng.choice(np.array(ODD_FLOATS[:-1], "f4"), odd.sum())
    return values


def mutate(array):
    """A copy with some entries odd, or another length."""
    array = array.copy()
    kind = rng.integers(6)
    if kind == 0 and array.ndim == 1 and len(array):
        return array[: rng.integers(len(array))].copy()
    if kind == 1:
        return np.concatenate([array, array])
    flat = array.reshape(-1)
    for _ in range(int(rng.integers(1, 4)) if flat.size else 0):
        at = rng.integers(flat.size)
        if array.dtype.kind == "f":
            flat[at] = rng.choice(np.array(ODD_FLOATS[: 9 if array.dtype == "f8" else 8], array.dtype))
        elif array.dtype.kind == "u":
            flat[at] = rng.integers(256)
        elif rng.random() < 0.5:
            flat[at] = ODD[rng.integers(len(ODD))]
        else:
            flat[at] = flat[rng.integers(flat.size)]
    return array


class Recorder:
    """The compiled module, keeping what packing was asked for."""

    def __init__(self):
        self.calls = []

    def __getattr__(self, name):
        function = getattr(native(), name)
        if not name.endswith("_pack"):
            return function
        return lambda *args: self.calls.append((name, args)) or function(*args)


def recorded():
    """Arguments of packing, of models of all kinds."""
    import smgrid.treekernels as room

    recorder, compiled = Recorder(), room._compiled
    room._compiled = lambda: recorder
    x = rng.normal(size=(200, 25)).astype("f4")
    y = x[:, 0] + x[:, 1] * x[:, 2]
    wide = rng.normal(size=(100, 300)).astype("f4")
    for model in (
        RandomForestRegressor(3, random_state=0).fit(x, y),
        RandomForestRegressor(20, max_features=0.1).fit(wide, wide[:, 0]),
        *(XGBRegressor(n_estimators=5, max_depth=d, n_jobs=1).fit(x, y) for d in (1, 3, 4, 6, 8)),
    ):
        tree_kernel(model)
    room._compiled = compiled
    return recorder.calls


def one_packing(calls, said):
    name, args = calls[rng.integers(len(calls))]
    args = list(args)
    for _ in range(int(rng.integers(1, 3))):
        which = int(rng.integers(len(args)))
        if isinstance(args[which], np.ndarray):
            args[which] = mutate(args[which])
        elif isinstance(args[which], bool):
            args[which] = not args[which]
        elif isinstance(args[which], int):
            args[which] = int(rng.choice([0, -1, 1, 2, 24, 26, 300, 2**31, 2**62]))
        else:
            args[which] = float(rng.choice(ODD_FLOATS))
    try:
        packed = getattr(native(), name)(*args)
    except (ValueError, MemoryError) as error:
        said[f"{name}: {type(error).__name__}"] += 1
        return
    inputs = next(a for a in args if isinstance(a, int) and not isinstance(a, bool))
    if inputs > 1000:
        said[f"{name}: taken, too many inputs to try"] += 1
        return
    cells = tile(inputs)
    out, spread = np.empty(cells.shape[1], "f4"), np.empty(cells.shape[1], "f4")
    for form in ("plain", "avx2", "avx512"):
        try:
            native().form(form)
        except ValueError:
            continue
        try:
            if name == "deep_pack":
                native().deep_predict(packed, cells, out, 0.0)
                if not args[-1]:
                    native().deep_spread(packed, cells, out, spread)
            else:
                native().shallow_predict(packed, cells, out)
            said[f"{name}: walked"] += 1
        except ValueError as error:
            said[f"{name}: taken, then {error}"[:70]] += 1


def one_json(texts, said):
    said_by_model = json.loads(texts[rng.integers(len(texts))])
    trees = said_by_model["learner"]["gradient_booster"]["model"]["trees"]
    tree = trees[rng.integers(len(trees))]
    for _ in range(int(rng.integers(1, 4))):
        name = rng.choice(["left_children", "right_children", "split_indices", "split_conditions", "default_left"])
        column = tree[name]
        act = rng.integers(5)
        if act == 0 and column:
            del column[int(rng.integers(len(column)))]
        elif act == 1:
            tree[name] = []
        elif column:
            column[int(rng.integers(len(column)))] = [*ODD, 1e300, None, "x", 1.5][int(rng.integers(len(ODD) + 4))]
    text = json.dumps(said_by_model).encode()
    booster = type("Booster", (), {"__module__": "xgboost", "save_raw": lambda self, kind: text})()
    try:
        kernel = tree_kernel(booster)
    except (ValueError, TypeError, KeyError, OverflowError, IndexError) as error:
        said[f"json: {type(error).__name__}"] += 1
        return
    if kernel is None:
        said["json: left to the library"] += 1
        return
    kernel(tile(25))
    said["json: walked"] += 1


def main(rounds):
    calls, said = recorded(), Counter()
    x = rng.normal(size=(200, 25)).astype("f4")
    texts = [
        bytes(XGBRegressor(n_estimators=4, max_depth=d, n_jobs=1).fit(x, x[:, 0]).get_booster().save_raw("json"))
        for d in (2, 5, 8)
    ]
    for _ in range(rounds):
        one_packing(calls, said)
        one_json(texts, said)
    for what, count in sorted(said.items()):
        print(f"{count:7d} {what}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
