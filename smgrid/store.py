"""Writes maps block by block, so that a stopped run can go on.

On disk a store is a plain Zarr v3 group (zstd with checksum, one date per chunk in time) that any reader opens, with a folder
`smgrid` inside: the ledger of finished chunks and a manifest of what the whole is. The order of events keeps three promises.

- *Nobody opens half a map.* A first write goes to `PATH.partial`, which has no Zarr metadata until its ledger is full, and is
  then renamed. New dates of an existing store are laid down where readers do not look yet; chunks of old dates that changed wait
  aside; last come the coordinates, the arrays' new lengths and, in one file and at one stroke, the group's own metadata.
- *A finished block is kept only if it would come out the same* (`smgrid.identity`), and if its stored bytes are those in the ledger.
- *Same work, same bytes*, whatever the order of blocks and the number of interruptions: nothing stored tells the time.
"""

from __future__ import annotations

import errno
import hashlib
import itertools
import json
import logging
import os
import shutil
import sys
import threading
import time
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import xarray as xr
from dask._task_spec import convert_legacy_graph
from dask.delayed import Delayed
from dask.highlevelgraph import HighLevelGraph

from smgrid.blocks import ZSTD_LEVEL, Block, Folder, Layer, StorageFullError, graph_of, replace
from smgrid.grid import find_crs
from smgrid.identity import identities
from smgrid.ledger import Line, count_appended, finished, one_writer, read_lines

__all__ = ["CorruptStoreError", "IncompleteStoreError", "StorageFullError", "open_maps", "write_zarr"]

log = logging.getLogger("smgrid")

FORMAT = 1
CELLS = 512  # side of a chunk where the maps come without chunks


class IncompleteStoreError(ValueError):
    """A store whose write was stopped."""


class CorruptStoreError(ValueError):
    """A store that lacks what it should hold."""


def write_zarr(maps: Any, path: Any, *, resume: bool = True, progress: bool | None = None) -> xr.Dataset:
    """Write maps block by block; a stopped run goes on where it stopped.

    The same call does three things: it writes a new store, goes on with one that was stopped (by a kill, a full disk,
    an error), and adds new dates to one that is finished. Blocks whose model and inputs are what they were are not
    computed again. Blocks run in parallel on Dask's active scheduler.

    Parameters
    ----------
    maps : Dataset (or one DataArray)
        Layers with dims (..., time, y, x) or (..., y, x), lazy or in memory, as `predict_map` makes them.
    path : str or path
        A local folder, `NAME.zarr`.
    resume : bool
        False starts anew; a store that exists is replaced once the new one is whole.
    progress : bool, optional
        True shows a bar, False nothing; by default a bar in a terminal or notebook, a log line a minute otherwise.

    Returns
    -------
    Dataset
        The whole store, lazy, as `open_maps` gives it.

    Raises
    ------
    ValueError
        The store there holds another model, grid or layers, or later dates; the message names the difference.
    StorageFullError
        The disk is full. The store stays resumable.
    RuntimeError
        A block failed (the message names it, the cause is chained), or another process is writing to `path`.

    Examples
    --------
    >>> import tempfile, xarray as xr, smgrid
    >>> grid = smgrid.Grid(9, 1274, 3489, 4, 4)
    >>> maps = xr.Dataset({"soil_moisture": (("y", "x"), [[0.1] * 4] * 4)}, coords=grid.coords())
    >>> folder = tempfile.TemporaryDirectory()
    >>> smgrid.write_zarr(maps, folder.name + "/yanco.zarr").soil_moisture.mean().compute().item()
    0.1
    >>> folder.cleanup()
    """
    target, started = _local(path), time.monotonic()
    partial = target.with_name(target.name + ".partial")
    with one_writer(target, [p / "smgrid" / "ledger" for p in (partial, target)]) as (lock, token):
        if not resume:
            _check_ours(target, "replaced")
            _remove(partial)
        root = partial if partial.exists() or not target.exists() else target
        known = _manifest(root)
        if known is None and (root is target or _foreign(root)):
            raise ValueError(f"{root} is there and was not written by smgrid: choose another path, or move it away")
        maps, chunks = _tidy(maps, known)
        whole, places = _calendar(maps, root, known, root is target)
        manifest = _describe(maps, chunks, whole)
        _check_same(root, known, manifest)
        run = _Run(root, root is target, manifest, known, lock, token)
        run.prepare(maps, whole)
        try:
            run.compute(maps, places, progress)
            run.publish()
            if root is partial:
                _swap(partial, target)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise run.full(error) from error
    _report(target, run.summary(), time.monotonic() - started, run.computed)
    return open_maps(target)


def open_maps(path: Any) -> xr.Dataset:
    """Open maps that `write_zarr` wrote, lazily, with their CRS attached.

    Parameters
    ----------
    path : str or path
        The local folder.

    Raises
    ------
    IncompleteStoreError
        The write was stopped; the message says how much is there and how to go on.
    FileNotFoundError, ValueError
        Nothing is there, or something that smgrid did not write.
    """
    target = _local(path)
    partial = target.with_name(target.name + ".partial")
    for root in (target, partial):
        known = _manifest(root)
        if known is None and not root.exists():
            continue
        if known is None and root is target:
            raise ValueError(f"{target} was not written by smgrid's write_zarr; xarray.open_zarr may open it")
        # metadata first, ledger second: a chunk is in the ledger before any reader's metadata shows it
        maps = xr.open_zarr(root, decode_coords="all", consolidated=True) if root is target else None
        known = {"layers": {}} if known is None else known
        expected = _expected(known["layers"], known.get("dates") if maps is None else _labels(maps))
        there = read_lines(root / "smgrid" / "ledger")
        if maps is None or any(key not in there for key in expected):
            n, m = _blocks(expected, there)
            raise IncompleteStoreError(
                f"{root} holds {n} of {m} blocks: its write was stopped. Call write_zarr with the same maps and "
                f"{str(target)!r} again; it goes on from there"
            )
        assert maps is not None
        return maps
    raise FileNotFoundError(f"no maps at {target}")


def _local(path: Any) -> Path:
    text = os.fspath(path) if isinstance(path, str | os.PathLike) else None
    if text is None or "://" in text or "::" in text:
        raise ValueError(
            f"{path!r} is no local path: blocks are locked and renamed, which needs a file system that all workers "
            "share. Write to a local folder NAME.zarr and copy it when it is done"
        )
    target = Path(os.path.abspath(text))
    if target.suffix.lower() not in (".zarr", ""):
        instead = {
            ".tif": "write_geotiff(maps, path)", ".tiff": "write_geotiff(maps, path)", ".nc": "maps.to_netcdf(path)"
        }.get(target.suffix.lower(), "a path that ends in .zarr")  # fmt: skip
        raise ValueError(f"write_zarr writes folders named NAME.zarr, not {target.suffix!r}: use {instead}")
    return target


# ---- what the maps are


def _tidy(maps: Any, known: Mapping[str, Any] | None) -> tuple[xr.Dataset, dict[str, int]]:
    """Maps whose layers are Dask arrays on one regular grid of chunks; and those chunks, 1 along time."""
    if isinstance(maps, xr.DataArray):
        maps = maps.to_dataset(name=maps.name or "soil_moisture")
    if not isinstance(maps, xr.Dataset):
        raise TypeError(f"maps are an xarray Dataset, not {type(maps).__name__}")
    names = [name for name, layer in maps.data_vars.items() if {"y", "x"} <= set(layer.dims)]
    if not names:
        raise ValueError(f"no layer has dims (y, x); the dims are {tuple(maps.sizes)}: rename them")
    if "time" in maps.dims and "time" in maps.indexes and not maps.indexes["time"].is_monotonic_increasing:
        raise ValueError("the dates are not in order: maps = maps.sortby('time')")
    if "time" in maps.dims and ("time" not in maps.indexes or not maps.indexes["time"].is_unique):
        raise ValueError("every date of the maps needs a `time` of its own; some are missing or there twice")
    sizes = {dim: 1 for dim in maps.dims}
    for name in names:
        chunks = maps[name].chunksizes or {dim: (min(CELLS, n),) for dim, n in maps[name].sizes.items()}
        sizes |= {str(d): max(sizes[d], *c) for d, c in chunks.items()}
    sizes |= {dim: n for layer in (known or {"layers": {}})["layers"].values() for dim, n in layer["chunks"].items()}
    out = maps.copy()
    for name in names:
        layer = maps[name]
        regular = {
            dim: sizes[dim] for dim, c in layer.chunksizes.items() if dim != "time" and not _regular(c, sizes[dim])
        }
        if layer.chunks is None:
            regular = {dim: 1 if dim == "time" else sizes[dim] for dim in layer.dims}
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


def _labels(maps: xr.Dataset) -> list[str] | None:
    """The dates as text; None without a time dimension."""
    if "time" not in maps.dims:
        return None
    values = maps["time"].values
    if values.dtype.kind == "M":
        return [text.removesuffix("T00:00:00.000000000") for text in np.datetime_as_string(values.astype("M8[ns]"))]
    return [str(value) for value in values]


def _calendar(maps: xr.Dataset, root: Path, known: Mapping[str, Any] | None, append: bool) -> tuple[xr.Dataset, Any]:
    """All that is stored whole, over the dates of the store and the maps; and the places of the maps' dates."""
    own = maps.drop_vars([name for name, v in maps.data_vars.items() if {"y", "x"} <= set(v.dims)])
    new, old = _labels(maps), (known or {}).get("dates")
    if known is None or (new is None) != (old is None) or new is None:
        return own, None if new is None else tuple(range(len(new)))
    gone = [date for date in old if date not in set(new)]
    if gone and not append:
        raise ValueError(
            f"{root} is an unfinished write of other dates ({gone[0]} ... are not in these maps): give maps that have "
            "them too, or start anew with resume=False"
        )
    if append:
        late = [date for n, date in enumerate(new) if date not in set(old)]
        stored = xr.open_zarr(root, decode_coords="all", consolidated=True, chunks=None)
        last = stored["time"].values[-1]
        early = [date for date in late if not maps["time"].values[new.index(date)] > last]
        if early:
            raise ValueError(
                f"{root} ends with {old[-1]}, and the maps bring {early[0]}, which lies before: dates are added in "
                "order. Start anew with resume=False and maps that hold all dates"
            )
        if gone:
            kept = stored.drop_vars([n for n in stored.data_vars if n not in own.variables]).load()
            kept = kept.isel(time=[n for n, date in enumerate(old) if date in set(gone)])
            own = xr.concat(
                [kept, own], "time", data_vars="minimal", coords="minimal", compat="override", join="override",
                combine_attrs="override",
            )  # fmt: skip
            own = own.sortby("time").assign_attrs(maps.attrs)
    order = _labels(own) or []
    at = {date: n for n, date in enumerate(order)}
    return own, tuple(at[date] for date in new)


def _describe(maps: xr.Dataset, chunks: Mapping[str, int], whole: xr.Dataset) -> dict[str, Any]:
    """The manifest: what these maps are, in words and numbers that can be compared."""
    crs = find_crs(maps)
    code = crs and crs.to_epsg()
    grid: dict[str, Any] = {"crs": f"EPSG:{code}" if code else crs and _digest(crs.to_wkt().encode())}
    for name in ("y", "x"):
        if name in maps.coords:
            values = np.asarray(maps[name].values, "f8")
            grid[name] = f"{values.size} cells, {values[0]!r} ... {values[-1]!r}, {_digest(values.tobytes())}"
    layers = {}
    for name, layer in maps.data_vars.items():
        if {"y", "x"} <= set(layer.dims):
            told = {k: layer.attrs[k] for k in ("units", "flag_meanings") if k in layer.attrs}
            if "flag_values" in layer.attrs:
                told["flag_values"] = np.asarray(layer.attrs["flag_values"]).tolist()
            layers[str(name)] = {
                "dims": list(layer.dims),
                "sizes": {d: layer.sizes[d] for d in layer.dims if d != "time"},
                "chunks": {d: chunks[d] for d in layer.dims},
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
        "coordinates": rest, "dates": _labels(whole),
    }  # fmt: skip


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def _check_same(root: Path, known: Mapping[str, Any] | None, manifest: Mapping[str, Any]) -> None:
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
                if old.get(name) != new.get(name):
                    found.append(f"{part}, {name}: {old.get(name)} there, {new.get(name)} here")
        elif old != new:
            found.append(f"the {part} is {old} there and {new} here")
    if (known["dates"] is None) != (manifest["dates"] is None):
        found.append("one has a time dimension and the other has not")
    if found:
        raise ValueError(
            f"{root} holds other maps: {'; '.join(found)}. Write to another path, or start anew with resume=False"
        )


# ---- one run


class _Run:
    """One write: from the folder it found to the finished store."""

    def __init__(
        self, root: Path, published: bool, manifest: dict, known: Mapping[str, Any] | None, lock: str, token: str
    ):
        self.root, self.manifest = root, manifest
        self.readable = 0 if not published or known is None else len(known["dates"] or [0])
        self.own = root / "smgrid"
        self.lock, self.token = lock, token
        self.expected = _expected(manifest["layers"], manifest["dates"])
        self.computed, self.left = 0, 0

    def prepare(self, maps: xr.Dataset, whole: xr.Dataset) -> None:
        """Sweep what a crash left, and write the metadata aside, so that what cannot be stored fails now."""
        import zarr

        self.own.mkdir(parents=True, exist_ok=True)
        for orphan in self.root.rglob("*.partial"):
            orphan.unlink()
        shutil.rmtree(self.own / "next", ignore_errors=True)
        if not self.readable:
            replace(self.own / "manifest.json", _json(self.manifest))
        _write_metadata(maps, whole, self.manifest["layers"], self.own / "next")
        layers = {}
        for name, told in self.manifest["layers"].items():
            array = zarr.open_array(self.own / "next" / name, mode="r")
            encoding = {k: v for k, v in maps[name].encoding.items() if k != "grid_mapping"}
            kind = np.dtype(array.dtype).newbyteorder("<").str
            layers[name] = Layer(name, tuple(told["dims"]), tuple(array.chunks), kind, array.fill_value, encoding)
        self.folder = Folder(str(self.root), self.lock, self.token, layers, self.readable)
        with open(self.folder.ledger, "ab"):
            pass

    def compute(self, maps: xr.Dataset, places: tuple[int, ...] | None, progress: bool | None) -> None:
        """Compute and store every block that is not there as it would come out."""
        layers = {name: maps[name].variable for name in self.manifest["layers"]}
        graph = HighLevelGraph.merge(*(v.data.__dask_graph__() for v in layers.values()))
        nodes = convert_legacy_graph(dict(graph))
        blocks = _blocks_of(layers, places, maps, nodes)
        there = read_lines(self.folder.ledger)
        todo = [block for block in blocks if not self._is_done(block, there)]
        self.computed, total = len(todo), len(blocks)
        coming = {key for block in todo for layer in block.keys for key, _ in block.chunks(self.folder.layers[layer])}
        lost = [key for key in self.expected if key not in there and key not in coming]
        if lost:
            raise CorruptStoreError(
                f"the ledger of {self.root} lacks {len(lost)} chunks ({lost[0]} ...) of dates that these maps do not "
                "hold: give maps with all dates, or start anew with resume=False"
            )
        if not todo:
            return
        unknown = sum(any(None in ids for ids in block.identities.values()) for block in blocks)
        if unknown and there:
            log.warning("%s: %d blocks are started afresh, since their inputs cannot be identified", self.root, unknown)
        log.info("%s: %d of %d blocks to compute", self.root, len(todo), total)
        self._check_space(coming)
        work, final = graph_of(nodes, self.folder, todo)
        parts = len(coming)
        with _shown(progress, self.folder.ledger, parts, self.root.name.removesuffix(".partial")):
            tasks = Delayed(final, HighLevelGraph.from_collections(final, work), layer=final)
            try:
                dask.compute(tasks, optimize_graph=False)
            except (RuntimeError, OSError):
                raise
            except Exception as error:
                raise RuntimeError(
                    f"an input that several blocks of {self.root} share failed: {type(error).__name__}: {error}"
                ) from error

    def _is_done(self, block: Block, there: Mapping[str, Line]) -> bool:
        for name in block.keys:
            for key, identity in block.chunks(self.folder.layers[name]):
                line = there.get(key)
                if identity is None or line is None or line.identity != identity or not self.folder.find(line):
                    return False
        return True

    def _check_space(self, coming: set[str]) -> None:
        bytes_each = {
            name: int(np.prod(layer.chunk)) * np.dtype(layer.dtype).itemsize
            for name, layer in self.folder.layers.items()
        }
        self.left = sum(bytes_each[key.split("/")[0]] for key in coming)
        free = shutil.disk_usage(self.root).free
        if free < self.left:
            log.warning("%s may need up to %s (before compression); %s are free", self.root, _si(self.left), _si(free))

    def full(self, error: OSError) -> StorageFullError:
        """The disk is full: what is there, and how much is still needed."""
        there = read_lines(self.folder.ledger)
        sizes = [p.stat().st_size for key in itertools.islice(there, 1000) if (p := self.root / key).exists()]
        left = [key for key in self.expected if key not in there]
        needed = int(np.mean(sizes) * len(left)) if sizes else self.left
        n, m = _blocks(self.expected, there)
        return StorageFullError(
            errno.ENOSPC,
            f"no space left: {n} of {m} blocks are stored, about {_si(needed)} ({needed} bytes) more are needed, "
            f"{_si(shutil.disk_usage(self.root).free)} are free. Make room and call write_zarr again; it goes on",
            str(self.root),
        )

    def publish(self) -> None:
        """Show the finished whole: changed chunks, coordinates, lengths, and last the group's own metadata."""
        there = read_lines(self.folder.ledger)
        lines = [there[key] for key in self.expected]
        kept = set(self.expected)
        for key in kept & {str(p.relative_to(self.own / "staged")) for p in _files(self.own / "staged")}:
            if self.folder.find(there[key]) == self.folder.staged(key):
                os.replace(self.folder.staged(key), self.root / key)
        for name in self.manifest["layers"]:
            for path in _files(self.root / name / "c"):  # dates of a run that was stopped and never taken up again
                if str(path.relative_to(self.root)) not in kept:
                    path.unlink()
        aside = self.own / "next"
        # chunks before the metadata of their arrays, the group's last
        for path in sorted(_files(aside), key=lambda p: (p.parent == aside, p.name == "zarr.json", p)):
            _move_if_new(path, self.root / path.relative_to(aside))
        self.manifest["summary"] = _summary(lines, self.manifest)
        for name, data in (("ledger", finished(lines)), ("manifest.json", _json(self.manifest))):
            if (self.own / name).read_bytes() != data:
                replace(self.own / name, data)
        for rest in ("next", "staged"):
            shutil.rmtree(self.own / rest, ignore_errors=True)

    def summary(self) -> dict[str, Any]:
        """What the store holds, counted."""
        return self.manifest["summary"]


def _expected(layers: Mapping[str, Any], dates: Sequence[str] | None) -> list[str]:
    """Keys of every chunk of a whole store."""
    keys = []
    for name, told in layers.items():
        counts = [
            len(dates or ()) if dim == "time" else -(-told["sizes"][dim] // told["chunks"][dim]) for dim in told["dims"]
        ]
        keys += ["/".join([name, "c", *map(str, at)]) for at in np.ndindex(*counts)]
    return keys


def _blocks(expected: Sequence[str], there: Mapping[str, Line]) -> tuple[int, int]:
    """How many blocks are stored with all their layers, of how many."""
    places: dict[str, bool] = {}
    for key in expected:
        at = key.split("/", 1)[1]
        places[at] = places.get(at, True) and key in there
    return sum(places.values()), len(places)


def _blocks_of(
    layers: Mapping[str, xr.Variable], places: tuple[int, ...] | None, maps: xr.Dataset, nodes: Mapping[Any, Any]
) -> list[Block]:
    """The maps' blocks; layers with the same dims and chunks go together."""
    groups: dict[Any, list[str]] = {}
    for name, layer in layers.items():
        groups.setdefault((layer.dims, layer.data.chunks), []).append(name)
    made, wanted, labels = [], {}, _labels(maps) or []
    for (dims, chunks), names in groups.items():
        starts = [np.cumsum([0, *c]) for c in chunks]
        for at in np.ndindex(*(len(c) for c in chunks)):
            span = {d: (int(s[i]), int(s[i + 1])) for d, s, i in zip(dims, starts, at)}
            days = slice(*span["time"]) if "time" in dims else None
            keys = {name: (layers[name].data.name, *at) for name in names}
            tile = {d: i for d, i in zip(dims, at) if d != "time"}
            place = ", ".join(f"{d} {i}..{j - 1}" for d, (i, j) in span.items() if d != "time")
            if days is not None:
                place = f"{'..'.join(dict.fromkeys((labels[days][0], labels[days][-1])))}, {place}"
            made.append((keys, tile, places[days] if places is not None and days else None, f"block ({place})"))
            whole = (None, 1) if days is None else (dims.index("time"), days.stop - days.start)
            wanted.update(dict.fromkeys(keys.values(), whole))
    found = identities(nodes, wanted)
    return [Block(k, tile, dates, {n: found[key] for n, key in k.items()}, where) for k, tile, dates, where in made]


# ---- on disk


def _write_metadata(maps: xr.Dataset, whole: xr.Dataset, layers: Mapping[str, Any], folder: Path) -> None:
    """Everything of a store but its blocks: what xarray writes of maps whose layers are not there yet."""
    import zarr
    from zarr.codecs import ZstdCodec

    codecs = (ZstdCodec(level=ZSTD_LEVEL, checksum=True),)
    out = whole.compute()
    for name, variable in out.variables.items():
        out[name].encoding = _whole_encoding(variable) | {"compressors": codecs}
    for name, told in layers.items():
        shape = [out.sizes["time"] if dim == "time" else told["sizes"][dim] for dim in told["dims"]]
        empty = da.zeros(shape, chunks=-1, dtype=maps[name].dtype)
        out[name] = xr.Variable(told["dims"], empty, maps[name].attrs)
        encoding = maps[name].encoding
        fill = encoding.get("_FillValue", 0)
        chunks = tuple(told["chunks"][dim] for dim in told["dims"])
        out[name].encoding = encoding | {"chunks": chunks, "compressors": codecs, "fill_value": fill}
    with zarr.config.set({"array.write_empty_chunks": True}):
        out.to_zarr(folder, mode="w", compute=False, zarr_format=3, consolidated=False)
    group = json.loads((folder / "zarr.json").read_text())
    members = {path.parent.name: json.loads(path.read_text()) for path in sorted(folder.glob("*/zarr.json"))}
    group["consolidated_metadata"] = {"kind": "inline", "must_understand": False, "metadata": members}
    (folder / "zarr.json").write_bytes(_json(group, sort=False))
    (folder / "smgrid").mkdir()
    (folder / "smgrid" / "zarr.json").write_bytes(_json({"attributes": {}, "zarr_format": 3, "node_type": "group"}))


def _whole_encoding(variable: xr.Variable) -> dict[str, Any]:
    """Encoding that depends on no other date, so that a store that grew is what it would be in one go."""
    chunks = tuple(1 if dim == "time" else n for dim, n in variable.sizes.items())
    if variable.dtype.kind != "M":
        return {"chunks": chunks} | ({} if variable.dtype.kind in "OSUT" else {"_FillValue": None})
    if variable.dims != ("time",) or np.isnat(variable.values).any():
        return {"chunks": chunks, "units": "seconds since 1970-01-01", "dtype": "float64"}
    days = (variable.values == variable.values.astype("M8[D]")).all()
    return {"chunks": chunks, "units": f"{'days' if days else 'seconds'} since 1970-01-01", "dtype": "int64"}


def _manifest(root: Path) -> dict[str, Any] | None:
    """What a store says it is; None where there is no store of ours."""
    try:
        return json.loads((root / "smgrid" / "manifest.json").read_text())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError as error:
        raise CorruptStoreError(f"{root}/smgrid/manifest.json cannot be read ({error}): use resume=False") from error


def _json(content: Any, sort: bool = True) -> bytes:
    return (json.dumps(content, indent=1, sort_keys=sort) + "\n").encode()


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if not path.is_dir()]


def _foreign(root: Path) -> list[str]:
    """Files in a store that smgrid did not write."""
    names = {"smgrid", *(_manifest(root) or {"layers": ()})["layers"]}
    with suppress(FileNotFoundError, ValueError, KeyError):
        names |= set(json.loads((root / "zarr.json").read_text())["consolidated_metadata"]["metadata"])
    parts = (path.relative_to(root).parts for path in _files(root))
    return sorted("/".join(p) for p in parts if p[0] not in names and p != ("zarr.json",))


def _check_ours(root: Path, fate: str) -> None:
    if not root.exists():
        return
    if _manifest(root) is None:
        raise ValueError(f"{root} was not written by smgrid, so it is not {fate}: choose another path, or move it away")
    if foreign := _foreign(root):
        raise ValueError(f"{root} holds files that smgrid did not write, so it is not {fate}: move {foreign[:3]} away")


def _remove(root: Path) -> None:
    if _manifest(root) is not None or _foreign(root):
        _check_ours(root, "removed")
    if root.exists():
        shutil.rmtree(root)


def _move_if_new(path: Path, to: Path) -> None:
    if not to.exists() or to.read_bytes() != path.read_bytes():
        to.parent.mkdir(parents=True, exist_ok=True)
        os.replace(path, to)


def _swap(partial: Path, target: Path) -> None:
    """Put the finished store in its place; an old one goes only after that."""
    old = target.with_name(target.name + ".replaced")
    if target.exists():
        _check_ours(target, "replaced")
        _remove(old)
        os.rename(target, old)
    os.rename(partial, target)
    _remove(old)


# ---- what is said


def _summary(lines: Sequence[Line], manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Cells in all, with a value, and by the meaning of their flags."""
    cells, mapped, flags = 0, 0, dict[str, int]()
    for line in lines:
        if line.counts != "-":
            counts = json.loads(line.counts)
            cells, mapped = cells + counts["cells"], mapped + counts["mapped"]
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
    blocks = _blocks([line.key for line in lines], {})[1]
    return {"blocks": blocks, "cells": cells, "mapped": mapped, "status": by_status, "culprit": by_culprit}


def _meanings(layer: Mapping[str, Any] | None) -> dict[str, str]:
    told = layer or {}
    return {str(v): m for v, m in zip(told.get("flag_values", ()), told.get("flag_meanings", "").split())}


def _report(target: Path, summary: Mapping[str, Any], seconds: float, computed: int) -> None:
    states = []
    for state, n in summary["status"].items():
        reasons = ", ".join(f"{name} {k}" for name, k in summary["culprit"].get(state, {}).items())
        states.append(f"{state} {n}" + (f" ({reasons})" if reasons else ""))
    log.info(
        "%s: %d blocks (%d computed now), %d of %d cells mapped%s; %.1f s",
        target, summary["blocks"], computed, summary["mapped"], summary["cells"],
        "".join(f", {state}" for state in states), seconds,
    )  # fmt: skip


def _si(n: float) -> str:
    power = max(i for i in range(5) if i == 0 or n >= 1000**i)
    return f"{n / 1000**power:.3g} {('B', 'kB', 'MB', 'GB', 'TB')[power]}"


@contextmanager
def _shown(progress: bool | None, ledger: Path, total: int, title: str) -> Iterator[None]:
    """Show how far the ledger has grown, on whatever scheduler the blocks run."""
    if progress is False:
        yield
        return
    bar = progress or sys.stderr.isatty() or "ipykernel" in sys.modules
    stop, offset = threading.Event(), ledger.stat().st_size
    begun = time.monotonic()

    def watch(say: Any) -> None:
        done, at = 0, offset
        while True:
            last = stop.wait(0.2 if bar else 60)
            more, at = count_appended(ledger, at)
            done += more
            say(done)
            if last:
                return

    with _bar(title, total) if bar else _lines(title, total, begun) as say:
        watcher = threading.Thread(target=watch, args=(say,), daemon=True)
        watcher.start()
        try:
            yield
        finally:
            stop.set()
            watcher.join()


@contextmanager
def _bar(title: str, total: int) -> Iterator[Any]:
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True)) as bars:
        task = bars.add_task(title, total=total)
        yield lambda done: bars.update(task, completed=done)


@contextmanager
def _lines(title: str, total: int, begun: float) -> Iterator[Any]:
    def say(done: int) -> None:
        spent = time.monotonic() - begun
        if spent >= 60 and 0 < done:
            rest = spent * (total - done) / done
            log.info("%s: %d of %d chunks after %.0f s, about %.0f s to go", title, done, total, spent, rest)

    yield say
