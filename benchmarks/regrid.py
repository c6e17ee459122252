"""The race of to_grid against GDAL's average, exactextract and xarray-regrid, and its table.

    python benchmarks/regrid.py [docs/regrid.md]

Same synthetic scenes, in memory, one thread, runs interleaved, medians of CPU seconds. Peak memory is that of one call
in a process of its own, beyond the scene. exactextract and xarray-regrid take part where they are installed
(pip install exactextract xarray-regrid). Linux.

Takes 5 minutes; makes docs/regrid.md.
"""

# ruff: noqa: E402

import importlib.util
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "GDAL_NUM_THREADS"):
    os.environ[name] = "1"

import numpy as np
import xarray as xr
from pyproj import CRS, Transformer

from smgrid.clip import Clip
from smgrid.grid import Grid, latitude_of_y, longitude_of_x
from smgrid.mesh import Mesh
from smgrid.overlap import askew, locate
from smgrid.regrid import carry, to_grid

RUNS = 5
SINUSOIDAL = "+proj=sinu +R=6371007.181"
BANDS = 20  # rows of cells that exactextract is given; its time is scaled to all

# name: CRS, longitude and latitude of the middle, size of a pixel, pixels along a side
CASES = {
    "latitude/longitude, 1 arc-second": (4326, 146.5, -34.5, 1 / 3600, 10800),
    "latitude/longitude, 10 m": (4326, 145.5, -33.5, 8.983152841195215e-05, 10800),
    "UTM 10 m, on the axis": (32755, 147.0, -34.7, 10, 10980),
    "UTM 10 m, 1 degree off": (32755, 146.0, -34.7, 10, 10980),
    "UTM 10 m, 3 degrees off": (32755, 144.0, -34.7, 10, 10980),
    "UTM 10 m, 3 degrees off, 60 S": (32755, 144.0, -60.0, 10, 10980),
    "UTM 20 m, 1 degree off": (32755, 146.0, -34.7, 20, 5490),
    "UTM 50 m, 1 degree off": (32755, 146.0, -34.7, 50, 2196),
    "UTM 100 m, 1 degree off": (32755, 146.0, -34.7, 100, 1098),
    "sinusoidal 232 m (MODIS)": (SINUSOIDAL, 146.0, -34.7, 231.65635826385406, 2400),
}
# Of a way and a kind of case: how many times our CPU seconds it must take, or may take at least
ASKED = {"GDAL average": 2, "exactextract": 2.5, "xarray-regrid": 7}
ASKED_PEAK = 64  # MiB beyond the scene


def scene(n, seed=0):
    """A synthetic float32 scene: blobs of 256 and 32 pixels, texture, 30 % missing in blobs and single pixels."""
    rng = np.random.default_rng(seed)

    def blobs(size):
        return np.kron(rng.random((-(-n // size),) * 2, "f4"), np.ones((size, size), "f4"))[:n, :n]

    image = 100 * blobs(256)
    image += 50 * blobs(32)
    image += 20 * rng.random((n, n), "f4") + 300
    image[(blobs(64) < 0.25) | (rng.random((n, n), "f4") < 0.067)] = np.nan
    return image


def make(name, n=None):
    """The scene of a case, and the cells that it covers."""
    code, lon, lat, step, size = CASES[name]
    n = n or size
    crs = CRS.from_user_input(code)
    x0, y0 = Transformer.from_crs(4326, crs, always_xy=True).transform(lon, lat)
    y, x = (
        (round(y0 / step) + n // 2 - np.arange(n) - 0.5) * step,
        (round(x0 / step) - n // 2 + np.arange(n) + 0.5) * step,
    )
    field = xr.DataArray(scene(n), coords={"y": y, "x": x, "spatial_ref": ((), 0, crs.to_cf())}, dims=("y", "x"))
    to_degrees = Transformer.from_crs(crs, 4326, always_xy=True)
    rim = np.linspace(0, n - 1, 50).astype(int)
    lons, lats = to_degrees.transform(*np.meshgrid(x[rim], y[rim]))
    return field, Grid.around((lons.min(), lats.min(), lons.max(), lats.max()))


# ---- the ways


def gdal(field, grid):
    from rasterio.transform import Affine
    from rasterio.warp import Resampling, reproject

    step = (float(field.x[-1]) - float(field.x[0])) / (field.sizes["x"] - 1)
    out = np.full(grid.shape, np.nan, "f4")
    corner = float(field.x[0]) - step / 2, float(field.y[0]) + step / 2
    reproject(
        field.values,
        out,
        src_transform=Affine(step, 0, corner[0], 0, -step, corner[1]),
        src_crs=field.spatial_ref.attrs["crs_wkt"],
        src_nodata=np.nan,
        dst_transform=grid.transform,
        dst_crs="EPSG:6933",
        dst_nodata=np.nan,
        resampling=Resampling.average,
        num_threads=1,
    )
    return out


def extract(field, grid):
    """Some rows of cells as boxes of degrees; gives the seconds of the mean alone, scaled to all rows, and the rows."""
    from exactextract import exact_extract
    from exactextract.raster import NumPyRasterSource

    west, _, _, north = grid.bounds
    lon = longitude_of_x(west + grid.cell * np.arange(grid.nx + 1))
    first = grid.ny // 2 - BANDS // 2
    lat = latitude_of_y(north - grid.cell * np.arange(first, first + BANDS + 1))
    boxes = [
        [[lon[c], lat[r]], [lon[c + 1], lat[r]], [lon[c + 1], lat[r + 1]], [lon[c], lat[r + 1]], [lon[c], lat[r]]]
        for r in range(BANDS)
        for c in range(grid.nx)
    ]
    cells = [
        {"type": "Feature", "properties": {}, "geometry": {"type": "Polygon", "coordinates": [box]}} for box in boxes
    ]
    y, x = field.y.values, field.x.values
    half = (x[1] - x[0]) / 2
    source = NumPyRasterSource(
        field.values, xmin=x[0] - half, ymin=y[-1] - half, xmax=x[-1] + half, ymax=y[0] + half, nodata=None
    )
    start = time.process_time()
    found = exact_extract(source, cells, "mean")
    took = time.process_time() - start
    out = np.full(grid.shape, np.nan)
    out[first : first + BANDS] = np.reshape([f["properties"]["mean"] for f in found], (BANDS, -1)).astype("f8")
    return out, took / BANDS * grid.ny


def conservative(field, grid):
    import xarray_regrid  # noqa: F401

    lon, lat = grid.lonlat()
    source = xr.DataArray(
        field.values[::-1], coords={"lat": field.y.values[::-1], "lon": field.x.values}, dims=("lat", "lon")
    )
    target = xr.Dataset(coords={"lat": lat[::-1], "lon": lon})
    out = source.regrid.conservative(target, latitude_coord="lat", skipna=True, nan_threshold=1.0)
    return out.transpose("lat", "lon").values[::-1]


def ours(field, grid):
    return to_grid(field, grid).values


WAYS = {"to_grid": ours, "GDAL average": gdal, "exactextract": extract, "xarray-regrid": conservative}
MODULES = {"exactextract": "exactextract", "xarray-regrid": "xarray_regrid"}


def ways(name):
    """Who takes part in a case."""
    here = [way for way in WAYS if way not in MODULES or importlib.util.find_spec(MODULES[way])]
    return here if name.startswith("latitude") else here[:2]


# ---- the measures


def clock(way, *args):
    """The answer and its CPU seconds."""
    start = time.process_time()
    out = WAYS[way](*args)
    took = time.process_time() - start
    return out if way == "exactextract" else (out, took)


def truth(field, grid):
    """Exact means in float64, and a window of the cells that they are of: all, or some in the middle."""
    if askew(field) is None:
        exact = carry(field, grid, locate(field, grid), how="mean", min_coverage=0.5, dtype="float64")
        return exact.values, (slice(2, -2), slice(2, -2))
    mesh = Mesh.of(field, askew(field), grid)
    half = min(int(np.clip(600 * mesh.side, 6, 60)), *(n // 2 for n in grid.shape))
    part = tuple(slice(n // 2 - half, n // 2 + half) for n in grid.shape)
    window = mesh.window(*part)
    total, known = Clip(mesh, window).sums(field.values[window.rows, window.cols])
    exact = np.full(grid.shape, np.nan)
    exact[part] = np.where(known >= 0.5, total / np.where(known > 0, known, 1), np.nan)
    return exact, part


def resident(which):
    """MiB in memory, now (VmRSS) or at most since last cleared (VmHWM)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(which)) / 1024


def peak(name, way):
    """MiB beyond the scene that one call takes at most (in this process, which has done nothing else)."""
    field, grid = make(name)
    small = field[:300, :300]
    WAYS[way](small, Grid(1, grid.row + BANDS, grid.col, 2 * BANDS, 3) if way == "exactextract" else grid)
    Path("/proc/self/clear_refs").write_text("5")
    before = resident("VmRSS")
    WAYS[way](field, grid)
    return resident("VmHWM") - before


def peak_elsewhere(name, way):
    asked = [sys.executable, __file__, "--peak", name, way]
    return float(subprocess.run(asked, capture_output=True, text=True, check=True).stdout)


def race(name):
    field, grid = make(name)
    took = {way: [] for way in ways(name)}
    found = {}
    for way in took:  # imports, caches
        WAYS[way](field[:400, :400], Grid(1, grid.row, grid.col, 3 * BANDS, 3) if way == "exactextract" else grid)
    for _ in range(RUNS):
        for way in took:
            found[way], seconds = clock(way, field, grid)
            took[way].append(seconds)
    exact, part = truth(field, grid)
    results = {}
    for way, seconds in took.items():
        gap = np.abs(found[way] - exact)[part]
        results[way] = {
            "seconds": seconds,
            "rms": float(np.sqrt(np.nanmean(gap**2))),
            "max": float(np.nanmax(gap)),
            "peak": peak_elsewhere(name, way),
        }
    return {"cells": grid.ny * grid.nx, "pixels": field.size, "sd": float(np.nanstd(exact)), "ways": results}


# ---- the table

HEAD = """# to_grid: the race

Made by `python benchmarks/regrid.py docs/regrid.md`; {machine}; {versions}.

Synthetic float32 scenes in memory (blobs of 256 and 32 pixels, texture, 30 % missing; values 300 to 470), carried to
the 1-km EASE-Grid 2.0. One thread; medians of {runs} interleaved runs, least and most in brackets. **CPU seconds on a
machine that other work shares: take ratios, and those to a tenth or so.** Peak: MiB that one call in a process of its
own takes beyond the scene. Error: distance to exact weights in units of the scene, root mean square and largest.
{missing}
What is asked. On latitudes and longitudes: GDAL takes 2 x the CPU time of to_grid, exactextract 2.5 x, xarray-regrid
7 x, and the peak is at most 64 MiB beyond the source's window. On UTM at 10 m, 1 degree off the axis: a tenth of GDAL's
error in twice its time.
"""

NOTES = """
## Reading it

- On latitudes and longitudes the exact mean is our own in float64, which tests hold to polygons within 1e-12; what
  is left of to_grid is the rounding to float32. The others' errors come from areas taken in degrees, or from boxes of
  whole pixels. exactextract is given {bands} rows of cells, and its time is scaled to all of them; making its polygons
  is not counted, and its peak is that of those rows.
- On other projections the exact mean is that of polygons, over 12 x 12 to 120 x 120 cells in the middle of the scene.
  GDAL averages the box that holds the cell, which is turned against the pixels: off the axis it takes in the
  neighbours' land. On the axis nothing is turned, and GDAL is as near as it needs to be: there to_grid buys nothing.
- **Losses.** On UTM to_grid takes longer than GDAL, the more the coarser the pixels are (its work goes by the cells'
  borders, GDAL's by the pixels), and more memory. Pixels coarser than a twentieth of a cell are cut as polygons,
  exactly, at tens of times GDAL's time: 0.3 to 0.5 s for a million pixels. For a stack of maps in memory the geometry
  is done once.
"""


def rows(name, result):
    mine = result["ways"]["to_grid"]
    mid = float(np.median(mine["seconds"]))
    separable = name.startswith("latitude")
    lines = []
    for way, r in result["ways"].items():
        seconds = np.median(r["seconds"])
        ratio, error, asked = "", "", ""
        if way != "to_grid":
            ratio, error = f"{seconds / mid:.2f}", f"{r['rms'] / mine['rms']:.0f}"
            if separable:
                asked = f"time x {ASKED[way]:g}: {'reached' if seconds / mid >= ASKED[way] else 'MISSED'}"
            elif name == "UTM 10 m, 1 degree off":
                well = seconds / mid >= 0.5 and r["rms"] / mine["rms"] >= 10
                asked = f"time x 0.5, error x 10: {'reached' if well else 'MISSED'}"
        elif separable:
            asked = f"peak {ASKED_PEAK} MiB: {'reached' if r['peak'] <= ASKED_PEAK else 'MISSED'}"
        span = f"{seconds:.2f} ({min(r['seconds']):.2f}-{max(r['seconds']):.2f})"
        lines.append(
            f"| {way} | {span} | {ratio} | {error} | {r['peak']:.0f} | {r['rms']:.1e} | {r['max']:.1e} | {asked} |"
        )
    return lines


def report(results):
    from importlib.metadata import version

    names = ["numpy", "scipy", "rasterio", "pyproj", "exactextract", "xarray-regrid"]
    absent = [name for name in MODULES if not importlib.util.find_spec(MODULES[name])]
    versions = ", ".join(f"{name} {version(name)}" for name in names if name not in absent)
    import rasterio

    text = HEAD.format(
        machine=f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}",
        versions=f"{versions}, GDAL {rasterio.__gdal_version__}",
        runs=RUNS,
        missing=f"\n**Not installed, and so not in the race: {', '.join(absent)}.**\n" if absent else "",
    )
    for name, result in results.items():
        text += f"\n## {name}\n\n{result['pixels'] / 1e6:.1f} million pixels to {result['cells']} cells"
        text += f" (sd between cells {result['sd']:.1f}).\n\n"
        text += (
            "| way | CPU s | time / ours | error / ours | peak, MiB | rms error | largest | asked |\n"
            + "|---" * 8
            + "|\n"
        )
        text += "\n".join(rows(name, result)) + "\n"
    return text + NOTES.format(bands=BANDS)


def main(path=None, *names):
    for name, module in MODULES.items():
        if not importlib.util.find_spec(module):
            print(f"{name} is not installed: left out (pip install {name})")
    results = {}
    for name in names or CASES:
        results[name] = race(name)
        print(name, json.dumps(results[name], default=float))
    if path:
        Path(path).write_text(report(results))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--peak"]:
        print(peak(*sys.argv[2:]))
    else:
        main(*sys.argv[1:])
