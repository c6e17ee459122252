"""Says what layers maps have, and makes all layers of one block from one read of its predictors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smgrid import __version__
from smgrid.models import Model
from smgrid.regressors import one_thread
from smgrid.shapes import INVALID, MASKED, MISSING, OUTSIDE, PREDICTED
from smgrid.units import Conversion

LAYERS = ("soil_moisture", "status", "culprit")
_LATER = ("spread", "interval", "dissimilarity")
TILE = 65536  # rows encoded at once inside a block; bounds memory whatever the chunk


def check_layers(layers: Sequence[str]) -> tuple[str, ...]:
    """The layers asked for, each once; those that there are none of are refused."""
    if isinstance(layers, str):
        layers = (layers,)
    for name in layers:
        if name in _LATER:
            raise ValueError(
                f"the layer {name!r} needs what this model does not keep; it gives {list(LAYERS)}. Leave {name!r} out"
            )
        if name not in LAYERS:
            raise ValueError(f"there is no layer {name!r}; there are {list(LAYERS)}")
    if not layers:
        raise ValueError(f"no layers asked for; there are {list(LAYERS)}")
    return tuple(dict.fromkeys(layers))


def dtype_of(layer: str) -> str:
    """Type of a layer, in memory and on disk."""
    return "float32" if layer == "soil_moisture" else "uint8"


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
    layers: tuple[str, ...]
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
        placed = [_placed(a, i.axes, self.ndim) for a, i in zip(arrays, self.inputs)]
        shape = np.broadcast_shapes(*(a.shape for a in placed))
        wanted = placed.pop().astype(bool) if self.masked else None
        values = [i.conversion(a) for a, i in zip(placed, self.inputs)]
        status, culprit = self._judge(values, wanted, shape)
        soil = np.full(status.size, np.nan, "f4")
        known = np.flatnonzero(status.ravel() <= OUTSIDE)
        with one_thread():
            for start in range(0, known.size, TILE):
                cells = known[start : start + TILE]
                soil[cells] = model.predict_columns(_columns(values, cells, shape))
        made = {"soil_moisture": soil.reshape(shape), "status": status, "culprit": culprit}
        return made[self.layers[0]] if len(self.layers) == 1 else tuple(made[name] for name in self.layers)

    def _judge(
        self, values: list[NDArray[Any]], wanted: NDArray[np.bool_] | None, shape: tuple[int, ...]
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Status and culprit of every cell, predictor by predictor; the first that fails is named."""
        status, culprit = np.zeros(shape, "u1"), np.zeros(shape, "u1")
        trained = {"status", "culprit"} & set(self.layers)
        for number, (value, i) in enumerate(zip(values, self.inputs), start=1):
            missing = np.isnan(value)
            low, high = i.plausible
            bad = missing | ~((value >= low) & (value <= high)) if low > -np.inf else ~np.isfinite(value)
            if bad.any():
                first = bad & (status < MISSING)
                culprit[first] = number
                status[first] = np.where(np.broadcast_to(missing, shape)[first], MISSING, INVALID)
            if trained and i.trained is not None:
                low, high = i.trained
                out = ((value < low) | (value > high)) & (status == PREDICTED)
                if out.any():
                    culprit[out] = number
                    status[out] = OUTSIDE
        if wanted is not None:
            masked = np.broadcast_to(~wanted, shape)
            status[masked], culprit[masked] = MASKED, 0
        return status, culprit


def _placed(array: Any, axes: tuple[int, ...], ndim: int) -> NDArray[Any]:
    """View an array among the block's dims: own axes in the block's order, 1 elsewhere."""
    array = np.asarray(array).transpose(np.argsort(axes))
    shape = [1] * ndim
    for axis, size in zip(sorted(axes), array.shape):
        shape[axis] = size
    return array.reshape(shape)


def _columns(values: list[NDArray[Any]], cells: NDArray[np.intp], shape: tuple[int, ...]) -> list[NDArray[Any]]:
    """Values of some cells of the block, an array a predictor; what is smaller than the block is never blown up."""
    place = np.unravel_index(cells, shape)
    return [
        v.reshape(-1)[cells]
        if v.shape == shape
        else v[tuple(p if n > 1 else 0 for p, n in zip(place, v.shape))]
        if v.size > 1
        else np.full(cells.size, v.reshape(()))
        for v in values
    ]
