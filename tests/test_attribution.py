"""Which predictor carries a seam: additive truths, any chunks, any model."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.ensemble import RandomForestRegressor
from sklearn.linear_model import LinearRegression

from smgrid import Grid, attribution, coarse, predict_map, train

GRID = Grid(1, 11467, 31404, 40, 44)
DAYS = np.array(["2015-05-05", "2015-05-17"], "M8[ns]")
FEATURES = ["smap", "sand", "vv", "air_temperature", "day_of_year", "latitude", "longitude"]


def scene(seed=0):
    """A synthetic cube of two days: SMAP as blocks, weather as 0.1-degree cells, the rest fine."""
    rng = np.random.default_rng(seed)
    cells = GRID.coarsen(9)
    smap = xr.DataArray(rng.uniform(0.1, 0.4, (2, *cells.shape)), {**cells.coords(), "time": DAYS}, ("time", "y", "x"))
    smap.attrs["units"] = "m3 m-3"
    warm = xr.DataArray(
        rng.uniform(5, 25, (10, 10)),
        {
            "latitude": np.round(np.linspace(-34.3, -35.2, 10), 1),
            "longitude": np.round(np.linspace(145.7, 146.6, 10), 1),
        },
        ("latitude", "longitude"),
    )
    lon, lat = GRID.lonlat()
    warm = warm.assign_coords(
        latitude=np.round(np.ceil(10 * lat[0]) / 10 + 0.2 - 0.1 * np.arange(10), 1),
        longitude=np.round(np.floor(10 * lon[0]) / 10 - 0.2 + 0.1 * np.arange(10), 1),
    )
    cube = coarse.blocks(smap, GRID).to_dataset(name="smap")
    cube["air_temperature"] = coarse.blocks(warm, GRID).assign_attrs(units="degC")
    cube["vv"] = (("time", "y", "x"), rng.uniform(-20, -5, (2, *GRID.shape)), {"units": "dB"})
    cube["sand"] = (("y", "x"), rng.uniform(20, 60, GRID.shape), {"units": "%"})
    return cube, warm


def table(seed=1, n=200):
    rng = np.random.default_rng(seed)
    rows = pd.DataFrame(
        {
            "smap": rng.uniform(0.1, 0.4, n),
            "sand": rng.uniform(20, 60, n),
            "vv": rng.uniform(-20, -5, n),
            "air_temperature": rng.uniform(5, 25, n),
            "latitude": rng.uniform(-35.2, -34, n),
            "longitude": rng.uniform(145, 147, n),
            "time": np.datetime64("2015-01-01") + rng.integers(0, 300, n).astype("m8[D]"),
        }
    )
    rows["soil_moisture"] = 0.1 + 0.5 * rows.smap + 0.001 * rows.vv - 0.002 * rows.air_temperature
    return rows


CUBE, WARM = scene()
LINEAR = train(table(), LinearRegression(), features=FEATURES)


def test_shares_of_an_additive_model():
    found = attribution.seams(CUBE, LINEAR)
    assert found.share.dims == ("time", "predictor") and found.predictor.values.tolist() == FEATURES
    share = found.share.sel(time=DAYS[0])
    assert share.sel(predictor="smap").item() == pytest.approx(1, abs=0.15)
    assert abs(share.drop_sel(predictor="smap")).max() < 0.15
    np.testing.assert_allclose(found.rest, 0, atol=1e-4)  # the model rounds to float32
    assert found.step.sel(predictor="day_of_year").max() == 0
    assert (found.step_aside.sel(predictor="smap") == 0).all() and (found.standard_error < 0.2).all()


def test_steps_are_those_of_the_map():
    found = attribution.seams(CUBE, LINEAR)
    z = predict_map(CUBE, LINEAR).soil_moisture.values.astype("f8")
    cols, rows = (
        np.flatnonzero((first + np.arange(1, n)) % 9 == 0) + 1 for first, n in ((GRID.col, 44), (GRID.row, 40))
    )
    steps = [(z[..., cols] - z[..., cols - 1]).reshape(2, -1), (z[:, rows] - z[:, rows - 1]).reshape(2, -1)]
    rms = np.sqrt((np.concatenate(steps, 1) ** 2).mean(1))
    np.testing.assert_allclose(found.total_step, rms, rtol=1e-10)
    smap = CUBE.smap.values
    moves = [(smap[..., cols] - smap[..., cols - 1]).reshape(2, -1), (smap[:, rows] - smap[:, rows - 1]).reshape(2, -1)]
    effect = 0.5 * np.sqrt((np.concatenate(moves, 1) ** 2).mean(1))
    np.testing.assert_allclose(found.step.sel(predictor="smap"), effect, rtol=1e-3)
    assert (found.n == 40 * cols.size + 44 * rows.size).all() and (found.strips == cols.size + rows.size).all()


@pytest.mark.parametrize("how", ["blocks", "mean"])
def test_borders_of_another_source_name_another_predictor(how):
    found = attribution.seams(CUBE, LINEAR, coarse=WARM, how=how)
    best = found.share.isel(time=0).to_series().idxmax()
    assert best == "air_temperature" and found.share.sel(predictor="air_temperature").min() > 0.7


@settings(max_examples=4)
@given(t=st.integers(1, 2), y=st.integers(6, 40), x=st.integers(6, 44))
def test_chunks_do_not_matter(t, y, x):
    lazy = CUBE.chunk(time=t, y=y, x=x)
    whole, parts = (attribution.seams(cube, LINEAR, coarse=WARM, how="mean") for cube in (CUBE, lazy))
    xr.testing.assert_allclose(parts, whole, rtol=1e-9, atol=1e-12)


def test_the_thinnest_blocks():
    small = CUBE.isel(time=0, y=slice(0, 18), x=slice(0, 20))
    parts = attribution.seams(small.chunk(y=(1, 8, 1, 8), x=(9, 1, 1, 9)), LINEAR)
    xr.testing.assert_allclose(parts, attribution.seams(small, LINEAR), rtol=1e-9, atol=1e-12)


def test_a_forest_that_leans_on_smap():
    rows = table(n=800)
    forest = train(rows, RandomForestRegressor(20, min_samples_leaf=5, random_state=0), features=FEATURES)
    found = attribution.seams(CUBE.isel(time=0), forest)
    assert found.share.dims == ("predictor",) and found.share.to_series().idxmax() == "smap"
    assert abs(found.rest) < 0.3


def test_where_there_is_no_excess_there_is_no_share():
    flat = CUBE.assign(smap=CUBE.smap * 0 + 0.2)
    still = train(
        table().assign(soil_moisture=lambda t: 0.3 + 0.001 * t.sand), LinearRegression(), features=["smap", "sand"]
    )
    found = attribution.seams(flat.assign(sand=flat.sand * 0 + 30), still)
    assert found.share.isnull().all() and (found.total_step == 0).all()


def test_missing_cells_are_left_out():
    holes = CUBE.assign(vv=CUBE.vv.where(np.random.default_rng(0).random(CUBE.vv.shape) > 0.2))
    found = attribution.seams(holes, LINEAR)
    assert (found.n < attribution.seams(CUBE, LINEAR).n * 0.7).all()
    assert found.share.sel(predictor="smap").values == pytest.approx([1, 1], abs=0.2)


def test_what_cannot_be_judged_says_why():
    with pytest.raises(ValueError, match=r"lacks the predictors \['sand'\]"):
        attribution.seams(CUBE.drop_vars("sand"), LINEAR)
    with pytest.raises(ValueError, match="no border of 9-km cells lies within"):
        attribution.seams(CUBE.isel(x=slice(7, 9), y=slice(9, 11)), LINEAR)
