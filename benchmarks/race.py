"""The race: predict_map and write_zarr against every other way from an open scene to a written map.

    python -m benchmarks race FOLDER [--publish docs] [--minutes 12] [--python PEER=PYTHON]

Takes 12 minutes as it stands, hours with everything; makes docs/race.md and docs/figures/race.png.

Every run is a process of its own; runs are interleaved (a round takes each contender once in each cell of the table) and
FOLDER keeps each as soon as it is done, so that a stopped race goes on and `--publish` tables what is there. `--all` takes
every contender, `--contenders`, `--models`, `--layouts` (such as packed-lz4) and `--sides` choose. Peers that live in an
environment of their own are given its Python: `--python Pyspatialml=/path/to/python`. smgrid runs with the Python that
runs the race. Peers: pip install sklearn-raster dask-ml dea-tools openeo-processes-dask pyspatialml.
"""

import argparse
import hashlib
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

from benchmarks import scenes
from benchmarks.contenders import PACKAGES, WAYS

ROOT = Path(__file__).parents[1]
BEST = ("smgrid", "apply_ufunc, best", "sklearn-raster, best", "dask-ml, best")
DEMANDS = {"xgb-100x3": 3.0, "xgb-300x5": 5.5, "rf-10x10": 1.8, "rf-100x20": 2.7}  # best peer's wall over smgrid's
HEAVY = "rf-100x20"
TINY = 100
LIMIT = 900  # s, of one run


# ---- running


def cells(args):
    """What one round goes through: (side, layout, codec, model)."""
    pairs = [pair.rsplit("-", 1) for pair in args.layouts]
    return [(side, *pair, model) for side in args.sides for pair in pairs for model in args.models or usual(*pair)]


def usual(layout, _codec):
    """The models with a demand; the heavy forest, where reading does not count, on one layout only."""
    return [model for model in DEMANDS if layout == "packed" or model != HEAVY]


def prepare(args):
    """Scenes, models and truths, made once, and read once so that they lie in the page cache."""
    tiny = {
        (layout, codec): {"scene": str(scenes.scene(args.folder, TINY, layout, codec, 50)), "chunk": 50, "side": TINY}
        for _, layout, codec, _ in cells(args)
    }
    rasters = any(c.startswith("Pyspatialml") for c in args.contenders)
    jobs = {}
    for side, layout, codec, model in cells(args):
        job = {
            "side": side,
            "layout": layout,
            "workers": args.workers,
            "chunk": args.chunk,
            "tiny": tiny[layout, codec],
        }
        job["scene"] = str(scenes.scene(args.folder, side, layout, codec, args.chunk))
        job["model"], job["truth"] = (str(make(args.folder, model)) for make in (scenes.model, partial(side)))
        if rasters:
            job["geotiff"] = str(scenes.geotiff(args.folder, side))
            job["tiny"] = {**job["tiny"], "geotiff": str(scenes.geotiff(args.folder, TINY))}
        jobs[side, layout, codec, model] = job
    for path in {job["scene"] for job in jobs.values()}:
        for file in Path(path).rglob("*"):
            if file.is_file():
                file.read_bytes()
    return jobs


def partial(side):
    return lambda folder, model: scenes.truth(folder, side, model)


def code():
    """What tells one state of smgrid from another: its sources and its compiled half."""
    digest = hashlib.sha256()
    for path in sorted((ROOT / "smgrid").rglob("*")):
        if path.suffix in (".py", ".c", ".h", ".so"):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:8]


def race(args):
    """Run what is not yet there, round after round, until the time is over."""
    jobs, book = prepare(args), args.folder / f"race-{code()}.jsonl"
    done = read(book)
    ends = time.monotonic() + 60 * args.minutes
    fallen = {(*key(row), row["contender"]) for row in done if "error" in row}
    there = {(*key(row), row["contender"], row["round"]) for row in done}
    took = {(*key(row), row["contender"]): row["process"] for row in done}
    for n in range(args.rounds):
        for cell, job in jobs.items():
            turn = n % len(args.contenders)
            for name in (*args.contenders[turn:], *args.contenders[:turn]):
                if (*cell, name, n) in there or (*cell, name) in fallen:
                    continue
                if not fits(args, cell, name):
                    continue
                if time.monotonic() + took.get((*cell, name), 0) > ends:
                    print(f"time is over in round {n + 1}; the same command goes on", flush=True)
                    return book
                row = one(args, job | {"contender": name})
                row |= dict(zip(("side", "layout", "codec", "model"), cell)) | {"contender": name, "round": n}
                took[(*cell, name)] = row["process"]
                if "error" in row:
                    fallen.add((*cell, name))
                with open(book, "a") as file:
                    file.write(json.dumps(row) + "\n")
                said = row.get("error") or f"{row['wall']:6.2f} s {'' if row['right'] else '  WRONG'}"
                print(n + 1, *cell, name, said, sep="  ", flush=True)
    return book


def fits(args, cell, name):
    """Pyspatialml reads GeoTIFF whatever the cube's layout: it runs once a model. The usual race has little time."""
    if name.startswith("Pyspatialml"):
        return cell[1] == "packed"
    return args.models is not None or args.all or cell[3] != HEAVY or not name.startswith("dask-ml")


def one(args, job):
    """One process; its threads are counted from outside, 20 times a second."""
    name = job["contender"]
    python = next((path for peer, path in args.python.items() if name.startswith(peer)), sys.executable)
    suffix = ".tif" if name.startswith("Pyspatialml") else ".zarr"
    job = job | {"out": str(args.folder / f"out-{os.getpid()}{suffix}")}
    start, threads = time.monotonic(), 0
    command = [python, "-m", "benchmarks.contenders", json.dumps(job)]
    child = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while True:
        try:
            out, err = child.communicate(timeout=0.05)
            break
        except subprocess.TimeoutExpired:
            threads = max(threads, _threads(child.pid))
            if time.monotonic() - start > LIMIT:
                child.kill()
                child.communicate()
                return {"error": f"not done after {LIMIT} s", "process": LIMIT}
    lines = out.splitlines()
    told = json.loads(lines[-1]) if lines else {"error": (err.splitlines() or ["died without a word"])[-1][:300]}
    return told | {"threads": threads, "process": time.monotonic() - start, "load": os.getloadavg()[0]}


def _threads(pid):
    try:
        return len(os.listdir(f"/proc/{pid}/task"))
    except OSError:
        return 0


def read(book):
    return [json.loads(line) for line in book.read_text().splitlines()] if book.exists() else []


def key(row):
    return tuple(row[k] for k in ("side", "layout", "codec", "model"))


# ---- what came out


def middle(rows):
    """A contender's runs in one cell as one row of medians."""
    good = [row for row in rows if "error" not in row]
    if not good:
        return {"error": rows[0]["error"], "n": 0}
    told = {
        k: statistics.median(r[k] for r in good) for k in ("wall", "cpu", "peak", "base", "start", "threads", "tasks")
    }
    told |= {"least": min(r["wall"] for r in good), "most": max(r["wall"] for r in good), "n": len(good)}
    told |= {k: good[0][k] for k in ("gaps", "dtype", "crs")}
    off = [r["difference"] for r in good if r["difference"] is not None]
    return told | {"difference": max(off, default=None), "right": all(r["right"] for r in good)}


def table(rows):
    """(cell, contender) -> medians, in the order of WAYS."""
    groups = {}
    for row in rows:
        groups.setdefault((key(row), row["contender"]), []).append(row)
    order = list(WAYS)
    return {k: middle(groups[k]) for k in sorted(groups, key=lambda k: (k[0][:3], _rank(k[0][3]), order.index(k[1])))}


def _rank(model):
    return scenes.MODELS.index(model) if model in scenes.MODELS else len(scenes.MODELS)


def is_peer(name):
    return not name.startswith("smgrid")


def ratios(medians):
    """Of each cell: the fastest peer whose map is right, its wall over smgrid's, and the same of paired rounds' medians."""
    found = {}
    for cell in dict.fromkeys(cell for cell, _ in medians):
        ours = medians.get((cell, "smgrid"))
        peers = {n: m for (c, n), m in medians.items() if c == cell and is_peer(n) and m.get("right")}
        if ours and ours["n"] and peers:
            best = min(peers, key=lambda n: peers[n]["wall"])
            found[cell] = (best, peers[best]["wall"] / ours["wall"])
    return found


def spread(rows, cell, name):
    """Least and greatest ratio of one round: the peer's wall over smgrid's in that round."""
    walls = {(r["contender"], r["round"]): r["wall"] for r in rows if key(r) == cell and "wall" in r}
    pairs = [walls[name, n] / walls["smgrid", n] for _, n in walls if ("smgrid", n) in walls and (name, n) in walls]
    return min(pairs), max(pairs)


def publish(args, book):
    """The tables as Markdown and the figure."""
    rows = read(book)
    if not rows:
        raise SystemExit(f"nothing to publish: {book} has no runs")
    medians = table(rows)
    text = [HEAD.format(machine=machine(), versions=peers(rows), rounds=counted(medians), load=loads(rows))]
    text += ["## Against the best peer", "", *summary(rows, medians), ""]
    for cell in dict.fromkeys(cell for cell, _ in medians):
        side, layout, codec, model = cell
        text += [f"## {model}, {side} x {side}, {layout} {codec}", "", *detail(medians, cell), ""]
    args.publish.mkdir(parents=True, exist_ok=True)
    (args.publish / "race.md").write_text("\n".join(text).rstrip() + "\n")
    draw(rows, medians, args.publish / "figures" / "race.png")
    print(args.publish / "race.md")


HEAD = """# The race

Made by `python -m benchmarks race FOLDER --publish docs`; {machine}. {versions}.

Synthetic scenes of 25 float32 predictors, 30 % of the cells missing in patches, chunks of 500 x 500, page cache warm. Each
run is a process of its own, from opening the scene to the map on disk; imports and first uses are outside the clock (a map
of 100 x 100 cells is made first) and stand under *start*. Runs are interleaved; medians of {rounds} runs. Load of the
machine: {load}. *packed* is one Zarr array with all predictors of a place in a chunk, *separate* one array a predictor.
Every peer is used as its manual shows (*documented*) and as one who knows it well would use it (*best*); the code is
`benchmarks/contenders.py`. sklearn-raster resets a fitted regressor; the fitted one was put back. Pyspatialml reads and
writes GeoTIFF.

*right*: the map that was written has the gaps of the scene, and differs by at most 1e-5 m3/m3 from the library's own
`predict` (*difference*: the largest, of float32 values; 0 is the same bits). *CRS*: read back from the file, the map names
its CRS, has it *beside* (a coordinate that no attribute points to), or has *lost* it. *peak* is resident memory above what
the process held when the clock started. *threads*: most at once, those of the libraries included.

![wall time of every contender](figures/race.png)
"""


def summary(rows, medians):
    """Best peer over smgrid, beside the demand."""
    lines = [
        "| scene | model | smgrid, s | best peer whose map is right | s | ratio (rounds) | demand | |",
        "|---|---|--:|---|--:|--:|--:|---|",
    ]
    for cell, (best, ratio) in ratios(medians).items():
        low, high = spread(rows, cell, best)
        demand = DEMANDS.get(cell[3]) if cell[:3] == (2000, "packed", "lz4") else None
        verdict = "" if demand is None else "reached" if ratio >= demand else "missed"
        ours, theirs = medians[cell, "smgrid"], medians[cell, best]
        values = [f"{cell[0]}², {cell[1]} {cell[2]}", cell[3], f"{ours['wall']:.2f}", best, f"{theirs['wall']:.2f}"]
        values += [f"x{ratio:.2f} ({low:.2f}-{high:.2f})", "" if demand is None else f"x{demand}", verdict]
        lines.append(f"| {' | '.join(values)} |")
    chunk = len(scenes.BANDS) * scenes.CHUNK**2 * 4 / 1e6
    peaks = [m["peak"] for (_, name), m in medians.items() if name == "smgrid" and m["n"]]
    if peaks:
        lines += [
            "",
            f"Peak memory of smgrid above its base: {min(peaks):.0f}-{max(peaks):.0f} MB. Demand: workers x 2.5 x chunk "
            f"bytes + a constant; with 2 workers {2 * 2.5 * chunk:.0f} MB + a constant, the same at 4 x the cube.",
        ]
    return lines


def detail(medians, cell):
    """Every contender of one cell."""
    lines = [
        "| | right | difference | dtype | CRS | tasks | wall, s (range) | CPU, s | peak, MB | threads | start, s | n |"
    ]
    lines.append("|---|---|--:|---|---|--:|--:|--:|--:|--:|--:|--:|")
    for (where, name), m in medians.items():
        if where != cell:
            continue
        if not m["n"]:
            lines.append(f"| {name} | did not run: {m['error']} |" + " |" * 10)
            continue
        right = "yes" if m["right"] else f"no: {m['gaps']} gaps filled or added" if m["gaps"] else "no"
        off = "" if m["difference"] is None else f"{m['difference']:.1g}"
        values = [name, right, off, m["dtype"], m["crs"], f"{m['tasks']:.0f}" if m["tasks"] else ""]
        values += [
            f"{m['wall']:.2f} ({m['least']:.2f}-{m['most']:.2f})",
            f"{m['cpu']:.2f}",
            f"{m['peak']:.0f}",
        ]
        values += [f"{m['threads']:.0f}", f"{m['start']:.1f}", str(m["n"])]
        lines.append(f"| {' | '.join(values)} |")
    return lines


def machine():
    """Cores, processor, its widest vectors, Python, how smgrid is built."""
    from smgrid.native import state

    told = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    name = next((line.split(":")[1].strip() for line in told.splitlines() if line.startswith("model name")), "")
    width = "AVX-512" if " avx512f" in told else "AVX2" if " avx2" in told else "no AVX2"
    head = [f"{os.cpu_count()} cores", platform.machine(), name, width, f"Python {platform.python_version()}"]
    return ", ".join(filter(None, head)) + f"; smgrid {state()}"


def peers(rows):
    """Versions of everything that ran."""
    found = {}
    for row in rows:
        found |= {k: v for k, v in row.get("versions", {}).items() if k not in found}
    first = [p for p in dict.fromkeys(PACKAGES.values()) if p in found]
    return ", ".join(f"{p} {found[p]}" for p in dict.fromkeys([*first, *found]))


def counted(medians):
    n = {m["n"] for m in medians.values() if m["n"]}
    return f"{min(n)}" if len(n) == 1 else f"{min(n)} to {max(n)} (column n)"


def loads(rows):
    """Mean number of processes that ran or waited in the last minute, as it was at the end of each run."""
    found = sorted(row["load"] for row in rows)
    return f"{statistics.median(found):.1f} (at most {found[-1]:.1f})"


def draw(rows, medians, path):
    """Wall time of every run: a panel a cell, a row a contender, a mark a run, the median as a bar."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.lines import Line2D

    ours, right, wrong = "#0072B2", "#555555", "#D55E00"  # Okabe and Ito: told apart by the colour-blind
    where = list(dict.fromkeys(cell for cell, _ in medians))
    places = list(dict.fromkeys(cell[:3] for cell in where))
    models = list(dict.fromkeys(cell[3] for cell in where))
    names = [n for n in WAYS if any(m["n"] for (_, name), m in medians.items() if name == n)][::-1]
    size = (1.7 + 2.5 * len(models), 1.1 + len(places) * (0.5 + 0.21 * len(names)))
    figure, axes = plt.subplots(
        len(places), len(models), figsize=size, sharex=True, sharey=True, squeeze=False, layout="constrained"
    )
    for i, place in enumerate(places):
        for j, model in enumerate(models):
            ax, cell = axes[i, j], (*place, model)
            if cell not in where:
                ax.set_visible(False)
                continue
            for k, name in enumerate(names):
                m = medians.get((cell, name))
                if not m or not m["n"]:
                    continue
                color = ours if not is_peer(name) else right if m["right"] else wrong
                walls = [r["wall"] for r in rows if key(r) == cell and r["contender"] == name and "wall" in r]
                ax.plot(
                    walls, [k] * len(walls), "o" if m["right"] else "x", ms=4, color=color, alpha=0.5, mew=1, zorder=3
                )
                ax.plot([m["wall"]] * 2, [k - 0.36, k + 0.36], color=color, lw=2.4, zorder=4)
            ax.set_xscale("log")
            ax.grid(axis="x", which="both", color="0.9", lw=0.6)
            ax.set_title(f"{model}; {place[0]}², {place[1]} {place[2]}", fontsize=8)
            ax.set_yticks(range(len(names)), names, fontsize=7.5)
            _seconds(ax)
            ax.tick_params(labelbottom=True)
            if (*places[min(i + 1, len(places) - 1)], model) not in where or i == len(places) - 1:
                ax.set_xlabel("wall time (s)", fontsize=8)
    marks = [(ours, "o", "smgrid"), (right, "o", "peer, map right"), (wrong, "x", "peer, map wrong (gaps filled)")]
    handles = [Line2D([], [], color=c, marker=m, ls="", label=label) for c, m, label in marks]
    handles.append(Line2D([], [], color="0.3", marker="|", ms=10, mew=2.4, ls="", label="median"))
    figure.legend(
        handles=handles, loc="outside lower center", ncols=4 if len(models) > 1 else 2, fontsize=8, frameon=False
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def _seconds(ax):
    """Ticks at 1, 2, 5 times powers of ten, written out."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    ax.tick_params(axis="x", labelsize=7)


# ---- the command


def main(argv=None):
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks race", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="keeps scenes, models and every run")
    parser.add_argument("--publish", type=Path, metavar="DOCS", help="write DOCS/race.md and DOCS/figures/race.png")
    parser.add_argument(
        "--minutes", type=float, default=12, help="no run starts that would end later; 0 only publishes"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sides", type=_listed(int), default=[2000], help="such as 1000,2000,4000")
    parser.add_argument("--layouts", type=_listed(str), default=["packed-lz4", "separate-zstd"])
    parser.add_argument("--models", type=_listed(str), help="such as xgb-100x3,svr-small,mlp-2x64")
    parser.add_argument("--contenders", type=lambda t: t.split(";"), default=list(BEST), help="with semicolons between")
    parser.add_argument("--all", action="store_true", help="every contender")
    parser.add_argument("--chunk", type=int, default=scenes.CHUNK, help="cells (%(default)s)")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="threads (%(default)s)")
    parser.add_argument("--python", type=lambda t: t.split("=", 1), action="append", default=[], metavar="PEER=PYTHON")
    args = parser.parse_args(argv)
    args.contenders = list(WAYS) if args.all else args.contenders
    stray = [name for name in args.contenders if name not in WAYS]
    if stray:
        parser.error(f"{stray} are no contenders; there are {list(WAYS)}")
    args.python = dict(args.python)
    args.folder.mkdir(parents=True, exist_ok=True)
    book = race(args) if args.minutes else args.folder / f"race-{code()}.jsonl"
    if args.publish:
        publish(args, book)


def _listed(kind):
    return lambda text: [kind(part) for part in text.split(",")]


if __name__ == "__main__":
    main()
