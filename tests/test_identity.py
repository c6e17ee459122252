"""A block's name says what it is made of, and nothing else."""

import functools
import logging
import shutil
import subprocess
import sys

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr
import zarr

from smgrid.identity import block_identities, identities


class Model:
    """A stand-in whose token is its number."""

    def __init__(self, number=1):
        self.number = number

    def __dask_tokenize__(self):
        return ("model", self.number)


def add(vv, sand, *, model):
    return vv + model.number * sand


def synthetic(days=3):
    def draw(*seed):
        return np.random.default_rng(seed).random((6, 8), "f4")

    return xr.Dataset(
        {"vv": (("time", "y", "x"), np.stack([draw(1, d) for d in range(days)])), "sand": (("y", "x"), draw(2))},
        coords={"time": np.arange(days), "y": np.arange(6.0), "x": np.arange(8.0)},
    )


def maps(cube, number=1, function=add):
    return da.map_blocks(
        function, cube.vv.data, cube.sand.data[None], model=Model(number), dtype="f4", meta=np.empty((0, 0, 0), "f4")
    )


def to_zarr(cube, path, **kwargs):
    cube.chunk(time=1, y=3, x=4).to_zarr(path, consolidated=False, mode="w", **kwargs)
    return xr.open_zarr(path, consolidated=False)


@pytest.fixture
def cube(tmp_path):
    return to_zarr(synthetic(), tmp_path / "cube.zarr")


def changed(a, b):
    assert a.keys() == b.keys() and None not in a.values() and None not in b.values()
    return {index for index in a if a[index] != b[index]}


def test_nothing_is_computed(cube, no_compute):
    assert None not in block_identities(maps(cube)).values()


def test_every_block_is_another(cube):
    found = block_identities(maps(cube))
    assert len(set(found.values())) == len(found) == 3 * 2 * 2


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_the_path_does_not_matter_and_a_longer_cube_keeps_the_old(tmp_path, cube, zarr_format):
    cube = to_zarr(synthetic(), tmp_path / "cube.zarr", zarr_format=zarr_format)
    longer = to_zarr(synthetic(5), tmp_path / "elsewhere.zarr", zarr_format=zarr_format)
    old, new = block_identities(maps(cube)), block_identities(maps(longer))
    assert old == {index: new[index] for index in old}


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_chunk_overwritten_in_place_changes_its_block_alone(tmp_path, zarr_format):
    path = tmp_path / "cube.zarr"
    before = maps(to_zarr(synthetic(), path, zarr_format=zarr_format))
    old = block_identities(before)
    zarr.open_group(path)["vv"][1, 3:6, 0:4] = 7
    after = maps(xr.open_zarr(path, consolidated=False))
    assert before.name == after.name  # Dask's own token does not see it
    assert changed(old, block_identities(after)) == {(1, 1, 0)}
    zarr.open_group(path)["sand"][0, 0] = 7
    assert changed(old, block_identities(after)) == {(0, 0, 0), (1, 0, 0), (2, 0, 0), (1, 1, 0)}


def test_a_chunk_that_is_not_there_is_an_empty_one(tmp_path, cube):
    old = block_identities(maps(cube))
    (tmp_path / "cube.zarr/vv/c/2/0/1").unlink()
    assert changed(old, block_identities(maps(cube))) == {(2, 0, 1)}


def test_model_function_and_arguments_change_every_block(cube):
    old = block_identities(maps(cube))
    assert changed(old, block_identities(maps(cube))) == set()
    assert changed(old, block_identities(maps(cube, 2))) == set(old)
    assert changed(old, block_identities(maps(cube, function=functools.partial(add)))) == set(old)


def test_functions_without_a_name_are_their_code(cube):
    def scaled(by):
        return block_identities(cube.vv.data.map_blocks(lambda v: v * by))

    assert scaled(2) == scaled(2)
    assert changed(scaled(2), scaled(3)) == set(scaled(2))
    two = block_identities(cube.vv.data.map_blocks(lambda v: v + {"a", "b", "c"}.__len__()))
    assert changed(scaled(2), two) == set(two)


def test_a_script_names_its_blocks_alike_each_time(tmp_path, cube):
    code = """
import sys, xarray as xr
from smgrid.identity import block_identities
OFFSET = 3
def mine(v): return (v if v.dtype.kind in {"f", "i", "u"} else 0) + OFFSET
cube = xr.open_zarr(sys.argv[1], consolidated=False)
print(sorted(block_identities(cube.vv.data.map_blocks(mine) + cube.sand.data.map_blocks(lambda v: v - 1)).items()))
"""
    runs = [
        subprocess.run(
            [sys.executable, "-c", code, tmp_path / "cube.zarr"], capture_output=True, text=True, check=True
        ).stdout
        for _ in range(2)
    ]
    assert runs[0] == runs[1] and "None" not in runs[0]


def test_fused_graphs_say_the_same(cube):
    (fused,) = dask.optimize(maps(cube))
    assert fused.__dask_graph__().keys() != maps(cube).__dask_graph__().keys()
    assert block_identities(fused) == block_identities(maps(cube))


@pytest.mark.parametrize("night", [slice(2, 3), [2], np.array([False, False, True])])
def test_a_cut_out_date_is_what_it_was(cube, night):
    old = block_identities(maps(cube))
    new = block_identities(maps(cube.isel(time=night)))
    assert new == {(0, *index[1:]): name for index, name in old.items() if index[0] == 2}


@pytest.mark.parametrize("night", [slice(2, 3), [2]])
@pytest.mark.parametrize("days", [1, 3])
def test_slices_of_blocks_are_named_alike_when_cut_from_the_result(cube, night, days):
    whole = maps(cube.chunk(time=days))
    cut = xr.DataArray(whole, dims=("time", "y", "x")).isel(time=night).data
    old = identities(whole.__dask_graph__(), {(whole.name, 2 // days, 1, 1): (0, days)})
    new = identities(cut.__dask_graph__(), {(cut.name, 0, 1, 1): (0, 1)})
    (((*_, last),), ((name,),)) = old.values(), new.values()
    assert name == last


def test_values_in_memory_count_not_how_they_came(cube):
    here = synthetic()
    old = block_identities(maps(here.chunk(time=1, y=3, x=4)))
    assert changed(old, block_identities(maps(here.isel(time=slice(0, 3)).chunk(time=1, y=3, x=4)))) == set()
    here["vv"][0, 0, 0] = np.nan
    assert changed(old, block_identities(maps(here.chunk(time=1, y=3, x=4)))) == {(0, 0, 0)}


def test_regions_smaller_than_a_chunk_and_steps(tmp_path, cube):
    def some(obj, **where):
        return set(block_identities(obj.isel(**where).chunk(time=1).vv.data).values())

    lazy = xr.open_zarr(tmp_path / "cube.zarr", consolidated=False, chunks=None)
    names = [
        some(lazy, y=slice(0, 2)),
        some(lazy, y=slice(1, 3)),
        some(lazy, y=slice(0, 4, 2)),
        some(lazy, y=slice(None, None, -1)),
        some(lazy, y=[0, 4, 5]),
        some(lazy, y=[0, 5, 4]),
        some(lazy, y=3),
        some(lazy, y=[3]),
    ]
    assert None not in set().union(*names)
    assert len(set().union(*names)) == sum(map(len, names))
    assert some(lazy, y=[0, 1]) == some(lazy, y=slice(0, 2))


def test_decoding_counts(tmp_path):
    def packed(scale):
        cube = synthetic()
        encoding = {"vv": {"dtype": "i2", "scale_factor": scale, "_FillValue": -1}}
        lazy = to_zarr(cube, tmp_path / "packed.zarr", encoding=encoding)
        return block_identities(lazy.vv.data)

    raw = packed(0.01)
    array = zarr.open_group(tmp_path / "packed.zarr")["vv"]
    array.attrs["scale_factor"] = 0.02  # the same bytes read otherwise
    again = block_identities(xr.open_zarr(tmp_path / "packed.zarr", consolidated=False).vv.data)
    assert changed(raw, again) == set(raw)


@pytest.mark.filterwarnings("ignore:Use `@` matmul:PendingDeprecationWarning")  # rioxarray of affine 3
@pytest.mark.parametrize("kind", ["netcdf", "hdf5", "geotiff"])
def test_other_files_are_their_bytes(tmp_path, kind):
    def opened(path):
        if kind == "netcdf":
            return xr.open_dataset(path, engine="netcdf4", chunks={"time": 1}).vv.data
        if kind == "hdf5":
            return da.from_array(h5py.File(path)["vv"], chunks=(1, 6, 8))
        return rioxarray.open_rasterio(path, chunks={"band": 1}).data

    h5py = pytest.importorskip("h5py")
    rioxarray = pytest.importorskip("rioxarray")
    cube = synthetic()

    def write(path):
        if kind == "geotiff":
            cube.vv.rio.write_crs(6933).rio.to_raster(path, driver="GTiff")
        else:
            cube.to_netcdf(path, engine="netcdf4")

    write(tmp_path / "a")
    shutil.copy(tmp_path / "a", tmp_path / "b")
    first = block_identities(opened(tmp_path / "a"))
    assert len(set(first.values())) == 3
    assert changed(first, block_identities(opened(tmp_path / "b"))) == set()
    cube["vv"][0, 0, 0] = 7
    write(tmp_path / "c")
    assert changed(first, block_identities(opened(tmp_path / "c"))) == set(first)


def test_a_path_handed_to_a_reader_is_the_file_behind_it(tmp_path):
    def read(path):
        return da.from_delayed(dask.delayed(np.load)(path), (3,), "f8")

    np.save(tmp_path / "a.npy", np.arange(3.0))
    old = block_identities(read(str(tmp_path / "a.npy")))
    np.save(tmp_path / "a.npy", np.arange(3.0) + 1)
    assert changed(old, block_identities(read(str(tmp_path / "a.npy")))) == set(old)


def test_what_xarray_computes_lazily_has_an_identity(cube):
    soil = (
        (cube.vv - cube.sand)
        .rolling(x=3, center=True)
        .mean()
        .where(cube.sand > 0.5)
        .fillna(0)
        .transpose("y", "x", "time")
    )
    assert None not in block_identities(soil.data).values()
    mean = xr.apply_ufunc(np.sqrt, cube.vv, dask="parallelized", output_dtypes=["f4"]).mean("time")
    assert None not in block_identities(mean.data).values()


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: da.from_array(zarr.create_array(zarr.storage.MemoryStore(), shape=(4,), dtype="f4")), "local folder"),
        (lambda: da.from_array(type("Odd", (), {"shape": (2,), "dtype": np.dtype("f4"), "ndim": 1})()), "does not say"),
        (lambda: da.zeros(2).map_blocks(functools.partial(np.add, object()), dtype="f8"), "hashed"),
    ],
    ids=["memory store", "unknown array", "object"],
)
def test_what_cannot_be_known_has_none_and_why_is_logged(make, why, caplog):
    with caplog.at_level(logging.INFO, "smgrid"):
        assert set(block_identities(make()).values()) == {None}
    assert why in caplog.text


def test_a_result_on_a_cluster_has_none():
    distributed = pytest.importorskip("distributed")
    with distributed.Client(n_workers=1, processes=False, dashboard_address=":0"):
        assert set(block_identities(da.ones(4, chunks=2).persist()).values()) == {None}


def test_a_long_chain_is_no_recursion():
    chain = da.ones(2, chunks=2)
    for _ in range(1200):
        chain = chain + 1
    assert None not in block_identities(chain).values()
