"""Opens Sentinel-2 surface reflectance (L2A): six bands, clouds masked by the scene classification.

Files hold reflectance x 10000. Since processing baseline 04.00 (January 2022, and reprocessed older scenes) they hold
1000 more, which some mirrors take off again: whether it is there is told from what the file says and from its darkest
pixels, never from the date.

References
----------
Drusch et al. (2012), Remote Sens. Environ. 120, 25-36, doi:10.1016/j.rse.2011.11.026; ESA, Sentinel-2 Products
Specification Document (PSD-14.9), quantification value and BOA_ADD_OFFSET.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from smgrid.sources._scenes import (
    Paths,
    da,
    describe,
    elementwise,
    gather,
    images,
    listed,
    open_bands,
    peek,
    per_file,
    resolution,
    step,
    tags,
    when,
)

NAMES = ("b2", "b3", "b4", "b8", "b11", "b12")
POSSIBLE = (-0.2, 2.0)  # reflectance: beyond them, in deep shade or on ice, it is a fill or a saturated sensor
KEPT = (4, 5, 6, 7)  # scene classification: vegetation, bare soil, water, unclassified
UNIT = 10000.0  # stored = reflectance * UNIT - offset
_COMMON = {"blue": "b2", "green": "b3", "red": "b4", "nir": "b8", "swir16": "b11", "swir22": "b12"}


def open(
    paths: Paths, *, bands: Sequence[str] | None = None, time: Any = None, offset: int | None = None
) -> xr.Dataset:
    """Open Sentinel-2 L2A scenes lazily, on their own grid.

    Parameters
    ----------
    paths : path or sequence of paths
        Multi-band GeoTIFFs, or a file a band (`..._B04_10m.jp2`, `SCL.tif`); others than the six bands are left out.
        Bands of 20 m are repeated onto the finest grid given, which leaves means over cells as they are. Files of one
        UTC day are laid together. A stack of many images (`toBands`, bands such as `20170505T001101_..._B4`) is as many
        scenes.
    bands : sequence of str, optional
        Names of the first bands, for files whose bands have none: `("B04", "B03", "B02", "B08", "SCL")`.
    time : date or one a file, optional
        When the scene was taken (UTC), where the names do not say it.
    offset : {0, -1000}, optional
        What must be added to the stored numbers (BOA_ADD_OFFSET). By default from the files' own word: a declared scale
        and offset, a tag, the baseline in the name (`_N0400_`); else from their darkest pixels: below 1000 there is
        none. A doubt is an error.

    Returns
    -------
    Dataset, dims (time, y, x), or (y, x) for one scene whose day is not known
        `b2`, `b3`, `b4`, `b8`, `b11`, `b12` (1), as far as the files have them. NaN for nodata (0), for what
        no surface reflects (beyond -0.2..2: saturation, fills that the file does not declare), and where the scene
        classification is other than 4 vegetation, 5 bare, 6 water, 7 unclassified. The classification itself is used
        here, at its own pixels, and not handed on: classes have no mean.

    Raises
    ------
    ValueError
        No such bands, bands without names, 8-bit pictures, L1C, a scale or offset that is not known or that the values
        contradict, several files without days, different grids; the message names the file.

    Examples
    --------
    >>> s2 = open("S2A_MSIL2A_20220612T102031_N0400_R065_T32UQD.tif")  # doctest: +SKIP
    >>> s2.b4.attrs["rule"]  # doctest: +SKIP
    'reflectance = (stored - 1000) / 10000; 0 is missing; kept are the classes (4, 5, 6, 7) of SCL'
    """
    if offset not in (None, 0, -1000):
        raise ValueError(f"offset is what is added to the stored numbers, 0 or -1000, not {offset!r}")
    names = listed(paths, "Sentinel-2 file")
    files = [file for path, said in zip(names, per_file(time, names, "time")) for file in _look(path, bands, said)]
    _check_classes(files)
    finest = min(abs(step(file.array, "x")) for file in files)
    scenes, rules = [], set()
    for file in files:
        factor, shift, rule = _encoding(file, [other for other in files if other.day == file.day], offset)
        scenes.append((file.path, file.moment, _refined(_decoded(file, factor, shift), finest)))
        rules |= {rule} if rule else set()
    versions = {_baseline(path, tags(path)) or "unknown" for path in names}
    masked = any("scl" in file.where for file in files)
    return _told(_clear(gather(scenes)), rules, masked, ",".join(sorted(versions)))


@dataclass(frozen=True)
class _File:
    path: str
    moment: np.datetime64 | None
    array: xr.DataArray
    where: dict[str, int]  # what is in which band
    looks: dict[str, NDArray[np.float64]]  # some known values of the reflectances
    classes: NDArray[np.float64]  # and of the classification

    @property
    def day(self) -> np.datetime64 | None:
        return None if self.moment is None else self.moment.astype("M8[D]")


def _look(path: str, bands: Sequence[str] | None, said: Any) -> list[_File]:
    """What a file holds; of a stack of many images (`toBands`) each is as a file of its own."""
    if "MSIL1C" in Path(path).name:
        raise ValueError(f"{path} is L1C, reflectance above the atmosphere: take L2A (surface reflectance)")
    array = open_bands(path, bands)
    labels = [str(band) for band in array["band"].values]
    stacked = {
        image: {str(_role(label)): k for k, label in reversed(own.items())}
        for image, own in images(path, labels, _role).items()
    }
    if not stacked and len(labels) == 1:
        found = re.search(r"(?<![A-Za-z0-9])(B0?(?:2|3|4|8|11|12)|SCL)(?:_\d\dm)?(?![A-Za-z0-9])", Path(path).name)
        stacked = {"": {str(_role(found[1])): 0}} if found else {}
    if not stacked:
        raise ValueError(
            f"{path} has no Sentinel-2 band: its bands are {labels}, wanted are B2, B3, B4, B8, B11, B12. "
            'If they have no names, give them in order: bands=("B04", "B03", "B02", "B08", "SCL")'
        )
    if array.attrs["stored_as"] in ("uint8", "int8") and any(set(where) - {"scl"} for where in stacked.values()):
        raise ValueError(f"{path} holds 8-bit numbers, a picture: take the reflectances (uint16)")
    values = peek(path)
    known = np.isfinite(values)
    files = []
    for image, where in stacked.items():
        looks = {role: values[k][known[k] & (values[k] != 0)] for role, k in where.items() if role != "scl"}
        classes = values[where["scl"]][known[where["scl"]]] if "scl" in where else np.empty(0)
        moment = when(image) if image and said is None else None
        files.append(_File(path, moment or when(path, said), array, where, looks, classes))
    return files


def _role(label: str) -> str | None:
    """The predictor (or `scl`) that a band's name means."""
    name = label.strip().lower()
    found = re.fullmatch(r"b0?(2|3|4|8|11|12)(?:_\d\dm|_median)?", name)
    return f"b{found[1]}" if found else "scl" if name == "scl" else _COMMON.get(name)


def _check_classes(files: Sequence[_File]) -> None:
    with_scl = {file.day for file in files if "scl" in file.where}
    bare = [Path(file.path).name for file in files if file.day not in with_scl]
    if with_scl and bare:
        raise ValueError(
            f"{', '.join(bare)} have no scene classification (SCL), other days have: give it for all or none"
        )
    for file in files:
        if file.classes.size and (file.classes.max() > 11 or (file.classes % 1).any()):
            raise ValueError(
                f"{file.path}: the band taken for SCL reaches {file.classes.max():g}, but classes are whole numbers, "
                "0 to 11: check the order of the bands"
            )


def _encoding(file: _File, same_day: Sequence[_File], offset: int | None) -> tuple[float, float, str]:
    """Factor and shift from stored numbers to reflectance, and the rule in words."""
    if not file.looks:
        return 1.0, 0.0, ""
    values = np.concatenate(list(file.looks.values()))
    middle = float(np.median(values)) if values.size else np.nan
    whole = "int" in file.array.attrs["stored_as"] and not file.array.attrs["declared_scale"]
    if not whole and middle <= 2:
        return 1.0, (offset or 0) / UNIT, "reflectance as stored" + (f" {offset / UNIT:+g}" if offset else "")
    if file.array.attrs["declared_scale"] or (not whole and not middle >= 50):
        raise ValueError(
            f"{file.path}: the bands {sorted(file.looks)} have the median {middle:.4g}, neither reflectance (0..1) nor "
            "reflectance x 10000: their scale is not known"
        )
    shift = _offset(file, same_day, offset)
    rule = "reflectance = (stored - 1000) / 10000" if shift else "reflectance = stored / 10000"
    return 1 / UNIT, shift / UNIT, rule


def _offset(file: _File, same_day: Sequence[_File], given: int | None) -> int:
    """What is to be added to the stored numbers; the darkest band of the day must not fall far below zero."""
    looks = [values for other in same_day for values in other.looks.values() if values.size]
    dark = any((values < 900).mean() > 0.01 for values in looks)
    told, source = (given, f"offset={given}") if given is not None else _written(file)
    if told == -1000 and dark:
        raise ValueError(
            f"{file.path}: {source} says that 1000 was added, but more than 1 % of a band lies below 900, so it was "
            "taken off already: give offset=0"
        )
    if told is not None:
        return told
    if dark:
        return 0
    lowest = min((float(values.min()) for values in looks), default=np.nan)
    raise ValueError(
        f"{file.path}: its numbers start at {lowest:g}, and nothing says whether 1000 was added to them (processing "
        "baseline 04.00 and later): give offset=-1000 if so (ESA's files), or offset=0 (Earth Engine's HARMONIZED)"
    )


def _written(file: _File) -> tuple[int | None, str]:
    """The offset that the file's tags or its product's name tell."""
    said = tags(file.path)
    for key, value in said.items():
        if "BOA_ADD_OFFSET" in key:
            return (-1000 if float(value.split(",")[0]) else 0), f"{key}={value}"
    baseline = _baseline(file.path, said)
    if not baseline:
        return None, ""
    return (-1000 if float(baseline) >= 4 else 0), f"the processing baseline {baseline}"


def _baseline(path: str, said: Mapping[str, str]) -> str:
    """Processing baseline such as 04.00, from the tags or the product's name; empty where neither tells."""
    written = next((value for key, value in said.items() if key.endswith("PROCESSING_BASELINE")), "")
    named = re.search(r"_N(\d\d)(\d\d)_", path)
    text = written or (f"{named[1]}.{named[2]}" if named else "")
    return f"{float(text):05.2f}" if re.fullmatch(r"\d+\.?\d*", text) else ""


def _decoded(file: _File, factor: float, shift: float) -> xr.Dataset:
    out = {}
    for role, k in file.where.items():
        one = file.array.isel(band=k, drop=True).drop_vars(["scale", "offset", "units"], errors="ignore")
        if role != "scl":
            empty = np.float32(file.array["offset"].values[k])  # what a stored 0 became where a scale was declared
            one = elementwise(_reflectance, one, empty=empty, factor=factor, shift=shift)
        one.attrs = {"source_files": Path(file.path).name, "native_resolution": resolution(one)}
        out[role] = one
    return xr.Dataset(out)


def _reflectance(stored: NDArray[Any], *, empty: np.float32, factor: float, shift: float) -> NDArray[np.float32]:
    values = stored.astype("f8") * factor + shift
    known = (stored != empty) & (values >= POSSIBLE[0]) & (values <= POSSIBLE[1])
    return np.where(known, values, np.nan).astype("f4")


def _refined(scene: xr.Dataset, finest: float) -> xr.Dataset:
    """Every pixel repeated until it is as small as the finest."""
    size = abs(step(scene, "x"))
    times = round(size / finest)
    if abs(size / finest - times) > 1e-6 * times:
        files = ", ".join(sorted({one.attrs["source_files"] for one in scene.data_vars.values()}))
        raise ValueError(f"{files}: pixels of {size:g} do not hold whole pixels of {finest:g}: open them one by one")
    if times == 1:
        return scene
    axes = {}
    for axis in ("y", "x"):
        centres, full = scene[axis].values, step(scene, axis)
        parts = (np.arange(times) + 0.5) / times - 0.5
        axes[axis] = xr.Variable(axis, (centres[:, None] + full * parts).ravel(), scene[axis].attrs)
    out = {
        name: (("y", "x"), da.repeat(da.repeat(one.data, times, axis=0), times, axis=1), one.attrs)
        for name, one in scene.data_vars.items()
    }
    return xr.Dataset(out, {**axes, "spatial_ref": scene["spatial_ref"].variable})


def _clear(scenes: xr.Dataset) -> xr.Dataset:
    """Reflectances where the classification is one of the kept, without the classification."""
    bands = scenes[[name for name in NAMES if name in scenes]]
    return bands.where(scenes["scl"].isin(KEPT)) if "scl" in scenes else bands


def _told(scenes: xr.Dataset, rules: set[str], masked: bool, version: str) -> xr.Dataset:
    clouds = f"kept are the classes {KEPT} of SCL" if masked else "no SCL was given, so clouds are not masked"
    rule = "; ".join([*sorted(rules), "0 is missing, and what no surface reflects", clouds])
    said = {"product": "Sentinel-2 L2A", "version": version, "rule": rule}
    return describe(scenes, {n: {"long_name": f"surface reflectance, band {n[1:]}", **said} for n in map(str, scenes)})
