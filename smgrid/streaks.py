"""Finds straight lines right across a map: what a tree leaves that was fed coordinates.

A tree that splits at a longitude lifts all of a map east of it, so every step across that line has a common part. Land
has no reason to jump along a meridian. The mean step across a line over its standard error is set against that of all
other lines of the map, whose spread says what the land alone does.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from smgrid.grid import latitude_of_y, longitude_of_x
from smgrid.segments import LEVEL, false_discovery_rate
from smgrid.steps import DIRECTIONS, open_field, step_sums

LEAST = 20  # steps that a line needs to be judged
_BESIDE = np.array([1, 1, 1, 1, 0, 1, 1, 1, 1], bool)


def straight_lines(field: xr.DataArray | xr.Dataset) -> Any:
    """List the straight lines, right across a map, that tree models leave when latitude or longitude is a predictor.

    Parameters
    ----------
    field : DataArray or maps, dims (..., y, x)
        On the EASE-Grid 2.0; missing is NaN. Leading dims such as `time` are judged one by one.

    Returns
    -------
    DataFrame, a row a line with a false discovery rate below 0.05, the surest first, empty where there is none:
    the leading dims, `direction` ("x": a line down the map, west of column `index`; "y": a line across it, north of row
    `index`), `index` in the global grid, `degrees` (its longitude or latitude), `jump` (mean step across it, units of
    the field), `z_score` (robust, against all other lines), `p_value`, `q_value`, `n` (steps) and `phase_9km` (0 where a
    9-km cell begins too, else NaN or 1 to 8).

    Raises
    ------
    ValueError
        The field is off the EASE-Grid 2.0.

    Notes
    -----
    z = a / (90 % quantile of |a| / 1.645) over the lines of a direction, a = t - median t of the 8 lines beside,
    t = mean d / (sd d / sqrt(n)), d the steps across a line.
    On maps as wide as a continent a line may be clear in a part only: judge parts. Lines 9 km apart are held
    against each other too, for steps between coarse cells differ more than others.

    References
    ----------
    Meyer et al. (2019), Ecol. Modell. 411, 108815, doi:10.1016/j.ecolmodel.2019.108815 (such lines)
    Iglewicz & Hoaglin (1993), How to Detect and Handle Outliers (robust z)

    Examples
    --------
    >>> from smgrid import YANCO
    >>> field = xr.DataArray(np.random.default_rng(0).normal(0.2, 0.02, YANCO.shape), YANCO.coords(), ("y", "x"))
    >>> field[:, 40:] += 0.02  # synthetic
    >>> straight_lines(field)[["direction", "index"]].values.tolist()
    [['x', 31441]]
    """
    import pandas as pd

    values, grid = open_field(field)
    tables = []
    for direction, sums in zip(DIRECTIONS, step_sums(values.data)):
        first = grid.col if direction == "x" else grid.row
        for at in np.ndindex(*sums.shape[:-2]):
            table = _judge(sums[at], first, 9 / grid.km)
            table.insert(0, "direction", direction)
            for k, dim in enumerate(values.dims[:-2]):
                table.insert(k, str(dim), values[dim].values[at[k]] if dim in values.coords else at[k])
            tables.append(table)
    found = pd.concat(tables, ignore_index=True)
    lead = [str(dim) for dim in values.dims[:-2]]
    found["q_value"] = np.nan
    for rows in [found.index] if not lead else found.groupby(lead if len(lead) > 1 else lead[0]).groups.values():
        found.loc[rows, "q_value"] = false_discovery_rate(found.loc[rows, "p_value"].to_numpy())
    found = found[found["q_value"] < LEVEL].sort_values([*lead, "p_value", "index"], ignore_index=True)
    west, _, _, north = grid.bounds
    upright, index = (found["direction"] == "x").to_numpy(bool), found["index"].to_numpy(float)
    degrees = np.empty(len(found))
    degrees[upright] = longitude_of_x(west + (index[upright] - grid.col) * grid.cell)
    degrees[~upright] = latitude_of_y(north - (index[~upright] - grid.row) * grid.cell)
    found.insert(len(lead) + 2, "degrees", degrees)
    nine = 9 / grid.km
    found["phase_9km"] = found["index"] % nine if nine >= 2 and nine % 1 == 0 else np.nan
    return found


def _judge(sums: NDArray[np.float64], first: int, f: float) -> Any:
    """Every line of one direction that has steps enough."""
    import pandas as pd
    from scipy import stats
    from scipy.ndimage import median_filter

    _, square, n, total = sums
    at = np.flatnonzero(n >= LEAST)
    n, mean = n[at], total[at] / n[at]
    with np.errstate(divide="ignore", invalid="ignore"):
        t = mean / np.sqrt(np.maximum(square[at] / n - mean**2, 0) / n)
    known = np.isfinite(t)
    index, n, mean, t = at[known] + first, n[known], mean[known], t[known]
    away = t - (median_filter(t, footprint=_BESIDE, mode="mirror") if t.size else 0)  # land slopes on, trees do not
    # of normal numbers a tenth lie farther out than 1.645; the median would miss the tails that land has
    spread = np.full(t.shape, np.quantile(np.abs(away), 0.9) / 1.645 if t.size > 9 else np.nan)
    # it is estimated, from lines of which some three are as one, and more where the land is smooth
    alike = np.clip((away[1:] * away[:-1]).sum() / max((away**2).sum(), 1e-300), 0, 0.99)
    freedom = np.full(t.shape, max(t.size / 3 * (1 - alike) / (1 + alike), 2))
    phase = index % f if f >= 2 and f % 1 == 0 else np.arange(index.size)
    for same in (np.flatnonzero(phase == p) for p in np.unique(phase)):
        # steps between coarse cells come by the nine, so lines along them differ more: each phase has a spread of its own
        if same.size > 2:
            others = np.sqrt(((away[same] ** 2).sum() - away[same] ** 2) / (same.size - 1))
            freedom[same] = np.where(others > spread[same], np.minimum(freedom[same], same.size - 1), freedom[same])
            spread[same] = np.maximum(spread[same], others)
    z = np.divide(away, spread, out=np.full(t.shape, np.nan), where=spread > 0)
    p = 2 * stats.t.sf(np.abs(z), freedom)
    if t.size:  # a slope, however steep, goes on in the next line
        beside = np.pad(t, 1, mode="edge")
        p[np.abs(t - (beside[:-2] + beside[2:]) / 2) < np.abs(away) / 2] = 1
    return pd.DataFrame({"index": index, "jump": mean, "z_score": z, "p_value": p, "n": n.astype("i8")})
