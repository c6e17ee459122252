"""Says how wide an interval must be to hold at stations that nobody trained on.

A model errs at a place it does not know by an amount that all rows of that place share. So errors are taken at stations
that were left out of training, whole, and a new station counts as one more draw of a station, not as more rows: the
interval is calibrated by stations. Calibrated by rows it is far too narrow (docs/layers.md).

References
----------
Lee, Barber & Willett (2023), Distribution-free inference with hierarchical data, arXiv:2306.06342 (rows within groups)
Vovk (2015), Cross-conformal predictors, Ann. Math. Artif. Intell. 74, 9-28, doi:10.1007/s10472-013-9368-4
"""

from __future__ import annotations

import numbers
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smgrid.regressors import on_one_thread, predict_rows

LEVEL = 0.9
"""Nominal coverage where none is asked for."""

LOWEST, HIGHEST = 0.0, 1.0  # m3 m-3: a share of a volume
Fit = Callable[[NDArray[np.float64], NDArray[np.float64]], Any]


def errors_out_of_fold(
    fit: Fit,
    rows: NDArray[np.float64],
    target: NDArray[np.float64],
    folds: Sequence[tuple[NDArray[np.int64], NDArray[np.int64]]],
) -> NDArray[np.float32]:
    """Predicted less observed of every row, by a regressor that was fitted without the row's fold.

    Parameters
    ----------
    fit : function of (rows, target)
        Gives a fitted regressor.
    rows : array (n, k)
    target : array (n,)
    folds : sequence of (train, test)
        As `resampling.station_folds` gives them; every row is tested once.
    """
    error = np.empty(len(target), "f4")
    for train, test in folds:
        with warnings.catch_warnings():  # the fit on all rows has said what there is to say
            warnings.simplefilter("ignore")
            fitted = on_one_thread(fit(rows[train], target[train]))
        error[test] = predict_rows(fitted, rows[test]) - target[test]
    return error


def half_width(error: NDArray[Any], station: NDArray[np.integer[Any]], level: float = LEVEL) -> float:
    """Half the width of an interval that holds a share `level` of the values at a new station.

    Each of K stations weighs 1 / (K + 1), shared evenly among its rows; the last 1 / (K + 1) is the new station, whose
    error may be anything. The half width is the least absolute error that stations of weight `level` stay below. Where
    a station has one row it is the ceil((K + 1) level)-th smallest error, as in split-conformal prediction.

    Parameters
    ----------
    error : array (n,)
        At stations that the model did not see.
    station : array (n,) of int
        Number of the station each row belongs to, from 0, none left out.
    level : float
        Nominal coverage, between 0 and 1.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        No level, or more than so few stations can vouch for: K stations reach K / (K + 1).

    References
    ----------
    Lee, Barber & Willett (2023), arXiv:2306.06342, hierarchical conformal prediction.

    Examples
    --------
    >>> half_width(np.arange(1, 20) / 100, np.arange(19), 0.9)
    0.18
    """
    if not isinstance(level, numbers.Real) or not 0 < level < 1:
        raise ValueError(f"level is a share between 0 and 1, such as 0.9, not {level!r}")
    size = np.bincount(station)
    stations = size.size
    enough = 1e-9  # what sums of weights may lack by rounding
    if stations / (stations + 1) < level - enough:
        raise ValueError(
            f"an interval of {level:.4g} needs samples of at least {int(np.ceil(level / (1 - level) - enough))} "
            f"stations; the model was trained on {stations}, enough for level={_floor(stations / (stations + 1))}"
        )
    score = np.abs(np.asarray(error, "f8"))
    order = np.argsort(score, kind="stable")
    weight = np.cumsum(1 / ((stations + 1) * size[station[order]].astype("f8")))
    at = int(np.searchsorted(weight, level - enough))
    return float(score[order[min(at, score.size - 1)]])


def _floor(level: float) -> float:
    return float(np.floor(level * 1000) / 1000)


def bounds(prediction: NDArray[Any], half: float) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Lower and upper bound, cut to what a share of a volume can be: no true value is lost by that.

    Examples
    --------
    >>> [bound.tolist() for bound in bounds(np.array([0.125, 0.5]), 0.25)]
    [[0.0, 0.25], [0.375, 0.75]]
    """
    middle = np.asarray(prediction, "f8")
    lower, upper = (np.clip(middle + side, LOWEST, HIGHEST).astype("f4") for side in (-half, half))
    return lower, upper
