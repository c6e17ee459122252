"""Compares the spatial pattern of two maps.

`compare` lays everything on one scorecard; `scale_split`, `spaef`, `fss`, `wet_patches`, `ssim`, `variogram`,
`coherence` and `change` are its parts. All of it is taken over the common cells. Cells resemble their neighbours, so
6300 of them are not 6300 witnesses: intervals come from drawing whole coarse cells with replacement.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from smgrid import coarse as spreads
from smgrid import fractions, patches, scales, similarity, spectra, variograms
from smgrid.changes import change, change_of
from smgrid.fractions import fss
from smgrid.grid import Grid
from smgrid.pairs import MIN_N, Basics, Pair, Sheet, Spec, Tile, basics, divide, open_pair, scorecard
from smgrid.patches import wet_patches
from smgrid.regrid import to_grid
from smgrid.resampling import bounds
from smgrid.scales import scale_split, split_of, split_sums
from smgrid.shapes import as_field
from smgrid.similarity import spaef, ssim, ssim_maps
from smgrid.spectra import coherence
from smgrid.sums import DRAWS, Table, draws_of, moment_sums, moments, orders, total
from smgrid.variograms import variogram

__all__ = [
    "change",
    "coherence",
    "compare",
    "fss",
    "scale_split",
    "spaef",
    "ssim",
    "ssim_maps",
    "variogram",
    "wet_patches",
]

logger = logging.getLogger("smgrid")

CLASSES = 64  # strata, at most

_GUPTA = "Gupta et al. (2009), doi:10.1016/j.jhydrol.2009.08.003"
_ENTEKHABI = "Entekhabi et al. (2010), doi:10.1175/2010JHM1223.1"
_MURPHY = "Murphy (1988), doi:10.1175/1520-0493(1988)116<2417:SSBOTM>2.0.CO;2"
_SPEARMAN = "Spearman (1904), doi:10.2307/1412159"
BASIC: Spec = {
    "n": ((), "number of common cells", "1", "sum(finite(p) and finite(o))", ""),
    "coverage": ((), "common cells over all cells of the window", "1", "n / cells", ""),
    "coverage_of_reference": ((), "common cells over the reference's cells", "1", "n / sum(finite(o))", ""),
    "mean_prediction": ((), "mean of the prediction", "field", "mean(p)", ""),
    "mean_reference": ((), "mean of the reference", "field", "mean(o)", ""),
    "sd_prediction": ((), "standard deviation of the prediction", "field", "sd(p), ddof 0", ""),
    "sd_reference": ((), "standard deviation of the reference", "field", "sd(o), ddof 0", ""),
    "bias": ((), "mean error, prediction less reference", "field", "mean(p - o)", _ENTEKHABI),
    "rmse": ((), "root-mean-square error", "field", "sqrt(mean((p - o)^2))", _ENTEKHABI),
    "ubrmse": ((), "unbiased root-mean-square error", "field", "sqrt(mse - bias^2)", _ENTEKHABI),
    "pearson_r": ((), "Pearson correlation", "1", "cov(p, o) / (sd(p) sd(o))", _ENTEKHABI),
    "spearman_r": ((), "Spearman correlation", "1", "Pearson r of mean ranks", _SPEARMAN),
    "slope": ((), "slope of prediction on reference", "1", "cov(p, o) / var(o)", ""),
    "intercept": ((), "intercept of prediction on reference", "field", "mean(p) - slope mean(o)", ""),
    "variance_ratio": ((), "standard deviation, prediction over reference", "1", "sd(p) / sd(o)", _GUPTA),
    "mse": ((), "mean square error", "field2", "mean((p - o)^2) = the three parts", _GUPTA),
    "mse_bias": ((), "part of the mean square error: bias", "field2", "bias^2", _GUPTA),
    "mse_variance": ((), "part of the mean square error: variance", "field2", "(sd(p) - sd(o))^2", _GUPTA),
    "mse_correlation": ((), "part of the mean square error: correlation", "field2", "2 sd(p) sd(o) (1 - r)", _GUPTA),
}
_AT = ("baseline",)
SKILL: Spec = {
    "skill": (_AT, "skill against a baseline, on the cells of both", "1", "1 - mse / mse(baseline)", _MURPHY),
    "rmse_baseline": (_AT, "root-mean-square error of the baseline", "field", "sqrt(mean((b - o)^2))", _MURPHY),
    "n_baseline": (_AT, "number of common cells that the baseline has", "1", "", ""),
}
_BY = ("stratum",)
STRATA: Spec = {
    "stratum_n": (_BY, "number of common cells in the stratum", "1", "", ""),
    **{
        f"stratum_{name}": (_BY, f"{BASIC[name][1]}, within the stratum", *BASIC[name][2:])
        for name in ("bias", "rmse", "ubrmse", "pearson_r", "slope", "mean_prediction", "mean_reference")
    },
}
_ERROR = "classical test theory: errors of the reference independent of the truth and of the map"
CEILING: Spec = {
    "r_ceiling": ((), "correlation of a perfect map with this reference", "1", "sqrt(1 - se^2 / var(o))", _ERROR),
    "r_of_ceiling": ((), "correlation over its ceiling", "1", "r / r_ceiling", _ERROR),
    "rmse_floor": ((), "error of a perfect map against this reference", "field", "se", _ERROR),
    "rmse_of_map": ((), "error of the map itself", "field", "sqrt(max(0, mse - se^2))", _ERROR),
}
SPEC: Spec = {
    **BASIC, **scales.SPLIT, **SKILL, **STRATA, **CEILING, **similarity.SPAEF, **similarity.SSIM, **fractions.FSS,
    **variograms.SPEC, **spectra.SPEC,
}  # fmt: skip
WITH_INTERVAL = (
    "bias", "rmse", "ubrmse", "pearson_r", "spearman_r", "slope", "variance_ratio", "r_between", "r_within",
    "mse_between", "mse_within", "within_share_prediction", "spaef", "ssim", "luminance", "contrast", "structure",
    "fss", "skill", "stratum_bias", "stratum_rmse", "stratum_pearson_r",
)  # fmt: skip


def compare(
    prediction: Any,
    reference: Any,
    *,
    coarse_km: float = 9,
    versus: Any = None,
    coarse: Any = None,
    strata: Any = None,
    reference_error: float | None = None,
    seed: int = 0,
) -> xr.Dataset:
    """Say on one scorecard how right a map's pattern is.

    Parameters
    ----------
    prediction, reference : DataArray or maps, dims (..., y, x)
        On the EASE-Grid 2.0; missing is NaN. Leading dims such as `time` are judged one by one.
    coarse_km : float
        Side of the blocks of the scale split and of the bootstrap: 9 km, SMAP's cell.
    versus : DataArray or maps, optional
        Another prediction. Only cells count that all three have, and the same blocks are drawn for both, so that their
        difference has an interval of its own, much surer than two intervals side by side.
    coarse : DataArray or maps, optional
        The coarse field to be beaten (SMAP), on its own coarse grid, or on the map's as blocks.
    strata : DataArray (y, x), optional
        Classes such as land cover; `flag_values` and `flag_meanings` in the attrs name them.
    reference_error : float, optional
        Standard error of the reference itself, in the fields' units (0.06 m3 m-3 for the airborne maps of the paper).
        No map can do better than it allows.
    seed : int
        Of the bootstrap; the same for every date.

    Returns
    -------
    Dataset, computed, with the leading dims of the fields. `NAME_interval` (..., bound) beside a measure is its 95 %
    percentile interval over drawn blocks; with `versus`, `NAME_versus` is the other prediction's,
    `NAME_difference` prediction less the other, and `NAME_difference_interval` its interval.

    n, coverage, coverage_of_reference
        Common cells, and their share of the window and of the reference's cells.
    bias, rmse, ubrmse, pearson_r, spearman_r, slope, intercept, variance_ratio; means and standard deviations
        A slope and a variance ratio well below 1 are the mark of regression to the mean; see `shrinkage`.
    mse = mse_bias + mse_variance + mse_correlation
    r_between, r_within, mse_between, mse_within, within_share_...
        See `scale_split`: what the map adds within coarse cells.
    spaef..., fss (event, window)..., ssim, luminance, contrast, structure
        See `spaef`, `fss`, `ssim`.
    semivariance_... (direction, lag)...; coherence (wavelength)..., resolution_coherence, resolution_noise
        See `variogram` and `coherence`.
    pod, pod_area, patches, false_alarms; patch_... (patch)
        See `wet_patches`: a row per patch.
    skill, rmse_baseline (baseline)
        1 - mse / mse of: "mean", the reference's own mean (no map could know it); with `coarse` also "blocks" and
        "smooth", the coarse field spread to the fine cells in either way. Positive: better than the baseline.
    change_... (change)
        With several dates: see `change`.
    stratum_... (stratum); r_ceiling, r_of_ceiling, rmse_floor, rmse_of_map
        With `strata`, with `reference_error`.

    Every measure is NaN with fewer than 3 common cells, every interval with fewer than 3 blocks.

    Raises
    ------
    ValueError
        Axes or units of the fields differ, the strata are more than 64, or an option is out of range.

    Notes
    -----
    The fields are read tile by tile and their sums added, so neither chunks nor size matter: a date of up to 2^24 cells
    is held and read once, a larger one is read three times in tiles (write first what is dear to compute). Beyond that
    size, ranks and thresholds come from 2^16 classes of equal width, and what needs a date as a whole (spectra, wet
    patches) is left out, which `attrs["left_out"]` says. With more than 2^14 blocks, 2 x 2, 4 x 4 ... of them are drawn
    together; `bootstrap_km` in the attrs says how wide a unit is. SPAEF's histogram bins and the ranks of Spearman stay
    those of the whole map in all draws.

    Examples
    --------
    >>> from smgrid import synthetic
    >>> scene = synthetic.yanco(seed=0)
    >>> card = compare(scene.airborne, scene.truth.rename("soil_moisture"), coarse=scene.smap)
    >>> card.pearson_r.dims, card.rmse_interval.dims, card.skill.baseline.values.tolist()
    (('time',), ('time', 'bound'), ['mean', 'blocks', 'smooth'])
    """
    if reference_error is not None and not reference_error >= 0:
        raise ValueError(f"the reference's error is a standard error, 0 or more, not {reference_error}")
    others = () if versus is None else (versus,)
    first = open_pair(prediction, reference, *others, coarse_km=coarse_km)
    baselines, beside = _baselines(coarse, first)
    codes, labels = _classes(strata)
    extras = (*beside, *(() if strata is None else (codes,)))
    pair = open_pair(prediction, reference, *others, coarse_km=coarse_km, extras=extras) if extras else first
    judge = _Judge(pair, baselines, len(labels), reference_error, seed)
    coords = {
        **fractions.window_coords(fractions.WINDOWS, pair.place.mean_ground()),
        **variograms.coords(variograms.LAGS),
        **spectra.coords(pair.place),
        "baseline": baselines,
        "stratum": labels,
    }
    card = scorecard(pair, judge, SPEC, coords)
    left_out = [] if spectra.fits(pair.place) else ["spectra", "wet patches"]
    if left_out:
        logger.warning("left out, as a date has more than 2^24 cells: %s", ", ".join(left_out))
    else:
        card = card.merge(_patch_part(pair), combine_attrs="override")
    if "time" in pair.lead and pair.fields[0].sizes["time"] > 1:
        changes = change_of(pair)
        card = card.merge(changes.rename({name: f"change_{name}" for name in changes.data_vars}))
    card.attrs = {
        "title": "comparison of the patterns of two maps",
        "coarse_km": coarse_km,
        "bootstrap_km": pair.place.unit * pair.place.grid.km,
        "interval": f"95 % percentile, {DRAWS} draws of whole blocks",
        "seed": seed,
        "left_out": ", ".join(left_out) or "nothing",
    }
    return card


class _Judge:
    """What is said of one date; `__call__` takes its sheet."""

    def __init__(self, pair: Pair, baselines: list[str], strata: int, error: float | None, seed: int) -> None:
        self.pair, self.baselines, self.strata, self.error, self.seed = pair, baselines, strata, error, seed

    def __call__(self, sheet: Sheet) -> dict[str, Any]:
        out, drawn = self.one(sheet)
        out |= {f"{name}_interval": _bounds(values) for name, values in drawn.items()}
        if len(sheet.fields) > 2:
            other, drawn_other = self.one(sheet.turned((2, 1, 0)))
            for name, values in drawn.items():
                out[f"{name}_versus"] = other[name]
                out[f"{name}_difference"] = out[name] - other[name]
                out[f"{name}_difference_interval"] = _bounds(values - drawn_other[name])
        return out

    def one(self, sheet: Sheet) -> tuple[dict[str, Any], dict[str, NDArray[np.float64]]]:
        """Measures of one prediction, and those of the bootstrap draws."""
        found = basics(sheet)
        table = self.sums(sheet, found)
        limits = table.pop("whole_limits")
        measure = self.measures(found)
        out: dict[str, Any] = dict(measure(total(table)))
        drawn = draws_of(table, measure, self.seed)
        if found.n < MIN_N:
            out = {name: np.full(np.shape(value), np.nan) for name, value in out.items()}
            out |= {"split_n": np.zeros(()), "blocks": np.zeros(())}
        grid = sheet.place.grid
        out["n"] = found.n
        out["coverage"] = found.n / (grid.ny * grid.nx)
        out["coverage_of_reference"] = divide(found.n, found.given[1])
        out |= fractions.said_of(limits) | variograms.variogram_of(table["whole_pairs"])
        if spectra.fits(sheet.place):
            out |= spectra.judge(sheet)
        names = [name for name in WITH_INTERVAL if name in out]
        return out, {name: drawn.get(name, np.full((1, *np.shape(out[name])), np.nan)) for name in names}

    def sums(self, sheet: Sheet, found: Basics) -> dict[str, NDArray[np.float64]]:
        """What all measures are made of, by unit, and the thresholds of wet cells; one pass over the tiles."""
        p_mean, o_mean = found.mean[:2]
        judged, middle = found.n >= MIN_N, (found.n + 1) / 2
        order = orders(sheet, found) if judged else None
        limits = np.full((2, 2), np.nan) if order is None else fractions.thresholds(order)
        bins = similarity.bins_of(sheet, found)
        try:
            span = similarity.data_range_of(self.pair.units)
        except ValueError:  # no range is known for such units, so SSIM is NaN
            span = np.nan

        def look(tile: Tile) -> dict[str, NDArray[np.float64]]:
            p, o = tile.fields[:2]
            out = moment_sums(tile, p, o, p_mean, o_mean) | split_sums(tile, found)
            if order is not None:
                rank_p, rank_o = order[0].rank(p), order[1].rank(o)
                out |= {f"rank_{key}": a for key, a in moment_sums(tile, rank_p, rank_o, middle, middle).items()}
            if bins is not None:
                out |= similarity.histogram_sums(tile, found, bins)
            extras = tile.core(tile.extras)
            out |= _baseline_sums(tile, p, o, extras[: len(self.baselines) - 1])
            if self.strata:
                wheres = [tile.known & (extras[-1] == k) for k in range(self.strata)]
                each = [moment_sums(tile, p, o, p_mean, o_mean, where) for where in wheres]
                out |= {f"stratum_{key}": np.stack([one[key] for one in each]) for key in each[0]}
            inner = tile.trim(max(fractions.WINDOWS) // 2)
            out |= fractions.fraction_sums(inner, sheet.place, limits, fractions.WINDOWS)
            out |= similarity.likeness_sums(tile, sheet.place, span)
            return out | variograms.pair_sums(tile, sheet.place, variograms.LAGS)

        return sheet.tally(look, variograms.LAGS) | {"whole_limits": limits}

    def measures(self, found: Basics) -> Callable[[Table], Mapping[str, NDArray[np.float64]]]:
        """Turn sums, of all units or of those drawn, into measures."""
        p_mean, o_mean = found.mean[:2]
        middle = (found.n + 1) / 2

        def measure(s: Table) -> dict[str, NDArray[np.float64]]:
            m = moments(s, p_mean, o_mean)
            renamed = {"mean_a": "mean_prediction", "mean_b": "mean_reference"}
            renamed |= {"sd_a": "sd_prediction", "sd_b": "sd_reference"}
            out = {renamed.get(name, name): value for name, value in m.items()}
            if "rank_n" in s:
                ranks = {name.removeprefix("rank_"): a for name, a in s.items() if name.startswith("rank_")}
                out["spearman_r"] = moments(ranks, middle, middle)["pearson_r"]
            else:
                out["spearman_r"] = np.full(np.shape(out["bias"]), np.nan)
            out |= split_of(s, found) | _skill_of(s, m["sd_b"], m["mse"], m["n"])
            if self.strata:
                part = {name.removeprefix("stratum_"): a for name, a in s.items() if name.startswith("stratum_")}
                by = moments(part, p_mean, o_mean)
                by = {renamed.get(name, name): value for name, value in by.items()}
                out |= {name: by[name.removeprefix("stratum_")] for name in STRATA}
            if {"hist", "whole_hist"} & {*s}:
                out |= similarity.spaef_of(s, found)
            else:  # a constant map, or draws where bins were not counted by unit
                out |= dict.fromkeys(similarity.SPAEF, np.full(np.shape(m["n"]), np.nan))
            if self.error is not None:
                out |= _ceiling(m, self.error)
            return out | fractions.fss_of(s) | similarity.ssim_of(s)

        return measure


def _bounds(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.moveaxis(bounds(values), 0, -1)


def _ceiling(m: Mapping[str, Any], error: float) -> dict[str, Any]:
    ceiling = np.sqrt(np.maximum(0, 1 - divide(error**2, m["sd_b"] ** 2)))
    return {
        "r_ceiling": ceiling,
        "r_of_ceiling": divide(m["pearson_r"], ceiling),
        "rmse_floor": np.where(m["n"] > 0, error, np.nan),
        "rmse_of_map": np.sqrt(np.maximum(0, m["mse"] - error**2)),
    }


# ---- baselines and strata


def _baselines(coarse: Any, pair: Pair) -> tuple[list[str], tuple[xr.DataArray, ...]]:
    """Names of the baselines, and the coarse field spread to the fine cells as blocks and smoothly."""
    if coarse is None:
        return ["mean"], ()
    field, grid, f = as_field(coarse), pair.place.grid, pair.place.f
    if not pair.place.placed:
        raise ValueError("without coordinates nothing tells where the coarse field's cells lie: give the maps theirs")
    units = field.attrs.get("units")
    if None not in (units, pair.units) and units != pair.units:
        raise ValueError(f"the coarse field is in {units!r}, the maps in {pair.units!r}: convert one of them")
    try:
        fine = Grid.of(field).km == grid.km
    except ValueError:
        fine = False
    if fine:  # blocks already, as a cube carries them
        field = as_field(to_grid(field, grid.coarsen(f), min_coverage=0.01))  # cells at the rim show in part
    return ["mean", "blocks", "smooth"], tuple(
        as_field(spread(field, grid)) for spread in (spreads.blocks, spreads.smooth)
    )


def _baseline_sums(
    tile: Tile, p: NDArray[Any], o: NDArray[Any], baselines: NDArray[np.float64]
) -> dict[str, NDArray[np.float64]]:
    if not len(baselines):
        return {}
    known = np.isfinite(baselines) & tile.known
    own, base = (np.where(known, (a - o) ** 2, 0.0) for a in (p, baselines))
    return {"skill_n": tile.by_unit(known), "skill_own": tile.by_unit(own), "skill_base": tile.by_unit(base)}


def _skill_of(s: Table, sd_o: Any, mse: Any, n: Any) -> dict[str, NDArray[np.float64]]:
    """Skill against the reference's own mean, then against the baselines."""
    first = [np.asarray(1 - divide(mse, sd_o**2)), np.asarray(sd_o), np.asarray(n)]
    if "skill_n" not in s:
        skill, error, cells = (a[..., None] for a in first)
    else:
        rest = (
            1 - divide(s["skill_own"], s["skill_base"]),
            np.sqrt(divide(s["skill_base"], s["skill_n"])),
            s["skill_n"],
        )
        skill, error, cells = (np.concatenate([a[..., None], b], axis=-1) for a, b in zip(first, rest))
    return {"skill": skill, "rmse_baseline": error, "n_baseline": cells}


def _classes(strata: Any) -> tuple[xr.DataArray | None, list[str]]:
    """Classes as numbers from 0, and their names."""
    if strata is None:
        return None, []
    if not isinstance(strata, xr.DataArray):
        raise TypeError(f"strata are a DataArray of classes, not {type(strata).__name__}")
    flags = strata.attrs.get("flag_values")
    if flags is not None:
        values = np.atleast_1d(np.asarray(flags))
    else:
        values = np.asarray(np.unique(strata.data) if strata.chunks is None else da.unique(strata.data).compute())
        values = values[np.isfinite(values)] if values.dtype.kind == "f" else values
    if values.size > CLASSES:
        raise ValueError(
            f"the strata have {values.size} values, at most {CLASSES} are taken: strata are classes such as land "
            "cover; cut a continuous field into classes, strata = xr.apply_ufunc(np.digitize, field, [0.1, 0.2])"
        )
    names = str(strata.attrs.get("flag_meanings", "")).split()
    labels = names if len(names) == values.size else [str(value) for value in values.tolist()]
    codes = xr.full_like(strata, np.nan, dtype="f8")
    for k, value in enumerate(values):
        codes = codes.where(strata != value, float(k))
    return codes.assign_attrs({}), labels


# ---- wet patches


def _patch_part(pair: Pair) -> xr.Dataset:
    """The table of wet patches, its names made fit for a scorecard."""
    found = patches.table(pair, [patches.patches_of(pair.sheet(at)) for at in np.ndindex(pair.lead_shape)])
    columns = {name: f"patch_{name}" for name in found.data_vars if "patch" in found[name].dims}
    columns = {name: new for name, new in columns.items() if not str(name).startswith("patch_")}
    return found.rename({**columns, "threshold": "patch_threshold"})
