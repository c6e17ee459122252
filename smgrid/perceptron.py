"""Trains scikit-learn's perceptrons to the same numbers, without the overhead that dwarfs small networks.

A perceptron of the paper's Table III spends most of its training beside its matrix products: each batch of 200 rows
passes some hundred checks, and Adam makes a dozen temporary arrays as large as all weights. Here the operations are
scikit-learn's, in its order and with its random numbers, on buffers that stay.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from smgrid.regressors import class_of

CHUNK = 8192  # weights whose gradient and moments stay in cache while Adam moves them
Floats = NDArray[np.float64]


class Trained(NamedTuple):
    """What prediction needs of a fitted `MLPRegressor`, under its names."""

    coefs_: list[Floats]
    intercepts_: list[Floats]
    n_iter_: int
    max_iter: int
    activation: str


def is_plain(model: Any) -> bool:
    """Whether `train` does what the model's own `fit` would."""
    return (
        class_of(model) == ("sklearn", "MLPRegressor")
        and model.activation in ("relu", "tanh")
        and model.solver == "adam"
        and isinstance(model.random_state, int)
        and (model.batch_size == "auto" or isinstance(model.batch_size, int))
        and getattr(model, "loss", "squared_error") == "squared_error"
        and not (model.early_stopping or model.warm_start or model.verbose)
    )


def train(model: Any, rows: Floats, target: Floats) -> Trained | None:
    """Fit as `MLPRegressor.fit`, to the last bits; None where the weights are not finite in the end.

    Parameters
    ----------
    model : MLPRegressor
        Unfitted, and plain by `is_plain`.
    rows : array (n, k)
    target : array (n,)

    References
    ----------
    Kingma & Ba (2015), Adam: a method for stochastic optimization, arXiv:1412.6980.
    """
    from sklearn.utils import shuffle

    rng = np.random.RandomState(model.random_state)
    hidden = np.atleast_1d(np.asarray(model.hidden_layer_sizes)).tolist()
    net = _Net(model, [rows.shape[1], *hidden, 1], rng)
    n, order = len(rows), np.arange(len(rows))
    step = int(np.clip(200 if model.batch_size == "auto" else model.batch_size, 1, n))
    best, stale, epochs = np.inf, 0, 0
    truth = target.reshape(-1, 1)
    for _ in range(model.max_iter):
        x, y = rows, truth
        if model.shuffle:
            order = shuffle(order, random_state=rng)
            x, y = rows[order], truth[order]
        loss = 0.0
        for start in range(0, n, step):
            part = slice(start, min(start + step, n))
            loss += net.learn(x[part], y[part]) * (part.stop - part.start)
        epochs += 1
        loss /= n
        stale = stale + 1 if loss > best - model.tol else 0
        best = min(best, loss) if loss == loss else best
        if stale > model.n_iter_no_change:
            break
    if not np.isfinite(net.values).all():
        return None
    return Trained(net.weights, net.offsets, epochs, model.max_iter, model.activation)


class _Net:
    """Weights, gradients and Adam's moments, each one vector of which layers are views: all weights, then all offsets."""

    def __init__(self, model: Any, widths: list[int], rng: np.random.RandomState) -> None:
        self.model, self.steps = model, 0
        shapes = list(pairwise(widths))
        self.size = sum(a * b for a, b in shapes)  # of the weights, without the offsets
        self.values, self.slope, self.first, self.second = np.zeros((4, self.size + sum(widths[1:])))
        self.weights, self.offsets = _views(self.values, shapes)
        self.weight_slopes, self.offset_slopes = _views(self.slope, shapes)
        for weight, offset in zip(self.weights, self.offsets):
            bound = np.sqrt(6.0 / sum(weight.shape))
            weight[:] = rng.uniform(-bound, bound, weight.shape)
            offset[:] = rng.uniform(-bound, bound, offset.shape)
        self.work = np.empty((2, CHUNK))

    def learn(self, x: Floats, y: Floats) -> float:
        """One batch: the loss before it, and a step of Adam."""
        relu, n = self.model.activation == "relu", len(x)
        layers = [x]
        for k, (weight, offset) in enumerate(zip(self.weights, self.offsets)):
            a = layers[-1] @ weight
            a += offset
            if k < len(self.weights) - 1:
                a = np.maximum(a, 0, out=a) if relu else np.tanh(a, out=a)
            layers.append(a)
        delta = layers[-1] - y
        norm = 0.0
        for weight in self.weights:
            flat = weight.ravel()
            norm += np.dot(flat, flat)
        loss = 0.5 * float(np.mean(delta * delta)) + 0.5 * self.model.alpha * norm / n
        for k in range(len(self.weights) - 1, -1, -1):
            np.matmul(layers[k].T, delta, out=self.weight_slopes[k])
            np.sum(delta, axis=0, out=self.offset_slopes[k])
            if k:
                delta = delta @ self.weights[k].T
                z = layers[k]
                if relu:
                    np.copyto(delta, 0.0, where=z == 0)
                else:
                    z *= z
                    delta *= np.subtract(1, z, out=z)
        self._step(n)
        return loss

    def _step(self, n: int) -> None:
        model = self.model
        self.steps += 1
        b1, b2 = model.beta_1, model.beta_2
        rate = model.learning_rate_init * np.sqrt(1 - b2**self.steps) / (1 - b1**self.steps)
        for start in range(0, len(self.values), CHUNK):
            part = slice(start, start + CHUNK)
            value, g, m, v = self.values[part], self.slope[part], self.first[part], self.second[part]
            a, b = self.work[:, : len(value)]
            decayed = max(0, min(len(value), self.size - start))  # offsets are not
            g[:decayed] += np.multiply(value[:decayed], model.alpha, out=a[:decayed])
            g /= n
            m *= b1
            m += np.multiply(g, 1 - b1, out=a)
            v *= b2
            np.multiply(g, g, out=a)
            a *= 1 - b2
            v += a
            np.sqrt(v, out=a)
            a += model.epsilon
            np.multiply(m, -rate, out=b)
            b /= a
            value += b


def _views(flat: Floats, shapes: list[tuple[int, int]]) -> tuple[list[Floats], list[Floats]]:
    """A vector as weights (in, out) of each layer, then offsets (out,) of each."""
    ends = np.cumsum([a * b for a, b in shapes] + [b for _, b in shapes])
    parts = np.split(flat, ends[:-1])
    weights = [part.reshape(shape) for part, shape in zip(parts, shapes)]
    return weights, parts[len(shapes) :]
