import numpy as np
import pytest
import xarray as xr
from rasters import PLACE, plain, truncate, write

from smgrid.sources import sentinel1
from smgrid.units import conversion

NAMES = ("VV", "VH", "angle")
PRODUCT = "S1A_IW_GRDH_1SDV_20150505T193156_20150505T193221_005789_00770C_85D1"


def backscatter(shape=(20, 30), seed=0):
    """Synthetic VV, VH (dB) and angle."""
    rng = np.random.default_rng(seed)
    vv = rng.normal(-11, 2, shape)
    return np.stack([vv, vv - rng.uniform(5, 9, shape), np.full(shape, 36.0)]).astype("f4")


def power(bands):
    return np.concatenate([10 ** (bands[:2].astype("f8") / 10), bands[2:]]).astype("f4")


@pytest.fixture
def scene(tmp_path):
    return write(tmp_path / f"{PRODUCT}.tif", backscatter(), names=NAMES)


# ---- the real export


def test_the_real_export_equals_a_plain_read(shared, no_compute):
    path = shared / "sentinel1_gee_export" / "FrankFort_Lexington_MultiBand_2024.tif"
    found = sentinel1.open(path, time="2024-03-01")
    assert sorted(found) == ["incidence_angle", "vh", "vv"]  # precipitation and elevation stay out
    assert found.vv.dims == ("time", "y", "x") and found.vv.shape == (1, 126, 144)
    raw = plain(path)
    for k, (name, units) in enumerate([("vv", "dB"), ("vh", "dB"), ("incidence_angle", "degree")]):
        np.testing.assert_array_equal(found[name][0].compute(scheduler="sync"), raw[k].astype("f4"))
        assert found[name].attrs["units"] == units and found[name].attrs["source_files"] == path.name
    assert found.vv.attrs["averaging"] == "dB" and "averaging" not in found.incidence_angle.attrs
    assert sentinel1.open(path).vv.dims == ("y", "x")  # the name tells a year, no day


def test_the_real_export_without_names(shared, tmp_path):
    path = shared / "sentinel1_gee_export" / "FrankFort_Lexington_MultiBand_2024.tif"
    raw = plain(path).astype("f4")
    more = np.concatenate([raw, raw[:1] - raw[1:2], raw[:1] / raw[1:2]])
    bare = write(tmp_path / "bare.tif", more, "EPSG:4326", size=8.98e-5)
    with pytest.raises(ValueError, match=r"bare.tif has no Sentinel-1 band: .* give them: bands=\("):
        sentinel1.open(bare)
    found = sentinel1.open(bare, bands=NAMES)
    np.testing.assert_array_equal(found.vv, raw[0])
    np.testing.assert_array_equal(found.incidence_angle, raw[2])
    with pytest.raises(ValueError, match=r"'vh' is stronger than 'vv'"):
        sentinel1.open(bare, bands=("VH", "VV", "angle"))
    with pytest.raises(ValueError, match=r"incidence angle has the median -\d+"):
        sentinel1.open(bare, bands=("angle", "VH", "VV"))


# ---- units and averages


def test_linear_power_is_told_from_the_values(tmp_path, scene):
    linear = write(tmp_path / "S1_20150505.tif", power(backscatter()), names=NAMES)
    of_db, of_power = sentinel1.open(scene), sentinel1.open(linear)
    np.testing.assert_allclose(of_power.vv, of_db.vv, atol=2e-6)
    assert of_power.vv.attrs["units"] == "dB"
    as_power = sentinel1.open(linear, averaging="linear power")
    np.testing.assert_array_equal(as_power.vv[0], power(backscatter())[0])
    np.testing.assert_allclose(sentinel1.open(scene, averaging="linear power").vh, as_power.vh, rtol=1e-6)


def test_the_two_averages_are_told_apart_and_meet_in_db(scene):
    cell = {"y": 20, "x": 30}
    in_db = sentinel1.open(scene).coarsen(cell).mean()
    in_power = sentinel1.open(scene, averaging="linear power").coarsen(cell).mean()
    assert in_power.vv.attrs["averaging"] == "linear power" and in_power.vv.attrs["units"] == "1"
    back = conversion(in_power.vv.attrs["units"], "dB")(in_power.vv.values)
    assert back == pytest.approx(10 * np.log10(power(backscatter())[0].mean(dtype="f8")), abs=1e-5)
    higher = (back - in_db.vv).values.item()  # by ln(10) / 20 times the variance, here 2 dB squared
    assert higher == pytest.approx(np.log(10) / 20 * backscatter()[0].var(), rel=0.1)


@pytest.mark.parametrize(
    "change, scale, message",
    [
        (lambda b: np.stack([b[0] * 0 + 180, b[1] * 0 + 90, b[2]]), None, r"those are digital numbers"),
        (lambda b: np.stack([b[0] * 100, b[1] * 100, b[2]]), None, r"'vv' has the median -1\d+ .* dB x 100"),
        (lambda b: np.stack([b[0] + 14, b[1] + 14, b[2]]), None, r"'vv' has the median 2.9.* and 5 % below 0"),
        (lambda b: b, "linear", r"100 % below 0, smallest .*, but scale says 'linear'"),
        (power, "dB", r"0 % below 0, .* but scale says 'dB'"),
        (lambda b: b * np.nan, None, r"'vv' has no value where it was looked at, .*: give scale="),
    ],
)
def test_a_doubt_about_the_scale_is_an_error(tmp_path, change, scale, message):
    path = write(tmp_path / "S1_20150505.tif", change(backscatter()).astype("f4"), names=NAMES)
    with pytest.raises(ValueError, match=r"S1_20150505.tif: .*" + message):
        sentinel1.open(path, scale=scale)


def test_declared_scale_of_integers_is_applied(tmp_path):
    import rasterio

    bands = np.round(backscatter() * 100).astype("i2")
    path = write(tmp_path / "S1_20150505.tif", bands, names=NAMES)
    with rasterio.open(path, "r+") as out:
        out.scales = (0.01, 0.01, 0.01)
    np.testing.assert_allclose(sentinel1.open(path).vv[0], bands[0] / 100, rtol=1e-6)


def test_a_scene_unseen_where_looked_at_opens_at_the_callers_word(tmp_path):
    path = write(tmp_path / "S1_20150505.tif", backscatter() * 0, names=NAMES)
    assert np.isnan(sentinel1.open(path, scale="dB").to_array()).all()


# ---- what was not seen


@pytest.mark.parametrize("linear", [False, True])
def test_border_noise_and_the_rim_of_the_swath(tmp_path, linear):
    bands = backscatter()
    bands[:2, :, 0] = -37.0  # strip of border noise
    bands = power(bands) if linear else bands
    bands[:, 5:, 1] = 0.0  # outside the swath, as exports fill it
    bands[0, 3, 3] = np.nan
    found = sentinel1.open(write(tmp_path / "S1_20150505.tif", bands, names=NAMES)).isel(time=0).compute()
    unseen = np.zeros((20, 30), bool)
    unseen[:, 0] = unseen[5:, 1] = True
    np.testing.assert_array_equal(np.isnan(found.vh), unseen)
    np.testing.assert_array_equal(np.isnan(found.incidence_angle), unseen)
    unseen[3, 3] = True
    np.testing.assert_array_equal(np.isnan(found.vv), unseen)
    assert "below -30 dB" in found.vv.attrs["rule"]


@pytest.mark.parametrize("linear", [False, True])
@pytest.mark.parametrize("names", [NAMES, NAMES[1:]])
def test_a_fill_that_is_not_declared_is_no_value(tmp_path, names, linear):
    bands = backscatter()
    bands = (power(bands) if linear else bands)[len(NAMES) - len(names) :]
    for k in range(len(names)):
        bands[k, k, 5] = 1e6 if linear else -9999  # negative power is an error
    found = sentinel1.open(write(tmp_path / "S1_20150505.tif", bands, names=names), scale="linear" if linear else "dB")
    for k, name in enumerate(names):
        values = found[{"angle": "incidence_angle"}.get(name, name.lower())].values[0]
        assert np.isnan(values[k, 5]) and values[np.isfinite(values)].min() > -60 and np.nanmax(values) < 60


def test_quiet_cross_polarisation_is_no_noise(tmp_path):
    bands = backscatter()
    bands[1, 4, 4] = -46.7  # calm water
    found = sentinel1.open(write(tmp_path / "S1_20150505.tif", bands, names=NAMES))
    assert found.vh[0, 4, 4].compute() == np.float32(-46.7)
    alone = sentinel1.open(write(tmp_path / "S1_20150506.tif", bands[1:2], names=["vh"]))
    assert list(alone) == ["vh"] and "not masked (no VV)" in alone.vh.attrs["rule"]


# ---- days, pieces and orbits


def test_the_name_of_the_product_tells_time_and_orbit(scene):
    found = sentinel1.open(scene)
    assert str(found.time.values[0])[:10] == "2015-05-05"
    assert str(found.acquired.values[0])[:19] == "2015-05-05T19:31:56"
    assert found.relative_orbit.values.tolist() == [(5789 - 73) % 175 + 1] == [117]


def test_tags_tell_the_orbit_and_the_caller_has_the_last_word(tmp_path):
    tags = {"relativeOrbitNumber_start": "16", "orbitProperties_pass": "DESCENDING"}
    path = write(tmp_path / "scene.tif", backscatter(), names=NAMES, tags=tags)
    found = sentinel1.open(path, time="2015-05-05T19:31+00:00")
    assert (found.relative_orbit.item(), found.orbit_pass.item()) == (16, "descending")
    assert sentinel1.open(path, orbit=(118, "ascending")).relative_orbit == 118
    with pytest.raises(ValueError, match=r"orbit is \(relative orbit 1..175"):
        sentinel1.open(path, orbit=(200, "ascending"))


def test_scenes_along_time_and_pieces_of_a_day(tmp_path):
    left, top, size = PLACE["EPSG:32755"]
    bands, later = backscatter(), backscatter(seed=1)
    west = write(tmp_path / "S1_20150505_a.tif", bands[:, :, :18], names=NAMES)
    east = write(tmp_path / "S1_20150505_b.tif", bands[:, :, 15:], names=NAMES, corner=(left + 15 * size, top))
    part = write(
        tmp_path / "S1_20150517.tif", later[:, 6:, 2:20], names=NAMES, corner=(left + 2 * size, top - 6 * size)
    )
    for order in ([part, east, west], [west, part, east]):
        found = sentinel1.open(order)
        assert found.time.values.astype("M8[D]").astype(str).tolist() == ["2015-05-05", "2015-05-17"]
        np.testing.assert_array_equal(found.vv[0], bands[0])
        expected = np.full((20, 30), np.nan, "f4")
        expected[6:, 2:20] = later[0, 6:, 2:20]
        np.testing.assert_array_equal(found.vv[1], expected)


def test_chunks_do_not_matter(scene, monkeypatch):
    from smgrid.sources import _scenes

    whole = sentinel1.open(scene, averaging="linear power").compute()
    real = _scenes.open_raster
    monkeypatch.setattr(_scenes, "open_raster", lambda *a, **k: real(*a, **k).chunk(y=7, x=11))
    chunked = sentinel1.open(scene, averaging="linear power")
    assert chunked.vv.chunks == ((1,), (7, 7, 6), (11, 11, 8))
    xr.testing.assert_identical(chunked.compute(), whole)


def test_what_is_wrong_with_files_is_said(tmp_path, scene):
    bare = [write(tmp_path / f"{n}.tif", backscatter(), names=NAMES) for n in "ab"]
    with pytest.raises(ValueError, match=r"the day of \['a.tif', 'b.tif'\] is not known"):
        sentinel1.open(bare)
    with pytest.raises(ValueError, match=r"time has 3 entries, but there are 2 files"):
        sentinel1.open(bare, time=["2015-05-05"] * 3)
    with pytest.raises(ValueError, match=r"time='soon' is no date"):
        sentinel1.open(bare[0], time="soon")
    assert sentinel1.open(bare, time=["2015-05-05", "2015-05-17"]).sizes["time"] == 2
    orbits = [
        write(tmp_path / f"S1_20150505_{n}.tif", backscatter(), names=NAMES, tags={"relative_orbit": n})
        for n in (16, 118)
    ]
    with pytest.raises(ValueError, match=r"of one day \(2015-05-05\) but of different orbits"):
        sentinel1.open(orbits)
    shifted = write(tmp_path / "S1_20150517.tif", backscatter(), names=NAMES, corner=(420003.0, 6150000.0))
    with pytest.raises(ValueError, match=r"do not share one lattice: along x .* 0.3 pixels apart"):
        sentinel1.open([scene, shifted])
    with pytest.raises(ValueError, match=r"S1_20150517.tif"):
        sentinel1.open(truncate(shifted)).compute()
    twice = write(
        tmp_path / "twice.tif", np.concatenate([backscatter(), backscatter()]), names=[*NAMES, "vv", "vh", "b"]
    )
    with pytest.raises(ValueError, match=r"'vv' is there 2 times"):
        sentinel1.open(twice)
    with pytest.raises(ValueError, match=r"averaging is one of"):
        sentinel1.open(scene, averaging="power")
    with pytest.raises(ValueError, match=r"scale is 'dB' or 'linear'"):
        sentinel1.open(scene, scale="db")


# ---- stacks of many images, as Earth Engine's toBands makes them


def test_a_stack_of_images_is_its_images(tmp_path):
    names = [PRODUCT, PRODUCT.replace("20150505", "20150517").replace("005789", "005964")]
    scenes = [backscatter(seed=k) for k in range(2)]
    apart = [write(tmp_path / f"{name}.tif", bands, names=NAMES) for name, bands in zip(names, scenes)]
    labels = [f"1_{name}_{band}" for name in names for band in NAMES]
    stack = write(tmp_path / "stack.tif", np.concatenate(scenes), names=labels)
    found, expected = sentinel1.open(stack), sentinel1.open(apart)
    assert found.relative_orbit.values.tolist() == expected.relative_orbit.values.tolist() != [0, 0]
    for name in expected:
        xr.testing.assert_equal(found[name], expected[name])
    dated = write(tmp_path / "dated.tif", scenes[0], names=[f"20150905T190400_{band}" for band in NAMES])
    assert sentinel1.open(dated).acquired.values.astype("M8[s]").astype(str).tolist() == ["2015-09-05T19:04:00"]


def test_a_stack_without_dates_is_refused_unless_it_is_one_image(tmp_path):
    scenes = np.concatenate([backscatter(seed=k) for k in range(2)])
    path = write(tmp_path / "S1_20150505.tif", scenes, names=[f"{k}_{band}" for k in range(2) for band in NAMES])
    with pytest.raises(ValueError, match=r"20150505.tif stacks the bands of 2 images, \['0', '1'\].*'0' holds no day"):
        sentinel1.open(path)
    one = write(tmp_path / "S1_20150517.tif", scenes[:3], names=[f"0_{band}" for band in NAMES])
    assert str(sentinel1.open(one).time.values[0])[:10] == "2015-05-17"
    assert str(sentinel1.open(one, time="2016-01-01").time.values[0])[:10] == "2016-01-01"
