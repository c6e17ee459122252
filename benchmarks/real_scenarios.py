"""The three scenarios on three real tables, each as what it is: the tables of docs/scenarios.md.

    python benchmarks/real_scenarios.py FOLDER_OF_REAL_TABLES [--workers 2]
    python benchmarks/real_scenarios.py FOLDER_OF_REAL_TABLES --four RESULTS [--tables us,conus,farm] [--draws 10]

Sentinel-1, Sentinel-2 and SMAP at stations in the US (10-day means); SMAP itself on 36-km cells from weather and soils;
probes at 0.3 m on one farm. None of them may be passed on. A random forest that nobody tuned runs on each, or all four
regressors of the paper with draws from Table III, chosen on inner folds and on the test set; RESULTS keeps what is done.
"""

import argparse
import importlib.util
import logging
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.ensemble import RandomForestRegressor

from smgrid import scenarios

EXAMPLE = Path(__file__).parents[1] / "examples" / "scenarios.py"


def us(folder):
    spec = importlib.util.spec_from_file_location("example", EXAMPLE)
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    table = example.read(folder / "samples_us_10day_s1_s2_smap" / "samples_dev.csv")
    return table, example.FEATURES, {"year": 2020, "sizes": [21]}, 41


def conus(folder):
    """SMAP at 412 cells, one year from April 2015, from forcing of seven days, soils and place."""
    root = folder / "conus_smap_forcing_36km" / "CONUSv4f1"
    days = pd.to_datetime(pd.read_csv(root / "2015" / "timeStr.csv", header=None)[0])

    def year(name):
        values = np.loadtxt(root / "2015" / f"{name}.csv", delimiter=",")
        return np.where(values == -9999, np.nan, values)

    def before(values):
        total = np.pad(np.nancumsum(values, axis=1), ((0, 0), (8, 0)))[:, : values.shape[1] + 1]
        return (total[:, 1:] - np.pad(total, ((0, 0), (7, 0)))[:, 1 : total.shape[1]]) / 7

    moisture, rain, warmth = year("SMAP_AM"), year("APCP_FORA"), year("TMP_2_FORA")
    place = np.loadtxt(root / "crd.csv", delimiter=",")
    cell = np.repeat(np.arange(len(place)), days.size)
    table = pd.DataFrame({"station": cell, "time": np.tile(days, len(place)), "soil_moisture": moisture.ravel()})
    table["rain"], table["rain_week"] = rain.ravel(), before(rain).ravel()
    table["warmth"], table["warmth_week"] = warmth.ravel(), before(warmth).ravel()
    for name in ("Sand", "Clay", "Bulk", "Capa", "NDVI"):
        table[name.lower() + "_mean"] = np.loadtxt(root / "const" / f"{name}.csv", delimiter=",")[cell]
    table["north"], table["east"] = place[cell].T
    features = ["day_of_year", *table.columns[3:]]
    table = table[table.station % 2 == 0].reset_index(drop=True)  # half of the cells: enough
    return table, features, {"year": 2015, "sizes": [21]}, 57


def farm(folder):
    """Daily water content at 0.3 m, 28 places of one farm: terrain, soil and weather of the day."""
    raw = pd.read_csv(folder / "cookfarm_daily" / "cookfarm_03m_dev.csv")
    names = {"SOURCEID": "station", "VW": "soil_moisture", "Date": "time"}
    table = raw.rename(columns=names)
    table["time"] = pd.to_datetime(table["time"])
    features = ["DEM", "TWI", "NDRE.M", "NDRE.Sd", "Bt", "BLD", "Precip_wrcc", "MaxT_wrcc", "MinT_wrcc", "Precip_cum"]
    return table, ["day_of_year", *features], {"year": 2012, "sizes": [21]}, 14


TABLES = {read.__name__: read for read in (us, conus, farm)}
FOREST = {"RF": RandomForestRegressor(n_estimators=60, min_samples_leaf=2, max_features=0.5, max_samples=0.5)}


def each(folder, tables):
    """Every table in the three scenarios."""
    for name in tables:
        table, features, temporal, cells = TABLES[name](folder)
        for scheme in (
            scenarios.dependent(table, sizes=[80 if name == "us" else 10]),
            scenarios.temporal(table, **temporal),
            scenarios.spatial(table, sizes=[cells]),
        ):
            yield name, table, features, scheme, f"{scheme.sizes[0]:g} {scheme.unit}"


def untuned(args):
    print("| table | scenario | trained on | RF | level | training mean | SMAP alone | station climatology |")
    print("|---|---|---|--:|--:|--:|--:|--:|")
    said = []
    for name, table, features, scheme, trained in each(args.folder, args.tables):
        found = scenarios.run(table, scheme, FOREST, features=features, repeats=args.repeats, workers=args.workers)
        rmse = found.rmse.median("repeat").isel(size=0)
        share = (found.level / found.rmse**2).sel(regressor="RF").mean().item()
        values = [f"{v:.3f}" if np.isfinite(v) else "-" for v in rmse.values]
        row = [name, scheme.scenario, trained, values[0], f"{share:.0%}"]
        print("|", " | ".join([*row, *values[1:]]), "|", flush=True)
        said.append(f"{name}: {scenarios.verdict(found)}")
    return said


def four(args):
    """Both choices come from one run: `optimism` is what the test set's choice is better by."""
    args.four.mkdir(parents=True, exist_ok=True)
    print("| table | scenario | trained on | regressor | bias | R | RMSE, honest | RMSE, oracle | difference | level |")
    print("|---|---|---|---|--:|--:|--:|--:|--:|--:|")
    said = []
    for name, table, features, scheme, trained in each(args.folder, args.tables):
        how = {"features": features, "repeats": args.repeats, "draws": args.draws, "workers": args.workers}
        path = args.four / f"{name}-{scheme.scenario}.nc"
        found = scenarios.run(table, scheme, path=path, tuning="honest", **how)
        for regressor in found.regressor.values:
            one = found.sel(regressor=regressor).isel(size=0)
            if not np.isfinite(one.rmse).any():
                continue
            middle = {key: float(one[key].median()) for key in ("bias", "pearson_r", "rmse")}
            oracle, gap = float((one.rmse - one.optimism).median()), float(one.optimism.mean())
            both = f"{oracle:.3f} | {gap:+.4f}" if np.isfinite(oracle) else "- | -"
            r = f"{middle['pearson_r']:.2f}" if np.isfinite(middle["pearson_r"]) else "-"
            share = (one.level / one.rmse**2).mean().item()
            row = f"{name} | {scheme.scenario} | {trained} | {regressor} | {middle['bias']:+.3f} | {r}"
            print(f"| {row} | {middle['rmse']:.3f} | {both} | {share:.0%} |", flush=True)
        said.append(f"{name}: {scenarios.verdict(found)}")
    return said


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--tables", type=lambda names: names.split(","), default=list(TABLES))
    parser.add_argument("--four", type=Path, metavar="RESULTS")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    print("\n".join(["", *(four(args) if args.four else untuned(args))]))


if __name__ == "__main__":
    main()
