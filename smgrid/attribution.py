"""Says which predictor a seam comes from, by asking the model.

Across the border of two coarse cells stand two cells L and R, and the map steps by f(R) - f(L). Give L one predictor of
R, and R that of L: the mean of the two changes, f(L with it) - f(L) and f(R) - f(R without it), is what this predictor
does to the step. Of an additive model these add up to the step exactly.

All predictors differ a little between neighbours, at a border as elsewhere. What makes a seam is what a predictor does
there and not a few cells aside: the excess of its mean square effect. Lines aside along which another coarse predictor
has its borders are left out: a predictor that does nothing on most lines aside is coarse. The blocks of a map go through
the function that `predict_map` uses, with one cell of their neighbours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from smgrid.borders import Borders, one_field, regular, source_of
from smgrid.grid import Grid
from smgrid.layers import Plan
from smgrid.models import Model
from smgrid.predict import Job


def seams(
    cube: xr.Dataset | xr.DataArray,
    model: Any,
    *,
    coarse: xr.DataArray | None = None,
    coarse_km: float = 9,
    how: str = "blocks",
    units: Mapping[str, str] | str | None = None,
) -> xr.Dataset:
    """Say which predictor carries the steps that a map makes across the borders of coarse cells.

    Parameters
    ----------
    cube, model, units
        As for `predict_map`; the cube on the EASE-Grid 2.0.
    coarse : DataArray, optional
        A coarse field whose own cell edges are looked at.
    coarse_km : float
        Side of the coarse cells where no `coarse` is given.
    how : {"blocks", "mean"}
        How `coarse` came to the cube's cells; see `seams.imprint`.

    Returns
    -------
    Dataset, computed, with the leading dims of the map and

    excess, standard_error, p_value : (..., predictor)
        Excess mean square effect of the predictor at the borders, (m3 m-3)^2; its error by leaving out one strip (border
        line) at a time; one-sided p-value of none. NaN with fewer than 3 strips.
    share : (..., predictor)
        The excess over the sum of all that are positive; NaN where none is.
    step, step_aside : (..., predictor)
        Root-mean-square step that the predictor makes at the borders, and 2 to 4 cells aside; m3 m-3.
    total_step, total_step_aside
        The map's own.
    n, strips
        Pairs of cells across borders, and border lines.

    Raises
    ------
    ValueError
        As for `predict_map`; `coarse_km` is no whole number of cells, or no border lies in the cube.

    Notes
    -----
    Each predictor that differs across a line costs two predictions a pair of cells, at 4 lines of 9 along x and along y:
    of 23 predictors, 15 fine ones, some 30 times as many rows as the map has cells.

    References
    ----------
    Strumbelj & Kononenko (2014), Knowl. Inf. Syst. 41, 647-665, doi:10.1007/s10115-013-0679-x (exchange of one value)

    Examples
    --------
    >>> import pandas as pd, smgrid
    >>> from sklearn.linear_model import LinearRegression
    >>> rng = np.random.default_rng(0)
    >>> table = pd.DataFrame({"smap": rng.uniform(0.1, 0.4, 50), "sand": rng.uniform(20, 60, 50)})
    >>> table["soil_moisture"] = 0.6 * table.smap - 0.001 * table.sand + 0.2
    >>> model = smgrid.train(table, LinearRegression(), features=["smap", "sand"])
    >>> cells = smgrid.YANCO.coarsen(9)
    >>> smap = xr.DataArray(rng.uniform(0.1, 0.4, cells.shape), cells.coords(), ("y", "x"), attrs={"units": "m3 m-3"})
    >>> sand = (("y", "x"), rng.uniform(20, 60, smgrid.YANCO.shape), {"units": "%"})
    >>> cube = smgrid.coarse.blocks(smap, smgrid.YANCO).to_dataset(name="smap").assign(sand=sand)  # synthetic
    >>> seams(cube, model).share.round(1).to_series().to_dict()
    {'smap': 1.0, 'sand': 0.0}
    """
    job = Job.of(cube, model, units=units)
    grid = Grid.of(job.cube)
    borders = regular(grid, coarse_km)
    if coarse is not None:
        coarse = one_field(coarse)
        source = source_of(coarse, grid, str(coarse.name or "coarse"), how)
        borders = source.x, source.y
    if not any(b.line.size for b in borders):
        raise ValueError(f"no border of {coarse_km:g}-km cells lies within {grid}: give a larger cube")
    pairs = [_Pairs.of(b, n) for b, n in zip(borders, (grid.nx, grid.ny))]
    k = len(job.plan.names)
    sums = _without_others(_sums(job, pairs), pairs, k)
    strips = [_by_strip(s, p) for s, p in zip(sums, pairs)]
    return _dress(_share_out(np.concatenate(strips, -1)), job, borders, coarse_km if coarse is None else coarse.name)


def _size(job: Job, dim: str) -> int:
    return next(v.sizes[dim] for v in [*job.inputs, job.cube] if v is not None and dim in v.sizes)


class _Pairs(NamedTuple):
    """The pairs of cells that are compared along one axis: across borders, and aside."""

    line: NDArray[np.int64]  # the cell between or beyond: both cells of the pair touch it
    before: NDArray[np.int64]
    beyond: NDArray[np.int64]
    strip: NDArray[np.int64]  # which border a pair belongs to
    aside: NDArray[np.bool_]

    @classmethod
    def of(cls, borders: Borders, n: int) -> _Pairs:
        apart = int(np.diff(borders.line).min(initial=9))
        offsets = sorted({apart // 2, -(apart // 3), apart // 4} - {0})  # 4, -3 and 2 cells from borders 9 cells apart
        aside = np.repeat([False, *(True for _ in offsets)], borders.line.size)
        line = np.concatenate([borders.line, *(borders.line + o + (o > 0) * borders.wide for o in offsets)])
        wide = np.concatenate([borders.wide, *(np.zeros_like(borders.wide) for _ in offsets)])
        strip = np.tile(np.arange(borders.line.size), 1 + len(offsets))
        inside = (line > 0) & (line + wide < n)
        return cls(line[inside], (line - 1)[inside], (line + wide)[inside], strip[inside], aside[inside])


# ---- block by block


def _sums(job: Job, pairs: Sequence[_Pairs]) -> list[NDArray[np.float64]]:
    """Sums (..., [n, step^2, effects^2], pair) over the strips, along x and along y."""
    arrays, ndim = job.arrays(), len(job.dims)
    shape = [_size(job, dim) for dim in job.dims]
    axes = [i.axes for i in job.plan.inputs]
    works = [partial(_block, plan=job.plan, axes=axes, pairs=p, along=ndim - 1 - k) for k, p in enumerate(pairs)]
    if not job.is_lazy:
        ends = [np.arange(n) for n in shape[-2:]]
        found = [work(job.model, *ends, *ends, *arrays)[..., 0, :] for work in works]
        return [f[..., p.line] for f, p in zip(found, pairs)]
    import dask.array as da

    chunks: dict[int, tuple[int, ...]] = {d: (n,) for d, n in enumerate(shape)}
    for array, own in zip(arrays, axes):
        chunks |= dict(zip(own, array.chunks))
    ends = [da.arange(n, chunks=chunks[ndim - 2 + k]) for k, n in enumerate(shape[-2:])]
    rows, cols = ndim - 2, ndim - 1
    laid: list[tuple[Any, tuple[int, ...]]] = [(ends[0], (rows,)), (ends[1], (cols,))]
    for array, own in [*laid, *zip(arrays, axes)]:  # each block gets one cell of its neighbours
        depth = {n: int(axis in (rows, cols)) for n, axis in enumerate(own)}
        laid.append(
            (da.overlap.overlap(array, depth, "none", allow_rechunk=False) if any(depth.values()) else array, own)
        )
    lazy = []
    for work, along in zip(works, (cols, rows)):
        across = rows + cols - along
        out = (*range(rows), ndim, across, along)
        blocks = da.blockwise(
            work,
            out,
            job.kept_model(),
            (),
            *(part for pair in laid for part in pair),
            new_axes={ndim: 2 + len(axes)},
            adjust_chunks={across: (1,) * len(chunks[across]), along: chunks[along]},
            dtype="f8",
            meta=np.empty((0,) * (ndim + 1)),
            align_arrays=False,
        )
        lazy.append(blocks.sum(-2))
    return [f[..., p.line] for f, p in zip(da.compute(*lazy), pairs)]


def _block(
    model: Model,
    own_rows: NDArray[np.intp],
    own_cols: NDArray[np.intp],
    rows: NDArray[np.intp],
    cols: NDArray[np.intp],
    *arrays: Any,
    plan: Plan,
    axes: Sequence[tuple[int, ...]],
    pairs: _Pairs,
    along: int,
) -> NDArray[np.float64]:
    """Sums of one block by line: (..., sums, 1, cells along the axis).

    `own_rows` and `own_cols` are those whose pairs the block answers for, `rows` and `cols` those that `arrays` have.
    """
    ndim = plan.ndim
    own, around = {ndim - 2: own_rows, ndim - 1: own_cols}, {ndim - 2: rows, ndim - 1: cols}
    across = 2 * ndim - 3 - along
    here = np.isin(pairs.line, own[along])
    index = {across: own[across] - around[across][0]}
    sides = []
    for cells in (pairs.before[here], pairs.beyond[here]):
        index[along] = cells - around[along][0]
        sides.append([_take(np.asarray(a), axis, index) for a, axis in zip(arrays, axes)])
    values = _effects(plan, model, *sides)  # (map and predictors, ..., y, x)
    values = np.moveaxis(values, 1 + across, -1)
    known = np.asarray(np.isfinite(values).all(0))
    squares = np.concatenate([known[None], np.where(known, values, 0) ** 2]).sum(-1)
    out = np.zeros((*squares.shape[1:-1], len(squares), 1, own[along].size))
    out[..., 0, pairs.line[here] - own[along][0]] = np.moveaxis(squares, 0, -2)
    return out


def _take(array: NDArray[Any], axes: Sequence[int], index: Mapping[int, NDArray[np.intp]]) -> NDArray[Any]:
    for number, axis in enumerate(axes):
        if axis in index:
            array = array.take(index[axis], number)
    return array


def _effects(plan: Plan, model: Model, left: list[NDArray[Any]], right: list[NDArray[Any]]) -> NDArray[np.float64]:
    """The step from left to right, and what each predictor does to it: (1 + predictors, ..., y, x)."""

    def predict(arrays: list[NDArray[Any]]) -> NDArray[np.float64]:
        return np.asarray(plan(model, *arrays), "f8")

    before, beyond = predict(left), predict(right)
    out = np.zeros((1 + len(left), *before.shape))
    out[0] = beyond - before
    for k, (a, b) in enumerate(zip(left, right)):
        if not np.array_equal(a, b, equal_nan=a.dtype.kind == "f"):
            there = predict([*left[:k], b, *left[k + 1 :]]) - before
            back = beyond - predict([*right[:k], a, *right[k + 1 :]])
            out[1 + k] = (there + back) / 2
    return out


# ---- shares


def _without_others(sums: Sequence[NDArray[np.float64]], pairs: Sequence[_Pairs], k: int) -> list[NDArray[np.float64]]:
    """Sums without the lines aside along which coarse predictors step: those that do on less than half of them."""
    steps = [s[..., 2 : 2 + k, :].reshape(-1, k, s.shape[-1]).any(0) & p.aside for s, p in zip(sums, pairs)]
    often = sum(step.sum(-1) for step in steps) > 0.5 * sum(p.aside.sum() for p in pairs)
    return [np.where(step[~often].any(0), 0, s) for s, step in zip(sums, steps)]


def _by_strip(sums: NDArray[np.float64], pairs: _Pairs) -> NDArray[np.float64]:
    """Sums by strip, at its border and aside: (..., sums, at or aside, strip)."""
    strips = int(pairs.strip.max(initial=-1)) + 1
    out = np.zeros((*sums.shape[:-1], 2, strips))
    for number, (strip, aside) in enumerate(zip(pairs.strip, pairs.aside.astype(int))):
        out[..., aside, strip] += sums[..., number]
    return out


class _Found(NamedTuple):
    excess: NDArray[np.float64]
    standard_error: NDArray[np.float64]
    p_value: NDArray[np.float64]
    share: NDArray[np.float64]
    step: NDArray[np.float64]
    step_aside: NDArray[np.float64]
    total_step: NDArray[np.float64]
    total_step_aside: NDArray[np.float64]
    n: NDArray[np.int64]
    strips: NDArray[np.int64]


def _share_out(strips: NDArray[np.float64]) -> _Found:
    """Excesses from sums (..., [n, step^2, effects^2], at or aside, strip)."""
    from scipy import stats

    whole = strips.sum(-1)
    used = strips[..., 0, 0, :] > 0
    g = used.sum(-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = whole[..., 1:, :] / whole[..., :1, :]
        without = whole[..., None] - strips
        left_out = without[..., 1:, :, :] / without[..., :1, :, :]
        excess = (mean[..., 0] - mean[..., 1])[..., 1:]
        alone = (left_out[..., 0, :] - left_out[..., 1, :])[..., 1:, :]
        apart = np.where(used[..., None, :], alone - excess[..., None], 0)
        error = np.where((g >= 3)[..., None], np.sqrt((apart**2).sum(-1) * (1 - 1 / g)[..., None]), np.nan)
        gain = np.maximum(excess, 0)
        total = gain.sum(-1, keepdims=True)
        return _Found(
            excess,
            error,
            stats.t.sf(excess / error, np.maximum(g - 1, 1)[..., None]),
            gain / np.where(total > 0, total, np.nan),
            np.sqrt(mean[..., 1:, 0]),
            np.sqrt(mean[..., 1:, 1]),
            np.sqrt(mean[..., 0, 0]),
            np.sqrt(mean[..., 0, 1]),
            whole[..., 0, 0].astype("i8"),
            g.astype("i8"),
        )


def _dress(found: _Found, job: Job, borders: tuple[Borders, Borders], what: Any) -> xr.Dataset:
    moist = "m3 m-3"
    each = ("predictor",)
    said: dict[str, tuple[str, str, str, tuple[str, ...]]] = {
        "excess": ("excess mean square effect at borders", "(m3 m-3)^2", "mean E^2 - mean E^2 aside", each),
        "standard_error": ("standard error of the excess", "(m3 m-3)^2", "jackknife over strips", each),
        "p_value": ("p-value of the excess, one-sided", "1", "Student's t, strips less 1", each),
        "share": ("share of all excess", "1", "max(0, excess) / sum max(0, excess)", each),
        "step": ("root-mean-square step by the predictor, at borders", moist, "sqrt(mean E^2)", each),
        "step_aside": ("root-mean-square step by the predictor, aside", moist, "sqrt(mean E^2)", each),
        "total_step": ("root-mean-square step of the map, at borders", moist, "sqrt(mean (f(R) - f(L))^2)", ()),
        "total_step_aside": ("the same, aside", moist, "sqrt(mean (f(R) - f(L))^2)", ()),
        "n": ("pairs of cells across borders", "1", "N", ()),
        "strips": ("border lines", "1", "G", ()),
    }
    lead = job.dims[:-2]
    variables = {
        name: ((*lead, *extra), getattr(found, name), {"long_name": long_name, "units": unit, "formula": formula})
        for name, (long_name, unit, formula, extra) in said.items()
    }
    coords = {n: c for n, c in job.cube.coords.items() if set(c.dims) <= set(lead) and n != "spatial_ref"}
    cells = f"{what:g}-km cells" if isinstance(what, int | float) else f"the cells of {what}"
    return xr.Dataset(
        variables,
        {**coords, "predictor": list(job.plan.names)},
        {
            "title": f"which predictor carries steps across {cells}",
            "source": "exchange of one predictor across each border, both ways",
            "model_digest": job.model.digest,
        },
    )
