"""Several calls at once in threads, ended together: an interrupt or a failure in one stops the others.

Python delivers Ctrl-C to the main thread only. Work in the threads of :func:`together` asks :func:`stopped` where
it waits (``command.run`` does), also through several levels of threads.
"""

from __future__ import annotations

import contextvars
import threading
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

Item = TypeVar("Item")
Result = TypeVar("Result")

_STOPS: contextvars.ContextVar[tuple[threading.Event, ...]] = contextvars.ContextVar("stops", default=())


def stopped() -> bool:
    """Whether the work that this thread is part of was given up."""
    return any(stop.is_set() for stop in _STOPS.get())


def together(call: Callable[[Item], Result], items: Iterable[Item], *, at_once: int) -> list[Result]:
    """The results of ``call`` for each item, in order, at most ``at_once`` running.

    The first failure is raised when all threads have ended; those still at work are told to stop.
    """
    chosen = list(items)
    if len(chosen) < 2:
        return [call(item) for item in chosen]
    stop = threading.Event()

    def one(item: Item) -> Result:
        _STOPS.set((*_STOPS.get(), stop))
        return call(item)

    with ThreadPoolExecutor(at_once, thread_name_prefix="together") as pool:
        futures = [pool.submit(contextvars.copy_context().run, one, item) for item in chosen]
        try:
            _await(futures)
        except BaseException:
            stop.set()
            for future in futures:
                future.cancel()
            raise
    return [future.result() for future in futures]


def _await(futures: list[Future[Result]]) -> None:
    while True:
        done, pending = wait(futures, timeout=0.2, return_when=FIRST_EXCEPTION)
        for future in futures:
            if future in done:
                future.result()
        if not pending:
            return
        if stopped():
            raise KeyboardInterrupt
