"""Checks the five shapes at the door: cube, stations, samples, maps, scorecard."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from smgrid.grid import Grid, find_crs, is_ease2

if TYPE_CHECKING:
    import xarray as xr

PREDICTED, OUTSIDE, MISSING, INVALID, MASKED = range(5)
STATUS = {
    PREDICTED: "predicted",
    OUTSIDE: "predicted_outside_the_training_range",
    MISSING: "predictor_missing",
    INVALID: "invalid_value",
    MASKED: "masked_by_where",
}
INSIDE, BEYOND, NOT_PREDICTED = range(3)
APPLICABILITY = {
    INSIDE: "inside_the_area_of_applicability",
    BEYOND: "outside_the_area_of_applicability",
    NOT_PREDICTED: "not_predicted",
}
_TRAINED = {
    "spread": {"long_name": "standard deviation over the trees of the forest", "units": "m3 m-3"},
    "lower": {"long_name": "lower bound of the prediction interval", "units": "m3 m-3"},
    "upper": {"long_name": "upper bound of the prediction interval", "units": "m3 m-3"},
    "dissimilarity": {"long_name": "dissimilarity to the training samples", "units": "1"},
}


def as_field(obj: Any) -> xr.DataArray:
    """Return one field: a DataArray as it is, or the `soil_moisture` of maps.

    Parameters
    ----------
    obj : DataArray or Dataset
        A Dataset must hold `soil_moisture`.
    """
    import xarray as xr

    if isinstance(obj, xr.DataArray):
        return obj
    if isinstance(obj, xr.Dataset):
        if "soil_moisture" in obj:
            return obj["soil_moisture"]
        raise ValueError(
            f"the Dataset has no 'soil_moisture'; it has {sorted(map(str, obj.data_vars))}: give one of them"
        )
    raise TypeError(f"a field is an xarray DataArray, or a Dataset with 'soil_moisture', not {type(obj).__name__}")


def as_cube(obj: Any) -> xr.Dataset:
    """Return a cube as a Dataset with one variable a predictor.

    Parameters
    ----------
    obj : Dataset, packed or not, or DataArray with a dimension `band` whose labels are the predictors' names
    """
    import xarray as xr

    from smgrid.packing import unpack_cube

    if isinstance(obj, xr.Dataset):
        return unpack_cube(obj)
    if not isinstance(obj, xr.DataArray):
        raise TypeError(
            f"a cube is an xarray Dataset, or a DataArray with a 'band' dimension, not {type(obj).__name__}"
        )
    if "band" not in obj.dims:
        raise ValueError(
            "a DataArray is a cube only with a dimension 'band' whose labels name the predictors; "
            f"its dims are {obj.dims}. Give a Dataset: cube = array.to_dataset(name='vv')"
        )
    if "band" not in obj.coords or obj["band"].dtype.kind not in "UOT":
        raise ValueError(
            "the bands have no names, so which is which cannot be known: "
            "cube = cube.assign_coords(band=['vv', 'vh', ...])"
        )
    labels = [str(label) for label in obj["band"].values]
    double = sorted({label for label in labels if labels.count(label) > 1})
    if double:
        raise ValueError(f"the bands {double} come more than once: cube = cube.drop_duplicates('band') keeps the first")
    named = obj.assign_coords(band=labels)
    units = obj.attrs.get("units")
    cube = named.to_dataset("band")
    per_band = obj.coords["units"].values if "units" in obj.coords and obj["units"].dims == ("band",) else None
    for k, label in enumerate(labels):
        if per_band is not None:
            cube[label].attrs["units"] = str(per_band[k])
        elif units is not None:
            cube[label].attrs["units"] = units
    return cube.drop_vars("units", errors="ignore")


def place_faults(cube: xr.Dataset, names: Iterable[str]) -> list[str]:
    """What is wrong with where a cube lies, one line each; empty when it lies on one known grid.

    What claims EPSG:6933 must be on the EASE-Grid 2.0 family; any other CRS is taken where it lies.
    """
    lonely = [name for name in names if not {"y", "x"} <= set(cube[name].dims)]
    faults = [
        f"{name!r} has the dims {cube[name].dims}, without 'y' and 'x': "
        "if they are called otherwise, cube = cube.rename(row='y', col='x') or the like; from latitudes and "
        "longitudes, cube = smgrid.to_grid(cube, smgrid.Grid.around((west, south, east, north)))"
        for name in lonely
    ]
    if faults:
        return faults
    missing = [axis for axis in ("y", "x") if axis not in cube.coords]
    if missing:
        return [f"the cube has no coordinates {missing}: cube = cube.assign_coords(smgrid.Grid(...).coords())"]
    crs = find_crs(cube)
    if crs is None or is_ease2(crs):
        try:
            Grid.of(cube)
        except ValueError as error:
            return [re.sub(r"\bobj\b", "cube", str(error))]
        return []
    y, x = (np.asarray(cube[axis].values, "f8") for axis in ("y", "x"))
    if crs.is_geographic and (np.abs(x).max() > 360 or np.abs(y).max() > 90):
        return [
            f"the CRS {crs.name!r} is in degrees, but the axes reach x = {x.max():.6g}, y = {y.max():.6g}: "
            "if they are metres of the EASE-Grid 2.0, cube = cube.rio.write_crs('EPSG:6933')"
        ]
    if not crs.is_geographic:
        try:
            there = Grid.of_axes(y, x)
        except ValueError:
            return []
        return [
            f"the CRS is {crs.name!r}, but the axes are those of {there}: the CRS is wrong. "
            "cube = cube.rio.write_crs('EPSG:6933')"
        ]
    return []


def undecoded(name: str, array: xr.DataArray) -> str | None:
    """Say what is wrong with values that still carry their file's packing, or None."""
    plain = {"scale_factor": 1, "add_offset": 0}
    packing = {key: array.attrs[key] for key, nothing in plain.items() if array.attrs.get(key, nothing) != nothing}
    for key in ("_FillValue", "missing_value"):
        fill = array.attrs.get(key)
        if fill is not None and not (np.ndim(fill) == 0 and np.issubdtype(type(fill), np.number) and np.isnan(fill)):
            packing[key] = fill
    if packing:
        return (
            f"{name!r} ({array.dtype}) still carries {packing} in its attrs, so its fill or scale was not applied: "
            "open the file with mask_and_scale=True (rioxarray: masked=True), or cube = xr.decode_cf(cube)"
        )
    if array.dtype.kind not in "fiub":
        return f"{name!r} is of dtype {array.dtype}, not numbers: cube[{name!r}] = cube[{name!r}].astype('float32')"
    return None


def layer_attributes(layer: str, layers: list[str], predictors: list[str]) -> dict[str, Any]:
    """CF attributes of one layer of maps; `layers` are all that the maps hold, `predictors` those of the model."""
    name = "volume_fraction_of_condensed_water_in_soil"
    if layer == "soil_moisture":
        attrs = {"long_name": "soil moisture", "standard_name": name, "units": "m3 m-3"}
        others = [other for other in layers if other != layer]
        return {**attrs, "ancillary_variables": " ".join(others)} if others else attrs
    if layer == "status":
        return {
            "long_name": "what happened in the cell",
            "standard_name": f"{name} status_flag",
            "flag_values": np.array(list(STATUS), "u1"),
            "flag_meanings": " ".join(STATUS.values()),
        }
    if layer in _TRAINED:
        return dict(_TRAINED[layer])
    if layer == "applicability":
        return {
            "long_name": "inside or outside the area of applicability",
            "flag_values": np.array(list(APPLICABILITY), "u1"),
            "flag_meanings": " ".join(APPLICABILITY.values()),
        }
    return {
        "long_name": "first predictor that was missing, invalid or outside the training range",
        "flag_values": np.arange(len(predictors) + 1, dtype="u1"),
        "flag_meanings": " ".join(["none", *predictors]),
    }
