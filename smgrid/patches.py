"""Finds the wet patches of a reference and says which of them a prediction has.

Patches are connected over the whole map, so a date is held as a whole: at most 2^24 cells.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from smgrid.pairs import WHOLE, Pair, Place, Sheet, divide, open_pair

WET = 0.95  # quantile of the reference; at lower ones, patches of one rain run together
MIN_AREA = 9.0  # km2
HIT = 0.5  # share of a patch's seen cells that must be wet in the prediction
EIGHT = np.ones((3, 3), int)

_SOURCE = "after Davis et al. (2006), doi:10.1175/MWR3145.1 (objects by threshold and connection)"


def wet_patches(
    prediction: Any,
    reference: Any,
    *,
    threshold: float | None = None,
    min_area: float = MIN_AREA,
    tolerance: float = 0,
    merge: float = 0,
) -> xr.Dataset:
    """Table of the reference's wet patches: which were found, where they lie, how much water is lacking in them.

    Parameters
    ----------
    prediction, reference : DataArray or maps, dims (..., y, x)
        At most 2^24 cells a date.
    threshold : float, optional
        A cell of either map is wet above it. By default the reference's 0.95 quantile, date by date.
    min_area : float, km2
        Smaller patches are left out.
    tolerance : float, km
        How far off, on the ground, a wet cell of the prediction still counts.
    merge : float, km
        Patches whose nearest cells lie so near on the ground, centre to centre, are one patch. What is smaller than
        `min_area` by itself is left out before, and joins nothing.

    Returns
    -------
    Dataset
        A row per `patch` (`.to_dataframe()` gives the table): `kind`: "found" (at least half of its seen cells are wet in
        the prediction), "missed", "unseen" (the prediction covers less than half of it), or "false alarm" (a patch of
        the prediction of whose seen cells less than half are wet in the reference); `found`; `area` in km2; `seen`, the
        share that the other map covers; `wet_share`, the share of the seen cells that is wet in the other map;
        `longitude`, `latitude` of the centroid, `quadrant` of the map; `mean_reference`, `mean_prediction` and their
        difference `deficit` over the seen cells; and the date. By date: `patches` (found or missed), `pod` and
        `pod_area`, the share of them that is found, by number and by area; `false_alarms`; `threshold`.

    Raises
    ------
    ValueError
        More than 2^24 cells, or a negative area or distance.

    References
    ----------
    Davis, Brown & Bullock (2006), Mon. Weather Rev. 134, 1772-1784, doi:10.1175/MWR3145.1

    Examples
    --------
    >>> from smgrid import YANCO
    >>> reference = xr.DataArray(np.full(YANCO.shape, 0.1), YANCO.coords(), ("y", "x"))
    >>> reference[60:70, 5:15] = 0.3
    >>> found = wet_patches(reference - 0.15, reference, threshold=0.2)
    >>> found.kind.item(), found.quadrant.item(), found.area.round(1).item(), found.deficit.round(2).item()
    ('missed', 'SW', 100.2, 0.15)
    """
    if not (min_area >= 0 and tolerance >= 0 and merge >= 0):
        raise ValueError(
            f"areas and distances are 0 or more: min_area={min_area:g} km2, tolerance={tolerance:g} km, merge={merge:g} km"
        )
    pair = open_pair(prediction, reference)
    if pair.place.grid.ny * pair.place.grid.nx > WHOLE:
        raise ValueError(
            f"patches need a whole date at once, and {pair.place.grid.ny} x {pair.place.grid.nx} cells are more than "
            f"{WHOLE}: cut a window, prediction.isel(y=slice(...), x=slice(...))"
        )
    found = [patches_of(pair.sheet(at), threshold, min_area, tolerance, merge) for at in np.ndindex(pair.lead_shape)]
    return table(pair, found)


class Patches(NamedTuple):
    """What is found on one date."""

    rows: list[dict[str, Any]]
    threshold: float


def patches_of(
    sheet: Sheet,
    threshold: float | None = None,
    min_area: float = MIN_AREA,
    tolerance: float = 0,
    merge: float = 0,
) -> Patches:
    """The patches of one date."""
    p, o = sheet.whole()[:2]
    both = np.isfinite(p) & np.isfinite(o)
    if not both.any():
        return Patches([], np.nan)
    limit = float(np.quantile(o[both], WET)) if threshold is None else float(threshold)
    wet_p, wet_o = p > limit, o > limit
    near_p, near_o = (_widen(wet, tolerance, sheet.place) for wet in (wet_p, wet_o))
    patches, alarmed = (_labelled(wet, sheet.place, min_area, merge) for wet in (wet_o, wet_p))
    rows = _rows(patches, near_p, p, o, np.isfinite(p), sheet.place, ("found", "missed", "unseen"))
    alarms = _rows(alarmed, near_o, p, o, np.isfinite(o), sheet.place, ("", "false alarm", ""))
    return Patches(rows + [row for row in alarms if row["kind"]], limit)


def _widen(wet: NDArray[np.bool_], tolerance: float, place: Place) -> NDArray[np.bool_]:
    if not tolerance or not wet.any():
        return wet
    dx, dy = place.mean_ground()
    away = ndimage.distance_transform_edt(~wet, sampling=(dy / 1e3, dx / 1e3))
    return np.asarray(away <= tolerance)


def _labelled(wet: NDArray[np.bool_], place: Place, min_area: float, merge: float) -> NDArray[np.int64]:
    """The number of the patch that a cell belongs to, 0 where it belongs to none."""
    label, number = ndimage.label(wet, EIGHT)
    size = (place.grid.cell / 1e3) ** 2  # the projection is equal-area
    large = np.bincount(label.ravel(), minlength=number + 1) * size >= min_area
    large[0] = False
    new = np.where(large, np.cumsum(large), 0)
    label, number = new[label], int(large.sum())
    if not merge or number < 2:
        return label
    rim = (label > 0) & ~ndimage.binary_erosion(label > 0, EIGHT)
    cells, whose = np.argwhere(rim), label[rim]
    dx, dy = place.mean_ground()
    near = cKDTree(cells * [dy / 1e3, dx / 1e3]).query_pairs(merge * (1 + 1e-9), output_type="ndarray")
    links = coo_array((np.ones(len(near)), (whose[near[:, 0]] - 1, whose[near[:, 1]] - 1)), (number, number))
    _, group = connected_components(links, directed=False)
    return np.concatenate([[0], group + 1])[label]


def _rows(
    label: NDArray[np.int64],
    other: NDArray[np.bool_],
    p: NDArray[np.float64],
    o: NDArray[np.float64],
    seen: NDArray[np.bool_],
    place: Place,
    kinds: tuple[str, str, str],
) -> list[dict[str, Any]]:
    """A row per connected patch; `seen` is what the other map covers, `other` where that is wet."""
    grid = place.grid
    lon, lat = grid.lonlat()
    size = (grid.cell / 1e3) ** 2  # one area everywhere: the projection is equal-area
    rows = []
    for k, box in enumerate(ndimage.find_objects(label), 1):
        inside = label[box] == k
        looked = inside & seen[box]
        row, col = (float(k.mean()) + cut.start for k, cut in zip(np.nonzero(inside), box))
        share = float(divide((looked & other[box]).sum(), looked.sum()))
        covered = float(looked.sum() / inside.sum())
        kind = kinds[2] if covered < HIT else kinds[0] if share >= HIT else kinds[1]
        mean_p, mean_o = (float(a[box][looked].mean()) if looked.any() else np.nan for a in (p, o))
        rows.append(
            {
                "kind": kind,
                "found": kind == "found",
                "area": float(inside.sum() * size),
                "seen": covered,
                "wet_share": share,
                "longitude": float(np.interp(col, np.arange(lon.size), lon)) if place.placed else np.nan,
                "latitude": float(np.interp(row, np.arange(lat.size), lat)) if place.placed else np.nan,
                "quadrant": ("N" if row < (grid.ny - 1) / 2 else "S") + ("W" if col < (grid.nx - 1) / 2 else "E"),
                "row": row,
                "col": col,
                "mean_reference": mean_o,
                "mean_prediction": mean_p,
                "deficit": mean_o - mean_p,
            }
        )
    return sorted(rows, key=lambda one: -one["area"])


_SAID = {
    "kind": ("found, missed, unseen or false alarm", None),
    "found": ("at least half of the seen cells wet in the prediction", None),
    "area": ("area", "km2"),
    "seen": ("share covered by the other map", "1"),
    "wet_share": ("share of the seen cells wet in the other map", "1"),
    "longitude": ("longitude of the centroid", "degree_east"),
    "latitude": ("latitude of the centroid", "degree_north"),
    "quadrant": ("quadrant of the map", None),
    "row": ("row of the centroid in the map, from the north", "1"),
    "col": ("column of the centroid in the map, from the west", "1"),
    "mean_reference": ("mean of the reference over the seen cells", "field"),
    "mean_prediction": ("mean of the prediction over the seen cells", "field"),
    "deficit": ("reference less prediction over the seen cells", "field"),
}
_TEXT = {"kind": "U11", "quadrant": "U2", "found": "?"}


def table(pair: Pair, found: list[Patches]) -> xr.Dataset:
    """The rows of all dates as one Dataset, with what follows for each date."""
    rows = [row for one in found for row in one.rows]
    place = [at for at, one in zip(np.ndindex(pair.lead_shape), found) for _ in one.rows]
    out = xr.Dataset(coords={name: coord for name, coord in pair.coords().items() if {*coord.dims} <= {*pair.lead}})
    for name, (long_name, units) in _SAID.items():
        attrs = {"long_name": long_name, "units": pair.units if units == "field" else units}
        values = np.array([row[name] for row in rows], _TEXT.get(name, "f8"))
        out[name] = ("patch", values, {key: value for key, value in attrs.items() if value})
    for k, dim in enumerate(pair.lead):  # a column that says which date a patch is of
        at = np.array([index[k] for index in place], int)
        column = out[dim].values[at] if dim in out.coords else at
        out[f"patch_{dim}"] = ("patch", column, {"long_name": f"{dim} of the patch"})
    for name, figures in {"threshold": [one.threshold for one in found], **_counts(found)}.items():
        out[name] = (pair.lead, np.reshape(figures, pair.lead_shape), {"long_name": _TOTALS[name]})
    out["threshold"].attrs |= {"units": pair.units} if pair.units else {}
    out.attrs = {"source": _SOURCE}
    return out


_TOTALS = {
    "threshold": "soil moisture above which a cell is wet",
    "patches": "patches found or missed",
    "pod": "share of patches found, by number",
    "pod_area": "share of patches found, by area",
    "false_alarms": "patches of the prediction that the reference has not",
}


def _counts(found: list[Patches]) -> dict[str, list[float]]:
    out: dict[str, list[float]] = {name: [] for name in ("patches", "pod", "pod_area", "false_alarms")}
    for one in found:
        judged = [row for row in one.rows if row["kind"] in ("found", "missed")]
        hit = [row for row in judged if row["found"]]
        area = sum(row["area"] for row in judged)
        out["patches"].append(len(judged))
        out["pod"].append(len(hit) / len(judged) if judged else np.nan)
        out["pod_area"].append(sum(row["area"] for row in hit) / area if area else np.nan)
        out["false_alarms"].append(sum(row["kind"] == "false alarm" for row in one.rows))
    return out
