"""Compiled tree kernels against their libraries: the table of docs/kernels.md.

    python -m benchmarks.kernels [--quick] [docs/kernels.md]

Takes some ten minutes, with --quick one; with a page it replaces the table there.

Cells of a synthetic map of 25 predictors in the order of the map, and the same cells shuffled; models trained on 10 000
of them. One thread in CPU seconds, runs interleaved, medians; the library is given rows and the kernel bands, as each
wants them. Each result is first compared bit for bit. Two threads share out the cells, in wall-clock seconds.
"""

import argparse
import os
import platform
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from sklearn.ensemble import RandomForestRegressor
from xgboost import XGBRegressor

from benchmarks.scenes import fields
from smgrid.kernels import kernel_of
from smgrid.native import native
from smgrid.regressors import on_one_thread, one_thread
from smgrid.treekernels import Shallow

FORMS = ("plain", "avx2", "avx512")
CASES = {  # trees, levels (None: no bound), samples
    "xgb 100x3": (XGBRegressor, 100, 3, 10_000),
    "xgb 300x5": (XGBRegressor, 300, 5, 10_000),
    "xgb 300x6": (XGBRegressor, 300, 6, 10_000),
    "xgb 300x8": (XGBRegressor, 300, 8, 10_000),
    "rf 10x10": (RandomForestRegressor, 10, 10, 10_000),
    "rf 100x10": (RandomForestRegressor, 100, 10, 10_000),
    "rf 100x20": (RandomForestRegressor, 100, 20, 10_000),
    "rf 100 unbounded": (RandomForestRegressor, 100, None, 10_000),
}


def synthetic_cells(side):
    """Complete cells of a map in its order: (25, n)."""
    bands = np.stack([band.ravel() for band in fields(side)])
    return np.ascontiguousarray(bands[:, ~np.isnan(bands[0])])


def synthetic_truth(rows, rng):
    level = 0.25 + 0.08 * np.sin(5 * rows[:, 0] * rows[:, 1]) + 0.1 * (rows[:, 2] - 0.5) * (rows[:, 3] > 0.5)
    level = level + 0.05 * np.tanh(4 * (rows[:, 4] - rows[:, 5])) + 0.03 * (rows @ np.linspace(1, 0.1, 25) - 7)
    return np.clip(level + 0.03 * rng.standard_normal(len(rows)), 0.02, 0.6)


def trained(case, cells):
    kind, trees, levels, samples = CASES[case]
    rng = np.random.default_rng(99)
    rows = np.ascontiguousarray(cells[:, rng.choice(cells.shape[1], samples)].T)
    options = {"learning_rate": 0.1} if kind is XGBRegressor else {}
    model = kind(n_estimators=trees, max_depth=levels, random_state=0, n_jobs=1, **options)
    return on_one_thread(model.fit(rows, synthetic_truth(rows, rng)))


def seconds(clock, work):
    start = clock()
    work()
    return clock() - start


def race(name, model, cells, order, runs):
    """A row of the table."""
    made = time.process_time()
    kernel = kernel_of(model)
    made = time.process_time() - made
    tile = np.ascontiguousarray(cells[:, order])
    rows, n = np.ascontiguousarray(tile.T), tile.shape[1]
    best = native().form()
    forms = FORMS[: FORMS.index(best) + 1] if isinstance(kernel, Shallow) else [best]
    halves = [np.ascontiguousarray(half) for half in np.array_split(tile, 2, axis=1)]
    took = {form: [] for form in ("library", *forms)}
    one, two = [], []
    with one_thread(), ThreadPoolExecutor(2) as pool:
        expected = np.asarray(model.predict(rows)).astype("f4").tobytes()
        for form in forms:
            native().form(form)
            if kernel(tile).tobytes() != expected:
                raise RuntimeError(f"{name}: the form {form} does not give the library's bits")
        for _ in range(runs):
            took["library"].append(seconds(time.process_time, lambda: model.predict(rows)))
            for form in forms:
                native().form(form)
                took[form].append(seconds(time.process_time, lambda: kernel(tile)))
            one.append(seconds(time.perf_counter, lambda: [kernel(half) for half in halves]))
            two.append(seconds(time.perf_counter, lambda: list(pool.map(kernel, halves))))
    median = {form: statistics.median(times) for form, times in took.items()}
    ratio = {form: median["library"] / median[form] for form in forms}
    cellwise = [f"x{ratio[form]:.1f}" if form in ratio else "" for form in FORMS]
    if len(forms) == 1:
        cellwise = [f"x{ratio[best]:.1f}", "same", "same"]
    scaling = statistics.median(a / b for a, b in zip(one, two))
    rate = [n / median[form] / 1e6 for form in ("library", best)]
    return [name, f"{rate[0]:.3f}", f"{rate[1]:.2f}", *cellwise, f"x{scaling:.2f}", f"{made:.2f}"]


def growth(cells, runs):
    """Slope of log time over log number of trees, 50 to 400, by kernel."""
    said = []
    for kind, levels in ((XGBRegressor, 3), (XGBRegressor, 5), (RandomForestRegressor, None)):
        counts = (50, 100, 200, 400)
        kernels = []
        for trees in counts:
            CASES["of growth"] = (kind, trees, levels, 3000)
            kernels.append(kernel_of(trained("of growth", cells)))
        times = [[seconds(time.process_time, lambda k=k: k(cells)) for k in kernels] for _ in range(runs)]
        slope = np.polyfit(np.log(counts), np.log(np.median(times, axis=0)), 1)[0]
        said.append(f"{'xgb' if kind is XGBRegressor else 'rf'} of {levels or 'unbounded'} levels {slope:.2f}")
    del CASES["of growth"]
    return "Growth with the number of trees, 50 to 400, slope on log-log axes: " + ", ".join(said) + "."


def table(quick):
    cells = synthetic_cells(300 if quick else 400)
    n, runs = (20_000, 3) if quick else (60_000, 5)
    shuffled = np.random.default_rng(1).permutation(cells.shape[1])[:n]
    load = f", load {os.getloadavg()[0]:.1f} before the first run" if hasattr(os, "getloadavg") else ""
    yield f"{platform.machine()}, best form {native().form()}, {os.cpu_count()} cores{load}; {n:,} cells, {runs} runs.\n"
    yield "| cells | model | library, Mcells/s | kernel | plain | AVX2 | AVX-512 | two threads | made in, s |"
    yield "|---|---|---|---|---|---|---|---|---|"
    models = {name: trained(name, cells) for name in CASES}
    for kind, order in (("map", slice(n)), ("shuffled", shuffled)):
        for name, model in models.items():
            yield "| " + " | ".join([kind, *race(name, model, cells, order, runs)]) + " |"
    yield "\n" + growth(np.ascontiguousarray(cells[:, :n]), runs)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("page", nargs="?", type=Path)
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    lines = []
    for line in table(args.quick):
        print(line, flush=True)
        lines.append(line)
    if args.page:
        start, end = "<!-- table -->\n", "<!-- end of table -->"
        before, _, rest = args.page.read_text().partition(start)
        args.page.write_text(before + start + "\n" + "\n".join(lines) + "\n\n" + end + rest.partition(end)[2])


if __name__ == "__main__":
    main()
