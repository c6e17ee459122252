"""Figures of seams and patterns: what is drawn is what was found, with its unit; borders only where q < 0.05."""

from io import BytesIO

import numpy as np
import pytest
import xarray as xr
from matplotlib.collections import LineCollection
from matplotlib.text import Text

from smgrid import patterns, plot, seams
from smgrid.drawing import plain
from smgrid.grid import Grid
from smgrid.seamfigures import SEAM, segments

GRID = Grid(1, 11466, 31401, 45, 36)
DAYS = np.array(["2015-05-05", "2015-09-15"], "M8[ns]")


def field(blocks=0.0, days=DAYS, **attrs):
    rng = np.random.default_rng(0)
    steps = rng.normal(0, blocks, (len(days), 6, 5)).repeat(9, 1).repeat(9, 2)[:, :45, :36] if blocks else 0
    values = 0.2 + 0.05 * np.sin(np.arange(36) / 3) + steps + rng.normal(0, 0.01, (len(days), *GRID.shape))
    coords = {**GRID.coords(), "time": days}
    return xr.DataArray(values.astype("f4"), coords, ("time", "y", "x"), "soil_moisture", {"units": "m3 m-3", **attrs})


MAPS = {"RF": field(0.03), "$\\frac$": field()}


@pytest.fixture(scope="module")
def cards():
    return {name: patterns.compare(one, field(0.001) + 0.01) for name, one in MAPS.items()}


def texts(figure):
    figure.savefig(BytesIO())  # whatever cannot be drawn raises here
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


def drawn(ax):
    return {line.get_label(): line.get_xydata() for line in ax.get_lines()}


def test_the_profile_is_laid_about_the_edge():
    results = {name: seams.detect(one) for name, one in MAPS.items()}
    figure = plot.seams(results)
    axes = np.array(figure.axes).reshape(2, 2)
    for row, result in zip(axes, results.values()):
        for ax, direction in zip(row, "xy"):
            for day, points in drawn(ax).items():
                assert points[:, 0].tolist() == list(range(-4, 5))
                found = result.profile.sel(time=day, direction=direction).values
                np.testing.assert_array_equal(points[:, 1], np.r_[found[5:], found[:5]])
    said = texts(figure)
    assert "mean step, m³ m⁻³" in said and "cells from the coarse edge, west to east" in said and "2015-09-15" in said


def test_only_borders_that_stand_out_are_drawn():
    one = MAPS["RF"]
    found, edges = seams.detect(one), seams.edges(one)
    figure = plot.maps({"RF": one, "even": MAPS["$\\frac$"]}, seams={"RF": found}, edges={"RF": edges})
    panels = [ax for ax in figure.axes if ax.get_label() != "<colorbar>"]
    for k, ax in enumerate(panels[::2]):
        lines = [s for c in ax.collections if isinstance(c, LineCollection) for s in c.get_segments()]
        sure = edges.isel(time=k).q_value < 0.05
        assert len(lines) == int(sure.sum()) > 0
        west, south, east, north = GRID.bounds
        for (x0, y0), (x1, y1) in lines:
            across = (x0 - west, GRID.col) if x0 == x1 else (north - y0, GRID.row)
            assert (round(across[0] / GRID.cell) + across[1]) % 9 == 0
            assert west - 1 < x0 <= x1 < east + 1 and south - 1 < y1 <= y0 < north + 1  # metres
    assert "borders of coarse cells that stand out, q < 0.05" in texts(figure)
    assert not [c for ax in panels[1::2] for c in ax.collections if isinstance(c, LineCollection)]
    assert any(text.get_color() == SEAM for text in panels[0].texts)


def test_segments_are_cut_at_the_window():
    found = xr.Dataset(
        {"q_value": ("segment", [0.01, 0.2, 0.01, np.nan])},
        {"direction": ("segment", ["x", "x", "y", "y"]), "row": ("segment", [11463, 11472, 11475, 11484]),
         "col": ("segment", [31410, 31410, 31428, 31401]), "length": ("segment", [9, 9, 12, 9])},
    )  # fmt: skip
    assert segments(found, GRID) == [(9, 0, 9, 6), (27, 9, 36, 9)]


@pytest.mark.parametrize(
    "edges, message",
    [({"XGB": None}, r"edges of \['XGB'\], but the fields are"), ({"RF": xr.Dataset()}, "'RF' have no q_value")],
)
def test_edges_of_something_else_are_refused(edges, message):
    with pytest.raises(ValueError, match=message):
        plot.maps({"RF": MAPS["RF"]}, edges=edges)


def test_the_parts_of_a_bar_make_the_error(cards):
    figure = plot.decomposition(cards)
    bars = figure.axes[0].patches
    ends = sorted(bar.get_x() + bar.get_width() for bar in bars[-4:])
    np.testing.assert_allclose(ends, np.sort([card.mse.values for card in cards.values()], axis=None), rtol=1e-9)
    said = texts(figure)
    assert "mean square error, (m³ m⁻³)²" in said and "2015-05-05  RF" in said and "2015-09-15  $\\frac$" in said


def test_scores_by_window_are_those_found(cards):
    figure = plot.fss(cards)
    for ax, day in zip(figure.axes, ("2015-05-05", "2015-09-15")):
        card = cards["RF"].sel(time=day, event="frequency")
        np.testing.assert_array_equal(drawn(ax)["RF"], np.stack([card.window, card.fss], 1))
        assert "strewn at random" in drawn(ax)
    assert "side of the window, cells" in texts(figure)


def test_a_point_of_taylors_diagram_lies_as_far_from_the_reference_as_the_centred_error(cards):
    figure = plot.taylor(cards)
    for ax, k in zip(figure.axes, range(2)):
        for name, card in cards.items():
            one = card.isel(time=k)
            x, y = drawn(ax)[plain(name)][0]
            assert np.hypot(x, y) == pytest.approx(float(one.variance_ratio), rel=1e-9)
            assert np.hypot(x - 1, y) == pytest.approx(float(one.ubrmse / one.sd_reference), rel=1e-6)
            assert x / np.hypot(x, y) == pytest.approx(float(one.pearson_r), rel=1e-9)
        sd = float(cards["RF"].sd_reference[k])
        assert ax.get_title() == f"{str(DAYS[k])[:10]}\nsd of the reference {sd:.3g} m³ m⁻³"
        assert ax.get_xlim()[0] > -0.1 and ax.get_xlim()[1] > float(cards["RF"].variance_ratio.max())
    assert {"correlation", "sd over that of the reference", "centred RMSE over sd of reference"} <= set(texts(figure))


def test_taylors_diagram_of_opposite_constant_and_missing_maps(cards):
    odd = cards["RF"].copy(deep=True)
    odd["pearson_r"][0], odd["sd_prediction"][1], odd["pearson_r"][1] = -0.5, 0, np.nan
    figure = plot.taylor({"odd": odd})
    x, y = drawn(figure.axes[0])["odd"][0]
    assert x < 0 < y and figure.axes[0].get_xlim()[0] < -1 and "−0.6" in texts(figure)
    np.testing.assert_array_equal(drawn(figure.axes[1])["odd"], [[0, 0]])
    odd["sd_reference"][:] = 0
    assert texts(plot.taylor({"odd": odd})).count("no spread to compare with") == 2
    odd["sd_reference"][:], odd["sd_prediction"][:] = 1, 5e4
    assert len(figure.axes[0].get_xticks()) < 15 and len(plot.taylor(odd).axes[0].get_xticks()) < 15


def test_spectra_are_those_found(cards):
    figure = plot.spectra(cards)
    upper, lower = figure.axes[0], figure.axes[2]
    card = cards["RF"].isel(time=0)
    np.testing.assert_array_equal(drawn(upper)["reference"][:, 1], card.power_reference)
    np.testing.assert_array_equal(drawn(lower)["RF"], np.stack([card.wavelength, card.coherence], 1))
    assert lower.get_xlim()[0] > lower.get_xlim()[1]  # long waves first
    assert {"wavelength, km", "squared coherence", "power, (m³ m⁻³)²"} <= set(texts(figure))


@pytest.mark.parametrize("name", ["decomposition", "fss", "spectra", "taylor"])
def test_an_undated_result_is_one_panel_and_synthetic_is_said(cards, name):
    one = cards["RF"].isel(time=0, drop=True).assign_attrs(comment="of synthetic fields")
    figure = getattr(plot, name)(one)
    assert len(figure.axes) == (2 if name == "spectra" else 1) and any("(synthetic)" in said for said in texts(figure))


@pytest.mark.parametrize("name", ["decomposition", "fss", "spectra", "taylor", "seams"])
@pytest.mark.parametrize("given", [None, {}, {"RF": xr.Dataset()}])
def test_what_is_no_result_is_refused(name, given):
    with pytest.raises(ValueError, match=r"give .*result|give what smgrid\.patterns"):
        getattr(plot, name)(given)


def test_names_stay_as_they_are_written():
    assert plain("_RF") == " _RF" and plain("a\nb\x00") == "a b "
