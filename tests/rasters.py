"""Small raster files for the tests of product rooms."""

import numpy as np
import rasterio
from affine import Affine

PLACE = {  # CRS -> upper left corner and pixel size, near Yanco
    "EPSG:4326": (146.0, -34.5, 1 / 3600),
    "EPSG:32755": (420000.0, 6150000.0, 10.0),
    "EPSG:6933": (14061073.0, -4167226.0, 100.0),
}


def write(path, bands, crs="EPSG:32755", *, names=(), nodata=None, corner=None, size=None, tags=None, **profile):
    """Write arrays (bands, y, x) as they are; returns the path."""
    bands = np.asarray(bands)
    bands = bands[None] if bands.ndim == 2 else bands
    left, top, usual = PLACE.get(crs, PLACE["EPSG:32755"])
    left, top = corner or (left, top)
    with rasterio.open(
        path,
        "w",
        **{
            "driver": "GTiff",
            "count": len(bands),
            "height": bands.shape[1],
            "width": bands.shape[2],
            "dtype": bands.dtype.name,
            "crs": crs,
            "transform": Affine(size or usual, 0, left, 0, -(size or usual), top),
            "nodata": nodata,
            **profile,
        },
    ) as out:
        out.write(bands)
        for k, name in enumerate(names, 1):
            out.set_band_description(k, name)
        out.update_tags(**(tags or {}))
    return path


def truncate(path, keep=0.6):
    """Cut the end off a file."""
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * keep)])
    return path


def plain(path):
    """A plain independent read: masked values as NaN, float64."""
    with rasterio.open(path) as src:
        return src.read(masked=True).astype("f8").filled(np.nan)
