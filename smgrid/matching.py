"""Holds a cube against the contract of a model: all faults at once, each with a line that mends it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import xarray as xr

from smgrid.features import COMPUTED, match_units, stray_units, suggest
from smgrid.models import MAKING, Model
from smgrid.shapes import place_faults, undecoded
from smgrid.units import Conversion


def match(
    cube: xr.Dataset, model: Model, units: Mapping[str, str] | str | None
) -> tuple[dict[str, xr.DataArray], dict[str, Conversion]]:
    """The cube's variable for every predictor and how it converts; all faults in one error."""
    data = [str(name) for name in cube.data_vars]
    stored = [name for name in model.predictors if name in cube.data_vars]
    missing = [name for name in model.predictors if name not in stored and name not in COMPUTED]
    faults = stray_units(units, sorted({*data, *model.predictors}))
    if missing:
        faults.append(
            f"the cube lacks the predictors {missing} that the model was trained with; it has {sorted(data)}. "
            "Add them, or train without them"
        )
        faults += [f"cube = cube.rename({have}={name!r})" for name in missing if (have := suggest(name, data))]
    if "day_of_year" in model.predictors and "day_of_year" not in stored:
        faults += _time_faults(cube)
    faults += (
        place_faults(cube, stored) if stored else ["the cube holds no predictor of the model"] if not missing else []
    )
    raw = [fault for name in stored if (fault := undecoded(name, cube[name]))]
    found = {name: cube[name].attrs.get("units") for name in stored}
    for name in COMPUTED:  # a stored coordinate carries no units more often than not
        if name in found and found[name] is None:
            found[name] = model.predictors[name].units
    conversions, unit_faults = match_units(found, model.predictors, units)
    faults += raw + unit_faults + _making_faults(cube, model)
    if faults:
        raise ValueError("\n".join(faults))
    return {name: cube[name] for name in stored}, conversions


def _time_faults(cube: xr.Dataset) -> list[str]:
    if "time" not in cube.coords:
        return [
            "the model needs day_of_year, but the cube has no time: "
            "cube = cube.assign_coords(time=np.datetime64('2015-05-05'))"
        ]
    if getattr(cube["time"].dtype, "tz", None) is not None:
        return [
            "the cube's time has a time zone, but days are UTC: "
            "cube = cube.assign_coords(time=cube.indexes['time'].tz_convert(None))"
        ]
    if cube["time"].dtype.kind != "M":
        return [
            f"the cube's time is {cube['time'].dtype}, not dates: "
            "cube = cube.assign_coords(time=cube.time.astype('datetime64[ns]'))"
        ]
    if cube["time"].ndim > 1 or (cube["time"].ndim == 1 and cube["time"].dims != ("time",)):
        return [f"the cube's time has the dims {cube['time'].dims}; it must be a dimension of its own or a single date"]
    return []


def _making_faults(cube: xr.Dataset, model: Model) -> list[str]:
    """A map must be made from predictors that were made as those of the training rows."""
    faults = []
    for key, names in MAKING.items():
        for name in names:
            was = model.making.get(f"{name}.{key}")
            now = cube[name].attrs.get(key) if name in cube else None
            if was is not None and now is not None and str(now) != was:
                faults.append(
                    f"{name!r} was made with {key} {was!r} in training, but with {str(now)!r} in the cube: "
                    "make both alike"
                )
    return faults


def check_where(where: xr.DataArray, cube: xr.Dataset) -> xr.DataArray:
    """The cells to predict, once they are known to lie on the cube."""
    if not isinstance(where, xr.DataArray) or where.dtype.kind != "b":
        kind = where.dtype if isinstance(where, xr.DataArray) else type(where).__name__
        raise TypeError(  # astype(bool) would take NaN for True
            f"where is a DataArray of bool, not {kind}: where = mask == 1, or whatever says of each cell that it counts"
        )
    stray = [dim for dim in where.dims if dim not in cube.dims]
    if stray or not {"y", "x"} <= set(where.dims):
        raise ValueError(
            f"where has the dims {where.dims}; they must be y, x and others of the cube's {tuple(cube.dims)}"
        )
    for dim in where.dims:
        same = where.sizes[dim] == cube.sizes[dim]
        if dim in where.coords and dim in cube.coords and same:
            a, b = where[dim].values, cube[dim].values
            same = np.allclose(a, b, rtol=0, atol=1.0) if a.dtype.kind == "f" else bool((a == b).all())
        if not same:
            raise ValueError(
                f"where does not lie on the cube's {dim!r}: where = "
                "where.reindex_like(cube, fill_value=False) or make it anew"
            )
    return where.drop_vars(list(where.coords))
