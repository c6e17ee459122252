"""The shell: each command does its one job, says where the result is, and errors have documented exit codes."""

import os
import re
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import numpy as np
import pytest
import rasterio
import xarray as xr

import smgrid
from smgrid.cli import main
from smgrid.files import open_table
from smgrid.native import state


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli")
    scene = smgrid.synthetic.yanco()
    scene.samples.to_dataframe().to_csv(folder / "samples.csv", index=False)
    scene.cube.chunk(time=1, y=30, x=30).to_zarr(folder / "cube.zarr", consolidated=False)
    scene.cube.to_netcdf(folder / "cube.nc")
    assert main(["train", f"{folder}/samples.csv", f"{folder}/rf.model", "--features", "vv,vh,day_of_year,smap"]) == 0
    return folder


def test_train_says_what_it_made(files, capsys):
    args = ["train", f"{files}/samples.csv", f"{files}/xgb.model", "--regressor", "xgb", "--features", "vv,smap"]
    assert main(args) == 0
    out = capsys.readouterr().out
    assert "XGBRegressor" in out and f"saved: {files / 'xgb.model'}" in out


@pytest.mark.parametrize("cube", ["cube.zarr", "cube.nc"])
@pytest.mark.parametrize("suffix", ["zarr", "nc", "tif"])
def test_predict_writes_what_the_suffix_says(files, tmp_path, capsys, cube, suffix):
    out = tmp_path / f"maps.{suffix}"
    assert main(["predict", f"{files}/{cube}", f"{files}/rf.model", str(out), "--layers", "soil_moisture,status"]) == 0
    assert "written: " in capsys.readouterr().out
    expected = smgrid.predict_map(smgrid.synthetic.yanco().cube, smgrid.load_model(files / "rf.model"))
    if suffix == "zarr":
        made = smgrid.open_maps(out).load()
    elif suffix == "nc":
        made = xr.open_dataset(out, decode_coords="all").load()
        made.close()
    else:
        with rasterio.open(tmp_path / "maps_20150915.tif") as tif:
            np.testing.assert_array_equal(tif.read(1), expected.soil_moisture[2])
        return
    xr.testing.assert_equal(made[["soil_moisture", "status"]], expected)


def test_a_part_of_the_cube(files, tmp_path, capsys):
    lon, lat = smgrid.YANCO.lonlat()
    box = [str(v) for v in (lon[10], lat[-20], lon[-30], lat[5])]
    args = ["predict", f"{files}/cube.zarr", f"{files}/rf.model", str(tmp_path / "a.zarr"), "--bbox", *box]
    assert main([*args, "--dates", "2015-09-01:2015-09-20"]) == 0
    part = smgrid.open_maps(tmp_path / "a.zarr")
    whole = smgrid.predict_map(smgrid.synthetic.yanco().cube, smgrid.load_model(files / "rf.model"))
    assert part.sizes == {"time": 1, "y": 60, "x": 36}
    np.testing.assert_array_equal(part.soil_moisture, whole.soil_moisture[2:3, 5:-19, 10:-29])


def test_a_dry_run_writes_nothing(files, tmp_path, capsys):
    args = ["predict", f"{files}/cube.zarr", f"{files}/rf.model", str(tmp_path / "a.zarr"), "--dry-run"]
    assert main(args) == 0
    out = capsys.readouterr().out
    assert "dry run" in out and "4 time x 84 y x 75 x" in out
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "args, message",
    [
        (["predict", "nowhere.zarr", "{f}/rf.model", "a.zarr"], "no cube at nowhere.zarr"),
        (["predict", "{f}/cube.zarr", "{f}/no.model", "a.zarr"], "no model at .*in that folder are .*rf.model"),
        (["predict", "{f}/cube.zarr", "{f}/rf.model", "a.png"], "ends in .zarr, .tif or .nc, not '.png'"),
        (["predict", "{f}/samples.csv", "{f}/rf.model", "a.zarr"], "cannot be opened as a cube"),
        (
            ["predict", "{f}/cube.zarr", "{f}/rf.model", "a.zarr", "--dates", "2014-01-01"],
            "has none of 2014-01-01; it has 2015-05-05",
        ),
        (
            ["predict", "{f}/cube.zarr", "{f}/rf.model", "a.zarr", "--dates", "2015-05-05,2015-05-06"],
            "has none of 2015-05-06; it has 2015-05-05",
        ),
        (
            ["predict", "{f}/cube.zarr", "{f}/rf.model", "a.zarr", "--dates", "2014-01:2014-02"],
            "has none of 2014-01:2014-02",
        ),
        (["predict", "{f}/cube.zarr", "{f}/rf.model", "a.zarr", "--dates", "tomorrow"], "dates are written 2015-05-05"),
        (["predict", "{f}/cube.zarr", "{f}/rf.model", "a.zarr", "--bbox", "0", "0", "1", "1"], "do not touch"),
        (["predict", "{f}/cube.zarr", "{f}/rf.model", "a.zarr", "--layers", "mean"], "no layer 'mean'"),
        (["predict", "{f}/cube.nc", "{f}/rf.model", "{f}/../{f.name}/cube.nc"], "OUT is the cube itself"),
        (
            ["predict", "{f}/cube.nc", "{f}/rf.model", "a.zarr", "--dates", "now:then"],
            "--dates now:then: dates are written 2015-05-05",
        ),
        (["train", "{f}/samples.csv", "m", "--features", "vv,ratio"], r"lack the predictors \['ratio'\]"),
        (["train", "{f}/cube.nc", "m"], "cannot be read as a CSV table"),
    ],
)
def test_bad_input_is_exit_3_and_says_why(files, tmp_path, monkeypatch, capsys, args, message):
    monkeypatch.chdir(tmp_path)
    assert main([arg.format(f=files) for arg in args]) == 3
    err = capsys.readouterr().err
    assert err.startswith("smgrid ")
    assert re.search(message, err), err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "dates, days", [("2015-05", 2), ("2015-05-17,2015-09", 3), ("2015-05:2015-05", 2), ("2015", 4), ("2015-05-05", 1)]
)
def test_a_month_is_all_its_dates(files, tmp_path, capsys, dates, days):
    args = ["predict", f"{files}/cube.zarr", f"{files}/rf.model", f"{tmp_path}/a.zarr", "--dates", dates, "--dry-run"]
    assert main(args) == 0
    assert f"{days} time x" in capsys.readouterr().out


@pytest.mark.parametrize(
    "written",
    [["20150505", "20150917"], ["2015-05-05T10:00:00Z", "2015-09-17"], ["2015-05-05 23:30-02:00", "2015-09-17"]],
)
def test_dates_of_a_table_are_utc(tmp_path, written):
    (tmp_path / "a.csv").write_text("time,vv\n" + "".join(f"{date},-9\n" for date in written))
    days = open_table(tmp_path / "a.csv").time.values.astype("M8[D]").astype(str).tolist()
    assert days == [str(np.datetime64("2015-05-05") + ("-02:00" in written[0])), "2015-09-17"]


def test_dates_that_could_be_two_days_are_refused(tmp_path):
    (tmp_path / "a.csv").write_text("time,vv\n05/06/2015,-9\n")
    with pytest.raises(ValueError, match=r"a\.csv .* are written 2015-05-05 \(ISO 8601\).*05/06/2015"):
        open_table(tmp_path / "a.csv")


@pytest.mark.parametrize("args", [[], ["paint"], ["predict", "a"], ["train", "a", "b", "--units", "vv"]])
def test_wrong_use_is_exit_2(args):
    with pytest.raises(SystemExit) as stop:
        main(args)
    assert stop.value.code == 2


@pytest.mark.parametrize("sent, code", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_stopped_command_goes_on(files, tmp_path, sent, code):
    out = tmp_path / "maps.zarr"
    args = [sys.executable, "-m", "smgrid", "predict", f"{files}/slow.zarr", f"{files}/rf.model", str(out)]
    if not (files / "slow.zarr").exists():
        cube = smgrid.synthetic.yanco().cube
        xr.concat([cube] * 6, "time").assign_coords(
            time=np.datetime64("2015-01-01", "ns") + np.arange(24) * np.timedelta64(1, "D")
        ).chunk(time=1, y=28, x=25).drop_encoding().to_zarr(files / "slow.zarr", consolidated=False)
    run = subprocess.Popen(args, env={**os.environ, "PYTHONPATH": os.getcwd()}, stderr=subprocess.PIPE, text=True)
    ledger = out.with_name("maps.zarr.partial")
    deadline = time.time() + 60
    while time.time() < deadline and run.poll() is None and sum(1 for _ in ledger.rglob("c/*/*/*")) < 8:
        time.sleep(0.02)
    run.send_signal(sent)
    _, err = run.communicate(timeout=60)
    assert run.returncode == code, err
    assert "goes on where it stopped" in err and not out.exists()
    assert main(args[3:]) == 0
    assert smgrid.open_maps(out).sizes["time"] == 24


def test_scenario_writes_results_and_a_verdict(files, tmp_path, capsys):
    args = ["scenario", f"{files}/samples.csv", "--features", "vv,vh,smap", "--regressors", "svr", "--repeats", "1"]
    args += ["--draws", "2", "--sizes", "3", "--workers", "1", "--out", str(tmp_path / "results.nc")]
    assert main([*args, "--tuning", "honest", "--figure", str(tmp_path / "results.png")]) == 0
    assert (tmp_path / "results.png").read_bytes().startswith(b"\x89PNG")
    said = capsys.readouterr().out
    assert "spatial, 3 cells, svr: RMSE 0." in said and f"written: {tmp_path / 'results.nc'}" in said
    results = smgrid.scenarios.open_results(tmp_path / "results.nc")
    assert results.attrs["tuning"] == "honest" and results.sizes["draw"] == 2
    assert main([*args, "--scenario", "temporal", "--year", "2019"]) == 0


@pytest.mark.parametrize(
    "more, message",
    [
        (["--scenario", "regional"], "needs --campaigns, the networks that test"),
        (["--scenario", "regional", "--campaigns", "HDAS"], "no network .*HDAS"),
        (["--sizes", "500"], "sizes of the spatial scenario count cells"),
        (["--regressors", "lasso"], "kind is one of"),
        (["--figure", "figure.csv"], "--figure ends in .png, .pdf or .svg, not '.csv'"),
        (["--figure", "absent/figure.png"], "--figure: there is no folder absent to draw figure.png in"),
    ],
)
def test_a_scenario_that_cannot_be_run_is_exit_3(files, tmp_path, capsys, more, message):
    args = ["scenario", f"{files}/samples.csv", "--features", "vv", "--out", str(tmp_path / "r.nc"), *more]
    assert main(args) == 3
    assert re.search(message, capsys.readouterr().err)


def test_sizes_that_are_no_numbers_are_wrong_use(files):
    with pytest.raises(SystemExit) as stop:
        main(["scenario", f"{files}/samples.csv", "--sizes", "few"])
    assert stop.value.code == 2


def test_doctor_says_what_smgrid_runs_on(capsys):
    assert main(["doctor"]) == 0
    said = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert list(said) == ["smgrid", "Python", "kernels", "cores", "memory", "libraries", "extras"]
    assert said["smgrid"] == smgrid.__version__ and f"numpy {np.__version__}" in said["libraries"]
    assert said["kernels"] == state()
    extras = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    named = {extra.split(": ")[0] for extra in said["extras"].split(", ")}
    assert named == {*extras} - {"all", "test"}
