"""Examples are code: every script compiles and says how it is run, also those that need an account to run."""

import ast
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "examples"


@pytest.mark.parametrize("path", sorted(FOLDER.rglob("*.py")), ids=lambda p: p.name)
def test_scripts_compile_and_say_how_to_run_them(path):
    tree = ast.parse(path.read_text())
    assert f"python {path.relative_to(FOLDER.parent)}" in (ast.get_docstring(tree) or "")
    compile(tree, str(path), "exec")


def test_every_way_to_the_data_is_in_the_guide():
    guide = (FOLDER.parent / "docs" / "getting-data.md").read_text()
    assert all(f"`{path.name}`" in guide for path in (FOLDER / "get_data").glob("*.py"))
