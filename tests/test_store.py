"""A stopped write ends as one that was never stopped, and nobody ever opens half a map."""

import hashlib
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr
import zarr
from dask._task_spec import DataNode, Task, TaskRef
from dask.highlevelgraph import HighLevelGraph
from dask.tokenize import tokenize

from smgrid import Grid
from smgrid.grid import find_crs
from smgrid.ledger import read_lines
from smgrid.store import CorruptStoreError, IncompleteStoreError, StorageFullError, open_maps, write_zarr

GRID = Grid(1, 11466, 31401, 10, 9)
NAMES = ("vv", "vh", "sand")
STATES = "predicted predicted_outside_training_range predictor_missing"


class Interrupted(Exception):
    pass


def sync():
    """Blocks one after the other, so that it is known how many are done when one fails."""
    return dask.config.set(scheduler="sync")


class Halving:
    """A stand-in for a model: one task per block gives all layers at once."""

    def __init__(self, factor=0.5, fail_after=None, pause=0):
        self.factor, self.fail_after, self.pause, self.blocks = factor, fail_after, pause, 0

    def __dask_tokenize__(self):
        return ("halving", self.factor)

    def __call__(self, *bands):
        if self.fail_after is not None and self.blocks >= self.fail_after:
            raise Interrupted("stop here")
        self.blocks += 1
        time.sleep(self.pause)
        stack = np.stack(np.broadcast_arrays(*bands))
        missing = np.isnan(stack)
        soil = (self.factor * np.nanmean(np.where(missing, 0, stack), axis=0)).astype("f4")
        status = np.where(missing.any(axis=0), 2, np.where(soil > 0.2, 1, 0)).astype("u1")
        culprit = np.where(status == 2, missing.argmax(axis=0) + 1, 0).astype("u1")
        return np.where(status == 2, np.float32("nan"), soil), status, culprit


def predict_block(*bands, model):
    return model(*bands)


def layer_of(results, number):
    return results[number]


def lazy_layers(bands, model):
    """One task per block computes all layers at once; one more per layer picks it out; the model is one key."""
    like, name, model_key = bands[0], f"blocks-{tokenize(*bands, model)}", f"model-{tokenize(model)}"
    places = list(np.ndindex(*like.numblocks))
    tasks = {model_key: DataNode(model_key, model)}
    for at in places:
        inputs = [TaskRef((b.name, *(i if n > 1 else 0 for i, n in zip(at, b.numblocks)))) for b in bands]
        tasks[name, *at] = Task((name, *at), predict_block, *inputs, model=TaskRef(model_key))
    graph = HighLevelGraph.from_collections(name, tasks, dependencies=bands)
    layers = []
    for n, dtype in enumerate(("f4", "u1", "u1")):
        own = f"layer{n}-{name}"
        gets = {(own, *at): Task((own, *at), layer_of, TaskRef((name, *at)), n) for at in places}
        whole = HighLevelGraph({**graph.layers, own: gets}, {**graph.dependencies, own: {name}})
        layers.append(da.Array(whole, own, like.chunks, dtype=dtype))
    return layers


def predict(cube, model, digest="a model"):
    """Maps as `predict_map` builds them, from whatever the cube is chunked like."""
    template = cube["vv"]
    bands = [cube[n].data if cube[n].dims == template.dims else cube[n].data[None] for n in NAMES]
    layers = predict_block(*bands, model=model) if template.chunks is None else lazy_layers(bands, model)
    dims, flags = template.dims, {"flag_values": np.array([0, 1, 2], "u1"), "flag_meanings": STATES}
    culprits = {"flag_values": np.arange(4, dtype="u1"), "flag_meanings": "none " + " ".join(NAMES)}
    soil = {"units": "m3 m-3", "long_name": "soil moisture", "ancillary_variables": "status culprit"}
    maps = xr.Dataset(
        {
            "soil_moisture": (dims, layers[0], soil),
            "status": (dims, layers[1], flags),
            "culprit": (dims, layers[2], culprits),
        },
        coords=template.coords,
        attrs={"title": "synthetic", "model_digest": digest},
    )
    for layer in maps.data_vars.values():
        layer.encoding["grid_mapping"] = "spatial_ref"
    return maps


def synthetic_cube(days=3, seed=0):
    """A synthetic cube in memory; a longer one begins as the shorter one."""
    time = np.datetime64("2015-05-01", "ns") + np.arange(days) * np.timedelta64(6, "D")

    def draw(*number):
        return np.random.default_rng((seed, *number)).random(GRID.shape, "f4")

    bands = {
        name: (("time", "y", "x"), np.stack([draw(n, d) for d in range(days)])) for n, name in enumerate(NAMES[:2])
    }
    cube = xr.Dataset({**bands, "sand": (("y", "x"), draw(9))}, coords={**GRID.coords(), "time": time})
    cube["vv"][0, :5, :4] = np.nan
    return cube


@pytest.fixture
def cube(tmp_path):
    """A synthetic cube in a Zarr store, a date and 5 x 4 cells a chunk."""
    return stored(synthetic_cube(), tmp_path / "cube.zarr")


def stored(cube, path):
    cube.chunk(time=1, y=5, x=4).to_zarr(path, consolidated=False, zarr_format=3, mode="w")
    return opened(path)


def opened(path):
    return xr.open_zarr(path, consolidated=False, decode_coords="all")


def tree(path):
    """Every file of a store and the hash of its bytes."""
    path = Path(path)
    return {
        str(p.relative_to(path)): hashlib.sha256(p.read_bytes()).hexdigest() for p in path.rglob("*") if p.is_file()
    }


def stats(path):
    """Inode and time of every chunk file."""
    return {
        str(p.relative_to(path)): (p.stat().st_ino, p.stat().st_mtime_ns)
        for p in Path(path).rglob("*")
        if p.is_file() and "c" in p.relative_to(path).parts
    }


def half_files(path):
    return [p for p in Path(path).rglob("*.partial") if p.is_file()]


def test_round_trip(tmp_path, cube):
    maps = predict(cube, Halving())
    said = repr([(v.attrs, v.encoding) for v in maps.variables.values()])
    back = write_zarr(maps, tmp_path / "m.zarr", progress=False)
    assert said == repr([(v.attrs, v.encoding) for v in maps.variables.values()])
    xr.testing.assert_identical(back.compute(), maps.compute())
    assert find_crs(back).to_epsg() == 6933
    assert back.soil_moisture.chunks == ((1, 1, 1), (5, 5), (4, 4, 1))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cube.zarr", "m.zarr"]
    for consolidated in (None, False):
        plain = xr.open_zarr(tmp_path / "m.zarr", decode_coords="all", consolidated=consolidated)
        xr.testing.assert_identical(plain.compute(), maps.compute())


def test_the_files_are_plain_zarr_with_checksums(tmp_path, cube):
    write_zarr(predict(cube, Halving()), tmp_path / "m.zarr", progress=False)
    array = zarr.open_group(tmp_path / "m.zarr", mode="r")["soil_moisture"]
    assert array.metadata.zarr_format == 3 and array.chunks == (1, 5, 4) and np.isnan(array.fill_value)
    (zstd,) = array.compressors
    assert zstd.to_dict()["configuration"] == {"level": 3, "checksum": True}
    chunk = tmp_path / "m.zarr/soil_moisture/c/1/0/0"
    data = bytearray(chunk.read_bytes())
    data[len(data) // 2] ^= 1
    chunk.write_bytes(data)
    with pytest.raises(Exception, match=r"[Zz]std|checksum"):
        array[1]


def test_an_empty_block_leaves_a_file_all_the_same(tmp_path):
    soil = xr.Dataset({"soil_moisture": (("y", "x"), np.full((10, 9), np.nan, "f4"))}, coords=GRID.coords())
    back = write_zarr(soil, tmp_path / "m.zarr", progress=False)
    assert (tmp_path / "m.zarr/soil_moisture/c/0/0").exists() and back.soil_moisture.isnull().all()


@pytest.mark.parametrize("done", [0, 1, 7, 17, 18])
def test_resumed_write_equals_one_write(tmp_path, cube, done):
    write_zarr(predict(cube, Halving()), tmp_path / "once.zarr", progress=False)
    path = tmp_path / "m.zarr"
    with sync():
        with pytest.raises(RuntimeError, match="stop here") if done < 18 else pytest.MonkeyPatch.context():
            write_zarr(predict(cube, Halving(fail_after=done)), path, progress=False)
        if done < 18:
            with pytest.raises(IncompleteStoreError, match=rf"holds {done} of 18 blocks.*same maps"):
                open_maps(path)
            assert not path.exists()
            with pytest.raises(FileNotFoundError):
                xr.open_zarr(tmp_path / "m.zarr.partial", consolidated=False)
        again = Halving()
        write_zarr(predict(cube, again), path, progress=False)
    assert again.blocks == 18 - done
    assert tree(path) == tree(tmp_path / "once.zarr")


@pytest.mark.parametrize("scheduler", ["threads", "processes", "distributed"])
def test_bytes_do_not_depend_on_the_scheduler(tmp_path, cube, scheduler):
    with sync():
        write_zarr(predict(cube, Halving()), tmp_path / "once.zarr", progress=False)
    maps = predict(cube, Halving())
    if scheduler == "distributed":
        distributed = pytest.importorskip("distributed")
        with distributed.Client(n_workers=1, processes=False, dashboard_address=":0", protocol="tcp://"):
            write_zarr(maps, tmp_path / "m.zarr", progress=False)
    else:
        with dask.config.set(scheduler=scheduler, num_workers=1 if scheduler == "processes" else 4):
            write_zarr(maps, tmp_path / "m.zarr", progress=False)
    assert tree(tmp_path / "m.zarr") == tree(tmp_path / "once.zarr")


@pytest.mark.parametrize("persisted", ["cube", "maps"])
def test_what_lies_on_a_cluster_is_written(tmp_path, cube, persisted):
    distributed = pytest.importorskip("distributed")
    with distributed.Client(n_workers=1, processes=False, dashboard_address=":0"):
        maps = predict(cube.persist(), Halving()) if persisted == "cube" else predict(cube, Halving()).persist()
        back = write_zarr(maps, tmp_path / "new/folder/m.zarr", progress=False)
    xr.testing.assert_identical(back.compute(), predict(cube, Halving()).compute())


def test_each_block_is_computed_once(tmp_path, cube):
    model = Halving()
    with sync():
        write_zarr(predict(cube, model), tmp_path / "m.zarr", progress=False)
    assert model.blocks == 18


def test_a_durable_write_waits_for_the_disk_before_it_names_anything(tmp_path, cube, monkeypatch):
    if not os.path.exists("/proc/self/fd"):
        pytest.skip("which file a number stands for is read in /proc")
    maps, settled, moved = predict(cube, Halving()), set(), []
    fsync, move, rename = os.fsync, os.replace, os.rename

    def noted(file):
        settled.add(os.readlink(f"/proc/self/fd/{file}"))
        fsync(file)

    def checked(way):
        def to(old, new):
            old, new = str(old), str(new)
            aside = "/next/" in new  # what zarr writes there is settled before it is moved to where it counts
            assert aside or old in settled or os.path.isdir(old), f"{old} was named {new} before it lay on the disk"
            moved.append(new)
            way(old, new)

        return to

    write_zarr(maps, tmp_path / "plain.zarr", progress=False)
    for name, new in (("fsync", noted), ("replace", checked(move)), ("rename", checked(rename))):
        monkeypatch.setattr(os, name, new)
    with sync():
        write_zarr(maps, tmp_path / "m.zarr", progress=False, durable=True)
        write_zarr(maps, tmp_path / "m.zarr", progress=False, durable=True)
    assert tree(tmp_path / "m.zarr") == tree(tmp_path / "plain.zarr")
    folders = {os.path.dirname(new) for new in moved if "/next" not in new}
    assert folders <= settled and any(path.endswith("smgrid/ledger") for path in settled)
    assert sum("/c/" in new for new in moved) >= 36


def test_nothing_to_do_computes_and_touches_nothing(tmp_path, cube):
    path = tmp_path / "m.zarr"
    write_zarr(predict(cube, Halving()), path, progress=False)
    model = Halving(fail_after=0)
    before = {p: p.stat().st_mtime_ns for p in path.rglob("*") if p.is_file()}
    write_zarr(predict(cube, model), path, progress=False)
    assert before == {p: p.stat().st_mtime_ns for p in path.rglob("*") if p.is_file()}


# ---- new dates


@pytest.mark.parametrize("subset", [False, True], ids=["whole cube", "the new date alone"])
def test_nightly_appends_equal_one_write(tmp_path, subset):
    whole = stored(synthetic_cube(4), tmp_path / "whole.zarr")
    write_zarr(predict(whole, Halving()), tmp_path / "once.zarr", progress=False)
    path, model = tmp_path / "m.zarr", Halving()
    with sync():
        for n in range(4):
            night = stored(synthetic_cube(n + 1), tmp_path / f"night{n}.zarr")
            before = stats(path) if n else {}
            write_zarr(predict(night.isel(time=[n]) if subset else night, model), path, progress=False)
            assert before.items() <= stats(path).items()  # no old chunk is touched
    assert model.blocks == 4 * 6
    assert tree(path) == tree(tmp_path / "once.zarr")


def test_subset_of_lazy_maps_appends(tmp_path, cube):
    maps, path = predict(cube, Halving()), tmp_path / "m.zarr"
    write_zarr(maps, tmp_path / "once.zarr", progress=False)
    for night in (slice(0, 1), slice(1, 2), [2]):
        write_zarr(maps.isel(time=night), path, progress=False)
    assert tree(path) == tree(tmp_path / "once.zarr")


def test_a_reader_sees_old_or_new_while_a_date_is_added(tmp_path, cube, monkeypatch):
    path, seen = tmp_path / "m.zarr", []
    maps = predict(synthetic_cube().chunk(time=1), Halving())
    write_zarr(maps.isel(time=slice(0, 2)), path, progress=False)
    move = os.replace

    def look(a, b):
        move(a, b)
        seen.extend([open_maps(path).sizes["time"], xr.open_zarr(path).soil_moisture.shape[0]])

    monkeypatch.setattr("smgrid.store.os.replace", look)
    with sync():
        write_zarr(maps, path, progress=False)
    assert sorted(seen) == seen and set(seen) == {2, 3}


def test_a_stopped_append_leaves_the_old_maps_open(tmp_path, cube):
    path = tmp_path / "m.zarr"
    maps = predict(cube, Halving())
    write_zarr(maps, tmp_path / "once.zarr", progress=False)
    write_zarr(maps.isel(time=slice(0, 2)), path, progress=False)
    before = stats(path)
    with sync(), pytest.raises(RuntimeError, match="stop here"):
        write_zarr(predict(cube, Halving(fail_after=3)), path, progress=False)
    xr.testing.assert_identical(open_maps(path).compute(), maps.isel(time=slice(0, 2)).compute())
    write_zarr(maps.isel(time=[2]), path, progress=False)
    assert before.items() <= stats(path).items()
    assert tree(path) == tree(tmp_path / "once.zarr")


def test_dates_are_added_in_order(tmp_path, cube):
    maps, path = predict(cube, Halving()), tmp_path / "m.zarr"
    write_zarr(maps.isel(time=[0, 2]), path, progress=False)
    with pytest.raises(ValueError, match=r"ends with 2015-05-13, and the maps bring 2015-05-07.*resume=False"):
        write_zarr(maps, path, progress=False)
    with pytest.raises(ValueError, match="sortby"):
        write_zarr(maps.isel(time=[2, 0]), path, progress=False)
    with pytest.raises(ValueError, match="some are missing or there twice"):
        write_zarr(maps.isel(time=[1, 1]), path, progress=False)


@pytest.mark.parametrize("days", [1, 2, 3, -1])
def test_several_dates_per_block(tmp_path, days):
    cube = synthetic_cube(5).chunk(time=days, y=5, x=4)
    model = Halving()
    with sync():
        maps = write_zarr(predict(cube, model), tmp_path / "m.zarr", progress=False)
    assert model.blocks == 6 * len(cube.chunks["time"])
    assert maps.soil_moisture.chunks[0] == (1,) * 5
    xr.testing.assert_identical(maps.compute(), predict(synthetic_cube(5), Halving()))


def test_a_grown_time_chunk_is_computed_again_but_its_old_dates_are_not_rewritten(tmp_path):
    path, model = tmp_path / "m.zarr", Halving()
    write_zarr(predict(synthetic_cube(2).chunk(time=-1, y=5, x=4), model), path, progress=False)
    before = stats(path)
    write_zarr(predict(synthetic_cube(3).chunk(time=-1, y=5, x=4), model), path, progress=False)
    assert before.items() <= stats(path).items()
    write_zarr(predict(synthetic_cube(3).chunk(time=-1, y=5, x=4), model), tmp_path / "once.zarr", progress=False)
    assert tree(path) == tree(tmp_path / "once.zarr")


# ---- what a finished block depends on


def test_a_chunk_overwritten_in_place_is_computed_again_alone(tmp_path, cube):
    path = tmp_path / "m.zarr"
    write_zarr(predict(cube, Halving()), path, progress=False)
    before = tree(path)
    zarr.open_group(tmp_path / "cube.zarr")["vh"][1, 5:10, 4:8] = 0.25
    model, changed = Halving(), opened(tmp_path / "cube.zarr")
    with sync():
        maps = write_zarr(predict(changed, model), path, progress=False)
    assert model.blocks == 1
    after = tree(path)
    altered = {name for name in after if after[name] != before[name]}
    assert {n for n in altered if "/c/" in n} <= {f"{v}/c/1/1/1" for v in maps.data_vars}
    assert "soil_moisture/c/1/1/1" in altered and after.keys() == before.keys()
    xr.testing.assert_identical(maps.compute(), predict(changed, Halving()).compute())


def test_changed_chunks_of_old_dates_wait_until_the_end(tmp_path, cube):
    path = tmp_path / "m.zarr"
    old = write_zarr(predict(cube, Halving()), path, progress=False).compute()
    zarr.open_group(tmp_path / "cube.zarr")["vh"][:] = 0.25
    changed = opened(tmp_path / "cube.zarr")
    with sync(), pytest.raises(RuntimeError, match="stop here"):
        write_zarr(predict(changed, Halving(fail_after=7)), path, progress=False)
    xr.testing.assert_identical(open_maps(path).compute(), old)
    model = Halving()
    with sync():
        write_zarr(predict(changed, model), path, progress=False)
    assert model.blocks == 18 - 7
    write_zarr(predict(changed, model), tmp_path / "once.zarr", progress=False)
    assert tree(path) == tree(tmp_path / "once.zarr")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda maps: maps.assign_attrs(model_digest="another"), "the model is a model there and another here"),
        (lambda maps: maps.isel(x=slice(0, 8)), "grid, x: 9 cells.* there, 8 cells.* here"),
        (
            lambda maps: maps.drop_vars("culprit"),
            r"the layers are \['culprit', .* there and \['soil_moisture', 'status'\] here",
        ),
        (lambda maps: maps.assign_coords(member=3), "coordinates, member: None there"),
        (lambda maps: maps.assign(status=maps.status.astype("i2")), "layers, status, dtype: uint8 there, int16 here"),
        (lambda maps: maps.isel(time=0), "time"),
    ],
)
@pytest.mark.parametrize("stopped", [False, True])
def test_other_maps_are_refused_by_what_differs(tmp_path, cube, change, named, stopped):
    path = tmp_path / "m.zarr"
    if stopped:
        with sync(), pytest.raises(RuntimeError):
            write_zarr(predict(cube, Halving(fail_after=2)), path, progress=False)
    else:
        write_zarr(predict(cube, Halving()), path, progress=False)
    before = tree(tmp_path)
    with pytest.raises(ValueError, match=f"holds other maps: .*{named}.*resume=False"):
        write_zarr(change(predict(cube, Halving())), path, progress=False)
    assert tree(tmp_path) == before


def test_inputs_without_identity_start_afresh(tmp_path, cube, caplog):
    path = tmp_path / "m.zarr"
    memory = zarr.create_array(zarr.storage.MemoryStore(), shape=cube.vh.shape, chunks=(1, 5, 4), dtype="f4")
    memory[:] = cube.vh.values
    blind = cube.assign(vh=(cube.vh.dims, da.from_array(memory, chunks=(1, 5, 4))))
    with sync(), pytest.raises(RuntimeError):
        write_zarr(predict(blind, Halving(fail_after=5)), path, progress=False)
    model = Halving()
    with sync(), caplog.at_level(logging.INFO, "smgrid"):
        write_zarr(predict(blind, model), path, progress=False)
    assert model.blocks == 18
    assert "18 blocks are started afresh, since their inputs cannot be identified" in caplog.text
    assert "not in a local folder" in caplog.text


# ---- faults


def test_a_flipped_bit_is_noticed(tmp_path, cube):
    path = tmp_path / "m.zarr"
    write_zarr(predict(cube, Halving()), tmp_path / "once.zarr", progress=False)
    with sync(), pytest.raises(RuntimeError):
        write_zarr(predict(cube, Halving(fail_after=9)), path, progress=False)
    chunks = sorted((tmp_path / "m.zarr.partial/status/c").rglob("*"))
    chunk = [p for p in chunks if p.is_file()][4]
    data = bytearray(chunk.read_bytes())
    data[-1] ^= 64
    chunk.write_bytes(data)
    model = Halving()
    with sync():
        write_zarr(predict(cube, model), path, progress=False)
    assert model.blocks == 10
    assert tree(path) == tree(tmp_path / "once.zarr")


@pytest.mark.parametrize("damage", ["torn", "altered", "gone"])
def test_a_damaged_ledger_is_not_trusted(tmp_path, cube, damage):
    path, ledger = tmp_path / "m.zarr", tmp_path / "m.zarr.partial/smgrid/ledger"
    write_zarr(predict(cube, Halving()), tmp_path / "once.zarr", progress=False)
    with sync(), pytest.raises(RuntimeError):
        write_zarr(predict(cube, Halving(fail_after=9)), path, progress=False)
    text = ledger.read_text()
    if damage == "torn":
        ledger.write_text(text[:-30])
    elif damage == "altered":
        ledger.write_text(text.replace("/c/", "/d/", 1))
    else:
        ledger.unlink()
    model = Halving()
    with sync():
        write_zarr(predict(cube, model), path, progress=False)
    assert model.blocks == {"torn": 10, "altered": 10, "gone": 18}[damage]
    assert tree(path) == tree(tmp_path / "once.zarr")


def test_a_finished_store_without_its_ledger_is_incomplete(tmp_path, cube):
    path = tmp_path / "m.zarr"
    maps = predict(cube, Halving())
    write_zarr(maps, path, progress=False)
    before = tree(path)
    (path / "smgrid/ledger").write_text("")
    with pytest.raises(IncompleteStoreError, match="0 of 18 blocks"):
        open_maps(path)
    with pytest.raises(CorruptStoreError, match=r"lacks 36 chunks .* give maps with all dates"):
        write_zarr(maps.isel(time=[2]), path, progress=False)
    write_zarr(maps, path, progress=False)
    assert tree(path) == before


def test_a_fault_names_the_block(tmp_path, cube):
    class Picky(Halving):
        def __call__(self, *bands):
            if np.isnan(bands[0]).any():
                raise Interrupted("no NaN, please")
            return super().__call__(*bands)

    with pytest.raises(RuntimeError) as caught:
        write_zarr(predict(cube, Picky()), tmp_path / "m.zarr", progress=False)
    message = str(caught.value)
    assert "block (2015-05-01, y 0..4, x 0..3) of soil_moisture, status, culprit failed in 'blocks'" in message
    assert "Interrupted: no NaN, please" in message and isinstance(caught.value.__cause__, Interrupted)


def test_a_block_of_the_wrong_shape_is_refused(tmp_path, cube):
    lying = predict(cube, Halving())
    lying["status"] = lying.status.copy(data=da.map_blocks(lambda b: b[:, :-1], lying.status.data, dtype="u1"))
    with pytest.raises(RuntimeError, match=r"failed in 'status': .*shape \(1, 4, .\), not \(1, 5, .\)"):
        write_zarr(lying, tmp_path / "m.zarr", progress=False)


def test_a_full_disk_is_said_and_survived(tmp_path, cube, monkeypatch):
    path = tmp_path / "m.zarr"
    write_zarr(predict(cube, Halving()), tmp_path / "once.zarr", progress=False)
    real, left = Path.write_bytes, [20]

    def small_disk(self, data):
        if self.name.endswith(".partial") and "c" in self.parts:
            left[0] -= 1
            if left[0] < 0:
                real(self, data[: len(data) // 2])
                raise OSError(28, "No space left on device")
        return real(self, data)

    monkeypatch.setattr(Path, "write_bytes", small_disk)
    with sync(), pytest.raises(StorageFullError) as caught:
        write_zarr(predict(cube, Halving()), path, progress=False)
    assert caught.value.errno == 28 and caught.value.filename == str(path) + ".partial"
    assert "6 of 18 blocks are stored" in str(caught.value) and "bytes) more are needed" in str(caught.value)
    assert not half_files(tmp_path) and not (tmp_path / "m.zarr.lock").exists()
    monkeypatch.undo()
    write_zarr(predict(cube, Halving()), path, progress=False)
    assert tree(path) == tree(tmp_path / "once.zarr")


def test_little_space_is_said_beforehand(tmp_path, cube, monkeypatch, caplog):
    usage = type("usage", (), {"free": 1000})
    monkeypatch.setattr("smgrid.store.shutil.disk_usage", lambda _: usage)
    write_zarr(predict(cube, Halving()), tmp_path / "m.zarr", progress=False)
    assert "may need up to 2.16 kB (before compression); 1 kB are free" in caplog.text


def test_no_write_is_in_flight_after_an_interrupt(tmp_path, cube):
    class Slow(Halving):
        def __call__(self, *bands):
            self.blocks += 1
            if self.blocks == 4:
                raise KeyboardInterrupt
            time.sleep(0.05)
            self.blocks -= 1
            return super().__call__(*bands)

    path = tmp_path / "m.zarr"
    with dask.config.set(scheduler="threads", num_workers=4), pytest.raises(KeyboardInterrupt):
        write_zarr(predict(cube, Slow()), path, progress=False)
    before = tree(tmp_path)
    time.sleep(0.3)
    assert tree(tmp_path) == before
    assert not half_files(tmp_path)


SCRIPT = """
import sys
sys.path[:0] = [{tests!r}, {repo!r}]
import dask, test_store
from smgrid.store import write_zarr

maps = test_store.predict(test_store.opened({cube!r}), test_store.Halving(pause={pause}))
with dask.config.set(scheduler="threads", num_workers=2):
    write_zarr(maps, {path!r}, progress=False)
"""


def script(tmp_path, pause):
    here = Path(__file__).resolve().parent
    code = SCRIPT.format(
        tests=str(here),
        repo=str(here.parent),
        pause=pause,
        cube=str(tmp_path / "cube.zarr"),
        path=str(tmp_path / "m.zarr"),
    )
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for_ledger(tmp_path, writer):
    ledger = tmp_path / "m.zarr.partial/smgrid/ledger"
    while not ledger.exists():
        assert writer.poll() is None, writer.stderr.read()
        time.sleep(0.01)
    return ledger


@pytest.mark.parametrize(("round", "how"), [*enumerate([signal.SIGKILL] * 3), (3, signal.SIGINT)])
def test_killed_at_any_moment_it_goes_on(tmp_path, cube, round, how):
    write_zarr(predict(cube, Halving()), tmp_path / "once.zarr", progress=False)
    with script(tmp_path, 0.05) as writer:
        ledger = wait_for_ledger(tmp_path, writer)
        time.sleep(np.random.default_rng(round).uniform(0.02, 0.4))
        writer.send_signal(how)
    there = read_lines(ledger)
    model = Halving()
    with sync():
        write_zarr(predict(cube, model), tmp_path / "m.zarr", progress=False)
    assert model.blocks == 18 - sum(f"culprit/c/{d}/{y}/{x}" in there for d, y, x in np.ndindex(3, 2, 3))
    assert tree(tmp_path / "m.zarr") == tree(tmp_path / "once.zarr")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cube.zarr", "m.zarr", "once.zarr"]


START = {"nothing": 1, "two dates": 2, "other maps": 3}


@pytest.mark.parametrize("before", START)
def test_a_crash_between_any_two_renames_is_mended(tmp_path, before, monkeypatch):
    cube = synthetic_cube().chunk(time=1)
    maps, path, resume = predict(cube, Halving()), tmp_path / "m.zarr", before != "other maps"
    write_zarr(maps, tmp_path / "once.zarr", progress=False)
    calls = []

    def counted(function):
        def call(*args):
            calls.append(args)
            if len(calls) == stop:
                raise Interrupted
            return function(*args)

        return call

    for stop in range(START[before], 100, 6):  # noqa: B007 - all of them in turn would take a minute
        if before == "two dates":
            write_zarr(maps.isel(time=[0, 1]), path, progress=False)
        elif before == "other maps":
            write_zarr(predict(cube, Halving(0.1), "other"), path, progress=False)
        calls.clear()
        with monkeypatch.context() as patch, sync():
            for name in ("replace", "rename"):
                patch.setattr(f"smgrid.store.os.{name}", counted(getattr(os, name)))
            try:
                write_zarr(maps, path, resume=resume, progress=False)
            except (Interrupted, RuntimeError):
                pass
            else:
                break
        if (tmp_path / "m.zarr.partial").exists() or before != "other maps":
            write_zarr(maps, path, progress=False)
            assert tree(path) == tree(tmp_path / "once.zarr")
        assert len(list(tmp_path.iterdir())) == 2
        shutil.rmtree(path)
    assert stop > 15


def test_a_second_writer_is_refused_while_the_first_lives(tmp_path, cube):
    with script(tmp_path, 0.3) as writer:
        wait_for_ledger(tmp_path, writer)
        with pytest.raises(RuntimeError, match=rf"being written by process {writer.pid} on host {os.uname().nodename}"):
            write_zarr(predict(cube, Halving()), tmp_path / "m.zarr", progress=False)
        writer.kill()
    write_zarr(predict(cube, Halving()), tmp_path / "m.zarr", progress=False)


def test_a_lock_of_another_host_is_respected(tmp_path, cube):
    (tmp_path / "m.zarr.lock").write_text("12 elsewhere abc\n")
    with pytest.raises(RuntimeError, match=r"process 12 on host elsewhere.*if that host is gone, delete .*m.zarr.lock"):
        write_zarr(predict(cube, Halving()), tmp_path / "m.zarr", progress=False)


# ---- starting anew


def test_resume_false_replaces_the_old_store_only_when_the_new_is_whole(tmp_path, cube):
    path = tmp_path / "m.zarr"
    old = write_zarr(predict(cube, Halving()), path, progress=False).compute()
    with sync(), pytest.raises(RuntimeError):
        write_zarr(predict(cube, Halving(0.25, fail_after=4), "b"), path, resume=False, progress=False)
    xr.testing.assert_identical(open_maps(path).compute(), old)
    write_zarr(predict(cube, Halving(0.25), "b"), path, resume=False, progress=False)
    write_zarr(predict(cube, Halving(0.25), "b"), tmp_path / "once.zarr", progress=False)
    assert tree(path) == tree(tmp_path / "once.zarr")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cube.zarr", "m.zarr", "once.zarr"]


def test_a_stopped_replacement_goes_on(tmp_path, cube):
    path = tmp_path / "m.zarr"
    write_zarr(predict(cube, Halving()), path, progress=False)
    with sync():
        with pytest.raises(RuntimeError):
            write_zarr(predict(cube, Halving(0.25, fail_after=4), "b"), path, resume=False, progress=False)
        model = Halving(0.25)
        maps = write_zarr(predict(cube, model, "b"), path, progress=False)
    assert model.blocks == 14 and maps.attrs["model_digest"] == "b"


@pytest.mark.parametrize("resume", [True, False])
def test_what_smgrid_did_not_write_stays(tmp_path, cube, resume):
    path = tmp_path / "m.zarr"
    path.mkdir()
    (path / "letters.txt").write_text("dear")
    with pytest.raises(ValueError, match="was not written by smgrid"):
        write_zarr(predict(cube, Halving()), path, resume=resume, progress=False)
    with pytest.raises(ValueError, match="was not written by smgrid"):
        open_maps(path)
    (path / "letters.txt").rename(tmp_path / "letters.txt")
    path.rmdir()
    write_zarr(predict(cube, Halving()), path, progress=False)
    (tmp_path / "letters.txt").rename(path / "letters.txt")
    with pytest.raises(ValueError, match=r"files that smgrid did not write.*letters.txt"):
        write_zarr(predict(cube, Halving()), path, resume=False, progress=False)
    write_zarr(predict(cube, Halving()), path, progress=False)
    assert (path / "letters.txt").read_text() == "dear"


# ---- what comes in


def test_maps_in_memory(tmp_path):
    maps = predict(synthetic_cube(), Halving())
    path = tmp_path / "m.zarr"
    write_zarr(maps.isel(time=[0]), path, progress=False)
    xr.testing.assert_identical(write_zarr(maps, path, progress=False).compute(), maps)
    write_zarr(maps, tmp_path / "once.zarr", progress=False)
    assert tree(path) == tree(tmp_path / "once.zarr")


@pytest.mark.parametrize("y", [(5, 5), (3, 4, 3), (4, 6), (10,), (1, 9)])
def test_any_chunks(tmp_path, y):
    cube = synthetic_cube().chunk(time=2, y=y, x=4)
    maps = write_zarr(predict(cube, Halving()), tmp_path / "m.zarr", progress=False)
    xr.testing.assert_identical(maps.compute(), predict(synthetic_cube(), Halving()))


def test_further_dims_scalar_dates_and_other_layers(tmp_path):
    maps = predict(synthetic_cube().chunk(time=1, y=5, x=4), Halving())
    maps = xr.concat([maps, maps + 1], "orbit", combine_attrs="override").assign_coords(orbit=["A", "D"])
    maps = maps.transpose("time", "orbit", "y", "x").chunk(orbit=1)
    maps["share"] = ("y", "x"), da.ones((10, 9), chunks=(5, 4))
    maps["acquired"] = ("time", maps.time.values + np.timedelta64(6, "h"))
    maps = maps.set_coords("acquired")
    path = tmp_path / "m.zarr"
    with (
        pytest.warns(Warning, match="does not have a Zarr V3")
        if sys.version_info < (3,)
        else pytest.MonkeyPatch.context()
    ):
        write_zarr(maps.isel(time=[0, 1]), path, progress=False)
        back = write_zarr(maps, path, progress=False)
    xr.testing.assert_identical(back.compute(), maps.compute())
    one = maps.isel(time=0)
    xr.testing.assert_identical(write_zarr(one, tmp_path / "one.zarr", progress=False).compute(), one.compute())


def test_packed_layers(tmp_path):
    maps = predict(synthetic_cube().chunk(time=1, y=5, x=4), Halving())
    maps.soil_moisture.encoding |= {"dtype": "int16", "scale_factor": 1e-4, "_FillValue": np.int16(-1)}
    back = write_zarr(maps, tmp_path / "m.zarr", progress=False)
    assert zarr.open_group(tmp_path / "m.zarr", mode="r")["soil_moisture"].dtype == "int16"
    np.testing.assert_allclose(back.soil_moisture, maps.soil_moisture, atol=6e-5)


@pytest.mark.parametrize(
    ("path", "advice"),
    [
        ("s3://bucket/m.zarr", "no local path.*NAME.zarr"),
        ("file:///tmp/m.zarr", "no local path"),
        ("m.nc", "maps.to_netcdf"),
        ("m.tif", "write_geotiff"),
        ("m.zarr.zip", "ends in .zarr"),
        (3, "no local path"),
    ],
)
def test_other_targets_are_refused(path, advice):
    with pytest.raises(ValueError, match=advice):
        write_zarr(None, path)
    reader = {"m.nc": r"not '.nc': use xarray.open_dataset", "m.tif": r"not '.tif': use rioxarray.open_rasterio"}
    with pytest.raises(ValueError, match=reader.get(path, advice)):
        open_maps(path)


def test_what_is_no_map_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"no layer has dims \(y, x\)"):
        write_zarr(xr.Dataset({"a": ("lat", [1.0])}), tmp_path / "m.zarr")
    with pytest.raises(TypeError, match="xarray Dataset"):
        write_zarr(np.zeros(3), tmp_path / "m.zarr")
    assert not list(tmp_path.glob("m.zarr*"))


def test_nothing_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="no maps at"):
        open_maps(tmp_path / "m.zarr")


# ---- what is said


def test_the_summary_counts_every_cell(tmp_path, cube, caplog):
    maps = predict(cube, Halving())
    with caplog.at_level(logging.INFO, "smgrid"):
        write_zarr(maps, tmp_path / "m.zarr", progress=False)
    summary = json.loads((tmp_path / "m.zarr/smgrid/manifest.json").read_text())["summary"]
    done = maps.compute()
    assert summary["blocks"] == 18 and summary["cells"] == done.status.size
    assert summary["mapped"] == int(done.soil_moisture.notnull().sum())
    assert summary["status"] == {name: int((done.status == n).sum()) for n, name in enumerate(STATES.split())}
    assert summary["culprit"] == {"predictor_missing": {"vv": 20}}
    assert "18 blocks (18 computed now), 250 of 270 cells mapped" in caplog.text
    assert "predictor_missing 20 (vv 20)" in caplog.text


def test_a_bar_on_request(tmp_path, cube, capsys):
    write_zarr(predict(cube, Halving()), tmp_path / "m.zarr", progress=True)
    err = capsys.readouterr().err
    assert "m.zarr" in err and "100%" in err
    write_zarr(predict(cube, Halving()), tmp_path / "n.zarr", progress=False)
    write_zarr(predict(cube, Halving()), tmp_path / "o.zarr")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda m: m.isel(time=[]), r"no cell along \['time'\]"),
        (lambda m: m.isel(x=[]), r"no cell along \['x'\]"),
        (lambda m: m.astype(object), "is of dtype object, not numbers"),
        (lambda m: m.assign_coords(time=m.time.where(m.time != m.time[1])), r"\(NaT\)"),
        (lambda m: m.assign_coords(time=m.indexes["time"].tz_localize("UTC")), "time zone"),
    ],
)
def test_what_cannot_be_stored_leaves_nothing_behind(tmp_path, cube, spoil, message):
    with pytest.raises(ValueError, match=message):
        write_zarr(spoil(predict(cube, Halving())), tmp_path / "m.zarr", progress=False)
    assert not list(tmp_path.glob("m.zarr*"))


def test_a_file_in_the_way_is_named(tmp_path, cube):
    (tmp_path / "m.zarr").write_text("mine")
    with pytest.raises(ValueError, match="is a file: a store is a folder"):
        write_zarr(predict(cube, Halving()), tmp_path / "m.zarr", progress=False)
    assert (tmp_path / "m.zarr").read_text() == "mine"


def test_maps_of_truth_values_are_stored_as_such(tmp_path):
    mask = np.arange(84 * 75).reshape(84, 75) % 3 == 0
    land = xr.Dataset({"land": (("y", "x"), mask)}, coords=Grid(1, 11466, 31401, 84, 75).coords()).chunk(y=40, x=40)
    back = write_zarr(land, tmp_path / "land.zarr")
    assert back.land.dtype == bool
    np.testing.assert_array_equal(back.land, mask)
