"""Splits agreement at the scale of a coarse input: between its cells, and within them."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from smgrid.pairs import MIN_SHARE, Basics, Sheet, Spec, Tile, basics, divide, open_pair, scorecard
from smgrid.sums import DRAWS, Table, intervals, total

FLAT = 1e-12  # spread, relative to the values, below which a field is constant in its blocks: rounding

_BLOCKS = "weighted by common cells; blocks at least half known"
SPLIT: Spec = {
    "r_between": ((), "correlation of block means", "1", f"Pearson r, {_BLOCKS}", ""),
    "r_within": ((), "correlation of departures from block means", "1", f"Pearson r, {_BLOCKS}", ""),
    "mse_between": ((), "mean square error of block means", "field2", f"mean((P - O)^2), {_BLOCKS}", ""),
    "mse_within": ((), "mean square error within blocks", "field2", f"mean((p' - o')^2), {_BLOCKS}", ""),
    "within_share_prediction": ((), "share of the prediction's variance within blocks", "1", "var(p') / var(p)", ""),
    "within_share_reference": ((), "share of the reference's variance within blocks", "1", "var(o') / var(o)", ""),
    "blocks": ((), "number of blocks that are at least half known", "1", "", ""),
    "split_n": ((), "number of common cells in these blocks", "1", "", ""),
}


def scale_split(prediction: Any, reference: Any, *, coarse_km: float = 9) -> xr.Dataset:
    """Split agreement at the scale of a coarse input: between its cells, and within them.

    A coarse input alone can place water between its cells; what the map gets right within them, the fine predictors
    added.

    Parameters
    ----------
    prediction, reference : DataArray or maps, dims (..., y, x)
    coarse_km : float
        Side of the blocks, which lie as in the global grid, whatever window is shown of them.

    Returns
    -------
    Dataset
        `r_between`, `r_within`, `mse_between`, `mse_within` (their sum is the mean square error over the cells used),
        `within_share_prediction`, `within_share_reference`, `blocks`, `split_n`, and 95 % intervals by drawn blocks.
        Block means are taken over the common cells of the blocks at least half known, weighted by their number. A map
        that is constant in each block has a share of 0 within, and its `r_within` is NaN.

    Examples
    --------
    >>> from smgrid import YANCO
    >>> rng = np.random.default_rng(0)
    >>> reference = xr.DataArray(rng.random(YANCO.shape), YANCO.coords(), ("y", "x"))
    >>> blocks = reference.coarsen(y=9, x=9, boundary="trim").mean()
    >>> copied = blocks.reindex_like(reference, method="nearest")
    >>> found = scale_split(copied, reference)
    >>> found.within_share_prediction.item(), found.r_within.item()
    (0.0, nan)
    """
    pair = open_pair(prediction, reference, coarse_km=coarse_km)

    def judge(sheet: Sheet) -> dict[str, Any]:
        found = basics(sheet)
        table = sheet.tally(lambda tile: split_sums(tile, found) | {"n": tile.by_unit(tile.known)})
        said = intervals(table, lambda s: split_of(s, found), 0)
        out = split_of(total(table), found)
        return {**out, **{f"{name}_interval": said[name] for name in out if name not in ("blocks", "split_n")}}

    card = scorecard(pair, judge, SPLIT, {})
    card.attrs = {"coarse_km": coarse_km, "interval": f"95 % percentile, {DRAWS} draws of whole blocks"}
    return card


def split_sums(tile: Tile, found: Basics) -> dict[str, NDArray[np.float64]]:
    """Sums by unit of block means, and of departures from them, over blocks at least half known."""
    known = tile.known
    p, o = (np.where(known, a - mean, 0.0) for a, mean in zip(tile.fields[:2], found.mean))
    n = tile.by_block(known)
    n = np.where(n >= MIN_SHARE * tile.f**2, n, 0.0)
    whole = {"a": p, "b": o, "e": p - o}
    means = {name: tile.by_block(a) / np.maximum(n, 1) for name, a in whole.items()}
    used = known & (tile.spread(n) > 0)
    rest = {name: np.where(used, a - tile.spread(means[name]), 0.0) for name, a in whole.items()}
    out = {"split_n": tile.by_unit(n), "blocks": tile.by_unit(n > 0)}
    out |= {f"split_{name}": tile.by_unit(n * mean) for name, mean in means.items()}
    for i, j in ("aa", "bb", "ab", "ee"):
        out[f"between_{i}{j}"] = tile.by_unit(n * means[i] * means[j])
        out[f"within_{i}{j}"] = tile.by_unit(rest[i] * rest[j])
    return out


def split_of(s: Table, found: Basics) -> dict[str, NDArray[np.float64]]:
    """The split from its sums, of all units or of those drawn."""
    n = s["split_n"]
    shift = {name: divide(s[f"split_{name}"], n) for name in "abe"}
    offset = found.mean[0] - found.mean[1]
    between = {ij: divide(s[f"between_{ij}"], n) - shift[ij[0]] * shift[ij[1]] for ij in ("aa", "bb", "ab")}
    within = {ij: divide(s[f"within_{ij}"], n) for ij in ("aa", "bb", "ab", "ee")}
    for ij, k in (("aa", 0), ("bb", 1)):
        flat = (FLAT * (abs(found.mean[k]) + found.sd[k])) ** 2
        within[ij] = np.where(within[ij] <= flat, within[ij] * 0, within[ij])
        between[ij] = np.where(between[ij] <= flat, between[ij] * 0, between[ij])
    r = [np.clip(divide(part["ab"], np.sqrt(part["aa"] * part["bb"])), -1, 1) for part in (between, within)]
    return {
        "r_between": r[0],
        "r_within": r[1],
        "mse_between": divide(s["between_ee"], n) + 2 * offset * shift["e"] + offset**2,
        "mse_within": within["ee"],
        "within_share_prediction": divide(within["aa"], within["aa"] + between["aa"]),
        "within_share_reference": divide(within["bb"], within["bb"] + between["bb"]),
        "blocks": s["blocks"],
        "split_n": n,
    }
