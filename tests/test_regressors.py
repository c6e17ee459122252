import threading
import time

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import BaggingRegressor, HistGradientBoostingRegressor, RandomForestRegressor
from sklearn.linear_model import LinearRegression, Ridge
from sklearn.model_selection import ParameterSampler
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVR
from threadpoolctl import ThreadpoolController, threadpool_limits
from xgboost import Booster, DMatrix, XGBRegressor

from smgrid.regressors import is_fitted, make_regressor, on_one_thread, one_thread, predict_rows, search_space

KINDS = ("rf", "xgb", "svr", "mlp")
K = 5
NAMES = tuple("vv vh sand clay smap".split())
RNG = np.random.default_rng(7)
X = RNG.normal(size=(400, K))
Y = 0.2 + 0.05 * X[:, 0] - 0.03 * np.sin(3 * X[:, 1]) + 0.01 * RNG.normal(size=400)
ROWS = RNG.normal(size=(2500, K))
SMALL = {
    "rf": {"n_estimators": 20},
    "xgb": {"n_estimators": 40},
    "svr": {},
    "mlp": {"hidden_layer_sizes": (32, 16), "solver": "lbfgs", "max_iter": 15, "activation": "tanh"},
}


def small(kind):
    made = make_regressor(kind, **SMALL[kind])
    with pytest.warns() if kind == "mlp" else threading.Lock():  # 15 steps are too few to converge, and it says so
        return made.fit(X, Y)


FITTED = {
    **{kind: small(kind) for kind in KINDS},
    "ridge": make_pipeline(StandardScaler(), Ridge()).fit(X, Y),
    "scaled svr": make_pipeline(StandardScaler(), SVR()).fit(X, Y),
    "boosted": HistGradientBoostingRegressor(max_iter=20).fit(X, Y),
    "booster": small("xgb").get_booster(),
}
WHOLE = {name: predict_rows(fitted, ROWS) for name, fitted in FITTED.items()}


# ---- making


@pytest.mark.parametrize("kind", KINDS)
def test_made_regressors_are_unfitted_and_seeded(kind):
    made = make_regressor(kind, seed=3)
    assert not is_fitted(made)
    assert getattr(made, "random_state", 3) in (3, None)
    assert is_fitted(FITTED[kind])


@pytest.mark.parametrize("kind, n_jobs", [("rf", 3), ("xgb", 4)])
def test_training_does_not_depend_on_cores(kind, n_jobs):
    one = make_regressor(kind, n_jobs=1, **SMALL[kind]).fit(X, Y)
    many = make_regressor(kind, n_jobs=n_jobs, **SMALL[kind]).fit(X, Y)
    assert np.array_equal(predict_rows(one, ROWS), predict_rows(many, ROWS))


def test_own_parameters_replace_the_defaults():
    assert (
        make_regressor("svr", kernel="linear", C=3).get_params() == SVR(kernel="linear", C=3, epsilon=0.03).get_params()
    )
    assert make_regressor("rf", random_state=5).random_state == 5


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="one of 'rf', 'xgb', 'svr', 'mlp', not 'lstm'"):
        make_regressor("lstm")
    with pytest.raises(ValueError, match="one of 'rf', 'xgb', 'svr', 'mlp', not 'lstm'"):
        search_space("lstm")
    with pytest.raises(TypeError, match=r"RandomForestRegressor has no parameter 'n_estimator': did you mean n_estim"):
        make_regressor("rf", n_estimator=3)
    with pytest.raises(TypeError, match=r"XGBRegressor has no parameter 'zzz': it has \['base_score'"):
        make_regressor("xgb", zzz=3)


@pytest.mark.parametrize(
    "kind, size", [("mlp", 25 * 2 * 3 * 3), ("svr", 5 * 6 * 4), ("rf", 91 * 4 * 4 * 3), ("xgb", 201 * 18)]
)
def test_search_spaces_are_those_of_the_paper(kind, size):
    space = search_space(kind)
    assert np.prod([len(candidates) for candidates in space.values()]) == size
    for params in ParameterSampler(space, 20, random_state=0):
        make_regressor(kind, **params)


# ---- fitted or not


class Foreign:
    def predict(self, rows):
        return np.asarray(rows)[:, 0]


def test_is_fitted():
    assert is_fitted(Foreign()) and is_fitted(FITTED["booster"]) and is_fitted(FITTED["ridge"])
    assert not is_fitted(make_pipeline(StandardScaler(), Ridge()))
    assert not is_fitted(RandomForestRegressor) and not is_fitted(object())


# ---- rows


@pytest.mark.parametrize("name", FITTED)
@settings(max_examples=12)
@given(data=st.data())
def test_a_row_does_not_depend_on_its_neighbours(name, data):
    seed = data.draw(st.integers(0, 2**32 - 1))
    n = data.draw(st.sampled_from([1, 2, 7, 63, 64, 65, 500, 1023, 1024, 1025, 2048, 2500]))
    cuts = data.draw(st.lists(st.integers(0, n), max_size=4))
    chosen = np.random.default_rng(seed).permutation(len(ROWS))[:n]
    parts = np.split(chosen, sorted(cuts))
    found = np.concatenate([predict_rows(FITTED[name], ROWS[part]) for part in parts])
    assert found.tobytes() == WHOLE[name][chosen].tobytes()


def test_unknown_estimators_always_see_one_number_of_rows():
    counts = Answers(lambda rows: rows[:, 0] + len(rows), whole=True)  # as a matrix product does, in its last bits
    found = predict_rows(counts, ROWS)
    for n in (1, 17, 1000, 1024, 2047):
        assert predict_rows(counts, ROWS[-n:]).tobytes() == found[-n:].tobytes()


def test_tiles_are_filled_with_the_last_row():
    seen = []
    predict_rows(Answers(lambda rows: seen.append(rows) or rows[:, 0], whole=True), ROWS[:1027])
    assert [tile.shape for tile in seen] == [(1024, K), (1024, K)]
    assert (seen[1][3:] == ROWS[1026]).all() and (seen[1][:3] == ROWS[1024:1027]).all()


@pytest.mark.parametrize("name", FITTED)
def test_a_row_does_not_depend_on_threads(name):
    with threadpool_limits(4):
        assert predict_rows(FITTED[name], ROWS).tobytes() == WHOLE[name].tobytes()
    assert predict_rows(on_one_thread(FITTED[name]), ROWS).tobytes() == WHOLE[name].tobytes()


@pytest.mark.parametrize("name", ["mlp", "ridge", "scaled svr"])
def test_a_row_does_not_depend_on_its_place_in_the_tile(name):
    tile = ROWS[:1024].copy()
    tile[:] = np.where(np.arange(1024)[:, None] % 3 > 0, tile, ROWS[2000])
    same = predict_rows(FITTED[name], tile)[::3]
    assert set(same.tolist()) == {WHOLE[name][2000].item()}


@pytest.mark.parametrize("name", FITTED)
def test_predictions_are_the_estimators_own(name):
    fitted = FITTED[name]
    own = fitted.predict(DMatrix(ROWS) if name == "booster" else ROWS)
    np.testing.assert_allclose(WHOLE[name], own, rtol=3e-7)
    assert WHOLE[name].dtype == np.float32
    assert predict_rows(fitted, np.empty((0, K))).shape == (0,)


def test_early_stopping_is_kept():
    stopped = XGBRegressor(n_estimators=200, learning_rate=0.5, early_stopping_rounds=2, n_jobs=1)
    stopped.fit(X, Y, eval_set=[(X[:50], Y[:50][::-1])], verbose=False)
    assert stopped.best_iteration < 190
    assert np.array_equal(predict_rows(stopped, ROWS), stopped.predict(ROWS))
    assert not np.array_equal(
        predict_rows(stopped.get_booster(), ROWS), stopped.predict(ROWS)
    )  # a booster knows no best


FRAME = pd.DataFrame(X, columns=list(NAMES))


@pytest.mark.parametrize(
    "named",
    [
        RandomForestRegressor(5, random_state=0),
        XGBRegressor(n_estimators=5),
        make_pipeline(ColumnTransformer([("some", StandardScaler(), ["clay", "vv"])]), Ridge()),
    ],
    ids=lambda e: type(e).__name__,
)
def test_estimators_with_names_are_given_names(named):
    named.fit(FRAME, Y)
    found = predict_rows(named, ROWS, NAMES)
    np.testing.assert_allclose(found, named.predict(pd.DataFrame(ROWS, columns=list(NAMES))), rtol=3e-7)
    with pytest.raises(ValueError):  # scikit-learn's or XGBoost's own words
        predict_rows(named, ROWS, ("soil", *NAMES[1:]))


def test_boosters_with_names_are_given_names():
    booster = XGBRegressor(n_estimators=5).fit(FRAME, Y).get_booster()
    own = booster.predict(DMatrix(ROWS, feature_names=list(NAMES)))
    assert np.array_equal(predict_rows(booster, ROWS, NAMES), own)
    assert np.array_equal(predict_rows(booster, ROWS), own)
    with pytest.raises(ValueError, match="feature_names mismatch"):
        predict_rows(booster, ROWS, NAMES[::-1])
    assert np.array_equal(predict_rows(FITTED["booster"], ROWS, NAMES), WHOLE["booster"])


def test_nameless_estimators_are_given_plain_rows():
    assert np.array_equal(predict_rows(FITTED["rf"], ROWS, NAMES), WHOLE["rf"])


class Answers(Foreign):
    def __init__(self, answer, whole=False):
        self.answer, self.whole = answer, whole

    def predict(self, rows):
        return self.answer(rows if self.whole else rows[:, 0])


def test_one_column_is_flattened():
    assert np.array_equal(predict_rows(Answers(lambda x: x[:, None]), ROWS), ROWS[:, 0].astype("f4"))


@pytest.mark.parametrize(
    "answer, message",
    [
        (lambda x: np.stack([x, x], 1), r"one number a row, 1024 in all; it gave float64 of shape \(1024, 2\)"),
        (lambda x: x[:-1], r"shape \(1023,\)"),
        (lambda x: x.mean(), r"shape \(\)"),
        (lambda x: x.astype(str), r"gave <U"),
        (lambda x: np.where(x == x[3], np.nan, x), "gave 1 values of 1024 that are not finite"),
    ],
)
def test_answers_that_are_no_map_are_refused(answer, message):
    with pytest.raises(ValueError, match=message):
        predict_rows(Answers(answer), ROWS)


def test_rows_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"rows have the shape \(n, k\) not \(5,\)"):
        predict_rows(FITTED["rf"], ROWS[0])
    with pytest.raises(ValueError, match=r"shape \(n, 2\), one column a name, not \(2500, 5\)"):
        predict_rows(FITTED["rf"], ROWS, ("vv", "vh"))


# ---- threads


def sizes():
    return [(pool["filepath"], pool["num_threads"]) for pool in ThreadpoolController().info()]


def blas():
    return [pool.num_threads for pool in ThreadpoolController().lib_controllers if pool.user_api == "blas"]


def test_inside_all_pools_have_one_thread():
    with threadpool_limits(3):
        before = sizes()
        with one_thread(), one_thread():
            assert {size for _, size in sizes()} == {1}
        assert sizes() == before


def test_overlapping_threads_restore_the_pools():
    with threadpool_limits(3):
        before, first_in, second_in, first_out = sizes(), *(threading.Event() for _ in range(3))
        seen = []

        def first():
            with one_thread():
                first_in.set()
                second_in.wait(10)
            first_out.set()

        def second():
            first_in.wait(10)
            with one_thread():
                second_in.set()
                first_out.wait(10)
                seen.extend(blas())  # the first has left, we have not

        threads = [threading.Thread(target=work) for work in (first, second)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert seen and set(seen) == {1}
        assert sizes() == before


def test_an_error_inside_restores_the_pools():
    before = sizes()
    with pytest.raises(KeyError), one_thread():
        raise KeyError
    assert sizes() == before


def test_entering_is_cheap():
    with one_thread():
        pass
    best = min(timed() for _ in range(5))
    assert best < 0.2e-3


def timed(n=50):
    start = time.perf_counter()
    for _ in range(n):
        with one_thread():
            pass
    return (time.perf_counter() - start) / n


@pytest.mark.parametrize("name", ["rf", "xgb", "booster", "bagging"])
def test_on_one_thread_leaves_the_callers_alone(name):
    if name == "bagging":
        estimator = make_pipeline(
            StandardScaler(), BaggingRegressor(XGBRegressor(n_estimators=3, n_jobs=2), 3, random_state=0)
        ).fit(X, Y)
        estimator[-1].n_jobs = 2
    else:
        estimator = {**FITTED, "rf": RandomForestRegressor(5, n_jobs=2).fit(X, Y)}[name]
    before = {k: repr(v) for k, v in vars(estimator).items()}
    jobs = all_jobs(estimator)
    single = on_one_thread(estimator)
    assert set(all_jobs(single)) == {"1"}
    assert all_jobs(estimator) == jobs
    assert {k: repr(v) for k, v in vars(estimator).items()} == before
    assert np.array_equal(predict_rows(single, ROWS), predict_rows(estimator, ROWS))


def all_jobs(part):
    """Every number of threads that an estimator carries."""
    import json

    if isinstance(part, Booster):
        return [json.loads(part.save_config())["learner"]["generic_param"]["nthread"]]
    if isinstance(part, (list, tuple)):
        return [job for item in part for job in all_jobs(item)]
    if isinstance(part, BaseEstimator):
        own = [str(part.n_jobs)] if hasattr(part, "n_jobs") else []
        return own + [job for name, value in vars(part).items() if name != "n_jobs" for job in all_jobs(value)]
    return []


def test_what_has_no_threads_comes_back_as_it_is():
    foreign = Foreign()
    assert on_one_thread(foreign) is foreign


class Custom(RegressorMixin, BaseEstimator):
    """A part of a pipeline that holds itself in a circle."""

    def __init__(self, n_jobs=4):
        self.n_jobs = n_jobs

    def fit(self, X, y):
        self.inner_, self.self_ = LinearRegression(n_jobs=2).fit(X, y), self
        return self

    def predict(self, X):
        return self.inner_.predict(X)


def test_circles_end():
    single = on_one_thread(Custom().fit(X, Y))
    assert single.self_ is single and single.n_jobs == single.inner_.n_jobs == 1
