"""Laws of the walk over a block: the compiled half and numpy give the same bits, whatever the arrays look like."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smgrid.cells import Known, _Places, _Runs, judge, judge_by_numpy
from smgrid.features import PAPER, Predictor
from smgrid.native import native

needs_native = pytest.mark.skipif(native() is None, reason="the compiled half is not there")
ODD = [np.nan, np.inf, -np.inf, -0.0, 0.0, -9999.0, 1e30, 1e39, -3.5e38, 4.9e-324]
DTYPES = ["f4", "f8", ">f4", "i2", "u1", "?", "f2", "i8"]
PREDICTORS = [
    Predictor("%", 0, 100),
    Predictor("1", 0, 1),
    Predictor("1", -1, 1),
    Predictor(None),
    Predictor("dB", -30.3, np.float64(5.1)),
    PAPER["day_of_year"],
    PAPER["longitude"],
]


@st.composite
def blocks(draw):
    """Some predictors of one block, of odd values, types, dims and strides."""
    shape = tuple(draw(st.lists(st.integers(1, 40), min_size=1, max_size=3)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    values = []
    for _ in range(draw(st.integers(1, 4))):
        own = tuple(n if draw(st.booleans()) else 1 for n in shape)
        value = rng.uniform(-40, 60, own)
        odd = rng.random(own) < draw(st.sampled_from([0, 0, 0.05, 0.5]))
        value[odd] = rng.choice(ODD, int(odd.sum()))
        if draw(st.booleans()) and own[0] > 2:
            value[: own[0] // 2] = np.nan
        with np.errstate(all="ignore"):
            value = value.astype(draw(st.sampled_from(DTYPES)))
        way = draw(st.sampled_from(["plain", "turned", "backward", "apart", "unaligned"]))
        if way == "turned":
            value = np.ascontiguousarray(value.T).T
        elif way == "backward":
            value = value[::-1]
        elif way == "apart":
            value = np.repeat(value, 3, axis=-1)[..., ::3]
        elif way == "unaligned":
            raw = np.zeros(value.nbytes + 1, "u1")
            raw[1:] = np.frombuffer(value.tobytes(), "u1")
            value = raw[1:].view(value.dtype).reshape(value.shape)
        values.append(value)
    return shape, values


@needs_native
@settings(max_examples=150)
@given(blocks(), st.sampled_from(["plain", "avx2", "avx512"]), st.booleans(), st.data())
def test_compiled_and_numpy_give_the_same_bits(block, form, trained, data):
    shape, values = block
    before = native().form()
    try:
        native().form(form)
    except ValueError:
        return  # not on this processor
    try:
        made = []
        predictors = [data.draw(st.sampled_from(PREDICTORS)) for _ in values]
        for function in (judge, judge_by_numpy):
            status, culprit = np.zeros(shape, "u1"), np.zeros(shape, "u1")
            status.reshape(-1)[::7] = 4  # masked
            with np.errstate(all="ignore"):
                left = [
                    function(v, status, culprit, k, p.plausible, (-20.1, 30.7) if trained else None)
                    for k, (v, p) in enumerate(zip(values, predictors), 1)
                ]
            made.append((status.tobytes(), culprit.tobytes(), left))
        assert made[0] == made[1]
        start = data.draw(st.integers(0, left[-1]))
        stop = data.draw(st.integers(start, left[-1]))
        for way in (predictors, None):
            with np.errstate(all="ignore"):
                fast, slow = (kind(status, values, way) for kind in (_Runs, _Places))
            assert fast.count == slow.count == left[-1]
            for dtype in ("f4", "f8") if fast.count else ():
                with np.errstate(all="ignore"):
                    a, b = (known.tile(start, stop, dtype) for known in (fast, slow))
                assert a.dtype == b.dtype and a.flags.c_contiguous
                np.testing.assert_array_equal(a.view(f"u{a.itemsize}"), b.view(f"u{b.itemsize}"))
        layers = [np.full(shape, np.nan, "f4") for _ in range(2)]
        found = np.arange(stop - start, dtype="f4")
        fast.put(found, start, layers[0])
        slow.put(found, start, layers[1])
        np.testing.assert_array_equal(*layers)
    finally:
        native().form(before)


@pytest.mark.parametrize("name", ["day_of_year", "longitude"])
def test_sine_and_cosine_of_an_axis_are_those_of_its_cells(name):
    axis = np.random.default_rng(0).uniform(-180, 366, (1, 611))
    status = np.zeros((67, 611), "u1")
    tiles = [
        Known.of(status, [value], [PAPER[name]]).tile(0, status.size, "f8")
        for value in (axis, np.repeat(axis, 67, axis=0))
    ]
    assert tiles[0].tobytes() == tiles[1].tobytes()


@needs_native
def test_hostile_arrays_are_refused():
    c, f4 = native(), np.zeros((3, 4), "f4")
    u1, runs = np.zeros((3, 4), "u1"), np.array([[0, 0], [12, 12]])
    limits = (1, 0.0, 1.0, 0.0, 1.0, True)
    for field, status, culprit in [
        (f4.astype("i4"), u1, u1.copy()),
        (f4.astype(">f4"), u1, u1.copy()),
        (f4[:2], u1, u1.copy()),
        (f4, u1[:2], u1.copy()),
        (f4, u1, u1.astype("i4")),
        (np.zeros(49, "u1")[1:].view("f4").reshape(3, 4), u1, u1.copy()),
    ]:
        with pytest.raises(ValueError, match=r"field|status|culprit"):
            c.judge(field, status, culprit, *limits)
    for status in (np.broadcast_to(u1[0], (3, 4)), bytes(12)):
        with pytest.raises((ValueError, BufferError)):
            c.judge(f4, status, u1.copy(), *limits)
    row, scale = np.zeros(12, "f4"), np.zeros((1, 2))
    for bad in ([[0, 0], [12, 11]], [[5, 0], [12, 12]], [[-1, 0], [12, 12]], [[2**62, 0], [12, 12]], [[0, 0]],
                [[0, -(2**63)], [12, 2**63 - 1]], [[0, 5], [12, 12]]):  # fmt: skip
        with pytest.raises(ValueError, match="runs do not fit"):
            c.gather((f4,), scale, np.array(bad), 12, 0, row[None])
        with pytest.raises(ValueError, match="runs do not fit"):
            c.scatter(row, np.array(bad), 0, f4.copy())
    for start in (-1, 1, 2**62):
        with pytest.raises(ValueError, match="runs"):
            c.gather((f4,), scale, runs, 12, start, row[None])
    for fields, scales, cells, tile in [
        ((f4, f4), scale, 12, row[None]),
        ((f4,), np.zeros((2, 2)), 12, row[None]),
        ((f4,), scale.astype("f4"), 12, row[None]),
        ((f4,), scale, 11, row[None]),
        ((f4,), scale, -1, row[None]),
        ((f4[:2],), scale, 12, row[None]),
        ((f4,), scale, 12, row),
        ((f4,), scale, 12, np.zeros((1, 13), "f4")),
        ((f4,), scale, 12, np.zeros((1, 12), "i4")),
        ((f4.astype("u1"),), scale, 12, row[None]),
    ]:
        with pytest.raises(ValueError):
            c.gather(fields, scales, runs, cells, 0, tile)
    with pytest.raises(TypeError):
        c.gather([f4], scale, runs, 12, 0, row[None])
    with pytest.raises(ValueError, match="runs do not fit"):
        c.runs(u1, np.zeros((1, 2), "i8"))
    with pytest.raises(ValueError, match="two types"):
        c.scatter(np.zeros(12, "u1"), runs, 0, f4.copy())
    with pytest.raises(ValueError, match="at most 16"):
        c.judge(np.zeros((1,) * 17, "f4"), u1, u1.copy(), *limits)
