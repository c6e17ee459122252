"""What the granules and the point lists of SMAP have in common."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from smgrid.files import ContentError
from smgrid.grid import Grid
from smgrid.units import conversion

PRODUCTS = {36: "SPL3SMP", 9: "SPL3SMP_E"}
FILL = -9999.0


def dates_of(path: Path) -> list[np.datetime64]:
    """The dates in a file name, in order."""
    found = re.findall(r"(?<!\d)(\d{4})-?(\d{2})-?(\d{2})(?!\d)", path.stem)
    try:
        return [np.datetime64("-".join(parts), "D") for parts in found]
    except ValueError as error:
        raise ValueError(f"{path}: the file name holds an impossible date: {error}") from error


def volume_fraction(
    path: Path, name: str, values: NDArray[np.float64], units: Any, good: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Good values in m3 m-3; refuses a unit or numbers that are no volume fraction."""
    way = conversion(units if units else "m3 m-3", "m3 m-3")
    if way is None:
        raise ContentError(f"{path}: {name!r} is in {units!r}, not in m3 m-3 or %")
    values = way(values)
    wrong = good & ~((values >= 0) & (values <= 1))
    if wrong.any():
        raise ContentError(
            f"{path}: {name!r} holds {values[wrong].flat[0]:g} where m3 m-3 lie in 0..1, in {int(wrong.sum())} values "
            f"that are no declared fill (units in the file: {units!r}): percent, or a fill taken for a value"
        )
    return values


def dataset(grid: Grid, days: Sequence[np.datetime64], smap: da.Array) -> xr.Dataset:
    data = xr.Dataset({"smap": (("time", "y", "x"), smap)}, grid.coords())
    data["smap"].attrs = {
        "long_name": "SMAP soil moisture, 0-5 cm",
        "standard_name": "volume_fraction_of_condensed_water_in_soil",
        "units": "m3 m-3",
        "valid_min": 0.0,
        "valid_max": 1.0,
        "native_resolution": f"{grid.km:g} km",
    }
    data["smap"].encoding["grid_mapping"] = "spatial_ref"
    return data.assign_coords(
        time=("time", np.array(days, "M8[ns]"), {"long_name": "UTC day", "standard_name": "time"})
    )
