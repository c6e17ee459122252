"""Keeps what a model must remember of its training rows, for the layers that need them.

Intervals need the errors at stations that were left out; dissimilarity needs the rows themselves. Both come from folds
that hold whole stations, so a model is fitted a few times more than once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smgrid.applicability import Reach, importance, reach
from smgrid.conformal import LEVEL, Fit, errors_out_of_fold, half_width
from smgrid.resampling import station_folds

FOLDS = 5
Arrays = dict[str, NDArray[Any]]
_TYPES = {"error": "f4", "station": "i4", "inputs": "f4", "center": "f8", "factor": "f8", "limits": "f8"}


@dataclass(frozen=True, eq=False)
class Calibration:
    """What a model keeps of its training rows.

    Parameters
    ----------
    error : array (n,), float32
        Predicted less observed (m3 m-3) of each row, by a model fitted without the row's station.
    station : array (n,), int32
        Number of the station each row belongs to.
    reach : Reach
        The rows themselves, and the area of applicability.
    """

    error: NDArray[np.float32]
    station: NDArray[np.int32]
    reach: Reach

    @property
    def stations(self) -> int:
        """How many stations."""
        return int(self.station.max()) + 1

    def half_width(self, level: float = LEVEL) -> float:
        """Half the width (m3 m-3) of the interval of a level; see `conformal.half_width`."""
        return half_width(self.error, self.station, level)

    def summary(self) -> str:
        """One line for people."""
        try:
            width = f"{LEVEL:.0%} interval +- {self.half_width():.3f} m3 m-3"
        except ValueError:
            width = f"too few for a {LEVEL:.0%} interval"
        return f"{self.stations} stations: {width}; applies up to dissimilarity {self.reach.threshold:.3f}"

    # ---- as plain data

    def to_arrays(self) -> Arrays:
        """As plain arrays, for a file."""
        r = self.reach
        limits = np.array([r.scale, r.threshold])
        own: Arrays = {"error": self.error, "station": self.station, "inputs": r.inputs}
        return {**own, "center": r.center, "factor": r.factor, "limits": limits}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]], inputs: int) -> Calibration:
        """What `to_arrays` gave, once it is known to be whole and to fit a model of so many inputs."""
        found = {name: (a.dtype.str[1:], a.shape) for name, a in arrays.items()}
        n = len(arrays["error"]) if "error" in arrays and arrays["error"].ndim == 1 else 0
        shapes: dict[str, tuple[int, ...]] = {"error": (n,), "station": (n,), "inputs": (n, inputs), "limits": (2,)}
        shapes |= {"center": (inputs,), "factor": (inputs,)}
        if not n or found != {name: (_TYPES[name], shape) for name, shape in shapes.items()}:
            raise ValueError(f"the calibration holds {found}, which does not fit a model of {inputs} inputs")
        station, factor, limits = arrays["station"], arrays["factor"], arrays["limits"]
        numbers = [a for name, a in arrays.items() if name != "station"]
        whole = all(np.isfinite(a).all() for a in numbers) and limits[0] > 0 <= limits[1]
        if not whole or (factor < 0).any() or not factor.any() or station.min() != 0:
            raise ValueError("the calibration holds numbers that no training gives")
        if station.max() >= n or not np.bincount(station).all():
            raise ValueError("the calibration holds numbers that no training gives")
        scale, threshold = map(float, limits)
        return cls(arrays["error"], station, Reach(arrays["inputs"], arrays["center"], factor, scale, threshold))

    def digest(self) -> str:
        """SHA-256 of all that is kept."""
        sha = hashlib.sha256()
        for name, array in sorted(self.to_arrays().items()):
            sha.update(f"{name}{array.shape}".encode() + np.ascontiguousarray(array, f"<{_TYPES[name]}").tobytes())
        return sha.hexdigest()


def calibrate(
    fit: Fit,
    fitted: Any,
    rows: NDArray[np.float64],
    target: NDArray[np.float64],
    station: NDArray[np.str_],
    widths: Sequence[int],
) -> Calibration:
    """Learn from training rows what intervals and dissimilarity need.

    Parameters
    ----------
    fit : function of (rows, target)
        Fits the regressor anew.
    fitted : regressor
        The one fitted on all rows.
    rows : array (n, k), float64
        Model inputs.
    target : array (n,)
        Observed, m3 m-3.
    station : array (n,)
        As `resampling.station_of` gives it; at least 2 different ones.
    widths : sequence of int
        How many inputs each predictor makes.

    Raises
    ------
    ValueError
        One station, a fold that cannot be fitted, predictors that do not vary.
    """
    names, code = np.unique(station, return_inverse=True)
    if names.size < 2:
        raise ValueError("all rows are of one station, which says nothing of others")
    folds = station_folds(station, min(FOLDS, names.size))
    inputs = rows.astype("f4")
    area = reach(inputs, importance(fitted, rows, target, widths), folds)
    return Calibration(errors_out_of_fold(fit, rows, target, folds), code.astype("i4"), area)
