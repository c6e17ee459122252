"""How predict_map and write_zarr grow: with the size of the map, with trees and support vectors, with threads and processes.

    python -m benchmarks growth FOLDER [--publish docs] [--minutes 12] [--curves size,trees] [--largest 8000]

Takes 12 minutes; makes docs/growth.md and docs/figures/growth.png.

Every point is a process of its own, runs are interleaved, imports are outside the clock, maps are checked as in the race.
FOLDER keeps each run; a stopped call goes on. The demand: the slope of seconds on cells is 1.00 +- 0.05 on a log-log
plot, and the peak of memory is the same at four times the cube.
"""

import argparse
import json
import os
import pickle
import statistics
import time
from pathlib import Path

import numpy as np

from benchmarks import scenes
from benchmarks.race import TINY, code, machine, one, read

SIDE = 1000
UNITS = {  # what x counts, by how the curve's name begins
    "size": "cells",
    "trees of XGBoost, depth 5": "trees",
    "trees of a random forest, depth 15": "trees",
    "support vectors": "support vectors",
    "threads": "threads",
    "processes": "processes",
}
SHORT = {"size": "size", "trees": "trees", "svr": "support", "workers": ("threads", "processes")}


def points(args):
    """(curve, x, how to run it), the cheap ones first."""
    light, heavy = "xgb-100x3", "xgb-300x5"
    for times in (1, 2, 4, 8, 16):
        if SIDE * times <= args.largest:
            yield "size", (SIDE * times) ** 2, {"side": SIDE, "times": times, "model": light}
    for n in (25, 50, 100, 200, 400, 800):
        yield "trees of XGBoost, depth 5", n, {"side": SIDE, "model": f"xgb-{n}x5"}
    for n in (8, 16, 32, 64):
        yield "trees of a random forest, depth 15", n, {"side": SIDE, "model": f"rf-{n}x15"}
    for rows in (500, 1000, 2000, 4000):
        yield "support vectors", rows, {"side": 500, "chunk": 250, "model": f"svr-{rows}"}
    cores = os.cpu_count() or 1
    for n in sorted({2**k for k in range(6) if 2**k <= cores} | {cores}):
        for model in (heavy, "rf-32x15"):
            yield f"threads, {model}", n, {"side": 2 * SIDE, "model": model, "workers": n}
        yield f"processes, {heavy}", n, {"side": 2 * SIDE, "model": heavy, "workers": 1, "processes": n}


def prepare(args, how):
    """The job of one point."""
    times, model, folder = how.get("times", 1), how["model"], args.folder
    tiny = {"scene": str(scenes.scene(folder, TINY, "packed", "lz4", 50)), "chunk": 50, "side": TINY}
    scene = scenes.scene(folder, how["side"], "packed", "lz4", how.get("chunk", scenes.CHUNK), times)
    job = {"contender": "smgrid", "layout": "packed", "workers": os.cpu_count(), "chunk": scenes.CHUNK, "tiny": tiny}
    job |= {"scene": str(scene), "truth": str(scenes.truth(folder, how["side"], model))}
    return job | how | {"model": str(scenes.model(folder, model))}


def measure(args):
    """Round after round through all points, until the time is over."""
    book = args.folder / f"growth-{code()}.jsonl"
    plan = [point for point in points(args) if wanted(args, point[0])]
    jobs = [prepare(args, how) for _, _, how in plan]
    there = {(r["curve"], r["x"], r["round"]) for r in read(book)}
    took = {(r["curve"], r["x"]): r["process"] for r in read(book)}
    ends = time.monotonic() + 60 * args.minutes
    for n in range(args.rounds):
        for (curve, x, _), job in zip(plan, jobs, strict=True):
            if (curve, x, n) in there:
                continue
            if time.monotonic() + took.get((curve, x), 0) > ends:
                print(f"time is over in round {n + 1}; the same command goes on", flush=True)
                return book
            row = one(args, job) | {"curve": curve, "x": x, "round": n}
            took[curve, x] = row["process"]
            with open(book, "a") as file:
                file.write(json.dumps(row) + "\n")
            print(n + 1, curve, x, row.get("error") or f"{row['wall']:.2f} s", sep="  ", flush=True)
    return book


def wanted(args, curve):
    return any(curve.startswith(SHORT[name]) for name in args.curves)


# ---- what came out


def medians(rows):
    """curve -> [(x, wall, least, most, cpu, peak, n)], by x; runs whose map is wrong count for nothing."""
    groups = {}
    for r in rows:
        if r.get("right"):
            groups.setdefault(r["curve"], {}).setdefault(r["x"], []).append(r)
    found = {}
    for curve, by_x in groups.items():
        for x in sorted(by_x):
            walls, cpus, peaks = ([r[k] for r in by_x[x]] for k in ("wall", "cpu", "peak"))
            middle = [statistics.median(v) for v in (walls, cpus, peaks)]
            found.setdefault(curve, []).append((x, middle[0], min(walls), max(walls), *middle[1:], len(walls)))
    return found


def slope(x, y):
    """Slope of log y on log x by least squares."""
    return np.polyfit(np.log(x), np.log(y), 1)[0]


def vectors(folder, rows):
    """Support vectors of the model that was trained on so many rows."""
    return int(pickle.loads(scenes.model(folder, f"svr-{rows}").read_bytes()).n_support_.sum())


def publish(args, book):
    rows = read(book)
    for r in rows:
        if r["curve"] == "support vectors":
            r["x"] = vectors(args.folder, r["x"])
    found = medians(rows)
    if not found:
        raise SystemExit(f"nothing to publish: {book} has no runs")
    text = [HEAD.format(machine=machine()), *sizes(found.pop("size", []))]
    for curve, line in found.items():
        text += ["", f"## {curve[0].upper()}{curve[1:]}", "", *growing(curve, line)]
    args.publish.mkdir(parents=True, exist_ok=True)
    (args.publish / "growth.md").write_text("\n".join(text).rstrip() + "\n")
    draw(medians(rows), args.publish / "figures" / "growth.png")
    print(args.publish / "growth.md")


HEAD = """# How maps grow

Made by `python -m benchmarks growth FOLDER --publish docs`; {machine}.

`predict_map` and `write_zarr` on the scenes of [the race](race.md) (synthetic; packed, lz4, chunks of 500 x 500): a process
a point, imports outside the clock, runs interleaved, medians; every map was checked against the library's own `predict`.

![seconds against size, trees, support vectors and workers](figures/growth.png)
"""


def fixed(x, wall):
    """Seconds that every map costs, and seconds a million cells, by least squares of relative errors."""
    x, wall = np.array(x) / 1e6, np.array(wall)
    (once, each), *_ = np.linalg.lstsq(np.stack([1 / wall, x / wall], axis=1), np.ones(len(x)))
    return once, each


def sizes(line):
    """Seconds, memory and slope by size."""
    if not line:
        return []
    out = ["## Size", "", "xgb-100x3, one scene laid side by side.", ""]
    out += [
        "| cells | wall, s (range) | million cells/s | CPU, s | peak, MB | slope from the line above | n |",
        "|--:|--:|--:|--:|--:|--:|--:|",
    ]
    before = None
    for x, wall, least, most, cpu, peak, n in line:
        step = "" if before is None else f"{slope([before[0], x], [before[1], wall]):.2f}"
        out.append(
            f"| {x**0.5:.0f}² | {wall:.2f} ({least:.2f}-{most:.2f}) | {x / wall / 1e6:.1f} | {cpu:.2f} "
            f"| {peak:.0f} | {step} | {n} |"
        )
        before = (x, wall)
    if len(line) > 1:
        x, wall, cpu = ([p[k] for p in line] for k in (0, 1, 4))
        b = slope(x, wall)
        said = "reached" if abs(b - 1) <= 0.05 else "missed"
        out += [
            "",
            f"Slope over all: {b:.2f} (demand 1.00 +- 0.05: {said}); of CPU seconds {slope(x, cpu):.2f}.",
        ]
        if len(line) > 2:
            once, each = fixed(x, wall)
            out[-1] += f" From {x[1] ** 0.5:.0f}² up: {slope(x[1:], wall[1:]):.2f}."
            out[-1] += f" In all {once:.2f} s a map and {each:.3f} s a million cells: small maps cost more a cell."
    return out


def growing(curve, line):
    """Seconds by x; speed-up where x counts workers."""
    workers = curve.startswith(SHORT["workers"])
    what = next(unit for name, unit in UNITS.items() if curve.startswith(name))
    last = "speed-up" if workers else "slope from the line above"
    out = [f"| {what} | wall, s (range) | CPU, s | peak, MB | {last} | n |", "|--:|--:|--:|--:|--:|--:|"]
    before = None
    for x, wall, least, most, cpu, peak, n in line:
        if workers:
            step = f"x{line[0][1] / wall:.2f}"
        else:
            step = "" if before is None else f"{slope([before[0], x], [before[1], wall]):.2f}"
        own = curve.startswith("processes")  # what the workers use is not counted in this process
        spent, held = ("", "") if own else (f"{cpu:.2f}", f"{peak:.0f}")
        out.append(f"| {x} | {wall:.2f} ({least:.2f}-{most:.2f}) | {spent} | {held} | {step} | {n} |")
        before = (x, wall)
    return out


def draw(found, path):
    """Four panels, log-log: size, trees, support vectors, workers."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    panels = {"size": "cells", "trees": "trees", "support": "support vectors", ("threads", "processes"): "workers"}
    colors, marks = ("#0072B2", "#D55E00", "#009E73"), "os^"  # Okabe and Ito
    figure, axes = plt.subplots(2, 2, figsize=(8, 6.4), layout="constrained")
    for ax, (start, label) in zip(axes.flat, panels.items(), strict=True):
        lines = {curve: line for curve, line in found.items() if curve.startswith(start)}
        for (curve, line), color, mark in zip(lines.items(), colors, marks):
            x, wall, least, most = np.array([p[:4] for p in line]).T
            ax.errorbar(
                x, wall, [wall - least, most - wall], color=color, marker=mark, ms=5, lw=1.2, capsize=2, label=curve
            )
        if lines:
            x, wall = (np.array([p[k] for p in line]) for k in (0, 1))
            guide = wall[0] * x[0] / x if label == "workers" else wall[-1] * x / x[-1]
            ax.plot(x, guide, color="0.6", ls="--", lw=1, label="in proportion")
            ax.set_xscale("log")
            ax.set_yscale("log")
            ax.legend(fontsize=7, frameon=False)
        ax.set_visible(bool(lines))
        ax.set_xlabel(label)
        ax.set_ylabel("wall time (s)")
        ax.grid(color="0.92", which="both", lw=0.6)
        if label == "workers" and lines:
            ticks = sorted({p[0] for line in lines.values() for p in line})
            ax.set_xticks(ticks, [str(t) for t in ticks])
            ax.minorticks_off()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def main(argv=None):
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks growth", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="keeps scenes, models and every run")
    parser.add_argument("--publish", type=Path, metavar="DOCS", help="write DOCS/growth.md and DOCS/figures/growth.png")
    parser.add_argument(
        "--minutes", type=float, default=12, help="no run starts that would end later; 0 only publishes"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--curves", type=lambda t: t.split(","), default=list(SHORT), help="of size,trees,svr,workers")
    parser.add_argument("--largest", type=int, default=8000, help="side of the largest scene, cells (%(default)s)")
    args = parser.parse_args(argv)
    args.python = {}
    args.folder.mkdir(parents=True, exist_ok=True)
    book = measure(args) if args.minutes else args.folder / f"growth-{code()}.jsonl"
    if args.publish:
        publish(args, book)


if __name__ == "__main__":
    main()
