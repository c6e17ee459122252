"""From files of seven products to the paper's 20 stored predictors, by one file that says how."""

import hashlib
import json
import re
import shutil
import tomllib
from pathlib import Path

import h5py
import numpy as np
import pytest
import xarray as xr
from products import GRID, write_all

import smgrid
from smgrid import sources
from smgrid.cli import main
from smgrid.cube import RULES, build_cube
from smgrid.features import COMPUTED, PAPER
from smgrid.recipe import build

STORED = [name for name in PAPER if name not in COMPUTED]
RECIPE = f"""
days = "vv"

[grid]
row = {GRID.row}
col = {GRID.col}
ny = {GRID.ny}
nx = {GRID.nx}

[sources.sentinel1]
paths = "sentinel1/*.tif"
averaging = "linear power"

[sources.sentinel2]
paths = ["sentinel2/*.tif"]
period = [2017-01-01, 2017-12-31]

[sources.modis]
paths = "modis/*.tif"

[sources.soil]
product = "soilgrids"
paths = {{ sand = "soilgrids/sand*.tif", clay = "soilgrids/clay*.tif", bdod = "soilgrids/bdod*.tif" }}

[sources.dem]
paths = "dem/*.hgt"

[sources.era5]
paths = "era5/*.nc"
product = "ERA5-Land"
air_temperature = {{ window = 3 }}

[sources.smap]
paths = "smap/*.h5"
orbit = "AM"
spreading = "smooth"
how = "linear"
max_gap = 5
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("products")
    write_all(folder)
    (folder / "cube.toml").write_text(RECIPE)
    return folder


@pytest.fixture(scope="module")
def cube(folder):
    return build(folder / "cube.toml").load()


def test_seven_products_become_the_twenty_stored_predictors(cube):
    assert list(cube) == STORED and len(STORED) == 20
    assert smgrid.Grid.of(cube) == GRID
    assert cube.time.values.astype("M8[D]").astype(str).tolist() == ["2015-05-05", "2015-05-17"]
    np.testing.assert_array_equal(cube.acquired.values.astype("M8[D]"), cube.time.values.astype("M8[D]"))
    low, high = (xr.Dataset({n: getattr(PAPER[n], end) for n in STORED}) for end in ("min", "max"))
    for name in STORED:
        values = cube[name]
        assert values.attrs["units"] == PAPER[name].units
        assert values.notnull().mean() > 0.85, name
        assert float(low[name]) <= float(values.min()) and float(values.max()) <= float(high[name]), name
    assert cube.vv.averaging == "linear power" and cube.smap.spreading == "smooth"
    assert "for 2015-05-05, 2015-05-17" in cube.b4.composite_period


def test_the_recipe_says_what_build_cube_says(folder, cube):
    def files(name):
        return sorted((folder / name).iterdir())

    period = ("2017-01-01", "2017-12-31")
    s2 = sources.sentinel2.open(files("sentinel2"))
    era5 = sources.era5.open(files("era5"), product="ERA5-Land")
    smap = sources.smap.open(files("smap"))
    made = build_cube(
        {
            **sources.sentinel1.open(files("sentinel1"), averaging="linear power"),
            **{name: (array, RULES[name].but(period=period)) for name, array in s2.items()},
            **sources.modis.open(files("modis")),
            **sources.soilgrids.open(files("soilgrids")),
            "elevation": files("dem"),
            **{name: files("dem")[0] for name in ("slope", "aspect_sin", "aspect_cos")},
            **era5,
            "air_temperature": (era5.air_temperature, RULES["air_temperature"].but(window=3)),
            "smap": (smap.smap, RULES["smap"].but(spreading="smooth", how="linear", max_gap=5)),
        },
        GRID,
    )
    xr.testing.assert_identical(made.compute().drop_attrs(deep=False), cube.drop_attrs(deep=False))


def test_nothing_is_read_before_it_is_asked_for(folder, no_compute):
    assert all(array.chunks for array in build(folder / "cube.toml").values())


def test_provenance_names_every_file_by_its_checksum(folder, cube):
    told = json.loads(cube.provenance)["variables"]
    assert list(told) == sorted(STORED)
    for name, product in {
        "smap": "SPL3SMP_E",
        "ndvi": "MOD13Q1",
        "sand": "SoilGrids",
        "air_temperature": "ERA5-Land",
    }.items():
        assert product in told[name]["product"]
    for name, about in told.items():
        assert about["files"] and about["rule"], name
        for path, digest in about["files"].items():
            assert hashlib.sha256((folder / path).read_bytes()).hexdigest() == digest
    assert list(told["sand"]["files"]) == ["soilgrids/sand_0-5cm_mean.tif"]
    assert len(told["smap"]["files"]) == 8


def test_the_command_writes_a_cube_that_goes_on(folder, cube, tmp_path, capsys, caplog):
    shutil.copytree(folder, tmp_path / "data")
    config, out = tmp_path / "data" / "cube.toml", tmp_path / "out.zarr"
    assert main(["cube", str(config), str(out), "--dry-run"]) == 0
    assert "dry run" in capsys.readouterr().out and not out.exists()
    assert main(["cube", str(config), str(out)]) == 0
    said = capsys.readouterr().out
    assert "smap (m3 m-3), time x y x x: " in said and f"written: {out}" in said
    xr.testing.assert_identical(smgrid.files.open_cube(out).compute().drop_encoding(), cube.drop_encoding())

    (tmp_path / "data").rename(tmp_path / "elsewhere")  # a cube does not depend on where its files lie
    config = tmp_path / "elsewhere" / "cube.toml"
    caplog.set_level("INFO", "smgrid")
    assert main(["cube", str(config), str(out)]) == 0
    assert "(0 computed now)" in caplog.text
    clay = tmp_path / "elsewhere/soilgrids/clay_0-5cm_mean.tif"
    shutil.copy(clay.with_name("sand_0-5cm_mean.tif"), clay)
    caplog.clear()
    assert main(["cube", str(config), str(out)]) == 0
    assert "(1 computed now)" in caplog.text


def test_the_record_holds_versions_and_counts(folder, cube, tmp_path):
    out = tmp_path / "out.zarr"
    assert main(["cube", str(folder / "cube.toml"), str(out)]) == 0
    told = json.loads(smgrid.files.open_cube(out).provenance)["variables"]
    assert told["smap"]["version"] == "005" and told["ndvi"]["version"] == "061" and told["sand"]["version"] == "2.0"
    assert all(
        {"files", "rule", "product", "version", "native_resolution", "units"} <= set(about) for about in told.values()
    )
    counted = json.loads((out / "smgrid/manifest.json").read_text())["summary"]["layers"]
    assert counted == {n: {"cells": a.size, "mapped": int(a.notnull().sum())} for n, a in cube.items()}


def test_order_of_tables_and_crops_of_the_window_do_not_matter(folder, cube):
    head, *tables = RECIPE.split("\n[sources.")
    (folder / "backwards.toml").write_text("\n[sources.".join([head, *reversed(tables)]))
    xr.testing.assert_identical(build(folder / "backwards.toml").compute(), cube)
    top, left, ny, nx = 5, 7, 11, 9
    crop = RECIPE.replace(f"row = {GRID.row}", f"row = {GRID.row + top}").replace(
        f"col = {GRID.col}", f"col = {GRID.col + left}"
    )
    (folder / "crop.toml").write_text(
        crop.replace(f"ny = {GRID.ny}", f"ny = {ny}").replace(f"nx = {GRID.nx}", f"nx = {nx}")
    )
    whole = cube.isel(y=slice(top, top + ny), x=slice(left, left + nx))
    part = build(folder / "crop.toml").compute()
    xr.testing.assert_identical(part.drop_vars("spatial_ref"), whole.drop_vars("spatial_ref"))


def test_the_command_goes_on_where_a_fault_stopped_it(folder, cube, tmp_path, capsys, caplog):
    shutil.copytree(folder, tmp_path / "data")
    config, out = tmp_path / "data" / "cube.toml", tmp_path / "out.zarr"
    granule = sorted((tmp_path / "data/smap").glob("*.h5"))[1]
    whole = granule.read_bytes()
    with h5py.File(granule, "r+") as file:
        soil = file["Soil_Moisture_Retrieval_Data_AM/soil_moisture"]
        soil[...] = np.where(soil[...] > 0, soil[...] * 100, soil[...])
    assert main(["cube", str(config), str(out)]) == 3
    said = capsys.readouterr().err
    assert (
        "failed: ContentError" in said
        and f"{granule.name}: 'soil_moisture'" in said
        and "where m3 m-3 lie in 0..1" in said
    )
    assert "damaged" not in said and not out.exists()
    granule.write_bytes(whole)
    caplog.set_level("INFO", "smgrid")
    assert main(["cube", str(config), str(out)]) == 0
    todo, total = re.search(r"(\d+) of (\d+) blocks to compute", caplog.text).groups()
    assert 0 < int(todo) < int(total)
    xr.testing.assert_identical(smgrid.files.open_cube(out).compute().drop_encoding(), cube.drop_encoding())


@pytest.mark.parametrize("place", ["out.zarr", "there/out.zarr", "out"])
def test_a_file_in_the_place_of_the_store_is_named(folder, tmp_path, capsys, place):
    file = tmp_path / place.split("/")[0]
    file.write_text("something else")
    assert main(["cube", str(folder / "cube.toml"), str(tmp_path / place)]) == 3
    assert f"{file} is a file: a store is a folder" in capsys.readouterr().err
    assert file.read_text() == "something else"


@pytest.mark.parametrize(
    "old, new, message",
    [
        ("[sources.dem]\npaths", "[sources.dem]\npath", r"\[sources.dem\]: unknown key 'path'; did you mean 'paths'"),
        ("max_gap = 5", "maxgap = 5", r"\[sources.smap\]: unknown key 'maxgap'; did you mean 'max_gap'"),
        ("max_gap = 5", "window = 5", r"\[sources.smap\]: 'window' is no option of the rule \(interpolate, smooth\)"),
        ('orbit = "AM"', 'orbit = "am"', r"\[sources.smap\]: orbit is one of"),
        ("[grid]", "[gird]", "unknown key 'gird'; did you mean 'grid'"),
        ("ny = 21", "", r"\[grid\]: \['ny'\] missing"),
        ("ny = 21", "ny = 210000", r"\[grid\]: rows .* leave the 1-km grid"),
        ('days = "vv"', 'days = "vh"', "days: not 'vh'; they are \"vv\""),
        ('days = "vv"', 'days = ["Tuesday"]', "days: .*Tuesday"),
        ('days = "vv"', "days = { from = 2015-05-17, to = 2015-05-05 }", "days: 'to' lies before 'from'"),
        ('days = "vv"', "[days]\nfrom = 2015-05-05\nuntil = 2015-05-17", r"\[days\]: unknown key 'until'"),
        ('days = "vv"', 'days = ["2015-05-06"]', "vv: there is nothing on 2015-05-06; it has 2015-05-05, 2015-05-17"),
        ('product = "soilgrids"', 'product = "soilgrid"', r"\[sources.soil\]: .*did you mean 'soilgrids'"),
        ("smap/*.h5", "smap/*.hdf5", r"\[sources.smap\]: no file fits the pattern 'smap/\*.hdf5'"),
        ("dem/*.hgt", "dem/S36E145.hgt", r"\[sources.dem\]: there is no file at .*S36E145.hgt; in that folder are"),
        ("window = 3", "windw = 3", r"\[sources.era5\]: 'windw' is no option .*did you mean 'window'"),
        ("{ window = 3 }", '"trailing_median"', r"\[sources.era5\]: 'air_temperature' is a predictor, so its choices"),
        (
            "{ window = 3 }",
            '{ window = 3 }\npredictors = ["precipitation"]',
            r"choices for \['air_temperature'\], but predictors = \['precipitation'\] leaves",
        ),
        ("[grid]", "chunks = { y = 0 }\n\n[grid]", r"\[chunks\]: y is a whole number .* not 0"),
        ("[grid]", 'chunks = { y = "all" }\n\n[grid]', r"\[chunks\]: y is a whole number .* not 'all'"),
        ('days = "vv"', "days = { from = 2015-05-05, to = 2015-05-17, step = 1.9 }", "'step' is a whole number .* 1.9"),
        ("air_temperature = ", "swvl1 = ", r"\[sources.era5\]: .*'swvl1'"),
        (
            "[sources.dem]",
            '[sources.more]\nproduct = "dem"\npaths = "dem/*"\n\n[sources.dem]',
            r"\[sources.dem\]: 'elevation' comes from another source too",
        ),
        ("[grid]", "[grid", "is no TOML file"),
    ],
)  # fmt: skip
def test_a_fault_says_where_and_what(folder, tmp_path, capsys, old, new, message):
    assert RECIPE.count(old) == 1
    config = folder / f"{tmp_path.name}.toml"
    config.write_text(RECIPE.replace(old, new))
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        build(config)
    assert main(["cube", str(config), str(tmp_path / "out.zarr")]) == 3
    assert capsys.readouterr().err.startswith("smgrid cube: ")


def test_faults_of_all_tables_come_at_once(folder):
    text = RECIPE.replace("ny = 21", "").replace("max_gap", "maxgap").replace("*.hgt", "*.dt2")
    (folder / "faults.toml").write_text(text)
    with pytest.raises(ValueError) as raised:
        build(folder / "faults.toml")
    lines = str(raised.value).split("\n- ")
    assert len(lines) == 4 and lines[0].endswith("faults.toml cannot be followed:")


def test_days_in_every_form(folder):
    statics = RECIPE.split("[sources.sentinel1]")[0] + '[sources.smap]\npaths = "smap/*.h5"\n'
    for said in (
        'days = ["2015-05-05", "2015-05-09"]',
        "days = [2015-05-05, 2015-05-09]",
        "days = { from = 2015-05-05, to = 2015-05-12, step = 4 }",
    ):
        (folder / "days.toml").write_text(statics.replace('days = "vv"', said))
        days = build(folder / "days.toml").time.values.astype("M8[D]").astype(str).tolist()
        assert days == ["2015-05-05", "2015-05-09"]


def test_the_example_is_a_recipe():
    path = Path(__file__).parents[1] / "examples" / "yanco_2015.toml"
    said = tomllib.loads(path.read_text())
    assert smgrid.Grid.around(said["grid"]["bbox"], said["grid"]["km"]) == smgrid.YANCO
    with pytest.raises((ValueError, FileNotFoundError)) as raised:
        build(path)  # its files have to be fetched first: nothing but their absence is wrong with it
    lines = str(raised.value).split("\n- ")[1:]
    assert len(lines) == len(said["sources"]) and all("no file" in line for line in lines)
