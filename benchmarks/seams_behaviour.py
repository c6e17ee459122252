"""How often and how strongly the verbs of `seams` speak on synthetic scenes whose truth is known; prints tables.

    python benchmarks/seams_behaviour.py [--nulls 400] [--others 150] [--permutations 199] [--only detect ...]

Each row of the first tables stands beside the figures that were asked for. The standard error of a 5 % rate is 1.1
points with 400 scenes and 1.8 points with 150.
"""

import argparse
import warnings

import numpy as np
import xarray as xr
from scipy.ndimage import gaussian_filter

from smgrid import Grid, coarse, seams

GRID = Grid(1, 11469, 31406, 84, 75)  # the size of Yanco, started inside a 9-km cell (phases 3 and 1)


def texture(rng, scale):
    """A Gaussian random field of unit variance; `scale` in cells, one number or (rows, columns)."""
    pad = 48
    shape = (GRID.ny + 2 * pad, GRID.nx + 2 * pad)
    smooth = gaussian_filter(rng.normal(size=shape), scale, mode="wrap")
    rows, cols = np.broadcast_to(scale, 2)
    return smooth[pad:-pad, pad:-pad] * 2 * np.sqrt(np.pi * rows * cols)


def land(rng, scale=5):
    return 0.05 * texture(rng, scale) + rng.normal(0, 0.01, GRID.shape)


def blocks(rng, sd, off=(0, 0)):
    """One offset per 9-km cell; `off` moves the cells off their places."""
    row, col = (GRID.row + off[0]) % 9, (GRID.col + off[1]) % 9
    steps = rng.normal(0, sd, (12, 12)).repeat(9, 0).repeat(9, 1)
    return steps[row : row + GRID.ny, col : col + GRID.nx]


def patches(rng, number, smallest, largest, height):
    out = np.zeros(GRID.shape)
    for _ in range(number):
        ny, nx = rng.integers(smallest, largest + 1, 2)
        r, c = rng.integers(1 - ny, GRID.ny), rng.integers(1 - nx, GRID.nx)
        out[max(r, 0) : r + ny, max(c, 0) : c + nx] = height
    return out


def gaps(rng, z):
    """The half beyond a slanting line, and a tenth of the rest, missing."""
    r, c = np.mgrid[: GRID.ny, : GRID.nx]
    return np.where((c + 0.18 * r > 45) | (rng.random(z.shape) < 0.1), np.nan, z)


SCENES = {  # name -> (maker, whether it is a null, median ratio and rejection asked for)
    "white noise sd .03": (lambda g: g.normal(0, 0.03, GRID.shape), True, "1.000 [0.968, 1.040]", "7.2 %"),
    "GRF + white": (land, True, "0.996 [0.962, 1.033]", "2.8 %"),
    "GRF scale 3 only": (lambda g: 0.05 * texture(g, 3), True, "0.993", "2.5 %"),
    "GRF scale 8 only": (lambda g: 0.05 * texture(g, 8), True, "1.000", "0.0 %"),
    "anisotropic GRF + white": (lambda g: land(g, (2, 8)), True, "0.997", "4.4 %"),
    "6 sharp patches": (lambda g: land(g) + patches(g, 6, 6, 20, 0.1), True, "0.980 [0.843, 1.180]", "5.0 %"),
    "40 irrigated patches": (lambda g: land(g) + patches(g, 40, 2, 4, 0.12), True, "0.989 [0.901, 1.089]", "2.8 %"),
    "GRF + white, gaps": (lambda g: gaps(g, land(g)), True, "0.998 [0.944, 1.060]", "4.2 %"),
    "blocks at a wrong phase": (lambda g: land(g) + blocks(g, 0.03, (4, 4)), False, "0.793 [0.748, 0.838]", "0.0 %"),
    "imprint .002": (lambda g: land(g) + blocks(g, 0.002), False, "1.016", "11.7 %"),
    "imprint .005": (lambda g: land(g) + blocks(g, 0.005), False, "1.093 [1.045, 1.134]", "95.0 %"),
    "imprint .010": (lambda g: land(g) + blocks(g, 0.010), False, "1.334 [1.237, 1.448]", "100.0 %"),
    "imprint .020": (lambda g: land(g) + blocks(g, 0.020), False, "2.04", "100.0 %"),
    "imprint .040": (lambda g: land(g) + blocks(g, 0.040), False, "3.65", "100.0 %"),
    "imprint .010, gaps": (lambda g: gaps(g, land(g) + blocks(g, 0.010)), False, "1.332", "100.0 %"),
    "anisotropic + imprint .010": (lambda g: land(g, (2, 8)) + blocks(g, 0.010), False, "1.600", "100.0 %"),
    "irrigated + imprint .010": (
        lambda g: land(g) + patches(g, 40, 2, 4, 0.12) + blocks(g, 0.010),
        False,
        "1.252",
        "96.7 %",
    ),
    "irrigated + imprint .020": (
        lambda g: land(g) + patches(g, 40, 2, 4, 0.12) + blocks(g, 0.020),
        False,
        "1.802",
        "100.0 %",
    ),
}


def behaviour(make, scenes, permutations, seed=0):
    """Ratios, p-values, amplitudes and warnings of a wrong phase over `scenes` synthetic scenes."""
    rng = np.random.default_rng(seed)
    stack = np.stack([make(rng) for _ in range(scenes)])
    maps = xr.DataArray(stack, GRID.coords(), ("scene", "y", "x"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return seams.detect(maps, permutations=permutations)


def detect_table(options):
    """Ratio, rejections, amplitude and warnings on nulls and known imprints."""
    print("| synthetic scene | n | B median [5-95 %] | asked | p <= .05 | asked | A | wrong phase |")
    print("|---|--:|---|---|--:|--:|--:|--:|")
    for name, (make, null, ratio, rejection) in SCENES.items():
        n = options.nulls if null else options.others
        found = behaviour(make, n, options.permutations)
        low, middle, high = np.quantile(found.ratio, [0.05, 0.5, 0.95])
        rejected = (found.p_value <= 0.05).mean().item()
        wrong = ((found.peak_phase > 0) & (found.peak_p_value <= seams.WRONG_PHASE)).any("direction").mean().item()
        print(
            f"| {name} | {n} | {middle:.3f} [{low:.3f}, {high:.3f}] | {ratio} | {rejected:.1%} | {rejection} "
            f"| {found.amplitude.median().item():.4f} | {wrong:.1%} |",
            flush=True,
        )


def seen_by_smap(rng, blur):
    """A synthetic truth, and its means over the 9-km cells as a footprint (standard deviation `blur` cells) has them."""
    pad, cells = 48, GRID.coarsen(9)
    shape = (GRID.ny + 2 * pad, GRID.nx + 2 * pad)
    parts = [
        sd * 2 * np.sqrt(np.pi) * k * gaussian_filter(rng.normal(size=shape), k, mode="wrap") for k, sd in TEXTURES
    ]
    wide = 0.25 + sum(parts) + rng.normal(0, 0.01, shape)
    seen, fine = (gaussian_filter(wide, blur) if blur else wide), cells.refine(9)
    r, c = pad + fine.row - GRID.row, pad + fine.col - GRID.col
    means = seen[r : r + fine.ny, c : c + fine.nx].reshape(cells.ny, 9, cells.nx, 9).mean((1, 3))
    truth = xr.DataArray(wide[pad:-pad, pad:-pad], GRID.coords(), ("y", "x"))
    return truth, xr.DataArray(means, cells.coords(), ("y", "x"), "smap")


TEXTURES = ((8, 0.05), (3, 0.015))  # scale in cells, standard deviation; and white noise of .01


def imprint_table(options):
    """The share that is copied, by `imprint`; maps are (1 - b) truth + b SMAP."""
    print("| synthetic map | n | asked | beta mean, sd | mean standard error | slope mean | p < .05 | placebo rms |")
    print("|---|--:|---|---|--:|--:|--:|--:|")
    asked = {
        0: (".019", ".009"),
        0.1: (".122", ".109"),
        0.3: (".316", ".316"),
        0.6: (".613", ".601"),
        1: (".998", "1.001"),
    }
    for blur, (share, words) in ((blur, row) for blur in (0, 9) for row in [*asked.items(), ("smooth", (".020", ""))]):
        rows = []
        for seed in range(options.others if share else options.nulls // 2):
            truth, smap = seen_by_smap(np.random.default_rng(seed), blur)
            if share == "smooth":
                field = 0.4 * truth + 0.6 * coarse.smooth(smap, GRID)
            else:
                field = (1 - share) * truth + share * coarse.blocks(smap, GRID)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)
                found = seams.imprint(field, smap)
            wrong = float((found.placebo**2).mean() ** 0.5)
            rows.append([found.beta, found.standard_error, found.slope, found.p_value < 0.05, wrong])
        mean, sd = np.mean(rows, 0), np.std(rows, 0, ddof=1)
        name = "0.4 truth + 0.6 smooth" if share == "smooth" else f"b = {share}"
        print(
            f"| {name}{', wide footprint' if blur else ''} | {len(rows)} | {words[blur > 0]} | {mean[0]:.3f}, {sd[0]:.3f} "
            f"| {mean[1]:.3f} | {mean[2]:.3f} | {mean[3]:.1%} | {mean[4]:.3f} |",
            flush=True,
        )


def edges_table(options):
    """Shares of the border's length that are called significant, straight lines that are not there, by scene."""
    print("| synthetic scene | n | border with q < .05 | maps with one segment at least | maps with a straight line |")
    print("|---|--:|--:|--:|--:|")
    for name, (make, null, *_) in SCENES.items():
        rng, rows = np.random.default_rng(0), []
        for _ in range((options.nulls if null else options.others) // 2):
            field = xr.DataArray(make(rng), GRID.coords(), ("y", "x"))
            found = seams.edges(field)
            rows.append([found.fraction, (found.q_value < 0.05).any(), len(seams.straight_lines(field)) > 0])
        share, one, line = np.nanmean(np.array(rows, "f8"), 0)
        print(f"| {name} | {len(rows)} | {share:.1%} | {one:.1%} | {line:.1%} |", flush=True)


TABLES = {"detect": detect_table, "imprint": imprint_table, "edges": edges_table}


def main():
    """Print the tables that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nulls", type=int, default=400)
    parser.add_argument("--others", type=int, default=150)
    parser.add_argument("--permutations", type=int, default=199)
    parser.add_argument("--only", nargs="+", choices=TABLES, default=list(TABLES))
    options = parser.parse_args()
    for name in options.only:
        print(f"\n{TABLES[name].__doc__}\n")
        TABLES[name](options)


if __name__ == "__main__":
    main()
