"""The ISMN: every real file in either format equals a plain pandas reading; hostile archives are refused."""

import logging
import zipfile

import numpy as np
import pandas as pd
import pytest

import smgrid
from smgrid import stations
from smgrid.sources import ismn

HEADER = "NET NET Cami_dels_Nerets 42.1 0.9 -99.9 0.0000 0.0500 Stevens Hydra Probe II\n"


def text(values, flags=None, start="2019-03-01", header=HEADER):
    hours = pd.date_range(start, periods=len(values), freq="h")
    flags = flags or ["G"] * len(values)
    lines = [f"{t:%Y/%m/%d %H:%M} {v} {f} OK, range fine,OK\n" for t, v, f in zip(hours, values, flags)]
    return header + "".join(lines)


def ceop(values, start="2019-03-01"):
    hours = pd.date_range(start, periods=len(values), freq="h")
    head = "NET  NET  Cami_dels_Nerets   42.10000  0.90000  -99.90  0.00  0.05"
    return "".join(f"{t:%Y/%m/%d %H:%M} {t:%Y/%m/%d %H:%M} {head}   {v} G M\r\n" for t, v in zip(hours, values))


def write(
    folder, content, name="NET_NET_CamidelsNerets_sm_0.000000_0.050000_Stevens-Hydra-Probe-II_20190301_20190302.stm"
):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(content)
    return folder / name


def test_identity_comes_from_the_header(tmp_path):
    sensor = ismn.parse(write(tmp_path, text([0.2] * 24)).read_text(), "x")
    assert sensor.station == "Cami_dels_Nerets" and sensor.sensor == "Stevens Hydra Probe II"
    assert (sensor.latitude, sensor.longitude, sensor.depth_to) == (42.1, 0.9, 0.05)


def test_both_formats_read_alike(tmp_path):
    values = np.round(np.random.default_rng(0).uniform(0.1, 0.4, 48), 3)
    a = ismn.open(write(tmp_path / "a", text(values)))
    b = ismn.open(write(tmp_path / "b", ceop(values)))
    pd.testing.assert_frame_equal(a, b)
    np.testing.assert_allclose(a.soil_moisture, values.reshape(2, 24).mean(1))


def test_only_good_values_make_a_day(tmp_path):
    values, flags = [0.2] * 24 + [0.3] * 24, ["G"] * 24 + ["G"] * 11 + ["D01,D03"] * 13
    values[3], flags[5] = -9999, "M"
    days = ismn.open(write(tmp_path, text(values, flags)))
    assert days.time.dt.strftime("%F").tolist() == ["2019-03-01"] and days.soil_moisture.tolist() == [
        pytest.approx(0.2)
    ]
    assert len(ismn.open(tmp_path, min_readings=11)) == 2
    assert len(ismn.open(tmp_path, flags=("G", "D01,D03"))) == 2


def test_the_day_may_be_local(tmp_path):
    write(tmp_path, text([0.1] * 14 + [0.4] * 24, start="2019-03-01 00:00"))
    utc, local = ismn.open(tmp_path), ismn.open(tmp_path, utc_offset=10)
    assert utc.soil_moisture.tolist() == pytest.approx([(1.4 + 4.0) / 24, 0.4])
    assert local.time.dt.day.tolist() == [1, 2] and local.soil_moisture.tolist() == pytest.approx([0.1, 0.4])


def test_sensors_weigh_alike_and_cells_hold_stations(tmp_path):
    write(tmp_path, text([0.1] * 24))
    write(tmp_path, text([0.3] * 24, header=HEADER.replace("Stevens", "Other")), "NET_NET_X_sm_0_0.05_Other_1_2.stm")
    near = HEADER.replace("Cami_dels_Nerets 42.1", "Neighbour 42.1001")
    write(tmp_path, text([0.5] * 24, header=near), "NET_NET_Y_sm_0_0.05_Z_1_2.stm")
    days = ismn.open(tmp_path)
    assert days.set_index("station").soil_moisture.to_dict() == pytest.approx(
        {"Cami_dels_Nerets": 0.2, "Neighbour": 0.5}
    )
    assert days.sensors.tolist() == [2, 1]
    (cell,) = stations.per_cell(days).itertuples()
    assert (
        cell.soil_moisture == pytest.approx(0.35)
        and cell.stations == 2
        and cell.station == "Cami_dels_Nerets+Neighbour"
    )
    table = stations.inventory(days)
    assert (
        table.cells.tolist() == [1, 1] and table.samples.tolist() == [1, 1] and table.network.tolist() == ["NET", "all"]
    )


def test_two_inches_are_explained(tmp_path, caplog):
    write(tmp_path, text([0.2] * 24, header=HEADER.replace("0.0000 0.0500", "0.0508 0.0508")))
    with caplog.at_level(logging.WARNING, "smgrid"):
        assert ismn.open(tmp_path).empty
    assert "0.0508 m) left out" in caplog.text and "depth=0.0508" in caplog.text
    assert len(ismn.open(tmp_path, depth=0.0508)) == 1


def test_percent_is_recognised(tmp_path, caplog):
    write(tmp_path, text([10.3] * 24))
    assert ismn.open(tmp_path).soil_moisture.tolist() == pytest.approx([0.103])
    assert "percent" in caplog.text


def test_zipped_as_downloaded(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("Data/NET/S/NET_NET_S_sm_0_0.05_P_1_2.stm", text([0.2] * 24))
        archive.writestr("Data/NET/S/NET_NET_S_ts_0_0.05_P_1_2.stm", "not soil moisture")
        archive.writestr("python_metadata/x.csv", "junk")
    assert ismn.open(tmp_path / "a.zip").soil_moisture.tolist() == pytest.approx([0.2])


def zipped(path, name="NET/S_sm_0_0.05_P.stm", content="x", **kwargs):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    return path


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda p: zipped(p, "../../evil_sm_0.stm"), "points outside the archive"),
        (lambda p: zipped(p, "/abs_sm_0.stm"), "points outside the archive"),
        (lambda p: zipped(p, content="0" * (64 << 20)), "would unpack from .* to 67108864 bytes"),
        (lambda p: p.write_bytes(zipped(p, content=text([0.2] * 24)).read_bytes()[:-30]), "is none, or it is cut off"),
        (lambda p: zipped(p, content="hello\nworld"), "is not a .stm file of the ISMN"),
        (lambda p: zipped(p, content=""), "is empty"),
        (lambda p: zipped(p, content=text([0.2]).replace("42.1", "142.1")), "no place on Earth"),
    ],
)
def test_bad_archives(tmp_path, make, message):
    make(tmp_path / "a.zip")
    with pytest.raises(ValueError, match=message):
        ismn.open(tmp_path / "a.zip")
    assert [p.name for p in tmp_path.iterdir()] == ["a.zip"] and not (tmp_path.parent / "evil_sm_0.stm").exists()


def test_nothing_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="no soil-moisture file"):
        ismn.open(tmp_path)
    with pytest.raises(FileNotFoundError, match="nothing at"):
        ismn.open(tmp_path / "nowhere")


def test_points_on_the_grid():
    rng = np.random.default_rng(0)
    lon, lat = smgrid.YANCO.lonlat()
    table = pd.DataFrame({"longitude": rng.uniform(lon[3], lon[9], 500), "latitude": rng.uniform(lat[9], lat[3], 500)})
    table["soil_moisture"] = rng.uniform(0, 0.5, 500)
    made = stations.on_grid(table, smgrid.YANCO)
    assert int(made["count"].sum()) == 500
    whole = float((made.soil_moisture * made["count"]).sum())
    assert whole == pytest.approx(table.soil_moisture.sum(), rel=1e-6)
    dated = stations.on_grid(table.assign(time=pd.Timestamp("2015-05-05 03:00")), smgrid.YANCO)
    assert dated.time.values.astype("M8[D]").tolist() == [np.datetime64("2015-05-05").item()]
    np.testing.assert_array_equal(dated.soil_moisture[0], made.soil_moisture)


# ---- real files


FOLDERS = [
    "ismn_us_2019_2021",
    "ismn_oznet_2017_2021",
    "ismn_europe_2024_2025",
    "ismn_tahmo_ghana",
    "ismn_two_formats/header_values",
]


@pytest.mark.shared
@pytest.mark.parametrize("folder", FOLDERS)
def test_every_real_file_equals_a_plain_reading(shared, folder):
    files = sorted((shared / folder).rglob("*_sm_*.stm"))
    assert files
    seen = list(ismn.sensors(shared / folder))
    assert len(seen) >= len(files)
    for file, sensor in list(zip(files, seen))[:: max(1, len(files) // 12)]:
        plain = pd.read_fwf(file, skiprows=1, widths=[16, 400], names=["time", "rest"], encoding="latin-1")
        rest = plain.rest.str.split()
        value, flag = rest.str[0].astype(float), rest.str[1]
        np.testing.assert_array_equal(sensor.value, value)
        assert (sensor.flag == flag).all()
        assert (sensor.time == pd.to_datetime(plain.time, format="%Y/%m/%d %H:%M").to_numpy()).all()


def plain_daily_means(folder):
    """The rule in plain pandas: flag G, at least 12 readings of a sensor and UTC day, then the mean over sensors."""
    days = []
    for file in sorted(folder.rglob("*_sm_*.stm")):
        head, *lines = file.read_text("latin-1").splitlines()
        network, station, *_, depth_to = head.split(maxsplit=8)[1:8]
        if float(depth_to) > 0.05:
            continue
        parts = pd.Series(lines).str.split(n=4, expand=True)
        value, good = parts[2].astype(float), parts[3] == "G"
        assert not (good & (value == -9999)).any() and not (value[good] > 1).any()
        by_day = value[good].groupby(pd.to_datetime(parts[0][good])).agg(["mean", "size"])
        enough = by_day.loc[by_day["size"] >= 12, "mean"]
        days.append(enough.rename_axis("time").reset_index(name="one").assign(network=network, station=station))
    return pd.concat(days).groupby(["network", "station", "time"]).one.agg(soil_moisture="mean", sensors="size")


@pytest.mark.shared
@pytest.mark.parametrize("archive, stations", [("ismn_oznet_2017_2021", 8), ("ismn_us_2019_2021", 14)])
def test_real_daily_means_equal_plain_pandas(shared, archive, stations):
    days = ismn.open(shared / archive).set_index(["network", "station", "time"])[["soil_moisture", "sensors"]]
    plain = plain_daily_means(shared / archive)
    assert len(plain) > 4000 and len(plain.groupby(["network", "station"])) == stations
    pd.testing.assert_frame_equal(days.sort_index(), plain, rtol=1e-12, atol=0, check_index_type=False)
    assert archive != "ismn_us_2019_2021" or plain.sensors.max() == 4, "sensors of one station are averaged"


@pytest.mark.shared
def test_the_same_station_in_both_formats(shared):
    folder = shared / "ismn_two_formats"
    a = ismn.open(folder / "ceop" / "COSMOS", depth=0.3)
    b = ismn.open(folder / "header_values" / "COSMOS", depth=0.3)
    pd.testing.assert_frame_equal(a, b)
    assert len(a) > 300 and ismn.open(folder / "ceop" / "COSMOS").empty, "0-19 cm is not the surface"
    assert len(list(ismn.sensors(folder / "zip"))) > 2
