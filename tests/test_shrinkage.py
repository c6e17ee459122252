"""Regression to the mean: what is said of it, what mends it, and where that may not be used."""

import dask.array as da
import numpy as np
import pytest
import xarray as xr

from smgrid import YANCO, Grid, patterns, shrinkage

RNG = np.random.default_rng(0)
TRUTH = RNG.normal(0.25, 0.07, 3000)
KNOWN = TRUTH + RNG.normal(0, 0.05, 3000)  # all that the predictors tell
HONEST = 0.25 + (0.07**2 / (0.07**2 + 0.05**2)) * (KNOWN - 0.25)  # the best guess: E(truth | known)
STATION = np.arange(3000) // 50


def field(values, day="2015-05-05", grid=YANCO):
    return xr.DataArray(
        values, {**grid.coords(), "time": np.datetime64(day, "ns")}, ("y", "x"), attrs={"units": "m3 m-3"}
    )


def scene(day="2015-05-05", grid=YANCO, seed=0):
    rng = np.random.default_rng(seed)
    truth = rng.normal(0.25, 0.07, grid.shape)
    return field(0.25 + 0.5 * (truth - 0.25), day, grid), field(truth, day, grid)


def test_the_best_guess_is_drawn_to_the_mean():
    found = shrinkage.diagnose(HONEST, TRUTH, groups=STATION)
    expected = 0.07**2 / (0.07**2 + 0.05**2)
    assert found.slope.item() == pytest.approx(expected, abs=0.02)
    assert found.variance_ratio.item() == pytest.approx(np.sqrt(expected), abs=0.02)
    assert found.calibration_slope.item() == pytest.approx(1, abs=0.02)  # and is honest about it
    assert found.bias_wet < 0 < found.bias_dry
    slope, intercept = np.polyfit(TRUTH, HONEST, 1)
    assert (found.slope.item(), found.intercept.item()) == pytest.approx((slope, intercept))
    for name in ("slope", "intercept", "variance_ratio", "calibration_slope", "bias_dry", "bias_wet"):
        low, high = found[f"{name}_interval"].values
        assert low < found[name].item() < high
    assert found.attrs["n"] == 3000


def test_maps_are_diagnosed_as_the_scorecard_says():
    p, o = scene()
    found, card = shrinkage.diagnose(p.where(p > 0.2), o), patterns.compare(p.where(p > 0.2), o)
    for name in ("slope", "intercept", "variance_ratio"):
        assert found[name].item() == pytest.approx(card[name].item())
    assert found.intercept.attrs["units"] == "m3 m-3"


@pytest.mark.parametrize("how", ["linear", "quantile", "rotation"])
def test_corrections_stretch(how):
    train, test = slice(0, None, 2), slice(1, None, 2)
    correction = shrinkage.fit(HONEST[train], TRUTH[train], how=how, fitted_on="synthetic stations")
    mended = correction.apply(HONEST[test])
    before, after = (shrinkage.diagnose(p, TRUTH[test]) for p in (HONEST[test], mended))
    assert before.variance_ratio < 0.85
    if how == "rotation":
        assert after.slope.item() == pytest.approx(1, abs=0.03)
    else:
        assert after.variance_ratio.item() == pytest.approx(1, abs=0.03)
    # and costs error, for the guesses were the best that could be made
    rmse = [np.sqrt(((p - TRUTH[test]) ** 2).mean()) for p in (HONEST[test], mended)]
    assert rmse[0] < rmse[1]
    assert (np.diff(mended[np.argsort(HONEST[test])]) >= 0).all() and mended.min() >= 0


def test_linear_is_the_z_score_transform():
    correction = shrinkage.fit(HONEST, TRUTH, fitted_on="here")
    expected = TRUTH.mean() + TRUTH.std() / HONEST.std() * (HONEST - HONEST.mean())
    np.testing.assert_allclose(correction.apply(HONEST), np.maximum(expected, 0), atol=1e-12)


def test_quantiles_go_on_beyond_the_ends_at_the_distance_of_the_end():
    correction = shrinkage.fit(HONEST, TRUTH, how="quantile", fitted_on="here")
    top = HONEST.max()
    found = correction.apply(np.array([top, top + 0.01]))
    assert found[0] == pytest.approx(TRUTH.max()) and found[1] - found[0] == pytest.approx(0.01)


def test_maps_are_corrected_lazily_and_say_so(no_compute):
    p, _ = scene()
    correction = shrinkage.fit(HONEST, TRUTH, fitted_on="held-out stations, 2016-2021")
    lazy = p.astype("f4").copy(data=da.zeros(YANCO.shape, chunks=30, dtype="f4")).to_dataset(name="soil_moisture")
    found = correction.apply(lazy).soil_moisture
    assert found.chunks is not None and found.dtype == "f4"
    assert found.attrs["correction"].endswith("learned on held-out stations, 2016-2021")
    assert found.attrs["units"] == "m3 m-3"


def test_missing_stays_missing_and_chunks_change_nothing():
    p, _ = scene()
    p = p.where(p > 0.2)
    correction = shrinkage.fit(HONEST, TRUTH, how="quantile", fitted_on="here")
    found = correction.apply(p)
    assert (np.isnan(found) == np.isnan(p)).all()
    xr.testing.assert_identical(correction.apply(p.chunk(y=31, x=10)).compute(), found)


def test_a_map_is_not_corrected_by_what_was_learned_on_it():
    p, o = scene()
    correction = shrinkage.fit(p, o, fitted_on="airborne map of 5 May 2015")
    with pytest.raises(ValueError, match=r"learned on a map of this place and 2015-05-05.*held-out stations"):
        correction.apply(p)
    with pytest.raises(ValueError, match="learned on a map of this place"):  # nor a part of it
        correction.apply(p.isel(y=slice(80, None), x=slice(3, 9)))
    both = xr.concat([p, scene("2015-09-15")[0]], "time")
    with pytest.raises(ValueError, match="2015-05-05"):
        correction.apply(both)
    with pytest.raises(ValueError, match="a date that nothing names"):
        correction.apply(p.drop_vars("time"))
    later, _ = scene("2015-09-15")
    assert "5 May" in correction.apply(later).attrs["correction"]
    elsewhere, _ = scene(grid=Grid(1, 11000, 31000, 20, 20))
    assert correction.apply(elsewhere).shape == (20, 20)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: shrinkage.fit(HONEST, TRUTH, how="cubic", fitted_on="x"), "how is one of .*linear.*not 'cubic'"),
        (lambda: shrinkage.fit(HONEST, TRUTH, fitted_on=" "), "say where the correction is learned"),
        (lambda: shrinkage.fit(HONEST[:5], TRUTH[:5], fitted_on="x"), "at least 10 rows that vary; there are 5"),
        (lambda: shrinkage.fit(0 * TRUTH, TRUTH, fitted_on="x"), "rows that vary"),
        (lambda: shrinkage.fit(-TRUTH, TRUTH, fitted_on="x"), r"do not rise with the observations \(r = -1.00\)"),
        (lambda: shrinkage.fit(HONEST[:20], TRUTH, fitted_on="x"), r"differ in shape: \[\(20,\), \(3000,\)\]"),
        (lambda: shrinkage.diagnose(HONEST, TRUTH * np.nan), "no cell in common"),
        (lambda: shrinkage.diagnose(HONEST, TRUTH, groups=STATION % 2), "at least 3 groups, not 2"),
        (lambda: shrinkage.fit(scene()[0].drop_vars(["y", "x", "spatial_ref"]), TRUTH, fitted_on="x"), "shape"),
        (lambda: shrinkage.fit(*(a.drop_vars("spatial_ref") for a in scene()), fitted_on="x"), "no CRS"),
    ],
)
def test_what_cannot_be_learned_says_why(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_units_are_those_it_was_learned_in():
    p, o = scene()
    correction = shrinkage.fit(p, o, fitted_on="5 May")
    with pytest.raises(ValueError, match="learned in 'm3 m-3', the predictions are in '%'"):
        correction.apply(scene("2016-01-01")[0].assign_attrs(units="%"))
