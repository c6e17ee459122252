"""Says down to which scale two maps agree: spectra, coherence, effective resolution, in ground kilometres.

A Fourier transform needs the whole rectangle at once, so this is the one comparison, with connected patches, that has a
limit of size: 2^24 cells a date.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from smgrid.pairs import WHOLE, Place, Sheet, Spec, divide, open_pair, scorecard

GAPS = 0.1  # share of the rectangle that may be missing
LEAST = 16  # cells along the sides of a rectangle that is but a part of the scene
STEPS = 48  # into which a side is cut where a rectangle is looked for
LEVEL = 0.5  # of squared coherence, or of noise to signal, that sets the effective resolution

_DENIS = "Denis et al. (2002), doi:10.1175/1520-0493(2002)130<1812:SDOTDA>2.0.CO;2"
_BALLAROTTA = "Ballarotta et al. (2019), doi:10.5194/os-15-1091-2019"
_K = ("wavelength",)
SPEC: Spec = {
    "power_prediction": (_K, "mean power of the prediction's modes", "field2", "mean |X|^2 / cells", ""),
    "power_reference": (_K, "mean power of the reference's modes", "field2", "mean |Y|^2 / cells", ""),
    "power_ratio": (_K, "power, prediction over reference", "1", "sum |X|^2 / sum |Y|^2", ""),
    "band_correlation": (
        _K,
        "correlation of the maps passed through the band",
        "1",
        "Re sum X conj(Y) / sqrt(sum |X|^2 sum |Y|^2)",
        "",
    ),
    "coherence": (_K, "squared coherence", "1", "(sum X conj(Y))^2 / (sum |X|^2 sum |Y|^2)", _BALLAROTTA),
    "coherence_chance": (_K, "squared coherence of unrelated maps, 95 %", "1", "Beta(1/2, (M - 1) / 2), M = modes", ""),
    "modes": (_K, "independent modes in the band", "1", "M, fewer than there are modes, for the window joins them", ""),
    "noise_to_signal": (_K, "power of the error over that of the reference", "1", "PSD(p - o) / PSD(o)", _BALLAROTTA),
    "spectrum_cells": ((), "cells of the rectangle that spectra rest on", "1", "", ""),
    "resolution_coherence": (
        (),
        "wavelength down to which squared coherence is at least 0.5",
        "km",
        "smallest wavelength of an unbroken run from the longest",
        _BALLAROTTA,
    ),
    "resolution_noise": (
        (),
        "wavelength down to which the error has at most half the reference's power",
        "km",
        "smallest wavelength of an unbroken run from the longest",
        _BALLAROTTA,
    ),
}


def coherence(prediction: Any, reference: Any) -> xr.Dataset:
    """Spectra of both maps, their coherence, and the effective resolution of the prediction.

    The smallest rectangle about the common cells is taken or, where more than a tenth of that is missing, as behind the
    edge of a swath, the largest that is known so far (`spectrum_cells` says how large). A plane is taken off each field
    and a Hann window laid on, as the edges of a map do not meet. Modes are sorted by their wavelength on the ground
    (cells are not square there).

    Parameters
    ----------
    prediction, reference : DataArray or maps, dims (..., y, x)
        At most 2^24 cells a date.

    Returns
    -------
    Dataset
        By `wavelength` (ground km, longest first): `power_prediction`, `power_reference`, `power_ratio`,
        `band_correlation`, `coherence` (squared), `coherence_chance` (what unrelated maps stay below in 95 of 100
        cases), `modes`, `noise_to_signal`; and `resolution_coherence`, `resolution_noise` in km: the wavelength down to
        which, without a break from the longest, squared coherence is 0.5 or more (and its sign positive), or the error
        has half the reference's power or less. NaN where the longest wave already fails, where a field is constant, or
        where no rectangle of 16 x 16 cells is known to nine tenths: then use `variogram`. `spectrum_cells`: how many
        cells spectra rest on, 0 where on none.

    Raises
    ------
    ValueError
        More than 2^24 cells.

    References
    ----------
    Ballarotta et al. (2019), Ocean Sci. 15, 1091-1109, doi:10.5194/os-15-1091-2019

    Examples
    --------
    >>> from smgrid import YANCO
    >>> rng = np.random.default_rng(0)
    >>> reference = xr.DataArray(rng.random(YANCO.shape), YANCO.coords(), ("y", "x"))
    >>> found = coherence(0.5 * reference + 0.1, reference)
    >>> found.coherence.min().round(6).item(), found.power_ratio.max().round(6).item()
    (1.0, 0.25)
    """
    pair = open_pair(prediction, reference)
    if not fits(pair.place):
        raise ValueError(
            f"a spectrum needs a whole date at once, and {pair.place.grid.ny} x {pair.place.grid.nx} cells are more "
            f"than {WHOLE}: cut a window, prediction.isel(y=slice(...), x=slice(...)), or use variogram"
        )
    return scorecard(pair, judge, SPEC, coords(pair.place))


def fits(place: Place) -> bool:
    """Whether a date is small enough for a transform."""
    return place.grid.ny * place.grid.nx <= WHOLE


def coords(place: Place) -> dict[str, Any]:
    """Wavelengths of the bands, in ground km: the longest side of the map over 1, 2, 3 ..."""
    longest, bands = _bands(place)
    attrs = {"long_name": "wavelength on the ground", "units": "km"}
    return {"wavelength": ("wavelength", longest / 1e3 / np.arange(1, bands + 1), attrs)}


def _bands(place: Place) -> tuple[float, int]:
    """Longest side of the map on the ground, m, and the number of bands up to the Nyquist wave of the wider cell."""
    dx, dy = place.mean_ground()
    longest = max(dx * place.grid.nx, dy * place.grid.ny)
    return longest, max(1, int(longest / (2 * max(dx, dy)) + 1e-9))


def judge(sheet: Sheet) -> dict[str, Any]:
    """The entries of a scorecard."""
    place = sheet.place
    longest, bands = _bands(place)
    p, o, *others = sheet.whole()
    known = np.isfinite(p) & np.isfinite(o)
    for other in others:
        known &= np.isfinite(other)
    p, o, known = _crop(p, o, known)
    if known.size and known.mean() < 1 - GAPS:  # half a scene: what was seen of it, as far as a rectangle goes
        box = largest_rectangle(known)
        p, o, known = p[box], o[box], known[box]
    void: dict[str, Any] = {name: np.full(bands, np.nan) if dims else np.nan for name, (dims, *_) in SPEC.items()}
    void["spectrum_cells"] = np.asarray(0)
    if min(known.shape) < (4 if known.size == sheet.fields[0].size else LEAST) or known.mean() < 1 - GAPS:
        return void
    p, o = (_level(a, known) for a in (p, o))
    if not (p.any() and o.any()):
        return void
    window = np.hanning(p.shape[0] + 2)[1:-1, None] * np.hanning(p.shape[1] + 2)[1:-1]
    window /= np.sqrt((window**2).mean())
    label = _label(p.shape, place.mean_ground(), longest, bands)
    p *= window
    o *= window
    found = _entries(p, o, label, bands, longest / 1e3)
    return found | {"spectrum_cells": np.asarray(known.size)}


def _crop(p: NDArray[Any], o: NDArray[Any], known: NDArray[np.bool_]) -> tuple[NDArray[Any], ...]:
    rows, cols = np.flatnonzero(known.any(axis=1)), np.flatnonzero(known.any(axis=0))
    if not rows.size:
        return p[:0], o[:0], known[:0]
    box = slice(rows[0], rows[-1] + 1), slice(cols[0], cols[-1] + 1)
    return p[box], o[box], known[box]


def largest_rectangle(known: NDArray[np.bool_]) -> tuple[slice, slice]:
    """The largest rectangle of which at most a tenth is missing, to a 48th of the sides.

    Examples
    --------
    >>> largest_rectangle(np.array([[1, 1, 0], [1, 1, 1], [1, 1, 0], [0, 1, 1]], bool))
    (slice(0, 3, None), slice(0, 2, None))
    """
    rows, cols = (np.unique(np.linspace(0, n, min(n, STEPS) + 1).round().astype(int)) for n in known.shape)
    total = np.pad(np.add.reduceat(np.add.reduceat(known.astype("f8"), rows[:-1], 0), cols[:-1], 1), ((1, 0), (1, 0)))
    total = total.cumsum(0).cumsum(1)
    (top, bottom), (left, right) = (np.triu_indices(edges.size, 1) for edges in (rows, cols))
    bands = total[bottom] - total[top]
    size = (rows[bottom] - rows[top])[:, None] * (cols[right] - cols[left])
    enough = bands[:, right] - bands[:, left] >= (1 - GAPS) * size
    r, c = np.unravel_index(np.where(enough, size, 0).argmax(), size.shape)
    return slice(int(rows[top[r]]), int(rows[bottom[r]])), slice(int(cols[left[c]]), int(cols[right[c]]))


def _level(a: NDArray[np.float64], known: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Departures from the fitted plane, 0 where missing; exactly 0 for a plane to rounding."""
    y, x = (np.linspace(-1, 1, n) for n in a.shape)
    mean = a[known].mean()
    out = np.where(known, a - mean, 0.0)
    across, down = known.sum(0, dtype="f8"), known.sum(1, dtype="f8")
    mixed = y @ (known @ x)
    moments = np.array(
        [
            [down.sum(), down @ y, across @ x],
            [down @ y, down @ y**2, mixed],
            [across @ x, mixed, across @ x**2],
        ]
    )
    plane = np.linalg.solve(moments, [out.sum(), y @ out.sum(1), out.sum(0) @ x])
    out -= plane[0] + (plane[1] * y)[:, None] + plane[2] * x
    out[~known] = 0
    out[np.abs(out) < 1e-12 * (abs(mean) + np.abs(plane).sum())] = 0
    return out


def _label(shape: tuple[int, ...], cell: tuple[float, float], longest: float, bands: int) -> NDArray[np.int64]:
    """Band of each mode by its frequency on the ground; `bands` for the mean and beyond the last band."""
    ky, kx = np.fft.fftfreq(shape[0], cell[1]), np.fft.fftfreq(shape[1], cell[0])
    band = np.rint(np.hypot(ky[:, None], kx) * longest).astype("i8") - 1
    band[(band < 0) | (band >= bands)] = bands
    return band


def _entries(
    p: NDArray[np.float64], o: NDArray[np.float64], label: NDArray[np.int64], bands: int, longest: float
) -> dict[str, Any]:
    x, y = np.fft.fft2(p), np.fft.fft2(o)
    # one array at a time, for a large map has large ones; of X conj(Y) the imaginary parts cancel
    pp, oo = (_by_band(a.real**2 + a.imag**2, label, bands) for a in (x, y))
    po = _by_band(x.real * y.real + x.imag * y.imag, label, bands)
    x -= y
    ee = _by_band(x.real**2 + x.imag**2, label, bands)
    count = _by_band(np.ones(p.shape), label, bands)
    r = divide(po, np.sqrt(pp * oo))
    modes = independent_modes(label, bands)
    noise = divide(ee, oo)
    wavelength = longest / np.arange(1, bands + 1)
    return {
        "power_prediction": divide(pp, count * p.size),
        "power_reference": divide(oo, count * p.size),
        "power_ratio": divide(pp, oo),
        "band_correlation": r,
        "coherence": r**2,
        "coherence_chance": chance(modes),
        "modes": modes,
        "noise_to_signal": noise,
        "resolution_coherence": _run(np.where(np.isnan(r), np.nan, (r > 0) & (r**2 >= LEVEL)), wavelength),
        "resolution_noise": _run(np.where(np.isnan(noise), np.nan, noise <= LEVEL), wavelength),
    }


def _by_band(a: NDArray[np.float64], label: NDArray[np.int64], bands: int) -> NDArray[np.float64]:
    return np.asarray(np.bincount(label.ravel(), a.ravel(), minlength=bands + 1)[:bands], "f8")


def independent_modes(label: NDArray[np.int64], bands: int) -> NDArray[np.float64]:
    """How many independent modes the Hann window leaves in each band.

    It joins each mode to its two neighbours on either side: their powers correlate by 4/9 and 1/36 along an axis.
    """
    joined = (1 / 36, 4 / 9, 1, 4 / 9, 1 / 36)
    count, pairs = _by_band(np.ones(label.shape), label, bands), np.zeros(bands)
    for i, a in enumerate(joined):
        for j, b in enumerate(joined):
            alike = (np.roll(label, (i - 2, j - 2), (0, 1)) == label).astype("f8")
            pairs += a * b * _by_band(alike, label, bands)
    return divide(count**2, pairs)


def chance(modes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Squared coherence that unrelated maps stay below in 95 of 100 cases.

    The sum over a whole band is real (each mode comes with its conjugate), hence a squared correlation of M real
    numbers, Beta(1/2, (M - 1)/2), of mean 1/M; not 1 - 0.05^(1/(M - 1)), which holds for sums of M complex modes.
    """
    from scipy.stats import beta

    with np.errstate(invalid="ignore"):
        return np.where(modes > 1, beta.ppf(0.95, 0.5, np.maximum(modes - 1, 1e-9) / 2), np.nan)


def _run(good: NDArray[np.float64], wavelength: NDArray[np.float64]) -> float:
    """The last wavelength of an unbroken run of goods from the longest that is known."""
    known = np.flatnonzero(~np.isnan(good))
    bad = known[good[known] == 0]
    run = known if not bad.size else known[known < bad[0]]
    return float(wavelength[run[-1]]) if run.size else np.nan
