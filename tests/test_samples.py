"""Stations meet a cube: what is drawn is what stands in the cell, and predicts what the map shows there."""

import dask.array as da
import numpy as np
import pandas as pd
import pytest
import xarray as xr

import smgrid
from smgrid.samples import draw_samples


@pytest.fixture(scope="module")
def scene():
    return smgrid.synthetic.yanco()


def test_the_map_at_stations_is_the_model_at_samples(scene):
    model = smgrid.train(scene.samples, smgrid.make_regressor("rf"))
    maps = smgrid.predict_map(scene.cube, model)
    from_maps, from_cube = draw_samples(maps, scene.stations), draw_samples(scene.cube, scene.stations)
    np.testing.assert_array_equal(from_maps.prediction, model.predict(from_cube))
    assert (from_maps.station.values == from_cube.station.values).all()
    assert from_maps.soil_moisture.attrs["units"] == "m3 m-3" and 60 < from_maps.sizes["sample"] < 160


def test_drawn_is_what_stands_in_the_cell(scene):
    drawn = draw_samples(scene.cube.chunk(time=1, y=20), scene.stations)
    for k in range(0, drawn.sizes["sample"], 7):
        one = drawn.isel(sample=k)
        at = dict(y=int(one.row) - smgrid.YANCO.row, x=int(one.col) - smgrid.YANCO.col)
        there = scene.cube.sel(time=one.time.values).isel(at)
        for name in ("vv", "smap", "sand"):
            assert float(one[name]) == float(there[name])
    assert not drawn.vv.isnull().any(), "Sentinel-1 saw every sample"
    assert drawn.vv.attrs["units"] == "dB"


def test_chunks_and_order_do_not_matter(scene):
    table = scene.stations.sample(frac=1, random_state=0)
    a = draw_samples(scene.cube, table).to_dataframe().sort_values(["station", "time"]).reset_index(drop=True)
    b = draw_samples(scene.cube.chunk(x=7), scene.stations).to_dataframe().sort_values(["station", "time"])
    pd.testing.assert_frame_equal(a, b.reset_index(drop=True))


def test_a_map_of_one_day_meets_that_day_alone(scene):
    day = scene.cube.time.values[1]
    of_the_day = scene.stations[scene.stations.time.dt.floor("D") == day]
    assert 0 < len(of_the_day) < len(scene.stations)
    one = draw_samples(scene.cube.sel(time=day), scene.stations)
    xr.testing.assert_identical(one, draw_samples(scene.cube, of_the_day))


def test_samples_train(scene):
    table = scene.stations.assign(
        time=np.tile(scene.cube.time.values, len(scene.stations) // 4 + 1)[: len(scene.stations)]
    )
    samples = draw_samples(scene.cube, table)
    assert smgrid.train(samples, smgrid.make_regressor("rf")).training["rows"] == samples.sizes["sample"]


def test_places_without_time_give_whole_series(scene):
    places = scene.stations.drop_duplicates("station")[["station", "latitude", "longitude"]]
    series = draw_samples(scene.cube, places)
    assert series.vv.dims == ("time", "sample") and series.sizes["sample"] == 39
    assert series.sand.dims == ("sample",)


def test_a_thousand_points_a_year(tmp_path):
    grid = smgrid.Grid(1, 11000, 31000, 400, 400)
    data = da.random.default_rng(0).random((365, 400, 400), chunks=(1, 200, 200)).astype("f4")
    cube = xr.Dataset({"vv": (("time", "y", "x"), data, {"units": "dB"})}, coords=grid.coords())
    cube = cube.assign_coords(time=np.datetime64("2019-01-01", "ns") + np.arange(365) * np.timedelta64(1, "D"))
    cube.to_zarr(tmp_path / "a.zarr", consolidated=False)
    rng = np.random.default_rng(0)
    lon, lat = grid.lonlat()
    points = pd.DataFrame({"longitude": rng.choice(lon, 1000), "latitude": rng.choice(lat, 1000)})
    series = draw_samples(xr.open_zarr(tmp_path / "a.zarr", decode_coords="all", consolidated=False), points)
    assert series.sizes == {"time": 365, "sample": 1000}


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda t: t.drop(columns="latitude"), r"lack \['latitude'\]"),
        (lambda t: t.assign(longitude=t.longitude - 100), r"none of the \d+ stations lies in the window 145.74"),
        (lambda t: t.assign(time=20150505), r"the stations' time cannot be read: int64 is not dates.*'%Y%m%d'"),
        (lambda t: t.assign(time="05/06/2015"), "the stations' time cannot be read: .*05/06/2015"),
        (lambda t: t.assign(time=pd.NaT), r"none of the \d+ stations in the window has a date"),
        (lambda t: t.assign(latitude="south"), "latitude and longitude of the stations are degrees, numbers"),
        (lambda t: t.assign(time=t.time - pd.Timedelta(days=9999)), "no day is shared: the source has 2015-05-05"),
    ],
)
def test_nothing_met_says_why(scene, spoil, message):
    with pytest.raises(ValueError, match=message):
        draw_samples(scene.cube, spoil(scene.stations))


def test_dates_in_any_clear_form_are_the_same_days(scene):
    as_text = scene.stations.assign(time=scene.stations.time.dt.strftime("%Y-%m-%dT%H:%M:%S"))
    with_zone = scene.stations.assign(time=scene.stations.time.dt.tz_localize("UTC").dt.tz_convert("Australia/Sydney"))
    plain = draw_samples(scene.cube, scene.stations)
    for stations in (as_text, with_zone):
        xr.testing.assert_equal(draw_samples(scene.cube, stations), plain)


def test_a_source_whose_time_is_no_date_is_refused(scene):
    counted = scene.cube.assign_coords(time=np.arange(scene.cube.sizes["time"]))
    with pytest.raises(ValueError, match="the 'time' of the source is int64, not dates"):
        draw_samples(counted, scene.stations)
