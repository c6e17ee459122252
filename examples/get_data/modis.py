"""MOD13Q1 and MYD13Q1 (NDVI, 250 m, 16 days) for Yanco 2015, through earthaccess (a NASA Earthdata login is needed).

    pip install earthaccess 'smgrid[modis]'
    python examples/get_data/modis.py FOLDER

Terra and Aqua composites are eight days apart; together, and at the day on which each pixel was seen, they are the
series that the spline goes through. A composite before and after each map day is enough.
"""

import sys
from pathlib import Path

import earthaccess

YANCO = (145.7, -35.5, 146.6, -34.6)  # west, south, east, north, degrees

folder = Path(sys.argv[1])
folder.mkdir(parents=True, exist_ok=True)
earthaccess.login()
for product in ("MOD13Q1", "MYD13Q1"):
    granules = earthaccess.search_data(
        short_name=product, version="061", temporal=("2015-04-01", "2015-11-01"), bounding_box=YANCO
    )
    earthaccess.download(granules, str(folder))
