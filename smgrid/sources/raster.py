"""Opens any CF NetCDF, Zarr or GeoTIFF on its own grid: the room for products that have none of their own."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from smgrid.features import PAPER, Predictor, only_possible
from smgrid.files import Words, existing, kind, open_dataset, open_raster
from smgrid.sources._axes import north_up, snap
from smgrid.sources._scenes import images, when
from smgrid.units import SAME, Conversion, canonical, conversion, convertible_to

log = logging.getLogger("smgrid")

SIDE = 64  # pixels along a side of the windows of a first look
FILLS = np.array(  # codes that people use for missing, as float32 has them too
    [
        *(sign * float("9" * n) for n in (2, 3, 4, 5, 6) for sign in (-1, 1)),
        *(-32768.0, 32767.0, 65535.0, -32767.0, -2147483648.0, 2147483647.0, -3000.0, -28672.0, 255.0),
        *(
            sign * float(np.float32(code))
            for code in (1e20, 9.969209968386869e36, 3.4028235e38, 1e30)
            for sign in (-1, 1)
        ),
    ]
)
_NETCDF = {"an HDF5 or NetCDF-4 file", "a NetCDF-3 file"}


def open(
    path: str | Path,
    *,
    name: str | Mapping[str, str] | None = None,
    units: str | Mapping[str, str] | None = None,
    crs: Any = None,
) -> xr.Dataset:
    """Open one file or store of gridded data.

    Parameters
    ----------
    path : path
        NetCDF, a Zarr store, or anything that GDAL reads (GeoTIFF, ...; also `/vsicurl/...` addresses).
    name : str or mapping, optional
        What the one variable of the file is called, or a mapping from names in the file (`band_1`, ... where bands have
        none) to ours; with a mapping only what it names is kept. By default all variables keep their names. In a stack of
        many images (`toBands`, bands such as `2015_05_09_NDVI`) `{"NDVI": "ndvi"}` is the series of them.
    units : str or mapping, optional
        Units of the stored values, after scale and offset of the file, at your word, over what the file says; a mapping
        goes by our names. `"0.0001"` is the unit of reflectances or NDVI stored times 10000.
    crs : anything pyproj knows, optional
        For a file that names no CRS. Axes in degrees need none: they are EPSG:4326.

    Returns
    -------
    Dataset, dims (..., y, x)
        float32, lazy, scale and fill of the file applied, missing NaN; `y` descends, `x` ascends, longitudes -180..180;
        CRS in `spatial_ref`. Predictors of the paper are in their canonical unit, others in that of the file. `time`
        is the UTC day; instants within the day ride along as `acquired`.

    Raises
    ------
    FileNotFoundError
        Nothing is there.
    ValueError
        The file is damaged or of another kind; has no such variable, no regular axes, no CRS, several instants a day;
        units are missing for a predictor of the paper or do not convert. On computing: many values are no such
        quantity. A fill (-9999, -32768, 65535, ...) that the file does not declare, found in a first look at some of the
        values, is taken as missing, and the attrs' `rule` says so.

    Examples
    --------
    >>> from smgrid import sources
    >>> sources.raster.open("ndvi.tif", name="ndvi", units="0.0001")  # doctest: +SKIP
    """
    remote = str(path).startswith("/vsi") or "://" in str(path)
    path = path if remote else existing(path, "raster")
    if isinstance(path, Path) and (path.is_dir() or kind(path) in _NETCDF):
        data = _utc_days(north_up(_fields(open_dataset(path), name, path), path, crs=crs), path)
    else:
        data = _utc_days(_bands(str(path), name, crs), path)
    strange = [label for label in units if label not in data] if isinstance(units, Mapping) else []
    if strange:
        raise ValueError(f"{path}: units are given for {strange}, but the variables are {list(map(str, data))}")
    about = {
        "product": str(data.attrs.get("title", Path(str(path)).name)),
        "version": str(data.attrs.get("product_version", "")),
        "native_resolution": _resolution(data),
        "source_files": Path(str(path)).name,
    }
    for label in data.data_vars:
        said = units.get(str(label)) if isinstance(units, Mapping) else units
        data[label] = _in_units(data[label], said, path)
        data[label].attrs |= about
        data[label].encoding = {"grid_mapping": "spatial_ref"}
    data.attrs = {}
    return data


def _resolution(data: xr.Dataset) -> str:
    step = abs(float(data["x"][1] - data["x"][0])) if data.sizes["x"] > 1 else np.nan
    return f"{step:.6g} {'degree' if data['x'].attrs.get('units') == 'degrees_east' else 'm'}"


# ---- variables under our names


def _fields(data: xr.Dataset, name: str | Mapping[str, str] | None, path: str | Path) -> xr.Dataset:
    """The variables asked for; only numbers in two dimensions or more, no bounds of cells."""
    bounds = {attrs.get("bounds") for attrs in (variable.attrs for variable in data.variables.values())}
    fields = [
        str(label)
        for label, array in data.data_vars.items()
        if array.ndim >= 2 and array.dtype.kind in "fiub" and label not in bounds
    ]
    mapping = _naming(fields, name, path)
    return data[list(mapping)].rename({old: new for old, new in mapping.items() if old != new})


def _naming(fields: list[str], name: str | Mapping[str, str] | None, path: str | Path) -> dict[str, str]:
    """From names in the file to ours."""
    if not fields:
        raise ValueError(f"{path} holds no field: no variable of numbers in two dimensions or more")
    if name is None:
        return {field: field for field in fields}
    if isinstance(name, str):
        if len(fields) > 1:
            dated = all(when(field) is not None for field in fields)
            hint = ", or by the name without the date for all images of a stack" if dated else ""
            raise ValueError(f"{path} holds {fields}, so say which: name={{{fields[0]!r}: {name!r}}}" + hint)
        name = {fields[0]: name}
    axes = sorted({*name.values()} & {"y", "x", "time", "spatial_ref", "acquired"})
    if axes:
        raise ValueError(f"a variable cannot be named {axes[0]!r}: that is an axis")
    missing = [old for old in name if old not in fields]
    if missing:
        raise ValueError(f"{path} holds no {missing}; it has {fields}")
    return dict(name)


def _bands(path: str, name: str | Mapping[str, str] | None, crs: Any) -> xr.Dataset:
    """The bands of a raster as variables, the file's scale and offset applied."""
    raster = open_raster(path, crs=crs)
    labels = [str(label) for label in raster["band"].values]
    double = sorted({label for label in labels if labels.count(label) > 1})
    if double:
        raise ValueError(f"{path} names more than one band {double}: open it with smgrid.files.open_raster")
    if isinstance(name, Mapping) and not set(name) & set(labels):  # a stack of many images, as `toBands` makes it
        stacked = images(path, labels, set(name).__contains__)
        if len(stacked) > 1:
            return _dated(raster, stacked, name)
    return snap(xr.Dataset({new: _band(raster, labels.index(old)) for old, new in _naming(labels, name, path).items()}))


def _dated(raster: xr.DataArray, stacked: Mapping[str, Mapping[int, str]], name: Mapping[str, str]) -> xr.Dataset:
    """The bands of many images along time."""
    instants = sorted((when(image), image) for image in stacked)
    series = {}
    for old, new in name.items():
        at = [next((k for k, band in stacked[image].items() if band == old), None) for _, image in instants]
        lacking = [image for (_, image), k in zip(instants, at) if k is None]
        if lacking:
            raise ValueError(f"{raster.attrs['source_files']}: {old!r} is missing in the image {lacking[0]!r}")
        bands = [_band(raster, int(k)) for k in at if k is not None]
        series[new] = xr.concat(bands, "time", coords="minimal", compat="override", combine_attrs="override")
        series[new].encoding = bands[0].encoding
    times = np.array([instant for instant, _ in instants], "M8[ns]")
    return snap(xr.Dataset(series).assign_coords(time=times))


def _band(raster: xr.DataArray, k: int) -> xr.DataArray:
    """One band, the file's scale and offset applied."""
    band = raster.isel(band=k)
    scale, offset = float(band["scale"]), float(band["offset"])
    unit = str(band["units"].values) if "units" in band.coords else ""
    band = band.drop_vars(["band", "scale", "offset", "units"], errors="ignore")
    band = band if (scale, offset) == (1, 0) else band * scale + offset
    band.attrs = {"units": unit} if unit else {}
    band.encoding = {"scale_factor": scale, "add_offset": offset}
    return band


def _utc_days(data: xr.Dataset, path: str | Path) -> xr.Dataset:
    """`time` as UTC days."""
    if "valid_time" in data.dims and "time" not in data.dims:
        data = data.drop_vars("time", errors="ignore").rename(valid_time="time")
    if "time" not in data.coords:
        return data
    if data["time"].dtype.kind != "M":
        raise ValueError(f"{path}: 'time' is no axis of dates (units {data['time'].attrs.get('units')!r})")
    instants = np.atleast_1d(data["time"].values)
    days = instants.astype("datetime64[D]").astype("M8[ns]")
    if np.unique(days).size < days.size:
        raise ValueError(
            f"{path}: 'time' has {days.size} instants on {np.unique(days).size} days, but a day is one field here: "
            "make days first, by mean or sum as the quantity asks: data.resample(time='1D').mean()"
        )
    attrs = {"long_name": "UTC day", "standard_name": "time"}
    dims = data["time"].dims
    if np.any(days != instants):
        data = data.assign_coords(acquired=(dims, data["time"].values.astype("M8[ns]")))
    return data.assign_coords(time=(dims, days if dims else days[0], attrs))


# ---- units


def _in_units(array: xr.DataArray, said: str | None, path: str | Path) -> xr.DataArray:
    """A field in its canonical unit; a predictor of the paper must have one that converts."""
    name = str(array.name)
    have = said or array.attrs.get("units")
    predictor = PAPER.get(name)
    wanted = predictor.units if predictor is not None else None
    way: Conversion | None = SAME
    unit = canonical(have) or have
    if wanted is not None:
        unit, way = wanted, conversion(have, wanted)
        if way is None:
            found = f"is in {have!r}, which does not convert to {wanted!r}" if have else "carries no units"
            raise ValueError(
                f"{path}: {name!r} {found}; known are {convertible_to(wanted)}: open it with units={{{name!r}: ...}}"
            )
    what = Words(f"{path}: {name!r}")
    fills = _fills(array, predictor, way or SAME, what) if predictor is not None and predictor.period is None else {}
    data = array.data.map_blocks(
        _convert, way, predictor, what, Words(have), tuple(fills), dtype="f4", meta=array.data._meta.astype("f4")
    )
    field = array.copy(data=data)
    field.attrs = {key: array.attrs[key] for key in ("long_name", "standard_name", "averaging") if key in array.attrs}
    field.attrs |= {"units": unit} if unit else {}
    field.attrs["rule"] = "as in the file" if way == SAME else f"{have} to {unit}"
    for fill, (count, seen) in fills.items():
        log.warning("%s holds %g, a fill that the file does not declare: taken as missing", what, fill)
        field.attrs["rule"] += f"; {fill:g}, an undeclared fill, is missing ({count} of {seen} values looked at)"
    return field


def _fills(array: xr.DataArray, predictor: Predictor, way: Conversion, what: str) -> dict[float, tuple[int, int]]:
    """Codes of missing values that the file does not declare, each with its number among the values looked at."""
    looks: dict[Any, list[Any]] = {
        dim: [0, n - 1] if n > 1 else [0] for dim, n in array.sizes.items() if dim not in ("y", "x")
    }
    for dim in ("y", "x"):
        free = max(0, array.sizes[dim] - SIDE)
        looks[dim] = [slice(at, at + SIDE) for at in sorted({0, free // 2, free})]
    places = [dict(zip(looks, place)) for place in product(*looks.values())]
    seen = np.concatenate([array.isel(place).data.compute(scheduler="sync").ravel() for place in places])
    values, counts = np.unique(seen[np.isfinite(seen)], return_counts=True)
    usual = np.asarray(way(values), "f8")
    odd = ~((usual >= predictor.min) & (usual <= predictor.max))
    codes = FILLS * array.encoding.get("scale_factor", 1) + array.encoding.get("add_offset", 0)
    odd[odd] = np.isclose(values[odd, None], codes, rtol=1e-6, atol=0).any(axis=1)
    found = {float(v): (int(n), seen.size) for v, n in zip(values[odd], counts[odd])}
    if found and odd.all():
        raise ValueError(
            f"{what} holds nothing but {', '.join(f'{fill:g}' for fill in found)} where it was looked at: a fill taken "
            "for a value. Declare it in the file (rio edit-info --nodata ..., the attribute _FillValue)"
        )
    return found


def _convert(
    values: NDArray[Any],
    way: Conversion,
    predictor: Predictor | None,
    what: str,
    units: Any,
    fills: tuple[float, ...] = (),
) -> NDArray[np.float32]:
    """Values in the canonical unit; refused where many of them are no such quantity."""
    if predictor is None:
        return np.asarray(way(values), "f4")
    if fills:
        values = np.where(np.isin(values, fills), np.nan, values)
    values = np.asarray(way(only_possible(values, what, predictor, way, units)), "f4")
    return values if not way.decibel else np.where(np.isfinite(values), values, np.float32(np.nan))
