"""Sharing work among draws changes no score: every shared way against the plain loop."""

import numpy as np
import pytest
from scipy.stats import uniform
from sklearn.ensemble import RandomForestRegressor
from sklearn.linear_model import Ridge
from sklearn.neural_network import MLPRegressor
from sklearn.svm import SVR
from xgboost import XGBRegressor

from smgrid import tuning
from smgrid.regressors import make_regressor, search_space
from smgrid.tuning import draw_params, predict_draws


def table(n=120, m=700, k=6, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.random((n + m, k))
    y = 0.2 + 0.1 * np.sin(5 * x[:, 0]) + 0.1 * x[:, 1] * x[:, 2] + 0.02 * rng.normal(size=n + m)
    return x[:n], y[:n], x[n:], y[n:]


def scores(estimator, draws, share, **kwargs):
    rows, target, test, truth = table(**kwargs)
    found, caps = np.full(len(draws), np.nan), np.zeros(len(draws), bool)
    for predicted in predict_draws(estimator, draws, rows, target, test, share=share):
        for i in predicted.draws:
            assert np.isnan(found[i]), "a draw came twice"
            found[i], caps[i] = np.sqrt(np.mean((predicted.values - truth) ** 2)), predicted.capped
    return found, caps


CASES = {
    "xgb": (make_regressor("xgb"), search_space("xgb"), 30, 1e-8),
    "xgb subsampled": (XGBRegressor(subsample=0.6, random_state=3, n_jobs=1), search_space("xgb"), 8, 1e-8),
    "rf": (make_regressor("rf", n_jobs=1), search_space("rf") | {"max_depth": [None, 3, 6, 10, 30]}, 40, 1e-12),
    "rf whole": (RandomForestRegressor(bootstrap=False, random_state=1), {"n_estimators": range(3, 9)}, 8, 1e-12),
    "rf part": (RandomForestRegressor(max_samples=0.5, random_state=1), {"max_depth": [2, 4, None]}, 6, 1e-12),
    "svr": (make_regressor("svr"), search_space("svr"), 60, 1e-10),
    "svr gammas": (SVR(coef0=0.3), {"kernel": ["rbf", "poly", "sigmoid"], "gamma": ["auto", 0.5]}, 12, 1e-10),
    "mlp": (
        MLPRegressor(max_iter=20, random_state=0),
        search_space("mlp") | {"hidden_layer_sizes": [(16,), (8, 8)]},
        8,
        1e-6,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_shared_scores_are_those_of_the_plain_loop(case):
    estimator, space, count, tolerance = CASES[case]
    draws = draw_params(space, count, np.random.default_rng(1))
    plain, plain_caps = scores(estimator, draws, share=False)
    shared, caps = scores(estimator, draws, share=True)
    assert np.isfinite(plain).all() and np.ptp(plain) > 1e-5
    np.testing.assert_allclose(shared, plain, rtol=0, atol=tolerance)
    np.testing.assert_array_equal(caps, plain_caps)


@pytest.mark.parametrize("kind", ["xgb", "rf", "svr", "mlp"])
def test_the_paper_s_draws_do_go_the_shared_way(kind, monkeypatch):
    def refuse(*_):
        raise AssertionError("draw by draw")

    monkeypatch.setattr(tuning, "_one_by_one", refuse)
    draws = draw_params(
        search_space(kind) | {"hidden_layer_sizes": [(4,)]} if kind == "mlp" else search_space(kind),
        3,
        np.random.default_rng(0),
    )
    found, _ = scores(make_regressor(kind, **({"max_iter": 3} if kind == "mlp" else {})), draws, share=True, n=30, m=20)
    assert np.isfinite(found).all()


@pytest.mark.parametrize(
    "estimator, draw",
    [
        (XGBRegressor(objective="reg:absoluteerror", n_jobs=1), {"n_estimators": 4}),
        (XGBRegressor(booster="dart", n_jobs=1), {"n_estimators": 4}),
        (RandomForestRegressor(max_leaf_nodes=5, random_state=0), {"n_estimators": 4}),
        (RandomForestRegressor(random_state=0, oob_score=True), {"n_estimators": 60}),
        (MLPRegressor(activation="logistic", max_iter=5, random_state=0), {"alpha": 0.1}),
        (Ridge(), {"alpha": 3.0}),
    ],
    ids=lambda v: type(v).__name__,
)
def test_what_cannot_share_goes_one_by_one(estimator, draw):
    np.testing.assert_array_equal(scores(estimator, [draw], True), scores(estimator, [draw], False))


def test_equal_draws_are_fitted_once(monkeypatch):
    fits = []
    monkeypatch.setattr(Ridge, "fit", (lambda fit: lambda self, *a: fits.append(1) or fit(self, *a))(Ridge.fit))
    found, _ = scores(Ridge(), [{"alpha": 1.0}, {"alpha": 2.0}, {"alpha": 1.0}], True)
    assert len(fits) == 2 and found[0] == found[2] != found[1]


def test_a_capped_polynomial_is_reported(monkeypatch):
    monkeypatch.setattr(tuning, "POLY_CAP", 50)
    draws = [{"kernel": "poly", "C": 10}, {"kernel": "rbf"}]
    for share in (True, False):
        _, caps = scores(SVR(epsilon=0.01), draws, share)
        assert caps.tolist() == [True, False]


def test_a_diverged_solver_scores_nan():
    class Diverging(MLPRegressor):
        def fit(self, *_):
            raise ValueError("Solver produced non-finite parameter weights.")

    for share in (True, False):
        found, caps = scores(Diverging(), [{}], share)
        assert np.isnan(found).all() and caps.all()


def test_other_errors_are_not_hidden():
    with pytest.raises(ValueError, match="alpha"):
        scores(Ridge(alpha=-1), [{}], True)


def test_alike_rows_change_only_the_order_of_work():
    rows, target, test, _ = table()
    draws = [{"n_estimators": 5}, {"n_estimators": 9, "max_depth": 4}]
    alike = np.random.default_rng(0).integers(0, 7, len(test))
    forest = RandomForestRegressor(random_state=0)
    one, two = (
        {p.draws: p.values for p in predict_draws(forest, draws, rows, target, test, alike=a)} for a in (None, alike)
    )
    assert one.keys() == two.keys()
    for key in one:
        np.testing.assert_array_equal(one[key], two[key])


def test_few_draws_are_the_first_of_many():
    space = search_space("rf") | {"min_impurity_decrease": uniform(0, 1e-4)}
    few, many = (draw_params(space, n, np.random.default_rng(5)) for n in (4, 40))
    assert many[:4] == few
    assert draw_params({}, 9, np.random.default_rng(5)) == [{}]


def test_something_without_parameters_cannot_be_searched():
    class Bare:
        def fit(self, rows, target):
            self.mean = target.mean()
            return self

        def predict(self, rows):
            return np.full(len(rows), self.mean)

    assert np.isfinite(scores(Bare(), [{}], True)[0]).all()
    with pytest.raises(TypeError, match="Bare has no set_params"):
        scores(Bare(), [{"alpha": 1}], True)
