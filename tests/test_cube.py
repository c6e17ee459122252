"""A cube is the same whatever the order, the chunks and the crop; every fault is told at once."""

import json

import dask
import numpy as np
import pytest
import xarray as xr
from dask._task_spec import DataNode

import smgrid
from smgrid import Grid, coarse, temporal, to_grid
from smgrid.cube import RULES, Rule, build_cube
from smgrid.features import COMPUTED, PAPER

GRID = Grid(1, 11466, 31401, 21, 25)
DAYS = np.array(["2015-05-05", "2015-05-17"], "M8[ns]")
DAY = np.timedelta64(1, "D").astype("m8[ns]")


def degrees(name, step, dates=None, units="1", scale=1.0, offset=0.0, missing=0.05, reach=0.15, **attrs):
    """A synthetic field on latitudes and longitudes around the window."""
    lon, lat = GRID.lonlat()
    lat = np.arange(lat.max() + reach, lat.min() - reach, -step)
    lon = np.arange(lon.min() - reach, lon.max() + reach, step)
    draw = np.random.default_rng(sum(map(ord, name)))
    shape = (lat.size, lon.size) if dates is None else (len(dates), lat.size, lon.size)
    values = (offset + scale * draw.random(shape)).astype("f4")
    values[draw.random(shape) < missing] = np.nan
    coords = {"lat": lat, "lon": lon} | ({} if dates is None else {"time": dates})
    return xr.DataArray(values, coords, ("time", "lat", "lon")[dates is None :], name, {"units": units, **attrs})


def sources():
    """Synthetic sources of 17 predictors, on grids and days of their own, not all in canonical units."""
    wide = Grid(9, 1274 - 8, 3489 - 8, 20, 20)
    dates = np.datetime64("2015-04-25", "ns") + DAY * np.arange(0, 40, 2)
    draw = np.random.default_rng(0)
    smap = xr.DataArray(
        draw.uniform(0.05, 0.4, (20, *wide.shape)).astype("f4"),
        {**wide.coords(), "time": dates},
        ("time", "y", "x"),
        attrs={"units": "m3/m3", "product": "synthetic SMAP", "source_files": "a.h5,b.h5"},
    )
    daily = np.datetime64("2015-04-25", "ns") + DAY * np.arange(35)
    periods = np.datetime64("2015-04-07", "ns") + DAY * np.arange(0, 64, 8)
    ndvi = degrees("ndvi", 0.005, periods, scale=0.5, offset=0.2)
    passes = DAYS[0] + 12 * DAY * np.arange(3)
    power = degrees("vv", 0.004, passes, scale=0.1, offset=0.02)
    s2 = np.datetime64("2014-06-01", "ns") + DAY * np.arange(0, 340, 30)
    return {
        "vv": power.assign_coords(acquired=("time", passes + DAY // 3)),
        "vh": degrees("vh", 0.004, passes, "dB", 10, -25),
        "incidence_angle": degrees("angle", 0.004, passes, "degree", 10, 30),
        "sand": degrees("sand", 0.0025, units="g kg-1", scale=300, offset=300).pipe(percent),
        "bulk_density": degrees("bd", 0.0025, units="cg cm-3", scale=30, offset=130),
        "elevation": degrees("dem", 0.002, units="m", scale=30, offset=120),
        "ndvi": ndvi,
        "composite_day": degrees("day", 0.005, periods, "d", scale=8).round(),
        "air_temperature": degrees("t", 0.1, daily, "K", 10, 280, missing=0, reach=0.8),
        "precipitation": degrees("p", 0.1, daily, "mm d-1", 9, missing=0, reach=0.8),
        "b4": degrees("b4", 0.004, s2, scale=0.3),
        "smap": smap,
    }


def percent(field):
    return (field / 10).assign_attrs(units="%")


SOURCES = sources()


@pytest.fixture(scope="module")
def cube():
    return build_cube(SOURCES, GRID).load()


def test_the_rules_are_those_of_every_stored_predictor():
    assert list(RULES) == [name for name in RULES if name in PAPER]
    assert set(RULES) == set(PAPER) - set(COMPUTED)


def test_a_cube_has_the_shape_that_rooms_rely_on(cube):
    assert Grid.of(cube) == GRID
    np.testing.assert_array_equal(cube.time, DAYS[0] + 12 * DAY * np.arange(3))
    assert list(cube) == [name for name in PAPER if name in SOURCES]
    for name, array in cube.items():
        assert array.dtype == "f4" and array.attrs["units"] == PAPER[name].units
        static = name in ("sand", "bulk_density", "elevation")
        assert array.dims == (("y", "x") if static else ("time", "y", "x"))
        assert array.notnull().mean() > 0.5
    np.testing.assert_array_equal(cube.acquired, cube.time + DAY // 3)


def test_values_are_those_of_the_rules_one_by_one():
    cube = build_cube(SOURCES, GRID, DAYS).compute()

    def check(name, expected):
        np.testing.assert_allclose(cube[name], expected, rtol=2e-6, atol=1e-7)

    check("vv", 10 * np.log10(to_grid(SOURCES["vv"][:2], GRID)))
    check("vh", to_grid(SOURCES["vh"][:2], GRID))
    check("sand", to_grid(SOURCES["sand"], GRID))
    check("bulk_density", to_grid(SOURCES["bulk_density"], GRID) / 100)
    celsius = SOURCES["air_temperature"].astype("f8") - 273.15
    week = [celsius.sel(time=slice(d - 7 * DAY, d - DAY)).mean("time") for d in DAYS]
    np.testing.assert_allclose(cube.air_temperature, to_grid(xr.concat(week, "time"), GRID), atol=1e-4)
    check("precipitation", to_grid(temporal.trailing_mean(SOURCES["precipitation"], DAYS), GRID) / 1000)
    ndvi = temporal.interpolate(SOURCES["ndvi"], DAYS, how="pchip", max_gap=32, observed=SOURCES["composite_day"])
    check("ndvi", to_grid(ndvi, GRID))
    check("b4", to_grid(temporal.trailing_median(SOURCES["b4"], DAYS), GRID))
    check("smap", coarse.blocks(temporal.interpolate(SOURCES["smap"], DAYS, how="pchip", max_gap=6), GRID))


def test_the_order_of_the_sources_does_not_matter(cube):
    backwards = dict(reversed(SOURCES.items()))
    xr.testing.assert_identical(build_cube(backwards, GRID).compute(), cube)


@pytest.mark.parametrize("cells", [{"lat": 31, "lon": 17, "y": 5, "x": 3}, {"lat": 9, "lon": 200, "y": 20, "x": 1}])
@pytest.mark.parametrize("steps", [1, 4])
def test_chunks_do_not_matter(cube, cells, steps):
    cut = {
        name: array.chunk({d: n for d, n in {**cells, "time": steps}.items() if d in array.dims})
        for name, array in SOURCES.items()
    }
    made = build_cube(cut, GRID, chunks={"time": 1, "y": 8, "x": 10})
    assert made.smap.chunksizes == {"time": (1, 1, 1), "y": (8, 8, 5), "x": (10, 10, 5)}
    xr.testing.assert_identical(made.compute(), cube)


@pytest.mark.parametrize("cells", [11, 512])
def test_sources_too_large_to_be_held_make_the_same_cube(monkeypatch, cube, cells):
    monkeypatch.setattr("smgrid.cube.BLOCK", 1)
    lazy = {name: field.chunk(dict.fromkeys(field.dims, 7)) for name, field in SOURCES.items()}
    xr.testing.assert_identical(build_cube(lazy, GRID, chunks={"y": cells, "x": cells}).load(), cube)


def test_what_a_large_source_gives_a_chunk_is_made_in_one_task_that_needs_no_other(monkeypatch):
    monkeypatch.setattr("smgrid.cube.BLOCK", 1)
    chosen = {
        name: SOURCES[name].chunk({"time": 1} if name == "vv" else {})
        for name in ("vv", "ndvi", "composite_day", "b4", "elevation")
    }
    built = build_cube(chosen, GRID, chunks={"y": 11, "x": 13})
    for name, days in (("vv", 3), ("ndvi", 3), ("b4", 1), ("elevation", 1)):  # the same scenes come before each day
        layers = [layer for key, layer in built[name].data.dask.layers.items() if key.startswith("alone-")]
        nodes = {key: node for layer in layers for key, node in layer.items()}
        tasks = [node for node in nodes.values() if not isinstance(node, DataNode)]
        assert len(tasks) == 4 * days, name
        assert all(isinstance(nodes[need], DataNode) for task in tasks for need in task.dependencies)


@pytest.mark.parametrize("spreading", ["blocks", "smooth"])
@pytest.mark.parametrize("top, left, ny, nx", [(0, 0, 9, 9), (5, 7, 11, 4), (20, 24, 1, 1)])
def test_a_crop_of_the_build_is_the_build_of_a_crop(spreading, top, left, ny, nx):
    given = SOURCES | {"smap": (SOURCES["smap"].chunk(time=3), RULES["smap"].but(spreading=spreading))}
    whole = build_cube(given, GRID, DAYS).isel(y=slice(top, top + ny), x=slice(left, left + nx))
    part = build_cube(given, Grid(1, GRID.row + top, GRID.col + left, ny, nx), DAYS)
    for name, array in part.items():
        np.testing.assert_array_equal(array.values, whole[name].values, err_msg=name)
        assert array.attrs == whole[name].attrs
    np.testing.assert_array_equal(part.x, whole.x)


def test_fewer_days_are_a_part_of_more(cube):
    xr.testing.assert_equal(build_cube(SOURCES, GRID, DAYS[1:]).compute(), cube.isel(time=[1]))
    xr.testing.assert_equal(build_cube(SOURCES, GRID, DAYS[::-1]).compute(), cube.isel(time=[0, 1]))


def test_building_is_lazy(no_compute):
    assert all(array.chunks for array in build_cube(SOURCES, GRID).values())


def test_rules_can_be_changed_for_one_cube():
    smap, temperature = SOURCES["smap"], SOURCES["air_temperature"]
    given = {
        "smap": (smap, RULES["smap"].but(spreading="smooth", how="linear")),
        "air_temperature": (temperature, RULES["air_temperature"].but(window=3)),
        "b4": (SOURCES["b4"], RULES["b4"].but(window="10D", period=("2014-07-01", "2014-12-31"))),
        "ratio": ((SOURCES["vv"] / 2).assign_attrs(units="furlong"), Rule("same day")),
    }
    cube = build_cube(given, GRID, DAYS).compute()
    assert list(cube) == ["air_temperature", "b4", "smap", "ratio"]
    linear = temporal.interpolate(smap, DAYS, how="linear", max_gap=6)
    np.testing.assert_array_equal(cube.smap, coarse.smooth(linear.assign_attrs(valid_min=0), GRID))
    assert cube.smap.min() >= 0 > coarse.smooth(linear, GRID).min()  # a steep surface dips below nothing
    assert cube.smap.spreading == "smooth" and "linear interpolation" in cube.smap.rule
    assert "mean of the 3 days before" in cube.air_temperature.rule
    assert "2014-07-01 to 2014-12-31 in place of" in cube.b4.composite_period
    assert cube.ratio.attrs["units"] == "furlong"


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"spreading": "smoth"}, "spreading is one of .*'blocks'.*, not 'smoth'; did you mean 'smooth'"),
        ({"timing": "daily"}, "timing is one of .*, not 'daily'"),
        ({"maxgap": 3}, r"'maxgap' is no option of the rule \(interpolate, blocks\).*did you mean 'max_gap'"),
        ({"window": 7}, "'window' is no option"),
    ],
)
def test_choices_that_are_none_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        RULES["smap"].but(**changes)


def test_averaging_is_told():
    cube = build_cube(SOURCES, GRID)
    assert (cube.vv.averaging, cube.vh.averaging) == ("linear power", "dB")


def test_provenance_tells_each_variable(cube):
    told = json.loads(cube.provenance)
    assert told["smgrid"] == smgrid.__version__ and list(told["variables"]) == sorted(cube)
    smap = told["variables"]["smap"]
    assert smap["product"] == "synthetic SMAP" and smap["source_files"] == "a.h5,b.h5"
    assert smap["rule"] == "pchip interpolation in time over gaps of at most 6 days; spread as blocks"


def test_statics_alone_make_a_cube_without_time():
    cube = build_cube({name: SOURCES[name] for name in ("sand", "elevation")}, GRID)
    assert cube.sand.dims == ("y", "x") and "time" not in cube.coords


def test_one_scene_is_a_cube_of_one_day():
    one = {name: SOURCES[name].isel(time=1) for name in ("vv", "vh")} | {"smap": SOURCES["smap"]}
    cube = build_cube(one, GRID)
    np.testing.assert_array_equal(cube.time, DAYS[1:])
    xr.testing.assert_equal(cube.vh.compute(), build_cube(SOURCES, GRID, DAYS[1:]).vh.drop_vars("acquired").compute())


@pytest.mark.parametrize("name, units", [("smap", "m3 m-3"), ("air_temperature", "degC")])
def test_one_map_of_a_day_does_not_stand_for_other_days(name, units):
    days = np.array(["2015-05-05", "2015-09-14"], "M8[ns]")
    field = degrees(name, 0.1, days[:1], units=units, missing=0).isel(time=0)
    with pytest.raises(ValueError, match=f"{name}: .*(lies within the series|before any of the days)"):
        build_cube({name: field}, GRID, days[1:])
    assert "time" not in build_cube({name: field.drop_vars("time")}, GRID, days)[name].dims


def test_sub_daily_weather_is_averaged_to_days_first():
    hours = np.datetime64("2015-04-25", "ns") + DAY // 4 * np.arange(100)
    six_hourly = degrees("t", 0.1, hours, "degC", missing=0, reach=0.8)
    cube = build_cube({"air_temperature": six_hourly}, GRID, ["2015-05-10"])
    expected = to_grid(six_hourly.sel(time=slice("2015-05-03", "2015-05-09")).mean("time"), GRID)
    np.testing.assert_allclose(cube.air_temperature[0], expected, rtol=1e-6)


def test_all_faults_come_in_one_message():
    given = {
        **{name: SOURCES[name] for name in ("vv", "smap", "composite_day")},
        "VH": SOURCES["vh"],
        "temprature": SOURCES["air_temperature"],
        "day_of_year": SOURCES["sand"],
        "sand": SOURCES["sand"].drop_attrs(),
        "clay": SOURCES["sand"].assign_attrs(units="furlong"),
        "elevation": SOURCES["elevation"].rename(lat="y", lon="x"),
        "slope": (SOURCES["elevation"] / 10)
        .assign_coords(lon=SOURCES["elevation"].lon + 30)
        .assign_attrs(units="degree"),
        "bulk_density": SOURCES["vv"],
        "b4": 3,
        "b3": "nowhere.tif",
    }
    with pytest.raises(ValueError, match="the cube cannot be built") as raised:
        build_cube(given, GRID, ["2015-05-05", "2015-05-06", "2015-08-01"])
    lines = dict(line.split(": ", 1) for line in str(raised.value).split("\n- ")[1:])
    for name, words in {
        "vv": "nothing on 2015-05-06, 2015-08-01; it has 2015-05-05, 2015-05-17, 2015-05-29",
        "VH": "is it 'vh'? rename it",
        "temprature": "is it 'air_temperature'?",
        "day_of_year": "follows from the coordinates",
        "sand": "carries no units",
        "clay": "'furlong', which does not convert to '%'",
        "elevation": "no CRS",
        "slope": "the grid lies outside the field",
        "bulk_density": "is in '1'",
        "composite_day": "comes without 'ndvi'",
        "b4": "a DataArray, or a path or paths, not int",
        "b3": "nowhere.tif",
    }.items():
        assert words in lines[name], lines[name]
    assert "smap" not in lines


@pytest.mark.parametrize(
    "days, message",
    [
        ([1, 2], "days: days are dates"),
        ([], "days: there are none"),
        (["2015-05-05", "2015-05-05T12:00"], "days: 2015-05-05 come more than once"),
        (["tomorrow-ish"], "days: "),
    ],
)
def test_days_that_are_none_are_refused(days, message):
    with pytest.raises(ValueError, match=message):
        build_cube(SOURCES, GRID, days)


def test_days_are_needed_where_there_is_no_radar():
    with pytest.raises(ValueError, match=r"there is no 'vv' with a time.*give days="):
        build_cube({"smap": SOURCES["smap"]}, GRID)


def test_two_scenes_a_day_are_refused():
    vv = SOURCES["vv"].assign_coords(time=DAYS[0] + DAY // 4 * np.arange(3))
    with pytest.raises(ValueError, match="more than one scene on 2015-05-05"):
        build_cube({"vv": vv}, GRID)


def test_a_static_with_steps_is_refused():
    with pytest.raises(ValueError, match="sand: it does not change in time, but has 3 steps"):
        build_cube({"sand": SOURCES["vv"].assign_attrs(units="%")}, GRID, DAYS)


@pytest.mark.parametrize("given, message", [({}, "there are no sources"), (["vv"], "sources map predictor names")])
def test_sources_that_are_none_are_refused(given, message):
    with pytest.raises((ValueError, TypeError), match=message):
        build_cube(given, GRID)


# ---- aspect


@pytest.mark.parametrize("chunks", [{}, {"y": 8, "x": 10}])
def test_flat_land_keeps_its_cells(tmp_path, chunks):
    """Aspect is the mean over sloping pixels, 0 where there is none, and missing only where slope is."""
    slope = degrees("slope", 0.002, units="degree", scale=0.05, offset=2, missing=0)
    bearing = np.radians(60 + 4 * degrees("b", 0.002, scale=1, missing=0).values)
    rows = np.arange(slope.sizes["lat"])[:, None]
    flat, void = (rows % 5 > 0) | (rows < 110), np.broadcast_to(rows > 150, slope.shape)
    slope = slope.where(~flat, 0).where(~void)
    parts = {
        n: slope.copy(data=np.where(flat | void, np.nan, f(bearing)).astype("f4")).assign_attrs(units="1")
        for n, f in (("aspect_sin", np.sin), ("aspect_cos", np.cos))
    }
    cube = build_cube({"slope": slope, **parts}, GRID, chunks=chunks).compute()
    known = cube.slope.notnull()
    assert 0 < known.sum() < known.size
    for name, middle in (("aspect_sin", np.sin(np.radians(62))), ("aspect_cos", np.cos(np.radians(62)))):
        assert (cube[name].notnull() == known).all()
        level, tilted = cube[name].where(cube.slope == 0), cube[name].where(cube.slope > 0.1)
        assert level.notnull().any() and (level.fillna(0) == 0).all()
        assert tilted.notnull().any() and abs(tilted - middle).max() < 0.04
        assert "0 where slope is known" in cube[name].rule
    alone = build_cube(parts, GRID).compute()
    assert alone.aspect_sin.isnull().sum() > (~known).sum(), "without slope nobody can tell flat from void"


# ---- units that lie


LIES = [
    ("smap", "m3 m-3", 25.0),
    ("b4", "1", 2500.0),
    ("air_temperature", "K", 20.0),
    ("air_temperature", "degC", 293.0),
    ("ndvi", "1", 450.0),
    ("precipitation", "m d-1", 8.0),
    ("elevation", "m", -32768.0),
    ("vv", "1", -12.0),
]


def lying(name, units, value):
    dates = None if name in ("elevation",) else DAYS[0] - 8 * DAY + DAY * np.arange(12)
    return degrees(name, 0.05, dates, units, scale=value * 0.1, offset=value, missing=0)


@pytest.mark.parametrize("name, units, value", LIES)
def test_values_that_contradict_their_units_are_refused_where_they_are_known(name, units, value):
    message = rf"{name}: sources\['{name}'\], in '{units}' by its word, holds .* where .* are possible: another unit"
    with pytest.raises(ValueError, match=message):
        build_cube({name: lying(name, units, value)}, GRID, DAYS[:1])


@pytest.mark.parametrize("units", ["dB", "1"])
@pytest.mark.parametrize("lazy", [False, True])
def test_a_swath_filled_with_0_is_no_backscatter(units, lazy):
    vv = degrees("vv", 0.05, DAYS[:1], units, scale=-1, offset=-12, missing=0)
    vv = (vv if units == "dB" else (10 ** (vv / 10)).assign_attrs(vv.attrs)).astype("f4")
    half = vv.where(vv["lon"] > vv["lon"].mean(), np.float32(0)).assign_attrs(vv.attrs)
    with pytest.raises(ValueError, match=rf"sources\['vv'\], in '{units}' by its word, is exactly 0 in .* a fill, not"):
        build_cube({"vv": half.chunk() if lazy else half}, GRID).vv.compute()
    assert build_cube({"vv": half.where(half != 0)}, GRID).vv.notnull().any()


@pytest.mark.parametrize("chunks", [{"lat": 5}, {"y": 0}, {"time": -2}])
def test_chunks_that_are_none_are_refused(chunks):
    with pytest.raises(ValueError, match=r"chunks: .*; they are of \['time', 'y', 'x'\], 1 or more, or -1 for all"):
        build_cube({"vv": SOURCES["vv"]}, GRID, chunks=chunks)


@pytest.mark.parametrize("grid", ["yanco", None, (145, -36, 146, -35)])
def test_what_is_no_grid_is_refused(grid):
    with pytest.raises(TypeError, match=r"a grid is a Grid, such as Grid.around\(\(west, south, east, north\)\)"):
        build_cube({"vv": SOURCES["vv"]}, grid)


@pytest.mark.parametrize("name, units, value", LIES)
def test_lazy_values_that_contradict_their_units_stop_the_write(tmp_path, name, units, value):
    cube = build_cube({name: lying(name, units, value).chunk()}, GRID, DAYS[:1])
    with pytest.raises(
        RuntimeError, match=rf"block .* of {name} failed .*sources\['{name}'\], in '{units}' by its word"
    ):
        stored("cube.zarr", cube, tmp_path)


@pytest.mark.parametrize("chunks", [None, {"lat": 20, "lon": 30}])
def test_a_few_impossible_pixels_are_missing_not_averaged(chunks, caplog):
    clean = degrees("sand", 0.0025, units="%", scale=30, offset=30)
    holes = np.zeros(clean.shape, bool)
    holes[::7, ::11] = True
    dirty = xr.where(holes, np.float32(-9999), clean, keep_attrs=True).assign_attrs(clean.attrs)
    made = build_cube({"sand": dirty if chunks is None else dirty.chunk(chunks)}, GRID).sand.compute()
    expected = build_cube({"sand": clean.where(~holes)}, GRID).sand.compute()
    np.testing.assert_array_equal(made, expected)


def test_packed_numbers_are_refused():
    packed = SOURCES["ndvi"].assign_attrs(scale_factor=1e-4)
    with pytest.raises(ValueError, match=r"ndvi: .*still carries \{'scale_factor': 0.0001\}"):
        build_cube({"ndvi": packed}, GRID, DAYS)


# ---- on disk


def stored(name, cube, tmp_path):
    return smgrid.write_zarr(cube, tmp_path / name, progress=False)


def files_under(folder):
    return {p.relative_to(folder): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_a_cube_is_written_and_read_back_whole(tmp_path, cube):
    lazy = build_cube(SOURCES, GRID, chunks={"time": 2, "y": 10, "x": 12})
    back = stored("cube.zarr", lazy, tmp_path)
    xr.testing.assert_equal(back.compute(), cube)
    for name in cube:
        assert back[name].attrs == cube[name].attrs
    assert back.provenance == cube.provenance
    counted = json.loads((tmp_path / "cube.zarr/smgrid/manifest.json").read_text())["summary"]["layers"]
    assert counted == {name: {"cells": a.size, "mapped": int(a.notnull().sum())} for name, a in cube.items()}
    assert smgrid.predict  # the store opens as any cube does
    xr.testing.assert_equal(smgrid.files.open_cube(tmp_path / "cube.zarr").compute(), back.compute())


def test_a_write_goes_on_by_variable_and_block(tmp_path, caplog):
    lazy = build_cube(SOURCES, GRID, chunks={"time": 1, "y": 21, "x": 13})
    stored("whole.zarr", lazy, tmp_path)

    def stop(values):
        raise KeyError("stopped here")

    broken = lazy.assign(vv=lazy.vv.copy(data=lazy.vv.data.map_blocks(stop, dtype="f4", meta=np.zeros((0, 0, 0)))))
    with dask.config.set(scheduler="sync"), pytest.raises(RuntimeError, match=r"of vv failed.*stopped here"):
        stored("cube.zarr", broken, tmp_path)
    there = {p.parts[-5] for p in (tmp_path / "cube.zarr.partial").rglob("c/*/*/*")}
    assert there and "vv" not in there, "what was finished before the fault is kept"
    caplog.set_level("INFO", "smgrid")
    stored("cube.zarr", lazy, tmp_path)
    said = next(r.getMessage() for r in caplog.records if "blocks to compute" in r.getMessage())
    todo, total = (int(n) for n in said.split(": ")[1].split(" blocks")[0].split(" of "))
    assert total == 8 * 6 + 3 * 2 and todo < total
    assert files_under(tmp_path / "cube.zarr") == files_under(tmp_path / "whole.zarr")


def test_a_changed_rule_makes_only_its_own_variable_anew(tmp_path, caplog):
    stored("cube.zarr", build_cube(SOURCES, GRID, DAYS), tmp_path)
    caplog.set_level("INFO", "smgrid")
    changed = build_cube(SOURCES | {"smap": (SOURCES["smap"], RULES["smap"].but(spreading="smooth"))}, GRID, DAYS)
    back = stored("cube.zarr", changed, tmp_path)
    assert f"{len(DAYS)} of {8 * len(DAYS) + 3} blocks to compute" in caplog.text
    xr.testing.assert_identical(back.smap.compute().drop_attrs(), changed.smap.compute().drop_attrs())
    assert back.smap.spreading == "smooth"


def test_new_days_are_added_and_old_ones_stay(tmp_path, caplog):
    stored("cube.zarr", build_cube(SOURCES, GRID, DAYS), tmp_path)
    caplog.set_level("INFO", "smgrid")
    back = stored("cube.zarr", build_cube(SOURCES, GRID, chunks={"time": 1}), tmp_path)
    xr.testing.assert_equal(back.compute(), build_cube(SOURCES, GRID).compute())
