"""Patterns of two maps: oracles, identities, gaps, chunks, other packages, intervals, errors."""

import logging
import warnings

import dask.array as da
import numpy as np
import pytest
import xarray as xr

from smgrid import YANCO, Grid, patterns, spectra, synthetic
from smgrid.grid import ground_size
from smgrid.pairs import open_pair
from smgrid.sums import intervals

I, J = np.mgrid[:12, :12]
O = 0.20 + 0.10 * np.sin(2 * np.pi * I / 12) * np.cos(2 * np.pi * J / 9) + 0.03 * ((7 * I + 3 * J) % 11) / 10
P = 0.22 + 0.06 * np.sin(2 * np.pi * (I - 1) / 12) * np.cos(2 * np.pi * J / 9) + 0.03 * ((5 * I + 2 * J) % 13) / 12


def field(values, grid=YANCO, **coords):
    dims = ("time", "y", "x")[-np.ndim(values) :]
    return xr.DataArray(values, {**grid.coords(), **coords}, dims, attrs={"units": "m3 m-3"})


def texture(seed, grid=YANCO, scale=4.0):
    from scipy.ndimage import gaussian_filter

    smooth = gaussian_filter(np.random.default_rng(seed).normal(size=grid.shape), scale)
    return field(
        0.2 + 0.06 * smooth / smooth.std() + np.random.default_rng(seed + 99).normal(0, 0.01, grid.shape), grid
    )


def gappy(array, seed=5, share=0.2):
    return array.where(np.random.default_rng(seed).random(array.shape) > share)


def half(array):
    """A scene seen up to a slanted swath edge."""
    rows, cols = np.mgrid[: array.sizes["y"], : array.sizes["x"]]
    return array.where(xr.DataArray(cols < 40 - 0.17 * rows, dims=("y", "x")))


@pytest.fixture(scope="module")
def pair():
    """A map that follows the reference, with gaps in both."""
    reference = texture(1)
    return gappy(0.4 * reference + 0.1 + 0.3 * (texture(2) - 0.2), 6), gappy(reference, 7)


@pytest.fixture(scope="module")
def card(pair):
    return patterns.compare(*pair)


@pytest.fixture
def quiet(caplog):
    caplog.set_level(logging.ERROR, "smgrid")


# ---- oracles of 12 x 12 cells without coordinates


@pytest.mark.parametrize(
    "name, expected",
    [
        ("bias", 0.0201041667),
        ("rmse", 0.0376224835),
        ("pearson_r", 0.8080036522),
        ("spaef", 0.528634),
        ("spaef_gamma", 0.958333),
        ("r_between", 0.8738833301),
        ("r_within", 0.7250737267),
        ("mse_between", 9.1191729e-4),
        ("mse_within", 5.0353398e-4),
        ("mse", 1.4154512626e-3),
        ("within_share_reference", 0.3975209796),
        ("within_share_prediction", 0.4639867565),
        # xskillscore 0.0.29: spearman_r, linslope(reference, prediction); scikit-image 0.26.0 with L = 0.6
        ("spearman_r", 0.8012274450935354),
        ("slope", 0.5050004488443501),
        ("ssim", 0.7405640883805632),
    ],
)
@pytest.mark.usefixtures("quiet")
def test_scorecard_of_the_small_case(name, expected):
    rel = 1e-6 if "spaef" in name else 1e-8  # as many digits as are given
    assert patterns.compare(P, O, coarse_km=3)[name].item() == pytest.approx(expected, rel=rel)


@pytest.mark.parametrize(
    "choices, total, gamma",
    [
        ({"edges": "reference-code"}, 0.527204, 0.944444),
        ({}, 0.528634, 0.958333),
        ({"bins": 12}, 0.528634, 0.958333),
        ({"bins": 20}, 0.517511, 0.888889),
        ({"bins": 100}, 0.367627, 0.576389),
    ],
)
@pytest.mark.usefixtures("quiet")
def test_spaef_of_the_small_case(choices, total, gamma):
    found = patterns.spaef(P, O, **choices)
    parts = [found[name].item() for name in ("spaef", "spaef_alpha", "spaef_beta", "spaef_gamma")]
    assert parts == pytest.approx([total, 0.808004, 0.571529, gamma], abs=6e-7)
    assert found.spaef_bins == choices.get("bins", 12)


SCORES = [0.7102803738317757, 0.9111502642839164, 0.9473264801976253, 0.9614528010964537]  # scores 2.7.0
SKIMAGE = {"gaussian": 0.7140331384350962, "uniform": 0.7170574810008228}  # scikit-image 0.26.0, L = 0.224
GSTOOLS = {  # 1.7.0, vario_estimate_axis: lags 1 to 3 along rows (y) and columns (x), plain and Cressie-Hawkins
    "y": [0.0004431020202020202, 0.0011911838383838384],
    "x": [0.0006677453282828283, 0.0021526163636363637],
}


@pytest.mark.usefixtures("quiet")
def test_fss_of_the_small_case():
    found = patterns.fss(P, O, threshold=0.24, windows=[1, 3, 5, 12]).sel(event="value")
    assert found.fss.values == pytest.approx(SCORES, abs=1e-8)
    assert found.base_rate_prediction.item() == pytest.approx(61 / 144)
    assert found.base_rate_reference.item() == pytest.approx(46 / 144)
    assert found.fss_windows.values.tolist() == [144, 100, 64, 1]
    misses_and_alarms = ((P > 0.24) != (O > 0.24)).sum()
    assert found.fss[0].item() == pytest.approx(1 - misses_and_alarms / (61 + 46))


@pytest.mark.parametrize("window", ["gaussian", "uniform"])
@pytest.mark.usefixtures("quiet")
def test_ssim_of_the_small_case(window):
    assert patterns.ssim(P, O, window=window, data_range=0.224).ssim.item() == pytest.approx(SKIMAGE[window], abs=1e-8)
    if window == "uniform":
        assert patterns.ssim(P, O, window=window, data_range=1).ssim.item() == pytest.approx(0.7719757826, abs=1e-8)


@pytest.mark.usefixtures("quiet")
def test_variogram_of_the_small_case():
    found = patterns.variogram(P, O, lags=2).semivariance_reference
    assert found.sel(direction="x").values == pytest.approx([6.677453e-4, 2.1526164e-3], rel=1e-7)
    assert found.sel(direction="y").values == pytest.approx([4.431020e-4, 1.1911838e-3], rel=1e-7)


# ---- other packages, where they define the same


@pytest.mark.usefixtures("quiet")
def test_agrees_with_scores():
    scores = pytest.importorskip("scores", reason="the package 'scores' is not installed")
    from scores.spatial import fss_2d_single_field

    rng = np.random.default_rng(3)
    p, o = rng.random((2, 40, 31))
    ours = patterns.fss(p, o, threshold=0.7, windows=[1, 4, 9, 31]).sel(event="value").fss.values
    theirs = [fss_2d_single_field(p, o, event_threshold=0.7, window_size=(w, w)) for w in (1, 4, 9, 31)]
    assert ours == pytest.approx(np.array(theirs, float), abs=1e-8)
    a, b = (xr.DataArray(v, dims=("y", "x")) for v in (p, o))
    found = patterns.compare(p, o)
    theirs = {
        "rmse": scores.continuous.rmse(a, b),
        "mse": scores.continuous.mse(a, b),
        "bias": scores.continuous.additive_bias(a, b),
        "pearson_r": scores.continuous.correlation.pearsonr(a, b),
    }
    for name, value in theirs.items():
        assert found[name].item() == pytest.approx(float(value), abs=1e-8)


@pytest.mark.usefixtures("quiet")
def test_agrees_with_xskillscore():
    xs = pytest.importorskip("xskillscore", reason="the package 'xskillscore' is not installed")
    p, o = (xr.DataArray(gappy(xr.DataArray(a, dims=("y", "x")))) for a in (P, O))
    found = patterns.compare(p, o)
    for ours, theirs in (("pearson_r", "pearson_r"), ("spearman_r", "spearman_r"), ("rmse", "rmse"), ("bias", "me")):
        value = getattr(xs, theirs)(p, o, dim=["y", "x"], skipna=True).item()
        assert found[ours].item() == pytest.approx(value, abs=1e-8)


@pytest.mark.usefixtures("quiet")
def test_agrees_with_scikit_image():
    metrics = pytest.importorskip("skimage.metrics", reason="the package 'scikit-image' is not installed")
    rng = np.random.default_rng(3)
    p, o = rng.random((2, 30, 41))
    gaussian = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    for window, choices in (("gaussian", gaussian), ("uniform", {})):
        theirs = metrics.structural_similarity(p, o, data_range=0.6, **choices)
        assert patterns.ssim(p, o, window=window).ssim.item() == pytest.approx(theirs, abs=1e-8)


@pytest.mark.usefixtures("quiet")
def test_agrees_with_gstools():
    gs = pytest.importorskip("gstools", reason="the package 'gstools' is not installed")
    holed = O.copy()
    holed[[2, 7, 7], [3, 7, 8]] = np.nan
    for values in (O, holed):
        found = patterns.variogram(values, values, lags=4)
        for direction, axis in (("y", 0), ("x", 1)):
            for name, how in (("semivariance_reference", "matheron"), ("robust_reference", "cressie")):
                theirs = gs.vario_estimate_axis(np.ma.masked_invalid(values), axis, estimator=how)[1:5]
                assert found[name].sel(direction=direction).values == pytest.approx(theirs, abs=1e-8)


@pytest.mark.usefixtures("quiet")
def test_agrees_with_pysteps(capsys):
    scores = pytest.importorskip("pysteps.verification.spatialscores", reason="the package 'pysteps' is not installed")
    from pysteps.utils.spectral import rapsd

    for side in (1, 3, 5):  # it pads with zeros: the same as windows inside a map with a rim of dry cells
        p, o = (np.pad(a, side // 2, constant_values=0) for a in (P, O))
        ours = patterns.fss(p, o, threshold=0.2405, windows=[side]).sel(event="value").fss.item()
        assert ours == pytest.approx(scores.fss(P, O, 0.2405, side), abs=1e-8)
    label = spectra._label(O.shape, (1.0, 1.0), 12.0, 5)
    assert spectra._entries(P, O, label, 5, 12.0)["power_reference"] == pytest.approx(
        rapsd(O, fft_method=np.fft)[1:], abs=1e-8
    )


# pysteps 1.21.5: rapsd of O, rings 1 to 5
RAPSD = [3.61385042e-02, 5.02373023e-03, 7.07190541e-04, 2.09168300e-04, 3.03450311e-04]


def test_power_in_rings_of_the_small_case():
    label = spectra._label(O.shape, (1.0, 1.0), 12.0, 5)
    assert spectra._entries(P, O, label, 5, 12.0)["power_reference"] == pytest.approx(RAPSD, rel=1e-8)


# ---- identities


def test_a_perfect_map():
    reference = gappy(texture(1))
    found = patterns.compare(reference, reference, reference_error=0.03)
    for name in ("pearson_r", "spearman_r", "slope", "variance_ratio", "r_between", "r_within", "spaef", "ssim"):
        assert found[name].item() == pytest.approx(1, abs=1e-9), name
    for name in ("bias", "rmse", "mse", "intercept", "mse_between", "mse_within"):
        assert found[name].item() == pytest.approx(0, abs=1e-9), name
    for name in ("fss", "semivariance_ratio", "skill"):
        assert found[name].values == pytest.approx(1, abs=1e-12), name
    assert found.pod.item() == found.pod_area.item() == 1 and found.false_alarms.item() == 0
    assert found.rmse_of_map.item() == 0 and found.rmse_floor.item() == 0.03


@pytest.mark.parametrize("a", [0.3, 2.5])
def test_a_map_in_proportion(a, pair):
    reference = pair[1]
    found = patterns.spaef(a * reference, reference)
    assert [found[k].item() for k in ("spaef", "spaef_alpha", "spaef_beta", "spaef_gamma")] == pytest.approx([1] * 4)


def test_a_map_with_an_offset(pair):
    reference = pair[1]
    found = patterns.compare(reference + 0.05, reference)
    assert found.ubrmse.item() == pytest.approx(0, abs=1e-12) and found.bias.item() == pytest.approx(0.05)
    assert found.spaef_alpha.item() == pytest.approx(1)
    mean = float(reference.mean())
    assert found.spaef_beta.item() == pytest.approx(mean / (mean + 0.05))
    assert found.contrast.item() == found.structure.item() == pytest.approx(1) and found.luminance < 1
    assert found.fss.sel(event="frequency").values == pytest.approx(1)
    assert (found.fss.sel(event="value") < 1).all()


def test_the_parts_make_the_whole(card, pair):
    parts = card.mse_bias + card.mse_variance + card.mse_correlation
    assert parts.item() == pytest.approx(card.mse.item(), rel=1e-12)
    p, o = (a.values.astype("f8") for a in pair)
    known = np.isfinite(p) & np.isfinite(o)
    e = (p - o)[known]
    assert card.mse.item() == pytest.approx((e**2).mean(), rel=1e-12)
    r = np.corrcoef(p[known], o[known])[0, 1]
    assert card.mse_correlation.item() == pytest.approx(2 * p[known].std() * o[known].std() * (1 - r), rel=1e-10)
    assert card.n.item() == known.sum() and card.coverage.item() == pytest.approx(known.mean())
    assert card.coverage_of_reference.item() == pytest.approx(known.sum() / np.isfinite(o).sum())


def test_the_split_adds_up_and_knows_the_global_phase():
    grid = Grid(1, YANCO.row + 4, YANCO.col + 7, 50, 40)
    p, o = gappy(texture(1, grid)), gappy(texture(2, grid), 8)
    found = patterns.scale_split(p, o)
    known = (np.isfinite(p) & np.isfinite(o)).values
    block = (np.arange(grid.row, grid.row + 50) // 9)[:, None] * 10000 + np.arange(grid.col, grid.col + 40) // 9
    _, code = np.unique(block, return_inverse=True)
    code = code.reshape(block.shape)
    enough = (np.bincount(code[known], minlength=code.max() + 1) >= 40.5)[code] & known
    e = (p - o).values[enough]
    n = np.bincount(code[enough])
    mean = np.divide(np.bincount(code[enough], e), n, where=n > 0, out=np.zeros(n.size))
    assert found.split_n.item() == e.size and found.blocks.item() == (n > 0).sum()
    assert found.mse_between.item() == pytest.approx((n * mean**2).sum() / e.size, rel=1e-12)
    assert (found.mse_between + found.mse_within).item() == pytest.approx((e**2).mean(), rel=1e-12)


# ---- chunks, tiles, size


@pytest.mark.parametrize("chunks", [{"y": 10, "x": 75}, {"y": 84, "x": 7}, {"y": (1, 50, 33), "x": (31, 44)}])
def test_chunks_change_nothing(pair, card, chunks):
    found = patterns.compare(*(a.chunk(chunks) for a in pair))
    xr.testing.assert_identical(found, card)


def test_tiles_change_nothing_but_rounding(pair, card, monkeypatch):
    monkeypatch.setattr("smgrid.pairs.TILE", 27)
    found = patterns.compare(*(a.chunk(y=20, x=30) for a in pair))
    xr.testing.assert_allclose(found, card, rtol=1e-11, atol=1e-13)


class Disk:
    """A file that says how much is read of it at once."""

    asked: list[int] = []

    def __init__(self, values):
        self.rows, self.shape, self.dtype, self.ndim = values, values.shape, values.dtype, values.ndim

    def __getitem__(self, key):
        self.asked.append(self.rows[key].size)
        return self.rows[key]


def test_a_date_that_is_too_large_to_be_held(pair, card, monkeypatch, caplog):
    for room in ("pairs", "sums", "spectra", "patches"):
        monkeypatch.setattr(f"smgrid.{room}.WHOLE", 1000)
    monkeypatch.setattr("smgrid.pairs.TILE", 27)
    caplog.set_level(logging.WARNING, "smgrid")
    lazy = [a.copy(data=da.from_array(Disk(a.values), chunks=(21, 25))) for a in pair]
    Disk.asked.clear()
    found = patterns.compare(*lazy)
    assert 0 < max(Disk.asked) <= 21 * 25
    assert sum(Disk.asked) < 3 * 2 * 84 * 75 * (27 + 54 + 42) ** 2 / 27**2  # three passes, with margins
    assert found.attrs["left_out"] == "spectra, wet patches" and "2^24 cells" in caplog.text
    assert not {"coherence", "patch_kind"} & set(found.data_vars)
    for name in ("bias", "rmse", "pearson_r", "r_within", "spaef", "ssim", "semivariance_prediction"):
        np.testing.assert_allclose(found[name], card[name], rtol=1e-11, err_msg=name)
    assert found.spearman_r.item() == pytest.approx(card.spearman_r.item(), abs=1e-5)
    np.testing.assert_allclose(found.fss, card.fss, atol=2e-3)


def test_many_blocks_are_drawn_together(monkeypatch, pair):
    monkeypatch.setattr("smgrid.pairs.UNITS", 30)
    found = patterns.compare(*pair)
    assert found.attrs["bootstrap_km"] == 18
    assert found.mse_between.item() == patterns.scale_split(*pair).mse_between.item()


def test_dates_are_judged_one_by_one(pair, card):
    both = [
        xr.concat([a, a * 0.5], xr.Variable("time", np.array(["2015-09-15", "2015-09-26"], "M8[ns]"))) for a in pair
    ]
    both = [a.transpose("y", "x", "time") for a in both]
    found = patterns.compare(*both)
    assert found.pearson_r.dims == ("time",) and found.pearson_r.values == pytest.approx(card.pearson_r.item())
    assert found.rmse[1].item() == pytest.approx(card.rmse.item() / 2)
    assert found.patch_time.dims == ("patch",) and set(found.patch_time.values) == set(found.time.values)


def test_two_dates_are_compared_with_a_word(caplog):
    a, b = (texture(1).assign_coords(time=np.datetime64(day, "ns")) for day in ("2015-05-05", "2015-05-17"))
    patterns.spaef(a, a)
    assert not caplog.text
    patterns.spaef(a, b)
    assert "the prediction is of 2015-05-05" in caplog.text and "the reference of 2015-05-17" in caplog.text


def test_maps_and_attributes(pair, card):
    found = patterns.compare(pair[0].to_dataset(name="soil_moisture"), pair[1])
    xr.testing.assert_identical(found, card)
    assert card.rmse.attrs["units"] == "m3 m-3" and card.mse.attrs["units"] == "(m3 m-3)^2"
    assert all(array.attrs["long_name"] for array in card.data_vars.values())
    assert "spatial_ref" not in card.coords


# ---- gaps


@pytest.mark.parametrize("edges", ["inside", "all"])
def test_a_half_seen_scene_is_judged_on_the_half(edges):
    reference = texture(1)
    seen = half(reference)
    found = patterns.fss(seen, reference, edges=edges)
    assert found.fss.values == pytest.approx(1)
    everywhere_dry = patterns.fss(half(reference * 0), reference, edges=edges).sel(event="value")
    assert everywhere_dry.fss.values == pytest.approx(0)
    # what lies in the half that was not seen changes nothing
    other = reference.where(np.isfinite(seen), 0.5)
    xr.testing.assert_allclose(
        patterns.fss(seen * 0.9, reference, threshold=0.25), patterns.fss(seen * 0.9, other, threshold=0.25)
    )


def test_missing_cells_are_no_dry_cells():
    """Two fields that agree wherever both are known, with wet cells beside the gap."""
    reference = field(np.where(np.mgrid[:84, :75][1] > 30, 0.4, 0.1))
    found = patterns.fss(half(reference), reference, threshold=0.2, windows=[9]).sel(event="value")
    assert found.fss.item() == 1
    filled = patterns.fss(half(reference).fillna(0), reference, threshold=0.2, windows=[9]).sel(event="value")
    assert filled.fss.item() < 0.7  # what NaN taken for "no event" would say


def test_edges_of_windows():
    found = {
        e: patterns.fss(texture(1), texture(2), windows=[9], edges=e).fss_windows.item() for e in ("inside", "all")
    }
    assert found == {"inside": 76 * 67, "all": 84 * 75 - 4 * 8}  # windows about the corners are less than half on it


def test_random_events_get_what_fss_random_says():
    reference = texture(1)
    rng = np.random.default_rng(0)
    wet = [field((rng.random(YANCO.shape) < 0.15).astype("f8")) for _ in range(60)]
    events = field((reference > reference.quantile(0.85)).astype("f8").values)
    found = [patterns.fss(w, events, threshold=0.5, windows=[1, 3, 9]).sel(event="value") for w in wet]
    mean = np.mean([one.fss.values for one in found], axis=0)
    assert mean == pytest.approx(np.mean([one.fss_random.values for one in found], axis=0), abs=0.005)


def test_ssim_far_from_a_gap_is_what_it_was():
    p, o = texture(1), texture(2)
    whole = patterns.ssim_maps(p, o)
    holed = patterns.ssim_maps(p.where((p.x != p.x[40]) | (p.y != p.y[40])), o)
    away = np.hypot(*(np.mgrid[:84, :75] - 40)) > 8
    np.testing.assert_allclose(holed.ssim.values[away], whole.ssim.values[away], rtol=1e-12)
    assert np.isnan(holed.ssim[40, 40]) and np.isfinite(holed.ssim[40, 41])
    assert np.isnan(whole.ssim[4]).all() and np.isfinite(whole.ssim[5:-5, 5:-5]).all()
    assert patterns.ssim(p, o).ssim.item() == pytest.approx(whole.ssim.mean().item())


def test_maps_of_ssim_are_lazy(no_compute):
    p, o = (texture(k).chunk(y=30, x=20) for k in (1, 2))
    assert patterns.ssim_maps(p, o).ssim.chunks is not None


def test_maps_of_ssim_do_not_depend_on_chunks():
    p, o = gappy(texture(1)), texture(2)
    lazy = patterns.ssim_maps(p.chunk(y=30, x=20), o.chunk(y=41))
    xr.testing.assert_allclose(lazy.compute(), patterns.ssim_maps(p, o), rtol=1e-12)


@pytest.mark.parametrize("share", [0.0, 2.0])
def test_nothing_in_common_is_nan_and_no_error(share):
    p = texture(1).where(share > 1).where(np.arange(75) < share)  # no cell, or none that makes a measure
    p = p.where(np.arange(84)[:, None] < 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = patterns.compare(p, texture(2), coarse=None, reference_error=0.05)
    assert found.n.item() == share
    for name in ("bias", "rmse", "pearson_r", "spearman_r", "spaef", "ssim", "r_within", "coherence", "rmse_interval"):
        assert np.isnan(found[name]).all(), name
    assert np.isnan(found.fss).all()


def test_a_constant_map_has_no_correlation():
    found = patterns.compare(field(np.full(YANCO.shape, np.float32(0.3))), texture(1))
    for name in ("pearson_r", "spearman_r", "spaef", "r_between", "r_within", "resolution_coherence"):
        assert np.isnan(found[name].item()), name
    assert found.variance_ratio.item() == 0 and found.slope.item() == 0
    assert found.mse_bias.item() + found.mse_variance.item() + found.mse_correlation.item() == pytest.approx(
        found.mse.item()
    )
    assert found.fss.sel(event="frequency").values == pytest.approx(0)


def test_infinite_is_missing(pair, card):
    p = pair[0].copy(data=np.where(np.isnan(pair[0]), np.inf, pair[0]))
    xr.testing.assert_identical(patterns.compare(p, pair[1]), card)


# ---- wet patches


def wet_scene():
    reference = field(np.full(YANCO.shape, 0.1))
    reference[60:70, 5:15] = 0.35  # 10 x 10 in the south-west
    reference[70:74, 30:35] = 0.30
    reference[10:20, 50:60] = 0.30  # north-east
    reference[2:4, 2:4] = 0.40  # too small
    reference[60, 70] = np.nan
    return reference


def test_patches_found_missed_unseen_and_invented():
    reference = wet_scene()
    p = reference.copy()
    p[60:70, 5:15] = 0.15  # missed
    p[70:74, 30:32] = np.nan  # half and more of what is seen is found
    p[10:20, 50:57] = np.nan  # unseen
    p[40:44, 40:45] = 0.3  # invented
    found = patterns.wet_patches(p, reference, threshold=0.2)
    table = found.to_dataframe().set_index("kind")
    assert sorted(table.index) == ["false alarm", "found", "missed", "unseen"]
    assert table.loc["missed", "deficit"] == pytest.approx(0.2) and table.loc["missed", "quadrant"] == "SW"
    assert table.loc["missed", "area"] == pytest.approx(100 * 1.0008950233495556**2 * 1.0, rel=1e-3)
    lon, lat = YANCO.lonlat()
    assert table.loc["missed", "longitude"] == pytest.approx(lon[9:11].mean())
    assert table.loc["missed", "latitude"] == pytest.approx(lat[64:66].mean(), abs=1e-6)
    assert table.loc["unseen", "seen"] == pytest.approx(0.3) and table.loc["found", "seen"] == pytest.approx(0.6)
    assert (found.patches.item(), found.pod.item(), found.false_alarms.item()) == (2, 0.5, 1)
    assert found.pod_area.item() == pytest.approx(20 / 120)


def test_a_patch_a_little_off_is_found_with_tolerance():
    reference = wet_scene()
    shifted = reference.roll(x=6, roll_coords=False)
    kinds = {
        tolerance: patterns.wet_patches(shifted, reference, threshold=0.2, tolerance=tolerance).kind.values.tolist()
        for tolerance in (0, 3)
    }
    assert kinds == {0: ["missed"] * 3 + ["false alarm"] * 3, 3: ["found", "found", "missed", "false alarm"]}


@pytest.mark.parametrize("along, cell", [("y", 1.0585), ("x", 0.9464)])
def test_patches_that_lie_near_are_one(along, cell):
    """Two patches four cells apart, a speck between them that is too small to join anything."""
    values = np.full(YANCO.shape, 0.1)
    for start in (10, 18):
        values[
            (slice(start, start + 5), slice(30, 36)) if along == "y" else (slice(30, 36), slice(start, start + 5))
        ] = 0.3
    reference = field(values)
    # the last cell of one and the first of the other
    counts = [patterns.wet_patches(reference, reference, threshold=0.2, merge=km).patches.item()
              for km in (0, 4 * cell - 0.05, 4 * cell + 0.05)]  # fmt: skip
    assert counts == [2, 2, 1]
    one = patterns.wet_patches(reference, reference, threshold=0.2, merge=5)
    assert one.area.item() == pytest.approx(60 * 1.00179, rel=1e-4) and one.kind.item() == "found"
    values[(16, 32) if along == "y" else (32, 16)] = 0.3
    assert patterns.wet_patches(field(values), field(values), threshold=0.2, merge=2.5 * cell).patches == 2


def test_the_two_patches_of_the_synthetic_scene_are_found_in_the_truth():
    scene = synthetic.yanco(seed=0)
    day = scene.truth.sel(time="2015-05-17")
    dry = day.where(~scene.patches, 0.1)
    found = patterns.wet_patches(dry, day)
    missed = found.isel(patch=(found.kind == "missed").values)
    inside = [bool(scene.patches.values[round(r), round(c)]) for r, c in zip(missed.row.values, missed.col.values)]
    assert sum(inside) == 2 and set(missed.quadrant.values[inside]) == {"SW"} and (missed.deficit[inside] > 0.05).all()


def test_no_patches_make_an_empty_table():
    found = patterns.wet_patches(texture(1) * 0, texture(2), threshold=0.9)
    assert found.sizes["patch"] == 0 and np.isnan(found.pod.item()) and found.patches.item() == 0


# ---- variogram and spectra, on the ground


@pytest.mark.parametrize("lat, across, along", [(-34.7, 950.4, 1054.1), (-35.0, 947.0, 1057.9), (-35.3, 943.5, 1061.8)])
def test_cells_on_the_ground(lat, across, along):
    row, _ = Grid.whole(1).index(146, lat)
    assert [size.item() for size in ground_size(1, row)] == pytest.approx([across, along], abs=0.1)


def test_a_ramp_has_a_parabola():
    rows, cols = np.mgrid[:84, :75]
    found = patterns.variogram(field(0.001 * cols), field(0.002 * rows), lags=5)
    lag = found.lag.values
    assert found.semivariance_prediction.sel(direction="x").values == pytest.approx((0.001 * lag) ** 2 / 2)
    assert found.semivariance_prediction.sel(direction="y").values == pytest.approx(0, abs=1e-30)
    assert found.semivariance_reference.sel(direction="y").values == pytest.approx((0.002 * lag) ** 2 / 2)
    assert found.distance.sel(lag=1).values == pytest.approx([946.4, 1058.5], abs=1)
    assert found.pairs.sel(lag=2).values.tolist() == [84 * 73, 82 * 75]


def test_a_spherical_model_is_recovered():
    from smgrid.variograms import fit

    d = np.arange(1, 28) * 1000.0
    h = np.minimum(d / 9000, 1)
    gamma = 1e-4 + 9e-4 * (1.5 * h - 0.5 * h**3)
    assert fit(gamma, d, np.full(27, 1000.0)) == pytest.approx((1e-4, 1e-3, 9000), rel=0.05)
    assert np.isnan(fit(d * 0, d, d)).all()


@pytest.mark.parametrize("direction, size", [("x", 0.9464), ("y", 1.0585)])
def test_waves_are_measured_on_the_ground(direction, size):
    rows, cols = np.mgrid[:84, :75]
    wave = field(0.2 + 0.05 * np.sin(2 * np.pi * (cols if direction == "x" else rows) / 7.5))
    found = patterns.coherence(wave, wave)
    band = found.power_reference.argmax("wavelength")
    assert found.wavelength[band].item() == pytest.approx(7.5 * size, rel=0.05)


def test_effective_resolution_is_where_the_detail_is_lost():
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(0)
    truth = field(0.2 + 0.05 * rng.normal(size=YANCO.shape))
    lost = rng.normal(size=YANCO.shape)
    low = gaussian_filter(truth.values - 0.2, 2.0)
    noise = lost - gaussian_filter(lost, 2.0)
    found = patterns.coherence(field(0.2 + low + 0.05 * noise), truth)
    # the Gaussian leaves exp(-(2 pi s / w)^2 / 2) of a wave w; half the squared coherence is lost where it is a half
    expected = 2 * np.pi * 2.0 / np.sqrt(2 * np.log(2))
    assert found.resolution_coherence.item() == pytest.approx(expected, rel=0.25)
    assert found.resolution_noise.item() == pytest.approx(found.resolution_coherence.item(), rel=0.6)
    assert (found.coherence[-5:] < 0.2).all()


def test_unrelated_maps_stay_below_chance_in_95_of_100():
    rng = np.random.default_rng(0)
    over = []
    for _ in range(60):
        found = patterns.coherence(*(field(rng.normal(size=YANCO.shape)) for _ in range(2)))
        over.append((found.coherence > found.coherence_chance).values)
    assert np.mean(over) == pytest.approx(0.05, abs=0.01)
    assert np.mean(np.array(over)[:, :3]) == pytest.approx(0.05, abs=0.05)


def test_a_spectrum_needs_a_whole_rectangle():
    found = patterns.coherence(gappy(texture(1), share=0.05), texture(1))
    assert found.coherence[0] > 0.9
    assert found.spectrum_cells == 84 * 75
    none = patterns.coherence(gappy(texture(1), share=0.4), texture(1))  # no rectangle of it is known
    assert np.isnan(none.coherence).all() and np.isnan(none.resolution_noise) and none.spectrum_cells == 0


def test_of_half_a_scene_the_largest_rectangle_is_taken():
    seen, other = half(texture(1)), half(texture(2))
    found = patterns.coherence(seen, other)
    box = spectra.largest_rectangle(np.isfinite(seen.values))
    known = np.isfinite(seen.values[box])
    assert found.spectrum_cells == known.size and known.mean() >= 0.9
    exact = max(rows * cols for rows in range(1, 85) for cols in range(1, 41)
                if np.isfinite(seen.values[:rows, :cols]).mean() >= 0.9)  # fmt: skip
    assert known.size >= 0.93 * exact
    cut = dict(zip("yx", box))
    whole = patterns.coherence(seen.isel(cut), other.isel(cut))
    # the same modes, sorted into bands of another width: the whole power is the same
    assert float((found.power_reference * found.modes).sum()) == pytest.approx(
        float((whole.power_reference * whole.modes).sum()), rel=0.1
    )


@pytest.mark.parametrize("shape", [(300, 200), (37, 500)])
def test_rectangles_of_large_scenes_are_known_to_nine_tenths(shape):
    known = np.random.default_rng(0).random(shape) > 0.03
    known[: shape[0] // 2, shape[1] // 3 :] = False
    box = spectra.largest_rectangle(known)
    assert known[box].mean() >= 0.9
    assert known[box].size >= max(shape[0] * (shape[1] // 3), (shape[0] - shape[0] // 2) * shape[1])


# ---- baselines, strata, ceiling, change


def test_skill_against_smap():
    scene = synthetic.yanco(seed=0)
    truth, smap = scene.truth, scene.smap
    from smgrid import coarse

    blocks = coarse.blocks(smap, YANCO)
    found = patterns.compare(blocks, truth, coarse=smap)
    assert found.skill.sel(baseline="blocks").values == pytest.approx(0, abs=1e-9)
    assert found.within_share_prediction.values == pytest.approx(0, abs=1e-12) and np.isnan(found.r_within).all()
    by_hand = np.sqrt(((coarse.smooth(smap, YANCO) - truth) ** 2).mean(("y", "x")))
    np.testing.assert_allclose(found.rmse_baseline.sel(baseline="smooth"), by_hand, rtol=1e-6)
    np.testing.assert_allclose(found.skill.sel(baseline="mean"), 1 - found.mse / found.sd_reference**2)
    spread = patterns.compare(scene.airborne, truth, coarse=blocks)  # as a cube carries it
    np.testing.assert_allclose(spread.skill, patterns.compare(scene.airborne, truth, coarse=smap).skill, rtol=1e-5)


def test_strata():
    scene = synthetic.yanco(seed=0)
    truth = scene.truth[2]
    prediction = truth + xr.where(scene.cover == scene.cover.attrs["flag_values"][1], 0.05, 0.0).assign_attrs({})
    found = patterns.compare(prediction.assign_attrs(units="m3 m-3"), truth, strata=scene.cover)
    assert found.stratum.values.tolist() == scene.cover.attrs["flag_meanings"].split()
    assert found.stratum_n.sum().item() == 6300
    expected = np.zeros(found.sizes["stratum"])
    expected[1] = 0.05
    assert found.stratum_bias.values == pytest.approx(expected, abs=1e-7)
    plain = patterns.compare(prediction.assign_attrs(units="m3 m-3"), truth, strata=scene.cover.assign_attrs({}))
    np.testing.assert_array_equal(plain.stratum_bias, found.stratum_bias)


def test_the_reference_sets_a_ceiling():
    rng = np.random.default_rng(0)
    truth = field(rng.normal(0.2, 0.05, YANCO.shape))
    flown = field(truth.values + rng.normal(0, 0.06, YANCO.shape))
    found = patterns.compare(truth, flown, reference_error=0.06)
    assert found.pearson_r.item() == pytest.approx(found.r_ceiling.item(), abs=0.02)
    assert found.r_of_ceiling.item() == pytest.approx(1, abs=0.03) and found.rmse_of_map.item() < 0.01


@pytest.mark.parametrize("sd, error, ceiling", [(0.08, 0.06, 0.66), (0.10, 0.06, 0.80), (0.06, 0.04, 0.745)])
def test_ceilings_worked_out(sd, error, ceiling):
    values = np.where(np.mgrid[:84, :74].sum(0) % 2, 0.3 + sd, 0.3 - sd)
    o = field(values, Grid(1, YANCO.row, YANCO.col, 84, 74))
    assert patterns.compare(o, o, reference_error=error).r_ceiling.item() == pytest.approx(ceiling, abs=0.005)


def dated(*maps):
    days = np.array(["2015-05-05", "2015-09-15", "2015-09-26"], "M8[ns]")[: len(maps)]
    return xr.concat(maps, xr.Variable("time", days))


def test_change_and_frozen_patterns():
    a, b, c = (texture(k) for k in (1, 2, 3))
    reference = dated(a, b, 0.5 * b + 0.5 * c)
    frozen = dated(a, a + 0.01, a - 0.1)
    found = patterns.change(gappy(frozen), reference)
    assert found.persistence_prediction.values == pytest.approx(1)
    d = (reference[1] - reference[0]).where(np.isfinite(gappy(frozen)[:2]).all("time"))
    assert found.mean_reference[0].item() == pytest.approx(d.mean().item())
    assert found.mean_prediction[1].item() == pytest.approx(-0.11)
    assert (found.persistence_excess > 0.2).all() and np.isnan(found.pearson_r).all()  # it changes nowhere
    assert found.static_share_prediction.values[0] > 0.9 > found.static_share_reference.values[0]
    assert found.end.values[-1] == np.datetime64("2015-09-26")
    right = patterns.change(reference * 0.5, reference)
    assert right.pearson_r.values == pytest.approx(1) and right.slope.values == pytest.approx(0.5)
    in_card = patterns.compare(reference * 0.5, reference)
    assert in_card.change_slope.values == pytest.approx(0.5)


# ---- intervals


def test_intervals_hold_what_they_should():
    """Errors that are the same all over a block: cells are no independent witnesses, blocks are."""
    held, narrow = [], []
    for seed in range(150):
        rng = np.random.default_rng(seed)
        error = rng.normal(0, 0.03, 90)
        n = np.full(90, 70.0)
        table = {"n": n, "e": n * error}
        found = intervals(table, lambda s: {"bias": s["e"] / s["n"]}, seed)["bias"]
        held.append(found[0] <= 0 <= found[1])
        narrow.append(abs(error.mean()) <= 1.96 * 0.03 / np.sqrt(6300))
    assert 0.89 <= np.mean(held) <= 0.99 and np.mean(narrow) < 0.5


def test_two_predictions_share_cells_and_draws(pair):
    p, o = pair
    q = gappy(p, 11, 0.1)
    same = patterns.compare(p, o, versus=q)
    assert same.n.item() == int((np.isfinite(p) & np.isfinite(o) & np.isfinite(q)).sum())
    assert same.rmse_difference.item() == 0 and (same.rmse_difference_interval == 0).all()
    worse = p + 0.002 * (texture(4) - 0.2) / 0.06
    found = patterns.compare(p, o, versus=worse)
    assert found.rmse_versus.item() == patterns.compare(worse, o).rmse.item()
    assert found.rmse_difference.item() == pytest.approx(found.rmse.item() - found.rmse_versus.item())
    low, high = found.rmse_difference_interval.values
    assert low <= found.rmse_difference.item() <= high
    alone = np.ptp(found.rmse_interval.values)
    assert high - low < 0.2 * alone
    swapped = patterns.compare(worse, o, versus=p)
    assert swapped.rmse_difference_interval.values == pytest.approx([-high, -low])


def test_intervals_are_about_their_estimates(card):
    names = [name.removesuffix("_interval") for name in card.data_vars if name.endswith("_interval")]
    assert {"rmse", "fss", "spaef", "ssim", "spearman_r", "r_within", "skill"} <= set(names)
    for name in names:
        low, high = (card[f"{name}_interval"].sel(bound=k) for k in ("lower", "upper"))
        assert (low <= high).all(), name
        if "spaef" not in name:  # the overlap of histograms of drawn blocks is less than that of all
            assert ((low <= card[name]) & (card[name] <= high)).all(), name


def test_another_seed_is_another_draw(pair):
    one, two, again = (patterns.compare(*pair, seed=s).rmse_interval.values for s in (0, 1, 0))
    assert not (one == two).any() and (one == again).all()


# ---- errors


@pytest.mark.parametrize(
    "spoil, choices, error, message",
    [
        (lambda a: a.isel(x=slice(1, None)), {}, ValueError, r"lie apart along 'x'.*to_grid"),
        (lambda a: a.assign_attrs(units="%"), {}, ValueError, "the prediction is in '%'"),
        (lambda a: a.rename(y="lat", x="lon"), {}, ValueError, r"the prediction has the dims \('lat', 'lon'\).*rename"),
        (lambda a: a.assign_coords(x=a.x + 500.4475), {}, ValueError, "lie apart|half a cell"),
        (lambda a: a.drop_vars("spatial_ref"), {}, ValueError, "no CRS"),
        (lambda a: a.assign_attrs(_FillValue=-9999.0), {}, ValueError, "still carries.*_FillValue"),
        (lambda a: a.to_dataset(name="sm"), {}, ValueError, "no 'soil_moisture'"),
        (lambda a: a, {"coarse_km": 2.5}, ValueError, "2.5 km is not a whole number of 1-km cells"),
        (lambda a: a, {"reference_error": -1}, ValueError, "standard error, 0 or more, not -1"),
        (lambda a: a, {"strata": texture(1)}, ValueError, "6300 values, at most 64.*land cover"),
        (lambda a: a, {"strata": "forest"}, TypeError, "DataArray of classes, not str"),
        (lambda a: a, {"coarse": texture(1).assign_attrs(units="%")}, ValueError, "the coarse field is in '%'"),
    ],
)
def test_what_cannot_be_compared_says_why(spoil, choices, error, message):
    with pytest.raises(error, match=message):
        patterns.compare(spoil(texture(2)), texture(1), **choices)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda p, o: patterns.spaef(p, o, bins=0), "'sqrt' or a positive whole number, not 0"),
        (lambda p, o: patterns.spaef(p, o, edges="own"), "'common' or 'reference-code', not 'own'"),
        (lambda p, o: patterns.fss(p, o, windows=[0]), r"whole numbers from 1 up, not \[0\]"),
        (lambda p, o: patterns.fss(p, o, windows=[2.5]), r"whole numbers from 1 up, not \[2.5\]"),
        (lambda p, o: patterns.fss(p, o, edges="zero"), "'inside' or 'all', not 'zero'"),
        (lambda p, o: patterns.ssim(p, o, window="hann"), "'gaussian' or 'uniform', not 'hann'"),
        (lambda p, o: patterns.ssim(p.assign_attrs(units="dB"), o.assign_attrs(units="dB")), "'dB'.*give data_range"),
        (lambda p, o: patterns.variogram(p, o, lags=0), "at least one lag, not 0"),
        (lambda p, o: patterns.wet_patches(p, o, min_area=-1), "0 or more: min_area=-1"),
        (lambda p, o: patterns.change(p, o), "two dates along 'time'"),
    ],
)
def test_parts_refuse_what_makes_no_sense(call, message):
    with pytest.raises(ValueError, match=message):
        call(texture(1), texture(2))


@pytest.mark.parametrize("part", ["coherence", "wet_patches"])
def test_what_needs_a_whole_date_states_its_limit(part):
    huge = Grid(1, 3000, 6000, 4100, 4100)
    lazy = field(da.zeros(huge.shape, chunks=2048), huge)
    with pytest.raises(ValueError, match="4100 x 4100 cells are more than 16777216: cut a window"):
        getattr(patterns, part)(lazy, lazy)


def test_arrays_are_placed_by_assumption(caplog):
    assert open_pair(P, O).place.f == 9
    assert "no coordinates: their cells are taken as 1 km and square" in caplog.text
    with pytest.raises(ValueError, match="without coordinates nothing tells where the coarse"):
        patterns.compare(P, O, coarse=texture(1))


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda a: a.sortby("y"), r"runs the other way: other = other.sortby\('y', ascending=False\)"),
        (lambda a: a.assign_coords(time=a.time + np.timedelta64(6, "h")), r"they share none, but days: .*floor\('D'\)"),
        (
            lambda a: a.assign_coords(time=a.time + np.timedelta64(9, "D")),
            "they share none: give fields of the same time",
        ),
        (
            lambda a: a.convert_calendar("noleap"),
            "their calendars differ .standard against noleap.: .*convert_calendar",
        ),
    ],
)
def test_axes_that_differ_say_which_line_mends_it(change, message):
    days = np.array(["2015-05-05", "2015-05-17"], "M8[ns]")
    both = texture(1).expand_dims(time=days)
    with pytest.raises(ValueError, match=message):
        patterns.compare(both, change(both))
