"""How often intervals hold at real stations that nobody trained on: the table of docs/layers.md.

    python benchmarks/coverage.py FOLDER_OF_REAL_TABLES [--splits 20] [--regressors rf,xgb,svr,mlp]

Each split trains on two thirds of the stations, drawn at random, and tests on the others. Calibrated by rows is the same
library told that every row is a station of its own, as it would be if nobody thought of stations.
"""

import argparse
import importlib.util
from pathlib import Path

import numpy as np
import pandas as pd

import smgrid
from smgrid.conformal import bounds
from smgrid.resampling import station_of, stream

EXAMPLE = Path(__file__).parents[1] / "examples" / "scenarios.py"
LEVELS = (0.5, 0.8, 0.9, 0.95)


def read(folder):
    """The table of the example, rows that are whole, and its predictors."""
    spec = importlib.util.spec_from_file_location("example", EXAMPLE)
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    table = example.read(folder / "samples_us_10day_s1_s2_smap" / "samples_dev.csv")
    return table.dropna().reset_index(drop=True), example.FEATURES


def one_split(table, features, kind, split):
    """Coverage over rows and over stations, and mean width, by way of calibration and level."""
    station = station_of(table)
    names = np.unique(station)
    held = np.isin(station, stream("coverage", split).choice(names, names.size // 3, replace=False))
    known, new, place = table[~held], table[held], station[held]
    rows = []
    for unit in ("stations", "rows"):
        given = known if unit == "stations" else known.assign(station=np.arange(len(known)))
        model = smgrid.train(given, smgrid.make_regressor(kind), features=features)
        soil, truth = model.predict(new), new.soil_moisture.to_numpy()
        for level in LEVELS:
            lower, upper = bounds(soil, model.calibration.half_width(level))
            inside = pd.Series((lower <= truth) & (truth <= upper))
            by_station = inside.groupby(place).mean().mean()
            rows.append((kind, unit, level, split, inside.mean(), by_station, (upper - lower).mean()))
    return rows


def measure(table, features, kinds, splits):
    """One row a regressor, way of calibration, level and split."""
    columns = ["regressor", "calibrated by", "level", "split", "rows", "stations", "width"]
    rows = [row for kind in kinds for split in range(splits) for row in one_split(table, features, kind, split)]
    return pd.DataFrame(rows, columns=columns)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--splits", type=int, default=20)
    parser.add_argument("--regressors", default="rf,xgb,svr,mlp")
    args = parser.parse_args()
    table, features = read(args.folder)
    print(f"{len(table)} rows, {np.unique(station_of(table)).size} stations, {args.splits} splits\n")
    print("| regressor | calibrated by | nominal | covered, rows | sd of splits | covered, stations | width, m3 m-3 |")
    print("|---|---|--:|--:|--:|--:|--:|")
    for kind in args.regressors.split(","):
        found = measure(table, features, [kind], args.splits)
        for (unit, level), part in found.groupby(["calibrated by", "level"], sort=False):
            mean, sd = part[["rows", "stations", "width"]].mean(), part["rows"].std()
            cells = [f"{mean['rows']:.1%}", f"{sd:.1%}", f"{mean['stations']:.1%}", f"{mean['width']:.3f}"]
            print("|", " | ".join([kind, unit, f"{level:.0%}", *cells]), "|", flush=True)


if __name__ == "__main__":
    main()
