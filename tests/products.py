"""Small synthetic files of seven products around one window, written to the true structure of each."""

import h5py
import netCDF4
import numpy as np
import pandas as pd
from pyproj import CRS, Transformer
from rasters import write

from smgrid import Grid

GRID = Grid(1, 11466, 31401, 21, 25)
UTM = "EPSG:32755"
SINUSOIDAL = CRS.from_proj4("+proj=sinu +lon_0=0 +R=6371007.181 +units=m +no_defs").to_wkt()
HOMOLOSINE = CRS.from_proj4("+proj=igh +lon_0=0 +datum=WGS84 +units=m +no_defs").to_wkt()
RNG = np.random.default_rng(11)


def frame(crs, size, margin=4):
    """Upper left corner and shape of a raster that covers the window and `margin` pixels more."""
    west, south, east, north = GRID.bounds
    xs, ys = np.meshgrid(np.linspace(west, east, 30), np.linspace(south, north, 30))
    x, y = Transformer.from_crs("EPSG:6933", crs, always_xy=True).transform(xs, ys)
    left, top = (np.floor(x.min() / size) - margin) * size, (np.ceil(y.max() / size) + margin) * size
    return (left, top), (int((top - y.min()) / size) + margin, int((x.max() - left) / size) + margin)


def smap(folder, days):
    """SPL3SMP_E granules: every second day an overpass."""
    coarse = GRID.coarsen(9)
    rows, cols = slice(coarse.row - 8, coarse.row + 12), slice(coarse.col - 8, coarse.col + 12)
    for day in days:
        path = folder / f"SMAP_L3_SM_P_E_{day:%Y%m%d}_R18290_001.h5"
        with h5py.File(path, "w") as file:
            file.create_group("Metadata/SeriesIdentification").attrs["ECSVersionID"] = "005"
            file.create_group("Metadata/Extent").attrs["rangeBeginningDateTime"] = f"{day:%Y-%m-%d}T00:00:00.000Z"
            soil, flag, seen = np.full((1624, 3856), -9999, "f4"), np.full((1624, 3856), 65534, "u2"), None
            soil[rows, cols], flag[rows, cols] = RNG.uniform(0.05, 0.4, (20, 20)), 0
            seen = np.where(flag == 0, (day - pd.Timestamp("2000-01-01 12:00")).total_seconds() + 72000.0, -9999.0)
            group = file.create_group("Soil_Moisture_Retrieval_Data_AM")
            for name, layer, fill in (
                ("soil_moisture", soil, np.float32(-9999)),
                ("retrieval_qual_flag", flag, np.uint16(65534)),
                ("tb_time_seconds", seen, -9999.0),
            ):
                stored = group.create_dataset(name, data=layer, chunks=(203, 241), compression=1)
                stored.attrs["_FillValue"] = fill
            group["soil_moisture"].attrs["units"] = "cm**3/cm**3"


def era5(folder, first, days):
    """One file of ERA5-Land: hourly temperature, and rain accumulated since 00 UTC."""
    lat, lon = np.round(np.arange(-34.3, -35.25, -0.1), 1), np.round(np.arange(145.4, 146.35, 0.1), 1)
    time = pd.date_range(first, periods=24 * days + 1, freq="h")
    rain = RNG.gamma(0.5, 1e-3, (days, 24, lat.size, lon.size)).cumsum(1).reshape(-1, lat.size, lon.size)
    with netCDF4.Dataset(folder / "era5_land_2015_05.nc", "w") as file:
        for name, values in (("valid_time", time), ("latitude", lat), ("longitude", lon)):
            file.createDimension(name, len(values))
            units = {"latitude": "degrees_north", "longitude": "degrees_east"}.get(name, "seconds since 1970-01-01")
            axis = file.createVariable(name, "i8" if name == "valid_time" else "f8", (name,))
            axis.units, axis.standard_name = units, name.removeprefix("valid_")
            axis[:] = time.as_unit("s").asi8 if name == "valid_time" else values
        for name, units, values in (
            ("t2m", "K", 285 + 8 * RNG.random((len(time), lat.size, lon.size))),
            ("tp", "m", np.concatenate([np.full((1, lat.size, lon.size), 0.004), rain])),
        ):
            layer = file.createVariable(name, "f4", ("valid_time", "latitude", "longitude"), zlib=True)
            layer.units, layer[:] = units, values


def modis(folder, starts):
    """Clips of MOD13Q1 and MYD13Q1 in the sinusoidal projection: NDVI, reliability, day of the composite."""
    size = 231.65635826395825
    corner, shape = frame(SINUSOIDAL, size)
    for start in starts:
        product = "MOD13Q1" if (start.day_of_year - 1) % 16 == 0 else "MYD13Q1"
        rank = RNG.choice(4, shape, p=(0.7, 0.2, 0.05, 0.05)).astype("i1")
        day = (start.day_of_year + RNG.integers(0, 16, shape)).astype("i2")
        for layer, values, fill in (
            ("NDVI", RNG.integers(1500, 6500, shape, "i2"), -3000),
            ("pixel_reliability", rank, -1),
            ("composite_day_of_the_year", day, -1),
        ):
            path = folder / f"{product}.061__250m_16_days_{layer}_doy{start:%Y%j}_aid0001.tif"
            write(path, values, SINUSOIDAL, corner=corner, size=size, nodata=fill)


def soilgrids(folder):
    """Maps of SoilGrids 2.0 in the Homolosine projection."""
    corner, shape = frame(HOMOLOSINE, 250.0)
    for name, low, high in (("sand", 250, 600), ("clay", 150, 400), ("bdod", 125, 160)):
        path = folder / f"{name}_0-5cm_mean.tif"
        write(path, RNG.integers(low, high, shape, "i2"), HOMOLOSINE, corner=corner, size=250.0, nodata=-32768)


def dem(folder):
    """An SRTM tile of 3 arc seconds: big-endian heights, a void among them."""
    y, x = np.mgrid[:1201, :1201]
    heights = (140 + 8 * np.sin(x / 40) + 5 * np.cos(y / 25) + RNG.integers(-1, 2, x.shape)).astype(">i2")
    heights[900, 1000] = -32768
    (folder / "S35E145.hgt").write_bytes(heights.tobytes())


def sentinel1(folder, days):
    """Earth Engine exports: VV, VH (dB) and angle, a part of the scene outside the swath."""
    corner, shape = frame(UTM, 100.0)
    for day in days:
        bands = [RNG.normal(-11, 2, shape), RNG.normal(-18, 2, shape), RNG.uniform(34, 39, shape)]
        bands = np.array(bands, "f4")
        bands[:, :, :20] = np.nan
        write(
            folder / f"S1A_{day:%Y%m%dT193156}.tif", bands, UTM, names=("VV", "VH", "angle"), corner=corner, size=100.0
        )


def sentinel2(folder, days):
    """Exports of L2A: six bands of integers and the scene classification."""
    corner, shape = frame(UTM, 200.0)
    names = ("B2", "B3", "B4", "B8", "B11", "B12", "SCL")
    for day in days:
        bands = RNG.integers(300, 3000, (7, *shape), "u2")
        bands[6] = RNG.choice([4, 5, 9], shape, p=(0.6, 0.3, 0.1))
        write(folder / f"S2A_{day:%Y%m%d}.tif", bands, UTM, names=names, corner=corner, size=200.0, nodata=0)


def write_all(folder):
    """All seven products, each in a folder of its name."""
    for name in ("smap", "era5", "modis", "soilgrids", "dem", "sentinel1", "sentinel2"):
        (folder / name).mkdir()
    smap(folder / "smap", pd.date_range("2015-05-03", periods=8, freq="2D"))
    era5(folder / "era5", "2015-04-27", 20)
    modis(folder / "modis", pd.date_range("2015-04-07", periods=6, freq="8D"))
    soilgrids(folder / "soilgrids")
    dem(folder / "dem")
    sentinel1(folder / "sentinel1", pd.to_datetime(["2015-05-05", "2015-05-17"]))
    sentinel2(folder / "sentinel2", pd.to_datetime(["2017-02-01", "2017-06-01", "2017-10-01"]))
