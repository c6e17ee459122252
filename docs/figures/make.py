"""Makes the figures of docs/scenarios.md from a synthetic network of stations; takes some ten minutes.

    python docs/figures/make.py [RESULTS_FOLDER]

Cells and samples are thinned so that it does: the results show what the figures look like, not what the paper's protocol
gives.
"""

import logging
import sys
from pathlib import Path

import numpy as np

from smgrid import make_regressor, plot, scenarios, synthetic, train
from smgrid.splits import spatial

HERE = Path(__file__).parent


def main(folder=None):
    """Run the spatial scenario and draw everything."""
    whole = synthetic.network()
    plot.stations(whole).savefig(HERE / "stations.png", dpi=110)
    small = synthetic.network(240).isel(sample=slice(None, None, 4))
    path = None if folder is None else Path(folder) / "spatial.nc"
    results = scenarios.run(small, spatial(small, sizes=[1, 9, 25, 41, 57]), path=path, repeats=10, draws=6)
    plot.scenarios(results).savefig(HERE / "scenarios.png", dpi=110)
    plot.learning(results).savefig(HERE / "learning.png", dpi=110)
    plot.t_tests(scenarios.t_tests(results)).savefig(HERE / "t_tests.png", dpi=110)
    _, rows, rest = next(iter(spatial(small, sizes=[57])))
    here, there = small.isel(sample=rows), small.isel(sample=rest)
    models = {name: train(here, make_regressor(name.lower())) for name in ("MLP", "SVR", "RF", "XGB")}
    estimates = {name: np.asarray(model.predict(there)) for name, model in models.items()}
    plot.scatter(estimates, there.soil_moisture).savefig(HERE / "scatter.png", dpi=110)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    main(*sys.argv[1:])
