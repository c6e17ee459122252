"""Says what bytes lie under a region of an array, wherever the array lies.

An array in memory is known by its values, an array of a local Zarr store by the bytes of the chunk files under the
region, an array in any other local file (NetCDF, HDF5, GeoTIFF) by the bytes of the file. Functions and objects are
known by name, code or value. Nothing here depends on paths, dates of files or Dask's key names.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import os
import sys
import types
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import dask
import numpy as np
from dask._task_spec import GraphNode, Task, TaskRef
from dask.delayed import Delayed
from dask.tokenize import tokenize

from smgrid.files import Words

_TRANSPARENT = ("ImplicitToExplicitIndexingAdapter", "CopyOnWriteArray", "MemoryCachedArray", "NumpyIndexingAdapter")
_ELEMENTWISE = ("_ElementwiseFunctionArray", "NativeEndiannessArray", "BoolTypeArray")


BATCH = 64  # files that one task reads to know them, at most
FEW = 16  # tasks that a few files, which may be large, are shared out to

Dims = tuple[
    tuple[Any, bool], ...
]  # per dimension of a source: the places taken (range or array), and whether it is kept


class Unidentified(Exception):
    """Something without an identity; the message says what and why."""


@dataclass(frozen=True)
class View:
    """A region of a source: per dimension of the source the places taken, and whether the dimension is kept."""

    source: Any
    dims: Dims
    how: tuple[str, ...] = ()  # what is done to every value on the way

    def narrow(self, index: Any, orthogonal: bool = False) -> View | None:
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
                dims.append((pick(places, i), kept))
        return View(self.source, tuple(dims), self.how)

    def digest(self, contents: Contents) -> str:
        """Identity of the region's content."""
        if isinstance(self.source, np.ndarray):
            return digest_of("array", *self.how, _hash_array(self._values()))
        return digest_of("region", *self.how, *self.source.describe(self.dims, contents))

    def _values(self) -> np.ndarray:
        values = self.source
        for axis, (places, _) in enumerate(self.dims):
            if isinstance(places, range):
                stop = places.stop if places.stop >= 0 else None
                values = values[(slice(None),) * axis + (slice(places.start, stop, places.step),)]
            else:
                values = values.take(places, axis)
        return values.reshape([len(places) for places, kept in self.dims if kept])


def pick(places: Any, index: Any) -> Any:
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


def view_of(value: Any) -> View | None:
    """The whole of an array as a view, through xarray's lazy adapters; None if the value is no array."""
    kind = type(value).__name__
    if isinstance(value, np.generic | type) or not (hasattr(value, "shape") and hasattr(value, "dtype")):
        return None
    if isinstance(value, np.ndarray):
        return None if value.dtype.hasobject else View(value, tuple((range(n), True) for n in value.shape))
    if kind == "PandasIndexingAdapter":
        return view_of(np.asarray(value.array))
    if kind in _TRANSPARENT:
        return view_of(value.array)
    if kind in _ELEMENTWISE:
        inner = view_of(value.array)
        done = digest_of(kind, str(np.dtype(value.dtype)), Contents().literal(getattr(value, "func", None)))
        return None if inner is None else View(inner.source, inner.dims, (*inner.how, done))
    if kind == "LazilyIndexedArray":
        inner = view_of(value.array)
        return None if inner is None else inner.narrow(value.key.tuple, orthogonal=True)
    if kind == "_Pending" and hasattr(value.read, "variable"):
        return view_of(value.read.variable._data)
    source = _PendingSource.of(value) or _ZarrSource.of(value) or _FileSource.of(value)
    if source is None:
        if hasattr(type(value), "__dask_tokenize__") and not type(value).__module__.startswith("xarray"):
            return None  # it says itself what it is
        raise Unidentified(f"a {type(value).__module__}.{kind} does not say where its values come from")
    return View(source, tuple((range(n), True) for n in value.shape))


@dataclass(frozen=True)
class _PendingSource:
    """An array that a product room reads part by part (`smgrid.files`)."""

    reader: Any  # a function or a value of ours; the paths in it stand for the content of the files
    dtype: str

    @classmethod
    def of(cls, value: Any) -> _PendingSource | None:
        return cls(value.read, value.dtype.str) if type(value).__name__ == "_Pending" else None

    def describe(self, dims: Dims, contents: Contents) -> list[str]:
        for path in (getattr(self.reader, "path", None), *getattr(self.reader, "args", ())):
            if isinstance(path, str) and (path.startswith("/vsi") or "://" in path):
                raise Unidentified(f"{path} is no local file")
        return [
            contents.literal(self.reader),
            self.dtype,
            *(f"{_spell(places)}{'' if kept else '!'}" for places, kept in dims),
        ]


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

    def describe(self, dims: Dims, contents: Contents) -> list[str]:
        sizes = getattr(self.array, "shards", None) or self.array.chunks
        touched = [_cells(places, size) for (places, _), size in zip(dims, sizes)]
        parts = [self.decoding]
        for (places, kept), chunks, size in zip(dims, touched, sizes):
            parts.append(f"{_spell(places, chunks[0] * size if len(chunks) else 0)}{'' if kept else '!'}")
        name = self.array.metadata.encode_chunk_key
        return parts + [contents.chunk(self.folder, name(at)) or "empty" for at in itertools.product(*touched)]

    def chunk_files(self, dims: Dims) -> list[str]:
        """Names in the folder of the files that hold a region."""
        sizes = getattr(self.array, "shards", None) or self.array.chunks
        touched = [_cells(places, size) for (places, _), size in zip(dims, sizes)]
        return [self.array.metadata.encode_chunk_key(at) for at in itertools.product(*touched)]


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

    def describe(self, dims: Dims, contents: Contents) -> list[str]:
        digest = contents.file(self.path)
        if digest is None:
            raise Unidentified(f"{self.path} is gone")
        return [digest, self.variable, *(f"{_spell(places)}{'' if kept else '!'}" for places, kept in dims)]


class Contents:
    """Digests of files and literals, each made once."""

    def __init__(self, files: dict[str, str | None] | None = None) -> None:
        self._files: dict[str, str | None] = (
            {} if files is None else files
        )  # outlives this, where someone else holds it
        self._chunks: dict[str, dict[str, str | None]] = {}  # by folder and name: there are many of them
        self._literals: dict[int, tuple[Any, str]] = {}  # by id; the object is held, so that its id stays its own

    def file(self, path: str) -> str | None:
        """SHA-256 of a file; None where there is none."""
        if path not in self._files:
            self._files[path] = digest_of_file(path)
        return self._files[path]

    def chunk(self, folder: str, name: str) -> str | None:
        """SHA-256 of a chunk's file; None where there is none."""
        chunks = self._chunks.setdefault(folder, {})
        if name not in chunks:
            chunks[name] = digest_of_file(os.path.join(folder, name))
        return chunks[name]

    def learn(self, views: Iterable[View]) -> None:
        """Read the chunks under some regions on Dask's active scheduler: many threads or workers are sooner done."""
        names: dict[str, dict[str, None]] = {}
        for view in views:
            if isinstance(view.source, _ZarrSource):
                names.setdefault(view.source.folder, {}).update(dict.fromkeys(view.source.chunk_files(view.dims)))
        run, work = uuid.uuid4().hex, dict[Any, Task]()
        for folder, found in names.items():
            new = [name for name in found if name not in self._chunks.get(folder, ())]
            step = min(BATCH, -(-len(new) // FEW))
            for some in (new[n : n + step] for n in range(0, len(new), step or 1)):
                key = (f"smgrid-known-{run}", len(work))
                work[key] = Task(key, digests_of, folder, some)
        if len(work) > 1:
            tasks = [Delayed(key, work) for key in work]  # type: ignore[no-untyped-call]
            for task, digests in zip(work.values(), dask.base.compute(*tasks, optimize_graph=False)):
                folder, some = task.args
                self._chunks.setdefault(folder, {}).update(zip(some, digests))

    def literal(self, value: Any) -> str:
        """Identity of a function, an object or a plain value."""
        if isinstance(value, Words):
            return "words"
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
            return digest_of("file", known(self.file(os.fspath(value))))
        if isinstance(value, list | tuple) and type(value) in (list, tuple):
            return digest_of(type(value).__name__, *map(self.literal, value))
        if type(value) is dict:
            return digest_of("dict", *(f"{k!r}={self.literal(v)}" for k, v in sorted(value.items(), key=repr)))
        if isinstance(value, functools.partial):
            return digest_of("partial", *map(self.literal, (value.func, value.args, value.keywords)))
        if isinstance(value, types.MethodType):
            return digest_of("method", value.__name__, self.literal(value.__self__))
        if type(value).__module__.startswith("scipy.sparse") and hasattr(value, "indptr"):
            held = [_hash_array(part) for part in (value.data, value.indices, value.indptr)]
            return digest_of("sparse", value.format, str(value.shape), *held)
        view = view_of(value)
        if view is not None:
            return view.digest(self)
        name = _import_name(value)
        if name is not None:
            return name
        if isinstance(value, types.FunctionType):
            return self._code(value)
        if is_dataclass(value) and not hasattr(value, "__dask_tokenize__"):
            parts = [self.literal(getattr(value, part.name)) for part in fields(value)]
            return digest_of(type(value).__module__, type(value).__qualname__, *parts)
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
        return digest_of("code", *parts, *map(self.literal, (function.__defaults__, function.__kwdefaults__, held)))


def digest_of_file(path: str) -> str | None:
    """SHA-256 of a file; None where there is none."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return None


def digests_of(folder: str, names: Sequence[str]) -> list[str | None]:
    """SHA-256 of files in a folder."""
    return [digest_of_file(os.path.join(folder, name)) for name in names]


def _import_name(value: Any) -> str | None:
    """module:name, where that leads back to the very object."""
    module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(name, str) or module == "__main__" or "<" in name:
        return None
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    return f"{module}:{name}" if found is value else None


def known(digest: str | None) -> str:
    """The digest, where there is one."""
    if digest is None:
        raise Unidentified("it reads what has no identity")
    return digest


def digest_of(*parts: str) -> str:
    """SHA-256 of several texts."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _hash_array(values: np.ndarray) -> str:
    digest = hashlib.sha256(f"{values.dtype.str}{values.shape}".encode())
    digest.update(np.ascontiguousarray(values).reshape(-1).view("u1").data if values.size else b"")
    return digest.hexdigest()
