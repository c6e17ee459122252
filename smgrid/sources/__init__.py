"""Opens one product, lazily, in canonical units, on its own grid; stations as point tables.

Each product is a room of its own with one verb: `sources.smap.open(paths)`. Gridded products give a Dataset whose
variables carry the predictors' names, dims (time, y, x) or (y, x), y descending, the product's CRS in `spatial_ref`,
NaN where missing, and say in their attrs what they are: `product`, `version`, `native_resolution`, `source_files`, the
rules applied.
"""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType

__all__ = sorted(module.name for module in iter_modules(__path__) if not module.name.startswith("_"))


def __getattr__(name: str) -> ModuleType:
    if name in __all__:
        return import_module(f"smgrid.sources.{name}")
    raise AttributeError(f"there is no product room {name!r}; there are {__all__}")
