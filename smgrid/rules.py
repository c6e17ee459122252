"""Says how each predictor is carried to the days and to the grid; for those of the paper the table `RULES`."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from smgrid import temporal
from smgrid.regrid import to_grid

_TIMINGS = ("same day", "interpolate", "trailing_mean", "trailing_median", "static")
_SPREADINGS = ("mean", "blocks", "smooth", "mode", "nearest")


@dataclass(frozen=True)
class Rule:
    """How a predictor is carried to the days and to the grid.

    Parameters
    ----------
    timing : {"same day", "interpolate", "trailing_mean", "trailing_median", "static"}
        The day itself, or what the function of that name in `temporal` makes; "static" has no time.
    spreading : {"mean", "blocks", "smooth", "mode", "nearest"}
        What `to_grid` (mean, mode, nearest) or the function of that name in `coarse` makes.
    options : mapping
        Options of those functions, such as `max_gap`, `window`, `period`, `min_coverage`.

    Examples
    --------
    >>> RULES["smap"].but(spreading="smooth", max_gap=4).spreading
    'smooth'
    """

    timing: str
    spreading: str = "mean"
    options: Mapping[str, Any] = field(default_factory=dict)

    def but(self, **changes: Any) -> Rule:
        """The same rule with some choices made anew.

        Parameters
        ----------
        **changes
            `timing`, `spreading`, and options of the functions that these name.

        Raises
        ------
        ValueError
            There is no such choice; the message suggests the nearest.
        """
        timing, spreading = changes.pop("timing", self.timing), changes.pop("spreading", self.spreading)
        for what, value, known in (("timing", timing, _TIMINGS), ("spreading", spreading, _SPREADINGS)):
            if value not in known:
                raise ValueError(f"{what} is one of {list(known)}, not {value!r}{nearest(value, known)}")
        possible = options_of(timing, spreading)
        for name in changes:
            if name not in possible:
                raise ValueError(
                    f"{name!r} is no option of the rule ({timing}, {spreading}), whose options are "
                    f"{sorted(possible)}{nearest(name, [*possible, 'timing', 'spreading'])}"
                )
        kept = {name: value for name, value in self.options.items() if name in possible}
        return Rule(timing, spreading, kept | changes)


def options_of(timing: str, spreading: str) -> list[str]:
    """Names of the options that a rule has."""
    verbs: list[Callable[..., Any]] = [to_grid] if spreading in ("mean", "mode") else []
    if timing in _TIMINGS[1:4]:
        verbs.append(getattr(temporal, timing))
    names = [
        p.name
        for verb in verbs
        for p in inspect.signature(verb).parameters.values()
        if p.kind is p.KEYWORD_ONLY and p.name != "observed" and not (verb is to_grid and p.name == "how")
    ]
    return list(dict.fromkeys(names))


_STATIC, _PASS, _COMPOSITE = Rule("static"), Rule("same day"), Rule("trailing_median", options={"window": "365D"})
_WEEK = Rule("trailing_mean", options={"window": 7})

RULES: Mapping[str, Rule] = MappingProxyType(
    {
        "vv": _PASS,
        "vh": _PASS,
        "incidence_angle": _PASS,
        **dict.fromkeys(("sand", "clay", "bulk_density", "elevation", "slope", "aspect_sin", "aspect_cos"), _STATIC),
        # The paper says spline. PCHIP is the one that never passes beyond the observations: a plain cubic spline does
        # so after rain, and wildly where Terra and Aqua saw a pixel a day apart. Terra alone may leave 31 days between.
        "ndvi": Rule("interpolate", options={"how": "pchip", "max_gap": 32}),
        "air_temperature": _WEEK,
        "precipitation": _WEEK,
        **dict.fromkeys(("b2", "b3", "b4", "b8", "b11", "b12"), _COMPOSITE),
        # overpasses are 1 to 3 days apart: one may be missing
        "smap": Rule("interpolate", "blocks", {"how": "pchip", "max_gap": 6}),
    }
)
"""How the paper carries each stored predictor; 7 days, D-7 to D-1, and one year, the day itself left out."""


def nearest(name: Any, known: Iterable[str]) -> str:
    """Words that suggest the known name nearest to a wrong one; empty where none is near."""
    found = difflib.get_close_matches(str(name).lower(), list(known), 1, 0.6)
    return f"; did you mean {found[0]!r}?" if found else ""
