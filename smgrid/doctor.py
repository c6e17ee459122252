"""Says what this installation of smgrid is made of: what to send along with a question.

Nothing heavy is imported: versions come from the installed packages' metadata.
"""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from smgrid import __version__
from smgrid.native import state

_LIBRARIES = ("numpy", "xarray", "dask", "zarr", "scikit-learn", "xgboost", "rasterio", "netCDF4", "numcodecs")
EXTRAS = {  # modules of each
    "distributed": ("distributed",),
    "grib": ("cfgrib", "eccodes"),
    "modis": ("pyhdf",),
    "skops": ("skops",),
}


def doctor() -> str:
    """What smgrid runs on: one screen of text.

    Examples
    --------
    >>> print(doctor())
    smgrid      ...
    kernels     ...
    """
    lines = {
        "smgrid": __version__,
        "Python": f"{platform.python_version()}, {platform.platform(terse=True)}, {platform.machine()}",
        "kernels": state(),
        "cores": f"{_cores()} usable",
        "memory": _memory(),
        "libraries": ", ".join(f"{name} {_version(name) or 'not installed'}" for name in _LIBRARIES),
        "extras": ", ".join(f"{name}: {'there' if whole else 'not installed'}" for name, whole in _extras().items()),
    }
    return "\n".join(f"{name:12}{said}" for name, said in lines.items())


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        alike = {"xgboost": "xgboost-cpu"}.get(package)  # the same library without its half for GPUs
        return _version(alike) if alike else None


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _memory() -> str:
    """Memory of the machine, and of the container where that is less."""
    try:
        gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    except (AttributeError, OSError, ValueError):  # not every system says
        return "unknown"
    try:
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text()) / 2**30
    except (OSError, ValueError):
        limit = gib
    return f"{gib:.1f} GiB" if limit >= gib else f"{limit:.1f} GiB of the machine's {gib:.1f}"


def _extras() -> dict[str, bool]:
    """The extras of smgrid, and whether their packages are there."""
    return {name: all(find_spec(module) for module in modules) for name, modules in EXTRAS.items()}
