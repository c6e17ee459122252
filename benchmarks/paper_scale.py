"""The dependent, temporal and spatial scenarios at the paper's scale, on a synthetic network.

    python benchmarks/paper_scale.py FOLDER [--scenarios dependent,temporal,spatial] [--repeats 5] [--draws 20]
    python benchmarks/paper_scale.py FOLDER --kill 6

`synthetic.network()` has the paper's 1021 cells and some 209 000 samples. Results go to FOLDER; the same call goes on
where a stopped one was, and the table is of what is there. `--sizes temporal=1,21` takes other sizes of a scenario
(`temporal=paper` all of the paper's). The second way kills a short run (SIGKILL) at random moments until it is through
and compares its Dataset, and its file byte by byte, with those of a run that nobody stopped.

The paper's medians are those that its text states (Zhu et al. 2025, doi:10.1109/TGRS.2025.3533927, section IV).
"""

import argparse
import json
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from smgrid import scenarios, synthetic
from smgrid.trials import KINDS

SIZES = {"dependent": (0.5, 2.5, 5), "temporal": (1, 11, 21), "spatial": (1, 29, 57)}
PAPER = {  # (scenario, size, regressor): bias, R, RMSE
    ("dependent", 0.5, "svr"): (None, None, 0.082),
    ("dependent", 0.5, "mlp"): (None, None, 0.085),
    ("temporal", 1, "rf"): (None, 0.652, 0.086),
    ("temporal", 1, "mlp"): (None, None, 0.087),
    ("temporal", 11, "rf"): (None, None, 0.079),
    ("temporal", 21, "rf"): (0.007, 0.746, 0.078),
    ("temporal", 21, "mlp"): (None, None, 0.085),
    ("temporal", 21, "svr"): (-0.016, None, None),
    ("temporal", 21, "xgb"): (0.013, None, None),
    ("spatial", 57, "rf"): (None, None, 0.089),
    ("spatial", 57, "xgb"): (None, None, 0.092),
}
SHORT = {"repeats": 3, "draws": 3, "regressors": ("rf", "xgb")}  # what is killed


def shown(value, form=".3f"):
    return format(round(value, 3) + 0.0, form) if np.isfinite(value) else "-"


def seconds(path):
    """CPU seconds of the trials of a run, from its ledger."""
    lines = Path(f"{path}.ledger").read_text().split("\n")
    return sum(json.loads(line.rpartition("\t")[0])["seconds"] for line in lines if line)


def table(results):
    """A line a size and regressor, and SMAP alone."""
    scenario = results.attrs["scenario"]
    for size in results["size"].values:
        for regressor in [*KINDS, "SMAP alone"]:
            one = results.sel(size=size, regressor=regressor)
            if not np.isfinite(one.rmse).any():
                continue
            theirs = PAPER.get((scenario, float(size), regressor), (None,) * 3)
            cells = []
            for name, said, form in zip(("bias", "pearson_r", "rmse"), theirs, ("+.3f", ".3f", ".3f")):
                mine = shown(float(one[name].median()), form)
                cells.append(mine if said is None else f"{mine} ({shown(said, form)})")
            spread = f"{shown(float(one.rmse.min()))}-{shown(float(one.rmse.max()))}"
            level = f"{float((one.level / one.rmse**2).mean()):.0%}"
            where = [scenario, f"{size:g}", f"{np.median(one.n_train[one.n_train > 0]):.0f}", regressor]
            print("|", " | ".join([*where, *cells, spread, level]), "|", flush=True)


def short(samples, path):
    scheme = scenarios.dependent(samples, sizes=[0.1, 0.2])
    return scenarios.run(samples, scheme, path=path, workers=1, **SHORT)


def kill(folder, rounds, seed=0):
    samples, rng = synthetic.network(), np.random.default_rng(seed)
    once = folder / "once.nc"
    begun = time.monotonic()
    whole = short(samples, once)
    takes = time.monotonic() - begun
    same = identical = 0
    for n in range(rounds):
        path, kills, kept = folder / f"killed-{n}.nc", 0, []
        while kills < 3:
            command = [sys.executable, __file__, str(folder), "--short", str(path)]
            with subprocess.Popen(command, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}) as runner:
                while runner.poll() is None and not Path(f"{path}.begun").exists():
                    time.sleep(0.01)
                time.sleep(rng.uniform(0, takes / 2))
                runner.send_signal(signal.SIGKILL)
            Path(f"{path}.begun").unlink(missing_ok=True)
            kills += 1
            ledger = Path(f"{path}.ledger")
            kept.append(ledger.read_text().count("\n") if ledger.exists() else 0)
        again = short(samples, path)
        same += again.identical(whole) and scenarios.open_results(path).identical(scenarios.open_results(once))
        identical += path.read_bytes() == once.read_bytes()
        print(f"round {n}: killed {kills} times, lines of the ledger after each: {kept}", flush=True)
    print(f"{rounds} rounds: identical Dataset {same}, identical bytes of the file {identical}")
    return 0 if same == rounds else 1


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--scenarios", default=",".join(SIZES))
    parser.add_argument("--sizes", action="append", default=[], help="SCENARIO=a,b,c or SCENARIO=paper")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--kill", type=int, metavar="ROUNDS")
    parser.add_argument("--short", help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    if args.kill:
        return kill(args.folder, args.kill)
    samples = synthetic.network()
    if args.short:
        Path(f"{args.short}.begun").touch()
        short(samples, args.short)
        return 0
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    asked = dict(SIZES)
    for one in args.sizes:
        scenario, _, sizes = one.partition("=")
        asked[scenario] = None if sizes == "paper" else tuple(float(size) for size in sizes.split(","))
    found = {}
    for scenario in args.scenarios.split(","):
        scheme = getattr(scenarios, scenario)(samples, sizes=asked[scenario])
        path = args.folder / f"{scenario}.nc"
        how = {"repeats": args.repeats, "draws": args.draws, "workers": args.workers}
        found[scenario] = scenarios.run(samples, scheme, KINDS, path=path, **how)
        logging.info("%s: %.0f CPU seconds of trials", scenario, seconds(path))
    print("synthetic: medians of", args.repeats, "repeats x", args.draws, "draws; in brackets what the paper states")
    print("| scenario | size | rows | regressor | bias | R | RMSE | RMSE, range | level |")
    print("|---|--:|--:|---|--:|--:|--:|--:|--:|")
    for results in found.values():
        table(results)
    for scenario, results in found.items():
        print(f"{scenario}: {scenarios.verdict(results)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
