"""Before and after the cures of seams, on the synthetic Yanco and on real 9-km retrievals; prints two tables.

    python benchmarks/seams_cure.py [--regressors svr xgb rf mlp] [--seeds 0] [--real FOLDER_OF_POINT_LISTS]

The cures: to train and to map with SMAP spread smoothly; to map with it a model that was trained on blocks; the
cosmetic correction of the finished map. RMSE is against the synthetic truth. The second table spreads real retrievals
(point lists of SPL3SMP_E) as blocks and smoothly and adds synthetic noise of .005 m3/m3; it needs the files.
"""

import argparse
import warnings
from pathlib import Path

import numpy as np
import xarray as xr

from smgrid import Grid, attribution, coarse, make_regressor, predict_map, scores, seams, sources, synthetic, train


def row(name, field, scene, days):
    """One line of the first table: medians over the dates."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        found = seams.detect(field, permutations=199)
        copied = seams.imprint(field, scene.smap)
    error = scores.rmse(field, scene.truth, dim=("y", "x"))
    middle = [found.ratio, found.amplitude, copied.beta, copied.standard_error, error]
    b, *rest = (f"{float(a.median()):.3f}" for a in middle)
    sure = f"{int((found.p_value <= 0.05).sum())} of {days}"
    return f"| {' | '.join([name, b, sure, *rest])} |"


def main():
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--regressors", nargs="+", default=["svr", "xgb", "rf", "mlp"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--real", type=Path)
    options = parser.parse_args()
    print("| synthetic Yanco | B | dates with p <= .05 | A | beta | standard error | RMSE |")
    print("|---|--:|--:|--:|--:|--:|--:|")
    shares = []
    for seed in options.seeds:
        scene, smooth = synthetic.yanco(seed), synthetic.yanco(seed, ["smooth_smap"])
        days = scene.cube.sizes["time"]
        print(row(f"seed {seed}: truth", scene.truth, scene, days))
        print(row("airborne", scene.airborne, scene, days))
        for kind in options.regressors:
            model = train(scene.samples, make_regressor(kind))
            maps = predict_map(scene.cube, model)
            print(row(f"{kind}, blocks", maps.soil_moisture, scene, days))
            print(row("the same, cosmetic", seams.correct(maps, scene.smap).soil_moisture, scene, days))
            spread = coarse.smooth(scene.smap, Grid.of(scene.cube)).astype("f4")
            spread.attrs = scene.cube.smap.attrs  # "blocks" too, else the model refuses what it was not trained with
            mapped = predict_map(scene.cube.assign(smap=spread), model).soil_moisture
            print(row("the same model, `coarse.smooth`", mapped, scene, days))
            again = train(smooth.samples, make_regressor(kind))
            print(
                row("trained and mapped with smooth SMAP", predict_map(smooth.cube, again).soil_moisture, scene, days),
                flush=True,
            )
            shares.append((kind, attribution.seams(scene.cube, model)))
    print(
        "\n| model | mean square effect at borders less that aside, 1e-5 (m3/m3)^2, median over dates (least p; share) |"
    )
    print("|---|---|")
    for kind, found in shares:
        middle = found.excess.median("time").to_series().sort_values(ascending=False)[:3]
        p, share = found.p_value.min("time").to_series(), found.share.median("time").to_series()
        said = [f"{k} {1e5 * v:.2f} ({p[k]:.2g}; {share[k]:.0%})" for k, v in middle.items()]
        print(f"| {kind} | {', '.join(said)} |")
    if options.real:
        real(options.real)


def real(folder):
    """The second table."""
    print("\n| real retrievals, spread | day | n | B | p | beta | standard error | slope alone | border q < .05 |")
    print("|---|---|--:|--:|--:|--:|--:|--:|--:|")
    smap = sources.smap.open(sorted(folder.glob("*.nc"))[:9])["smap"].load()
    grid = Grid.of(smap).refine(9)
    noise = xr.DataArray(np.random.default_rng(0).normal(0, 0.005, grid.shape), grid.coords(), ("y", "x"))
    for spread in (coarse.blocks, coarse.smooth):
        field = spread(smap, grid) + noise
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            found, copied = seams.detect(field, permutations=199), seams.imprint(field, smap)
            share = seams.edges(field, smap).fraction
        for t in np.flatnonzero(copied.n > 20_000):
            numbers = [found.ratio, found.p_value, copied.beta, copied.standard_error, copied.slope]
            said = [f"{a[t].item():.3f}" for a in numbers] + [f"{share[t].item():.1%}"]
            day = str(smap.time.values[t])[:10]
            print(f"| {' | '.join([spread.__name__, day, str(copied.n[t].item()), *said])} |")


if __name__ == "__main__":
    main()
