"""Opens SoilGrids 2.0: sand, clay and bulk density of the topsoil.

The maps come in the interrupted Goode homolosine, 250 m, as int16: sand and clay in g/kg, bulk density (bdod)
in cg/cm3.

References
----------
Poggio et al. (2021), SOIL 7, 217-240, doi:10.5194/soil-7-217-2021.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from smgrid.files import open_raster
from smgrid.sources._scenes import Paths, describe, elementwise, listed, mosaic, peek

_PROPERTIES = {"sand": ("sand", 10.0), "clay": ("clay", 10.0), "bdod": ("bulk_density", 100.0)}  # name, stored / unit
_ALIASES = {"bulk_density": "bdod"}
_MOST = {"sand": 1000, "clay": 1000, "bdod": 265}  # as stored: all of the mass, and quartz without pores
_MIDDLE = {"sand": (1.0, 100.0), "clay": (1.0, 100.0), "bdod": (0.2, 2.65)}  # where a median lies, in canonical units
_LONG = {
    "sand": "sand (0.05 to 2 mm) in the fine earth, by mass",
    "clay": "clay (below 0.002 mm) in the fine earth, by mass",
    "bulk_density": "bulk density of the fine earth",
}
_OLD = re.compile(r"SNDPPT|CLYPPT|BLDFIE", re.IGNORECASE)


def open(paths: Paths | Mapping[str, Any]) -> xr.Dataset:
    """Open SoilGrids maps lazily, on their own grid.

    Parameters
    ----------
    paths : path, sequence of paths, or mapping
        GeoTIFFs (COGs, also by address) with the property in their name or in that of the band
        (`sand_0-5cm_mean.tif`); else a mapping says which is which: `{"sand": path, "clay": path, "bdod": path}`.
        Tiles of one property are laid beside each other.

    Returns
    -------
    Dataset, dims (y, x)
        `sand`, `clay` (%) and `bulk_density` (g cm-3), as many as were given. NaN where the map has none: nodata,
        declared or not (so all above 100 %, or denser than quartz), and 0, which is how services fill towns and water.

    Raises
    ------
    ValueError
        A file of another property, version (2017) or statistic (uncertainty), two depths, values in another unit; the
        message names the file.

    Examples
    --------
    >>> soil = open(["sand_0-5cm_mean.tif", "clay_0-5cm_mean.tif", "bdod_0-5cm_mean.tif"])  # doctest: +SKIP
    >>> int(impossible(soil).sum())  # doctest: +SKIP
    0
    """
    if isinstance(paths, Mapping):
        pairs: list[tuple[str, str | None]] = [
            (path, key) for key, some in paths.items() for path in listed(some, f"SoilGrids map of {key}")
        ]
    else:
        pairs = [(path, None) for path in listed(paths, "SoilGrids map")]
    parts: list[xr.Dataset] = []
    depths: dict[str, set[str]] = {}
    for path, key in pairs:
        array = open_raster(path)
        for band, prop in _bands(path, [str(name) for name in array["band"].values], key).items():
            name, divisor = _PROPERTIES[prop]
            _check_values(path, prop, peek(path)[band])
            stored = array.isel(band=band, drop=True).drop_vars(["scale", "offset", "units"], errors="ignore")
            scale = float(array["scale"].values[band])
            one = elementwise(_scaled, stored, divisor=divisor / scale, most=_MOST[prop] / scale)
            one.attrs = {"source_files": Path(path).name}
            parts.append(one.to_dataset(name=name))
            depths.setdefault(name, set()).add(_depth(f"{array['band'].values[band]} {Path(path).name}"))
    return _told(mosaic(parts), depths)


def impossible(soil: xr.Dataset) -> xr.DataArray:
    """Where sand and clay exceed 100 % together (by more than the rounding to 0.1 %); such pixels are left as they are.

    Parameters
    ----------
    soil : Dataset with `sand` and `clay`, %

    Returns
    -------
    DataArray of bool, lazy on lazy input

    Examples
    --------
    >>> soil = xr.Dataset({"sand": ("x", [60.0, 50.0]), "clay": ("x", [50.0, 50.1])})
    >>> impossible(soil).values
    array([ True, False])
    """
    over = soil["sand"].astype("f8") + soil["clay"] > 100.15
    return over.rename("sand_and_clay_exceed_100_percent").drop_attrs()


def _scaled(stored: NDArray[Any], *, divisor: float, most: float) -> NDArray[np.float32]:
    known = (stored > 0) & (stored <= most * (1 + 1e-6))
    return np.where(known, stored.astype("f8") / divisor, np.nan).astype("f4")


def _bands(path: str, bands: Sequence[str], key: str | None) -> dict[int, str]:
    """Which bands hold which property."""
    if key is not None:
        prop = _ALIASES.get(key, key)
        if prop not in _PROPERTIES:
            raise ValueError(f"{key!r} is no property that is read here: {sorted(_PROPERTIES)} (bdod is bulk density)")
        if len(bands) > 1:
            raise ValueError(f"{path} has {len(bands)} bands {list(bands)}, but is given as the one map of {key!r}")
        return {0: prop}
    named = {k: kind for k, band in enumerate(bands) if (kind := _property(band))}
    if not named and len(bands) == 1 and (kind := _property(Path(path).name)):
        named = {0: kind}
    said = " ".join([Path(path).name, *bands])
    if _OLD.search(said):
        raise ValueError(
            f"{path} is SoilGrids250m of 2017, which has other units: take SoilGrids 2.0 (sand, clay, bdod)"
        )
    if not named:
        raise ValueError(
            f"{path}: neither its name nor its bands {list(bands)} say sand, clay or bdod: give a mapping, "
            "{'sand': path, 'clay': path, 'bdod': path}"
        )
    other = re.search(r"uncertainty|(?<![a-z0-9])Q0[._]?\d+", said, re.IGNORECASE)
    if other:
        raise ValueError(f"{path} holds the {other[0]} of the map, not the map: take the one called mean")
    return named


def _property(name: str) -> str | None:
    found = re.search(r"(?<![a-z])(sand|clay|bdod)(?![a-z])", name, re.IGNORECASE)
    return found[1].lower() if found else None


def _depth(name: str) -> str:
    found = re.search(r"(?<!\d)(\d{1,3}-\d{1,3})\s?cm", name)
    return f"{found[1]} cm" if found else "unknown"


def _check_values(path: str, prop: str, values: NDArray[np.float64]) -> None:
    """Refuse another unit, from some of the values."""
    values = values[np.isfinite(values) & (values > 0)]
    if not values.size:
        return
    name, divisor = _PROPERTIES[prop]
    middle = float(np.median(values)) / divisor
    least, most = _MIDDLE[prop]
    if not least <= middle <= most:
        unit = "cg/cm3" if prop == "bdod" else "g/kg"
        raise ValueError(
            f"{path}: {name!r} has the median {middle * divisor:g}, expected are {least * divisor:g} to "
            f"{most * divisor:g} {unit}: it holds another property or unit. SoilGrids 2.0 is int16 in {unit}"
        )
    if prop != "bdod" and values.max() <= 100:  # sand or clay of at most 10 % everywhere, or numbers that are percent
        raise ValueError(
            f"{path}: {name!r} is nowhere above {values.max():g} where it was looked at: percent, where SoilGrids 2.0 "
            f"is int16 in g/kg. Open it with smgrid.sources.raster.open(path, name={name!r}, units='%'), or "
            "units='g kg-1' if it is so after all"
        )


def _told(soil: xr.Dataset, depths: Mapping[str, set[str]]) -> xr.Dataset:
    found = {depth for some in depths.values() for depth in some}
    if len(found) > 1:
        said = ", ".join(f"{name}: {' and '.join(sorted(some))}" for name, some in depths.items())
        raise ValueError(f"the maps are of different depths ({said}): give one depth, 0-5 cm for surface soil moisture")
    product = {"product": "SoilGrids", "version": "2.0", "depth": found.pop()}
    rule = "nodata, values below 0 and 0 (towns, water), and impossibly high ones are missing; stored / "
    divisors = dict(_PROPERTIES.values())
    out = describe(
        soil,
        {n: {"long_name": _LONG[n], **product, "rule": f"{rule}{divisors[n]:g}"} for n in map(str, soil)},
    )
    return out[[name for name, _ in _PROPERTIES.values() if name in out]]
