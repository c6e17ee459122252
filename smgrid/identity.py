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

import logging
import operator
import sys
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from typing import Any

import dask
import numpy as np
from dask._task_spec import Alias, DataNode, GraphNode, Task, TaskRef, convert_legacy_graph
from dask.array import chunk
from dask.array._shuffle import _getitem as _shuffled
from dask.array.core import getter, getter_inline, getter_nofancy

from smgrid.contents import Contents, Unidentified, View, digest_of, known, view_of

log = logging.getLogger("smgrid")

_GETTERS = (getter, getter_inline, getter_nofancy, operator.getitem, chunk.getitem)


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
    graph: Mapping[Any, Any], wanted: Mapping[Hashable, tuple[int | None, int]], contents: Contents | None = None
) -> dict[Hashable, list[str | None]]:
    """Say what the results under some keys of a task graph are made of, one slice along an axis after the other.

    Parameters
    ----------
    graph : mapping
        A Dask graph, fused or not, of any layers.
    wanted : mapping of key to (axis, n)
        The block's n slices along the axis are identified each for itself; with axis None the block as a whole.
        A slice cut out of a larger block is what the same slice of the larger block is.
    contents : Contents, optional
        What is known of files already; the chunks of Zarr stores are then read on Dask's active scheduler.

    Returns
    -------
    dict of key to list of str or None
    """
    with dask.config.set({"tokenize.ensure-deterministic": True}):
        whole = _Graph(convert_legacy_graph(dict(graph)), contents or Contents())
        if contents is not None:
            contents.learn(whole.regions(wanted))
        found = {
            key: [whole.digest(key)] if axis is None else whole.slices(key, axis, n)
            for key, (axis, n) in wanted.items()
        }
    if whole.reasons:
        log.info("blocks without an identity: %s", "; ".join(sorted(whole.reasons)))
    return found


class _Graph:
    """A task graph whose keys can be asked for the identity of their results."""

    def __init__(
        self,
        nodes: dict[Hashable, Any],
        contents: Contents,
        outer: dict[Hashable, Any] | None = None,
        reasons: set[str] | None = None,
    ):
        self.nodes, self.contents = nodes, contents
        self.outer = outer or {}  # keys of a fused task's own graph that come in from outside: (graph, key)
        self.digests: dict[Hashable, str | None] = {}
        self.views: dict[Hashable, View | None] = {}
        self.reasons: set[str] = set() if reasons is None else reasons

    def regions(self, keys: Iterable[Hashable]) -> Iterator[View]:
        """The regions of sources that the results under some keys are made of."""
        stack, seen = list(keys), set(keys)
        while stack:
            key = stack.pop()
            if (view := self.view(key)) is not None:
                yield view
            elif key in self.nodes:
                new = self.nodes[key].dependencies - seen
                seen |= new
                stack.extend(new)

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
            return [None if whole is None else digest_of("slice", whole, str(place)) for place in places]
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

    def _tried(self, function: Callable[..., str], *args: Any) -> str | None:
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
            return known(graph.digest(name))
        if key not in self.nodes:
            raise Unidentified("a result that lies on a cluster or is not in the graph")
        view = self.view(key)
        return self._node(self.nodes[key]) if view is None else view.digest(self.contents)

    def _node(self, node: Any) -> str:
        """Identity of a task, or of an argument of a task, whose dependencies are known."""
        if isinstance(node, TaskRef | Alias):
            key = node.key if isinstance(node, TaskRef) else node.target
            return known(self.digest(key))
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
            return known(_Graph(nodes, self.contents, inner, self.reasons).digest(out))
        parts = [self.contents.literal(node.func), *map(self._node, node.args)]
        parts += [f"{name}={self._node(value)}" for name, value in sorted(node.kwargs.items())]
        return digest_of("task", *parts)

    def view(self, key: Hashable) -> View | None:
        """The region of a source that a key is, if it is nothing but that."""
        if key not in self.views:
            if key in self.outer:
                graph, name = self.outer[key]
                self.views[key] = graph.view(name)
            else:
                self.views[key] = self._view(self.nodes.get(key))
        return self.views[key]

    def _view(self, node: Any) -> View | None:
        if isinstance(node, TaskRef | Alias):
            return self.view(node.key if isinstance(node, TaskRef) else node.target)
        if isinstance(node, Task):
            source, index = self._indexed(node)
            inner = None if source is None else self._view(source)
            return None if inner is None else inner.narrow(index)
        value = node.value if isinstance(node, DataNode) else node
        try:
            return view_of(value)
        except Unidentified:
            return None  # said again, and kept, when the value itself is hashed
