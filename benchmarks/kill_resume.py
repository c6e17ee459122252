"""Kill a write at random moments, let it go on, and compare every byte with a write that was never stopped.

    python benchmarks/kill_resume.py [rounds] [seed]

The cube is synthetic. Each round starts a writer in a process of its own, kills it (SIGKILL) after a random time, goes
on in this process and counts the blocks it still had to compute.
"""

import hashlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import dask
import dask.array as da
import numpy as np
import xarray as xr

from smgrid import Grid
from smgrid.store import write_zarr

DAYS, SIDE, CHUNK = 4, 180, 60
PAUSE, THREADS = 0.05, 2
BLOCKS = DAYS * (SIDE // CHUNK) ** 2


class Slow:
    """A stand-in for a model that takes its time, and counts."""

    blocks = 0

    def __dask_tokenize__(self):
        return "slow"

    def __call__(self, vv, sand):
        Slow.blocks += 1
        time.sleep(PAUSE)
        return (vv * sand).astype("f4")


def make_cube(path):
    grid = Grid(1, 11466, 31401, SIDE, SIDE)
    days = np.datetime64("2015-05-01", "ns") + np.arange(DAYS) * np.timedelta64(6, "D")
    rng = np.random.default_rng(0)
    cube = xr.Dataset(
        {
            "vv": (("time", "y", "x"), rng.random((DAYS, SIDE, SIDE), "f4")),
            "sand": (("y", "x"), rng.random((SIDE, SIDE), "f4")),
        },
        coords={**grid.coords(), "time": days},
    )
    cube.chunk(time=1, y=CHUNK, x=CHUNK).to_zarr(path, consolidated=False, zarr_format=3)


def write(cube, path):
    cube = xr.open_zarr(cube, consolidated=False, decode_coords="all")
    soil = da.map_blocks(Slow(), cube.vv.data, cube.sand.data[None], dtype="f4", meta=np.empty((0, 0, 0), "f4"))
    maps = xr.Dataset({"soil_moisture": (("time", "y", "x"), soil)}, coords=cube.coords)
    with dask.config.set(scheduler="threads", num_workers=THREADS):
        write_zarr(maps, path, progress=False)


def tree(path):
    digest = hashlib.sha256()
    for file in sorted(p for p in Path(path).rglob("*") if p.is_file()):
        digest.update(f"{file.relative_to(path)}\0".encode() + file.read_bytes())
    return digest.hexdigest()


def main(rounds=20, seed=0):
    rng = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as folder:
        cube, once = f"{folder}/cube.zarr", f"{folder}/once.zarr"
        make_cube(cube)
        write(cube, once)
        same, less, computed = 0, 0, []
        for n in range(rounds):
            path = f"{folder}/{n}.zarr"
            command = [sys.executable, __file__, "--write", cube, path]
            with subprocess.Popen(command, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}) as writer:
                # every fourth kill may fall before the first block is stored, the others come after it
                sign, size = Path(f"{path}.partial"), 0
                if n % 4:
                    sign, size = sign / "smgrid" / "ledger", 1
                while writer.poll() is None and not (sign.exists() and sign.stat().st_size >= size):
                    time.sleep(0.005)
                time.sleep(rng.uniform(0, BLOCKS * PAUSE / THREADS))
                writer.send_signal(signal.SIGKILL)
            Slow.blocks = 0
            write(cube, path)
            same += tree(path) == tree(once) and not list(Path(folder).glob("*.partial"))
            less += Slow.blocks < BLOCKS
            computed.append(Slow.blocks)
    print(f"rounds {rounds}, identical bytes {same}, resumed with less than the whole work {less}")
    print(f"blocks computed after the kill, of {BLOCKS}: {computed}")
    return 0 if same == rounds else 1


if __name__ == "__main__":
    if sys.argv[1:2] == ["--write"]:
        write(*sys.argv[2:4])
    else:
        sys.exit(main(*map(int, sys.argv[1:3])))
