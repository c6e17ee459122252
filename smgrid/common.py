"""Keeps what all blocks of a run share (the model, opened sources, axes): in each process once.

Where blocks run in this process the values are simply there. Where they run in others (a Dask cluster, a pool of
processes) each value would travel with the graph to the scheduler, live there, and go from worker to worker. So it is
laid down in the store's own folder instead, which all workers share, and every process reads it once. No worker's loss
can take it away, and a task carries nothing but its name.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import socket
import threading
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LARGE = 2**20  # bytes; a value above this is a file of its own, which the portions of a run share

_read: dict[tuple[str, str], dict[Hashable, Any]] = {}  # what this process has read: by file and SHA-256
_reading = threading.Lock()


@dataclass(frozen=True)
class Common:
    """What all blocks share, here or in files."""

    values: Mapping[Hashable, Any]
    files: tuple[tuple[str, str], ...] = ()  # path and SHA-256

    @classmethod
    def of(cls, values: Mapping[Hashable, Any], folder: Path) -> Common:
        """Keep the values here, or lay them down in `folder` where blocks run in other processes."""
        return cls(values) if in_this_process() else cls({}, _laid_down(values, folder))

    def get(self) -> dict[Hashable, Any]:
        """The values by key."""
        found = dict(self.values)
        for path, sha256 in self.files:
            found |= _once(path, sha256)
        return found


def in_this_process() -> bool:
    """Whether Dask's active scheduler runs tasks in this very process."""
    import dask.local
    import dask.threaded
    from dask.base import get_scheduler

    return get_scheduler() in (None, dask.threaded.get, dask.local.get_sync)


def _laid_down(values: Mapping[Hashable, Any], folder: Path) -> tuple[tuple[str, str], ...]:
    import cloudpickle  # type: ignore[import-untyped]

    folder.mkdir(parents=True, exist_ok=True)
    small, files = {}, []
    for key, value in values.items():
        data = cloudpickle.dumps({key: value})
        if len(data) < LARGE:
            small[key] = value
        else:
            files.append(_file(folder, data))
    return (*files, _file(folder, cloudpickle.dumps(small)))


def _file(folder: Path, data: bytes) -> tuple[str, str]:
    sha256 = hashlib.sha256(data).hexdigest()
    path = folder / sha256
    if not path.exists():
        part = folder / f"{sha256}.{os.getpid()}"
        part.write_bytes(data)
        os.replace(part, path)
    return str(path), sha256


def _once(path: str, sha256: str) -> dict[Hashable, Any]:
    with _reading:
        if (path, sha256) not in _read:
            for old in [old for old in _read if not os.path.exists(old[0])]:  # of runs that are over
                del _read[old]
            try:
                data = Path(path).read_bytes()
            except FileNotFoundError as error:
                raise RuntimeError(
                    f"the worker on {socket.gethostname()} finds no {path}: the run is over, or the store does not lie "
                    "on a file system that all workers share"
                ) from error
            if hashlib.sha256(data).hexdigest() != sha256:
                raise RuntimeError(f"{path} is not what this run laid down there: it was changed on the way")
            _read[path, sha256] = pickle.loads(data)
        return _read[path, sha256]
