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
def shown(
    progress: bool | None, title: str, total: int, done: Callable[[], int], share: Callable[[], float] | None = None
) -> Iterator[None]:
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
    share : callable, optional
        Gives the share of all work that is done, 0 to 1, where the pieces are unequal; otherwise `done` of `total`.
    """
    part = share or (lambda: done() / max(1, total))
    if progress is False:
        yield
        return
    bar = progress or sys.stderr.isatty() or "ipykernel" in sys.modules
    stop = threading.Event()
    with _bar(title) if bar else _log_lines(title, total, done) as say:

        def watch() -> None:
            while not stop.wait(0.2 if bar else 60):
                say(part())
            if bar:
                say(part())

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            stop.set()
            watcher.join()


@contextmanager
def _bar(title: str) -> Iterator[Callable[[float], None]]:
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True)) as bars:
        task = bars.add_task(title, total=1.0)
        yield lambda part: bars.update(task, completed=part)


@contextmanager
def _log_lines(title: str, total: int, done: Callable[[], int]) -> Iterator[Callable[[float], None]]:
    begun = time.monotonic()

    def say(part: float) -> None:
        spent = time.monotonic() - begun
        rest = f", about {spent * (1 / part - 1):.0f} s to go" if part > 0 else ""
        log.info("%s: %d of %d after %.0f s%s", title, done(), total, spent, rest)

    yield say
