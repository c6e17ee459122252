"""Laws of spread, interval and dissimilarity: what they are, that chunks and files do not matter, and refusals."""

import json
import logging
import pickle
import re

import dask
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.ensemble import ExtraTreesRegressor, RandomForestRegressor
from sklearn.linear_model import Ridge
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeRegressor

import smgrid
from smgrid import Grid, Model, load_model, open_maps, predict_map, save_model, train, write_geotiff, write_zarr
from smgrid.applicability import importance, mean_distance, reach, whisker
from smgrid.calibration import Calibration
from smgrid.cli import main
from smgrid.conformal import bounds, half_width
from smgrid.resampling import station_folds

FEATURES = ["vv", "day_of_year", "sand", "smap"]
ALL = ("soil_moisture", "status", "culprit", "spread", "interval", "dissimilarity")
NAMES = ["soil_moisture", "status", "culprit", "spread", "lower", "upper", "dissimilarity", "applicability"]
FLOATS = ["soil_moisture", "spread", "lower", "upper", "dissimilarity"]
GRID = Grid(1, 11468, 31405, 11, 14)


def make_samples(stations=14, days=12, seed=0, level=0.03):
    rng = np.random.default_rng(seed)
    n = stations * days
    station = np.repeat(np.arange(stations), days)
    table = pd.DataFrame({"vv": rng.uniform(-18, -6, n), "smap": rng.uniform(0.05, 0.4, n)})
    table["sand"] = rng.uniform(20, 70, stations)[station]
    table["time"] = pd.Timestamp("2016-01-01") + pd.to_timedelta(rng.integers(0, 900, n), unit="D")
    table["station"] = [f"S{k:02d}" for k in station]
    offset = rng.normal(0, level, stations)[station]
    table["soil_moisture"] = (0.6 * table.smap + 0.004 * (table.vv + 18) + offset + rng.normal(0, 0.01, n)).clip(0, 0.6)
    return table


def make_cube(seed=1):
    rng = np.random.default_rng(seed)
    times = np.array(["2015-05-05", "2015-09-15"], "M8[ns]")
    cube = xr.Dataset(coords=GRID.coords()).assign_coords(time=times)
    for name, (low, high), units in (("vv", (-25, 0), "dB"), ("smap", (0, 0.55), "m3 m-3"), ("sand", (0, 100), "%")):
        dims = ("y", "x") if name == "sand" else ("time", "y", "x")
        values = rng.uniform(low, high, [cube.sizes[d] for d in dims]).astype("f4")
        values[rng.random(values.shape) < 0.05] = np.nan
        cube[name] = (dims, values, {"units": units})
    return cube


SAMPLES, CUBE = make_samples(), make_cube()
RF = train(SAMPLES, RandomForestRegressor(12, min_samples_leaf=2, random_state=0), features=FEATURES)
PLAIN = train(SAMPLES.drop(columns="station"), Ridge(), features=FEATURES)
MAPS = predict_map(CUBE, RF, layers=ALL)


# ---- all layers


def test_layers_are_variables_in_the_order_asked_for():
    assert list(MAPS) == NAMES
    assert list(predict_map(CUBE, RF, layers=["interval"])) == ["lower", "upper"]
    assert list(predict_map(CUBE, RF, layers=["upper", "spread", "interval"])) == ["upper", "spread", "lower"]
    for name in NAMES:
        assert MAPS[name].dtype == ("f4" if name in FLOATS else "u1") and MAPS[name].dims == ("time", "y", "x")


@pytest.mark.parametrize("name", NAMES)
def test_a_layer_is_the_same_whatever_else_is_asked_for(name):
    layer = {"lower": "interval", "upper": "interval", "applicability": "dissimilarity"}.get(name, name)
    alone = predict_map(CUBE, RF, layers=[layer])
    assert alone[name].values.tobytes() == MAPS[name].values.tobytes()


def test_a_cell_without_a_prediction_is_empty_in_every_layer():
    land = xr.DataArray(np.arange(GRID.ny)[:, None] + np.zeros(GRID.nx) > 2, dims=("y", "x"))
    maps = predict_map(CUBE, RF, layers=ALL, where=land)
    empty = maps.status >= 2
    assert empty[:, :3].all() and 0.2 < empty.mean() < 0.6
    for name in FLOATS:
        assert (maps[name].isnull() == empty).all(), name
    assert ((maps.applicability == 2) == empty).all()


@settings(max_examples=8)
@given(t=st.integers(1, 2), y=st.integers(1, 11), x=st.integers(1, 14), one=st.booleans())
def test_chunks_do_not_matter(t, y, x, one):
    layers = ("dissimilarity",) if one else ALL
    maps = predict_map(CUBE.chunk(time=t, y=y, x=x), RF, layers=layers)
    xr.testing.assert_identical(maps.compute(), predict_map(CUBE, RF, layers=layers))


def test_tiles_inside_a_block_do_not_matter(monkeypatch):
    monkeypatch.setattr("smgrid.layers.TILE", 7)
    xr.testing.assert_identical(predict_map(CUBE, RF, layers=ALL), MAPS)


def test_all_layers_come_lazily_from_one_read(no_compute):
    reads = []

    def read(block):
        reads.append(1)
        return block

    lazy = CUBE.chunk(time=1, y=6, x=7)
    lazy["vv"] = lazy.vv.copy(data=lazy.vv.data.map_blocks(read, dtype="f4", meta=np.empty((0, 0, 0), "f4")))
    maps = predict_map(lazy, RF, layers=ALL)
    assert not reads and maps.upper.chunks == ((1, 1), (6, 5), (7, 7))
    with dask.config.set(scheduler="threads"):
        xr.testing.assert_identical(maps.compute(), MAPS)
    assert len(reads) == 2 * 2 * 2


def test_maps_come_finished():
    assert MAPS.soil_moisture.attrs["ancillary_variables"].split() == NAMES[1:]
    for name in ("spread", "lower", "upper"):
        assert MAPS[name].attrs["units"] == "m3 m-3" and MAPS[name].encoding["grid_mapping"] == "spatial_ref"
    assert MAPS.lower.attrs["level"] == 0.9 and MAPS.lower.attrs["half_width"] == RF.calibration.half_width(0.9)
    assert MAPS.upper.attrs["long_name"] == "upper bound of the 90 % prediction interval"
    assert "calibrated at 14 stations left out of training" in MAPS.upper.attrs["comment"]
    assert MAPS.dissimilarity.attrs["units"] == "1"
    assert MAPS.dissimilarity.attrs["threshold"] == RF.calibration.reach.threshold
    assert MAPS.applicability.attrs["flag_values"].tolist() == [0, 1, 2]
    assert MAPS.applicability.attrs["flag_meanings"].split()[1] == "outside_the_area_of_applicability"
    assert MAPS.spread.encoding["_FillValue"] is not None and MAPS.applicability.encoding["_FillValue"] is None


# ---- spread


@pytest.mark.parametrize("kind", [RandomForestRegressor, ExtraTreesRegressor])
def test_spread_is_the_standard_deviation_over_the_trees(kind):
    names = ["vv", "smap"]
    forest = kind(9, random_state=2, n_jobs=2).fit(SAMPLES[names], SAMPLES.soil_moisture)
    maps = predict_map(CUBE, forest, layers=["soil_moisture", "spread"])
    flat = CUBE[names].to_dataframe()[names].dropna()
    trees = np.stack([tree.predict(flat.to_numpy("f4")) for tree in forest.estimators_])
    cells = maps.to_dataframe().loc[flat.index]
    np.testing.assert_allclose(cells.spread, trees.std(axis=0), atol=1e-7)
    np.testing.assert_array_equal(cells.soil_moisture, forest.predict(flat).astype("f4"))
    assert cells.spread.max() > 0.01


# ---- interval


@pytest.mark.parametrize("stations", [9, 19, 30])
@pytest.mark.parametrize("level", [0.5, 0.8, 0.9])
def test_of_one_row_a_station_it_is_split_conformal_prediction(stations, level):
    error = np.random.default_rng(stations).normal(size=stations)
    rank = int(np.ceil((stations + 1) * level - 1e-9))
    assert half_width(error, np.arange(stations), level) == np.sort(np.abs(error))[rank - 1]


def test_more_rows_of_a_station_are_no_more_stations():
    rng = np.random.default_rng(0)
    error, station = rng.normal(size=60), np.repeat(np.arange(20), 3)
    many = np.concatenate([error, np.tile(error[station == 7], 50)])
    code = np.concatenate([station, np.full(150, 7)])
    assert half_width(many, code) == half_width(error, station)


@pytest.mark.parametrize("level", [0.8, 0.9])
def test_coverage_at_new_stations_is_nominal(level):
    """Exchangeable synthetic stations: within Monte-Carlo error of the level, and never more than a station above it."""
    rng, stations, covered = np.random.default_rng(5), 24, []
    for _ in range(1500):
        size = rng.integers(1, 30, stations + 1)
        code = np.repeat(np.arange(stations + 1), size)
        error = rng.normal(0, 0.06, stations + 1)[code] + rng.normal(0, 0.03, code.size)
        known = code < stations
        covered.append((np.abs(error[~known]) <= half_width(error[known], code[known], level)).mean())
    slack = 3 * np.std(covered) / np.sqrt(len(covered))
    assert level - slack < np.mean(covered) < level + 1 / (stations + 1) + slack


def test_calibrated_by_stations_it_holds_at_new_places_and_by_rows_it_does_not():
    """Synthetic stations whose level nothing explains, and a static predictor by which a tree knows each again."""
    covered = {"station": [], "rows": []}
    for seed in range(25):
        both = make_samples(64, 20, seed, level=0.05)
        known, new = both[both.station < "S24"], both[both.station >= "S24"]
        for unit, given_ in (("station", known), ("rows", known.assign(station=np.arange(len(known))))):
            model = train(given_, DecisionTreeRegressor(min_samples_leaf=5, random_state=0), features=["sand", "smap"])
            lower, upper = bounds(model.predict(new), model.calibration.half_width())
            covered[unit].append(((lower <= new.soil_moisture) & (new.soil_moisture <= upper)).mean())
    assert np.mean(covered["station"]) == pytest.approx(0.91, abs=0.03)
    assert np.mean(covered["rows"]) < 0.8


def test_bounds_are_cut_to_what_soil_can_hold():
    half = RF.calibration.half_width()
    cells = MAPS.where(MAPS.status < 2)
    soil = cells.soil_moisture.astype("f8")
    np.testing.assert_array_equal(cells.lower, np.clip(soil - half, 0, 1).astype("f4"))
    np.testing.assert_array_equal(cells.upper, np.clip(soil + half, 0, 1).astype("f4"))
    assert (cells.lower == 0).any() and (cells.upper >= cells.lower).sum() == cells.lower.count()


def test_a_higher_level_is_wider():
    narrow, wide = (predict_map(CUBE, RF, layers="interval", level=level) for level in (0.5, 0.92))
    assert narrow.lower.attrs["level"] == 0.5 and "50 %" in narrow.lower.attrs["long_name"]
    assert narrow.upper.attrs["half_width"] < MAPS.upper.attrs["half_width"] < wide.upper.attrs["half_width"]


# ---- dissimilarity: a peer that takes every distance one by one, with the formulas of R's CAST


def slow_distances(points, others):
    return np.array([[np.sqrt(sum((a - b) ** 2)) for b in others] for a in points])


def boxplot_stats_5(values):
    """The fifth of R's boxplot.stats(values)$stats."""
    v = sorted(values)
    n = len(v)
    n4 = np.floor((n + 3) / 2) / 2
    at = [n4, n + 1 - n4]
    low, high = ((v[int(np.floor(d)) - 1] + v[int(np.ceil(d)) - 1]) / 2 for d in at)
    return max(x for x in v if low - 1.5 * (high - low) <= x <= high + 1.5 * (high - low))


def slow_index(inputs, weight, fold, cells):
    mean, sd = inputs.mean(axis=0), inputs.std(axis=0, ddof=1)
    train_, new = (inputs - mean) / sd * weight, (cells - mean) / sd * weight
    pairs = slow_distances(train_, train_)
    scale = np.mean([np.delete(row, i).mean() for i, row in enumerate(pairs)])
    inner = [row[fold != fold[i]].min() / scale for i, row in enumerate(pairs)]
    return slow_distances(new, train_).min(axis=1) / scale, boxplot_stats_5(inner)


@pytest.mark.parametrize("n", [20, 21, 22, 43])
def test_dissimilarity_is_that_of_meyer_and_pebesma(n):
    rng = np.random.default_rng(n)
    inputs = (rng.normal(size=(n, 4)) * [1, 10, 0.1, 3]).astype("f4")
    station, weight = rng.integers(0, 7, n), np.array([1.0, 0.3, 0.0, 0.05])
    cells = rng.normal(size=(30, 4)) * [2, 20, 0.2, 6]
    folds = station_folds(station, 5)
    fold = np.empty(n)
    for k, (_, test) in enumerate(folds):
        fold[test] = k
    found = reach(inputs, weight, folds)
    index, threshold = slow_index(inputs.astype("f8"), weight, fold, cells)
    np.testing.assert_allclose(found.dissimilarity(cells), index, rtol=1e-6)
    assert found.threshold == pytest.approx(threshold, rel=1e-12)


def test_maps_of_dissimilarity_are_those_of_the_peer():
    kept = RF.calibration.reach
    fold, groups = np.empty(len(SAMPLES)), SAMPLES.station.to_numpy(str)
    for k, (_, test) in enumerate(station_folds(groups, 5)):
        fold[test] = k
    inputs = kept.inputs.astype("f8")
    weight = kept.factor * inputs.std(axis=0)
    assert weight.max() == pytest.approx(1) and weight[1] == pytest.approx(weight[2], rel=1e-6), "the pair of the day"
    index, threshold = slow_index(inputs, weight, fold, cells_of(CUBE))
    there = MAPS.status.values < 2
    np.testing.assert_allclose(MAPS.dissimilarity.values[there], index, rtol=1e-5)
    assert kept.threshold == pytest.approx(threshold, rel=1e-9)
    outside = MAPS.applicability.values[there] == 1
    np.testing.assert_array_equal(outside, MAPS.dissimilarity.values[there] > np.float32(kept.threshold))
    assert 0.05 < outside.mean() < 0.95


def cells_of(cube):
    """Model inputs of the cells that have all predictors, by hand."""
    full = xr.broadcast(cube)[0].transpose("time", "y", "x")
    phase = 2 * np.pi * full.time.dt.dayofyear / 365.25
    parts = [(full.vv + 30.0) / 35, np.sin(phase), np.cos(phase), full.sand / 100.0, full.smap / 0.6]
    rows = np.stack([p.broadcast_like(full.vv).values.ravel() for p in parts], axis=1)
    return rows[np.isfinite(rows).all(axis=1)]


def test_training_rows_lie_inside_and_far_cells_outside():
    kept = RF.calibration.reach
    assert (kept.dissimilarity(kept.inputs) == 0).all()
    assert (kept.dissimilarity(kept.inputs + 5 * kept.inputs.std(axis=0)) > kept.threshold).all()


def test_importance_is_what_shuffling_costs():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(3000, 4))
    target = rows[:, 0] + 0.5 * rows[:, 1]
    weight = importance(Ridge(1e-6).fit(rows, target), rows, target, [1, 1, 2])
    assert weight[:2] == pytest.approx([2, 0.5], rel=0.1)  # of a linear model: 2 slope^2 variance
    assert weight[2] == weight[3] < 1e-6


def test_a_predictor_that_never_varies_does_not_count():
    inputs = np.random.default_rng(1).normal(size=(30, 3)).astype("f4")
    inputs[:, 1] = 0.1
    folds = station_folds(np.arange(30), 5)
    found = reach(inputs, np.array([0.0, 7.0, 0.0]), folds)
    assert found.factor[1] == 0 and (found.factor[[0, 2]] > 0).all()  # all others count alike
    with pytest.raises(ValueError, match="no predictor varies among the training rows"):
        reach(np.ones((9, 2), "f4"), np.ones(2), station_folds(np.arange(9), 3))


def test_the_mean_distance_of_many_rows_is_taken_from_some(monkeypatch):
    points = np.random.default_rng(0).normal(size=(900, 3))
    exact = mean_distance(points)
    assert exact == pytest.approx(slow_distances(points[:, :], points[:1]).mean(), rel=0.3)
    monkeypatch.setattr("smgrid.applicability.PAIRED", 400)
    assert mean_distance(points) == pytest.approx(exact, rel=0.02) and mean_distance(points) != exact


@given(st.lists(st.floats(0, 9), min_size=2, max_size=40))
def test_whisker_is_that_of_r(values):
    assert whisker(np.array(values)) == boxplot_stats_5(values)


# ---- what a model keeps


@pytest.mark.parametrize("kind", ["rf", "xgb", "svr", "mlp"])
def test_a_saved_model_makes_the_same_maps(kind, tmp_path):
    params = {"rf": {"n_estimators": 6}, "xgb": {"n_estimators": 9}, "mlp": {"tol": 9.0}}.get(kind, {})
    model = train(SAMPLES, smgrid.make_regressor(kind, **params), features=FEATURES)
    layers = [name for name in ALL if kind == "rf" or name != "spread"]
    back = load_model(save_model(model, tmp_path / "soil"))
    assert back.digest == model.digest and repr(back) == repr(model)
    xr.testing.assert_identical(predict_map(CUBE, back, layers=layers), predict_map(CUBE, model, layers=layers))
    first = {file.name: file.read_bytes() for file in (tmp_path / "soil").iterdir()}
    assert set(first) >= {"model.json", "calibration.npz"} and len(first) == 3
    save_model(back, tmp_path / "again")
    assert {file.name: file.read_bytes() for file in (tmp_path / "again").iterdir()} == first


def test_models_that_keep_nothing_are_files_as_before(tmp_path):
    folder = save_model(PLAIN, tmp_path / "soil") if _skops() else None
    svr = save_model(
        train(SAMPLES.drop(columns="station"), smgrid.make_regressor("svr"), features=["vv"]), tmp_path / "b"
    )
    for one in filter(None, (folder, svr)):
        assert json.loads((one / "model.json").read_text())["version"] == 1 and len(list(one.iterdir())) == 2
        assert load_model(one).calibration is None


def _skops():
    try:
        import skops  # noqa: F401
    except ImportError:
        return False
    return True


def test_the_calibration_is_part_of_the_model():
    other = train(SAMPLES.assign(station=SAMPLES.station.str[:2]), RF.regressor, features=FEATURES)
    bare = train(SAMPLES.drop(columns="station"), RF.regressor, features=FEATURES)
    assert len({RF.digest, other.digest, bare.digest}) == 3
    assert train(SAMPLES, RF.regressor, features=FEATURES).digest == RF.digest
    np.testing.assert_array_equal(bare.predict(SAMPLES), RF.predict(SAMPLES))


def test_a_model_travels_without_its_tree_of_rows():
    RF.calibration.reach.dissimilarity(RF.calibration.reach.inputs[:1])
    assert "_tree" in vars(RF.calibration.reach)
    back = pickle.loads(pickle.dumps(RF))
    assert "_tree" not in vars(back.calibration.reach) and back.digest == RF.digest


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda a: a.pop("error"), "does not fit a model of 5 inputs"),
        (lambda a: a.update(inputs=a["inputs"][:, :4]), "does not fit a model of 5 inputs"),
        (lambda a: a.update(station=a["station"].astype("i8")), "does not fit a model of 5 inputs"),
        (lambda a: a.update(extra=np.zeros(3)), "does not fit a model of 5 inputs"),
        (lambda a: a.update(station=a["station"] + 1), "numbers that no training gives"),
        (lambda a: a.update(station=a["station"] * 2), "numbers that no training gives"),
        (lambda a: a.update(station=a["station"] * 1000), "numbers that no training gives"),
        (lambda a: a.update(inputs=a["inputs"] * np.float32(np.nan)), "numbers that no training gives"),
        (lambda a: a.update(factor=-a["factor"]), "numbers that no training gives"),
        (lambda a: a.update(limits=np.array([0.0, 1.0])), "numbers that no training gives"),
    ],
)
def test_hostile_calibrations_are_refused(change, message):
    arrays = dict(RF.calibration.to_arrays())
    assert Calibration.from_arrays(arrays, 5).digest() == RF.calibration.digest()
    change(arrays)
    with pytest.raises(ValueError, match=message):
        Calibration.from_arrays(arrays, 5)


def test_a_changed_or_missing_file_of_rows_is_refused(tmp_path):
    folder = save_model(RF, tmp_path / "soil")
    rows = folder / "calibration.npz"
    data = bytearray(rows.read_bytes())
    data[len(data) // 2] ^= 1
    rows.write_bytes(data)
    with pytest.raises(ValueError, match=r"calibration.npz was changed after it was saved"):
        load_model(folder)
    rows.unlink()
    with pytest.raises(ValueError, match=r"calibration.npz is missing: get the model's folder anew"):
        load_model(folder)
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"which is model.json and regressor.npz and calibration.npz: take it out"):
        load_model(folder)
    (folder / "notes.txt").unlink()
    assert save_model(PLAIN if _skops() else RF, folder) == folder  # what is left of a model may be replaced


# ---- refusals


def test_layers_that_a_model_cannot_give_say_what_to_do():
    with pytest.raises(
        ValueError, match=r"'spread' is the standard deviation .*this model is of Ridge: .*'rf'\), or leave"
    ):
        predict_map(CUBE, PLAIN, layers=ALL)
    boosted = train(SAMPLES, smgrid.make_regressor("xgb", n_estimators=5), features=FEATURES)
    with pytest.raises(ValueError, match=r"XGBRegressor: .*leave 'spread' out; 'interval' says of any model"):
        predict_map(CUBE, boosted, layers=["spread"])
    with pytest.raises(ValueError, match=r"'interval' needs errors at stations .*samples that name the 'station'"):
        predict_map(CUBE, PLAIN, layers=["soil_moisture", "interval"])
    with pytest.raises(
        ValueError, match=r"'dissimilarity' needs training rows, and this model keeps none: train it \(anew\)"
    ):
        predict_map(CUBE, PLAIN, layers=["applicability"])
    foreign = make_pipeline(StandardScaler(), Ridge()).fit(SAMPLES[["vv"]], SAMPLES.soil_moisture)
    with pytest.raises(ValueError, match=r"this model keeps none.*leave 'interval' out"):
        predict_map(CUBE, Model.from_estimator(foreign), layers=["interval"])


@pytest.mark.parametrize("level", [0, 1, 90, -0.5, "90 %", None, [0.5, 0.9]])
def test_levels_are_shares(level):
    with pytest.raises(ValueError, match=re.escape(f"level is a share between 0 and 1, such as 0.9, not {level!r}")):
        predict_map(CUBE, RF, layers=["interval"], level=level)


def test_few_stations_vouch_for_little():
    few = train(SAMPLES[SAMPLES.station < "S06"], RF.regressor, features=FEATURES)
    message = (
        r"an interval of 0.9 needs samples of at least 9 stations; the model was trained on 6, enough for level=0.857"
    )
    with pytest.raises(ValueError, match=message):
        predict_map(CUBE, few, layers=["interval"])
    assert predict_map(CUBE, few, layers=["interval"], level=0.857).lower.notnull().any()
    assert "too few for a 90% interval" in repr(few)


@pytest.mark.parametrize(
    "samples, regressor, message",
    [
        (SAMPLES.assign(station="S1"), Ridge(), "all rows are of one station, which says nothing of others"),
        (SAMPLES.assign(station=SAMPLES.station.where(SAMPLES.index > 9)), Ridge(), "10 rows have no station"),
        (SAMPLES, KNeighborsRegressor(150), "Expected n_neighbors <= n_samples"),
    ],
)
def test_training_goes_on_where_stations_do_not_help_and_says_so(samples, regressor, message, caplog):
    with caplog.at_level(logging.WARNING, "smgrid"):
        model = train(samples, regressor, features=FEATURES)
    assert model.calibration is None and np.isfinite(model.predict(SAMPLES)).all()
    assert "nothing is kept for the layers interval and dissimilarity: " in caplog.text and message in caplog.text


# ---- written and read


def test_layers_are_written_and_opened_whole(tmp_path):
    lazy = predict_map(CUBE.chunk(time=1, y=6, x=7), RF, layers=ALL)
    write_zarr(lazy, tmp_path / "maps.zarr", progress=False)
    back = open_maps(tmp_path / "maps.zarr")
    xr.testing.assert_equal(back.load(), MAPS)
    assert back.lower.attrs["level"] == 0.9 and back.dissimilarity.attrs["threshold"] == MAPS.dissimilarity.threshold
    assert Grid.of(back) == GRID
    MAPS.to_netcdf(tmp_path / "maps.nc")
    with xr.open_dataset(tmp_path / "maps.nc", decode_coords="all") as plain:
        xr.testing.assert_equal(plain.load(), MAPS)
        assert plain.applicability.attrs["flag_meanings"] == MAPS.applicability.attrs["flag_meanings"]


def test_another_level_is_another_map(tmp_path):
    lazy = CUBE.chunk(time=1, y=6)
    write_zarr(predict_map(lazy, RF, layers=["interval"]), tmp_path / "maps.zarr", progress=False)
    with pytest.raises(ValueError, match=r"holds other maps: layers, lower, level: 0.9 there, 0.8 here"):
        write_zarr(predict_map(lazy, RF, layers=["interval"], level=0.8), tmp_path / "maps.zarr", progress=False)


def test_layers_are_bands_of_a_geotiff(tmp_path):
    import rasterio

    with rasterio.open(write_geotiff(MAPS.isel(time=0), tmp_path / "maps.tif")) as tif:
        assert list(tif.descriptions) == NAMES
        for band, name in enumerate(NAMES, start=1):
            np.testing.assert_array_equal(tif.read(band), MAPS[name][0])
        assert float(tif.tags(NAMES.index("lower") + 1)["level"]) == 0.9


def test_the_shell_trains_and_predicts_layers(tmp_path, capsys):
    SAMPLES.to_csv(tmp_path / "samples.csv", index=False)
    CUBE.to_netcdf(tmp_path / "cube.nc")
    model, cube, out = (str(tmp_path / name) for name in ("rf.model", "cube.nc", "maps.zarr"))
    assert main(["train", str(tmp_path / "samples.csv"), model, "--features", ",".join(FEATURES)]) == 0
    assert "calibrated at: 14 stations: 90% interval +- 0." in capsys.readouterr().out
    asked = ["--layers", "soil_moisture,spread,interval,dissimilarity", "--level", "0.8"]
    assert main(["predict", cube, model, out, *asked]) == 0
    maps = open_maps(out)
    assert set(maps) == {*NAMES} - {"status", "culprit"}
    assert maps.upper.attrs["level"] == 0.8
    assert main(["predict", cube, model, out, "--layers", "interval", "--level", "0.99"]) == 3
    assert "at least 99 stations; the model was trained on 14, enough for level=0.933" in capsys.readouterr().err
