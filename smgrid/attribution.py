"""Says which predictor a seam comes from, by asking the model.

Across the border of two coarse cells stand two cells L and R, and the map steps by f(R) - f(L). Give L one predictor of
R, and R that of L: the mean of the two changes, f(L with it) - f(L) and f(R) - f(R without it), is what this predictor
does to the step. Of an additive model these add up to the step exactly.

All predictors differ a little between neighbours, at a border as elsewhere. What makes a seam is what a step has there
and not four cells aside: the excess mean square step, which is shared out among the predictors by their products with
the step. The blocks of a map go through the function that `predict_map` uses, with one cell of their neighbours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from smgrid.borders import Borders, regular, source_of
from smgrid.grid import Grid
from smgrid.predict import Job
from smgrid.steps import DIRECTIONS

ASIDE = 4  # cells from a border to where steps are taken as the land's own


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

    share : (..., predictor)
        Share of the excess mean square step that goes with the predictor; NaN where there is no excess.
    standard_error : (..., predictor)
        Of the share, by leaving out one strip (border line) at a time.
    step, step_aside : (..., predictor)
        Root-mean-square step that the predictor makes at the borders, and four cells aside; m3 m-3.
    total_step, total_step_aside
        The map's own.
    rest
        Share that goes with no predictor alone: interactions.
    n, strips
        Pairs of cells across borders, and border lines.

    Raises
    ------
    ValueError
        As for `predict_map`; `coarse_km` is no whole number of cells, or no border lies in the cube.

    Notes
    -----
    Each predictor that differs across a border costs two predictions a pair of cells: for all 23, some 20 times as many
    rows as the map has cells, where none is coarse.

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
    {'smap': 1.0, 'sand': -0.0}
    """
    job = Job.of(cube, model, units=units)
    grid = Grid.of(job.cube)
    borders = regular(grid, coarse_km)
    if coarse is not None:
        source = source_of(coarse, grid, str(coarse.name or "coarse"), how)
        borders = source.x, source.y
    if not any(b.line.size for b in borders):
        raise ValueError(f"no border of {coarse_km:g}-km cells lies within {grid}: give a larger cube")
    pairs = {direction: _Pairs.of(b, n) for direction, b, n in zip(DIRECTIONS, borders, (grid.nx, grid.ny))}
    lead = {dim: _size(job, dim) for dim in job.dims[:-2]}
    k = len(job.plan.names)
    sums = {d: np.zeros((*lead.values(), 2 + 2 * k, p.before.size)) for d, p in pairs.items()}
    for at, part in _parts(job, pairs):
        for direction, (where, values) in part.items():
            sums[direction][(*at, slice(None), where)] += values
    strips = [_by_strip(sums[direction], pairs[direction]) for direction in DIRECTIONS]
    return _dress(_share_out(np.concatenate(strips, -1), k), job, borders, coarse_km if coarse is None else coarse.name)


def _size(job: Job, dim: str) -> int:
    return next(v.sizes[dim] for v in [*job.inputs, job.cube] if v is not None and dim in v.sizes)


class _Pairs(NamedTuple):
    """The pairs of cells that are compared along one axis: across borders, and aside."""

    before: NDArray[np.int64]
    beyond: NDArray[np.int64]
    strip: NDArray[np.int64]  # which border a pair belongs to
    aside: NDArray[np.bool_]

    @classmethod
    def of(cls, borders: Borders, n: int) -> _Pairs:
        line, wide = np.tile(borders.line, 2), np.tile(borders.wide, 2)
        aside = np.repeat([False, True], borders.line.size)
        line = line + aside * (ASIDE + wide)
        wide = np.where(aside, 0, wide)
        strip = np.tile(np.arange(borders.line.size), 2)
        inside = line + wide < n
        return cls((line - 1)[inside], (line + wide)[inside], strip[inside], aside[inside])


# ---- block by block

_Part = dict[str, tuple[NDArray[np.intp], NDArray[np.float64]]]


def _parts(job: Job, pairs: Mapping[str, _Pairs]) -> list[tuple[tuple[slice, ...], _Part]]:
    """Sums of every block, and its place along the leading dims."""
    arrays, ndim = job.arrays(), len(job.dims)
    shape = [_size(job, dim) for dim in job.dims]
    if not job.is_lazy:
        ends = [np.arange(shape[-2]), np.arange(shape[-1])]
        return [((slice(None),) * (ndim - 2), _block(job, pairs, ends, ends, arrays))]
    import dask
    import dask.array as da

    chunks: dict[int, tuple[int, ...]] = {d: (n,) for d, n in enumerate(shape)}
    for array, i in zip(arrays, job.plan.inputs):
        chunks |= dict(zip(i.axes, array.chunks))
    halo = {ndim - 2: 1, ndim - 1: 1}
    wide = [
        da.overlap.overlap(a, {n: halo.get(axis, 0) for n, axis in enumerate(i.axes)}, "none", allow_rechunk=False)
        for a, i in zip(arrays, job.plan.inputs)
    ]
    blocks = [a.to_delayed() for a in wide]
    stops = {d: np.cumsum([0, *sizes]) for d, sizes in chunks.items()}
    shared = dask.delayed(job._replace(inputs=[], cube=xr.Dataset()), traverse=False)
    work = dask.delayed(_block)
    places, tasks = [], []
    for number in product(*(range(len(chunks[d])) for d in range(ndim))):
        ends = [np.arange(stops[d][number[d]], stops[d][number[d] + 1]) for d in (ndim - 2, ndim - 1)]
        around = [
            np.arange(max(end[0] - 1, 0), min(end[-1] + 2, shape[d])) for d, end in zip((ndim - 2, ndim - 1), ends)
        ]
        if not any(np.isin(p.beyond, end).any() for p, end in zip((pairs["y"], pairs["x"]), ends)):
            continue
        own = [b[tuple(number[axis] for axis in i.axes)] for b, i in zip(blocks, job.plan.inputs)]
        tasks.append(work(shared, dict(pairs), ends, around, own))
        places.append(tuple(slice(stops[d][number[d]], stops[d][number[d] + 1]) for d in range(ndim - 2)))
    return list(zip(places, dask.compute(*tasks)))


def _block(
    job: Job,
    pairs: Mapping[str, _Pairs],
    own: Sequence[NDArray[np.intp]],
    around: Sequence[NDArray[np.intp]],
    arrays: Sequence[Any],
) -> _Part:
    """Sums of one block by direction: which pairs, and (..., n and squares, pair).

    `own` are the rows and columns whose pairs the block answers for, `around` those that it has.
    """
    found: _Part = {}
    ndim, axes = len(job.dims), [i.axes for i in job.plan.inputs]
    for direction, which in (("x", 1), ("y", 0)):
        p = pairs[direction]
        here = np.flatnonzero(np.isin(p.beyond, own[which]))
        if not here.size:
            continue
        other = own[1 - which] - around[1 - which][0]
        sides = []
        for cells in (p.before[here], p.beyond[here]):
            index = {ndim - 2 + which: cells - around[which][0], ndim - 1 - which: other}
            sides.append([_take(np.asarray(a), own_axes, index) for a, own_axes in zip(arrays, axes)])
        values = _effects(job, *sides)  # (map and predictors, ..., y, x)
        values = np.moveaxis(values, ndim - 1 - which + 1, -1)  # along the strip last
        known = np.isfinite(values).all(0)
        total, effect = (np.where(known, part, 0) for part in (values[:1], values[1:]))
        squares = np.concatenate([known[None], total**2, effect**2, effect * total]).sum(-1)
        found[direction] = here, np.moveaxis(squares, 0, -2)
    return found


def _take(array: NDArray[Any], axes: Sequence[int], index: Mapping[int, NDArray[np.intp]]) -> NDArray[Any]:
    for number, axis in enumerate(axes):
        if axis in index:
            array = array.take(index[axis], number)
    return array


def _effects(job: Job, left: list[NDArray[Any]], right: list[NDArray[Any]]) -> NDArray[np.float64]:
    """The step from left to right, and what each predictor does to it: (1 + predictors, ..., y, x)."""

    def predict(arrays: list[NDArray[Any]]) -> NDArray[np.float64]:
        return np.asarray(job.plan(job.model, *arrays), "f8")

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


def _by_strip(sums: NDArray[np.float64], pairs: _Pairs) -> NDArray[np.float64]:
    """Sums by strip, at its border and aside: (..., sums, at or aside, strip)."""
    strips = int(pairs.strip.max(initial=-1)) + 1
    out = np.zeros((*sums.shape[:-1], 2, strips))
    for number, (strip, aside) in enumerate(zip(pairs.strip, pairs.aside.astype(int))):
        out[..., aside, strip] += sums[..., number]
    return out


class _Found(NamedTuple):
    share: NDArray[np.float64]
    standard_error: NDArray[np.float64]
    step: NDArray[np.float64]
    step_aside: NDArray[np.float64]
    total_step: NDArray[np.float64]
    total_step_aside: NDArray[np.float64]
    rest: NDArray[np.float64]
    n: NDArray[np.int64]
    strips: NDArray[np.int64]


def _share_out(strips: NDArray[np.float64], k: int) -> _Found:
    """Shares from sums (..., [n, step^2, effects^2, effects step], at or aside, strip)."""
    whole = strips.sum(-1)
    mean = _over(whole[..., 1:, :], whole[..., :1, :])
    share = _shares(mean, k)
    used = strips[..., 0, 0, :] > 0
    g = used.sum(-1)
    without = whole[..., None] - strips
    alone = np.where(used[..., None, :], _shares(_over(without[..., 1:, :, :], without[..., :1, :, :]), k, -3), np.nan)
    centred = np.where(used[..., None, :], alone - share[..., None], 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        error = np.sqrt((centred**2).sum(-1) * ((g - 1) / g)[..., None])
    return _Found(
        share,
        np.where((g >= 3)[..., None], error, np.nan),
        np.sqrt(mean[..., 1 : 1 + k, 0]),
        np.sqrt(mean[..., 1 : 1 + k, 1]),
        np.sqrt(mean[..., 0, 0]),
        np.sqrt(mean[..., 0, 1]),
        1 - share.sum(-1),
        whole[..., 0, 0].astype("i8"),
        g.astype("i8"),
    )


def _over(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(a / b)


def _shares(mean: NDArray[np.float64], k: int, axis: int = -2) -> NDArray[np.float64]:
    """Excess of the products over that of the squares; `mean` has sums on `axis`, at or aside after it."""
    mean = np.moveaxis(mean, (axis, axis + 1), (0, 1))
    excess = mean[:, 0] - mean[:, 1]
    share = _over(excess[1 + k :], np.where(excess[0] > 0, excess[0], np.nan))
    return np.moveaxis(share, 0, -1 if axis == -2 else -2)


def _dress(found: _Found, job: Job, borders: tuple[Borders, Borders], what: Any) -> xr.Dataset:
    moist = "m3 m-3"
    each = ("predictor",)
    said: dict[str, tuple[str, str, str, tuple[str, ...]]] = {
        "share": ("share of the excess mean square step", "1", "(cov_0 - cov_4) / (var_0 - var_4)", each),
        "standard_error": ("standard error of the share", "1", "jackknife over strips", each),
        "step": ("root-mean-square step by the predictor, at borders", moist, "sqrt(mean E^2)", each),
        "step_aside": ("root-mean-square step by the predictor, 4 cells aside", moist, "sqrt(mean E^2)", each),
        "total_step": ("root-mean-square step of the map, at borders", moist, "sqrt(mean (f(R) - f(L))^2)", ()),
        "total_step_aside": ("the same, 4 cells aside", moist, "sqrt(mean (f(R) - f(L))^2)", ()),
        "rest": ("share that goes with no predictor alone", "1", "1 - sum of shares", ()),
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
