"""Intervals at real stations that nobody trained on cover what they say; calibrated by rows they do not."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from smgrid import make_regressor, train
from smgrid.conformal import bounds
from smgrid.resampling import station_of, stream

BENCHMARK = Path(__file__).parents[1] / "benchmarks" / "coverage.py"


@pytest.mark.shared
def test_coverage_over_twenty_splits_of_real_stations(shared):
    spec = importlib.util.spec_from_file_location("coverage", BENCHMARK)
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    table, features = benchmark.read(shared)
    station = station_of(table)
    names = np.unique(station)
    covered = {"stations": [], "rows": []}
    for split in range(20):
        held = np.isin(station, stream("test", split).choice(names, names.size // 3, replace=False))
        known, new = table[~held], table[held]
        for unit in ("stations", "rows") if split < 5 else ("stations",):
            given = known if unit == "stations" else known.assign(station=np.arange(len(known)))
            model = train(given, make_regressor("xgb", n_estimators=60, learning_rate=0.1), features=features)
            lower, upper = bounds(model.predict(new), model.calibration.half_width())
            covered[unit].append(((lower <= new.soil_moisture) & (new.soil_moisture <= upper)).mean())
    assert 0.87 < np.mean(covered["stations"]) < 0.93
    assert np.mean(covered["rows"]) < 0.7
