"""Turns readings of probes into daily means, and stations into 1-km cells."""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr

from smgrid.grid import Grid

PLACE = ["network", "station", "latitude", "longitude"]


def daily(readings: pd.DataFrame, *, min_readings: int = 12, utc_offset: float = 0.0) -> pd.DataFrame:
    """Daily means of stations: first of each sensor, then over the sensors of a station.

    Parameters
    ----------
    readings : DataFrame
        `time` (UTC), `soil_moisture` (m3 m-3), `network`, `station`, `latitude`, `longitude`, `sensor`.
    min_readings : int
        A sensor's day with fewer readings is left out; 12 is half of an hourly day.
    utc_offset : float
        Hours by which the day that is meant runs ahead of UTC: 0 is the UTC day, 10 the day of eastern Australia.

    Returns
    -------
    DataFrame
        The stations shape: `time` (the day), `network, station, latitude, longitude`, `soil_moisture`, and `sensors`,
        how many stand behind the mean. Sorted by network, station, time.

    Examples
    --------
    >>> hours = pd.date_range("2019-06-01", periods=36, freq="h")
    >>> place = dict(network="N", station="S", latitude=-35.0, longitude=146.0, sensor="A")
    >>> table = pd.DataFrame({"time": hours, "soil_moisture": 0.2, **place})
    >>> daily(table).soil_moisture.round(3).tolist()
    [0.2, 0.2]
    """
    known = readings.dropna(subset=["soil_moisture"])
    day = (known["time"] + pd.Timedelta(hours=utc_offset)).dt.floor("D")
    by_sensor = known.groupby([*PLACE, "sensor", day], sort=True, observed=True)["soil_moisture"]
    means = by_sensor.mean()[by_sensor.size() >= min_readings].reset_index()
    by_station = means.groupby([*PLACE, "time"], sort=True, observed=True)["soil_moisture"]
    out = by_station.agg(soil_moisture="mean", sensors="size").reset_index()
    return out[["time", *PLACE, "soil_moisture", "sensors"]]


def per_cell(stations: pd.DataFrame, *, km: float = 1) -> pd.DataFrame:
    """Mean over the stations that stand in one cell of the EASE-Grid 2.0, a row a cell and day.

    Parameters
    ----------
    stations : DataFrame
        The stations shape, daily.
    km : float
        Nominal cell side.

    Returns
    -------
    DataFrame
        `time, network, station, latitude, longitude, soil_moisture, row, col, stations`; `station` names all that were
        averaged, `latitude`/`longitude` are the centre of the cell, rows and columns are global.
    """
    row, col = Grid.whole(km).index(stations["longitude"], stations["latitude"])
    placed = stations.assign(row=row, col=col)[row >= 0]
    groups = placed.groupby(["row", "col", "time"], sort=True)
    out = groups.agg(
        soil_moisture=("soil_moisture", "mean"),
        network=("network", lambda names: "+".join(sorted(set(names)))),
        station=("station", lambda names: "+".join(sorted(set(names)))),
        stations=("station", "nunique"),
    ).reset_index()
    whole = Grid.whole(km)
    lon, lat = whole.lonlat()
    out["latitude"], out["longitude"] = lat[out["row"]], lon[out["col"]]
    return out[["time", *PLACE, "soil_moisture", "row", "col", "stations"]]


def inventory(stations: pd.DataFrame, *, km: float = 1) -> pd.DataFrame:
    """Networks with their cells, samples and period, like the paper's Table IV; the last row is their sum.

    Parameters
    ----------
    stations : DataFrame
        The stations shape, daily.
    """
    cells = per_cell(stations, km=km)
    table = (
        cells.assign(cell=cells["row"].astype(str) + "," + cells["col"].astype(str))
        .groupby("network")
        .agg(cells=("cell", "nunique"), samples=("soil_moisture", "size"), first=("time", "min"), last=("time", "max"))
        .reset_index()
    )
    total = {
        "network": "all",
        "cells": len(cells[["row", "col"]].drop_duplicates()),
        "samples": len(cells),
        "first": cells["time"].min(),
        "last": cells["time"].max(),
    }
    return pd.concat([table, pd.DataFrame([total])], ignore_index=True)


def on_grid(points: pd.DataFrame, grid: Grid) -> xr.Dataset:
    """Mean of the points in each cell of a grid, with their number and spread.

    Parameters
    ----------
    points : DataFrame
        `latitude, longitude, soil_moisture`, optional `time`: ground samples or airborne retrievals.
    grid : Grid

    Returns
    -------
    Dataset
        `soil_moisture` (m3 m-3), `count`, `sd` (m3 m-3), dims (y, x), or (time, y, x) with a day each where points have
        `time`; NaN and 0 where there is none.
    """
    rows, cols = grid.index(points["longitude"], points["latitude"])
    known = (rows >= 0) & np.isfinite(points["soil_moisture"].to_numpy("f8"))
    values = points["soil_moisture"].to_numpy("f8")[known]
    days, layer = np.array([0]), np.zeros(values.size, "i8")
    if "time" in points:
        days, layer = np.unique(points["time"].to_numpy("M8[D]")[known], return_inverse=True)
    shape = (days.size, *grid.shape)
    place = np.ravel_multi_index((layer, rows[known] - grid.row, cols[known] - grid.col), shape)
    size = int(np.prod(shape))
    count = np.bincount(place, minlength=size)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.bincount(place, values, size) / count
        spread = np.sqrt(np.bincount(place, (values - mean[place]) ** 2, size) / count)
    label = {"units": "m3 m-3"}
    out = xr.Dataset(
        {
            "soil_moisture": (("time", "y", "x"), mean.reshape(shape).astype("f4"), {**label, "long_name": "mean"}),
            "count": (("time", "y", "x"), count.reshape(shape).astype("i4"), {"units": "1"}),
            "sd": (
                ("time", "y", "x"),
                spread.reshape(shape).astype("f4"),
                {**label, "long_name": "spread in the cell"},
            ),
        },
        coords=grid.coords(),
    )
    return out.assign_coords(time=days.astype("M8[ns]")) if "time" in points else out.isel(time=0)
