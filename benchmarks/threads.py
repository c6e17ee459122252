"""How every engine scales to two threads: the table of docs/speed.md.

    python -m benchmarks.threads [--repeats 7]

Wall-clock seconds of the same eight chunks, one after the other and on two threads, as Dask hands them out; interleaved,
medians of the ratios. The machine must be quiet. Cells and targets are synthetic.

Takes 2 minutes on a quiet machine; publishes the table of docs/speed.md, "Threads".
"""

import argparse
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
from sklearn.ensemble import RandomForestRegressor
from sklearn.svm import SVR
from xgboost import XGBRegressor

from benchmarks.dense_kernels import clocked, fitted, on_two, perceptron, synthetic
from smgrid.kernels import Library, kernel_of
from smgrid.regressors import one_thread

ENGINES = {
    "SVR": (lambda: fitted(SVR(epsilon=0.02), 10_000), 16_384),
    "MLP 2 x 64": (lambda: perceptron(64, 64), 1_000_000),
    "MLP 5 x 256": (lambda: perceptron(*(256,) * 5), 60_000),
    "XGB 300 x 5": (lambda: fitted(XGBRegressor(n_estimators=300, max_depth=5, n_jobs=1), 10_000), 400_000),
    "RF 100 x 20": (lambda: fitted(RandomForestRegressor(100, max_depth=20, n_jobs=2), 10_000), 100_000),
}


def one_after_the_other(kernel, parts):
    for part in parts:
        kernel(part)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--small", action="store_true", help="few cells, to see that it runs")
    args = parser.parse_args()
    print("| engine | kernel | 1 thread, Mrow/s | 2 threads | scaling |")
    print("|---|---|--:|--:|--:|")
    for name, (train, cells) in ENGINES.items():
        cells = cells // 50 if args.small else cells
        kernel = kernel_of(train(), encoded=True)
        tile = synthetic(cells, 1)[0].T.astype(kernel.dtype)
        parts = [np.ascontiguousarray(part) for part in np.array_split(tile, 8, axis=1)]
        one, two = [], []
        with one_thread(), ThreadPoolExecutor(2) as pool:
            on_two(pool, kernel, parts)
            for _ in range(args.repeats):
                one.append(clocked(time.perf_counter, partial(one_after_the_other, kernel, parts)))
                two.append(clocked(time.perf_counter, partial(on_two, pool, kernel, parts)))
        scaling = statistics.median(a / b for a, b in zip(one, two))
        rates = [f"{cells / statistics.median(took) / 1e6:.3f}" for took in (one, two)]
        way = "library" if isinstance(kernel, Library) else type(kernel).__name__
        print("|", " | ".join([name, way, *rates, f"x{scaling:.2f}"]), "|", flush=True)


if __name__ == "__main__":
    main()
