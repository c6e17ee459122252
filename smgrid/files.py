"""Opens a file and says what is wrong with it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from glob import glob, has_magic
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import dask.array
    import netCDF4
    import pandas as pd
    import rasterio
    import xarray as xr
    from pyproj import CRS

CHUNK = 1024  # cells a side, where a file has no chunks of its own


def existing(path: str | Path, what: str) -> Path:
    """The path if something is there; the error names what was looked for and what is near."""
    path = Path(path)
    if path.exists():
        return path
    near = sorted(p.name for p in path.parent.glob("*") if p.suffix == path.suffix)[:5] if path.parent.is_dir() else []
    hint = f"; in that folder are {near}" if near else ""
    raise FileNotFoundError(f"there is no {what} at {path}{hint}")


def several(paths: Any, what: str) -> list[Path]:
    """The existing paths that one path, a pattern such as `"smap/*.h5"`, or a sequence of paths stands for.

    Raises
    ------
    FileNotFoundError
        One of them, or anything that fits the pattern, is not there.
    ValueError
        The sequence is empty, or names a file twice.
    """
    if isinstance(paths, (str, PathLike)):
        if has_magic(str(paths)) and not Path(paths).exists():
            found = sorted(Path(p) for p in glob(str(paths)))
            if not found:
                raise FileNotFoundError(f"no {what} fits the pattern {paths}")
            return found
        paths = [paths]
    listed = [existing(path, what) for path in paths]
    if not listed:
        raise ValueError(f"no path of a {what} was given: the sequence of paths is empty")
    double = sorted({str(p) for p in listed if listed.count(p) > 1})
    if double:
        raise ValueError(f"the {what} {double[0]} is given twice")
    return listed


def kind(path: Path) -> str:
    """What a file is by its first bytes, for messages: extensions lie."""
    if path.is_dir():
        return "a folder"
    with path.open("rb") as file:
        head = file.read(512)
    if not head:
        return "an empty file"
    signs = {
        b"\x89HDF": "an HDF5 or NetCDF-4 file",
        b"CDF": "a NetCDF-3 file",
        b"\x0e\x03\x13\x01": "an HDF4 file",
        b"GRIB": "a GRIB file",
        b"PK": "a zip archive: unpack it first",
        b"II": "a TIFF file",
        b"MM": "a TIFF file",
        b"\x1f\x8b": "a gzip archive: unpack it first",
    }
    known = next((name for sign, name in signs.items() if head.startswith(sign)), None)
    if known is None and head.lstrip()[:1] in (b"<", b"{"):
        return "a page of text, as servers send it in place of data when a login has failed"
    return known or "a file of unknown kind"


def open_cube(path: str | Path) -> xr.Dataset:
    """Open a cube of predictors lazily.

    Parameters
    ----------
    path : path
        A Zarr store, packed (`smgrid.pack_cube`) or not, or a NetCDF file (`.nc`, `.nc4`, `.cdf`).

    Returns
    -------
    Dataset, one variable a predictor
        Dask-backed; on the chunks of the file where it has some.

    Raises
    ------
    FileNotFoundError
        Nothing is there.
    ValueError
        It is not such a file, or it is damaged; the message names it.
    """
    import xarray as xr

    from smgrid.packing import unpack_cube

    path = existing(path, "cube")
    try:
        if path.is_dir():
            return unpack_cube(xr.open_zarr(path, decode_coords="all", consolidated=False))
        if path.suffix.lower() not in (".nc", ".nc4", ".cdf"):
            raise ValueError("a cube is a Zarr store or a NetCDF file (.nc)")
        cube = xr.open_dataset(path, decode_coords="all", chunks={}, engine="netcdf4")
    except (OSError, KeyError, ValueError, RuntimeError) as error:
        raise ValueError(f"{path} cannot be opened as a cube: {error}") from error
    whole = {d: CHUNK if d in ("y", "x") else 1 for d in cube.dims}
    bare = [v for v in cube.data_vars.values() if not v.encoding.get("chunksizes")]
    return cube.chunk(whole) if bare else cube


def open_table(path: str | Path) -> pd.DataFrame:
    """Open a table of samples (CSV); a column `time` becomes dates, UTC.

    Dates are written as ISO 8601 has it, 2015-05-05: in 05/06/2015 nothing tells the day from the month.

    Raises
    ------
    FileNotFoundError
        Nothing is there.
    ValueError
        It is no CSV table, or its dates cannot be read; the message names it.
    """
    import pandas as pd

    path = existing(path, "table")
    try:
        table = pd.read_csv(path)
        if "time" in table.columns:
            table["time"] = _dates(table["time"])
    except (ValueError, UnicodeDecodeError, OSError) as error:
        raise ValueError(f"{path} cannot be read as a CSV table: {error}") from error
    return table


def _dates(column: pd.Series) -> pd.Series:
    """UTC dates of text or of numbers such as 20150505; nothing is guessed."""
    import pandas as pd

    try:
        return pd.to_datetime(column.astype("string"), format="ISO8601", utc=True).dt.tz_localize(None)
    except ValueError as error:
        said = str(error).splitlines()[0]
        raise ValueError(f"dates in the column 'time' are written 2015-05-05 (ISO 8601). {said}") from error


def write_netcdf(maps: xr.Dataset, path: str | Path) -> Path:
    """Write maps to one NetCDF file that is whole or not there: under another name first, then renamed."""
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {path.parent} to write {path.name} in")
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder: give the NetCDF file another name")
    partial = path.with_name(path.name + ".partial")
    try:
        maps.to_netcdf(partial, engine="netcdf4")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return path


# ---- lazy arrays whose errors name their file


class ContentError(ValueError):
    """The file is whole, but what it holds cannot be; the message names file and variable itself."""


class Words(str):
    """Text for people that travels with a computation: no part of what it computes, so identities pass over it."""

    __slots__ = ()


@dataclass(frozen=True)
class _Pending:
    """What Dask reads from: `read(slices)` gives that part of the array, errors name `what`."""

    read: Callable[[tuple[slice, ...]], NDArray[Any]]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    what: str

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def __getitem__(self, key: Any) -> NDArray[Any]:
        key = key if isinstance(key, tuple) else (key,)
        parts = tuple(part if isinstance(part, slice) else slice(part, part + 1) for part in key)
        drop = tuple(slice(None) if isinstance(part, slice) else 0 for part in key)
        try:
            return np.asarray(self.read(parts), self.dtype)[drop]
        except ContentError:
            raise
        except Exception as error:
            raise ValueError(f"{self.what} cannot be read, the file is damaged: {error}") from error


def pending(
    read: Callable[[tuple[slice, ...]], NDArray[Any]],
    shape: Sequence[int],
    dtype: Any,
    chunks: Sequence[int],
    what: str,
    *,
    token: Hashable = None,
) -> dask.array.Array:
    """A Dask array that is read part by part when it is computed.

    Parameters
    ----------
    read : callable
        Takes a tuple of slices, gives that part; runs in several threads at once.
    shape, dtype, chunks
        Of the array.
    what : str
        File and variable, for the message when reading fails.
    token : hashable, optional
        What identifies the content: equal tokens, equal keys in the graph.

    Returns
    -------
    dask.array.Array
        Computing it raises ValueError naming `what` where the file is damaged.
    """
    import dask.array as da
    from dask.base import tokenize

    source = _Pending(read, tuple(shape), np.dtype(dtype), what)
    name = f"read-{tokenize(what, token, source.shape, str(source.dtype), tuple(chunks))}"
    empty = np.empty((0,) * len(shape), dtype)
    return da.from_array(source, chunks=tuple(chunks), name=name, asarray=True, fancy=False, meta=empty)


def fingerprint(path: str | Path) -> tuple[str, int, int]:
    """Name, size and time of change of a file: what a graph knows it by."""
    try:
        stat = Path(path).stat()
    except OSError:
        return str(path), 0, 0  # a remote address
    return str(path), stat.st_size, stat.st_mtime_ns


# ---- NetCDF, HDF5, Zarr


@contextmanager
def netcdf(path: str | Path) -> Iterator[netCDF4.Dataset]:
    """Open a NetCDF or HDF5 file as netCDF4 sees it, raw (no mask, no scale), alone: the library bears no threads."""
    import netCDF4
    from xarray.backends.netCDF4_ import NETCDF4_PYTHON_LOCK  # the lock under which xarray reads the same library

    with NETCDF4_PYTHON_LOCK:
        try:
            data = netCDF4.Dataset(path)
        except (OSError, RuntimeError) as error:
            raise ValueError(
                f"{path} cannot be opened, it is damaged or of another kind ({kind(Path(path))}): {error}"
            ) from error
        with data:
            data.set_auto_maskandscale(False)
            try:
                yield data
            except (
                OSError,
                RuntimeError,
                UnicodeDecodeError,
            ) as error:  # what the library says of bytes it cannot make sense of
                raise ValueError(f"{path} cannot be read, the file is damaged: {error}") from error


def open_dataset(path: str | Path, *, engine: str | None = None, **options: Any) -> xr.Dataset:
    """Open a NetCDF file or Zarr store as xarray decodes it; every variable is lazy and its errors name the file.

    Parameters
    ----------
    path : path
    engine : str, optional
        xarray's name of the reader; by default `"zarr"` for folders, `"netcdf4"` for files.
    **options
        For `xarray.open_dataset`.

    Raises
    ------
    ValueError
        It is damaged or of another kind; the message names it, on opening or, for a variable, on computing.
    """
    import xarray as xr

    path = Path(path)
    folder = path.is_dir()
    if folder and engine is None:
        options = {"consolidated": False, **options}  # on a disk nothing is gained by it, and stores may lack it
    options = {"chunks": None, "cache": False, "decode_coords": "all", "decode_timedelta": False, **options}
    try:
        data = xr.open_dataset(path, engine=engine or ("zarr" if folder else "netcdf4"), **options)
    except Exception as error:  # a damaged file may trip any line of any library below
        raise ValueError(
            f"{path} cannot be opened, it is damaged or of another kind ({kind(path)}): {error}"
        ) from error
    return lazily(data, path)


def lazily(data: xr.Dataset, path: str | Path) -> xr.Dataset:
    """Make every variable of numbers of a Dataset that stands open, but unread, lazy; its errors name the file."""
    import xarray as xr

    for name, variable in data.variables.items():
        if name not in data.indexes and variable.ndim and variable.dtype.kind in "fiubM":
            chunks = _grow(variable.shape, variable.encoding.get("chunksizes") or variable.encoding.get("chunks"))
            read, what, token = _Variable(variable), f"{path}: {name!r}", fingerprint(path)
            source = pending(read, variable.shape, variable.dtype, chunks, what, token=token)
            lazy = xr.Variable(variable.dims, source, variable.attrs, variable.encoding)
            data = data.assign_coords({name: lazy}) if name in data.coords else data.assign({name: lazy})
    return data


@dataclass(frozen=True)
class _Variable:
    variable: xr.Variable

    def __call__(self, key: tuple[slice, ...]) -> NDArray[Any]:
        return np.asarray(self.variable[key].values)


def _grow(shape: Sequence[int], stored: Any) -> tuple[int, ...]:
    """Whole chunks of the file, grown from the last dimension on to about CHUNK x CHUNK values."""
    chunks = [min(c, n) for c, n in zip(stored, shape)] if isinstance(stored, (tuple, list)) else [1] * len(shape)
    for k in reversed(range(len(shape))):
        room = CHUNK * CHUNK // max(1, int(np.prod(chunks)))
        chunks[k] = min(shape[k], chunks[k] * max(1, room))
    return tuple(max(1, c) for c in chunks)


# ---- rasters


def reference(crs: CRS) -> dict[str, Any]:
    """CF attributes of a CRS for the coordinate `spatial_ref`, with the WKT under both names that readers look for."""
    attrs = crs.to_cf()
    return {**attrs, "spatial_ref": attrs["crs_wkt"]}


def open_raster(path: str | Path, *, bands: Sequence[str] | None = None, crs: Any = None) -> xr.DataArray:
    """Open a raster file that GDAL knows (GeoTIFF, JPEG 2000, HGT, VRT, ...) lazily, as it is stored.

    Values are not scaled; what the file says about scale stands in the coordinates `scale` and `offset`.

    Parameters
    ----------
    path : path or address
        A file, or an address that GDAL reads by itself (`/vsicurl/...`, `https://...`).
    bands : sequence of str, optional
        Names of the bands in order; by default the descriptions in the file, else `band_1`, `band_2`, ...
    crs : anything pyproj knows, optional
        For a file that carries none, or a wrong one.

    Returns
    -------
    DataArray (band, y, x)
        float32, or float64 where the file holds 32-bit integers or float64; nodata and masked pixels are NaN. `y`
        descends, `x` ascends, both at pixel centres; `spatial_ref` holds the CRS; along `band` lie `scale`, `offset`
        and, where the file tells, `units`. attrs `source_files`, `nodata`, `stored_as`.

    Raises
    ------
    FileNotFoundError
        Nothing is there.
    ValueError
        It is no raster or damaged, has no CRS or position, is rotated, or has another number of bands than names.
    """
    import xarray as xr

    remote = str(path).startswith("/vsi") or "://" in str(path)
    where = str(path) if remote else str(existing(path, "raster"))
    with raster_dataset(where) as src:
        system = _system(src, where, crs)
        turn = src.transform
        if turn.b or turn.d or not turn.a or not turn.e:
            raise ValueError(
                f"{where}: the raster is rotated (transform {tuple(turn)[:6]}), rows and columns must run along the "
                "axes: gdalwarp it onto its own CRS first"
            )
        names = _band_names(src, where, bands)
        integer = src.dtypes[0] in ("int32", "uint32", "int64", "uint64", "float64")
        kept = {"scale": list(src.scales), "offset": list(src.offsets)}
        if any(src.units):
            kept["units"] = [unit or "" for unit in src.units]
        shape, (rows, cols) = (src.count, src.height, src.width), src.block_shapes[0]
        attrs = {"source_files": Path(where).name, "stored_as": src.dtypes[0]}
        if src.nodata is not None:
            attrs["nodata"] = src.nodata
    values = pending(
        _RasterWindow(where), shape, "f8" if integer else "f4", (1, *chunk_of(shape[1:], (rows, cols))),
        f"{where}", token=fingerprint(where),
    )  # fmt: skip
    y, x = turn.f + turn.e * (np.arange(shape[1]) + 0.5), turn.c + turn.a * (np.arange(shape[2]) + 0.5)
    array = xr.DataArray(
        values[:, :: -1 if turn.e > 0 else 1, :: -1 if turn.a < 0 else 1],
        {
            "band": names,
            "y": ("y", y[:: -1 if turn.e > 0 else 1], axis_attributes("y", system)),
            "x": ("x", x[:: -1 if turn.a < 0 else 1], axis_attributes("x", system)),
            "spatial_ref": ((), np.int64(0), reference(system)),
            **{name: ("band", along) for name, along in kept.items()},
        },
        ("band", "y", "x"),
        attrs=attrs,
    )
    array.encoding["grid_mapping"] = "spatial_ref"
    return array


@dataclass(frozen=True)
class _RasterWindow:
    """Reads one window of a raster; every read opens the file anew, so that threads do not wait for each other."""

    path: str

    def __call__(self, key: tuple[slice, ...]) -> NDArray[Any]:
        import rasterio
        from rasterio.windows import Window

        with rasterio.open(self.path) as src:
            band, y, x = (range(size)[part] for part, size in zip(key, (src.count, src.height, src.width)))
            if not (len(band) and len(y) and len(x)):
                return np.empty((len(band), len(y), len(x)), "f8")
            low_y, low_x = min(y[0], y[-1]), min(x[0], x[-1])
            window = Window(low_x, low_y, max(x[0], x[-1]) - low_x + 1, max(y[0], y[-1]) - low_y + 1)
            found = src.read([b + 1 for b in band], window=window, masked=True)
        wide = found.dtype.itemsize > 2 and found.dtype != np.float32
        values = found.astype("f8" if wide else "f4").filled(np.nan)
        return values[:, y.start - low_y :: y.step, x.start - low_x :: x.step] if y.step * x.step != 1 else values


def raster_dataset(path: str) -> rasterio.DatasetReader:
    """Open a raster as rasterio sees it; the error names the file."""
    import rasterio
    from rasterio.errors import NotGeoreferencedWarning, RasterioError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)  # it becomes an error that names the file
            return rasterio.open(path)
    except (RasterioError, OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be opened as a raster, it is damaged or of another kind: {error}") from error


def _system(src: rasterio.DatasetReader, path: str, crs: Any) -> CRS:
    from pyproj import CRS

    if src.count == 0:
        raise ValueError(f"{path} holds no bands itself, only the parts {src.subdatasets[:5]}: give one of them")
    if src.transform.is_identity:
        raise ValueError(f"{path} has no position (no geotransform): a raster without one cannot be placed on a grid")
    if crs is not None:
        return CRS.from_user_input(crs)
    if src.crs is None:
        raise ValueError(
            f"{path} has no CRS: give it with crs='EPSG:...', or write it in: rio edit-info --crs EPSG:... {path}"
        )
    return CRS.from_wkt(src.crs.to_wkt())


def _band_names(src: rasterio.DatasetReader, path: str, bands: Sequence[str] | None) -> list[str]:
    said = [text or f"band_{k}" for k, text in enumerate(src.descriptions, 1)]
    if bands is None:
        return said
    if isinstance(bands, str) or len(bands) != src.count:
        raise ValueError(f"{path} has {src.count} bands {said}, but bands={bands!r}: name each once, in order")
    if list(bands) != said and set(bands) & {*filter(None, src.descriptions)} and set(bands) <= set(said):
        raise ValueError(f"{path} names its bands {said}, but bands={list(bands)} has them in another order")
    return list(bands)


def axis_attributes(name: str, crs: CRS) -> dict[str, str]:
    """CF attributes of the axis `y` or `x` in a CRS."""
    if crs.is_geographic:
        kind, units = ("latitude", "degrees_north") if name == "y" else ("longitude", "degrees_east")
        return {"standard_name": kind, "units": units, "axis": name.upper()}
    return {"standard_name": f"projection_{name}_coordinate", "units": "m", "axis": name.upper()}


def chunk_of(shape: tuple[int, int], block: tuple[int, int]) -> tuple[int, int]:
    """Whole blocks of the file, together about CHUNK x CHUNK pixels; strips stay as wide as they are."""
    cols = min(shape[1], block[1] * max(1, CHUNK // block[1]))
    rows = min(shape[0], block[0] * max(1, CHUNK * CHUNK // cols // block[0]))
    return rows, cols
