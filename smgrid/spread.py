"""Says how far the trees of a forest part.

References
----------
Breiman (2001), Random forests, Machine Learning 45, 5-32, doi:10.1023/A:1010933404324
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from smgrid.arrays import kind_of


def is_forest(estimator: Any) -> bool:
    """Whether an estimator is a random forest, or extra trees, of one target: a mean over trees grown apart."""
    return kind_of(estimator) == "rf"


def mean_and_spread(forest: Any, rows: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean of a forest's trees, which is its prediction, and their standard deviation, in one walk.

    Spread is sqrt(sum_b (t_b - mean)^2 / B) over the predictions t_b of all B trees (ddof = 0). It is no standard error
    and no interval: it says where trees that saw other draws of the samples disagree.

    Parameters
    ----------
    forest : fitted RandomForestRegressor or ExtraTreesRegressor
    rows : array (n, k)

    Returns
    -------
    mean, spread : array (n,), float32
        The mean is what `forest.predict` gives, bit for bit.

    Examples
    --------
    >>> from sklearn.ensemble import RandomForestRegressor
    >>> rows, target = np.arange(40.0)[:, None], np.arange(40.0)
    >>> forest = RandomForestRegressor(10, random_state=0).fit(rows, target)
    >>> trees = [tree.predict(rows) for tree in forest.estimators_]
    >>> bool(np.allclose(mean_and_spread(forest, rows)[1], np.std(trees, axis=0), atol=1e-5))
    True
    """
    rows = np.ascontiguousarray(rows, "f4")  # as trees compare
    total, mean, squares = (np.zeros(len(rows)) for _ in range(3))
    for count, tree in enumerate(forest.estimators_, start=1):
        value = tree.predict(rows, check_input=False)
        total += value  # in the forest's own order, so that the sum has its bits
        step = value - mean
        mean += step / count
        squares += step * (value - mean)
    trees = len(forest.estimators_)
    return (total / trees).astype("f4"), np.sqrt(squares / trees).astype("f4")
