"""What the rooms of fine rasters share: days of scenes, mosaics of pieces, a first look at the values."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import dask.array
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from smgrid.features import PAPER
from smgrid.files import existing, open_raster, raster_dataset, several
from smgrid.grid import TOLERANCE, find_crs

da: Any = dask.array  # which has no types
Paths = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
T = TypeVar("T")

LOOKS, SIDE = 4, 64  # windows along an axis, and pixels along a window's side, of a first look


def listed(paths: Paths, what: str) -> list[str]:
    """The paths as a list, patterns resolved; every one of them is there, addresses that GDAL reads are left alone."""
    given = [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)
    if any(_remote(path) for path in given):
        return [str(path) if _remote(path) else str(existing(Path(path), what)) for path in given]
    return [str(path) for path in several(paths, what)]


def _remote(path: str | os.PathLike[str]) -> bool:
    return "://" in str(path) or str(path).startswith("/vsi")


def per_file(value: Any, paths: Sequence[str], name: str) -> list[Any]:
    """One value for each file: the same for all, or as many as there are files."""
    if value is None or isinstance(value, (str, np.datetime64)) or np.ndim(value) == 0:
        return [value] * len(paths)
    if len(value) != len(paths):
        raise ValueError(f"{name} has {len(value)} entries, but there are {len(paths)} files: give one, or one a file")
    return list(value)


# ---- days


def when(path: str, given: Any = None) -> np.datetime64 | None:
    """When a scene was taken: what the caller says, else what the name of the file says, else None.

    A name with two plain days in it (`..._20150101_20151231.tif`, the ends of a period) says nothing about one day.

    Examples
    --------
    >>> str(when("S1A_IW_GRDH_1SDV_20150505T193156_20150505T193221_005789_00770C_85D1.tif"))
    '2015-05-05T19:31:56.000000000'
    >>> str(when("MOD13Q1.061__250m_16_days_NDVI_doy2015129_aid0001.tif"))[:10], when("median_2024.tif")
    ('2015-05-09', None)
    """
    import pandas as pd

    if given is not None:
        try:
            stamp = pd.Timestamp(given)
        except ValueError as error:
            raise ValueError(f"time={given!r} is no date: {error}") from error
        if pd.isna(stamp):
            raise ValueError(f"time={given!r} is no date")
        return (stamp.tz_convert("UTC").tz_localize(None) if stamp.tz else stamp).to_datetime64().astype("M8[ns]")
    name = Path(path).name
    for pattern, form in (
        (r"(?<!\d)((?:19|20)\d{6}T\d{6})(?!\d)", "%Y%m%dT%H%M%S"),
        (r"(?:A|doy)((?:19|20)\d{5})(?!\d)", "%Y%j"),
        (r"(?<!\d)((?:19|20)\d\d-\d\d-\d\d)(?!\d)", "%Y-%m-%d"),
        (r"(?<!\d)((?:19|20)\d\d_\d\d_\d\d)(?!\d)", "%Y_%m_%d"),
        (r"(?<!\d)((?:19|20)\d{6})(?!\d)", "%Y%m%d"),
    ):
        stamps = [pd.to_datetime(text, format=form, errors="coerce") for text in re.findall(pattern, name)]
        known = [stamp for stamp in stamps if not pd.isna(stamp)]
        if known and ("T" in form or len(set(known)) == 1):
            return known[0].to_datetime64().astype("M8[ns]")
    return None


# ---- a first look


def open_bands(path: str, bands: Sequence[str] | None = None) -> xr.DataArray:
    """Open a raster whose bands have names; scale and offset that the file declares are applied.

    Names given may be fewer than the bands: they name the first ones, the rest goes by its number.
    """
    with raster_dataset(path) as src:
        count = src.count
    if bands is not None and not isinstance(bands, str) and len(bands) < count:
        bands = [*bands, *(f"band_{k}" for k in range(len(bands) + 1, count + 1))]
    array = open_raster(path, bands=bands)
    factor, shift = np.asarray(array["scale"].values, "f8"), np.asarray(array["offset"].values, "f8")
    if (factor != 1).any() or (shift != 0).any():
        attrs = array.attrs
        array = (array * array["scale"] + array["offset"]).astype("f4").assign_attrs(attrs)
    return array.assign_attrs(declared_scale=bool((factor != 1).any() or (shift != 0).any()))


def images(path: str, labels: Sequence[str], known: Callable[[str], Any]) -> dict[str, dict[int, str]]:
    """Places and names of the known bands, by the image they are of; the image of a plain stack of bands is "".

    Earth Engine's `toBands` makes one stack of all images of a collection and calls each band IMAGE_BAND.

    Examples
    --------
    >>> labels = ["20150505T193156_VV", "20150505T193156_VH", "20150517T193156_VV", "DEM"]
    >>> images("a.tif", labels, {"VV", "VH"}.__contains__)
    {'20150505T193156': {0: 'VV', 1: 'VH'}, '20150517T193156': {2: 'VV'}}
    """
    found: dict[str, dict[int, str]] = {}
    for k, label in enumerate(map(str.strip, labels)):
        ends = [-1, *(at.start() for at in re.finditer("_", label))]
        cut = next((at for at in ends if known(label[at + 1 :])), None)
        if cut is not None:
            found.setdefault(label[: max(cut, 0)], {})[k] = label[cut + 1 :]
    if "" in found:
        return {"": found[""]}  # what stands beside bands of plain names is derived from them
    undated = [image for image in found if when(image) is None]
    if len(found) > 1 and undated:
        raise ValueError(
            f"{path} stacks the bands of {len(found)} images, {sorted(found)[:4]}, and the name of {undated[0]!r} holds "
            "no day (20150505, 2015-05-05): export one file a day, or images whose system:index is their date"
        )
    return found


def peek(path: str) -> NDArray[np.float64]:
    """Some values of every band, (bands, pixels), from windows spread over it; scaled as declared, NaN for nodata."""
    from rasterio.errors import RasterioError
    from rasterio.windows import Window

    with raster_dataset(path) as src:
        height, width = min(SIDE, src.height), min(SIDE, src.width)
        corners = [
            np.unique(np.linspace(0, whole - part, LOOKS).astype(int))
            for whole, part in ((src.height, height), (src.width, width))
        ]
        try:
            parts = [
                src.read(window=Window(col, row, width, height), masked=True).astype("f8").filled(np.nan)
                for row in corners[0]
                for col in corners[1]
            ]
        except (RasterioError, OSError) as error:
            raise ValueError(f"{path} cannot be read, the file is damaged: {error}") from error
        factor, shift = np.array(src.scales)[:, None], np.array(src.offsets)[:, None]
    return np.concatenate([part.reshape(len(part), -1) for part in parts], axis=1) * factor + shift


def tags(path: str) -> dict[str, str]:
    """What the file and its bands say about themselves, names in upper case."""
    with raster_dataset(path) as src:
        found = {**src.tags(), **{k: v for band in src.indexes for k, v in src.tags(band).items()}}
    return {str(key).upper(): str(value) for key, value in found.items()}


# ---- pieces


def gather(scenes: Sequence[tuple[str, np.datetime64 | None, xr.Dataset]]) -> xr.Dataset:
    """Scenes (path, moment, data) along `time`, with the first moment of each day as `acquired`.

    Without any day, one scene stays (y, x); several files are one scene only if they hold different variables.
    """
    dated = [(moment, scene) for _, moment, scene in scenes if moment is not None]
    if len(dated) < len(scenes):
        bare = [Path(path).name for path, moment, _ in scenes if moment is None]
        names = [name for _, _, scene in scenes for name in scene.data_vars]
        if dated or len(set(names)) < len(names):
            raise ValueError(f"the day of {bare} is not known: it is not in the name, give time=, one entry a file")
        return mosaic([scene for _, _, scene in scenes])
    out = stack(dated)
    first: dict[np.datetime64, np.datetime64] = {}
    for moment, _ in sorted(dated, key=lambda pair: pair[0]):
        first.setdefault(moment.astype("M8[D]"), moment)
    if any(moment != day for day, moment in first.items()):
        moments = [moment if moment != day else np.datetime64("NaT") for day, moment in first.items()]
        out = out.assign_coords(
            acquired=("time", np.array(moments, "M8[ns]"), {"long_name": "time of acquisition, UTC"})
        )
    return out


def mosaic(parts: Sequence[xr.Dataset], like: xr.Dataset | None = None) -> xr.Dataset:
    """Lay rasters of one pixel lattice beside each other, the first on top; NaN where none is.

    Parameters
    ----------
    parts : sequence of Dataset, dims (y, x)
        y descending, x ascending; they may hold different variables.
    like : Dataset, optional
        A Dataset of the extent wanted; by default, all of the parts.

    Raises
    ------
    ValueError
        Another CRS, pixel size or lattice; the message names the files.
    """
    if len(parts) == 1 and like is None:
        return parts[0]
    frame = like if like is not None else frame_of(parts)
    shape = frame.sizes["y"], frame.sizes["x"]
    corners = [tuple(_offset(part, frame, axis) for axis in ("y", "x")) for part in parts]
    names = dict.fromkeys(name for part in parts for name in part.data_vars)
    out = {}
    for name in names:
        held = [(corner, part[name]) for corner, part in zip(corners, parts) if name in part]
        values = _lay([(corner, array.data) for corner, array in held], shape)
        files = dict.fromkeys(",".join(array.attrs.get("source_files", "") for _, array in held).split(","))
        out[name] = (("y", "x"), values, {**held[0][1].attrs, "source_files": ",".join(files)})
    return xr.Dataset(out, {axis: frame[axis] for axis in ("y", "x", "spatial_ref")})


def stack(scenes: Sequence[tuple[np.datetime64, xr.Dataset]]) -> xr.Dataset:
    """Scenes along `time`, by UTC day: pieces of one day are laid together, all days have the extent of all."""
    frame = frame_of([scene for _, scene in scenes])
    days: dict[np.datetime64, list[xr.Dataset]] = {}
    for moment, scene in sorted(scenes, key=lambda pair: pair[0]):
        days.setdefault(moment.astype("M8[D]"), []).append(scene)
    maps = [mosaic(parts, frame) for parts in days.values()]
    time = np.array(list(days), "M8[ns]")
    out = {}
    for name in dict.fromkeys(name for one in maps for name in one.data_vars):
        there = [one[name] for one in maps if name in one]
        blank = da.full_like(there[0].data, np.nan)
        files = dict.fromkeys(",".join(one.attrs.get("source_files", "") for one in there).split(","))
        values = da.stack([one[name].data if name in one else blank for one in maps])
        out[name] = (("time", "y", "x"), values, {**there[0].attrs, "source_files": ",".join(files)})
    attrs = {"standard_name": "time", "long_name": "UTC day", "axis": "T"}
    return xr.Dataset(out, {"time": ("time", time, attrs), **{axis: frame[axis] for axis in ("y", "x", "spatial_ref")}})


def frame_of(parts: Sequence[xr.Dataset]) -> xr.Dataset:
    """An empty Dataset of the smallest extent on the parts' lattice that holds them all."""
    first = min(parts, key=lambda part: (-part["y"].values[0], part["x"].values[0]))  # whatever order they come in
    axes = {}
    for axis in ("y", "x"):
        starts = [_offset(part, first, axis) for part in parts]
        stops = [start + part.sizes[axis] for start, part in zip(starts, parts)]
        low, high = min(starts), max(stops)
        if (low, high) == (0, first.sizes[axis]):
            axes[axis] = first[axis].variable
        else:
            values = first[axis].values[0] + step(first, axis) * np.arange(low, high)
            axes[axis] = xr.Variable(axis, values, first[axis].attrs)
    return xr.Dataset(coords={**axes, "spatial_ref": first["spatial_ref"].variable})


def step(raster: xr.Dataset | xr.DataArray, axis: str) -> float:
    """Signed distance of two pixels along an axis; a single row is taken as high as the columns are wide."""
    values = raster[axis].values
    if values.size > 1:
        return float((values[-1] - values[0]) / (values.size - 1))
    other = raster["x" if axis == "y" else "y"].values
    if other.size < 2:
        raise ValueError(f"{files_of(raster)}: a single pixel does not tell its size")
    return float(-(other[-1] - other[0]) / (other.size - 1))


def _offset(part: xr.Dataset, frame: xr.Dataset, axis: str) -> int:
    """Whole pixels from the frame's first pixel to the part's."""
    pair = f"{files_of(part)} and {files_of(frame)}" if files_of(frame) else files_of(part)
    if part["spatial_ref"].attrs != frame["spatial_ref"].attrs and find_crs(part) != find_crs(frame):
        raise ValueError(f"{pair} lie in different CRSs, so they do not make one raster: open them one by one")
    size = step(frame, axis)
    ends = (part[axis].values[[0, -1]] - frame[axis].values[0]) / size
    first = round(float(ends[0]))
    stray = np.abs(ends - (first + np.array([0, part.sizes[axis] - 1]))).max()
    if stray > TOLERANCE:
        raise ValueError(
            f"{pair} do not share one lattice: along {axis} pixels of {abs(step(part, axis)):.6g} and "
            f"{abs(size):.6g}, {stray:.3g} pixels apart at worst. Export them with one origin and one pixel size "
            "(crsTransform), or open them one by one"
        )
    return first


def _lay(pieces: list[tuple[tuple[int, ...], Any]], shape: tuple[int, int]) -> Any:
    """One array of arrays at (row, col): the frame is cut along all edges, each cut takes the first value known."""
    whole = [piece for piece in pieces if piece[0] == (0, 0) and piece[1].shape == shape]
    if len(pieces) == 1 and whole:
        return pieces[0][1]
    cuts = []
    for axis, size in enumerate(shape):
        ends = {edge for corner, values in pieces for edge in (corner[axis], corner[axis] + values.shape[axis])}
        cuts.append(sorted({0, size, *ends}))
    rows = []
    for top, bottom in zip(cuts[0], cuts[0][1:]):
        row = []
        for left, right in zip(cuts[1], cuts[1][1:]):
            box = da.full((bottom - top, right - left), np.nan, dtype="f4", chunks=1024)
            found = [
                values[top - r : bottom - r, left - c : right - c]
                for (r, c), values in pieces
                if r <= top and bottom <= r + values.shape[0] and c <= left and right <= c + values.shape[1]
            ]
            for values in reversed(found):
                box = da.where(da.isnan(values), box, values) if box is not None and len(found) > 1 else values
            row.append(box)
        rows.append(row)
    return da.block(rows)


# ---- what variables say about themselves


def files_of(raster: xr.Dataset | xr.DataArray) -> str:
    """Names of the files that a raster comes from."""
    arrays = raster.data_vars.values() if isinstance(raster, xr.Dataset) else [raster]
    return ",".join(dict.fromkeys(a.attrs["source_files"] for a in arrays if a.attrs.get("source_files")))


def resolution(raster: xr.Dataset | xr.DataArray) -> str:
    """Size of a pixel in words, such as `10 m` or `0.000833333 degree`."""
    crs = find_crs(raster)
    unit = "degree" if crs is not None and crs.is_geographic else "m"
    height, width = abs(step(raster, "y")), abs(step(raster, "x"))
    same = abs(height - width) <= 1e-6 * width
    return f"{width:.6g} {unit}" if same else f"{height:.6g} x {width:.6g} {unit}"


def describe(scenes: xr.Dataset, said: Mapping[str, Mapping[str, Any]]) -> xr.Dataset:
    """Give every variable its units, resolution and rules, and nothing else but its files."""
    usual = resolution(scenes)
    for name, array in scenes.data_vars.items():
        units = {"units": PAPER[str(name)].units} if name in PAPER else {}
        size = array.attrs.get("native_resolution", usual)
        files = {"source_files": array.attrs.get("source_files", "")}
        array.attrs = {**units, "native_resolution": size, **files, **said[str(name)]}
        array.encoding = {"grid_mapping": "spatial_ref"}
    return scenes


def elementwise(function: Callable[..., NDArray[Any]], *arrays: xr.DataArray, **kwargs: Any) -> xr.DataArray:
    """Apply a function of blocks to arrays of one shape, lazily; float32 comes out."""
    return xr.apply_ufunc(
        function, *arrays, kwargs=kwargs, dask="parallelized", output_dtypes=["float32"], join="exact", keep_attrs=True
    )
