"""Opens Sentinel-1 backscatter (GRD, as Earth Engine exports it): VV, VH and the incidence angle of each pass.

Backscatter comes in decibels or as linear power, and the mean of decibels is not the decibels of the mean: it lies
lower, by the speckle (0.45 dB at 5 looks) and by how mixed the land in a cell is (0.5 to 2 dB). The paper averages
decibels, physics averages power; a model and the cube it maps must agree, so every variable says which in its attrs.

`incidence_angle` is what the product gives: the angle to the ellipsoid, not to the slope.

References
----------
Torres et al. (2012), Remote Sens. Environ. 120, 9-24, doi:10.1016/j.rse.2011.05.028; Earth Engine, COPERNICUS/S1_GRD.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import reduce
from operator import or_
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from smgrid.sources._scenes import (
    Paths,
    describe,
    elementwise,
    gather,
    images,
    listed,
    open_bands,
    peek,
    per_file,
    tags,
    when,
)

NOISE = -30.0  # dB: below it VV is border noise, as in Earth Engine's guide
LEAST, MOST = -60.0, 50.0  # dB: beyond them nothing is measured, so it is a fill
_BANDS = {"vv": r"vv", "vh": r"vh", "incidence_angle": r"angle|incidence_?angle|theta|inc"}
_MOST = {"S1A": 73, "S1B": 27, "S1C": 172}  # absolute orbit that begins a cycle of 175 relative ones
AVERAGING = ("dB", "linear power")


def open(
    paths: Paths,
    *,
    bands: Sequence[str] | None = None,
    time: Any = None,
    scale: str | None = None,
    averaging: str = "dB",
    orbit: tuple[int, str] | None = None,
) -> xr.Dataset:
    """Open Sentinel-1 exports lazily, on their own grid.

    Parameters
    ----------
    paths : path or sequence of paths
        Multi-band GeoTIFFs with bands VV, VH, angle in any order and case; others (elevation, ...) are left out. Pieces
        of one UTC day are laid beside each other, the first on top. A stack of many images (`toBands`, bands such as
        `20150505T193156_VV`) is as many scenes.
    bands : sequence of str, optional
        Names of the first bands, for files whose bands have none: `("VV", "VH", "angle")`.
    time : date or one a file, optional
        When the scene was taken (UTC), where neither the name nor the tags say it.
    scale : {"dB", "linear"}, optional
        What the files hold; by default it is told from their values, and refused where these leave a doubt.
    averaging : {"dB", "linear power"}
        What a mean over pixels shall average. "dB", as the paper, gives backscatter in dB; "linear power" gives it in
        unit 1, which `to_grid` then averages and `predict_map` and `train` turn into dB.
    orbit : (int, {"ascending", "descending"}), optional
        Relative orbit (1..175) and pass, where neither the name nor the tags say it.

    Returns
    -------
    Dataset, dims (time, y, x), or (y, x) for one scene whose day is not known
        `vv`, `vh` (dB or 1), `incidence_angle` (degree), as far as the files have them. NaN outside the swath (nodata,
        or 0 in VV, VH and angle, which is how exports fill), where VV is below -30 dB (border noise), and where a
        number is no backscatter (-60..50 dB) or angle (0..90), as undeclared fills are not. Along `time`:
        `acquired`, and `relative_orbit` (0: unknown), `orbit_pass` where known.

    Raises
    ------
    ValueError
        No such bands, bands without names, digital numbers, doubt between dB and power, VV and VH exchanged, several
        files without days, different grids; the message names the file.

    Examples
    --------
    >>> s1 = open("S1A_20150505T193156_yanco.tif", averaging="linear power")  # doctest: +SKIP
    >>> s1.vv.attrs["units"], s1.vv.attrs["averaging"]  # doctest: +SKIP
    ('1', 'linear power')
    """
    if averaging not in AVERAGING:
        raise ValueError(f"averaging is one of {AVERAGING}, not {averaging!r}")
    if scale not in (None, "dB", "linear"):
        raise ValueError(f"scale is 'dB' or 'linear' (power), not {scale!r}")
    files = listed(paths, "Sentinel-1 file")
    scenes, orbits = [], []
    for path, said in zip(files, per_file(time, files, "time")):
        for image, found, stored in _open_scenes(path, bands, scale):
            moment = when(image) if image and said is None else None
            scenes.append((path, moment or when(path, said), _cleaned(found, stored, averaging)))
            orbits.append(_orbit(path, image, orbit))
    out = _with_orbits(gather(scenes), [moment for _, moment, _ in scenes], orbits, [path for path, _, _ in scenes])
    return _told(out, averaging)


def _open_scenes(path: str, bands: Sequence[str] | None, scale: str | None) -> Iterator[tuple[str, xr.Dataset, str]]:
    """For each image stacked in a file, its name ("" for one alone), the bands wanted as stored, and their scale."""
    array, values = open_bands(path, bands), peek(path)
    labels = [str(band) for band in array["band"].values]
    stacked = images(path, labels, _role)
    for image, own in stacked.items():
        where: dict[str, int] = {}
        for k, label in own.items():
            name = str(_role(label))
            if name in where:
                times = sum(_role(other) == name for other in own.values())
                raise ValueError(
                    f"{path}: {name!r} is there {times} times, the bands are {labels}: name them with bands="
                )
            where[name] = k
        if {"vv", "vh"} & set(where):
            yield image, *_as_stored(path, array, values, where, scale)
    if not any(_role(label) in ("vv", "vh") for own in stacked.values() for label in own.values()):
        raise ValueError(
            f"{path} has no Sentinel-1 band: its bands are {labels}, wanted are VV, VH, angle. "
            'If they have no names, give them: bands=("VV", "VH", "angle")'
        )


def _role(label: str) -> str | None:
    """The variable that a band's name means."""
    return next((name for name, pattern in _BANDS.items() if re.fullmatch(pattern, label, re.IGNORECASE)), None)


def _as_stored(
    path: str, array: xr.DataArray, values: NDArray[np.float64], where: Mapping[str, int], scale: str | None
) -> tuple[xr.Dataset, str]:
    """The bands of one image, and whether they hold dB or linear power."""
    looks = {name: values[k] for name, k in where.items()}
    units = [str(u) for u in array["units"].values] if "units" in array.coords else [""] * len(values)
    stored = _scale(path, looks, units[where.get("vv", where.get("vh", 0))], scale)
    found = {
        name: array.isel(band=k, drop=True).drop_vars(["scale", "offset", "units"], errors="ignore").astype("f4")
        for name, k in where.items()
    }
    for one in found.values():
        one.attrs = {"source_files": Path(path).name}
    return xr.Dataset(found), stored


def _scale(path: str, looks: Mapping[str, NDArray[np.float64]], unit: str, said: str | None) -> str:
    """Whether backscatter is stored in dB or as linear power, from some of its values; doubts are errors."""
    known = {name: values[np.isfinite(values) & (values != 0)] for name, values in looks.items()}
    angle = known.get("incidence_angle", np.empty(0))
    if angle.size and not 15 < np.median(angle) < 60:
        raise ValueError(
            f"{path}: the band taken for the incidence angle has the median {np.median(angle):.3g}, expected are 29 to "
            "46 degrees: check the order of the bands"
        )
    name = "vv" if "vv" in looks else "vh"
    values = known[name]
    said = said or {"db": "dB", "1": "linear", "linear": "linear"}.get(unit.strip().lower())
    if not values.size:
        if said:
            return said
        raise ValueError(
            f"{path}: {name!r} has no value where it was looked at, so dB or linear is not known: give scale="
        )
    below, middle, low = float((values < 0).mean()), float(np.median(values)), float(values.min())
    seems = "dB" if below > 0.5 and middle > -60 else "linear" if below == 0 and middle < 1 else None
    found = f"{name!r} has the median {middle:.4g} and {100 * below:.0f} % below 0"
    if below == 0 and middle > 5:
        raise ValueError(
            f"{path}: {found}: those are digital numbers, not backscatter. Calibrate them to sigma0 first "
            "(Earth Engine's COPERNICUS/S1_GRD is)"
        )
    if (seems is None and said is None) or (said and seems and said != seems) or (said == "linear" and below > 0):
        expected = f", but scale says {said!r}" if said else ""
        raise ValueError(
            f"{path}: {found}, smallest {low:.4g}{expected}: dB lie mostly below 0, linear power between 0 and 1. "
            "Say which it is with scale='dB' or scale='linear', or mend the file (integers: dB x 100?)"
        )
    if {"vv", "vh"} <= set(known) and known["vh"].size and np.median(known["vh"]) > middle:
        raise ValueError(
            f"{path}: 'vh' is stronger than 'vv' (medians {np.median(known['vh']):.4g} and {middle:.4g}), which no "
            "land is: check the order of the bands"
        )
    return said or str(seems)


def _cleaned(found: xr.Dataset, stored: str, averaging: str) -> xr.Dataset:
    """Only what was seen, in the unit that a mean shall average."""
    kept = reduce(or_, (array != 0 for array in found.values()))
    if "vv" in found:
        limit = NOISE if stored == "dB" else 10 ** (NOISE / 10)
        kept = kept & ~(found["vv"] < limit)
    wanted = "dB" if averaging == "dB" else "linear"
    ends = np.array([LEAST, MOST]) if stored == "dB" else 10 ** (np.array([LEAST, MOST]) / 10)
    out = found.where(kept)
    for name, one in out.items():
        low, high = (0.0, 90.0) if name == "incidence_angle" else ends
        out[name] = one.where((one >= low) & (one <= high))
    for name in {"vv", "vh"} & set(found):
        out[name] = elementwise(_converted, out[name], stored=stored, wanted=wanted)
    return out


def _converted(values: NDArray[np.float32], *, stored: str, wanted: str) -> NDArray[np.float32]:
    values = np.where(np.isfinite(values) & ((values > 0) | (stored == "dB")), values, np.float32(np.nan))
    if stored == wanted:
        return values
    power = values.astype("f8")
    return (10 * np.log10(power) if wanted == "dB" else 10 ** (power / 10)).astype("f4")


# ---- orbits


def _orbit(path: str, image: str, said: tuple[int, str] | None) -> tuple[int, str]:
    """Relative orbit (0 where unknown) and pass ("" where unknown)."""
    if said is not None:
        if not 1 <= int(said[0]) <= 175 or str(said[1]).lower() not in ("ascending", "descending"):
            raise ValueError(f"orbit is (relative orbit 1..175, 'ascending' or 'descending'), not {said!r}")
        return int(said[0]), str(said[1]).lower()
    written = tags(path)
    number = written.get("RELATIVEORBITNUMBER_START", written.get("RELATIVE_ORBIT", ""))
    way = written.get("ORBITPROPERTIES_PASS", written.get("PASS", "")).lower()
    named = re.search(r"(S1[ABC])_\w{2}_GRD\w_\w{4}_\d{8}T\d{6}_\d{8}T\d{6}_(\d{6})", image or Path(path).name)
    if re.fullmatch(r"\d+(\.0*)?", number):
        return int(float(number)), way
    return (int(named[2]) - _MOST[named[1]]) % 175 + 1 if named else 0, way


def _with_orbits(
    out: xr.Dataset, days: Sequence[Any], orbits: Sequence[tuple[int, str]], paths: Sequence[str]
) -> xr.Dataset:
    """Relative orbit and pass beside the days; two orbits on one day see it under two angles and are not mixed."""
    by_day: dict[Any, dict[tuple[int, str], str]] = {}
    for day, orbit, path in zip(days, orbits, paths):
        by_day.setdefault(None if day is None else day.astype("M8[D]"), {})[orbit] = Path(path).name
    for day, found in by_day.items():
        if len(found) > 1:
            raise ValueError(
                f"{', '.join(found.values())} are of one day ({day}) but of different orbits {sorted(found)}, seen "
                "under different angles: open them one by one"
            )
    numbers, ways = zip(*(next(iter(found)) for _, found in sorted(by_day.items(), key=lambda pair: str(pair[0]))))
    dims = ("time",) if "time" in out.dims else ()
    if any(numbers):
        attrs = {"long_name": "relative orbit", "comment": "0: unknown"}
        out = out.assign_coords(relative_orbit=(dims, np.array(numbers if dims else numbers[0], "i2"), attrs))
    if any(ways):
        out = out.assign_coords(orbit_pass=(dims, np.array(ways if dims else ways[0])))
    return out


def _told(out: xr.Dataset, averaging: str) -> xr.Dataset:
    border = (
        "pixels with VV below -30 dB (border noise) are missing"
        if "vv" in out
        else "border noise is not masked (no VV)"
    )
    shared = {
        "product": "Sentinel-1 GRD",
        "version": "unknown",
        "rule": f"{border}; pixels with 0 in all bands were not seen",
    }
    power = {"averaging": averaging, **({"units": "1"} if averaging == "linear power" else {})}
    names = {
        "vv": "VV backscatter (sigma0)",
        "vh": "VH backscatter (sigma0)",
        "incidence_angle": "incidence angle to the ellipsoid",
    }
    said = {n: {"long_name": names[n], **shared, **(power if n != "incidence_angle" else {})} for n in map(str, out)}
    return describe(out, said)
