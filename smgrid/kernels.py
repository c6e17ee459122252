"""Evaluates a trained regressor on tiles of inputs, fast and exactly.

A kernel takes tiles band first, (inputs, cells): the order in which maps lie in memory. A cell's result never depends on
its neighbours, on how many there are, or on threads. What no kernel covers is predicted by its library.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from smgrid.densekernels import dense_kernel
from smgrid.regressors import on_one_thread, one_thread, predict_rows
from smgrid.spread import mean_and_spread
from smgrid.treekernels import tree_kernel

log = logging.getLogger("smgrid")


class Kernel(Protocol):
    """A regressor made ready to predict; it holds arrays only and may be called from many threads at once."""

    dtype: str  # what it takes: "f4" where the regressor compares float32 values anyway, else "f8"
    cells: int  # how many cells a call should have at least: below, what a call costs by itself shows

    def __call__(self, tile: NDArray[Any]) -> NDArray[np.float32]:
        """Predict cells.

        Parameters
        ----------
        tile : array (inputs, n), C-contiguous, of `dtype`
            Finite, or NaN where the regressor routes missing values.

        Returns
        -------
        array (n,), float32
        """


class Library:
    """The regressor's own `predict`, for all that no kernel covers."""

    dtype = "f8"
    cells = 1 << 14

    def __init__(self, regressor: Any, columns: Sequence[str] | None) -> None:
        self.regressor, self.columns = on_one_thread(regressor), columns

    def __call__(self, tile: NDArray[Any]) -> NDArray[np.float32]:
        """Predict cells; see `Kernel`."""
        return predict_rows(self.regressor, tile.T, self.columns)

    def spread(self, tile: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Mean and standard deviation over the trees of a forest; see `smgrid.spread`."""
        return mean_and_spread(self.regressor, tile.T)


def kernel_of(regressor: Any, columns: Sequence[str] | None = None, *, encoded: bool = False) -> Kernel:
    """The fastest kernel that gives the regressor's own predictions.

    Parameters
    ----------
    regressor : fitted estimator
    columns : sequence of str, optional
        The names it was fitted with, where its library wants names.
    encoded : bool
        Whether inputs are encoded, that is of size one: float32 is enough for a perceptron then.
    """
    with one_thread():  # a booster's own copy or save starts threads as well
        if (dense := dense_kernel(regressor, encoded=encoded)) is not None:
            return dense
        library, trees = Library(regressor, columns), tree_kernel(regressor)
        return trees if trees is not None and _agree(trees, library, trees.trial) else library


def _agree(kernel: Kernel, library: Library, trial: NDArray[Any]) -> bool:
    """Whether a kernel gives its library's bits on a few cells: the version installed may compute otherwise."""
    try:
        expected = library(trial.astype("f8"))
    except Exception:  # what the library refuses, it shall refuse itself when maps are made
        return False
    same = np.array_equal(kernel(trial).view("i4"), expected.view("i4"))
    if not same:
        name = type(library.regressor).__name__
        log.warning("the kernel of %s does not give this version's own bits: the library predicts", name)
    return same
