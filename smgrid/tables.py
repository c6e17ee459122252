"""Lays the findings of a verdict out as tables of words, ready to be read."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from smgrid.drawing import words
from smgrid.sayings import chance, number, signed
from smgrid.verdict import Verdict, by_day

MOST = 400  # rows shown; a page is no data file


class Head(NamedTuple):
    """Heading of a column."""

    name: str
    units: str = ""
    meaning: str = ""


class Table(NamedTuple):
    """A table of words; the first `keys` columns name the row."""

    caption: str
    heads: list[Head]
    rows: list[list[str]]
    keys: int = 1
    note: str = ""


SCORES = (  # measure, heading, digits, with its interval
    ("bias", "bias", 3, True),
    ("rmse", "RMSE", 3, True),
    ("pearson_r", "R", 2, True),
)
MORE = (  # to the right of the seams
    ("n", "n", 0, False),
    ("ubrmse", "ubRMSE", 3, False),
    ("slope", "slope", 2, False),
    ("r_between", "R between", 2, False),
    ("r_within", "R within", 2, True),
    ("spaef", "SPAEF", 2, False),
    ("ssim", "SSIM", 2, False),
)


def score_table(verdict: Verdict) -> Table:
    """Scores and seams, a row per day and map."""
    some = next(iter(verdict.cards.values()))
    first, last = ([entry for entry in entries if entry[0] in some] for entries in (SCORES, MORE))
    seams = [
        Head("B", "", "mean step at coarse edges over that elsewhere; 1 = no imprint"),
        Head("p", "", "p-value of B"),
    ]
    if verdict.imprints:
        seams.append(Head("copied", "%", "share of the coarse field's steps that the map copies, ± standard error"))
    heads = [Head("day"), Head("map"), *_heads(some, first), *seams, *_heads(some, last)]
    rows = []
    for k, day in enumerate(verdict.days or [""]):
        for name, card in verdict.cards.items():
            one, seam = _at(card, k), _at(verdict.seams[name], k)
            said = [
                number(float(seam["ratio"]), 2),
                chance(float(seam["p_value"])).removeprefix("p ").removeprefix("= "),
            ]
            said += [_share(_at(verdict.imprints[name], k))] if verdict.imprints else []
            left, right = ([_measure(one, m, digits, b) for m, _, digits, b in entries] for entries in (first, last))
            rows.append([day or "no date", name, *left, *said, *right])
    note = (
        "In brackets 95 % intervals, from drawing whole coarse cells. Hold the pointer over a heading for its meaning."
    )
    return Table("Scores of each map against the reference, and its seams", heads, rows, 2, note)


PAIRED = (  # measure, heading, digits
    ("rmse", "RMSE", 3),
    ("ubrmse", "ubRMSE", 3),
    ("pearson_r", "R", 2),
    ("r_between", "R between", 2),
    ("r_within", "R within", 2),
    ("spaef", "SPAEF", 2),
    ("ssim", "SSIM", 2),
)


def pair_table(verdict: Verdict) -> Table:
    """Which of two maps is better, a row per day and pair; without rows where there is one map only."""
    some = next(iter(verdict.differences.values()), xr.Dataset())
    shown = [entry for entry in PAIRED if f"{entry[0]}_difference" in some]
    heads = [Head("day"), Head("first"), Head("second")]
    heads.append(Head("lower RMSE", "", "the map whose root-mean-square error is lower; the interval leaves out 0"))
    for name, label, _ in shown:
        about = some[f"{name}_difference"]
        heads.append(Head(label, _units(about), about.attrs.get("long_name", "")))
    rows = []
    for k, day in enumerate(verdict.days or [""]):
        for (first, second), found in verdict.differences.items():
            one = _at(found, k)
            low, high = (float(edge) for edge in one["rmse_difference_interval"].values)
            better = first if high < 0 else second if low > 0 else "neither beyond chance"
            better = better if np.isfinite([low, high]).all() else "n/a"
            said = [_measure(one, f"{name}_difference", digits, True) for name, _, digits in shown]
            rows.append([day or "no date", first, second, better, *said])
    note = (
        "First less second, in brackets 95 % intervals of the difference, from drawing the same coarse cells for both "
        "maps. Lower is better for RMSE and ubRMSE, higher for the others. Of twenty differences between maps that are "
        "equally good one leaves out 0 by chance."
    )
    return _cut(Table("Is one map better than another?", heads, rows, 3, note))


def _heads(card: xr.Dataset, entries: list[tuple[str, str, int, bool]]) -> list[Head]:
    return [Head(label, _units(card[name]), card[name].attrs.get("long_name", "")) for name, label, *_ in entries]


def all_tables(verdict: Verdict) -> list[Table]:
    """Every table that stands folded at the end of a report; empty ones are left out."""
    tables = [
        *(_card(name, card) for name, card in verdict.cards.items()),
        *(_scales(name, card) for name, card in verdict.cards.items()),
        _seams(verdict),
        _imprints(verdict),
        *(_segments(name, found) for name, found in verdict.edges.items()),
        *(_straight(name, found) for name, found in verdict.lines.items()),
        *(_patches(name, card) for name, card in verdict.cards.items()),
        *(_changes(name, card) for name, card in verdict.cards.items()),
    ]
    return [_cut(table) for table in tables if table.rows]


# ---- one table each


def _card(name: str, card: xr.Dataset) -> Table:
    """Every measure that is one number a day, with its formula and source."""
    days = [day or "value" for day, _ in by_day(card)]
    heads = [Head("measure"), *map(Head, days), Head("units"), Head("formula"), Head("source")]
    rows = []
    for measure, array in card.data_vars.items():
        if set(array.dims) - {"time"} or array.dtype.kind not in "fiub":
            continue
        values = [_measure(one, str(measure), 4, f"{measure}_interval" in card) for _, one in by_day(card)]
        about = array.attrs
        label = f"{measure}: {about['long_name']}" if about.get("long_name") else str(measure)
        rows.append([label, *values, _units(array), about.get("formula", ""), about.get("source", "")])
    return Table(f"{name}: scorecard", heads, rows)


def _scales(name: str, card: xr.Dataset) -> Table:
    """Skill by baseline and FSS by event and window."""
    days = [day or "value" for day, _ in by_day(card)]
    rows = []
    if "skill" in card:
        for baseline in card["baseline"].values:
            ones = [one.sel(baseline=baseline) for _, one in by_day(card)]
            rows.append([f"skill against {baseline}", *(_measure(one, "skill", 3, True) for one in ones)])
    if "fss" in card:
        for event in card["event"].values:
            for window in card["window"].values:
                ones = [one.sel(event=event, window=window) for _, one in by_day(card)]
                rows.append([f"FSS by {event}, {window} cells", *(_measure(one, "fss", 3, True) for one in ones)])
    return Table(f"{name}: skill against baselines, fractions skill score", [Head("measure"), *map(Head, days)], rows)


def _seams(verdict: Verdict) -> Table:
    heads = [Head("day"), Head("map"), Head("B"), Head("p"), Head("amplitude", "m³ m⁻³"), Head("tau²", "(m³ m⁻³)²")]
    heads += [Head("B, along x"), Head("B, along y"), Head("peak, along x"), Head("peak, along y")]
    heads += [Head("border with q < 0.05", "%")]
    rows = []
    for name, found in verdict.seams.items():
        for k, (day, one) in enumerate(by_day(found)):
            share = float(_at(verdict.edges[name], k)["fraction"]) if name in verdict.edges else np.nan
            ways = [float(one["ratio_by_direction"].sel(direction=way)) for way in "xy"]
            peaks = [float(one["peak_phase"].sel(direction=way)) for way in "xy"]
            rows.append([
                day or "no date", name, number(float(one["ratio"]), 3), number(float(one["p_value"]), 3),
                number(float(one["amplitude"]), 4), f"{float(one['tau2']):.2e}", *(number(b, 3) for b in ways),
                *(number(peak, 0) for peak in peaks), number(100 * share, 0),
            ])  # fmt: skip
    return Table("Steps at the edges of coarse cells", heads, rows, 2, "A peak at phase 0 lies on a coarse edge.")


def _imprints(verdict: Verdict) -> Table:
    heads = [Head("day"), Head("map"), Head("copied", "%"), Head("p"), Head("placebo, largest", "%")]
    heads += [Head("coarse step", "m³ m⁻³"), Head("pairs"), Head("border lines")]
    rows = []
    for name, found in verdict.imprints.items():
        for day, one in by_day(found):
            placebo = np.abs(one["placebo"].values)
            rows.append([
                day or "no date", name, _share(one), number(float(one["p_value"]), 4),
                number(100 * float(np.nanmax(placebo, initial=0)), 0), number(float(one["step"]), 4),
                f"{int(one['n']):,}", str(int(one["strips"])),
            ])  # fmt: skip
    note = "Placebo: the same slope beside the borders, where nothing can be copied."
    return Table("Share of the coarse field's steps that a map copies", heads, rows, 2, note)


def _segments(name: str, found: xr.Dataset) -> Table:
    heads = [Head("day"), Head("border", "", "x: west of a cell; y: north of one"), Head("row"), Head("column")]
    heads += [Head("latitude", "°"), Head("longitude", "°"), Head("jump", "m³ m⁻³"), Head("q")]
    rows = []
    for day, one in by_day(found):
        sure = np.flatnonzero(one["q_value"].values < 0.05)
        for k in sure[np.argsort(one["q_value"].values[sure], kind="stable")]:
            at = {key: one[key].values[k] for key in ("direction", "row", "col", "latitude", "longitude")}
            place = [str(at["direction"]), str(at["row"]), str(at["col"])]
            place += [number(float(at[key]), 3) for key in ("latitude", "longitude")]
            jump, q = float(one["jump"].values[k]), float(one["q_value"].values[k])
            rows.append([day or "no date", *place, signed(jump, 4), f"{q:.2g}"])
    return Table(f"{name}: borders of coarse cells that stand out (q < 0.05)", heads, rows)


def _straight(name: str, found: Any) -> Table:
    heads = [Head("day"), Head("line", "", "x: down the map; y: across it"), Head("index"), Head("degrees", "°")]
    heads += [Head("mean step", "m³ m⁻³"), Head("robust z"), Head("q"), Head("9-km phase")]
    rows = []
    for one in found.to_dict("records"):
        day = str(one["time"])[:10] if "time" in one else "no date"
        rows.append([
            day, str(one["direction"]), str(one["index"]), number(float(one["degrees"]), 3),
            signed(float(one["jump"]), 4), number(float(one["z_score"]), 1), f"{one['q_value']:.2g}",
            number(float(one["phase_9km"]), 0),
        ])  # fmt: skip
    return Table(f"{name}: straight lines right across the map", heads, rows)


def _patches(name: str, card: xr.Dataset) -> Table:
    heads = [Head("day"), Head("patch"), Head("area", "km²"), Head("quadrant"), Head("latitude", "°")]
    heads += [Head("longitude", "°"), Head("reference", "m³ m⁻³"), Head("map", "m³ m⁻³"), Head("deficit", "m³ m⁻³")]
    rows = []
    for k in range(card.sizes.get("patch", 0)):
        one = card.isel(patch=k)
        day = str(one["patch_time"].values)[:10] if "patch_time" in one else "no date"
        plain = [number(float(one[f"patch_{key}"]), d) for key, d in (("latitude", 3), ("longitude", 3))]
        plain += [number(float(one[f"patch_{key}"])) for key in ("mean_reference", "mean_prediction")]
        kind, quadrant = str(one["patch_kind"].values), str(one["patch_quadrant"].values)
        area, deficit = number(float(one["patch_area"]), 0), signed(float(one["patch_deficit"]))
        rows.append([day, kind, area, quadrant, *plain, deficit])
    return Table(f"{name}: wet patches", heads, rows)


def _changes(name: str, card: xr.Dataset) -> Table:
    shown = {
        "change_mean_prediction": "map", "change_mean_reference": "reference", "change_pearson_r": "R of changes",
        "change_slope": "slope of changes", "change_persistence_excess": "persistence excess",
    }  # fmt: skip
    shown = {key: label for key, label in shown.items() if key in card}
    heads = [Head("from"), Head("to")]
    heads += [Head(label, _units(card[key]), card[key].attrs.get("long_name", "")) for key, label in shown.items()]
    rows = []
    for k in range(card.sizes.get("change", 0)):
        one = card.isel(change=k)
        rows.append(
            [*(str(one[end].values)[:10] for end in ("start", "end")), *(_measure(one, key, 3, True) for key in shown)]
        )
    return Table(f"{name}: change from day to day", heads, rows, 2)


# ---- cells


def _at(found: xr.Dataset, k: int) -> xr.Dataset:
    return found.isel(time=k) if "time" in found.dims else found


def _measure(one: xr.Dataset, name: str, digits: int, bounds: bool) -> str:
    value = float(one[name])
    text = f"{value:,.0f}" if one[name].dtype.kind in "iu" else _small(value, digits)
    if bounds and f"{name}_interval" in one:
        low, high = (float(edge) for edge in one[f"{name}_interval"].values)
        if np.isfinite([low, high]).all():
            text += f" ({_small(low, digits)} to {_small(high, digits)})"
    return text


def _small(value: float, digits: int) -> str:
    """A number; with four digits, squares of soil moisture are left some too."""
    return f"{value:.2e}".replace("-", "−") if digits == 4 and 0 < abs(value) < 0.01 else number(value, digits)


def _share(one: xr.Dataset) -> str:
    return f"{number(100 * float(one['beta']), 0)} ± {number(100 * float(one['standard_error']), 0)}"


def _units(array: xr.DataArray) -> str:
    return words("", array.attrs.get("units"))


def _cut(table: Table) -> Table:
    if len(table.rows) <= MOST:
        return table
    note = f"The first {MOST} of {len(table.rows):,} rows. {table.note}".strip()
    return table._replace(rows=table.rows[:MOST], note=note)


def provenance(verdict: Verdict) -> Iterable[tuple[str, str]]:
    """What was judged, with what, as pairs of words."""
    import platform

    from smgrid import __version__

    grid, some = verdict.grid, next(iter(verdict.cards.values()))
    lon, lat = grid.lonlat()
    yield (
        "smgrid",
        f"{__version__}; numpy {np.__version__}, xarray {xr.__version__}, Python {platform.python_version()}",
    )
    yield (
        "window",
        f"{grid.ny} x {grid.nx} cells of {grid.km:g} km of the EASE-Grid 2.0, row {grid.row}, column {grid.col}",
    )
    yield "centres", f"{lon[0]:.4f} to {lon[-1]:.4f} degrees east, {lat[-1]:.4f} to {lat[0]:.4f} degrees north"
    yield "days", ", ".join(verdict.days) or "not dated"
    yield "intervals", f"{some.attrs['interval']}, {some.attrs['bootstrap_km']:g} km, seed {some.attrs['seed']}"
    for found in list(verdict.seams.values())[:1]:
        yield (
            "seams",
            f"{found.attrs['permutations']} permutations of strips, seed {found.attrs['seed']}; {found.attrs['source']}",
        )
    for found in list(verdict.imprints.values())[:1]:
        yield "copied steps", str(found.attrs["source"])
    fields = {**verdict.maps, "reference": verdict.reference}
    if verdict.coarse is not None:
        fields["coarse field"] = verdict.coarse
    for name, field in fields.items():
        said = {str(k): " ".join(str(v).split()) for k, v in sorted(field.attrs.items(), key=str) if str(v).strip()}
        yield (
            name,
            "; ".join(f"{k}: {v if len(v) < 200 else v[:199] + '…'}" for k, v in said.items())
            or "says nothing of itself",
        )
