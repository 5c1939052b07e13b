"""The supervisor of one attempt in its container: proves the environment, starts the step's process, seals.

It is the container's first process and never imports user code. Whoever waits for a task waits for this start, so
that the step's process is started first, and what only watching and sealing need is imported while that one loads.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
from typing import TYPE_CHECKING, Any, NoReturn

from flowkiln.executor import activation, marker

if TYPE_CHECKING:
    from types import FrameType

    from flowkiln._base.json import JSONObject
    from flowkiln.executor.guard import Guard
    from flowkiln.executor.outcome import Outcome

TASK_FILE = "/mnt/flowkiln/task/task.json"
"""What is to be done, written by the launcher."""
SEALED, FAILED, MISMATCH, LEASE, STORE = 0, 1, 17, 18, 19
_ENVIRONMENT_MISMATCH = "ENV050"
_TIMED_OUT = 124
"""The child's exit code after its time has run out; see ``child``."""


class Leave(Exception):
    """The supervisor ends with ``code``; the text goes to its standard error."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


def main() -> NoReturn:
    """Performs the attempt that the task file describes and ends this process with one of the codes above."""
    try:
        with open(sys.argv[1] if len(sys.argv) > 1 else TASK_FILE, "rb") as stream:
            task: JSONObject = json.loads(stream.read())
        code = Supervisor(task).run()
    except Leave as leave:
        code = leave.code
        _say(str(leave))
    except BaseException:  # noqa: BLE001  the last frame of a container: say whatever happened
        import traceback  # noqa: PLC0415  only where something is wrong with this program

        _say(traceback.format_exc())
        code = STORE
    os._exit(code)


class Signals:
    """The signals that a supervisor heeds, as a descriptor to wait on and the reasons to end that came with them.

    SIGINT is the launcher's word for cancelling. SIGTERM comes from whoever stops containers: an engine that
    restarts, a machine that shuts down.
    """

    def __init__(self) -> None:
        self.descriptor, self._woken = os.pipe()
        for descriptor in (self.descriptor, self._woken):
            os.set_blocking(descriptor, False)
        self.asked: str | None = None
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD):
            signal.signal(number, self._came)
        signal.set_wakeup_fd(self._woken, warn_on_full_buffer=False)

    def _came(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002  a handler's signature
        if number != signal.SIGCHLD and self.asked is None:
            self.asked = "cancelled" if number == signal.SIGINT else "interrupted"


class Child:
    """The step's process, its order waiting for it; ``stdout`` and ``stderr`` are the read ends of its output."""

    def __init__(self, task: JSONObject) -> None:
        self.channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self.stdout, out = os.pipe()
        self.stderr, error = os.pipe()
        theirs.set_inheritable(True)
        environ = {**task["environ"], "FLOWKILN_WORKER": str(theirs.fileno())}
        nothing = os.open(os.devnull, os.O_RDONLY)
        command = [one or sys.executable for one in task["command"]]
        self.pid = os.posix_spawn(
            command[0],
            command,
            environ,
            file_actions=[
                (os.POSIX_SPAWN_DUP2, source, number) for number, source in enumerate((nothing, out, error))
            ],
            setsigdef=[signal.SIGINT, signal.SIGTERM, signal.SIGCHLD],
        )
        for descriptor in (nothing, out, error):
            os.close(descriptor)
        theirs.close()
        order = {
            "id": 0,
            "assignment": task["assignment"],
            "spool": task["spool"],
            "timeout": task["step"]["timeout"],
            "parent": os.getpid(),
        }
        body = json.dumps({"hello": task["path"], "order": order}).encode()
        self.channel.sendall(len(body).to_bytes(4, "big") + body)

    def wait(self, *, doomed: bool) -> tuple[int, Any] | None:
        """The child's wait status and usage once it has ended; None before. Buries every other process too.

        ``doomed`` says that the child is being ended: then its group goes with it, while its number is not free.
        """
        while True:
            try:
                ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return None
            if ended is None:
                return None
            if ended.si_pid == self.pid:
                if doomed or (ended.si_code == os.CLD_EXITED and ended.si_status == _TIMED_OUT):
                    self.signal(signal.SIGKILL)
                _, status, usage = os.wait4(self.pid, 0)
                return status, usage
            os.waitpid(ended.si_pid, 0)

    def signal(self, number: int) -> None:
        """Signals the child's process group, or the child while it has not yet made its group."""
        try:
            os.killpg(self.pid, number)
        except ProcessLookupError:
            try:
                os.kill(self.pid, number)
            except ProcessLookupError:
                return
        except PermissionError:
            return


class Supervisor:
    """Performs one task document."""

    def __init__(self, task: JSONObject) -> None:
        self._task = task
        self._started = time.time_ns() // 1000
        self._signals = Signals()

    def run(self) -> int:
        """The exit code, once the attempt's outcome stands in the store. Raises ``Leave``."""
        task = self._task
        self._check_lease()
        proof = task["proof"]
        try:
            if proof["env_id"] is not None:
                marker.verify(task["root"], proof["env_id"], proof["tree_digest"], proof["level"])
        except marker.Mismatch as mismatch:
            return self._refuse(str(mismatch))
        try:
            self._activate()
            os.chdir(task["info"]["code_dir"])
            child = Child(task)
        except (activation.ActivationError, OSError) as error:
            return self._not_started(error)
        return self._guard().watch(child)

    def _activate(self) -> None:
        """Puts what activating the environment changes into the child's variables and into the record."""
        task = self._task
        if task["root"] is None:
            return
        before = task["environ"]
        kept = {*(name for name, _ in task["step"]["environ"]), *task["own"]}
        task["environ"] = activation.activated(task["root"], before, kept)
        changed = activation.told(task["root"], before, task["environ"])
        if changed is not None:
            task["proof"]["record"]["activation"] = changed

    def _guard(self) -> Guard:
        from flowkiln.executor.guard import Guard  # noqa: PLC0415  while the child loads

        return Guard(self._task, self._signals)

    def _check_lease(self) -> None:
        """Raises ``Leave`` where the attempt has an outcome, or is not this container's."""
        place = f"{self._task['store']}/{self._task['key']}"
        try:
            with open(f"{place}/begin", "rb") as stream:
                begun = stream.read()
        except FileNotFoundError as error:
            raise Leave(LEASE, "nobody has begun this attempt") from error
        except OSError as error:
            message = f"the store cannot be read: {error.strerror}: {place}/begin"
            raise Leave(STORE, message) from error
        if self._task["token"].encode() not in begun:
            raise Leave(LEASE, "another container holds this attempt")
        if os.path.exists(f"{place}/outcome"):
            raise Leave(LEASE, "this attempt has ended")

    def _refuse(self, text: str) -> int:
        from flowkiln.executor.outcome import Failure  # noqa: PLC0415  before anything else was started

        failure = Failure(
            failure_class="environment",
            cause="mismatch",
            text=text,
            code=_ENVIRONMENT_MISMATCH,
            hint="`flowkiln env verify IMAGE` tells more; `flowkiln env bake` makes the image anew.",
        )
        self._seal(failure)
        return MISMATCH

    def _not_started(self, error: Exception) -> int:
        from flowkiln.executor.outcome import Failure  # noqa: PLC0415  likewise

        text = f"{self._task['command'][0] or sys.executable} could not be started: {error}"
        text = str(error) if isinstance(error, activation.ActivationError) else text
        self._seal(Failure(failure_class="environment", cause="not-started", text=text))
        return FAILED

    def _seal(self, failure: Any) -> Outcome:
        from flowkiln.executor.outcome import Outcome  # noqa: PLC0415  likewise

        return self._guard().seal(Outcome(status="failed", failure=failure, started=self._started))


def _say(text: str) -> None:
    try:
        os.write(2, f"flowkiln: {text.rstrip()}\n".encode(errors="backslashreplace"))
    except OSError:
        return
