"""Evaluates a trained regressor on tiles of inputs, fast and exactly.

A kernel takes tiles band first, (inputs, cells): the order in which maps lie in memory. A cell's result never depends on
its neighbours, on how many there are, or on threads. What no kernel covers is predicted by its library.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from smgrid.densekernels import dense_kernel
from smgrid.regressors import on_one_thread, predict_rows


class Kernel(Protocol):
    """A regressor made ready to predict; it holds arrays only and may be called from many threads at once."""

    dtype: str  # what it takes: "f4" where the regressor compares float32 values anyway, else "f8"

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

    def __init__(self, regressor: Any, columns: Sequence[str] | None) -> None:
        self.regressor, self.columns = on_one_thread(regressor), columns

    def __call__(self, tile: NDArray[Any]) -> NDArray[np.float32]:
        """Predict cells; see `Kernel`."""
        return predict_rows(self.regressor, tile.T, self.columns)


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
    return dense_kernel(regressor, encoded=encoded) or Library(regressor, columns)
