"""What patterns.compare costs on a chunked map of any size: seconds and memory.

    python benchmarks/patterns.py FOLDER [ROWS COLUMNS]

Writes a synthetic pair of maps to FOLDER (removed at the end) and compares it in a process of its own. Without a size
it takes the whole 1-km grid: 14616 x 34704 cells, 4 GB on disk.
"""

import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import dask.array as da
import numpy as np
import xarray as xr

from smgrid import Grid

CHUNK = 1024


def main(folder, *size):
    whole = Grid.whole(1)
    ny, nx = map(int, size) if size else whole.shape
    grid = Grid(1, (whole.ny - ny) // 2, (whole.nx - nx) // 2, ny, nx)
    path = Path(folder) / "synthetic_pair.zarr"
    pair = xr.Dataset({name: field(grid, seed) for seed, name in enumerate(("prediction", "reference"))})
    pair.to_zarr(path, mode="w", consolidated=False)
    try:
        subprocess.run([sys.executable, __file__, "--compare", str(path)], check=True)
    finally:
        shutil.rmtree(path)


def field(grid, seed):
    """Waves that both maps share, and noise of their own."""

    def block(block_info=None):
        y, x = (np.arange(*ends, dtype="f4") for ends in block_info[None]["array-location"])
        noise = np.random.default_rng([seed, int(y[0]), int(x[0])]).standard_normal((y.size, x.size), dtype="f4")
        return 0.25 + 0.1 * np.sin(y / 37)[:, None] * np.cos(x / 53) + 0.03 * noise

    chunks = da.core.normalize_chunks((CHUNK, CHUNK), grid.shape)
    values = da.map_blocks(block, chunks=chunks, dtype="f4", meta=np.empty((0, 0), "f4"))
    return xr.DataArray(values, grid.coords(), ("y", "x"), attrs={"units": "m3 m-3"})


def compare(path):
    from smgrid import patterns

    pair = xr.open_zarr(path, consolidated=False, decode_coords="all")
    start, cpu = time.perf_counter(), time.process_time()
    card = patterns.compare(pair.prediction, pair.reference)
    wall, cpu, n = time.perf_counter() - start, time.process_time() - cpu, pair.prediction.size
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{pair.prediction.shape}: r = {card.pearson_r.item():.4f}, unit {card.attrs['bootstrap_km']} km")
    print(f"{wall:.0f} s ({wall / n * 1e6:.2f} us a cell), CPU {cpu / n * 1e6:.2f} us a cell, peak {peak:.0f} MiB")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--compare"]:
        compare(sys.argv[2])
    else:
        main(*sys.argv[1:])
