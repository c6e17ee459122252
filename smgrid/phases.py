"""Says how strongly the edges of a coarse grid stand out on a map, and how sure that is.

A model that is fed one value per 9-km cell may copy that cell's edges onto its 1-km map. Such edges have known places:
with `c` the column in the global grid, the step from column c - 1 to c crosses an edge where c mod 9 = 0. So all steps
between neighbours are sorted by this *phase*, and steps at phase 0 are compared with those of the eight other phases:
where nothing is imprinted, no phase is special, whatever the texture of the map.

Steps along one edge resemble each other, so they are no independent witnesses. The test therefore turns whole *strips*
(a column of blocks for steps along x, a row of blocks for steps along y) by random numbers of cells. What it needs of
the map are three sums by direction, strip and phase, which blocks of any size give piece by piece.

Cells of another grid (ERA5-Land's 0.1 degrees are 9 or 10 columns and 10 or 11 rows) have no phase. Their own edges are
moved, all of them together, by up to 4 cells either way, and the ratio at their place is ranked among these 81.
"""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from smgrid.borders import Borders, cells_across, one_field, source_of
from smgrid.jumps import OFFSETS
from smgrid.steps import DIRECTIONS, open_field, step_sums

WRONG_PHASE = 0.005  # p-value, per direction, below which a peak off the edges is reported
_SOURCES = "after Wu & Yuen (1997), doi:10.1109/97.641398, and Wang et al. (2000), doi:10.1109/ICIP.2000.899622"


def detect(
    field: xr.DataArray | xr.Dataset | NDArray[Any],
    *,
    coarse_km: float = 9,
    coarse: xr.DataArray | None = None,
    how: str = "blocks",
    permutations: int = 999,
    seed: int = 0,
) -> xr.Dataset:
    """Say how strong the edges of a coarse grid are on a map, and how sure that is.

    Parameters
    ----------
    field : DataArray or maps, dims (..., y, x)
        On the EASE-Grid 2.0; missing is NaN; any units. Leading dims such as `time` are judged one by one. Without
        any coordinates the cells are taken as 1 km and the first one as the corner of a coarse cell, which is logged.
    coarse_km : float
        Side of the coarse cells: a whole number (2 or more) of the field's cells.
    coarse : DataArray, optional
        A coarse field whose own cell edges are looked at instead, on any axes that `smgrid.coarse` takes. The result
        then has a dim `offset` (cells that the edges were moved, -4 to 4) in place of `phase`, `p_value` is the rank of
        the ratio among those at all 81 pairs of offsets (1 / 81 at best), and no peak is looked for.
    how : {"blocks", "mean"}
        How `coarse` came to the map's cells; see `imprint`. By "mean" most steps are split over two lines.
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
    shift_p_value
        The same without strips: rank of the ratio among those of the grid moved by every number of cells.
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
    if permutations < 1 or permutations % 1:
        raise ValueError(
            f"a p-value needs at least one permutation, and a whole number of them, not {permutations}; 999 is customary"
        )
    values, grid = open_field(field)
    if coarse is not None:
        coarse = one_field(coarse)
        source = source_of(coarse, grid, str(coarse.name or "coarse"), how)
        sums = dict(zip("xy", step_sums(values.data)))
        found: Any = _judge_shifts([_shifted(sums[d], b) for d, b in zip("xy", (source.x, source.y))])
        return _dress(found, values, {"title": f"imprint of the cells of {source.name}", "how": how})
    f = cells_across(grid, coarse_km)
    first = dict(zip("yx", grid.phase(coarse_km)))
    sums = dict(zip("xy", step_sums(values.data)))
    tables = [_table(sums[direction][..., :3, :], first[direction], f) for direction in DIRECTIONS]
    found = _judge(tables, permutations, seed)
    said = {"coarse_km": coarse_km, "permutations": permutations, "seed": seed}
    result = _dress(found, values, {"title": f"imprint of {coarse_km:g}-km cells"} | said)
    _warn_of_wrong_phases(result, first)
    return result


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
    shift_p_value: NDArray[np.float64]


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
        _rank(by_phase, n, 0),
    )


def _rank(by_offset: NDArray[np.float64], n: NDArray[np.float64], here: int) -> NDArray[np.float64]:
    """Share of the pairs of offsets (..., direction, offset) whose ratio reaches the one `here`, itself included."""
    known = ~np.isnan(by_offset) & (n > 0)
    weighed = np.where(known, n * np.where(known, by_offset, 0), 0)
    weight = np.where(known, n, 0)
    pairs = _divide(
        weighed[..., 0, :, None] + weighed[..., 1, None, :], weight[..., 0, :, None] + weight[..., 1, None, :]
    )
    found = pairs[..., here, here]
    reached = (pairs >= (found * (1 - 1e-12))[..., None, None]).sum((-1, -2))
    return np.where(np.isnan(found), np.nan, reached / np.prod(pairs.shape[-2:]))


# ---- edges of any cells


class _Shifts(NamedTuple):
    ratio: NDArray[np.float64]
    p_value: NDArray[np.float64]
    amplitude: NDArray[np.float64]
    tau2: NDArray[np.float64]
    profile: NDArray[np.float64]
    n: NDArray[np.int64]
    ratio_by_direction: NDArray[np.float64]
    tau2_by_direction: NDArray[np.float64]


def _shifted(sums: NDArray[np.float64], borders: Borders) -> NDArray[np.float64]:
    """Sums over the borders moved by each offset, and over all other lines: (..., 3, 2, offset)."""
    sums, size = sums[..., :3, :], sums.shape[-1]
    lines = np.union1d(borders.line, borders.line[borders.wide > 0] + 1)
    out = np.empty((*sums.shape[:-1], 2, OFFSETS.size))
    for k, offset in enumerate(OFFSETS):
        there = np.zeros(size, bool)
        moved = lines + offset
        there[moved[(moved > 0) & (moved < size)]] = True
        out[..., 0, k], out[..., 1, k] = sums[..., there].sum(-1), sums[..., ~there].sum(-1)
    return out


def _judge_shifts(tables: list[NDArray[np.float64]]) -> _Shifts:
    """Everything that is said of a field, out of sums (..., 3, at the borders or not, offset), one per direction."""
    here = OFFSETS.size // 2
    absolute, square, n = np.moveaxis(np.stack(tables, axis=-4), -3, 0)  # each (..., direction, at or not, offset)
    profile = _divide(absolute, n)
    ratios = _divide(profile[..., 0, :], profile[..., 1, :])
    squares = _divide(square, n)
    tau2_by_direction = squares[..., 0, here] - squares[..., 1, here]
    weights = n[..., 0, here]
    ratio, tau2 = _pool(ratios[..., here], weights), _pool(tau2_by_direction, weights)
    return _Shifts(
        ratio,
        _rank(ratios, n[..., 0, :], here),
        np.sqrt(np.maximum(0, tau2)),
        tau2,
        profile[..., 0, :],
        n[..., 0, :].astype("i8"),
        ratios[..., here],
        tau2_by_direction,
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


def _dress(found: _Judgement | _Shifts, values: xr.DataArray, attributes: dict[str, Any]) -> xr.Dataset:
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
        "shift_p_value": ("rank of the ratio among those of the grid moved", "1", "#{B(dx, dy) >= B} / f^2"),
        "peak_p_value": ("p-value of the peak, whatever its phase", "1", "(1 + #{max* >= max}) / (1 + permutations)"),
    }
    extra: dict[str, tuple[str, ...]] = dict.fromkeys(
        ("ratio_by_direction", "tau2_by_direction", "peak_phase", "peak_p_value"), ("direction",)
    )
    axis = "phase" if isinstance(found, _Judgement) else "offset"
    extra |= dict.fromkeys(("profile", "n"), ("direction", axis))
    variables = {}
    for name, (long_name, unit, formula) in said.items():
        if name not in found._fields:
            continue
        attrs = {"long_name": long_name, "units": unit, "formula": formula}
        attrs = {key: value for key, value in attrs.items() if value is not None}
        variables[name] = ((*lead, *extra.get(name, ())), getattr(found, name), attrs)
    places: dict[str, Any] = {
        "phase": {"long_name": "cells from the coarse cell's west (x) or north (y) edge; a step into 0 crosses it"},
        "offset": {"long_name": "cells that the edges of the coarse cells were moved east (x) or south (y)"},
    }
    steps = np.arange(found.n.shape[-1]) if axis == "phase" else OFFSETS
    kept = values.coords.to_dataset().drop_dims(["y", "x"], errors="ignore").drop_vars("spatial_ref", errors="ignore")
    result = kept.assign_coords(
        {
            "direction": ("direction", list(DIRECTIONS), {"long_name": "axis along which neighbours are compared"}),
            axis: (axis, steps, places[axis]),
        }
    ).assign(variables)
    if axis == "offset":
        result["p_value"].attrs.update(
            long_name="rank of the ratio among those of edges moved", formula="#{B* >= B} / 81"
        )
    result.attrs = {"source": _SOURCES} | attributes
    return result


def _warn_of_wrong_phases(result: xr.Dataset, first: dict[str, int]) -> None:
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
    one = result[["peak_phase"]].where(wrong).isel(dict(zip(wrong.dims[:-1], np.argwhere(wrong.values)[0])))
    begins = [
        f"first {word} then lies {int(first[d] - peak) % result.sizes['phase']} cells into a coarse cell"
        for d, word in (("x", "column"), ("y", "row"))
        if np.isfinite(peak := one.peak_phase.sel(direction=d).item())
    ]
    message = (
        f"steps stand out at {shown}, where no {result.attrs['coarse_km']:g}-km edge lies: the map, or the coarse "
        "input it was made with, is likely flipped, shifted or on another grid. If the map was cut out and its place "
        f"lost, its {' and its '.join(begins)}"
    )
    result.attrs["wrong_phase"] = message
    warnings.warn(message, UserWarning, stacklevel=3)
