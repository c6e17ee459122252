"""Converts what has one right conversion, refuses the rest.

A unit is a scale and an offset in its dimension; two units convert exactly when they share the dimension. Decibels
convert from linear power. There is no guessing: a unit that is not in the table is unknown.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_TABLE: dict[str, dict[str, tuple[float, float]]] = {  # dimension -> unit -> (scale, offset) to the dimension's base
    "temperature": {"K": (1.0, 0.0), "degC": (1.0, 273.15)},
    "angle": {"degree": (1.0, 0.0), "radian": (180 / np.pi, 0.0)},
    "pure number": {"1": (1.0, 0.0), "%": (1e-2, 0.0)},
    "mass fraction": {"kg kg-1": (1.0, 0.0), "g kg-1": (1e-3, 0.0), "g g-1": (1.0, 0.0)},
    "volume fraction": {"m3 m-3": (1.0, 0.0), "cm3 cm-3": (1.0, 0.0)},
    "density": {"kg m-3": (1.0, 0.0), "g cm-3": (1e3, 0.0), "cg cm-3": (10.0, 0.0)},
    "length": {"m": (1.0, 0.0), "km": (1e3, 0.0), "cm": (1e-2, 0.0), "mm": (1e-3, 0.0)},
    "water flux": {
        "m d-1": (1.0, 0.0),
        "mm d-1": (1e-3, 0.0),
        "mm h-1": (24e-3, 0.0),
        "m s-1": (86400.0, 0.0),
        "kg m-2 s-1": (86.4, 0.0),
        "kg m-2 d-1": (1e-3, 0.0),
    },
    "power ratio in decibels": {"dB": (1.0, 0.0)},
}
_ALIASES = {
    "kelvin": "K",
    "celsius": "degC",
    "°c": "degC",
    "degrees_celsius": "degC",
    "degree_celsius": "degC",
    "deg_c": "degC",
    "c": "degC",
    "°": "degree",
    "deg": "degree",
    "degrees": "degree",
    "rad": "radian",
    "radians": "radian",
    **{f"{d}{way}": "degree" for d in ("degree", "degrees") for way in ("_north", "_east", "_n", "_e")},
    "percent": "%",
    "pct": "%",
    "dimensionless": "1",
    "unitless": "1",
    "none": "1",
    "db": "dB",
    "decibel": "dB",
    "decibels": "dB",
    "meter": "m",
    "meters": "m",
    "metre": "m",
    "metres": "m",
}
_FRACTIONS = {"pure number", "mass fraction", "volume fraction"}


@dataclass(frozen=True)
class Conversion:
    """The one right conversion between two units: `10 log10(value)` if `decibel`, then `value * scale + offset`."""

    scale: float = 1.0
    offset: float = 0.0
    decibel: bool = False

    def __call__(self, values: NDArray[Any]) -> NDArray[Any]:
        """Convert an array; values that need no conversion come back as they are, all others in float64."""
        if self == SAME:
            return values
        values = np.asarray(values, "f8")
        if self.decibel:
            with np.errstate(divide="ignore", invalid="ignore"):
                return 10 * np.log10(values)
        return values * self.scale + self.offset

    def back(self, value: float) -> float:
        """What comes out as `value`.

        Examples
        --------
        >>> Conversion(offset=-273.15).back(0.0), Conversion(decibel=True).back(-20.0)
        (273.15, 0.01)
        """
        return float(10 ** (value / 10)) if self.decibel else (value - self.offset) / self.scale


SAME = Conversion()


def canonical(unit: Any) -> str | None:
    """The table's spelling of a unit, a power of ten such as `0.0001` for scaled numbers, or None where unknown.

    Examples
    --------
    >>> canonical("m3/m3"), canonical("degrees_north"), canonical("g/cm^3"), canonical("furlong")
    ('m3 m-3', 'degree', 'g cm-3', None)
    """
    if unit is None:
        return None
    text = str(unit).strip()
    if any(text in units for units in _TABLE.values()):
        return text
    if text.lower() in _ALIASES:
        return _ALIASES[text.lower()]
    scaled = re.fullmatch(r"(?:reflectance\s*)?(?:x|\*)\s*10000", text.lower())
    number = "0.0001" if scaled else text
    try:
        value = float(number)
    except ValueError:
        spelled = _spell(text)
        return spelled if any(spelled in units for units in _TABLE.values()) else None
    return repr(value) if 0 < value < 1 else "1" if value == 1 else None


def _spell(text: str) -> str:
    """Bring `m^3/m^3`, `m**3 m**-3`, `mm/day`, `kg.m-2.s-1` to the form `m3 m-3`."""
    text = re.sub(r"\*\*|\^", "", text.replace("⁻", "-").replace("³", "3").replace("²", "2").replace("·", " "))
    text = re.sub(r"\bdays?\b", "d", text)
    text = re.sub(r"\bhours?\b|\bhr\b", "h", text)
    text = re.sub(r"[.*]", " ", text)
    top, *below = text.split("/")
    words = top.split()
    for part in below:
        for word in part.split():
            match = re.fullmatch(r"([A-Za-z]+)(\d*)", word)
            if not match:
                return text
            words.append(f"{match[1]}-{match[2] or 1}")
    return " ".join(words)


def conversion(found: Any, wanted: str) -> Conversion | None:
    """The exact conversion from unit `found` to unit `wanted`, or None where there is none.

    Examples
    --------
    >>> conversion("K", "degC")
    Conversion(scale=1.0, offset=-273.15, decibel=False)
    >>> conversion("1", "dB").decibel, conversion("m", "m d-1")
    (True, None)
    """
    have, want = canonical(found), canonical(wanted)
    if have is None or want is None:
        return SAME if found is not None and str(found) == wanted else None
    if have == want:
        return SAME
    if want == "dB":
        return Conversion(decibel=True) if have == "1" else None
    (dim_have, scale_have, offset_have), (dim_want, scale_want, offset_want) = _place(have), _place(want)
    same = dim_have == dim_want
    through_number = {dim_have, dim_want} <= _FRACTIONS and "pure number" in (dim_have, dim_want)
    if not same and not through_number:
        return None
    scale = scale_have / scale_want
    nice = round(scale, 15)
    return Conversion(
        nice if nice and abs(nice / scale - 1) < 1e-14 else scale, (offset_have - offset_want) / scale_want
    )


def _place(unit: str) -> tuple[str, float, float]:
    for dimension, units in _TABLE.items():
        if unit in units:
            return dimension, *units[unit]
    return "pure number", float(unit), 0.0


def convertible_to(wanted: str) -> list[str]:
    """Units that convert to `wanted`, for error messages."""
    known = [unit for units in _TABLE.values() for unit in units]
    return [wanted] + [unit for unit in known if unit != wanted and conversion(unit, wanted) is not None]
