import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smgrid.units import SAME, canonical, conversion, convertible_to


@pytest.mark.parametrize(
    "found, wanted, value, expected",
    [
        ("K", "degC", 293.15, 20.0),
        ("1", "dB", 0.1, -10.0),
        ("g kg-1", "%", 350.0, 35.0),
        ("g/kg", "%", 350.0, 35.0),
        ("cg cm-3", "g cm-3", 142.0, 1.42),
        ("kg m-3", "g cm-3", 1420.0, 1.42),
        ("mm d-1", "m d-1", 5.0, 0.005),
        ("mm/day", "m d-1", 5.0, 0.005),
        ("kg m-2 s-1", "m d-1", 1e-4, 0.00864),
        ("%", "m3 m-3", 23.0, 0.23),
        ("1", "m3 m-3", 0.23, 0.23),
        ("cm^3/cm^3", "m3 m-3", 0.23, 0.23),
        ("0.0001", "1", 4211, 0.4211),
        ("x 10000", "1", 4211, 0.4211),
        ("radian", "degree", np.pi, 180.0),
        ("degrees_north", "degree_north", -35.0, -35.0),
        ("km", "m", 0.11, 110.0),
        ("°C", "degC", 20.0, 20.0),
    ],
)
def test_exact_conversions(found, wanted, value, expected):
    assert conversion(found, wanted)(np.array([value]))[0] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    "found, wanted",
    [
        (None, "dB"),
        ("furlong", "m"),
        ("m", "m d-1"),
        ("dB", "1"),
        ("g kg-1", "m3 m-3"),
        ("K", "dB"),
        ("10000", "1"),
        ("-1", "1"),
        ("", "m"),
    ],
)
def test_what_has_no_one_right_conversion_is_refused(found, wanted):
    assert conversion(found, wanted) is None


def test_a_unit_of_ones_own_is_only_itself():
    assert conversion("vegetation index points", "vegetation index points") == SAME
    assert conversion("vegetation index points", "1") is None


@given(st.sampled_from(["K", "1", "g kg-1", "kg m-3", "mm d-1", "radian", "km"]), st.floats(-1e3, 1e3))
def test_there_and_back(unit, value):
    for other in convertible_to(unit):
        there, back = conversion(unit, other), conversion(other, unit)
        if there is not None and back is not None and not there.decibel:
            assert back(there(np.array([value])))[0] == pytest.approx(value, rel=1e-12, abs=1e-9)


def test_values_that_need_nothing_are_not_touched():
    values = np.arange(3, dtype="f4")
    assert conversion("decibel", "dB")(values) is values
    assert canonical("percent") == "%"
