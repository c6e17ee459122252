"""What the verbs of `seams` cost on a large chunked map: seconds, nanoseconds a cell, memory.

    python benchmarks/seams_cost.py [--rows 14616] [--cols 34704] [--chunk 1024] [--verbs detect imprint straight_lines]

The map is synthetic and made block by block (white noise and 9-km steps, a third missing), so that what is timed holds
its making too, which is timed alone first (with a sum over it). Memory is the peak of the process above what it held before.
"""

import argparse
import resource
import time
import warnings

import dask.array as da
import numpy as np
import xarray as xr

from smgrid import Grid, seams


def block(block_id, chunk, shape):
    """A block of the synthetic map, float32."""
    rng = np.random.default_rng(block_id)
    rows, cols = (min(chunk, n - i * chunk) for i, n in zip(block_id, shape))
    r, c = np.arange(rows)[:, None] + block_id[0] * chunk, np.arange(cols) + block_id[1] * chunk
    z = rng.standard_normal((rows, cols), "f4")
    z *= 0.01
    z += (0.01 * (((r // 9) * 7 + (c // 9) * 13) % 11) / 11).astype("f4")
    z[rng.random((rows, cols), "f4") < 1 / 3] = np.nan
    return z


def main():
    """Time the verbs one after the other."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=14616)
    parser.add_argument("--cols", type=int, default=34704)
    parser.add_argument("--chunk", type=int, default=1024)
    parser.add_argument("--verbs", nargs="+", default=["detect", "straight_lines"])
    options = parser.parse_args()
    shape = options.rows, options.cols
    grid = Grid(1, 0, 0, *shape)
    chunks = tuple(tuple(min(options.chunk, n - i) for i in range(0, n, options.chunk)) for n in shape)
    meta = np.empty((0, 0), "f4")
    lazy = da.map_blocks(lambda block_id: block(block_id, options.chunk, shape), chunks=chunks, dtype="f4", meta=meta)
    field = xr.DataArray(lazy, grid.coords(), ("y", "x"))
    coarse = grid.coarsen(9)
    r, c = np.mgrid[: coarse.ny, : coarse.nx]
    smap = xr.DataArray(0.01 * ((r * 7 + c * 13) % 11) / 11, coarse.coords(), ("y", "x"), "smap")
    before = peak()
    start = time.perf_counter()
    float(da.nansum(lazy))
    making = time.perf_counter() - start
    print("| verb | cells | s | ns a cell, making included | peak MiB so far | found |")
    print("|---|--:|--:|--:|--:|---|")
    print(f"| (making the map) | {lazy.size} | {making:.1f} |  | {peak() - before:.0f} |  |", flush=True)
    for verb in options.verbs:
        start = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            found = getattr(seams, verb)(field, smap) if verb in ("imprint", "edges") else getattr(seams, verb)(field)
        seconds = time.perf_counter() - start
        words = {"detect": "ratio", "imprint": "beta", "edges": "fraction"}.get(verb)
        said = f"{words} {found[words].item():.3f}" if words else f"{len(found)} lines"
        ns = 1e9 * seconds / lazy.size
        print(f"| {verb} | {lazy.size} | {seconds:.1f} | {ns:.1f} | {peak() - before:.0f} | {said} |", flush=True)


def peak():
    """MiB that the process has held at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
