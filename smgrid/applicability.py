"""Says how far from the training rows a cell is, and whether the model applies there.

The dissimilarity index of Meyer & Pebesma: the distance of a cell to the nearest training row, in units of the mean
distance between training rows. Distances are taken between model inputs, each brought to the standard deviation 1 and
then weighted by how much the model relies on it. A cell lies inside the area of applicability while its index is not
larger than that of training rows whose own fold (their stations) is taken away, outliers aside.

References
----------
Meyer & Pebesma (2021), Methods Ecol. Evol. 12, 1620-1633, doi:10.1111/2041-210X.13650
Breiman (2001), Machine Learning 45, 5-32, doi:10.1023/A:1010933404324 (importance by shuffling)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smgrid.regressors import on_one_thread, predict_rows
from smgrid.resampling import stream

SHUFFLED = 2048  # rows that importance is taken from, at most
PAIRED = 8192  # rows that the mean distance is taken from, at most; its square of distances is computed


@dataclass(frozen=True, eq=False)
class Reach:
    """Training rows, and how far from them is too far.

    Parameters
    ----------
    inputs : array (n, k), float32
        Model inputs of the training rows.
    center, factor : array (k,), float64
        An input enters distances as (value - center) * factor; factor = importance / standard deviation.
    scale : float
        Mean distance between training rows.
    threshold : float
        Largest dissimilarity inside the area of applicability.
    """

    inputs: NDArray[np.float32]
    center: NDArray[np.float64]
    factor: NDArray[np.float64]
    scale: float
    threshold: float

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k != "_tree"}

    @cached_property
    def _tree(self) -> Any:
        return _tree_of(self._points(self.inputs))

    def _points(self, rows: NDArray[Any]) -> NDArray[np.float64]:
        used = np.flatnonzero(self.factor)
        points = rows[:, used].astype("f8")
        points -= self.center[used]
        points *= self.factor[used]
        return points

    def dissimilarity(self, rows: NDArray[Any]) -> NDArray[np.float32]:
        """Dissimilarity index of model inputs (n, k); each row for itself, whatever stands beside it."""
        distance, _ = self._tree.query(self._points(rows), workers=1)
        return (distance / self.scale).astype("f4")


def reach(
    inputs: NDArray[np.float32], importance: NDArray[np.float64], folds: Sequence[tuple[NDArray[np.int64], Any]]
) -> Reach:
    """Find what of the predictors' space training rows reach.

    Parameters
    ----------
    inputs : array (n, k), float32
        Model inputs of the training rows.
    importance : array (k,)
        Weight of each input, none negative; where all are 0 every input weighs the same.
    folds : sequence of (train, test)
        A row's dissimilarity within the training rows leaves its own fold out; folds hold whole stations.

    Raises
    ------
    ValueError
        No input varies.

    Notes
    -----
    The threshold is the upper whisker of these dissimilarities: the largest within 1.5 interquartile ranges above the
    upper quartile (Tukey's hinges). The mean distance is taken over all pairs, of 8192 rows drawn at random where there
    are more; it is but the unit of dissimilarity and threshold alike.
    """
    center, sd = inputs.mean(axis=0, dtype="f8"), inputs.std(axis=0, dtype="f8")
    moving = sd > 1e-6 * np.abs(center)  # float32 knows no smaller steps
    if not moving.any():
        raise ValueError("no predictor varies among the training rows")
    weight = np.where(moving, importance, 0.0)
    weight = moving.astype("f8") if not weight.any() else weight / weight.max()
    factor = np.divide(weight, sd, out=np.zeros_like(weight), where=moving)
    raw = Reach(inputs, center, factor, 1.0, np.inf)
    points = raw._points(inputs)
    scale = mean_distance(points)
    inner = np.empty(len(points))
    for train, test in folds:
        inner[test], _ = _tree_of(points[train]).query(points[test], workers=1)
    return Reach(inputs, center, factor, scale, whisker(inner / scale))


def _tree_of(points: NDArray[np.float64]) -> Any:
    from scipy.spatial import cKDTree

    # medians of rows that repeat take long to find, and gain little
    return cKDTree(points, leafsize=64, balanced_tree=False)


def mean_distance(points: NDArray[np.float64]) -> float:
    """Mean Euclidean distance between two different rows (n, k)."""
    from scipy.spatial.distance import cdist

    if len(points) > PAIRED:
        points = points[np.sort(stream("pairs").choice(len(points), PAIRED, replace=False))]
    n = len(points)
    total = sum(float(cdist(points[at : at + 256], points).sum()) for at in range(0, n, 256))
    return total / (n * (n - 1))


def whisker(values: NDArray[np.float64]) -> float:
    """Upper whisker of a box plot: the largest value within 1.5 times the box above it.

    Examples
    --------
    >>> whisker(np.array([1.0, 2.0, 3.0, 4.0, 50.0]))
    4.0
    """
    ordered = np.sort(values)
    depth = (ordered.size + 3) // 2 / 2  # of the hinges: medians of the halves, each with the median of all
    low, high = (
        (ordered[int(np.floor(at)) - 1] + ordered[int(np.ceil(at)) - 1]) / 2 for at in (depth, ordered.size + 1 - depth)
    )
    return float(ordered[ordered <= high + 1.5 * (high - low)][-1])


def importance(
    fitted: Any, rows: NDArray[np.float64], target: NDArray[np.float64], widths: Sequence[int]
) -> NDArray[np.float64]:
    """How much the mean square error grows when one predictor is shuffled among the training rows.

    Parameters
    ----------
    fitted : regressor
    rows : array (n, k)
        Model inputs; of 2048 rows drawn at random where there are more.
    target : array (n,)
    widths : sequence of int
        How many inputs each predictor makes: sine and cosine are shuffled together.

    Returns
    -------
    array (k,), float64
        A weight an input, not negative.
    """
    some = np.arange(len(rows))
    if len(rows) > SHUFFLED:
        some = np.sort(stream("importance").choice(len(rows), SHUFFLED, replace=False))
    engine, rows, target = on_one_thread(fitted), rows[some], target[some]

    def error(inputs: NDArray[np.float64]) -> float:
        return float(((predict_rows(engine, inputs) - target) ** 2).mean())

    base, grown, at = error(rows), [], 0
    for number, width in enumerate(widths):
        mixed = rows.copy()
        mixed[:, at : at + width] = rows[stream("shuffle", number).permutation(len(rows)), at : at + width]
        grown += [max(error(mixed) - base, 0.0)] * width
        at += width
    return np.array(grown)
