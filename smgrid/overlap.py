"""Says where the pixels of a raster lie on a grid, and how much of each cell they cover.

In EPSG:6933 x depends on longitude alone and y on latitude alone, so a pixel of a latitude/longitude raster is a
rectangle of the grid, and its overlap with a cell is (overlap in x) times (overlap in y): two axes say all. Rasters on
other projections run askew to the grid (see `mesh`).
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.sparse import csr_array

from smgrid.grid import Grid, find_crs, is_ease2, latitude_of_y, longitude_of_x, x_of_longitude, y_of_latitude

if TYPE_CHECKING:
    from pyproj import CRS

TINY = 1e-9  # of a cell: rounding, not overlap
_AXES = (("y", "x"), ("lat", "lon"), ("latitude", "longitude"))


@dataclass(frozen=True)
class Side:
    """One axis of a source, seen from the grid.

    Parameters
    ----------
    dim : hashable
        The source's name of the axis.
    edges : array, pixels + 1
        Edges of the pixels in their own order, in cells from the window's first edge.
    cells : int
        Cells of the window along the axis.
    period : float
        Cells once round the globe; 0 for an axis that does not close.
    """

    dim: Hashable
    edges: NDArray[np.float64]
    cells: int
    period: float = 0.0

    @property
    def width(self) -> float:
        """The usual size of a pixel, in cells."""
        return float(np.median(np.abs(np.diff(self.edges))))

    def turns(self) -> list[NDArray[np.float64]]:
        """The edges, ascending, once for each whole turn that brings them onto the window."""
        edges = np.sort(self.edges)
        if not self.period:
            turns = [edges]
        else:
            first, last = np.ceil(-edges[-1] / self.period), np.floor((self.cells - edges[0]) / self.period)
            turns = [edges + k * self.period for k in np.arange(first, last + 1)]
        return [turn for turn in turns if turn[-1] > TINY and turn[0] < self.cells - TINY]

    def overlaps(self) -> csr_array:
        """Lengths that cells and pixels share, in cells: (cells, pixels)."""
        found = []
        for edges in self.turns():
            cuts = np.union1d(np.clip(edges, 0, self.cells), np.arange(self.cells + 1.0))
            middle = (cuts[1:] + cuts[:-1]) / 2
            found.append((np.diff(cuts), middle.astype(int), np.searchsorted(edges, middle) - 1))
        return self._matrix(found)

    def holders(self) -> csr_array:
        """One where a pixel holds the centre of a cell: (cells, pixels)."""
        cell = np.arange(self.cells)
        return self._matrix(
            [(np.ones(self.cells), cell, np.searchsorted(edges, cell + 0.5, "right") - 1) for edges in self.turns()]
        )

    def _matrix(self, found: list[tuple[NDArray[Any], NDArray[Any], NDArray[Any]]]) -> csr_array:
        value, cell, pixel = (np.concatenate(parts) for parts in zip(*found, strict=True))
        pixels = self.edges.size - 1
        inside = (pixel >= 0) & (pixel < pixels)
        if self.edges[-1] < self.edges[0]:
            pixel = pixels - 1 - pixel
        return csr_array((value[inside], (cell[inside], pixel[inside])), (self.cells, pixels))


def locate(field: xr.DataArray | xr.Dataset, grid: Grid) -> tuple[Side, Side]:
    """Say where the rows and the columns of a source lie on a grid.

    Raises
    ------
    ValueError
        See `to_grid`.
    """
    ydim, xdim = spatial_dims(field)
    y, x = centres(field, ydim), centres(field, xdim)
    if _is_geographic(field, ydim, xdim):
        rows, cols = _from_degrees(y, x, ydim, xdim, grid)
    else:
        rows, cols = _from_metres(field, y, x, ydim, xdim, grid)
    if not rows.turns() or not cols.turns():
        raise ValueError(
            f"the grid lies outside the field: the field spans {degrees(rows.edges, cols.edges, grid)}, the grid "
            f"{degrees(np.r_[0.0, grid.ny], np.r_[0.0, grid.nx], grid)} (west, south, east, north in degrees)"
        )
    return rows, cols


def spatial_dims(field: xr.DataArray | xr.Dataset) -> tuple[str, str]:
    """Names of the axes of rows and of columns."""
    for ydim, xdim in _AXES:
        if ydim in field.dims and xdim in field.dims:
            return ydim, xdim
    raise ValueError(
        f"no pair of axes {' or '.join(map(str, _AXES))}: the dims are {tuple(field.dims)}. Rename them, "
        "obj = obj.rename(nav_lat='lat', nav_lon='lon') or the like; a swath (2-D coordinates) is no raster"
    )


def centres(field: xr.DataArray | xr.Dataset, dim: str) -> NDArray[np.float64]:
    """Coordinates of an axis; ValueError where there are none."""
    if dim not in field.coords:
        raise ValueError(f"the {dim!r} axis has no coordinates: obj = obj.assign_coords({dim}=centres_of_the_pixels)")
    values = np.asarray(field[dim].values, "f8")
    if not np.isfinite(values).all():
        raise ValueError(f"the {dim!r} axis has missing coordinates")
    return values


def askew(field: xr.DataArray | xr.Dataset) -> CRS | None:
    """The CRS of a raster whose rows and columns are not those of the grid; None where they are, or no CRS is given.

    Latitudes and longitudes on another datum are the grid's own where PROJ says that they shift by less than 1 mm
    (GDA94, NAD83, ETRS89 and, by convention, a sphere).
    """
    crs = find_crs(field)
    if crs is None or is_ease2(crs):
        return None
    if not crs.is_geographic:
        return crs
    flattening = crs.ellipsoid.inverse_flattening if crs.ellipsoid else 0.0
    meridian = crs.prime_meridian.longitude if crs.prime_meridian else 0.0
    if abs(flattening - 298.257223563) < 1e-8 and meridian == 0:
        return None
    return crs if _shift(field, crs) > 1e-8 else None


def _shift(field: xr.DataArray | xr.Dataset, crs: CRS) -> float:
    """Degrees that WGS 84 is off, at most, on some points over a raster; infinite where PROJ does not know."""
    from pyproj import Transformer

    lat, lon = (centres(field, dim)[np.linspace(0, field.sizes[dim] - 1, 5).astype(int)] for dim in spatial_dims(field))
    lon, lat = np.meshgrid(lon, lat)
    x, y = Transformer.from_crs(crs, 4326, always_xy=True).transform(lon, lat)
    return float(np.max(np.abs([np.mod(np.subtract(x, lon) + 180, 360) - 180, np.subtract(y, lat)])))


def _is_geographic(field: xr.DataArray | xr.Dataset, ydim: str, xdim: str) -> bool:
    """Whether the axes are degrees on WGS 84 (or else metres of EPSG:6933)."""
    crs = find_crs(field)
    if crs is None:
        units = [str(field[dim].attrs.get("units", "")) for dim in (ydim, xdim)]
        if all(unit.startswith("degree") for unit in units) or (ydim != "y" and not any(units)):
            return True  # CF: coordinates in degrees_north and degrees_east are geographic
        raise ValueError(
            f"no CRS, and the axes {ydim!r}, {xdim!r} are not in degrees. Say what they are: "
            "obj = obj.rio.write_crs('EPSG:4326') (import rioxarray), or the CRS that they have"
        )
    if askew(field) is not None:
        raise ValueError(
            f"the CRS is {crs.name!r}, whose rows and columns are not the grid's: this takes latitudes and longitudes "
            "(EPSG:4326) or EPSG:6933. smgrid.to_grid carries any other to a grid: obj = smgrid.to_grid(obj, grid)"
        )
    return not is_ease2(crs)


def _from_degrees(
    lat: NDArray[np.float64], lon: NDArray[np.float64], ydim: str, xdim: str, grid: Grid
) -> tuple[Side, Side]:
    y_edges, x_edges = degree_edges(lat, lon, ydim, xdim)
    west, _, _, north = grid.bounds
    return (
        Side(ydim, (north - y_of_latitude(y_edges)) / grid.cell, grid.ny),
        Side(xdim, (x_of_longitude(x_edges) - west) / grid.cell, grid.nx, 2 * float(x_of_longitude(180)) / grid.cell),
    )


def degree_edges(
    lat: NDArray[np.float64], lon: NDArray[np.float64], ydim: str, xdim: str
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Edges of latitudes and of longitudes, these without a jump at 180; ValueError for what is no degrees."""
    if np.abs(lat).max() > 90 + 1e-6 or np.abs(lon).max() > 360 + 1e-6:
        raise ValueError(
            f"the {ydim!r} axis reaches {np.abs(lat).max():g} and {xdim!r} {np.abs(lon).max():g}, which are not "
            "degrees: the CRS is another. Write it: obj = obj.rio.write_crs('EPSG:6933'), if that is it"
        )
    x_edges = edges(np.unwrap(lon, period=360), xdim)
    y_edges = np.clip(edges(lat, ydim), -90, 90)  # a row of points at the pole reaches no further than the pole
    over = abs(x_edges[-1] - x_edges[0]) - 360
    if over > 0.5 * abs(x_edges[1] - x_edges[0]):
        raise ValueError(
            f"the {xdim!r} axis goes {over:g} degrees more than once round the globe. Leave out what comes twice: "
            f"obj = obj.isel({xdim}=slice(None, {int(np.argmax(np.abs(lon - lon[0] - 360) < 1e-6) or -1)}))"
        )
    return y_edges, x_edges


def _from_metres(
    field: xr.DataArray | xr.Dataset,
    y: NDArray[np.float64],
    x: NDArray[np.float64],
    ydim: str,
    xdim: str,
    grid: Grid,
) -> tuple[Side, Side]:
    own = xr.Dataset(coords={"y": np.sort(y)[::-1], "x": np.sort(x), "spatial_ref": grid.coords()["spatial_ref"]})
    try:
        source = Grid.of(own)
    except ValueError:  # off the family: its edges are where its own coordinates put them
        west, _, _, north = grid.bounds
        v, u = (north - edges(y, ydim)) / grid.cell, (edges(x, xdim) - west) / grid.cell
        return Side(ydim, v, grid.ny), Side(xdim, u, grid.nx)
    # Whole numbers until the one division at the end: edges that coincide do so exactly.
    n, own_n = round(36 / grid.km), round(36 / source.km)
    v = ((source.row + np.arange(source.ny + 1)) * n - grid.row * own_n) / own_n
    u = ((source.col + np.arange(source.nx + 1)) * n - grid.col * own_n) / own_n
    return (
        Side(ydim, v if y[0] > y[-1] else v[::-1], grid.ny),
        Side(xdim, u if x[0] < x[-1] else u[::-1], grid.nx),
    )


def edges(centres: NDArray[np.float64], dim: str) -> NDArray[np.float64]:
    """Edges midway between centres, the outermost half a pixel out."""
    if centres.size < 2:
        raise ValueError(f"the {dim!r} axis has a single pixel, which does not tell its size: give two at least")
    single = centres.astype("f4")
    if (single == centres).all():  # stored as float32: a straight axis within that rounding is straight
        straight = np.linspace(centres[0], centres[-1], centres.size)
        if np.abs(straight - centres).max() <= 2 * np.spacing(np.abs(single).max()):
            centres = straight
    steps = np.diff(centres)
    if not ((steps > 0).all() or (steps < 0).all()):
        raise ValueError(f"the {dim!r} axis neither ascends nor descends throughout: obj = obj.sortby({dim!r})")
    jump = np.abs(np.log(steps[1:] / steps[:-1]))
    if jump.size and jump.max() > np.log(1.5):
        at = int(jump.argmax())
        raise ValueError(
            f"the {dim!r} axis has steps of {steps[at]:g} and {steps[at + 1]:g} side by side at {centres[at + 1]:.8g}: "
            f"a row or column is missing. Put it back as NaN: obj = obj.reindex({dim}=the_whole_axis)"
        )
    middle = (centres[1:] + centres[:-1]) / 2
    return np.concatenate([[centres[0] - steps[0] / 2], middle, [centres[-1] + steps[-1] / 2]])


def degrees(v: NDArray[np.float64], u: NDArray[np.float64], grid: Grid) -> tuple[float, ...]:
    """West, south, east, north in degrees of edges given in cells of the window."""
    west, _, _, north = grid.bounds
    pole = float(y_of_latitude(90)) - 1e-3
    lon = longitude_of_x(west + grid.cell * u[[0, -1]])
    lat = latitude_of_y(np.clip(north - grid.cell * v[[0, -1]], -pole, pole))
    return tuple(round(float(edge), 4) for edge in (lon.min(), lat.min(), lon.max(), lat.max()))
