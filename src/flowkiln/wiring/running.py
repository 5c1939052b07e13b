"""From a flow class and a command line to a run that has ended."""

from __future__ import annotations

import getpass
import socket
import sys
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast

from flowkiln._base.errors import FlowkilnError
from flowkiln.executor import records
from flowkiln.executor.environ import cores
from flowkiln.executor.plan import RunPlan
from flowkiln.flow import checks, containers, package, planning
from flowkiln.flow.decospecs import from_spec
from flowkiln.flow.marks import declares_environment
from flowkiln.flow.parameters import evaluate
from flowkiln.store import artifacts
from flowkiln.store.folder import FolderStore
from flowkiln.wiring.backends import backend_for, ending_backend, prewarm, require_engine
from flowkiln.wiring.unmanaged import unmanaged

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from flowkiln._base.json import JSONObject
    from flowkiln._base.report import Reporter
    from flowkiln._base.settings import Settings
    from flowkiln.envs.lock import EnvLock
    from flowkiln.executor.backend import Backend
    from flowkiln.executor.driver import Driver
    from flowkiln.executor.ending import RunEnd
    from flowkiln.executor.plan import ImageRef, Prefix
    from flowkiln.executor.progress import Observer
    from flowkiln.flow.graph import Graph
    from flowkiln.flow.marks import Decorator
    from flowkiln.flow.spec import FlowSpec
    from flowkiln.store.logs import LogLine
    from flowkiln.store.runs import Run
    from flowkiln.wiring.containers import Prepared
    from flowkiln.wiring.locks import Request
    from flowkiln.wiring.policy import Policy


class Watcher(Protocol):
    """An observer with an end."""

    def emit(self, event: Any) -> None:
        """Takes one event."""

    def close(self) -> None:
        """Ends what it shows."""


def _nobody_asks(_run: str) -> None:
    """Used where nobody wants to know the run's id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A run as it was asked for. ``given`` maps parameter names to texts; ``opened`` is told the run's id.

    ``verbose`` keeps flowkiln's own frames in tracebacks of steps.
    """

    flow: type[FlowSpec]
    file: Path
    policy: Policy
    given: dict[str, str]
    decospecs: tuple[str, ...] = ()
    suffixes: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    verbose: bool = False
    opened: Callable[[str], None] = _nobody_asks


def run(
    order: Order,
    settings: Settings,
    reporter: Reporter,
    watchers: Callable[[RunPlan], Sequence[Watcher]],
) -> RunEnd:
    """Runs the flow to its end. ``watchers`` makes those who are told, once the plan is known.

    Raises the errors of the flow's text, of parameters, locks, trees and store before the run opens.
    """
    extra = [from_spec(text) for text in order.decospecs]
    graph = checks.require(order.flow, extra)
    values = evaluate(order.flow, order.given)
    store = FolderStore(settings.store)
    store.sweep()
    places, locks = _places(order, graph, extra, settings, reporter, store)
    code = package.snapshot(order.file, store.blobs, order.suffixes, beside=places.code)
    plan = planning.plan(
        graph, places.prefixes, places.images, script=order.file.name, code=code, options=_options(order, settings)
    )
    stored = {name: artifacts.save(name, value, store.blobs).to_json() for name, value in values.items()}
    about = {**_about(), "locks": locks}
    store.sweep()
    with _closing(watchers(plan)) as observers, _leased(plan):
        number = records.open_run(store.records, plan, stored, about)
        with _closed_if_not_driven(plan, number, store):
            order.opened(number)
            driver = _driver(plan, number, store, settings, observers, verbose=order.verbose)
        return _indexed(driver, plan.flow, number, store)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Places:
    """What each step runs in: a prefix, and an image where that lies in one; files that travel as code."""

    prefixes: dict[str, Prefix]
    images: dict[str, ImageRef]
    code: dict[str, tuple[Path, int]]


def _places(
    order: Order,
    graph: Graph,
    extra: Sequence[Decorator],
    settings: Settings,
    reporter: Reporter,
    store: FolderStore,
) -> tuple[_Places, dict[str, JSONObject]]:
    """Where each step runs, and its lock for the record. Flows that declare no environment load none of that."""
    wanted: dict[str, Request | None] = dict.fromkeys(graph.nodes)
    locks: dict[str, EnvLock | None] = dict.fromkeys(graph.nodes)
    record: dict[str, JSONObject] = {}
    code: dict[str, tuple[Path, int]] = {}
    if declares_environment(order.flow, extra):
        from flowkiln.wiring import requests

        wanted = requests.of_flow(order.flow, graph, settings)
        code = requests.code_of_steps(wanted)
        locks = requests.locks_of_steps(wanted, settings, reporter, order.policy)
        requests.check_code(code, locks)
    ready = _contained(graph, locks, wanted, settings, reporter, order.policy)
    prefixes = {name: one.prefix for name, one in ready.items()}
    images = {name: one.image for name, one in ready.items()}
    pins = {name: one.pin for name, one in ready.items() if one.pin is not None}
    prefixes |= _host_prefixes(
        {name: lock for name, lock in locks.items() if name not in images}, settings, reporter
    )
    if any(locks.values()):
        from flowkiln.wiring import requests

        record = requests.record_of_steps(wanted, locks, store.blobs, pins)
    return _Places(prefixes=prefixes, images=images, code=code), record


def _contained(
    graph: Graph,
    locks: dict[str, EnvLock | None],
    wanted: dict[str, Request | None],
    settings: Settings,
    reporter: Reporter,
    policy: Policy,
) -> dict[str, Prepared]:
    """What each step that runs in a container runs in; flows without one load nothing of containers."""
    names = [name for name, node in graph.nodes.items() if containers.wanted(node)]
    if not names:
        return {}
    from flowkiln.wiring import containers as preparing

    asked = {
        name: preparing.Wanted(lock=locks[name], request=wanted[name], base=containers.base_of(graph.nodes[name]))
        for name in names
    }
    return preparing.prepare(asked, settings, reporter, policy)


def _host_prefixes(locks: dict[str, EnvLock | None], settings: Settings, reporter: Reporter) -> dict[str, Prefix]:
    """The prefix of each step that runs as a process of this machine."""
    if not any(locks.values()):
        return dict.fromkeys(locks, unmanaged())
    from flowkiln.wiring import trees

    return trees.prefixes(locks, settings, reporter)


def attach(
    found: Run,
    store: FolderStore,
    settings: Settings,
    watchers: Callable[[RunPlan], Sequence[Watcher]],
    *,
    verbose: bool = False,
) -> RunEnd:
    """Goes on with a run whose launcher is gone, to its end.

    Raises ``RunEnded``, ``RunHasDriver`` and the errors of an engine that does not answer.
    """
    from flowkiln.executor import attach as attaching

    attaching.require_free(found.flow, found.run, store)  # before anybody is told that it goes on
    driver: Driver

    def on_line(task: int, attempt: int, line: LogLine) -> None:
        driver.log(task, attempt, line)

    def backend(plan: RunPlan) -> Backend:
        require_engine(plan)
        return backend_for(plan, found.run, store, settings, on_line, verbose=verbose, inherits=True)

    plan = RunPlan.from_json(found.opened["plan"])
    with _closing(watchers(plan)) as observers, _leased(plan):
        driver = attaching.attach(found.flow, found.run, store, backend, observers)
        return _indexed(driver, found.flow, found.run, store)


def cancel(found: Run, store: FolderStore, settings: Settings, *, wait: float) -> RunEnd | None:
    """Ends a run wherever it is driven, with all containers of it; None if its driver did not confirm in time.

    Raises ``RunEnded``, and the errors of an engine that its containers are with and that does not answer.
    """
    from flowkiln.executor import attach as attaching

    def backend(plan: RunPlan) -> Backend | None:
        require_engine(plan)
        return ending_backend(plan, found.run, store, settings)

    return attaching.cancel(found.flow, found.run, store, make_backend=backend, wait=wait)


@contextmanager
def _closing(watchers: Sequence[Watcher]) -> Iterator[Sequence[Watcher]]:
    try:
        yield watchers
    finally:
        for one in watchers:
            one.close()


@contextmanager
def _leased(plan: RunPlan) -> Iterator[None]:
    managed = [step.prefix for step in plan.steps if step.prefix.managed and step.image is None]
    if not managed:
        yield
        return
    from flowkiln.wiring import trees

    with trees.leased(managed):
        yield


def _options(order: Order, settings: Settings) -> planning.Options:
    return planning.Options(
        user_folder=str(Path.cwd()),
        max_workers=settings.count("max-workers") or cores(),
        max_splits=settings.count("max-num-splits") or 100_000,
        isolation=cast("Literal['auto', 'fork', 'spawn']", settings.text("isolation")),
        verify=cast("Literal['auto', 'digest', 'stat', 'full']", settings.text("verify-env")),
        tags=order.tags,
    )


def _about() -> dict[str, Any]:
    about: dict[str, Any] = {"host": socket.gethostname(), "command": list(sys.argv)}
    with suppress(OSError, KeyError):
        about["user"] = getpass.getuser()
    return about


@contextmanager
def _closed_if_not_driven(plan: RunPlan, number: str, store: FolderStore) -> Iterator[None]:
    """Closes a run that was opened for nothing: without a driver it would seem to run for ever."""
    try:
        yield
    except BaseException:
        from flowkiln.store import runs

        with suppress(OSError, FlowkilnError):  # what went wrong first is what is told
            runs.close_run(store.records, plan.flow, number, {"status": "failed", "failure": None, "counts": {}})
        raise


def _indexed(driver: Driver, flow: str, number: str, store: FolderStore) -> RunEnd:
    """Drives the run; its opening and end are noted in the index, the former while the first template starts."""
    from flowkiln.store import index

    index.note(store.records, store.root, flow, number)
    end = driver.run()
    index.note(store.records, store.root, flow, number)
    return end


def _driver(
    plan: RunPlan,
    number: str,
    store: FolderStore,
    settings: Settings,
    observers: Sequence[Observer],
    *,
    verbose: bool,
) -> Driver:
    driver: Driver

    def on_line(task: int, attempt: int, line: LogLine) -> None:
        driver.log(task, attempt, line)

    backend = backend_for(plan, number, store, settings, on_line, verbose=verbose)
    try:
        prewarm(backend, plan)  # it starts while the driver is loaded
        from flowkiln.executor.driver import Driver

        driver = Driver(plan, number, store, backend, observers)
    except BaseException:
        backend.close()
        raise
    return driver
