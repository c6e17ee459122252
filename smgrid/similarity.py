"""Says how alike two patterns are: SPAEF and structural similarity.

Both are taken over the common cells alone. Windows that reach off the map are left out, and a window counts where at
least half of it is known: a scene that was seen by half is judged on that half.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import dask.array as da
import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.ndimage import correlate1d

from smgrid.pairs import MIN_N, MIN_SHARE, Basics, Place, Sheet, Spec, Tile, basics, divide, open_pair, scorecard
from smgrid.sums import Table, moment_sums, moments, total
from smgrid.units import conversion

RANGE = 0.6  # m3 m-3: L of the SSIM, the physical range, the same for every date
HISTOGRAMS = 2**22  # counts by unit and class, at most, that are kept for intervals

# ---- SPAEF

_KOCH = "Demirel et al. (2018), doi:10.5194/hess-22-1299-2018; Koch et al. (2018), doi:10.5194/gmd-11-1873-2018"
SPAEF: Spec = {
    "spaef": ((), "spatial efficiency", "1", "1 - sqrt((alpha - 1)^2 + (beta - 1)^2 + (gamma - 1)^2)", _KOCH),
    "spaef_alpha": ((), "SPAEF: correlation", "1", "Pearson r", _KOCH),
    "spaef_beta": ((), "SPAEF: ratio of coefficients of variation", "1", "(s_p / m_p) / (s_o / m_o)", _KOCH),
    "spaef_gamma": ((), "SPAEF: overlap of histograms of z-scores", "1", "sum min(h_p, h_o) / sum h_o", _KOCH),
    "spaef_bins": ((), "SPAEF: number of histogram bins", "1", "round(sqrt(n)), or as given", _KOCH),
}


def spaef(
    prediction: Any,
    reference: Any,
    *,
    bins: int | Literal["sqrt"] = "sqrt",
    edges: Literal["common", "reference-code"] = "common",
) -> xr.Dataset:
    """Spatial efficiency: correlation, variability and distribution of a pattern in one number, 1 at best.

    Parameters
    ----------
    prediction, reference : DataArray or maps, dims (..., y, x)
    bins : int or "sqrt"
        Bins of the histograms of z-scores; "sqrt" takes the root of the number of common cells. The value depends on
        it (0.53 with 12 bins, 0.37 with 100, in one case), so it stands in the answer.
    edges : "common" or "reference-code"
        Common: both histograms on the edges from the lowest to the highest z-score of either field. The authors' code
        bins each field between its own extremes, so its bins do not match each other; offered to compare with.

    Returns
    -------
    Dataset
        `spaef`, `spaef_alpha`, `spaef_beta`, `spaef_gamma`, `spaef_bins`, with the leading dims of the fields. NaN where
        a field is constant. It is nearly blind to an additive bias: read it beside `bias`.

    References
    ----------
    Demirel et al. (2018), Hydrol. Earth Syst. Sci. 22, 1299-1315, doi:10.5194/hess-22-1299-2018
    Koch et al. (2018), Geosci. Model Dev. 11, 1873-1886, doi:10.5194/gmd-11-1873-2018

    Examples
    --------
    >>> from smgrid import YANCO
    >>> reference = xr.DataArray(np.random.default_rng(0).random(YANCO.shape), YANCO.coords(), ("y", "x"))
    >>> spaef(0.5 * reference, reference).spaef.round(6).item()
    1.0
    """
    if edges not in ("common", "reference-code"):
        raise ValueError(f"edges are 'common' or 'reference-code', not {edges!r}")
    if bins != "sqrt" and not (isinstance(bins, int | np.integer) and bins > 0):
        raise ValueError(f"bins is 'sqrt' or a positive whole number, not {bins!r}")
    pair = open_pair(prediction, reference)

    def judge(sheet: Sheet) -> dict[str, Any]:
        found = basics(sheet)
        chosen = bins_of(sheet, found, bins=bins, own=edges == "reference-code")
        if chosen is None:
            return dict.fromkeys(SPAEF, np.nan)

        def look(tile: Tile) -> dict[str, NDArray[np.float64]]:
            p, o = tile.fields[:2]
            return moment_sums(tile, p, o, *found.mean[:2]) | histogram_sums(tile, found, chosen)

        return spaef_of(total(sheet.tally(look)), found)

    card = scorecard(pair, judge, SPAEF, {})
    card.attrs["edges"] = edges
    return card


class Bins(NamedTuple):
    """Edges of the histograms of z-scores, and whether they are counted by unit or for the map as a whole."""

    edges: tuple[NDArray[np.float64], NDArray[np.float64]]  # of prediction and reference
    by_unit: bool


def bins_of(sheet: Sheet, found: Basics, *, bins: int | Literal["sqrt"] = "sqrt", own: bool = False) -> Bins | None:
    """Edges of the histograms; None where a field is constant."""
    if found.n < MIN_N or not (found.sd[:2] > 0).all():
        return None
    k = round(np.sqrt(found.n)) if bins == "sqrt" else int(bins)
    low, high = (found.low - found.mean) / found.sd, (found.high - found.mean) / found.sd
    ends = [(low[i], high[i]) if own else (low[:2].min(), high[:2].max()) for i in (0, 1)]
    p, o = (np.linspace(*pair, k + 1) for pair in ends)
    unit, grid = sheet.place.unit, sheet.place.grid
    return Bins((p, o), (grid.ny // unit + 2) * (grid.nx // unit + 2) * 2 * k <= HISTOGRAMS)


def histogram_sums(tile: Tile, found: Basics, bins: Bins) -> dict[str, NDArray[np.float64]]:
    """Counts of z-scores by unit and bin, of prediction and reference."""
    k = bins.edges[0].size - 1
    z = [(tile.fields[i][tile.known] - found.mean[i]) / found.sd[i] for i in (0, 1)]
    place = [np.clip(np.searchsorted(e, v, side="right") - 1, 0, k - 1) for e, v in zip(bins.edges, z)]
    if not bins.by_unit:
        return {"whole_hist": np.stack([np.bincount(p, minlength=k) for p in place]).astype("f8")}
    codes, shape = _unit_codes(tile)
    size, code = shape[0] * shape[1], codes[tile.known]
    counts = [np.bincount(p * size + code, minlength=k * size) for p in place]
    return {"hist": np.stack(counts).reshape(2, k, *shape).astype("f8")}


def spaef_of(s: Table, found: Basics) -> dict[str, NDArray[np.float64]]:
    """SPAEF and its parts from sums."""
    m = moments(s, *found.mean[:2])
    alpha = m["pearson_r"]
    beta = divide(divide(m["sd_a"], m["mean_a"]), divide(m["sd_b"], m["mean_b"]))
    hist = s["hist"] if "hist" in s else s["whole_hist"]
    p, o = hist[..., 0, :], hist[..., 1, :]
    gamma = divide(np.minimum(p, o).sum(-1), o.sum(-1))
    value = 1 - np.sqrt((alpha - 1) ** 2 + (beta - 1) ** 2 + (gamma - 1) ** 2)
    bins = np.full(np.shape(value), hist.shape[-1])
    return {"spaef": value, "spaef_alpha": alpha, "spaef_beta": beta, "spaef_gamma": gamma, "spaef_bins": bins}


def _unit_codes(tile: Tile) -> tuple[NDArray[np.int64], tuple[int, int]]:
    """Number of the unit of each cell of a tile, counted within the tile, and how many units it has each way."""
    rows, cols = tile.core_rows // tile.unit, tile.core_cols // tile.unit
    rows, cols = rows - rows[0], cols - cols[0]
    shape = int(rows[-1]) + 1, int(cols[-1]) + 1
    return rows[:, None] * shape[1] + cols, shape


# ---- SSIM

_WANG = "Wang et al. (2004), doi:10.1109/TIP.2003.819861"
SSIM: Spec = {
    "ssim": ((), "structural similarity", "1", "mean of luminance * contrast * structure", _WANG),
    "luminance": ((), "SSIM: likeness of local means", "1", "(2 m_p m_o + C1) / (m_p^2 + m_o^2 + C1)", _WANG),
    "contrast": ((), "SSIM: likeness of local spread", "1", "(2 s_p s_o + C2) / (s_p^2 + s_o^2 + C2)", _WANG),
    "structure": ((), "SSIM: local correlation", "1", "(s_po + C2 / 2) / (s_p s_o + C2 / 2)", _WANG),
}
_WEIGHTS = {
    "gaussian": np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2)),
    "uniform": np.ones(7),
}


def ssim(
    prediction: Any,
    reference: Any,
    *,
    window: Literal["gaussian", "uniform"] = "gaussian",
    data_range: float | None = None,
) -> xr.Dataset:
    """Structural similarity, and the parts that answer for bias, variance and pattern.

    Parameters
    ----------
    prediction, reference : DataArray or maps, dims (..., y, x)
    window : "gaussian" or "uniform"
        Gaussian: sigma 1.5 cells, 11 x 11, population covariance, as Wang et al. Uniform: 7 x 7, sample covariance, the
        default of scikit-image.
    data_range : float, optional
        L, of which C1 = (0.01 L)^2 and C2 = (0.03 L)^2. By default 0.6 m3 m-3, the physical range: with each scene's own
        range, scores of two dates could not be compared.

    Returns
    -------
    Dataset
        `ssim`, `luminance`, `contrast`, `structure`: means over the common cells whose window lies on the map and is at
        least half known (by weight). Missing cells get no weight. See `ssim_maps` for the maps.

    Raises
    ------
    ValueError
        The fields are in units that m3 m-3 does not convert to, and no `data_range` is given.

    References
    ----------
    Wang et al. (2004), IEEE Trans. Image Process. 13, 600-612, doi:10.1109/TIP.2003.819861

    Examples
    --------
    >>> from smgrid import YANCO
    >>> reference = xr.DataArray(np.random.default_rng(0).random(YANCO.shape) / 2, YANCO.coords(), ("y", "x"))
    >>> found = ssim(reference + 0.1, reference)
    >>> bool(found.luminance < 1), found.contrast.round(6).item(), found.structure.round(6).item()
    (True, 1.0, 1.0)
    """
    weights = _weights(window)
    pair = open_pair(prediction, reference)
    span = data_range_of(pair.units) if data_range is None else float(data_range)

    def judge(sheet: Sheet) -> dict[str, Any]:
        table = sheet.tally(lambda tile: likeness_sums(tile, pair.place, span, weights), weights.size // 2)
        return ssim_of(total(table))

    card = scorecard(pair, judge, SSIM, {})
    card.attrs |= {"data_range": span, "window": window}
    return card


def ssim_maps(prediction: Any, reference: Any, *, data_range: float | None = None) -> xr.Dataset:
    """Structural similarity and its parts as maps (Gaussian window), lazy where the fields are.

    Parameters
    ----------
    prediction, reference, data_range
        As for `ssim`.

    Returns
    -------
    Dataset, dims (..., y, x)
        NaN where `ssim` leaves a cell out.

    Examples
    --------
    >>> from smgrid import YANCO
    >>> reference = xr.DataArray(np.random.default_rng(0).random(YANCO.shape) / 2, YANCO.coords(), ("y", "x"))
    >>> ssim_maps(reference, reference).ssim.mean().round(6).item()
    1.0
    """
    pair = open_pair(prediction, reference)
    span = data_range_of(pair.units) if data_range is None else float(data_range)
    weights = _WEIGHTS["gaussian"]
    first, halo = pair.fields[0], weights.size // 2

    def look(p: NDArray[Any], o: NDArray[Any]) -> NDArray[np.float64]:
        out = np.full((4, *p.shape), np.nan)
        for at in np.ndindex(p.shape[:-2]):
            out[(slice(None), *at)] = _likeness(p[at].astype("f8"), o[at].astype("f8"), span, weights)
        return out

    p, o = (field.data for field in pair.fields)
    if isinstance(p, da.Array):
        depth = dict.fromkeys((p.ndim - 2, p.ndim - 1), halo)
        _, (p, o) = da.core.unify_chunks(p, range(p.ndim), o, range(p.ndim))
        p, o = (da.overlap.overlap(a, depth, dict.fromkeys(depth, np.nan)) for a in (p, o))
        stack = da.map_blocks(look, p, o, new_axis=0, chunks=((4,), *p.chunks), meta=np.empty((0,) * (p.ndim + 1)))
        stack = da.overlap.trim_internal(stack, {axis + 1: halo for axis in depth}, dict.fromkeys(range(stack.ndim), 0))
    else:
        pad = [(0, 0)] * (p.ndim - 2) + [(halo, halo)] * 2
        stack = look(*(np.pad(np.asarray(a, "f8"), pad, constant_values=np.nan) for a in (p, o)))
        stack = stack[..., halo:-halo, halo:-halo]
    rows, cols = (np.arange(n) for n in first.shape[-2:])
    inside = ((rows >= halo) & (rows < rows.size - halo))[:, None] & (cols >= halo) & (cols < cols.size - halo)
    maps = {
        name: first.copy(data=stack[i]).where(xr.DataArray(inside, dims=("y", "x"))).rename(name)
        for i, name in enumerate(SSIM)
    }
    for name, array in maps.items():
        _, long_name, units, formula, source = SSIM[name]
        array.attrs = {"long_name": long_name, "units": units, "formula": formula, "source": source}
    return xr.Dataset(maps, attrs={"data_range": span})


def data_range_of(units: str | None) -> float:
    """The physical range of soil moisture, 0.6 m3 m-3, in the fields' units."""
    if units in (None, "m3 m-3"):
        return RANGE
    change = conversion("m3 m-3", str(units))
    if change is None or change.decibel:
        raise ValueError(f"the fields are in {units!r}, whose range is not known: give data_range")
    return float(RANGE * change.scale)


def likeness_sums(
    tile: Tile, place: Place, span: float, weights: NDArray[np.float64] = _WEIGHTS["gaussian"]
) -> dict[str, NDArray[np.float64]]:
    """Sums by unit of SSIM and its parts, and the number of windows; the margin needed is half a window."""
    tile = tile.trim(weights.size // 2)
    found = tile.core(_likeness(tile.values[0], tile.values[1], span, weights))
    good = np.isfinite(found[0]) & tile.on_map(place.grid, weights.size)
    return {"like": tile.by_unit(np.where(good, found, 0.0)), "like_n": tile.by_unit(good)}


def ssim_of(s: Table) -> dict[str, NDArray[np.float64]]:
    """Means of SSIM and its parts from sums."""
    return {name: divide(s["like"][..., i], s["like_n"]) for i, name in enumerate(SSIM)}


def _weights(window: str) -> NDArray[np.float64]:
    if window not in _WEIGHTS:
        raise ValueError(f"the window is 'gaussian' or 'uniform', not {window!r}")
    return _WEIGHTS[window]


def _likeness(
    p: NDArray[np.float64], o: NDArray[np.float64], span: float, weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """SSIM, luminance, contrast and structure about each common cell at least half of whose window is known."""
    known = np.isfinite(p) & np.isfinite(o)
    p, o, m = np.where(known, p, 0.0), np.where(known, o, 0.0), known.astype("f8")

    def local(a: NDArray[np.float64]) -> NDArray[np.float64]:
        return correlate1d(correlate1d(a, weights, axis=0, mode="constant"), weights, axis=1, mode="constant")

    mass = local(m)
    good = known & (mass >= MIN_SHARE * weights.sum() ** 2)
    mass = np.where(good, mass, 1.0)
    mean_p, mean_o, pp, oo, po = (local(a) / mass for a in (p, o, p * p, o * o, p * o))
    bessel = mass / np.maximum(mass - 1, 1) if (weights == 1).all() else 1.0  # scikit-image's sample covariance
    var_p, var_o = (np.maximum(a - b * b, 0) * bessel for a, b in ((pp, mean_p), (oo, mean_o)))
    cov, spread = (po - mean_p * mean_o) * bessel, np.sqrt(var_p * var_o)
    c1, c2 = (0.01 * span) ** 2, (0.03 * span) ** 2
    luminance = (2 * mean_p * mean_o + c1) / (mean_p**2 + mean_o**2 + c1)
    contrast = (2 * spread + c2) / (var_p + var_o + c2)
    structure = (cov + c2 / 2) / (spread + c2 / 2)
    ssim_ = luminance * (2 * cov + c2) / (var_p + var_o + c2)
    return np.where(good, np.stack([ssim_, luminance, contrast, structure]), np.nan)
