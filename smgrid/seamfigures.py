"""Draws what `seams` finds: the profile of steps by distance from the coarse edge, and the borders that stand out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from smgrid.drawing import HUES, INK, MARKERS, MEDIUM, SMALL, is_synthetic, literal, plain, words
from smgrid.grid import Grid

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SEAM = "#c2185b"
LEVEL = 0.05  # of false discoveries among the segments drawn
TOLD = 8  # days that get a colour each


def seams(results: Any) -> Figure:
    """Draw how large steps are by their distance from the edges of coarse cells: an imprint is a peak at 0.

    Parameters
    ----------
    results : Dataset, or mapping of name to Dataset
        As `seams.detect` gives them.

    Returns
    -------
    matplotlib Figure
        A row per map, a column per direction, a line per day. Up to 8 days get a colour each, more are drawn in grey.

    Examples
    --------
    >>> from smgrid import phases, synthetic
    >>> seams({"SMAP as blocks": phases.detect(synthetic.yanco().cube.smap)})
    <Figure size ... with 2 Axes>
    """
    from matplotlib.figure import Figure

    named: dict[Any, Any] = (
        {"": results} if isinstance(results, xr.Dataset) else dict(results) if isinstance(results, Mapping) else {}
    )
    if not named or any("profile" not in getattr(result, "data_vars", ()) for result in named.values()):
        raise ValueError('give a result of smgrid.seams.detect, or a mapping {"RF": result} of them')
    figure = Figure(figsize=(6.6, 1.65 * len(named) + 0.9), layout="constrained")
    axes = figure.subplots(len(named), 2, squeeze=False, sharex=True, sharey="row")
    for row, (name, result) in zip(axes, named.items()):
        _profiles(row, result)
        top = float(np.nanmax(result["profile"].values, initial=0))
        row[0].set_ylim(0, 1.08 * top if 0 < top < math.inf else 1)
        row[0].set_title(plain(str(name)), fontsize=MEDIUM, fontweight="bold", loc="left")
        row[0].set_ylabel(words("mean step", result["profile"].attrs.get("units")), fontsize=SMALL)
    ways = {"x": "west to east", "y": "north to south"}
    for ax, direction in zip(axes[-1], ("x", "y")):
        ax.set_xlabel(f"cells from the coarse edge, {ways[direction]}", fontsize=MEDIUM)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    if labels:
        figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize=SMALL)
    if is_synthetic(*named.values()):
        figure.suptitle("Steps by distance from the coarse edge (synthetic)", fontsize=MEDIUM + 1)
    return literal(figure)


def _profiles(row: Any, result: xr.Dataset) -> None:
    steps = result["profile"].transpose(..., "direction", "phase")
    f = steps.sizes["phase"]
    away = (steps["phase"].values + f // 2) % f - f // 2
    order = np.argsort(away)
    values = steps.values.reshape(-1, 2, f)
    told = "time" in result.dims and len(values) <= TOLD
    labels = [str(day)[:10] for day in result["time"].values] if told else [None] * len(values)
    for k, ax in enumerate(row):
        ax.axvspan(-0.5, 0.5, color=SEAM, alpha=0.12, linewidth=0)
        for j, (lines, label) in enumerate(zip(values, labels)):
            style: dict[str, Any] = {"color": "0.4", "linewidth": 0.8}
            if label is not None or len(values) == 1:
                style = {"color": HUES[j % 8], "marker": MARKERS[j % 8], "markersize": 3.5, "linewidth": 1.1}
            ax.plot(away[order], lines[k][order], label=label, **style)
        ax.set_xticks(away[order])
        ax.tick_params(labelsize=SMALL, length=2, width=0.5, color=INK)
        ax.spines[["top", "right"]].set_visible(False)


def segments(found: xr.Dataset, grid: Grid) -> list[tuple[int, int, int, int]]:
    """Ends of the segments with q < 0.05, in cells from the map's upper left corner: (x0, y0, x1, y1).

    Parameters
    ----------
    found : Dataset
        What `seams.edges` gives for one day.
    grid : Grid
        Window that is drawn; what lies beyond is cut off.
    """
    sure = np.flatnonzero(found["q_value"].values < LEVEL)
    out = []
    for k in sure:
        upright = str(found["direction"].values[k]) == "x"
        row, col = int(found["row"].values[k]) - grid.row, int(found["col"].values[k]) - grid.col
        length = int(found["length"].values[k])
        x1, y1 = (col, row + length) if upright else (col + length, row)
        ends = (max(col, 0), max(row, 0), min(x1, grid.nx), min(y1, grid.ny))
        if ends[0] <= ends[2] and ends[1] <= ends[3] and ends[:2] != ends[2:]:
            out.append(ends)
    return out


def draw_segments(ax: Axes, found: xr.Dataset, grid: Grid) -> bool:
    """Put the segments with q < 0.05 on a map in metres; whether there was any."""
    from matplotlib.collections import LineCollection

    west, _, _, north = grid.bounds
    lines = [
        [(west + grid.cell * x0, north - grid.cell * y0), (west + grid.cell * x1, north - grid.cell * y1)]
        for x0, y0, x1, y1 in segments(found, grid)
    ]
    width = float(np.clip(90 / max(grid.shape), 0.15, 1.1))  # points; on a wide map borders lie close
    ax.add_collection(LineCollection(lines, colors=SEAM, linewidths=width), autolim=False)
    return bool(lines)


def said(value: float, digits: int) -> str:
    """A number above a panel."""
    return "n/a" if math.isnan(value) else "∞" if math.isinf(value) else f"{value:.{digits}f}"
