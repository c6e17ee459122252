"""Writes maps block by block, so that a stopped run can go on.

On disk a store is a plain Zarr v3 group (zstd with checksum, one date per chunk in time) that any reader opens, with a
folder `smgrid` inside: the ledger of finished chunks and a manifest of what the whole is. Three promises are kept.

- *Nobody opens half a map.* A first write goes to `PATH.partial`, which has no Zarr metadata until its ledger is full,
  and is then renamed. New dates of an existing store are laid down where readers do not look yet, and changed chunks of
  old dates wait aside; last come the coordinates, the arrays' new lengths and, at one stroke, the group's own metadata.
- *A finished block is kept only if it would come out the same* (`smgrid.identity`) and its stored bytes are those of
  the ledger.
- *Same work, same bytes*, whatever the order of blocks and the number of interruptions; no time is stored.
"""

from __future__ import annotations

import errno
import itertools
import logging
import math
import os
import shutil
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import dask
import numpy as np
import xarray as xr
from dask.delayed import Delayed
from dask.highlevelgraph import HighLevelGraph

from smgrid.blocks import Block, Folder, Layer, StorageFullError, folders_of, graph_of, replace
from smgrid.common import in_this_process
from smgrid.layout import (
    check_ours,
    files_in,
    foreign_files,
    move_if_new,
    remove_store,
    swap_in,
    vouched,
    write_metadata,
)
from smgrid.ledger import Line, count_appended, finished, one_writer, read_lines, settle
from smgrid.manifest import (
    CorruptStoreError,
    as_json,
    check_maps,
    check_same,
    chunk_keys,
    count_blocks,
    date_labels,
    describe,
    read_manifest,
    summarise,
    tidy,
)
from smgrid.portions import count_blocks_of, planned_ahead, portions
from smgrid.progress import shown

__all__ = ["CorruptStoreError", "IncompleteStoreError", "StorageFullError", "open_maps", "write_zarr"]

log = logging.getLogger("smgrid")


class IncompleteStoreError(ValueError):
    """A store whose write was stopped."""


def write_zarr(
    maps: Any, path: Any, *, resume: bool = True, progress: bool | None = None, durable: bool = False
) -> xr.Dataset:
    """Write maps block by block; a stopped run goes on where it stopped.

    The same call does three things: it writes a new store, goes on with one that was stopped (by a kill, a full disk,
    an error), and adds new dates to one that is finished. Blocks whose model and inputs are what they were are not
    computed again. Blocks run in parallel on Dask's active scheduler.

    Parameters
    ----------
    maps : Dataset (or one DataArray)
        Layers with dims (..., time, y, x) or (..., y, x), lazy or in memory, as `predict_map` makes them.
    path : str or path
        A local folder, `NAME.zarr`.
    resume : bool
        False starts anew; a store that exists is replaced once the new one is whole.
    progress : bool, optional
        True shows a bar, False nothing; by default a bar in a terminal or notebook, a log line a minute otherwise.
    durable : bool
        Survive a loss of power too: wait until each chunk lies on the disk itself before the ledger names it (fsync).
        A killed process, which is what happens, costs nothing without it.

    Returns
    -------
    Dataset
        The whole store, lazy, as `open_maps` gives it.

    Raises
    ------
    ValueError
        The store there holds another model, grid or layers, or later dates; the message names the difference.
    StorageFullError
        The disk is full. The store stays resumable.
    RuntimeError
        A block failed (the message names it, the cause is chained), or another process is writing to `path`.

    Examples
    --------
    >>> import tempfile, xarray as xr, smgrid
    >>> grid = smgrid.Grid(9, 1274, 3489, 4, 4)
    >>> maps = xr.Dataset({"soil_moisture": (("y", "x"), [[0.1] * 4] * 4)}, coords=grid.coords())
    >>> folder = tempfile.TemporaryDirectory()
    >>> smgrid.write_zarr(maps, folder.name + "/yanco.zarr").soil_moisture.mean().compute().item()
    0.1
    >>> folder.cleanup()
    """
    target, started = local_folder(path), time.monotonic()
    maps = check_maps(maps)
    partial = target.with_name(target.name + ".partial")
    for place in (target, partial, *target.parents):
        if place.exists() and not place.is_dir():
            raise ValueError(f"{place} is a file: a store is a folder; choose another path, or move it away")
    target.parent.mkdir(parents=True, exist_ok=True)
    with one_writer(target, [p / "smgrid" / "ledger" for p in (partial, target)]) as (lock, token):
        if not resume:
            check_ours(target, "replaced")
            remove_store(partial)
        root = target if resume and target.exists() and not partial.exists() else partial
        known = read_manifest(root)
        if known is None and (root is target or foreign_files(root)):
            raise ValueError(f"{root} is there and was not written by smgrid: choose another path, or move it away")
        maps, chunks = tidy(maps, known)
        manifest = describe(maps, chunks)
        check_same(root, known, manifest)
        whole, places = _calendar(maps, root, known, root is target)
        manifest["dates"] = date_labels(whole)
        run = _Run(root, root is target, manifest, known, lock, token, durable)
        try:
            run.prepare(maps, whole)
            run.compute(maps, places, progress)
            run.publish()
            if root is partial:
                swap_in(partial, target)
                if durable:
                    settle(target.parent)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise run.full() from error
    _report(target, run.summary(), time.monotonic() - started, run.computed)
    return open_maps(target)


_READERS = {
    ".nc": "xarray.open_dataset(path, decode_coords='all')",
    ".tif": "rioxarray.open_rasterio(path)",
    ".tiff": "rioxarray.open_rasterio(path)",
}


def open_maps(path: Any) -> xr.Dataset:
    """Open maps that `write_zarr` wrote, lazily, with their CRS attached.

    Parameters
    ----------
    path : str or path
        The local folder.

    Raises
    ------
    IncompleteStoreError
        The write was stopped; the message says how much is there and how to go on.
    FileNotFoundError, ValueError
        Nothing is there, or something that smgrid did not write.
    """
    kind = os.path.splitext(os.fspath(path))[1].lower() if isinstance(path, str | os.PathLike) else ""
    if kind in _READERS and "://" not in os.fspath(path):
        raise ValueError(f"open_maps opens what write_zarr wrote, not {kind!r}: use {_READERS[kind]}")
    target = local_folder(path)
    partial = target.with_name(target.name + ".partial")
    for root in (target, partial):
        known = read_manifest(root)
        if known is None and not root.exists():
            continue
        if known is None and root is target:
            raise ValueError(f"{target} was not written by smgrid's write_zarr; xarray.open_zarr may open it")
        # metadata first, ledger second: a chunk is in the ledger before any reader's metadata shows it
        maps = _opened(root) if root is target else None
        known = {"layers": {}} if known is None else known
        expected = chunk_keys(known["layers"], known.get("dates") if maps is None else date_labels(maps))
        there = read_lines(root / "smgrid" / "ledger")
        if maps is None or any(key not in there for key in expected):
            n, m = count_blocks(expected, there)
            raise IncompleteStoreError(
                f"{root} holds {n} of {m} blocks: its write was stopped. Call write_zarr with the same maps and "
                f"{str(target)!r} again; it goes on from there"
            )
        assert maps is not None
        return maps
    raise FileNotFoundError(f"no maps at {target}")


def _opened(root: Path, **options: Any) -> xr.Dataset:
    try:
        return xr.open_zarr(root, decode_coords="all", consolidated=True, **options)
    except Exception as error:  # a damaged zarr.json fails in as many ways as there are bytes in it
        raise CorruptStoreError(
            f"{root} cannot be opened ({type(error).__name__}: {error}): its metadata was changed since it was written. "
            f"`smgrid verify {root}` says what is; write it anew with resume=False"
        ) from error


def local_folder(path: Any) -> Path:
    """A local path as a store wants it; others are refused with what to do."""
    text = os.fspath(path) if isinstance(path, str | os.PathLike) else None
    if text is None or "://" in text or "::" in text:
        raise ValueError(
            f"{path!r} is no local path: blocks are locked and renamed, which needs a file system that all workers "
            "share. Write to a local folder NAME.zarr and copy it when it is done"
        )
    target = Path(os.path.abspath(os.path.expanduser(text)))
    if target.suffix.lower() not in (".zarr", ""):
        instead = {
            ".tif": "write_geotiff(maps, path)", ".tiff": "write_geotiff(maps, path)", ".nc": "maps.to_netcdf(path)"
        }.get(target.suffix.lower(), "a path that ends in .zarr")  # fmt: skip
        raise ValueError(f"write_zarr writes folders named NAME.zarr, not {target.suffix!r}: use {instead}")
    return target


def _calendar(
    maps: xr.Dataset, root: Path, known: Mapping[str, Any] | None, append: bool
) -> tuple[xr.Dataset, tuple[int, ...] | None]:
    """All that is stored whole, over the dates of the store and the maps; and the places of the maps' dates."""
    own = maps.drop_vars([name for name, v in maps.data_vars.items() if {"y", "x"} <= set(v.dims)])
    new = date_labels(maps)
    if known is None or new is None:
        return own, None if new is None else tuple(range(len(new)))
    old: list[str] = known["dates"]
    gone = set(old) - set(new)
    if gone and not append:
        raise ValueError(
            f"{root} is an unfinished write that has other dates too ({min(gone)} is not in these maps): give maps "
            "that have them all, or start anew with resume=False"
        )
    if append:
        stored = _opened(root, chunks=None).isel(time=slice(len(old)))
        last = stored["time"].values[-1]
        early = [date for date, at in zip(new, maps["time"].values) if date not in old and at <= last]
        if early:
            raise ValueError(
                f"{root} ends with {old[-1]}, and the maps bring {early[0]}, which lies before: dates are added in "
                "order. Start anew with resume=False and maps that hold all dates"
            )
        if gone:
            kept = stored.drop_vars([n for n in stored.data_vars if n not in own.variables])
            kept = kept.isel(time=[n for n, date in enumerate(old) if date in gone]).load()
            own = xr.concat(
                [kept, own], "time", data_vars="minimal", coords="minimal", compat="override", join="override"
            )
            own = own.sortby("time").assign_attrs(maps.attrs)
    at = {date: n for n, date in enumerate(date_labels(own) or ())}
    return own, tuple(at[date] for date in new)


# ---- one run


class _Run:
    """One write: from the folder it found to the finished store."""

    def __init__(
        self,
        root: Path,
        published: bool,
        manifest: dict[str, Any],
        known: Mapping[str, Any] | None,
        lock: str,
        token: str,
        durable: bool,
    ):
        self.root, self.manifest = root, manifest
        self.readable = 0 if not published or known is None else len(known["dates"] or [0])
        self.own, self.ledger = root / "smgrid", root / "smgrid" / "ledger"
        self.lock, self.token, self.durable = lock, token, durable
        self.expected = chunk_keys(manifest["layers"], manifest["dates"])
        self.computed = 0

    def prepare(self, maps: xr.Dataset, whole: xr.Dataset) -> None:
        """Sweep what a crash left, and write the metadata aside, so that what cannot be stored fails now."""
        import zarr

        self.own.mkdir(parents=True, exist_ok=True)
        for orphan in self.root.rglob(f"*.{'?' * 32}.partial"):
            orphan.unlink()
        for rest in ("next", "common"):
            shutil.rmtree(self.own / rest, ignore_errors=True)
        if not self.readable:
            replace(self.own / "manifest.json", as_json(self.manifest), self.root if self.durable else None)
        write_metadata(maps, whole, self.manifest["layers"], self.own / "next")
        layers = {}
        for name, told in self.manifest["layers"].items():
            array = zarr.open_array(self.own / "next" / name, mode="r")
            encoding = {k: v for k, v in maps[name].encoding.items() if k != "grid_mapping"}
            kind = np.dtype(array.dtype).newbyteorder("<").str
            layers[name] = Layer(name, tuple(told["dims"]), tuple(array.chunks), kind, array.fill_value, encoding)
        with open(self.ledger, "ab") as ledger:  # there from now on; a finished one keeps its date
            begun = ledger.tell()
        self.folder = Folder(str(self.root), self.lock, self.token, layers, self.readable, begun, self.durable)

    def compute(self, maps: xr.Dataset, places: tuple[int, ...] | None, progress: bool | None) -> None:
        """Compute and store every block that is not there as it would come out, portion by portion."""
        layers = {name: maps[name].variable for name in self.manifest["layers"]}
        there, total = read_lines(self.ledger), count_blocks_of(layers)
        missing = {key for key in self.expected if key not in there}
        lost = sorted(key for key in missing if places is not None and self._date(key) not in {None, *places})
        if lost:
            raise CorruptStoreError(
                f"the ledger of {self.root} lacks {len(lost)} chunks ({lost[0]} ...) of dates that these maps do not "
                "hold: give maps with all dates, or start anew with resume=False"
            )
        with ExitStack() as bar:
            plans = portions(layers, places, maps)
            for portion in plans if in_this_process() else planned_ahead(plans):
                todo = [block for block in portion.blocks if not self._is_done(block, there)]
                if not todo:
                    continue
                coming = missing | {
                    key for b in todo for layer in b.keys for key, _ in b.chunks(self.folder.layers[layer])
                }
                if not self.computed:
                    self._check_space(coming)
                unknown = sum(any(None in ids for ids in b.identities.values()) for b in portion.blocks)
                if unknown and there:
                    log.warning(
                        "%s: %d blocks are started afresh, since their inputs cannot be identified", self.root, unknown
                    )
                said = f" (portion {portion.number} of {portion.of})" if portion.of > 1 else ""
                log.info("%s: %d of %d blocks to compute%s", self.root, len(todo), total, said)
                if not self.computed:
                    title = self.root.name.removesuffix(".partial")
                    bar.enter_context(shown(progress, title, len(coming), _counter(self.ledger)))
                self.computed += len(todo)
                self._run(portion.nodes, todo)

    def _run(self, nodes: Mapping[Any, Any], todo: list[Block]) -> None:
        """Compute blocks on the active scheduler."""
        work, ends, final = graph_of(nodes, self.folder, todo)
        whole: Any = HighLevelGraph.from_collections(final, work)
        tasks = Delayed(final, whole, layer=final)  # type: ignore[no-untyped-call]
        try:
            dask.base.compute(tasks, optimize_graph=False)  # type: ignore[no-untyped-call]
        except (RuntimeError, OSError):
            raise
        except Exception as error:  # not inside a block, which says itself where it failed
            task = getattr(error, "task", None)  # of distributed's KilledWorker
            if isinstance(task, tuple) and task[0] == ends:
                block = todo[task[1]]
                raise RuntimeError(
                    f"{block.where} of {', '.join(block.keys)}: one worker after the other died with it, for want of "
                    "memory most likely. Give them more, or fewer threads, or maps smaller chunks; what is stored stays"
                ) from error
            raise RuntimeError(f"writing {self.root} failed: {type(error).__name__}: {error}") from error

    def _date(self, key: str) -> int | None:
        """The place in time of a chunk; None of one without."""
        name, _, *at = key.split("/")
        dims = self.manifest["layers"][name]["dims"]
        return int(at[dims.index("time")]) if "time" in dims else None

    def _is_done(self, block: Block, there: Mapping[str, Line]) -> bool:
        for name in block.keys:
            for key, identity in block.chunks(self.folder.layers[name]):
                line = there.get(key)
                if identity is None or line is None or line.identity != identity or not self.folder.find(line):
                    return False
        return True

    def _check_space(self, coming: Collection[str]) -> None:
        most, free = self._at_most(coming), shutil.disk_usage(self.root).free
        if free < most:
            log.warning("%s may need up to %s (before compression); %s are free", self.root, _si(most), _si(free))

    def _at_most(self, keys: Iterable[str]) -> int:
        """Bytes of chunks before compression."""
        layers = self.manifest["layers"]
        each = {name: math.prod(t["chunks"].values()) * np.dtype(t["dtype"]).itemsize for name, t in layers.items()}
        return sum(each[key.split("/")[0]] for key in keys)

    def full(self) -> StorageFullError:
        """The disk is full: what is there, and how much is still needed."""
        there = read_lines(self.ledger)
        left = [key for key in self.expected if key not in there]
        # as the file system counts, which is in blocks of its own
        some = itertools.islice((self.root / key for key in self.expected if key in there), 1000)
        taken = [path.stat().st_blocks * 512 for path in some if path.exists()]
        needed = round(sum(taken) / len(taken) * len(left)) if taken else self._at_most(left)
        n, m = count_blocks(self.expected, there)
        return StorageFullError(
            errno.ENOSPC,
            f"no space left: {n} of {m} blocks are stored, about {_si(needed)} ({needed} bytes) more are needed, "
            f"{_si(shutil.disk_usage(self.root).free)} are free. Make room and call write_zarr again; it goes on",
            str(self.root),
        )

    def publish(self) -> None:
        """Show the finished whole: changed chunks, coordinates, lengths, and last the group's own metadata."""
        there = read_lines(self.ledger)
        lines = [there[key] for key in self.expected]
        kept = set(self.expected)
        for key in kept & {p.relative_to(self.own / "staged").as_posix() for p in files_in(self.own / "staged")}:
            if self.folder.find(there[key]) == self.folder.staged(key):
                self._move(self.folder.staged(key), self.root / key)
        for name in self.manifest["layers"]:
            for path in files_in(self.root / name / "c"):  # dates of a run that was stopped and never taken up again
                if path.relative_to(self.root).as_posix() not in kept:
                    path.unlink()
        aside = self.own / "next"
        # chunks before the metadata of their arrays, the group's last
        for path in sorted(files_in(aside), key=lambda p: (p.parent == aside, p.name == "zarr.json", p)):
            self._move(path, self.root / path.relative_to(aside))
        self.manifest["summary"] = summarise(lines, self.manifest)
        self._replace("manifest.json", as_json(self.manifest))
        for rest in ("next", "staged", "common"):
            shutil.rmtree(self.own / rest, ignore_errors=True)
        self._replace("ledger", finished([*lines, *vouched(self.root, kept)]))

    def _move(self, path: Path, to: Path) -> None:
        if self.durable:
            settle(path)
        move_if_new(path, to)
        if self.durable:
            settle(*folders_of(to, self.root))

    def _replace(self, name: str, data: bytes) -> None:
        if (self.own / name).read_bytes() != data:
            replace(self.own / name, data, self.root if self.durable else None)

    def summary(self) -> dict[str, Any]:
        """What the store holds, counted."""
        return self.manifest["summary"]


# ---- what is said


def _counter(ledger: Path) -> Callable[[], int]:
    """How many chunks have been stored from now on, by how the ledger grows."""
    done, at = 0, ledger.stat().st_size

    def count() -> int:
        nonlocal done, at
        more, at = count_appended(ledger, at)
        done += more
        return done

    return count


def _report(target: Path, summary: Mapping[str, Any], seconds: float, computed: int) -> None:
    states = []
    for state, n in summary["status"].items():
        reasons = ", ".join(f"{name} {k}" for name, k in summary["culprit"].get(state, {}).items())
        states.append(f"{state} {n}" + (f" ({reasons})" if reasons else ""))
    log.info(
        "%s: %d blocks (%d computed now), %d of %d cells mapped%s; %.1f s",
        target, summary["blocks"], computed, summary["mapped"], summary["cells"],
        "".join(f", {state}" for state in states), seconds,
    )  # fmt: skip


def _si(n: float) -> str:
    power = max(i for i in range(5) if i == 0 or n >= 1000**i)
    return f"{n / 1000**power:.3g} {('B', 'kB', 'MB', 'GB', 'TB')[power]}"
