"""Lays the predictors of a cube together, so that one chunk on disk holds all of a place.

A reader pays for every chunk it opens, so twenty predictors of a place come faster out of one chunk than out of twenty.
Predictors that change with time go into one array, static ones into a second, which is not repeated by date. What a
packed cube holds is said in the attributes of its arrays; `open_cube` and `predict_map` give and take it as named
variables again, with the same values to the bit.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from dask.base import is_dask_collection, tokenize
from numpy.typing import NDArray


def pack_cube(cube: xr.Dataset) -> xr.Dataset:
    """Lay a cube's predictors together, to be written where it is read often.

    Parameters
    ----------
    cube : Dataset
        One variable a predictor, dims (..., y, x).

    Returns
    -------
    Dataset, lazy where the cube is
        `dynamic` (time, dynamic_predictor, y, x) and `static` (static_predictor, y, x), and one more array for each
        other set of dims, or type other than float32, that the cube has; all predictors of a place in one chunk. Names
        and attributes of the predictors are in their attributes. Coordinates are the cube's.

    Raises
    ------
    TypeError, ValueError
        It is no Dataset, or has no variable with dims y and x.

    Examples
    --------
    >>> import smgrid
    >>> grid = smgrid.Grid(1, 11466, 31401, 2, 3)
    >>> cube = xr.Dataset(coords=grid.coords())
    >>> cube["sand"] = (("y", "x"), np.full(grid.shape, 40, "f4"), {"units": "%"})
    >>> cube["clay"] = (("y", "x"), np.full(grid.shape, 20, "f4"), {"units": "%"})
    >>> packed = pack_cube(cube)
    >>> packed.static.dims, packed.static.attrs["predictors"]
    (('static_predictor', 'y', 'x'), ['sand', 'clay'])
    >>> unpack_cube(packed).identical(cube)
    True
    """
    if not isinstance(cube, xr.Dataset):
        raise TypeError(f"a cube to be packed is a Dataset, one variable a predictor, not {type(cube).__name__}")
    cube = unpack_cube(cube)
    groups: dict[str, list[str]] = {}
    for name, array in cube.data_vars.items():
        if {"y", "x"} <= set(array.dims):
            groups.setdefault(_group(array), []).append(str(name))
    if not groups:
        raise ValueError(f"the cube has no variable with dims y and x; its dims are {tuple(cube.sizes)}: rename them")
    out = cube.drop_vars([name for names in groups.values() for name in names])
    return out.assign({group: _together([cube[name] for name in names], group) for group, names in groups.items()})


def _group(array: xr.DataArray) -> str:
    lead = [str(dim) for dim in array.dims if dim not in ("y", "x")]
    name = {(): "static", ("time",): "dynamic"}.get(tuple(lead), "_".join(lead))
    return name if array.dtype == np.float32 else f"{name}_{array.dtype}"


def _together(arrays: Sequence[xr.DataArray], group: str) -> xr.Variable:
    lead = [dim for dim in arrays[0].dims if dim not in ("y", "x")]
    arrays = [array.transpose(*lead, "y", "x") for array in arrays]
    dims = (*lead, f"{group}_predictor", "y", "x")
    attrs = {
        "predictors": [str(array.name) for array in arrays],
        "predictor_attributes": {str(a.name): {k: _plain(v) for k, v in a.attrs.items()} for a in arrays},
    }
    if not any(is_dask_collection(array.data) for array in arrays):
        return xr.Variable(dims, np.stack([array.values for array in arrays], axis=-3), attrs)
    import dask.array as da

    chunks = next(array.data.chunks for array in arrays if is_dask_collection(array.data))
    parts = [array.chunk(dict(zip(array.dims, chunks))).data for array in arrays]
    own = (*range(len(lead)), len(lead) + 1, len(lead) + 2)
    data = da.blockwise(
        _stack,
        tuple(range(len(dims))),
        *(part for array in parts for part in (array, own)),
        new_axes={len(lead): len(parts)},
        dtype=arrays[0].dtype,
        name=f"packed-{tokenize([part.name for part in parts])}",
        meta=np.empty((0,) * len(dims), arrays[0].dtype),
        align_arrays=False,
    )
    return xr.Variable(dims, data, attrs)


def _plain(value: Any) -> Any:
    """An attribute as JSON can hold it."""
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


def _stack(*blocks: NDArray[Any]) -> NDArray[Any]:
    return np.stack(blocks, axis=-3)


@dataclass(frozen=True)
class _Take:
    """One predictor out of a packed chunk: a view of it."""

    number: int

    def __call__(self, block: Any) -> NDArray[Any]:
        (whole,) = block if isinstance(block, list) else (block,)  # Dask hands over the chunks along the axis
        return whole[..., self.number, :, :]


def unpack_cube(cube: xr.Dataset) -> xr.Dataset:
    """A packed cube as named variables again; any other Dataset comes back as it is.

    Each packed chunk stays one task, however many predictors are taken out of it.
    """
    packed = {str(name): array for name, array in cube.data_vars.items() if f"{name}_predictor" in array.dims}
    packed = {name: array for name, array in packed.items() if "predictors" in array.attrs}
    if not packed:
        return cube
    variables: dict[Hashable, xr.Variable] = {}
    for group, array in packed.items():
        names, axis = list(array.attrs["predictors"]), f"{group}_predictor"
        twice = [name for name in names if name in variables or names.count(name) > 1]
        if len(names) != array.sizes[axis] or twice:
            raise ValueError(
                f"{group!r} holds {array.sizes[axis]} predictors and names {names}: its attribute 'predictors' must "
                "name each once, in order"
            )
        said = array.attrs.get("predictor_attributes", {})
        for number, name in enumerate(names):
            variables[name] = _one(array.variable, axis, number)
            variables[name].attrs = dict(said.get(name, {}))
    return cube.drop_vars(list(packed)).assign(variables)


def _one(packed: xr.Variable, axis: str, number: int) -> xr.Variable:
    dims = tuple(dim for dim in packed.dims if dim != axis)
    if not is_dask_collection(packed.data if packed.chunks else None):
        one = packed.isel({axis: number})
        return xr.Variable(dims, one._data)
    import dask.array as da

    packed = packed.transpose(*dims[:-2], axis, *dims[-2:])
    data = packed.data
    place = packed.dims.index(axis)
    if len(data.chunks[place]) > 1:
        data = data.rechunk({place: -1})
    every = tuple(range(data.ndim))
    taken = da.blockwise(
        _Take(number),
        every[:place] + every[place + 1 :],
        data,
        every,
        dtype=data.dtype,
        name=f"taken-{number}-{tokenize(data.name)}",
        meta=np.empty((0,) * (data.ndim - 1), data.dtype),
    )
    return xr.Variable(dims, taken)
