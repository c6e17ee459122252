"""The invented station network: as large as the paper's, and hard where it says why."""

import numpy as np
import pytest
import xarray as xr
from sklearn.ensemble import RandomForestRegressor

import smgrid
from smgrid import network, scenarios, sensors


@pytest.fixture(scope="module")
def samples():
    return smgrid.synthetic.network(seed=0)


def test_it_is_as_large_as_the_paper_s(samples):
    assert len(network.NETWORKS) == 26 and network.CELLS == 1021
    assert sum(net.samples for net in network.NETWORKS) == 209318
    assert samples.sizes["sample"] == pytest.approx(209318, rel=0.03)
    cells = np.unique(np.stack([samples.row, samples.col]), axis=1).shape[1]
    assert cells == 1021 == np.unique(samples.station).size and np.unique(samples.network).size == 26
    assert samples.time.min() >= np.datetime64("2016-01-01") and samples.time.max() <= np.datetime64("2021-12-31")
    counts = dict(zip(*np.unique(samples.network, return_counts=True)))
    for net in network.NETWORKS:
        if net.cells > 10:
            assert counts[f"{net.name} (synthetic)"] == pytest.approx(net.samples, rel=0.25)
    temporal = scenarios.temporal(samples)
    assert np.unique(samples.station.values[temporal.draw(1)[0]]).size == pytest.approx(528, abs=25)


def test_every_predictor_is_there_in_its_units(samples):
    for name, p in smgrid.PAPER.items():
        if name != "day_of_year":
            values = samples[name].values
            assert samples[name].attrs["units"] == p.units and np.isfinite(values).all()
            low, high = p.plausible
            assert low < values.min() and values.max() < high, name
    assert samples.soil_moisture.dtype == "f4" and 0 < samples.soil_moisture.min() < samples.soil_moisture.max() <= 0.6


def test_it_is_called_synthetic(samples):
    assert "synthetic" in samples.attrs["source"] and "synthetic" in samples.attrs["title"]
    assert all("synthetic" in each.attrs["long_name"] for each in samples.data_vars.values())
    assert all("synthetic" in name for name in np.unique(samples.network))


def test_places_are_centres_of_cells(samples):
    lon, lat = smgrid.Grid.whole().lonlat()
    np.testing.assert_allclose(samples.latitude, lat[samples.row])
    np.testing.assert_allclose(samples.longitude, lon[samples.col])


def test_levels_are_those_of_real_series(samples):
    """Bounds about what US stations show (site means sd 0.09, in time 0.06, r of SMAP 0.76), wide for the seeds."""
    table = samples[["station", "vv", "smap", "soil_moisture"]].to_dataframe()
    table = table[table.groupby("station").station.transform("size") > 60]
    by = table.groupby("station").soil_moisture
    assert 0.05 < by.mean().std() < 0.13 and 0.05 < by.std().median() < 0.08
    r = {
        v: np.median([each[v].corr(each.soil_moisture) for _, each in table.groupby("station")]) for v in ("vv", "smap")
    }
    assert 0.3 < r["vv"] < 0.65 and 0.65 < r["smap"] < 0.85


def test_the_same_seed_gives_the_same_and_another_another():
    one, two, other = (smgrid.synthetic.network(30, seed=seed) for seed in (1, 1, 2))
    xr.testing.assert_identical(one, two)
    assert one.sizes != other.sizes


@pytest.mark.parametrize("cells", [1, 7, 100, 1500])
def test_any_number_of_cells(cells):
    shares = network._shares(cells)
    assert shares.sum() == cells and (shares >= 0).all()


def test_no_cells_no_network():
    with pytest.raises(ValueError, match="at least 1 cell, not 0"):
        smgrid.synthetic.network(0)


def test_no_two_stations_share_a_cell():
    row, col, *_ = network._apart(np.full(5, 40.0), np.full(5, 2.0))
    assert len(set(zip(row.tolist(), col.tolist()))) == 5


def test_the_radar_is_yanco_s():
    moisture, angle = np.array([0.1, 0.3]), np.array([38.0, 38.0])
    bare, _ = sensors.radar(moisture, np.zeros(2), np.zeros(2), np.ones(2), angle)
    np.testing.assert_allclose(bare, 10 * np.log10(sensors.soil_backscatter(moisture, 1.0, angle)[0]))
    wooded, _ = sensors.radar(moisture, np.full(2, 3.0), np.full(2, 0.4), np.ones(2), angle)
    assert np.diff(wooded) < np.diff(bare), "vegetation hides the soil"


def test_unseen_places_and_years_are_harder_and_the_levers_say_why(monkeypatch):
    """Small: 150 cells; the spatial gap goes with the site offset, the temporal one with the walk."""
    forest = {"rf": RandomForestRegressor(20, min_samples_leaf=2, max_features=0.4)}

    def rmse():
        table = smgrid.synthetic.network(150, seed=0)
        out = []
        for scheme in (
            scenarios.dependent(table, sizes=[20]),
            scenarios.temporal(table, sizes=[21]),
            scenarios.spatial(table, sizes=[40]),
        ):
            found = scenarios.run(table, scheme, forest, repeats=1, workers=1)
            out.append(float(found.rmse.sel(regressor="rf").mean()))
        return np.array(out)

    dependent, temporal, spatial = rmse()
    assert dependent < temporal < spatial
    monkeypatch.setattr(network, "WALK", 0.0)
    calm = rmse()
    assert calm[1] - calm[0] < 0.6 * (temporal - dependent)
    monkeypatch.setattr(network, "SITE_OFFSET", 0.0)
    level = rmse()
    assert level[2] - level[0] < 0.6 * (calm[2] - calm[0])
