"""Finds the compiled half of smgrid, if there is one.

`smgrid._native` is built from the C files in `smgrid/c` when smgrid is installed. Where there is no compiler the install
succeeds without it, and every map is made by numpy and the libraries instead: the same values, slower. The variable
SMGRID_NATIVE=0 in the environment turns it off. In a checkout the compiled file may be older than the Python beside it:
both carry the number of the interface between them, and a file with another number is not used.
"""

from __future__ import annotations

import logging
import os
from functools import cache
from importlib import import_module
from types import ModuleType

log = logging.getLogger("smgrid")

INTERFACE = 1
"""Of the compiled functions: names, arguments, what they mean. SMGRID_INTERFACE in `c/native.h` is the same number."""


@cache
def native() -> ModuleType | None:
    """The compiled module, or None; the log hears once, when it is first asked for, that there is none."""
    if why := _absent():
        # a stale one is nobody's intention
        level = logging.WARNING if why.startswith("not compiled anew") else logging.INFO
        log.log(level, "predictions take the slower way of the libraries: %s", why)
        return None
    return import_module("smgrid._native")


def state() -> str:
    """One line for people: which instructions the compiled half uses, or why there is none.

    Examples
    --------
    >>> state().startswith(("compiled", "not compiled", "turned off"))
    True
    """
    return _absent() or f"compiled; uses the form {import_module('smgrid._native').form()!r}"


def _absent() -> str | None:
    if os.environ.get("SMGRID_NATIVE", "1") == "0":
        return "turned off by SMGRID_NATIVE=0"
    try:
        found = getattr(import_module("smgrid._native"), "INTERFACE", 0)
    except ImportError as error:
        return f"not compiled ({error}); a C compiler must be there when smgrid is installed"
    if found != INTERFACE:
        return (
            f"not compiled anew: smgrid._native has the interface {found}, this smgrid expects {INTERFACE}; "
            "run `make native` in a checkout, or install smgrid again"
        )
    return None
