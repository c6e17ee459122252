"""Checks the five shapes at the door: cube, stations, samples, maps, scorecard."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import xarray as xr


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
