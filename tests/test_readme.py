"""The README tells the truth: its examples run as they stand, and so does the script that walks the whole way."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import xarray as xr

import smgrid

ROOT = Path(__file__).parents[1]
BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)


@pytest.fixture
def own_files(tmp_path, monkeypatch):
    scene = smgrid.synthetic.yanco()
    scene.samples.to_dataframe().to_csv(tmp_path / "samples.csv", index=False)
    scene.cube.chunk(time=1).to_zarr(tmp_path / "cube.zarr")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_examples_run(own_files, capsys):
    assert len(BLOCKS) == 2
    for block in BLOCKS:
        exec(compile(block, "README.md", "exec"), {})
    assert "1." in capsys.readouterr().out
    with xr.open_dataset(own_files / "maps.nc", decode_coords="all") as maps:
        assert smgrid.Grid.of(maps) == smgrid.YANCO and maps.soil_moisture.notnull().sum() > 20000
    assert smgrid.open_maps(own_files / "yanco.zarr").sizes["time"] == 4


def test_the_whole_way_from_a_script(tmp_path):
    script = ROOT / "examples" / "yanco.py"
    done = subprocess.run([sys.executable, script, tmp_path], capture_output=True, text=True, check=True, timeout=200)
    assert done.stdout.count("bias") == 16 and "synthetic" in done.stdout
    assert {"maps.png", "RF.zarr", "RF_20150915.tif"} <= {p.name for p in tmp_path.iterdir()}
