"""A whole globe: one date of 14616 x 34704 cells, 20 stored predictors, a third of it land, mapped on two cores.

    python benchmarks/globe.py make FOLDER [--part 4]     the packed cube, the land mask and the models
    python benchmarks/globe.py run FOLDER [--part 4] [--models xgb_300_5 rf_100_20] [--workers 2] [--cog]

`--part N` takes the first N-th of Africa and Europe eastwards instead of the whole. Each model runs in a process of its
own; wall seconds, CPU seconds and peak memory are printed and added as a line to FOLDER/globe.jsonl. All values are
synthetic: smooth waves with a texture; land comes from the outlines in smgrid (Natural Earth, 1:110 million), the sea is
NaN in every predictor.
"""

import argparse
import json
import resource
import shutil
import subprocess
import sys
import time
from functools import cache
from pathlib import Path

import dask
import dask.array as da
import numpy as np
import xarray as xr

import smgrid
from smgrid.drawing import _rings
from smgrid.features import COMPUTED

SIDE = 512  # cells of a chunk
STATIC = ("sand", "clay", "bulk_density", "elevation", "slope", "aspect_sin", "aspect_cos")
COARSE = ("smap", "air_temperature", "precipitation")  # one value for 9 x 9 cells
STORED = [name for name in smgrid.PAPER if name not in COMPUTED]
DATE = np.datetime64("2015-05-05", "ns")


def grid_of(part):
    whole = smgrid.Grid.whole()
    if part == 1:
        return whole
    return smgrid.Grid(1, 0, 33 * SIDE, whole.ny, whole.nx // part // SIDE * SIDE)


# ---- an invented globe


@cache
def outlines():
    """Rings of land in metres of the grid."""
    from pyproj import Transformer

    to_grid = Transformer.from_crs(4326, 6933, always_xy=True)
    rings = (ring.clip((-180, -85.04), (180, 85.04)) for ring in _rings())
    return [np.stack(to_grid.transform(*ring.T), axis=1) for ring in rings]


def land_block(rows, cols, grid):
    """Whether cells are land."""
    from rasterio.features import rasterize
    from rasterio.transform import Affine

    whole = smgrid.Grid.whole()
    rows, cols = rows.ravel() + grid.row, cols.ravel() + grid.col
    t = whole.transform
    place = t * Affine.translation(int(cols[0]), int(rows[0]))
    west, north = place * (0, 0)
    east, south = place * (cols.size, rows.size)
    near = [
        {"type": "Polygon", "coordinates": [ring.tolist()]}
        for ring in outlines()
        if ring[:, 0].max() > west and ring[:, 0].min() < east and ring[:, 1].max() > south and ring[:, 1].min() < north
    ]
    shape = (rows.size, cols.size)
    return rasterize(near, shape, transform=place, dtype="uint8").astype(bool) if near else np.zeros(shape, bool)


@cache
def texture():
    return np.random.default_rng(0).standard_normal((SIDE + 64, SIDE + 64)).astype("f4")


def field_block(land, rows, cols, number, low, high, coarse):
    """One predictor: waves from 15 to 400 cells long and a texture, in steps of a thousandth of its range."""
    if not land.any():
        return np.full(land.shape, np.nan, "f4")
    rng = np.random.default_rng(number)
    y, x = rows.ravel().astype("f8"), cols.ravel().astype("f8")
    if coarse:
        y, x = y // 9 * 9, x // 9 * 9
    value = np.zeros(land.shape, "f4")
    for length in (400, 150, 60, 25, 15):
        a, b, c, d = rng.uniform(0, 2 * np.pi, 4)
        ny, nx = 2 * np.pi / (length * rng.uniform(0.7, 1.4, 2))
        value += np.sin(ny * y + a + np.sin(y / 700 + c)).astype("f4")[:, None] * np.cos(nx * x + b + d).astype("f4")
    if not coarse:
        value += 0.15 * texture()[number : number + land.shape[0], number : number + land.shape[1]]
    value = np.clip(0.5 + 0.2 * value, 0, 1)
    value = np.float32(low) + np.float32(high - low) * (np.round(value * 1000) / np.float32(1000))
    value[~land] = np.nan
    return value


def axes(grid):
    rows = da.arange(grid.ny, chunks=SIDE)[:, None]
    return rows, da.arange(grid.nx, chunks=SIDE)[None, :]


def lazy_land(grid):
    return da.map_blocks(land_block, *axes(grid), grid=grid, dtype=bool, meta=np.empty((0, 0), bool))


def field_args(name):
    p, number = smgrid.PAPER[name], STORED.index(name)
    width = p.max - p.min
    return {"number": number, "low": p.min + 0.1 * width, "high": p.max - 0.1 * width, "coarse": name in COARSE}


def cube_of(grid):
    land, (rows, cols) = lazy_land(grid), axes(grid)
    cube = xr.Dataset(coords=grid.coords(), attrs={"source": "synthetic: waves and a texture on land"})
    cube = cube.assign_coords(time=[DATE])
    for name in STORED:
        meta = np.empty((0, 0), "f4")
        data = da.map_blocks(field_block, land, rows, cols, **field_args(name), dtype="f4", meta=meta)
        dims = ("y", "x") if name in STATIC else ("time", "y", "x")
        cube[name] = (dims, data if name in STATIC else data[None], {"units": smgrid.PAPER[name].units})
    return cube


def samples(n=10_000):
    """A table of land cells all over the globe, and an invented soil moisture."""
    import pandas as pd

    whole, rng = smgrid.Grid.whole(), np.random.default_rng(1)
    found = []
    while sum(map(len, found)) < n:
        row, col = int(rng.integers(whole.ny - SIDE)), int(rng.integers(whole.nx - SIDE))
        rows, cols = np.arange(row, row + SIDE)[:, None], np.arange(col, col + SIDE)[None]
        land = land_block(rows, cols, whole)
        places = np.flatnonzero(land)
        if not places.size:
            continue
        places = rng.choice(places, min(300, places.size), replace=False)
        table = pd.DataFrame(
            {name: field_block(land, rows, cols, **field_args(name)).ravel()[places] for name in STORED}
        )
        lon, lat = whole.lonlat()
        table["latitude"], table["longitude"] = lat[row + places // SIDE], lon[col + places % SIDE]
        found.append(table)
    table = pd.concat(found, ignore_index=True)[:n].assign(time=pd.Timestamp(DATE))
    unit = {n: (table[n] - smgrid.PAPER[n].min) / (smgrid.PAPER[n].max - smgrid.PAPER[n].min) for n in STORED}
    truth = 0.1 + 0.5 * unit["smap"] * unit["vv"] + 0.1 * np.sin(5 * unit["ndvi"] * unit["sand"]) + 0.05 * unit["b11"]
    return table.assign(soil_moisture=(truth + 0.03 * rng.standard_normal(n)).clip(0.02, 0.6))


def regressor_of(name):
    from sklearn.ensemble import RandomForestRegressor
    from xgboost import XGBRegressor

    kind, trees, depth = name.split("_")
    if kind == "rf":
        return RandomForestRegressor(int(trees), max_depth=int(depth), n_jobs=2, random_state=0)
    return XGBRegressor(n_estimators=int(trees), max_depth=int(depth), learning_rate=0.1, random_state=0)


# ---- verbs


def make(folder, part, models, workers):
    folder.mkdir(parents=True, exist_ok=True)
    table = samples()
    for name in models:
        if not (folder / f"{name}.model").exists():
            smgrid.save_model(smgrid.train(table, regressor_of(name)), folder / f"{name}.model")
    grid, start = grid_of(part), time.perf_counter()
    with dask.config.set(scheduler="threads", num_workers=workers):
        land = xr.Dataset({"land": (("y", "x"), lazy_land(grid))}, coords=grid.coords())
        written = smgrid.write_zarr(land, folder / f"land_{part}.zarr", progress=False)
        print(f"land: {float(written.land.mean()):.1%} of {grid.ny} x {grid.nx} cells")
        smgrid.write_zarr(smgrid.pack_cube(cube_of(grid)), folder / f"cube_{part}.zarr", progress=True)
    size = sum(p.stat().st_size for p in (folder / f"cube_{part}.zarr").rglob("*") if p.is_file())
    print(f"cube: {size / 1e9:.2f} GB on disk, {time.perf_counter() - start:.0f} s")


def run_one(folder, part, name, workers, cog):
    """One model from cube to store (and GeoTIFF), in this process."""
    dask.config.set(scheduler="threads", num_workers=workers)
    import zarr  # noqa: F401  imports stay outside the clock

    out, tif = folder / f"maps_{part}_{name}.zarr", folder / f"maps_{part}_{name}.tif"
    for old in (out, out.with_name(out.name + ".partial")):
        shutil.rmtree(old, ignore_errors=True)
    tif.unlink(missing_ok=True)
    model = smgrid.load_model(folder / f"{name}.model")
    base, times = peak(), {}
    start, cpu = time.perf_counter(), time.process_time()
    cube = smgrid.open_cube(folder / f"cube_{part}.zarr")
    land = smgrid.open_cube(folder / f"land_{part}.zarr").land
    maps = smgrid.predict_map(cube, model, where=land)
    times["graph"] = time.perf_counter() - start
    stored = smgrid.write_zarr(maps, out, progress=False)
    times["zarr"] = time.perf_counter() - start
    found = {"model": name, "part": part, "cells": int(np.prod(stored.soil_moisture.shape)), "workers": workers,
             "cpu": time.process_time() - cpu, "peak above base, GB": peak() - base, "base, GB": base}  # fmt: skip
    print(json.dumps(found | times), flush=True)
    if cog:
        start = time.perf_counter()
        smgrid.write_geotiff(stored, tif)
        times["cog"] = time.perf_counter() - start
        found["peak with COG above base, GB"] = peak() - base
    found |= times | {"kernel": type(model.kernel).__name__}
    found = {k: round(v, 2) if isinstance(v, float) else v for k, v in found.items()}
    print(json.dumps(found))
    with open(folder / "globe.jsonl", "a") as file:
        file.write(json.dumps(found) + "\n")


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verb", choices=["make", "run", "one"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--part", type=int, default=1)
    parser.add_argument("--models", nargs="+", default=["xgb_300_5", "rf_100_20"])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--cog", action="store_true")
    args = parser.parse_args()
    if args.verb == "make":
        make(args.folder, args.part, args.models, args.workers)
    elif args.verb == "one":
        run_one(args.folder, args.part, args.models[0], args.workers, args.cog)
    else:
        for name in args.models:
            subprocess.run([sys.executable, __file__, "one", str(args.folder), "--part", str(args.part), "--models", name,
                            "--workers", str(args.workers), *(["--cog"] if args.cog else [])], check=True)  # fmt: skip


if __name__ == "__main__":
    main()
