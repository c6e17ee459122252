"""Lays figures, scores and seams out on one page.

The page is one HTML file that asks nothing of any network: figures are data in it, and a strict content security policy
lets only its own script and style run, by their hashes. Names and attributes come from other people's files; they are
escaped wherever they stand, and never become markup, code or addresses.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import warnings
from collections.abc import Iterator
from importlib.resources import files
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import xarray as xr

from smgrid import plot
from smgrid.sayings import sayings
from smgrid.seamfigures import segments
from smgrid.tables import all_tables, pair_table, provenance, score_table
from smgrid.verdict import Verdict, judge

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HELD = 600_000  # values in the page's map: 2 bytes each, a third more as text
LINES = 20_000  # borders that the page draws
DRAWN = 6  # days in figures
POINTS = 1_000_000  # values of a map in the figure of values against values
MISSING = 65535
PRECISION = 1e-5  # m3 m-3 that the page's map resolves, where the range allows


def write(path: str | Path, maps: Any, reference: Any, *, coarse: Any = None, title: str | None = None) -> Path:
    """Judge maps against a reference, and write what is found as one HTML page.

    Parameters
    ----------
    path : path
        The page, `.html`.
    maps : mapping of name to DataArray or maps, dims (time, y, x) or (y, x); or one of them
        Soil moisture in m3 m-3, or what converts to it, on the EASE-Grid 2.0.
    reference : DataArray or maps
        What they are judged by.
    coarse : DataArray, optional
        The coarse predictor (SMAP) whose steps the maps may have copied.
    title : str, optional

    Returns
    -------
    Path
        The page. It needs no network and no other file, and can be mailed.

    Raises
    ------
    ValueError
        The path is no `.html`; the fields lie on other grids, share no cell or day, or are in other units.
    FileNotFoundError
        There is no such folder.

    Examples
    --------
    >>> from smgrid import report, synthetic
    >>> scene = synthetic.yanco()
    >>> report.write("page.html", {"RF": maps}, scene.airborne, coarse=scene.smap)  # doctest: +SKIP
    """
    path = checked_path(path)
    return save(page(judge(maps, reference, coarse=coarse), title), path)


def save(made: str, path: str | Path) -> Path:
    """Write a page that is whole or not there: under another name first, then renamed."""
    path = checked_path(path)
    partial = path.with_name(path.name + ".partial")
    try:
        partial.write_text(made, encoding="utf-8", newline="\n")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def checked_path(path: str | Path) -> Path:
    """Where a page can be written; known before anything is computed."""
    path = Path(path)
    if path.suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"a report is an HTML page: the path ends in .html, not {path.suffix!r}: {path}")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {path.parent} to write {path.name} in")
    return path


def page(verdict: Verdict, title: str | None = None) -> str:
    """Lay a verdict out as a page.

    Parameters
    ----------
    verdict : Verdict
        As `smgrid.verdict.judge` gives it.
    title : str, optional

    Returns
    -------
    str
        HTML; the same verdict gives the same page, byte for byte.
    """
    from jinja2 import Environment
    from markupsafe import Markup

    from smgrid import __version__

    folder = files("smgrid") / "data"
    style, script, html = ((folder / f"report.{kind}").read_text("utf-8") for kind in ("css", "js", "html"))
    names, grid, days = list(verdict.maps), verdict.grid, len(verdict.days)
    when = "no date" if not days else verdict.days[0] if days == 1 else f"{days} days"
    payload, thinned = _payload(verdict)
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, finalize=_clean)
    return environment.from_string(html).render(
        title=title or f"Soil moisture: {_listed(names)} against a reference",
        lead=f"{_listed(names)}: {when}, {grid.ny} x {grid.nx} cells of {grid.km:g} km.",
        synthetic=verdict.synthetic,
        version=__version__,
        style=Markup(style),
        script=Markup(script),
        style_hash=Markup(_hash(style)),
        script_hash=Markup(_hash(script)),
        data=Markup(_json(payload)),
        thinned=thinned,
        sayings=sayings(verdict),
        notes=verdict.notes,
        score_table=score_table(verdict),
        pair_table=pair_table(verdict),
        tables=all_tables(verdict),
        figures=list(_figures(verdict)),
        provenance=list(provenance(verdict)),
    )


# ---- text that came from elsewhere


def _clean(value: Any) -> Any:
    """Text without what a page cannot hold: control characters and half characters."""
    if not isinstance(value, str) or hasattr(value, "__html__"):
        return value
    text = value.encode("utf-8", "replace").decode("utf-8")
    return "".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in text)


def _json(payload: Any) -> str:
    """JSON that cannot end its element, wherever its names come from."""
    text = json.dumps(payload, allow_nan=False, separators=(",", ":"), ensure_ascii=True)
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


def _hash(text: str) -> str:
    """What a content security policy knows a script or style by."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _listed(names: list[str]) -> str:
    short = [name if len(name) <= 40 else name[:39] + "…" for name in names]
    return ", ".join(short[:-1]) + " and " + short[-1] if len(short) > 1 else short[0]


# ---- the map that is read by pointing


def _payload(verdict: Verdict) -> tuple[dict[str, Any], str]:
    """Values of all layers and days as 16-bit numbers, and what was thinned so that a page holds them."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    grid, layers = verdict.grid, {"reference": verdict.reference, **verdict.maps}
    chosen = _chosen(max(1, len(verdict.days)), max(1, HELD // (len(layers) * min(10_000, grid.ny * grid.nx))))
    step = math.ceil(math.sqrt(max(1.0, grid.ny * grid.nx * len(layers) * len(chosen) / HELD)))
    values = np.stack([_values(field, chosen, step) for field in layers.values()])
    known = values[np.isfinite(values)]
    low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 0.5)
    scale = max((high - low) / (MISSING - 1), PRECISION)
    codes = np.where(np.isfinite(values), np.rint((values - low) / scale), MISSING).astype("<u2")
    ends = plot.limits(known)
    lon, lat = grid.lonlat()
    edges, said = [_borders(verdict, name, chosen, step) for name in layers], []
    if sum(len(day) for layer in edges for day in layer) > LINES:
        edges = [[[] for _ in chosen] for _ in layers]
        said.append("More borders stand out than a page can draw.")
    if step > 1:
        said.append(f"One row and column in {step} is in this map, so that the page stays small.")
    if len(chosen) < len(verdict.days):
        said.append(f"{len(chosen)} of {len(verdict.days)} days are in this map.")
    return {
        "grid": {"ny": values.shape[-2], "nx": values.shape[-1], "row": grid.row, "col": grid.col, "step": step},
        "lon": [round(float(v), 6) for v in lon[::step]],
        "lat": [round(float(v), 6) for v in lat[::step]],
        "aspect": round(plot.ground_aspect(grid), 4),
        "days": [verdict.days[k] for k in chosen] if verdict.days else [""],
        "layers": [_clean(name) for name in layers],
        "start": [1, 0],
        "edges": edges,
        "borders": any(one for layer in edges for one in layer),
        "units": "m³ m⁻³",
        "digits": 4,
        "offset": low,
        "scale": scale,
        "low": ends[0],
        "high": ends[1],
        "colours": [to_hex(colour) for colour in colormaps[plot.WET](np.linspace(0, 1, 256))],
        "values": base64.b64encode(codes.tobytes()).decode(),
    }, " ".join(said)


def _chosen(n: int, most: int) -> list[int]:
    """Up to so many of n, evenly spread, the first and last among them."""
    return sorted({int(k) for k in np.linspace(0, n - 1, min(n, most)).round()})


def _values(field: xr.DataArray, chosen: list[int], step: int) -> Any:
    thin = field.isel(y=slice(None, None, step), x=slice(None, None, step))
    thin = thin.isel(time=chosen) if "time" in thin.dims else thin.expand_dims("time")
    return np.asarray(thin.transpose("time", "y", "x").values, "f8")


def _borders(verdict: Verdict, name: str, chosen: list[int], step: int) -> list[list[list[float]]]:
    """Segments with q < 0.05 by day, in cells of the page's map."""
    if name not in verdict.edges:
        return [[] for _ in chosen]
    found = verdict.edges[name]
    days = [found.isel(time=k) for k in chosen] if "time" in found.dims else [found]
    return [[[round(v / step, 3) for v in ends] for ends in segments(one, verdict.grid)] for one in days]


# ---- figures


class _Picture(NamedTuple):
    source: str
    caption: str
    width: int
    height: int


def _figures(verdict: Verdict) -> Iterator[_Picture]:
    """Figures as data, with what they show in words."""
    chosen = _chosen(max(1, len(verdict.days)), DRAWN)
    of_days = f" {len(chosen)} of {len(verdict.days)} days." if len(chosen) < len(verdict.days) else ""
    tail = of_days + (" Synthetic." if verdict.synthetic else "")
    some = {name: _some(field, chosen) for name, field in {"reference": verdict.reference, **verdict.maps}.items()}
    found = {name: _some(result, chosen) for name, result in verdict.seams.items()}
    edges = {name: _some(result, chosen) for name, result in verdict.edges.items()}
    cards = {name: _some(card, chosen) for name, card in verdict.cards.items()}
    cell = f"{verdict.coarse_km:g}-km"
    yield _picture(
        plot.maps(some, seams=found, edges=edges),
        f"Maps by day (rows). B: steps at {cell} edges over steps elsewhere, and its p-value. Lines: borders of coarse "
        f"cells that stand out, q < 0.05. Grey: missing.{tail}",
        raster=True,
    )
    yield _picture(
        plot.seams(found),
        f"Mean step between neighbours by distance from the {cell} edge; an imprint peaks at 0.{tail}",
    )
    yield _picture(
        plot.decomposition(cards), f"Mean square error: bias, spread and pattern, which add up to the whole.{tail}"
    )
    yield _picture(
        plot.taylor(cards),
        "Spread (distance from the origin), correlation (angle) and error without the bias (distance from the star, which "
        f"is the reference), over the reference's standard deviation.{tail}",
    )
    yield _picture(
        plot.fss(cards),
        f"Fractions skill score of each map's wettest cells by window: how far off, in cells, wet places are.{tail}",
    )
    whole = {name: card for name, card in cards.items() if np.isfinite(card.get("coherence", np.nan)).any()}
    if whole:
        yield _picture(
            plot.spectra(whole),
            f"Above, power by wavelength; below, squared coherence with the reference, grey what chance gives.{tail}",
        )
    step = math.ceil(math.sqrt(max(1.0, some["reference"].size / POINTS)))
    points = {name: field.isel(y=slice(None, None, step), x=slice(None, None, step)) for name, field in some.items()}
    reference = points.pop("reference")
    if all((np.isfinite(field) & np.isfinite(reference)).any() for field in points.values()):
        thin = f" One row and column in {step}." if step > 1 else ""
        yield _picture(
            plot.scatter(points, reference),
            f"Values of each map against the reference; the line is 1:1.{thin}{tail}",
            raster=True,
        )


def _some(found: Any, chosen: list[int]) -> Any:
    return found.isel(time=chosen) if "time" in found.dims else found


def _picture(figure: Figure, caption: str, *, raster: bool = False) -> _Picture:
    """A figure as a data address: PNG for maps, SVG for lines."""
    import matplotlib as mpl

    held, kind = BytesIO(), "png" if raster else "svg"
    options: dict[str, Any] = {"dpi": 160, "metadata": {"Software": None}} if raster else {"metadata": {"Date": None}}
    with mpl.rc_context({"svg.hashsalt": "smgrid"}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # a name in letters of any script
        figure.savefig(held, format=kind, **options)
    mime = "image/png" if raster else "image/svg+xml"
    source = f"data:{mime};base64,{base64.b64encode(held.getvalue()).decode()}"
    width, height = (round(96 * inches) for inches in figure.get_size_inches())
    return _Picture(source, caption, width, height)
