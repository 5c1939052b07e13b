"""One function over many items on a few threads, for work that releases the interpreter: files, hashes, zlib."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Item = TypeVar("Item")
Result = TypeVar("Result")


def spread(
    function: Callable[[Item], Result], items: Sequence[Item], *, threads: int | None = None
) -> list[Result]:
    """``function`` of each of ``items``, in order, by ``threads`` (default: one per processor core, at most 8).

    The caller's thread works too. The first error ends the others after their present item and is raised.
    """
    results: list[Any] = [None] * len(items)
    todo = iter(range(len(items)))
    errors: list[BaseException] = []

    def work() -> None:
        # next() on a range iterator is one step of the interpreter: no two threads get one item.
        for position in todo:
            if errors:
                return
            try:
                results[position] = function(items[position])
            # Whatever went wrong in a thread is raised in the caller's.
            except BaseException as error:  # noqa: BLE001
                errors.append(error)

    count = min(threads or min(8, os.cpu_count() or 1), len(items))
    others = [threading.Thread(target=work, daemon=True) for _ in range(count - 1)]
    for thread in others:
        thread.start()
    work()
    for thread in others:
        thread.join()
    if errors:
        raise errors[0]
    return results
