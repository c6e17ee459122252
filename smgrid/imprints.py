"""Says which share of a coarse field's steps a map copies.

The jump of the map across the borders of coarse cells (see `jumps`) is regressed on the coarse field's own, cell by
cell along every border. Everything else that a map is made of goes on across a border, so the slope `beta` is what the
coarse field itself does: a regression-discontinuity design. Several coarse fields are judged in one regression, each
with its own borders; a jump that belongs to another's border nearby is put down to that one.

What goes on across a border may yet be bent there, and four cells aside do not tell a bend from a step. A landscape
that the coarse field sees bends as its smooth spread does (`coarse.smooth`), so the jumps that are measured on that
stand beside those of the blocks in the regression. Without them a smooth spread of real 9-km retrievals passes for a
copy of 40 % of the blocks, for neighbouring retrievals differ almost like noise.

What it needs are sums of products over each border line, which add up over the blocks of a map. Jumps along a line
resemble each other, so the line (strip) is the unit of the standard error.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import dask.array as da
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from smgrid.borders import Borders, Source, smoothly, sources_of
from smgrid.grid import Grid
from smgrid.jumps import DEPTH, OFFSETS, jumps_at
from smgrid.overlap import locate
from smgrid.shapes import as_field
from smgrid.steps import Made, fold_lines, open_field, slabs

PLACEBOS = (-4, -3, 3, 4)  # lines beside a border whose eight cells hold little or nothing of its step
WRONG_PLACE = 0.001  # p-value below which a slope beside the borders, larger than that at them, is reported
_HERE = OFFSETS.size // 2
_SOURCE = "regression discontinuity (Hahn et al. 2001, doi:10.1111/1468-0262.00183) at the borders of coarse cells"


def imprint(
    field: xr.DataArray | xr.Dataset, coarse: xr.DataArray | xr.Dataset | Any, *, how: str = "blocks"
) -> xr.Dataset:
    """Say which share of a coarse field's steps a map copies, and how sure that is.

    Parameters
    ----------
    field : DataArray or maps, dims (..., y, x)
        On the EASE-Grid 2.0; missing is NaN. Leading dims such as `time` are judged one by one.
    coarse : DataArray, Dataset, or mapping of names to DataArrays
        The coarse fields, each on its own cells (SMAP at 9 km, ERA5-Land at 0.1 degrees), or spread as blocks on the
        map's. Several are judged together. A `time` is matched with the map's.
    how : {"blocks", "mean"}
        How they came to the map's cells: each took the coarse cell that holds its centre, or the mean by area
        (`smgrid.to_grid`), which splits a step in two where a cell lies in both. For nested cells it is the same.

    Returns
    -------
    Dataset, computed, with the leading dims of the field, a dim `source` where several coarse fields are given, and

    beta
        Share of the steps that the map copies: 1 = all, 0 = none; per unit of the coarse field.
    standard_error
        By leaving out one strip at a time; NaN where there are fewer than 3 strips more than sources.
    p_value
        Of beta = 0, two-sided, by an error that holds the standard error and the placebos: a landscape alone gives a
        beta that is small but not 0.
    placebo : (..., placebo_offset)
        The same slope 3 and 4 cells beside the borders, once the imprint is taken off: what a curved landscape that
        goes with the coarse field gives without any imprint. About 0.02 is usual.
    slope
        The same as beta without the smooth spread beside it: sum J D / sum D^2.
    profile : (..., offset)
        Slope of the jumps at lines beside the borders; a copied step gives 1, .15, -.3, -.35, 0 from 0 to 4 cells off.
    step
        Root-mean-square step of the coarse field across its borders.
    n, strips
        Pairs of cells across borders, and border lines, with all that is needed.

    Warns
    -----
    UserWarning
        The slope is larger beside the borders than at them: the map or the coarse field lies at a wrong place.

    Raises
    ------
    ValueError
        The field is off the EASE-Grid 2.0; a coarse field is smooth, has no borders within the map, or lacks its days.

    Notes
    -----
    J = beta D + gamma S by least squares over cells along all borders: J the jump of the map by local lines over 4 cells
    on each side, D that of the coarse field's blocks, S that of its smooth spread. Of a field that came spread over the
    map's cells, S is known where its cells are of the EASE-Grid family; else it is left out.

    References
    ----------
    Hahn, Todd & Van der Klaauw (2001), Econometrica 69, 201-209, doi:10.1111/1468-0262.00183

    Examples
    --------
    >>> from smgrid import YANCO, coarse
    >>> rng = np.random.default_rng(0)
    >>> cells = YANCO.coarsen(9)
    >>> smap = xr.DataArray(rng.normal(0.2, 0.03, cells.shape), cells.coords(), ("y", "x"))  # synthetic
    >>> field = 0.6 * coarse.blocks(smap, YANCO) + rng.normal(0, 0.01, YANCO.shape)
    >>> found = imprint(field, smap)
    >>> found.beta.round(1).item(), found.p_value.item() < 0.001
    (0.6, True)
    """
    values, grid = open_field(field)
    sources = sources_of(coarse, grid, how)
    beside = [smooth for source in sources if (smooth := smoothly(source, grid)) is not None]
    spread = [lay_source(source, values, grid) for source in [*sources, *beside]]
    lined = (_Lines.of([s.x for s in sources]), _Lines.of([s.y for s in sources]))
    k = len(sources)
    folds = [partial(_fold, lines=lines) for lines in lined]
    sums = fold_lines([values.data, *spread], folds, _size(k, len(spread)), DEPTH)
    strips = np.concatenate([s[..., lines.borders.line] for s, lines in zip(sums, lined)], -1)
    found = _regress(np.moveaxis(strips, -1, -2), k, len(spread))
    alone = isinstance(coarse, xr.DataArray)
    result = _dress(found, values, [s.name for s in sources], alone, how)
    _warn_of_wrong_places(result, found)
    return result


def match_source(source: Source, values: xr.DataArray) -> Any:
    """A spread source as an array with the dims, the days and the chunks of the map."""
    bare = _matched(source.name, source.spread, values, ("y", "x"))
    if isinstance(values.data, da.Array):
        return bare.chunk(dict(zip(values.dims, values.data.chunks))).data
    return bare.values


def lay_source(source: Source, values: xr.DataArray, grid: Grid) -> Any:
    """The same, made where it is looked at if the coarse cells are known: a large map's worth of it is never held."""
    if source.coarse is None:
        return match_source(source, values)
    down, along = locate(source.coarse, grid)
    cells = source.coarse.transpose(..., down.dim, along.dim)
    lead = _matched(source.name, cells, values, (down.dim, along.dim)).data
    lead = lead if isinstance(lead, da.Array) else da.from_array(lead, chunks=-1)
    lead = lead.rechunk((*(values.chunks or [(n,) for n in values.shape])[:-2], -1, -1))
    whole = cells.isel(dict.fromkeys(cells.dims[:-2], 0), drop=True)
    return Made(lead, partial(_spread_window, like=whole, grid=grid, onto=source.onto))


def _spread_window(
    cells: NDArray[Any], rows: slice, cols: slice, like: xr.DataArray, grid: Grid, onto: Any
) -> NDArray[Any]:
    """A stack (..., y, x) of coarse fields on a window of the map."""
    window = Grid(grid.km, grid.row + rows.start, grid.col + cols.start, rows.stop - rows.start, cols.stop - cols.start)
    lead = [f"lead_{k}" for k in range(cells.ndim - 2)]
    field = xr.DataArray(cells, like.coords, (*lead, *like.dims), like.name, like.attrs)
    return np.asarray(as_field(onto(field, window)).transpose(*lead, "y", "x").values)


def _matched(name: str, spread: xr.DataArray, values: xr.DataArray, last: tuple[Any, Any]) -> xr.DataArray:
    """A field whose dims but the last two are those of the map."""
    for dim in [dim for dim in spread.dims if dim not in last]:
        if dim not in values.coords and dim not in values.dims:
            raise ValueError(f"{name!r} has a dim {dim!r}, the map has none: choose one, obj.sel({dim}=...)")
        if dim in values.coords and dim in spread.coords:
            wanted = values[dim].values
            lacking = ~np.isin(wanted, spread[dim].values)
            if lacking.any():
                first = np.atleast_1d(wanted)[np.atleast_1d(lacking)][0]
                raise ValueError(f"{name!r} lacks {int(lacking.sum())} of the map's {dim}, {first} first")
            spread = spread.sel({dim: wanted})
        elif spread.sizes[dim] != values.sizes.get(dim):
            raise ValueError(f"{name!r} has {spread.sizes[dim]} of {dim!r}, the map {values.sizes.get(dim)}")
    bare = spread.drop_vars(list(spread.coords)).transpose(..., *last)
    lead = [d for d in values.dims[:-2] if d not in bare.dims]
    return bare.expand_dims({d: values.sizes[d] for d in lead}).transpose(*values.dims[:-2], *last)


# ---- sums over border lines


class _Lines(NamedTuple):
    """The border lines of all sources along one axis, and whose they are (source, line)."""

    borders: Borders
    own: NDArray[np.bool_]

    @classmethod
    def of(cls, each: Sequence[Borders]) -> _Lines:
        borders = each[0]
        for other in each[1:]:
            borders = borders | other
        return cls(borders, np.array([np.isin(borders.line, one.line) for one in each]))


def _size(k: int, r: int) -> int:
    return 1 + r * r + r + 2 * k * OFFSETS.size + len(PLACEBOS) * (r * r + r + r * k)


def _fold(blocks: Sequence[NDArray[np.float64]], first: int, lines: _Lines) -> NDArray[np.float64]:
    """Count, products of the regressors' jumps with each other and with the map's; the same by offset (`_regress`).

    `blocks` are the map, the sources, and smooth spreads of some of them.
    """
    shape, (k, _), r = blocks[0].shape, lines.own.shape, len(blocks) - 1
    cells = shape[-1] - 2 * DEPTH
    here = (lines.borders.line >= first) & (lines.borders.line < first + cells)
    line, wide, own = lines.borders.line[here] - first, lines.borders.wide[here], lines.own[:, here]
    out = np.zeros((*shape[:-2], _size(k, r), cells))
    if not line.size:
        return out
    for lead, rows in slabs((*shape[:-1], 9 * line.size * (r + 1))):
        with np.errstate(invalid="ignore"):  # infinite less infinite
            j = np.stack([jumps_at(block[lead][rows], line, wide) for block in blocks])  # (map and others, row, l, o)
        known = np.isfinite(j[..., _HERE]).all(0)
        both = np.where(known, j[..., _HERE], 0)
        y, d = both[0], both[1:]
        parts = [known.sum(0)[None], np.einsum("krl,jrl->kjl", d, d).reshape(r * r, -1), np.einsum("krl,rl->kl", d, y)]
        for one in range(k):
            step = j[1 + one, ..., _HERE, None]
            known = np.isfinite(j[0]) & np.isfinite(step) & own[one][:, None]
            step, jump = np.where(known, step, 0), np.where(known, j[0], 0)
            parts += [np.einsum("rlo,rlo->ol", step, step), np.einsum("rlo,rlo->ol", step, jump)]
        for offset in PLACEBOS:
            there = j[: 1 + k, ..., _HERE + offset]
            known = np.isfinite(there).all(0) & np.isfinite(j[..., _HERE]).all(0)
            d, there = np.where(known, j[1:, ..., _HERE], 0), np.where(known, there, 0)
            products = np.einsum("krl,jrl->kjl", d, np.concatenate([d, there]))
            parts.append(products.reshape(r * (r + 1 + k), -1))
        out[lead][:, line] += np.concatenate(parts)
    return out


# ---- the regression


class _Found(NamedTuple):
    beta: NDArray[np.float64]  # (..., source)
    standard_error: NDArray[np.float64]
    p_value: NDArray[np.float64]
    slope: NDArray[np.float64]
    placebo: NDArray[np.float64]  # (..., source, placebo)
    profile: NDArray[np.float64]  # (..., source, offset)
    profile_p: NDArray[np.float64]
    step: NDArray[np.float64]
    n: NDArray[np.int64]  # (...)
    strips: NDArray[np.int64]


def _regress(strips: NDArray[np.float64], k: int, r: int) -> _Found:
    """Slopes through the origin of `k` sources among `r` regressors from sums by strip (..., strip, size)."""
    from scipy import stats

    o = OFFSETS.size
    n = strips[..., 0]
    a = strips[..., 1 : 1 + r * r].reshape(*n.shape, r, r)
    b = strips[..., 1 + r * r : 1 + r * r + r]
    at = 1 + r * r + r
    beside = strips[..., at : at + 2 * k * o].reshape(*n.shape, k, 2, o)
    placebos = strips[..., at + 2 * k * o :].reshape(*n.shape, len(PLACEBOS), r, r + 1 + k).sum(-4)
    used = (n > 0) & (np.abs(a).sum((-1, -2)) > 0)
    g = used.sum(-1)
    slopes = _solve(a.sum(-3), b.sum(-2), k)
    error = np.full(slopes.shape, np.nan)
    for date in map(tuple, np.argwhere(g >= k + 3)):
        one = (*date, used[date])
        left_out = _solve(a[date].sum(0) - a[one], b[date].sum(0) - b[one], k)
        error[date] = np.sqrt(((left_out - slopes[date]) ** 2).sum(0) * (1 - 1 / g[date]))
    beta, error = slopes[..., :k], error[..., :k]
    with np.errstate(divide="ignore", invalid="ignore"):
        freedom = np.maximum(g - k, 1)[..., None]
        total = beside.sum(-4)  # (..., source, [step^2, step jump], offset)
        profile = total[..., 1, :] / total[..., 0, :]
        # the imprint taken off, the same regression as at the borders
        rest = placebos[..., r] - np.einsum("...rj,...j->...r", placebos[..., r + 1 :], beta[..., None, :])
        placebo = np.moveaxis(_solve(placebos[..., :r], rest, k)[..., :k], -1, -2)
        p = 2 * stats.t.sf(np.abs(beta) / np.sqrt(error**2 + (placebo**2).mean(-1)), freedom)
        score = beside[..., 1, :] - profile[..., None, :, :] * beside[..., 0, :]
        profile_error = np.sqrt((score**2).sum(-3)) / total[..., 0, :]
        profile_p = 2 * stats.t.sf(np.abs(profile) / profile_error, freedom[..., None])
        own = (beside[..., 0, _HERE] > 0).any(-2)
        step = np.sqrt(total[..., 0, _HERE] / _pairs(n, beside[..., 0, _HERE]))
    return _Found(
        beta,
        error,
        p,
        _solve(a.sum(-3)[..., :k, :k], b.sum(-2)[..., :k], k),
        placebo,
        profile,
        profile_p,
        np.where(own, step, np.nan),
        n.sum(-1).astype("i8"),
        g.astype("i8"),
    )


def _solve(a: NDArray[np.float64], b: NDArray[np.float64], k: int) -> NDArray[np.float64]:
    """Least-squares slopes (..., r); NaN where the sources cannot be told apart.

    Of the regressors after the first `k`, those that add nothing (a flat field's) are left at 0.
    """
    out = np.full(b.shape, np.nan)
    for at in np.ndindex(*b.shape[:-1]):
        scale = np.sqrt(np.diag(a[at]))
        if not (scale[:k] > 0).all():
            continue
        for kept in (scale > 1e-9 * scale[:k].min(), np.arange(scale.size) < k):
            alike = a[at][np.ix_(kept, kept)] / np.outer(scale[kept], scale[kept])
            if np.linalg.cond(alike) < 1e10:
                out[at] = 0
                out[at][kept] = np.linalg.solve(alike, b[at][kept] / scale[kept]) / scale[kept]
                break
    return out


def _pairs(n: NDArray[np.float64], squares: NDArray[np.float64]) -> NDArray[np.float64]:
    """Pairs of cells across each source's own borders: (..., source)."""
    return (n[..., None] * (squares > 0)).sum(-2)


# ---- what is handed back


def _dress(found: _Found, values: xr.DataArray, names: list[str], alone: bool, how: str) -> xr.Dataset:
    units = values.attrs.get("units")
    said: dict[str, tuple[str, str | None, str, tuple[str, ...]]] = {
        "beta": ("share of the coarse field's steps that the map copies", "1", "J = beta D + gamma S", ("source",)),
        "standard_error": ("standard error of beta", "1", "jackknife over strips", ("source",)),
        "p_value": (
            "p-value of beta, two-sided",
            "1",
            "Student's t of beta / sqrt(standard_error^2 + mean(placebo^2)), strips less sources",
            ("source",),
        ),
        "slope": ("beta without the smooth spread beside it", "1", "sum J D / sum D^2", ("source",)),
        "placebo": (
            "slope beside the borders, imprint taken off",
            "1",
            "(sum J D - fit) / sum D^2",
            ("source", "placebo_offset"),
        ),
        "profile": ("slope at lines beside the borders", "1", "sum J D / sum D^2", ("source", "offset")),
        "step": ("root-mean-square step of the coarse field", None, "sqrt(mean D^2)", ("source",)),
        "n": ("pairs of cells across borders", "1", "N", ()),
        "strips": ("border lines", "1", "G", ()),
    }
    variables = {}
    for name, (long_name, unit, formula, extra) in said.items():
        attrs = {"long_name": long_name, "formula": formula} | ({"units": unit} if unit else {})
        variables[name] = ((*values.dims[:-2], *extra), getattr(found, name), attrs)
    kept = values.coords.to_dataset().drop_dims(["y", "x"], errors="ignore").drop_vars("spatial_ref", errors="ignore")
    place = {"long_name": "cells from the border"}
    result = kept.assign_coords(
        source=("source", names, {"long_name": "coarse field"}),
        offset=("offset", OFFSETS, place),
        placebo_offset=("placebo_offset", list(PLACEBOS), place),
    ).assign(variables)
    result.attrs = {"title": f"imprint of {', '.join(names)}", "source": _SOURCE, "how": how}
    if units:
        result.attrs["field_units"] = units
    return result.isel(source=0) if alone else result


def _warn_of_wrong_places(result: xr.Dataset, found: _Found) -> None:
    """Warn where the map jumps with the coarse field's steps, but beside its borders."""
    size = np.where(found.profile_p < WRONG_PLACE / OFFSETS.size, np.abs(found.profile), 0)
    size = np.delete(size, _HERE, -1)
    wrong = size.max(-1) > np.maximum(0.2, 1.5 * np.nan_to_num(np.abs(found.beta)))
    result.attrs["wrong_place"] = "none"
    if not wrong.any():
        return
    at = tuple(np.argwhere(wrong)[0])
    offset = np.delete(OFFSETS, _HERE)[size[at].argmax()]
    name = str(np.atleast_1d(result.source.values)[at[-1]])
    message = (
        f"the map jumps with the steps of {name!r} {offset:+d} cells beside its borders (slope {size[at].max():.2f}; "
        f"at them {found.beta[at]:.2f}): the map or {name!r} is likely shifted, flipped or on another grid"
    )
    result.attrs["wrong_place"] = message
    warnings.warn(message, UserWarning, stacklevel=3)
