"""SMAP granules and point lists: rules of the flags, place from the grid's definition, refusal of what is wrong."""

import re
import xml.etree.ElementTree as ET

import dask
import h5py
import netCDF4
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from smgrid import Grid, build_cube, coarse, sources
from smgrid.cube import RULES

NOON = np.datetime64("2000-01-01T12:00:00")
SHAPE = {36: (406, 964), 9: (1624, 3856)}
pytestmark = pytest.mark.usefixtures("one_thread")
GROUP = "Soil_Moisture_Retrieval_Data_"
ATTRS = {
    "soil_moisture": {"units": "cm**3/cm**3", "valid_min": np.float32(0.02), "valid_max": np.float32(0.5)},
    "retrieval_qual_flag": {"flag_masks": "1s, 2s, 4s, 8s"},
}
FILLS = {"soil_moisture": np.float32(-9999), "retrieval_qual_flag": np.uint16(65534), "tb_time_seconds": -9999.0}


@pytest.fixture
def one_thread():
    """No thread still reads a file after an error, so that a test may write it anew."""
    with dask.config.set(scheduler="sync"):
        yield


def seconds(text):
    return (np.datetime64(text) - NOON) / np.timedelta64(1, "s")


def granule(folder, cells, day="2015-05-16", *, km=36, orbits=("AM", "PM"), name=None, version="008", spoil=None):
    """A granule of true structure that holds synthetic `cells`: (row, column): (soil moisture, flag, hour)."""
    letter = "_E" if km == 9 else ""
    path = folder / (name or f"SMAP_L3_SM_P{letter}_{day.replace('-', '')}_R18290_002.h5")
    shape = SHAPE[km]
    with h5py.File(path, "w") as file:
        series = file.create_group("Metadata/SeriesIdentification")
        series.attrs["ECSVersionID"] = version
        file.create_group("Metadata/Extent").attrs["rangeBeginningDateTime"] = f"{day}T00:00:00.000Z"
        for orbit in orbits:
            suffix = "_pm" if orbit == "PM" else ""
            lat, lon = Grid.whole(km).lonlat()[::-1]
            layers = {
                "soil_moisture": np.full(shape, -9999, "f4"),
                "retrieval_qual_flag": np.full(shape, 65534, "u2"),
                "tb_time_seconds": np.full(shape, -9999.0),
                "latitude": np.full(shape, -9999, "f4"),  # in real granules too, where nothing was retrieved
                "longitude": np.full(shape, -9999, "f4"),
                "EASE_row_index": np.full(shape, 65534, "u2"),
                "EASE_column_index": np.full(shape, 65534, "u2"),
                "tb_time_utc": np.full(shape, b"N/A", "S24"),
            }
            for (row, col), (soil, flag, hour) in cells.items():
                values = soil, flag, seconds(day) + 3600 * hour, lat[row], lon[col], row, col
                for layer, value in zip(layers.values(), values):
                    layer[row, col] = value
            if spoil:
                spoil(layers)
            for name, layer in layers.items():
                stored = file.create_dataset(
                    f"{GROUP}{orbit}/{name}{suffix}", data=layer, chunks=(shape[0] // 2, shape[1] // 2), compression=1
                )
                if name in FILLS:
                    stored.attrs["_FillValue"] = FILLS[name]
                for key, value in ATTRS.get(name, {}).items():
                    stored.attrs[key] = value
    return path


def edit(path, change):
    with h5py.File(path, "a") as file:
        change(file)
    return path


# (row, column): (soil moisture, flag, hour): bits are 1 = not recommended, 2 = not attempted, 4 = failed, 8 = frozen
CELLS = {
    (0, 0): (0.10, 0, 1),
    (318, 872): (0.11, 8, 20),  # bit 3 alone: recommended
    (203, 5): (0.12, 1, 2),
    (203, 6): (0.13, 65534, 2),  # a fill has bit 0 = 0
    (405, 963): (0.5910244, 0, 23),  # above the file's valid_max: real retrievals reach it
    (100, 100): (-9999.0, 0, 3),  # recommended, but a fill
    (100, 101): (0.02, 12, 3),
}
KEPT = {(0, 0): 0.10, (318, 872): 0.11, (405, 963): 0.5910244, (100, 101): 0.02}


@pytest.mark.parametrize("orbit", ["AM", "PM", "both"])
def test_a_granule_keeps_what_is_recommended_where_the_grid_says(tmp_path, orbit, no_compute):
    smap = sources.smap.open(granule(tmp_path, CELLS), orbit=orbit)
    assert Grid.of(smap) == Grid.whole(36)
    assert smap.smap.dtype == "float32" and smap.smap.attrs["units"] == "m3 m-3"
    assert smap.time.values == np.datetime64("2015-05-16", "ns")
    assert smap.smap.attrs["product"] == "SPL3SMP" and smap.smap.attrs["version"] == "008"
    with dask.config.set(scheduler="sync"):
        found = smap.smap[0].values
        expected = np.full((406, 964), np.nan, "f4")
        for place, value in KEPT.items():
            expected[place] = value
        np.testing.assert_array_equal(found, expected)
        when = smap.acquired[0].values
    assert when[318, 872] == np.datetime64("2015-05-16T20:00:00")
    assert np.isnat(when[203, 5]) and np.isnat(when).sum() == when.size - len(KEPT)


def test_a_smooth_surface_stays_in_the_physical_range(tmp_path):
    """Deserts beside water: without the range that the room states, the surface leaves 0..1."""
    draw = np.random.default_rng(4)
    cells = {(1270 + r, 3490 + c): (draw.choice([0.0, 0.02, 0.98, 1.0]), 0, 20) for r in range(9) for c in range(9)}
    smap = sources.smap.open(granule(tmp_path, cells, km=9, orbits=("AM",))).smap
    assert (smap.attrs["valid_min"], smap.attrs["valid_max"]) == (0, 1)
    grid = Grid(9, 1270, 3490, 9, 9).refine(9)
    bare = smap.copy()
    bare.attrs = {"units": "m3 m-3"}
    free = coarse.smooth(bare, grid).values
    assert free.min() < -0.05 and free.max() > 1.05
    for made in (coarse.smooth(smap, grid).values, _cube_of(smap, grid)):
        assert made.min() >= 0 and made.max() <= 1
        means = made.reshape(-1, 9, 9, 9, 9).mean(axis=(2, 4), dtype="f8")
        np.testing.assert_allclose(means, smap.values[:, 1270:1279, 3490:3499], atol=1e-6)


def _cube_of(smap, grid):
    given = {"smap": (smap, RULES["smap"].but(timing="same day", spreading="smooth"))}
    return build_cube(given, grid, smap.time.values).smap.values


def test_both_is_the_mean_where_both_are(tmp_path):
    path = granule(tmp_path, {(1, 2): (0.1, 0, 6), (3, 4): (0.2, 0, 6)})

    def afternoon(file):
        group = file[f"{GROUP}PM"]
        group["soil_moisture_pm"][1, 2] = 0.3
        group["tb_time_seconds_pm"][1, 2] += 12 * 3600
        group["retrieval_qual_flag_pm"][3, 4] = 7

    edit(path, afternoon)
    day = sources.smap.open(path, orbit="both").isel(time=0)
    assert day.smap.values[[1, 3], [2, 4]] == pytest.approx([0.2, 0.2])
    assert list(day.acquired.values[[1, 3], [2, 4]]) == list(pd.to_datetime(["2015-05-16T12:00", "2015-05-16T06:00"]))
    assert sources.smap.open(path, orbit="PM").smap.values[0, 1, 2] == np.float32(0.3)


def test_days_are_stacked_in_order_and_windows_read_little(tmp_path):
    days = ["2015-05-18", "2015-05-16", "2015-05-17"]
    paths = [
        granule(tmp_path, {(1276, 3493): (0.1 + k / 10, 0, 1)}, day, km=9, orbits=("AM",)) for k, day in enumerate(days)
    ]
    smap = sources.smap.open(paths).smap
    assert smap.sizes == {"time": 3, "y": 1624, "x": 3856} and smap.attrs["product"] == "SPL3SMP_E"
    assert max(map(max, smap.chunks[1:])) <= 1928 and smap.chunks[0] == (1, 1, 1)
    lon, lat = 146.1566390, -34.8626164  # M09 1276, 3493 of the grid's definition
    row, col = Grid.whole(9).index(lon, lat)
    series = smap.isel(y=slice(row - 2, row + 3), x=slice(col - 2, col + 3)).values
    np.testing.assert_array_equal(series[:, 2, 2], np.float32([0.2, 0.3, 0.1]))
    assert np.isfinite(series).sum() == 3
    assert (
        xr.testing.assert_identical(sources.smap.open(str(tmp_path / "*.h5")).smap[:, :9, :9], smap[:, :9, :9]) is None
    )


def test_the_structure_of_a_real_granule_is_read(tmp_path, shared):
    """All groups, names, types and fills of a real file, as its DMR lists them."""
    tag = "{http://xml.opendap.org/ns/DAP/4.0#}"
    tree = ET.parse(shared / "smap_l3_hdf5_structure" / "SC_SPL3SMP_008.dmr").getroot()
    kinds = {"Float32": "f4", "Float64": "f8", "UInt16": "u2", "Byte": "u1", "UInt8": "u1", "String": "S24"}
    path = tmp_path / "SMAP_L3_SM_P_20150331_R18290_002.h5"
    with h5py.File(path, "w") as file:
        for orbit in ("AM", "PM"):
            group = next(g for g in tree.iter(f"{tag}Group") if g.get("name") == GROUP + orbit)
            for variable in group:
                kind = kinds.get(variable.tag.removeprefix(tag))
                if kind is None:
                    continue
                shape = tuple(int(d.get("size")) for d in variable.findall(f"{tag}Dim"))
                fill = variable.find(f"{tag}Attribute[@name='_FillValue']/{tag}Value")
                value = b"" if kind == "S24" else np.dtype(kind).type(float(fill.text)) if fill is not None else 0
                data = file.create_dataset(f"{GROUP}{orbit}/{variable.get('name')}", shape, kind, fillvalue=value)
                if fill is not None:
                    data.attrs["_FillValue"] = value
                for attribute in variable.findall(f"{tag}Attribute"):
                    if attribute.get("type") == "String" and attribute.get("name") != "coordinates":
                        data.attrs[attribute.get("name")] = attribute.find(f"{tag}Value").text
        file[f"{GROUP}AM/soil_moisture"][200, 300] = 0.25
        file[f"{GROUP}AM/retrieval_qual_flag"][200, 300] = 8
        file[f"{GROUP}AM/tb_time_seconds"][200, 300] = seconds("2015-03-31T18:30")
        assert len(file[f"{GROUP}AM"]) > 40
    for orbit, count in (("AM", 1), ("PM", 0)):
        found = sources.smap.open(path, orbit=orbit).isel(time=0)
        assert np.isfinite(found.smap.values).sum() == count
    found = sources.smap.open(path).isel(time=0, y=200, x=300)
    assert found.smap.values == 0.25 and found.acquired.values == np.datetime64("2015-03-31T18:30")


def test_the_place_is_that_of_the_real_coordinate_arrays(shared):
    with netCDF4.Dataset(shared / "smap_l3_hdf5_structure" / "SC_SPL3SMP_008_prefetch.nc4") as file:
        group = file[f"{GROUP}AM"]
        lat, lon = (np.asarray(group[name][:]) for name in ("latitude", "longitude"))
    seen = lat > -9998
    here_lon, here_lat = Grid.whole(36).lonlat()
    assert seen.any()
    assert np.abs(np.broadcast_to(here_lat[:, None], lat.shape)[seen] - lat[seen]).max() < 2e-5
    assert np.abs(np.broadcast_to(here_lon, lon.shape)[seen] - lon[seen]).max() < 2e-5


# ---- granules that are wrong


def test_numbers_that_are_no_volume_fraction_are_refused_percent_is_converted(tmp_path):
    path = granule(tmp_path, {(10, 10): (23.5, 0, 1)})
    with pytest.raises(
        ValueError, match=r"R18290_002.h5: 'soil_moisture' holds 23.5 where m3 m-3 lie in 0..1.*percent"
    ):
        sources.smap.open(path).smap.load()
    edit(path, lambda file: file[f"{GROUP}AM/soil_moisture"].attrs.__setitem__("units", "percent"))
    assert sources.smap.open(path).smap.values[0, 10, 10] == pytest.approx(0.235)
    edit(path, lambda file: file[f"{GROUP}AM/soil_moisture"].attrs.__setitem__("units", "kelvin"))
    with pytest.raises(ValueError, match="'soil_moisture' is in 'kelvin', not in m3 m-3 or %"):
        sources.smap.open(path).smap.load()


@pytest.mark.parametrize("fill", [-9999.0, -999.0])
def test_a_fill_is_never_a_value_declared_or_not(tmp_path, fill):
    path = granule(tmp_path, {(10, 10): (0.2, 0, 1), (11, 11): (fill, 0, 1)})
    edit(path, lambda file: file[f"{GROUP}AM/soil_moisture"].attrs.__delitem__("_FillValue"))
    if fill == -999:
        with pytest.raises(ValueError, match=r"holds -999 .* no declared fill"):
            sources.smap.open(path).smap.load()
    else:
        assert np.isfinite(sources.smap.open(path).smap.values).sum() == 1


@pytest.mark.parametrize("axis, name", [(0, "EASE_row_index"), (1, "EASE_column_index")])
def test_a_flipped_granule_is_refused(tmp_path, axis, name):
    def flip(layers):
        for key in layers:
            layers[key] = np.flip(layers[key], axis)

    path = granule(tmp_path, CELLS, spoil=flip)
    with pytest.raises(ValueError, match=rf"R18290_002.h5.*'{name}' says \d+ where the array's place says.*flipped"):
        sources.smap.open(path).smap.load()


def drop(name):
    return lambda file: file.__delitem__(name)


def old(file):
    file.move(f"{GROUP}AM", GROUP.rstrip("_"))
    del file[f"{GROUP}PM"]


@pytest.mark.parametrize(
    "change, says",
    [
        (drop(f"{GROUP}AM/soil_moisture"), r"_002.h5: the group '\w+_AM' holds no 'soil_moisture'; it has"),
        (drop(f"{GROUP}AM/retrieval_qual_flag"), r"_002.h5: the group '\w+_AM' holds no 'retrieval_qual_flag'"),
        (drop(f"{GROUP}AM"), r"_002.h5: the group \w+_AM is missing \(it has \['PM'\]\), but orbit='AM'"),
        (old, r"_002.h5: .*versions before 4 .*download the current"),
    ],
)
def test_missing_groups_and_variables_are_named(tmp_path, change, says):
    path = edit(granule(tmp_path, CELLS), change)
    with pytest.raises(ValueError, match=says):
        sources.smap.open(path).smap.load()


def test_another_grid_is_refused(tmp_path):
    path = granule(tmp_path, {})

    def polar(file):
        del file[f"{GROUP}AM/soil_moisture"]
        file[f"{GROUP}AM/soil_moisture"] = np.zeros((2000, 2000), "f4")

    with pytest.raises(ValueError, match=r"'soil_moisture' has the shape \(2000, 2000\); SPL3SMP has \(406, 964\)"):
        sources.smap.open(edit(path, polar))


@pytest.mark.parametrize("name, says", [("SMAP_L3_SM_P_20150517_R18290_002.h5", "by its name"), ("a.h5", None)])
def test_the_day_is_that_of_name_metadata_and_instants(tmp_path, name, says):
    path = granule(tmp_path, {(203, 5): (0.2, 0, 20)}, name=name)
    if says is None:  # no date in the name: the metadata tell
        assert sources.smap.open(path).time.values == np.datetime64("2015-05-16", "ns")
        edit(path, lambda f: f[f"{GROUP}AM/tb_time_seconds"].__setitem__((203, 5), seconds("2015-05-14")))
        says, name = "2015-05-16 by its metadata, 2015-05-14 by its 'tb_time_seconds'", "a.h5"
    with pytest.raises(ValueError, match=rf"{name}: the day is .*{says}.*renamed"):
        sources.smap.open(path)


def test_granules_that_do_not_belong_together_are_refused(tmp_path, caplog):
    one = granule(tmp_path, CELLS)
    again = granule(tmp_path, CELLS, name="SMAP_L3_SM_P_20150516_R19240_001.h5")
    with pytest.raises(ValueError, match=r"R18290_002.h5 and .*R19240_001.h5 are both of 2015-05-16"):
        sources.smap.open([one, again])
    fine = granule(tmp_path, {}, "2015-05-17", km=9, orbits=("AM",))
    with pytest.raises(ValueError, match=r"is of 36 km, .* of 9 km"):
        sources.smap.open([one, fine])
    newer = granule(tmp_path, {}, "2015-05-18", version="009")
    assert sources.smap.open([newer, one]).smap.attrs["version"] == "008, 009"
    assert "versions 008, 009 are mixed" in caplog.text
    with pytest.raises(ValueError, match="is given twice"):
        sources.smap.open([one, one])
    with pytest.raises(ValueError, match="orbit is one of"):
        sources.smap.open(one, orbit="am")


@pytest.mark.parametrize(
    "content, says",
    [
        (b"", "an empty file"),
        (b"<html>Login</html>", "a page of text"),
        (b"PK\x03\x04", "zip"),
        (b"\x0e\x03\x13\x01", "HDF4"),
    ],
)
def test_files_of_another_kind_are_named(tmp_path, content, says):
    path = tmp_path / "SMAP_L3_SM_P_20150516_R18290_002.h5"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"20150516_R18290_002.h5 cannot be opened.*{says}"):
        sources.smap.open(path)
    with pytest.raises(FileNotFoundError, match=r"there is no SMAP file at .*20150517"):
        sources.smap.open(str(path).replace("20150516", "20150517"))
    with pytest.raises(FileNotFoundError, match="no SMAP file fits the pattern"):
        sources.smap.open(str(tmp_path / "*.nc"))
    with pytest.raises(ValueError, match="the sequence of paths is empty"):
        sources.smap.open([])


def test_another_product_is_named(tmp_path):
    path = tmp_path / "SMAP_L4_SM_gph_20150516T013000.h5"
    with h5py.File(path, "w") as file:
        file["Geophysical_Data/sm_surface"] = np.zeros((4, 4))
    with pytest.raises(ValueError, match=r"L4.* is no SMAP level-3.*groups \['Geophysical_Data'\]"):
        sources.smap.open(path)


def test_a_damaged_granule_raises_and_names_file_and_variable(tmp_path):
    rng = np.random.default_rng(0)

    def noise(layers):
        layers["soil_moisture"][:] = rng.uniform(0.02, 0.5, layers["soil_moisture"].shape)
        layers["retrieval_qual_flag"][:] = 0

    path = granule(tmp_path, CELLS, orbits=("AM",), spoil=noise)
    whole = path.read_bytes()
    truth = sources.smap.open(path).smap.values
    for k in range(24):
        bad = bytearray(whole)
        if k % 2:
            del bad[len(bad) * (k + 1) // 26 :]
        else:
            at = len(bad) * (k + 1) // 26
            bad[at : at + 64] = bytes(rng.integers(0, 256, 64, "u1"))
        path.write_bytes(bad)
        try:
            found = sources.smap.open(path).smap.values
        except ValueError as error:
            assert path.name in str(error)
            if k % 2 == 0:
                assert "soil_moisture" in str(error) or "cannot be opened" in str(error)
        else:
            assert k % 2 == 0, "a truncated file must not open"
            np.testing.assert_array_equal(found, truth)


# ---- lists of points

FOLDERS = {
    "smap_l3_enhanced_9km_points/uruguay": 9,
    "smap_l3_enhanced_9km_points/western_australia": 9,
    "smap_l3_36km_points/argentina": 36,
    "smap_l3_36km_points/aus1": 36,
    "smap_era5_yanco_2018_2020/SMAP": 36,
}


@pytest.mark.parametrize("folder, km", FOLDERS.items())
def test_real_lists_equal_a_plain_read(shared, folder, km):
    paths = sorted((shared / folder).glob("*.nc"))
    data = sources.smap.open(paths)
    grid = Grid.of(data)
    assert grid.km == km and data.smap.dtype == "float32"
    assert data.sizes["time"] == len(paths)
    data = data.load()
    for k, path in enumerate(paths):
        day = data.isel(time=k)
        dates = re.findall(r"\d{4}-?\d\d-?\d\d", path.name)
        start, end = pd.Timestamp(dates[0]), pd.Timestamp(dates[-1])
        assert pd.Timestamp(day.time.values) == start + (end - start) // 2
        with netCDF4.Dataset(path) as file:
            table = pd.DataFrame({name: np.asarray(v[:]) for name, v in file.variables.items() if v.size})
        if table.empty:
            assert np.isnan(day.smap).all() and (day.smap_count == 0).all()
            continue
        lon, lat = grid.lonlat()
        row = np.abs(lat[:, None] - table.latitude.values).argmin(0)
        col = np.abs(lon[:, None] - table.longitude.values).argmin(0)
        plain = table.soil_moisture.astype("f8").groupby([row, col]).agg(["mean", "size"])
        r, c = (plain.index.get_level_values(level) for level in (0, 1))
        np.testing.assert_array_equal(day.smap.values[r, c], plain["mean"].values.astype("f4"))
        np.testing.assert_array_equal(day.smap_count.values[r, c], plain["size"])
        assert np.isfinite(day.smap).sum() == len(plain) and day.smap_count.sum() == len(table)


def points(path, lat, lon, soil, **attrs):
    with netCDF4.Dataset(path, "w") as file:
        file.createDimension("index", len(soil))
        for name, values in (("latitude", lat), ("longitude", lon), ("soil_moisture", soil)):
            file.createVariable(name, "f4", ("index",))[:] = np.asarray(values, "f4")
        file["soil_moisture"].setncatts(attrs)
    return path


def centres(km, *places):
    lon, lat = Grid.whole(km).lonlat()
    return [lat[r] for r, _ in places], [lon[c] for _, c in places]


def test_repeated_cells_are_averaged_and_files_of_a_day_united(tmp_path, no_compute):
    west = points(tmp_path / "west_20200101.nc", *centres(9, (5, 7), (5, 7), (6, 9)), [0.1, 0.2, 0.3])
    east = points(tmp_path / "east_2020-01-01.nc", *centres(9, (5, 11)), [0.4])
    empty = points(tmp_path / "empty_2020-01-03.nc", [], [], [])
    data = sources.smap.open([empty, west, east])
    assert Grid.of(data) == Grid(9, 5, 7, 2, 5)
    with dask.config.set(scheduler="sync"):
        expected = np.full((2, 2, 5), np.nan, "f4")
        expected[0, [0, 0, 1], [0, 4, 2]] = 0.15, 0.4, 0.3
        np.testing.assert_allclose(data.smap.values, expected, atol=1e-8)
        assert data.smap_count.values[0].tolist() == [[2, 0, 0, 0, 1], [0, 0, 1, 0, 0]]
    assert list(data.time.values) == list(pd.to_datetime(["2020-01-01", "2020-01-03"]))
    assert data.smap.attrs["source_files"].count(",") == 2


def test_a_wrong_last_day_is_mended_and_said(tmp_path, caplog):
    place = centres(36, (300, 800))
    good = points(tmp_path / "SMAP_20181010_20181012.nc", *place, [0.1])
    bad = points(tmp_path / "SMAP_20181031_20181002.nc", *place, [0.2])
    data = sources.smap.open([good, bad])
    assert list(data.window_end.values) == list(pd.to_datetime(["2018-10-12", "2018-11-02"]))
    assert list(data.time.values) == list(pd.to_datetime(["2018-10-11", "2018-11-01"]))
    assert "SMAP_20181031_20181002.nc: the last day in the name is before the first" in caplog.text


@pytest.mark.parametrize(
    "name, lat, soil, attrs, says",
    [
        ("a.nc", 0, 0.2, {}, "a.nc: the file name holds 0 dates"),
        ("a_20201345.nc", 0, 0.2, {}, "a_20201345.nc: the file name holds an impossible date"),
        (
            "a_20200101.nc",
            0.02,
            0.2,
            {},
            r"no centres of EASE-Grid 2.0 cells: they lie up to 0\.\d+ cells off the 36-km",
        ),
        ("a_20200101.nc", 0, 23.0, {}, "'soil_moisture' holds 23 where m3 m-3 lie in 0..1.*percent"),
        ("a_20200101.nc", 0, -999, {}, "'soil_moisture' holds -999 .*no declared fill"),
        ("a_20200101.nc", 0, 0.2, {"units": "K"}, "'soil_moisture' is in 'K'"),
        ("a_20200101.nc", -9999, 0.2, {}, "a fill was kept as a coordinate"),
    ],
)
def test_lists_that_are_wrong_are_named(tmp_path, name, lat, soil, attrs, says):
    (y,), x = centres(9, (900, 2000))
    with pytest.raises(ValueError, match=says):
        sources.smap.open(points(tmp_path / name, [y + lat], x, [soil], **attrs))


def test_lists_in_percent_and_with_fills(tmp_path):
    path = points(tmp_path / "a_20200101.nc", *centres(9, (900, 2000), (901, 2000)), [23.0, -9999], units="%")
    assert sources.smap.open(path).smap.values == pytest.approx(0.23)


def test_lists_that_do_not_belong_together_are_refused(tmp_path):
    nine = points(tmp_path / "a_20200101.nc", *centres(9, (900, 2000)), [0.2])
    wide = points(tmp_path / "b_20200101.nc", *centres(36, (300, 800)), [0.2])
    with pytest.raises(ValueError, match=r"b_20200101.nc lies on the 36-km grid, .*a_20200101.nc on the 9-km"):
        sources.smap.open([nine, wide])
    with pytest.raises(ValueError, match=r"b_20200101.nc is a list of points, .* a granule"):
        sources.smap.open([wide, granule(tmp_path, CELLS)])
    with pytest.raises(ValueError, match="does not tell overpasses apart"):
        sources.smap.open(nine, orbit="PM")
    with pytest.raises(ValueError, match=r"none of the 1 lists holds a point"):
        sources.smap.open(points(tmp_path / "c_20200101.nc", [], [], []))
    grid = tmp_path / "d_20200101.nc"
    xr.Dataset({n: (("y", "x"), np.zeros((2, 2))) for n in ("latitude", "longitude", "soil_moisture")}).to_netcdf(grid)
    with pytest.raises(ValueError, match=r"are no list of points, .*smgrid.sources.raster"):
        sources.smap.open(grid)
