"""What it takes to plan the maps of a year: tasks that the scheduler sees, seconds and memory of the planner.

    python benchmarks/year.py [dates]

A global 1-km map a day: 14616 x 34704 cells in chunks of 1024, 510 blocks a date; 13 predictors with dates and 7 without,
in a Zarr store without a single chunk (nothing is read or computed). Every portion is planned as `write_zarr` does:
spelled out, identified, made a graph.
"""

import resource
import sys
import tempfile
import time
from pathlib import Path

import cloudpickle
import dask.array as da
import numpy as np
import pandas as pd
import xarray as xr
from sklearn.linear_model import Ridge

import smgrid
from smgrid.blocks import Folder, graph_of
from smgrid.manifest import tidy
from smgrid.portions import MOST, portions

STATIC = ("sand", "clay", "bulk_density", "elevation", "slope", "aspect_sin", "aspect_cos")
COMPUTED = ("day_of_year", "latitude", "longitude")


def make_cube(path: str, dates: int) -> xr.Dataset:
    """A global cube of the paper's predictors that says everything about itself and holds nothing."""
    grid = smgrid.Grid.whole()
    time = np.datetime64("2015-01-01", "ns") + np.arange(dates) * np.timedelta64(1, "D")
    cube = xr.Dataset(coords={**grid.coords(), "time": time})
    for name, p in smgrid.PAPER.items():
        if name not in COMPUTED:
            shape = grid.shape if name in STATIC else (dates, *grid.shape)
            empty = da.zeros(shape, dtype="f4", chunks=-1)
            cube[name] = (("time", "y", "x")[-len(shape) :], empty, {"units": p.units})
            cube[name].encoding = {"chunks": (1, 1024, 1024)[-len(shape) :]}
    cube.to_zarr(path, compute=False, zarr_format=3, consolidated=False)
    return xr.open_zarr(path, consolidated=False, decode_coords="all")


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def main(dates: int = 365) -> None:
    rng = np.random.default_rng(0)
    table = pd.DataFrame({name: rng.uniform(p.min, p.max, 40) for name, p in smgrid.PAPER.items()})
    model = smgrid.train(table.assign(soil_moisture=np.linspace(0.1, 0.4, 40)), Ridge())
    with tempfile.TemporaryDirectory() as folder:
        cube = make_cube(f"{folder}/cube.zarr", dates)
        base, start = peak(), time.process_time()
        maps, _ = tidy(smgrid.predict_map(cube, model), None)
        print(f"maps of {dates} dates: {time.process_time() - start:.1f} CPU s")
        layers = {str(name): maps[name].variable for name in maps.data_vars}
        tasks, size, blocks = [], 0, 0
        start = time.process_time()
        for portion in portions(layers, tuple(range(dates)), maps):
            graph, *_ = graph_of(portion.nodes, Folder(folder, "", "", {}, 0), portion.blocks)
            size = size or len(cloudpickle.dumps([v for k, v in graph.items() if str(k).startswith("('write")]))
            tasks.append(len(graph))
            blocks += len(portion.blocks)
            said = f"{time.process_time() - start:.0f} CPU s, {peak():.0f} MB"
            print(f"portion {portion.number} of {portion.of}: {len(graph)} tasks, {said}", file=sys.stderr)
        spent = time.process_time() - start
        assert blocks == 510 * dates and Path(folder).exists()
        print(
            "| dates | blocks | portions | tasks, largest portion "
            "| bytes a block in the graph | CPU s | CPU ms a block | peak, MB above base |"
        )
        print("|--:|--:|--:|--:|--:|--:|--:|--:|")
        first = min(blocks, MOST)
        row = [dates, blocks, len(tasks), max(tasks), round(size / first), round(spent), f"{1e3 * spent / blocks:.2f}"]
        print("|", " | ".join(map(str, [*row, round(peak() - base)])), "|")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]))
