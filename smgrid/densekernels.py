"""Evaluates support vectors and perceptrons by matrix products on tiles of inputs.

A product has one shape, however many cells are asked for: the last tile is filled up, so a cell gets the same bits
whatever stands beside it. Tiles are small enough that two threads do not fight over the shared cache. A row of ones
beneath the inputs lets the product itself add what would be added after it: intercepts, norms.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smgrid.regressors import class_of, one_thread, predict_rows

CELLS = 256  # cells and support vectors of one product: half a megabyte, which stays in a core's own cache
VECTORS = 256
# Columns of a product of a perceptron: all that OpenBLAS takes at once in float32. On AVX2 it sums those on either side in
# another order: no cell stands there.
STRIP, GUARD = 320, 8
LANES = STRIP - 2 * GUARD  # cells of a strip
HELD = 2**19  # bytes of a layer in work: products of several strips a call, so that threads do not queue for Python
EXACT = 1e-10  # how far support vectors may be from the library's sum
SINGLE = 5e-7  # how far a perceptron may be in float32, on trial rows; half of what is promised
TRIAL = 64  # cells on which a kernel is held against its library before it is trusted

Steps = Sequence[tuple[Callable[..., Any], NDArray[np.float64]]]  # of a scaler: function, one number an input


def dense_kernel(regressor: Any, *, encoded: bool = False) -> SupportVectors | Perceptron | None:
    """The kernel of an SVR, NuSVR or MLPRegressor, alone or after a StandardScaler or MinMaxScaler.

    Parameters
    ----------
    regressor : fitted estimator
    encoded : bool
        Whether inputs are encoded, that is of size one: float32 is enough for a perceptron then.

    Returns
    -------
    SupportVectors, Perceptron or None
        None for everything else, and where matrix products would not come within 1e-10 of libsvm's sum: huge gammas.
    """
    steps, last, low, high = _unwrapped(regressor)
    made: SupportVectors | Perceptron | None = None
    if class_of(last) in (("sklearn", "SVR"), ("sklearn", "NuSVR")):
        made = _support_vectors(last, steps)
    elif class_of(last) == ("sklearn", "MLPRegressor"):
        made = _perceptron(last, steps, (low, high) if encoded or steps else None)
    if made is None:
        return None
    rows = np.random.default_rng(1).uniform(low, high, (last.n_features_in_, TRIAL))
    return made if _even(made) and _agrees(made, regressor, _unscaled(rows, steps)) else None


# ---- scalers


def _unwrapped(regressor: Any) -> tuple[Steps, Any, float, float]:
    """A scaler as steps, the regressor behind it, and between which values its inputs lie for the most part."""
    if class_of(regressor) != ("sklearn", "Pipeline") or len(regressor.steps) != 2:
        return (), regressor, 0, 1
    scaler, last = (part for _, part in regressor.steps)
    if class_of(scaler) == ("sklearn", "StandardScaler"):
        parts = ((np.subtract, scaler.mean_ if scaler.with_mean else None), (np.divide, scaler.scale_))
        return tuple((f, _column(a)) for f, a in parts if a is not None), last, -3, 3
    if class_of(scaler) == ("sklearn", "MinMaxScaler") and not scaler.clip:
        low, high = scaler.feature_range
        return ((np.multiply, _column(scaler.scale_)), (np.add, _column(scaler.min_))), last, low, high
    return (), regressor, 0, 1


def _column(values: Any) -> NDArray[np.float64]:
    return np.array(values, "f8")[:, None]


def _scaled(tile: NDArray[Any], steps: Steps) -> NDArray[Any]:
    """What the scaler makes of a tile: its own operations in its own order."""
    for function, values in steps:
        tile = function(tile, values)
    return tile


def _unscaled(tile: NDArray[Any], steps: Steps) -> NDArray[Any]:
    back: dict[Any, Callable[..., Any]] = {
        np.subtract: np.add,
        np.add: np.subtract,
        np.divide: np.multiply,
        np.multiply: np.divide,
    }
    for function, values in reversed(steps):
        tile = back[function](tile, values)
    return tile


class _Tiled(ABC):
    """What both kernels share: they sum tile by tile, on one thread, and refuse sums that are no numbers."""

    dtype = "f8"
    cells = 1 << 12

    def __call__(self, tile: NDArray[Any]) -> NDArray[np.float32]:
        """Predict cells.

        Parameters
        ----------
        tile : array (inputs, n), of `dtype`, finite

        Returns
        -------
        array (n,), float32

        Raises
        ------
        ValueError
            Sums that are not finite.
        """
        with np.errstate(over="ignore"):
            found = self.sums(tile)[0].astype("f4")
        wrong = int(np.count_nonzero(~np.isfinite(found)))
        if wrong:
            raise ValueError(
                f"{self.name} gave {wrong} values of {found.size} that are not finite, from finite predictors"
            )
        return found

    name = ""

    @abstractmethod
    def sums(self, tile: NDArray[Any]) -> NDArray[Any]:
        """Sums before they are rounded, (outputs, n); not finite where they overflow."""


# ---- support vectors


class SupportVectors(_Tiled):
    """One or several sums over the same support vectors, in float64.

    exp(-gamma |x - s|^2) is exp(2 gamma x.s - gamma |s|^2 - gamma |x|^2): a product whose last two columns carry the
    norms. Inputs are centred on the mean support vector first, so that little cancels.

    Parameters
    ----------
    fitted : SVR or NuSVR
        Kernel, gamma, coef0 and degree are taken of it.
    vectors : array (m, k)
    weights : array (outputs, m)
    intercepts : array (outputs,)
    steps : sequence of (function, array (k, 1)), optional
        What happens to inputs before.
    """

    def __init__(
        self,
        fitted: Any,
        vectors: NDArray[np.float64],
        weights: NDArray[np.float64],
        intercepts: NDArray[np.float64],
        steps: Steps = (),
    ) -> None:
        self.name, self.kernel, self.degree = f"{type(fitted).__name__}.predict", fitted.kernel, int(fitted.degree)
        self.intercepts, self.steps, self.gamma = _column(intercepts), tuple(steps), float(fitted._gamma)
        ones = np.ones((len(vectors), 1))
        if self.kernel == "rbf":
            centre = vectors.mean(axis=0) if len(vectors) else np.zeros(vectors.shape[1])
            vectors, self.steps = vectors - centre, (*self.steps, (np.subtract, _column(centre)))
            norms = (vectors * vectors).sum(axis=1, keepdims=True)
            factors = np.hstack([2 * self.gamma * vectors, -self.gamma * norms, ones])
        elif self.kernel == "linear":  # one plane an output: no sum over support vectors at all
            factors, weights = np.hstack([weights @ vectors, np.zeros((len(weights), 1))]), np.eye(len(weights))
        else:
            factors = np.hstack([self.gamma * vectors, fitted.coef0 * ones])
        starts = range(0, len(factors), VECTORS)
        self.blocks = [
            (factors[i : i + VECTORS].copy(), np.ascontiguousarray(weights[:, i : i + VECTORS])) for i in starts
        ]
        self.width = factors.shape[1]

    def sums(self, tile: NDArray[Any]) -> NDArray[np.float64]:
        """Sums before they are rounded, (outputs, n); not finite where they overflow."""
        k, n = tile.shape
        out = np.empty((len(self.intercepts), n))
        inputs = np.zeros((self.width, CELLS))
        inputs[k] = 1
        scratch = np.empty((VECTORS, CELLS))
        with one_thread(), np.errstate(over="ignore", invalid="ignore"):
            for start in range(0, n, CELLS):
                known = min(CELLS, n - start)
                inputs[:k, :known] = _scaled(tile[:, start : start + known], self.steps)
                if self.kernel == "rbf":
                    np.multiply((inputs[:k] * inputs[:k]).sum(axis=0), -self.gamma, out=inputs[k + 1])
                total = np.repeat(self.intercepts, CELLS, axis=1)
                for factors, weights in self.blocks:
                    values = self._kernel(np.dot(factors, inputs, out=scratch[: len(factors)]))
                    total += np.dot(weights, values)
                out[:, start : start + known] = total[:, :known]
        return out

    def _kernel(self, product: NDArray[np.float64]) -> NDArray[np.float64]:
        if self.kernel == "rbf":
            return np.exp(product, out=product)
        if self.kernel == "sigmoid":
            return np.tanh(product, out=product)
        if self.kernel == "poly":  # numpy's own power takes ten times as long
            return product * product * product if self.degree == 3 else product**self.degree
        return product


def _support_vectors(svr: Any, steps: Steps) -> SupportVectors | None:
    dense = not getattr(svr, "_sparse", False) and svr.kernel in ("linear", "poly", "rbf", "sigmoid")
    if not dense or not hasattr(svr, "_gamma"):
        return None
    vectors, weights = np.asarray(svr.support_vectors_, "f8"), np.asarray(svr.dual_coef_, "f8")
    intercept, numbers = np.asarray(svr.intercept_, "f8"), np.array([svr._gamma, svr.coef0], "f8")
    known = _finite([vectors, weights, intercept, numbers, *(values for _, values in steps)])
    if not known or _rounding(svr, vectors, weights) > EXACT:
        return None
    return SupportVectors(svr, vectors, weights, intercept, steps)


def _rounding(svr: Any, vectors: NDArray[np.float64], weights: NDArray[np.float64]) -> float:
    """About how far rounding moves the sum at rows no farther out than the support vectors.

    Rows farther out have larger exponents with `rbf`, which are less exact, but smaller kernels: t exp(-t) < 1.
    """
    if not len(vectors):
        return 0.0
    if svr.kernel == "rbf":
        vectors = vectors - vectors.mean(axis=0)
    radius = float((vectors * vectors).sum(axis=1).max())
    reach = abs(svr._gamma) * radius + abs(svr.coef0)
    with np.errstate(over="ignore"):
        grown = {
            "rbf": 1 + 8 * abs(svr._gamma) * radius,
            "sigmoid": 1 + reach,
            "poly": 1 + svr.degree * np.float64(reach) ** svr.degree,
            "linear": radius,
        }
    return float(np.finfo("f8").eps * grown[svr.kernel] * np.linalg.norm(weights))


# ---- perceptrons


class Perceptron(_Tiled):
    """A multilayer perceptron of one output, in float32 or float64.

    Parameters
    ----------
    mlp : fitted MLPRegressor
    precision : {"f4", "f8"}
        Of its arithmetic.
    steps : sequence of (function, array (k, 1)), optional
        What happens to inputs before, in float64.
    """

    cells = 1 << 12

    def __init__(self, mlp: Any, precision: str, steps: Steps = ()) -> None:
        self.name, self.activation, self.steps = f"{type(mlp).__name__}.predict", mlp.activation, tuple(steps)
        self.precision, self.dtype = precision, "f8" if steps else precision
        self.layers = [
            np.hstack([np.transpose(weights), np.reshape(offsets, (-1, 1))]).astype(precision, order="C")
            for weights, offsets in zip(mlp.coefs_, mlp.intercepts_)
        ]
        widest = max(layer.shape[1] for layer in self.layers)
        self.strips = max(1, HELD // (widest * STRIP * np.dtype(precision).itemsize))

    def sums(self, tile: NDArray[Any]) -> NDArray[Any]:
        """Sums before they are rounded, (1, n); not finite where they overflow."""
        k, n = tile.shape
        out = np.empty((1, n), self.precision)
        strips = max(1, min(self.strips, -(-n // LANES)))
        values = [np.zeros((strips, layer.shape[1], STRIP), self.precision) for layer in self.layers]
        for given in values:
            given[:, -1] = 1
        with one_thread(), np.errstate(over="ignore", invalid="ignore"):
            for start in range(0, n, strips * LANES):
                cells = _scaled(tile[:, start : start + strips * LANES], self.steps)
                known = cells.shape[1]
                some = -(-known // LANES)  # strips; the last call may have fewer, each of them whole
                cells = np.pad(cells, ((0, 0), (0, some * LANES - known))) if known < some * LANES else cells
                values[0][:some, :k, GUARD:-GUARD] = cells.reshape(k, some, LANES).swapaxes(0, 1)
                for layer, given, made in zip(self.layers, values, values[1:]):
                    self._activate(np.matmul(layer, given[:some], out=made[:some, :-1]))
                found = np.matmul(self.layers[-1], values[-1][:some])[:, 0, GUARD:-GUARD]
                out[0, start : start + known] = found.reshape(-1)[:known]
        return out

    def _activate(self, sums: NDArray[Any]) -> None:
        if self.activation == "relu":
            np.maximum(sums, 0, out=sums)
        elif self.activation == "tanh":
            np.tanh(sums, out=sums)
        elif self.activation == "logistic":  # 1 / (1 + exp(-x)), which cannot overflow this way
            sums *= 0.5
            np.tanh(sums, out=sums)
            sums += 1
            sums *= 0.5


def _perceptron(mlp: Any, steps: Steps, spread: tuple[float, float] | None) -> Perceptron | None:
    """In float32 where inputs are of size one, between the limits `spread`, and trial rows show that it is enough."""
    known = mlp.activation in ("identity", "logistic", "tanh", "relu") and mlp.out_activation_ == "identity"
    arrays = [*mlp.coefs_, *mlp.intercepts_, *(values for _, values in steps)]
    if not known or mlp.n_outputs_ != 1 or not _finite(arrays):
        return None
    double, single = (Perceptron(mlp, precision, steps) for precision in ("f8", "f4"))
    if spread is not None and _even(single):
        rows = np.random.default_rng(0).uniform(*spread, (mlp.n_features_in_, 2 * LANES))
        exact = Perceptron(mlp, "f8").sums(rows)
        if np.abs(Perceptron(mlp, "f4").sums(rows) - exact).max() <= SINGLE:  # False of NaN
            return single
    return double


# ---- what is checked before a kernel is trusted


def _even(kernel: SupportVectors | Perceptron) -> bool:
    """Whether products give a cell the same bits wherever it stands in the tile.

    Which orders of summing a BLAS mixes follows from shapes alone, so one column of random numbers, repeated, shows it.
    """
    if isinstance(kernel, SupportVectors):
        products, width, cells = [part for block in kernel.blocks for part in block], CELLS, slice(None)
    else:
        products, width, cells = kernel.layers, STRIP, slice(GUARD, -GUARD)
    rng = np.random.default_rng(0)
    with one_thread():
        for factors in {factors.shape: factors for factors in products}.values():
            column = rng.normal(size=(factors.shape[1], 1)).astype(factors.dtype)
            found = np.matmul(factors, np.repeat(column, width, axis=1)[None])[0, :, cells]
            if (found != found[:, :1]).any():
                return False
    return True


def _agrees(kernel: SupportVectors | Perceptron, regressor: Any, tile: NDArray[Any]) -> bool:
    """Whether a kernel gives the predictions of the version installed on a few cells: it might compute otherwise."""
    names = getattr(regressor, "feature_names_in_", None)
    try:
        expected = predict_rows(regressor, tile.T, None if names is None else list(names))
        found = kernel(np.ascontiguousarray(tile, kernel.dtype))
    except ValueError:  # not finite: what the library refuses, it shall refuse itself when maps are made
        return False
    off = EXACT if isinstance(kernel, SupportVectors) else 2 * SINGLE
    return bool(np.allclose(found, expected, rtol=2.0**-22, atol=off))


def _finite(arrays: Iterable[Any]) -> bool:
    return all(np.isfinite(values).all() for values in arrays)
