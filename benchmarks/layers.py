"""What layers cost: the table of docs/layers.md.

    python benchmarks/layers.py [--repeats 5]

CPU seconds and peak memory of one block of 256 x 256 synthetic cells, set against `soil_moisture` alone; and what training
costs with stations, set against training without.
"""

import argparse
import gc
import time
import tracemalloc
from functools import partial

import numpy as np
import xarray as xr

import smgrid

SETS = {
    "interval": ["soil_moisture", "interval"],
    "spread": ["soil_moisture", "spread"],
    "dissimilarity": ["soil_moisture", "dissimilarity"],
    "all": ["soil_moisture", "status", "culprit", "spread", "interval", "dissimilarity"],
}


def block(scene, side):
    """The scene again and again until it fills a block, a little different each time."""
    grid = smgrid.Grid(1, smgrid.YANCO.row, smgrid.YANCO.col, side, side)
    rng, cube = np.random.default_rng(0), xr.Dataset(coords=grid.coords())
    days = scene.cube.isel(time=0, drop=True).fillna(scene.cube.isel(time=0).mean())
    for name, field in days.data_vars.items():
        values = np.resize(np.tile(field.values, (-(-side // 84), -(-side // 75)))[:side, :side], (side, side))
        cube[name] = (("y", "x"), (values * rng.normal(1, 1e-3, values.shape)).astype("f4"), field.attrs)
    return cube.assign_coords(time=scene.cube.time[0])


def spent(work, repeats):
    """Least CPU seconds of some runs, and the peak of memory over what was there, in MB."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    gc.collect()
    tracemalloc.start()
    work()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return min(times), peak / 1e6


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--side", type=int, default=256)
    args = parser.parse_args()
    scene = smgrid.synthetic.yanco()
    cube = block(scene, args.side)
    print("| regressor | training, s | with stations | soil_moisture, us a cell | MB | " + " | ".join(SETS) + " | MB |")
    print("|---|--:|--:|--:|--:|" + "--:|" * (len(SETS) + 1))
    for kind in ("rf", "xgb", "svr", "mlp"):
        smgrid.train(scene.samples.isel(sample=slice(50)), smgrid.make_regressor(kind))  # imports are not training
        start = time.process_time()
        smgrid.train(scene.samples.drop_vars("station"), smgrid.make_regressor(kind))
        middle = time.process_time()
        model = smgrid.train(scene.samples, smgrid.make_regressor(kind))
        with_, without = time.process_time() - middle, middle - start
        plain, least = spent(partial(smgrid.predict_map, cube, model, layers=["soil_moisture"]), args.repeats)
        cells = [f"{without:.1f}", f"x{with_ / without:.1f}", f"{plain / args.side**2 * 1e6:.1f}", f"{least:.0f}"]
        peak = 0.0
        for name, layers in SETS.items():
            layers = [layer for layer in layers if kind == "rf" or layer != "spread"]
            if name == "spread" and kind != "rf":
                cells.append("-")
                continue
            took, peak = spent(partial(smgrid.predict_map, cube, model, layers=layers), args.repeats)
            cells.append(f"x{took / plain:.2f}")
        print("|", " | ".join([kind, *cells, f"{peak:.0f}"]), "|", flush=True)


if __name__ == "__main__":
    main()
