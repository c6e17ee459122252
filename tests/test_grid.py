import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from pyproj import CRS, Transformer

import smgrid
from smgrid.grid import CELL_36, Grid

TO_METRES = Transformer.from_crs(4326, 6933, always_xy=True)
TO_DEGREES = Transformer.from_crs(6933, 4326, always_xy=True)

# row, col, x, y, lon, lat of cell centres, from PROJ 9 and the NSIDC grid definition (domain notes, section 1)
M01 = [
    (0, 0, -17367029.9976, 7314040.3831, -179.9948133, 84.9999550),
    (7307, 17351, -500.4475, 500.4475, -0.0051867, 0.0039228),
    (7308, 17352, 500.4475, -500.4475, 0.0051867, -0.0039228),
    (11471, 31400, 14061073.7355, -4167226.4297, 145.7313278, -34.7009329),
    (11487, 31437, 14098106.8514, -4183240.7501, 146.1151452, -34.8530969),
    (11520, 31450, 14111118.4867, -4216270.2859, 146.2500000, -35.1678125),
]


@pytest.mark.parametrize("row, col, x, y, lon, lat", M01)
def test_centres_are_those_of_proj(row, col, x, y, lon, lat):
    cell = Grid(1, row, col, 1, 1)
    assert cell.x[0] == pytest.approx(x, abs=1e-4)
    assert cell.y[0] == pytest.approx(y, abs=1e-4)
    assert [*cell.lonlat()[0], *cell.lonlat()[1]] == pytest.approx([lon, lat], abs=1e-7)
    assert cell.index(lon, lat) == (row, col)


@pytest.mark.parametrize(
    "km, shape",
    [(36, (406, 964)), (9, (1624, 3856)), (3, (4872, 11568)), (1, (14616, 34704)), (0.05, (292320, 694080))],
)
def test_the_family(km, shape):
    whole = Grid.whole(km)
    assert whole.shape == shape
    west, south, east, north = whole.bounds
    assert [west, north, east, south] == pytest.approx(
        [-17367530.445161, 7314540.830639, 17367530.445161, -7314540.830639], abs=1e-5
    )
    assert whole.cell * shape[1] == pytest.approx(CELL_36 * 964, rel=1e-15)


def test_degrees_agree_with_pyproj():
    whole = Grid.whole(9)
    lon, lat = whole.lonlat()
    expected_lon, _ = TO_DEGREES.transform(whole.x, np.zeros(whole.nx))
    _, expected_lat = TO_DEGREES.transform(np.zeros(whole.ny), whole.y)
    assert np.abs(lon - expected_lon).max() < 1e-12
    assert np.abs(lat - expected_lat).max() < 2e-11
    x, y = TO_METRES.transform(np.full(lat.size, 12.5), lat)
    assert np.abs(smgrid.grid.y_of_latitude(lat) - y).max() < 1e-7
    assert np.abs(smgrid.grid.x_of_longitude(12.5) - x).max() < 1e-7


@given(
    km=st.sampled_from([36, 9, 3, 1, 0.05]),
    row=st.integers(0, 405),
    col=st.integers(0, 963),
    ny=st.integers(1, 9),
    nx=st.integers(1, 9),
)
def test_an_index_returns_to_its_cell(km, row, col, ny, nx):
    whole = Grid.whole(km)
    window = Grid(km, row * whole.ny // 406, col * whole.nx // 964, min(ny, 1), min(nx, 1))
    rows, cols = window.index(*np.meshgrid(*window.lonlat()))
    assert rows.ravel().tolist() == [window.row] and cols.ravel().tolist() == [window.col]


@given(
    f=st.sampled_from([2, 3, 9]),
    row=st.integers(0, 14000),
    col=st.integers(0, 34000),
    ny=st.integers(1, 300),
    nx=st.integers(1, 300),
)
def test_nesting(f, row, col, ny, nx):
    window = Grid(1, row, col, ny, nx)
    assert window.refine(f).coarsen(f) == window
    block = window.snap(f)
    assert block & window == window
    assert block.phase(f) == (0, 0)
    assert block.ny - window.ny < 2 * f and block.nx - window.nx < 2 * f
    assert window.crop(window.bounds) == window


@given(
    km=st.sampled_from([36, 9, 1]),
    row=st.integers(0, 300),
    col=st.integers(0, 900),
    ny=st.integers(2, 90),
    nx=st.integers(2, 60),
)
def test_grid_of_its_own_coordinates(km, row, col, ny, nx):
    window = Grid(km, row, col, ny, nx)
    assert Grid.of(xr.Dataset(coords=window.coords())) == window


def test_outside_is_minus_one():
    rows, cols = smgrid.YANCO.index([146.1, 10.0, np.nan, 180.0], [-34.9, 50.0, 0.0, -90.0])
    assert rows.tolist()[1:] == cols.tolist()[1:] == [-1, -1, -1]
    assert Grid.whole(36).index(180.0, 0.1)[1] == 963


def test_around_and_crop():
    lon, lat = smgrid.YANCO.lonlat()
    inside = (lon[3], lat[-3], lon[-4], lat[2])
    assert Grid.around(inside) == Grid(1, 11468, 31404, 80, 69)
    assert smgrid.YANCO.crop(inside) == Grid(1, 11468, 31404, 80, 69)
    assert Grid.around((-180, -90, 180, 90), km=36) == Grid.whole(36)
    with pytest.raises(ValueError, match="west < east"):
        Grid.around((10, 0, 5, 1))
    with pytest.raises(ValueError, match="do not touch"):
        smgrid.YANCO.crop((0, 0, 1, 1))


def field(grid=smgrid.YANCO, **coords):
    ds = xr.Dataset({"z": (("y", "x"), np.zeros(grid.shape))}, coords=grid.coords())
    return ds.assign_coords(**coords).z


def with_crs(da, crs):
    return da.assign_coords(spatial_ref=((), 0, CRS.from_user_input(crs).to_cf()))


def test_honest_jitter_is_snapped():
    da = field()
    assert Grid.of(da.assign_coords(x=da.x.astype("f4"), y=da.y.astype("f4"))) == smgrid.YANCO
    assert Grid.of(da.assign_coords(x=da.x + 2.5e-9, y=da.y - 2.5e-9)) == smgrid.YANCO
    rounded = -17367530.44 + (np.arange(31401, 31476) + 0.5) * 1000.89502334956
    assert Grid.of(da.assign_coords(x=rounded)) == smgrid.YANCO
    assert Grid.of(with_crs(da, "+proj=cea +lat_ts=30 +lon_0=0 +ellps=WGS84 +units=m")) == smgrid.YANCO


@pytest.mark.parametrize(
    "spoil, message",
    [
        (
            lambda da: da.assign_coords(x=da.x + 500.4475),
            r"'x' axis lies \+0.5 columns off the grid \(half a cell.*obj.x - 500.44",
        ),
        (
            lambda da: da.assign_coords(y=da.y + 500.4475),
            r"'y' axis lies -0.5 rows off the grid \(half a cell.*obj.y - 500.44",
        ),
        (
            lambda da: da.assign_coords(x=14061000 + 1000.0 * np.arange(75)),
            r"cells of 1000 m where the grid has 1000.895023",
        ),
        (lambda da: da.isel(y=slice(None, None, -1)), r"y ascends.*sortby\('y', ascending=False\)"),
        (lambda da: da.isel(x=slice(None, None, -1)), r"x descends"),
        (lambda da: with_crs(da, 3410), r"CRS is .*EASE-Grid.*not EPSG:6933"),
        (lambda da: with_crs(da, 4326), r"CRS is 'WGS 84', not EPSG:6933.*to_grid"),
        (lambda da: da.drop_vars("spatial_ref"), r"no CRS.*write_crs\('EPSG:6933'\)"),
        (lambda da: da.rename(x="lon"), r"no 'x' axis"),
        (lambda da: da.assign_coords(x=np.where(np.arange(75) == 4, np.nan, da.x)), r"missing coordinates"),
        (lambda da: da.isel(x=[0, 1, 3, 4]), r"not regular"),
        (lambda da: with_crs(da.isel(x=[0], y=[0]), 6933), r"single cell"),
        (lambda da: da.isel(x=slice(0)), r"the 'x' axis is empty"),
    ],
)
def test_what_is_off_the_grid_says_how(spoil, message):
    with pytest.raises(ValueError, match=message):
        Grid.of(spoil(field()))


@pytest.mark.parametrize("sign, name", [("-", "x"), ("+", "y")])
def test_the_line_in_the_message_mends_it(sign, name):
    obj = field()
    obj = obj.assign_coords({name: obj[name] + 300.0})
    with pytest.raises(ValueError) as caught:
        Grid.of(obj)
    line = str(caught.value).split("mend them: ")[1].split("; if")[0]
    scope = {"obj": obj}
    exec(line, scope)
    assert Grid.of(scope["obj"]) == smgrid.YANCO


@pytest.mark.parametrize(
    "bad, message",
    [
        ((0.7, 0, 0, 1, 1), "36 over a whole number"),
        ((1, -1, 0, 1, 1), "leave the 1-km grid"),
        ((1, 0.5, 0, 1, 1), "whole cells"),
        ((1, 0, 0, 0, 1), "at least one cell"),
    ],
)
def test_no_impossible_window(bad, message):
    with pytest.raises(ValueError, match=message):
        Grid(*bad)


def test_nsidc_axes(shared):
    table = pd.read_csv(shared / "ease_grid2_reference" / "m36_nsidc_axes_double.csv")
    lon, lat = Grid.whole(36).lonlat()
    for axis, mine in (("row", lat), ("col", lon)):
        part = table[table.axis == axis]
        assert len(part) > 100
        assert np.abs(mine[part["index"]] - part.degrees).max() < 2e-11


def test_axes_of_a_real_9_km_product(shared):
    table = pd.read_csv(shared / "ease_grid2_reference" / "m09_axis_centres_western_australia.csv")
    lon, lat = Grid.whole(9).lonlat()
    for axis, ours in (("lat", lat), ("lon", lon)):
        theirs = table.value[table.axis == axis].to_numpy("f4")
        nearest = np.abs(ours[:, None] - theirs).argmin(0)
        assert theirs.size > 10 and (np.abs(np.diff(nearest)) == 1).all()
        np.testing.assert_array_equal(ours[nearest].astype("f4"), theirs)


def test_cells_of_a_real_product(shared):
    table = pd.read_csv(shared / "ease_grid2_reference" / "m36_cells_from_spl3smp.csv")
    rows, cols = Grid.whole(36).index(table.lon, table.lat)
    assert (rows == table.row).all() and (cols == table.col).all()


def test_published_constants(shared):
    table = pd.read_csv(shared / "ease_grid2_reference" / "grid_constants.csv")
    for name, km in (("M36", 36), ("M09", 9), ("M03", 3), ("M01", 1)):
        said = table[table.grid == name].set_index("quantity").value
        whole = Grid.whole(km)
        assert whole.shape == (said["rows"], said["cols"])
        assert whole.cell == pytest.approx(said["cell_size_m"], rel=1e-12)
        assert whole.bounds[0] == pytest.approx(said["ulx_m"], rel=1e-13)
        assert whole.bounds[3] == pytest.approx(said["uly_m"], rel=1e-13)
    corner = smgrid.grid.latitude_of_y(Grid.whole(1).bounds[3])
    assert corner == pytest.approx(85.044566407398861, abs=1.5e-8)  # that comment gives the exact inverse


def test_a_single_cell_is_known_by_its_transform():
    one = smgrid.Grid(1, 11470, 31410, 1, 1)
    assert Grid.of(xr.Dataset(coords=one.coords())) == one
