"""The warm process of one environment: started once with the flow's script, then forked for each attempt.

It runs the flow file up to the flow's constructor, imports what the steps import, and waits for orders of the
launcher. Where forking is unsafe it starts a fresh process per attempt with the same command instead. It ends,
and ends its attempts, when the launcher's socket closes.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import json
import os
import resource
import select
import signal
import socket
import sys
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from flowkiln.executor import child, isolation
from flowkiln.executor.channel import Channel, Closed, pair
from flowkiln.store.folder import FolderStore

if TYPE_CHECKING:
    from collections.abc import Callable

    from flowkiln._base.json import JSONObject
    from flowkiln.executor.child import Perform

WORKER_VARIABLE = "FLOWKILN_WORKER"
_LAST_WORDS = 2.0
"""Seconds between SIGTERM and SIGKILL for attempts whose launcher has died."""
_PR_SET_PDEATHSIG = 1


def serve(perform: Perform, preload: Callable[[], None]) -> NoReturn:
    """Serves the launcher whose socket ``FLOWKILN_WORKER`` names until it closes; never returns.

    ``perform`` runs one attempt in a process of its own and returns the user's half of the outcome; ``preload``
    imports what the steps import, once, where attempts are forked. Its errors are ignored: the step that needs
    the module meets them again.
    """
    channel = Channel(_inherited_socket())
    message, descriptors = channel.receive_one()
    hello: JSONObject = json.loads(Path(message["hello"]).read_bytes())
    child.restore_signals()
    faulthandler.enable()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, ValueError):  # replaced or closed by the flow file
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")  # type: ignore[union-attr]
    store = FolderStore(Path(hello["info"]["store"]))
    if "order" in message:
        _serve_one(channel, message["order"], perform, store, hello)
    _Template(channel, hello, perform, store).run(preload)
    assert not descriptors
    sys.exit(0)


def _inherited_socket() -> socket.socket:
    sock = socket.socket(fileno=int(os.environ.pop(WORKER_VARIABLE)))
    sock.set_inheritable(False)
    return sock


def _serve_one(
    channel: Channel, order: JSONObject, perform: Perform, store: FolderStore, hello: JSONObject
) -> NoReturn:
    """Performs the one attempt that this process was started for."""
    with contextlib.suppress(PermissionError):  # already a session's leader
        os.setsid()
    _end_with_parent(_load_prctl(), order["parent"])
    with contextlib.suppress(Closed):  # the template has just died: so will this process
        channel.send({"began": True})
    channel.close()
    child.perform_attempt(order, perform, store, hello["info"])


class _Running:
    """An attempt under way: the id of its order and whether user code may have begun."""

    __slots__ = ("began", "order")

    def __init__(self, order: int, *, began: bool) -> None:
        self.order = order
        self.began = began


class _Template:
    """The serving loop. ``_running`` has its attempts by pid, ``_spawned`` those yet to begin by descriptor."""

    def __init__(self, channel: Channel, hello: JSONObject, perform: Perform, store: FolderStore) -> None:
        self._channel = channel
        self._hello = hello
        self._perform = perform
        self._store = store
        self._forks = False
        self._running: dict[int, _Running] = {}
        self._spawned: dict[int, tuple[_Running, socket.socket]] = {}
        self._poll = select.poll()
        self._doomed: set[int] = set()
        self._prctl = _load_prctl()
        self._old_handlers: dict[int, Any] = {}
        self._wake, self._woken = os.pipe()
        self._writers: list[child.Writer] = []

    def run(self, preload: Callable[[], None]) -> None:
        """Prepares, reports and serves until the launcher's socket closes; then ends every attempt."""
        reason = self._prepare(preload)
        self._catch_signals()
        self._poll.register(self._channel, select.POLLIN)
        self._poll.register(self._wake, select.POLLIN)
        try:
            self._channel.send(
                {
                    "ready": True,
                    "isolation": "fork" if self._forks else "spawn",
                    "reason": reason,
                    "python": ".".join(map(str, sys.version_info[:3])),
                    "memory": _bytes_of(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss),
                }
            )
            while True:
                for descriptor, _ in self._poll.poll():
                    if descriptor == self._wake:
                        os.read(self._wake, 4096)
                        self._reap()
                    elif descriptor == self._channel.fileno():
                        self._obey()
                    elif descriptor in self._spawned:
                        self._hear(descriptor)
        except Closed:
            self._end_all()
            import shutil  # noqa: PLC0415  costs as much as a task, and is needed once, at the end

            shutil.rmtree(self._hello["work"], ignore_errors=True)
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            os.killpg(0, signal.SIGTERM)  # what importing the step's modules started; attempts have own groups
            os._exit(0)

    def _prepare(self, preload: Callable[[], None]) -> str | None:
        """Imports and freezes where attempts are to be forked; answers why not, otherwise."""
        wanted = self._hello["isolation"]
        reason = "asked for" if wanted == "spawn" else isolation.never_forks() if wanted == "auto" else None
        if reason is None:
            gc.disable()
            with contextlib.suppress(Exception, SystemExit):  # the step that needs the module will meet it again
                preload()
            own = {self._channel.fileno()}
            reason = isolation.unsafe_to_fork(own) if wanted == "auto" else None
            gc.enable()
        self._forks = reason is None
        if self._forks:
            # Python warns of native threads, which were examined above; the user's filters may make it an error.
            warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"flowkiln\.executor\.template")
            gc.collect()
            self._writers = child.open_writers()
            gc.freeze()
        else:
            os.chdir(self._hello["user_folder"])  # the flow file may have moved, and will again
        return reason

    def _catch_signals(self) -> None:
        for descriptor in (self._wake, self._woken):
            os.set_blocking(descriptor, False)
        signal.set_wakeup_fd(self._woken, warn_on_full_buffer=False)
        self._old_handlers[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, lambda _signal, _frame: None)
        self._old_handlers[signal.SIGINT] = signal.signal(signal.SIGINT, signal.SIG_IGN)

    def _obey(self) -> None:
        for message, descriptors in self._channel.receive():
            if "kill" in message:
                self._kill(message["kill"], message["signal"])
                continue
            order = message["order"]
            running = _Running(order["id"], began=self._forks)
            try:
                pid = self._fork(order, descriptors) if self._forks else self._spawn(order, descriptors, running)
            except OSError as error:
                self._channel.send({"refused": running.order, "text": str(error)})
            else:
                self._running[pid] = running
                self._channel.send({"started": running.order, "pid": pid, "began": running.began})
            finally:
                for descriptor in descriptors:
                    os.close(descriptor)

    def _fork(self, order: JSONObject, descriptors: list[int]) -> int:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):  # closed or replaced by the flow file
                stream.flush()
        parent = os.getpid()
        pid = os.fork()
        if pid:
            return pid
        try:
            self._become_attempt(parent, descriptors)
            child.perform_attempt(order, self._perform, self._store, self._hello["info"], self._writers)
        finally:
            os._exit(1)

    def _become_attempt(self, parent: int, descriptors: list[int]) -> None:
        """Lets go, in a forked process, of all that belongs to the template."""
        child.detach(*descriptors)
        _end_with_parent(self._prctl, parent)
        signal.set_wakeup_fd(-1)
        for number, handler in self._old_handlers.items():
            signal.signal(number, handler)
        self._channel.close()
        os.close(self._wake)
        os.close(self._woken)

    def _spawn(self, order: JSONObject, descriptors: list[int], running: _Running) -> int:
        ours, theirs = pair()
        theirs.set_inheritable(True)
        command: list[str] = self._hello["command"]
        environ = {**self._hello["environ"], WORKER_VARIABLE: str(theirs.fileno())}
        try:
            pid = os.posix_spawn(
                command[0],
                command,
                environ,
                file_actions=[
                    (os.POSIX_SPAWN_DUP2, source, number) for number, source in enumerate(descriptors, 1)
                ],
                setsigdef=[signal.SIGINT, signal.SIGCHLD],
            )
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        order["parent"] = os.getpid()
        with contextlib.suppress(Closed):  # it has died at once: waitpid will tell
            Channel(ours).send({"hello": self._hello["path"], "order": order})
        self._spawned[ours.fileno()] = (running, ours)
        self._poll.register(ours, select.POLLIN)
        return pid

    def _hear(self, descriptor: int) -> None:
        """Takes the one thing that a spawned process says: that it begins."""
        running, ours = self._spawned.pop(descriptor)
        self._poll.unregister(descriptor)
        with ours:
            try:
                running.began = bool(ours.recv(1, socket.MSG_DONTWAIT))
            except (BlockingIOError, ConnectionResetError):
                return
        if running.began:
            self._channel.send({"began": running.order})

    def _kill(self, wanted: int, number: int) -> None:
        for pid, running in self._running.items():
            if running.order == wanted:
                self._doomed.add(pid)
                _kill_group(pid, number)

    def _reap(self) -> None:
        for pid in list(self._running):
            self._end_group_of(pid)
            ended, status, usage = os.wait4(pid, os.WNOHANG)
            if ended:
                self._doomed.discard(pid)
                running = self._running.pop(pid)
                for descriptor in [key for key, (one, _) in self._spawned.items() if one is running]:
                    self._hear(descriptor)
                self._channel.send(
                    {
                        "ended": running.order,
                        "status": status,
                        "max_rss": _bytes_of(usage.ru_maxrss),
                        "user_us": int(usage.ru_utime * 1e6),
                        "system_us": int(usage.ru_stime * 1e6),
                    }
                )

    def _end_group_of(self, pid: int) -> None:
        """Ends what an attempt that ran out of time or was cancelled leaves behind, while its pid is not free."""
        if not hasattr(os, "waitid"):  # macOS before Python 3.13
            return
        ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if ended is None:
            return
        timed_out = ended.si_code == os.CLD_EXITED and ended.si_status == child.TIMED_OUT
        if timed_out or pid in self._doomed:
            _kill_group(pid, signal.SIGKILL)

    def _end_all(self) -> None:
        """Ends every attempt with all of its process group: politely, then not."""
        limit = time.monotonic() + _LAST_WORDS
        for number in (signal.SIGTERM, signal.SIGKILL):
            for pid in self._running:
                _kill_group(pid, number)
            while self._running and time.monotonic() < limit:
                for pid in list(self._running):
                    if os.waitpid(pid, os.WNOHANG)[0]:
                        del self._running[pid]
                        _kill_group(pid, signal.SIGKILL)
                time.sleep(0.01)


def _kill_group(pid: int, number: int) -> None:
    """Signals the attempt's process group, or the process while it has not yet made its group."""
    try:
        os.killpg(pid, number)
    except ProcessLookupError:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
    except PermissionError:
        pass  # only processes of other users are left in the group


def _load_prctl() -> Callable[..., int] | None:
    """Linux's ``prctl``, loaded before the first fork; None elsewhere and without ``ctypes``."""
    if sys.platform != "linux":
        return None
    try:
        import ctypes  # noqa: PLC0415  an interpreter may lack it

        prctl: Callable[..., int] = ctypes.CDLL(None).prctl
    except (ImportError, OSError, AttributeError):
        return None
    return prctl


def _end_with_parent(prctl: Callable[..., int] | None, parent: int) -> None:
    """Lets the kernel end this process when the template dies, however it dies."""
    if prctl is not None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def _bytes_of(max_rss: int) -> int:
    return max_rss if sys.platform == "darwin" else max_rss * 1024
