"""Splits: the paper's sizes, nested training sets, and nothing of the test set in training."""

import logging

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import cross_val_score

from smgrid import splits


def samples(stations=70, seed=0, years=(2019, 2020, 2021)):
    rng = np.random.default_rng(seed)
    days = pd.date_range(f"{years[0]}-01-01", f"{years[-1]}-12-31", freq="10D")
    rows = [(f"s{k:02d}", day) for k in range(stations) for day in days[rng.random(days.size) < 0.8]]
    table = pd.DataFrame(rows, columns=["station", "time"]).assign(network="synthetic")
    return table.assign(vv=rng.normal(size=len(table)), soil_moisture=rng.random(len(table)))


TABLE = samples()
MAKERS = {
    "dependent": lambda table, **k: splits.dependent(table, **k),
    "temporal": lambda table, **k: splits.temporal(table, **k),
    "spatial": lambda table, **k: splits.spatial(table, **k),
    "regional": lambda table, **k: splits.regional(
        table.assign(network=np.where(table.station < "s05", "SMAPEX", "OzNet")), "SMAPEX", sizes=[5, 20], **k
    ),
}
each = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)


@pytest.mark.parametrize(
    "name, sizes",
    [
        ("dependent", [0.5, 1, 1.5, 2, 2.5, 3, 3.5, 4, 4.5, 5]),
        ("temporal", range(1, 22, 2)),
        ("spatial", range(1, 58, 8)),
    ],
)
def test_the_sizes_are_the_paper_s(name, sizes):
    assert [size for size, *_ in splits.MAKERS[name](TABLE)] == list(sizes)


@each
def test_training_sets_are_nested_and_apart_from_the_test_set(make):
    before = None
    for _, train, test in make(TABLE):
        assert train.size and test.size and not set(train) & set(test)
        assert len(set(train)) == train.size and list(train) == sorted(train)
        assert before is None or (before < set(train))
        before = set(train)


@each
def test_a_repeat_is_the_same_whatever_else_is_drawn(make):
    alone = make(TABLE, seed=3)
    many = list(make(TABLE, seed=3, repeats=2))
    for (size, train, test), (again, train2, test2) in zip(alone, many):
        assert size == again
        np.testing.assert_array_equal(train, train2)
        np.testing.assert_array_equal(test, test2)
    assert not np.array_equal(many[0][1], many[len(alone)][1]), "repeats differ"
    assert not np.array_equal(many[0][1], next(iter(make(TABLE, seed=4)))[1]), "seeds differ"


@each
def test_splits_are_a_cv(make):
    made = make(TABLE, repeats=2)
    found = cross_val_score(LinearRegression(), TABLE[["vv"]].to_numpy(), TABLE.soil_moisture, cv=made)
    assert found.size == len(made) == made.get_n_splits() == len(list(made))


@each
def test_tables_and_datasets_split_alike(make):
    table = xr.Dataset.from_dataframe(TABLE.rename_axis("sample"))
    if make is MAKERS["regional"]:
        table["network"] = ("sample", np.where(TABLE.station < "s05", "SMAPEX", "OzNet"))
        one, two = make(TABLE), splits.regional(table, "SMAPEX", sizes=[5, 20])
    else:
        one, two = make(TABLE), make(table)
    for (_, train, test), (_, train2, test2) in zip(one, two, strict=True):
        np.testing.assert_array_equal(train, train2)
        np.testing.assert_array_equal(test, test2)


def test_dependent_takes_shares():
    n = len(TABLE)
    for size, train, test in splits.dependent(TABLE):
        assert train.size == round(n * size / 100) and train.size + test.size == n


def test_temporal_takes_so_many_of_each_cell_from_one_year():
    year = TABLE.time.dt.year
    enough = TABLE[year == 2021].groupby("station").size()
    enough = enough[enough > 21].index
    for size, train, test in splits.temporal(TABLE):
        assert set(year[train]) == {2021} and set(year[test]) == {2019, 2020}
        assert (TABLE.iloc[train].groupby("station").size() == size).all()
        assert set(TABLE.station[train]) == set(TABLE.station[test]) == set(enough)


def test_temporal_takes_the_year_asked_for_and_cells_with_enough():
    (_, train, test), *_ = splits.temporal(TABLE, year=2019, least=25, sizes=[5])
    assert set(TABLE.time.dt.year[train]) == {2019} and set(TABLE.time.dt.year[test]) == {2020, 2021}
    assert (TABLE[TABLE.time.dt.year == 2019].groupby("station").size()[TABLE.station[train].unique()] > 25).all()


@given(st.integers(0, 500), st.integers(1, 69))
def test_spatial_takes_whole_cells(seed, size):
    ((_, train, test),) = splits.spatial(TABLE, sizes=[size], seed=seed)
    assert TABLE.station[train].nunique() == size and train.size + test.size == len(TABLE)
    assert not set(TABLE.station[train]) & set(TABLE.station[test])


def test_regional_takes_rows_or_networks():
    held = (TABLE.station < "s05").to_numpy()
    ((size, train, test),) = splits.regional(TABLE, held)
    assert size == 65 and not held[train].any() and np.array_equal(test, np.flatnonzero(held))


def test_cells_that_hold_two_stations_stay_whole():
    table = TABLE.assign(row=TABLE.station.str[1:].astype(int) // 2, col=0)
    for size, train, test in splits.spatial(table):
        assert table.row[train].nunique() == size and not set(table.row[train]) & set(table.row[test])


def test_on_some_rows_the_sizes_that_are_left(caplog):
    rows = (TABLE.station < "s12").to_numpy()
    with caplog.at_level(logging.WARNING, "smgrid"):
        part = splits.spatial(TABLE, seed=1).on(rows)
    assert part.sizes == (1, 9) and "the table gives at most 11 cells, sizes [17.0, 25.0" in caplog.text
    assert splits.dependent(TABLE).on(rows).station.size == rows.sum()
    assert splits.temporal(TABLE).on(rows).years.size == rows.sum()
    assert splits.regional(TABLE, (TABLE.station < "s05").to_numpy(), sizes=[5]).on(rows).held.size == rows.sum()


@pytest.mark.parametrize(
    "call, message",
    [
        (
            lambda: splits.spatial(TABLE, sizes=[1, 70]),
            r"sizes of the spatial scenario count cells; .* at most 69, not \[70",
        ),
        (lambda: splits.dependent(TABLE, sizes=[0]), r"more than 0 and at most 99, not \[0"),
        (
            lambda: splits.temporal(TABLE, year=2018),
            "no cell has more than 21 samples in 2018 .*by year: {2019: .*year=",
        ),
        (lambda: splits.temporal(TABLE.drop(columns="time")), "needs 'time'; the samples have"),
        (lambda: splits.regional(TABLE, "HDAS"), r"no network \['HDAS'\]; they have \['synthetic'\]"),
        (lambda: splits.regional(TABLE, "synthetic"), "some rows must be stations that train"),
        (lambda: splits.regional(TABLE, np.ones(3, bool)), "campaigns mark 3 of 3 rows"),
    ],
)
def test_what_the_table_cannot_give(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_default_sizes_shrink_to_a_small_table(caplog):
    small = samples(stations=20)
    assert [size for size, *_ in splits.spatial(small)] == [1, 9, 17]
    assert "25" in caplog.text
