import numpy as np
import pytest
import xarray as xr
from rasters import PLACE, plain, truncate, write

from smgrid.sources import sentinel2

ORDER = ("B04", "B03", "B02", "B08", "SCL")
LEVEL = {"b2": 300, "b3": 600, "b4": 500, "b8": 3000, "b11": 2000, "b12": 1200}


def numbers(names=("b2", "b3", "b4", "b8", "b11", "b12"), shape=(20, 30), seed=0, kind="u2"):
    """Synthetic reflectance x 10000, one array a band."""
    rng = np.random.default_rng(seed)
    return np.stack([np.round(LEVEL[n] * rng.uniform(0.7, 1.3, shape)) for n in names]).astype(kind)


def scene(path, *, add=0, scl=None, **more):
    """A file like those of the product: named uint16 bands, 0 for nodata, the classification last."""
    bands, names = numbers() + np.uint16(add), ["B2", "B3", "B4", "B8", "B11", "B12"]
    if scl is not None:
        bands, names = np.concatenate([bands, np.asarray(scl, "u2")[None]]), [*names, "SCL"]
    return write(path, bands, **{"names": names, "nodata": 0, **more})


def test_the_real_clip_equals_a_plain_read(shared, no_compute):
    path = shared / "sentinel2_clip" / "leipzig_raster.tif"
    found = sentinel2.open(path)
    assert list(found) == ["b2", "b3", "b4", "b8", "b11"]  # b06, b07 and ndvi stay out, b12 is not there
    raw = dict(zip(["b2", "b3", "b4", "b6", "b7", "b8", "b11"], plain(path)))
    for name, values in found.items():
        np.testing.assert_array_equal(values.compute(scheduler="sync"), (raw[name] / 10000).astype("f4"))
        assert values.attrs["units"] == "1" and values.attrs["source_files"] == path.name
    assert "reflectance = stored / 10000" in found.b2.attrs["rule"]
    assert "clouds are not masked" in found.b2.attrs["rule"] and found.b2.attrs["native_resolution"] == "10 m"


def test_bands_without_names_and_the_class_band_last(tmp_path):
    scl = np.tile(np.arange(12), (20, 3))[:, :30]
    bands = np.concatenate([numbers(("b4", "b3", "b2", "b8")), scl[None].astype("u2")])
    bands[:, 0, 4] = 0
    path = write(tmp_path / "S2_L2A_sample.tif", bands, "EPSG:32632", nodata=0)
    with pytest.raises(ValueError, match=r"S2_L2A_sample.tif has no Sentinel-2 band: .*band_5"):
        sentinel2.open(path)
    found = sentinel2.open(path, bands=ORDER, time="2022-06-12")
    assert list(found) == ["b2", "b3", "b4", "b8"]  # no class to be averaged
    clear = (scl >= 4) & (scl <= 7)
    clear[0, 4] = False
    for name, k in [("b4", 0), ("b3", 1), ("b2", 2), ("b8", 3)]:
        np.testing.assert_array_equal(found[name][0], np.where(clear, bands[k] / 10000, np.nan).astype("f4"))
    assert "classes (4, 5, 6, 7) of SCL" in found.b2.attrs["rule"]
    with pytest.raises(ValueError, match=r"band taken for SCL reaches \d+, but classes are whole numbers"):
        sentinel2.open(path, bands=("SCL", "B04", "B03", "B02", "B08"))


# ---- the offset


@pytest.mark.parametrize(
    "name, add, tags, offset",
    [
        ("S2A_MSIL2A_20220612T102031_N0400_R065_T32UQD_20220612T181358", 1000, {}, None),
        ("S2A_MSIL2A_20170612T102031_N0500_R065_T32UQD_20230612T181358", 1000, {}, None),  # reprocessed
        ("S2A_MSIL2A_20170612T102031_N0205_R065_T32UQD_20170612T181358", 0, {}, None),
        ("clip_20220612", 1000, {"PROCESSING_BASELINE": "05.10"}, None),
        ("clip_20220612", 1000, {"BOA_ADD_OFFSET": "-1000"}, None),
        ("clip_20220612", 1000, {}, -1000),
        ("clip_20220612", 0, {}, 0),
        ("clip_20220612", 0, {}, None),  # dark pixels show that nothing was added
        ("S2A_MSIL2A_20220612T102031_N0400_R065_T32UQD_20220612T181358", 0, {}, 0),  # a mirror took it off
    ],
)
def test_the_offset_is_told_never_guessed_from_the_date(tmp_path, name, add, tags, offset):
    path = scene(tmp_path / f"{name}.tif", add=add, tags=tags)
    found = sentinel2.open(path, offset=offset)
    expected = numbers().astype("f8") / 10000
    for k, band in enumerate(sentinel2.NAMES):
        np.testing.assert_array_equal(found[band][0], expected[k].astype("f4"))
    assert ("stored - 1000" in found.b2.attrs["rule"]) == (add == 1000)
    baseline = name.split("_N")[1][:4] if "_N" in name else ""
    told = tags.get("PROCESSING_BASELINE") or (f"{baseline[:2]}.{baseline[2:]}" if baseline else "unknown")
    assert found.b2.attrs["version"] == told


@pytest.mark.parametrize("year", [2016, 2023])
def test_a_doubt_about_the_offset_is_an_error(tmp_path, year):
    path = scene(tmp_path / f"clip_{year}0612.tif", add=1000)
    with pytest.raises(ValueError, match=r"its numbers start at 12\d\d, .* give offset=-1000 .* or offset=0"):
        sentinel2.open(path)


def test_the_word_of_a_file_that_its_values_contradict(tmp_path):
    path = scene(tmp_path / "S2A_MSIL2A_20220612T102031_N0400_R065_T32UQD.tif", add=0)
    with pytest.raises(ValueError, match=r"processing baseline 04.00 says that 1000 was added, .* give offset=0"):
        sentinel2.open(path)
    with pytest.raises(ValueError, match=r"offset is what is added to the stored numbers, 0 or -1000, not 1000"):
        sentinel2.open(path, offset=1000)


# ---- scales


@pytest.mark.parametrize("kind, factor", [("f4", 1e-4), ("f8", 1e-4), ("f4", 1.0), ("u2", 1)])
def test_reflectance_scaled_or_not_is_one_thing(tmp_path, kind, factor):
    values = (numbers(kind="f8") * factor).astype(kind)
    names = ["blue", "green", "red", "nir", "swir16", "swir22"]
    found = sentinel2.open(write(tmp_path / "clip_20170612.tif", values, names=names))
    np.testing.assert_allclose(found.to_array()[:, 0], numbers() / 10000, rtol=1e-6)


@pytest.mark.parametrize("kind, fill, factor", [("u2", 65535, 1), ("i2", -9999, 1), ("f4", -9999, 1e-4)])
def test_a_fill_that_is_not_declared_is_no_value(tmp_path, kind, fill, factor):
    bands = (numbers(("b4", "b8")) * factor).astype(kind)
    bands[0, 3] = fill
    found = sentinel2.open(write(tmp_path / "S2_20150505.tif", bands, names=["B4", "B8"])).b4[0]
    assert found[3].isnull().all() and found.isnull().sum() == 30 and float(found.max()) < 0.1


def test_a_declared_scale_and_offset_are_applied(tmp_path):
    import rasterio

    path, stored = tmp_path / "clip_20230612.tif", numbers() + np.uint16(1000)
    stored[:, 3, 4] = 0  # nodata, which the file does not declare
    write(path, stored, names=["B2", "B3", "B4", "B8", "B11", "B12"])
    with rasterio.open(path, "r+") as out:
        out.scales, out.offsets = (1e-4,) * 6, (-0.1,) * 6
    expected = np.where(stored == 0, np.nan, numbers() / 10000)
    np.testing.assert_allclose(sentinel2.open(path).to_array()[:, 0], expected, atol=1e-7)


@pytest.mark.parametrize(
    "values, message",
    [
        (numbers(kind="f4") / 100, r"have the median [\d.]+, neither reflectance \(0..1\) nor reflectance x 10000"),
        ((numbers(kind="f4") / 20).astype("u1"), r"holds 8-bit numbers, a picture"),
    ],
)
def test_other_scales_are_refused(tmp_path, values, message):
    path = write(tmp_path / "clip_20170612.tif", values, names=["B2", "B3", "B4", "B8", "B11", "B12"])
    with pytest.raises(ValueError, match=r"clip_20170612.tif.*" + message):
        sentinel2.open(path)


# ---- files a band, days, pieces


def test_a_file_a_band_at_its_own_resolution(tmp_path):
    b4, b11 = numbers(("b4",))[0], numbers(("b11",), (10, 15))[0]
    scl = np.full((10, 15), 4, "u1")
    scl[2, 3] = 9
    stem = "T55HDB_20170612T001111"
    files = [
        write(tmp_path / f"{stem}_B04_10m.tif", b4, nodata=0),
        write(tmp_path / f"{stem}_B11_20m.tif", b11, nodata=0, size=20.0),
        write(tmp_path / f"{stem}_SCL_20m.tif", scl, nodata=0, size=20.0),
    ]
    for order in (files, files[::-1]):
        found = sentinel2.open(order)
        assert list(found) == ["b4", "b11"] and found.b4.shape == (1, 20, 30)
        assert found.b11.attrs["native_resolution"] == "20 m" and found.b4.attrs["native_resolution"] == "10 m"
        clear = np.repeat(np.repeat(scl == 4, 2, 0), 2, 1)
        np.testing.assert_array_equal(found.b4[0], np.where(clear, b4 / 10000, np.nan).astype("f4"))
        wide = np.repeat(np.repeat(b11, 2, 0), 2, 1)
        np.testing.assert_array_equal(found.b11[0], np.where(clear, wide / 10000, np.nan).astype("f4"))
        assert str(found.acquired.values[0])[:16] == "2017-06-12T00:11"


def test_days_and_pieces(tmp_path):
    left, top, size = PLACE["EPSG:32755"]
    one = scene(tmp_path / "S2_20170612_a.tif")
    beside = scene(tmp_path / "S2_20170612_b.tif", corner=(left + 30 * size, top))
    later = scene(tmp_path / "S2_20170622.tif")
    found = sentinel2.open([later, beside, one])
    assert found.sizes == {"time": 2, "y": 20, "x": 60}
    both = (numbers()[0] / 10000).astype("f4")
    np.testing.assert_array_equal(found.b2[0], np.hstack([both, both]))
    np.testing.assert_array_equal(found.b2[1], np.hstack([both, both * np.nan]))


def test_chunks_do_not_matter(tmp_path, monkeypatch):
    from smgrid.sources import _scenes

    path = scene(tmp_path / "S2_20170612.tif", scl=np.tile([4, 9, 5], (20, 10)))
    whole = sentinel2.open(path).compute()
    real = _scenes.open_raster
    monkeypatch.setattr(_scenes, "open_raster", lambda *a, **k: real(*a, **k).chunk(y=3, x=13))
    xr.testing.assert_identical(sentinel2.open(path).compute(), whole)


def test_what_is_wrong_with_files_is_said(tmp_path):
    good = scene(tmp_path / "S2_20170612.tif", scl=np.full((20, 30), 4))
    with pytest.raises(ValueError, match=r"S2_20170622.tif have no scene classification \(SCL\), other days have"):
        sentinel2.open([good, scene(tmp_path / "S2_20170622.tif")])
    with pytest.raises(ValueError, match=r"is L1C, reflectance above the atmosphere"):
        sentinel2.open(scene(tmp_path / "S2A_MSIL1C_20170612T102031_N0205.tif"))
    with pytest.raises(ValueError, match=r"s1.tif has no Sentinel-2 band: its bands are \['VV'\]"):
        sentinel2.open(write(tmp_path / "s1.tif", numbers(("b2",)), names=["VV"]))
    with pytest.raises(ValueError, match=r"bare.tif has no CRS"):
        sentinel2.open(scene(tmp_path / "bare.tif", crs=None))
    with pytest.raises(ValueError, match=r"S2_20170612.tif"):
        sentinel2.open(truncate(good, 0.5)).compute()
    thirds = write(tmp_path / "T55HDB_20170612T001111_B11_20m.tif", numbers(("b11",), (8, 8)), size=15.0)
    tens = write(tmp_path / "T55HDB_20170612T001111_B04_10m.tif", numbers(("b4",)))
    with pytest.raises(ValueError, match=r"B11_20m.tif: pixels of 15 do not hold whole pixels of 10"):
        sentinel2.open([tens, thirds])


# ---- stacks of many images, as Earth Engine's toBands makes them


def test_a_stack_of_images_is_its_images(tmp_path):
    names = [f"2017{month}T001101_2017{month}T001059_T55HDB" for month in ("0201", "0601")]
    scl = np.where(np.arange(30) < 25, 4, 9) * np.ones((20, 1))
    apart, bands = [], []
    for name in names:
        apart.append(scene(tmp_path / f"{name}.tif", scl=scl))
        bands.append(plain(apart[-1]))
    labels = [f"{name}_{band}" for name in names for band in ("B2", "B3", "B4", "B8", "B11", "B12", "SCL")]
    stack = write(tmp_path / "stack.tif", np.concatenate(bands).astype("u2"), names=labels, nodata=0)
    found, expected = sentinel2.open(stack), sentinel2.open(apart)
    assert found.sizes["time"] == 2 and found.b4.isnull().mean() == 1 / 6
    for name in expected:
        xr.testing.assert_equal(found[name], expected[name])
    bare = write(
        tmp_path / "bare.tif", np.concatenate(bands).astype("u2"), names=[f"{k}_B4" for k in range(14)], nodata=0
    )
    with pytest.raises(ValueError, match=r"bare.tif stacks the bands of 14 images"):
        sentinel2.open(bare)
