"""Finds what was changed, lost or added in a finished store since it was written."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from smgrid.layout import files_in
from smgrid.ledger import Line, damaged_lines, read_lines
from smgrid.manifest import CorruptStoreError, chunk_keys, read_manifest
from smgrid.store import IncompleteStoreError, local_folder

LEDGER = "smgrid/ledger"


class Fault(NamedTuple):
    """One file of a store that is not as it was written."""

    file: str
    what: str

    def __str__(self) -> str:
        return f"{self.file}: {self.what}"


def verify(path: Any) -> list[Fault]:
    """Check every file of a finished store against its ledger, byte by byte.

    A flipped bit anywhere, chunks that are gone, cut short, emptied or swapped, changed metadata and files that smgrid
    did not write are found; chunks are never decoded. Some 1 GB a second and core.

    Parameters
    ----------
    path : str or path
        A local folder that `write_zarr` wrote.

    Returns
    -------
    list of Fault
        By file; empty where the store is what was written. Each has `file` and `what`.

    Raises
    ------
    IncompleteStoreError
        The write was stopped: what is there is not finished, so there is nothing to hold it against.
    FileNotFoundError, ValueError
        Nothing is there, or something that smgrid did not write.

    Examples
    --------
    >>> import tempfile, xarray as xr, smgrid
    >>> grid = smgrid.Grid(9, 1274, 3489, 4, 4)
    >>> maps = xr.Dataset({"soil_moisture": (("y", "x"), [[0.1] * 4] * 4)}, coords=grid.coords())
    >>> folder = tempfile.TemporaryDirectory()
    >>> path = folder.name + "/yanco.zarr"
    >>> written = smgrid.write_zarr(maps, path)
    >>> smgrid.verify(path)
    []
    >>> chunk = open(path + "/soil_moisture/c/0/0", "r+b")
    >>> _ = chunk.seek(9), chunk.write(b"!"), chunk.close()
    >>> print(*smgrid.verify(path))
    soil_moisture/c/0/0: its bytes are not those that were written
    >>> folder.cleanup()
    """
    root = local_folder(path)
    ledger = root / LEDGER
    if not root.is_dir():
        if root.with_name(root.name + ".partial").is_dir():
            raise IncompleteStoreError(f"{root} is unfinished: its write was stopped; call write_zarr again first")
        raise FileNotFoundError(f"no maps at {root}")
    if not ledger.exists() and not (root / "smgrid" / "manifest.json").exists():
        raise ValueError(f"{root} was not written by smgrid's write_zarr: there is no ledger to hold it against")
    there = read_lines(ledger)
    faults = [Fault(LEDGER, f"{n} lines are damaged")] if (n := damaged_lines(ledger)) else []
    faults += [Fault(key, "the ledger does not vouch for it") for key in _expected(root) if key not in there]
    with ThreadPoolExecutor() as pool:
        faults += [f for f in pool.map(lambda line: _compare(root, line), there.values()) if f is not None]
    known = {LEDGER, *there, *(fault.file for fault in faults)}
    found = (path.relative_to(root).as_posix() for path in files_in(root))
    faults += [Fault(name, "smgrid did not write it") for name in found if name not in known]
    return sorted(faults)


def _expected(root: Path) -> list[str]:
    """Every file there must be, as far as the manifest can be read; a damaged one is found by its own hash."""
    try:
        known: Mapping[str, Any] = read_manifest(root) or {}
        chunks = chunk_keys(known["layers"], known["dates"])
    except (CorruptStoreError, KeyError, TypeError, AttributeError, ZeroDivisionError):
        chunks = []
    return [*chunks, "smgrid/manifest.json", "zarr.json"]


def _compare(root: Path, line: Line) -> Fault | None:
    """What is wrong with the file of a ledger line."""
    try:
        with open(root / line.key, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            size = os.fstat(file.fileno()).st_size
    except OSError as error:
        return Fault(line.key, "it is gone" if isinstance(error, FileNotFoundError) else f"it cannot be read: {error}")
    if digest == line.sha256:
        return None
    return Fault(line.key, "its bytes are not those that were written" + ("; it is empty" if not size else ""))
