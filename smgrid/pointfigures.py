"""Draws points: predictions against observations, and stations on the Earth."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import dask.base
import numpy as np
import xarray as xr

from smgrid import scores
from smgrid.drawing import (
    HUES,
    INK,
    LAND,
    MARKERS,
    MEDIUM,
    RED,
    SMALL,
    degree_ticks,
    draw_land,
    is_synthetic,
    land,
    literal,
    plain,
    words,
)
from smgrid.resampling import station_of
from smgrid.shapes import as_field

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DENSITY = ("Blues", 0.25, 1.0)  # dense is dark, and the palest still stands out from paper
BINS = 40  # hexagons along an axis
LOCATED = 12.0  # degrees; a narrower window needs a second map that says where on Earth it is
NETWORKS = len(HUES) * 3  # more would look alike: the smaller ones are drawn as one


def scatter(prediction: Any, reference: Any) -> Figure:
    """Draw predictions against observations as densities, with n, bias, RMSE and R: a panel per prediction.

    The figure of Fig. 6 of the study.

    Parameters
    ----------
    prediction : DataArray, maps or array; or mapping of str to them
        In m3 m-3.
    reference : DataArray, maps or array
        What was measured, on the same cells or rows.

    Returns
    -------
    matplotlib Figure
        Hexagons count values on one logarithmic colour scale for all panels; the line is 1:1. Values missing in either
        are left out of their panel; measures are of all the rest, those beyond the axes included.

    Raises
    ------
    ValueError
        No prediction, different shapes, or no value that both have.

    References
    ----------
    Zhu et al. (2025), IEEE TGRS 63, doi:10.1109/TGRS.2025.3533927, figure 6.

    Examples
    --------
    >>> measured = np.random.default_rng(0).uniform(0.05, 0.4, 500)
    >>> scatter({"RF": 0.1 + 0.5 * measured, "SVR": 0.2 + 0 * measured}, measured)
    <Figure size ... with 3 Axes>
    """
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap, LogNorm
    from matplotlib.figure import Figure

    given = (
        dict(prediction)
        if isinstance(prediction, Mapping) and not isinstance(prediction, xr.Dataset)
        else {"": prediction}
    )
    if not given:
        raise ValueError("there is nothing to draw: the mapping of predictions is empty")
    pairs = {str(name): _pair(str(name), one, reference) for name, one in given.items()}
    low, high = _range(pairs)
    columns = min(4, len(pairs))
    rows = -(-len(pairs) // columns)
    figure = Figure(figsize=(2.5 * columns + 1.2, 2.55 * rows + 0.5), layout="compressed")
    axes = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).ravel()
    drawn, tones = [], ListedColormap(colormaps[DENSITY[0]](np.linspace(*DENSITY[1:], 256)))
    for ax, (name, (p, o)) in zip(axes, pairs.items()):
        ax.plot([low, high], [low, high], color=RED, linewidth=1, zorder=3)
        hexagons: dict[str, Any] = dict(gridsize=BINS, extent=(low, high, low, high), mincnt=1, cmap=tones)
        drawn.append(ax.hexbin(o.values, p.values, linewidths=0.1, zorder=2, **hexagons))
        _write_scores(ax, p, o)
        ax.set(xlim=(low, high), ylim=(low, high), aspect="equal")
        ax.set_title(plain(name), fontsize=MEDIUM, fontweight="bold")
        ax.tick_params(labelsize=SMALL, length=2, width=0.5, color=INK)
    for ax in axes[len(pairs) :]:
        ax.remove()
    most = max(float(one.get_array().max()) for one in drawn if one.get_array().size)  # type: ignore[union-attr]
    for one in drawn:
        one.set_norm(LogNorm(1, max(most, 2)))
    _count_bar(figure, drawn[0], list(axes[: len(pairs)]))
    units = str(getattr(next(iter(pairs.values()))[1], "attrs", {}).get("units", "m3 m-3"))
    figure.supxlabel(words("measured soil moisture", units), fontsize=MEDIUM)
    figure.supylabel(words("estimated soil moisture", units), fontsize=MEDIUM)
    if is_synthetic(reference, *given.values()):
        figure.suptitle("Estimated and measured soil moisture (synthetic)", fontsize=MEDIUM + 1)
    return literal(figure)


def stations(samples: pd.DataFrame | xr.Dataset) -> Figure:
    """Draw where stations stand: a dot per station, larger with more samples, a colour and a marker per network.

    The figure of Fig. 1 of the study. Coastlines are Natural Earth's, 1:110 million, kept in the package: no network is
    needed.

    Parameters
    ----------
    samples : DataFrame, or Dataset (dim sample)
        `latitude`, `longitude`; `network` if known. Rows of one station (`resampling.station_of`) are one dot.

    Returns
    -------
    matplotlib Figure
        Of more than 24 networks the smaller ones are drawn as one. Less than 12 degrees wide it has no coasts, but a
        second map that says where it is.

    Examples
    --------
    >>> import pandas as pd
    >>> stations(pd.DataFrame({"network": "A", "station": ["s", "t"], "latitude": [-35, -34], "longitude": [146, 147]}))
    <Figure size ... with 2 Axes>
    """
    from matplotlib.figure import Figure

    table = _per_station(samples)
    west, south, east, north = _window(table)
    flat = 1 / np.cos(np.radians((south + north) / 2))  # a degree of latitude over one of longitude
    near = east - west < LOCATED
    width = min(5.5 if near else 8.6, 5.5 * (east - west) / (flat * (north - south)))
    height = width * flat * (north - south) / (east - west)
    networks = table.groupby("network")["n"].agg(["size", "sum", "mean"]).sort_values("sum", ascending=False)
    columns = min(4 if width > 7 else 3, len(networks))
    below = 0.14 * (-(-len(networks) // columns) + 1)
    figure = Figure(
        figsize=(max(5.0, 1.35 * width if near else width) + 0.5, height + 0.7 + below), layout="constrained"
    )
    if near:  # so near, the stored coasts would be wrong: they go on a map of their own
        ax, where = figure.subplots(1, 2, width_ratios=[3, 1])
        _locate(where, (west + east) / 2, (south + north) / 2)
    else:
        ax = figure.subplots()
        draw_land(ax, land(), facecolor=LAND, edgecolor="0.6", linewidth=0.6, zorder=1)
    ax.set(xlim=(west, east), ylim=(south, north), aspect=flat)
    largest = 20 + 80 / (1 + len(table) / 200)  # points^2: a crowd takes smaller dots
    area = largest * (0.2 + 0.8 * table["n"] / table["n"].max())
    for k, (name, (count, total, mean)) in enumerate(networks.iterrows()):
        here = table["network"] == name
        ax.scatter(
            table.loc[here, "longitude"],
            table.loc[here, "latitude"],
            s=area[here],
            color=HUES[k % len(HUES)],
            marker=MARKERS[(k + k // len(HUES)) % len(MARKERS)],
            edgecolor="0.2",
            linewidth=0.3,
            zorder=2 + 1 / (1 + mean),  # small dots lie on large ones
            label=f"{name}: {count:.0f}, {total:,.0f}",
        )
    _degrees(ax, width)
    counts = {"station": len(table), "sample": int(table["n"].sum())}
    what = ", ".join(f"{n:,} {name}{'s' * (n != 1)}" for name, n in counts.items())
    synthetic = is_synthetic(samples) or table["synthetic"].any()
    ax.set_title(f"{what} (synthetic)" if synthetic else what, fontsize=MEDIUM + 1)
    legend = figure.legend(loc="outside lower center", ncols=columns, frameon=False, fontsize=SMALL)
    for handle in legend.legend_handles:
        handle.set_sizes([28])  # type: ignore[union-attr]
    return literal(figure)


# ---- predictions and observations


def _pair(name: str, prediction: Any, reference: Any) -> tuple[xr.DataArray, xr.DataArray]:
    """Values that both have, one row each."""
    if isinstance(prediction, xr.DataArray | xr.Dataset) and isinstance(reference, xr.DataArray | xr.Dataset):
        p, o = as_field(prediction), as_field(reference)
        p, o = xr.broadcast(*xr.align(p, o, join="exact"))
    else:
        p, o = (
            xr.DataArray(np.asarray(as_field(f) if isinstance(f, xr.Dataset) else f)) for f in (prediction, reference)
        )
    which = f"the prediction {name!r}" if name else "the prediction"
    if p.shape != o.shape:
        raise ValueError(
            f"{which} has the shape {p.shape}, the reference {o.shape}: give them on the same rows or cells"
        )
    p, o = dask.base.compute(p, o)  # type: ignore[no-untyped-call]
    known = np.isfinite(p.values) & np.isfinite(o.values)
    if not known.any():
        raise ValueError(f"{which} and the reference have no value in common")
    rows = [xr.DataArray(each.values[known].astype("f8"), dims="row", attrs=each.attrs) for each in (p, o)]
    return rows[0], rows[1]


def _range(pairs: Mapping[str, tuple[xr.DataArray, xr.DataArray]]) -> tuple[float, float]:
    """One range for all axes that a few extremes do not stretch; soil moisture begins at 0."""
    known = np.concatenate([each.values for pair in pairs.values() for each in pair])
    low, high = np.percentile(known, [0.1, 99.9])
    low = min(0.0, float(np.floor(low * 20) / 20))
    return low, max(float(np.ceil(high * 20) / 20), low + 0.05)


def _write_scores(ax: Axes, p: xr.DataArray, o: xr.DataArray) -> None:
    bias, rmse, r = (float(measure(p, o)) for measure in (scores.bias, scores.rmse, scores.pearson_r))
    said = f"n = {p.size:,}\nbias = {bias:+.3f}\nRMSE = {rmse:.3f}\nR = {r:.3f}"
    box: dict[str, Any] = dict(facecolor="white", alpha=0.8, edgecolor="none", pad=1.5)
    ax.text(0.04, 0.96, said, transform=ax.transAxes, va="top", fontsize=SMALL, bbox=box, zorder=4)


def _count_bar(figure: Figure, drawn: Any, axes: list[Axes]) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    bar = figure.colorbar(drawn, ax=axes, aspect=28, pad=0.04 / len(axes))
    bar.set_label("values per hexagon", fontsize=MEDIUM)
    bar.ax.tick_params(labelsize=SMALL)
    bar.ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    bar.ax.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    bar.ax.yaxis.set_minor_formatter(NullFormatter())


# ---- stations


def _per_station(samples: Any) -> pd.DataFrame:
    """A row a station: where it is, of which network, how many samples."""
    import pandas as pd

    columns = samples.columns if hasattr(samples, "columns") else samples.variables
    absent = [name for name in ("latitude", "longitude") if name not in columns]
    if absent:
        raise ValueError(f"the stations have no {absent} (degrees); they have {sorted(map(str, columns))}")
    table = pd.DataFrame({name: np.asarray(samples[name].values) for name in ("latitude", "longitude")})
    if not len(table):
        raise ValueError("there are no stations to draw: the table is empty")
    named = (
        np.asarray(samples["network"].values).astype(str) if "network" in columns else np.full(len(table), "stations")
    )
    table = table.assign(station=station_of(samples), network=named, n=1)
    out = table.groupby("station").agg(
        latitude=("latitude", "mean"), longitude=("longitude", "mean"), network=("network", "first"), n=("n", "sum")
    )
    if not np.isfinite(out[["latitude", "longitude"]].to_numpy()).all() or (out["latitude"].abs() > 90).any():
        raise ValueError("some stations have no latitude in -90..90 or no longitude: leave them out first")
    out["longitude"] = (out["longitude"] + 180) % 360 - 180
    out["synthetic"] = out["network"].str.contains("synthetic", case=False)
    if out["synthetic"].all():  # the title says so
        out["network"] = out["network"].str.removesuffix(" (synthetic)")
    large = out.groupby("network")["n"].sum().nlargest(NETWORKS - 1).index
    if out["network"].nunique() > NETWORKS:
        out["network"] = out["network"].where(out["network"].isin(large), "others")
    return out


def _window(table: pd.DataFrame) -> tuple[float, float, float, float]:
    """West, south, east, north around the stations, with some land to know it by."""
    west, east = table["longitude"].min(), table["longitude"].max()
    south, north = table["latitude"].min(), table["latitude"].max()
    wide, high = max(1.16 * (east - west), 0.5), max(1.2 * (north - south), 0.4)
    wide, high = max(wide, 0.8 * high), max(high, 0.4 * wide)
    x, y = (west + east) / 2, (south + north) / 2
    return max(x - wide / 2, -180.0), max(y - high / 2, -89.0), min(x + wide / 2, 180.0), min(y + high / 2, 89.0)


def _locate(ax: Axes, lon: float, lat: float) -> None:
    """A small map of the surroundings, with a cross at the place."""
    lat = float(np.clip(lat, -70, 70))
    ax.set(xlim=(lon - 22, lon + 22), ylim=(lat - 18, lat + 18), aspect=1 / np.cos(np.radians(lat)), anchor="N")
    draw_land(ax, land(), facecolor=LAND, edgecolor="0.6", linewidth=0.6, zorder=1)
    ax.plot([lon], [lat], "+", color=RED, markersize=9, markeredgewidth=1.5)
    _degrees(ax, 1.0)


def _degrees(ax: Axes, width: float) -> None:
    """Ticks in degrees on axes so many inches wide."""
    ax.set_xticks(*degree_ticks(np.array(ax.get_xlim()), "WE", width))
    ax.set_yticks(*degree_ticks(np.array(ax.get_ylim()), "SN", np.inf))
    ax.tick_params(labelsize=SMALL, length=2, width=0.5, color=INK, pad=2)
