"""Laws of the mapper: the sixteen traps of its peers, graph size, one read, and chunks that do not matter."""

import copy
import os
import signal

import dask
import dask.array as da
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import CRS
from sklearn.ensemble import RandomForestRegressor
from sklearn.linear_model import Ridge
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVR
from xgboost import XGBRegressor

from smgrid import PAPER, Grid, Model, predict_map, train
from smgrid.layers import LAYERS

GRID = Grid(1, 11468, 31405, 13, 17)
TIMES = np.array(["2015-05-05", "2015-05-17", "2015-09-15"], "M8[ns]")
FEATURES = ["vv", "vh", "incidence_angle", "day_of_year", "sand", "latitude", "longitude", "air_temperature", "smap"]
STORED = [n for n in FEATURES if n not in ("day_of_year", "latitude", "longitude")]
STATIC = ["sand"]
RANGES = {
    "vv": (-18, -6),
    "vh": (-26, -14),
    "incidence_angle": (30, 45),
    "sand": (20, 70),
    "air_temperature": (5, 30),
    "smap": (0.05, 0.4),
}


def make_samples(n=300, seed=0):
    rng = np.random.default_rng(seed)
    table = pd.DataFrame({name: rng.uniform(*RANGES[name], n) for name in STORED})
    table["time"] = pd.Timestamp("2016-01-01") + pd.to_timedelta(rng.integers(0, 1500, n), unit="D")
    table["latitude"], table["longitude"] = rng.uniform(-35.5, -34.5, n), rng.uniform(145.5, 146.5, n)
    table["station"] = rng.integers(0, 12, n).astype(str)
    table["soil_moisture"] = (
        0.6 * table.smap + 0.004 * (table.vv + 18) + 0.001 * (70 - table.sand) + rng.normal(0, 0.01, n)
    )
    return table


def make_cube(seed=1, grid=GRID, times=TIMES):
    rng = np.random.default_rng(seed)
    cube = xr.Dataset(coords=grid.coords()).assign_coords(time=times)
    for name in STORED:
        dims = ("y", "x") if name in STATIC else ("time", "y", "x")
        low, high = RANGES[name]
        values = rng.uniform(low, high, [cube.sizes[d] for d in dims]).astype("f4")
        values[rng.random(values.shape) < 0.05] = np.nan
        cube[name] = (dims, values, {"units": PAPER[name].units})
    return cube


SAMPLES = make_samples()
CUBE = make_cube()
MIDDLE = {name: np.float32(sum(pair) / 2) for name, pair in RANGES.items()}
RF = train(SAMPLES, RandomForestRegressor(8, random_state=0), features=FEATURES)


def by_hand(cube, model, layer_of=None):
    """The map as a plain loop would make it: a table of cells, one predict."""
    full = xr.broadcast(cube[STORED])[0].transpose("time", "y", "x")
    lon, lat = Grid.of(cube).lonlat()
    table = {name: full[name].values.ravel() for name in STORED}
    shape = full["vv"].shape
    table["latitude"] = np.broadcast_to(lat[:, None], shape).ravel()
    table["longitude"] = np.broadcast_to(lon, shape).ravel()
    table["time"] = np.broadcast_to(cube.time.values[:, None, None], shape).ravel()
    return model.predict(pd.DataFrame(table)).reshape(shape)


def test_the_map_is_the_table_cell_by_cell():
    maps = predict_map(CUBE, RF, layers=LAYERS)
    np.testing.assert_array_equal(maps.soil_moisture, by_hand(CUBE, RF))
    assert maps.soil_moisture.dtype == "f4" and maps.status.dtype == maps.culprit.dtype == "u1"
    empty = np.isnan(maps.soil_moisture)
    assert 0.1 < empty.mean() < 0.5
    assert ((maps.status == 2) == empty).all()
    assert ((maps.culprit > 0) | (maps.status == 0)).all()
    first = xr.broadcast(CUBE[STORED])[0]["vv"].isnull().transpose(*maps.culprit.dims)
    assert ((maps.culprit == 1) >= (first & empty)).all()


@settings(max_examples=25)
@given(
    t=st.integers(1, 3),
    y=st.integers(1, 13),
    x=st.integers(1, 17),
    sy=st.integers(1, 13),
    kind=st.sampled_from(["rf", "xgb", "svr", "mlp", "pipe"]),
)
def test_chunks_do_not_matter(t, y, x, sy, kind):
    model = MODELS(kind)
    lazy = CUBE.chunk(time=t, y=y, x=x)
    lazy["sand"] = CUBE.sand.chunk(y=sy)
    xr.testing.assert_identical(
        predict_map(lazy, model, layers=LAYERS).compute(), predict_map(CUBE, model, layers=LAYERS)
    )


_made = {}


def MODELS(kind):
    if kind not in _made:
        regressor = {
            "rf": RandomForestRegressor(8, random_state=0),
            "xgb": XGBRegressor(n_estimators=20, max_depth=3),
            "svr": SVR(C=1, epsilon=0.02),
            "mlp": MLPRegressor(hidden_layer_sizes=(16, 16), max_iter=300, random_state=0),
            "pipe": make_pipeline(StandardScaler(), Ridge()),
        }[kind]
        with np.errstate(all="ignore"):
            _made[kind] = train(SAMPLES, regressor, features=FEATURES)
    return _made[kind]


def test_lazy_stays_lazy_and_on_its_chunks(no_compute):
    lazy = CUBE.chunk(time=1, y=5, x=6)
    lazy["air_temperature"] = lazy.air_temperature.astype("f4") + np.float32(273.15)
    lazy.air_temperature.attrs["units"] = "K"
    maps = predict_map(lazy, RF, layers=LAYERS)
    assert maps.soil_moisture.chunks == ((1, 1, 1), (5, 5, 3), (6, 6, 5))
    repr(maps), maps._repr_html_()


# ---- the traps (peers.md, section 5); each is the right map or an error that says what to do


def same(cube, model=RF, **kwargs):
    xr.testing.assert_identical(predict_map(cube, model, **kwargs).compute(), predict_map(CUBE, RF))


def test_trap_permuted_variables():
    same(CUBE[STORED[::-1]])


def test_trap_extra_variables():
    same(CUBE.assign(noise=CUBE.vv * 0, label="text"))


def test_trap_spatial_ref_as_a_variable():
    same(CUBE.reset_coords("spatial_ref"))


def test_trap_swapped_dims():
    same(CUBE.transpose("x", "time", "y"))
    mixed = CUBE.chunk(y=4).assign(vv=CUBE.vv.transpose("x", "y", "time").chunk(x=3), sand=CUBE.sand.T)
    same(mixed)


def test_trap_kelvin_linear_power_and_percent():
    odd = CUBE.copy()
    odd["air_temperature"] = (CUBE.air_temperature.astype("f8") + 273.15).assign_attrs(units="K")
    odd["smap"] = (CUBE.smap.astype("f8") * 100).assign_attrs(units="percent")
    odd["vv"] = (10 ** (CUBE.vv.astype("f8") / 10)).assign_attrs(units="1")
    assert (
        float(abs(predict_map(odd, MODELS("svr")).soil_moisture - predict_map(CUBE, MODELS("svr")).soil_moisture).max())
        < 1e-6
    )


def test_trap_half_cell_shift():
    with pytest.raises(ValueError, match=r"half a cell.*cube = cube.assign_coords\(x=cube.x - 500.44"):
        predict_map(CUBE.assign_coords(x=CUBE.x + 500.4475), RF)


def test_trap_static_and_time_together_broadcast_in_the_block():
    one = predict_map(CUBE.isel(time=1), RF)
    assert one.soil_moisture.dims == ("y", "x")
    np.testing.assert_array_equal(one.soil_moisture, predict_map(CUBE, RF).soil_moisture[1])


def test_trap_misaligned_chunks_do_not_explode():
    grid = Grid(1, 11000, 31000, 1000, 1000)
    names = [f"p{k}" for k in range(10)]
    cube = xr.Dataset(coords=grid.coords())
    for k, name in enumerate(names):
        cube[name] = (("y", "x"), da.zeros(grid.shape, dtype="f4", chunks=250 if k else (200, 300)))
    table = pd.DataFrame({name: np.linspace(0, 1, 9) for name in [*names, "soil_moisture"]})
    maps = predict_map(cube, train(table, Ridge(), features=names))
    assert maps.soil_moisture.chunks == ((250,) * 4, (250,) * 4)
    assert len(dict(dask.optimize(maps)[0].__dask_graph__())) < 16 * (1 + 2) + 20 + 16 * 12


def test_trap_an_all_missing_block():
    holed = CUBE.copy(deep=True)
    holed["vv"][:, :5, :6] = np.nan
    maps = predict_map(holed.chunk(y=5, x=6), RF)
    assert np.isnan(maps.soil_moisture[:, :5, :6]).all() and (maps.status[:, :5, :6] == 2).all()
    np.testing.assert_array_equal(maps.soil_moisture[:, 5:], predict_map(CUBE, RF).soil_moisture[:, 5:])


def test_trap_infinity_and_fills_are_empty_and_said():
    odd = CUBE.copy(deep=True).fillna(MIDDLE)
    odd["vv"][0, 0, 0], odd["smap"][0, 0, 1], odd["sand"][3, 3] = np.inf, -9999.0, 65534.0
    maps = predict_map(odd, RF, layers=LAYERS)
    for at, number in (((0, 0, 0), 1), ((0, 0, 1), 9), ((0, 3, 3), 5), ((2, 3, 3), 5)):
        assert (
            np.isnan(maps.soil_moisture.values[at])
            and maps.status.values[at] == 3
            and maps.culprit.values[at] == number
        )
    assert maps.culprit.attrs["flag_meanings"].split()[9] == "smap"


def test_trap_a_map_without_a_date():
    undated = CUBE.assign_coords(time=np.where(np.arange(CUBE.sizes["time"]) == 1, np.datetime64("NaT"), TIMES))
    maps = predict_map(undated, RF, layers=LAYERS)
    assert maps.soil_moisture[1].isnull().all() and (maps.status[1] >= 2).all()
    assert FEATURES.index("day_of_year") + 1 in maps.culprit[1]
    np.testing.assert_array_equal(maps.soil_moisture[0], predict_map(CUBE, RF).soil_moisture[0])


def test_trap_undecoded_integers():
    packed = CUBE.assign(sand=(("y", "x"), np.full(GRID.shape, 350, "i2"), {"units": "%", "_FillValue": -32768}))
    with pytest.raises(ValueError, match=r"'sand' \(int16\) still carries .*_FillValue.*mask_and_scale=True"):
        predict_map(packed, RF)


def test_trap_a_fitted_model_from_outside_gets_physical_values():
    names = ["vv", "smap", "sand"]
    forest = RandomForestRegressor(10, random_state=1, n_jobs=-1).fit(SAMPLES[names], SAMPLES.soil_moisture)
    maps = predict_map(CUBE, forest)
    flat = xr.broadcast(CUBE[names])[0].transpose("time", "y", "x")
    rows = pd.DataFrame({n: flat[n].values.ravel() for n in names}).dropna()
    np.testing.assert_array_equal(maps.soil_moisture.values.ravel()[rows.index], forest.predict(rows).astype("f4"))
    assert forest.n_jobs == -1


def test_trap_xgboost_with_default_arguments_and_boosters():
    names = ["vv", "smap", "sand"]
    fitted = XGBRegressor(n_estimators=15).fit(SAMPLES[names], SAMPLES.soil_moisture)
    before = fitted.get_booster().save_config()
    maps = predict_map(CUBE.chunk(y=4), fitted)
    assert maps.soil_moisture.dtype == "f4" == maps.compute().soil_moisture.dtype
    np.testing.assert_array_equal(predict_map(CUBE, fitted.get_booster()).soil_moisture, maps.soil_moisture)
    assert fitted.get_booster().save_config() == before


def test_trap_lazy_map_writes_to_zarr_and_netcdf(tmp_path):
    maps = predict_map(CUBE.chunk(time=1, y=5, x=6), RF)
    maps.to_zarr(tmp_path / "a.zarr", consolidated=False)
    maps.to_netcdf(tmp_path / "a.nc")
    for back in (
        xr.open_zarr(tmp_path / "a.zarr", consolidated=False, decode_coords="all"),
        xr.open_dataset(tmp_path / "a.nc", decode_coords="all"),
    ):
        xr.testing.assert_equal(back.load(), maps.compute())
        assert Grid.of(back) == GRID
        assert back.soil_moisture.attrs["units"] == "m3 m-3"
        assert back.status.attrs["flag_meanings"].startswith("predicted ")
        back.close()


# ---- errors


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda c: c.drop_vars("sand"), r"lacks the predictors \['sand'\]"),
        (
            lambda c: c.rename(vv="VV", air_temperature="t2m"),
            r"cube = cube.rename\(VV='vv'\)\ncube = cube.rename\(t2m='air_temperature'\)",
        ),
        (
            lambda c: c.assign(vv=c.vv.assign_attrs(units="furlong")),
            r"'vv' is in 'furlong'.*cube\['vv'\].attrs\['units'\] = 'dB'",
        ),
        (lambda c: c.assign(vv=c.vv.drop_attrs()), r"'vv' carries no units"),
        (lambda c: c.assign_coords(x=14061000 + 1000.0 * np.arange(17)), "cells of 1000 m"),
        (lambda c: c.isel(y=slice(None, None, -1)), "cube = cube.sortby"),
        (lambda c: c.drop_vars("spatial_ref"), r"cube = cube.rio.write_crs\('EPSG:6933'\)"),
        (lambda c: c.assign_coords(spatial_ref=((), 0, CRS(32755).to_cf())), r"the CRS is wrong"),
        (lambda c: c.assign_coords(spatial_ref=((), 0, CRS(4326).to_cf())), r"in degrees, but the axes reach"),
        (lambda c: c.rename(x="lon", y="lat"), r"without 'y' and 'x'.*smgrid.to_grid"),
        (lambda c: c.isel(x=slice(0)), "the 'x' axis is empty"),
        (lambda c: c.drop_vars("time"), "no time"),
        (lambda c: c.assign_coords(time=[1, 2, 3]), "not dates"),
        (lambda c: c.assign_coords(time=pd.DatetimeIndex(TIMES, tz="Etc/GMT-9")), r"time zone.*tz_convert\(None\)"),
        (lambda c: c.assign(vv=c.vv.astype(str)), "not numbers"),
        (lambda c: c.drop_vars(["x", "y"]), "no coordinates"),
        (lambda c: c.vv, "only with a dimension 'band'"),
        (lambda c: c[STORED].drop_vars("sand").to_dataarray("band").drop_vars("band"), "the bands have no names"),
        (
            lambda c: xr.concat([c.vv.drop_attrs()] * 2, "band").assign_coords(band=["vv", "vv"]),
            r"\['vv'\] come more than once",
        ),
    ],
)
def test_errors_say_what_to_do(spoil, message):
    with pytest.raises(ValueError, match=f"(?s){message}"):
        predict_map(spoil(CUBE), RF)


def test_all_faults_come_in_one_error():
    bad = CUBE.drop_vars("sand").rename(vh="VH").assign_coords(x=CUBE.x + 500.4475)
    bad["vv"] = bad.vv.drop_attrs()
    with pytest.raises(ValueError) as caught:
        predict_map(bad, RF)
    text = str(caught.value)
    for part in ("['vh', 'sand']", "cube.rename(VH='vh')", "half a cell", "'vv' carries no units"):
        assert part in text


def test_units_at_the_callers_word():
    bare = CUBE.drop_attrs().assign_coords(GRID.coords())
    np.testing.assert_array_equal(
        predict_map(bare, RF, units="canonical").soil_moisture, predict_map(CUBE, RF).soil_moisture
    )
    with pytest.raises(ValueError, match="'vh' carries no units"):
        predict_map(bare, RF, units={"vv": "dB"})
    with pytest.raises(ValueError, match=r"units name \['VV'\], which are not there; there are .*'vv'"):
        predict_map(CUBE, RF, units={"VV": "1"})


def test_unfitted_models_and_arrays_without_names_are_refused():
    with pytest.raises(ValueError, match="RandomForestRegressor is not fitted"):
        predict_map(CUBE, RandomForestRegressor())
    with pytest.raises(ValueError, match=r"from_estimator\(estimator, features="):
        predict_map(CUBE, Ridge().fit(np.eye(3), [1, 2, 3]))
    with pytest.raises(TypeError, match=r"a model is no path: smgrid.load_model\('rf.pkl'\)"):
        predict_map(CUBE, "rf.pkl")
    with pytest.raises(TypeError, match=r"has predict\(rows\)"):
        predict_map(CUBE, 7)
    with pytest.raises(TypeError, match="a cube is an xarray Dataset"):
        predict_map(CUBE.vv.values, RF)


@pytest.mark.parametrize(
    "layers, message", [(["mean"], "no layer 'mean'; there are .*'dissimilarity'"), ([], "no layers")]
)
def test_layers_that_cannot_be_given(layers, message):
    with pytest.raises(ValueError, match=message):
        predict_map(CUBE, RF, layers=layers)


# ---- where, bands, further dims, other grids


@pytest.mark.parametrize("lazy", [False, True])
def test_where(lazy):
    land = xr.DataArray(
        np.random.default_rng(3).random(GRID.shape) < 0.5, dims=("y", "x"), coords={"y": CUBE.y, "x": CUBE.x}
    )
    cube = CUBE.chunk(y=5, x=6) if lazy else CUBE
    maps, plain = predict_map(cube, RF, where=land).compute(), predict_map(CUBE, RF)
    xr.testing.assert_equal(maps.soil_moisture, plain.soil_moisture.where(land.drop_vars(["y", "x"])))
    assert ((maps.status == 4) == ~land).all()
    with pytest.raises(TypeError, match="DataArray of bool, not float32: where = mask == 1"):
        predict_map(CUBE, RF, where=land.astype("f4"))
    with pytest.raises(ValueError, match="does not lie on the cube's 'y'"):
        predict_map(CUBE, RF, where=land.isel(y=slice(2, None)))
    with pytest.raises(ValueError, match="where has the dims"):
        predict_map(CUBE, RF, where=land.rename(y="lat"))


def test_more_predictors_and_more_dims_than_the_compiled_half_can_count():
    names = [f"p{i}" for i in range(257)]
    forest = RandomForestRegressor(1, random_state=0).fit(np.eye(257), np.arange(257) / 257)
    cube = xr.Dataset({n: (("y", "x"), np.zeros(GRID.shape, "f4")) for n in names}, coords=GRID.coords())
    cube["p256"][0, 0] = np.nan
    model = Model.from_estimator(forest, features=names)
    assert predict_map(cube, model).status.values[0].tolist() == [2] + [0] * (GRID.shape[1] - 1)
    with pytest.raises(ValueError, match="255 predictors at most; this model has 257: leave 'culprit' out"):
        predict_map(cube, model, layers=["culprit"])
    many = predict_map(CUBE.expand_dims({f"d{i}": 1 for i in range(15)}), RF).soil_moisture
    np.testing.assert_array_equal(many.squeeze().transpose("time", "y", "x"), predict_map(CUBE, RF).soil_moisture)


def test_what_float32_cannot_hold_is_invalid():
    forest = RandomForestRegressor(1, random_state=0).fit(np.eye(2), [0.1, 0.2])
    cube = xr.Dataset({n: (("y", "x"), np.zeros(GRID.shape)) for n in "ab"}, coords=GRID.coords())
    cube["a"][0, :3] = [1e39, -1e300, 3.4e38]  # from float64 files; scikit-learn refuses the first two
    model = Model.from_estimator(forest, features=["a", "b"])
    assert predict_map(cube, model).status.values[0, :4].tolist() == [3, 3, 0, 0]
    assert np.isnan(model.predict(pd.DataFrame({"a": [1e39, 0.0], "b": 0.0}))).tolist() == [True, False]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_process_predicts_though_threads_of_its_parent_did():
    from smgrid import models, regressors

    expected = predict_map(CUBE, RF).soil_moisture
    with models._ONE_AT_A_TIME, regressors._POOLS.lock:  # as a thread would hold them that does not live on
        child = os.fork()
        if not child:
            try:
                signal.alarm(20)
                os._exit(0 if predict_map(CUBE, copy.copy(RF)).soil_moisture.equals(expected) else 1)
            finally:  # never on with the tests
                os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_named_bands_are_a_cube():
    stack = xr.concat(list(xr.broadcast(*(CUBE[n].drop_attrs(deep=False) for n in STORED))), "band").assign_coords(
        band=STORED, units=("band", [PAPER[n].units for n in STORED])
    )
    same(stack)
    assert predict_map(stack.chunk(band=-1, y=4), RF).soil_moisture.chunks is not None


def test_further_dims_pass_through():
    members = xr.concat([CUBE.vv, CUBE.vv + 1], "member").assign_coords(member=["a", "b"])
    maps = predict_map(CUBE.assign(vv=members.assign_attrs(units="dB")).chunk(y=6), RF)
    assert maps.soil_moisture.dims == ("member", "time", "y", "x")
    np.testing.assert_array_equal(maps.soil_moisture.sel(member="a"), predict_map(CUBE, RF).soil_moisture)


def test_another_grid_is_mapped_where_it_lies():
    utm = CRS(32755)
    x, y = 400000 + 1000.0 * np.arange(17), 6150000 - 1000.0 * np.arange(13)
    moved = CUBE.assign_coords(x=x, y=y, spatial_ref=((), 0, utm.to_cf()))
    maps = predict_map(moved, RF)
    assert maps.x.values.tolist() == x.tolist() and "UTM" in maps.spatial_ref.attrs["crs_wkt"]
    np.testing.assert_array_equal(predict_map(moved.chunk(y=5, x=4), RF).soil_moisture, maps.soil_moisture)
    degrees = CUBE.assign_coords(
        x=145.0 + 0.01 * np.arange(17), y=-34.0 - 0.01 * np.arange(13), spatial_ref=((), 0, CRS(4326).to_cf())
    )
    assert np.isfinite(predict_map(degrees.chunk(x=4), RF).soil_moisture).any()


def test_made_alike_or_refused():
    samples = xr.Dataset.from_dataframe(SAMPLES).rename(index="sample")
    for name in STORED:
        samples[name].attrs["units"] = PAPER[name].units
    samples.soil_moisture.attrs["units"] = "m3 m-3"
    samples.vv.attrs["averaging"], samples.smap.attrs["spreading"] = "dB", "blocks"
    model = train(samples, RandomForestRegressor(5, random_state=0), features=FEATURES)
    assert model.making == {"vv.averaging": "dB", "smap.spreading": "blocks"}
    other = CUBE.assign(vv=CUBE.vv.assign_attrs(averaging="linear power"))
    with pytest.raises(ValueError, match="'vv' was made with averaging 'dB' in training, but with 'linear power'"):
        predict_map(other, model)


def test_outside_the_training_range_is_flagged():
    hot = CUBE.fillna(MIDDLE)
    hot["air_temperature"] = xr.full_like(hot.air_temperature, 42)
    maps = predict_map(hot, RF, layers=LAYERS)
    assert (maps.status == 1).all() and (maps.culprit > 0).all() and np.isfinite(maps.soil_moisture).all()


def test_jittered_axes_are_snapped():
    rough = CUBE.assign_coords(x=CUBE.x.astype("f4"), y=CUBE.y + 2.5e-9)
    xr.testing.assert_identical(predict_map(rough, RF), predict_map(CUBE, RF))


# ---- the graph


def test_layers_come_from_one_read():
    reads = []

    def read(block, block_info=None):
        reads.append(1)
        return block

    lazy = CUBE.chunk(time=1, y=7, x=9)
    lazy["vv"] = lazy.vv.copy(data=lazy.vv.data.map_blocks(read, dtype="f4", meta=np.empty((0, 0, 0), "f4")))
    predict_map(lazy, RF, layers=LAYERS).compute()
    assert len(reads) == 3 * 2 * 2
    reads.clear()
    lazy = CUBE.chunk(time=3, y=7, x=9)
    lazy["sand"] = lazy.sand.copy(data=lazy.sand.data.map_blocks(read, dtype="f4", meta=np.empty((0, 0), "f4")))
    predict_map(lazy, RF, layers=LAYERS).compute()
    assert len(reads) == 2 * 2, "a static field is read once per place where dates share a block"


@pytest.mark.parametrize("layers", [("soil_moisture",), ("soil_moisture", "status"), LAYERS])
def test_the_global_grid_is_a_small_graph(layers):
    cube, model = global_cube()
    graph = dict(dask.optimize(predict_map(cube, model, layers=layers))[0].__dask_graph__())
    blocks, axes = 15 * 34, 1 + (1 + 15) + (1 + 34)  # the model; latitude and longitude, each cut up once
    assert len(graph) <= blocks * (2 if len(layers) == 1 else 1 + len(layers)) + axes


def global_cube():
    grid = Grid.whole()
    cube = xr.Dataset(coords=grid.coords()).assign_coords(time=np.datetime64("2015-05-05", "ns"))
    for name, p in PAPER.items():
        if name not in ("day_of_year", "latitude", "longitude"):
            data = da.full(grid.shape, p.max, dtype="f4", chunks=1024, name=f"source-{name}")
            cube[name] = (("y", "x"), data, {"units": p.units})
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {name: rng.uniform(max(p.min, -1) if p.min == -1 else p.min, p.max, 40) for name, p in PAPER.items()}
    )
    return cube, train(table.assign(soil_moisture=np.linspace(0.1, 0.4, 40)), Ridge())


def test_the_model_is_one_key_and_travels_once():
    sent = []

    class Watched(Ridge):
        def __getstate__(self):
            sent.append(1)
            return super().__getstate__()

    names = ["vv", "smap"]
    model = Model.from_estimator(Watched().fit(SAMPLES[names], SAMPLES.soil_moisture))
    graph = dict(predict_map(CUBE.chunk(time=1, y=2, x=3), model).__dask_graph__())
    assert sum(str(key).startswith(("smgrid-model", "('smgrid-model")) for key in graph) == 1


def test_plain_xarray_finds_finished_maps(tmp_path):
    """What users do next comes out right: rio.to_raster keeps CRS and nodata, plot names and units."""
    import matplotlib
    import rasterio

    matplotlib.use("Agg")
    import rioxarray  # noqa: F401  (registers .rio)

    maps = predict_map(CUBE, RF, layers=LAYERS)
    maps.soil_moisture.isel(time=0).rio.to_raster(tmp_path / "a.tif")
    with rasterio.open(tmp_path / "a.tif") as tif:
        assert tif.crs.to_epsg() == 6933 and np.isnan(tif.nodata)
        assert tif.transform.almost_equals(GRID.transform, 1e-6)
        np.testing.assert_array_equal(tif.read(1), maps.soil_moisture[0])
    facets = maps.soil_moisture.plot(col="time")
    assert facets.cbar.ax.get_ylabel() == "soil moisture [m3 m-3]"
    matplotlib.pyplot.close("all")
    assert maps.soil_moisture.attrs["standard_name"] == "volume_fraction_of_condensed_water_in_soil"
    assert maps.soil_moisture.attrs["ancillary_variables"] == "status culprit"
    assert maps.soil_moisture.encoding["grid_mapping"] == "spatial_ref"
