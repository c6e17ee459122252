"""Says what layers maps have, and makes all layers of one block from one read of its predictors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smgrid import __version__
from smgrid.cells import Known, judge
from smgrid.conformal import bounds
from smgrid.models import Model
from smgrid.regressors import one_thread
from smgrid.shapes import (
    BEYOND,
    INSIDE,
    MASKED,
    NOT_PREDICTED,
    OUTSIDE,
    layer_attributes,
)
from smgrid.units import Conversion

LAYERS = ("soil_moisture", "status", "culprit")
"""Layers that any model gives."""

TRAINED = ("spread", "interval", "dissimilarity")
"""Layers that need a forest, or the training rows."""

PARTS = {"interval": ("lower", "upper"), "dissimilarity": ("dissimilarity", "applicability")}
"""Variables of layers that are not one variable of the same name."""

NOTHING = dict.fromkeys(("soil_moisture", "spread", "lower", "upper", "dissimilarity"), np.nan)
NOTHING |= {"status": 0, "culprit": 0, "applicability": NOT_PREDICTED}
"""What stands in a cell that has no prediction, by variable."""

_NUMBERED = 255  # predictors that `culprit` can tell apart

TILE = 32768  # cells encoded at once inside a block; bounds memory whatever the chunk, and is enough for a forest


def dtype_of(variable: str) -> str:
    """Type of a variable, in memory and on disk."""
    return "float32" if np.isnan(NOTHING[variable]) else "uint8"


# ---- what is wanted


@dataclass(frozen=True)
class Wanted:
    """The variables that maps shall have, and the numbers that they follow from.

    Parameters
    ----------
    names : tuple of str
        Variables, in order.
    level, half : float
        Nominal coverage of the interval, and half its width.
    threshold : float
        Largest dissimilarity inside the area of applicability.
    """

    names: tuple[str, ...]
    level: float = np.nan
    half: float = np.nan
    threshold: float = np.nan

    @classmethod
    def of(cls, layers: Sequence[str], model: Model, level: float) -> Wanted:
        """The layers asked for, each once; those that there are none of, or none from this model, are refused."""
        layers = (layers,) if isinstance(layers, str) else tuple(layers)
        if not layers:
            raise ValueError(f"no layers asked for; there are {[*LAYERS, *TRAINED]}")
        whole = {part: layer for layer, parts in PARTS.items() for part in parts}
        for name in layers:
            if name not in (*LAYERS, *TRAINED, *whole):
                raise ValueError(f"there is no layer {name!r}; there are {[*LAYERS, *TRAINED]}")
        asked = {whole.get(name, name) for name in layers}
        _refuse(asked, model)
        names = tuple(dict.fromkeys(part for name in layers for part in PARTS.get(name, (name,))))
        kept = model.calibration
        ours: dict[str, float] = {}
        if kept is not None and "interval" in asked:
            ours = {"half": kept.half_width(level), "level": float(level)}
        if kept is not None and "dissimilarity" in asked:
            ours["threshold"] = kept.reach.threshold
        return cls(names, **ours)

    def attributes(self, name: str, model: Model) -> dict[str, Any]:
        """CF attributes of one variable."""
        attrs = layer_attributes(name, list(self.names), list(model.predictors))
        if name in ("lower", "upper") and model.calibration is not None:
            attrs["long_name"] = f"{name} bound of the {100 * self.level:.4g} % prediction interval"
            attrs |= {"level": self.level, "half_width": self.half}
            attrs["comment"] = (
                f"split-conformal, calibrated at {model.calibration.stations} stations left out of training; cut to 0..1"
            )
        if name in ("dissimilarity", "applicability"):
            attrs |= {"threshold": self.threshold, "references": "doi:10.1111/2041-210X.13650"}
        return attrs


def _refuse(asked: set[str], model: Model) -> None:
    """Refuse what this model cannot give, and say which model could."""
    kind = type(model.regressor).__name__
    if "spread" in asked and not model.is_forest:
        raise ValueError(
            f"'spread' is the standard deviation over the trees of a random forest, and this model is of "
            f"{kind}: train smgrid.make_regressor('rf'), or leave 'spread' out"
            + ("; 'interval' says of any model how far it errs" if "interval" not in asked else "")
        )
    if "culprit" in asked and len(model.predictors) > _NUMBERED:
        raise ValueError(
            f"'culprit' is a byte and names one of {_NUMBERED} predictors at most; this model has "
            f"{len(model.predictors)}: leave 'culprit' out"
        )
    if model.calibration is not None:
        return
    for name, why in (("interval", "errors at stations left out of training"), ("dissimilarity", "training rows")):
        if name in asked:
            raise ValueError(
                f"{name!r} needs {why}, and this model keeps none: train it (anew) with smgrid.train on samples that "
                f"name the 'station' of each row, or leave {name!r} out"
            )


# ---- one block


@dataclass(frozen=True)
class Input:
    """One array that a block gets: where its axes go among the block's dims, and how its values convert."""

    axes: tuple[int, ...]
    conversion: Conversion
    plausible: tuple[float, float]
    trained: tuple[float, float] | None


@dataclass(frozen=True)
class Plan:
    """What happens to a block; a value, so that equal plans make equal blocks."""

    names: tuple[str, ...]
    inputs: tuple[Input, ...]
    wanted: Wanted
    ndim: int
    masked: bool

    def __dask_tokenize__(self) -> tuple[Any, ...]:
        return ("smgrid.predict", __version__, repr(self))

    def __call__(self, model: Model, *arrays: Any) -> Any:
        """Predict one block.

        Parameters
        ----------
        model : Model
        *arrays : arrays in the order of `names`, each with its own dims

        Returns
        -------
        array, or tuple of arrays where there are several layers; each has the dims and shape of the block
        """
        shape = np.broadcast_shapes(*(_placed(a, i.axes, self.ndim).shape for a, i in zip(arrays, self.inputs)))
        return self.on_demand(shape, lambda: model, *(partial(np.asarray, a) for a in arrays))

    def on_demand(self, shape: tuple[int, ...], model: Callable[[], Model], *reads: Callable[[], Any]) -> Any:
        """Predict one block of a known shape; its inputs are read one by one, as long as any cell may be predicted."""
        status, culprit = np.zeros(shape, "u1"), np.zeros(shape, "u1")
        values = self._judge([self._reading(n, read) for n, read in enumerate(reads)], status, culprit)
        made = {
            name: np.full(shape, NOTHING[name], dtype_of(name))
            for name in self.wanted.names
            if name not in ("status", "culprit")
        }
        if made and (status <= OUTSIDE).any():
            self._fill(made, model(), status, values)
        made |= {"status": status, "culprit": culprit}
        layers = tuple(made[name] for name in self.wanted.names)
        return layers[0] if len(layers) == 1 else layers

    def all_masked(self, shape: tuple[int, ...], where: Any) -> Any:
        """A block without a cell to predict; it depends on nothing but its mask."""
        rest: list[Any] = [None] * (len(self.names) - 1)
        return self.on_demand(shape, lambda: None, *rest, lambda: where)  # type: ignore[arg-type, return-value]

    def _reading(self, number: int, read: Callable[[], Any]) -> Callable[[], NDArray[Any]]:
        i = self.inputs[number]
        return lambda: i.conversion(_placed(read(), i.axes, self.ndim))

    def _judge(
        self, reads: list[Callable[[], NDArray[Any]]], status: NDArray[np.uint8], culprit: NDArray[np.uint8]
    ) -> list[NDArray[Any]]:
        """Status and culprit of every cell, predictor by predictor; gives the predictors that had to be read."""
        left, values = status.size, list[NDArray[Any]]()
        if self.masked:
            status[np.broadcast_to(~reads.pop()().astype(bool), status.shape)] = MASKED
            left -= int(np.count_nonzero(status))
        asked = {"status", "culprit"} & set(self.wanted.names)
        for number, (read, i) in enumerate(zip(reads, self.inputs), start=1):
            if not left:
                break
            values.append(read())
            left = judge(values[-1], status, culprit, min(number, _NUMBERED), i.plausible, i.trained if asked else None)
        return values

    def _fill(
        self, made: dict[str, NDArray[Any]], model: Model, status: NDArray[np.uint8], values: list[NDArray[Any]]
    ) -> None:
        """Lay predictions down, a tile of known cells at a time."""
        known = Known.of(status, values, model.encoding)
        dtype = "f8" if {"dissimilarity", "applicability"} & made.keys() else model.kernel.dtype
        with one_thread():
            for start in range(0, known.count, TILE):
                tile = known.tile(start, min(start + TILE, known.count), dtype)
                for name, found in self._tile(model, tile).items():
                    known.put(found, start, made[name])

    def _tile(self, model: Model, tile: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """All variables of some cells that have every predictor: encoded once, every tree walked once."""
        names, found = set(self.wanted.names), dict[str, NDArray[Any]]()
        apart = bool(names & {"dissimilarity", "applicability"})
        if "spread" in names:
            found["soil_moisture"], found["spread"] = model.predict_spread(tile)
        elif names & {"soil_moisture", "lower", "upper"}:
            found["soil_moisture"] = model.predict_tile(tile)
        if names & {"lower", "upper"}:
            found["lower"], found["upper"] = bounds(found["soil_moisture"], self.wanted.half)
        if apart and model.calibration is not None:
            index = model.calibration.reach.dissimilarity(tile.T)
            found["dissimilarity"] = index
            found["applicability"] = np.where(index <= np.float32(self.wanted.threshold), INSIDE, BEYOND)
        return {name: values for name, values in found.items() if name in names}


def _placed(array: Any, axes: tuple[int, ...], ndim: int) -> NDArray[Any]:
    """View an array among the block's dims: own axes in the block's order, 1 elsewhere."""
    array = np.asarray(array).transpose(np.argsort(axes))
    shape = [1] * ndim
    for axis, size in zip(sorted(axes), array.shape):
        shape[axis] = size
    return array.reshape(shape)
