"""Takes the borders of coarse cells out of a finished map, for show.

The share `beta` of the coarse field's steps that a map copies (see `imprints`) is taken from what it copied them from,
the blocks, and given to their smooth spread: z - beta (blocks - smooth). Blocks and smooth spread have the same mean
over each coarse cell, so the map's mean over whole coarse cells stays what it was. Nothing is learnt by it. The remedy
is to train and to map with `coarse.smooth`; this is for a map that cannot be made again.
"""

from __future__ import annotations

from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from smgrid import coarse as spreads
from smgrid.borders import one_field, source_of
from smgrid.imprints import imprint, match_source
from smgrid.shapes import as_field
from smgrid.steps import open_field


def correct(
    field: xr.DataArray | xr.Dataset, coarse: xr.DataArray, *, beta: float | xr.DataArray | None = None
) -> xr.DataArray | xr.Dataset:
    """Smooth out, for show, the borders that a finished map copied from a coarse field.

    Parameters
    ----------
    field : DataArray or maps, dims (..., y, x)
        On the EASE-Grid 2.0. Of maps, `soil_moisture` is corrected, the other layers stay.
    coarse : DataArray
        The coarse field on its own cells (not spread); a `time` is matched with the map's.
    beta : float or DataArray, optional
        Share of the steps that the map copies, one a date or one for all; by default what `imprint` finds on each,
        none where that is negative or missing.

    Returns
    -------
    As `field`, lazy where it is. `cosmetic` in the attrs says what was done, and the title that it was. The mean over
    coarse cells that the map shows wholly, and that have no missing cell, is kept.

    Raises
    ------
    ValueError
        As for `imprint`.

    Notes
    -----
    Values are not kept within a range. Where the map is missing in a part of a coarse cell, the mean of the rest may
    change by a part of the correction.

    References
    ----------
    Tobler (1979), J. Am. Stat. Assoc. 74, 519-530, doi:10.1080/01621459.1979.10481647 (keeping the means)

    Examples
    --------
    >>> from smgrid import YANCO, seams
    >>> rng = np.random.default_rng(0)
    >>> cells = YANCO.coarsen(9)
    >>> smap = xr.DataArray(rng.normal(0.2, 0.03, cells.shape), cells.coords(), ("y", "x"))  # synthetic
    >>> field = 0.6 * spreads.blocks(smap, YANCO) + rng.normal(0, 0.01, YANCO.shape)
    >>> mended = correct(field, smap)
    >>> seams.detect(field).ratio.round(1).item(), seams.detect(mended).ratio.round(1).item()
    (2.1, 1.0)
    >>> mended.cosmetic
    'borders of coarse smoothed out after mapping: field - beta (blocks - smooth), beta = 0.6'
    """
    values, grid = open_field(field)
    coarse = one_field(coarse)
    name = str(coarse.name or "coarse")
    source = source_of(coarse, grid, name, "blocks")
    if source.coarse is None:
        raise ValueError(f"{name!r} is spread over the map's cells: give the coarse field itself, on its own cells")
    if beta is None:
        found = imprint(field, coarse)["beta"].drop_vars("source")
        beta = found.where(found > 0, 0)
    if np.isnan(beta).any():
        raise ValueError(
            "beta is NaN: give a number, the share of the steps to be taken off, or leave it out, and what imprint finds "
            "is taken"
        )
    share = beta if isinstance(beta, xr.DataArray) else xr.DataArray(float(beta))
    stray = [dim for dim in share.dims if dim not in values.dims[:-2]]
    if stray:
        raise ValueError(f"beta has the dims {share.dims}, the map {values.dims}: one number a date, or one for all")
    smooth = source._replace(spread=as_field(spreads.smooth(coarse, grid)).transpose(..., "y", "x"))
    excess = _lazily(_known_difference, *(match_source(one, values) for one in (source, smooth)))
    mended = values.copy(
        data=(values.variable - share.variable * xr.Variable(values.dims, excess)).transpose(*values.dims).data
    )
    mended = mended.astype(values.dtype if values.dtype.kind == "f" else "f4")
    numbers = ", ".join(f"{b:.2g}" for b in np.ravel(share.values)[:8]) + (", ..." if share.size > 8 else "")
    said = f"borders of {name} smoothed out after mapping: field - beta (blocks - smooth), beta = {numbers}"
    mended.attrs = {**values.attrs, "cosmetic": said}
    if isinstance(field, xr.DataArray):
        return mended.transpose(*field.dims)
    out = field.assign(soil_moisture=mended.transpose(*field["soil_moisture"].dims))
    out.attrs = {**field.attrs, "title": f"{field.attrs.get('title', 'maps')} (cosmetic: borders smoothed out)"}
    return out


def _known_difference(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.float64]:
    """0 where the coarse field is missing: nothing is known to correct there."""
    return np.nan_to_num(a.astype("f8") - b)


def _lazily(function: Any, *arrays: Any) -> Any:
    if any(isinstance(a, da.Array) for a in arrays):
        return da.map_blocks(function, *arrays, dtype="f8", meta=np.empty((0,) * arrays[0].ndim))
    return function(*arrays)
