"""Finds the marks that coarse inputs leave on a fine map.

A model that is fed one value per 9-km cell may copy that cell's edges onto its 1-km map. Such edges have known places:
with `c` the column in the global grid, the step from column c - 1 to c crosses an edge where c mod 9 = 0. So all steps
between neighbours are sorted by this *phase*, and steps at phase 0 are compared with those of the eight other phases:
where nothing is imprinted, no phase is special, whatever the texture of the map.

Steps along one edge resemble each other, so they are no independent witnesses. The test therefore turns whole *strips*
(a column of blocks for steps along x, a row of blocks for steps along y) by random numbers of cells. What it needs of
the map are three sums by direction, strip and phase, which blocks of any size give piece by piece.
"""

from __future__ import annotations

import logging
import warnings
from typing import Any, NamedTuple

import dask.array as da
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from smgrid.grid import Grid, find_crs
from smgrid.shapes import as_field

logger = logging.getLogger("smgrid")

DIRECTIONS = ("x", "y")
SLAB = 2**20  # cells taken to float64 at a time
WRONG_PHASE = 0.005  # p-value, per direction, below which a peak off the edges is reported
_SOURCES = "after Wu & Yuen (1997), doi:10.1109/97.641398, and Wang et al. (2000), doi:10.1109/ICIP.2000.899622"


def detect(
    field: xr.DataArray | xr.Dataset | NDArray[Any], *, coarse_km: float = 9, permutations: int = 999, seed: int = 0
) -> xr.Dataset:
    """Say how strong the edges of a coarse grid are on a map, and how sure that is.

    Parameters
    ----------
    field : DataArray or maps, dims (..., y, x)
        On the EASE-Grid 2.0; missing is NaN; any units. Leading dims such as `time` are judged one by one. Without
        any coordinates the cells are taken as 1 km and the first one as the corner of a coarse cell, which is logged.
    coarse_km : float
        Side of the coarse cells: a whole number (2 or more) of the field's cells.
    permutations : int
        Random turns of the strips behind each p-value.
    seed : int
        The same for every date, so a date's result does not depend on the others.

    Returns
    -------
    Dataset, computed, with the leading dims of the field and

    ratio
        Mean absolute step at the coarse edges over that elsewhere, taken per direction, then averaged with the numbers
        of edge steps as weights: 1 = no imprint, 1.1 = edges stand out by 10 %. Infinite where nothing else varies,
        NaN where nothing varies at all. A direction in which nothing varies does not count.
    p_value
        Share of the permutations that reach the ratio, itself included; NaN with fewer than 3 strips.
    amplitude
        Root-mean-square imprinted step, sqrt(max(0, tau2)).
    tau2
        Mean square step at the edges less that elsewhere: 2 a^2 for independent block offsets of standard deviation a.
        Negative by chance where there is no imprint.
    profile, n : (..., direction, phase)
        Mean absolute step by phase, and the number of pairs with both cells known. A pair belongs to its right or lower
        cell; phase 0 crosses a coarse edge.
    ratio_by_direction, tau2_by_direction : (..., direction)
        The same for steps along x (across west-east neighbours) and along y alone.
    peak_phase, peak_p_value : (..., direction)
        The phase whose steps stand out most, and the share of permutations in which any phase stands out as much.

    Warns
    -----
    UserWarning
        In a direction the peak is not at phase 0 and its p-value is 0.005 or less: the map is likely flipped or
        shifted, or its blocks are another grid's. Without an imprint this comes up in less than 1 % of maps.

    Raises
    ------
    ValueError
        The field's coordinates are off the EASE-Grid 2.0, or `coarse_km` is not a whole number of its cells.

    Notes
    -----
    The detector cannot tell an imprint from a landscape whose own edges follow the coarse grid: judge the reference map
    and the predictors with it too.

    References
    ----------
    Wu & Yuen (1997), IEEE Signal Process. Lett. 4, 317-320, doi:10.1109/97.641398
    Wang, Bovik & Evans (2000), Proc. ICIP, doi:10.1109/ICIP.2000.899622

    Examples
    --------
    >>> from smgrid import YANCO
    >>> rng = np.random.default_rng(0)
    >>> blocks = rng.normal(0, 0.02, (10, 9)).repeat(9, 0).repeat(9, 1)[:84, :75]
    >>> field = xr.DataArray(0.2 + blocks + rng.normal(0, 0.01, YANCO.shape), YANCO.coords(), ("y", "x"))
    >>> found = detect(field)  # a synthetic imprint with steps of sqrt(2) 0.02
    >>> found.ratio.round(1).item(), found.amplitude.round(2).item(), found.p_value.item()
    (2.3, 0.03, 0.001)
    """
    if permutations < 1:
        raise ValueError(f"a p-value needs at least one permutation, not {permutations}; 999 is customary")
    values, grid = _open(field)
    first = dict(zip("yx", grid.phase(coarse_km)))
    f = round(coarse_km / grid.km)
    if f < 2:
        raise ValueError(
            f"a coarse cell of {coarse_km} km holds no step between {grid.km}-km cells: coarse_km is larger"
        )
    sums = dict(zip("xy", _line_sums(values.data)))
    tables = [_table(sums[direction], first[direction], f) for direction in DIRECTIONS]
    found = _judge(tables, permutations, seed)
    result = _dress(found, values, coarse_km, permutations, seed)
    _warn_of_wrong_phases(result)
    return result


# ---- the sums behind everything


def _open(field: Any) -> tuple[xr.DataArray, Grid]:
    """The field with y and x last, and its window of the grid, which gives the phase."""
    if isinstance(field, np.ndarray | da.Array):
        field = xr.DataArray(field, dims=[*(f"dim_{i}" for i in range(field.ndim - 2)), "y", "x"][-field.ndim :])
    values = as_field(field)
    if not {"y", "x"} <= set(values.dims):
        raise ValueError(
            f"the field has the dims {values.dims}, without 'y' and 'x': field = field.rename(latitude='y', "
            "longitude='x') or whatever they are called"
        )
    values = values.transpose(..., "y", "x")
    if values.chunks is None and values.size > 16 * SLAB:  # a large file is read, and a large array judged, by blocks
        values = values.chunk({dim: 2048 if dim in ("y", "x") else 1 for dim in values.dims})
    placed = any({"y", "x"} & set(coord.dims) for coord in values.coords.values()) or find_crs(field) is not None
    if not placed:
        logger.warning(
            "the field has no coordinates: the phase is assumed, its cells taken as 1 km and the first one as the "
            "corner of a coarse cell"
        )
        return values, Grid(1, 0, 0, values.sizes["y"], values.sizes["x"])
    return values, Grid.of(field)


def _line_sums(z: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sums of |step|, step^2 and counts over all lines, for steps along x (..., 3, nx) and along y (..., 3, ny)."""
    if not isinstance(z, da.Array):
        return _sums(z), _sums(z.swapaxes(-1, -2))
    # Each block gets the last row and column of those above and to the left, so every pair is seen once.
    halo = da.overlap.overlap(z, depth={z.ndim - 2: (1, 0), z.ndim - 1: (1, 0)}, boundary="none")
    found = []
    for turned, chunks in ((halo, z.chunks), (halo.swapaxes(-1, -2), (*z.chunks[:-2], z.chunks[-1], z.chunks[-2]))):
        lines = (1,) * len(chunks[-2])
        parts = da.map_blocks(
            _block_sums,
            turned,
            new_axis=z.ndim - 2,
            chunks=(*chunks[:-2], (3,), lines, chunks[-1]),
            meta=np.empty((0,) * (z.ndim + 1)),
        )
        found.append(parts.sum(-2))
    x, y = da.compute(*found)
    return x, y


def _block_sums(z: NDArray[Any], block_id: tuple[int, ...]) -> NDArray[np.float64]:
    """`_sums` of one block with its halo, as one line of blocks: (..., 3, 1, n)."""
    top, left = (int(i > 0) for i in block_id[-2:])
    return _sums(z[..., top:, :])[..., None, left:]


def _sums(z: NDArray[Any]) -> NDArray[np.float64]:
    """Sums over axis -2 of |step|, step^2 and counts along axis -1; a pair belongs to its second cell: (..., 3, n)."""
    out = np.zeros((*z.shape[:-2], 3, z.shape[-1]))
    lines = max(1, SLAB // max(1, z.shape[-1]))
    for lead in np.ndindex(*z.shape[:-2]):
        for start in range(0, z.shape[-2], lines):
            with np.errstate(invalid="ignore"):  # infinite less infinite
                step = np.abs(np.diff(z[lead][start : start + lines].astype("f8"), axis=-1))
            known = np.isfinite(step)
            step[~known] = 0
            out[lead][:, 1:] += step.sum(0), np.einsum("ij,ij->j", step, step), known.sum(0)
    return out


def _table(sums: NDArray[np.float64], first: int, f: int) -> NDArray[np.float64]:
    """Lay the sums of a direction out by strip and phase: (..., 3, n) to (..., 3, strips, f)."""
    strips = -(-(first + sums.shape[-1]) // f)
    table = np.zeros((*sums.shape[:-1], strips * f))
    table[..., first : first + sums.shape[-1]] = sums
    return table.reshape(*sums.shape[:-1], strips, f)


# ---- the statistic and its test


class _Judgement(NamedTuple):
    ratio: NDArray[np.float64]
    p_value: NDArray[np.float64]
    amplitude: NDArray[np.float64]
    tau2: NDArray[np.float64]
    profile: NDArray[np.float64]
    n: NDArray[np.int64]
    ratio_by_direction: NDArray[np.float64]
    tau2_by_direction: NDArray[np.float64]
    peak_phase: NDArray[np.float64]
    peak_p_value: NDArray[np.float64]


def _judge(tables: list[NDArray[np.float64]], permutations: int, seed: int) -> _Judgement:
    """Everything that is said of a field, out of its tables (..., 3, strips, phase), one per direction."""
    absolute, square, n = np.moveaxis(np.stack([t.sum(-2) for t in tables], axis=-3), -2, 0)  # each (..., direction, f)
    by_phase = _against_others(absolute, n)
    ratio_by_direction, weights = by_phase[..., 0], n[..., 0]
    others = ~np.eye(n.shape[-1], dtype=bool)[0]
    tau2_by_direction = _divide(square[..., 0], n[..., 0]) - _divide(
        square[..., others].sum(-1), n[..., others].sum(-1)
    )
    ratio, tau2 = _pool(ratio_by_direction, weights), _pool(tau2_by_direction, weights)

    lowered = np.where(np.isnan(by_phase), -np.inf, by_phase)
    peak = lowered.max(-1)
    p_value, peak_p = np.full(ratio.shape, np.nan), np.full(peak.shape, np.nan)
    for at in np.ndindex(ratio.shape):
        strips = sum(int(t[at][2].any(-1).sum()) for t in tables)
        if strips < 3 or np.isnan(ratio[at]):
            continue
        rng = np.random.default_rng(seed)
        turned = np.stack(
            [_turn(t[at][[0, 2]], permutations, rng) for t in tables], axis=1
        )  # (permutation, direction, 2, f)
        null = _against_others(turned[:, :, 0], turned[:, :, 1])
        p_value[at] = _share(_pool(null[..., 0], turned[:, :, 1, 0]), ratio[at])
        peak_p[at] = _share(np.where(np.isnan(null), -np.inf, null).max(-1), peak[at])
    dull = np.isneginf(peak)
    return _Judgement(
        ratio,
        p_value,
        np.sqrt(np.maximum(0, tau2)),
        tau2,
        _divide(absolute, n),
        n.astype("i8"),
        ratio_by_direction,
        tau2_by_direction,
        np.where(dull, np.nan, lowered.argmax(-1)),
        np.where(dull, np.nan, peak_p),
    )


def _turn(table: NDArray[np.float64], permutations: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Sums by phase once every strip is turned by its own random number of cells: (permutations, 2, f).

    `table` holds sums and counts: (2, strips, f). Strips are added one at a time, so memory does not grow with them.
    """
    f = table.shape[-1]
    turns = (np.arange(f) - np.arange(f)[:, None]) % f  # (turn, phase)
    total = np.zeros((permutations, len(table), f))
    for strip in table.swapaxes(0, 1):
        total += strip[:, turns].swapaxes(0, 1)[rng.integers(0, f, permutations)]
    return total


def _against_others(total: NDArray[np.float64], n: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean at each phase over the mean at all others, along the last axis."""
    others = 1.0 - np.eye(n.shape[-1])  # summed, not total less own: an interior of zeros stays exactly zero
    return _divide(_divide(total, n), _divide(total @ others, n @ others))


def _pool(values: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weighted mean over the directions (last axis) that have a value."""
    known = ~np.isnan(values) & (weights > 0)
    weights = np.where(known, weights, 0)
    return _divide((weights * np.where(known, values, 0)).sum(-1), weights.sum(-1))


def _share(null: NDArray[np.float64], found: NDArray[np.float64]) -> NDArray[np.float64]:
    """Share of draws (first axis), the found value among them, that reach it; ties hold in spite of rounding."""
    return (1 + (null >= found * (1 - 1e-12)).sum(0)) / (1 + len(null))


def _divide(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(a) / np.asarray(b)


# ---- what is handed back


def _dress(found: _Judgement, values: xr.DataArray, coarse_km: float, permutations: int, seed: int) -> xr.Dataset:
    """The findings as a Dataset that explains itself."""
    lead = values.dims[:-2]
    units = values.attrs.get("units")
    squared = None if units is None else "1" if units == "1" else f"({units})^2"
    said = {
        "ratio": ("mean absolute step at coarse edges over that elsewhere (B)", "1", "sum_d N_d(0) B_d / sum_d N_d(0)"),
        "p_value": ("p-value of the ratio, strips turned at random", "1", "(1 + #{B* >= B}) / (1 + permutations)"),
        "amplitude": ("root-mean-square imprinted step", units, "sqrt(max(0, tau2))"),
        "tau2": ("excess mean square step at coarse edges", squared, "sum_d N_d(0) tau2_d / sum_d N_d(0)"),
        "profile": ("mean absolute step between neighbours", units, "m_d(phase) = S_d(phase) / N_d(phase)"),
        "n": ("number of pairs of neighbours", "1", "N_d(phase)"),
        "ratio_by_direction": ("ratio of one direction", "1", "B_d = m_d(0) / m_d(other phases)"),
        "tau2_by_direction": ("tau2 of one direction", squared, "D_d(0) - D_d(other phases), D = mean square step"),
        "peak_phase": ("phase whose steps stand out most", "1", "argmax of m_d(phase) / m_d(other phases)"),
        "peak_p_value": ("p-value of the peak, whatever its phase", "1", "(1 + #{max* >= max}) / (1 + permutations)"),
    }
    extra: dict[str, tuple[str, ...]] = {
        **dict.fromkeys(("profile", "n"), ("direction", "phase")),
        **dict.fromkeys(("ratio_by_direction", "tau2_by_direction", "peak_phase", "peak_p_value"), ("direction",)),
    }
    variables = {}
    for name, (long_name, unit, formula) in said.items():
        attrs = {"long_name": long_name, "units": unit, "formula": formula}
        attrs = {key: value for key, value in attrs.items() if value is not None}
        variables[name] = ((*lead, *extra.get(name, ())), getattr(found, name), attrs)
    phase_attrs = {"long_name": "cells from the coarse cell's west (x) or north (y) edge; a step into 0 crosses it"}
    kept = values.coords.to_dataset().drop_dims(["y", "x"], errors="ignore").drop_vars("spatial_ref", errors="ignore")
    result = kept.assign_coords(
        direction=("direction", list(DIRECTIONS), {"long_name": "axis along which neighbours are compared"}),
        phase=("phase", np.arange(found.n.shape[-1]), phase_attrs),
    ).assign(variables)
    result.attrs = {
        "title": f"imprint of {coarse_km:g}-km cells",
        "source": _SOURCES,
        "coarse_km": coarse_km,
        "permutations": permutations,
        "seed": seed,
    }
    return result


def _warn_of_wrong_phases(result: xr.Dataset) -> None:
    """Warn where steps stand out at a phase that is no coarse edge, and keep the words in `attrs["wrong_phase"]`.

    Each direction is judged alone, for a flip of the rows moves the phase along y and leaves that along x.
    """
    wrong = (result.peak_phase > 0) & (result.peak_p_value <= WRONG_PHASE)
    result.attrs["wrong_phase"] = "none"
    if not wrong.any():
        return
    places = []
    for at in np.argwhere(wrong.values):
        one = result.isel(dict(zip(wrong.dims, at)))
        dims = [dim for dim in wrong.dims if dim != "direction"]
        where = "".join(f", {dim} {one[dim].values if dim in one.coords else at[k]}" for k, dim in enumerate(dims))
        places.append(f"phase {one.peak_phase:.0f} along {one.direction.item()}{where} (p = {one.peak_p_value:.3g})")
    shown = "; ".join(places[:4]) + (f"; and {len(places) - 4} more" if len(places) > 4 else "")
    message = (
        f"steps stand out at {shown}, where no {result.attrs['coarse_km']:g}-km edge lies: the map, or the coarse "
        "input it was made with, is likely flipped, shifted or on another grid"
    )
    result.attrs["wrong_phase"] = message
    warnings.warn(message, UserWarning, stacklevel=3)
