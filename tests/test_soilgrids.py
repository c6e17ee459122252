import numpy as np
import pytest
from rasters import plain, truncate, write

from smgrid.grid import find_crs
from smgrid.sources import soilgrids

IGH = "+proj=igh +lon_0=0 +datum=WGS84 +units=m +no_defs"  # interrupted Goode homolosine, as the service has it
PLACE = {"corner": (14.2e6, -3.86e6), "size": 250.0}
SAND = np.array([[500, 0, -32768], [300, 700, 450]], "i2")
CLAY = np.array([[200, 0, -32768], [650, 200, 551]], "i2")
BDOD = np.array([[150, 0, -32768], [135, 120, 141]], "i2")
NAN = np.nan


def tif(folder, prop, values, *, suffix="_0-5cm_mean", **more):
    return write(folder / f"{prop}{suffix}.tif", values, IGH, **{"nodata": -32768, **PLACE, **more})


@pytest.fixture
def three(tmp_path):
    return [tif(tmp_path, name, values) for name, values in [("bdod", BDOD), ("clay", CLAY), ("sand", SAND)]]


def test_values_units_and_place(three, no_compute):
    soil = soilgrids.open(three)
    assert list(soil) == ["sand", "clay", "bulk_density"]
    assert [soil[name].attrs["units"] for name in soil] == ["%", "%", "g cm-3"]
    assert {soil[name].dtype for name in soil} == {np.dtype("f4")}
    assert "Goode Homolosine" in find_crs(soil).coordinate_operation.method_name
    assert np.diff(soil.x).tolist() == [250.0, 250.0] and np.diff(soil.y).tolist() == [-250.0]
    assert soil.sand.attrs["depth"] == "0-5 cm" and soil.clay.attrs["source_files"] == "clay_0-5cm_mean.tif"
    assert "(towns, water)" in soil.sand.attrs["rule"]
    wanted = {
        "sand": [[50, NAN, NAN], [30, 70, 45]],
        "clay": [[20, NAN, NAN], [65, 20, 55.1]],
        "bulk_density": [[1.5, NAN, NAN], [1.35, 1.2, 1.41]],
    }
    for name, values in wanted.items():
        np.testing.assert_array_equal(soil[name].compute(scheduler="sync"), np.array(values, "f4"))


def test_equal_to_a_plain_read(three):
    soil = soilgrids.open(three)
    for path, name, divisor in zip(three, ["bulk_density", "clay", "sand"], [100, 10, 10]):
        raw = plain(path)[0]
        np.testing.assert_array_equal(soil[name], np.where(raw == 0, NAN, raw / divisor).astype("f4"))


def test_a_mapping_says_which_is_which(tmp_path, three):
    named = soilgrids.open(three)
    bare = [tif(tmp_path, f"map{k}", values, suffix="") for k, values in enumerate([SAND, CLAY, BDOD])]
    soil = soilgrids.open(dict(zip(["sand", "clay", "bdod"], bare)))
    for name in named:
        np.testing.assert_array_equal(soil[name], named[name])
    assert "bulk_density" in soilgrids.open({"bulk_density": bare[2]})
    with pytest.raises(ValueError, match=r"'silt' is no property that is read here"):
        soilgrids.open({"silt": bare[0]})
    with pytest.raises(ValueError, match=r"map0.tif: neither its name nor its bands \['band_1'\] say sand"):
        soilgrids.open(bare)


def test_bands_of_an_export(tmp_path, three):
    names = ["sand_0-5cm_mean", "clay_0-5cm_mean", "bdod_0-5cm_mean"]
    path = tif(tmp_path, "yanco", np.stack([SAND, CLAY, BDOD]), suffix="", names=names)
    named = soilgrids.open(three)
    for name, values in soilgrids.open(path).items():
        np.testing.assert_array_equal(values, named[name])


def test_tiles_are_laid_beside_each_other(tmp_path):
    right = {"corner": (PLACE["corner"][0] + 3 * 250, PLACE["corner"][1])}
    tiles = [
        tif(tmp_path, "sand", SAND),
        tif(tmp_path, "sand", SAND + 1, suffix="_0-5cm_mean_b", nodata=-32767, **right),
    ]
    soil = soilgrids.open(tiles)
    assert soil.sand.shape == (2, 6)
    assert soil.sand[1].values.tolist() == pytest.approx([30, 70, 45, 30.1, 70.1, 45.1])


def test_more_than_everything_is_counted(three):
    over = soilgrids.impossible(soilgrids.open(three))
    assert over.chunks is not None
    assert over.values.tolist() == [[False, False, False], [False, False, False]]
    assert soilgrids.impossible(soilgrids.open(three).assign(clay=lambda s: s.clay + 10)).sum() == 2


@pytest.mark.parametrize(
    "prop, values, suffix, more, message",
    [
        ("sand", SAND, "_0-5cm_uncertainty", {}, r"holds the uncertainty of the map"),
        ("sand", SAND, "_0-5cm_Q0.95", {}, r"holds the Q0.95 of the map"),
        (
            "sand",
            SAND // 100,
            "_0-5cm_mean",
            {"nodata": -328},
            r"mean.tif: 'sand' has the median [\d.]+, exp",
        ),
        ("bdod", BDOD // 10 * 100, "_0-5cm_mean", {}, r"'bulk_density' has the median 1\d+, expected are 20 to 265 cg"),
        ("sand", SAND // 10, "_0-5cm_mean", {"nodata": -3277}, r"'sand' is nowhere above 70 .*percent.*units='%'"),
        (
            "clay",
            CLAY / 10,
            "_0-5cm_mean",
            {"nodata": -3276.8},
            r"'clay' is nowhere above 65 .*raster.open\(path, name='clay'",
        ),
        ("BLDFIE_bdod", BDOD, "_M_sl1_250m", {}, r"is SoilGrids250m of 2017"),
    ],
)
def test_what_is_wrong_is_said(tmp_path, prop, values, suffix, more, message):
    with pytest.raises(ValueError, match=message):
        soilgrids.open(tif(tmp_path, prop, values, suffix=suffix, **more))


@pytest.mark.parametrize("fill", [-9999, 32767])
def test_a_fill_that_is_not_declared_is_no_value(tmp_path, fill):
    soil = soilgrids.open(tif(tmp_path, "sand", np.where(SAND == -32768, fill, SAND).astype("i2"), nodata=None))
    np.testing.assert_array_equal(soil.sand, np.array([[50, NAN, NAN], [30, 70, 45]], "f4"))


def test_depths_are_not_mixed(tmp_path):
    paths = [tif(tmp_path, "sand", SAND), tif(tmp_path, "clay", CLAY, suffix="_5-15cm_mean")]
    with pytest.raises(ValueError, match=r"different depths \(sand: 0-5 cm, clay: 5-15 cm\)"):
        soilgrids.open(paths)


def test_other_places_and_damage_are_said(tmp_path):
    one = tif(tmp_path, "sand", SAND)
    other = write(tmp_path / "clay_0-5cm_mean.tif", CLAY, "EPSG:32755", nodata=-32768)
    with pytest.raises(ValueError, match=r"_0-5cm_mean.tif and \w+_0-5cm_mean.tif lie in different CRSs"):
        soilgrids.open([one, other])
    with pytest.raises(ValueError, match=r"sand_0-5cm_mean.tif cannot be"):
        soilgrids.open(truncate(one, 0.3))
    with pytest.raises(ValueError, match=r"no path of a SoilGrids map was given"):
        soilgrids.open([])
