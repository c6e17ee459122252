"""Benchmarks are code: the cheap one runs, all of them compile, and each says how it is run."""

import ast
import runpy
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.py")), ids=lambda p: p.name)
def test_each_says_how_to_run_it(path):
    says = ast.get_docstring(ast.parse(path.read_text())) or ""
    assert f"benchmarks/{path.name}" in says or f"benchmarks.{path.stem}" in says


def test_the_global_graph(capsys):
    runpy.run_path(str(FOLDER / "graph.py"), run_name="__main__")
    rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines()[2:]]
    for layers, row in zip((1, 2, 3), rows, strict=True):
        assert int(row[2]) <= 510 * (2 if layers == 1 else 1 + layers) + 60
