"""plot.maps: what is drawn is what was given, where it lies; nothing is shown, nothing global is touched."""

import os
import subprocess
import sys
from io import BytesIO

import dask.array as da
import numpy as np
import pytest
import xarray as xr
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.text import Text

import smgrid
from smgrid import plot
from smgrid.grid import Grid, longitude_of_x

DAYS = np.array(["2015-05-05", "2015-05-17", "2015-09-08"], "M8[ns]")


def field(grid=smgrid.YANCO, days=DAYS, seed=0, **attrs):
    values = np.random.default_rng(seed).uniform(0.1, 0.4, (len(days), *grid.shape)).astype("f4")
    coords = {**grid.coords(), "time": days}
    return xr.DataArray(values, coords, ("time", "y", "x"), "soil_moisture", {"units": "m3 m-3", **attrs})


def seams(ratio, p, days=DAYS):
    return xr.Dataset({"ratio": ("time", ratio), "p_value": ("time", p)}, {"time": days}, {"coarse_km": 9})


def panels(figure):
    """The axes but the colour bar, by row and column."""
    axes = [ax for ax in figure.axes if ax.get_label() != "<colorbar>"]
    columns = axes[0].get_gridspec().ncols
    return np.array(axes, object).reshape(-1, columns)


def texts(ax):
    return [text.get_text() for text in ax.texts]


def lines(ax, horizontal):
    at = 1 if horizontal else 0
    segments = [s for c in ax.collections if isinstance(c, LineCollection) for s in c.get_segments()]
    return sorted(s[0, at] for s in segments if s[0, at] == s[1, at])


def test_every_panel_shows_its_map():
    fields = {"airborne": field(seed=1), "RF": field(seed=2).to_dataset(), "SVR": field(seed=3).chunk(time=1, y=30)}
    figure = plot.maps(fields)
    assert isinstance(figure, Figure)
    axes = panels(figure)
    assert axes.shape == (3, 3)
    for column, given in enumerate(fields.values()):
        values = given.soil_moisture if isinstance(given, xr.Dataset) else given
        for row in range(3):
            (image,) = axes[row, column].images
            np.testing.assert_array_equal(image.get_array(), values[row].astype("f8"))
            west, south, east, north = smgrid.YANCO.bounds
            assert image.get_extent() == [west, east, south, north] and image.origin == "upper"
    assert [ax.get_title() for ax in axes[0]] == list(fields)
    assert [ax.get_ylabel() for ax in axes[:, 0]] == ["2015-05-05", "2015-05-17", "2015-09-08"]


def test_one_colour_scale_with_units():
    dry, wet = field(), field() + 0.3
    figure = plot.maps({"dry": dry, "wet": wet.assign_attrs(dry.attrs)})
    limits = {ax.images[0].get_clim() for ax in panels(figure).ravel()}
    assert len(limits) == 1
    (low, high) = limits.pop()
    assert 0.05 <= low <= 0.1 and 0.7 <= high <= 0.75
    bar = next(ax for ax in figure.axes if ax.get_label() == "<colorbar>")
    assert bar.get_ylabel() == "soil moisture, m³ m⁻³"


def test_a_few_extremes_do_not_stretch_the_scale():
    wild = field()
    wild[0, 0, :3] = 40.0
    low, high = panels(plot.maps({"RF": wild}))[0, 0].images[0].get_clim()
    assert (low, high) == pytest.approx((0.1, 0.4), abs=0.06)


def test_other_quantities_keep_their_name():
    spread = field().rename("spread").assign_attrs(units="kg m-2 s-1")
    bar = plot.maps({"RF": spread}).axes[-1]
    assert bar.get_ylabel() == "spread, kg m⁻² s⁻¹"


def test_cells_have_their_shape_on_the_ground():
    assert panels(plot.maps({"RF": field()}))[0, 0].get_aspect() == pytest.approx(1057.9 / 947.0, rel=2e-3)
    north = Grid.around((10, 59.9, 11, 60.1))
    assert panels(plot.maps({"RF": field(north)}))[0, 0].get_aspect() == pytest.approx((0.8648 / 0.5) ** 2, rel=1e-2)


def test_degrees_on_the_outer_axes_only():
    figure = plot.maps({"a": field(), "b": field()})
    figure.savefig(BytesIO())
    axes = panels(figure)
    for (row, column), ax in np.ndenumerate(axes):
        labels = [label for label in ax.get_xticklabels() if label.get_visible() and label.get_text()]
        assert ax.xaxis.get_major_ticks()[0].label1.get_visible() == (row == 2)
        assert ax.yaxis.get_major_ticks()[0].label1.get_visible() == (column == 0)
        if row == 2:
            named = [float(label.get_text().removesuffix("°E")) for label in labels]
            assert named == [146.0, 146.2, 146.4]
            np.testing.assert_allclose(longitude_of_x(ax.get_xticks()), named, atol=1e-9)
    assert [t.get_text() for t in axes[0, 0].get_yticklabels()] == ["35.4°S", "35.2°S", "35.0°S", "34.8°S"]


def test_rows_are_the_days_in_common():
    one = field().isel(time=1)  # a scalar time
    static = field().isel(time=0, drop=True)
    other = field(days=DAYS[[2, 1]] + np.timedelta64(5, "h"), seed=4)
    assert panels(plot.maps({"a": field(), "b": other})).shape == (2, 2)
    axes = panels(plot.maps({"a": field(), "b": other, "one": one, "static": static}))
    assert axes.shape == (1, 4) and axes[0, 0].get_ylabel() == "2015-05-17"
    np.testing.assert_array_equal(axes[0, 1].images[0].get_array(), other[1].astype("f8"))
    np.testing.assert_array_equal(axes[0, 3].images[0].get_array(), static.astype("f8"))
    alone = panels(plot.maps({"static": static}))
    assert alone.shape == (1, 1) and alone[0, 0].get_ylabel() == ""


def test_missing_cells_are_grey_and_named():
    gap = field()
    gap[1, 20:30] = np.nan
    figure = plot.maps({"RF": gap})
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["missing"]
    axes = panels(figure)
    assert [len(ax.images) for ax in axes[:, 0]] == [1, 2, 1]
    _, cover = axes[1, 0].images
    covered = cover.to_rgba(cover.get_array())
    np.testing.assert_array_equal(covered[..., 3] > 0, gap[1].isnull())
    assert covered[25, 0] == pytest.approx(to_rgba(plot.MISSING), abs=0.005)
    assert not plot.maps({"RF": field()}).legends


def test_synthetic_is_said():
    assert plot.maps({"RF": field()}).get_suptitle() == ""
    for fields in (
        {"a": field(), "b": field(source="Synthetic: invented")},
        {"a": field().to_dataset().assign_attrs(source="synthetic")},
    ):
        assert plot.maps(fields).get_suptitle() == "Soil moisture (synthetic)"


@pytest.mark.parametrize("grid", [smgrid.YANCO, Grid(1, 11471, 31400, 40, 33), Grid(3, 3822, 10467, 28, 25)])
def test_seams_lie_on_the_coarse_edges(grid):
    found = {"RF": seams([1.34, 0.98, np.inf], [0.001, 0.4, 0.049])}
    figure = plot.maps({"ref": field(grid), "RF": field(grid)}, seams=found)
    axes = panels(figure)
    assert [texts(ax) for ax in axes[:, 1]] == [["B = 1.34, p = .001"], ["B = 0.98, p = .400"], ["B = ∞, p = .049"]]
    assert [texts(ax) for ax in axes[:, 0]] == [[]] * 3
    west, _, _, north = grid.bounds
    f = 9 // grid.km
    edges_x = [west + grid.cell * i for i in range(1, grid.nx) if (grid.col + i) % f == 0]
    edges_y = [north - grid.cell * i for i in range(1, grid.ny) if (grid.row + i) % f == 0]
    for row, drawn in enumerate((True, False, True)):
        np.testing.assert_allclose(lines(axes[row, 1], horizontal=False), edges_x if drawn else [], atol=1e-6)
        np.testing.assert_allclose(lines(axes[row, 1], horizontal=True), sorted(edges_y) if drawn else [], atol=1e-6)
        assert not axes[row, 0].collections
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["edges of 9-km cells, where p < 0.05"]


def test_seams_of_one_day_and_of_few_strips():
    one = seams([1.2, np.nan, 1], [1.0, np.nan, 1])
    axes = panels(plot.maps({"RF": field()}, seams={"RF": one.isel(time=[1])}))
    assert [texts(ax) for ax in axes[:, 0]] == [[], ["B = n/a, p = n/a"], []]
    axes = panels(plot.maps({"RF": field()}, seams={"RF": one.isel(time=0)}))
    assert [texts(ax) for ax in axes[:, 0]] == [["B = 1.20, p = 1.000"], [], []]
    still = field().isel(time=0, drop=True)
    for result in (one.isel(time=0), one.isel(time=0, drop=True)):
        assert texts(panels(plot.maps({"RF": still}, seams={"RF": result}))[0, 0]) == ["B = 1.20, p = 1.000"]


@pytest.mark.parametrize("rows, columns", [(1, 1), (1, 5), (2, 3), (4, 5), (6, 1)])
def test_nothing_overlaps(rows, columns):
    """Every text keeps its place: inside the figure, clear of all others and of the maps."""
    days = DAYS[0] + np.arange(rows) * np.timedelta64(12, "D")
    fields = {f"model {i}": field(days=days, seed=i, source="synthetic") for i in range(columns)}
    fields["model 0"][:, :5] = np.nan
    found = {name: seams(np.full(rows, 1.5), np.full(rows, 0.001), days) for name in fields}
    figure = plot.maps(fields, seams=found)
    FigureCanvasAgg(figure).draw()
    renderer = figure.canvas.get_renderer()
    boxes = [(f"panel {i}", ax.get_window_extent(renderer)) for i, ax in enumerate(figure.axes)]
    words = figure.findobj(lambda a: isinstance(a, Text) and a.get_visible() and a.get_text().strip())
    assert len(words) > rows * columns
    boxes += [(word.get_text(), word.get_window_extent(renderer)) for word in words if is_drawn(word)]
    width, height = figure.canvas.get_width_height()
    for i, (name, box) in enumerate(boxes):
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height, f"{name} leaves the figure"
        for other, far in boxes[:i]:
            assert not (box.x0 < far.x1 and far.x0 < box.x1 and box.y0 < far.y1 and far.y0 < box.y1), (name, other)


def is_drawn(word):
    """Tick labels of axes without labels, and of ticks beyond the axis, exist but are not drawn."""
    if word.axes is None or word in word.axes.texts:
        return True
    for axis in (word.axes.xaxis, word.axes.yaxis):
        labels = [
            label for tick in axis.get_major_ticks() + axis.get_minor_ticks() for label in (tick.label1, tick.label2)
        ]
        if word in labels:
            shown = [t.label1 for t in axis._update_ticks() if t.label1.get_visible()]
            return word in shown
    return True


def test_large_maps_are_thinned():
    grid = Grid(1, 3000, 9000, 4001, 1700)
    values = da.zeros(grid.shape, chunks=1000, dtype="f4") + 0.2
    figure = plot.maps({"RF": xr.DataArray(values, grid.coords(), ("y", "x"), "soil_moisture")})
    assert panels(figure)[0, 0].images[0].get_array().shape == (1334, 850)


@pytest.mark.parametrize("value", [0.2, 0.0, np.nan])
def test_constant_and_empty_maps_are_drawn(value):
    still = xr.full_like(field(), value)
    plot.maps({"RF": still}).savefig(BytesIO())


@pytest.mark.parametrize(
    "fields, kwargs, error, message",
    [
        ({}, {}, ValueError, "the mapping of fields is empty"),
        (field(), {}, TypeError, "mapping from names to fields.*not DataArray"),
        (xr.Dataset({"soil_moisture": field(), "status": field()}), {}, TypeError, "mapping from names.*not Dataset"),
        ({"a": np.ones((2, 2))}, {}, TypeError, "a field is an xarray DataArray.*ndarray"),
        (
            {"a": field(), "b": field(Grid(1, 11466, 31402, 84, 75))},
            {},
            ValueError,
            r"'b' lies on Grid\(km=1, row=11466, col=31402.*'a' on Grid\(km=1, row=11466, col=31401.*to_grid",
        ),
        ({"a": field().drop_vars("spatial_ref")}, {}, ValueError, "no CRS"),
        (
            {"a": field(days=DAYS[:1]), "b": field(days=DAYS[1:])},
            {},
            ValueError,
            "no day in common: 'a' has 2015-05-05; 'b' has 2015-05-17, 2015-09-08",
        ),
        ({"a": field(days=DAYS[[0, 0]])}, {}, ValueError, "'a' has several maps of one day"),
        ({"a": field().drop_vars("time")}, {}, ValueError, "the time of 'a' has no dates"),
        ({"a": field().expand_dims("orbit")}, {}, ValueError, r"'a' has the dims \['orbit'\].*isel\(orbit=0\)"),
        ({"a": field(), "b": field(units="%")}, {}, ValueError, "one unit, but the fields have.*'b': '%'"),
        ({"a": field()}, {"seams": {"b": seams([1], [1], DAYS[:1])}}, ValueError, r"seams of \['b'\].*\['a'\]"),
        ({"a": field()}, {"seams": {"a": field()}}, ValueError, "no ratio and p_value.*smgrid.seams.detect"),
    ],
)
def test_what_cannot_be_drawn_says_why(fields, kwargs, error, message):
    with pytest.raises(error, match=message):
        plot.maps(fields, **kwargs)


def test_pyplot_is_left_alone():
    code = (
        "import sys, numpy as np, xarray as xr, smgrid\n"
        "soil = xr.DataArray(np.full((84, 75), 0.2), smgrid.YANCO.coords(), ('y', 'x'), 'soil_moisture')\n"
        "smgrid.plot; assert 'matplotlib' not in sys.modules\n"
        "smgrid.plot.maps({'RF': soil}).savefig(sys.stdout.buffer)\n"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, env=os.environ | {"PYTHONPATH": ":".join(sys.path)}
    )
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.startswith(b"\x89PNG")
