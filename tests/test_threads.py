"""Maps never start more threads than their chunks have: inside a chunk every pool has one."""

import os
import subprocess
import sys
import textwrap
import threading

import dask
import joblib
import numpy as np
import pytest
import xarray as xr
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.ensemble import RandomForestRegressor
from threadpoolctl import threadpool_info, threadpool_limits
from xgboost import XGBRegressor

from smgrid import Grid, Model, predict_map

GRID = Grid(1, 11468, 31405, 12, 16)
SEEN = []


class Probe(RegressorMixin, BaseEstimator):
    """Notes how many threads it could start."""

    def __init__(self, n_jobs=4):
        self.n_jobs = n_jobs

    def fit(self, X, y):
        self.n_features_in_ = X.shape[1]
        return self

    def predict(self, X):
        pools = {pool["filepath"].split("/")[-1]: pool["num_threads"] for pool in threadpool_info()}
        SEEN.append({**pools, "n_jobs": self.n_jobs, "joblib": joblib.effective_n_jobs(4)})
        return (X @ np.ones((X.shape[1], 40)))[:, 0]


def cube():
    values = np.random.default_rng(0).random((GRID.ny, GRID.nx)).astype("f4")
    return xr.Dataset({"vv": (("y", "x"), -20 * values, {"units": "dB"})}, coords=GRID.coords())


def probe(regressor=None):
    regressor = Probe() if regressor is None else regressor
    return Model.from_estimator(
        regressor.fit(-20 * np.random.default_rng(0).random((50, 1)), np.zeros(50)), features=["vv"]
    )


def seen():
    """What the probe noted, and forget it."""
    notes, SEEN[:] = list(SEEN), []
    assert notes and all(len(note) > 3 for note in notes)
    return {size for note in notes for size in note.values()}


@pytest.mark.parametrize("scheduler", [None, "synchronous", "threads"])
def test_pools_have_one_thread_inside_a_map(scheduler):
    SEEN.clear()
    with threadpool_limits(3):
        before = [pool["num_threads"] for pool in threadpool_info()]
        if scheduler is None:
            predict_map(cube(), probe())
        else:
            with dask.config.set(scheduler=scheduler, num_workers=4):
                predict_map(cube().chunk(y=4, x=4), probe()).compute()
        assert seen() == {1}
        assert [pool["num_threads"] for pool in threadpool_info()] == before and 3 in before


REGRESSORS = [RandomForestRegressor(4, n_jobs=4), XGBRegressor(n_estimators=4, n_jobs=4)]


@pytest.mark.parametrize("regressor", REGRESSORS, ids=lambda r: type(r).__name__)
def test_no_thread_is_started_by_a_regressor(regressor, monkeypatch):
    """However many jobs the regressor was made for; by itself it does start some."""
    model, chunked = probe(regressor), cube().chunk(y=4, x=4)
    rows = np.random.default_rng(0).random((5000, 1))
    assert started(lambda: regressor.predict(rows), monkeypatch) > 0
    with dask.config.set(scheduler="synchronous"):
        assert started(lambda: predict_map(chunked, model).compute(), monkeypatch) == 0


def started(work, monkeypatch):
    """Threads that some work starts: Python's, and OpenMP's, which keeps a team for each thread that calls."""
    if not os.path.isdir("/proc/self/task"):
        pytest.skip("threads are counted in /proc")
    found, start = [], threading.Thread.start

    def counted():
        before = set(os.listdir("/proc/self/task"))
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", lambda self: (found.append(self), start(self)))
            work()
        found.extend(set(os.listdir("/proc/self/task")) - before)

    caller = threading.Thread(target=counted)
    caller.start()
    caller.join()
    return len(found)


def test_the_environment_does_not_matter():
    """A caller who asked for threads of BLAS or OpenMP has them, but not inside chunks."""
    code = """
    import sys; sys.path.insert(0, "tests")
    import dask, test_threads
    from threadpoolctl import threadpool_info
    print(max(pool["num_threads"] for pool in threadpool_info()))
    with dask.config.set(scheduler="threads", num_workers=2):
        test_threads.predict_map(test_threads.cube().chunk(y=4, x=4), test_threads.probe()).compute()
    print(*test_threads.seen())
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={
            **os.environ,
            "OMP_NUM_THREADS": "2",
            "OPENBLAS_NUM_THREADS": "2",
            "PYTHONPATH": os.pathsep.join(sys.path),
        },
        cwd=os.path.dirname(os.path.dirname(__file__)),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["2", "1"]
