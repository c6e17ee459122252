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
    """(name, first line, how it is run, what it takes and publishes) of each script, read without running any."""
    for path in sorted(folder.glob("*.py")):
        text = ast.get_docstring(ast.parse(path.read_text())) or ""
        lines = [line.strip() for line in text.splitlines()]
        usage = next((line for line in lines if line.startswith("python ")), "")
        takes = next((line for line in lines if line.startswith("Takes ")), "")
        yield path.name, lines[0] if lines else "", usage, takes


def main(argv):
    if argv and argv[0] in ("race", "growth"):
        from importlib import import_module

        return import_module(f"benchmarks.{argv[0]}").main(argv[1:])
    if argv and argv[0] not in ("-h", "--help"):
        raise SystemExit(
            f"python -m benchmarks knows race and growth, not {argv[0]!r}; without a word it lists all there is"
        )
    for name, first, usage, takes in index(Path(__file__).parent):
        print(name, first, usage, takes, sep="\n    ", end="\n\n")
    return None


if __name__ == "__main__":
    main(sys.argv[1:])
