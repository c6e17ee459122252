import dask.array
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from scipy.interpolate import CubicSpline, PchipInterpolator

from smgrid.grid import YANCO, Grid
from smgrid.splines import interpolate_cells
from smgrid.temporal import daily_mean, interpolate, trailing_mean, trailing_median

START = pd.Timestamp("2015-05-01")


def days(*numbers):
    return (START + pd.to_timedelta(np.ravel(numbers), "D")).as_unit("ns")


def make(values, at, **attrs):
    values = np.asarray(values, "f4") if np.asarray(values).dtype != "f8" else np.asarray(values)
    dims = ("time", *("y", "x")[: values.ndim - 1])
    return xr.DataArray(values, {"time": days(at)}, dims, "ndvi", {"units": "1", **attrs})


def gappy(steps=14, shape=(6, 7), missing=0.4, seed=0):
    """A synthetic series on uneven days, with gaps of each cell's own."""
    rng = np.random.default_rng(seed)
    at = np.sort(rng.choice(np.arange(100), steps, replace=False))
    values = rng.uniform(0, 0.5, (steps, *shape)).astype("f4")
    values[rng.random(values.shape) < missing] = np.nan
    return make(values, at)


ORACLES = {
    "spline": lambda x, y, t: CubicSpline(x, y)(t),
    "pchip": lambda x, y, t: PchipInterpolator(x, y)(t),
    "linear": lambda x, y, t: np.interp(t, x, y),
}


# ---- interpolation


@pytest.mark.parametrize("how", ORACLES)
@pytest.mark.parametrize("missing", [0, 0.4, 0.8])
def test_each_cell_is_what_scipy_makes_of_its_own_observations(how, missing):
    series = gappy(missing=missing, seed=1)
    wanted = np.arange(-3, 104.0, 1.5)
    found = interpolate(series, days(wanted), how=how, max_gap=25)
    at = (series.indexes["time"] - START) / pd.Timedelta(1, "D")
    few = set()
    for cell in np.ndindex(series.shape[1:]):
        y = series.values[(slice(None), *cell)]
        known = np.isfinite(y)
        x, y = at[known], y[known].astype("f8")
        few.add(min(len(x), 4))
        expected = np.full(wanted.size, np.nan)
        for k, t in enumerate(wanted):
            if t in x:
                expected[k] = y[list(x).index(t)]
            elif len(x) > 1 and x[0] < t < x[-1]:
                right = np.searchsorted(x, t)
                if x[right] - x[right - 1] <= 25:
                    expected[k] = ORACLES[how](x, y, t)
        np.testing.assert_allclose(found.values[(slice(None), *cell)], expected, rtol=1e-6, atol=3e-7)
    assert few >= {2, 3, 4} or missing < 0.8


@given(
    powers=st.lists(st.floats(-2, 2), min_size=4, max_size=4),
    at=st.lists(st.integers(0, 60), min_size=4, max_size=12, unique=True),
)
def test_splines_reproduce_cubics_and_all_reproduce_lines(powers, at):
    at = np.sort(np.array(at, "f8"))
    wanted = np.linspace(at[0], at[-1], 23)

    def polynomial(t, degree):
        return sum(powers[k] * (t / 60) ** k for k in range(degree + 1))

    for how, degree in (("spline", 3), ("pchip", 1), ("linear", 1)):
        values = polynomial(at, degree)[:, None]
        found = interpolate_cells(values, at=at, wanted=wanted, how=how, max_gap=100)
        np.testing.assert_allclose(found[:, 0], polynomial(wanted, degree), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("how", ORACLES)
def test_observations_come_back_on_their_days(how):
    series = gappy()
    found = interpolate(series, series.time, how=how, max_gap=0.5)
    np.testing.assert_array_equal(found, series)  # the gap allowed lets nothing else through
    filled = interpolate(series, series.time, how=how, max_gap=1000)
    np.testing.assert_array_equal(filled.values[np.isfinite(series)], series.values[np.isfinite(series)])
    assert np.isfinite(filled).sum() > np.isfinite(series).sum()


def test_pchip_stays_between_its_neighbours_where_a_spline_overshoots():
    series = make([0.05, 0.05, 0.45, 0.44, 0.44], [0, 3, 5, 8, 11])
    wanted = days(np.arange(0, 11, 0.25))
    assert interpolate(series, wanted, how="pchip").max() <= np.float32(0.45)
    spline = interpolate(series, wanted, how="spline")
    assert spline.max() > 0.48 and spline.min() < 0.02  # which is said, not clipped


def test_gaps_are_counted_between_the_valid_observations():
    series = make([0.1, np.nan, 0.2, 0.3], [0, 8, 17, 33])
    found = interpolate(series, days(4, 12, 17, 20, 33, 34), how="linear", max_gap=16)
    np.testing.assert_array_equal(np.isfinite(found), [False, False, True, True, True, False])
    assert np.isfinite(interpolate(series, days(4), how="linear", max_gap=17)).all()


@pytest.mark.parametrize("how", ORACLES)
def test_the_order_of_the_series_does_not_matter(how):
    series = xr.concat([gappy(), gappy(seed=2), gappy(seed=3)], "time")  # days come up to three times
    rng = np.random.default_rng(0)
    wanted = days(np.arange(5, 90, 7))
    found = interpolate(series, wanted, how=how)
    for _ in range(3):
        xr.testing.assert_identical(
            interpolate(series.isel(time=rng.permutation(series.sizes["time"])), wanted, how=how), found
        )


def test_values_of_one_day_are_averaged():
    series = make([[0.1], [0.3], [0.5], [0.9]], [0, 4, 4, 8])
    series[3, 0] = np.nan
    series = xr.concat([series, make([[0.7], [0.7]], [4, 8])], "time")
    found = interpolate(series, days(0, 2, 4, 8), how="linear")
    np.testing.assert_allclose(found[:, 0], [0.1, 0.3, 0.5, 0.7], rtol=1e-6)


@pytest.mark.parametrize("how", ORACLES)
@pytest.mark.parametrize("kind", ["dates", "days after time", "timedelta"])
def test_composites_are_interpolated_at_the_days_they_were_seen(how, kind):
    """Terra and Aqua, merged: the day of each pixel is within its 16 days, so their order differs from cell to cell."""
    rng = np.random.default_rng(4)
    series = gappy(steps=2, shape=(5, 4), missing=0)
    at = np.arange(0, 160, 8.0)
    values = rng.uniform(0.1, 0.8, (at.size, 5, 4)).astype("f4")
    values[rng.random(values.shape) < 0.2] = np.nan
    lag = rng.integers(0, 16, values.shape).astype("f4")
    lag[0, 0, 0] = np.nan
    series, seen = make(values, at), make(lag, at)
    if kind == "dates":
        nat = np.where(np.isfinite(lag), lag, 0).astype("m8[D]").astype("m8[ns]")
        seen = (seen.time + xr.DataArray(nat, dims=series.dims)).where(np.isfinite(seen)).transpose(*series.dims)
    if kind == "timedelta":
        seen = xr.DataArray((lag * 24).astype("m8[h]").astype("m8[ns]"), {"time": series.time}, series.dims)
        seen = seen.where(np.isfinite(lag))
    wanted = np.arange(30, 130, 4.0)
    found = interpolate(series, days(wanted), how=how, max_gap=60, observed=seen)
    lazy = interpolate(series.chunk(y=2, time=7), days(wanted), how=how, max_gap=60, observed=seen.chunk(x=3))
    np.testing.assert_array_equal(lazy, found)
    for cell in np.ndindex(5, 4):
        here = (slice(None), *cell)
        own = pd.Series(values[here].astype("f8"), at + lag[here])
        own = own[np.isfinite(own.index)].dropna().groupby(level=0).mean()
        expected = ORACLES[how](own.index.to_numpy(), own.to_numpy(), wanted)
        expected[(wanted < own.index[0]) | (wanted > own.index[-1])] = np.nan
        np.testing.assert_allclose(found.values[here], expected, rtol=2e-6, atol=5e-7)


def test_an_instant_is_an_instant():
    instant = pd.Timestamp("2015-05-03T20:13:17.123")
    seen = xr.DataArray([[[instant.to_numpy()]]] * 2, dims=("time", "y", "x"))
    seen[0] = np.datetime64("2015-05-01", "ns")
    series = make(np.array([[[0.1]], [[0.5]]]), [0, 1])
    assert interpolate(series, [instant], observed=seen, max_gap=0.1).item() == np.float32(0.5)
    series = make([0.1, 0.5], [0.0, 1.0])
    found = interpolate(series, np.array(["2015-05-01T06:00"], "M8[s]"), how="linear")
    assert found.item() == pytest.approx(0.2) and found.time.dtype == "M8[ns]"


# ---- trailing


def daily(n=60, shape=(3, 4), missing=0.1, seed=0):
    rng = np.random.default_rng(seed)
    values = rng.gamma(0.3, 0.01, (n, *shape)).astype("f4")
    values[rng.random(values.shape) < missing] = np.nan
    return make(values, np.arange(n), units="m d-1")


@pytest.mark.parametrize("min_count", [None, 1, 5])
def test_trailing_mean_is_that_of_pandas_a_day_late(min_count):
    series = daily()
    wanted = days(9, 3, 40, 59, 60)
    found = trailing_mean(series, wanted, min_count=min_count)
    frame = series.astype("f8").to_series().unstack(["y", "x"])
    frame = frame.reindex(days(np.arange(61)))
    expected = frame.rolling(7, min_periods=min_count or 7).mean().shift(1).loc[wanted]
    np.testing.assert_allclose(found.values.reshape(5, -1), expected, rtol=2e-6, atol=1e-9)
    assert found.dtype == "f4" and found.attrs["units"] == "m d-1"
    assert found.attrs["temporal"].startswith("mean of the 7 days before, the day itself left out")


@given(day=st.integers(8, 50), offset=st.integers(0, 9))
def test_nothing_of_the_day_or_after_is_used(day, offset):
    series = daily(missing=0)
    changed = series.copy(data=series.values.copy())
    changed[day + offset :] = 99
    for verb in (trailing_mean, lambda s, d: trailing_median(s, d, window=20)):
        np.testing.assert_array_equal(verb(changed, days(day)), verb(series, days(day)))
        if offset == 0 and day < 49:
            assert (verb(changed, days(day + 1)) > verb(series, days(day + 1))).any()


def test_a_constant_stays_constant():
    series = make(np.full((30, 2, 2), 0.25, "f4"), np.arange(30))
    for found in (
        trailing_mean(series, days(10, 20)),
        trailing_median(series, days(10, 20), window=5),
        daily_mean(series, min_count=1),
        *(interpolate(series, days(10.5, 20), how=how) for how in ORACLES),
    ):
        assert (found == 0.25).all()


@pytest.mark.parametrize("window", ["365D", 365])
def test_trailing_median_is_that_of_numpy(window):
    rng = np.random.default_rng(0)
    at = np.arange(0, 800, 5)
    values = rng.uniform(0, 1, (at.size, 4, 5)).astype("f4")
    values[rng.random(values.shape) < 0.5] = np.nan
    values[:, 0, 0] = np.nan
    series = make(values, at)
    found = trailing_median(series, days(800, 370), window=window)
    for k, day in enumerate((800, 370)):
        inside = (at < day) & (at >= day - 365)
        flat = values[inside].reshape(inside.sum(), -1)
        expected = [
            np.median(cell[np.isfinite(cell)].astype("f8")) if np.isfinite(cell).any() else np.nan for cell in flat.T
        ]
        np.testing.assert_allclose(found.values[k].ravel(), np.array(expected, "f4"), rtol=1e-7)


def test_a_declared_period_stands_in_where_there_is_nothing():
    series = make(np.arange(1, 13, dtype="f4"), 730 + 30 * np.arange(12), composite="median")  # from 30 April 2017
    period = ("2017-06-01", "2017-08-31")
    found = trailing_median(series, ["2015-05-05", "2018-03-01", "2015-09-15"], period=period)
    inside = series.sel(time=slice(*period))
    assert found.values.tolist() == [
        inside.median(),
        series.sel(time=slice(None, "2018-02-28")).median(),
        inside.median(),
    ]
    assert found.attrs["composite_period"] == (
        "2017-06-01 to 2017-08-31 in place of the window, for 2015-05-05, 2015-09-15"
    )
    assert "composite_period" not in trailing_median(series, "2018-03-01", period=period).attrs


@pytest.mark.parametrize("offset", [0.0, 10.0, -3.5, 9.5])
def test_local_days_are_those_of_pandas(offset):
    rng = np.random.default_rng(0)
    hours = START + pd.to_timedelta(np.arange(24 * 6), "h")
    values = rng.uniform(0, 30, (hours.size, 2)).astype("f4")
    values[50, 1] = np.nan
    series = xr.DataArray(values, {"time": hours.as_unit("ns")}, ("time", "x"), "air_temperature", {"units": "degC"})
    found = daily_mean(series, utc_offset=offset)
    frame = pd.DataFrame(values.astype("f8"), hours + pd.Timedelta(hours=offset))
    groups = frame.groupby(frame.index.normalize())
    expected = groups.mean().where(groups.count() >= 24)
    assert (found.indexes["time"] == expected.index).all()
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert found.attrs["utc_offset"] == f"{offset:+g} h"
    shuffled = series.isel(time=rng.permutation(hours.size))
    xr.testing.assert_identical(daily_mean(shuffled, utc_offset=offset), found)


def test_the_rain_of_the_night_falls_on_the_local_day():
    """Rain at 20 UTC on 16 May is of 17 May in Yanco, so it is outside the week before the 17th, inside that of UTC."""
    hours = pd.Timestamp("2015-05-01") + pd.to_timedelta(np.arange(24 * 20), "h")
    rain = xr.DataArray(np.zeros(hours.size, "f4"), {"time": hours.as_unit("ns")}, "time")
    rain.loc["2015-05-16T20"] = 24.0
    utc, local = (trailing_mean(daily_mean(rain, utc_offset=h), "2015-05-17") for h in (0, 10))
    assert utc.item() == pytest.approx(1 / 7) and local.item() == 0
    assert local.attrs["utc_offset"] == "+10 h"


# ---- lazy, whole, dressed


VERBS = {
    "interpolate": lambda s: interpolate(s, days(10, 33.5, 21)),
    "pchip": lambda s: interpolate(s, days(10, 33.5, 21), how="pchip"),
    "trailing_mean": lambda s: trailing_mean(s, days(10, 33, 21), min_count=3),
    "trailing_median": lambda s: trailing_median(s, days(10, 33, 21), window=30),
    "daily_mean": lambda s: daily_mean(s, min_count=1),
}


@pytest.mark.parametrize("verb", VERBS.values(), ids=VERBS)
@pytest.mark.parametrize("small", [False, True])
def test_chunks_do_not_matter(verb, small, no_compute, monkeypatch):
    if small:
        monkeypatch.setattr("smgrid.series.BLOCK", 200)
        monkeypatch.setattr("smgrid.splines.SLAB", 5)
    series = daily(n=50, shape=(7, 9), missing=0.3)
    whole = verb(series)
    for chunks in ({}, {"time": 1}, {"time": 8, "y": 3, "x": (2, 7)}, {"y": 1}):
        found = verb(series.chunk(chunks))
        assert isinstance(found.data, dask.array.Array) and found.dtype == "f4"
        loaded = found.copy(data=found.data.compute(scheduler="synchronous"))
        assert loaded.dtype == "f4"
        xr.testing.assert_identical(loaded, whole)


@pytest.mark.parametrize("verb", VERBS.values(), ids=VERBS)
def test_what_a_series_is_stays_with_it(verb):
    grid = Grid(1, YANCO.row, YANCO.col, 3, 4)
    series = daily().assign_coords(grid.coords()).assign_coords(acquired=("time", np.arange(60)), orbit=7)
    found = verb(series)
    assert Grid.of(found) == grid and found.name == "ndvi" and found.orbit == 7
    assert "acquired" not in found.coords and set(found.attrs) >= {"units", "temporal"}
    turned = verb(series.transpose("y", "x", "time"))
    xr.testing.assert_identical(turned, found)
    pair = verb(xr.Dataset({"ndvi": series, "sand": series[0].drop_vars(["time", "acquired"]), "other": series * 2}))
    assert list(pair.data_vars) == ["ndvi", "sand", "other"]
    xr.testing.assert_identical(pair.ndvi, found)
    assert "time" not in pair.sand.dims


def test_one_cell_and_one_step_will_do():
    assert interpolate(make([0.5], [3]), days(3)).values.tolist() == [0.5]
    assert trailing_median(make([0.5], [3]), days(4)).values.tolist() == [0.5]
    assert trailing_mean(make([0.5], [3]), days(4), window=1).values.tolist() == [0.5]
    assert daily_mean(make([0.5], [3.25])).values.tolist() == [0.5]
    assert daily_mean(make([0.25, 0.75], [3.25, 3.25])).values.tolist() == [0.5]


# ---- errors


SERIES = daily()


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda: interpolate(SERIES, days(5), how="cubic"), ValueError, r"how is one of .*'pchip'.*, not 'cubic'"),
        (lambda: interpolate(SERIES, days(5), max_gap=0), ValueError, r"max_gap is a number of days above 0, not 0"),
        (lambda: interpolate(SERIES, [125]), TypeError, r"days are dates .*, not int such as 125"),
        (lambda: interpolate(SERIES, np.array([125.0])), TypeError, r"days are dates .*, not float64 such as 125.0"),
        (lambda: interpolate(SERIES, ["in May"]), TypeError, r"days are dates .* not str such as 'in May'"),
        (lambda: interpolate(SERIES, []), ValueError, "no days are asked for"),
        (lambda: interpolate(SERIES, [pd.NaT]), ValueError, r"a day is missing \(NaT\)"),
        (lambda: interpolate(SERIES, days(5, 6, 5)), ValueError, r"2015-05-06 is asked for more than once.*unique\(\)"),
        (
            lambda: trailing_mean(SERIES, days(9.1, 9.6)),
            ValueError,
            r"2015-05-10 is asked for more than once.*normalize",
        ),
        (
            lambda: interpolate(SERIES, days(5).tz_localize("Australia/Sydney")),
            ValueError,
            r"carry the zone Australia/Sydney.*tz_convert\('UTC'\)\.tz_localize\(None\)",
        ),
        (
            lambda: interpolate(SERIES, ["2014-05-05", "2016-05-05"]),
            ValueError,
            r"none of the days \(2014-05-05 to 2016-05-05\) lies within the series, which spans 2015-05-01 to 2015-06",
        ),
        (
            lambda: trailing_mean(SERIES, "2014-05-05"),
            ValueError,
            r"nothing in the 7 days before any of the days \(2014-05-05 to 2014-05-05\): it spans 2015-05-01 to",
        ),
        (
            lambda: trailing_median(SERIES, "2014-05-05", period=("2017-01-01", "2017-12-31")),
            ValueError,
            r"'ndvi' has nothing in the period 2017-01-01 to 2017-12-31: it spans 2015-05-01 to 2015-06-29",
        ),
        (
            lambda: trailing_median(SERIES, days(9), period=("2017-12-31", "2017-01-01")),
            ValueError,
            r"period is \(first, last\)",
        ),
        (lambda: trailing_median(SERIES, days(9), window="36h"), ValueError, r"whole number of days.*'36h'"),
        (lambda: trailing_mean(SERIES, days(9), window=0), ValueError, r"whole number of days, 1 or more, not 0"),
        (lambda: trailing_mean(SERIES, days(9), min_count=8), ValueError, r"at most the window of 7 days, not 8"),
        (
            lambda: trailing_mean(xr.concat([SERIES, SERIES[4:5]], "time"), days(9)),
            ValueError,
            r"'ndvi' has 2 values on 2015-05-05, where one a day is expected: .*daily_mean",
        ),
        (lambda: interpolate(SERIES, days(5), max_gap="5"), ValueError, "max_gap is a number of days above 0, not '5'"),
        (lambda: interpolate(SERIES, days(5), max_gap=None), ValueError, "max_gap is a number of days .* not None"),
        (lambda: trailing_mean(SERIES, days(9), window="7"), ValueError, "whole number of days, 1 or more, not '7'"),
        (lambda: trailing_mean(SERIES, days(9), min_count=1.5), ValueError, "window of 7 days, not 1.5"),
        (
            lambda: trailing_median(SERIES, days(9), window="a year"),
            ValueError,
            "an offset such as '365D', not 'a year'",
        ),
        (
            lambda: trailing_median(SERIES, days(9), period="2017"),
            ValueError,
            r"is \(first, last\), two dates, not '2017'",
        ),
        (lambda: daily_mean(SERIES, utc_offset="10"), ValueError, "hours ahead of UTC, -12 to 14, not '10'"),
        (lambda: daily_mean(SERIES, utc_offset=600), ValueError, r"hours ahead of UTC, -12 to 14, not 600"),
        (lambda: daily_mean(SERIES, min_count=0), ValueError, r"min_count is at least 1, not 0"),
        (lambda: interpolate(SERIES.rename(time="valid_time"), days(5)), ValueError, r"no dimension 'time'.*rename"),
        (lambda: interpolate(SERIES.drop_vars("time"), days(5)), ValueError, r"'time' has no coordinates"),
        (
            lambda: interpolate(SERIES.assign_coords(time=np.arange(60)), days(5)),
            TypeError,
            r"the 'time' of 'ndvi' is int64, not dates: .*decode_cf",
        ),
        (
            lambda: interpolate(SERIES.assign_attrs(scale_factor=1e-4), days(5)),
            ValueError,
            r"'ndvi' \(float32\) still carries \{'scale_factor': 0.0001\}",
        ),
        (
            lambda: interpolate(SERIES, days(5), observed=SERIES[1:]),
            ValueError,
            r"observed has the shape .*'time': 59.* 'ndvi' .*'time': 60",
        ),
        (
            lambda: interpolate(
                SERIES, days(5), observed=SERIES.assign_coords(time=SERIES.time + np.timedelta64(1, "D"))
            ),
            ValueError,
            "observed and the series have different times",
        ),
        (lambda: interpolate(SERIES[:0], days(5)), ValueError, "no time steps at all"),
    ],
)
def test_errors_say_what_to_do(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_a_day_without_a_window_is_said(caplog):
    found = trailing_mean(SERIES, ["2014-05-05", "2015-05-20"], min_count=1)
    assert np.isnan(found[0]).all() and np.isfinite(found[1]).all()
    assert "nothing in the 7 days before 2014-05-05: the result is missing there" in caplog.text


# ---- real files


def test_real_ndvi_is_interpolated_as_scipy_does(shared):
    rasterio = pytest.importorskip("rasterio")
    paths = sorted((shared / "modis_ndvi" / "mod13q1_250m").glob("*.jp2"))
    values = []
    for path in paths:
        with rasterio.open(path) as raster:
            raw = raster.read(1)[:40, :40].astype("f4")
        values.append(np.where((raw >= -2000) & (raw <= 10000), raw / 10000, np.nan))
    at = pd.DatetimeIndex([path.stem[-10:] for path in paths]).as_unit("ns")
    series = xr.DataArray(np.stack(values), {"time": at}, ("time", "y", "x"), "ndvi")
    wanted = pd.DatetimeIndex(["2013-10-01", "2014-04-01", "2014-07-28"])
    found = interpolate(series, wanted, max_gap=70)
    x = (at - START) / pd.Timedelta(1, "D")
    t = (wanted - START) / pd.Timedelta(1, "D")
    whole = np.isfinite(series.values).all(0)
    assert whole.mean() > 0.9
    expected = CubicSpline(x, series.values[:, whole].astype("f8"))(t)
    np.testing.assert_allclose(found.values[:, whole], expected, rtol=1e-5, atol=1e-6)


def test_real_smap_days_between_overpasses(shared):
    """The 9-km point lists of Western Australia: a cell's gaps are its own."""
    files = sorted((shared / "smap_l3_enhanced_9km_points" / "western_australia").glob("*.nc"))
    frames = []
    for path in files[:12]:
        with xr.open_dataset(path) as points:
            frame = points[["latitude", "longitude", "soil_moisture"]].to_dataframe().dropna()
        frames.append(frame.assign(time=pd.Timestamp(path.stem[-10:])))
    table = pd.concat(frames).groupby(["time", "latitude", "longitude"]).soil_moisture.mean().unstack([1, 2])
    table = table.iloc[:, ::97].astype("f4")
    series = xr.DataArray(table.to_numpy(), {"time": table.index.as_unit("ns")}, ("time", "x"), "smap")
    assert 0.1 < np.isnan(series).mean() < 0.9
    wanted = table.index[5:7]
    found = interpolate(series, wanted, how="linear", max_gap=4)
    for k, day in enumerate(wanted):
        for cell in range(series.sizes["x"]):
            own = table.iloc[:, cell].dropna()
            before, after = own[:day], own[day:]
            if len(before) and len(after) and (after.index[0] - before.index[-1]).days <= 4:
                x = (own.index - START) / pd.Timedelta(1, "D")
                expected = np.interp((day - START) / pd.Timedelta(1, "D"), x, own)
                assert found[k, cell].item() == pytest.approx(expected, abs=1e-6)
            else:
                assert np.isnan(found[k, cell])
