"""What a global 1-km map a day for ten years takes: rates measured here, growth with workers simulated.

    python benchmarks/ten_years.py [FOLDER] [--models xgb-300x5 ...] [--workers 1 10 100 1000] [--read 2] [--write 1]
                                   [--price 0.05] [--rounds 3]

Measured: CPU seconds a block (1024 x 1024 cells, 18 predictors with dates and 7 without, 30 % of cells missing, synthetic)
of `predict_map` and `write_zarr` on one thread, opening, hashing, reading, predicting, compressing and planning included;
the same of a block that `where` leaves empty; compressed bytes in and out; with `--processes` wall seconds on
one and on two worker processes (on an idle machine).
Simulated: N workers that share a file system of `--read` and `--write` GB/s, one planner, portions as in `write_zarr`.
`--price` is what a core-hour costs you, in whatever you pay in; it says nothing about anybody's prices.
"""

import argparse
import heapq
import pickle
import shutil
import statistics
import sys
import tempfile
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import dask
import numpy as np
import xarray as xr

sys.path.insert(0, str(Path(__file__).parents[1]))

import smgrid
from benchmarks import scenes
from smgrid.portions import MOST

SIDE, DATES, DYNAMIC = 1024, 3, 18
PLACES = 510  # blocks of 1024 x 1024 cells on 14616 x 34704
LAND = 219  # of them: 30 % of the globe is land, and 70 % of a block that has any, as in the scene
DAYS = 3652


@dataclass
class Block:
    """What a block with land costs, and one without."""

    cpu: float  # s
    empty: float  # s
    read: float  # bytes a date
    static: float  # bytes a place, once for all dates
    written: float  # bytes


def make_cube(folder):
    """Four places and three dates, packed, zstd."""
    path = Path(folder) / "cube.zarr"
    if not path.exists():
        n, whole = 2 * SIDE, smgrid.Grid.whole()
        grid = smgrid.Grid(1, (whole.ny - n) // 2, (whole.nx - n) // 2, n, n)
        days = np.datetime64("2015-01-01", "ns") + np.arange(DATES) * np.timedelta64(1, "D")
        cube = xr.Dataset(coords={**grid.coords(), "time": days}, attrs={"source": "synthetic"})
        for k, (name, z) in enumerate(zip(scenes.BANDS, scenes.fields(n))):
            note = {"units": "1", "source": "synthetic"}
            if k < DYNAMIC:  # another date is the same weather elsewhere; gaps stay where they are
                moved = [
                    np.where(np.isnan(z), np.nan, np.nan_to_num(np.roll(z, 97 * d), nan=0.5)) for d in range(DATES)
                ]
                cube[name] = (("time", "y", "x"), np.stack(moved).astype("f4"), note)
            else:
                cube[name] = (("y", "x"), z, note)
        cube = smgrid.pack_cube(cube)
        for array in cube.data_vars.values():
            chunks = {"time": 1, "y": SIDE, "x": SIDE}
            array.encoding = {"chunks": tuple(chunks.get(d, array.sizes[d]) for d in array.dims)}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            cube.to_zarr(path, zarr_format=3)
    return path


def size(path):
    return sum(p.stat().st_size for p in Path(path).rglob("*") if p.is_file() and "c" in p.relative_to(path).parts)


def write(folder, model, empty=False):
    """CPU and wall seconds of one write, and the store."""
    cube = smgrid.open_cube(folder / "cube.zarr")
    where = xr.zeros_like(cube[scenes.BANDS[-1]], dtype=bool).compute() if empty else None
    shutil.rmtree(folder / "maps.zarr", ignore_errors=True)
    cpu, wall = time.process_time(), time.perf_counter()
    smgrid.write_zarr(smgrid.predict_map(cube, model, where=where), folder / "maps.zarr", progress=False)
    return time.process_time() - cpu, time.perf_counter() - wall


def measure(folder, name, rounds):
    regressor = pickle.loads(scenes.model(folder, name).read_bytes())
    model = smgrid.Model.from_estimator(regressor, features=scenes.BANDS)
    blocks = 4 * DATES
    with dask.config.set(scheduler="sync"):
        write(folder, model)
        cpu = statistics.median(write(folder, model)[0] for _ in range(rounds)) / blocks
        written = size(folder / "maps.zarr") / blocks
        empty = statistics.median(write(folder, model, empty=True)[0] for _ in range(rounds)) / blocks
    read = size(folder / "cube.zarr" / "dynamic") / blocks
    return Block(cpu, empty, read, size(folder / "cube.zarr" / "static") / 4, written), model


def processes(folder, model, rounds):
    """Wall seconds on one and on two worker processes, interleaved."""
    import distributed

    found = {1: [], 2: []}
    for _ in range(rounds):
        for n, walls in found.items():
            how = dict(n_workers=n, threads_per_worker=1, dashboard_address=None)
            with distributed.LocalCluster(**how) as cluster, distributed.Client(cluster) as client:
                client.wait_for_workers(n)
                client.run(warm)
                walls.append(write(folder, model)[1])
    return {n: statistics.median(walls) for n, walls in found.items()}


def warm():
    """Imports stay outside the clock."""
    # what is imported here stays outside the clock
    import sklearn.ensemble  # noqa: F401
    import xgboost  # noqa: F401
    import zarr  # noqa: F401

    import smgrid.store  # noqa: F401


def simulate(block, workers, read, write, plan, dates):
    """Wall seconds of some dates of the globe: blocks go to the first free worker, bytes through one file system.

    Every chunk is read twice, once to know it and once to use it; a static chunk once a place for that matter.
    """
    planned = done = begun = 0.0
    disk_in = disk_out = 0.0  # when the file system is free again
    places = [number * LAND // PLACES != (number + 1) * LAND // PLACES for number in range(PLACES)]
    left = [(place, date) for place in places for date in range(dates)]
    for first in range(0, len(left), MOST):
        portion = left[first : first + MOST]
        planned = max(planned, begun) + plan * len(portion)  # one portion ahead
        begun = max(done, planned)
        free = [begun] * workers
        for land, date in portion:
            now = heapq.heappop(free)
            if land:
                disk_in = max(disk_in, now) + 2 * (block.read + (0 if date else block.static)) / read
                disk_out = max(disk_out, (now := max(disk_in, now) + block.cpu)) + block.written / write
                now = max(now, disk_out)
            else:
                now += block.empty
            heapq.heappush(free, now)
        done = max(free)
    return done


def main():
    ask = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ask.add_argument("folder", nargs="?", type=Path)
    ask.add_argument("--models", nargs="+", default=["xgb-100x3", "xgb-300x5", "rf-100x20", "svr-small", "mlp-2x64"])
    ask.add_argument("--workers", nargs="+", type=int, default=[1, 10, 100, 1000])
    ask.add_argument("--read", type=float, default=2.0, help="GB/s that the file system gives to all")
    ask.add_argument("--write", type=float, default=1.0, help="GB/s that it takes from all")
    ask.add_argument("--plan", type=float, default=1.8, help="CPU ms a block of the planner (benchmarks/year.py)")
    ask.add_argument("--price", type=float, default=0.05, help="of a core-hour")
    ask.add_argument("--rounds", type=int, default=3)
    ask.add_argument("--processes", action="store_true")
    args = ask.parse_args()
    folder = args.folder or Path(tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    make_cube(folder)
    print(f"| model | CPU s a block | core-hours | at {args.price} each | ", end="")
    print(" | ".join(f"{n} worker{'s' * (n > 1)}, simulated" for n in args.workers), "|")
    print("|---" + "|--:" * (3 + len(args.workers)) + "|")
    for name in args.models:
        block, model = measure(folder, name, args.rounds)
        hours = DAYS * (LAND * block.cpu + (PLACES - LAND) * block.empty) / 3600
        print(f"| {name} | {block.cpu:.2f} | {hours:,.0f} | {hours * args.price:,.0f} |", end=" ")
        for n in args.workers:
            # by the year, as ten stores: three months stand for it
            year = simulate(block, n, 1e9 * args.read, 1e9 * args.write, args.plan / 1e3, 90) / 90 * DAYS
            print(f"{year / 3600:,.1f} h |", end=" ", flush=True)
        print()
    if args.processes:
        walls = processes(folder, model, args.rounds)
        print(
            f"\n{args.models[-1]}, 12 blocks, measured: {walls[1]:.2f} s on one worker process, {walls[2]:.2f} s on two"
        )
    n = DAYS * PLACES
    print(f"\ncells: {DAYS * 14616 * 34704:.3g}, on land {0.3 * DAYS * 14616 * 34704:.3g}; blocks: {n:,}")
    print(f"an empty block: {1e3 * block.empty:.0f} CPU ms")
    print(
        f"a block with land: {block.read / 1e6:.1f} MB read a date, {block.static / 1e6:.1f} MB a place once,", end=" "
    )
    print(f"{block.written / 1e6:.2f} MB written; ten years: {DAYS * LAND * block.read / 1e12:.1f} TB in,", end=" ")
    print(f"{DAYS * LAND * block.written / 1e12:.1f} TB out, {2 * n:,} chunk files")


if __name__ == "__main__":
    main()
