"""Keeps together what must never part: a trained regressor and the contract of its predictors."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from smgrid import __version__
from smgrid.arrays import fingerprint
from smgrid.calibration import Calibration, calibrate
from smgrid.columns import SOIL, check_decibels, days_of, is_table, names_of, sample_columns, target_column, with_index
from smgrid.features import PAPER, Predictor, contract, encode
from smgrid.kernels import Kernel, kernel_of
from smgrid.regressors import is_fitted
from smgrid.resampling import station_of
from smgrid.spread import is_forest
from smgrid.units import canonical

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

log = logging.getLogger("smgrid")

_ONE_AT_A_TIME = threading.Lock()


def _unlock() -> None:
    global _ONE_AT_A_TIME
    _ONE_AT_A_TIME = threading.Lock()


if hasattr(os, "register_at_fork"):  # the thread that held it does not live on in a forked process
    os.register_at_fork(after_in_child=_unlock)

MAKING = {"averaging": ("vv", "vh"), "spreading": ("smap", "air_temperature", "precipitation")}
"""Attributes that say how a predictor was made; a map must be made as the training rows were."""


@dataclass(frozen=True, eq=False)
class Model:
    """A trained regressor with the contract of its predictors.

    Made by `smgrid.train`, `Model.from_estimator` or `smgrid.load_model`.

    Parameters
    ----------
    predictors : mapping of str to Predictor
        What the model expects of a cube, in the order of its columns.
    regressor : estimator
        Anything fitted with `predict(rows)`.
    encoded : bool
        Whether rows are encoded (models trained here) or handed over as physical values (foreign estimators).
    columns : tuple of str, optional
        Names that a foreign estimator was fitted with, in order.
    ranges : mapping of str to (float, float)
        Least and greatest value of each predictor in training.
    training : mapping
        Rows, stations, period, seed, versions.
    making : mapping
        How predictors were made, such as {"vv.averaging": "dB", "smap.spreading": "blocks"}.
    calibration : Calibration, optional
        What intervals and dissimilarity need of the training rows, where their stations were known.
    """

    predictors: Mapping[str, Predictor]
    regressor: Any
    encoded: bool = True
    columns: tuple[str, ...] | None = None
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    making: Mapping[str, str] = field(default_factory=dict)
    calibration: Calibration | None = None

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        units: Mapping[str, str] | str | None = None,
        *,
        features: Sequence[str] | Mapping[str, str] | None = None,
    ) -> Model:
        """Give a fitted foreign estimator a contract. It gets physical values exactly as named, never encoded.

        Parameters
        ----------
        estimator : fitted estimator
            A scikit-learn estimator or pipeline, XGBoost regressor or booster, anything with `predict(rows)`; it is
            never changed.
        units : mapping of str to str, optional
            Units it was trained with, by cube name; names of the paper's table have the table's.
        features : sequence or mapping of str, optional
            The column order, for one fitted on plain arrays; or a mapping from its names to the cube's.

        Raises
        ------
        ValueError
            Not fitted, no names, or not as many names as columns.
        """
        if isinstance(estimator, Model):
            return estimator
        if isinstance(estimator, str | os.PathLike):
            raise TypeError(f"a model is no path: smgrid.load_model({os.fspath(estimator)!r})")
        if not hasattr(estimator, "predict"):
            raise TypeError(f"a model has predict(rows); {type(estimator).__name__} has none")
        if not is_fitted(estimator):
            raise ValueError(
                f"{type(estimator).__name__} is not fitted: fit it first, or use "
                "smgrid.train(samples, regressor, features=[...])"
            )
        own = _own_names(estimator)
        cube_names = _cube_names(estimator, own, features)
        said = {} if units is None or isinstance(units, str) else dict(units)
        stray = sorted(set(said) - set(cube_names))
        if stray:
            raise ValueError(f"units name {stray}, which the estimator does not use; it uses {cube_names}")
        predictors = {}
        for name in cube_names:
            known = PAPER.get(name, Predictor(None))
            unit = said.get(name, known.units)
            if name in said and canonical(unit) is None:
                raise ValueError(f"the unit {unit!r} of {name!r} is unknown")
            same = unit is None or known.units is None or canonical(unit) == canonical(known.units)
            predictors[name] = known if same and known.units else Predictor(unit)
        return cls(predictors, estimator, encoded=False, columns=own)

    # ---- identity

    def description(self) -> dict[str, Any]:
        """Everything but the regressor and the calibration, as plain data."""
        return {
            "predictors": {name: asdict(p) for name, p in self.predictors.items()},
            "encoded": self.encoded,
            "columns": None if self.columns is None else list(self.columns),
            "ranges": {name: list(pair) for name, pair in self.ranges.items()},
            "training": dict(self.training),
            "making": dict(self.making),
        }

    @classmethod
    def from_description(cls, said: Mapping[str, Any], regressor: Any, calibration: Calibration | None = None) -> Model:
        """The model that `description` described, around a regressor and what was kept of its training rows."""
        return cls(
            {name: Predictor(**p) for name, p in said["predictors"].items()},
            regressor,
            encoded=bool(said["encoded"]),
            columns=None if said["columns"] is None else tuple(said["columns"]),
            ranges={name: (float(low), float(high)) for name, (low, high) in said["ranges"].items()},
            training=dict(said["training"]),
            making=dict(said["making"]),
            calibration=calibration,
        )

    @property
    def digest(self) -> str:
        """SHA-256 of contract, regressor and calibration: the same for the same model, wherever it was saved and loaded."""
        if "digest" not in self.__dict__:
            self.__dict__["digest"] = self._digest()
        return str(self.__dict__["digest"])

    def _digest(self) -> str:
        said = {k: v for k, v in self.description().items() if k != "training"}
        text = json.dumps([list(said["predictors"].items()), said], sort_keys=True)
        text += fingerprint(self.regressor)
        if self.calibration is not None:  # without one the digest is what it was before there was any
            text += self.calibration.digest()
        return hashlib.sha256(text.encode()).hexdigest()

    def __dask_tokenize__(self) -> str:
        return f"smgrid.Model-{self.digest}"

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k != "kernel"}

    # ---- prediction

    @property
    def kernel(self) -> Kernel:
        """The regressor made ready to predict, once a process; it is not pickled."""
        # no cached_property: its lock in Python 3.11 stays locked in forked processes
        if "kernel" not in self.__dict__:
            with _ONE_AT_A_TIME:  # threads that ask at once wait for the first
                if "kernel" not in self.__dict__:
                    columns = None if self.encoded else self.columns
                    self.__dict__["kernel"] = kernel_of(self.regressor, columns, encoded=self.encoded)
        made: Kernel = self.__dict__["kernel"]
        return made

    @property
    def encoding(self) -> list[Predictor] | None:
        """How values become inputs of the regressor; None where it takes them as they are."""
        return list(self.predictors.values()) if self.encoded else None

    def predict_columns(self, columns: Sequence[NDArray[Any]]) -> NDArray[np.float32]:
        """Predict rows given as one array (n,) a predictor, in canonical units; all values finite.

        Encode in float64, predict, round once to float32: a row's result never depends on its neighbours.
        """
        if self.encoded:
            return self.predict_tile(encode(columns, list(self.predictors.values())).T)
        return self.predict_tile(np.stack([np.asarray(c, "f8") for c in columns]))

    def predict_tile(self, tile: NDArray[Any]) -> NDArray[np.float32]:
        """Predict cells from their inputs (inputs, n)."""
        return self.kernel(np.ascontiguousarray(tile, self.kernel.dtype))

    def predict_spread(self, tile: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Predict cells from their inputs (inputs, n), and the spread of a forest's trees with them."""
        forest: Any = self.kernel  # a kernel of trees, or the library
        return forest.spread(np.ascontiguousarray(tile, forest.dtype))

    @property
    def is_forest(self) -> bool:
        """Whether its trees have a spread."""
        return is_forest(self.regressor)

    def predict(self, samples: xr.Dataset | pd.DataFrame) -> NDArray[np.float32]:
        """Soil moisture (m3 m-3) of samples; NaN where a predictor is missing or invalid, as in `predict_map`.

        Parameters
        ----------
        samples : Dataset (dim sample) or DataFrame
            With the model's predictors; `day_of_year` follows from `time` where it is absent.
        """
        columns = sample_columns(with_index(samples), self.predictors, None)
        whole = np.all([p.accepts(c) for p, c in zip(self.predictors.values(), columns)], axis=0)
        out = np.full(whole.shape, np.nan, "f4")
        if whole.any():
            out[whole] = self.predict_columns([c[whole] for c in columns])
        return out

    # ---- to be read

    def _summary(self) -> list[tuple[str, str]]:
        name = type(self.regressor).__name__
        lines = [("regressor", name if self.encoded else f"{name} (foreign: physical values as named)")]
        shown = [f"{n} [{p.units or 'any unit'}]" for n, p in self.predictors.items()]
        lines.append((f"{len(shown)} predictors", ", ".join(shown)))
        lines += [(key, str(value)) for key, value in self.training.items() if key != "versions" and value is not None]
        lines += [(key, value) for key, value in self.making.items()]
        if self.calibration is not None:
            lines.append(("calibrated at", self.calibration.summary()))
        return [*lines, ("digest", self.digest[:16])]

    def __repr__(self) -> str:
        from textwrap import fill

        rows = [fill(f"{k}: {v}", 110, initial_indent="  ", subsequent_indent="    ") for k, v in self._summary()]
        return "\n".join(["<smgrid.Model>", *rows])

    def _repr_html_(self) -> str:
        rows = "".join(f"<tr><th>{escape(k)}</th><td>{escape(v)}</td></tr>" for k, v in self._summary())
        return f"<table><caption>smgrid.Model</caption>{rows}</table>"


def train(
    samples: xr.Dataset | pd.DataFrame,
    regressor: Any,
    *,
    features: Sequence[str] | Mapping[str, Predictor] = tuple(PAPER),
    units: Mapping[str, str] | str | None = None,
) -> Model:
    """Fit a regressor on samples and keep it together with the contract of its predictors.

    Parameters
    ----------
    samples : Dataset (dim sample) or DataFrame
        Predictors and `soil_moisture` (m3 m-3), a row a station and day; `time`, `latitude`, `longitude`, `station` as
        far as known. Rows with a missing or invalid value (as in `predict_map`) are left out, and counted in the log.
    regressor : estimator with `fit` and `predict`
        A copy is fitted; the caller's is not changed.
    features : sequence of names or mapping of str to Predictor
        The predictors; a name outside the paper's table takes its unit from the samples and its range from their rows.
    units : mapping of str to str, or "canonical"
        Units of columns at the caller's word. A DataFrame's columns are taken as canonical otherwise.

    Returns
    -------
    Model
        Samples with `station` make one that can give the layers `interval` and `dissimilarity`: the regressor is then
        fitted five times more, each time without a fifth of the stations, and the model keeps the training rows.

    Raises
    ------
    ValueError
        Absent predictors (with the `features=` that would work), units that do not convert, columns whose median lies
        outside the table's range, no complete row.

    References
    ----------
    Zhu et al. (2025), IEEE TGRS 63, doi:10.1109/TGRS.2025.3533927, Table II for the encoding.

    Examples
    --------
    >>> import pandas as pd
    >>> from sklearn.linear_model import LinearRegression
    >>> table = pd.DataFrame({"vv": [-15.0, -10.0, -5.0], "soil_moisture": [0.1, 0.2, 0.3]})
    >>> model = train(table, LinearRegression(), features=["vv"])
    >>> model.predict(pd.DataFrame({"vv": [-7.5]})).round(3).tolist()
    [0.25]
    """
    samples, predictors = with_index(samples), contract(features)
    if "soil_moisture" in predictors:
        raise ValueError("features name 'soil_moisture', which is what the model learns: leave it out")
    columns = sample_columns(samples, predictors, units)
    target = target_column(samples, units)
    whole = _whole([*columns, target], {**predictors, "soil_moisture": SOIL})
    rows = int(whole.sum())
    columns = [c[whole] for c in columns]
    if is_table(samples) and units != "canonical":
        check_decibels({n: c for n, c in zip(predictors, columns) if n not in (units or {})}, predictors)
    ranges = {name: (float(c.min()), float(c.max())) for name, c in zip(predictors, columns)}
    predictors = {name: _filled(p, samples.get(name), ranges[name]) for name, p in predictors.items()}
    inputs, target = encode(columns, list(predictors.values())), target[whole]
    fitted = _copy_of(regressor).fit(inputs, target)
    kept = _calibration(samples, whole, regressor, fitted, inputs, target, [p.inputs for p in predictors.values()])
    training = {"rows": rows, "rows left out": whole.size - rows, **_history(samples, whole), **_pedigree(fitted)}
    making = {
        f"{name}.{key}": str(samples[name].attrs[key])
        for key, names in MAKING.items()
        for name in names
        if name in predictors and name in samples and key in samples[name].attrs
    }
    return Model(predictors, fitted, ranges=ranges, training=training, making=making, calibration=kept)


def _calibration(
    samples: Any, whole: NDArray[np.bool_], regressor: Any, fitted: Any, *rows_target_widths: Any
) -> Calibration | None:
    """What the model keeps of its training rows; None, which the log explains, where their stations are not known."""
    import pandas as pd

    names = names_of(samples)
    if "station" not in names:
        return None
    place = [n for n in ("row", "col", "network", "station", "latitude", "longitude") if n in names]
    places = pd.DataFrame({name: np.asarray(samples[name].values)[whole] for name in place})

    def fit(rows: NDArray[np.float64], target: NDArray[np.float64]) -> Any:
        return _copy_of(regressor).fit(rows, target)

    began = time.perf_counter()
    try:
        rows, target, widths = rows_target_widths
        kept = calibrate(fit, fitted, rows, target, station_of(places), widths)
        log.info("train: calibrated at %s; %.1f s", kept.summary(), time.perf_counter() - began)
        return kept
    except ValueError as error:
        log.warning("train: nothing is kept for the layers interval and dissimilarity: %s", error)
        return None


def _whole(columns: Sequence[NDArray[np.float64]], predictors: Mapping[str, Predictor]) -> NDArray[np.bool_]:
    """Rows that can be trained on; those left out are counted in the log."""
    missing = np.isnan(np.stack(columns)).any(axis=0)
    _check_target(columns[-1])
    bad = {n: int((~p.accepts(c) & ~np.isnan(c)).sum()) for (n, p), c in zip(predictors.items(), columns)}
    fine = [p.accepts(c) for p, c in zip(predictors.values(), columns)]
    whole: NDArray[np.bool_] = np.all(fine, axis=0)
    if not whole.any():
        empty = [n for n, known in zip(predictors, fine) if not known.any()]
        raise ValueError(
            f"none of the {whole.size} rows has all predictors and soil_moisture"
            + (f"; always missing or invalid: {empty}" if empty else "")
        )
    if missing.any():
        log.info("train: %d of %d rows left out for a missing value", missing.sum(), whole.size)
    if any(bad.values()):
        log.warning(
            "train: %d of %d rows left out for an invalid value, a fill or another unit: %s",
            (~whole & ~missing).sum(), whole.size, ", ".join(f"{n} {k}" for n, k in bad.items() if k),
        )  # fmt: skip
    return whole


def _check_target(soil: NDArray[np.float64]) -> None:
    """Refuse targets that are mostly no soil moisture: training on the rest would go wrong in silence."""
    known = soil[np.isfinite(soil)]
    wrong = int(((known < 0) | (known > 1)).sum())
    if 2 * wrong > known.size:
        raise ValueError(
            f"'soil_moisture': {wrong} of {known.size} targets lie outside 0..1 m3 m-3; they range from {known.min():g} "
            f"to {known.max():g}, with the median {np.median(known):g}: expected are m3 m-3. For percent: "
            "units={'soil_moisture': '%'}, or samples['soil_moisture'].attrs['units'] = '%'"
        )
    if known.size > 1 and np.ptp(known) == 0:
        log.warning(
            "train: all %d targets are %g m3 m-3, so every map will be: is this the right column?", known.size, known[0]
        )


def _filled(p: Predictor, source: Any, seen: tuple[float, float]) -> Predictor:
    """A predictor outside the table takes its unit from the samples and its range from their rows."""
    units = p.units or (getattr(source, "attrs", {}).get("units") if source is not None else None)
    if p.period is None and p.min is None:
        low, high = seen
        return Predictor(units, low, high if high > low else low + 1)
    return Predictor(units, p.min, p.max, p.period)


def _copy_of(regressor: Any) -> Any:
    if not (hasattr(regressor, "fit") and hasattr(regressor, "predict")):
        raise TypeError(f"a regressor has fit and predict; {type(regressor).__name__} has not")
    if isinstance(regressor, type):
        raise TypeError(f"a regressor is one, not its class: {regressor.__name__}(), with its parameters")
    if hasattr(regressor, "get_params"):
        from sklearn.base import clone

        return clone(regressor)
    from copy import deepcopy

    return deepcopy(regressor)


def _history(samples: Any, rows: NDArray[np.bool_]) -> dict[str, Any]:
    """Stations and period of the training rows, as far as known."""
    names = names_of(samples)
    out: dict[str, Any] = {}
    if "station" in names:
        out["stations"] = len(set(np.asarray(samples["station"].values)[rows].astype(str)))
    if "time" in names:
        days = days_of(samples)[rows]
        known = days[~np.isnat(days)]
        if known.size:
            out["period"] = f"{known.min()} to {known.max()}"
    source = str(getattr(samples, "attrs", {}).get("source", ""))
    if "synthetic" in source.lower():
        out["source"] = source
    return out


def _pedigree(fitted: Any) -> dict[str, Any]:
    seed = getattr(fitted, "random_state", None)
    versions = {"smgrid": __version__, "numpy": np.__version__}
    root = type(fitted).__module__.split(".")[0]
    for package in {"sklearn", root} & {"sklearn", "xgboost"}:
        versions[package] = __import__(package).__version__
    return {"seed": seed if isinstance(seed, int) else None, "versions": versions}


def _own_names(estimator: Any) -> tuple[str, ...] | None:
    names = getattr(estimator, "feature_names_in_", None)
    if names is None:
        booster = getattr(estimator, "get_booster", None)
        names = booster().feature_names if booster else getattr(estimator, "feature_names", None)
    return None if names is None else tuple(str(n) for n in names)


def _cube_names(
    estimator: Any, own: tuple[str, ...] | None, features: Sequence[str] | Mapping[str, str] | None
) -> list[str]:
    """Names in the cube of the estimator's columns, in its order."""
    if isinstance(features, Mapping):
        if own is None:
            raise ValueError("the estimator has no names of its own to map from: give features=[...] in column order")
        stray = sorted(set(features) - set(own))
        if stray:
            raise ValueError(f"features map {stray}, which the estimator does not know; it has {list(own)}")
        return list(contract([features.get(name, name) for name in own]))
    if features is not None:
        names = list(contract(features))
        if own is not None and set(own) == set(names) and list(own) != names:
            raise ValueError(f"the estimator was fitted in the order {list(own)}, not {names}: leave features out")
        if own is not None and set(own) != set(names):
            raise ValueError(
                f"the estimator was fitted with the names {list(own)}; to call them otherwise give a mapping: "
                f"features={dict(zip(own, names))}"
            )
        count = getattr(estimator, "n_features_in_", None)
        if count is not None and count != len(names):
            raise ValueError(f"the estimator was fitted on {count} columns, but features name {len(names)}: {names}")
        return names
    if own is None:
        raise ValueError(
            f"{type(estimator).__name__} was fitted on plain arrays, so its column order is unknown: "
            "smgrid.Model.from_estimator(estimator, features=['vv', 'vh', ...]) in the order of the columns"
        )
    return list(contract(own))
