"""Hands out the blocks of maps in portions that a scheduler can hold, each with the tasks it needs and no others.

A year of global maps has some 200 000 blocks, and its task graph, spelled out, millions of keys. So the graph stays
symbolic, and only the part of one portion is spelled out at a time. A portion is some places with all their dates: a
static field is then read once a place for all dates, however many portions there are.
"""

from __future__ import annotations

import heapq
import itertools
import math
import threading
from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import xarray as xr
from dask._task_spec import convert_legacy_graph
from dask.highlevelgraph import HighLevelGraph, MaterializedLayer

from smgrid.blocks import Block, spare
from smgrid.contents import Contents
from smgrid.identity import identities
from smgrid.manifest import date_labels, made_together

T = TypeVar("T")

MOST = 5_000
"""Blocks of a portion: the planner holds two of them at a time, some 60 kB a block of 20 predictors."""


@dataclass(frozen=True)
class Portion:
    """Some blocks, and the task graph that they come out of."""

    blocks: list[Block]
    nodes: Mapping[Any, Any]
    number: int
    of: int


def count_blocks_of(layers: Mapping[str, xr.Variable]) -> int:
    """How many blocks the layers have in all portions."""
    return sum(math.prod(map(len, chunks)) for (_, chunks, _) in _groups(layers))


def portions(layers: Mapping[str, xr.Variable], places: tuple[int, ...] | None, maps: xr.Dataset) -> Iterator[Portion]:
    """The maps' blocks, some places with all their dates at a time.

    Parameters
    ----------
    layers : mapping of str to Variable
        Dask arrays.
    places : tuple of int, optional
        Where the maps' dates lie in the store's time.
    maps : Dataset
        For the dates' names.
    """
    graph = _ready(HighLevelGraph.merge(*(v.data.__dask_graph__() for v in layers.values())))
    labels, files = date_labels(maps) or [], dict[str, str | None]()
    of = -(-count_blocks_of(layers) // MOST)
    streams = [_outlines(group, names, layers, places, labels) for group, names in _groups(layers).items()]
    merged = heapq.merge(*streams, key=lambda outline: outline[0])  # blocks of one place together
    for number, some in enumerate(iter(lambda: list(itertools.islice(merged, MOST)), []), start=1):
        blocks, axes = [block for _, block, _ in some], [axis for *_, axis in some]
        wanted: dict[Any, tuple[int | None, int]] = {
            key: axis for block, axis in zip(blocks, axes) for key in block.keys.values()
        }
        spelled = dict(graph.cull(wanted))
        nodes = spelled | convert_legacy_graph(spelled)  # results that lie on a cluster stay the futures they are
        for block in blocks:
            spare(nodes, block.keys.values(), block.shape)
        found = identities(nodes, wanted, Contents(files))
        known = [replace(b, identities={name: found[key] for name, key in b.keys.items()}) for b in blocks]
        yield Portion(known, nodes, number, of)


def _ready(graph: HighLevelGraph) -> HighLevelGraph:
    """The graph with sources as tasks; of any that are not, Dask would spell out all keys of all layers to cull."""
    known: dict[str, Any] = {}
    for name, layer in graph.layers.items():
        if isinstance(layer, MaterializedLayer) and not graph.dependencies[name]:
            known[name] = MaterializedLayer({**layer.mapping, **convert_legacy_graph(layer.mapping)})
    return HighLevelGraph({**graph.layers, **known}, graph.dependencies)


def planned_ahead(plans: Iterable[T]) -> Iterator[T]:
    """The same, with the next one made while the one before is worked on."""
    stream, end = iter(plans), object()

    def start() -> tuple[threading.Thread, list[Any]]:
        made: list[Any] = []

        def make() -> None:
            try:
                made.extend((next(stream, end), None))
            except BaseException as error:
                made.extend((end, error))

        thread = threading.Thread(target=make, daemon=True)  # nobody waits for it when the work is stopped
        thread.start()
        return thread, made

    coming = start()
    while True:
        thread, made = coming
        thread.join()
        plan, error = made
        if error is not None:
            raise error
        if plan is end:
            return
        coming = start()
        yield plan


def _groups(layers: Mapping[str, xr.Variable]) -> dict[Any, list[str]]:
    """Layers with the same dims and chunks go together, a cube's variables each for itself."""
    groups: dict[Any, list[str]] = {}
    together = made_together(layers)
    for name, layer in layers.items():
        groups.setdefault((layer.dims, layer.data.chunks, None if together else name), []).append(name)
    return groups


def _outlines(
    group: Any, names: list[str], layers: Mapping[str, xr.Variable], places: tuple[int, ...] | None, labels: list[str]
) -> Iterator[tuple[tuple[int, int], Block, tuple[int | None, int]]]:
    """Place, block without identities, and time axis with its length: place by place, date by date."""
    dims, chunks, _ = group
    starts = [np.cumsum([0, *c]) for c in chunks]
    order = sorted(range(len(dims)), key=lambda n: {"y": 0, "x": 1, "time": 3}.get(dims[n], 2))
    for turned in np.ndindex(*(len(chunks[n]) for n in order)):
        at = tuple(turned[order.index(n)] for n in range(len(dims)))
        span = {d: (int(s[i]), int(s[i + 1])) for d, s, i in zip(dims, starts, at)}
        days = slice(*span["time"]) if "time" in dims else None
        keys: dict[str, Hashable] = {name: (layers[name].data.name, *at) for name in names}
        tile = {d: i for d, i in zip(dims, at) if d != "time"}
        where = ", ".join(f"{d} {i}..{j - 1}" for d, (i, j) in span.items() if d != "time")
        if days is not None:
            where = f"{'..'.join(dict.fromkeys((labels[days][0], labels[days][-1])))}, {where}"
        dates = places[days] if places is not None and days is not None else None
        shape = tuple(j - i for i, j in span.values())
        axis = (None, 1) if days is None else (dims.index("time"), days.stop - days.start)
        yield (span["y"][0], span["x"][0]), Block(keys, tile, dates, {}, shape, f"block ({where})"), axis
