"""The study's three scenarios on a real table of Sentinel-1, Sentinel-2, SMAP and probes at stations in the US.

    python examples/scenarios.py samples_dev.csv [RESULTS_FOLDER]

The table has 10-day means (columns VV, VH, angle, B2 ..., ssm, InSituSM; see `read`). It cannot be passed on with this
library; `smgrid.synthetic.network()` gives a synthetic one of the paper's size. A plain random forest runs here, in a
minute, and figures are drawn where there is a folder for them; `regressors=("mlp", "svr", "rf", "xgb"), repeats=50,
draws=100` is the paper's protocol.
"""

import logging
import sys
from pathlib import Path

import pandas as pd
from sklearn.ensemble import RandomForestRegressor

from smgrid import plot, scenarios

FEATURES = ["vv", "vh", "incidence_angle", "day_of_year", "latitude", "longitude", "ndvi"]
FEATURES += ["b2", "b3", "b4", "b8", "b11", "b12", "smap"]


def read(path):
    """The table in canonical names and units."""
    raw = pd.read_csv(path)
    table = raw[["network", "station", "latitude", "longitude"]].copy()
    table["time"] = pd.to_datetime(raw["StartDate"])
    table[["vv", "vh", "incidence_angle"]] = raw[["VV", "VH", "angle"]]
    for band in ("B2", "B3", "B4", "B8", "B11", "B12"):
        # reflectance comes times 10 000; clouds were not fully masked, and what is bright in the blue is one
        table[band.lower()] = (raw[band] / 1e4).where(raw["B2"] < 5000)
    table["ndvi"] = (table["b8"] - table["b4"]) / (table["b8"] + table["b4"])
    table["smap"] = raw["ssm"] / 50  # mm of water in the top 5 cm
    table["soil_moisture"] = raw["InSituSM"]
    return table  # its `elevation` is left out: a relief number, no height


def main(path, folder=None):
    """Run the three scenarios and say what they show."""
    table = read(path)
    forest = {"RF": RandomForestRegressor(n_estimators=100, min_samples_leaf=2)}
    schemes = {
        "dependent": scenarios.dependent(table, sizes=[5, 80]),
        "temporal": scenarios.temporal(table, year=2020, sizes=[5, 21]),
        "spatial": scenarios.spatial(table, sizes=[9, 41]),  # 26 stations are left to test, enough to say something
    }
    found = {}
    for name, scheme in schemes.items():
        out = None if folder is None else Path(folder) / f"{name}.nc"
        found[name] = scenarios.run(table, scheme, forest, features=FEATURES, path=out)
        print(found[name].rmse.median("repeat").to_pandas().round(3).to_string())
        print(scenarios.verdict(found[name]), end="\n\n")
        if out is not None:
            plot.scenarios(found[name]).savefig(out.with_suffix(".png"), dpi=150)
    if folder is not None:
        plot.stations(table.dropna()).savefig(Path(folder) / "stations.png", dpi=150)
        tests = scenarios.t_tests(found)
        print(tests.round(4).to_string(index=False))
        plot.t_tests(tests).savefig(Path(folder) / "t_tests.png", dpi=150)
    return found


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    main(*sys.argv[1:])
