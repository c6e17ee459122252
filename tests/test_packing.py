"""A packed cube is the cube: same values, same maps to the bit, and each packed chunk is read once."""

import dask
import numpy as np
import pytest
import xarray as xr
from zarr.storage import LocalStore

from smgrid import open_cube, open_maps, pack_cube, predict_map, write_zarr
from smgrid.packing import unpack_cube
from tests.test_predict import CUBE, RF, STATIC, STORED
from tests.test_skipping import CHUNKS, LAYERS, store_digest

MAPS = predict_map(CUBE, RF, layers=LAYERS)


def chunked(cube):
    return cube.chunk({dim: n for dim, n in CHUNKS.items() if dim in cube.dims})


@pytest.fixture
def reads(monkeypatch):
    """Chunk files that Zarr opens, in order."""
    found, plain = [], LocalStore.get

    async def get(self, key, *args, **kwargs):
        if "/c/" in key and key.split("/")[0] not in ("time", "y", "x", "spatial_ref"):
            found.append(key)
        return await plain(self, key, *args, **kwargs)

    monkeypatch.setattr(LocalStore, "get", get)
    return found


@pytest.mark.parametrize("lazy", [False, True])
def test_packing_and_unpacking_gives_the_cube_back(lazy):
    cube = (chunked(CUBE) if lazy else CUBE).assign(
        members=xr.concat([CUBE.vv, CUBE.vv + 1], "member"),
        soil=CUBE.sand.fillna(0).astype("i2", casting="unsafe").assign_attrs(flag_values=np.array([1, 2], "u1")),
    )
    packed = pack_cube(cube)
    assert packed.dynamic.dims == ("time", "dynamic_predictor", "y", "x")
    assert packed.dynamic.attrs["predictors"] == [n for n in STORED if n not in STATIC]
    assert packed.static.dims == ("static_predictor", "y", "x") and packed.static.dtype == "f4"
    assert set(packed.data_vars) == {"dynamic", "static", "member_time", "static_int16"}
    if lazy:
        assert packed.dynamic.chunks == ((1, 1, 1), (5,), (5, 5, 3), (6, 6, 5))
    back = unpack_cube(packed)
    expected = cube.copy()
    expected["soil"] = expected.soil.assign_attrs(flag_values=[1, 2])
    xr.testing.assert_identical(back.compute(), expected[list(back)].compute())
    assert unpack_cube(back) is back and pack_cube(packed).identical(packed)


def test_a_packed_store_gives_the_same_maps_and_reads_each_chunk_once(tmp_path, reads):
    write_zarr(pack_cube(chunked(CUBE)), tmp_path / "packed.zarr")
    write_zarr(chunked(CUBE), tmp_path / "apart.zarr")
    expected = {f"dynamic/c/{t}/0/{y}/{x}" for t in range(3) for y in range(3) for x in range(3)}
    expected |= {f"static/c/0/{y}/{x}" for y in range(3) for x in range(3)}
    cube = open_cube(tmp_path / "packed.zarr")
    assert set(cube.data_vars) == set(STORED) and cube.vv.attrs["units"] == "dB"
    for scheduler in ("synchronous", "threads"):
        reads.clear()
        with dask.config.set(scheduler=scheduler):
            maps = predict_map(cube, RF, layers=LAYERS).compute()
        assert len(reads) == len(set(reads)) and set(reads) == expected
        xr.testing.assert_equal(maps, MAPS)
    reads.clear()
    write_zarr(predict_map(cube, RF, layers=LAYERS), tmp_path / "a.zarr")
    assert len(reads) == len(set(reads)) and set(reads) == expected
    apart = xr.open_zarr(tmp_path / "apart.zarr", decode_coords="all")
    write_zarr(predict_map(apart, RF, layers=LAYERS), tmp_path / "b.zarr")
    assert store_digest(tmp_path / "a.zarr") == store_digest(tmp_path / "b.zarr")
    xr.testing.assert_equal(predict_map(open_maps(tmp_path / "packed.zarr"), RF, layers=LAYERS).compute(), MAPS)


def test_one_task_a_packed_chunk(tmp_path):
    write_zarr(pack_cube(chunked(CUBE)), tmp_path / "packed.zarr")
    graph = dict(dask.optimize(predict_map(open_cube(tmp_path / "packed.zarr"), RF))[0].__dask_graph__())
    assert len(graph) <= 27 * 3 + 27 + 9 + 20  # map and two layers a block, packed chunks, axes and sources


def test_new_dates_are_added_and_other_predictors_refused(tmp_path):
    path = tmp_path / "packed.zarr"
    write_zarr(pack_cube(chunked(CUBE).isel(time=slice(0, 2))), path)
    static = [p.stat().st_mtime_ns for p in sorted((path / "static" / "c").rglob("*")) if p.is_file()]
    write_zarr(pack_cube(chunked(CUBE)), path)
    assert [p.stat().st_mtime_ns for p in sorted((path / "static" / "c").rglob("*")) if p.is_file()] == static
    xr.testing.assert_identical(open_cube(path)[STORED].compute(), CUBE[STORED])
    with pytest.raises(ValueError, match=r"holds other maps: layers, dynamic, predictors: \['vv', 'vh'"):
        write_zarr(pack_cube(chunked(CUBE)[STORED[::-1]]), path)


def test_what_cannot_be_packed_or_unpacked():
    with pytest.raises(TypeError, match="a cube to be packed is a Dataset"):
        pack_cube(CUBE.vv)
    with pytest.raises(ValueError, match="no variable with dims y and x"):
        pack_cube(CUBE.rename(y="lat"))
    packed = pack_cube(CUBE)
    packed.dynamic.attrs["predictors"] = ["vv", "vh"]
    with pytest.raises(ValueError, match=r"'dynamic' holds 5 predictors and names \['vv', 'vh'\]"):
        predict_map(packed, RF)


def test_dates_in_other_units_are_not_added_to_a_packed_store(tmp_path):
    first, later = CUBE.isel(time=[0]), CUBE.isel(time=[0, 1])
    write_zarr(pack_cube(first), tmp_path / "packed.zarr")
    later["vv"] = later.vv.assign_attrs(units="1")
    with pytest.raises(ValueError, match="dynamic, predictor_units, vv: dB there, 1 here"):
        write_zarr(pack_cube(later), tmp_path / "packed.zarr")
