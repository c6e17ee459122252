"""Compares two fields or series cell by cell.

Every measure takes `(prediction, reference, *, dim=None)`, leaves out the cells that are missing in either, and is made
of one set of centred moments. These are taken block by block and merged (Chan et al. 1983), so chunks do not matter,
lazy fields stay lazy, and several measures computed together read the fields once.

References
----------
Chan et al. (1983), Am. Stat. 37, 242-247, doi:10.1080/00031305.1983.10483115
Entekhabi et al. (2010), J. Hydrometeorol. 11, 832-840, doi:10.1175/2010JHM1223.1
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from functools import reduce
from operator import and_
from typing import Any, NamedTuple, TypeAlias

import dask.array as da
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from smgrid.grid import Grid
from smgrid.resampling import bootstrap, level_dynamics
from smgrid.shapes import as_field
from smgrid.units import SAME, conversion

__all__ = ["bias", "bootstrap", "common_mask", "count", "level_dynamics", "pearson_r", "rmse", "ubrmse"]

Field: TypeAlias = xr.DataArray | xr.Dataset
Dims: TypeAlias = str | Iterable[Hashable] | None

JITTER = 1e-3  # cells by which two axes may differ and still be the same

_ENTEKHABI = "Entekhabi et al. (2010), doi:10.1175/2010JHM1223.1"


def bias(prediction: Field, reference: Field, *, dim: Dims = None) -> xr.DataArray:
    """Mean of prediction less reference: positive where the prediction is too wet.

    Parameters
    ----------
    prediction, reference : DataArray (any dims), or maps
        Cells missing in either are left out; axes must agree; dims that one of them lacks are broadcast.
    dim : str or sequence of str, optional
        Dimensions to reduce; all by default. `("y", "x")` keeps `time`.

    Returns
    -------
    DataArray
        In the units of the fields; NaN where no cell is common.

    Raises
    ------
    ValueError
        The axes or the units differ, or `dim` is not a dimension of the fields.

    References
    ----------
    Entekhabi et al. (2010), J. Hydrometeorol. 11, 832-840, doi:10.1175/2010JHM1223.1

    Examples
    --------
    >>> reference = xr.DataArray([0.10, 0.25, np.nan], dims="time")
    >>> bias(reference + 0.05, reference).round(6).item()
    0.05
    """
    units = _units(prediction, reference)
    m = _moments(prediction, reference, dim)
    return _entry(
        m.mean_p - m.mean_o, "bias", "mean error, prediction less reference", units, "mean(p - o)", _ENTEKHABI
    )


def rmse(prediction: Field, reference: Field, *, dim: Dims = None) -> xr.DataArray:
    """Root-mean-square error.

    Parameters
    ----------
    prediction, reference, dim
        As in `bias`.

    Returns
    -------
    DataArray
        In the units of the fields; NaN where no cell is common.

    References
    ----------
    Entekhabi et al. (2010), J. Hydrometeorol. 11, 832-840, doi:10.1175/2010JHM1223.1

    Examples
    --------
    >>> reference = xr.DataArray([0.10, 0.25, 0.40], dims="time")
    >>> rmse(reference + [0.03, -0.03, 0.03], reference).round(6).item()
    0.03
    """
    units = _units(prediction, reference)
    m = _moments(prediction, reference, dim)
    error = ((m.mean_p - m.mean_o) ** 2 + m.var_d) ** 0.5
    return _entry(error, "rmse", "root-mean-square error", units, "sqrt(mean((p - o)^2))", _ENTEKHABI)


def ubrmse(prediction: Field, reference: Field, *, dim: Dims = None) -> xr.DataArray:
    """Root-mean-square error that remains once the mean error is taken off.

    Parameters
    ----------
    prediction, reference, dim
        As in `bias`.

    Returns
    -------
    DataArray
        In the units of the fields; NaN where no cell is common.

    References
    ----------
    Entekhabi et al. (2010), J. Hydrometeorol. 11, 832-840, doi:10.1175/2010JHM1223.1

    Examples
    --------
    >>> reference = xr.DataArray([0.10, 0.25, 0.40], dims="time")
    >>> ubrmse(reference + 0.05, reference).round(6).item()
    0.0
    """
    units = _units(prediction, reference)
    m = _moments(prediction, reference, dim)
    formula = "sqrt(mean((p - o - mean(p - o))^2))"
    return _entry(m.var_d**0.5, "ubrmse", "unbiased root-mean-square error", units, formula, _ENTEKHABI)


def pearson_r(prediction: Field, reference: Field, *, dim: Dims = None) -> xr.DataArray:
    """Pearson's correlation coefficient.

    Parameters
    ----------
    prediction, reference, dim
        As in `bias`.

    Returns
    -------
    DataArray
        Within -1..1; NaN where either field is constant over the common cells, for then it is not defined.

    References
    ----------
    Entekhabi et al. (2010), J. Hydrometeorol. 11, 832-840, doi:10.1175/2010JHM1223.1

    Examples
    --------
    >>> reference = xr.DataArray([0.10, 0.25, 0.40], dims="time")
    >>> pearson_r(0.1 + 0.5 * reference, reference).round(6).item()
    1.0
    >>> pearson_r(0 * reference, reference).item()
    nan
    """
    m = _moments(prediction, reference, dim)
    spread = m.var_p**0.5 * m.var_o**0.5
    r = (m.cov / spread.where(spread > 0)).clip(-1, 1)
    return _entry(r, "pearson_r", "Pearson correlation", "1", "cov(p, o) / (sd(p) sd(o))", _ENTEKHABI)


def count(prediction: Field, reference: Field, *, dim: Dims = None) -> xr.DataArray:
    """Number of cells that both fields have: what every measure here rests on.

    Parameters
    ----------
    prediction, reference, dim
        As in `bias`.

    Returns
    -------
    DataArray of integers

    References
    ----------
    Gruber et al. (2020), Remote Sens. Environ. 244, 111806, doi:10.1016/j.rse.2020.111806: say n with every measure.

    Examples
    --------
    >>> reference = xr.DataArray([0.10, np.nan, 0.40], dims="time")
    >>> count(reference, reference + 0.05).item()
    2
    """
    known = common_mask(prediction, reference)
    n = known.sum(_dims(dim, known))
    source = "Gruber et al. (2020), doi:10.1016/j.rse.2020.111806"
    return _entry(n, "count", "number of common cells", "1", "sum(finite(p) and finite(o))", source)


def common_mask(*fields: Field) -> xr.DataArray:
    """Where all fields have a value, so that several models can be judged on the same cells.

    Parameters
    ----------
    *fields : DataArray or maps
        On the same axes; dims that one of them lacks are broadcast.

    Returns
    -------
    DataArray of bool

    Raises
    ------
    ValueError
        The axes differ.

    Examples
    --------
    >>> forest = xr.DataArray([0.1, np.nan, 0.3, 0.4], dims="x")
    >>> network = xr.DataArray([0.2, 0.2, np.nan, 0.4], dims="x")
    >>> both = common_mask(forest, network)
    >>> both.values
    array([ True, False, False,  True])
    >>> rmse(forest.where(both), network).round(6).item()
    0.070711
    """
    if not fields:
        raise ValueError("a common mask needs at least one field")
    first, *others = [as_field(field) for field in fields]
    matched = first, *(_on_axes_of(first, other) for other in others)
    known = [xr.apply_ufunc(np.isfinite, field, dask="allowed") for field in matched]
    with xr.set_options(arithmetic_join="exact"):
        mask: xr.DataArray = reduce(and_, known)
    mask.attrs = {"long_name": "cell known in all fields"}
    return mask.rename("common_mask")


# ---- moments


class _Moments(NamedTuple):
    """Moments over the common cells, ddof 0; `d` is p - o, whose variance loses digits when made of the others."""

    n: xr.DataArray
    mean_p: xr.DataArray
    mean_o: xr.DataArray
    var_p: xr.DataArray
    var_o: xr.DataArray
    cov: xr.DataArray
    var_d: xr.DataArray


def _moments(prediction: Field, reference: Field, dim: Dims) -> _Moments:
    """The moments over `dim`."""
    p = as_field(prediction)
    o = _on_axes_of(p, as_field(reference))
    if p.chunks is not None or o.chunks is not None:
        p, o = p.chunk(), o.chunk()  # before broadcasting: Dask would copy a broadcast numpy array
    p, o = xr.broadcast(p, o)
    dims = _dims(dim, p)
    parts = xr.apply_ufunc(
        _moment_arrays,
        p,
        o,
        input_core_dims=[dims, dims],
        output_core_dims=[[]] * len(_Moments._fields),
        kwargs={"axes": len(dims)},
        join="exact",
        dask="allowed",
    )
    return _Moments(*parts)


def _moment_arrays(p: Any, o: Any, axes: int) -> tuple[Any, ...]:
    """The moments over the last `axes` axes of two numpy or two Dask arrays."""
    if not isinstance(p, da.Array):
        found = _finish(_sums(p, o, axes))
        return tuple(found[..., i] for i in range(found.shape[-1]))
    index, lead = tuple(range(p.ndim)), p.ndim - axes
    _, (p, o) = da.core.unify_chunks(p, index, o, index)
    ones = [(1,) * n for n in p.numblocks[lead:]]
    size, meta = len(_Moments._fields), np.empty((0,) * (p.ndim + 1))
    blocks = da.map_blocks(
        _block_sums, p, o, axes=axes, new_axis=p.ndim, chunks=(*p.chunks[:lead], *ones, (size,)), meta=meta
    )
    blocks = blocks.rechunk(dict.fromkeys(range(lead, p.ndim), -1))
    found = da.map_blocks(
        _merge,
        blocks,
        axes=axes,
        drop_axis=list(range(lead, p.ndim)),
        chunks=(*p.chunks[:lead], (size,)),
        meta=np.empty((0,) * (lead + 1)),
    )
    return tuple(found[..., i] for i in range(size))


def _sums(p: NDArray[Any], o: NDArray[Any], axes: int) -> NDArray[np.float64]:
    """Count, means and centred sums over the last `axes` axes: (..., 7), ready to be merged."""
    shape = (*p.shape[: p.ndim - axes], -1)
    p, o = p.reshape(shape).astype("f8"), o.reshape(shape).astype("f8")
    known = np.isfinite(p) & np.isfinite(o)
    n = known.sum(-1)
    mean_p, p = _centre(p, known)
    mean_o, o = _centre(o, known)
    squares = [np.einsum("...i,...i", a, b) for a, b in ((p, p), (o, o), (p, o), (p - o, p - o))]
    return np.stack([n, mean_p, mean_o, *squares], axis=-1)


def _block_sums(p: NDArray[Any], o: NDArray[Any], axes: int) -> NDArray[np.float64]:
    """`_sums` with the reduced axes kept, one long."""
    return np.expand_dims(_sums(p, o, axes), tuple(range(p.ndim - axes, p.ndim)))


def _merge(blocks: NDArray[np.float64], axes: int) -> NDArray[np.float64]:
    """Merge the sums of all blocks (Chan et al. 1983) and finish them."""
    size = blocks.shape[-1]
    blocks = np.moveaxis(blocks, -1, 0).reshape(size, *blocks.shape[: blocks.ndim - 1 - axes], -1)
    n, mean_p, mean_o = blocks[:3]
    mean_p, p = _centre(mean_p, n > 0, n)
    mean_o, o = _centre(mean_o, n > 0, n)
    between = [(n * a * b).sum(-1) for a, b in ((p, p), (o, o), (p, o), (p - o, p - o))]
    within = blocks[3:].sum(-1)
    return _finish(np.stack([n.sum(-1), mean_p, mean_o, *(within + between)], axis=-1))


def _centre(
    values: NDArray[np.float64], known: NDArray[np.bool_], weights: NDArray[np.float64] | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean over the last axis and the deviations from it, both 0 where nothing is known.

    Values are first counted from one of their own, so that a constant has a variance of exactly 0.
    """
    values = np.where(known, values, 0.0)
    pilot = np.take_along_axis(values, known.argmax(-1)[..., None], -1)
    weights = known.astype("f8") if weights is None else weights
    values = np.where(known, values - pilot, 0.0)
    mean = (weights * values).sum(-1, keepdims=True) / np.maximum(weights.sum(-1, keepdims=True), 1)
    return (pilot + mean)[..., 0], np.where(known, values - mean, 0.0)


def _finish(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """Turn centred sums into variances; without a common cell all but the count is NaN."""
    n = sums[..., :1]
    known = np.where(n > 0, n, np.nan)
    return np.concatenate([n, np.where(n > 0, sums[..., 1:3], np.nan), sums[..., 3:] / known], axis=-1)


# ---- the door


def _on_axes_of(first: xr.DataArray, other: xr.DataArray) -> xr.DataArray:
    """The other field on the first one's own axes, which must mean the same cells and labels."""
    lonely = [dim for dim in first.dims if dim not in other.dims], [dim for dim in other.dims if dim not in first.dims]
    if all(lonely) and {"y", "x"} & {*lonely[0], *lonely[1]}:
        raise ValueError(
            f"the fields have the dims {first.dims} and {other.dims}, which would be crossed with each other: "
            f"rename those that mean the same, other = other.rename({{{lonely[1][-1]!r}: {lonely[0][-1]!r}}})"
        )
    for dim in [dim for dim in first.dims if dim in other.dims]:
        if dim in first.indexes and dim in other.indexes and not first.indexes[dim].equals(other.indexes[dim]):
            if not _same_cells(first, other, dim):
                raise ValueError(_difference(first, other, dim))
            other = other.assign_coords({dim: first[dim]})
        elif first.sizes[dim] != other.sizes[dim]:
            raise ValueError(
                f"the fields differ along {dim!r}: {first.sizes[dim]} against {other.sizes[dim]}, "
                "and without labels in both nothing tells which belong together"
            )
    return other


def _same_cells(a: xr.DataArray, b: xr.DataArray, dim: Hashable) -> bool:
    """Whether two axes differ by jitter only, or snap to the same window of the EASE-Grid 2.0."""
    if dim not in ("y", "x") or a.sizes[dim] != b.sizes[dim]:
        return False
    one, two = np.asarray(a[dim].values, "f8"), np.asarray(b[dim].values, "f8")
    if one.size > 1 and np.abs(one - two).max() <= JITTER * np.abs(np.diff(one)).min():
        return True
    try:
        return Grid.of(a) == Grid.of(b)
    except ValueError:
        return False


def _why_none_is_shared(one: Any, two: Any, dim: Hashable) -> str:
    kinds = type(one).__name__, type(two).__name__
    if "CFTimeIndex" in kinds and kinds[0] != kinds[1]:
        calendars = " against ".join(str(getattr(index, "calendar", "standard")) for index in (one, two))
        return f", for their calendars differ ({calendars}): obj = obj.convert_calendar('standard')"
    if kinds == ("DatetimeIndex", "DatetimeIndex") and len(one.normalize().intersection(two.normalize())):
        return f", but days: take the day of both, obj = obj.assign_coords({dim}=obj[{str(dim)!r}].dt.floor('D'))"
    return f": give fields of the same {dim}"


def _difference(a: xr.DataArray, b: xr.DataArray, dim: Hashable) -> str:
    one, two = a.indexes[dim], b.indexes[dim]
    same_cells = dim in ("y", "x") and one.size == two.size > 1 and np.allclose(one, two[::-1], rtol=0, atol=1)
    shared = one.intersection(two) if isinstance(one, type(two)) or isinstance(two, type(one)) else one[:0]
    if same_cells:
        mend = f"one of them runs the other way: other = other.sortby({dim!r}, ascending={bool(one[0] < one[-1])})"
    elif dim in ("y", "x"):
        mend = "carry one to the other's cells: prediction = smgrid.to_grid(prediction, smgrid.Grid.of(reference))"
    elif len(shared):
        mend = f"keep the {len(shared)} they share: prediction, reference = xr.align(prediction, reference)"
    else:
        mend = f"they share none{_why_none_is_shared(one, two, dim)}"
    return (
        f"the fields lie apart along {dim!r}: {len(one)} from {one[0]} to {one[-1]} against "
        f"{len(two)} from {two[0]} to {two[-1]}; {mend}"
    )


def _units(prediction: Field, reference: Field) -> str | None:
    """The units that the fields share, as the prediction spells them; None where neither says."""
    p, o = (as_field(field).attrs.get("units") for field in (prediction, reference))
    if p is None or o is None:
        return o if p is None else p
    change = conversion(o, p)
    if change == SAME:
        return p
    mend = "convert one of them"
    if change is not None and not change.decibel:
        mend = f"reference = (reference * {change.scale:g} + {change.offset:g}).assign_attrs(units={p!r})"
    raise ValueError(f"the prediction is in {p!r}, the reference in {o!r}: {mend}")


def _dims(dim: Dims, field: xr.DataArray) -> list[Hashable]:
    dims: list[Hashable] = [*field.dims] if dim is None else [dim] if isinstance(dim, str) else list(dim)
    absent = [d for d in dims if d not in field.dims]
    if absent:
        raise ValueError(f"no dimensions {absent} to reduce: the fields have {field.dims}")
    return dims


def _entry(
    values: xr.DataArray, name: str, long_name: str, units: str | None, formula: str, source: str
) -> xr.DataArray:
    """One entry of a scorecard."""
    attrs = {"long_name": long_name, "units": units, "formula": formula, "source": source}
    values = values.rename(name)
    if not {"y", "x"} <= set(values.dims):
        values = values.drop_vars("spatial_ref", errors="ignore")  # no longer a map
    values.attrs = {key: value for key, value in attrs.items() if value is not None}
    return values
