"""Keeps the book of what a store holds, and lets one writer at a time write in it.

The ledger is a text file, one line per chunk: the chunk's place, the SHA-256 of its stored bytes, the identity of the
block it came from, what was counted in it, and a check over the line, so that a line torn by a crash is no line. In a
run lines are appended in any order, and the last one of a chunk holds; a finished one is sorted: same work, same bytes.

A lock file beside the store names the writer's process and holds a token. Every thread or process that writes shows the
token first, under a shared lock on the ledger. To stop them all, the token is changed and the lock taken alone once:
after that nothing is in flight.
"""

from __future__ import annotations

import errno
import hashlib
import os
import socket
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

try:
    import fcntl
except ImportError:  # no such locks on Windows: there the process number alone speaks
    fcntl = None  # type: ignore[assignment]


class Line(NamedTuple):
    """One finished chunk: `key` is its path in the store."""

    key: str
    sha256: str
    identity: str = "-"  # of the block it came from; "-" where nobody can say
    counts: str = "-"

    def __str__(self) -> str:
        text = "\t".join(self)
        return f"{text}\t{_check(text)}"


def _check(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def read_lines(path: Path, offset: int = 0) -> dict[str, Line]:
    """The ledger's valid lines by key, from an offset on; torn or altered ones are passed over."""
    lines = {}
    with suppress(FileNotFoundError), open(path, "rb") as file:
        file.seek(offset)
        for text in file.read().decode("utf-8", errors="replace").split("\n"):
            body, _, check = text.rpartition("\t")
            if body and check == _check(body) and body.count("\t") == 3:
                line = Line(*body.split("\t"))
                lines[line.key] = line
    return lines


def damaged_lines(path: Path) -> int:
    """How many lines of a finished ledger are torn, altered, or not in their place."""
    try:
        text = path.read_text("utf-8", errors="replace")
    except FileNotFoundError:
        return 0
    lines = text.split("\n")
    good = [str(line) for line in sorted(read_lines(path).values())]
    return 0 if lines == [*good, ""] else max(1, len(lines) - 1 - len(good))


def finished(lines: Iterable[Line]) -> bytes:
    """The bytes of a finished ledger."""
    return "".join(f"{line}\n" for line in sorted(lines)).encode()


def count_appended(path: Path, offset: int) -> tuple[int, int]:
    """How many lines were appended after `offset`, and the new offset."""
    with open(path, "rb") as file:
        file.seek(offset)
        new = file.read()
    return new.count(b"\n") // 2, offset + len(new)


class WriterStopped(RuntimeError):
    """The run this task belongs to has ended; it must write no more."""


def settle(*paths: str | os.PathLike[str]) -> None:
    """Wait until files, and the names in folders, lie on the disk itself."""
    for path in paths:
        with suppress(PermissionError):  # Windows opens no folders, and needs no such call for their names
            file = os.open(path, os.O_RDONLY)
            try:
                os.fsync(file)
            finally:
                os.close(file)


@contextmanager
def writing(ledger: str, lock: str, token: str, durable: bool = False) -> Iterator[Callable[[Line], None]]:
    """While this is open the run that holds `token` may write; gives the function that appends a line.

    A durable line has reached the disk when the function returns.
    """
    file = os.open(ledger, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        _flock(file, "LOCK_SH")
        if _holder(lock)[2] != token:
            raise WriterStopped("this run was stopped")
        # the leading newline keeps a line whole where the one before it was torn
        yield lambda line: _write_all(file, f"\n{line}\n".encode(), durable)
    finally:
        os.close(file)


def _write_all(file: int, data: bytes, durable: bool) -> None:
    if os.write(file, data) != len(data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    if durable:
        os.fsync(file)


@contextmanager
def one_writer(target: Path, ledgers: Iterable[Path]) -> Iterator[tuple[str, str]]:
    """Hold the lock beside `target`; gives the lock's path and this run's token.

    Raises
    ------
    RuntimeError
        If another process holds it; a lock whose process is gone is taken over.
    """
    lock = f"{target}.lock"
    file, token = _take(lock, target), uuid.uuid4().hex
    try:
        _name_holder(file, token)
        for ledger in ledgers:
            _drain(ledger)  # tasks of a killed run may still be alive on other workers
        yield lock, token
    finally:
        _name_holder(file, "closed")
        for ledger in ledgers:
            _drain(ledger)
        with suppress(FileNotFoundError):
            os.unlink(lock)
        os.close(file)


def _take(lock: str, target: Path) -> int:
    while True:
        file = os.open(lock, os.O_RDWR | os.O_CREAT, 0o644)
        pid, host, _ = _holder(lock)
        here = socket.gethostname()
        try:
            alone = _flock(file, "LOCK_EX", "LOCK_NB")
        except BlockingIOError:
            alone = None
        if alone is None or (pid and (host != here or (alone is False and _alive(pid)))):
            os.close(file)
            raise RuntimeError(
                f"{target} is being written by process {pid or '?'} on host {host or here}: wait until it is done"
                + ("" if host in ("", here) else f"; if that host is gone, delete {lock}")
            )
        with suppress(FileNotFoundError):  # the holder may have removed the file before we got it: then once more
            if os.path.samestat(os.fstat(file), os.stat(lock)):
                return file
        os.close(file)


def _holder(lock: str) -> tuple[int, str, str]:
    """Process, host and token of a lock file; (0, "", "") where it names none."""
    try:
        pid, host, token = Path(lock).read_text().split()
        return int(pid), host, token
    except (OSError, ValueError):
        return 0, "", ""


def _name_holder(file: int, token: str) -> None:
    text = f"{os.getpid()} {socket.gethostname()} {token}\n".encode()
    os.ftruncate(file, 0)
    os.pwrite(file, text, 0)


def _drain(ledger: Path) -> None:
    """Wait until no task is inside `writing`; those that come later find another token."""
    with suppress(FileNotFoundError), open(ledger, "rb+") as file:
        _flock(file.fileno(), "LOCK_EX")


def _flock(file: int, *flags: str) -> bool:
    """Lock a file; False where the file system has no locks."""
    if fcntl is None:
        return False
    operation: Any = 0
    for flag in flags:
        operation |= getattr(fcntl, flag)
    try:
        fcntl.flock(file, operation)
    except BlockingIOError:
        raise
    except OSError:
        return False
    return True


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
