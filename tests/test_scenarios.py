"""The experiments: same results whatever the workers, the order and the interruptions; honest where they say so."""

import json
import logging
import pickle

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from dask.sizeof import sizeof
from scipy.stats import uniform
from sklearn.ensemble import RandomForestRegressor
from sklearn.linear_model import LinearRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeRegressor

from smgrid import scenarios, scores, splits, trials
from smgrid.features import PAPER

FEATURES = ["vv", "smap", "day_of_year"]
TREE = {"tree": (DecisionTreeRegressor(), {"max_depth": [1, 2, 3, 5, 8, None], "min_samples_leaf": [1, 4, 9]})}
RIDGE = {"ridge": Ridge()}


def samples(stations=12, days=40, seed=0, smap_noise=0.02, offset=0.05):
    """A synthetic table: stations have levels that vv does not see and smap half sees."""
    rng = np.random.default_rng(seed)
    time = pd.date_range("2019-01-01", periods=days, freq="27D")
    level = rng.normal(0.22, offset, stations)
    season = 0.05 * np.sin(2 * np.pi * np.arange(days) * 27 / 365.25)
    truth = np.clip(level[:, None] + season + rng.normal(0, 0.02, (stations, days)), 0.02, 0.5)
    place, day = np.indices(truth.shape).reshape(2, -1)
    table = pd.DataFrame({"station": [f"s{k:02d}" for k in place], "network": "synthetic", "time": time[day]})
    table["soil_moisture"] = truth.ravel()
    table["vv"] = -16 + 20 * (season[day] + rng.normal(0, 0.02, day.size))
    table["smap"] = np.clip(truth.ravel() + rng.normal(0, smap_noise, day.size), 0.02, 0.6)
    table.attrs["source"] = "synthetic, for a test"
    return table


TABLE = samples()


def run(scenario="spatial", regressors=TREE | RIDGE, table=TABLE, **kwargs):
    kwargs = {"features": FEATURES, "repeats": 2, "draws": 4, "workers": 1} | kwargs
    if scenario == "spatial":
        scenario = splits.spatial(table, sizes=[1, 6])
    return scenarios.run(table, scenario, regressors, **kwargs)


RESULTS = run()


# ---- what comes out


def test_the_shape_of_results():
    assert RESULTS.rmse.dims == ("size", "regressor", "repeat")
    names = ["tree", "ridge", "training mean", "SMAP alone", "station climatology"]
    assert RESULTS.regressor.values.tolist() == names and RESULTS.baseline.values.tolist() == [0, 0, 1, 1, 1]
    assert RESULTS["size"].values.tolist() == [1, 6] and RESULTS.sizes["repeat"] == 2
    assert RESULTS.title.startswith("Synthetic samples, the spatial")
    assert RESULTS.n_train.sel(size=6, regressor="tree").values.tolist() == [240, 240]


def test_level_and_dynamics_make_the_square_error():
    whole = RESULTS.level + RESULTS.dynamics
    known = np.isfinite(RESULTS.rmse)
    np.testing.assert_allclose(whole.where(known), (RESULTS.rmse**2).where(known), rtol=1e-12)
    for name in trials.SCORES:
        interval = RESULTS[f"{name}_interval"]
        assert (
            (interval.sel(bound="lower") < interval.sel(bound="upper"))
            .where(known, True)
            .drop_sel(
                regressor="training mean"  # constant: no correlation
            )
            .all()
        )


def test_scores_are_those_of_the_prediction():
    """Rebuilt by hand: encode, fit, predict, judge."""
    splits_ = splits.spatial(TABLE, sizes=[1, 6])
    phase = 2 * np.pi * TABLE.time.dt.day_of_year / 365.25
    x = np.stack([(TABLE.vv + 30) / 35, TABLE.smap / 0.6, np.sin(phase), np.cos(phase)], axis=1)
    y = TABLE.soil_moisture.to_numpy()
    for repeat in range(2):
        for size in (1, 6):
            train, test = splits_.draw(size, repeat)
            line = LinearRegression().fit(TABLE[["smap"]].to_numpy()[train], y[train])
            by_hand = {
                "ridge": Ridge().fit(x[train], y[train]).predict(x[test]),
                "SMAP alone": line.predict(TABLE[["smap"]].to_numpy()[test]),
                "training mean": np.full(test.size, y[train].mean()),
            }
            for name, prediction in by_hand.items():
                one = RESULTS.sel(size=size, regressor=name, repeat=repeat)
                p, o = xr.DataArray(prediction, dims="sample"), xr.DataArray(y[test], dims="sample")
                assert one.rmse.item() == pytest.approx(scores.rmse(p, o).item(), rel=1e-9)
                assert one.bias.item() == pytest.approx(scores.bias(p, o).item(), abs=1e-12)
                if name != "training mean":
                    assert one.pearson_r.item() == pytest.approx(scores.pearson_r(p, o).item(), rel=1e-9)
                parts = scores.level_dynamics(prediction, y[test], TABLE.station.to_numpy()[test])
                assert one.level.item() == pytest.approx(parts.level.item(), rel=1e-9)


def test_a_station_climatology_exists_where_stations_are_shared():
    assert np.isnan(RESULTS.rmse.sel(regressor="station climatology")).all()
    found = run(splits.temporal(TABLE, year=2020, least=10, sizes=[9]), RIDGE)
    known = found.rmse.sel(regressor="station climatology")
    assert (known < found.rmse.sel(regressor="training mean")).all() and (known < 0.04).all()


def test_a_climatology_is_each_station_s_mean_and_one_season():
    time = pd.date_range("2019-01-01", periods=730)
    wave = 0.05 * np.sin(2 * np.pi * time.day_of_year / 365.25)
    table = pd.DataFrame({"station": np.repeat(["a", "b"], 730), "time": np.tile(time, 2), "vv": -10.0})
    table["soil_moisture"] = np.concatenate([0.1 + wave, 0.3 + wave])
    found = run(splits.dependent(table, sizes=[10]), {"r": Ridge()}, table, features=["vv"], repeats=1)
    assert found.rmse.sel(regressor="station climatology").item() == pytest.approx(0, abs=1e-9)


def test_smap_alone_is_left_out_where_rows_lack_it(caplog):
    table = TABLE.assign(smap=TABLE.smap.where(np.arange(len(TABLE)) > 3))
    with caplog.at_level(logging.WARNING, "smgrid"):
        found = run(table=table, features=["vv"], regressors=RIDGE)
    assert np.isnan(found.rmse.sel(regressor="SMAP alone")).all()
    assert "'SMAP alone' is left out: smap is missing in 4 of 480 rows" in caplog.text
    assert "of training mean" in scenarios.verdict(found)


def test_incomplete_rows_are_left_out_of_the_splits_too(caplog):
    table = TABLE.assign(vv=TABLE.vv.where(np.arange(len(TABLE)) % 3 > 0))
    whole = table.dropna().reset_index(drop=True)
    with caplog.at_level(logging.INFO, "smgrid"):
        one = run("dependent", RIDGE, table)
    two = run("dependent", RIDGE, whole)
    xr.testing.assert_identical(one.drop_attrs(deep=False), two.drop_attrs(deep=False))
    assert "160 of 480 rows left out" in caplog.text and one.attrs["rows_left_out"] == 160


def test_tables_and_datasets_give_the_same():
    dataset = xr.Dataset.from_dataframe(TABLE.rename_axis("sample"))
    for name in ("vv", "smap", "soil_moisture"):
        dataset[name].attrs["units"] = {"vv": "dB"}.get(name, "m3 m-3")
    xr.testing.assert_identical(run(table=dataset).drop_attrs(deep=False), RESULTS.drop_attrs(deep=False))


def test_an_own_predictor_is_scaled_by_the_rows_that_train():
    table = TABLE.assign(ratio=TABLE.vv * 1000)
    fine = Ridge(alpha=1e-9)
    one, two = (run(table=table, features=[name], regressors={"r": fine}) for name in ("vv", "ratio"))
    np.testing.assert_allclose(one.rmse.sel(regressor="r"), two.rmse.sel(regressor="r"), rtol=1e-5)


# ---- tuning


def test_the_oracle_is_the_best_draw():
    tree = RESULTS.sel(regressor="tree")
    np.testing.assert_allclose(tree.rmse_of_draws.min("draw"), tree.rmse, rtol=1e-12)
    assert np.isnan(RESULTS.optimism).all()


def test_honest_tuning_knows_nothing_of_the_test_set():
    honest = run(tuning="honest", draws=12)
    tree = honest.sel(regressor="tree")
    assert (tree.optimism >= 0).all() and tree.optimism.max() > 0
    np.testing.assert_allclose(tree.rmse - tree.optimism, run(draws=12).rmse.sel(regressor="tree"), rtol=1e-12)
    scheme = splits.spatial(TABLE, sizes=[1, 6])
    for repeat in range(2):
        _, test = scheme.draw(6, repeat)
        other = TABLE.copy()
        other.loc[test, "soil_moisture"] = np.random.default_rng(0).uniform(0.05, 0.4, test.size)
        again = run(splits.spatial(other, sizes=[6]), TREE, other, tuning="honest", draws=12)
        assert again.params.sel(regressor="tree", size=6, repeat=repeat) == tree.params.sel(size=6, repeat=repeat)


def test_more_draws_begin_with_the_same():
    few, many = run(draws=4, regressors=TREE), run(draws=9, regressors=TREE)
    np.testing.assert_array_equal(few.rmse_of_draws, many.rmse_of_draws.isel(draw=slice(4)))


def test_own_estimators_and_spaces():
    own = {
        "line": make_pipeline(StandardScaler(), Ridge()),
        "forest": (RandomForestRegressor(n_estimators=3), {"max_depth": [2, 4]}),
        "ridge": (Ridge(), {"alpha": uniform(0.1, 3)}),
    }
    found = run(regressors=own)
    assert np.isfinite(found.rmse.sel(regressor=list(own))).all()
    assert found.params.sel(regressor="line").values.ravel().tolist() == ["{}"] * 4
    assert 0.1 < json.loads(found.params.sel(regressor="ridge").values[0, 0])["alpha"] < 3.1
    assert np.isfinite(found.rmse_of_draws.sel(regressor="line")).sum("draw").max() == 1
    xr.testing.assert_identical(found, run(regressors=own))


def test_the_paper_s_four_run_with_the_paper_s_spaces():
    found = run(splits.dependent(TABLE, sizes=[5]), ["mlp", "svr", "rf", "xgb"], draws=2, repeats=1)
    assert np.isfinite(found.rmse.sel(regressor=["mlp", "svr", "rf", "xgb"])).all()


# ---- on disk, in pieces, in parallel


def test_a_killed_run_goes_on_to_the_same_results(tmp_path, monkeypatch):
    """Whatever a kill leaves of the ledger, cut at any byte, the finished results are the same."""
    path = tmp_path / "results.nc"
    xr.testing.assert_identical(run(path=path), RESULTS)
    whole, ledger = path.read_bytes(), tmp_path / "results.nc.ledger"
    lines = ledger.read_bytes()
    work = []
    plain = trials.attempt
    monkeypatch.setattr(scenarios, "attempt", lambda *a: work.append(1) or plain(*a))
    for cut in [*np.random.default_rng(0).integers(1, len(lines), 4), len(lines) // 2, len(lines) - 1, len(lines)]:
        ledger.write_bytes(lines[:cut])
        path.unlink(missing_ok=True)
        work.clear()
        xr.testing.assert_identical(run(path=path), RESULTS)
        kept = lines[:cut].count(b"\t")
        assert 20 - len(work) in (kept, kept - 1), "finished trials are not run again"
        xr.testing.assert_identical(scenarios.open_results(path), RESULTS)
    assert not work and len(whole) == path.stat().st_size


def test_an_interrupted_run_leaves_what_it_has(tmp_path, monkeypatch):
    path, plain, calls = tmp_path / "results.nc", trials.attempt, []

    def stop_later(*args):
        calls.append(1)
        if len(calls) > 7:
            raise KeyboardInterrupt
        return plain(*args)

    monkeypatch.setattr(scenarios, "attempt", stop_later)
    with pytest.raises(KeyboardInterrupt):
        run(path=path)
    part = scenarios.open_results(path)
    assert int(np.isfinite(part.rmse).sum()) == 6  # of seven, one is a climatology without a shared station
    assert part.rmse.shape == RESULTS.rmse.shape
    monkeypatch.setattr(scenarios, "attempt", plain)
    xr.testing.assert_identical(run(path=path), RESULTS)


def test_results_grow(tmp_path, monkeypatch):
    path = tmp_path / "results.nc"
    run(path=path, repeats=1, regressors=TREE)
    plain, work = trials.attempt, []
    monkeypatch.setattr(scenarios, "attempt", lambda table, trial: work.append(trial) or plain(table, trial))
    xr.testing.assert_identical(run(path=path), RESULTS)
    assert len(work) == 20 - 8


def test_other_samples_or_settings_are_other_trials(tmp_path):
    path = tmp_path / "results.nc"
    run(path=path)
    other = TABLE.assign(vv=TABLE.vv + 0.01)
    xr.testing.assert_identical(run(path=path, table=other), run(table=other))
    xr.testing.assert_identical(run(path=path, seed=1), run(seed=1))
    changed = {"tree": (DecisionTreeRegressor(min_samples_split=7), TREE["tree"][1])}
    xr.testing.assert_identical(run(path=path, regressors=changed), run(regressors=changed))
    assert not np.array_equal(run(regressors=changed).rmse, run(regressors=TREE).rmse)
    xr.testing.assert_identical(run(path=path), RESULTS)


def test_an_altered_line_is_no_line(tmp_path):
    path, ledger = tmp_path / "results.nc", tmp_path / "results.nc.ledger"
    run(path=path)
    ledger.write_text(ledger.read_text().replace('"n_train": 240', '"n_train": 999'))
    xr.testing.assert_identical(run(path=path), RESULTS)


def test_workers_do_not_matter(tmp_path):
    regressors = ["rf", "svr"]
    one = run(regressors=regressors, draws=3)
    xr.testing.assert_identical(run(regressors=regressors, draws=3, workers=2, path=tmp_path / "r.nc"), one)


def test_the_cost_is_said_first(caplog):
    with caplog.at_level(logging.INFO, "smgrid"):
        run(regressors={"rf": (RandomForestRegressor(2), {"max_depth": [1]}), "own": Ridge()}, tuning="honest")
    assert "2 sizes (1 to 6 cells) x 2 repeats; 20 trials, 20 fits and 3 inner ones for each" in caplog.text
    assert "core-hours without ['own']" in caplog.text
    with caplog.at_level(logging.INFO, "smgrid"):
        run(regressors=RIDGE)
    assert "12 trials are left" not in caplog.text and "16 trials are left, for how long, nobody knows" in caplog.text


def test_what_is_left_is_judged_by_what_has_run(tmp_path, caplog, monkeypatch):
    forest = {"rf": (RandomForestRegressor(2), {"max_depth": [1]}), "own": Ridge()}
    timed = scenarios._Ground.timed
    monkeypatch.setattr(scenarios._Ground, "timed", lambda *args: (*timed(*args)[:2], 7200.0))
    run(regressors=forest, repeats=1, path=tmp_path / "results.nc")
    with caplog.at_level(logging.INFO, "smgrid"):
        run(regressors=forest, repeats=3, path=tmp_path / "results.nc")
    assert "20 trials are left, about 16 core-hours" in caplog.text  # 2 sizes x 2 repeats x 2 regressors x 2 hours
    assert "without" not in caplog.text.split("20 trials are left")[1].split("\n")[0]


def test_unequal_trials_count_by_their_time():
    plan = trials.Plan(splits.spatial(TABLE, sizes=[1, 6]), trials.contenders(["rf"]), 1, 5, "oracle", 0)
    pace = scenarios._Pace(plan.splits)
    small, large = (trial for trial in plan.trials() if trial.contender.name == "rf")
    guess = [pace.seconds(trial) for trial in (small, large)]
    assert 0 < guess[0] < guess[1]
    pace.add(small, 10 * guess[0])
    assert pace.seconds(large) == pytest.approx(10 * guess[1])
    assert pace.seconds(next(trial for trial in plan.trials() if trial.contender.estimator is None)) == 0


# ---- verdicts


def test_a_difference_of_one_repeat_is_the_paired_bootstrap():
    one = RESULTS.isel(repeat=[0])
    found = scenarios.difference(one, "ridge", "training mean").sel(size=6)
    assert found.rmse.item() == pytest.approx(
        (one.rmse.sel(size=6, regressor="ridge") - one.rmse.sel(size=6, regressor="training mean")).item(), rel=1e-5
    )
    train, test = splits.spatial(TABLE, sizes=[1, 6]).draw(6)
    y = TABLE.soil_moisture.to_numpy()
    x = np.full(test.size, y[train].mean())
    line = LinearRegression().fit(TABLE[["smap"]].to_numpy()[train], y[train]).predict(TABLE[["smap"]].to_numpy()[test])
    paired = scores.bootstrap("rmse", line, y[test], groups=TABLE.station.to_numpy()[test], versus=x, draws=4000)
    found = scenarios.difference(one, "SMAP alone", "training mean", draws=4000).sel(size=6)
    assert found.rmse.item() == pytest.approx(paired.estimate.item(), rel=1e-4)
    assert found.rmse_interval.values == pytest.approx([paired.lower.item(), paired.upper.item()], abs=2e-3)


def test_the_verdict_says_who_is_better():
    good = run(table=samples(smap_noise=0.02, offset=0.08), regressors={"blind": Ridge()}, features=["vv"], repeats=3)
    text = scenarios.verdict(good)
    assert "spatial, 6 cells, blind: RMSE 0.0" in text and "SMAP alone beats blind (+0.0" in text
    assert "In level SMAP alone beats blind" in text and "of the squared error of blind is level" in text
    poor = run(table=samples(smap_noise=0.15, offset=0.01), regressors={"radar": Ridge(0.1)}, repeats=3)
    assert "radar beats SMAP alone (-0.0" in scenarios.verdict(poor)
    same = run(table=samples(), regressors={"line": LinearRegression()}, features=["smap"])
    assert "no difference is shown (" in scenarios.verdict(same)


def test_the_verdict_names_the_price_of_honesty_and_the_climatology():
    found = run(splits.temporal(TABLE, year=2020, least=10, sizes=[3]), TREE, tuning="honest")
    text = scenarios.verdict(found, size=3)
    assert "Tuning on the test set would have flattered its RMSE by 0." in text
    assert "Against station climatology (0.0" in text and "chosen on the test set" not in text
    assert "parameters of tree were chosen on the test set, which flatters it." in scenarios.verdict(RESULTS)
    assert "parameters of ridge were chosen" not in scenarios.verdict(RESULTS)


# ---- wrong use


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: run("spacial"), "one of .'dependent', 'spatial', 'temporal'., or splits, not 'spacial'"),
        (lambda: run("regional"), r"give scenario=smgrid.scenarios.regional\(samples, campaigns\)"),
        (lambda: run(tuning="best"), "tuning is one of .*not 'best'"),
        (lambda: run(repeats=0), "at least 1, not 0 and 4"),
        (lambda: run(features=["vv", "sand"]), r"lack the predictors \['sand'\]"),
        (lambda: run(features=tuple(PAPER)), r"features=\['vv', 'day_of_year', 'smap'\]"),
        (
            lambda: run(splits.spatial(TABLE[:300], sizes=[1])),
            "splits are of a table of 300 rows, the samples have 480",
        ),
        (lambda: run(table=TABLE.drop(columns="soil_moisture")), "no 'soil_moisture'"),
        (lambda: run(table=TABLE.assign(vv=np.nan)), r"always missing: \['vv'\]"),
        (lambda: run(table=TABLE.assign(soil_moisture=np.nan)), r"always missing: \['soil_moisture'\]"),
        (lambda: run(workers=0), "1 or more, or None for one a core, not 0"),
        (lambda: scenarios.verdict(xr.Dataset()), "no results of scenarios.run: they lack .*'rmse'"),
        (lambda: scenarios.difference(RESULTS.drop_vars("station_mse"), "tree"), r"they lack \['station_mse'\]"),
        (lambda: scenarios.verdict(RESULTS, size=3), r"no size 3; they have \[1.0, 6.0\]"),
        (lambda: run(regressors={"SMAP alone": Ridge()}), "name of a baseline"),
        (lambda: run(regressors=["lasso"]), "kind is one of"),
        (lambda: scenarios.difference(RESULTS, "rf"), "no 'rf'; they have"),
    ],
)
def test_wrong_use_is_explained(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("content", [b"", b"vv,soil_moisture\n-12,0.2\n", "other"])
def test_results_are_not_written_over_something_else(tmp_path, content):
    path = tmp_path / "table.nc"
    if content == "other":
        xr.Dataset({"vv": ("y", [1.0])}).to_netcdf(path)
        content = path.read_bytes()
    path.write_bytes(content)
    with pytest.raises(
        FileExistsError, match=r"table\.nc is there and holds no results of scenarios\.run: give another"
    ):
        run(path=path)
    assert path.read_bytes() == content and [*tmp_path.iterdir()] == [path]
    with pytest.raises(ValueError, match=r"table\.nc (cannot be opened|holds no results of scenarios\.run)"):
        scenarios.open_results(path)


def test_a_path_without_a_folder_is_known_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setattr(scenarios, "attempt", None)  # no trial is tried
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*absent to write r\.nc in"):
        run(path=tmp_path / "absent" / "r.nc")
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with pytest.raises(PermissionError, match=r"r\.nc cannot be written in .*: give a path in a folder of your own"):
        run(path=tmp_path / "r.nc")


def test_what_is_no_estimator():
    with pytest.raises(TypeError, match=r"'rf' is an estimator or \(estimator, search_space\), not str"):
        run(regressors={"rf": "rf"})
    with pytest.raises(FileNotFoundError, match="no results of a scenario at nowhere"):
        scenarios.open_results("nowhere.nc")


def test_a_cluster_gets_the_table_once():
    """Each task is small; the table is so large to Dask that joblib sends it by itself, once."""
    table = trials.Table.of(TABLE, FEATURES)
    plan = trials.Plan(splits.spatial(TABLE, sizes=[1, 6]), trials.contenders(["rf"]), 1, 5, "oracle", 0)
    ground = scenarios._Ground(table, plan.splits)
    assert sizeof(ground) > 16 * table.target.size > 1000
    for trial in plan.trials():
        bare = ground.bare(trial)
        assert len(pickle.dumps(bare)) < 4000
        assert len(pickle.dumps(trial)) > len(pickle.dumps(bare)) + 8 * len(TABLE)
        assert bare.plan.splits is None and trial.plan.splits is plan.splits


def test_a_dask_cluster_gives_the_same():
    distributed = pytest.importorskip("distributed")
    joblib = pytest.importorskip("joblib")
    with distributed.Client(n_workers=1, threads_per_worker=1, dashboard_address=None), joblib.parallel_config("dask"):
        xr.testing.assert_identical(run(workers=None), RESULTS)


def test_a_region_s_stations_against_its_campaigns():
    table = TABLE.assign(network=np.where(TABLE.station < "s03", "SMAPEX", "OzNet"))
    scheme = scenarios.regional(table, "SMAPEX")
    found = run(scheme, TREE | RIDGE, table, tuning="honest")
    assert found["size"].values.tolist() == [9] and (found.n_test.sel(regressor="ridge") == 120).all()
    assert found.attrs["scenario"] == "regional" and "regional, 9 training cells, tree" in scenarios.verdict(found)
    ridge = found.rmse.sel(regressor="ridge").values.ravel()
    assert np.ptp(ridge) == 0, "all stations train in every repeat, and ridge draws nothing"
