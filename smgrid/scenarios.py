"""Runs the paper's experiments: dependent, temporal, spatial, regional.

Each scenario is a set of plain splits (`dependent`, `temporal`, `spatial`, `regional`); `run` tries every regressor on
every split, `difference`, `t_tests` and `verdict` say what the results show.

References
----------
Zhu et al. (2025), IEEE TGRS 63, doi:10.1109/TGRS.2025.3533927, section III.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import xarray as xr

from smgrid import progress
from smgrid.features import PAPER, Predictor
from smgrid.files import existing, open_dataset, write_netcdf
from smgrid.outcomes import difference, lay_out, verdict
from smgrid.splits import MAKERS, Splits, dependent, regional, spatial, temporal
from smgrid.trials import INNER, KINDS, Plan, Table, Trial, attempt, contenders
from smgrid.ttests import t_tests

__all__ = ["dependent", "difference", "open_results", "regional", "run", "spatial", "t_tests", "temporal", "verdict"]

log = logging.getLogger("smgrid")

TUNING = ("oracle", "honest")
WRITE_EVERY = 60.0  # seconds between two writings of unfinished results

# CPU seconds a draw of 100 that share work (benchmarks/scenario_cost.py): a fit on 1000 rows and the power of the rows it
# grows with; a test of 200 000 rows with such a model, and its power of the training rows. Trials that ran correct it.
COST = {
    "mlp": (0.25, 0.9, 0.10, 0.0),
    "svr": (0.03, 1.6, 0.02, 1.0),
    "rf": (0.065, 1.23, 0.084, 0.47),
    "xgb": (0.04, 0.2, 0.065, 0.0),
}


def run(
    samples: Any,
    scenario: str | Splits,
    regressors: Sequence[str] | Mapping[str, Any] = KINDS,
    *,
    path: str | Path | None = None,
    repeats: int = 5,
    draws: int = 20,
    tuning: str = "oracle",
    features: Sequence[str] | Mapping[str, Predictor] = tuple(PAPER),
    seed: int = 0,
    workers: int | None = None,
) -> xr.Dataset:
    """Try regressors on the splits of a scenario; the paper is `repeats=50, draws=100`.

    Says first, through the log, how many fits there are and about how many core-hours they take. Baselines (training
    mean, a line on SMAP alone, station climatology) are judged on the same splits.

    Parameters
    ----------
    samples : Dataset (dim sample) or DataFrame
        Predictors, `soil_moisture`, the station (see `smgrid.resampling.station_of`); `time` for "temporal".
    scenario : {"dependent", "temporal", "spatial"} or Splits
        With the paper's sizes, or splits made by `dependent`, `temporal`, `spatial`, `regional`, with other sizes.
    regressors : sequence of str, or mapping of str to estimator or (estimator, search_space)
        Kinds of `make_regressor` with their `search_space`; or own ones. An estimator without a space is fitted once.
    path : path, optional
        NetCDF file of the results. Each finished trial is kept beside it (PATH.ledger), so that the same call goes on
        where a stopped one was, and more repeats, sizes or regressors add to what is there.
    repeats, draws : int
        Training sets a size; random draws from the search space for each.
    tuning : {"oracle", "honest"}
        Which draw counts: the best on the test set, as in the paper, or the best on inner folds of the training
        stations. "honest" also gives `optimism`: how much smaller the oracle's RMSE is.
    features : sequence of names, or mapping of str to Predictor
    seed : int
        Results follow from it and from the samples, whatever the workers and their order.
    workers : int, optional
        Processes; by default what a surrounding `joblib.parallel_config` says ("dask" for a cluster), else one a core.

    Returns
    -------
    Dataset, dims (size, regressor, repeat)
        `bias`, `pearson_r`, `rmse`, and `level` + `dynamics` = rmse^2, each with `X_interval` (bound: lower, upper;
        95 %, stations drawn with replacement); `params` of the draw that counts; `rmse_of_draws` (draw); `optimism`;
        `n_train`, `n_test`, `capped` (draws whose solver met its cap on steps); `station_count`, `station_bias`,
        `station_mse` (station). NaN where a baseline does not exist.

    Raises
    ------
    ValueError
        Absent predictors, sizes the table cannot give, an unknown scenario or tuning.
    FileNotFoundError, PermissionError, FileExistsError
        No folder for `path`, none that can be written in, or a file at `path` that holds no results.

    References
    ----------
    Zhu et al. (2025), IEEE TGRS 63, doi:10.1109/TGRS.2025.3533927, section III.

    Examples
    --------
    >>> import pandas as pd
    >>> rng = np.random.default_rng(0)  # a synthetic table
    >>> table = pd.DataFrame({"station": np.repeat([*"abcdef"], 20), "vv": rng.uniform(-18, -6, 120)})
    >>> table["soil_moisture"] = 0.5 + 0.025 * table.vv + rng.normal(0, 0.01, 120)
    >>> results = run(table, spatial(table, sizes=[3]), ["svr"], features=["vv"], repeats=1, draws=4, workers=1)
    >>> results.rmse.sel(regressor="svr").item() < results.rmse.sel(regressor="training mean").item()
    True
    """
    if tuning not in TUNING:
        raise ValueError(f"tuning is one of {TUNING}, not {tuning!r}")
    if repeats < 1 or draws < 1:
        raise ValueError(f"repeats and draws are at least 1, not {repeats} and {draws}")
    if path is not None:
        _check_path(Path(path))
    if workers == 0:
        raise ValueError("workers are a number of processes, 1 or more, or None for one a core, not 0")
    table = Table.of(samples, features)
    plan = Plan(_splits_on(samples, scenario, table, seed), contenders(regressors), repeats, draws, tuning, seed)
    trials = {trial.key(table.digest): trial for trial in plan.trials()}
    ledger = None if path is None else Path(f"{path}.ledger")
    known = {} if ledger is None else _read(ledger)
    done = {key: known[key][0] for key in trials if key in known}
    left = {key: trial for key, trial in trials.items() if key not in done}
    pace = _Pace(plan.splits)
    for key in done:
        pace.add(trials[key], known[key][1])
    _announce(plan, len(trials), list(left.values()), table, pace)
    source = str(getattr(samples, "attrs", {}).get("source", ""))

    def results() -> xr.Dataset:
        return lay_out(((trials[key], result) for key, result in done.items()), plan, table, source)

    before, written, spent = len(done), time.monotonic(), 0.0

    def share() -> float:
        ahead = sum(pace.seconds(trial) for key, trial in left.items() if key not in done)
        return spent / (spent + ahead) if spent else 0.0

    try:
        title = f"{plan.splits.scenario} scenario"
        with progress.shown(None, title, len(left), lambda: len(done) - before, share):
            for key, result, seconds in _all(_Ground(table, plan.splits), left, workers):
                done[key] = result
                pace.add(left[key], seconds)
                spent += seconds
                if path is not None and ledger is not None:
                    _append(ledger, key, result, seconds)
                    if time.monotonic() - written > WRITE_EVERY:
                        write_netcdf(results(), path)
                        written = time.monotonic()
    finally:
        if path is not None and done:
            write_netcdf(results(), path)
    return results()


def open_results(path: str | Path) -> xr.Dataset:
    """Open the results that `run` wrote.

    Parameters
    ----------
    path : path
        The NetCDF file.

    Raises
    ------
    FileNotFoundError, ValueError
        Nothing is there, or something that `run` did not write.
    """
    with open_dataset(existing(path, "results of a scenario"), engine="netcdf4") as results:
        if not {"scenario", "samples_sha256"} <= {*results.attrs}:
            raise ValueError(f"{path} holds no results of scenarios.run, but {sorted(map(str, results.variables))}")
        return results.load()


def _check_path(path: Path) -> None:
    """Hours of work must have somewhere to go, and must not go over a file that is something else, such as the table."""
    if not path.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {path.parent} to write {path.name} in")
    if not os.access(path.parent, os.W_OK):
        raise PermissionError(f"{path.name} cannot be written in {path.parent}: give a path in a folder of your own")
    if not path.exists():
        return
    try:
        open_results(path)
    except (OSError, ValueError) as error:
        raise FileExistsError(
            f"{path} is there and holds no results of scenarios.run: give another path, or move it away"
        ) from error


def _splits_on(samples: Any, scenario: str | Splits, table: Table, seed: int) -> Splits:
    """The scenario on the rows that are complete."""
    if isinstance(scenario, Splits):
        if scenario.station.size != table.kept.size:
            raise ValueError(
                f"the splits are of a table of {scenario.station.size} rows, the samples have {table.kept.size}: "
                "make them from these samples"
            )
        return scenario.on(table.kept)
    if scenario not in MAKERS:
        hint = ": give scenario=smgrid.scenarios.regional(samples, campaigns)" if scenario == "regional" else ""
        raise ValueError(f"the scenario is one of {sorted(MAKERS)}, or splits, not {scenario!r}{hint}")
    whole = samples.isel(sample=np.flatnonzero(table.kept)) if isinstance(samples, xr.Dataset) else samples[table.kept]
    made: Splits = MAKERS[scenario](whole, seed=seed)
    return made


# ---- work


class _Pace:
    """CPU seconds of trials: by `COST` at first, and in proportion to it by what the same contender's trials took."""

    def __init__(self, splits: Splits) -> None:
        self.rows = {size: tuple(part.size for part in splits.draw(size)) for size in splits.sizes}
        self.took: dict[str, float] = defaultdict(float)
        self.guessed: dict[str, float] = defaultdict(float)

    def add(self, trial: Trial, seconds: float) -> None:
        self.guessed[trial.contender.name] += self._guess(trial)
        self.took[trial.contender.name] += seconds

    def knows(self, name: str) -> bool:
        return name in COST or name in self.took

    def seconds(self, trial: Trial) -> float:
        """0 for a contender of which nothing is known yet, and for baselines."""
        name = trial.contender.name
        if trial.contender.estimator is None or not self.knows(name):
            return 0.0
        took = self.took.get(name)
        return self._guess(trial) * (1 if took is None else took / self.guessed[name])

    def _guess(self, trial: Trial) -> float:
        train, test = self.rows[trial.size]
        fit, fit_power, walk, walk_power = COST.get(trial.contender.name, (1, 1, 0, 0))
        inner = INNER * ((INNER - 1) / INNER) ** fit_power if trial.plan.tuning == "honest" else 0
        thousands = train / 1000
        once = fit * thousands**fit_power * (1 + inner) + walk * thousands**walk_power * test / 200_000
        return once * (trial.plan.draws if trial.contender.space else 1)


def _announce(plan: Plan, trials: int, left: list[Trial], table: Table, pace: _Pace) -> None:
    """Say how much there is to do before doing it."""
    searched = [c for c in plan.contenders if c.estimator is not None]
    per_split = sum(plan.draws if c.space else 1 for c in searched)
    splits, each = plan.splits, plan.repeats * len(plan.splits.sizes)
    hours = sum(map(pace.seconds, left)) / 3600
    unknown = [c.name for c in searched if not pace.knows(c.name)]
    about = f"about {hours:.2g} core-hours" if len(unknown) < len(searched) else "for how long, nobody knows"
    log.info(
        "%s scenario: %d rows of %d stations; %d sizes (%g to %g %s) x %d repeats; %d trials, %d fits%s; "
        "%d trials are left, %s%s",
        *(splits.scenario, table.target.size, table.names.size, len(splits.sizes), splits.sizes[0], splits.sizes[-1]),
        *(splits.unit, plan.repeats, trials, per_split * each),
        f" and {INNER} inner ones for each" if plan.tuning == "honest" else "",
        *(len(left), about, f" without {unknown}" if unknown and len(unknown) < len(searched) else ""),
    )


@dataclass(frozen=True, eq=False)
class _Ground:
    """What all trials stand on, apart from them: a cluster gets it once, and each trial without it (kilobytes)."""

    table: Table
    splits: Splits

    def __sizeof__(self) -> int:
        # joblib sends a cluster once what Dask takes for large, and Dask takes an unknown class for 56 bytes
        return sum(column.nbytes for column in self.table.columns)

    def bare(self, trial: Trial) -> Trial:
        return replace(trial, plan=replace(trial.plan, splits=cast(Splits, None)))

    def timed(self, key: str, bare: Trial) -> tuple[str, dict[str, Any], float]:
        begun = time.process_time()
        result = attempt(self.table, replace(bare, plan=replace(bare.plan, splits=self.splits)))
        return key, result, time.process_time() - begun


def _all(
    ground: _Ground, left: Mapping[str, Trial], workers: int | None
) -> Iterator[tuple[str, dict[str, Any], float]]:
    """Every trial's result, as it comes."""
    if workers == 1 or len(left) < 2:
        for key, trial in left.items():
            yield ground.timed(key, ground.bare(trial))
        return
    from joblib import Parallel, delayed
    from joblib.parallel import get_active_backend

    if workers is None and get_active_backend()[1] in (None, 1):
        workers = -1
    jobs = (delayed(_Ground.timed)(ground, key, ground.bare(trial)) for key, trial in left.items())
    yield from Parallel(n_jobs=workers, return_as="generator_unordered", batch_size=1)(jobs)


# ---- the ledger: a line a trial, with a check over it, so that a line torn by a crash is no line


def _append(ledger: Path, key: str, result: Mapping[str, Any], seconds: float) -> None:
    body = json.dumps({"key": key, "seconds": round(seconds, 3), "result": result})
    file = os.open(ledger, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:  # the leading newline keeps a line whole where the one before it was torn
        data = f"\n{body}\t{_check(body)}\n".encode()
        if os.write(file, data) != len(data):
            raise OSError(f"no room to write {ledger}")
    finally:
        os.close(file)


def _read(ledger: Path) -> dict[str, tuple[dict[str, Any], float]]:
    """Finished trials and the CPU seconds they took, by key; torn or altered lines are passed over."""
    done = {}
    with suppress(FileNotFoundError):
        for line in ledger.read_text("utf-8", errors="replace").split("\n"):
            body, _, check = line.rpartition("\t")
            if body and check == _check(body):
                said = json.loads(body)
                done[said["key"]] = said["result"], said["seconds"]
    return done


def _check(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]
