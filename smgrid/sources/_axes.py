"""Brings the axes of a product's file to ours: `y` descends, `x` ascends within -180..180, the CRS is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from smgrid.files import axis_attributes, reference
from smgrid.grid import Grid, find_crs, is_ease2
from smgrid.units import conversion

_LATITUDE, _LONGITUDE = {"lat", "latitude", "nav_lat"}, {"lon", "longitude", "long", "nav_lon"}


def north_up(data: xr.Dataset, path: str | Path, *, crs: Any = None) -> xr.Dataset:
    """Bring a Dataset to dims `y` (descending) and `x` (ascending, -180..180) with its CRS in `spatial_ref`.

    Parameters
    ----------
    data : Dataset
        With 1-D axes of latitude and longitude, or of a projection.
    path : path
        For messages.
    crs : anything pyproj knows, optional
        For data that carry none; axes in degrees need none (EPSG:4326).

    Raises
    ------
    ValueError
        No such axes, irregular ones, a CRS that cannot be known, or a window across 180 degrees.
    """
    from pyproj import CRS

    axes = {axis: _axis_name(data, axis, path) for axis in ("y", "x")}
    found = CRS.from_user_input(crs) if crs is not None else find_crs(data)
    degrees = _in_degrees(data[axes["y"]]) and _in_degrees(data[axes["x"]])
    if found is None and not degrees:
        raise ValueError(
            f"{path}: the axes {axes['y']!r}, {axes['x']!r} are not in degrees and the file names no CRS "
            "(no grid mapping): give it with crs='EPSG:...'"
        )
    system = found or CRS.from_epsg(4326)
    mapping = [n for n in data.variables if {"grid_mapping_name", "crs_wkt", "spatial_ref"} & set(data[n].attrs)]
    data = data.drop_vars([n for n in mapping if data[n].ndim == 0])
    data = data.rename({old: new for new, old in axes.items() if old != new})
    y, x = (_regular(data[axis].values, f"{path}: {axes[axis]!r}") for axis in ("y", "x"))
    if not system.is_geographic:
        y, x = (_metres(values, data[axis].attrs.get("units"), path) for axis, values in (("y", y), ("x", x)))
    if system.is_geographic and (np.abs(y).max() > 90.5 or x.min() < -180.5 or x.max() > 360.5):
        raise ValueError(
            f"{path}: the CRS {system.name!r} is in degrees, but the axes reach x = {x[-1]:.6g}, y = {y[0]:.6g}"
        )
    data = data.assign_coords(
        y=("y", y, axis_attributes("y", system)),
        x=("x", x, axis_attributes("x", system)),
        spatial_ref=((), np.int64(0), reference(system)),
    )
    data = data.isel(y=slice(None, None, -1)) if y.size > 1 and y[1] > y[0] else data
    data = data.isel(x=slice(None, None, -1)) if x.size > 1 and x[1] < x[0] else data
    data = _wrap(data, path) if system.is_geographic else data
    data = snap(data)
    for variable in data.data_vars.values():
        variable.attrs.pop("grid_mapping", None)
        packing = {key: variable.encoding[key] for key in ("scale_factor", "add_offset") if key in variable.encoding}
        variable.encoding = {"grid_mapping": "spatial_ref", **packing}
    return data


def snap(data: xr.Dataset) -> xr.Dataset:
    """Axes that are the EASE-Grid 2.0's, but for rounding, in its own exact numbers; any other as they are."""
    system = find_crs(data)
    if system is None or not is_ease2(system) or min(data.sizes["y"], data.sizes["x"]) < 2:
        return data
    try:
        return data.assign_coords(Grid.of(data).coords())
    except ValueError:
        return data


def _axis_name(data: xr.Dataset, axis: str, path: str | Path) -> Any:
    """The dimension that runs along `y` or `x`, by its name, else by its CF attributes."""
    geographic = _LATITUDE if axis == "y" else _LONGITUDE
    kinds = {"latitude", "projection_y_coordinate"} if axis == "y" else {"longitude", "projection_x_coordinate"}
    dims = [dim for dim in data.dims if dim in data.indexes]
    for fits in (
        lambda dim: str(dim).lower() in geographic | {axis},
        lambda dim: data[dim].attrs.get("standard_name") in kinds,
        lambda dim: data[dim].attrs.get("axis", "").lower() == axis,
    ):
        hits = [dim for dim in dims if fits(dim)]
        if len(hits) == 1:
            return hits[0]
    raise ValueError(
        f"{path} has no {axis!r} axis with coordinates (latitude/longitude or y/x, one-dimensional): its dims are "
        f"{dict(data.sizes)}, its coordinates {sorted(map(str, data.coords))}"
    )


def _in_degrees(axis: xr.DataArray) -> bool:
    return str(axis.attrs.get("units", "")).lower().startswith("degree") or str(axis.name).lower() in (
        _LATITUDE | _LONGITUDE
    )


def _metres(values: NDArray[np.float64], units: Any, path: str | Path) -> NDArray[np.float64]:
    way = conversion(units or "m", "m")
    if way is None:
        raise ValueError(f"{path}: the CRS is in metres, but an axis is in {units!r}")
    return way(values)


def _regular(values: NDArray[Any], what: str) -> NDArray[np.float64]:
    """An axis in float64; what float32 or short decimals have blurred is drawn straight again."""
    axis = np.asarray(values, "f8")
    if axis.size < 3:
        return axis
    first, last = (float(str(end)) for end in np.asarray(values)[[0, -1]])  # shortest decimal: 28.4 of float32(28.4)
    straight = np.linspace(first, last, axis.size)
    stray, step = np.abs(axis - straight).max(), abs(straight[1] - straight[0])
    if not stray <= 1e-2 * step:
        steps = np.abs(np.diff(axis))
        raise ValueError(f"{what} is not a regular axis: its steps are {steps.min():g} to {steps.max():g}")
    return np.round(straight, 9) if np.abs(axis).max() <= 360 else straight


def _wrap(data: xr.Dataset, path: str | Path) -> xr.Dataset:
    """Longitudes 0..360 to -180..180, ascending."""
    x = data["x"].values
    step = (x[-1] - x[0]) / max(1, x.size - 1)
    if x.max() <= 180 + step / 2:
        return data
    turned = np.round((x + 180) % 360 - 180, 9)
    first = int(np.argmin(turned))
    order = np.r_[first : x.size, :first]
    if np.any(np.diff(turned[order]) > 1.5 * step):
        raise ValueError(f"{path}: the window crosses 180 degrees of longitude: select its two sides one by one")
    attrs = data["x"].attrs
    parts = [data.isel(x=slice(first, None)), data.isel(x=slice(0, first))] if first else [data]
    whole = xr.concat(parts, "x", data_vars="minimal", coords="minimal", compat="override", join="override")
    return whole.assign_coords(x=("x", turned[order], attrs))
