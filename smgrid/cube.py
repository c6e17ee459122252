"""Puts all predictors on one grid and one calendar.

Each source is carried first to the days, on its own pixels, and then to the grid. How is data: the table of
`smgrid.rules` says it for the predictors of the paper, and every rule can be changed for one cube. What was done stands
in each variable's attrs and, together, in the cube's `provenance`.
"""

from __future__ import annotations

import inspect
import json
import logging
import re
from collections.abc import Hashable, Mapping, Sequence
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from smgrid import __version__, coarse, temporal
from smgrid import sources as rooms
from smgrid.features import COMPUTED, PAPER, Predictor, match_units, only_possible, suggest
from smgrid.files import Words
from smgrid.grid import Grid
from smgrid.mesh import Mesh
from smgrid.overlap import OutsideError
from smgrid.regrid import MIN_COVERAGE, Series, carry, locate_pixels, pixels_under, to_grid
from smgrid.rules import RULES, Rule
from smgrid.series import BLOCK
from smgrid.shapes import undecoded
from smgrid.units import SAME, Conversion

log = logging.getLogger("smgrid")

CELLS, DAYS = 512, 1  # of a chunk
_LONGEST = 12  # days or names in a message
_ASPECT = {"aspect_sin", "aspect_cos"}
_NEVER_NEGATIVE = ("smap", "precipitation")
COMPANIONS = {"composite_day": "ndvi"}  # what product rooms give beside a predictor: the days its pixels were seen
_ROOMS = {
    "smap": ("smap",),
    "era5": ("air_temperature", "precipitation"),
    "modis": ("ndvi",),
    "soilgrids": ("sand", "clay", "bulk_density"),
    "dem": ("elevation", "slope", "aspect_sin", "aspect_cos"),
    "sentinel1": ("vv", "vh", "incidence_angle"),
    "sentinel2": ("b2", "b3", "b4", "b8", "b11", "b12"),
}


def build_cube(
    sources: Mapping[Any, Any], grid: Grid, days: Any = None, *, chunks: Mapping[str, int] | None = None
) -> xr.Dataset:
    """Put all predictors on one grid and one calendar, lazily.

    Parameters
    ----------
    sources : mapping
        Predictor name to a DataArray on any grid with a CRS, dims (time, y, x) or (y, x), or to a path, pattern or list
        of paths, which the predictor's product room opens. Datasets of product rooms are spread in:
        `{**sources.smap.open("smap/*.h5"), "elevation": dem}`. A pair `(source, rule)` carries that predictor by
        another `Rule` than that of `RULES`, and is how a predictor of your own comes in.
    grid : Grid
        The window.
    days : dates, optional
        UTC days of the cube, in any order; by default those of `vv`.
    chunks : mapping, optional
        Cells and days of a chunk by dimension; 512 x 512 cells and 4 days by default. What is in the works at a time
        grows with it.

    Returns
    -------
    Dataset, dims (time, y, x) where a predictor changes and (y, x) where not, float32, canonical units
        Lazy. Whatever the order of `sources`, variables are in the order of `PAPER`. Coordinates along `time` of `vv`
        (`acquired`, orbits) come along. Each variable's attrs say what was done to it (`rule`, `source_files`, ...),
        the cube's `provenance` (JSON) to all. A predictor for which no source has a time is static.

    Raises
    ------
    ValueError
        Unknown predictors, no CRS, no units or others, a source that does not touch the window, days that are not
        there: all faults in one message, a line each. Values that are mostly impossible in the units they claim, at
        once for arrays in memory, else on computing.

    Notes
    -----
    The order matters where values are missing: first time, on the source's pixels, then the mean over the pixels of a
    cell. Units convert last, so that backscatter in linear power is averaged as power and comes out in dB.

    References
    ----------
    Zhu et al. (2025), IEEE Trans. Geosci. Remote Sens. 63, doi:10.1109/TGRS.2025.3533927, section II

    Examples
    --------
    >>> grid = Grid(1, 11466, 31401, 20, 30)
    >>> wide = grid.coarsen(9)
    >>> time = np.array(["2015-05-03", "2015-05-05", "2015-05-07"], "M8[ns]")
    >>> smap = xr.DataArray(
    ...     np.full((3, *wide.shape), [[[0.1]], [[0.2]], [[0.3]]]), {**wide.coords(), "time": time}, ("time", "y", "x"),
    ...     attrs={"units": "m3 m-3"},
    ... )
    >>> cube = build_cube({"smap": smap}, grid, days=["2015-05-04"])
    >>> cube.sizes, round(float(cube.smap.mean()), 3), cube.smap.spreading
    (Frozen({'time': 1, 'y': 20, 'x': 30}), 0.15, 'blocks')
    """
    grid = Grid.of(grid)
    faults: list[str] = []
    given = _opened(sources, faults)
    calendar = _calendar(given, days, faults)
    size = {"time": DAYS, "y": CELLS, "x": CELLS}
    for dim, many in dict(chunks or {}).items():
        if dim not in size or (many < 1 and many != -1):
            faults.append(f"chunks: {dim}={many!r}; they are of {[*size]}, 1 or more, or -1 for all")
    size |= {} if faults else dict(chunks or {})
    carried: dict[str, xr.DataArray] = {}
    for name in sorted(given, key=_place):
        if name in COMPANIONS or calendar is None:
            continue
        source, rule = given[name]
        if name in _ASPECT and "slope" in given:
            rule = Rule(rule.timing, rule.spreading, {"min_coverage": 0.0, **rule.options})
        beside = [given[extra][0] for extra, main in COMPANIONS.items() if main == name and extra in given]
        try:
            carried[name] = _carry(name, source, rule, grid, calendar, size, *beside)
        except (ValueError, TypeError) as error:
            faults.append(f"{name}: {_in_its_name(name, str(error))}")
    for name in _ASPECT & set(carried):
        if "slope" in carried and carried["slope"].dims == carried[name].dims:
            _point_nowhere(carried[name], carried["slope"])
    if faults or calendar is None:
        raise ValueError("\n- ".join(["the cube cannot be built:", *faults]))
    return _assemble(carried, grid, calendar, size)


def _in_its_name(name: str, message: str) -> str:
    return re.sub(r"\bobj\b", f"sources[{name!r}]", message)


# ---- the sources


def _opened(given: Mapping[Any, Any], faults: list[str]) -> dict[str, tuple[xr.DataArray, Rule]]:
    """Each source as a DataArray with its rule; files opened, once where several predictors lie in the same."""
    if not isinstance(given, Mapping):
        raise TypeError(f"sources map predictor names to DataArrays or paths, not {type(given).__name__}")
    if not given:
        raise ValueError("there are no sources: give at least one, such as {'smap': 'smap/*.h5'}")
    out, files = {}, dict[Any, Any]()
    for name, source in given.items():
        rule = RULES.get(name)
        if isinstance(source, tuple) and len(source) == 2 and isinstance(source[1], Rule):
            source, rule = source
        if name in COMPUTED:
            faults.append(f"{name}: follows from the coordinates, so models compute it themselves: leave it out")
        elif rule is None and name not in COMPANIONS:
            near = suggest(str(name), list(RULES)) or next((n for n in RULES if suggest(n, [str(name)])), None)
            hint = f"; is it {near!r}? rename it" if near else ""
            faults.append(
                f"{name}: no predictor of the paper has that name{hint}. One of your own comes with a rule: "
                f"{{{str(name)!r}: (source, smgrid.cube.Rule('same day'))}}"
            )
        else:
            try:
                out[str(name)] = (_array(str(name), source, files), rule or Rule("static"))
            except (ValueError, TypeError, OSError, ImportError) as error:
                faults.append(f"{name}: {error}")
    faults += [
        f"{extra}: comes without {main!r}, whose days it tells"
        for extra, main in COMPANIONS.items()
        if extra in out and main not in out
    ]
    return out


def _array(name: str, source: Any, files: dict[Any, Any]) -> xr.DataArray:
    if isinstance(source, (str, PathLike, list, tuple)):
        listed = [source] if isinstance(source, (str, PathLike)) else source
        room = room_of(name, listed)
        key = (room, *map(str, listed))
        if key not in files:
            files[key] = getattr(rooms, room).open(source)
        source = files[key]
    if isinstance(source, xr.Dataset):
        if name not in source:
            raise ValueError(f"there is no {name!r} in it, only {sorted(map(str, source.data_vars))}")
        source = source[name]
    if not isinstance(source, xr.DataArray):
        raise TypeError(f"a source is a DataArray, or a path or paths, not {type(source).__name__}")
    return source


def room_of(name: str, paths: Sequence[Any]) -> str:
    """The product room that opens a predictor's files: that of the predictor, or the generic one."""
    suffixes = {Path(fspath(path)).suffix.lower() for path in paths}
    room = next((room for room, names in _ROOMS.items() if name in names), "raster")
    if suffixes <= {".nc", ".nc4", ".zarr"} and room not in ("smap", "era5"):
        return "raster"
    return room


def _place(name: str) -> tuple[int, str]:
    """Where a predictor stands in the cube: as in `PAPER`, own ones after, by name."""
    return (list(PAPER).index(name) if name in PAPER else len(PAPER), name)


# ---- the days


def _calendar(
    given: Mapping[str, tuple[xr.DataArray, Rule]], days: Any, faults: list[str]
) -> NDArray[np.datetime64] | None:
    """The UTC days of the cube in order; empty for one without time, None where they cannot be known."""
    try:
        if days is not None:
            return np.sort(_as_days(days))
        if "vv" in given and "time" in given["vv"][0].coords:
            return np.sort(_as_days(np.unique(np.atleast_1d(given["vv"][0]["time"].values).astype("M8[D]"))))
    except (ValueError, TypeError) as error:
        faults.append(f"days: {error}")
        return None
    if any("time" in source.dims for source, _ in given.values()):
        faults.append("days: there is no 'vv' with a time, whose days would be taken: give days=['2015-05-05', ...]")
        return None
    return np.empty(0, "M8[ns]")


def _as_days(days: Any) -> NDArray[np.datetime64]:
    import pandas as pd

    values = getattr(days, "values", days)
    if np.size(values) and np.asarray(values).dtype.kind in "iufb":
        raise TypeError("days are dates, such as '2015-05-05', not numbers")
    index = pd.DatetimeIndex(np.atleast_1d(values)).as_unit("ns").normalize()
    if not len(index):
        raise ValueError("there are none; leave days out to take those of 'vv'")
    if index.hasnans or index.tz is not None:
        raise ValueError("they are UTC dates without a zone, and none is missing (NaT)")
    if index.has_duplicates:
        raise ValueError(f"{_dates(index[index.duplicated()].to_numpy())} come more than once")
    return index.to_numpy()


def _dates(days: NDArray[Any] | list[Any]) -> str:
    shown = [str(day) for day in np.asarray(days, "M8[D]")]
    left = len(shown) - _LONGEST
    return ", ".join([*shown[:_LONGEST], f"and {left} more"] if left > 0 else shown)


def _on_the_day(series: xr.DataArray, days: NDArray[np.datetime64]) -> xr.DataArray:
    """The very days: nothing is made up between passes."""
    there = np.atleast_1d(series["time"].values).astype("M8[D]")
    twice = np.unique(there[[(there == day).sum() > 1 for day in there]])
    if twice.size:
        raise ValueError(
            f"there is more than one scene on {_dates(twice)}: choose by orbit, or lay them beside each other"
        )
    missing = [day for day in days if day.astype("M8[D]") not in there]
    if missing:
        raise ValueError(f"there is nothing on {_dates(missing)}; it has {_dates(there)}. Give days= that are there")
    order = [int(np.flatnonzero(there == day.astype("M8[D]"))[0]) for day in days]
    out = series.isel(time=order).assign_coords(time=("time", days, {"standard_name": "time"}))
    return out.assign_attrs(temporal="the day itself")


def _on_days(
    source: xr.DataArray, rule: Rule, days: NDArray[np.datetime64], observed: xr.DataArray | None
) -> xr.DataArray:
    if "time" not in source.dims:
        of_a_day = "time" in source.coords and rule.timing != "static" and days.size
        if not of_a_day:  # a map of one day does not stand for others
            return source.drop_vars("time", errors="ignore")
        source = source.expand_dims("time")
    if rule.timing == "static":
        if source.sizes["time"] > 1:
            raise ValueError(
                f"it does not change in time, but has {source.sizes['time']} steps: choose one with isel(time=0)"
            )
        return source.isel(time=0, drop=True)
    if rule.timing == "same day":
        return _on_the_day(source, days)
    verb = getattr(temporal, rule.timing)
    names = inspect.signature(verb).parameters
    options = {key: value for key, value in rule.options.items() if key in names}
    if rule.timing == "trailing_mean":
        per_day = np.unique(source["time"].values.astype("M8[D]"), return_counts=True)[1]
        series: Any = temporal.daily_mean(source) if per_day.max() > 1 else source
        return verb(series, days, **options)
    if observed is not None:
        options["observed"] = observed
    return verb(source, days, **options)


# ---- the cells


def _carry(
    name: str,
    source: xr.DataArray,
    rule: Rule,
    grid: Grid,
    days: NDArray[np.datetime64],
    size: Mapping[str, int],
    observed: xr.DataArray | None = None,
) -> xr.DataArray:
    """One predictor on the days and the grid, lazily, in canonical units."""
    way = _conversion(name, source)
    source = _possible(name, source, way)
    dated: Any = _on_days(source, rule, days, observed)
    if rule.spreading == "smooth" and name in _NEVER_NEGATIVE and not {"valid_min", "valid_range"} & set(dated.attrs):
        dated = dated.assign_attrs(valid_min=0.0)  # which the smooth surface then keeps
    out = _on_cells(dated, rule, grid, size, *_series(source, rule, grid, days, size, observed))
    attrs = {**source.attrs, **out.attrs}
    if name in ("vv", "vh"):
        attrs.setdefault("averaging", "linear power" if way.decibel else "dB")
    said = [source.attrs.get("rule"), out.attrs.get("temporal"), out.attrs.get("aggregation")]
    said.append(f"spread as {out.attrs['spreading']}" if "spreading" in out.attrs else None)
    attrs["rule"] = "; ".join(str(part) for part in said if part)
    if name in PAPER and PAPER[name].units:
        attrs["units"] = PAPER[name].units
    data: Any = out.data
    out.data = data.map_blocks(_converted, way, dtype="f4", meta=np.empty((0,) * data.ndim, "f4"))
    out.attrs = attrs
    return out


def _point_nowhere(aspect: xr.DataArray, slope: xr.DataArray) -> None:
    """Give cells without a sloping pixel the mean direction 0: flat land is known, and no reason to lose a cell."""
    data: Any = aspect.data
    aspect.data = data.map_blocks(_where_sloping, slope.data, dtype="f4", meta=np.empty((0,) * data.ndim, "f4"))
    aspect.attrs["rule"] += "; 0 where slope is known and no pixel has a direction"


def _where_sloping(aspect: NDArray[np.float32], slope: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.where(np.isnan(slope), np.float32(np.nan), np.nan_to_num(aspect))


def _possible(name: str, source: xr.DataArray, way: Conversion) -> xr.DataArray:
    """A source with impossible values missing, lazily; in memory it is looked at now."""
    fault = undecoded(name, source)
    if fault:
        raise ValueError(fault.removeprefix(f"{name!r} ").replace("cube", "source"))
    if name not in PAPER:
        return source if source.chunks else source.chunk()
    said = Words(f"sources[{name!r}]"), PAPER[name], way, Words(source.attrs.get("units"))
    if isinstance(source.variable._data, np.ndarray):
        return source.copy(data=_looked_at(source.values, *said)).chunk()
    data: Any = source.chunk().data if not source.chunks else source.data
    kind = np.result_type(data.dtype, "f4")
    return source.copy(data=data.map_blocks(_looked_at, *said, dtype=kind, meta=np.empty((0,) * data.ndim, kind)))


def _looked_at(values: NDArray[Any], what: str, predictor: Predictor, way: Conversion, units: Any) -> NDArray[Any]:
    """Values with the impossible ones missing; 0 for what radar did not see is possible as decibels, but a fill."""
    values = only_possible(values, what, predictor, way, units)
    if predictor.units == "dB":
        empty, known = int((values == 0).sum()), int(np.isfinite(values).sum())
        if empty > 0.1 * known:
            raise ValueError(
                f"{what}, in {units!r} by its word, is exactly 0 in {empty} of {known} values: a fill, not backscatter. "
                f"Mask it first: source = source.where(source != 0)"
            )
    return values


def _series(
    source: xr.DataArray,
    rule: Rule,
    grid: Grid,
    days: NDArray[np.datetime64],
    size: Mapping[str, int],
    observed: xr.DataArray | None,
) -> tuple[bool, list[Series]]:
    """Whether a source is too large to be held, and then, how its steps become days: some days at a time."""
    if rule.spreading not in ("mean", "mode", "nearest"):
        return False, []
    place = locate_pixels(source, grid)
    steps = source.sizes.get("time", 1)
    if pixels_under(place) * steps <= BLOCK:
        return False, []
    plan = temporal.PLANS.get(rule.timing)
    if plan is None or "time" not in source.dims:
        return True, []
    options = {key: value for key, value in rule.options.items() if key in inspect.signature(plan).parameters}
    if observed is not None:
        options["observed"] = observed
    dims = ("time", *(place.dims if isinstance(place, Mesh) else (side.dim for side in place)))
    source = source.transpose(*dims)
    if rule.timing == "trailing_mean" and np.unique(source["time"].values.astype("M8[D]")).size < steps:
        return True, []
    way, _ = plan(days, **options).one(source)
    lag = None if observed is None else xr.Variable(dims, temporal.lag_of(observed, source)).chunk()
    many = max(1, BLOCK // (size["y"] * size["x"]))
    return True, [
        Series(source.chunk().variable if source.chunks is None else source.variable, lag, way.some(slice(n, n + many)))
        for n in range(0, len(way), many)
    ]


def _on_cells(
    dated: Any, rule: Rule, grid: Grid, size: Mapping[str, int], large: bool, series: Sequence[Series]
) -> xr.DataArray:
    """Carry to the grid, each chunk of the cube for itself, so that what one chunk needs no other has to wait for.

    Where a source is large, each window of it even is read for itself: to read what lies along borders twice costs less
    than to hold it until the chunks beside are made.
    """
    options = {key: value for key, value in rule.options.items() if key == "min_coverage"}

    def spread(part: Grid) -> Any:
        if rule.spreading in ("blocks", "smooth"):
            return getattr(coarse, rule.spreading)(dated, part)
        if not large:
            return to_grid(dated, part, how=rule.spreading, **options)
        choices: dict[str, Any] = {"min_coverage": MIN_COVERAGE, "dtype": "float32"} | options
        place = locate_pixels(dated, part)
        return carry(dated, part, place, how=rule.spreading, apart=True, series=series, **choices)

    made: list[list[Any]] = []
    for part_row in _parts(grid, size):
        made.append([])
        for part in part_row:
            try:
                one = spread(part)
            except OutsideError:
                one = None
            made[-1].append(one)
    like = next((one for row in made for one in row if one is not None), None)
    if like is None:
        like = spread(grid)  # which says why there is none
    like = like.transpose("time", ..., "y", "x", missing_dims="ignore")
    lead = dict(zip(like.dims[:-2], like.shape[:-2]))
    cut = {dim: size.get(dim, -1) for dim in like.dims[:-2]} | {"y": -1, "x": -1}

    def data(one: Any, part: Grid) -> Any:
        if one is None:
            chunks = [min(cut[dim], n) if cut[dim] > 0 else n for dim, n in lead.items()]
            return da.full((*lead.values(), *part.shape), np.nan, dtype="f4", chunks=(*chunks, *part.shape))
        return one.transpose(*like.dims).chunk(cut).data

    blocks = [[data(one, part) for one, part in zip(*rows)] for rows in zip(made, _parts(grid, size))]
    out = xr.DataArray(da.block(blocks), dims=like.dims, name=like.name, attrs=like.attrs)
    return out.assign_coords({key: c for key, c in like.coords.items() if not {"y", "x"} & set(c.dims)})


def _parts(grid: Grid, size: Mapping[str, int]) -> list[list[Grid]]:
    """The windows of the chunks."""
    ny, nx = (n if side < 1 else side for n, side in ((grid.ny, size["y"]), (grid.nx, size["x"])))
    return [
        [
            Grid(grid.km, grid.row + i, grid.col + j, min(ny, grid.ny - i), min(nx, grid.nx - j))
            for j in range(0, grid.nx, nx)
        ]
        for i in range(0, grid.ny, ny)
    ]


def _conversion(name: str, source: xr.DataArray) -> Conversion:
    ways, faults = match_units({name: source.attrs.get("units")}, {name: PAPER.get(name, Predictor(None))}, None)
    if faults:
        raise ValueError(faults[0].removeprefix(f"{name!r} ").replace("cube[", "sources["))
    return ways.get(name, SAME)


def _converted(values: NDArray[Any], way: Conversion) -> NDArray[np.float32]:
    return way(values).astype("f4", copy=False)


def _assemble(
    carried: Mapping[str, xr.DataArray],
    grid: Grid,
    days: NDArray[np.datetime64],
    size: Mapping[str, int],
) -> xr.Dataset:
    timed = any("time" in array.dims for array in carried.values())
    coords: dict[Hashable, Any] = {}
    if timed:
        coords["time"] = xr.Variable("time", days, {"standard_name": "time", "long_name": "UTC day"})
    along = carried["vv"].coords if "vv" in carried else {}
    coords |= {key: c.variable for key, c in along.items() if c.dims == ("time",) and key != "time"}
    cube = xr.Dataset({name: array.variable for name, array in carried.items()}, coords).assign_coords(grid.coords())
    for array in cube.data_vars.values():
        array.encoding = {"grid_mapping": "spatial_ref"}
    cube.attrs = {"Conventions": "CF-1.11", "title": "predictors of soil moisture on the EASE-Grid 2.0"}
    cube.attrs["provenance"] = provenance(cube)
    return cube.chunk({dim: n for dim, n in size.items() if dim in cube.dims})


def provenance(cube: xr.Dataset) -> str:
    """What each variable of a cube was made of and how, as JSON; the same cube, the same text."""
    told = {str(name): {key: _plain(value) for key, value in array.attrs.items()} for name, array in cube.items()}
    return json.dumps({"smgrid": __version__, "variables": told}, sort_keys=True)


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    return value if isinstance(value, str | int | float | bool | list | tuple | dict | None) else str(value)
