"""Judges maps against a reference: everything that a report says rests on what is found here."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

import xarray as xr

from smgrid import patterns, scores, seams
from smgrid.borders import source_of
from smgrid.drawing import is_synthetic
from smgrid.exhibits import meet
from smgrid.grid import Grid
from smgrid.jumps import DEPTH
from smgrid.shapes import as_field

if TYPE_CHECKING:
    import pandas as pd

HELD = 2**26  # cells of one field, all days: read once and held up to here, read anew by every judge beyond
LISTED = 2**23  # cells of a day up to which every segment of the borders is listed
PAIRED = 4  # maps of which every two are set against each other; of more, the first against each


@dataclass(frozen=True, eq=False, repr=False)
class Verdict:
    """What was found of some maps.

    Attributes
    ----------
    maps : dict of name to DataArray, m3 m-3
    reference : DataArray
    coarse : DataArray, or None
    coarse_km : float
    overall : dict of name to dict
        n, bias, rmse, ubrmse and pearson_r over all days.
    cards : dict of name to Dataset
        As `patterns.compare` gives them, on the cells that all maps and the reference have.
    differences : dict of (name, name) to Dataset
        What `patterns.compare(versus=)` adds to the first map's card: `NAME_difference`, first less second, and its
        paired interval. Of more than four maps the first is set against each.
    seams, edges : dict of name to Dataset
        As `seams.detect` and `seams.edges` give them; the reference is in it, as "reference". Without edges where the
        maps are too large for a list.
    imprints : dict of name to Dataset
        As `seams.imprint` gives them; empty without a coarse field.
    lines : dict of name to DataFrame
        As `seams.straight_lines` gives them.
    notes : list of str
        What was left out.
    """

    maps: dict[str, xr.DataArray]
    reference: xr.DataArray
    coarse: xr.DataArray | None
    coarse_km: float
    overall: dict[str, dict[str, float]]
    cards: dict[str, xr.Dataset]
    differences: dict[tuple[str, str], xr.Dataset]
    seams: dict[str, xr.Dataset]
    edges: dict[str, xr.Dataset]
    imprints: dict[str, xr.Dataset]
    lines: dict[str, pd.DataFrame]
    notes: list[str]

    def __repr__(self) -> str:
        return f"Verdict: {', '.join(self.maps)} against a reference, {', '.join(self.days) or 'no date'}"

    @property
    def grid(self) -> Grid:
        """Window on which was judged."""
        return Grid.of(self.reference)

    @property
    def days(self) -> list[str]:
        """Days that were judged; empty where nothing is dated."""
        return [str(day)[:10] for day in self.reference["time"].values] if "time" in self.reference.dims else []

    @property
    def synthetic(self) -> bool:
        """Whether any of the fields says that it is invented."""
        coarse = [] if self.coarse is None else [self.coarse]
        return is_synthetic(self.reference, *self.maps.values(), *coarse)


def judge(maps: Any, reference: Any, *, coarse: Any = None, coarse_km: float = 9, seed: int = 0) -> Verdict:
    """Score maps against a reference, and look for the marks of coarse inputs on them.

    Parameters
    ----------
    maps : mapping of name to DataArray or maps, dims (time, y, x) or (y, x); or one of them
        In m3 m-3 or what converts, on the EASE-Grid 2.0.
    reference : DataArray or maps
        On the same cells; only shared cells and days are judged.
    coarse : DataArray, optional
        The coarse predictor (SMAP), on its own cells or as blocks: what the maps may have copied, and what they have to
        be better than.
    coarse_km : float
        Side of the coarse cells.
    seed : int
        Of intervals and permutations.

    Returns
    -------
    Verdict

    Raises
    ------
    ValueError
        See `smgrid.exhibits.meet`; a coarse field that lacks a day, or is smooth.

    Examples
    --------
    >>> from smgrid import synthetic
    >>> scene = synthetic.yanco()
    >>> judge({"truth": scene.truth}, scene.airborne)
    Verdict: truth against a reference, 2015-05-05, 2015-05-17, 2015-09-15, 2015-09-26
    """
    given = dict(maps) if isinstance(maps, Mapping) and not isinstance(maps, xr.Dataset) else {"map": maps}
    given = {name: _with_words(field) for name, field in given.items()}
    fields, reference, notes = meet(given, _with_words(reference))
    fields = {name: _held(field) for name, field in fields.items()}
    reference = _held(reference)
    if coarse is not None:
        coarse = _coarse(_with_words(coarse), reference)
    every = {"reference": reference, **fields}
    common = scores.common_mask(*every.values())
    if len(fields) > 1:
        notes.append("Scores rest on the cells that all maps and the reference have; seams on all cells of each map.")
    shared = {name: field.where(common) for name, field in fields.items()}
    small = math.prod(reference.sizes[dim] for dim in "yx") <= LISTED
    if not small:
        notes.append("The maps are too large for a list of single border segments.")
    tall = min(reference.sizes[dim] for dim in "yx") >= DEPTH  # what jumps are measured over
    bordered = tall and coarse is not None and _has_borders(coarse, Grid.of(reference))
    if not tall:
        notes.append("The maps are too narrow for single borders and for what is copied.")
    elif coarse is not None and not bordered:
        notes.append("No two cells of the coarse field meet within the maps: what is copied cannot be said.")
    with warnings.catch_warnings():  # what is at a wrong place stands in the attributes, and is said from there
        warnings.filterwarnings("ignore", category=UserWarning, module="smgrid")
        cards, differences = _compare(shared, reference, coarse=coarse, coarse_km=coarse_km, seed=seed)
        verdict = Verdict(
            maps=fields,
            reference=reference,
            coarse=coarse,
            coarse_km=coarse_km,
            overall={name: _overall(field, reference) for name, field in shared.items()},
            cards=cards,
            differences=differences,
            seams={name: seams.detect(field, coarse_km=coarse_km, seed=seed) for name, field in every.items()},
            edges={
                name: seams.edges(field, coarse if bordered else None, coarse_km=coarse_km)
                for name, field in every.items()
                if small and tall
            },
            imprints={name: seams.imprint(field, coarse) for name, field in every.items() if bordered},
            lines={name: seams.straight_lines(field) for name, field in every.items()},
            notes=notes,
        )
    if verdict.synthetic:  # figures and tables of the findings say so too
        every_finding = (verdict.cards, verdict.differences, verdict.seams, verdict.edges, verdict.imprints)
        for found in every_finding:
            for one in found.values():
                one.attrs["comment"] = "of synthetic fields"
    return verdict


def _compare(
    fields: Mapping[str, xr.DataArray], reference: xr.DataArray, **options: Any
) -> tuple[dict[str, xr.Dataset], dict[tuple[str, str], xr.Dataset]]:
    """A card of each map, and the differences of pairs; the fields have the same cells, so that both agree."""
    pairs = list(combinations(fields, 2))
    pairs = pairs if len(fields) <= PAIRED else [pair for pair in pairs if pair[0] == next(iter(fields))]
    cards, differences = {}, {}
    for name, field in fields.items():
        others: list[str | None] = [second for first, second in pairs if first == name]
        for other in others or [None]:
            found = patterns.compare(field, reference, versus=None if other is None else fields[other], **options)
            paired = [v for v in found.data_vars if str(v).endswith(("_versus", "_difference", "_difference_interval"))]
            cards[name] = found.drop_vars(paired)
            if other is not None:
                differences[name, other] = found[["n", *(v for v in paired if not str(v).endswith("_versus"))]]
    return cards, differences


def _has_borders(coarse: xr.DataArray, grid: Grid) -> bool:
    """Whether two coarse cells meet within the maps; a coarse field elsewhere is refused later, where that is said."""
    try:
        source_of(coarse, grid, "coarse", "blocks")
    except ValueError as error:
        return "no two cells" not in str(error)
    return True


def by_day(found: xr.Dataset, dim: str = "time") -> Iterator[tuple[str, xr.Dataset]]:
    """Findings a day at a time, with the day's name; one with the name "" where nothing is dated."""
    if dim not in found.dims:
        yield "", found
        return
    for k, day in enumerate(found[dim].values):
        yield str(day)[:10], found.isel({dim: k})


def _with_words(obj: Any) -> Any:
    """The field of some maps, which says what the maps say of themselves."""
    field = as_field(obj)
    return field.assign_attrs({**obj.attrs, **field.attrs}) if isinstance(obj, xr.Dataset) else field


def _held(field: xr.DataArray) -> xr.DataArray:
    field = field.astype("f4", copy=False)
    return field.load() if field.size <= HELD else field


def _coarse(coarse: Any, reference: xr.DataArray) -> xr.DataArray:
    """The coarse field on the days that are judged."""
    field = as_field(coarse)
    if "time" not in field.dims:
        return field.load()
    if "time" not in reference.dims:
        if field.sizes["time"] > 1:
            raise ValueError(
                f"the coarse field has {field.sizes['time']} days, the maps no date: choose its day, "
                "coarse.sel(time='2015-05-05')"
            )
        return field.isel(time=0, drop=True).load()
    field = field.assign_coords(time=field["time"].values.astype("M8[D]").astype("M8[ns]"))
    missing = [str(day)[:10] for day in reference["time"].values if day not in field["time"].values]
    if missing:
        raise ValueError(f"the coarse field lacks the days {', '.join(missing)} that are judged")
    return field.sel(time=reference["time"].values).load()


def _overall(field: xr.DataArray, reference: xr.DataArray) -> dict[str, float]:
    measures = (scores.count, scores.bias, scores.rmse, scores.ubrmse, scores.pearson_r)
    names = ("n", "bias", "rmse", "ubrmse", "pearson_r")
    found = xr.Dataset({name: measure(field, reference).variable for name, measure in zip(names, measures)}).compute()
    return {name: float(found[name]) for name in names}
