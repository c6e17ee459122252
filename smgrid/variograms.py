"""Says how unlike cells become with distance, on the ground and by direction.

References
----------
Cressie & Hawkins (1980), Math. Geol. 12, 115-125, doi:10.1007/BF01035243
"""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from smgrid.pairs import MIN_N, Place, Sheet, Spec, Tile, divide, open_pair, scorecard

LAGS = 27  # cells: three SMAP cells
DIRECTIONS = ("x", "y")

_MATHERON = "Matheron (1963), doi:10.2113/gsecongeo.58.8.1246"
_CRESSIE = "Cressie & Hawkins (1980), doi:10.1007/BF01035243"
_BY = ("direction", "lag")
_FIT = "least squares, weighted by pairs / distance^2, spherical model"
SPEC: Spec = {
    "semivariance_prediction": (_BY, "semivariance of the prediction", "field2", "sum (z_i - z_j)^2 / 2 N", _MATHERON),
    "semivariance_reference": (_BY, "semivariance of the reference", "field2", "sum (z_i - z_j)^2 / 2 N", _MATHERON),
    "robust_prediction": (
        _BY,
        "robust semivariance of the prediction",
        "field2",
        "(sum |z_i - z_j|^(1/2) / N)^4 / 2 (0.457 + 0.494 / N + 0.045 / N^2)",
        _CRESSIE,
    ),
    "robust_reference": (
        _BY,
        "robust semivariance of the reference",
        "field2",
        "(sum |z_i - z_j|^(1/2) / N)^4 / 2 (0.457 + 0.494 / N + 0.045 / N^2)",
        _CRESSIE,
    ),
    "semivariance_ratio": (_BY, "semivariance, prediction over reference", "1", "gamma_p / gamma_o", _MATHERON),
    "distance": (_BY, "mean distance of the pairs on the ground", "m", "", ""),
    "pairs": (_BY, "number of pairs of common cells", "1", "N", ""),
    "nugget": (("field",), "nugget of the fitted variogram", "field2", _FIT, _MATHERON),
    "sill": (("field",), "sill of the fitted variogram, nugget included", "field2", _FIT, _MATHERON),
    "range": (("field",), "range of the fitted spherical variogram", "m", _FIT, _MATHERON),
}


def variogram(prediction: Any, reference: Any, *, lags: int = LAGS) -> xr.Dataset:
    """Semivariance of both maps along x and y, by distance on the ground.

    Parameters
    ----------
    prediction, reference : DataArray or maps, dims (..., y, x)
        Pairs count of which both cells are common cells.
    lags : int
        Longest lag in cells. Beyond half the map a variogram says little.

    Returns
    -------
    Dataset
        By `direction` ("x": east-west, "y": north-south) and `lag` in cells: `semivariance_prediction` and `_reference`
        (the phase-resolved value at lag 1 is what `seams.detect` tests), `robust_...` after Cressie & Hawkins,
        `semivariance_ratio` (below 1: the prediction is too smooth at that distance), `distance` in ground metres,
        `pairs`. By `field`: `nugget`, `sill` and `range` of a spherical model fitted to both directions. A range at the
        longest distance or beyond means that no sill was reached.

    References
    ----------
    Matheron (1963), Econ. Geol. 58, 1246-1266, doi:10.2113/gsecongeo.58.8.1246
    Cressie & Hawkins (1980), Math. Geol. 12, 115-125, doi:10.1007/BF01035243

    Examples
    --------
    >>> from smgrid import YANCO
    >>> reference = xr.DataArray(np.random.default_rng(0).random(YANCO.shape), YANCO.coords(), ("y", "x"))
    >>> found = variogram(0.5 * reference, reference, lags=2)
    >>> found.semivariance_ratio.round(6).values.tolist(), found.distance.round().values.tolist()
    ([[0.25, 0.25], [0.25, 0.25]], [[946.0, 1893.0], [1059.0, 2117.0]])
    """
    if lags < 1:
        raise ValueError(f"a variogram needs at least one lag, not {lags}")
    pair = open_pair(prediction, reference)
    return scorecard(pair, lambda sheet: judge(sheet, lags), SPEC, coords(lags))


def coords(lags: int) -> dict[str, Any]:
    """Coordinates of a variogram."""
    return {
        "direction": list(DIRECTIONS),
        "lag": ("lag", np.arange(1, lags + 1), {"long_name": "lag in cells", "units": "1"}),
        "field": ["prediction", "reference"],
    }


def judge(sheet: Sheet, lags: int) -> dict[str, NDArray[np.float64]]:
    """The entries of a scorecard."""
    table = sheet.tally(lambda tile: pair_sums(tile, sheet.place, lags), halo=lags)
    return variogram_of(table["whole_pairs"])


def variogram_of(sums: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """Semivariances and the models fitted to them, from sums over pairs."""
    square_p, square_o, root_p, root_o, distance, n = np.moveaxis(sums, -1, 0)
    gamma = [divide(s, 2 * n) for s in (square_p, square_o)]
    correction = 0.457 + divide(0.494, n) + divide(0.045, n**2)
    robust = [divide(r, n) ** 4 / 2 / correction for r in (root_p, root_o)]
    distance = divide(distance, n)
    fits = np.array([fit(g, distance, n) for g in gamma])
    return {
        "semivariance_prediction": gamma[0],
        "semivariance_reference": gamma[1],
        "robust_prediction": robust[0],
        "robust_reference": robust[1],
        "semivariance_ratio": divide(*gamma),
        "distance": distance,
        "pairs": n,
        "nugget": fits[:, 0],
        "sill": fits[:, 1],
        "range": fits[:, 2],
    }


def pair_sums(tile: Tile, place: Place, lags: int) -> dict[str, NDArray[np.float64]]:
    """Sums over the pairs whose second cell lies in the core: (direction, lag, 6); the margin needed is the lags."""
    out = np.zeros((2, lags, 6))
    across, along = place.ground(tile.rows)
    down = np.concatenate([[0], np.cumsum((along[1:] + along[:-1]) / 2)])  # ground distance from the first row
    h = tile.halo
    inner = [slice(h, n - h) for n in tile.values.shape[-2:]]
    second = tile.values[:2, inner[0], inner[1]]
    for lag in range(1, lags + 1):
        for k in (0, 1):
            cut = list(inner)
            axis = 1 - k  # x runs along the last axis
            cut[axis] = slice(inner[axis].start - lag, inner[axis].stop - lag)
            step = np.abs(second - tile.values[:2, cut[0], cut[1]])
            known = np.isfinite(step[0])
            step[:, ~known] = 0
            by_row = known.sum(axis=1)
            apart = lag * across[inner[0]] if k == 0 else down[inner[0]] - down[cut[0]]
            squares, roots = np.einsum("fij,fij->f", step, step), np.sqrt(step).sum((1, 2))
            out[k, lag - 1] = *squares, *roots, by_row @ apart, by_row.sum()
    return {"whole_pairs": out}


def fit(
    gamma: NDArray[np.float64], distance: NDArray[np.float64], n: NDArray[np.float64]
) -> tuple[float, float, float]:
    """Nugget, sill and range of a spherical model; NaN where nothing varies or too few lags are known.

    For a given range the model is linear in nugget and partial sill, so only the range is searched, and the fit cannot
    fail to converge.
    """
    from scipy.optimize import nnls

    known = np.isfinite(gamma) & (n >= MIN_N)
    if known.sum() < 4 or not (gamma[known] > 0).any():
        return np.nan, np.nan, np.nan
    g, d, weight = gamma[known], distance[known], np.sqrt(n[known]) / distance[known]
    best = (np.inf, np.nan, np.nan, np.nan)
    for reach in np.geomspace(0.3 * d.min(), 3 * d.max(), 120):
        h = np.minimum(d / reach, 1)
        shape = np.stack([np.ones_like(h), 1.5 * h - 0.5 * h**3], axis=1)
        (nugget, part), miss = nnls(shape * weight[:, None], g * weight)
        if miss < best[0]:
            best = (miss, nugget, nugget + part, reach)
    return best[1], best[2], best[3]
