"""Reads from a TOML file how a cube is made, and makes it.

Such a file says where (`grid`), when (`days`), and of what: a table for each source. Its keys are `product` (the room
of `smgrid.sources` that opens it; by default the name of the table), `paths` (relative to the file, with patterns),
`predictors` (by default all that are there), the options of that room's `open`, and the choices of the rule (`timing`,
`spreading`, `max_gap`, ...; see `smgrid.rules`), for all predictors of the source or in a table for one of them::

    days = "vv"                              # or a list of dates, or { from = ..., to = ..., step = 6 }

    [grid]
    bbox = [145.75, -35.45, 146.51, -34.65]  # west, south, east, north; or row, col, ny, nx
    km = 1

    [sources.smap]
    paths = ["smap/*.h5"]
    orbit = "both"
    spreading = "smooth"

    [sources.era5]
    paths = "era5/*.nc"
    precipitation = { window = 3 }
"""

from __future__ import annotations

import datetime
import hashlib
import inspect
import json
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from glob import glob, has_magic
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from smgrid import sources as rooms
from smgrid.cube import COMPANIONS, build_cube
from smgrid.files import existing
from smgrid.grid import Grid
from smgrid.rules import RULES, Rule, nearest, options_of

_TOP = ("grid", "days", "sources", "chunks")
_GRID = (("bbox", "km"), ("row", "col", "ny", "nx", "km"))
_DAYS = ("from", "to", "step")
_OWN = ("product", "paths", "predictors")


@dataclass
class Recipe:
    """What a file says: the arguments of `build_cube`, and the files behind each predictor."""

    grid: Grid | None = None
    days: Any = None
    chunks: dict[str, int] | None = None
    sources: dict[str, tuple[xr.DataArray, Rule]] = field(default_factory=dict)
    files: dict[str, list[Path]] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)


def build(path: str | Path) -> xr.Dataset:
    """Build the cube that a TOML file describes, lazily.

    Parameters
    ----------
    path : path
        See the head of this room for what stands in it. Paths in it are relative to it.

    Returns
    -------
    Dataset
        As `build_cube` gives it; `provenance` in the attrs holds the SHA-256 of every file too.

    Raises
    ------
    FileNotFoundError, ValueError
        No such file, no TOML, unknown keys, files that cannot be opened, and what `build_cube` refuses: all faults
        that can be seen at once in one message.

    Examples
    --------
    >>> cube = build("yanco_2015.toml")  # doctest: +SKIP
    """
    path = existing(path, "recipe of a cube")
    recipe = _read(path)
    if recipe.faults or recipe.grid is None:
        raise ValueError("\n- ".join([f"{path} cannot be followed:", *recipe.faults]))
    cube = build_cube(recipe.sources, recipe.grid, recipe.days, chunks=recipe.chunks)
    told = json.loads(cube.attrs["provenance"])
    digests: dict[Path, str] = {}
    for name, files in recipe.files.items():
        if name in cube:
            told["variables"][name]["files"] = {_shown(p, path): _digest(p, digests) for p in files}
    return cube.assign_attrs(provenance=json.dumps(told, sort_keys=True))


def _read(path: Path) -> Recipe:
    try:
        said = tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no TOML file: {error}") from error
    recipe = Recipe()
    _check_keys(said, _TOP, "", recipe.faults)
    recipe.grid = _grid(said.get("grid"), recipe.faults)
    recipe.days = _days(said.get("days"), recipe.faults)
    recipe.chunks = _chunks(said.get("chunks"), recipe.faults)
    tables = said.get("sources")
    if not isinstance(tables, dict) or not tables:
        recipe.faults.append("there are no sources: give a table for each, such as [sources.smap] with paths")
        return recipe
    for label, table in tables.items():
        where = f"[sources.{label}]"
        if not isinstance(table, dict):
            recipe.faults.append(f"{where} is no table: write paths = ... below a line {where}")
            continue
        try:
            _open(label, table, path.parent, recipe)
        except (ValueError, TypeError, OSError, ImportError) as error:
            recipe.faults.append(f"{where}: {error}")
    return recipe


def _check_keys(table: Mapping[str, Any], known: Iterable[str], where: str, faults: list[str]) -> None:
    known = list(known)
    for key in table:
        if key not in known:
            faults.append(f"{f'{where}: ' if where else ''}unknown key {key!r}{nearest(key, known)}; known are {known}")


# ---- where and when


def _grid(table: Any, faults: list[str]) -> Grid | None:
    if not isinstance(table, dict):
        faults.append("[grid]: missing; give bbox = [west, south, east, north] in degrees, or row, col, ny, nx")
        return None
    keys = _GRID[0] if "bbox" in table else _GRID[1]
    count = len(faults)
    _check_keys(table, keys if {"bbox", "row"} & set(table) else dict.fromkeys(sum(_GRID, ())), "[grid]", faults)
    missing = [key for key in keys if key not in table and key != "km"]
    if missing and len(faults) == count:
        faults.append(f"[grid]: {missing} missing; give bbox = [west, south, east, north], or row, col, ny, nx")
    if len(faults) > count:
        return None
    try:
        km = table.get("km", 1)
        return Grid.around(table["bbox"], km) if "bbox" in table else Grid(km, *(table[k] for k in keys[:4]))
    except (ValueError, TypeError) as error:
        faults.append(f"[grid]: {error}")
        return None


def _days(said: Any, faults: list[str]) -> Any:
    if said is None or said == "vv":
        return None
    try:
        if isinstance(said, dict):
            _check_keys(said, _DAYS, "[days]", faults)
            first, last = (np.datetime64(said[key], "D") for key in ("from", "to"))
            step = said.get("step", 1)
            if type(step) is not int:
                raise ValueError(f"'step' is a whole number of days, not {step!r}")
            if step < 1 or last < first:
                raise ValueError("'to' lies before 'from', or 'step' is below 1")
            return np.arange(first, last + 1, step)
        if isinstance(said, list) and all(isinstance(day, (str, datetime.date)) for day in said):
            return np.array([np.datetime64(day, "D") for day in said], "M8[D]")
        raise ValueError(f"not {said!r}")
    except (ValueError, TypeError, KeyError) as error:
        faults.append(
            f'days: {error}; they are "vv" (those of the radar), a list of dates, or a table with from, to and step'
        )
        return None


def _chunks(said: Any, faults: list[str]) -> dict[str, int] | None:
    if said is None:
        return None
    if not isinstance(said, dict):
        faults.append("[chunks] is a table, such as y = 512, x = 512")
        return None
    _check_keys(said, ("time", "y", "x"), "[chunks]", faults)
    faults += [
        f"[chunks]: {key} is a whole number of cells or days, or -1 for all of them, not {size!r}"
        for key, size in said.items()
        if type(size) is not int or (size < 1 and size != -1)
    ]
    return said


# ---- the sources


def _open(label: str, table: Mapping[str, Any], base: Path, recipe: Recipe) -> None:
    """Open one table's files, and put its predictors into the recipe with their rules."""
    where = f"[sources.{label}]"
    product, extra = _product(label, table)
    room = getattr(rooms, product)
    verb = inspect.signature(room.open).parameters
    openers = [name for name, p in verb.items() if p.kind is p.KEYWORD_ONLY and name not in extra]
    choices = {"timing", "spreading"}.union(*(options_of(r.timing, r.spreading) for r in RULES.values()))
    choices |= set(options_of("interpolate", "mean") + options_of("trailing_median", "mean"))
    single = {key: value for key, value in table.items() if isinstance(value, dict) and key not in (*openers, *_OWN)}
    names = {*RULES, *table.get("predictors", ()), *_renamed(table.get("name"))}
    faults: list[str] = []
    _check_keys(dict.fromkeys(table, 0), [*_OWN, *openers, *sorted(choices), *sorted(names)], where, faults)
    if faults:
        recipe.faults.extend(faults)
        return
    loose = [key for key in names if key in table and key not in (*openers, *_OWN) and key not in single]
    if loose:
        raise ValueError(
            f"{sorted(loose)[0]!r} is a predictor, so its choices are a table: {sorted(loose)[0]} = {{ window = 3 }}"
        )
    if "paths" not in table:
        raise ValueError("paths are missing: a path, a pattern such as 'smap/*.h5', or a list of them")
    paths = _paths(table["paths"], base)
    options = {key: table[key] for key in openers if key in table} | extra
    opened = room.open(_as_taken(paths, product), **options)
    shared = {key: value for key, value in table.items() if key in choices}
    there = [str(name) for name in opened.data_vars]
    wanted = list(table.get("predictors", [name for name in there if name in RULES or name in COMPANIONS]))
    absent = [name for name in {*wanted, *single} if name not in there]
    if absent or not wanted:
        raise ValueError(f"there is no predictor {sorted(absent) or ''} in the files; there are {there}")
    idle = sorted({*single} - {*wanted})
    if idle:
        raise ValueError(f"there are choices for {idle}, but predictors = {wanted} leaves them out")
    wanted += [extra for extra, main in COMPANIONS.items() if main in wanted and extra in there and extra not in wanted]
    for name in wanted:
        if name in recipe.sources:
            recipe.faults.append(f"{where}: {name!r} comes from another source too: say which with predictors = [...]")
            continue
        recipe.sources[name] = (opened[name], _rule(name, shared, single.get(name, {})))
        recipe.files[name] = _behind(opened[name], paths)


def _product(label: str, table: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The room that opens a table's files; `product = "ERA5-Land"` below [sources.era5] is an option of that room."""
    said = str(table.get("product", label))
    known = [name for name in rooms.__all__ if name in GRIDDED]
    if said in known:
        return said, {}
    if label in known and "product" in inspect.signature(getattr(rooms, label).open).parameters:
        return label, {"product": said}
    raise ValueError(f"product is one of {known}, not {said!r}{nearest(said, known)}")


GRIDDED = ("dem", "era5", "modis", "raster", "sentinel1", "sentinel2", "smap", "soilgrids")


def _renamed(name: Any) -> list[str]:
    return [name] if isinstance(name, str) else list(name.values()) if isinstance(name, dict) else []


def _rule(name: str, shared: Mapping[str, Any], own: Mapping[str, Any]) -> Rule:
    if name in COMPANIONS:
        return Rule("static")
    start = RULES.get(name)
    if start is None:
        start = Rule(own.get("timing", shared.get("timing", "same day")))
    return start.but(**{**shared, **own})


def _paths(said: Any, base: Path) -> dict[str, list[Path | str]]:
    """Every path that stands there, by property where a mapping says so (SoilGrids); patterns filled in, sorted."""
    if isinstance(said, dict):
        return {key: _paths(value, base)[""] for key, value in said.items()}
    listed = [said] if isinstance(said, str) else said
    if not isinstance(listed, list) or not all(isinstance(path, str) for path in listed) or not listed:
        raise ValueError(f"paths are a path, a pattern such as 'smap/*.h5', or a list of them, not {said!r}")
    found: list[Path | str] = []
    for path in listed:
        if path.startswith("/vsi") or "://" in path:
            found.append(path)
        elif has_magic(path) and not (base / path).exists():
            fitting = sorted(glob(str(base / path), recursive=True))
            if not fitting:
                raise FileNotFoundError(f"no file fits the pattern {path!r} in {base}")
            found += map(Path, fitting)
        else:
            found.append(existing(base / path, "file"))
    return {"": list(dict.fromkeys(found))}


def _as_taken(paths: Mapping[str, list[Path | str]], product: str) -> Any:
    if "" not in paths:
        return {key: files[0] if len(files) == 1 else files for key, files in paths.items()}
    files = paths[""]
    if product != "raster":
        return files
    if len(files) > 1:
        raise ValueError(f"the room of single rasters takes one file, not {len(files)}: give each a table of its own")
    return files[0]


# ---- where it came from


def _behind(array: xr.DataArray, paths: Mapping[str, list[Path | str]]) -> list[Path]:
    """The local files that a variable was read from, as far as its attrs tell; else all of its table."""
    files = [Path(file) for some in paths.values() for file in some if not isinstance(file, str)]
    names = {name.strip() for name in str(array.attrs.get("source_files", "")).split(",")}
    return [file for file in files if file.name in names] or files


def _shown(path: Path, recipe: Path) -> str:
    """A path as the recipe has it; outside its folder the name alone."""
    try:
        return path.relative_to(recipe.parent).as_posix()
    except ValueError:
        return path.name


def _digest(path: Path, known: dict[Path, str]) -> str:
    """SHA-256 of a file; of a folder (Zarr) over its files and their names."""
    if path not in known:
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.is_file())
            text = "\n".join(f"{p.relative_to(path).as_posix()} {_digest(p, {})}" for p in inside)
            known[path] = hashlib.sha256(text.encode()).hexdigest()
        else:
            with open(path, "rb") as file:
                known[path] = hashlib.file_digest(file, "sha256").hexdigest()
    return known[path]
