"""Trained soil-moisture models as whole, trustworthy 1-km maps on the EASE-Grid 2.0.

Names and rooms load when first touched (PEP 562): `import smgrid` alone brings in nothing heavy.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOME = {  # public name -> the room it lives in
    "Grid": "grid",
    "YANCO": "grid",
    "Predictor": "features",
    "PAPER": "features",
    "to_grid": "regrid",
    "Model": "models",
    "make_regressor": "regressors",
    "search_space": "regressors",
    "train": "models",
    "save_model": "modelfiles",
    "load_model": "modelfiles",
    "build_cube": "cube",
    "pack_cube": "packing",
    "open_cube": "files",
    "draw_samples": "samples",
    "predict_map": "predict",
    "write_zarr": "store",
    "open_maps": "store",
    "write_geotiff": "geotiff",
    "verify": "integrity",
}
_ROOMS = (
    "grid",
    "units",
    "shapes",
    "features",
    "scores",
    "regrid",
    "temporal",
    "coarse",
    "stations",
    "sources",
    "regressors",
    "models",
    "modelfiles",
    "store",
    "geotiff",
    "patterns",
    "shrinkage",
    "seams",
    "plot",
    "predict",
    "attribution",
    "published",
    "report",
    "resampling",
    "scenarios",
    "synthetic",
)

__all__ = [*_HOME, *_ROOMS, "__version__"]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        value = getattr(import_module(f"smgrid.{_HOME[name]}"), name)
    elif name in _ROOMS:
        value = import_module(f"smgrid.{name}")
    else:
        raise AttributeError(f"module 'smgrid' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
