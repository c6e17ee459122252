"""Opens any table of points: ground samples, stations, airborne retrievals; the caller names its columns."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from smgrid.units import canonical, conversion, convertible_to

SHAPE = ("time", "network", "station", "latitude", "longitude", "soil_moisture")


def open(
    path: str | Path | Iterable[str | Path],
    columns: Mapping[str, str],
    *,
    units: str = "m3 m-3",
    missing: Iterable[str] = ("No Data", "-9999", "-99"),
    dayfirst: bool = False,
    **constant: Any,
) -> pd.DataFrame:
    """One row a point, in the stations shape.

    Parameters
    ----------
    path : path or paths
        CSV files with a header line.
    columns : mapping of str to str
        From our names (`time, latitude, longitude, soil_moisture`, `network`, `station`, and any further one that is to
        be kept) to the file's.
    units : str
        Of the file's soil moisture: `m3 m-3`, `%`, ...
    missing : iterable of str
        Texts that stand for a missing value.
    dayfirst : bool
        Whether dates with slashes or dots are written day first, as in 31/12/2015. Dates as ISO 8601 has them
        (2015-12-31, 20151231) are read as such whatever it says; a zone in them is brought to UTC.
    **constant
        What the file does not hold and is the same for all its rows: `station="MB1", latitude=49.6, longitude=-98.0`.

    Returns
    -------
    DataFrame
        The stations shape and further columns asked for; rows without soil moisture are left out.

    Raises
    ------
    ValueError
        A column that the file lacks, values that are no numbers or dates, places that are not on Earth, soil moisture
        outside 0..1 m3 m-3, or nowhere above 1 %, unknown units; the message names file and column.
    """
    way = conversion(units, "m3 m-3")
    if way is None:
        raise ValueError(f"soil moisture in {units!r} does not convert to m3 m-3; known are {convertible_to('m3 m-3')}")
    if "soil_moisture" not in columns:
        raise ValueError("columns must name the one that holds soil_moisture: columns={'soil_moisture': 'VWC', ...}")
    paths = [path] if isinstance(path, (str, Path)) else list(path)
    tables = [_one(Path(p), columns, list(missing), dayfirst, constant) for p in paths]
    table = pd.concat(tables, ignore_index=True)
    table["soil_moisture"] = way(table["soil_moisture"].to_numpy("f8"))
    odd = table[(table.soil_moisture < 0) | (table.soil_moisture > 1)]
    if len(odd):
        raise ValueError(
            f"{paths[0]}: {len(odd)} of {len(table)} values lie outside 0..1 m3 m-3, "
            f"such as {odd.soil_moisture.iloc[0]:g} ({canonical(units)} was said): "
            "give units=, or add their code to missing="
        )
    most = table.soil_moisture.max()
    if way.scale < 1 and 0 < most <= way.scale:
        raise ValueError(
            f"{paths[0]}: no value lies above {way.back(most):g}, but {units!r} was said: they are fractions. Leave "
            "units= out (m3 m-3)"
        )
    return table.dropna(subset=["soil_moisture"]).reset_index(drop=True)


def _one(
    path: Path, columns: Mapping[str, str], missing: list[str], dayfirst: bool, constant: Mapping[str, Any]
) -> pd.DataFrame:
    if not path.exists():
        raise FileNotFoundError(f"there is no table at {path}")
    try:
        raw = pd.read_csv(path, na_values=missing, encoding="utf-8-sig")
    except (ValueError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read as a CSV table: {error}") from error
    lacking = [theirs for theirs in columns.values() if theirs not in raw.columns]
    if lacking:
        raise ValueError(f"{path} lacks the columns {lacking}; it has {list(map(str, raw.columns))}")
    table = pd.DataFrame({ours: raw[theirs] for ours, theirs in columns.items()}).assign(**constant)
    for name in ("soil_moisture", "latitude", "longitude"):
        if name in table:
            table[name] = _numbers(path, columns.get(name, name), table[name])
    for name, most in (("latitude", 90), ("longitude", 360)):
        if name in table and (table[name].abs() > most).any():
            odd = table[name][table[name].abs() > most].iloc[0]
            raise ValueError(
                f"{path}: {columns.get(name, name)!r} holds {odd:g}, which is no {name}: are they swapped?"
            )
    if "time" in table:
        try:
            table["time"] = dates(table["time"], dayfirst)
        except ValueError as error:
            raise ValueError(f"{path}: {columns.get('time')!r} does not hold dates: {error}") from error
    order = [name for name in SHAPE if name in table]
    return table[[*order, *(name for name in table if name not in order)]]


def dates(column: Iterable[Any], dayfirst: bool = False) -> pd.Series:
    """UTC dates of text or of numbers such as 20150505; where the year does not come first, in the order said."""
    text = pd.Series(column).astype("string")
    year_first = bool(text.dropna().str.match(r"\s*\d{4}(\D|\d{4})").all())
    with warnings.catch_warnings(record=True) as doubts:  # made errors, they would be lost inside pandas
        warnings.simplefilter("always")
        found = pd.to_datetime(text, dayfirst=dayfirst and not year_first, utc=True)
    if doubts:  # a date that pandas has to guess is not taken
        raise ValueError(str(doubts[0].message))
    return found.dt.tz_localize(None)


def _numbers(path: Path, column: str, values: pd.Series) -> pd.Series:
    try:
        return pd.to_numeric(values)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: {column!r} does not hold numbers: {error}; add the text to missing=") from error
