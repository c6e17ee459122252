"""Says how fast a model maps a cube on this machine, from some of the cube's own blocks."""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from dask.base import compute

from smgrid.predict import predict_map

SECONDS = 10.0  # of measuring, after the first block
_BATCH = 8  # blocks at a time: enough for all workers, few enough to stop soon


@dataclass(frozen=True)
class Pace:
    """What mapping some blocks took.

    Parameters
    ----------
    blocks, all_blocks : int
        Measured, and in the whole cube.
    cells, all_cells : int
        The same in cells; cells without a prediction count too.
    mapped : float
        Share of the measured cells that have a prediction; NaN where `soil_moisture` is not among the layers.
    first : float
        Seconds of a first block, with all that is loaded once.
    seconds, cpu : float
        Wall and CPU seconds of the measured blocks.
    peak : float
        Most memory that the process ever held, MB; NaN where the system does not tell.
    """

    blocks: int
    all_blocks: int
    cells: int
    all_cells: int
    mapped: float
    first: float
    seconds: float
    cpu: float
    peak: float

    @property
    def rate(self) -> float:
        """Cells a second, wall time."""
        return self.cells / self.seconds

    @property
    def whole(self) -> float:
        """Seconds that the whole cube would take at this rate."""
        return self.first + self.all_cells / self.rate

    def __str__(self) -> str:
        """For people, a line a figure."""
        mapped = "" if np.isnan(self.mapped) else f" ({self.mapped:.0%} mapped)"
        return (
            f"measured: {self.blocks} of {self.all_blocks} blocks, {self.cells / 1e6:.3g} million cells{mapped}, "
            f"{self.seconds:.2f} s, CPU {self.cpu:.2f} s\n"
            f"rate: {self.rate / 1e6:.3g} million cells/s, after {self.first:.2f} s for a first block\n"
            f"whole cube: {self.all_cells / 1e6:.3g} million cells, some {_duration(self.whole)}, writing not counted\n"
            f"peak memory so far: {self.peak:.0f} MB"
        )


def measure(
    cube: xr.Dataset | xr.DataArray,
    model: Any,
    *,
    layers: Sequence[str] = ("soil_moisture", "status"),
    seconds: float = SECONDS,
) -> Pace:
    """Map some of a cube's blocks, spread over it, and count.

    Parameters
    ----------
    cube, model, layers
        As in `predict_map`; the cube lazy, as `open_cube` opens it.
    seconds : float
        About how long; one batch of blocks at least.

    Returns
    -------
    Pace

    Notes
    -----
    Blocks are read and mapped on Dask's active scheduler as they would be in a whole run; nothing is written. What the
    page cache holds of the cube makes reading faster than a first run would see.

    Examples
    --------
    >>> import smgrid
    >>> scene = smgrid.synthetic.yanco()
    >>> model = smgrid.train(scene.samples, smgrid.make_regressor("rf"), features=["vv", "smap"])
    >>> pace = measure(scene.cube.chunk(time=1, y=28, x=25), model, seconds=0)
    >>> pace.blocks <= pace.all_blocks and pace.all_cells == scene.cube.vv.size
    True
    """
    maps = predict_map(cube, model, layers=layers)
    soil = maps.get("soil_moisture")
    name = next(iter(maps.data_vars))
    chunks = maps[name].chunksizes
    if not chunks:
        raise ValueError("the cube is in memory, so its map was made whole: open it lazily, or cube = cube.chunk()")
    blocks = _spread([dict(zip(chunks, spans)) for spans in itertools.product(*map(_spans, chunks.values()))])
    start = time.perf_counter()
    _values(maps, blocks[:1])
    first = time.perf_counter() - start
    done, cells, mapped = 0, 0, 0.0
    wall, cpu = time.perf_counter(), time.process_time()
    while done < len(blocks) and (not done or time.perf_counter() - wall < seconds):
        made = _values(maps, blocks[done : done + _BATCH])
        done += len(made)
        cells += sum(one[name].size for one in made)
        mapped += np.nan if soil is None else sum(int(one.soil_moisture.notnull().sum()) for one in made)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return Pace(done, len(blocks), cells, maps[name].size, mapped / cells, first, wall, cpu, _peak())


def _spans(sizes: Sequence[int]) -> Iterator[slice]:
    ends = list(itertools.accumulate(sizes))
    return (slice(end - size, end) for end, size in zip(ends, sizes))


def _spread(blocks: list[Any]) -> list[Any]:
    """The same blocks in an order whose every beginning is spread over the cube: by multiples of the golden ratio."""
    order = np.argsort((np.arange(len(blocks)) * 0.6180339887498949) % 1, kind="stable")
    return [blocks[i] for i in order]


def _values(maps: xr.Dataset, blocks: Sequence[dict[Any, slice]]) -> tuple[xr.Dataset, ...]:
    return compute(*(maps.isel(block) for block in blocks))  # type: ignore[no-any-return, no-untyped-call]


def _peak() -> float:
    try:
        import resource
    except ImportError:  # Windows
        return float("nan")
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.3g} minutes" if seconds < 7200 else f"{seconds / 3600:.3g} hours"
