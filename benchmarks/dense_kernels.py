"""Support vectors and perceptrons against scikit-learn: the table of docs/speed.md.

    python -m benchmarks.dense_kernels [--repeats 5] [--small]

One thread in CPU seconds, two threads (chunks of the cells shared out) in wall-clock seconds against scikit-learn on one;
runs are interleaved, medians. What a kernel gives is first held against the library's float64. Cells and targets are
synthetic; perceptrons are trained in float32, so that scikit-learn may use float32 too.

Takes 3 minutes; publishes the table of docs/speed.md, "Support vectors and perceptrons".
"""

import argparse
import statistics
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPRegressor
from sklearn.svm import SVR

from smgrid.kernels import kernel_of
from smgrid.regressors import one_thread

INPUTS = 25


def synthetic(n, seed):
    """Encoded rows and soil moisture that follows from some of them."""
    rng = np.random.default_rng(seed)
    rows = 1 / (1 + np.exp(-rng.standard_normal((n, INPUTS))))
    target = 0.25 + 0.08 * np.sin(5 * rows[:, 0] * rows[:, 1]) + 0.1 * (rows[:, 2] - 0.5) * (rows[:, 3] > 0.5)
    target += 0.03 * ((rows - 0.5) * np.linspace(1, 0.1, INPUTS)).sum(axis=1)
    return rows, np.clip(target + 0.03 * rng.standard_normal(n), 0.02, 0.6)


def fitted(regressor, n, dtype="f8"):
    rows, target = synthetic(n, 0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return regressor.fit(rows.astype(dtype), target.astype(dtype))


def perceptron(*widths):
    return fitted(MLPRegressor(hidden_layer_sizes=widths, max_iter=10, random_state=0), 10_000, "f4")


def clocked(clock, work):
    start = clock()
    work()
    return clock() - start


def on_two(pool, kernel, parts):
    list(pool.map(kernel, parts))


def race(name, regressor, cells, library, tolerance, repeats):
    """A row of the table: `cells` for the kernel, `library` of them (it is slower) for scikit-learn."""
    kernel = kernel_of(regressor, encoded=True)
    rows, _ = synthetic(cells, 1)
    tile = np.ascontiguousarray(rows.T.astype(kernel.dtype))
    first = np.ascontiguousarray(tile[:, :library])
    error = np.abs(kernel.sums(first)[0] - regressor.predict(rows[:library])).max()
    assert error <= tolerance, f"{name}: {error} off"
    single = rows[:library].astype("f4" if kernel.dtype == "f4" else "f8")
    parts = [np.ascontiguousarray(part) for part in np.array_split(tile, 8, axis=1)]
    took = {"library": [], "double": [], "kernel": [], "library wall": [], "two": []}
    with one_thread(), ThreadPoolExecutor(2) as pool:
        for _ in range(repeats):
            took["library"].append(clocked(time.process_time, partial(regressor.predict, single)))
            took["double"].append(clocked(time.process_time, partial(regressor.predict, rows[:library])))
            took["kernel"].append(clocked(time.process_time, partial(kernel, tile)))
            took["library wall"].append(clocked(time.perf_counter, partial(regressor.predict, single)))
            took["two"].append(clocked(time.perf_counter, partial(on_two, pool, kernel, parts)))
    done = {"kernel": cells, "two": cells}
    rate = {way: done.get(way, library) / statistics.median(seconds) / 1e6 for way, seconds in took.items()}
    said = [f"{rate['library']:.4f}", f"{rate['double']:.4f}", f"{rate['kernel']:.4f}"]
    ratios = [rate["kernel"] / rate["library"], rate["kernel"] / rate["double"], rate["two"] / rate["library wall"]]
    print("|", " | ".join([name, *said, *(f"x{r:.1f}" for r in ratios), f"{error:.0e}"]), "|", flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--small", action="store_true", help="small models, to see that it runs")
    args = parser.parse_args()
    sizes, shapes = ((3000, 10_000), ((64,) * 2, (256,) * 5)) if not args.small else ((300,), ((8,),))
    print("| regressor | library, Mrow/s | library, float64 | kernel | ratio | ratio to float64 | 2 threads | off by |")
    print("|---|--:|--:|--:|--:|--:|--:|--:|")
    for n in sizes:
        svr = fitted(SVR(epsilon=0.02), n)
        race(f"SVR, {len(svr.support_)} vectors", svr, 16_384, 1000, 1e-10, args.repeats)
    for widths in shapes:
        cells = 50_000 if widths[0] > 100 else 300_000
        name = f"MLP {len(widths)} x {widths[0]}"
        race(name, perceptron(*widths), cells, cells, 1e-6, args.repeats)


if __name__ == "__main__":
    main()
