"""Opens MODIS vegetation indices (MOD13Q1, MYD13Q1, MOD13A2, MYD13A2): NDVI and the day each pixel was seen.

The archive's files are HDF4, in the sinusoidal projection, which has no EPSG code; clips of them go round as GeoTIFF
and JPEG 2000, layer by layer or band by band. Terra's 16-day periods start on day 1, 17, ... of the year, Aqua's on day
9, 25, ...; inside its period each pixel keeps the best observation, which may be days away from its neighbour's.

References
----------
Didan, K. (2021), MOD13Q1 v061, doi:10.5067/MODIS/MOD13Q1.061; Didan et al. (2015), MODIS VI user's guide, table 5.
"""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from smgrid.files import axis_attributes, fingerprint, kind, open_raster, pending, reference
from smgrid.sources._scenes import Paths, describe, elementwise, images, listed, peek, stack, step, tags, when

if TYPE_CHECKING:
    from pyproj import CRS

SCALE, FILL, VALID = 10000.0, -3000, (-2000, 10000)  # NDVI = stored / SCALE
PERIOD = 16  # days
ROWS = 1200  # rows of one read: a whole 1-km tile, a quarter of a 250-m one
_LAYERS = {  # what a layer is called in HDF4 and clips of it (AppEEARS), and on Earth Engine
    "ndvi": r"NDVI(?![a-z])",
    "reliability": r"pixel[ _]reliability|SummaryQA",
    "day": r"composite[ _]day[ _]of[ _]the[ _]year|DayOfYear",
}
_LOCK = threading.Lock()  # the HDF4 library is not made for threads


def open(paths: Paths, *, quality: Sequence[int] = (0, 1)) -> xr.Dataset:
    """Open NDVI composites lazily, on their sinusoidal grid.

    Parameters
    ----------
    paths : path or sequence of paths
        HDF4 files of the archive (neighbouring tiles and several periods, Terra and Aqua together), or rasters cut
        from them with the day in the name: an NDVI layer, and if there, layers or bands of pixel reliability and
        composite day.
    quality : sequence of int
        Ranks of pixel reliability that are kept: 0 good, 1 marginal, 2 snow or ice, 3 cloud.

    Returns
    -------
    Dataset, dims (time, y, x)
        `ndvi` (1) and, where the files tell, `composite_day`: days (d) from `time`, the first day of the period, to the
        day the pixel was seen, so that `time + composite_day` is its date, across the turn of the year too. NDVI
        outside -0.2..1, fills and other ranks are NaN.

    Raises
    ------
    ImportError
        HDF4 is asked for and pyhdf is missing.
    ValueError
        Another product, a damaged file, no day in the name, one tile and period twice, NDVI without a known scale.

    Examples
    --------
    >>> ndvi = open("MOD13Q1.A2015113.h29v12.061.hdf").ndvi  # doctest: +SKIP
    >>> ndvi.sizes  # doctest: +SKIP
    Frozen({'time': 1, 'y': 4800, 'x': 4800})
    """
    wrong = [rank for rank in quality if rank not in (0, 1, 2, 3)]
    if wrong or not len(quality):
        raise ValueError(f"quality holds ranks of pixel reliability, 0 to 3, not {tuple(quality)}")
    files = listed(paths, "MODIS file")
    archive = [path for path in files if _is_hdf4(path)]
    _survive(archive)
    layers = [layer for path in files for layer in ([_open_hdf4(path)] if path in archive else _open_clip(path))]
    _refuse_twins(layers)
    scenes = stack([(layer.start, layer.data) for layer in layers])
    if "raw" not in scenes:
        raise ValueError(f"there is no NDVI layer in {_names(files)}: give the file of the NDVI beside the others")
    return _decode(scenes, layers, tuple(quality))


@dataclass(frozen=True)
class _Layers:
    """What one file holds, as stored: variables `raw`, `reliability`, `day`."""

    path: str
    product: str
    version: str
    start: np.datetime64
    data: xr.Dataset


def _decode(scenes: xr.Dataset, layers: list[_Layers], quality: tuple[int, ...]) -> xr.Dataset:
    rule = f"stored values outside {VALID[0]}..{VALID[1]} are missing; NDVI = stored / 10000"
    ndvi = elementwise(_scaled, scenes["raw"])
    if "reliability" in scenes:
        ndvi = elementwise(_kept, ndvi, scenes["reliability"], quality=quality)
        rule += f"; kept are the ranks {quality} of pixel reliability"
    else:
        rule += "; no pixel reliability was given, so clouds are not masked"
    product = ",".join(sorted({layer.product for layer in layers}))
    version = ",".join(sorted({layer.version for layer in layers}))
    said = {"product": product, "version": version}
    out = scenes[[]].assign(ndvi=ndvi)
    meanings = {"ndvi": {"long_name": "normalised difference vegetation index", **said, "rule": rule}}
    if "day" in scenes:
        start = scenes["time"].dt
        first, length = start.dayofyear.astype("f4"), (365 + start.is_leap_year).astype("f4")
        # one number a date, broadcast inside the block
        out["composite_day"] = elementwise(_days_after, scenes["day"], first, length)
        meanings["composite_day"] = {
            "long_name": "days from the first day of the period to the day the pixel was seen",
            "units": "d",
            **said,
            "rule": "days of the year outside the period of 16 days are missing",
        }
    return describe(out, meanings)


def _scaled(raw: NDArray[Any]) -> NDArray[np.float32]:
    known = (raw >= VALID[0] - 0.5) & (raw <= VALID[1] + 0.5)  # whole numbers, or NDVI that was rounded to float32
    return np.where(known, raw.astype("f8") / SCALE, np.nan).astype("f4")


def _kept(ndvi: NDArray[np.float32], reliability: NDArray[Any], *, quality: tuple[int, ...]) -> NDArray[np.float32]:
    return np.where(np.isin(reliability, quality), ndvi, np.float32(np.nan))


def _days_after(day: NDArray[Any], first: NDArray[Any], length: NDArray[Any]) -> NDArray[np.float32]:
    """Days from the period's first day of the year; a period that starts late in the year ends in the next one."""
    after = day.astype("f4") - first
    after = np.where(after < 0, after + length, after)
    return np.where((day >= 1) & (after < PERIOD), after, np.nan).astype("f4")


def _refuse_twins(layers: list[_Layers]) -> None:
    seen: dict[Any, str] = {}
    for layer in layers:
        corner = tuple(float(layer.data[axis].values[0].round(0)) for axis in ("y", "x"))
        for name in layer.data.data_vars:
            twin = seen.setdefault((layer.product, layer.start, corner, name), layer.path)
            if twin is not layer.path:
                raise ValueError(
                    f"{_names([twin, layer.path])} are one tile and period twice: keep the one processed last"
                )


def _names(paths: Sequence[str]) -> str:
    return ", ".join(Path(path).name for path in paths)


def _role(name: str) -> str | None:
    return next((role for role, pattern in _LAYERS.items() if re.search(pattern, name, re.IGNORECASE)), None)


# ---- HDF4


def _is_hdf4(path: str) -> bool:
    if path.startswith("/vsi") or "://" in path:
        return False
    found = kind(Path(path))
    if found != "an HDF4 file" and path.lower().endswith(".hdf"):
        raise ValueError(f"{path} is no HDF4 file but {found}: fetch it again")
    return found == "an HDF4 file"


def _survive(paths: Sequence[str]) -> None:
    """Have another process open the files first: damaged ones may take the library down, and the process with it."""
    if not (paths and sys.executable):
        return
    done = subprocess.run(
        [sys.executable, "-c", _TRIAL], input="\n".join(paths), capture_output=True, text=True, check=False
    )
    if done.returncode < 0:
        path = (done.stdout.splitlines() or list(paths))[-1]
        raise ValueError(
            f"{path} cannot be opened as HDF4, it is damaged: the library breaks down on it "
            f"({signal.Signals(-done.returncode).name})"
        )


_TRIAL = """
import sys
from pyhdf.SD import SD
for path in sys.stdin.read().splitlines():
    print(path, flush=True)
    try:
        file = SD(path)
        file.attributes()
        for name in file.datasets():
            file.select(name).attributes()
        file.end()
    except Exception:
        pass
"""


def _hdf4(path: str) -> Any:
    """The open file; the caller holds the lock and ends it."""
    try:
        from pyhdf.SD import SD
    except ImportError as error:
        raise ImportError(f"{path} is HDF4, which needs pyhdf: pip install 'smgrid[modis]'") from error
    from pyhdf.error import HDF4Error

    try:
        return SD(path)
    except HDF4Error as error:
        raise ValueError(f"{path} cannot be opened as HDF4, it is damaged: {error}") from error


def _open_hdf4(path: str) -> _Layers:
    with _LOCK:
        file = _hdf4(path)
        try:
            attrs, sets = file.attributes(), file.datasets()
            found = {role: name for name in sets if (role := _role(name))}
            held = {role: file.select(name).attributes() for role, name in found.items()}
        except Exception as error:  # pyhdf raises HDF4Error, and plain errors where it meets bytes it cannot decode
            raise ValueError(f"{path} cannot be read as HDF4, it is damaged: {error}") from error
        finally:
            file.end()
    lacks = [role for role in _LAYERS if role not in found]
    if lacks:
        raise ValueError(
            f"{path} is no MOD13 vegetation index: of {sorted(sets)[:6]} none is {' or '.join(lacks)}; "
            "the products read here are MOD13Q1, MYD13Q1, MOD13A2, MYD13A2"
        )
    scale, fill = held["ndvi"].get("scale_factor"), held["ndvi"].get("_FillValue", FILL)
    if scale not in (SCALE, 1 / SCALE) or fill != FILL:
        raise ValueError(
            f"{path}: {found['ndvi']!r} has scale_factor {scale} and fill {fill}, expected {SCALE:g} (stored / NDVI) "
            f"and {FILL}: another version of the product?"
        )
    inventory = str(attrs.get("CoreMetadata.0", ""))
    name = Path(path).name
    product = _inventory(inventory, "SHORTNAME") or name.split(".")[0]
    start = _inventory(inventory, "RANGEBEGINNINGDATE")
    day = np.datetime64(start, "ns") if start else when(path)
    if day is None:
        raise ValueError(f"{path} says neither inside nor in its name (A2015113) when its period starts")
    y, x, crs = _tile(path, str(attrs.get("StructMetadata.0", "")))
    axes = {name: (name, values, axis_attributes(name, crs)) for name, values in (("y", y), ("x", x))}
    coords = {**axes, "spatial_ref": ((), np.int64(0), reference(crs))}
    shape, rows = (len(y), len(x)), min(ROWS, len(y))
    data = {}
    for role, layer in found.items():
        if tuple(sets[layer][1]) != shape:
            raise ValueError(f"{path}: {layer!r} is {sets[layer][1]}, but the tile is {shape}: the file is damaged")
        read = partial(_read_hdf4, path, layer)
        stored = "i1" if role == "reliability" else "i2"
        array = pending(read, shape, stored, (rows, shape[1]), f"{path}: {layer!r}", token=fingerprint(path))
        data[{"ndvi": "raw"}.get(role, role)] = (("y", "x"), array.astype("f4"), {"source_files": name})
    version = f"{int(_inventory(inventory, 'VERSIONID') or 0):03d}" if inventory else ""
    return _Layers(path, product, version, day, xr.Dataset(data, coords))


def _read_hdf4(path: str, layer: str, key: tuple[slice, ...]) -> NDArray[Any]:
    with _LOCK:
        file = _hdf4(path)
        try:
            return np.asarray(file.select(layer)[key])
        except Exception as error:
            raise ValueError(str(error)) from error
        finally:
            file.end()


def _inventory(text: str, name: str) -> str | None:
    """Value of an object of the granule's inventory (ODL)."""
    value = re.search(rf'(?<!END_)OBJECT\s*=\s*{name}\s.*?\bVALUE\s*=\s*"?([^"\n]*)', text, re.DOTALL)
    return value[1].strip() if value else None


def _tile(path: str, text: str) -> tuple[NDArray[np.float64], NDArray[np.float64], CRS]:
    """Pixel centres and CRS of a tile, from its StructMetadata."""
    from pyproj import CRS

    def numbers(name: str) -> list[float]:
        found = re.search(rf"\b{name}\s*=\s*\(?([^)\n]*)", text)
        try:
            return [float(part) for part in found[1].split(",")] if found else []
        except ValueError:
            return []

    nx, ny, corner, end, radius = (
        numbers(name) for name in ("XDim", "YDim", "UpperLeftPointMtrs", "LowerRightMtrs", "ProjParams")
    )
    if "GCTP_SNSOID" not in text or not (nx and ny and len(corner) == len(end) == 2 and radius):
        raise ValueError(
            f"{path}: its StructMetadata gives no sinusoidal grid (XDim, YDim, corners, GCTP_SNSOID), so the pixels "
            "have no place; is the file whole and a MODIS tile (h29v12)? CMG products on latitudes are not read here"
        )
    x = corner[0] + (np.arange(int(nx[0])) + 0.5) * ((end[0] - corner[0]) / nx[0])
    y = corner[1] + (np.arange(int(ny[0])) + 0.5) * ((end[1] - corner[1]) / ny[0])
    return (
        np.asarray(y, "f8"),
        np.asarray(x, "f8"),
        CRS.from_wkt(CRS.from_proj4(f"+proj=sinu +lon_0=0 +R={radius[0]:.10g} +units=m +no_defs").to_wkt()),
    )


# ---- clips


def _open_clip(path: str) -> list[_Layers]:
    """What a clip holds; of a stack of many images (`toBands`) each as if it were a file of its own."""
    array = open_raster(path)
    bands = [str(band) for band in array["band"].values]
    if len(bands) == 1 and _role(bands[0]) is None:
        bands = [Path(path).name]
    found = {role: k for k, band in reversed(list(enumerate(bands))) if (role := _role(band))}
    if sum(_role(band) == "ndvi" for band in bands) > 1:
        stacked = images(path, bands, lambda label: re.match("|".join(_LAYERS.values()), label, re.IGNORECASE))
        dated = [(image, {str(_role(bands[k])): k for k in own}) for image, own in stacked.items()]
        return [_layers(path, array, own, when(image), image) for image, own in dated]
    if not found:
        raise ValueError(
            f"{path} is no layer of MOD13: neither its name nor its bands {bands} hold NDVI, pixel reliability or "
            "composite day"
        )
    return [_layers(path, array, found, when(path), Path(path).name)]


def _layers(
    path: str, array: xr.DataArray, found: Mapping[str, int], start: np.datetime64 | None, name: str
) -> _Layers:
    """The layers of one period; `name` is that of the file or of the image."""
    if start is None:
        raise ValueError(f"{path}: the name holds no day (2015-04-23, 20150423, A2015113, doy2015113) of the period")
    data = {}
    for role, k in found.items():
        one = array.isel(band=k, drop=True).drop_vars(["scale", "offset", "units"], errors="ignore").astype("f4")
        if role == "ndvi":
            one = one.astype("f8") * _to_stored(path, array, k)  # float64: NDVI that comes as NDVI stays what it is
        one.attrs = {"source_files": Path(path).name}
        data[{"ndvi": "raw"}.get(role, role)] = one
    said, name = tags(path), f"{Path(path).name} {name}"
    code = re.search(r"M[OY]D13[AQ][12]", name)
    sensor = "MYD13" if re.search(r"aqua", name, re.IGNORECASE) else "MOD13" if "TERRA" in name.upper() else ""
    size = step(array, "x")
    product = code[0] if code else sensor and sensor + ("Q1" if size < 300 else "A2" if size > 800 else "A1")
    version = re.search(r"M[OY]D13[AQ][12]\.(?:.*?\.)?(00[56]|061)(?!\d)", name)
    return _Layers(
        path,
        product or said.get("SHORTNAME", "MOD13 or MYD13"),
        version[1] if version else said.get("VERSIONID", "unknown"),
        start,
        xr.Dataset(data),
    )


def _to_stored(path: str, array: xr.DataArray, band: int) -> float:
    """Factor from the values in the file to NDVI x 10000."""
    form, declared = str(array.attrs["stored_as"]), float(array["scale"].values[band])
    values = peek(path)[band] / declared
    values = values[np.isfinite(values)]
    top = float(np.abs(values).max()) if values.size else 0.0
    stored = abs(declared * SCALE - 1) < 1e-6 or (declared == 1 and top > 200)
    if stored and form in ("int16", "int32", "float32", "float64"):
        if declared == 1 and top <= 1000:
            raise ValueError(
                f"{path}: NDVI is nowhere above {top:g} where it was looked at: NDVI x 1000, where the product has "
                "NDVI x 10000. Open it with smgrid.sources.raster.open(path, name='ndvi', units='0.001'), or "
                "units='0.0001' if it is so after all"
            )
        return 1.0
    if declared == 1 and form.startswith("float") and top <= 1.5:
        return SCALE
    raise ValueError(
        f"{path}: NDVI is {form} with values up to {top:g} and scale {declared:g}, neither NDVI (-0.2..1) nor NDVI x "
        "10000 (int16): its scale is not known. Take the product's own int16, or bring it to -0.2..1 in float32 first"
    )
