"""Says what maps are, so that a store can be told from any other: grid, layers, model, dates, chunks, counts."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from smgrid.grid import find_crs
from smgrid.ledger import Line

log = logging.getLogger("smgrid")

FORMAT = 1
CELLS = 512  # side of a chunk where the maps come without chunks


class CorruptStoreError(ValueError):
    """A store that lacks what it should hold."""


def read_manifest(root: Path) -> dict[str, Any] | None:
    """What a store says it is; None where there is no store of ours."""
    try:
        return json.loads((root / "smgrid" / "manifest.json").read_text())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError as error:
        raise CorruptStoreError(f"{root}/smgrid/manifest.json cannot be read ({error}): use resume=False") from error


def as_json(content: Any, sort: bool = True) -> bytes:
    """The same bytes for the same content."""
    return (json.dumps(content, indent=1, sort_keys=sort) + "\n").encode()


def date_labels(maps: xr.Dataset) -> list[str] | None:
    """The dates as text; None without a time dimension."""
    if "time" not in maps.dims:
        return None
    values = maps["time"].values
    if values.dtype.kind == "M":
        return [text.removesuffix("T00:00:00.000000000") for text in np.datetime_as_string(values.astype("M8[ns]"))]
    return [str(value) for value in values]


def check_maps(maps: Any) -> xr.Dataset:
    """Refuse what cannot be stored, before anything is made on disk."""
    if isinstance(maps, xr.DataArray):
        maps = maps.to_dataset(name=maps.name or "soil_moisture")
    if not isinstance(maps, xr.Dataset):
        raise TypeError(f"maps are an xarray Dataset, not {type(maps).__name__}")
    names = [name for name, layer in maps.data_vars.items() if {"y", "x"} <= set(layer.dims)]
    if not names:
        raise ValueError(f"no layer has dims (y, x); the dims are {tuple(maps.sizes)}: rename them")
    empty = [dim for dim, n in maps[names].sizes.items() if n == 0]
    if empty:
        raise ValueError(f"the maps have no cell along {empty}: nothing was selected")
    for name in names:
        if maps[name].dtype.kind not in "fiub":
            raise ValueError(f"{name!r} is of dtype {maps[name].dtype}, not numbers: maps[{name!r}].astype('float32')")
    if getattr(maps.indexes.get("time"), "tz", None) is not None:
        raise ValueError("the dates carry a time zone: give plain UTC days, datetime64")
    if "time" in maps.indexes and maps.indexes["time"].hasnans:
        raise ValueError("a date is missing (NaT): maps = maps.isel(time=maps.time.notnull())")
    if "time" in maps.dims and "time" in maps.indexes and not maps.indexes["time"].is_monotonic_increasing:
        raise ValueError("the dates are not in order: maps = maps.sortby('time')")
    if "time" in maps.dims and ("time" not in maps.indexes or not maps.indexes["time"].is_unique):
        raise ValueError("every date of the maps needs a `time` of its own; some are missing or there twice")
    return maps


def tidy(maps: xr.Dataset, known: Mapping[str, Any] | None) -> tuple[xr.Dataset, dict[str, int]]:
    """Maps whose layers are Dask arrays on one regular grid of chunks; and those chunks, 1 along time."""
    names = [name for name, layer in maps.data_vars.items() if {"y", "x"} <= set(layer.dims)]
    sizes = {str(dim): 1 for dim in maps.dims}
    for name in names:
        chunks = maps[name].chunksizes or {dim: (min(CELLS, n),) for dim, n in maps[name].sizes.items()}
        sizes |= {str(d): max(sizes[d], *c) for d, c in chunks.items()}
    sizes |= {dim: n for layer in (known or {"layers": {}})["layers"].values() for dim, n in layer["chunks"].items()}
    out = maps.copy()
    for name in names:
        layer = maps[name]
        regular = {
            dim: sizes[str(dim)]
            for dim, c in layer.chunksizes.items()
            if dim != "time" and not _regular(c, sizes[str(dim)])
        }
        if layer.chunks is None:
            regular = {dim: 1 if dim == "time" else sizes[str(dim)] for dim in layer.dims}
        elif regular:
            log.info("%s: chunks made regular on their way to disk: %s", name, regular)
        out[name] = layer.chunk(regular) if regular else layer
        out[name].attrs = {k: v for k, v in layer.attrs.items() if k != "grid_mapping"}
        out[name].encoding = _encoding(layer, maps)
    return out, {**sizes, "time": 1}


def _regular(chunks: Sequence[int], size: int) -> bool:
    return all(n == size for n in chunks[:-1]) and chunks[-1] <= size


def _encoding(layer: xr.DataArray, maps: xr.Dataset) -> dict[str, Any]:
    kept = ("dtype", "_FillValue", "scale_factor", "add_offset", "missing_value", "grid_mapping")
    encoding = {k: layer.encoding[k] for k in kept if k in layer.encoding}
    encoding["dtype"] = np.dtype(encoding.get("dtype", layer.dtype))
    mapping = layer.attrs.get("grid_mapping", "spatial_ref")
    if mapping in maps.variables:
        encoding.setdefault("grid_mapping", mapping)
    if encoding["dtype"].kind == "f":
        encoding.setdefault("_FillValue", encoding["dtype"].type("nan"))
    return encoding


def describe(maps: xr.Dataset, chunks: Mapping[str, int]) -> dict[str, Any]:
    """The manifest: what these maps are, in words and numbers that can be compared."""
    crs = find_crs(maps)
    code = crs and crs.to_epsg()
    grid: dict[str, Any] = {"crs": f"EPSG:{code}" if code else crs and _digest(crs.to_wkt().encode())}
    for name in ("y", "x"):
        if name in maps.coords:
            values = np.asarray(maps[name].values, "f8")
            grid[name] = (
                f"{values.size} cells, {float(values[0])!r} ... {float(values[-1])!r}, {_digest(values.tobytes())}"
            )
    layers = {}
    for variable, layer in maps.data_vars.items():
        if {"y", "x"} <= set(layer.dims):
            told = {k: layer.attrs[k] for k in ("units", "flag_meanings", "predictors") if k in layer.attrs}
            told |= {k: float(layer.attrs[k]) for k in ("level",) if k in layer.attrs}
            if inner := layer.attrs.get("predictor_attributes"):  # of a packed cube
                told["predictor_units"] = {name: attrs["units"] for name, attrs in inner.items() if "units" in attrs}
            if "flag_values" in layer.attrs:
                told["flag_values"] = np.asarray(layer.attrs["flag_values"]).tolist()
            layers[str(variable)] = {
                "dims": list(layer.dims),
                "sizes": {d: layer.sizes[d] for d in layer.dims if d != "time"},
                "chunks": {d: chunks[str(d)] for d in layer.dims},
                "dtype": str(layer.encoding["dtype"]),
                **told,
            }
    rest = {
        str(n): _digest(np.asarray(v.values).astype(str).tobytes())
        for n, v in maps.coords.items()
        if "time" not in v.dims and n not in ("y", "x", "spatial_ref")
    }
    return {
        "format": FORMAT, "model": maps.attrs.get("model_digest"), "grid": grid, "layers": layers,
        "coordinates": rest, "dates": date_labels(maps),
    }  # fmt: skip


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def check_same(root: Path, known: Mapping[str, Any] | None, manifest: Mapping[str, Any]) -> None:
    """Refuse maps that are not those of the store, by all that differs."""
    if known is None:
        return
    if known.get("format") != FORMAT:
        raise ValueError(f"{root} has format {known.get('format')} where this smgrid writes {FORMAT}: use resume=False")
    found = []
    for part in ("model", "layers", "grid", "coordinates"):
        old, new = known.get(part), manifest[part]
        if part == "layers" and sorted(old or ()) != sorted(new):
            found.append(f"the layers are {sorted(old or ())} there and {sorted(new)} here")
        elif isinstance(new, dict) and isinstance(old, dict):
            for name in sorted({*old, *new}):
                found += [f"{part}, {name}{diff}" for diff in _differences(old.get(name), new.get(name))]
        elif old != new:
            found.append(f"the {part} is {old} there and {new} here")
    if (known["dates"] is None) != (manifest["dates"] is None):
        found.append("one has a time dimension and the other has not")
    if found:
        raise ValueError(
            f"{root} holds other maps: {'; '.join(found)}. Write to another path, or start anew with resume=False"
        )


def _differences(old: Any, new: Any) -> list[str]:
    """What differs between two parts of a manifest, entry by entry."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        return [f", {key}{more}" for key in sorted({*old, *new}) for more in _differences(old.get(key), new.get(key))]
    return [] if old == new else [f": {old} there, {new} here"]


def chunk_keys(layers: Mapping[str, Any], dates: Sequence[str] | None) -> list[str]:
    """Keys of every chunk of a whole store."""
    keys = []
    for name, told in layers.items():
        counts = [
            len(dates or ()) if dim == "time" else -(-told["sizes"][dim] // told["chunks"][dim]) for dim in told["dims"]
        ]
        keys += ["/".join([name, "c", *map(str, at)]) for at in np.ndindex(*counts)]
    return keys


def made_together(names: Iterable[str]) -> bool:
    """Whether variables come out of one computation, as a map's layers do; those of a cube are blocks of their own."""
    return not {"soil_moisture", "status", "spread", "lower", "upper", "dissimilarity", "applicability"}.isdisjoint(
        names
    )


def count_blocks(expected: Sequence[str], there: Mapping[str, Line]) -> tuple[int, int]:
    """How many blocks are stored with all their layers, of how many."""
    places: dict[str, bool] = {}
    together = made_together(key.split("/", 1)[0] for key in expected)
    for key in expected:
        at = key.split("/", 1)[1] if together else key
        places[at] = places.get(at, True) and key in there
    return sum(places.values()), len(places)


def summarise(lines: Sequence[Line], manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Cells in all, with a value, and by the meaning of their flags; for a cube by variable too."""
    cells, mapped, flags = 0, 0, dict[str, int]()
    layers: dict[str, dict[str, int]] = {}
    for line in lines:
        if line.counts != "-":
            counts = json.loads(line.counts)
            cells, mapped = cells + counts["cells"], mapped + counts["mapped"]
            own = layers.setdefault(line.key.split("/")[0], {"cells": 0, "mapped": 0})
            own |= {key: own[key] + counts[key] for key in own}
            for pair, n in counts.get("flags", {}).items():
                flags[pair] = flags.get(pair, 0) + n
    status, culprit = (_meanings(manifest["layers"].get(name)) for name in ("status", "culprit"))
    by_status: dict[str, int] = {}
    by_culprit: dict[str, dict[str, int]] = {}
    for pair, n in sorted(flags.items()):
        state, reason = pair.split(".")
        said = status.get(state, state)
        by_status[said] = by_status.get(said, 0) + n
        if reason != "0":
            by_culprit.setdefault(said, {})[culprit.get(reason, reason)] = n
    blocks = count_blocks([line.key for line in lines], {})[1]
    found = {"blocks": blocks, "cells": cells, "mapped": mapped, "status": by_status, "culprit": by_culprit}
    return found | ({"layers": layers} if len(layers) > 1 else {})


def _meanings(layer: Mapping[str, Any] | None) -> dict[str, str]:
    told = layer or {}
    return {str(v): m for v, m in zip(told.get("flag_values", ()), told.get("flag_meanings", "").split())}
