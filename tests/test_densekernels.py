import pickle
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LinearRegression
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, QuantileTransformer, StandardScaler
from sklearn.svm import SVR, NuSVR
from threadpoolctl import threadpool_limits

from smgrid.arrays import from_arrays, to_arrays
from smgrid.densekernels import CELLS, LANES, Perceptron, SupportVectors, dense_kernel
from smgrid.kernels import Library, kernel_of
from smgrid.regressors import predict_rows

K = 7
RNG = np.random.default_rng(3)
X = RNG.random((700, K))
Y = 0.25 + 0.1 * np.sin(5 * X[:, 0] * X[:, 1]) + 0.1 * (X[:, 2] > 0.5) + 0.02 * RNG.normal(size=700)
UNSCALED = X * [5500, 1, 360, 40, 1e-3, 1, 100] + [0, -30, 0, 273, 0, 0, -50]
N = 20 * LANES + 77
CELLS_OF_A_MAP = np.ascontiguousarray(RNG.random((N, K)).T)


def fit(regressor, rows=X):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return regressor.fit(rows, Y)


def mlp(activation="relu", **more):
    return MLPRegressor(hidden_layer_sizes=(33, 8), activation=activation, max_iter=60, random_state=0, **more)


VECTORS = {
    **{kernel: fit(SVR(kernel=kernel, epsilon=0.01)) for kernel in ("rbf", "linear", "poly", "sigmoid")},
    "square": fit(SVR(kernel="poly", degree=2, coef0=0.5)),
    "nu": fit(NuSVR()),
    "standard": fit(make_pipeline(StandardScaler(), SVR(epsilon=0.01)), UNSCALED),
    "unit": fit(make_pipeline(MinMaxScaler(), SVR(epsilon=0.01)), UNSCALED),
    "centred": fit(make_pipeline(StandardScaler(with_std=False), SVR(epsilon=0.01))),
}
PERCEPTRONS = {
    **{activation: fit(mlp(activation)) for activation in ("identity", "logistic", "tanh", "relu")},
    "standard mlp": fit(make_pipeline(StandardScaler(), mlp()), UNSCALED),
    "unit mlp": fit(make_pipeline(MinMaxScaler((-1, 1)), mlp("tanh")), UNSCALED),
    "no hidden layer": fit(MLPRegressor(hidden_layer_sizes=(), max_iter=60, random_state=0)),
}
FITTED = {**VECTORS, **PERCEPTRONS}
PHYSICAL = ("standard", "unit", "standard mlp", "unit mlp")
KERNELS = {
    **{name: dense_kernel(fitted, encoded=True) for name, fitted in FITTED.items()},
    "double": dense_kernel(PERCEPTRONS["relu"]),
}
FITTED["double"] = FITTED["relu"]


def cells(name):
    """Cells of the kind that a regressor takes, band first."""
    if name not in PHYSICAL:
        return CELLS_OF_A_MAP.astype(KERNELS[name].dtype)
    return np.ascontiguousarray((CELLS_OF_A_MAP.T * np.ptp(UNSCALED, axis=0) + UNSCALED.min(axis=0)).T)


WHOLE = {name: kernel(cells(name)) for name, kernel in KERNELS.items()}


# ---- a cell's result is its own


@pytest.mark.parametrize("name", KERNELS)
@settings(max_examples=20)
@given(data=st.data())
def test_a_cell_depends_on_no_other(name, data):
    size = CELLS if isinstance(KERNELS[name], SupportVectors) else KERNELS[name].strips * LANES
    n = data.draw(st.sampled_from([1, 2, 7, LANES, LANES + 1, size - 1, size, size + 1, 2 * size + 3]))
    chosen = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1))).permutation(N)[:n]
    parts = np.split(chosen, sorted(data.draw(st.lists(st.integers(0, len(chosen)), max_size=3))))
    found = [KERNELS[name](np.ascontiguousarray(cells(name)[:, part])) for part in parts]
    assert np.concatenate(found).tobytes() == WHOLE[name][chosen].tobytes()


@pytest.mark.parametrize("name", KERNELS)
def test_a_cell_does_not_depend_on_its_place_in_the_tile(name):
    for one in (0, 5, 1000):
        tile = cells(name).copy()
        tile[:, 1:] = np.where(np.arange(tile.shape[1] - 1) % 3 > 0, tile[:, 1:], tile[:, [one]])
        found = KERNELS[name].sums(tile)[0, 1::3]
        assert set(found.tolist()) == {KERNELS[name].sums(cells(name))[0, one].item()}


@pytest.mark.parametrize("name", KERNELS)
def test_a_cell_does_not_depend_on_threads_or_copies(name):
    parts = [np.ascontiguousarray(part) for part in np.array_split(cells(name), 6, axis=1)]
    with threadpool_limits(4), ThreadPoolExecutor(4) as pool:
        assert np.concatenate([*pool.map(KERNELS[name], parts)]).tobytes() == WHOLE[name].tobytes()
    assert pickle.loads(pickle.dumps(KERNELS[name]))(cells(name)).tobytes() == WHOLE[name].tobytes()


@pytest.mark.parametrize("name", [n for n in KERNELS if n not in PHYSICAL and n not in ("nu", "centred", "double")])
def test_saved_regressors_give_the_same_bits(name):
    back = kernel_of(from_arrays(*to_arrays(FITTED[name])), encoded=True)
    assert back(cells(name)).tobytes() == WHOLE[name].tobytes()


# ---- and the library's


@pytest.mark.parametrize("name", VECTORS)
def test_support_vectors_are_the_library_s(name):
    assert isinstance(KERNELS[name], SupportVectors)
    own = FITTED[name].predict(cells(name).T)
    np.testing.assert_allclose(KERNELS[name].sums(cells(name))[0], own, rtol=0, atol=1e-10)
    assert WHOLE[name].dtype == np.float32
    np.testing.assert_allclose(WHOLE[name], predict_rows(FITTED[name], cells(name).T), rtol=1.2e-7)


def adversarial(svr, rng):
    """Rows where cancellation is worst: the support vectors, next to them, mirrored, ever farther, the origin."""
    near = svr.support_vectors_ if len(svr.support_vectors_) else X[:5]
    far = [1.0, 1.5, 3, 10, 100, 1e4, 1e8, 1e30]
    aside = rng.normal(size=near.shape) * 10.0 ** rng.uniform(-9, 1, (len(near), 1))
    rows = [
        near,
        np.nextafter(near, 2),
        near + aside,
        1 - near,
        *(near * factor for factor in far),
        0 * near,
        1 + 0 * near,
    ]
    return np.concatenate(rows)


@settings(max_examples=60)
@given(
    rows=st.integers(2, 120),
    gamma=st.floats(-6, 9),
    c=st.floats(-2, 4),
    epsilon=st.sampled_from([0, 0.01, 0.1, 10]),
    seed=st.integers(0, 1000),
    offset=st.sampled_from([0, 0, 1, 100]),
)
def test_rbf_on_adversarial_rows(rows, gamma, c, epsilon, seed, offset):
    """Either within 1e-10, or left to the library."""
    rng = np.random.default_rng(seed)
    some = rng.choice(700, rows, replace=False)
    svr = SVR(gamma=10**gamma, C=10**c, epsilon=epsilon, max_iter=2000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        svr.fit(X[some] + offset, Y[some])
    kernel = dense_kernel(svr)
    tile = adversarial(svr, rng)
    if kernel is not None:
        np.testing.assert_allclose(kernel.sums(np.ascontiguousarray(tile.T))[0], svr.predict(tile), rtol=0, atol=1e-10)
    assert kernel is not None or 10 ** (gamma + c) > 100  # what is left to the library is unusual


@settings(max_examples=40)
@given(
    kind=st.sampled_from(["linear", "poly", "sigmoid"]),
    degree=st.integers(0, 5),
    gamma=st.floats(-3, 2),
    c=st.floats(-2, 3),
    coef0=st.sampled_from([0, -1, 0.5]),
    seed=st.integers(0, 1000),
)
def test_other_kernels_among_their_support_vectors(kind, degree, gamma, c, coef0, seed):
    some = np.random.default_rng(seed).choice(700, 80, replace=False)
    svr = SVR(kernel=kind, degree=degree, gamma=10**gamma, C=10**c, coef0=coef0, max_iter=500)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        svr.fit(X[some], Y[some])
    kernel = dense_kernel(svr)
    if kernel is not None:
        rows = np.concatenate([X, svr.support_vectors_, np.zeros((1, K)), np.ones((1, K))])
        np.testing.assert_allclose(kernel.sums(np.ascontiguousarray(rows.T))[0], svr.predict(rows), rtol=0, atol=1e-10)


def test_huge_gammas_are_left_to_the_library():
    svr = SVR(gamma=1e9, C=100).fit(X, Y)
    kernel = kernel_of(svr)
    assert dense_kernel(svr) is None and isinstance(kernel, Library)
    assert kernel(CELLS_OF_A_MAP).tobytes() == predict_rows(svr, CELLS_OF_A_MAP.T).tobytes()


@pytest.mark.parametrize("kernel", ["rbf", "linear", "poly", "sigmoid"])
def test_one_support_vector_and_none(kernel):
    none = SVR(kernel=kernel, epsilon=10).fit(X, Y)
    assert len(none.support_vectors_) == 0
    assert dense_kernel(none)(CELLS_OF_A_MAP).tobytes() == predict_rows(none, CELLS_OF_A_MAP.T).tobytes()
    one = SVR(kernel=kernel, epsilon=0).fit(X[:2], Y[:2])
    one.support_vectors_, one.dual_coef_ = one.support_vectors_[:1], one.dual_coef_[:1, :1]
    fitted = from_arrays(*(to_arrays(none)[0], one_vector(none, one)))
    np.testing.assert_allclose(dense_kernel(fitted).sums(X.T)[0], fitted.predict(X), rtol=0, atol=1e-12)


def one_vector(none, one):
    vectors = {"vectors": one.support_vectors_, "dual": one.dual_coef_, "support": np.array([0], "i4")}
    return {**to_arrays(none)[1], **vectors, "n_support": np.array([1, 0], "i4")}


@pytest.mark.parametrize("name", PERCEPTRONS)
def test_perceptrons_are_the_library_s_to_a_millionth(name):
    kernel = KERNELS[name]
    assert isinstance(kernel, Perceptron) and kernel.precision == "f4"
    assert kernel.dtype == ("f8" if name in PHYSICAL else "f4")
    tile = cells(name)
    exact = FITTED[name].predict(tile.T.astype("f8"))
    np.testing.assert_allclose(WHOLE[name], exact, rtol=0, atol=1e-6)
    if name not in PHYSICAL:  # a predictor may lie outside its range by the range's width
        wide = 3 * CELLS_OF_A_MAP - 1
        np.testing.assert_allclose(kernel(wide.astype("f4")), FITTED[name].predict(wide.T), rtol=0, atol=1e-6)


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_perceptrons_of_physical_values_are_summed_in_float64(activation):
    fitted = fit(mlp(activation), UNSCALED)
    kernel = kernel_of(fitted)
    assert kernel.dtype == "f8"
    rows = cells("standard")
    exact = fitted.predict(rows.T)
    np.testing.assert_allclose(kernel.sums(rows)[0], exact, rtol=0, atol=1e-12)
    assert kernel(rows).tobytes() == kernel.sums(rows)[0].astype("f4").tobytes()


def test_perceptrons_that_float32_is_too_short_for_are_summed_in_float64():
    steep = fit(mlp())
    steep.coefs_[0] = steep.coefs_[0] * 1e4
    steep.coefs_[-1] = steep.coefs_[-1] * 1e-2
    kernel = dense_kernel(steep, encoded=True)
    assert kernel.precision == "f8"
    assert np.abs(kernel.sums(CELLS_OF_A_MAP)[0] - steep.predict(CELLS_OF_A_MAP.T)).max() < 1e-9


# ---- what no kernel covers


class Own(SVR):
    def predict(self, X):
        return super().predict(X) + 1


def spoilt(regressor, **changes):
    for name, value in changes.items():
        setattr(regressor, name, value)
    return regressor


@pytest.mark.parametrize(
    "regressor",
    [
        fit(Own()),
        fit(LinearRegression()),
        fit(SVR(kernel=lambda a, b: a @ b.T)),
        fit(TransformedTargetRegressor(SVR(), func=np.log, inverse_func=np.exp)),
        fit(make_pipeline(StandardScaler(), MinMaxScaler(), SVR())),
        fit(make_pipeline(MinMaxScaler(clip=True), SVR())),
        fit(make_pipeline(QuantileTransformer(n_quantiles=9), mlp())),
        fit(make_pipeline("passthrough", SVR())),
        fit(make_pipeline(ColumnTransformer([("some", StandardScaler(), [2, 0])]), SVR())),
    ],
    ids=lambda r: str(r).split("(")[0],
)
def test_others_are_left_to_their_library(regressor):
    kernel = kernel_of(regressor, encoded=True)
    assert isinstance(kernel, Library)
    assert kernel(CELLS_OF_A_MAP).tobytes() == predict_rows(regressor, CELLS_OF_A_MAP.T).tobytes()


def test_sparse_or_spoilt_regressors_are_left_to_their_library():
    from scipy.sparse import csr_matrix

    nets = [fit(mlp()) for _ in range(3)]
    nets[0].coefs_[1][2, 3] = np.nan
    nets[1].intercepts_[0][0] = np.inf
    nets[2].out_activation_ = "logistic"
    svr = fit(SVR())
    spoilt(svr, support_vectors_=svr.support_vectors_ * [1, 1, 1, 1, 1, 1, np.nan])
    for regressor in (*nets, svr, SVR().fit(csr_matrix(X), Y), spoilt(fit(SVR()), _gamma=np.inf)):
        assert dense_kernel(regressor, encoded=True) is None


def test_perceptrons_of_several_targets_are_left_to_their_library():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        assert dense_kernel(mlp().fit(X, np.stack([Y, Y], axis=1))) is None


def test_sums_that_overflow_are_refused():
    far = np.full((K, 3), 1e200)
    far[:, 1] = 0.5
    with pytest.raises(ValueError, match=r"SVR.predict gave 2 values of 3 that are not finite, from finite predictors"):
        KERNELS["poly"](far)
    assert KERNELS["rbf"](far)[[0, 2]] == pytest.approx(FITTED["rbf"].intercept_.repeat(2), rel=1e-7)


def test_no_cells():
    for name, kernel in KERNELS.items():
        assert kernel(cells(name)[:, :0]).shape == (0,)


def test_kernels_leave_threads_as_they_were():
    from threadpoolctl import threadpool_info

    with threadpool_limits(3):
        before = [pool["num_threads"] for pool in threadpool_info()]
        pool = [threading.Thread(target=KERNELS[name], args=(cells(name),)) for name in ("rbf", "relu")]
        for thread in pool:
            thread.start()
        for thread in pool:
            thread.join()
        assert [pool["num_threads"] for pool in threadpool_info()] == before


@pytest.mark.parametrize("kind", [SVR, MLPRegressor])
def test_a_version_that_predicts_otherwise_is_left_to_itself(kind, monkeypatch):
    regressor = FITTED["rbf" if kind is SVR else "relu"]
    own = kind.predict
    monkeypatch.setattr(kind, "predict", lambda self, X: own(self, X) + 1e-5)
    assert isinstance(kernel_of(regressor, encoded=True), Library)


def test_regressors_with_names_have_kernels_too():
    frame = pd.DataFrame(UNSCALED, columns=list("abcdefg"))
    fitted = fit(make_pipeline(StandardScaler(), SVR(epsilon=0.01)), frame)
    kernel = kernel_of(fitted, tuple("abcdefg"))
    assert isinstance(kernel, SupportVectors)
    assert kernel(cells("standard")).tobytes() == WHOLE["standard"].tobytes()
