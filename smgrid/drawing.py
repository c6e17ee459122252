"""What figures share: colours, words with their units, degrees, outlines of land.

Colours are those of Okabe and Ito, which eyes of every kind tell apart; wherever a colour means something, a marker or
a line style says it too.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.path import Path

SMALL, MEDIUM = 7, 9  # points
INK = "0.35"
BLACK, ORANGE, SKY, GREEN, YELLOW, BLUE, RED, PINK = (
    *("#000000", "#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7"),
)
HUES = (BLUE, ORANGE, GREEN, RED, PINK, SKY, BLACK, YELLOW)
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
LAND, SEA = "#efede6", "#ffffff"
GAP = -32768  # between two rings of land

Place = Callable[[NDArray[Any]], NDArray[Any]]


def words(quantity: str, units: str | None) -> str:
    """A quantity and its unit, as an axis says them.

    Examples
    --------
    >>> words("RMSE", "m3 m-3")
    'RMSE, m³ m⁻³'
    >>> words("correlation", "1")
    'correlation'
    """
    unit = re.sub(r"(?<=[a-z])-?\d+|\^\d", _raise, units or "")
    return ", ".join(filter(None, [quantity, "" if unit == "1" else unit]))


def plain(name: object, most: int = 40) -> str:
    """A name as figures may write it: matplotlib takes a leading _ for "not in the legend".

    Examples
    --------
    >>> plain("_smap"), plain("a" * 50, most=5)
    (' _smap', 'aaaa…')
    """
    text = "".join(c if c.isprintable() else " " for c in str(name))
    text = text if len(text) <= most else text[: most - 1] + "…"
    return (" " if text.startswith("_") else "") + text


def _raise(power: re.Match[str]) -> str:
    return power[0].strip("^").translate(str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻"))


def is_synthetic(*objects: Any) -> bool:
    """Whether any of some objects says in its attributes that it is invented."""
    return any("synthetic" in str(v).lower() for each in objects for v in getattr(each, "attrs", {}).values())


def literal(figure: Figure) -> Figure:
    """The figure with its words as they are: names of networks are data, and a `$` in one begins no formula."""
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        text.set_parse_math(False)  # type: ignore[attr-defined]  # matplotlib has it, its stubs do not
    return figure


# ---- degrees


def degree_ticks(ends: NDArray[Any], halves: str, inches: float) -> tuple[list[float], list[str]]:
    """Round degrees between two ends and their labels: up to five, as many as stand side by side in so many inches."""
    from matplotlib.ticker import MaxNLocator

    low, high = map(float, ends)
    letter = 0.65 * SMALL / 72  # inches
    for most in range(5, 0, -1):
        nice = MaxNLocator(most, steps=[1, 2, 5, 10], min_n_ticks=1)
        values = [v for v in nice.tick_values(low, high) if low < v < high]
        names = degrees(values, halves)
        if len(values) < 2 or len(max(names, key=len)) * letter < inches * (values[1] - values[0]) / (high - low):
            break
    return values, names


def degrees(values: list[float], halves: str) -> list[str]:
    """Labels with the decimals that the finest of them needs."""
    digits = max((len(f"{abs(v):.6f}".rstrip("0").split(".")[1]) for v in values), default=0)
    signs = {-1: halves[0], 0: "", 1: halves[1]}
    return [f"{abs(v):.{digits}f}°{signs[int(np.sign(round(v, 6)))]}" for v in values]


# ---- land


@cache
def _rings() -> tuple[NDArray[np.float64], ...]:
    """Closed rings of (longitude, latitude), degrees; Natural Earth 1:110 million, see data/README.md."""
    with (files("smgrid") / "data" / "land_110m.npy").open("rb") as file:
        points = np.load(file, allow_pickle=False)
    pieces = np.split(points, np.flatnonzero(points[:, 0] == GAP))
    return tuple(piece[piece[:, 0] != GAP] / 100 for piece in pieces)


def land(x: Place | None = None, y: Place | None = None) -> Path:
    """Outlines of all land as one path; needs no network.

    Parameters
    ----------
    x, y : function, optional
        Carry longitude and latitude to the axes of a figure; degrees otherwise.
    """
    from matplotlib.path import Path

    vertices, codes = [], []
    for ring in _rings():
        lon, lat = ring.T
        vertices.append(np.stack([lon if x is None else x(lon), lat if y is None else y(lat)], axis=1))
        codes += [Path.MOVETO, *[Path.LINETO] * (len(ring) - 2), Path.CLOSEPOLY]
    return Path(np.concatenate(vertices), codes)


def draw_land(ax: Axes, outline: Path, **style: Any) -> None:
    """Put land on axes whose limits stay as they are."""
    from matplotlib.patches import PathPatch

    limits = ax.get_xlim(), ax.get_ylim()
    ax.add_patch(PathPatch(outline, **style))
    ax.set(xlim=limits[0], ylim=limits[1])
