"""Says what a lazy block is made of.

A stopped run may keep a finished block only if it would come out the same today. Dask's key names do not say so:
they stay the same when a chunk of an opened Zarr store is overwritten in place, and they change when the same data
is opened under another path or with one date more. So a block is named here by a hash over its own part of the task
graph (a Merkle tree): every key stands for what it computes, a function for its qualified name (or its code, where no
name leads to it), a literal for its value, and **data for their content**: arrays in memory by the bytes of the region
asked for, arrays in a local Zarr store by the bytes of the chunk files under that region, arrays in other local files
(NetCDF, HDF5, GeoTIFF) by the bytes of the file, read once. No path, time stamp or key name enters, so a cube that grew
by a date leaves the older blocks as they were, and a chunk that changed changes just the blocks that read it.

What cannot be known cheaply and surely (remote stores, results on a cluster, odd objects) has no identity: None.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import logging
import operator
import os
import sys
import types
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import dask
import numpy as np
from dask._task_spec import Alias, DataNode, GraphNode, Task, TaskRef, convert_legacy_graph
from dask.array._shuffle import _getitem as _shuffled
from dask.array.core import getter, getter_inline, getter_nofancy
from dask.tokenize import tokenize

log = logging.getLogger("smgrid")

_GETTERS = (getter, getter_inline, getter_nofancy, operator.getitem)
_TRANSPARENT = ("ImplicitToExplicitIndexingAdapter", "CopyOnWriteArray", "MemoryCachedArray", "NumpyIndexingAdapter")
_ELEMENTWISE = ("_ElementwiseFunctionArray", "NativeEndiannessArray", "BoolTypeArray")


class Unidentified(Exception):
    """Something without an identity; the message says what and why."""


def block_identities(array: Any) -> dict[tuple[int, ...], str | None]:
    """Say what each block of a Dask array is made of.

    Parameters
    ----------
    array : dask.array.Array
        Not computed; files and arrays that its blocks read are hashed (each once).

    Returns
    -------
    dict
        Block index -> SHA-256 in hex, or None where the block cannot be identified (why is logged).

    Examples
    --------
    >>> import dask.array as da, numpy as np
    >>> before, after = np.zeros(4), np.array([0.0, 0, 0, 1])
    >>> a, b = (block_identities(np.sqrt(da.from_array(v, chunks=2))) for v in (before, after))
    >>> a[0,] == b[0,], a[1,] == b[1,]
    (True, False)
    """
    keys = {index: (array.name, *index) for index in np.ndindex(*array.numblocks)}
    found = identities(array.__dask_graph__(), dict.fromkeys(keys.values(), (None, 1)))
    return {index: found[key][0] for index, key in keys.items()}


def identities(
    graph: Mapping[Any, Any], wanted: Mapping[Hashable, tuple[int | None, int]]
) -> dict[Hashable, list[str | None]]:
    """Say what the results under some keys of a task graph are made of, one slice along an axis after the other.

    Parameters
    ----------
    graph : mapping
        A Dask graph, fused or not, of any layers.
    wanted : mapping of key to (axis, n)
        The block's n slices along the axis are identified each for itself; with axis None the block as a whole.
        A slice cut out of a larger block is what the same slice of the larger block is.

    Returns
    -------
    dict of key to list of str or None
    """
    with dask.config.set({"tokenize.ensure-deterministic": True}):
        whole = _Graph(convert_legacy_graph(dict(graph)), _Contents())
        found = {
            key: [whole.digest(key)] if axis is None else whole.slices(key, axis, n)
            for key, (axis, n) in wanted.items()
        }
    if whole.reasons:
        log.info("blocks without an identity: %s", "; ".join(sorted(whole.reasons)))
    return found


class _Graph:
    """A task graph whose keys can be asked for the identity of their results."""

    def __init__(self, nodes: dict, contents: _Contents, outer: dict | None = None, reasons: set | None = None):
        self.nodes, self.contents = nodes, contents
        self.outer = outer or {}  # keys of a fused task's own graph that come in from outside: (graph, key)
        self.digests: dict[Hashable, str | None] = {}
        self.views: dict[Hashable, _View | None] = {}
        self.reasons: set[str] = set() if reasons is None else reasons

    def digest(self, key: Hashable) -> str | None:
        """Identity of one key's result. A stack, not recursion: long chains of tasks are normal."""
        stack = [key]
        while stack:
            top = stack[-1]
            if top in self.digests:
                stack.pop()
            elif waiting := self._unknown_below(top):
                stack.extend(waiting)
            else:
                self.digests[top] = self._tried(self._result, top)
        return self.digests[key]

    def slices(self, key: Hashable, axis: int, n: int) -> list[str | None]:
        """Identities of the n slices of a block along an axis."""
        places = list(range(n))
        while self.view(key) is None and (cut := self._cut(key, axis)) is not None:
            key, index = cut
            taken = range(sys.maxsize)[index] if isinstance(index, slice) else index
            places = [int(taken[place]) for place in places]
        view = self.view(key)
        if view is None:
            whole = self.digest(key)
            return [None if whole is None else _hash("slice", whole, str(place)) for place in places]
        alone = [view.narrow((slice(None),) * axis + (slice(place, place + 1),)) for place in places]
        return [None if one is None else self._tried(one.digest, self.contents) for one in alone]

    def _cut(self, key: Hashable, axis: int) -> tuple[Hashable, Any] | None:
        """The key and the index that a result was cut from along one axis alone, if that is what it is."""
        node = self.nodes.get(key)
        if isinstance(node, Alias):
            return node.target, slice(None)
        source, index = self._indexed(node)
        if not isinstance(source, TaskRef) or not isinstance(index, tuple) or len(index) <= axis:
            return None
        others = (i for n, i in enumerate(index) if n != axis)
        if not all(isinstance(i, slice) and i in (slice(None), slice(None, None, 1)) for i in others):
            return None
        taken = index[axis]
        if isinstance(taken, slice):
            fine = all(bound is None or bound >= 0 for bound in (taken.start, taken.stop)) and (taken.step or 1) > 0
        else:
            taken = np.asarray(taken)
            fine = taken.ndim == 1 and taken.dtype.kind in "iu"
        return (source.key, taken) if fine else None

    def _indexed(self, node: Any) -> tuple[Any, Any]:
        """What a task of Dask's slicing takes from, and the index; (None, None) of any other task."""
        if not isinstance(node, Task) or node.kwargs or len(node.args) < 2:
            return None, None
        source, index = node.args[:2]
        if isinstance(index, TaskRef):
            index = self.nodes.get(index.key)
        index = index.value if isinstance(index, DataNode) else index
        if isinstance(index, GraphNode):
            return None, None
        if node.func in _GETTERS:
            return source, index
        return (source, index[1]) if node.func is _shuffled else (None, None)

    def _tried(self, function: Callable, *args: Any) -> str | None:
        try:
            return function(*args)
        except Exception as error:  # objects without a token fail in ways of their own; none may stop a write
            self.reasons.add(str(error))
            return None

    def _unknown_below(self, key: Hashable) -> list[Hashable]:
        if key not in self.nodes or self.view(key) is not None:
            return []  # a region of a source is hashed for itself, not through the whole source
        return [k for k in self.nodes[key].dependencies if k not in self.digests]

    def _result(self, key: Hashable) -> str:
        if key in self.outer:
            graph, name = self.outer[key]
            return _known(graph.digest(name))
        if key not in self.nodes:
            raise Unidentified("a result that lies on a cluster or is not in the graph")
        view = self.view(key)
        return self._node(self.nodes[key]) if view is None else view.digest(self.contents)

    def _node(self, node: Any) -> str:
        """Identity of a task, or of an argument of a task, whose dependencies are known."""
        if isinstance(node, TaskRef | Alias):
            key = node.key if isinstance(node, TaskRef) else node.target
            return _known(self.digest(key))
        if isinstance(node, DataNode):
            return self.contents.literal(node.value)
        if not isinstance(node, Task):
            if isinstance(node, GraphNode):
                raise Unidentified(f"a {type(node).__name__} of Dask's graph")
            return self.contents.literal(node)
        if node.has_subgraph():
            inside, out, names, *given = node.args
            nodes = convert_legacy_graph(dict(inside))
            nodes |= {name: value for name, value in zip(names, given) if isinstance(value, DataNode)}
            inner = {name: (self, ref.key) for name, ref in zip(names, given) if isinstance(ref, TaskRef)}
            return _known(_Graph(nodes, self.contents, inner, self.reasons).digest(out))
        parts = [self.contents.literal(node.func), *map(self._node, node.args)]
        parts += [f"{name}={self._node(value)}" for name, value in sorted(node.kwargs.items())]
        return _hash("task", *parts)

    def view(self, key: Hashable) -> _View | None:
        """The region of a source that a key is, if it is nothing but that."""
        if key not in self.views:
            if key in self.outer:
                graph, name = self.outer[key]
                self.views[key] = graph.view(name)
            else:
                self.views[key] = self._view(self.nodes.get(key))
        return self.views[key]

    def _view(self, node: Any) -> _View | None:
        if isinstance(node, TaskRef | Alias):
            return self.view(node.key if isinstance(node, TaskRef) else node.target)
        if isinstance(node, Task):
            source, index = self._indexed(node)
            inner = None if source is None else self._view(source)
            return None if inner is None else inner.narrow(index)
        value = node.value if isinstance(node, DataNode) else node
        try:
            return _view_of(value)
        except Unidentified:
            return None  # said again, and kept, when the value itself is hashed


@dataclass(frozen=True)
class _View:
    """A region of a source: per dimension of the source the places taken, and whether the dimension is kept."""

    source: Any
    dims: tuple[tuple[Any, bool], ...]  # (range or array of places, kept)
    how: tuple[str, ...] = ()  # what is done to every value on the way

    def narrow(self, index: Any, orthogonal: bool = False) -> _View | None:
        """The view under a NumPy index, or None where it is more than slices, integers and one array."""
        index = index if isinstance(index, tuple) else (index,)
        fancy = sum(not isinstance(i, slice | int | np.integer) for i in index)
        if any(i is None or i is Ellipsis or isinstance(i, str | GraphNode | TaskRef) for i in index):
            return None
        if not orthogonal and (fancy > 1 or (fancy and any(isinstance(i, int | np.integer) for i in index))):
            return None
        rest, dims = iter(index), []
        for places, kept in self.dims:
            i = next(rest, slice(None)) if kept else slice(None)
            if isinstance(i, int | np.integer):
                dims.append((range(int(places[i]), int(places[i]) + 1), False))
            else:
                dims.append((_pick(places, i), kept))
        return _View(self.source, tuple(dims), self.how)

    def digest(self, contents: _Contents) -> str:
        """Identity of the region's content."""
        if isinstance(self.source, np.ndarray):
            return _hash("array", *self.how, _hash_array(self._values()))
        return _hash("region", *self.how, *self.source.describe(self.dims, contents))

    def _values(self) -> np.ndarray:
        values = self.source
        for axis, (places, _) in enumerate(self.dims):
            if isinstance(places, range):
                stop = places.stop if places.stop >= 0 else None
                values = values[(slice(None),) * axis + (slice(places.start, stop, places.step),)]
            else:
                values = values.take(places, axis)
        return values.reshape([len(places) for places, kept in self.dims if kept])


def _pick(places: Any, index: Any) -> Any:
    """Places under a slice or an index array; a range again wherever they are evenly spaced."""
    if isinstance(index, slice):
        return places[index]
    picked = np.asarray(places)[np.asarray(index)]
    if picked.ndim != 1 or not picked.size:
        return picked.ravel()
    step = int(picked[1] - picked[0]) if picked.size > 1 else 1
    if step and (np.diff(picked) == step).all():
        return range(int(picked[0]), int(picked[-1]) + (1 if step > 0 else -1), step)
    return picked


def _spell(places: Any, origin: int = 0) -> str:
    if isinstance(places, range):
        return f"{places.start - origin}+{len(places)}*{places.step if len(places) > 1 else 1}"
    return _hash_array(np.asarray(places) - origin)


def _view_of(value: Any) -> _View | None:
    """The whole of an array as a view, through xarray's lazy adapters; None if the value is no array."""
    kind = type(value).__name__
    if isinstance(value, np.generic) or not (hasattr(value, "shape") and hasattr(value, "dtype")):
        return None
    if isinstance(value, np.ndarray):
        return None if value.dtype.hasobject else _View(value, tuple((range(n), True) for n in value.shape))
    if kind == "PandasIndexingAdapter":
        return _view_of(np.asarray(value.array))
    if kind in _TRANSPARENT:
        return _view_of(value.array)
    if kind in _ELEMENTWISE:
        inner = _view_of(value.array)
        done = _hash(kind, str(np.dtype(value.dtype)), _Contents().literal(getattr(value, "func", None)))
        return None if inner is None else _View(inner.source, inner.dims, (*inner.how, done))
    if kind == "LazilyIndexedArray":
        inner = _view_of(value.array)
        return None if inner is None else inner.narrow(value.key.tuple, orthogonal=True)
    source = _ZarrSource.of(value) or _FileSource.of(value)
    if source is None:
        if hasattr(type(value), "__dask_tokenize__") and not type(value).__module__.startswith("xarray"):
            return None  # it says itself what it is
        raise Unidentified(f"a {type(value).__module__}.{kind} does not say where its values come from")
    return _View(source, tuple((range(n), True) for n in value.shape))


@dataclass(frozen=True)
class _ZarrSource:
    """An array of a Zarr store in a local folder."""

    array: Any
    folder: str
    decoding: str  # how bytes become values

    @classmethod
    def of(cls, value: Any) -> _ZarrSource | None:
        array = value if type(value).__module__.startswith("zarr.") else getattr(value, "_array", None)
        place = getattr(array, "store_path", None)
        if array is None or place is None:
            return None
        store = place.store
        if type(store).__name__ == "LocalStore":
            root = str(store.root)
        else:  # fsspec's own local file system, behind which Dask opens plain paths
            system = getattr(store, "fs", None)
            system = getattr(system, "sync_fs", getattr(system, "fs", system))
            if type(system).__name__ != "LocalFileSystem":
                raise Unidentified(f"a Zarr array that is not in a local folder ({store})")
            root = str(store.path)
        settings = {
            k: v for k, v in array.metadata.to_dict().items() if k not in ("shape", "attributes", "dimension_names")
        }
        return cls(array, os.path.join(root, place.path), json.dumps(settings, sort_keys=True, default=str))

    def describe(self, dims: tuple, contents: _Contents) -> list[str]:
        sizes = getattr(self.array, "shards", None) or self.array.chunks
        touched = [_cells(places, size) for (places, _), size in zip(dims, sizes)]
        parts = [self.decoding]
        for (places, kept), chunks, size in zip(dims, touched, sizes):
            parts.append(f"{_spell(places, chunks[0] * size if len(chunks) else 0)}{'' if kept else '!'}")
        name = self.array.metadata.encode_chunk_key
        return parts + [
            contents.file(os.path.join(self.folder, name(at))) or "empty" for at in itertools.product(*touched)
        ]


def _cells(places: Any, size: int) -> list[int]:
    """Chunks of `size` that hold the places."""
    if isinstance(places, range) and abs(places.step) <= size and len(places):
        ends = sorted((places[0] // size, places[-1] // size))
        return list(range(ends[0], ends[1] + 1))
    return [int(c) for c in np.unique(np.asarray(places, "i8") // size)]


@dataclass(frozen=True)
class _FileSource:
    """A variable of a local file that xarray, rioxarray or h5py has open."""

    path: str
    variable: str

    @classmethod
    def of(cls, value: Any) -> _FileSource | None:
        if type(value).__module__.startswith("h5py"):
            return cls(value.file.filename, value.name)
        datastore = getattr(value, "datastore", None)
        manager = getattr(value, "manager", getattr(datastore, "_manager", None))
        if manager is None:
            return None
        path = next(iter(getattr(manager, "_args", ())), None)
        if not isinstance(path, str | os.PathLike) or not os.path.isfile(path):
            raise Unidentified(f"an array of {path!r}, which is no local file")
        if getattr(value, "vrt_params", None) or str(path).lower().endswith(".vrt"):
            raise Unidentified(f"{path} is a virtual raster, whose values lie in other files")
        names = ("variable_name", "masked", "mask_and_scale", "_fill_value", "_unsigned_dtype", "_dtype")
        settings = [type(value).__qualname__, getattr(datastore, "_group", None)]
        return cls(os.fspath(path), str(settings + [str(getattr(value, n, None)) for n in names]))

    def describe(self, dims: tuple, contents: _Contents) -> list[str]:
        digest = contents.file(self.path)
        if digest is None:
            raise Unidentified(f"{self.path} is gone")
        return [digest, self.variable, *(f"{_spell(places)}{'' if kept else '!'}" for places, kept in dims)]


class _Contents:
    """Digests of files and literals, each made once."""

    def __init__(self) -> None:
        self._files: dict[str, str | None] = {}
        self._literals: dict[int, tuple[Any, str]] = {}  # by id; the object is held, so that its id stays its own

    def file(self, path: str) -> str | None:
        """SHA-256 of a file; None where there is none."""
        if path not in self._files:
            try:
                with open(path, "rb") as file:
                    self._files[path] = hashlib.file_digest(file, "sha256").hexdigest()
            except FileNotFoundError:
                self._files[path] = None
        return self._files[path]

    def literal(self, value: Any) -> str:
        """Identity of a function, an object or a plain value."""
        if isinstance(value, str | bytes | int | float | complex | slice | type(None)) and not self._is_file(value):
            return f"{type(value).__name__}:{value!r}"
        if id(value) not in self._literals:
            self._literals[id(value)] = (value, "itself")  # a function may name itself
            try:
                self._literals[id(value)] = (value, self._literal(value))
            except BaseException:
                del self._literals[id(value)]
                raise
        return self._literals[id(value)][1]

    def _is_file(self, value: Any) -> bool:
        """A path handed to a reader stands for the file's content."""
        path = isinstance(value, os.PathLike) or (isinstance(value, str) and os.sep in value)
        return path and len(str(value)) < 4096 and os.path.isfile(value)

    def _literal(self, value: Any) -> str:
        if isinstance(value, np.ndarray) and not value.dtype.hasobject:
            return _hash_array(value)
        if isinstance(value, str | os.PathLike) and self._is_file(value):
            return _hash("file", _known(self.file(os.fspath(value))))
        if isinstance(value, list | tuple) and type(value) in (list, tuple):
            return _hash(type(value).__name__, *map(self.literal, value))
        if type(value) is dict:
            return _hash("dict", *(f"{k!r}={self.literal(v)}" for k, v in sorted(value.items(), key=repr)))
        if isinstance(value, functools.partial):
            return _hash("partial", *map(self.literal, (value.func, value.args, value.keywords)))
        if isinstance(value, types.MethodType):
            return _hash("method", value.__name__, self.literal(value.__self__))
        view = _view_of(value)
        if view is not None:
            return view.digest(self)
        name = _import_name(value)
        if name is not None:
            return name
        if isinstance(value, types.FunctionType):
            return self._code(value)
        return f"{type(value).__qualname__}:{tokenize(value)}"

    def _code(self, function: types.FunctionType) -> str:
        """A function that has no name to import it by: its code, and what the code refers to."""
        parts, codes = [], [function.__code__]
        while codes:
            code = codes.pop()
            parts += [code.co_code.hex(), str(code.co_names)]
            for constant in code.co_consts:
                if isinstance(constant, types.CodeType):
                    codes.append(constant)
                else:
                    parts.append(str(sorted(constant, key=repr)) if isinstance(constant, frozenset) else repr(constant))
            for name in code.co_names:
                seen = function.__globals__.get(name)
                if seen is not None:
                    parts.append(seen.__name__ if isinstance(seen, types.ModuleType) else self.literal(seen))
        held = [cell.cell_contents for cell in function.__closure__ or ()]
        return _hash("code", *parts, *map(self.literal, (function.__defaults__, function.__kwdefaults__, held)))


def _import_name(value: Any) -> str | None:
    """module:name, where that leads back to the very object."""
    module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(name, str) or module == "__main__" or "<" in name:
        return None
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    return f"{module}:{name}" if found is value else None


def _known(digest: str | None) -> str:
    if digest is None:
        raise Unidentified("it reads what has no identity")
    return digest


def _hash(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _hash_array(values: np.ndarray) -> str:
    digest = hashlib.sha256(f"{values.dtype.str}{values.shape}".encode())
    digest.update(np.ascontiguousarray(values).reshape(-1).view("u1").data if values.size else b"")
    return digest.hexdigest()
