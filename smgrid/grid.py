"""Says where every cell of the EASE-Grid 2.0 family is.

The global cylindrical EASE-Grid 2.0 (EPSG:6933) comes in cells of 36 km and whole fractions of it: 9, 3, 1 km, 50 m.
Every window is counted in whole cells from the north-west corner of the globe, so windows of all sizes nest without
remainder, and coordinates are computed from those counts, never accumulated.

References
----------
Brodzik et al. (2012), ISPRS Int. J. Geo-Inf. 1, 32-45, doi:10.3390/ijgi1010032; correction doi:10.3390/ijgi3031154.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    import xarray as xr
    from affine import Affine
    from pyproj import CRS

CELL_36 = 36032.220840584  # m, side of a 36-km cell (NSIDC EASE2_M36km.gpd)
ROWS_36, COLS_36 = 406, 964
TOLERANCE = 1e-2  # cells an axis may stray from the grid and still be taken as the grid

# EPSG:6933: Lambert cylindrical equal-area on WGS 84, true at 30 degrees (EPSG method 9835)
_A = 6378137.0
_E2 = 0.0066943799901413165
_E = _E2**0.5
_K0 = np.cos(np.pi / 6) / np.sqrt(1 - _E2 * np.sin(np.pi / 6) ** 2)


def x_of_longitude(lon: ArrayLike) -> NDArray[np.float64]:
    """Easting (m) of longitudes (degrees east) in EPSG:6933."""
    return _A * _K0 * np.radians(np.asarray(lon, "f8"))


def y_of_latitude(lat: ArrayLike) -> NDArray[np.float64]:
    """Northing (m) of latitudes (degrees north) in EPSG:6933."""
    s = np.sin(np.radians(np.asarray(lat, "f8")))
    return _A / (2 * _K0) * _authalic(s)


def _authalic(s: NDArray[np.float64]) -> NDArray[np.float64]:
    """Authalic q of a sine of latitude (Snyder 1987, eq. 3-12)."""
    return (1 - _E2) * (s / (1 - _E2 * s * s) + np.arctanh(_E * s) / _E)


def longitude_of_x(x: ArrayLike) -> NDArray[np.float64]:
    """Longitude (degrees east) of eastings (m) in EPSG:6933."""
    return np.degrees(np.asarray(x, "f8") / (_A * _K0))


def latitude_of_y(y: ArrayLike) -> NDArray[np.float64]:
    """Latitude (degrees north) of northings (m) in EPSG:6933.

    By the authalic series of Snyder (1987, eq. 3-18), as NSIDC's own tables and PROJ have it; the exact inverse differs
    by at most 1.4e-8 degrees (1.7 mm).
    """
    beta = np.arcsin(2 * _K0 * np.asarray(y, "f8") / _A / _authalic(np.ones(1)))
    e2, e4, e6 = _E2, _E2**2, _E2**3
    return np.degrees(
        beta
        + (e2 / 3 + 31 * e4 / 180 + 517 * e6 / 5040) * np.sin(2 * beta)
        + (23 * e4 / 360 + 251 * e6 / 3780) * np.sin(4 * beta)
        + (761 * e6 / 45360) * np.sin(6 * beta)
    )


@lru_cache(maxsize=1)
def _crs() -> CRS:
    from pyproj import CRS

    return CRS.from_epsg(6933)


def _per_36(km: float) -> int:
    """How many cells of the nominal side `km` make the side of a 36-km cell."""
    n = round(36 / km) if 0 < km <= 36 else 0
    if n < 1 or abs(36 / n - km) > 1e-9 * km:
        raise ValueError(f"km is 36 over a whole number (36, 9, 3, 1, 0.05, ...), not {km!r}")
    return n


def ground_size(km: float, rows: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """East-west and north-south size (m) of cells on the ground, by their rows in the global grid.

    Cells are of one area everywhere, but square on the ground at 30 degrees only: 947 m x 1058 m at 35 degrees.

    Parameters
    ----------
    km : float
        Nominal side of the cells.
    rows : array-like of int

    Examples
    --------
    >>> [size.round(1).tolist() for size in ground_size(1, [11507])]  # Yanco
    [[946.5], [1058.5]]
    """
    n = _per_36(km)
    cell = CELL_36 / n
    lat = np.radians(latitude_of_y(((ROWS_36 * n / 2 - 0.5) - np.asarray(rows)) * cell))
    across = np.cos(lat) / np.sqrt(1 - _E2 * np.sin(lat) ** 2) / _K0 * cell
    return across, cell**2 / across


@dataclass(frozen=True)
class Grid:
    """A window of the global EASE-Grid 2.0, counted in whole cells.

    Parameters
    ----------
    km : float
        Nominal cell side: 36 over a whole number (36, 9, 3, 1, 0.05). A "1-km" cell is 1000.895 m in the projection.
    row, col : int
        The window's first row and column in the global grid of that `km`; row 0 is the northernmost.
    ny, nx : int
        Rows and columns of the window.

    Examples
    --------
    >>> Grid.whole(km=9).shape
    (1624, 3856)
    >>> yanco = Grid(1, 11466, 31401, 84, 75)
    >>> yanco.phase(9), yanco.coarsen(9)
    ((0, 0), Grid(km=9, row=1274, col=3489, ny=10, nx=9))
    """

    km: float
    row: int
    col: int
    ny: int
    nx: int

    def __post_init__(self) -> None:
        n = _per_36(self.km)
        object.__setattr__(self, "km", 36 // n if 36 % n == 0 else 36 / n)
        for name in ("row", "col", "ny", "nx"):
            value = getattr(self, name)
            if int(value) != value:
                raise ValueError(f"{name} counts whole cells, not {value!r}")
            object.__setattr__(self, name, int(value))
        rows, cols = ROWS_36 * n, COLS_36 * n
        if self.ny < 1 or self.nx < 1:
            raise ValueError(f"a window has at least one cell, not {self.ny} x {self.nx}")
        if self.row < 0 or self.col < 0 or self.row + self.ny > rows or self.col + self.nx > cols:
            raise ValueError(
                f"rows {self.row}..{self.row + self.ny - 1}, columns {self.col}..{self.col + self.nx - 1} leave the "
                f"{self.km}-km grid, which has {rows} rows and {cols} columns"
            )

    # ---- makers

    @classmethod
    def whole(cls, km: float = 1) -> Grid:
        """The whole globe, -180..180 and +-85.04 degrees."""
        n = _per_36(km)
        return cls(km, 0, 0, ROWS_36 * n, COLS_36 * n)

    @classmethod
    def around(cls, bounds: Sequence[float], km: float = 1) -> Grid:
        """The smallest window that covers a box.

        Parameters
        ----------
        bounds : (west, south, east, north), degrees
        km : float
            Nominal cell side.
        """
        west, south, east, north = (float(b) for b in bounds)
        if not (west < east and south < north):
            raise ValueError(
                "bounds are (west, south, east, north) in degrees with west < east and south < north, "
                f"not {tuple(bounds)}; a box across 180 degrees is two windows"
            )
        if west < -180 or east > 180 or south < -90 or north > 90:
            raise ValueError(f"bounds are in degrees, -180..180 and -90..90, not {tuple(bounds)}")
        whole = cls.whole(km)
        edge = whole.bounds[3]
        x0, x1 = x_of_longitude([west, east])
        y0, y1 = np.clip(y_of_latitude([south, north]), -edge, edge)
        return whole._cover(x0, y0, x1, y1)

    @classmethod
    def of(cls, obj: Any) -> Grid:
        """The window that an xarray object lies on, snapped to whole cells.

        Axes may stray from the grid by up to 1e-2 cell over their whole extent (float32 axes, GeoTIFF jitter, rounded
        cell sizes); anything else raises and says by how much and which line mends it.

        Parameters
        ----------
        obj : DataArray, Dataset or Grid
            With 1-D coordinates `y` (descending) and `x` in metres, and its CRS in a `spatial_ref` variable.

        Raises
        ------
        ValueError
            Axes, cell size, offset, order or CRS are not the grid's.
        TypeError
            Not an xarray object, nor a Grid.
        """
        if isinstance(obj, Grid):
            return obj
        if not hasattr(obj, "coords"):
            raise TypeError(
                "a grid is a Grid, such as Grid.around((west, south, east, north)) in degrees, or a DataArray or Dataset "
                f"that lies on one, not {type(obj).__name__}"
            )
        _check_crs(obj)
        y, x = _axis(obj, "y"), _axis(obj, "x")
        return cls.of_axes(y, x, _cell_said(obj) if x.size == y.size == 1 else None)

    @classmethod
    def of_axes(cls, y: NDArray[np.float64], x: NDArray[np.float64], cell: float | None = None) -> Grid:
        """The window whose cell centres are these northings and eastings, m; see `Grid.of`.

        A single cell does not tell its size: `cell`, its side in m, does.
        """
        step = _spacing(x) or _spacing(y) or cell
        if step is None:
            raise ValueError("a single cell does not tell its size: give the Grid itself")
        n = max(1, round(CELL_36 / abs(step)))
        km, cell = 36 / n, CELL_36 / n
        if y.size > 1 and y[1] > y[0]:
            raise ValueError("y ascends, but row 0 is the northernmost: obj = obj.sortby('y', ascending=False)")
        if x.size > 1 and x[1] < x[0]:
            raise ValueError("x descends: obj = obj.sortby('x')")
        col, nx = _snap(x / cell + COLS_36 * n / 2 - 0.5, "x", "column", x, cell)
        row, ny = _snap(ROWS_36 * n / 2 - 0.5 - y / cell, "y", "row", y, cell)
        return cls(km, row, col, ny, nx)

    # ---- geometry

    @property
    def cell(self) -> float:
        """Cell side in metres of the projection."""
        return CELL_36 / _per_36(self.km)

    @property
    def shape(self) -> tuple[int, int]:
        """(ny, nx)."""
        return self.ny, self.nx

    @property
    def x(self) -> NDArray[np.float64]:
        """Eastings of the cell centres, m, ascending."""
        half = COLS_36 * _per_36(self.km) / 2
        return (np.arange(self.col, self.col + self.nx, dtype="f8") + (0.5 - half)) * self.cell

    @property
    def y(self) -> NDArray[np.float64]:
        """Northings of the cell centres, m, descending."""
        half = ROWS_36 * _per_36(self.km) / 2
        return ((half - 0.5) - np.arange(self.row, self.row + self.ny, dtype="f8")) * self.cell

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """(west, south, east, north) of the outer edges, m."""
        n, cell = _per_36(self.km), self.cell
        west, north = (self.col - COLS_36 * n / 2) * cell, (ROWS_36 * n / 2 - self.row) * cell
        return (
            west,
            (ROWS_36 * n / 2 - self.row - self.ny) * cell,
            (self.col + self.nx - COLS_36 * n / 2) * cell,
            north,
        )

    @property
    def transform(self) -> Affine:
        """Affine transform from (column, row) of the window to metres."""
        from affine import Affine

        west, _, _, north = self.bounds
        return Affine(self.cell, 0.0, west, 0.0, -self.cell, north)

    @property
    def crs(self) -> CRS:
        """EPSG:6933."""
        return _crs()

    def lonlat(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Longitudes of the columns and latitudes of the rows, degrees, at cell centres.

        Two 1-D axes suffice: in this projection longitude depends on x alone and latitude on y alone.
        """
        return longitude_of_x(self.x), latitude_of_y(self.y)

    def index(self, lon: ArrayLike, lat: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Global rows and columns of the cells that hold the points; -1 outside the window.

        Parameters
        ----------
        lon, lat : array-like, degrees
            Broadcast against each other.
        """
        lon, lat = np.broadcast_arrays(np.asarray(lon, "f8"), np.asarray(lat, "f8"))
        n, cell = _per_36(self.km), self.cell
        with np.errstate(invalid="ignore", divide="ignore"):
            c = np.floor(x_of_longitude(lon) / cell + COLS_36 * n / 2)
            r = np.floor(ROWS_36 * n / 2 - y_of_latitude(lat) / cell)
            c = np.where(lon == 180, COLS_36 * n - 1, c)  # the eastern edge belongs to the last column
            inside = (c >= self.col) & (c < self.col + self.nx) & (r >= self.row) & (r < self.row + self.ny)
        return np.where(inside, r, -1).astype("i8"), np.where(inside, c, -1).astype("i8")

    def phase(self, coarse_km: float = 9) -> tuple[int, int]:
        """Rows and columns from the coarse grid's cell edge to the window's first row and column."""
        if not isinstance(coarse_km, int | float | np.integer | np.floating) or not np.isfinite(coarse_km):
            raise ValueError(f"the side of a coarse cell is a number of km such as 9 or 36, not {coarse_km!r}")
        f = round(coarse_km / self.km)
        if f < 1 or abs(f * self.km - coarse_km) > 1e-9 * coarse_km:
            raise ValueError(f"{coarse_km} km is not a whole number of {self.km:g}-km cells")
        return self.row % f, self.col % f

    def coords(self) -> xr.Coordinates:
        """`y`, `x` and `spatial_ref`, ready for `xr.Dataset(coords=grid.coords())`."""
        import xarray as xr

        axes = {}
        for name, values, axis in (("y", self.y, "Y"), ("x", self.x, "X")):
            attrs = {
                "standard_name": f"projection_{name}_coordinate",
                "long_name": f"{name} coordinate of projection (EASE-Grid 2.0, cell centre)",
                "units": "m",
                "axis": axis,
            }
            axes[name] = xr.Variable(name, values, attrs, encoding={"_FillValue": None})
        west, _, _, north = self.bounds
        reference = {**_crs_attributes(), "GeoTransform": f"{west!r} {self.cell!r} 0.0 {north!r} 0.0 {-self.cell!r}"}
        return xr.Dataset(coords={**axes, "spatial_ref": ((), np.int64(0), reference)}).coords

    # ---- other windows

    def coarsen(self, f: int) -> Grid:
        """The window of cells `f` times as wide that covers this one, outward."""
        if 36 / (self.km * f) < 1 - 1e-9:
            raise ValueError(f"{self.km * f:g} km is coarser than 36 km")
        row, col = self.row // f, self.col // f
        return Grid(self.km * f, row, col, -(-(self.row + self.ny) // f) - row, -(-(self.col + self.nx) // f) - col)

    def refine(self, f: int) -> Grid:
        """The same window in cells `f` times as narrow."""
        return Grid(self.km / f, self.row * f, self.col * f, self.ny * f, self.nx * f)

    def snap(self, f: int) -> Grid:
        """The window grown outward to whole blocks of `f` x `f` cells."""
        return self.coarsen(f).refine(f)

    def crop(self, bounds: Sequence[float]) -> Grid:
        """The part of this window that a box touches.

        Parameters
        ----------
        bounds : (west, south, east, north)
            In metres like `.bounds`; four numbers within +-180 and +-90 are taken as degrees.
        """
        west, south, east, north = (float(b) for b in bounds)
        if max(abs(west), abs(east)) <= 180 and max(abs(south), abs(north)) <= 90:
            return self & Grid.around((west, south, east, north), self.km)
        return self & Grid.whole(self.km)._cover(west, south, east, north)

    def __and__(self, other: Grid) -> Grid:
        """The cells that two windows of one cell size share."""
        if other.km != self.km:
            raise ValueError(f"windows of {self.km} and {other.km} km have no cells in common")
        row, col = max(self.row, other.row), max(self.col, other.col)
        ny = min(self.row + self.ny, other.row + other.ny) - row
        nx = min(self.col + self.nx, other.col + other.nx) - col
        if ny < 1 or nx < 1:
            raise ValueError(f"the windows do not touch: {self} and {other}")
        return Grid(self.km, row, col, ny, nx)

    def _cover(self, x0: float, y0: float, x1: float, y1: float) -> Grid:
        """The cells of this window that a box in metres touches; an edge on a cell border adds no cell."""
        n, cell, tiny = _per_36(self.km), self.cell, 1e-9
        c0 = int(np.floor(x0 / cell + COLS_36 * n / 2 + tiny))
        c1 = int(np.ceil(x1 / cell + COLS_36 * n / 2 - tiny))
        r0 = int(np.floor(ROWS_36 * n / 2 - y1 / cell + tiny))
        r1 = int(np.ceil(ROWS_36 * n / 2 - y0 / cell - tiny))
        c0, r0 = max(c0, 0), max(r0, 0)
        c1, r1 = min(max(c1, c0 + 1), COLS_36 * n), min(max(r1, r0 + 1), ROWS_36 * n)
        return Grid(self.km, r0, c0, r1 - r0, c1 - c0)


YANCO = Grid(1, 11466, 31401, 84, 75)


@lru_cache(maxsize=1)
def _crs_attributes() -> dict[str, Any]:
    """CF attributes of EPSG:6933, with the WKT under both names that readers look for."""
    attrs = _crs().to_cf()
    return {**attrs, "spatial_ref": attrs["crs_wkt"]}


def find_crs(obj: Any) -> CRS | None:
    """The CRS that an xarray object carries in its grid-mapping variable, or None."""
    from pyproj import CRS

    variables = getattr(obj, "variables", None) or {**obj.coords}
    members = list(obj.data_vars.values()) if hasattr(obj, "data_vars") else [obj]
    named = [m.encoding.get("grid_mapping", m.attrs.get("grid_mapping")) for m in members]
    for name in dict.fromkeys([*filter(None, named), "spatial_ref", "crs"]):
        attrs = variables[name].attrs if name in variables else {}
        for key in ("crs_wkt", "spatial_ref"):
            if attrs.get(key):
                return CRS.from_user_input(attrs[key])
        if "grid_mapping_name" in attrs:
            return CRS.from_cf(attrs)
    return None


def _check_crs(obj: Any) -> None:
    crs = find_crs(obj)
    if crs is None:
        raise ValueError(
            "no CRS: the object has no `spatial_ref`. If it lies on the EASE-Grid 2.0, say so with "
            "obj = obj.rio.write_crs('EPSG:6933') (import rioxarray), and open files with decode_coords='all'"
        )
    if not is_ease2(crs):
        raise ValueError(f"the CRS is {crs.name!r}, not EPSG:6933: carry the data over with smgrid.to_grid(obj, grid)")


def is_ease2(crs: CRS) -> bool:
    """Whether a CRS is EPSG:6933, with or without the code (GDAL and NSIDC print it in several ways)."""
    if crs.to_epsg() == 6933:
        return True
    if crs.ellipsoid is None or not crs.is_projected:
        return False
    cf = crs.to_cf()
    return (
        cf.get("grid_mapping_name") == "lambert_cylindrical_equal_area"
        and abs(crs.ellipsoid.semi_major_metre - _A) < 1e-3
        and abs(crs.ellipsoid.inverse_flattening - 298.257223563) < 1e-6
        and abs(cf.get("standard_parallel", 0.0) - 30) < 1e-9
        and abs(cf.get("longitude_of_central_meridian", 0.0)) < 1e-9
        and cf.get("false_easting", 0.0) == cf.get("false_northing", 0.0) == 0.0
    )


def _axis(obj: Any, name: str) -> NDArray[np.float64]:
    if name not in obj.dims or name not in obj.coords:
        raise ValueError(
            f"no {name!r} axis with coordinates: the dims are {tuple(obj.dims)}. "
            "Rename them: obj = obj.rename(latitude='y', longitude='x') or the like"
        )
    values = np.asarray(obj[name].values, "f8")
    if not values.size:
        raise ValueError(f"the {name!r} axis is empty: nothing is left of the object, look at how it was cut")
    if not np.isfinite(values).all():
        raise ValueError(f"the {name!r} axis has missing coordinates")
    return values


def _cell_said(obj: Any) -> float | None:
    """Side of a cell in the transform beside the CRS, which alone knows it where there is one cell."""
    variables = getattr(obj, "variables", None) or {**obj.coords}
    said = str(variables["spatial_ref"].attrs.get("GeoTransform", "")).split() if "spatial_ref" in variables else []
    return abs(float(said[1])) if len(said) == 6 else None


def _spacing(values: NDArray[np.float64]) -> float | None:
    return None if values.size < 2 else float((values[-1] - values[0]) / (values.size - 1))


def _snap(
    place: NDArray[np.float64], name: str, unit: str, metres: NDArray[np.float64], cell: float
) -> tuple[int, int]:
    """First whole cell and count of an axis given in fractional cells; raise where it strays."""
    first = round(float(place[0]))
    stray = place - (first + np.arange(place.size))
    worst = float(stray[np.abs(stray).argmax()])
    if abs(worst) <= TOLERANCE:
        return first, place.size
    step = _spacing(metres)
    if step is not None and np.ptp(np.diff(metres)) > TOLERANCE * cell:
        steps = np.abs(np.diff(metres))
        raise ValueError(f"the {name!r} axis is not regular: its steps are {steps.min():g} to {steps.max():g} m")
    drift = float(stray[-1] - stray[0])
    if step is not None and abs(drift) > TOLERANCE:
        raise ValueError(
            f"the {name!r} axis has cells of {abs(step):.6g} m where the grid has {cell:.10g} m, so it drifts by "
            f"{drift:+.3g} cells: carry the data over with smgrid.to_grid(obj, grid)"
        )
    half = " (half a cell: corners were taken for centres)" if abs(abs(worst) - 0.5) < TOLERANCE else ""
    back = (-worst if name == "x" else worst) * cell
    raise ValueError(
        f"the {name!r} axis lies {worst:+.4g} {unit}s off the grid{half}. If the coordinates are wrong, mend them: "
        f"obj = obj.assign_coords({name}=obj.{name} {'+' if back > 0 else '-'} {abs(back):.6g}); "
        "if the data are there, use smgrid.to_grid(obj, grid)"
    )
