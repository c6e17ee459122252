"""Says how far predictions are drawn to the mean, and undoes it.

A regressor that is unsure predicts something near the mean of its training: wet cells come out too dry, dry ones too
wet. The remedy is known from predictions that were not fitted (out-of-bag, or of held-out stations). It trades error
for range: the spread of a map becomes that of the truth, its root-mean-square error may grow. A correction that was
learned on the map it is judged on would prove nothing, so it says where it was learned and refuses that map.

References
----------
Belitz & Stackelberg (2021), Environ. Model. Softw. 139, 105006, doi:10.1016/j.envsoft.2021.105006
Song (2015), J. Korean Stat. Soc. 44, 321-326, doi:10.1016/j.jkss.2015.01.003
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from smgrid.grid import Grid
from smgrid.resampling import bounds, draw_counts
from smgrid.scores import _on_axes_of, _units
from smgrid.shapes import as_field

KINDS = ("linear", "quantile", "rotation")
QUANTILES = 101
MIN_ROWS = 10
DRAWS = 1000


def diagnose(prediction: Any, reference: Any, *, groups: Any = None, seed: int = 0) -> xr.Dataset:
    """Say how far predictions are drawn to the mean.

    Parameters
    ----------
    prediction, reference : DataArray, maps or array, any dims
        Cells missing in either are left out.
    groups : DataArray or array of labels, optional
        The unit of the intervals: the station (`resampling.station_of`) or the 9-km block. Without it there are none,
        for rows of one station are no independent witnesses.
    seed : int
        Of the bootstrap.

    Returns
    -------
    Dataset
        `slope` and `intercept` of prediction on reference (1 and 0: not drawn), `variance_ratio` sd(p) / sd(o),
        `bias_dry` and `bias_wet`, the mean error where the reference is below its first and above its last decile;
        `calibration_slope`, that of the reference on the prediction: near 1 where predictions are drawn to the mean for
        being honest about what they do not know, and a correction then costs error. With `groups`, `NAME_interval`.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> truth = rng.normal(0.2, 0.08, 4000)
    >>> known = truth + rng.normal(0, 0.08, 4000)  # all that the predictors tell
    >>> found = diagnose(0.2 + 0.5 * (known - 0.2), truth)
    >>> found.slope.round(1).item(), found.calibration_slope.round(1).item(), bool(found.bias_wet < 0 < found.bias_dry)
    (0.5, 1.0, True)
    """
    p, o, unit = _rows(prediction, reference, groups)
    low, high = np.quantile(o, [0.1, 0.9])
    names = ("slope", "intercept", "variance_ratio", "calibration_slope", "bias_dry", "bias_wet")
    one, dry, wet = np.ones_like(p), o <= low, o >= high
    e, pc, oc = p - o, p - p.mean(), o - o.mean()
    columns = (one, pc, oc, pc * pc, oc * oc, pc * oc, dry * e, dry, wet * e, wet)
    table: NDArray[np.float64] = np.stack(columns, axis=1).astype("f8")

    def measures(s: NDArray[Any]) -> NDArray[np.float64]:
        n, a, b, aa, bb, ab, de, d, we, w = s
        with np.errstate(divide="ignore", invalid="ignore"):
            cov, var_p, var_o = ab / n - a * b / n**2, aa / n - (a / n) ** 2, bb / n - (b / n) ** 2
            slope = cov / var_o
            intercept = p.mean() + a / n - slope * (o.mean() + b / n)
            return np.stack([slope, intercept, np.sqrt(var_p / var_o), cov / var_p, de / d, we / w])

    point = measures(np.add.reduce(table))
    units = _shared_units(prediction, reference)
    said = dict(zip(names, _SAID))
    out: dict[str, Any] = {name: ((), value, _attrs(said[name], units)) for name, value in zip(names, point)}
    extra: dict[str, Any] = {}
    if unit is not None:
        labels, code = np.unique(unit, return_inverse=True)
        if labels.size < 3:
            raise ValueError(f"an interval needs at least 3 groups, not {labels.size}; without `groups` there is none")
        sums = np.stack([np.bincount(code, column) for column in table.T], axis=1)
        counts = draw_counts(labels.size, DRAWS, np.random.default_rng(seed)).astype("f8")
        drawn = bounds(measures((counts @ sums).T), axis=1)  # (2, measures)
        for k, name in enumerate(names):
            attrs = _attrs((said[name][0] + ", 95 % interval", *said[name][1:]), units)
            out[f"{name}_interval"] = ("bound", drawn[:, k], attrs)
        extra = {"bound": ["lower", "upper"]}
    return xr.Dataset(out, coords=extra, attrs={"n": int(p.size)})


_SAID = (
    ("slope of prediction on reference", "1", "cov(p, o) / var(o)"),
    ("intercept of prediction on reference", "field", "mean(p) - slope mean(o)"),
    ("standard deviation, prediction over reference", "1", "sd(p) / sd(o)"),
    ("slope of reference on prediction", "1", "cov(p, o) / var(p)"),
    ("mean error where the reference is in its driest tenth", "field", "mean(p - o | o <= q10)"),
    ("mean error where the reference is in its wettest tenth", "field", "mean(p - o | o >= q90)"),
)


def _attrs(said: tuple[str, str, str], units: str | None) -> dict[str, str]:
    long_name, unit, formula = said
    spelt = units if unit == "field" else unit
    return {"long_name": long_name, "formula": formula} | ({"units": spelt} if spelt else {})


# ---- corrections


@dataclass(frozen=True, eq=False)
class Correction:
    """A monotone change of predictions, and where it was learned; `fit` makes it.

    Attributes
    ----------
    kind : str
        "linear", "quantile" or "rotation".
    source, target : array
        Predictions, ascending, and what they become; straight lines between, and beyond the ends on at the slope of
        the line (linear, rotation) or at the distance of the end (quantile).
    gain : float
        Slope beyond the ends.
    fitted_on : str
        Where it was learned, in words.
    """

    kind: str
    source: NDArray[np.float64]
    target: NDArray[np.float64]
    gain: float
    fitted_on: str
    units: str | None = None
    learned: tuple[tuple[Grid, tuple[Any, ...]], ...] = field(default=(), repr=False)  # maps: window, dates

    def apply(self, prediction: Any) -> Any:
        """Correct predictions.

        Parameters
        ----------
        prediction : DataArray, maps or array
            Missing stays missing; lazy stays lazy. Of maps, `soil_moisture` is changed.

        Returns
        -------
        as given
            With `correction` in the attrs of the field, which says how and where it was learned. Values below 0 become
            0, as no soil holds less.

        Raises
        ------
        ValueError
            The correction was learned on a map of the same place and date, or the units differ.
        """
        if isinstance(prediction, np.ndarray):
            return self._of(prediction)
        if isinstance(prediction, xr.Dataset):
            return prediction.assign(soil_moisture=self.apply(as_field(prediction)))
        array = as_field(prediction)
        self._refuse(array)
        out = xr.apply_ufunc(self._of, array, dask="parallelized", output_dtypes=[array.dtype], keep_attrs=True)
        return out.assign_attrs(correction=f"{self.kind}, for regression to the mean, learned on {self.fitted_on}")

    def _of(self, values: NDArray[Any]) -> NDArray[Any]:
        v = np.asarray(values, "f8")
        out = np.interp(v, self.source, self.target)
        low, high = self.source[0], self.source[-1]
        out = np.where(v < low, self.target[0] + self.gain * (v - low), out)
        out = np.where(v > high, self.target[-1] + self.gain * (v - high), out)
        return np.maximum(out, 0).astype(np.asarray(values).dtype)

    def _refuse(self, array: xr.DataArray) -> None:
        units = array.attrs.get("units")
        if None not in (units, self.units) and units != self.units:
            raise ValueError(f"the correction was learned in {self.units!r}, the predictions are in {units!r}: convert")
        if not {"y", "x"} <= set(array.dims):
            return
        for window, days in self.learned:
            try:
                window & Grid.of(array)
            except ValueError:
                continue  # elsewhere, or on cells of another size
            mine = _days(array)
            shared = sorted({*days} & {*mine}) if days and mine else ["a date that nothing names"]
            if shared:
                raise ValueError(
                    f"the correction was learned on a map of this place and {', '.join(map(str, shared[:3]))}: judged "
                    "on it, it would prove nothing. Fit it on predictions of held-out stations, or on other dates"
                )


def fit(
    prediction: Any,
    reference: Any,
    *,
    how: Literal["linear", "quantile", "rotation"] = "linear",
    fitted_on: str,
) -> Correction:
    """Learn how to undo regression to the mean, from predictions that were not fitted.

    Parameters
    ----------
    prediction, reference : DataArray or array, m3 m-3
        Out-of-bag predictions, or those of held-out stations, and what was observed there. Predictions of rows that
        trained the model look better than they are and teach too little. Maps of other places or dates are taken too.
    how : str
        "linear": mean and standard deviation become the reference's. "quantile": the whole distribution does.
        "rotation": the line of predictions on observations is turned onto 1:1, so that errors no longer depend on what
        was observed; the strongest of the three, by 1 / r, and meant for r well above 0.5.
    fitted_on : str
        Where predictions and observations are from, in words; kept, and written into what is corrected.

    Returns
    -------
    Correction

    Raises
    ------
    ValueError
        Fewer than 10 rows, predictions that do not vary or do not rise with the observations, or no word on where they
        are from.

    References
    ----------
    Belitz & Stackelberg (2021), Environ. Model. Softw. 139, 105006, doi:10.1016/j.envsoft.2021.105006 (z-score
    transform, empirical distribution matching)
    Song (2015), J. Korean Stat. Soc. 44, 321-326, doi:10.1016/j.jkss.2015.01.003 (the idea of rotation)

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> truth = rng.normal(0.25, 0.05, 1000)
    >>> drawn = 0.25 + 0.5 * (truth - 0.25)
    >>> correction = fit(drawn, truth, fitted_on="synthetic held-out stations, 2016-2021")
    >>> correction.apply(np.array([0.20, 0.25, 0.30])).round(3).tolist()
    [0.15, 0.25, 0.35]
    """
    if how not in KINDS:
        raise ValueError(f"how is one of {KINDS}, not {how!r}")
    if not str(fitted_on).strip():
        raise ValueError("say where the correction is learned: fitted_on='out-of-bag predictions, 2016-2021'")
    p, o, _ = _rows(prediction, reference, None)
    sd_p, sd_o = p.std(), o.std()
    if p.size < MIN_ROWS or not sd_p > 0 or not sd_o > 0:
        raise ValueError(f"a correction needs at least {MIN_ROWS} rows that vary; there are {p.size}, sd {sd_p:.3g}")
    r = float(np.corrcoef(p, o)[0, 1])
    if not r > 0:
        raise ValueError(f"predictions do not rise with the observations (r = {r:.2f}): there is nothing to stretch")
    where = _learned(prediction)
    units = _shared_units(prediction, reference)
    if how == "quantile":
        q = np.linspace(0, 1, min(QUANTILES, p.size))
        source, index = np.unique(np.quantile(p, q), return_index=True)
        target = np.maximum.accumulate(np.quantile(o, q)[index])
        return Correction(how, source, target, 1.0, str(fitted_on), units, where)
    gain = float(sd_o / sd_p) if how == "linear" else float(sd_o / sd_p / r)  # 1 / slope of p on o
    source = np.array([p.min(), p.max()])
    return Correction(how, source, o.mean() + gain * (source - p.mean()), gain, str(fitted_on), units, where)


# ---- the door


def _rows(
    prediction: Any, reference: Any, groups: Any
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[Any] | None]:
    """Values that both have, and the group of each."""
    given: list[Any] = [
        as_field(f) if isinstance(f, xr.DataArray | xr.Dataset) else np.asarray(f) for f in (prediction, reference)
    ]
    if all(isinstance(a, xr.DataArray) for a in given):
        first, second = given
        given = [*xr.broadcast(first, _on_axes_of(first, second))]
        if isinstance(groups, xr.DataArray):
            groups = groups.broadcast_like(given[0]).transpose(*given[0].dims).values
        given = [a.values for a in given]
    p, o = (np.asarray(a, "f8") for a in given)
    unit = None if groups is None else np.asarray(groups)
    if p.shape != o.shape or (unit is not None and unit.shape != p.shape):
        shapes = [p.shape, o.shape, *([] if unit is None else [unit.shape])]
        raise ValueError(f"predictions, references and groups differ in shape: {shapes}")
    known = np.isfinite(p) & np.isfinite(o)
    if not known.any():
        raise ValueError("the fields have no cell in common")
    return p[known], o[known], None if unit is None else unit[known]


def _shared_units(prediction: Any, reference: Any) -> str | None:
    if all(isinstance(f, xr.DataArray | xr.Dataset) for f in (prediction, reference)):
        return _units(prediction, reference)
    return None


def _days(array: xr.DataArray) -> tuple[Any, ...]:
    """The dates of a field, as text; none where it has none."""
    if "time" not in array.coords:
        return ()
    return tuple(np.atleast_1d(array["time"].values).astype("M8[D]").astype(str).tolist())


def _learned(prediction: Any) -> tuple[tuple[Grid, tuple[Any, ...]], ...]:
    """Window and dates of the map that a correction is learned on; none for samples and series."""
    if not isinstance(prediction, xr.DataArray | xr.Dataset):
        return ()
    array = as_field(prediction)
    if not {"y", "x"} <= set(array.dims):
        return ()
    return ((Grid.of(array), _days(array)),)  # raises where nothing tells which place the map shows
