"""Lays the results of trials out as one Dataset, and says what they show."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from smgrid import __version__
from smgrid.resampling import FORMULAS, LEVEL, StationSums, bounds, draw_counts, stream
from smgrid.trials import SCORES, Plan, Table, Trial, unpack

LABELS = {
    "bias": ("mean error, prediction less reference", "m3 m-3"),
    "pearson_r": ("Pearson correlation", "1"),
    "rmse": ("root-mean-square error", "m3 m-3"),
    "level": ("part of the mean square error in station means", "m6 m-6"),
    "dynamics": ("part of the mean square error within stations", "m6 m-6"),
}
COUNTS = {
    "n_train": "rows that train",
    "n_test": "rows that test",
    "stations_train": "stations that train",
    "stations_test": "stations that test",
    "capped": "draws whose solver met its cap on steps, or diverged",
}
PARTS = {"rmse": ("mse", np.sqrt), "level": ("level", np.sqrt), "dynamics": ("dynamics", np.sqrt)}
"""What differences are of: a formula of sums by station, and what makes of it m3 m-3."""
HONEST = "test RMSE of the draw that inner folds choose less that of the best draw, m3 m-3"


# ---- results


def lay_out(found: Iterable[tuple[Trial, Mapping[str, Any]]], plan: Plan, table: Table, source: str = "") -> xr.Dataset:
    """Results of trials on common dims; of those that are not done, NaN, 0 or empty.

    Parameters
    ----------
    found : iterable of (Trial, result)
    plan : Plan
    table : Table
    source : str
        What the samples say of themselves: synthetic ones stay so called.
    """
    dims = ("size", "regressor", "repeat")
    names = [contender.name for contender in plan.contenders]
    shape = (len(plan.splits.sizes), len(names), plan.repeats)
    plain = {name: np.zeros(shape, "i8") for name in COUNTS} | {"optimism": np.full(shape, np.nan)}
    params = np.full(shape, "", object)
    scores = {name: np.full((*shape, 3), np.nan) for name in SCORES}
    of_draws = np.full((*shape, plan.draws), np.nan)
    kinds = {"count": "i4", "bias": "f4", "mse": "f4"}
    stations = {name: np.zeros((*shape, table.names.size), kind) for name, kind in kinds.items()}
    for trial, result in found:
        at = plan.splits.sizes.index(trial.size), names.index(trial.contender.name), trial.repeat
        params[at] = result.get("params", "")
        for name in plain.keys() & result.keys():
            plain[name][at] = result[name]
        for name, found_scores in result.get("scores", {}).items():
            scores[name][at] = found_scores
        some = result.get("rmse_of_draws", [])
        of_draws[at][: len(some)] = some
        for name, packed in (unpack(result["stations"]) if "stations" in result else {}).items():
            stations[name][at] = packed
    for name in ("bias", "mse"):
        stations[name][stations["count"] == 0] = np.nan
    data: dict[str, Any] = {}
    for name, triple in scores.items():
        said, units = LABELS[name]
        data[name] = dims, triple[..., 0], {"long_name": said, "units": units}
        spread = f"{LEVEL:.0%} interval of {name}, stations drawn with replacement"
        data[f"{name}_interval"] = (*dims, "bound"), triple[..., 1:], {"long_name": spread, "units": units}
    data |= {name: (dims, values, {"long_name": COUNTS.get(name, HONEST)}) for name, values in plain.items()}
    data["params"] = dims, params, {"long_name": "parameters of the draw that counts, as JSON"}
    data["rmse_of_draws"] = (*dims, "draw"), of_draws, {"long_name": "test RMSE of every draw", "units": "m3 m-3"}
    for name, each in stations.items():
        about = {"long_name": f"{name} of the errors at each station"}
        data[f"station_{name}"] = (*dims, "station"), each, about, {"zlib": True}
    coords = {
        "size": ("size", np.array(plan.splits.sizes), {"long_name": f"training size, {plan.splits.unit}"}),
        "regressor": np.array(names, object),
        "repeat": np.arange(plan.repeats),
        "bound": np.array(["lower", "upper"], object),
        "station": table.names.astype(object),
        "baseline": ("regressor", np.array([c.estimator is None for c in plan.contenders], "i1")),
    }
    return xr.Dataset(data, coords, _attributes(plan, table, source))


def _attributes(plan: Plan, table: Table, source: str) -> dict[str, Any]:
    synthetic = "synthetic" in source.lower()
    return {
        "title": f"{'Synthetic samples, the' if synthetic else 'The'} {plan.splits.scenario} scenario",
        "scenario": plan.splits.scenario,
        "options": json.dumps(plan.splits.options(), sort_keys=True),
        "size_counts": plan.splits.unit,
        "tuning": plan.tuning,
        "draws": plan.draws,
        "seed": plan.seed,
        "features": ", ".join(table.predictors),
        "rows": int(table.target.size),
        "rows_left_out": int(table.kept.size - table.kept.sum()),
        "samples_sha256": table.digest,
        "smgrid": __version__,
        **({"source": source} if source else {}),
    }


# ---- what the results show


def difference(
    results: xr.Dataset, regressor: str, other: str = "SMAP alone", *, draws: int = 1000, seed: int = 0
) -> xr.Dataset:
    """How much larger one regressor's errors are than another's, with the interval of the difference.

    Stations are drawn with replacement, the same ones for both and for all repeats, and then the repeats: what is left
    of a difference holds for other stations of this kind and for other training sets.

    Parameters
    ----------
    results : Dataset
        Of `run`.
    regressor, other : str
        Names along `regressor`, baselines included.
    draws, seed : int

    Returns
    -------
    Dataset, dim size
        Mean over the repeats of `rmse`, and of the roots of `level` and `dynamics`, in m3 m-3: regressor less other, so
        that negative is better; each with `X_interval` (bound). NaN where one of them has no results.
    """
    _check(results)
    for name in (regressor, other):
        if name not in results["regressor"].values:
            raise ValueError(f"the results have no {name!r}; they have {results['regressor'].values.tolist()}")
    sizes = range(results.sizes["size"])
    one, two = (results.sel(regressor=name) for name in (regressor, other))
    found = [less(one.isel(size=at), two.isel(size=at), stream(seed, "difference", at), draws) for at in sizes]
    data: dict[str, Any] = {}
    for name in PARTS:
        data[name] = "size", [one[name][0] for one in found], {"units": "m3 m-3"}
        data[f"{name}_interval"] = ("size", "bound"), [one[name][1] for one in found], {"units": "m3 m-3"}
    coords = {"size": results["size"], "bound": ["lower", "upper"]}
    return xr.Dataset(data, coords, {"difference": f"{regressor} less {other}", "interval": f"{LEVEL:.0%} percentile"})


def _check(results: xr.Dataset, *names: str) -> None:
    needed = ("regressor", "station_count", "station_bias", "station_mse", *names)
    lacking = [name for name in needed if name not in results]
    if lacking:
        raise ValueError(f"these are no results of scenarios.run: they lack {lacking}")


def less(
    one: xr.Dataset, other: xr.Dataset, rng: np.random.Generator, draws: int
) -> dict[str, tuple[float, NDArray[np.float64]]]:
    """How much larger the errors of one are than the other's: mean over the repeats, and its interval.

    Parameters
    ----------
    one, other : Dataset
        Results at one size of one regressor; both on the same stations.
    rng : Generator
    draws : int

    Returns
    -------
    dict
        Of `PARTS`: the difference, and lower and upper bound of its interval; NaN where one has no results.
    """
    counted = [each["station_count"].values for each in (one, other)]
    both = np.asarray(counted[0].any(-1) & counted[1].any(-1))  # repeats that both have
    tested = np.asarray((counted[0] | counted[1])[both].any(0))
    found = {name: (np.nan, np.full(2, np.nan)) for name in PARTS}
    if not both.any():
        return found
    counts = np.vstack([np.ones(tested.sum(), "i8"), draw_counts(int(tested.sum()), draws, rng)])
    repeats = [int(repeat) for repeat in np.flatnonzero(both)]
    sums = [[_kept(each, repeat, tested).drawn(counts) for repeat in repeats] for each in (one, other)]
    again = rng.integers(len(repeats), size=(draws, len(repeats)))
    for name, (formula, shown) in PARTS.items():
        values = [np.stack([shown(FORMULAS[formula](s)) for s in some], axis=1) for some in sums]
        apart = values[0] - values[1]  # (1 + draws, repeats)
        interval = found[name][1]
        if tested.sum() > 1:
            drawn = np.nanmean(np.take_along_axis(apart[1:], again, axis=1), axis=1)
            interval = bounds(drawn[np.isfinite(drawn)])
        found[name] = float(apart[0].mean()), interval
    return found


def _kept(one: xr.Dataset, repeat: int, tested: NDArray[np.bool_]) -> StationSums:
    n, bias, mse = (one[f"station_{name}"].values[repeat][tested] for name in ("count", "bias", "mse"))
    return StationSums.of_errors(n, bias, mse)


def verdict(results: xr.Dataset, *, size: float | None = None) -> str:
    """Say in plain sentences what results show and what they do not: is a model better than SMAP alone?

    Parameters
    ----------
    results : Dataset
        Of `run`.
    size : float, optional
        Of the training set; the largest by default.

    Returns
    -------
    str
        A line a regressor: RMSE beside that of SMAP alone (the training mean where there is no SMAP), the difference
        and its 95 % interval, in all, in level and in dynamics; the same against station climatology where stations
        are shared; what choosing on the test set did or would have added. A difference is shown where its interval
        excludes 0.
    """
    _check(results, "rmse", "level", "dynamics")
    size = float(results["size"].max()) if size is None else size
    if size not in results["size"].values:
        raise ValueError(f"the results have no size {size:g}; they have {results['size'].values.tolist()}")
    at = results.sel(size=size)
    rmse = at["rmse"].mean("repeat")
    against = next(name for name in ("SMAP alone", "training mean") if np.isfinite(rmse.sel(regressor=name)))
    lines = []
    for name in at["regressor"].values[at["baseline"].values == 0].tolist():
        if not np.isfinite(rmse.sel(regressor=name)):
            continue
        less = difference(results, name, against).sel(size=size)
        one = at.sel(regressor=name)
        share = float((one["level"] / (one["level"] + one["dynamics"])).mean())
        own, theirs = (float(rmse.sel(regressor=who)) for who in (name, against))
        line = (
            f"{results.attrs['scenario']}, {size:g} {results.attrs['size_counts']}, {name}: "
            f"RMSE {own:.3f} m3 m-3 against {theirs:.3f} of {against}: "
            f"{_judged(less, 'rmse', name, against)}. In level {_judged(less, 'level', name, against)}; in dynamics "
            f"{_judged(less, 'dynamics', name, against)}. {share:.0%} of the squared error of {name} is level."
        )
        known = "station climatology"
        if np.isfinite(rmse.sel(regressor=known)):
            beside = difference(results, name, known).sel(size=size)
            line += (
                f" Against {known} ({float(rmse.sel(regressor=known)):.3f}), {_judged(beside, 'rmse', name, known)}."
            )
        if np.isfinite(one["optimism"]).any():
            line += f" Tuning on the test set would have flattered its RMSE by {float(one['optimism'].mean()):.3f}."
        elif one["rmse_of_draws"].count("draw").max() > 1:
            line += f" The parameters of {name} were chosen on the test set, which flatters it."
        lines.append(line)
    return "\n".join(lines)


def _judged(less: xr.Dataset, part: str, name: str, against: str) -> str:
    value, (low, high) = float(less[part]), less[f"{part}_interval"].values
    spread = f"{value:+.3f}, {LEVEL:.0%} interval {low:+.3f} to {high:+.3f}"
    if low > 0:
        return f"{against} beats {name} ({spread})"
    if high < 0:
        return f"{name} beats {against} ({spread})"
    return f"no difference is shown ({spread})"
