"""Sentinel-1 backscatter and Sentinel-2 reflectance for Yanco through Earth Engine (an account is needed).

    pip install earthengine-api
    python examples/get_data/sentinel.py PROJECT

Earth Engine accepts EPSG:6933 by name but has failed to read pixels in it, so the CRS travels as WKT together with an
explicit transform: 10-m cells that nest 100 to a side in the cells of the 1-km grid. `smgrid.to_grid` then averages
whole pixels. The exports arrive in the Drive folder `smgrid` as GeoTIFFs with named bands.

No Sentinel-2 was in orbit in May 2015, and surface reflectance is complete from 2017 only, so the one-year composite is
taken from a declared substitute period; write it into the cube's recipe as `period`.
"""

import sys

import ee

from smgrid import YANCO

SUBSTITUTE = ("2017-04-01", "2018-04-01")
DAYS = ["2015-05-05", "2015-05-17", "2015-09-15", "2015-09-26"]  # UTC; a local morning is the UTC day before

ee.Initialize(project=sys.argv[1])
fine = YANCO.refine(100)
west, south, east, north = fine.bounds
(lon0, lon1), (lat1, lat0) = (axis[[0, -1]] for axis in YANCO.lonlat())
area = ee.Geometry.Rectangle([lon0 - 0.02, lat0 - 0.02, lon1 + 0.02, lat1 + 0.02], "EPSG:4326", False)
GRID = {
    "crs": fine.crs.to_wkt(),
    "crsTransform": [fine.cell, 0, west, 0, -fine.cell, north],
    "dimensions": f"{fine.nx}x{fine.ny}",
    "maxPixels": 1e10,
    "folder": "smgrid",
    "fileFormat": "GeoTIFF",
}


def start(image, name):
    """Begin one export; Earth Engine carries on by itself."""
    ee.batch.Export.image.toDrive(image=image.toFloat(), description=name, fileNamePrefix=name, **GRID).start()
    print("exporting", name)


for day in DAYS:
    near = ee.Date(day)
    passes = (
        ee.ImageCollection("COPERNICUS/S1_GRD")
        .filterBounds(area)
        .filterDate(near.advance(-1, "day"), near.advance(1, "day"))  # 14 September UTC is the 15th in Yanco
        .filter(ee.Filter.eq("instrumentMode", "IW"))
        .filter(ee.Filter.listContains("transmitterReceiverPolarisation", "VH"))
    )
    start(passes.select(["VV", "VH", "angle"]).mosaic(), f"S1_{day.replace('-', '')}")

clear = (
    ee.ImageCollection("COPERNICUS/S2_SR_HARMONIZED")
    .filterBounds(area)
    .filterDate(*SUBSTITUTE)
    .map(lambda image: image.updateMask(image.select("SCL").remap([4, 5, 6, 7], [1, 1, 1, 1], 0)))
)
bands = ["B2", "B3", "B4", "B8", "B11", "B12"]
start(clear.select(bands).median().divide(10000), f"S2_median_{SUBSTITUTE[0][:4]}")
