"""The synthetic Yanco: labelled, repeatable, physical; and each fault changes what it says and nothing else."""

import numpy as np
import pytest
import xarray as xr

from smgrid import landscape, sensors, synthetic
from smgrid.grid import YANCO, Grid

# Table II of the design: units, and the range of the model's inputs
TABLE = {
    "vv": ("dB", -30, 5),
    "vh": ("dB", -35, 0),
    "incidence_angle": ("degree", 29.1, 46),
    "sand": ("%", 0, 100),
    "clay": ("%", 0, 100),
    "bulk_density": ("g cm-3", 1, 1.8),
    "elevation": ("m", 0, 5500),
    "slope": ("degree", 0, 40),
    "aspect_sin": ("1", -1, 1),
    "aspect_cos": ("1", -1, 1),
    "ndvi": ("1", -0.2, 1),
    "air_temperature": ("degC", -10, 35),
    "precipitation": ("m d-1", 0, 0.3),
    **dict.fromkeys(["b2", "b3", "b4", "b8", "b11", "b12"], ("1", 0, 1)),
    "smap": ("m3 m-3", 0, 0.6),
}
DYNAMIC = {"vv", "vh", "incidence_angle", "ndvi", "air_temperature", "precipitation", "smap"}
RADAR = ["vv", "vh", "incidence_angle"]
PARTS = ["cube", "truth", "airborne", "smap", "samples", "cover", "patches"]


@pytest.fixture(scope="module")
def scene():
    return synthetic.yanco(seed=0)


@pytest.fixture(scope="module")
def other():
    return synthetic.yanco(seed=1)


@pytest.fixture(scope="module")
def spoiled():
    return synthetic.yanco(seed=0, faults=("kelvin", "linear_vv", "era5_naive_sum", "smap_wrong_phase"))


def test_same_seed_same_bits(scene):
    synthetic._world.cache_clear()
    again = synthetic.yanco(seed=0)
    for part in PARTS:
        xr.testing.assert_identical(getattr(again, part), getattr(scene, part))
    assert again.stations.equals(scene.stations)


def test_what_is_done_to_one_scene_does_not_reach_the_next(scene):
    mine = synthetic.yanco(seed=0)
    for part in PARTS:
        obj = getattr(mine, part)
        for variable in obj.data_vars.values() if isinstance(obj, xr.Dataset) else [obj]:
            variable.values[:] = variable.values[::-1].copy()
    again = synthetic.yanco(seed=0)
    for part in PARTS:
        xr.testing.assert_identical(getattr(again, part), getattr(scene, part))


def test_another_seed_is_another_scene(scene, other):
    for name in TABLE:
        assert not np.array_equal(scene.cube[name], other.cube[name], equal_nan=True), name
    assert not np.array_equal(scene.truth, other.truth)


def test_cube_has_the_stored_predictors_of_the_table(scene):
    cube = scene.cube
    assert list(cube.data_vars) == list(TABLE)
    assert Grid.of(cube) == YANCO
    days = np.array(["2015-05-05", "2015-05-17", "2015-09-15", "2015-09-26"], "datetime64[ns]")
    assert cube["time"].dtype == days.dtype and (cube["time"] == days).all()
    for name, (units, _, _) in TABLE.items():
        assert cube[name].dims == (("time", "y", "x") if name in DYNAMIC else ("y", "x")), name
        assert cube[name].dtype == "float32" and cube[name].attrs["units"] == units, name


@pytest.mark.parametrize("name", TABLE)
def test_values_are_physical(scene, other, name):
    _, low, high = TABLE[name]
    for each in (scene, other):
        for values in (each.cube[name], each.samples[name]):
            assert float(values.min()) >= low and float(values.max()) <= high
        assert np.isfinite(each.samples[name]).all()


def test_radar_missed_the_eastern_half_of_one_day_and_nothing_else(scene):
    missing = scene.cube.isnull()
    gap = missing["vv"].sel(time="2015-05-17")
    for name in TABLE:
        if name in RADAR:
            assert (missing[name].sel(time="2015-05-17") == gap).all()
            assert not missing[name].drop_sel(time=np.datetime64("2015-05-17")).any()
        else:
            assert not missing[name].any(), name
    assert 0.4 < float(gap.mean()) < 0.6
    assert not gap[:, :30].any() and gap[:, 50:].all()
    unseen = float(gap.where(scene.patches).mean())
    assert unseen < 0.05  # the wet patches were seen, so a model can be blamed for missing them


def test_everything_says_synthetic(scene):
    for part in PARTS:
        obj = getattr(scene, part)
        for variable in obj.data_vars.values() if isinstance(obj, xr.Dataset) else [obj]:
            assert variable.attrs["source"].startswith("synthetic"), variable.name
            assert "(synthetic)" in variable.attrs["long_name"], variable.name
    for obj in (scene.cube, scene.samples):
        assert "synthetic" in obj.attrs["title"] and obj.attrs["source"] == "synthetic"
    assert scene.stations.attrs["source"].startswith("synthetic")
    assert "synthetic" in repr(scene) and len(repr(scene).splitlines()) < 8
    assert scene.cube.attrs["seed"] == 0 and scene.cube.attrs["faults"] == "none"
    for obj in (scene.cube, scene.samples):
        assert obj["vv"].attrs["averaging"] == "dB" and obj["smap"].attrs["spreading"] == "blocks"
    assert scene.cube["b8"].attrs["composite_period"].startswith("substitute")


def test_days_are_as_wet_as_published(scene, other):
    for each in (scene, other):
        means = each.airborne.mean(("y", "x"), dtype="f8")
        np.testing.assert_array_less(np.abs(means - [0.045, 0.138, 0.261, 0.068]), [0.03, 0.03, 0.06, 0.03])
        assert each.truth.min() > 0 and each.truth.max() < 0.5
        error = (each.airborne - each.truth).std(("y", "x"))
        assert (error > 0.01).all() and (error < 0.07).all()


def test_storms_left_wet_patches(scene, other):
    for each in (scene, other):
        wet = each.truth.sel(time="2015-05-17")
        assert float(wet.where(each.patches).mean() - wet.where(~each.patches).mean()) > 0.08
        dry = each.truth.sel(time="2015-05-05")
        assert abs(float(dry.where(each.patches).mean() - dry.where(~each.patches).mean())) < 0.04
    row, col = np.nonzero(scene.patches.values)
    assert row.min() > 42 and col.max() < 37  # the south-western quarter


def test_smap_is_blocks_of_its_own_field(scene):
    assert Grid.of(scene.smap) == YANCO.coarsen(9)
    spread = scene.smap.values.repeat(9, axis=1).repeat(9, axis=2)[:, : YANCO.ny, : YANCO.nx]
    np.testing.assert_array_equal(scene.cube["smap"], spread)
    steps = np.abs(np.diff(scene.smap.values, axis=2))
    assert 0.003 < np.sqrt((steps**2).mean()) < 0.04


def test_smap_is_near_the_mean_of_the_scene(scene, other):
    for each in (scene, other):
        error = each.smap.mean(("y", "x")) - each.truth.mean(("y", "x"))
        assert (np.abs(error) < 0.06).all()


def test_a_footprint_is_wider_than_a_cell():
    field = np.zeros(landscape.EXTENT.shape)
    field[90:99, 81:90] = 1.0  # one 9-km cell
    seen = sensors.Smap.footprint(field)
    assert np.unravel_index(seen.argmax(), seen.shape) == (10, 9)
    assert 0.05 < seen.max() < 0.10  # a Gaussian of sd 12.5 km holds some 7 % of its mass in a 9-km cell
    assert sensors.SMAP_TILES.spread(seen).sum() == pytest.approx(81)


def test_cover_and_patches_lie_on_the_grid(scene):
    assert Grid.of(scene.cover) == Grid.of(scene.patches) == Grid.of(scene.truth) == Grid.of(scene.airborne) == YANCO
    assert scene.cover.dtype == "uint8" and scene.cover.attrs["flag_values"].dtype == "uint8"
    kinds, counts = np.unique(scene.cover, return_counts=True)
    assert kinds.tolist() == scene.cover.attrs["flag_values"].tolist()
    assert len(scene.cover.attrs["flag_meanings"].split()) == 3
    assert (counts > 100).all() and counts.argmax() == 0
    forest = scene.cover == 3
    assert float(scene.cube["ndvi"].where(forest).mean()) > float(scene.cube["ndvi"].where(~forest).mean()) + 0.1


def test_samples_are_what_the_probes_said(scene, other):
    for each in (scene, other):
        samples, stations = each.samples, each.stations
        assert 4000 < samples.sizes["sample"] < 4300
        assert len(np.unique(samples["station"])) == stations["station"].nunique() == 39
        assert set(TABLE) < set(samples.data_vars) and (samples["network"] == "SYNTHETIC").all()
        assert samples["time"].dtype == "datetime64[ns]"
        assert str(samples["time"].values.min())[:4] == "2016" and str(samples["time"].values.max())[:4] == "2021"
        assert samples["soil_moisture"].attrs["units"] == "m3 m-3"
        assert samples["soil_moisture"].min() >= 0 and samples["soil_moisture"].max() <= 0.5
        assert 0.09 < samples["soil_moisture"].mean() < 0.17 and 0.06 < samples["soil_moisture"].std() < 0.11
        trained = stations[stations["time"] >= "2016"]
        assert (trained["soil_moisture"].to_numpy() == samples["soil_moisture"].values).all()
        assert set(stations["time"]) > set(each.cube["time"].values)


def test_stations_stand_in_their_cells(scene):
    samples = scene.samples
    row, col = YANCO.index(samples["longitude"], samples["latitude"])
    assert (row == samples["row"]).all() and (col == samples["col"]).all()
    assert len(set(zip(row.tolist(), col.tolist()))) == 39
    cover = scene.cover.values[row - YANCO.row, col - YANCO.col]
    assert (cover != 3).all()
    statics = [name for name in TABLE if name not in DYNAMIC]
    for name in statics:
        np.testing.assert_array_equal(samples[name], scene.cube[name].values[row - YANCO.row, col - YANCO.col])


def test_sensors_follow_the_soil_as_real_ones_do(scene):
    table = scene.samples[["vv", "smap", "soil_moisture", "station"]].to_dataframe()
    inside = table.groupby("station")[["vv", "smap", "soil_moisture"]].corr()["soil_moisture"].unstack()
    assert 0.5 < inside["vv"].mean() < 0.7
    assert 0.65 < inside["smap"].mean() < 0.85


def test_a_cube_survives_a_file(scene, tmp_path):
    scene.cube.to_netcdf(tmp_path / "cube.nc")
    with xr.open_dataset(tmp_path / "cube.nc", decode_coords="all") as back:
        assert Grid.of(back) == YANCO
        xr.testing.assert_equal(back.load(), scene.cube)


# ---- faults


def unchanged(part, clean, spoiled, but=()):
    """All variables but those named are identical; those named keep their attributes but for how SMAP was spread."""
    before, after = getattr(clean, part), getattr(spoiled, part)
    if isinstance(before, xr.DataArray):
        xr.testing.assert_identical(before, after)
        return
    assert list(before.data_vars) == list(after.data_vars)
    for name in before.data_vars:
        if name in but:
            kept = [{**v.attrs, "spreading": None} for v in (before[name], after[name])]
            assert kept[0] == kept[1] and before[name].dtype == after[name].dtype
            assert not np.array_equal(before[name], after[name], equal_nan=True), name
        else:
            xr.testing.assert_identical(before[name], after[name])


def the_rest_is_unchanged(clean, spoiled, cube=(), samples=(), parts=()):
    for part in PARTS:
        if part not in parts:
            unchanged(part, clean, spoiled, {"cube": cube, "samples": samples}.get(part, ()))
    if "soil_moisture" not in samples:
        assert clean.stations.equals(spoiled.stations)


def test_wrong_units_of_a_file(scene, spoiled):
    the_rest_is_unchanged(scene, spoiled, cube=["vv", "vh", "air_temperature", "precipitation", "smap"])
    clean, cube = scene.cube, spoiled.cube
    np.testing.assert_allclose(cube["vv"], 10 ** (clean["vv"] / 10), rtol=1e-5)
    np.testing.assert_allclose(cube["vh"], 10 ** (clean["vh"] / 10), rtol=1e-5)
    np.testing.assert_allclose(cube["air_temperature"], clean["air_temperature"] + 273.15, rtol=1e-6)
    np.testing.assert_allclose(cube["precipitation"], 12.5 * clean["precipitation"], rtol=1e-6)
    assert cube.attrs["faults"] == "linear_vv, kelvin, smap_wrong_phase, era5_naive_sum"
    assert "kelvin" in repr(spoiled)


def test_smap_blocks_at_a_wrong_phase(scene, spoiled):
    np.testing.assert_array_equal(spoiled.cube["smap"][:, 4:, 4:], scene.cube["smap"][:, :-4, :-4])
    for axis in (1, 2):
        edges = np.nonzero(np.diff(spoiled.cube["smap"].values, axis=axis).any(axis=(0, 3 - axis)))[0] + 1
        assert set(edges % 9) == {4}


def test_a_file_upside_down_off_by_half_a_cell_and_with_fills(scene):
    spoiled = synthetic.yanco(seed=0, faults=["flipped_rows", "half_cell_shift", "fill_not_masked"])
    np.testing.assert_array_equal(spoiled.cube["y"], scene.cube["y"])
    np.testing.assert_allclose(spoiled.cube["x"] - scene.cube["x"].values, YANCO.cell / 2)
    with pytest.raises(ValueError, match="half a cell"):
        Grid.of(spoiled.cube)
    upright = spoiled.cube.copy()
    for name in upright.data_vars:
        upright[name].values[:] = upright[name].values[..., ::-1, :].copy()
    upright = upright.assign_coords(x=scene.cube["x"])
    for name in TABLE:
        if name != "smap":
            xr.testing.assert_identical(upright[name], scene.cube[name])
    fill = upright["smap"] != scene.cube["smap"]
    assert set(np.unique(upright["smap"].values[fill.values])) == {-9999, 65534}
    assert (fill.sum(("y", "x")) == 2 * 81).all()
    for part in set(PARTS) - {"cube"}:
        unchanged(part, scene, spoiled)


def test_smap_of_the_day_before(scene):
    spoiled = synthetic.yanco(seed=0, faults="smap_previous_day")
    the_rest_is_unchanged(scene, spoiled, cube=["smap"])
    drier = (spoiled.cube["smap"] - scene.cube["smap"]).mean(("y", "x"))
    assert drier.sel(time="2015-05-17") < -0.01  # much of the rain of the 16th had not fallen yet
    assert drier.sel(time="2015-09-26") > 0  # the drying of a day is missing


def test_switches_of_the_recipe_on_smap(scene):
    spoiled = synthetic.yanco(seed=0, faults=["no_block_error", "unsmoothed_rain"])
    the_rest_is_unchanged(
        scene, spoiled, cube=["smap", "precipitation"], samples=["smap", "precipitation"], parts=["smap"]
    )
    wet = dict(time="2015-09-15")
    ratio = (scene.smap.sel(wet) / spoiled.smap.sel(wet)).values
    assert 0.03 < ratio.std() < 0.09 and abs(ratio.mean() - 1) < 0.03
    storm = dict(time="2015-05-17")
    assert float(spoiled.cube["precipitation"].sel(storm).std()) > 1.5 * float(
        scene.cube["precipitation"].sel(storm).std()
    )


def test_switches_of_the_recipe_on_probes_and_spreading(scene):
    spoiled = synthetic.yanco(seed=0, faults=["probe_gain_one", "smooth_smap"])
    the_rest_is_unchanged(scene, spoiled, cube=["smap"], samples=["smap", "soil_moisture"])
    assert spoiled.cube.smap.attrs["spreading"] == spoiled.samples.smap.attrs["spreading"] == "smooth"

    def step(cube):
        return np.abs(np.diff(cube["smap"].values, axis=2)).max()

    assert step(spoiled.cube) < 0.3 * step(scene.cube)
    means = [s.cube["smap"].coarsen(y=9, x=9, boundary="trim").mean() for s in (scene, spoiled)]
    assert float(xr.corr(*means)) > 0.98

    def slope(s):
        rows, cols = s.samples["row"].values - YANCO.row, s.samples["col"].values - YANCO.col
        assert rows.min() >= 0 and cols.min() >= 0
        return np.polyfit(s.samples["smap"], s.samples["soil_moisture"], 1)[0]

    assert slope(spoiled) > slope(scene) + 0.1  # a probe with gain 1 answers more to what SMAP sees


def test_unknown_fault_is_refused_with_those_that_exist():
    with pytest.raises(ValueError, match=r"no fault is called 'kelvins'; near it are \['kelvin'\]. The faults are \["):
        synthetic.yanco(faults=("kelvins",))
    with pytest.raises(ValueError, match="flipped_rows") as caught:
        synthetic.yanco(faults="zzz")
    assert all(name in str(caught.value) for name in synthetic.FAULTS)


@pytest.mark.parametrize("name, meaning", synthetic.FAULTS.items())
def test_the_docstring_lists_each_fault(name, meaning):
    assert f"- `{name}`: {meaning}\n" in synthetic.yanco.__doc__


# ---- radar, against hand-computed values of the published formulas


def decibel(power):
    return 10 * np.log10(power)


@pytest.mark.parametrize(
    "roughness, moisture, vv, vh",
    [
        (
            1.0,
            [0.05, 0.1, 0.2, 0.3, 0.4],
            [-14.21, -12.11, -10.0, -8.77, -7.89],
            [-25.78, -23.68, -21.57, -20.34, -19.46],
        ),
        (0.6, [0.2], [-12.44], [-25.06]),
        (2.0, [0.2], [-7.28], [-17.99]),
    ],
)
def test_bare_soil_is_oh_2004(roughness, moisture, vv, vh):
    seen = sensors.soil_backscatter(np.array(moisture), roughness, 38.0)
    np.testing.assert_allclose(decibel(seen[0]), vv, atol=0.01)
    np.testing.assert_allclose(decibel(seen[1]), vh, atol=0.01)


@pytest.mark.parametrize(
    "water, vv", [(0, [-13.39, -9.18, -7.07]), (2, [-13.97, -10.69, -8.84]), (4, [-12.46, -10.76, -9.53])]
)
def test_vegetation_is_a_water_cloud(water, vv):
    soil, _ = sensors.soil_backscatter(np.array([0.05, 0.2, 0.4]), 1.2, 38.0)
    np.testing.assert_allclose(decibel(sensors.under_vegetation(soil, water, 38.0, 0.02)), vv, atol=0.01)


def test_vegetation_dims_the_cross_polarised_signal():
    _, soil = sensors.soil_backscatter(np.array([0.05, 0.2, 0.4]), 1.2, 38.0)
    seen = decibel(sensors.under_vegetation(soil, 4, 38.0, 0.004))
    np.testing.assert_allclose(seen, [-20.33, -19.47, -18.75], atol=0.01)


@pytest.mark.parametrize("day", range(8))
def test_overpasses_bracket_every_day(day):
    before, after, weight = sensors.overpasses(day)
    assert before <= day < after and 0 <= weight < 1 and after - before <= 3
    assert before + weight * (after - before) == pytest.approx(day)
