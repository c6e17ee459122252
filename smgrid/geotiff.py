"""Writes maps as Cloud-Optimised GeoTIFFs, block by block.

GDAL makes such a file only from a finished raster, and one set of overviews only by one rule, but a map has means and
flags side by side. So each layer goes, block by block, into a plain tiled GeoTIFF of its own, gets its overviews there
(mean for values, most frequent for flags), and a VRT stacks the layers for the last copy. All of it happens in a hidden
folder beside the target; files move into place only once every one of them has been read back and found right.
"""

from __future__ import annotations

import errno
import itertools
import json
import logging
import os
import re
import shutil
import tempfile
import time
import zlib
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import dask.base
import dask.system
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from smgrid.grid import TOLERANCE, Grid, find_crs, is_ease2

if TYPE_CHECKING:
    from affine import Affine

TILE = 512  # pixels; also the size at which overviews stop
NARROW = 128  # pixels; a virtual raster passes no narrower overviews on
CACHE = 128  # MB of GDAL's block cache, which would otherwise take 5 % of the machine
Slices = dict[Hashable, slice]

log = logging.getLogger("smgrid")


def write_geotiff(maps: xr.Dataset | xr.DataArray, path: str | os.PathLike[str]) -> Path | list[Path]:
    """Write maps as Cloud-Optimised GeoTIFF: one file per date, one band per layer.

    Tiles of 512, DEFLATE, internal overviews (mean without the missing for values, most frequent for flags, each level
    from the one before). The bands of a file share one type: flags beside a float32 layer are stored as float32,
    exactly. Missing is NaN. Bands carry name, units and attributes of their layer; the file carries those of the maps
    and the date. The same maps give the same bytes, however they are chunked.

    Parameters
    ----------
    maps : Dataset or DataArray, dims (..., y, x)
        numpy or Dask; on the EASE-Grid 2.0, or on any other regular grid with a CRS. Dask blocks are computed a few at
        a time, all layers of a block together, so a map larger than memory is no matter.
    path : path-like
        `STEM.tif`, on a local file system. Several dates go to `STEM_YYYYMMDD.tif`, other leading dims to
        `STEM_DIM-LABEL.tif`. Files that exist are replaced, but only once all new ones are whole.

    Returns
    -------
    Path or list of Path
        A list when there is more than one file.

    Raises
    ------
    ValueError
        The path is remote or no `.tif`, the grid is not regular or has no CRS, two dates would share a file.
    OSError
        The folder is missing, the disk is full, or what was read back is not what was written. Old files are kept.

    Examples
    --------
    >>> import smgrid, tempfile
    >>> soil = xr.DataArray(np.full(smgrid.YANCO.shape, 0.2, "f4"), smgrid.YANCO.coords(), ("y", "x"), "soil_moisture")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     smgrid.write_geotiff(soil, f"{folder}/yanco.tif").name
    'yanco.tif'
    """
    import rasterio

    path = _local(path)
    maps = _as_layers(maps)
    frame = _Frame.of(maps)
    files = _name_files(maps, path)
    _check_space(maps, path.parent)
    began = time.perf_counter()
    with (
        tempfile.TemporaryDirectory(prefix=f".{path.stem}.", suffix=".partial", dir=path.parent) as scratch,
        rasterio.Env(GDAL_CACHEMAX=CACHE, GDAL_TIFF_OVR_BLOCKSIZE=TILE, GDAL_NUM_THREADS="ALL_CPUS"),
    ):
        finished: dict[str, Path] = {}
        for group in _blocks(maps, _leading(maps)):
            finished |= _write_group(maps.isel(group), frame, Path(scratch))
        for name, target in files.items():
            os.replace(finished[name], target)
    size = sum(target.stat().st_size for target in files.values())
    log.info(
        "wrote %d GeoTIFF of %d x %d cells, %d layers, %.1f MB in %.1f s: %s",
        *(len(files), *frame.shape, len(frame.layers), size / 1e6, time.perf_counter() - began, path.parent),
    )
    return list(files.values()) if len(files) > 1 else next(iter(files.values()))


# ---- what is to be written


@dataclass(frozen=True)
class _Frame:
    """What all files of one call have in common."""

    crs: str
    transform: Affine
    shape: tuple[int, int]
    layers: tuple[Hashable, ...]
    dtype: np.dtype[Any]  # of the file; each layer keeps its own until the last copy

    @classmethod
    def of(cls, maps: xr.Dataset) -> _Frame:
        crs, transform = _place(maps)
        layers = tuple(maps.data_vars)
        dtype = np.result_type(*(maps[name].dtype for name in layers))
        return cls(crs, transform, (maps.sizes["y"], maps.sizes["x"]), layers, dtype)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the bands."""
        return tuple(_clean(str(layer)).strip() for layer in self.layers)

    @property
    def nodata(self) -> float | None:
        return float("nan") if self.dtype.kind == "f" else None

    @property
    def factors(self) -> list[int]:
        """Overviews, halving until one tile holds the map, or a long map is too narrow for GDAL to carry them on."""
        short, long = sorted(self.shape)
        return [2**k for k in range(1, 32) if long > TILE * 2 ** (k - 1) and -(-short // 2**k) >= NARROW]


def _as_layers(maps: Any) -> xr.Dataset:
    """Maps as a Dataset of layers (..., y, x) in types that a GeoTIFF has."""
    if isinstance(maps, xr.DataArray):
        maps = maps.to_dataset(name=maps.name if maps.name is not None else "field")
    if not isinstance(maps, xr.Dataset):
        raise TypeError(f"maps are an xarray Dataset or DataArray, not {type(maps).__name__}")
    references = {m.encoding.get("grid_mapping", m.attrs.get("grid_mapping")) for m in maps.data_vars.values()}
    maps = maps.set_coords([name for name in maps.data_vars if name in references | {"spatial_ref", "crs"}])
    if not maps.data_vars:
        raise ValueError("the maps have no layers: give a Dataset with soil_moisture, or a DataArray")
    flat = [name for name, layer in maps.data_vars.items() if not {"y", "x"} <= set(layer.dims)]
    if flat:
        raise ValueError(f"{flat} have no dims y and x, so they are no layers: maps = maps.drop_vars({flat})")
    for name, layer in maps.data_vars.items():
        if layer.dtype.kind not in "biuf" or layer.dtype.itemsize > 8:
            raise ValueError(f"{name!r} is {layer.dtype}, which a GeoTIFF cannot hold: give numbers or drop the layer")
        kept = {"b1": "u1", "f2": "f4"}.get(layer.dtype.str[1:], layer.dtype.newbyteorder("="))
        if layer.dtype != kept:
            maps[name] = layer.astype(kept)
    empty = [dim for dim, size in maps.sizes.items() if size == 0]
    if empty:
        raise ValueError(f"there is nothing to write: the dims {empty} have no entries")
    spread = xr.broadcast(maps, exclude=("y", "x"))[0].unify_chunks()  # a static layer goes into every file
    return spread.transpose(*_leading(maps), "y", "x")


def _leading(maps: xr.Dataset) -> list[Hashable]:
    """Every dim but y and x, time first."""
    dims = dict.fromkeys(["time", *(dim for layer in maps.data_vars.values() for dim in layer.dims)])
    return [dim for dim in dims if dim in maps.dims and dim not in ("y", "x")]


def _place(maps: xr.Dataset) -> tuple[str, Affine]:
    """CRS and transform: exact from whole cells on our grid, from the axes elsewhere."""
    from affine import Affine

    crs = find_crs(maps)
    if crs is None or crs.to_epsg() == 6933 or is_ease2(crs):
        return "EPSG:6933", Grid.of(maps).transform  # without a CRS this says what to do
    steps, starts = [], []
    for name, mend in (("x", "obj.sortby('x')"), ("y", "obj.sortby('y', ascending=False)")):
        axis = np.asarray(maps[name].values if name in maps.coords else [], "f8")
        if axis.size < 2 or not np.isfinite(axis).all():
            raise ValueError(f"the {name!r} axis needs at least two coordinates, none missing, to tell the cell size")
        step = (axis[-1] - axis[0]) / (axis.size - 1)
        if (step > 0) != (name == "x"):
            raise ValueError(f"{name} {'ascends' if step > 0 else 'descends'}, north and west come first: obj = {mend}")
        if np.abs(axis - axis[0] - step * np.arange(axis.size)).max() > TOLERANCE * abs(step):
            raise ValueError(f"the {name!r} axis is not regular: carry the data over with smgrid.to_grid(obj, grid)")
        steps.append(step)
        starts.append(axis[0] - step / 2)
    return str(crs.to_wkt()), Affine(steps[0], 0.0, starts[0], 0.0, steps[1], starts[1])


# ---- where it goes


def _local(path: str | os.PathLike[str]) -> Path:
    text = os.fspath(path)
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+://|/vsi", text):
        raise ValueError(f"{text!r} is not on a local file system: write the file locally, then copy it there")
    path = Path(text)
    if path.suffix.lower() not in (".tif", ".tiff"):
        raise ValueError(f"a GeoTIFF ends in .tif or .tiff, not {path.name!r}: {path.with_suffix('.tif').name!r}?")
    if path.parent.is_file():
        raise NotADirectoryError(errno.ENOTDIR, "that is a file, not a folder to write in", str(path.parent))
    if not path.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, "the folder does not exist, make it first", str(path.parent))
    return path


def _name_files(maps: xr.Dataset, path: Path) -> dict[str, Path]:
    """Target of each map, keyed by the suffix of its name; one map alone takes the name as it is."""
    suffixes = _suffixes(maps)
    twice = sorted({s for s in suffixes if suffixes.count(s) > 1})
    if twice:
        raise ValueError(
            f"several maps would go to {path.stem + twice[0] + path.suffix!r}: labels along {_leading(maps)} "
            "must differ (dates by the day): take one of them, or average"
        )
    one = len(suffixes) == 1
    files = {s: path if one else path.with_name(path.stem + s + path.suffix) for s in suffixes}
    for target in files.values():
        if target.is_dir():
            raise IsADirectoryError(errno.EISDIR, "a folder has the name of the GeoTIFF", str(target))
    return files


def _suffixes(maps: xr.Dataset) -> list[str]:
    """What tells the maps apart in their file names, in the order of the leading dims."""
    labels = [[_label(maps[dim], i) for i in range(maps.sizes[dim])] for dim in _leading(maps)]
    return ["".join(parts) for parts in itertools.product(*labels)]


def _label(axis: xr.DataArray, i: int) -> str:
    value = axis.values[i]
    if axis.dtype.kind == "M":
        if np.isnat(value):
            raise ValueError(f"{axis.name!r} has no date at position {i}: drop that map or give it one")
        text = np.datetime_as_string(value, unit="D").replace("-", "")
    else:
        text = re.sub(r"[^A-Za-z0-9.+-]+", "-", str(value))
    return f"_{text}" if axis.name == "time" else f"_{axis.name}-{text}"


def _check_space(maps: xr.Dataset, folder: Path) -> None:
    """Refuse before any work where not even the scratch layers of one group fit."""
    cells = max(np.prod([s.stop - s.start for s in group.values()]) for group in _blocks(maps, _leading(maps)))
    cells *= maps.sizes["y"] * maps.sizes["x"]
    need = int(cells * 4 / 3 * sum(layer.dtype.itemsize for layer in maps.data_vars.values()))
    free = shutil.disk_usage(folder).free
    if free < need:
        raise OSError(
            errno.ENOSPC, f"{need / 1e9:.2g} GB are needed for the work and {free / 1e9:.2g} GB are free", str(folder)
        )


# ---- the work


def _blocks(maps: xr.Dataset, dims: Sequence[Hashable]) -> list[Slices]:
    """Windows along some dims: the Dask blocks, or slabs of whole rows where there are none."""
    rows = max(1, 2**22 // (maps.sizes["x"] * TILE)) * TILE
    cuts = []
    for dim in dims:
        size = maps.sizes[dim]
        step = rows if dim == "y" else size if dim == "x" else 1
        chunks = maps.chunksizes.get(dim) or [min(step, size - start) for start in range(0, size, step)]
        edges = [0, *itertools.accumulate(chunks)]
        cuts.append([slice(*pair) for pair in itertools.pairwise(edges)])
    return [dict(zip(dims, window)) for window in itertools.product(*cuts)]


def _write_group(maps: xr.Dataset, frame: _Frame, scratch: Path) -> dict[str, Path]:
    """Write the maps that share Dask blocks, so that each block is computed once; give the files by suffix."""
    dims, suffixes = _leading(maps), _suffixes(maps)
    sums = _write_layers(maps, frame, scratch, len(suffixes))
    with _disk_faults(scratch):
        _add_overviews(maps, frame, scratch)
        files = {}
        for band, (suffix, where) in enumerate(zip(suffixes, np.ndindex(*(maps.sizes[dim] for dim in dims)))):
            stack = scratch / "stack.vrt"
            _write_stack(maps.isel(dict(zip(dims, where))), frame, stack, band)
            files[suffix] = scratch / f"map{suffix}.tif"
            _copy(stack, files[suffix], frame)
            _verify(files[suffix], frame, [(window, crcs[band]) for window, crcs in sums])
        for i in range(len(frame.layers)):
            (scratch / f"{i}.tif").unlink()
    return files


def _write_layers(maps: xr.Dataset, frame: _Frame, scratch: Path, count: int) -> list[tuple[Slices, list[list[int]]]]:
    """Compute the maps block by block into one raw GeoTIFF per layer, a band per map; give the checksums."""
    import rasterio

    height, width = frame.shape
    profile = dict(driver="GTiff", height=height, width=width, count=count, crs=frame.crs, transform=frame.transform)
    profile |= dict(tiled=True, blockxsize=TILE, blockysize=TILE, interleave="band", bigtiff="if_safer")
    sums = []
    with ExitStack() as stack:
        rasters = []
        for i, name in enumerate(frame.layers):
            own = dict(dtype=maps[name].dtype, nodata=float("nan") if maps[name].dtype.kind == "f" else None)
            rasters.append(stack.enter_context(rasterio.open(scratch / f"{i}.tif", "w", **own, **profile)))
        for window, block in _compute(maps):
            bands = [block[name].values.reshape(count, *block[name].shape[-2:]) for name in frame.layers]
            with _disk_faults(scratch):
                for raster, values in zip(rasters, bands):
                    raster.write(values, window=(_span(window["y"]), _span(window["x"])))
            sums.append((window, [[_crc(values[k], frame.dtype) for values in bands] for k in range(count)]))
        with _disk_faults(scratch):
            stack.close()  # what GDAL still held goes to the disk now
    return sums


def _compute(maps: xr.Dataset) -> Iterator[tuple[Slices, xr.Dataset]]:
    """Yield finished blocks, all layers of a block at once, as many blocks at a time as there are workers."""
    windows = iter(_blocks(maps, ["y", "x"]))
    workers = dask.config.get("num_workers", None) or dask.system.CPU_COUNT
    while batch := list(itertools.islice(windows, workers)):
        yield from zip(batch, dask.base.compute(*(maps.isel(window) for window in batch)))  # type: ignore[no-untyped-call]


def _span(cut: slice) -> tuple[int, int]:
    return cut.start, cut.stop


def _crc(values: NDArray[Any], dtype: np.dtype[Any]) -> int:
    return zlib.crc32(np.ascontiguousarray(values, dtype).data)


def _add_overviews(maps: xr.Dataset, frame: _Frame, scratch: Path) -> None:
    import rasterio
    from rasterio.enums import Resampling

    for i, name in enumerate(frame.layers):
        if frame.factors:
            how = Resampling.mode if _is_flag(maps[name]) else Resampling.average
            with rasterio.open(scratch / f"{i}.tif", "r+") as raster:
                raster.build_overviews(frame.factors, how)


def _is_flag(layer: xr.DataArray) -> bool:
    """Whole numbers name classes: the mean of two flags is a third one that nobody set."""
    return layer.dtype.kind in "iu" or "flag_values" in layer.attrs or "flag_masks" in layer.attrs


def _copy(stack: Path, target: Path, frame: _Frame) -> None:
    import rasterio.shutil

    predict = frame.dtype.kind == "f" or frame.dtype.itemsize < 8  # older GDAL cannot predict 64-bit integers
    options = dict(driver="COG", compress="DEFLATE", predictor="YES" if predict else "NO", blocksize=TILE)
    options |= dict(overviews="FORCE_USE_EXISTING", bigtiff="IF_SAFER", num_threads="ALL_CPUS")
    rasterio.shutil.copy(str(stack), str(target), **options)


def _verify(path: Path, frame: _Frame, sums: list[tuple[Slices, list[int]]]) -> None:
    """Read a finished file back: GDAL may swallow a failed write, and a broken GeoTIFF opens without a word."""
    import rasterio

    with rasterio.open(path) as raster:
        found = (
            raster.shape,
            tuple(d or "" for d in raster.descriptions),
            raster.crs,
            raster.transform,
            raster.overviews(1),
        )
        expected = (frame.shape, frame.names, rasterio.CRS.from_user_input(frame.crs), frame.transform, frame.factors)
        faults = [f"{f} is not {e}" for f, e in zip(found, expected) if f != e]
        for window, crcs in [] if faults else sums:
            values = raster.read(window=(_span(window["y"]), _span(window["x"])))
            if [_crc(band, frame.dtype) for band in values] != crcs:
                faults.append(f"other values in rows {_span(window['y'])}, columns {_span(window['x'])}")
    if faults:
        raise OSError(errno.EIO, f"the file read back is not what was written ({'; '.join(faults[:3])})", str(path))


@contextmanager
def _disk_faults(folder: Path) -> Iterator[None]:
    """GDAL's errors as OSError with the folder and its free space."""
    from rasterio._err import CPLE_BaseError  # what building overviews raises; it has no public name
    from rasterio.errors import RasterioError

    try:
        yield
    except (RasterioError, CPLE_BaseError) as error:
        free = shutil.disk_usage(folder).free
        raise OSError(
            errno.ENOSPC if free < 2**24 else errno.EIO,
            f"the GeoTIFF could not be written ({error}); {free / 1e6:.3g} MB are free; old files are kept",
            str(folder.parent),
        ) from error


# ---- what the file says of itself


def _write_stack(one: xr.Dataset, frame: _Frame, path: Path, band: int) -> None:
    """Write the VRT that makes one map of band `band` of each layer's raster."""
    height, width = map(str, frame.shape)
    root = ElementTree.Element("VRTDataset", rasterXSize=width, rasterYSize=height)
    ElementTree.SubElement(root, "SRS").text = frame.crs
    ElementTree.SubElement(root, "GeoTransform").text = ", ".join(map(repr, frame.transform.to_gdal()))
    _add_metadata(root, one.attrs | _file_tags(one))
    kind = {"u1": "Byte"}.get(frame.dtype.str[1:]) or frame.dtype.name.capitalize().replace("Uint", "UInt")
    for i, name in enumerate(frame.layers):
        node = ElementTree.SubElement(root, "VRTRasterBand", dataType=kind, band=str(i + 1))
        _add_metadata(node, one[name].attrs)
        ElementTree.SubElement(node, "Description").text = frame.names[i]
        ElementTree.SubElement(node, "UnitType").text = _clean(str(one[name].attrs.get("units", "")))
        if frame.nodata is not None:
            ElementTree.SubElement(node, "NoDataValue").text = "nan"
        source = ElementTree.SubElement(node, "SimpleSource")
        ElementTree.SubElement(source, "SourceFilename", relativeToVRT="1").text = f"{i}.tif"
        ElementTree.SubElement(source, "SourceBand").text = str(band + 1)
    ElementTree.ElementTree(root).write(path, encoding="utf-8")


def _file_tags(one: xr.Dataset) -> dict[str, str]:
    """Software, and the date of the map: never the time of writing, for the same work gives the same bytes."""
    from smgrid import __version__

    tags = {"TIFFTAG_SOFTWARE": f"smgrid {__version__}"}
    if "title" in one.attrs:
        tags["TIFFTAG_IMAGEDESCRIPTION"] = str(one.attrs["title"])
    when = one.coords.get("time")
    if when is not None and when.dtype.kind == "M" and when.ndim == 0 and not np.isnat(when.values):
        iso = str(np.datetime_as_string(when.values, unit="s"))
        tags["time"] = iso.removesuffix("T00:00:00")
        tags["TIFFTAG_DATETIME"] = iso.replace("-", ":").replace("T", " ")
    for dim, label in one.coords.items():
        if label.ndim == 0 and dim not in ("time", "spatial_ref", "crs"):
            tags[str(dim)] = str(label.values)
    return tags


_NOT_TAGS = {"_FillValue", "scale_factor", "add_offset", "grid_mapping", "coordinates", "ancillary_variables"}


def _add_metadata(node: ElementTree.Element, attrs: Mapping[Any, Any]) -> None:
    metadata = ElementTree.SubElement(node, "Metadata")
    for key, value in attrs.items():
        if key in _NOT_TAGS or str(key).startswith("STATISTICS_"):  # statistics are of another file
            continue
        item = ElementTree.SubElement(metadata, "MDI", key=_clean(str(key)).replace("=", "_"))
        item.text = _clean(_as_text(value))


def _as_text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, np.ndarray | list | tuple):
        return " ".join(_as_text(v) for v in np.ravel(value).tolist())
    return json.dumps(value, default=str) if isinstance(value, dict) else str(value)


def _clean(text: str) -> str:
    return re.sub(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "", text)  # what XML can say
