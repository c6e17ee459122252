"""Makes each chunk of a lazy array one task that needs no other.

Dask computes what several chunks need once, and holds it until the last of them is done. Where that is much and cheap to
do again, such as the pixels read along the border of two tiles, it is better done again.
"""

from __future__ import annotations

from typing import Any

import dask.array as da
import numpy as np
from dask._task_spec import DataNode, Task, convert_legacy_graph
from dask.highlevelgraph import HighLevelGraph


def alone(array: Any) -> Any:
    """The same lazy array with one task a chunk; only data (opened files, arrays) are shared.

    Examples
    --------
    >>> both = da.arange(6, chunks=6) + 1
    >>> apart = alone(both.rechunk(3))
    >>> len(both.rechunk(3).dask), len(apart.dask), apart.compute().tolist()
    (6, 2, [1, 2, 3, 4, 5, 6])
    """
    nodes = convert_legacy_graph(dict(array.__dask_graph__()))
    name = f"alone-{array.name}"
    graph: dict[Any, Any] = {}
    for index in np.ndindex(*array.numblocks):
        own: dict[Any, Any] = {}
        stack: list[Any] = [(array.name, *index)]
        while stack:
            key = stack.pop()
            if isinstance(nodes[key], DataNode):
                graph[key] = nodes[key]
            elif key not in own:
                own[key] = nodes[key]
                stack.extend(nodes[key].dependencies)
        graph[(name, *index)] = Task.fuse(*own.values(), key=(name, *index))
    made: Any = HighLevelGraph.from_collections(name, graph)
    return da.Array(made, name, array.chunks, meta=array._meta)
