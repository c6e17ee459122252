import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smgrid.features import PAPER, Predictor, contract, day_of_year, encode, input_names, match_units, suggest


def test_the_table_makes_25_inputs():
    assert len(PAPER) == 23
    assert sum(p.inputs for p in PAPER.values()) == len(input_names(PAPER)) == 25
    with pytest.raises(TypeError):
        PAPER["vv"] = Predictor("1")


def encoded(name, value):
    return encode([np.array([value])], [PAPER[name]])[0].tolist()


@pytest.mark.parametrize(
    "name, value, expected",
    [
        ("vv", -30, [0.0]),
        ("vv", 5, [1.0]),
        ("air_temperature", 15.0, [25 / 45]),  # with the printed -35 it would be -1
        ("longitude", 146.1, [0.5577, -0.8300]),
        ("latitude", -35.1, [-0.39]),
        ("aspect_sin", -0.4, [-0.4]),
        ("ndvi", 0.4, [0.5]),
        ("day_of_year", 365.25, [0.0, 1.0]),
    ],
)
def test_encoding(name, value, expected):
    assert encoded(name, value) == pytest.approx(expected, abs=6e-5)


def test_longitudes_180_apart_do_not_collide():
    assert np.abs(np.subtract(encoded("longitude", 10.0), encoded("longitude", -170.0))).max() > 0.1


@given(st.dates(pd.Timestamp("1950-01-01").date(), pd.Timestamp("2100-01-01").date()))
def test_day_of_year_is_that_of_pandas(date):
    assert day_of_year([np.datetime64(date)])[0] == date.timetuple().tm_yday


def test_no_date_has_no_day():
    assert np.isnan(day_of_year(np.array(["NaT", "2015-01-01"], "M8[ns]"))).tolist() == [True, False]


def test_own_names_get_an_empty_contract():
    assert contract(["vv", "ratio"]) == {"vv": PAPER["vv"], "ratio": Predictor(None)}
    with pytest.raises(ValueError, match=r"\['vv'\] more than once"):
        contract(["vv", "vh", "vv"])
    with pytest.raises(TypeError, match=r"features=\['vv'\]"):
        contract("vv")
    with pytest.raises(TypeError, match="Predictor"):
        contract({"vv": "dB"})
    with pytest.raises(ValueError, match="empty"):
        contract([])


@pytest.mark.parametrize(
    "missing, present, expected",
    [
        ("vv", ["VV", "x"], "VV"),
        ("air_temperature", ["t2m"], "t2m"),
        ("elevation", ["elevatoin"], "elevatoin"),
        ("smap", ["sand"], None),
    ],
)
def test_near_names(missing, present, expected):
    assert suggest(missing, present) == expected


def test_units_at_the_callers_word():
    found = {"vv": None, "smap": "percent"}
    _, faults = match_units(found, PAPER, None)
    assert len(faults) == 1 and "'vv' carries no units" in faults[0] and "cube['vv'].attrs['units'] = 'dB'" in faults[0]
    assert match_units(found, PAPER, {"vv": "dB"})[1] == []
    conversions, faults = match_units(found, PAPER, "canonical")
    assert not faults and conversions["smap"].scale == 1
    with pytest.raises(ValueError, match="the word 'canonical'"):
        match_units(found, PAPER, "si")


def test_implausible_is_farther_out_than_the_range_is_wide():
    assert PAPER["smap"].plausible == pytest.approx((-0.6, 1.2))
    assert PAPER["longitude"].plausible == (-np.inf, np.inf)
