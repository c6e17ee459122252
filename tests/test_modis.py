import numpy as np
import pytest
import xarray as xr
from pyproj import CRS, Transformer
from rasters import plain, truncate, write

from smgrid.grid import find_crs
from smgrid.sources import modis

SINU = "+proj=sinu +lon_0=0 +R=6371007.181 +units=m +no_defs"
CELL = 926.625433055833  # m, MOD13A2


def hdf4(path, ndvi, reliability, day, *, name="1 km", product="MOD13A2", begins="2015-04-23", tile=(29, 12), **odd):
    """A granule of MOD13 in its true structure, of a few pixels: the layers read here and what says where they lie."""
    sd = pytest.importorskip("pyhdf.SD")
    file = sd.SD(str(path), sd.SDC.WRITE | sd.SDC.CREATE | sd.SDC.TRUNC)
    ny, nx = np.shape(ndvi)
    layers = {
        "NDVI": (ndvi, sd.SDC.INT16, -3000),
        "EVI": (ndvi, sd.SDC.INT16, -3000),
        "composite day of the year": (day, sd.SDC.INT16, -1),
        "pixel reliability": (reliability, sd.SDC.INT8, -1),
    }
    for layer, (values, kind, fill) in layers.items():
        if layer in odd.get("without", ()):
            continue
        part = file.create(f"{name} 16 days {layer}", kind, (ny, nx))
        part[:] = np.asarray(values, "i2" if kind == sd.SDC.INT16 else "i1")
        part.attr("_FillValue").set(kind, fill)
        if "VI" in layer:
            part.attr("scale_factor").set(sd.SDC.FLOAT64, odd.get("scale", 10000.0))
        part.endaccess()
    cell = odd.get("cell", CELL)
    west, north = (tile[0] - 18) * 1200 * CELL, (9 - tile[1]) * 1200 * CELL
    struct = f"""GROUP=GridStructure
\tGROUP=GRID_1
\t\tGridName="MODIS_Grid_16DAY_1km_VI"
\t\tXDim={nx}
\t\tYDim={ny}
\t\tUpperLeftPointMtrs=({west:.6f},{north:.6f})
\t\tLowerRightMtrs=({west + nx * cell:.6f},{north - ny * cell:.6f})
\t\tProjection=GCTP_SNSOID
\t\tProjParams=(6371007.181000,0,0,0,0,0,0,0,0,0,0,0,0)
"""
    core = f"""
  OBJECT                 = SHORTNAME
        NUM_VAL              = 1
        VALUE                = "{product}"
  END_OBJECT             = SHORTNAME
  OBJECT                 = VERSIONID
        NUM_VAL              = 1
        VALUE                = 61
  END_OBJECT             = VERSIONID
  OBJECT                 = RANGEBEGINNINGDATE
        NUM_VAL              = 1
        VALUE                = "{begins}"
  END_OBJECT             = RANGEBEGINNINGDATE
"""
    file.attr("StructMetadata.0").set(sd.SDC.CHAR, odd.get("struct", struct))
    file.attr("CoreMetadata.0").set(sd.SDC.CHAR, core)
    file.end()
    return path


NDVI = np.array([[-3000, -2000, 0, 5000], [10000, 1234, 2345, 3456]])
RANK = np.array([[-1, 0, 1, 0], [1, 2, 3, 0]])
DAY = np.array([[-1, 113, 120, 128], [113, 114, 115, 129]])


# ---- real files


def test_real_tiles_equal_a_plain_read(shared, no_compute):
    sd = pytest.importorskip("pyhdf.SD")
    paths = sorted((shared / "modis_ndvi" / "hdf4_1km").glob("*.hdf"))
    found = modis.open(paths)
    assert found.ndvi.dims == ("time", "y", "x") and found.ndvi.shape == (2, 1200, 1200)
    assert found.time.values.astype("M8[D]").astype(str).tolist() == ["2025-01-01", "2025-01-09"]
    assert found.ndvi.attrs["product"] == "MOD13A2,MYD13A2" and found.ndvi.attrs["version"] == "061"
    for k, path in enumerate(paths):
        file = sd.SD(str(path))
        raw, rank, day = (
            file.select(f"1 km 16 days {name}")[:].astype("f8")
            for name in ("NDVI", "pixel reliability", "composite day of the year")
        )
        file.end()
        good = (raw != -3000) & ((rank == 0) | (rank == 1))
        ndvi = np.where(good, raw / 10000, np.nan).astype("f4")
        np.testing.assert_array_equal(found.ndvi[k].compute(scheduler="sync"), ndvi)
        after = np.where(day > 0, day - (1, 9)[k], np.nan).astype("f4")
        np.testing.assert_array_equal(found.composite_day[k].compute(scheduler="sync"), after)


def test_a_real_tile_lies_where_it_lies(shared):
    found = modis.open(sorted((shared / "modis_ndvi" / "hdf4_1km").glob("MOD*.hdf")))
    back = Transformer.from_crs(find_crs(found), CRS.from_proj4("+proj=longlat +R=6371007.181"), always_xy=True)
    half = CELL / 2
    lon, lat = back.transform(found.x.values[[0, -1]] + [-half, half], found.y.values[[0, 0]] + half)
    assert lat == pytest.approx([0, 0], abs=1e-9) and lon == pytest.approx([0, 10], abs=1e-9)  # h18v09
    assert np.diff(found.y.values) == pytest.approx(-CELL, abs=1e-6)


def test_real_clips_equal_a_plain_read_within_the_valid_range(shared, no_compute):
    paths = sorted((shared / "modis_ndvi" / "mod13q1_250m").glob("*.jp2"))
    found = modis.open(paths[::-1]).ndvi
    assert found.time.values.astype("M8[D]").astype(str)[[0, -1]].tolist() == ["2013-09-14", "2014-07-28"]
    assert find_crs(found).coordinate_operation.method_name == "Sinusoidal"
    assert found.attrs["native_resolution"] == "231.656 m" and "clouds are not masked" in found.attrs["rule"]
    for k, path in enumerate(paths):
        raw = plain(path)[0]
        expected = np.where((raw >= -2000) & (raw <= 10000), raw / 10000, np.nan).astype("f4")
        np.testing.assert_array_equal(found[k].compute(scheduler="sync"), expected)


# ---- written files, HDF4


@pytest.mark.parametrize("name, product", [("1 km", "MOD13A2"), ("250m", "MOD13Q1"), ("250m", "MYD13Q1")])
def test_ranks_range_and_days(tmp_path, name, product):
    path = hdf4(tmp_path / f"{product}.A2015113.h29v12.061.hdf", NDVI, RANK, DAY, name=name, product=product)
    found = modis.open(path).compute()
    nan = np.nan
    np.testing.assert_array_equal(found.ndvi[0], np.array([[nan, -0.2, 0, 0.5], [1, nan, nan, 0.3456]], "f4"))
    np.testing.assert_array_equal(found.composite_day[0], [[nan, 0, 7, 15], [0, 1, 2, nan]])
    assert found.ndvi.attrs["product"] == product and found.ndvi.attrs["units"] == "1"
    assert found.ndvi.dtype == found.composite_day.dtype == "float32"
    only_good = modis.open(path, quality=[0]).ndvi[0]
    assert np.isfinite(only_good).values.tolist() == [[False, True, False, True], [False, False, False, True]]


@pytest.mark.parametrize("begins, day, after", [("2014-12-19", 3, 15), ("2016-12-18", 1, 14), ("2016-12-18", 366, 13)])
def test_days_go_on_over_the_turn_of_the_year(tmp_path, begins, day, after):
    path = hdf4(tmp_path / "late.hdf", [[5000]] * 2, [[0]] * 2, [[day]] * 2, begins=begins)
    found = modis.open(path)
    assert found.composite_day.values.ravel().tolist() == [after] * 2
    seen = found.time.values[0] + np.timedelta64(after, "D")
    assert int(xr.DataArray(seen).dt.dayofyear) == day


def test_neighbouring_tiles_and_periods_make_one_field(tmp_path):
    ndvi = np.arange(8).reshape(2, 4) * 1000
    tiles = [
        hdf4(tmp_path / f"t{h}_{day}.hdf", ndvi + h, RANK * 0, DAY * 0 + 113, tile=(h, 12), begins=day, cell=CELL * 300)
        for h in (28, 29)
        for day in ("2015-04-23", "2015-05-01")
    ]
    found = modis.open(tiles).ndvi
    assert found.shape == (2, 2, 8)
    np.testing.assert_array_equal(found[1], (np.hstack([ndvi + 28, ndvi + 29]) / 10000).astype("f4"))
    assert found.x.diff("x").values == pytest.approx(CELL * 300)
    xr.testing.assert_identical(modis.open(tiles[::-1]).ndvi.drop_attrs(), found.drop_attrs())


def test_what_is_wrong_with_hdf4_is_said(tmp_path):
    good = hdf4(tmp_path / "good.hdf", NDVI, RANK, DAY)
    twin = hdf4(tmp_path / "twin.hdf", NDVI, RANK, DAY)
    with pytest.raises(ValueError, match=r"good.hdf, twin.hdf are one tile and period twice"):
        modis.open([good, twin])
    with pytest.raises(ValueError, match=r"other.hdf is no MOD13 vegetation index: .* none is ndvi"):
        modis.open(hdf4(tmp_path / "other.hdf", NDVI, RANK, DAY, without=["NDVI"]))
    with pytest.raises(ValueError, match=r"scale.hdf: '1 km 16 days NDVI' has scale_factor 1.0"):
        modis.open(hdf4(tmp_path / "scale.hdf", NDVI, RANK, DAY, scale=1.0))
    with pytest.raises(ValueError, match=r"cmg.hdf: its StructMetadata gives no sinusoidal grid"):
        modis.open(hdf4(tmp_path / "cmg.hdf", NDVI, RANK, DAY, struct="Projection=GCTP_GEO"))
    (tmp_path / "empty.hdf").write_bytes(b"")
    with pytest.raises(ValueError, match=r"empty.hdf is no HDF4 file but an empty file"):
        modis.open(tmp_path / "empty.hdf")
    with pytest.raises(ValueError, match=r"good.hdf"):
        modis.open(truncate(good)).compute()
    with pytest.raises(ValueError, match=r"quality holds ranks"):
        modis.open(twin, quality=[7])
    with pytest.raises(FileNotFoundError, match=r"there is no MODIS file at .*missing.hdf; in that folder are"):
        modis.open(tmp_path / "missing.hdf")


def test_a_file_that_breaks_the_library_down_is_named(tmp_path, monkeypatch):
    path = hdf4(tmp_path / "good.hdf", NDVI, RANK, DAY)
    monkeypatch.setattr(modis, "_TRIAL", "import os\nprint(input(), flush=True)\nos.abort()")
    with pytest.raises(
        ValueError, match=r"good.hdf cannot be opened as HDF4, it is damaged: .* breaks down on it .SIGABRT"
    ):
        modis.open(path)


def test_without_pyhdf_the_extra_is_named(tmp_path, monkeypatch):
    path = hdf4(tmp_path / "good.hdf", NDVI, RANK, DAY)
    monkeypatch.setitem(__import__("sys").modules, "pyhdf.SD", None)
    with pytest.raises(ImportError, match=r"pip install 'smgrid\[modis\]'"):
        modis.open(path)


# ---- written files, clips


def clip(path, values, **more):
    more = {"corner": (13e6, -3.9e6), "size": 231.656358, **more}
    return write(path, values, SINU, **more)


def test_layers_of_a_clip_find_each_other(tmp_path):
    paths = [
        clip(
            tmp_path / f"MOD13Q1.061__250m_16_days_{layer}_doy2015113_aid0001.tif",
            np.asarray(values, kind),
            nodata=fill,
        )
        for layer, values, kind, fill in [
            ("NDVI", NDVI, "i2", -3000),
            ("pixel_reliability", RANK, "i2", -1),
            ("composite_day_of_the_year", DAY, "i2", -1),
        ]
    ]
    whole = modis.open(hdf4(tmp_path / "whole.hdf", NDVI, RANK, DAY))
    found = modis.open(paths)
    for name in ("ndvi", "composite_day"):
        np.testing.assert_array_equal(found[name], whole[name])
    assert found.ndvi.attrs["product"] == "MOD13Q1" and found.ndvi.attrs["version"] == "061"
    assert "ranks (0, 1)" in found.ndvi.attrs["rule"]


def test_bands_of_an_export_are_found_by_name(tmp_path):
    bands = np.stack([NDVI, RANK, DAY]).astype("i2")
    path = clip(tmp_path / "MYD13Q1_2015-04-23.tif", bands, names=["NDVI", "SummaryQA", "DayOfYear"])
    whole = modis.open(hdf4(tmp_path / "whole.hdf", NDVI, RANK, DAY))
    np.testing.assert_array_equal(modis.open(path).ndvi, whole.ndvi)


@pytest.mark.parametrize("factor, kind", [(1, "i2"), (1, "f4"), (1e-4, "f4"), (1e-4, "f8")])
def test_ndvi_scaled_or_not_is_one_thing(tmp_path, factor, kind):
    raw = np.where(NDVI < -2000, -3000, NDVI)
    found = modis.open(clip(tmp_path / "NDVI_20150423.tif", (raw * factor).astype(kind))).ndvi[0]
    expected = np.where(raw == -3000, np.nan, raw / 1e4).astype("f4")
    np.testing.assert_allclose(found, expected, rtol=1.2e-7 if factor < 1 else 0)


@pytest.mark.parametrize(
    "values, kind, name, message",
    [
        ([[80, 160]], "i2", "NDVI_20150423", r"NDVI is int16 with values up to 160 .*its scale is not known"),
        ([[80, 160]], "u1", "NDVI_20150423", r"NDVI is uint8 with values up to 160"),
        ([[150, 743]], "i2", "NDVI_20150423", r"NDVI is nowhere above 743 .*NDVI x 1000.*units='0.001'"),
        ([[20.0, 90.0]], "f4", "NDVI_20150423", r"NDVI is float32 with values up to 90"),
        ([[800, 1600]], "i2", "EVI_20150423", r"is no layer of MOD13"),
        ([[800, 1600]], "i2", "NDVI_april", r"the name holds no day"),
        ([[0, 1]], "i2", "SummaryQA_20150423", r"there is no NDVI layer in SummaryQA_20150423.tif"),
    ],
)
def test_what_is_wrong_with_a_clip_is_said(tmp_path, values, kind, name, message):
    path = clip(tmp_path / f"{name}.tif", np.array(values, kind))
    with pytest.raises(ValueError, match=message):
        modis.open(path)


def test_other_lattices_are_refused(tmp_path):
    one = clip(tmp_path / "NDVI_20150423.tif", NDVI.astype("i2"))
    two = clip(tmp_path / "NDVI_20150509.tif", NDVI.astype("i2"), corner=(13e6 + 100, -3.9e6))
    with pytest.raises(ValueError, match=r"NDVI_20150509.tif and NDVI_20150423.tif do not share one lattice"):
        modis.open([one, two])


def test_a_stack_of_periods_is_its_periods(tmp_path):
    periods = ["2015-04-23", "2015-05-09"]
    bands = [np.stack([np.roll(NDVI, k), RANK, DAY + 16 * k]).astype("i2") for k in range(2)]
    names = ["NDVI", "SummaryQA", "DayOfYear"]
    apart = [clip(tmp_path / f"MOD13Q1_{day}.tif", b, names=names) for day, b in zip(periods, bands)]
    labels = [f"{day.replace('-', '_')}_{name}" for day in periods for name in names]
    stack = clip(tmp_path / "MOD13Q1_all.tif", np.concatenate(bands), names=labels)
    found, expected = modis.open(stack), modis.open(apart)
    for name in expected:
        xr.testing.assert_equal(found[name], expected[name])
    assert found.ndvi.attrs["product"] == "MOD13Q1"
    bare = clip(
        tmp_path / "MOD13Q1_2015-04-23.tif", np.concatenate(bands), names=[f"{k}_{n}" for k in "01" for n in names]
    )
    with pytest.raises(ValueError, match="stacks the bands of 2 images"):
        modis.open(bare)
