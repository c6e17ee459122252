"""ERA5-Land 2-m temperature and precipitation, hourly, for Yanco 2015, through cdsapi (a Copernicus account is needed).

    pip install cdsapi
    python examples/get_data/era5_land.py FOLDER

Precipitation of ERA5-Land is accumulated from 00 UTC: the total of a day is the value at 00:00 of the next, so the map
day itself is fetched too. The seven days before each map day are what the paper's means are made of.
"""

import sys
from pathlib import Path

import cdsapi
import pandas as pd

AREA = [-34.5, 145.6, -35.6, 146.7]  # north, west, south, east, degrees
MAPS = ["2015-05-05", "2015-05-17", "2015-09-15", "2015-09-26"]

folder = Path(sys.argv[1])
folder.mkdir(parents=True, exist_ok=True)
days = pd.DatetimeIndex(sorted({day for d in MAPS for day in pd.date_range(pd.Timestamp(d) - pd.Timedelta(8, "D"), d)}))
client = cdsapi.Client()
for (year, month), part in days.to_series().groupby([days.year, days.month]):
    client.retrieve(
        "reanalysis-era5-land",
        {
            "variable": ["2m_temperature", "total_precipitation"],
            "year": str(year),
            "month": f"{month:02d}",
            "day": [f"{d:02d}" for d in part.dt.day],
            "time": [f"{h:02d}:00" for h in range(24)],
            "area": AREA,
            "data_format": "netcdf",
            "download_format": "unarchived",
        },
        str(folder / f"era5_land_{year}_{month:02d}.nc"),
    )
