"""Figures of scenarios, points and stations: what is drawn is what was given, said with its unit, without a network."""

import socket
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection, PathCollection, PolyCollection
from matplotlib.patches import PathPatch
from matplotlib.text import Text
from scipy import stats

import smgrid
from smgrid import drawing, plot, published, scenarios, scores, ttests
from smgrid.grid import Grid, x_of_longitude, y_of_latitude

NAMES = ["mlp", "svr", "rf", "xgb"]
BASELINES = ["training mean", "SMAP alone", "station climatology"]


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a figure asked the network")

    monkeypatch.setattr(socket, "socket", refuse)


def made(scenario="temporal", sizes=(1, 11, 21), repeats=12, seed=0, names=NAMES, **attrs):
    """Invented results, laid out as those of scenarios.run."""
    rng = np.random.default_rng(seed)
    every = [*names, *BASELINES]
    shape = len(sizes), len(every), repeats
    better = 0.02 / np.arange(1, 1 + len(sizes))[:, None, None] + 0.004 * np.arange(len(every))[:, None]
    rmse = 0.06 + better + rng.uniform(0, 0.01, shape)
    r = 1 - 4 * rmse
    r[:, every.index("training mean")] = np.nan
    bias = rng.normal(0, 0.01, (*shape, 15))
    dims = ("size", "regressor", "repeat")
    return xr.Dataset(
        {
            "bias": (dims, rng.normal(0, 0.01, shape)),
            "pearson_r": (dims, r),
            "rmse": (dims, rmse),
            "rmse_interval": ((*dims, "bound"), np.stack([rmse - 0.01, rmse + 0.02], -1)),
            "rmse_of_draws": ((*dims, "draw"), np.repeat(rmse[..., None], 5, -1)),
            "station_count": ((*dims, "station"), np.full(bias.shape, 9, "i4")),
            "station_bias": ((*dims, "station"), bias),
            "station_mse": ((*dims, "station"), bias**2 + rmse[..., None] ** 2),
        },
        {
            "size": ("size", np.array(sizes, "f8"), {"long_name": "training size, samples per cell"}),
            "regressor": np.array(every, object),
            "baseline": ("regressor", [0] * len(names) + [1] * 3),
            "repeat": np.arange(repeats),
        },
        {"scenario": scenario, "title": f"The {scenario} scenario", "tuning": "oracle", "draws": 5, **attrs},
    )


RESULTS = made()


def medians(ax):
    """Heights of the bars that mark medians."""
    (bars,) = [c for c in ax.collections if isinstance(c, LineCollection) and c.get_linewidth()[0] == 1.4]
    return [segment[0, 1] for segment in bars.get_segments()]


def table(figure):
    """Axes by measure and regressor."""
    axes = np.array(figure.axes, object)
    return axes.reshape(3, -1)


def words_of(figure):
    labels = [t.get_text() for legend in figure.legends for t in legend.get_texts()]
    return [figure.get_suptitle(), *labels, *(ax.get_title() for ax in figure.axes)]


# ---- scenarios


def test_a_column_a_regressor_and_a_row_a_measure():
    axes = table(plot.scenarios(RESULTS))
    assert axes.shape == (3, 4)
    assert [ax.get_title() for ax in axes[0]] == ["MLP", "SVR", "RF", "XGBoost"]
    assert [ax.get_ylabel() for ax in axes[:, 0]] == ["bias, m³ m⁻³", "Pearson R", "RMSE, m³ m⁻³"]
    assert {ax.get_xlabel() for ax in axes[2]} == {"training size, samples per cell"}
    assert [label.get_text() for label in axes[2, 0].get_xticklabels()] == ["1", "11", "21"]


@pytest.mark.parametrize("repeats", [3, 12])
def test_medians_and_violins_are_those_of_the_data(repeats):
    results = made(repeats=repeats)
    axes = table(plot.scenarios(results))
    for row, measure in enumerate(("bias", "pearson_r", "rmse")):
        for column, name in enumerate(NAMES):
            values = results[measure].sel(regressor=name)
            np.testing.assert_allclose(medians(axes[row, column]), values.median("repeat"))
            bodies = [c for c in axes[row, column].collections if isinstance(c, PolyCollection)]
            assert len(bodies) == (3 if repeats >= 10 else 0)
            for body, each in zip(bodies, values.values):
                heights = body.get_paths()[0].vertices[:, 1]
                assert (heights.min(), heights.max()) == pytest.approx((each.min(), each.max()))
            if repeats < 10:
                dots = np.concatenate(
                    [line.get_ydata() for line in axes[row, column].lines if line.get_marker() == "o"]
                )
                np.testing.assert_allclose(np.sort(dots), np.sort(values.values.ravel()))


def test_what_the_study_states_stands_beside_ours():
    figure = plot.scenarios(RESULTS)
    axes = table(figure)
    for row, measure in enumerate(("bias", "pearson_r", "rmse")):
        for column, name in enumerate(NAMES):
            said = published.stated("temporal", measure, name)
            points = {
                (x, y) for line in axes[row, column].lines if line.get_marker() == "D" for x, y in [*line.get_xydata()]
            }
            assert points == {([1, 11, 21].index(s.size), s.value) for s in said if s.size is not None}
            level = [s.value for s in said if s.size is None]
            dashed = [line.get_ydata()[0] for line in axes[row, column].lines if line.get_color() == drawing.RED]
            assert set(level) <= set(dashed)
    assert "median of Zhu et al. 2025" in words_of(figure)
    assert not any("Zhu" in word for word in words_of(plot.scenarios(made(names=["rf"]), paper=False)))


def test_the_study_is_quoted_as_it_is():
    """Counts and extremes of the table, and that nothing of it is about sizes the study did not have."""
    sizes = {
        "dependent": np.arange(1, 11) / 2,
        "temporal": np.arange(1, 22, 2),
        "spatial": np.arange(1, 58, 8),
        "regional": [],
    }
    for row in published.STATED:
        assert row.size is None or row.size in sizes[row.scenario]
        assert row.measure != "rmse" or 0.06 <= row.value <= 0.121
    assert len({row[:4] for row in published.STATED}) == len(published.STATED)
    assert "10.1109/TGRS.2025.3533927" in published.__doc__
    assert published.stated("spatial", "rmse", "XGBoost")[0].value == 0.092
    assert published.stated("spatial", "rmse", "my own") == []


def test_several_results_stand_side_by_side():
    figure = plot.scenarios({"1 km": RESULTS, "50 m": made(seed=5)})
    assert {"1 km", "50 m", "median"} <= set(words_of(figure))
    ax = table(figure)[2, 0]
    found = [c for c in ax.collections if isinstance(c, LineCollection) and c.get_linewidth()[0] == 1.4]
    assert [len(c.get_segments()) for c in found] == [3, 3]
    middles = [np.mean([s[:, 0].mean() - k for k, s in enumerate(c.get_segments())]) for c in found]
    assert middles == pytest.approx([-0.21, 0.21])


def test_baselines_are_lines_and_what_is_missing_is_left_out():
    results = RESULTS.copy(deep=True)
    results["rmse"][1, 0] = np.nan
    results["rmse"][0, 1, :4] = np.nan  # few are left
    figure = plot.scenarios(results)
    assert set(BASELINES) <= set(words_of(figure))
    axes = table(figure)
    assert len(medians(axes[2, 0])) == 2 and len(medians(axes[2, 1])) == 3
    gone = RESULTS.where(RESULTS.regressor != "svr")
    assert table(plot.scenarios(gone)).shape == (3, 3)


def title(results):
    return " ".join(plot.scenarios(results).get_suptitle().split())


def test_titles_say_synthetic_and_who_chose():
    one = made(names=["rf"])
    assert title(one) == "The temporal scenario: 12 repeats, best of 5 draws on the test set"
    invented = one.assign_attrs(source="synthetic", tuning="honest")
    assert title(invented) == "The temporal scenario (synthetic): 12 repeats, best of 5 draws on inner folds"
    once = one.isel(draw=[0])
    assert title(once) == "The temporal scenario: 12 repeats"
    named = once.assign_coords(station=[f"synthetic_{k}" for k in range(15)])
    assert title(named) == "The temporal scenario (synthetic): 12 repeats"


@pytest.mark.parametrize("measure", ["rmse", "pearson_r", "bias"])
def test_learning_curves_are_medians_with_intervals(measure):
    figure = plot.learning(RESULTS, measure=measure)
    (ax,) = figure.axes
    curves = [line for line in ax.lines if line.get_marker() not in ("None", "")]
    for line, name in zip(curves, NAMES, strict=True):
        np.testing.assert_allclose(line.get_ydata(), RESULTS[measure].sel(regressor=name).median("repeat"))
        np.testing.assert_allclose(line.get_xdata(), RESULTS["size"], atol=2.1)
    bars = [c for c in ax.collections if isinstance(c, LineCollection)]
    assert len(bars) == (4 if measure == "rmse" else 0)
    for bar, name in zip(bars, NAMES):
        ends = np.array([segment[:, 1] for segment in bar.get_segments()])
        np.testing.assert_allclose(ends, RESULTS.rmse_interval.sel(regressor=name).median("repeat"))
    assert ax.get_xlabel() == "training size, samples per cell"
    assert ("m³ m⁻³" in ax.get_ylabel()) == (measure != "pearson_r")


# ---- t-tests


def test_t_tests_are_those_of_scipy():
    tests = scenarios.t_tests(RESULTS)
    assert len(tests) == 3 * 6
    for row in tests.itertuples():
        a, b = (RESULTS.rmse.sel(size=row.size, regressor=name).values for name in (row.first, row.second))
        welch = stats.ttest_ind(a, b, equal_var=False)
        assert (row.t, row.df, row.p) == pytest.approx((welch.statistic, welch.df, welch.pvalue), rel=1e-9)
        assert row.p_paired == pytest.approx(stats.ttest_rel(a, b).pvalue, rel=1e-9)
        assert row.difference == pytest.approx(a.mean() - b.mean())
    assert tests.attrs["units"] == "m3 m-3"


def test_holm_is_the_step_down_it_is_said_to_be():
    p = np.array([0.01, 0.04, np.nan, 0.03, 0.005])
    np.testing.assert_allclose(ttests._holm(p), [0.03, 0.06, np.nan, 0.06, 0.02])


def test_intervals_by_station_are_those_of_difference():
    two = RESULTS.sel(regressor=["mlp", "xgb"])
    tests = scenarios.t_tests(two, draws=4000).set_index(["size", "first", "second"])
    whole = scenarios.difference(two, "mlp", "xgb", draws=4000, seed=7)
    for size in RESULTS["size"].values:
        low, high = whole.rmse_interval.sel(size=size).values
        found = tests.loc[(size, "mlp", "xgb")]
        assert (found["lower"], found["upper"]) == pytest.approx((low, high), abs=0.1 * (high - low))


def test_sizes_and_scenarios_are_compared_too():
    sizes = scenarios.t_tests(RESULTS, of="sizes")
    assert sizes[["regressor", "first", "second"]].values.tolist()[:2] == [["mlp", 1, 11], ["mlp", 11, 21]]
    assert len(sizes) == 8 and (sizes["difference"] > 0).all() and np.isfinite(sizes["lower"]).all()
    both = {"temporal": made(samples_sha256="a"), "spatial": made("spatial", (1, 57), seed=3, samples_sha256="b")}
    across = scenarios.t_tests(both)
    assert across[["regressor", "first", "second"]].values.tolist()[0] == ["mlp", "temporal", "spatial"]
    assert across["p_paired"].isna().all() and across["lower"].isna().all()  # other samples: nothing belongs together
    a, b = (both[name].rmse.isel(size=-1).sel(regressor="mlp") for name in both)
    assert across["difference"][0] == pytest.approx(float(a.mean() - b.mean()))
    still = RESULTS.copy(deep=True)
    still["rmse"][:] = 0.1
    assert scenarios.t_tests(still)["p"].isna().all()  # nothing varies: no test


@pytest.mark.parametrize("of", ["regressors", "sizes"])
def test_t_tests_are_drawn_as_they_are(of):
    tests = scenarios.t_tests(RESULTS, of=of)
    figure = plot.t_tests(tests)
    assert len(figure.axes) == (6 if of == "regressors" else 4)
    drawn = np.concatenate([line.get_ydata() for ax in figure.axes for line in ax.lines if line.get_marker() == "o"])
    np.testing.assert_allclose(np.sort(drawn), np.sort(tests["difference"]))
    full = [line for ax in figure.axes for line in ax.lines if line.get_markerfacecolor() == drawing.BLUE]
    assert sum(len(line.get_ydata()) for line in full) == (tests["p_holm"] < 0.01).sum()
    assert figure.get_supylabel() == "difference in RMSE, m³ m⁻³"


# ---- points


def measured(n=4000, seed=0):
    rng = np.random.default_rng(seed)
    o = xr.DataArray(rng.uniform(0.02, 0.45, n), dims="sample", attrs={"units": "m3 m-3"})
    return 0.1 + 0.5 * o + rng.normal(0, 0.03, n), o


def test_scatter_counts_every_value_and_prints_the_scores():
    p, o = measured()
    gap = p.copy()
    gap[:100] = np.nan
    figure = plot.scatter({"all": p, "some": gap.assign_attrs(units="m3 m-3")}, o)
    left, right = figure.axes[:2]
    for ax, one, n in ((left, p, "4,000"), (right, gap, "3,900")):
        (said,) = [text.get_text() for text in ax.texts]
        expected = [f"{float(m(one, o)):.3f}" for m in (scores.rmse, scores.pearson_r)]
        assert said.split("\n") == [
            f"n = {n}",
            f"bias = {float(scores.bias(one, o)):+.3f}",
            "RMSE = " + expected[0],
            "R = " + expected[1],
        ]
        (hexagons,) = ax.collections
        inside = (one > 0) & (one < ax.get_xlim()[1]) & (o < ax.get_xlim()[1])
        assert hexagons.get_array().sum() == int(inside.sum())
        (line,) = ax.lines
        np.testing.assert_array_equal(line.get_xdata(), line.get_ydata())
    assert left.collections[0].norm.vmax == right.collections[0].norm.vmax
    assert figure.get_supxlabel() == "measured soil moisture, m³ m⁻³"
    assert figure.get_supylabel() == "estimated soil moisture, m³ m⁻³"
    assert figure.axes[-1].get_ylabel() == "values per hexagon"


def test_scatter_takes_arrays_maps_and_lazy_fields():
    p, o = measured()
    plain = plot.scatter(p.values, o.values).axes[0].texts[0].get_text()
    assert plot.scatter(p.chunk(sample=700), o).axes[0].texts[0].get_text() == plain
    assert plot.scatter(p.to_dataset(name="soil_moisture"), o).axes[0].texts[0].get_text() == plain
    assert plot.scatter(p, o.assign_attrs(source="synthetic")).get_suptitle().endswith("(synthetic)")


# ---- stations and land


def stations(n=30, networks=3, lon=(-120, -80), lat=(30, 48)):
    rng = np.random.default_rng(0)
    place = {"latitude": rng.uniform(*lat, n), "longitude": rng.uniform(*lon, n)}
    one = pd.DataFrame(
        {"network": [f"N{k % networks}" for k in range(n)], "station": [f"s{k}" for k in range(n)], **place}
    )
    return one.loc[np.repeat(np.arange(n), np.arange(1, n + 1))].reset_index(drop=True)  # the k-th has k samples


def test_every_station_is_a_dot_where_it_stands():
    samples = stations()
    figure = plot.stations(samples)
    (ax,) = figure.axes
    dots = [c for c in ax.collections if isinstance(c, PathCollection)]
    drawn = np.concatenate([np.asarray(c.get_offsets()) for c in dots])
    places = samples.groupby("station")[["longitude", "latitude"]].first().to_numpy()
    np.testing.assert_allclose(np.sort(drawn, axis=0), np.sort(places, axis=0))
    area = {tuple(p): s for c in dots for p, s in zip(np.asarray(c.get_offsets()).round(6), c.get_sizes())}
    counts = samples.groupby(["longitude", "latitude"]).size()
    order = [area[tuple(np.round(place, 6))] for place in counts.sort_values().index]
    assert order == sorted(order)
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["N2: 10, 165", "N1: 10, 155", "N0: 10, 145"]
    assert ax.get_title() == "30 stations, 465 samples"
    figure.savefig(BytesIO())
    labels = [t.get_text() for axis in (ax.xaxis, ax.yaxis) for t in axis.get_ticklabels()]
    assert labels and all(label[-1] in "WENS°" for label in labels)


def test_networks_differ_in_more_than_colour_and_too_many_are_one():
    figure = plot.stations(stations(60, networks=30))
    (ax,) = figure.axes
    dots = [c for c in ax.collections if isinstance(c, PathCollection)]
    looks = {(tuple(c.get_facecolor()[0]), c.get_paths()[0].vertices.tobytes()) for c in dots}
    assert len(looks) == len(dots) == 24
    assert any(t.get_text().startswith("others") for t in figure.legends[0].get_texts())


def test_a_small_place_is_located_on_a_second_map():
    near, where = plot.stations(stations(lon=(146, 146.4), lat=(-35.2, -34.8))).axes
    assert not near.patches and len([p for p in where.patches if isinstance(p, PathPatch)]) == 1
    (cross,) = where.lines
    assert abs(cross.get_xdata()[0] - 146.2) < 0.2 and abs(cross.get_ydata()[0] + 35) < 0.2


@pytest.mark.parametrize("name", ["<b>, $x_{$", "a\nb", "50 %, \\alpha", "$\\frac{1}{$"])
def test_names_are_drawn_as_they_are(name):
    results = made(sizes=(5, 80), names=[name, "rf"])
    measured = np.linspace(0.1, 0.4, 20)
    grid = Grid(1, 11466, 31401, 20, 30)
    maps = xr.DataArray(np.full(grid.shape, 0.2), grid.coords(), ("y", "x"), attrs={"units": "m3 m-3"})
    figures = {
        "scenarios": plot.scenarios(results),
        "learning": plot.learning(results),
        "t_tests": plot.t_tests(scenarios.t_tests(results)),
        "scatter": plot.scatter({name: measured}, measured),
        "stations": plot.stations(stations().assign(network=name, station=name)),
        "maps": plot.maps({name: maps}),
    }
    for kind, figure in figures.items():
        FigureCanvasAgg(figure).draw()
        said = [text.get_text() for text in figure.findobj(Text)]
        assert any(drawing.plain(name) in text or name in text for text in said), kind


def test_one_station_is_one():
    assert plot.stations(stations().iloc[:1]).axes[0].get_title() == "1 station, 1 sample"


def test_synthetic_stations_are_called_so():
    figure = plot.stations(stations().assign(network="A (synthetic)"))
    assert figure.axes[0].get_title().endswith("(synthetic)")
    assert figure.legends[0].get_texts()[0].get_text().startswith("A: ")
    assert plot.stations(smgrid.synthetic.network(20)).axes[0].get_title().endswith("(synthetic)")


@pytest.mark.parametrize(
    "lon, lat, wet",
    [
        (146, -35, False),
        (-98, 38, False),
        (10, 50, False),
        (0, 0, True),
        (-140, 30, True),
        (51, 42, True),
        (179, 68, False),
        (-179, 67, False),
        (160, -85, False),
    ],
)
def test_land_is_where_it_is(lon, lat, wet):
    """Even and odd crossings of all rings: seas inside land are sea."""
    inside = sum(ring_path.contains_point((lon, lat)) for ring_path in map(as_path, drawing._rings()))
    assert (inside % 2 == 0) == wet


def as_path(ring):
    from matplotlib.path import Path

    return Path(ring)


def test_the_stored_land_is_small_closed_and_explained():
    folder = Path(smgrid.__file__).parent / "data"
    assert (folder / "land_110m.npy").stat().st_size < 40_000
    assert "public domain" in (folder / "README.md").read_text()
    for ring in drawing._rings():
        np.testing.assert_array_equal(ring[0], ring[-1])
        assert np.abs(ring[:, 0]).max() <= 180 and np.abs(ring[:, 1]).max() <= 90


def test_wide_maps_show_coasts_and_small_ones_do_not():
    for bounds, km, coasts in (((-12, 35, 30, 60), 36, 1), ((145, -35.5, 146, -34.5), 1, 0)):
        grid = Grid.around(bounds, km=km)
        soil = xr.DataArray(np.full(grid.shape, 0.2, "f4"), grid.coords(), ("y", "x"), "soil_moisture")
        ax = plot.maps({"RF": soil}).axes[0]
        outlines = [p for p in ax.patches if isinstance(p, PathPatch)]
        assert len(outlines) == coasts
        west, south, east, north = grid.bounds
        assert (*ax.get_xlim(), *ax.get_ylim()) == pytest.approx((west, east, south, north))
    cape = drawing.land(x_of_longitude, y_of_latitude).vertices[:, 1].min()
    assert cape == pytest.approx(float(y_of_latitude(-90)))


# ---- all of them


DRAW = {
    "scenarios": lambda r, t, s: plot.scenarios(r),
    "learning": lambda r, t, s: plot.learning(r),
    "t_tests": lambda r, t, s: plot.t_tests(t),
    "stations": lambda r, t, s: plot.stations(s),
}


@pytest.mark.parametrize("name", DRAW)
def test_inputs_stay_as_they_were(name):
    results, samples = RESULTS.copy(deep=True), stations()
    tests = scenarios.t_tests(results)
    before = results.copy(deep=True), tests.copy(deep=True), samples.copy(deep=True)
    DRAW[name](results, tests, samples).savefig(BytesIO())
    xr.testing.assert_identical(results, before[0])
    pd.testing.assert_frame_equal(tests, before[1])
    pd.testing.assert_frame_equal(samples, before[2])


@pytest.mark.parametrize(
    "sizes, names", [((5, 80), ["rf"]), ((5, 80), ["rf", "xgb"]), ((1,), NAMES), (tuple(range(1, 58, 4)), NAMES)]
)
def test_words_stay_in_the_figure_and_apart(sizes, names):
    results = made(sizes=sizes, names=names)
    figures = [plot.scenarios(results), plot.scenarios({"1 km": results, "50 m": results}), plot.learning(results)]
    if len(names) == 2:
        figures += [plot.t_tests(scenarios.t_tests(results, of=of)) for of in ttests.OF]
    for figure in figures:
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        renderer = canvas.get_renderer()
        title = figure._suptitle.get_window_extent(renderer)
        boxes = [figure.legends[0].get_window_extent(renderer), title]
        boxes += [ax.xaxis.label.get_window_extent(renderer) for ax in figure.axes if ax.get_xlabel()]
        width, height = figure.bbox.size
        for at, box in enumerate(boxes):
            assert box.x0 >= 0 and box.x1 <= width and box.y0 >= -1 and box.y1 <= height + 1
            assert not any(box.overlaps(other) for other in boxes[:at])


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: plot.scenarios({}), "one to 3 of them by name, not 0"),
        (
            lambda: plot.scenarios(RESULTS[["bias"]]),
            r"no results of scenarios.run: rmse \(size, regressor, repeat\) is missing",
        ),
        (lambda: plot.scenarios(RESULTS.where(False)), "no finished trial"),
        (
            lambda: plot.scenarios({"a": RESULTS, "b": made("spatial")}),
            "of one scenario, but these are.*'b': 'spatial'",
        ),
        (lambda: plot.learning(RESULTS, measure="r2"), "the measure is one of.*not 'r2'"),
        (lambda: scenarios.t_tests(RESULTS, measure="r2"), "the measure is one of.*not 'r2'"),
        (lambda: scenarios.t_tests(RESULTS, of="years"), "pairs are of regressors or sizes, not 'years'"),
        (
            lambda: scenarios.t_tests(made(repeats=1)),
            "mlp and svr at size 1.0 have 1 and 1 repeats: a t-test needs two",
        ),
        (lambda: scenarios.t_tests(made(sizes=(1,)), of="sizes"), "there are no two sizes to compare"),
        (
            lambda: plot.t_tests(pd.DataFrame({"p": [0.1]})),
            r"table of scenarios.t_tests, not one with the columns \['p'\]",
        ),
        (lambda: plot.scatter({}, measured()[1]), "the mapping of predictions is empty"),
        (lambda: plot.scatter({"RF": np.ones(3)}, np.ones(4)), r"'RF' has the shape \(3,\), the reference \(4,\)"),
        (
            lambda: plot.scatter(np.full(3, np.nan), np.ones(3)),
            "the prediction and the reference have no value in common",
        ),
        (
            lambda: plot.stations(pd.DataFrame({"latitude": [1.0]})),
            r"no \['longitude'\] \(degrees\); they have \['latitude'\]",
        ),
        (lambda: plot.stations(stations().iloc[:0]), "the table is empty"),
        (lambda: plot.stations(stations().assign(latitude=99.0)), "no latitude in -90..90"),
    ],
)
def test_what_cannot_be_drawn_says_why(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_path_is_answered_with_the_line_that_opens_it():
    with pytest.raises(TypeError, match=r"a Dataset, not a path: xarray.load_dataset\('results.nc'\)"):
        plot.scenarios("results.nc")


def test_results_that_kept_nothing_of_stations_have_no_interval_by_station():
    bare = RESULTS.drop_vars([name for name in ("station_bias", "station_mse") if name in RESULTS])
    tests = scenarios.t_tests(bare)
    assert tests[["lower", "upper"]].isna().all().all() and tests["p"].notna().any()
