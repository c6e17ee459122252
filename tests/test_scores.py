import dask
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import smgrid
from smgrid import scores

MEASURES = [scores.bias, scores.rmse, scores.ubrmse, scores.pearson_r]
ALL = [*MEASURES, scores.count]
by_name = pytest.mark.parametrize("measure", ALL, ids=lambda f: f.__name__)


def oracle_pair():
    """The 12 x 12 arrays of a published table of measures."""
    i, j = np.mgrid[:12, :12]
    o = 0.20 + 0.10 * np.sin(2 * np.pi * i / 12) * np.cos(2 * np.pi * j / 9) + 0.03 * ((7 * i + 3 * j) % 11) / 10
    p = 0.22 + 0.06 * np.sin(2 * np.pi * (i - 1) / 12) * np.cos(2 * np.pi * j / 9) + 0.03 * ((5 * i + 2 * j) % 13) / 12
    return xr.DataArray(p, dims=("y", "x")), xr.DataArray(o, dims=("y", "x"))


def pair(gaps=0.2, seed=0, days=5):
    grid = smgrid.Grid(1, 11466, 31401, 12, 9)
    rng = np.random.default_rng(seed)
    shape = (days, *grid.shape)
    o = rng.normal(0.2, 0.05, shape)
    p = 0.1 + 0.5 * o + rng.normal(0, 0.02, shape)
    coords = {**grid.coords(), "time": np.datetime64("2015-05-05", "ns") + np.arange(days) * np.timedelta64(1, "D")}
    made = []
    for values in (p, o):
        values[rng.random(shape) < gaps] = np.nan
        made.append(xr.DataArray(values, coords=coords, dims=("time", "y", "x"), attrs={"units": "m3 m-3"}))
    return made


def by_hand(p, o):
    known = np.isfinite(p) & np.isfinite(o)
    p, o = p[known], o[known]
    d = p - o
    return [d.mean(), np.sqrt((d**2).mean()), d.std(), np.corrcoef(p, o)[0, 1], known.sum()]


def test_published_values():
    p, o = oracle_pair()
    found = [scores.bias(p, o).item(), scores.rmse(p, o).item(), scores.pearson_r(p, o).item()]
    assert found == pytest.approx([0.0201041667, 0.0376224835, 0.8080036522], abs=5e-11)
    assert scores.count(p, o).item() == 144


@pytest.mark.parametrize("dim", [None, ("y", "x"), "time", ("time", "x")])
def test_measures_are_those_of_the_common_cells(dim):
    p, o = pair(gaps=0.1)
    dims = p.dims if dim is None else (dim,) if dim == "time" else dim
    kept = [d for d in p.dims if d not in dims]
    n = scores.count(p, o, dim=dim)
    for k, measure in enumerate(ALL):
        found = measure(p, o, dim=dim)
        assert list(found.dims) == kept and all(found.indexes[d].equals(p.indexes[d]) for d in kept)
        for place in np.argwhere(n.values > 2):
            at = dict(zip(kept, place))
            assert found[at].item() == pytest.approx(by_hand(p[at].values, o[at].values)[k], rel=1e-10)
    assert n.min() > 0


@by_name
@settings(max_examples=12)
@given(t=st.integers(2, 5), y=st.integers(4, 12), x=st.integers(4, 9), dim=st.sampled_from([None, "time", ("y", "x")]))
def test_chunks_do_not_matter(measure, t, y, x, dim):
    p, o = pair()
    whole = measure(p, o, dim=dim)
    for chunked in (measure(p.chunk(time=t, y=y, x=x), o.chunk(y=x, x=y), dim=dim), measure(p.chunk(y=y), o, dim=dim)):
        assert chunked.chunks is not None
        np.testing.assert_allclose(chunked.values, whole.values, rtol=1e-12, atol=1e-14)
        xr.testing.assert_allclose(chunked.compute(), whole)


@by_name
def test_lazy_stays_lazy(measure, no_compute):
    p, o = (field.chunk(time=2) for field in pair())
    assert measure(p, o, dim=("y", "x")).chunks == ((2, 2, 1),)
    assert scores.common_mask(p, o).chunks is not None


def test_measures_computed_together_read_the_fields_once():
    reads = []

    def read(block, block_info=None):
        reads.append(block_info[0]["chunk-location"])
        return block

    p, o = (field.chunk(time=1) for field in pair())
    p = p.copy(data=p.data.map_blocks(read, dtype="f8", meta=np.empty((0, 0, 0))))
    dask.compute(*(measure(p, o) for measure in MEASURES))
    assert sorted(reads) == [(t, 0, 0) for t in range(5)]


@pytest.mark.parametrize("level", [0.0, 280.0, 1e6])
def test_a_large_mean_costs_no_digits(level):
    p, o = pair()
    shift = 2.0**20 * round(level / 2**20) if level == 1e6 else level
    for measure in (scores.ubrmse, scores.pearson_r):
        moved = measure((p + shift).chunk(y=5), (o + shift).chunk(y=5))
        assert float(moved) == pytest.approx(measure(p, o).item(), rel=1e-7 if level == 1e6 else 1e-10)


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_constant_has_no_correlation(dtype, chunked):
    p, o = (field.astype(dtype) for field in pair())
    flat = xr.where(np.isfinite(p), np.asarray(0.1, dtype), np.nan)
    flat = flat.chunk(time=2, y=5) if chunked else flat
    assert np.isnan(float(scores.pearson_r(flat, o))) and np.isnan(float(scores.pearson_r(o, flat)))
    assert float(scores.ubrmse(flat, flat)) == 0.0


@pytest.mark.parametrize("chunks", [None, {"y": 5}])
def test_nothing_in_common_is_nan_without_a_warning(chunks):
    p, o = pair(gaps=0)
    p[1], o[2, :6], p[2, 6:] = np.nan, np.nan, np.inf
    if chunks:
        p, o = p.chunk(chunks), o.chunk(chunks)
    for measure in MEASURES:
        assert np.isfinite(measure(p, o, dim=("y", "x"))).values.tolist() == [True, False, False, True, True]
    assert scores.count(p, o, dim=("y", "x")).values.tolist() == [108, 0, 0, 108, 108]


@settings(max_examples=15)
@given(slope=st.floats(0.1, 5), offset=st.floats(-2, 2))
def test_laws_of_the_measures(slope, offset):
    p, o = pair()
    known = scores.common_mask(p, o)
    assert scores.bias(p + offset, o).item() == pytest.approx(scores.bias(p, o).item() + offset, abs=1e-13)
    assert scores.ubrmse(p + offset, o).item() == pytest.approx(scores.ubrmse(p, o).item(), rel=1e-11)
    assert scores.pearson_r(slope * p + offset, o).item() == pytest.approx(scores.pearson_r(p, o).item(), rel=1e-11)
    assert scores.rmse(p, o).item() ** 2 == pytest.approx(
        scores.bias(p, o).item() ** 2 + scores.ubrmse(p, o).item() ** 2, rel=1e-12
    )
    assert scores.rmse(p.where(known), o.where(known)).item() == scores.rmse(p, o).item()
    assert scores.pearson_r(o, o).item() == pytest.approx(1, abs=1e-15)
    assert scores.ubrmse(o + offset, o).item() == pytest.approx(0, abs=1e-14)


@pytest.mark.parametrize("chunks", [None, {"y": 5, "x": 4}])
def test_dims_that_one_field_lacks_are_broadcast(chunks):
    p, o = pair()
    first = o.isel(time=0, drop=True)
    lazy = p.chunk(chunks) if chunks else p
    for measure in ALL:
        found = measure(lazy, first, dim=("y", "x"))
        each = [measure(p.isel(time=t), first).item() for t in range(5)]
        assert found.dims == ("time",)
        np.testing.assert_allclose(found.values, each, rtol=1e-12)
        models = xr.concat([p, o], "model").transpose("y", "model", "time", "x")
        assert measure(models, o, dim=("y", "x", "time")).dims == ("model",)


def test_maps_are_taken_as_their_soil_moisture():
    p, o = pair()
    for measure in ALL:
        assert measure(p.to_dataset(name="soil_moisture"), o).identical(measure(p, o))
    with pytest.raises(ValueError, match="no 'soil_moisture'"):
        scores.rmse(p.to_dataset(name="sm"), o)


@by_name
def test_entries_explain_themselves(measure):
    p, o = pair()
    found = measure(p, o)
    assert found.name == measure.__name__
    assert {"long_name", "units", "formula", "source"} == set(found.attrs)
    assert "doi:" in found.attrs["source"] and found.attrs["source"].split("doi:")[1] in measure.__doc__
    assert found.attrs["units"] == ("1" if measure in (scores.pearson_r, scores.count) else "m3 m-3")
    assert "units" not in scores.rmse(*oracle_pair()).attrs
    assert "spatial_ref" not in found.coords and "spatial_ref" in measure(p, o, dim="time").coords


@pytest.mark.parametrize(
    "jitter",
    [
        lambda da: da.assign_coords(x=da.x + 2.5e-9, y=da.y - 2.5e-9),
        lambda da: da.assign_coords(x=da.x + 0.9, y=da.y - 0.9).drop_vars("spatial_ref"),
        lambda da: da.assign_coords(x=da.x.astype("f4"), y=da.y.astype("f4")),
        lambda da: da.assign_coords(x=da.x + 8.0),
        lambda da: da.drop_vars(["x", "y"]),
    ],
    ids=["geotiff", "jitter", "float32", "same window", "no labels"],
)
def test_jitter_of_the_axes_is_no_difference(jitter):
    p, o = pair()
    for measure in ALL:
        assert measure(p, jitter(o)).identical(measure(p, o))
    np.testing.assert_array_equal(scores.common_mask(p, jitter(o)), scores.common_mask(p, o))


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda da: da.isel(x=slice(1, None)), r"apart along 'x': 9 from 1406\d+.* against 8 from .*smgrid.to_grid"),
        (lambda da: da.assign_coords(y=da.y + 500.4475), r"apart along 'y': 12 from"),
        (lambda da: da.assign_coords(x=da.x + 1000.895), r"apart along 'x'"),
        (lambda da: da.isel(y=slice(None, None, -1)), r"apart along 'y'"),
        (lambda da: da.isel(time=[0, 1, 2]), r"apart along 'time': 5 from 2015-05-05.*keep the 3 they share.*xr.align"),
        (lambda da: da.rename(x="lon"), r"would be crossed.*other.rename\(\{'lon': 'x'\}\)"),
        (lambda da: da.isel(x=slice(1, None)).drop_vars("x"), r"differ along 'x': 9 against 8, and without labels"),
    ],
)
def test_fields_that_do_not_meet_say_why(spoil, message):
    p, o = pair()
    for measure in ALL:
        with pytest.raises(ValueError, match=message):
            measure(p, spoil(o))


def test_unknown_dimensions_are_named():
    with pytest.raises(ValueError, match=r"no dimensions \['lat'\].*\('time', 'y', 'x'\)"):
        scores.rmse(*pair(), dim=("lat", "x"))
    with pytest.raises(ValueError, match="at least one field"):
        scores.common_mask()


def test_units_must_agree():
    p, o = pair()
    percent = (100 * o).assign_attrs(units="%")
    for measure in (scores.bias, scores.rmse, scores.ubrmse):
        assert measure(p, o.assign_attrs(units="cm**3/cm**3")).identical(measure(p, o))
        with pytest.raises(ValueError, match=r"prediction is in 'm3 m-3', the reference in '%': (.*)") as caught:
            measure(p, percent)
        scope = {"reference": percent}
        exec(str(caught.value).split(": ")[1], scope)
        xr.testing.assert_allclose(measure(p, scope["reference"]), measure(p, o), rtol=1e-12)
        with pytest.raises(ValueError, match="'K': convert one"):
            measure(p, o.assign_attrs(units="K"))
    xr.testing.assert_allclose(scores.pearson_r(p, percent), scores.pearson_r(p, o), rtol=1e-12)
