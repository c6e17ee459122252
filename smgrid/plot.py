"""Draws one figure per function; computes nothing that others could.

`maps` is here; `seams` draws what `smgrid.seams.detect` finds, `decomposition`, `taylor`, `fss` and `spectra`
what `smgrid.patterns` finds; `scenarios`, `learning` and `t_tests` what `smgrid.scenarios` finds; `scatter` and `stations`
points.

Figures are made without pyplot: they need no display, belong to the caller alone, and are never shown by themselves;
`figure.savefig("maps.png", dpi=200)` writes one.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import dask.base
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from smgrid.drawing import MEDIUM, SMALL, degree_ticks, draw_land, is_synthetic, land, literal, plain, words
from smgrid.grid import Grid, latitude_of_y, longitude_of_x, x_of_longitude, y_of_latitude
from smgrid.patternfigures import decomposition, fss, spectra
from smgrid.pointfigures import scatter, stations
from smgrid.scenariofigures import learning, scenarios, t_tests
from smgrid.seamfigures import LEVEL, SEAM, draw_segments, said, seams
from smgrid.shapes import as_field
from smgrid.taylordiagram import taylor

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

__all__ = [
    "decomposition",
    "fss",
    "learning",
    "maps",
    "scatter",
    "scenarios",
    "seams",
    "spectra",
    "stations",
    "t_tests",
    "taylor",
]

WET = "YlGnBu"  # pale is dry, deep blue is wet; lightness falls all the way, so it reads without colour too
MISSING = "#c9c9c9"
COASTS = 1000  # km; on a wider map the outlines of land in the package are right enough to be drawn
ALPHA = 0.05  # seams are drawn where the p-value is below
CELLS = 1500  # a side longer than this is thinned: no panel has more pixels

Day = Any  # a datetime64[D], or None where there is no time


class _Panels(NamedTuple):
    """What there is to draw: one row per day, one column per name."""

    grid: Grid
    days: list[Day]
    values: dict[Hashable, list[NDArray[Any]]]  # by name, a map per day
    label: str
    synthetic: bool


def maps(
    fields: Mapping[Any, Any],
    *,
    seams: Mapping[Any, xr.Dataset] | None = None,
    edges: Mapping[Any, xr.Dataset] | None = None,
) -> Figure:
    """Draw maps side by side: a row per date, a column per name, one colour scale.

    Cells have their true shape on the ground at the middle latitude (at Yanco 0.95 km wide, 1.06 km high); missing
    cells are grey. Maps wider than 1000 km show coastlines, which are kept in the package.

    Parameters
    ----------
    fields : mapping from name to DataArray or maps, dims (time, y, x) or (y, x)
        All on one window of the EASE-Grid 2.0, in one unit. The rows are the days that all dated fields share; a field
        without `time` is repeated in every row.
    seams : mapping from name to the result of `seams.detect`, optional
        Writes ratio and p-value above each panel, and draws the edges of the coarse cells where the p-value is below
        0.05. Names may be left out.
    edges : mapping from name to the result of `seams.edges`, optional
        Of these fields only the borders that stand out themselves are drawn: the segments with q < 0.05.

    Returns
    -------
    matplotlib Figure
        Never shown by itself: `figure.savefig("maps.png", dpi=200)`.

    Raises
    ------
    ValueError
        No fields, different grids or units, no common day, more dims than time, y and x, seams of an unknown name.

    Examples
    --------
    >>> import smgrid
    >>> soil = xr.DataArray(np.full(smgrid.YANCO.shape, 0.2), smgrid.YANCO.coords(), ("y", "x"), "soil_moisture")
    >>> maps({"RF": soil, "SVR": soil + 0.05})
    <Figure size ... with 3 Axes>
    """
    from matplotlib.figure import Figure

    panels = _gather(fields)
    seams, edges = _check_seams(seams or {}, panels.values), edges or {}
    _check_edges(edges, panels.values)
    aspect = ground_aspect(panels.grid)
    rows, columns = len(panels.days), len(panels.values)
    width, height = _size(panels.grid, aspect, rows, columns)
    figure = Figure(figsize=(columns * width + 1.7, rows * (height + 0.2) + 0.9), layout="compressed")
    axes = figure.subplots(rows, columns, squeeze=False)
    every = (image[np.isfinite(image)] for images in panels.values.values() for image in images)
    low, high, extend = limits(np.concatenate([*every]))
    drawn: set[str] = set()
    for column, (name, images) in enumerate(panels.values.items()):
        for row, (day, values) in enumerate(zip(panels.days, images)):
            ax = axes[row, column]
            image = _draw(ax, values, panels.grid, aspect, (low, high))
            if name in seams:
                drawn |= _draw_seams(ax, seams[name], day, panels.grid, lines=name not in edges)
            if name in edges and (here := _of_day(edges[name], day)) is not None:
                drawn |= {"segments"} if draw_segments(ax, here, panels.grid) else set()
            drawn |= _draw_missing(ax, values, image.get_extent(), aspect)
            if panels.grid.nx * panels.grid.km > COASTS:
                draw_land(ax, land(x_of_longitude, y_of_latitude), fill=False, edgecolor="black", linewidth=0.4)
            _add_ticks(ax, panels.grid, width, left=column == 0, bottom=row == rows - 1)
        axes[0, column].set_title(plain(name), fontsize=MEDIUM, fontweight="bold", pad=16 if seams else 6)
    for ax, day in zip(axes[:, 0], panels.days):
        ax.set_ylabel("" if day is None else str(day), fontsize=MEDIUM, fontweight="bold", labelpad=6)
    bar = figure.colorbar(
        image, ax=axes, extend=extend, shrink=max(0.4, 1 - 0.15 * rows), aspect=28, pad=0.12 / (columns * width)
    )
    bar.set_label(panels.label, fontsize=MEDIUM)
    bar.ax.tick_params(labelsize=SMALL)
    _add_key(figure, drawn, seams)
    if panels.synthetic:
        quantity = panels.label.split(",")[0]
        figure.suptitle(f"{quantity[:1].upper()}{quantity[1:]} (synthetic)", fontsize=MEDIUM + 1)
    return literal(figure)


# ---- what there is to draw


def _gather(fields: Any) -> _Panels:
    if not isinstance(fields, Mapping) or isinstance(fields, xr.Dataset):  # whose layers are no models
        raise TypeError(f'give a mapping from names to fields, {{"RF": maps}}, not {type(fields).__name__}')
    if not fields:
        raise ValueError("there is nothing to draw: the mapping of fields is empty")
    found = {name: _by_day(name, as_field(field)) for name, field in fields.items()}
    grid = _common_grid({name: as_field(field) for name, field in fields.items()})
    dated = {name: list(days) for name, days in found.items() if None not in days}
    shared: list[Day] = sorted(set.intersection(*map(set, dated.values()))) if dated else [None]
    if not shared:
        had = "; ".join(f"{name!r} has {', '.join(map(str, days))}" for name, days in dated.items())
        raise ValueError(f"the fields have no day in common: {had}")
    thin = {dim: slice(None, None, math.ceil(size / CELLS)) for dim, size in zip("yx", grid.shape)}
    lazy = {name: [days[day if day in days else None].isel(thin) for day in shared] for name, days in found.items()}
    computed = dask.base.compute(lazy)[0]  # type: ignore[no-untyped-call]
    values = {name: [np.asarray(image.values, "f8") for image in images] for name, images in computed.items()}
    synthetic = is_synthetic(*(obj for field in fields.values() for obj in (field, as_field(field))))
    return _Panels(grid, shared, values, _label({name: as_field(f) for name, f in fields.items()}), synthetic)


def _by_day(name: Hashable, field: xr.DataArray) -> dict[Day, xr.DataArray]:
    """The maps of a field by UTC day; None where it has no time."""
    more = [dim for dim in field.dims if dim not in ("time", "y", "x")]
    if more:
        raise ValueError(f"{name!r} has the dims {more} beside time, y and x: draw one map of them, .isel({more[0]}=0)")
    if "time" not in field.coords:
        if "time" in field.dims:
            raise ValueError(f"the time of {name!r} has no dates: field = field.assign_coords(time=...)")
        return {None: field.transpose("y", "x")}
    field = (field if "time" in field.dims else field.expand_dims("time")).transpose("time", "y", "x")
    days = field["time"].values.astype("M8[D]")
    if len(set(days)) < days.size:
        raise ValueError(f"{name!r} has several maps of one day: select one, or average them")
    return {day: field[i] for i, day in enumerate(days)}


def _common_grid(fields: Mapping[Hashable, xr.DataArray]) -> Grid:
    grids = {name: Grid.of(field) for name, field in fields.items()}
    first, grid = next(iter(grids.items()))
    for name, other in grids.items():
        if other != grid:
            raise ValueError(
                f"{name!r} lies on {other}, {first!r} on {grid}: bring them together with smgrid.to_grid(field, grid)"
            )
    return grid


def _label(fields: Mapping[Hashable, xr.DataArray]) -> str:
    units = {name: field.attrs["units"] for name, field in fields.items() if field.attrs.get("units")}
    if len(set(units.values())) > 1:
        raise ValueError(f"one colour scale needs one unit, but the fields have {units}: convert them")
    names = {str(field.name) for field in fields.values() if field.name is not None}
    quantity = names.pop().replace("_", " ") if len(names) == 1 else "soil moisture"
    unit = next(iter(units.values()), "m3 m-3" if quantity == "soil moisture" else "")
    return words(quantity, unit)


def _check_seams(seams: Mapping[Hashable, xr.Dataset], names: Mapping[Hashable, Any]) -> Mapping[Hashable, xr.Dataset]:
    unknown = [name for name in seams if name not in names]
    if unknown:
        raise ValueError(f"seams of {unknown}, but the fields are {list(names)}: use the same names")
    for name, result in seams.items():
        if not {"ratio", "p_value"} <= set(getattr(result, "data_vars", ())):
            raise ValueError(f"the seams of {name!r} have no ratio and p_value: give the result of smgrid.seams.detect")
    return seams


def _check_edges(edges: Mapping[Hashable, xr.Dataset], names: Mapping[Hashable, Any]) -> None:
    unknown = [name for name in edges if name not in names]
    if unknown:
        raise ValueError(f"edges of {unknown}, but the fields are {list(names)}: use the same names")
    for name, result in edges.items():
        if "q_value" not in getattr(result, "data_vars", ()) or "length" not in result.coords:
            raise ValueError(f"the edges of {name!r} have no q_value: give the result of smgrid.seams.edges")


# ---- how it is drawn


def ground_aspect(grid: Grid) -> float:
    """Height over width of a cell on the ground, at the middle latitude."""
    from pyproj import Geod

    west, south, east, north = grid.bounds
    half, x, y = grid.cell / 2, (west + east) / 2, (south + north) / 2
    lon, lat = longitude_of_x([x - half, x + half, x]), latitude_of_y([y - half, y + half, y])
    wgs84 = Geod(ellps="WGS84")
    width = wgs84.inv(lon[0], lat[2], lon[1], lat[2])[2]
    return float(wgs84.inv(lon[2], lat[0], lon[2], lat[1])[2] / width)


def _size(grid: Grid, aspect: float, rows: int, columns: int) -> tuple[float, float]:
    """Width and height of a panel in inches, as large as a page allows."""
    tall = aspect * grid.ny / grid.nx
    width = min(3.6, 8.8 / columns, 10.5 / (rows * tall))
    return width, width * tall


def limits(known: NDArray[Any]) -> tuple[float, float, str]:
    """A scale that a few extremes do not stretch, and at which ends some of the finite values leave it."""
    if known.size == 0:
        return 0.0, 0.5, "neither"
    low, high = np.percentile(known, [0.5, 99.5])
    step = 10.0 ** math.floor(math.log10(high - low)) / 2 if high > low else max(abs(low), 1.0) / 20
    low, high = math.floor(low / step + 1e-6) * step, math.ceil(high / step - 1e-6) * step
    low, high = (low, high) if high > low else (low - step, high + step)
    ends = {(False, False): "neither", (True, False): "min", (False, True): "max", (True, True): "both"}
    return low, high, ends[bool(known.min() < low - step / 1e6), bool(known.max() > high + step / 1e6)]


def _draw(ax: Axes, values: NDArray[Any], grid: Grid, aspect: float, limits: tuple[float, float]) -> AxesImage:
    from matplotlib import colormaps

    west, south, east, north = grid.bounds
    image = ax.imshow(
        values,
        cmap=colormaps[WET],
        vmin=limits[0],
        vmax=limits[1],
        extent=(west, east, south, north),
        interpolation="nearest",
        aspect=aspect,
    )
    for side in ax.spines.values():
        side.set(linewidth=0.5, color="0.35")
    return image


def _draw_missing(ax: Axes, values: NDArray[Any], extent: tuple[float, float, float, float], aspect: float) -> set[str]:
    """Cover the missing cells, edges of coarse cells included: where there is no map there is no seam."""
    from matplotlib.colors import ListedColormap

    missing = np.isnan(values)
    if not missing.any():
        return set()
    cover = np.where(missing, 0.0, np.nan)
    # lines lie at zorder 2, spines at 2.5
    ax.imshow(cover, ListedColormap([MISSING]), extent=extent, interpolation="nearest", aspect=aspect, zorder=2.2)
    return {"missing"}


def _draw_seams(ax: Axes, result: xr.Dataset, day: Day, grid: Grid, *, lines: bool) -> set[str]:
    """Ratio and p-value above the panel; with `lines` all coarse cells' edges, where they are there beyond chance."""
    one = _of_day(result, day)
    if one is None:
        return set()
    ratio, p = float(one["ratio"]), float(one["p_value"])
    sure = p < ALPHA
    words = f"B = {said(ratio, 2)}, p = {said(p, 3).removeprefix('0')}"
    where: dict[str, Any] = dict(transform=ax.transAxes, ha="center", va="bottom")
    ax.text(0.5, 1.015, words, fontsize=SMALL, color=SEAM if sure else "0.35", **where)
    if not (sure and lines):
        return set()
    coarse = float(result.attrs.get("coarse_km", 9))
    west, south, east, north = grid.bounds
    row, col = grid.phase(coarse)
    f = round(coarse / grid.km)
    line: dict[str, Any] = dict(color=SEAM, linewidth=0.4, alpha=0.8)
    ax.vlines(west + grid.cell * np.arange(-col % f or f, grid.nx, f), south, north, **line)
    ax.hlines(north - grid.cell * np.arange(-row % f or f, grid.ny, f), west, east, **line)
    return {"seams"}


def _of_day(result: xr.Dataset, day: Day) -> xr.Dataset | None:
    if "time" not in result.coords:
        return result
    dated = result if "time" in result.dims else result.expand_dims("time")
    here = np.flatnonzero(dated["time"].values.astype("M8[D]") == day) if day is not None else [0]
    return dated.isel(time=int(here[0])) if len(here) else None


def _add_ticks(ax: Axes, grid: Grid, width: float, *, left: bool, bottom: bool) -> None:
    """Degrees along the outer axes; bare marks inside."""
    west, south, east, north = grid.bounds
    margin = 0.1 * (east - west)  # a label at the very corner would run into its neighbour
    lons, names = degree_ticks(longitude_of_x([west + margin, east - margin]), "WE", 0.8 * width)
    ax.set_xticks(x_of_longitude(lons), names)
    lats, names = degree_ticks(latitude_of_y([south, north]), "SN", math.inf)
    ax.set_yticks(y_of_latitude(lats), names)
    ax.tick_params(labelsize=SMALL, length=2, width=0.5, color="0.35", pad=2, labelleft=left, labelbottom=bottom)


def _add_key(figure: Figure, drawn: set[str], seams: Mapping[Hashable, xr.Dataset]) -> None:
    """Name what is neither on the colour bar nor in a title."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles: list[Any] = []
    if "missing" in drawn:
        handles.append(Patch(facecolor=MISSING, edgecolor="0.35", linewidth=0.5, label="missing"))
    if "seams" in drawn:
        sizes = sorted({float(result.attrs.get("coarse_km", 9)) for result in seams.values()})
        cells = " and ".join(f"{size:g}" for size in sizes)
        handles.append(Line2D([], [], color=SEAM, linewidth=0.8, label=f"edges of {cells}-km cells, where p < {ALPHA}"))
    if "segments" in drawn:
        label = f"borders of coarse cells that stand out, q < {LEVEL}"
        handles.append(Line2D([], [], color=SEAM, linewidth=1.3, label=label))
    if handles:
        figure.legend(
            handles=handles, loc="outside lower center", ncols=2, frameon=False, fontsize=SMALL, handlelength=1.4
        )
