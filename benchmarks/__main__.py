"""Every benchmark there is, with what it says of itself; and the two that are commands.

    python -m benchmarks
    python -m benchmarks race FOLDER ...
    python -m benchmarks growth FOLDER ...

Takes no time; publishes nothing.
"""

import ast
import sys
from pathlib import Path


def index(folder):
    """Of each script, without running it: name, first line, how to run it, what it takes, pages with its figures."""
    root = folder.parent
    pages = {page: page.read_text() for page in [root / "README.md", *sorted((root / "docs").glob("*.md"))]}
    for path in sorted(folder.glob("*.py")):
        text = ast.get_docstring(ast.parse(path.read_text())) or ""
        lines = [line.strip() for line in text.splitlines()]
        usage = next((line for line in lines if line.startswith("python ")), "")
        takes = next((line for line in lines if line.startswith("Takes ")), "")
        names = (f"benchmarks/{path.name}", f"-m benchmarks {path.stem}", f"benchmarks.{path.stem}")
        held = [page.relative_to(root).as_posix() for page, told in pages.items() if any(n in told for n in names)]
        yield path.name, lines[0] if lines else "", usage, takes, f"in {', '.join(held)}" if held else ""


def main(argv):
    if argv and argv[0] in ("race", "growth"):
        from importlib import import_module

        return import_module(f"benchmarks.{argv[0]}").main(argv[1:])
    if argv and argv[0] not in ("-h", "--help"):
        raise SystemExit(f"python -m benchmarks knows race and growth, not {argv[0]!r}; without a word it lists all")
    for told in index(Path(__file__).parent):
        print(*filter(None, told), sep="\n    ", end="\n\n")
    return None


if __name__ == "__main__":
    main(sys.argv[1:])
