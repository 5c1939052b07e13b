"""The launcher's side of a template: starts the process, speaks to it, notices its end."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from flowkiln.executor.channel import Channel, Closed, pair
from flowkiln.executor.classify import signal_name
from flowkiln.executor.outcome import Failure
from flowkiln.executor.template import WORKER_VARIABLE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from flowkiln._base.json import JSONObject
    from flowkiln.executor.plan import Prefix

    Message = tuple[JSONObject, list[int]]

_KEPT = 16 * 1024
"""How much of the end of a template's own output is kept, to explain a failed start."""
_READ = 64 * 1024

TemplateKey = tuple["Prefix", tuple[tuple[str, str], ...]]
"""What a template serves: one prefix with one set of ``@environment`` variables."""


@dataclass(frozen=True, kw_only=True)
class Start:
    """How to start a template. ``hello`` becomes the document that the process reads first.

    ``activation`` is what activating the environment changed in ``environ``, None where it changed nothing.
    """

    key: TemplateKey
    command: Sequence[str]
    environ: Mapping[str, str]
    folder: str
    hello: JSONObject = field(default_factory=dict)
    activation: JSONObject | None = None


class Template:
    """One running template process. ``ready`` holds what it said of itself, None until then.

    ``output`` is the read end of its own output; both it and the template itself can be given to a selector.
    ``running`` counts its attempts, ``unanswered`` the orders that it has not taken up yet; ``used`` orders
    templates by last use; ``listening`` is whether a selector watches ``output``; ``ended`` whether it was
    reaped, ``killed`` whether it had to be killed for that. Raises ``OSError`` when the process cannot be started.
    """

    def __init__(self, start: Start) -> None:
        self.key = start.key
        self.activation = start.activation
        self.ready: JSONObject | None = None
        self.running = 0
        self.unanswered = 0
        self.used = 0
        self.listening = True
        self.ended = False
        self.killed = False
        self._tail = bytearray()
        self.work = Path(tempfile.mkdtemp(prefix="flowkiln-"))
        try:
            self._start(start)
        except BaseException:
            shutil.rmtree(self.work, ignore_errors=True)
            raise

    def _start(self, start: Start) -> None:
        hello_file = self.work / "hello.json"
        hello = {
            **start.hello,
            "path": str(hello_file),
            "work": str(self.work),
            "command": list(start.command),
            "environ": dict(start.environ),
            "user_folder": start.folder,
        }
        hello_file.touch(mode=0o600)
        hello_file.write_text(json.dumps(hello))
        ours, theirs = pair()
        self.output, output = os.pipe()
        os.set_blocking(self.output, False)
        try:
            self._process = subprocess.Popen(
                start.command,
                env={**start.environ, WORKER_VARIABLE: str(theirs.fileno())},
                cwd=start.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )
        except BaseException:
            ours.close()
            os.close(self.output)
            raise
        finally:
            theirs.close()
            os.close(output)
        self.channel = Channel(ours)
        with contextlib.suppress(Closed):  # it has died at once: the next read says so
            self.channel.send({"hello": str(hello_file)})

    @property
    def pid(self) -> int:
        """Of the template's process, which leads its own session."""
        return self._process.pid

    @property
    def memory(self) -> int:
        """Bytes that it held when it was ready."""
        return 0 if self.ready is None else int(self.ready["memory"])

    def fileno(self) -> int:
        """The channel's descriptor."""
        return self.channel.fileno()

    def order(self, order: JSONObject, descriptors: Sequence[int]) -> None:
        """Asks for one attempt whose output goes to ``descriptors``. A dead template is noticed elsewhere."""
        with contextlib.suppress(Closed):
            self.channel.send({"order": order}, descriptors)
        self.unanswered += 1

    def signal(self, order: int, number: int) -> None:
        """Asks to signal the process group of an attempt, if it still runs."""
        with contextlib.suppress(Closed):
            self.channel.send({"kill": order, "signal": number})

    def end_if_stopped(self) -> None:
        """Kills the process if somebody has stopped it (SIGSTOP): it could obey no order. Its end is noticed."""
        if hasattr(os, "waitid"):  # not on macOS before Python 3.13
            with contextlib.suppress(ChildProcessError):
                if os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WNOHANG | os.WNOWAIT) is not None:
                    os.kill(self.pid, signal.SIGKILL)

    def read_output(self) -> bool:
        """Takes what the template itself printed; False at the end."""
        try:
            data = os.read(self.output, _READ)
        except BlockingIOError:
            return True
        self._tail += data
        del self._tail[:-_KEPT]
        return bool(data)

    def close(self) -> None:
        """Lets the process end; it ends attempts that still run, with grace. ``reap`` waits for it."""
        self.channel.close()

    def reap(self, timeout: float) -> int:
        """The process's return code, as ``Popen`` gives it; after ``timeout`` seconds it is killed."""
        try:
            code = self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.killed = True
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            code = self._process.wait()
        with contextlib.suppress(OSError):
            while self.read_output():
                if not self._more():
                    break
        os.close(self.output)
        self.ended = True
        return code

    def remove(self) -> None:
        """Removes the folder through which attempts hand over their results."""
        shutil.rmtree(self.work, ignore_errors=True)

    def failure_to_start(self, code: int) -> Failure:
        """Why the process ended with return code ``code`` before it was ready."""
        words = self._tail.decode("utf-8", "backslashreplace").strip()
        if code < 0:
            text = f"the process was killed by {signal_name(-code)} while it loaded the flow file"
            return Failure(failure_class="infrastructure", cause="lost", text=text, trace=words, signal=-code)
        last = words.rpartition("\n")[2] or f"exit code {code}"
        text = f"the flow file could not be loaded: {last}"
        if code == 0:
            text = "the flow file ended without starting its flow"
        return Failure(failure_class="user", cause="not-started", text=text, trace=words, exit_code=code)

    def _more(self) -> bool:
        import select  # noqa: PLC0415  only at a template's end

        return bool(select.select([self.output], [], [], 0)[0])
