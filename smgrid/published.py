"""Keeps the numbers that the study itself printed, to stand beside ours and never among them.

Only what its text states is here; nothing was read off its figures. Where the text says of what size of training set it
speaks, `size` has it; "0.086-0.078 as samples per cell increased from 1 to 21" is taken as 1 and 21.

References
----------
Zhu et al. (2025), Are the current expectations for SAR remote sensing of soil moisture using machine learning
overoptimistic? IEEE TGRS 63, doi:10.1109/TGRS.2025.3533927
"""

from __future__ import annotations

from typing import NamedTuple

CITATION = "Zhu et al. 2025"
TARGET = 0.06
"""RMSE that the study holds soil moisture from radar to, m3 m-3 (section I)."""


class Stated(NamedTuple):
    """One number of the text: over the 50 repeats the median, in the regional scenario the only one.

    `size` counts what the scenario's sizes count, None means all of them; `relation` is "=", "about", "<" or ">";
    bias and RMSE are in m3 m-3.
    """

    scenario: str
    measure: str
    regressor: str
    size: float | None
    value: float
    relation: str
    where: str


STATED = (
    Stated("dependent", "rmse", "mlp", 0.5, 0.085, "=", "section IV.A"),
    Stated("dependent", "rmse", "svr", 0.5, 0.082, "=", "section IV.A"),
    Stated("dependent", "rmse", "mlp", 5, 0.060, ">", "section IV.A"),
    Stated("dependent", "rmse", "svr", 5, 0.060, ">", "section IV.A"),
    Stated("dependent", "rmse", "xgb", 3.5, 0.060, "<", "section IV.A"),
    Stated("temporal", "bias", "svr", None, -0.016, "about", "section IV.A"),
    Stated("temporal", "bias", "rf", None, 0.007, "about", "section IV.A"),
    Stated("temporal", "bias", "xgb", None, 0.013, "about", "section IV.A"),
    Stated("temporal", "rmse", "rf", 1, 0.086, "=", "section IV.A"),
    Stated("temporal", "rmse", "rf", 11, 0.079, "=", "section V"),
    Stated("temporal", "rmse", "rf", 21, 0.078, "=", "section IV.A"),
    Stated("temporal", "pearson_r", "rf", 1, 0.652, "=", "section IV.A"),
    Stated("temporal", "pearson_r", "rf", 21, 0.746, "=", "section IV.A"),
    Stated("temporal", "rmse", "mlp", 1, 0.087, "=", "section IV.A"),
    Stated("temporal", "rmse", "mlp", 21, 0.085, "=", "section IV.A"),
    Stated("spatial", "rmse", "rf", 57, 0.089, "=", "section IV.B"),
    Stated("spatial", "rmse", "xgb", 57, 0.092, "=", "section IV.B"),
    Stated("regional", "rmse", "mlp", None, 0.117, "=", "section IV.C"),
    Stated("regional", "rmse", "svr", None, 0.121, "=", "section IV.C"),
    Stated("regional", "rmse", "rf", None, 0.112, "=", "section IV.C"),
    Stated("regional", "rmse", "xgb", None, 0.113, "=", "section IV.C"),
    Stated("regional", "pearson_r", "svr", None, 0.156, "=", "section IV.C"),
)


def stated(scenario: str, measure: str, regressor: str) -> list[Stated]:
    """What the study says of one measure of one regressor in one scenario.

    Parameters
    ----------
    scenario : str
        "dependent", "temporal", "spatial" or "regional".
    measure : str
        "bias", "pearson_r" or "rmse".
    regressor : str
        "mlp", "svr", "rf" or "xgb", in any letter case; of others nothing is said.

    Examples
    --------
    >>> [(row.size, row.value) for row in stated("spatial", "rmse", "RF")]
    [(57, 0.089)]
    """
    kind = {"xgboost": "xgb"}.get(regressor.lower(), regressor.lower())
    return [row for row in STATED if row[:3] == (scenario, measure, kind)]
