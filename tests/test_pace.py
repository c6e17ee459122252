"""Pace: what is counted is what the cube holds, and the words say it."""

import pytest

import smgrid
from smgrid.cli import main
from smgrid.pace import _spread, measure


@pytest.fixture(scope="module")
def scene():
    return smgrid.synthetic.yanco()


@pytest.fixture(scope="module")
def model(scene):
    return smgrid.train(scene.samples, smgrid.make_regressor("rf", n_estimators=5), features=["vv", "smap"])


@pytest.mark.parametrize("layers", [["soil_moisture"], ["status"], ["soil_moisture", "status"]])
def test_a_whole_cube_is_counted_whole(scene, model, layers):
    cube = scene.cube.isel(time=slice(3)).chunk(time=1, y=42, x=75)
    pace = measure(cube, model, layers=layers, seconds=60)
    expected = smgrid.predict_map(cube, model).soil_moisture
    assert (pace.blocks, pace.all_blocks) == (6, 6) and pace.cells == pace.all_cells == expected.size
    if layers[0] == "soil_moisture":
        assert pace.mapped == float(expected.notnull().mean())
    else:
        assert "mapped" not in str(pace)
    assert pace.whole == pytest.approx(pace.first + pace.seconds)


def test_a_large_cube_is_measured_in_part_and_reckoned_whole(scene, model):
    pace = measure(scene.cube.chunk(time=1, y=12, x=75), model, seconds=0)
    assert pace.blocks == 8 < pace.all_blocks
    assert pace.whole == pytest.approx(pace.first + pace.seconds * pace.all_cells / pace.cells)


def test_blocks_are_spread():
    order = _spread(list(range(100)))
    assert sorted(order) == list(range(100)) and len({i // 25 for i in order[:8]}) == 4


def test_a_cube_in_memory_is_refused(scene, model):
    with pytest.raises(ValueError, match=r"in memory, so its map was made whole: .* cube = cube.chunk\(\)"):
        measure(scene.cube.isel(time=0), model)


def test_the_command_says_rate_and_projection(scene, model, tmp_path, capsys):
    scene.cube.chunk(time=1).to_zarr(tmp_path / "cube.zarr", consolidated=False)
    smgrid.save_model(model, tmp_path / "m")
    assert main(["bench", f"{tmp_path}/cube.zarr", f"{tmp_path}/m", "--seconds", "0"]) == 0
    out = capsys.readouterr().out
    assert "million cells/s" in out and "whole cube: " in out and "writing not counted" in out
