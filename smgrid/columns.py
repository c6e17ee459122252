"""Reads the predictors and the truth out of a table of samples, in canonical units."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smgrid.features import COMPUTED, Predictor, day_of_year, match_units, stray_units, suggest
from smgrid.shapes import undecoded
from smgrid.units import conversion

SOIL = Predictor("m3 m-3", 0, 1)
"""The contract of what a model learns."""


def sample_columns(
    samples: Any, predictors: Mapping[str, Predictor], units: Mapping[str, str] | str | None
) -> list[NDArray[np.float64]]:
    """One float64 array (n,) a predictor, in canonical units, out of a table; the door for samples."""
    names = names_of(samples)
    missing = [n for n in predictors if n not in names and not (n == "day_of_year" and "time" in names)]
    if missing:
        raise ValueError(_lacking(missing, names, list(predictors), is_table(samples)))
    stored = [n for n in predictors if n in names]
    faults = stray_units(units, names)
    faults += [fault for n in stored if not is_table(samples) and (fault := undecoded(n, samples[n]))]
    if is_table(samples):
        found = {n: predictors[n].units for n in stored}
    else:
        free = [n for n in stored if n in COMPUTED]  # coordinates carry no units more often than not
        found = {n: samples[n].attrs.get("units", predictors[n].units if n in free else None) for n in stored}
    conversions, more = match_units(found, predictors, units)
    if faults or more:
        raise ValueError("\n".join([*faults, *more]).replace("cube", "samples"))
    out = []
    for name, p in predictors.items():
        if name not in names:
            out.append(day_of_year(days_of(samples)))
            continue
        values = conversions[name](_numbers(samples, name))
        if is_table(samples):
            _check_median(name, values, p)
        out.append(values)
    return out


def _numbers(samples: Any, name: str) -> NDArray[np.float64]:
    try:
        return np.asarray(samples[name].values, "f8")
    except (ValueError, TypeError) as error:
        raise ValueError(f"{name!r} does not hold numbers alone: {error}") from error


def days_of(samples: Any) -> NDArray[Any]:
    """The UTC days of samples; numbers such as 20150505 are refused, since numpy would count them from 1970."""
    time = samples["time"]
    if getattr(time.dtype, "tz", None) is not None:
        time = time.dt.tz_convert(None) if is_table(samples) else time.to_index().tz_convert(None)
    values = np.asarray(time)
    try:
        if values.dtype.kind not in "MOUT":
            raise ValueError(f"{values.dtype} is not dates")
        return values.astype("datetime64[D]")
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"the samples' time cannot be read: {error}. Write 2015-05-05, or mend it: "
            "samples['time'] = pd.to_datetime(samples['time'], format=...), such as '%Y%m%d'"
        ) from error


def is_table(samples: Any) -> bool:
    """Whether samples are a DataFrame, whose columns carry no units."""
    return hasattr(samples, "columns")


def with_index(samples: Any) -> Any:
    """A table whose named index (station, time, ...) stands among its columns, where groupby and set_index took it from."""
    if not is_table(samples):
        return samples
    named = [name for name in samples.index.names if name is not None and name not in samples.columns]
    return samples.reset_index(named) if named else samples


def names_of(samples: Any) -> list[str]:
    """Names of all that samples hold."""
    if is_table(samples):
        names = [str(c) for c in samples.columns]
        double = sorted({n for n in names if names.count(n) > 1})
        if double:
            raise ValueError(f"the columns {double} come more than once")
        return names
    if hasattr(samples, "data_vars"):
        return [str(name) for name in samples.variables]
    raise TypeError(f"samples are an xarray Dataset or a pandas DataFrame, not {type(samples).__name__}")


def _lacking(missing: list[str], present: list[str], wanted: list[str], table: bool) -> str:
    """Say which predictors are missing, what they may be called, and which `features=` would work."""
    names = {have: want for want in missing if (have := suggest(want, present))}
    hint = f"samples = samples.rename({'columns=' if table else ''}{names})"
    rest = [n for n in wanted if n not in missing]
    lines = [f"the samples lack the predictors {missing}", *([hint] if names else [])]
    if rest:
        lines.append(f"what is there would train with features={rest}")
    return "\n".join(lines)


def _check_median(name: str, values: NDArray[np.float64], p: Predictor) -> None:
    """A column without units whose median is outside the table's range was meant in another unit."""
    known = values[np.isfinite(values)]
    if p.units is None or p.min is None or p.max is None or p.period is not None or name in COMPUTED or not known.size:
        return
    median = float(np.median(known))
    if p.min <= median <= p.max:
        return
    other = ("K", "1", "%", "g kg-1", "cg cm-3", "kg m-3", "mm d-1", "0.0001", "radian", "m3 m-3", "mm h-1", "km")
    likely = [
        unit
        for unit in other
        if (way := conversion(unit, p.units)) is not None and p.min <= float(way(np.array(median))) <= p.max
    ]
    guess = f"; in {likely[0]!r} it would fit: units={{{name!r}: {likely[0]!r}}}" if likely else ""
    raise ValueError(
        f"{name!r} has the median {median:.4g}, outside the {p.min} to {p.max} {p.units} of the table: "
        f"it is in another unit{guess}"
    )


def check_decibels(columns: Mapping[str, NDArray[np.float64]], predictors: Mapping[str, Predictor]) -> None:
    """A column of backscatter that is never negative is linear power; vv's range in dB has room for it."""
    for name, values in columns.items():
        if predictors[name].units == "dB" and values.size and not (values < 0).any():
            raise ValueError(
                f"{name!r} has no value below 0, so it is linear power rather than dB: units={{{name!r}: '1'}}, "
                "or 'dB' if it is dB after all"
            )


def target_column(samples: Any, units: Mapping[str, str] | str | None) -> NDArray[np.float64]:
    """Soil moisture (n,) of samples, m3 m-3."""
    if "soil_moisture" not in names_of(samples):
        raise ValueError(f"the samples have no 'soil_moisture' (m3 m-3) to train on; they have {names_of(samples)}")
    only = {k: v for k, v in units.items() if k == "soil_moisture"} if isinstance(units, Mapping) else units
    (column,) = sample_columns(samples[["soil_moisture"]], {"soil_moisture": SOIL}, only)
    return column
