"""Says by t-tests which differences between runs are larger than chance, and what is left of them by station.

The study's p-values are of t-tests over its 50 repeats. They answer whether *other training sets* would show the same
difference; the test rows are the same each time, so that enough repeats make any difference significant. Whether *other
stations* would show it, the interval beside them says.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from smgrid.outcomes import less
from smgrid.resampling import stream

if TYPE_CHECKING:
    import pandas as pd

MEASURES = ("rmse", "bias", "pearson_r")
OF = ("regressors", "sizes")


class _Pair(NamedTuple):
    """Two sets of repeats to compare, and what they are."""

    where: tuple[str, Any]  # ("size", 5.0) or ("regressor", "rf")
    names: tuple[Any, Any]
    runs: tuple[xr.Dataset, xr.Dataset]  # dims repeat, station, ...


def t_tests(
    results: xr.Dataset | Mapping[str, xr.Dataset],
    *,
    of: str = "regressors",
    measure: str = "rmse",
    draws: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Compare regressors at each size, sizes one by one, or scenarios, over the repeats.

    Parameters
    ----------
    results : Dataset, or mapping of str to Dataset
        Of `run`. Several are compared with each other, each regressor at the largest size.
    of : {"regressors", "sizes"}
        What pairs are made of: two regressors at one size, or one regressor at two sizes that follow each other.
    measure : {"rmse", "bias", "pearson_r"}
    draws, seed : int
        Of the interval.

    Returns
    -------
    DataFrame
        A row a pair. `size` or `regressor`: what the two share; `first`, `second`; `difference`, mean of the first less
        that of the second; `t`, `df`, `p` of Welch's test; `p_holm`, p corrected for the number of rows (Holm 1979);
        `p_paired`, of the test on differences repeat by repeat, NaN where repeats do not belong together; `lower`,
        `upper`: 95 % interval of the difference in RMSE from drawing stations, the same for both, and repeats
        (`difference`), NaN for other measures and where the samples are not the same.

    Raises
    ------
    ValueError
        Fewer than two repeats, or nothing to compare.

    References
    ----------
    Welch (1947), Biometrika 34, 28-35, doi:10.1093/biomet/34.1-2.28
    Holm (1979), Scand. J. Stat. 6, 65-70

    Examples
    --------
    >>> rmse = [[[0.090, 0.092, 0.091], [0.081, 0.080, 0.082]]]
    >>> results = xr.Dataset(
    ...     {"rmse": (("size", "regressor", "repeat"), rmse)}, {"size": [5], "regressor": ["svr", "rf"]}
    ... )
    >>> table = t_tests(results)
    >>> table[["size", "first", "second", "difference"]].round(3).values.tolist()
    [[5, 'svr', 'rf', 0.01]]
    >>> bool(table.p[0] < 0.01)
    True
    """
    import pandas as pd

    if measure not in MEASURES:
        raise ValueError(f"the measure is one of {MEASURES}, not {measure!r}")
    if of not in OF:
        raise ValueError(f"pairs are of {' or '.join(OF)}, not {of!r}")
    rows = []
    for at, pair in enumerate(_pairs(results, of)):
        a, b = (run[measure].values[np.isfinite(run[measure].values)] for run in pair.runs)
        if min(a.size, b.size) < 2:
            raise ValueError(
                f"{pair.names[0]} and {pair.names[1]} at {pair.where[0]} {pair.where[1]} have {a.size} and {b.size} "
                "repeats: a t-test needs two of each, give run(..., repeats=5) or more"
            )
        t, df, p = _welch(a, b)
        low, high = _by_station(pair, stream(seed, "t-test", at), draws) if measure == "rmse" else (np.nan, np.nan)
        row = {pair.where[0]: pair.where[1], "first": pair.names[0], "second": pair.names[1]}
        apart = {"difference": a.mean() - b.mean(), "t": t, "df": df, "p": p, "p_holm": np.nan}
        rows.append(row | apart | {"p_paired": _paired(pair, measure), "lower": low, "upper": high})
    if not rows:
        raise ValueError(f"there are no two {of if isinstance(results, xr.Dataset) else 'results'} to compare")
    table = pd.DataFrame(rows)
    table["p_holm"] = _holm(table["p"].to_numpy())
    table.attrs |= {"measure": measure, "units": "1" if measure == "pearson_r" else "m3 m-3"}
    table.attrs |= _said(results)
    return table


# ---- what is compared


def _said(results: Any) -> dict[Any, Any]:
    """What results say of themselves."""
    if isinstance(results, xr.Dataset):
        return {name: str(results.attrs[name]) for name in ("title", "size_counts") if name in results.attrs}
    invented = any("synthetic" in str(value).lower() for one in results.values() for value in one.attrs.values())
    return {"title": "Each at its largest training size" + " (synthetic)" * invented}


def _pairs(results: Any, of: str) -> Iterator[_Pair]:
    if not isinstance(results, xr.Dataset):
        yield from _of_results(results)
        return
    results = _without_baselines(results)
    sizes, names = results["size"].values.tolist(), results["regressor"].values.tolist()
    if of == "regressors":
        for at, size in enumerate(sizes):
            for k, first in enumerate(names):
                for second in names[k + 1 :]:
                    here = results.isel(size=at)
                    yield _Pair(
                        ("size", size), (first, second), (here.sel(regressor=first), here.sel(regressor=second))
                    )
    else:
        for name in names:
            here = results.sel(regressor=name)
            for at in range(len(sizes) - 1):
                runs = here.isel(size=at), here.isel(size=at + 1)
                yield _Pair(("regressor", name), (sizes[at], sizes[at + 1]), runs)


def _of_results(results: Mapping[str, xr.Dataset]) -> Iterator[_Pair]:
    each = {name: _without_baselines(one).isel(size=-1) for name, one in results.items()}
    names = list(each)
    for k, first in enumerate(names):
        for second in names[k + 1 :]:
            for regressor in each[first]["regressor"].values.tolist():
                if regressor in each[second]["regressor"].values:
                    runs = each[first].sel(regressor=regressor), each[second].sel(regressor=regressor)
                    yield _Pair(("regressor", regressor), (first, second), runs)


def _without_baselines(results: xr.Dataset) -> xr.Dataset:
    keep = results["baseline"].values == 0 if "baseline" in results.coords else slice(None)
    return results.isel(regressor=keep).sortby("size")


# ---- tests


def _welch(a: NDArray[np.float64], b: NDArray[np.float64]) -> tuple[float, float, float]:
    """Welch's t, its degrees of freedom and two-sided p; NaN where neither varies."""
    from scipy.stats import t as student

    va, vb = a.var(ddof=1) / a.size, b.var(ddof=1) / b.size
    if va + vb <= _still(a, b):
        return np.nan, np.nan, np.nan
    t = (a.mean() - b.mean()) / np.sqrt(va + vb)
    df = (va + vb) ** 2 / (va**2 / (a.size - 1) + vb**2 / (b.size - 1))
    return float(t), float(df), float(2 * student.sf(abs(t), df))


def _paired(pair: _Pair, measure: str) -> float:
    """Two-sided p of the paired t-test over the repeats that both have."""
    from scipy.stats import t as student

    a, b = (run[measure].values for run in pair.runs)
    if a.size != b.size or _splits(pair.runs[0]) != _splits(pair.runs[1]):
        return np.nan
    apart = (a - b)[np.isfinite(a - b)]
    if apart.size < 2 or apart.var(ddof=1) / apart.size <= _still(a, b):
        return np.nan
    return float(2 * student.sf(abs(apart.mean()) / np.sqrt(apart.var(ddof=1) / apart.size), apart.size - 1))


def _still(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """The largest variance that is no more than rounding."""
    return float((1e-12 * np.nanmax(np.abs([*a, *b]))) ** 2)


def _by_station(pair: _Pair, rng: np.random.Generator, draws: int) -> tuple[float, float]:
    same = all({"station_count", "station_bias", "station_mse"} <= {*run.variables} for run in pair.runs) and _digest(
        pair.runs[0]
    ) == _digest(pair.runs[1])
    if not same:
        return np.nan, np.nan
    low, high = less(*pair.runs, rng, draws)["rmse"][1]
    return float(low), float(high)


def _digest(run: xr.Dataset) -> Any:
    """Which table the run is of."""
    return run.attrs.get("samples_sha256")


def _splits(run: xr.Dataset) -> tuple[Any, ...]:
    """Which splits the run is of: repeats of the same ones belong together."""
    return tuple(run.attrs.get(name) for name in ("samples_sha256", "scenario", "options", "seed"))


def _holm(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """P-values corrected so that the chance of any false finding among them stays what it was for one."""
    out = np.full(p.size, np.nan)
    known = np.flatnonzero(np.isfinite(p))
    order = known[np.argsort(p[known], kind="stable")]
    out[order] = np.minimum(1, np.maximum.accumulate(p[order] * np.arange(order.size, 0, -1)))
    return out
