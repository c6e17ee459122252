"""Meets stations with a cube or with maps: the training table, series at points."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from smgrid.grid import Grid
from smgrid.shapes import as_cube

log = logging.getLogger("smgrid")


def draw_samples(source: xr.Dataset | xr.DataArray, stations: pd.DataFrame | xr.Dataset) -> xr.Dataset:
    """Values of a cube or of maps in the cells, and on the days, of stations.

    Parameters
    ----------
    source : Dataset or DataArray
        A cube of predictors, or maps (with `soil_moisture`), on the EASE-Grid 2.0; dims (time, y, x) or (y, x).
    stations : DataFrame or Dataset
        `latitude`, `longitude` (degrees); with `time` each row meets its own UTC day, without it every place gives its
        whole series. Further columns (`network`, `station`, `soil_moisture`, ...) ride along.

    Returns
    -------
    Dataset
        Samples, dim `sample` (or dims `time`, `sample` for whole series): the variables of the source, `row`, `col`
        (global), `latitude`, `longitude` of the cell's centre (what a model is given in mapping), and the stations'
        columns. From maps the map's value is `prediction` beside the station's `soil_moisture`. Rows are left out, and
        counted in the log, outside the window, on days that the source lacks, and where Sentinel-1 saw nothing (`vv`
        missing; for maps: no prediction).

    Raises
    ------
    ValueError
        No latitude or longitude, a source without the dims, or not one station meets the source.
    """
    cube = as_cube(source) if not (isinstance(source, xr.DataArray) and "band" not in source.dims) else _named(source)
    table = _table(stations)
    if "time" in table.columns and "time" in cube.coords and not cube["time"].ndim:
        cube = cube.expand_dims("time")  # a map of one day meets that day alone
    grid = Grid.of(cube)
    row, col = grid.index(table["longitude"], table["latitude"])
    table = table.assign(row=row, col=col)
    inside = row >= 0
    dated = "time" in table.columns and "time" in cube.dims
    when = _days_met(cube, table) if dated else np.zeros(len(table), "i8")
    met = table[inside & (when >= 0)]
    if met.empty:
        raise ValueError(_why_none(cube, table, inside))
    place: dict[str, Any] = {
        "y": xr.DataArray(met["row"].to_numpy() - grid.row, dims="sample"),
        "x": xr.DataArray(met["col"].to_numpy() - grid.col, dims="sample"),
    }
    if dated:
        place["time"] = xr.DataArray(when[inside & (when >= 0)], dims="sample")
    fields = [name for name, field in cube.data_vars.items() if {"y", "x"} <= set(field.dims)]
    drawn = (
        cube[fields].drop_vars(["spatial_ref", "y", "x"], errors="ignore").isel(place, missing_dims="ignore").compute()
    )
    drawn = drawn.reset_coords(drop=False) if dated else drawn
    if "soil_moisture" in drawn:
        drawn = drawn.rename(soil_moisture="prediction")
    samples = _beside(drawn, met, grid, dated)
    seen = samples[next(name for name in ("vv", "prediction", fields[0]) if name in samples)].notnull()
    seen = seen if seen.dims == ("sample",) else seen.any([d for d in seen.dims if d != "sample"])
    lost = {"outside the window": ~inside, "on other days": inside & (when < 0), "unseen": ~seen.values}
    counts = ", ".join(f"{int(rows.sum())} {why}" for why, rows in lost.items())
    log.info("draw_samples: %d of %d rows; %s", int(seen.sum()), len(table), counts)
    return samples.isel(sample=np.flatnonzero(seen.values))


def _named(field: xr.DataArray) -> xr.Dataset:
    return field.to_dataset(name=field.name or "value")


def _table(stations: pd.DataFrame | xr.Dataset) -> pd.DataFrame:
    table = stations.to_dataframe() if isinstance(stations, xr.Dataset) else stations
    table = table.reset_index(drop=True)
    lacking = [name for name in ("latitude", "longitude") if name not in table.columns]
    if lacking:
        raise ValueError(f"the stations lack {lacking}; they have {list(map(str, table.columns))}")
    try:
        table = table.assign(**{name: table[name].astype("f8") for name in ("latitude", "longitude")})
    except (ValueError, TypeError) as error:
        raise ValueError(f"latitude and longitude of the stations are degrees, numbers: {error}") from error
    return table.assign(time=_dates(table["time"])) if "time" in table.columns else table


def _dates(column: pd.Series) -> pd.Series:
    """Instants in UTC; numbers such as 20150505 are refused, since they would be counted from 1970."""
    try:
        if column.dtype.kind in "iufb":
            raise ValueError(f"{column.dtype} is not dates")
        return pd.to_datetime(column, utc=True, format=None if column.dtype.kind == "M" else "ISO8601").dt.tz_localize(
            None
        )
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"the stations' time cannot be read: {str(error).splitlines()[0]}. Write 2015-05-05, or mend it: "
            "stations['time'] = pd.to_datetime(stations['time'], format=...), such as '%Y%m%d'"
        ) from error


def _days_met(cube: xr.Dataset, table: pd.DataFrame) -> np.ndarray:
    """Index of each row's UTC day among the cube's; -1 where the cube lacks it."""
    if cube["time"].dtype.kind != "M":
        raise ValueError(
            f"the 'time' of the source is {cube['time'].dtype}, not dates: source = xarray.decode_cf(source)"
        )
    days = cube["time"].values.astype("M8[D]")
    order = np.argsort(days, kind="stable")
    wanted = table["time"].to_numpy("M8[D]")
    at = np.clip(np.searchsorted(days[order], wanted), 0, days.size - 1)
    found = order[at]
    return np.where(days[found] == wanted, found, -1)


def _why_none(cube: xr.Dataset, table: pd.DataFrame, inside: np.ndarray) -> str:
    if not inside.any():
        grid = Grid.of(cube)
        lon, lat = grid.lonlat()
        return (
            f"none of the {len(table)} stations lies in the window {lon[0]:.2f}..{lon[-1]:.2f} E, "
            f"{lat[-1]:.2f}..{lat[0]:.2f} N; they lie at {table.longitude.min():.2f}..{table.longitude.max():.2f} E, "
            f"{table.latitude.min():.2f}..{table.latitude.max():.2f} N"
        )
    days, there = cube["time"].values.astype("M8[D]"), table.time[inside].dropna()
    if there.empty:
        return f"none of the {int(inside.sum())} stations in the window has a date (all are NaT)"
    return (
        f"no day is shared: the source has {days[0]} to {days[-1]}, the stations in its window "
        f"{there.min():%Y-%m-%d} to {there.max():%Y-%m-%d} (UTC days)"
    )


def _beside(drawn: xr.Dataset, met: pd.DataFrame, grid: Grid, dated: bool) -> xr.Dataset:
    """The stations' columns beside what was drawn."""
    lon, lat = grid.lonlat()
    columns = {
        name: met[name].to_numpy() for name in met.columns if name not in drawn.variables or (name == "time" and dated)
    }
    columns["latitude"] = lat[met["row"].to_numpy() - grid.row]
    columns["longitude"] = lon[met["col"].to_numpy() - grid.col]
    out = drawn.drop_vars([name for name in columns if name in drawn.variables])
    out = out.assign({name: ("sample", _plain(values)) for name, values in columns.items()})
    units = {"soil_moisture": "m3 m-3", "latitude": "degree_north", "longitude": "degree_east"}
    for name, unit in units.items():
        if name in out:
            out[name].attrs["units"] = unit
    return out


def _plain(values: np.ndarray) -> np.ndarray:
    return values.astype(str) if values.dtype.kind == "O" else values
