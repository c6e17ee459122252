"""Looks at the borders of coarse cells one segment at a time: where does a map jump more than it does elsewhere?

A *segment* is the border between two neighbouring coarse cells, some nine cells long. The mean jump along it (see
`jumps`) is set against the roughness of the land on its two sides, and this ratio against that of the same segments
moved four cells aside, where no border lies and whose eight cells all belong to one coarse cell. What spread they show
is what chance gives on this map; Student's t with their tails says how unlikely a segment is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import dask.array as da
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from smgrid.borders import Borders, Source, one_field, regular, source_of
from smgrid.grid import Grid
from smgrid.imprints import lay_source
from smgrid.jumps import DEPTH, OFFSETS, REACH, jumps
from smgrid.steps import open_field, turned, with_halo

LEVEL = 0.05  # of false discoveries among the segments called significant
_LAND = np.array([-4, -3, -2, 2, 3, 4])  # steps that tell how rough the land on both sides is
_OTHERS = np.array([-4, -3, -2, -1, 1, 2, 3, 4])
_SOURCE = "false discovery rate after Benjamini & Hochberg (1995), doi:10.1111/j.2517-6161.1995.tb02031.x"


def edges(
    field: xr.DataArray | xr.Dataset,
    coarse: xr.DataArray | None = None,
    *,
    coarse_km: float = 9,
    how: str = "blocks",
) -> xr.Dataset:
    """List every segment of the borders of coarse cells: where it is, how far the map jumps there, how sure that is.

    Parameters
    ----------
    field : DataArray or maps, dims (..., y, x)
        On the EASE-Grid 2.0; missing is NaN. Leading dims such as `time` are judged one by one.
    coarse : DataArray, optional
        The coarse field: its own cell edges are looked at, and its steps are listed beside the map's jumps.
    coarse_km : float
        Side of the coarse cells where no `coarse` is given.
    how : {"blocks", "mean"}
        How `coarse` came to the map's cells; see `imprint`.

    Returns
    -------
    Dataset, computed, with the leading dims of the field and a dim `segment` (`.to_dataframe()` makes a table)

    direction, row, col, length, longitude, latitude : (segment)
        "x": the border lies west of the cells from `row` on down, "y": north of those from `col` on east, `length`
        cells; rows and columns of the global grid; degrees of the segment's middle.
    n
        Pairs of cells across the segment.
    excess
        Mean absolute step there less that 2 to 4 cells aside (e).
    z_score
        The excess over its spread, by the same segment moved 1 to 4 cells to either side.
    jump
        Mean of right limit less left limit (J).
    step
        That of the coarse field, where one is given.
    p_value, q_value
        Of the jump, two-sided; and as a false discovery rate over the date's segments. NaN where half the segment or
        more is missing.
    fraction
        Share of the border's length (of segments with a q_value) where `q_value` is below 0.05.

    Raises
    ------
    ValueError
        The field is off the EASE-Grid 2.0, `coarse_km` is no whole number of its cells, or `coarse` has no borders.

    Notes
    -----
    A row per segment is kept, some 11 numbers for every 40 cells of the map: take large maps region by region.

    References
    ----------
    Benjamini & Hochberg (1995), J. R. Stat. Soc. B 57, 289-300, doi:10.1111/j.2517-6161.1995.tb02031.x

    Examples
    --------
    >>> from smgrid import YANCO, coarse
    >>> rng = np.random.default_rng(0)
    >>> cells = YANCO.coarsen(9)
    >>> smap = xr.DataArray(rng.normal(0.2, 0.05, cells.shape), cells.coords(), ("y", "x"))  # synthetic
    >>> found = edges(coarse.blocks(smap, YANCO) + rng.normal(0, 0.01, YANCO.shape), smap)
    >>> found.sizes["segment"], bool(found.fraction > 0.5)
    (161, True)
    """
    values, grid = open_field(field)
    coarse = None if coarse is None else one_field(coarse)
    source = None if coarse is None else source_of(coarse, grid, str(coarse.name or "coarse"), how)
    borders = regular(grid, coarse_km) if source is None else (source.x, source.y)
    arrays = [values.data] if source is None else [values.data, lay_source(source, values, grid)]
    tables = _tables(arrays, *borders)
    found = [_measure(table, len(arrays) > 1) for table in da.compute(*tables)]
    place = _places(grid, *borders)
    return _dress(_Segments(*(np.concatenate(pair, -1) for pair in zip(*found))), place, values, source, coarse_km)


def raster(found: xr.Dataset, grid: Grid | xr.DataArray | xr.Dataset, *, level: float = LEVEL) -> xr.DataArray:
    """Draw the segments of `edges` on the map's cells: the size of the jump beside significant segments.

    Parameters
    ----------
    found : Dataset
        What `edges` gives.
    grid : Grid, or the map
    level : float
        Segments with a `q_value` below this are drawn.

    Returns
    -------
    DataArray, float32, dims (..., y, x)
        Absolute jump on the cells to the right of, or below, a significant segment (the larger where two meet); NaN
        elsewhere.

    Examples
    --------
    >>> from smgrid import YANCO
    >>> field = xr.DataArray(np.random.default_rng(0).normal(size=YANCO.shape), YANCO.coords(), ("y", "x"))
    >>> drawn = raster(edges(field), YANCO, level=1.1)  # all that are whole
    >>> int(drawn.notnull().sum()), drawn.dims
    (1087, ('y', 'x'))
    """
    grid = Grid.of(grid)
    jump = abs(found["jump"].where(found["q_value"] < level)).transpose(..., "segment")
    out = np.full((*jump.shape[:-1], *grid.shape), np.nan, "f4")
    place = zip(found["direction"].values == "x", found["row"].values, found["col"].values, found["length"].values)
    for k, (upright, row, col, length) in enumerate(place):
        if not np.isfinite(jump.values[..., k]).any():
            continue
        r, c = (
            slice(max(row - grid.row, 0), max(row - grid.row + (length if upright else 1), 0)),
            slice(max(col - grid.col, 0), max(col - grid.col + (1 if upright else length), 0)),
        )
        out[..., r, c] = np.fmax(out[..., r, c], jump.values[..., k, None, None].astype("f4"))
    coords = {**grid.coords(), **{n: c for n, c in jump.coords.items() if "segment" not in c.dims}}
    attrs = {"long_name": "jump beside significant borders of coarse cells"} | (
        {"units": jump.attrs["units"]} if "units" in jump.attrs else {}
    )
    return xr.DataArray(out, coords, (*jump.dims[:-1], "y", "x"), "edge_strength", attrs)


# ---- sums by segment


def _tables(arrays: Sequence[Any], x: Borders, y: Borders) -> list[Any]:
    """Sums by row segment and border line of steps along x, and along y: (..., sums, part of the line, line), lazy.

    Blocks are cut where coarse cells meet, so that every segment is whole in one of them.
    """
    shape = arrays[0].shape[-2:]
    chunks = arrays[0].chunks[-2:] if isinstance(arrays[0], da.Array) else [(n,) for n in shape]
    cuts = [_cut(n, sizes, borders.line) for n, sizes, borders in zip(shape, chunks, (y, x))]
    padded, cells = with_halo(arrays, DEPTH, (cuts[0], cuts[1]))
    found = []
    for blocks, across, along, sizes in zip(turned(padded), (x, y), (y, x), (cells, cells[::-1])):
        ndim = blocks[0].ndim
        starts = [np.cumsum([0, *n]) for n in sizes]
        parts = tuple(np.diff([0, *(1 + np.searchsorted(along.line, starts[0][1:]))]).tolist())
        lines = tuple(np.diff(np.searchsorted(across.line, starts[1])).tolist())
        sums = da.map_blocks(
            _fold,
            *blocks,
            rows=along.line,
            across=across,
            starts=starts,
            new_axis=ndim - 2,
            chunks=(*blocks[0].chunks[:-2], (_size(len(arrays)),), parts, lines),
            meta=np.empty((0,) * (ndim + 1)),
        )
        found.append(sums)
    return found


def _cut(n: int, sizes: tuple[int, ...], line: NDArray[np.int64]) -> tuple[int, ...]:
    """Chunks near those that are there, that begin where coarse cells do, none thinner than the halo."""
    stops = np.cumsum(sizes)[:-1]
    near = np.unique(line[np.searchsorted(line, stops[stops <= line.max(initial=-1)])])
    cuts = [0]
    for cut in near.tolist():
        if cut - cuts[-1] >= DEPTH and n - cut >= DEPTH:
            cuts.append(cut)
    return tuple(np.diff([*cuts, n]).tolist())


def _size(arrays: int) -> int:
    """|d| and its count at nine offsets, jumps and their count at three places, steps of the source."""
    return 2 * OFFSETS.size + 2 * 3 + (arrays > 1)


def _fold(
    *blocks: NDArray[np.float64],
    rows: NDArray[np.int64],
    across: Borders,
    starts: list[NDArray[np.int64]],
    block_id: tuple[int, ...],
) -> NDArray[np.float64]:
    blocks = tuple(np.asarray(block)[..., DEPTH:-DEPTH, :].astype("f8") for block in blocks)
    first, stop = (starts[1][block_id[-1] + k] for k in (0, 1))
    top, bottom = (starts[0][block_id[-2] + k] for k in (0, 1))
    here = (across.line >= first) & (across.line < stop)
    line, wide = across.line[here] - first, across.wide[here]
    at = np.r_[0, rows[(rows > top) & (rows < bottom)] - top]
    out = np.zeros((*blocks[0].shape[:-2], _size(len(blocks)), at.size, line.size))
    for lead in np.ndindex(*blocks[0].shape[:-2]):
        for width in (0, 1):
            these = np.flatnonzero(wide == width)
            if these.size:
                parts = _parts([b[lead] for b in blocks], line[these], width)
                out[lead][..., these] = np.add.reduceat(parts, at, axis=1)
    return out


def _parts(blocks: Sequence[NDArray[np.float64]], line: NDArray[np.int64], wide: int) -> NDArray[np.float64]:
    """What is summed along a segment, by row and line: (sums, rows, line)."""
    z = blocks[0]
    with np.errstate(invalid="ignore"):  # infinite less infinite
        step = np.abs(np.diff(z, axis=-1, prepend=np.nan))
        # a wide border has steps on both its lines; those beyond it lie one line further
        beside = [step[:, line + DEPTH + o + (wide if o > 0 else 0)] for o in OFFSETS]
        if wide:
            beside[REACH] = beside[REACH] + step[:, line + DEPTH + 1]
        jump = jumps(z, line, wide)[..., [REACH, 0, 2 * REACH]]
        more = [jumps(blocks[1], line, wide)[..., REACH]] if len(blocks) > 1 else []
    d = np.array(beside)
    j = np.moveaxis(jump, -1, 0)
    parts = [np.where(np.isfinite(d), d, 0), np.isfinite(d), np.where(np.isfinite(j), j, 0), np.isfinite(j)]
    parts += [np.where(np.isfinite(j[0]) & np.isfinite(s), s, 0)[None] for s in more]
    return np.concatenate([part.astype("f8") for part in parts])


# ---- what is said of each


class _Segments(NamedTuple):
    n: NDArray[np.int64]
    excess: NDArray[np.float64]
    z_score: NDArray[np.float64]
    jump: NDArray[np.float64]
    step: NDArray[np.float64]
    size: NDArray[np.float64]  # jump over roughness
    aside: NDArray[np.float64]  # the same four cells to either side, (..., 2 segments)


def _measure(table: NDArray[np.float64], stepped: bool) -> _Segments:
    """Measures of the segments of one direction, (..., row segment x line)."""
    table = np.moveaxis(table.reshape(*table.shape[:-2], -1), -2, 0)
    k = OFFSETS.size
    total, count, jump, pairs = table[:k], table[k : 2 * k], table[2 * k : 2 * k + 3], table[2 * k + 3 : 2 * k + 6]
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = total / count
        others = mean[_OTHERS + REACH]
        land = total[_LAND + REACH].sum(0) / count[_LAND + REACH].sum(0)
        excess = mean[REACH] - land
        z = (mean[REACH] - others.mean(0)) / (others.std(0, ddof=1) * np.sqrt(1 + 1 / len(_OTHERS)))
        jump = jump / pairs
        longest = np.max(pairs[0], initial=1)
        size = np.where(pairs >= 0.5 * longest, np.abs(jump) / land, np.nan)
        step = table[2 * k + 6] / pairs[0] if stepped else np.full_like(excess, np.nan)
    aside = np.concatenate(list(size[1:]), -1)
    return _Segments(pairs[0].astype("i8"), excess, z, jump[0], step, size[0], aside)


def _chance(size: NDArray[np.float64], aside: NDArray[np.float64]) -> NDArray[np.float64]:
    """Two-sided p-value of each size by a t distribution with the spread and the tails of those aside."""
    from scipy import stats

    null = aside[np.isfinite(aside)]
    if null.size < 20 or not (null > 0).any():
        return np.full(size.shape, np.nan)
    square = (null**2).mean()
    tails = max((null**4).mean() / square**2 - 3, 1e-2)
    freedom = 4 + 6 / tails
    return np.asarray(2 * stats.t.sf(size / np.sqrt(square * (freedom - 2) / freedom), freedom))


def false_discovery_rate(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """Benjamini and Hochberg's q-values; NaN where p is.

    Examples
    --------
    >>> false_discovery_rate(np.array([0.01, 0.04, np.nan, 0.03])).round(6)
    array([0.03, 0.04,  nan, 0.04])
    """
    q = np.full(p.shape, np.nan)
    known = np.flatnonzero(~np.isnan(p))
    order = known[np.argsort(p[known])]
    scaled = p[order] * known.size / np.arange(1, known.size + 1)
    q[order] = np.minimum.accumulate(scaled[::-1])[::-1]
    return q


class _Places(NamedTuple):
    direction: NDArray[np.str_]
    row: NDArray[np.int64]
    col: NDArray[np.int64]
    length: NDArray[np.int64]
    longitude: NDArray[np.float64]
    latitude: NDArray[np.float64]


def _places(grid: Grid, x: Borders, y: Borders) -> _Places:
    """Where the segments lie, in the order of `_measure`: direction, part of the line, line."""
    from smgrid.grid import latitude_of_y, longitude_of_x

    found = []
    for direction, across, along, size in (("x", x, y, grid.ny), ("y", y, x, grid.nx)):
        begin = np.r_[0, along.line]
        length = np.diff(np.r_[begin, size])
        part, line = (a.ravel() for a in np.meshgrid(begin, across.line, indexing="ij"))
        lengths = np.repeat(length, across.line.size)
        row, col = (part, line) if direction == "x" else (line, part)
        half_r, half_c = (lengths / 2, 0) if direction == "x" else (0, lengths / 2)
        west, _, _, north = grid.bounds
        lon = longitude_of_x(west + (col + half_c) * grid.cell)
        lat = latitude_of_y(north - (row + half_r) * grid.cell)
        found.append((np.full(part.size, direction), row + grid.row, col + grid.col, lengths, lon, lat))
    return _Places(*(np.concatenate(pair) for pair in zip(*found)))


def _dress(
    found: _Segments, place: _Places, values: xr.DataArray, source: Source | None, coarse_km: float
) -> xr.Dataset:
    p, q = np.full(found.size.shape, np.nan), np.full(found.size.shape, np.nan)
    for at in np.ndindex(*found.size.shape[:-1]):
        p[at] = _chance(found.size[at], found.aside[at])
        q[at] = false_discovery_rate(p[at])
    judged = place.length * ~np.isnan(q)
    with np.errstate(invalid="ignore"):
        fraction = (judged * (q < LEVEL)).sum(-1) / judged.sum(-1)
    lead, units = values.dims[:-2], values.attrs.get("units")
    said: dict[str, tuple[Any, str, str | None, str]] = {
        "n": (found.n, "pairs of cells across the segment", "1", "N"),
        "excess": (found.excess, "excess of the mean absolute step", units, "m(0) - m(2..4 cells aside)"),
        "z_score": (found.z_score, "excess over its spread", "1", "(m(0) - mean m) / (sd m sqrt(9/8)), 1..4 aside"),
        "jump": (found.jump, "mean jump across the segment", units, "right limit - left limit, local lines"),
        "step": (found.step, "mean step of the coarse field", units, "as jump"),
        "p_value": (p, "p-value of the jump, two-sided", "1", "Student's t fitted to jumps 4 cells aside"),
        "q_value": (q, "false discovery rate", "1", "Benjamini-Hochberg over the segments"),
    }
    if source is None:
        del said["step"]
    variables: dict[str, Any] = {}
    for name, (data, long_name, unit, formula) in said.items():
        attrs = {"long_name": long_name, "formula": formula} | ({"units": unit} if unit else {})
        variables[name] = ((*lead, "segment"), data, attrs)
    attrs = {
        "long_name": "share of the border's length with q < 0.05",
        "units": "1",
        "formula": "sum L(q < .05) / sum L",
    }
    variables["fraction"] = (lead, fraction, attrs)
    kept = values.coords.to_dataset().drop_dims(["y", "x"], errors="ignore").drop_vars("spatial_ref", errors="ignore")
    result = kept.assign_coords({name: ("segment", a) for name, a in place._asdict().items()}).assign(variables)
    what = f"{coarse_km:g}-km cells" if source is None else source.name
    result.attrs = {"title": f"borders of {what}, segment by segment", "source": _SOURCE}
    return result
