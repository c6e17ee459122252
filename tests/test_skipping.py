"""Predictors of cells that are settled are not read, and that changes no byte."""

import hashlib
from pathlib import Path

import dask
import numpy as np
import pytest
import xarray as xr
from sklearn.ensemble import RandomForestRegressor

from smgrid import open_maps, predict_map, train, write_zarr
from smgrid.blocks import BlockFault
from tests.test_predict import CUBE, FEATURES, GRID, SAMPLES, STATIC, STORED

MODEL = train(SAMPLES, RandomForestRegressor(4, random_state=0), features=FEATURES)
LAYERS = ("soil_moisture", "status", "culprit")
CHUNKS = {"time": 1, "y": 5, "x": 6}  # 3 x 3 x 3 blocks


def counted(cube, reads):
    """The cube, lazy, that notes which variable is read at which block."""
    lazy = cube.chunk({k: v for k, v in CHUNKS.items() if k in cube.dims})
    for name in STORED:
        data = lazy[name].data

        def read(block, block_id=None, name=name):
            reads.append((name, block_id))
            return block

        lazy[name] = lazy[name].copy(data=data.map_blocks(read, dtype="f4", meta=np.empty((0,) * data.ndim, "f4")))
    return lazy


def store_digest(path):
    files = sorted(p for p in Path(path).rglob("*") if p.is_file() and p.name not in ("ledger", "manifest.json"))
    return hashlib.sha256(b"".join(p.relative_to(path).as_posix().encode() + p.read_bytes() for p in files)).hexdigest()


@pytest.fixture
def land():
    mask = np.zeros(GRID.shape, bool)
    mask[5:, 6:] = np.random.default_rng(0).random((8, 11)) < 0.7  # land in 4 of 9 places
    return xr.DataArray(mask, dims=("y", "x"), coords={"y": CUBE.y, "x": CUBE.x})


@pytest.mark.parametrize("lazy_mask", [False, True])
@pytest.mark.parametrize("layers", [("soil_moisture",), LAYERS])
def test_blocks_without_a_cell_to_predict_are_not_read(tmp_path, land, lazy_mask, layers):
    reads = []
    where = land.chunk(y=5, x=6) if lazy_mask else land
    write_zarr(predict_map(counted(CUBE, reads), MODEL, where=where, layers=layers), tmp_path / "a.zarr")
    places = {block[-2:] for name, block in reads if name not in STATIC}
    assert places == {(1, 1), (1, 2), (2, 1), (2, 2)}
    assert len(reads) == len(set(reads)), "each block of each variable once"
    if not lazy_mask:
        assert {block for name, block in reads if name in STATIC} == places
    plain = predict_map(CUBE, MODEL, where=land, layers=layers).chunk(CHUNKS)
    write_zarr(plain, tmp_path / "b.zarr")
    assert store_digest(tmp_path / "a.zarr") == store_digest(tmp_path / "b.zarr")


def test_predictors_after_the_one_that_is_missing_everywhere_are_not_read(tmp_path):
    cube = CUBE.copy(deep=True)
    cube["vv"][:, :, :6] = np.nan  # no swath
    cube["vh"][0, :5, 6:12] = -9999.0
    cube["smap"][1, 5:10, 12:] = np.nan  # the last to be read
    reads = []
    write_zarr(predict_map(counted(cube, reads), MODEL, layers=LAYERS), tmp_path / "a.zarr")
    first = {block for name, block in reads if name == "vv"}
    assert len(first) == 27
    assert {block for name, block in reads if name == "vh"} == {b for b in first if b[2] != 0}
    third = {block for name, block in reads if name == "incidence_angle"}
    assert third == {b for b in first if b[2] != 0 and b != (0, 0, 1)}
    assert {block for name, block in reads if name == "smap"} == third
    maps = predict_map(cube, MODEL, layers=LAYERS)
    xr.testing.assert_equal(open_maps(tmp_path / "a.zarr").load(), maps)
    write_zarr(maps.chunk(CHUNKS), tmp_path / "b.zarr")
    assert store_digest(tmp_path / "a.zarr") == store_digest(tmp_path / "b.zarr")


def test_a_part_of_a_map_and_a_changed_map_are_written_all_the_same(tmp_path, land):
    maps = predict_map(CUBE.chunk(CHUNKS), MODEL, where=land, layers=LAYERS)
    part = maps.isel(y=slice(3, None), time=slice(0, 2))
    xr.testing.assert_equal(write_zarr(part, tmp_path / "a.zarr").load(), part.compute())
    more = maps[["soil_moisture"]] * 2
    more.soil_moisture.attrs = {}
    xr.testing.assert_equal(write_zarr(more, tmp_path / "b.zarr").load(), more.compute())


def test_a_stopped_write_goes_on_under_a_mask(tmp_path, land):
    lazy = CUBE.chunk(CHUNKS)
    write_zarr(predict_map(lazy, MODEL, where=land), tmp_path / "a.zarr")
    reads = []
    write_zarr(predict_map(counted(CUBE, reads), MODEL, where=land), tmp_path / "b.zarr")
    before = len(reads)
    write_zarr(predict_map(counted(CUBE, reads), MODEL, where=land), tmp_path / "b.zarr")
    assert len(reads) in (before, 2 * before)  # afresh where a block's reader has no identity
    other = land.copy()
    other[0, 0] = True
    whole = write_zarr(predict_map(lazy, MODEL, where=other), tmp_path / "a.zarr")
    xr.testing.assert_equal(whole.load(), predict_map(CUBE, MODEL, where=other))


def test_a_fault_names_block_and_task_once(tmp_path):
    def spoil(block):
        raise OSError("no such sector")

    lazy = CUBE.chunk(CHUNKS)
    data = lazy.vh.data.map_blocks(spoil, dtype="f4", meta=np.empty((0, 0, 0), "f4"))
    with pytest.raises(BlockFault, match=r"^block \(2015-0.*failed in 'spoil': OSError: no such sector$"), \
            dask.config.set(scheduler="synchronous"):  # fmt: skip
        write_zarr(predict_map(lazy.assign(vh=lazy.vh.copy(data=data)), MODEL), tmp_path / "a.zarr")
