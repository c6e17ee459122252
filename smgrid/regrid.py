"""Carries a field from the grid it has to ours, weighted by overlap area.

Where rows and columns of pixels are those of the grid (see `overlap`), pixels and cells are both rectangles, and the
mean of pixels A, known where K is 1, is exact with two sparse matrices of 1-D overlaps,

    (Wy (A K) Wx') / (Wy K Wx').

Of rasters askew to the grid (see `mesh`), coarse pixels are cut at the cells' borders (`clip`) and small ones, of which
a cell holds 400 and more, are weighed by line integrals (`lines`).

The work goes tile by tile of the grid, each reading only its window of the source, and inside a tile by strips that
stay in cache. A cell's sum runs over its own pixels in their own order, so neither tiles nor chunks can change a bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.sparse import csr_array

from smgrid.clip import Clip
from smgrid.grid import Grid
from smgrid.lines import Lines
from smgrid.mesh import Holders, Mesh, Window
from smgrid.overlap import TINY, Side, askew, locate
from smgrid.tasks import alone

AGGREGATION = {
    "mean": "area-weighted mean",
    "mode": "class with the largest overlap area",
    "nearest": "value of the pixel that holds the cell centre",
}
WINDOW = 2**23  # pixels of one source window, and cells of one output chunk, at most (32 MiB of float32)
SERIES = 2**24  # values of one window of a series, at most
TILE = 1024  # cells along a side of an output chunk, at most
ROWS, STRIP = 128, 1024  # pixels of one strip, which stays in cache as float64
MIN_COVERAGE = 0.5  # of a cell, that a mean stands for the whole
CLASSES = 1000  # more than this many values are no classes
_FILLS = ("_FillValue", "missing_value", "nodata")
_STALE = (*_FILLS, "scale_factor", "add_offset", "grid_mapping", "AREA_OR_POINT")  # attrs of the file, not of the field


def to_grid(
    field: xr.DataArray | xr.Dataset, grid: Grid, *, how: str = "mean", min_coverage: float = MIN_COVERAGE
) -> xr.DataArray | xr.Dataset:
    """Carry a raster to the EASE-Grid 2.0, weighted by overlap area.

    Parameters
    ----------
    field : DataArray or Dataset, dims (..., y, x), (..., lat, lon) or (..., latitude, longitude)
        On regular or rectilinear axes of any CRS that PROJ knows: latitudes and longitudes (-180..180 or 0..360, in
        either direction, across the seam or not), EPSG:6933, UTM, sinusoidal, Homolosine ... The centres of the pixels
        are the coordinates; their edges lie midway. Missing is NaN. Of a Dataset, the variables without the two axes
        are left out.
    grid : Grid
        Where to; it may lie partly outside the source.
    how : {"mean", "mode", "nearest"}
        Area-weighted mean; the class with the largest overlap area (the smallest such class where areas are equal);
        the pixel that holds the cell's centre.
    min_coverage : float
        Share of a cell's area, 0..1, that known pixels must cover; cells below are NaN. Without meaning for "nearest".

    Returns
    -------
    DataArray or Dataset, dims (..., y, x), float32, units of the field
        Lazy where the field is. Classes are float32 too, so that NaN can say missing.

    Raises
    ------
    ValueError
        No CRS, or one that does not reach the coordinates; axes that are no axes; undecoded fill values or scales; a
        grid wholly outside the source.

    Notes
    -----
    How exact weights are: on latitudes and longitudes (and on datums within 1 mm of WGS 84) and in EPSG:6933, to 1e-12.
    On other projections, pixels up to a twentieth of a cell (50 m on 1 km): the mean is within some 1e-4 of the spread
    between cells, and coverage within 1e-4. Coarser ones: to 1e-9, a pixel being the polygon of its projected corners.
    A sphere's latitudes (MODIS) are taken for those of WGS 84, as its makers do.

    Examples
    --------
    >>> lat, lon = -34.7 - 0.001 * np.arange(500), 145.8 + 0.001 * np.arange(600)
    >>> field = xr.DataArray(np.ones((500, 600)), coords={"lat": lat, "lon": lon}, dims=("lat", "lon"))
    >>> carried = to_grid(field, Grid.around((146.0, -35.0, 146.2, -34.9), km=1))
    >>> carried.shape, carried.mean().item(), carried.attrs["aggregation"]
    ((11, 20), 1.0, 'area-weighted mean')
    """
    if how not in AGGREGATION:
        raise ValueError(f"how is one of {sorted(AGGREGATION)}, not {how!r}")
    if not 0 <= min_coverage <= 1:
        raise ValueError(f"min_coverage is a share of a cell's area, 0..1, not {min_coverage!r}")
    return carry(field, grid, locate_pixels(field, grid), how=how, min_coverage=min_coverage, dtype="float32")


# ---- the values


class Series(NamedTuple):
    """Lazy steps that a way makes days of, in each window for itself: no step of the whole is ever held."""

    values: xr.Variable  # (time, y, x)
    lag: xr.Variable | None  # beside each value
    way: Any  # of `series`: (time, ...) to (days, ...)


def locate_pixels(field: xr.DataArray | xr.Dataset, grid: Grid) -> tuple[Side, Side] | Mesh:
    """Say where the pixels of any raster lie on a grid; ValueError as of `to_grid`."""
    crs = askew(field)
    return locate(field, grid) if crs is None else Mesh.of(field, crs, grid)


def pixels_under(place: tuple[Side, Side] | Mesh) -> int:
    """How many pixels a grid needs."""
    if isinstance(place, Mesh):
        return place.window(slice(0, place.grid.ny), slice(0, place.grid.nx)).pixels
    return int(np.prod([np.unique(side.overlaps().indices).size for side in place]))


def carry(
    field: xr.DataArray | xr.Dataset,
    grid: Grid,
    place: tuple[Side, Side] | Mesh,
    *,
    how: str,
    min_coverage: float = 0.0,
    dtype: str | None = None,
    apart: bool = False,
    series: Sequence[Series] = (),
) -> xr.DataArray | xr.Dataset:
    """Carry the values, once it is known where the pixels lie.

    `dtype` None keeps floating types as they are. Lazy windows are read `apart`: each in the one task that uses it, not
    shared with others. With `series`, the field's values come from these, the days of one after those of the other, and
    the field itself is only asked for the rest.
    """
    dims = place.dims if isinstance(place, Mesh) else tuple(side.dim for side in place)
    old = {*dims}
    steps = max([max(len(some.values), len(some.way)) for some in series], default=1)
    tiling = _mesh_tiling(place, how, steps) if isinstance(place, Mesh) else _tiling(place, how, steps)
    kernel = partial(_KERNELS[how], least=max(min_coverage - TINY, TINY))

    def one(array: xr.DataArray, label: str) -> xr.DataArray:
        _check_values(array, label)
        kind = np.dtype(dtype or (array.dtype if array.dtype.kind == "f" else "float32"))
        variable = array.variable.transpose(..., *dims)
        out = xr.DataArray(
            _eager(variable, tiling, kernel, kind)
            if array.chunks is None
            else _lazy(variable, tiling, kernel, kind, apart, series),
            dims=(*variable.dims[:-2], "y", "x"),
            coords={name: c.variable for name, c in array.coords.items() if not (old & {*c.dims} or _is_mapping(c))},
            attrs={key: value for key, value in array.attrs.items() if key not in _STALE},
            name=array.name,
        ).assign_coords(grid.coords())
        out.attrs["aggregation"] = AGGREGATION[how]
        out.encoding["grid_mapping"] = "spatial_ref"
        return out

    if isinstance(field, xr.DataArray):
        return one(field, "obj")
    there = [name for name, array in field.data_vars.items() if old <= {*array.dims}]
    if not there:
        raise ValueError(
            f"no variable has the axes {sorted(map(str, old))}: the Dataset has {sorted(map(str, field.data_vars))}"
        )
    return xr.Dataset({name: one(field[name], f"obj[{name!r}]") for name in there}, attrs=field.attrs)


def _is_mapping(coordinate: xr.DataArray) -> bool:
    return bool({"crs_wkt", "grid_mapping_name", "spatial_ref"} & set(coordinate.attrs))


def _check_values(array: xr.DataArray, label: str) -> None:
    """Refuse what is not yet numbers with NaN for missing."""
    if array.dtype.kind not in "iufb":
        raise TypeError(f"{label} holds {array.dtype}, not numbers: leave it out, or convert it first")
    said = {**array.attrs, **(array.encoding if array.dtype.kind in "iu" else {})}
    for key in _FILLS:
        fill = np.ravel(said.get(key, np.nan))[0]
        if not np.isnan(float(fill)):
            raise ValueError(
                f"{label} holds {array.dtype} with an undecoded {key} of {fill}, which would be taken for a value. "
                "Open it with rioxarray.open_rasterio(path, masked=True) or xarray's mask_and_scale=True, or mend it: "
                f"{label} = {label}.where({label} != {fill}).assign_attrs({key}=float('nan'))"
            )
    scale, offset = float(array.attrs.get("scale_factor", 1)), float(array.attrs.get("add_offset", 0))
    if (scale, offset) != (1.0, 0.0):
        raise ValueError(
            f"{label} is undecoded: its attrs say scale_factor {scale:g}, add_offset {offset:g}. Open it with "
            "mask_and_scale=True"
        )


class _Patch(NamedTuple):
    """A block of cells, the pixels that it needs, and what says how much of each."""

    down: slice
    along: slice
    rows: list[slice]  # none outside the source, two where the source's ends meet among the cells
    cols: list[slice]
    weights: tuple[Any, ...]

    @property
    def cells(self) -> tuple[int, int]:
        return _length([self.down]), _length([self.along])

    @property
    def pixels(self) -> int:
        return _length(self.rows) * _length(self.cols)


def _length(runs: list[slice]) -> int:
    return sum(run.stop - run.start for run in runs)


class _Tile(NamedTuple):
    """Cells start..stop of an axis, the pixels they need, and the weights between the two."""

    start: int
    stop: int
    pixels: list[slice]  # none outside the source, two where the source's ends meet inside the tile
    weights: csr_array


@dataclass(frozen=True)
class _Sparse:
    """A sparse matrix as its arrays: what a task graph holds must say what it is made of, and SciPy's do not."""

    data: NDArray[np.float64]
    indices: NDArray[Any]
    indptr: NDArray[Any]
    shape: tuple[int, int]

    @classmethod
    def of(cls, matrix: csr_array) -> _Sparse:
        return cls(matrix.data, matrix.indices, matrix.indptr, matrix.shape)

    def matrix(self) -> csr_array:
        return csr_array((self.data, self.indices, self.indptr), self.shape)


class _Tiling(NamedTuple):
    blocks: list[list[Any]]  # patches, or nested lists of them
    weigh: Any  # makes an overlap of a patch's weights
    side: int  # cells along a side of an output chunk: a whole number of tiles
    steps: int  # maps of a stack that are worked on at once

    @classmethod
    def of(cls, blocks: list[list[Any]], weigh: Any, side: int) -> _Tiling:
        most = max(max(patch.pixels, min(TILE**2, int(np.prod(patch.cells)))) for patch in _patches(blocks))
        return cls(blocks, weigh, side * (TILE // side), max(1, WINDOW // most))

    @property
    def shape(self) -> tuple[int, int]:
        last = [*_patches(self.blocks)][-1]
        return last.down.stop, last.along.stop


def _patches(block: Any) -> Iterator[_Patch]:
    if isinstance(block, _Patch):
        yield block
    else:
        for part in block:
            yield from _patches(part)


def _tiling(sides: tuple[Side, Side], how: str, steps: int = 1) -> _Tiling:
    """Cut the grid into tiles whose windows, of so many steps, are of bounded size: chunks have no say."""
    overlaps = [side.overlaps() for side in sides]
    per_cell = np.prod([w.nnz / np.count_nonzero(np.diff(w.indptr)) for w in overlaps])
    side = int(np.clip(((WINDOW if steps == 1 else SERIES // steps) / per_cell) ** 0.5, 1, TILE))
    if steps > 1:  # tiles of one size, as large as they may be: each reads whole chunks of its source
        most = max(w.shape[0] for w in overlaps)
        side = -(-most // -(-most // side))
    weights = [side.holders() for side in sides] if how == "nearest" else overlaps
    down, along = ([*_tiles(w, side)] for w in weights)
    blocks = [
        [
            _Patch(
                slice(row.start, row.stop),
                slice(col.start, col.stop),
                row.pixels,
                col.pixels,
                (_Sparse.of(row.weights), _Sparse.of(col.weights)),
            )
            for col in along
        ]
        for row in down
    ]
    return _Tiling.of(blocks, _Overlap, side)


def _mesh_tiling(mesh: Mesh, how: str, steps: int = 1) -> _Tiling:
    """The same where each tile's window is a matter of its own; whole chunks without pixels are found at once."""
    most = int(WINDOW * min(1, 0.01 / mesh.side)) if mesh.is_fine else WINDOW // 8  # room for what weighs the pixels
    most = min(most, WINDOW if steps == 1 else SERIES // steps)
    side = int(np.clip(0.9 * mesh.side * most**0.5, 1, TILE))
    side *= 2 ** int(np.log2(TILE / side))

    def patches(part: Any) -> Any:
        if isinstance(part, list):
            return [[patches(p) for p in row] for row in part]
        there = part.pixels > 0
        return _Patch(part.down, part.along, [part.rows] * there, [part.cols] * there, (mesh, part))

    down, along = (
        [slice(start, min(start + side, n)) for start in range(0, n, side)] for n in (mesh.grid.ny, mesh.grid.nx)
    )
    blocks = [[patches(mesh.windows(v, u, most)) for u in along] for v in down]
    return _Tiling.of(blocks, Holders if how == "nearest" else _weigh, side)


def _weigh(mesh: Mesh, window: Window) -> Lines | Clip:
    return (Lines if mesh.is_fine and mesh.unbroken(window.rows, window.cols) else Clip)(mesh, window)


def _tiles(weights: csr_array, side: int) -> Iterator[_Tile]:
    """Tiles of `side` cells at most where there are pixels, one for all cells in a row without."""
    there = np.diff(weights.indptr) > 0
    for start, stop in pairwise([0, *(np.flatnonzero(np.diff(there)) + 1), there.size]):
        for first in range(start, stop, side if there[start] else stop - start):
            yield _tile(weights, first, min(first + side, stop) if there[start] else stop)


def _tile(weights: csr_array, start: int, stop: int) -> _Tile:
    part = weights[start:stop]
    used = np.unique(part.indices)
    if not used.size:
        return _Tile(start, stop, [], part[:, :0])
    seam = np.flatnonzero(np.diff(used) > weights.shape[1] / 2) + 1  # a source that closes round the globe ends here
    pixels = [slice(int(run[0]), int(run[-1]) + 1) for run in np.split(used, seam)]
    return _Tile(start, stop, pixels, part[:, np.concatenate([np.r_[run] for run in pixels])])


def _window(variable: xr.Variable, patch: _Patch) -> xr.Variable:
    """The pixels that a patch needs, in one piece: a view in memory, one read in a file, a slice in a graph."""
    parts: Any = [variable[..., patch.rows[0], run] for run in patch.cols]
    return parts[0] if len(parts) == 1 else type(parts[0]).concat(parts, variable.dims[-1])


def _eager(variable: xr.Variable, tiling: _Tiling, kernel: Any, dtype: np.dtype[Any]) -> NDArray[Any]:
    lead = variable.shape[:-2]
    out = np.full((*lead, *tiling.shape), np.nan, dtype)
    n = max(1, tiling.steps // max(1, int(np.prod(lead[1:]))))
    for patch in _patches(tiling.blocks):
        if not patch.pixels:
            continue
        overlap = tiling.weigh(*patch.weights)
        for some in [slice(k, k + n) for k in range(0, lead[0], n)] if lead else [...]:
            cells = out[some][..., patch.down, patch.along]
            cells[...] = _stack(_window(variable[some], patch).values, overlap, kernel, dtype)
    return out


def _lazy(
    variable: xr.Variable,
    tiling: _Tiling,
    kernel: Any,
    dtype: np.dtype[Any],
    apart: Any,
    series: Sequence[Series],
) -> Any:
    import dask.array

    da: Any = dask.array  # which has no types

    def block(part: Any, fields: list[xr.Variable], way: Any, lead: list[tuple[int, ...]]) -> Any:
        if not isinstance(part, _Patch):
            return da.block([[block(p, fields, way, lead) for p in row] for row in part])
        if not part.pixels:
            chunks, shape = (*lead, tiling.side, tiling.side), (*(sum(n) for n in lead), *part.cells)
            return da.full(shape, np.nan, dtype=dtype, chunks=chunks)
        windows: Any = [_window(field, part).data for field in fields]
        cells = da.map_blocks(
            partial(_each, way, len(fields)),
            *(window.rechunk((*lead, -1, -1) if way is None else -1) for window in windows),
            tiling.weigh,
            kernel,
            dtype,
            *part.weights,
            dtype=dtype,
            chunks=(*lead, *part.cells),
            meta=np.empty((0,) * variable.ndim, dtype),
        )
        return alone(cells) if apart else cells

    if series:
        runs = []
        for values, lag, way in series:
            fields = [values] if lag is None else [values, lag]
            runs.append(block(tiling.blocks, fields, way, [(len(way),)]))
        tiles = da.concatenate(runs)
    else:
        lead, steps = [], tiling.steps
        for sizes in variable.chunks[:-2] if variable.chunks else ():
            lead.append(tuple(min(steps, size - k) for size in sizes for k in range(0, size, steps)))
            steps = max(1, steps // max(lead[-1]))
        tiles = block(tiling.blocks, [variable], None, lead)
    return tiles.rechunk({tiles.ndim - 2: tiling.side, tiles.ndim - 1: tiling.side})


def _each(way: Any, n: int, *args: Any) -> NDArray[np.floating[Any]]:
    """The first n are windows, which a way may make one of."""
    windows, (weigh, kernel, dtype, *weights) = args[:n], args[n:]
    return _stack(windows[0] if way is None else way(*windows), weigh(*weights), kernel, dtype)


def _stack(window: NDArray[Any], overlap: Any, kernel: Any, dtype: np.dtype[Any]) -> NDArray[np.floating[Any]]:
    """Every map of a stack (..., pixels, pixels) through one kernel: (..., cells, cells)."""
    lead = window.shape[:-2]
    out = np.empty((*lead, *overlap.shape), dtype)
    for i in np.ndindex(lead):
        out[i] = kernel(window[i], overlap)
    return out


# ---- the arithmetic


class _Overlap:
    """Weights of one tile, the rows cut into strips of some `ROWS` pixels."""

    def __init__(self, down: _Sparse, along: _Sparse) -> None:
        rows, cols = down.matrix(), along.matrix()
        self.rows, self.cols, self.shape = rows, cols, (rows.shape[0], cols.shape[0])
        cells = max(1, ROWS * rows.shape[0] // max(1, rows.nnz))
        self.strips = []
        for start in range(0, rows.shape[0], cells):
            part = rows[start : start + cells]
            if part.nnz:
                first, last = int(part.indices.min()), int(part.indices.max()) + 1
                self.strips.append((slice(start, start + cells), slice(first, last), part[:, first:last]))

    def sums(self, image: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Value times area, and known area, summed over each cell, in cells and float64."""
        total, known = (np.zeros((self.rows.shape[0], image.shape[1])) for _ in range(2))
        for cells, pixels, weights in self.strips:
            whole = (weights @ np.ones(weights.shape[1]))[:, None]
            for left in range(0, image.shape[1], STRIP):
                here = cells, slice(left, left + STRIP)
                strip = image[pixels, left : left + STRIP]
                there = strip == strip
                if there.all():
                    total[here], known[here] = weights @ strip.astype("f8"), whole
                else:
                    total[here] = weights @ np.where(there, strip, np.float64(0))
                    known[here] = weights @ there.astype("f8")
        return (self.cols @ total.T).T, (self.cols @ known.T).T

    def at_centres(self, image: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Where each cell has one pixel of weight 1, or none: its value, and whether there is one."""
        at, held = [], []
        for weights in (self.rows, self.cols):
            held.append(np.diff(weights.indptr) > 0)
            at.append(np.zeros(held[-1].size, "intp"))
            at[-1][held[-1]] = weights.indices
        return image[np.ix_(*at)], np.logical_and.outer(*held)


def _mean(image: NDArray[Any], overlap: Any, least: float) -> NDArray[np.float64]:
    total, known = overlap.sums(image)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(known >= least, total / known, np.nan)


def _mode(image: NDArray[Any], overlap: Any, least: float) -> NDArray[np.float64]:
    import pandas as pd

    classes = pd.unique(image.ravel())
    classes = np.sort(classes[classes == classes])
    if classes.size > CLASSES or (classes != classes.astype("f4")).any():
        raise ValueError(
            f"'mode' is for classes: at most {CLASSES} numbers that float32 holds exactly; there are {classes.size} "
            f"from {classes[0]} to {classes[-1]}. Use how='mean' for measured values"
        )
    most, known = np.zeros((2, *overlap.shape))
    mode = np.full(most.shape, np.nan)
    for value in classes:
        area, _ = overlap.sums(image == value)
        more = area > most + TINY  # equal areas but for rounding: the smaller class stays
        mode[more], most[more] = value, area[more]
        known += area
    return np.where(known >= least, mode, np.nan)


def _nearest(image: NDArray[Any], overlap: Any, least: float) -> NDArray[Any]:
    value, held = overlap.at_centres(image)
    return np.where(held, value, np.nan if image.dtype.kind == "f" else np.float64("nan"))


_KERNELS = {"mean": _mean, "mode": _mode, "nearest": _nearest}
