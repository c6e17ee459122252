"""The house holds its order: a room imports only from rooms above it, and the front door is light."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import smgrid

PACKAGE = Path(smgrid.__file__).parent
TABLE = Path(__file__).parents[1] / "docs" / "house.md"
ROOMS = re.findall(r"^\| `(\w+)` \|", TABLE.read_text(), re.M)


def imports(path):
    """Rooms of the package that a file imports, inside functions too; type-checking imports do not count."""
    tree = ast.parse(path.read_text())
    skipped = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.ImportFrom) and node.level == 0 and (node.module or "").split(".")[0] == "smgrid":
            parts = node.module.split(".")
            yield from [parts[1]] if len(parts) > 1 else [alias.name for alias in node.names]
        if isinstance(node, ast.Import):
            yield from (a.name.split(".")[1] for a in node.names if a.name.startswith("smgrid."))
        assert not (isinstance(node, ast.ImportFrom) and node.level), f"{path.name}: relative import"


def test_every_room_is_in_the_table():
    here = {p.stem if p.suffix == ".py" else p.name for p in PACKAGE.iterdir() if p.suffix == ".py" or p.is_dir()}
    assert here - {"__init__", "__main__", "__pycache__", "data", "c"} <= set(ROOMS)


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_room_imports_only_from_rooms_above(path):
    room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if room in ("__init__", "__main__"):
        return
    below = {name for name in imports(path) if name not in ROOMS[: ROOMS.index(room)] and name != "__version__"}
    if room == "sources":
        below -= {"sources"}
    assert not below, f"{room} imports {sorted(below)}, which are not above it"


@pytest.mark.parametrize("name", smgrid._HOME)
def test_every_name_at_the_door_exists_and_is_explained(name):
    value = getattr(smgrid, name)
    assert name in ("YANCO", "PAPER") or value.__doc__


@pytest.mark.parametrize("name", smgrid._ROOMS)
def test_every_room_is_explained(name):
    assert getattr(smgrid, name).__doc__


def test_unknown_names_are_refused():
    with pytest.raises(AttributeError, match="no attribute 'predictmap'"):
        _ = smgrid.predictmap


@pytest.mark.parametrize(
    "code",
    [
        "import smgrid; dir(smgrid)",
        "import smgrid; smgrid.Grid.whole()",
        "from smgrid.cli import main; main(['--help'])",
    ],
)
def test_the_front_door_loads_nothing_heavy(code):
    heavy = "sklearn xgboost matplotlib rasterio rioxarray cartopy xarray dask pandas zarr scipy".split()
    loaded = f"print(*[m for m in {heavy} if m in sys.modules], file=sys.stderr)"
    probe = f"import sys\ntry:\n    exec({code!r})\nexcept SystemExit:\n    pass\n{loaded}"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stderr.split() == []
