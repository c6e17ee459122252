"""Peak memory and time of building and writing a large cube from lazy synthetic sources.

    python benchmarks/build_cube.py [--side 4000] [--days 30] [--threads 2] [--folder FOLDER] [--only NAME,NAME]

The cube has the paper's 20 stored predictors on `side` x `side` cells of 1 km; 12 of them change from day to day. Its
sources are synthetic and made block by block when they are asked for, so that what is measured is the building alone:
radar, soil and terrain at 0.005 degrees, NDVI (46 composites with the day of each pixel) at 0.01, reflectances (monthly,
two years) at 0.02, weather (daily) at 0.1 degrees and SMAP (every second day) at 9 km. Values are constant over patches,
so that the store stays small on disk. Demanded is a peak below 2 GB, Python and its libraries included.
"""

import argparse
import hashlib
import resource
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import dask
import dask.array as da
import numpy as np
import xarray as xr

import smgrid
from smgrid.cube import build_cube

DAY = np.timedelta64(1, "D").astype("m8[ns]")
FIRST = np.datetime64("2017-03-01", "ns")
DEMAND = 2.0  # GB
PATCH = 16  # pixels along a side that have one value


@dataclass(frozen=True)
class Synthetic:
    """An array whose values follow from their place and its name, made when they are read."""

    name: str
    shape: tuple[int, ...]
    low: float
    high: float
    dtype = np.dtype("f4")

    @property
    def ndim(self):
        return len(self.shape)

    def __dask_tokenize__(self):
        return ("synthetic", self.name, self.shape, self.low, self.high)

    def __getitem__(self, key):
        number = np.array(int(hashlib.sha256(self.name.encode()).hexdigest()[:12], 16), "u8")
        places = [np.arange(size, dtype="u8")[part] for size, part in zip(self.shape, key)]
        patches = [np.unique(p // np.uint64(PATCH if n >= self.ndim - 2 else 1)) for n, p in enumerate(places)]
        for n, patch in enumerate(patches):
            number = (
                number * np.uint64(2862933555777941757) + patch.reshape([-1] + [1] * (self.ndim - 1 - n))
            ) * np.uint64(3202034522624059733)
            number = number ^ (number >> np.uint64(29))
        values = (self.low + (self.high - self.low) * (number % np.uint64(1000)).astype("f4") / 1000).astype("f4")
        for n in (self.ndim - 2, self.ndim - 1):
            values = values.repeat(np.unique(places[n] // np.uint64(PATCH), return_counts=True)[1], axis=n)
        return values


def on(axes, name, units, low, high, times=None, coords=None):
    """A lazy field on two axes, by days where it has some; a file of 512 x 512 pixels a chunk would look like it."""
    shape = tuple(axis.size for axis in axes.values())
    shape = shape if times is None else (times.size, *shape)
    chunks = (512, 512) if times is None else (1, 512, 512)
    values = da.from_array(Synthetic(name, shape, low, high), chunks=chunks, meta=np.empty((0,) * len(shape), "f4"))
    dims = (*(() if times is None else ("time",)), *axes)
    where = {**axes, **(coords or {}), **({} if times is None else {"time": times})}
    return xr.DataArray(values, where, dims, name, {"units": units, "product": "synthetic"})


def degrees(grid, step):
    lon, lat = grid.lonlat()
    edge = max(4 * step, 0.1)
    first, last = np.floor((lon.min() - edge) / step), np.ceil((lon.max() + edge) / step)
    north, south = np.ceil((lat.max() + edge) / step), np.floor((lat.min() - edge) / step)
    return {"lat": np.arange(north, south, -1) * step, "lon": np.arange(first, last) * step}


def sources(grid, days):
    fine, middle, rough, weather = (degrees(grid, step) for step in (0.005, 0.01, 0.02, 0.1))
    span = int((days[-1] - days[0]) / DAY)
    daily = days[0] + DAY * np.arange(-10, span + 1)
    overpasses = days[0] + DAY * np.arange(-10, span + 10, 2)
    composites = days[0] + DAY * (np.arange(46) * 8 - (46 * 8 - span) // 2)
    months = days[0] + DAY * np.arange(-720, 0, 30)
    coarse = grid.coarsen(9)
    wide = smgrid.Grid(9, coarse.row - 8, coarse.col - 8, coarse.ny + 16, coarse.nx + 16)
    nine = {"y": wide.y, "x": wide.x}
    return {
        "vv": on(fine, "vv", "dB", -20, -5, days),
        "vh": on(fine, "vh", "dB", -28, -12, days),
        "incidence_angle": on(fine, "incidence_angle", "degree", 30, 45, days),
        "sand": on(fine, "sand", "%", 10, 60),
        "clay": on(fine, "clay", "%", 10, 40),
        "bulk_density": on(fine, "bulk_density", "g cm-3", 1.2, 1.7),
        "elevation": on(fine, "elevation", "m", 0, 900),
        "slope": on(fine, "slope", "degree", 0, 10),
        "aspect_sin": on(fine, "aspect_sin", "1", -1, 1),
        "aspect_cos": on(fine, "aspect_cos", "1", -1, 1),
        "ndvi": on(middle, "ndvi", "1", 0.1, 0.8, composites),
        "composite_day": on(middle, "composite_day", "d", 0, 15, composites),
        "air_temperature": on(weather, "air_temperature", "K", 270, 300, daily),
        "precipitation": on(weather, "precipitation", "mm d-1", 0, 9, daily),
        **{name: on(rough, name, "1", 0.02, 0.5, months) for name in ("b2", "b3", "b4", "b8", "b11", "b12")},
        "smap": on(nine, "smap", "m3 m-3", 0.05, 0.45, overpasses, {"spatial_ref": wide.coords()["spatial_ref"]}),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--side", type=int, default=4000, help="cells (%(default)s)")
    parser.add_argument("--days", type=int, default=30, help="(%(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="(%(default)s)")
    parser.add_argument("--folder", type=Path, help="where the store is written for a while (the system's)")
    parser.add_argument("--only", help="predictors with commas (all)")
    args = parser.parse_args()
    grid = smgrid.Grid(1, 3000, 20000, args.side, args.side)
    days = FIRST + 6 * DAY * np.arange(args.days)
    given = sources(grid, days)
    if args.only:
        chosen = {*args.only.split(","), *(["composite_day"] if "ndvi" in args.only else [])}
        given = {name: field for name, field in given.items() if name in chosen}
    base, begun = peak(), time.perf_counter()
    cube = build_cube(given, grid, days)
    built, building = peak(), time.perf_counter() - begun
    with tempfile.TemporaryDirectory(dir=args.folder) as folder, dask.config.set(num_workers=args.threads):
        smgrid.write_zarr(cube, Path(folder) / "cube.zarr", progress=False)
        size = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
    seconds, top = time.perf_counter() - begun, peak()
    print(f"synthetic cube: {len(cube)} predictors, {args.days} days, {args.side} x {args.side} cells")
    print(f"cube in memory would be {cube.nbytes / 1e9:.2f} GB; the store was {size / 1e9:.2f} GB")
    print("| threads | base, GB | build_cube, s | after it, GB | written, s | peak, GB | demanded |")
    print("|--:|--:|--:|--:|--:|--:|--:|")
    print(f"| {args.threads} | {base:.2f} | {building:.1f} | {built:.2f} | {seconds:.0f} | {top:.2f} | < {DEMAND:g} |")


def peak():
    """Largest memory of the process so far, GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


if __name__ == "__main__":
    main()
