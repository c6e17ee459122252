import numpy as np
import pandas as pd
import pytest
import xarray as xr
from sklearn.ensemble import RandomForestRegressor
from sklearn.linear_model import LinearRegression, Ridge

from smgrid import PAPER, Model, Predictor, train
from smgrid.columns import sample_columns

rng = np.random.default_rng(0)
TABLE = pd.DataFrame(
    {
        "vv": rng.uniform(-18, -6, 200),
        "vh": rng.uniform(-26, -14, 200),
        "air_temperature": rng.uniform(0, 30, 200),
        "time": pd.Timestamp("2019-01-01") + pd.to_timedelta(rng.integers(0, 700, 200), unit="D"),
        "station": rng.integers(0, 9, 200),
    }
)
TABLE["soil_moisture"] = 0.2 + 0.01 * (TABLE.vv + 12)


def test_training_is_remembered():
    caller = RandomForestRegressor(5, random_state=3)
    model = train(TABLE, caller, features=["vv", "vh", "day_of_year"])
    assert not hasattr(caller, "estimators_")
    assert model.training["rows"] == 200 and model.training["stations"] == 9 and model.training["seed"] == 3
    assert model.training["period"].startswith("2019-01-")
    assert model.training["versions"]["sklearn"]
    assert model.ranges["vv"] == (TABLE.vv.min(), TABLE.vv.max())
    assert model.regressor.n_features_in_ == 4
    assert "day_of_year" in repr(model) and len(repr(model).splitlines()) < 24
    assert "<table>" in model._repr_html_()


def test_rows_with_gaps_are_left_out_and_predicted_as_gaps():
    holed = TABLE.copy()
    holed.loc[:9, "vv"] = np.nan
    holed.loc[10:14, "soil_moisture"] = np.nan
    holed.loc[15, "vh"] = np.inf
    model = train(holed, LinearRegression(), features=["vv", "vh"])
    assert model.training["rows"] == 184 and model.training["rows left out"] == 16
    assert np.isnan(model.predict(holed)[:10]).all() and np.isfinite(model.predict(holed)[20:]).all()


def test_the_order_of_columns_does_not_matter():
    a = train(TABLE, Ridge(), features=["vv", "vh"])
    b = train(TABLE[TABLE.columns[::-1]], Ridge(), features=["vv", "vh"])
    assert a.digest == b.digest
    np.testing.assert_array_equal(a.predict(TABLE), b.predict(TABLE[TABLE.columns[::-1]]))
    assert a.digest != train(TABLE, Ridge(2.0), features=["vv", "vh"]).digest
    assert a.digest != train(TABLE, Ridge(), features=["vh", "vv"]).digest


def test_an_idea_of_ones_own():
    table = TABLE.assign(ratio=TABLE.vv - TABLE.vh)
    model = train(table, Ridge(), features=["vv", "ratio"])
    assert model.predictors["ratio"].min == table.ratio.min()
    samples = xr.Dataset.from_dataframe(table.drop(columns="time"))
    for name in ("vv", "ratio"):
        samples[name].attrs["units"] = "dB"
    samples.soil_moisture.attrs["units"] = "m3 m-3"
    assert train(samples, Ridge(), features=["vv", "ratio"]).predictors["ratio"].units == "dB"
    assert train(table, Ridge(), features={"ratio": Predictor("dB", 0, 20)}).predictors["ratio"].max == 20


def test_a_dataset_and_a_table_train_the_same():
    samples = xr.Dataset.from_dataframe(TABLE)
    samples["vv"] = (10 ** (samples.vv / 10)).assign_attrs(units="1")
    samples["soil_moisture"] = (samples.soil_moisture * 100).assign_attrs(units="%")
    model = train(samples, Ridge(), features=["vv"])
    np.testing.assert_allclose(model.predict(samples), train(TABLE, Ridge(), features=["vv"]).predict(TABLE), rtol=1e-6)


@pytest.mark.parametrize(
    "table, features, message",
    [
        (TABLE, list(PAPER), r"lack the predictors .*features=\['vv', 'vh', 'day_of_year', 'air_temperature'\]"),
        (TABLE.rename(columns={"vv": "VV"}), ["vv"], r"samples = samples.rename\(columns=\{'VV': 'vv'\}\)"),
        (
            xr.Dataset.from_dataframe(TABLE.drop(columns="time")).rename(vv="VV"),
            ["vv"],
            r"samples = samples.rename\(\{'VV': 'vv'\}\)",
        ),
        (TABLE, ["vv", "soil_moisture"], "is what the model learns"),
        (TABLE.assign(vv=10 ** (TABLE.vv / 10)), ["vv"], r"linear power rather than dB: units=\{'vv': '1'\}"),
        (TABLE.assign(vv=TABLE.vv.astype(object).where(TABLE.index > 3, "n/a")), ["vv"], "'vv' does not hold numbers"),
        (
            TABLE.assign(air_temperature=TABLE.air_temperature + 273.15),
            ["air_temperature"],
            r"median 28\d.*units=\{'air_temperature': 'K'\}",
        ),
        (TABLE.assign(soil_moisture=TABLE.soil_moisture * 100), ["vv"], r"'soil_moisture' has the median.*'%'"),
        (TABLE.drop(columns="soil_moisture"), ["vv"], "no 'soil_moisture'"),
        (TABLE.assign(vv=np.nan), ["vv", "vh"], r"none of the 200 rows.*always missing or invalid: \['vv'\]"),
        (pd.concat([TABLE, TABLE.vv], axis=1), ["vv"], r"\['vv'\] come more than once"),
        (xr.Dataset.from_dataframe(TABLE), ["vv"], "'vv' carries no units.*samples\\['vv'\\]"),
    ],
)
def test_bad_samples(table, features, message):
    with pytest.raises(ValueError, match=f"(?s){message}"):
        train(table, Ridge(), features=features)


@pytest.mark.parametrize("spoil", [lambda soil: soil * 100, lambda soil: -soil, lambda soil: soil * 0 - 9999])
@pytest.mark.parametrize("units", [None, "canonical"])
def test_targets_that_are_no_soil_moisture_are_refused(spoil, units):
    data = xr.Dataset.from_dataframe(TABLE[["vv", "soil_moisture"]])
    data["vv"].attrs["units"] = "dB"
    data["soil_moisture"] = spoil(data["soil_moisture"]).assign_attrs(units="m3 m-3")
    message = (
        r"(?s)'soil_moisture': \d+ of 200 targets lie outside 0..1 m3 m-3; they range .*units=\{'soil_moisture': '%'\}"
    )
    with pytest.raises(ValueError, match=message):
        train(data, Ridge(), features=["vv"], units=units)
    with pytest.raises(ValueError, match=r"'soil_moisture' has the median .* outside the 0 to 1 m3 m-3"):
        train(data.to_dataframe(), Ridge(), features=["vv"], units="canonical")


def test_units_of_a_table_at_the_callers_word():
    kelvin = TABLE.assign(air_temperature=TABLE.air_temperature + 273.15)
    model = train(kelvin, Ridge(), features=["air_temperature"], units={"air_temperature": "K"})
    np.testing.assert_allclose(
        model.predict(TABLE), train(TABLE, Ridge(), features=["air_temperature"]).predict(TABLE), rtol=1e-6
    )


def test_what_is_no_regressor():
    with pytest.raises(TypeError, match="has fit and predict"):
        train(TABLE, "rf", features=["vv"])
    with pytest.raises(TypeError, match=r"a regressor is one, not its class: Ridge\(\), with its parameters"):
        train(TABLE, Ridge, features=["vv"])
    with pytest.raises(TypeError, match="Dataset or a pandas DataFrame"):
        sample_columns([1, 2], {"vv": PAPER["vv"]}, None)


def test_foreign_estimators_keep_their_order():
    plain = Ridge().fit(TABLE[["vh", "vv"]].to_numpy(), TABLE.soil_moisture)
    model = Model.from_estimator(plain, features=["vh", "vv"])
    np.testing.assert_array_equal(
        model.predict(TABLE[["vv", "vh"]]), plain.predict(TABLE[["vh", "vv"]].to_numpy()).astype("f4")
    )
    named = Ridge().fit(TABLE[["vh", "vv"]].rename(columns={"vv": "s0"}), TABLE.soil_moisture)
    model = Model.from_estimator(named, features={"s0": "vv"})
    assert list(model.predictors) == ["vh", "vv"]
    np.testing.assert_array_equal(model.predict(TABLE), plain.predict(TABLE[["vh", "vv"]].to_numpy()).astype("f4"))


@pytest.mark.parametrize(
    "features, units, message",
    [
        (["vv"], None, "fitted on 2 columns, but features name 1"),
        (["vv", "vh"], {"sand": "%"}, r"units name \['sand'\], which the estimator does not use"),
        (["vv", "vh"], {"vv": "furlong"}, "the unit 'furlong' of 'vv' is unknown"),
        ({"a": "vv"}, None, "no names of its own"),
    ],
)
def test_contracts_that_cannot_be(features, units, message):
    plain = Ridge().fit(TABLE[["vh", "vv"]].to_numpy(), TABLE.soil_moisture)
    with pytest.raises(ValueError, match=message):
        Model.from_estimator(plain, units, features=features)


def test_a_path_is_no_model():
    with pytest.raises(TypeError, match=r"a model is no path: smgrid.load_model\('rf.model'\)"):
        Model.from_estimator("rf.model")


def test_a_named_index_counts_as_columns():
    names = [f"S{n % 7}" for n in range(len(TABLE))]
    plain = train(TABLE.assign(station=names), Ridge(), features=["vv", "vh"])
    indexed = train(TABLE.assign(station=names).set_index("station"), Ridge(), features=["vv", "vh"])
    assert indexed.calibration is not None and indexed.digest == plain.digest
    np.testing.assert_array_equal(indexed.predict(TABLE.set_index("vv")), plain.predict(TABLE))


def test_targets_that_are_all_equal_are_said(caplog):
    train(TABLE.assign(soil_moisture=0.2), Ridge(), features=["vv", "vh"])
    assert "all 200 targets are 0.2 m3 m-3, so every map will be: is this the right column?" in caplog.text


def test_named_estimators_are_not_renamed_by_position():
    named = Ridge().fit(TABLE[["vh", "vv"]], TABLE.soil_moisture)
    with pytest.raises(ValueError, match="leave features out"):
        Model.from_estimator(named, features=["vv", "vh"])
    with pytest.raises(ValueError, match="give a mapping"):
        Model.from_estimator(named, features=["vv", "ndvi"])
    with pytest.raises(ValueError, match="does not know"):
        Model.from_estimator(named, features={"s0": "vv"})


def test_a_foreign_unit_frees_from_the_tables_range():
    named = Ridge().fit(TABLE[["air_temperature"]] + 273.15, TABLE.soil_moisture)
    model = Model.from_estimator(named, units={"air_temperature": "K"})
    assert model.predictors["air_temperature"] == Predictor("K")


def test_description_round_trip():
    model = train(TABLE, Ridge(), features=["vv", "day_of_year"])
    again = Model.from_description(model.description(), model.regressor, model.calibration)
    assert again.digest == model.digest and again.description() == model.description()


def test_a_row_without_a_date_is_left_out_where_the_day_counts():
    holed = TABLE.assign(time=TABLE.time.where(TABLE.index >= 20))
    model = train(holed, Ridge(), features=["vv", "day_of_year"])
    assert model.training["rows"] == 180 and model.ranges["day_of_year"][0] >= 1
    assert model.training["period"].startswith("2019-01-")
    assert np.isnan(model.predict(holed)[:20]).all()
    assert train(holed, Ridge(), features=["vv"]).training["rows"] == 200


@pytest.mark.parametrize(
    "time",
    [
        TABLE.time.dt.strftime("%Y%m%d").astype(int),
        TABLE.time.astype("int64"),
        TABLE.time.dt.strftime("%d/%m/%Y"),
    ],
)
def test_what_is_no_date_is_refused(time):
    with pytest.raises(ValueError, match=r"the samples' time cannot be read.*pd\.to_datetime"):
        train(TABLE.assign(time=time), Ridge(), features=["vv", "day_of_year"])


@pytest.mark.parametrize(
    "time", [TABLE.time.astype(str), TABLE.time.dt.tz_localize("UTC"), TABLE.time.dt.date, TABLE.time.dt.as_unit("s")]
)
def test_dates_in_any_clear_form_are_the_same_days(time):
    features = ["vv", "day_of_year"]
    assert (
        train(TABLE.assign(time=time), Ridge(), features=features).digest
        == train(TABLE, Ridge(), features=features).digest
    )


@pytest.mark.parametrize("fill", [-9999.0, 1e30, np.inf])
@pytest.mark.parametrize("column", ["vv", "soil_moisture"])
def test_fills_are_not_trained_on(column, fill, caplog):
    features, filled = ["vv", "vh"], TABLE.copy()
    filled.loc[:9, column] = fill
    with caplog.at_level("INFO", logger="smgrid"):
        model = train(filled, Ridge(), features=features)
    assert model.digest == train(TABLE.iloc[10:], Ridge(), features=features).digest
    assert f"10 of 200 rows left out for an invalid value, a fill or another unit: {column} 10" in caplog.text
    assert "missing" not in caplog.text
    assert np.isnan(model.predict(filled)[:10]).all() == (column == "vv")
    assert np.isfinite(model.predict(filled)[10:]).all()


def test_a_declared_unit_that_no_row_bears_is_said():
    samples = xr.Dataset.from_dataframe(TABLE.drop(columns="time")).rename(index="sample")
    for name, unit in {"vv": "dB", "vh": "dB", "soil_moisture": "m3 m-3", "air_temperature": "degC"}.items():
        samples[name].attrs["units"] = unit
    samples["air_temperature"] = (samples.air_temperature + 373).assign_attrs(units="degC")
    with pytest.raises(ValueError, match=r"none of the 200 rows.*invalid: \['air_temperature'\]"):
        train(samples, Ridge(), features=["vv", "air_temperature"])


def test_units_of_a_name_that_is_nowhere_are_refused():
    with pytest.raises(ValueError, match=r"units name \['air_temp'\], which are not there; there are \['vv'"):
        train(TABLE, Ridge(), features=["vv"], units={"air_temp": "K"})
    said = {"vv": "dB", "air_temperature": "degC"}  # a table's, not all of them this model's
    assert train(TABLE, Ridge(), features=["vv"], units=said).digest == train(TABLE, Ridge(), features=["vv"]).digest


def test_canonical_holds_for_the_target_too():
    samples = xr.Dataset.from_dataframe(TABLE.drop(columns="time"))
    model = train(samples, Ridge(), features=["vv"], units="canonical")
    assert model.digest == train(TABLE, Ridge(), features=["vv"]).digest


def test_decibels_above_0_pass_at_the_callers_word():
    loud = TABLE.assign(vv=(TABLE.vv + 18) / 4)
    assert train(loud, Ridge(), features=["vv"], units={"vv": "dB"}).ranges["vv"][0] > 0
