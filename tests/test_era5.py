"""ERA5-Land and ERA5 to UTC days: accumulation seen and undone, old and new forms of the files, real files."""

import dask
import netCDF4
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from smgrid import sources

RNG = np.random.default_rng(5)
LAT, LON = np.round(np.arange(-34.5, -35.05, -0.1), 1), np.round(np.arange(146.0, 146.55, 0.1), 1)


def hours(days, start="2015-05-14", first=0):
    return pd.date_range(start, periods=24 * days + 1, freq="h")[first:]


def storm(days=4, cells=(6, 6)):
    """Synthetic rain of each hour that ends at hour 1, 2, ... 24 * days; spells of some hours, dry between; m."""
    rain = RNG.gamma(0.5, 2e-3, (24 * days, *cells)) * (RNG.random((24 * days, 1, 1)) < 0.3)
    return rain.astype("f4").astype("f8")


def accumulate(rain):
    """As ERA5-Land stores it: from 00 UTC on, the first value (hour 0) being the total of a day before, here 0.01."""
    run = rain.reshape(-1, 24, *rain.shape[1:]).cumsum(1).reshape(rain.shape)
    return np.concatenate([np.full((1, *rain.shape[1:]), 0.01), run])


def dataset(values, time, *, name="tp", units="m", lat=LAT, lon=LON, new=True, **attrs):
    dim = "valid_time" if new else "time"
    data = xr.Dataset(
        {name: ((dim, "latitude", "longitude"), np.asarray(values, "f4"), {"units": units, **attrs})},
        {dim: time, "latitude": ("latitude", lat), "longitude": ("longitude", lon)},
    )
    data["latitude"].attrs["units"], data["longitude"].attrs["units"] = "degrees_north", "degrees_east"
    return data.assign_coords(number=0, expver=(dim, ["0001"] * len(time))) if new else data


def write(data, path, **options):
    data.to_netcdf(path, engine="netcdf4", **options)
    return path


DAYS = pd.date_range("2015-05-14", periods=4)


@pytest.mark.parametrize("new", [True, False])
@pytest.mark.parametrize("product", [None, "ERA5-Land"])
def test_accumulated_rain_is_what_stands_at_the_next_midnight(tmp_path, new, product, no_compute):
    rain = storm()
    path = write(dataset(accumulate(rain), hours(4), new=new), tmp_path / "land.nc")
    data = sources.era5.open(path, product=product)
    assert data.precipitation.attrs["units"] == "m d-1" and data.precipitation.dtype == "float32"
    assert data.precipitation.attrs["product"] == "ERA5-Land" and "00:00" in data.precipitation.attrs["rule"]
    with dask.config.set(scheduler="sync"):
        daily = data.precipitation.sel(time=DAYS).values
        np.testing.assert_allclose(daily, rain.reshape(4, 24, 6, 6).sum(1), rtol=1e-6)
        assert data.precipitation.sel(time="2015-05-13").values == pytest.approx(0.01)  # what midnight of day 1 holds


@pytest.mark.parametrize(
    "name, units, factor",
    [("tp", "m", 1), ("tp", "mm", 1e3), ("mtpr", "kg m**-2 s**-1", 1 / 3.6), ("avg_tprate", "kg m-2 s-1", 1 / 3.6)],
)
def test_hourly_rain_is_summed_from_one_to_midnight(tmp_path, name, units, factor):
    rain = storm()
    stored = np.concatenate([np.full((1, 6, 6), 5e-3), rain]) * factor
    path = write(dataset(stored, hours(4), name=name, units=units), tmp_path / "era5.nc")
    data = sources.era5.open(path)
    found = data.precipitation.sel(time=DAYS).values
    np.testing.assert_allclose(found, rain.reshape(4, 24, 6, 6).sum(1), rtol=2e-6, atol=1e-9)
    assert np.isnan(data.precipitation.sel(time="2015-05-13")).all(), "one of 24 hours is not a day"


@pytest.mark.parametrize("runs_up", [True, False])
def test_a_word_that_the_values_contradict_is_refused(tmp_path, runs_up):
    rain = storm()
    path = write(
        dataset(accumulate(rain) if runs_up else np.concatenate([rain[:1], rain]), hours(4)), tmp_path / "a.nc"
    )
    with pytest.raises(
        ValueError, match=rf"a.nc: 'tp' .*but accumulated={not runs_up} was said.* say accumulated={runs_up}"
    ):
        sources.era5.open(path, accumulated=not runs_up)


@pytest.mark.parametrize("runs_up", [True, False])
def test_rain_that_contradicts_the_product_is_refused_unless_said(tmp_path, runs_up):
    rain = storm()
    stored = accumulate(rain) if runs_up else np.concatenate([rain[:1], rain])
    path = write(dataset(stored, hours(4)), tmp_path / "a.nc")
    other = "ERA5" if runs_up else "ERA5-Land"
    with pytest.raises(ValueError, match=rf"a.nc: 'tp' .*but the product is {other}: say accumulated={runs_up}"):
        sources.era5.open(path, product=other)
    daily = sources.era5.open(path, product=other, accumulated=runs_up).precipitation.sel(time=DAYS)
    np.testing.assert_allclose(daily.values, rain.reshape(4, 24, 6, 6).sum(1), rtol=1e-6)
    assert daily.attrs["product"] == other


def test_the_paper_s_pitfall_summing_accumulated_hours_is_an_order_too_much(tmp_path):
    """What a naive sum gives, and ours: the same rain once as each product stores it gives one answer."""
    rain = storm()
    stored = accumulate(rain)
    land = sources.era5.open(write(dataset(stored, hours(4)), tmp_path / "land.nc")).precipitation.sel(time=DAYS)
    hourly = np.concatenate([rain[:1], rain])
    era5 = sources.era5.open(write(dataset(hourly, hours(4)), tmp_path / "era5.nc")).precipitation.sel(time=DAYS)
    np.testing.assert_allclose(land.values, era5.values, rtol=1e-6)
    assert stored[1:].sum() > 8 * land.values.sum()


def test_dry_days_follow_the_product(tmp_path, caplog):
    caplog.set_level("INFO", "smgrid")
    path = write(dataset(np.zeros((49, 6, 6)), hours(2)), tmp_path / "era5_land_dry.nc")
    data = sources.era5.open(path)
    assert data.precipitation.attrs["product"] == "ERA5-Land" and "next day" in data.precipitation.attrs["rule"]
    assert "too little rain" in caplog.text
    assert (data.precipitation.values == 0).all()


def test_rain_once_a_day_must_be_explained(tmp_path):
    time = pd.date_range("2015-05-14", periods=5)
    path = write(dataset(np.full((5, 6, 6), 0.003), time), tmp_path / "a.nc")
    with pytest.raises(ValueError, match=r"once a day, so it is either .*accumulated=False or accumulated=True"):
        sources.era5.open(path)
    assert list(sources.era5.open(path, accumulated=False).time.values) == list(time)
    assert list(sources.era5.open(path, accumulated=True).time.values) == list(time - pd.Timedelta("1D"))
    assert list(sources.era5.open(path, product="ERA5-Land").time.values) == list(time - pd.Timedelta("1D"))


def test_hours_that_are_left_out_are_not_guessed(tmp_path):
    rain = np.concatenate([np.zeros((1, 6, 6)), storm()])[::3]
    path = write(dataset(rain, hours(4)[::3]), tmp_path / "a.nc")
    with pytest.raises(ValueError, match="'tp' comes every 3 hours, but each value holds one hour's rain"):
        sources.era5.open(path, product="ERA5")
    noons = write(dataset(rain[4::8], hours(4)[12::24]), tmp_path / "b.nc")
    with pytest.raises(ValueError, match="accumulated since 00 UTC, but no value is of 00:00"):
        sources.era5.open(noons, accumulated=True)


def test_small_negatives_are_set_to_0_and_counted_large_ones_refused(tmp_path):
    rain = storm()
    stored = accumulate(rain)
    stored[24, 0, :2] = -1e-9
    data = sources.era5.open(write(dataset(stored, hours(4)), tmp_path / "a.nc")).load()
    assert (data.precipitation.sel(time="2015-05-14").values[0, :2] == 0).all()
    assert data.precipitation_clipped.sel(time=DAYS).values.tolist() == [2, 0, 0, 0]
    stored[24, 0, 0] = -9999
    bad = write(dataset(stored, hours(4)), tmp_path / "b.nc")
    with pytest.raises(ValueError, match=r"b.nc: 'tp' holds -9999: no rain"):
        sources.era5.open(bad, accumulated=True).load()


def kelvin(days=3, cells=(6, 6)):
    return RNG.normal(285, 6, (24 * days, *cells)).astype("f4")


@pytest.mark.parametrize("chunk", [{}, {"valid_time": 7, "latitude": 2, "longitude": 5}])
def test_temperature_is_the_mean_of_the_utc_day(tmp_path, chunk, no_compute):
    t2m = kelvin()
    t2m[5, 1, 1] = np.nan
    data = dataset(t2m, hours(3)[:-1], name="t2m", units="K")
    encoding = {"t2m": {"chunksizes": tuple(chunk.values())}} if chunk else {}
    air = sources.era5.open(write(data, tmp_path / "t.nc", encoding=encoding)).air_temperature
    expected = t2m.astype("f8").reshape(3, 24, 6, 6).mean(1) - 273.15
    assert air.attrs["units"] == "degC" and air.dtype == "float32"
    with dask.config.set(scheduler="sync"):
        np.testing.assert_allclose(air.values, expected.astype("f4"), rtol=0, atol=1e-6)
        assert np.isnan(air.values[0, 1, 1]) and np.isnan(air.values).sum() == 1


def test_incomplete_days_are_missing_unless_said(tmp_path, caplog):
    t2m = kelvin()[:60]  # two and a half days
    path = write(dataset(t2m, hours(3)[:60], name="t2m", units="K"), tmp_path / "t.nc")
    air = sources.era5.open(path).air_temperature
    assert np.isfinite(air.values).all((1, 2)).tolist() == [True, True, False]
    assert "of at least 24 values" in air.attrs["rule"]
    half = sources.era5.open(path, min_hours=12).air_temperature.values[2]
    np.testing.assert_allclose(half, t2m[48:].astype("f8").mean(0) - 273.15, atol=1e-5)
    synoptic = write(dataset(t2m[:48:6], hours(3)[:48:6], name="t2m", units="K"), tmp_path / "s.nc")
    assert np.isnan(sources.era5.open(synoptic).air_temperature.values).all()
    assert "'t2m': no day has the 24 values" in caplog.text
    assert np.isfinite(sources.era5.open(synoptic, min_hours=4).air_temperature.values).all()
    with pytest.raises(ValueError, match="min_hours counts hours of a day, 1 to 24, not 0"):
        sources.era5.open(path, min_hours=0)


@pytest.mark.parametrize("labels", [[1, 5], [5, 1], ["0005", "0001"]])
def test_mixed_expver_of_old_files_is_merged_final_first(tmp_path, labels):
    t2m = kelvin(2)
    whole = dataset(t2m, hours(2)[:-1], name="t2m", units="K", new=False)
    final, early = whole.copy(deep=True), whole.copy(deep=True) + 1
    final["t2m"][30:], early["t2m"][:20] = np.nan, np.nan  # hours 20..29 are in both
    parts = {"1": final, "5": early}
    mixed = xr.concat([parts[str(label)[-1]] for label in labels], pd.Index(labels, name="expver"))
    mixed["t2m"].attrs = whole["t2m"].attrs
    air = sources.era5.open(write(mixed.transpose("time", "expver", ...), tmp_path / "m.nc")).air_temperature
    truth = t2m.astype("f8").copy()
    truth[30:] += 1
    np.testing.assert_allclose(air.values, truth.reshape(2, 24, 6, 6).mean(1) - 273.15, atol=1e-5)
    assert air.attrs["version"].count("expver") >= 1 and "5" in air.attrs["version"]


def test_preliminary_files_give_way_to_final_ones(tmp_path):
    final, time = kelvin(), hours(3)[:-1]
    files = []
    for name, values, version, part in (
        ("a_early", final + 5, "0005", slice(0, 48)),
        ("b_final", final, "0001", slice(24, None)),
    ):
        data = dataset(values, time, name="t2m", units="K").isel(valid_time=part)
        files.append(
            write(
                data.assign_coords(expver=("valid_time", [version] * data.sizes["valid_time"])), tmp_path / f"{name}.nc"
            )
        )
    wanted = sources.era5.open(files[1]).air_temperature
    for paths in (files, files[::-1]):
        air = sources.era5.open(paths).air_temperature
        assert (np.diff(air.time) > np.timedelta64(0)).all()
        np.testing.assert_array_equal(air.sel(time=wanted.time), wanted)


def test_longitudes_0_to_360_and_rows_from_the_south_are_turned(tmp_path):
    lat, lon = np.arange(-1, 1.5, 0.5, "f4"), np.arange(0, 360, 0.5, "f4")
    t2m = RNG.normal(280, 5, (24, lat.size, lon.size)).astype("f4")
    time = hours(1)[:-1]
    path = write(dataset(t2m, time, name="t2m", units="K", lat=lat, lon=lon), tmp_path / "g.nc")
    air = sources.era5.open(path).air_temperature
    assert (air.y.values == [1, 0.5, 0, -0.5, -1]).all() and (air.x.values == np.arange(-180, 180, 0.5)).all()
    expected = t2m.astype("f8").mean(0) - 273.15
    for place in (0, 100, 359, 360, 719):
        there = air.sel(y=-0.5, x=(lon[place] + 180) % 360 - 180).values
        assert there == pytest.approx(expected[1, place], abs=1e-5)
    east = dataset(t2m[..., :20], time, name="t2m", units="K", lat=lat, lon=lon[:20] + 175)
    with pytest.raises(ValueError, match=r"e.nc: the window crosses 180 degrees"):
        sources.era5.open(write(east, tmp_path / "e.nc"))


def test_points_need_not_be_multiples_of_the_step(tmp_path):
    lat, lon = np.float32([-34.65, -34.9, -35.15]), np.float32([145.8, 146.05, 146.3])
    data = dataset(kelvin(1, (3, 3)), hours(1)[:-1], name="t2m", units="K", lat=lat, lon=lon)
    air = sources.era5.open(write(data, tmp_path / "p.nc")).air_temperature
    assert air.y.values.tolist() == [-34.65, -34.9, -35.15] and air.x.values.tolist() == [145.8, 146.05, 146.3]
    bent = dataset(kelvin(1, (3, 3)), hours(1)[:-1], name="t2m", units="K", lat=lat, lon=[145.8, 146.0, 146.3])
    with pytest.raises(ValueError, match=r"b.nc: 'longitude' is not a regular axis: its steps are 0.2 to 0.3"):
        sources.era5.open(write(bent, tmp_path / "b.nc"))


def test_forecasts_by_start_and_step_are_laid_on_one_axis(tmp_path):
    """As cfgrib lays out ERA5-Land: a forecast from each midnight, steps of 1 to 24 hours."""
    rain = storm()
    run = accumulate(rain)[1:].reshape(4, 24, 6, 6)
    valid = hours(4)[1:].values.reshape(4, 24)
    data = xr.Dataset(
        {"tp": (("time", "step", "latitude", "longitude"), run.astype("f4"), {"units": "m"})},
        {
            "time": DAYS,
            "step": np.arange(1, 25),
            "latitude": LAT,
            "longitude": LON,
            "valid_time": (("time", "step"), valid),
        },
    )
    daily = sources.era5.open(write(data, tmp_path / "f.nc")).precipitation
    assert list(daily.time.values) == list(DAYS)
    np.testing.assert_allclose(daily.values, rain.reshape(4, 24, 6, 6).sum(1), rtol=1e-6)


def test_files_may_split_time_and_variables_and_overlap(tmp_path):
    rain, t2m = storm(), kelvin(4)
    tp = dataset(accumulate(rain), hours(4))
    write(tp.isel(valid_time=slice(40, None)), tmp_path / "a.nc")  # out of order, overlapping
    write(tp.isel(valid_time=slice(0, 50)), tmp_path / "b.nc")
    write(dataset(t2m, hours(4)[:-1], name="t2m", units="K"), tmp_path / "c.nc")
    whole = sources.era5.open(sorted(tmp_path.glob("*.nc"))).sel(time=DAYS)
    np.testing.assert_allclose(whole.precipitation.values, rain.reshape(4, 24, 6, 6).sum(1), rtol=1e-6)
    np.testing.assert_allclose(
        whole.air_temperature.values, t2m.astype("f8").reshape(4, 24, 6, 6).mean(1) - 273.15, atol=1e-5
    )
    assert (
        whole.precipitation.attrs["source_files"] == "b.nc, a.nc"
        or whole.precipitation.attrs["source_files"] == "a.nc, b.nc"
    )
    other = dataset(t2m, hours(4)[:-1], name="t2m", units="K", lat=LAT + 0.05)
    with pytest.raises(ValueError, match=r"d.nc and .*a.nc lie on other cells \(y of 6 from"):
        sources.era5.open([tmp_path / "a.nc", write(other, tmp_path / "d.nc")])


# ---- what is wrong


@pytest.mark.parametrize(
    "change, says",
    [
        (dict(units="degF"), "'t2m' is in 'degF', which does not convert to 'degC'"),
        (dict(units=None), "'t2m' is in None"),
        (dict(units="degC"), r"'t2m' gives 28\d.* degC of air_temperature, where -100 to 70 are possible"),
        (dict(name="u10"), r"holds none of the variables \['t2m'"),
    ],
)
def test_wrong_units_and_variables_are_named(tmp_path, change, says):
    data = dataset(kelvin(1), hours(1)[:-1], **{"name": "t2m", "units": "K", **change})
    for attrs in (v.attrs for v in data.data_vars.values()):
        if attrs["units"] is None:
            del attrs["units"]
    with pytest.raises(ValueError, match=rf"w.nc.*{says}"):
        sources.era5.open(write(data, tmp_path / "w.nc")).load()


def test_a_fill_taken_for_a_value_is_refused(tmp_path):
    t2m = kelvin(1)
    t2m[3, 2, 2] = 9.96921e36
    data = dataset(t2m, hours(1)[:-1], name="t2m", units="K")
    with pytest.raises(ValueError, match=r"f.nc: 't2m' gives .* a fill taken for a value"):
        sources.era5.open(write(data, tmp_path / "f.nc", encoding={"t2m": {"_FillValue": None}})).load()


@pytest.mark.parametrize(
    "content, says",
    [
        (b"", "an empty file"),
        (b"PK\x03\x04..", "a zip archive: unpack it first"),
        (b'{"message": "no"}', "a page of text"),
    ],
)
def test_files_of_another_kind_are_named(tmp_path, content, says):
    path = tmp_path / "x.nc"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"x.nc cannot be opened.*{says}"):
        sources.era5.open(path)


def test_damaged_files_raise_and_name_file_and_variable(tmp_path):
    path = tmp_path / "d.nc"
    data = dataset(kelvin(10), hours(10)[:-1], name="t2m", units="K")
    write(data, path, encoding={"t2m": {"zlib": True, "chunksizes": (24, 6, 6)}})
    truth, whole = sources.era5.open(path).load(), path.read_bytes()
    rng = np.random.default_rng(0)
    named = 0
    for k in range(30):
        bad, there = bytearray(whole), tmp_path / f"d{k}.nc"
        if k % 2:
            del bad[len(bad) * (k + 1) // 32 :]
        else:
            bad[(at := len(bad) * (k + 1) // 32) : at + 64] = bytes(rng.integers(0, 256, 64, "u1"))
        there.write_bytes(bad)
        try:
            found = sources.era5.open(there).load(scheduler="sync")
        except ValueError as error:
            assert there.name in str(error)
            named += "'t2m'" in str(error)
        else:
            assert k % 2 == 0, "a truncated file must not open"
            np.testing.assert_array_equal(found.air_temperature.values, truth.air_temperature.values)
    assert named


def test_ensembles_are_refused(tmp_path):
    data = dataset(kelvin(1), hours(1)[:-1], name="t2m", units="K").drop_vars("number").expand_dims(number=[0, 1])
    with pytest.raises(ValueError, match=r"e.nc: \['t2m'\] have 2 'number': select one"):
        sources.era5.open(write(data, tmp_path / "e.nc"))
    with pytest.raises(ValueError, match="product is one of"):
        sources.era5.open(tmp_path / "e.nc", product="era5")


# ---- real files


@pytest.mark.parametrize("folder", ["era5_netcdf_grib/cds_new_netcdf", "smap_era5_yanco_2018_2020/ERA5"])
def test_real_soil_water_equals_a_plain_read(shared, folder):
    paths = sorted((shared / folder).glob("*.nc"))
    groups = [paths] if "yanco" in folder else [[path] for path in paths]
    for some in groups:
        data = sources.era5.open(some)
        frames = []
        for path in some:
            with netCDF4.Dataset(path) as file:
                file.set_auto_mask(False)
                times = pd.to_datetime(file["valid_time"][:], unit="s")
                values = np.asarray(file["swvl1"][:], "f8").reshape(times.size, -1)
                shape, lat = file["swvl1"].shape[1:], np.asarray(file["latitude"][:])
            frames.append(pd.DataFrame(values, index=times))
        table = pd.concat(frames)
        table = table[~table.index.duplicated()].sort_index()
        day = table.index.floor("D")
        days = day.unique()
        parts = [table.values[day == one] for one in days]
        means = np.array([part.mean(0) if len(part) == 24 else np.full(part.shape[1], np.nan) for part in parts])
        assert list(data.time.values) == list(days)
        np.testing.assert_allclose(data.swvl1.values.reshape(len(days), -1), means, rtol=2e-7, atol=0)
        assert np.isfinite(means).any() and data.swvl1.shape[1:] == shape
        np.testing.assert_allclose(data.y.values, lat, atol=1e-6)
        assert data.swvl1.attrs["product"] == "ERA5" and data.swvl1.attrs["version"] == "expver 0001"


def test_real_zampy_files(shared, tmp_path, caplog):
    """Sea points of ERA5-Land stay missing; four hours of a mean rate are no day, but their mean is right."""
    folder = shared / "era5_netcdf_grib" / "zampy"
    land = sources.era5.open(folder / "era5-land_air_temperature_2020-1.nc", min_hours=4)
    assert land.air_temperature.attrs["product"] == "ERA5-Land" and np.isnan(land.air_temperature.values).all()
    rain = sources.era5.open(folder / "era5_total_precipitation_2020-1.nc")
    assert np.isnan(rain.precipitation.values).all() and "no day has the 24 values" in caplog.text
    with netCDF4.Dataset(folder / "era5_total_precipitation_2020-1.nc") as file:
        rate = np.asarray(file["mtpr"][:], "f8")
    day = xr.open_dataset(folder / "era5_total_precipitation_2020-1.nc").load().isel(valid_time=[0, 1, 2, 3] * 6)
    day["valid_time"] = hours(1, first=1)
    found = sources.era5.open(write(day, tmp_path / "day.nc")).precipitation.values[0]
    np.testing.assert_allclose(found, rate.mean(0) * 86.4, rtol=1e-6)


def test_real_grib_equals_a_plain_read(shared):
    pytest.importorskip("cfgrib")
    import rasterio

    path = shared / "era5_netcdf_grib" / "grib" / "era5-2mt-2019-03-uk.grib"
    data = sources.era5.open(path)
    with rasterio.open(path) as file:
        raw = file.read().astype("f8")
    celsius = raw if np.abs(raw).max() < 100 else raw - 273.15  # GDAL turns kelvin to Celsius, by its own setting
    np.testing.assert_allclose(data.air_temperature.values, celsius.reshape(31, 24, 33, 49).mean(1), atol=1e-4)


def test_grib_without_the_extra_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "cfgrib", None)
    path = tmp_path / "a.grib"
    path.write_bytes(b"GRIB" + bytes(100))
    with pytest.raises(ImportError, match=r"a.grib is GRIB, .*pip install 'smgrid\[grib\]'"):
        sources.era5.open(path)
