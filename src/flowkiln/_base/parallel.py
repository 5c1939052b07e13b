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
    from types import TracebackType
    from typing import Self

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


class Crew:
    """Threads for calls that are found one after the other. Leaving it waits for all of them, or gives them up.

    The first failure is raised when the crew is left, or by ``add`` if that comes earlier; then, as after an error
    in the ``with`` block, those still at work are told to stop and the others never begin.
    """

    def __init__(self, at_once: int) -> None:
        self._pool = ThreadPoolExecutor(at_once, thread_name_prefix="crew")
        self._stop = threading.Event()
        self._context = contextvars.copy_context()
        self._futures: list[Future[object]] = []

    def add(self, call: Callable[[], object]) -> None:
        """Has ``call`` made by the next free thread. Any thread may add."""
        for future in list(self._futures):
            if future.done():
                future.result()
        self._futures.append(self._pool.submit(self._context.copy().run, self._one, call))

    def _one(self, call: Callable[[], object]) -> None:
        _STOPS.set((*_STOPS.get(), self._stop))
        call()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        done = False
        try:
            if kind is None:
                _await(self._futures)
                done = True
        finally:
            if not done:
                self._stop.set()
            self._pool.shutdown(cancel_futures=True)


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
