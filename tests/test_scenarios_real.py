"""The scenarios on real stations, as the example runs them: the paper's ranking, and what the library says of it."""

import importlib.util
from pathlib import Path

import pytest
from sklearn.ensemble import RandomForestRegressor

from smgrid import scenarios
from smgrid.cli import main

EXAMPLE = Path(__file__).parents[1] / "examples" / "scenarios.py"


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("example_scenarios", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def table(shared, example):
    return example.read(shared / "samples_us_10day_s1_s2_smap" / "samples_dev.csv")


@pytest.mark.shared
def test_the_paper_s_ranking_on_real_stations_and_the_verdict(table, example):
    forest = {"RF": RandomForestRegressor(n_estimators=40, min_samples_leaf=2)}
    runs = {
        "dependent": scenarios.dependent(table, sizes=[80]),
        "temporal": scenarios.temporal(table, year=2020, sizes=[21]),
        "spatial": scenarios.spatial(table, sizes=[41]),
    }
    repeats = {"dependent": 1, "temporal": 2, "spatial": 5}
    found = {
        name: scenarios.run(table, scheme, forest, features=example.FEATURES, repeats=repeats[name], workers=1)
        for name, scheme in runs.items()
    }
    rmse = {name: one.rmse.sel(regressor="RF").median().item() for name, one in found.items()}
    assert rmse["dependent"] < rmse["temporal"] < rmse["spatial"]
    assert [rmse[name] for name in runs] == pytest.approx([0.042, 0.056, 0.097], abs=0.006)
    assert found["spatial"].rmse.sel(regressor="SMAP alone").mean().item() == pytest.approx(0.083, abs=0.004)
    said = scenarios.verdict(found["spatial"])
    assert "SMAP alone beats RF (+0.0" in said.split(". In level")[0]
    share = found["spatial"].sel(regressor="RF")
    assert 0.65 < (share.level / (share.level + share.dynamics)).mean() < 0.9
    assert "RF beats SMAP alone (-0.0" in scenarios.verdict(found["dependent"]).split(". In level")[0]
    assert "station climatology beats RF" in scenarios.verdict(found["temporal"])


@pytest.mark.shared
def test_the_shell_runs_it_too(table, example, tmp_path, capsys):
    table.to_csv(tmp_path / "samples.csv", index=False)
    out = tmp_path / "results.nc"
    args = [
        "scenario",
        str(tmp_path / "samples.csv"),
        "--scenario",
        "spatial",
        "--regressors",
        "xgb,svr",
        "--workers",
        "1",
    ]
    args += [
        "--features",
        ",".join(example.FEATURES),
        "--sizes",
        "9",
        "--repeats",
        "1",
        "--draws",
        "2",
        "--out",
        str(out),
    ]
    assert main(args) == 0
    said = capsys.readouterr().out
    assert f"written: {out}" in said and "SMAP alone" in said and "median RMSE" in said
    assert scenarios.open_results(out).regressor.values.tolist()[:2] == ["xgb", "svr"]
