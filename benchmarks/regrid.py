"""Time, memory and distance of to_grid and of GDAL's average: python benchmarks/regrid.py [pixels along a side]"""

import sys
import time
from pathlib import Path

import numpy as np
import xarray as xr
from rasterio.transform import from_origin
from rasterio.warp import Resampling, reproject

from smgrid.grid import Grid
from smgrid.regrid import to_grid

STEP, WEST, NORTH = 1 / 3600, 145.0, -33.0  # an arc-second, as SRTM has


def scene(n, missing, seed=0):
    """A synthetic float32 raster: blobs, texture, and gaps in blobs and single pixels."""
    rng = np.random.default_rng(seed)

    def blobs(size):
        return np.kron(rng.random((-(-n // size),) * 2, "f4"), np.ones((size, size), "f4"))[:n, :n]

    image = 300 + 100 * blobs(256) + 50 * blobs(32) + 20 * rng.random((n, n), "f4")
    if missing:
        image[(blobs(64) < 0.25) | (rng.random((n, n), "f4") < 0.067)] = np.nan
    return image


def gdal(field, grid):
    out = np.full(grid.shape, np.nan, "f4")
    reproject(
        field.values,
        out,
        src_transform=from_origin(WEST, NORTH, STEP, STEP),
        src_crs="EPSG:4326",
        src_nodata=np.nan,
        dst_transform=grid.transform,
        dst_crs="EPSG:6933",
        dst_nodata=np.nan,
        resampling=Resampling.average,
    )
    return xr.DataArray(out, coords=grid.coords(), dims=("y", "x"))


def resident(which):
    """MiB in memory, now (VmRSS) or at most since last cleared (VmHWM); Linux."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(which)) / 1024


def measure(call, *args, repeats=3):
    """Least CPU seconds of some runs, MiB by which the peak rose, and the answer."""
    Path("/proc/self/clear_refs").write_text("5")
    before, took = resident("VmRSS"), []
    for _ in range(repeats):
        start = time.process_time()
        out = call(*args)
        took.append(time.process_time() - start)
    return min(took), resident("VmHWM") - before, out


def main(n=4000):
    grid = Grid.around((WEST, NORTH - n * STEP, WEST + n * STEP, NORTH))
    centres = STEP * (np.arange(n) + 0.5)
    for missing in (True, False):
        field = xr.DataArray(
            scene(n, missing), coords={"lat": NORTH - centres, "lon": WEST + centres}, dims=("lat", "lon")
        )
        small = field[:200, :200]
        to_grid(small, grid), gdal(small, grid)
        ours, memory, found = measure(to_grid, field, grid)
        theirs, more, other = measure(gdal, field, grid)
        inner = (found - other)[2:-2, 2:-2]
        print(
            f"{n} x {n}, {'30 % missing' if missing else 'complete'}: to_grid {ours:.3f} CPU s, +{memory:.0f} MiB; "
            f"GDAL average {theirs:.3f} CPU s (x{theirs / ours:.1f}), +{more:.0f} MiB; "
            f"largest difference {np.abs(inner).max().item():.1e} K"
        )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
