"""Opens maps from files, and brings maps and their reference onto the same cells and days before they are judged."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from smgrid import sources
from smgrid.files import open_dataset, raster_dataset, several
from smgrid.grid import Grid
from smgrid.shapes import as_field
from smgrid.units import SAME, conversion

SOIL_MOISTURE = "m3 m-3"
WETTEST = 1.05  # m3 m-3; no soil holds more water than its own volume, so a larger median is another unit
SAID = ("title", "source", "institution", "comment", "references", "product", "version", "history")
_RASTERS = (".tif", ".tiff", ".vrt", ".img", ".jp2")


# ---- files


def open_map(path: str | Path, *, variable: str | None = None, units: str | None = None) -> xr.DataArray:
    """Open one field of soil moisture from a file, lazily.

    Parameters
    ----------
    path : path, or pattern such as `"maps_*.tif"`
        A Zarr store, a NetCDF file, or a GeoTIFF; several files are laid along their dates. A GeoTIFF says its day in the
        tag `time`, which `write_geotiff` writes.
    variable : str, optional
        Which variable (of a raster: which band); by default `soil_moisture`, else the only one.
    units : str, optional
        Units at your word, for a file that does not say them.

    Returns
    -------
    DataArray, dims (..., y, x), m3 m-3
        float32, missing NaN; `source_files` and what the file says of itself in the attrs.

    Raises
    ------
    FileNotFoundError
        Nothing is there.
    ValueError
        The file is damaged or of another kind, holds several variables, or units that are no soil moisture.
    """
    parts = [_open_one(one, variable, units) for one in several(str(path), "map")]
    if len(parts) == 1:
        return parts[0]
    undated = [part.attrs["source_files"] for part in parts if "time" not in part.coords]
    if undated:
        raise ValueError(f"{path} stands for {len(parts)} files, but {undated} carry no date: give one file")
    parts = [part if "time" in part.dims else part.expand_dims("time") for part in parts]
    whole = xr.concat(parts, "time", join="exact", coords="minimal", compat="override", combine_attrs="override")
    files = ", ".join(str(part.attrs["source_files"]) for part in parts)
    return whole.sortby("time").assign_attrs(source_files=files)


def _open_one(path: Path, variable: str | None, units: str | None) -> xr.DataArray:
    data = sources.raster.open(path)
    name = _which(list(map(str, data.data_vars)), variable, path)
    field = data[name]
    said = _words_of(path, name)
    if "time" not in field.coords and "time" in said:
        field = field.assign_coords(time=np.datetime64(said["time"], "D").astype("M8[ns]"))
    field.attrs = {key: said[key] for key in SAID if key in said} | field.attrs
    found = units or field.attrs.get("units") or said.get("units")
    return as_soil_moisture(field.assign_attrs(units=found), str(path))


def _which(names: list[str], variable: str | None, path: Path) -> str:
    if variable is not None:
        if variable not in names:
            raise ValueError(f"{path} holds no {variable!r}; it has {names}")
        return variable
    if "soil_moisture" in names:
        return "soil_moisture"
    if len(names) > 1:
        raise ValueError(
            f"{path} holds {names} and no soil_moisture: say which one, --variable map={names[0]} (or reference=, coarse=)"
        )
    return names[0]


def _words_of(path: Path, variable: str) -> dict[str, str]:
    """What a file says of itself and of the variable."""
    if path.suffix.lower() in _RASTERS:
        with raster_dataset(str(path)) as src:
            tags = {**src.tags(), **src.tags(1)}
        tags |= {"title": tags["TIFFTAG_IMAGEDESCRIPTION"]} if "TIFFTAG_IMAGEDESCRIPTION" in tags else {}
        return {str(key): str(value) for key, value in tags.items()}
    data = open_dataset(path)
    inner = data[variable].attrs if variable in data else {}
    return {str(key): str(value) for key, value in {**data.attrs, **inner}.items()}


def as_soil_moisture(field: xr.DataArray, what: str) -> xr.DataArray:
    """The field in m3 m-3; units that are unknown, or that cannot be true, are refused."""
    units = field.attrs.get("units")
    if not units:
        raise ValueError(
            f"{what} does not say its units: give them (--units map=% or reference=%, or 'map={SOIL_MOISTURE}'), or "
            "write them into the file, field.attrs['units'] = ..."
        )
    change = conversion(units, SOIL_MOISTURE)
    if change is None or change.decibel:
        raise ValueError(
            f"{what} is in {units!r}, which is no volumetric soil moisture: {SOIL_MOISTURE}, cm3 cm-3, % or 1 are"
        )
    if change != SAME:
        field = (field * np.float32(change.scale)).assign_attrs(field.attrs)
    return field.assign_attrs(units=SOIL_MOISTURE)


# ---- the same cells, the same days


def meet(fields: Mapping[str, Any], reference: Any) -> tuple[dict[str, xr.DataArray], xr.DataArray, list[str]]:
    """Bring maps and a reference onto the cells and days that all of them have.

    Parameters
    ----------
    fields : mapping of name to DataArray or maps, dims (time, y, x) or (y, x)
    reference : DataArray or maps, dims (time, y, x) or (y, x)

    Returns
    -------
    fields, reference
        DataArrays on one window; with `time` where any has one.
    notes : list of str
        What was left out, in words.

    Raises
    ------
    ValueError
        Another grid, no common cell, no common day, one that has no date beside one with several, other units,
        values that cannot be m3 m-3, more dims than time, y and x.
    """
    if not fields:
        raise ValueError("there is nothing to judge: no map was given")
    every: dict[str, xr.DataArray] = {str(name): as_field(field) for name, field in fields.items()}
    if len(every) < len(fields):
        raise ValueError(f"two maps have the same name: {sorted(map(str, fields))}")
    if "reference" in every:
        raise ValueError("a map cannot be named 'reference': that is what it is judged by")
    every["reference"] = as_field(reference)
    notes: list[str] = []
    for name, field in every.items():
        more = [dim for dim in field.dims if dim not in ("time", "y", "x")]
        if more:
            raise ValueError(f"{_the(name)} has the dims {more} beside time, y and x: .isel({more[0]}=0) takes one")
    every = _same_units(every)
    every = _same_window(every, notes)
    every = _same_days(every, notes)
    for name, field in every.items():
        _check_values(field, name)
    return {name: field for name, field in every.items() if name != "reference"}, every["reference"], notes


def _the(name: Hashable) -> str:
    return "the reference" if name == "reference" else f"the map {name!r}"


def _same_units(every: dict[str, xr.DataArray]) -> dict[str, xr.DataArray]:
    out = {}
    for name, field in every.items():
        units = field.attrs.get("units")
        if not units:
            raise ValueError(
                f"{_the(name)} does not say its units: field.attrs['units'] = {SOIL_MOISTURE!r}, or '%', whichever is true"
            )
        out[name] = as_soil_moisture(field, _the(name))
    return out


def _same_window(every: dict[str, xr.DataArray], notes: list[str]) -> dict[str, xr.DataArray]:
    grids: dict[str, Grid] = {}
    for name, field in every.items():
        try:
            grids[name] = Grid.of(field)
        except ValueError as error:
            raise ValueError(f"{_the(name)}: {error}") from error
    reference = grids["reference"]
    for name, grid in grids.items():
        if grid.km != reference.km:
            raise ValueError(
                f"{_the(name)} has cells of {grid.km:g} km, the reference of {reference.km:g} km: carry one to the "
                "other's cells first, smgrid.to_grid(field, grid)"
            )
    shared = reference
    for name, grid in grids.items():
        top, left = max(shared.row, grid.row), max(shared.col, grid.col)
        bottom, right = min(shared.row + shared.ny, grid.row + grid.ny), min(shared.col + shared.nx, grid.col + grid.nx)
        if bottom <= top or right <= left:
            raise ValueError(
                f"{_the(name)} and the reference have no cell in common: it lies at {_degrees(grid)}, the reference at "
                f"{_degrees(reference)}"
            )
        shared = Grid(shared.km, top, left, bottom - top, right - left)
    if len(set(grids.values())) > 1:
        notes.append(f"Judged on the {shared.ny} x {shared.nx} cells that all have; what lies beyond is left out.")
    out = {}
    for name, field in every.items():
        top, left = shared.row - grids[name].row, shared.col - grids[name].col
        out[name] = field.isel(y=slice(top, top + shared.ny), x=slice(left, left + shared.nx)).assign_coords(
            shared.coords()
        )
    return out


def _degrees(grid: Grid) -> str:
    lon, lat = grid.lonlat()
    return f"{lon[0]:.2f} to {lon[-1]:.2f} degrees east, {lat[-1]:.2f} to {lat[0]:.2f} north"


def _same_days(every: dict[str, xr.DataArray], notes: list[str]) -> dict[str, xr.DataArray]:
    dated: dict[str, xr.DataArray] = {}
    for name, field in every.items():
        if "time" in field.coords:
            field = field if "time" in field.dims else field.expand_dims("time")
            days = field["time"].values.astype("M8[D]")
            if np.unique(days).size < days.size:
                raise ValueError(f"{_the(name)} has several maps of one day: select one, or average them")
            dated[name] = field.assign_coords(time=days.astype("M8[ns]"))
        elif "time" in field.dims:
            raise ValueError(f"the time of {_the(name)} has no dates: field.assign_coords(time=...)")
    if not dated:
        return every
    shared = sorted(set.intersection(*(set(field["time"].values) for field in dated.values())))
    if not shared:
        had = "; ".join(f"{_the(name)} has {_listed(field['time'].values)}" for name, field in dated.items())
        raise ValueError(f"there is no day in common: {had}")
    undated = [name for name in every if name not in dated]
    if undated and len(shared) > 1:
        raise ValueError(
            f"{_the(undated[0])} has no date, so which of {_listed(np.array(shared))} it is cannot be known: give it "
            "one, field.assign_coords(time=...), or choose one day with --dates"
        )
    most = max(field.sizes["time"] for field in dated.values())
    if len(shared) < most:
        notes.append(f"Judged on the {len(shared)} days that all have, {_listed(np.array(shared))}.")
    if undated:
        notes.append(
            f"{', '.join(map(_the, undated))}: without a date, taken as of {str(shared[0])[:10]}.".capitalize()
        )
    return {
        name: dated[name].sel(time=shared) if name in dated else field.expand_dims(time=shared)
        for name, field in every.items()
    }


def _listed(days: Any) -> str:
    said = [str(day)[:10] for day in days]
    return ", ".join(said if len(said) < 7 else [*said[:3], "...", *said[-3:]])


def _check_values(field: xr.DataArray, name: str) -> None:
    """Refuse percent that calls itself m3 m-3: the median of up to 10,000 cells tells."""
    step = max(1, int(np.sqrt(field.sizes["y"] * field.sizes["x"] / 10_000)))
    some = field.isel(y=slice(None, None, step), x=slice(None, None, step))
    some = some.isel(time=0) if "time" in some.dims else some
    values = np.asarray(some.values, "f8")
    values = values[np.isfinite(values)]
    if values.size and np.median(values) > WETTEST:
        raise ValueError(
            f"{_the(name)} has a median of {np.median(values):.3g} {SOIL_MOISTURE}, more water than volume: likely "
            "percent that calls itself otherwise: field.attrs['units'] = '%' (--units map=% or reference=%)"
        )
