"""Kernels give their library's bits, whatever cells they are given, and refuse what is no model."""

import json
import logging
import os
import re
import subprocess
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.ensemble import ExtraTreesRegressor, RandomForestRegressor
from sklearn.tree import DecisionTreeRegressor, ExtraTreeRegressor
from xgboost import XGBRegressor, XGBRFRegressor

from smgrid.kernels import Library, kernel_of
from smgrid.native import INTERFACE, native, state
from smgrid.spread import mean_and_spread
from smgrid.treekernels import Deep, Forest, Shallow

compiled = pytest.mark.skipif(native() is None, reason="smgrid was installed without its compiled half")
FORMS = ("plain", "avx2", "avx512")


def synthetic(inputs=25, n=400, gaps=0.0, seed=0):
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(n, inputs)).astype("f4")
    rows[:, 0] = rows[:, 0].round(1)
    truth = np.sin(2 * rows[:, 0]) + rows[:, -1] * (rows[:, inputs // 2] > 0) + 0.1 * rng.normal(size=n)
    rows[rng.random(rows.shape) < gaps] = np.nan
    return rows, truth


def early(**params):
    rows, truth = synthetic()
    model = XGBRegressor(n_estimators=300, learning_rate=0.3, early_stopping_rounds=3, n_jobs=1, **params)
    return model.fit(rows[:300], truth[:300], eval_set=[(rows[300:], truth[300:])], verbose=False)


def xgb(n=20, depth=3, data=None, **params):
    return XGBRegressor(n_estimators=n, max_depth=depth, n_jobs=1, **params).fit(*(data or synthetic()))


MODELS = {
    "forest": (Forest, lambda: RandomForestRegressor(12, random_state=0).fit(*synthetic())),
    "forest of 3 levels": (Forest, lambda: RandomForestRegressor(12, max_depth=3, random_state=0).fit(*synthetic())),
    "forest grown best first": (Forest, lambda: RandomForestRegressor(5, max_leaf_nodes=40).fit(*synthetic())),
    "forest of one tree": (Forest, lambda: RandomForestRegressor(1, random_state=0).fit(*synthetic())),
    "forest with gaps": (Forest, lambda: RandomForestRegressor(9, random_state=0).fit(*synthetic(gaps=0.2))),
    "forest of one input": (Forest, lambda: RandomForestRegressor(9, random_state=0).fit(*synthetic(1))),
    "forest of 31 inputs": (Forest, lambda: RandomForestRegressor(9, max_features=0.3).fit(*synthetic(31))),
    "forest of 60 inputs": (Forest, lambda: RandomForestRegressor(9, max_features=0.3).fit(*synthetic(60, gaps=0.1))),
    "forest of 300 inputs": (
        Forest,
        lambda: RandomForestRegressor(30, max_features=0.1).fit(*synthetic(300, gaps=0.1)),
    ),
    "forest of stumps": (Forest, lambda: RandomForestRegressor(3, max_depth=1).fit(*synthetic())),
    "forest without splits": (Forest, lambda: RandomForestRegressor(3).fit(np.zeros((9, 2)), np.ones(9))),
    "extra trees": (Forest, lambda: ExtraTreesRegressor(9, random_state=0).fit(*synthetic())),
    "tree": (Deep, lambda: DecisionTreeRegressor(random_state=0).fit(*synthetic())),
    "extra tree": (Deep, lambda: ExtraTreeRegressor(random_state=0).fit(*synthetic())),
    **{f"boosted, {d} levels": (Shallow, lambda d=d: xgb(depth=d)) for d in (1, 2, 3, 4, 5, 6)},
    "boosted, 9 levels": (Deep, lambda: xgb(depth=9)),
    "boosted with gaps, 3 levels": (Shallow, lambda: xgb(data=synthetic(gaps=0.2))),
    "boosted with gaps, 5 levels": (Shallow, lambda: xgb(depth=5, data=synthetic(gaps=0.2))),
    "boosted with gaps, 8 levels": (Deep, lambda: xgb(depth=8, data=synthetic(gaps=0.2))),
    "boosted, 60 inputs": (Shallow, lambda: xgb(depth=5, data=synthetic(60))),
    "boosted, 300 inputs, 8 levels": (Deep, lambda: xgb(60, 8, data=synthetic(300, 99), colsample_bytree=0.1)),
    "boosted, 300 inputs": (Shallow, lambda: xgb(60, 4, data=synthetic(300, 99), colsample_bytree=0.1)),
    "boosted, lossguide": (Deep, lambda: xgb(depth=0, grow_policy="lossguide", max_leaves=30)),
    "boosted, many thresholds": (Deep, lambda: xgb(80, 5, synthetic(2, 3000), tree_method="exact")),
    "boosted, many thresholds, 4 levels": (Shallow, lambda: xgb(80, 4, synthetic(2, 3000), tree_method="exact")),
    "boosted, stopped early": (Shallow, early),
    "boosted forest": (Shallow, lambda: XGBRFRegressor(n_estimators=20, max_depth=5, n_jobs=1).fit(*synthetic())),
    "boosted from 0.3": (Shallow, lambda: xgb(base_score=0.3)),
    "Booster": (Shallow, lambda: xgb().get_booster()),
    "Booster stopped early": (Shallow, lambda: early(max_depth=2).get_booster()),
    **{
        f"boosted, {name}": (Shallow, lambda name=name: xgb(objective=name))
        for name in ("reg:absoluteerror", "reg:pseudohubererror")
    },
    "boosted, quantile": (Shallow, lambda: xgb(objective="reg:quantileerror", quantile_alpha=0.3)),
}


@cache
def made(name):
    return MODELS[name][1]()


def thresholds(model):
    """(input, threshold) of all splits."""
    if hasattr(model, "get_booster") or hasattr(model, "save_raw"):
        booster = model.get_booster() if hasattr(model, "get_booster") else model
        learner = json.loads(booster.save_raw("json"))["learner"]
        for tree in learner["gradient_booster"]["model"]["trees"]:
            for f, t, left in zip(tree["split_indices"], tree["split_conditions"], tree["left_children"]):
                if left != -1:
                    yield f, t
    else:
        for member in getattr(model, "estimators_", [model]):
            split = member.tree_.feature >= 0
            yield from zip(member.tree_.feature[split], member.tree_.threshold[split])


def adversarial(model, n=1500, gaps=0.0):
    """Cells on thresholds, on the floats beside them, at zeros and far out; some with missing values."""
    inputs = model.num_features() if hasattr(model, "num_features") else model.n_features_in_
    rng, tile = np.random.default_rng(1), np.zeros((inputs, n), "f4")
    pools = [[] for _ in range(inputs)]
    for f, t in thresholds(model):
        pools[f].append(t)
    for row, pool in zip(tile, pools):
        t = np.array(pool, "f8")
        t = t[np.abs(t) < 1e30].astype("f4")
        far = np.array([0, -0.0, 1e30, -1e30, 1e-45, -1e-45, 1.5], "f4")
        row[:] = rng.choice(
            np.concatenate([t, np.nextafter(t, np.float32(9)), np.nextafter(t, np.float32(-9)), far]), n
        )
    tile[rng.random(tile.shape) < gaps] = np.nan
    return tile


@pytest.fixture
def forms():
    """Those of this processor, one after the other; the kernels of deep trees have but one."""
    best = native().form()

    def each(kernel):
        for name in FORMS[: FORMS.index(best) + 1] if isinstance(kernel, Shallow) else [best]:
            yield native().form(name)

    yield each
    native().form(best)


def bits(values):
    assert values.dtype == "f4"
    return values.view("i4").tolist()


@compiled
@pytest.mark.parametrize("gaps", [0.0, 0.15])
@pytest.mark.parametrize("name", MODELS)
def test_a_kernel_gives_its_librarys_bits(name, gaps, forms):
    model = made(name)
    kernel = kernel_of(model)
    assert type(kernel) is MODELS[name][0]
    tile = adversarial(model, gaps=gaps)
    expected = Library(model, None)(tile.astype("f8"))
    for form in forms(kernel):
        assert bits(kernel(tile)) == bits(expected), form
        for start, end in [(0, 1), (0, 7), (3, 258), (100, 1337)]:
            assert bits(kernel(np.ascontiguousarray(tile[:, start:end]))) == bits(expected[start:end]), form
    assert kernel(np.zeros((len(tile), 0), "f4")).shape == (0,)


@compiled
@pytest.mark.parametrize("name", [name for name in MODELS if MODELS[name][0] is Forest])
def test_spread_is_that_of_the_trees(name):
    model = made(name)
    tile = adversarial(model, gaps=0.1)
    for kernel in (kernel_of(model), Library(model, None)):
        for got, expected in zip(kernel.spread(tile), mean_and_spread(model, tile.T)):
            assert bits(got) == bits(expected)


@compiled
def test_infinite_values_take_the_ways_of_xgboost():
    from xgboost import DMatrix

    for name in ("boosted, 3 levels", "boosted, 5 levels", "boosted, 9 levels"):
        tile = adversarial(made(name), 300)
        tile[np.random.default_rng(2).random(tile.shape) < 0.1] = np.inf
        tile[np.random.default_rng(3).random(tile.shape) < 0.1] = -np.inf
        try:
            expected = made(name).predict(tile.T)
        except Exception:  # a version that refuses them
            with pytest.raises(Exception, match="inf"):
                DMatrix(tile.T)
            return
        assert bits(kernel_of(made(name))(tile)) == bits(expected)


@compiled
def test_many_threads_share_a_kernel():
    for name in ("forest with gaps", "boosted with gaps, 5 levels"):
        tiles = [adversarial(made(name), 700, gaps) for gaps in (0.0, 0.1) * 8]
        kernel = kernel_of(made(name))
        with ThreadPoolExecutor(8) as pool:
            for tile, got in zip(tiles, pool.map(kernel, tiles)):
                assert bits(got) == bits(kernel(tile))


UNCOVERED = {
    "two targets": lambda: RandomForestRegressor(3).fit(np.eye(4), np.eye(4)),
    "boosted, two targets": lambda: XGBRegressor(n_estimators=2, n_jobs=1).fit(np.eye(4), np.eye(4)),
    "dart": lambda: xgb(5, booster="dart"),
    "linear": lambda: XGBRegressor(n_estimators=2, booster="gblinear", n_jobs=1).fit(*synthetic()),
    "transformed": lambda: xgb(5, objective="reg:gamma", data=(synthetic()[0], np.abs(synthetic()[1]) + 1)),
    "a number for missing": lambda: xgb(5, missing=-999.0),
    "huge leaves": lambda: RandomForestRegressor(3).fit(synthetic()[0], synthetic()[1] * 1e38),
}


@pytest.mark.parametrize("name", UNCOVERED)
def test_what_no_kernel_covers_is_left_to_the_library(name):
    assert type(kernel_of(UNCOVERED[name]())) is Library


@compiled
def test_categories_are_left_to_the_library():
    import pandas as pd

    rows = pd.DataFrame({"soil": pd.Categorical(list("abcd") * 20), "x": np.arange(80.0)})
    model = XGBRegressor(n_estimators=3, enable_categorical=True, n_jobs=1, tree_method="hist")
    assert type(kernel_of(model.fit(rows, np.arange(80.0) % 4))) is Library


@compiled
def test_a_library_that_computes_otherwise_keeps_its_say(caplog, monkeypatch):
    model = RandomForestRegressor(4, random_state=0).fit(*synthetic())
    own = Library.__call__
    monkeypatch.setattr(Library, "__call__", lambda self, tile: np.nextafter(own(self, tile), np.float32(9)))
    assert type(kernel_of(model)) is Library
    assert "does not give this version's own bits" in caplog.text


@compiled
def test_missing_values_are_refused_where_trees_do_not_route_them(monkeypatch):
    monkeypatch.setattr(
        DecisionTreeRegressor, "_support_missing_values", lambda self, rows: False
    )  # as with sparse rows
    kernel = kernel_of(DecisionTreeRegressor(max_depth=4).fit(*synthetic(2)))
    tile = np.zeros((2, 300), "f4")
    assert type(kernel) is Deep
    kernel(tile)
    tile[1, 299] = np.nan
    with pytest.raises(ValueError, match="misses values"):
        kernel(tile)


@compiled
def test_only_whole_tiles_of_float32_are_taken():
    for name in ("forest", "boosted, 3 levels"):
        kernel = kernel_of(made(name))
        for tile in (
            np.zeros((24, 9), "f4"),
            np.zeros((25, 9), "f8"),
            np.zeros((9, 25), "f4").T,
            np.zeros((25, 18), "f4")[:, ::2],
            np.zeros(25, "f4"),
            np.zeros((25, 9), ">f4"),
            np.zeros((25, 2, 9), "f4"),
            np.frombuffer(bytes(25 * 9 * 4 + 1), "u1")[1:].view("f4").reshape(25, 9),
        ):
            with pytest.raises(
                ValueError, match=r"the tile (has|is) |tile must be|the result must be|the result holds"
            ):
                kernel(tile)
    out = np.zeros(9, "f4")
    out.flags.writeable = False
    with pytest.raises((ValueError, BufferError), match=r"read-only|writable"):
        native().deep_predict(kernel_of(made("forest")).packed, np.zeros((25, 9), "f4"), out, 0.0)
    with pytest.raises(ValueError, match="the result holds 9 cells, the tile 8"):
        native().deep_predict(kernel_of(made("forest")).packed, np.zeros((25, 8), "f4"), np.zeros(9, "f4"), 0.0)
    with pytest.raises(ValueError, match="PyCapsule"):
        native().shallow_predict(kernel_of(made("forest")).packed, np.zeros((25, 9), "f4"), np.zeros(9, "f4"))


# ---- hostile models


def stump(**change):
    """Columns of a tree of three nodes, as `deep_pack` takes them, one of them changed."""
    columns = {
        "left": np.array([1, -1, -1]),
        "right": np.array([2, -1, -1]),
        "feature": np.array([0, -1, -1]),
        "threshold": np.zeros(3),
        "missing_left": np.zeros(3, "u1"),
        "value": np.arange(3.0),
        "start": np.array([0, 3]),
        "input": np.array([1]),
    }
    return [*{**columns, **change}.values(), 2, False, True, False]


@compiled
@pytest.mark.parametrize(
    "change",
    [
        {"left": np.array([3, -1, -1])},
        {"left": np.array([-7, -1, -1])},
        {"left": np.array([0, -1, -1])},
        {"left": np.array([2, -1, -1])},
        {"left": np.array([-1, -1, -1])},
        {"left": np.array([1, 0, -1]), "right": np.array([2, 2, -1])},
        {"feature": np.array([1, -1, -1])},
        {"feature": np.array([-1, -1, -1])},
        {"feature": np.array([2**40, -1, -1])},
        {"threshold": np.array([np.nan, 0, 0])},
    ],
)
def test_nodes_that_lead_astray_are_refused(change):
    with pytest.raises(ValueError, match="tree 0 points outside itself, to an unknown input or in a circle"):
        native().deep_pack(*stump(**change))


@compiled
@pytest.mark.parametrize(
    "change",
    [
        {"left": np.array([1, -1])},
        {"value": np.arange(4.0)},
        {"start": np.array([0, 4])},
        {"start": np.array([0, 2])},
        {"start": np.array([0, 0, 3])},
        {"start": np.array([0, -5, 3])},
        {"start": np.array([0, 2**62, 3])},
        {"start": np.array([0])},
        {"start": np.array([], "i8")},
        {"input": np.array([2])},
        {"input": np.array([-1])},
    ],
)
def test_columns_that_do_not_add_up_are_refused(change):
    with pytest.raises(ValueError, match=r"do not add up|no tree"):
        native().deep_pack(*stump(**change))


@compiled
@pytest.mark.parametrize(
    "change", [{"left": np.array([1.0, -1, -1])}, {"threshold": np.zeros(3, "f4")}, {"value": np.zeros((3, 1))}]
)
def test_columns_of_another_kind_are_refused(change):
    with pytest.raises(ValueError, match="must be a C-contiguous, aligned array"):
        native().deep_pack(*stump(**change))


@compiled
def test_without_the_compiled_half_maps_have_the_same_bits():
    code = """
import sys, numpy as np
sys.path.insert(0, sys.argv[1])
from test_kernels import *
for name in ("forest with gaps", "boosted with gaps, 5 levels", "tree"):
    kernel = kernel_of(made(name))
    print(type(kernel).__name__, kernel(adversarial(made(name), 400, 0.1).astype(kernel.dtype)).tobytes().hex())
"""
    done = subprocess.run(
        [sys.executable, "-c", code, os.path.dirname(__file__)],
        env={**os.environ, "SMGRID_NATIVE": "0"},
        capture_output=True,
        text=True,
        check=True,
    )
    said = [line.split() for line in done.stdout.splitlines()]
    assert [kind for kind, _ in said] == ["Library"] * 3
    for name, (_, values) in zip(("forest with gaps", "boosted with gaps, 5 levels", "tree"), said):
        assert kernel_of(made(name))(adversarial(made(name), 400, 0.1)).tobytes().hex() == values


def test_a_booster_without_trees_is_its_base_score():
    model = xgb(0, base_score=0.25)
    assert isinstance(kernel_of(model), Library)
    assert kernel_of(model)(np.zeros((25, 3))).tolist() == model.predict(np.zeros((3, 25))).tolist() == [0.25] * 3


# ---- a compiled half that is older or newer than the Python beside it


def test_the_compiled_half_here_is_not_a_stale_one():
    assert "anew" not in state(), state()


@pytest.mark.parametrize("stale", [SimpleNamespace(), SimpleNamespace(INTERFACE=INTERFACE + 1)])
def test_a_stale_compiled_half_is_left_alone_and_said_so(stale, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "smgrid._native", stale)
    monkeypatch.delenv("SMGRID_NATIVE", raising=False)
    found = getattr(stale, "INTERFACE", 0)
    said = rf"not compiled anew: .* interface {found}, this smgrid expects {INTERFACE}; run `make native`.*install"
    assert re.match(said, state())
    with caplog.at_level(logging.WARNING, "smgrid"):
        assert native.__wrapped__() is None
    assert "libraries" in caplog.text and "make native" in caplog.text


def test_functions_of_the_compiled_half_change_with_its_interface_only():
    c = Path(__file__).parent.parent / "smgrid" / "c"
    text = "".join(file.read_text() for file in sorted(c.glob("*.[ch]")))
    number = int(re.search(r"SMGRID_INTERFACE (\d+)", text)[1])
    calls = sorted(re.findall(r'PyArg_ParseTuple\(args, "([^"]*)"', text) + re.findall(r'\{"(\w+)", \w+, METH', text))
    assert number == INTERFACE
    assert (number, zlib.crc32(" ".join(calls).encode())) == (1, 3451728444), (
        "raise the interface in native.h and native.py"
    )
