"""Says in plain words what the numbers of a verdict say, and nothing beyond.

Every sentence is made from numbers alone; a claim ("wetter", "shows") is made only where an interval or a p-value
bears it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
import xarray as xr

from smgrid.grid import Grid
from smgrid.patches import WET
from smgrid.verdict import Verdict, by_day

ALPHA = 0.05
UNIT = "m³ m⁻³"
MINUS = "−"


class Saying(NamedTuple):
    """A heading, and a sentence a line."""

    about: str
    lines: list[str]


def sayings(verdict: Verdict) -> list[Saying]:
    """Plain words for a verdict, topic by topic; a topic without a number is left out.

    Examples
    --------
    >>> from smgrid import synthetic, verdict
    >>> scene = synthetic.yanco()
    >>> found = sayings(verdict.judge({"truth": scene.truth}, scene.airborne, coarse=scene.smap))
    >>> found[0].about, found[0].lines[0][:44]
    ('Accuracy', 'truth: RMSE 0.028 m³ m⁻³ over 4 days and 25,')
    """
    topics: list[tuple[str, Callable[[Verdict], Iterable[str]]]] = [
        ("Accuracy", _accuracy),
        ("Map against map", _better),
        ("Edges of coarse cells", _edges),
        ("What is copied", _copied),
        ("Pattern", _pattern),
        ("Wet patches", _patches),
        ("Straight lines", _lines),
        ("Something is out of place", _misplaced),
    ]
    found = [Saying(about, list(say(verdict))) for about, say in topics]
    return [saying for saying in found if saying.lines]


# ---- the topics


def _accuracy(verdict: Verdict) -> Iterable[str]:
    for name, card in verdict.cards.items():
        whole = verdict.overall[name]
        if not whole["n"] or math.isnan(whole["rmse"]):
            yield f"{name}: no cell in common with the reference."
            continue
        days, over = int((_values(card, "n") > 0).sum()), f"{whole['n']:,.0f} cells"
        if days > 1:
            over = f"{days} days and {whole['n']:,.0f} values"
        said = [
            f"RMSE {number(whole['rmse'])} {UNIT} over {over}{_spread(card, 'rmse')}",
            f"without the bias {number(whole['ubrmse'])}",
            f"R {number(whole['pearson_r'], 2)}{_spread(card, 'pearson_r', 2)}",
        ]
        yield f"{name}: {'; '.join(said)}."
        yield f"{name}: {_bias(card, whole['bias'])}"
        if "slope" in card and np.isfinite(card["slope"]).any():
            slope = _values(card, "slope")
            yield (
                f"{name}: where the reference is wetter by 0.100, the map is wetter by {_range(slope / 10)} {UNIT} on "
                f"average (slope {_range(slope, 2)}; 1 keeps contrasts, 0 knows none)."
            )


def _bias(card: xr.Dataset, mean: float) -> str:
    """The mean error, and on how many days it is beyond chance."""
    interval = card["bias_interval"].values.reshape(-1, 2)
    interval = interval[np.isfinite(interval).all(axis=1)] if np.isfinite(interval).all(axis=1).any() else interval
    wet, dry, n = int((interval[:, 0] > 0).sum()), int((interval[:, 1] < 0).sum()), len(interval)
    if n == 1:
        sure = "wetter than the reference" if wet else "drier than the reference" if dry else "not beyond chance"
        return f"mean difference {signed(mean)} {UNIT}{_spread(card, 'bias')}: {sure}."
    parts = [f"wetter on {wet}" if wet else "", f"drier on {dry}" if dry else ""]
    sure = " and ".join(filter(None, parts)) or "neither wetter nor drier on any"
    return (
        f"mean difference {signed(mean)} {UNIT}{_spread(card, 'bias')}; {sure} of {n} days, "
        "by 95 % intervals that leave out 0."
    )


def _better(verdict: Verdict) -> Iterable[str]:
    """Which of two maps is nearer the reference, by intervals of the paired difference."""
    for (first, second), found in verdict.differences.items():
        parts = []
        for measure, label, unit, digits in (("rmse", "RMSE", f" {UNIT}", 3), ("pearson_r", "R", "", 2)):
            interval = found[f"{measure}_difference_interval"].values.reshape(-1, 2)
            interval = interval[np.isfinite(interval).all(axis=1)]
            lower, higher, n = int((interval[:, 1] < 0).sum()), int((interval[:, 0] > 0).sum()), len(interval)
            if n == 1:
                low, high = (number(edge, digits) for edge in interval[0])
                verb = (
                    "is lower than" if lower else "is higher than" if higher else "is not beyond chance different from"
                )
                difference = signed(float(_values(found, f"{measure}_difference")[0]), digits)
                parts.append(f"{label} {verb} that of {second} ({difference}{unit}, 95 % interval {low} to {high})")
            elif n:
                parts.append(f"{label} lower on {lower} and higher on {higher} of {n} days")
        if parts and n > 1:
            yield f"{first} against {second}: {'; '.join(parts)}, by 95 % intervals of the difference that leave out 0."
        elif parts:
            yield f"{first}: {'; '.join(parts)}."


def _edges(verdict: Verdict) -> Iterable[str]:
    cell = f"{verdict.coarse_km:g}-km"
    for name, found in verdict.seams.items():
        who = _who(name)
        ratio, p = _values(found, "ratio"), _values(found, "p_value")
        known = ~np.isnan(p)
        if not known.any():
            yield f"{who}: too small, or too even, to look for {cell} edges."
            continue
        sure = p < ALPHA
        if known.size == 1:
            verb = "show" if sure[0] else "do not show beyond chance"
            size = f"steps there are {number(ratio[0], 2)} times those elsewhere"
            line = f"{who}: {cell} edges {verb} ({size}, {chance(p[0])})"
        else:
            line = (
                f"{who}: {cell} edges show on {int(sure.sum())} of {int(known.sum())} days (p < {ALPHA}); steps there "
                f"are {_range(ratio[known], 2)} times those elsewhere"
            )
        if sure.any():
            line += f"; size of the imprinted steps {_range(_values(found, 'amplitude')[sure])} {UNIT}"
        if sure.any() and name in verdict.edges:
            share = _values(verdict.edges[name], "fraction")[sure]
            if np.isfinite(share).any():
                line += f"; single borders stand out along {_range(100 * share, 0)} % of their length (q < {ALPHA})"
        yield line + "."


def _copied(verdict: Verdict) -> Iterable[str]:
    for name, found in verdict.imprints.items():
        beta, error, p = (_values(found, key) for key in ("beta", "standard_error", "p_value"))
        known = np.isfinite(beta) & np.isfinite(error) & np.isfinite(p)
        if not known.any():
            yield f"{_who(name)}: too few borders to say which share of {_steps(verdict)} it copies."
            continue
        beta, error, p = 100 * beta[known], 100 * error[known], p[known]
        sure = int((p < ALPHA).sum())
        digits = 0 if error.min() >= 1 else 1
        if beta.size == 1:
            share = f"{number(beta[0], digits)} ± {number(error[0], digits)} %"
            if sure:
                yield f"{_who(name)} copies {share} of {_steps(verdict)} ({chance(p[0])})."
            else:
                yield f"{_who(name)} copies none of {_steps(verdict)} beyond chance ({share}, {chance(p[0])})."
            continue
        share = f"{_range(beta, digits)} %, each ± {_range(error, digits)} %"
        if sure:
            yield f"{_who(name)} copies {_steps(verdict)} on {sure} of {beta.size} days (p < {ALPHA}): {share} of them."
        else:
            yield f"{_who(name)} copies none of {_steps(verdict)} beyond chance on any of {beta.size} days ({share})."
    if verdict.imprints:
        yield "± is one standard error. A map with no imprint may reach a few percent, for landscapes curve."


def _pattern(verdict: Verdict) -> Iterable[str]:
    cell = f"{verdict.coarse_km:g}-km"
    for name, card in verdict.cards.items():
        within, between = _values(card, "r_within"), _values(card, "r_between")
        if np.isfinite(within).any():
            interval = card["r_within_interval"].values.reshape(-1, 2)
            sure = int((interval[:, 0] > 0).sum())
            held = (
                f"; within, beyond chance on {sure} of {len(interval)} days"
                if len(interval) > 1
                else f"{_spread(card, 'r_within', 2)}"
            )
            yield f"{name}: R between {cell} cells {_range(between, 2)}, within them {_range(within, 2)}{held}."
        yield from _skill(name, card, _coarse_name(verdict))
        reach = _values(card, "resolution_coherence") if "resolution_coherence" in card else np.array([np.nan])
        if np.isfinite(reach).any():
            days = "" if reach.size == 1 else f" ({int(np.isfinite(reach).sum())} of {reach.size} days)"
            yield f"{name}: goes with the reference down to wavelengths of {_range(reach, 0)} km{days}."


def _skill(name: str, card: xr.Dataset, coarse: str) -> Iterable[str]:
    """How the error stands against the coarse field's own."""
    words = {"blocks": f"{coarse} as blocks", "smooth": f"{coarse} spread smoothly"}
    parts = []
    for baseline in [b for b in words if b in card["baseline"].values]:
        skill = np.atleast_1d(card["skill"].sel(baseline=baseline).values).ravel()
        interval = card["skill_interval"].sel(baseline=baseline).values.reshape(-1, 2)
        if not np.isfinite(skill).any():
            continue
        better, worse = int((interval[:, 0] > 0).sum()), int((interval[:, 1] < 0).sum())
        if skill.size == 1:
            sure = "lower than" if better else "higher than" if worse else "not beyond chance different from"
            parts.append(f"{sure} that of {words[baseline]} (skill {signed(skill[0], 2)})")
        else:
            days = f"lower than that of {words[baseline]} on {better} and higher on {worse} of {skill.size} days"
            parts.append(f"{days} (skill {_range(skill, 2)})")
    if parts:
        sure = "beyond chance, " if _days(card) > 1 else ""
        yield f"{name}: {sure}the mean square error is {'; '.join(parts)}."


def _patches(verdict: Verdict) -> Iterable[str]:
    for name, card in verdict.cards.items():
        if "patch_kind" not in card:
            continue
        kind = card["patch_kind"].values.astype(str)
        found, missed, false = ((kind == word).sum() for word in ("found", "missed", "false alarm"))
        if found + missed == 0:
            continue
        lack = card["patch_deficit"].values[kind == "missed"]
        wet = f"wet patches of the reference (its wettest {100 * (1 - WET):.0f} %)"
        line = f"{name}: finds {found} of {found + missed} {wet}; {false} false alarms"
        if np.isfinite(lack).any():
            line += f"; in those missed it is {np.nanmean(lack):.3f} {UNIT} too dry on average"
        yield line + "."


def _lines(verdict: Verdict) -> Iterable[str]:
    for name, table in verdict.lines.items():
        table = table[table["phase_9km"] != 0]  # those at 9-km edges were spoken of
        if not len(table):
            continue
        days = f" on {table['time'].nunique()} of {len(verdict.days)} days" if "time" in table else ""
        many = "one straight line runs" if len(table) == 1 else f"{len(table)} straight lines run"
        yield (
            f"{_who(name)}: {many} right across the map away from 9-km edges{days} (q < {ALPHA}), as trees leave them "
            "that were fed coordinates."
        )


def _misplaced(verdict: Verdict) -> Iterable[str]:
    for name, found in verdict.seams.items():
        if found.attrs.get("wrong_phase", "none") != "none":
            yield f"{_who(name)}: {found.attrs['wrong_phase']}."
    for name, found in verdict.imprints.items():
        if found.attrs.get("wrong_place", "none") != "none":
            yield f"{_who(name)}: {found.attrs['wrong_place']}."


# ---- numbers in words


def number(value: float, digits: int = 3) -> str:
    """A number as it is read; n/a where there is none.

    Examples
    --------
    >>> number(-0.0512), number(float("nan")), number(-0.0001)
    ('−0.051', 'n/a', '0.000')
    """
    if math.isnan(value):
        return "n/a"
    if math.isinf(value):
        return "∞" if value > 0 else f"{MINUS}∞"
    text = f"{abs(value):.{digits}f}"
    return f"{MINUS}{text}" if value < 0 and float(text) else text


def signed(value: float, digits: int = 3) -> str:
    """A number with its sign."""
    text = number(value, digits)
    return f"+{text}" if value > 0 and text.strip("0.") else text


def chance(p: float) -> str:
    """A p-value as it is read.

    Examples
    --------
    >>> chance(0.0004), chance(0.034), chance(float("nan"))
    ('p < 0.001', 'p = 0.034', 'p unknown')
    """
    return "p unknown" if math.isnan(p) else "p < 0.001" if p < 0.001 else f"p = {p:.2g}"


def _range(values: Sequence[float] | np.ndarray, digits: int = 3) -> str:
    """The only value, or the smallest and largest by day."""
    known = np.asarray(values, "f8")
    known = known[~np.isnan(known)]
    if not known.size:
        return "n/a"
    low, high = number(float(known.min()), digits), number(float(known.max()), digits)
    return low if low == high else f"{low} to {high}"


def _spread(card: xr.Dataset, measure: str, digits: int = 3) -> str:
    """In brackets: the 95 % interval of one day, or the range over single days."""
    values = _values(card, measure)
    if values.size > 1:
        return f" ({_range(values, digits)} on single days)"
    low, high = card[f"{measure}_interval"].values.ravel()
    if math.isnan(low):
        return ""
    return f" (95 % interval {number(low, digits)} to {number(high, digits)})"


def _values(found: xr.Dataset, name: str) -> np.ndarray:
    """A measure, one value a day."""
    return np.atleast_1d(found[name].values).astype("f8").ravel()


def _days(found: xr.Dataset) -> int:
    return sum(1 for _ in by_day(found))


def _who(name: str) -> str:
    return "The reference" if name == "reference" else name


def _coarse_name(verdict: Verdict) -> str:
    name = str(verdict.coarse.name or "") if verdict.coarse is not None else ""
    return {"smap": "SMAP", "": "the coarse field", "soil_moisture": "the coarse field"}.get(name.lower(), name)


def _steps(verdict: Verdict) -> str:
    """The coarse field's steps, by the side of its cells where that is known."""
    name = _coarse_name(verdict)
    try:
        km = Grid.of(verdict.coarse).km
    except ValueError:
        km = 0.0
    side = f"{km:g}-km " if km > verdict.grid.km else ""
    return f"the {side}steps of the coarse field" if name == "the coarse field" else f"{name}'s {side}steps"
