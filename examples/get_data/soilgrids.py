"""SoilGrids 2.0 sand, clay and bulk density, 0-5 cm, for Yanco, as windows of the GeoTIFFs of ISRIC.

    python examples/get_data/soilgrids.py FOLDER

No account is needed. The window is cut in the product's own Homolosine projection and saved as it is: scaling and
averaging are done by `smgrid.sources.soilgrids.open` and `smgrid.to_grid`.
"""

import sys
from pathlib import Path

import rasterio
from rasterio.warp import transform_bounds
from rasterio.windows import Window, from_bounds

YANCO = (145.7, -35.5, 146.6, -34.6)  # west, south, east, north, degrees
SOURCE = "/vsicurl/https://files.isric.org/soilgrids/latest/data/{name}/{name}_0-5cm_mean.vrt"

folder = Path(sys.argv[1])
folder.mkdir(parents=True, exist_ok=True)
for name in ("sand", "clay", "bdod"):
    with rasterio.open(SOURCE.format(name=name)) as source:
        exact = from_bounds(*transform_bounds(4326, source.crs, *YANCO), source.transform)
        window = Window(int(exact.col_off) - 2, int(exact.row_off) - 2, int(exact.width) + 4, int(exact.height) + 4)
        profile = {
            **{key: source.profile[key] for key in ("crs", "dtype", "nodata", "count")},
            "driver": "GTiff",
            "compress": "deflate",
            "width": window.width,
            "height": window.height,
            "transform": source.window_transform(window),
        }
        with rasterio.open(folder / f"{name}_0-5cm_mean.tif", "w", **profile) as target:
            target.write(source.read(window=window))
