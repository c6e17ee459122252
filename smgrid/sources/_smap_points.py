"""Opens lists of SMAP retrievals, one row a point, as clients cut them out, and lays them on the EASE-Grid 2.0."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from statistics import mode
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from smgrid.files import fingerprint, kind, pending
from smgrid.grid import TOLERANCE, Grid, x_of_longitude, y_of_latitude
from smgrid.sources._smap import FILL, PRODUCTS, dataset, dates_of, volume_fraction

if TYPE_CHECKING:
    import netCDF4

log = logging.getLogger("smgrid")

DAY = np.timedelta64(1, "D")


@dataclass(frozen=True)
class Points:
    """One list of points, read."""

    path: Path
    latitude: NDArray[np.float64]
    longitude: NDArray[np.float64]
    soil: NDArray[np.float64]

    @classmethod
    def of(cls, path: Path, data: netCDF4.Dataset) -> Points:
        if not set(data.variables) - {"index"}:  # days without an overpass are written so
            return cls(path, *np.empty((3, 0)))
        if "soil_moisture" not in data.variables:
            raise ValueError(f"{path} holds no 'soil_moisture'; it has {list(data.variables)}")
        names = ("latitude", "longitude", "soil_moisture")
        shapes = {name: data.variables[name].shape for name in names}
        if len(set(shapes.values())) > 1 or len(shapes["soil_moisture"]) != 1:
            raise ValueError(
                f"{path}: 'soil_moisture', 'latitude' and 'longitude' are no list of points, but of {shapes}; "
                "a grid is opened with smgrid.sources.raster"
            )
        try:
            columns = [np.asarray(data.variables[name][:], "f8") for name in names]
        except (RuntimeError, OSError) as error:
            raise ValueError(f"{path} ({kind(path)}) cannot be read, the file is damaged: {error}") from error
        soil = data.variables["soil_moisture"]
        good = np.isfinite(columns[2]) & (columns[2] != FILL) & (columns[2] != getattr(soil, "_FillValue", FILL))
        columns[2] = volume_fraction(path, "soil_moisture", columns[2], getattr(soil, "units", None), good)
        lat, lon, _ = columns = [column[good] for column in columns]
        if not (np.all(np.abs(lat) <= 90) and np.all(np.abs(lon) <= 180)):
            raise ValueError(f"{path}: 'latitude' or 'longitude' leave +-90, +-180: a fill was kept as a coordinate")
        return cls(path, *columns)

    def stray(self, km: int) -> tuple[NDArray[np.int64], NDArray[np.int64], float]:
        """Global rows and columns of the points, and how far the worst lies off a cell's centre, in cells."""
        whole = Grid.whole(km)
        rows = (whole.bounds[3] - y_of_latitude(self.latitude)) / whole.cell - 0.5
        cols = (x_of_longitude(self.longitude) - whole.bounds[0]) / whole.cell - 0.5
        r, c = np.round(rows).astype("i8"), np.round(cols).astype("i8")
        return r, c, float(max(np.abs(rows - r).max(initial=0), np.abs(cols - c).max(initial=0)))


@dataclass(frozen=True)
class _Paint:
    """Averages the points of one day into the cells of a window; or counts them."""

    grid: Grid
    rows: NDArray[np.int64]
    cols: NDArray[np.int64]
    soil: NDArray[np.float64]
    count: bool = False

    def __call__(self, key: tuple[slice, ...]) -> NDArray[Any]:
        cell = self.rows * self.grid.nx + self.cols
        size = self.grid.ny * self.grid.nx
        counts = np.bincount(cell, minlength=size)
        total = np.bincount(cell, self.soil, minlength=size)
        layer = counts if self.count else np.where(counts > 0, total / np.maximum(counts, 1), np.nan)
        return layer.reshape(1, *self.grid.shape)[key]


def lay_points(lists: list[Points]) -> xr.Dataset:
    km = _snap(lists)
    windows = _windows([item.path for item in lists])
    lists, windows = zip(*sorted(zip(lists, windows), key=lambda pair: pair[1]))  # type: ignore[assignment]
    placed = [item.stray(km)[:2] for item in lists]
    rows, cols = (np.concatenate([place[k] for place in placed]) for k in (0, 1))
    grid = Grid(km, rows.min(), cols.min(), np.ptp(rows) + 1, np.ptp(cols) + 1)
    days = sorted(set(windows))
    layers: dict[bool, list[da.Array]] = {False: [], True: []}
    for day in days:
        here = [k for k, window in enumerate(windows) if window == day]
        r, c = (np.concatenate([placed[k][axis] for k in here]) for axis in (0, 1))
        soil = np.concatenate([lists[k].soil for k in here])
        names = ", ".join(str(lists[k].path) for k in here)
        for count, layer in layers.items():
            paint = _Paint(grid, r - grid.row, c - grid.col, soil, count)
            token = ([fingerprint(lists[k].path) for k in here], str(grid), count)
            shape = (1, *grid.shape)
            layer.append(pending(paint, shape, "i4" if count else "f4", shape, names, token=token))
    middle = [start + (end - start) // 2 for start, end in days]
    data = dataset(grid, middle, da.concatenate(layers[False]))
    coords: dict[str, Any] = {"smap_count": (("time", "y", "x"), da.concatenate(layers[True]))}
    if any(start != end for start, end in days):
        coords["window_start"] = ("time", np.array([start for start, _ in days], "M8[ns]"))
        coords["window_end"] = ("time", np.array([end for _, end in days], "M8[ns]"))
    data = data.assign_coords(coords)
    data["smap_count"].attrs = {"long_name": "retrievals averaged in the cell", "units": "1"}
    data["smap"].attrs |= {
        "product": PRODUCTS[km],
        "version": "",
        "source_files": ", ".join(item.path.name for item in lists),
        "rule": "mean of all retrievals listed for a cell and day (or window of days); quality as their author chose",
    }
    return data


def _snap(lists: list[Points]) -> int:
    """The nominal cell side whose centres the points are."""
    full = [item for item in lists if item.soil.size]
    if not full:
        raise ValueError(
            f"none of the {len(lists)} lists holds a point ({lists[0].path}, ...): there is nothing to open"
        )
    fits = {item.path: {km for km in PRODUCTS if item.stray(km)[2] <= TOLERANCE} for item in full}
    for path, sides in fits.items():
        if not sides:
            worst = {km: next(i for i in full if i.path == path).stray(km)[2] for km in PRODUCTS}
            raise ValueError(
                f"{path}: the points are no centres of EASE-Grid 2.0 cells: they lie up to {worst[36]:.2f} cells off "
                f"the 36-km, {worst[9]:.2f} off the 9-km grid"
            )
    both = set.intersection(*fits.values())
    if not both:
        one, other = (next(path for path, sides in fits.items() if km in sides) for km in PRODUCTS)
        raise ValueError(f"{one} lies on the 36-km grid, {other} on the 9-km grid: open them in two calls")
    return max(both)


def _windows(paths: list[Path]) -> list[tuple[np.datetime64, np.datetime64]]:
    """First and last day of each list, from the file names; a last day before the first is mended and said."""
    windows = []
    for path in paths:
        dates = dates_of(path)
        if len(dates) not in (1, 2):
            raise ValueError(
                f"{path}: the file name holds {len(dates)} dates; a list of points carries its day (2020-01-31 or "
                "20200131), or first and last day (20200129_20200131), in its name"
            )
        windows.append((dates[0], dates[-1]))
    lengths = [end - start for start, end in windows if end >= start]
    usual = mode(lengths) if lengths else 0 * DAY
    for k, (start, end) in enumerate(windows):
        if end < start:
            windows[k] = start, start + usual
            log.warning("%s: the last day in the name is before the first; taken as %s to %s", paths[k], *windows[k])
    return windows
