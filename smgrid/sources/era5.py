"""Opens ERA5-Land and ERA5 and brings their hours to UTC days.

Rain is where files differ. In ERA5-Land `tp` runs up from 00 UTC: the value at 00:00 holds the total of the day before,
and hours may not be summed. In ERA5 each value holds the hour that ends there, and the 24 values from 01:00 to 00:00 of
the next day are summed. Which of the two a file holds is seen from the values themselves.

References
----------
Muñoz-Sabater et al. (2021), Earth Syst. Sci. Data 13, 4349-4383, doi:10.5194/essd-13-4349-2021; Hersbach et al. (2020),
Q. J. R. Meteorol. Soc. 146, 1999-2049, doi:10.1002/qj.3803.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from smgrid.files import CHUNK, Words, kind, lazily, open_dataset, several
from smgrid.sources._axes import north_up
from smgrid.units import conversion

log = logging.getLogger("smgrid")

DAY, HOUR = np.timedelta64(1, "D"), np.timedelta64(1, "h")
PRODUCTS = {"ERA5-Land": True, "ERA5": False}  # whether `tp` is accumulated since 00 UTC
_FIRST_CHOICE = ("tp", "mtpr", "avg_tprate")


@dataclass(frozen=True)
class _Quantity:
    """What becomes of a variable of the files."""

    name: str
    units: str
    low: float  # beyond these it is no such quantity on Earth, but a fill or another unit
    high: float
    long_name: str


_AIR = _Quantity("air_temperature", "degC", -100, 70, "air temperature at 2 m, mean of the UTC day")
_RAIN = _Quantity("precipitation", "m d-1", 0, 3, "precipitation, total of the UTC day")
_SOIL = _Quantity("swvl1", "m3 m-3", -0.01, 1, "soil water, 0-7 cm, mean of the UTC day")
_KNOWN = {"t2m": _AIR, "2t": _AIR, "VAR_2T": _AIR, "swvl1": _SOIL, **dict.fromkeys(_FIRST_CHOICE, _RAIN)}


def open(paths: Any, *, product: str | None = None, accumulated: bool | None = None, min_hours: int = 24) -> xr.Dataset:
    """Open ERA5-Land or ERA5 as daily fields.

    Parameters
    ----------
    paths : path, pattern, or sequence of paths
        NetCDF as the Climate Data Store gives it, old (`time`, mixed `expver`) or new (`valid_time`, `number`,
        `expver`), or GRIB (needs `pip install 'smgrid[grib]'`). Files may split time, or variables; hours that come
        twice count once, final before preliminary.
    product : "ERA5-Land" or "ERA5", optional
        By default what names, metadata, values and spacing tell.
    accumulated : bool, optional
        Whether `tp` is accumulated since 00 UTC, at your word; by default it is seen from a few days of the values,
        held against the product.
    min_hours : int
        Values a UTC day must have for a mean; a day with fewer is NaN. Rain always needs all 24.

    Returns
    -------
    Dataset, dims (time, y, x)
        Whichever are in the files, float32, lazy: `air_temperature` (from `t2m`), degC, mean of the UTC day;
        `precipitation` (from `tp`, else `mtpr` or `avg_tprate`), m d-1, total of the UTC day; `swvl1`, m3 m-3, mean
        of the UTC day. On latitudes and longitudes in EPSG:4326, -180..180; missing (sea) is NaN. Small negative rain
        from packing is set to 0; the coordinate `precipitation_clipped` counts such values by day.

    Raises
    ------
    FileNotFoundError
        A path is not there.
    ValueError
        A file is damaged or of another kind, holds none of the variables, has them without units or on other cells;
        whether rain is accumulated cannot be seen, or contradicts the product. On computing: values that are no such
        quantity.

    Examples
    --------
    >>> from smgrid import sources
    >>> sources.era5.open("era5_land_2015*.nc")  # doctest: +SKIP
    """
    if product is not None and product not in PRODUCTS:
        raise ValueError(f"product is one of {list(PRODUCTS)}, not {product!r}")
    if not 1 <= min_hours <= 24:
        raise ValueError(f"min_hours counts hours of a day, 1 to 24, not {min_hours!r}")
    listed = several(paths, "ERA5 file")
    pieces: dict[str, list[_Piece]] = {}
    for path in listed:
        for data in _parts(path):
            data = _tidy(data, path)
            for name in data.data_vars:
                if name in _KNOWN:
                    pieces.setdefault(str(name), []).append(_Piece(path, data[name], _expver(data)))
    if not pieces:
        raise ValueError(f"{listed[0]} (and {len(listed) - 1} more) holds none of the variables {list(_KNOWN)}")
    _same_cells([piece for some in pieces.values() for piece in some])
    for name in list(pieces):
        if _KNOWN[name] is _RAIN and any(other in pieces for other in _FIRST_CHOICE[: _FIRST_CHOICE.index(name)]):
            del pieces[name]
    series = {name: _join(some) for name, some in pieces.items()}
    label, sure = _product(product, series, pieces)
    days = {}
    for name, array in series.items():
        what = Words(_names(pieces[name]) + f": {name!r}")
        if name == "tp":
            runs_up = _decide(array, accumulated, label, sure, what)
            label = label if sure else next(p for p, runs in PRODUCTS.items() if runs == runs_up)
            daily = _last_of_day(array, what) if runs_up else _rain(array, what)
        elif _KNOWN[name] is _RAIN:
            daily = _rain(array, what)
        else:
            daily = _mean(array, _KNOWN[name], min_hours, what)
        days[name] = daily
    return _dataset(days, pieces, label)


# ---- the files


@dataclass(frozen=True)
class _Piece:
    """One variable of one file."""

    path: Path
    array: xr.DataArray
    expver: tuple[str, ...]


def _parts(path: Path) -> Iterator[xr.Dataset]:
    """The Datasets of a file: one, or several for GRIB."""
    if kind(path) != "a GRIB file":
        yield open_dataset(path)
        return
    try:
        import cfgrib  # type: ignore[import-not-found,import-untyped,unused-ignore]
    except (ImportError, RuntimeError) as error:  # cfgrib raises RuntimeError where it finds no ecCodes
        raise ImportError(f"{path} is GRIB, which needs cfgrib: pip install 'smgrid[grib]'") from error
    try:
        found = cfgrib.open_datasets(str(path), backend_kwargs={"indexpath": ""}, cache=False, decode_timedelta=False)
    except (OSError, EOFError, KeyError, ValueError, RuntimeError) as error:
        raise ValueError(f"{path} cannot be read as GRIB, it is damaged: {error}") from error
    if not found:
        raise ValueError(f"{path} holds no whole GRIB message: it is damaged")
    yield from (lazily(data, path) for data in found)


def _tidy(data: xr.Dataset, path: Path) -> xr.Dataset:
    """One time axis of valid instants, one expver, our axes; only what is known of the variables."""
    data = data[[name for name in data.data_vars if name in _KNOWN]]
    if not data.data_vars:
        return data
    if "step" in data.dims:  # GRIB: forecasts, of which every valid instant occurs once
        data = data.stack(hour=("time", "step"), create_index=False).drop_vars(["time", "step"])
        data = data.rename(hour="time")
    if "valid_time" in data.dims:
        data = data.isel(time=0, drop=True) if data.sizes.get("time") == 1 else data
        data = data.drop_vars("time", errors="ignore").rename(valid_time="time")
    elif "valid_time" in data.coords:  # GRIB: `time` is when the forecast began
        valid = data["valid_time"]
        data = data.drop_vars(["valid_time", "time"], errors="ignore")
        data = data.expand_dims("time") if "time" not in data.dims else data
        data = data.assign_coords(time=("time", np.atleast_1d(valid.values)))
    if "time" not in data.coords or data["time"].dtype.kind != "M":
        raise ValueError(
            f"{path}: {list(data.data_vars)} have no axis of instants 'valid_time' or 'time'; the coordinates are "
            f"{sorted(map(str, data.coords))}"
        )
    times = np.atleast_1d(data["time"].values)
    if np.isnat(times).any() or (kind(path) != "a GRIB file" and np.any(np.diff(times) < np.timedelta64(0))):
        raise ValueError(
            f"{path}: the instants {times.min()} to {times.max()} are not in order, or one is missing: damaged"
        )
    if "expver" in data.dims:
        data = _one_expver(data)
    data = north_up(data, path)
    for dim in set(data.dims) - {"time", "y", "x"}:
        if data.sizes[dim] > 1:
            raise ValueError(f"{path}: {list(data.data_vars)} have {data.sizes[dim]} {dim!r}: select one")
        data = data.isel({dim: 0})
    data = data.expand_dims("time") if "time" not in data.dims else data
    return data.transpose("time", "y", "x")


def _one_expver(data: xr.Dataset) -> xr.Dataset:
    """Final data (expver 1) where there are any, else preliminary (5): each is NaN in the other's time."""
    order = np.argsort([str(v) for v in np.atleast_1d(data["expver"].values)])
    versions = [data.isel(expver=int(k), drop=True) for k in order]
    whole = versions[0]
    for other in versions[1:]:
        whole = whole.where(whole.notnull(), other)
    for name in data.data_vars:
        whole[name].attrs = data[name].attrs
    label = ", ".join(str(data["expver"].values[k]) for k in order)
    return whole.assign_coords(expver=label)


def _expver(data: xr.Dataset) -> tuple[str, ...]:
    if "expver" not in data.coords:
        return ()
    return tuple(sorted({str(value) for value in np.unique(data["expver"].values)}))


def _same_cells(pieces: list[_Piece]) -> None:
    first = pieces[0]
    for piece in pieces:
        for axis in ("y", "x"):
            here, there = piece.array[axis].values, first.array[axis].values
            if here.shape != there.shape or not np.allclose(here, there, rtol=0, atol=1e-6):
                raise ValueError(
                    f"{piece.path} and {first.path} lie on other cells ({axis} of {here.size} from {here[0]:g} to "
                    f"{here[-1]:g}, {there.size} from {there[0]:g} to {there[-1]:g}): open them in two calls"
                )


def _join(pieces: list[_Piece]) -> xr.DataArray:
    """The pieces of one variable along time; of hours that come twice the final counts (expver), else the first."""
    pieces = sorted(pieces, key=lambda piece: (max(piece.expver, default=""), piece.array["time"].values.min()))
    units = {piece.array.attrs.get("units") for piece in pieces}
    if len(units) > 1:
        raise ValueError(f"{_names(pieces)}: {pieces[0].array.name!r} comes in the units {sorted(map(str, units))}")
    cells = {axis: pieces[0].array[axis].variable for axis in ("y", "x")}
    bare = [piece.array.reset_coords(drop=True).assign_coords(cells) for piece in pieces]
    whole = xr.concat(bare, "time", join="override", coords="minimal", compat="override", combine_attrs="override")
    times = whole["time"].values
    if not np.all(times[1:] > times[:-1]):
        _, first = np.unique(times, return_index=True)
        whole = whole.isel(time=first)
    whole.attrs = pieces[0].array.attrs
    return whole


def _names(pieces: list[_Piece]) -> str:
    more = f" (and {len(pieces) - 1} more)" if len(pieces) > 1 else ""
    return f"{pieces[0].path}{more}"


# ---- which product, which kind of rain


def _product(said: str | None, series: dict[str, xr.DataArray], pieces: dict[str, list[_Piece]]) -> tuple[str, bool]:
    """ERA5-Land or ERA5, and whether that is sure."""
    if said is not None:
        return said, True
    names = " ".join(piece.path.name.lower() for some in pieces.values() for piece in some)
    if any(mark in names for mark in ("era5-land", "era5_land", "era5land")):
        return "ERA5-Land", True
    kinds = {series[name].attrs.get("GRIB_dataType") for name in series if _KNOWN[name] is not _RAIN}
    if "an" in kinds:  # ERA5 gives analyses of these; ERA5-Land has none
        return "ERA5", False
    x = next(iter(series.values()))["x"].values
    fine = x.size > 1 and x[1] - x[0] < 0.15
    return ("ERA5-Land" if fine else "ERA5"), False


def _decide(array: xr.DataArray, said: bool | None, label: str, sure: bool, what: str) -> bool:
    """Whether `tp` is accumulated since 00 UTC."""
    seen = runs_up(array)
    if said is not None:
        if seen is not None and seen != said:
            way = "runs up through the day" if seen else "falls within the day, as hourly rain does"
            raise ValueError(
                f"{what} {way}, but accumulated={said} was said: leave accumulated out, or say accumulated={seen}"
            )
        return said
    if seen is None and not sure and _step(array) >= DAY:
        raise ValueError(
            f"{what} comes once a day, so it is either the day's total under its own date, or that of the day before, "
            "as ERA5-Land has it at 00:00: say accumulated=False or accumulated=True"
        )
    if seen is None:
        log.info("%s: too little rain to see whether it is accumulated; taken as %s has it", what, label)
        return PRODUCTS[label]
    if sure and seen != PRODUCTS[label]:
        way = "runs up through the day, as in ERA5-Land" if seen else "falls within the day, as hourly rain does"
        raise ValueError(f"{what} {way}, but the product is {label}: say accumulated={seen} if the values are right")
    return seen


def runs_up(array: xr.DataArray) -> bool | None:
    """Whether rain is accumulated through the UTC day, seen from at most ten of its days; None if too little fell.

    In cells where 0.5 mm or more was reached, accumulated values only rise from 01:00 to 00:00 of the next day, while
    hourly ones fall about as much as they rise.
    """
    day = _ending(array["time"].values)
    days, count = np.unique(day, return_counts=True)
    days = days[count >= 3]
    scale = (conversion(array.attrs.get("units"), "m") or (lambda v: v))(np.ones(1))[0]
    up = down = wet = 0.0
    for one in days[np.unique(np.linspace(0, days.size - 1, 10).astype(int))] if days.size else days:
        sample = array.data[np.flatnonzero(day == one)].compute(scheduler="sync") * scale
        sample[sample < -1e-3] = np.nan  # a fill taken for a value, which is refused where it is computed
        rain = sample[:, np.nanmax(np.where(np.isfinite(sample), sample, 0), axis=0) >= 5e-4]
        change = np.diff(rain, axis=0, prepend=np.zeros((1, rain.shape[1])))
        up += np.nansum(change[change > 0])
        down -= np.nansum(change[change < 0])
        wet += rain.shape[1]
        if wet >= 20 and not 0.02 < down / up < 0.2:
            break
    if not wet or 0.02 <= down / up <= 0.2:
        return None
    return bool(down / up < 0.02)


def _ending(times: NDArray[Any]) -> NDArray[np.datetime64]:
    """The UTC day of the hour that ends at an instant: midnight belongs to the day before."""
    return (times - np.timedelta64(1, "ns")).astype("datetime64[D]")


def _step(array: xr.DataArray) -> np.timedelta64:
    """The usual time between values."""
    steps, count = np.unique(np.diff(array["time"].values), return_counts=True)
    return steps[count.argmax()] if steps.size else HOUR


# ---- days


def _mean(array: xr.DataArray, quantity: _Quantity, min_hours: int, what: str) -> xr.DataArray:
    """Mean of the UTC day."""
    daily = _step(array) >= DAY
    need = 1 if daily else min_hours
    day = array["time"].values.astype("datetime64[D]")
    rule = "daily values as they are in the file" if daily else f"mean of the UTC day, of at least {need} values"
    return _finish(_by_day(array, day, "mean", need), quantity, rule, array, quantity.units, what)


def _rain(array: xr.DataArray, what: str) -> xr.DataArray:
    """Total of the UTC day from amounts, or mean rates, of the hours that end at their instants."""
    rate = array.name != "tp"
    step, times = _step(array), array["time"].values
    if HOUR < step < DAY:
        raise ValueError(
            f"{what} comes every {step / HOUR:g} hours, but each value holds one hour's rain: the rain between is not "
            "there; download all hours (or, if it is accumulated since 00 UTC, say accumulated=True)"
        )
    daily = step >= DAY
    day = times.astype("datetime64[D]") if daily else _ending(times)
    whole = "daily values as they are in the file" if daily else "24 values from 01:00 to 00:00 of the next day"
    rule = f"{'mean rate' if rate else 'sum'} of the UTC day: {whole}; negative values set to 0"
    total = _by_day(_dry(array, what), day, "mean" if rate else "sum", 1 if daily else 24)
    result = _finish(total, _RAIN, rule, array, "m d-1" if rate else "m", what)
    clipped = _by_day(array < 0, day, "sum", 0).sum(("y", "x"))
    return result.assign_coords(precipitation_clipped=clipped.astype("i8"))


def _last_of_day(array: xr.DataArray, what: str) -> xr.DataArray:
    """Total of the UTC day where amounts are accumulated from 00 UTC on: what stands at 00:00 of the next day."""
    times = array["time"].values
    midnight = times == times.astype("datetime64[D]")
    if not midnight.any():
        raise ValueError(f"{what} is accumulated since 00 UTC, but no value is of 00:00, where the day's total stands")
    days = np.unique(_ending(times))
    last = array.isel(time=np.flatnonzero(midnight))
    last = last.assign_coords(time=_ending(last["time"].values).astype("M8[ns]"))
    rule = "total of the UTC day: 'tp', accumulated since 00 UTC, at 00:00 of the next day; negative values set to 0"
    result = _finish(_dry(last, what), _RAIN, rule, array, "m", what)
    result = result.assign_coords(precipitation_clipped=(last < 0).sum(("y", "x")).astype("i8"))
    gap = days.astype("M8[ns]")
    return result if len(gap) == result.sizes["time"] else _on_days(result, gap)


def _on_days(array: xr.DataArray, days: NDArray[np.datetime64]) -> xr.DataArray:
    return array.reindex(time=days, fill_value={array.name: np.float32(np.nan), "precipitation_clipped": 0})


def _dry(array: xr.DataArray, what: str) -> xr.DataArray:
    """Negative rain set to 0 where it is packing's; more than that is an error."""
    rate = array.name != "tp"
    way = conversion(array.attrs.get("units"), "m d-1" if rate else "m")
    if way is None:
        raise ValueError(f"{what} is in {array.attrs.get('units')!r}, not in m, mm or kg m-2 s-1")
    least = -1e-3 / float(way(np.ones(1))[0])
    return array.copy(data=array.data.map_blocks(_clip, least, what, dtype=array.dtype, meta=array.data._meta))


def _clip(values: NDArray[Any], least: float, what: str) -> NDArray[Any]:
    with np.errstate(invalid="ignore"):
        if (values < least).any():
            raise ValueError(
                f"{what} holds {np.nanmin(values):g}: no rain, but differences, or a fill taken for a value"
            )
        return np.where(values < 0, np.zeros((), values.dtype), values)


def _by_day(array: xr.DataArray, day: NDArray[np.datetime64], how: str, need: int) -> xr.DataArray:
    """Mean or sum by day in float64; NaN where fewer than `need` values are there. Chunks in time hold whole days."""
    days, code = np.unique(day, return_inverse=True)
    hours = np.bincount(code)
    if hours.max() < need:
        log.warning("%r: no day has the %d values it needs, so all are missing", array.name, need)
    _, rows, cols = array.data.chunksize
    per = max(1, CHUNK * CHUNK // max(1, int(hours.max()) * rows * cols))
    starts = np.arange(0, days.size, per)
    chunks = tuple(int(part.sum()) for part in np.split(hours, starts[1:]))
    data = array.data.rechunk((chunks, rows, cols))
    codes = da.from_array(code[:, None, None], chunks=(chunks, 1, 1), name=False)
    lengths = tuple(int(n) for n in np.diff([*starts, days.size]))
    daily = da.map_blocks(
        _reduce, data, codes, how, need, dtype="f8", chunks=(lengths, *data.chunks[1:]), meta=np.empty((0, 0, 0))
    )
    return xr.DataArray(daily, {"time": days.astype("M8[ns]"), "y": array["y"], "x": array["x"]}, ("time", "y", "x"))


def _reduce(values: NDArray[Any], code: NDArray[Any], how: str, need: int) -> NDArray[np.float64]:
    starts = np.flatnonzero(np.diff(code.ravel(), prepend=-1))
    known = np.isfinite(values)
    count = np.add.reduceat(known, starts, axis=0, dtype="i8")
    total = np.add.reduceat(np.where(known, values, 0), starts, axis=0, dtype="f8")
    result = total / np.maximum(count, 1) if how == "mean" else total
    return np.where(count >= need, result, np.nan)


def _finish(
    daily: xr.DataArray, quantity: _Quantity, rule: str, source: xr.DataArray, stored: str, what: str
) -> xr.DataArray:
    """Days in the predictor's unit and float32, refused where they are no such quantity."""
    units = source.attrs.get("units")
    way = conversion(units, stored)
    if way is None:
        raise ValueError(
            f"{what} is in {units!r}, which does not convert to {stored!r}: the units in the file are wrong"
        )
    data = daily.data.map_blocks(_check, way, quantity, what, dtype="f4", meta=np.empty((0, 0, 0), "f4"))
    return daily.copy(data=data).rename(quantity.name).assign_attrs(rule=rule)


def _check(values: NDArray[Any], way: Any, quantity: _Quantity, what: str) -> NDArray[np.float32]:
    values = np.asarray(way(values), "f4")
    wrong = (values < quantity.low) | (values > quantity.high)
    if wrong.any():
        raise ValueError(
            f"{what} gives {values[wrong].flat[0]:g} {quantity.units} of {quantity.name}, where {quantity.low:g} to "
            f"{quantity.high:g} are possible: a fill taken for a value, or wrong units in the file"
        )
    return values


def _dataset(days: dict[str, xr.DataArray], pieces: dict[str, list[_Piece]], label: str) -> xr.Dataset:
    every = np.unique(np.concatenate([array["time"].values for array in days.values()]))
    result = xr.Dataset()
    for name, array in days.items():
        some, quantity = pieces[name], _KNOWN[name]
        array = array if array.sizes["time"] == every.size else _on_days(array, every)
        step = abs(float(array["x"][1] - array["x"][0])) if array.sizes["x"] > 1 else np.nan
        array.attrs = {
            "long_name": quantity.long_name,
            "units": quantity.units,
            "product": label,
            "version": ", ".join(sorted({f"expver {v}" for piece in some for v in piece.expver})),
            "native_resolution": f"{step:g} degree",
            "source_files": ", ".join(piece.path.name for piece in some),
            "rule": array.attrs["rule"],
        }
        array.encoding = {"grid_mapping": "spatial_ref"}
        result[quantity.name] = array
    first = next(iter(pieces.values()))[0].array
    return result.assign_coords(
        {axis: first[axis].variable for axis in ("y", "x", "spatial_ref")}
        | {"time": ("time", every, {"long_name": "UTC day", "standard_name": "time"})}
    )
