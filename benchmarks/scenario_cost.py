"""What the paper's protocol costs, draw by draw and with shared work.

    python benchmarks/scenario_cost.py [--sizes 1000,5000] [--regressors xgb,rf,svr,mlp] [--draws 100] [--naive 20]

CPU seconds of one core for 100 draws of Table III on one split of `synthetic.network()`: training rows drawn at random,
all others (some 200 000) test. The plain loop is timed on evenly spaced draws (scaled by their trees, where draws have
trees; support vectors predict 4000 rows, scaled); RMSE of both ways are compared on those draws. From the seconds, by
power laws of the training rows, the whole protocol: 29 sizes x 50 repeats x 4 regressors x 100 draws = 580 000 fits.
"""

import argparse
import json
import time

import numpy as np

import smgrid
from smgrid import tuning
from smgrid.regressors import one_thread
from smgrid.resampling import stream
from smgrid.trials import Table

KINDS = ("xgb", "rf", "svr", "mlp")
ROWS = 208_883  # of synthetic.network()
PROTOCOL = (
    [(n, 203_000 - n) for n in range(1000, 10_001, 1000)]  # dependent: 0.5 to 5 % of some 200 000
    + [(528 * k, 114_793) for k in range(1, 22, 2)]  # temporal: from 528 cells
    + [(200 * k, 203_000 - 200 * k) for k in range(1, 58, 8)]  # spatial: some 200 samples a cell
)


def rmse(values, truth):
    return float(np.sqrt(np.mean((values - truth) ** 2)))


def clock(work):
    begun = time.process_time()
    answer = work()
    return answer, time.process_time() - begun


def measure(table, kind, size, draws, naive):
    """Fit and test seconds of the plain loop, all seconds of the shared way, for `draws` draws; RMSE of both.

    The plain loop's draws are timed between those of the shared way, so that both meet the same neighbours.
    """
    rng = stream(0, "benchmark", size)
    order = rng.permutation(table.target.size)
    train, test = np.sort(order[:size]), np.sort(order[size:])
    rows, unseen = table.inputs(train, test)
    target, truth = table.target[train], table.target[test]
    estimator = smgrid.make_regressor(kind, **({"n_jobs": 1} if kind in ("rf", "xgb") else {}))
    todo = tuning.draw_params(smgrid.search_space(kind), draws, stream(1, kind))
    part = slice(0, 4000) if kind == "svr" else slice(None)  # of the test rows, for the plain loop
    scale = len(truth) / len(truth[part])
    probes = list(range(0, draws, max(1, draws // naive)))[:naive] if naive else []
    # perceptrons share nothing among draws: the same draws on both sides
    some = probes if kind == "mlp" and probes else list(range(draws))
    chosen = [todo[i] for i in some]

    plain, fit, walk = {}, 0.0, 0.0
    shared, scores, caps = 0.0, {}, 0
    with one_thread(), tuning._quiet():
        waiting, ways = (
            list(probes),
            tuning.predict_draws(estimator, chosen, rows, target, unseen, alike=table.code[test]),
        )
        while True:
            one, seconds = clock(lambda: next(ways, None))
            shared += seconds
            if one is not None:
                caps += one.capped * len(one.draws)
                scores |= {some[k]: rmse(one.values[part], truth[part]) for k in one.draws}
            share = len(probes) if one is None else len(scores) * len(probes) // len(some)
            while len(plain) < share:
                i = waiting.pop(0)
                model = tuning.configured(estimator, todo[i])
                fit += clock(lambda m=model: m.fit(rows, target))[1]
                values, seconds = clock(lambda m=model: m.predict(unseen[part]))
                walk += seconds * scale
                plain[i] = rmse(values, truth[part])
            if one is None:
                break
        # the shared way once more on few test rows: its fits alone
        _, fits = clock(lambda: list(tuning.predict_draws(estimator, chosen, rows, target, unseen[:200])))
    trees = [draw.get("n_estimators", 1) for draw in todo]
    up = sum(trees) / max(1, sum(trees[i] for i in plain))
    return {
        "kind": kind,
        "size": size,
        "naive": (fit + walk) * up if plain else None,
        "naive_fit": fit * up if plain else None,
        "shared": shared * draws / len(some),
        "shared_fit": fits * draws / len(some),
        "gap": max((abs(scores[i] - plain[i]) for i in plain), default=None),
        "capped": caps * draws // len(some),
        "poly": sum(draw.get("kernel") == "poly" for draw in todo),
    }


def power(points, n):
    """A power law through {size: seconds}, piece by piece; the nearest piece's exponent beyond the ends."""
    sizes = sorted(points)
    if len(sizes) == 1:
        return points[sizes[0]]
    k = int(np.clip(np.searchsorted(sizes, n) - 1, 0, len(sizes) - 2))
    a, b = sizes[k : k + 2]
    if not points[a] or not points[b]:
        return max(points[a], points[b])
    return points[a] * (n / a) ** max(0, np.log(points[b] / points[a]) / np.log(b / a))


def hours(found, kind, way, draws):
    """Core-hours of the protocol: fits by training rows, tests by training rows and in proportion to test rows."""
    fit, test = {}, {}
    for m in found:
        if m["kind"] == kind and m[way]:
            part = m.get(f"{way}_fit")
            fit[m["size"]] = m[way] if part is None else part
            # per million test rows; measured ones test all rows that do not train
            test[m["size"]] = (m[way] - fit[m["size"]]) / (ROWS - m["size"]) * 1e6
    if not fit:
        return np.nan
    seconds = sum(power(fit, n) + power(test, n) * rows / 1e6 for n, rows in PROTOCOL)
    return seconds * 50 / 3600 * 100 / draws


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--sizes", default="1000,5000")
    parser.add_argument("--regressors", default=",".join(KINDS))
    parser.add_argument("--draws", type=int, default=100)
    parser.add_argument("--naive", type=int, default=20, help="draws of the plain loop; 0 leaves it out")
    parser.add_argument("--cells", type=int, default=1021)
    parser.add_argument("--json", help="file to which each measurement is added, and from which others are taken")
    args = parser.parse_args()
    table = Table.of(smgrid.synthetic.network(args.cells, seed=0), list(smgrid.PAPER))
    found = []
    if args.json:
        try:
            with open(args.json) as file:
                found = [json.loads(line) for line in file]
        except FileNotFoundError:
            pass
    print(f"synthetic; {table.target.size} samples, {args.draws} draws")
    print(
        "| regressor | training rows | plain, s (fits) | shared, s | ratio | RMSE differs by at most | draws at a cap |"
    )
    print("|---|--:|--:|--:|--:|--:|--:|")
    for size in [int(size) for size in args.sizes.split(",") if size]:
        for kind in args.regressors.split(","):
            found.append(measure(table, kind, size, args.draws, args.naive))
            if args.json:
                with open(args.json, "a") as file:
                    file.write(json.dumps(found[-1]) + "\n")
    for m in sorted(found, key=lambda m: (KINDS.index(m["kind"]), m["size"])):
        plain = f"- | {m['shared']:.1f} | - | -"
        if m["naive"]:
            both, ratio = f"{m['naive']:.1f} ({m['naive_fit']:.1f}) | {m['shared']:.1f}", m["naive"] / m["shared"]
            plain = f"{both} | x{ratio:.1f} | {m['gap']:.0e}"
        caps = f"{m['capped']} of {m['poly']} polynomial" if m["kind"] == "svr" else m["capped"]
        print(f"| {m['kind']} | {m['size']} | {plain} | {caps} |", flush=True)

    print("\n| whole protocol, core-hours | plain | shared | ratio |\n|---|--:|--:|--:|")
    total = np.zeros(2)
    for kind in [kind for kind in KINDS if any(m["kind"] == kind for m in found)]:
        both = np.array([hours(found, kind, way, args.draws) for way in ("naive", "shared")])
        total += both
        print(f"| {kind} | {both[0]:.0f} | {both[1]:.1f} | x{both[0] / both[1]:.1f} |")
    print(f"| all | {total[0]:.0f} | {total[1]:.1f} | x{total[0] / total[1]:.1f} |")
    for workers in (2, 16):
        print(f"| hours on {workers} workers | {total[0] / workers:.0f} | {total[1] / workers:.1f} | |")


if __name__ == "__main__":
    main()
