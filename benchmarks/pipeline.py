"""Where the time of a map goes: reading, judging and gathering, the kernel, writing, and the whole, on two threads.

    python benchmarks/pipeline.py [--side 2000] [--layouts A B] [--models xgb_100_3 ...] [--rounds 5] [--memory]

The cube is synthetic: 25 float32 predictors, smooth, 30 % NaN in blobs, chunks of 500 x 500; A packed (all predictors
of a place in one chunk, lz4), B a variable each (zstd 3). Stages run one after the other within a round, rounds follow
each other, medians are printed: wall and CPU seconds, and the overhead of the whole beyond read + kernel + write
(`to_zarr`; `store` is `write_zarr` of maps in memory, with ledger, checksums and identities). `--memory` prints the
peak above the base of one write in a process of its own, for the cube and for one of four times its cells.
"""

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import dask
import numpy as np
import xarray as xr

import smgrid
from smgrid.cells import Known, judge
from smgrid.layers import TILE

BANDS, CHUNK, WORKERS = 25, 500, 2
NAMES = [f"p{k:02d}" for k in range(BANDS)]
PREDICTORS = {name: smgrid.Predictor("1", -0.1, 1.1) for name in NAMES}
MODELS = ("xgb_100_3", "xgb_300_5", "rf_10_10", "rf_100_20")


# ---- synthetic data


def fields(side, seed=0):
    """(25, side, side) float32 in 0..1, in steps of 1/4000; every fifth in blocks of 9 x 9; 30 % NaN in blobs."""
    from scipy.ndimage import gaussian_filter, zoom

    rng = np.random.default_rng(seed)

    def smooth(length):
        coarse = max(1, length // 4)
        n = side // coarse + 9
        z = gaussian_filter(rng.standard_normal((n, n)).astype("f4"), length / coarse, mode="wrap")
        z = zoom(z, coarse, order=1)[:side, :side] if coarse > 1 else z[:side, :side]
        return (z - z.mean()) / z.std()

    out = np.empty((BANDS, side, side), "f4")
    for k in range(BANDS):
        z = smooth((2, 4, 8, 16, 32, 64)[k % 6]) + 0.15 * rng.standard_normal((side, side)).astype("f4")
        if k % 5 == 4:
            z = np.repeat(np.repeat(z[::9, ::9], 9, 0), 9, 1)[:side, :side]
        out[k] = np.round(4000 / (1 + np.exp(-z))) / 4000
    blobs = smooth(40)
    out[:, blobs < np.quantile(blobs, 0.3)] = np.nan
    return out


def samples(n=10_000):
    import pandas as pd

    rng = np.random.default_rng(99)
    flat = fields(1000, seed=7).reshape(BANDS, -1)
    flat = flat[:, np.isfinite(flat[0])]
    x = flat[:, rng.choice(flat.shape[1], n, replace=False)]
    y = 0.25 + 0.08 * np.sin(5 * x[0] * x[1]) + 0.1 * (x[2] - 0.5) * (x[3] > 0.5) + 0.05 * np.tanh(4 * (x[4] - x[5]))
    y = y + 0.03 * np.linspace(1, 0.1, BANDS) @ (x - 0.5) + 0.03 * rng.standard_normal(n)
    return pd.DataFrame(dict(zip(NAMES, x))).assign(soil_moisture=y.clip(0.02, 0.6))


def model_of(name, table):
    from sklearn.ensemble import RandomForestRegressor
    from xgboost import XGBRegressor

    kind, trees, depth = name.split("_")
    regressor = (
        RandomForestRegressor(int(trees), max_depth=int(depth), n_jobs=2, random_state=0)
        if kind == "rf"
        else XGBRegressor(n_estimators=int(trees), max_depth=int(depth), learning_rate=0.1, random_state=0)
    )
    return smgrid.train(table, regressor, features=PREDICTORS)


def write_cube(path, layout, side):
    from zarr.codecs import BloscCodec, ZstdCodec

    cube = xr.Dataset(coords=smgrid.Grid(1, 4000, 12000, side, side).coords(), attrs={"source": "synthetic"})
    for name, values in zip(NAMES, fields(side)):
        cube[name] = (("y", "x"), values, {"units": "1"})
    codec = BloscCodec(cname="lz4", clevel=5, shuffle="shuffle", typesize=4) if layout == "A" else ZstdCodec(level=3)
    cube = smgrid.pack_cube(cube) if layout == "A" else cube
    chunks = {name: (BANDS, CHUNK, CHUNK)[-array.ndim :] for name, array in cube.data_vars.items()}
    encoding = {name: {"chunks": c, "compressors": (codec,), "_FillValue": None} for name, c in chunks.items()}
    cube.to_zarr(path, encoding=encoding, zarr_format=3, consolidated=False)


# ---- stages


def spans(side):
    return [(slice(y, y + CHUNK), slice(x, x + CHUNK)) for y in range(0, side, CHUNK) for x in range(0, side, CHUNK)]


def all_blocks(function, blocks):
    with ThreadPoolExecutor(WORKERS) as pool:
        return list(pool.map(function, blocks))


def reader(path, layout):
    import zarr

    group = zarr.open_group(path, mode="r")
    arrays = [group["static"]] if layout == "A" else [group[name] for name in NAMES]
    return lambda span: [array[(..., *span)] for array in arrays]


def walk(block):
    """Judge a block and gather its known cells, as a map does."""
    bands = list(block[0]) if len(block) == 1 else block
    status, culprit = np.zeros((2, *bands[0].shape), "u1")
    for number, (band, p) in enumerate(zip(bands, PREDICTORS.values()), 1):
        judge(band, status, culprit, number, p.plausible, (0.0, 1.0))
    known = Known.of(status, bands, list(PREDICTORS.values()))
    return [known.tile(at, min(at + TILE, known.count), walk.kernel.dtype) for at in range(0, known.count, TILE)]


def stages(path, layout, side, models, rounds, folder):
    """Seconds of every stage, by model, in interleaved rounds."""
    read, found, out = reader(path, layout), {}, folder / "out.zarr"
    blocks = [read(span) for span in spans(side)]
    tiles, maps = {}, {}
    for name, model in models.items():
        walk.kernel = model.kernel
        tiles[name] = all_blocks(walk, blocks)
        maps[name] = smgrid.predict_map(smgrid.open_cube(path), model).compute().chunk(y=CHUNK, x=CHUNK)

    def timed(key, function):
        start = time.perf_counter(), time.process_time()
        function()
        found.setdefault(key, []).append((time.perf_counter() - start[0], time.process_time() - start[1]))

    for _ in range(rounds + 1):  # the first is warm-up
        for name, model in models.items():
            walk.kernel = model.kernel
            timed((name, "read"), lambda: all_blocks(lambda span: len(read(span)), spans(side)))  # and let go of
            timed((name, "walk"), lambda: all_blocks(lambda block: len(walk(block)), blocks))
            timed((name, "kernel"), lambda n=name, m=model: all_blocks(lambda t: [m.kernel(x) for x in t], tiles[n]))
            timed((name, "write"), lambda n=name: maps[n].to_zarr(out, mode="w", zarr_format=3, consolidated=False))
            shutil.rmtree(out)
            timed((name, "store"), lambda n=name: smgrid.write_zarr(maps[n], out, progress=False))
            shutil.rmtree(out)
            timed((name, "whole"), lambda m=model: whole(path, m, out))
            shutil.rmtree(out)
    return {key: [statistics.median(column) for column in zip(*times[1:])] for key, times in found.items()}


def whole(path, model, out):
    smgrid.write_zarr(smgrid.predict_map(smgrid.open_cube(path), model), out, progress=False)


def report(layout, found, models):
    for unit, what in enumerate(("wall", "CPU")):
        print(f"\n{layout}, {what} s, {WORKERS} threads     read   walk kernel  write  store  whole  overhead")
        for name, model in models.items():
            t = {stage: found[name, stage][unit] for stage in ("read", "walk", "kernel", "write", "store", "whole")}
            over = t["whole"] / (t["read"] + t["kernel"] + t["write"]) - 1
            line = "".join(f"{seconds:7.3f}" for seconds in t.values())
            print(f"{name:10s} {type(model.kernel).__name__:12s} {line}   {over:+.0%}", flush=True)


# ---- memory


def memory(cube, model_path, out):
    """Peak above the base of one write, in this process."""
    dask.config.set(scheduler="threads", num_workers=WORKERS)
    model = smgrid.load_model(model_path)
    assert model.kernel
    small = smgrid.open_cube(cube).isel(y=slice(0, 50), x=slice(0, 50)).chunk(y=50, x=50)
    whole_of = smgrid.predict_map(small, model)
    smgrid.write_zarr(whole_of, f"{out}.small.zarr", progress=False)  # imports are the base's
    base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    whole(cube, model, f"{out}.zarr")
    above = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - base
    print(json.dumps({"base": base * 1024 / 1e6, "above": above * 1024 / 1e6}))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=2000)
    parser.add_argument("--layouts", nargs="+", default=["A", "B"])
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        memory(*args.one)
        return
    table = samples()
    models = {name: model_of(name, table) for name in args.models}
    with tempfile.TemporaryDirectory(dir=os.environ.get("SMGRID_BENCH")) as folder:
        folder = Path(folder)
        for layout in args.layouts:
            path = folder / f"{layout}.zarr"
            write_cube(path, layout, args.side)
            with dask.config.set(scheduler="threads", num_workers=WORKERS):
                report(layout, stages(path, layout, args.side, models, args.rounds, folder), models)
            if args.memory:
                name = args.models[0]
                smgrid.save_model(models[name], folder / f"{layout}.model")
                write_cube(folder / "large.zarr", layout, 2 * args.side)
                for cube in (path, folder / "large.zarr"):
                    command = [
                        sys.executable,
                        __file__,
                        "--one",
                        cube,
                        folder / f"{layout}.model",
                        folder / f"maps_{cube.stem}",
                    ]
                    told = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
                    chunk = BANDS * CHUNK * CHUNK * 4 / 1e6
                    print(f"peak above base, {cube.stem}: {told['above']:.0f} MB; {WORKERS} x 2.5 x {chunk:.0f} MB "
                          f"of a chunk = {WORKERS * 2.5 * chunk:.0f} MB", flush=True)  # fmt: skip
                for rest in [*folder.glob("large*"), *folder.glob("maps_*")]:
                    shutil.rmtree(rest, ignore_errors=True)


if __name__ == "__main__":
    main()
