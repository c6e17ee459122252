"""Opens files that were damaged by chance, in a process of its own: `python malformed.py FOLDER N`; a line each."""

import json
import random
import sys
import warnings
from pathlib import Path

import dask
import numpy as np
import products
import rasters
import xarray as xr

from smgrid import Grid, sources

RNG = np.random.default_rng(2)


def damage(data: bytes, draw: random.Random) -> bytes:
    """One way in which files break: bits, runs of zeros or ones, sizes gone mad, parts lost, moved or put in."""
    out, n = bytearray(data), len(data)
    at = draw.choice([draw.randrange(n), draw.randrange(min(n, 4096)), n - 1 - draw.randrange(min(n, 4096))])
    way = draw.choice(["bit", "bytes", "run", "size", "cut", "move", "grow", "head"])
    if way == "bit":
        out[at] ^= 1 << draw.randrange(8)
    elif way == "bytes":
        for k in range(at, min(n, at + 400), 13):
            out[k] = draw.randrange(256)
    elif way == "run":
        out[at : at + 200] = draw.choice([b"\0", b"\xff"]) * len(out[at : at + 200])
    elif way == "size":
        out[at : at + 4] = draw.choice([b"\xff\xff\xff\x7f", b"\xff\xff\xff\xff", b"\0\0\0\x80"])
    elif way == "cut":
        del out[at:]
    elif way == "move":
        part = out[(start := draw.randrange(n)) : start + 300]
        out[at : at + len(part)] = part
    elif way == "grow":
        out[at:at] = bytes(draw.randrange(256) for _ in range(40))
    else:
        out[: draw.randrange(1, 32)] = b"<html>"
    return bytes(out)


def whole(folder: Path) -> dict:
    """Whole files of every format, with the room that opens each."""
    products.write_all(folder)
    lat, lon = np.arange(-34, -36, -0.1), np.arange(145, 147, 0.1)
    field = xr.Dataset(
        {"ndvi": (("lat", "lon"), RNG.random((lat.size, lon.size)).astype("f4"), {"units": "1"})},
        {"lat": ("lat", lat, {"units": "degrees_north"}), "lon": ("lon", lon, {"units": "degrees_east"})},
    )
    field.to_netcdf(folder / "classic.nc", engine="netcdf4", format="NETCDF3_CLASSIC")
    field.to_netcdf(folder / "field.nc", engine="netcdf4", encoding={"ndvi": {"zlib": True, "chunksizes": (10, 10)}})
    lons, lats = Grid(9, 1274, 3489, 4, 4).lonlat()
    columns = {"latitude": np.repeat(lats, 4), "longitude": np.tile(lons, 4), "soil_moisture": RNG.uniform(0, 0.4, 16)}
    xr.Dataset({n: ("index", v) for n, v in columns.items()}).to_netcdf(folder / "SMAP_2020-01-31.nc", engine="netcdf4")
    rasters.write(folder / "lzw.tif", RNG.integers(0, 9000, (1, 90, 80)).astype("i2"), compress="lzw")

    def first(pattern):
        return sorted(folder.glob(pattern))[0]

    found = {
        first("smap/*.h5"): sources.smap.open,
        folder / "SMAP_2020-01-31.nc": sources.smap.open,
        first("era5/*.nc"): sources.era5.open,
        first("modis/*NDVI*.tif"): sources.modis.open,
        first("soilgrids/sand*.tif"): sources.soilgrids.open,
        first("dem/*.hgt"): sources.dem.open,
        first("sentinel1/*.tif"): sources.sentinel1.open,
        first("sentinel2/*.tif"): lambda path: sources.sentinel2.open(path, offset=0),
        folder / "field.nc": sources.raster.open,
        folder / "classic.nc": sources.raster.open,
        folder / "lzw.tif": lambda path: sources.raster.open(path, name="ndvi", units="0.0001"),
    }
    try:
        import test_modis

        path = folder / "MOD13Q1.A2015113.h29v12.061.hdf"
        found[test_modis.hdf4(path, test_modis.NDVI, test_modis.RANK, test_modis.DAY)] = sources.modis.open
    except ImportError:  # pyhdf is an extra
        pass
    return found


def main(folder: Path, times: int) -> None:
    warnings.simplefilter("ignore")
    dask.config.set(scheduler="sync")
    for path, room in whole(folder).items():
        data, draw = path.read_bytes(), random.Random(path.name)
        for k in range(times):
            place = folder / f"{path.name}.{k}"
            place.mkdir()
            bad = place / path.name
            bad.write_bytes(damage(data, draw))
            print(json.dumps({"opens": f"{k} {path.name}"}), flush=True)
            try:
                room(bad).load()
                said = {"read": True}
            except Exception as error:
                said = {"error": type(error).__name__, "says": str(error), "names": path.name in str(error)}
            print(json.dumps(said), flush=True)
            bad.unlink()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
