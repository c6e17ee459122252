"""Says how well the wet cells are placed: the fractions skill score on common cells.

A window counts where at least half of it is known, and fractions are taken of what is known: a scene that was seen by
half is judged on that half, and the missing half is neither a hit nor a miss.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from smgrid.pairs import MIN_N, MIN_SHARE, Place, Sheet, Spec, Tile, basics, divide, open_pair, scorecard
from smgrid.sums import Order, Table, orders, total

WINDOWS = (1, 3, 9, 27)  # cells
EVENTS = ("value", "frequency")
WET = 0.9  # quantile of the reference above which a cell is wet, where no threshold is given

_ROBERTS = "Roberts & Lean (2008), doi:10.1175/2007MWR2123.1"
_ANTONIO = "after Antonio & Aitchison (2024), arXiv:2311.11985"
FSS: Spec = {
    "fss": (("event", "window"), "fractions skill score", "1", "1 - sum (F - O)^2 / (sum F^2 + sum O^2)", _ROBERTS),
    "fss_random": (
        ("event", "window"),
        "FSS that events as many, strewn at random, would get",
        "1",
        "2 f_p sum O / (sum (f_p^2 + f_p (1 - f_p) / m) + sum O^2), m = known cells of the window",
        _ANTONIO,
    ),
    "fss_useful": (("event",), "FSS customarily called useful", "1", "0.5 + f_o / 2", _ROBERTS),
    "fss_error": (("event", "window"), "numerator of 1 - FSS", "1", "sum (F - O)^2", _ROBERTS),
    "fss_worst": (("event", "window"), "denominator of 1 - FSS", "1", "sum F^2 + sum O^2", _ROBERTS),
    "fss_windows": (("window",), "number of windows", "1", "windows at least half known", _ROBERTS),
    "base_rate_prediction": (("event",), "share of common cells above the threshold", "1", "f_p", _ROBERTS),
    "base_rate_reference": (("event",), "share of common cells above the threshold", "1", "f_o", _ROBERTS),
    "threshold_prediction": (("event",), "threshold of the prediction", "field", "", _ROBERTS),
    "threshold_reference": (("event",), "threshold of the reference", "field", "", _ROBERTS),
}


def fss(
    prediction: Any,
    reference: Any,
    *,
    threshold: float | None = None,
    windows: Sequence[int] = WINDOWS,
    edges: Literal["inside", "all"] = "inside",
) -> xr.Dataset:
    """Fractions skill score: how well the wet cells are placed, allowing for shifts up to the size of a window.

    Parameters
    ----------
    prediction, reference : DataArray or maps, dims (..., y, x)
    threshold : float, optional
        A cell is wet above it. By default the reference's 0.9 quantile, date by date.
    windows : sequence of int
        Sides of the square windows in cells.
    edges : "inside" or "all"
        Inside: windows that lie on the map as a whole. All: one window about every cell, its part off the map counted
        like missing cells. Either way a window counts where at least half of its cells are common cells, and fractions
        are taken of those.

    Returns
    -------
    Dataset
        `fss` (..., event, window) and beside it `fss_random`, what as many events strewn at random would get on average;
        `fss_useful`; base rates, thresholds and the number of windows. `event` is "value" (both above the threshold: a
        bias counts) or "frequency" (as many of the prediction's wettest cells as the reference has events: the pattern
        alone). NaN where neither field has an event. To pool dates, add `fss_error` and `fss_worst` up; the mean of FSS
        is not the FSS of all.

    References
    ----------
    Roberts & Lean (2008), Mon. Weather Rev. 136, 78-97, doi:10.1175/2007MWR2123.1
    Antonio & Aitchison (2024), arXiv:2311.11985 (why "useful" misleads and a random field is the better reference)

    Examples
    --------
    >>> from smgrid import YANCO
    >>> wet = xr.DataArray(np.zeros(YANCO.shape), YANCO.coords(), ("y", "x"))
    >>> wet[40:46, 30:36] = 1
    >>> found = fss(wet.roll(x=3), wet, threshold=0.5, windows=[1, 9]).sel(event="value")
    >>> found.fss.round(2).values.tolist(), found.fss_random.round(2).values.tolist()
    ([0.5, 0.82], [0.01, 0.04])
    """
    if edges not in ("inside", "all"):
        raise ValueError(f"edges are 'inside' or 'all', not {edges!r}")
    sides = checked_windows(windows)
    pair = open_pair(prediction, reference)

    def judge(sheet: Sheet) -> dict[str, Any]:
        found = basics(sheet)
        limits = thresholds(orders(sheet, found), threshold) if found.n >= MIN_N else np.full((2, 2), np.nan)

        def look(tile: Tile) -> dict[str, NDArray[np.float64]]:
            return fraction_sums(tile, pair.place, limits, sides, edges == "all")

        return fss_of(total(sheet.tally(look, max(sides) // 2))) | said_of(limits)

    card = scorecard(pair, judge, FSS, window_coords(sides, pair.place.mean_ground()))
    card.attrs["edges"] = edges
    return card


def checked_windows(windows: Sequence[int]) -> list[int]:
    """Sides of windows, whole and positive."""
    sides = [int(w) for w in windows]
    if not sides or any(w < 1 for w in sides) or any(a != b for a, b in zip(sides, windows)):
        raise ValueError(f"windows are sides in cells, whole numbers from 1 up, not {list(windows)}")
    return sides


def window_coords(sides: Sequence[int], cell: tuple[float, float]) -> dict[str, Any]:
    """Coordinates of an FSS, with the size of windows on the ground."""
    said = f"side in cells; a cell is {cell[0]:.0f} m (east-west) x {cell[1]:.0f} m on the ground"
    return {"event": list(EVENTS), "window": ("window", list(sides), {"long_name": said, "units": "1"})}


def thresholds(order: tuple[Order, Order], threshold: float | None = None) -> NDArray[np.float64]:
    """Thresholds of prediction and reference, by event: (2 events, 2 fields)."""
    p, o = order
    limit = o.quantile(WET) if threshold is None else float(threshold)
    return np.array([[limit, limit], [p.exceeded_by(o.above(limit)), limit]])


def said_of(limits: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """Thresholds as entries of a scorecard."""
    return {"threshold_prediction": limits[:, 0], "threshold_reference": limits[:, 1]}


def fraction_sums(
    tile: Tile, place: Place, limits: NDArray[np.float64], sides: Sequence[int], every: bool = False
) -> dict[str, NDArray[np.float64]]:
    """Sums over windows by unit: (event, window, ...), and numbers of cells and events.

    The tile needs a margin of half the widest window.
    """
    p, o = tile.values[:2]
    events = [np.isfinite(p), *(p > limit for limit in limits[:, 0]), o > limits[0, 1]]  # NaN exceeds nothing
    images = [_integral(event) for event in events]
    found: dict[str, list[Any]] = {name: [] for name in ("error", "ff", "oo_f", "o_f", "inverse", "windows")}
    for side in sides:
        m, *inside = (_boxes(image, side, tile.halo, tile.fields.shape[-2:]) for image in images)
        good = (m >= MIN_SHARE * side**2) & tile.on_map(place.grid, 1 if every else side)
        inverse = np.where(good, 1 / np.where(good, m, 1), 0)
        f1, f2, g = (a * inverse for a in inside)
        found["error"].append([tile.by_unit((f - g) ** 2) for f in (f1, f2)])
        found["ff"].append([tile.by_unit(f**2) for f in (f1, f2)])
        for name, a in (("oo_f", g**2), ("o_f", g), ("inverse", inverse), ("windows", good)):
            found[name].append([tile.by_unit(a)] * 2)
    out = {name: np.array(a).swapaxes(0, 1) for name, a in found.items()}
    cells, wet_1, wet_2, wet_o = (tile.by_unit(tile.core(event)) for event in events)
    return out | {"cells": cells, "wet_p": np.stack([wet_1, wet_2]), "wet_o": wet_o}


def fss_of(s: Table) -> dict[str, NDArray[np.float64]]:
    """FSS and its references from sums."""
    rate_p = divide(s["wet_p"], s["cells"][..., None])
    rate_o = np.broadcast_to(divide(s["wet_o"], s["cells"])[..., None], rate_p.shape)
    worst = s["ff"] + s["oo_f"]
    f = rate_p[..., None]
    strewn = f**2 * s["windows"] + f * (1 - f) * s["inverse"]
    return {
        "fss": 1 - divide(s["error"], worst),
        "fss_random": divide(2 * f * s["o_f"], strewn + s["oo_f"]),
        "fss_useful": 0.5 + rate_o / 2,
        "fss_error": s["error"],
        "fss_worst": worst,
        "fss_windows": s["windows"][..., 0, :],
        "base_rate_prediction": rate_p,
        "base_rate_reference": rate_o,
    }


def _integral(a: NDArray[Any]) -> NDArray[np.float64]:
    out = np.zeros((a.shape[0] + 1, a.shape[1] + 1))
    np.cumsum(np.cumsum(a, axis=0, dtype="f8"), axis=1, out=out[1:, 1:])
    return out


def _boxes(image: NDArray[np.float64], side: int, halo: int, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Sums over the window about each cell of the core."""
    first = halo - side // 2
    y0, x0 = slice(first, first + shape[0]), slice(first, first + shape[1])
    y1, x1 = slice(first + side, first + side + shape[0]), slice(first + side, first + side + shape[1])
    return image[y1, x1] - image[y0, x1] - image[y1, x0] + image[y0, x0]
