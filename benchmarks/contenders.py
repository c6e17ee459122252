"""The contenders of the race: one way from an open scene to a written map each; runs one of them in this process.

    python -m benchmarks.contenders JOB

Takes seconds; publishes nothing. `benchmarks.race` starts it, once a run.

JOB is a JSON object with `contender`, `scene`, `layout`, `side`, `chunk`, `tiny` (a small scene that is mapped first, so
that no import is timed), `model`, `truth`, `out`, `workers`, and for the growth curves `times` and `processes`. One line of
JSON is printed: seconds, CPU, memory, tasks, and whether the map is right.

Each peer is used as its manual shows (`documented`) and as one who knows it well would (`best`: float32, one thread a block,
its blocks those of the store, its own gaps restored). Only smgrid's own ways import smgrid, so that every peer may live in
an environment of its own.
"""

import contextlib
import gc
import json
import os
import pickle
import shutil
import sys
import time
import warnings
from pathlib import Path

START = time.perf_counter()
BANDS = [f"p{k:02d}" for k in range(1, 26)]
EPSG = 6933


# ---- what several ways share


def opened(job):
    """The scene as it lies on disk: a Dataset of 25 variables, or one DataArray with a dimension `band`."""
    import xarray as xr

    scene = xr.open_zarr(job["scene"], decode_coords="all")
    if job["layout"] == "separate":
        return scene
    return scene["static"].rename(static_predictor="band").assign_coords(band=BANDS)


def stacked(scene):
    """One DataArray with all bands of a place in one chunk."""
    import xarray as xr

    array = scene.to_dataarray("band") if isinstance(scene, xr.Dataset) else scene
    return array.chunk(band=-1)


def split(scene):
    """A Dataset with one variable a band."""
    import xarray as xr

    return scene if isinstance(scene, xr.Dataset) else scene.to_dataset("band")


def write(soil, job):
    """A named map to Zarr, on the chunks of the scene."""
    soil = soil.rename("soil_moisture").drop_vars("band", errors="ignore")
    soil.encoding = {}
    soil.to_dataset().drop_encoding().to_zarr(job["out"], mode="w")


def one_thread(model):
    """Dask's threads are the workers: one thread inside each."""
    if hasattr(model, "n_jobs"):
        model.set_params(n_jobs=1)
    return model


# ---- the ways; each takes a job and a fitted regressor


def ours(job, model, layers=("soil_moisture",)):
    """predict_map and write_zarr."""
    import smgrid
    from smgrid import Model, predict_map, write_zarr
    from smgrid.files import open_cube

    cube = open_cube(job["scene"]) if job["layout"] == "separate" or hasattr(smgrid, "pack_cube") else opened(job)
    maps = predict_map(cube, Model.from_estimator(model, features=BANDS), layers=layers)
    write_zarr(maps, job["out"], progress=False)


def ours_status(job, model):
    """The same with predict_map's default layers: soil moisture and what happened in each cell."""
    ours(job, model, ("soil_moisture", "status"))


def eager(job, model):
    """Load everything, make rows of it, predict, write: the notebook's way. The library may take all cores."""
    import numpy as np

    if hasattr(model, "n_jobs"):
        model.set_params(n_jobs=job["workers"])
    array = stacked(opened(job)).load()
    rows = array.stack(cell=("y", "x")).transpose("cell", "band").values
    known = np.isfinite(rows).all(axis=1)
    soil = np.full(len(rows), np.nan, "f4")
    soil[known] = model.predict(rows[known])
    size = job["chunk"]
    made = array.isel(band=0, drop=True).copy(data=soil.reshape(array.shape[1:])).chunk(y=size, x=size)
    write(made, job)


def apply_ufunc(job, model):
    """xarray's manual: stack the bands, apply_ufunc(dask="parallelized") over them; float64, the library's own threads."""
    import numpy as np
    import xarray as xr

    def predict(block):
        rows = block.reshape(-1, block.shape[-1])
        known = np.isfinite(rows).all(axis=1)
        soil = np.full(len(rows), np.nan)
        if known.any():
            soil[known] = model.predict(rows[known])
        return soil.reshape(block.shape[:-1])

    array = stacked(opened(job))
    made = xr.apply_ufunc(predict, array, input_core_dims=[["band"]], dask="parallelized", output_dtypes=["f8"])
    write(made, job)


def apply_ufunc_best(job, model):
    """One argument a band where bands lie apart, the mask before the rows are made, float32, one thread a block."""
    import numpy as np
    import xarray as xr

    one_thread(model)

    def predict(*bands):
        if len(bands) == 1:
            bands = np.moveaxis(bands[0], -1, 0)
        known = np.isfinite(bands[0])
        for band in bands[1:]:
            known &= np.isfinite(band)
        soil = np.full(known.shape, np.nan, "f4")
        if known.any():
            soil[known] = model.predict(np.stack([band[known] for band in bands], axis=1))
        return soil

    scene, how = opened(job), {"dask": "parallelized", "output_dtypes": ["f4"]}
    if job["layout"] == "packed":
        made = xr.apply_ufunc(predict, scene, input_core_dims=[["band"]], **how)
    else:
        made = xr.apply_ufunc(predict, *(scene[b] for b in BANDS), **how)
    write(made, job)


def _wrapped(model):
    """sklearn-raster resets what it wraps, so the fitted regressor is put back; fitting is no part of the race."""
    import numpy as np
    from sklearn.linear_model import LinearRegression
    from sklearn_raster import wrap

    made = wrap(LinearRegression()).fit(np.zeros((2, len(BANDS))), np.zeros(2))
    made.wrapped_estimator = model
    return made


def sklearn_raster(job, model):
    """Its manual: predict on the Dataset (or the DataArray that the store holds); chunks made even, as Zarr demands."""
    made = _wrapped(model).predict(opened(job), allow_cast=True)
    write(_only(made).chunk(y=job["chunk"], x=job["chunk"]), job)


def sklearn_raster_best(job, model):
    """On a DataArray with all bands in one chunk."""
    write(_only(_wrapped(one_thread(model)).predict(stacked(opened(job)), allow_cast=True)), job)


def _only(made):
    """The one target of a prediction with a dimension of targets."""
    import xarray as xr

    if isinstance(made, xr.Dataset):
        return made[next(iter(made.data_vars))]
    return made.isel({d: 0 for d in made.dims if d not in ("y", "x")}, drop=True)


def dask_ml(job, model):
    """Its manual: ParallelPostFit on stacked rows. Gaps reach the regressor: filled with 0 where it refuses NaN."""
    from dask_ml.wrappers import ParallelPostFit

    rows = stacked(opened(job)).stack(cell=("y", "x")).transpose("cell", "band")
    if type(model).__name__ in ("SVR", "MLPRegressor"):
        rows = rows.fillna(0)
    made = ParallelPostFit(model).predict(rows.data)
    soil = rows.isel(band=0, drop=True).copy(data=made).unstack("cell")
    write(soil.chunk(y=job["chunk"], x=job["chunk"]), job)


def dask_ml_best(job, model):
    """Rows without an index, small row blocks, one thread each, its gaps restored afterwards."""
    import dask
    import numpy as np
    from dask_ml.wrappers import ParallelPostFit

    array = stacked(opened(job))
    rows = array.data.reshape(len(BANDS), -1).T
    with dask.config.set({"array.chunk-size": f"{len(BANDS) * job['chunk'] ** 2 * 4}B"}):
        filled = dask.array.nan_to_num(rows)
        made = ParallelPostFit(one_thread(model), predict_meta=np.empty(0, "f4")).predict(filled)
        known = dask.array.isfinite(rows).all(axis=1)
        soil = dask.array.where(known, made, np.float32(np.nan)).astype("f4").reshape(array.shape[1:])
    write(array.isel(band=0, drop=True).copy(data=soil).chunk(y=job["chunk"], x=job["chunk"]), job)


def pyspatialml(job, model):
    """Its manual: Raster(file).predict(regressor, file_path), from GeoTIFF to GeoTIFF, window by window."""
    from pyspatialml import Raster

    raster = Raster(job["geotiff"])
    raster.predict(model, file_path=job["out"], dtype="float32", nodata=-9999.0)
    raster.close()


def pyspatialml_best(job, model):
    """In larger windows, each predicted by all cores."""
    from pyspatialml import Raster

    if hasattr(model, "n_jobs"):
        model.set_params(n_jobs=job["workers"])
    raster = Raster(job["geotiff"])
    raster.block_shape = (job["chunk"], job["chunk"])
    raster.predict(model, file_path=job["out"], dtype="float32", nodata=-9999.0)
    raster.close()


def dea_tools(job, model):
    """Its manual: predict_xr under a Dask client; gaps become 0 and are predicted."""
    from dea_tools.classification import predict_xr

    with contextlib.redirect_stdout(sys.stderr):
        made = predict_xr(model, split(opened(job)), clean=True)
    write(made.Predictions.chunk(y=job["chunk"], x=job["chunk"]), job)


def dea_tools_best(job, model):
    """Its gaps restored afterwards, one thread a block."""
    import numpy as np
    from dea_tools.classification import predict_xr

    scene = split(opened(job))
    with contextlib.redirect_stdout(sys.stderr):
        made = predict_xr(one_thread(model), scene, clean=True)
    soil = made.Predictions.astype("f4").chunk(y=job["chunk"], x=job["chunk"])
    write(soil.where(np.isfinite(scene.to_dataarray("band")).all("band")), job)


def openeo(job, model):
    """Its process predict_random_forest (XGBoost boosters only) under a Dask client; gaps are predicted."""
    write(_openeo(stacked(opened(job)), model).chunk(y=job["chunk"], x=job["chunk"]), job)


def openeo_best(job, model):
    """Its gaps restored afterwards, one thread a block."""
    import numpy as np

    array = stacked(opened(job))
    soil = _openeo(array, one_thread(model)).chunk(y=job["chunk"], x=job["chunk"])
    write(soil.where(np.isfinite(array).all("band")), job)


def _openeo(array, model):
    from openeo_processes_dask.process_implementations.ml import predict_random_forest

    if not hasattr(model, "get_booster"):
        raise Refused("takes XGBoost boosters only")
    booster = model.get_booster()
    booster.feature_names = BANDS
    made = predict_random_forest(array.transpose("y", "x", "band").data, booster)
    return array.isel(band=0, drop=True).copy(data=made.reshape(array.shape[1:]))


class Refused(Exception):
    """A contender cannot do this at all."""


WAYS = {
    "smgrid": ours,
    "smgrid, map and status": ours_status,
    "apply_ufunc, documented": apply_ufunc,
    "apply_ufunc, best": apply_ufunc_best,
    "sklearn-raster, documented": sklearn_raster,
    "sklearn-raster, best": sklearn_raster_best,
    "dask-ml, documented": dask_ml,
    "dask-ml, best": dask_ml_best,
    "Pyspatialml, documented": pyspatialml,
    "Pyspatialml, best": pyspatialml_best,
    "dea-tools, documented": dea_tools,
    "dea-tools, best": dea_tools_best,
    "openEO, documented": openeo,
    "openEO, best": openeo_best,
    "eager stack": eager,
}
PACKAGES = {  # what a peer's version is read from
    "smgrid": "smgrid",
    "apply_ufunc": "xarray",
    "sklearn-raster": "sklearn-raster",
    "dask-ml": "dask-ml",
    "Pyspatialml": "pyspatialml",
    "dea-tools": "dea-tools",
    "openEO": "openeo-processes-dask",
    "eager stack": "xarray",
}
NEED_CLIENT = ("dea-tools", "openEO")


# ---- one run, timed


class Count:
    """Keys of all graphs that were computed."""

    def __init__(self):
        self.tasks = 0

    def started(self, dsk):
        self.tasks += len(dsk)


@contextlib.contextmanager
def scheduler(job, count):
    """Dask's threads; a client in this process where a peer asks for one; or a cluster of `processes`."""
    name, workers = job["contender"], job["workers"]
    import dask
    from dask.callbacks import Callback

    if n := job.get("processes"):
        from distributed import Client, LocalCluster

        with LocalCluster(n_workers=n, threads_per_worker=1, dashboard_address=None) as cluster, Client(cluster):
            yield
        return
    if not name.startswith(NEED_CLIENT):
        with dask.config.set(scheduler="threads", num_workers=workers), Callback(start=count.started):
            yield
        return
    from distributed import Client, LocalCluster, SchedulerPlugin

    class Watch(SchedulerPlugin):
        def update_graph(self, scheduler, *, tasks, **_):
            count.tasks += len(tasks)

    cluster = LocalCluster(n_workers=1, threads_per_worker=workers, processes=False, dashboard_address=None)
    with cluster, Client(cluster):
        cluster.scheduler.add_plugin(Watch())
        yield


def memory():
    """Resident memory now, and its peak since `forget`, MB."""
    told = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return tuple(int(told[key].split()[0]) * 1024 / 1e6 for key in ("VmRSS", "VmHWM"))


def forget():
    """Let the kernel count the peak from now on."""
    Path("/proc/self/clear_refs").write_text("5")


def run(job):
    name = job["contender"]
    way, count = WAYS[name], Count()
    fitted = Path(job["model"]).read_bytes()
    told = {}
    with scheduler(job, count):
        tiny = {**job, **job["tiny"], "out": job["out"] + "-tiny" + Path(job["out"]).suffix}
        way(tiny, pickle.loads(fitted))
        remove(tiny["out"])
        model = pickle.loads(fitted)
        del fitted
        gc.collect()
        count.tasks, told["start"] = 0, time.perf_counter() - START
        forget()
        base = memory()[0]
        wall, cpu = time.perf_counter(), time.process_time()
        way(job, model)
        told["wall"], told["cpu"] = time.perf_counter() - wall, time.process_time() - cpu
        told |= {"peak": memory()[1] - base, "base": base, "tasks": count.tasks}
    return told | gate(job) | {"versions": versions(name)}


def remove(path):
    if Path(path).is_dir():
        shutil.rmtree(path)
    else:
        Path(path).unlink(missing_ok=True)


def versions(name):
    from importlib.metadata import PackageNotFoundError, version

    own = next(package for key, package in PACKAGES.items() if name.startswith(key))
    found = {}
    for package in (own, "dask", "xarray", "zarr", "numpy", "scikit-learn", "xgboost", "xgboost-cpu"):
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


# ---- is the map right?


def gate(job):
    """The written map against what the library's own `predict` gives: gaps, values, dtype, CRS after the round trip."""
    import numpy as np

    soil, crs = read(job["out"])
    truth = np.tile(np.load(job["truth"]), (job.get("times", 1),) * 2)
    if soil.shape != truth.shape:
        return {"right": False, "gaps": -1, "difference": None, "dtype": str(soil.dtype), "crs": crs}
    known, there = np.isfinite(truth), np.isfinite(soil)
    both = known & there
    off = np.abs(soil[both].astype("f4") - truth[both]).max() if both.any() else np.nan
    wrong = int((known != there).sum())
    return {"right": wrong == 0 and bool(off <= 1e-5), "gaps": wrong, "difference": float(off)} | {
        "dtype": str(soil.dtype),
        "crs": crs,
    }


def read(path):
    """A map as any reader finds it, and what it tells of its CRS: "named" by the variable, "beside" it, or "lost"."""
    if Path(path).is_file():
        import rasterio

        with rasterio.open(path) as file:
            band = file.read(1, masked=True)
            return band.filled(float("nan")), "named" if file.crs and file.crs.to_epsg() == EPSG else "lost"
    import xarray as xr
    from pyproj import CRS

    store = xr.open_zarr(path)
    soil = store["soil_moisture"]
    said = soil.attrs.get("grid_mapping") or soil.encoding.get("grid_mapping")
    wkt = [v.attrs["crs_wkt"] for v in store.variables.values() if "crs_wkt" in v.attrs]
    is_ours = bool(wkt) and CRS.from_wkt(wkt[0]).to_epsg() == EPSG
    crs = "lost" if not is_ours else "named" if said in store.variables else "beside"
    return soil.transpose("y", "x").values, crs


def main():
    warnings.filterwarnings("ignore")
    sys.stdout, out = sys.stderr, sys.stdout
    job = json.loads(sys.argv[1])
    try:
        told = run(job)
    except Exception as error:  # a race goes on without those who fall
        text = " ".join(str(error).split())
        told = {"error": text if isinstance(error, Refused) else f"{type(error).__name__}: {text}"[:300]}
    finally:
        remove(job["out"])
        remove(job["out"] + ".partial")
    print(json.dumps(told), file=out, flush=True)
    os._exit(0)  # some peers leave threads that would not end


if __name__ == "__main__":
    main()
