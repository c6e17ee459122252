"""Graph of the whole globe: keys and seconds until a lazy 1-km map exists.

    python benchmarks/graph.py

Takes 10 s.

14616 x 34704 cells, 20 stored predictors in chunks of 1024; the demand is 2 keys a block for one layer, 1 + L for L
layers, plus sources and axes, built in under 5 s. The best peer of the survey needs 669 495 keys for the same map.
"""

import time

import dask
import dask.array as da
import numpy as np
import pandas as pd
import xarray as xr
from sklearn.linear_model import Ridge

import smgrid


def globe() -> xr.Dataset:
    grid = smgrid.Grid.whole()
    cube = xr.Dataset(coords=grid.coords()).assign_coords(time=np.datetime64("2015-05-05", "ns"))
    for name, p in smgrid.PAPER.items():
        if name not in ("day_of_year", "latitude", "longitude"):
            data = da.full(grid.shape, p.max, dtype="f4", chunks=1024, name=f"source-{name}")
            cube[name] = (("y", "x"), data, {"units": p.units})
    return cube


def main() -> None:
    rng = np.random.default_rng(0)
    table = pd.DataFrame({name: rng.uniform(p.min, p.max, 40) for name, p in smgrid.PAPER.items()})
    model = smgrid.train(table.assign(soil_moisture=rng.uniform(0.1, 0.4, len(table))), Ridge())
    cube = globe()
    print("| layers | blocks | keys after optimisation | keys a block | build, s (median of 5) | optimise, s |")
    print("|---|--:|--:|--:|--:|--:|")
    for layers in (("soil_moisture",), ("soil_moisture", "status"), ("soil_moisture", "status", "culprit")):
        built, tuned = [], []
        for _ in range(5):
            start = time.perf_counter()
            maps = smgrid.predict_map(cube, model, layers=layers)
            built.append(time.perf_counter() - start)
            start = time.perf_counter()
            keys = len(dict(dask.optimize(maps)[0].__dask_graph__()))
            tuned.append(time.perf_counter() - start)
        row = [", ".join(layers), 510, keys, f"{keys / 510:.2f}", f"{np.median(built):.2f}", f"{np.median(tuned):.2f}"]
        print("|", " | ".join(map(str, row)), "|")


if __name__ == "__main__":
    main()
