"""How long smgrid takes to start: `smgrid --help`, `import smgrid` alone and beyond importing xarray.

    python benchmarks/startup.py [rounds]

Each is a process of its own, run in turn; medians of wall and CPU seconds. The demand: `--help` under 0.3 s, `import smgrid`
under 0.5 s beyond importing xarray. What may be loaded at all is held by tests/test_rooms.py.
"""

import os
import statistics
import subprocess
import sys
import time

RUNS = {
    "python alone": "pass",
    "smgrid --help": "from smgrid.cli import main\ntry:\n    main(['--help'])\nexcept SystemExit:\n    pass",
    "import smgrid": "import smgrid",
    "import xarray": "import xarray",
    "import xarray, smgrid": "import xarray, smgrid",
    "import xarray, smgrid; predict_map, write_zarr touched": (
        "import xarray, smgrid; smgrid.predict_map, smgrid.write_zarr, smgrid.Grid"
    ),
}


def run(code: str) -> tuple[float, float]:
    """Wall and CPU seconds of one interpreter."""
    before, start = os.times(), time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
    after = os.times()
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    return time.perf_counter() - start, spent


def main(rounds: int = 7) -> None:
    for code in RUNS.values():
        run(code)
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in RUNS}
    for _ in range(rounds):
        for name, code in RUNS.items():
            found[name].append(run(code))
    print("| | wall, s | CPU, s |")
    print("|---|--:|--:|")
    for name, times in found.items():
        print(f"| {name} | " + " | ".join(f"{statistics.median(t):.2f}" for t in zip(*times)) + " |")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]))
