"""Measures by how much a map jumps across a line, apart from any slope.

From the four cells on each side a straight line is run on to the border; the jump is the difference of the two ends. A
real gradient leaves none, a step between coarse cells leaves all of it. (The raw difference of two neighbours mistakes
gradients for steps, and these follow the coarse field's own.)
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

REACH = 4  # cells on each side
OFFSETS = np.arange(-4, 5)  # lines before and beyond a border at which a jump is measured too
DEPTH = 2 * REACH  # cells before a line, and after a wide one, that all its offsets need


def _weights(wide: int) -> NDArray[np.float64]:
    """Of the cells from nearest to farthest: least-squares line, at the middle of the border."""
    away = np.arange(REACH) + (1 + wide) / 2
    apart = away - away.mean()
    return 1 / REACH - away.mean() * apart / (apart @ apart)


WEIGHTS = {wide: _weights(wide) for wide in (0, 1)}  # (0.85, 0.45, 0.05, -0.35), and (1, 0.5, 0, -0.5)


def jumps(z: NDArray[np.float64], lines: NDArray[np.intp], wide: int) -> NDArray[np.float64]:
    """Right limit less left limit at lines and at the lines beside them.

    Parameters
    ----------
    z : array (..., DEPTH + cells + DEPTH)
    lines : array of int
        Lines of the cells without what pads them.
    wide : int
        Mixed cells at the line: 0 or 1; these are passed over.

    Returns
    -------
    array (..., lines, OFFSETS)
        NaN where one of the eight cells is missing.

    Examples
    --------
    >>> z = np.r_[np.full(13, 0.2), np.full(13, 0.3)] + 0.01 * np.arange(26)  # a step of 0.1 on a slope
    >>> jumps(z, np.array([5]), 0)[0, [0, 4, 8]].round(9) + 0
    array([0. , 0.1, 0. ])
    """
    weight = WEIGHTS[wide]
    line = (lines + DEPTH)[:, None] + OFFSETS
    out = np.zeros((*z.shape[:-1], *line.shape))
    for k, w in enumerate(weight):
        out += w * (z[..., line + wide + k] - z[..., line - 1 - k])
    return out


def jumps_at(z: NDArray[np.float64], lines: NDArray[np.intp], wide: NDArray[np.int64]) -> NDArray[np.float64]:
    """`jumps` at lines of both widths."""
    out = np.empty((*z.shape[:-1], lines.size, OFFSETS.size))
    for width in (0, 1):
        these = wide == width
        if these.any():
            out[..., these, :] = jumps(z, lines[these], width)
    return out
