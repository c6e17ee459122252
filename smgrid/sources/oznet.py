"""Opens OzNet: the station files of the archive, and tables of daily means with a column a station.

OzNet watches the Murrumbidgee catchment, Yanco included: Smith et al. (2012), doi:10.1029/2012WR011976. Its tables are
in percent and carry no coordinates; places are given by the caller. The older top layer is 0-8 cm, deeper than the
0-5 cm of later probes: that is said in `depth_to`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from smgrid.sources import ismn
from smgrid.sources.points import dates


def open(
    path: str | Path | Iterable[str | Path],
    *,
    places: Mapping[str, tuple[float, float]] | None = None,
    depth_to: float = 0.08,
    **options: Any,
) -> pd.DataFrame:
    """Daily soil moisture of OzNet stations.

    Parameters
    ----------
    path : path or paths
        A table of daily means (`.csv`: the date first, then a column a station, percent), or station files and archives
        as `smgrid.sources.ismn` reads them.
    places : mapping of str to (latitude, longitude), degrees, optional
        Where the stations of a table are, by name (`y1`, `k7`, ...); stations without a place keep NaN.
    depth_to : float, m
        Deepest end of the layer of a table; only said, not tested.
    **options
        Those of `ismn.open`, for station files.

    Returns
    -------
    DataFrame
        The stations shape, m3 m-3; tables add `depth_to`.

    Raises
    ------
    ValueError
        A file that is no such table; the message names it.
    """
    paths = [Path(path)] if isinstance(path, (str, Path)) else [Path(p) for p in path]
    if any(p.suffix.lower() != ".csv" for p in paths):
        return ismn.open(paths, **options)
    return pd.concat([_table(p, places or {}, depth_to) for p in paths], ignore_index=True)


def _table(path: Path, places: Mapping[str, tuple[float, float]], depth_to: float) -> pd.DataFrame:
    try:
        wide = pd.read_csv(path, index_col=0)
        wide.index = pd.DatetimeIndex(dates(wide.index))
        wide = wide.astype("f8")
    except (ValueError, TypeError, OSError) as error:
        raise ValueError(
            f"{path} is no table of daily means, the date first, then a column a station: {error}"
        ) from error
    known = pd.Series(wide.stack()).dropna()
    if known.empty or known.max() <= 1 or known.min() < 0 or known.max() > 100:
        raise ValueError(f"{path}: values of {known.min():g} to {known.max():g} are not percent by volume")
    long = known.rename("soil_moisture").rename_axis(["time", "station"]).reset_index()
    long["station"] = long["station"].str.replace(r"^.*_", "", regex=True)
    long["latitude"] = [places.get(s, (float("nan"),) * 2)[0] for s in long["station"]]
    long["longitude"] = [places.get(s, (float("nan"),) * 2)[1] for s in long["station"]]
    long["soil_moisture"] /= 100
    out = long.assign(network="OZNET", depth_to=depth_to)
    out = out[["time", "network", "station", "latitude", "longitude", "soil_moisture", "depth_to"]]
    return out.sort_values(["station", "time"], ignore_index=True)
