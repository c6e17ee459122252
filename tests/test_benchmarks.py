"""Benchmarks are code: they import, the cheap ones run, tiny, and each says how it is run."""

import ast
import importlib.util
import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from benchmarks import contenders, growth, race, scenes
from benchmarks.__main__ import index, main

FOLDER = Path(__file__).parents[1] / "benchmarks"
SCRIPTS = sorted(FOLDER.glob("*.py"))
CELL = (60, "packed", "lz4", "xgb-5x2")


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda p: p.name)
def test_each_says_how_to_run_it(path):
    says = ast.get_docstring(ast.parse(path.read_text())) or ""
    ways = (f"benchmarks/{path.name}", f"benchmarks.{path.stem}", f"-m benchmarks {path.stem}", "-m benchmarks\n")
    assert any(way in says for way in ways)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda p: p.name)
def test_each_imports(path, monkeypatch):
    monkeypatch.setattr(os, "environ", os.environ.copy())  # some hold libraries at one thread, before they load them
    monkeypatch.setattr(sys, "path", [*sys.path, str(FOLDER)])  # as where a script is run by its path
    spec = importlib.util.spec_from_file_location(f"benchmark_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    assert path.stem == "__main__" or callable(module.main)


def test_the_index_names_every_script(capsys):
    main([])
    out = capsys.readouterr().out
    assert all(path.name in out for path in SCRIPTS)
    assert all(first and usage for _, first, usage, *_ in index(FOLDER))


def test_the_global_graph(capsys):
    runpy.run_path(str(FOLDER / "graph.py"), run_name="__main__")
    rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines()[2:]]
    for layers, row in zip((1, 2, 3), rows, strict=True):
        assert int(row[2]) <= 510 * (2 if layers == 1 else 1 + layers) + 60


# ---- the race


def runs(contender, walls, *, right=True, **more):
    """Lines of a book, as a race would have left them."""
    told = {
        "cpu": 1.0,
        "peak": 90.0,
        "base": 200.0,
        "start": 2.0,
        "threads": 9,
        "tasks": 34,
        "process": 3.0,
        "load": 1.0,
    }
    told |= {"gaps": 0 if right else 7, "dtype": "float32", "crs": "named", "difference": 0.0, "right": right}
    place = dict(zip(("side", "layout", "codec", "model"), CELL))
    return [told | place | {"contender": contender, "round": n, "wall": w} | more for n, w in enumerate(walls)]


def test_the_best_peer_is_the_fastest_whose_map_is_right():
    book = runs("smgrid", [1.0, 1.2, 9.0]) + runs("dask-ml, documented", [0.1] * 3, right=False)
    book += runs("apply_ufunc, best", [3.0, 3.6, 3.1]) + runs("eager stack", [4.0] * 3)
    best, ratio = race.ratios(race.table(book))[CELL]
    assert best == "apply_ufunc, best" and ratio == pytest.approx(3.1 / 1.2)
    assert race.spread(book, CELL, best) == pytest.approx((3.1 / 9, 3.0))


def test_who_fell_is_named_with_the_reason(tmp_path):
    fallen = {"error": "ModuleNotFoundError: No module named 'sklearn_raster'", "process": 1.0, "load": 1.0, "round": 0}
    fallen |= {"contender": "sklearn-raster, best", **dict(zip(("side", "layout", "codec", "model"), CELL))}
    medians = race.table([*runs("smgrid", [1.0]), fallen])
    lines = race.detail(medians, CELL)
    assert "did not run: ModuleNotFoundError" in lines[3] and len({line.count("|") for line in lines}) == 1


def test_a_scene_lies_the_same_in_every_layout_and_has_its_gaps(tmp_path):
    stores = [xr.open_zarr(scenes.scene(tmp_path, 60, layout, "lz4", 30)).load() for layout in scenes.LAYOUTS]
    packed, separate = stores[0]["static"].values, stores[1][scenes.BANDS].to_dataarray().values
    np.testing.assert_array_equal(packed, separate)
    np.testing.assert_array_equal(packed, np.stack(list(scenes.fields(60))))
    gap = np.isnan(packed)
    assert (gap == gap[0]).all() and gap[0].mean() == pytest.approx(0.3, abs=0.01)


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_a_tiny_race_goes_on_and_is_published(tmp_path, capfd):
    args = [str(tmp_path / "race"), "--sides", "60", "--chunk", "30", "--models", "xgb-5x2", "--layouts", "packed-lz4"]
    args += ["--contenders", "smgrid;apply_ufunc, best", "--workers", "2"]
    race.main([*args, "--rounds", "1"])
    (book,) = (tmp_path / "race").glob("race-*.jsonl")
    first = [json.loads(line) for line in book.read_text().splitlines()]
    race.main([*args, "--rounds", "1", "--publish", str(tmp_path)])
    assert len(first) == len(book.read_text().splitlines()) == 2  # what is there is not run again
    ours, theirs = first
    assert ours["right"] and theirs["right"] and ours["difference"] == 0 and ours["crs"] == "named"
    assert ours["tasks"] and ours["threads"] > 1 and ours["peak"] > 0
    text = (tmp_path / "race.md").read_text()
    assert "60 x 60, packed lz4" in text and "apply_ufunc, best" in text
    assert (tmp_path / "figures" / "race.png").stat().st_size > 10_000


def test_a_wrong_map_is_seen(tmp_path):
    truth = np.array([[0.1, np.nan], [0.3, 0.4]], "f4")
    np.save(tmp_path / "truth.npy", truth)
    for values, gaps, right in ((truth, 0, True), (np.nan_to_num(truth), 1, False), (truth + 1e-3, 0, False)):
        xr.Dataset({"soil_moisture": (("y", "x"), values)}).to_zarr(tmp_path / "map.zarr", mode="w")
        told = contenders.gate({"out": str(tmp_path / "map.zarr"), "truth": str(tmp_path / "truth.npy")})
        assert (told["gaps"], told["right"], told["crs"]) == (gaps, right, "lost")


# ---- growth


def test_slopes_and_tables_of_growth(tmp_path):
    line = {"curve": "size", "right": True, "cpu": 1.0, "peak": 100.0}
    rows = [line | {"x": n, "wall": n / 1e6 * f} for n in (1_000_000, 4_000_000) for f in (0.9, 1.0, 1.3)]
    rows += [line | {"curve": "threads, xgb-300x5", "x": n, "wall": 8 / n} for n in (1, 2)]
    rows += [line | {"x": 1_000_000, "wall": 0.0, "right": False}]  # a wrong map counts for nothing
    found = growth.medians(rows)
    text = "\n".join(growth.sizes(found["size"]))
    assert "Slope over all: 1.00 (demand 1.00 +- 0.05: reached)" in text
    assert "x2.00" in growth.growing("threads, xgb-300x5", found["threads, xgb-300x5"])[-1]
    assert growth.fixed([1e6, 4e6, 16e6], [0.7, 1.3, 3.7]) == pytest.approx((0.5, 0.2))
    growth.draw(found, tmp_path / "growth.png")
    assert (tmp_path / "growth.png").stat().st_size > 10_000


def test_the_index_runs_from_a_shell():
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "what"], cwd=FOLDER.parent, capture_output=True, text=True
    )
    assert done.returncode == 1 and "knows race and growth, not 'what'" in done.stderr
