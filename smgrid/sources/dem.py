"""Opens any elevation model: elevation, slope and aspect at its native resolution, to be averaged afterwards.

Slope and aspect follow from central differences over the four neighbours, in metres on the ellipsoid. Where a neighbour
is missing, at an edge or a void, the difference is one-sided. Aspect is where the water runs, clockwise from north, and
comes as a unit vector, whose components can be averaged: the mean of 359 and 1 degrees is 0, not 180.

References
----------
Farr et al. (2007), Rev. Geophys. 45, RG2004, doi:10.1029/2005RG000183 (SRTM); Zevenbergen & Thorne (1987), Earth Surf.
Process. Landf. 12, 47-56, doi:10.1002/esp.3290120107 (four neighbours).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dask.array
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from smgrid.files import open_raster
from smgrid.grid import find_crs
from smgrid.sources._scenes import Paths, describe, listed, mosaic, step
from smgrid.units import canonical, conversion

if TYPE_CHECKING:
    from pyproj import CRS

da: Any = dask.array  # which has no types
LOWEST, HIGHEST = -500.0, 9000.0  # m; what lies outside is no land surface
FLAT = 0.01  # degree; below it no direction is downhill
TRUE, TURN = 5e-3, 3.0  # share of a metre, degrees: up to here a projected metre is a metre, grid north is north
NODES = 64  # pixels between the points where other projections are measured
_HGT = {1201 * 1201 * 2: "3 arc seconds", 3601 * 3601 * 2: "1 arc second"}


def open(paths: Paths, *, crs: Any = None) -> xr.Dataset:
    """Open an elevation model lazily, on its own grid.

    Parameters
    ----------
    paths : path or sequence of paths
        SRTM tiles (`S35E146.hgt`, also zipped), or any raster that GDAL reads, in degrees or in metres. Tiles are laid
        beside each other before slopes are taken, so that no seam shows.
    crs : anything pyproj knows, optional
        For files that carry none.

    Returns
    -------
    Dataset, dims (y, x)
        `elevation` (m), `slope` (degree), `aspect_sin` and `aspect_cos`: the unit vector of the downslope direction,
        its eastern and northern part. Voids and elevations outside -500..9000 m are NaN; so is the aspect of flat
        pixels (slope below 0.01 degree), which have none: means over a cell are those of its sloping pixels, and
        `build_cube` gives 0 to cells without any.

    Raises
    ------
    ValueError
        A damaged or truncated file, several bands, no CRS, an unknown unit of elevation; the message names the file.

    Notes
    -----
    On latitudes and longitudes a pixel is M(lat) by N(lat) cos(lat) metres, with the ellipsoid's radii of curvature.
    Projected metres are taken as they are, from grid north, where the projection is true to 0.5 % and 3 degrees
    (UTM); elsewhere (Web Mercator, EASE-Grid, sinusoidal, Albers) gradients are turned and stretched to true metres
    and north.

    Examples
    --------
    >>> terrain = open(["S35E145.hgt", "S35E146.hgt"])  # doctest: +SKIP
    """
    files = listed(paths, "elevation model")
    elevation = mosaic([_elevation(path, crs) for path in files])["elevation"]  # as precise as the file has it
    down, along = (_difference(elevation.data, axis) for axis in (0, 1))
    chunks = ((3,), *down.chunks)
    surface = da.map_blocks(_surface, down, along, *_ground(elevation), dtype="f4", new_axis=0, chunks=chunks)
    out = elevation.astype("f4").to_dataset()
    for k, name in enumerate(("slope", "aspect_sin", "aspect_cos")):
        out[name] = (("y", "x"), surface[k], elevation.attrs)
    return _told(out)


def _told(terrain: xr.Dataset) -> xr.Dataset:
    from_four = "central differences over four neighbours at native resolution, one-sided at edges and voids"
    undefined = f"downslope direction; missing on pixels with a slope below {FLAT} degree; {from_four}"
    files = str(terrain["elevation"].attrs["source_files"])
    said = {"product": "SRTM" if re.search(r"\.hgt|srtm", files, re.IGNORECASE) else "DEM", "version": "unknown"}
    rules = {
        "elevation": ("elevation", f"voids and values outside {LOWEST:g}..{HIGHEST:g} m are missing"),
        "slope": ("slope", from_four),
        "aspect_sin": ("eastern part of the aspect's unit vector", undefined),
        "aspect_cos": ("northern part of the aspect's unit vector", undefined),
    }
    return describe(terrain, {name: {"long_name": long, **said, "rule": rule} for name, (long, rule) in rules.items()})


def _elevation(path: str, crs: Any) -> xr.Dataset:
    _check_hgt(path)
    array = open_raster(path, crs=crs)
    names = [str(name) for name in array["band"].values]
    at = [k for k, name in enumerate(names) if re.fullmatch(r"dem|elevation|height|altitude|srtm", name, re.IGNORECASE)]
    if len(names) > 1 and len(at) != 1:
        raise ValueError(f"{path} has {len(names)} bands {names}, and not one of them is called elevation or DEM")
    one = array.isel(band=at[0] if at else 0)
    said = str(one["units"].item()) if "units" in one.coords else ""
    to_metres = conversion(said or "m", "m")
    if to_metres is None or canonical(said or "m") is None:
        raise ValueError(f"{path}: elevation is in {said!r}, which is not known here; expected are metres")
    scale, offset = float(one["scale"]), float(one["offset"])
    metres = one.drop_vars(["band", "scale", "offset", "units"], errors="ignore")
    if (scale, offset, to_metres.scale) != (1.0, 0.0, 1.0):
        metres = (metres * scale + offset) * to_metres.scale
    metres = metres.where((metres >= LOWEST) & (metres <= HIGHEST))
    metres.attrs = {"source_files": Path(path).name}
    return metres.to_dataset(name="elevation")


def _check_hgt(path: str) -> None:
    """An SRTM tile tells its size by nothing but its length, and its place by nothing but its name."""
    if not path.lower().endswith(".hgt") or "://" in path or path.startswith("/vsi"):
        return
    name, size = Path(path).name, Path(path).stat().st_size
    if size not in _HGT:
        sizes = " or ".join(f"{n} ({t})" for n, t in _HGT.items())
        raise ValueError(f"{path} is damaged: it has {size} bytes, an SRTM tile has {sizes}")
    if not re.match(r"[NS]\d\d[EW]\d\d\d", name, re.IGNORECASE):
        raise ValueError(f"{path}: the name of an SRTM tile says where it lies (S35E146.hgt), {name!r} does not")


# ---- gradients


def _difference(elevation: Any, axis: int) -> Any:
    """Rise over one pixel along an axis: the mean of the known one of forward and backward difference, float64."""
    depth = {axis: 1, 1 - axis: 0}
    return da.map_overlap(
        _rise, elevation, axis=axis, depth=depth, boundary={axis: np.nan, 1 - axis: "none"}, trim=False, dtype="f8",
        chunks=elevation.chunks, meta=np.empty((0, 0)), allow_rechunk=True,
    )  # fmt: skip


def _rise(padded: NDArray[Any], *, axis: int) -> NDArray[np.float64]:
    rises = np.diff(padded.astype("f8"), axis=axis)
    before, after = (rises[:-1], rises[1:]) if axis == 0 else (rises[:, :-1], rises[:, 1:])
    both = (before + after) / 2
    return np.where(np.isnan(before), after, np.where(np.isnan(after), before, both))


def _surface(down: NDArray[Any], along: NDArray[Any], *ground: NDArray[Any]) -> NDArray[np.float32]:
    """Slope and aspect (3, y, x) from the rise a row and a column, and metres (east, north) of a row and a column."""
    row_east, row_north, col_east, col_north = ground
    area = col_east * row_north - col_north * row_east
    east = (along * row_north - down * col_north) / area
    north = (down * col_east - along * row_east) / area
    steep = np.hypot(east, north)
    slope = np.degrees(np.arctan(steep))
    with np.errstate(invalid="ignore", divide="ignore"):
        aspect = [np.where(slope >= FLAT, -part / steep, np.nan) for part in (east, north)]
    return np.stack([slope, *aspect]).astype("f4")


# ---- metres


def _ground(raster: xr.DataArray) -> tuple[Any, Any, Any, Any]:
    """Metres to the east and north of one row down and one column along: four arrays that broadcast to (y, x)."""
    crs = find_crs(raster)
    if crs is None:
        raise ValueError(f"{raster.attrs['source_files']} has no CRS")
    y, x = (np.asarray(raster[axis].values, "f8") for axis in ("y", "x"))
    dy, dx = step(raster, "y"), step(raster, "x")
    chunks = raster.chunks or (len(y), len(x))
    if crs.is_geographic:
        north, east = _per_degree(crs, y[:, None])
        rows = {"chunks": (chunks[0], 1)}
        none = da.zeros((len(y), 1), **rows)
        return none, da.from_array(north * dy, **rows), da.from_array(east * dx, **rows), none
    nodes = [_nodes(len(axis)) for axis in (y, x)]
    at_y, at_x = (np.interp(n, np.arange(len(axis)), axis) for n, axis in zip(nodes, (y, x)))
    measured = _measure(crs, at_y, at_x, dy, dx)
    metre = crs.axis_info[0].unit_conversion_factor
    row, col = (measured[0] + 1j * measured[1]) / (1j * dy * metre), (measured[2] + 1j * measured[3]) / (dx * metre)
    if all(np.nanmax(abs(abs(m) - 1)) <= TRUE and np.nanmax(abs(np.angle(m, deg=True))) <= TURN for m in (row, col)):
        none, down, along = (da.full((1, 1), value) for value in (0.0, dy * metre, dx * metre))
        return none, down, along, none
    rows = da.from_array(np.arange(len(y), dtype="f8")[:, None], chunks=(chunks[0], 1))
    cols = da.from_array(np.arange(len(x), dtype="f8")[None, :], chunks=(1, chunks[1]))
    parts = [da.map_blocks(_between, rows, cols, values=m, nodes=nodes, dtype="f8") for m in measured]
    return parts[0], parts[1], parts[2], parts[3]


def _per_degree(crs: CRS, lat: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Metres of a degree of latitude and of longitude (Snyder 1987, eq. 4-18, 4-20)."""
    ellipsoid = crs.ellipsoid
    a = ellipsoid.semi_major_metre if ellipsoid else 6378137.0
    e2 = 1 - (ellipsoid.semi_minor_metre / a) ** 2 if ellipsoid else 0.0066943799901413165
    phi = np.radians(lat)
    w = 1 - e2 * np.sin(phi) ** 2
    return np.radians(a * (1 - e2) / w**1.5), np.radians(a / w**0.5 * np.cos(phi))


def _nodes(size: int) -> NDArray[np.float64]:
    return np.linspace(0, size - 1, max(2, -(-size // NODES) + 1))


def _measure(crs: CRS, y: NDArray[np.float64], x: NDArray[np.float64], dy: float, dx: float) -> NDArray[np.float64]:
    """Metres east and north of one row down, then of one column along: (4, nodes, nodes)."""
    from pyproj import CRS, Transformer

    base = crs.geodetic_crs or CRS.from_epsg(4326)
    to_degrees = Transformer.from_crs(crs, base, always_xy=True)
    xx, yy = np.meshgrid(x, y)
    _, lat = to_degrees.transform(xx, yy)
    north, east = _per_degree(base, np.asarray(lat))
    out = []
    for gx, gy in ((0.0, dy), (dx, 0.0)):
        (lon1, lat1), (lon0, lat0) = (to_degrees.transform(xx + s * gx, yy + s * gy) for s in (0.5, -0.5))
        out += [((lon1 - lon0 + 180) % 360 - 180) * east, (lat1 - lat0) * north]
    return np.stack(out)


def _between(
    rows: NDArray[Any], cols: NDArray[Any], *, values: NDArray[Any], nodes: list[NDArray[Any]]
) -> NDArray[np.float64]:
    """Bilinear interpolation of values at nodes."""
    places = []
    for at, knots in zip((rows, cols), nodes):
        place = at / max(knots[-1], 1) * (len(knots) - 1)
        first = np.minimum(place.astype(int), len(knots) - 2)
        places.append((first, place - first))
    (i, u), (j, v) = places
    upper = values[i, j] * (1 - v) + values[i, j + 1] * v
    lower = values[i + 1, j] * (1 - v) + values[i + 1, j + 1] * v
    return upper * (1 - u) + lower * u
