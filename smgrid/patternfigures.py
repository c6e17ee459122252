"""Draws what `patterns.compare` finds: the parts of the error, the FSS by window, spectra and coherence."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from smgrid.drawing import BLUE, GREEN, HUES, INK, MARKERS, MEDIUM, ORANGE, SMALL, is_synthetic, literal, plain, words

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PARTS = (
    ("mse_bias", "bias²", BLUE, ""),
    ("mse_variance", "spread: (sd p − sd o)²", ORANGE, "///"),
    ("mse_correlation", "pattern: 2 sd p sd o (1 − R)", GREEN, "..."),
)
MOST = 6  # days drawn


def decomposition(cards: Any) -> Figure:
    """Draw what the mean square error is made of: bias, too little or too much spread, a wrong pattern.

    Parameters
    ----------
    cards : Dataset, or mapping of name to Dataset
        As `patterns.compare` gives them.

    Returns
    -------
    matplotlib Figure
        A bar per day and map; the three parts of a bar make its whole exactly.

    References
    ----------
    Gupta et al. (2009), J. Hydrol. 377, 80-91, doi:10.1016/j.jhydrol.2009.08.003

    Examples
    --------
    >>> from smgrid import patterns, synthetic
    >>> scene = synthetic.yanco()
    >>> decomposition({"truth": patterns.compare(scene.truth, scene.airborne)})
    <Figure size ... with 1 Axes>
    """
    from matplotlib.figure import Figure

    named = named_cards(cards, "mse_bias")
    bars = [(day, name, one) for day in days_of(named) for name, card in named.items() for one in on_day(card, day)]
    figure = Figure(figsize=(6.6, 1.2 + 0.24 * len(bars)), layout="constrained")
    ax = figure.subplots()
    first = [k for k, (day, *_) in enumerate(bars) if k == 0 or bars[k - 1][0] != day]
    place = np.arange(len(bars)) + 0.5 * np.searchsorted(first, np.arange(len(bars)), side="right")
    left = np.zeros(len(bars))
    for name, label, colour, hatch in PARTS:
        size = np.nan_to_num([float(one[name]) for *_, one in bars])
        ax.barh(
            place, size, left=left, height=0.8, color=colour, hatch=hatch, edgecolor="white", linewidth=0.4, label=label
        )
        left += size
    ax.set_yticks(place, [f"{day}  {plain(name)}".strip() for day, name, _ in bars], fontsize=SMALL)
    ax.invert_yaxis()
    _axes(ax, words("mean square error", units_of(named, "mse")), "")
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=SMALL)
    say_synthetic(figure, named, "What the error is made of")
    return literal(figure)


def fss(cards: Any, *, event: str = "frequency") -> Figure:
    """Draw the fractions skill score by the width of the window: from which scale on are the wet cells well placed?

    Parameters
    ----------
    cards : Dataset, or mapping of name to Dataset
        As `patterns.compare`, or `patterns.fss`, gives them.
    event : {"frequency", "value"}
        Wet by each map's own wettest cells, or above one soil moisture.

    Returns
    -------
    matplotlib Figure
        A panel per day; the grey line is what as many wet cells get that are strewn at random.

    References
    ----------
    Roberts & Lean (2008), Mon. Weather Rev. 136, 78-97, doi:10.1175/2007MWR2123.1

    Examples
    --------
    >>> from smgrid import patterns, synthetic
    >>> scene = synthetic.yanco()
    >>> fss({"truth": patterns.fss(scene.truth, scene.airborne)})
    <Figure size ... with 4 Axes>
    """
    named = named_cards(cards, "fss")
    days = days_of(named)
    figure, axes = _panels(days, 1, sharey=True)
    for ax, day in zip(axes[0], days):
        for k, (name, card) in enumerate(named.items()):
            for one in on_day(card, day):
                chosen = one.sel(event=event)
                at = chosen["window"].values
                ax.plot(at, chosen["fss"], label=plain(name), **line_style(k))
                if name == [*named][-1]:
                    ax.plot(at, chosen["fss_random"], color="0.6", linewidth=3, zorder=0, label="strewn at random")
        ax.set_xscale("log", base=3)
        ax.set_xticks(at, [str(w) for w in at])
        ax.set_xticks([], minor=True)
        ax.set_ylim(0, 1.02)
        ax.set_title(day, fontsize=MEDIUM)
        _axes(ax, "side of the window, cells", "")
    axes[0, 0].set_ylabel("fractions skill score", fontsize=MEDIUM)
    _legend(figure, axes[0, 0])
    say_synthetic(figure, named, "Where the wet cells are")
    return literal(figure)


def spectra(cards: Any) -> Figure:
    """Draw power and squared coherence by wavelength: how much structure there is at a scale, and how much of it is right.

    Parameters
    ----------
    cards : Dataset, or mapping of name to Dataset
        As `patterns.compare`, or `patterns.coherence`, gives them.

    Returns
    -------
    matplotlib Figure
        A column per day. Above, power of the maps and (black) of the reference; below, squared coherence with the
        reference, and (grey) what unrelated maps reach in 5 % of cases. Wavelengths are kilometres on the ground.

    References
    ----------
    Ballarotta et al. (2019), Ocean Sci. 15, 1091-1109, doi:10.5194/os-15-1091-2019

    Examples
    --------
    >>> from smgrid import patterns, synthetic
    >>> scene = synthetic.yanco()
    >>> spectra({"truth": patterns.coherence(scene.truth, scene.airborne)})
    <Figure size ... with 8 Axes>
    """
    named = named_cards(cards, "coherence")
    days = days_of(named)
    figure, axes = _panels(days, 2, sharex=True, sharey="row")
    for (upper, lower), day in zip(axes.T, days):
        for k, (name, card) in enumerate(named.items()):
            for one in on_day(card, day):
                at, style = one["wavelength"].values, line_style(k) | {"marker": "", "linewidth": 1.3}
                if k == 0:
                    upper.plot(at, one["power_reference"], color="black", linewidth=2, label="reference")
                    lower.fill_between(at, 0, one["coherence_chance"], color="0.85", linewidth=0, label="chance, 95 %")
                upper.plot(at, one["power_prediction"], label=plain(name), **style)
                lower.plot(at, one["coherence"], label=plain(name), **style)
        upper.set(xscale="log", yscale="log")
        upper.yaxis.set_major_formatter("{x:g}")
        if not any(np.isfinite(one["coherence"]).any() for card in named.values() for one in on_day(card, day)):
            lower.text(0.5, 0.5, "too many cells are missing", transform=lower.transAxes, ha="center", fontsize=SMALL)
        upper.set_title(day, fontsize=MEDIUM)
        lower.set_ylim(0, 1.02)
        lower.set_xlim(*np.sort(at)[[-1, 0]])
        lower.set_xticks([k for k in (2, 5, 10, 20, 50, 100, 200, 500) if at.min() <= k <= at.max()])
        lower.xaxis.set_major_formatter("{x:g}")
        lower.set_xticks([], minor=True)
        _axes(upper, "", "")
        _axes(lower, "wavelength, km", "")
    axes[0, 0].set_ylabel(words("power", units_of(named, "power_reference")), fontsize=MEDIUM)
    axes[1, 0].set_ylabel("squared coherence", fontsize=MEDIUM)
    _legend(figure, axes[0, 0], axes[1, 0])
    say_synthetic(figure, named, "Structure and agreement by scale")
    return literal(figure)


# ---- what is drawn, and how


def named_cards(cards: Any, needed: str) -> dict[str, xr.Dataset]:
    """Results by name; one alone has the name ""."""
    named = {"": cards} if isinstance(cards, xr.Dataset) else dict(cards) if isinstance(cards, Mapping) else {}
    if not named:
        raise ValueError(
            f'give a result of smgrid.patterns, or a mapping {{"RF": result}} of them, not {type(cards).__name__}'
        )
    for name, card in named.items():
        if needed not in card:
            raise ValueError(f"the result {name!r} has no {needed!r}: give what smgrid.patterns.compare returns")
    return {str(name): card for name, card in named.items()}


def days_of(named: Mapping[str, xr.Dataset]) -> list[str]:
    """Up to MOST days, evenly chosen, that any card has; "" where nothing is dated."""
    days = sorted({str(day)[:10] for card in named.values() for day in np.atleast_1d(card.coords.get("time", ""))})
    return [days[k] for k in np.unique(np.linspace(0, len(days) - 1, min(len(days), MOST)).round().astype(int))]


def on_day(card: xr.Dataset, day: str) -> Iterator[xr.Dataset]:
    """What a card says of a day."""
    if "time" not in card.dims:
        yield card
        return
    for k in np.flatnonzero(card["time"].values.astype("M8[D]").astype(str) == day):
        yield card.isel(time=int(k))


def _panels(days: list[str], rows: int, **share: Any) -> tuple[Figure, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(max(4.2, 2.3 * len(days) + 0.7), 2.0 * rows + 0.9), layout="constrained")
    return figure, figure.subplots(rows, len(days), squeeze=False, **share)


def line_style(k: int) -> dict[str, Any]:
    """Colour, marker and line of the k-th map."""
    lines = ("-", "--", "-.", ":")
    return {
        "color": HUES[k % 6],
        "marker": MARKERS[k % 8],
        "linestyle": lines[k % 4],
        "markersize": 4,
        "linewidth": 1.2,
    }


def _axes(ax: Axes, x: str, y: str) -> None:
    ax.set_xlabel(x, fontsize=MEDIUM)
    ax.set_ylabel(y, fontsize=MEDIUM)
    ax.tick_params(labelsize=SMALL, which="both", length=2, width=0.5, color=INK)
    ax.spines[["top", "right"]].set_visible(False)


def _legend(figure: Figure, *axes: Axes) -> None:
    """One legend for all panels; a label that comes twice is listed once."""
    drawn = {label: handle for ax in axes for handle, label in zip(*ax.get_legend_handles_labels())}
    if {*drawn} - {""}:
        figure.legend(
            [h for label, h in drawn.items() if label],
            [label for label in drawn if label],
            loc="outside lower center",
            ncols=min(5, len(drawn)),
            frameon=False,
            fontsize=SMALL,
        )


def say_synthetic(figure: Figure, named: Mapping[str, xr.Dataset], title: str) -> None:
    """Head a figure of invented fields."""
    if is_synthetic(*named.values()):
        figure.suptitle(f"{title} (synthetic)", fontsize=MEDIUM + 1)


def units_of(named: Mapping[str, xr.Dataset], variable: str) -> str | None:
    """Units of a measure, by the first card that says them."""
    return next((str(c[variable].attrs["units"]) for c in named.values() if "units" in c[variable].attrs), None)
