"""Opens SMAP soil moisture, daily granules or point lists, on the EASE-Grid 2.0.

Two forms are read: the HDF5 granules of SPL3SMP (36 km) and SPL3SMP_E (9 km), and NetCDF lists of points, one row a
retrieval, as clients cut them out. In both, where a value lies follows from the grid's definition, never from
coordinate arrays that a granule carries: they hold -9999 wherever nothing was observed.

References
----------
O'Neill et al., SMAP L3 Radiometer Global Daily 36 km EASE-Grid Soil Moisture, doi:10.5067/OMHVSRGFX38O; Enhanced, 9 km,
doi:10.5067/4DQ54OUIJ9DL.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from smgrid.files import ContentError, chunk_of, fingerprint, netcdf, pending, several
from smgrid.grid import Grid
from smgrid.sources._smap import FILL, PRODUCTS, dataset, dates_of, volume_fraction
from smgrid.sources._smap_points import Points, lay_points

if TYPE_CHECKING:
    import netCDF4

log = logging.getLogger("smgrid")

ORBITS = {"AM": ("AM",), "PM": ("PM",), "both": ("AM", "PM")}
J2000 = np.datetime64("2000-01-01T12:00:00", "ns")
FLAG_FILL = 65534
_GROUP = "Soil_Moisture_Retrieval_Data"
_WAY = {
    "AM": "6 am, descending overpass",
    "PM": "6 pm, ascending overpass",
    "both": "mean of the 6 am and 6 pm overpasses of the UTC day",
}


def open(paths: Any, *, orbit: str = "AM") -> xr.Dataset:
    """Open SMAP level-3 soil moisture.

    Parameters
    ----------
    paths : path, pattern, or sequence of paths
        HDF5 granules of SPL3SMP or of SPL3SMP_E, one a UTC day; or NetCDF point lists (dim `index`; `latitude`,
        `longitude`, `soil_moisture`) with the day, or first and last day, in the file name (`2020-01-31`, `20200131`,
        `20200129_20200131`). One product and form a call.
    orbit : "AM", "PM" or "both"
        Which overpasses of a granule; "both" averages the two where both exist. Point lists do not tell overpasses
        apart, so there it must be left alone.

    Returns
    -------
    Dataset, dims (time, y, x)
        `smap`, m3 m-3, float32, on the 36- or 9-km EASE-Grid 2.0: the globe for granules, the window that holds all
        points for point lists. A granule's values count where the quality flag is not a fill and its bit 0 is 0
        ("recommended", whatever the other bits say). Coordinate `acquired` (granules) holds the instants of
        observation; `smap_count` (point lists) how many retrievals were averaged in a cell; `window_start`,
        `window_end` (point lists over several days) the days, of which `time` is the middle one. Lazy.

    Raises
    ------
    FileNotFoundError
        A path is not there.
    ValueError
        A file is damaged, no such product, of an unknown shape or day; a variable or group is missing; two granules
        share a day; points are not centres of grid cells. On computing: values are no volume fractions, rows are not
        in the grid's order.

    Notes
    -----
    The day is the UTC day: a 6 am overpass at 146 E is about 20 UTC of the day before. Values up to 1 count as soil
    moisture, although files say `valid_max` 0.5: retrievals are capped by porosity and real ones exceed it.

    Examples
    --------
    >>> from smgrid import sources
    >>> sources.smap.open("SMAP_L3_SM_P_E_201505*.h5")  # doctest: +SKIP
    """
    if orbit not in ORBITS:
        raise ValueError(f"orbit is one of {list(ORBITS)}, not {orbit!r}")
    listed = several(paths, "SMAP file")
    found = [_look(path) for path in listed]
    points = [isinstance(item, Points) for item in found]
    if any(points) and not all(points):
        raise ValueError(
            f"{listed[points.index(True)]} is a list of points, {listed[points.index(False)]} a granule: "
            "open them in two calls"
        )
    if all(points):
        if orbit != "AM":
            raise ValueError(
                f"{listed[0]} is a list of points, which does not tell overpasses apart: leave orbit alone"
            )
        return lay_points([item for item in found if isinstance(item, Points)])
    return _stack_granules([item for item in found if isinstance(item, _Granule)], orbit)


def _look(path: Path) -> _Granule | Points:
    """What a file is, from its structure alone."""
    with netcdf(path) as data:
        groups = [name for name in data.groups if name.startswith(_GROUP)]
        if groups:
            return _Granule.of(path, data)
        if not data.groups and (
            not set(data.variables) - {"index"} or {"latitude", "longitude"} <= set(data.variables)
        ):
            return Points.of(path, data)
        raise ValueError(
            f"{path} is no SMAP level-3 soil moisture: it holds the groups {list(data.groups)} and the variables "
            f"{list(data.variables)[:8]}, where a granule has the group {_GROUP + '_AM'!r} and a list of points "
            "'latitude', 'longitude' and 'soil_moisture'"
        )


# ---- granules


@dataclass(frozen=True)
class _Granule:
    """One daily HDF5 file."""

    path: Path
    day: np.datetime64
    version: str
    km: int
    groups: tuple[str, ...]
    block: tuple[int, int]  # rows and columns of its chunks

    @classmethod
    def of(cls, path: Path, data: netCDF4.Dataset) -> _Granule:
        groups = tuple(orbit for orbit in ("AM", "PM") if f"{_GROUP}_{orbit}" in data.groups)
        if not groups:
            raise ValueError(
                f"{path}: of soil moisture it holds only the groups {list(data.groups)}; wanted is {_GROUP}_AM or _PM. "
                f"A lone {_GROUP!r} is that of versions before 4 (2016): download the current version"
            )
        variable = _variable(path, data, groups[0], "soil_moisture")
        sizes: dict[tuple[int, ...], int] = {Grid.whole(km).shape: km for km in PRODUCTS}
        km = sizes.get(variable.shape)
        if km is None:
            raise ValueError(
                f"{path}: 'soil_moisture' has the shape {variable.shape}; SPL3SMP has {(406, 964)}, SPL3SMP_E "
                f"{(1624, 3856)}. Other grids (polar, 3 km, swaths) are not read"
            )
        stored = variable.chunking()
        about = _metadata(data)
        block = tuple(stored) if isinstance(stored, list) else (1, variable.shape[1])
        return cls(path, _day(path, data, groups[0], about), about["version"], km, groups, block)  # type: ignore[arg-type]


def _variable(path: Path, data: netCDF4.Dataset, orbit: str, name: str) -> netCDF4.Variable[Any]:
    """A variable of one orbit's group; PM names end in `_pm`."""
    group = data.groups[f"{_GROUP}_{orbit}"]
    name += "_pm" if orbit == "PM" else ""
    if name not in group.variables:
        raise ValueError(
            f"{path}: the group {group.name!r} holds no {name!r}; it has {sorted(group.variables)[:12]} ... "
            "The file is of another version, or was cut down without it"
        )
    return group.variables[name]


def _metadata(data: netCDF4.Dataset) -> dict[str, str]:
    """Version and first instant that a granule states in its metadata, empty where it does not."""
    told = {"version": "", "begins": ""}
    for key, group, name in (
        ("version", "SeriesIdentification", "ECSVersionID"),
        ("version", "DatasetIdentification", "ECSVersionID"),
        ("begins", "Extent", "rangeBeginningDateTime"),
    ):
        try:
            told[key] = told[key] or str(data["Metadata"][group].getncattr(name))
        except (IndexError, KeyError, AttributeError):
            continue
    return told


def _day(path: Path, data: netCDF4.Dataset, orbit: str, about: dict[str, str]) -> np.datetime64:
    """The UTC day: that of the file name, held against the metadata and the instants of one row."""
    named = dates_of(path)[:1]
    try:
        stated = [np.datetime64(about["begins"][:10], "D")] if re.match(r"\d{4}-\d\d-\d\d", about["begins"]) else []
    except ValueError as error:
        raise ValueError(f"{path}: the metadata give no date: {error}; the file is damaged") from error
    seen: list[np.datetime64] = []
    group, name = data.groups[f"{_GROUP}_{orbit}"], "tb_time_seconds" + ("_pm" if orbit == "PM" else "")
    if name in group.variables:
        times = group.variables[name]
        row = np.asarray(times[times.shape[0] // 2], "f8")
        row = row[np.isfinite(row) & (row > 0)]
        if row.size:
            seen = [_instants(np.median(row)[None])[0].astype("datetime64[D]")]
    days = named + stated + seen
    if not days:
        raise ValueError(
            f"{path}: neither the file name (SMAP_L3_SM_P_YYYYMMDD_...), nor the metadata, nor {name!r} tell the day"
        )
    if len(set(days)) > 1:
        sources = [s for s, d in (("name", named), ("metadata", stated), (f"{name!r}", seen)) if d]
        raise ValueError(
            f"{path}: the day is {', '.join(f'{d} by its {s}' for s, d in zip(sources, days))}: the file was renamed, "
            "or its contents are of another day"
        )
    return days[0]


def _instants(seconds: NDArray[Any]) -> NDArray[np.datetime64]:
    """Instants (UTC) of seconds since noon of 1 January 2000; fills and anything before the mission are NaT."""
    known = np.isfinite(seconds) & (seconds > 0)
    nanoseconds = np.where(known, seconds, 0) * 1e9
    return np.where(known, J2000 + nanoseconds.astype("i8").astype("m8[ns]"), np.datetime64("NaT", "ns"))


@dataclass(frozen=True)
class _Map:
    """Reads a window of one granule: soil moisture, or the instants of observation where there is some."""

    path: Path
    orbits: tuple[str, ...]
    instants: bool = False

    def __call__(self, key: tuple[slice, ...]) -> NDArray[Any]:
        with netcdf(self.path) as data:
            layers = [self._orbit(data, orbit, key[1:]) for orbit in self.orbits]
        known = [~np.isnan(layer) for layer in layers]
        count = np.sum(known, axis=0)
        total = np.sum([np.where(k, layer, 0.0) for k, layer in zip(known, layers)], axis=0)
        mean = np.where(count > 0, total / np.maximum(count, 1), np.nan)[None]
        return _instants(mean) if self.instants else mean

    def _orbit(self, data: netCDF4.Dataset, orbit: str, key: tuple[slice, ...]) -> NDArray[np.float64]:
        values = _variable(self.path, data, orbit, "soil_moisture")
        flags = _variable(self.path, data, orbit, "retrieval_qual_flag")
        self._check_rows(data, orbit, key)
        soil, flag = np.asarray(values[key], "f8"), np.asarray(flags[key])
        # a fill is tested before any bit: 65534 has bit 0 = 0 and would pass as recommended
        good = (flag != FLAG_FILL) & (flag != getattr(flags, "_FillValue", FLAG_FILL)) & (flag & 1 == 0)
        good &= np.isfinite(soil) & (soil != FILL) & (soil != getattr(values, "_FillValue", FILL))
        soil = volume_fraction(self.path, values.name, soil, getattr(values, "units", None), good)
        if self.instants:
            seconds = np.asarray(_variable(self.path, data, orbit, "tb_time_seconds")[key], "f8")
            return np.where(good & (seconds > 0), seconds, np.nan)
        return np.where(good, soil, np.nan)

    def _check_rows(self, data: netCDF4.Dataset, orbit: str, key: tuple[slice, ...]) -> None:
        """Rows and columns are those of the grid: a granule written anew by other software may be upside down."""
        group, suffix = data.groups[f"{_GROUP}_{orbit}"], "_pm" if orbit == "PM" else ""
        for axis, name in enumerate(("EASE_row_index", "EASE_column_index")):
            if name + suffix not in group.variables:
                continue
            index = np.asarray(group.variables[name + suffix][key], "i8")
            size = group.variables[name + suffix].shape[axis]
            here = np.expand_dims(np.arange(size)[key[axis]], 1 - axis)
            wrong = (index != here) & (index != FLAG_FILL) & (index >= 0) & (index < FLAG_FILL)
            if wrong.any():
                at = tuple(int(k[0]) for k in np.nonzero(wrong))
                raise ContentError(
                    f"{self.path}: {name + suffix!r} says {index[at]} where the array's place says "
                    f"{here.ravel()[at[axis]]}: the array is flipped or cut; use the granule as it was distributed"
                )


def _stack_granules(granules: list[_Granule], orbit: str) -> xr.Dataset:
    granules = sorted(granules, key=lambda g: g.day)
    for one, other in pairwise(granules):
        if one.day == other.day:
            raise ValueError(f"{one.path} and {other.path} are both of {one.day}: give one, the newer release")
    odd = next((g for g in granules if g.km != granules[0].km), None)
    if odd is not None:
        raise ValueError(f"{granules[0].path} is of {granules[0].km} km, {odd.path} of {odd.km} km: open them apart")
    for granule in granules:
        lacking = set(ORBITS[orbit]) - set(granule.groups)
        if lacking:
            raise ValueError(
                f"{granule.path}: the group {_GROUP}_{min(lacking)} is missing (it has {list(granule.groups)}), but "
                f"orbit={orbit!r} needs it"
            )
    versions = sorted({g.version for g in granules if g.version})
    if len(versions) > 1:
        log.warning("SMAP granules of versions %s are mixed: their algorithms differ", ", ".join(versions))
    grid = Grid.whole(granules[0].km)
    smap, acquired = (
        da.concatenate([_pending(granule, grid, orbit, instants) for granule in granules]) for instants in (False, True)
    )
    data = dataset(grid, [g.day for g in granules], smap)
    data = data.assign_coords(acquired=(("time", "y", "x"), acquired, {"long_name": "instant of observation, UTC"}))
    data["smap"].attrs |= {
        "product": PRODUCTS[granules[0].km],
        "version": ", ".join(versions),
        "source_files": ", ".join(g.path.name for g in granules),
        "rule": f"{_WAY[orbit]}; kept where retrieval_qual_flag is no fill and its bit 0 is 0 (recommended)",
    }
    return data


def _pending(granule: _Granule, grid: Grid, orbit: str, instants: bool) -> da.Array:
    name, dtype = ("tb_time_seconds", "M8[ns]") if instants else ("soil_moisture", "f4")
    chunks = (1, *chunk_of(grid.shape, granule.block))
    read, token = _Map(granule.path, ORBITS[orbit], instants), (fingerprint(granule.path), orbit, instants)
    return pending(read, (1, *grid.shape), dtype, chunks, f"{granule.path}: {name!r}", token=token)
