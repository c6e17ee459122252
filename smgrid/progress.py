"""Shows how far a long job is: a bar where someone watches, a log line a minute elsewhere."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

log = logging.getLogger("smgrid")


@contextmanager
def shown(progress: bool | None, title: str, total: int, done: Callable[[], int]) -> Iterator[None]:
    """Show how far a job is while the body runs.

    Parameters
    ----------
    progress : bool, optional
        True shows a bar, False nothing; None a bar in a terminal or notebook, a log line a minute otherwise.
    title : str
    total : int
        How much there is to do.
    done : callable
        Gives how much is done; asked from a thread of its own, so it knows of work on any scheduler.
    """
    if progress is False:
        yield
        return
    bar = progress or sys.stderr.isatty() or "ipykernel" in sys.modules
    stop = threading.Event()
    with _bar(title, total) if bar else _log_lines(title, total) as say:

        def watch() -> None:
            while not stop.wait(0.2 if bar else 60):
                say(done())
            if bar:
                say(done())

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            stop.set()
            watcher.join()


@contextmanager
def _bar(title: str, total: int) -> Iterator[Callable[[int], None]]:
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True)) as bars:
        task = bars.add_task(title, total=total)
        yield lambda done: bars.update(task, completed=done)


@contextmanager
def _log_lines(title: str, total: int) -> Iterator[Callable[[int], None]]:
    begun = time.monotonic()

    def say(done: int) -> None:
        spent = time.monotonic() - begun
        rest = f", about {spent * (total - done) / done:.0f} s to go" if done else ""
        log.info("%s: %d of %d after %.0f s%s", title, done, total, spent, rest)

    yield say
