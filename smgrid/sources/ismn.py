"""Opens archives of the International Soil Moisture Network: both text formats, in folders or zipped.

One `.stm` file holds one sensor. *Header+values* files have a header line (CSE, network, station, latitude, longitude,
elevation, depth from, depth to, sensor) and lines of `YYYY/MM/DD HH:MM value flag provider-flag`; *CEOP* files repeat
all that on every line. Identity is taken from inside the file, since file names drop characters. Time is UTC, -9999 is
missing, and a value is good if its flag is exactly `G`. See Dorigo et al. (2021), doi:10.5194/hess-25-5749-2021.
"""

from __future__ import annotations

import io
import logging
import re
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from smgrid import stations

log = logging.getLogger("smgrid")

DEPTH = 0.05  # m, the deepest end of a sensor that counts as surface soil moisture in the paper
MEMBERS, MEMBER_BYTES, RATIO = 200_000, 1 << 30, 400  # an archive beyond these is no archive of text files

_DATE = re.compile(r"\d{4}/\d\d/\d\d$")


class Sensor(NamedTuple):
    """One sensor of an archive: who and where it is, and its readings as they stand."""

    network: str
    station: str
    latitude: float
    longitude: float
    elevation: float
    depth_from: float
    depth_to: float
    sensor: str
    time: np.ndarray
    value: np.ndarray
    flag: np.ndarray


def open(
    path: str | Path | Iterable[str | Path],
    *,
    depth: float = DEPTH,
    flags: Sequence[str] = ("G",),
    min_readings: int = 12,
    utc_offset: float = 0.0,
) -> pd.DataFrame:
    """Daily surface soil moisture of every station of an archive.

    Parameters
    ----------
    path : path or paths
        `.stm` files, folders that hold some, zip archives as downloaded.
    depth : float, m
        Deepest end of a sensor, `depth_to <= depth`. SCAN and SNOTEL give two inches, 0.0508 m, so the strict 0.05 of
        the paper leaves them out; the log says so, and `depth=0.0508` takes them in.
    flags : sequence of str
        Quality flags that are kept; a field such as `D01,D03` must be kept whole to count.
    min_readings, utc_offset
        As in `smgrid.stations.daily`.

    Returns
    -------
    DataFrame
        The stations shape: `time, network, station, latitude, longitude, soil_moisture` (m3 m-3), `sensors`; empty
        where no sensor is shallow enough.

    Raises
    ------
    FileNotFoundError
        No `.stm` file is there.
    ValueError
        A file that is no such text, or an archive that is hostile or damaged; the message names it.
    """
    days, deep = [], []
    for sensor in sensors(path):
        if sensor.depth_to > depth + 1e-9:
            if sensor.depth_to <= 0.0508 + 1e-9:
                deep.append(f"{sensor.network}/{sensor.station}")
            continue
        good = readings(sensor, flags)
        if len(good):
            days.append(stations.daily(good, min_readings=min_readings, utc_offset=utc_offset))
    if deep:
        example = "%d sensors at two inches (0.0508 m) left out, such as %s: depth=0.0508 keeps them"
        log.warning(example, len(deep), deep[0])
    columns = ["time", *stations.PLACE, "soil_moisture", "sensors"]
    if not days:
        return pd.DataFrame(columns=columns)
    # a station's sensors came one by one: their daily means weigh alike
    groups = pd.concat(days).groupby([*stations.PLACE, "time"], sort=True)["soil_moisture"]
    return groups.agg(soil_moisture="mean", sensors="size").reset_index()[columns]


def readings(sensor: Sensor, flags: Sequence[str] = ("G",)) -> pd.DataFrame:
    """Good readings of one sensor, a row each, m3 m-3; percent is recognised by values above 1 and divided."""
    keep = np.isin(sensor.flag, list(flags)) & (sensor.value > -9998) & np.isfinite(sensor.value)
    value = sensor.value[keep]
    if value.size and value.max() > 1:
        log.warning("%s/%s (%s): values up to %g are percent; divided by 100", *sensor[:2], sensor.sensor, value.max())
        value = value / 100
    names = {name: getattr(sensor, name) for name in (*stations.PLACE, "sensor")}
    names["sensor"] = f"{sensor.sensor} {sensor.depth_from:.3f}-{sensor.depth_to:.3f}"
    return pd.DataFrame({"time": sensor.time[keep], "soil_moisture": value, **names})


def sensors(path: str | Path | Iterable[str | Path]) -> Iterator[Sensor]:
    """Every soil-moisture sensor of an archive, in order of file name; memory holds one at a time."""
    paths = [Path(path)] if isinstance(path, (str, Path)) else [Path(p) for p in path]
    found = False
    for each in paths:
        for name, text in _texts(each):
            found = True
            yield parse(text, name)
    if not found:
        raise FileNotFoundError(f"no soil-moisture file (*_sm_*.stm) is at {', '.join(map(str, paths))}")


def _texts(path: Path) -> Iterator[tuple[str, str]]:
    """Names and texts of the soil-moisture files at a path."""
    if not path.exists():
        raise FileNotFoundError(f"there is nothing at {path}")
    if path.is_dir():
        for file in sorted(path.rglob("*_sm_*.stm")):
            yield str(file), _decoded(file.read_bytes())
        for archive in sorted(path.rglob("*.zip")):
            yield from _zipped(archive)
    elif zipfile.is_zipfile(path):
        yield from _zipped(path)
    elif path.suffix.lower() == ".zip":
        raise ValueError(f"{path} is named an archive but is none, or it is cut off: download it again")
    else:
        yield str(path), _decoded(path.read_bytes())


def _zipped(path: Path) -> Iterator[tuple[str, str]]:
    """Texts inside an archive, read in place: nothing is ever unpacked to disk."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            if len(members) > MEMBERS:
                raise ValueError(f"{path} holds {len(members)} files, more than {MEMBERS}: it is no ISMN archive")
            for member in members:
                _check_member(path, member)
            for member in sorted(members, key=lambda m: m.filename):
                if member.filename.endswith(".stm") and "_sm_" in Path(member.filename).name:
                    with archive.open(member) as file:
                        yield f"{path}!{member.filename}", _decoded(file.read(MEMBER_BYTES + 1))
    except (zipfile.BadZipFile, EOFError, NotImplementedError, OSError) as error:
        raise ValueError(f"{path} is a damaged archive ({error}): download it again") from error


def _check_member(path: Path, member: zipfile.ZipInfo) -> None:
    """Refuse what no honest archive holds: paths that climb out, locked files, bombs."""
    name = member.filename
    if name.startswith(("/", "\\")) or ".." in re.split(r"[/\\]", name) or ":" in name.split("/")[0]:
        raise ValueError(f"{path}: the member {name!r} points outside the archive: this archive is hostile")
    if member.flag_bits & 1:
        raise ValueError(f"{path}: the member {name!r} is encrypted")
    if member.file_size > MEMBER_BYTES or member.file_size > RATIO * max(member.compress_size, 1024):
        raise ValueError(
            f"{path}: the member {name!r} would unpack from {member.compress_size} to {member.file_size} bytes: "
            "this is no text of readings"
        )


def _decoded(data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def parse(text: str, name: str) -> Sensor:
    """One sensor out of the text of a `.stm` file of either format.

    Parameters
    ----------
    text : str
    name : str
        Of the file, for error messages.
    """
    lines = [line for line in io.StringIO(text) if line.strip()]
    if not lines:
        raise ValueError(f"{name} is empty")
    words = lines[0].split()
    ceop = len(words) > 2 and bool(_DATE.match(words[0])) and bool(_DATE.match(words[2]))
    try:
        if ceop:
            head = lines[0].split(None, 14)[4:12]
            rows = [line.split(None, 14) for line in lines]
            dates, values, marks = [f"{r[0]} {r[1]}" for r in rows], [r[12] for r in rows], [r[13] for r in rows]
        else:
            head = lines[0].split(None, 8)
            rows = [line.split(None, 4) for line in lines[1:]]
            dates, values, marks = [f"{r[0]} {r[1]}" for r in rows], [r[2] for r in rows], [r[3] for r in rows]
        latitude, longitude, elevation, depth_from, depth_to = map(float, head[3:8])
        time = np.array([d.replace("/", "-").replace(" ", "T") for d in dates], "M8[m]").astype("M8[ns]")
        value = np.array(values, "f8")
    except (IndexError, ValueError) as error:
        raise ValueError(
            f"{name} is not a .stm file of the ISMN (Header+values or CEOP): {error}; "
            f"its first line is {lines[0][:80]!r}"
        ) from error
    if not (abs(latitude) <= 90 and abs(longitude) <= 180):
        raise ValueError(f"{name}: latitude {latitude}, longitude {longitude} are no place on Earth")
    model = head[8].strip() if not ceop and len(head) > 8 else _model_in(name)
    place = (latitude, longitude, elevation, depth_from, depth_to)
    return Sensor(head[1], head[2], *place, model, time, value, np.array(marks, "U16"))


def _model_in(name: str) -> str:
    """The sensor's name out of the file's, where the file does not say it."""
    parts = Path(name.rpartition("!")[2]).stem.split("_sm_")[-1].split("_")
    return parts[2] if len(parts) > 2 else "unknown"
