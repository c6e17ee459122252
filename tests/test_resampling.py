"""The station is the unit: folds hold whole stations, intervals draw whole stations, the MSE splits exactly."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import cross_val_score

from smgrid import scores
from smgrid.resampling import FORMULAS, StationSums, station_folds, station_of, stream


def series(stations=12, rows=30, seed=0, offset=0.05):
    rng = np.random.default_rng(seed)
    station = np.repeat([f"s{k:02d}" for k in range(stations)], rng.integers(2, rows, stations))
    o = rng.normal(0.2, 0.06, station.size)
    p = o + rng.normal(0, offset, stations)[np.unique(station, return_inverse=True)[1]] + rng.normal(0, 0.02, o.size)
    return p, o, station


@given(st.integers(0, 10_000), st.integers(1, 9), st.floats(1e-6, 1e3))
def test_level_and_dynamics_sum_to_the_mean_square_error(seed, stations, scale):
    rng = np.random.default_rng(seed)
    station = rng.integers(0, stations, 40)
    p, o = scale * rng.normal(size=(2, 40))
    parts = scores.level_dynamics(p, o, station)
    mse = np.mean((p - o) ** 2)
    assert parts.level + parts.dynamics == pytest.approx(mse, rel=1e-12)
    assert parts.mse == pytest.approx(mse, rel=1e-12)
    means = pd.Series(p - o).groupby(station).transform("mean")
    assert parts.level == pytest.approx((means**2).mean(), rel=1e-10, abs=1e-15)


def test_an_offset_is_level_and_a_swapped_season_is_dynamics():
    station = np.repeat(["a", "b"], 100)
    season = np.tile(np.sin(np.arange(100) / 5), 2)
    moved = scores.level_dynamics(season + np.where(station == "a", 0.1, -0.1), season, station)
    turned = scores.level_dynamics(season - season.mean(), -(season - season.mean()), station)
    assert moved.level_share.item() == pytest.approx(1) and turned.level_share.item() == pytest.approx(0, abs=1e-12)


def test_missing_values_are_left_out():
    p, o, station = series()
    whole = scores.level_dynamics(p[5:], o[5:], station[5:])
    p[:3], o[3:5] = np.nan, np.nan
    xr.testing.assert_identical(scores.level_dynamics(p, o, station), whole)


@pytest.mark.parametrize(
    "measure", [scores.bias, scores.rmse, scores.ubrmse, scores.pearson_r], ids=lambda f: f.__name__
)
@pytest.mark.parametrize("versus", [False, True])
def test_sums_by_station_give_what_drawing_rows_gives(measure, versus):
    p, o, station = series()
    other = 0.7 * o + 0.05 if versus else None
    if other is not None:
        other = other + np.random.default_rng(3).normal(0, 0.01, o.size)
    fast = scores.bootstrap(measure, p, o, groups=station, versus=other, draws=50)

    def anybody(prediction, reference):
        return measure(prediction, reference)

    slow = scores.bootstrap(anybody, p, o, groups=station, versus=other, draws=50)
    for name in ("estimate", "lower", "upper"):
        assert fast[name].item() == pytest.approx(slow[name].item(), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("part", ["mse", "level", "dynamics"])
def test_parts_have_intervals_too(part):
    p, o, station = series()
    found = scores.bootstrap(part, p, o, groups=station)
    assert found.estimate.item() == pytest.approx(scores.level_dynamics(p, o, station)[part].item(), rel=1e-9)
    assert found.lower < found.estimate < found.upper


def test_intervals_cover_and_rows_would_not():
    """Of 95 % intervals of a mean over 25 stations some nine in ten hold; with the row as the unit few do."""
    held = {"station": 0, "row": 0}
    for seed in range(60):
        p, o, station = series(25, 60, seed)
        for unit, groups in (("station", station), ("row", np.arange(o.size))):
            found = scores.bootstrap("bias", p, o, groups=groups, draws=200, seed=seed)
            held[unit] += bool(found.lower < 0 < found.upper)
    assert held["station"] > 48 and held["row"] < 40


def test_a_paired_difference_is_surer_than_two_intervals():
    p, o, station = series()
    better = o + 0.8 * (p - o)
    one, two = (scores.bootstrap("rmse", q, o, groups=station) for q in (p, better))
    less = scores.bootstrap("rmse", p, o, groups=station, versus=better)
    assert less.lower > 0 and one.lower < two.upper


def test_blocks_of_a_map_are_a_unit_too():
    rng = np.random.default_rng(0)
    o = xr.DataArray(rng.normal(size=(3, 18, 27)), dims=("time", "y", "x"))
    block = (xr.DataArray(np.arange(18) // 9, dims="y") * 3 + xr.DataArray(np.arange(27) // 9, dims="x")).transpose(
        "y", "x"
    )
    found = scores.bootstrap(scores.rmse, o + 0.1 * rng.normal(size=o.shape), o, groups=block)
    assert found.attrs["groups"] == 6 and found.lower < found.estimate < found.upper


def test_draws_do_not_depend_on_the_order_of_rows():
    p, o, station = series()
    order = np.random.default_rng(1).permutation(o.size)
    xr.testing.assert_allclose(
        scores.bootstrap("rmse", p, o, groups=station),
        scores.bootstrap("rmse", p[order], o[order], groups=station[order]),
        rtol=1e-12,
    )


def test_one_station_gives_no_interval():
    with pytest.raises(ValueError, match="at least 2 groups, not 1"):
        scores.bootstrap("rmse", np.ones(3), np.ones(3), groups=["a", "a", "a"])
    with pytest.raises(ValueError, match="no measure is called 'nse'; there are"):
        scores.bootstrap("nse", np.ones(3), np.ones(3), groups=[1, 2, 3])
    with pytest.raises(ValueError, match="no cell in common"):
        scores.bootstrap("rmse", np.full(3, np.nan), np.ones(3), groups=[1, 2, 3])
    with pytest.raises(ValueError, match=r"groups have the shape \(2,\), the fields"):
        scores.level_dynamics(np.ones(3), np.ones(3), np.ones(2))


def test_what_results_keep_of_stations_gives_the_same_measures():
    p, o, station = series()
    code = np.unique(station, return_inverse=True)[1]
    whole = StationSums.of(p, o, code, 12)
    kept = StationSums.of_errors(whole.n, whole.error / whole.n, whole.squares / whole.n)
    counts = np.random.default_rng(0).multinomial(12, np.full(12, 1 / 12), 5)
    for name in set(FORMULAS) - {"pearson_r"}:
        np.testing.assert_allclose(FORMULAS[name](kept.drawn(counts)), FORMULAS[name](whole.drawn(counts)), rtol=1e-9)


# ---- folds


@given(st.lists(st.integers(0, 6), min_size=8, max_size=60).filter(lambda c: len(set(c)) > 2), st.integers(0, 99))
def test_folds_hold_whole_stations(station, seed):
    station = np.array(station)
    folds = station_folds(station, 3, seed=seed)
    assert sorted(np.concatenate([test for _, test in folds])) == list(range(station.size))
    for train, test in folds:
        assert test.size and not set(station[train]) & set(station[test])
        assert sorted([*train, *test]) == list(range(station.size))


def test_folds_are_a_cv_and_follow_the_names():
    p, o, station = series()
    assert len(cross_val_score(LinearRegression(), p[:, None], o, cv=station_folds(station, 4))) == 4
    order = np.random.default_rng(1).permutation(o.size)
    for (_, one), (_, two) in zip(station_folds(station, 4), station_folds(station[order], 4)):
        assert set(station[one]) == set(station[order][two])
    with pytest.raises(ValueError, match="5 folds of 3 stations: folds hold whole stations, 2 to 3"):
        station_folds(["a", "b", "c"], 5)


@pytest.mark.parametrize(
    "columns, expected",
    [
        ({"network": ["A", "B", "A"], "station": ["x", "x", "x"]}, ["A/x", "B/x", "A/x"]),
        ({"station": ["x", "y", "x"]}, ["x", "y", "x"]),
        ({"latitude": [1.5, 2.0, 1.5], "longitude": [3.0, 3.0, 3.0]}, ["1.5,3.0", "2.0,3.0", "1.5,3.0"]),
        ({"row": [1, 1, 2], "col": [5, 5, 5], "station": ["x", "y", "z"]}, ["x", "x", "z"]),
        ({"row": [1, 2, 2], "col": [5, 5, 5], "station": ["x", "x", "x"]}, ["x@1,5", "x@2,5", "x@2,5"]),
        ({"row": [1, 1, 2], "col": [5, 5, 5]}, ["1,5", "1,5", "2,5"]),
    ],
)
@pytest.mark.parametrize("shape", [pd.DataFrame, lambda c: xr.Dataset({k: ("sample", v) for k, v in c.items()})])
def test_who_a_row_belongs_to(columns, expected, shape):
    assert station_of(shape(columns)).tolist() == expected


def test_rows_without_a_station_are_refused():
    with pytest.raises(ValueError, match="do not say which station a row belongs to: give a column 'station'"):
        station_of(pd.DataFrame({"vv": [1.0]}))
    with pytest.raises(ValueError, match="1 rows have no network or station"):
        station_of(pd.DataFrame({"network": ["A", None], "station": ["x", "y"]}))


def test_streams_differ_by_every_part_of_the_key():
    keys = [(0,), (1,), (0, "a"), (0, "b"), (0, 0.5), (0, "a", 1)]
    assert len({stream(*key).integers(2**60) for key in keys}) == len(keys)
