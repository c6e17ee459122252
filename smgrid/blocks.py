"""Computes one block of maps and lays its chunks down, one date each.

All that only one block needs is computed inside one task, so that its inputs are dropped when it is done, a fault can
name the block, and nothing is computed twice; what several blocks share (the model, an opened file) stays a task of its
own.
"""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import os
import uuid
from collections import Counter
from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from dask._task_spec import DataNode, GraphNode, Task, TaskRef
from dask.utils import key_split

from smgrid.common import Common
from smgrid.ledger import Line, read_lines, settle, writing

ZSTD_LEVEL = 3
FOLDER = "smgrid-folder"  # where what all blocks share has the folder they go to


class StorageFullError(OSError):
    """The disk is full; what is stored stays, and the write can go on once there is space."""


class BlockFault(RuntimeError):
    """A block that could not be computed; the message names it and the task, the cause is chained."""


@dataclass(frozen=True)
class Layer:
    """How one variable lies on disk."""

    name: str
    dims: tuple[str, ...]
    chunk: tuple[int, ...]  # cells; 1 along time
    dtype: str  # as stored
    fill: Any
    encoding: Mapping[str, Any]

    def encode(self, values: np.ndarray) -> bytes:
        """The bytes of one chunk file; cells beyond the map's edge hold the fill value."""
        from numcodecs.zstd import Zstd  # type: ignore[import-untyped]

        stored = values if self._is_as_stored(values) else self._as_cf(values)
        if stored.dtype.newbyteorder("<") != np.dtype(self.dtype):
            raise TypeError(f"{self.name} came out as {stored.dtype}, but it is stored as {self.dtype}")
        if stored.shape != self.chunk:
            whole = np.full(self.chunk, self.fill, self.dtype)
            whole[tuple(slice(n) for n in stored.shape)] = stored
            stored = whole
        return Zstd(level=ZSTD_LEVEL, checksum=True).encode(np.ascontiguousarray(stored))

    def _is_as_stored(self, values: np.ndarray) -> bool:
        """Whether there is nothing to scale or to fill, as in the layers of maps."""
        fill, plain = self.encoding.get("_FillValue"), {"dtype", "_FillValue", "grid_mapping"}
        same = values.dtype == np.dtype(self.dtype) and self.encoding.keys() <= plain
        return same and (fill is None or (values.dtype.kind == "f" and bool(np.isnan(fill))))

    def _as_cf(self, values: np.ndarray) -> np.ndarray:
        return xr.conventions.encode_cf_variable(xr.Variable(self.dims, values, encoding=dict(self.encoding))).values


@dataclass(frozen=True)
class Folder:
    """Where the chunks of a run go, and what lets it write there."""

    root: str
    lock: str
    token: str
    layers: Mapping[str, Layer]
    readable: int  # dates that readers see; their chunks are replaced only when the whole run is done
    begun: int = 0  # bytes of the ledger when the run began
    durable: bool = False  # whether a chunk must lie on the disk itself before the ledger names it

    @property
    def ledger(self) -> Path:
        """The text file that names every finished chunk."""
        return Path(self.root, "smgrid", "ledger")

    def staged(self, key: str) -> Path:
        """Where the new bytes of a chunk wait while readers still see the old ones."""
        return self.own("staged", key)

    def own(self, *parts: str) -> Path:
        """A place in the part of the store that is smgrid's alone."""
        return Path(self.root, "smgrid", *parts)

    def has(self, block: Block) -> bool:
        """Whether this very run stored a block already: a cluster does again what a worker did that is lost."""
        keys = [key for name in block.keys for key, _ in block.chunks(self.layers[name])]
        if not all(Path(self.root, key).exists() for key in keys):
            return False
        new = read_lines(self.ledger, self.begun)
        return all(key in new and self.find(new[key]) for key in keys)

    def find(self, line: Line) -> Path | None:
        """The file that holds the very bytes of a ledger line."""
        for path in (Path(self.root, line.key), self.staged(line.key)):
            with suppress(FileNotFoundError):
                if hashlib.sha256(path.read_bytes()).hexdigest() == line.sha256:
                    return path
        return None


@dataclass(frozen=True)
class Block:
    """One block of the maps: where its parts go, and what each is made of."""

    keys: Mapping[str, Hashable]  # layer -> key of its block in the graph
    tile: Mapping[str, int]  # dimension -> index of the chunk, time left out
    dates: tuple[int, ...] | None  # places in the store's time; None without a time dimension
    identities: Mapping[str, Sequence[str | None]]  # layer -> one per date
    shape: tuple[int, ...]
    where: str  # for people
    nodes: tuple[GraphNode, ...] = field(default=(), repr=False)  # its own tasks, in the order they run

    def chunks(self, layer: Layer) -> Iterator[tuple[str, str | None]]:
        """Key and identity of a layer's chunks, date by date."""
        for n, date in enumerate(self.dates or (0,)):
            at = [date if dim == "time" else self.tile[dim] for dim in layer.dims]
            yield "/".join([layer.name, "c", *map(str, at)]), self.identities[layer.name][n]


def write_block(common: Common, block: Block, names: tuple[Hashable, ...], *values: Any) -> None:
    """Compute a block from what it shares with all (`common`) or some others (`names`, `values`) and store it."""
    shared = common.get()
    folder: Folder = shared[FOLDER]
    if common.files and folder.has(block):
        return
    results = _compute(block, shared | dict(zip(names, values)))
    layers = [folder.layers[name] for name in block.keys]
    counts = _counts(results, layers, len(block.dates or (0,)))
    chunks = []
    for layer in layers:
        for n, (key, identity) in enumerate(block.chunks(layer)):
            part = results[layer.name]
            if "time" in layer.dims:
                part = part.take([n], layer.dims.index("time"))
            try:
                data = layer.encode(part)
            except Exception as error:
                raise _fault(block, layer.name, error) from error
            said = counts[n] if layer is layers[0] else "-"
            chunks.append((Line(key, hashlib.sha256(data).hexdigest(), identity or "-", said), data))
    try:
        with writing(str(folder.ledger), folder.lock, folder.token, folder.durable) as append:
            for line, data in chunks:
                _put(folder, line.key, data)
                append(line)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageFullError(errno.ENOSPC, "no space left", folder.root) from error
        raise


def _compute(block: Block, results: dict[Hashable, Any]) -> dict[str, Any]:
    work = _Work(block, results)
    layers = {name: np.asarray(work.value(key)) for name, key in block.keys.items()}
    for name, values in layers.items():
        if values.shape != block.shape:
            found = ValueError(f"it came out with shape {values.shape}, not {block.shape}")
            raise _fault(block, name, found) from found
    return layers


class _Work:
    """A block's own tasks: each runs when its result is first asked for, which is kept until its last user is done.

    So a task that takes its arguments one by one (`on_demand`) reads no predictor of cells that an earlier one settled.
    """

    def __init__(self, block: Block, results: dict[Hashable, Any]):
        self.block, self.results = block, results
        self.nodes: dict[Hashable, Any] = {node.key: node for node in block.nodes}
        self.users = Counter(need for node in block.nodes for need in node.dependencies)
        self.users.update(block.keys.values())
        self.sized = {task.key for key in block.keys.values() if (task := on_demand(self.nodes, key)) is not None}

    def value(self, key: Hashable) -> Any:
        """The result under a key. A stack, not recursion: long chains of tasks are normal."""
        stack = [key]
        while stack:
            top = stack[-1]
            if top in self.results:
                stack.pop()
            elif waiting := self._waiting(top):
                stack.extend(waiting)
            else:
                self._run(self.nodes[top])
        return self.results[key]

    def _waiting(self, key: Hashable) -> list[Hashable]:
        if key in self.sized:
            return []
        return [need for need in self.nodes[key].dependencies if need not in self.results]

    def _run(self, node: Any) -> None:
        try:
            if node.key in self.sized:
                found = node.func.on_demand(self.block.shape, *(partial(self.value, ref.key) for ref in node.args))
            else:
                found = node({need: self.results[need] for need in node.dependencies})
        except BlockFault:
            raise
        except Exception as error:
            raise _fault(self.block, key_split(node.key), error) from error
        self.results[node.key] = found
        for need in node.dependencies:
            self.users[need] -= 1
            if not self.users[need]:
                self.results.pop(need, None)


def on_demand(nodes: Mapping[Hashable, Any], key: Hashable) -> Any:
    """The task behind one layer of a block that takes its arguments one by one, if there is one.

    It is the task of the key itself, or the one that a layer is taken out of: both have the shape of the block.
    """
    node: Any = nodes.get(key)
    if isinstance(node, Task) and isinstance(node.func, itemgetter) and len(node.args) == 1:
        node = nodes.get(getattr(node.args[0], "key", None))
    able = isinstance(node, Task) and hasattr(node.func, "on_demand") and not node.kwargs
    return node if able and all(isinstance(arg, TaskRef) for arg in node.args) else None


def spare(nodes: dict[Hashable, Any], keys: Iterable[Hashable], shape: tuple[int, ...]) -> None:
    """Cut the predictors off a block of maps whose mask, where it lies in memory, leaves nothing to predict."""
    for key in keys:
        task = on_demand(nodes, key)
        if task is None or not getattr(task.func, "masked", False):
            continue
        where = nodes.get(task.args[-1].key)
        if isinstance(where, DataNode) and isinstance(where.value, np.ndarray) and not where.value.any():
            nodes[task.key] = Task(task.key, task.func.all_masked, shape, task.args[-1])


def _fault(block: Block, what: str, error: Exception) -> BlockFault:
    layers = ", ".join(block.keys)
    return BlockFault(f"{block.where} of {layers} failed in {what!r}: {type(error).__name__}: {error}")


def _put(folder: Folder, key: str, data: bytes) -> None:
    """Write a chunk whole or not at all; leave it alone where it holds these bytes already."""
    path = Path(folder.root, key)
    with suppress(FileNotFoundError):
        if path.read_bytes() == data:
            if folder.durable:
                settle(path, *folders_of(path, folder.root))
            return
        at = folder.layers[key.split("/")[0]].dims
        date = int(key.split("/")[2 + at.index("time")]) if "time" in at else 0
        if date < folder.readable:
            path = folder.staged(key)
    path.parent.mkdir(parents=True, exist_ok=True)
    replace(path, data, folder.root if folder.durable else None)


def replace(path: Path, data: bytes, durable: str | Path | None = None) -> None:
    """Write a file whole or not at all; durably, with the folders it lies in up to the one that is given."""
    new = path.with_name(f"{path.name}.{uuid.uuid4().hex}.partial")
    try:
        new.write_bytes(data)
        if durable is not None:
            settle(new)
        os.replace(new, path)
        if durable is not None:
            settle(*folders_of(path, durable))
    except BaseException:
        new.unlink(missing_ok=True)
        raise


def folders_of(path: Path, root: str | Path) -> list[Path]:
    """The folders from a file up to the root."""
    return [folder for folder in path.parents if folder.is_relative_to(root)]


def _counts(results: Mapping[str, Any], layers: Sequence[Layer], dates: int) -> list[str]:
    """Per date: cells, cells with a value, and cells by status and culprit."""
    found = []
    for n in range(dates):
        part = {
            layer.name: results[layer.name].take([n], layer.dims.index("time"))
            if "time" in layer.dims
            else results[layer.name]
            for layer in layers
        }
        main = part.get("soil_moisture", next(iter(part.values())))
        mapped = np.isfinite(main).sum() if main.dtype.kind == "f" else main.size
        counts: dict[str, Any] = {"cells": main.size, "mapped": int(mapped)}
        if "status" in part:
            flags = [part[name] for name in ("status", "culprit") if name in part]
            if flags[0].dtype != "u1" or flags[0].shape != flags[-1].shape or flags[0].dtype != flags[-1].dtype:
                flags = [flags[0].astype("u1")]
            pairs = flags[0].astype("u2") << 8 | (flags[1] if len(flags) > 1 else 0)
            numbers = np.bincount(pairs.ravel())
            counts["flags"] = {f"{v >> 8}.{v & 255}": int(numbers[v]) for v in np.flatnonzero(numbers).tolist()}
        found.append(json.dumps(counts, separators=(",", ":"), sort_keys=True))
    return found


def graph_of(
    nodes: Mapping[Hashable, GraphNode], folder: Folder, blocks: Sequence[Block]
) -> tuple[dict[Any, GraphNode], str, str]:
    """The task graph that computes and stores the blocks; the name of their keys, and its one final key.

    A task that a single block needs goes into the block's own; values that several need (the model, opened sources,
    axes) into what all have in common; the tasks of several blocks stay as they are.
    """
    owner = _owners(nodes, blocks)
    shared = {key: nodes[key] for key, who in owner.items() if who < 0}
    values = {key: node.value for key, node in shared.items() if isinstance(node, DataNode)}
    graph = {key: node for key, node in shared.items() if key not in values}
    graph |= {need: nodes[need] for node in graph.values() for need in _needs(node) if need in values}
    run = uuid.uuid4().hex
    place, write, final = f"common-{run}", f"write-{run}", f"written-{run}"
    common = Common.of({**values, FOLDER: folder}, folder.own("common"))
    graph[place] = DataNode(place, common)
    ends = []
    for number, block in enumerate(blocks):
        own = _in_order(nodes, owner, number, block)
        outside = {need for node in own for need in node.dependencies} | set(block.keys.values())
        outside -= {node.key for node in own} | values.keys()
        needs: tuple[Any, ...] = tuple(sorted(outside, key=str))
        whole = dataclasses.replace(block, nodes=own)
        end = (write, number)
        graph[end] = Task(end, write_block, TaskRef(place), whole, needs, *(TaskRef(need) for need in needs))
        ends.append(end)
    graph[final] = Task(final, _nothing, *(TaskRef(end) for end in ends))
    return graph, write, final


def _needs(node: Any) -> Collection[Hashable]:
    return node.dependencies if isinstance(node, GraphNode) else ()  # else a result that lies on a cluster


def _nothing(*_: Any) -> None:
    """What remains of blocks once they are stored."""


def _owners(nodes: Mapping[Hashable, GraphNode], blocks: Sequence[Block]) -> dict[Hashable, int]:
    """Which block alone needs a task; -1 where several do."""
    owner: dict[Hashable, int] = {}
    for number, block in enumerate(blocks):
        stack = list(block.keys.values())
        while stack:
            key = stack.pop()
            seen = owner.get(key)
            if seen == number or seen == -1:
                continue
            own = isinstance(nodes[key], GraphNode)  # else a result that lies on a cluster
            owner[key] = number if seen is None and own else -1
            stack.extend(nodes[key].dependencies if own else ())
    return owner


def _in_order(
    nodes: Mapping[Hashable, GraphNode], owner: Mapping[Hashable, int], number: int, block: Block
) -> tuple[GraphNode, ...]:
    """A block's own tasks, each after what it needs."""
    done: dict[Hashable, GraphNode] = {}
    stack = list(block.keys.values())
    while stack:
        key = stack[-1]
        if key in done or owner[key] != number:
            stack.pop()
        elif below := [k for k in nodes[key].dependencies if owner[k] == number and k not in done]:
            stack.extend(below)
        else:
            done[key] = nodes[stack.pop()]
    return tuple(done.values())
