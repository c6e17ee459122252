"""On a cluster the same call leaves the same bytes, whoever dies meanwhile; what all blocks share travels once."""

import functools
import json
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr
from test_store import tree

from smgrid import Grid, predict_map
from smgrid.common import Common
from smgrid.ledger import read_lines
from smgrid.portions import planned_ahead, portions
from smgrid.store import IncompleteStoreError, open_maps, write_zarr

distributed = pytest.importorskip("distributed")

GRID = Grid(1, 11466, 31401, 40, 40)
DAYS = 4
BLOCKS = DAYS * 16


class Told:
    """A stand-in for a large regressor, which tells on files when it is unpickled and when it predicts."""

    def __init__(self, folder, weights):
        self.folder, self.weights = str(folder), weights
        self.feature_names_in_, self.n_features_in_ = np.array(["vv", "sand"], object), 2

    def __getstate__(self):
        self.tell("pickled")
        return self.__dict__

    def __setstate__(self, state):
        self.__dict__ |= state
        self.tell("unpickled")

    def tell(self, what):
        with open(f"{self.folder}/{what}", "a") as file:
            file.write(f"{os.getpid()}\n")

    def said(self, what):
        path = Path(self.folder, what)
        return Counter(path.read_text().split()) if path.exists() else Counter()

    def predict(self, rows):
        rows = np.asarray(rows)
        self.tell("predicted")
        how = json.loads(Path(self.folder, "how").read_text())
        time.sleep(how.get("pause", 0))
        if (rows == how.get("poison")).any():
            os.kill(os.getpid(), signal.SIGKILL)
        return 0.01 * rows[:, 0] + 0.001 * rows[:, 1] + 0.3


@pytest.fixture(scope="module")
def cube(tmp_path_factory):
    """A synthetic cube in a Zarr store, a date and 10 x 10 cells a chunk."""
    rng, path = np.random.default_rng(0), tmp_path_factory.mktemp("cube") / "cube.zarr"
    days = np.datetime64("2015-05-01", "ns") + np.arange(DAYS) * np.timedelta64(6, "D")
    vv, sand = rng.uniform(-20, -5, (DAYS, *GRID.shape)), rng.uniform(0, 100, GRID.shape)
    cube = xr.Dataset(
        {
            "vv": (("time", "y", "x"), vv.astype("f4"), {"units": "dB"}),
            "sand": (("y", "x"), sand.astype("f4"), {"units": "%"}),
        },
        coords={**GRID.coords(), "time": days},
    )
    cube.chunk(time=1, y=10, x=10).to_zarr(path, consolidated=False, zarr_format=3)
    return xr.open_zarr(path, consolidated=False, decode_coords="all")


def make_told(folder, size=100, **how):
    """A model of some size, which may take its time, and kill its worker where a predictor has a value."""
    (folder / "how").write_text(json.dumps(how))
    return Told(folder, np.zeros(size))


@pytest.fixture
def told(tmp_path):
    return functools.partial(make_told, tmp_path)


@pytest.fixture(scope="module")
def once(tmp_path_factory, cube):
    """What threads write."""
    folder = tmp_path_factory.mktemp("once")
    with dask.config.set(scheduler="threads", num_workers=2):
        write_zarr(predict_map(cube, make_told(folder)), folder / "m.zarr", progress=False)
    return chunks(folder / "m.zarr")


def chunks(path):
    """The bytes of all chunks; the rest names the model, which knows its folder."""
    return {name: digest for name, digest in tree(path).items() if "/c/" in name}


@pytest.fixture(scope="module")
def cluster():
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs=60
    ) as cluster:
        yield cluster


@pytest.fixture
def client(cluster):
    with distributed.Client(cluster) as client:
        client.wait_for_workers(2)
        yield client


def when_stored(path, lines, do):
    """Do something once the ledger has some lines, while a write goes on."""
    ledger = Path(f"{path}.partial/smgrid/ledger")

    def watch():
        while not ledger.exists() or len(read_lines(ledger)) < lines:
            time.sleep(0.01)
        do()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return thread


def test_an_active_client_is_used_and_the_model_travels_once_a_process(tmp_path, cube, told, client):
    model, sent = told(size=1_000_000), []
    maps, before, dump = predict_map(cube, model), model.said("pickled").total(), pickle.dumps
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "distributed.protocol.pickle.pickle.dumps", lambda *a, **k: sent.append(len(d := dump(*a, **k))) or d
        )
        write_zarr(maps, tmp_path / "m.zarr", progress=False)
    workers = {str(pid) for pid in client.run(os.getpid).values()}
    assert set(model.said("predicted")) == workers and model.said("predicted").total() == BLOCKS
    assert model.said("unpickled") == dict.fromkeys(workers, 1)
    assert model.said("pickled").total() == before + 1
    assert sum(sent) < 4000 * BLOCKS  # the whole graph, and all that is said around it; the model has 8 MB
    with dask.config.set(scheduler="threads"):
        write_zarr(maps, tmp_path / "here.zarr", progress=False)
    assert tree(tmp_path / "m.zarr") == tree(tmp_path / "here.zarr")


def test_a_killed_worker_changes_nothing(tmp_path, cube, told, once, client, cluster):
    path, victim = tmp_path / "m.zarr", next(iter(client.run(os.getpid).values()))
    watcher = when_stored(path, 20, lambda: os.kill(victim, signal.SIGKILL))
    model = told(pause=0.03)
    write_zarr(predict_map(cube, model), path, progress=False)
    watcher.join()
    assert chunks(path) == once
    assert BLOCKS <= model.said("predicted").total() <= BLOCKS + 1  # what was in flight alone is done again


def test_a_block_that_kills_its_workers_is_named(tmp_path, cube, told, once, client, cluster, monkeypatch):
    path, poison = tmp_path / "m.zarr", float(cube.vv[2, 15, 25])
    monkeypatch.setattr(cluster.scheduler, "allowed_failures", 0)  # three by default
    with pytest.raises(RuntimeError, match=r"block \(2015-.*\) of soil_moisture.* one worker .* died with it.*stays"):
        write_zarr(predict_map(cube, told(poison=poison)), path, progress=False)
    with pytest.raises(IncompleteStoreError):
        open_maps(path)
    write_zarr(predict_map(cube, told()), path, progress=False)
    assert chunks(path) == once


class Counting:
    """A stand-in for a stored array, which tells on a file which part is read."""

    def __init__(self, values, told):
        self.values, self.told, self.shape, self.dtype, self.ndim = values, str(told), values.shape, values.dtype, 2

    def __dask_tokenize__(self):
        return "counting", self.told

    def __getitem__(self, index):
        if (found := self.values[index]).size:  # Dask looks at nothing too
            with open(self.told, "a") as file:
                file.write(" ".join(f"{i.start}" for i in index) + "\n")
        return found


def counting(cube, told):
    sand = da.from_array(Counting(cube.sand.values, told), chunks=10, asarray=True)
    return cube.assign(sand=cube.sand.copy(data=sand))


@pytest.mark.parametrize("most", [4, 6, 1000], ids=["a place", "a place and a half", "all"])
def test_portions_change_no_byte_and_statics_are_read_once_a_place(tmp_path, cube, told, once, most, monkeypatch):
    monkeypatch.setattr("smgrid.portions.MOST", most)
    with dask.config.set(scheduler="threads", num_workers=2):
        maps = predict_map(counting(cube, tmp_path / "reads"), told())
        sizes, send = [], dask.base.compute

        def counted(*work, **options):
            if len(work) == 1:  # a portion; chunks that are to be known come by several
                sizes.append(len(work[0].dask))
            return send(*work, **options)

        monkeypatch.setattr("dask.base.compute", counted)
        write_zarr(maps, tmp_path / "m.zarr", progress=False)
    assert chunks(tmp_path / "m.zarr") == once
    assert len(sizes) == -(-BLOCKS // most) and max(sizes) <= 2 * most + 10
    reads = Counter((tmp_path / "reads").read_text().splitlines())
    assert len(reads) == 16
    if most != 6:  # else a place may lie in two portions
        assert set(reads.values()) == {1}
    assert max(reads.values()) <= 2


def test_statics_are_read_once_a_place_on_a_cluster_too(tmp_path, cube, told, once, client):
    maps = predict_map(counting(cube, tmp_path / "reads"), told())
    write_zarr(maps, tmp_path / "m.zarr", progress=False)
    assert chunks(tmp_path / "m.zarr") == once
    assert Counter((tmp_path / "reads").read_text().splitlines()).total() == 16


def test_a_stopped_run_of_many_portions_goes_on(tmp_path, cube, told, monkeypatch):
    monkeypatch.setattr("smgrid.portions.MOST", 9)
    poison, path = float(cube.vv[2, 15, 25]), tmp_path / "m.zarr"
    maps = predict_map(cube, told(poison=poison))
    with monkeypatch.context() as patch, dask.config.set(scheduler="sync"):
        patch.setattr("os.kill", lambda *_: 1 / 0)
        with pytest.raises(RuntimeError, match=r"block \(2015-05-13, y 10..19, x 20..29\).*ZeroDivisionError"):
            write_zarr(maps, path, progress=False)
    done = len(read_lines(tmp_path / "m.zarr.partial/smgrid/ledger"))
    model = told()
    with dask.config.set(scheduler="sync"):
        write_zarr(predict_map(cube, model), path, progress=False)
        write_zarr(predict_map(cube, model), tmp_path / "again.zarr", progress=False)
    assert 2 * 9 < done < 2 * BLOCKS
    assert tree(path) == tree(tmp_path / "again.zarr")


def test_a_portion_spells_out_no_more_than_its_blocks_need(cube, told, monkeypatch):
    monkeypatch.setattr("smgrid.portions.MOST", 8)
    maps = predict_map(cube, told())
    layers = {name: maps[name].variable for name in maps.data_vars}
    found = list(portions(layers, tuple(range(DAYS)), maps))
    assert [portion.number for portion in found] == [1, 2, 3, 4, 5, 6, 7, 8] and found[0].of == 8
    assert max(len(portion.nodes) for portion in found) <= 8 * 4 + 2 + 8  # vv, block, two layers; sand; sources, axes
    assert sum(len(portion.blocks) for portion in found) == BLOCKS
    places = [{(b.tile["y"], b.tile["x"]) for b in portion.blocks} for portion in found]
    assert sum(map(len, places)) == 16
    assert all(portion.blocks[n].dates == (n % DAYS,) for portion in found for n in range(8))


def test_a_changed_file_that_all_share_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("smgrid.common.in_this_process", lambda: False)
    common = Common.of({"large": np.zeros(200_000), "small": 1}, tmp_path)
    assert sorted(common.get()) == ["large", "small"] and common.get()["large"] is common.get()["large"]
    assert len(common.files) == 2
    monkeypatch.setattr("smgrid.common._read", {})
    for path, _ in common.files:
        Path(path).write_bytes(b"other")
    with pytest.raises(RuntimeError, match="is not what this run laid down there"):
        common.get()
    for path, _ in common.files:
        Path(path).unlink()
    with pytest.raises(RuntimeError, match=r"finds no .* on a file system that all workers share"):
        common.get()


def test_what_fails_while_planning_ahead_is_raised_where_it_is_wanted():
    def plans():
        yield 1
        yield 2
        raise ValueError("no third")

    ahead = planned_ahead(plans())
    assert [next(ahead), next(ahead)] == [1, 2]
    with pytest.raises(ValueError, match="no third"):
        next(ahead)
    assert list(planned_ahead([])) == []


SERVER = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--no-dashboard", "--port", "0", "--scheduler-file"]
WORKER = [sys.executable, "-m", "distributed.cli.dask_worker", "--no-dashboard", "--no-nanny", "--nthreads", "1"]


def test_a_lost_scheduler_leaves_a_store_that_goes_on(tmp_path, cube, told, once):
    where, path, quiet = str(tmp_path / "scheduler.json"), tmp_path / "m.zarr", subprocess.DEVNULL
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    scheduler = subprocess.Popen([*SERVER, where], env=env, stdout=quiet, stderr=quiet)
    worker = subprocess.Popen([*WORKER, "--scheduler-file", where], env=env, stdout=quiet, stderr=quiet)
    try:
        while not Path(where).exists():
            time.sleep(0.05)
        with distributed.Client(scheduler_file=where) as client:
            client.wait_for_workers(1)
            watcher = when_stored(path, 20, lambda: os.kill(scheduler.pid, signal.SIGKILL))
            with pytest.raises(RuntimeError, match="failed"):
                write_zarr(predict_map(cube, told(pause=0.03)), path, progress=False)
            watcher.join()
        done = len(read_lines(Path(f"{path}.partial/smgrid/ledger")))
        time.sleep(0.3)  # the worker lives on; it must write no more
        assert 20 <= len(read_lines(Path(f"{path}.partial/smgrid/ledger"))) == done < 2 * BLOCKS
    finally:
        for process in (worker, scheduler):
            process.kill()
            process.wait()
    model = told()
    with dask.config.set(scheduler="sync"):
        write_zarr(predict_map(cube, model), path, progress=False)
    assert chunks(path) == once
