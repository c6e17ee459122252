"""Spreads a coarse field to the fine grid."""

from __future__ import annotations

from typing import TYPE_CHECKING

from smgrid.grid import Grid
from smgrid.overlap import locate
from smgrid.regrid import carry

if TYPE_CHECKING:
    import xarray as xr


def blocks(field: xr.DataArray | xr.Dataset, grid: Grid) -> xr.DataArray | xr.Dataset:
    """Spread a coarse field to a fine grid as blocks.

    Each cell takes the value of the coarse cell that holds its centre. This is what the area-weighted mean of a nested
    coarse field comes to, and what puts its edges into a map.

    Parameters
    ----------
    field : DataArray or Dataset, dims (..., y, x), (..., lat, lon) or (..., latitude, longitude)
        On a coarser EASE-Grid 2.0 (SMAP at 9 or 36 km), in EPSG:6933, or on latitudes and longitudes (ERA5-Land).
    grid : Grid
        The fine grid.

    Returns
    -------
    DataArray or Dataset, dims (..., y, x), units of the field
        Lazy where the field is; NaN where the field is missing or does not reach. `spreading` in the attrs says
        "blocks", `coarse_km` the nominal side of the coarse cells where they are of the EASE-Grid family.

    Raises
    ------
    ValueError
        The field's cells are finer than the grid's; and whatever `to_grid` refuses.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> coarse = Grid(9, 1274, 3489, 2, 2)
    >>> smap = xr.DataArray(np.arange(4.0).reshape(2, 2), coords=coarse.coords(), dims=("y", "x"))
    >>> fine = blocks(smap, coarse.refine(9))
    >>> fine.shape, fine[8:10, 8:10].values.tolist(), fine.attrs["coarse_km"]
    ((18, 18), [[0.0, 1.0], [2.0, 3.0]], 9)
    """
    sides = locate(field, grid)
    finest = min(side.width for side in sides)
    if finest < 1 - 1e-6:
        raise ValueError(
            f"the field's cells are finer than the grid's ({finest:.3g} of a cell of {grid.km:g} km), so there is "
            "nothing to spread: use smgrid.to_grid(obj, grid)"
        )
    out = carry(field, grid, sides, how="nearest")
    said = {"spreading": "blocks"} | _coarse_km(field)
    for array in out.data_vars.values() if hasattr(out, "data_vars") else [out]:
        del array.attrs["aggregation"]
        array.attrs.update(said)
    return out


def _coarse_km(field: xr.DataArray | xr.Dataset) -> dict[str, float]:
    try:
        return {"coarse_km": Grid.of(field).km}
    except ValueError:
        return {}
