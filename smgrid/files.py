"""Opens a file and says what is wrong with it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

CHUNK = 1024  # cells a side, where a file has no chunks of its own


def existing(path: str | Path, what: str) -> Path:
    """The path if something is there; the error names what was looked for and what is near."""
    path = Path(path)
    if path.exists():
        return path
    near = sorted(p.name for p in path.parent.glob("*") if p.suffix == path.suffix)[:5] if path.parent.is_dir() else []
    hint = f"; in that folder are {near}" if near else ""
    raise FileNotFoundError(f"there is no {what} at {path}{hint}")


def open_cube(path: str | Path) -> xr.Dataset:
    """Open a cube of predictors lazily.

    Parameters
    ----------
    path : path
        A Zarr store, or a NetCDF file (`.nc`, `.nc4`, `.cdf`).

    Returns
    -------
    Dataset
        Dask-backed; on the chunks of the file where it has some.

    Raises
    ------
    FileNotFoundError
        Nothing is there.
    ValueError
        It is not such a file, or it is damaged; the message names it.
    """
    import xarray as xr

    path = existing(path, "cube")
    try:
        if path.is_dir():
            return xr.open_zarr(path, decode_coords="all", consolidated=False)
        if path.suffix.lower() not in (".nc", ".nc4", ".cdf"):
            raise ValueError("a cube is a Zarr store or a NetCDF file (.nc)")
        cube = xr.open_dataset(path, decode_coords="all", chunks={}, engine="netcdf4")
    except (OSError, KeyError, ValueError, RuntimeError) as error:
        raise ValueError(f"{path} cannot be opened as a cube: {error}") from error
    whole = {d: CHUNK if d in ("y", "x") else 1 for d in cube.dims}
    bare = [v for v in cube.data_vars.values() if not v.encoding.get("chunksizes")]
    return cube.chunk(whole) if bare else cube


def open_table(path: str | Path) -> pd.DataFrame:
    """Open a table of samples (CSV); a column `time` becomes dates, UTC.

    Dates are written as ISO 8601 has it, 2015-05-05: in 05/06/2015 nothing tells the day from the month.

    Raises
    ------
    FileNotFoundError
        Nothing is there.
    ValueError
        It is no CSV table, or its dates cannot be read; the message names it.
    """
    import pandas as pd

    path = existing(path, "table")
    try:
        table = pd.read_csv(path)
        if "time" in table.columns:
            table["time"] = _dates(table["time"])
    except (ValueError, UnicodeDecodeError, OSError) as error:
        raise ValueError(f"{path} cannot be read as a CSV table: {error}") from error
    return table


def _dates(column: pd.Series) -> pd.Series:
    """UTC dates of text or of numbers such as 20150505; nothing is guessed."""
    import pandas as pd

    try:
        return pd.to_datetime(column.astype("string"), format="ISO8601", utc=True).dt.tz_localize(None)
    except ValueError as error:
        said = str(error).splitlines()[0]
        raise ValueError(f"dates in the column 'time' are written 2015-05-05 (ISO 8601). {said}") from error


def write_netcdf(maps: xr.Dataset, path: str | Path) -> Path:
    """Write maps to one NetCDF file that is whole or not there: under another name first, then renamed."""
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {path.parent} to write {path.name} in")
    partial = path.with_name(path.name + ".partial")
    try:
        maps.to_netcdf(partial, engine="netcdf4")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return path
