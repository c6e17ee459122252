"""Lays out a store's folder: the metadata it is opened by, what in it is ours, and the change of old for new."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr

from smgrid.blocks import ZSTD_LEVEL
from smgrid.ledger import Line
from smgrid.manifest import as_json, read_manifest


def write_metadata(maps: xr.Dataset, whole: xr.Dataset, layers: Mapping[str, Any], folder: Path) -> None:
    """Everything of a store but its blocks: what xarray writes of maps whose layers are not there yet."""
    import zarr
    from zarr.codecs import ZstdCodec

    codecs = (ZstdCodec(level=ZSTD_LEVEL, checksum=True),)
    out = whole.compute()
    # text of any length has a place in Zarr v3, text of a fixed length has none
    out = out.assign_coords({n: v.astype(object) for n, v in out.coords.items() if v.dtype.kind == "U"})
    for name, variable in out.variables.items():
        out[name].encoding = _whole_encoding(variable) | {"compressors": codecs}
    for name, told in layers.items():
        shape = [out.sizes["time"] if dim == "time" else told["sizes"][dim] for dim in told["dims"]]
        empty = da.zeros(shape, chunks=-1, dtype=maps[name].dtype)
        out[name] = xr.Variable(told["dims"], empty, maps[name].attrs)
        encoding = maps[name].encoding
        fill = encoding.get("_FillValue", 0)
        chunks = tuple(told["chunks"][dim] for dim in told["dims"])
        out[name].encoding = encoding | {"chunks": chunks, "compressors": codecs, "fill_value": fill}
    with zarr.config.set({"array.write_empty_chunks": True}):
        out.to_zarr(folder, mode="w", compute=False, zarr_format=3, consolidated=False)
    group = json.loads((folder / "zarr.json").read_text())
    members = {path.parent.name: json.loads(path.read_text()) for path in sorted(folder.glob("*/zarr.json"))}
    group["consolidated_metadata"] = {"kind": "inline", "must_understand": False, "metadata": members}
    (folder / "zarr.json").write_bytes(as_json(group, sort=False))
    (folder / "smgrid").mkdir()
    (folder / "smgrid" / "zarr.json").write_bytes(as_json({"attributes": {}, "zarr_format": 3, "node_type": "group"}))


def _whole_encoding(variable: xr.Variable) -> dict[str, Any]:
    """Encoding that depends on no other date, so that a store that grew is what it would be in one go."""
    chunks = tuple(1 if dim == "time" else n for dim, n in variable.sizes.items())
    if variable.dtype.kind != "M":
        return {"chunks": chunks} | ({} if variable.dtype.kind in "OSUT" else {"_FillValue": None})
    if variable.dims != ("time",) or np.isnat(variable.values).any():
        return {"chunks": chunks, "units": "seconds since 1970-01-01", "dtype": "float64"}
    days = (variable.values == variable.values.astype("M8[D]")).all()
    return {"chunks": chunks, "units": f"{'days' if days else 'seconds'} since 1970-01-01", "dtype": "int64"}


def files_in(folder: Path) -> list[Path]:
    """Every file below a folder."""
    return [path for path in folder.rglob("*") if not path.is_dir()]


def foreign_files(root: Path) -> list[str]:
    """Files in a store that smgrid did not write."""
    names = {"smgrid", *(read_manifest(root) or {"layers": ()})["layers"]}
    with suppress(FileNotFoundError, ValueError, KeyError):
        names |= set(json.loads((root / "zarr.json").read_text())["consolidated_metadata"]["metadata"])
    parts = (path.relative_to(root).parts for path in files_in(root))
    return sorted("/".join(p) for p in parts if p[0] not in names and p != ("zarr.json",))


def vouched(root: Path, chunks: Collection[str]) -> list[Line]:
    """Ledger lines of what is ours beside the chunks: metadata, coordinates, the manifest."""
    names = {path.relative_to(root).as_posix() for path in files_in(root)}
    names -= {"smgrid/ledger", *chunks, *foreign_files(root)}
    return [Line(name, hashlib.sha256((root / name).read_bytes()).hexdigest()) for name in names]


def check_ours(root: Path, fate: str) -> None:
    """Refuse a folder that holds anything smgrid did not write."""
    if not root.exists():
        return
    if read_manifest(root) is None:
        raise ValueError(f"{root} was not written by smgrid, so it is not {fate}: choose another path, or move it away")
    if foreign := foreign_files(root):
        raise ValueError(f"{root} holds files that smgrid did not write, so it is not {fate}: move {foreign[:3]} away")


def remove_store(root: Path) -> None:
    """Remove a store of ours, or what a crash left of one."""
    if read_manifest(root) is not None or foreign_files(root):
        check_ours(root, "removed")
    if root.exists():
        shutil.rmtree(root)


def move_if_new(path: Path, to: Path) -> None:
    """Move a file into place, unless the same bytes are there."""
    if not to.exists() or to.read_bytes() != path.read_bytes():
        to.parent.mkdir(parents=True, exist_ok=True)
        os.replace(path, to)


def swap_in(partial: Path, target: Path) -> None:
    """Put the finished store in its place; an old one goes only after that."""
    old = target.with_name(target.name + ".replaced")
    if target.exists():
        check_ours(target, "replaced")
        remove_store(old)
        os.rename(target, old)
    os.rename(partial, target)
    remove_store(old)
