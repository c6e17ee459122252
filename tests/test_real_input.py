"""The main job on data that nobody here made: real samples, a real Sentinel-1 export, maps on the 50-m child grid."""

import numpy as np
import pandas as pd
import pytest
import rasterio
import rioxarray
import xarray as xr

import smgrid

FEATURES = ["vv", "vh", "incidence_angle", "day_of_year", "latitude", "longitude"]
NAMES = {"VV": "vv", "VH": "vh", "angle": "incidence_angle", "InSituSM": "soil_moisture", "StartDate": "time"}


@pytest.mark.shared
def test_a_sentinel1_export_becomes_a_map(shared, tmp_path):
    samples = pd.read_csv(shared / "samples_us_10day_s1_s2_smap" / "samples_dev.csv").rename(columns=NAMES)
    samples["time"] = pd.to_datetime(samples.time)
    model = smgrid.train(samples, smgrid.make_regressor("rf"), features=FEATURES)
    assert model.training["rows"] > 5000 and model.training["stations"] > 60

    export = shared / "sentinel1_gee_export" / "FrankFort_Lexington_MultiBand_2024.tif"
    with rioxarray.open_rasterio(export, chunks=64) as raster:
        bands = raster.assign_coords(band=list(raster.attrs["long_name"])).to_dataset("band")
        cube = bands[["VV", "VH", "angle"]].rename(VV="vv", VH="vh", angle="incidence_angle")
        for name in cube.data_vars:
            cube[name].attrs = {"units": smgrid.PAPER[name].units}
        grid = smgrid.Grid.around(raster.rio.bounds(), km=0.05)
        cube = smgrid.to_grid(cube, grid).assign_coords(time=np.datetime64("2024-06-05", "ns"))
        maps = smgrid.predict_map(cube, model, layers=("soil_moisture", "status", "culprit"))
        assert maps.soil_moisture.chunks is not None
        smgrid.write_zarr(maps, tmp_path / "lexington.zarr", progress=False)
        (tif,) = np.atleast_1d(smgrid.write_geotiff(maps, tmp_path / "lexington.tif"))
        whole, cube = maps.compute(), cube.compute()

    back = smgrid.open_maps(tmp_path / "lexington.zarr").load()
    xr.testing.assert_equal(back[list(whole)], whole)
    assert smgrid.Grid.of(back) == grid
    with rasterio.open(tif) as cog:
        assert cog.crs.to_epsg() == 6933 and cog.descriptions == tuple(whole.data_vars)
        assert cog.transform.almost_equals(grid.transform, 1e-6)
        for k, name in enumerate(whole.data_vars, start=1):
            np.testing.assert_array_equal(cog.read(k), whole[name].values.astype("f4"))

    # every cell is what the model says of the row that the cube holds there
    lon, lat = grid.lonlat()
    rows = cube.to_dataframe().reset_index()
    rows["latitude"], rows["longitude"] = np.repeat(lat, grid.nx), np.tile(lon, grid.ny)
    np.testing.assert_array_equal(whole.soil_moisture.values.ravel(), model.predict(rows))
    seen = np.isfinite(whole.soil_moisture)
    assert 0.8 < seen.mean() < 1 and 0.05 < float(whole.soil_moisture.mean()) < 0.5
    assert ((whole.status == 2) == ~seen).all()
