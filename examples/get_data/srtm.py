"""SRTM elevation, one arc second, for Yanco, through earthaccess (a NASA Earthdata login is needed).

    pip install earthaccess
    python examples/get_data/srtm.py FOLDER

Tiles come zipped, one `.hgt` file in each; `smgrid.sources.dem.open` lays them together before it takes slopes.
"""

import sys
import zipfile
from pathlib import Path

import earthaccess

YANCO = (145.7, -35.5, 146.6, -34.6)  # west, south, east, north, degrees

folder = Path(sys.argv[1])
folder.mkdir(parents=True, exist_ok=True)
earthaccess.login()
tiles = earthaccess.search_data(short_name="SRTMGL1", version="003", bounding_box=YANCO)
for path in map(Path, earthaccess.download(tiles, str(folder))):
    with zipfile.ZipFile(path) as archive:
        (name,) = [n for n in archive.namelist() if n.lower().endswith(".hgt")]
        (folder / Path(name).name).write_bytes(archive.read(name))
