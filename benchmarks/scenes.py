"""Synthetic scenes and models that the race and the growth curves run on; made once in a folder, found again later.

    python -m benchmarks.scenes FOLDER [--side 1000]

Takes a minute for 25 x 1000 x 1000 cells and six models; publishes nothing.

A scene has 25 predictors (float32, 0..1) on a window of the 1-km EASE-Grid 2.0. They are smooth fields of 2 to 64 cells
with a little noise; every fifth is constant over 9 x 9 cells, as SMAP is; 30 % of the cells are missing, in patches. A map
is like that: neighbours take the same way through a tree. Random rows would tell of another problem.
"""

import argparse
import pickle
import warnings
from pathlib import Path

import numpy as np

BANDS = [f"p{k:02d}" for k in range(1, 26)]
CHUNK = 500
MODELS = ("xgb-100x3", "xgb-300x5", "rf-10x10", "rf-100x20", "svr-small", "mlp-2x64")
LAYOUTS = ("packed", "separate")
CODECS = ("lz4", "zstd", "none")


# ---- scenes


def fields(side, seed=0):
    """The predictors one after the other, each (side, side), float32."""
    rng = np.random.default_rng(seed)
    gap = _smooth(rng, side, 40)
    gap = gap < np.quantile(gap, 0.30)
    for k in range(len(BANDS)):
        z = _smooth(rng, side, (2, 4, 8, 16, 32, 64)[k % 6])
        z += 0.15 * rng.standard_normal(z.shape, "f4")
        if k % 5 == 4:
            z = np.repeat(np.repeat(z[::9, ::9], 9, 0), 9, 1)[:side, :side]
        z = np.round(4000 / (1 + np.exp(-z))) / 4000  # stored products are quantised too
        z[gap] = np.nan
        yield z.astype("f4")


def _smooth(rng, side, cells):
    """White noise on a mesh of `cells`, laid over the scene by bilinear weights, unit variance."""
    n = side // cells + 3
    mesh = rng.standard_normal((n, n), "f4")
    at = np.arange(side, dtype="f4") / cells
    i, w = at.astype(int), at % 1
    rows = mesh[i] * (1 - w)[:, None] + mesh[i + 1] * w[:, None]
    z = rows[:, i] * (1 - w) + rows[:, i + 1] * w
    return (z / z.std()).astype("f4")


def scene(folder, side, layout="packed", codec="lz4", chunk=CHUNK, times=1):
    """Path of a scene as a Zarr store, written first where it is not there; `times` lays it side by side (times x times)."""
    path = Path(folder) / f"scene-{side}x{times}-{layout}-{codec}-{chunk}.zarr"
    if not path.exists():
        _write(path, side, layout, codec, chunk, times)
    return path


def _write(path, side, layout, codec, chunk, times):
    import dask
    import dask.array as da
    import xarray as xr

    import smgrid

    whole = smgrid.Grid.whole(1)
    n = side * times
    grid = smgrid.Grid(1, (whole.ny - n) // 2, (whole.nx - n) // 2, n, n)
    bands = np.stack(list(fields(side)))
    laid = da.tile(da.from_array(bands, chunks=(len(BANDS), chunk, chunk)), (1, times, times))
    note = {"source": "synthetic", "units": "1"}
    if layout == "packed":
        # as pack_cube lays them
        told = {"predictors": BANDS, "predictor_attributes": dict.fromkeys(BANDS, note), **note}
        cube = xr.Dataset({"static": (("static_predictor", "y", "x"), laid, told)}, coords=grid.coords())
    else:
        cube = xr.Dataset({b: (("y", "x"), laid[k], note) for k, b in enumerate(BANDS)}, coords=grid.coords())
    for variable in cube.data_vars.values():
        shape = (len(BANDS), chunk, chunk)[-variable.ndim :]
        variable.encoding = {"compressors": _codec(codec), "chunks": shape, "grid_mapping": "spatial_ref"}
    partial = path.with_suffix(".partial")
    with dask.config.set(scheduler="threads"), warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # names of bands as fixed-length text, consolidated metadata: read back by the same zarr
        cube.to_zarr(partial, mode="w", consolidated=True)
    partial.rename(path)


def _codec(name):
    from zarr.codecs import BloscCodec, ZstdCodec

    return {"lz4": (BloscCodec(cname="lz4", shuffle="shuffle"),), "zstd": (ZstdCodec(level=3),), "none": ()}[name]


def geotiff(folder, side):
    """Path of the scene as a tiled GeoTIFF, for what reads rasters only."""
    import rasterio

    path = Path(folder) / f"scene-{side}.tif"
    if not path.exists():
        import smgrid

        whole = smgrid.Grid.whole(1)
        grid = smgrid.Grid(1, (whole.ny - side) // 2, (whole.nx - side) // 2, side, side)
        how = dict(driver="GTiff", count=len(BANDS), height=side, width=side, dtype="float32", nodata=np.nan)
        how |= dict(crs=grid.crs, transform=grid.transform, compress="zstd", interleave="band", bigtiff="yes")
        partial = path.with_suffix(".partial")
        with rasterio.open(partial, "w", tiled=True, blockxsize=256, blockysize=256, **how) as out:
            for k, (name, z) in enumerate(zip(BANDS, fields(side)), 1):
                out.write(z, k)
                out.set_band_description(k, name)
        partial.rename(path)
    return path


# ---- models


def training(n=10_000):
    """Rows (n, 25) of another synthetic scene and their soil moisture."""
    z = np.stack(list(fields(1000, seed=7))).reshape(len(BANDS), -1)
    rng = np.random.default_rng(99)
    known = np.flatnonzero(np.isfinite(z[0]))
    rows = np.ascontiguousarray(z[:, rng.choice(known, n, replace=False)].T)
    x = rows.astype("f8") - 0.5
    soil = 0.25 + 0.08 * np.sin(5 * x[:, 0] * x[:, 1]) + 0.1 * x[:, 2] * (x[:, 3] > 0)
    soil += 0.05 * np.tanh(4 * (x[:, 4] - x[:, 5])) + 0.03 * (x * np.linspace(1, 0.1, len(BANDS))).sum(1)
    return rows, np.clip(soil + 0.03 * rng.standard_normal(n), 0.02, 0.6)


def make(name):
    """An unfitted regressor (xgb- or rf-TREESxDEPTH, svr-small or -ROWS, mlp-LAYERSxWIDTH) and its training rows."""
    kind, size = name.split("-")
    if kind == "svr":
        from sklearn.svm import SVR

        return SVR(C=1.0, epsilon=0.02), 1500 if size == "small" else int(size)
    first, second = map(int, size.split("x"))
    if kind == "xgb":
        from xgboost import XGBRegressor

        return XGBRegressor(n_estimators=first, max_depth=second, learning_rate=0.1, random_state=0), 10_000
    if kind == "rf":
        from sklearn.ensemble import RandomForestRegressor

        return RandomForestRegressor(first, max_depth=second, random_state=0), 10_000
    from sklearn.neural_network import MLPRegressor

    return MLPRegressor(hidden_layer_sizes=(second,) * first, max_iter=12, random_state=0), 10_000


def model(folder, name):
    """Path of the fitted regressor, pickled (made here and read here only)."""
    path = Path(folder) / f"model-{name}.pickle"
    if not path.exists():
        regressor, n = make(name)
        rows, soil = training(n)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a network that is stopped early costs the same to apply
            regressor.fit(rows, soil)
        partial = path.with_suffix(".partial")
        partial.write_bytes(pickle.dumps(regressor))
        partial.rename(path)
    return path


def truth(folder, side, name):
    """Path of what the library's own `predict` gives for every whole cell, float32; NaN elsewhere."""
    path = Path(folder) / f"truth-{side}-{name}.npy"
    if not path.exists():
        regressor = pickle.loads(model(folder, name).read_bytes())
        if hasattr(regressor, "n_jobs"):
            regressor.n_jobs = -1
        z = np.stack(list(fields(side))).reshape(len(BANDS), -1)
        soil = np.full(z.shape[1], np.nan, "f4")
        known = np.flatnonzero(np.isfinite(z).all(axis=0))
        for part in np.array_split(known, max(1, len(known) // 200_000)):
            soil[part] = regressor.predict(np.ascontiguousarray(z[:, part].T))
        partial = path.with_suffix(".partial.npy")
        np.save(partial, soil.reshape(side, side))
        partial.rename(path)
    return path


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--side", type=int, default=1000)
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    for layout in LAYOUTS:
        for codec in ("lz4", "zstd"):
            print(scene(args.folder, args.side, layout, codec))
    for name in MODELS:
        print(truth(args.folder, args.side, name))


if __name__ == "__main__":
    main()
