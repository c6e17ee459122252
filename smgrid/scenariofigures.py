"""Draws the results of scenarios: violins beside the study's medians, learning curves, t-tests."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from smgrid.drawing import (
    BLUE,
    GREEN,
    HUES,
    INK,
    MARKERS,
    MEDIUM,
    ORANGE,
    PINK,
    RED,
    SKY,
    SMALL,
    is_synthetic,
    literal,
    words,
)
from smgrid.published import CITATION, TARGET, Stated, stated

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAMES = {"mlp": "MLP", "svr": "SVR", "rf": "RF", "xgb": "XGBoost"}
MEASURES = {"bias": ("bias", "m3 m-3"), "pearson_r": ("Pearson R", "1"), "rmse": ("RMSE", "m3 m-3")}
FEW = 10  # a violin of fewer repeats would draw what nobody saw: they are drawn as points
ALPHA = 0.01  # of the study's t-tests
FILLS = (SKY, ORANGE, PINK)  # of the results that stand side by side
LINES = {"training mean": (0, (1, 1)), "SMAP alone": (0, (5, 2)), "station climatology": (0, (3, 1, 1, 1))}
MARKS = {"=": "D", "about": "D", "<": "v", ">": "^"}
SAID = {"=": "median of", "about": "median of", "<": "at most, after", ">": "more than, after"}


def scenarios(results: xr.Dataset | Mapping[str, xr.Dataset], *, paper: bool = True) -> Figure:
    """Draw bias, R and RMSE of every training size as violins over the repeats: a column per regressor.

    The figure of Figs. 3 to 5 of the study, and of its Fig. 8 where several results stand side by side
    (`{"1 km": ..., "50 m": ...}`). Fewer than 10 repeats are drawn as points.

    Parameters
    ----------
    results : Dataset, or mapping of str to Dataset
        Of `scenarios.run`; several have the same scenario.
    paper : bool
        Draw the medians that the study states beside ours (`smgrid.published`); they are of its data, not of these.

    Returns
    -------
    matplotlib Figure
        Medians of baselines are lines, where they exist. R of a constant prediction does not exist: such repeats are left
        out of its row.

    Raises
    ------
    ValueError
        Nothing to draw, or different scenarios.

    References
    ----------
    Zhu et al. (2025), IEEE TGRS 63, doi:10.1109/TGRS.2025.3533927, figures 3, 4, 5 and 8.

    Examples
    --------
    >>> rmse = np.random.default_rng(0).normal(0.09, 0.005, (2, 1, 12))
    >>> variables = {name: (("size", "regressor", "repeat"), rmse) for name in ("bias", "pearson_r", "rmse")}
    >>> results = xr.Dataset(variables, {"size": [1, 57], "regressor": ["rf"]}, {"scenario": "spatial"})
    >>> scenarios(results)
    <Figure size ... with 3 Axes>
    """
    from matplotlib.figure import Figure

    runs = _runs(results)
    sizes = sorted({size for run in runs.values() for size in run["size"].values.tolist()})
    names = _names(runs.values())
    scenario = str(next(iter(runs.values())).attrs.get("scenario", ""))
    wide = max(1.7, 0.22 * len(sizes) * max(1, 0.7 * len(runs)) + 0.4)
    figure = Figure(figsize=(max(4.2, wide * len(names) + 0.9), 6.6), layout="constrained")
    axes = figure.subplots(3, len(names), squeeze=False, sharex=True, sharey="row")
    key: dict[str, Any] = {}
    for row, (measure, (quantity, units)) in enumerate(MEASURES.items()):
        for column, name in enumerate(names):
            ax = axes[row, column]
            _frame(ax)
            for k, (label, run) in enumerate(runs.items()):
                key |= _violins(ax, _by_size(run, measure, name, sizes), _places(k, len(runs)), FILLS[k], label)
            if measure != "bias":
                key |= _baselines(ax, next(iter(runs.values())), measure, sizes)
            if paper:
                key |= _published(ax, stated(scenario, measure, name), sizes)
        axes[row, 0].set_ylabel(words(quantity, units), fontsize=MEDIUM)
    key |= _rulers(axes)
    for ax, name in zip(axes[0], names):
        ax.set_title(NAMES.get(name, name), fontsize=MEDIUM, fontweight="bold")
    every = -(-len(sizes) // 12)
    axes[-1, 0].set_xticks(range(0, len(sizes), every), [f"{size:g}" for size in sizes[::every]])
    for ax in axes[-1]:
        ax.set_xlabel(_size_label(runs.values()), fontsize=SMALL + 1)
    figure.suptitle(fill(_title(runs), int(12 * figure.get_figwidth())), fontsize=MEDIUM + 1)
    _legend(figure, key)
    return literal(figure)


def learning(results: xr.Dataset, *, measure: str = "rmse") -> Figure:
    """Draw the median over the repeats against the training size, with its interval by station.

    Parameters
    ----------
    results : Dataset
        Of `scenarios.run`. Where it has intervals of the measure (95 %, stations drawn with replacement), bars show
        that of the median repeat's kind: the medians over the repeats of both bounds.
    measure : {"rmse", "bias", "pearson_r"}

    Returns
    -------
    matplotlib Figure
        Points of several regressors are set apart a little so that bars do not hide each other.
    """
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    quantity, units = _measure(measure)
    run = _runs(results)[""]
    names, sizes = _names([run]), run["size"].values.astype("f8")
    gap = 0.09 * (np.diff(sizes).min() if sizes.size > 1 else 1.0)
    figure = Figure(figsize=(7.0, 3.8), layout="constrained")
    ax = figure.subplots()
    _frame(ax)
    key: dict[str, Any] = {}
    for k, name in enumerate(names):
        one = run.sel(regressor=name)
        x = sizes + gap * (k - (len(names) - 1) / 2)
        style: dict[str, Any] = dict(color=HUES[k % 8], marker=MARKERS[k % 8], markersize=4, linewidth=1.2)
        middle = one[measure].median("repeat").values
        (key[NAMES.get(name, name)],) = ax.plot(x, middle, zorder=4, **style)
        if f"{measure}_interval" in one:
            bounds = one[f"{measure}_interval"].median("repeat").transpose("bound", "size").values
            ax.vlines(x, *bounds, color=style["color"], linewidth=0.9, zorder=3)
    key |= _baselines(ax, run, measure, sizes.tolist(), at=sizes)
    if f"{measure}_interval" in run:
        key["95 % interval, by station"] = Line2D([], [], color=INK, linewidth=0.9, marker="|", linestyle="")
    if measure == "bias":
        ax.axhline(0, color=INK, linewidth=0.6)
    ax.set_xticks(sizes, [f"{size:g}" for size in sizes])
    ax.set_ylabel(words(f"{quantity}, median of {run.sizes['repeat']} repeats", units), fontsize=MEDIUM)
    ax.set_xlabel(_size_label([run]), fontsize=MEDIUM)
    figure.suptitle(_title({"": run}), fontsize=MEDIUM)
    figure.legend(handles=key.values(), labels=key.keys(), loc="outside right center", frameon=False, fontsize=SMALL)
    return literal(figure)


def t_tests(table: pd.DataFrame) -> Figure:
    """Draw the differences of `scenarios.t_tests` with their intervals by station: a panel a pair or regressor.

    Parameters
    ----------
    table : DataFrame
        Filled marks: p of Welch's test below 0.01 after Holm's correction. Bars: 95 % interval from drawing stations.

    Returns
    -------
    matplotlib Figure
    """
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    if "difference" not in table or not len(table):
        raise ValueError(f"give the table of scenarios.t_tests, not one with the columns {[*table.columns]}")
    quantity, units = _measure(str(table.attrs.get("measure", "rmse")))
    panels, ticks, along = _panels(table)
    columns = 2 if len(panels) == 4 else min(3, len(panels))
    rows = -(-len(panels) // columns)
    wide = max(2.4, 0.3 * len(ticks) + 0.6)
    figure = Figure(figsize=(max(5.4, wide * columns + 0.8), 1.7 * rows + 1.1), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    for ax, (title, part) in zip(axes.ravel(), panels.items()):
        _frame(ax)
        ax.axhline(0, color=INK, linewidth=0.8)
        at = np.array([ticks.index(tick) for tick in part["tick"]])
        ax.vlines(at, part["lower"], part["upper"], color=BLUE, linewidth=1)
        sure = (part["p_holm"] < ALPHA).to_numpy()
        ax.plot(at[sure], part["difference"][sure], "o", color=BLUE, markersize=4.5)
        ax.plot(at[~sure], part["difference"][~sure], "o", color=BLUE, markersize=4.5, markerfacecolor="white")
        ax.set_title(title, fontsize=MEDIUM)
    for ax in axes.ravel()[len(panels) :]:
        ax.remove()
    crowded = max(map(len, ticks)) * len(ticks) > 14 * wide
    for k, ax in enumerate(axes.ravel()[: len(panels)]):
        ax.set_xticks(range(len(ticks)), ticks, rotation=45 if crowded else 0, ha="right" if crowded else "center")
        if k + columns >= len(panels):  # nothing below
            ax.tick_params(labelbottom=True)
            ax.set_xlabel(along, fontsize=SMALL + 1)
        ax.set_xlim(-0.5, len(ticks) - 0.5)
    figure.supylabel(words(f"difference in {quantity}", units), fontsize=MEDIUM)
    figure.suptitle(str(table.attrs.get("title", "")), fontsize=MEDIUM + 1)
    dot: dict[str, Any] = dict(marker="o", linestyle="", color=BLUE, markersize=4.5)
    handles = [
        Line2D([], [], **dot, label=f"p < {ALPHA} (Welch, over repeats, Holm)"),
        Line2D([], [], **dot, markerfacecolor="white", label=f"p ≥ {ALPHA}"),
    ]
    if table["lower"].notna().any():
        handles.append(Line2D([], [], color=BLUE, linewidth=1, label="95 % interval, by station"))
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False, fontsize=SMALL)
    return literal(figure)


# ---- what there is to draw


class _Values(NamedTuple):
    """Repeats of one regressor, size by size."""

    sizes: list[int]  # places along the axis
    repeats: list[NDArray[np.float64]]


def _runs(results: Any) -> dict[str, xr.Dataset]:
    if isinstance(results, str | os.PathLike):
        raise TypeError(f"results are a Dataset, not a path: xarray.load_dataset({os.fspath(results)!r})")
    runs = {"": results} if isinstance(results, xr.Dataset) else dict(results)
    if not 1 <= len(runs) <= len(FILLS):
        raise ValueError(f"give results, or one to {len(FILLS)} of them by name, not {len(runs)}")
    for name, run in runs.items():
        which = f" of {name!r}" if name else ""
        if (
            not isinstance(run, xr.Dataset)
            or "rmse" not in run
            or {*run["rmse"].dims} != {"size", "regressor", "repeat"}
        ):
            raise ValueError(
                f"the results{which} are no results of scenarios.run: rmse (size, regressor, repeat) is missing"
            )
        if not np.isfinite(run["rmse"]).any():
            raise ValueError(f"the results{which} have no finished trial")
    found = {name: run.attrs.get("scenario") for name, run in runs.items()}
    if len(set(found.values())) > 1:
        raise ValueError(f"results side by side are of one scenario, but these are {found}")
    return {str(name): run.sortby("size") for name, run in runs.items()}


def _measure(name: str) -> tuple[str, str]:
    if name not in MEASURES:
        raise ValueError(f"the measure is one of {[*MEASURES]}, not {name!r}")
    return MEASURES[name]


def _names(runs: Any) -> list[str]:
    """Regressors with results, baselines left out, in the order in which they come."""
    names: dict[str, None] = {}
    for run in runs:
        baseline = run["baseline"].values if "baseline" in run.coords else np.zeros(run.sizes["regressor"])
        finished = np.isfinite(run["rmse"]).any(["size", "repeat"]).values
        names |= dict.fromkeys(map(str, run["regressor"].values[(baseline == 0) & finished]))
    return list(names)


def _by_size(run: xr.Dataset, measure: str, name: str, sizes: list[float]) -> _Values:
    if name not in run["regressor"].values:
        return _Values([], [])
    one = run[measure].sel(regressor=name).transpose("size", "repeat")
    found = {sizes.index(size): row[np.isfinite(row)] for size, row in zip(one["size"].values.tolist(), one.values)}
    return _Values(*map(list, zip(*((at, row) for at, row in found.items() if row.size)))) or _Values([], [])


def _places(k: int, of: int) -> tuple[float, float]:
    """Shift and width of the k-th violin of a size."""
    width = 0.84 / of
    return (k - (of - 1) / 2) * width, width


def _size_label(runs: Any) -> str:
    said = {str(run["size"].attrs.get("long_name", "training size")) for run in runs}
    return said.pop() if len(said) == 1 else "training size"


def _title(runs: Mapping[str, xr.Dataset]) -> str:
    """What the results are of, how often they were repeated, and who chose the draw."""
    attrs = next(iter(runs.values())).attrs
    title = str(attrs.get("title", ""))
    stations = [name for run in runs.values() if "station" in run.coords for name in run["station"].values]
    invented = is_synthetic(*runs.values()) or any("synthetic" in str(name).lower() for name in stations)
    if invented and "synthetic" not in title.lower():
        title = f"{title or 'Results'} (synthetic)"
    repeats = max(run.sizes["repeat"] for run in runs.values())
    chosen = {"oracle": "on the test set", "honest": "on inner folds"}.get(str(attrs.get("tuning")))
    tried = max(
        (int(run["rmse_of_draws"].count("draw").max()) for run in runs.values() if "rmse_of_draws" in run), default=0
    )
    drawn = f", best of {tried} draws {chosen}" if chosen and tried > 1 else ""
    return f"{title}: {repeats} repeats{drawn}" if title else f"{repeats} repeats{drawn}"


def _panels(table: pd.DataFrame) -> tuple[dict[str, pd.DataFrame], list[str], str]:
    """Tests by panel, the labels along the axis, and what they are."""
    shown = {name: NAMES.get(name, name) for name in {*table["first"], *table["second"]}}
    pair = table["first"].map(shown).astype(str) + " − " + table["second"].map(shown).astype(str)
    counts = str(table.attrs.get("size_counts", ""))
    along = ", ".join(filter(None, ["training size", counts]))
    if "size" in table:
        table = table.assign(panel=pair, tick=[f"{size:g}" for size in table["size"]])
    elif isinstance(table["first"].iloc[0], str):
        table = table.assign(panel=pair, tick=table["regressor"].map(lambda name: NAMES.get(name, name)))
        along = "regressor"
    else:
        steps = [f"{a:g} − {b:g}" for a, b in zip(table["first"], table["second"])]
        table = table.assign(panel=table["regressor"].map(lambda name: NAMES.get(name, name)), tick=steps)
    panels = {str(name): part for name, part in table.groupby("panel", sort=False)}
    return panels, list(dict.fromkeys(table["tick"])), along


# ---- how it is drawn


def _frame(ax: Axes) -> None:
    ax.tick_params(labelsize=SMALL, length=2, width=0.5, color=INK, pad=2)
    ax.grid(axis="y", color="0.9", linewidth=0.6)
    ax.set_axisbelow(True)
    for side in ax.spines.values():
        side.set(linewidth=0.5, color=INK)


def _violins(ax: Axes, values: _Values, place: tuple[float, float], fill: str, label: str) -> dict[str, Any]:
    """Violins of many repeats, points of few; and their medians."""
    from matplotlib.patches import Patch

    shift, width = place
    key: dict[str, Any] = {label: Patch(facecolor=fill, edgecolor=INK, linewidth=0.5)} if label else {}
    many = [k for k, row in enumerate(values.repeats) if row.size >= FEW]
    if many:
        rows, at = [values.repeats[k] for k in many], [values.sizes[k] + shift for k in many]
        for body in ax.violinplot(rows, at, widths=0.95 * width, showextrema=False)["bodies"]:  # type: ignore[attr-defined]
            body.set(facecolor=fill, edgecolor=INK, linewidth=0.5, alpha=1)
    for k, row in enumerate(values.repeats):
        if row.size < FEW:
            dot: dict[str, Any] = dict(markersize=3.5, markeredgecolor=INK, markeredgewidth=0.4)
            (dots,) = ax.plot(np.full(row.size, values.sizes[k] + shift), row, "o", color=fill, zorder=3, **dot)
            key |= {label or "repeat": dots}
    medians = [float(np.median(row)) for row in values.repeats]
    line = ax.hlines(
        medians,
        [at + shift - 0.36 * width for at in values.sizes],
        [at + shift + 0.36 * width for at in values.sizes],
        color="black",
        linewidth=1.4,
        zorder=4,
    )
    return {**key, "median": line}


def _baselines(
    ax: Axes, run: xr.Dataset, measure: str, sizes: Sequence[float], at: NDArray[np.float64] | None = None
) -> dict[str, Any]:
    """Medians of what no model is needed for."""
    key: dict[str, Any] = {}
    for name in run["regressor"].values[run["baseline"].values == 1] if "baseline" in run.coords else []:
        middle = run[measure].sel(regressor=name).median("repeat").reindex(size=list(sizes)).values
        if np.isfinite(middle).any():
            where = np.arange(len(sizes)) if at is None else at
            style: dict[str, Any] = dict(color=INK, linewidth=0.9, linestyle=LINES.get(str(name), "-"))
            (key[str(name)],) = ax.plot(where, middle, zorder=2, **style)
    return key


def _published(ax: Axes, rows: Sequence[Stated], sizes: list[float]) -> dict[str, Any]:
    """What the study states of this panel, where its sizes are ours."""
    key: dict[str, Any] = {}
    for row in rows:
        label = f"{SAID[row.relation]} {CITATION}"
        if row.size is None:
            line = ax.axhline(row.value, color=RED, linewidth=1, linestyle=(0, (6, 3)), zorder=5)
            key[f"{label}, all sizes"] = line
        elif row.size in sizes:
            style: dict[str, Any] = dict(color=RED, markeredgecolor="black", markeredgewidth=0.5, linestyle="")
            at = sizes.index(row.size)
            (key[label],) = ax.plot([at], [row.value], marker=MARKS[row.relation], markersize=5, zorder=6, **style)
    return key


def _rulers(axes: Any) -> dict[str, Any]:
    """No bias, and the RMSE that the study aims at."""
    for ax in axes[0]:
        ax.axhline(0, color=INK, linewidth=0.6, zorder=1)
    for ax in axes[2]:
        line = ax.axhline(TARGET, color=GREEN, linewidth=1, zorder=1)
    return {f"target RMSE, {TARGET}": line}


def _legend(figure: Figure, key: Mapping[str, Any]) -> None:
    order = sorted(key, key=lambda name: CITATION in name)  # what is ours first
    columns = min(len(order), max(2, int(figure.get_figwidth() / 2.1)))
    handles = [key[name] for name in order]
    figure.legend(
        handles=handles, labels=order, loc="outside lower center", ncols=columns, frameon=False, fontsize=SMALL
    )
