"""An event loop of its own for what the reader and solver of channels does, ended with the thread that asked."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any, TypeVar

from flowkiln._base import parallel
from flowkiln.envs.errors import LockTimeout

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from flowkiln.envs.condaquestion import CondaQuestion, CondaSolver

Result = TypeVar("Result")


def run(
    work: Coroutine[Any, Any, Result], solver: CondaSolver, question: CondaQuestion, *, tick: float = 5.0
) -> Result:
    """The result of ``work`` on an event loop of its own, whatever the caller's thread runs; ended with it."""
    loop = asyncio.new_event_loop()
    task = loop.create_task(asyncio.wait_for(work, solver.limits.total))
    outcome: list[Result | BaseException] = []

    def turn() -> None:
        try:
            outcome.append(loop.run_until_complete(task))
        # Whatever went wrong in the thread is raised in the caller's.
        except BaseException as error:  # noqa: BLE001
            outcome.append(error)
        finally:
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()

    thread = threading.Thread(target=turn, name="conda-solve", daemon=True)
    thread.start()
    waited = 0.0
    try:
        while thread.is_alive():
            thread.join(0.1)
            waited += 0.1
            if parallel.stopped():
                raise KeyboardInterrupt  # noqa: TRY301  ends the work as an interrupt of this thread does
            if waited % tick < 0.1 and waited > tick:
                solver.reporter.say(f"locking {question.label}: conda packages, {waited:.0f} s")
    except BaseException:
        if thread.is_alive():
            loop.call_soon_threadsafe(task.cancel)
            thread.join(2.0)
        raise
    (result,) = outcome
    if isinstance(result, TimeoutError):
        message = f"environment {question.label}: conda packages not chosen after {solver.limits.total:.0f} s"
        hint = f"Asked were {solver.plan.shown}. Raise the limit with FLOWKILN_LOCK_TIMEOUT=600 (`lock-timeout`)."
        raise LockTimeout(message, hint=hint, step=next(iter(question.steps), None), retryable=True)
    if isinstance(result, BaseException):
        raise result
    return result
