"""The lean training is scikit-learn's own, bit by bit."""

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPRegressor

from smgrid import perceptron


def table(n=430, k=5, seed=0):
    rng = np.random.default_rng(seed)
    rows = rng.random((n, k))
    return rows, 0.2 + 0.1 * np.sin(5 * rows[:, 0]) * rows[:, 1] + 0.02 * rng.normal(size=n)


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"activation": "tanh", "hidden_layer_sizes": (16, 8), "alpha": 0.01},
        {"hidden_layer_sizes": (128, 128), "learning_rate_init": 0.1},  # more weights than a chunk
        {"hidden_layer_sizes": 7, "shuffle": False, "batch_size": 64},
        {"batch_size": 1000, "hidden_layer_sizes": (4, 4, 4), "beta_1": 0.8, "tol": 1e-3, "n_iter_no_change": 3},
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore:Stochastic Optimizer")
@pytest.mark.filterwarnings("ignore:Got `batch_size`")
def test_weights_are_those_of_scikit_learn(params):
    model = MLPRegressor(**{"max_iter": 40, "random_state": 3, "hidden_layer_sizes": (20,)} | params)
    assert perceptron.is_plain(model)
    mine = perceptron.train(model, *table())
    theirs = model.fit(*table())
    assert mine.n_iter_ == theirs.n_iter_ > 1
    for a, b in zip(mine.coefs_ + mine.intercepts_, theirs.coefs_ + theirs.intercepts_, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-12)


def test_the_end_of_training_is_met_alike():
    model = MLPRegressor(hidden_layer_sizes=(4,), max_iter=3, random_state=0)
    mine = perceptron.train(model, *table())
    with pytest.warns(ConvergenceWarning):
        theirs = model.fit(*table())
    assert (mine.n_iter_, mine.max_iter) == (theirs.n_iter_, theirs.max_iter) == (3, 3)


@pytest.mark.filterwarnings("ignore:Stochastic Optimizer")
def test_weights_that_are_not_finite_are_none():
    rows, target = table()
    model = MLPRegressor(hidden_layer_sizes=(8, 8), learning_rate_init=1e200, max_iter=30, random_state=0)
    with np.errstate(all="ignore"), pytest.raises(ValueError, match="non-finite"):
        model.fit(rows, target)
    with np.errstate(all="ignore"):
        assert perceptron.train(model, rows, target) is None


@pytest.mark.parametrize(
    "params",
    [
        {"solver": "lbfgs"},
        {"activation": "logistic"},
        {"early_stopping": True},
        {"warm_start": True},
        {"random_state": None},
        {"random_state": np.random.RandomState(0)},
    ],
    ids=str,
)
def test_what_differs_is_left_to_scikit_learn(params):
    assert not perceptron.is_plain(MLPRegressor(**{"random_state": 0} | params))
