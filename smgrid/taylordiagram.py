"""Draws the Taylor diagram: spread, correlation and centred error of a map as one point.

The law of cosines makes it possible: with s = sd(p) / sd(o), (ubRMSE / sd(o))^2 = 1 + s^2 - 2 s R. A point at the
distance s from the origin and at the angle arccos R thus lies ubRMSE / sd(o) away from the reference, the point (1, 0).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from smgrid.drawing import INK, MEDIUM, SMALL, literal, plain, words
from smgrid.patternfigures import days_of, line_style, named_cards, on_day, say_synthetic, units_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

RAYS = (0, 0.2, 0.4, 0.6, 0.8, 0.9, 0.95, 0.99)
LEAST = 1.25  # a map of less spread than the reference still has room for the arcs about it
ARC = "0.55"


def taylor(cards: Any) -> Figure:
    """Draw Taylor's diagram: how a map's spread, correlation and centred error hang together.

    Parameters
    ----------
    cards : Dataset, or mapping of name to Dataset
        As `patterns.compare` gives them.

    Returns
    -------
    matplotlib Figure
        A panel per day, a point per map. Distance from the origin: standard deviation over the reference's. Angle:
        correlation. Distance from the reference, the star at (1, 0): RMSE without the bias, over the reference's
        standard deviation, which stands above the panel in its unit. Bias is not in it. A constant map lies at the
        origin; a day without common cells, or with a constant reference, is empty and says so.

    References
    ----------
    Taylor (2001), J. Geophys. Res. 106, 7183-7192, doi:10.1029/2000JD900719

    Examples
    --------
    >>> from smgrid import patterns, synthetic
    >>> scene = synthetic.yanco()
    >>> taylor({"truth": patterns.compare(scene.truth, scene.airborne)})
    <Figure size ... with 4 Axes>
    """
    from matplotlib.figure import Figure

    named = named_cards(cards, "sd_prediction")
    days, units = days_of(named), units_of(named, "sd_reference")
    points = {
        (name, day): _point(one) for name, card in named.items() for day in days for one in on_day(card, day)
    }  # (sd over the reference's, R, sd of the reference)
    known = np.array([p for p in points.values() if np.isfinite(p).all()] or [(1.0, 1.0, 1.0)])
    most, half = max(LEAST, 1.08 * float(known[:, 0].max())), bool((known[:, 1] < 0).any())
    columns = min(len(days), 2 if half else 4)
    rows = math.ceil(len(days) / columns)
    width = (4.8 if half else 2.5) * columns + (0.3 if columns > 1 else 1.8)
    figure = Figure(figsize=(width, 3.3 * rows + 0.4), layout="compressed")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for ax in axes[len(days) :]:
        ax.remove()
    for ax, day in zip(axes, days):
        _scaffold(ax, most, half)
        spread = [points[name, day][2] for name in named if (name, day) in points]
        spread = [s for s in spread if np.isfinite(s) and s > 0]
        if not spread:
            ax.text(0.5, 0.4, "no spread to compare with", transform=ax.transAxes, ha="center", fontsize=SMALL)
        for k, name in enumerate(named):
            s, r, _ = points.get((name, day), (np.nan,) * 3)
            style = line_style(k) | {
                "linestyle": "",
                "markersize": 7,
                "markeredgecolor": "white",
                "zorder": 4 + k / 100,
            }
            ax.plot([s * r], [s * math.sqrt(max(0, 1 - r * r))], label=plain(name), clip_on=False, **style)
        said = f"sd of the reference {words(f'{spread[0]:.3g}', units).replace(',', '')}" if spread else ""
        ax.set_title("\n".join(filter(None, [day, said])), fontsize=MEDIUM - 1)
    handles, labels = axes[0].get_legend_handles_labels()
    many = max(1, int(width / 1.6))
    figure.legend(handles, labels, loc="outside lower center", ncols=many, frameon=False, fontsize=SMALL)
    say_synthetic(figure, named, "Spread, correlation and centred error")
    return literal(figure)


def _point(one: Any) -> tuple[float, float, float]:
    """Spread over the reference's, correlation, spread of the reference."""
    p, o, r = (float(one[name]) for name in ("sd_prediction", "sd_reference", "pearson_r"))
    if not (np.isfinite([p, o]).all() and o > 0):
        return np.nan, np.nan, np.nan
    return (0.0, 0.0, o) if p == 0 else (p / o, r, o)


def _scaffold(ax: Axes, most: float, half: bool) -> None:
    """What the points are read by, and axes that hold no more than that."""
    turn = np.linspace(0, np.pi if half else np.pi / 2, 181)
    ax.plot(most * np.cos(turn), most * np.sin(turn), color=INK, linewidth=0.8)
    ax.plot([-most if half else 0, most], [0, 0], color=INK, linewidth=0.8)
    if not half:
        ax.plot([0, 0], [0, most], color=INK, linewidth=0.8)
    step = next(s * 10.0**k for k in range(-1, 300) for s in (1, 2, 5) if s * 10.0**k >= max(0.5, most / 5))
    _rays(ax, most, half)
    _arcs(ax, most, half, step)
    at_rim = 0.87 * most
    ax.text(at_rim, at_rim, "correlation", rotation=-45, ha="center", va="center", fontsize=SMALL, color=INK)
    ax.set_xlim(-1.14 * most if half else -0.02 * most, 1.14 * most)
    ax.set_ylim(-0.02 * most, 1.14 * most)
    ax.set_aspect("equal")
    ax.spines[["top", "right", "left", "bottom"]].set_visible(False)
    ax.set_yticks([])
    ticks = np.arange(0, most, step)
    ticks = np.r_[-ticks[:0:-1], ticks] if half else ticks
    ax.set_xticks(ticks, [f"{abs(t):g}" for t in ticks])
    ax.tick_params(labelsize=SMALL, length=2, width=0.5, color=INK)
    ax.set_xlabel("sd over that of the reference", fontsize=MEDIUM - 1)


def _rays(ax: Axes, most: float, half: bool) -> None:
    """Lines of one correlation."""
    for r in (*(-r for r in RAYS[:0:-1] if half), *RAYS):
        x, y = r, math.sqrt(1 - r * r)
        ax.plot([0, most * x], [0, most * y], color="0.85", linewidth=0.5, zorder=0)
        angle, right = math.degrees(math.acos(r)), r >= 0
        turned: dict[str, Any] = {"rotation": angle if right else angle - 180, "rotation_mode": "anchor"}
        turned |= {"ha": "left" if right else "right", "va": "center", "fontsize": SMALL, "color": INK}
        ax.text(1.03 * most * x, 1.03 * most * y, f"{r:g}".replace("-", "−"), **turned)


def _arcs(ax: Axes, most: float, half: bool, step: float) -> None:
    """Lines of one spread, about the origin, and of one error, about the reference."""
    turn = np.linspace(0, np.pi, 361)
    for s in {1.0, *np.arange(step, most, step).tolist()}:
        style: dict[str, Any] = {"color": "black", "linewidth": 0.8} if s == 1 else {"color": "0.8", "linewidth": 0.5}
        part = turn[: None if half else 181]
        ax.plot(s * np.cos(part), s * np.sin(part), linestyle="-" if s == 1 else ":", zorder=1, **style)
    dashed: dict[str, Any] = {"color": ARC, "linewidth": 0.7, "linestyle": "--", "zorder": 1}
    for e in np.arange(step, 1 + most, step):
        x, y = 1 + e * np.cos(turn), e * np.sin(turn)
        inside = (x * x + y * y <= most * most) & ((x >= 0) | half)
        ax.plot(np.where(inside, x, np.nan), np.where(inside, y, np.nan), **dashed)
        at = np.flatnonzero(inside & (np.degrees(turn) >= 105))  # left of the reference, where arcs lie apart
        if at.size > 30:
            box = {"facecolor": "white", "edgecolor": "none", "pad": 0.6}
            said: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": SMALL, "color": INK, "zorder": 2}
            ax.text(x[at[0]], y[at[0]], f"{e:g}", bbox=box, **said)
    star: dict[str, Any] = {"marker": "*", "markersize": 11, "color": "black", "linestyle": "", "clip_on": False}
    ax.plot([1], [0], zorder=3, label="reference", **star)
    ax.plot([], [], label="centred RMSE over sd of reference", **dashed)
