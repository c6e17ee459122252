import numpy as np
import pandas as pd
import pytest

from smgrid import Grid
from smgrid.sources import oznet, points

COLUMNS = {"time": "Date", "latitude": "Lat", "longitude": "Lon", "soil_moisture": "VWC", "quality": "q"}


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "hdas.csv"
    path.write_text("Date,Lat,Lon,VWC,q,extra\n31/12/2015,-35,146,12.5,1,x\n01/01/2016,-35.01,146,No Data,2,y\n")
    return path


def test_any_columns_any_units(table):
    out = points.open(table, COLUMNS, units="%", dayfirst=True, network="HDAS")
    assert out.columns.tolist() == ["time", "network", "latitude", "longitude", "soil_moisture", "quality"]
    assert out.soil_moisture.tolist() == [0.125] and out.time.tolist() == [pd.Timestamp("2015-12-31")]


@pytest.mark.parametrize(
    "change, message",
    [
        ({"units": "m"}, "in 'm' does not convert to m3 m-3"),
        ({"units": "m3 m-3"}, r"1 of 2 values lie outside 0..1 m3 m-3, such as 12.5 \(m3 m-3 was said\)"),
        ({"missing": ()}, "'VWC' does not hold numbers.*missing="),
        ({"columns": {**COLUMNS, "depth": "z"}}, r"lacks the columns \['z'\]; it has \['Date'"),
        ({"columns": {"time": "Date"}}, "must name the one that holds soil_moisture"),
        ({"columns": {**COLUMNS, "time": "extra"}}, "'extra' does not hold dates"),
        ({"dayfirst": False}, "'Date' does not hold dates"),
        ({"columns": {**COLUMNS, "latitude": "Lon", "longitude": "Lat"}}, "'Lon' holds 146, which is no latitude"),
    ],
)
def test_what_is_wrong_is_named(table, change, message):
    with pytest.raises(ValueError, match=message):
        points.open(table, **{"columns": COLUMNS, "units": "%", "dayfirst": True, **change})


def test_fractions_called_percent_are_refused(tmp_path):
    (tmp_path / "a.csv").write_text("day,sm\n2015-05-06,0.31\n2015-05-07,0.2\n")
    with pytest.raises(ValueError, match=r"a.csv: no value lies above 0.31, but '%' was said: they are fractions"):
        points.open(tmp_path / "a.csv", {"time": "day", "soil_moisture": "sm"}, units="%")


@pytest.mark.parametrize("dayfirst", [False, True])
@pytest.mark.parametrize(
    "written", ["2015-05-06", "20150506", "2015/5/6", "2015-05-06T21:00", "2015-05-07T07:00+10:00"]
)
def test_a_year_that_comes_first_leaves_no_choice(tmp_path, written, dayfirst):
    (tmp_path / "a.csv").write_text(f"day,sm\n{written},0.2\n")
    out = points.open(tmp_path / "a.csv", {"time": "day", "soil_moisture": "sm"}, dayfirst=dayfirst)
    assert out.time.dt.normalize().tolist() == [pd.Timestamp("2015-05-06")]
    (tmp_path / "wide.csv").write_text(f"day,y1\n{written},20\n")
    assert oznet.open(tmp_path / "wide.csv").time.dt.normalize().tolist() == [pd.Timestamp("2015-05-06")]


@pytest.mark.parametrize("first, dayfirst", [("05/16/2015", True), ("16/05/2015", False)])
def test_dates_in_another_order_than_said_are_refused(tmp_path, first, dayfirst):
    for days in ([first, "05/06/2015"], ["05/06/2015", first]):
        (tmp_path / "a.csv").write_text("day,sm\n" + "".join(f"{day},0.2\n" for day in days))
        with pytest.raises(ValueError, match="'day' does not hold dates"):
            points.open(tmp_path / "a.csv", {"time": "day", "soil_moisture": "sm"}, dayfirst=dayfirst)


def test_no_table(tmp_path):
    with pytest.raises(FileNotFoundError, match="no table at"):
        points.open(tmp_path / "a.csv", COLUMNS)


def test_wide_tables_of_oznet(tmp_path):
    path = tmp_path / "top.csv"
    path.write_text(",oznet soilmoisture_y1,oznet soilmoisture_k2\n2010-01-01,12.5,\n2010-01-02,,30\n")
    out = oznet.open(path, places={"y1": (-34.6, 145.8)})
    assert out.station.tolist() == ["k2", "y1"] and out.soil_moisture.tolist() == [0.30, 0.125]
    assert out.latitude.tolist()[1] == -34.6 and np.isnan(out.latitude[0])
    path.write_text("a,b\n2010-01-01,0.125\n")
    with pytest.raises(ValueError, match="are not percent"):
        oznet.open(path)
    path.write_text("a,b\nx,y\n")
    with pytest.raises(ValueError, match="is no table of daily means"):
        oznet.open(path)


@pytest.mark.shared
def test_real_tables(shared):
    path = shared / "oznet_daily_2001_2011" / "top.csv"
    out, plain = oznet.open(path), pd.read_csv(path, index_col=0)
    assert len(out) == plain.notna().to_numpy().sum()
    yanco = out[out.station.str.startswith("y")].soil_moisture
    assert yanco.mean() == pytest.approx(0.117, abs=0.01) and yanco.std() == pytest.approx(0.088, abs=0.01)
    risma = points.open(
        shared / "risma_manitoba_daily" / "Manitoba_Station_1.csv",
        {"time": "Reading Time (CST)", "soil_moisture": "0-5 cm Depth Average WFV (%)"},
        units="%",
        dayfirst=True,
        station="Manitoba_1",
    )
    plain = pd.read_csv(shared / "risma_manitoba_daily" / "Manitoba_Station_1.csv", encoding="utf-8-sig")
    said = pd.to_numeric(plain["0-5 cm Depth Average WFV (%)"], errors="coerce").dropna()
    np.testing.assert_allclose(risma.soil_moisture, said / 100)


@pytest.mark.shared
def test_station_files_go_through_the_archive_reader(shared):
    out = oznet.open(sorted((shared / "ismn_oznet_2017_2021").glob("*Bundure*")))
    assert set(out.station) == {"Bundure"} and len(out) > 500


RISMA = {"time": "Reading Time (CST)", "soil_moisture": "0-5 cm Depth Average WFV (%)"}
TABLES = {  # file below the folder of real ones -> columns, units, other options, factor of the unit
    "cookfarm_daily/cookfarm_03m_dev.csv": (
        {"time": "Date", "station": "SOURCEID", "soil_moisture": "VW", "easting": "Easting", "elevation": "DEM"},
        {"depth_to": 0.3},
    ),
    "samples_us_10day_s1_s2_smap/samples_dev.csv": (
        {
            **{name: name for name in ("network", "station", "latitude", "longitude")},
            "time": "StartDate", "soil_moisture": "InSituSM", "vv": "VV", "b4": "B4", "incidence_angle": "angle",
        },
        {},
    ),
    "sentinel1_gee_export/cleaned_Insitu_SM_2024_ILINKS.csv": (
        {
            "time": "LST_DATE", "station": "WBANNO", "latitude": "LATITUDE", "longitude": "LONGITUDE",
            "soil_moisture": "SOIL_MOISTURE_5_DAILY", "rain": "P_DAILY_CALC",
        },
        {},
    ),
    "risma_manitoba_daily/Sentinel-1-Prep.csv": (
        {"time": "Date", "soil_moisture": "RISMA 0 to 5 cm Depth Average WFV (%)", "vv": "VV", "vh": "VH"},
        {"units": "%"},
    ),
    **{
        f"risma_manitoba_daily/Manitoba_Station_{n}.csv": (
            RISMA if n != 7 else {**RISMA, "soil_moisture": "0 to 5 cm Depth Average WFV (%)"},
            {"units": "%", "dayfirst": True, "station": f"M{n}"},
        )
        for n in (1, 2, 3, 5, 6, 7, 9, 10, 12)
    },
}  # fmt: skip


@pytest.mark.shared
@pytest.mark.parametrize("name", TABLES)
def test_every_real_table_equals_a_plain_read(shared, name):
    columns, options = TABLES[name]
    out = points.open(shared / name, columns, **options)
    plain = pd.read_csv(shared / name, encoding="utf-8-sig", na_values=["No Data"])
    plain = plain[plain[columns["soil_moisture"]].notna()]
    assert len(out) == len(plain) > 50
    scale = 100 if options.get("units") == "%" else 1
    np.testing.assert_allclose(out.soil_moisture, plain[columns["soil_moisture"]] / scale, rtol=1e-12)
    days = pd.to_datetime(plain[columns["time"]].astype(str), dayfirst=options.get("dayfirst", False))
    assert (out.time.to_numpy() == days.to_numpy()).all()
    for ours, theirs in columns.items():
        if ours not in ("time", "soil_moisture"):
            pd.testing.assert_series_equal(out[ours], plain[theirs].reset_index(drop=True), check_names=False)


@pytest.mark.shared
def test_a_matrix_of_cells_and_days_becomes_points(shared, tmp_path):
    """SMAP at 412 cells of 36 km: -9999 is missing, and every place is the centre of the cell it is said to be."""
    folder = shared / "conus_smap_forcing_36km" / "CONUSv4f1"
    soil = pd.read_csv(folder / "2015" / "SMAP_AM.csv", header=None)
    places = pd.read_csv(folder / "crd.csv", header=None, names=["lat", "lon"])
    soil.columns = pd.read_csv(folder / "2015" / "timeStr.csv", header=None)[0]
    pd.concat([places, soil], axis=1).melt(["lat", "lon"], var_name="day", value_name="soil").to_csv(
        tmp_path / "long.csv", index=False
    )
    columns = {"time": "day", "latitude": "lat", "longitude": "lon", "soil_moisture": "soil"}
    out = points.open(tmp_path / "long.csv", columns, network="SMAP")
    known = soil.to_numpy().T.ravel()
    np.testing.assert_array_equal(out.soil_moisture, known[known != -9999])
    assert len(out) > 50_000 and out.soil_moisture.between(0, 1).all()
    grid = Grid.whole(36)
    rows, cols = grid.index(out.longitude, out.latitude)
    lon, lat = grid.lonlat()
    np.testing.assert_allclose(lon[cols], out.longitude, atol=2e-4)
    np.testing.assert_allclose(lat[rows], out.latitude, atol=2e-4)
