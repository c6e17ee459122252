"""SMAP L3 enhanced, 9 km, for Yanco 2015, through earthaccess (a NASA Earthdata login is needed).

    pip install earthaccess
    python examples/get_data/smap.py FOLDER

Granules are whole globes of some 300 MB; `smgrid.sources.smap.open` reads only the window that is asked for. Overpasses
around the first and last map day are fetched too, since SMAP sees a place on two or three of eight days.
"""

import sys
from pathlib import Path

import earthaccess

YANCO = (145.7, -35.5, 146.6, -34.6)  # west, south, east, north, degrees
PERIODS = [("2015-04-25", "2015-05-27"), ("2015-09-05", "2015-10-06")]

folder = Path(sys.argv[1])
folder.mkdir(parents=True, exist_ok=True)
earthaccess.login()
for period in PERIODS:
    granules = earthaccess.search_data(short_name="SPL3SMP_E", temporal=period, bounding_box=YANCO)
    earthaccess.download(granules, str(folder))
