"""Carries a series to the days asked for: splines, trailing means, medians.

Products come on days of their own: SMAP every two or three, MODIS composites every eight, ERA5 hourly. A map is wanted
for the day of a radar overpass. `interpolate` looks to both sides of that day, `trailing_mean` and `trailing_median`
only back, and leave the day itself out. All times are UTC and carry no zone; `daily_mean` alone makes other days, by a
fixed offset.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from smgrid.series import Curves, Way, Windows, carried, mean, median
from smgrid.shapes import undecoded

if TYPE_CHECKING:
    import xarray as xr

logger = logging.getLogger("smgrid")

DAY = np.timedelta64(1, "D").astype("m8[ns]")
_HOW = ("spline", "pchip", "linear")


def interpolate(
    series: xr.DataArray | xr.Dataset,
    days: Any,
    *,
    how: str = "spline",
    max_gap: float = 16,
    observed: xr.DataArray | None = None,
) -> xr.DataArray | xr.Dataset:
    """Interpolate each cell's own observations to the days asked for.

    Missing values are passed over, so each cell is interpolated between the observations that it has. Nothing is
    extrapolated. On the day of an observation the result is that observation.

    Parameters
    ----------
    series : DataArray or Dataset, dims (time, ...)
        Missing is NaN. The order of `time` does not matter (several sources may be concatenated); values of one instant
        are averaged. Of a Dataset, variables without `time` are kept as they are.
    days : dates or instants, UTC
        Strings, datetimes, a DatetimeIndex or a `time` coordinate. Whole days are midnight, as in `time`.
    how : {"spline", "pchip", "linear"}
        Cubic spline with not-a-knot ends (a parabola through three observations, a line through two): smooth, but it
        may pass beyond the observations (after rain; NDVI after harvest), which is not clipped. PCHIP: monotone between
        observations, never beyond them. Linear.
    max_gap : float
        Days: where the observations before and after are further apart, the result is NaN. 16 is one missing
        composite in a merged 8-day NDVI series; soil moisture asks for less.
    observed : DataArray, shape of `series`, optional
        When each pixel was really seen: dates, or days after `time` (as `composite_day` of `sources.modis`). Pixels
        without are passed over.

    Returns
    -------
    DataArray or Dataset, dims (time, ...), float32, units of the series
        One step a day, in the order asked; lazy where the series is. `temporal` in the attrs says what was done.

    Raises
    ------
    TypeError, ValueError
        `time` or `days` are not dates; days come twice; no day lies within the series.

    References
    ----------
    de Boor (1978), A Practical Guide to Splines, for not-a-knot ends
    Fritsch & Butland (1984), SIAM J. Sci. Stat. Comput. 5, 300-304, doi:10.1137/0905021

    Examples
    --------
    >>> import xarray as xr
    >>> seen = np.array(["2015-05-14", "2015-05-16", "2015-05-17", "2015-05-19"], "M8[ns]")
    >>> smap = xr.DataArray([0.125, 0.375, np.nan, 0.75], coords={"time": seen}, dims="time")
    >>> interpolate(smap, ["2015-05-15", "2015-05-17", "2015-05-20"], how="linear", max_gap=5).values.tolist()
    [0.25, 0.5, nan]
    """
    return _each(series, _interpolation(days, how=how, max_gap=max_gap, observed=observed), observed)


def trailing_mean(
    series: xr.DataArray | xr.Dataset, days: Any, *, window: int = 7, min_count: int | None = None
) -> xr.DataArray | xr.Dataset:
    """Mean of the days before each day, which itself is left out.

    Parameters
    ----------
    series : DataArray or Dataset, dims (time, ...)
        One value a day, in any order; missing is NaN. The days are what the series says they are: UTC days, or local
        ones made by `daily_mean(..., utc_offset=...)`, and `days` are counted alike.
    days : dates
        As for `interpolate`; an instant counts as its day.
    window : int
        Days: D-7 to D-1 for 7.
    min_count : int, optional
        Days that must be known, or the result is NaN; by default all.

    Returns
    -------
    DataArray or Dataset, dims (time, ...), float32, units of the series
        As for `interpolate`.

    Raises
    ------
    TypeError, ValueError
        `time` or `days` are not dates; days come twice; several values a day; no value before any of the days.

    Examples
    --------
    >>> import xarray as xr
    >>> days = np.array("2015-05-08", "M8[ns]") + DAY * np.arange(10)
    >>> rain = xr.DataArray(np.arange(10.0), coords={"time": days}, dims="time")
    >>> trailing_mean(rain, "2015-05-17").values.tolist()  # 10 to 16 May
    [5.0]
    """
    return _each(series, _mean_before(days, window=window, min_count=min_count))


def trailing_median(
    series: xr.DataArray | xr.Dataset,
    days: Any,
    *,
    window: int | str = "365D",
    period: tuple[str, str] | None = None,
) -> xr.DataArray | xr.Dataset:
    """Median of the time before each day, which itself is left out.

    Parameters
    ----------
    series : DataArray or Dataset, dims (time, ...)
        Any number of values a day (neighbouring scenes), in any order; missing is NaN.
    days : dates
        As for `interpolate`; an instant counts as its day.
    window : int or str
        Days, or a pandas offset such as "365D".
    period : (first, last), dates, optional
        What stands in for the window of a day before which the series has nothing at all: Sentinel-2 did not exist in
        May 2015. It may lie after the day, so it is used only where it is declared here, and the attrs say for which
        days (`composite_period`).

    Returns
    -------
    DataArray or Dataset, dims (time, ...), float32, units of the series
        As for `interpolate`.

    Raises
    ------
    TypeError, ValueError
        `time` or `days` are not dates; days come twice; no value before any of the days, or in the period.

    Examples
    --------
    >>> import xarray as xr
    >>> seen = np.array(["2017-02-01", "2017-05-01", "2017-09-01"], "M8[ns]")
    >>> b4 = xr.DataArray([0.25, 0.5, 0.375], coords={"time": seen}, dims="time")
    >>> composite = trailing_median(b4, ["2015-05-05", "2017-09-01"], period=("2017-01-01", "2017-12-31"))
    >>> composite.values.tolist(), composite.composite_period
    ([0.375, 0.375], '2017-01-01 to 2017-12-31 in place of the window, for 2015-05-05')
    """
    return _each(series, _median_before(days, window=window, period=period))


def daily_mean(
    series: xr.DataArray | xr.Dataset, *, utc_offset: float = 0.0, min_count: int | None = None
) -> xr.DataArray | xr.Dataset:
    """Mean of each day, UTC or local by a fixed offset.

    Parameters
    ----------
    series : DataArray or Dataset, dims (time, ...)
        Several values a day, at instants in UTC; missing is NaN. A value belongs to the day that holds its instant, so
        amounts that are stamped at the end of their hour are to be stamped at its start first.
    utc_offset : float
        Hours that local time is ahead of UTC: 10 makes the days of eastern Australia, of which that of 17 May begins
        at 14:00 UTC on 16 May. No summer time.
    min_count : int, optional
        Values that must be known, or the day is NaN; by default as many as the usual step of the series puts in a day.

    Returns
    -------
    DataArray or Dataset, dims (time, ...), float32, units of the series
        A step for each day of which the series has a value. Lazy where the series is. `utc_offset` in the attrs.

    Raises
    ------
    TypeError, ValueError
        `time` is not dates; the offset is none on this earth.

    Examples
    --------
    >>> import xarray as xr
    >>> hours = np.array("2015-05-15", "M8[ns]") + DAY / 24 * np.arange(72)
    >>> local = daily_mean(xr.DataArray(np.arange(72.0), dims="time", coords={"time": hours}), utc_offset=10)
    >>> local.time.dt.day.values.tolist(), local.values.tolist()
    ([15, 16, 17, 18], [nan, 25.5, 49.5, nan])
    """
    if not (_is_number(utc_offset) and -12 <= utc_offset <= 14):
        raise ValueError(f"utc_offset is in hours ahead of UTC, -12 to 14, not {utc_offset!r}")
    if min_count is not None and not (_is_number(min_count) and min_count >= 1):
        raise ValueError(f"min_count is at least 1, not {min_count!r}")
    at = _midnight(_times(series) + np.timedelta64(round(utc_offset * 3600), "s"))
    found = np.unique(at)
    instants = np.unique(_times(series))
    usual = max(1, round(DAY / np.median(np.diff(instants)))) if instants.size > 1 else 1

    def one(array: xr.DataArray) -> tuple[Way, dict[str, str]]:
        least = min_count or usual
        windows = [np.flatnonzero(at == day) for day in found]
        attrs = {"temporal": "daily mean", "utc_offset": f"{utc_offset:+g} h"}
        return Windows(windows, partial(mean, least=least)), attrs

    return _each(series, Plan(found, one))


# ---- what the verbs will do


class Plan(NamedTuple):
    """Days asked for, and what carries a series to them: the way, and what to say of it."""

    days: NDArray[np.datetime64]
    one: Callable[[xr.DataArray], tuple[Way, dict[str, str]]]


def _interpolation(
    days: Any, *, how: str = "spline", max_gap: float = 16, observed: xr.DataArray | None = None
) -> Plan:
    if how not in _HOW:
        raise ValueError(f"how is one of {_HOW}, not {how!r}")
    if not (_is_number(max_gap) and max_gap > 0):
        raise ValueError(f"max_gap is a number of days above 0, not {max_gap!r}")
    asked = _days(days)

    def one(array: xr.DataArray) -> tuple[Way, dict[str, str]]:
        times = _times(array)
        if observed is None:
            _check_overlap(asked, times.min(), times.max())
        way = Curves((times - asked[0]) / DAY, (asked - asked[0]) / DAY, how, float(max_gap))
        return way, {"temporal": f"{how} interpolation in time over gaps of at most {max_gap:g} days"}

    return Plan(asked, one)


def _mean_before(days: Any, *, window: int = 7, min_count: int | None = None) -> Plan:
    least = window if min_count is None else min_count
    if not (_is_number(window) and window >= 1 and window == int(window)):
        raise ValueError(f"window is a whole number of days, 1 or more, not {window!r}")
    if not (_is_number(least) and 1 <= least <= window and least == int(least)):
        raise ValueError(f"min_count is at least 1 and at most the window of {window} days, not {min_count!r}")
    asked = _days(days, whole=True)

    def one(array: xr.DataArray) -> tuple[Way, dict[str, str]]:
        at = _midnight(_times(array))
        number, counts = np.unique(at, return_counts=True)
        if counts.max() > 1:
            raise ValueError(
                f"{_named(array)} has {counts.max()} values on {_date(number[counts.argmax()])}, where one a day is "
                "expected: series = smgrid.temporal.daily_mean(series)"
            )
        windows = _before(asked, at, window)
        said = f"mean of the {window} days before, the day itself left out"
        if least < window:
            said += f"; {least} at least known"
        return Windows(windows, partial(mean, least=int(least))), {"temporal": said}

    return Plan(asked, one)


def _median_before(days: Any, *, window: int | str = "365D", period: tuple[str, str] | None = None) -> Plan:
    import pandas as pd

    try:
        span = pd.Timedelta(int(window), "D") if isinstance(window, int | np.integer) else pd.Timedelta(window)
    except (ValueError, TypeError) as error:
        raise ValueError(f"window is a whole number of days, or an offset such as '365D', not {window!r}") from error
    if not span >= pd.Timedelta(1, "D") or span % pd.Timedelta(1, "D"):
        raise ValueError(f"window is a whole number of days, 1 or more, not {window!r}")
    asked = _days(days, whole=True)
    if isinstance(period, str) or (period is not None and np.ndim(period) != 1):
        raise ValueError(f"period is (first, last), two dates, not {period!r}")
    declared = None if period is None else _days(list(period), whole=True)
    if declared is not None and not (len(declared) == 2 and declared[0] <= declared[1]):
        raise ValueError(f"period is (first, last) with the first not after the last, not {period!r}")

    def one(array: xr.DataArray) -> tuple[Way, dict[str, str]]:
        at = _midnight(_times(array))
        attrs = {"temporal": f"median of the {span.days} days before, the day itself left out"}
        if declared is None:
            return Windows(_before(asked, at, span.days), median), attrs
        stand_in = np.flatnonzero((at >= declared[0]) & (at <= declared[1]))
        if not stand_in.size:
            raise ValueError(
                f"{_named(array)} has nothing in the period {_date(declared[0])} to {_date(declared[1])}: it spans "
                f"{_date(at.min())} to {_date(at.max())}"
            )
        windows = [np.flatnonzero((at < day) & (at >= day - span.days * DAY)) for day in asked]
        without = [_date(day) for day, found in zip(asked, windows) if not found.size]
        if without:
            shown = ", ".join(without[:8]) + (f" and {len(without) - 8} more days" if len(without) > 8 else "")
            span_text = f"{_date(declared[0])} to {_date(declared[1])}"
            attrs["composite_period"] = f"{span_text} in place of the window, for {shown}"
        return Windows([found if found.size else stand_in for found in windows], median), attrs

    return Plan(asked, one)


PLANS: Mapping[str, Callable[..., Plan]] = {
    "interpolate": _interpolation,
    "trailing_mean": _mean_before,
    "trailing_median": _median_before,
}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.integer | np.floating)


# ---- times


def _days(days: Any, *, whole: bool = False) -> NDArray[np.datetime64]:
    """Days asked for as datetime64[ns], in their order; `whole` takes off the time of day."""
    import pandas as pd

    values = days.values if hasattr(days, "dims") else days
    if isinstance(values, np.ndarray):
        values = values.ravel()
    elif isinstance(values, str) or np.ndim(values) == 0:
        values = [values]
    first = next(iter(values), None)
    if first is None:
        raise ValueError("no days are asked for: give one at least")
    wanted = "days are dates ('2015-05-05', datetime64, a time coordinate)"
    if isinstance(first, int | float | np.number):  # which pandas would take as nanoseconds
        raise TypeError(f"{wanted}, not {type(first).__name__} such as {first}")
    try:
        index = pd.DatetimeIndex(values)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{wanted}, not {type(first).__name__} such as {first!r} ({error})") from error
    if index.tz is not None:
        raise ValueError(
            f"days carry the zone {index.tz}, but times here are UTC without a zone: "
            "days = days.tz_convert('UTC').tz_localize(None)"
        )
    if index.hasnans:
        raise ValueError("a day is missing (NaT): days = days.dropna()")
    index = index.as_unit("ns")
    index = index.normalize() if whole else index
    if index.has_duplicates:
        raise ValueError(
            f"the day {_date(index[index.duplicated()][0].to_numpy())} is asked for more than once: days = "
            f"days.{'normalize().' if whole else ''}unique()"
        )
    return index.to_numpy()


def _times(series: xr.DataArray | xr.Dataset) -> NDArray[np.datetime64]:
    if "time" not in series.dims:
        raise ValueError(
            f"{_named(series)} has no dimension 'time': its dims are {tuple(series.dims)}. "
            "series = series.rename(valid_time='time') or whatever it is called"
        )
    if "time" not in series.coords:
        raise ValueError("the dimension 'time' has no coordinates: series = series.assign_coords(time=dates)")
    times = series["time"].values
    if times.dtype.kind != "M":
        raise TypeError(
            f"the 'time' of {_named(series)} is {times.dtype}, not dates: series = xarray.decode_cf(series), or "
            "series.convert_calendar('standard', use_cftime=False) for cftime"
        )
    if not times.size:
        raise ValueError(f"{_named(series)} has no time steps at all")
    if np.isnat(times).any():
        raise ValueError(
            f"the 'time' of {_named(series)} has missing dates (NaT): series.sel(time=series.time.notnull())"
        )
    return times.astype("M8[ns]")


def _midnight(times: NDArray[np.datetime64]) -> NDArray[np.datetime64]:
    return times.astype("M8[D]").astype("M8[ns]")


def _date(time: Any) -> str:
    return str(np.datetime64(time, "D"))


def _named(series: Any) -> str:
    name = getattr(series, "name", None)
    return "the series" if name is None else repr(name)


def _check_overlap(asked: NDArray[np.datetime64], first: np.datetime64, last: np.datetime64) -> None:
    if not ((asked >= first) & (asked <= last)).any():
        raise ValueError(
            f"none of the days ({_date(asked.min())} to {_date(asked.max())}) lies within the series, which spans "
            f"{_date(first)} to {_date(last)}, and nothing is extrapolated"
        )


def _before(asked: NDArray[np.datetime64], at: NDArray[np.datetime64], window: int) -> list[NDArray[np.intp]]:
    """Indices of the steps in the window before each day."""
    windows = [np.flatnonzero((at < day) & (at >= day - window * DAY)) for day in asked]
    empty = [_date(day) for day, found in zip(asked, windows) if not found.size]
    if len(empty) == len(asked):
        raise ValueError(
            f"the series has nothing in the {window} days before any of the days ({_date(asked.min())} to "
            f"{_date(asked.max())}): it spans {_date(at.min())} to {_date(at.max())}"
        )
    if empty:
        logger.warning("nothing in the %d days before %s: the result is missing there", window, ", ".join(empty))
    return windows


def lag_of(observed: xr.DataArray, series: xr.DataArray) -> Any:
    """Days from `time` to the pixel's own day, in the layout of the series; NaN where it has none."""
    if dict(observed.sizes) != dict(series.sizes):
        raise ValueError(
            f"observed has the shape {dict(observed.sizes)}, {_named(series)} {dict(series.sizes)}: each value has its "
            "own day"
        )
    if "time" in observed.coords and (observed["time"].values != series["time"].values).any():
        raise ValueError("observed and the series have different times: observed = observed.reindex(time=series.time)")
    days = observed.transpose(*series.dims)
    if days.dtype.kind == "M":
        start = _times(series).reshape(-1, *(1,) * (days.ndim - 1))
        return (days.data.astype("M8[ns]") - start) / DAY
    if days.dtype.kind == "m":
        return days.data.astype("m8[ns]") / DAY
    fault = undecoded("observed", days)
    if fault:
        raise ValueError(fault)
    return days.data


# ---- from arrays of numbers to DataArrays


def _each(
    series: xr.DataArray | xr.Dataset,
    plan: Plan,
    observed: xr.DataArray | None = None,
) -> xr.DataArray | xr.Dataset:
    """Carry every variable that has a time."""
    import xarray as xr

    def dress(array: xr.DataArray) -> xr.DataArray:
        fault = undecoded(str(array.name or "series"), array)
        if fault:
            raise ValueError(fault)
        array = array.transpose("time", ...)
        way, said = plan.one(array)
        lag = None if observed is None else lag_of(observed, array)
        coords: dict[Hashable, Any] = {name: c.variable for name, c in array.coords.items() if "time" not in c.dims}
        coords["time"] = xr.Variable("time", plan.days, {"standard_name": "time"})
        out = xr.DataArray(carried(way, array.data, lag), coords, array.dims, array.name, {**array.attrs, **said})
        out.encoding = {key: array.encoding[key] for key in ("grid_mapping",) if key in array.encoding}
        return out

    if isinstance(series, xr.DataArray):
        _times(series)
        return dress(series)
    _times(series)
    timed = {name: dress(array) for name, array in series.data_vars.items() if "time" in array.dims}
    statics = {name: array for name, array in series.data_vars.items() if "time" not in array.dims}
    out = xr.Dataset({**timed, **statics}, attrs=series.attrs)
    return out[list(series.data_vars)]
