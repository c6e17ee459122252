"""Damaged files of every format: an error that names the file, or values; never the end of the process."""

import json
import os
import subprocess
import sys
from pathlib import Path

TIMES = 6  # of damage to each file; a few hundred were tried by hand


def test_damaged_files_are_named_and_take_nothing_down(tmp_path):
    here = Path(__file__).parent
    paths = os.pathsep.join([str(here.parent), str(here), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, str(here / "malformed.py"), str(tmp_path), str(TIMES)],
        capture_output=True, text=True, timeout=120, check=False, env={**os.environ, "PYTHONPATH": paths},
    )  # fmt: skip
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, (lines[-1:], done.stderr[-2000:])
    opened, found = lines[::2], lines[1::2]
    assert len(opened) == len(found) >= 11 * TIMES
    wrong = [
        (o, f) for o, f in zip(opened, found) if not f.get("read") and not (f["error"] == "ValueError" and f["names"])
    ]
    assert not wrong, wrong[:3]
    assert sum("error" in f for f in found) > len(found) / 3, "most damage is found"
