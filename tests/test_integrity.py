"""Verify finds whatever happened to a finished store; plain reading never gives a wrong number in silence."""

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from smgrid import Grid, open_maps, verify, write_zarr
from smgrid.cli import main
from smgrid.store import CorruptStoreError, IncompleteStoreError

GRID = Grid(9, 1274, 3489, 10, 12)
RNG = np.random.default_rng(0)


def synthetic_maps(days=3):
    time = np.datetime64("2015-05-01", "ns") + np.arange(days) * np.timedelta64(6, "D")
    soil = np.random.default_rng(1).random((3, *GRID.shape), "f4")[:days]
    status = (np.random.default_rng(2).random((3, *GRID.shape)) < 0.3).astype("u1")[:days]
    dims = ("time", "y", "x")
    maps = {"soil_moisture": (dims, soil, {"units": "m3 m-3"}), "status": (dims, status)}
    return xr.Dataset(maps, {**GRID.coords(), "time": time}).chunk(time=1, y=5, x=6)


@pytest.fixture
def store(tmp_path):
    path = tmp_path / "m.zarr"
    write_zarr(synthetic_maps(), path, progress=False)
    return path


def files(path):
    return sorted(p for p in Path(path).rglob("*") if p.is_file())


def names(faults):
    return {fault.file for fault in faults}


def flipped(path, at):
    data = bytearray(path.read_bytes())
    data[at // 8] ^= 1 << at % 8
    path.write_bytes(data)


def test_what_was_written_is_found_whole(store, tmp_path):
    assert verify(store) == []
    write_zarr(synthetic_maps(), store, progress=False)  # nothing to do
    assert verify(store) == []
    grown = tmp_path / "grown.zarr"
    for days in (1, 2, 3):
        write_zarr(synthetic_maps(days), grown, progress=False)
        assert verify(grown) == []
    assert [p.read_bytes() for p in files(grown)] == [p.read_bytes() for p in files(store)]


def test_any_flipped_bit_is_found_and_named(store):
    whole = xr.open_zarr(store).load()
    places = [path for path in files(store) for _ in range(4)]
    for path in places:
        before = path.read_bytes()
        flipped(path, int(RNG.integers(8 * len(before))))
        assert str(path.relative_to(store)) in names(verify(store)), path
        if path.relative_to(store).parts[0] in whole.data_vars and "c" in path.relative_to(store).parts:
            try:
                read = xr.open_zarr(store)[path.relative_to(store).parts[0]].load()
            except Exception:
                pass  # loud is well
            else:
                xr.testing.assert_identical(read, whole[path.relative_to(store).parts[0]])
        path.write_bytes(before)
    assert verify(store) == []


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda p: p.unlink(), "it is gone"),
        (lambda p: p.write_bytes(b""), "it is empty"),
        (lambda p: p.write_bytes(p.read_bytes()[:-1]), "not those that were written"),
        (lambda p: p.write_bytes(p.read_bytes() + b"0"), "not those that were written"),
        (lambda p: p.chmod(0), "cannot be read") if os.geteuid() else (lambda p: p.unlink(), "it is gone"),
    ],
)
def test_harm_is_named(store, harm, said):
    for path in files(store):
        if path.name == "ledger":
            continue
        before = path.read_bytes()
        harm(path)
        faults = verify(store)
        assert names(faults) == {path.relative_to(store).as_posix()} and said in faults[0].what
        path.unlink(missing_ok=True)
        path.write_bytes(before)


def test_swapped_chunks_are_found_though_each_is_valid(store):
    one, other = (store / "soil_moisture/c" / at for at in ("0/0/0", "0/1/1"))
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)
    assert names(verify(store)) == {"soil_moisture/c/0/0/0", "soil_moisture/c/0/1/1"}


def test_foreign_files_and_chunks_are_found(store):
    (store / "soil_moisture/c/7").mkdir()
    for name in ("soil_moisture/c/7/0", "notes.txt", "smgrid/ledger.bak"):
        (store / name).write_text("not ours")
    assert {(f.file, f.what) for f in verify(store)} == {
        (name, "smgrid did not write it") for name in ("soil_moisture/c/7/0", "notes.txt", "smgrid/ledger.bak")
    }


def test_a_lost_or_shortened_ledger_vouches_for_nothing(store):
    ledger = store / "smgrid/ledger"
    text = ledger.read_text()
    chunk = next(line for line in text.split("\n") if line.startswith("status/c/1/0/0"))
    ledger.write_text(text.replace(chunk + "\n", ""))
    assert [str(f) for f in verify(store)] == ["status/c/1/0/0: the ledger does not vouch for it"]
    ledger.unlink()
    assert len(verify(store)) == len(files(store))


def test_damage_is_mended_by_writing_again(store):
    before = {p: hashlib.sha256(p.read_bytes()).digest() for p in files(store)}
    flipped(store / "status/c/1/0/0", 99)
    (store / "soil_moisture/c/0/0/0").unlink()
    assert len(verify(store)) == 2
    write_zarr(synthetic_maps(), store, progress=False)
    assert verify(store) == [] and {p: hashlib.sha256(p.read_bytes()).digest() for p in files(store)} == before


def test_damaged_metadata_is_said_by_whoever_opens_the_store(store):
    (store / "zarr.json").write_text((store / "zarr.json").read_text().replace("attributes", "attributms", 1))
    for attempt in (open_maps, lambda path: write_zarr(synthetic_maps(), path, progress=False)):
        with pytest.raises(CorruptStoreError, match=r"its metadata was changed since .*smgrid verify .*resume=False"):
            attempt(store)
    write_zarr(synthetic_maps(), store, resume=False, progress=False)
    assert verify(store) == []


def test_what_cannot_be_verified_says_why(tmp_path, store):
    with pytest.raises(FileNotFoundError, match="no maps at"):
        verify(tmp_path / "absent.zarr")
    synthetic_maps().to_zarr(tmp_path / "other.zarr", consolidated=False)
    with pytest.raises(ValueError, match="was not written by smgrid's write_zarr: there is no ledger"):
        verify(tmp_path / "other.zarr")
    store.rename(tmp_path / "half.zarr.partial")
    with pytest.raises(IncompleteStoreError, match="its write was stopped; call write_zarr again first"):
        verify(tmp_path / "half.zarr")


def test_from_a_shell(store, capsys):
    assert main(["verify", str(store)]) == 0
    assert capsys.readouterr().out == f"{store}: every byte is as written\n"
    for path in files(store):
        path.write_bytes(b"0")
    assert main(["verify", str(store)]) == 1
    out = capsys.readouterr().out
    assert "and " in out and out.endswith("files are not as they were written\n")
    assert main(["verify", str(store / "absent.zarr")]) == 3
