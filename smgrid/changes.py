"""Says whether a map changes from date to date as its reference does."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from smgrid.pairs import MIN_N, Pair, Sheet, Spec, Tile, basics, divide, open_pair
from smgrid.sums import Table, intervals, moment_sums, moments, total

STILL = (
    1e-6  # spread of a change, relative to the values, below which it is float32's rounding and correlates with nothing
)

_D = ("change",)
CHANGE: Spec = {
    "n": (_D, "number of cells common to both dates", "1", "", ""),
    "mean_prediction": (_D, "mean change of the prediction", "field", "mean(p2 - p1)", ""),
    "mean_reference": (_D, "mean change of the reference", "field", "mean(o2 - o1)", ""),
    "pearson_r": (_D, "correlation of the changes", "1", "r(p2 - p1, o2 - o1)", ""),
    "slope": (_D, "slope of the prediction's change on the reference's", "1", "cov(dp, do) / var(do)", ""),
    "variance_ratio": (_D, "standard deviation of the change, prediction over reference", "1", "sd(dp) / sd(do)", ""),
    "persistence_prediction": (_D, "correlation of the prediction's two dates", "1", "r(p1, p2)", ""),
    "persistence_reference": (_D, "correlation of the reference's two dates", "1", "r(o1, o2)", ""),
    "persistence_excess": (_D, "persistence, prediction less reference", "1", "r(p1, p2) - r(o1, o2)", ""),
    "static_share_prediction": (_D, "share of variance in the mean of both dates", "1", "var((p1 + p2) / 2) / var", ""),
    "static_share_reference": (_D, "share of variance in the mean of both dates", "1", "var((o1 + o2) / 2) / var", ""),
}


def change(prediction: Any, reference: Any) -> xr.Dataset:
    """Say whether a map changes from date to date as the reference does, or keeps its pattern: frozen.

    Parameters
    ----------
    prediction, reference : DataArray or maps, dims (..., time, ..., y, x)
        At least two dates; each is compared with the one before it, on the cells that both fields have on both.

    Returns
    -------
    Dataset, dims (..., change), coordinates `start`, `end`
        `pearson_r`, `slope`, `variance_ratio` of the changes; their means; `persistence_prediction` and `_reference`, the
        correlation of a field's two dates, and `persistence_excess`, how much more alike the prediction's are: well
        above 0, its pattern is frozen; `static_share_...`, the share of the variance over cells and dates that the mean
        of both dates has; `n`. With 95 % intervals by drawn 9-km blocks.

    Raises
    ------
    ValueError
        There is no `time`, or one date only.

    Examples
    --------
    >>> from smgrid import synthetic
    >>> scene = synthetic.yanco(seed=0)
    >>> frozen = scene.truth.copy(data=np.broadcast_to(scene.truth[2:3], scene.truth.shape))
    >>> found = change(frozen, scene.truth)
    >>> found.persistence_prediction.round(6).values.tolist(), bool((found.persistence_excess > 0).all())
    ([1.0, 1.0, 1.0], True)
    """
    return change_of(open_pair(prediction, reference))


def change_of(pair: Pair) -> xr.Dataset:
    """The changes of a pair that is open."""
    lead = pair.lead
    if "time" not in lead or pair.fields[0].sizes["time"] < 2:
        raise ValueError(f"a change needs two dates along 'time'; the fields have {dict(pair.fields[0].sizes)}")
    axis = lead.index("time")
    turned = Pair(tuple(a.transpose(..., "time", "y", "x") for a in pair.fields[:2]), (), pair.place, pair.units)
    rest = tuple(n for k, n in enumerate(pair.lead_shape) if k != axis)
    times = range(pair.lead_shape[axis])
    variables: dict[str, list[Any]] = {}
    for at in np.ndindex(rest):
        for before, after in pairwise(times):
            layers = [a.data[(*at, t)] for t in (after, before) for a in turned.fields]
            for name, value in _step(Sheet(tuple(layers), (), pair.place).held()).items():
                variables.setdefault(name, []).append(value)
    steps = len(times) - 1
    shape = (*rest, steps)
    out = xr.Dataset(coords={k: c for k, c in pair.coords().items() if "time" not in c.dims})
    dims = (*(dim for dim in lead if dim != "time"), "change")
    for name, values in variables.items():
        key = name.removesuffix("_interval")
        _, long_name, units, formula, _ = CHANGE[key]
        attrs = {"long_name": long_name + (", 95 % interval" if key != name else ""), "formula": formula}
        attrs["units"] = pair.units or "" if units == "field" else str(units)
        array = np.reshape(values, (*shape, *np.shape(values[0])))
        own = (*dims, "bound") if key != name else dims
        out[name] = (own, array, {k: v for k, v in attrs.items() if v})
    days = pair.fields[0]["time"].values if "time" in pair.fields[0].coords else np.arange(len(times))
    return out.assign_coords(start=("change", days[:-1]), end=("change", days[1:]), bound=["lower", "upper"])


def _step(sheet: Sheet) -> dict[str, Any]:
    """Of one step: fields are prediction and reference after, then before."""
    found = basics(sheet)
    p2, o2, p1, o1 = found.mean
    looks = {"d": (p2 - p1, o2 - o1), "p": (p1, p2), "o": (o1, o2)}

    def look(tile: Tile) -> dict[str, NDArray[np.float64]]:
        after_p, after_o, before_p, before_o = tile.fields
        fields = {"d": (after_p - before_p, after_o - before_o), "p": (before_p, after_p), "o": (before_o, after_o)}
        out = {"n": tile.by_unit(tile.known)}
        for kind, (a, b) in fields.items():
            out |= {f"{kind}_{key}": part for key, part in moment_sums(tile, a, b, *looks[kind]).items()}
        return out

    def measure(s: Table) -> dict[str, NDArray[np.float64]]:
        part = {
            kind: moments({key[2:]: a for key, a in s.items() if key.startswith(f"{kind}_")}, *looks[kind])
            for kind in looks
        }
        d, p, o = (part[kind] for kind in "dpo")
        still = d["sd_a"] <= STILL * (np.abs(found.mean[0]) + found.sd[0])
        d["pearson_r"] = np.where(still, np.nan, d["pearson_r"])
        out = {"mean_prediction": d["mean_a"], "mean_reference": d["mean_b"]}
        out |= {name: d[name] for name in ("pearson_r", "slope", "variance_ratio")}
        out |= {"persistence_prediction": p["pearson_r"], "persistence_reference": o["pearson_r"]}
        out["persistence_excess"] = p["pearson_r"] - o["pearson_r"]
        out |= {"static_share_prediction": _static_share(p), "static_share_reference": _static_share(o)}
        return out

    table = sheet.tally(look)
    out: dict[str, Any] = {"n": found.n, **measure(total(table))}
    if found.n < MIN_N:
        out = {name: np.nan if name != "n" else value for name, value in out.items()}
    return out | {f"{name}_interval": value for name, value in intervals(table, measure, 0).items()}


def _static_share(m: Mapping[str, Any]) -> NDArray[np.float64]:
    """Variance of the mean of two dates over the variance of all cells of both about their common mean."""
    var_a, var_b = m["sd_a"] ** 2, m["sd_b"] ** 2
    cov = m["pearson_r"] * m["sd_a"] * m["sd_b"]
    return divide((var_a + var_b + 2 * cov) / 4, (var_a + var_b) / 2 + (m["mean_a"] - m["mean_b"]) ** 2 / 4)
