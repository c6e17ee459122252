"""Knows the predictors and turns physical values into model inputs.

The predictors of the paper (Table II of Zhu et al. 2025, doi:10.1109/TGRS.2025.3533927) are data: a name, a unit, a
range, and a period where the quantity is cyclic. Checks, encoding and error messages follow from that table.
"""

from __future__ import annotations

import difflib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smgrid.units import SAME, Conversion, conversion, convertible_to

log = logging.getLogger("smgrid")


@dataclass(frozen=True)
class Predictor:
    """What a model expects of one predictor.

    Parameters
    ----------
    units : str or None
        Canonical unit; None where nobody has a contract for it.
    min, max : float or None
        Range that is scaled to 0..1. A range of exactly -1..1 is that of a sine or cosine and is left as it is; None
        is set from the training rows.
    period : float, optional
        A cyclic quantity enters as sine and cosine of its phase, both left in -1..1.
    """

    units: str | None
    min: float | None = None
    max: float | None = None
    period: float | None = None

    @property
    def inputs(self) -> int:
        """Number of model inputs: 2 if cyclic, else 1."""
        return 1 if self.period is None else 2

    @property
    def plausible(self) -> tuple[float, float]:
        """Values farther outside the range than the range is wide are no such quantity: a fill, or another unit."""
        if self.min is None or self.max is None or self.period is not None:
            return -np.inf, np.inf
        width = self.max - self.min
        return self.min - width, self.max + width

    def accepts(self, values: NDArray[Any]) -> NDArray[np.bool_]:
        """Where values are finite and plausible."""
        low, high = self.plausible
        return is_finite(values) & (values >= low) & (values <= high)


LARGEST = float(np.finfo("f4").max)


def is_finite(values: NDArray[Any]) -> NDArray[np.bool_]:
    """Where values are finite numbers of float32, as they are at rest and as trees compare them."""
    values = np.asarray(values)
    wide = values.dtype.kind == "f" and values.dtype.itemsize > 4
    return np.abs(values) <= LARGEST if wide else np.isfinite(values)


_REFLECTANCE = Predictor("1", 0, 1)

PAPER: Mapping[str, Predictor] = MappingProxyType(
    {
        "vv": Predictor("dB", -30, 5),
        "vh": Predictor("dB", -35, 0),
        "incidence_angle": Predictor("degree", 29.1, 46),
        "day_of_year": Predictor("1", 1, 366, period=365.25),
        "sand": Predictor("%", 0, 100),
        "clay": Predictor("%", 0, 100),
        "bulk_density": Predictor("g cm-3", 1, 1.8),
        "elevation": Predictor("m", 0, 5500),
        "slope": Predictor("degree", 0, 40),
        "aspect_sin": Predictor("1", -1, 1),
        "aspect_cos": Predictor("1", -1, 1),
        "latitude": Predictor("degree_north", 0, 90),
        "longitude": Predictor("degree_east", -180, 180, period=360),
        "ndvi": Predictor("1", -0.2, 1),
        "air_temperature": Predictor("degC", -10, 35),
        "precipitation": Predictor("m d-1", 0, 0.3),
        "b2": _REFLECTANCE,
        "b3": _REFLECTANCE,
        "b4": _REFLECTANCE,
        "b8": _REFLECTANCE,
        "b11": _REFLECTANCE,
        "b12": _REFLECTANCE,
        "smap": Predictor("m3 m-3", 0, 0.6),
    }
)
"""The 23 predictors of the paper, in the order of its 25 inputs."""

COMPUTED = ("day_of_year", "latitude", "longitude")
"""Predictors that follow from coordinates alone."""

_KNOWN_ALIASES = {
    "vv": "sigma0_vv s1_vv backscatter_vv",
    "vh": "sigma0_vh s1_vh backscatter_vh",
    "incidence_angle": "angle lia inc theta local_incidence_angle",
    "bulk_density": "bdod bd bulkdensity",
    "elevation": "dem height altitude z srtm",
    "air_temperature": "t2m temperature tas tair",
    "precipitation": "tp rain precip pr",
    "smap": "ssm sm_smap soil_moisture_smap smap_sm",
    "latitude": "lat",
    "longitude": "lon",
    "day_of_year": "doy dayofyear",
    "b2": "B02 blue",
    "b3": "B03 green",
    "b4": "B04 red",
    "b8": "B08 nir",
    "b11": "swir1",
    "b12": "swir2",
}


def contract(features: Sequence[str] | Mapping[str, Predictor]) -> dict[str, Predictor]:
    """The predictors asked for: names of the table take its contract, others an empty one to be filled in training."""
    if isinstance(features, str):
        raise TypeError(f"features is a sequence of names, not the one string {features!r}: features=[{features!r}]")
    if isinstance(features, Mapping):
        wrong = [name for name, value in features.items() if not isinstance(value, Predictor)]
        if wrong:
            raise TypeError(f"features maps names to smgrid.Predictor; {wrong} map to something else")
        return dict(features)
    names = list(features)
    double = sorted({name for name in names if names.count(name) > 1})
    if double:
        raise ValueError(f"features name {double} more than once")
    if not names:
        raise ValueError("features is empty: a model needs at least one predictor")
    return {name: PAPER.get(name, Predictor(None)) for name in names}


def encode(columns: Sequence[NDArray[Any]], predictors: Sequence[Predictor]) -> NDArray[np.float64]:
    """Model inputs of rows of physical values.

    Parameters
    ----------
    columns : sequence of array (n,)
        Physical values in canonical units, one array a predictor.
    predictors : sequence of Predictor

    Returns
    -------
    array (n, inputs), float64
        Scaled as (x - min) / (max - min); sine and cosine where cyclic.
    """
    rows = np.empty((len(columns[0]), sum(p.inputs for p in predictors)))
    at = 0
    for column, p in zip(columns, predictors, strict=True):
        if p.period is not None:
            phase = np.asarray(column, "f8") * (2 * np.pi / p.period)
            rows[:, at], rows[:, at + 1] = np.sin(phase), np.cos(phase)
        elif (p.min, p.max) == (-1, 1) or p.min is None or p.max is None:
            rows[:, at] = column
        else:
            np.subtract(column, p.min, out=rows[:, at], dtype="f8")
            rows[:, at] /= p.max - p.min
        at += p.inputs
    return rows


_FEW = 0.1  # share of impossible values up to which a field is taken for what it says it is
_MANY = 100  # values that tell a sign
_said: set[str] = set()  # what the log has heard of


def only_possible(
    values: NDArray[Any], what: str, predictor: Predictor, way: Conversion = SAME, units: Any = None
) -> NDArray[Any]:
    """Values, as a source stores them, with the few that are no such quantity made missing; many are an error.

    Parameters
    ----------
    values : array
        Numbers in the unit of the source; whole numbers come back as floats.
    what : str
        File and variable, for the message.
    predictor : Predictor
        Possible is what is `plausible` in it.
    way : Conversion
        From the unit of the source to the predictor's.
    units : str, optional
        That unit, for the message.

    Returns
    -------
    array, of the same numbers where all are possible

    Raises
    ------
    ValueError
        More than a tenth of the values that are known, and not 0, are impossible: they are in another unit than said,
        a scale was not applied, or a fill was taken for a value.

    Examples
    --------
    >>> only_possible(np.array([0.2] * 20 + [-9999.0]), "ndvi", PAPER["ndvi"])[-1]
    np.float64(nan)
    """
    if values.dtype.kind in "iub":
        values = values.astype(np.result_type(values.dtype, "f4"))
    low, high = predictor.plausible
    # power may be a little below 0, where the sensor's noise was taken off
    low, high = -1.0 if way.decibel else way.back(low), way.back(high)
    wrong = (values < low) | (values > high)
    if not wrong.any():
        _check_sign(values, what, predictor, way)
        return values
    wrong_ones = values[wrong]
    known = max(int((np.isfinite(values) & (values != 0)).sum()), wrong_ones.size)
    example = f"{wrong_ones.flat[0]:g}"
    if wrong_ones.size > _FEW * known:
        raise ValueError(
            f"{what}{f', in {units!r} by its word,' if units else ''} holds {example} and the like in "
            f"{wrong_ones.size} of {known} values, where {low:g} to {high:g} are possible: another unit than said, a "
            "scale that was not applied (units='0.0001'), or a fill taken for a value (declare it, or mask it first)"
        )
    if what not in _said:
        _said.add(what)
        log.warning(
            "%s: %d of %d values of one block are impossible, such as %s, and become missing (said once)",
            what, wrong_ones.size, known, example,
        )  # fmt: skip
    return np.where(wrong, values.dtype.type(np.nan), values)


def _check_sign(values: NDArray[Any], what: str, predictor: Predictor, way: Conversion) -> None:
    """Backscatter in dB that is nowhere below 0 is linear power, for which the range in dB has room."""
    if predictor.units == "dB" and not way.decibel and not (values < 0).any():
        known = int((values > 0).sum())
        if known >= _MANY:
            raise ValueError(
                f"{what} is in 'dB' by its word, but none of {known} values lies below 0: linear power (units='1')"
            )


def input_names(predictors: Mapping[str, Predictor]) -> list[str]:
    """Names of the model inputs, in order.

    Examples
    --------
    >>> input_names({"vv": PAPER["vv"], "day_of_year": PAPER["day_of_year"]})
    ['vv', 'day_of_year_sin', 'day_of_year_cos']
    """
    return [name + part for name, p in predictors.items() for part in (("",) if p.period is None else ("_sin", "_cos"))]


def match_units(
    found: Mapping[str, Any], predictors: Mapping[str, Predictor], said: Mapping[str, str] | str | None
) -> tuple[dict[str, Conversion], list[str]]:
    """How each variable converts to what the predictors expect.

    Parameters
    ----------
    found : mapping
        Name to the `units` that the variable carries, None where it carries none.
    predictors : mapping
        Name to Predictor.
    said : mapping, "canonical" or None
        Units at the caller's word, over those the variables carry.

    Returns
    -------
    conversions : dict, name to Conversion
    faults : list of str
        One line each, ending with a line that mends it.
    """
    if isinstance(said, str) and said != "canonical":
        raise ValueError(f"units is a mapping from names to units, or the word 'canonical', not {said!r}")
    conversions, faults = {}, []
    for name, have in found.items():
        wanted = predictors[name].units
        if said == "canonical":
            have = wanted
        elif isinstance(said, Mapping) and name in said:
            have = said[name]
        if wanted is None:
            conversions[name] = SAME
            continue
        way = conversion(have, wanted)
        if way is not None:
            conversions[name] = way
            continue
        what = "carries no units" if have is None else f"is in {have!r}, which does not convert to {wanted!r}"
        faults.append(
            f"{name!r} {what}; known are {convertible_to(wanted)}: cube[{name!r}].attrs['units'] = {wanted!r}"
        )
    return conversions, faults


def stray_units(said: Mapping[str, str] | str | None, present: Sequence[str]) -> list[str]:
    """A line of error for names in `units=` that are nowhere; a misspelt one would be passed over in silence."""
    stray = sorted(set(said) - set(present)) if isinstance(said, Mapping) else []
    return [f"units name {stray}, which are not there; there are {list(present)}"] if stray else []


def day_of_year(time: Any) -> NDArray[np.float64]:
    """Day of the year, 1 on 1 January, of dates (datetime64); NaN where there is no date (NaT)."""
    days = np.asarray(time, "datetime64[D]")
    count: NDArray[np.float64] = (days - days.astype("datetime64[Y]")).astype("f8") + 1
    return np.where(np.isnat(days), np.nan, count)


def suggest(missing: str, present: Sequence[str]) -> str | None:
    """The one present name that the missing one is likely known by, if any."""
    aliases = {missing.lower(), *_KNOWN_ALIASES.get(missing, "").lower().split()}
    for name in present:
        if name.lower() in aliases:
            return name
    near = difflib.get_close_matches(missing.lower(), [name.lower() for name in present], 1, 0.75)
    return next((name for name in present if near and name.lower() == near[0]), None)
